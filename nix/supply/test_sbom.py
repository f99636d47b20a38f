"""What sbom.py lists, leaves out and refuses: on a small workspace that cargo itself resolves, and on the gateway's."""

import contextlib
import io
import json
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import sbom

TARGET = "x86_64-unknown-linux-gnu"
LINKED = "registry+https://github.com/rust-lang/crates.io-index"


def workspace(folder, crates):
    """Packages of one workspace; each is (name, what follows `[package]`, what follows that section)."""
    members = ", ".join(f'"{name}"' for name, _, _ in crates)
    (folder / "Cargo.toml").write_text(f'[workspace]\nresolver = "3"\nmembers = [{members}]\n')
    for name, package, rest in crates:
        (folder / name / "src").mkdir(parents=True)
        (folder / name / "src/lib.rs").write_text("")
        head = f'[package]\nname = "{name}"\nversion = "1.0.0"\nedition = "2024"\n'
        (folder / name / "Cargo.toml").write_text(f"{head}{package}\n{rest}\n")
    subprocess.run(["cargo", "generate-lockfile", "--offline", "--quiet"], cwd=folder, check=True)
    return folder / "Cargo.toml"


def crate(name="a-crate", version="1.2.3", **changes):
    """Metadata of a crate as cargo gives it."""
    known = {"name": name, "version": version, "source": LINKED, "license": "MIT", "license_file": None, "description": None, "repository": None}
    return known | changes


class TheGraph(unittest.TestCase):
    """Which packages are in a bill."""

    def setUp(self):
        held = tempfile.TemporaryDirectory()
        self.addCleanup(held.cleanup)
        mit = 'license = "MIT"'
        self.manifest = workspace(
            Path(held.name),
            [
                (
                    "root",
                    mit,
                    '[dependencies]\nlinked = { path = "../linked" }\nmacros = { path = "../macros" }\nunasked = { path = "../unasked", optional = true }\n'
                    '[target."cfg(windows)".dependencies]\nelsewhere = { path = "../elsewhere" }\n'
                    '[dev-dependencies]\ntested = { path = "../tested" }\n[build-dependencies]\nbuilding = { path = "../building" }',
                ),
                ("linked", mit, '[dependencies]\ndeeper = { path = "../deeper" }\nextra = { path = "../extra", optional = true }'),
                ("macros", mit, '[lib]\nproc-macro = true\n[dependencies]\nof-macros = { path = "../of-macros" }'),
                # Asks for a feature of `linked` that the root does not ask for.
                ("sibling", mit, '[dependencies]\nlinked = { path = "../linked", features = ["extra"] }'),
                *((name, mit, "") for name in ("deeper", "extra", "unasked", "elsewhere", "tested", "building", "of-macros")),
            ],
        )
        (self.manifest.parent / "root/build.rs").write_text("fn main() {}")

    def test_is_what_is_linked_for_the_target_and_nothing_else(self):
        document = json.loads(sbom.make(self.manifest, "root", TARGET))
        self.assertEqual([entry["name"] for entry in document["components"]], ["rust-std", "deeper", "linked"])
        edges = {entry["ref"]: entry["dependsOn"] for entry in document["dependencies"]}
        std = next(entry["bom-ref"] for entry in document["components"] if entry["name"] == "rust-std")
        self.assertEqual(edges["workspace:root@1.0.0"], [std, "workspace:linked@1.0.0"])
        self.assertEqual(edges["workspace:linked@1.0.0"], ["workspace:deeper@1.0.0"])

    def test_follows_the_target(self):
        document = json.loads(sbom.make(self.manifest, "root", "x86_64-pc-windows-msvc"))
        self.assertIn("elsewhere", [entry["name"] for entry in document["components"]])

    def test_gives_a_member_no_name_in_a_registry(self):
        document = json.loads(sbom.make(self.manifest, "root", TARGET))
        self.assertEqual([entry["name"] for entry in document["components"] if "purl" in entry], ["rust-std"])

    def test_a_lock_out_of_step_is_refused(self):
        with (self.manifest.parent / "deeper/Cargo.toml").open("a") as manifest:
            manifest.write('[dependencies]\ntested = { path = "../tested" }\n')
        with self.assertRaisesRegex(sbom.Broken, "lock"):
            sbom.make(self.manifest, "root", TARGET)


class TheTree(unittest.TestCase):
    """How cargo's tree is read."""

    def test_has_an_edge_for_each_step_down(self):
        text = "0|root v1.0.0 (/a folder/root)\n1|a v1.0.0\n2|b v2.0.0+x\n1|b v2.0.0+x\n1|a v1.0.0 (*)\n"
        a, b = ("a", "1.0.0"), ("b", "2.0.0+x")
        self.assertEqual(sbom.parse_tree(text), {("root", "1.0.0"): [a, b], a: [b], b: []})

    def test_is_refused_when_it_is_not_understood(self):
        for text in ("", "0|root\n", "warning: something\n"):
            with self.assertRaises(sbom.Broken):
                sbom.parse_tree(text)


class AComponent(unittest.TestCase):
    """What is said of one crate."""

    def test_says_what_a_scanner_asks_for(self):
        entry = sbom.component(crate(version="1.2.3+b", license="MIT/Apache-2.0", repository="https://example.com/r"), "ab")
        self.assertEqual(entry["purl"], "pkg:cargo/a-crate@1.2.3%2Bb")
        self.assertEqual(entry["hashes"], [{"alg": "SHA-256", "content": "ab"}])
        self.assertEqual(entry["licenses"], [{"expression": "MIT OR Apache-2.0"}])
        self.assertEqual(entry["externalReferences"], [{"type": "vcs", "url": "https://example.com/r"}])

    def test_is_refused_without_licence_or_checksum(self):
        for broken, checksum in ((crate(license=None), "ab"), (crate(), None), (crate(source="git+https://example.com/r#1"), "ab")):
            with self.assertRaises(sbom.Broken):
                sbom.component(broken, checksum)

    def test_a_c_library_has_a_known_licence_and_a_version(self):
        self.assertEqual(sbom.toolchain("1.0.0", "c", "glibc@2.36")[1]["licenses"], [{"expression": "LGPL-2.1-or-later"}])
        for libc in ("glibc", "glibc@", "unheard-of@1"):
            with self.assertRaises(sbom.Broken):
                sbom.toolchain("1.0.0", "c", libc)


class ABinary(unittest.TestCase):
    """A bill against a binary."""

    names = [f"crate-{number}" for number in range(sbom.FEWEST_NAMED)]

    def held(self, text, names):
        document = {"components": [{"name": name, "version": "1.0.0"} for name in names]}
        with tempfile.TemporaryDirectory() as folder:
            binary, bill = Path(folder) / "binary", Path(folder) / "bill"
            binary.write_bytes(text)
            bill.write_text(json.dumps(document))
            with contextlib.redirect_stdout(io.StringIO()):
                sbom.main(["check", "--binary", str(binary), "--sbom", str(bill)])

    def paths(self, names):
        return b"\0".join(f"/home/u/.cargo/registry/src/index.crates.io-0123/{name}-1.0.0/src/lib.rs".encode() for name in names)

    def test_that_has_what_is_listed_passes(self):
        self.held(self.paths(self.names), [*self.names, "inlined"])

    def test_that_has_more_is_refused_wherever_its_sources_were(self):
        vendored = f"\0/nix/store/eeee-vendor-cargo-deps/{'0' * 64}/stray-1.0.0/src/lib.rs".encode()
        for text in (self.paths([*self.names, "stray"]), self.paths(self.names) + vendored):
            with self.assertRaisesRegex(SystemExit, "stray-1.0.0"):
                self.held(text, self.names)

    def test_that_tells_nothing_is_refused(self):
        with self.assertRaisesRegex(SystemExit, "can't be compared"):
            self.held(b"", self.names)


class TheGateway(unittest.TestCase):
    """The bill that is shipped."""

    manifest = sbom.ROOT / "Cargo.toml"

    @classmethod
    def setUpClass(cls):
        cls.text = sbom.make(cls.manifest, sbom.PACKAGE, TARGET)
        cls.listed = {(entry["name"], entry["version"]) for entry in json.loads(cls.text)["components"] if entry["name"] != "rust-std"}

    def test_is_the_same_each_time(self):
        self.assertEqual(sbom.make(self.manifest, sbom.PACKAGE, TARGET), self.text)

    def test_agrees_with_the_graph_of_cargo_metadata(self):
        metadata = json.loads(sbom.answer(self.manifest, "cargo", "metadata", "--locked", "--format-version", "1", "--filter-platform", TARGET))
        packages = {package["id"]: package for package in metadata["packages"]}
        nodes = {node["id"]: node["deps"] for node in metadata["resolve"]["nodes"]}
        todo, seen = [next(id for id, package in packages.items() if package["name"] == sbom.PACKAGE)], set()
        while todo:
            if (package := todo.pop()) in seen:
                continue
            seen.add(package)
            for edge in nodes[package]:
                macros = any("proc-macro" in kind["kind"] for kind in packages[edge["pkg"]]["targets"])
                if not macros and any(kind["kind"] is None for kind in edge["dep_kinds"]):
                    todo.append(edge["pkg"])
        walked = {(packages[id]["name"], packages[id]["version"]) for id in seen if packages[id]["name"] != sbom.PACKAGE}
        self.assertEqual(self.listed - walked, set())
        # Features that only other members ask for are in cargo's graph, and may bring a few crates.
        self.assertLessEqual(len(walked - self.listed), 5, walked - self.listed)

    def test_names_what_the_gateway_stands_on_and_nothing_of_its_tests(self):
        names = {name for name, _ in self.listed}
        self.assertLessEqual({"tokio", "rustls", "ring", "async-nats", "redis", "tonic", "libmimalloc-sys", "daisi-ws-proto"}, names)
        self.assertEqual(names & {"criterion", "proptest", "testcontainers", "tempfile", "syn", "prost-build", "serde_derive"}, set())

    def test_another_revision_is_another_bill(self):
        edges, known, checksums = {("root", "1.0.0"): []}, {("root", "1.0.0"): crate("root", "1.0.0", source=None)}, {}
        numbers = {sbom.bill(edges, known, checksums, TARGET, ("1.0.0", "c", TARGET), None, revision)["serialNumber"] for revision in ("a", "b", "b")}
        self.assertEqual(len(numbers), 2)


if __name__ == "__main__":
    unittest.main()
