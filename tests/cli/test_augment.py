# SPDX-License-Identifier: Apache-2.0
"""Operations on crops, from end to end: what the teacher labelled, and what a student sees, is what Pillow makes of the operations that
the label set says were done."""

import json
import math
import pathlib
import shutil

import numpy as np
import pytest
import torch
import xxhash
from PIL import Image, ImageEnhance, ImageFilter, ImageOps
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

GOLDEN = pathlib.Path(__file__).parent.parent / "golden/pillow"
MEAN, STD, SIZE = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225], 48
POLICY = ["--randaugment", "2,12", "--color-jitter", "0.4,0.4,0.4,0.1", "--jitter-probability", 0.7, "--grayscale", 0.2, "--blur", 0.3,
          "--random-erasing", 0.3, "--mixup", 0.8, "--cutmix", 1, "--mix-probability", 0.5]


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """24 photos of 67 x 45 pixels."""
    folder = tmp_path_factory.mktemp("photos")
    for i in range(24):
        (folder / f"{i % 2}").mkdir(exist_ok=True)
        name = ["444.jpg", "420.jpg", "422.jpg", "rgb.png"][i % 4]
        image = Image.open(GOLDEN / name).convert("RGB")
        image = image.resize((67, 45)) if image.size != (67, 45) else image
        if i < 4 and name.endswith("jpg"):
            shutil.copy(GOLDEN / name, folder / f"{i % 2}/{i:02}.jpg")
        else:
            image.rotate(i * 7).save(folder / f"{i % 2}/{i:02}.png")
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """One that a single changed pixel shows in."""
    torch.manual_seed(3)
    net = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 5, 4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(16 * 11 * 11, 2)).eval()
    path = tmp_path_factory.mktemp("model") / "teacher.pt"
    torch.jit.trace(net, torch.zeros(16, 3, SIZE, SIZE)).save(str(path))
    return net, path


def cropped(image, box, flip):
    top, left, height, width = map(int, box)
    crop = F.resized_crop(image, top, left, height, width, [SIZE, SIZE], InterpolationMode.BILINEAR)
    return F.hflip(crop) if flip else crop


def erased(image, op):
    pixels = np.array(image)
    top, left, height, width = (int(op[side]) for side in ("top", "left", "height", "width"))
    pixels[top:top + height, left:left + width] = 0
    return Image.fromarray(pixels)


def pasted(image, partner, op):
    top, left, height, width = (int(op[side]) for side in ("top", "left", "height", "width"))
    out = image.copy()
    out.paste(partner.crop((left, top, left + width, top + height)), (left, top))
    return out


def sheared(image, x, y):
    return F.affine(image, 0.0, [0, 0], 1.0, [x, y], InterpolationMode.NEAREST, None, center=[0, 0])


def shifted(image, x, y):
    return F.affine(image, 0.0, [int(x), int(y)], 1.0, [0.0, 0.0], InterpolationMode.NEAREST, None)


SINGLE = {
    "brightness": lambda image, op: ImageEnhance.Brightness(image).enhance(op["factor"]),
    "contrast": lambda image, op: ImageEnhance.Contrast(image).enhance(op["factor"]),
    "saturation": lambda image, op: ImageEnhance.Color(image).enhance(op["factor"]),
    "sharpness": lambda image, op: ImageEnhance.Sharpness(image).enhance(op["factor"]),
    "hue": lambda image, op: F.adjust_hue(image, op["shift"]),
    "shear-x": lambda image, op: sheared(image, op["degrees"], 0.0),
    "shear-y": lambda image, op: sheared(image, 0.0, op["degrees"]),
    "translate-x": lambda image, op: shifted(image, op["pixels"], 0),
    "translate-y": lambda image, op: shifted(image, 0, op["pixels"]),
    "rotate": lambda image, op: image.rotate(op["degrees"]),
    "posterize": lambda image, op: ImageOps.posterize(image, int(op["bits"])),
    "solarize": lambda image, op: ImageOps.solarize(image, op["threshold"]),
    "auto-contrast": lambda image, op: ImageOps.autocontrast(image),
    "equalize": lambda image, op: ImageOps.equalize(image),
    "grayscale": lambda image, op: F.rgb_to_grayscale(image, 3),
    "blur": lambda image, op: image.filter(ImageFilter.GaussianBlur(op["sigma"])),
    "erase": erased,
}


def seen(photos, key, crop):
    """What a network saw of this crop, as a PIL image."""
    image, partner = cropped(Image.open(photos / key).convert("RGB"), crop["box"], crop["flip"]), None
    keys = {f"{xxhash.xxh3_64_intdigest(path.relative_to(photos).as_posix()):016x}": path for path in photos.rglob("*.*")}
    for i, op in enumerate(crop["ops"]):
        if op["op"] == "partner-crop":
            mix = crop["ops"][i + 1]
            partner = cropped(Image.open(keys[mix["partner"]]).convert("RGB"), [op[side] for side in ("top", "left", "height", "width")], op["flip"])
        elif op["op"] == "mixup":
            image = Image.blend(partner, image, op["lambda"])
        elif op["op"] == "cutmix":
            image = pasted(image, partner, op)
        else:
            image = SINGLE[op["op"]](image, op)
    return image


def inputs_of(photos, image):
    return torch.stack([F.normalize(F.to_tensor(seen(photos, image["key"], crop)), MEAN, STD) for crop in image["crops"]])


@pytest.fixture(scope="module")
def made(fkdb, photos, model, tmp_path_factory):
    path = tmp_path_factory.mktemp("made") / "labels.fkdb"
    fkdb.ok("write", "--images", photos, "--teacher", model[1], "--input-size", SIZE, "--crops", 40, "--batch-size", 16, "--label", "logits",
            "--encoding", "f32", "--out", path, *POLICY)
    return path, [json.loads(fkdb.ok("dump", path, "--ordinal", i, "--json")) for i in range(24)]


def test_the_teacher_labelled_what_the_operations_make(photos, model, made):
    kinds = {op["op"] for image in made[1] for crop in image["crops"] for op in crop["ops"]}
    assert kinds == {*SINGLE, "partner-crop", "mixup", "cutmix"}  # all of them were drawn
    for image in made[1]:
        with torch.inference_mode():
            z = model[0](inputs_of(photos, image))
        stored = torch.tensor([crop["values"] for crop in image["crops"]])
        assert (z - stored).abs().max() < 2e-5 * z.abs().max(), image["key"]


@pytest.mark.parametrize("kind", ["FkdLoader", "FkdDataset"])
def test_students_see_what_the_teacher_saw(photos, made, kind):
    import fkdb
    import fkdb.torch
    db, by_key = fkdb.open(made[0]), {image["key"]: image for image in made[1]}
    if kind == "FkdLoader":
        batches = fkdb.torch.FkdLoader(photos, db, batch_size=8, crops_per_image=4, seed=1)
    else:
        dataset = fkdb.torch.FkdDataset(photos, db, crops_per_image=4, seed=1)
        batches = torch.utils.data.DataLoader(dataset, batch_size=2, sampler=fkdb.torch.FkdSampler(dataset), collate_fn=fkdb.torch.collate)
    images = 0
    for batch in batches:
        for ordinal, inputs in zip(batch.ordinals.tolist(), batch.inputs.split(4)):
            candidates = inputs_of(photos, by_key[db.key(ordinal)])
            for one in inputs:
                assert (candidates == one).flatten(1).all(1).any(), db.key(ordinal)
            images += 1
    assert images == 24


def test_loaders_that_cannot_show_them_say_so(photos, made):
    import fkdb
    import fkdb.torch
    for options, error, message in [({"pixels": "torchvision"}, fkdb.UnsupportedError, "pixels of its own"), ({"transform": lambda x: x}, fkdb.UnsupportedError, "pixels of its own"),
                                    ({"input_size": 32}, fkdb.InvalidArgumentError, "changed as 48 x 48 pixels")]:
        dataset = fkdb.torch.FkdDataset(photos, fkdb.open(made[0]), crops_per_image=4, **options)
        with pytest.raises(error, match=message):
            dataset[0]
    with pytest.raises(fkdb.InvalidArgumentError, match="changed as 48 x 48 pixels"):
        next(iter(fkdb.torch.FkdLoader(photos, fkdb.open(made[0]), batch_size=8, crops_per_image=4, input_size=32)))


def test_training_on_them(fkdb, photos, made, tmp_path):
    common = ["--images", photos, "--db", made[0], "--model", "resnet6-w4", "--epochs", 4, "--batch-size", 8]
    fkdb.ok("train", *common, "--out", tmp_path / "run")
    fkdb.fails(2, f"{made[0]}: its crops were changed as 48 x 48 pixels: an input of 32 x 32 cannot be made of them", "train", *common,
               "--input-size", 32, "--out", tmp_path / "other")


def test_boxes_and_flips_are_those_without_operations(fkdb, photos, model, made, tmp_path):
    plain = tmp_path / "plain.fkdb"
    fkdb.ok("write", "--images", photos, "--teacher", model[1], "--input-size", SIZE, "--crops", 40, "--top-k", 2, "--batch-size", 16, "--out", plain)
    for image in made[1]:
        other = json.loads(fkdb.ok("dump", plain, "--image", image["key"], "--json"))
        assert [(c["box"], c["flip"]) for c in other["crops"]] == [(c["box"], c["flip"]) for c in image["crops"]]
        assert not any(c["ops"] for c in other["crops"])


def test_label_sets_that_begin_from_one_with_operations(fkdb, photos, model, made, tmp_path):
    common = ["--images", photos, "--teacher", model[1], "--batch-size", 16, "--label", "logits", "--encoding", "f32"]
    again = fkdb.json("write", *common, "--boxes-from", made[0], "--out", tmp_path / "again.fkdb")
    assert again["digest"] == fkdb.json("dump", made[0])["digest"]
    checked = fkdb.json("write", "--images", photos, "--teacher", model[1], "--out", made[0], "--recheck", 1)
    assert checked["identical"] == checked["crops"] == 24 * 40
    # The first crops, then the rest: the same operations.
    fkdb.ok("write", *common, "--input-size", SIZE, "--crops", 24, "--out", tmp_path / "first.fkdb", *POLICY)
    fkdb.ok("write", "--images", photos, "--teacher", model[1], "--append-crops", tmp_path / "first.fkdb", "--crops", 16, "--out", tmp_path / "more.fkdb")
    for image in made[1]:
        other = json.loads(fkdb.ok("dump", tmp_path / "more.fkdb", "--image", image["key"], "--json"))
        assert [c["ops"] for c in other["crops"]] == [c["ops"] for c in image["crops"]]
    assert math.isclose(fkdb.json("dump", made[0])["augmentation"]["policy"]["mixup_alpha"], 0.8)


def test_what_cannot_be(fkdb, photos, model, made, tmp_path):
    common = ["write", "--images", photos, "--teacher", model[1], "--top-k", 2, "--out", tmp_path / "no.fkdb", "--input-size", SIZE]
    fkdb.fails(2, "randaugment-magnitude 31: expected 0 to 30", *common, "--randaugment", "2,31")
    fkdb.fails(2, "--blur: expected PROBABILITY or PROBABILITY,LOW,HIGH", *common, "--blur", "0.5,1")
    card = pathlib.Path(f"{model[1]}.json")
    card.write_text(json.dumps({"input_size": SIZE}))
    try:
        fkdb.fails(2, f"teacher 'teacher.pt' sees {SIZE} x {SIZE} pixels and students 32 x 32: operations on crops need the same for both; "
                      f"--input-size {SIZE} makes it so", *common[:-1], 32, "--mixup", 1)
        fkdb.fails(2, f"{made[0]}: cannot label its crops: they were changed as 48 x 48 pixels, not 32 x 32", *common[:-1], 32, "--boxes-from", made[0])
    finally:
        card.unlink()
    (photos / "0/zz.png").write_bytes(b"no image")
    try:
        refused = fkdb(*common, "--mixup", 1, "--crops", 60)
        assert refused.returncode == 1 and "zz.png" in refused.stderr and refused.stderr.count("\n") == 1
        kept = fkdb.json(*common, "--mixup", 1, "--crops", 60, "--skip-bad", "--overwrite")
        assert kept["skipped"] == 1
    finally:
        (photos / "0/zz.png").unlink()
