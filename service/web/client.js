/**
 * The browser client of the gateway: one ES module, no dependency.
 *
 * It keeps one session open: asks for a fresh token before every attempt, backs off with jitter, goes on in the stream where it
 * was, remembers the selected chat, drops duplicates, puts events in the order of the stream, tells of gaps, notices a connection
 * that has gone silent, and moves to a second socket when the gateway asks for it. Guarantees and close codes: docs/protocol.md.
 *
 * Rules of this file, so that build.mjs can make client.min.js of it: statements end with a semicolon, no regular expressions, and
 * no newline or comment inside a template string.
 */

/** Close codes after which only the application may connect again: each would be refused again, or would take the session from another tab. */
const FINAL = [1000, 4400, 4401, 4402, 4403];
/** Sequences remembered above the cursor: many times what a gateway replays at once. */
const REMEMBERED = 4096;
/** Longest `Retry-After` that is obeyed, in milliseconds: a broken proxy must not silence a client for a day. */
const MAX_RETRY_AFTER = 300000;
/** First pause before another try to move, in milliseconds, half of it random; doubles. The pod met may be draining too. */
const MOVE_PAUSE = 400;
/** Longest time that the socket before is read after a move, in milliseconds: the gateway closes it when all was written. */
const LINGER = 5000;

const DEFAULTS = {
  minDelay: 500,
  maxDelay: 30000,
  stableAfter: 10000,
  connectTimeout: 15000,
  idle: 25000,
  answerTimeout: 10000,
  hold: 40,
};

export class GatewayClient extends EventTarget {
  #options;
  // Attempts: `ws` is the socket once there is one, `on` says that it was `ready`, `gone` that nobody listens to it any more.
  // At most two are not gone: the main one, by which messages go, and either the next, which is on its way, or the old one,
  // still read.
  #main = {};
  #next = null;
  #old = { gone: true };
  // While the gateway's wish to move is open: the pause before another try, and when there is none any more.
  #pause = 0;
  #until;
  #timers = {};
  #failures = 0;
  // The cursor: everything up to `safe` in this stream was taken, or a gap was told. Above it, the sequences that were taken.
  #stream = null;
  #safe = 0;
  #seen = new Set();
  #key;
  #kept;
  #doubts = [];
  #held = [];
  #released = 0;
  #readyBefore = false;
  #sure;

  constructor(options) {
    super();
    this.#options = { ...DEFAULTS, ...options };
    this.state = "closed";
    this.chat = options.chat || null;
    this.lastSeq = 0;
  }

  /** Opens the session, unless it is open or being opened. After a final close, this is how to begin again. */
  connect() {
    if (this.state === "closed") {
      this.#failures = 0;
      this.#open();
    }
    return this;
  }

  /** Ends the session; nothing is tried again. */
  close() {
    this.#leave(1000);
    this.#end({ code: 1000, reason: "client-closed", final: true, retryIn: null });
  }

  /** Asks for the messages of this chat in place of the one before; kept over reconnects until another is chosen. */
  selectChat(chat) {
    this.chat = chat;
    this.#send("select_chat", { chat_id: chat });
  }

  /** Makes this attempt the one that counts, and waits for its `ready`. */
  #begin(link) {
    this.#main = link;
    this.#after("connect", this.#options.connectTimeout, () => this.#lost(link, 4000, "connect-timeout"));
  }

  async #open(moving) {
    const link = {};
    const { url, apiKey, token, protocols, connectTimeout, storage, user } = this.#options;
    if (moving) {
      this.#next = link;
      this.#after("other", connectTimeout / 3, () => this.#lost(link, 4000));
    } else {
      this.#begin(link);
      this.#become("connecting");
    }
    let socket;
    let health;
    try {
      const target = new URL(typeof url === "function" ? await url() : url);
      // A URL is written down by proxies, servers and histories; sub-protocols by none of them.
      const secrets = [`key.${btoa(apiKey)}`, `token.${typeof token === "function" ? await token() : token}`];
      if (link.gone) {
        return;
      }
      this.#key = `dws:${user}@${target.host}${target.pathname}`;
      const kept = !this.#stream && storage?.getItem(this.#key);
      if (kept) {
        const [stream, safe] = kept.split(":");
        this.#stream = stream;
        this.#safe = Number(safe) || 0;
      }
      const query = target.searchParams;
      query.set("move", 1);
      if (this.#stream) {
        query.set("resume", this.#cursor());
      }
      // One that no gateway has confirmed goes with the first attempt only: it may be why that was refused. Selected after `ready`
      // it costs an error.
      const wanted = moving || this.#failures ? this.#sure : this.chat;
      if (wanted) {
        query.set("chat", wanted);
      }
      socket = link.ws = new (this.#options.WebSocket || WebSocket)(target.href,
        [protocols || "json.v1"].flat().concat(secrets.map((text) => `dws.${text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`)));
      target.search = "";
      target.protocol = target.protocol === "wss:" ? "https:" : "http:";
      health = new URL("/ready", target).href;
    } catch (error) {
      if (!link.gone) {
        const final = error?.final;
        if (final || link === this.#main) {
          this.#emit("error", { code: "ConnectFailed", message: String(error?.message || error) });
        }
        this.#lost(link, final ? 4403 : 4000, "no-token");
      }
      return;
    }
    let opened = false;
    socket.onopen = () => {
      opened = true;
    };
    socket.onmessage = (incoming) => this.#take(link, incoming.data);
    socket.onclose = async ({ code, reason }) => {
      // A refused handshake shows a browser neither status nor headers: /ready tells whether, and for how long, to stay away.
      // Where there is another socket, nobody stays away.
      const retryAfter = opened && code !== 1013 || link !== this.#main || this.#next ? 0 : await this.#probe(health);
      this.#lost(link, code, reason, retryAfter);
    };
  }

  async #probe(ready) {
    try {
      const control = new AbortController();
      const timer = setTimeout(() => control.abort(), 3000);
      const reply = await (this.#options.fetch || fetch)(ready, { cache: "no-store", signal: control.signal });
      clearTimeout(timer);
      const seconds = reply.ok ? 0 : Number(reply.headers.get("retry-after"));
      return seconds > 0 ? Math.min(seconds * 1000, MAX_RETRY_AFTER) : 0;
    } catch {
      return 0;
    }
  }

  #take(link, raw) {
    let frame;
    try {
      frame = JSON.parse(raw);
    } catch {
      return;
    }
    const kind = frame.type;
    const body = frame.payload || {};
    if (link === this.#old) {
      // It may be sooner with an event, and has no other say. Where the main one has `resumed`, that brings all after the
      // cursor it was opened with; where it has not, the page was told. So a gap here loses nothing and is not told. But then a
      // `safe` here, which may stand behind such a gap, must not count: the cursor would pass what the main one has yet to
      // bring. An event at or below the cursor has come before, and one without a number comes on the main one too, where it
      // can't be told from this.
      if (kind === "event" && frame.seq > this.#safe) {
        frame.safe = 0;
        this.#event(raw, frame);
      }
      return;
    }
    if (link === this.#next) {
      if (kind !== "ready") {
        return;
      }
      // It has the session. From here on each of its `safe` holds for this client: up to the cursor that it was opened with all
      // had come, and what is above it comes on this one, in order, whatever the one before still brings. That one's own `safe`
      // held until now: it was read all the time, and this one says nothing before its `ready`.
      this.#old = this.#main;
      this.#main = link;
      this.#next = null;
      this.#pause = 0;
      this.#after("other", LINGER, () => this.#drop(this.#old));
    }
    this.#heard();
    if (kind === "event") {
      if (frame.safe >= 0 && !this.#stream && !link.asked) {
        // The pod knows by now where the stream is.
        link.asked = true;
        this.#send("ready");
      }
      this.#event(raw, frame);
    } else if (kind === "gap") {
      this.#release();
      this.#emit("gap", body);
    } else if (kind === "error") {
      this.#emit("error", body);
    } else if (kind === "chat_selected") {
      const stale = this.#next?.ws && body.chat_id !== this.#sure;
      this.#sure = body.chat_id;
      if (stale) {
        // It asked for the chat before: messages of this one would be missed between the end of this socket and a choice on
        // that.
        this.#drop(this.#next);
        this.#open(true);
      }
      this.#emit("chat", body);
    } else if (kind === "move") {
      if (!this.#pause) {
        this.#pause = MOVE_PAUSE;
        this.#until = Date.now() + body.within_ms;
        this.#drop(this.#old);
        this.#open(true);
      }
    } else if (kind === "ready") {
      this.#place(body);
      if (!link.on && !link.gone) {
        link.on = true;
        this.#ready(body);
      }
    }
  }

  #ready(body) {
    clearTimeout(this.#timers.connect);
    // After a move that went well the page has nothing to do, and is told nothing.
    const quiet = this.state === "ready" && body.resumed;
    const again = this.#readyBefore;
    this.#readyBefore = true;
    this.#after("stable", this.#options.stableAfter, () => {
      this.#failures = 0;
      if (!this.#stream) {
        // A pod that has just begun knows no place yet when it says `ready`.
        this.#send("ready");
      }
    });
    this.#become("ready");
    // A choice that the socket before did not confirm in time is confirmed here.
    const told = this.#sure;
    const restored = this.#sure = body.chat_id || null;
    if (this.chat && (this.chat !== restored || quiet && restored !== told)) {
      this.#send("select_chat", { chat_id: this.chat });
    } else {
      this.chat = restored;
    }
    if (!quiet) {
      this.#emit("ready", { ...body, pod: body.pod_id, chat: this.chat, reconnected: again, lastSeq: this.lastSeq });
    }
  }

  /** Takes in where the gateway says that this session stands. */
  #place({ stream, safe, reason }) {
    const doubts = this.#doubts;
    this.#doubts = [];
    if (stream !== this.#stream && (stream || doubts.length) || reason === "stream_changed") {
      if (this.#stream) {
        // Made anew, so it counts from one again, and the numbers of a socket before mean nothing.
        this.#drop(this.#old);
        this.#release();
        this.#seen.clear();
        this.#safe = this.#released = this.lastSeq = 0;
      }
      this.#stream = stream;
      doubts.forEach((doubt) => this.#event(...doubt));
    }
    this.#reach(safe);
    this.#release();
  }

  #reach(mark) {
    if (mark > this.#safe) {
      this.#safe = mark;
      this.#seen.forEach((one) => one <= mark && this.#seen.delete(one));
    }
  }

  #cursor() {
    return this.#stream + ":" + this.#safe;
  }

  #event(raw, frame) {
    const number = frame.seq;
    const seen = this.#seen;
    if (number <= this.#safe) {
      // Taken before, or the first of a stream that was made anew: only the gateway knows.
      if (this.#doubts.push([raw, frame]) === 1) {
        this.#send("ready");
      }
      return;
    }
    const event = { ...frame, text: raw, late: false };
    if (number === undefined) {
      this.#release();
      this.#emit("event", event);
      return;
    }
    const known = seen.has(number);
    seen.add(number);
    if (seen.size > REMEMBERED) {
      seen.delete(seen.values().next().value);
    }
    this.#reach(frame.safe);
    if (known) {
      return;
    }
    let place = this.#held.length;
    while (place > 0 && this.#held[place - 1].seq > number) {
      place--;
    }
    this.#held.splice(place, 0, event);
    if (this.#held.length === 1) {
      this.#after("hold", this.#options.hold, () => this.#release());
    }
  }

  #release() {
    clearTimeout(this.#timers.hold);
    const events = this.#held;
    this.#held = [];
    for (const event of events) {
      event.late = event.seq < this.#released;
      this.#released = Math.max(this.#released, event.seq);
      this.lastSeq = this.#released;
      this.#emit("event", event);
    }
    // Only now: a page that goes away sooner has not seen them.
    const cursor = this.#cursor();
    if (this.#stream && cursor !== this.#kept) {
      this.#kept = cursor;
      try {
        this.#options.storage?.setItem(this.#key, cursor);
      } catch {
        // Full, or not allowed: then the page is without it after its next load.
      }
    }
  }

  #heard() {
    clearTimeout(this.#timers.answer);
    this.#after("idle", this.#options.idle, () => {
      this.#send("ready");
      this.#after("answer", this.#options.answerTimeout, () => this.#lost(this.#main, 4000, "silent"));
    });
  }

  #send(type, payload) {
    const { ws, on } = this.#main;
    if (on && ws.readyState === 1) {
      ws.send(JSON.stringify({ type, payload }));
    }
  }

  #lost(link, code, reason, retryAfter = 0) {
    if (link.gone) {
      return;
    }
    const ends = FINAL.includes(code);
    const second = this.#next;
    const { minDelay, maxDelay, random } = this.#options;
    const roll = (random || Math.random)();
    if (link === this.#old || link === second && !ends) {
      this.#drop(link);
      if (link === second) {
        this.#next = null;
        const wait = this.#pause * (0.5 + roll / 2);
        this.#pause *= 2;
        if (Date.now() + wait < this.#until) {
          this.#after("retry", wait, () => this.#open(true));
        } else {
          this.#pause = 0;
        }
      }
      return;
    }
    // Whoever is given these may close all.
    this.#release();
    if (link.gone) {
      return;
    }
    if (link !== second && second && (!ends || code === 4402)) {
      // The attempt under way goes on as the only one. Where the gateway has ended this one, the page need not know: that one
      // has the session already, or is about to.
      this.#next = null;
      this.#leave(4000);
      this.#begin(second);
      if (code !== 1001 && code !== 4402) {
        this.#become("connecting");
      }
      return;
    }
    this.#leave(4000);
    if (ends) {
      this.#end({ code, reason, final: true, retryIn: null });
      return;
    }
    // 4429 says "slower", so its first wait is long; everybody gets a random part, or a fleet's clients would come back as one.
    const step = Math.min(maxDelay, minDelay * 2 ** Math.min(this.#failures + (code === 4429 ? 4 : 0), 20));
    this.#failures++;
    const retryIn = Math.round(retryAfter ? Math.max(retryAfter, step) * (1 + roll / 4) : step * (0.5 + roll / 2));
    this.#become("waiting");
    this.#emit("close", { code, reason, final: false, retryIn });
    if (this.state === "waiting") {
      this.#after("retry", retryIn, () => this.#open());
    }
  }

  #leave(code) {
    [this.#main, this.#next || {}, this.#old].forEach((link) => this.#drop(link, code));
    this.#next = null;
    this.#pause = 0;
    Object.values(this.#timers).forEach(clearTimeout);
    this.#release();
  }

  #drop(link, code = 4000) {
    const { ws, gone } = link;
    if (gone) {
      return;
    }
    link.gone = true;
    clearTimeout(this.#timers.other);
    if (ws) {
      // It may take minutes to say goodbye over a dead connection: nobody listens any more.
      ws.onopen = ws.onmessage = ws.onclose = null;
      if (ws.readyState < 2) {
        ws.close(code);
      }
    }
  }

  #end(detail) {
    if (this.state !== "closed") {
      this.#become("closed");
      this.#emit("close", detail);
    }
  }

  #become(state) {
    if (state !== this.state) {
      this.state = state;
      this.#emit("state", { state });
    }
  }

  #after(name, delay, action) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(action, delay);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** Makes a client and opens its session. */
export function connect(options) {
  return new GatewayClient(options).connect();
}
