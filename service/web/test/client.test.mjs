import assert from "node:assert/strict";
import { readFileSync } from "node:fs";
import { beforeEach, test } from "node:test";
import { minify } from "../build.mjs";
import { FakeSocket, advance, client, module, reset, settle } from "./support.mjs";

beforeEach(reset);
const file = (name) => readFileSync(new URL(`../${name}`, import.meta.url), "utf8");

test("the minified client is what the build makes of the readable one, in at most 6,500 bytes", () => {
  assert.equal(file("client.min.js"), minify(file("client.js")));
  assert.ok(Buffer.byteLength(file("client.min.js")) <= 6500);
});

test("key and token go as sub-protocols beside the one that is asked for, and nothing secret into the URL", async () => {
  await client({ apiKey: "a browser's key?>", token: async () => "t-_k==" });
  assert.equal(new URL(FakeSocket.last.url).search, "?move=1");
  assert.deepEqual(FakeSocket.last.protocols, ["json.v1", "dws.key.YSBicm93c2VyJ3Mga2V5Pz4", "dws.token.t-_k"]);
  await client({ protocols: ["json.v1", "other"], url: "wss://gateway.test/ws/admin?trace=1" });
  assert.equal(new URL(FakeSocket.last.url).search, "?trace=1&move=1");
  assert.deepEqual(FakeSocket.last.protocols.slice(0, 2), ["json.v1", "other"]);
});

test("every attempt asks for a token and an address anew", async () => {
  let asked = 0;
  const { of } = await client({ token: () => `t${++asked}`, url: () => `wss://pod-${asked + 1}.test/ws/admin` });
  FakeSocket.last.ready();
  FakeSocket.last.ends(1001, "going-away");
  await advance(500);
  assert.equal(FakeSocket.all.length, 2);
  assert.match(FakeSocket.last.url, /pod-2/);
  assert.equal(FakeSocket.last.protocols.at(-1), "dws.token.t2");
  FakeSocket.last.ready();
  assert.deepEqual(of("ready").map((ready) => ready.reconnected), [false, true]);
});

test("a token that can't be had counts as a failed attempt, and one that never will be had ends it", async () => {
  let final = false;
  const { of, client: gateway } = await client({ token: () => { throw Object.assign(new Error("login first"), { final }); } });
  assert.equal(of("error")[0].message, "login first");
  assert.equal(gateway.state, "waiting");
  final = true;
  await advance(500);
  assert.equal(gateway.state, "closed");
  assert.equal(FakeSocket.all.length, 0);
});

for (const code of [4400, 4401, 4402, 4403]) {
  test(`${code} never reconnects by itself, and connect() begins again`, async () => {
    const { client: gateway, of } = await client();
    FakeSocket.last.ready();
    FakeSocket.last.ends(code, "why");
    await advance(3_600_000);
    assert.equal(FakeSocket.all.length, 1);
    assert.deepEqual(of("close"), [{ code, reason: "why", final: true, retryIn: null }]);
    gateway.connect();
    await settle();
    assert.equal(FakeSocket.all.length, 2);
  });
}

test("waits double from half a second to half a minute, and begin small again only after a session that lasted", async () => {
  const { of } = await client();
  for (let n = 0; n < 9; n++) {
    FakeSocket.last.ends(1006);
    await settle();
    await advance(of("close").at(-1).retryIn);
  }
  assert.deepEqual(of("close").map((close) => close.retryIn), [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]);
  // Accepted and thrown out at once: no reason to hurry.
  FakeSocket.last.ready();
  FakeSocket.last.ends(1011);
  assert.equal(of("close").at(-1).retryIn, 30000);
  await advance(30000);
  FakeSocket.last.ready();
  await advance(10000);
  FakeSocket.last.ends(1011);
  assert.equal(of("close").at(-1).retryIn, 500);
});

test("half of every wait is random", async () => {
  const { of } = await client({ random: () => 0 });
  FakeSocket.last.ends(1006);
  await settle();
  assert.equal(of("close")[0].retryIn, 250);
});

test("Retry-After is obeyed, with jitter on top, and not for ever", async () => {
  let after = "7";
  const { of, client: gateway } = await client({ fetch: async () => ({ ok: false, headers: new Map([["retry-after", after]]) }) });
  FakeSocket.last.ends(1006);
  await settle();
  assert.equal(of("close")[0].retryIn, 8750);
  await advance(8750);
  FakeSocket.last.ready();
  after = "86400";
  FakeSocket.last.ends(1013, "lock-unconfirmed");
  await settle();
  assert.equal(of("close")[1].retryIn, 375000);
  assert.equal(gateway.state, "waiting");
});

test("a refused handshake is looked into at /ws/ready, which is routed as sockets are, without key and token; a drained socket is not", async () => {
  const { probes } = await client();
  FakeSocket.last.ends(1006);
  await settle();
  assert.deepEqual(probes, ["https://desk.test/ws/ready"]);
  await advance(500);
  FakeSocket.last.ready();
  FakeSocket.last.ends(1001);
  await settle();
  assert.equal(probes.length, 1);
});

test("4429 waits long at once", async () => {
  const { of } = await client();
  FakeSocket.last.ready();
  FakeSocket.last.ends(4429);
  assert.equal(of("close")[0].retryIn, 8000);
});

test("the chosen chat is kept over reconnects, and selected only where the gateway did not restore it", async () => {
  const { client: gateway } = await client();
  FakeSocket.last.ready();
  gateway.selectChat("62811@s.whatsapp.net");
  const select = { type: "select_chat", payload: { chat_id: "62811@s.whatsapp.net" } };
  assert.deepEqual(FakeSocket.last.sent, [select]);
  FakeSocket.last.ends(1006);
  await advance(500);
  FakeSocket.last.ready({ pod_id: "p2", chat_id: "62811@s.whatsapp.net" });
  assert.deepEqual(FakeSocket.last.sent, []);
  FakeSocket.last.ends(1006);
  await advance(1000);
  FakeSocket.last.ready({ pod_id: "p2", chat_id: "another" });
  assert.deepEqual(FakeSocket.last.sent, [select]);
});

test("without a choice the restored chat is taken over", async () => {
  const { client: gateway, of } = await client();
  FakeSocket.last.ready({ pod_id: "p1", chat_id: "c9" });
  assert.equal(gateway.chat, "c9");
  assert.equal(of("ready")[0].chat, "c9");
});

test("events come once and in the order of the stream, also over a reconnect", async () => {
  const { seqs } = await client();
  FakeSocket.last.ready();
  for (const seq of [3, 1, 2, 2]) FakeSocket.last.event(seq);
  await advance(40);
  FakeSocket.last.ends(1006);
  await advance(500);
  FakeSocket.last.ready();
  for (const seq of [2, 5, 3, 4]) FakeSocket.last.event(seq);
  await advance(40);
  assert.deepEqual(seqs(), [1, 2, 3, 4, 5]);
});

test("an event that comes after its successors were shown says so", async () => {
  const { of } = await client();
  FakeSocket.last.ready();
  FakeSocket.last.event(8);
  await advance(40);
  FakeSocket.last.event(7);
  await advance(40);
  assert.deepEqual(of("event").map(({ seq, late }) => [seq, late]), [[8, false], [7, true]]);
});

test("large integers survive in the text", async () => {
  const { of } = await client();
  FakeSocket.last.ready();
  FakeSocket.last.says('{"type":"event","seq":1,"payload":{"id":9007199254740993}}');
  await advance(40);
  assert.match(of("event")[0].text, /9007199254740993/);
});

test("a gap keeps its place behind the events before it", async () => {
  const { log } = await client();
  FakeSocket.last.ready();
  FakeSocket.last.event(1);
  FakeSocket.last.says({ type: "gap", payload: { dropped: 3, first_seq: 2, last_seq: 4, reason: "slow_client" } });
  FakeSocket.last.event(5);
  await advance(40);
  assert.deepEqual(log.filter(([type]) => type === "event" || type === "gap").map(([type, detail]) => detail.seq ?? type), [1, "gap", 5]);
});

test("errors and chat confirmations are told; what makes no sense is passed over", async () => {
  const { of } = await client();
  FakeSocket.last.ready();
  FakeSocket.last.says("{");
  FakeSocket.last.says({ type: "of the future" });
  FakeSocket.last.says({ type: "ready" });
  FakeSocket.last.says({ type: "error", payload: { code: "BadRequest", message: "no" } });
  FakeSocket.last.says({ type: "chat_selected", payload: { chat_id: "c1" } });
  assert.deepEqual(of("error"), [{ code: "BadRequest", message: "no" }]);
  assert.deepEqual(of("chat"), [{ chat_id: "c1" }]);
  assert.equal(of("ready").length, 1);
});

test("silence is asked about and, without an answer, is the end of the connection", async () => {
  const { of, client: gateway } = await client();
  FakeSocket.last.ready({ pod_id: "p1", stream: "s1", safe: 0 });
  await advance(25000);
  assert.deepEqual(FakeSocket.last.sent, [{ type: "ready" }]);
  FakeSocket.last.says({ type: "ready" });
  await advance(25000 + 9999);
  assert.equal(gateway.state, "ready");
  const silent = FakeSocket.last;
  await advance(1);
  assert.deepEqual([of("close")[0].code, of("close")[0].reason, silent.closedWith], [4000, "silent", 4000]);
  await advance(500);
  assert.equal(FakeSocket.all.length, 2);
  // The dead one wakes up: nobody listens.
  silent.says({ type: "event", seq: 1, payload: {} });
  silent.ends(1006);
  await advance(40);
  assert.deepEqual([of("event").length, FakeSocket.all.length], [0, 2]);
});

test("an attempt that never gets ready is given up", async () => {
  const { of } = await client();
  await advance(15000);
  assert.equal(of("close")[0].reason, "connect-timeout");
  await advance(500);
  assert.equal(FakeSocket.all.length, 2);
});

test("close() ends everything, also a wait and an attempt under way", async () => {
  for (const until of ["connecting", "ready", "waiting"]) {
    reset();
    const { client: gateway, of } = await client();
    if (until !== "connecting") FakeSocket.last.ready();
    if (until === "waiting") FakeSocket.last.ends(1006);
    assert.equal(gateway.state, until);
    gateway.close();
    await advance(3_600_000);
    assert.equal(FakeSocket.all.length, 1);
    assert.equal(of("close").at(-1).code, 1000);
  }
});

test("a token that arrives after close() opens nothing, and one that fails by then is not told", async () => {
  for (const fails of [false, true]) {
    let end;
    const { client: gateway, of } = await client({ token: () => new Promise((...ends) => { end = ends[Number(fails)]; }) });
    gateway.close();
    end("late");
    await settle();
    assert.deepEqual([FakeSocket.all.length, of("error"), gateway.state], [0, [], "closed"]);
  }
});

test("connect() is the short way, and connecting twice opens one socket", async () => {
  const gateway = module.connect({ url: "wss://x.test/ws/admin", apiKey: "k", token: "t", WebSocket: FakeSocket });
  gateway.connect();
  await settle();
  assert.equal(FakeSocket.all.length, 1);
});

test("the types name every option, event and default of the source", () => {
  const [source, types] = [file("client.js"), file("client.d.ts")];
  const defaults = [.../const DEFAULTS = {([^}]*)}/.exec(source)[1].matchAll(/(\w+): (\d+)/g)].map(([, name, value]) => [name, Number(value)]);
  assert.equal(defaults.length, 7);
  for (const [name, value] of defaults) {
    const comment = new RegExp(`/\\*\\*((?:(?!\\*/)[^])*)\\*/\\s*${name}\\?: number;`).exec(types);
    assert.ok(comment, `${name} is not in client.d.ts`);
    assert.ok(comment[1].replaceAll(/(?<=\d) (?=\d)/g, "").includes(`default ${value}`), `the default of ${name}`);
  }
  const options = new Set([...source.matchAll(/\boptions\.(\w+)/g)].map(([, name]) => name));
  assert.ok(options.has("storage") && options.size > 15, "the options are found");
  for (const name of options) assert.match(types, new RegExp(`\\b${name}\\??: `), name);
  for (const [, name] of source.matchAll(/\btell\("(\w+)"/g)) assert.match(types, new RegExp(`\\b${name}: CustomEvent`), name);
});
