// The page as a whole: views, the list of conversations, keys, the pulse of the server.

import * as activity from "./activity.js";
import { key, onMissingKey } from "./api.js";
import * as chat from "./chat.js";
import * as conversations from "./conversations.js";
import { byId, figure, h, iconButton, notice } from "./dom.js";
import * as live from "./live.js";
import * as models from "./models.js";
import * as settings from "./settings.js";

const VIEWS = ["chat", "models", "activity"];

// Views

function route() {
  const wanted = location.hash.slice(1);
  const view = VIEWS.includes(wanted) ? wanted : "chat";
  for (const name of VIEWS) byId(name).hidden = name !== view;
  for (const link of document.querySelectorAll(".views a"))
    if (link.hash === `#${view}`) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  showSide(false);
  drawChats();
  if (view === "models") models.show();
  if (view === "activity") activity.update();
}

function showSide(open) {
  document.body.classList.toggle("side-open", open);
  for (const button of document.querySelectorAll(".open-side"))
    button.setAttribute("aria-expanded", String(open));
  if (open) byId("new-chat").focus();
}

// Conversations

function openChat(one) {
  chat.open(one);
  settings.fill();
  if (location.hash && location.hash !== "#chat") location.hash = "#chat";
  else route();
  if (matchMedia("(hover: hover)").matches) byId("prompt").focus();
}

function drawChats() {
  const shown = byId("chat").hidden ? null : chat.current().id;
  const kept = conversations.all();
  byId("search").hidden = kept.length < 8;
  const wanted = byId("search").hidden ? "" : byId("search").value.trim().toLowerCase();
  const found = kept.filter((one) => !wanted || one.messages.some((message) =>
    message.content.toLowerCase().includes(wanted)));
  byId("chats").replaceChildren(...found.map((one) => {
    const name = conversations.title(one);
    return h("li", {},
      h("button.chat", { type: "button", title: name, "aria-current": one.id === shown ? "true" : null,
        onclick: () => openChat(one.id === chat.current().id ? chat.current() : one) }, name),
      iconButton("trash", `Delete ${name}`, () => removeChat(one)));
  }));
}

function removeChat(one) {
  const wasOpen = one.id === chat.current().id;
  conversations.remove(one.id);
  if (wasOpen) openChat(conversations.blank(one));
  else drawChats();
  notice("The conversation is deleted.", {
    undo: () => { conversations.write(one); if (wasOpen) openChat(one); else drawChats(); },
  });
}

// Keys

let asking = null;

/** Asks for a key; all who ask at once share one dialog. */
function askForKey(reason) {
  asking ??= new Promise((resolve) => {
    const dialog = byId("key-dialog");
    byId("key-reason").textContent = reason;
    byId("key").value = "";
    dialog.returnValue = "";
    dialog.addEventListener("close", () => {
      asking = null;
      const given = dialog.returnValue === "ok" ? byId("key").value.trim() : "";
      if (given) key.set(given);
      resolve(Boolean(given));
    }, { once: true });
    dialog.showModal();
  });
  return asking;
}

// The pulse of the server

function pulse(sample) {
  const [light, words] = byId("pulse").children;
  const [state, text] = !sample ? ["off", "no connection"]
    : sample.denied ? ["off", sample.denied]
      : sample.running + sample.waiting ? ["busy", work(sample)]
        : ["on", sample.models.length ? "ready" : "ready, no model loaded"];
  light.className = state;
  words.textContent = text;
}

const work = ({ running, waiting, output_rate: rate }) => [
  rate ? `${figure(rate)} tokens/s` : `${running} running`,
  waiting ? `${waiting} waiting` : null,
].filter(Boolean).join(", ");

// All together

function setUp() {
  onMissingKey(askForKey);
  chat.setUp(drawChats);
  settings.setUp(drawChats);
  models.setUp();
  activity.setUp();
  live.listen(pulse);
  byId("new-chat").addEventListener("click", () => openChat(conversations.blank(chat.current())));
  for (const button of document.querySelectorAll(".open-side"))
    button.addEventListener("click", () => showSide(!document.body.classList.contains("side-open")));
  byId("search").addEventListener("input", drawChats);
  addEventListener("storage", drawChats);  // another tab has kept or deleted a conversation
  byId("key-cancel").addEventListener("click", () => byId("key-dialog").close());
  byId("shade").addEventListener("click", () => showSide(false));
  document.addEventListener("keydown", (event) => {
    if (event.key !== "Escape" || event.defaultPrevented || byId("key-dialog").open) return;
    if (document.body.classList.contains("side-open")) showSide(false);
    else if (chat.isAnswering()) chat.stop();
    else if (settings.isOpen() && matchMedia("(max-width: 60rem)").matches) settings.show(false);
  });
  addEventListener("hashchange", route);
  openChat(conversations.all()[0] ?? conversations.blank());
  route();
  models.refresh();
  live.start();
}

setUp();
