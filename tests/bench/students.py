#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Training ResNets with fkdb-train beside the same networks in eager PyTorch, in Python, on the same label set.

    .venv/bin/python tests/bench/students.py [--models resnet18,resnet50] [--rounds 3]      after tools/test; ten minutes

Both train from 32 photos of 500 x 375 at 224 pixels, 4 crops an image, 32 crops a step, SGD with momentum, on all cores and one worker; the Python side is
torchvision's network, torch.optim.SGD, FkdLoader and SoftTargetLoss. Crops a second of the second pass; turns alternate.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import fkdb.torch
import torch
import torchvision
from compare import BIN
from photo_size import cut

IMAGES, M, BATCH, CLASSES = 32, 4, 32, 10


def prepare(work):
    photos = work / "photos"
    (photos / "all").mkdir(parents=True)
    cut(photos / "all")
    for i, path in enumerate(sorted((photos / "all").iterdir())):
        if i < IMAGES:
            (photos / str(i % CLASSES)).mkdir(exist_ok=True)
            path.rename(photos / str(i % CLASSES) / path.name)
        else:
            path.unlink()
    (photos / "all").rmdir()
    torch.manual_seed(5)
    teacher = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, CLASSES))
    torch.jit.trace(teacher, torch.zeros(2, 3, 224, 224)).save(str(work / "teacher.pt"))
    subprocess.run([BIN / "fkdb-write", "--quiet", "--images", photos, "--teacher", work / "teacher.pt", "--crops", "8", "--out", work / "photos.fkdb"],
                   check=True)


def ours(work, model, *flags):
    """Crops a second, and the shares of the stages."""
    shutil.rmtree(work / "run", ignore_errors=True)
    done = subprocess.run([BIN / "fkdb-train", "--json", "--profile", "--images", work / "photos", "--db", work / "photos.fkdb", "--model", model,
                           "--epochs", str(2 * M), "--crops-per-image", str(M), "--no-single-crop-tail", "--batch-size", str(BATCH), "--lr", "0.01",
                           "--workers", "1", "--out", work / "run", *flags], capture_output=True, text=True, check=True)
    profile = [json.loads(line)["profile"] for line in done.stdout.splitlines() if '"profile"' in line][1]
    shares = {name: profile[name] / profile["seconds"] for name in ("idle", "forward", "backward", "optimizer")}
    return IMAGES * M / profile["seconds"], shares


def eager(work, name):
    torch.manual_seed(0)
    loader = fkdb.torch.FkdLoader(work / "photos", work / "photos.fkdb", M, BATCH, workers=1)
    model = torchvision.models.get_model(name, num_classes=CLASSES)
    criterion = fkdb.torch.SoftTargetLoss()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    for _ in range(2):
        begun, crops = time.perf_counter(), 0
        for inputs, labels in loader:
            loss = criterion(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            crops += len(inputs)
            loss.item()
        rate = crops / (time.perf_counter() - begun)
    assert crops == IMAGES * M
    return rate


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="resnet18,resnet50")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = Path(folder)
        prepare(work)
        for model in arguments.models.split(","):
            rates = {"eager": [], "fkdb-train": [], "fkdb-train --channels-last": []}
            ratios, shares = {name: [] for name in rates}, []
            for _ in range(arguments.rounds):
                peer = eager(work, model)
                plain, stages = ours(work, model)
                last, _ = ours(work, model, "--channels-last")
                shares.append(stages)
                for name, rate in zip(rates, (peer, plain, last), strict=True):
                    rates[name].append(rate)
                    ratios[name].append(rate / peer)
            print(json.dumps({"model": model, "crops_per_second": {name: round(statistics.median(all), 1) for name, all in rates.items()},
                              "of_eager": {name: round(statistics.median(all), 3) for name, all in ratios.items()},
                              "shares": {name: round(statistics.median(s[name] for s in shares), 4) for name in shares[0]}}))


if __name__ == "__main__":
    main()
