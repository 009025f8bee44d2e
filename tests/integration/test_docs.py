"""The man pages say what there is: every page builds, every verb, option, exit code, key and bus member is in its
page."""

import glob
import os
import re
import shutil
import subprocess
import tempfile
import unittest
from xml.etree import ElementTree

from harness import DROVERCTL, DROVERD, SOURCE, SPAWN, WORKER, Test, main
from named_tests import missing_test


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
    def test_every_call_of_sync_h_has_a_page_and_its_name_leads_there(self):
        with open(f"{SOURCE}/ipc/sync/include/drover/sync.h", encoding="utf-8") as f:
            header = re.sub(r"/\*.*?\*/|^#[^\n]*", "", f.read(), flags=re.S | re.M)
        calls = set(re.findall(r"\b(drover_\w+)\(", header))
        with open(f"{SOURCE}/docs/meson.build", encoding="utf-8") as f:
            links = set(re.findall(r"^    '(drover_\w+)',$", f.read(), re.M))
        self.assertGreater(len(calls), 90)
        self.assertEqual(calls, links)
        named = set()
        for path in glob.glob(f"{SOURCE}/docs/*.3.scd"):
            with open(path, encoding="utf-8") as f:
                named |= set(re.findall(r"drover_\w+", f.read().split("# SYNOPSIS")[0]))
        self.assertLessEqual(calls, named)

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
            for heading in ("NAME", "DESCRIPTION", "EXAMPLES", "SEE ALSO"):
                self.assertIn(f".SH {heading}", r.stdout, name)

    @unittest.skipUnless(shutil.which("scdoc") and shutil.which("mandoc"), "scdoc and mandoc are not both installed")
    def test_mandoc_finds_no_fault(self):
        """But for the empty paragraphs that scdoc itself writes."""
        for path in glob.glob(f"{SOURCE}/docs/*.scd"):
            with open(path, encoding="utf-8") as f:
                page = subprocess.run(["scdoc"], stdin=f, capture_output=True, check=True).stdout
            r = subprocess.run(["mandoc", "-Tlint", "-Wwarning"], input=page, capture_output=True, check=False)
            lines = [line for line in r.stdout.decode().splitlines() if "skipping paragraph macro: PP" not in line]
            self.assertEqual(lines, [], path)


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
                members |= {(os.path.basename(xml)[:-4], name)
                            for name in re.findall(r'<method name="(\w+)">', f.read())}
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


class Bus(Test):
    """org.drover1(5) against the installed interface description and the daemon's own table of who may call what."""

    WORDS = {"AUTHORIZE_PUBLIC": "everybody", "AUTHORIZE_OWNER": "the owner, root", "AUTHORIZE_ROOT": "root"}

    @staticmethod
    def interfaces():
        """{interface: {member: its line in the page}}"""
        found = {}
        for path in sorted(glob.glob(f"{SOURCE}/units/org.drover1.*.xml")):
            interface = ElementTree.parse(path).getroot().find("interface")
            lines = found.setdefault(interface.get("name"), {})
            for member in interface:
                name, args = member.get("name"), [(a.get("type"), a.get("name"), a.get("direction"))
                                                  for a in member.findall("arg")]
                if member.tag == "property":
                    lines[name] = f"*{name}* {member.get('type')}"
                    continue
                given = ", ".join(f"{kind} {arg}" for kind, arg, direction in args if direction != "out")
                returned = ", ".join(f"{kind} {arg}" for kind, arg, direction in args if direction == "out")
                lines[name] = f"*{name}*({given})" + (f" → {returned}" if returned
                                                      else "") + (", a signal" if member.tag == "signal" else "")
        return found

    @staticmethod
    def entries():
        """{interface: {member: (its line, what stands below)}}"""
        found = {}
        for part in re.split(r"^# ", page("org.drover1.5"), flags=re.MULTILINE)[1:]:
            interface = part.split("\n")[0]
            if interface.startswith("org.drover1."):
                rows = re.findall(r"^(\*(\w+)\*.*)\n((?:\t.*\n|\n)+)", part, re.MULTILINE)
                found[interface] = {name: (line.replace("\\_", "_"), body) for line, name, body in rows}
        return found

    def test_every_member_with_its_signature(self):
        wanted, entries = self.interfaces(), self.entries()
        self.assertEqual(set(entries), set(wanted))
        for interface, members in wanted.items():
            self.assertGreater(len(members), 8)
            self.assertEqual({name: line for name, (line, _) in entries[interface].items()}, members, interface)

    def test_every_member_has_a_busctl_line_that_names_it(self):
        for interface, members in self.entries().items():
            for name, (line, body) in members.items():
                call = re.search(r"^\tbusctl --user (.*)$", body, re.MULTILINE)
                self.assertTrue(call, f"{interface}.{name}")
                self.assertIn(interface, call.group(1))
                self.assertRegex(call.group(1), rf"\b{name}\b")
                is_method = line.startswith(f"*{name}*(")
                verb = "monitor " if line.endswith(", a signal") else "call " if is_method else "get-property "
                self.assertTrue(call.group(1).startswith(verb), call.group(1))

    def test_who_may_call_is_what_the_daemon_says(self):
        with open(f"{SOURCE}/daemon/bus/authorize.c", encoding="utf-8") as f:
            rows = re.findall(r'\{"(org\.drover1\.\w+)", "(\w+)", (AUTHORIZE_\w+)\}', f.read())
        self.assertGreater(len(rows), 25)
        entries = self.entries()
        for interface, name, access in rows:
            body = " ".join(entries[interface][name][1].split())
            self.assertIn(f" For: {self.WORDS[access]}. ", body, f"{interface}.{name}")

    def test_every_error_and_option(self):
        text = plain(page("org.drover1.5"))
        with open(f"{SOURCE}/daemon/bus/errors.c", encoding="utf-8") as f:
            errors = re.findall(r'ERROR\("(\w+)"\)', f.read())
        self.assertGreater(len(errors), 10)
        for name in errors:
            self.assertIn(name, text)
        with open(f"{SOURCE}/daemon/bus/objects/run.c", encoding="utf-8") as f:
            told = re.search(r"unknown option[^;]*; there are (.*?)\",",
                             f.read().replace('"\n                           "', "")).group(1)
        part = page("org.drover1.5").partition("# OPTIONS OF A JOB")[2].partition("\n# ")[0]
        self.assertEqual(set(re.findall(r"\*([a-z-]+)\* [a-z]", part)), set(told.split(", ")))


class Keys(Test):
    """drover.pool(5) and drover.conf(5) against the daemon's table of keys, asked through droverctl verify."""

    @staticmethod
    def table():
        """[(section, key)] of daemon/config/config-keys.c"""
        with open(f"{SOURCE}/daemon/config/config-keys.c", encoding="utf-8") as f:
            return re.findall(r'^        \{"(Pool|Job|Worker|Sandbox)", "(\w+)"', f.read(), re.MULTILINE)

    @staticmethod
    def described():
        """([(section, key)] that have an entry, [(section, key)] of what is not built yet)"""
        built, rest = [], []
        for part in re.split(r"^# ", page("drover.pool.5"), flags=re.MULTILINE)[1:]:
            heading = part.split("\n")[0]
            if heading == "KNOWN, NOT BUILT YET":
                for section, keys in re.findall(r"^\*\[(\w+)\]\*\n\t(.*)$", part, re.MULTILINE):
                    rest += [(section, key) for key in re.findall(r"(\w+)=", keys)]
            elif heading.startswith("["):
                lines = re.findall(r"^(\*\w+=\*.*)$", part, re.MULTILINE)
                built += [(heading.strip("[]").capitalize(), key) for line in lines
                          for key in re.findall(r"\*(\w+)=\*", line)]
        return built, rest

    def verify(self, text):
        with tempfile.TemporaryDirectory() as directory:
            path = os.path.join(directory, "x.pool")
            with open(path, "w", encoding="utf-8") as f:
                f.write(text)
            return subprocess.run([DROVERCTL, "verify", path], capture_output=True, text=True, check=False).stderr

    def test_every_key_is_described_once(self):
        built, rest = self.described()
        self.assertGreater(len(self.table()), 40)
        self.assertEqual(sorted(built + rest), sorted(self.table()))

    def test_what_is_said_not_to_be_built_is_refused_as_that_and_nothing_else_is(self):
        built, rest = self.described()
        for section, key in built + rest:
            said = self.verify(f"[Pool]\nPlugin=x\n[{section}]\n{key}=1\n")
            if (section, key) in rest:
                self.assertIn(f"{key}= is known, but not built yet", said)
            else:
                self.assertNotIn(f"{key}= is known, but not built yet", said)

    def test_the_examples_are_good_files(self):
        example = re.search(r"```\n(.*?)```", page("drover.pool.5"), re.DOTALL).group(1)
        self.assertEqual(self.verify(example), "")

    def test_settings_of_the_daemon(self):
        with open(f"{SOURCE}/daemon/config/config-load.c", encoding="utf-8") as f:
            known = re.search(r"in \[Daemon\], the known ones are (\w+)= and (\w+)=", f.read()).groups()
        part = page("drover.conf.5").partition("# [DAEMON]")[2].partition("\n# ")[0]
        self.assertEqual(re.findall(r"^\*(\w+)=\*", part, re.MULTILINE), list(known))


class Programs(Test):
    """droverd(8), drover-spawn(8) and drover-worker(1) have every option that --help has, and no other."""

    def test_options(self):
        for program, name, own in ((DROVERD, "droverd.8", set()), (SPAWN, "drover-spawn.8", set()),
                                   (WORKER, "drover-worker.1", {"role", "parent", "name"})):
            r = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
            wanted = set(re.findall(r"--([a-z-]+)", r.stdout)) - own  # what only a spawner uses is no user's business
            part = page(name).partition("# OPTIONS")[2].partition("\n# ")[0]
            described = set(re.findall(r"\*--([a-z-]+)\*", part))
            self.assertEqual(described - {"help"}, wanted - {"help"}, name)
            self.assertGreater(len(described), 3)

    def test_exit_codes(self):
        for program, name in ((DROVERD, "droverd.8"), (WORKER, "drover-worker.1")):
            r = subprocess.run([program, "--help"], capture_output=True, text=True, check=True)
            told = re.search(r"Exit (?:status|codes): (.*)", r.stdout).group(1)
            part = page(name).partition("# EXIT STATUS")[2].partition("\n# ")[0]
            self.assertEqual(re.findall(r"^(\d+)$", part, re.MULTILINE), re.findall(r"\b\d+\b", told), name)


class Guarantees(Test):
    """Each row of drover-guarantees(7) has a window and names a test that exists and is run."""

    def rows(self):
        found = re.findall(r"^\*([^*\n]+)\*\n((?:\t.*\n|\n)+)", page("drover-guarantees.7").replace("\\_", "_"),
                           re.MULTILINE)
        self.assertGreater(len(found), 15)
        return found

    def test_every_row_names_a_test_that_runs(self):
        for what, body in self.rows():
            named = re.search(r"^\tTest: (.*)$", body, re.MULTILINE)
            self.assertTrue(named, what)
            words = named.group(1).split()
            if words[0] == "none;":
                self.assertIn("not promised", named.group(1))
            elif words[0].startswith("tests/"):
                self.assertTrue(os.path.exists(f"{SOURCE}/{words[0]}"), words[0])
            else:
                self.assertIsNone(missing_test(f"tests/integration/{words[0]}", words[1]), what)

    def test_every_death_has_a_window(self):
        part = page("drover-guarantees.7").partition("# WHAT ENDS")[2].partition("\n# ")[0]
        for body in re.findall(r"^\*[^*\n]+\*\n((?:\t.*\n|\n)+)", part, re.MULTILINE):
            self.assertRegex(" ".join(body.split()),
                             r"Window: (none|as above|\d+ ms|one look .* ms|TimeoutStopSec=, \d+ ms|everything)")


if __name__ == "__main__":
    main()
