// What the build makes shorter, what it leaves alone, and what it stops at.
import assert from "node:assert/strict";
import { test } from "node:test";
import { minify } from "../build.mjs";

const becomes = (source, made) => assert.equal(minify(source), `${made}\n`);
const f = (inner, made) => becomes(`export function f(value) { ${inner} }`, `export function f${made}`);

test("comments and space go, and strings stay as they are", () => {
  becomes('let a = "x // y  z"; // gone\nclass A { #long = 1; b() { return this.#long - -1; } }',
    'let a="x // y  z";class A{#a=1;b(){return this.#a- -1}}');
});

test("what it can't read stops it", () => {
  assert.throws(() => minify("let a = 'single';"), /can't read/);
  assert.throws(() => minify("export const g = `a ${ { b: 1 }.b }`;"), /can't read/);
  assert.throws(() => minify("export function f() { var a = 1; }"), /can't read/);
  assert.throws(() => minify("export function f(a) { for (const b of a) a(b); }"), /can't read/);
  assert.throws(() => minify("export function f() { (1; }"), /can't read/);
});

test("the same is said in fewer signs", () => {
  becomes("class A { constructor() { const yes = true; } }", "class A{constructor(){let a=!0}}");
  f("return [10000, 1500, 1000, 10, value];", "(a){return[1e4,1500,1e3,10,a]}");
  f("return (other) => (other, value);", "(a){return b=>(b,a)}");
  f("return `${ value + 1 } of  ${value}`;", "(a){return`${a+1} of  ${a}`}");
});

test("declarations that follow each other are joined, within their block and not to an export", () => {
  becomes("let LONG = [];\nlet OTHER = 2;\nexport const sum = LONG + OTHER;\nlet last = 1;",
    "let a=[],b=2;export let sum=a+b;let c=1;");
  f("const a = 1; let b; if (a) { const c = b; } let d; for (const e of d) { let g = e; }",
    "(e){let a=1,b;if(a){let d=b}let c;for(let d of c){let g=d}}");
});

test("locals and parameters become short wherever they are declared", () => {
  f("const { a: first, ...second } = value; const [third] = second; return first + third;",
    "(b){let{a:c,...d}=b,[e]=d;return c+e}");
  f("try { value(); } catch (wrong) { value(wrong); }", "(a){try{a()}catch(b){a(b)}}");
  f("for (const one of value) { value(one); }", "(a){for(let b of a)a(b)}");
  becomes("class A { b(first, second = 1) { return async (third) => first + second + third; } }",
    "class A{b(a,c=1){return async d=>a+c+d}}");
});

test("a name that is also a property, a key, a shorthand, a label or a member keeps its length everywhere", () => {
  f("return value.value;", "(value){return value.value}");
  f("return other?.value + value;", "(value){return other?.value+value}");
  f("return { a: 1, value: 2 } + value;", "(value){return{a:1,value:2}+value}");
  f("return { value };", "(value){return{value}}");
  f("return { value() {} };", "(value){return{value(){}}}");
  f("const { other } = value; return other;", "(a){let{other}=a;return other}");
  f("value: for (;;) { break value; }", "(value){value:for(;;)break value}");
  f("return class { value() { return value; } };", "(value){return class{value(){return value}}}");
  becomes("export const other = 1; export function f(other) { return other; }",
    "export let other=1;export function f(other){return other}");
});

test("a value of a key, a choice and an argument is not taken for one", () => {
  f("return { a: value, b: [value, value] };", "(c){return{a:c,b:[c,c]}}");
  f("return value ? value : other(value, value);", "(a){return a?a:other(a,a)}");
  f("{ value = 1; }", "(a){{a=1}}");
});

test("a name that is read where nothing declares it stops it: it may be a global", () => {
  for (const source of [
    "export function f(name) { return name; } export const g = () => name;",
    "export const g = (other) => other ? () => name : (name) => name;",
    "export function f() { { const name = 1; } return name; }",
    "export function f(a) { try { a(); } catch (name) { a(); } a(name); }",
    "export function f(a) { for (const name of a) { a(); } return name; }",
  ]) assert.throws(() => minify(source), /can't tell a local from a global: name/, source);
});

test("a short name is never one that the source has already", () => {
  f("const other = a + b; return other + $;", "(d){let c=a+b;return c+$}");
  f("return (other) => value + b + other.a;", "(c){return d=>c+b+d.a}");
});

test("what is written most often gets the shortest, and there are enough", () => {
  const names = Array.from({ length: 60 }, (_, n) => `name${n}`);
  const made = minify(`export function f(${names.join(", ")}) { return name59 + name59; }`);
  assert.match(made, /return a\+a}/);
  assert.equal(new Set(/\((.*)\)/.exec(made)[1].split(",")).size, 60);
  // Where scopes do not meet, one letter does for many.
  becomes("export const one = (first) => first; export const two = (second) => second;", "export let one=a=>a;export let two=a=>a;");
  becomes("export const one = (first) => (second) => first(second);", "export let one=a=>b=>a(b);");
  const many = minify(`class A { ${names.map((name) => `#${name} = 1;`).join(" ")} }`);
  assert.equal(new Set(many.match(/#[\w$]+/g)).size, 60);
});

test("numbers of the module stand in their places, and a text that is written often stands once", () => {
  becomes("const WAIT = 3000;\nexport const f = (value) => value + WAIT;", "export let f=a=>a+3e3;");
  becomes("export const WAIT = 3000;\nexport const f = () => WAIT;", "export let WAIT=3e3;export let f=()=>WAIT;");
  assert.throws(() => minify("const WAIT = 1;\nexport const f = (value) => value.WAIT;"), /can't read/);
  const long = '"a text that is long"';
  becomes(`export const f = (value) => value(${long}, ${long});`, 'let a="a text that is long";export let f=b=>b(a,a);');
  becomes('export const f = (value) => value("a", "a");', 'export let f=a=>a("a","a");');
});

test("one plain statement needs no braces, and where that changes nothing it is joined with its condition", () => {
  f("if (value) { value = 1; } else { value(); }", "(a){if(a)a=1;else a()}");
  f("if (value) { value(1); } value(2);", "(a){a&&a(1);a(2)}");
  f("if (value?.a && !value) { value(1); }", "(b){b?.a&&!b&&b(1)}");
  f("if (value || value.b) { value(1); }", "(a){if(a||a.b)a(1)}");
  f("if (value) { return; } value();", "(a){if(a)return;a()}");
  f("if (value) { value ? value() : value(1); }", "(a){if(a)a?a():a(1)}");
  f("if (value) { if (value.b) { value(); } } else { value(1); }", "(a){if(a)a.b&&a();else a(1)}");
  f("if (value) { value(); value(); }", "(a){if(a){a();a()}}");
  f("if (value) { const c = value; }", "(a){if(a){let b=a}}");
});
