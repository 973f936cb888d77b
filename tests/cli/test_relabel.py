# SPDX-License-Identifier: Apache-2.0
"""Training from label maps (ReLabel): what a map says of a crop, against its formula, and fkdb-train --supervision relabel."""

import pathlib
import shutil
import subprocess

import numpy as np
import peer_labels
import pytest
from conftest import BIN
from relabel_reference import pooled

CLASSES = 40
GOLDEN = pathlib.Path(__file__).parents[1] / "golden/v1"


def boxes_of(rng, height, width):
    """Random ones, and those where rules change: whole images, edges, corners, single pixels, single cells."""
    yield from peer_labels.boxes(rng, height, width, 12).tolist()
    yield [0, 0, height, width]
    for h, w in ((1, 1), (1, width), (height, 1), (height // 3 + 1, width // 2 + 1), (height // 40 + 1, width // 40 + 1)):
        for top in (0, (height - h) // 2, height - h):
            for left in (0, (width - w) // 2, width - w):
                yield [top, left, h, w]


@pytest.mark.parametrize("grid, half", [((15, 15), False), ((7, 9), True), ((2, 20), False), ((1, 1), False)])
def test_a_crop_s_label_is_that_of_the_formula(fkdb, tmp_path, grid, half):
    rng = np.random.default_rng(grid[1])
    fixed = {"n0/0.jpg": (300, 450), "n0/1.jpg": (41, 60), "n0/2.png": (15, 15), "n0/3.png": (9, 5)}
    sizes = peer_labels.images(tmp_path / "images", fixed, sizes=fixed)
    maps = peer_labels.relabel(tmp_path / "maps", sizes, grid, half=half)
    fkdb.ok("convert", "--from", "relabel", "--images", tmp_path / "images", "--no-classes", "--num-classes", CLASSES, tmp_path / "maps", tmp_path / "l.fkdb")
    asked = [(key, box) for key in sizes for box in boxes_of(rng, *sizes[key])]
    lines = "".join(f"{key} {' '.join(map(str, box))}\n" for key, box in asked)
    got = subprocess.run([BIN / "pool_label_map", tmp_path / "l.fkdb"], input=lines.encode(), capture_output=True, check=True).stdout
    got = np.frombuffer(got, np.float32).reshape(len(asked), CLASSES)
    expected = np.stack([pooled(maps[key], sizes[key], box, CLASSES) for key, box in asked])
    assert np.abs(got - expected).max() < 1e-5
    assert np.abs(got.astype(np.float64).sum(1) - 1).max() < 1e-6
    assert len(np.unique(got.round(4), axis=0)) > (1 if grid == (1, 1) else 50)


RUN = ["train", "--model", "resnet6-w4", "--epochs", 2, "--batch-size", 32, "--lr", 0.05, "--threads", 1, "--input-size", 28]


def weights(folder):
    return (folder / "weights.safetensors").read_bytes()


@pytest.fixture(scope="module")
def run(label_maps):
    images, maps = label_maps
    return [*RUN, "--images", images, "--db", maps]


def other(command, flag, value):
    at = command.index(flag) + 1
    return [*command[:at], value, *command[at + 1:]]


def test_it_trains_with_any_workers_and_resumes(fkdb, run, tmp_path):
    whole = fkdb.passes(*run, "--supervision", "relabel", "--out", tmp_path / "whole")
    assert [p["crops_per_image"] for p in whole] == [1, 1] and whole[1]["loss"] < 0.95 * whole[0]["loss"]
    # It is what label maps are for; nothing depends on how many threads load.
    fkdb.passes(*run, "--workers", 4, "--out", tmp_path / "default")
    assert weights(tmp_path / "default") == weights(tmp_path / "whole")
    for steps in (7, 0):
        fkdb.passes(*run, "--supervision", "relabel", "--out", tmp_path / "pieces", "--resume", "--max-steps", steps)
    assert weights(tmp_path / "pieces") == weights(tmp_path / "whole")


def test_crops_are_those_of_hard_labels(fkdb, run, tmp_path):
    """Maps that are certain of the class are hard labels."""
    images = pathlib.Path(run[run.index("--images") + 1])
    import torch
    for path in images.glob("*/*.png"):
        to = tmp_path / "maps" / path.parent.name / f"{path.stem}.pt"
        to.parent.mkdir(parents=True, exist_ok=True)
        torch.save(torch.stack([torch.full((1, 2, 3), 200.0), torch.full((1, 2, 3), float(path.parent.name))]), to)
    fkdb.ok("convert", "--from", "relabel", "--images", images, tmp_path / "maps", tmp_path / "sure.fkdb")
    flags = ["--images", images, "--crops-per-image", 2, "--scale", "0.5,1"]
    sure = fkdb.passes(*RUN, *flags, "--db", tmp_path / "sure.fkdb", "--out", tmp_path / "sure")
    hard = fkdb.passes(*RUN, *flags, "--out", tmp_path / "hard")
    assert [p["loss"] for p in sure] == pytest.approx([p["loss"] for p in hard], rel=1e-5)


def test_mixed_batches_and_several_crops(fkdb, run, tmp_path):
    plain = fkdb.passes(*run, "--crops-per-image", 2, "--no-single-crop-tail", "--out", tmp_path / "plain")
    mixed = fkdb.passes(*run, "--crops-per-image", 2, "--no-single-crop-tail", "--mixup", 0.8, "--cutmix", 1, "--out", tmp_path / "mixed")
    assert [p["crops_per_image"] for p in plain] == [p["crops_per_image"] for p in mixed] == [2]
    assert abs(mixed[0]["loss"] - plain[0]["loss"]) > 0.01


def test_what_labels_depend_on_is_the_run_s(fkdb, run, label_maps, tmp_path):
    fkdb.ok(*run, "--out", tmp_path / "run", "--max-steps", 3)
    for flags, what in ((["--scale", "0.9,1"], "supervision"), (["--supervision", "hard"], "supervision")):
        done = fkdb(*run, "--out", tmp_path / "run", "--resume", *flags)
        assert done.returncode == 2 and f"cannot resume with another configuration: {what} was" in done.stderr
    fkdb.ok("subset", label_maps[1], tmp_path / "f32.fkdb", "--recode", "f32")
    done = fkdb(*other(run, "--db", tmp_path / "f32.fkdb"), "--out", tmp_path / "run", "--resume")
    assert done.returncode == 2 and "cannot resume with another configuration: labels was" in done.stderr


def test_images_that_are_missing_or_changed(fkdb, run, label_maps, tmp_path):
    images, maps = label_maps
    shutil.copytree(images, tmp_path / "images")
    lost = sorted((tmp_path / "images").glob("*/*.png"))[:20]
    for path in lost:
        path.unlink()
    command = other(run, "--images", tmp_path / "images")
    done = fkdb(*command, "--out", tmp_path / "run")
    assert done.returncode == 7 and "20 of 300 labelled images are missing" in done.stderr
    assert fkdb.json(*command, "--allow-missing", "--out", tmp_path / "run")["images"]["trained_on"] == 280
    from PIL import Image
    for path in (tmp_path / "images").glob("*/*.png"):
        Image.open(path).resize((28, 27)).save(path)
    done = fkdb(*command, "--allow-missing", "--out", tmp_path / "other")
    assert done.returncode == 7 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"fkdb-train: {maps}: image '") and done.stderr.endswith("': it was 28 x 28 pixels when labelled and is 28 x 27 now\n")


def test_maps_and_crops_are_told_apart(fkdb, run, label_maps, tmp_path):
    maps, out = label_maps[1], ["--out", tmp_path / "run"]
    no_crops = f"{maps}: its labels are label maps, which hold no crops: fkdb-train --supervision relabel and the Python loaders train from them"
    fkdb.fails(4, no_crops, *run, "--supervision", "db", *out)
    fkdb.fails(4, no_crops, *run, "--teacher", "x.pt", *out)
    crops = GOLDEN / "marginal-smoothing.f16.pixel.fkdb"
    fkdb.fails(2, f"{crops}: its labels are of kind 'marginal-smoothing': --supervision relabel is for label maps, --supervision db for these",
               *other(run, "--db", crops), "--supervision", "relabel", *out)
    fkdb.fails(2, "--supervision relabel needs label maps: --db DB", *RUN, "--images", "x", "--supervision", "relabel", *out)
    fkdb.fails(2, "--label-smoothing is for hard labels: a teacher's are soft already", *run, "--label-smoothing", 0.1, *out)
    fkdb.fails(2, "--teacher is for --supervision teacher", *run, "--supervision", "relabel", "--teacher", "x.pt", *out)
    assert not (tmp_path / "run").exists()
