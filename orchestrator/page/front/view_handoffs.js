"use strict";
/* Handoffs: for each stage what it is held to and how that stands, its role, where its gain comes from, what is next. */
{
  const {
    h,
    having,
    missing,
    words,
    estimate,
    estimateTable,
    role,
    evidence,
    contract,
    terms,
    bars,
    figure,
    percent,
    UNKNOWN,
  } = braid;
  const PARTS = {
    total: "#5c6b7a",
    expansion: "#187a4b",
    reshaping: "#8468bd",
    attrition: "#c8452f",
    outside: "#868e97",
  };

  function overview(stages) {
    const head = [
      "stage",
      "steps",
      "gain",
      "expanded",
      "retained",
      "attrited",
      "undecided",
      "retained share (SRR)",
      "role",
      "contract",
    ];
    return h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "Handoffs" },
      h(
        "table",
        {},
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            head.map((name, at) => h("th", { scope: "col", class: at > 0 && at < 8 ? "n" : "" }, name)),
          ),
        ),
        h(
          "tbody",
          {},
          stages.map((one) =>
            h(
              "tr",
              { key: one.stage },
              h(
                "th",
                { scope: "row" },
                h(
                  "a",
                  {
                    href: `#${slug(one.stage)}`,
                    on: {
                      click: (event) => {
                        event.preventDefault();
                        const to = document.getElementById(slug(one.stage));
                        to?.scrollIntoView();
                        to?.focus({ preventScroll: true });
                      },
                    },
                  },
                  one.stage,
                ),
              ),
              h("td", { class: "n" }, one.steps ? [...new Set(one.steps)].join("–") : UNKNOWN),
              h("td", { class: "n" }, estimate(one.gain?.total, "gain")),
              ...["expanded", "retained", "attrited", "undecided"].map((key) =>
                h("td", { class: "n" }, figure(one.support?.[key])),
              ),
              h("td", { class: "n" }, estimate(one.rates?.srr, "srr")),
              h("td", {}, role(one.role)),
              h("td", {}, contract(one)),
            ),
          ),
        ),
      ),
    );
  }

  const slug = (stage) => `stage-${encodeURIComponent(stage)}`;

  async function copied(text, id) {
    try {
      await navigator.clipboard.writeText(text);
      braid.toast("Copied");
    } catch {
      const field = document.getElementById(id);
      getSelection().selectAllChildren(field);
      braid.toast("Selected: copy it with your keyboard");
    }
  }

  function recommended(found, id) {
    if (!found) return null;
    const file = found.text ?? (found.file?.includes?.("\n") ? found.file : "");
    if (!file && !found.told && !found.choices?.length) return null;
    return h(
      "details",
      { open: true, key: `recommended-${id}` },
      h("summary", { class: "strong" }, "The pipeline that is recommended"),
      found.told ? h("p", {}, found.told) : null,
      found.choices?.length
        ? h(
            "div",
            { class: "scroll", tabindex: "0", role: "region", "aria-label": "Choices and their reasons" },
            h(
              "table",
              {},
              h(
                "thead",
                {},
                h(
                  "tr",
                  {},
                  ["choice", "value", "why"].map((name) => h("th", { scope: "col" }, name)),
                ),
              ),
              h(
                "tbody",
                {},
                found.choices.map((one) =>
                  h(
                    "tr",
                    {},
                    h("th", { scope: "row", class: "mono" }, one.key),
                    h(
                      "td",
                      { class: "mono text" },
                      typeof one.value === "string" ? one.value : JSON.stringify(one.value),
                    ),
                    h("td", { class: "text" }, one.reason),
                  ),
                ),
              ),
            ),
          )
        : null,
      !file
        ? h("p", { class: "small dim" }, found.file ? `It stands in ${found.file}.` : "No pipeline follows from this.")
        : h(
            "div",
            { class: "code panel" },
            h(
              "button",
              { class: "button", type: "button", on: { click: () => copied(file, `recommended-${id}`) } },
              "Copy",
            ),
            h("pre", { id: `recommended-${id}`, tabindex: "0", role: "region", "aria-label": "Pipeline file" }, file),
          ),
    );
  }

  function diagnosis(one) {
    const found = one.diagnosis;
    if (!found) return null;
    const bottleneck =
      typeof found.bottleneck === "object"
        ? (found.bottleneck?.name ?? braid.brief(found.bottleneck))
        : found.bottleneck;
    const classes = Object.entries(found.classes ?? {}).map(([name, value]) => [
      name,
      typeof value === "object" && value && "share" in value ? value.share : value,
    ]);
    return h(
      "section",
      { class: "sub" },
      h("h4", {}, "What holds the model back now"),
      h("p", {}, bottleneck ? [h("strong", {}, words(bottleneck)), "."] : "undecided."),
      bars(
        classes.filter(([, value]) => braid.isEstimate(value)),
        "Prompts by what holds them back",
        "share, with its interval",
      ) ?? estimateTable(found.classes, "Prompts by what holds them back"),
      recommended(found.recommendation, one.stage),
    );
  }

  function stage(one) {
    const level = one.confidence ? `${percent(one.confidence, 0)} intervals` : "intervals";
    const labels = Object.entries(one.labels ?? {})
      .map(([key, value]) => `${words(key)} ${braid.brief(value)}`)
      .join(" · ");
    const gain = one.gain
      ? bars(
          Object.keys(PARTS).map((key) => [key, one.gain[key]]),
          "Where the gain comes from",
          `change in pass rate and its parts, ${level}`,
          { colours: PARTS, signed: true },
        )
      : null;
    return h(
      "section",
      {
        class: "block panel stage",
        key: one.stage,
        id: slug(one.stage),
        tabindex: "-1",
        "aria-label": `Stage ${one.stage}`,
      },
      h(
        "header",
        {},
        h("h3", {}, one.stage, " ", role(one.role)),
        h(
          "p",
          {},
          [
            one.measured ? `measured at steps ${one.measured.before} and ${one.measured.after}` : "",
            labels ? `recipe says: ${labels}` : "",
          ]
            .filter(Boolean)
            .join("; "),
        ),
      ),
      h(
        "div",
        { class: "columns" },
        h("div", {}, gain ?? h("p", { class: "small dim" }, "Where the gain comes from was not measured.")),
        h(
          "div",
          { class: "sides" },
          h("div", {}, h("h4", {}, "Speaks for the role"), evidence(one.role?.for)),
          h("div", {}, h("h4", {}, "Speaks against"), evidence(one.role?.against)),
        ),
      ),
      h("div", { class: "sub" }, h("h4", {}, "Contract"), terms(one)),
      h(
        "div",
        { class: "measures" },
        estimateTable(one.rates, "Support, rates over prompts"),
        ...["retention", "portability", "scaffold", "fidelity", "forgetting"].map((key) =>
          estimateTable(one.handoff?.[key], words(key)),
        ),
      ),
      diagnosis(one),
    );
  }

  braid.views.push({
    name: "handoffs",
    title: "Handoffs",
    shows: "handoffs",
    lead: "What each stage handed on: what it was held to, the role it played and the evidence, where its gain comes from, and what holds the model back next.",
    needs: (params, within) => ({ handoffs: ["handoffs", within(params)] }),
    draw: (docs) =>
      having(docs.handoffs, ({ stages }) =>
        stages.length
          ? [overview(stages), stages.map(stage)]
          : missing(
              "No handoff has been measured yet.",
              "At the end of each stage the run probes its policy and writes handoffs/STAGE.json. A pipeline measures them when it has `probe:` with samples and prompts.probe; the first appears when the first stage ends.",
              "probe: {samples: 16}",
            ),
      ),
  });
}
