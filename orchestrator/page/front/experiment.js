"use strict";
/* The table of an experiment: its variants with paired intervals, and what each of them changes. */
{
  const { h, figure, percent, words, brief, interval, UNKNOWN } = braid;
  const LOOKS = {
    better: "held",
    worse: "broken",
    undecided: "undecided",
    unmeasured: "unmeasured",
    baseline: "plain",
  };
  const SIGNS = { better: "▲", worse: "▼", undecided: "?", unmeasured: "–", baseline: "·" };

  const chip = (verdict) =>
    h(
      "span",
      { class: `chip ${LOOKS[verdict] ?? "plain"}` },
      h("span", { "aria-hidden": "true" }, SIGNS[verdict] ?? "·"),
      verdict ?? UNKNOWN,
    );

  const changed = (changes) =>
    Object.entries(changes ?? {}).map(([key, [from, to]]) =>
      h("div", {}, h("span", { class: "mono" }, key), ` ${brief(from)} → ${brief(to)}`),
    );

  function row(one, folder) {
    const missing = (one.runs ?? [])
      .filter((run) => run.missing)
      .map((run) => h("div", { class: "small dim" }, `seed ${run.seed}: ${run.missing}`));
    return h(
      "tr",
      { key: one.name },
      h("th", { scope: "row" }, one.name),
      h("td", { class: "n" }, interval(one.value, percent)),
      h("td", { class: "n" }, interval(one.difference, percent)),
      h("td", {}, chip(one.verdict)),
      h("td", { class: "n" }, figure(one.seeds)),
      h("td", { class: "n" }, figure(one.prompts)),
      h("td", { class: "n" }, percent(one.between_seeds, 0)),
      h(
        "td",
        { class: "text" },
        changed(one.changes),
        one.claim?.told ? h("div", { class: "small dim" }, one.claim.told) : null,
        missing,
        (one.runs ?? []).map((run) =>
          h(
            "a",
            {
              class: "small seed",
              href: braid.address("braid", {
                run: [folder, one.name, `seed-${run.seed}`].filter((part) => part && part !== ".").join("/"),
              }),
            },
            `seed ${run.seed}`,
            run.value === null ? "" : ` ${percent(run.value)}`,
          ),
        ),
      ),
    );
  }

  /* `one`: {experiment: its folder, document: as `orchestrator.experiment_table`}. */
  function experiment(one) {
    const found = one.document ?? {};
    const heads = [
      "variant",
      "value",
      "less the baseline",
      "verdict",
      "seeds",
      "prompts",
      "variance of seeds",
      "what it changes, and its runs",
    ];
    const title = `Experiment ${found.name || one.experiment}`;
    return h(
      "section",
      { class: "block", key: `experiment ${one.experiment}` },
      h(
        "header",
        {},
        h("h3", {}, title),
        h(
          "p",
          {},
          [
            found.study ? words(found.study) : "",
            found.measure ? `measured in ${words(found.measure)}${found.k ? `, k = ${found.k}` : ""}` : "",
            found.confidence
              ? `${percent(found.confidence, 0)} intervals, corrected for ${braid.plural(found.comparisons, "comparison")}`
              : "",
          ]
            .filter(Boolean)
            .join("; "),
        ),
      ),
      found.variants?.length
        ? h(
            "div",
            { class: "scroll", tabindex: "0", role: "region", "aria-label": title },
            h(
              "table",
              {},
              h(
                "thead",
                {},
                h(
                  "tr",
                  {},
                  heads.map((name, at) =>
                    h("th", { scope: "col", class: [1, 2, 4, 5, 6].includes(at) ? "n" : "" }, name),
                  ),
                ),
              ),
              h(
                "tbody",
                {},
                found.variants.map((variant) => row(variant, one.experiment)),
              ),
            ),
          )
        : h("p", { class: "dim" }, "It has no table yet: it is written when the runs end."),
      (found.notes ?? []).map((note) => h("p", { class: "small dim" }, note)),
    );
  }

  Object.assign(braid, { experiment });
}
