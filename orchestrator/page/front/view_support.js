"use strict";
/* The support map: which prompts the policy solves at which checkpoint; gained and lost; a prompt's own responses. */
{
  const { h, known, percent, figure: told, having, missing, go, UNKNOWN } = braid;
  const CHANGES = { expanded: ["▲", "gained"], attrited: ["▼", "lost"], retained: ["●", "kept"], undecided: ["?", "undecided"], absent: ["·", "neither"] };
  const SORTS = [["gained", "gained first"], ["lost", "lost first"], ["rate", "hardest first"], ["-rate", "easiest first"], ["-change", "risen most"], ["change", "fallen most"], ["family", "by family"], ["id", "by name"], ["given", "as given"]];
  const ROW = 25, SHOWN = 18;

  const seen = (prompt, at, checkpoints) => {
    const step = checkpoints[at].step;
    if (prompt.n[at] === null || prompt.n[at] === undefined) return `${prompt.id}, step ${step}: not asked`;
    const greedy = known(prompt.greedy?.[at]) ? `, greedy ${prompt.greedy[at] ? "passes" : "fails"}` : "";
    return `${prompt.id}, step ${step}: ${prompt.c[at]} of ${prompt.n[at]} passed${prompt.state?.[at] ? `, ${prompt.state[at]}` : ""}${greedy}`;
  };

  /* Rows of prompts, columns of checkpoints; only the rows in sight are elements, and the rest is asked for on the way. */
  const map = {
    name: "map",
    mount(node, first) {
      let props = first, row = 0, column = Math.max(0, first.doc.checkpoints.length - 1), rows = [], asking = false;
      const body = h("div", { class: "rows" });
      const grid = h("div", { class: "grid", role: "grid", tabindex: "0", "aria-label": "Support map: prompts by checkpoints", "aria-describedby": "map-said" });
      const top = h("div", { class: "top", role: "rowgroup" });
      const said = h("p", { class: "said-cell small", id: "map-said", "aria-live": "polite" });
      grid.append(top, body);
      node.append(grid, said);
      const widths = () => `minmax(84px, 148px) ${innerWidth > 900 ? "minmax(0, 96px) " : ""}repeat(${props.doc.checkpoints.length}, minmax(30px, 46px)) 44px`;
      const at = (index) => rows[index];

      function cell(prompt, index, checkpoint) {
        const rate = prompt.rate?.[checkpoint];
        const state = prompt.state?.[checkpoint] ?? "none";
        const here = index === row && checkpoint === column;
        return h("span", { class: `cell ${state}${known(rate) && rate > (braid.dark() ? 0.67 : 0.78) ? " full" : ""}${here ? " here" : ""}`, role: "gridcell", id: `cell-${index}-${checkpoint}`, "aria-label": seen(prompt, checkpoint, props.doc.checkpoints), "aria-colindex": checkpoint + 3, "data-row": index, "data-column": checkpoint, style: { "--rate": known(rate) ? `${(100 * rate).toFixed(0)}%` : "0%" } }, known(rate) ? String(Math.round(100 * rate)) : "·");
      }

      function line(prompt, index) {
        const [sign, word] = CHANGES[prompt.change] ?? ["", ""];
        const ends = prompt.rate ? [prompt.rate[props.first], prompt.rate[props.last]] : [];
        return h("div", { class: `line${index === row ? " now" : ""}`, role: "row", key: prompt.id, "aria-rowindex": index + 2, style: { transform: `translateY(${index * ROW}px)`, "grid-template-columns": widths() } },
          h("span", { class: "who", role: "rowheader", title: braid.visible(prompt.id) }, h("span", { class: `sign ${prompt.change ?? ""}`, role: "img", "aria-label": word }, sign), prompt.id),
          h("span", { class: "family", role: "gridcell" }, prompt.family),
          props.doc.checkpoints.map((_, checkpoint) => cell(prompt, index, checkpoint)),
          h("span", { class: "rise", role: "gridcell" }, ends.every(known) && ends.length ? `${ends[1] >= ends[0] ? "+" : "−"}${Math.round(Math.abs(100 * (ends[1] - ends[0])))}` : ""));
      }

      function header() {
        braid.draw(top, h("div", { class: "line heads", role: "row", "aria-rowindex": 1, style: { "grid-template-columns": widths() } },
          h("span", { role: "columnheader" }, "prompt"), h("span", { role: "columnheader", class: "family" }, "family"),
          props.doc.checkpoints.map((one) => h("span", { class: "head-cell", role: "columnheader", title: `step ${one.step}${one.stage ? `, after ${one.stage}` : ""}: ${told(one.solved)} solved, mean ${percent(one.rate)}` }, String(one.step))),
          h("span", { role: "columnheader", title: "change in the pass rate, hundredths" }, "Δ")));
      }

      function paint() {
        const from = Math.max(0, Math.floor(grid.scrollTop / ROW) - 6), to = Math.min(props.doc.total, from + SHOWN + 14);
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
        said.textContent = braid.visible(`${seen(prompt, column, props.doc.checkpoints)}${prompt.change ? `; ${CHANGES[prompt.change]?.[1] ?? prompt.change} since step ${props.doc.before}` : ""}`);
      }

      async function ask(index) {
        if (asking) return;
        asking = true;
        try {
          const size = 200, offset = Math.floor(index / size) * size;
          const more = await braid.get("support", { ...props.query, offset, limit: size });
          more.prompts.forEach((prompt, place) => { rows[offset + place] = prompt; });
          if (more.prompts.length) { asking = false; paint(); }
        } catch (error) {
          said.textContent = String(error.message);
        } finally { asking = false; }
      }

      function to(nextRow, nextColumn) {
        row = Math.min(Math.max(0, nextRow), props.doc.total - 1);
        column = Math.min(Math.max(0, nextColumn), props.doc.checkpoints.length - 1);
        const above = row * ROW, seenHeight = grid.clientHeight - top.offsetHeight;
        if (above < grid.scrollTop) grid.scrollTop = above;
        else if (above + ROW > grid.scrollTop + seenHeight) grid.scrollTop = above + ROW - seenHeight;
        paint();
        const here = grid.querySelector(".cell.here");
        if (here && grid.scrollWidth > grid.clientWidth) here.scrollIntoView({ block: "nearest", inline: "nearest" });
      }

      grid.addEventListener("keydown", (event) => {
        const page = SHOWN - 2;
        const moves = { ArrowUp: [row - 1, column], ArrowDown: [row + 1, column], ArrowLeft: [row, column - 1], ArrowRight: [row, column + 1], PageUp: [row - page, column], PageDown: [row + page, column], Home: event.ctrlKey ? [0, 0] : [row, 0], End: event.ctrlKey ? [props.doc.total - 1, Infinity] : [row, Infinity] };
        if (moves[event.key]) { event.preventDefault(); to(...moves[event.key]); }
        else if (event.key === "Enter" || event.key === " ") { event.preventDefault(); open(); }
      });
      const open = () => { if (at(row)) props.open(at(row).id, props.doc.checkpoints[column].step); };
      const under = (event) => event.target.closest?.(".cell");
      body.addEventListener("pointerover", (event) => { const one = under(event); if (one && !grid.matches(":focus-visible")) said.textContent = braid.visible(one.getAttribute("aria-label")); });
      body.addEventListener("click", (event) => { const one = under(event); const who = event.target.closest?.(".line"); if (one) { to(Number(one.dataset.row), Number(one.dataset.column)); open(); } else if (who) { to(Number(who.getAttribute("aria-rowindex")) - 2, column); open(); } });
      let frame = 0;
      grid.addEventListener("scroll", () => { cancelAnimationFrame(frame); frame = requestAnimationFrame(paint); });

      function take(fresh, keep) {
        const held = keep && at(row)?.id;
        props = fresh;
        rows = [];
        fresh.doc.prompts.forEach((prompt, place) => { rows[fresh.doc.offset + place] = prompt; });
        const found = held ? rows.findIndex((one) => one?.id === held) : -1;
        if (!keep) { row = 0; grid.scrollTop = 0; } else if (found >= 0) row = found;
        column = Math.min(column, fresh.doc.checkpoints.length - 1);
        grid.style.maxHeight = `${Math.min(SHOWN, fresh.doc.total + 1) * ROW + 40}px`;
        header();
        paint();
      }
      take(first, false);
      return (fresh) => take(fresh, JSON.stringify(fresh.query) === JSON.stringify(props.query));
    },
  };

  // ---------------------------------------------------------------- one prompt

  const mark = (one) => (one.passed === null || one.passed === undefined ? h("span", { class: "chip unmeasured" }, `? ${one.status && one.status !== "ok" ? one.status : "no verdict"}`) : one.passed ? h("span", { class: "chip held" }, "✓ passed") : h("span", { class: "chip broken" }, "✗ failed"));

  function responses(doc, params) {
    const count = doc.responses.filter((one) => one.passed).length;
    return h("section", { class: "block panel responses", id: "responses", tabindex: "-1", key: "responses", role: "region", "aria-label": `Responses to ${doc.id}`, on: { keydown: (event) => { if (event.key === "Escape") close(); } } },
      h("header", { class: "spread" }, h("div", {}, h("h3", {}, doc.id), h("p", {}, `${doc.family ? `${doc.family}; ` : ""}step ${doc.step}; ${count} of ${doc.responses.length} passed`)), h("button", { class: "button", type: "button", on: { click: close } }, "Close")),
      doc.text ? [h("h4", {}, "Prompt"), h("pre", { class: "quoted", dir: "auto" }, doc.text.slice(0, 6000))] : h("p", { class: "small dim" }, "The prompt's text is in no file of this run."),
      doc.reference ? [h("h4", {}, "Reference"), h("pre", { class: "quoted", dir: "auto" }, String(doc.reference).slice(0, 2000))] : null,
      h("h4", {}, "Responses"),
      doc.responses.length ? h("ol", { class: "bare answers" }, doc.responses.map((one) => h("li", {}, h("div", { class: "small" }, mark(one), one.sound === true ? " steps approved" : one.sound === false ? " steps not approved" : "", h("span", { class: "dim" }, ` ${one.greedy ? "greedy" : `draw ${one.draw}`} · ${told(one.tokens)} tokens${one.answer !== null && one.answer !== undefined ? ` · answers ${String(one.answer).slice(0, 60)}` : ""}`)), h("pre", { class: "quoted", dir: "auto" }, one.text.length > 4000 ? `${one.text.slice(0, 4000)}… (${one.text.length} characters)` : one.text)))) : h("p", { class: "small dim" }, "No responses of this step."));
  }

  function close() {
    go({ prompt: "", step: "" }, { replace: true });
    document.querySelector(".grid")?.focus();
  }

  const pick = (label, name, value, options) => h("label", { class: "field" }, label, h("select", { value, on: { change: (event) => go({ [name]: event.target.value }, { replace: true }) } }, options.map(([key, text]) => h("option", { value: key, selected: String(key) === String(value) }, text))));

  function counts(doc) {
    return h("dl", { class: "tiles" }, Object.entries(CHANGES).map(([key, [sign, word]]) => h("div", { class: "tile" }, h("dt", {}, h("span", { class: `sign ${key}`, "aria-hidden": "true" }, sign), ` ${word}`), h("dd", {}, told(doc.counts?.[key]), h("small", {}, { expanded: "prompts newly solved", attrited: "solved before, no longer", retained: "solved both times", undecided: "the draws do not tell", absent: "solved neither time" }[key])))));
  }

  const legend = () => h("p", { class: "legend", "aria-hidden": "true" },
    h("span", { class: "key" }, h("span", { class: "scale" }), "pass rate, 0 to 100"), h("span", { class: "key" }, h("span", { class: "cell solved sample" }, ""), "solved"), h("span", { class: "key" }, h("span", { class: "cell undecided sample" }, ""), "undecided"), h("span", { class: "key" }, h("span", { class: "cell unsolved sample" }, ""), "not solved"), h("span", { class: "key" }, "· not asked"));

  function drawn(docs, params, query) {
    return having(docs.support, (doc) => {
      if (!doc.checkpoints?.length) return missing("No probe has been drawn yet.", "The map is drawn from probes: responses to held-out prompts before the run, at the ends of stages, and every probe.every steps.", "probe: {samples: 16}\nprompts:\n  probe: {…}");
      const steps = doc.checkpoints.map((one) => [one.step, `step ${one.step}${one.stage ? `, ${one.stage}` : ""}`]);
      const index = (step) => Math.max(0, doc.checkpoints.findIndex((one) => one.step === step));
      return [
        counts(doc),
        h("form", { class: "bar-of-tools", role: "search", on: { submit: (event) => event.preventDefault() } },
          h("label", { class: "field" }, "find", h("input", { type: "search", value: params.find ?? "", placeholder: "name or family", on: { change: (event) => go({ find: event.target.value }, { replace: true }) } })),
          pick("order", "sort", params.sort ?? "gained", SORTS),
          (doc.sets?.length ?? 0) > 1 ? pick("prompts", "set", doc.set, doc.sets.map((one) => [one, one])) : null,
          braid.inline || steps.length < 2 ? null : [pick("from", "before", doc.before, steps), pick("to", "after", doc.after, steps)]),
        legend(),
        h("div", { class: "beside" }, doc.total ? braid.part(map, { doc, query, first: index(doc.before), last: index(doc.after), open: (id, step) => { go({ prompt: id, step }, { replace: true }); waitFor("responses"); } }, { class: "map panel", key: "map" }) : missing("No prompt has these characters.", "Search by a part of a prompt's name or of its family."),
        docs.prompt ? having(docs.prompt, (one) => responses(one, params)) : null),
        h("p", { class: "small dim" }, `Solved: the pass rate is shown to be at least ${told(doc.epsilon)} at ${percent(doc.confidence, 0)} confidence; changes between steps ${doc.before ?? UNKNOWN} and ${doc.after ?? UNKNOWN} are corrected for the number of prompts. Arrow keys move; Enter shows a prompt's responses.`),
      ];
    });
  }

  /* Moves the focus to what is about to be drawn. */
  function waitFor(id, tries = 40) {
    const found = document.getElementById(id);
    if (found) { found.focus({ preventScroll: true }); found.scrollIntoView({ block: "nearest" }); } else if (tries) setTimeout(() => waitFor(id, tries - 1), 50);
  }

  let query = {};
  braid.views.push({
    name: "support", title: "Support", shows: "support",
    lead: "Every held-out prompt at every probe: what became reachable, what was kept, what was lost.",
    needs: (params, within) => {
      query = within(params, { set: params.set, sort: params.sort ?? "gained", find: params.find, before: params.before, after: params.after });
      return { support: ["support", query], ...(params.prompt ? { prompt: ["prompt", within(params, { id: params.prompt, set: params.set, step: params.step })] } : {}) };
    },
    draw: (docs, params) => drawn(docs, params, query),
    keys: [["← ↑ → ↓", "from cell to cell (focus in the map)"], ["Enter", "the prompt's responses"], ["Esc", "back to the map"]],
  });

  // ---------------------------------------------------------------- a file's own answers

  braid.answers.support = (docs, { set: name, sort = "gained", find = "", offset = 0, limit = 200 }) => {
    const doc = docs[name || Object.keys(docs)[0]];
    if (!doc) return { checkpoints: [], prompts: [], total: 0, offset: 0 };
    const wanted = find.toLowerCase();
    const kept = doc.prompts.filter((one) => !wanted || one.id.toLowerCase().includes(wanted) || String(one.family).toLowerCase().includes(wanted));
    const first = doc.checkpoints.findIndex((one) => one.step === doc.before), last = doc.checkpoints.findIndex((one) => one.step === doc.after);
    const rate = (one) => one.rate?.[last] ?? -1, rise = (one) => (one.rate?.[last] ?? 0) - (one.rate?.[first] ?? 0);
    const keys = { rate, "-rate": (one) => -rate(one), change: rise, "-change": (one) => -rise(one), gained: (one) => [Number(one.change !== "expanded"), -rise(one)], lost: (one) => [Number(one.change !== "attrited"), rise(one)] };
    const order = (a, b) => (a < b ? -1 : a > b ? 1 : 0);
    if (sort === "family" || sort === "id") kept.sort((a, b) => (sort === "family" ? order(a.family, b.family) : 0) || order(a.id, b.id));
    else if (keys[sort]) kept.sort((a, b) => [keys[sort](a)].flat().reduce((found, one, at) => found || order(one, [keys[sort](b)].flat()[at]), 0));
    return { ...doc, prompts: kept.slice(+offset, +offset + +limit), total: kept.length, offset: +offset };
  };

  braid.answers.prompt = (docs, { id, set: name = "probe", step }) => {
    const found = docs[name]?.[id];
    const steps = Object.keys(found ?? {});
    const at = step !== undefined && found?.[step] ? step : steps.at(-1);
    if (!found || (step !== undefined && !found[step])) throw new braid.Failed("The prompt's responses", "this file does not hold them: of many prompts and probes it keeps some", "`braid ui DIR` shows all");
    return found[at];
  };
}
