# SPDX-License-Identifier: Apache-2.0
"""A training that is disturbed: it stops in time, says one line, and --resume ends where an undisturbed one does."""

import json
import pathlib
import re
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
import torch
from conftest import BIN, TEST, TRAIN
from processes import wait_for
from safetensors.numpy import load_file

GOLDEN = pathlib.Path(__file__).parent.parent / "golden/pillow"
SECONDS = 60  # for what should take one or two


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("photos")
    for i in range(48):
        (folder / "ab"[i % 2]).mkdir(exist_ok=True)
        shutil.copy(GOLDEN / ["444.jpg", "420.jpg", "422.jpg"][i % 3], folder / "ab"[i % 2] / f"{i:02}.jpg")
    return folder


def train(images, out, epochs, *more):
    return ["train", "--images", images, "--model", "resnet6-w4", "--input-size", 28, "--batch-size", 8, "--epochs", epochs,
            "--threads", 1, "--workers", 2, "--out", out, *more]


def begin(command, out):
    """The program, some passes into its work."""
    tool, *arguments = command
    running = subprocess.Popen([BIN / f"fkdb-{tool}", *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                               text=True)
    wait_for(lambda: (out / "metrics.jsonl").exists() and len((out / "metrics.jsonl").read_text().splitlines()) > 2, running)
    return running


@pytest.mark.parametrize("fault", ["missing", "broken"])
def test_an_image_lost_in_mid_epoch(fkdb, photos, tmp_path, fault):
    images, out = tmp_path / "images", tmp_path / "run"
    shutil.copytree(photos, images)
    lost = images / "a/30.jpg"  # a 444.jpg
    running = begin(train(images, out, 100_000), out)
    if fault == "missing":
        lost.unlink()
    else:
        (tmp_path / "aside").write_bytes(lost.read_bytes()[:-200])
        (tmp_path / "aside").rename(lost)
    _, stderr = running.communicate(timeout=SECONDS)
    what = "cannot open it: No such file or directory" if fault == "missing" else "broken JPEG: the file ends early"
    assert stderr == f"fkdb-train: image '{lost}': {what}\n"
    assert running.returncode == (1 if fault == "missing" else 3)
    # Its checkpoint is whole: with the image back, the training goes on.
    shutil.copy(photos / "a/30.jpg", lost)
    steps = fkdb.json(*train(images, out, 100_000, "--resume", "--max-steps", 1))["steps"]  # which is past: none
    more = fkdb.json(*train(images, out, 100_000, "--resume", "--max-steps", steps + 10))
    assert more["steps"] == steps + 10 and not more["finished"]


def test_ctrl_c_in_a_training(fkdb, photos, tmp_path):
    fkdb.ok(*train(photos, tmp_path / "whole", 40))
    running = begin(train(photos, tmp_path / "parts", 40), tmp_path / "parts")
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=SECONDS)
    assert running.returncode == 0
    if "stopped" in stderr:  # or it was at its end already
        assert stderr.count("\n") == 1 and stderr.endswith("the same command with --resume continues\n")
    fkdb.ok(*train(photos, tmp_path / "parts", 40, "--resume"))
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in ("whole", "parts")]
    assert weights[0] == weights[1]


def test_ctrl_c_in_an_evaluation(fkdb, tmp_path):
    out = tmp_path / "run"
    command = ["train", "--images", TEST, "--limit", 128, "--val", TRAIN, "--model", "resnet6-w64", "--epochs", 1,
               "--batch-size", 64, "--checkpoint-steps", 1, "--out", out]
    running = subprocess.Popen([BIN / "fkdb-train", *map(str, command[1:])], stderr=subprocess.PIPE, text=True)
    wait_for((out / "checkpoint.safetensors").exists, running)  # of the first of two steps
    time.sleep(1)  # in the evaluation of 60,000 images by then, or before the last step, which is taken
    begun = time.monotonic()
    running.send_signal(signal.SIGINT)
    _, stderr = running.communicate(timeout=SECONDS)
    assert time.monotonic() - begun < 20
    assert running.returncode == 0 and stderr == "fkdb-train: stopped after 2 steps; the same command with --resume continues\n"
    assert not (out / "metrics.jsonl").exists()
    command[command.index(TRAIN)] = TEST  # the same training, a shorter evaluation
    done = fkdb.json(*command, "--resume")
    assert done["finished"] and done["steps"] == 2 and done["top1"] > 0


def test_profile(fkdb, photos, tmp_path):
    out = fkdb.ok(*train(photos, tmp_path / "a", 2, "--profile"))
    for part in ("idle", "forward", "backward", "optimizer", "other", "load", "decode", "unpack", "batches in memory"):
        assert part in out
    lines = fkdb.ok(*train(photos, tmp_path / "b", 2, "--profile", "--json")).splitlines()
    profile = json.loads(lines[0])["profile"]
    parts = [profile[name] for name in ("idle", "forward", "backward", "optimizer")]
    assert all(part > 0 for part in parts[1:]) and 0 < sum(parts) <= profile["seconds"]
    assert profile["steps"] == 6 and profile["workers"]["decode"] > 0
    assert profile["batches"] == 3 and profile["batch_bytes"] >= 8 * 3 * 28 * 28 * 4
    assert '"profile"' not in fkdb.ok(*train(photos, tmp_path / "c", 2, "--json"))


def test_a_disk_that_is_full_at_a_checkpoint(fkdb, photos, tmp_path):
    """The last checkpoint is whole, and with room again the training ends as an undisturbed one."""
    def flags(out):
        return ["--images", photos, "--model", "resnet6-w16", "--input-size", 28, "--batch-size", 8, "--epochs", 3, "--threads", 1, "--out", out]

    fkdb.ok("train", *flags(tmp_path / "whole"))
    size = (tmp_path / "whole/checkpoint.safetensors").stat().st_size
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size * 3 // 2 // 4096 * 4}k", "none", disk]
    if subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        path = disk / "run/checkpoint.safetensors"
        done = fkdb("train", *flags(disk / "run"))
        assert done.returncode == 1 and done.stderr == f"fkdb-train: {path}: cannot write it: No space left on device\n"
        before = path.read_bytes()
        assert [child.name for child in (disk / "run").iterdir() if child.name.endswith(".new")] == []
        assert fkdb("train", *flags(disk / "run"), "--resume").returncode == 1 and path.read_bytes() == before
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        fkdb.ok("train", *flags(disk / "run"), "--resume")
        assert (disk / "run/weights.safetensors").read_bytes() == (tmp_path / "whole/weights.safetensors").read_bytes()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_a_loss_that_is_nan_leaves_the_last_checkpoint(fkdb, photos, tmp_path):
    """Here the rate explodes after the first pass."""
    out = tmp_path / "run"
    done = fkdb(*train(photos, out, 4, "--schedule", "step", "--step-epochs", 1, "--step-factor", 1e30, "--lr", 0.01))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.fullmatch(rf"fkdb-train: the loss is -?(nan|inf) at step \d+ of epoch 1: a lower --lr may help; the last checkpoint is {out}/checkpoint.safetensors\n",
                        done.stderr), done.stderr
    line, = (out / "metrics.jsonl").read_text().splitlines()
    assert json.loads(line)["loss"] < 10
    assert np.isfinite(load_file(out / "checkpoint.safetensors")["model.fc.weight"]).all()


def test_a_gpu_that_is_not_there(fkdb, photos, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("this machine has one")
    fkdb.fails(1, "device 'cuda': this machine has 0 CUDA devices", *train(photos, tmp_path / "run", 1, "--device", "cuda"))
    assert not (tmp_path / "run").exists()
