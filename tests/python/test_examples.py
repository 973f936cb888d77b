# SPDX-License-Identifier: Apache-2.0
"""The examples and the README's code, run as a reader would, on Fashion-MNIST as a folder of files."""

import difflib
import gzip
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
import torchvision
from conftest import FASHION
from PIL import Image

import fkdb

TREE = pathlib.Path(__file__).resolve().parents[2]
EXAMPLES = TREE / "python/examples"
TRAIN, HELD_OUT, SIZE = 600, 500, 28


def fashion(name, count):
    with gzip.open(FASHION / f"{name}-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read()[16:16 + count * 784], np.uint8).reshape(count, 28, 28)
    with gzip.open(FASHION / f"{name}-labels-idx1-ubyte.gz") as file:
        return images, np.frombuffer(file.read()[8:8 + count], np.uint8)


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fashion") / "train"
    for i, (pixels, number) in enumerate(zip(*fashion("train", TRAIN))):
        (folder / f"class{number}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).convert("RGB").save(folder / f"class{number}/{i:04}.png")
    return folder


def run(script, *arguments):
    done = subprocess.run([sys.executable, EXAMPLES / script, *map(str, arguments)], capture_output=True, text=True, timeout=500,
                          env={**os.environ, "OMP_NUM_THREADS": "1"})  # other tests run beside
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def top1(weights, model):
    pixels, classes = fashion("t10k", HELD_OUT)
    model.load_state_dict(torch.load(weights, weights_only=True))
    inputs = torch.from_numpy(np.repeat(pixels[:, None], 3, 1)).float() / 255
    inputs = (inputs - torch.tensor([0.485, 0.456, 0.406]).view(3, 1, 1)) / torch.tensor([0.229, 0.224, 0.225]).view(3, 1, 1)
    with torch.inference_mode():
        return (model.eval()(inputs).argmax(1).numpy() == classes).mean()


OPTIONS = ("--input-size", SIZE, "--batch-size", 64, "--workers", 2, "--lr", 0.02)


@pytest.fixture(scope="module")
def teacher(train, tmp_path_factory):
    weights = tmp_path_factory.mktemp("teacher") / "teacher.pt"
    losses = [float(line.split()[-1]) for line in run("train.py", train, weights, "--epochs", 6, *OPTIONS).splitlines()]
    assert len(losses) == 6 and losses[-1] < losses[0]
    return weights


@pytest.fixture(scope="module")
def labels(train, teacher, tmp_path_factory):
    path = tmp_path_factory.mktemp("labels") / "labels.fkdb"
    arguments = ("--model", "resnet18", "--weights", teacher, "--crops", 8, "--input-size", SIZE)
    assert re.fullmatch(rf"{path}: 4800 crops, sha256:[0-9a-f]{{64}}\n", run("label.py", train, path, *arguments))
    return path


def test_torchvision(train, labels, tmp_path):
    out = run("train_fkd.py", train, labels, tmp_path / "student.pt", "--epochs", 16, *OPTIONS)
    assert [line.split(":")[0] for line in out.splitlines()] == ["epoch 0", "epoch 4", "epoch 8", "epoch 12"]
    accuracy = top1(tmp_path / "student.pt", torchvision.models.resnet18(num_classes=10))
    print(f"student: {accuracy:.3f}")
    assert accuracy > 0.3  # chance: 0.1


def test_timm(train, labels, tmp_path):
    import timm
    run("train_timm.py", train, tmp_path / "plain.pt", "--epochs", 1, *OPTIONS)
    run("train_timm_fkd.py", train, labels, tmp_path / "student.pt", "--epochs", 16, *OPTIONS)
    accuracy = top1(tmp_path / "student.pt", timm.create_model("resnet18", num_classes=10))
    print(f"student: {accuracy:.3f}")
    assert accuracy > 0.3


def test_a_timm_teacher_and_resume(train, labels, tmp_path):
    import timm
    torch.manual_seed(0)
    model = timm.create_model("mobilenetv3_small_050", num_classes=10)
    torch.save(model.state_dict(), tmp_path / "weights.pt")
    arguments = ("--model", "timm:mobilenetv3_small_050", "--weights", tmp_path / "weights.pt", "--crops", 2, "--input-size", 32)
    run("label.py", train, tmp_path / "whole.fkdb", *arguments)
    begun = subprocess.Popen([sys.executable, EXAMPLES / "label.py", train, tmp_path / "killed.fkdb", *map(str, arguments)],
                             stdout=subprocess.DEVNULL)
    partial = tmp_path / "killed.fkdb.partial"
    while not partial.exists() and begun.poll() is None:
        pass
    begun.kill()
    begun.wait()
    run("label.py", train, tmp_path / "killed.fkdb", *arguments)
    whole, killed = fkdb.open(tmp_path / "whole.fkdb"), fkdb.open(tmp_path / "killed.fkdb")
    assert whole.digest == killed.digest != fkdb.open(labels).digest
    assert whole.manifest["teachers"] == [{"name": "timm:mobilenetv3_small_050", "sha256": fkdb.state_dict_sha256(model)}]
    assert whole.manifest["data_set"]["class_names"] == [f"class{i}" for i in range(10)]


@pytest.mark.parametrize("before, after", [("train.py", "train_fkd.py"), ("train_timm.py", "train_timm_fkd.py")])
def test_ten_lines_change_a_script(before, after):
    """And python/README.md shows which."""
    a, b = ((EXAMPLES / name).read_text().splitlines() for name in (before, after))
    diff = [line for line in difflib.unified_diff(a, b, lineterm="", n=0) if not line.startswith(("---", "+++", "@@"))]
    diff = [line for line in diff if '"""' not in line]  # what they are
    assert sum(line.startswith("+") for line in diff) <= 10
    assert "\n".join(diff) in (TREE / "python/README.md").read_text()


def blocks(readme):
    return re.findall(r"^```python\n(.*?)^```", (TREE / readme).read_text(), re.M | re.S)


@pytest.mark.parametrize("readme", ["README.md", "python/README.md"])
def test_the_readmes_code_runs(readme, tmp_path):
    """In a folder with train/, of photos under ImageNet's names."""
    rng = np.random.default_rng(0)
    (tmp_path / "train/n01440764").mkdir(parents=True)
    for name in ("x", "y", "z"):
        Image.fromarray(rng.integers(0, 256, (90, 120, 3), np.uint8)).save(tmp_path / f"train/n01440764/{name}.JPEG")
    keys = [f"n01440764/{name}.JPEG" for name in "xyz"]
    found = blocks(readme)
    assert found
    code = "\n".join(found)
    if "fkdb.Writer(" not in code:  # it reads a label set that is there
        with fkdb.Writer(tmp_path / "labels.fkdb", fkdb.LabelSpec(num_classes=1000), keys, crops=8) as writer:
            for key in writer.todo():
                boxes, flips = writer.sample(key, 120, 90)
                writer.append(key, (120, 90), boxes, flips, logits=rng.standard_normal((8, 1000)))
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, env={**os.environ, "OMP_NUM_THREADS": "2"})
    assert done.returncode == 0, done.stderr[-2000:]
