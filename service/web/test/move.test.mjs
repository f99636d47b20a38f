// How the client moves to a second socket when the gateway asks for it, and what the page hears of it: nothing, as long as
// nothing can be missing.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { FakeSocket, advance, client, reset, settle, waiting } from "./support.mjs";
import { MOVE, READY, RESUMED, moving, query, select, up } from "./moving.mjs";

beforeEach(() => reset());

test("every attempt says that this client can move", async () => {
  await client({ url: "wss://desk.test/ws/admin?trace=1" });
  assert.equal(query("move"), "1");
  FakeSocket.last.ready();
  FakeSocket.last.ends(1006);
  await advance(500);
  assert.deepEqual([FakeSocket.all.length, query("move"), query("trace")], [2, "1", "1"]);
});

test("a move is a second socket at once, which goes on where the first is, and the page hears events alone", async () => {
  let asked = 0;
  const { client: gateway, first, types, seqs } = await up({ token: async () => `t${++asked}` }, { ...READY, chat_id: "c1" });
  first.event(42, { safe: 41 });
  first.says(MOVE);
  await settle();
  const second = FakeSocket.last;
  assert.deepEqual([query("resume"), query("chat"), second.protocols.at(-1)], ["s1:41", "c1", "dws.token.t2"]);
  // The first is the one until the second says `ready`.
  gateway.selectChat("c1");
  first.event(43, { safe: 42 });
  assert.deepEqual([first.sent, second.sent], [[select("c1")], []]);
  second.ready({ ...RESUMED, safe: 41, chat_id: "c1", replayed: 1 });
  gateway.selectChat("c2");
  assert.deepEqual([first.sent.length, second.sent], [1, [select("c2")]]);
  first.event(44);
  second.event(45, { safe: 44 });
  first.ends(1001, "moved");
  await advance(24_000);
  assert.deepEqual([seqs(), types(), gateway.state], [[42, 43, 44, 45], Array(4).fill("event"), "ready"]);
  assert.deepEqual([FakeSocket.all.length, FakeSocket.open], [2, [second]]);
  second.ends(1006);
  await advance(500);
  assert.equal(query("resume"), "s1:44");
});

test("a first socket that nobody closes is dropped a few seconds after the second has the session", async () => {
  const { first, second, types } = await moving();
  second.ready(RESUMED);
  await advance(4999);
  assert.equal(first.closedWith, undefined);
  await advance(1);
  assert.equal(first.closedWith, 4000);
  first.event(41);
  await advance(40);
  assert.deepEqual([types(), FakeSocket.open], [[], [second]]);
});

test("a refused second socket is tried again shortly after, without asking /ready and without a word to the page", async () => {
  const { second, types, probes, client: gateway } = await moving();
  second.ends(1006);
  await advance(399);
  assert.equal(FakeSocket.all.length, 2);
  await advance(1);
  const third = FakeSocket.last;
  assert.deepEqual([FakeSocket.all.length, FakeSocket.open.length], [3, 2]);
  third.ready(RESUMED);
  await advance(20_000);
  assert.deepEqual([types(), probes, gateway.state, FakeSocket.all.length, FakeSocket.open], [[], [], "ready", 3, [third]]);
});

test("half of the pause before another try is random", async () => {
  const { second } = await moving({ random: () => 0 });
  second.ends(1006);
  await advance(199);
  assert.equal(FakeSocket.all.length, 2);
  await advance(1);
  assert.equal(FakeSocket.all.length, 3);
});

test("pauses double, tries never overlap, and when the time is over the first stays until it is asked again", async () => {
  const { first, second, types, client: gateway } = await moving();
  second.onopen();
  second.ends(1013, "lock-unconfirmed");
  for (const pause of [400, 800, 1600, 3200, 6400]) {
    await advance(pause - 1);
    assert.deepEqual(FakeSocket.open, [first]);
    await advance(1);
    assert.deepEqual(FakeSocket.open, [first, FakeSocket.last]);
    FakeSocket.last.ends(1006);
  }
  // 12.4 s are gone, and the next would be at 25.2.
  const idle = waiting();
  await advance(20_000);
  assert.deepEqual([FakeSocket.all.length, waiting(), types(), gateway.state], [7, idle, [], "ready"]);
  first.says(MOVE);
  await settle();
  assert.equal(FakeSocket.all.length, 8);
  FakeSocket.last.ready(RESUMED);
  assert.deepEqual(types(), []);
});

test("a second socket that hangs is given up after a third of the time of an attempt, and tried again", async () => {
  const { second, first, types } = await moving();
  await advance(4999);
  assert.equal(second.closedWith, undefined);
  await advance(1);
  assert.equal(second.closedWith, 4000);
  await advance(400);
  assert.deepEqual([FakeSocket.all.length, FakeSocket.open], [3, [first, FakeSocket.last]]);
  // That one connects, says nothing and ends.
  FakeSocket.last.onopen();
  FakeSocket.last.says({ type: "error", payload: { code: "InternalServerError", message: "…" } });
  FakeSocket.last.ends(1011);
  await advance(800);
  assert.deepEqual([FakeSocket.all.length, types()], [4, []]);
});

test("a token that can't be had for the second socket is asked for again; one that never will be had ends it all", async () => {
  let fails;
  const { first, types, client: gateway, of } = await up({ token: async () => { if (fails) throw fails; return "t"; } });
  fails = new Error("backend away");
  first.says(MOVE);
  await settle();
  assert.deepEqual([FakeSocket.all.length, types(), gateway.state], [1, [], "ready"]);
  fails = Object.assign(new Error("logged out"), { final: true });
  await advance(400);
  assert.deepEqual([of("error")[0].message, of("close")[0].code, gateway.state], ["logged out", 4403, "closed"]);
  assert.deepEqual([FakeSocket.open, waiting()], [[], 0]);
});

for (const [code, reason] of [[1001, "moved"], [1001, "going-away"], [4402, "session-replaced"]]) {
  test(`a first socket that ends with ${code} ${reason} before the second is ready is no loss`, async () => {
    const { first, second, types, client: gateway } = await moving({ chat: "c1" }, { ...READY, chat_id: "c1" });
    first.event(41, { safe: 40 });
    first.ends(code, reason);
    // Nowhere to go before its `ready`: it is selected on the second.
    second.readyState = 1;
    gateway.selectChat("c2");
    await advance(6000);
    assert.deepEqual([first.sent, types(), gateway.state, FakeSocket.open], [[], ["event"], "ready", [second]]);
    second.ready({ ...RESUMED, chat_id: "c1" });
    assert.deepEqual([second.sent, types(), FakeSocket.all.length], [[select("c2")], ["event"], 2]);
    await advance(25_000);
    assert.deepEqual(second.sent.at(-1), { type: "ready" });
  });
}

test("the attempt that is left alone has the time and the waits of any, and counts no failure for the first", async () => {
  const { first, second, of, types, probes } = await moving();
  first.ends(1001, "moved");
  await advance(14_999);
  assert.deepEqual(types(), []);
  await advance(1);
  assert.deepEqual(of("close"), [{ code: 4000, reason: "connect-timeout", final: false, retryIn: 500 }]);
  await advance(500);
  FakeSocket.last.ends(1006);
  await settle();
  assert.deepEqual([second.closedWith, probes.length, of("close")[1].retryIn], [4000, 1, 1000]);
});

test("a first socket that breaks makes the second the attempt that the page sees", async () => {
  const { first, second, log, of, probes } = await moving();
  first.ends(1006);
  await settle();
  assert.deepEqual(log, [["state", { state: "connecting" }]]);
  second.ready(RESUMED);
  assert.deepEqual(of("ready").map(({ reconnected, resumed }) => [reconnected, resumed]), [[true, true]]);
  assert.deepEqual([probes, FakeSocket.all.length], [[], 2]);
  second.ends(1006);
  assert.equal(of("close")[0].retryIn, 500);
});

test("a first socket that goes silent does too", async () => {
  const { first, second, log } = await moving({ connectTimeout: 120_000 });
  await advance(34_999);
  assert.deepEqual([first.sent, log], [[{ type: "ready" }], []]);
  await advance(1);
  assert.deepEqual([log, first.closedWith, FakeSocket.open], [[["state", { state: "connecting" }]], 4000, [second]]);
});

test("a question that the first did not answer is not held against the second", async () => {
  const { first, second, types } = await moving({ connectTimeout: 120_000 });
  await advance(30_000);
  assert.equal(first.sent.length, 1);
  second.ready(RESUMED);
  await advance(24_999);
  assert.deepEqual(second.sent, []);
  await advance(1);
  assert.deepEqual([second.sent, types()], [[{ type: "ready" }], []]);
  await advance(10_000);
  assert.equal(second.closedWith, 4000);
});

for (const reason of ["moved", "going-away"]) {
  test(`with no attempt under way 1001 ${reason} is a loss like any, with the short wait`, async () => {
    const { first, second, of, client: gateway } = await moving();
    for (const pause of [400, 800, 1600]) {
      FakeSocket.last.ends(1006);
      await advance(pause);
    }
    FakeSocket.last.ends(1006);
    first.ends(1001, reason);
    assert.deepEqual([of("close"), gateway.state], [[{ code: 1001, reason, final: false, retryIn: 500 }], "waiting"]);
    await advance(500);
    assert.deepEqual([FakeSocket.all.length, FakeSocket.open, second.readyState], [6, [FakeSocket.last], 3]);
    FakeSocket.last.ready(RESUMED);
    // What is left of the wish to move is gone with its socket, and the next one counts.
    await advance(20_000);
    assert.equal(FakeSocket.all.length, 6);
    FakeSocket.last.says(MOVE);
    await settle();
    assert.equal(FakeSocket.all.length, 7);
  });
}

test("4402 is final on the second socket, and on the first with no attempt under way", async () => {
  for (const which of ["second", "first", "after the first"]) {
    reset();
    const { first, second, of, client: gateway } = await moving();
    second.onopen();
    if (which === "after the first") first.ends(1001, "moved");
    if (which === "first") second.ends(1006);
    (which === "first" ? first : second).ends(4402, "session-replaced");
    assert.deepEqual(of("close"), [{ code: 4402, reason: "session-replaced", final: true, retryIn: null }]);
    await advance(3_600_000);
    assert.deepEqual([gateway.state, FakeSocket.all.length, FakeSocket.open, waiting()], ["closed", 2, [], 0]);
  }
});

test("a token that ran out on the first is final, also with a second on its way", async () => {
  const { first, of } = await moving();
  first.ends(4403, "token-expired");
  assert.deepEqual([of("close")[0].code, of("close")[0].final, FakeSocket.open], [4403, true, []]);
});

test("what ends the first socket after the move is nobody's business", async () => {
  for (const code of [1001, 1006, 4402, 4403]) {
    reset();
    const { first, second, types } = await moving();
    second.ready(RESUMED);
    first.ends(code);
    await advance(20_000);
    assert.deepEqual([types(), FakeSocket.open], [[], [second]]);
  }
});

test("a second wish to move changes nothing while the first one is under way", async () => {
  const { first, second } = await moving();
  first.says(MOVE);
  await settle();
  assert.equal(FakeSocket.all.length, 2);
  second.ends(1006);
  first.says(MOVE);
  await advance(399);
  assert.equal(FakeSocket.all.length, 2);
  await advance(1);
  assert.equal(FakeSocket.all.length, 3);
  FakeSocket.last.ready(RESUMED);
  first.says(MOVE);
  await advance(20_000);
  assert.deepEqual([FakeSocket.all.length, FakeSocket.open], [3, [FakeSocket.last]]);
});

test("a pod that is moved to and drains as well is moved away from, and never three sockets are open", async () => {
  const { first, second, types, seqs } = await moving();
  let last = second;
  for (let round = 0; round < 5; round++) {
    last.ready(RESUMED);
    last.event(41 + round, { safe: 40 + round });
    last.says(MOVE);
    await settle();
    assert.deepEqual([FakeSocket.all.length, FakeSocket.open], [3 + round, [last, FakeSocket.last]]);
    assert.equal(query("resume"), `s1:${40 + round}`);
    last = FakeSocket.last;
  }
  last.ready(RESUMED);
  await advance(20_000);
  assert.deepEqual([first.closedWith, FakeSocket.open], [4000, [last]]);
  assert.deepEqual([new Set(types()), seqs()], [new Set(["event"]), [41, 42, 43, 44, 45]]);
});

const WAITS = ["a token", "a token that fails", "its ready", "another try", "the second alone", "the end of the first", "a reconnect"];
for (const until of WAITS) {
  test(`close() while a move waits for ${until} leaves no socket and no timer`, async () => {
    let token = null;
    let asked = 0;
    const { first, client: gateway, of } = await up({ token: () => ++asked && (token ?? "t") });
    let [bring, fail] = [];
    if (until.startsWith("a token")) token = new Promise((...both) => { [bring, fail] = both; });
    first.says(MOVE);
    await settle();
    const second = FakeSocket.last;
    assert.deepEqual([asked, FakeSocket.all.length], [2, token ? 1 : 2]);
    if (until === "another try") second.ends(1006);
    if (until === "the second alone") first.ends(1001, "moved");
    if (until === "the end of the first") second.ready(RESUMED);
    if (until === "a reconnect") first.ends(1006);
    gateway.close();
    assert.deepEqual([FakeSocket.open, waiting()], [[], 0]);
    if (until === "a token that fails") fail?.(new Error("late"));
    else bring?.("late");
    await advance(3_600_000);
    assert.deepEqual([FakeSocket.all.length, of("close").length, of("error"), gateway.state], [token ? 1 : 2, 1, [], "closed"]);
    // Nothing of it is left over for the next session.
    token = null;
    gateway.connect();
    await settle();
    FakeSocket.last.ready(RESUMED);
    assert.deepEqual([FakeSocket.open, gateway.state], [[FakeSocket.last], "ready"]);
    FakeSocket.last.ends(1006);
    assert.equal(gateway.state, "waiting");
  });
}

test("connect() while it moves opens nothing", async () => {
  const { client: gateway } = await moving();
  gateway.connect();
  await settle();
  assert.equal(FakeSocket.all.length, 2);
});

test("a page that closes when it is given an event is closed, also where that was the last of a socket", async () => {
  for (const until of ["ready", "lost", "alone"]) {
    reset();
    const { first, second, client: gateway } = await moving();
    gateway.addEventListener("event", () => gateway.close());
    first.event(41, { safe: 40 });
    if (until === "ready") second.ready(RESUMED);
    if (until === "alone") first.ends(1006);
    if (until === "lost") {
      second.ends(1006);
      first.ends(1006);
    }
    await advance(60_000);
    assert.deepEqual([gateway.state, FakeSocket.open, waiting()], ["closed", [], 0], until);
  }
});

test("in a tab that nobody sees, whose timers run once a minute, a move waits for none of them", async () => {
  reset({ every: 60_000 });
  const { first, second, types, client: gateway, seqs } = await moving();
  second.ready({ ...RESUMED, replayed: 1 });
  second.event(41, { safe: 41, replayed: true });
  first.ends(1001, "moved");
  assert.deepEqual([types(), gateway.state, FakeSocket.open], [[], "ready", [second]]);
  second.says(MOVE);
  await settle();
  FakeSocket.last.ends(1006);
  await advance(60_000);
  assert.deepEqual([seqs(), FakeSocket.open], [[41], [second, FakeSocket.last]]);
  // Another refusal, after the time is over: nothing goes on.
  FakeSocket.last.ends(1006);
  await advance(24_000);
  assert.deepEqual([types(), FakeSocket.open], [["event"], [second]]);
});
