/** Sequences remembered: many times what a gateway replays at once. */
const REMEMBERED = 4096;

/** What a tab has shown. Where one tab takes over from another, both may bring the same event, and the one before may be slower. */
export class Ledger {
  /** Where the next tab to have the socket goes on. */
  cursor: string | null = null;
  #highest = 0;
  readonly #shown = new Set<number>();

  get highest(): number {
    return this.#highest;
  }

  /** Takes in the place of the tab that has the socket; `anew`: all numbers mean other events from here on. */
  reach(cursor: string, anew: boolean): void {
    if (anew) {
      this.#shown.clear();
      this.#highest = 0;
    }
    if (anew || !this.cursor || place(cursor) > place(this.cursor)) {
      this.cursor = cursor;
    }
  }

  /** Notes an event: whether it is new here, and whether it comes late. */
  show(seq: number): { fresh: boolean; late: boolean } {
    const fresh = !this.#shown.has(seq);
    const late = seq < this.#highest;
    this.#shown.add(seq);
    if (this.#shown.size > REMEMBERED) {
      this.#shown.delete(this.#shown.values().next().value!);
    }
    this.#highest = Math.max(this.#highest, seq);
    return { fresh, late };
  }
}

/** Does a cursor lead into another stream, or back? In one stream that of one tab never does; that of another tab may be `behind`. */
export const isAnew = (before: string | null, cursor: string, behind = false): boolean =>
  before !== null && (before.split(":")[0] !== cursor.split(":")[0] || (!behind && place(cursor) < place(before)));

const place = (cursor: string): number => Number(cursor.split(":")[1]) || 0;
