"use strict";
/* The reader's list: which trajectories are wanted, and those that there are. */
{
  const { h, known, figure: told, missing, go } = braid;
  const SORTS = [
    ["written", "as written"],
    ["-reward", "best first"],
    ["reward", "worst first"],
    ["-length", "longest first"],
    ["length", "shortest first"],
    ["-advantage", "largest advantage"],
    ["advantage", "smallest advantage"],
  ];
  const PRODUCERS = ["rollout", "demonstration", "teacher", "replay", "search", "correction", "revision"];
  const FILTERS = [
    "at",
    "strand",
    "producer",
    "stage",
    "verdict",
    "least",
    "most",
    "shortest",
    "longest",
    "text",
    "sort",
    "before",
    "offset",
  ];
  const LIMIT = 40;

  const passed = (one) =>
    one.passed === true ? ["held", "✓"] : one.passed === false ? ["broken", "✗"] : ["unmeasured", "?"];

  function asked(params, within) {
    const wanted = Object.fromEntries(FILTERS.map((key) => [key === "at" ? "step" : key, params[key]]));
    return ["trajectories", within(params, { ...wanted, limit: LIMIT })];
  }

  const filter = (changes) => go({ before: "", offset: "", ...changes }, { replace: true });
  const field = (label, control, narrow) => h("label", { class: `field${narrow ? " narrow" : ""}` }, label, control);
  const select = (label, name, params, options) =>
    field(
      label,
      h(
        "select",
        { value: params[name] ?? "", on: { change: (event) => filter({ [name]: event.target.value }) } },
        options.map(([value, text]) => h("option", { value, selected: value === (params[name] ?? "") }, text)),
      ),
    );
  const number = (label, name, params, step = "any") =>
    field(
      label,
      h("input", {
        type: "number",
        step,
        value: params[name] ?? "",
        on: { change: (event) => filter({ [name]: event.target.value }) },
      }),
      true,
    );

  function filters(run, params) {
    const any = (names) => [["", "any"], ...names.map((name) => [name, name])];
    const set = ["at", "strand", "producer", "stage", "verdict", "least", "most", "shortest", "longest", "text"].filter(
      (name) => params[name],
    );
    return h(
      "form",
      {
        class: "bar-of-tools",
        role: "search",
        "aria-label": "Which trajectories",
        on: { submit: (event) => event.preventDefault() },
      },
      field(
        "text",
        h("input", {
          type: "search",
          value: params.text ?? "",
          placeholder: "in the response",
          on: { change: (event) => filter({ text: event.target.value }) },
        }),
      ),
      number("step", "at", params, "1"),
      select("strand", "strand", params, any(run.strands ?? [])),
      select("producer", "producer", params, any(PRODUCERS)),
      select("stage", "stage", params, any(run.stages.map((one) => one.name))),
      select("verdict", "verdict", params, [
        ["", "any"],
        ["passed", "passed"],
        ["failed", "failed"],
        ["unknown", "unknown"],
      ]),
      number("reward from", "least", params),
      number("reward to", "most", params),
      number("tokens from", "shortest", params, "1"),
      number("tokens to", "longest", params, "1"),
      select(
        "order",
        "sort",
        params,
        SORTS.map(([key, text]) => [key === "written" ? "" : key, text]),
      ),
      set.length
        ? h(
            "button",
            {
              class: "button",
              type: "button",
              on: { click: () => filter(Object.fromEntries(set.map((name) => [name, ""]))) },
            },
            "Clear",
          )
        : null,
    );
  }

  const pick = (step, row, replace = Boolean(braid.place().params.step)) => go({ step, row }, { replace });

  function item(one, params) {
    const here = String(one.step) === params.step && String(one.row) === params.row;
    const [state, sign] = passed(one);
    return h(
      "li",
      { key: `${one.step}:${one.row}` },
      h(
        "a",
        {
          href: braid.address("reader", { ...params, step: one.step, row: one.row }),
          class: "item",
          "aria-current": here ? "true" : null,
          on: {
            click: (event) => {
              event.preventDefault();
              pick(one.step, one.row);
            },
          },
        },
        h(
          "span",
          { class: `chip ${state}` },
          h(
            "span",
            { "aria-label": one.passed === true ? "passed" : one.passed === false ? "failed" : "no verdict" },
            sign,
          ),
          known(one.reward) ? told(one.reward) : one.status && one.status !== "ok" ? one.status : "–",
        ),
        h(
          "span",
          { class: "small dim" },
          `step ${one.step} · ${one.strand} · ${one.producer} · ${braid.plural(one.length, "token")}`,
        ),
        h("span", { class: "preview" }, one.preview || "(empty)"),
      ),
    );
  }

  function listed(doc, run, params) {
    if (!doc.rows.length && !run.totals.trajectory_steps)
      return missing("No trajectories yet.", "The ledger writes the trajectories of each step when the step ends.");
    const none = doc.next
      ? "None among the steps that were looked through."
      : "No trajectory is like this. Widen or clear the filters.";
    return h(
      "nav",
      { class: "list", "aria-label": "Trajectories" },
      h(
        "p",
        { class: "small dim" },
        doc.total !== null && doc.total !== undefined
          ? `${braid.plural(doc.total, "trajectory", "trajectories")} of step ${params.at}`
          : doc.looked
            ? `steps ${doc.looked[0]} to ${doc.looked[1]}${doc.steps ? ` of ${doc.steps[0]} to ${doc.steps[1]}` : ""}, newest first`
            : "",
        doc.unread?.length ? `; not readable: step ${doc.unread.join(", ")}` : "",
      ),
      doc.rows.length
        ? h(
            "ol",
            { class: "bare items" },
            doc.rows.map((one) => item(one, params)),
          )
        : h("p", {}, none),
      h(
        "p",
        {},
        params.before || params.offset
          ? h("button", { class: "button", type: "button", on: { click: () => filter({}) } }, "Newest")
          : null,
        " ",
        doc.next
          ? h(
              "button",
              {
                class: "button",
                type: "button",
                on: { click: () => go({ before: doc.next.before ?? "", offset: doc.next.offset || "" }) },
              },
              "Further",
            )
          : null,
      ),
    );
  }

  braid.readerList = { passed, asked, pick, filters, listed };
}
