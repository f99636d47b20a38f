import type { GatewayOptions, GatewayState } from "./types.js";

const DEFAULTS = {
  minDelay: 500,
  maxDelay: 30000,
  stableAfter: 10000,
  connectTimeout: 15000,
  idle: 25000,
  answerTimeout: 10000,
  hold: 40,
};

/** Options, with what they leave open. */
export type Settings = GatewayOptions & typeof DEFAULTS;

export const settings = (options: GatewayOptions): Settings => ({ ...DEFAULTS, ...options });

/** What a page sees of a session. */
export interface Page extends Pick<EventTarget, "dispatchEvent"> {
  state: GatewayState;
  chat: string | null;
  lastSeq: number;
}

/** What a session needs of a WebSocket, whoever made it. */
export interface Socket {
  readonly readyState: number;
  onopen: (() => unknown) | null;
  onmessage: ((event: { data: unknown }) => void) | null;
  onclose: ((event: { code: number; reason: string }) => void) | null;
  onerror: (() => void) | null;
  send(text: string): void;
  close(code: number): void;
}
