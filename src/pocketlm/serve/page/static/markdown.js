// Markdown as models write it, made into elements. What a model says is never trusted: it becomes
// text nodes in a handful of elements, and links lead to http and https only. Depth is bounded, and
// no expression here can be made to run for long.
//
// `render` is called again for every piece of a streaming answer: blocks whose source has not
// changed keep their elements, and with them the reader's selection.

import { copyButton, h } from "./dom.js";
import { highlighted } from "./highlight.js";

const DEEPEST = 6;
const LONGEST_LINK = 2000;

const FENCE = /^( {0,3})(`{3,}|~{3,})[ \t]*([^\s`]{0,40})/;
const HEADING = /^ {0,3}(#{1,6})(?:[ \t]+|$)/;
const RULE = /^ {0,3}([-*_])(?:[ \t]*\1){2,}[ \t]*$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^(\s{0,20})([-*+]|\d{1,9}[.)])(?:[ \t]+|$)/;
const DIVIDER = /^[ \t]*\|?[ \t]*:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*$/;

const shown = new WeakMap();

/** Makes `container` show `text`, changing only what is different from before. */
export function render(container, text) {
  const before = shown.get(container) ?? [];
  const after = blocks(text.split("\n"));
  let same = 0;
  while (same < before.length && same < after.length && isSame(before[same], after[same])) same++;
  if (same === before.length - 1 && same < after.length && isGrowingCode(before[same], after[same])) {
    const { source, language } = after[same];
    container.lastChild.querySelector("code").replaceChildren(...highlighted(source, language));
    same++;
  }
  while (container.childNodes.length > same) container.lastChild.remove();
  for (const block of after.slice(same)) container.append(element(block, 0));
  shown.set(container, after);
}

const isSame = (one, other) => one.kind === other.kind && one.source === other.source
  && one.language === other.language;
const isGrowingCode = (one, other) =>
  one.kind === "code" && other.kind === "code" && one.language === other.language;

/** Splits lines into blocks: {kind, lines, source, ...}. */
function blocks(all) {
  const found = [];
  const add = (kind, lines, more = {}) =>
    found.push({ kind, lines, source: lines.join("\n"), ...more });
  let at = 0;
  while (at < all.length) {
    const line = all[at];
    if (!line.trim()) { at++; continue; }
    const start = at;
    const fence = FENCE.exec(line);
    if (fence) {
      const close = new RegExp(`^ {0,3}${fence[2][0]}{${fence[2].length},}[ \\t]*$`);
      at++;
      while (at < all.length && !close.test(all[at])) at++;
      const inside = all.slice(start + 1, at).map((one) => outdented(one, fence[1].length));
      if (at < all.length) at++;
      add("code", inside, { language: fence[3] });
    } else if (HEADING.test(line)) {
      add("heading", [line]);
      at++;
    } else if (RULE.test(line)) {
      add("rule", [line]);
      at++;
    } else if (QUOTE.test(line)) {
      while (at < all.length && all[at].trim() && (QUOTE.test(all[at]) || !begins(all, at))) at++;
      add("quote", all.slice(start, at));
    } else if (ITEM.test(line)) {
      at = listEnd(all, start);
      add("list", all.slice(start, at));
    } else if (isTable(all, at)) {
      while (at < all.length && all[at].includes("|")) at++;
      add("table", all.slice(start, at));
    } else {
      at++;
      while (at < all.length && all[at].trim() && !begins(all, at)) at++;
      add("paragraph", all.slice(start, at));
    }
  }
  return found;
}

/** Whether a line begins another block, so that it ends a paragraph. */
const begins = (all, at) => FENCE.test(all[at]) || HEADING.test(all[at]) || RULE.test(all[at])
  || QUOTE.test(all[at]) || ITEM.test(all[at]) || isTable(all, at);

const isTable = (all, at) =>
  all[at].includes("|") && at + 1 < all.length && all[at + 1].includes("-")
  && all[at + 1].length < 2000 && DIVIDER.test(all[at + 1]);

const indent = (line) => line.length - line.trimStart().length;
const outdented = (line, count) => line.slice(Math.min(indent(line), count));

/** Where a list ends: at a line that is neither an item nor indented below one. */
function listEnd(all, start) {
  const ordered = isOrdered(all[start]);
  const base = indent(all[start]);
  let at = start + 1;
  while (at < all.length) {
    const line = all[at];
    if (!line.trim()) {
      let next = at + 1;
      while (next < all.length && !all[next].trim()) next++;
      if (next === all.length) return at;
      if (indent(all[next]) <= base && !(ITEM.test(all[next]) && isOrdered(all[next]) === ordered))
        return at;
      at = next;
    } else if (indent(line) > base) at++;
    else if (ITEM.test(line) && !RULE.test(line)) {
      if (isOrdered(line) !== ordered) return at;
      at++;
    } else if (begins(all, at) || !all[at - 1].trim()) return at;
    else at++;
  }
  return at;
}

const isOrdered = (line) => /\d/.test(ITEM.exec(line)?.[2] ?? "");

/** The element of a block; `depth` counts the blocks around it. */
function element(block, depth) {
  switch (block.kind) {
    case "code": return code(block);
    case "heading": return heading(block.lines[0]);
    case "rule": return h("hr");
    case "quote":
      return h("blockquote", {}, nested(block.lines.map((line) => line.replace(QUOTE, "")), depth));
    case "list": return list(block.lines, depth);
    case "table": return table(block.lines);
    default: return h("p", {}, inline(block.lines.map((line) => line.trimStart()).join("\n")));
  }
}

/** The blocks inside a block; below the deepest, plain text. */
const nested = (lines, depth) =>
  depth >= DEEPEST ? [lines.join("\n")] : blocks(lines).map((block) => element(block, depth + 1));

function heading(line) {
  const level = HEADING.exec(line)[1].length;
  const text = line.replace(HEADING, "").replace(/ #+ *$/, "");
  return h(`h${Math.min(6, level + 2)}`, {}, inline(text));  // the page has h1 and h2 of its own
}

function code(block) {
  const text = h("code", {}, highlighted(block.source, block.language));
  return h("div.code", {},
    h("div.code-head", {}, h("span", {}, block.language || "text"),
      copyButton(() => text.textContent, "Copy code")),
    h("pre", { tabindex: "0" }, text));
}

function list(lines, depth) {
  const base = indent(lines[0]);
  const ordered = isOrdered(lines[0]);
  const items = [];
  for (const line of lines) {
    const item = ITEM.exec(line);
    if (item && indent(line) <= base && !RULE.test(line)) {
      items.push({ width: item[0].length, lines: [line.slice(item[0].length)] });
    } else items.at(-1).lines.push(outdented(line, items.at(-1).width));
  }
  const first = ordered ? parseInt(lines[0].trim(), 10) : 1;
  return h(ordered ? "ol" : "ul", { start: first === 1 ? null : first },
    items.map((item) => h("li", {}, itemContent(item.lines, depth))));
}

/** An item of one paragraph has no paragraph of its own. */
function itemContent(lines, depth) {
  if (depth >= DEEPEST) return [lines.join("\n")];
  return blocks(lines).map((block, at) => at === 0 && block.kind === "paragraph"
    ? h("span", {}, inline(block.source)) : element(block, depth + 1));
}

function table(lines) {
  const cells = (line) => line.trim().replace(/^\|/, "").replace(/\|$/, "").split(/(?<!\\)\|/)
    .map((cell) => cell.trim().replaceAll("\\|", "|"));
  const sides = cells(lines[1]).map((cell) =>
    cell.endsWith(":") ? (cell.startsWith(":") ? "center" : "right") : null);
  const head = cells(lines[0]);
  const row = (tag, values) => h("tr", {}, head.map((_, at) =>
    h(tag, { class: sides[at] ?? null }, inline(values[at] ?? ""))));
  return h("div.table", { tabindex: "0" }, h("table", {}, h("thead", {}, row("th", head)),
    h("tbody", {}, lines.slice(2).map((line) => row("td", cells(line))))));
}

const MARKS = [["**", "strong"], ["__", "strong"], ["~~", "del"], ["*", "em"], ["_", "em"]];
const SPECIAL = /[\\`*_~[!\nh]/g;
const PLAIN_URL = /https?:\/\/[^\s<>"'`]{1,2000}/y;

/** Nodes of one text: code, emphasis, links, line breaks. */
function inline(text, depth = 0) {
  const nodes = [];
  let plain = "";
  const flush = () => { if (plain) nodes.push(plain); plain = ""; };
  let at = 0;
  while (at < text.length) {
    SPECIAL.lastIndex = at;
    const next = SPECIAL.exec(text)?.index ?? text.length;
    plain += text.slice(at, next);
    if (next === text.length) break;
    const found = depth < DEEPEST ? span(text, next, depth) : null;
    if (found) {
      flush();
      nodes.push(found.node);
      at = found.end;
    } else {
      const escaped = text[next] === "\\" && /[!-/:-@[-`{-~]/.test(text[next + 1] ?? "");
      plain += escaped ? text[next + 1] : text[next];
      at = next + (escaped ? 2 : 1);
    }
  }
  flush();
  return nodes;
}

/** What begins at `at`: {node, end}, or null for a plain character. */
function span(text, at, depth) {
  switch (text[at]) {
    case "\n": return { node: h("br"), end: at + 1 };
    case "`": return codeSpan(text, at);
    case "[": return link(text, at, depth);
    case "!": return text[at + 1] === "[" ? link(text, at + 1, depth) : null;  // no image is loaded
    case "h": return plainUrl(text, at);
    case "\\": return null;
    default: return emphasis(text, at, depth);
  }
}

function codeSpan(text, at) {
  const ticks = /`+/y;
  ticks.lastIndex = at;
  const mark = ticks.exec(text)[0];
  const end = text.indexOf(mark, at + mark.length);
  if (end < 0 || mark.length > 8) return { node: mark, end: at + mark.length };
  const inside = text.slice(at + mark.length, end).replaceAll("\n", " ");
  const spaced = mark.length > 1 ? inside.trim() : inside;
  return { node: h("code", {}, spaced), end: end + mark.length };
}

function emphasis(text, at, depth) {
  for (const [mark, tag] of MARKS) {
    if (!text.startsWith(mark, at)) continue;
    const start = at + mark.length;
    if (!text[start] || /\s/.test(text[start])) continue;
    if (mark[0] === "_" && /\w/.test(text[at - 1] ?? "")) continue;
    const end = closing(text, mark, start);
    if (end < 0) continue;
    return { node: h(tag, {}, inline(text.slice(start, end), depth + 1)), end: end + mark.length };
  }
  return null;
}

/** Where an emphasis ends: after a letter, and not where a longer mark begins. */
function closing(text, mark, start) {
  const limit = Math.min(text.length, start + 10 * LONGEST_LINK);
  for (let end = text.indexOf(mark, start + 1); end >= 0 && end < limit;
    end = text.indexOf(mark, end + 1)) {
    if (/\s/.test(text[end - 1]) || text[end - 1] === "\\") continue;
    if (mark.length === 1 && text[end + 1] === mark) { end++; continue; }
    while (mark.length === 2 && text[end + 2] === mark[0]) end++;
    if (mark[0] === "_" && /\w/.test(text[end + mark.length] ?? "")) continue;
    return end;
  }
  return -1;
}

/** [words](address): a link where the address is one of the web, else its words. */
function link(text, at, depth) {
  const middle = text.slice(at, at + LONGEST_LINK).indexOf("](");
  if (middle < 0) return null;
  const start = at + middle + 2;
  const end = text.slice(start, start + LONGEST_LINK).indexOf(")");
  if (end < 0) return null;
  const words = text.slice(at + 1, at + middle);
  const address = text.slice(start, start + end).trim().split(/\s/)[0];
  const inside = inline(words, depth + 1);
  const node = web(address) ? anchor(address, inside) : h("span", {}, inside);
  return { node, end: start + end + 1 };
}

function plainUrl(text, at) {
  PLAIN_URL.lastIndex = at;
  if (/\w/.test(text[at - 1] ?? "")) return null;
  const address = PLAIN_URL.exec(text)?.[0].replace(/[).,:;!?*_\]]+$/, "");
  return address && web(address)
    ? { node: anchor(address, [address]), end: at + address.length } : null;
}

function web(address) {
  try {
    return /^https?:\/\//i.test(address) && ["http:", "https:"].includes(new URL(address).protocol);
  } catch {
    return false;
  }
}

const anchor = (address, inside) =>
  h("a", { href: address, target: "_blank", rel: "noopener noreferrer nofollow" }, inside);
