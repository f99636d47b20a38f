/** Settings of a {@link GatewayClient}. Times are milliseconds. */
export interface GatewayOptions {
  /** `wss://host/ws/{company}/{agent}` or `wss://host/ws/admin`; a function is asked before every attempt, also for a move. */
  url: string | URL | (() => string | URL | Promise<string | URL>);
  /** The key that browsers hold (`auth.secret_token`). */
  apiKey: string;
  /**
   * The token; a function is asked before every attempt, so that it can bring a new one. What it throws counts as a failed attempt
   * (one to move says so to nobody); an error with `final: true` (the user has logged out) ends the session as 4403 does.
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
  /** So long a session must have lasted before waits begin small again (default 10 000). */
  stableAfter?: number;
  /** Longest time from the start of an attempt to `ready` (default 15 000); an attempt to move has a third of it. */
  connectTimeout?: number;
  /** So long nothing was heard before the gateway is asked for a sign of life (default 25 000). */
  idle?: number;
  /** So long it may take to answer (default 10 000). */
  answerTimeout?: number;
  /** So long an event waits for others with a lower `seq` (default 40); 0 still waits for the next turn of the event loop. */
  hold?: number;
  /** Sub-protocols to ask for (default `json.v1`); key and token go as two more, of which no answer names one. */
  protocols?: string | string[];
  /** Replacements for tests and for runtimes other than browsers. */
  WebSocket?: new (url: string, protocols?: string | string[]) => WebSocket;
  fetch?: typeof fetch;
  random?: () => number;
}

/**
 * `closed` also before the first {@link GatewayClient.connect} and after a final close. It stays `ready` while the client moves to
 * another socket because the gateway asked for it.
 */
export type GatewayState = "connecting" | "ready" | "waiting" | "closed";

export interface ReadyDetail {
  /** Pod that holds the session. */
  pod: string;
  /** Chat that is selected (it is `chat_id` too then), or is being selected: `chat` follows. */
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
  /** A code of the protocol, or `ConnectFailed` when url or token could not be had. */
  code: string;
  message: string;
  details?: string;
}

export interface CloseDetail {
  /** Close code; 1006 for a refused or broken connection, 4000 for one that this client gave up. */
  code: number;
  reason: string;
  /** Nothing more is tried until {@link GatewayClient.connect}. */
  final: boolean;
  /** Wait before the next attempt, null if final. */
  retryIn: number | null;
}

export interface GatewayEventMap {
  state: CustomEvent<{ state: GatewayState }>;
  ready: CustomEvent<ReadyDetail>;
  event: CustomEvent<EventDetail>;
  gap: CustomEvent<GapDetail>;
  chat: CustomEvent<{ chat_id: string }>;
  error: CustomEvent<ErrorDetail>;
  close: CustomEvent<CloseDetail>;
}

/** One session, kept open. */
export class GatewayClient extends EventTarget {
  constructor(options: GatewayOptions);
  readonly state: GatewayState;
  readonly chat: string | null;
  readonly lastSeq: number;
  /** Opens the session unless it is open or being opened; the way to begin again after a final close. */
  connect(): this;
  /** Ends the session for good. */
  close(): void;
  /** Asks for the messages of one chat; kept over reconnects. */
  selectChat(chat: string): void;
  addEventListener<K extends keyof GatewayEventMap>(
    type: K,
    listener: (event: GatewayEventMap[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  removeEventListener<K extends keyof GatewayEventMap>(
    type: K,
    listener: (event: GatewayEventMap[K]) => void,
    options?: boolean | EventListenerOptions,
  ): void;
}

/** Makes a client and opens its session. Listeners added in the same turn miss nothing. */
export function connect(options: GatewayOptions): GatewayClient;
