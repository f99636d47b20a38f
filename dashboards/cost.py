#!/usr/bin/env python3
"""What metrics and traces cost: CPU per delivered event of a pod with both (1 % of the traces sampled, scraped every second), against one with neither.

Both pods run at the same time, each on a NATS and Redis of its own, with the same sockets and the same events, in turns: A, B, A, B … so that whatever
else the machine does meets both. CPU is the pod's own, as the kernel counts it, user and system. The OTLP endpoint takes connections and says nothing:
exports fail, which costs no less than to succeed.
"""

import asyncio
import os
import pathlib
import signal
import socket
import statistics
import subprocess
import tempfile
import urllib.request

import nats
import websockets

BINARY, API_KEY = os.environ["DAISI_WS_BINARY"], "browsers-hold-this-key"
SOCKETS, EVENTS, ROUNDS = 50, 3000, int(os.environ.get("ROUNDS", "8"))
TICK = os.sysconf("SC_CLK_TCK")
KEYS = {
    "DAISI_WS_AUTH_SECRET_TOKEN": API_KEY, "DAISI_WS_AUTH_TOKEN_GENERATION_ADMIN_KEY": "only-the-back-end-holds-this-key",
    "DAISI_WS_AUTH_TOKEN_AES_KEY": "1a" * 32, "DAISI_WS_AUTH_ADMIN_TOKEN_AES_KEY": "2b" * 32,
}


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Pod:
    def __init__(self, name, folder, env):
        self.name, self.seen, self.costs = name, 0, []
        self.http, self.nats, redis = free_port(), free_port(), free_port()
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.env = {**os.environ, **KEYS, **env, "DAISI_WS_SERVER_POD_ID": name, "DAISI_WS_SERVER_BIND_ADDRESS": "127.0.0.1",
                    "DAISI_WS_SERVER_HTTP_PORT": str(self.http), "DAISI_WS_SERVER_GRPC_PORT": str(free_port()),
                    "DAISI_WS_NATS_URL": f"nats://127.0.0.1:{self.nats}", "DAISI_WS_NATS_STREAM_MAX_BYTES": "67108864",
                    "DAISI_WS_REDIS_ADDRESS": f"127.0.0.1:{redis}"}
        self.processes = [
            subprocess.Popen([os.environ["NATS_SERVER"], "-js", "-a", "127.0.0.1", "-p", str(self.nats), "-sd", f"{folder}/{name}"], **quiet),
            subprocess.Popen([os.environ["REDIS_SERVER"], "--port", str(redis), "--bind", "127.0.0.1", "--save", ""], cwd=folder, **quiet),
            subprocess.Popen([BINARY, "serve"], env=self.env, **quiet),
        ]

    async def start(self):
        for _ in range(300):
            try:
                await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{self.http}/ready", timeout=2)
                break
            except OSError:
                await asyncio.sleep(0.1)
        self.publisher = await nats.connect(f"nats://127.0.0.1:{self.nats}")
        self.tasks = []
        for n in range(SOCKETS):
            command = [BINARY, "token", "user", "--company", "acme", "--agent", "a1", "--user", f"u{n}"]
            token = subprocess.run(command, env=self.env, check=True, capture_output=True, text=True).stdout.strip()
            client = await websockets.connect(f"ws://127.0.0.1:{self.http}/ws/acme/a1?x-api-key={API_KEY}&token={token}")
            await client.recv()
            self.tasks.append(asyncio.create_task(self.count(client)))

    async def count(self, client):
        async for _ in client:
            self.seen += 1

    async def scrape(self):
        while True:
            await asyncio.to_thread(urllib.request.urlopen, f"http://127.0.0.1:{self.http}/metrics", timeout=5)
            await asyncio.sleep(1)

    def cpu(self):
        fields = pathlib.Path(f"/proc/{self.processes[2].pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    async def round(self, event, scraped):
        scraping = asyncio.create_task(self.scrape()) if scraped else None
        before, wanted = self.cpu(), self.seen + SOCKETS * EVENTS
        for n in range(EVENTS):
            await self.publisher.publish("wa.acme.a1.chats", event)
            if n % 50 == 49:
                await self.publisher.flush()
        while self.seen < wanted:
            await asyncio.sleep(0.02)
        if scraping:
            scraping.cancel()
        self.costs.append((self.cpu() - before) / (SOCKETS * EVENTS) * 1e6)

    def end(self):
        for process in reversed(self.processes):
            process.send_signal(signal.SIGKILL)
            process.wait()


async def main():
    silent = socket.create_server(("127.0.0.1", 0))
    endpoint = f"http://127.0.0.1:{silent.getsockname()[1]}"
    event = b'{"event_id":"e-1","event_time":"2026-01-02T03:04:05.678Z","company_id":"acme","row_data":{"text":"' + b"x" * 300 + b'"}}'
    with tempfile.TemporaryDirectory(prefix="dws-cost-") as folder:
        full = Pod("full", folder, {"DAISI_WS_TELEMETRY_OTLP_ENDPOINT": endpoint, "DAISI_WS_TELEMETRY_SAMPLE_RATIO": "0.01"})
        bare = Pod("bare", folder, {"DAISI_WS_TELEMETRY_METRICS": "false"})
        try:
            await full.start()
            await bare.start()
            for number in range(ROUNDS + 1):
                # Who begins changes, too.
                for pod in (full, bare) if number % 2 else (bare, full):
                    await pod.round(event, pod is full)
                if number == 0:
                    full.costs.clear(), bare.costs.clear()
            a, b = statistics.median(full.costs), statistics.median(bare.costs)
            print(f"{ROUNDS} rounds of {EVENTS} events to {SOCKETS} sockets; CPU a delivered event, median of the rounds:")
            print(f"with metrics and 1 % of the traces {a:.2f} us, with neither {b:.2f} us, ratio {a / b:.3f}")
            print("rounds with:    " + " ".join(f"{cost:.2f}" for cost in full.costs))
            print("rounds without: " + " ".join(f"{cost:.2f}" for cost in bare.costs))
        finally:
            full.end()
            bare.end()


asyncio.run(main())
