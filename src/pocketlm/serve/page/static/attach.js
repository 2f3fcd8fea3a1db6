// Files of text, put into the message as blocks of code: chosen, dropped or pasted.

import { byId, notice } from "./dom.js";

const MOST_BYTES = 1 << 20;

export function setUp() {
  byId("attach").addEventListener("change", async ({ target }) => {
    const files = [...target.files];
    target.value = "";
    await add(files);
  });
  byId("chat").addEventListener("dragover", (event) => {
    if (event.dataTransfer.types.includes("Files")) event.preventDefault();
  });
  byId("chat").addEventListener("drop", (event) => {
    if (!event.dataTransfer.files.length) return;
    event.preventDefault();
    add([...event.dataTransfer.files]);
  });
  byId("prompt").addEventListener("paste", (event) => {
    if (!event.clipboardData.files.length) return;
    event.preventDefault();
    add([...event.clipboardData.files]);
  });
}

async function add(files) {
  for (const file of files) {
    const text = await read(file).catch((error) => {
      notice(`${file.name}: ${error.message}`, { kind: "error" });
      return null;
    });
    if (text !== null) insert(file.name, text);
  }
}

/** The text of a file. Throws Error for one that is too large or no text. */
async function read(file) {
  if (file.size > MOST_BYTES) throw new Error("it is larger than 1 MB");
  try {
    return new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
  } catch {
    throw new Error("it is not text");
  }
}

function insert(name, text) {
  const field = byId("prompt");
  const longest = Math.max(2, ...[...text.matchAll(/`+/g)].map(([run]) => run.length));
  const fence = "`".repeat(longest + 1);
  const before = field.value && !field.value.endsWith("\n") ? "\n\n" : "";
  field.value += `${before}${name}:\n${fence}\n${text.replace(/\n$/, "")}\n${fence}\n`;
  field.dispatchEvent(new Event("input"));
  field.focus();
}
