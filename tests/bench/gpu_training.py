#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Plain training, FKD and vanilla KD of one student on a GPU, by fkdb-train and by eager PyTorch, from the same photos.

    gpu_training.py [--photos DIR] [--model resnet50] [--teacher resnet101] [--batch-size 256] [--copies 10] [--json FILE]

224 pixels, bfloat16, channels last, SGD with momentum. DIR: photos of 500 x 375 (photo_size.py cuts them); each is shown as COPIES
images, hard links, so that a pass is long and the disk is not measured. Crops a second of the last of three passes:

    hard                 fkdb-train, one random crop an image, the images' classes: plain training
    db m=4               FKD: four stored crops of each decoded image, stored labels
    ... gpu crops        the same, the crops made on the GPU
    teacher              vanilla KD: the teacher asked in every step
    eager hard           torchvision's ImageFolder and transforms in PyTorch's DataLoader
    eager FkdLoader      FKD by the Python package: FkdLoader, SoftTargetLoss
"""

import argparse
import json
import os
import pathlib
import shutil
import subprocess
import sys
import tempfile
import time

import fkdb.torch
import torch
import torchvision

BIN = pathlib.Path(os.environ.get("FKDB_BIN", "build/release/bin"))
CLASSES, PASSES, STORED, M = 10, 3, 8, 4


def link(photos, work, copies):
    for i, path in enumerate(sorted(photos.iterdir())):
        folder = work / "images" / f"class{i % CLASSES}"
        folder.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / f"{path.stem}_0.jpg")
        for copy in range(1, copies):
            os.link(folder / f"{path.stem}_0.jpg", folder / f"{path.stem}_{copy}.jpg")
    return copies * (i + 1)


def script_net(path, name, classes, side=224):
    torch.manual_seed(5)
    net = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, classes)) if name == "tiny" else (
        torchvision.models.get_model(name, num_classes=classes))
    torch.jit.trace(net.eval(), torch.zeros(2, 3, side, side)).save(str(path))


def ours(work, arguments, *flags):
    shutil.rmtree(work / "run", ignore_errors=True)
    done = subprocess.run([BIN / "fkdb-train", "--json", "--images", work / "images", "--model", arguments.model, "--batch-size", str(arguments.batch_size),
                           "--lr", "0.01", "--workers", str(arguments.workers), "--no-single-crop-tail", "--device", arguments.device,
                           "--channels-last", "--out", work / "run", *(["--autocast", "bf16"] if arguments.device == "cuda" else []), *flags],
                          stdout=subprocess.PIPE, text=True, check=True)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    last = [line for line in lines if "pass" in line and "loss" in line][-1]
    found = {"crops_per_second": round(last["crops"] / last["seconds"], 1), "loss": last["loss"]}
    profiles = [line["profile"] for line in lines if "profile" in line]
    if profiles:
        found["shares"] = {name: round(profiles[-1][name] / profiles[-1]["seconds"], 4) for name in ("idle", "forward", "backward", "optimizer")}
    return found


def eager(arguments, batches, criterion):
    """Crops a second of the last pass over batches() of inputs on the CPU or the device, and labels."""
    torch.manual_seed(0)
    model = torchvision.models.get_model(arguments.model, num_classes=CLASSES).to(arguments.device, memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    for _ in range(PASSES):
        begun, crops, total = time.perf_counter(), 0, 0.0
        for inputs, labels in batches:
            inputs = inputs.to(arguments.device, non_blocking=True, memory_format=torch.channels_last)
            labels = labels.to(arguments.device, non_blocking=True)
            with torch.autocast(arguments.device, torch.bfloat16):
                loss = criterion(model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            crops, total = crops + len(inputs), total + loss.detach()
        total = float(total)
        rate = crops / (time.perf_counter() - begun)
    return {"crops_per_second": round(rate, 1)}


def image_folder(work, arguments):
    t = torchvision.transforms
    transform = t.Compose([t.RandomResizedCrop(224), t.RandomHorizontalFlip(), t.ToTensor(), t.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))])
    return torch.utils.data.DataLoader(torchvision.datasets.ImageFolder(work / "images", transform), arguments.batch_size, shuffle=True, drop_last=True,
                                       num_workers=arguments.workers, pin_memory=arguments.device == "cuda", persistent_workers=True)


def measure(work, arguments, images):
    script_net(work / "tiny.pt", "tiny", CLASSES)
    script_net(work / "teacher.pt", arguments.teacher, CLASSES)
    subprocess.run([BIN / "fkdb-write", "--quiet", "--images", work / "images", "--teacher", work / "tiny.pt", "--crops", str(STORED), "--out",
                    work / "labels.fkdb"], check=True)
    fkd = ("--db", work / "labels.fkdb", "--crops-per-image", str(M), "--epochs", str(PASSES * M))
    hard = ("--supervision", "hard", "--crops-per-image", "1", "--epochs", str(PASSES))
    on_gpu = ("--crop-on", "gpu") if arguments.device == "cuda" else ()
    ways = {
        "hard": lambda: ours(work, arguments, *hard),
        "hard, gpu crops": lambda: ours(work, arguments, *hard, *on_gpu),
        "db m=4": lambda: ours(work, arguments, *fkd),
        "db m=4, gpu crops": lambda: ours(work, arguments, *fkd, *on_gpu),
        "db m=4, gpu crops, profiled": lambda: ours(work, arguments, *fkd, *on_gpu, "--profile"),
        "teacher": lambda: ours(work, arguments, "--supervision", "teacher", "--teacher", work / "teacher.pt", "--crops-per-image", "1",
                                "--epochs", str(PASSES)),
        "eager hard": lambda: eager(arguments, image_folder(work, arguments), torch.nn.CrossEntropyLoss()),
        "eager FkdLoader": lambda: eager(arguments, fkdb.torch.FkdLoader(work / "images", work / "labels.fkdb", M, arguments.batch_size,
                                                                         workers=arguments.workers), fkdb.torch.SoftTargetLoss()),
    }
    found = {"device": torch.cuda.get_device_name() if arguments.device == "cuda" else "cpu", "cores": os.cpu_count(), "images": images,
             **{name: getattr(arguments, name) for name in ("model", "teacher", "batch_size", "workers")}, "ways": {}}
    for name, way in ways.items():
        if arguments.only and name not in arguments.only:
            continue
        begun = time.perf_counter()
        try:
            found["ways"][name] = way()
        except (subprocess.CalledProcessError, RuntimeError) as error:
            found["ways"][name] = {"failed": str(error)[-300:]}
        print(f"{name:28} {json.dumps(found['ways'][name])}   ({time.perf_counter() - begun:.0f} s)", flush=True)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--photos", type=pathlib.Path)
    parser.add_argument("--model", default="resnet50")
    parser.add_argument("--teacher", default="resnet101")
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--workers", type=int, default=os.cpu_count())
    parser.add_argument("--copies", type=int, default=10)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--only", action="append", help="one of the ways; may be repeated")
    parser.add_argument("--json", type=pathlib.Path)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        work = pathlib.Path(folder)
        photos = arguments.photos
        if photos is None:
            from photo_size import cut  # of Debian's mate-backgrounds
            photos = work / "photos"
            photos.mkdir()
            cut(photos)
        found = measure(work, arguments, link(photos, work, arguments.copies))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")
    sys.exit(1 if any("failed" in way for way in found["ways"].values()) else 0)


if __name__ == "__main__":
    main()
