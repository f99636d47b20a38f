// build.mjs [--check]: makes client.min.js of client.js, or says whether it is fresh. Needs nothing but Node.
//
// A tokenizer, not a parser: it drops comments and needless space, gives private names (#name) and the module's own constants (const NAME) short
// ones, joins those constants' declarations, and says `let`, `!0` and `!1`, which are shorter. All of it is safe without knowing scopes: private names are
// unique in their class, nothing else is written in capitals like a constant, and nothing is named by a reserved word. What it can't read is an error,
// never a guess.
import { readFileSync, writeFileSync } from "node:fs";

const LIMIT = 6000;
const SHORTER = new Map([["const", "let"], ["true", "!0"], ["false", "!1"]]);
const here = (name) => new URL(name, import.meta.url);

/** Tokens of the source: words (private names, identifiers, numbers), strings, and single signs. */
function tokens(source) {
  const pattern = /\s+|\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:[^"\\\n]|\\.)*"|`(?:[^`\\\n]|\\.)*`|#?[A-Za-z_$][\w$]*|\d[\w.]*|=>|\.\.\.|[-+*&|?=!<>]+|[{}()[\];:.,/%^~]/gy;
  const found = [];
  while (pattern.lastIndex < source.length) {
    const at = pattern.lastIndex;
    const match = pattern.exec(source);
    if (!match) throw new Error(`build.mjs can't read client.js at: ${source.slice(at, at + 40)}`);
    const text = match[0];
    if (text.trim() && !text.startsWith("//") && !text.startsWith("/*")) found.push(text);
  }
  return found;
}

export function minify(source) {
  const names = new Map();
  const short = (name) => names.get(name) ?? names.set(name, `#${names.size < 26 ? "" : "a"}${"abcdefghijklmnopqrstuvwxyz"[names.size % 26]}`).get(name);
  const all = tokens(source);
  const constants = new Map();
  all.forEach((token, at) => {
    if (all[at - 1] === "const" && /^[A-Z][A-Z_]+$/.test(token)) constants.set(token, `$${constants.size}`);
  });
  let out = "";
  for (const token of all) {
    const text = token.startsWith("#") ? short(token) : constants.get(token) ?? SHORTER.get(token) ?? token;
    if (/[\w$]$/.test(out) && /^[\w$#]/.test(text)) out += " ";
    // "+ +" and "- -" would become other operators.
    if (/[-+]$/.test(out) && /^[-+]/.test(text)) out += " ";
    if (text === "}") out = out.replace(/;$/, "").replace(/,$/, "");
    out += text;
  }
  // Before the class there is nothing but constants.
  const [head, ...rest] = out.split(/(?=export )/);
  return `${head.replaceAll(";let ", ",")}${rest.join("")}\n`;
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
