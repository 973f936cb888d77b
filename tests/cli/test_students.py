# SPDX-License-Identifier: Apache-2.0
"""Students of other people's: scripted modules, initial weights, and weights that leave again."""

import argparse
import json
import os
import random
from collections import OrderedDict

import pytest
import torch
from conftest import MODELS
from PIL import Image
from safetensors.torch import load_file, save_file
from test_models import photos  # noqa: F401: a fixture
from test_teachers import MEAN, STD
from torch import nn
from torchvision.models import resnet18
from torchvision.transforms import functional as F

SIZE = 32


class Small(nn.Module):
    """All that a training mode changes: a batch norm, a dropout; and a buffer that is no float."""

    def __init__(self, classes=2, channels=3):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(channels, 8, 3, stride=2, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(8, classes)
        self.register_buffer("mask", torch.tensor([True, False] * 4))

    def forward(self, x):
        x = self.stem(x).mean((2, 3))
        return self.fc(self.drop(torch.where(self.mask, x, 2 * x)))


class Tied(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3)
        self.first = nn.Conv2d(8, 8, 3, padding=1)
        self.again = self.first
        self.fc = nn.Linear(8, 2)

    def forward(self, x):
        return self.fc(self.again(self.first(self.stem(x)).relu()).relu().mean((2, 3)))


@pytest.fixture
def train(fkdb, photos, tmp_path):  # noqa: F811
    """train(model, run, ..) -> the arguments of a short training."""
    def arguments(model, run, *more):
        return ["train", "--images", photos, "--model", model, "--batch-size", 2, "--input-size", SIZE, "--threads", 1, "--out", tmp_path / run,
                *(() if "--epochs" in more else ("--epochs", 2)), *more]
    return arguments


def scripted(model, path):
    torch.jit.script(model).save(str(path))
    return path


def state(path):
    return load_file(path / "weights.safetensors")


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_a_scripted_resnet18_trains_as_ours(train, fkdb, photos, tmp_path):  # noqa: F811
    torch.manual_seed(5)
    model = resnet18(num_classes=2)
    save_file(model.state_dict(), tmp_path / "w.safetensors")
    file = scripted(model, tmp_path / "net.pt")
    val = ("--val", photos, "--val-resize", 40, "--val-crop", SIZE, "--lr", 0.01)
    theirs = fkdb.json(*train(file, "theirs", *val))
    ours = fkdb.json(*train("resnet18", "ours", "--weights", tmp_path / "w.safetensors", *val))
    a, b = state(tmp_path / "theirs"), state(tmp_path / "ours")
    assert a.keys() == b.keys() == model.state_dict().keys()
    for key in a:
        assert torch.allclose(a[key], b[key], rtol=1e-3, atol=1e-4), key
    assert not torch.allclose(a["fc.weight"], model.fc.weight, atol=1e-3)
    assert not torch.allclose(a["bn1.running_mean"], model.bn1.running_mean, atol=1e-3)  # train() reached it
    assert theirs["top1"] == ours["top1"] and theirs["loss"] == pytest.approx(ours["loss"], rel=1e-3)


def test_a_resumed_scripted_training_is_the_undisturbed_one(train, fkdb, tmp_path):
    torch.manual_seed(1)
    file = scripted(Small(), tmp_path / "net.pt")
    fkdb.ok(*train(file, "whole"))
    fkdb.ok(*train(file, "parts", "--max-steps", 1))
    fkdb.ok(*train(file, "parts", "--max-steps", 3, "--resume"))
    fkdb.ok(*train(file, "parts", "--resume"))
    whole = state(tmp_path / "whole")
    assert same(whole, state(tmp_path / "parts"))
    assert whole["mask"].dtype == torch.bool and whole["stem.1.num_batches_tracked"] == 4
    Small().load_state_dict(whole, strict=True)

    scripted(Small(), file)
    done = fkdb(*train(file, "parts", "--resume"))
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert 'cannot resume with another configuration: model_file was "sha256:' in done.stderr


def test_its_first_weights_are_the_files(train, fkdb, tmp_path):
    torch.manual_seed(2)
    model = Small()
    fkdb.ok(*train(scripted(model, tmp_path / "net.pt"), "run", "--lr", 0, "--epochs", 1))
    trained = state(tmp_path / "run")
    for name, parameter in model.named_parameters():
        assert torch.equal(trained[name], parameter)
    other = Small()
    torch.save(other.state_dict(), tmp_path / "other.pth")
    fkdb.ok(*train(tmp_path / "net.pt", "other", "--lr", 0, "--epochs", 1, "--weights", tmp_path / "other.pth"))
    assert torch.equal(state(tmp_path / "other")["fc.weight"], other.fc.weight)
    fkdb.fails(2, "--new-head: only for the models " + MODELS + "; the classes of 'net.pt' are set where it is scripted",
               *train(tmp_path / "net.pt", "new", "--weights", tmp_path / "other.pth", "--new-head"))


def test_a_module_that_two_names_share_is_trained_once(train, fkdb, tmp_path):
    torch.manual_seed(3)
    model = Tied()
    fkdb.ok(*train(scripted(model, tmp_path / "tied.pt"), "tied", "--epochs", 1, "--momentum", 0, "--weight-decay", 0.5, "--lr", 0.1))
    trained = state(tmp_path / "tied")
    assert trained.keys() == model.state_dict().keys() and torch.equal(trained["first.weight"], trained["again.weight"])
    shrunk = (trained["first.weight"] * model.first.weight).sum() / (model.first.weight**2).sum()
    assert shrunk.item() == pytest.approx(0.95**2, abs=0.03)  # two steps; 0.9 squared if each were taken twice
    Tied().load_state_dict(trained, strict=True)


def test_what_cannot_be_trained_is_named(train, fkdb, tmp_path):
    path = tmp_path / "x.pt"
    traced = (f"{path}: is a traced module, whose batch norms and dropouts stay in the mode they were traced in, training or evaluation: script it, "
              "torch.jit.script(model).save(FILE)")
    x = torch.zeros(2, 3, SIZE, SIZE)
    for model in (Small().eval(), Small().train()):
        torch.jit.trace(model, x, check_trace=False).save(str(path))
        fkdb.fails(1, traced, *train(path, "run"))
    torch.jit.trace(nn.Sequential(nn.Flatten(), nn.Linear(3 * SIZE * SIZE, 2)), x).save(str(path))
    fkdb.fails(1, traced, *train(path, "run"))
    inner = nn.Sequential(torch.jit.trace(nn.Sequential(nn.Conv2d(3, 2, 3), nn.BatchNorm2d(2)).eval(), x), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    scripted(inner, path)
    fkdb.fails(1, traced, *train(path, "run"))
    torch.jit.freeze(torch.jit.script(Small().eval())).save(str(path))
    fkdb.fails(1, f"{path}: has no parameters to train: script the model as it is, without torch.jit.freeze, optimize_for_inference "
               "or requires_grad = False", *train(path, "run"))
    fkdb.fails(1, f"{tmp_path}/no.pt: no such file (expected a scripted TorchScript module)", *train(tmp_path / "no.pt", "run"))
    for content in (b"", b"no zip", random.Random(1).randbytes(5000)):
        path.write_bytes(content)
        done = fkdb(*train(path, "run"))
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert f"{path}: not a TorchScript module that this fkdb can load; torch.jit.script(model).save(FILE) writes one: " in done.stderr
    torch.save(Small().state_dict(), path)
    assert "not a TorchScript module" in fkdb(*train(path, "run")).stderr
    scripted(Small(classes=7), path)
    fkdb.fails(7, f"{path}: gives outputs of [2, 7] for inputs of [2, 3, 32, 32], expected [2, 2]: one for each class", *train(path, "run"))
    scripted(Small(channels=1), path)
    done = fkdb(*train(path, "run"))
    assert done.returncode == 7 and done.stderr.count("\n") == 1
    assert f"{path}: does not take inputs of [2, 3, 32, 32]: RuntimeError: Given groups=1" in done.stderr
    assert not (tmp_path / "run").exists()
    fkdb.fails(2, f"model 'vgg' is not known: expected {MODELS}, or FILE.pt", *train("vgg", "run"))


@pytest.fixture(scope="module")
def weights():
    torch.manual_seed(4)
    return resnet18(num_classes=2).state_dict()


def first_weights(train, fkdb, tmp_path, file, *more):
    """What a training began with: its parameters at a learning rate of 0."""
    run = f"run{len(list(tmp_path.iterdir()))}"
    fkdb.ok(*train("resnet18", run, "--lr", 0, "--epochs", 1, "--weights", file, *more))
    trained = state(tmp_path / run)
    return {name: trained[name] for name, _ in resnet18().named_parameters()}


def test_weights_come_in_as_python_saves_them(weights, train, fkdb, tmp_path):
    parameters = {k: weights[k] for k, _ in resnet18().named_parameters()}
    as_parameters = OrderedDict((k, nn.Parameter(v) if k in parameters else v) for k, v in weights.items())
    transposed = {k: v.t().contiguous().t() if v.dim() == 2 else v for k, v in weights.items()}
    for number, saved in enumerate([weights, {"state_dict": weights, "epoch": 3}, {"model": {f"module.{k}": v for k, v in weights.items()}},
                                    as_parameters, transposed, {k: v.double() if v.is_floating_point() else v for k, v in weights.items()}]):
        torch.save(saved, tmp_path / "w.pth")
        assert same(first_weights(train, fkdb, tmp_path, tmp_path / "w.pth"), parameters), number
    torch.save({k: v.half() if v.is_floating_point() else v for k, v in weights.items()}, tmp_path / "half.pth")
    save_file({k: v.bfloat16() if v.is_floating_point() else v for k, v in weights.items()}, tmp_path / "w.safetensors")
    assert same(first_weights(train, fkdb, tmp_path, tmp_path / "half.pth"), {k: v.half().float() for k, v in parameters.items()})
    assert same(first_weights(train, fkdb, tmp_path, tmp_path / "w.safetensors"), {k: v.bfloat16().float() for k, v in parameters.items()})


def test_weights_that_do_not_fit_are_named(weights, train, fkdb, tmp_path):
    path = tmp_path / "w.pth"
    run = train("resnet18", "run", "--weights", path)
    fkdb.fails(1, f"{path}: no such file (expected weights: .safetensors, or what torch.save wrote)", *run)
    wrong = f"{path}: weights do not fit the model: "
    for changed, message in [
            ({"layer1.0.conv1.weight": None}, wrong + "tensor 'layer1.0.conv1.weight' is missing"),
            ({"layer1.0.conv1.weight": torch.zeros(64, 64, 1, 1)}, wrong + "tensor 'layer1.0.conv1.weight' has shape [64, 64, 1, 1], expected [64, 64, 3, 3]"),
            ({"layer1.9.conv1.weight": torch.zeros(1)}, wrong + "it has no tensor 'layer1.9.conv1.weight'"),
            ({"bn1.weight": torch.zeros(64, dtype=torch.int32)}, wrong + "tensor 'bn1.weight' has type I64"),
            ({"fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)},
             f"{path}: its classifier 'fc' is of 1000 classes, the training of 2: --new-head draws a fresh one and loads the rest")]:
        torch.save({k: v for k, v in {**weights, **changed}.items() if v is not None}, path)
        fkdb.fails(7, message, *run)
    assert not (tmp_path / "run").exists()

    trained = first_weights(train, fkdb, tmp_path, path, "--new-head")  # the last of them
    assert all(torch.equal(v, weights[k]) for k, v in trained.items() if not k.startswith("fc."))
    assert trained["fc.weight"].shape == (2, 512) and 0.01 < trained["fc.weight"].std() < 0.05
    fkdb.fails(2, "--new-head: for initial weights of other classes: --weights FILE", *train("resnet18", "run", "--new-head"))

    begun = train("resnet18", "begun", "--weights", path, "--new-head")
    fkdb.ok(*begun, "--max-steps", 1)
    torch.save({"state_dict": torch.load(path)}, path)
    done = fkdb(*begun, "--resume")
    assert done.returncode == 2 and 'cannot resume with another configuration: initial_weights was "sha256:' in done.stderr


def test_broken_and_hostile_files_are_refused(weights, train, fkdb, tmp_path):
    path = tmp_path / "w.pth"
    run = train("resnet18", "run", "--weights", path)

    def refused(code, message):
        done = fkdb(*run)
        assert done.returncode == code and done.stderr.count("\n") == 1, done.stderr
        assert done.stderr.startswith(f"fkdb-train: {path}: ") and message in done.stderr

    class Hostile:
        def __reduce__(self):
            return os.system, (f"touch {tmp_path}/ran",)

    torch.save({"conv1.weight": Hostile()}, path)
    refused(4, "system' is not one that label files need: refused, and nothing of it was run")
    assert not (tmp_path / "ran").exists()
    torch.save({"model": {"conv1.weight": torch.zeros(1)}, "args": argparse.Namespace(lr=1)}, path)
    refused(4, "name 'argparse.Namespace' is not one that label files need: refused, and nothing of it was run; of a file you trust, "
               "torch.save(model.state_dict(), FILE) makes one that is read")
    torch.save([1, 2], path)
    refused(3, "a list of 2, expected tensors by name: torch.save(model.state_dict(), FILE) writes such a file")
    torch.save({"state_dict": {"conv1.weight": 3}}, path)
    refused(3, "'conv1.weight' is the number 3, expected tensors by name")
    torch.save(weights, path, _use_new_zipfile_serialization=False)
    refused(4, "torch.save's format before PyTorch 1.6: load it with PyTorch and save it again")
    torch.save({"conv1.weight": torch.zeros(2000)}, path)
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b"K\x00M\xd0\x07\x85", b"K\x00M\xd0\x7f\x85"))  # a shape of more than the storage holds
    refused(3, "")
    for content in (b"", b"nothing", whole[:300], whole[:-30], b"PK" + random.Random(2).randbytes(500)):
        path.write_bytes(content)
        refused(3, "")
    generator = random.Random(3)
    for _ in range(8):
        broken = bytearray(whole)
        broken[generator.randrange(len(whole))] ^= 1 << generator.randrange(8)
        path.write_bytes(broken)
        done = fkdb(*run)
        assert done.returncode in (3, 4, 7) and done.stderr.count("\n") == 1  # 7: the tensor does not fit; what was flipped does not matter


def test_export(train, fkdb, photos, tmp_path):  # noqa: F811
    """Finished or not, what comes out is torchvision's, and says in Python what it says in fkdb."""
    run, out = tmp_path / "run", tmp_path / "out.safetensors"
    arguments = train("resnet18", "run", "--lr", 0.01, "--epochs", 3, "--val", photos, "--val-resize", 40, "--val-crop", SIZE)
    fkdb.fails(1, f"{run}: neither 'weights.safetensors' nor 'checkpoint.safetensors' is there: expected the folder that fkdb-train --out named",
               "train", "export", run, out)
    fkdb.ok(*arguments, "--max-steps", 3)
    assert fkdb.ok("train", "export", run, out) == f"{out}: resnet18, 122 tensors, 11.187 M numbers, as of step 3\n"
    resnet18(num_classes=2).load_state_dict(load_file(out), strict=True)
    half = load_file(out)
    fkdb.fails(1, f"{out}: it is there already; --overwrite replaces it", "train", "export", run, out)
    trained = fkdb.json(*arguments, "--resume")
    assert fkdb.json("train", "export", run, out, "--overwrite") == {"out": str(out), "model": "resnet18", "tensors": 122, "numbers": 11187158,
                                                                     "finished": True}
    assert same(load_file(out), state(run)) and not same(load_file(out), half)
    last = tmp_path / "last.safetensors"
    assert fkdb.json("train", "export", run, last, "--checkpoint")["steps"] == 6
    assert same(load_file(out), load_file(last))
    fkdb.fails(2, "export: --lr is for trainings", "train", "--lr", 1, "export", run, out)
    fkdb.fails(2, "OUT is required (see --help)", "train", "export", run)
    fkdb.fails(2, "--images is required (see --help)", "train", "--model", "resnet18", "--epochs", 1)

    model = resnet18(num_classes=2)
    model.load_state_dict(load_file(out), strict=True)
    model.eval()
    right = 0
    for number, path in enumerate(sorted(photos.glob("*/*.png"))):
        image = F.center_crop(F.resize(Image.open(path), 40), SIZE)
        with torch.inference_mode():
            right += model(F.normalize(F.to_tensor(image), MEAN, STD)[None]).argmax(1).item() == number // 2
    assert trained["top1"] == right / 4

    fkdb.ok("write", "--images", photos, "--teacher", f"resnet18:{out}", "--crops", 2, "--input-size", SIZE, "--label", "logits", "--encoding", "f32",
            "--out", tmp_path / "l.fkdb")
    from test_teachers import input_of
    from torchvision.transforms import InterpolationMode
    image = json.loads(fkdb.ok("dump", tmp_path / "l.fkdb", "--ordinal", 0, "--json"))
    x = torch.stack([F.normalize(F.to_tensor(input_of(Image.open(photos / image["key"]), c, SIZE, InterpolationMode.BILINEAR)), MEAN, STD)
                     for c in image["crops"]])
    with torch.inference_mode():
        assert torch.allclose(model(x), torch.tensor([c["values"] for c in image["crops"]]), atol=1e-4, rtol=1e-4)
