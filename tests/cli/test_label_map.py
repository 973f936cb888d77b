# SPDX-License-Identifier: Apache-2.0
"""fkdb-write --label label-map: ReLabel's label maps, from fully convolutional teachers."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import peer_labels
import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CLASSES, K, GRID, SIZE = 12, 5, (8, 12), (32, 48)


class Convolutional(torch.nn.Module):
    """(N, 3, 32, 48) to maps of (N, 12, 8, 12)."""

    def __init__(self, seed):
        super().__init__()
        torch.manual_seed(seed)
        self.layers = torch.nn.Sequential(torch.nn.Conv2d(3, 16, 5, stride=4, padding=2), torch.nn.ReLU(), torch.nn.Conv2d(16, CLASSES, 1))

    def forward(self, x):
        return 3 * self.layers(x)


class Pooled(Convolutional):
    def forward(self, x):
        return super().forward(x).mean((2, 3))


def save(model, path, **card):
    torch.jit.trace(model.eval(), torch.zeros(16, 3, *SIZE)).save(str(path))
    Path(f"{path}.json").write_text(json.dumps({"input_size": [3, *SIZE], "mean": MEAN, "std": STD, **card}))
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Images of several sizes, two teachers and one that gives no map."""
    root = tmp_path_factory.mktemp("maps")
    peer_labels.images(root / "images", [f"n{c:02}/{i}.JPEG" for c in range(CLASSES) for i in range(2)])
    models = [Convolutional(1), Convolutional(2)]
    return root, models, [save(model, root / f"{n}.pt") for n, model in enumerate(models)], save(Pooled(1), root / "pooled.pt")


def scores(model, path):
    """(12, 8, 12): what the model says of the whole image."""
    x = F.resize(Image.open(path).convert("RGB"), list(SIZE), InterpolationMode.BILINEAR)
    with torch.inference_mode():
        return model(F.normalize(F.to_tensor(x), MEAN, STD)[None])[0]


def write(fkdb, made, teacher, out, *more):
    return fkdb.json("write", "--images", made[0] / "images", "--teacher", teacher, "--label", "label-map", "--batch-size", 5, "--out", out, *more)


@pytest.mark.parametrize("encoding", ["f32", "f16"])
def test_a_label_map_is_the_teachers_top_k_of_every_cell(fkdb, made, tmp_path, encoding):
    root, (model, _), (teacher, _), _ = made
    path, cells = tmp_path / "maps.fkdb", GRID[0] * GRID[1]
    said = write(fkdb, made, teacher, path, *(["--encoding", "f32"] if encoding == "f32" else []))
    assert said["images"] == 24 and said["crops"] == said["crops_labelled"] == 24 * cells
    manifest = fkdb.json("dump", path)
    labels = manifest["labels"]
    assert (labels["kind"], labels["values"], labels["top_k"], labels["grid_height"], labels["grid_width"]) == ("label-map", encoding, K, *GRID)
    assert manifest["augmentation"]["crops"] == cells and manifest["teachers"][0]["name"] == "0.pt"
    assert fkdb.json("verify", path)["ok"]
    for ordinal in range(24):
        image = fkdb.json("dump", path, "--ordinal", ordinal)
        expected = scores(model, root / "images" / image["key"]).reshape(CLASSES, cells)
        assert len(image["crops"]) == cells
        for cell, crop in enumerate(image["crops"]):
            stored = torch.tensor(crop["values"])
            best = expected[:, cell].topk(K).values
            tolerance = 1e-3 if encoding == "f32" else 1e-3 + best.abs().max().item() * 2**-11
            assert (stored - best).abs().max() < tolerance and (stored - expected[crop["indices"], cell]).abs().max() < tolerance
            assert not crop["flip"] and np.all(np.diff(crop["values"]) <= 0)


def test_threads_and_a_stop_between_do_not_change_it(fkdb, made, tmp_path):
    one = write(fkdb, made, made[2][0], tmp_path / "one.fkdb", "--threads", 1)
    two = write(fkdb, made, made[2][0], tmp_path / "two.fkdb", "--threads", 2)
    assert one["digest"] == two["digest"]
    # A file that cannot be read ends the work after a few images; then it can.
    images = tmp_path / "images"
    peer_labels.images(images, [f"n{c:02}/{i}.JPEG" for c in range(CLASSES) for i in range(2)])
    good = (images / "n06/1.JPEG").read_bytes()
    (images / "n06/1.JPEG").write_bytes(b"")
    arguments = ["write", "--images", images, "--teacher", made[2][0], "--label", "label-map", "--batch-size", 5, "--out", tmp_path / "three.fkdb"]
    done = fkdb(*arguments, "--commit-seconds", 0)
    assert done.returncode == 1 and "n06/1.JPEG" in done.stderr, done.stderr
    (images / "n06/1.JPEG").write_bytes(good)
    assert fkdb.json(*arguments, "--resume")["digest"] == one["digest"]
    # Or is left out.
    (images / "n06/1.JPEG").write_bytes(b"")
    skipped = fkdb.json(*arguments, "--overwrite", "--skip-bad")
    assert skipped["skipped"] == 1 and skipped["crops"] == 23 * GRID[0] * GRID[1]


def test_several_teachers_are_averaged_before_softmax(fkdb, made, tmp_path):
    root, models, teachers, _ = made
    path = tmp_path / "both.fkdb"
    write(fkdb, made, f"{teachers[0]},{teachers[1]}", path, "--teacher-weights", "1,3", "--average", "logits", "--encoding", "f32", "--top-k", CLASSES)
    image = fkdb.json("dump", path, "--ordinal", 7)
    a, b = (scores(model, root / "images" / image["key"]).reshape(CLASSES, -1) for model in models)
    for cell, crop in enumerate(image["crops"]):
        assert (torch.tensor(crop["values"]) - ((a + 3 * b) / 4)[crop["indices"], cell]).abs().max() < 1e-3


def test_the_plan_counts_cells(fkdb, made, tmp_path):
    arguments = ["write", "--images", made[0] / "images", "--teacher", made[2][0], "--label", "label-map", "--out", tmp_path / "x.fkdb", "--dry-run"]
    plan = fkdb.json(*arguments)
    assert plan["crops"] == 24 * 96 and plan["teachers"][0]["grid"] == list(GRID)
    text = fkdb.ok(*arguments)
    assert text.startswith("0.pt: logits of 12 classes for 8 x 12 cells from 32 x 48 bilinear inputs\n2304 crops at ")
    assert not list(tmp_path.iterdir())


def test_a_label_map_is_rechecked(fkdb, made, tmp_path):
    images, path = tmp_path / "images", tmp_path / "maps.fkdb"
    peer_labels.images(images, [f"n{c:02}/{i}.JPEG" for c in range(CLASSES) for i in range(2)])
    (images / "n03/0.JPEG").write_bytes(b"")
    check = ["--images", images, "--teacher", made[2][0], "--out", path]
    fkdb.ok("write", *check, "--label", "label-map", "--batch-size", 5, "--skip-bad")
    said = fkdb.json("write", *check, "--recheck", 1)
    assert said["ok"] and said["images"] == 23 and said["crops"] == said["identical"] == 23 * 96
    good = (images / "n06/1.JPEG").read_bytes()
    (images / "n06/1.JPEG").write_bytes((images / "n06/0.JPEG").read_bytes())
    fkdb.fails(7, "image 'n06/1.JPEG': it changed since it was labelled", "write", *check, "--recheck", 1)
    (images / "n06/1.JPEG").write_bytes(b"")
    done = fkdb("write", *check, "--recheck", 1)
    assert done.returncode == 1 and "the file is empty" in done.stderr and done.stderr.count("\n") == 1
    (images / "n06/1.JPEG").write_bytes(good)
    # A label set from anybody, its checksums right, its classes not.
    spec = importlib.util.spec_from_file_location("make_bad", Path(__file__).parents[1] / "bad/make.py")
    make_bad = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(make_bad)
    first = fkdb.json("dump", path, "--ordinal", 0)
    bad = make_bad.Bad(path.read_bytes())
    bad.in_record(0, np.array([crop["indices"] for crop in first["crops"]], np.uint16).tobytes(), b"\xff\xff")
    path.write_bytes(bytes(bad.bytes))
    fkdb.fails(3, f"image '{first['key']}': crop 0: index 65535, expected below 12 classes", "write", *check, "--recheck", 1)


def test_what_is_no_label_map_is_refused(fkdb, made, tmp_path):
    root, _, teachers, pooled = made
    out, other = tmp_path / "x.fkdb", tmp_path / "other.fkdb"
    some = ["write", "--images", root / "images", "--out", out]

    def fails(message, *arguments):
        fkdb.fails(2, message, *some, *arguments)
        assert not out.exists() and not Path(f"{out}.partial").exists()

    label = ["--label", "label-map"]
    fails("teacher 'pooled.pt' gives one row an input, not [N, C, H, W]: label maps are of a fully convolutional teacher, one without its last pooling",
          "--teacher", pooled, *label)
    fails("teacher '0.pt' gives maps of 8 x 12 cells, not one row a crop: fkdb-write --label label-map stores them", "--teacher", teachers[0])
    fails("--crops: a label map is of the whole image, of as many cells as the teacher gives", "--teacher", teachers[0], *label, "--crops", 3)
    fails("label maps as packed: their scores are stored as f32 or f16", "--teacher", teachers[0], *label, "--encoding", "packed")
    fails("top-k 13: expected 1 to the number of classes, 12", "--teacher", teachers[0], *label, "--top-k", 13)
    fails("label maps hold scores before softmax: there is no temperature to them", "--teacher", teachers[0], *label, "--temperature", 2)
    fails("label maps are averages of scores before softmax: --average logits", "--teacher", f"{teachers[0]},{teachers[1]}", *label)
    fails("a label map is of images as they are: no operations on crops", "--teacher", teachers[0], *label, "--grayscale", "0.5")
    fkdb.ok("write", "--images", root / "images", "--teacher", pooled, "--crops", 2, "--out", other)
    fails("a label map is of whole images, not of another label set's crops", "--teacher", teachers[0], *label, "--boxes-from", other)
    softmax = save(torch.nn.Sequential(Convolutional(1), torch.nn.Softmax(1)), tmp_path / "softmax.pt", output="probabilities")
    fails("teacher 'softmax.pt' gives probabilities: label maps are of scores before softmax", "--teacher", softmax, *label)
    maps = tmp_path / "maps.fkdb"
    write(fkdb, made, teachers[0], maps)
    fails("a label map has all its cells: no crops are appended to it", "--teacher", teachers[0], "--append-crops", maps)
    done = fkdb("train", "--images", root / "images", "--supervision", "teacher", "--teacher", teachers[0], "--model", "resnet6-w4",
                "--epochs", 1, "--out", tmp_path / "run")
    assert done.returncode == 2 and "teacher '0.pt' gives maps of 8 x 12 cells" in done.stderr and done.stderr.count("\n") == 1
