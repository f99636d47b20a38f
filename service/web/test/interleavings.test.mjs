// Moves at any moment, under any interleaving of what two sockets bring, of refusals, losses and pauses: each event reaches the
// page once. Everything is drawn from a seed; SEEDS is how many (150), SEED runs one alone.
import assert from "node:assert/strict";
import { test } from "node:test";
import { Gateway, breathe, draws } from "./simulated.mjs";
import { FakeSocket, advance, client, reset, waiting } from "./support.mjs";

const { SEED, SEEDS = 150 } = process.env;
const STEPS = 250;

async function run(seed) {
  const draw = draws(seed);
  const pick = (list) => list[Math.floor(draw() * list.length)];
  reset();
  const gateway = new Gateway(draw);
  const tokens = [];
  const { client: page, of, seqs } = await client({
    token: () => new Promise((bring, fail) => { tokens.push({ bring, fail }); }),
    random: draw,
    minDelay: 100,
    maxDelay: 1000,
    connectTimeout: 6000,
  });
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
    token: () => tokens.length && tokens.shift().bring("t"),
    refuseToken: () => tokens.length && draw() < 0.2 && tokens.shift().fail(new Error("away")),
    admit: () => undecided().length && gateway.admit(pick(undecided())),
    refuse: () => undecided().length && gateway.refuse(pick(undecided())),
    move: () => gateway.move(),
    cut: () => draw() < 0.1 && FakeSocket.open.length && gateway.cut(pick(FakeSocket.open)),
    wait: () => advance(Math.floor(draw() * 600), breathe),
  };
  const often = ["publish", "publish", "deliver", "pump", "pump", "pump", "pump", "token", "token", "admit", "admit", "move"];
  const names = [...often, ...often, "wait", ...Object.keys(act)];
  const check = (what) => {
    const open = FakeSocket.open.length;
    assert.ok(open <= 2, `${open} sockets after ${what}`);
  };
  // The first session begins at zero and is asked for nothing: from there on, everything counts.
  tokens.shift().bring("t");
  await breathe();
  gateway.admit(FakeSocket.last);
  for (const _ of [1, 2]) gateway.pump(FakeSocket.last);
  for (let step = 0; step < STEPS; step++) {
    const name = pick(names);
    await act[name]();
    await breathe();
    check(name);
  }
  // Faults end: all that is on its way arrives, whoever asks is let in.
  for (let quiet = 0; quiet < 60; quiet++) {
    for (const socket of FakeSocket.all) {
      if (!gateway.connections.has(socket) && socket.readyState === 0) gateway.admit(socket);
      for (const seq of gateway.parked(socket)) gateway.deliver(socket, seq);
      do gateway.pump(socket); while (!gateway.idle(socket));
    }
    tokens.shift()?.bring("t");
    await breathe();
    await advance(200, breathe);
    check("the end");
  }
  assert.equal(page.state, "ready");
  assert.deepEqual(seqs().sort((a, b) => a - b), Array.from({ length: gateway.last }, (_, n) => n + 1));
  assert.deepEqual(FakeSocket.open, [gateway.holder]);
  assert.ok(of("ready").every(({ resumed, reconnected }) => resumed || !reconnected));
  let highest = 0;
  for (const { seq, late } of of("event")) {
    assert.equal(late, seq < highest, `order at ${seq}`);
    highest = Math.max(highest, seq);
  }
  page.close();
  assert.deepEqual([FakeSocket.open, waiting()], [[], 0]);
  return { quiet: gateway.heard - of("ready").length, events: gateway.last };
}

test("each event is shown once, and one socket is left, whatever the interleaving", async () => {
  const seeds = SEED ? [Number(SEED)] : Array.from({ length: Number(SEEDS) }, (_, n) => n + 1);
  const total = { quiet: 0, events: 0 };
  for (const seed of seeds) {
    let counts;
    try {
      counts = await run(seed);
    } catch (error) {
      error.message = `SEED=${seed}: ${error.message}`;
      throw error;
    }
    for (const name of Object.keys(total)) total[name] += counts[name];
  }
  // Moves that the page heard nothing of, and events: enough to mean something.
  if (!SEED) assert.ok(total.quiet > seeds.length && total.events > 20 * seeds.length, JSON.stringify(total));
});
