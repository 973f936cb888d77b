# SPDX-License-Identifier: Apache-2.0
"""Writes the expectations of tests/image: what Pillow 12 decodes and resamples, byte for byte.

    python3 tests/golden/pillow/make.py     # needs pillow 12 and numpy; overwrites cases.json, expected.bin, files

The cases are added to, never regenerated with another Pillow: version 13 runs the vertical pass
first for some tall boxes, and the label format's convention is the horizontal pass first. Pillow 12.3 does so already for
the box of 1200 x 7: its bytes here are those of an earlier 12.
"""

import io
import json
import pathlib
import struct
import sys
import zlib

import numpy as np
import PIL
from PIL import Image

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from made_up import source  # noqa: E402

assert PIL.__version__.startswith("12."), PIL.__version__

cases, expected = [], bytearray()


def add(case, array):
    array = np.ascontiguousarray(array, dtype=np.uint8)
    case["offset"], case["bytes"] = len(expected), array.size
    expected.extend(array.tobytes())
    cases.append(case)


RESAMPLE = [  # height, width, channels, box (top, left, height, width), out height, out width
    (28, 28, 1, (0, 0, 28, 28), 28, 28),
    (28, 28, 1, (3, 5, 17, 20), 28, 28),
    (28, 28, 1, (27, 0, 1, 28), 28, 28),
    (28, 28, 1, (13, 14, 1, 1), 28, 28),
    (61, 83, 3, (0, 0, 61, 83), 24, 24),
    (61, 83, 3, (7, 11, 50, 37), 24, 24),
    (61, 83, 3, (60, 82, 1, 1), 9, 7),
    (61, 83, 3, (0, 0, 61, 1), 16, 16),
    (61, 83, 3, (0, 0, 1, 83), 16, 16),
    (61, 83, 3, (10, 10, 12, 12), 31, 33),
    (400, 30, 3, (0, 0, 400, 30), 20, 20),
    (400, 30, 3, (17, 3, 371, 22), 23, 29),
    (30, 400, 3, (0, 0, 30, 400), 20, 20),
    (375, 500, 3, (31, 99, 301, 347), 32, 32),
    (375, 500, 3, (0, 0, 375, 500), 1, 1),
    (375, 500, 3, (100, 100, 33, 31), 32, 32),
    (1201, 7, 3, (1, 0, 1200, 7), 12, 12),
]


def resample():
    for number, (height, width, channels, box, out_height, out_width) in enumerate(RESAMPLE):
        array = source(height, width, channels, number)
        image = Image.fromarray(array[:, :, 0] if channels == 1 else array)
        top, left, h, w = box
        crop = image.crop((left, top, left + w, top + h))
        for name, filter_ in (("bilinear", Image.Resampling.BILINEAR), ("bicubic", Image.Resampling.BICUBIC)):
            for flip in (False, True) if number in (1, 5) else (False,):
                out = crop.resize((out_width, out_height), filter_)
                if flip:
                    out = out.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
                add({"kind": "resample", "source": [height, width, channels, number], "box": list(box),
                     "size": [out_height, out_width], "interpolation": name, "flip": flip}, out)


def png16(array, color_type):
    """A PNG of 16-bit samples, which Pillow does not write."""
    height, width = array.shape[:2]

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    rows = b"".join(b"\0" + array[y].astype(">u2").tobytes() for y in range(height))
    return (b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, color_type, 0, 0, 0)) +
            chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b""))


def decode():
    rgb = Image.fromarray(source(45, 67, 3, 1))
    smooth = rgb.resize((9, 7)).resize((67, 45), Image.Resampling.BICUBIC)
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: must be ignored
    files = {}

    def save(name, image, **options):
        data = io.BytesIO()
        image.save(data, name.rsplit(".")[-1].replace("jpg", "jpeg"), **options)
        files[name] = data.getvalue()

    save("420.jpg", smooth, quality=90, subsampling=2)
    save("422.jpg", rgb, quality=75, subsampling=1)
    save("444.jpg", rgb, quality=95, subsampling=0)
    save("progressive.jpg", smooth, quality=80, progressive=True)
    save("grey.jpg", smooth.convert("L"), quality=90)
    save("cmyk.jpg", smooth.convert("CMYK"), quality=90)
    save("exif.jpg", smooth, quality=90, exif=exif)
    save("rgb.png", rgb)
    save("rgba.png", Image.fromarray(source(20, 21, 4, 2), "RGBA"))
    save("palette.png", rgb.quantize(40), transparency=3)
    save("grey.png", rgb.convert("L"))
    save("bits.png", rgb.convert("1"))
    for name, data in files.items():
        (HERE / name).write_bytes(data)
        image = Image.open(io.BytesIO(data)).convert("RGB")
        add({"kind": "decode", "file": name, "size": [image.height, image.width]}, image)

    # Pillow clips or refuses 16-bit grey: the convention here is the upper byte.
    wide = source(13, 17, 3, 3).astype(np.uint16) * 256 + source(13, 17, 3, 4)
    for name, array, color_type in (("grey16.png", wide[:, :, 0], 0), ("rgb16.png", wide, 2)):
        (HERE / name).write_bytes(png16(array, color_type))
        upper = (array >> 8).astype(np.uint8)
        add({"kind": "decode", "file": name, "size": [13, 17]},
            np.repeat(upper[:, :, None], 3, axis=2) if upper.ndim == 2 else upper)


resample()
decode()
(HERE / "cases.json").write_text("[\n" + ",\n".join(json.dumps(c) for c in cases) + "\n]\n")
(HERE / "expected.bin").write_bytes(bytes(expected))
print(len(cases), "cases,", len(expected), "bytes")
