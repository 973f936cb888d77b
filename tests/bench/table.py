#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""README.md's table of compare.py's figures, from the committed compare.json.

    tests/bench/table.py                 prints it
    tests/bench/table.py --check         exit 1 if README.md has another one
"""

import json
import pathlib
import sys

HERE = pathlib.Path(__file__).resolve().parent


def table():
    result = json.loads((HERE / "compare.json").read_text())
    lines = ["| one thread | peer | theirs | fkdb | times as fast |", "|---|---|---|---|---|"]
    for row in result["rows"]:
        digits = 0 if row["unit"] == "images/s" else 2
        lines.append(f"| {row['what']} | {row['peer']} | {row['theirs']:.{digits}f} {row['unit']} | "
                     f"{row['ours']:.{digits}f} {row['unit']} | {row['ratio']:.1f} |")
    lines += ["", f"{result['cpu']}, {result['compiler']}, torch {result['torch']}; {result['images']:,} images; photos: "
                  f"{result['photos']}."]
    return "\n".join(lines)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        print(table())
    elif table() not in (HERE.parents[1] / "README.md").read_text():
        sys.exit("README.md's table is not that of tests/bench/compare.json: paste the output of tests/bench/table.py")
