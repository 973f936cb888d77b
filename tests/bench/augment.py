# SPDX-License-Identifier: Apache-2.0
"""Each operation on the pixels of a crop of 224 x 224: microseconds beside Pillow's, medians of turns, as a table.

    .venv/bin/python tests/bench/augment.py      # half a minute; after tools/build --all
"""

import json
import pathlib
import statistics
import subprocess
import sys
import time

import numpy as np
import PIL
from PIL import Image

ROOT = pathlib.Path(__file__).resolve().parents[2]
BENCH = ROOT / "build/release/bin/augment_bench"
sys.path.insert(0, str(ROOT / "tests/golden/augment"))
from make import apply  # noqa: E402

SIZE, TURNS, RUNS = 224, 5, 41
OPS = [("brightness", 1.27), ("contrast", 1.27), ("saturation", 1.27), ("hue", 0.1), ("sharpness", 1.27), ("shear-x", 5.14), ("shear-y", 5.14),
       ("translate-x", 30), ("translate-y", 30), ("rotate", 9), ("rotate", 90), ("posterize", 6), ("solarize", 178.5),
       ("auto-contrast",), ("equalize",), ("invert",), ("grayscale",), ("blur", 0.5), ("blur", 2), ("erase", 50, 60, 70, 80), ("mixup", 0.7), ("cutmix", 0.9, 50, 60, 70, 80)]


def made_up(seed):
    i = np.arange(SIZE * SIZE * 3, dtype=np.uint32)
    noise = (i + np.uint32(seed)) * np.uint32(2654435761) >> np.uint32(27)
    return Image.fromarray((i // 3 % SIZE * 2 // 3 + i // (3 * SIZE) // 3 + noise + 20 * (i % 3)).astype(np.uint8).reshape(SIZE, SIZE, 3))


def pillow(op, image, partner):
    ops = [("partner-crop", 0, 0, 1, 1, 0), op] if op[0] in ("mixup", "cutmix") else [op]
    seconds = []
    for _ in range(RUNS):
        begun = time.perf_counter()
        apply(image, ops, partner)
        seconds.append(time.perf_counter() - begun)
    return 1e6 * statistics.median(seconds)


def main():
    image, partner = made_up(0), made_up(1)
    arguments = [str(a) for op in OPS for a in (*op, ",")]
    ours, theirs = [[] for _ in OPS], [[] for _ in OPS]
    for _ in range(TURNS):
        lines = subprocess.run([BENCH, *arguments], check=True, capture_output=True, text=True).stdout.splitlines()
        for n, line in enumerate(lines):
            ours[n].append(json.loads(line)["us"])
        for n, op in enumerate(OPS):
            theirs[n].append(pillow(op, image, partner))
    print(f"| operation | fkdb, us | Pillow {PIL.__version__}, us | |\n|---|---|---|---|")
    for op, a, b in zip(OPS, ours, theirs):
        a, b = statistics.median(a), statistics.median(b)
        print(f"| {op[0]} {' '.join(str(v) for v in op[1:2])} | {a:.0f} | {b:.0f} | {b / a:.1f} x |")


main()
