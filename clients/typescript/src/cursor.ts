import { HOLD, type After } from "./timers.js";
import type { Page, Settings } from "./runtime.js";
import type { EventDetail, GatewayEventMap } from "./types.js";

/** Sequences remembered above the cursor: many times what a gateway replays at once. */
const REMEMBERED = 4096;

/** A frame of the gateway, as far as its place in the stream goes. */
export interface Frame extends Omit<EventDetail, "text" | "late"> {
  type: string;
  safe?: number;
}

/** Where the gateway says that a session stands. */
export interface Place {
  stream?: string;
  safe?: number;
  reason?: string;
}

type Tell = (type: keyof GatewayEventMap, detail: object) => void;

/**
 * What was taken of the stream, and the order in which the page gets it.
 *
 * `ask` has the gateway say where the session stands; `anew` is called when the stream turns out to have been made anew. Gives: take
 * an event; take in a place, and whether it begins a session; show what is held; the cursor, if there is one; and read the cursor
 * that a page before this one has left under a key.
 */
export const cursor = (
  page: Page,
  options: Settings,
  tell: Tell,
  after: After,
  ask: () => void,
  anew: () => void,
): [
  (raw: string, frame: Frame, aside?: boolean) => void,
  (place: Place, begins?: boolean) => void,
  () => void,
  () => string | null,
  (key: string) => void,
] => {
  // Everything up to `mark` in this stream was taken, or a gap was told. Above it, the sequences that were taken.
  let name: string | null | undefined = null;
  let mark = 0;
  const taken = new Set<number>();
  /** Only the gateway knows whether these were taken before. */
  let doubts: [string, Frame][] = [];
  let held: EventDetail[] = [];
  let highest = 0;
  let under: string;
  let kept: string;

  const where = (): string | null => name ? `${name}:${mark}` : null;

  const reach = (to?: number): void => {
    if (to! > mark) {
      mark = to!;
      taken.forEach((one) => one <= mark && taken.delete(one));
    }
  };

  const show = (): void => {
    const ripe = held;
    held = [];
    ripe.forEach((event) => {
      event.late = event.seq! < highest;
      page.lastSeq = highest = Math.max(highest, event.seq!);
      tell("event", event);
    });
    // Only now: a page that goes away sooner has not seen them.
    const mine = where();
    if (mine && mine !== kept) {
      kept = mine;
      try {
        options.storage?.setItem(under, mine);
      } catch {
        // Full, or not allowed: then the page is without it after its next load.
      }
    }
  };

  const take = (raw: string, frame: Frame, aside?: boolean): void => {
    const number = frame.seq!;
    if (number <= mark) {
      // Taken before, or the first of a stream that was made anew, of which a socket aside brings none.
      if (!aside && doubts.push([raw, frame]) === 1) {
        ask();
      }
      return;
    }
    const event: EventDetail = { ...frame, text: raw, late: false };
    if (frame.seq === undefined) {
      show();
      tell("event", event);
      return;
    }
    const known = taken.has(number);
    taken.add(number);
    if (taken.size > REMEMBERED) {
      taken.delete(taken.values().next().value!);
    }
    reach(frame.safe);
    if (known) {
      return;
    }
    let index = held.length;
    while (index && held[index - 1]!.seq! > number) {
      index--;
    }
    held.splice(index, 0, event);
    if (globalThis.document?.hidden) {
      // Timers are late there, by a second and more.
      show();
    } else if (held.length === 1) {
      after(HOLD, options.hold, show);
    }
  };

  const settle = (place: Place, begins?: boolean): void => {
    const open = doubts;
    const { stream } = place;
    doubts = [];
    show();
    if (begins && !name) {
      // Nobody knows whether it still counts as it did.
      highest = 0;
      if (stream) {
        taken.clear();
      }
    }
    if (stream !== name && (stream || open.length) || place.reason === "stream_changed") {
      if (name) {
        // Made anew, so it counts from one again.
        anew();
        taken.clear();
        mark = highest = page.lastSeq = 0;
      }
      name = stream;
      // Before the events of it: whoever keeps the cursor for others learns that numbers mean other events now.
      show();
      open.forEach((doubt) => take(...doubt));
    }
    reach(place.safe);
    show();
  };

  const recall = (key: string): void => {
    under = key;
    const before = !name && options.storage?.getItem(key);
    if (before) {
      const parts = before.split(":");
      name = parts[0];
      mark = Number(parts[1]) || 0;
    }
  };

  return [take, settle, show, where, recall];
};
