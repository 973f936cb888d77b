# SPDX-License-Identifier: Apache-2.0
"""fkdb-train --eval against torchvision's arithmetic; ReaL, ImageNetV2's folders; TensorBoard's reader on what --tensorboard writes."""

import colorsys
import json
import random
import shutil
import tomllib

import pytest
import torch
from conftest import MODELS, TEST, TRAIN
from PIL import Image
from safetensors.torch import save_file
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from test_models import made_interesting
from test_teachers import MEAN, STD
from torchvision.models import resnet18
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

CLASSES = 12  # "10" and "11" come before "2" as text
TEXT_ORDER = sorted(map(str, range(CLASSES)))
RESIZE, CROP = 40, 32
VIEW = ("--val-resize", RESIZE, "--val-crop", CROP, "--threads", 1)


def predicted(model, path, mode=InterpolationMode.BILINEAR, mean=MEAN, std=STD):
    """The five likeliest classes, by torchvision."""
    image = F.center_crop(F.resize(Image.open(path).convert("RGB"), RESIZE, mode), CROP)
    with torch.inference_mode():
        return model(F.normalize(F.to_tensor(image), mean, std)[None])[0].topk(5).indices.tolist()


def share(hits):
    hits = list(hits)
    return sum(hits) / len(hits)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(7)
    return made_interesting(resnet18(num_classes=CLASSES), CROP)


@pytest.fixture(scope="module")
def weights(net, tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file(net.state_dict(), path)
    return path


@pytest.fixture(scope="module")
def images(net, tmp_path_factory):
    """36 JPEGs under the names of ImageNet's validation images, in one folder."""
    folder = tmp_path_factory.mktemp("flat")
    generator = random.Random(5)
    for number in range(1, 37):
        small = Image.frombytes("RGB", (6, 5), generator.randbytes(90))
        size = generator.randrange(45, 90), generator.randrange(45, 90)
        small.resize(size, Image.Resampling.BICUBIC).save(folder / f"ILSVRC2012_val_{number:08}.JPEG", quality=92)
    return folder


@pytest.fixture(scope="module")
def numbered(net, images, tmp_path_factory):
    """The same in folders 0 to 11, as ImageNetV2's: every folder has an image, and most have those that are predicted to be in it."""
    root = tmp_path_factory.mktemp("numbered")
    for n, path in enumerate(sorted(images.iterdir())):
        folder = root / str(n if n < CLASSES else predicted(net, path)[0 if n % 3 else 3])
        folder.mkdir(exist_ok=True)
        shutil.copy(path, folder)
    return root


def paths(root):
    return sorted(root.glob("*/*"))


def test_numbered_folders_are_class_numbers(net, weights, numbered, fkdb):
    tops = {path: predicted(net, path) for path in paths(numbered)}
    number = share(top[0] == int(path.parent.name) for path, top in tops.items())
    text = share(top[0] == TEXT_ORDER.index(path.parent.name) for path, top in tops.items())
    assert number > 0.3 and abs(number - text) > 0.05
    said = fkdb.json("train", "--eval", weights, "--model", "resnet18", "--val", numbered, *VIEW)
    assert said.pop("seconds") > 0
    assert said == {"weights": str(weights), "model": "resnet18", "val": str(numbered), "images": 36, "top1": pytest.approx(number),
                    "top5": pytest.approx(share(int(path.parent.name) in top for path, top in tops.items()))}
    evaluation = ("train", "--eval", weights, "--model", "resnet18", "--val", numbered, *VIEW)
    assert fkdb.json(*evaluation, "--class-order", "text")["top1"] == pytest.approx(text)
    line = fkdb.ok(*evaluation)
    assert line.startswith(f"{numbered}: top-1 {100 * number:.2f}%  top-5 ") and line.count("\n") == 1 and line.endswith(" images/s\n")


def test_every_prediction_is_torchvisions(net, weights, images, numbered, fkdb, tmp_path):
    """ReaL's labels are what torchvision predicts: all are right; and then one is not."""
    tops = [predicted(net, path, InterpolationMode.BICUBIC, (0.5,) * 3, (0.25,) * 3) for path in sorted(images.iterdir())]
    real = [[top[0], (top[0] + 1) % CLASSES] for top in tops]
    pixels = ("--interpolation", "bicubic", "--mean", "0.5,0.5,0.5", "--std", "0.25,0.25,0.25")
    path = tmp_path / "real.json"

    def evaluate(val, labels):
        path.write_text(json.dumps(labels))
        return fkdb.json("train", "--eval", weights, "--model", "resnet18", "--val", val, *VIEW, *pixels, "--real", path)

    flat = evaluate(images, real)
    assert (flat["real_images"], flat["real_top1"]) == (36, 1) and "top1" not in flat
    in_folders = evaluate(numbered, real)
    assert (in_folders["real_images"], in_folders["real_top1"], in_folders["images"]) == (36, 1, 36)
    real[20] = [tops[20][1]]
    real[3] = real[35] = []
    for val in images, numbered:
        said = evaluate(val, real)
        assert (said["real_images"], said["real_top1"]) == (34, pytest.approx(33 / 34))
    assert said["top1"] == in_folders["top1"] and said["images"] == 36


def test_weights_come_in_every_form(net, weights, numbered, fkdb, tmp_path):
    def evaluate(*arguments):
        said = fkdb.json("train", *arguments, "--val", numbered, *VIEW)
        return said["model"], said["top1"], said["top5"]

    name, *expected = evaluate("--eval", weights, "--model", "resnet18")
    torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, tmp_path / "w.pth")
    torch.jit.script(net).save(str(tmp_path / "own.pt"))
    torch.jit.script(resnet18(num_classes=CLASSES)).save(str(tmp_path / "other.pt"))
    assert evaluate("--eval", tmp_path / "w.pth", "--model", "resnet18") == (name, *expected)
    assert evaluate("--eval", tmp_path / "own.pt", "--model", tmp_path / "own.pt") == ("own.pt", *expected)
    assert evaluate("--eval", weights, "--model", tmp_path / "other.pt") == ("other.pt", *expected)
    (tmp_path / "c.toml").write_text(f'eval = "{weights}"\nmodel = "resnet18"\n')
    assert evaluate("--config", tmp_path / "c.toml") == (name, *expected)


def test_several_validation_sets(weights, numbered, fkdb, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(numbered, other)
    for path in paths(other)[:12]:
        if len(list(path.parent.iterdir())) > 1:
            path.unlink()
    one = [fkdb.json("train", "--eval", weights, "--model", "resnet18", "--val", val, *VIEW) for val in (numbered, other)]
    assert one[0]["images"] > one[1]["images"]
    both = ("train", "--eval", weights, "--model", "resnet18", "--json", *VIEW)
    for sets in ("--val", f"{numbered},{other}"), ("--val", numbered, "--val", other):
        said = [json.loads(line) for line in fkdb.ok(*both, *sets).splitlines()]
        assert [{**line, "seconds": 0} for line in said] == [{**line, "seconds": 0} for line in one]
        shown = fkdb.ok(*both, *sets, "--print-config")
        assert tomllib.loads(shown)["val"] == f"{numbered},{other}"
        (tmp_path / "c.toml").write_text(shown)
        assert len(fkdb.ok("train", "--config", tmp_path / "c.toml", "--json").splitlines()) == 2
    comma = tmp_path / "a,b"
    shutil.copytree(numbered, comma)
    assert fkdb.json(*both, "--val", comma)["val"] == str(comma)
    fkdb.fails(2, "--val: 2 validation sets, expected one in a training; --eval takes several",
               "train", "--images", numbered, "--val", f"{numbered},{other}", "--model", "resnet18", "--epochs", 1, "--out", tmp_path / "run")


@pytest.fixture(scope="module")
def coloured(tmp_path_factory):
    """Four plain images of each of 12 colours, in folders 0 to 11."""
    root = tmp_path_factory.mktemp("coloured")
    generator = random.Random(1)
    for c in range(CLASSES):
        (root / str(c)).mkdir()
        for n in range(4):
            r, g, b = colorsys.hsv_to_rgb(c / CLASSES, 1, generator.uniform(0.8, 1))
            Image.new("RGB", (44, 40), (int(255 * r), int(255 * g), int(255 * b))).save(root / str(c) / f"{n}.png")
    return root


def test_a_trainings_own_weights_keep_its_order_of_classes(coloured, fkdb, tmp_path):
    """It numbered the folders in text order; so did its validation. Nothing of the run is touched, and no model need be named."""
    run = tmp_path / "run"
    train = ["train", "--images", coloured, "--val", coloured, "--model", "resnet6-w8", "--epochs", 12, "--batch-size", 16, "--lr", 0.05,
             "--input-size", CROP, "--out", run, *VIEW]
    fkdb.ok(*train, "--max-steps", 30)
    fkdb.ok("train", "export", run, tmp_path / "half.safetensors")
    trained = fkdb.json(*train, "--resume")
    fkdb.ok("train", "export", run, tmp_path / "out.safetensors")
    assert trained["top1"] > 0.5
    before = {path.name: path.stat().st_mtime_ns for path in run.iterdir()}

    def evaluate(file, *more):
        return fkdb.json("train", "--eval", file, "--val", coloured, *VIEW, *more)

    said = evaluate(run / "weights.safetensors")
    assert (said["model"], said["top1"], said["top5"]) == ("resnet6-w8", trained["top1"], trained["top5"])
    assert evaluate(tmp_path / "out.safetensors")["top1"] == trained["top1"]
    assert evaluate(run / "best.safetensors")["top1"] == trained["best_top1"]
    assert evaluate(run / "weights.safetensors", "--class-order", "number")["top1"] < trained["top1"] - 0.2
    assert evaluate(tmp_path / "half.safetensors")["top1"] > evaluate(tmp_path / "half.safetensors", "--class-order", "number")["top1"] + 0.1
    # Two of its classes, by name: class 10 is its third.
    part = tmp_path / "part"
    for name in "10", "2":
        shutil.copytree(coloured / name, part / name)
    hits = fkdb.json("train", "--eval", run / "weights.safetensors", "--val", part, *VIEW)
    assert hits["images"] == 8 and hits["top5"] > 0.9
    assert {path.name: path.stat().st_mtime_ns for path in run.iterdir()} == before


def test_idx_images(fkdb, tmp_path):
    trained = fkdb.json("train", "--images", TRAIN, "--limit", 1000, "--val", TEST, "--model", "resnet6-w4", "--epochs", 2, "--batch-size", 64,
                        "--out", tmp_path / "run")
    said = fkdb.json("train", "--eval", tmp_path / "run" / "weights.safetensors", "--val", TEST, "--workers", 2)
    assert (said["images"], said["top1"], said["top5"]) == (10000, trained["top1"], trained["top5"])


def test_what_is_wrong_is_said_in_one_line(net, weights, images, numbered, fkdb, tmp_path):
    evaluation = ["train", "--eval", weights, "--model", "resnet18", *VIEW]
    fkdb.fails(2, "--eval: on which images? --val DIR", *evaluation)
    fkdb.fails(2, "--eval: --lr is for trainings", *evaluation, "--val", numbered, "--lr", 1)
    fkdb.fails(2, "--eval: --images is for trainings", *evaluation, "--images", numbered, "--val", numbered)
    fkdb.fails(2, "--real: for evaluations: --eval WEIGHTS", "train", "--images", numbered, "--model", "resnet18", "--epochs", 1, "--real", "x")
    fkdb.fails(2, "--images is required (see --help)", "train", "--model", "resnet18", "--epochs", 1)
    fkdb.fails(2, "--epochs is required (see --help)", "train", "--model", "resnet18", "--images", numbered)
    fkdb.fails(2, f"{weights}: does not say which network's weights it holds: --model is one of {MODELS}, or FILE.pt",
               "train", "--eval", weights, "--val", numbered)
    fkdb.fails(2, f"model 'vgg' is not known: expected {MODELS}, or FILE.pt", "train", "--eval", weights, "--model", "vgg", "--val", numbered)
    fkdb.fails(1, f"{tmp_path}/no: no such file (expected weights: .safetensors, or what torch.save wrote)",
               "train", "--eval", tmp_path / "no", "--model", "resnet18", "--val", numbered)
    fkdb.fails(7, f"{weights}: not weights of tf_mobilenetv3_small_100: tensor 'classifier.weight' is missing",
               "train", "--eval", weights, "--model", "tf_mobilenetv3_small_100", "--val", numbered)
    fkdb.fails(7, f"{weights}: weights do not fit the model: tensor 'layer1.0.conv1.weight' has shape [64, 64, 3, 3], expected [64, 64, 1, 1]",
               "train", "--eval", weights, "--model", "resnet50", "--val", numbered)
    few = tmp_path / "few"
    for name in "1", "10":
        shutil.copytree(numbered / name, few / name)
    fkdb.fails(7, "'few' has 2 classes, the weights have 12: expected folders of all classes; of a part that are named by number, "
                  "--class-order number",
               *evaluation, "--val", few)
    assert fkdb.json(*evaluation, "--val", few, "--class-order", "number")["images"] == len(paths(few))
    fkdb.fails(2, f"no image of '{images.name}' has a class", *evaluation, "--val", images)
    real = tmp_path / "real.json"
    real.write_text(json.dumps([[0]] * 4 + [[12]]))
    fkdb.fails(7, f"{real}: entry 4 has class 12, the weights' classes are 0 to 11", *evaluation, "--val", images, "--real", real)
    real.write_text(json.dumps([[0]] * 5))
    fkdb.fails(7, f"image 'ILSVRC2012_val_00000006.JPEG': number 00000006 of 5 entries in {real}: expected 1 to 5",
               *evaluation, "--val", images, "--real", real)


def read_events(folder):
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    return {tag: [(e.step, e.value) for e in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def test_tensorboard_reads_what_a_training_writes(coloured, fkdb, tmp_path):
    run = tmp_path / "run"
    train = ["train", "--images", coloured, "--val", coloured, "--model", "resnet6-w2", "--epochs", 40, "--batch-size", 16, "--input-size", CROP,
             "--tensorboard", "--out", run, *VIEW]
    fkdb.ok(*train, "--max-steps", 70)  # within a pass
    fkdb.ok(*train, "--resume")
    files = sorted(run.glob("events.out.tfevents.*"))
    assert len(files) == 2
    metrics = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    read = read_events(run)
    assert read.keys() == {"train/loss", "train/lr", "pass/loss", "pass/lr", "pass/crops_per_second", "val/top1", "val/top5"}
    for tag, key in ("pass/loss", "loss"), ("pass/lr", "lr"), ("val/top1", "top1"), ("val/top5", "top5"):
        assert [step for step, _ in read[tag]] == [line["steps"] for line in metrics] == [3 * n for n in range(1, 41)]
        assert [value for _, value in read[tag]] == pytest.approx([line[key] for line in metrics], rel=1e-6)
    assert [value for _, value in read["pass/crops_per_second"]] == pytest.approx([48 / line["seconds"] for line in metrics], rel=1e-6)
    assert [step for step, _ in read["train/loss"]] == [50, 100]
    assert read["train/loss"][0][1] == pytest.approx(sum(line["loss"] for line in metrics[:16]) / 16, rel=0.05)  # of 48 of its 50 steps

    # TensorBoard's own reader checks each record: one that a flipped byte is in ends the file there.
    first = files[0].read_bytes()
    alone = tmp_path / "alone"
    alone.mkdir()
    whole = len(read_events(run)["pass/loss"])
    for at in 20, len(first) - 5, len(first) - 30, len(first) // 2:
        broken = bytearray(first)
        broken[at] ^= 1
        (alone / files[0].name).write_bytes(broken)
        assert len(read_events(alone).get("pass/loss", [])) < 23
    (alone / files[0].name).write_bytes(first)
    assert len(read_events(alone)["pass/loss"]) == 23 and whole == 40


def test_steps_that_are_repeated_are_shown_once(coloured, fkdb, tmp_path):
    """A run that went on after its last checkpoint, and was killed: here, one whose checkpoint is put back."""
    run = tmp_path / "run"
    train = ["train", "--images", coloured, "--model", "resnet6-w2", "--epochs", 4, "--batch-size", 16, "--input-size", CROP, "--tensorboard",
             "--threads", 1, "--out", run]
    fkdb.ok(*train, "--max-steps", 6)
    shutil.copy(run / "checkpoint.safetensors", tmp_path)
    fkdb.ok(*train, "--max-steps", 9, "--resume")
    shutil.copy(tmp_path / "checkpoint.safetensors", run)
    fkdb.ok(*train, "--resume")
    assert len(list(run.glob("events.*"))) == 3
    assert [step for step, _ in read_events(run)["pass/loss"]] == [3, 6, 9, 12]
    plain = [part for part in train if part != "--tensorboard"]
    fkdb.ok(*plain[:-1], tmp_path / "plain")
    assert not list((tmp_path / "plain").glob("events.*"))
    first = (tmp_path / "plain" / "weights.safetensors").read_bytes()
    assert first == (run / "weights.safetensors").read_bytes()
