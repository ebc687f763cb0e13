/* Behind report_page.js, which finds no figures of its own here: Dash asks for them one by one. */
const shown = new Map(); // by the figure's key: what was drawn last, and how

/* The axes that somebody has zoomed since, with their ranges. */
function zoomed(plot, layout) {
  const axes = Object.entries((plot && plot.layout) || {}).filter(([name]) => /^[xy]axis/.test(name));
  const isMoved = ([name, axis]) =>
    axis.range && !axis.autorange && String(axis.range) !== String(((layout || {})[name] || {}).range);
  return Object.fromEntries(axes.filter(isMoved).map(([name, axis]) => [name, {range: [...axis.range]}]));
}

/* What a graph is to show: figure, style, title, caption, and whether its place is hidden. */
function explored(pictures, relayout, scheme, key) {
  const {no_update: same, PreventUpdate} = window.dash_clientside;
  const picture = pictures && pictures[key], before = shown.get(key) || {};
  if (!picture) return [same, same, same, same, true];
  const zooms = zoomed(document.querySelector(`#${key} .js-plotly-plot`), before.layout);
  const count = countFor(picture.figure, zooms.xaxis && zooms.xaxis.range);
  if (before.picture === picture && before.count === count && before.scheme === scheme) throw PreventUpdate;
  const {data, layout} = drawn(key, picture.figure, count);
  shown.set(key, {picture, count, scheme, layout});
  const axes = Object.entries(zooms).map(([name, zoom]) => [name, {...layout[name], ...zoom, autorange: false}]);
  const figure = {data, layout: {...layout, ...Object.fromEntries(axes)}};
  return [figure, {height: `${picture.height_px}px`}, picture.title, picture.caption, false];
}

window.dash_clientside = Object.assign({}, window.dash_clientside, {explore: {draw: explored}});
dark.addEventListener("change", () => window.dash_clientside.set_props("scheme", {data: dark.matches}));
