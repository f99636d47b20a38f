import { GatewayClient } from "./client.js";
import type { CloseDetail, GatewayOptions } from "./types.js";

/** Why a session that was waited for will not be: its last close. */
export class GatewayClosed extends Error {
  override readonly name = "GatewayClosed";
  readonly code: number;
  readonly reason: string;

  constructor({ code, reason }: CloseDetail) {
    super(`the session is closed: ${code} ${reason}`);
    this.code = code;
    this.reason = reason;
  }
}

/**
 * A client for pages of many parts: each asks for its chat and lets go of it, and waits for the session without a listener.
 *
 * A session has one chat. The one that was asked for last has it; when that is let go of, the one before has it again; below all is
 * what `selectChat` chose. When nobody asks any more, the last one stays, as a gateway can't select none.
 */
export class Gateway<Payload = Record<string, unknown>> extends GatewayClient<Payload> {
  /** Who asks for a chat, the last one last. */
  #wishes: { chat: string }[] = [];
  #chosen: string | null;
  /** What was asked of the gateway last. */
  #asked: string | null = null;

  constructor(options: GatewayOptions) {
    super(options);
    this.#chosen = this.chat;
    this.addEventListener("error", ({ detail }) => {
      if (detail.code === "BadRequest" && this.#asked && this.chat !== this.#asked) {
        this.#refuse(this.#asked);
      }
    });
  }

  /** Is there when the session is; fails with {@link GatewayClosed} when it ends for good before that. */
  get ready(): Promise<this> {
    if (this.state === "ready") {
      return Promise.resolve(this);
    }
    return new Promise((resolve, reject) => {
      const done = new AbortController();
      const settle = (action: () => void) => {
        done.abort();
        action();
      };
      this.addEventListener("ready", () => settle(() => resolve(this)), { signal: done.signal });
      this.addEventListener("close", ({ detail }) => detail.final && settle(() => reject(new GatewayClosed(detail))), { signal: done.signal });
    });
  }

  /** Asks for a chat until the function that this gives is called, or the signal is aborted. */
  wantChat(chat: string, signal?: AbortSignal): () => void {
    const wish = { chat };
    const release = (): void => {
      const at = this.#wishes.indexOf(wish);
      if (at >= 0) {
        this.#wishes.splice(at, 1);
        this.#choose();
      }
    };
    if (!signal?.aborted) {
      signal?.addEventListener("abort", release, { once: true });
      this.#wishes.push(wish);
      this.#choose();
    }
    return release;
  }

  override selectChat(chat: string): void {
    this.#chosen = chat;
    this.#choose();
  }

  #choose(): void {
    const chat = this.#wishes.at(-1)?.chat ?? this.#chosen;
    if (chat && (chat !== this.chat || !this.#wishes.length)) {
      this.#asked = chat;
      super.selectChat(chat);
    }
  }

  /** Nobody has it, so nobody asks for it any more. */
  #refuse(chat: string): void {
    this.#asked = null;
    this.#wishes = this.#wishes.filter((wish) => wish.chat !== chat);
    if (this.#chosen === chat) {
      this.#chosen = this.chat;
    }
    if (this.#wishes.length && this.#wishes.at(-1)!.chat !== this.chat) {
      this.#choose();
    }
  }
}

/** Makes a {@link Gateway} and opens its session. Listeners added in the same turn miss nothing. */
export function connect<Payload = Record<string, unknown>>(options: GatewayOptions): Gateway<Payload> {
  return new Gateway<Payload>(options).connect();
}
