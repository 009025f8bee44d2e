"""A 32-bit build ends with words that say why, whatever header comes first, also where no 32-bit C library is
installed.

Arguments: the source tree, then the compiler with its options."""

import subprocess
import sys

HEADERS = {
    "ipc/layout.h": [],
    "ipc/sync/layout.h": [],
    "drover/sync.h": ["ipc/sync/include"],
    "drover/drover.h": ["ipc/client/include", "ipc/sync/include"],
    "drover/plugin.h": ["plugins/include"],
}
WORDS = "Drover needs a 64-bit machine: words that processes share are 64 bits wide"
SKIPPED = 77


def compile_with(source, compiler, header, option):
    includes = [f"-I{source}/{folder}" for folder in ["", *HEADERS[header]]]
    return subprocess.run([*compiler, option, "-std=gnu11", "-fsyntax-only", *includes, "-x", "c", "-"],
                          input=f"#include <{header}>\n",
                          capture_output=True, text=True, check=False)


def main(source, *compiler):
    probe = subprocess.run([*compiler, "-m32", "-fsyntax-only", "-x", "c", "-"], input="int x;\n", capture_output=True,
                           text=True,
                           check=False)
    if probe.returncode != 0:
        print(f"skipped 'this compiler knows no -m32: {probe.stderr.strip()}'")
        return SKIPPED
    for header in HEADERS:
        good, bad = (compile_with(source, compiler, header, option) for option in ("-m64", "-m32"))
        if good.returncode != 0:
            print(f"{header} is no longer a header that stands by itself:\n{good.stderr}", file=sys.stderr)
            return 1
        if bad.returncode == 0 or WORDS not in bad.stderr:
            print(f"{header} with -m32: exit code {bad.returncode}, without the words '{WORDS}':\n{bad.stderr}",
                  file=sys.stderr)
            return 1
    return 0


sys.exit(main(*sys.argv[1:]))
