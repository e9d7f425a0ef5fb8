"use strict";
/* The tokens of one trajectory: coloured by who wrote them, shaded by g; one of them is looked at more closely. */
{
  const { h, known, figure, UNKNOWN } = braid;
  const SHADES = 5;

  /* Size of g that gets the deepest shade: 19 of 20 known ones are no larger. */
  function deepest(values) {
    const sizes = values
      .filter(known)
      .map(Math.abs)
      .filter((size) => size > 0)
      .sort((a, b) => a - b);
    return sizes.length ? sizes[Math.min(sizes.length - 1, Math.floor(0.95 * sizes.length))] : 0;
  }

  function shade(g, most) {
    if (!known(g) || !most || g === 0) return "";
    const depth = Math.max(1, Math.min(SHADES, Math.ceil((SHADES * Math.abs(g)) / most)));
    return ` ${g > 0 ? "up" : "down"}${depth}`;
  }

  const piece = (tokens, at) => (tokens.pieces ? tokens.pieces[at] : `⟨${tokens.ids[at]}⟩`);

  function said(doc, at) {
    const { tokens } = doc;
    const text = braid.visible(piece(tokens, at)).replaceAll("\n", "⏎").replaceAll("\t", "⇥");
    const version = tokens.versions?.[at];
    return [
      [`token ${at + 1} of ${tokens.ids.length}`, `“${text}”`],
      ["id", String(tokens.ids[at])],
      ["written by", doc.origin_names[tokens.origins[at]] ?? UNKNOWN],
      ["version", version >= 0 ? String(version) : "none"],
      ["log p", figure(tokens.logps?.[at])],
      ["advantage", figure(tokens.advantages?.[at])],
      ["g", doc.g_known === false ? "not in this ledger" : figure(tokens.g?.[at])],
      ["trained", tokens.trained?.[at] ? "yes" : "no: masked"],
    ];
  }

  braid.kinds.tokens = {
    name: "tokens",
    mount(node, first) {
      let props = first,
        now = 0,
        spans = [],
        marked = [];
      const text = h("div", {
        class: "tokens",
        tabindex: "0",
        role: "listbox",
        "aria-label": "Tokens of the response",
        "aria-describedby": "token-said",
      });
      const panel = h("dl", { class: "token-said", id: "token-said", "aria-live": "polite" });
      node.append(text, panel);

      function fill() {
        const { tokens, origin_names: names } = props.doc;
        const most = deepest(tokens.g ?? []);
        const made = document.createDocumentFragment();
        spans = tokens.ids.map((_, at) => {
          const span = document.createElement("span");
          span.className = `token o-${names[tokens.origins[at]] ?? "none"}${shade(tokens.g?.[at], most)}${tokens.trained?.[at] === false ? " masked" : ""}`;
          span.setAttribute("role", "option");
          span.id = `token-${at}`;
          const shown = braid.visible(piece(tokens, at));
          span.textContent = shown.includes("\n") ? shown.replaceAll("\n", "⏎\n") : shown;
          made.append(span);
          return span;
        });
        text.replaceChildren(made);
        marked = [];
        now = Math.min(now, spans.length - 1);
        tell(now);
      }

      function tell(at) {
        if (!spans[at]) return braid.draw(panel, []);
        return braid.draw(
          panel,
          said(props.doc, at).map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
        );
      }

      function to(at) {
        if (!spans.length) return;
        spans[now]?.classList.remove("now");
        spans[now]?.removeAttribute("aria-selected");
        now = Math.min(Math.max(0, at), spans.length - 1);
        spans[now].classList.add("now");
        spans[now].setAttribute("aria-selected", "true");
        text.setAttribute("aria-activedescendant", `token-${now}`);
        spans[now].scrollIntoView({ block: "nearest" });
        tell(now);
      }

      /* Up or down a line: to the token that stands nearest there. */
      function line(by) {
        const here = spans[now].getBoundingClientRect();
        for (let at = now + by, best = -1, top = null, least = Infinity; at >= 0 && at < spans.length; at += by) {
          const there = spans[at].getBoundingClientRect();
          if (Math.abs(there.top - here.top) < 4) continue;
          if (top !== null && Math.abs(there.top - top) > 4) return to(best);
          top = there.top;
          const far = Math.abs(there.left - here.left);
          if (far < least) [best, least] = [at, far];
          if (at === 0 || at === spans.length - 1) return to(best);
        }
        return undefined;
      }

      text.addEventListener("keydown", (event) => {
        const moves = {
          ArrowLeft: () => to(now - 1),
          ArrowRight: () => to(now + 1),
          ArrowUp: () => line(-1),
          ArrowDown: () => line(1),
          Home: () => to(0),
          End: () => to(spans.length - 1),
          PageUp: () => to(now - 50),
          PageDown: () => to(now + 50),
        };
        if (!moves[event.key] || event.ctrlKey || event.metaKey) return;
        event.preventDefault();
        moves[event.key]();
      });
      text.addEventListener("focus", () => to(now));
      const under = (event) => (event.target.classList?.contains("token") ? Number(event.target.id.slice(6)) : -1);
      text.addEventListener("pointerover", (event) => {
        const at = under(event);
        if (at >= 0) tell(at);
      });
      text.addEventListener("pointerleave", () => tell(now));
      text.addEventListener("click", (event) => {
        const at = under(event);
        if (at >= 0) to(at);
      });

      /* Outlines the tokens [start, end) that a score is about. */
      node.outline = (start, end) => {
        for (const span of marked) span.classList.remove("spanned");
        marked = spans.slice(start, end);
        for (const span of marked) span.classList.add("spanned");
        if (marked.length) {
          text.focus({ preventScroll: true });
          to(start);
        }
      };
      fill();
      return (fresh) => {
        const same =
          fresh.doc.id === props.doc.id &&
          fresh.doc.step === props.doc.step &&
          fresh.doc.row === props.doc.row &&
          fresh.doc.tokens.ids.length === props.doc.tokens.ids.length &&
          fresh.doc.g_known === props.doc.g_known;
        if (!same) now = 0;
        props = fresh;
        if (!same) {
          fill();
          text.scrollTop = 0;
        }
      };
    },
  };

  /* What the colours, lines and shades mean; sign and size have a pattern as well as a colour. */
  function legend(doc) {
    const present = new Set(doc.tokens.origins);
    return h(
      "div",
      { class: "legend" },
      doc.origin_names.map((name, at) =>
        present.has(at)
          ? h(
              "span",
              { class: "key" },
              h("span", { class: `token o-${name} sample`, "aria-hidden": "true" }, "abc"),
              name,
            )
          : null,
      ),
      doc.g_known === false
        ? h("span", {}, "g is not in the ledger of this step")
        : [
            h(
              "span",
              { class: "key" },
              h("span", { class: "token up2 sample", "aria-hidden": "true" }, " "),
              h("span", { class: "token up5 sample", "aria-hidden": "true" }, " "),
              "g > 0: made likelier (solid)",
            ),
            h(
              "span",
              { class: "key" },
              h("span", { class: "token down2 sample", "aria-hidden": "true" }, " "),
              h("span", { class: "token down5 sample", "aria-hidden": "true" }, " "),
              "g < 0: made rarer (hatched)",
            ),
          ],
      h(
        "span",
        { class: "key" },
        h("span", { class: "token masked sample", "aria-hidden": "true" }, "abc"),
        "not trained on",
      ),
    );
  }

  braid.tokenLegend = legend;
}
