"""The browser client in a real browser, on a fleet of real pods that are killed, drained and frozen under it.

    python3 service/web/test/real.py PROGRAM OUT [NAME...]

As browser.py, but the pods are processes on a real Redis and NATS, behind a balancer, and the page belongs to a site of another origin. In every test
events are published all the time; at its end the ledger of each client is held against what was sent. Every wait is for a condition, with a deadline.
"""

import base64
import pathlib
import signal
import sys
import time
import urllib.parse

from browser import Browser, until
from fleet import CHAT, RealFleet, now

# Of client.js, in milliseconds.
MIN_DELAY, MAX_DELAY, STABLE_AFTER = 500, 30000, 10000
CLIENTS = 12

PAGE = """
const { connect } = await import(`http://${GATEWAY}/client.js`);
const all = window.clients = {};
window.begin = (name, user, lives, options) => {
  const mine = all[name] = { attempts: [], states: [], ready: [], closes: [], gaps: [], seqs: [], chat: [], errors: [], sockets: [] };
  let asked = 0;
  mine.client = connect({
    url: `ws://${GATEWAY}/ws/acme/agent-7`,
    apiKey: API_KEY,
    token: async () => {
      if (mine.out) throw Object.assign(new Error("logged out"), { final: true });
      const life = lives[Math.min(asked++, lives.length - 1)];
      const answer = await fetch(`/token?user=${user}&life=${life}`);
      if (!answer.ok) throw new Error(await answer.text());
      return answer.text();
    },
    WebSocket: class extends WebSocket {
      constructor(...args) {
        super(...args);
        mine.attempts.push(Date.now());
        mine.sockets.push(this);
        // The page is told of no `ready` after a move that went well.
        this.addEventListener("message", ({ data }) => {
          if (data.startsWith('{"type":"ready"')) this.pod ??= JSON.parse(data).payload.pod_id;
        });
      }
    },
    ...options,
  });
  const note = (type, list, what) => mine.client.addEventListener(type, ({ detail }) => list.push({ at: Date.now(), ...what(detail) }));
  note("state", mine.states, (detail) => detail);
  note("ready", mine.ready, (detail) => detail);
  note("close", mine.closes, (detail) => detail);
  note("chat", mine.chat, (detail) => detail);
  note("error", mine.errors, (detail) => detail);
  note("gap", mine.gaps, (detail) => detail);
  note("event", mine.seqs, ({ seq, late, replayed }) => ({ seq, late, replayed: !!replayed }));
};
window.ledger = (name) => {
  const { client, sockets, ...lists } = all[name];
  return { name, state: client.state, chosen: client.chat, open: sockets.filter((one) => one.readyState < 2).length, ...lists };
};
/** The pod that has the session, as far as the page can know. */
window.podOf = ({ sockets }) => sockets.findLast((one) => one.readyState < 2 && one.pod)?.pod;
window.loaded = true;
"""


class Audience:
    """The clients of one page. They select a chat, or have the one restored that an earlier client of the same user selected."""

    def __init__(self, browser, fleet, users, lives=(600,), options=lambda _: {}, restored=False):
        self.browser, self.names = browser, list(users)
        browser.open(fleet.site.origin)
        until("the page has the client", lambda: browser.js("return !!window.loaded"))
        # One after the other, so that the balancer spreads them evenly.
        for number, user in enumerate(self.names):
            browser.js("window.begin(arguments[0], arguments[0], arguments[1], arguments[2])", user, list(lives),
                       {**({} if restored else {"chat": CHAT}), **options(number)})
            until(f"{user} is ready and has its chat", lambda: (ledger := self.ledger(user))["state"] == "ready" and (
                ledger["ready"][0].get("chat_id") == CHAT))
        self.begun = now()

    def ledger(self, name):
        return self.browser.js("return window.ledger(arguments[0])", name)

    def ledgers(self):
        return self.browser.js("return Object.keys(window.clients).map(window.ledger)")

    def on(self, pod):
        return self.browser.js("return Object.entries(window.clients).filter(([, c]) => window.podOf(c) === arguments[0]).map(([name]) => name)", pod.name)

    def all_ready_on(self, pods):
        return self.browser.js("return Object.values(window.clients).every((c) => c.client.state === 'ready' && arguments[0].includes(window.podOf(c)))",
                               [pod.name for pod in pods])

    def have(self, sent):
        """Waits until everybody who is ready has this event."""
        until(f"everybody has event {sent.seq}", lambda: self.browser.js(
            "return Object.values(window.clients).every((c) => c.client.state !== 'ready' || c.seqs.some((e) => e.seq === arguments[0]))", sent.seq))

    def go_on(self, traffic, events=10):
        """Events reach everybody who is ready, still or again."""
        first = len(traffic.sent)
        until("more events are sent", lambda: len(traffic.sent) >= first + events)
        self.have(traffic.sent[first + events - 1])


def mark(audience, traffic):
    """When the last event was sent that everybody surely has, with all before it."""
    audience.go_on(traffic, 3)
    return traffic.sent[-4].at


def allowed(milliseconds):
    """Attempts that the back-off allows in so long a time, every wait being the shortest that it may be."""
    count, passed, step = 0, 0, MIN_DELAY
    while (passed := passed + step / 2) <= milliseconds:
        count, step = count + 1, min(MAX_DELAY, step * 2)
    return count


def holds_back(ledger, moves=0):
    """Each wait is as long as the failures before it demand, and is waited for. Moves are attempts that no close goes before."""
    failures, waits = 0, []
    for number, close in enumerate(ledger["closes"]):
        opened = [ready["at"] for ready in ledger["ready"] if ready["at"] <= close["at"]]
        if opened and close["at"] - opened[-1] >= STABLE_AFTER - 100:
            failures = 0
        if close["final"]:
            failures = 0
            continue
        step = min(MAX_DELAY, MIN_DELAY * 2 ** failures)
        assert close["retryIn"] >= step / 2 - 1, (ledger["name"], step, ledger["closes"])
        waits.append(close["retryIn"])
        after = [at for at in ledger["attempts"] if at >= close["at"]]
        assert not after or after[0] - close["at"] >= close["retryIn"] - 20, (ledger["name"], close, after)
        failures += 1
    assert len(ledger["attempts"]) <= len(ledger["closes"]) + 1 + moves, ledger
    return waits


def is_in_order(ledger):
    """No event twice, and each after those before it, unless it says that it is late."""
    numbers = [event["seq"] for event in ledger["seqs"]]
    assert len(numbers) == len(set(numbers)), f"{ledger['name']} got an event twice: {numbers}"
    highest = 0
    for event in ledger["seqs"]:
        assert event["late"] == (event["seq"] < highest), f"{ledger['name']} is out of order at {event}: {numbers}"
        highest = max(highest, event["seq"])


def is_whole(audience, traffic, ledger, away=None):
    """All that was sent since this client began is there. Only where it was told that it was not resumed, or of a gap, is less owed to it.

    `away` is when it began to be away: the mark of the fault; until its next `ready`, or the gap, nothing is owed to it then.
    """
    if all(ready.get("resumed") for ready in ledger["ready"][1:]) and not ledger["gaps"]:
        away = None
    back = next((ready["at"] for ready in ledger["ready"] if away and ready["at"] > away), None)
    told = [gap["at"] for gap in ledger["gaps"] if away and gap["at"] > away]
    until_then = max(filter(None, [back, *told]), default=float("inf"))
    # Two clocks that are one, but one is read in a busy browser.
    owed = {sent.seq for sent in traffic.sent if sent.at > audience.begun and not (away and away < sent.at <= until_then + 5)}
    got = {event["seq"] for event in ledger["seqs"]}
    assert owed, "nothing was owed: the test proves nothing"
    assert owed <= got, f"{ledger['name']} lost {sorted(owed - got)}, away from {away} to {until_then}: {ledger['ready']} {ledger['closes']} {ledger['gaps']}"


def heard_nothing(ledger):
    """The page has one socket, was ready once, and was told of nothing since but events."""
    told = {name: told for name, told in ledger.items() if name != "seqs"}
    # It began to listen when it was connecting already.
    assert ledger["open"] == 1 and [state["state"] for state in ledger["states"]] == ["ready"], told
    assert len(ledger["ready"]) == 1 and not ledger["closes"] and not ledger["errors"] and not ledger["gaps"], told


def judge(audience, traffic, hit=(), away=None, moves=0):
    """What holds for every client at the end of a test. Only those that were hit may have closed, moved, or been told of a gap."""
    audience.go_on(traffic)
    traffic.cease()
    audience.have(traffic.sent[-1])
    for ledger in audience.ledgers():
        is_in_order(ledger)
        holds_back(ledger, moves)
        if ledger["name"] not in hit:
            assert len(ledger["attempts"]) == 1 and not ledger["closes"] and not ledger["gaps"], ledger
        is_whole(audience, traffic, ledger, away if ledger["name"] in hit else None)


def users(test, count=CLIENTS):
    return [f"{test}-{number}" for number in range(count)]


def again(fleet, *pods):
    for pod in pods:
        pod.start()
    fleet.whole()


def test_a_killed_pod_sends_its_clients_to_others_once_each_and_nobody_else_notices(browser, fleet):
    audience = Audience(browser, fleet, users("killed"))
    with fleet.traffic() as traffic:
        pod = fleet.pods[0]
        hit, before, away = audience.on(pod), fleet.balancer.attempts, mark(audience, traffic)
        assert len(hit) == CLIENTS / 3, hit
        fleet.kill(pod)
        until("they are ready on other pods", lambda: audience.all_ready_on(fleet.pods[1:]))
        judge(audience, traffic, hit, away)
    waits = []
    for name in hit:
        ledger = audience.ledger(name)
        assert [close["code"] for close in ledger["closes"]] == [1006], ledger
        assert len(ledger["attempts"]) == 2 and ledger["ready"][-1]["resumed"] and ledger["ready"][-1]["chat"] == CHAT, ledger
        waits += holds_back(ledger)
    assert len(set(waits)) > 1, f"they all come back at once: {waits}"
    assert fleet.balancer.attempts - before == len(hit)
    again(fleet, pod)


def drain(pod):
    """As an orchestrator does."""
    pod.signal(signal.SIGTERM)
    assert pod.ended() == 0, pod.name


def test_a_drained_pod_has_its_clients_move_and_their_pages_hear_nothing_of_it(browser, fleet):
    audience = Audience(browser, fleet, users("drained"))
    with fleet.traffic() as traffic:
        pod = fleet.pods[1]
        hit, before = audience.on(pod), fleet.balancer.attempts
        assert len(hit) == CLIENTS / 3, hit
        drain(pod)
        assert audience.all_ready_on([fleet.pods[0], fleet.pods[2]]), [audience.ledger(name) for name in hit]
        judge(audience, traffic, hit, moves=1)
    for ledger in audience.ledgers():
        heard_nothing(ledger)
        assert len(ledger["attempts"]) == 1 + (ledger["name"] in hit), ledger
    assert fleet.balancer.attempts - before == len(hit)
    again(fleet, pod)


def test_a_rolling_restart_is_heard_by_no_page_and_leaves_each_one_socket(browser, fleet):
    audience = Audience(browser, fleet, users("rolling"))
    with fleet.traffic() as traffic:
        before = fleet.balancer.attempts
        for pod in fleet.pods:
            drain(pod)
            assert audience.all_ready_on([other for other in fleet.pods if other is not pod]), audience.ledgers()
            again(fleet, pod)
            audience.go_on(traffic)
        judge(audience, traffic, audience.names, moves=len(fleet.pods))
    ledgers = audience.ledgers()
    for ledger in ledgers:
        heard_nothing(ledger)
        # At least one pod was its own.
        assert len(ledger["attempts"]) >= 2, ledger
    assert fleet.balancer.attempts - before == sum(len(ledger["attempts"]) - 1 for ledger in ledgers)
    until("the pods have one socket a page", lambda: sum(pod.sockets() for pod in fleet.pods) == CLIENTS)


def test_clients_of_a_frozen_pod_leave_it_or_wait_and_get_what_they_missed(browser, fleet):
    def options(number):
        # Every pod gets clients that notice a silence soon, and clients that take it for a quiet hour.
        return {"idle": 2000, "answerTimeout": 1000, "connectTimeout": 3000} if number // 3 % 2 else {}

    audience = Audience(browser, fleet, users("frozen"), options=options)
    with fleet.traffic() as traffic:
        pod, others = fleet.pods[2], fleet.pods[:2]
        hit, away = audience.on(pod), mark(audience, traffic)
        hasty = [name for name in hit if options(int(name.split("-")[1]))]
        assert len(hit) == CLIENTS / 3 and len(hasty) == len(hit) / 2, hit
        pod.signal(signal.SIGSTOP)
        until("those who noticed are elsewhere", lambda: all(
            (ledger := audience.ledger(name))["state"] == "ready" and ledger["ready"][-1]["pod"] != pod.name for name in hasty))
        until("the others take the pod for dead", lambda: all(other.peers() == (1, 0) for other in others))
        missed = len(traffic.sent)
        until("events pass the frozen pod by", lambda: len(traffic.sent) >= missed + 20)
        pod.signal(signal.SIGCONT)
        until("those who waited get it from the stream", lambda: all(
            any(event["replayed"] for event in audience.ledger(name)["seqs"]) for name in hit if name not in hasty))
        judge(audience, traffic, hit, away)
    for name in hit:
        ledger = audience.ledger(name)
        if name in hasty:
            assert [close["reason"] for close in ledger["closes"]] == ["silent"] and len(ledger["attempts"]) == 2, ledger
        else:
            assert not ledger["closes"] and not ledger["gaps"], ledger
            replayed = {event["seq"] for event in ledger["seqs"] if event["replayed"]}
            # What NATS had handed to the frozen pod itself it may still deliver.
            assert any(sent.seq in replayed for sent in traffic.sent[missed:missed + 20]), "nothing was missed: this proves nothing"
    fleet.whole()


def test_with_every_pod_gone_clients_back_off_and_all_come_back(browser, fleet):
    audience = Audience(browser, fleet, users("gone"))
    with fleet.traffic() as traffic:
        before, away = fleet.balancer.attempts, mark(audience, traffic)
        for pod in fleet.pods:
            fleet.kill(pod)
        until("everybody has tried several times", lambda: all(len(ledger["closes"]) >= 4 for ledger in audience.ledgers()))
        for pod in fleet.pods:
            pod.start()
        until("everybody is back", lambda: audience.all_ready_on(fleet.pods), 60)
        took = now() - away
        # More may have been sent meanwhile than is replayed at once: then the clients are told.
        judge(audience, traffic, audience.names, away)
    ledgers = audience.ledgers()
    for ledger in ledgers:
        assert len(ledger["attempts"]) - 1 <= allowed(took), (took, ledger)
        assert len(ledger["ready"]) == 2, ledger
    # What the balancer saw is what the clients say: no attempt but theirs.
    assert fleet.balancer.attempts - before == sum(len(ledger["attempts"]) - 1 for ledger in ledgers)
    fleet.whole()


def test_a_token_that_runs_out_is_replaced_and_ends_the_session_of_who_has_no_other(browser, fleet):
    audience = Audience(browser, fleet, users("expired", 2), lives=(5, 600))
    renewing, staying = audience.names
    browser.js("window.clients[arguments[0]].out = true", staying)
    with fleet.traffic() as traffic:
        until("both tokens run out", lambda: all(ledger["closes"] for ledger in audience.ledgers()))
        until("one is ready with a new token", lambda: len(audience.ledger(renewing)["ready"]) == 2)
        # The other one would have tried again long since.
        audience.go_on(traffic, 60)
        traffic.cease()
        audience.have(traffic.sent[-1])
        renewed, stayed = (audience.ledger(name) for name in audience.names)
    for ledger in (renewed, stayed):
        assert (ledger["closes"][0]["code"], ledger["closes"][0]["final"]) == (4403, False), ledger
        assert ledger["errors"][0]["code"] == "InvalidToken", ledger["errors"]
        # At its end, not when something else is due next: the first ping is after 10 s.
        assert ledger["closes"][0]["at"] - ledger["ready"][0]["at"] < 8000, ledger
        is_in_order(ledger)
    assert [close["final"] for close in stayed["closes"]] == [False, True] and stayed["errors"][-1]["message"] == "logged out", stayed
    assert len(renewed["closes"]) == 1 and len(renewed["errors"]) == 1, renewed
    assert len(renewed["attempts"]) == 2 and len(stayed["attempts"]) == 1 and stayed["state"] == "closed", (renewed, stayed)
    # What was sent in the last second of the old token may have been under way at its end.
    is_whole(audience, traffic, renewed, renewed["closes"][0]["at"] - 1000)


def test_a_session_taken_over_in_another_tab_is_left_to_it_even_when_its_pod_dies(browser, fleet):
    first_tab = browser.call("window")
    first = Audience(browser, fleet, ["tab"])
    with fleet.traffic() as traffic:
        first.go_on(traffic)
        before = fleet.balancer.attempts
        second_tab = browser.call("window/new", {"type": "tab"})["handle"]
        browser.call("window", {"handle": second_tab})
        second = Audience(browser, fleet, ["tab"], restored=True)
        away = mark(second, traffic)
        pod = fleet.pod(second.ledger("tab")["ready"][-1]["pod"])
        fleet.kill(pod)
        until("the second tab is ready elsewhere", lambda: second.all_ready_on([other for other in fleet.pods if other is not pod]))
        second.go_on(traffic, 40)

        browser.call("window", {"handle": first_tab})
        ledger = first.ledger("tab")
        assert [(close["code"], close["final"]) for close in ledger["closes"]] == [(4402, True)], ledger
        assert len(ledger["attempts"]) == 1 and ledger["state"] == "closed", ledger
        is_in_order(ledger)
        assert fleet.balancer.attempts - before == 2

        browser.call("window", {"handle": second_tab})
        judge(second, traffic, ["tab"], away)
        assert len(second.ledger("tab")["attempts"]) == 2
    # Only its user takes the session back.
    browser.call("window", {"handle": first_tab})
    browser.js("window.clients.tab.client.connect()")
    until("the first tab has it again", lambda: first.ledger("tab")["state"] == "ready")
    browser.call("window", {"handle": second_tab})
    until("the second tab has let go", lambda: second.ledger("tab")["state"] == "closed")
    assert [close["code"] for close in second.ledger("tab")["closes"]] == [1006, 4402]
    browser.call("window", method="DELETE")
    browser.call("window", {"handle": first_tab})
    again(fleet, pod)


def main():
    program, out = sys.argv[1], pathlib.Path(sys.argv[2])
    names = sys.argv[3:]
    out.mkdir(parents=True, exist_ok=True)
    failed, fleet, browser = [], None, None
    try:
        fleet = RealFleet(program, out, PAGE)
        browser = Browser(out)
        for name, test in list(globals().items()):
            if not name.startswith("test_") or (names and not any(part in name for part in names)):
                continue
            start = time.monotonic()
            try:
                test(browser, fleet)
                complaints = browser.complaints()
                assert not complaints, complaints
                print(f"ok      {name} ({time.monotonic() - start:.1f} s)", flush=True)
            except AssertionError as error:
                failed.append(name)
                print(f"FAILED  {name} ({time.monotonic() - start:.1f} s)\n        {str(error)[:4000]}", flush=True)
                (out / f"failed-{name}.png").write_bytes(base64.b64decode(browser.call("screenshot")))
                # The next test wants a whole fleet.
                browser.end()
                fleet.end()
                # One by one: if the second does not start, the first has to end all the same.
                fleet = RealFleet(program, out, PAGE)
                browser = Browser(out)
    finally:
        if browser:
            browser.end()
        if fleet:
            fleet.end()
    sys.exit(f"{len(failed)} failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
