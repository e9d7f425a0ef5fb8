"use strict";
/* The braid: who wrote the tokens that train, step by step, with the stages behind and the decisions beneath. */
{
  const { h, chart, frame, bands, known, percent, figure: told, interval, clock, having, missing, go } = braid;
  const SERIES = ["#168aad", "#c8452f", "#8468bd", "#8f7e00", "#5c6b7a", "#b0506c"];
  const wrapped = (text, width = 64) =>
    braid
      .visible(text)
      .slice(0, 260)
      .replace(new RegExp(`(.{1,${width}})(\\s|$)`, "g"), (_, line) => `${line}<br>`)
      .replace(/(<br>)+$/, "");

  const tinted = (colour) => `${colour}d9`;

  /* Ribbons of shares, or of tokens about a middle line; bars where there are too few steps for a ribbon. */
  function stream(doc, strands, tokens, reasons) {
    const parts = strands
      ? doc.strands.map((one, at) => ({ ...one, colour: SERIES[at % SERIES.length] }))
      : doc.origins;
    const few = doc.steps.length < 3;
    const middle = doc.until.map((until, at) => (until + doc.steps[at]) / 2);
    const size = (share, at) => (share === null ? null : tokens ? share * (doc.tokens[at] || 0) : share);
    const data = parts.map((one) => ({
      type: few ? "bar" : "scatter",
      mode: "lines",
      name: one.name,
      x: middle,
      y: one.shares.map(size),
      customdata: one.shares,
      hovertemplate: tokens ? "%{customdata:.1%}, %{y:,.3s} tokens" : "%{y:.1%}",
      ...(few
        ? { marker: { color: one.colour } }
        : {
            stackgroup: "braid",
            line: {
              width: 0,
              color: one.colour,
              shape: doc.exact && doc.steps.length < 80 ? "spline" : "linear",
              smoothing: 0.5,
            },
            fillcolor: tinted(one.colour),
          }),
    }));
    if (tokens && !few)
      data.unshift({
        type: "scatter",
        mode: "lines",
        x: middle,
        y: doc.tokens.map((count) => -(count || 0) / 2),
        stackgroup: "braid",
        line: { width: 0 },
        fillcolor: "rgba(0,0,0,0)",
        hoverinfo: "skip",
        showlegend: false,
      });
    if (reasons)
      data.push({
        type: "scatter",
        mode: "markers",
        name: "why",
        x: reasons.until,
        y: reasons.until.map(() => (tokens ? 0 : 0.5)),
        text: reasons.reasons.map((one) => wrapped(one) || "no reason was given"),
        hovertemplate: "%{text}<extra></extra>",
        marker: { size: 1, opacity: 0 },
        showlegend: false,
      });
    const edges = doc.stages.slice(1).map((one) => ({
      type: "line",
      xref: "x",
      yref: "paper",
      layer: "above",
      x0: one.first - 0.5,
      x1: one.first - 0.5,
      y0: 0,
      y1: 1,
      line: { width: 1.5, dash: "3px,3px", color: "ground" },
    }));
    const names = bands(doc.stages).annotations.map((one) => ({ ...one, y: 1, yanchor: "bottom", opacity: 1 }));
    const range = few ? undefined : [doc.steps[0] - 0.5, doc.until.at(-1) + 0.5];
    const layout = {
      shapes: edges,
      annotations: names,
      barmode: "stack",
      margin: { l: 52, r: 14, t: 46, b: 24 },
      legend: { orientation: "h", y: 1.07, yanchor: "bottom", x: 0, traceorder: "normal" },
      xaxis: {
        title: { text: "" },
        automargin: false,
        zeroline: false,
        showgrid: false,
        range,
        unifiedhovertitle: { text: "step %{x}" },
      },
      yaxis: tokens
        ? {
            title: { text: "trained tokens" },
            automargin: false,
            showticklabels: false,
            zeroline: false,
            showgrid: false,
          }
        : { range: [0, 1], tickformat: ".0%", automargin: false, showgrid: false },
    };
    return frame(data, layout);
  }

  /* The strip keeps to what the stream shows when somebody zooms. */
  function tied(plot) {
    plot.on("plotly_relayout", () =>
      document.querySelector("[data-part=strip]")?.zoomed?.(plot._fullLayout.xaxis.range),
    );
    document.querySelector("[data-part=strip]")?.zoomed?.(plot._fullLayout.xaxis.range);
  }

  // ---------------------------------------------------------------- stages

  /* Each origin's share of the tokens of steps first..last, from the stream's buckets. */
  function sharesOf(doc, first, last) {
    const sums = new Map(doc.origins.map((one) => [one, 0]));
    let whole = 0;
    doc.steps.forEach((from, at) => {
      if (from < first || doc.until[at] > last) return;
      whole += doc.tokens[at] || 0;
      for (const one of doc.origins) sums.set(one, sums.get(one) + (one.shares[at] || 0) * (doc.tokens[at] || 0));
    });
    return whole ? [...sums].map(([one, sum]) => [one, sum / whole]).filter(([, share]) => share > 0) : [];
  }

  const ribbon = (shares) => [
    h(
      "div",
      { class: "ribbon", "aria-hidden": "true" },
      shares.map(([one, share]) =>
        h("span", { style: { width: `${100 * share}%`, background: `var(--origin-${one.name})` } }),
      ),
    ),
    h(
      "div",
      { class: "small dim" },
      shares.map(([one, share]) => `${one.name} ${percent(share, share > 0.995 || share < 0.1 ? 1 : 0)}`).join(" · ") ||
        "nothing trained yet",
    ),
  ];

  function stageRows(run, doc, curves, handoffs) {
    const probes = curves instanceof Error ? [] : curves.probes.filter((one) => known(one.greedy.value));
    const ends = new Map(handoffs instanceof Error ? [] : handoffs.stages.map((one) => [one.stage, one]));
    const at = (step) => probes.filter((one) => one.step <= step).at(-1);
    return run.stages.map((one) => {
      const before = one.first === null ? null : at(one.first - 1),
        after = one.first === null ? null : at(one.last);
      const measured = after && after.step >= one.first ? after : null;
      const end = ends.get(one.name);
      return h(
        "tr",
        { key: one.name },
        h("th", { scope: "row" }, one.name, one.recipe ? h("div", { class: "small dim light" }, one.recipe) : null),
        h("td", { class: "n" }, `${told(one.done)}${one.planned ? ` of ${told(one.planned)}` : ""}`),
        h("td", { class: "n" }, before ? interval(before.greedy, percent) : braid.UNKNOWN),
        h("td", { class: "n" }, measured ? interval(measured.greedy, percent) : braid.UNKNOWN),
        h(
          "td",
          { class: "wide-cell" },
          one.first === null
            ? h("span", { class: "dim" }, "has not begun")
            : ribbon(sharesOf(doc, one.first, one.last)),
        ),
        h(
          "td",
          {},
          end ? braid.role(end.role) : h("span", { class: "dim" }, one.done ? "not measured" : braid.UNKNOWN),
        ),
        h("td", {}, end ? braid.contract(end) : braid.UNKNOWN),
      );
    });
  }

  function tiles(run, curves) {
    const probes = curves instanceof Error ? [] : curves.probes.filter((one) => known(one.greedy.value));
    const first = probes[0],
      last = probes.at(-1);
    const tile = (name, value, note) =>
      h("div", { class: "tile" }, h("dt", {}, name), h("dd", {}, value, note ? h("small", {}, note) : null));
    return h(
      "dl",
      { class: "tiles" },
      tile("steps", told(run.totals.steps), braid.plural(run.stages.length, "stage")),
      tile(
        "accuracy of probes",
        first ? `${percent(first.greedy.value)} → ${percent(last.greedy.value)}` : braid.UNKNOWN,
        first ? `greedy, ${told(last.n)} prompts, step ${first.step} to ${last.step}` : "no probe yet",
      ),
      tile("tokens trained", braid.short(run.totals.tokens_trained), ""),
      tile("tokens generated", braid.short(run.totals.tokens_generated), ""),
      tile(
        "time in steps",
        clock(run.totals.seconds),
        run.totals.steps ? `${clock(run.totals.seconds / run.totals.steps)} a step` : "",
      ),
    );
  }

  function failures(run) {
    if (!run.failures?.length) return null;
    const newest = run.failures.slice(-3).reverse();
    return h(
      "section",
      { class: "block", key: "failures" },
      h("header", {}, h("h3", {}, "What went wrong, newest first")),
      h(
        "ul",
        { class: "bare" },
        newest.map((one) =>
          h(
            "li",
            {},
            h("span", { class: "strong" }, one.kind.replaceAll("_", " ")),
            ` at step ${one.step ?? braid.UNKNOWN}`,
            one.told ? `: ${one.told.slice(0, 240)}` : "",
          ),
        ),
      ),
      h("p", { class: "small" }, h("a", { href: braid.address("record", {}) }, "All events")),
    );
  }

  const choice = (label, value, options, pick) =>
    h(
      "div",
      { class: "field" },
      h("span", {}, label),
      h(
        "div",
        { class: "choice", role: "group", "aria-label": label },
        options.map(([key, name]) =>
          h(
            "button",
            { class: "button", type: "button", "aria-pressed": String(key === value), on: { click: () => pick(key) } },
            name,
          ),
        ),
      ),
    );

  function drawn(docs, params) {
    if (docs.run instanceof Error) return braid.wrong(docs.run);
    const by = params.by === "strands" ? "strands" : "origins",
      size = params.size === "tokens" ? "tokens" : "share";
    const plot = () => document.querySelector(".braid .js-plotly-plot");
    const parts = [tiles(docs.run, docs.curves)];
    if (!(docs.braid instanceof Error) && !docs.braid.steps.length) {
      return [
        parts,
        h(
          "section",
          { class: "block" },
          missing(
            "No step is done yet.",
            "The braid is drawn from the ledger's metrics; its first line is written when the first step ends.",
          ),
        ),
      ];
    }
    parts.push(
      having(docs.braid, (doc) => {
        const figure = stream(
          doc,
          by === "strands",
          size === "tokens",
          docs.decided instanceof Error || !docs.decided.until.length ? null : docs.decided,
        );
        return h(
          "section",
          { class: "block braid" },
          h(
            "div",
            { class: "bar-of-tools" },
            choice(
              "ribbons",
              by,
              [
                ["origins", "writers"],
                ["strands", "strands"],
              ],
              (key) => go({ by: key }, { replace: true }),
            ),
            choice(
              "thickness",
              size,
              [
                ["share", "share of tokens"],
                ["tokens", "tokens"],
              ],
              (key) => go({ size: key }, { replace: true }),
            ),
          ),
          chart({ key: "stream", title: "", table: false, height: innerWidth < 600 ? 260 : 330, figure, drawn: tied }),
          having(docs.decided, (decided) =>
            decided.until.length
              ? braid.part(
                  braid.kinds.strip,
                  { marks: braid.marksOf(decided), stages: doc.stages, plot },
                  { class: "decisions" },
                )
              : h("p", { class: "small dim" }, "No control decides in this run: each step did what the pipeline says."),
          ),
          braid.figureTable(figure, "stream"),
          doc.exact
            ? null
            : h(
                "p",
                { class: "small dim" },
                `Each point holds ${told(Math.round((doc.last - doc.first + 1) / doc.steps.length))} neighbouring steps.`,
              ),
        );
      }),
      failures(docs.run),
    );
    parts.push(
      h(
        "section",
        { class: "block" },
        h(
          "header",
          {},
          h("h3", {}, "Stages"),
          h(
            "p",
            {},
            "Greedy accuracy on held-out prompts with its 95 % interval, who wrote the trained tokens, and what the stage did.",
          ),
        ),
        h(
          "div",
          { class: "scroll", tabindex: "0", role: "region", "aria-label": "Stages" },
          h(
            "table",
            {},
            h(
              "thead",
              {},
              h(
                "tr",
                {},
                ["stage", "steps", "accuracy before", "accuracy after", "trained tokens from", "role", "contract"].map(
                  (name, at) => h("th", { scope: "col", class: at > 0 && at < 4 ? "n" : "" }, name),
                ),
              ),
            ),
            h(
              "tbody",
              {},
              stageRows(
                docs.run,
                docs.braid instanceof Error ? { origins: [], steps: [], until: [], tokens: [] } : docs.braid,
                docs.curves,
                docs.handoffs,
              ),
            ),
          ),
        ),
      ),
    );
    return parts;
  }

  braid.views.push({
    name: "braid",
    title: "Braid",
    shows: "braid",
    lead: "Who wrote the tokens that each step trained on, the stages behind them, and what the controls decided beneath.",
    needs: (params, within) => ({
      braid: ["braid", within(params)],
      decided: ["decided", within(params)],
      curves: ["curves", within(params, { points: 1 })],
      handoffs: ["handoffs", within(params)],
    }),
    draw: drawn,
    keys: [
      ["← →", "the decision before, after (focus on the strip of marks)"],
      ["PgUp PgDn", "where a control changed its mind"],
    ],
  });
  Object.assign(braid, { SERIES, choice });
}
