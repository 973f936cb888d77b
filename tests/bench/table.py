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
    lines = ["| | peer | theirs | fkdb | ratio |", "|---|---|---|---|---|"]
    for row in result["rows"]:
        digits = 0 if row["unit"] in ("images/s", "crops/s", "MiB") else 2
        ratio = f"{row['ratio']:.0f}" if row["ratio"] >= 10 else f"{row['ratio']:.2f}"
        lines.append(f"| {row['what']} | {row['peer']} | {row['theirs']:.{digits}f} {row['unit']} | "
                     f"{row['ours']:.{digits}f} {row['unit']} | {ratio} |")
    lines += ["", f"{result['cpu']}, {result['compiler']}, torch {result['torch']}; labels of {result['images']:,} "
                  f"images; photos: {result['photos']}. One thread where nothing else is said; the epoch has a worker "
                  f"beside it, and waits for data {100 * result['idle_share_of_epoch']:.1f} % of its time. Batch buffers "
                  f"of the memory row: {result['batch_buffers_mib']} MiB."]
    return "\n".join(lines)


if __name__ == "__main__":
    if "--check" not in sys.argv:
        print(table())
    elif table() not in (HERE.parents[1] / "README.md").read_text():
        sys.exit("README.md's table is not that of tests/bench/compare.json: paste the output of tests/bench/table.py")
