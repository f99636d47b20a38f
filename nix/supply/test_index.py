"""What index.py, oldest.py and binstall.py find, and what they let pass."""

import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent))
import binstall
import index
import oldest

LOG = "# Changelog\n\n## [Unreleased]\n\n## [1.0.0] - 2026-11-30\n\n### Added\n\n[Unreleased]: https://example.com\n[1.0.0]: https://example.com\n"


class ARepository(unittest.TestCase):
    """A folder in place of this repository, with one of everything."""

    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.root = Path(folder.name).resolve()
        self.files = set()
        self.write(".ci/check", "#!/bin/sh\n.ci/helper\n", 0o755)
        self.write(".ci/helper", "#!/bin/sh\n", 0o755)
        self.write("CHANGELOG.md", LOG)
        self.write("README.md", "# One\n\n`just check`, or:\n\n```\n.ci/check --all && nix run .#load -- x\n```\n\n[below](#one) and [there](CHANGELOG.md#changelog)\n")
        self.recipes = {"check": ("Checks.", [[".ci/check"], ["nix run .#load -- ", [["variable", "ARGS"]]]])}
        patched = mock.patch.object(index, "ROOT", self.root)
        patched.start()
        self.addCleanup(patched.stop)

    def write(self, name, text, mode=0o644):
        path = self.root / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        path.chmod(mode)
        self.files.add(name)

    def found(self):
        dump = {"recipes": {name: {"private": False, "doc": doc, "body": body} for name, (doc, body) in self.recipes.items()}}
        return list(index.problems(dump, self.files))

    def refused(self, part):
        found = self.found()
        self.assertEqual(len(found), 1, found)
        self.assertIn(part, found[0])

    def test_in_order_passes(self):
        self.assertEqual(self.found(), [])

    def test_has_no_script_that_no_recipe_leads_to(self):
        self.write(".ci/forgotten", "#!/bin/sh\n", 0o755)
        self.refused("leads to .ci/forgotten")

    def test_has_no_recipe_without_a_word_of_what_it_does(self):
        self.recipes["quiet"] = (None, [["true"]])
        self.refused("quiet does not say")

    def test_has_no_recipe_of_a_script_that_is_gone(self):
        self.recipes["gone"] = ("Goes.", [["compose/gone.sh"]])
        self.refused("compose/gone.sh, which is not there")

    def test_documents_no_script_that_is_in_no_recipe(self):
        self.write("k8s/try.sh", "#!/bin/sh\n", 0o755)
        self.write("k8s/README.md", "Then `k8s/try.sh now`.\n")
        self.refused("k8s/try.sh is in no recipe")

    def test_documents_no_output_that_is_in_no_recipe(self):
        self.write("nix.md", "`nix run .#other -- all`\n")
        self.refused("`nix run .#other` is in no recipe")

    def test_documents_no_recipe_that_is_not_there(self):
        self.write("how.md", "`just chekc`\n")
        self.refused("no recipe chekc")

    def test_has_no_link_that_leads_nowhere(self):
        self.write("links.md", "[a](gone.md)\n")
        self.refused("gone.md leads nowhere")

    def test_has_no_link_to_a_heading_that_is_not_there(self):
        self.write("links.md", "[a](README.md#two)\n")
        self.refused("no such heading")

    def test_has_no_trailing_blanks(self):
        self.write("a.txt", "a \n")
        self.refused("trailing blanks")

    def test_has_no_file_that_ends_in_the_middle_of_a_line(self):
        self.write("a.txt", "a")
        self.refused("without a newline")


class AChangeLog(unittest.TestCase):
    """The form of CHANGELOG.md."""

    def test_in_form_passes(self):
        self.assertEqual(list(index.changelog(LOG)), [])

    def test_out_of_form_is_refused(self):
        for old, new in (("[Unreleased]\n", "Next\n"), (" - 2026-11-30", ""), ("[1.0.0]: https", "1.0.0: https"), ("Added", "New")):
            self.assertNotEqual(list(index.changelog(LOG.replace(old, new))), [], new)


class AVersion(unittest.TestCase):
    """Versions of compilers."""

    def test_is_compared_by_its_numbers(self):
        self.assertLess(oldest.number("1.9"), oldest.number("1.88.0"))
        self.assertEqual(oldest.number("1.91"), oldest.number("1.91.0"))


class ATemplate(unittest.TestCase):
    """What cargo-binstall makes of a template."""

    def test_has_its_variables_replaced(self):
        self.assertEqual(binstall.render("{ repo }/{name}-v{ version }", {"repo": "r", "name": "n", "version": "1"}), "r/n-v1")

    def test_with_an_unknown_one_is_refused(self):
        with self.assertRaises(SystemExit):
            binstall.render("{ nmae }", {"name": "n"})


if __name__ == "__main__":
    unittest.main()
