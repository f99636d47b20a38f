/** The browser client of the gateway: one ES module, no dependency. Made by service/web/build.mjs of clients/typescript, where its sources are. */

/** Settings of a client. Times are milliseconds. */
export interface GatewayOptions {
  /** `wss://host/ws/{company}/{agent}` or `wss://host/ws/admin`; a function is asked before every attempt, also for a move. */
  url: string | URL | (() => string | URL | Promise<string | URL>);
  /** The key that browsers hold (`auth.secret_token`); a function is asked before every attempt. */
  apiKey: string | (() => string | Promise<string>);
  /**
   * The token; a function is asked before every attempt, so that it can bring a new one. What it throws counts as a failed attempt
   * (one to move says so to nobody); an error with `final: true` (the user has logged out) ends the session as 4403 does. It is
   * also asked when a token is about to run out, and for the next attempt when it has. A text is used until it has run out.
   */
  token: string | (() => string | Promise<string>);
  /** Chat to select from the start. Without it, the chat that the gateway remembers is restored. */
  chat?: string;
  /**
   * Keeps the cursor over a page load, `sessionStorage` for one; off by default. A page that builds its state anew at every load
   * needs none; with one it is given again what came above the cursor, and tells it by `seq`.
   */
  storage?: Pick<Storage, "getItem" | "setItem">;
  /** With `storage`: whose cursor it is, where users take turns in one browser. Any name; it is written down, so no token. */
  user?: string;
  /** First wait before another attempt; doubles with each failure (default 500). */
  minDelay?: number;
  /** Longest wait (default 30 000). A longer `Retry-After` wins. */
  maxDelay?: number;
  /**
   * So long a session must have lasted before waits begin small again (default 10 000). One that the gateway sent away (1001), or
   * that outlived its token, need not.
   */
  stableAfter?: number;
  /** Longest time from the start of an attempt to `ready` (default 15 000); an attempt to move has a third of it. */
  connectTimeout?: number;
  /** So long nothing was heard before the gateway is asked for a sign of life (default 25 000). */
  idle?: number;
  /** So long it may take to answer (default 10 000). */
  answerTimeout?: number;
  /**
   * So long an event waits for others with a lower `seq` (default 40); 0 still waits for the next turn of the event loop. In a tab
   * that nobody sees, where timers are late, none waits.
   */
  hold?: number;
  /** Sub-protocols to ask for (default `json.v1`); key and token go as two more, of which no answer names one. */
  protocols?: string | string[];
  /** Ends the session when it is aborted, as `close()` does; one that is aborted already opens none. */
  signal?: AbortSignal;
  /** Is told all that the page is told, before it. */
  log?: (type: keyof GatewayEventMap, detail: object) => void;
  /** Replacements for tests and for runtimes other than browsers, as the one of the package `ws`. */
  WebSocket?: new (url: string, protocols?: string[]) => object;
  fetch?: typeof fetch;
  random?: () => number;
}
/**
 * `closed` also before the first `connect()` and after a final close. It stays `ready` while the client moves to
 * another socket because the gateway asked for it.
 */
export type GatewayState = "connecting" | "ready" | "waiting" | "closed";
export interface ReadyDetail {
  /** Pod that holds the session. */
  pod: string;
  /** Chat that is selected (it is `chat_id` too then), or is being selected; `chat` follows in both cases. */
  chat: string | null;
  chat_id?: string;
  /**
   * Not the first `ready` of this client. Where it is not `resumed`, something may have been missed: load the state anew. That holds
   * also for one without a `close` before it: a move after which something may be missing. One that has all is not told.
   */
  reconnected: boolean;
  /** All that was missed since the cursor follows; absent where no cursor was brought, or the pod knows none. */
  resumed?: boolean;
  /** Events that follow because they were missed; with `resumed`. Those that this client has seen already it does not show again. */
  replayed?: number;
  /** Why it is not `resumed`. */
  reason?: "stream_changed" | "too_old" | "too_much" | "busy" | "unavailable" | "malformed" | (string & {});
  /** Highest sequence that this client has shown, 0 if none. */
  lastSeq: number;
}
export interface EventDetail<Payload = Record<string, unknown>> {
  /** What the publisher sent, with `event_type`. */
  payload: Payload;
  /** Place in the stream; undefined for an event from an old pod. */
  seq: number | undefined;
  /** The frame as it came: integers above 2^53 are exact only here. */
  text: string;
  /** It came after events with a higher `seq` had been shown. */
  late: boolean;
  /** It was read again from the stream: after a reconnect or a move, or because it could not be had in time. */
  replayed?: true;
}
export interface GapDetail {
  /** Events lost, where known. */
  dropped: number | null;
  first_seq: number | null;
  last_seq: number | null;
  reason: "slow_client" | "given_up" | "pod_resumed" | (string & {});
}
export interface ErrorDetail {
  /**
   * A code of the protocol; `ConnectFailed` when url, key or token could not be had, or are none; or `Refused`: three handshakes in
   * a row were, by a gateway that is there, so key, token or origin may be why. A browser can't see.
   */
  code: string;
  message: string;
  details?: string;
}
export interface CloseDetail {
  /** Close code; 1006 for a refused or broken connection, 4000 for one that this client gave up. */
  code: number;
  reason: string;
  /** Nothing more is tried until `connect()`. */
  final: boolean;
  /** Wait before the next attempt, null if final. */
  retryIn: number | null;
}
/** What the page is told; `Payload` is the publisher's. */
export interface GatewayEventMap<Payload = Record<string, unknown>> {
  state: CustomEvent<{
    state: GatewayState;
  }>;
  ready: CustomEvent<ReadyDetail>;
  event: CustomEvent<EventDetail<Payload>>;
  gap: CustomEvent<GapDetail>;
  /** The chat that is in force from now on: one that was chosen, or was restored with `ready`. */
  chat: CustomEvent<{
    chat_id: string;
  }>;
  error: CustomEvent<ErrorDetail>;
  close: CustomEvent<CloseDetail>;
}

/** One session, kept open. `Payload` is what the publisher sends. */
export declare class GatewayClient<Payload = Record<string, unknown>> extends EventTarget {
  #private;
  readonly state: GatewayState;
  readonly chat: string | null;
  /** Highest sequence that this client has shown, 0 if none. */
  readonly lastSeq: number;
  constructor(options: GatewayOptions);
  /**
   * Opens the session; the way to begin again after a final close. While it waits for another attempt, that is made now; an open
   * one is asked whether it still is.
   */
  connect(): this;
  /** Ends the session; nothing is tried again. */
  close(): void;
  /** Asks for the messages of this chat in place of the one before; kept over reconnects until another is chosen or it is refused. */
  selectChat(chat: string): void;
}
export interface GatewayClient<Payload> {
  addEventListener<K extends keyof GatewayEventMap>(type: K, listener: (event: GatewayEventMap<Payload>[K]) => void, options?: boolean | AddEventListenerOptions): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends keyof GatewayEventMap>(type: K, listener: (event: GatewayEventMap<Payload>[K]) => void, options?: boolean | EventListenerOptions): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}
/** Makes a client and opens its session. Listeners added in the same turn miss nothing. */
export declare function connect<Payload = Record<string, unknown>>(options: GatewayOptions): GatewayClient<Payload>;
