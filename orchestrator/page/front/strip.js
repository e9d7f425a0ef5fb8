"use strict";
/* Decisions as marks beneath the braid: one is told at a time, by pointing at it or with the arrow keys. */
{
  const { h, known, figure: told } = braid;

  /* A reason without its figures: where this changes, the control changed its mind and not only its number. */
  const shape = (reason) => reason.replace(/-?\d+(\.\d+)?(e-?\d+)?/g, "#");

  function marksOf(doc) {
    const fired = new Map();
    for (const one of doc.fired) fired.set(one.step, [...(fired.get(one.step) || []), one]);
    return doc.until.map((step, at) => ({
      step,
      from: doc.steps[at],
      reason: doc.reasons[at],
      fired: fired.get(step) || [],
      turn: at === 0 || shape(doc.reasons[at]) !== shape(doc.reasons[at - 1]) || fired.has(step),
      values: [
        ...doc.coefficients.map((one) => [`${one.name} ×`, one.values[at]]),
        ...doc.places.map((one) => [`prompts for ${one.name}`, one.values[at]]),
      ].filter(([, value]) => known(value)),
    }));
  }

  const spoken = (mark, stage) =>
    `step ${mark.step}${stage ? `, ${stage}` : ""}: ${mark.reason || "no reason was given"}`;

  braid.kinds.strip = {
    name: "strip",
    mount(node, first) {
      let props = first,
        at = props.marks.length - 1,
        span = null;
      const canvas = h("svg", {
        class: "strip",
        role: "slider",
        tabindex: "0",
        "aria-label": "Decisions",
        "aria-orientation": "horizontal",
      });
      const said = h("div", { class: "decision panel", "aria-live": "polite" });
      node.append(canvas, said);
      const stageAt = (step) => props.stages.find((one) => one.first <= step && step <= one.last)?.name;
      const scale = () => {
        const size = props.plot?.()?._fullLayout?._size ?? { l: 52, r: 14 };
        const [low, high] = span ??
          props.plot?.()?._fullLayout?.xaxis?.range ?? [props.marks[0].step - 0.5, props.marks.at(-1).step + 0.5];
        const width = Math.max(60, node.clientWidth - size.l - size.r);
        return (step) => size.l + (width * (step - low)) / Math.max(1e-9, high - low);
      };
      function paint() {
        if (!props.marks.length) return;
        at = Math.min(Math.max(0, at), props.marks.length - 1);
        const x = scale(),
          now = props.marks[at];
        canvas.setAttribute("viewBox", `0 0 ${node.clientWidth || 600} 34`);
        const visible = props.marks
          .map((mark, index) => [mark, index, x(mark.step)])
          .filter(([, , where]) => where > 20 && where < node.clientWidth);
        braid.draw(canvas, [
          visible.map(([mark, index, where]) =>
            h("path", {
              class: `tick${mark.turn ? " turn" : ""}${index === at ? " now" : ""}`,
              d: `M${where.toFixed(1)} ${mark.turn ? 4 : 12}V26`,
            }),
          ),
          visible
            .filter(([mark]) => mark.fired.length)
            .map(([, , where]) => h("path", { class: "fired", d: `M${where - 4} 27h8l-4 6z` })),
          h("path", { class: "pointer", d: `M${x(now.step).toFixed(1)} 0l5 6h-10z` }),
        ]);
        for (const [name, value] of Object.entries({
          "aria-valuemin": props.marks[0].step,
          "aria-valuemax": props.marks.at(-1).step,
          "aria-valuenow": now.step,
          "aria-valuetext": spoken(now, stageAt(now.step)),
        }))
          canvas.setAttribute(name, braid.visible(value));
        braid.draw(said, [
          h(
            "p",
            { class: "small dim" },
            `step ${now.from === now.step ? now.step : `${now.from} to ${now.step}`}${stageAt(now.step) ? ` · ${stageAt(now.step)}` : ""} · decision ${at + 1} of ${props.marks.length}`,
          ),
          h("p", { class: "why" }, now.reason || "No reason was given."),
          now.values.length || now.fired.length
            ? h(
                "p",
                { class: "small dim" },
                [
                  ...now.values.map(([name, value]) => `${name} ${told(value)}`),
                  ...now.fired.map((one) => `${one.name}'s buffer fires: ${told(one.prompts)} prompts that waited`),
                ].join(" · "),
              )
            : null,
        ]);
      }
      const to = (index) => {
        at = Math.min(Math.max(0, index), props.marks.length - 1);
        paint();
      };
      const turned = (by) => {
        let next = at + by;
        while (next > 0 && next < props.marks.length - 1 && !props.marks[next].turn) next += by;
        to(next);
      };
      canvas.addEventListener("keydown", (event) => {
        const moves = {
          ArrowLeft: () => to(at - 1),
          ArrowDown: () => to(at - 1),
          ArrowRight: () => to(at + 1),
          ArrowUp: () => to(at + 1),
          PageUp: () => turned(-1),
          PageDown: () => turned(1),
          Home: () => to(0),
          End: () => to(props.marks.length - 1),
        };
        if (moves[event.key]) {
          event.preventDefault();
          moves[event.key]();
        }
      });
      const point = (event) => {
        const x = scale(),
          where = event.clientX - canvas.getBoundingClientRect().left;
        let best = 0,
          least = Infinity;
        props.marks.forEach((mark, index) => {
          const far = Math.abs(x(mark.step) - where);
          if (far < least) [best, least] = [index, far];
        });
        if (best !== at) to(best);
      };
      canvas.addEventListener("pointermove", point);
      canvas.addEventListener("pointerdown", point);
      new ResizeObserver(paint).observe(node);
      node.zoomed = (range) => {
        span = range;
        paint();
      };
      paint();
      return (fresh) => {
        const followed = at === props.marks.length - 1;
        const step = props.marks[at]?.step;
        props = fresh;
        at =
          followed && document.activeElement !== canvas
            ? props.marks.length - 1
            : Math.max(
                0,
                props.marks.findIndex((mark) => mark.step >= step),
              );
        paint();
      };
    },
  };

  Object.assign(braid, { marksOf });
}
