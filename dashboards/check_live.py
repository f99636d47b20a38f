#!/usr/bin/env python3
"""Three real pods on a real NATS and Redis, scraped by a real Prometheus with the shipped rules, under load, while faults happen.

Fails unless every panel query of every dashboard returns data, and every alert that a fault here should raise fires, and clears afterwards.

Time is compressed, and nothing else of the rules is changed: a window or `for` of five minutes becomes 20 seconds, those that are longer at most
90, and rules are evaluated every second. Thresholds stay. Run it with dashboards/check-live.sh, which brings what it needs.
"""

import asyncio
import json
import os
import pathlib
import random
import re
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.parse
import urllib.request

import nats
import websockets

HERE = pathlib.Path(__file__).parent.resolve()
BINARY = os.environ["DAISI_WS_BINARY"]
API_KEY = "browsers-hold-this-key"
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# What the faults below must raise; whatever else fires is printed.
EXPECTED = {
    "auth": ["DwsAuthFailureRateHigh"],
    "takeovers": ["DwsSessionConflictSpike"],
    "breaks": ["DwsConnectionsDropping"],
    "full": ["DwsConnectionLimitNear", "DwsConnectionLimitReached"],
    "poison": ["DwsPoisonEvents"],
    "reload": ["DwsConfigReloadRefused"],
    "slow": ["DwsMessagesDropped", "DwsStreamWindowShort"],
    "frozen": ["DwsPodDown", "DwsCircuitBreakerOpen"],
    "redis": ["DwsRedisAway", "DwsRedisErrors", "DwsConnectsRefused", "DwsPodNotReady", "DwsAvailabilityBurnFast"],
    "nats": ["DwsNatsAway"],
}


def compress(text):
    """A duration of the rules, as it is here."""
    seconds = sum(int(n) * UNITS[u] for n, u in re.findall(r"(\d+)([smhd])", text))
    return f"{0 if seconds == 0 else max(1, min(90, round(seconds / 15)))}s"


def compressed_rules(text):
    window = lambda found: f"[{max(10, int(compress(found[1])[:-1]))}s]"
    text = re.sub(r"\[(\w+)\]", window, text)
    text = re.sub(r"offset (\w+)", lambda found: "offset " + compress(found[1]), text)
    text = re.sub(r"^(\s+for:) (\w+)", lambda found: f"{found[1]} {compress(found[2])}", text, flags=re.M)
    return re.sub(r"^(\s+interval:) \w+", r"\1 1s", text, flags=re.M)


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Processes:
    def __init__(self, folder):
        self.folder, self.all = folder, {}

    def start(self, name, command, env=None):
        log = open(self.folder / f"{name}.log", "a")
        self.all[name] = subprocess.Popen(command, env={**os.environ, **(env or {})}, stdout=log, stderr=log, cwd=self.folder)

    def signal(self, name, which):
        self.all[name].send_signal(which)

    def kill(self, name):
        process = self.all.pop(name)
        process.send_signal(signal.SIGCONT)
        process.kill()
        process.wait()

    def end(self):
        for name in list(self.all):
            self.kill(name)


class Fleet:
    def __init__(self, folder):
        self.folder, self.processes = folder, Processes(folder)
        self.nats, self.redis, self.prometheus = free_port(), free_port(), free_port()
        self.http = [free_port() for _ in range(3)]
        self.grpc = [free_port() for _ in range(3)]
        self.fired, self.events, self.cursors = {}, 0, {}
        self.env = {
            "DAISI_WS_SERVER_BIND_ADDRESS": "127.0.0.1",
            "DAISI_WS_NATS_URL": f"nats://127.0.0.1:{self.nats}", "DAISI_WS_NATS_STREAM_MAX_BYTES": "67108864",
            "DAISI_WS_REDIS_ADDRESS": f"127.0.0.1:{self.redis}",
            "DAISI_WS_AUTH_SECRET_TOKEN": API_KEY, "DAISI_WS_AUTH_TOKEN_GENERATION_ADMIN_KEY": "only-the-back-end-holds-this-key",
            "DAISI_WS_AUTH_TOKEN_AES_KEY": "1a" * 32, "DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY": "2b" * 32,
            # One failed call opens a breaker here, so that a frozen pod shows before it is retired.
            "DAISI_WS_APP_GRPC_CIRCUITBREAKER_FAIL_THRESHOLD": "1", "DAISI_WS_APP_GRPC_CLIENT_FORWARD_TIMEOUT_SECONDS": "1",
            "DAISI_WS_APP_WEBSOCKET_MESSAGE_BUFFER_SIZE": "10",
            "DAISI_WS_CONFIG": str(folder / "config.yaml"),
        }

    def start_nats(self):
        self.processes.start("nats", [os.environ["NATS_SERVER"], "-js", "-a", "127.0.0.1", "-p", str(self.nats), "-sd", str(self.folder / "js")])

    def start_redis(self):
        self.processes.start("redis", [os.environ["REDIS_SERVER"], "--port", str(self.redis), "--bind", "127.0.0.1", "--save", "", "--appendonly", "no"])

    def configure(self, text):
        (self.folder / "config.yaml").write_text(text)

    def reload(self):
        for pod in range(3):
            self.processes.signal(f"pod-{pod}", signal.SIGHUP)

    async def start(self):
        self.configure("app:\n  max_connections: 500\n")
        self.start_nats()
        self.start_redis()
        await asyncio.sleep(1)
        for pod in range(3):
            env = {**self.env, "DAISI_WS_SERVER_POD_ID": f"pod-{pod}", "DAISI_WS_SERVER_HTTP_PORT": str(self.http[pod]),
                   "DAISI_WS_SERVER_GRPC_PORT": str(self.grpc[pod]), "DAISI_WS_SERVER_GRPC_ADVERTISE_ADDRESS": f"127.0.0.1:{self.grpc[pod]}"}
            self.processes.start(f"pod-{pod}", [BINARY, "serve"], env)
        for name in ("recording.yaml", "alerts.yaml"):
            (self.folder / name).write_text(compressed_rules((HERE / "prometheus" / name).read_text()))
        config = (HERE / "prometheus/prometheus.yml").read_text()
        config = re.sub(r"(scrape|evaluation)_interval: \w+", r"\1_interval: 1s", config)
        for pod in range(3):
            config = config.replace(f"daisi-ws-{pod + 1}:8080", f"127.0.0.1:{self.http[pod]}")
        (self.folder / "prometheus.yml").write_text(config)
        self.processes.start("prometheus", ["prometheus", f"--config.file={self.folder}/prometheus.yml", f"--storage.tsdb.path={self.folder}/tsdb",
                                            f"--web.listen-address=127.0.0.1:{self.prometheus}"])
        await until("the pods are ready", lambda: all(get(f"http://127.0.0.1:{port}/ready") for port in self.http))
        await until("Prometheus scrapes them", lambda: len(self.query("dws_ready == 1")) == 3)

    def query(self, expr, **more):
        kind = "query_range" if more else "query"
        parameters = urllib.parse.urlencode({"query": expr, **more})
        text = get(f"http://127.0.0.1:{self.prometheus}/api/v1/{kind}?{parameters}")
        if text is None:
            return []
        return json.loads(text)["data"]["result"]

    def token(self, company, agent, user):
        command = [BINARY, "token", "user", "--company", company, "--agent", agent, "--user", user]
        return subprocess.run(command, env={**os.environ, **self.env}, check=True, capture_output=True, text=True).stdout.strip()

    def admin_token(self, name):
        command = [BINARY, "token", "admin", "--admin", name]
        return subprocess.run(command, env={**os.environ, **self.env}, check=True, capture_output=True, text=True).stdout.strip()

    def url(self, pod, path, token, cursor=None):
        resume = f"&resume={cursor}" if cursor else ""
        return f"ws://127.0.0.1:{self.http[pod]}{path}?x-api-key={API_KEY}&token={urllib.parse.quote(token)}{resume}"

    async def connect(self, pod, token, path="/ws/acme/a1", cursor=None):
        return await websockets.connect(self.url(pod, path, token, cursor), open_timeout=5, max_size=None)

    def note_alerts(self):
        for result in self.query('ALERTS{alertstate="firing"}'):
            self.fired.setdefault(result["metric"]["alertname"], time.time())

    async def fires(self, *names):
        def all_fire():
            self.note_alerts()
            firing = {result["metric"]["alertname"] for result in self.query('ALERTS{alertstate="firing"}')}
            self.fired_now = getattr(self, "fired_now", set()) | firing
            return all(name in self.fired_now for name in names)
        self.fired_now = set()
        await until(f"{', '.join(names)} fire", all_fire, 90, lambda: f"fired: {sorted(self.fired_now)}")
        print(f"  fired: {', '.join(names)}", flush=True)


def get(url):
    try:
        with urllib.request.urlopen(url, timeout=3) as answer:
            return answer.read().decode()
    except OSError:
        return None


async def until(what, holds, seconds=60, detail=lambda: ""):
    deadline = time.time() + seconds
    while not await asyncio.to_thread(holds):
        if time.time() > deadline:
            raise SystemExit(f"not within {seconds} s: {what}; {detail()}")
        await asyncio.sleep(0.5)


async def steadily(work, seconds):
    """Does it again and again, whatever goes wrong: faults are the point."""
    while True:
        try:
            await work()
        except Exception:  # noqa: BLE001
            pass
        await asyncio.sleep(seconds)


async def expected(_):
    """NATS is taken away on purpose."""


async def publish(fleet, subject, payload):
    client = getattr(fleet, "publisher", None)
    if client is None or client.is_closed:
        fleet.publisher = client = await nats.connect(f"nats://127.0.0.1:{fleet.nats}", max_reconnect_attempts=-1,
                                                      reconnect_time_wait=0.5, error_cb=expected)
    await client.publish(subject, payload)


async def load(fleet):
    """Forty events a second of all kinds, and now and then a chat selected and a user who comes and goes."""
    now = time.time()
    fleet.events += 1
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(now)) + f".{int(now % 1 * 1000):03d}Z"
    event = json.dumps({"event_id": f"e-{fleet.events}", "event_time": stamp, "company_id": "acme", "row_data": {"n": fleet.events}})
    subject = ["wa.acme.a1.chats", "wa.acme.a1.messages.c1", "wa.acme.a1.agents", "wa.acme.a2.chats"][fleet.events % 4]
    await publish(fleet, subject, event.encode())


async def reader(fleet, pod, token, path="/ws/acme/a1"):
    """A browser: connects, selects a chat, reads, and comes back with its cursor when it is sent away."""
    async with await fleet.connect(pod, token, path, fleet.cursors.get(token)) as client:
        if path != "/ws/admin":
            await client.send('{"type":"select_chat","payload":{"chat_id":"c1"}}')
        stream = None
        async for text in client:
            frame = json.loads(text)
            place = frame.get("payload", {}) if frame["type"] == "ready" else frame
            stream = place.get("stream", stream)
            if stream and "safe" in place:
                fleet.cursors[token] = f"{stream}:{place['safe']}"


async def visitor(fleet, token):
    client = await fleet.connect(random.randrange(3), token)
    await asyncio.sleep(0.5)
    await client.send('{"type":"nonsense"}')
    await client.close()


def slow_client(fleet, token):
    """Does the handshake and never reads."""
    one = socket.socket()
    one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    one.connect(("127.0.0.1", fleet.http[0]))
    one.sendall((f"GET /ws/acme/slow?x-api-key={API_KEY}&token={urllib.parse.quote(token)} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n"
                 "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n").encode())
    return one


async def faults(fleet):
    async def say(name):
        print(f"{name} …", flush=True)
        return EXPECTED[name]

    names = await say("auth")
    bad = asyncio.create_task(steadily(lambda: fleet.connect(0, "bad-token"), 0.05))
    await fleet.fires(*names)
    bad.cancel()

    names = await say("takeovers")
    token, pods = fleet.token("acme", "a1", "mover"), iter(range(10**9))
    moves = asyncio.create_task(steadily(lambda: asyncio.wait_for(fleet.connect(next(pods) % 3, token), 2), 0.1))
    await fleet.fires(*names)
    moves.cancel()

    names = await say("breaks")
    tokens = [fleet.token("acme", "a9", f"broken-{n}") for n in range(12)]

    async def snap(one):
        client = await fleet.connect(one % 3, tokens[one], "/ws/acme/a9")
        client.transport.abort()
    breaks = asyncio.create_task(steadily(lambda: asyncio.gather(*(snap(n) for n in range(12))), 0.2))
    await fleet.fires(*names)
    breaks.cancel()

    names = await say("full")
    fleet.configure("app:\n  max_connections: 8\n")
    fleet.reload()
    await fleet.fires(*names)
    fleet.configure("app:\n  max_connections: 500\n")
    fleet.reload()

    names = await say("poison")
    await publish(fleet, "wa.acme.a1.chats", b"no json")
    await fleet.fires(*names)

    names = await say("reload")
    fleet.configure("app:\n  max_connections: nonsense\n")
    fleet.reload()
    await fleet.fires(*names)
    fleet.configure("app:\n  max_connections: 500\n")
    fleet.reload()

    names = await say("slow")
    held = slow_client(fleet, fleet.token("acme", "slow", "sloth"))
    big = json.dumps({"event_id": "big", "row_data": "x" * 60000}).encode()
    flood = asyncio.create_task(steadily(lambda: publish(fleet, "wa.acme.slow.chats", big), 0.02))
    await fleet.fires(*names)
    flood.cancel()
    held.close()

    names = await say("frozen")
    fleet.processes.signal("pod-2", signal.SIGSTOP)
    await fleet.fires(*names)
    fleet.processes.signal("pod-2", signal.SIGCONT)

    names = await say("redis")
    fleet.processes.kill("redis")
    # Users who come now, and are refused.
    token = fleet.token("acme", "a1", "unlucky")
    refused = asyncio.create_task(steadily(lambda: fleet.connect(0, token), 0.1))
    await fleet.fires(*names)
    refused.cancel()
    fleet.start_redis()
    await until("the pods are ready again", lambda: all(get(f"http://127.0.0.1:{port}/ready") for port in fleet.http))

    names = await say("nats")
    fleet.processes.kill("nats")
    await fleet.fires(*names)
    fleet.start_nats()


def panels_without_data(fleet, since):
    empty, asked = [], 0
    for file in sorted((HERE / "grafana").glob("*.json")):
        for panel in json.loads(file.read_text())["panels"]:
            for target in panel.get("targets", []):
                asked += 1
                expr = target["expr"].replace("$interval", "20s").replace("[1h]", "[90s]").replace("[1d]", "[60s]")
                for name in ("job", "pod", "type"):
                    expr = expr.replace(f"${name}", ".*")
                found = fleet.query(expr, start=since, end=time.time(), step=2)
                if not any(value != "NaN" for result in found for _, value in result["values"]):
                    empty.append(f"{file.name}: {panel['title']}: {expr}")
    return asked, empty


async def main():
    started = time.time()
    with tempfile.TemporaryDirectory(prefix="dws-live-") as folder:
        fleet = Fleet(pathlib.Path(folder))
        try:
            await fleet.start()
            print(f"three pods are scraped after {time.time() - started:.0f} s", flush=True)
            tasks = [asyncio.create_task(steadily(lambda: load(fleet), 0.025))]
            users = [fleet.token("acme", f"a{1 + n // 3 % 2}", f"user-{n}") for n in range(24)]
            for n, token in enumerate(users):
                path = f"/ws/acme/a{1 + n // 3 % 2}"
                tasks.append(asyncio.create_task(steadily(lambda n=n, token=token, path=path: reader(fleet, n % 3, token, path), 1)))
            for n in range(3):
                admin = fleet.admin_token(f"root-{n}")
                tasks.append(asyncio.create_task(steadily(lambda n=n, admin=admin: reader(fleet, n, admin, "/ws/admin"), 1)))
            guest = fleet.token("acme", "a1", "guest")
            tasks.append(asyncio.create_task(steadily(lambda: visitor(fleet, guest), 1)))
            await asyncio.sleep(25)
            await faults(fleet)
            print("everything is mended; what the faults raised clears …", flush=True)
            expected = {name for names in EXPECTED.values() for name in names}
            firing = lambda: {result["metric"]["alertname"] for result in fleet.query('ALERTS{alertstate="firing"}')}
            # Latency may well be too high on a busy machine; that is no fault of this script's making.
            await until("they clear", lambda: not firing() & expected, 240, firing)
            asked, empty = await asyncio.to_thread(panels_without_data, fleet, started)
            print(f"fired and cleared as expected: {len(expected)}; besides: {sorted(set(fleet.fired) - expected)}")
            print(f"panel queries: {asked}, without data: {len(empty)}")
            if empty:
                raise SystemExit("\n".join(empty))
            print(f"all is well after {time.time() - started:.0f} s")
        except BaseException:
            for pod in range(3):
                log = fleet.folder / f"pod-{pod}.log"
                if log.exists():
                    print(f"---- the end of {log.name}", *log.read_text().splitlines()[-5:], sep="\n", file=sys.stderr)
            raise
        finally:
            fleet.processes.end()


asyncio.run(main())
