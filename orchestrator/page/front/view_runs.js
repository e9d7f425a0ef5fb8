"use strict";
/* Runs side by side: which there are, two or more of them together, and what differs in their pipelines. */
{
  const { h, chart, frame, having, missing, figure, percent, short, clock, go, UNKNOWN, SERIES, known } = braid;
  const CURVES = {
    reward_mean: ["Reward of rollouts", "mean"],
    accuracy: ["Accuracy of rollouts", "share"],
    loss: ["Loss", "loss"],
    response_length_mean: ["Response length", "tokens"],
    tokens_trained: ["Tokens trained", "tokens a step"],
  };
  const DASHES = ["solid", "dot", "dash", "dashdot"];
  const name = (one) => (one.run === "." ? one.name : one.run);

  const chosen = (params) => (params.with ? params.with.split("|").filter(Boolean) : []);

  function listed(doc, params) {
    const picked = new Set(chosen(params));
    const toggle = (run, on) => {
      if (on) picked.add(run);
      else picked.delete(run);
      go({ with: [...picked].join("|") }, { replace: true });
    };
    return h(
      "section",
      { class: "block" },
      h(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": "Runs" },
        h(
          "table",
          {},
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              ["side by side", "run", "status", "steps", "stages", "changed"].map((title) =>
                h("th", { scope: "col", class: title === "steps" ? "n" : "" }, title),
              ),
            ),
          ),
          h(
            "tbody",
            {},
            doc.runs.map((one) =>
              h(
                "tr",
                { key: one.run },
                h(
                  "td",
                  {},
                  h("input", {
                    type: "checkbox",
                    checked: picked.has(one.run),
                    "aria-label": `show ${one.run} beside others`,
                    on: { change: (event) => toggle(one.run, event.target.checked) },
                  }),
                ),
                h(
                  "th",
                  { scope: "row" },
                  h("a", { href: braid.address("braid", { run: one.run === "." ? "" : one.run }) }, name(one)),
                  one.name && one.run !== "." ? h("div", { class: "small dim light" }, one.name) : null,
                ),
                h("td", {}, one.status),
                h("td", { class: "n" }, `${figure(one.step)}${one.planned ? ` of ${figure(one.planned)}` : ""}`),
                h("td", {}, (one.stages ?? []).join(", ")),
                h("td", { class: "small" }, known(one.changed) ? braid.ago(one.changed) : UNKNOWN),
              ),
            ),
          ),
        ),
      ),
      doc.left_out
        ? h("p", { class: "small dim" }, `${figure(doc.left_out)} more runs are left out; name a folder further down.`)
        : null,
      (doc.experiments ?? []).map((one) => braid.experiment(one)),
    );
  }

  function curves(runs) {
    return Object.entries(CURVES).map(([key, [title, axis]]) => {
      const data = runs.flatMap((one, at) =>
        one.curves?.[key]
          ? [
              {
                type: "scatter",
                mode: "lines",
                name: name(one),
                x: one.curves[key].steps,
                y: one.curves[key].values,
                line: { color: SERIES[at % SERIES.length], width: 1.8, dash: DASHES[at % DASHES.length] },
              },
            ]
          : [],
      );
      return data.length
        ? chart({
            title,
            figure: frame(data, {
              xaxis: { title: { text: "step" } },
              yaxis: { title: { text: axis }, rangemode: "tozero" },
            }),
            height: 260,
          })
        : null;
    });
  }

  function probes(runs) {
    const data = runs.flatMap((one, at) => {
      const found = (one.probes ?? []).filter((probe) => known(probe.greedy?.value));
      return found.length
        ? [
            {
              type: "scatter",
              mode: "lines+markers",
              name: name(one),
              x: found.map((probe) => probe.step),
              y: found.map((probe) => probe.greedy.value),
              error_y: {
                type: "data",
                symmetric: false,
                array: found.map((probe) => probe.greedy.high - probe.greedy.value),
                arrayminus: found.map((probe) => probe.greedy.value - probe.greedy.low),
                thickness: 1.2,
                width: 4,
              },
              line: { color: SERIES[at % SERIES.length], dash: DASHES[at % DASHES.length] },
              marker: { size: 7, symbol: ["circle", "square", "diamond", "triangle-up"][at % 4] },
            },
          ]
        : [];
    });
    return data.length
      ? chart({
          title: "Accuracy of probes",
          note: "greedy, with 95 % intervals",
          wide: true,
          figure: frame(data, {
            xaxis: { title: { text: "step" } },
            yaxis: { tickformat: ".0%", rangemode: "tozero" },
          }),
        })
      : null;
  }

  /* An origin's share over the run, each bucket of steps alike. */
  function mean(one, origin) {
    const shares = (one.origins ?? []).find((found) => found.name === origin)?.shares.filter(known) ?? [];
    return shares.length ? shares.reduce((sum, share) => sum + share, 0) / shares.length : null;
  }

  function sideBySide(doc) {
    const { runs } = doc;
    const origins = [...new Set(runs.flatMap((one) => (one.origins ?? []).map((origin) => origin.name)))];
    const rows = [
      ["status", (one) => one.status],
      ["steps", (one) => figure(one.totals?.steps)],
      ["tokens trained", (one) => short(one.totals?.tokens_trained)],
      ["tokens generated", (one) => short(one.totals?.tokens_generated)],
      ["time in steps", (one) => clock(one.totals?.seconds)],
      [
        "last probe, greedy",
        (one) =>
          braid.interval((one.probes ?? []).filter((probe) => known(probe.greedy?.value)).at(-1)?.greedy, percent),
      ],
      ...origins.map((origin) => [`${origin}, mean share of a step`, (one) => percent(mean(one, origin))]),
    ];
    const differ = doc.differ ?? [];
    return [
      h(
        "section",
        { class: "block" },
        h("header", {}, h("h3", {}, "Side by side")),
        h(
          "div",
          { class: "scroll", tabindex: "0", role: "region", "aria-label": "Side by side" },
          h(
            "table",
            {},
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                h("th", { scope: "col" }, ""),
                runs.map((one, at) =>
                  h(
                    "th",
                    { scope: "col", class: "n" },
                    h("span", {
                      class: "swatch line-swatch",
                      style: { "--own": braid.hue(SERIES[at % SERIES.length]) },
                    }),
                    " ",
                    name(one),
                  ),
                ),
              ),
            ),
            h(
              "tbody",
              {},
              rows.map(([title, value]) =>
                h(
                  "tr",
                  {},
                  h("th", { scope: "row" }, title),
                  runs.map((one) => h("td", { class: "n" }, value(one))),
                ),
              ),
            ),
          ),
        ),
      ),
      h("div", { class: "charts block" }, probes(runs), curves(runs)),
      h(
        "section",
        { class: "block" },
        h("header", {}, h("h3", {}, "What differs in the pipelines")),
        differ.length
          ? h(
              "div",
              { class: "scroll", tabindex: "0", role: "region", "aria-label": "Pipelines" },
              h(
                "table",
                {},
                h(
                  "thead",
                  {},
                  h(
                    "tr",
                    {},
                    h("th", { scope: "col" }, "key"),
                    runs.map((one) => h("th", { scope: "col" }, name(one))),
                  ),
                ),
                h(
                  "tbody",
                  {},
                  differ.map((key) =>
                    h(
                      "tr",
                      {},
                      h("th", { scope: "row", class: "mono" }, key),
                      runs.map((one) => h("td", { class: "mono text" }, braid.brief(one.config?.[key]))),
                    ),
                  ),
                ),
              ),
            )
          : h("p", { class: "dim" }, "Nothing: the pipelines are the same."),
      ),
    ];
  }

  /* What `braid compare` says of the first two, with intervals paired by prompt. */
  function compared({ runs, document: found, said }) {
    const sets = Object.entries(found?.sets ?? {});
    return h(
      "section",
      { class: "block", key: "compared" },
      h(
        "header",
        {},
        h("h3", {}, `${runs?.[0] ?? "the first"} against ${runs?.[1] ?? "the second"}`),
        h(
          "p",
          {},
          "Differences, the second less the first, with their intervals, paired by prompt, as `braid compare` tells them.",
        ),
      ),
      [...(said ?? []), ...(found?.notes ?? [])].map((one) => h("p", { class: "small dim" }, one)),
      sets.length
        ? sets.map(([title, one]) => pairedSet(title, one, runs))
        : h("p", { class: "dim" }, "No probe of theirs can be compared."),
    );
  }

  function pairedSet(title, one, runs) {
    const k = [...new Set(one.runs.flatMap((run) => (run?.pass_at_k ?? []).map((row) => row.k)))];
    const at = (run, wanted) => (run?.pass_at_k ?? []).find((row) => row.k === wanted);
    const rows = [
      ...k.map((wanted) => [`pass@${wanted}`, one.runs.map((run) => at(run, wanted)), at(one.differences[1], wanted)]),
      ["greedy", one.runs.map((run) => run?.greedy), one.differences[1]?.greedy],
    ];
    const { both, only_first: first, only_this: second, neither, undecided } = one.solved?.[1] ?? {};
    return h(
      "div",
      { class: "sub", key: title },
      h(
        "div",
        { class: "scroll", tabindex: "0", role: "region", "aria-label": `Set ${title}` },
        h(
          "table",
          {},
          h("caption", {}, `${title}: ${braid.plural(one.prompts, "prompt")} that both have`),
          h(
            "thead",
            {},
            h(
              "tr",
              {},
              h("th", { scope: "col" }, ""),
              runs.map((run) => h("th", { scope: "col", class: "n" }, run)),
              h("th", { scope: "col", class: "n" }, "difference"),
            ),
          ),
          h(
            "tbody",
            {},
            rows.map(([title_, values, difference]) =>
              h(
                "tr",
                {},
                h("th", { scope: "row" }, title_),
                values.map((value) => h("td", { class: "n" }, braid.interval(value, percent))),
                h("td", { class: "n" }, braid.interval(difference, percent)),
              ),
            ),
          ),
        ),
      ),
      one.solved?.[1]
        ? h(
            "p",
            { class: "small" },
            `Solved by both ${figure(both)}, by the first alone ${figure(first)}, by the second alone ${figure(second)}, by neither ${figure(neither)}, undecided ${figure(undecided)}.`,
          )
        : null,
    );
  }

  braid.views.push({
    name: "runs",
    title: "Runs",
    lead: "Runs of this folder, and any of them side by side.",
    needs: (params) =>
      braid.inline
        ? {}
        : {
            runs: ["runs", {}],
            ...(chosen(params).length > 1
              ? {
                  compare: ["compare", { runs: chosen(params).join(",") }],
                  comparison: ["comparison", { runs: chosen(params).slice(0, 2).join(",") }],
                }
              : {}),
          },
    draw: (docs, params) =>
      braid.inline
        ? missing(
            "This file holds one run.",
            "Runs stand side by side on the page that the server shows, and in the terminal:",
            "braid ui RUNS_FOLDER\nbraid compare RUN RUN",
          )
        : having(docs.runs, (doc) => [
            listed(doc, params),
            docs.compare
              ? [having(docs.compare, sideBySide), having(docs.comparison, compared)]
              : doc.runs.length > 1
                ? h("p", { class: "dim" }, "Tick two runs or more to see them side by side.")
                : missing(
                    "There is one run here.",
                    "Start the page on the folder that holds several to see them side by side.",
                    "braid ui runs",
                  ),
          ]),
  });
}
