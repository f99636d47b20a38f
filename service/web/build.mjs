// build.mjs [--check]: makes client.min.js of client.js, or says whether it is fresh. Needs nothing but Node.
//
// A tokenizer and a reader of scopes, not a parser: it drops comments and needless signs, joins declarations, says `let`, `!0`,
// `!1` and `4e3`, which are shorter, and gives short names to:
//
// - private names (#name), which are unique in their class;
// - the module's own constants (const NAME): nothing else is written in capitals like a constant;
// - locals and parameters that are nothing else anywhere in the source: no property, no key, no shorthand, no export. A name that
//   is also read outside of every scope that declares it may be a global, and stops the build. Each has one short name in the
//   whole module, no two the same, so what hides what stays as it was.
//
// What it can't read is an error, never a guess.
import { readFileSync, writeFileSync } from "node:fs";

const LIMIT = 6500;
const LETTERS = [..."abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"];
const SHORTER = new Map([["const", "let"], ["true", "!0"], ["false", "!1"]]);
const KEYWORDS = new Set(`arguments as async await break case catch class const continue debugger default delete do else export
  extends false finally for from function get if import in instanceof let new null of return set static super switch this throw
  true try typeof undefined var void while with yield`.split(/\s+/));
const here = (name) => new URL(name, import.meta.url);
const unread = (what) => {
  throw new Error(`build.mjs can't read client.js at: ${what}`);
};

/** Tokens of the source: words (private names, identifiers, numbers), strings, parts of template strings, and single signs. */
function tokens(source) {
  const pattern = /\s+|\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:[^"\\\n]|\\.)*"|`(?:[^`\\\n]|\\.)*`|#?[A-Za-z_$][\w$]*|\d[\w.]*|=>|\.\.\.|[-+*&|?=!<>]+|[{}()[\];:.,/%^~]/gy;
  const found = [];
  while (pattern.lastIndex < source.length) {
    const at = pattern.lastIndex;
    const match = pattern.exec(source) ?? unread(source.slice(at, at + 40));
    const text = match[0];
    if (text.startsWith("`")) found.push(...template(text));
    else if (text.trim() && !text.startsWith("//") && !text.startsWith("/*")) found.push(text);
  }
  return found;
}

/** A template string in parts: text up to and with `${`, the tokens of the expression, text from `}` on. */
function template(text) {
  const [first, ...rest] = text.split("${");
  return rest.reduce((parts, part) => {
    const end = part.indexOf("}");
    const inner = part.slice(0, Math.max(end, 0));
    if (end < 0 || /[{\\]/.test(inner) || text.includes("\\$")) unread(text);
    return [...parts.slice(0, -1), `${parts.at(-1)}\${`, ...tokens(inner), part.slice(end)];
  }, [first]);
}

const isName = (token) => /^[A-Za-z_$][\w$]*$/.test(token ?? "") && !KEYWORDS.has(token);
const opens = (token) => /^[([{]$/.test(token) || token.endsWith("${");
const closes = (token) => /^[)\]}]$/.test(token) || /^}./.test(token);

/** For each token the bracket around it (-1: none), and for each bracket its other half. */
function brackets(all) {
  const around = [];
  const other = [];
  const open = [];
  all.forEach((token, at) => {
    if (closes(token)) {
      const from = open.pop() ?? unread(token);
      [other[from], other[at]] = [at, from];
    }
    around[at] = open.at(-1) ?? -1;
    if (opens(token)) open.push(at);
  });
  if (open.length) unread("its end, where a bracket is open");
  return { around, other };
}

/** Words that are locals or parameters, and nothing else anywhere. */
function locals(all) {
  const { around, other } = brackets(all);
  const scopes = new Map();
  const taken = new Set();
  const declare = (names, from, to) => names.forEach((name) => scopes.set(name, [...scopes.get(name) ?? [], [from, to]]));
  const block = (at) => (all[at] === "{" ? other[at] : unread(all.slice(at - 5, at + 5).join(" ")));

  /** Where the expression that begins here ends: at a sign that is not within it. */
  const after = (at) => {
    for (let choices = 0; at < all.length && !closes(all[at]) && all[at] !== "," && all[at] !== ";"; at++) {
      if (opens(all[at])) {
        while (opens(all[at])) at = other[at];
      } else if (all[at] === "?" && all[at + 1] !== ".") choices++;
      else if (all[at] === ":" && choices-- === 0) break;
    }
    return at;
  };
  /** Reads what may stand where a name is declared, with its default; returns where it ends. */
  const pattern = (at, names) => {
    if (isName(all[at])) {
      names.push(all[at]);
      at += 1;
    } else if (all[at] === "{" || all[at] === "[") {
      at = list(at, names, all[at] === "{");
    } else unread(all.slice(at - 5, at + 5).join(" "));
    return all[at] === "=" ? after(at + 1) : at;
  };
  const list = (open, names, keyed) => {
    let at = open + 1;
    while (at < other[open]) {
      if (all[at] === ",") at++;
      else at = pattern(at + (all[at] === "..." ? 1 : keyed && all[at + 1] === ":" ? 2 : 0), names);
    }
    return other[open] + 1;
  };

  all.forEach((token, at) => {
    const names = [];
    if (token === "const" || token === "let") {
      let end = at;
      do end = pattern(end + 1, names); while (all[end] === ",");
      if (![";", "of"].includes(all[end])) unread(all.slice(at, end + 1).join(" "));
      const open = around[at];
      if (open < 0) names.forEach((name) => taken.add(name));
      else declare(names, open, all[open] === "(" ? block(other[open] + 1) : other[open]);
    } else if (token === "=>") {
      const params = all[at - 1] === ")" ? other[at - 1] : at - 1;
      if (params < at - 1) list(params, names);
      else pattern(params, names);
      declare(names, params, all[at + 1] === "{" ? other[at + 1] : after(at + 1));
    } else if (token === "(" && all[other[at] + 1] === "{" && !["if", "for", "while", "switch"].includes(all[at - 1])) {
      // A method's, a function's or a catch's.
      if (all[at - 2] === "extends" || all[at - 1] === "await") unread(all.slice(at - 3, at + 3).join(" "));
      list(at, names);
      declare(names, at, block(other[at] + 1));
    } else if (["var", "import", "with", "eval"].includes(token)) unread(token);
    else if (token === "function" || token === "class") taken.add(all[at + 1]);
  });

  const isClass = (open) => all[open] === "{" && all.slice(Math.max(open - 4, 0), open).includes("class");
  const isBlock = (open) => [")", "=>", "else", "try", "finally", "catch", "do", ";", "{", "}"].includes(all[open - 1]);
  all.forEach((token, at) => {
    const [before, next, open] = [all[at - 1], all[at + 1], around[at]];
    if (!scopes.has(token)) return;
    if (before === "." || isClass(open)) taken.add(token);
    else if (all[open] === "{" && !isBlock(open)) {
      // In an object, or in a pattern that looks like one.
      const keyed = ["{", ",", "async", "get", "set", "*"].includes(before) && [":", ",", "}", "=", "("].includes(next);
      if (keyed) taken.add(token);
    } else if (next === ":" && ["{", "}", ";"].includes(before)) taken.add(token);
  });
  const found = [...scopes.keys()].filter((name) => !taken.has(name));
  all.forEach((token, at) => {
    if (found.includes(token) && !scopes.get(token).some(([from, to]) => from <= at && at <= to)) {
      const place = all.slice(Math.max(at - 5, 0), at + 5).join(" ");
      throw new Error(`build.mjs can't tell a local from a global: ${token}, at: ${place}`);
    }
  });
  return found;
}

/** Short names for these, the shortest for those that are written most often; none that is a word of the source already. */
function shorten(all, names, before = "") {
  const times = (name) => all.filter((token) => token === name).length;
  const free = LETTERS.map((letter) => before + letter).filter((name) => !all.includes(name) || names.includes(name));
  const more = names.map((_, n) => `${before}$${n}`).filter((name) => !all.includes(name));
  const sorted = names.map((name) => [name, times(name)]).sort(([, a], [, b]) => b - a);
  return new Map(sorted.map(([name], n) => [name, [...free, ...more][n]]));
}

/** 4000 is 4e3. */
const rounded = (token) => token.replace(/^([1-9]\d*?)(0{3,})$/, (_, digits, zeros) => `${digits}e${zeros.length}`);

export function minify(source) {
  const all = tokens(source);
  const privates = [...new Set(all.filter((token) => token.startsWith("#")))];
  const constants = all.filter((token, at) => all[at - 1] === "const" && /^[A-Z][A-Z_]+$/.test(token));
  const names = new Map([...shorten(all, privates, "#"), ...shorten(all, [...constants, ...locals(all)])]);
  const { other } = brackets(all);
  // For each open bracket: whether the statement in it is a declaration, to which another that follows can be joined.
  const declaring = [false];
  let out = "";
  for (let at = 0; at < all.length; at++) {
    const token = all[at];
    let text = names.get(token) ?? SHORTER.get(token) ?? rounded(token);
    if (closes(token)) declaring.pop();
    if (opens(token)) declaring.push(false);
    if (text === "let") declaring[declaring.length - 1] = all[at - 1] !== "export";
    if (token === ";") {
      const joins = declaring.pop() && ["const", "let"].includes(all[at + 1]);
      declaring.push(joins);
      if (joins) {
        text = ",";
        at++;
      }
    }
    // One parameter needs no brackets.
    if (token === "(" && all[at + 3] === "=>" && isName(all[at + 1]) && other[at] === at + 2) continue;
    if (token === ")" && all[at + 1] === "=>" && isName(all[at - 1]) && other[at] === at - 2) continue;
    if (/[\w$]$/.test(out) && /^[\w$#]/.test(text)) out += " ";
    // "+ +" and "- -" would become other operators.
    if (/[-+]$/.test(out) && /^[-+]/.test(text)) out += " ";
    if (text === "}") out = out.replace(/;$/, "").replace(/,$/, "");
    out += text;
  }
  return `${out}\n`;
}

if (process.argv[1] && here("build.mjs").pathname === process.argv[1]) {
  const made = minify(readFileSync(here("client.js"), "utf8"));
  if (made.length > LIMIT) throw new Error(`client.min.js would have ${made.length} bytes; ${LIMIT} are allowed`);
  if (process.argv.includes("--check")) {
    if (readFileSync(here("client.min.js"), "utf8") !== made) {
      console.error("client.min.js is stale: run `node service/web/build.mjs` and commit the result");
      process.exit(1);
    }
  } else {
    writeFileSync(here("client.min.js"), made);
  }
  console.log(`client.min.js: ${made.length} bytes`);
}
