"use strict";
/* The reader: a list of trajectories with filters, and one of them, token by token. */
{
  const { h, known, figure: told, having, UNKNOWN, words } = braid;
  const { passed, asked, pick, filters, listed } = braid.readerList;
  let list = null,
    open = null;

  // ---------------------------------------------------------------- one of them

  function scores(doc) {
    if (!doc.scores?.length) return null;
    return h(
      "section",
      { class: "sub" },
      h("h4", {}, "What was said of it"),
      h(
        "ul",
        { class: "bare" },
        doc.scores.map((one) => {
          const [state, sign] = passed(one);
          const span = known(one.start) && known(one.end);
          return h(
            "li",
            { class: "score" },
            h(
              "span",
              { class: `chip ${one.status === "ok" ? state : "unmeasured"}` },
              `${sign} ${one.name} ${one.status === "ok" ? told(one.value) : one.status}`,
            ),
            span
              ? h(
                  "button",
                  {
                    class: "link small",
                    type: "button",
                    on: { click: () => document.querySelector("[data-part=tokens]")?.outline(one.start, one.end) },
                  },
                  `tokens ${one.start + 1} to ${one.end}`,
                )
              : null,
            h("span", { class: "small dim" }, [one.scorer, one.scorer_version].filter(Boolean).join(" ")),
            one.reason
              ? h("span", { class: "small" }, one.reason.length > 600 ? `${one.reason.slice(0, 600)}…` : one.reason)
              : null,
          );
        }),
      ),
    );
  }

  function group(doc, params) {
    if ((doc.group?.length ?? 0) < 2) return null;
    return h(
      "section",
      { class: "sub" },
      h("h4", {}, "Its group"),
      h(
        "p",
        { class: "group" },
        doc.group.map((one) =>
          h(
            "a",
            {
              class: "chip plain",
              href: braid.address("reader", { ...params, step: doc.step, row: one.row }),
              "aria-current": one.row === doc.row ? "true" : null,
              on: {
                click: (event) => {
                  event.preventDefault();
                  pick(doc.step, one.row);
                },
              },
            },
            `${one.strand} ${known(one.reward) ? told(one.reward) : "?"}`,
          ),
        ),
      ),
    );
  }

  function written(doc) {
    const counts = new Map();
    for (const at of doc.tokens.origins) counts.set(at, (counts.get(at) ?? 0) + 1);
    return [...counts].map(([at, count]) => `${doc.origin_names[at]} ${told(count)}`).join(", ") || UNKNOWN;
  }

  function facts(doc) {
    const rows = [
      ["prompt", doc.prompt_id],
      ["strand", doc.strand],
      ["written by", `${doc.producer} of ${doc.model}${doc.version >= 0 ? `, version ${doc.version}` : ""}`],
      ["reward", known(doc.reward) ? told(doc.reward) : (doc.status ?? UNKNOWN)],
      ["advantage", told(doc.advantage)],
      ["length", `${braid.plural(doc.length, "token")}, ${words(doc.finish_reason)}`],
      ["tokens by", written(doc)],
    ];
    return h(
      "dl",
      { class: "facts-of" },
      rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))),
    );
  }

  function one(doc, params) {
    const step = (to, text, key) =>
      h(
        "button",
        {
          class: "button",
          type: "button",
          disabled: !to,
          title: `${text} (${key})`,
          on: { click: () => to && pick(to.step, to.row) },
        },
        text,
      );
    return h(
      "section",
      { class: "one panel", "aria-label": `Trajectory ${doc.id}` },
      h(
        "header",
        { class: "spread" },
        h(
          "div",
          {},
          h("h3", { class: "mono" }, doc.id),
          h("p", { class: "small dim" }, `step ${doc.step}, ${doc.stage}`),
        ),
        h("div", {}, step(neighbour(-1), "Previous", "k"), " ", step(neighbour(1), "Next", "j")),
      ),
      facts(doc),
      doc.prompt !== null && doc.prompt !== undefined
        ? h(
            "details",
            { open: doc.prompt.length < 600 },
            h("summary", { class: "strong small" }, doc.contexts_differ ? "Prompt that it trains under" : "Prompt"),
            h("pre", { class: "quoted", dir: "auto" }, doc.prompt || "(empty)"),
          )
        : h(
            "p",
            { class: "small dim" },
            "The run directory has no tokenizer: prompts and single tokens are told by their numbers.",
          ),
      doc.contexts_differ && doc.behavior_prompt
        ? h(
            "details",
            {},
            h("summary", { class: "strong small" }, "What its writer saw"),
            h("pre", { class: "quoted", dir: "auto" }, doc.behavior_prompt),
          )
        : null,
      braid.tokenLegend(doc),
      doc.tokens.ids.length
        ? braid.part(braid.kinds.tokens, { doc }, { key: "tokens" })
        : h("p", { class: "dim" }, "It has no tokens."),
      doc.cut
        ? h("p", { class: "small dim" }, `${told(doc.cut)} more tokens are left out here; \`braid show\` prints all.`)
        : null,
      h(
        "details",
        {},
        h("summary", { class: "small" }, "The text alone"),
        h("pre", { class: "quoted", dir: "auto" }, doc.text || "(empty)"),
      ),
      scores(doc),
      group(doc, params),
    );
  }

  /* The trajectory before or after: in the list where it stands in it, else in the ledger's order. */
  function neighbour(by) {
    if (!open) return null;
    const rows = list?.rows ?? [];
    const at = rows.findIndex((row) => row.step === open.step && row.row === open.row);
    if (at >= 0) return rows[at + by] ?? null;
    return by < 0 ? open.previous : open.next;
  }

  function drawn(docs, params) {
    if (docs.run instanceof Error) return braid.wrong(docs.run);
    list = docs.list instanceof Error ? null : docs.list;
    open = docs.one && !(docs.one instanceof Error) ? docs.one : null;
    if (!docs.one && list?.rows.length && innerWidth > 900)
      queueMicrotask(() => pick(list.rows[0].step, list.rows[0].row, true));
    return [
      h(
        "details",
        { class: "filters", open: innerWidth > 900, key: "filters" },
        h("summary", { class: "small strong" }, "Filters and order"),
        filters(docs.run, params),
      ),
      h(
        "div",
        { class: `reader${docs.one ? " opened" : ""}` },
        having(docs.list, (doc) => listed(doc, docs.run, params)),
        docs.one
          ? having(docs.one, (doc) => one(doc, params))
          : h(
              "div",
              { class: "said hint" },
              h("h3", {}, "Choose a trajectory"),
              h("p", {}, "Its tokens show who wrote them and how hard the step pushed each, up or down."),
            ),
      ),
    ];
  }

  braid.views.push({
    name: "reader",
    title: "Reader",
    shows: "trajectories",
    lead: "Every trajectory that trained: who wrote each token, and how the update moved it.",
    needs: (params, within) => ({
      list: asked(params, within),
      ...(params.step
        ? { one: ["trajectory", within(params, { step: params.step, row: params.row ?? 0, most: 20000 })] }
        : {}),
    }),
    draw: drawn,
    pressed: (event) => {
      if (event.key !== "j" && event.key !== "k") return;
      const to = open ? neighbour(event.key === "j" ? 1 : -1) : list?.rows[0];
      if (to) pick(to.step, to.row);
      else braid.toast(event.key === "j" ? "This is the last of the list" : "This is the first of the list");
    },
    keys: [
      ["j k", "the next trajectory, the one before"],
      ["← →", "from token to token (focus in the response)"],
      ["↑ ↓", "from line to line"],
    ],
  });
}
