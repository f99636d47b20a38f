"""What has to hold between the manifests of one build, and between them and the gateway."""

import json
import pathlib
import re
import subprocess

import yaml

# Seconds that have to be left of the grace period after preStop and drain: closing the servers takes up to 6, flushing telemetry a few more.
MARGIN = 10
# Every path of the gateway that must not be reachable from outside.
INSIDE = ["/", "/health", "/ready", "/metrics", "/generate-token", "/admin/generate-token", "/wsx/a/b"]
OUTSIDE = ["/ws/admin", "/ws/acme/agent-7"]
GATEWAY = "daisi-ws-service"


def routes_to(path: str, rule: dict) -> bool:
    """Does an Ingress path take this request? As the specification has it, element by element."""
    if rule["pathType"] == "Exact":
        return path == rule["path"]
    wanted = [part for part in rule["path"].split("/") if part]
    parts = path.split("/")[1:]
    # A trailing slash is ignored by the specification, so a prefix /ws/ takes /ws as well; the gateway has nothing there.
    return parts[: len(wanted)] == wanted


def pods(document: dict) -> dict | None:
    return document.get("spec", {}).get("template", {}).get("spec") if document["kind"] in ("Deployment", "StatefulSet") else None


def restricted(name: str, pod: dict) -> list[str]:
    """The pod security standard `restricted`, and what this repository asks beyond it."""
    context, problems = pod.get("securityContext", {}), []

    def require(holds: bool, what: str) -> None:
        if not holds:
            problems.append(f"{name}: {what}")

    require(context.get("runAsNonRoot") is True and context.get("runAsUser", 0) > 0, "has to run as a user that is not root")
    require(context.get("seccompProfile") == {"type": "RuntimeDefault"}, "needs the runtime's seccomp profile")
    require(pod.get("automountServiceAccountToken") is False, "must not have a service account's token")
    require(pod.get("enableServiceLinks") is False, "must not have the variables of Services")
    require(not any(pod.get(key) for key in ("hostNetwork", "hostPID", "hostIPC")), "must not share the host's namespaces")
    kinds = {"name", "configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim"}
    require(all(set(volume) <= kinds for volume in pod.get("volumes", [])), "has a volume of a kind that is not allowed")
    for container in pod["containers"]:
        own = container.get("securityContext", {})
        require(own.get("allowPrivilegeEscalation") is False, "must not gain privileges")
        require(own.get("readOnlyRootFilesystem") is True, "needs a read-only root")
        require(own.get("capabilities") == {"drop": ["ALL"]}, "must have no capabilities")
        resources = container.get("resources", {})
        require({"cpu", "memory"} <= set(resources.get("requests", {})), "needs requests")
        require("memory" in resources.get("limits", {}), "needs a limit of memory")
        require("readinessProbe" in container, "needs a readiness probe")
    return problems


class Checker:
    """Checks builds; asks the gateway once for each configuration."""

    def __init__(self, binary: str, secrets_script: pathlib.Path, work: pathlib.Path) -> None:
        self.binary, self.work = binary, work
        made = subprocess.run([secrets_script, "daisi-ws"], capture_output=True, text=True, check=True).stdout
        self.secrets = {secret["metadata"]["name"]: secret["stringData"] for secret in yaml.safe_load_all(made)}
        self.answers: dict[str, dict | str] = {}

    @property
    def configurations(self) -> int:
        return len(self.answers)

    def problems(self, documents: list[dict]) -> list[str]:
        by_kind: dict[str, list[dict]] = {}
        for document in documents:
            by_kind.setdefault(document["kind"], []).append(document)
        found = self.references(documents)
        for document in documents:
            pod = pods(document)
            if pod:
                found += restricted(document["metadata"]["name"], pod)
        found += self.edges(by_kind)
        found += self.network(by_kind)
        deployment = next(item for item in by_kind["Deployment"] if item["metadata"]["name"] == GATEWAY)
        scalers = by_kind.get("HorizontalPodAutoscaler", []) + by_kind.get("ScaledObject", [])
        if len(scalers) > 1 or bool(scalers) == ("replicas" in deployment["spec"]):
            found.append("either an autoscaler or a number of replicas, and no more than one")
        return found + self.gateway(deployment, by_kind)

    def references(self, documents: list[dict]) -> list[str]:
        """Every ConfigMap that is named is there, and every Secret and key is one that secrets.sh makes."""
        maps = {item["metadata"]["name"] for item in documents if item["kind"] == "ConfigMap"}
        found = [f"no Secret may be in a build: {item['metadata']['name']}" for item in documents if item["kind"] == "Secret"]
        for pod in filter(None, map(pods, documents)):
            for volume in pod.get("volumes", []):
                if "configMap" in volume and volume["configMap"]["name"] not in maps:
                    found.append(f"no ConfigMap {volume['configMap']['name']}")
                if "secret" in volume:
                    keys = {item["key"] for item in volume["secret"].get("items", [])}
                    if not keys <= set(self.secrets.get(volume["secret"]["secretName"], ())):
                        found.append(f"secrets.sh makes no such key of {volume['secret']['secretName']}: {keys}")
                    if volume["secret"]["secretName"] not in self.secrets:
                        found.append(f"secrets.sh makes no Secret {volume['secret']['secretName']}")
        return found

    def edges(self, by_kind: dict[str, list[dict]]) -> list[str]:
        """From outside there is a way to the sockets, and to nothing else."""
        found = [f"{item['metadata']['name']}: not a cluster-internal Service" for item in by_kind.get("Service", []) if item["spec"].get("type", "ClusterIP") != "ClusterIP"]
        for ingress in by_kind.get("Ingress", []):
            if "defaultBackend" in ingress["spec"]:
                found.append("the Ingress must not have a default backend")
            paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
            for path in INSIDE:
                if any(routes_to(path, rule) for rule in paths):
                    found.append(f"the Ingress lets {path} in")
            for path in OUTSIDE:
                if not any(routes_to(path, rule) for rule in paths):
                    found.append(f"the Ingress does not let {path} in")
            for name in ("read", "send"):
                if int(ingress["metadata"]["annotations"][f"nginx.ingress.kubernetes.io/proxy-{name}-timeout"]) < 120:
                    found.append("the edge's time-outs are not above those of pings by far")
        return found

    def network(self, by_kind: dict[str, list[dict]]) -> list[str]:
        """All is closed, gRPC is open to the gateway's own pods only, and the port for probes to nobody who comes from outside."""
        policies = {item["metadata"]["name"]: item["spec"] for item in by_kind["NetworkPolicy"]}
        found = []
        if policies.get("default-deny") != {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}:
            found.append("nothing denies by default")
        for name, policy in policies.items():
            for rule in policy.get("ingress", []):
                of_peers = rule.get("from") == [{"podSelector": {"matchLabels": {"app": GATEWAY}}}]
                if not rule.get("from") or not rule.get("ports"):
                    found.append(f"{name} opens to everybody, or everything")
                if policy["podSelector"].get("matchLabels") == {"app": GATEWAY} and not of_peers:
                    outside = "daisi-ws-service-from-prometheus" != name and any(port["port"] == "probe" for port in rule["ports"])
                    if outside:
                        found.append(f"{name} opens the port for probes to others than Prometheus")
                    if any(port["port"] not in ("http", "probe") for port in rule["ports"]):
                        found.append(f"{name} opens more than http and probe to others than peers")
        return found

    def gateway(self, deployment: dict, by_kind: dict[str, list[dict]]) -> list[str]:
        """The pod and the Services against what the gateway itself says it goes by."""
        spec = deployment["spec"]["template"]["spec"]
        container = spec["containers"][0]
        answer = self.ask(spec, by_kind)
        if isinstance(answer, str):
            return [f"the gateway refuses its configuration: {answer}"]
        found = []

        def same(what: str, ours: object, theirs: object) -> None:
            if ours != theirs:
                found.append(f"{what}: {ours} in the manifests, {theirs} in the gateway")

        ports = {port["name"]: port["containerPort"] for port in container["ports"]}
        same("ports", ports, {name: answer["server"][f"{name}_port"] for name in ("http", "grpc", "probe")})
        services = {item["metadata"]["name"]: item["spec"] for item in by_kind["Service"]}
        numbers = {port["name"]: (port["port"], port["targetPort"]) for port in services[GATEWAY]["ports"]}
        same("ports of the Service", numbers, {name: (port, port) for name, port in ports.items()})
        same("selector of the Service", services[GATEWAY]["selector"], {"app": GATEWAY})
        peers = services[f"{GATEWAY}-peers"]
        same("headless Service", (peers["clusterIP"], peers["publishNotReadyAddresses"]), ("None", True))
        same("pod id", "a-pod", answer["server"]["pod_id"])
        same("bind address", "::", answer["server"]["bind_address"])
        # The bare address: the gateway adds the port that it listens on, and brackets where there must be some.
        same("advertised address", "10.9.8.7", answer["server"]["grpc_advertise_address"])
        paths = {name: container[f"{name}Probe"]["httpGet"] for name in ("liveness", "startup", "readiness")}
        same("probes", paths, {name: {"path": path, "port": "probe"} for name, path in (("liveness", "/health"), ("startup", "/health"), ("readiness", "/ready"))})
        needed = container["lifecycle"]["preStop"]["sleep"]["seconds"] + answer["app"]["shutdown_timeout_seconds"] + MARGIN
        # The overlay for trying things out spares nobody's sockets, and says so with a 0.
        spared, sent_off = deployment["spec"]["minReadySeconds"], needed - MARGIN - answer["app"]["shutdown_timeout_seconds"] // 2
        if 0 < spared < sent_off:
            found.append(f"the next pod goes {spared} s after its successor is ready: before the one before has asked all its clients to move ({sent_off} s)")
        if spec["terminationGracePeriodSeconds"] < needed:
            found.append(f"the grace period of {spec['terminationGracePeriodSeconds']} s is shorter than preStop, drain and margin: {needed} s")
        return found

    def ask(self, spec: dict, by_kind: dict[str, list[dict]]) -> dict | str:
        """What `check-config` says with the environment and the files that the pod would have; or what it complains of."""
        files: dict[str, str] = {}
        maps = {item["metadata"]["name"]: item["data"] for item in by_kind.get("ConfigMap", [])}
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        container = spec["containers"][0]
        for mount in container["volumeMounts"]:
            volume = volumes[mount["name"]]
            content = maps[volume["configMap"]["name"]] if "configMap" in volume else self.secrets[volume["secret"]["secretName"]]
            files |= {f"{mount['mountPath']}/{name}": text for name, text in content.items()}
        environment = {}
        for variable in container["env"]:
            by_field = {"metadata.name": "a-pod", "status.podIP": "10.9.8.7"}
            value = variable.get("value") or by_field[variable["valueFrom"]["fieldRef"]["fieldPath"]]
            # As Kubernetes does: only variables that came before are filled in.
            value = re.sub(r"\$\((\w+)\)", lambda match: environment.get(match[1], match[0]), value)
            environment[variable["name"]] = value
        asked = json.dumps([files, environment], sort_keys=True)
        if asked not in self.answers:
            self.answers[asked] = self.run(files, environment)
        return self.answers[asked]

    def run(self, files: dict[str, str], environment: dict[str, str]) -> dict | str:
        root = self.work / f"pod-{len(self.answers)}"
        for path, text in files.items():
            (root / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (root / path.lstrip("/")).write_text(text)
        there = {name: f"{root}{value}" if value in files else value for name, value in environment.items()}
        done = subprocess.run([self.binary, "check-config"], env=there, capture_output=True, text=True)
        return yaml.safe_load(done.stdout) if done.returncode == 0 else done.stderr
