/* Behind report_page.js, which finds no figures of its own here: Dash asks for them one by one. */
const shown = new Map(); // by the figure's key: what is drawn, and how

/* What a graph is to show: figure, style, title, caption, and whether its place is hidden. */
function explored(pictures, zoom, scheme, key) {
  const {no_update: same, PreventUpdate} = window.dash_clientside;
  const picture = pictures && pictures[key], plot = document.querySelector(`#${key} .js-plotly-plot`);
  if (!picture) return [same, same, same, same, true];
  const axis = plot && plot.layout && plot.layout.xaxis;
  const count = countFor(picture.figure, axis && axis.autorange === false ? axis.range : undefined);
  const before = shown.get(key) || {};
  if (before.picture === picture && before.count === count && before.scheme === scheme) throw PreventUpdate;
  shown.set(key, {picture, count, scheme});
  const height = {height: `${picture.height_px}px`};
  return [drawn(key, picture.figure, count), height, picture.title, picture.caption, false];
}

window.dash_clientside = Object.assign({}, window.dash_clientside, {explore: {draw: explored}});
dark.addEventListener("change", () => window.dash_clientside.set_props("scheme", {data: dark.matches}));
