"use strict";
/* The page around the views: where one is, what is asked for, what is drawn, keys, theme, and the run that goes on. */
{
  const { h, draw } = braid;
  const main = document.getElementById("main");
  const rail = document.getElementById("rail");
  const head = document.getElementById("facts");
  const root = document.documentElement;
  const MOVED = "braid-theme",
    QUIET = "braid-keys-off";
  let turn = 0,
    current = null,
    facts = null,
    lost = null,
    waiting = 0;

  // ---------------------------------------------------------------- places

  /* The view and its parameters, as the address tells them. */
  function place() {
    const [name, query = ""] = location.hash.slice(1).split("?");
    const view = braid.views.find((one) => one.name === name) || braid.views[0];
    return { view, params: Object.fromEntries(new URLSearchParams(query)) };
  }

  function address(view, params) {
    const kept = Object.entries(params).filter(([, value]) => value !== null && value !== undefined && value !== "");
    const query = new URLSearchParams(kept).toString();
    return `#${view}${query ? `?${query}` : ""}`;
  }

  /* Another place: of the present view with other parameters, or of another view. The way back leads back. */
  function go(changes, { view = place().view.name, replace = false } = {}) {
    const here = place();
    const params = view === here.view.name ? { ...here.params, ...changes } : { run: here.params.run, ...changes };
    const at = address(view, params);
    if (at === location.hash) return;
    history[replace ? "replaceState" : "pushState"](null, "", at);
    show();
  }

  // ---------------------------------------------------------------- what is drawn

  /* Something that failed, or is not there yet: what, why, and what to do. */
  const wrong = (failed) =>
    braid.inline
      ? missing(`${failed.what || "This"} is not in this file`, `${failed.said || failed.message}. ${failed.fix || ""}`)
      : refused(failed);
  const refused = (failed) =>
    h(
      "div",
      { class: "said wrong", role: "alert" },
      h("h3", {}, `${failed.what || "This view"} could not be shown`),
      h("p", {}, failed.said || failed.message),
      failed.fix ? h("p", { class: "dim" }, failed.fix) : null,
      h(
        "p",
        {},
        h(
          "button",
          {
            class: "button",
            type: "button",
            on: {
              click: () => {
                braid.forget();
                show();
              },
            },
          },
          "Try again",
        ),
      ),
    );

  const missing = (title, how, command = "") =>
    h("div", { class: "said" }, h("h3", {}, title), h("p", {}, how), command ? h("pre", {}, command) : null);

  /* What `make` makes of a document, or what went wrong with it. */
  const having = (found, make) => (found instanceof Error ? wrong(found) : make(found));

  async function asked(needs) {
    const names = Object.keys(needs);
    const found = await Promise.allSettled(names.map((key) => braid.get(...needs[key])));
    return Object.fromEntries(
      names.map((key, at) => [key, found[at].status === "fulfilled" ? found[at].value : found[at].reason]),
    );
  }

  const within = (params, query = {}) => ({ ...query, run: params.run });

  async function show({ focus = false } = {}) {
    const { view, params } = place();
    const mine = (turn += 1);
    const moved = view !== current;
    main.setAttribute("aria-busy", "true");
    const found = await asked({ run: ["run", within(params)], ...view.needs(params, within) });
    if (mine !== turn) return;
    current = view;
    facts = found.run instanceof Error ? facts : found.run;
    lost = found.run instanceof Error ? found.run : null;
    root.dataset.view = view.name;
    frame(params);
    let made;
    try {
      made = view.draw(found, params);
    } catch (error) {
      console.error(error);
      made = wrong({
        what: view.title,
        said: "the page could not draw what it was given",
        fix: String(error.message || error),
      });
    }
    draw(
      main,
      h(
        "article",
        { class: "view", key: view.name },
        h("header", {}, h("h2", { id: "title" }, view.title), view.lead ? h("p", {}, view.lead) : null),
        made,
      ),
    );
    main.setAttribute("aria-busy", "false");
    if (moved) scrollTo(0, 0);
    if (focus) main.focus({ preventScroll: true });
    document.title = `${view.title} · ${facts?.name ?? "no run"} · braid`;
  }

  // ---------------------------------------------------------------- the frame

  function state() {
    if (lost) return ["stale", "no answer"];
    if (facts.status === "stopped") return ["stopped", "stopped by a contract"];
    if (facts.status !== "running") return [facts.status, facts.status];
    if (braid.inline) return ["stale", "unfinished when written"];
    const each = facts.totals.steps ? facts.totals.seconds / facts.totals.steps : 0;
    const silent = Date.now() / 1000 - facts.fresh.changed;
    return silent > Math.max(120, 5 * each)
      ? ["stale", `stale: nothing written for ${braid.clock(silent)}`]
      : ["live", "live"];
  }

  function frame(params) {
    const views = facts?.views ?? {};
    draw(
      rail,
      h(
        "ul",
        {},
        braid.views.map((one, at) => {
          const here = one === current;
          const none = one.shows && views[one.shows] === false;
          return h(
            "li",
            { key: one.name },
            h(
              "a",
              {
                href: address(one.name, { run: params.run }),
                class: none ? "none" : "",
                "aria-current": here ? "page" : null,
                title: none ? "nothing to show yet" : null,
                on: {
                  click: (event) => {
                    if (!event.metaKey && !event.ctrlKey) {
                      event.preventDefault();
                      go({}, { view: one.name });
                      main.focus({ preventScroll: true });
                    }
                  },
                },
              },
              one.title,
              h("span", { class: "dim small", "aria-hidden": "true" }, String(at + 1)),
            ),
          );
        }),
      ),
    );
    const active = rail.querySelector("[aria-current]");
    if (active && rail.scrollWidth > rail.clientWidth) rail.scrollLeft = active.offsetLeft - 60;
    tell();
  }

  function tell() {
    if (!facts) return draw(head, h("span", { class: "state stale" }, "no run"));
    const [kind, word] = state();
    const { totals } = facts;
    const share = totals.planned ? Math.min(1, totals.steps / totals.planned) : 0;
    document.getElementById("run-name").textContent = braid.visible(facts.name);
    return draw(head, [
      h("span", { class: `state ${kind}` }, word),
      h("span", {}, `step ${braid.figure(totals.steps)}${totals.planned ? ` of ${braid.figure(totals.planned)}` : ""}`),
      h(
        "span",
        {
          class: "progress",
          role: "progressbar",
          "aria-label": "steps done",
          "aria-valuenow": Math.round(100 * share),
          "aria-valuemin": 0,
          "aria-valuemax": 100,
        },
        h("span", { style: { width: `${100 * share}%` } }),
      ),
      facts.model ? h("span", {}, `model ${facts.model}`) : null,
      h("span", {}, braid.inline ? `written ${root.dataset.written}` : `last line ${braid.ago(facts.fresh.changed)}`),
    ]);
  }

  // ---------------------------------------------------------------- theme and keys

  const stored = (name) => {
    try {
      return localStorage.getItem(name);
    } catch {
      return null;
    }
  };
  const store = (name, value) => {
    try {
      localStorage.setItem(name, value);
    } catch {
      /* a file may have none */
    }
  };
  const system = matchMedia("(prefers-color-scheme: dark)");

  function theme(wanted) {
    root.dataset.theme = wanted || stored(MOVED) || (system.matches ? "dark" : "light");
    document.getElementById("theme").setAttribute("aria-pressed", String(root.dataset.theme === "dark"));
    for (const [name, [light, dark]] of Object.entries(braid.origins))
      root.style.setProperty(`--origin-${name}`, braid.dark() ? dark : light);
    braid.repaint();
  }

  function turned() {
    const wanted = braid.dark() ? "light" : "dark";
    store(MOVED, wanted);
    theme(wanted);
    show();
  }

  const PAGE_KEYS = [
    ["1 … 9", "the views, in their order"],
    ["t", "light or dark"],
    ["/", "to the view's search field"],
    ["?", "these keys"],
    ["Esc", "closes what is open"],
  ];

  function help() {
    const dialog = document.getElementById("keys");
    const rows = (keys) =>
      h(
        "dl",
        {},
        keys.map(([key, what]) => [h("dt", {}, h("kbd", {}, key)), h("dd", {}, what)]),
      );
    draw(dialog, [
      h("h2", { id: "keys-title" }, "Keys"),
      rows(PAGE_KEYS),
      braid.views.filter((one) => one.keys).map((one) => [h("h3", {}, one.title), rows(one.keys)]),
      h(
        "p",
        {},
        h(
          "label",
          {},
          h("input", {
            type: "checkbox",
            checked: stored(QUIET) === "1",
            on: { change: (event) => store(QUIET, event.target.checked ? "1" : "0") },
          }),
          " no single-letter keys",
        ),
      ),
      h("form", { method: "dialog" }, h("button", { class: "button" }, "Close")),
    ]);
    dialog.showModal();
  }

  function pressed(event) {
    const typing = event.target.closest?.("input:not([type=checkbox]), select, textarea, dialog");
    if (typing || event.ctrlKey || event.metaKey || event.altKey || event.defaultPrevented) return;
    if (event.key === "?") return help();
    if (stored(QUIET) === "1") return undefined;
    const view = braid.views[Number(event.key) - 1];
    if (/^[1-9]$/.test(event.key) && view) {
      go({}, { view: view.name });
      main.focus({ preventScroll: true });
    } else if (event.key === "t") turned();
    else if (event.key === "/") {
      const field = main.querySelector("[type=search]");
      if (field) {
        event.preventDefault();
        field.focus();
      }
    } else current?.pressed?.(event);
    return undefined;
  }

  /* A word that is heard and, for a moment, seen. */
  function toast(text) {
    const node = document.getElementById("toast");
    node.textContent = text;
    node.hidden = false;
    clearTimeout(toast.timer);
    toast.timer = setTimeout(() => {
      node.hidden = true;
    }, 4000);
  }

  // ---------------------------------------------------------------- a run that goes on

  const EVERY = 1000;

  function changed() {
    if (waiting) return;
    waiting = setTimeout(() => {
      waiting = 0;
      braid.forget();
      show();
    }, EVERY);
  }

  function follow() {
    if (braid.inline) return;
    const { params } = place();
    const stream = new EventSource(`api/stream${params.run ? `?run=${encodeURIComponent(params.run)}` : ""}`);
    stream.addEventListener("changed", changed);
    stream.onerror = () => {
      lost = new braid.Failed("live", "the server does not answer");
      tell();
    };
    stream.onopen = () => {
      if (lost) {
        lost = null;
        changed();
      }
    };
    setInterval(tell, 5000);
  }

  Object.assign(braid, { go, show, address, wrong, missing, having, toast, within, place });

  braid.start = () => {
    document.getElementById("theme").addEventListener("click", turned);
    document.getElementById("help").addEventListener("click", help);
    document.addEventListener("keydown", pressed);
    addEventListener("popstate", () => show());
    addEventListener("hashchange", () => show());
    system.addEventListener("change", () => {
      if (!stored(MOVED)) {
        theme();
        show();
      }
    });
    document.querySelector(".skip").addEventListener("click", (event) => {
      event.preventDefault();
      main.focus();
    });
    theme();
    show();
    follow();
  };
}
