"use strict";
/* The support map: which prompts the policy solves at which checkpoint; gained and lost; a prompt's own responses. */
{
  const { h, percent, figure: told, having, missing, go, UNKNOWN, CHANGES } = braid;
  const SORTS = [
    ["gained", "gained first"],
    ["lost", "lost first"],
    ["rate", "hardest first"],
    ["-rate", "easiest first"],
    ["-change", "risen most"],
    ["change", "fallen most"],
    ["family", "by family"],
    ["id", "by name"],
    ["given", "as given"],
  ];
  // ---------------------------------------------------------------- one prompt

  const mark = (one) =>
    one.passed === null || one.passed === undefined
      ? h("span", { class: "chip unmeasured" }, `? ${one.status && one.status !== "ok" ? one.status : "no verdict"}`)
      : one.passed
        ? h("span", { class: "chip held" }, "✓ passed")
        : h("span", { class: "chip broken" }, "✗ failed");

  function responses(doc, params) {
    const count = doc.responses.filter((one) => one.passed).length;
    return h(
      "section",
      {
        class: "block panel responses",
        id: "responses",
        tabindex: "-1",
        key: "responses",
        role: "region",
        "aria-label": `Responses to ${doc.id}`,
        on: {
          keydown: (event) => {
            if (event.key === "Escape") close();
          },
        },
      },
      h(
        "header",
        { class: "spread" },
        h(
          "div",
          {},
          h("h3", {}, doc.id),
          h(
            "p",
            {},
            `${doc.family ? `${doc.family}; ` : ""}step ${doc.step}; ${count} of ${doc.responses.length} passed`,
          ),
        ),
        h("button", { class: "button", type: "button", on: { click: close } }, "Close"),
      ),
      doc.text
        ? [h("h4", {}, "Prompt"), h("pre", { class: "quoted", dir: "auto" }, doc.text.slice(0, 6000))]
        : h("p", { class: "small dim" }, "The prompt's text is in no file of this run."),
      doc.reference
        ? [h("h4", {}, "Reference"), h("pre", { class: "quoted", dir: "auto" }, String(doc.reference).slice(0, 2000))]
        : null,
      h("h4", {}, "Responses"),
      doc.responses.length
        ? h(
            "ol",
            { class: "bare answers" },
            doc.responses.map((one) =>
              h(
                "li",
                {},
                h(
                  "div",
                  { class: "small" },
                  mark(one),
                  one.sound === true ? " steps approved" : one.sound === false ? " steps not approved" : "",
                  h(
                    "span",
                    { class: "dim" },
                    ` ${one.greedy ? "greedy" : `draw ${one.draw}`} · ${told(one.tokens)} tokens${one.answer !== null && one.answer !== undefined ? ` · answers ${String(one.answer).slice(0, 60)}` : ""}`,
                  ),
                ),
                h(
                  "pre",
                  { class: "quoted", dir: "auto" },
                  one.text.length > 4000 ? `${one.text.slice(0, 4000)}… (${one.text.length} characters)` : one.text,
                ),
              ),
            ),
          )
        : h("p", { class: "small dim" }, "No responses of this step."),
    );
  }

  function close() {
    go({ prompt: "", step: "" }, { replace: true });
    document.querySelector(".grid")?.focus();
  }

  const pick = (label, name, value, options) =>
    h(
      "label",
      { class: "field" },
      label,
      h(
        "select",
        { value, on: { change: (event) => go({ [name]: event.target.value }, { replace: true }) } },
        options.map(([key, text]) => h("option", { value: key, selected: String(key) === String(value) }, text)),
      ),
    );

  function counts(doc) {
    return h(
      "dl",
      { class: "tiles" },
      Object.entries(CHANGES).map(([key, [sign, word]]) =>
        h(
          "div",
          { class: "tile" },
          h("dt", {}, h("span", { class: `sign ${key}`, "aria-hidden": "true" }, sign), ` ${word}`),
          h(
            "dd",
            {},
            told(doc.counts?.[key]),
            h(
              "small",
              {},
              {
                expanded: "prompts newly solved",
                attrited: "solved before, no longer",
                retained: "solved both times",
                undecided: "the draws do not tell",
                absent: "solved neither time",
              }[key],
            ),
          ),
        ),
      ),
    );
  }

  const legend = () =>
    h(
      "p",
      { class: "legend", "aria-hidden": "true" },
      h("span", { class: "key" }, h("span", { class: "scale" }), "pass rate, 0 to 100"),
      h("span", { class: "key" }, h("span", { class: "cell solved sample" }, ""), "solved"),
      h("span", { class: "key" }, h("span", { class: "cell undecided sample" }, ""), "undecided"),
      h("span", { class: "key" }, h("span", { class: "cell unsolved sample" }, ""), "not solved"),
      h("span", { class: "key" }, "· not asked"),
    );

  function drawn(docs, params, query) {
    return having(docs.support, (doc) => {
      if (!doc.checkpoints?.length)
        return missing(
          "No probe has been drawn yet.",
          "The map is drawn from probes: responses to held-out prompts before the run, at the ends of stages, and every probe.every steps.",
          "probe: {samples: 16}\nprompts:\n  probe: {…}",
        );
      const steps = doc.checkpoints.map((one) => [one.step, `step ${one.step}${one.stage ? `, ${one.stage}` : ""}`]);
      const index = (step) =>
        Math.max(
          0,
          doc.checkpoints.findIndex((one) => one.step === step),
        );
      return [
        counts(doc),
        h(
          "form",
          { class: "bar-of-tools", role: "search", on: { submit: (event) => event.preventDefault() } },
          h(
            "label",
            { class: "field" },
            "find",
            h("input", {
              type: "search",
              value: params.find ?? "",
              placeholder: "name or family",
              on: { change: (event) => go({ find: event.target.value }, { replace: true }) },
            }),
          ),
          pick("order", "sort", params.sort ?? "gained", SORTS),
          (doc.sets?.length ?? 0) > 1
            ? pick(
                "prompts",
                "set",
                doc.set,
                doc.sets.map((one) => [one, one]),
              )
            : null,
          braid.inline || steps.length < 2
            ? null
            : [pick("from", "before", doc.before, steps), pick("to", "after", doc.after, steps)],
        ),
        legend(),
        h(
          "div",
          { class: "beside" },
          doc.total
            ? braid.part(
                braid.kinds.map,
                {
                  doc,
                  query,
                  first: index(doc.before),
                  last: index(doc.after),
                  open: (id, step) => {
                    go({ prompt: id, step }, { replace: true });
                    waitFor("responses");
                  },
                },
                { class: "map panel", key: "map" },
              )
            : missing("No prompt has these characters.", "Search by a part of a prompt's name or of its family."),
          docs.prompt ? having(docs.prompt, (one) => responses(one, params)) : null,
        ),
        h(
          "p",
          { class: "small dim" },
          `Solved: the pass rate is shown to be at least ${told(doc.epsilon)} at ${percent(doc.confidence, 0)} confidence; changes between steps ${doc.before ?? UNKNOWN} and ${doc.after ?? UNKNOWN} are corrected for the number of prompts. Arrow keys move; Enter shows a prompt's responses.`,
        ),
      ];
    });
  }

  /* Moves the focus to what is about to be drawn. */
  function waitFor(id, tries = 40) {
    const found = document.getElementById(id);
    if (found) {
      found.focus({ preventScroll: true });
      found.scrollIntoView({ block: "nearest" });
    } else if (tries) setTimeout(() => waitFor(id, tries - 1), 50);
  }

  let query = {};
  braid.views.push({
    name: "support",
    title: "Support",
    shows: "support",
    lead: "Every held-out prompt at every probe: what became reachable, what was kept, what was lost.",
    needs: (params, within) => {
      query = within(params, {
        set: params.set,
        sort: params.sort ?? "gained",
        find: params.find,
        before: params.before,
        after: params.after,
      });
      return {
        support: ["support", query],
        ...(params.prompt
          ? { prompt: ["prompt", within(params, { id: params.prompt, set: params.set, step: params.step })] }
          : {}),
      };
    },
    draw: (docs, params) => drawn(docs, params, query),
    keys: [
      ["← ↑ → ↓", "from cell to cell (focus in the map)"],
      ["Enter", "the prompt's responses"],
      ["Esc", "back to the map"],
    ],
  });
}
