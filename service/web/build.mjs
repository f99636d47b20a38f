// build.mjs [--check]: makes client.js, client.min.js and client.d.ts of clients/typescript, or says whether they are fresh. Needs
// Node and the TypeScript compiler (tsc on PATH, or TSC).
//
// client.js is the package's modules, one after another, as the compiler leaves them. client.min.js is made of it by what follows: a
// tokenizer and a reader of scopes, not a parser. It drops comments and needless signs, joins declarations, says `let`, `!0`, `!1`
// and `4e3`, which are shorter, and gives short names to:
//
// - private names (#name), which are unique in their class;
// - what the module declares and does not export;
// - locals and parameters that are nothing else anywhere in the source: no property, no key, no shorthand, no export. A name that
//   is also read outside of every scope that declares it may be a global, and stops the build. Two names have the same short one
//   only where no scope of the one meets one of the other, so what hides what stays as it was.
//
// What it can't read is an error, never a guess.
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";

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

/** Words that are locals or parameters, or the module's own, and nothing else anywhere; each with its scopes. */
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
      if (open < 0 && all[at - 1] === "export") names.forEach((name) => taken.add(name));
      else if (open < 0) declare(names, 0, all.length);
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
    if (before === "." || (isClass(open) && before !== "=")) taken.add(token);
    else if (all[open] === "{" && !isBlock(open)) {
      // In an object, or in a pattern that looks like one.
      const keyed = ["{", ",", "async", "get", "set", "*"].includes(before) && [":", ",", "}", "=", "("].includes(next);
      if (keyed) taken.add(token);
    } else if (next === ":" && ["{", "}", ";"].includes(before)) taken.add(token);
  });
  const found = new Map([...scopes].filter(([name]) => !taken.has(name)));
  all.forEach((token, at) => {
    if (found.has(token) && !found.get(token).some(([from, to]) => from <= at && at <= to)) {
      const place = all.slice(Math.max(at - 5, 0), at + 5).join(" ");
      throw new Error(`build.mjs can't tell a local from a global: ${token}, at: ${place}`);
    }
  });
  return found;
}

/**
 * Short names for these, the shortest for those that are written most often; none that is a word of the source already, and no two
 * the same whose scopes meet.
 */
function shorten(all, scopes, before = "") {
  const times = (name) => all.filter((token) => token === name).length;
  const pairs = LETTERS.flatMap((one) => LETTERS.map((other) => one + other)).filter((pair) => !KEYWORDS.has(pair));
  const free = [...LETTERS, ...pairs].map((text) => before + text).filter((text) => !all.includes(text) || scopes.has(text));
  const given = new Map();
  const meet = (name, other) => scopes.get(name).some(([from, to]) => scopes.get(other).some(([start, end]) => from <= end && start <= to));
  for (const [name] of [...scopes.keys()].map((name) => [name, times(name)]).sort(([, a], [, b]) => b - a)) {
    const met = new Set([...given].filter(([other]) => meet(name, other)).map(([, short]) => short));
    given.set(name, free.find((short) => !met.has(short)) ?? unread(name));
  }
  return given;
}

/** 4000 is 4e3, and 0.5 is .5. */
const rounded = (token) => token.replace(/^([1-9]\d*?)(0{3,})$/, (_, digits, zeros) => `${digits}e${zeros.length}`).replace(/^0\./, ".");

/** The module's own numbers (const NAME = 1), each in its place. */
function inlined(all) {
  const numbers = new Map();
  const rest = [];
  for (let at = 0, depth = 0; at < all.length; at++) {
    if (opens(all[at])) depth++;
    if (closes(all[at])) depth--;
    const [word, name, is, number, end] = all.slice(at, at + 5);
    if (depth === 0 && word === "const" && isName(name) && is === "=" && /^\d/.test(number) && end === ";" && all[at - 1] !== "export") {
      numbers.set(name, number);
      at += 4;
    } else rest.push(all[at]);
  }
  const { around } = brackets(rest);
  return rest.map((token, at) => {
    if (!numbers.has(token)) return token;
    // A property or a key of this name would be another thing.
    if (rest[at - 1] === "." || (rest[around[at]] === "{" && rest[at + 1] === ":")) unread(token);
    return numbers.get(token);
  });
}

/** Texts that are written often, as constants of the module. */
function hoisted(all) {
  const keyed = (at) => all[at + 1] === ":" && ["{", ","].includes(all[at - 1]);
  const times = new Map();
  all.forEach((token) => token.startsWith('"') && times.set(token, (times.get(token) ?? 0) + 1));
  // A declaration costs a name, two signs and the text; each use a name.
  const often = [...times].filter(([text, count]) => count * (text.length - 2) > text.length + 4);
  const names = new Map(often.map(([text], n) => [text, `TEXT_${n}`]));
  const rest = all.map((token, at) => (keyed(at) ? token : names.get(token) ?? token));
  return [...[...names].flatMap(([text, name]) => ["const", name, "=", text, ";"]), ...rest];
}

/** `if (a) { b(); }` is `a && b();` where neither needs brackets for it. */
function joined(all) {
  const halves = brackets(all);
  const { around, other } = halves;
  const drop = bare(all, halves);
  const and = new Map();
  const skip = new Set();
  const weak = ["||", "??", "?", ":", "=", "=>", ",", "+=", "-=", "&&=", "||=", "??=", "...", "await", "return", "throw", "break", "continue"];
  const strong = (open, end) => !all.some((token, at) => open < at && at < end && around[at] === open && weak.includes(token) && !(token === "?" && all[at + 1] === "."));
  all.forEach((token, at) => {
    const open = other[at + 1] + 1;
    if (token !== "if" || !drop.has(open) || all[other[open] + 1] === "else") return;
    if (!strong(at + 1, other[at + 1]) || !strong(open, other[open])) return;
    [at, at + 1, open, other[open]].forEach((one) => skip.add(one));
    and.set(other[at + 1], "&&");
  });
  return all.flatMap((token, at) => (skip.has(at) ? [] : [and.get(at) ?? token]));
}

/** Where a block that holds one plain statement begins and ends, behind an `if`, a `for`, a `while` or an `else`: it needs no braces. */
function bare(all, { around, other }) {
  const found = new Set();
  all.forEach((token, at) => {
    if (token !== "{") return;
    const [before, end] = [all[at - 1], other[at]];
    const heads = before === ")" && ["if", "for", "while"].includes(all[other[at - 1] - 1]) && all[other[at - 1] - 2] !== ".";
    if (!heads && before !== "else") return;
    const inner = all.map((_, n) => n).slice(at + 1, end).filter((n) => around[n] === at);
    const plain = !["const", "let", "if", "for", "while", "do", "try", "switch", "class", "function", "{", ";"].includes(all[at + 1]);
    if (plain && all[end - 1] === ";" && inner.filter((n) => all[n] === ";").length === 1) found.add(at).add(end);
  });
  return found;
}

export function minify(source) {
  const all = joined(hoisted(inlined(tokens(source))));
  const privates = new Map(all.filter((token) => token.startsWith("#")).map((name) => [name, [[0, all.length]]]));
  const names = new Map([...shorten(all, privates, "#"), ...shorten(all, locals(all))]);
  const halves = brackets(all);
  const { other } = halves;
  const needless = bare(all, halves);
  // For each open bracket: whether the statement in it is a declaration, to which another that follows can be joined.
  const declaring = [false];
  let out = "";
  for (let at = 0; at < all.length; at++) {
    const token = all[at];
    let text = names.get(token) ?? SHORTER.get(token) ?? rounded(token);
    if (needless.has(at)) continue;
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
    if (text === "}") out = out.replace(/;$/, "");
    if (["}", "]", ")"].includes(text)) out = out.replace(/,$/, "");
    out += text;
  }
  return `${out}\n`;
}

/** What the compiler makes of the package, by name. */
function compile() {
  const out = mkdtempSync(join(tmpdir(), "client-"));
  try {
    const project = new URL("../../clients/typescript", import.meta.url).pathname;
    execFileSync(process.env.TSC ?? "tsc", ["-p", project, "--outDir", out], { stdio: ["ignore", "inherit", "inherit"] });
    return new Map(readdirSync(out).map((name) => [name, readFileSync(join(out, name), "utf8")]));
  } finally {
    rmSync(out, { recursive: true });
  }
}

const IMPORT = /^import .*? from "\.\/(\w+)\.js";\n/gm;

/** The module `entry` and what it imports, in one: each after what it needs. */
function bundle(files, entry, end, seen = new Set(), first = entry) {
  seen.add(entry);
  const text = files.get(entry + end) ?? unread(entry);
  const needed = [...text.matchAll(IMPORT)].map(([, name]) => name).filter((name) => !seen.has(name));
  const before = needed.map((name) => (seen.has(name) ? "" : bundle(files, name, end, seen, first))).join("");
  const own = text.replaceAll(IMPORT, "").replaceAll(/^export \{\};\n/gm, "").replaceAll(/^( {4})+/gm, (spaces) => spaces.slice(spaces.length / 2))
    // As compilers from 5 on write it.
    .replaceAll("export declare type ", "export type ");
  return `${before}${entry === first || end === ".d.ts" ? own : own.replaceAll(/^export /gm, "")}\n`;
}

const ABOUT = "/** The browser client of the gateway: one ES module, no dependency. Made by service/web/build.mjs of clients/typescript, where its sources are. */";

/** What else the package has, beside the client. */
const ENTRIES = ["gateway", "shared", "react"];

/** The three files, by name. */
function make() {
  const files = compile();
  const source = `${ABOUT}\n\n${bundle(files, "client", ".js").trimEnd()}\n`;
  const declared = [...source.matchAll(/^(?:export )?(?:const|let|class|function) (\w+)/gm)].map(([, name]) => name);
  const twice = declared.filter((name, at) => declared.indexOf(name) !== at);
  if (twice.length) throw new Error(`two modules declare ${twice}`);
  const types = `${ABOUT}\n\n${bundle(files, "client", ".d.ts").trimEnd()}\n`;
  return { "client.js": source, "client.min.js": minify(source), "client.d.ts": types };
}

if (process.argv[1] && here("build.mjs").pathname === process.argv[1]) {
  const made = make();
  const size = made["client.min.js"].length;
  if (size > LIMIT && !process.argv.includes("--long")) throw new Error(`client.min.js would have ${size} bytes; ${LIMIT} are allowed`);
  for (const [name, text] of Object.entries(made)) {
    if (!process.argv.includes("--check")) writeFileSync(here(name), text);
    else if (readFileSync(here(name), "utf8") !== text) {
      console.error(`${name} is stale: run \`node service/web/build.mjs\` and commit the result`);
      process.exitCode = 1;
    }
  }
  console.log(`client.min.js: ${size} bytes`);
  if (process.argv.includes("--sizes")) {
    const files = compile();
    const own = (entry) => bundle(files, entry, ".js").replace(/^import .* from "react";\n/gm, "");
    for (const entry of ENTRIES) console.log(`${entry}: ${minify(own(entry)).length} bytes`);
  }
}
