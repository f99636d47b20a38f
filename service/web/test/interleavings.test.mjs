// Moves at any moment, under any interleaving of what two sockets bring, of refusals, losses and pauses: each event reaches the
// page once. Everything is drawn from a seed; SEEDS is how many (150), SEED runs one alone.
import assert from "node:assert/strict";
import { test } from "node:test";
import { FakeSocket, advance, client, reset, waiting } from "./support.mjs";

const { SEED, SEEDS = 150 } = process.env;
const STEPS = 250;

/** Numbers from 0 to 1 (mulberry32). */
function draws(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Lets promises run, without a timer. */
async function breathe() {
  for (let n = 0; n < 12; n++) await null;
}

/** A gateway, as seen from its sockets: one stream, one session, and one connection that has it. */
class Gateway {
  #draw;
  last = 0;
  /** How many sockets the client had the `ready` of. */
  heard = 0;
  holder = null;
  connections = new Map();

  constructor(draw) {
    this.#draw = draw;
  }

  /** What the server has yet to say to each socket, oldest first, and what it knows about it. */
  #of(socket) {
    if (!this.connections.has(socket)) this.connections.set(socket, { pipe: [], parked: [], safe: 0, live: false, read: 0 });
    return this.connections.get(socket);
  }

  /** Everything up to it was put in this pipe before, and sometimes it lags. */
  #safe(connection) {
    const ahead = Math.min(this.last, ...connection.parked.map((seq) => seq - 1)) - connection.safe;
    if (this.#draw() < 0.5 && ahead > 0) connection.safe += Math.floor(this.#draw() * (ahead + 1));
    return connection.safe;
  }

  admit(socket) {
    const connection = this.#of(socket);
    const [stream, cursor] = new URL(socket.url).searchParams.get("resume")?.split(":") ?? [];
    const from = stream ? Number(cursor) : this.last;
    connection.safe = from;
    connection.pipe.push(() => {
      socket.readyState = 1;
      socket.onopen?.();
    });
    const place = { pod_id: "p", stream: "s1", safe: from, ...(stream && { resumed: true, replayed: this.last - from }) };
    connection.pipe.push(() => {
      this.heard += Boolean(socket.onmessage);
      socket.says({ type: "ready", payload: place });
    });
    for (let seq = from + 1; seq <= this.last; seq++) {
      connection.safe = seq;
      connection.pipe.push(() => socket.event(seq, { safe: seq, replayed: true }));
    }
    connection.live = true;
    if (this.holder) this.#close(this.holder, 1001, "moved");
    this.holder = socket;
  }

  #close(socket, code, reason) {
    const connection = this.#of(socket);
    connection.live = false;
    // What waited for the old one is in the replay of the new one.
    connection.parked = [];
    connection.pipe.push(() => socket.ends(code, reason));
    if (this.holder === socket) this.holder = null;
  }

  refuse(socket) {
    this.#of(socket).pipe.push(() => socket.ends(1006));
  }

  /** The cable: what is in the pipe is gone. */
  cut(socket) {
    const connection = this.#of(socket);
    connection.live = false;
    connection.pipe = [() => socket.ends(1006)];
    if (this.holder === socket) this.holder = null;
  }

  publish() {
    const seq = ++this.last;
    for (const connection of this.connections.values()) {
      if (connection.live) connection.parked.push(seq);
    }
    for (const [socket, connection] of this.connections) {
      if (connection.live && this.#draw() < 0.8) this.deliver(socket, seq);
    }
  }

  /** Hands over what was kept back, in any order. */
  deliver(socket, seq) {
    const connection = this.#of(socket);
    if (!connection.parked.includes(seq)) return;
    const safe = this.#safe(connection);
    connection.parked = connection.parked.filter((other) => other !== seq);
    connection.pipe.push(() => socket.event(seq, { safe }));
  }

  move() {
    const { holder } = this;
    if (holder) this.#of(holder).pipe.push(() => holder.says({ type: "move", payload: { within_ms: 15000, reason: "drain" } }));
  }

  /** The next frame of one socket arrives, unless the client has gone; and the client's questions are answered. */
  pump(socket) {
    const connection = this.#of(socket);
    if (socket.closedWith !== undefined) {
      connection.live = false;
      connection.pipe = [];
      if (this.holder === socket) this.holder = null;
      return;
    }
    connection.pipe.shift()?.();
    for (; connection.read < socket.sent.length; connection.read++) {
      const safe = this.#safe(connection);
      if (connection.live) connection.pipe.push(() => socket.says({ type: "ready", payload: { stream: "s1", safe } }));
    }
  }

  idle(socket) {
    return !this.#of(socket).pipe.length && !this.#of(socket).parked.length;
  }
  parked(socket) {
    return this.#of(socket).parked;
  }
}

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
