#!/usr/bin/env python3
"""rules.py [--check] [--from FOLDER] [--to FILE]: makes the PrometheusRules of k8s/components/monitoring from dashboards/prometheus.

Every *.yaml there whose top level is `groups:` becomes one, in the order of the names, its text and comments as they are: one source for compose
and Kubernetes, since kustomize can't wrap a plain file. One a file, for two files may have groups of one name, but a PrometheusRule may not. --check writes nothing, and fails when the result is not what is there.
"""

import argparse
import pathlib
import re
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
NOTICE = "# Made by k8s/rules.py from dashboards/prometheus; edit the files there.\n"
HEADER = """\
apiVersion: monitoring.coreos.com/v1
kind: PrometheusRule
metadata:
  name: daisi-ws-service-{name}
  labels:
    app: daisi-ws-service
spec:
  groups:
"""


def groups(text: str) -> list[str] | None:
    """The lines below `groups:`, moved so that its items are indented by four; None for a file that is no rule file."""
    lines = [line.rstrip() for line in text.splitlines()]
    starts = [number for number, line in enumerate(lines) if re.fullmatch(r"groups:(\s*#.*)?", line)]
    if len(starts) != 1:
        return None
    body = lines[starts[0] + 1 :]
    items = [len(line) - len(line.lstrip()) for line in body if re.match(r"\s*- ", line)]
    if not items:
        return None
    # The first item is one of the list itself; everything moves by what it moves.
    shift = 4 - items[0]
    moved = []
    for line in body:
        indent = len(line) - len(line.lstrip())
        if line in ("---", "..."):
            raise SystemExit("rules.py: a rule file has to be one document")
        if line and indent < items[0] and not line.lstrip().startswith("#"):
            raise SystemExit(f"rules.py: a rule file has only groups, but there is: {line}")
        moved.append(" " * max(indent + shift, 4) + line.lstrip() if line else "")
    while moved and not moved[-1]:
        moved.pop()
    return moved


def render(folder: pathlib.Path) -> str:
    """The whole file: one manifest for each file of rules."""
    found = []
    for path in sorted(folder.glob("*.yaml")):
        lines = groups(path.read_text())
        if lines is not None:
            found.append(HEADER.format(name=path.name.split(".")[0]) + "\n".join(lines) + "\n")
    return NOTICE + "---\n".join(found)


def main() -> int:
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--check", action="store_true")
    arguments.add_argument("--from", dest="folder", type=pathlib.Path, default=ROOT / "dashboards/prometheus")
    arguments.add_argument("--to", type=pathlib.Path, default=ROOT / "k8s/components/monitoring/prometheusrule.yaml")
    chosen = arguments.parse_args()
    text = render(chosen.folder)
    if not chosen.check:
        chosen.to.write_text(text)
    elif not chosen.to.exists() or chosen.to.read_text() != text:
        print(f"rules.py: {chosen.to} is stale: run k8s/rules.py", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
