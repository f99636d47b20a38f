import { settings, type Page } from "./runtime.js";
import { session } from "./session.js";
import type { GatewayEventMap, GatewayOptions, GatewayState } from "./types.js";

/** One session, kept open. `Payload` is what the publisher sends. */
export class GatewayClient<Payload = Record<string, unknown>> extends EventTarget {
  readonly state: GatewayState = "closed";
  readonly chat: string | null;
  /** Highest sequence that this client has shown, 0 if none. */
  readonly lastSeq: number = 0;
  readonly #session;

  constructor(options: GatewayOptions) {
    super();
    this.chat = options.chat || null;
    this.#session = session(this as Page, settings(options));
  }

  /**
   * Opens the session; the way to begin again after a final close. While it waits for another attempt, that is made now; an open
   * one is asked whether it still is.
   */
  connect(): this {
    this.#session[0]();
    return this;
  }

  /** Ends the session; nothing is tried again. */
  close(): void {
    this.#session[1]();
  }

  /** Asks for the messages of this chat in place of the one before; kept over reconnects until another is chosen or it is refused. */
  selectChat(chat: string): void {
    this.#session[2](chat);
  }
}

export interface GatewayClient<Payload> {
  addEventListener<K extends keyof GatewayEventMap>(
    type: K,
    listener: (event: GatewayEventMap<Payload>[K]) => void,
    options?: boolean | AddEventListenerOptions,
  ): void;
  addEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | AddEventListenerOptions): void;
  removeEventListener<K extends keyof GatewayEventMap>(
    type: K,
    listener: (event: GatewayEventMap<Payload>[K]) => void,
    options?: boolean | EventListenerOptions,
  ): void;
  removeEventListener(type: string, listener: EventListenerOrEventListenerObject | null, options?: boolean | EventListenerOptions): void;
}

/** Makes a client and opens its session. Listeners added in the same turn miss nothing. */
export function connect<Payload = Record<string, unknown>>(options: GatewayOptions): GatewayClient<Payload> {
  return new GatewayClient<Payload>(options).connect();
}
