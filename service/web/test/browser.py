"""The console and the client in a real browser, on a real dev fleet.

    python3 service/web/test/browser.py PROGRAM OUT [NAME...]

PROGRAM is daisi-ws-service; screenshots and logs go to the folder OUT; with NAMEs, only the tests whose names have one of them run. Needs chromium and
chromedriver, and nothing of Python beyond its own library. Every wait is for a condition, with a deadline.
"""

import base64
import json
import os
import pathlib
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
DEADLINE = 25
# UPDATE_DOCS=1 also writes these pictures of the README.
IMAGES = pathlib.Path(__file__).parents[3] / "docs/images"
DOCUMENTED = ("console-light-wide.webp", "console-dark-wide.webp")
CHAT = "62811200345@s.whatsapp.net"


def http(url, body=None, method=None, timeout=30):
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data=data, method=method or ("GET" if data is None else "POST"))
    with urllib.request.urlopen(request, timeout=timeout) as answer:
        return json.loads(answer.read() or b"null")


def until(what, check, deadline=DEADLINE):
    """Waits until check() is true and returns what it gave."""
    end = time.monotonic() + deadline
    while True:
        found = check()
        if found:
            return found
        if time.monotonic() > end:
            raise AssertionError(f"within {deadline} s this did not happen: {what}")
        time.sleep(0.05)


class Fleet:
    """A dev fleet in a process of its own."""

    def __init__(self, program, out):
        for _ in range(20):
            base = self.free_base()
            # Appended to: after a failure a new fleet is begun, and the log of the one before is what one wants to see.
            self.log = open(out / "fleet.log", "ab")
            self.process = subprocess.Popen([program, "dev", "--port", str(base)], stdout=self.log, stderr=subprocess.STDOUT)
            self.url = f"http://127.0.0.1:{base}"
            try:
                until("the fleet is up", self.up_or_ended)
            except AssertionError:
                self.end()
                raise
            if self.process.poll() is None:
                return
        raise AssertionError("no free ports for a fleet")

    @staticmethod
    def free_base():
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            return min(probe.getsockname()[1], 65000)

    def up_or_ended(self):
        if self.process.poll() is not None:
            return True
        try:
            pods = self.status()["pods"]
            return all(pod["ready"] and pod["peers"] == len(pods) - 1 for pod in pods)
        except OSError:
            return False

    def status(self):
        return http(f"{self.url}/dev/status")

    def pod(self, pod_id):
        """A pod's state, from whichever pod answers."""
        for port in range(3):
            url = re.sub(r"\d+$", lambda match: str(int(match[0]) + port), self.url)
            try:
                return next(pod for pod in http(f"{url}/dev/status", timeout=2)["pods"] if pod["id"] == pod_id)
            except OSError:
                continue
        raise AssertionError("no pod answers")

    def end(self):
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


class Browser:
    """A headless browser through the WebDriver protocol."""

    def __init__(self, out):
        self.out = out
        self.log = open(out / "chromedriver.log", "w+")
        driver = shutil.which("chromedriver")
        if not driver or not shutil.which("chromium"):
            sys.exit("browser.py: chromium and chromedriver must be on PATH (Debian: apt-get install chromium chromium-driver)")
        self.process = subprocess.Popen([driver, "--port=0"], stdout=self.log, stderr=subprocess.STDOUT)
        log = pathlib.Path(self.log.name)
        port = until("chromedriver listens", lambda: re.search(r"successfully on port (\d+)", log.read_text()))[1]
        self.base = f"http://127.0.0.1:{port}"
        # As root a browser has no sandbox; the pages are our own.
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars"]
        wanted = {"browserName": "chrome", "goog:chromeOptions": {"args": flags, "binary": shutil.which("chromium")},
                  "goog:loggingPrefs": {"browser": "ALL"}}
        session = http(f"{self.base}/session", {"capabilities": {"alwaysMatch": wanted}}, timeout=60)["value"]["sessionId"]
        self.session = f"{self.base}/session/{session}"
        self.call("timeouts", {"script": 30000})

    def call(self, path, body=None, method=None):
        try:
            return http(f"{self.session}/{path}".rstrip("/"), body, method)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{path}: {error.read().decode()[:800]}") from None

    def open(self, url):
        self.call("url", {"url": url})

    def js(self, script, *args):
        return self.call("execute/sync", {"script": script, "args": list(args)})

    def find(self, selector):
        return self.call("element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector):
        until(f"{selector} can be clicked", lambda: self.js(
            "const e = document.querySelector(arguments[0]); return !!e && !e.disabled && !e.hidden", selector))
        self.js("document.querySelector(arguments[0]).scrollIntoView({block: 'center'})", selector)
        self.call(f"element/{self.find(selector)}/click", {})

    def choose(self, selector, value):
        self.js("const e = document.querySelector(arguments[0]); e.value = arguments[1]; e.dispatchEvent(new Event('change', {bubbles: true}))",
                selector, value)

    def text(self, selector):
        return self.js("return document.querySelector(arguments[0])?.textContent ?? ''", selector)

    def sees(self, what, selector, text="", deadline=DEADLINE):
        return until(what, lambda: self.js(
            "return [...document.querySelectorAll(arguments[0])].some((e) => e.textContent.includes(arguments[1]))", selector, text), deadline)

    def cdp(self, cmd, **params):
        return self.call("goog/cdp/execute", {"cmd": cmd, "params": params})

    def shoot(self, name, width, height, dark, full=False):
        self.cdp("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        self.cdp("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)
        time.sleep(0.7)  # a redraw of the charts in the new colours
        overflow = self.js("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
        shot = self.cdp("Page.captureScreenshot", format="png", captureBeyondViewport=full)
        (self.out / f"{name}.png").write_bytes(base64.b64decode(shot["data"]))
        if os.environ.get("UPDATE_DOCS") and (images := IMAGES / f"{name}.webp").name in DOCUMENTED:
            shot = self.cdp("Page.captureScreenshot", format="webp", quality=82, captureBeyondViewport=full)
            images.write_bytes(base64.b64decode(shot["data"]))
        self.cdp("Emulation.clearDeviceMetricsOverride")
        assert overflow <= 0, f"{name}: the page is {overflow} px wider than the window"

    def complaints(self):
        """What the page complained about, but for connections that failed: those are what the tests are about."""
        lines = self.call("se/log", {"type": "browser"})
        expected = ("WebSocket connection to", "Failed to load resource", "net::ERR")
        return [line["message"] for line in lines if line["level"] == "SEVERE" and not any(word in line["message"] for word in expected)]

    def end(self):
        try:
            self.call("", method="DELETE")
        except (AssertionError, OSError):
            pass
        self.process.terminate()
        self.process.wait()
        self.log.close()


# === the console ===


def open_socket(browser, who, pod, life="86400"):
    """Opens a socket from the console and returns the selector of its card."""
    browser.choose("#open [name=who]", who)
    browser.choose("#open [name=pod]", pod)
    browser.choose("#open [name=life]", life)
    before = browser.js("return Math.max(0, ...[...document.querySelectorAll('.socket')].map((e) => Number(e.dataset.number)))")
    browser.click("#open button")
    return until("a card appears", lambda: browser.js(
        "const e = document.querySelector('.socket'); return e && Number(e.dataset.number) > arguments[0] ? `[data-number='${e.dataset.number}']` : null", before))


def ready(browser, card):
    browser.sees("the socket is ready", f"{card}[data-state=ready]")


def open_pair(browser):
    """Sari on dev-1 and Budi on dev-2, both in one chat."""
    cards = []
    for who, pod in [("sari", "dev-1"), ("budi", "dev-2")]:
        card = open_socket(browser, who, pod)
        ready(browser, card)
        browser.choose(f"{card} select", CHAT)
        browser.sees("the chat is selected", f"{card}[data-chat='{CHAT}']")
        cards.append(card)
    return cards


def publish(browser):
    """Publishes what the form has and returns its sequence."""
    before = browser.text("#published")
    browser.click("#publish .primary")
    said = until("the event is stored", lambda: (now := browser.text("#published")) != before and now)
    return int(re.search(r"\d+", said)[0])


def got(browser, card, seq, deadline=DEADLINE):
    browser.sees(f"{card} gets event {seq}", f"{card} [data-seq='{seq}']", deadline=deadline)


def phase(browser, pod, wanted):
    browser.sees(f"{pod} is {wanted}", f".pod[data-pod={pod}][data-phase={wanted}]")


def act(browser, pod, action):
    browser.click(f".pod[data-pod={pod}] .{action}")


def mended(browser, fleet):
    """Waits until every pod is well again and knows every other."""
    until("the fleet is whole", lambda: all(fleet.pod(f"dev-{n}")["ready"] and fleet.pod(f"dev-{n}")["peers"] == 2 for n in (1, 2, 3)))


def test_one_event_reaches_two_users_on_two_pods_and_one_of_them_by_a_forward(browser, fleet):
    sari, budi = open_pair(browser)
    seq = publish(browser)
    for card in (sari, budi):
        got(browser, card, seq)
    paths = until("both ways are known", lambda: (found := browser.js(
        "return arguments[0].map((card) => document.querySelector(`${card} [data-seq='${arguments[1]}']`).dataset.path)", [sari, budi], seq)) and all(found) and found)
    # Whichever pod took it, at most one of the two sockets is on that pod.
    assert "forwarded" in paths, paths
    browser.sees("it says over which pods", f"{budi} .way", "dev-")
    browser.sees("it says how long it took", f"{budi} .took", "ms")


def test_admins_see_agent_events_and_users_do_not(browser, fleet):
    (sari, _), root = open_pair(browser), open_socket(browser, "root", "dev-3")
    ready(browser, root)
    browser.click("#publish [value=agents] + span")
    seq = publish(browser)
    got(browser, root, seq)
    browser.click("#publish [value=chats] + span")
    after = publish(browser)
    got(browser, sari, after)
    assert not browser.js("return !!document.querySelector(`${arguments[0]} [data-seq='${arguments[1]}']`)", sari, seq)


def test_a_takeover_closes_the_old_socket_with_4402_and_it_stays_closed(browser, fleet):
    old = open_socket(browser, "sari", "dev-1")
    ready(browser, old)
    browser.click(f"{old} .take-over")
    browser.sees("the old one is closed", f"{old}[data-state=closed][data-code='4402']")
    browser.sees("the new one is ready, on another pod", f".socket:not({old})[data-state=ready][data-pod=dev-2]")
    browser.sees("it says why", f"{old} .note", "session-replaced")
    time.sleep(3)
    browser.sees("it is still closed", f"{old}[data-state=closed]")
    browser.sees("the new one is still there", f".socket:not({old})[data-state=ready]")


def test_a_frozen_pod_holds_up_nobody_else_and_its_socket_gets_what_it_missed(browser, fleet):
    sari, budi = open_pair(browser)
    act(browser, "dev-2", "freeze")
    phase(browser, "dev-2", "frozen")
    got(browser, sari, publish(browser), deadline=3)
    # The others have given it up when they count one peer less and wait for none. An event that was routed past it then its socket gets from the stream.
    until("dev-2 is taken for dead", lambda: all(
        fleet.pod(pod)["peers"] == 1 and fleet.pod(pod)["lapsed"] == 0 for pod in ("dev-1", "dev-3")))
    missed = publish(browser)
    got(browser, sari, missed, deadline=3)
    assert not browser.js("return !!document.querySelector(`${arguments[0]} [data-seq='${arguments[1]}']`)", budi, missed)
    browser.shoot("console-frozen", 1280, 900, False)
    act(browser, "dev-2", "thaw")
    browser.sees("the gap is mended", f"{budi} [data-seq='{missed}'][data-mark=mended] .mark", "mended")
    got(browser, budi, publish(browser))
    assert not browser.js("return !!document.querySelector(`${arguments[0]} .note.gap`)", budi), "a gap that was mended is not told"


def test_a_killed_pod_loses_its_sockets_to_others_and_those_of_a_drained_one_move(browser, fleet):
    sari, budi = open_pair(browser)
    act(browser, "dev-2", "kill")
    missed = publish(browser)
    phase(browser, "dev-2", "stopped")
    browser.sees("budi is on another pod", f"{budi}[data-state=ready][data-resumed=true]:not([data-pod=dev-2])")
    got(browser, budi, missed)
    browser.sees("the chat came along", f"{budi}[data-chat='{CHAT}']")
    seq = publish(browser)
    got(browser, budi, seq)
    act(browser, "dev-1", "drain")
    browser.sees("sari has moved to the last pod", f"{sari}[data-state=ready][data-pod=dev-3]:not([data-code])")
    got(browser, sari, publish(browser))
    phase(browser, "dev-1", "stopped")
    for pod in ("dev-1", "dev-2"):
        act(browser, pod, "start")
        phase(browser, pod, "running")
    mended(browser, fleet)
    got(browser, sari, publish(browser))


def test_redis_and_nats_away_leave_sockets_open(browser, fleet):
    sari, budi = open_pair(browser)
    browser.click("[data-backend=store] .toggle")
    browser.sees("the store is away", "[data-backend=store] .badge.down")
    got(browser, sari, publish(browser))
    late = open_socket(browser, "dewi", "dev-1")
    browser.sees("nobody new gets in", f"{late}[data-state=waiting]")
    browser.click("[data-backend=store] .toggle")
    ready(browser, late)
    browser.click("[data-backend=stream] .toggle")
    browser.sees("the stream is away", "[data-backend=stream] .badge.down")
    browser.click("#publish .primary")
    browser.sees("a publisher is told", "#notice", "not stored")
    browser.sees("sari stays", f"{sari}[data-state=ready]")
    browser.click("[data-backend=stream] .toggle")
    browser.sees("the stream is back", "[data-backend=stream] .badge.up")
    got(browser, budi, publish(browser))
    mended(browser, fleet)


def test_a_token_that_runs_out_is_replaced_and_the_session_goes_on(browser, fleet):
    card = open_socket(browser, "sari", "dev-1", life="15")
    ready(browser, card)
    browser.sees("its token has run out", f"{card}[data-code='4403']", deadline=30)
    ready(browser, card)
    browser.click("#publish [value=chats] + span")
    got(browser, card, publish(browser))


# === the client, on its own ===

CLIENT = """
const done = arguments[arguments.length - 1];
const [name, user, pods, life, options] = arguments;
const { GatewayClient } = await import("/client.js");
const { api_key } = await (await fetch("/dev/status")).json();
const all = window.clients ??= {};
const mine = all[name] = { log: [], sockets: 0, open: new Set(), seqs: [] };
const token = async () => {
  for (const pod of pods) {
    try {
      const body = JSON.stringify({ company_id: "acme", agent_id: "agent-7", user_id: user, expires_in_seconds: life });
      return (await (await fetch(`http://${pod}/dev/tokens/user`, { method: "POST", body, signal: AbortSignal.timeout(1000) })).json()).token;
    } catch {}
  }
  throw new Error("no pod answers");
};
mine.client = new GatewayClient({
  // As behind a load balancer: every attempt goes to the next pod.
  url: () => `ws://${pods[mine.sockets % pods.length]}/ws/acme/agent-7`,
  apiKey: api_key,
  token: options.fixed ? await token() : token,
  WebSocket: class extends WebSocket {
    constructor(...args) {
      super(...args);
      mine.sockets++;
      mine.open.add(this);
      this.addEventListener("close", () => mine.open.delete(this));
    }
  },
  ...options,
  ...(options.keep && { storage: sessionStorage, user: options.whose }),
});
for (const type of ["ready", "event", "gap", "chat", "error", "close"]) {
  mine.client.addEventListener(type, ({ detail }) => {
    mine.log.push([type, detail]);
    if (type === "event") mine.seqs.push([detail.seq, detail.late]);
  });
}
mine.client.connect();
done(true);
"""


def start_client(browser, fleet, name, user, first=0, life=600, **options):
    pods = [pod["address"] for pod in fleet.status()["pods"]]
    pods = pods[first:] + pods[:first]
    # An async script may not await at its top.
    script = "const a = arguments; (async () => {" + CLIENT.replace("arguments", "a") + "})();"
    browser.call("execute/async", {"script": script, "args": [name, user, pods, life, options]})
    until(f"{name} is ready", lambda: client(browser, name)["state"] == "ready")


def client(browser, name):
    return browser.js("""const { client, sockets, open, seqs, log } = window.clients[arguments[0]];
        return { state: client.state, chat: client.chat, sockets, seqs, open: [...open].map(({ url }) => new URL(url).host), ready: log.filter(([type]) => type === "ready").map(([, detail]) => detail),
                 closes: log.filter(([type]) => type === "close").map(([, detail]) => detail), gaps: log.filter(([type]) => type === "gap").length }""", name)


def store(fleet, numbers):
    """Publishes chat events through the first pod that takes them; returns their sequences."""
    seqs = []
    for number in numbers:
        for port in range(3):
            url = re.sub(r"\d+$", lambda match: str(int(match[0]) + port), fleet.url)
            try:
                seqs.append(http(f"{url}/dev/publish/wa.acme.agent-7.chats", {"event_id": str(number), "row_data": {"n": number}}, timeout=2)["seq"])
                break
            except OSError:
                continue
    return seqs


def has(browser, name, seqs):
    """Waits until a client has these events. It may have more: what was meant for a pod that was killed is delivered to the one in its place."""
    until(f"{name} has what was published", lambda: {seq for seq, _ in client(browser, name)["seqs"]} >= set(seqs))


def in_order(seqs):
    """No event twice, and each after the one before it, but for those that say that they are late."""
    numbers = [seq for seq, _ in seqs]
    assert len(numbers) == len(set(numbers)), f"an event came twice: {numbers}"
    shown = [seq for seq, late in seqs if not late]
    assert shown == sorted(shown), f"out of order: {numbers}"


def change(fleet, pod, action, through):
    url = re.sub(r"\d+$", lambda match: str(int(match[0]) + through), fleet.url)
    http(f"{url}/dev/pods/{pod}/{action}", {})


def knows_its_place(browser, fleet, first):
    """A pod that has just begun knows no place in the stream for a moment, and who comes to it then has nothing to go on from."""

    def is_told():
        start_client(browser, fleet, "place", "client-place", first=first)
        told = "safe" in client(browser, "place")["ready"][0]
        browser.js("clients.place.client.close()")
        return told

    until("the pod says where its sessions stand", is_told)


def test_client_moves_off_a_killed_and_a_drained_pod_once_without_storm_or_duplicate(browser, fleet):
    knows_its_place(browser, fleet, 1)
    start_client(browser, fleet, "c", "client-a", first=1, chat=CHAT)
    has(browser, "c", store(fleet, range(20)))
    change(fleet, "dev-2", "kill", 0)
    missed = store(fleet, range(20))
    until("it is ready elsewhere", lambda: len(client(browser, "c")["ready"]) == 2)
    has(browser, "c", missed)
    assert client(browser, "c")["sockets"] == 2, client(browser, "c")
    has(browser, "c", store(fleet, range(20)))
    change(fleet, "dev-3", "drain", 0)
    moved = store(fleet, range(20))
    last = fleet.pod("dev-1")["address"]
    until("it has moved to the last pod", lambda: client(browser, "c")["open"] == [last])
    has(browser, "c", moved)
    has(browser, "c", store(fleet, range(20)))
    now = client(browser, "c")
    # The page is told of the pod that was killed, and of no move.
    assert now["sockets"] == 3 and [close["code"] for close in now["closes"]] == [1006], now
    assert [r["reconnected"] for r in now["ready"]] == [False, True] and now["chat"] == CHAT, now
    assert [r.get("resumed") for r in now["ready"]] == [None, True] and not now["gaps"], now
    in_order(now["seqs"])
    for pod in ("dev-2", "dev-3"):
        until(f"{pod} has ended", lambda: fleet.pod(pod)["phase"] == "stopped")
        change(fleet, pod, "start", 0)
    mended(browser, fleet)


def test_client_goes_on_over_a_page_load_where_it_has_a_storage(browser, fleet):
    def begin():
        start_client(browser, fleet, "p", "client-p", whose="sari", keep=True)

    begin()
    shown = store(fleet, range(3))
    has(browser, "p", shown)
    # By the next question for its place the cursor is past what was shown.
    until("the cursor is kept", lambda: browser.js("return Object.keys(sessionStorage).length === 1"))
    key, cursor = browser.js("return Object.entries(sessionStorage)[0]")
    assert key.startswith("dws:sari@127.0.0.1:") and key.endswith("/ws/acme/agent-7") and re.fullmatch(r"[\w-]+:\d+", cursor), (key, cursor)
    browser.open(fleet.url)
    missed = store(fleet, range(3))
    begin()
    has(browser, "p", missed)
    assert [r.get("resumed") for r in client(browser, "p")["ready"]] == [True], client(browser, "p")
    browser.js("sessionStorage.clear()")


def test_client_notices_a_frozen_pod_and_moves_on_without_a_duplicate(browser, fleet):
    start_client(browser, fleet, "f", "client-f", first=1, idle=2000, answerTimeout=1000, connectTimeout=3000)
    has(browser, "f", store(fleet, range(5)))
    change(fleet, "dev-2", "freeze", 0)
    until("the silence is noticed", lambda: any(close["reason"] == "silent" for close in client(browser, "f")["closes"]))
    until("it is ready elsewhere", lambda: len(client(browser, "f")["ready"]) == 2)
    has(browser, "f", store(fleet, range(5)))
    change(fleet, "dev-2", "thaw", 0)
    mended(browser, fleet)
    has(browser, "f", store(fleet, range(5)))
    now = client(browser, "f")
    in_order(now["seqs"])
    assert now["sockets"] <= 3, now


def test_client_whose_pods_are_all_refusing_backs_off(browser, fleet):
    start_client(browser, fleet, "b", "client-b")
    http(f"{fleet.url}/dev/store/down", {})
    change(fleet, "dev-1", "drain", 1)
    time.sleep(8)
    tries = client(browser, "b")["sockets"] - 1
    waits = [close["retryIn"] for close in client(browser, "b")["closes"]]
    http(re.sub(r"\d+$", lambda match: str(int(match[0]) + 1), fleet.url) + "/dev/store/up", {})
    assert 1 <= tries <= 7, (tries, waits)
    until("it comes back", lambda: client(browser, "b")["state"] == "ready", 40)
    until("dev-1 has ended", lambda: fleet.pod("dev-1")["phase"] == "stopped")
    change(fleet, "dev-1", "start", 1)
    mended(browser, fleet)


def test_client_taken_over_in_another_tab_does_not_fight_back(browser, fleet):
    start_client(browser, fleet, "t", "client-t")
    first = browser.call("window")
    second = browser.call("window/new", {"type": "tab"})["handle"]
    browser.call("window", {"handle": second})
    browser.open(fleet.url)
    start_client(browser, fleet, "t", "client-t", first=2)
    browser.call("window", {"handle": first})
    until("the first tab is closed", lambda: client(browser, "t")["state"] == "closed")
    time.sleep(4)
    now = client(browser, "t")
    assert now["sockets"] == 1 and [close["code"] for close in now["closes"]] == [4402], now
    browser.call("window", {"handle": second})
    now = client(browser, "t")
    assert now["state"] == "ready" and now["sockets"] == 1, now
    browser.call("window", method="DELETE")
    browser.call("window", {"handle": first})


def test_client_whose_one_token_has_run_out_stays_away(browser, fleet):
    start_client(browser, fleet, "e", "client-e", life=4, fixed=True)
    until("it is closed", lambda: client(browser, "e")["state"] == "closed")
    time.sleep(3)
    now = client(browser, "e")
    assert now["sockets"] == 1 and now["closes"][-1]["code"] == 4403, now


def test_client_whose_tokens_live_five_seconds_misses_and_doubles_nothing(browser, fleet):
    knows_its_place(browser, fleet, 0)
    start_client(browser, fleet, "r", "client-r", life=5)
    begun, sent = time.monotonic(), []
    while time.monotonic() - begun < 17:
        sent += store(fleet, range(3))
        time.sleep(0.3)
    has(browser, "r", sent)
    now = client(browser, "r")
    in_order(now["seqs"])
    assert len(now["closes"]) >= 2 and {close["code"] for close in now["closes"]} == {4403}, now["closes"]
    assert all(ready.get("resumed") for ready in now["ready"][1:]), now["ready"]


def test_page_is_worth_a_look_in_light_and_dark_wide_and_narrow(browser, fleet):
    sari, budi = open_pair(browser)
    ready(browser, open_socket(browser, "root", "dev-3"))
    before = 0
    for kind in ("messages", "chats", "agents", "messages", "messages"):
        browser.click(f"#publish [value={kind}] + span")
        before = publish(browser)
    browser.click("#burst")
    seq = until("all of them are stored", lambda: (said := re.search(r"\d+", browser.text("#published"))) and int(said[0]) >= before + 50 and int(said[0]))
    got(browser, sari, seq)
    browser.click(f"{budi} .take-over")
    browser.sees("budi's first socket is closed", f"{budi}[data-state=closed]")
    again = "[data-user=budi][data-state=ready]"
    browser.sees("the new one has the chat", f"{again}[data-chat='{CHAT}']")
    for _ in range(3):
        got(browser, again, publish(browser))
    act(browser, "dev-3", "freeze")
    phase(browser, "dev-3", "frozen")
    browser.js("scrollTo(0, 0)")
    # The charts want a few points to show.
    time.sleep(4)
    for dark in (False, True):
        tone = "dark" if dark else "light"
        browser.shoot(f"console-{tone}-wide", 1280, 1180, dark)
        browser.shoot(f"console-{tone}-narrow", 360, 2600, dark)
    act(browser, "dev-3", "thaw")
    mended(browser, fleet)


def main():
    program, out = sys.argv[1], pathlib.Path(sys.argv[2])
    names = sys.argv[3:]
    out.mkdir(parents=True, exist_ok=True)
    fleet, browser, failed = Fleet(program, out), None, []
    try:
        browser = Browser(out)
        tests = [(name, test) for name, test in globals().items() if name.startswith("test_") and (not names or any(n in name for n in names))]
        for name, test in tests:
            start = time.monotonic()
            browser.open(fleet.url)
            try:
                browser.sees("the console is drawn", ".pod[data-ready=true]")
                test(browser, fleet)
                complaints = browser.complaints()
                assert not complaints, complaints
                print(f"ok      {name} ({time.monotonic() - start:.1f} s)", flush=True)
            except AssertionError as error:
                failed.append(name)
                print(f"FAILED  {name} ({time.monotonic() - start:.1f} s)\n        {error}", flush=True)
                shot = browser.call("screenshot")
                (out / f"failed-{name}.png").write_bytes(base64.b64decode(shot))
                # The next test wants a whole fleet.
                browser.end()
                fleet.end()
                fleet = Fleet(program, out)
                browser = Browser(out)
    finally:
        if browser:
            browser.end()
        fleet.end()
    sys.exit(f"{len(failed)} failed: {', '.join(failed)}" if failed else 0)


if __name__ == "__main__":
    main()
