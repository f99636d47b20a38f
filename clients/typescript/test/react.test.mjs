// The hooks: in strict mode, on a server, and where several components ask for chats.
import assert from "node:assert/strict";

import { cpSync, existsSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, beforeEach, test } from "node:test";
import { Gateway } from "../dist/gateway.js";
import { FakeSocket, advance, reset, settle, waiting } from "../../../service/web/test/support.mjs";
import { READY, RESUMED, select, selected } from "../../../service/web/test/moving.mjs";

/** React, where Debian has it, or where NODEJS_MODULES says. */
const modules = [process.env.NODEJS_MODULES, "/usr/share/nodejs"].find((path) => path && existsSync(join(path, "react-test-renderer")));
const skip = modules ? false : "no React";
const work = mkdtempSync(join(tmpdir(), "react-"));
after(() => rmSync(work, { recursive: true }));
let React, hooks, renderer, server;
if (modules) {
  cpSync(new URL("../dist", import.meta.url).pathname, join(work, "dist"), { recursive: true });
  writeFileSync(join(work, "package.json"), '{"type":"module"}');
  cpSync(modules, join(work, "node_modules"), { recursive: true, dereference: true, filter: (path) => !path.includes("@types") && (path === modules || /\/(react|scheduler|loose-envify|js-tokens|object-assign)/.test(path)) });
  const load = async (name) => (await import(join(work, "node_modules", name))).default;
  globalThis.IS_REACT_ACT_ENVIRONMENT = true;
  [React, renderer, server] = [await load("react/index.js"), await load("react-test-renderer/index.js"), await load("react-dom/server.node.js")];
  hooks = await import(join(work, "dist/react.js"));
}

const h = (...given) => React.createElement(...given);
const make = () => new Gateway({ url: "wss://desk.test/ws/acme/a1", apiKey: "key", token: "token", WebSocket: FakeSocket, random: () => 1, fetch: async () => ({ headers: new Map() }) });
/** Lets React and the clock go on. */
const calm = (ms = 0) => renderer.act(() => advance(ms));
const within = (client, ...children) => h(React.StrictMode, null, h(hooks.GatewayProvider, { client }, ...children));
async function mount(...given) {
  let tree;
  await renderer.act(async () => { tree = renderer.create(within(...given)); });
  await calm();
  return tree;
}

beforeEach(() => reset());

test("in strict mode there is one socket, every event is heard once, and the session ends with the provider", { skip }, async () => {
  const heard = [];
  const Page = () => {
    hooks.useEvents(({ seq }) => heard.push(seq));
    return hooks.useConnectionState();
  };
  const tree = await mount(make(), h(Page));
  assert.equal(FakeSocket.all.length, 1);
  assert.equal(tree.toJSON(), "connecting");
  await renderer.act(async () => FakeSocket.last.ready(READY));
  assert.equal(tree.toJSON(), "ready");
  FakeSocket.last.event(41, { safe: 40 });
  await calm(40);
  assert.deepEqual(heard, [41]);
  await renderer.act(async () => FakeSocket.last.ends(1006));
  assert.equal(tree.toJSON(), "waiting");
  await calm(500);
  await renderer.act(async () => FakeSocket.last.ready(RESUMED));
  await renderer.act(async () => tree.unmount());
  await calm();
  assert.deepEqual([FakeSocket.open, waiting()], [[], 0]);
});

test("a listener is the one of the last rendering", { skip }, async () => {
  const heard = [];
  const Page = ({ name }) => {
    hooks.useEvents(({ seq }) => heard.push([name, seq]));
    return null;
  };
  const client = make();
  const tree = await mount(client, h(Page, { name: "a" }));
  await renderer.act(async () => FakeSocket.last.ready(READY));
  await renderer.act(async () => tree.update(within(client, h(Page, { name: "b" }))));
  FakeSocket.last.event(41, { safe: 40 });
  await calm(40);
  assert.deepEqual(heard, [["b", 41]]);
});

test("components ask for chats and let go of them", { skip }, async () => {
  const Thread = ({ chat }) => `${chat}:${hooks.useChat(chat)} `;
  const client = make();
  const tree = await mount(client, h(Thread, { chat: "c1", key: 1 }));
  await renderer.act(async () => FakeSocket.last.ready(READY));
  assert.deepEqual([FakeSocket.last.sent, tree.toJSON()], [[select("c1")], "c1:false "]);
  await renderer.act(async () => FakeSocket.last.says(selected("c1")));
  assert.equal(tree.toJSON(), "c1:true ");
  await renderer.act(async () => tree.update(within(client, h(Thread, { chat: "c1", key: 1 }), h(Thread, { chat: "c2", key: 2 }))));
  await renderer.act(async () => FakeSocket.last.says(selected("c2")));
  assert.deepEqual(tree.toJSON(), ["c1:false ", "c2:true "]);
  await renderer.act(async () => tree.update(within(client, h(Thread, { chat: "c1", key: 1 }))));
  assert.deepEqual(FakeSocket.last.sent.at(-1), select("c1"));
  await renderer.act(async () => FakeSocket.last.says(selected("c1")));
  assert.equal(tree.toJSON(), "c1:true ");
});

test("a server renders it without a session", { skip }, async () => {
  const Page = () => `${hooks.useConnectionState()} ${hooks.useChat("c1")}`;
  assert.equal(server.renderToString(within(make(), h(Page))), "closed false");
  await settle();
  assert.deepEqual([FakeSocket.all, waiting()], [[], 0]);
});

test("without a provider it says so", { skip }, () => {
  const Page = () => { hooks.useGateway(); return null; };
  assert.throws(() => server.renderToString(h(Page)), /there is no GatewayProvider above/);
});
