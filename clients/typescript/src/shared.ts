import { GatewayClient } from "./client.js";
import { Ledger, isAnew } from "./ledger.js";
import type { EventDetail, GatewayEventMap, GatewayOptions, GatewayState, ReadyDetail } from "./types.js";

/** Settings of a session that all tabs of a browser share. */
export interface SharedOptions extends GatewayOptions {
  /**
   * Whose session it is: tabs with the same name share one. Needed where `url` is a function; else made of `url` and `user`. Any
   * text, but for tokens: users who take turns in one browser need different ones.
   */
  name?: string;
  /** Replacements for tests. */
  locks?: Pick<LockManager, "request"> | null;
  BroadcastChannel?: new (name: string) => Pick<BroadcastChannel, "postMessage" | "close" | "onmessage">;
}

type Type = keyof GatewayEventMap;
const TYPES: Type[] = ["state", "ready", "event", "gap", "chat", "error", "close"];

/**
 * What tabs say to each other. `term` orders the tabs that have had the socket: each takes a higher one than it has heard of. One that
 * has not heard of the one before, and whose clock was set back, is told by the first `hello` of a tab that has.
 */
type Message =
  | { kind: "told"; term: number; type: Type; detail: object; chat: string | null; session: string }
  | { kind: "cursor"; term: number; cursor: string; anew: boolean }
  | { kind: "hello"; from: string; term: number; joined: boolean }
  | { kind: "snapshot"; term: number; to: string; state: GatewayState; chat: string | null; ready: ReadyDetail | null; session: string; cursor: string | null }
  | { kind: "choose"; chat: string }
  | { kind: "connect" };

/**
 * One session for all tabs of a browser: one of them has the socket and tells the others. When it goes, the next goes on where it
 * was, so no tab misses or doubles an event. Where the browser has no Web Locks, each tab has a session of its own, as without this.
 */
export class SharedGateway<Payload = Record<string, unknown>> extends EventTarget {
  readonly state: GatewayState = "closed";
  readonly chat: string | null;
  /** Highest sequence that this tab has shown, 0 if none. */
  readonly lastSeq: number = 0;
  readonly #options: SharedOptions;
  readonly #name: string;
  readonly #id = Array.from({ length: 4 }, () => Math.random().toString(36).slice(2, 8)).join("");
  readonly #ledger = new Ledger();
  /** Ends what this tab does for the session: waiting for its turn, and listening. */
  #life: AbortController | null = null;
  #channel: InstanceType<NonNullable<SharedOptions["BroadcastChannel"]>> | null = null;
  /** The client of the tab that has the socket. */
  #client: GatewayClient | null = null;
  #release: (() => void) | null = null;
  #term = 0;
  #joined = false;
  #before = false;
  /** The last `ready`, for tabs that come later, and the chat in force. */
  #ready: ReadyDetail | null = null;
  /** Which `ready` that was, so that none is shown twice. */
  #session = "";
  #inForce: string | null = null;
  /** A chat that was chosen here and that nobody has confirmed or overruled. */
  #wish: string | null;

  constructor(options: SharedOptions) {
    super();
    if (!options.name && typeof options.url === "function") {
      throw new TypeError("a shared session whose url is a function needs a name");
    }
    this.#options = options;
    this.#name = "dws:" + (options.name ?? `${options.user}@${options.url}`);
    this.chat = this.#wish = options.chat ?? null;
    options.signal?.addEventListener("abort", () => this.close(), { once: true });
  }

  /** Does this tab have the socket? */
  get leads(): boolean {
    return this.#client !== null;
  }

  /** Joins the session, and opens it where no tab has it open; after a final close, opens it again for all. */
  connect(): this {
    if (this.#options.signal?.aborted) {
      return this;
    }
    if (!this.#life) {
      this.#join();
    } else if (this.#client) {
      this.#client.connect();
    } else {
      this.#post({ kind: "connect" });
    }
    return this;
  }

  /** Leaves the session; it ends when no tab is left. */
  close(): void {
    if (this.#life) {
      this.#leave();
    }
    if (this.state !== "closed") {
      this.#become("closed");
      this.#emit("close", { code: 1000, reason: "client-closed", final: true, retryIn: null });
    }
  }

  /** Asks for the messages of this chat, for all tabs: a session has one chat, and who asked last has it. */
  selectChat(chat: string): void {
    this.#wish = chat;
    this.#set({ chat });
    if (this.#client) {
      this.#client.selectChat(chat);
    } else {
      this.#post({ kind: "choose", chat });
    }
  }

  #join(): void {
    const life = (this.#life = new AbortController());
    const { signal } = life;
    const { locks = globalThis.navigator?.locks, BroadcastChannel: Channel = globalThis.BroadcastChannel } = this.#options;
    this.#become("connecting");
    if (!locks || !Channel) {
      this.#lead();
      return;
    }
    const channel = (this.#channel = new Channel(this.#name));
    channel.onmessage = ({ data }: MessageEvent<Message>) => this.#hear(data);
    this.#ask();
    // It may be refused only by what ends it.
    const turn = (): Promise<void> => {
      const over = new Promise<void>((release) => (this.#release = release));
      if (!signal.aborted) {
        this.#lead();
      } else {
        this.#release!();
      }
      return over;
    };
    locks.request(this.#name, { signal }, turn).catch((error: unknown) => {
      if (!signal.aborted) {
        this.#emit("error", { code: "ConnectFailed", message: String(error) });
        this.#lead();
      }
    });
    // A page that is put aside would keep the socket from the others, and misses what they are told.
    globalThis.addEventListener?.("pagehide", ({ persisted }) => persisted && this.#putAside(), { signal });
  }

  #putAside(): void {
    this.#leave();
    this.#become("connecting");
    const { signal } = (this.#life = new AbortController());
    globalThis.addEventListener("pageshow", () => this.#join(), { once: true, signal });
  }

  #leave(): void {
    const client = this.#client;
    this.#client = null;
    this.#joined = false;
    this.#life?.abort();
    this.#life = null;
    client?.close();
    this.#channel?.close();
    this.#channel = null;
    this.#release?.();
    this.#release = null;
  }

  /** This tab has the socket from here on: it goes on where the one before was. */
  #lead(): void {
    const { storage } = this.#options;
    const ledger = this.#ledger;
    // Tabs of one machine: whoever comes later has the higher one, though it may not have heard of the one before.
    this.#term = Math.max(this.#term + 1, Date.now()) + (this.#options.random ?? Math.random)();
    const client = new GatewayClient({
      ...this.#options,
      chat: this.chat ?? undefined,
      signal: undefined,
      log: undefined,
      storage: {
        getItem: (key) => ledger.cursor ?? storage?.getItem(key) ?? null,
        setItem: (key, cursor) => {
          const anew = isAnew(ledger.cursor, cursor);
          ledger.reach(cursor, anew);
          this.#post({ kind: "cursor", term: this.#term, cursor, anew });
          storage?.setItem(key, cursor);
        },
      },
    });
    this.#client = client;
    for (const type of TYPES) {
      client.addEventListener(type, ({ detail }) => {
        if (this.#client === client) {
          if (type === "ready") {
            this.#session = `${this.#id}/${Math.random()}`;
          }
          const told: Message = { kind: "told", term: this.#term, type, detail, chat: client.chat, session: this.#session };
          this.#post(told);
          this.#take(told);
        }
      });
    }
    if (this.state !== "closed") {
      client.connect();
    }
  }

  /** Has the tab with the socket say where the session stands. */
  #ask(): void {
    this.#post({ kind: "hello", from: this.#id, term: this.#term, joined: this.#joined });
  }

  #post(message: Message): void {
    this.#channel?.postMessage(message);
  }

  #hear(message: Message): void {
    const client = this.#client;
    if (client && (message.kind === "told" || message.kind === "cursor")) {
      // Of one that had the socket before, and may have had a higher term: the lock says whose word counts.
      this.#term = Math.max(this.#term, message.term + 1);
      if (message.kind === "told" && message.type === "event") {
        this.#take(message);
      }
    } else if (message.kind === "told") {
      this.#take(message);
    } else if (message.kind === "cursor") {
      if (this.#counts(message.term)) {
        this.#ledger.reach(message.cursor, message.anew);
      }
    } else if (message.kind === "snapshot") {
      if (message.to === this.#id && !client && (this.#joined ? message.term > this.#term : message.term >= this.#term)) {
        this.#catchUp(message);
      }
    } else if (client) {
      if (message.kind === "choose") {
        client.selectChat(message.chat);
      } else if (message.kind === "connect") {
        client.connect();
      } else if (!message.joined || message.term > this.#term) {
        this.#term = Math.max(this.#term, message.term + 1);
        const { state } = client;
        const ready = state === "ready" ? this.#ready : null;
        this.#post({ kind: "snapshot", term: this.#term, to: message.from, state, chat: this.#inForce, ready, session: this.#session, cursor: this.#ledger.cursor });
      }
    }
  }

  /** Is this of the tab that has the socket now? What one before has said may come late; what it says of events counts all the same. */
  #counts(term: number): boolean {
    const counts = term >= this.#term;
    if (counts) {
      this.#term = term;
    } else {
      this.#ask();
    }
    return counts;
  }

  #catchUp({ term, state, chat, ready, session, cursor }: Message & { kind: "snapshot" }): void {
    this.#term = term;
    if (cursor) {
      // What was missed while this tab was put aside, its page loads anew: it is told that it was not resumed.
      this.#ledger.reach(cursor, isAnew(this.#ledger.cursor, cursor, this.#joined));
    }
    this.#become(state);
    if (ready && !(this.#joined && session === this.#session)) {
      this.#session = session;
      // What the tab with the socket has resumed is nothing to one that was not there.
      const { resumed, replayed, reason, ...place } = ready;
      this.#welcome({ ...(this.#joined ? ready : place), chat });
      if (chat) {
        this.#inForce = chat;
        this.#emit("chat", { chat_id: chat });
      }
    }
  }

  /** From here on this tab shows what comes. */
  #welcome(ready: ReadyDetail): void {
    const reconnected = this.#before;
    this.#joined = this.#before = true;
    this.#set({ chat: ready.chat });
    this.#emit("ready", { ...ready, reconnected, lastSeq: this.lastSeq });
    if (this.#wish && this.#wish !== ready.chat && !this.#client) {
      // Chosen when no tab had the socket.
      this.selectChat(this.#wish);
    }
  }

  #take({ term, type, detail, chat, session }: Message & { kind: "told" }): void {
    if (type === "event") {
      this.#show(detail as EventDetail);
      return;
    }
    if (!this.#counts(term)) {
      return;
    }
    if (type === "state") {
      this.#become((detail as { state: GatewayState }).state);
      return;
    }
    if (type === "ready") {
      this.#ready = detail as ReadyDetail;
      this.#session = session;
      this.#welcome(this.#ready);
      return;
    }
    this.#set({ chat });
    if (type === "chat") {
      this.#inForce = chat;
      this.#wish = null;
    } else if (type === "error" && chat !== this.#wish) {
      this.#wish = null;
    }
    this.#emit(type, detail);
  }

  #show(event: EventDetail): void {
    if (!this.#joined) {
      return;
    }
    if (event.seq === undefined) {
      this.#emit("event", event);
      return;
    }
    const { fresh, late } = this.#ledger.show(event.seq);
    if (fresh) {
      this.#set({ lastSeq: this.#ledger.highest });
      this.#emit("event", { ...event, late });
    }
  }

  #become(state: GatewayState): void {
    if (state !== this.state) {
      this.#set({ state });
      this.#emit("state", { state });
    }
  }

  #set(values: { state?: GatewayState; chat?: string | null; lastSeq?: number }): void {
    Object.assign(this, values);
  }

  #emit(type: Type, detail: object): void {
    this.#options.log?.(type, detail);
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

export interface SharedGateway<Payload> {
  addEventListener<K extends Type>(type: K, listener: (event: GatewayEventMap<Payload>[K]) => void, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends Type>(type: K, listener: (event: GatewayEventMap<Payload>[K]) => void, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

/** Makes a shared session and joins it. Listeners added in the same turn miss nothing. */
export function connect<Payload = Record<string, unknown>>(options: SharedOptions): SharedGateway<Payload> {
  return new SharedGateway<Payload>(options).connect();
}
