/** Something that may have events, where the runtime has it. */
type Source = { addEventListener?: EventTarget["addEventListener"] } | undefined;

/**
 * Tells of signs that the page, its machine or its network is alive again, and of a page that is put aside as a whole, to be shown
 * again later: a browser keeps none with an open socket. Runtimes that have no such events give none.
 */
export const signs = (signal: AbortSignal, woken: () => void, aside: () => void): void => {
  const heard = (event: Event): void => {
    // The first `pageshow` of a page says nothing, and after a `pagehide` for good there is nobody.
    if ((event as PageTransitionEvent).persisted !== false) {
      event.type === "pagehide" ? aside() : woken();
    }
  };
  const listen = (source: Source, ...names: string[]): void => names.forEach((name) => source?.addEventListener?.(name, heard, { signal }));
  const { document: page, navigator: machine } = globalThis as { document?: Document; navigator?: { connection?: EventTarget } };
  listen(globalThis as Source, "online", "pageshow", "pagehide");
  listen(page, "visibilitychange", "resume");
  listen(machine?.connection, "change");
};
