#!/usr/bin/env python3
"""The gateway's bill of materials, as CycloneDX 1.6.

    sbom.py make [--manifest-path Cargo.toml] [--target TRIPLE] [--libc NAME@VERSION] [--output FILE]
    sbom.py check --sbom FILE --binary FILE

`make` lists what is linked into the binary for the target: the graph of normal dependencies as cargo resolves it for this package and its
features alone, without procedural macros, build scripts and what only tests use. Checksums are those of Cargo.lock, by which cargo verified
what it compiled. The same lock, target and compiler give the same bytes; no network is asked (set CARGO_NET_OFFLINE=true where there is none).

`check` holds a bill against a binary: the paths in its panic messages name crates, and each of those must be listed with its version.

Python 3.11 or later, and cargo; nothing else.
"""

import argparse
import hashlib
import json
import os
import re
import subprocess
import sys
import tomllib
import uuid
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = "daisi-ws-service"
# Fewer crates than this in a binary's panic paths: it was stripped of them, and a comparison would prove nothing.
FEWEST_NAMED = 20
LIBC_LICENCES = {"glibc": "LGPL-2.1-or-later", "musl": "MIT"}


class Broken(Exception):
    """What keeps a bill from being made, or from being true."""


# ---- cargo's answers ---------------------------------------------------------------------------------------------------------------


def answer(manifest, *command):
    """What a command prints, run where the manifest is."""
    done = subprocess.run(command, cwd=manifest.parent, capture_output=True, text=True)
    if done.returncode != 0:
        raise Broken(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout


def parse_tree(text):
    """The edges of `cargo tree --prefix depth`: {(name, version): [(name, version), ...]}, and the root first."""
    edges, above = {}, []
    for line in text.splitlines():
        found = re.fullmatch(r"(\d+)\|(\S+) v(\S+)(?: \(.*\))?", line.removesuffix(" (*)"))
        if not found:
            raise Broken(f"cargo tree said {line!r}")
        depth, crate = int(found[1]), (found[2], found[3])
        del above[depth:]
        if above:
            edges[above[-1]].add(crate)
        edges.setdefault(crate, set())
        above.append(crate)
    if not edges:
        raise Broken("cargo tree named no package")
    return {crate: sorted(below) for crate, below in edges.items()}


def gather(manifest, package, target):
    """The linked graph, each crate's metadata by (name, version), and the checksums of the lock."""
    tree = answer(
        manifest, "cargo", "tree", "--locked", "--package", package, "--target", target,
        "--edges", "normal,no-proc-macro", "--prefix", "depth", "--charset", "ascii", "--format", "|{p}",
    )  # fmt: skip
    metadata = json.loads(answer(manifest, "cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", target))
    known = {}
    for crate in metadata["packages"]:
        if known.setdefault((crate["name"], crate["version"]), crate) is not crate:
            raise Broken(f"{crate['name']} {crate['version']} comes from two sources, which this bill can't tell apart")
    lock = tomllib.loads((Path(metadata["workspace_root"]) / "Cargo.lock").read_text())
    checksums = {(entry["name"], entry["version"]): entry.get("checksum") for entry in lock["package"]}
    return parse_tree(tree), known, checksums


def rustc(manifest):
    """The compiler's version, and the commit that its library is of."""
    said = dict(line.split(": ", 1) for line in answer(manifest, "rustc", "-vV").splitlines() if ": " in line)
    return said["release"], said.get("commit-hash", "unknown"), said["host"]


# ---- the bill ----------------------------------------------------------------------------------------------------------------------


def licence(crate):
    """A licence as CycloneDX has it; older crates write a slash for OR."""
    if crate["license"]:
        return [{"expression": re.sub(r"\s*/\s*", " OR ", crate["license"])}]
    if crate["license_file"]:
        return [{"license": {"name": f"as in {Path(crate['license_file']).name} of the crate"}}]
    raise Broken(f"{crate['name']} {crate['version']} names no licence")


def reference(crate):
    """What other parts of the bill name this crate by."""
    scheme = "pkg:cargo/" if crate["source"] else "workspace:"
    # The + of a version with build metadata would be a space in a URL.
    return f"{scheme}{crate['name']}@{crate['version'].replace('+', '%2B')}"


def component(crate, checksum, kind="library"):
    """One crate as a component. Without a source it is this repository's own, and no registry has it."""
    entry = {"type": kind, "bom-ref": reference(crate), "name": crate["name"], "version": crate["version"]}
    if crate["description"]:
        entry["description"] = " ".join(crate["description"].split())
    if crate["source"]:
        if not crate["source"].startswith("registry+") or not checksum:
            raise Broken(f"{crate['name']} {crate['version']} comes from {crate['source']}, which no checksum of the lock covers")
        entry["hashes"] = [{"alg": "SHA-256", "content": checksum}]
        entry["purl"] = reference(crate)
    entry["licenses"] = licence(crate)
    if crate["repository"]:
        entry["externalReferences"] = [{"type": "vcs", "url": crate["repository"]}]
    return entry


def toolchain(release, commit, libc):
    """What the compiler adds: its library, and the C library where that is linked in."""
    made = [
        {
            "type": "library",
            "bom-ref": f"pkg:generic/rust-std@{release}",
            "name": "rust-std",
            "version": release,
            "description": "The Rust standard library and what it is built from",
            "purl": f"pkg:generic/rust-std@{release}",
            "licenses": [{"expression": "MIT OR Apache-2.0"}],
            "properties": [{"name": "rustc:commit", "value": commit}],
        }
    ]
    if libc:
        name, _, version = libc.partition("@")
        if name not in LIBC_LICENCES or not version:
            raise Broken(f"--libc is {libc!r}, and not one of {', '.join(LIBC_LICENCES)} with @ and a version")
        made.append(
            {
                "type": "library",
                "bom-ref": f"pkg:generic/{name}@{version}",
                "name": name,
                "version": version,
                "description": "The C library, linked in",
                "purl": f"pkg:generic/{name}@{version}",
                "licenses": [{"expression": LIBC_LICENCES[name]}],
            }
        )
    return made


def bill(edges, known, checksums, target, compiler, libc=None, revision=None):
    """The whole document; its serial number is a digest of the rest, so that equal bills are the same bill."""
    root, *others = edges
    release, commit, _ = compiler
    ref = {crate: reference(known[crate]) for crate in edges}
    main = component(known[root], None, "application")
    main["properties"] = [{"name": "cargo:target", "value": target}]
    if revision:
        main["properties"].append({"name": "vcs:revision", "value": revision})
    beside = toolchain(release, commit, libc)
    components = sorted([component(known[crate], checksums[crate]) for crate in others] + beside, key=lambda entry: entry["bom-ref"])
    dependencies = {ref[crate]: sorted(ref[below] for below in edges[crate]) for crate in edges}
    dependencies[ref[root]] = sorted(dependencies[ref[root]] + [entry["bom-ref"] for entry in beside])
    dependencies |= {entry["bom-ref"]: [] for entry in beside}
    document = {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "metadata": {"lifecycles": [{"phase": "build"}], "component": main},
        "components": components,
        "dependencies": [{"ref": name, "dependsOn": below} for name, below in sorted(dependencies.items())],
        "compositions": [{"aggregate": "complete", "dependencies": sorted(dependencies)}],
    }
    digest = hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, f"sha256:{digest}").urn
    return document


def make(manifest, package, target=None, libc=None, revision=None):
    """The bill of a package, as text."""
    compiler = rustc(manifest)
    target = target or compiler[2]
    edges, known, checksums = gather(manifest, package, target)
    return json.dumps(bill(edges, known, checksums, target, compiler, libc, revision), indent=1, sort_keys=True, ensure_ascii=False) + "\n"


# ---- the bill against a binary -----------------------------------------------------------------------------------------------------


def named(binary):
    """The crates that the panic messages of a binary name, as name-version: cargo keeps sources in registry/src, crane in a vendor folder."""
    folder = rb"/(?:registry/src/[^/\0]+|[^/\0]*vendor[^/\0]*(?:/[0-9a-f]{64})?)/"
    return {crate.decode() for crate in re.findall(folder + rb"([A-Za-z0-9_-]+-\d+\.\d+\.\d+[A-Za-z0-9.+-]*)/", binary)}


def unlisted(binary, document):
    """Crates in a binary that a bill does not list, after it was seen that the binary tells."""
    found = named(binary)
    if len(found) < FEWEST_NAMED:
        raise Broken(f"the binary names only {len(found)} crates: it can't be compared")
    listed = {f"{entry['name']}-{entry['version']}" for entry in document["components"]}
    return sorted(found - listed), len(found)


def main(arguments=None):
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    making = commands.add_parser("make", help="write the bill")
    making.add_argument("--manifest-path", type=Path, default=ROOT / "Cargo.toml", help="the workspace's; by default that of this repository")
    making.add_argument("--target", help="the target's triple; by default this machine's")
    making.add_argument("--libc", help="the C library that is linked in, as glibc@2.36")
    making.add_argument("--output", type=Path, help="where to; by default standard output")
    checking = commands.add_parser("check", help="hold a bill against a binary")
    checking.add_argument("--sbom", type=Path, required=True)
    checking.add_argument("--binary", type=Path, required=True)
    chosen = parser.parse_args(arguments)
    try:
        if chosen.command == "make":
            text = make(chosen.manifest_path.resolve(), PACKAGE, chosen.target, chosen.libc, os.environ.get("DAISI_WS_REVISION"))
            if chosen.output:
                chosen.output.write_text(text)
            else:
                sys.stdout.write(text)
        else:
            missing, found = unlisted(chosen.binary.read_bytes(), json.loads(chosen.sbom.read_text()))
            if missing:
                raise Broken(f"{chosen.binary} has what {chosen.sbom} does not list: {', '.join(missing)}")
            print(f"{chosen.sbom}: lists all {found} crates that {chosen.binary} names")
    except Broken as reason:
        sys.exit(f"sbom.py: {reason}")


if __name__ == "__main__":
    main()
