"""The man pages say what there is: every page builds, every verb, option, exit code, key and bus member is in its page."""

import glob
import os
import re
import shutil
import subprocess
import unittest

from harness import DROVERCTL, SOURCE, Test, main


def page(name):
    with open(f"{SOURCE}/docs/{name}.scd", encoding="utf-8") as f:
        return f.read()


def plain(text):
    """scdoc's marks for bold and underlined taken away."""
    return re.sub(r"(?<![\w$])[*_]+|[*_]+(?!\w)", "", text.replace("\\", ""))


def help_text():
    return subprocess.run([DROVERCTL, "--help"], capture_output=True, text=True, check=True).stdout


def help_verbs():
    """{verb: its operands} of --help."""
    rows = re.findall(r"^  ([a-z][a-z-]*) ?(.*?)  +\S", help_text().partition("\nOptions")[0], re.MULTILINE)
    return {verb: operands.strip() for verb, operands in rows}


def help_options():
    return set(re.findall(r"^  (?:-\w, |    )--([a-z-]+)", help_text(), re.MULTILINE))


class Build(Test):
    @unittest.skipUnless(shutil.which("scdoc"), "scdoc is not installed")
    def test_every_page_builds_and_is_installed(self):
        with open(f"{SOURCE}/docs/meson.build", encoding="utf-8") as f:
            installed = set(re.findall(r"^  '([\w.-]+\.\d)',", f.read(), re.MULTILINE))
        pages = {os.path.basename(path)[:-4] for path in glob.glob(f"{SOURCE}/docs/*.scd")}
        self.assertEqual(pages, installed)
        for name in pages:
            with open(f"{SOURCE}/docs/{name}.scd", encoding="utf-8") as f:
                r = subprocess.run(["scdoc"], stdin=f, capture_output=True, text=True, check=False)
            self.assertEqual((r.returncode, r.stderr), (0, ""), name)
            self.assertIn(f'.TH "{name[:-2]}" "{name[-1]}"', r.stdout)
            for heading in ("NAME", "DESCRIPTION", "SEE ALSO"):
                self.assertIn(f".SH {heading}", r.stdout, name)


class Droverctl(Test):
    def rows(self):
        """[(verb, its operands, what stands below)]"""
        text = page("droverctl.1")
        part = text[text.index("# VERBS: WHAT"):text.index("# OPTIONS")]
        rows = re.findall(r"^\*([a-z][a-z-]*)\*(.*)\n((?:\t.*\n|\n)+)", part, re.MULTILINE)
        return [(verb, plain(operands).strip(), body) for verb, operands, body in rows]

    def test_every_verb_with_its_operands(self):
        wanted = help_verbs()
        self.assertGreater(len(wanted), 20)
        self.assertEqual([row[0] for row in self.rows()], list(wanted), "the same verbs in the same order")
        for verb, operands, _ in self.rows():
            if verb not in ("show", "run"):  # these have several forms
                self.assertEqual(operands, wanted[verb], verb)

    def test_every_verb_that_talks_to_the_daemon_shows_the_busctl_form(self):
        for verb, _, body in self.rows():
            if verb not in ("run", "verify", "complete", "help"):
                self.assertRegex(body, r"\tbusctl --user .*org\.", verb)

    def test_every_busctl_form_names_a_member_that_exists(self):
        members = set()
        for xml in glob.glob(f"{SOURCE}/units/org.drover1.*.xml"):
            with open(xml, encoding="utf-8") as f:
                members |= {(os.path.basename(xml)[:-4], name) for name in re.findall(r'<method name="(\w+)">', f.read())}
        found = re.findall(r"busctl --user .*call \S+(?: /\S+)? (org\.drover1\.\w+) (\w+)", page("droverctl.1"))
        self.assertGreater(len(found), 15)
        self.assertEqual(set(found) - members, set())

    def test_every_option(self):
        text = page("droverctl.1")
        part = text[text.index("# OPTIONS"):text.index("# JSON")]
        self.assertEqual(set(re.findall(r"\*--([a-z-]+)\*", part)), help_options())

    def test_every_exit_code(self):
        text = page("droverctl.1")
        part = text[text.index("# EXIT STATUS"):text.index("# ENVIRONMENT")]
        codes = re.findall(r"^  (\d+)  ", help_text().partition("\nExit codes:")[2], re.MULTILINE)
        self.assertEqual(re.findall(r"^(\d+)$", part, re.MULTILINE), codes)
        self.assertGreater(len(codes), 5)

    def test_every_verb_has_its_json(self):
        text = page("droverctl.1")
        part = text[text.index("# JSON"):text.index("# TERMINALS")]
        listed = {verb for row in re.findall(r"^\|  (.*)$", part, re.MULTILINE) for verb in row.split(", ")}
        self.assertEqual(set(help_verbs()) - listed, {"run", "complete", "help"})


if __name__ == "__main__":
    main()
