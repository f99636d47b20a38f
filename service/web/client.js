/**
 * The browser client of the gateway: one ES module, no dependency.
 *
 * It keeps one session open: asks for a fresh token before every attempt, backs off with jitter, goes on in the stream where it
 * was, remembers the selected chat, drops duplicates, puts events in the order of the stream, tells of gaps, and notices a
 * connection that has gone silent. Guarantees and close codes: docs/protocol.md.
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
  #socket = null;
  #timers = {};
  #failures = 0;
  #attempt = 0;
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
    if (this.state === "ready") {
      this.#send("select_chat", { chat_id: chat });
    }
  }

  async #open() {
    const attempt = ++this.#attempt;
    this.#become("connecting");
    const { url, apiKey, token, protocols, connectTimeout, storage, user } = this.#options;
    this.#after("connect", connectTimeout, () => this.#lost(attempt, 4000, "connect-timeout"));
    let socket;
    let health;
    try {
      const target = new URL(typeof url === "function" ? await url() : url);
      // A URL is written down by proxies, servers and histories; sub-protocols by none of them.
      const secrets = [`key.${btoa(apiKey)}`, `token.${typeof token === "function" ? await token() : token}`];
      if (attempt !== this.#attempt) {
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
      if (this.#stream) {
        query.set("resume", this.#cursor());
      }
      // One that no gateway has confirmed goes with the first attempt only: it may be why that was refused. Selected after `ready`
      // it costs an error.
      if (this.chat && (this.chat === this.#sure || !this.#failures)) {
        query.set("chat", this.chat);
      }
      socket = new (this.#options.WebSocket || WebSocket)(target.href,
        [protocols || "json.v1"].flat().concat(secrets.map((text) => `dws.${text.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`)));
      target.search = "";
      target.protocol = target.protocol === "wss:" ? "https:" : "http:";
      health = new URL("/ready", target).href;
    } catch (error) {
      if (attempt === this.#attempt) {
        this.#emit("error", { code: "ConnectFailed", message: String(error?.message || error) });
        this.#lost(attempt, error?.final ? 4403 : 4000, "no-token");
      }
      return;
    }
    this.#socket = socket;
    let opened = false;
    socket.onopen = () => {
      opened = true;
    };
    socket.onmessage = (message) => {
      if (attempt === this.#attempt) {
        this.#heard(attempt);
        this.#take(message.data);
      }
    };
    socket.onclose = async (closed) => {
      if (attempt !== this.#attempt) {
        return;
      }
      // A refused handshake shows a browser neither status nor headers: /ready tells whether, and for how long, to stay away.
      const retryAfter = opened && closed.code !== 1013 ? 0 : await this.#probe(health);
      this.#lost(attempt, closed.code, closed.reason, retryAfter);
    };
  }

  async #probe(ready) {
    try {
      const abort = new AbortController();
      const timer = setTimeout(() => abort.abort(), 3000);
      const answer = await (this.#options.fetch || fetch)(ready, { cache: "no-store", signal: abort.signal });
      clearTimeout(timer);
      const seconds = answer.ok ? 0 : Number(answer.headers.get("retry-after"));
      return seconds > 0 ? Math.min(seconds * 1000, MAX_RETRY_AFTER) : 0;
    } catch {
      return 0;
    }
  }

  #take(text) {
    let frame;
    try {
      frame = JSON.parse(text);
    } catch {
      return;
    }
    const { type, payload } = frame;
    if (type === "event") {
      this.#event(text, frame);
    } else if (type === "gap") {
      this.#release();
      this.#emit("gap", payload);
    } else if (type === "error") {
      this.#emit("error", payload);
    } else if (type === "chat_selected") {
      this.#sure = payload.chat_id;
      this.#emit("chat", payload);
    } else if (type === "ready") {
      this.#place(payload || {});
      if (this.state !== "ready") {
        this.#ready(payload || {});
      }
    }
  }

  #ready(payload) {
    clearTimeout(this.#timers.connect);
    const reconnected = this.#readyBefore;
    this.#readyBefore = true;
    this.#after("stable", this.#options.stableAfter, () => {
      this.#failures = 0;
      if (!this.#stream) {
        // A pod that has just begun knows no place yet when it says `ready`.
        this.#send("ready");
      }
    });
    this.#become("ready");
    const chat = this.#sure = payload.chat_id || null;
    if (this.chat && this.chat !== chat) {
      this.#send("select_chat", { chat_id: this.chat });
    } else {
      this.chat = chat;
    }
    this.#emit("ready", { ...payload, pod: payload.pod_id, chat: this.chat, reconnected, lastSeq: this.lastSeq });
  }

  /** Takes in where the gateway says that this session stands. */
  #place({ stream, safe, reason }) {
    const doubts = this.#doubts;
    this.#doubts = [];
    if (stream !== this.#stream && (stream || doubts.length) || reason === "stream_changed") {
      if (this.#stream) {
        // Made anew, so it counts from one again.
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

  #reach(safe) {
    if (safe > this.#safe) {
      this.#safe = safe;
      this.#seen.forEach((seq) => seq <= safe && this.#seen.delete(seq));
    }
  }

  #cursor() {
    return this.#stream + ":" + this.#safe;
  }

  #event(text, frame) {
    const { seq } = frame;
    const seen = this.#seen;
    if (seq <= this.#safe) {
      // Taken before, or the first of a stream that was made anew: only the gateway knows.
      if (this.#doubts.push([text, frame]) === 1) {
        this.#send("ready");
      }
      return;
    }
    const event = { ...frame, text, late: false };
    if (seq === undefined) {
      this.#release();
      this.#emit("event", event);
      return;
    }
    const known = seen.has(seq);
    seen.add(seq);
    if (seen.size > REMEMBERED) {
      seen.delete(seen.values().next().value);
    }
    this.#reach(frame.safe);
    if (known) {
      return;
    }
    let place = this.#held.length;
    while (place > 0 && this.#held[place - 1].seq > seq) {
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

  #heard(attempt) {
    clearTimeout(this.#timers.answer);
    this.#after("idle", this.#options.idle, () => {
      this.#send("ready");
      this.#after("answer", this.#options.answerTimeout, () => this.#lost(attempt, 4000, "silent"));
    });
  }

  #send(type, payload) {
    if (this.#socket?.readyState === 1) {
      this.#socket.send(JSON.stringify({ type, payload }));
    }
  }

  #lost(attempt, code, reason, retryAfter = 0) {
    if (attempt !== this.#attempt) {
      return;
    }
    this.#leave(4000);
    if (FINAL.includes(code)) {
      this.#end({ code, reason, final: true, retryIn: null });
      return;
    }
    const { minDelay, maxDelay, random } = this.#options;
    const roll = (random || Math.random)();
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
    this.#attempt++;
    Object.values(this.#timers).forEach(clearTimeout);
    this.#release();
    const socket = this.#socket;
    this.#socket = null;
    if (socket) {
      // It may take minutes to say goodbye over a dead connection: nobody listens any more.
      socket.onopen = socket.onmessage = socket.onclose = null;
      if (socket.readyState < 2) {
        socket.close(code);
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
    this.state = state;
    this.#emit("state", { state });
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
