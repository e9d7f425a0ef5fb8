"use strict";
/* Curves: every figure of the run over its steps, in the groups of the report; and the record: tables of what happened. */
{
  const { h, chart, having, missing, figure, brief, percent, clock, UNKNOWN, words } = braid;
  const TEXT = 4000;
  const cut = (text) => (text.length > TEXT ? `${text.slice(0, TEXT)}… (${text.length} characters)` : text);

  const scrolled = (label, ...children) =>
    h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": label }, h("table", {}, ...children));
  const heads = (names, right = []) =>
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        names.map((name) => h("th", { scope: "col", class: right.includes(name) ? "n" : "" }, name)),
      ),
    );

  function group(one) {
    return h(
      "section",
      { class: "block", key: one.title },
      h(
        "header",
        {},
        h("h3", {}, one.title),
        h("p", {}, one.lead, one.per_point > 1 ? ` Each point is the mean of ${figure(one.per_point)} steps.` : ""),
      ),
      h(
        "div",
        { class: "charts" },
        one.figures.map((made) =>
          chart({ key: made.name, title: made.title, note: made.note, wide: made.wide, figure: made.figure }),
        ),
      ),
    );
  }

  function ways(rows) {
    if (!rows?.length) return null;
    const counts = ["written", "given", "admitted", "trained", "aside"];
    return h(
      "section",
      { class: "block" },
      h("header", {}, h("h3", {}, "Responses by strand")),
      scrolled(
        "Responses by strand",
        heads(["stage", "strand", ...counts, "scored", "dropped"], counts),
        h(
          "tbody",
          {},
          rows.map((one) =>
            h(
              "tr",
              {},
              h("td", {}, one.stage),
              h("th", { scope: "row" }, one.strand),
              counts.map((key) => h("td", { class: "n" }, figure(one[key]))),
              h("td", {}, brief(one.scored)),
              h("td", {}, brief(one.dropped)),
            ),
          ),
        ),
      ),
    );
  }

  function scorers(rows) {
    if (!rows?.length) return null;
    const counts = ["asked", "ok", "error", "timeout", "refused", "skipped"];
    const names = [
      "score",
      "verifier",
      "version",
      "asked",
      "judged",
      "error",
      "timeout",
      "refused",
      "skipped",
      "values",
      "seconds, 50 %",
      "99 %",
    ];
    return h(
      "section",
      { class: "block" },
      h("header", {}, h("h3", {}, "Who judged"), h("p", {}, "A part of a rubric is skipped where a gate had decided.")),
      scrolled(
        "Who judged",
        heads(names, names.slice(3)),
        h(
          "tbody",
          {},
          rows.map((one) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, one.name),
              h("td", {}, one.scorer),
              h("td", {}, one.version),
              counts.map((key) => h("td", { class: "n" }, figure(one[key]))),
              h("td", { class: "n" }, `${figure(one.low)} to ${figure(one.high)}`),
              h("td", { class: "n" }, figure(one.seconds_p50)),
              h("td", { class: "n" }, figure(one.seconds_p99)),
            ),
          ),
        ),
      ),
    );
  }

  braid.views.push({
    name: "curves",
    title: "Curves",
    shows: "curves",
    lead: "Outcome, learning, decisions, the gradient's sources and the verifiers, over the steps. Drag to look closer; double-click to go back.",
    needs: (params, within) => ({ report: ["report", within(params)] }),
    draw: (docs) =>
      having(docs.report, (doc) =>
        doc.groups.length
          ? [doc.groups.map(group), ways(doc.ways), scorers(doc.scorers)]
          : missing("No step is done yet.", "Curves are drawn from ledger/metrics.jsonl, one line a step."),
      ),
  });

  // ---------------------------------------------------------------- the record

  function decisions(doc) {
    if (!doc.decisions.length) return h("p", { class: "dim" }, "No control decided anything.");
    return [
      doc.decisions_total > doc.decisions.length
        ? h(
            "p",
            { class: "small dim" },
            `The newest ${doc.decisions.length} of ${figure(doc.decisions_total)}; ledger/decisions.jsonl has all.`,
          )
        : null,
      scrolled(
        "Decisions",
        heads(["step", "stage", "plan", "reason", "groups", "outcome"], ["step"]),
        h(
          "tbody",
          {},
          [...doc.decisions].reverse().map((row) =>
            h(
              "tr",
              { key: `${row.step}` },
              h("th", { scope: "row", class: "n" }, brief(row.step)),
              h("td", {}, row.stage),
              h("td", { class: "text" }, brief(row.plan)),
              h("td", { class: "text" }, brief(row.reason)),
              h(
                "td",
                { class: "text" },
                brief(row.verdicts),
                row.routed?.length
                  ? h(
                      "details",
                      {},
                      h("summary", { class: "small" }, "why"),
                      row.routed.slice(0, 50).map((told) => h("div", { class: "small" }, cut(String(told)))),
                    )
                  : null,
              ),
              h(
                "td",
                { class: "text" },
                brief(row.outcome),
                h(
                  "details",
                  {},
                  h("summary", { class: "small" }, "facts before"),
                  h("div", { class: "small" }, brief(row.facts)),
                ),
              ),
            ),
          ),
        ),
      ),
    ];
  }

  function events(doc) {
    if (!doc.events.length) return h("p", { class: "dim" }, "None.");
    const skipped = new Set(["time", "step", "kind", "undone", "traceback"]);
    return [
      doc.events_total > doc.events.length
        ? h(
            "p",
            { class: "small dim" },
            `The newest ${doc.events.length} of ${figure(doc.events_total)}; ledger/events.jsonl has all.`,
          )
        : null,
      scrolled(
        "Events",
        heads(["time (UTC)", "step", "kind", "facts"], ["step"]),
        h(
          "tbody",
          {},
          [...doc.events].reverse().map((row) =>
            h(
              "tr",
              {},
              h("td", { class: "small" }, braid.moment(row.time).slice(5, 19)),
              h("td", { class: "n" }, brief(row.step)),
              h(
                "th",
                { scope: "row" },
                words(row.kind),
                row.undone ? h("span", { class: "small dim" }, " undone by a resume") : null,
              ),
              h(
                "td",
                { class: "text" },
                Object.entries(row)
                  .filter(([key]) => !skipped.has(key))
                  .map(([key, value], at) => `${at ? ", " : ""}${words(key)} ${cut(brief(value))}`),
                row.traceback
                  ? h("details", {}, h("summary", { class: "small" }, "traceback"), h("pre", {}, cut(row.traceback)))
                  : null,
              ),
            ),
          ),
        ),
      ),
    ];
  }

  const opened = (title, count, inner, open) =>
    h(
      "section",
      { class: "block", key: title },
      h(
        "details",
        { open, key: title },
        h(
          "summary",
          {},
          h("h3", { class: "inline" }, title),
          count === null ? "" : h("span", { class: "dim small" }, ` ${figure(count)}`),
        ),
        inner,
      ),
    );

  braid.views.push({
    name: "record",
    title: "Record",
    lead: "What happened and what was asked for: events, decisions, the pipeline as it was resolved, and what it ran on.",
    needs: (params, within) => ({ report: ["report", within(params)] }),
    draw: (docs) =>
      having(docs.report, (doc) => [
        opened("Events", doc.events_total, events(doc), true),
        opened("Decisions", doc.decisions_total, decisions(doc), false),
        opened("Pipeline, resolved", null, h("pre", { class: "quoted" }, doc.config), false),
        opened(
          "Environment",
          null,
          h(
            "div",
            { class: "scroll", tabindex: "0", role: "region", "aria-label": "Environment" },
            h(
              "table",
              { class: "tight" },
              h(
                "tbody",
                {},
                Object.entries(doc.environment).map(([key, value]) =>
                  h("tr", {}, h("th", { scope: "row" }, key), h("td", { class: "text" }, value)),
                ),
              ),
            ),
          ),
          false,
        ),
      ]),
  });
}
