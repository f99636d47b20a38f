// A day in a browser: tokens end, networks change, laptops sleep, tabs are hidden and put aside.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { setFlagsFromString } from "node:v8";
import { runInNewContext } from "node:vm";
import { FakeSocket, advance, client, module, reset, settle, signs, sleep, waiting } from "./support.mjs";
import { MOVE, READY, RESUMED, moving, query, select, selected, up } from "./moving.mjs";

beforeEach(() => reset());
const ASK = { type: "ready" };

// ---- tokens and keys

test("a token that has ended is asked for anew, at once and with the cursor; a fixed one is final", async () => {
  let life = 0;
  const { first, of, client: gateway } = await up({ token: () => `t${++life}` });
  await advance(5000);
  first.ends(4403, "token-expired");
  assert.deepEqual(of("close"), [{ code: 4403, reason: "token-expired", final: false, retryIn: 500 }]);
  await advance(500);
  assert.deepEqual([FakeSocket.last.protocols.at(-1), query("resume")], ["dws.token.t2", "s1:40"]);
  FakeSocket.last.ready(RESUMED);
  assert.equal(gateway.state, "ready");
});

test("tokens that live five seconds cost half a second each, however long the day is", async () => {
  const { of } = await up({ token: async () => "t" });
  for (let n = 0; n < 50; n++) {
    await advance(5000);
    FakeSocket.last.ends(4403, "token-expired");
    await advance(500);
    FakeSocket.last.ready(RESUMED);
  }
  assert.deepEqual(new Set(of("close").map(({ retryIn }) => retryIn)), new Set([500]));
});

test("tokens that end as soon as they are shown are no hot loop", async () => {
  const { of } = await up({ token: async () => "t" });
  for (let n = 0; n < 8; n++) {
    FakeSocket.last.ends(4403, "token-expired");
    await advance(of("close").at(-1).retryIn);
    FakeSocket.last.ready(RESUMED);
  }
  assert.deepEqual(of("close").map(({ retryIn }) => retryIn), [500, 1000, 2000, 4000, 8000, 16000, 30000, 30000]);
});

test("a token that ends on the first socket of a move is no end, where another can be had", async () => {
  const { first, second, client: gateway } = await moving({ token: async () => "t" });
  first.ends(4403, "token-expired");
  assert.deepEqual([gateway.state, FakeSocket.open], ["connecting", [second]]);
  second.ready(RESUMED);
  assert.equal(gateway.state, "ready");
});

test("a token that is about to end is replaced on the open socket, without a word to the page", async () => {
  let life = 0;
  const { first, log } = await up({ token: () => `t${++life}` });
  first.says({ type: "token_expiring", payload: { expires_at: "…", in_seconds: 58 } });
  await advance(0);
  assert.deepEqual(first.sent, [{ type: "auth", payload: { token: "t2" } }]);
  first.says({ type: "auth_ok", payload: { expires_at: "…" } });
  // One that lives for seconds is said to end at once: half of its life is no hot loop.
  first.says({ type: "token_expiring", payload: { expires_at: "…", in_seconds: 5 } });
  await advance(2499);
  assert.equal(first.sent.length, 1);
  await advance(1);
  assert.deepEqual([first.sent.length, log], [2, []]);
});

test("a token that can't be had before it ends is asked for again when it has; a fixed one is not asked for", async () => {
  for (const token of ["t", async () => { if (fails) throw new Error("away"); return "t"; }]) {
    reset();
    var fails = false;
    const { first, client: gateway } = await up({ token });
    fails = true;
    first.says({ type: "token_expiring", payload: { in_seconds: 58 } });
    await advance(3000);
    assert.deepEqual([first.sent, gateway.state], [[], "ready"]);
  }
});

test("a gateway that is there and refuses three times in a row is said so, once; one that is not there is not", async () => {
  const { of } = await client();
  for (let n = 0; n < 6; n++) {
    FakeSocket.last.ends(1006);
    await settle();
    assert.equal(of("error").length, n < 2 ? 0 : 1);
    await advance(30_000);
  }
  assert.equal(of("error")[0].code, "Refused");
  // A session in between, and it begins again.
  FakeSocket.last.ready();
  for (let n = 0; n < 4; n++) {
    FakeSocket.last.ends(1006);
    await advance(30_000);
  }
  assert.equal(of("error").length, 2);
  reset();
  for (const fetch of [async () => { throw new TypeError("offline"); }, async () => ({ headers: new Map([["retry-after", "2"]]) })]) {
    const { of: said } = await client({ fetch });
    for (let n = 0; n < 5; n++) {
      FakeSocket.last.ends(1006);
      await advance(60_000);
    }
    assert.deepEqual(said("error"), []);
  }
});

test("a key may be a function, which is asked before every attempt, and may fail as a token may", async () => {
  let n = 0;
  const { of } = await client({ apiKey: async () => { if (++n === 2) throw new Error("away"); return `k${n}`; } });
  assert.equal(FakeSocket.last.protocols[1], `dws.key.${btoa("k1").replaceAll("=", "")}`);
  FakeSocket.last.ends(1006);
  await advance(500);
  assert.deepEqual([of("error")[0].message, of("close")[1].reason], ["away", "no-token"]);
  await advance(1000);
  assert.equal(FakeSocket.last.protocols[1], `dws.key.${btoa("k3").replaceAll("=", "")}`);
});

test("what can never be opened is final, with a reason of its own", async () => {
  class Strict extends FakeSocket {
    constructor(url, protocols) {
      if (new Set(protocols).size < protocols.length || !["ws:", "wss:"].includes(new URL(url).protocol)) throw new SyntaxError("no");
      super(url, protocols);
    }
  }
  for (const wrong of [{ url: "desk.test/ws/acme/a1" }, { url: "ftp://desk.test/ws/admin" }, { url: async () => "" }, { apiKey: "ключ" }, { protocols: ["a", "a"] }]) {
    const { of, client: gateway } = await client({ WebSocket: Strict, ...wrong });
    assert.deepEqual(of("close"), [{ code: 4400, reason: "bad-options", final: true, retryIn: null }], JSON.stringify(wrong));
    assert.deepEqual([of("error")[0].code, gateway.state, waiting()], ["ConnectFailed", "closed", 0]);
  }
});

// ---- signs of life

for (const [target, name, about] of [["window", "online"], ["document", "visibilitychange"], ["document", "resume"], ["window", "pageshow", { persisted: true }], ["connection", "change"]]) {
  test(`after ${name} a wait is over, an open socket is asked, and an attempt has less time`, async () => {
    const { client: gateway, of } = await client();
    for (let n = 0; n < 7; n++) {
      FakeSocket.last.ends(1006);
      await settle();
      if (n < 6) await advance(of("close").at(-1).retryIn);
    }
    assert.deepEqual([gateway.state, of("close").at(-1).retryIn], ["waiting", 30_000]);
    const tries = FakeSocket.all.length;
    signs[target].tell(name, about);
    signs[target].tell(name, about);
    await settle();
    assert.deepEqual([FakeSocket.all.length, gateway.state], [tries + 1, "connecting"]);
    // What was begun on the network before may hang.
    await advance(5000);
    assert.deepEqual([of("close").at(-1).reason, FakeSocket.open], ["connect-timeout", []]);
    gateway.connect();
    await settle();
    FakeSocket.last.ready(READY);
    signs[target].tell(name, about);
    assert.deepEqual(FakeSocket.last.sent, [ASK]);
    await advance(2999);
    assert.equal(gateway.state, "ready");
    await advance(1);
    assert.deepEqual([of("close").at(-1).reason, FakeSocket.open], ["silent", []]);
  });
}

test("a socket that answers is kept", async () => {
  const { first, client: gateway } = await up();
  signs.window.tell("online");
  first.says({ type: "ready", payload: { stream: "s1", safe: 44 } });
  await advance(24_000);
  assert.deepEqual([gateway.state, FakeSocket.all.length], ["ready", 1]);
});

test("connect() means now, also where the gateway wants to be left alone; a sign does not", async () => {
  const { client: gateway, of } = await client({ fetch: async () => ({ headers: new Map([["retry-after", "60"]]) }) });
  FakeSocket.last.ends(1006);
  await settle();
  assert.equal(of("close")[0].retryIn, 75_000);
  signs.window.tell("online");
  await settle();
  assert.equal(FakeSocket.all.length, 1);
  gateway.connect();
  await settle();
  assert.equal(FakeSocket.all.length, 2);
  await advance(14_000);
  assert.equal(FakeSocket.all.length, 2, "the wait before is over");
});

test("after a sleep an open socket is asked, and has little time for its answer", async () => {
  const { first, client: gateway, of } = await up();
  sleep(600_000);
  await advance(0);
  assert.deepEqual([first.sent, gateway.state], [[ASK], "ready"]);
  await advance(2999);
  assert.equal(gateway.state, "ready");
  await advance(1);
  assert.deepEqual([of("close")[0].reason, gateway.state], ["silent", "waiting"]);
});

test("a sleep while an answer is waited for proves nothing: it is asked once more, and not for ever", async () => {
  const { first, client: gateway } = await up();
  await advance(25_000);
  sleep(600_000);
  await advance(0);
  assert.deepEqual([first.sent, gateway.state], [[ASK, ASK], "ready"]);
  first.says({ type: "ready", payload: { stream: "s1", safe: 44 } });
  await advance(25_000);
  sleep(600_000);
  await advance(0);
  sleep(600_000);
  await advance(0);
  assert.equal(gateway.state, "waiting");
});

test("a page that is put aside lets go of its socket, and has another at once when it is shown again", async () => {
  const { first, client: gateway } = await up();
  signs.window.tell("pagehide", { persisted: false });
  assert.equal(gateway.state, "ready");
  signs.window.tell("pagehide", { persisted: true });
  // As browsers do, after that.
  signs.document.hidden = true;
  signs.document.tell("visibilitychange");
  await settle();
  assert.deepEqual([gateway.state, FakeSocket.open, first.closedWith], ["waiting", [], 4000]);
  signs.document.hidden = false;
  signs.window.tell("pageshow", { persisted: false });
  await settle();
  assert.equal(FakeSocket.all.length, 1);
  signs.window.tell("pageshow", { persisted: true });
  await settle();
  assert.deepEqual([FakeSocket.all.length, query("resume")], [2, "s1:40"]);
});

test("one that is put aside while it moves keeps neither socket", async () => {
  const { client: gateway } = await moving();
  signs.window.tell("pagehide", { persisted: true });
  assert.deepEqual([gateway.state, FakeSocket.open], ["waiting", []]);
});

test("nobody listens for signs after the end, and again after connect()", async () => {
  const { client: gateway } = await up();
  gateway.close();
  assert.equal(signs.listeners(), 0);
  gateway.connect();
  await settle();
  assert.ok(signs.listeners() > 0);
  FakeSocket.last.ready();
  FakeSocket.last.ends(4402);
  assert.equal(signs.listeners(), 0);
});

test("a tab that is hidden asks nothing, and one that is hidden already hears of the network all the same", async () => {
  const { first } = await up();
  signs.document.hidden = true;
  signs.document.tell("visibilitychange");
  assert.deepEqual(first.sent, []);
  signs.window.tell("online");
  assert.deepEqual(first.sent, [ASK]);
});

test("in a tab that nobody sees events are shown as they come, and what was held is shown when it is hidden", async () => {
  reset({ every: 60_000 });
  const { first, of, seqs } = await up();
  first.event(42);
  assert.deepEqual(seqs(), []);
  signs.document.hidden = true;
  signs.document.tell("visibilitychange");
  assert.deepEqual(seqs(), [42]);
  for (const seq of [44, 43, 44]) first.event(seq);
  assert.deepEqual(of("event").map(({ seq, late }) => [seq, late]), [[42, false], [44, false], [43, true]]);
});

// ---- sessions that end in order

test("a rolling deploy, which sends short sessions away, backs nobody off", async () => {
  const { of } = await up();
  for (let n = 0; n < 6; n++) {
    await advance(4000);
    FakeSocket.last.ends(1001, "going-away");
    await advance(500);
    // The next pod goes as well.
    FakeSocket.last.ends(1006);
    await advance(1000);
    FakeSocket.last.ready(RESUMED);
  }
  assert.deepEqual(new Set(of("close").map(({ retryIn }) => retryIn)), new Set([500, 1000]));
});

test("a pod that sends everybody away as they come is no reason to hurry", async () => {
  const { of } = await up();
  for (let n = 0; n < 4; n++) {
    FakeSocket.last.ends(1001, "going-away");
    await advance(of("close").at(-1).retryIn);
    FakeSocket.last.ready(RESUMED);
  }
  assert.deepEqual(of("close").map(({ retryIn }) => retryIn), [500, 1000, 2000, 4000]);
});

// ---- chats

test("a chat that the gateway restores is confirmed to the page, at every ready that it hears of", async () => {
  const { of, log } = await client({ chat: "c1" });
  FakeSocket.last.ready({ ...READY, chat_id: "c1" });
  assert.deepEqual(log.slice(-2).map(([type]) => type), ["ready", "chat"]);
  FakeSocket.last.ends(1006);
  await advance(500);
  FakeSocket.last.ready({ ...RESUMED, chat_id: "c1" });
  assert.deepEqual(of("chat"), [{ chat_id: "c1" }, { chat_id: "c1" }]);
});

const REFUSED = { type: "error", payload: { code: "BadRequest", message: "no chat id" } };

test("a chat that is refused is not asked for again; the one before stays", async () => {
  const { first, client: gateway, of } = await up({}, { ...READY, chat_id: "c1" });
  gateway.selectChat("no chat");
  first.says(REFUSED);
  assert.deepEqual([gateway.chat, of("error").length], ["c1", 1]);
  first.ends(1006);
  await advance(500);
  FakeSocket.last.ready({ ...RESUMED, chat_id: "c1" });
  assert.deepEqual([query("chat"), FakeSocket.last.sent], ["c1", []]);
});

test("an error is the answer to the oldest choice, and one that is chosen since stays", async () => {
  const { first, client: gateway } = await up();
  gateway.selectChat("no chat");
  gateway.selectChat("c2");
  first.says(REFUSED);
  assert.equal(gateway.chat, "c2");
  first.says(selected("c2"));
  gateway.selectChat("no chat");
  first.says(REFUSED);
  assert.equal(gateway.chat, "c2");
});

test("a chat that could not be had just now stays chosen, as do those that other errors are not about", async () => {
  const { first, client: gateway } = await up();
  gateway.selectChat("c2");
  first.says({ type: "error", payload: { code: "InvalidToken", message: "…" } });
  first.says({ type: "error", payload: { code: "SubscriptionFailure", message: "…" } });
  assert.equal(gateway.chat, "c2");
  first.ends(1006);
  await advance(500);
  FakeSocket.last.ready(RESUMED);
  assert.deepEqual(FakeSocket.last.sent, [select("c2")]);
});

test("a chat of 70 kB costs one session, not every one", async () => {
  for (const from of ["options", "the page"]) {
    reset();
    const long = "c".repeat(70_000);
    const { client: gateway } = await client(from === "options" ? { chat: long } : {});
    if (from === "options") {
      FakeSocket.last.ends(1006);
      await advance(500);
    }
    FakeSocket.last.ready(READY);
    if (from !== "options") gateway.selectChat(long);
    assert.equal(FakeSocket.last.sent.length, 1);
    FakeSocket.last.ends(1009, "message-too-big");
    await advance(1000);
    assert.equal(query("chat"), null);
    FakeSocket.last.ready(RESUMED);
    assert.deepEqual([FakeSocket.last.sent, gateway.chat, gateway.state], [[], null, "ready"]);
  }
});

// ---- the stream and the memory

test("a stream made anew behind a gateway that names none is not late for ever", async () => {
  const { of } = await client();
  FakeSocket.last.ready();
  FakeSocket.last.event(9000);
  await advance(40);
  FakeSocket.last.ends(1006);
  await advance(500);
  FakeSocket.last.ready();
  for (const seq of [1, 2]) FakeSocket.last.event(seq);
  await advance(40);
  assert.deepEqual(of("event").map(({ late }) => late), [false, false, false]);
});

test("a stream whose name is known only after it was made anew loses nothing and is not late", async () => {
  const { of } = await client();
  FakeSocket.last.ready();
  for (const seq of [4, 9000]) FakeSocket.last.event(seq);
  await advance(40);
  FakeSocket.last.ends(1006);
  await advance(500);
  FakeSocket.last.ready({ ...READY, stream: "s2", safe: 3 });
  for (const seq of [4, 5]) FakeSocket.last.event(seq, { safe: 3 });
  await advance(40);
  assert.deepEqual(of("event").map(({ seq, late }) => [seq, late]), [[4, false], [9000, false], [4, false], [5, false]]);
});

test("of 600 events of 200 kB nothing is kept", async () => {
  setFlagsFromString("--expose-gc");
  const collect = runInNewContext("gc");
  const { first, log, client: gateway } = await up();
  const forget = () => { log.length = 0; };
  gateway.addEventListener("event", ({ detail }) => assert.equal(detail.payload.text.length, 200_000));
  collect();
  const before = process.memoryUsage().heapUsed;
  for (let seq = 41; seq <= 640; seq++) {
    // Half of them without a place, half below the cursor: what only the gateway knows is let go of when it has answered.
    first.says(Buffer.from(`{"type":"event","seq":${seq % 2 ? seq : 7},"safe":40,"payload":{"text":"${"x".repeat(200_000)}"}}`).toString());
    if (seq % 10 === 0) first.says({ type: "ready", payload: { stream: "s1", safe: 40 } });
    if (seq % 50 === 0) await advance(40);
    // The log of this test is no part of the client.
    if (seq % 50 === 0) forget();
  }
  await advance(40);
  forget();
  collect();
  assert.ok(process.memoryUsage().heapUsed - before < 5e6);
});

// ---- other runtimes

test("no socket ends its process: somebody hears its errors, also after it was dropped", async () => {
  const { client: gateway } = await client();
  const socket = FakeSocket.last;
  assert.equal(typeof socket.onerror, "function");
  gateway.close();
  assert.deepEqual([typeof socket.onerror, socket.onmessage], ["function", null]);
});

test("it needs no URL that can be written to", async () => {
  const { URL: real } = globalThis;
  try {
    globalThis.URL = class { constructor() { throw new Error("not implemented"); } };
    await client({ url: "wss://desk.test/ws/acme/a1?trace=1", chat: "c & d" });
  } finally {
    globalThis.URL = real;
  }
  assert.equal(FakeSocket.last.url, "wss://desk.test/ws/acme/a1?trace=1&move=1&chat=c%20%26%20d");
});

// ---- what callers ask for

test("a signal ends the session as close() does, and one that is aborted opens none", async () => {
  const control = new AbortController();
  const { client: gateway, of } = await up({ signal: control.signal });
  control.abort();
  assert.deepEqual([of("close")[0].code, FakeSocket.open, waiting()], [1000, [], 0]);
  gateway.connect();
  await settle();
  assert.equal(FakeSocket.all.length, 1);
});

test("a logger is told all that the page is told, before it", async () => {
  const told = [];
  const { log } = await client({ log: (type, detail) => told.push([type, detail]) });
  FakeSocket.last.ready(READY);
  FakeSocket.last.event(41);
  await advance(40);
  FakeSocket.last.ends(4402);
  assert.deepEqual(told, log);
  assert.deepEqual(told.map(([type]) => type), ["state", "state", "ready", "event", "state", "close"]);
  assert.ok(module.GatewayClient);
});
