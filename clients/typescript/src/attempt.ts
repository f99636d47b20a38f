/** What an attempt shows and asks for. */

/** A setting, or what a function says that it is now. */
export const current = <T>(setting: T | (() => T | Promise<T>)): T | Promise<T> =>
  typeof setting === "function" ? (setting as () => T | Promise<T>)() : setting;

/** The address with these wishes in its query; React Native's URL can't be written to. */
export const address = (href: string, wishes: [string, string | number | null][]): string =>
  wishes.reduce((made, [name, wish]) => made + (wish ? (made.includes("?") ? "&" : "?") + name + "=" + encodeURIComponent(wish) : ""), href);

/** A secret as a sub-protocol: a URL is written down by proxies, servers and histories, and a sub-protocol by none of them. */
export const secret = (kind: string, plain: string): string =>
  `dws.${kind}.${plain.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;

/** Longest `Retry-After` that is obeyed, in milliseconds: a broken proxy must not silence a client for a day. */
const LONGEST = 300000;

/**
 * How long the gateway at this address wants to be left alone, in milliseconds; nothing where it can't be reached. A refused
 * handshake shows a browser neither status nor headers. What leads to sockets leads to this path as well.
 */
export const patience = async (href: string, ask: typeof fetch): Promise<number | void> => {
  try {
    const signal = (AbortSignal as unknown as { timeout?: (ms: number) => AbortSignal }).timeout?.(3000);
    const reply = await ask("http" + href.slice(2).split("/ws/")[0] + "/ws/ready", { cache: "no-store", signal });
    return Math.min(Number(reply.headers.get("retry-after")) * 1000 || 0, LONGEST);
  } catch {
    // Then nobody knows.
  }
};
