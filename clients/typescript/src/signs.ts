/** Something that may have events, where the runtime has it. */
type Source = { addEventListener?: EventTarget["addEventListener"] } | undefined;

/**
 * Tells of signs that the page, its machine or its network is alive again, and of a page that is put aside as a whole, to be shown
 * again later: a browser keeps none with an open socket. `seen` is called when the page may have been hidden. Runtimes that have no such events give none.
 */
export const signs = (signal: AbortSignal, seen: () => void, woken: () => void, aside: () => void): void => {
  const { document: page, navigator: machine } = globalThis as { document?: Document; navigator?: { connection?: EventTarget } };
  const heard = (event: Event): void => {
    // The first `pageshow` of a page says nothing, and after a `pagehide` for good there is nobody.
    if ((event as PageTransitionEvent).persisted !== false) {
      if (event.type === "pagehide") {
        aside();
        return;
      }
      seen();
      // A page that is put aside is hidden right after that.
      if (!page?.hidden || event.type !== "visibilitychange") {
        woken();
      }
    }
  };
  const listen = (source: Source, ...names: string[]): void => names.forEach((name) => source?.addEventListener?.(name, heard, { signal }));
  listen(globalThis as Source, "online", "pageshow", "pagehide");
  listen(page, "visibilitychange", "resume");
  listen(machine?.connection, "change");
};
