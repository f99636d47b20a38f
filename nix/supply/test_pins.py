"""Which names of actions and images pins.py lets pass."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import pins

COMMIT = "0123456789abcdef" * 2 + "01234567"


class AnAction(unittest.TestCase):
    """What may follow `uses:`."""

    def test_is_named_by_a_whole_commit_and_its_tag(self):
        for name in (f"actions/checkout@{COMMIT} # v7.0.1", f"a/b/c@{COMMIT} # v22", "./.github/workflows/ci.yml"):
            self.assertIsNone(pins.action_problem(name), name)

    def test_that_can_be_moved_or_read_by_nobody_is_refused(self):
        for name in (
            "actions/checkout@v7",
            "actions/checkout@main",
            f"actions/checkout@{COMMIT[:12]} # v7",
            f"actions/checkout@{COMMIT}",
            f"actions/checkout@{COMMIT} # newest",
            "docker://alpine:3.20",
            "./../elsewhere",
        ):
            self.assertIsNotNone(pins.action_problem(name), name)


class AnImage(unittest.TestCase):
    """What may follow `image:`."""

    def test_has_a_version_or_a_digest(self):
        for name in ("nats:2.10-alpine", "prom/prometheus:v2.53.3", f"r.example.com:5000/a/b@sha256:{'0' * 64}", "${X:-redis:7-alpine}"):
            self.assertIsNone(pins.image_problem(name), name)

    def test_of_this_repository_has_none_yet(self):
        for name in ("daisi-ws-service", "${DAISI_WS_IMAGE:-daisi-ws-service:local}"):
            self.assertIsNone(pins.image_problem(name), name)

    def test_that_is_another_one_tomorrow_is_refused(self):
        for name in ("nats", "nats:latest", "nats:alpine", "registry.example.com:5000/nats", "${ANY_IMAGE}", "nats@sha256:0123"):
            self.assertIsNotNone(pins.image_problem(name), name)


class AFile(unittest.TestCase):
    """Where names are looked for."""

    def test_is_read_line_by_line_and_told_by_its_number(self):
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "compose.yaml"
            file.write_text("services:\n  a:\n    image: nats:2.10\n  b:\n    - image: 'nats:latest'\n    other: image: x\n")
            found, seen = pins.problems([file], "image", pins.image_problem)
        self.assertEqual((seen, [(number, value) for _, number, value, _ in found]), (2, [(5, "'nats:latest'")]))


if __name__ == "__main__":
    unittest.main()
