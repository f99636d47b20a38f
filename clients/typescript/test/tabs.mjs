// A browser with tabs: locks and channels that the tests move by hand, and tabs that crash.
import { SharedGateway } from "../dist/shared.js";
import { FakeSocket } from "../../../service/web/test/support.mjs";

/** Web Locks and BroadcastChannel of one browser. Messages of one tab to another keep their order; those of two tabs have none. */
export class Browser {
  tabs = [];
  #queue = [];
  #held = null;
  /** What is under way: for each pair of channels what waits, oldest first. */
  #pipes = new Map();

  /** Opens a tab; `more` are options of its session. */
  open(more = {}) {
    const tab = new Tab(this, more);
    this.tabs.push(tab);
    return tab;
  }
  get alive() {
    return this.tabs.filter((tab) => !tab.dead);
  }
  get leaders() {
    return this.alive.filter((tab) => tab.gateway.leads);
  }

  request(tab, signal, action) {
    return new Promise((done, fail) => {
      const turn = { tab, action, done };
      signal.addEventListener("abort", () => {
        const at = this.#queue.indexOf(turn);
        if (at >= 0) {
          this.#queue.splice(at, 1);
          fail(signal.reason);
        }
      });
      this.#queue.push(turn);
      this.#grant();
    });
  }
  async #grant() {
    await null;
    if (this.#held || !this.#queue.length) return;
    const turn = this.#held = this.#queue.shift();
    turn.action().then(() => this.#free(turn, turn.done));
  }
  #free(turn, done) {
    if (this.#held !== turn) return;
    this.#held = null;
    done?.();
    this.#grant();
  }
  crash(tab) {
    this.#queue = this.#queue.filter((turn) => turn.tab !== tab);
    if (this.#held?.tab === tab) this.#free(this.#held);
  }

  post(from, message) {
    for (const tab of this.alive) {
      if (tab === from || !tab.channel) continue;
      const key = `${this.tabs.indexOf(from)}>${this.tabs.indexOf(tab)}`;
      if (!this.#pipes.has(key)) this.#pipes.set(key, []);
      this.#pipes.get(key).push([tab.channel, tab, structuredClone(message)]);
    }
  }
  /** Delivers one message, of the pipe that `pick` chooses; whether there was one. */
  deliver(pick = (list) => list[0]) {
    const full = [...this.#pipes].filter(([, pipe]) => pipe.length);
    if (!full.length) return false;
    const [channel, tab, message] = pick(full)[1].shift();
    if (!tab.dead && tab.channel === channel) channel.onmessage?.({ data: message });
    return true;
  }
  flush() {
    while (this.deliver());
  }
}

class Tab {
  dead = false;
  channel = null;
  sockets = [];
  log = [];

  constructor(browser, more) {
    const tab = this;
    this.browser = browser;
    this.gateway = new SharedGateway({
      url: "wss://desk.test/ws/acme/a1",
      user: "sari",
      apiKey: "key",
      token: () => "token",
      random: () => 1,
      fetch: async () => ({ headers: new Map() }),
      WebSocket: class extends FakeSocket {
        constructor(...given) {
          if (tab.dead) throw new Error("no such tab");
          super(...given);
          tab.sockets.push(this);
        }
      },
      locks: { request: (_, { signal }, action) => browser.request(tab, signal, action) },
      BroadcastChannel: class {
        onmessage = null;
        constructor() {
          tab.channel = this;
        }
        postMessage(message) {
          if (!tab.dead) browser.post(tab, message);
        }
        close() {
          if (tab.channel === this) tab.channel = null;
        }
      },
      ...more,
    });
    for (const type of ["state", "ready", "event", "gap", "chat", "error", "close"]) {
      this.gateway.addEventListener(type, ({ detail }) => this.dead || this.log.push([type, detail]));
    }
    this.gateway.connect();
  }
  of(type) {
    return this.log.filter(([name]) => name === type).map(([, detail]) => detail);
  }
  get seqs() {
    return this.of("event").map(({ seq }) => seq);
  }
  /** Gone from one moment to the next; \`cut\` is what the gateway sees of it. */
  crash(cut = () => {}) {
    this.dead = true;
    for (const socket of this.sockets.filter(({ readyState }) => readyState < 2)) {
      cut(socket);
      socket.onmessage = socket.onclose = socket.onopen = null;
      socket.closedWith = 1006;
      socket.readyState = 3;
    }
    this.browser.crash(this);
  }
}
