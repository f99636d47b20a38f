// What a move does to the stream and to the chat: two sockets bring events, and neither loses nor doubles one.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { FakeSocket, advance, reset, settle } from "./support.mjs";
import { MOVE, READY, RESUMED, moving, query, select, selected, up } from "./moving.mjs";

beforeEach(() => reset());

test("events of both come once and in order, whichever brings them sooner", async () => {
  const { first, second, of, seqs } = await moving();
  first.event(41, { safe: 40 });
  second.ready({ ...RESUMED, replayed: 2 });
  first.event(44, { safe: 40 });
  second.event(41, { safe: 41, replayed: true });
  first.event(43, { safe: 41 });
  second.event(42, { safe: 42, replayed: true });
  second.event(44, { safe: 42 });
  first.event(42, { safe: 44 });
  second.event(43, { safe: 44 });
  await advance(40);
  assert.deepEqual([seqs(), of("event").some(({ late }) => late)], [[41, 42, 43, 44], false]);
});

test("what the first had proved beyond the cursor of the second is not shown again", async () => {
  const { first, second, seqs } = await moving();
  first.event(41, { safe: 41 });
  second.ready({ ...RESUMED, replayed: 1 });
  second.event(41, { safe: 41, replayed: true });
  second.says({ type: "ready", payload: { stream: "s1", safe: 41 } });
  await advance(40);
  assert.deepEqual(seqs(), [41]);
});

test("a page that chooses another chat has it, on whichever socket it is by then", async () => {
  // Not confirmed by the first: asked for on both, and the second's answer counts.
  const { first, second, client: gateway, of } = await moving({}, { ...READY, chat_id: "c1" });
  gateway.selectChat("c2");
  assert.deepEqual([first.sent, second.sent, query("chat", second)], [[select("c2")], [], "c1"]);
  second.ready({ ...RESUMED, chat_id: "c1" });
  assert.deepEqual(second.sent, [select("c2")]);
  first.says(selected("c2"));
  assert.deepEqual(of("chat"), []);
  second.says(selected("c2"));
  assert.deepEqual([of("chat"), gateway.chat], [[{ chat_id: "c2" }], "c2"]);
});

test("a chat that the first was asked for and the second restored is confirmed to the page all the same", async () => {
  const { first, client: gateway, of, types } = await up();
  gateway.selectChat("c2");
  first.says(MOVE);
  await settle();
  const second = FakeSocket.last;
  assert.deepEqual([FakeSocket.open, query("chat")], [[first, second], null]);
  second.ready({ ...RESUMED, chat_id: "c2" });
  assert.deepEqual([second.sent, of("chat"), types()], [[], [{ chat_id: "c2" }], ["chat"]]);
});

test("a chat that the first confirms has the second opened anew with it, so that none of its messages is missed", async () => {
  const { first, second, client: gateway, of } = await moving({}, { ...READY, chat_id: "c1" });
  gateway.selectChat("c2");
  first.says(selected("c2"));
  await settle();
  assert.deepEqual([second.closedWith, FakeSocket.open, query("chat")], [4000, [first, FakeSocket.last], "c2"]);
  FakeSocket.last.ready({ ...RESUMED, chat_id: "c2" });
  first.ends(1001, "moved");
  await advance(20_000);
  assert.deepEqual([FakeSocket.all.length, FakeSocket.last.sent, of("chat")], [3, [], [{ chat_id: "c2" }]]);
});

test("a chat that is confirmed again leaves the second alone", async () => {
  const { first, second } = await moving({}, { ...READY, chat_id: "c1" });
  first.says(selected("c1"));
  await settle();
  assert.deepEqual(FakeSocket.open, [first, second]);
});

test("a second socket that could not resume is told, as after any reconnect", async () => {
  for (const told of [{ resumed: false, reason: "too_much" }, { resumed: false, reason: "unavailable" }, {}]) {
    for (const ends of [false, true]) {
      reset();
      const { first, second, log } = await moving();
      if (ends) first.ends(1001, "moved");
      second.ready({ ...READY, ...told });
      const [[type, detail], ...rest] = log;
      assert.deepEqual([type, detail.reconnected, rest], ["ready", true, []]);
      assert.deepEqual([detail.resumed, detail.reason], [told.resumed, told.reason]);
    }
  }
});

test("what the first brings after such a move is shown above the place of the second alone", async () => {
  const { first, second, seqs } = await moving();
  second.ready({ ...READY, safe: 50, resumed: false, reason: "too_much" });
  for (const seq of [49, 50, 51]) first.event(seq, { safe: 40 });
  await advance(40);
  assert.deepEqual([seqs(), second.sent], [[51], []]);
});

test("after the move the first has no say but for events", async () => {
  const { first, second, log, client: gateway } = await moving({}, { ...READY, chat_id: "c1" });
  second.ready({ ...RESUMED, chat_id: "c1", replayed: 2 });
  first.says({ type: "error", payload: { code: "SessionConflict", message: "…" } });
  first.says(selected("c0"));
  first.says({ type: "ready", payload: { stream: "s1", safe: 60 } });
  first.says({ type: "event", payload: { n: "of an old pod" } });
  first.says({ type: "gap", payload: { dropped: 2, first_seq: 41, last_seq: 42, reason: "slow_client" } });
  first.event(43, { safe: 43 });
  await advance(40);
  assert.deepEqual(log.map(([type, { seq }]) => [type, seq]), [["event", 43]]);
  // What the gap was of, the second still brings; the cursor has to wait for it.
  second.event(41, { safe: 41, replayed: true });
  second.event(42, { safe: 42, replayed: true });
  second.event(43, { safe: 42 });
  await advance(40);
  assert.deepEqual(log.map(([type, { seq }]) => [type, seq]), [["event", 43], ["event", 41], ["event", 42]]);
  assert.equal(gateway.chat, "c1");
  second.ends(1006);
  await advance(500);
  assert.deepEqual([query("resume"), query("chat")], ["s1:42", "c1"]);
});

test("a second socket of a stream made anew is the end of the first, whose numbers mean nothing there", async () => {
  const { first, second, of, seqs } = await moving();
  second.ready({ pod_id: "p2", stream: "s2", safe: 3, resumed: false, reason: "stream_changed" });
  assert.equal(first.closedWith, 4000);
  first.event(44, { safe: 44 });
  for (const seq of [4, 44]) second.event(seq, { safe: 3 });
  await advance(40);
  assert.deepEqual([of("ready")[0].reason, seqs()], ["stream_changed", [4, 44]]);
  second.ends(1006);
  await advance(500);
  assert.equal(query("resume"), "s2:3");
});

test("a stream made anew under the first leaves the second its time", async () => {
  const { first, second } = await moving();
  first.event(1);
  first.says({ type: "ready", payload: { stream: "s2", safe: 0 } });
  await advance(5000);
  assert.equal(second.closedWith, 4000);
});
