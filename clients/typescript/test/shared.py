"""One socket for three tabs, in a real browser, on a real dev fleet: by ledger, no tab misses or doubles an event.

    python3 clients/typescript/test/shared.py PROGRAM OUT [NAME...]

PROGRAM is daisi-ws-service; logs go to the folder OUT. The package has to be compiled (tsc -p clients/typescript). What it needs, and how it waits: as
service/web/test/browser.py, whose browser and fleet it uses.
"""

import functools
import http.server
import pathlib
import sys
import threading
import time
import traceback

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "service/web/test"))
from browser import Browser, Fleet, change, http as call, mended, store, until  # noqa: E402

TAB = """
const [pods, key, user, life] = args;
const { connect } = await import("/shared.js");
const mine = window.mine = { sockets: 0, open: new Set(), log: [], seqs: [] };
mine.client = connect({
  name: user,
  url: () => `ws://${pods[mine.sockets % pods.length]}/ws/acme/agent-7`,
  apiKey: key,
  token: async () => (await fetch(`/token?user=${user}&life=${life}`)).text(),
  WebSocket: class extends WebSocket {
    constructor(...given) {
      super(...given);
      mine.sockets++;
      mine.open.add(this);
      this.addEventListener("close", () => mine.open.delete(this));
    }
  },
});
for (const type of ["ready", "event", "gap", "chat", "error", "close"]) {
  mine.client.addEventListener(type, ({ detail }) => {
    if (type === "event") mine.seqs.push(detail.seq);
    else mine.log.push([type, detail]);
  });
}
"""


class Pages(http.server.SimpleHTTPRequestHandler):
    """The compiled package, and tokens: a fleet gives those to its own pages alone."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".js": "text/javascript"}
    # Of every pod: one of them may be down.
    status = None

    def do_GET(self):
        if not self.path.startswith("/token?"):
            return super().do_GET()
        asked = dict(pair.split("=") for pair in self.path.partition("?")[2].split("&"))
        body = {"company_id": "acme", "agent_id": "agent-7", "user_id": asked["user"], "expires_in_seconds": int(asked["life"])}
        for pod in self.status["pods"]:
            try:
                token = call(f"http://{pod['address']}/dev/tokens/user", body, timeout=2)["token"].encode()
            except OSError:
                continue
            self.send_response(200)
            self.send_header("content-length", str(len(token)))
            self.end_headers()
            self.wfile.write(token)
            return None
        return self.send_error(503)

    def log_message(self, *_):
        pass


class Tabs:
    """Tabs of one page, which share a session of one user."""

    def __init__(self, browser, fleet, pages, user, life):
        self.browser, self.fleet, self.pages, self.user, self.life = browser, fleet, pages, user, life
        self.handles = []
        self.expected = {}

    def open(self):
        handle = self.browser.call("window/new", {"type": "tab"})["handle"]
        self.browser.call("window", {"handle": handle})
        self.browser.open(self.pages)
        status = Pages.status
        pods = [pod["address"] for pod in status["pods"]]
        script = "const [done, args] = [arguments[arguments.length - 1], arguments]; (async () => {" + TAB + "})().then(() => done(true), (e) => done(String(e)));"
        said = self.browser.call("execute/async", {"script": script, "args": [pods, status["api_key"], self.user, self.life]})
        assert said is True, said
        self.handles.append(handle)
        self.expected[handle] = []
        until("the tab is ready", lambda: self.tab(handle)["ready"], 15)

    def tab(self, handle):
        self.browser.call("window", {"handle": handle})
        return self.browser.js("""const { client, sockets, open, log, seqs } = window.mine; const of = (type) => log.filter(([name]) => name === type).map(([, detail]) => detail);
            return { state: client.state, leads: client.leads, chat: client.chat, sockets, open: open.size, seqs, ready: of("ready"), gaps: of("gap").length, chats: of("chat"), closes: of("close"), errors: of("error") }""")

    def all(self):
        return [self.tab(handle) for handle in self.handles]

    def leader(self):
        return next(handle for handle in self.handles if self.tab(handle)["leads"])

    def publish(self, count=5):
        for seq in store(self.fleet, range(count)):
            for handle in self.handles:
                self.expected[handle].append(seq)

    def close(self, handle):
        self.browser.call("window", {"handle": handle})
        self.browser.call("window", method="DELETE")
        self.handles.remove(handle)

    def holds(self, sockets=1):
        """Every tab has every event once, was told of no gap, and there is one socket."""
        for handle in self.handles:
            wanted = set(self.expected[handle])
            until("the tab has all events", lambda: wanted <= set(self.tab(handle)["seqs"]), 40)
        time.sleep(0.3)
        tabs = self.all()
        for tab in tabs:
            assert len(tab["seqs"]) == len(set(tab["seqs"])), f"an event came twice: {tab['seqs']}"
            assert tab["gaps"] == 0 and all(ready["resumed"] for ready in tab["ready"] if ready["reconnected"]), tab["ready"]
        assert sum(tab["open"] for tab in tabs) == sockets, tabs
        assert sum(tab["leads"] for tab in tabs) == sockets, tabs

    def end(self, first):
        for handle in list(self.handles):
            self.close(handle)
        self.browser.call("window", {"handle": first})


def test_three_tabs_have_one_socket_and_the_second_does_not_end_the_first(tabs, fleet):
    tabs.publish()
    tabs.holds()
    assert sum(tab["sockets"] for tab in tabs.all()) == 1
    assert all(tab["closes"] == [] for tab in tabs.all())


def test_a_chat_that_one_tab_chooses_is_that_of_all(tabs, fleet):
    follower = next(handle for handle in tabs.handles if not tabs.tab(handle)["leads"])
    tabs.browser.js("window.mine.client.selectChat('c-1')")
    until("all tabs have it", lambda: all(tab["chat"] == "c-1" and tab["chats"] for tab in tabs.all()))
    tabs.close(tabs.leader())
    until("the next one has it too", lambda: any(tab["leads"] and tab["state"] == "ready" and tab["chat"] == "c-1" for tab in tabs.all()))
    assert follower


def test_the_tab_with_the_socket_is_closed_again_and_again(tabs, fleet):
    for _ in range(3):
        tabs.publish(3)
        leader = tabs.leader()
        tabs.close(leader)
        tabs.publish(3)
        tabs.holds()
        tabs.open()
    tabs.publish(3)
    tabs.holds()


def test_the_pod_of_the_socket_is_killed(tabs, fleet):
    tabs.publish()
    pod = tabs.tab(tabs.leader())["ready"][-1]["pod"]
    through = next(n for n in range(3) if f"dev-{n + 1}" != pod)
    change(fleet, pod, "kill", through)
    tabs.publish()
    until("it is ready again", lambda: all(tab["state"] == "ready" and len(tab["ready"]) > 1 for tab in tabs.all()))
    tabs.publish()
    tabs.holds()
    change(fleet, pod, "start", through)
    mended(None, fleet)


def test_every_pod_is_restarted_one_after_another(tabs, fleet):
    for n in (1, 2, 3):
        through = n % 3
        change(fleet, f"dev-{n}", "drain", through)
        for _ in range(4):
            tabs.publish(2)
            time.sleep(0.2)
        until("the pod has ended", lambda: fleet.pod(f"dev-{n}")["phase"] == "stopped")
        change(fleet, f"dev-{n}", "start", through)
        mended(None, fleet)
    tabs.publish()
    tabs.holds()


def test_tokens_that_live_five_seconds(tabs, fleet):
    end = time.monotonic() + 14
    while time.monotonic() < end:
        tabs.publish(2)
        time.sleep(0.3)
    tabs.holds()
    assert all(len(tab["ready"]) > 1 for tab in tabs.all())


test_tokens_that_live_five_seconds.life = 5


def test_a_page_that_is_left_and_gone_back_to_is_restored_and_resumes(tabs, fleet):
    """Of the plain client: a page that holds a lock, as one with a shared session, is not kept by a browser."""
    browser, status = tabs.browser, Pages.status
    handle = browser.call("window/new", {"type": "tab"})["handle"]
    browser.call("window", {"handle": handle})
    browser.open(tabs.pages)
    script = """const [pod, key, done] = arguments;
        (async () => {
          const { connect } = await import("/client.js");
          const mine = window.mine = { log: [], sockets: 0 };
          addEventListener("pageshow", ({ persisted }) => mine.log.push(["shown", { persisted }]));
          const token = async () => (await fetch("/token?user=left&life=600")).text();
          const Socket = class extends WebSocket { constructor(...given) { super(...given); mine.sockets++; } };
          mine.client = connect({ url: `ws://${pod}/ws/acme/agent-7`, apiKey: key, token, WebSocket: Socket });
          for (const type of ["ready", "close"]) mine.client.addEventListener(type, ({ detail }) => mine.log.push([type, detail]));
        })().then(() => done(true), (e) => done(String(e)));"""
    assert browser.call("execute/async", {"script": script, "args": [status["pods"][0]["address"], status["api_key"]]}) is True
    until("it is ready", lambda: browser.js("return mine.client.state") == "ready")
    browser.open(f"{tabs.pages}?other")
    browser.call("back", {})
    until("it is ready again", lambda: browser.js("return window.mine?.client.state") == "ready")
    log = browser.js("return mine.log")

    def of(kind):
        return [detail for name, detail in log if name == kind]

    assert of("shown") == [{"persisted": True}], log
    assert [close["reason"] for close in of("close")] == ["page-hidden"], log
    assert of("ready")[1]["resumed"] and browser.js("return mine.sockets") == 2, log
    browser.call("window", method="DELETE")
    browser.call("window", {"handle": tabs.handles[0]})


def main():
    program, out, *names = sys.argv[1:]
    out = pathlib.Path(out)
    out.mkdir(parents=True, exist_ok=True)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Pages, directory=str(ROOT / "clients/typescript/dist")))
    # A tab that is closed while it is answered.
    server.handle_error = lambda *_: None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    pages = f"http://127.0.0.1:{server.server_address[1]}/"
    failed = []
    fleet, browser = Fleet(program, out), Browser(out)
    Pages.status = fleet.status()
    try:
        first = browser.call("window")
        for name, test in list(globals().items()):
            if not name.startswith("test_") or (names and not any(part in name for part in names)):
                continue
            begun = time.monotonic()
            tabs = None
            try:
                tabs = Tabs(browser, fleet, pages, f"shared-{len(name)}", getattr(test, "life", 600))
                for _ in range(3):
                    tabs.open()
                test(tabs, fleet)
                print(f"ok      {name} ({time.monotonic() - begun:.1f} s)", flush=True)
            except Exception:
                failed.append(name)
                print(f"FAILED  {name} ({time.monotonic() - begun:.1f} s)\n{traceback.format_exc()}{tabs and tabs.all()}", flush=True)
            if tabs:
                tabs.end(first)
    finally:
        browser.end()
        fleet.end()
        server.shutdown()
    if failed:
        sys.exit(f"{len(failed)} failed: {', '.join(failed)}")


main()
