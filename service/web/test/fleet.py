"""A fleet as in production, for a browser: three pods as processes of their own on a real Redis and a real NATS, a balancer before them, and a web site.

The programs redis-server and nats-server are on PATH, or where REDIS_SERVER and NATS_SERVER say. Everything listens on the loopback, on free ports.
"""

import asyncio
import collections
import http.server
import json
import os
import pathlib
import signal
import socket
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request

from browser import until

API_KEY, MINT_KEY = "browsers-hold-this-key", "only-the-back-end-holds-this-key"
CHAT = "62811200345@s.whatsapp.net"
SUBJECTS = ("wa.acme.agent-7.chats", f"wa.acme.agent-7.messages.{CHAT}")
# Seconds: what a dead pod had taken comes again while a test can wait for it.
ACK_WAIT = 3
Sent = collections.namedtuple("Sent", "seq at")


def now():
    """Milliseconds, by the clock that a page's Date.now() shows too."""
    return time.time() * 1000


def get(url, timeout=2):
    """The answer's text, or None when there is none or it is a refusal."""
    try:
        with urllib.request.urlopen(url, timeout=timeout) as answer:
            return answer.read().decode()
    except OSError:
        return None


class Servers:
    """A Redis and a NATS with JetStream."""

    def __init__(self):
        self.folder = tempfile.TemporaryDirectory()
        home = pathlib.Path(self.folder.name)
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "cwd": home}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.redis = f"127.0.0.1:{probe.getsockname()[1]}"
        (home / "nats.conf").write_text(
            f'listen: "127.0.0.1:-1"\nports_file_dir: "{home}"\njetstream {{ store_dir: "{home}/store", max_file_store: 256M }}\n')
        redis = [os.environ.get("REDIS_SERVER", "redis-server"), "--bind", "127.0.0.1", "--port", self.redis.split(":")[1], "--save", "", "--appendonly", "no"]
        nats = [os.environ.get("NATS_SERVER", "nats-server"), "-c", "nats.conf"]
        self.processes = []
        try:
            self.processes = [subprocess.Popen(command, **quiet) for command in (redis, nats)]
            ports = until("nats-server says its port", lambda: next((path for path in home.glob("*.ports") if path.read_text().strip()), None))
            self.nats = json.loads(ports.read_text())["nats"][0]
            until("redis-server listens", self.redis_listens)
        except BaseException:
            self.end()
            raise

    def redis_listens(self):
        host, port = self.redis.split(":")
        with socket.socket() as probe:
            return probe.connect_ex((host, int(port))) == 0

    def end(self):
        for process in self.processes:
            process.kill()
            process.wait()
        self.folder.cleanup()


class Pod:
    """One `serve`. Its ports are new with every start."""

    def __init__(self, program, out, name, environment):
        self.program, self.name, self.environment = program, name, environment
        self.log = out / f"{name}.log"
        self.starts = 0

    def start(self):
        self.starts += 1
        self.log.write_bytes(b"")
        with self.log.open("ab") as log:
            self.process = subprocess.Popen([self.program, "serve"], env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.port = until(f"{self.name} serves", self.announced_port)

    def announced_port(self):
        assert self.process.poll() is None, f"{self.name} ended: {self.log.read_text()[-2000:]}"
        for line in self.log.read_text().splitlines():
            if '"the pod serves"' in line:
                return int(json.loads(line)["http.address"].rsplit(":", 1)[1])
        return None

    def url(self, path):
        return f"http://127.0.0.1:{self.port}{path}"

    def figures(self, name):
        """What it says of a metric, by labels."""
        return dict(line.rsplit(" ", 1) for line in (get(self.url("/metrics")) or "").splitlines() if line.startswith(name + "{"))

    def sockets(self):
        return sum(float(figure) for figure in self.figures("dws_active_connections").values())

    def peers(self):
        """How many other pods it finds alive, and how many lapsed: silent, but not yet taken for dead."""
        figures = self.figures("dws_peers")
        return tuple(int(figures.get(f'dws_peers{{state="{state}"}}', -1)) for state in ("alive", "lapsed"))

    def signal(self, number):
        self.process.send_signal(number)

    def ended(self):
        """Waits for its end and returns its exit code."""
        return self.process.wait(40)

    def end(self):
        if self.process.poll() is None:
            # One that is frozen takes no other signal.
            self.process.kill()
            self.process.wait()


class Balancer:
    """One address before all pods, as HAProxy in compose/: asks each for /ready, and gives a socket to the well one that has the fewest.

    `attempts` counts the sockets that were asked for, whatever became of them.
    """

    CHECK_EVERY = 0.2

    def __init__(self, pods):
        self.pods, self.well, self.open = pods, set(), collections.Counter()
        self.attempts = 0
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.run, daemon=True)
        listening = threading.Event()
        self.listening = listening
        self.thread.start()
        assert listening.wait(10), "the balancer listens"

    def run(self):
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_until_complete(self.serve())
        except asyncio.CancelledError:
            # Connections end with the balancer.
            left = asyncio.all_tasks(self.loop)
            for task in left:
                task.cancel()
            self.loop.run_until_complete(asyncio.gather(*left, return_exceptions=True))
        self.loop.close()

    async def serve(self):
        self.task = asyncio.current_task()
        server = await asyncio.start_server(self.take, "127.0.0.1", 0)
        self.address = "127.0.0.1:%d" % server.sockets[0].getsockname()[1]
        self.listening.set()
        async with server:
            await asyncio.gather(*(self.watch(pod) for pod in self.pods))

    async def watch(self, pod):
        while True:
            if await self.is_well(pod):
                self.well.add(pod)
            else:
                self.well.discard(pod)
            await asyncio.sleep(self.CHECK_EVERY)

    async def is_well(self, pod):
        writer = None
        try:
            async with asyncio.timeout(1):
                reader, writer = await asyncio.open_connection("127.0.0.1", pod.port)
                writer.write(b"GET /ready HTTP/1.1\r\nHost: balancer\r\nConnection: close\r\n\r\n")
                return (await reader.readline()).startswith(b"HTTP/1.1 200")
        except (OSError, TimeoutError):
            return False
        finally:
            if writer:
                writer.close()

    async def take(self, reader, writer):
        pod, tunnel = None, False
        try:
            async with asyncio.timeout(30):
                head = await reader.readuntil(b"\r\n\r\n")
            # Among the sockets too: what /ready says to a client.
            tunnel = head.startswith(b"GET /ws/") and not head.startswith(b"GET /ws/ready ")
            self.attempts += tunnel
            pod, there = await self.choose(tunnel)
            if pod:
                there[1].write(head)
                await asyncio.gather(self.pump(reader, there[1]), self.pump(there[0], writer))
        except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass
        finally:
            if pod:
                self.open[pod] -= tunnel
            writer.close()

    async def choose(self, tunnel):
        # One that does not take the connection is no reason to fail: another gets it.
        for pod in sorted(self.well, key=lambda pod: (self.open[pod], pod.name)):
            self.open[pod] += tunnel
            try:
                return pod, await asyncio.open_connection("127.0.0.1", pod.port)
            except OSError:
                self.open[pod] -= tunnel
        return None, None

    @staticmethod
    async def pump(reader, writer):
        try:
            while data := await reader.read(65536):
                writer.write(data)
                await writer.drain()
        except OSError:
            pass
        finally:
            # Whichever side goes, the other is told.
            writer.close()

    def end(self):
        self.loop.call_soon_threadsafe(self.task.cancel)
        self.thread.join(5)


class Site:
    """The web site of whoever uses the gateway: a page, and a back-end that has tokens made. Its origin is not the gateway's."""

    def __init__(self, page):
        site = self
        self.page, self.gateway = page, None
        self.tokens, self.lock = {}, threading.Lock()

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                url = urllib.parse.urlsplit(self.path)
                query = dict(urllib.parse.parse_qsl(url.query))
                try:
                    kind, body = ("text/plain", site.token(query["user"], int(query["life"]))) if url.path == "/token" else ("text/html", site.document())
                except OSError as error:
                    self.send_error(502, str(error))
                    return
                self.send_response(200)
                self.send_header("Content-Type", f"{kind}; charset=utf-8")
                self.end_headers()
                self.wfile.write(body.encode())

            def log_message(self, *_):
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.origin = "http://127.0.0.1:%d" % self.server.server_address[1]
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def document(self):
        # The icon: or the browser asks for one and complains.
        return (f'<!doctype html><title>site</title><link rel=icon href="data:,"><script type=module>const GATEWAY = "{self.gateway}", API_KEY = "{API_KEY}";\n'
                f"{self.page}</script>")

    def token(self, user, life):
        """A token, as the gateway makes it; one that lives long is kept, so that it is there when no pod is."""
        with self.lock:
            if token := self.tokens.get((user, life)):
                return token
            body = json.dumps({"company_id": "acme", "agent_id": "agent-7", "user_id": user, "expires_in_seconds": life}).encode()
            headers = {"X-API-Key": MINT_KEY, "Content-Type": "application/json"}
            request = urllib.request.Request(f"http://{self.gateway}/generate-token", data=body, headers=headers)
            with urllib.request.urlopen(request, timeout=5) as answer:
                token = json.loads(answer.read())["token"]
            if life >= 60:
                self.tokens[user, life] = token
            return token

    def end(self):
        self.server.shutdown()
        self.server.server_close()


class Publisher:
    """Stores events in the stream, one after the other, and knows the sequence of each and when it was sent."""

    def __init__(self, url):
        where = urllib.parse.urlsplit(url)
        self.socket = socket.create_connection((where.hostname, where.port), timeout=10)
        self.file = self.socket.makefile("rb")
        self.asked = 0
        self.socket.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nSUB _INBOX.web.* 1\r\n')

    def ask(self, subject, body=b""):
        """Sends a request and returns the answer to it."""
        self.asked += 1
        inbox = f"_INBOX.web.{self.asked}"
        self.socket.sendall(f"PUB {subject} {inbox} {len(body)}\r\n".encode() + body + b"\r\n")
        while line := self.file.readline():
            words = line.decode().split()
            if words and words[0] == "PING":
                self.socket.sendall(b"PONG\r\n")
            elif words and words[0] == "-ERR":
                raise AssertionError(line)
            elif words and words[0] == "MSG":
                answer = self.file.read(int(words[-1]) + 2)
                if words[1] == inbox:
                    return json.loads(answer)
        raise AssertionError("nats-server has closed the connection")

    def publish(self, number):
        at = now()
        event = json.dumps({"event_id": str(number), "row_data": {"n": number}}).encode()
        return Sent(self.ask(SUBJECTS[number % len(SUBJECTS)], event)["seq"], at)

    def settled(self):
        """Is every event taken, and acked by whoever took it?"""
        state = self.ask("$JS.API.CONSUMER.INFO.wa_stream.ws_fanout")
        return state["num_pending"] == 0 and state["num_ack_pending"] == 0

    def end(self):
        self.file.close()
        self.socket.close()


class Traffic:
    """Events at a steady rate, until its `with` ends. `sent` grows meanwhile."""

    EVERY = 0.05

    def __init__(self, url):
        self.publisher, self.sent, self.failure = Publisher(url), [], None
        self.stop = threading.Event()
        self.thread = threading.Thread(target=self.run, daemon=True)

    def run(self):
        try:
            while not self.stop.wait(self.EVERY):
                self.sent.append(self.publisher.publish(len(self.sent)))
        except Exception as error:  # shown where the test waits for it
            self.failure = error

    def __enter__(self):
        self.thread.start()
        until("events are sent", lambda: self.sent)
        return self

    def cease(self):
        """Sends no more, and waits until all is settled."""
        self.stop.set()
        self.thread.join(15)
        assert self.failure is None and not self.thread.is_alive(), self.failure
        until("every event is settled", self.publisher.settled, 40)

    def __exit__(self, *_):
        self.stop.set()
        self.thread.join(15)
        self.publisher.end()


class RealFleet:
    """All of it. `gateway` is the one address that browsers know."""

    def __init__(self, program, out, page):
        self.pods, self.balancer, self.servers = [], None, None
        self.site = Site(page)
        try:
            self.servers = Servers()
            self.pods = [Pod(program, out, name, self.environment(name)) for name in ("pod-a", "pod-b", "pod-c")]
            for pod in self.pods:
                pod.start()
            self.balancer = Balancer(self.pods)
            self.gateway = self.site.gateway = self.balancer.address
            self.whole()
        except BaseException:
            self.end()
            raise

    def environment(self, name):
        return {
            "DAISI_WS_SERVER_POD_ID": name,
            "DAISI_WS_SERVER_BIND_ADDRESS": "127.0.0.1",
            "DAISI_WS_SERVER_HTTP_PORT": "0",
            "DAISI_WS_SERVER_GRPC_PORT": "0",
            "DAISI_WS_SERVER_SERVE_CLIENT": "true",
            "DAISI_WS_SERVER_ALLOWED_ORIGINS": self.site.origin,
            "DAISI_WS_NATS_URL": self.servers.nats,
            "DAISI_WS_NATS_STREAM_MAX_BYTES": "16777216",
            "DAISI_WS_REDIS_ADDRESS": self.servers.redis,
            "DAISI_WS_AUTH_SECRET_TOKEN": API_KEY,
            "DAISI_WS_AUTH_TOKEN_GENERATION_ADMIN_KEY": MINT_KEY,
            "DAISI_WS_AUTH_TOKEN_AES_KEY": "1a" * 32,
            "DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY": "2b" * 32,
            "DAISI_WS_APP_NATS_ACK_WAIT_SECONDS": str(ACK_WAIT),
        }

    def whole(self):
        """Waits until every pod knows every other, and the balancer finds them well."""
        until("the fleet is whole", lambda: len(self.balancer.well) == 3 and all(pod.peers() == (2, 0) for pod in self.pods), 40)

    def pod(self, name):
        return next(pod for pod in self.pods if pod.name == name)

    def traffic(self):
        return Traffic(self.servers.nats)

    def kill(self, pod):
        pod.signal(signal.SIGKILL)
        pod.ended()

    def end(self):
        if self.balancer:
            self.balancer.end()
        for pod in self.pods:
            if hasattr(pod, "process"):
                pod.end()
        if self.servers:
            self.servers.end()
        self.site.end()
