# SPDX-License-Identifier: Apache-2.0
"""writer/CONVERTING.md: its commands, run in their order, print what it says.

    FKDB_BIN=build/release/bin python tests/cli/test_converting_guide.py      writes what they print into it
"""

import pathlib
import re
import tempfile

import guide_data
from guide import run

GUIDE = pathlib.Path(__file__).resolve().parents[2] / "writer/CONVERTING.md"


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
