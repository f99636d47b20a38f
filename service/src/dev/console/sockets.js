// The sockets of this page: one card each, on the same client that any page may use.

import { GatewayClient } from "/client.js";
import { fleet, isUp, podOf, refresh, takes, token } from "./api.js";
import { $, choices, el, podColor, say } from "./dom.js";
import { AGENT, CHATS, COMPANY, summary } from "./events.js";

const LOG_LINES = 60;
const LATENCY_WINDOW = 10_000;
/** What is said of events that were read again from the stream. */
const MARKS = {
  replayed: "Missed while this socket was away",
  mended: "Missed by its pod or its mailbox: a gap that was mended",
};
const cards = new Set();
let numbers = 0;

/** What all sockets of the page saw. */
export const seen = { gaps: 0, closes: 0, samples: [] };
export const latencies = () => {
  const since = performance.now() - LATENCY_WINDOW;
  seen.samples = seen.samples.filter((sample) => sample.at >= since);
  return seen.samples.map((sample) => sample.ms);
};

const clock = () => performance.timeOrigin + performance.now();

/** A WebSocket whose frames are looked at too: a client that moves says nothing of it, and this page is there to show it. */
const overheard = (hear) => class extends WebSocket {
  constructor(...args) {
    super(...args);
    this.addEventListener("message", ({ data }) => ["ready", "move"].some((type) => data.startsWith(`{"type":"${type}"`)) && hear(JSON.parse(data)));
  }
};

class Card {
  #asked;
  #log;
  #waiting = new Map();
  /** Of the replayed events, how many come because this socket was away; others mend a gap. */
  #missed = 0;

  constructor(person, pod, life) {
    this.person = person;
    this.wanted = pod;
    const number = ++numbers;
    this.badge = el("span", { class: "badge" });
    this.pod = el("span", { class: "on-pod" });
    this.chat = el("span", { class: "muted chat" });
    this.#log = el("ol", { class: "log", reversed: true, "aria-label": `Events of ${person.name}` });
    this.select = el("select", { "aria-label": "Chat", onchange: () => this.select.value && this.client.selectChat(this.select.value) });
    choices(this.select, [["", "Select a chat…"], ...CHATS]);
    this.again = el("button", { type: "button", class: "small", onclick: () => this.client.connect() }, "Connect again");
    const takeOver = () => {
      const others = fleet.pods.filter((other) => isUp(other) && other.id !== this.current);
      open(person, (others[0] ?? podOf(this.current) ?? fleet.pods[0]).id, life);
    };
    this.takeOver = el("button", { type: "button", class: "small take-over", title: "The same user opens a socket on another pod", onclick: takeOver }, "Take over");
    this.node = el("article", { class: "socket", "data-user": person.name, "data-number": number },
      el("header", {}, el("h3", {}, `${person.name} `, el("span", { class: "muted" }, `#${number}`)), this.badge),
      el("div", { class: "sub" }, this.pod, this.chat),
      el("div", { class: "row" },
        person.kind === "user" ? this.select : null,
        this.takeOver,
        this.again,
        el("button", { type: "button", class: "small close", onclick: () => this.remove() }, "Close")),
      this.#log);
    this.client = new GatewayClient({
      url: () => this.#url(),
      apiKey: fleet.api_key,
      token: () => token(person.kind, person.kind === "admin"
        ? { admin_id: person.name, expires_in_seconds: life }
        : { company_id: COMPANY, agent_id: AGENT, user_id: person.name, expires_in_seconds: life }),
      // The page shows latencies, so it waits less for stragglers than others do.
      hold: 5,
      WebSocket: overheard((frame) => this.#overhear(frame)),
      // A frozen pod is taken for dead sooner than its sockets leave it: time to thaw it and see the gap.
      idle: 20_000,
      answerTimeout: 10_000,
      connectTimeout: 8_000,
    });
    for (const type of ["state", "ready", "event", "gap", "chat", "error", "close"]) {
      this.client.addEventListener(type, ({ detail }) => this[`on_${type}`](detail));
    }
    this.client.connect();
  }

  /** The wanted pod while it is up, else another, as a load balancer would do. */
  #url() {
    const there = podOf(this.wanted);
    const pod = (there && isUp(there)) ? there : fleet.pods.find(isUp) ?? there;
    this.#asked = pod.id;
    return `ws://${pod.address}${this.person.kind === "admin" ? "/ws/admin" : `/ws/${COMPANY}/${AGENT}`}`;
  }

  on_state({ state }) {
    this.badge.className = `badge ${state}`;
    say(this.badge, state);
    this.node.dataset.state = state;
    this.again.hidden = state !== "closed";
    this.takeOver.hidden = state === "closed";
  }

  #overhear({ type, payload }) {
    if (type === "move") {
      this.#note(`asked to move (${payload.reason}), within ${Math.round(payload.within_ms / 1000)} s`);
    } else if (type === "ready" && payload?.pod_id && this.client.state === "ready") {
      this.#live(payload.pod_id);
      this.#note(`moved to ${payload.pod_id}, ${payload.replayed ?? 0} replayed`);
    }
  }

  #live(pod) {
    this.current = pod;
    this.node.dataset.pod = pod;
    this.mark();
    this.pod.style.setProperty("--pod", podColor(pod));
  }

  on_ready({ pod, chat, reconnected, resumed, replayed, reason }) {
    this.#live(pod);
    this.#missed = replayed ?? 0;
    this.#show(chat);
    const missed = replayed ? `resumed, what was missed follows (${replayed} replayed)` : "resumed, nothing was missed";
    const what = resumed ? missed : `load the state anew${reason ? ` (${reason})` : ""}`;
    this.node.dataset.resumed = !!resumed;
    this.#note(reconnected ? `ready again on ${pod}: ${what}` : `ready on ${pod}`);
  }

  /** Says what the pod of this socket does, where that is not its best. */
  mark() {
    const phase = podOf(this.current)?.phase;
    if (this.current) say(this.pod, phase && phase !== "running" ? `${this.current} (${phase})` : this.current);
  }

  on_chat({ chat_id }) {
    this.#show(chat_id);
    this.#note(`chat selected: ${chat_id}`);
  }

  #show(chat) {
    if (this.person.kind === "admin") return;
    say(this.chat, chat ? "" : "no chat selected");
    this.node.dataset.chat = chat ?? "";
    this.select.value = CHATS.some(([id]) => id === chat) ? chat : "";
  }

  on_event({ seq, payload, late, replayed }) {
    const arrived = clock();
    const mark = replayed && (this.#missed-- > 0 ? "replayed" : "mended");
    if (!replayed) this.#missed = 0;
    const way = el("span", { class: "way" }, "…");
    const took = el("span", { class: "took" });
    const badge = mark ? el("span", { class: "mark", title: MARKS[mark] }, mark) : null;
    const line = el("li", { class: "event", "data-seq": seq, "data-mark": mark }, el("span", { class: "seq" }, String(seq ?? "–")),
      el("span", { class: "what", title: summary(payload) }, badge, summary(payload)), took, way);
    this.#add(line);
    this.#waiting.set(seq, { line, way, took, arrived, pod: this.current, late, replayed });
    this.explain();
    if (this.#waiting.size) refresh().catch(() => {});
  }

  /** Completes lines as it becomes known which pod took their events. */
  explain() {
    for (const [seq, { line, way, took, arrived, pod, late, replayed }] of this.#waiting) {
      const take = takes.get(seq);
      if (!take && fleet.stream.kind === "memory" && clock() - arrived < 5000) continue;
      this.#waiting.delete(seq);
      if (!take) {
        say(way, fleet.stream.kind === "memory" ? "way unknown" : "way not known with a real NATS");
        continue;
      }
      const ms = Math.max(0, arrived - take.stored_at_ms);
      // How long one was away is no latency.
      if (!replayed) seen.samples.push({ at: performance.now(), ms });
      say(took, `${ms < 100 ? ms.toFixed(1) : Math.round(ms)} ms`);
      const forwarded = take.pod !== pod;
      line.dataset.path = forwarded ? "forwarded" : "local";
      way.classList.toggle("forwarded", forwarded);
      say(way, `${forwarded ? `forwarded: ${take.pod} → ${pod}` : `local on ${pod}`}${late ? ", late" : ""}`);
    }
  }

  on_gap({ dropped, first_seq, last_seq, reason }) {
    seen.gaps++;
    const range = first_seq === null ? "" : `, ${first_seq} to ${last_seq}`;
    this.#note(`gap: ${dropped ?? "an unknown number of"} events lost${range} (${reason})`, "gap");
  }

  on_error({ code, message }) {
    this.#note(`${code}: ${message}`, "warn");
  }

  on_close({ code, reason, final, retryIn }) {
    seen.closes++;
    this.node.dataset.code = code;
    const next = final ? "stays closed" : `tries again in ${(retryIn / 1000).toFixed(1)} s`;
    this.#note(`closed with ${code}${reason ? ` ${reason}` : ""}; ${next}`, final && code !== 1000 ? "bad" : "warn");
  }

  #note(text, kind = "") {
    this.#add(el("li", { class: "line" }, el("span", { class: `note ${kind}` }, text)));
  }

  #add(line) {
    this.#log.prepend(line);
    while (this.#log.children.length > LOG_LINES) this.#log.lastChild.remove();
  }

  remove() {
    cards.delete(this);
    this.client.close();
    this.node.remove();
    arrange();
  }
}

function arrange() {
  $("#no-sockets").hidden = cards.size > 0;
}

/** Opens a socket for a person on a pod. */
export function open(person, pod, life) {
  const card = new Card(person, pod, life);
  cards.add(card);
  $("#sockets").prepend(card.node);
  arrange();
}

/** Brings the cards up to what is known now. */
export function update() {
  for (const card of cards) {
    card.mark();
    card.explain();
  }
}
