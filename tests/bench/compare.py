#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""fkdb's input path beside the way it is done today, in one run.

    .venv/bin/python tests/bench/compare.py [--json] [--images N]        after tools/test; four minutes

Labels: one torch.save file an image as the original FKD has them, torch.load, crops chosen, dense labels built; the same
arrays as raw bytes in LMDB through py-lmdb; fkdb. Pixels: JPEG bytes in memory to m normalized crops of 224 x 224 with
Pillow, with torchvision on uint8 tensors, with fkdb. Loss: dense labels and a product of matrices, PyTorch's soft
cross-entropy, fkdb from sparse labels. ReLabel: dense maps and torchvision's RoIAlign, fkdb from sparse cells. Then fkdb
beside itself: two threads and one, a cold label set and reading its file in order, m = 4 crops an image and m = 1, an
epoch of FKD and one of plain training, ten thousand batches and a thousand. Then the Python package: labels and whole
batches beside the original's Dataset under DataLoader. Figures beside a peer's are medians of rounds that take turns.
"""

import argparse
import io
import itertools
import json
import os
import pathlib
import random
import shutil
import statistics
import subprocess
import tempfile
import time

import compare_python
import lmdb
import numpy as np
import torch
from photo_size import cut
from PIL import Image
from torchvision.io import decode_jpeg
from torchvision.ops import roi_align
from torchvision.transforms import InterpolationMode, RandomResizedCrop
from torchvision.transforms import functional as F

BIN = pathlib.Path(__file__).resolve().parents[2] / "build/release/bin"
MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
CROPS, K, CLASSES, ROUNDS, PHOTOS = 200, 5, 1000, 5, 120
BOX = RandomResizedCrop(224)


def seconds(work, at_least=0.3):
    """Of one call, over enough calls to fill `at_least`."""
    begun, calls = time.perf_counter(), 0
    while (spent := time.perf_counter() - begun) < at_least:
        work()
        calls += 1
    return spent / calls


def micro(name, environment=None):
    """Microseconds of one of micro_bench's."""
    done = subprocess.run([BIN / "micro_bench", f"--benchmark_filter=^{name}$", "--benchmark_format=json",
                           "--benchmark_min_time=0.3"], env={**os.environ, **(environment or {})}, capture_output=True,
                          text=True, check=True)
    return json.loads(done.stdout)["benchmarks"][0]["real_time"]


def take_turns(ways, rounds=ROUNDS):
    """Medians of each way's figure: {name: callable} -> {name: median}."""
    figures = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            figures[name].append(way())
    return {name: statistics.median(values) for name, values in figures.items()}


def image_labels(rng):
    """As the original stores them: boxes, flips, (M, 2, K) indices and probabilities."""
    p = -np.sort(-rng.dirichlet(np.full(20, 0.3), CROPS)[:, :K].astype("f4"), axis=1)
    index = rng.permuted(np.tile(np.arange(40), (CROPS, 1)), axis=1)[:, :K].astype("f4") * 25
    return [rng.random((CROPS, 4)).astype("f4"), rng.random(CROPS) < 0.5, np.stack([index, p], 1)]


def dense(index, p):
    """Marginal smoothing, as rows of all classes."""
    tail = (1 - p.sum(1, keepdim=True)) / (CLASSES - K)
    return tail.expand(-1, CLASSES).clone().scatter_(1, index, p)


def run(name, *arguments):
    """What a program of ours says as JSON, line by line."""
    done = subprocess.run([BIN / name, *map(str, arguments)], check=True, capture_output=True, text=True)
    return [json.loads(line) for line in done.stdout.splitlines()]


def compare_labels(work, images):
    """Microseconds an image: 4 of 200 crops of random images, batches of 64."""
    rng = np.random.default_rng(1)
    files = work / "pickles"
    files.mkdir()
    environment = lmdb.open(str(work / "raw"), map_size=1 << 30)
    count = 500
    with environment.begin(write=True) as transaction:
        for i in range(count):
            labels = image_labels(rng)
            torch.save(labels, files / f"{i}.tar")
            transaction.put(b"%08d" % i, b"".join(array.tobytes() for array in labels))
    run("label_bench", "make", "--images", images, "--out", work / "labels.fkdb")
    order = random.Random(2)

    def original():
        _, _, label = torch.load(files / f"{order.randrange(count)}.tar", weights_only=False)
        label = torch.from_numpy(label[np.array(order.sample(range(CROPS), 4))])
        dense(label[:, 0].long(), label[:, 1])

    def raw():
        with environment.begin(buffers=True) as transaction:
            value = transaction.get(b"%08d" % order.randrange(count))
        label = np.frombuffer(value, "f4", offset=CROPS * 17).reshape(CROPS, 2, K)[np.array(order.sample(range(CROPS), 4))]
        label[:, 0].astype(np.int64)

    def fkdb():
        return run("label_bench", "read", work / "labels.fkdb")[0]["us_per_image"]

    return take_turns({"torch.load": lambda: 1e6 * seconds(original), "py-lmdb, raw arrays": lambda: 1e6 * seconds(raw),
                       "fkdb": fkdb})


def compare_threads(work):
    """Microseconds an image, of two threads together; then seconds of a first epoch from an empty page cache."""
    reads = [run("label_bench", "read", work / "labels.fkdb", "--threads", 2)[0] for _ in range(ROUNDS)]
    alone, together = (statistics.median(read[name] for read in reads) for name in ("us_per_image", "us_per_image_together"))
    cold = run("label_bench", "cold", work / "labels.fkdb")[0]
    return ({"one thread": alone, "fkdb": together},
            {"reading the file in order": cold["in_order_seconds"], "fkdb": cold["epoch_seconds"]})


def compare_pixels(work, m):
    """Images a second."""
    photos = work / "photos"
    files = [path.read_bytes() for path in sorted(photos.glob("*/*"))]
    order = random.Random(3)
    mean, std = torch.tensor(MEAN).view(3, 1, 1), torch.tensor(STD).view(3, 1, 1)

    # As stored crops are: known before the image is read.
    image = torch.empty(3, 375, 500, device="meta")
    stored = [[(*BOX.get_params(image, BOX.scale, BOX.ratio), order.random() < 0.5) for _ in range(m)] for _ in range(500)]

    def pillow():
        photo = Image.open(io.BytesIO(order.choice(files))).convert("RGB")
        crops = []
        for top, left, height, width, flip in order.choice(stored):
            crop = photo.crop((left, top, left + width, top + height)).resize((224, 224), Image.Resampling.BILINEAR)
            crops.append(F.normalize(F.to_tensor(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else crop), MEAN, STD))
        return torch.stack(crops)

    def torchvision():
        photo = decode_jpeg(torch.frombuffer(bytearray(order.choice(files)), dtype=torch.uint8))
        crops = []
        for top, left, height, width, flip in order.choice(stored):
            crop = F.resized_crop(photo, top, left, height, width, [224, 224], InterpolationMode.BILINEAR, antialias=True)
            crops.append(F.hflip(crop) if flip else crop)
        return torch.stack(crops).float().div_(255).sub_(mean).div_(std)

    return take_turns({"Pillow": lambda: 1 / seconds(pillow), "torchvision, uint8": lambda: 1 / seconds(torchvision),
                       "fkdb": lambda: 1e6 / micro(f"ImageToCrops/m:{m}", {"FKDB_BENCH_PHOTOS": str(photos)})})


def cut_photos(work):
    """120 photos in 10 classes, and their label set of 8 crops."""
    photos = work / "photos"
    (photos / "all").mkdir(parents=True)
    cut(photos / "all")
    for i, path in enumerate(sorted((photos / "all").iterdir())):
        if i % 2 == 0 and i < 240:
            (photos / str(i // 2 % 10)).mkdir(exist_ok=True)
            path.rename(photos / str(i // 2 % 10) / path.name)
        else:
            path.unlink()
    (photos / "all").rmdir()
    assert len(list(photos.glob("*/*"))) == PHOTOS
    torch.manual_seed(5)
    teacher = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(4), torch.nn.Flatten(), torch.nn.Linear(48, 10))
    torch.jit.trace(teacher, torch.zeros(2, 3, 64, 64)).save(str(work / "teacher.pt"))
    subprocess.run([BIN / "fkdb-write", "--quiet", "--images", photos, "--teacher", work / "teacher.pt", "--crops", "8",
                    "--out", work / "photos.fkdb", "--input-size", "64"], check=True)


def compare_loading(work):
    """Crops a second of the input path alone: m = 4 of a label set beside m = 1 of plain training."""
    def loaded(*arguments):
        return lambda: run("loader_bench", "--images", work / "photos", "--batches", 64, *arguments)[0]["crops_per_second"]

    return take_turns({"m = 1, plain": loaded(), "fkdb": loaded("--db", work / "photos.fkdb", "--crops-per-image", 4)})


def compare_epoch(work):
    """Seconds of an epoch, ResNet-18 at 64 pixels, one thread and one worker; and the share of FKD's that is idle."""
    idle = []

    def trained(passes, *arguments):
        def one():
            shutil.rmtree(work / "run", ignore_errors=True)
            lines = run("fkdb-train", "--json", "--profile", "--images", work / "photos", "--model", "resnet18",
                        "--batch-size", 60, "--epochs", 100, "--max-steps", 2 * PHOTOS * 4 // 60, "--threads", 1,
                        "--workers", 1, "--input-size", 64, "--lr", 0.01, "--out", work / "run", *arguments)
            done = [line["profile"] for line in lines if "profile" in line][passes:]  # the first four epochs warm up
            if passes == 1:
                idle.append(sum(p["idle"] for p in done) / sum(p["seconds"] for p in done))
            return sum(p["seconds"] for p in done) / 4
        return one

    figures = take_turns({"plain training": trained(4), "fkdb": trained(1, "--db", work / "photos.fkdb")}, rounds=3)
    return figures, statistics.median(idle)


def compare_memory(work):
    """Resident MiB after a thousand batches and after ten thousand, and those of the batch buffers."""
    done = run("loader_bench", "--images", work / "photos", "--db", work / "photos.fkdb", "--crops-per-image", 4,
               "--batch-size", 4, "--input-size", 64, "--batches", 10_000)[0]
    return {"after 1,000 batches": done["resident_mib_at_a_tenth"], "fkdb": done["resident_mib"]}, done["batch_buffers_mib"]


def compare_loss():
    """Milliseconds: loss and gradient of 1024 rows of 1000 logits, K = 5."""
    rows = 1024
    generator = torch.Generator().manual_seed(4)
    logits = torch.randn(rows, CLASSES, generator=generator).requires_grad_()
    p = torch.softmax(torch.randn(rows, K + 1, generator=generator), 1)[:, :K].sort(1, descending=True)[0].contiguous()
    index = torch.stack([torch.randperm(CLASSES, generator=generator)[:K] for _ in range(rows)])

    target = dense(index, p)

    def product():  # of a row and a column, row by row, of labels made dense first
        loss = -(dense(index, p).unsqueeze(1) @ torch.log_softmax(logits, 1).unsqueeze(2)).mean()
        torch.autograd.grad(loss, logits)

    def soft():  # of labels that are dense already
        torch.autograd.grad(torch.nn.functional.cross_entropy(logits, target), logits)

    return take_turns({"dense, product": lambda: 1e3 * seconds(product), "soft cross_entropy": lambda: 1e3 * seconds(soft),
                       "fkdb": lambda: micro("LossAndGradient/kind:3/C:1000/rows:1024") / 1e3})


def compare_maps():
    """Microseconds: ReLabel's label of a crop, from a map of 15 x 15 cells, K = 5; theirs in batches of 64.

    Boxes are given in cells, `aligned`: ReLabel's default alignment with its shift of half a cell, where no side is below a cell, as here. On one CPU.
    """
    images, cells = 64, 15
    generator = torch.Generator().manual_seed(9)
    index = torch.stack([torch.randperm(CLASSES, generator=generator)[:K] for _ in range(images * cells * cells)])
    index = index.view(images, cells, cells, K).permute(0, 3, 1, 2).contiguous()
    scores = torch.randn(images, K, cells, cells, generator=generator)
    photo, to_cells = torch.empty(3, 375, 500, device="meta"), torch.tensor([1, cells / 500, cells / 375, cells / 500, cells / 375])

    def batch():  # [image, left, top, right, bottom], in cells
        boxes = [BOX.get_params(photo, BOX.scale, BOX.ratio) for _ in range(images)]
        return to_cells * torch.tensor([[n, left, top, left + width, top + height] for n, (top, left, height, width) in enumerate(boxes)])

    batches = itertools.cycle([batch() for _ in range(8)])
    dense_maps = torch.zeros(images, CLASSES, cells, cells).scatter_(1, index, scores)

    def pooled(maps):
        torch.softmax(roi_align(maps, next(batches), (1, 1), aligned=True).flatten(1), 1)

    def made_dense():
        pooled(torch.zeros(images, CLASSES, cells, cells).scatter_(1, index, scores))

    return take_turns({"dense, then torchvision's roi_align": lambda: 1e6 * seconds(made_dense) / images,
                       "roi_align of dense maps": lambda: 1e6 * seconds(lambda: pooled(dense_maps)) / images, "fkdb": lambda: micro("PoolMap/side:15")})


def compare_python_labels(work):
    """Microseconds an image from Python: 4 of 200 crops of random images; then of two threads."""
    db = compare_python.fkdb.open(work / "labels.fkdb")
    files, order = sorted((work / "pickles").iterdir()), random.Random(7)

    def original():
        _, _, label = torch.load(order.choice(files), weights_only=False)
        label = torch.from_numpy(label[np.array(order.sample(range(CROPS), 4))])
        dense(label[:, 0].long(), label[:, 1])

    batches = compare_python.batches_of(db, 200, np.random.default_rng(8))
    return (take_turns({"torch.load": lambda: 1e6 * seconds(original), "fkdb": lambda: compare_python.sampled(db, batches)}, rounds=9),
            take_turns({"one thread": lambda: compare_python.sampled_by(db, batches, 1),
                        "fkdb": lambda: compare_python.sampled_by(db, batches, 2)}, rounds=9))


def row(what, unit, figures, faster):
    ours = figures["fkdb"]
    return [{"what": what, "unit": unit, "peer": peer, "theirs": round(value, 3), "ours": round(ours, 3),
             "ratio": round(ours / value if faster else value / ours, 2)} for peer, value in figures.items() if peer != "fkdb"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="only the JSON")
    parser.add_argument("--images", type=int, default=100_000, help="of the label set")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    with tempfile.TemporaryDirectory() as name:
        work = pathlib.Path(name)
        cut_photos(work)
        rows += row("labels of a random image, 4 of 200 crops", "us", compare_labels(work, arguments.images), faster=False)
        for m in (1, 4, 8):
            rows += row(f"JPEG to {m} normalized crops", "images/s", compare_pixels(work, m), faster=True)
        rows += row("loss and gradient, 1024 x 1000, K = 5", "ms", compare_loss(), faster=False)
        rows += row("ReLabel's label of a crop, 15 x 15 cells, K = 5", "us", compare_maps(), faster=False)
        together, cold = compare_threads(work)
        rows += row("labels of a random image, two threads", "us", together, faster=False)
        rows += row("labels of a first epoch, cold", "s", cold, faster=False)
        rows += row("input path alone, m = 4", "crops/s", compare_loading(work), faster=True)
        epoch, idle = compare_epoch(work)
        rows += row("epoch, ResNet-18 at 64 pixels, m = 4", "s", epoch, faster=False)
        memory, buffers = compare_memory(work)
        rows += row("memory after 10,000 batches", "MiB", memory, faster=False)
        labels, threads = compare_python_labels(work)
        rows += row("labels from Python, batches of 256", "us", labels, faster=False)
        rows += row("labels from Python, two threads", "us", threads, faster=False)
        figures = take_turns(compare_python.pipelines(work, image_labels, MEAN, STD, dense))
        peer = next(iter(figures))
        for name in ("FkdDataset", "FkdLoader"):
            rows += row(f"files to batches, m = 4, 2 workers: {name}", "images/s", {peer: figures[peer], "fkdb": figures[name]}, faster=True)
    cpu = next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))
    compiler = subprocess.run(["c++", "--version"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    result = {"cpu": cpu, "compiler": compiler, "torch": torch.__version__, "threads": 1, "images": arguments.images,
              "photos": f"{PHOTOS} of 500 x 375, JPEG quality 90, cut from mate-backgrounds",
              "idle_share_of_epoch": round(idle, 5), "batch_buffers_mib": buffers, "rows": rows}
    if arguments.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{cpu}, {compiler}, torch {torch.__version__}; medians of {ROUNDS} rounds, one thread where nothing else is "
          f"said\nof FKD's epoch {100 * idle:.2f} % waited for data; batch buffers of the memory row: {buffers} MiB\n")
    print(f"{'':<42}{'':<10}{'peer':<22}{'theirs':>10}{'fkdb':>10}{'times':>8}")
    for r in rows:
        print(f"{r['what']:<42}{r['unit']:<10}{r['peer']:<22}{r['theirs']:>10.2f}{r['ours']:>10.2f}{r['ratio']:>8.1f}")


if __name__ == "__main__":
    main()
