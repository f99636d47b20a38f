import { address, current, patience, secret } from "./attempt.js";
import { cursor, type Frame, type Place } from "./cursor.js";
import { signs } from "./signs.js";
import { ANSWER, CONNECT, IDLE, OTHER, RENEW, RETRY, STABLE, timers } from "./timers.js";
import type { Page, Settings, Socket } from "./runtime.js";
import type { CloseDetail, GatewayEventMap, GatewayState } from "./types.js";

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

/** An attempt: its socket once there is one, since when it is `ready`, and whether nobody listens to it any more. */
interface Link {
  ws?: Socket;
  since?: number;
  asked?: boolean;
  gone?: boolean;
}

/** One session, kept open. Gives what opens, ends, and chooses a chat. */
export const session = (page: Page, options: Settings): [() => void, () => void, (chat: string) => void] => {
  // At most two are not gone: the main one, by which messages go, and either the next, which is on its way, or the old one, still
  // read.
  let main: Link = { gone: true };
  let coming: Link | null = null;
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
  let sure: string | null = null;
  let unanswered = 0;
  let life: AbortController | undefined;
  const renewed = typeof options.token === "function";
  const [after, stop, quit] = timers();

  const tell = (kind: keyof GatewayEventMap, body: object): void => {
    options.log?.(kind, body);
    page.dispatchEvent(new CustomEvent(kind, { detail: body }));
  };

  const write = (kind: string, body?: object): void => {
    const { ws, since } = main;
    if (since! >= 0 && ws!.readyState === 1) {
      ws!.send(JSON.stringify({ type: kind, payload: body }));
    }
  };

  const choose = (): void => {
    unanswered++;
    write("select_chat", { chat_id: page.chat });
  };

  /** Asks for a sign of life. A timer that slept proves nothing: it asks once more. */
  const doubt = (wait: number, again?: boolean): void => {
    write("ready");
    after(ANSWER, wait, (slept) => slept && !again ? doubt(QUICK, true) : lost(main, 4000, "silent"));
  };

  const drop = (link: Link, how = 4000): void => {
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

  const become = (now: GatewayState): void => {
    if (now !== page.state) {
      page.state = now;
      tell("state", { state: now });
    }
  };

  const leave = (how: number): void => {
    [main, coming || old, old].forEach((link) => drop(link, how));
    coming = null;
    pause = 0;
    quit();
    show();
  };

  const end = (last: CloseDetail): void => {
    life?.abort();
    if (page.state !== "closed") {
      become("closed");
      tell("close", last);
    }
  };

  /** Gives the main attempt so long. */
  const limit = (wait: number): void => after(CONNECT, wait, () => lost(main, 4000, "connect-timeout"));

  const begin = (link: Link): void => {
    main = link;
    limit(options.connectTimeout);
  };

  const lost = (link: Link, how: number, words = "", wait: number | void = 0): void => {
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
        } else {
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
    if (Date.now() - link.since! > BRIEF && [1001, 4403].includes(how)) {
      failures = 0;
    }
    // 4429 says "slower", so its first wait is long; everybody gets a random part, or a fleet's clients would come back as one.
    const step = Math.min(options.maxDelay, options.minDelay * 2 ** Math.min(failures + (how === 4429 ? 4 : 0), 20));
    failures++;
    const rest = Math.round(wait ? Math.max(wait, step) * (1 + roll / 4) : step * (0.5 + roll / 2));
    away = wait! > 0;
    become("waiting");
    tell("close", { code: how, reason: words, final: false, retryIn: rest });
    if (page.state === "waiting") {
      after(RETRY, rest, () => open());
    }
  };

  const open = async (moving?: boolean): Promise<void> => {
    const link: Link = {};
    stop(RETRY);
    if (moving) {
      coming = link;
      after(OTHER, options.connectTimeout / 3, () => lost(link, 4000));
    } else {
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
      recall(`dws:${options.user}@${href.split("?")[0]!.split("//")[1]}`);
      // A chat that no gateway has confirmed goes with the first attempt only: it may be why that was refused. Selected after
      // `ready` it costs an error.
      const socket = link.ws = new (options.WebSocket || WebSocket)(
        address(href, [["move", 1], ["resume", where()], ["chat", moving || failures ? sure : page.chat]]),
        [options.protocols || "json.v1"].flat().concat(secret("key", btoa(key)), secret("token", pass)),
      ) as unknown as Socket;
      let opened = false;
      // Where sockets are emitters, an error that nobody hears ends the process; one comes even of a socket that was dropped.
      socket.onerror = () => {};
      socket.onopen = () => (opened = true);
      socket.onmessage = ({ data }) => hear(link, data as string);
      socket.onclose = async ({ code: how, reason: words }) => {
        // Where there is another socket, nobody stays away.
        const wait = opened && how !== 1013 || link !== main || coming ? 0 : await patience(href, options.fetch || fetch);
        if (!opened && wait === 0 && link === main && !link.gone && ++refused === REFUSALS) {
          tell("error", { code: "Refused", message: "refused by a gateway that is there: key, token or origin?" });
        }
        lost(link, how, words, wait);
      };
    } catch (error) {
      if (!link.gone) {
        const wrong = error as { final?: boolean; message?: string } | undefined;
        const how = fatal || (wrong?.final ? 4403 : 4000);
        if (how !== 4000 || link === main) {
          tell("error", { code: "ConnectFailed", message: String(wrong?.message || wrong) });
        }
        lost(link, how, fatal ? "bad-options" : "no-token");
      }
    }
  };

  const ready = (link: Link, body: Body): void => {
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

  const hear = (link: Link, raw: string): void => {
    let frame: Frame;
    try {
      frame = JSON.parse(raw);
    } catch {
      return;
    }
    const kind = frame.type;
    const body = (frame.payload || {}) as Body;
    if (link === old) {
      // It may be sooner with an event, and has no other say. Where the main one has `resumed`, that brings all after the
      // cursor it was opened with; where it has not, the page was told. So a gap here loses nothing and is not told. But then a
      // `safe` here, which may stand behind such a gap, must not count: the cursor would pass what the main one has yet to
      // bring. An event at or below the cursor has come before, and one without a number comes on the main one too, where it
      // can't be told from this.
      if (kind === "event" && frame.seq! >= 0) {
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
      if (frame.safe! >= 0 && !where() && !link.asked) {
        // The pod knows by now where the stream is.
        link.asked = true;
        write("ready");
      }
      take(raw, frame);
    } else if (kind === "gap") {
      show();
      tell(kind, body);
    } else if (kind === "error") {
      if (unanswered && body.code !== "InvalidToken" && !--unanswered && body.code === "BadRequest") {
        // It would be refused by every gateway.
        page.chat = sure;
      }
      tell(kind, body);
    } else if (kind === "chat_selected") {
      const stale = coming?.ws && body.chat_id !== sure;
      unanswered &&= unanswered - 1;
      sure = body.chat_id!;
      if (stale) {
        // It unanswered for the chat before: messages of this one would be missed between the end of this socket and a choice on
        // that.
        drop(coming!);
        open(true);
      }
      tell("chat", body);
    } else if (kind === "move") {
      if (!pause) {
        pause = MOVE_PAUSE;
        until = Date.now() + body.within_ms!;
        drop(old);
        open(true);
      }
    } else if (kind === "token_expiring") {
      if (renewed) {
        after(RENEW, body.in_seconds! < 30 ? body.in_seconds! * 500 : 0, async () => {
          try {
            write("auth", { token: await current(options.token) });
          } catch {
            // Then it is unanswered again when the time is over.
          }
        });
      }
    } else if (kind === "ready") {
      settle(body, !(link.since! >= 0));
      if (!link.gone && !(link.since! >= 0)) {
        ready(link, body);
      }
    }
  };

  const wake = (): void => {
    if (page.state === "waiting") {
      if (!away) {
        open();
      }
    } else if (main.since! >= 0) {
      doubt(QUICK);
    } else {
      limit(options.connectTimeout / 3);
    }
  };

  const finish = (): void => {
    leave(1000);
    end({ code: 1000, reason: "client-closed", final: true, retryIn: null });
  };

  return [
    () => {
      const ending = options.signal;
      if (page.state === "waiting") {
        open();
      } else if (page.state === "ready") {
        wake();
      } else if (page.state === "closed" && !ending?.aborted) {
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

/** What any frame may say. */
interface Body extends Place {
  resumed?: boolean;
  pod_id?: string;
  chat_id?: string;
  code?: string;
  within_ms?: number;
  in_seconds?: number;
}
