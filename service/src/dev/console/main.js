// The page: draws the status twice a second, and turns buttons into calls.

import { call, fleet, isUp, publish, refresh } from "./api.js";
import { sample } from "./charts.js";
import { $, choices, el, say } from "./dom.js";
import * as events from "./events.js";
import { latencies, open, seen, update } from "./sockets.js";

const PERIOD = 500;
const BURST = 50;
const pods = new Map();

const ACTIONS = {
  freeze: ["Freeze", "running", "Its sockets and peers' calls stand still, and it is cut off from store and stream"],
  thaw: ["Thaw", "frozen", "It goes on where it stood"],
  drain: ["Drain", "running", "Ends it as SIGTERM does: sockets are asked to move, and who can't is told 1001"],
  kill: ["Kill", "running frozen draining", "Ends it as SIGKILL does: it tells nobody"],
  start: ["Start", "stopped", "A new process under the same name and port"],
};

function fail(error) {
  const notice = $("#notice");
  notice.hidden = !error;
  if (error) say(notice, error.message ?? String(error));
}

const attempt = (work) => async (event) => {
  event?.preventDefault();
  try {
    await work();
    fail(null);
  } catch (error) {
    fail(error);
  }
  await refresh().then(draw).catch(() => {});
};

function podCard(id) {
  const figure = (label) => {
    const value = el("b", {}, "0");
    return [value, el("div", {}, value, el("span", {}, label))];
  };
  const [sockets, socketsBox] = figure("sockets");
  const [taken, takenBox] = figure("taken");
  const [handed, handedBox] = figure("forwarded");
  const [sent, sentBox] = figure("delivered");
  const badge = el("span", { class: "badge" });
  const address = el("span", { class: "address" });
  const buttons = Object.entries(ACTIONS).map(([action, [label, , title]]) =>
    el("button", { type: "button", class: `small ${action}`, title, onclick: attempt(() => call(`/dev/pods/${id}/${action}`, { body: "", avoid: id })) }, label));
  const node = el("article", { class: "pod", "data-pod": id, pod: id }, el("header", {}, el("h3", {}, id), badge), address,
    el("div", { class: "figures" }, socketsBox, takenBox, handedBox, sentBox), el("div", { class: "row" }, ...buttons));
  $("#pods").append(node);
  return (pod) => {
    const state = pod.phase === "running" && !pod.ready ? "unready" : pod.phase;
    node.className = `pod is-${pod.phase}`;
    node.dataset.phase = pod.phase;
    node.dataset.ready = pod.ready;
    badge.className = `badge ${state}`;
    say(badge, state === "unready" ? "not ready" : state);
    say(address, `${pod.address} · sees ${pod.peers} ${pod.peers === 1 ? "peer" : "peers"}${pod.lapsed ? ` · ${pod.lapsed} lapsed` : ""}${pod.parked ? ` · ${pod.parked} parked` : ""}${pod.asked ? ` · ${pod.moved} of ${pod.asked} moved` : ""}`);
    say(sockets, pod.sockets);
    say(taken, pod.taken);
    say(handed, pod.handed_over);
    say(sent, pod.sent);
    const last = isUp(pod) && fleet.pods.filter(isUp).length === 1;
    Object.entries(ACTIONS).forEach(([action, [, phases, title]], index) => {
      buttons[index].hidden = !phases.includes(pod.phase);
      buttons[index].disabled = last && action !== "start";
      buttons[index].title = last ? "The last pod that answers: this page lives on it" : title;
    });
  };
}

const BACKENDS = { store: ["Sessions", "Redis"], stream: ["Events", "NATS"] };
const backends = Object.fromEntries(Object.entries(BACKENDS).map(([name, [label, server]]) => {
  const badge = el("span", { class: "badge" });
  const toggle = el("button", { type: "button", class: "small toggle" });
  const flush = name === "store" ? el("button", { type: "button", class: "small flush", title: "It comes back empty, as one without persistence does", onclick: attempt(() => call("/dev/store/flush", { body: "" })) }, "Empty it") : null;
  toggle.addEventListener("click", attempt(() => call(`/dev/${name}/${fleet[name].down ? "up" : "down"}`, { body: "" })));
  const title = el("b", {});
  $("#backends").append(el("li", { "data-backend": name }, title, badge, toggle, flush));
  return [name, (backend) => {
    const real = backend.down === null;
    say(title, real ? `${label}: ${backend.kind}` : `${label}: memory, for ${server}`);
    badge.className = `badge ${backend.down ? "down" : "up"}`;
    badge.hidden = real;
    say(badge, backend.down ? "away" : "up");
    say(toggle, backend.down ? "Bring back" : "Take away");
    for (const button of [toggle, flush].filter(Boolean)) {
      button.disabled = real;
      if (real) button.title = "A real server: stop that one instead";
    }
  }];
}));

function draw() {
  for (const pod of fleet.pods) {
    if (!pods.has(pod.id)) pods.set(pod.id, podCard(pod.id));
    pods.get(pod.id)(pod);
  }
  choices($("#open").elements.pod, fleet.pods.map((pod) => [pod.id, pod.id]));
  for (const name of Object.keys(BACKENDS)) backends[name](fleet[name]);
  update();
}

async function tick() {
  try {
    await refresh();
    if (document.body.dataset.lost) {
      delete document.body.dataset.lost;
      fail(null);
    }
    draw();
    sample(fleet, { ...seen, latencies: latencies() });
  } catch {
    document.body.dataset.lost = "true";
    fail("No pod answers. If the fleet was ended, start it again and reload this page.");
  }
  setTimeout(tick, PERIOD);
}

const form = $("#publish");
const fields = form.elements;
let text = 0;

/** Fills the form with a new event of the chosen kind. */
function fill() {
  const kind = fields.kind.value;
  form.querySelectorAll(".for-messages").forEach((label) => {
    label.hidden = kind === "agents";
  });
  say($("#audience"), events.AUDIENCE[kind]);
  fields.subject.value = events.subject(kind, fields.chat.value);
  fields.event.value = JSON.stringify(events.event(kind, fields.chat.value, fields.text.value), null, 2);
}

async function publishOne() {
  const seq = await publish(fields.subject.value, fields.event.value);
  say($("#published"), `stored as ${seq}`);
}

choices(fields.chat, events.CHATS);
fields.text.value = events.TEXTS[0];
form.addEventListener("change", (event) => {
  if (["kind", "chat", "text"].includes(event.target.name)) fill();
});
form.addEventListener("submit", attempt(async () => {
  await publishOne();
  fields.text.value = events.TEXTS[++text % events.TEXTS.length];
  fill();
}));
$("#burst").addEventListener("click", attempt(async () => {
  for (let n = 0; n < BURST; n++) {
    await publishOne();
    fill();
  }
}));
fill();

const opening = $("#open");
choices(opening.elements.who, Object.entries(events.PEOPLE).map(([name, person]) => [name, person.label]));
opening.addEventListener("submit", (event) => {
  event.preventDefault();
  const { who, pod, life } = opening.elements;
  open(events.PEOPLE[who.value], pod.value, Number(life.value));
  // The next one is for somebody else on another pod, as that is what is worth a look.
  who.selectedIndex = (who.selectedIndex + 1) % who.length;
  pod.selectedIndex = (pod.selectedIndex + 1) % pod.length;
});

tick();
