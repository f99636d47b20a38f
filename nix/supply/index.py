#!/usr/bin/env python3
"""Holds justfile, documents and files to each other. Reads `just --dump --dump-format json` from standard input.

- Each recipe says what it does, and names only scripts that are there.
- Each script of `.ci/` is named by a recipe, or by a script that one names.
- Each command that a document shows (a script of ours, `nix …`, `cargo …`) is in a recipe; each `just NAME` in a document is a recipe.
- CHANGELOG.md is as keepachangelog.com has it, and links between documents lead to a file and a heading.
- Text files end with a newline and have no trailing blanks.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = re.compile(r"(?<![\w./-])((?:\.ci|compose|dashboards|e2e|k8s|nix|service)/(?:[\w-]+/)*[\w.-]+)")
KINDS = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}
# What a reader types once, or where no recipe would be shorter: `cargo --version`, `cargo binstall`, `cargo fuzz`.
ELSEWHERE = {"binstall", "install", "tree", "update", "fetch", "fuzz", "run"}


def recipes(dump):
    """Public recipes by name: documentation and text, with {{…}} where a variable stands."""
    found = {}
    for name, recipe in dump["recipes"].items():
        if not recipe["private"]:
            lines = ("".join(part if isinstance(part, str) else "{{…}}" for part in line) for line in recipe["body"])
            found[name] = (recipe["doc"], "\n".join(lines))
    return found


def scripts(text, files):
    """The executable files that a text names."""
    return {name for name in SCRIPT.findall(text) if name in files and (ROOT / name).stat().st_mode & 0o100}


def reached(text, files):
    """These, and what they name in turn."""
    seen, open_ = set(), scripts(text, files)
    while open_:
        seen |= open_
        open_ = set().union(*(scripts((ROOT / name).read_text(), files) for name in open_)) - seen
    return seen


def commands(text):
    """What a document shows as commands: lines of fenced blocks, and spans of code."""
    fenced = re.findall(r"^```[a-z]*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    spans = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL))
    shown = [line for block in fenced for line in block.splitlines()] + spans
    return [part.strip() for line in shown for part in re.split(r"&&|\||;|\$\(", line.replace("\\|", "|"))]


def kind_of(command):
    """What a recipe must contain for this command: the start that says what it does. None for what is not ours to index."""
    words = command.split()
    while words and re.fullmatch(r"[A-Z_]+=\S*", words[0]):
        words.pop(0)
    if not words:
        return None
    if words[0] == "nix" and len(words) > 1 and words[1] in ("run", "build", "develop", "flake"):
        app = next((word for word in words[2:] if word.startswith(".#")), "") if words[1] == "run" else ""
        return f"nix {words[1]} {app}".strip()
    if words[0] == "cargo" and len(words) > 1 and words[1].isalpha() and words[1] not in ELSEWHERE:
        return f"cargo {words[1]}"
    return None


def slug(heading):
    """A heading's anchor, as GitHub makes it."""
    return re.sub(r"[^\w\- ]", "", re.sub(r"[`*]|\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()).replace(" ", "-")


def links(document, files):
    """Links of a document that lead nowhere in this repository."""
    text = re.sub(r"^```.*?^```", "", document.read_text(), flags=re.MULTILINE | re.DOTALL)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"[a-z]+:", target):
            continue
        name, _, anchor = target.partition("#")
        path = (document.parent / name).resolve() if name else document
        if not path.exists() or not path.is_relative_to(ROOT):
            yield f"{target} leads nowhere"
        elif anchor and path.suffix == ".md" and anchor not in map(slug, re.findall(r"^#+ (.*)$", path.read_text(), re.MULTILINE)):
            yield f"{target}: there is no such heading"


def changelog(text):
    """What is wrong with the form of the change log."""
    versions = re.findall(r"^## (.*)$", text, re.MULTILINE)
    if versions[:1] != ["[Unreleased]"]:
        yield "the first version is not [Unreleased]"
    for version in versions[1:]:
        if not re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d( \[YANKED\])?", version):
            yield f"{version!r} is no version with its date"
    for version in versions:
        if not re.search(rf"^{re.escape(version.split(' - ')[0])}: https://", text, re.MULTILINE):
            yield f"{version!r} has no link at the end"
    for kind in set(re.findall(r"^### (.*)$", text, re.MULTILINE)) - KINDS:
        yield f"{kind!r} is none of {', '.join(sorted(KINDS))}"


def untidy(files):
    """Text files that are not as .editorconfig says."""
    for name in files:
        path = ROOT / name
        if name.startswith("service/fuzz/corpus/") or name.endswith(".patch"):
            continue
        content = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        if content and b"\0" not in content[:8000]:
            if not content.endswith(b"\n"):
                yield f"{name} ends without a newline"
            if b"\r" in content or any(line != line.rstrip() for line in content.split(b"\n")):
                yield f"{name} has trailing blanks"


def problems(dump, files):
    """All that is wrong, as lines."""
    known = recipes(dump)
    index = "\n".join(text for _, text in known.values())
    for name, (doc, text) in known.items():
        if not doc:
            yield f"justfile: {name} does not say what it does"
        for script in SCRIPT.findall(text):
            if script not in files and not (ROOT / script).exists():
                yield f"justfile: {name} names {script}, which is not there"
    there = reached(index, files)
    for script in sorted(name for name in files if name.startswith(".ci/") and name not in there):
        yield f"justfile: no way from it leads to {script}"
    for document in sorted(name for name in files if name.endswith(".md")):
        text = (ROOT / document).read_text()
        for command in commands(text):
            for script in sorted(scripts(command, files) - there):
                yield f"{document}: {script} is in no recipe of justfile"
            kind = kind_of(command)
            if kind and kind not in index:
                yield f"{document}: `{kind}` is in no recipe of justfile"
            named = re.match(r"just ([a-z][\w-]*)", command)
            if named and named[1] not in known:
                yield f"{document}: there is no recipe {named[1]}"
        for problem in links(ROOT / document, files):
            yield f"{document}: {problem}"
    for problem in changelog((ROOT / "CHANGELOG.md").read_text()):
        yield f"CHANGELOG.md: {problem}"
    yield from untidy(files)


def main():
    """Says each that is wrong."""
    listed = subprocess.run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, check=True, capture_output=True, text=True)
    files = {name for name in listed.stdout.split("\0") if name and (ROOT / name).exists()}
    found = list(problems(json.load(sys.stdin), files))
    for problem in found:
        print(problem, file=sys.stderr)
    sys.exit(1 if found else 0)


if __name__ == "__main__":
    main()
