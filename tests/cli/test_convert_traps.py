# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with the label folders that people have, and what fkdb-convert says of it."""

import json
import os
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import peer_labels
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from conftest import BIN

KEYS = [f"n{c}/{i}.JPEG" for c in range(2) for i in range(4)]


class Folder:
    """Images with FKD's labels of them, and the command that converts them."""

    def __init__(self, fkdb, path, keys=KEYS, sizes=None, **labels):
        self.fkdb, self.images, self.labels, self.out = fkdb, path / "data/train", path / "labels", path / "l.fkdb"
        self.sizes = peer_labels.images(self.images, keys, sizes=sizes)
        self.states = peer_labels.fkd(self.labels, self.sizes, **labels)

    def file(self, key):
        return self.labels / "train" / peer_labels.fkd_name(key)

    def change(self, key, change):
        """Writes an image's file anew: change(coords, flip, label) gives the list."""
        peer_labels.save(change(*map(np.copy, self.states[key])), self.file(key))

    def command(self, *more, label="marginal-smoothing"):
        return ["convert", "--from", "fkd", "--images", self.images, "--no-classes", "--num-classes", 12, "--label", label, self.labels, self.out, *more]

    def ok(self, *more, **options):
        return self.fkdb.json(*self.command(*more, **options))

    def fails(self, code, message, *more, **options):
        self.fkdb.fails(code, message, *self.command(*more, **options))
        assert not self.out.exists()

    def one_bad(self, code, key, reason):
        """It stops at one bad image, says so before it begins if asked, and converts the others if it may."""
        reason = reason.replace("FILE", str(self.file(key)))
        message = f"image '{key}': {reason}; --skip-bad converts the others"
        self.fails(code, message)
        dry = self.fkdb(*self.command("--dry-run", "--json"))
        assert dry.returncode == code and dry.stderr == f"fkdb-convert: {message}\n" and '"skipped":1,' in dry.stdout
        made = self.ok("--skip-bad", "--resume")
        assert made["skipped"] == made["refused_count"] == 1 and made["refused"] == [f"{key}: {reason}"]
        manifest = self.fkdb.json("dump", self.out)
        assert manifest["skipped"] == [sorted(self.sizes).index(key)]
        skipped = self.fkdb.json("dump", self.out, "--image", key)["skipped"]  # without the folders of this machine
        assert skipped == reason.replace(f"{self.labels}/", "")
        self.fkdb.ok("verify", self.out)


@pytest.fixture
def folder(fkdb, tmp_path):
    return Folder(fkdb, tmp_path)


def test_the_kind_must_be_said_where_the_files_do_not_tell(folder):
    command = folder.command()
    at = command.index("--label")
    folder.fkdb.fails(2, "the labels (K classes and their probabilities a crop, K = 5) are marginal-smoothing or marginal-renorm, and the files do not say which: "
                      "say --label", *command[:at], *command[at + 2:])
    folder.fails(2, "--label full: these labels hold K classes and their probabilities a crop, which makes marginal-smoothing or marginal-renorm", label="full")
    folder.fails(2, "--label: label kind 'marginal' is not known to this version of fkdb; it knows full, hard, smoothing, marginal-smoothing, marginal-renorm, logits, "
                 "label-map",
                 label="marginal")


@pytest.mark.parametrize("name", ["marginal-renorm", "marginal_renorm", "marginal_renorm_k5"])
def test_fkds_names_are_known(folder, name):
    """The generator says marginal_renorm_k5, the training code marginal_renorm."""
    assert folder.ok(label=name)["labels"]["kind"] == "marginal-renorm"


def test_another_k(folder):
    first = folder.file(min(KEYS))
    folder.fails(2, f"--top-k 10: the labels have 5 classes a crop ({first})", label="marginal_smoothing_k10")
    folder.fails(2, "--label marginal_smoothing_k10 and --top-k 5 contradict each other", "--top-k", 5, label="marginal_smoothing_k10")
    key = "n1/2.JPEG"
    folder.change(key, lambda coords, flip, label: [coords, flip, peer_labels.fkd_label(peer_labels.probabilities(np.random.default_rng(), 6, 12), "marginal_smoothing_k10")])
    folder.one_bad(7, key, "FILE: K classes and their probabilities a crop, K = 10: expected labels of kind marginal-smoothing, K = 5, as the others'")


def test_classes(folder):
    key = "n1/2.JPEG"

    def with_class(value):
        def change(coords, flip, label):
            label[3, 0, 1] = value
            return [coords, flip, label]
        return change

    for value, code, reason in ((1.5, 3, "label: 1.5 where a whole number belongs: expected classes"), (np.nan, 3, "label: nan where a whole number belongs: expected classes"),
                                (-1, 3, "label: class -1"), (12, 7, "class 12, expected below 12: --num-classes says how many there are")):
        folder.change(key, with_class(value))
        folder.one_bad(code, key, f"FILE: {reason}")
        folder.out.unlink()
    folder.change(key, lambda coords, flip, label: [coords, flip, np.concatenate([label[:, :1, :1].repeat(5, 2), label[:, 1:]], 1)])
    folder.one_bad(2, key, "crop 0: an index comes twice")


def test_classes_that_float16_cannot_tell_apart(fkdb, tmp_path):
    folder = Folder(fkdb, tmp_path, half=True)
    key = "n1/2.JPEG"

    def change(coords, flip, label):
        label[0, 0, 0] = 2049  # becomes 2048
        return [coords, flip, label]
    folder.change(key, change)
    folder.one_bad(4, key, "FILE: label: class 2048 as float16, which has no room for classes above 2048: it may be a neighbour. Make the labels again in float32")


def test_probabilities(folder):
    key = "n1/2.JPEG"
    folder.change(key, lambda coords, flip, label: [coords, flip, np.stack([label[:, 0], label[:, 1] / label[:, 1].sum(1, keepdims=True) * np.float32(1.01)], 1)])
    done = folder.fkdb(*folder.command())
    assert done.returncode == 2 and re.fullmatch(rf"fkdb-convert: image '{key}': crop 0: probabilities sum to 1\.0[01]\d*; --skip-bad converts the others\n", done.stderr)
    # A little above 1 is what float32 makes of it.
    folder.change(key, lambda coords, flip, label: [coords, flip, np.stack([label[:, 0], label[:, 1] / label[:, 1].sum(1, keepdims=True) * np.float32(1.00005)], 1)])
    assert folder.ok("--overwrite")["skipped"] == 0
    # In another order than the largest first: sorted, and told.
    folder.change(key, lambda coords, flip, label: [coords, flip, label[:, :, ::-1]])
    assert folder.ok("--overwrite")["sorted_crops"] == 6


def test_half_sums_above_one_go_into_f16_and_packed(fkdb, tmp_path):
    """Rounded to float16, the five may sum to more than 1: a quarter of a sure teacher's crops do."""
    folder = Folder(fkdb, tmp_path, half=True)

    def sure(coords, flip, label):
        label[:, 1] = np.float16([0.9697, 0.0302, 0.0004, 0.0002, 0.0001])
        return [coords, flip, label]
    for key in KEYS:
        folder.change(key, sure)
    assert float(np.float16([0.9697, 0.0302, 0.0004, 0.0002, 0.0001]).astype(np.float64).sum()) > 1.0001
    for encoding in ("f16", "packed"):
        folder.ok("--encoding", encoding, "--overwrite")
        dense = [crop["dense"] for crop in fkdb.json("dump", folder.out, "--image", KEYS[0], "--dense")["crops"]]
        assert np.allclose(np.sum(dense, 1), 1, atol=1e-5) and np.min(dense) >= 0


def test_crops(folder):
    key = "n1/2.JPEG"
    folder.change(key, lambda coords, flip, label: [coords[:4], flip[:4], label[:4]])
    made = folder.ok()
    assert made["crops"] == 6 * 7 + 4 and made["short_images"] == 1
    made = folder.ok("--crops", 4, "--overwrite")
    assert made["crops"] == 32 and made["dropped_crops"] == 14
    folder.out.unlink()
    folder.fails(7, f"image '{key}': {folder.file(key)}: 4 crops, 5 asked for; --crops takes fewer of every image; --skip-bad converts the others", "--crops", 5)
    folder.change(key, lambda coords, flip, label: [np.tile(coords, (2, 1)), np.tile(flip, 2), np.tile(label, (2, 1, 1))])
    # The first images tell how many there are: here 8 of 8 are looked at.
    assert folder.ok("--overwrite")["short_images"] == 7


def test_broken_files(folder):
    key = "n1/2.JPEG"
    path, whole = folder.file(key), folder.file(key).read_bytes()
    path.write_bytes(whole[:len(whole) // 2])
    folder.one_bad(3, key, "FILE: zip archive: Not a zip archive (cut off?)")
    folder.out.unlink()
    path.write_bytes(b"")
    folder.one_bad(3, key, "FILE: zip archive: it does not begin like one")
    folder.out.unlink()
    at = whole.index(b"ndarray")
    path.write_bytes(whole[:at] + b"N" + whole[at + 1:])
    folder.one_bad(3, key, f"FILE: zip archive: member '{path.stem}/data.pkl': CRC error")
    folder.out.unlink()
    torch.save([1, 2], path)
    folder.one_bad(3, key, "FILE: expected a list of three arrays, coords, flip and label; got a list of 2: the number 1, the number 2")
    folder.out.unlink()
    torch.save(folder.states[key], path, _use_new_zipfile_serialization=False)
    folder.one_bad(4, key, "FILE: torch.save's format before PyTorch 1.6: load it with PyTorch and save it again")


def test_images_and_labels_that_lack_each_other(folder):
    lost = "n0/1.JPEG"
    path = folder.file(lost)
    path.rename(path.with_name("elsewhere.tar"))
    folder.fails(7, f"1 of 8 images have no labels: '{lost}'; and 1 labels have no image: train/n0/elsewhere.tar; --skip-bad converts the others")
    made = folder.ok("--skip-bad")
    assert made["refused"] == [f"{lost}: no label file: expected '{path}'"] and made["strays"] == ["train/n0/elsewhere.tar"]
    folder.out.unlink()
    folder.fkdb.fails(1, f"{folder.images}: no label file of the images below it: looked for 'data/train/n0/0.tar', 'train/n0/0.tar', 'n0/0.tar'; SRC is the folder above such files", *[folder.images if a == folder.labels else a for a in folder.command()])


def test_an_image_that_cannot_be_read(folder):
    key = "n1/2.JPEG"
    (folder.images / key).write_bytes(b"no picture")
    done = folder.fkdb(*folder.command())
    assert done.returncode != 0 and key in done.stderr
    assert folder.ok("--skip-bad", "--resume")["refused_count"] == 1


def test_an_image_that_was_resized_since(folder):
    key = "n1/2.JPEG"
    peer_labels.images(folder.images, [key], sizes={key: (folder.sizes[key][0] + 7, folder.sizes[key][1] + 3)})
    done = folder.fkdb(*folder.command())
    assert done.returncode == 7 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"fkdb-convert: image '{key}': {folder.file(key)}: crop ") and "Is it the image that was labelled?" in done.stderr


def test_boxes_that_are_no_whole_pixels(fkdb, tmp_path):
    """Found behind the images that were looked at first: says what there is to choose, and resumes."""
    keys = [f"n0/{i:03}.JPEG" for i in range(70)]
    folder = Folder(fkdb, tmp_path, keys, sizes=dict.fromkeys(keys, (40, 50)))
    key = "n0/069.JPEG"
    folder.change(key, lambda coords, flip, label: [np.full_like(coords, 0.123), flip, label])
    done = folder.fkdb(*folder.command())
    assert done.returncode == 7 and done.stderr == (
        f"fkdb-convert: image '{key}': {folder.file(key)}: crop 0: box [0.123, 0.123, 0.123, 0.123] is not one of whole pixels in an image of 50 x 40. Is it the image that was "
        "labelled? If so: --boxes pixel takes the pixels that training code shows for it, --boxes fraction-f32 keeps fractions; --skip-bad converts the others\n")
    made = folder.ok("--boxes", "pixel", "--resume")
    assert made["rounded_boxes"] == 6 and made["images_read"] < 70
    assert fkdb.json("dump", folder.out, "--image", key)["crops"][0]["box"] == [5, 6, 5, 6]
    folder.change(key, lambda coords, flip, label: [coords + 1, flip, label])
    folder.out.unlink()
    done = folder.fkdb(*folder.command("--boxes", "pixel"))
    assert done.returncode == 3 and "is not inside the image; --skip-bad" in done.stderr


def test_half_boxes_of_large_images_stay_as_they_are(fkdb, tmp_path):
    """At 4000 x 3000 float16 does not tell pixels apart: fractions, and every bit comes back."""
    keys = ["n0/a.JPEG", "n0/b.JPEG"]
    folder = Folder(fkdb, tmp_path, keys, sizes=dict.fromkeys(keys, (3000, 4000)), half=True, crops=50)
    made = folder.ok()
    assert made["labels"]["boxes"] == "fraction-f16" and made["labels"]["values"] == "f16"
    fkdb.ok("convert", "--to", "fkd", folder.out, tmp_path / "out")
    for key, state in folder.states.items():
        back = torch.load(tmp_path / "out/train" / peer_labels.fkd_name(key), weights_only=False)
        assert all(a.dtype == b.dtype and a.tobytes() == b.tobytes() for a, b in zip(back, state, strict=True))


def test_names_with_dots(fkdb, tmp_path):
    """A file is named by what stands before the first dot of the image's name."""
    folder = Folder(fkdb, tmp_path, ["n0/a.b.JPEG", "n0/c.JPEG", "n.1/d.JPEG"])
    assert (folder.labels / "train/n0/a.tar").exists() and (folder.labels / "train/n.1/d.tar").exists()
    assert folder.ok()["crops"] == 18
    fkdb.fails(7, f"{folder.out}: image 'n.1/d.JPEG': there is a dot in a folder of its label file 'train/n.1/d.tar': FKD's training code would look for 'train/n.tar'",
               "convert", "--to", "fkd", folder.out, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_names_that_share_a_file(fkdb, tmp_path):
    folder = Folder(fkdb, tmp_path, ["n0/a.1.JPEG", "n0/a.2.JPEG", "n0/b.JPEG"])
    reason = f"other images have the same name up to its first dot: whose labels '{folder.labels}/train/n0/a.tar' holds cannot be told"
    folder.fails(7, f"image 'n0/a.1.JPEG': {reason}; --skip-bad converts the others")
    made = folder.ok("--skip-bad", "--resume")
    assert made["refused"] == [f"n0/a.1.JPEG: {reason}", f"n0/a.2.JPEG: {reason}"] and made["crops"] == 6
    fkdb.fails(7, f"{folder.out}: images 'n0/a.1.JPEG' and 'n0/a.2.JPEG' would share the label file 'train/n0/a.tar': FKD's code names it by the last two folders and "
               "what stands before the first dot; leave one out (fkdb-subset)", "convert", "--to", "fkd", folder.out, tmp_path / "out")


def test_where_the_labels_are_filed(fkdb, tmp_path):
    """The generator files below three folders of the image's path, the training code looks below two; or below none."""
    folder = Folder(fkdb, tmp_path)
    digest = folder.ok()["digest"]
    for n, place in enumerate(("data/train", "")):
        target = tmp_path / f"moved{n}" / place
        target.parent.mkdir(parents=True, exist_ok=True)
        (folder.labels / "train").rename(target)
        command = [tmp_path / f"moved{n}" if a == folder.labels else a for a in folder.command("--overwrite")]
        assert fkdb.json(*command)["digest"] == digest
        target.rename(folder.labels / "train")


def test_labels_of_nested_folders(fkdb, tmp_path):
    """The generator takes the last three folders of each image's own path."""
    folder = Folder(fkdb, tmp_path, ["a/b/1.JPEG", "c/2.JPEG"])
    target = folder.labels / "train/a/b/1.tar"
    other = folder.labels / "data/train/c/2.tar"
    other.parent.mkdir(parents=True)
    (folder.labels / "train/c/2.tar").rename(other)
    assert target.exists() and folder.ok()["stray_count"] == 0
    # Three folders down, two images may share what the training code looks at.
    keys = ["a/v/w/1.JPEG", "b/v/w/1.JPEG"]
    shutil.rmtree(tmp_path / "data")
    peer_labels.images(folder.images, keys)
    np.savez(tmp_path / "t.npz", key=np.array(keys), box=np.tile([0, 0, 9, 9], (2, 1)), flip=[False, True], indices=[[1], [2]])
    fkdb.ok("convert", "--from", "npz", "--images", folder.images, "--no-classes", "--num-classes", 3, tmp_path / "t.npz", tmp_path / "n.fkdb")
    done = fkdb("convert", "--to", "fkd", tmp_path / "n.fkdb", tmp_path / "out", "--overwrite")
    assert done.returncode == 7 and "would share the label file 'v/w/1.tar'" in done.stderr and not (tmp_path / "out").exists()


def test_dry_run_says_what_would_happen(folder):
    dry = folder.fkdb.json(*folder.command("--dry-run"))
    assert not folder.out.exists() and not list(folder.out.parent.glob("*.partial*"))
    made = folder.ok()
    folder.fkdb.fails(1, f"{folder.out}: it is there already: without --overwrite it would be refused", *folder.command("--dry-run"))
    same = ("images", "skipped", "crops", "labels", "refused", "strays", "rounded_boxes", "sorted_crops", "short_images")
    assert {name: dry[name] for name in same} == {name: made[name] for name in same} and dry["dry_run"]
    assert 0 < dry["record_bytes"] < made["file_bytes"]
    text = folder.fkdb.ok(*folder.command("--dry-run", "--overwrite"))
    assert text.startswith("would convert 8 images, 48 crops, into records of ") and "marginal-smoothing labels of 12 classes, K = 5, boxes pixel, values f32\n" in text


def test_a_conversion_that_was_interrupted_resumes_to_the_same_digest(fkdb, tmp_path):
    keys = [f"n{i % 7}/{i}.JPEG" for i in range(600)]
    folder = Folder(fkdb, tmp_path, keys, sizes=dict.fromkeys(keys, (24, 24)), crops=100)
    digest = folder.ok("--threads", 1)["digest"]
    folder.out.unlink()
    command = [BIN / "fkdb-convert", *map(str, folder.command("--commit-seconds", 0)[1:])]
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        running = subprocess.Popen([*command, "--resume", "--threads", "1"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        time.sleep(0.03)
        running.send_signal(number)
        said = running.communicate()[1]
        if number == signal.SIGINT and running.returncode == 6:
            assert re.fullmatch(r"fkdb-convert: stopped after \d+ of 600 images; the same command with --resume continues\n", said)
    if not folder.out.exists():
        assert folder.ok("--resume")["digest"] == digest
    assert fkdb.json("verify", folder.out)["digest"] == digest

def test_another_recipe_or_other_labels_do_not_continue_a_conversion(fkdb, tmp_path):
    keys = [f"n0/{i:03}.JPEG" for i in range(70)]
    folder = Folder(fkdb, tmp_path, keys, sizes=dict.fromkeys(keys, (24, 24)))
    last = folder.file("n0/069.JPEG")
    whole = last.read_bytes()
    last.write_bytes(whole[:99])
    assert fkdb(*folder.command()).returncode == 3 and folder.out.with_name("l.fkdb.partial").exists()
    last.write_bytes(whole)
    # Another recipe is refused by name.
    done = fkdb(*folder.command("--resume", "--encoding", "packed"))
    assert done.returncode == 2 and 'labels.values: "f32" in the file, "packed" asked for' in done.stderr
    other = Folder(fkdb, tmp_path / "other", keys, sizes=dict.fromkeys(keys, (24, 24)), seed=99)
    done = fkdb(*[other.labels if a == folder.labels else a for a in folder.command("--resume")])
    assert done.returncode == 2 and 'imported_sample: "' in done.stderr
    digest = folder.ok("--resume")["digest"]
    folder.out.unlink()
    assert folder.ok()["digest"] == digest
    # Nor an export.
    other.ok()
    fkdb.ok("convert", "--to", "fkd", folder.out, tmp_path / "out")
    fkdb.fails(7, f"{tmp_path}/out/train/n0/000.tar: it is there already, with other labels; --overwrite replaces it", "convert", "--to", "fkd", other.out, tmp_path / "out",
               "--resume", "--threads", 1)
    # What is wrong with the first labels is found before anything is written.
    folder.out.unlink()
    folder.file("n0/000.JPEG").write_bytes(whole[:99])
    assert fkdb(*folder.command()).returncode == 3 and not list(tmp_path.glob("l.fkdb*"))


def test_the_output_is_never_overwritten(folder, tmp_path):
    folder.ok()
    done = folder.fkdb(*folder.command())
    assert done.returncode == 1 and "--overwrite" in done.stderr
    out = tmp_path / "out"
    folder.fkdb.ok("convert", "--to", "fkd", folder.out, out)
    folder.fkdb.fails(1, f"{out}/train/n0/0.tar: it is there already; --resume keeps such files, --overwrite replaces them", "convert", "--to", "fkd", folder.out, out)
    (out / "train/n0/0.tar").unlink()
    assert folder.fkdb.json("convert", "--to", "fkd", folder.out, out, "--resume")["kept"] == 7
    assert folder.fkdb.json("convert", "--to", "fkd", folder.out, out, "--overwrite")["images"] == 8


def test_numbers_count_all_images_that_were_labelled(fkdb, tmp_path):
    """Also with --limit; and other images than those are refused."""
    images = tmp_path / "train"
    keys = [f"{c}/{i}.jpg" for c in ("cat", "cat-big", "dog") for i in range(3)]
    sizes = peer_labels.images(images, keys)
    order = peer_labels.folder_order(images)
    assert order != sorted(order)
    peer_labels.ml_dr(tmp_path / "labels", order, sizes, crops=3)
    command = ["convert", "--from", "ml-dr", "--images", images, "--no-classes", "--num-classes", 12, "--label", "marginal-smoothing", tmp_path / "labels"]
    fkdb.ok(*command, tmp_path / "all.fkdb")
    made = fkdb.json(*command, tmp_path / "few.fkdb", "--limit", 4)
    assert made["images"] == 4 and made["stray_count"] == 0
    for key in sorted(keys)[:4]:
        all_of_it, few = (fkdb.json("dump", tmp_path / f"{name}.fkdb", "--image", key) for name in ("all", "few"))
        assert all_of_it["crops"] == few["crops"]
    shutil.rmtree(images / "cat")
    done = fkdb(*command, tmp_path / "x.fkdb")
    assert done.returncode == 7 and "and 6 images: labels are numbered by the images that were labelled, all of them: are some missing?" in done.stderr
    torch.save(torch.arange(9)[None], tmp_path / "order.pt")
    (tmp_path / "sre2l/epoch_0").mkdir(parents=True)
    done = fkdb("convert", "--from", "sre2l", "--images", images, "--order", tmp_path / "order.pt", tmp_path / "sre2l", tmp_path / "x.fkdb")
    assert done.returncode == 7 and "image 6 of 6: they must be the images that were labelled, all of them" in done.stderr


def test_batches_that_are_odd(fkdb, tmp_path):
    images = tmp_path / "train"
    sizes = peer_labels.images(images, KEYS)
    rng = np.random.default_rng(4)
    (tmp_path / "order.json").write_text('{"0": [0, 1, 2, 3, 4, 5, 6, 7]}')

    def convert(change=lambda first, second: None, *more):
        """The first batch is not mixed, the second one is."""
        order = peer_labels.folder_order(images)
        first, _ = peer_labels.batch(rng, order[:4], sizes, False, torch.randn(4, 12), None, False)
        second, crops = peer_labels.batch(rng, order[4:], sizes, False, torch.randn(4, 12), "cutmix", False)
        change(first, second)
        peer_labels.write(first, tmp_path / "labels/epoch_0/batch_0.tar")
        peer_labels.write(second, tmp_path / "labels/epoch_0/batch_1.tar")
        return fkdb("convert", "--from", "sre2l", "--images", images, "--order", tmp_path / "order.json", "--no-classes", tmp_path / "labels", tmp_path / "l.fkdb", "--overwrite", *more), crops

    done, crops = convert()
    assert done.returncode == 0, done.stderr
    order = peer_labels.folder_order(images)
    dump = fkdb.json("dump", tmp_path / "l.fkdb", "--image", order[5])["crops"][0]
    assert [op["op"] for op in dump["ops"]] == ["partner-crop", "cutmix"] and list(dump["ops"][0].values())[1:] == crops[1]["ops"][0][2]
    assert fkdb.json("dump", tmp_path / "l.fkdb", "--image", order[0])["crops"][0]["ops"] == []

    def set_at(at, value):
        return lambda first, second: second.__setitem__(at, value)
    for change, message in ((set_at(2, torch.zeros(4)), "mix_index: an array f4 (4,), which cannot name 4 others"), (set_at(2, torch.tensor([0, 1, 2, 4])), "mix_index: 4 in a batch of 4"),
                            (set_at(4, [np.float64("nan")] * 4), "mix_bbox: a number that is not finite"), (set_at(0, torch.full((4, 4), torch.nan)), "its box is not inside the image"),
                            (set_at(1, torch.zeros(4, 7)), "cutout boxes in the place of flips"), (set_at(5, torch.zeros(4, 11)), "outputs of 11 numbers a crop, the first batch has 12")):
        done, _ = convert(change)
        assert done.returncode in (3, 4, 7) and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    done, _ = convert(set_at(4, torch.tensor([10, 20, 60, 90], dtype=torch.uint8)))
    assert done.returncode == 0
    (images / order[5]).write_bytes(b"no image")
    done, _ = convert(lambda first, second: None, "--skip-bad")
    assert done.returncode == 7 and f"image '{order[5]}' is mixed into others and cannot be read" in done.stderr


def test_parquet_columns_that_are_odd(fkdb, tmp_path):
    images = tmp_path / "train"
    peer_labels.images(images, KEYS)
    good = {"key": KEYS, "box": [[0, 0, 9, 9]] * 8, "flip": [True] * 8, "indices": [[1, 2]] * 8, "values": [[0.5, 0.25]] * 8}

    def convert(table, *more):
        pq.write_table(table, tmp_path / "t.parquet", **dict(more))
        return fkdb("convert", "--from", "parquet", "--images", images, "--no-classes", "--num-classes", 12, "--label", "marginal-smoothing", tmp_path / "t.parquet", tmp_path / "l.fkdb",
                    "--overwrite")

    for change, message in (({"flip": [[True]] * 8}, None), ({"flip": [[]] * 8}, "column 'flip': expected one bool a row"), ({"flip": ["true"] * 8}, "column 'flip': expected one bool a row"),
                            ({"flip": [[True, False]] * 8}, "column 'flip': expected one bool a row"), ({"indices": [[1.0, 2.0]] * 8}, "column 'indices': expected integers"),
                            ({"values": [[1, 0]] * 8}, "column 'values': expected floats"), ({"box": [[0, 0, 9]] * 8}, "column 'box': 3 numbers a row, expected 4"),
                            ({"values": [[0.5, 0.25]] * 7 + [[0.5]]}, "column 'values': 1 numbers in row 7, 2 in the first"), ({"box": [[0.0, 0.0, 9.0, 9.0]] * 8}, "pixels are whole numbers"),
                            ({"key": [None] + KEYS[1:]}, "column 'key': 1 rows have none"), ({"key": list(range(8))}, "column 'key'")):
        done = convert(pa.table({**good, **change}))
        assert (done.returncode == 0) == (message is None) and (message or "") in done.stderr and done.stderr.count("\n") <= 1, done.stderr
    twice = pa.Table.from_arrays([pa.array(good[n]) for n in (*good, "indices")], names=[*good, "indices"])
    done = convert(twice)
    assert done.returncode == 3 and "two columns 'indices'" in done.stderr
    # Row groups without rows; and text of other types.
    empty = pa.table(good).slice(0, 0)
    with pq.ParquetWriter(tmp_path / "g.parquet", empty.schema) as writer:
        for part in (empty, pa.table(good), empty):
            writer.write_table(part)
    (tmp_path / "t.parquet").unlink()
    assert fkdb("convert", "--from", "parquet", "--images", images, "--no-classes", "--num-classes", 12, "--label", "marginal-smoothing", tmp_path / "g.parquet", tmp_path / "l.fkdb",
                "--overwrite").returncode == 0
    for keys in (pa.array(KEYS, pa.large_string()), pa.array(KEYS).dictionary_encode(), pa.array([k.encode() for k in KEYS])):
        assert convert(pa.table({**good, "key": keys})).returncode == 0


def test_names_that_are_no_text(fkdb, tmp_path):
    keys = [os.fsdecode(b"n0/\xff\xfe.JPEG"), "n0/\u00fc.JPEG"]
    folder = Folder(fkdb, tmp_path, keys, numpy_1=False)
    stray = folder.labels / "train/n0" / os.fsdecode(b"\xfd.tar")
    stray.write_bytes(b"")
    made = subprocess.run([BIN / "fkdb-convert", *map(str, folder.command("--json")[1:])], capture_output=True)
    assert made.returncode == 0 and json.loads(made.stdout)["stray_count"] == 1
    for form in ("fkd", "npz", "parquet"):
        out = subprocess.run([BIN / "fkdb-convert", "--to", form, folder.out, tmp_path / f"out-{form}"], capture_output=True)
        assert out.returncode == 0, out.stderr
    for key, state in folder.states.items():
        back = torch.load(tmp_path / "out-fkd/train" / peer_labels.fkd_name(key), weights_only=False)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(back, state, strict=True))
    digest = fkdb.json("verify", folder.out)["digest"]
    for form in ("npz", "parquet"):
        again = subprocess.run([BIN / "fkdb-convert", "--from", form, "--images", folder.images, "--no-classes", "--num-classes", "12", "--label", "marginal-smoothing", "--json",
                                tmp_path / f"out-{form}", tmp_path / f"{form}.fkdb"], capture_output=True)
        assert again.returncode == 0 and json.loads(again.stdout)["digest"] == digest, again.stderr
    os.mkfifo(folder.labels / "train/n0/pipe.tar")  # a stray that nobody reads
    stray.unlink()
    folder.file(keys[1]).unlink()
    os.mkfifo(folder.file(keys[1]))
    done = fkdb(*folder.command("--overwrite"))
    assert done.returncode == 1 and "it is no file; --skip-bad" in done.stderr


def test_half_and_other_files_in_one_set(fkdb, tmp_path):
    """The first 32 tell; what they did not tell is refused, not rounded."""
    keys = [f"n0/{i:03}.JPEG" for i in range(70)]
    folder = Folder(fkdb, tmp_path, keys, sizes=dict.fromkeys(keys, (24, 24)), half=True)
    last = "n0/069.JPEG"
    folder.change(last, lambda coords, flip, label: [coords, flip, label.astype(np.float32)])
    done = fkdb(*folder.command())
    assert done.returncode == 7 and "its values are no float16, the first images' are; --encoding f32 keeps them all" in done.stderr
    assert folder.ok("--encoding", "f16", "--resume")["images"] == 70


def test_an_export_can_be_tried(folder, tmp_path):
    folder.ok()
    for form in ("fkd", "npz", "parquet"):
        text = folder.fkdb.ok("convert", "--to", form, "--dry-run", folder.out, tmp_path / f"out-{form}")
        assert text == "would write 8 images, 48 crops; nothing is written\n" and not (tmp_path / f"out-{form}").exists()
    for option in (["--limit", 3], ["--crops", 2], ["--label", "hard"], ["--encoding", "packed"], ["--skip-bad"], ["--input-size", 32]):
        done = folder.fkdb("convert", "--to", "fkd", *option, folder.out, tmp_path / "x")
        assert done.returncode == 2 and option[0] in done.stderr and "--to" in done.stderr and done.stderr.count("\n") == 1


def test_what_has_no_form_in_fkds_files(fkdb, tmp_path):
    folder = tmp_path / "train"
    sizes = peer_labels.images(folder, KEYS)
    order = peer_labels.folder_order(folder)
    peer_labels.ml_dr(tmp_path / "labels", order, sizes)
    fkdb.ok("convert", "--from", "ml-dr", "--images", folder, "--no-classes", "--num-classes", 12, "--label", "marginal-smoothing", tmp_path / "labels", tmp_path / "l.fkdb")
    for form, what in (("fkd", "which has no place in FKD's files"), ("npz", "for which the table has no column")):
        done = fkdb("convert", "--to", form, tmp_path / "l.fkdb", tmp_path / "out")
        assert done.returncode == 4 and done.stderr.startswith(f"fkdb-convert: {tmp_path}/l.fkdb: image 'n0/0.JPEG': its crops have augmentation besides crop and flip, {what}")
        assert not list((tmp_path).glob("out*.partial")) and not (tmp_path / "out").is_file()


def test_usage(fkdb, tmp_path):
    fkdb.fails(2, "--from or --to is missing: which system's label set is it? (see --help)", "convert", tmp_path, tmp_path / "l.fkdb")
    fkdb.fails(2, "--from needs --images, the images that the labels are of", "convert", "--from", "fkd", tmp_path, tmp_path / "l.fkdb")
    peer_labels.images(tmp_path / "train", KEYS)
    fkdb.fails(2, "OUT is missing: the label set to write, NAME.fkdb", "convert", "--from", "fkd", "--images", tmp_path / "train", tmp_path)
    fkdb.fails(1, f"{tmp_path}/none: no such folder of labels", "convert", "--from", "fkd", "--images", tmp_path / "train", tmp_path / "none", tmp_path / "l.fkdb")
    fkdb.fails(1, f"{tmp_path}: no 'config.pth.tar' in it, which says what the labels' parameters are", "convert", "--from", "ml-dr", "--images", tmp_path / "train", tmp_path, tmp_path / "l.fkdb")
    fkdb.fails(1, f"{tmp_path}: no folder 'logits_topK_epochE' in it", "convert", "--from", "tinyvit", "--images", tmp_path / "train", tmp_path, tmp_path / "l.fkdb")
    fkdb.fails(1, f"{tmp_path}/sampler_indices_dict.pt: cannot open it: No such file or directory", "convert", "--from", "hald", "--images", tmp_path / "train", tmp_path,
               tmp_path / "l.fkdb")
