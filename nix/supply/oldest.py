#!/usr/bin/env python3
"""Fails if a package of the lock asks for a newer compiler than `rust-version` promises. Reads `cargo metadata` from standard input.

Cargo compares with the compiler that is there, so a newer one hides it. That our own code keeps to the promise is clippy's `incompatible_msrv`, and the
job `oldest` of .github/workflows/ci.yml, which compiles with it.
"""

import json
import sys


def number(version):
    """A version that can be compared: 1.91 is 1.91.0."""
    return tuple(int(part) for part in (version.split("-")[0] + ".0.0").split(".")[:3])


def main():
    """Says each that is too new."""
    metadata = json.load(sys.stdin)
    ours = {package["rust_version"] for package in metadata["packages"] if package["id"] in metadata["workspace_members"]}
    if len(ours) != 1 or None in ours:
        sys.exit(f"oldest.py: packages of this workspace promise {ours}, and not one version")
    promised = ours.pop()
    wrong = [p for p in metadata["packages"] if p["rust_version"] and number(p["rust_version"]) > number(promised)]
    for package in wrong:
        print(f"{package['name']} {package['version']} asks for Rust {package['rust_version']}, and Cargo.toml promises {promised}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
