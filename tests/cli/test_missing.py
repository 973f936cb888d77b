# SPDX-License-Identifier: Apache-2.0
"""Label sets and images that are not of each other in full: training on what both have, and comparing images with those that were labelled."""

import shutil

import pytest
from conftest import TRAIN
from PIL import Image


def train(images, db, out, *more):
    return ["train", "--images", images, "--db", db, "--model", "resnet6-w4", "--crops-per-image", 2, "--epochs", 2, "--batch-size", 32, "--seed", 3, "--threads", 1,
            "--out", out, *more]


def weights(path):
    return (path / "weights.safetensors").read_bytes()


def test_a_part_of_the_labels_trains_on_all_images(fkdb, labels, tmp_path):
    """Labels of 300 of 60,000 images: the same weights as with those 300 images alone, and it says what it left out."""
    keys = [f"{i:05}" for i in range(0, 300)]
    (tmp_path / "keys.txt").write_text("\n".join(keys))
    part = tmp_path / "part.fkdb"
    fkdb.ok("subset", labels, part, "--images", tmp_path / "keys.txt")
    refused = f"{part} does not match the images of 'train-images-idx3-ubyte.gz': 59700 of 60000 images have no labels, first '00300' (--limit N takes only the first N images)"
    fkdb.fails(7, refused + "; --allow-missing trains on those that both have", *train(TRAIN, part, tmp_path / "no"))
    said = fkdb.ok(*train(TRAIN, part, tmp_path / "all", "--allow-missing", "--check-images"))
    assert said.splitlines()[0] == f"{part}: 59700 images have no labels"
    fkdb.ok(*train(TRAIN, part, tmp_path / "alone", "--limit", 300))
    assert weights(tmp_path / "all") == weights(tmp_path / "alone")


def test_images_that_went_missing(fkdb, labels, tmp_path):
    """400 of 500 labelled images are there: as if the others had never been labelled; and a resume with others is refused."""
    out = fkdb.json(*train(TRAIN, labels, tmp_path / "some", "--limit", 400, "--allow-missing"))
    assert out["images"] == {"trained_on": 400, "missing": 100, "resized": 0, "changed": 0, "unlabelled": 0}
    (tmp_path / "keys.txt").write_text("\n".join(f"{i:05}" for i in range(400)))
    fkdb.ok("subset", labels, tmp_path / "part.fkdb", "--images", tmp_path / "keys.txt")
    fkdb.ok(*train(TRAIN, tmp_path / "part.fkdb", tmp_path / "part", "--limit", 400))
    assert weights(tmp_path / "some") == weights(tmp_path / "part")
    done = fkdb(*train(TRAIN, labels, tmp_path / "some", "--limit", 390, "--allow-missing", "--resume"))
    assert done.returncode == 2 and "without 100 images" in done.stderr and "now \"db:cycle:without 110 images" in done.stderr and done.stderr.count("\n") == 1


@pytest.fixture
def photos(tmp_path):
    """The folder of nine images."""
    folder = tmp_path / "photos"
    for i in range(9):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True, parents=True)
        Image.new("RGB", (40 + i, 30), (20 * i, 0, 0)).save(folder / "ab"[i % 2] / f"{i}.png")
    return folder


def test_images_that_changed(fkdb, photos, tmp_path):
    run = tmp_path / "teacher"
    fkdb.ok("train", "--images", photos, "--model", "resnet6-w4", "--input-size", 28, "--epochs", 1, "--batch-size", 8, "--out", run)
    db = tmp_path / "labels.fkdb"
    fkdb.ok("write", "--images", photos, "--teacher", f"resnet6-w4:{run}/weights.safetensors", "--input-size", 28, "--top-k", 2, "--crops", 4, "--out", db)
    fkdb.ok(*train(photos, db, tmp_path / "before", "--check-images"))
    Image.new("RGB", (42, 30), (1, 2, 3)).save(photos / "a/2.png")
    Image.new("RGB", (43, 31)).save(photos / "b/3.png")
    (photos / "b/5.png").unlink()
    (photos / "b/new.png").write_bytes((photos / "b/7.png").read_bytes())
    text = ("1 of 9 labelled images are missing, first 'b/5.png'; 1 have another size than when they were labelled, first 'b/3.png'; "
            "1 changed since they were labelled, first 'a/2.png'; 1 images have no labels")
    out = fkdb.json(*train(photos, db, tmp_path / "some", "--check-images", "--allow-missing"))
    assert out["images"] == {"trained_on": 6, "missing": 1, "resized": 1, "changed": 1, "unlabelled": 1}
    assert fkdb.ok(*train(photos, db, tmp_path / "again", "--check-images", "--allow-missing")).startswith(f"{db}: {text}\n")
    # Of keys alone, the changed one is not seen and the resized one stops the training.
    assert fkdb(*train(photos, db, tmp_path / "keys", "--allow-missing")).returncode == 7
    shutil.copy(photos / "b/7.png", photos / "b/5.png")
    (photos / "b/new.png").unlink()
    fkdb.fails(7, f"{db} does not match the images of 'photos': 2 have another size than when they were labelled, first 'b/3.png'; "
                  "1 changed since they were labelled, first 'a/2.png'; --allow-missing trains on the others", *train(photos, db, tmp_path / "x", "--check-images"))


def test_errors(fkdb, labels, tmp_path):
    alone = "--allow-missing and --check-images compare images with a label set: --db DB"
    fkdb.fails(2, alone, "train", "--images", TRAIN, "--model", "resnet6-w4", "--epochs", 1, "--allow-missing", "--out", tmp_path / "x")
    keys = tmp_path / "keys.txt"
    keys.write_text("00499\n")
    fkdb.ok("subset", labels, tmp_path / "one.fkdb", "--images", keys)
    fkdb.fails(7, f"{tmp_path}/one.fkdb does not match the images of 'train-images-idx3-ubyte.gz': none of its 1 images is there, first '00499'",
               *train(TRAIN, tmp_path / "one.fkdb", tmp_path / "x", "--allow-missing", "--limit", 400))
