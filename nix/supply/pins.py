#!/usr/bin/env python3
"""Holds workflows and manifests to exact names.

An action is named by a commit's full digest, with the tag that it had as a comment: a tag can be moved, and the action runs with the job's permissions. An
image is named by a version or a digest: `latest` is another one tomorrow.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PINNED = re.compile(r"[\w.-]+/[\w./-]+@[0-9a-f]{40} # v\d+(\.\d+)*")
# A workflow of this repository, of the same commit.
OWN = re.compile(r"\./\.github/workflows/[\w.-]+")
# What is built here, and so has no version yet.
BUILT = ("daisi-ws-service",)
IMAGE = re.compile(r"(?:[\w.-]+(?::\d+)?/)*[\w.-]+(?::[\w][\w.-]*)?(?:@sha256:[0-9a-f]{64})?")


def action_problem(value):
    """What is wrong with the rest of a line after `uses:`, if anything."""
    if PINNED.fullmatch(value) or OWN.fullmatch(value):
        return None
    return "is not named by a commit's digest with its tag as a comment"


def image_problem(value):
    """What is wrong with the name of an image, if anything."""
    # Compose lets the environment choose; what counts is the default.
    value = re.sub(r"^\$\{\w+:-(.*)\}$", r"\1", value)
    if not IMAGE.fullmatch(value):
        return "is no image's name"
    if "@sha256:" in value or value.split("/")[-1].split(":")[0] in BUILT:
        return None
    _, _, tag = value.split("/")[-1].partition(":")
    if not re.search(r"\d", tag):
        return "has no version"
    return None


def problems(files, key, judge):
    """(file, line, value, problem) of every line `key: value` that is wrong; and how many there were."""
    found, seen = [], 0
    for file in files:
        for number, line in enumerate(file.read_text().splitlines(), 1):
            matched = re.fullmatch(rf"\s*(?:- )?{key}:\s*(\S.*?)\s*", line)
            if not matched:
                continue
            seen += 1
            if problem := judge(matched[1].strip("\"'") if key == "image" else matched[1]):
                found.append((file, number, matched[1], problem))
    return found, seen


def main():
    """Looks at all of them, and says each that is wrong."""
    workflows = sorted((ROOT / ".github/workflows").glob("*.y*ml"))
    manifests = sorted(path for folder in ("compose", "k8s") for path in (ROOT / folder).rglob("*.y*ml"))
    wrong = []
    for files, key, judge in ((workflows, "uses", action_problem), (manifests, "image", image_problem)):
        found, seen = problems(files, key, judge)
        if not seen:
            sys.exit(f"pins.py: no line with {key}: the search is broken")
        wrong += found
    for workflow in workflows:
        if not re.search(r"^permissions:", workflow.read_text(), re.MULTILINE):
            wrong.append((workflow, 1, "", "does not say what the token of its jobs may do (permissions)"))
    for file, number, value, problem in wrong:
        print(f"{file.relative_to(ROOT)}:{number}: {value} {problem}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
