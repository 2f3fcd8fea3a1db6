// The view of models: what is on the server's disk, what is in its memory, what can be pulled.

import { ApiError, call, errorText, get, lines, post } from "./api.js";
import { byId, countText, h, iconButton, notice, sizeText } from "./dom.js";
import { listen } from "./live.js";

/** The models as the server told last; null before it has. */
export let models = null;

const listeners = new Set();
const busy = new Map();  // name -> what is being done with it
const needs = new Map();  // name -> bytes that it will take; null where that cannot be said
let learning = false;
let focused = null;  // the place in the table that had the focus

export const onModels = (listener) => listeners.add(listener);
export const isLoaded = (name) => Boolean(models?.find((one) => one.name === name)?.loaded);

/** Positions that a loaded model runs with, null where that is not known. */
export const contextOf = (name) => models?.find((one) => one.name === name)?.loaded?.context ?? null;

/** Asks the server again; `quiet` where nobody has asked for it. */
export async function refresh(quiet = false) {
  try {
    models = (await get("/page/models", { quiet })).models;
  } catch (error) {
    if (!quiet) notice(error.message, { kind: "error" });
    return;
  }
  draw();
  for (const listener of listeners) listener();
  learnNeeds();
}

/** Asks what models will take that are not loaded, one after the other while the view is open. */
async function learnNeeds() {
  if (learning) return;
  learning = true;
  for (;;) {
    const next = models.find((one) => one.memory === null && !needs.has(one.name));
    if (!next || byId("models").hidden) break;
    const asked = get(`/page/memory?model=${encodeURIComponent(next.name)}`, { quiet: true });
    needs.set(next.name, await asked.then((found) => found.memory, () => null));
    draw();
  }
  learning = false;
}

export function setUp() {
  byId("pull").addEventListener("submit", (event) => {
    event.preventDefault();
    const name = byId("pull-name").value.trim();
    byId("pull-name").value = "";
    if (name) pull(name);
  });
  let before = null;
  listen((sample) => {  // models come and go by the requests of others, too
    if (!sample?.models) return;
    const now = JSON.stringify(sample.models.map((one) => [one.name, one.running, one.waiting]));
    if (before !== null && now !== before) refresh(true);
    before = now;
  });
}

/** Called when the view opens. */
export async function show() {
  refresh();
  if (byId("catalog").children.length) return;
  const known = await get("/page/catalog").catch(() => ({ models: [] }));
  byId("catalog").replaceChildren(...known.models.map((one) => h("option", { value: one.name },
    [countText(one.parameters), one.class, one.licence, one.gated && "needs an account",
      one.base && "no chat"].filter(Boolean).join(" · "))));
}

function draw() {
  const list = byId("model-list");
  const { activeElement: active } = document;
  if (list.contains(active)) focused = place(active);
  list.replaceChildren(models.length ? table() : h("p.muted.empty", {},
    "No model is on this disk yet. smollm2:135m is a small one to begin with."));
  if (focused && document.activeElement === document.body)
    for (const button of list.querySelectorAll("button:enabled")) {
      if (place(button) === focused) {
        focused = null;
        button.focus();
        break;
      }
    }
}

/** Where a button stands in the table: the same place after the table is drawn anew. */
function place(button) {
  const row = button.closest("tr");
  return row && `${row.dataset.model} ${[...row.querySelectorAll("button")].indexOf(button)}`;
}

const COLUMNS = ["Model", "Class", "Quantization", "Context", "Disk", "Memory", "Licence", ""];

function table() {
  return h("table.models", {}, h("thead", {}, h("tr", {}, COLUMNS.map((name) =>
    name ? h("th", { scope: "col" }, name) : h("td", {})))), h("tbody", {}, models.map(row)));
}

function row(model) {
  const cells = [
    [`${model.class}`, countText(model.parameters)],
    [model.quantization],
    [model.context ? model.context.toLocaleString("en") : "not said",
      model.loaded && `${model.loaded.context.toLocaleString("en")} in use`],
    [model.size === null ? "–" : sizeText(model.size)],
    memory(model),
    [model.licence ?? "not said"],
  ];
  return h("tr", { class: model.loaded ? "loaded" : null, "data-model": model.name },
    h("th", { scope: "row" }, h("span.name", {}, model.name), h("small", {}, state(model))),
    cells.map(([value, more], at) => h("td", { "data-name": COLUMNS[at + 1] },
      h("span", {}, value), more && h("small", {}, more))),
    h("td.actions", {}, actions(model)));
}

function memory(model) {
  if (model.memory !== null) return [sizeText(model.memory), "in use"];
  const need = needs.get(model.name) ?? null;
  return need === null ? ["–"] : [sizeText(need), "when loaded"];
}

function state(model) {
  if (busy.has(model.name)) return busy.get(model.name);
  if (!model.loaded) return "on disk";
  const { running, waiting, pinned, expires } = model.loaded;
  const work = running + waiting ? `, ${running} running, ${waiting} waiting` : "";
  if (pinned) return `loaded and pinned${work}`;
  const minutes = expires ? Math.round((new Date(expires) - Date.now()) / 60000) : null;
  const until = minutes === null || work ? "" : minutes > 0 ? `, ${minutes} min left` : "";
  return `loaded${work}${until}`;
}

function actions(model) {
  const disabled = busy.has(model.name);
  const button = (label, doing, path, body) => h("button", {
    type: "button", disabled, "aria-label": `${label} ${model.name}`,
    onclick: () => act(model.name, doing, () => post(path, body)),
  }, label);
  const load = (label, more = {}) =>
    button(label, "loading", "/admin/load", { model: model.name, ...more });
  const { loaded } = model;
  return [
    loaded ? button("Unload", "unloading", "/admin/unload", { model: model.name }) : load("Load"),
    loaded?.pinned ? load("Unpin", { pin: false }) : load("Pin", { pin: true }),
    model.size !== null && iconButton("trash", `Delete ${model.name}`, () => remove(model), { disabled }),
  ];
}

/** Does something with a model and shows that it goes on. */
async function act(name, doing, work) {
  busy.set(name, doing);
  draw();
  byId("status").textContent = `${doing} ${name}`;
  try {
    await work();
    byId("status").textContent = `${doing} ${name}: done`;
  } catch (error) {
    notice(error.message, { kind: "error" });
  }
  busy.delete(name);
  await refresh();
}

function remove(model) {
  if (!confirm(`Delete ${model.name} (${sizeText(model.size)}) from the server's disk?`)) return;
  act(model.name, "deleting",
    () => call("/api/delete", { method: "DELETE", body: { model: model.name } }));
}

// Pulling

/** Pulls a model and shows how far it is. */
async function pull(name) {
  const stop = new AbortController();
  const bar = h("progress", { max: 1, "aria-label": `Pull of ${name}` });
  const what = h("small.muted", {}, "starting");
  const end = iconButton("close", `Stop the pull of ${name}`, () => stop.abort());
  const line = h("li", {}, h("span.name", {}, name), bar, what, end);
  byId("pulls").append(line);
  try {
    const response = await call("/api/pull", { body: { model: name, stream: true }, signal: stop.signal });
    const seen = { time: performance.now(), done: null, speed: 0 };
    let status = "";
    for await (const text of lines(response)) {
      if (!text.trim()) continue;
      const report = JSON.parse(text);
      if (report.error) throw new ApiError(200, errorText(report.error));
      progress(report, bar, what, seen);
      ({ status } = report);
    }
    if (status !== "success") throw new ApiError(0, "The connection ended before the pull did.");
    line.remove();
    needs.clear();  // the name may stand for another file now
    notice(`${name} is here.`);
  } catch (error) {
    failed(error, { name, line, bar, what, end });
  }
  refresh();
}

function failed(error, { name, line, bar, what, end }) {
  if (error.name === "AbortError") {
    line.remove();
    notice(`The pull of ${name} is stopped. Pulling again goes on where it was.`);
    return;
  }
  bar.remove();
  what.className = "error";
  what.setAttribute("role", "alert");
  what.textContent = error.message;
  end.replaceWith(iconButton("close", "Dismiss", () => line.remove()));
}

/** One report of a pull; the speed is smoothed over some seconds. */
function progress({ status, completed, total }, bar, what, seen) {
  const parts = [status];
  if (typeof total === "number" && total > 0) {
    const done = completed ?? 0;
    const now = performance.now();
    const seconds = (now - seen.time) / 1000;
    if (seen.done === null || done < seen.done) Object.assign(seen, { time: now, done, speed: 0 });
    else if (seconds > 0.5) {
      const speed = (done - seen.done) / seconds;
      Object.assign(seen, { time: now, done, speed: seen.speed ? 0.7 * seen.speed + 0.3 * speed : speed });
    }
    bar.value = done / total;
    parts.push(`${sizeText(done)} of ${sizeText(total)}`);
    if (seen.speed > 0 && done < total) parts.push(`${sizeText(Math.round(seen.speed))}/s`);
  } else bar.removeAttribute("value");
  what.textContent = parts.join(" · ");
}
