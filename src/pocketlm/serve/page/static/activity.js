// The view of what the server is doing: line charts of the last two minutes.

import { byId, figure, h, sizeText, svg } from "./dom.js";
import { history, listen } from "./live.js";

const WIDTH = 120;  // one unit a second
const HEIGHT = 40;

// Each chart: its lines as [field of a sample, name], how values are written, the least top of its scale.
const CHARTS = [
  { id: "tokens", title: "Tokens per second", least: 10, say: figure,
    lines: [["output_rate", "written"], ["prompt_rate", "read"]] },
  { id: "requests", title: "Requests", least: 4, say: figure,
    lines: [["running", "running"], ["waiting", "waiting"]] },
  { id: "kv", title: "KV cache in use", least: 1, most: 1, say: (part) => `${figure(100 * part)} %`,
    lines: [["kv_usage", "of the blocks"]] },
];

let drawn = [];

/** Builds the charts and keeps them up to date while they can be seen. */
export function setUp() {
  drawn = CHARTS.map(build);
  byId("charts").replaceChildren(...drawn.map((one) => one.card));
  listen((sample) => {
    if (byId("activity").hidden) return;
    update(sample);
  });
}

/** Draws what is known; called when the view opens. */
export function update(sample = history.at(-1)) {
  for (const chart of drawn) draw(chart);
  const state = byId("activity-models");
  if (!sample || sample.denied) {
    state.replaceChildren(h("p.muted", {}, sample ? `Nothing to see: ${sample.denied}.` : "The server does not answer."));
    return;
  }
  const rows = sample.models.map((one) => h("tr", {}, h("th", { scope: "row" }, one.name),
    h("td", {}, String(one.running)), h("td", {}, String(one.waiting)), h("td", {}, sizeText(one.memory))));
  state.replaceChildren(rows.length
    ? h("table", {}, h("thead", {}, h("tr", {}, ...["Model", "Running", "Waiting", "Memory"].map((name) =>
      h("th", { scope: "col" }, name)))), h("tbody", {}, rows))
    : h("p.muted", {}, "No model is loaded."));
}

function build(chart) {
  const paths = chart.lines.map((_, at) => svg("path", { class: `line line-${at}` }));
  const area = svg("path", { class: "area" });
  const values = chart.lines.map(([, name], at) => {
    const value = h("b", {}, "–");
    return { value, box: h("span", {}, h(`i.key.key-${at}`), value, ` ${name}`) };
  });
  const top = h("span.top", {}, "");
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img" },
    ...[0, 0.5, 1].map((part) => svg("line", { class: "grid", x1: 0, x2: WIDTH, y1: part * HEIGHT, y2: part * HEIGHT })),
    area, ...paths.toReversed());
  const card = h("section.card.chart", { id: `chart-${chart.id}`, "aria-label": chart.title },
    h("header", {}, h("h3", {}, chart.title), h("div.legend", {}, values.map((one) => one.box))),
    h("div.plot", {}, top, h("span.bottom", {}, "0"), picture),
    h("footer.muted", {}, h("span", {}, "2 min ago"), h("span", {}, "now")));
  return { ...chart, card, paths, area, values, top, picture };
}

function draw(chart) {
  const series = chart.lines.map(([field]) => history.map((sample) => sample?.[field] ?? null));
  const highest = Math.max(0, ...series.flat().filter((value) => value !== null));
  const top = chart.most ?? Math.max(chart.least, nice(highest));
  chart.top.textContent = chart.say(top);
  series.forEach((values, at) => {
    chart.paths[at].setAttribute("d", path(values, top));
    const last = values.at(-1) ?? null;
    chart.values[at].value.textContent = last === null ? "–" : chart.say(last);
  });
  chart.area.setAttribute("d", filled(series[0], top));
  const said = chart.lines.map(([, name], at) => `${chart.values[at].value.textContent} ${name}`);
  chart.picture.setAttribute("aria-label", `${chart.title} now: ${said.join(", ")}`);
}

/** The next of 1, 2, 5, 10, 20, 50 … that is not below a value. */
function nice(value) {
  if (value <= 0) return 0;
  const power = 10 ** Math.floor(Math.log10(value));
  return [1, 2, 5, 10].map((step) => step * power).find((step) => step >= value * 0.999);
}

const x = (at, count) => WIDTH - (count - 1 - at);
const y = (value, top) => (HEIGHT * (1 - Math.min(value, top) / top)).toFixed(2);

/** A line that is interrupted where nothing is known. */
function path(values, top) {
  let drawing = "";
  values.forEach((value, at) => {
    if (value === null) return;
    const begins = at === 0 || values[at - 1] === null;
    drawing += `${begins ? "M" : "L"}${x(at, values.length)} ${y(value, top)}`;
  });
  return drawing;
}

/** The area below the newest uninterrupted part of a line. */
function filled(values, top) {
  const start = values.lastIndexOf(null) + 1;
  if (values.length - start < 2) return "";
  return `${path(values.map((value, at) => (at < start ? null : value)), top)}`
    + `L${WIDTH} ${HEIGHT}L${x(start, values.length)} ${HEIGHT}Z`;
}
