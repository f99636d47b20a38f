// The package as its users get it: packed, installed offline, compiled against, and run in Node with each WebSocket that there is.
import assert from "node:assert/strict";
import { execFile, execFileSync } from "node:child_process";
import { cpSync, existsSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { createRequire } from "node:module";
import { createServer } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { after, test } from "node:test";
import { promisify } from "node:util";

const run = promisify(execFile);
const root = new URL("..", import.meta.url).pathname;
const work = mkdtempSync(join(tmpdir(), "package-"));
after(() => rmSync(work, { recursive: true }));

const npm = (where, ...words) => execFileSync("npm", words, { cwd: where, encoding: "utf8", env: { ...process.env, npm_config_cache: join(work, "cache"), npm_config_update_notifier: "false" } });
const packed = JSON.parse(npm(root, "pack", "--json", "--ignore-scripts", "--pack-destination", work))[0];
writeFileSync(join(work, "package.json"), JSON.stringify({ name: "app", private: true, type: "module" }));
npm(work, "install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts", join(work, packed.filename));

/** The package ws, where Debian has it. */
const ws = ["/usr/share/nodejs/ws", "/usr/lib/node_modules/ws"].find((path) => existsSync(path));
if (ws) symlinkSync(ws, join(work, "node_modules/ws"));

/** Runs a module of the app, and gives what it says when it has ended by itself. */
async function app(source, flags = []) {
  const file = join(work, `app-${Math.random()}.mjs`);
  writeFileSync(file, source);
  const { stdout } = await run(process.execPath, [...flags, file], { cwd: work, timeout: 20_000 });
  return stdout;
}

test("it has its code, its types and its sources, and nothing that it depends on", () => {
  const names = packed.files.map(({ path }) => path);
  const { exports, dependencies, peerDependenciesMeta } = JSON.parse(readFileSync(join(root, "package.json"), "utf8"));
  for (const { types, default: code } of Object.values(exports).filter((entry) => entry.types)) {
    for (const path of [types, code]) assert.ok(names.includes(path.slice(2)), path);
  }
  assert.ok(names.includes("README.md") && names.includes("src/session.ts"));
  assert.ok(names.every((name) => /^(dist|src)\/[\w.-]+\.(js|d\.ts|ts|tsx)$|^(README\.md|package\.json)$/.test(name)), names.join(" "));
  assert.deepEqual([dependencies, peerDependenciesMeta], [undefined, { react: { optional: true } }]);
});

const USER = `
import { connect, GatewayClient, type EventDetail, type GatewayOptions } from "@daisi/ws-client";
import { Gateway, GatewayClosed } from "@daisi/ws-client/gateway";
import { GatewayProvider, useEvents, type HookClient } from "@daisi/ws-client/react";
import { SharedGateway } from "@daisi/ws-client/shared";

interface Message { row_data: { text: string } }
const options: GatewayOptions = { url: new URL("wss://x.test/ws/a/b"), apiKey: async () => "k", token: () => "t", signal: new AbortController().signal };
const client: GatewayClient<Message> = connect<Message>(options);
client.addEventListener("event", ({ detail }) => { const text: string = detail.payload.row_data.text; const seq: number | undefined = detail.seq; void [text, seq]; });
client.addEventListener("close", ({ detail }) => { const wait: number | null = detail.retryIn; void wait; }, { once: true });
client.addEventListener("chat", ({ detail }) => { const chat: string = detail.chat_id; void chat; });
const plain: EventTarget = client;
// @ts-expect-error: no such field
client.addEventListener("gap", ({ detail }) => detail.lost);
// @ts-expect-error: a key is missing
connect({ url: "", token: "" });
// @ts-expect-error: it is told, not set
client.state = "ready";
const gateway = new Gateway<Message>(options);
const ready: Promise<Gateway<Message>> = gateway.ready;
const release: () => void = gateway.wantChat("c", options.signal);
const shared = new SharedGateway<Message>({ ...options, name: "sari" });
shared.addEventListener("event", ({ detail }) => { const text: string = detail.payload.row_data.text; void text; });
const clients: HookClient[] = [client, gateway, shared];
const Page = (): void => useEvents<Message>(({ payload }) => { const text: string = payload.row_data.text; void text; });
void [plain, ready, release, GatewayClosed, clients, Page, GatewayProvider];
`;

const compiler = Number(/\d+/.exec(execFileSync(process.env.TSC ?? "tsc", ["--version"], { encoding: "utf8" }))[0]);
for (const resolution of [compiler < 6 ? "node" : "bundler", "node16"]) {
  test(`a strict program compiles against it (moduleResolution ${resolution})`, () => {
    writeFileSync(join(work, "user.mts"), USER);
    cpSync(join(work, "user.mts"), join(work, "user.ts"));
    const module = resolution === "node16" ? "node16" : "es2022";
    const words = ["--noEmit", "--strict", "--target", "es2022", "--module", module, "--moduleResolution", resolution, "--lib", "es2022,dom"];
    execFileSync(process.env.TSC ?? "tsc", [...words, resolution === "node16" ? "user.mts" : "user.ts"], { cwd: work, stdio: "inherit" });
  });
}

/** A gateway of ws, which says \`ready\` and one event; and what ends when its session has had both. */
const SESSION = (socket) => `
import { WebSocketServer } from "ws";
import { connect } from "@daisi/ws-client/gateway";
${socket === "ws" ? 'import { WebSocket as Socket } from "ws";' : "const Socket = WebSocket;"}
const server = new WebSocketServer({ port: 0, host: "127.0.0.1", handleProtocols: () => "json.v1" });
await new Promise((listening) => server.on("listening", listening));
server.on("connection", (socket, request) => {
  console.log(request.url, request.headers["sec-websocket-protocol"]);
  socket.send(JSON.stringify({ type: "ready", payload: { pod_id: "p", stream: "s", safe: 1 } }));
  socket.send(JSON.stringify({ type: "event", seq: 2, safe: 2, payload: { n: 2 } }));
});
const gateway = connect({ url: "ws://127.0.0.1:" + server.address().port + "/ws/acme/a1", apiKey: "k", token: () => "t", WebSocket: Socket });
gateway.addEventListener("event", ({ detail }) => {
  console.log("event", detail.payload.n);
  gateway.close();
  server.close();
});
await gateway.ready;
console.log("ready", gateway.state);
`;

for (const socket of ["ws", "own"]) {
  test(`a session in Node with ${socket === "ws" ? "the package ws" : "Node's own WebSocket"}`, { skip: !ws && "no package ws" }, async () => {
    const flags = socket === "own" && Number(process.versions.node.split(".")[0]) < 22 ? ["--experimental-websocket", "--no-warnings"] : [];
    const said = await app(SESSION(socket), flags);
    assert.match(said, /^\/ws\/acme\/a1\?move=1 json.v1, ?dws.key.aw, ?dws.token.t\n/);
    assert.match(said, /ready ready/);
    assert.match(said, /event 2/);
  });
}

test("no way in which a socket of ws can fail ends the process", { skip: !ws && "no package ws" }, async () => {
  const servers = {
    refused: null,
    forbidden: (socket) => socket.end("HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\n\r\n"),
    "cut off": (socket) => socket.destroy(),
    silent: () => {},
    "not HTTP": (socket) => socket.end("hello\r\n\r\n"),
  };
  for (const [name, answer] of Object.entries(servers)) {
    const server = createServer((socket) => socket.on("error", () => {}).once("data", () => answer(socket)));
    await new Promise((done) => server.listen(0, "127.0.0.1", done));
    const { port } = server.address();
    if (!answer) server.close();
    const said = await app(`
      import { WebSocket } from "ws";
      import { connect } from "@daisi/ws-client";
      const gateway = connect({ url: "ws://127.0.0.1:${port}/ws/acme/a1", apiKey: "k", token: "t", WebSocket, minDelay: 50, connectTimeout: 300, fetch: async () => { throw new Error("away"); } });
      let closes = 0;
      gateway.addEventListener("close", ({ detail }) => {
        if (++closes === 2) setTimeout(() => gateway.close(), 30);
        console.log(detail.code, detail.final);
      });
    `);
    server.close();
    assert.match(said, /^(1006|4000) false\n(1006|4000) false\n(.*\n)*1000 true\n$/, name);
  }
});

test("without a WebSocket it says so, and tries nothing for ever", async () => {
  const said = await app(`
    import { connect } from "@daisi/ws-client";
    delete globalThis.WebSocket;
    const gateway = connect({ url: "ws://127.0.0.1:9/ws/acme/a1", apiKey: "k", token: "t" });
    gateway.addEventListener("error", ({ detail }) => console.log(detail.message));
    gateway.addEventListener("close", ({ detail }) => console.log(detail.reason, detail.final));
  `);
  assert.equal(said, "WebSocket is not defined\nbad-options true\n");
});
