"use strict";
const MOST_SHOWN = 400; // stretches of a line; more would be noise on a screen
const figures = JSON.parse(document.getElementById("figures").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");

/* The colours of the page, for what Plotly draws on it. */
function template() {
  const style = getComputedStyle(document.documentElement);
  const color = (name) => style.getPropertyValue("--" + name).trim();
  const axis = {
    gridcolor: color("rule"), linecolor: color("rule"), zerolinecolor: color("rule"),
    automargin: true, spikecolor: color("faint"),
  };
  return {layout: {
    font: {family: getComputedStyle(document.body).fontFamily, size: 13, color: color("text")},
    paper_bgcolor: "rgba(0,0,0,0)", plot_bgcolor: "rgba(0,0,0,0)",
    hoverlabel: {bgcolor: color("panel"), bordercolor: color("rule"), font: {color: color("text")}},
    margin: {l: 60, r: 44, t: 40, b: 44},
    legend: {orientation: "h", itemsizing: "constant", x: 0, xanchor: "left", y: 1, yanchor: "bottom"},
    modebar: {orientation: "v", bgcolor: "rgba(0,0,0,0)", color: color("faint"), activecolor: color("text")},
    xaxis: axis, yaxis: axis,
    updatemenudefaults: {bgcolor: color("panel"), bordercolor: color("rule")},
  }};
}

/* The numbers of an array as Plotly's Python side writes them, 4 bytes each. */
function floats(array) {
  return new Float32Array(Uint8Array.from(atob(array.bdata), (c) => c.charCodeAt(0)).buffer);
}

/* How many stretches to take together, so that at most MOST_SHOWN are shown: 1, 2 or 5 times 10^n. */
function together(shown) {
  for (let power = 1; ; power *= 10)
    for (const digit of [1, 2, 5])
      if (shown / (digit * power) <= MOST_SHOWN) return digit * power;
}

/* A line over time with `count` stretches taken together: the mean over them, or the value at their edges. */
function coarser(line, count) {
  const [edges, fine] = [floats(line.x), floats(line.y)], last = edges.length - 1, x = [], y = [];
  for (let from = 0; from < last; from += count) {
    const to = Math.min(from + count, last);
    let sum = 0;
    for (let i = from; i < to; i++) sum += fine[i] * (edges[i + 1] - edges[i]);
    x.push(edges[from]);
    y.push(line.meta === "values" ? fine[from] : sum / (edges[to] - edges[from]));
  }
  x.push(edges[last]);
  y.push(line.meta === "values" ? fine[last] : y[y.length - 1]);
  return {...line, x, y};
}

/* What Plotly is to draw of a figure, `count` stretches of time taken together. */
function drawn(key, figure, count) {
  const stretch = stretchOf(figure);
  const layout = {...figure.layout, template: template(), uirevision: key};
  if (!stretch) return {data: figure.data, layout};
  const axis = layout.xaxis, width = Number((count * stretch).toPrecision(6));
  layout.xaxis = {...axis, title: {text: `${axis.title.text} (means over ${width} s)`}};
  return {data: figure.data.map((line) => coarser(line, count)), layout};
}

/* How long a stretch of a figure over time is; nothing of any other. */
function stretchOf(figure) {
  return figure.layout.meta && figure.layout.meta.stretch_s;
}

/* How many stretches of a figure over time to take together where so much of its axis is seen. */
function countFor(figure, [from, to] = [-Infinity, Infinity]) {
  if (!stretchOf(figure)) return 1;
  const longest = figure.data.map((line) => floats(line.x)).reduce((a, b) => (a.length > b.length ? a : b));
  return together(longest.filter((edge) => edge >= from && edge <= to).length - 1);
}

function draw(key, count) {
  figures[key].count = count;
  const {data, layout} = drawn(key, figures[key], count);
  const buttons = [["toImage", "zoom2d", "pan2d", "resetScale2d"]];
  return Plotly.react(key, data, layout, {displaylogo: false, responsive: true, modeBarButtons: buttons});
}

/* After a zoom, show means over as short a time as fits. */
function refine(key) {
  const count = countFor(figures[key], document.getElementById(key).layout.xaxis.range);
  if (count !== figures[key].count) draw(key, count);
}

async function drawAll() {
  for (const [key, figure] of Object.entries(figures)) {
    draw(key, countFor(figure));
    if (stretchOf(figure)) document.getElementById(key).on("plotly_relayout", () => refine(key));
    await new Promise((resume) => setTimeout(resume)); // so that one can read and scroll meanwhile
  }
}

drawAll();
dark.addEventListener("change", () => {
  for (const key of Object.keys(figures)) Plotly.relayout(key, {template: template()});
});
