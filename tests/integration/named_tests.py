"""Whether a test that a document names exists and runs."""

import os
import re

from harness import SOURCE


def missing_test(path, name):
    """What is wrong with a test that a document names by its file (from the root) and its function; None: it exists and
    runs."""
    if not os.path.exists(f"{SOURCE}/{path}"):
        return f"there is no {path}"
    with open(f"{SOURCE}/{path}", encoding="utf-8") as f:
        text = f.read()
    with open(f"{SOURCE}/{os.path.dirname(path)}/meson.build", encoding="utf-8") as f:
        suite = f.read()
    module = re.fullmatch(r"(?:test[_-])?(.*)\.\w+", os.path.basename(path)).group(1)
    if not re.search(rf"'(?:{re.escape(module)}'|{re.escape(os.path.basename(path))})", suite):
        return f"{path} is in no suite"
    if path.endswith(".py"):
        return None if f"    def {name}(" in text else f"{path} has no {name}"
    if not re.search(rf"^(?:static )?void {name}\(void", text, re.MULTILINE):
        return f"{path} has no {name}"
    listed = text
    suite_main = f"{SOURCE}/{os.path.dirname(path)}/main.c"
    if os.path.exists(suite_main):  # its list is there
        with open(suite_main, encoding="utf-8") as f:
            listed = f.read()
    is_run = re.search(rf"(?:cmocka_unit_test\w*|(?:[A-Z]+_)?TEST)\({name}\b|, {name}\}}", listed)
    return None if is_run else f"{path} does not run {name}"
