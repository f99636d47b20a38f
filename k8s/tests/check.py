#!/usr/bin/env python3
"""check.py KUBECTL BINARY WORKDIR: builds every overlay and every combination of components, and checks what comes out.

- strictly against the schemas of several Kubernetes versions (custom resources have none, and are only counted);
- the invariants of invariants.py, some of them with the gateway's own `check-config` on the configuration that its pod would read;
- the PrometheusRules against the rule files that they are made from.

WORKDIR has to be within the repository.

Needs kubernetes-validate (which brings PyYAML).
"""

import concurrent.futures
import itertools
import json
import pathlib
import subprocess
import sys

import kubernetes_validate
import yaml

import invariants

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
K8S = ROOT / "k8s"
# From the first with a native preStop sleep that is on by default to the newest with a schema.
VERSIONS = ["1.30", "1.32", "1.34", "1.37"]
COMPONENTS = ["nats-cluster", "redis-persistent", "monitoring", "ingress", "tracing", "pod-tls"]
AUTOSCALERS = [None, "autoscale-hpa", "autoscale-keda"]
# Kinds that come with their operators: no version of Kubernetes has a schema for them.
CUSTOM = {"ServiceMonitor", "PrometheusRule", "ScaledObject", "Certificate", "Issuer"}


def combinations(kubectl_work: pathlib.Path) -> dict[str, pathlib.Path]:
    """Kustomizations of the base with every subset of the components and each autoscaler, and of the dev overlay with those that it may have."""
    made = {}
    subsets = [some for size in range(len(COMPONENTS) + 1) for some in itertools.combinations(COMPONENTS, size)]
    for autoscaler, subset in itertools.product(AUTOSCALERS, subsets):
        chosen = [*subset, *([autoscaler] if autoscaler else [])]
        made["base+" + "+".join(chosen)] = ("base", chosen)
        # The dev overlay has a NATS and a Redis of its own.
        if not {"nats-cluster", "redis-persistent"} & set(subset):
            made["dev+" + "+".join(chosen)] = ("overlays/dev", chosen)
    paths = {}
    for number, (name, (below, chosen)) in enumerate(made.items()):
        folder = kubectl_work / f"combination-{number}"
        folder.mkdir(parents=True, exist_ok=True)
        up = "/".join([".."] * len(folder.relative_to(ROOT).parts))
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [f"{up}/k8s/{below}"],
            "components": [f"{up}/k8s/components/{component}" for component in chosen],
        }
        (folder / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
        paths[name] = folder
    return paths


def build(kubectl: str, folder: pathlib.Path) -> list[dict]:
    done = subprocess.run([kubectl, "kustomize", str(folder)], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"check.py: {folder} does not build:\n{done.stderr}")
    # Kustomize says there, and only there, that something is on its way out.
    if done.stderr:
        raise SystemExit(f"check.py: {folder} builds with a warning:\n{done.stderr}")
    return list(yaml.load_all(done.stdout, Loader=yaml.CSafeLoader))


def validate(document: dict) -> list[str]:
    problems = []
    for version in VERSIONS:
        try:
            kubernetes_validate.validate(document, version, strict=True)
        except kubernetes_validate.ValidationError as error:
            problems.append(f"{document['kind']} {document['metadata']['name']} in {version}: {error.message} at {list(error.path)}")
    return problems


def rules_are_those_of(made: pathlib.Path, folder: pathlib.Path) -> list[str]:
    """One manifest for each rule file, with its groups, in the order of the names, whatever their indentation."""
    wanted = []
    for path in sorted(folder.glob("*.yaml")):
        content = yaml.safe_load(path.read_text())
        if isinstance(content, dict) and list(content) == ["groups"]:
            wanted.append(content)
    manifests = [manifest for manifest in yaml.safe_load_all(made.read_text()) if manifest]
    problems = [] if [manifest["spec"] for manifest in manifests] == wanted else [f"the rules of {made} are not those of {folder}"]
    for manifest in manifests:
        names = [group["name"] for group in manifest["spec"]["groups"]]
        if len(names) != len(set(names)):
            problems.append(f"two groups of {manifest['metadata']['name']} share a name: {names}")
    return problems


def check_rules(work: pathlib.Path) -> list[str]:
    """rules.py on the fixture, whose files are written in every style, and its result for the component."""
    script, made = K8S / "rules.py", work / "prometheusrule.yaml"
    fixture = K8S / "tests/rules"
    subprocess.run([sys.executable, script, "--from", fixture, "--to", made], check=True)
    problems = rules_are_those_of(made, fixture)
    if made.read_text().count("- name:") != 3:
        problems.append("rules.py lost a group of the fixture")
    made.write_text(made.read_text().replace("30s", "31s"))
    if not subprocess.run([sys.executable, script, "--check", "--from", fixture, "--to", made], capture_output=True).returncode:
        problems.append("rules.py --check passes a stale file")
    problems += rules_are_those_of(K8S / "components/monitoring/prometheusrule.yaml", ROOT / "dashboards/prometheus")
    if subprocess.run([sys.executable, script, "--check"]).returncode:
        problems.append("the monitoring component is stale")
    return problems


def main() -> int:
    kubectl, binary, work = sys.argv[1], sys.argv[2], pathlib.Path(sys.argv[3]).resolve()
    targets = {path.parent.relative_to(K8S).as_posix(): path.parent for path in K8S.glob("**/kustomization.yaml")}
    targets = {name: path for name, path in targets.items() if not name.startswith("components/")}
    targets |= combinations(work)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        built = dict(zip(targets, pool.map(lambda folder: build(kubectl, folder), targets.values())))

    problems = check_rules(work)
    seen, custom = {}, 0
    for documents in built.values():
        for document in documents:
            seen.setdefault(json.dumps(document, sort_keys=True), document)
    for document in seen.values():
        if document["kind"] in CUSTOM:
            custom += 1
        else:
            problems += validate(document)
    checker = invariants.Checker(binary, K8S / "secrets.sh", work)
    for name, documents in built.items():
        problems += [f"{name}: {problem}" for problem in checker.problems(documents)]

    for problem in problems:
        print(f"check.py: {problem}", file=sys.stderr)
    print(
        f"check.py: {len(built)} builds, {len(seen)} different manifests, {len(seen) - custom} of them valid in {', '.join(VERSIONS)},"
        f" {custom} custom; {checker.configurations} configurations asked of the gateway; {len(problems)} problems"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
