# SPDX-License-Identifier: Apache-2.0
"""writer/CONVERTING.md: its commands, run in their order, print what it says.

    FKDB_BIN=build/release/bin python tests/cli/test_converting_guide.py      writes what they print into it
"""

import os
import pathlib
import re
import subprocess
import sys
import tempfile

import guide_data

GUIDE = pathlib.Path(__file__).resolve().parents[2] / "writer/CONVERTING.md"
BLOCK = re.compile(r"```(console|python)\n(.*?)```", re.DOTALL)


def run(text, folder):
    """The guide with what its commands print in `folder`."""
    environment = {**os.environ, "PATH": f"{pathlib.Path(os.environ['FKDB_BIN']).resolve()}:{os.environ['PATH']}"}

    def block(match):
        kind, body = match.groups()
        if kind == "python":
            subprocess.run([sys.executable, "-c", body], cwd=folder, check=True)
            return match[0]
        out = ""
        for command in re.findall(r"^\$ (.*)$", body, re.MULTILINE):
            done = subprocess.run(command, shell=True, cwd=folder, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120)
            out += f"$ {command}\n{done.stdout}"
        return f"```console\n{out}```"
    return BLOCK.sub(block, text)


def masked(text):
    """Without what differs from run to run, or from JPEG encoder to JPEG encoder."""
    text = re.sub(r"\d+s at \d+ (crops|images)/s", r"in no time", text)
    text = re.sub(r"(\.parquet: .* crops), .* KiB \(.*\)", r"\1", text)  # by Arrow's version
    return re.sub(r"sha256:[0-9a-f]{64}", "sha256:..", text)


def test_the_guides_commands_print_what_it_says(tmp_path):
    guide_data.make(tmp_path)
    text = GUIDE.read_text()
    assert masked(run(text, tmp_path)) == masked(text)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        guide_data.make(pathlib.Path(name))
        GUIDE.write_text(run(GUIDE.read_text(), name))
