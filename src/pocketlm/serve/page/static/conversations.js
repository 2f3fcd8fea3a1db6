// Conversations, kept in this browser and nowhere else: one entry of localStorage for each, so that
// two tabs with two conversations do not overwrite each other.

const PREFIX = "pocketlm.chat.";
const MOST_BYTES = 32 << 20;  // of a file to import
const ROLES = ["user", "assistant"];
const OPTIONS = ["temperature", "top_p", "top_k", "max_tokens", "seed", "thinking"];

/** A conversation with nothing said in it; model and settings are those of `like`. */
export const blank = (like = null) => ({
  id: `${Date.now().toString(36)}-${Math.random().toString(36).slice(2, 8)}`,
  title: "",
  updated: Date.now(),
  model: like?.model ?? "",
  system: like?.system ?? "",
  options: { ...like?.options },
  messages: [],
});

/** All conversations, the last used first. */
export function all() {
  const found = [];
  for (let at = 0; at < localStorage.length; at++) {
    const name = localStorage.key(at);
    if (name.startsWith(PREFIX)) found.push(read(name.slice(PREFIX.length)));
  }
  return found.filter(Boolean).sort((one, other) => other.updated - one.updated);
}

/** The conversation of that id, or null. */
export function read(id) {
  try {
    return checked(JSON.parse(localStorage.getItem(PREFIX + id)));
  } catch {
    return null;
  }
}

/** Keeps a conversation; gives whether the browser had room for it. */
export function write(chat) {
  try {
    localStorage.setItem(PREFIX + chat.id, JSON.stringify(chat));
    return true;
  } catch {
    return false;
  }
}

export const remove = (id) => localStorage.removeItem(PREFIX + id);

/** What a conversation is called: its first words. */
export const title = (chat) =>
  chat.title || chat.messages[0]?.content.trim().split("\n")[0].slice(0, 60) || "New chat";

/** A file with conversations, as text. */
export const exported = (chats) => JSON.stringify({ pocketlm: "conversations", version: 1, chats }, null, 1);

/** The conversations of such a file, under ids of their own. Throws Error for anything else. */
export async function imported(file) {
  if (file.size > MOST_BYTES) throw new Error("The file is larger than 32 MB.");
  let value;
  try {
    value = JSON.parse(await file.text());
  } catch {
    throw new Error("The file is not JSON.");
  }
  if (value?.pocketlm !== "conversations" || !Array.isArray(value.chats))
    throw new Error("The file was not exported by this page.");
  return value.chats.map((one) => ({ ...checked(one), id: blank().id }));
}

/** A conversation with exactly the fields it should have. Throws Error for what is none. */
function checked(value) {
  if (typeof value?.id !== "string" || !Array.isArray(value.messages))
    throw new Error("A conversation has no id or no messages.");
  const text = (given) => (typeof given === "string" ? given : "");
  const options = Object.fromEntries(OPTIONS.filter((name) =>
    ["string", "number"].includes(typeof value.options?.[name])).map((name) => [name, value.options[name]]));
  return {
    id: value.id,
    title: text(value.title),
    updated: Number(value.updated) || 0,
    model: text(value.model),
    system: text(value.system),
    options,
    messages: value.messages.filter((one) => ROLES.includes(one?.role)).map((one) => ({
      role: one.role,
      content: text(one.content),
      reasoning: text(one.reasoning),
      model: text(one.model),
      error: text(one.error),
      note: text(one.note),
    })),
  };
}
