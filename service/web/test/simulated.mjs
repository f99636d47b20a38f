// A gateway as its sockets see it, and chance from a seed, for tests that draw what happens.

/** Numbers from 0 to 1 (mulberry32). */
export function draws(seed) {
  return () => {
    seed = (seed + 0x6d2b79f5) | 0;
    let t = Math.imul(seed ^ (seed >>> 15), 1 | seed);
    t = (t + Math.imul(t ^ (t >>> 7), 61 | t)) ^ t;
    return ((t ^ (t >>> 14)) >>> 0) / 4294967296;
  };
}

/** Lets promises run, without a timer. */
export async function breathe() {
  for (let n = 0; n < 12; n++) await null;
}

/** A gateway, as seen from its sockets: one stream, one session, and one connection that has it. */
export class Gateway {
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
