"use strict";
/* Charts: plotly's figures in the page's colours, drawn when they come into sight, each with its figures as a table. */
{
  const { h, draw, figure: told, visible } = braid;
  const shown = new Set();
  const OPTIONS = {
    responsive: true,
    displaylogo: false,
    displayModeBar: "hover",
    scrollZoom: false,
    plotlyServerURL: "",
    modeBarButtons: [["toImage", "zoom2d", "pan2d", "resetScale2d"]],
  };
  const MOST_ROWS = 400;

  const style = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  const dark = () => document.documentElement.dataset.theme === "dark";
  /* A colour of light paper as it is on the page's present ground; the eight digits of a translucent one stay so. */
  const hue = (colour) =>
    dark() && typeof colour === "string" && braid.darker?.[colour.slice(0, 7)]
      ? braid.darker[colour.slice(0, 7)] + colour.slice(7)
      : colour;
  const plain = (text) =>
    visible(text)
      .replace(/&(?!lt;|gt;|amp;)/g, "&amp;")
      .replace(/<(?!br>)/g, "&lt;");

  function recoloured(value, name = "") {
    if (Array.isArray(value)) return name === "color" || name === "colors" ? value.map(hue) : value;
    if (value && typeof value === "object")
      return Object.fromEntries(Object.entries(value).map(([key, inner]) => [key, recoloured(inner, key)]));
    return /color$/.test(name) ? (value === "ground" ? style("--ground") : hue(value)) : value;
  }

  /* Names come from pipelines and models: none of plotly's tags are obeyed in them. */
  function inert(trace) {
    const made = { ...trace };
    if (made.name) made.name = plain(made.name);
    for (const axis of ["x", "y"])
      if (Array.isArray(made[axis])) made[axis] = made[axis].map((one) => (typeof one === "string" ? plain(one) : one));
    if (Array.isArray(made.text)) made.text = made.text.map(plain);
    return made;
  }

  function dressed(figure, height) {
    const ink = style("--dim"),
      line = style("--line");
    const axis = { gridcolor: line, zerolinecolor: line, linecolor: line, automargin: true };
    const layout = recoloured(figure.layout || {});
    for (const [name, value] of Object.entries(layout))
      if (/^[xy]axis\d*$/.test(name)) layout[name] = { ...axis, ...value };
    const narrow = innerWidth < 600;
    return {
      data: figure.data.map((trace) => recoloured(inert(trace))),
      layout: {
        xaxis: axis,
        yaxis: axis,
        ...layout,
        autosize: true,
        height: height || layout.height || 280,
        uirevision: "kept",
        dragmode: "zoom",
        hoverdistance: layout.hovermode === "x unified" ? -1 : 20,
        annotations: (layout.annotations || []).map((one) => ({ ...one, text: plain(one.text || "") })),
        margin: narrow ? { ...layout.margin, l: Math.min(layout.margin?.l ?? 48, 48), r: 8 } : layout.margin,
        font: { color: ink, family: style("--sans"), size: 12 },
        paper_bgcolor: "rgba(0,0,0,0)",
        plot_bgcolor: "rgba(0,0,0,0)",
        hoverlabel: {
          bgcolor: style("--raised"),
          bordercolor: style("--edge"),
          font: { color: style("--ink"), size: 12 },
          align: "left",
        },
        modebar: { bgcolor: "rgba(0,0,0,0)", color: ink, activecolor: style("--ink") },
      },
    };
  }

  /* What a chart says, for readers who hear it. */
  function spoken(title, figure) {
    const curves = figure.data.filter((trace) => trace.name && trace.showlegend !== false);
    const parts = curves.slice(0, 6).map((trace) => {
      const values = (trace.orientation === "h" ? trace.x : trace.y || []).filter(braid.known);
      if (!values.length) return visible(trace.name);
      return values.length === 1
        ? `${visible(trace.name)} ${told(values[0])}`
        : `${visible(trace.name)} from ${told(values[0])} to ${told(values.at(-1))}`;
    });
    return `${title}. Chart with ${braid.plural(curves.length, "series", "series")}: ${parts.join("; ")}${curves.length > 6 ? "; and more" : ""}.`;
  }

  function table(figure) {
    const traces = figure.data.filter((trace) => trace.name && trace.showlegend !== false && trace.y);
    const across = traces.some((trace) => trace.orientation === "h");
    const [key, value] = across ? ["y", "x"] : ["x", "y"];
    const maps = traces.map((trace) => new Map(trace[key].map((at, index) => [at, trace[value][index]])));
    const keys = [...new Set(maps.flatMap((map) => [...map.keys()]))];
    if (keys.every((one) => typeof one === "number")) keys.sort((a, b) => a - b);
    const stride = Math.ceil(keys.length / MOST_ROWS);
    const rows = keys.filter((_, at) => at % stride === 0);
    return h(
      "div",
      { class: "scroll", tabindex: "0", role: "region", "aria-label": "figures of the chart" },
      h(
        "table",
        {},
        stride > 1 ? h("caption", {}, `every ${stride}th of ${keys.length} rows`) : null,
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("th", { scope: "col" }, (across ? "" : figure.layout?.xaxis?.title?.text) || "step"),
            traces.map((trace) => h("th", { scope: "col", class: "n" }, trace.name)),
          ),
        ),
        h(
          "tbody",
          {},
          rows.map((at) =>
            h(
              "tr",
              {},
              h("th", { scope: "row" }, typeof at === "number" ? told(at) : at),
              maps.map((map) => h("td", { class: "n" }, map.has(at) ? told(map.get(at)) : braid.UNKNOWN)),
            ),
          ),
        ),
      ),
    );
  }

  /* The figures of a chart behind a summary, made when it is opened. */
  const tables = {
    name: "table",
    tag: "details",
    mount(node, first) {
      let props = first;
      const fill = () => {
        node.querySelector(".scroll")?.remove();
        if (node.open) node.append(table(props.figure));
      };
      node.append(h("summary", {}, "Table of the figures"));
      node.addEventListener("toggle", fill);
      return (fresh) => {
        props = fresh;
        fill();
      };
    },
  };
  const figureTable = (figure, key) => braid.part(tables, { figure }, { class: "figures-of", key: `table ${key}` });

  braid.kinds.chart = {
    name: "chart",
    tag: "figure",
    mount(node, first) {
      let props = first,
        text = JSON.stringify(first.figure),
        drawn = false;
      const plot = h("div", {
        class: "plot waiting",
        role: "img",
        "aria-label": spoken(props.title, props.figure),
        style: { "--tall": `${props.height || props.figure.layout?.height || 280}px` },
      });
      const more = figureTable(props.figure, props.title);
      const caption = h("figcaption", {});
      const titled = () =>
        draw(caption, [
          props.title ? h("h3", {}, props.title) : null,
          props.note === undefined ? null : h("p", {}, props.note),
        ]);
      titled();
      node.append(caption, plot, props.table === false ? "" : more);
      braid.settle(more);
      const paint = () => {
        if (!drawn || !window.Plotly) return;
        const { data, layout } = dressed(props.figure, props.height);
        window.Plotly.react(plot, data, layout, OPTIONS).then(() => {
          plot.classList.remove("waiting");
          if (!plot.told && props.drawn) {
            plot.told = true;
            props.drawn(plot);
          }
        });
      };
      const sight = new IntersectionObserver(
        (entries) => {
          if (entries.some((one) => one.isIntersecting)) {
            drawn = true;
            sight.disconnect();
            braid.plotly.then(paint);
          }
        },
        { rootMargin: "240px" },
      );
      sight.observe(plot);
      node.paint = paint;
      shown.add(node);
      return (fresh) => {
        const before = text;
        props = fresh;
        text = JSON.stringify(fresh.figure);
        titled();
        if (text === before) return;
        plot.setAttribute("aria-label", spoken(props.title, props.figure));
        more.held.update?.({ figure: props.figure });
        paint();
      };
    },
  };

  /* A chart: props are figure, title, note, height, table (false: none), drawn (called once with the plot). */
  const chart = (props) =>
    braid.part(braid.kinds.chart, props, {
      class: `chart panel${props.wide ? " wide" : ""}`,
      key: props.key || props.title,
    });

  /* All charts again, in the colours of a new theme. */
  function repaint() {
    for (const node of shown) {
      if (node.isConnected) node.paint();
      else shown.delete(node);
    }
  }

  /* The frame that the page's own figures share. */
  function frame(data, layout = {}) {
    return {
      data,
      layout: {
        margin: { l: 52, r: 14, t: 26, b: 40 },
        hovermode: "x unified",
        legend: { orientation: "h", y: 1, yanchor: "bottom", x: 0, traceorder: "normal" },
        ...layout,
      },
    };
  }

  function bands(stages) {
    return {
      shapes: stages.map((one, at) => ({
        type: "rect",
        xref: "x",
        yref: "paper",
        layer: "below",
        x0: one.first - 0.5,
        x1: one.last + 0.5,
        y0: 0,
        y1: 1,
        line: { width: 0 },
        fillcolor: at % 2 ? "rgba(127,140,160,0)" : "rgba(127,140,160,0.10)",
      })),
      annotations: stages.map((one) => ({
        text: one.name,
        x: (one.first + one.last) / 2,
        y: 0,
        xref: "x",
        yref: "paper",
        yanchor: "bottom",
        showarrow: false,
        font: { size: 11 },
        opacity: 0.75,
      })),
    };
  }

  braid.plotly = new Promise((done) => {
    const wait = () => (window.Plotly ? done(window.Plotly) : setTimeout(wait, 30));
    wait();
  });
  Object.assign(braid, { chart, figureTable, repaint, frame, bands, hue, dark });
}
