"use strict";
/* The support map itself: a grid that is walked with the arrow keys, of which only the rows in sight are elements. */
{
  const { h, known, percent, figure: told } = braid;
  const CHANGES = {
    expanded: ["▲", "gained"],
    attrited: ["▼", "lost"],
    retained: ["●", "kept"],
    undecided: ["?", "undecided"],
    absent: ["·", "neither"],
  };
  const ROW = 25,
    SHOWN = 18;

  const seen = (prompt, at, checkpoints) => {
    const step = checkpoints[at].step;
    if (prompt.n[at] === null || prompt.n[at] === undefined) return `${prompt.id}, step ${step}: not asked`;
    const greedy = known(prompt.greedy?.[at]) ? `, greedy ${prompt.greedy[at] ? "passes" : "fails"}` : "";
    return `${prompt.id}, step ${step}: ${prompt.c[at]} of ${prompt.n[at]} passed${prompt.state?.[at] ? `, ${prompt.state[at]}` : ""}${greedy}`;
  };

  /* Rows of prompts, columns of checkpoints; only the rows in sight are elements, and the rest is asked for on the way. */
  braid.kinds.map = {
    name: "map",
    mount(node, first) {
      let props = first,
        row = 0,
        column = Math.max(0, first.doc.checkpoints.length - 1),
        rows = [],
        asking = false;
      const body = h("div", { class: "rows" });
      const grid = h("div", {
        class: "grid",
        role: "grid",
        tabindex: "0",
        "aria-label": "Support map: prompts by checkpoints",
        "aria-describedby": "map-said",
      });
      const top = h("div", { class: "top", role: "rowgroup" });
      const said = h("p", { class: "said-cell small", id: "map-said", "aria-live": "polite" });
      grid.append(top, body);
      node.append(grid, said);
      const widths = () =>
        `minmax(84px, 148px) ${innerWidth > 900 ? "minmax(0, 96px) " : ""}repeat(${props.doc.checkpoints.length}, minmax(30px, 46px)) 44px`;
      const at = (index) => rows[index];

      function cell(prompt, index, checkpoint) {
        const rate = prompt.rate?.[checkpoint];
        const state = prompt.state?.[checkpoint] ?? "none";
        const here = index === row && checkpoint === column;
        return h(
          "span",
          {
            class: `cell ${state}${known(rate) && rate > (braid.dark() ? 0.67 : 0.78) ? " full" : ""}${here ? " here" : ""}`,
            role: "gridcell",
            id: `cell-${index}-${checkpoint}`,
            "aria-label": seen(prompt, checkpoint, props.doc.checkpoints),
            "aria-colindex": checkpoint + 3,
            "data-row": index,
            "data-column": checkpoint,
            style: { "--rate": known(rate) ? `${(100 * rate).toFixed(0)}%` : "0%" },
          },
          known(rate) ? String(Math.round(100 * rate)) : "·",
        );
      }

      function line(prompt, index) {
        const [sign, word] = CHANGES[prompt.change] ?? ["", ""];
        const ends = prompt.rate ? [prompt.rate[props.first], prompt.rate[props.last]] : [];
        return h(
          "div",
          {
            class: `line${index === row ? " now" : ""}`,
            role: "row",
            key: prompt.id,
            "aria-rowindex": index + 2,
            style: { transform: `translateY(${index * ROW}px)`, "grid-template-columns": widths() },
          },
          h(
            "span",
            { class: "who", role: "rowheader", title: braid.visible(prompt.id) },
            h("span", { class: `sign ${prompt.change ?? ""}`, role: "img", "aria-label": word }, sign),
            prompt.id,
          ),
          h("span", { class: "family", role: "gridcell" }, prompt.family),
          props.doc.checkpoints.map((_, checkpoint) => cell(prompt, index, checkpoint)),
          h(
            "span",
            { class: "rise", role: "gridcell" },
            ends.every(known) && ends.length
              ? `${ends[1] >= ends[0] ? "+" : "−"}${Math.round(Math.abs(100 * (ends[1] - ends[0])))}`
              : "",
          ),
        );
      }

      function header() {
        braid.draw(
          top,
          h(
            "div",
            { class: "line heads", role: "row", "aria-rowindex": 1, style: { "grid-template-columns": widths() } },
            h("span", { role: "columnheader" }, "prompt"),
            h("span", { role: "columnheader", class: "family" }, "family"),
            props.doc.checkpoints.map((one) =>
              h(
                "span",
                {
                  class: "head-cell",
                  role: "columnheader",
                  title: `step ${one.step}${one.stage ? `, after ${one.stage}` : ""}: ${told(one.solved)} solved, mean ${percent(one.rate)}`,
                },
                String(one.step),
              ),
            ),
            h("span", { role: "columnheader", title: "change in the pass rate, hundredths" }, "Δ"),
          ),
        );
      }

      function paint() {
        const from = Math.max(0, Math.floor(grid.scrollTop / ROW) - 6),
          to = Math.min(props.doc.total, from + SHOWN + 14);
        body.style.height = `${props.doc.total * ROW}px`;
        grid.setAttribute("aria-rowcount", props.doc.total + 1);
        grid.setAttribute("aria-colcount", props.doc.checkpoints.length + 3);
        const lines = [];
        let lacking = -1;
        for (let index = from; index < to; index += 1) {
          if (at(index)) lines.push(line(at(index), index));
          else if (lacking < 0) lacking = index;
        }
        braid.draw(body, lines);
        if (lacking >= 0) ask(lacking);
        point();
      }

      function point() {
        const prompt = at(row);
        if (!prompt) return;
        grid.setAttribute("aria-activedescendant", `cell-${row}-${column}`);
        said.textContent = braid.visible(
          `${seen(prompt, column, props.doc.checkpoints)}${prompt.change ? `; ${CHANGES[prompt.change]?.[1] ?? prompt.change} since step ${props.doc.before}` : ""}`,
        );
      }

      async function ask(index) {
        if (asking) return;
        asking = true;
        try {
          const size = 200,
            offset = Math.floor(index / size) * size;
          const more = await braid.get("support", { ...props.query, offset, limit: size });
          more.prompts.forEach((prompt, place) => {
            rows[offset + place] = prompt;
          });
          if (more.prompts.length) {
            asking = false;
            paint();
          }
        } catch (error) {
          said.textContent = String(error.message);
        } finally {
          asking = false;
        }
      }

      function to(nextRow, nextColumn) {
        row = Math.min(Math.max(0, nextRow), props.doc.total - 1);
        column = Math.min(Math.max(0, nextColumn), props.doc.checkpoints.length - 1);
        const above = row * ROW,
          seenHeight = grid.clientHeight - top.offsetHeight;
        if (above < grid.scrollTop) grid.scrollTop = above;
        else if (above + ROW > grid.scrollTop + seenHeight) grid.scrollTop = above + ROW - seenHeight;
        paint();
        const here = grid.querySelector(".cell.here");
        if (here && grid.scrollWidth > grid.clientWidth) here.scrollIntoView({ block: "nearest", inline: "nearest" });
      }

      grid.addEventListener("keydown", (event) => {
        const page = SHOWN - 2;
        const moves = {
          ArrowUp: [row - 1, column],
          ArrowDown: [row + 1, column],
          ArrowLeft: [row, column - 1],
          ArrowRight: [row, column + 1],
          PageUp: [row - page, column],
          PageDown: [row + page, column],
          Home: event.ctrlKey ? [0, 0] : [row, 0],
          End: event.ctrlKey ? [props.doc.total - 1, Infinity] : [row, Infinity],
        };
        if (moves[event.key]) {
          event.preventDefault();
          to(...moves[event.key]);
        } else if (event.key === "Enter" || event.key === " ") {
          event.preventDefault();
          open();
        }
      });
      const open = () => {
        if (at(row)) props.open(at(row).id, props.doc.checkpoints[column].step);
      };
      const under = (event) => event.target.closest?.(".cell");
      body.addEventListener("pointerover", (event) => {
        const one = under(event);
        if (one && !grid.matches(":focus-visible")) said.textContent = braid.visible(one.getAttribute("aria-label"));
      });
      body.addEventListener("click", (event) => {
        const one = under(event);
        const who = event.target.closest?.(".line");
        if (one) {
          to(Number(one.dataset.row), Number(one.dataset.column));
          open();
        } else if (who) {
          to(Number(who.getAttribute("aria-rowindex")) - 2, column);
          open();
        }
      });
      let frame = 0;
      grid.addEventListener("scroll", () => {
        cancelAnimationFrame(frame);
        frame = requestAnimationFrame(paint);
      });

      function take(fresh, keep) {
        const held = keep && at(row)?.id;
        props = fresh;
        rows = [];
        fresh.doc.prompts.forEach((prompt, place) => {
          rows[fresh.doc.offset + place] = prompt;
        });
        const found = held ? rows.findIndex((one) => one?.id === held) : -1;
        if (!keep) {
          row = 0;
          grid.scrollTop = 0;
        } else if (found >= 0) row = found;
        column = Math.min(column, fresh.doc.checkpoints.length - 1);
        grid.style.maxHeight = `${Math.min(SHOWN, fresh.doc.total + 1) * ROW + 40}px`;
        header();
        paint();
      }
      take(first, false);
      return (fresh) => take(fresh, JSON.stringify(fresh.query) === JSON.stringify(props.query));
    },
  };

  Object.assign(braid, { CHANGES });
}
