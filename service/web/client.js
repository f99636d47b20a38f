/** The browser client of the gateway: one ES module, no dependency. Made by service/web/build.mjs of clients/typescript, where its sources are. */

const DEFAULTS = {
  minDelay: 500,
  maxDelay: 30000,
  stableAfter: 10000,
  connectTimeout: 15000,
  idle: 25000,
  answerTimeout: 10000,
  hold: 40,
};
const settings = (options) => ({ ...DEFAULTS, ...options });

/** What an attempt shows and asks for. */
/** A setting, or what a function says that it is now. */
const current = (setting) => typeof setting === "function" ? setting() : setting;
/** The address with these wishes in its query; React Native's URL can't be written to. */
const address = (href, wishes) => wishes.reduce((made, [name, wish]) => made + (wish ? (made.includes("?") ? "&" : "?") + name + "=" + encodeURIComponent(wish) : ""), href);
/** A secret as a sub-protocol: a URL is written down by proxies, servers and histories, and a sub-protocol by none of them. */
const secret = (kind, plain) => `dws.${kind}.${plain.replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "")}`;
/** Longest `Retry-After` that is obeyed, in milliseconds: a broken proxy must not silence a client for a day. */
const LONGEST = 300000;
/**
 * How long the gateway at this address wants to be left alone, in milliseconds; nothing where it can't be reached. A refused
 * handshake shows a browser neither status nor headers. What leads to sockets leads to this path as well.
 */
const patience = async (href, ask) => {
  try {
    const signal = AbortSignal.timeout?.(3000);
    const reply = await ask("http" + href.slice(2).split("/ws/")[0] + "/ws/ready", { cache: "no-store", signal });
    return Math.min(Number(reply.headers.get("retry-after")) * 1000 || 0, LONGEST);
  }
  catch {
    // Then nobody knows.
  }
};

/** What the timers of a session are for; there is one of each. */
const CONNECT = 0;
const RETRY = 1;
const IDLE = 2;
const ANSWER = 3;
const STABLE = 4;
const HOLD = 5;
const OTHER = 6;
const RENEW = 7;
/** A timer that runs so much after its time, in milliseconds, was asleep with its page or machine, or in a tab that nobody sees. */
const ASLEEP = 5000;
/** Timers by name: one that starts them, one that stops one, one that stops all. */
const timers = () => {
  const running = [];
  const stop = (name) => clearTimeout(running[name]);
  return [
    (name, delay, action) => {
      stop(name);
      const due = Date.now() + delay;
      running[name] = setTimeout(() => action(Date.now() - due > ASLEEP), delay);
    },
    stop,
    () => running.forEach((id) => clearTimeout(id)),
  ];
};

/** Sequences remembered above the cursor: many times what a gateway replays at once. */
const REMEMBERED = 4096;
/**
 * What was taken of the stream, and the order in which the page gets it.
 *
 * `ask` has the gateway say where the session stands; `anew` is called when the stream turns out to have been made anew. Gives: take
 * an event; take in a place, and whether it begins a session; show what is held; the cursor, if there is one; and read the cursor
 * that a page before this one has left under a key.
 */
const cursor = (page, options, tell, after, ask, anew) => {
  // Everything up to `mark` in this stream was taken, or a gap was told. Above it, the sequences that were taken.
  let name = null;
  let mark = 0;
  const taken = new Set();
  /** Only the gateway knows whether these were taken before. */
  let doubts = [];
  let held = [];
  let highest = 0;
  let under;
  let kept;
  const where = () => name ? `${name}:${mark}` : null;
  const reach = (to) => {
    if (to > mark) {
      mark = to;
      taken.forEach((one) => one <= mark && taken.delete(one));
    }
  };
  const show = () => {
    const ripe = held;
    held = [];
    ripe.forEach((event) => {
      event.late = event.seq < highest;
      page.lastSeq = highest = Math.max(highest, event.seq);
      tell("event", event);
    });
    // Only now: a page that goes away sooner has not seen them.
    const mine = where();
    if (mine && mine !== kept) {
      kept = mine;
      try {
        options.storage?.setItem(under, mine);
      }
      catch {
        // Full, or not allowed: then the page is without it after its next load.
      }
    }
  };
  const take = (raw, frame, aside) => {
    const number = frame.seq;
    if (number <= mark) {
      // Taken before, or the first of a stream that was made anew, of which a socket aside brings none.
      if (!aside && doubts.push([raw, frame]) === 1) {
        ask();
      }
      return;
    }
    const event = { ...frame, text: raw, late: false };
    if (frame.seq === undefined) {
      show();
      tell("event", event);
      return;
    }
    const known = taken.has(number);
    taken.add(number);
    if (taken.size > REMEMBERED) {
      taken.delete(taken.values().next().value);
    }
    reach(frame.safe);
    if (known) {
      return;
    }
    let index = held.length;
    while (index && held[index - 1].seq > number) {
      index--;
    }
    held.splice(index, 0, event);
    if (globalThis.document?.hidden) {
      // Timers are late there, by a second and more.
      show();
    }
    else if (held.length === 1) {
      after(HOLD, options.hold, show);
    }
  };
  const settle = (place, begins) => {
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
  const recall = (key) => {
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

/**
 * Tells of signs that the page, its machine or its network is alive again, and of a page that is put aside as a whole, to be shown
 * again later: a browser keeps none with an open socket. `seen` is called when the page may have been hidden. Runtimes that have no such events give none.
 */
const signs = (signal, seen, woken, aside) => {
  const { document: page, navigator: machine } = globalThis;
  const heard = (event) => {
    // The first `pageshow` of a page says nothing, and after a `pagehide` for good there is nobody.
    if (event.persisted !== false) {
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
  const listen = (source, ...names) => names.forEach((name) => source?.addEventListener?.(name, heard, { signal }));
  listen(globalThis, "online", "pageshow", "pagehide");
  listen(page, "visibilitychange", "resume");
  listen(machine?.connection, "change");
};

/** Close codes after which only the application may connect again: each would be refused again, or would take the session from another tab. */
const FINAL = [1000, 4400, 4401, 4402, 4403];
/** A session that lasted so long, in milliseconds, and was sent away by the gateway or outlived its token, did not fail. */
const BRIEF = 2000;
/** So many refusals in a row by a gateway that is there have another reason than the network. */
const REFUSALS = 3;
/** First pause before another try to move, in milliseconds, half of it random; doubles. The pod met may be draining too. */
const MOVE_PAUSE = 400;
/** Longest time that the socket before is read after a move, in milliseconds: the gateway closes it when all was written. */
const LINGER = 5000;
/** So long a socket may take to answer, in milliseconds, where there is reason to doubt it. */
const QUICK = 3000;
/** One session, kept open. Gives what opens, ends, and chooses a chat. */
const session = (page, options) => {
  // At most two are not gone: the main one, by which messages go, and either the next, which is on its way, or the old one, still
  // read.
  let main = { gone: true };
  let coming = null;
  let old = main;
  // While the gateway's wish to move is open: the pause before another try, and when there is none any more.
  let pause = 0;
  let until = 0;
  let failures = 0;
  let refused = 0;
  let before = false;
  /** Does the gateway want to be left alone? */
  let away = false;
  /** The chat that the gateway has confirmed last, and how many choices it has yet to answer. */
  let sure = null;
  let unanswered = 0;
  let life;
  const renewed = typeof options.token === "function";
  const [after, stop, quit] = timers();
  const tell = (kind, body) => {
    options.log?.(kind, body);
    page.dispatchEvent(new CustomEvent(kind, { detail: body }));
  };
  const write = (kind, body) => {
    const { ws, since } = main;
    if (since >= 0 && ws.readyState === 1) {
      ws.send(JSON.stringify({ type: kind, payload: body }));
    }
  };
  const choose = () => {
    unanswered++;
    write("select_chat", { chat_id: page.chat });
  };
  /** Asks for a sign of life. A timer that slept proves nothing: it asks once more. */
  const doubt = (wait, again) => {
    write("ready");
    after(ANSWER, wait, (slept) => slept && !again ? doubt(QUICK, true) : lost(main, 4000, "silent"));
  };
  const drop = (link, how = 4000) => {
    const { ws } = link;
    if (!link.gone) {
      link.gone = true;
      stop(OTHER);
      if (ws) {
        // It may take minutes to say goodbye over a dead connection: nobody listens any more.
        ws.onopen = ws.onmessage = ws.onclose = null;
        ws.close(how);
      }
    }
  };
  const [take, settle, show, where, recall] = cursor(page, options, tell, after, () => write("ready"), () => drop(old));
  const become = (now) => {
    if (now !== page.state) {
      page.state = now;
      tell("state", { state: now });
    }
  };
  const leave = (how) => {
    [main, coming || old, old].forEach((link) => drop(link, how));
    coming = null;
    pause = 0;
    quit();
    show();
  };
  const end = (last) => {
    life?.abort();
    if (page.state !== "closed") {
      become("closed");
      tell("close", last);
    }
  };
  /** Gives the main attempt so long. */
  const limit = (wait) => after(CONNECT, wait, () => lost(main, 4000, "connect-timeout"));
  const begin = (link) => {
    main = link;
    limit(options.connectTimeout);
  };
  const lost = (link, how, words = "", wait = 0) => {
    const second = coming;
    if (link.gone) {
      return;
    }
    const ends = FINAL.includes(how) && !(link.ws && how === 4403 && renewed);
    const roll = (options.random || Math.random)();
    if (link === old || link === second && !ends) {
      drop(link);
      if (link === second) {
        coming = null;
        const rest = pause * (0.5 + roll / 2);
        pause *= 2;
        if (Date.now() + rest < until) {
          after(RETRY, rest, () => open(true));
        }
        else {
          pause = 0;
        }
      }
      return;
    }
    // Whoever is given these may close all.
    show();
    if (link.gone) {
      return;
    }
    if (how === 1009) {
      // Only a choice can have been too long.
      page.chat = sure;
    }
    if (link !== second && second && (!ends || how === 4402)) {
      // The attempt under way goes on as the only one. Where the gateway has ended this one, the page need not know: that one
      // has the session already, or is about to.
      coming = null;
      leave(4000);
      begin(second);
      if (how !== 1001 && how !== 4402) {
        become("connecting");
      }
      return;
    }
    leave(4000);
    if (ends) {
      end({ code: how, reason: words, final: true, retryIn: null });
      return;
    }
    if (Date.now() - link.since > BRIEF && [1001, 4403].includes(how)) {
      failures = 0;
    }
    // 4429 says "slower", so its first wait is long; everybody gets a random part, or a fleet's clients would come back as one.
    const step = Math.min(options.maxDelay, options.minDelay * 2 ** Math.min(failures + (how === 4429 ? 4 : 0), 20));
    failures++;
    const rest = Math.round(wait ? Math.max(wait, step) * (1 + roll / 4) : step * (0.5 + roll / 2));
    away = wait > 0;
    become("waiting");
    tell("close", { code: how, reason: words, final: false, retryIn: rest });
    if (page.state === "waiting") {
      after(RETRY, rest, () => open());
    }
  };
  const open = async (moving) => {
    const link = {};
    stop(RETRY);
    if (moving) {
      coming = link;
      after(OTHER, options.connectTimeout / 3, () => lost(link, 4000));
    }
    else {
      begin(link);
      become("connecting");
    }
    let fatal = 0;
    try {
      const href = String(await current(options.url));
      const key = await current(options.apiKey);
      const pass = await current(options.token);
      if (link.gone) {
        return;
      }
      // What fails from here on fails every time.
      fatal = 4400;
      recall(`dws:${options.user}@${href.split("?")[0].split("//")[1]}`);
      // A chat that no gateway has confirmed goes with the first attempt only: it may be why that was refused. Selected after
      // `ready` it costs an error.
      const socket = link.ws = new (options.WebSocket || WebSocket)(address(href, [["move", 1], ["resume", where()], ["chat", moving || failures ? sure : page.chat]]), [options.protocols || "json.v1"].flat().concat(secret("key", btoa(key)), secret("token", pass)));
      let opened = false;
      // Where sockets are emitters, an error that nobody hears ends the process; one comes even of a socket that was dropped.
      socket.onerror = () => { };
      socket.onopen = () => (opened = true);
      socket.onmessage = ({ data }) => hear(link, data);
      socket.onclose = async ({ code: how, reason: words }) => {
        // Where there is another socket, nobody stays away.
        const wait = opened && how !== 1013 || link !== main || coming ? 0 : await patience(href, options.fetch || fetch);
        if (!opened && wait === 0 && link === main && !link.gone && ++refused === REFUSALS) {
          tell("error", { code: "Refused", message: "refused by a gateway that is there: key, token or origin?" });
        }
        lost(link, how, words, wait);
      };
    }
    catch (error) {
      if (!link.gone) {
        const wrong = error;
        const how = fatal || (wrong?.final ? 4403 : 4000);
        if (how !== 4000 || link === main) {
          tell("error", { code: "ConnectFailed", message: String(wrong?.message || wrong) });
        }
        lost(link, how, fatal ? "bad-options" : "no-token");
      }
    }
  };
  const ready = (link, body) => {
    stop(CONNECT);
    link.since = Date.now();
    // After a move that went well the page has nothing to do, and is told nothing.
    const quiet = page.state === "ready" && body.resumed;
    const again = before;
    before = true;
    unanswered = refused = 0;
    after(STABLE, options.stableAfter, () => {
      failures = 0;
      if (!where()) {
        // A pod that has just begun knows no place yet when it says `ready`.
        write("ready");
      }
    });
    become("ready");
    const told = sure;
    sure = body.chat_id || null;
    page.chat ||= sure;
    if (page.chat !== sure) {
      choose();
    }
    if (!quiet) {
      tell("ready", { ...body, pod: body.pod_id, chat: page.chat, reconnected: again, lastSeq: page.lastSeq });
    }
    // Of a choice that the socket before did not confirm in time, this is the confirmation.
    if (sure && page.chat === sure && !(quiet && told === sure)) {
      tell("chat", { chat_id: sure });
    }
  };
  const hear = (link, raw) => {
    let frame;
    try {
      frame = JSON.parse(raw);
    }
    catch {
      return;
    }
    const kind = frame.type;
    const body = (frame.payload || {});
    if (link === old) {
      // It may be sooner with an event, and has no other say. Where the main one has `resumed`, that brings all after the
      // cursor it was opened with; where it has not, the page was told. So a gap here loses nothing and is not told. But then a
      // `safe` here, which may stand behind such a gap, must not count: the cursor would pass what the main one has yet to
      // bring. An event at or below the cursor has come before, and one without a number comes on the main one too, where it
      // can't be told from this.
      if (kind === "event" && frame.seq >= 0) {
        frame.safe = 0;
        take(raw, frame, true);
      }
      return;
    }
    if (link === coming) {
      if (kind !== "ready") {
        return;
      }
      // It has the session. From here on each of its `safe` holds for this client: up to the cursor that it was opened with all
      // had come, and what is above it comes on this one, in order, whatever the one before still brings. That one's own `safe`
      // held until now: it was read all the time, and this one says nothing before its `ready`.
      old = main;
      main = link;
      coming = null;
      pause = 0;
      after(OTHER, LINGER, () => drop(old));
    }
    stop(ANSWER);
    after(IDLE, options.idle, (slept) => doubt(slept ? QUICK : options.answerTimeout));
    if (kind === "event") {
      if (frame.safe >= 0 && !where() && !link.asked) {
        // The pod knows by now where the stream is.
        link.asked = true;
        write("ready");
      }
      take(raw, frame);
    }
    else if (kind === "gap") {
      show();
      tell(kind, body);
    }
    else if (kind === "error") {
      if (unanswered && body.code !== "InvalidToken" && !--unanswered && body.code === "BadRequest") {
        // It would be refused by every gateway.
        page.chat = sure;
      }
      tell(kind, body);
    }
    else if (kind === "chat_selected") {
      const stale = coming?.ws && body.chat_id !== sure;
      unanswered &&= unanswered - 1;
      sure = body.chat_id;
      if (stale) {
        // It unanswered for the chat before: messages of this one would be missed between the end of this socket and a choice on
        // that.
        drop(coming);
        open(true);
      }
      tell("chat", body);
    }
    else if (kind === "move") {
      if (!pause) {
        pause = MOVE_PAUSE;
        until = Date.now() + body.within_ms;
        drop(old);
        open(true);
      }
    }
    else if (kind === "token_expiring") {
      if (renewed) {
        after(RENEW, body.in_seconds < 30 ? body.in_seconds * 500 : 0, async () => {
          try {
            write("auth", { token: await current(options.token) });
          }
          catch {
            // Then it is unanswered again when the time is over.
          }
        });
      }
    }
    else if (kind === "ready") {
      settle(body, !(link.since >= 0));
      if (!link.gone && !(link.since >= 0)) {
        ready(link, body);
      }
    }
  };
  const wake = () => {
    if (page.state === "waiting") {
      if (!away) {
        open();
      }
    }
    else if (main.since >= 0) {
      doubt(QUICK);
    }
    else {
      limit(options.connectTimeout / 3);
    }
  };
  const finish = () => {
    leave(1000);
    end({ code: 1000, reason: "client-closed", final: true, retryIn: null });
  };
  return [
    () => {
      const ending = options.signal;
      if (page.state === "waiting") {
        open();
      }
      else if (page.state === "ready") {
        wake();
      }
      else if (page.state === "closed" && !ending?.aborted) {
        failures = 0;
        life = new AbortController();
        ending?.addEventListener("abort", finish, life);
        signs(life.signal, show, wake, () => {
          if (coming) {
            drop(coming);
          }
          coming = null;
          lost(main, 4000, "page-hidden");
        });
        open();
      }
    },
    finish,
    (wanted) => {
      page.chat = wanted;
      choose();
    },
  ];
};

/** One session, kept open. `Payload` is what the publisher sends. */
export class GatewayClient extends EventTarget {
  state = "closed";
  chat;
  /** Highest sequence that this client has shown, 0 if none. */
  lastSeq = 0;
  #session;
  constructor(options) {
    super();
    this.chat = options.chat || null;
    this.#session = session(this, settings(options));
  }
  /**
   * Opens the session; the way to begin again after a final close. While it waits for another attempt, that is made now; an open
   * one is asked whether it still is.
   */
  connect() {
    this.#session[0]();
    return this;
  }
  /** Ends the session; nothing is tried again. */
  close() {
    this.#session[1]();
  }
  /** Asks for the messages of this chat in place of the one before; kept over reconnects until another is chosen or it is refused. */
  selectChat(chat) {
    this.#session[2](chat);
  }
}
/** Makes a client and opens its session. Listeners added in the same turn miss nothing. */
export function connect(options) {
  return new GatewayClient(options).connect();
}
