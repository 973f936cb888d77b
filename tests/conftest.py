# SPDX-License-Identifier: Apache-2.0
"""Runs fkdb's programs as a user does. FKDB_BIN names the folder they were built into."""

import gzip
import json
import os
import pathlib
import subprocess

import pytest

BIN = pathlib.Path(os.environ["FKDB_BIN"]).absolute()
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
TRAIN = FASHION / "train-images-idx3-ubyte.gz"
TEST = FASHION / "t10k-images-idx3-ubyte.gz"
# As messages and help list them.
MODELS = ("resnet18, resnet34, resnet50, resnet101, tf_mobilenetv3_small_075, tf_mobilenetv3_small_100, "
          "resnet6-wN (N channels in its first layer, 1 to 1024)")


class Fkdb:
    """fkdb("dump", DB, "--json") runs fkdb-dump and returns what it did."""

    def __call__(self, tool, *arguments, **options):
        return subprocess.run([BIN / f"fkdb-{tool}", *map(str, arguments)], capture_output=True, text=True,
                              timeout=600, **options)

    def ok(self, tool, *arguments):
        done = self(tool, *arguments)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def json(self, tool, *arguments):
        return [json.loads(line) for line in self.ok(tool, *arguments, "--json").splitlines()][-1]

    def passes(self, tool, *arguments):
        """What fkdb-train says of each pass."""
        return [said for line in self.ok(tool, *arguments, "--json").splitlines() if "pass" in (said := json.loads(line))]

    def fails(self, code, message, tool, *arguments):
        """Exactly this exit code, and exactly this one line."""
        done = self(tool, *arguments)
        assert done.stderr.count("\n") == 1, done.stderr
        assert done.stderr == f"fkdb-{tool}: {message}\n"
        assert done.returncode == code


@pytest.fixture(scope="session")
def fkdb():
    return Fkdb()


@pytest.fixture(scope="session")
def fkdb_program(fkdb):
    """The same, for tests that import the package fkdb."""
    return fkdb


@pytest.fixture(scope="session")
def teacher(tmp_path_factory, fkdb):
    """A small teacher for Fashion-MNIST, trained for a moment: MODEL:WEIGHTS."""
    out = tmp_path_factory.mktemp("teacher")
    fkdb.ok("train", "--images", TRAIN, "--limit", 2000, "--model", "resnet6-w4", "--epochs", 2, "--batch-size", 64,
            "--out", out / "run")
    return f"resnet6-w4:{out}/run/weights.safetensors"


@pytest.fixture(scope="session")
def labels(tmp_path_factory, fkdb, teacher):
    """A label set of 500 Fashion-MNIST images, 4 crops each."""
    path = tmp_path_factory.mktemp("labels") / "labels.fkdb"
    fkdb.ok("write", "--images", TRAIN, "--limit", 500, "--teacher", teacher, "--crops", 4, "--out", path)
    return path


@pytest.fixture(scope="session")
def label_maps(tmp_path_factory, fkdb):
    """300 Fashion-MNIST images as PNG files and label maps of them, 4 x 5 cells that are rather sure of the image's class: (folder, label set)."""
    import numpy as np
    import torch
    from PIL import Image
    top = tmp_path_factory.mktemp("label-maps")
    with gzip.open(TRAIN) as images, gzip.open(FASHION / "train-labels-idx1-ubyte.gz") as classes:
        pixels = np.frombuffer(images.read(16 + 300 * 784)[16:], np.uint8).reshape(300, 28, 28)
        of = classes.read(8 + 300)[8:]
    rng = np.random.default_rng(1)
    for i in range(300):
        for folder in ("images", "maps"):
            (top / folder / str(of[i])).mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[i]).save(top / f"images/{of[i]}/{i:03}.png")
        scores = rng.normal(0, 1, (10, 4, 5)).astype(np.float32)
        scores[of[i]] += 6
        best = torch.topk(torch.from_numpy(scores), 3, 0)
        torch.save(torch.stack([best.values, best.indices.float()]).half(), top / f"maps/{of[i]}/{i:03}.pt")
    fkdb.ok("convert", "--from", "relabel", "--images", top / "images", top / "maps", top / "maps.fkdb", "--input-size", 28)
    return top / "images", top / "maps.fkdb"
