#!/usr/bin/env python3
"""rehearse.py KUBECTL GATEWAY NATS REDIS WORKDIR: the production overlay without a cluster.

Three NATS servers and a Redis run with the configuration and Secrets that their pods would have, two gateways with the environment and files of the
built Deployment, and try.sh delivers an event, with a stand-in for kubectl. Only addresses, ports and folders are others than in a cluster.

Then it tries what nobody may do: to speak without TLS or a password, and each user what is not its own.
"""

import base64
import json
import os
import pathlib
import random
import socket
import ssl
import subprocess
import sys
import time
import urllib.request

import yaml

K8S = pathlib.Path(__file__).resolve().parent.parent
PATIENCE = 60
STAND_IN = """#!/usr/bin/env bash
# As much of kubectl as try.sh asks for.
case "$*" in
  *rollout*) ;;
  *port-forward*) echo "Forwarding from 127.0.0.1:$REHEARSAL_PORT -> 8080"; exec sleep 600 ;;
  *'get secret'*) printf %s "$REHEARSAL_KEY" ;;
  *exec*)
    while [[ $1 != -- ]]; do shift; done
    shift 2
    # The gateway's user may publish nothing: who does is another.
    if [[ $1 == publish ]]; then
      export DAISI_WS_NATS_USER=publisher DAISI_WS_NATS_PASSWORD_FILE=$REHEARSAL_PUBLISHER DAISI_WS_NATS_INBOX_PREFIX=_INBOX
    fi
    exec "$REHEARSAL_GATEWAY" "$@"
    ;;
  *) exit 64 ;;
esac
"""


def free_ports(count: int) -> list[int]:
    """Of those below the range from which outgoing connections take theirs, any of which may be one of these by the time that a server wants it."""
    held: dict[int, socket.socket] = {}
    while len(held) < count:
        port, one = random.randrange(15000, 32000), socket.socket()
        try:
            # On every address, as the servers do: a port may be in use on one of them only.
            one.bind(("0.0.0.0", port))
            held[port] = one
        except OSError:
            one.close()
    for one in held.values():
        one.close()
    return list(held)


def wait(url: str) -> bytes:
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return urllib.request.urlopen(url, timeout=2).read()
        except OSError as error:
            if time.monotonic() > end:
                raise SystemExit(f"rehearse.py: {url} is not well after {PATIENCE} s: {error}") from error
            time.sleep(0.1)


def put(path: pathlib.Path, text: str) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


class Nats:
    """As much of a NATS client as it takes to be refused."""

    def __init__(self, port: int, ca: pathlib.Path, user: str, password: str) -> None:
        plain = socket.create_connection(("127.0.0.1", port), timeout=10)
        plain.recv(65536)
        self.socket = ssl.create_default_context(cafile=str(ca)).wrap_socket(plain, server_hostname="localhost")
        self.said = self.ask("CONNECT " + json.dumps({"user": user, "pass": password, "verbose": False, "pedantic": False, "protocol": 1}))

    def ask(self, *lines: str) -> str:
        """What the server says until it answers a ping or hangs up."""
        self.socket.sendall("".join(f"{line}\r\n" for line in (*lines, "PING")).encode())
        said = b""
        while b"PONG\r\n" not in said:
            more = self.socket.recv(65536)
            if not more:
                break
            said += more
        return said.decode()


def ask_redis(port: int, ca: pathlib.Path, *commands: list[str]) -> list[str]:
    """The answer to each command, over TLS; each is one line."""
    plain = socket.create_connection(("127.0.0.1", port), timeout=10)
    with ssl.create_default_context(cafile=str(ca)).wrap_socket(plain, server_hostname="localhost") as stream:
        answers, lines = [], stream.makefile("rb")
        for command in commands:
            stream.sendall(f"*{len(command)}\r\n".encode() + b"".join(f"${len(word)}\r\n{word}\r\n".encode() for word in command))
            answers.append(lines.readline().decode().strip())
        return answers


def expect(what: str, said: str, *parts: str) -> None:
    if not all(part in said for part in parts):
        raise SystemExit(f"rehearse.py: {what}: {said!r} has not {parts}")


class Rehearsal:
    """What runs, and what it was made of."""

    def __init__(self, kubectl: str, gateway: str, nats: str, redis: str, work: str) -> None:
        self.gateway, self.nats, self.redis = str(pathlib.Path(gateway).resolve()), nats, redis
        self.work = pathlib.Path(work).resolve()
        self.children: list[subprocess.Popen] = []
        built = subprocess.run([kubectl, "kustomize", K8S / "overlays/production"], capture_output=True, check=True).stdout
        documents = list(yaml.safe_load_all(built))
        self.maps = {item["metadata"]["name"]: item["data"] for item in documents if item["kind"] == "ConfigMap"}
        self.pod = next(item["spec"]["template"]["spec"] for item in documents if item["kind"] == "Deployment")
        made = subprocess.run([K8S / "secrets.sh", "rehearsal"], capture_output=True, check=True).stdout
        self.secrets = {item["metadata"]["name"]: item["stringData"] for item in yaml.safe_load_all(made)}

    def file(self, prefix: str, name: str) -> str:
        """A file of the ConfigMap whose name, without its hash, is this."""
        return next(data[name] for full, data in self.maps.items() if full.rsplit("-", 1)[0] == prefix)

    def start(self, name: str, command: list[str], environment: dict[str, str]) -> None:
        log = (self.work / f"{name}.log").open("w")
        self.children.append(subprocess.Popen(command, env=environment, stdout=log, stderr=log))

    def stop(self) -> None:
        for child in self.children:
            child.terminate()
        for child in self.children:
            try:
                child.wait(10)
            except subprocess.TimeoutExpired:
                child.kill()

    def certificates(self, server: str, folder: pathlib.Path) -> pathlib.Path:
        """The folder with what the Secret of the server's certificate holds."""
        for name, text in self.secrets[f"{server}-tls"].items():
            put(folder / "tls" / name, text)
        return folder / "tls"

    def start_nats(self) -> tuple[str, list[int]]:
        clients, clusters, monitors = free_ports(3), free_ports(3), free_ports(3)
        for number in range(3):
            folder = self.work / f"nats-{number}"
            text = self.file("nats", "nats.conf").replace("/data", f"{folder}/data").replace("/run/nats/nats.pid", f"{folder}/nats.pid")
            for ours, port in ((4222, clients[number]), (8222, monitors[number]), (6222, clusters[number])):
                text = text.replace(f"port: {ours}", f"port: {port}")
            for other in range(3):
                text = text.replace(f"nats-{other}.nats-headless:6222", f"127.0.0.1:{clusters[other]}")
            put(folder / "auth/auth.conf", self.secrets["nats-auth"]["auth.conf"])
            text = text.replace("/etc/nats/tls/", f"{self.certificates('nats', folder)}/")
            conf = put(folder / "nats.conf", text)
            self.start(f"nats-{number}", [self.nats, "--config", str(conf)], {"POD_NAME": f"nats-{number}"})
        for port in monitors:
            wait(f"http://127.0.0.1:{port}/healthz?js-meta-only=true")
        self.wait_for_peers(monitors)
        self.nats_port = clients[0]
        return ",".join(f"tls://127.0.0.1:{port}" for port in clients), monitors

    def wait_for_peers(self, monitors: list[int]) -> None:
        """Until the leader has both others: before that there is no place for a stream with three replicas."""
        end, seen = time.monotonic() + PATIENCE, []
        while time.monotonic() < end:
            seen = [json.loads(wait(f"http://127.0.0.1:{port}/jsz")).get("meta_cluster", {}) for port in monitors]
            # The leader alone knows both; a follower is sure of the leader only.
            lists = [[peer["current"] and not peer.get("offline") for peer in meta.get("replicas") or []] for meta in seen]
            if all(meta.get("cluster_size") == 3 for meta in seen) and [True, True] in lists:
                return
            time.sleep(0.1)
        ended = [child.args[0] for child in self.children if child.poll() is not None]
        raise SystemExit(f"rehearse.py: the servers of NATS are no cluster of three after {PATIENCE} s (ended: {ended}): {seen}")

    def start_redis(self) -> str:
        [port] = free_ports(1)
        self.redis_port, folder = port, self.work / "redis"
        (folder / "data").mkdir(parents=True)
        auth = put(folder / "auth.conf", self.secrets["redis-auth"]["auth.conf"])
        text = self.file("redis", "redis.conf").replace("/etc/redis/auth/auth.conf", str(auth)).replace("dir /data", f"dir {folder}/data")
        text = text.replace("/etc/redis/tls/", f"{self.certificates('redis', folder)}/").replace("tls-port 6379", f"tls-port {port}")
        self.start("redis", [self.redis, str(put(folder / "redis.conf", text)), "--bind", "127.0.0.1"], {})
        return f"127.0.0.1:{port}"

    def environment(self, name: str, nats: str, redis: str) -> tuple[dict[str, str], int]:
        """What the pod would have, with other addresses."""
        container, root, files = self.pod["containers"][0], self.work / name, {}
        volumes = {volume["name"]: volume for volume in self.pod["volumes"]}
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            content = self.maps[volume["configMap"]["name"]] if "configMap" in volume else self.secrets[volume["secret"]["secretName"]]
            for key, text in content.items():
                path = f"{mount['mountPath']}/{key}"
                files[path] = str(put(root / path.lstrip("/"), text))
        values = {item["name"]: files.get(item.get("value"), item.get("value", "")) for item in container["env"]}
        http, grpc, probe = free_ports(3)
        values |= {
            "DAISI_WS_SERVER_POD_ID": name,
            "DAISI_WS_SERVER_BIND_ADDRESS": "127.0.0.1",
            "DAISI_WS_SERVER_HTTP_PORT": str(http),
            "DAISI_WS_SERVER_GRPC_PORT": str(grpc),
            "DAISI_WS_SERVER_PROBE_PORT": str(probe),
            "DAISI_WS_SERVER_GRPC_ADVERTISE_ADDRESS": f"127.0.0.1:{grpc}",
            "DAISI_WS_NATS_URL": nats,
            "DAISI_WS_REDIS_ADDRESS": redis,
        }
        return values, http

    def run(self) -> None:
        (nats, monitors), redis = self.start_nats(), self.start_redis()
        pods = [self.environment(name, nats, redis) for name in ("gateway-a", "gateway-b")]
        for values, _ in pods:
            self.start(values["DAISI_WS_SERVER_POD_ID"], [self.gateway, *self.pod["containers"][0]["args"]], values)
        for _, port in pods:
            wait(f"http://127.0.0.1:{port}/ready")
        stand_in = put(self.work / "bin/kubectl", STAND_IN)
        stand_in.chmod(0o755)
        key = base64.b64encode(self.secrets["daisi-ws-service-auth"]["secret_token"].encode()).decode()
        values, port = pods[0]
        publisher = put(self.work / "publisher", self.secrets["nats-auth"]["publisher_password"])
        asked = {"REHEARSAL_PORT": str(port), "REHEARSAL_KEY": key, "REHEARSAL_GATEWAY": self.gateway, "REHEARSAL_PUBLISHER": str(publisher)}
        path = {"PATH": f"{stand_in.parent}:{os.environ['PATH']}"}
        subprocess.run([K8S / "overlays/dev/try.sh"], env=values | asked | path, check=True, timeout=120)
        self.forbidden_in_nats()
        self.forbidden_in_redis()
        for log in self.work.glob("gateway-*.log"):
            if "lacks a permission" in log.read_text():
                raise SystemExit(f"rehearse.py: the gateway's users may do too little: {log.read_text()[-2000:]}")
        stream = json.loads(wait(f"http://127.0.0.1:{monitors[0]}/jsz?streams=true&config=true"))["account_details"][0]["stream_detail"][0]
        if stream["config"]["num_replicas"] != 3:
            raise SystemExit(f"rehearse.py: the stream has {stream['config']['num_replicas']} replicas, not 3")
        if not stream["config"].get("allow_direct"):
            raise SystemExit("rehearse.py: only the stream's leader answers who reads it again")


    def forbidden_in_nats(self) -> None:
        passwords, ca = self.secrets["nats-auth"], self.work / "nats-0/tls/ca.crt"
        expect("a stranger", Nats(self.nats_port, ca, "gateway", "guess").said, "Authorization Violation")
        expect("nobody", Nats(self.nats_port, ca, "", "").said, "Authorization Violation")
        with socket.create_connection(("127.0.0.1", self.nats_port), timeout=10) as plain:
            plain.recv(65536)
            plain.sendall(b'CONNECT {"verbose":false}\r\nPING\r\n')
            said = b""
            try:
                while more := plain.recv(65536):
                    said += more
            except ConnectionError:
                pass
            if b"PONG" in said:
                raise SystemExit(f"rehearse.py: NATS answers without TLS: {said!r}")
        users = {name: Nats(self.nats_port, ca, name, passwords[f"{name}_password"]) for name in ("gateway", "publisher")}
        publications = ["$JS.API.STREAM.DELETE.wa_stream", "$JS.API.STREAM.PURGE.wa_stream", "$JS.API.STREAM.UPDATE.wa_stream"]
        publications += ["$JS.API.CONSUMER.DELETE.wa_stream.ws_fanout", "$JS.API.STREAM.CREATE.other", "$SYS.REQ.SERVER.PING", "other"]
        more = {"gateway": ["wa.acme.a1.chats"], "publisher": ["wa.acme.a1.other", "wa.acme.chats", "$JS.API.CONSUMER.MSG.NEXT.wa_stream.ws_fanout", "$JS.ACK.wa_stream.ws_fanout.1.1.1.1.1"]}
        listening = {"gateway": ["wa.>", ">", "_INBOX.>"], "publisher": ["wa.>", ">", "_INBOX_gateway.>", "$JS.EVENT.>"]}
        for name, client in users.items():
            for subject in publications + more[name]:
                expect(f"{name} publishes to {subject}", client.ask(f"PUB {subject} 2", "{}"), f'Permissions Violation for Publish to "{subject}"')
            for number, subject in enumerate(listening[name]):
                expect(f"{name} listens to {subject}", client.ask(f"SUB {subject} {number}"), f'Permissions Violation for Subscription to "{subject}"')

    def forbidden_in_redis(self) -> None:
        secrets, ca = self.secrets["redis-auth"], self.work / "redis/tls/ca.crt"
        expect("nobody in Redis", ask_redis(self.redis_port, ca, ["PING"])[0], "NOAUTH")
        probe = ask_redis(self.redis_port, ca, ["AUTH", "probe", secrets["probe_password"]], ["PING"], ["GET", "pods"], ["KEYS", "*"])
        expect("the probe", " ".join(probe), "+OK +PONG -NOPERM", "-NOPERM")
        words = [["FLUSHALL"], ["KEYS", "*"], ["CONFIG", "GET", "*"], ["ACL", "LIST"], ["GET", "other"], ["PUBLISH", "other", "x"], ["SHUTDOWN"], ["EVAL", "return 1", "0"]]
        answers = ask_redis(self.redis_port, ca, ["AUTH", "daisi-ws", secrets["password"]], *words)
        expect("the gateway in Redis", answers[0], "+OK")
        for word, answer in zip(words, answers[1:]):
            expect(f"the gateway in Redis: {word}", answer, "-NOPERM")
        with socket.create_connection(("127.0.0.1", self.redis_port), timeout=10) as plain:
            plain.sendall(b"*1\r\n$4\r\nPING\r\n")
            try:
                said = plain.recv(4096)
            except ConnectionError:
                said = b""
            if b"PONG" in said or b"NOAUTH" in said:
                raise SystemExit(f"rehearse.py: Redis answers without TLS: {said!r}")


def main() -> None:
    rehearsal = Rehearsal(*sys.argv[1:])
    try:
        rehearsal.run()
    except BaseException:
        for log in sorted(rehearsal.work.glob("*.log")):
            print(f"---- {log.name}\n{log.read_text()[-3000:]}", file=sys.stderr)
        raise
    finally:
        rehearsal.stop()
    print("rehearse.py: an event went through the production configuration, over TLS, by users who may do no more; the stream has 3 replicas")


if __name__ == "__main__":
    main()
