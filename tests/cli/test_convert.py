# SPDX-License-Identifier: Apache-2.0
"""fkdb-convert: label sets in other systems' forms, in and out."""

import pathlib
import pickletools
import struct
import zipfile

import numpy as np
import peer_labels
import pytest
import torch

KEYS = [f"n{c}/{c}_{i}.{e}" for c in range(3) for i, e in enumerate(("JPEG", "jpg", "png"))]
KINDS = ["hard", "smoothing", "marginal_smoothing_k5", "marginal_smoothing_k10", "marginal_renorm_k5", "ori"]
OURS = {"hard": "hard", "smoothing": "smoothing", "ori": "full", "marginal_renorm_k5": "marginal-renorm"}


def flags(kind):
    return [] if kind in ("hard", "smoothing", "ori") else ["--label", OURS.get(kind, "marginal-smoothing")]


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "data/train"
    return folder, peer_labels.images(folder, KEYS)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def load(path):
    return torch.load(path, map_location="cpu", weights_only=False)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_fkd_in_and_out_gives_every_bit_back(fkdb, train, tmp_path, kind, half):
    folder, sizes = train
    labels = peer_labels.fkd(tmp_path / "labels", sizes, kind, half=half)
    convert = ["convert", "--from", "fkd", "--images", folder, "--num-classes", 12, "--no-classes", *flags(kind), tmp_path / "labels"]
    made = fkdb.json(*convert, tmp_path / "l.fkdb")
    assert (made["images"], made["crops"], made["skipped"]) == (9, 54, 0)
    assert made["labels"]["kind"] == OURS.get(kind, "marginal-smoothing")
    assert made["labels"]["boxes"] == "pixel" and made["labels"]["values"] == ("f16" if half else "f32")
    assert made["refused_count"] == made["stray_count"] == made["rounded_boxes"] == made["sorted_crops"] == 0
    assert fkdb.json("verify", tmp_path / "l.fkdb")["ok"]
    # What fkdb-dump says is what the file says.
    key = "n1/1_0.JPEG"
    image = fkdb.json("dump", tmp_path / "l.fkdb", "--image", key)
    coords, flip, label = labels[key]
    height, width = sizes[key]
    for crop, c, f in zip(image["crops"], coords, flip):
        top, left, h, w = np.asarray(c, np.float64) * [height, width, height, width]
        assert crop["box"] == [round(top), round(left), round(top + h) - round(top), round(left + w) - round(left)] and crop["flip"] == f
    if kind.startswith("marginal"):
        assert [c["indices"] for c in image["crops"]] == label[:, 0].astype(int).tolist()
        assert np.array_equal(np.array([c["values"] for c in image["crops"]], label.dtype), label[:, 1])
    out = fkdb.json("convert", "--to", "fkd", tmp_path / "l.fkdb", tmp_path / "out")
    assert (out["images"], out["crops"]) == (9, 54)
    for key, state in labels.items():
        back = load(tmp_path / "out/train" / peer_labels.fkd_name(key))
        assert isinstance(back, list) and all(same(a, b) for a, b in zip(back, state, strict=True)), key
    # And again: the same label set.
    again = fkdb.json(*convert[:-1], tmp_path / "out", tmp_path / "again.fkdb")
    assert again["digest"] == made["digest"]


@pytest.mark.parametrize("numpy_1", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("tensors", [False, True])
def test_fkd_however_it_was_saved(fkdb, train, tmp_path, tensors, protocol, numpy_1):
    folder, sizes = train
    digests = set()
    for name, options in (("plain", {}), ("other", {"tensors": tensors, "protocol": protocol, "numpy_1": numpy_1})):
        peer_labels.fkd(tmp_path / name, sizes, **options)
        digests.add(fkdb.json("convert", "--from", "fkd", "--images", folder, "--no-classes", "--num-classes", 12, "--label", "marginal_smoothing_k5",
                              tmp_path / name, tmp_path / f"{name}.fkdb")["digest"])
    assert len(digests) == 1


def test_the_exported_file_is_laid_out_as_the_generators(fkdb, train, tmp_path):
    """The same instructions as Python's pickler writes, memo numbers and all."""
    folder, sizes = train
    peer_labels.fkd(tmp_path / "labels", sizes)
    fkdb.ok("convert", "--from", "fkd", "--images", folder, "--no-classes", "--num-classes", 12, "--label", "marginal-smoothing", tmp_path / "labels",
            tmp_path / "l.fkdb")
    fkdb.ok("convert", "--to", "fkd", tmp_path / "l.fkdb", tmp_path / "out")

    def instructions(path):
        with zipfile.ZipFile(path) as archive:
            assert {m.compress_type for m in archive.infolist()} == {zipfile.ZIP_STORED} and archive.testzip() is None
            assert {"version", "data.pkl"} <= {name.split("/")[1] for name in archive.namelist()} and archive.namelist()[0] == f"{path.stem}/data.pkl"
            return [(op.name, arg) for op, arg, _ in pickletools.genops(archive.read(f"{path.stem}/data.pkl")) if op.name not in ("BINPUT", "BINGET", "LONG_BINPUT")]

    name = "train/n0/0_0.tar"
    ours, theirs = instructions(tmp_path / "out" / name), instructions(tmp_path / "labels" / name)
    assert [i for i in ours if i[0] not in ("GLOBAL", "BINUNICODE")][:12] == [i for i in theirs if i[0] not in ("GLOBAL", "BINUNICODE")][:12]
    assert [arg for op, arg in ours if op == "BINUNICODE" and len(arg) > 20] == [arg for op, arg in theirs if op == "BINUNICODE" and len(arg) > 20]
    assert struct.unpack("<I", (tmp_path / "out" / name).read_bytes()[:4])[0] == 0x04034B50
