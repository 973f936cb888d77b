# SPDX-License-Identifier: Apache-2.0
"""Writes the expectations of tests/image for the convention pillow-integer-13: what Pillow 13 resamples, byte for byte.

    python3 tests/golden/pillow13/make.py     # needs pillow 13 and numpy; overwrites cases.json and expected.bin
"""

import json
import pathlib
import sys

import numpy as np
import PIL
from PIL import Image

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from made_up import source  # noqa: E402

assert PIL.__version__.startswith("13."), PIL.__version__


CASES = [  # height, width, channels, box (top, left, height, width), out height, out width
    (60, 50, 3, (0, 0, 60, 50), 20, 40),     # 40 rows less, 10 columns: vertical first
    (60, 50, 3, (0, 0, 40, 50), 20, 40),     # 20 and 10: horizontal first
    (60, 50, 3, (0, 0, 41, 50), 20, 40),     # 21 and 10: vertical first
    (60, 50, 1, (9, 3, 41, 40), 20, 29),     # 21 and 11: horizontal first
    (60, 50, 1, (9, 3, 41, 40), 20, 30),
    (60, 50, 3, (1, 2, 33, 10), 32, 30),     # columns grow
    (60, 50, 3, (1, 2, 32, 10), 32, 30),
    (60, 50, 3, (1, 2, 20, 40), 32, 10),     # rows grow
    (375, 500, 3, (20, 30, 340, 120), 32, 32),
    (375, 500, 3, (20, 30, 120, 440), 32, 32),
    (700, 9, 3, (0, 0, 700, 9), 12, 7),
    (700, 9, 3, (699, 0, 1, 9), 1, 1),
    (90, 64, 1, (0, 0, 90, 64), 30, 64),     # width as it is
]


def main():
    cases, expected = [], bytearray()
    for number, (height, width, channels, box, out_height, out_width) in enumerate(CASES):
        array = source(height, width, channels, number)
        image = Image.fromarray(array[:, :, 0] if channels == 1 else array)
        top, left, h, w = box
        for name, filter_ in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
            flip = number % 2 == 1
            out = image.crop((left, top, left + w, top + h)).resize((out_width, out_height), filter_)
            if flip:
                out = out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
            data = np.asarray(out, dtype=np.uint8).tobytes()
            cases.append({"kind": "resample", "source": [height, width, channels, number], "box": list(box),
                          "size": [out_height, out_width], "interpolation": name, "flip": flip, "offset": len(expected),
                          "bytes": len(data)})
            expected += data
    (HERE / "cases.json").write_text("[\n" + ",\n".join(json.dumps(case) for case in cases) + "\n]\n")
    (HERE / "expected.bin").write_bytes(expected)


if __name__ == "__main__":
    sys.exit(main())
