// Code with a little colour: comments, strings, numbers and the words that most languages share.
// Not a parser; where it is unsure it leaves the text as it is.

import { h } from "./dom.js";

const LONGEST = 50_000;
const HASH = "python py sh bash shell zsh console ruby rb yaml yml toml r perl makefile dockerfile";
const DASH = "sql lua haskell hs";
const NONE = "text txt markdown md diff";

const STRING = String.raw`"""[^]*?(?:"""|$)|'''[^]*?(?:'''|$)|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)*'|` +
  "`(?:[^`\\\\]|\\\\.)*`";
const NUMBER = String.raw`\b(?:0x[\da-f_]+|\d[\d_]*(?:\.\d+)?(?:e[+-]?\d+)?)\b`;
const WORD = String.raw`[a-z_$][\w$]*`;
const COMMENTS = { hash: String.raw`#[^\n]*`, dash: String.raw`--[^\n]*|\/\*[^]*?(?:\*\/|$)`,
  slash: String.raw`\/\/[^\n]*|\/\*[^]*?(?:\*\/|$)` };

const KEYWORDS = new Set(`and as assert async await begin bool break case catch char class const
  continue def default del delete do done double echo elif else end enum esac except export extends
  extern false False fi final finally float fn for foreach from func function global go if impl
  implements import in include instanceof int interface is lambda let local long loop match mod
  module mut namespace new nil None nonlocal not null nullptr of operator or package pass private
  protected pub public raise return self short signed sizeof static string struct super switch
  template then this throw throws trait true True try type typedef typename typeof undefined union
  unsigned until use using var virtual void volatile when where while with yield`.split(/\s+/));
const SQL = new Set(`select insert update delete from where into values set create alter drop table
  index view primary key foreign references join left right inner outer on group by order having
  limit offset distinct union all and or not null is in like between exists case when then else end
  as asc desc with default`.split(/\s+/));

const patterns = new Map();

/** The nodes of a piece of code. */
export function highlighted(text, language) {
  const name = language.toLowerCase();
  if (!name || text.length > LONGEST || NONE.split(" ").includes(name)) return [text];
  const kind = HASH.split(" ").includes(name) ? "hash" : DASH.split(" ").includes(name) ? "dash" : "slash";
  if (!patterns.has(kind)) {
    const parts = [COMMENTS[kind], STRING, NUMBER, WORD].map((one) => `(${one})`).join("|");
    patterns.set(kind, new RegExp(parts, "gi"));
  }
  const nodes = [];
  let plain = 0;
  for (const found of text.matchAll(patterns.get(kind))) {
    const [all, comment, string, number] = found;
    const part = comment ? "comment" : string ? "string" : number ? "number"
      : (name === "sql" ? SQL.has(all.toLowerCase()) : KEYWORDS.has(all)) ? "keyword" : null;
    if (!part) continue;
    nodes.push(text.slice(plain, found.index), h(`span.${part}`, {}, all));
    plain = found.index + all.length;
  }
  nodes.push(text.slice(plain));
  return nodes;
}
