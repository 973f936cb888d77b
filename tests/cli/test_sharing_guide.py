# SPDX-License-Identifier: Apache-2.0
"""tools/SHARING.md: its commands, run in their order, print what it says.

    FKDB_BIN=build/release/bin python tests/cli/test_sharing_guide.py      writes what they print into it
"""

import pathlib
import re
import tempfile

from guide import run
from web_server import Server

ROOT = pathlib.Path(__file__).resolve().parents[2]
GUIDE = ROOT / "tools/SHARING.md"
DATA = pathlib.Path("/usr/share/datasets/fashion-mnist")


def printed(folder):
    """The page as its commands print it here."""
    work, web = folder / "work", folder / "web"
    work.mkdir()
    web.mkdir()
    for path in DATA.glob("train-*.gz"):
        (work / path.name).symlink_to(path)
    with Server(web) as server:
        return run(GUIDE.read_text(), work, [("https://labels.example", server.url), ("/srv/www", str(server.www))])


def masked(text):
    """Without what differs from run to run and from machine to machine: times, keys, what networks learn."""
    text = re.sub(r"sha256:[0-9a-f]{64}", "sha256:..", text)
    text = re.sub(r"\d+s at \d+ crops/s|\d[\d.]* s( an epoch| for)|in \d+s|[\d.]+ (KiB|MiB)|[\d.]+ bytes a crop|loss [\d.]+", "..", text)
    return re.sub(r"(KL|total variation|top-1|largest).*", r"\1 ..", text)


def test_the_pages_commands_print_what_it_says(tmp_path):
    assert masked(printed(tmp_path)) == masked(GUIDE.read_text())


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as name:
        GUIDE.write_text(printed(pathlib.Path(name)))
