# SPDX-License-Identifier: Apache-2.0
"""The scripts in writer/README.md make teachers that label as their models do. Random weights: there is no network here."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

ROOT = Path(__file__).resolve().parents[2]
PHOTOS = Path("/usr/share/backgrounds/mate/nature")
SCRIPTS = re.findall(r"```python\n(.*?)```", (ROOT / "writer/README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize(("package", "file"), [("timm", "teacher.pt"), ("torchvision", "teacher.pt"), ("timm", "teacher.pt2")])
def test_a_script_makes_a_teacher_that_labels_as_the_model_does(package, file, fkdb, tmp_path):
    script = next(s for s in SCRIPTS if f"import {package}\n" in s and f'"{file}"' in s)
    changed = script.replace("pretrained=True", "pretrained=False").replace("weights=weights", "weights=None")
    changed = changed.replace("create_model(\"resnet50\"", "create_model(\"resnet18\"").replace("models.resnet50(", "models.resnet18(")  # quicker
    assert changed != script
    run = "import torch\ntorch.manual_seed(1)\n" + changed + "torch.save(model, 'model.pt')\n"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", run], cwd=tmp_path, capture_output=True, text=True, check=False,
                          env=os.environ | {"HF_HUB_OFFLINE": "1"})
    assert done.returncode == 0, done.stderr
    card = json.loads((tmp_path / f"{file}.json").read_text())
    assert set(card) == {"input_size", "interpolation", "mean", "std"}

    made = ["--images", PHOTOS, "--limit", 1, "--teacher", tmp_path / file, "--crops", 4, "--batch-size", 16, "--label", "logits",
            "--encoding", "f32"]
    fkdb.ok("write", *made, "--out", tmp_path / "labels.fkdb")
    image = json.loads(fkdb.ok("dump", tmp_path / "labels.fkdb", "--ordinal", 0, "--json"))
    photo = Image.open(PHOTOS / image["key"]).convert("RGB")
    size = card["input_size"] if isinstance(card["input_size"], int) else card["input_size"][1]
    inputs = []
    for crop in image["crops"]:
        top, left, height, width = crop["box"]
        pixels = F.resized_crop(photo, top, left, height, width, [size, size], InterpolationMode(card["interpolation"]))
        inputs.append(F.normalize(F.to_tensor(F.hflip(pixels) if crop["flip"] else pixels), card["mean"], card["std"]))
    with torch.inference_mode():
        z = torch.load(tmp_path / "model.pt", weights_only=False)(torch.stack(inputs))
    stored = torch.tensor([c["values"] for c in image["crops"]])
    assert (z - stored).abs().max() < 1e-4 * z.abs().max()


def test_the_script_for_label_maps_gives_the_models_logits_at_every_place(fkdb, tmp_path):
    script = next(s for s in SCRIPTS if '"maps.pt"' in s)
    changed = script.replace("weights=weights", "weights=None").replace("models.resnet50(", "models.resnet18(").replace("480", "96")
    run = "import torch\ntorch.manual_seed(1)\n" + changed + "torch.save(model, 'model.pt')\n"
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", run], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    fkdb.ok("write", "--images", PHOTOS, "--limit", 1, "--teacher", tmp_path / "maps.pt", "--label", "label-map", "--batch-size", 16, "--top-k", 1000,
            "--encoding", "f32", "--out", tmp_path / "maps.fkdb")
    image = fkdb.json("dump", tmp_path / "maps.fkdb", "--ordinal", 0)
    assert len(image["crops"]) == 9
    card = json.loads((tmp_path / "maps.pt.json").read_text())
    photo = F.resize(Image.open(PHOTOS / image["key"]).convert("RGB"), [96, 96], InterpolationMode(card["interpolation"]))
    with torch.inference_mode():
        z = torch.load(tmp_path / "model.pt", weights_only=False)(F.normalize(F.to_tensor(photo), card["mean"], card["std"])[None])[0]
    mean = torch.stack([torch.zeros(1000).scatter_(0, torch.tensor(c["indices"]), torch.tensor(c["values"])) for c in image["crops"]]).mean(0)
    assert (z - mean).abs().max() < 1e-4 * z.abs().max()


def test_every_flag_in_the_guide_is_one(fkdb):
    text = (ROOT / "writer/README.md").read_text()
    lines = [line for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]
    assert len(lines) >= 6
    for line in lines:
        tool, line = re.search(r"fkdb-(\w+) (.*)", line).groups()
        help_text = fkdb.ok(tool, "--help")
        for flag in re.findall(r"--[a-z-]+", line.split("#")[0]):
            assert flag in help_text, line
