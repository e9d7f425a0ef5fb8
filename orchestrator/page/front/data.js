"use strict";
/* Where the documents come from: the file itself (report.html), or the server that wrote this page. */
{
  const held = new Map();
  const inline = document.documentElement.dataset.source === "file";

  /* A file holds its trajectories once: for the list, and for the reader. */
  const KEPT_UNDER = { trajectory: "trajectories" };

  class Failed extends Error {
    constructor(what, said, fix = "") {
      super(`${what}: ${said}`);
      Object.assign(this, { what, said, fix });
    }
  }

  function address(name, query = {}) {
    const asked = new URLSearchParams();
    for (const [key, value] of Object.entries(query).sort()) {
      if (value !== null && value !== undefined && value !== "") asked.append(key, value);
    }
    const text = asked.toString();
    return text ? `${name}?${text}` : name;
  }

  /* The document, or Failed, which says what could not be had. Asked once until `forget`. */
  function get(name, query) {
    const at = address(name, query);
    if (!held.has(at)) {
      const asked = inline ? fromFile(name, query) : fromServer(at);
      held.set(at, asked);
      asked.catch(() => held.delete(at));
      if (held.size > 300) held.delete(held.keys().next().value);
    }
    return held.get(at);
  }

  async function fromFile(name, query) {
    const found = document.getElementById(`document-${KEPT_UNDER[name] ?? name}`);
    if (!found) throw new Failed(name, "this file does not hold it", "`braid ui DIR` shows all of the run");
    const document_ = JSON.parse(found.textContent);
    return braid.answers[name] ? braid.answers[name](document_, query || {}) : document_;
  }

  async function fromServer(at) {
    let reply;
    try {
      reply = await fetch(`api/${at}`, { credentials: "same-origin" });
    } catch {
      throw new Failed(
        at.split("?")[0],
        "the server does not answer",
        "is `braid ui` still going? Start it again and reload this page",
      );
    }
    if (reply.ok) return reply.json();
    const said = await reply.json().catch(() => ({}));
    throw new Failed(
      at.split("?")[0],
      said.said || said.detail || `the server answered ${reply.status}`,
      said.fix || "",
    );
  }

  const forget = () => held.clear();

  Object.assign(braid, { inline, get, forget, Failed, answers: {} });
}
