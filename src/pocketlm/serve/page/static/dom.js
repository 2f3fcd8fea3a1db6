// Making elements. Text only ever becomes text nodes: nothing here parses markup.

const SVG = "http://www.w3.org/2000/svg";

/** The element with that id. */
export const byId = (id) => document.getElementById(id);

/**
 * An element: h("button.small", {type: "button", onclick: f}, "Text", child, null).
 * The tag may carry classes; attributes that are null or false are left out.
 */
export function h(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  if (classes.length) element.className = classes.join(" ");
  for (const [key, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else element.setAttribute(key, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child || child === 0 || child === ""));
  return element;
}

/** An element of a drawing. */
export function svg(tag, attributes = {}, ...children) {
  const element = document.createElementNS(SVG, tag);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** One of the icons that index.html defines. */
export const icon = (name) =>
  svg("svg", { class: "icon", "aria-hidden": "true" }, svg("use", { href: `#i-${name}` }));

/** A button that shows an icon and says what it does. */
export const iconButton = (name, label, onclick, attributes = {}) =>
  h("button.quiet", { type: "button", title: label, "aria-label": label, onclick, ...attributes },
    icon(name));

/** Shows a line of text for a while, with a way back where there is one. */
export function notice(text, { undo = null, kind = "plain" } = {}) {
  const box = byId("notices");
  const seconds = undo || kind === "error" ? 8 : 4;
  const line = h(`div.notice.${kind}`, { role: kind === "error" ? "alert" : "status" },
    h("span", {}, text),
    undo && h("button.link", { type: "button", onclick: () => { undo(); line.remove(); } }, "Undo"),
    iconButton("close", "Dismiss", () => line.remove()));
  box.append(line);
  while (box.children.length > 3) box.firstChild.remove();
  setTimeout(() => line.remove(), seconds * 1000);
}

/** Copies a text; also where the browser keeps its clipboard from pages without TLS. */
export async function copyText(text) {
  try {
    await navigator.clipboard.writeText(text);
    return;
  } catch { /* no secure context, or not allowed */ }
  const area = h("textarea", { class: "unseen", "aria-hidden": "true" });
  area.value = text;
  document.body.append(area);
  area.select();
  document.execCommand("copy");
  area.remove();
}

/** A button that copies what `read` gives and shows that it has. */
export function copyButton(read, label = "Copy") {
  const button = iconButton("copy", label, async () => {
    await copyText(read());
    button.replaceChildren(icon("check"));
    setTimeout(() => button.replaceChildren(icon("copy")), 1500);
  });
  return button;
}

/** Bytes in decimal units, as the command line says them. */
export function sizeText(bytes) {
  if (bytes < 1000) return `${bytes} B`;
  let value = bytes;
  let unit = "B";
  for (const larger of ["kB", "MB", "GB", "TB"]) {
    if (value < 999.95) break;
    value /= 1000;
    unit = larger;
  }
  return `${value.toFixed(1)} ${unit}`;
}

/** Parameters as models are called by: 134.5M, 8.0B. */
export const countText = (count) =>
  count >= 999_950_000 ? `${(count / 1e9).toFixed(1)}B` : `${(count / 1e6).toFixed(1)}M`;

/** A figure with three significant digits at most: 0.21, 4.5, 31, 1,204. */
export function figure(value) {
  const digits = value >= 100 ? 0 : value >= 10 ? 1 : 2;
  return Number(value.toFixed(digits)).toLocaleString("en");
}
