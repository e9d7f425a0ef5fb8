"use strict";
/* How measurements are told wherever they stand: estimates with intervals, roles with evidence, verdicts of contracts. */
{
  const { h, known, figure, percent, interval, UNKNOWN } = braid;
  const SIGNS = { held: "✓", broken: "✗", undecided: "?", unmeasured: "–" };
  const RATES =
    /rate|share|pass|retain|accuracy|agreement|srr|ndr|sds|nscr|gain|total|expansion|reshaping|attrition|outside|gap|support|scaffold|guard|forgotten|reach|before|after|change|available|first_choice|survives|lost|gained|probe|shifted|difference|amortised|stands|solved/;

  const NAMES = {
    srr: "kept of what was solved (SRR)",
    ndr: "new among what is solved (NDR)",
    sds: "both at once (SDS)",
    nscr: "net change (NSCR)",
    kl: "KL, nats a token",
    nll: "−log p, nats a token",
    gap: "gap to the first choice, nats",
    rate: "share of the gain that stands",
    since_start: "since the run's start",
    since_before: "since the stage's start",
  };
  const words = (key) => NAMES[key] ?? String(key).replaceAll("_", " ");
  const isEstimate = (value) =>
    value !== null && typeof value === "object" && "value" in value && "low" in value && "high" in value;
  const OTHERS =
    /nats|(^|_)kl|logp|log_|ratio|seconds|tokens|flops|cost|price|drift|^portability$|entropy|distinct|richness|from_before|to_after|per_token|after_own|before_own|nll|gap|rollouts/;
  const as = (key) => (RATES.test(key) && !OTHERS.test(key) ? percent : figure);

  /* Every estimate and figure below a value, with the words that lead to it. */
  function estimates(value, path = []) {
    if (isEstimate(value)) return [[path, value]];
    if (typeof value === "number" || typeof value === "boolean") return [[path, value]];
    if (Array.isArray(value))
      return value.flatMap((inner, at) =>
        inner && typeof inner === "object"
          ? estimates(inner, [...path, String(inner.stage ?? inner.family ?? inner.name ?? inner.step ?? at + 1)])
          : [],
      );
    if (value === null || typeof value !== "object") return [];
    return Object.entries(value).flatMap(([key, inner]) => estimates(inner, [...path, key]));
  }

  /* The estimate as text; a range on [0, 1] or about 0 is told in percent where its name says that it is a share. */
  function estimate(value, key = "") {
    const how = as(key);
    if (value === null || value === undefined) return UNKNOWN;
    if (typeof value === "boolean") return value ? "yes" : "no";
    if (Number.isInteger(value)) return figure(value);
    return isEstimate(value) ? interval(value, how) : how(value);
  }

  /* A table of all estimates below a value; nothing where there are none. */
  function table(value, caption, { skip = [] } = {}) {
    const rows = estimates(value).filter(([path]) => path.length && !skip.includes(path[0]));
    if (!rows.length) return null;
    return h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
      h(
        "table",
        { class: "tight" },
        h("caption", {}, caption),
        h(
          "tbody",
          {},
          rows.map(([path, one], at) => {
            const over = (row) => row.slice(0, -1).map(words).join(" · ");
            const headed = path.length > 1 && (at === 0 || over(rows[at - 1][0]) !== over(path));
            return [
              headed ? h("tr", { class: "over" }, h("th", { scope: "rowgroup", colspan: "2" }, over(path))) : null,
              h(
                "tr",
                { class: path.length > 1 ? "under" : "" },
                h("th", { scope: "row" }, words(path.at(-1))),
                h("td", { class: "n" }, estimate(one, path.join("_"))),
              ),
            ];
          }),
        ),
      ),
    );
  }

  /* `expansion` with what speaks for it when asked. */
  function role(found) {
    if (!found) return h("span", { class: "dim" }, "not measured");
    const name = typeof found === "string" ? found : found.name;
    return h("span", { class: `chip ${name === "undecided" ? "undecided" : "plain"} role` }, name);
  }

  function evidence(list) {
    if (!list?.length) return h("p", { class: "small dim" }, "nothing");
    return h(
      "ul",
      { class: "bare small" },
      list.map((one) =>
        h(
          "li",
          {},
          words(one.evidence ?? one.name ?? braid.brief(one)),
          one.value !== undefined && one.value !== null
            ? h(
                "span",
                { class: "dim" },
                ` ${typeof one.value === "object" && !isEstimate(one.value) ? braid.brief(one.value) : estimate(one.value, String(one.evidence))}`,
              )
            : null,
        ),
      ),
    );
  }

  const verdict = (state) =>
    h("span", { class: `chip ${state}` }, h("span", { "aria-hidden": "true" }, SIGNS[state] ?? "·"), state);

  /* A contract in a word: its worst term and what was done. */
  function contract(stage) {
    if (!stage.terms?.length) return h("span", { class: "dim" }, "none");
    const worst = ["broken", "undecided", "unmeasured", "held"].find((state) =>
      stage.terms.some((term) => term.verdict === state),
    );
    const count = stage.terms.filter((term) => term.verdict === worst).length;
    return h(
      "span",
      {},
      verdict(worst),
      h(
        "span",
        { class: "small dim" },
        ` ${count} of ${stage.terms.length}${stage.action ? `, ${words(stage.action)}` : ""}`,
      ),
    );
  }

  const bound = (term) => {
    if (term.bound && typeof term.bound === "object")
      return Object.entries(term.bound)
        .map(([key, value]) => `${words(key)} ${as(term.figure)(value)}`)
        .join(", ");
    return term.limit === undefined
      ? String(term.bound ?? UNKNOWN)
      : `${words(term.bound)} ${as(term.figure)(term.limit)}`;
  };

  /* Every term of a contract: the figure, its bound, what was measured, how it stands, and what else happens. */
  function terms(stage) {
    if (!stage.terms?.length)
      return h(
        "p",
        { class: "small dim" },
        "The stage is held to nothing; `contract:` beside it in the pipeline would hold it to figures of this page.",
      );
    return h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": `Contract of ${stage.stage}` },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["figure", "bound", "measured", "verdict", "otherwise"].map((name) =>
              h("th", { scope: "col", class: name === "measured" ? "n" : "" }, name),
            ),
          ),
        ),
        h(
          "tbody",
          {},
          stage.terms.map((term) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, words(term.figure)),
              h("td", {}, bound(term)),
              h("td", { class: "n" }, estimate(term.measured, term.figure)),
              h("td", {}, verdict(term.verdict)),
              h("td", {}, words(term.otherwise ?? UNKNOWN)),
            ),
          ),
        ),
      ),
      stage.action ? h("p", { class: "small" }, `What was done: `, h("strong", {}, words(stage.action)), ".") : null,
    );
  }

  /* Bars with intervals, one a row: the parts of a gain, or any figures that are compared. */
  function bars(rows, title, note, { colours = {}, share = true, signed = false } = {}) {
    const all = rows.filter(([, one]) => isEstimate(one) && known(one.value)).reverse();
    if (!all.length) return null;
    const spread = (one, end) => (known(one[end]) ? Math.abs(one.value - one[end]) : 0);
    const data = [
      {
        type: "bar",
        orientation: "h",
        name: title,
        y: all.map(([name]) => words(name)),
        x: all.map(([, one]) => one.value),
        marker: { color: all.map(([name]) => colours[name] ?? "#8468bd") },
        width: 0.55,
        error_x: {
          type: "data",
          symmetric: false,
          array: all.map(([, one]) => spread(one, "high")),
          arrayminus: all.map(([, one]) => spread(one, "low")),
          color: "#6b7785",
          thickness: 1.4,
          width: 4,
        },
        hovertemplate: share ? "%{y} %{x:.1%}<extra></extra>" : "%{y} %{x:.3g}<extra></extra>",
        showlegend: true,
      },
    ];
    const layout = {
      margin: { l: 96, r: 18, t: 8, b: 30 },
      showlegend: false,
      hovermode: "closest",
      xaxis: {
        tickformat: share ? (signed ? "+.0%" : ".0%") : undefined,
        zeroline: true,
        zerolinewidth: 1.4,
        nticks: 6,
      },
      yaxis: { showgrid: false },
    };
    return braid.chart({ title, note, figure: { data, layout }, height: 44 + 30 * all.length });
  }

  Object.assign(braid, {
    words,
    isEstimate,
    estimates,
    estimate,
    estimateTable: table,
    role,
    evidence,
    verdict,
    contract,
    terms,
    bars,
  });
}
