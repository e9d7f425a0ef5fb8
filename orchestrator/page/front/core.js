"use strict";
/* What every view is made of: elements, others' text, numbers. Text of others enters the page as text nodes alone. */
const braid = { views: [], kinds: {} };
{
  const OBEYED = /[\p{Cc}\p{Cf}\p{Cs}\p{Co}\p{Zl}\p{Zp}]/gu;
  const KEPT = "\n\t\u200c\u200d\u00ad";
  const SVG = "http://www.w3.org/2000/svg";
  const DRAWN = new Set(["svg", "g", "path", "rect", "line", "circle", "text", "title", "polygon", "use"]);

  /* Text with everything that a reader would obey (control characters, bidirectional overrides) made a visible sign. */
  function visible(text) {
    return String(text).replace(OBEYED, (sign) => {
      if (KEPT.includes(sign)) return sign;
      const code = sign.codePointAt(0);
      return code < 256 ? `\\x${code.toString(16).padStart(2, "0")}` : `\\u${code.toString(16).padStart(4, "0")}`;
    });
  }

  /* An element. `on` holds listeners, `style` properties, `key` a place among siblings; all else is an attribute. */
  function h(tag, props, ...children) {
    const node = DRAWN.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
    for (const [name, value] of Object.entries(props || {})) {
      if (value === null || value === undefined || value === false) continue;
      if (name === "on") listen(node, value);
      else if (name === "style") for (const [key, one] of Object.entries(value)) node.style.setProperty(key, one);
      else if (name === "key") node.key = String(value);
      else if (name === "value" || name === "checked") node[name] = value;
      else if (!/^on/i.test(name)) node.setAttribute(name, value === true ? "" : visible(value));
    }
    node.append(...nodes(children));
    return node;
  }

  function nodes(children) {
    return children.flat(Infinity).flatMap((child) => {
      if (child === null || child === undefined || child === false || child === true) return [];
      return [child instanceof Node ? child : document.createTextNode(visible(child))];
    });
  }

  /* Listeners live in a table on the node, so that a redrawn element gets its new ones. */
  function listen(node, table) {
    node.heard = table;
    for (const type of Object.keys(table)) {
      if ((node.ears ||= new Set()).has(type)) continue;
      node.ears.add(type);
      node.addEventListener(type, (event) => node.heard[type]?.(event));
    }
  }

  /* A place that draws itself: kind.mount(node, props) once, then the function that it returned for every new props. */
  function part(kind, props, attributes = {}) {
    const node = h(kind.tag || "div", attributes);
    node.held = { kind, props };
    node.setAttribute("data-part", kind.name);
    return node;
  }

  /* Mounts the parts under a node that is in the document. */
  function settle(root) {
    const found = [...root.querySelectorAll("[data-part]")];
    if (root.held) found.unshift(root);
    for (const node of found) {
      if (!node.held || node.held.mounted) continue;
      node.held.mounted = true;
      node.held.update = node.held.kind.mount(node, node.held.props) || (() => {});
    }
  }

  const same = (old, fresh) =>
    old.nodeType === fresh.nodeType &&
    old.nodeName === fresh.nodeName &&
    old.key === fresh.key &&
    old.held?.kind === fresh.held?.kind;

  /* Makes `old` look like `fresh` where it stands: what has the focus keeps it, what is scrolled stays. */
  function morph(old, fresh) {
    if (old.nodeType === Node.TEXT_NODE) {
      if (old.data !== fresh.data) old.data = fresh.data;
      return;
    }
    for (const { name } of [...old.attributes]) {
      if (!fresh.hasAttribute(name) && !(name === "open" || (old.held && name !== "class"))) old.removeAttribute(name);
    }
    for (const { name, value } of [...fresh.attributes]) {
      if (old.getAttribute(name) !== value && name !== "open") old.setAttribute(name, value);
    }
    if (fresh.heard) listen(old, fresh.heard);
    if (old !== document.activeElement && "value" in fresh && old.value !== fresh.value && old.nodeName !== "LI")
      old.value = fresh.value;
    if ("checked" in fresh && old.checked !== fresh.checked) old.checked = fresh.checked;
    if (fresh.held) {
      const held = old.held;
      held.props = fresh.held.props;
      held.update?.(held.props);
      return;
    }
    morphChildren(old, fresh);
    if (old.nodeName === "SELECT" && old !== document.activeElement && old.value !== fresh.value)
      old.value = fresh.value;
  }

  function morphChildren(old, fresh) {
    const keyed = new Map();
    for (const child of old.childNodes) if (child.key !== undefined) keyed.set(child.key, child);
    let at = old.firstChild;
    for (const child of [...fresh.childNodes]) {
      const match = child.key === undefined ? at : keyed.get(child.key);
      if (match && same(match, child)) {
        if (match === at) at = at.nextSibling;
        else old.insertBefore(match, at);
        morph(match, child);
      } else {
        old.insertBefore(child, at);
      }
    }
    while (at) {
      const next = at.nextSibling;
      at.remove();
      at = next;
    }
  }

  /* Redraws the children of a node, and mounts what is new among them. */
  function draw(root, children) {
    const fresh = document.createElement(root.nodeName);
    fresh.append(...nodes([children]));
    morphChildren(root, fresh);
    settle(root);
  }

  // ---------------------------------------------------------------- numbers

  const UNKNOWN = "–";
  const whole = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
  const known = (value) => typeof value === "number" && Number.isFinite(value);

  /* Three significant digits; whole numbers in full. */
  function figure(value) {
    if (!known(value)) return UNKNOWN;
    if (Number.isInteger(value)) return whole.format(value).replace("-", "−");
    const size = Math.abs(value);
    if (size >= 1000) return whole.format(value).replace("-", "−");
    const text = size < 1e-3 ? value.toExponential(1) : String(Number(value.toPrecision(3)));
    return text.replace("-", "−");
  }

  const percent = (value, digits = 1) =>
    known(value)
      ? `${(100 * value)
          .toFixed(digits)
          .replace(/^-(?=0\.?0*$)/, "")
          .replace("-", "−")} %`
      : UNKNOWN;
  const short = (value) => {
    if (!known(value)) return UNKNOWN;
    const size = Math.abs(value);
    for (const [limit, unit] of [
      [1e15, "P"],
      [1e12, "T"],
      [1e9, "G"],
      [1e6, "M"],
      [1e4, "k"],
    ]) {
      if (size >= limit) return `${figure(value / (unit === "k" ? 1e3 : limit))} ${unit}`;
    }
    return figure(value);
  };

  /* An estimate with its interval: `0.31 [0.2, 0.42]`; unknown where nothing was measured. */
  function interval(estimate, as = figure) {
    if (!estimate || !known(estimate.value)) return UNKNOWN;
    if (!known(estimate.low) || !known(estimate.high)) return as(estimate.value);
    return `${as(estimate.value)} [${as(estimate.low).replace(" %", "")}, ${as(estimate.high)}]`;
  }

  function clock(seconds) {
    if (!known(seconds)) return UNKNOWN;
    if (seconds < 60) return `${figure(seconds)} s`;
    const minutes = Math.round(seconds / 60);
    return minutes < 60 ? `${minutes} min` : `${Math.floor(minutes / 60)} h ${minutes % 60} min`;
  }

  const moment = (epoch) =>
    known(epoch) ? new Date(1000 * epoch).toISOString().slice(0, 19).replace("T", " ") + " UTC" : UNKNOWN;

  function ago(epoch, now = Date.now() / 1000) {
    const seconds = Math.max(0, now - epoch);
    if (seconds < 90) return `${Math.round(seconds)} s ago`;
    if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
    return seconds < 172800 ? `${Math.round(seconds / 3600)} h ago` : `${Math.round(seconds / 86400)} days ago`;
  }

  /* A value of a row as short text; maps as `key value, key value`. */
  function brief(value) {
    if (value === null || value === undefined) return UNKNOWN;
    if (typeof value === "number") return figure(value);
    if (Array.isArray(value)) return value.map(brief).join(", ");
    if (typeof value === "object") {
      const told = Object.entries(value).filter(
        ([, inner]) => !(inner === "" || (inner && typeof inner === "object" && !Object.keys(inner).length)),
      );
      return told.map(([key, inner]) => `${key} ${brief(inner)}`).join(", ") || UNKNOWN;
    }
    return String(value);
  }

  const plural = (count, one, many = `${one}s`) => `${figure(count)} ${count === 1 ? one : many}`;

  Object.assign(braid, {
    visible,
    h,
    part,
    draw,
    settle,
    known,
    figure,
    percent,
    short,
    interval,
    clock,
    moment,
    ago,
    brief,
    plural,
    UNKNOWN,
  });
}
