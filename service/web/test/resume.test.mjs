// How the client goes on in the stream where it was: the cursor, what it gives to the page, and where it keeps it.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { FakeSocket, advance, client, reset } from "./support.mjs";

beforeEach(reset);

const READY = { pod_id: "p1", stream: "s1", safe: 40 };
const query = (name) => new URL(FakeSocket.last.url).searchParams.get(name);
const again = async () => {
  FakeSocket.last.ends(1006);
  await advance(30_000);
};

/** A `sessionStorage`, of which the tests see what is in it. */
class Storage extends Map {
  getItem(key) {
    return this.get(key) ?? null;
  }
  setItem(key, value) {
    this.set(key, value);
  }
}

test("the first attempt has no cursor, and a reconnect brings the highest that was read", async () => {
  await client();
  assert.equal(query("resume"), null);
  FakeSocket.last.ready(READY);
  await again();
  assert.equal(query("resume"), "s1:40");
  FakeSocket.last.ready({ ...READY, resumed: true, replayed: 0 });
  FakeSocket.last.event(50, { safe: 47 });
  FakeSocket.last.event(51, { safe: 46 });
  await again();
  assert.equal(query("resume"), "s1:47");
});

test("after a quiet time the gateway is asked where the session stands, and its answer is no second ready", async () => {
  const { of } = await client();
  FakeSocket.last.ready({ ...READY, chat_id: "c1" });
  await advance(25_000);
  assert.deepEqual(FakeSocket.last.sent, [{ type: "ready" }]);
  FakeSocket.last.says({ type: "ready", payload: { stream: "s1", safe: 90 } });
  await again();
  assert.equal(query("resume"), "s1:90");
  assert.equal(of("ready").length, 1);
});

test("a pod that knew no place when it said ready is asked once more, after ten quiet seconds", async () => {
  await client();
  FakeSocket.last.ready();
  for (let seq = 1; seq <= 3; seq++) {
    await advance(4_000);
    FakeSocket.last.event(seq);
  }
  assert.deepEqual(FakeSocket.last.sent, [{ type: "ready" }]);
  FakeSocket.last.says({ type: "ready", payload: { stream: "s1", safe: 2 } });
  await again();
  assert.equal(query("resume"), "s1:2");
});

test("it is asked at once, and once, when an event shows that it knows its place by now", async () => {
  await client();
  FakeSocket.last.ready();
  FakeSocket.last.event(1);
  assert.deepEqual(FakeSocket.last.sent, []);
  FakeSocket.last.event(2, { safe: 0 });
  FakeSocket.last.event(3, { safe: 1 });
  assert.deepEqual(FakeSocket.last.sent, [{ type: "ready" }]);
  FakeSocket.last.says({ type: "ready", payload: { stream: "s1", safe: 1 } });
  FakeSocket.last.event(4, { safe: 2 });
  await advance(11_000);
  assert.deepEqual(FakeSocket.last.sent, [{ type: "ready" }]);
  await again();
  assert.equal(query("resume"), "s1:2");
});

test("the page is told what became of the wish to resume", async () => {
  const { of } = await client();
  FakeSocket.last.ready(READY);
  await again();
  FakeSocket.last.ready({ ...READY, resumed: true, replayed: 2 });
  await again();
  FakeSocket.last.ready({ ...READY, safe: 900, resumed: false, reason: "too_much" });
  assert.deepEqual(of("ready").map(({ reconnected, resumed, replayed, reason }) => [reconnected, resumed, replayed, reason]),
    [[false, undefined, undefined, undefined], [true, true, 2, undefined], [true, false, undefined, "too_much"]]);
});

test("of what is replayed the page gets what it had not, in order and before anything newer", async () => {
  const { of } = await client();
  FakeSocket.last.ready(READY);
  FakeSocket.last.event(43, { safe: 40 });
  FakeSocket.last.event(45, { safe: 40 });
  await again();
  FakeSocket.last.ready({ ...READY, resumed: true, replayed: 4 });
  for (const seq of [43, 44, 45, 46]) FakeSocket.last.event(seq, { safe: seq, replayed: true });
  FakeSocket.last.event(47, { safe: 46 });
  await advance(40);
  assert.deepEqual(of("event").map(({ seq, replayed, late }) => [seq, !!replayed, late]),
    [[43, false, false], [45, false, false], [44, true, true], [46, true, false], [47, false, false]]);
  await again();
  assert.equal(query("resume"), "s1:46");
});

test("a replayed event that was seen moves the cursor all the same", async () => {
  const { seqs } = await client();
  FakeSocket.last.ready(READY);
  FakeSocket.last.event(43, { safe: 40 });
  await again();
  FakeSocket.last.ready({ ...READY, resumed: true, replayed: 1 });
  FakeSocket.last.event(43, { safe: 43, replayed: true });
  await again();
  assert.equal(query("resume"), "s1:43");
  assert.deepEqual(seqs(), [43]);
});

for (const reason of ["busy", "unavailable"]) {
  test(`after ${reason} the cursor stays, and the next attempt asks again`, async () => {
    await client();
    FakeSocket.last.ready(READY);
    await again();
    FakeSocket.last.ready({ ...READY, resumed: false, reason });
    FakeSocket.last.event(77, { safe: 40 });
    await again();
    assert.equal(query("resume"), "s1:40");
  });
}

test("after too_old and too_much the cursor is where the gateway says, and what was taken above it is still known", async () => {
  const { seqs } = await client();
  for (const [safe, reason] of [[40, null], [60, "too_old"], [80, "too_much"]]) {
    FakeSocket.last.ready({ ...READY, safe, ...(reason && { resumed: false, reason }) });
    FakeSocket.last.event(95);
    await again();
    assert.equal(query("resume"), `s1:${safe}`);
  }
  assert.deepEqual(seqs(), [95]);
});

test("a stream of another name counts from one again and loses nothing", async () => {
  const { of } = await client();
  FakeSocket.last.ready(READY);
  for (const seq of [41, 42]) FakeSocket.last.event(seq, { safe: 40 });
  await again();
  FakeSocket.last.ready({ pod_id: "p1", stream: "s2", safe: 3, resumed: false, reason: "stream_changed" });
  for (const seq of [4, 41, 42]) FakeSocket.last.event(seq, { safe: 3 });
  await advance(40);
  assert.deepEqual(of("event").map(({ seq, late }) => [seq, late]),
    [[41, false], [42, false], [4, false], [41, false], [42, false]]);
  await again();
  assert.equal(query("resume"), "s2:3");
});

test("a stream that lost its end, as after a restored backup, takes the cursor back with it", async () => {
  const { seqs } = await client();
  FakeSocket.last.ready(READY);
  FakeSocket.last.event(41, { safe: 40 });
  await again();
  FakeSocket.last.ready({ ...READY, safe: 12, resumed: false, reason: "stream_changed" });
  for (const seq of [13, 41]) FakeSocket.last.event(seq, { safe: 12 });
  await again();
  assert.deepEqual(seqs(), [41, 13, 41]);
  assert.equal(query("resume"), "s1:12");
});

test("a stream that is made anew under a live socket loses nothing", async () => {
  const { seqs } = await client();
  FakeSocket.last.ready(READY);
  for (const seq of [1, 2]) FakeSocket.last.event(seq, { safe: 0 });
  // Below the cursor: only the gateway knows what they are, and one question does for both.
  assert.deepEqual(FakeSocket.last.sent, [{ type: "ready" }]);
  FakeSocket.last.says({ type: "ready", payload: { stream: "s2", safe: 1 } });
  FakeSocket.last.event(3, { safe: 1 });
  await again();
  assert.deepEqual(seqs(), [1, 2, 3]);
  assert.equal(query("resume"), "s2:1");
});

test("what comes below the cursor in the same stream was taken before", async () => {
  const { seqs } = await client();
  FakeSocket.last.ready(READY);
  FakeSocket.last.event(39, { safe: 38 });
  FakeSocket.last.says({ type: "ready", payload: { stream: "s1", safe: 41 } });
  FakeSocket.last.event(38, { safe: 37 });
  assert.deepEqual(FakeSocket.last.sent, [{ type: "ready" }, { type: "ready" }]);
  await again();
  FakeSocket.last.ready({ ...READY, resumed: true, replayed: 0 });
  await advance(40);
  assert.deepEqual(seqs(), []);
});

test("what comes below the cursor is given where a gateway of old can't say which stream it is of", async () => {
  const { seqs } = await client();
  FakeSocket.last.ready(READY);
  await again();
  FakeSocket.last.ready();
  FakeSocket.last.event(7);
  FakeSocket.last.says({ type: "ready" });
  await advance(40);
  assert.deepEqual(seqs(), [7]);
});

test("a gateway of old, which knows no cursor, does not cost it", async () => {
  const { of, seqs } = await client();
  FakeSocket.last.ready(READY);
  await again();
  FakeSocket.last.ready();
  FakeSocket.last.event(41);
  await again();
  assert.equal(query("resume"), "s1:40");
  FakeSocket.last.ready({ ...READY, resumed: true, replayed: 1 });
  FakeSocket.last.event(41, { safe: 41, replayed: true });
  await advance(40);
  assert.deepEqual(seqs(), [41]);
  assert.deepEqual(of("ready").map((ready) => !!ready.resumed), [false, false, true]);
});

test("the memory for duplicates is bounded, and holds nothing at or below the cursor", async () => {
  const { seqs } = await client();
  FakeSocket.last.ready(READY);
  for (let seq = 41; seq <= 4141; seq++) FakeSocket.last.event(seq, { safe: 40 });
  // 4,101 were taken: the oldest five are forgotten.
  for (const seq of [41, 60, 4141]) FakeSocket.last.event(seq, { safe: 40 });
  await advance(40);
  assert.equal(seqs().length, 4101 + 1);
  // A cursor that moves on makes place: what is above it is kept longer.
  FakeSocket.last.event(9000, { safe: 40 });
  for (let seq = 4142; seq <= 8000; seq++) FakeSocket.last.event(seq, { safe: 40 });
  for (let seq = 8001; seq <= 8300; seq++) FakeSocket.last.event(seq, { safe: 8000 });
  FakeSocket.last.event(9000, { safe: 8000 });
  await advance(40);
  assert.deepEqual([seqs().length, seqs().filter((seq) => seq === 9000).length], [4102 + 1 + 3859 + 300, 1]);
});

test("the chat goes into the query with the cursor, so that its messages are resumed too", async () => {
  const { client: gateway } = await client({ chat: "62811@s.whatsapp.net" });
  assert.equal(query("chat"), "62811@s.whatsapp.net");
  FakeSocket.last.ready({ ...READY, chat_id: "62811@s.whatsapp.net" });
  assert.deepEqual(FakeSocket.last.sent, []);
  await again();
  assert.equal(query("chat"), "62811@s.whatsapp.net");
  FakeSocket.last.ready({ ...READY, chat_id: "62811@s.whatsapp.net" });
  gateway.selectChat("c2");
  FakeSocket.last.says({ type: "chat_selected", payload: { chat_id: "c2" } });
  await again();
  assert.equal(query("chat"), "c2");
});

test("a restored chat is asked for again", async () => {
  await client();
  assert.equal(query("chat"), null);
  FakeSocket.last.ready({ ...READY, chat_id: "c9" });
  await again();
  assert.equal(query("chat"), "c9");
});

test("a chat that makes the gateway refuse is not insisted on: it is selected after ready, where it costs an error", async () => {
  await client({ chat: "no chat" });
  assert.equal(query("chat"), "no chat");
  await again();
  assert.equal(query("chat"), null);
  FakeSocket.last.ready(READY);
  assert.deepEqual(FakeSocket.last.sent, [{ type: "select_chat", payload: { chat_id: "no chat" } }]);
});

test("a storage keeps the cursor over a page load, by gateway and user, and nothing secret", async () => {
  const storage = new Storage();
  await client({ storage, user: "sari" });
  FakeSocket.last.ready(READY);
  assert.deepEqual([...storage], [["dws:sari@desk.test/ws/acme/agent-7", "s1:40"]]);
  FakeSocket.last.event(44, { safe: 43 });
  await advance(40);
  const { of } = await client({ storage, user: "sari", url: "wss://desk.test/ws/acme/agent-7?trace=1" });
  assert.equal(query("resume"), "s1:43");
  FakeSocket.last.ready({ ...READY, safe: 43, resumed: true, replayed: 1 });
  assert.deepEqual(of("ready").map(({ reconnected, resumed }) => [reconnected, resumed]), [[false, true]]);
  await client({ storage, user: "budi" });
  assert.equal(query("resume"), null);
  await client({ storage, user: "sari", url: "wss://desk.test/ws/acme/agent-8" });
  assert.equal(query("resume"), null);
});

test("nothing is kept before the page has seen what it stands for", async () => {
  const storage = new Storage();
  const { client: gateway } = await client({ storage, user: "sari" });
  FakeSocket.last.ready(READY);
  const kept = [];
  gateway.addEventListener("event", () => kept.push(...storage.values()));
  FakeSocket.last.event(41, { safe: 40 });
  FakeSocket.last.event(42, { safe: 41 });
  assert.deepEqual([...storage.values()], ["s1:40"]);
  await advance(40);
  assert.deepEqual([kept, ...storage.values()], [["s1:40", "s1:40"], "s1:41"]);
});

test("a gateway of old, which has no cursor to keep, leaves the storage as it is", async () => {
  const storage = new Storage();
  await client({ storage });
  FakeSocket.last.ready();
  FakeSocket.last.event(41);
  await again();
  assert.equal(storage.size, 0);
});

test("without a storage, with one that is full and with one that holds nonsense a session is as ever", async () => {
  const full = new Storage([["dws:sari@desk.test/ws/acme/agent-7", "s1:7"]]);
  full.setItem = () => {
    throw new Error("QuotaExceededError");
  };
  const nonsense = new Storage([["dws:sari@desk.test/ws/acme/agent-7", "s1:x"]]);
  for (const storage of [undefined, full, nonsense]) {
    reset();
    const { client: gateway, seqs } = await client({ storage, user: "sari" });
    FakeSocket.last.ready(READY);
    FakeSocket.last.event(41, { safe: 40 });
    await advance(40);
    assert.deepEqual([gateway.state, seqs()], ["ready", [41]]);
    await again();
    assert.equal(query("resume"), "s1:40");
  }
});
