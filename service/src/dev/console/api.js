// The fleet's control calls. Any pod answers them, so that the page lives on when the pod that served it is stopped or frozen.

/** The last status; filled by the first refresh. */
export let fleet = { pods: [], store: {}, stream: {}, takes: [] };

/** Which pod took an event from the stream, and when it was stored: seq → {pod, stored_at_ms}. */
export const takes = new Map();

const TIMEOUT = 1500;
const KEPT_TAKES = 2000;
let good = location.origin;
let last = 0;
let refreshing = null;

const base = (pod) => `http://${pod.address}`;
export const isUp = (pod) => pod.phase === "running";
export const podOf = (id) => fleet.pods.find((pod) => pod.id === id);

async function ask(origin, path, body) {
  const answer = await fetch(origin + path, { method: body === undefined ? "GET" : "POST", body, signal: AbortSignal.timeout(TIMEOUT) });
  const value = await answer.json();
  if (!answer.ok) throw Object.assign(new Error([value.message, value.details].filter(Boolean).join(": ")), { answered: true });
  good = origin;
  return value;
}

/** Asks pods one after another until one answers; not `avoid`, which may be about to go. */
export async function call(path, { body, avoid } = {}) {
  const up = fleet.pods.filter((pod) => isUp(pod) && pod.id !== avoid).map(base);
  const gone = avoid && podOf(avoid) && base(podOf(avoid));
  const candidates = fleet.pods.length && body !== undefined ? [...up] : [good, ...up, ...fleet.pods.map(base)];
  let failure = new Error("no pod answers");
  for (const origin of new Set(candidates.filter((origin) => origin !== gone || candidates.length === 1))) {
    try {
      return await ask(origin, path, body);
    } catch (error) {
      failure = error;
      if (error.answered) break;
    }
  }
  throw failure;
}

/** Reads the status anew; calls that overlap share one. */
export function refresh() {
  refreshing ??= call(`/dev/status?after=${last}`).then((status) => {
    fleet = status;
    for (const take of status.takes) {
      takes.set(take.seq, take);
      last = Math.max(last, take.seq);
    }
    for (const seq of takes.keys()) {
      if (takes.size <= KEPT_TAKES) break;
      takes.delete(seq);
    }
    return status;
  }).finally(() => {
    refreshing = null;
  });
  return refreshing;
}

export const token = async (kind, claims) => (await call(`/dev/tokens/${kind}`, { body: JSON.stringify(claims) })).token;
export const publish = async (subject, event) => (await call(`/dev/publish/${encodeURIComponent(subject)}`, { body: event })).seq;
