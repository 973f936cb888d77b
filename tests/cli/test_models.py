# SPDX-License-Identifier: Apache-2.0
"""The networks fkdb builds are torchvision's and timm's: names, shapes, first weights, outputs."""

import json
import math
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from conftest import MODELS
from PIL import Image
from safetensors.torch import load_file, save_file
from test_teachers import MEAN, PHOTOS, STD, input_of
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

PARAMETERS = {"resnet18": 11689512, "resnet34": 21797672, "resnet50": 25557032, "resnet101": 44549160,  # of 1000 classes
              "tf_mobilenetv3_small_075": 2041872, "tf_mobilenetv3_small_100": 2542856}


def peer(name, classes):
    torch.manual_seed(1)
    return torchvision.models.get_model(name, num_classes=classes) if name.startswith("resnet") else timm.create_model(name, num_classes=classes)


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Four small photos in two classes."""
    folder = tmp_path_factory.mktemp("photos")
    for number, key in enumerate(sorted(p.name for p in PHOTOS.glob("*.jpg"))[:4]):
        (folder / f"class{number % 2}").mkdir(exist_ok=True)
        Image.open(PHOTOS / key).convert("RGB").resize((120, 100)).save(folder / f"class{number % 2}" / f"{number}.png")
    return folder


def made_interesting(model, side):
    """Weights and statistics of batch norms that do something, and logits of order 1 to 10."""
    norms = [x for x in model.modules() if isinstance(x, torch.nn.BatchNorm2d)]
    with torch.no_grad():
        for x in norms:
            x.weight.uniform_(0.5, 1.5)
            x.bias.normal_(0, 0.3)
            x.momentum = 1.0
        model.train()(torch.randn(16, 3, side, side))  # statistics near those of its activations
        for x in norms:
            x.running_mean += 0.3 * torch.randn_like(x.running_mean) * x.running_var.sqrt()
            x.running_var *= torch.empty_like(x.running_var).uniform_(0.5, 1.5)
        model.eval()
        last = model.get_submodule("fc" if hasattr(model, "fc") else "classifier")
        last.bias.normal_()
        last.weight *= 3 / model(torch.randn(16, 3, side, side)).std()
    return model


# SAME padding is lopsided at even sizes, and not at all of the odd ones.
@pytest.mark.parametrize("side", [64, 75])
@pytest.mark.parametrize("name", PARAMETERS)
def test_outputs_are_the_peers(name, side, photos, fkdb, tmp_path):
    model = made_interesting(peer(name, 12), side)
    weights = tmp_path / "weights.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
    path = tmp_path / "logits.fkdb"
    fkdb.ok("write", "--images", photos, "--teacher", f"{name}:{weights}", "--crops", 4, "--input-size", side, "--label", "logits", "--encoding", "f32",
            "--batch-size", 16, "--out", path)
    for ordinal in range(4):
        image = json.loads(fkdb.ok("dump", path, "--ordinal", ordinal, "--json"))
        photo = Image.open(photos / image["key"])
        x = torch.stack([F.normalize(F.to_tensor(input_of(photo, c, side, InterpolationMode.BILINEAR)), MEAN, STD) for c in image["crops"]])
        with torch.inference_mode():
            z = model(x)
        assert 1 < z.abs().max() < 100 and z.std(0).max() > 0.1, "the test could not fail"
        stored = torch.tensor([c["values"] for c in image["crops"]])
        assert (z - stored).abs().max() < 1e-4 * z.abs().max()


@pytest.mark.parametrize("name", PARAMETERS)
def test_first_weights_are_drawn_as_the_peers(name, photos, fkdb, tmp_path):
    """At a learning rate of 0 the weights stay as they were drawn."""
    fkdb.ok("train", "--images", photos, "--model", name, "--epochs", 1, "--batch-size", 4, "--input-size", 64, "--lr", 0, "--out", tmp_path)
    drawn = load_file(tmp_path / "weights.safetensors")
    model = peer(name, 2)
    theirs = {k: v.clone() for k, v in model.state_dict().items()}
    model.load_state_dict(drawn, strict=True)
    rows = {k: v.shape for k, v in model.named_parameters() if v.shape[0] == 2}
    assert len(rows) == 2  # the last layer's
    assert sum(v.numel() for v in model.parameters()) + 998 * sum(math.prod(s[1:]) for s in rows.values()) == PARAMETERS[name]
    for key, mine in model.named_parameters():
        n, spread = mine.numel(), theirs[key].std().item() if mine.numel() > 1 else 0
        if spread == 0:
            assert torch.equal(mine, theirs[key]), key
        elif n >= 500:
            assert mine.std().item() == pytest.approx(spread, rel=6 / math.sqrt(n) + 0.02), key
            assert abs(mine.mean().item()) < 6 * spread / math.sqrt(n), key
            kurtosis = ((mine / mine.std()) ** 4).mean().item()  # normal 3, uniform 1.8
            assert kurtosis == pytest.approx(((theirs[key] / spread) ** 4).mean().item(), rel=0.2 + 15 / math.sqrt(n)), key


def test_the_models_are_listed_once(fkdb):
    """Messages (test_errors.py), help and the folder's README say the same names."""
    assert MODELS in " ".join(fkdb.ok("train", "--help").split())
    readme = (Path(__file__).parents[2] / "trainer/README.md").read_text()
    names = MODELS.split(" (")[0].split(", ")
    assert names == [*PARAMETERS, "resnet6-wN"]
    assert [name for name in names if f"`{name}`" not in readme] == []
