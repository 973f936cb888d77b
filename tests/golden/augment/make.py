# SPDX-License-Identifier: Apache-2.0
"""Writes what tests/image/augment_test.cc expects: what Pillow 12, and torchvision on PIL images, make of pixels, as
CRC-32 of the bytes.

    python3 tests/golden/augment/make.py     # needs pillow 12, torchvision, numpy; overwrites cases.json

The cases are added to. Another Pillow or torchvision may be tried: `make.py --check` compares instead of writing.
"""

import json
import math
import pathlib
import sys
import zlib

import numpy as np
import PIL
import torchvision
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import RandAugment

HERE = pathlib.Path(__file__).parent
sys.path.insert(0, str(HERE.parent))
from made_up import source  # noqa: E402


def picture(kind, height, width, channels, seed):
    """The pixels a case begins with; augment_test.cc makes the same."""
    if kind == "noise":
        return source(height, width, channels, seed)
    y, x, c = np.meshgrid(np.arange(height), np.arange(width), np.arange(channels), indexing="ij")
    if kind == "gradient":
        return ((x * 2 + y * 3 + c * 50 + seed * 11) // 4 % 256).astype(np.uint8)
    if kind == "dull":  # few levels, none of them near the ends
        return (60 + seed + (x // 3 + y // 2 + 7 * c) % 23 * 3).astype(np.uint8)
    if kind == "constant":
        return np.full((height, width, channels), seed, np.uint8)
    if kind == "colours":  # all of them, at 4096 x 4096
        n = y * width + x
        return (n >> (16 - 8 * c) & 255).astype(np.uint8)
    raise ValueError(kind)


def shear(image, x, y):
    return F.affine(image, angle=0.0, translate=[0, 0], scale=1.0, shear=[x, y], interpolation=F.InterpolationMode.NEAREST,
                    fill=0, center=[0, 0])


def translate(image, x, y):
    return F.affine(image, angle=0.0, translate=[int(x), int(y)], scale=1.0, shear=[0.0, 0.0],
                    interpolation=F.InterpolationMode.NEAREST, fill=0)


def erase(image, top, left, height, width):
    out = image.copy()
    out.paste(0, (int(left), int(top), int(left + width), int(top + height)))
    return out


OPS = {
    "brightness": lambda i, f: ImageEnhance.Brightness(i).enhance(f),
    "contrast": lambda i, f: ImageEnhance.Contrast(i).enhance(f),
    "saturation": lambda i, f: ImageEnhance.Color(i).enhance(f),
    "hue": F.adjust_hue,
    "sharpness": lambda i, f: ImageEnhance.Sharpness(i).enhance(f),
    "shear-x": lambda i, d: shear(i, d, 0.0),
    "shear-y": lambda i, d: shear(i, 0.0, d),
    "translate-x": lambda i, p: translate(i, p, 0),
    "translate-y": lambda i, p: translate(i, 0, p),
    "rotate": lambda i, d: i.rotate(d, Image.Resampling.NEAREST, fillcolor=0),
    "posterize": lambda i, b: ImageOps.posterize(i, int(b)),
    "solarize": lambda i, t: ImageOps.solarize(i, t),
    "auto-contrast": ImageOps.autocontrast,
    "equalize": ImageOps.equalize,
    "invert": ImageOps.invert,
    "grayscale": lambda i: i.convert("L").convert(i.mode),
    "blur": lambda i, s: i.filter(ImageFilter.GaussianBlur(s)),
    "erase": erase,
}


def apply(image, ops, partner):
    """`ops` as lists of a name and values, which become float32 first, as they are recorded."""
    target = "image"
    images = {"image": image}
    for name, *values in ops:
        values = [float(np.float32(v)) for v in values]
        if name == "partner-crop":
            images["partner"], target = partner, "partner"
        elif name == "mixup":
            images["image"], target = Image.blend(images["partner"], images["image"], values[0]), "image"
        elif name == "cutmix":
            top, left, height, width = map(int, values[1:])
            box = (left, top, left + width, top + height)
            images["image"] = images["image"].copy()
            images["image"].paste(images["partner"].crop(box), box)
            target = "image"
        else:
            images[target] = OPS[name](images[target], *values)
    return images["image"]


def as_image(array):
    return Image.fromarray(array[:, :, 0] if array.shape[2] == 1 else array)


cases = []


def add(pixels, *ops):
    kind, height, width, channels, seed = pixels
    image = as_image(picture(*pixels))
    partner = as_image(picture("noise", height, width, channels, seed + 1))
    out = np.asarray(apply(image, ops, partner))
    cases.append({"pixels": list(pixels), "ops": [list(op) for op in ops], "crc": zlib.crc32(np.ascontiguousarray(out).tobytes())})


SIZES = [(1, 1), (1, 9), (9, 1), (2, 2), (3, 3), (7, 5), (33, 70), (224, 224)]
FACTORS = [0, 0.1, 0.37, 0.9999999, 1, 1.0000001, 1.37, 1.9, 2.3, 40, -0.5]
VALUES = {
    "brightness": FACTORS, "contrast": FACTORS, "saturation": FACTORS, "sharpness": FACTORS,
    "hue": [-0.5, -0.3, -0.1, -0.003, 0, 0.004, 0.05, 0.1, 0.25, 0.5],
    "shear-x": [math.degrees(math.atan(t)) for t in (-0.3, -0.09, -0.001, 0.01, 0.3)] + [0, 1e-6, -60, 45, 89.9, 89.9999],
    "shear-y": [math.degrees(math.atan(t)) for t in (-0.3, -0.09, -0.001, 0.01, 0.3)] + [0, 1e-6, -60, 45, 89.9, 89.9999],
    "translate-x": [0, 1, -1, 2.9, -2.9, 30, -101.5, 223, -224, 1000],
    "translate-y": [0, 1, -1, 2.9, -2.9, 30, -101.5, 223, -224, 1000],
    "rotate": [0, 30, -30, 9, -9, 0.001, -0.001, 45, 89.99, 90, 180, 270, -90, 360, 133.7, 720.5, -1e-20, 179.99998],
    "posterize": list(range(9)), "solarize": [0, 255, 128.5, 128, 256, 255.5, 0.5, -1, 1],
    "blur": [0, 0.1, 0.3, 0.5, 0.9, 1, 1.37, 2, 3.3, 5, 10, 40],
}


def everything():
    seed = 0
    for channels in (3, 1):
        for height, width in SIZES:
            for name, values in VALUES.items():
                for n, value in enumerate(values):
                    if (height, width) != (33, 70) and n % 3 and (height < 200 or n % 2):
                        continue
                    seed += 1
                    add(("noise", height, width, channels, seed % 97), (name, value))
                    if (height, width) == (33, 70):
                        add(("gradient", height, width, channels, seed % 97), (name, value))
            for kind in ("noise", "gradient", "dull"):
                for name in ("auto-contrast", "equalize", "invert", "grayscale"):
                    seed += 1
                    add((kind, height, width, channels, seed % 97), (name,))
            middle = (height // 2, width // 3, (height + 1) // 2, (width + 1) // 2)
            for top, left, h, w in ((0, 0, 1, 1), (0, 0, height, width), middle, (0, width // 2, 1000, 1000)):
                seed += 1
                add(("noise", height, width, channels, seed % 97), ("erase", top, left, h, w))
                if h <= height and w <= width:
                    add(("noise", height, width, channels, seed % 97), ("partner-crop", 0, 0, 1, 1, 0), ("cutmix", 0.5, top, left, h, w))
            for value in (0, 0.3, 0.5, 0.7123, 1):
                seed += 1
                add(("noise", height, width, channels, seed % 97), ("partner-crop", 0, 0, 1, 1, 0), ("mixup", value))
        for value in (0, 7, 128, 255):
            for name in ("auto-contrast", "equalize", "contrast", "sharpness", "blur", "rotate", "hue"):
                add(("constant", 10, 12, channels, value), (name, 0.4) if name in VALUES else (name,))
    # One after the other; the partner's own; two mixes that share a partner.
    for channels in (3, 1):
        for size in ((7, 5), (224, 224)):
            add(("noise", *size, channels, 5), ("contrast", 1.2), ("hue", 0.07), ("brightness", 0.8), ("saturation", 1.4))
            add(("gradient", *size, channels, 6), ("rotate", 9), ("equalize",), ("sharpness", 1.27), ("shear-x", -5.1), ("erase", 1, 1, 3, 2))
            add(("noise", *size, channels, 7), ("invert",), ("partner-crop", 0, 0, 1, 1, 0), ("rotate", 9), ("solarize", 99),
                ("mixup", 0.4), ("blur", 0.8), ("cutmix", 0.75, 2, 1, 3, 3), ("posterize", 4))
    # Every colour there is.
    add(("colours", 4096, 4096, 3, 0), ("hue", 0.1))


def tables():
    """RandAugment's magnitudes of every bin, as it passes them on."""
    out = {}
    for size in ((224, 224), (160, 192)):
        space = RandAugment()._augmentation_space(31, size)
        out["x".join(map(str, size))] = {name: [float(v) for v in m] for name, (m, _) in space.items() if m.ndim}
    return out


def main():
    assert PIL.__version__.startswith("12."), PIL.__version__
    everything()
    lines = ",\n".join(json.dumps(c, separators=(",", ":")) for c in cases)
    made_with = f'"pillow": "{PIL.__version__}", "torchvision": "{torchvision.__version__.split("+")[0]}"'
    text = f'{{{made_with}, "randaugment": {json.dumps(tables())},\n"cases": [\n{lines}\n]}}\n'
    if sys.argv[1:] == ["--check"]:
        kept = json.loads((HERE / "cases.json").read_text())["cases"]
        wrong = [(old, new) for old, new in zip(kept, cases) if old != new]
        sys.exit(f"{len(wrong)} of {len(kept)} cases differ, first {wrong[:1]}" if wrong or len(kept) != len(cases) else 0)
    (HERE / "cases.json").write_text(text)
    print(len(cases), "cases,", len(text), "bytes")


if __name__ == "__main__":
    main()
