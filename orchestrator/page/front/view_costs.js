"use strict";
/* Costs: what each stage took, by part, and what the run paid for a sample and for a point gained. */
{
  const { h, chart, frame, having, missing, known, figure, short, clock, words, estimateTable, isEstimate, UNKNOWN } =
    braid;
  const PARTS = {
    generate: "#168aad",
    score: "#8468bd",
    train: "#c8452f",
    publish: "#8f7e00",
    ledger: "#6b7785",
    label: "#b0506c",
    other: "#868e97",
  };

  const total = (stages, key) => stages.reduce((sum, one) => sum + (one[key] || 0), 0);

  function time(stages) {
    const parts = Object.keys(PARTS).filter((part) => stages.some((one) => one.seconds?.[part] > 0));
    if (!parts.length) return null;
    const data = parts.map((part) => ({
      type: "bar",
      orientation: "h",
      name: part,
      y: stages.map((one) => one.stage),
      x: stages.map((one) => one.seconds?.[part] ?? null),
      marker: { color: PARTS[part] },
      hovertemplate: "%{x:.3s} s %{fullData.name}<extra></extra>",
    }));
    return chart({
      title: "Seconds by part",
      note: "parts overlap where samplers run ahead",
      wide: true,
      height: 110 + 34 * stages.length,
      figure: frame(data, {
        barmode: "stack",
        hovermode: "closest",
        margin: { l: 110, r: 16, t: 28, b: 36 },
        xaxis: { title: { text: "seconds" } },
        yaxis: { autorange: "reversed", showgrid: false },
      }),
    });
  }

  function table(stages) {
    const row = (name, one, whole) =>
      h(
        "tr",
        { class: whole ? "whole" : "", key: name },
        h("th", { scope: "row" }, name),
        h("td", { class: "n" }, figure(one.steps)),
        h("td", { class: "n" }, clock(one.seconds?.total)),
        ...["tokens_generated", "tokens_trained"].map((key) => h("td", { class: "n" }, figure(one[key]))),
        h(
          "td",
          { class: "n" },
          known(one.seconds?.total) && one.seconds.total > 0
            ? figure(one.tokens_generated / one.seconds.total)
            : UNKNOWN,
        ),
      );
    const seconds = { total: stages.reduce((sum, one) => sum + (one.seconds?.total || 0), 0) };
    return h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Costs by stage" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["stage", "steps", "time in steps", "tokens generated", "tokens trained", "generated a second"].map(
              (name, at) => h("th", { scope: "col", class: at ? "n" : "" }, name),
            ),
          ),
        ),
        h(
          "tbody",
          {},
          stages.map((one) => row(one.stage, one)),
          stages.length > 1
            ? row(
                "run",
                {
                  steps: total(stages, "steps"),
                  seconds,
                  tokens_generated: total(stages, "tokens_generated"),
                  tokens_trained: total(stages, "tokens_trained"),
                },
                true,
              )
            : null,
        ),
      ),
    );
  }

  /* A figure of costs as its key says: seconds, operations, tokens, money, or a plain number. */
  function paid(key, value) {
    if (value === null || value === undefined) return UNKNOWN;
    const large = Math.abs(isEstimate(value) ? value.value : value) >= 1e7;
    if (/gain/.test(key)) return braid.estimate(value, "gain");
    const how = /seconds/.test(key) ? clock : large || /flops|tokens/.test(key) ? short : figure;
    return isEstimate(value) ? braid.interval(value, how) : typeof value === "number" ? how(value) : braid.brief(value);
  }

  /* Figures by what they are of: maps of maps become tables, the rest a list. */
  function told(cost, name) {
    const groups = Object.entries(cost).filter(([, value]) => isMap(value));
    const loose = Object.entries(cost).filter(
      ([, value]) => value !== null && (typeof value === "number" || isEstimate(value)),
    );
    return h(
      "section",
      { class: "block panel", key: name },
      h("header", {}, h("h3", {}, name)),
      loose.length
        ? h(
            "dl",
            { class: "facts-of" },
            loose.map(([key, value]) => h("div", {}, h("dt", {}, words(key)), h("dd", {}, paid(key, value)))),
          )
        : null,
      h(
        "div",
        { class: "columns" },
        groups.map(([key, value]) => grouped(key, value)),
      ),
      notes(cost.said),
    );
  }

  const TITLES = {
    parts: "What it went into",
    samples: "For each accepted sample",
    point: "For each point gained",
    scaffold: "With the scaffold, and amortised",
    answers: "For each answer",
    work: "Who was asked for what",
    flops: "Operations (FLOPs) by kind",
    seconds: "Seconds by role",
    per_accepted: "For each accepted sample",
    per_point: "For each point gained",
  };
  const isMap = (value) => value && typeof value === "object" && !isEstimate(value) && !Array.isArray(value);

  /* What is not known, and why, in the words of whoever measured. */
  const notes = (said) =>
    [said]
      .flat()
      .filter((one) => typeof one === "string" && one)
      .map((one) => h("p", { class: "small dim" }, one));

  function grouped(key, value) {
    if (Object.values(value).some((inner) => isMap(inner) && Object.values(inner).some(isMap))) {
      const deep = Object.entries(value).filter(([, inner]) => isMap(inner) && Object.values(inner).some(isMap));
      const rest = Object.fromEntries(
        Object.entries(value).filter(([name]) => !deep.some(([other]) => other === name)),
      );
      return h(
        "div",
        {},
        h("h4", {}, TITLES[key] ?? words(key)),
        deep.map(([name, inner]) => grouped(name, inner)),
        grouped("", rest),
      );
    }
    const rows = Object.entries(value).filter(([name, inner]) => name !== "said" && inner !== null);
    const maps = rows.filter(
      ([, inner]) => inner && typeof inner === "object" && !isEstimate(inner) && !Array.isArray(inner),
    );
    const columns = [...new Set(maps.flatMap(([, inner]) => Object.keys(inner)))];
    if (maps.length && maps.length === rows.length && columns.length <= 8) {
      return h(
        "div",
        {
          class: `scroll${columns.length > 3 ? " across" : ""}`,
          tabindex: "0",
          role: "region",
          "aria-label": words(key),
        },
        h(
          "table",
          { class: "tight" },
          h("caption", {}, TITLES[key] ?? words(key)),
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              h("th", { scope: "col" }, ""),
              columns.map((one) => h("th", { scope: "col", class: "n" }, words(one))),
            ),
          ),
          h(
            "tbody",
            {},
            rows.map(([name, inner]) =>
              h(
                "tr",
                {},
                h("th", { scope: "row" }, words(name)),
                columns.map((one) => h("td", { class: "n" }, paid(`${key} ${name} ${one}`, inner[one]))),
              ),
            ),
          ),
        ),
      );
    }
    if (!rows.length) return h("div", {}, h("h4", {}, TITLES[key] ?? words(key)), notes(value.said));
    return h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": TITLES[key] ?? words(key) },
      notes(value.said),
      h(
        "table",
        { class: "tight" },
        h("caption", {}, TITLES[key] ?? words(key)),
        h(
          "tbody",
          {},
          braid
            .estimates(value)
            .map(([path, one]) =>
              h(
                "tr",
                {},
                h("th", { scope: "row" }, path.map(words).join(" · ")),
                h("td", { class: "n" }, paid([key, ...path].join(" "), one)),
              ),
            ),
        ),
      ),
    );
  }

  function drawn({ stages }) {
    if (!stages.length)
      return missing(
        "Nothing was spent yet.",
        "Tokens and seconds are counted from the first step on; costs by sample and by point gained follow at the end of a stage.",
      );
    const measured = stages.filter((one) => one.cost);
    return [
      table(stages),
      h("div", { class: "charts block" }, time(stages)),
      measured.length
        ? measured.map((one) => told(one.cost, `${one.stage}: what was paid for it`))
        : missing(
            "Costs by sample and by point gained are not known yet.",
            "They are written to handoffs/STAGE.json when a stage ends.",
          ),
    ];
  }

  braid.views.push({
    name: "costs",
    title: "Costs",
    shows: "costs",
    lead: "Tokens, seconds, operations and price, for each accepted sample and each point gained; with the scaffold and without.",
    needs: (params, within) => ({ costs: ["costs", within(params)] }),
    draw: (docs) => having(docs.costs, drawn),
  });
}
