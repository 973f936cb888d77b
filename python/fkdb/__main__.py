# SPDX-License-Identifier: Apache-2.0
"""The command line programs: `python -m fkdb dump ..` is `fkdb-dump ..`, exit codes and all."""

import os
import signal
import sys

from . import _core

PROGRAMS = ("audit", "convert", "dump", "merge", "share", "subset", "verify")


def run(name: str, arguments: "list[str]") -> int:
    # As in a program of its own: Python would swallow Ctrl-C until the end, and report a closed pipe.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    return _core.run_program(name, [os.fsencode(argument) for argument in arguments])


def main() -> int:
    name, *arguments = sys.argv[1:] or ["--help"]
    if name == "--version":
        print(f"fkdb {_core.version()}")
        return 0
    if name in ("-h", "--help"):
        print(f"usage: python -m fkdb {{{','.join(PROGRAMS)}}} ...     each has a --help of its own")
        return 0
    if name not in PROGRAMS:
        print(f"fkdb: no program '{name}': expected one of {', '.join(PROGRAMS)}", file=sys.stderr)
        return 2
    return run(name, arguments)


# Entry points of the installed package.
def audit() -> int:
    return run("audit", sys.argv[1:])


def convert() -> int:
    return run("convert", sys.argv[1:])


def dump() -> int:
    return run("dump", sys.argv[1:])


def merge() -> int:
    return run("merge", sys.argv[1:])


def share() -> int:
    return run("share", sys.argv[1:])


def subset() -> int:
    return run("subset", sys.argv[1:])


def verify() -> int:
    return run("verify", sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
