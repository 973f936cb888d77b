# SPDX-License-Identifier: Apache-2.0
"""Pages whose commands are run again by a test, and written anew with what they print."""

import os
import pathlib
import re
import subprocess
import sys

BLOCK = re.compile(r"```(console|python)\n(.*?)```", re.DOTALL)


def run(text, folder, names=()):
    """The page with what its commands print in `folder`. names: pairs (what the page calls it, what it is here)."""
    environment = {**os.environ, "PATH": f"{pathlib.Path(os.environ['FKDB_BIN']).resolve()}:{os.environ['PATH']}"}

    def block(match):
        kind, body = match.groups()
        if kind == "python":
            subprocess.run([sys.executable, "-c", body], cwd=folder, check=True)
            return match[0]
        out = ""
        for command in re.findall(r"^\$ (.*)$", body, re.MULTILINE):
            here = command
            for said, real in names:
                here = here.replace(said, real)
            printed = subprocess.run(here, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120).stdout
            for said, real in names:
                printed = printed.replace(real, said)
            out += f"$ {command}\n{printed}"
        return f"```console\n{out}```"
    return BLOCK.sub(block, text)
