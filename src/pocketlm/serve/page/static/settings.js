// The settings of the conversation that is shown, and conversations as files.

import { current, keep, open } from "./chat.js";
import * as conversations from "./conversations.js";
import { byId, h, notice } from "./dom.js";

const NUMBERS = ["temperature", "top_p", "top_k", "max_tokens", "seed"];

/** Connects the panel. `onImport` is called when conversations have been added. */
export function setUp(onImport) {
  byId("open-settings").addEventListener("click", () => show(byId("settings").hidden));
  byId("close-settings").addEventListener("click", () => { show(false); byId("open-settings").focus(); });
  byId("system").addEventListener("change", (event) => { current().system = event.target.value; keep(); });
  for (const name of NUMBERS) {
    byId(name).addEventListener("change", ({ target }) => {
      const valid = target.value !== "" && target.validity.valid;
      option(name, valid ? target.valueAsNumber : undefined);
    });
  }
  byId("thinking").addEventListener("change", ({ target }) => option("thinking", target.value || undefined));
  byId("export-one").addEventListener("click", () => save([current()], conversations.title(current())));
  byId("export-all").addEventListener("click", () => save(conversations.all(), "conversations"));
  byId("import").addEventListener("change", async ({ target }) => {
    const file = target.files[0];
    target.value = "";
    if (file) await read(file, onImport);
  });
}

export const isOpen = () => !byId("settings").hidden;

export function show(open) {
  byId("settings").hidden = !open;
  byId("open-settings").setAttribute("aria-expanded", String(open));
  if (open) fill();
}

/** Shows the settings of the current conversation. */
export function fill() {
  const { system, options } = current();
  byId("system").value = system;
  for (const name of [...NUMBERS, "thinking"]) byId(name).value = options[name] ?? "";
}

function option(name, value) {
  const { options } = current();
  if (value === undefined) delete options[name]; else options[name] = value;
  keep();
}

function save(chats, name) {
  const address = URL.createObjectURL(
    new Blob([conversations.exported(chats)], { type: "application/json" }));
  h("a", { href: address, download: `${name.replace(/[^\w -]+/g, "_")}.json` }).click();
  setTimeout(() => URL.revokeObjectURL(address), 10_000);
}

async function read(file, onImport) {
  try {
    const chats = await conversations.imported(file);
    const kept = chats.filter(conversations.write);
    if (kept.length < chats.length)
      notice("This browser has no room for all of them.", { kind: "error" });
    notice(`${kept.length} ${kept.length === 1 ? "conversation" : "conversations"} imported.`);
    if (kept.length) open(kept[0]);
    fill();
    onImport();
  } catch (error) {
    notice(error.message, { kind: "error" });
  }
}
