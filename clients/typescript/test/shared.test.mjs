// One socket for all tabs: who has it, what the others are told, and what becomes of it when that tab goes.
import assert from "node:assert/strict";
import { beforeEach, test } from "node:test";
import { SharedGateway } from "../dist/shared.js";
import { FakeSocket, advance, reset, settle, signs } from "../../../service/web/test/support.mjs";
import { MOVE, READY, RESUMED, query, select, selected } from "../../../service/web/test/moving.mjs";
import { Gateway, breathe, draws } from "../../../service/web/test/simulated.mjs";
import { Browser } from "./tabs.mjs";

beforeEach(() => reset());

let browser;
async function calm(ms = 0) {
  await advance(ms);
  browser.flush();
  await settle();
  browser.flush();
}
/** So many tabs, the first of which has a socket that is ready. */
async function tabs(count, more) {
  browser = new Browser();
  const opened = [browser.open(more)];
  await calm();
  FakeSocket.last.ready(READY);
  for (let n = 1; n < count; n++) opened.push(browser.open(more));
  await calm();
  return opened;
}

test("three tabs have one socket, and each is told everything", async () => {
  const all = await tabs(3);
  assert.equal(FakeSocket.all.length, 1);
  FakeSocket.last.event(41, { safe: 40 });
  FakeSocket.last.says({ type: "gap", payload: { dropped: 1, first_seq: 42, last_seq: 42, reason: "slow_client" } });
  FakeSocket.last.event(43, { safe: 42 });
  await calm(40);
  for (const tab of all) {
    assert.deepEqual([tab.gateway.state, tab.seqs, tab.of("gap").length, tab.of("ready").length, tab.gateway.lastSeq], ["ready", [41, 43], 1, 1, 43]);
    assert.equal(tab.of("ready")[0].reconnected, false);
  }
  assert.deepEqual(browser.leaders, [all[0]]);
});

for (const how of ["crashes", "closes"]) {
  test(`when the tab with the socket ${how}, the next goes on with its cursor, and nobody misses or doubles an event`, async () => {
    const [first, second, third] = await tabs(3);
    for (const seq of [42, 43, 44]) FakeSocket.last.event(seq, { safe: 42 });
    await calm(40);
    if (how === "crashes") first.crash();
    else first.gateway.close();
    await calm();
    assert.deepEqual([FakeSocket.all.length, query("resume"), browser.leaders], [2, "s1:42", [second]]);
    FakeSocket.last.ready({ ...RESUMED, safe: 42, replayed: 3 });
    for (const seq of [43, 44, 45]) FakeSocket.last.event(seq, { safe: seq, replayed: true });
    await calm(40);
    for (const tab of [second, third]) {
      assert.deepEqual(tab.seqs, [42, 43, 44, 45]);
      const [, again] = tab.of("ready");
      assert.deepEqual([again.reconnected, again.resumed, again.lastSeq], [true, true, 44]);
      assert.ok(tab.of("event").every(({ late }) => !late));
      assert.deepEqual(tab.of("close"), []);
    }
    if (how === "closes") assert.deepEqual([first.of("close").length, first.gateway.state, first.seqs], [1, "closed", [42, 43, 44]]);
  });
}

test("what the one before has told and is still under way is shown once", async () => {
  const [first, second, third] = await tabs(3);
  FakeSocket.last.event(41, { safe: 40 });
  await advance(40);
  // Told, and heard by nobody yet.
  first.crash();
  await settle();
  FakeSocket.last.ready({ ...RESUMED, replayed: 1 });
  FakeSocket.last.event(41, { safe: 41, replayed: true });
  await calm(40);
  assert.deepEqual([second.seqs, third.seqs], [[41], [41]]);
});

test("a tab is shown nothing before its ready", async () => {
  const [first] = await tabs(1);
  const second = browser.open();
  FakeSocket.last.event(41, { safe: 40 });
  await advance(40);
  await settle();
  browser.deliver((pipes) => pipes.find(([key]) => key === "0>1"));
  assert.deepEqual([first.seqs, second.seqs], [[41], []]);
  await calm();
  assert.deepEqual([second.log.map(([type]) => type).slice(-2), second.seqs], [["state", "ready"], []]);
});

test("a tab whose clock was set back, and that has not heard of the one before, is believed all the same", async () => {
  await advance(1_000_000);
  const [first, second] = await tabs(2);
  Date.now = () => 5;
  const third = browser.open();
  first.crash();
  second.gateway.close();
  // Nothing of the one before has reached it.
  second.gateway.connect();
  await settle();
  assert.deepEqual(browser.leaders, [third]);
  FakeSocket.last.ready(RESUMED);
  await calm();
  FakeSocket.last.event(41, { safe: 41 });
  await calm(40);
  assert.deepEqual([second.gateway.state, third.gateway.state, second.of("ready").length], ["ready", "ready", 2]);
});

test("a stream that was made anew counts from one again in every tab, and goes on so after the next one has the socket", async () => {
  const all = await tabs(3);
  for (const seq of [41, 42]) FakeSocket.last.event(seq, { safe: seq });
  await calm(40);
  FakeSocket.last.ends(1006);
  await calm(500);
  FakeSocket.last.ready({ ...READY, stream: "s2", safe: 40, resumed: false, reason: "stream_changed" });
  for (const seq of [41, 42]) FakeSocket.last.event(seq, { safe: 40 });
  await calm(40);
  for (const tab of all) assert.deepEqual([tab.seqs, tab.of("event").some(({ late }) => late)], [[41, 42, 41, 42], false]);
  all[0].crash();
  await calm();
  assert.equal(query("resume"), "s2:40");
});

test("a stream that was made anew while the next one took over is as any", async () => {
  const [first, second, third] = await tabs(3);
  FakeSocket.last.event(41, { safe: 41 });
  await calm(40);
  first.crash();
  await calm();
  FakeSocket.last.ready({ ...READY, stream: "s2", safe: 40, resumed: false, reason: "stream_changed" });
  FakeSocket.last.event(41, { safe: 40 });
  await calm(40);
  for (const tab of [second, third]) assert.deepEqual([tab.seqs, tab.of("ready")[1].resumed], [[41, 41], false]);
});

test("who asks for a chat last has it, for all tabs", async () => {
  const [first, second] = await tabs(2);
  second.gateway.selectChat("c1");
  await calm();
  assert.deepEqual(FakeSocket.last.sent, [select("c1")]);
  FakeSocket.last.says(selected("c1"));
  await calm();
  for (const tab of [first, second]) assert.deepEqual([tab.of("chat"), tab.gateway.chat], [[{ chat_id: "c1" }], "c1"]);
  first.gateway.selectChat("no chat");
  FakeSocket.last.says({ type: "error", payload: { code: "BadRequest", message: "no" } });
  await calm();
  for (const tab of [first, second]) assert.deepEqual([tab.gateway.chat, tab.of("error").length], ["c1", 1]);
  // It goes with the socket, and a tab that comes later is told.
  first.crash();
  await calm();
  assert.equal(query("chat"), "c1");
  FakeSocket.last.ready({ ...RESUMED, chat_id: "c1" });
  await calm();
  const late = browser.open();
  await calm();
  assert.deepEqual([late.of("ready")[0].chat, late.of("chat")], ["c1", [{ chat_id: "c1" }]]);
});

test("a chat that is chosen while no tab has the socket is chosen by the next one", async () => {
  const [first, second, third] = await tabs(3);
  first.crash();
  third.gateway.selectChat("c3");
  await calm();
  FakeSocket.last.ready(RESUMED);
  await calm();
  assert.deepEqual([FakeSocket.last.sent, browser.leaders], [[select("c3")], [second]]);
});

test("a final close is told to every tab, and each may begin again for all", async () => {
  const [first, second, third] = await tabs(3);
  FakeSocket.last.ends(4402, "session-replaced");
  await calm(60_000);
  for (const tab of [first, second, third]) assert.deepEqual([tab.gateway.state, tab.of("close").map(({ code }) => code)], ["closed", [4402]]);
  // Nobody takes a session back by taking over.
  first.crash();
  await calm(60_000);
  assert.equal(FakeSocket.all.length, 1);
  third.gateway.connect();
  await calm();
  assert.deepEqual([FakeSocket.all.length, browser.leaders], [2, [second]]);
  FakeSocket.last.ready(RESUMED);
  await calm();
  assert.deepEqual([second.gateway.state, third.gateway.state], ["ready", "ready"]);
});

test("connect() in any tab means now, and leaves an open session alone", async () => {
  const [, second] = await tabs(2);
  second.gateway.connect();
  await calm();
  assert.deepEqual([FakeSocket.all.length, FakeSocket.last.sent], [1, [{ type: "ready" }]]);
  for (let n = 0; n < 6; n++) {
    FakeSocket.last.ends(1006);
    await calm(n < 5 ? 30_000 : 0);
  }
  assert.equal(second.gateway.state, "waiting");
  const tries = FakeSocket.all.length;
  second.gateway.connect();
  await calm();
  assert.equal(FakeSocket.all.length, tries + 1);
});

test("a tab that leaves hears nothing more, and the session ends with the last one", async () => {
  const [first, second] = await tabs(2);
  second.gateway.close();
  FakeSocket.last.event(41, { safe: 41 });
  await calm(40);
  assert.deepEqual([first.seqs, second.seqs, second.gateway.state], [[41], [], "closed"]);
  first.gateway.close();
  await calm();
  assert.deepEqual([FakeSocket.open, signs.listeners()], [[], 0]);
  // And comes back as a tab that has been there.
  second.gateway.connect();
  await calm();
  FakeSocket.last.ready(RESUMED);
  assert.equal(second.of("ready")[1].reconnected, true);
});

test("a tab that is put aside lets the next one have the socket, and loads its state anew when it is shown", async () => {
  const [first, second] = await tabs(2);
  // The signs are those of all tabs here: the second is told nothing of it.
  signs.window.tell("pagehide", { persisted: true });
  assert.deepEqual([first.gateway.leads, first.gateway.state, FakeSocket.open], [false, "connecting", []]);
  signs.window.tell("pageshow", { persisted: true });
  await calm();
  FakeSocket.last.ready(RESUMED);
  await calm();
  for (const tab of [first, second]) assert.equal(tab.of("ready")[1].reconnected, true);
  assert.equal(browser.leaders.length, 1);
});

test("a move is nobody's business, and a laptop that slept ten minutes misses nothing", async () => {
  const all = await tabs(3);
  FakeSocket.last.says(MOVE);
  await settle();
  FakeSocket.last.ready(RESUMED);
  FakeSocket.last.event(41, { safe: 41 });
  await calm(600_000);
  FakeSocket.last.ready({ ...RESUMED, safe: 41 });
  FakeSocket.last.event(42, { safe: 42, replayed: true });
  await calm(40);
  for (const tab of all) assert.deepEqual(tab.seqs, [41, 42]);
});

test("without Web Locks each tab has a socket of its own", async () => {
  for (const lacks of [{ locks: null }, { BroadcastChannel: null }]) {
    reset();
    browser = new Browser();
    const both = [browser.open(lacks), browser.open(lacks)];
    await settle();
    assert.equal(FakeSocket.all.length, 2);
    for (const socket of FakeSocket.all) {
      socket.ready(READY);
      socket.event(41, { safe: 41 });
    }
    await advance(40);
    for (const tab of both) assert.deepEqual([tab.gateway.state, tab.seqs], ["ready", [41]]);
  }
});

test("tabs of other names share nothing, and one whose url is a function needs a name", () => {
  assert.throws(() => new SharedGateway({ url: () => "", apiKey: "k", token: "t" }), TypeError);
  assert.ok(new SharedGateway({ url: () => "", apiKey: "k", token: "t", name: "sari" }));
});

test("a signal takes its tab out of the session", async () => {
  const control = new AbortController();
  const [first] = await tabs(1);
  const second = browser.open({ signal: control.signal });
  await calm();
  control.abort();
  assert.deepEqual([second.gateway.state, first.gateway.state], ["closed", "ready"]);
  second.gateway.connect();
  assert.equal(second.gateway.state, "closed");
});

// ---- whatever happens, in any order

async function run(seed) {
  const draw = draws(seed);
  const pick = (list) => list[Math.floor(draw() * list.length)];
  reset();
  browser = new Browser();
  const gateway = new Gateway(draw);
  const more = { random: draw, minDelay: 100, maxDelay: 1000, connectTimeout: 6000 };
  const open = () => {
    const tab = browser.open(more);
    // Who could not resume says so, and the page loads its state: a tab that had heard of no cursor yet when it got the socket.
    tab.gateway.addEventListener("ready", ({ detail }) => {
      if (!detail.resumed || tab.since === undefined) tab.since = gateway.last;
    });
  };
  const undecided = () => FakeSocket.all.filter((socket) => socket.readyState === 0 && !gateway.connections.has(socket));
  const attached = () => FakeSocket.all.filter((socket) => socket.readyState < 2 || !gateway.idle(socket));
  const act = {
    publish: () => gateway.publish(),
    deliver: () => {
      const socket = pick(FakeSocket.all);
      const seq = socket && pick(gateway.parked(socket));
      if (seq) gateway.deliver(socket, seq);
    },
    pump: () => attached().length && gateway.pump(pick(attached())),
    hand: () => browser.deliver(pick),
    admit: () => undecided().length && gateway.admit(pick(undecided())),
    refuse: () => draw() < 0.3 && undecided().length && gateway.refuse(pick(undecided())),
    move: () => gateway.move(),
    cut: () => draw() < 0.1 && FakeSocket.open.length && gateway.cut(pick(FakeSocket.open)),
    crash: () => draw() < 0.3 && browser.alive.length > 1 && pick([...browser.leaders, ...browser.alive]).crash((socket) => gateway.cut(socket)),
    leave: () => draw() < 0.1 && browser.alive.length > 1 && pick(browser.alive).gateway.close(),
    open: () => browser.alive.length < 5 && open(),
    wait: () => advance(Math.floor(draw() * 300), breathe),
  };
  const often = ["publish", "publish", "deliver", "pump", "pump", "pump", "pump", "hand", "hand", "hand", "hand", "hand", "hand", "admit", "admit", "move"];
  const names = [...often, ...often, "wait", ...Object.keys(act)];
  open();
  await breathe();
  for (let step = 0; step < 300; step++) {
    await act[pick(names)]();
    await breathe();
    for (const tab of browser.alive.filter((one) => one.gateway.state === "closed")) tab.dead = true;
    assert.ok(browser.leaders.length <= 1);
  }
  if (!browser.alive.length) open();
  for (let quiet = 0; quiet < 60; quiet++) {
    for (const socket of FakeSocket.all) {
      if (!gateway.connections.has(socket) && socket.readyState === 0) gateway.admit(socket);
      for (const seq of gateway.parked(socket)) gateway.deliver(socket, seq);
      do gateway.pump(socket); while (!gateway.idle(socket));
    }
    browser.flush();
    await breathe();
    await advance(200, breathe);
  }
  assert.deepEqual([browser.leaders.length, FakeSocket.open], [1, [gateway.holder]]);
  let events = 0;
  let takeovers = 0;
  let anew = 0;
  for (const tab of browser.tabs) {
    const who = `tab ${browser.tabs.indexOf(tab)}`;
    const { seqs } = tab;
    assert.equal(new Set(seqs).size, seqs.length, `${who} doubles: ${seqs}`);
    if (tab.dead) continue;
    assert.equal(tab.gateway.state, "ready", who);
    const missing = Array.from({ length: gateway.last - tab.since }, (_, n) => tab.since + 1 + n).filter((seq) => !seqs.includes(seq));
    assert.deepEqual(missing, [], `${who}, ready at ${tab.since} of ${gateway.last}, misses`);
    anew += tab.of("ready").filter(({ resumed, reconnected }) => !resumed && reconnected).length;
    events += seqs.length;
    takeovers += tab.of("ready").length - 1;
  }
  return { events, takeovers, anew };
}

test("no tab misses or doubles an event, whatever tabs, sockets and messages do", async () => {
  const { SEED, SEEDS = 150 } = process.env;
  const total = { events: 0, takeovers: 0, anew: 0 };
  for (const seed of SEED ? [Number(SEED)] : Array.from({ length: Number(SEEDS) }, (_, n) => n + 1)) {
    try {
      const counts = await run(seed);
      for (const name of Object.keys(total)) total[name] += counts[name];
    } catch (error) {
      error.message = `SEED=${seed}: ${error.message}`;
      throw error;
    }
  }
  if (!SEED) assert.ok(total.events > 20 * Number(SEEDS) && total.takeovers > Number(SEEDS) / 3 && total.anew < total.takeovers / 5, JSON.stringify(total));
});
