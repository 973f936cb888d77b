#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Bytes a crop of a label set of photos of 500 x 375 pixels, from a real teacher.

    tests/bench/photo_size.py WORKDIR        after tools/test, with .venv's Python; 20 minutes

ImageNet's photos cannot be had without a network, so 252 of their size are cut from the 12 of mate-backgrounds: each
photo whole, in 2 x 2 and in 4 x 4 tiles. EfficientNet-Lite0 labels 200 crops of each, K = 5. Prints fkdb-audit's JSON.
"""

import json
import pathlib
import sys

from accuracy import PHOTOS, fkdb, lite0
from PIL import Image

WIDTH, HEIGHT = 500, 375


def cut(folder, tiles=(1, 2, 4)):
    """The photos of `folder`: the whole, in 2 x 2, in 4 x 4 tiles."""
    folder.mkdir(parents=True, exist_ok=True)
    for path in sorted(PHOTOS.glob("*.jpg")):
        photo = Image.open(path).convert("RGB")
        for side in tiles:
            whole = photo.resize((side * WIDTH, side * HEIGHT), Image.Resampling.LANCZOS)
            for n in range(side * side):
                left, top = n % side * WIDTH, n // side * HEIGHT
                tile = whole.crop((left, top, left + WIDTH, top + HEIGHT))
                tile.save(folder / f"{path.stem}_{side}_{n:02}.jpg", quality=90)


def main():
    work = pathlib.Path(sys.argv[1])
    images, out = work / "photos", work / "photos.fkdb"
    cut(images)
    if not (work / "lite0.pt").exists():
        lite0(work / "lite0.pt")
    fkdb("write", "--images", images, "--teacher", work / "lite0.pt", "--crops", 200, "--batch-size", 16, "--out", out, "--resume")
    print(json.dumps(json.loads(fkdb("audit", out, "--json")), indent=2))


if __name__ == "__main__":
    main()
