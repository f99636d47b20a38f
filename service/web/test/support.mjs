// A clock and a WebSocket that the tests move by hand. Works from Node 18 on, which has neither CustomEvent nor fake timers.
import { setMaxListeners } from "node:events";

globalThis.CustomEvent ??= class CustomEvent extends Event {
  constructor(type, { detail }) {
    super(type);
    this.detail = detail;
  }
};

/** The client under test: CLIENT=client.min.js runs the same tests on the minified one. */
export const module = await import(new URL(`../${process.env.CLIENT ?? "client.js"}`, import.meta.url));

const real = { setTimeout: globalThis.setTimeout };
let now = 0;
let timers = [];
let next = 1;

/** Puts the fake clock in place, at zero, without timers. They run at multiples of `every`, as in a tab that nobody sees. */
export function reset({ every = 1 } = {}) {
  now = 0;
  timers = [];
  FakeSocket.all = [];
  page();
  Date.now = () => now;
  globalThis.setTimeout = (action, delay = 0) => {
    timers.push({ id: next, at: Math.ceil((now + delay) / every) * every, action });
    return next++;
  };
  globalThis.clearTimeout = (id) => {
    timers = timers.filter((timer) => timer.id !== id);
  };
}

/** Something that a page listens to; counts who does. */
class Source extends EventTarget {
  #heard = 0;
  get listeners() {
    return this.#heard;
  }
  addEventListener(name, heard, options) {
    this.#heard++;
    setMaxListeners(0, options.signal);
    options.signal.addEventListener("abort", () => { this.#heard--; });
    super.addEventListener(name, heard, options);
  }
  tell(name, about = {}) {
    this.dispatchEvent(Object.assign(new Event(name), about));
  }
}

/** The page's window, document and network, as far as the client listens to them. */
export const signs = {
  listeners: () => signs.window.listeners + signs.document.listeners + signs.connection.listeners,
};

function page() {
  Object.assign(signs, { window: new Source(), document: new Source(), connection: new Source() });
  signs.document.hidden = false;
  globalThis.document = signs.document;
  globalThis.addEventListener = (...listening) => signs.window.addEventListener(...listening);
  Object.defineProperty(globalThis, "navigator", { value: { connection: signs.connection }, configurable: true });
}

/** The machine sleeps: the clock goes on, and no timer runs until it wakes. */
export function sleep(ms) {
  now += ms;
}

/** How many timers wait. */
export const waiting = () => timers.length;

/** Lets everything run that waits for nothing. */
export const settle = () => new Promise((done) => real.setTimeout(done, 1));

/** Moves the clock, timer by timer; after each `pause` lets run what waits for nothing. */
export async function advance(ms, pause = settle) {
  const until = now + ms;
  await pause();
  for (;;) {
    const due = timers.filter((timer) => timer.at <= until).sort((a, b) => a.at - b.at || a.id - b.id)[0];
    if (!due) break;
    now = Math.max(now, due.at);
    timers = timers.filter((timer) => timer !== due);
    due.action();
    await pause();
  }
  now = until;
}

export class FakeSocket {
  static all = [];
  static get last() {
    return FakeSocket.all.at(-1);
  }
  /** Those that neither side has closed. */
  static get open() {
    return FakeSocket.all.filter((socket) => socket.readyState < 2);
  }
  readyState = 0;
  sent = [];
  constructor(url, protocols) {
    Object.assign(this, { url, protocols, at: now });
    FakeSocket.all.push(this);
  }
  send(text) {
    this.sent.push(JSON.parse(text));
  }
  close(code) {
    if (this.readyState > 1) return;
    this.closedWith = code;
    this.readyState = 2;
  }
  // What the server does.
  ready(payload = { pod_id: "p1" }) {
    this.readyState = 1;
    this.onopen?.();
    this.says({ type: "ready", payload });
  }
  says(frame) {
    this.onmessage?.({ data: typeof frame === "string" ? frame : JSON.stringify(frame) });
  }
  event(seq, beside = {}) {
    this.says({ type: "event", seq, ...beside, payload: { n: seq } });
  }
  ends(code, reason = "") {
    this.readyState = 3;
    this.onclose?.({ code, reason });
  }
}

/** A client on fake sockets, and the log of all it said. `random: 1` makes every wait the longest it may be. */
export async function client(options = {}) {
  const log = [];
  const probes = [];
  const made = new module.GatewayClient({
    url: "wss://desk.test/ws/acme/agent-7",
    apiKey: "key",
    token: "token",
    WebSocket: FakeSocket,
    random: () => 1,
    fetch: async (url) => {
      probes.push(url);
      return { ok: true, headers: new Map() };
    },
    ...options,
  });
  for (const type of ["state", "ready", "event", "gap", "chat", "error", "close"]) {
    made.addEventListener(type, ({ detail }) => log.push([type, detail]));
  }
  made.connect();
  await settle();
  const of = (type) => log.filter(([name]) => name === type).map(([, detail]) => detail);
  return { client: made, log, of, probes, seqs: () => of("event").map((event) => event.seq) };
}
