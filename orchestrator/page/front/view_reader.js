"use strict";
/* The reader: a list of trajectories with filters, and one of them, token by token. */
{
  const { h, known, figure: told, having, missing, go, UNKNOWN, words } = braid;
  const SORTS = [["written", "as written"], ["-reward", "best first"], ["reward", "worst first"], ["-length", "longest first"], ["length", "shortest first"], ["-advantage", "largest advantage"], ["advantage", "smallest advantage"]];
  const PRODUCERS = ["rollout", "demonstration", "teacher", "replay", "search", "correction", "revision"];
  const FILTERS = ["at", "strand", "producer", "stage", "verdict", "least", "most", "shortest", "longest", "text", "sort", "before", "offset"];
  const LIMIT = 40;
  let list = null, open = null;

  const passed = (one) => (one.passed === true ? ["held", "✓"] : one.passed === false ? ["broken", "✗"] : ["unmeasured", "?"]);

  function asked(params, within) {
    const wanted = Object.fromEntries(FILTERS.map((key) => [key === "at" ? "step" : key, params[key]]));
    return ["trajectories", within(params, { ...wanted, limit: LIMIT })];
  }

  const filter = (changes) => go({ before: "", offset: "", ...changes }, { replace: true });
  const field = (label, control, narrow) => h("label", { class: `field${narrow ? " narrow" : ""}` }, label, control);
  const select = (label, name, params, options) => field(label, h("select", { value: params[name] ?? "", on: { change: (event) => filter({ [name]: event.target.value }) } }, options.map(([value, text]) => h("option", { value, selected: value === (params[name] ?? "") }, text))));
  const number = (label, name, params, step = "any") => field(label, h("input", { type: "number", step, value: params[name] ?? "", on: { change: (event) => filter({ [name]: event.target.value }) } }), true);

  function filters(run, params) {
    const any = (names) => [["", "any"], ...names.map((name) => [name, name])];
    const set = ["at", "strand", "producer", "stage", "verdict", "least", "most", "shortest", "longest", "text"].filter((name) => params[name]);
    return h("form", { class: "bar-of-tools", role: "search", "aria-label": "Which trajectories", on: { submit: (event) => event.preventDefault() } },
      field("text", h("input", { type: "search", value: params.text ?? "", placeholder: "in the response", on: { change: (event) => filter({ text: event.target.value }) } })),
      number("step", "at", params, "1"), select("strand", "strand", params, any(run.strands ?? [])), select("producer", "producer", params, any(PRODUCERS)),
      select("stage", "stage", params, any(run.stages.map((one) => one.name))), select("verdict", "verdict", params, [["", "any"], ["passed", "passed"], ["failed", "failed"], ["unknown", "unknown"]]),
      number("reward from", "least", params), number("reward to", "most", params), number("tokens from", "shortest", params, "1"), number("tokens to", "longest", params, "1"),
      select("order", "sort", params, SORTS.map(([key, text]) => [key === "written" ? "" : key, text])),
      set.length ? h("button", { class: "button", type: "button", on: { click: () => filter(Object.fromEntries(set.map((name) => [name, ""]))) } }, "Clear") : null);
  }

  const pick = (step, row, replace = Boolean(braid.place().params.step)) => go({ step, row }, { replace });

  function item(one, params) {
    const here = String(one.step) === params.step && String(one.row) === params.row;
    const [state, sign] = passed(one);
    return h("li", { key: `${one.step}:${one.row}` }, h("a", { href: braid.address("reader", { ...params, step: one.step, row: one.row }), class: "item", "aria-current": here ? "true" : null, on: { click: (event) => { event.preventDefault(); pick(one.step, one.row); } } },
      h("span", { class: `chip ${state}` }, h("span", { "aria-label": one.passed === true ? "passed" : one.passed === false ? "failed" : "no verdict" }, sign), known(one.reward) ? told(one.reward) : one.status && one.status !== "ok" ? one.status : "–"),
      h("span", { class: "small dim" }, `step ${one.step} · ${one.strand} · ${one.producer} · ${braid.plural(one.length, "token")}`),
      h("span", { class: "preview" }, one.preview || "(empty)")));
  }

  function listed(doc, run, params) {
    if (!doc.rows.length && !run.totals.trajectory_steps) return missing("No trajectories yet.", "The ledger writes the trajectories of each step when the step ends.");
    const none = doc.next ? "None among the steps that were looked through." : "No trajectory is like this. Widen or clear the filters.";
    return h("nav", { class: "list", "aria-label": "Trajectories" },
      h("p", { class: "small dim" }, doc.total !== null && doc.total !== undefined ? `${braid.plural(doc.total, "trajectory", "trajectories")} of step ${params.at}` : doc.looked ? `steps ${doc.looked[0]} to ${doc.looked[1]}${doc.steps ? ` of ${doc.steps[0]} to ${doc.steps[1]}` : ""}, newest first` : "", doc.unread?.length ? `; not readable: step ${doc.unread.join(", ")}` : ""),
      doc.rows.length ? h("ol", { class: "bare items" }, doc.rows.map((one) => item(one, params))) : h("p", {}, none),
      h("p", {}, params.before || params.offset ? h("button", { class: "button", type: "button", on: { click: () => filter({}) } }, "Newest") : null, " ",
        doc.next ? h("button", { class: "button", type: "button", on: { click: () => go({ before: doc.next.before ?? "", offset: doc.next.offset || "" }) } }, "Further") : null));
  }

  // ---------------------------------------------------------------- one of them

  function scores(doc) {
    if (!doc.scores?.length) return null;
    return h("section", { class: "sub" }, h("h4", {}, "What was said of it"), h("ul", { class: "bare" }, doc.scores.map((one) => {
      const [state, sign] = passed(one);
      const span = known(one.start) && known(one.end);
      return h("li", { class: "score" }, h("span", { class: `chip ${one.status === "ok" ? state : "unmeasured"}` }, `${sign} ${one.name} ${one.status === "ok" ? told(one.value) : one.status}`),
        span ? h("button", { class: "link small", type: "button", on: { click: () => document.querySelector("[data-part=tokens]")?.outline(one.start, one.end) } }, `tokens ${one.start + 1} to ${one.end}`) : null,
        h("span", { class: "small dim" }, [one.scorer, one.scorer_version].filter(Boolean).join(" ")), one.reason ? h("span", { class: "small" }, one.reason.length > 600 ? `${one.reason.slice(0, 600)}…` : one.reason) : null);
    })));
  }

  function group(doc, params) {
    if ((doc.group?.length ?? 0) < 2) return null;
    return h("section", { class: "sub" }, h("h4", {}, "Its group"), h("p", { class: "group" }, doc.group.map((one) => h("a", { class: "chip plain", href: braid.address("reader", { ...params, step: doc.step, row: one.row }), "aria-current": one.row === doc.row ? "true" : null, on: { click: (event) => { event.preventDefault(); pick(doc.step, one.row); } } }, `${one.strand} ${known(one.reward) ? told(one.reward) : "?"}`))));
  }

  function written(doc) {
    const counts = new Map();
    for (const at of doc.tokens.origins) counts.set(at, (counts.get(at) ?? 0) + 1);
    return [...counts].map(([at, count]) => `${doc.origin_names[at]} ${told(count)}`).join(", ") || UNKNOWN;
  }

  function facts(doc) {
    const rows = [["prompt", doc.prompt_id], ["strand", doc.strand], ["written by", `${doc.producer} of ${doc.model}${doc.version >= 0 ? `, version ${doc.version}` : ""}`], ["reward", known(doc.reward) ? told(doc.reward) : doc.status ?? UNKNOWN], ["advantage", told(doc.advantage)], ["length", `${braid.plural(doc.length, "token")}, ${words(doc.finish_reason)}`], ["tokens by", written(doc)]];
    return h("dl", { class: "facts-of" }, rows.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }

  function one(doc, params) {
    const step = (to, text, key) => h("button", { class: "button", type: "button", disabled: !to, title: `${text} (${key})`, on: { click: () => to && pick(to.step, to.row) } }, text);
    return h("section", { class: "one panel", "aria-label": `Trajectory ${doc.id}` },
      h("header", { class: "spread" }, h("div", {}, h("h3", { class: "mono" }, doc.id), h("p", { class: "small dim" }, `step ${doc.step}, ${doc.stage}`)),
        h("div", {}, step(neighbour(-1), "Previous", "k"), " ", step(neighbour(1), "Next", "j"))),
      facts(doc),
      doc.prompt !== null && doc.prompt !== undefined ? h("details", { open: doc.prompt.length < 600 }, h("summary", { class: "strong small" }, doc.contexts_differ ? "Prompt that it trains under" : "Prompt"), h("pre", { class: "quoted", dir: "auto" }, doc.prompt || "(empty)")) : h("p", { class: "small dim" }, "The run directory has no tokenizer: prompts and single tokens are told by their numbers."),
      doc.contexts_differ && doc.behavior_prompt ? h("details", {}, h("summary", { class: "strong small" }, "What its writer saw"), h("pre", { class: "quoted", dir: "auto" }, doc.behavior_prompt)) : null,
      braid.tokenLegend(doc),
      doc.tokens.ids.length ? braid.part(braid.kinds.tokens, { doc }, { key: "tokens" }) : h("p", { class: "dim" }, "It has no tokens."),
      doc.cut ? h("p", { class: "small dim" }, `${told(doc.cut)} more tokens are left out here; \`braid show\` prints all.`) : null,
      h("details", {}, h("summary", { class: "small" }, "The text alone"), h("pre", { class: "quoted", dir: "auto" }, doc.text || "(empty)")),
      scores(doc), group(doc, params));
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
    if (!docs.one && list?.rows.length && innerWidth > 900) queueMicrotask(() => pick(list.rows[0].step, list.rows[0].row, true));
    return [
      h("details", { class: "filters", open: innerWidth > 900, key: "filters" }, h("summary", { class: "small strong" }, "Filters and order"), filters(docs.run, params)),
      h("div", { class: `reader${docs.one ? " opened" : ""}` },
        having(docs.list, (doc) => listed(doc, docs.run, params)),
        docs.one ? having(docs.one, (doc) => one(doc, params)) : h("div", { class: "said hint" }, h("h3", {}, "Choose a trajectory"), h("p", {}, "Its tokens show who wrote them and how hard the step pushed each, up or down."))),
    ];
  }

  braid.views.push({
    name: "reader", title: "Reader", shows: "trajectories",
    lead: "Every trajectory that trained: who wrote each token, and how the update moved it.",
    needs: (params, within) => ({ list: asked(params, within), ...(params.step ? { one: ["trajectory", within(params, { step: params.step, row: params.row ?? 0, most: 20000 })] } : {}) }),
    draw: drawn,
    pressed: (event) => {
      if (event.key !== "j" && event.key !== "k") return;
      const to = open ? neighbour(event.key === "j" ? 1 : -1) : list?.rows[0];
      if (to) pick(to.step, to.row);
      else braid.toast(event.key === "j" ? "This is the last of the list" : "This is the first of the list");
    },
    keys: [["j k", "the next trajectory, the one before"], ["← →", "from token to token (focus in the response)"], ["↑ ↓", "from line to line"]],
  });

  // ---------------------------------------------------------------- a file's own answers

  braid.answers.trajectories = (docs, query) => {
    const number = (value) => (value === undefined || value === null || value === "" ? null : Number(value));
    const rows = Object.values(docs).filter((one) =>
      (number(query.step) === null || one.step === number(query.step)) && ["strand", "producer", "stage"].every((key) => !query[key] || one[key] === query[key])
      && (!query.verdict || query.verdict === "any" || { passed: true, failed: false }[query.verdict] === one.passed || (query.verdict === "unknown" && one.passed === null))
      && (number(query.least) === null || (known(one.reward) && one.reward >= number(query.least))) && (number(query.most) === null || (known(one.reward) && one.reward <= number(query.most)))
      && (number(query.shortest) === null || one.length >= number(query.shortest)) && (number(query.longest) === null || one.length <= number(query.longest))
      && (!query.text || one.text.toLowerCase().includes(query.text.toLowerCase())));
    const [, minus, key] = /^(-?)(.*)$/.exec(query.sort ?? "written");
    if (key === "written") rows.sort((a, b) => b.step - a.step || a.row - b.row);
    else rows.sort((a, b) => !known(a[key]) - !known(b[key]) || (minus ? b[key] - a[key] : a[key] - b[key]));
    const offset = number(query.offset) ?? 0;
    const steps = Object.values(docs).map((one) => one.step);
    const range = steps.length ? [Math.min(...steps), Math.max(...steps)] : null;
    const further = offset + Number(query.limit) < rows.length ? { offset: offset + Number(query.limit) } : null;
    return { rows: rows.slice(offset, offset + Number(query.limit)).map((one) => ({ ...one, preview: one.text.slice(0, 200) })), total: number(query.step) === null ? null : rows.length, next: further, looked: range, steps: range };
  };

  braid.answers.trajectory = (docs, { step, row }) => {
    const found = docs[`${step}:${row}`];
    if (!found) throw new braid.Failed("The trajectory", "this file does not hold it: it keeps some of each stage's first and last step", "`braid ui DIR` shows all");
    return found;
  };
}
