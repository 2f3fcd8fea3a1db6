// The view of one conversation: messages, the field to write in, one answer under way at a time.

import { stream } from "./answer.js";
import * as attach from "./attach.js";
import * as conversations from "./conversations.js";
import { byId, copyButton, h, icon, iconButton, notice } from "./dom.js";
import { render } from "./markdown.js";
import { contextOf, isLoaded, models, onModels, refresh } from "./models.js";

let chat = conversations.blank();
let underWay = null;  // {stop: AbortController, chat, message}
let changed = () => {};

const box = () => byId("messages");

/** Connects the view. `onChange` is called when a conversation has got a title or a message. */
export function setUp(onChange) {
  changed = onChange;
  byId("composer").addEventListener("submit", (event) => {
    event.preventDefault();
    if (underWay) stop(); else send();
  });
  byId("prompt").addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      if (!underWay) send();
    } else if (event.key === "ArrowUp" && !event.target.value) editLast(event);
  });
  byId("prompt").addEventListener("input", grow);
  byId("scroll").addEventListener("scroll", () => { byId("to-end").hidden = isAtEnd(); });
  byId("to-end").addEventListener("click", toEnd);
  attach.setUp();
  byId("clear").addEventListener("click", clear);
  byId("model").addEventListener("change", (event) => { chat.model = event.target.value; keep(); });
  addEventListener("pagehide", () => { if (underWay) conversations.write(underWay.chat); });
  onModels(showModels);
}

export const current = () => chat;
export const isAnswering = () => underWay !== null;

/** Shows another conversation; an answer under way in the one before is stopped. */
export function open(other) {
  if (other.id === chat.id) return;
  stop();
  chat = other;
  showModels();
  draw();
  toEnd();
}

/** Keeps the conversation as it is now, once something has been said in it. */
export function keep() {
  if (!chat.messages.length) return;
  chat.updated = Date.now();
  if (!conversations.write(chat))
    notice("This browser has no room for more: the conversation is not kept.", { kind: "error" });
  changed();
}

export function stop() {
  underWay?.stop.abort();
}

function send() {
  const text = byId("prompt").value.trim();
  if (!text) return;
  if (!chat.model) {
    notice("There is no model yet: get one in the view of models.", { kind: "error" });
    return;
  }
  byId("prompt").value = "";
  grow();
  chat.messages.push(said("user", text));
  answer();
}

const said = (role, content) =>
  ({ role, content, reasoning: "", model: chat.model, error: "", note: "" });

/** Asks for an answer to what has been said. */
async function answer() {
  const mine = chat;
  const message = said("assistant", "");
  mine.messages.push(message);
  const task = { stop: new AbortController(), chat: mine, message };
  underWay = task;
  keep();
  draw();
  toEnd();
  showButton();
  byId("status").textContent = "Answering";
  const wasLoaded = isLoaded(mine.model);
  let frame = 0;
  const show = () => {
    frame ||= requestAnimationFrame(() => { frame = 0; if (chat === mine) follow(() => fill(message)); });
  };
  await stream(mine, message, task.stop.signal, show, contextOf);
  cancelAnimationFrame(frame);
  underWay = null;
  if (conversations.read(mine.id)) conversations.write(mine);  // it may have been deleted meanwhile
  if (chat === mine) {
    follow(draw);
    keep();
  }
  showButton();
  byId("status").textContent = message.error ? `Error: ${message.error}` : "The answer is complete";
  if (!wasLoaded) refresh();
}

function isAtEnd() {
  const { scrollHeight, scrollTop, clientHeight } = byId("scroll");
  return scrollHeight - scrollTop - clientHeight < 40;
}

function toEnd() {
  byId("scroll").scrollTop = byId("scroll").scrollHeight;
  byId("to-end").hidden = true;
}

/** Does `work`, and stays at the end of the conversation if that is where the reader is. */
function follow(work) {
  const atEnd = isAtEnd();
  work();
  if (atEnd) toEnd();
  else byId("to-end").hidden = isAtEnd();
}

function showButton() {
  const label = underWay ? "Stop" : "Send";
  byId("send").replaceChildren(icon(underWay ? "stop" : "send"));
  byId("send").setAttribute("aria-label", label);
  byId("send").title = label;
  byId("composer").classList.toggle("answering", Boolean(underWay));
}

function grow() {
  const field = byId("prompt");
  field.style.height = "auto";
  field.style.height = `${field.scrollHeight}px`;
}

function clear() {
  if (!chat.messages.length) return;
  stop();
  const before = chat.messages;
  const mine = chat;
  const put = (messages) => {
    mine.messages = messages;
    if (messages.length) conversations.write(mine); else conversations.remove(mine.id);
    if (chat === mine) draw();
    changed();
  };
  put([]);
  notice("The conversation is cleared.", { undo: () => put(before) });
}

// Drawing

const parts = new WeakMap();  // message -> the elements that change while it is streamed

function draw() {
  box().replaceChildren(...(chat.messages.length ? chat.messages.map(article) : [welcome()]));
}

function welcome() {
  const none = models && models.length === 0;
  return h("div.welcome", {},
    h("p.large", {}, none ? "There is no model here yet." : "What would you like to know?"),
    h("p.muted", {}, none ? "A small one is a download of 98 MB."
      : "The model runs on this server; nothing that you write goes anywhere else."),
    none && h("a.button.main", { href: "#models" }, "Get a model"));
}

function article(message, at) {
  const mine = message.role === "user";
  const body = h("div.body");
  const thoughts = mine ? null : h("details.thoughts", { hidden: true },
    h("summary", {}, "Thoughts"), h("div.body"));
  const state = h("div.state");
  const element = h(`article.${message.role}`, { "aria-label": mine ? "You" : message.model || "Model" },
    thoughts, body, state);
  parts.set(message, { body, thoughts, state });
  fill(message);
  if (underWay?.message !== message) element.append(footer(message, at, element));
  return element;
}

/** Shows what a message has become. */
function fill(message) {
  const { body, thoughts, state } = parts.get(message);
  if (message.role === "user") {
    body.textContent = message.content;
    return;
  }
  render(body, message.content);
  if (message.reasoning) {
    thoughts.hidden = false;
    const thinking = underWay?.message === message && !message.content;
    thoughts.firstChild.textContent = thinking ? "Thinking" : "Thoughts";
    thoughts.classList.toggle("active", thinking);
    render(thoughts.lastChild, message.reasoning);
  }
  const waits = underWay?.message === message && !message.content && !message.reasoning;
  if (waits && !state.firstChild) {
    const what = isLoaded(message.model) ? "Waiting for the first token" : `Loading ${message.model}`;
    state.replaceChildren(h("span.dots", { "aria-hidden": "true" }, h("i"), h("i"), h("i")),
      h("span.muted", {}, what));
  } else if (!waits) {
    state.replaceChildren(...(message.error ? [h("p.error", { role: "alert" }, message.error)] : []));
  }
}

function footer(message, at, element) {
  const mine = message.role === "user";
  const note = [message.model, message.note].filter(Boolean).join(" · ");
  return h("footer", {},
    !mine && h("span.note", {}, note),
    h("span.actions", {},
      copyButton(() => message.content, "Copy the text"),
      mine ? iconButton("edit", "Edit and ask again", () => edit(message, at, element))
        : iconButton("retry", "Answer again", () => retry(at))));
}

function retry(at) {
  if (underWay) return;
  chat.messages.length = at;
  answer();
}

function editLast(event) {
  const at = chat.messages.findLastIndex((one) => one.role === "user");
  if (at < 0 || underWay) return;
  event.preventDefault();
  edit(chat.messages[at], at, box().children[at]);
}

/** Turns a message into a field; what followed it goes when it is asked again. */
function edit(message, at, element) {
  if (underWay) return;
  const field = h("textarea", { "aria-label": "Your message", rows: Math.min(12, message.content.split("\n").length + 1) });
  field.value = message.content;
  const save = () => {
    const text = field.value.trim();
    if (!text || underWay) return;
    chat.messages.length = at;
    chat.messages.push(said("user", text));
    answer();
    byId("prompt").focus();
  };
  field.addEventListener("keydown", (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
      event.preventDefault();
      save();
    } else if (event.key === "Escape") {
      event.stopPropagation();
      draw();
      byId("prompt").focus();
    }
  });
  element.replaceChildren(h("div.editing", {}, field, h("div.row.end", {},
    h("button", { type: "button", onclick: draw }, "Cancel"),
    h("button.main", { type: "button", onclick: save }, "Ask again"))));
  field.focus();
}

/** The choice of models; the conversation's own stays in it although it may be gone. */
function showModels() {
  if (!models) return;
  const names = models.map((one) => one.name);
  if (!chat.model) chat.model = (models.find((one) => one.loaded) ?? models[0])?.name ?? "";
  if (chat.model && !names.includes(chat.model)) names.unshift(chat.model);
  byId("model").replaceChildren(...(names.length
    ? names.map((name) => h("option", { value: name }, name + (isLoaded(name) ? " · loaded" : "")))
    : [h("option", { value: "" }, "No model")]));
  byId("model").value = chat.model;
  if (!chat.messages.length) draw();
}
