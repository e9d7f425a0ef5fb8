"use strict";
/* Reach: how far along good trajectories the policy gets before and after a stage, where reach dies, and pass@k. */
{
  const { h, chart, frame, having, missing, words, estimateTable, known, go, UNKNOWN, interval, percent } = braid;
  const SIDES = { before: "#6b7785", after: "#8468bd" };
  const pale = (colour) => `${colour}33`;

  /* A curve in its band; the band's edges are no series of their own. */
  function banded(x, value, low, high, name, colour, dash) {
    const edge = {
      type: "scatter",
      mode: "lines",
      x,
      line: { width: 0, color: colour },
      showlegend: false,
      hoverinfo: "skip",
      legendgroup: name,
    };
    const curve = {
      type: "scatter",
      mode: "lines+markers",
      name,
      x,
      y: value,
      legendgroup: name,
      line: { color: colour, width: 2, dash },
      marker: { color: colour, size: x.length > 25 ? 0.1 : 5, symbol: dash === "solid" ? "circle" : "square" },
    };
    if (!low || !high) return [curve];
    return [{ ...edge, y: low }, { ...edge, y: high, fill: "tonexty", fillcolor: pale(colour) }, curve];
  }

  const sides = (of) =>
    Object.entries(SIDES).flatMap(([side, colour]) => of(side, colour, side === "before" ? "dot" : "solid"));

  function curves(found, name, title, note, axis) {
    if (!found?.at?.length || !found.before || !found.after) return null;
    const data = sides((side, colour, dash) => {
      const one = found[side];
      const tails = ["q10", "q90"]
        .filter((key) => one[key])
        .map((key) => ({
          type: "scatter",
          mode: "lines",
          name: `${side}, ${key === "q10" ? "10" : "90"} % of trajectories`,
          x: found.at,
          y: one[key],
          legendgroup: side,
          showlegend: false,
          line: { color: colour, width: 0.8, dash: "dash" },
        }));
      return [...banded(found.at, one.median, one.low, one.high, `${side}, median`, colour, dash), ...tails];
    });
    return chart({
      key: name,
      title,
      note,
      figure: frame(data, {
        xaxis: { title: { text: axis }, tickformat: name === "relative" ? ".0%" : undefined },
        yaxis: { title: { text: "log of reach, nats" } },
      }),
      height: 300,
    });
  }

  function places(found) {
    if (!found?.at?.length) return null;

    const dies = sides((side, colour) =>
      found[side]?.dies
        ? [{ type: "bar", name: side, x: found.at, y: found[side].dies, marker: { color: colour } }]
        : [],
    );
    const available = sides((side, colour, dash) => {
      const one = found[side]?.available;
      return one ? banded(found.at, one.value ?? one, one.low, one.high, side, colour, dash) : [];
    });
    const axis = { title: { text: "place in the trajectory" }, tickformat: ".0%" };
    return [
      dies.length
        ? chart({
            title: "Where reach dies",
            note: "share of good trajectories whose reach falls below epsilon in each tenth",
            figure: frame(dies, {
              xaxis: axis,
              yaxis: { title: { text: "share" }, tickformat: ".0%", rangemode: "tozero" },
              barmode: "group",
            }),
            height: 260,
          })
        : null,
      available.length
        ? chart({
            title: "Actions that are available",
            note: "share of the good tokens that the policy gives at least epsilon, by place",
            figure: frame(available, {
              xaxis: axis,
              yaxis: { title: { text: "share" }, tickformat: ".0%", range: [0, 1.03] },
            }),
            height: 260,
          })
        : null,
    ];
  }

  function passes(rows, title, note) {
    if (!rows?.length) return null;
    const k = rows.map((row) => row.k);
    const data = sides((side, colour, dash) => {
      const found = rows.map((row) => row[side] ?? {});
      return found.some((one) => known(one.value))
        ? banded(k, ...["value", "low", "high"].map((key) => found.map((one) => one[key] ?? null)), side, colour, dash)
        : [];
    });
    if (!data.length) return null;
    return chart({
      title,
      note,
      figure: frame(data, {
        xaxis: { title: { text: "k" }, type: "log", tickvals: k, ticktext: k.map(String) },
        yaxis: { title: { text: "pass@k" }, tickformat: ".0%", rangemode: "tozero" },
      }),
      height: 300,
    });
  }

  function summary(stage) {
    const change = stage.reach?.change;
    if (!change) return null;
    const rows = ["whole", "every_action"]
      .filter((key) => change[key])
      .map((key) =>
        h(
          "tr",
          {},
          h("th", { scope: "row" }, key === "whole" ? "the whole trajectory" : "every action of it"),
          ...["gained", "lost"].map((name) =>
            h(
              "td",
              { class: "n" },
              Array.isArray(change[key][name]) ? String(change[key][name].length) : braid.figure(change[key][name]),
            ),
          ),
          ...["kept", "never"].map((name) => h("td", { class: "n" }, braid.figure(change[key][name]))),
          h("td", { class: "n" }, interval(change[key].gained_share, percent)),
          h("td", { class: "n" }, interval(change[key].lost_share, percent)),
        ),
      );
    return h(
      "section",
      { class: "block" },
      h(
        "header",
        {},
        h("h3", {}, "What came into reach, and what left it"),
        h(
          "p",
          {},
          "Good trajectories of the bank whose probability (whole), or each of whose actions, is at least epsilon.",
        ),
      ),
      h(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": "What came into reach" },
        h(
          "table",
          {},
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              ["", "gained", "lost", "kept", "never", "gained, share", "lost, share"].map((name, at) =>
                h("th", { scope: "col", class: at ? "n" : "" }, name),
              ),
            ),
          ),
          h("tbody", {}, rows),
        ),
      ),
    );
  }

  function drawn({ stages }, params) {
    if (!stages.length)
      return missing(
        "Reach has not been measured yet.",
        "It is measured at the end of a stage, on a bank of good trajectories: demonstrations, a teacher's, or the run's own that passed.",
      );
    const chosen = stages.find((one) => one.stage === params.stage) ?? stages.at(-1);
    const bank = chosen.reach;
    return [
      h(
        "div",
        { class: "bar-of-tools" },
        h(
          "label",
          { class: "field" },
          "stage",
          h(
            "select",
            { value: chosen.stage, on: { change: (event) => go({ stage: event.target.value }, { replace: true }) } },
            stages.map((one) => h("option", { value: one.stage, selected: one === chosen }, one.stage)),
          ),
        ),
        h(
          "p",
          { class: "small dim" },
          chosen.measured ? `before: step ${chosen.measured.before}, after: step ${chosen.measured.after}` : "",
          bank
            ? `; ${braid.plural(bank.trajectories ?? 0, "trajectory", "trajectories")} of ${braid.plural(bank.prompts ?? 0, "prompt")}, epsilon ${bank.epsilon ?? UNKNOWN}`
            : "",
        ),
      ),
      bank
        ? null
        : missing(
            "This stage's reach was not measured.",
            "There was no bank of good trajectories. It is filled from demonstrations, from a teacher, or from what passed in the run.",
          ),
      h(
        "div",
        { class: "charts" },
        bank
          ? curves(
              bank.curves?.relative,
              "relative",
              "Prefix reach",
              "probability of the trajectory up to each place; bands are intervals of the median, dashed lines hold 80 % of trajectories",
              "place in the trajectory",
            )
          : null,
        bank
          ? curves(
              bank.curves?.absolute,
              "absolute",
              "Prefix reach by tokens",
              "the same by tokens from the start",
              "tokens",
            )
          : null,
        bank ? places(bank.places) : null,
        bank
          ? curves(bank.steps, "steps", "Prefix reach by steps", "the same by whole steps of the solution", "steps")
          : null,
        passes(
          chosen.pass_at_k,
          "pass@k",
          "unbiased; where the curves cross, more draws find again what the stage made rare",
        ),
        passes(chosen.cot_pass_at_k, "CoT-pass@k", "passes whose steps a process verifier approved"),
      ),
      summary(chosen),
      h(
        "section",
        { class: "block columns" },
        bank ? estimateTable(bank.tokens, "Tokens of good trajectories") : null,
        bank ? estimateTable(bank.ends, "Whole trajectories") : null,
        estimateTable(chosen.divergence, "Divergence"),
        estimateTable(chosen.answers, "Answers"),
      ),
    ];
  }

  braid.views.push({
    name: "reach",
    title: "Reach",
    shows: "reach",
    lead: "Teacher-forced on good trajectories: how much probability the policy gives their prefixes before and after a stage, and where it would leave them.",
    needs: (params, within) => ({ reach: ["reach", within(params)] }),
    draw: (docs, params) => having(docs.reach, (doc) => drawn(doc, params)),
  });
}
