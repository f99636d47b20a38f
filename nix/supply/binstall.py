#!/usr/bin/env python3
"""Where cargo-binstall looks for a release, held against the archive that is there.

    binstall.py --target TRIPLE FOLDER VERSION

Renders the templates of [package.metadata.binstall] as cargo-binstall does, and fails unless FOLDER has a file of that name with the program where it is
looked for. A machine with glibc is asked for gnu first, which no release has, and then for musl.
"""

import argparse
import re
import sys
import tarfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def render(template, values):
    """A template with its variables: { name }, with any spaces. An unknown one is an error, there as here."""

    def value(found):
        if found[1] not in values:
            sys.exit(f"binstall.py: no variable {{ {found[1]} }} in {template!r}")
        return values[found[1]]

    return re.sub(r"\{\s*([\w-]+)\s*\}", value, template)


def main():
    """Reads the manifests, and looks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--target", required=True)
    parser.add_argument("folder", type=Path)
    parser.add_argument("version")
    chosen = parser.parse_args()
    workspace = tomllib.loads((ROOT / "Cargo.toml").read_text())["workspace"]["package"]
    package = tomllib.loads((ROOT / "service/Cargo.toml").read_text())["package"]
    asked = package["metadata"]["binstall"]
    if asked["pkg-fmt"] != "tgz":
        sys.exit(f"binstall.py: archives are tgz, and pkg-fmt is {asked['pkg-fmt']}")
    values = {
        "name": package["name"], "version": chosen.version, "target": chosen.target, "repo": workspace["repository"],
        "bin": package["name"], "binary-ext": "", "archive-suffix": ".tar.gz", "archive-format": "tgz",
    }  # fmt: skip
    url, inside = render(asked["pkg-url"], values), render(asked["bin-dir"], values)
    place, _, file = url.rpartition("/")
    if place != f"{workspace['repository']}/releases/download/v{chosen.version}":
        sys.exit(f"binstall.py: {url} is no asset of the release v{chosen.version}")
    archive = chosen.folder / file
    if not archive.is_file():
        sys.exit(f"binstall.py: cargo-binstall looks for {file}, and a release has {', '.join(sorted(p.name for p in chosen.folder.iterdir()))}")
    with tarfile.open(archive) as packed:
        if inside not in packed.getnames():
            sys.exit(f"binstall.py: {file} has no {inside}")


if __name__ == "__main__":
    main()
