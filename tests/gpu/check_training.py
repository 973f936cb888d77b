#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The whole job on a GPU beside the CPU: teacher, labels, student from the labels, by the programs; exit 1 if they part.

    check_training.py [--device cuda]      FKDB_BIN: the programs' folder
"""

import argparse
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

BIN = pathlib.Path(os.environ.get("FKDB_BIN", "build/release/bin"))
IMAGES, CLASSES, SIDE = 2000, 10, 28


def write_idx(path, array):
    header = bytes([0, 0, 8, array.ndim]) + b"".join(int(n).to_bytes(4, "big") for n in array.shape)
    path.write_bytes(header + array.tobytes())


def make_images(folder):
    """A data set that a small net learns: each class a pattern of its own, under noise."""
    rng = np.random.default_rng(1)
    patterns = rng.integers(0, 256, (CLASSES, SIDE // 4, SIDE // 4)).repeat(4, 1).repeat(4, 2)
    labels = rng.integers(0, CLASSES, IMAGES)
    pixels = np.clip(patterns[labels] * 0.7 + rng.normal(30, 40, (IMAGES, SIDE, SIDE)), 0, 255)
    write_idx(folder / "train-images-idx3-ubyte", pixels.astype(np.uint8))
    write_idx(folder / "train-labels-idx1-ubyte", labels.astype(np.uint8))
    return folder / "train-images-idx3-ubyte"


def run(*command, **environment):
    done = subprocess.run([str(part) for part in command], stdout=subprocess.PIPE, text=True, check=False, env={**os.environ, **environment})
    if done.returncode != 0:
        sys.exit(f"{' '.join(map(str, command))}: exit code {done.returncode}")
    return done.stdout


def train(images, out, device, *more, **environment):
    run(BIN / "fkdb-train", "--images", images, "--val", images, "--model", "resnet6-w8", "--batch-size", 100, "--lr", 0.1,
        *(() if "--db" in more else ("--scale", "0.6,1")), "--device", device, "--out", out, *more, **environment)
    return [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cuda")
    places = {"here": "cpu", "there": parser.parse_args().device}
    with tempfile.TemporaryDirectory() as work:
        folder = pathlib.Path(work)
        images = make_images(folder)
        bad = []

        def compare(what, a, b, near):
            good = abs(a - b) <= near
            print(f"{'ok  ' if good else 'BAD '} {what}: cpu {a:.4f}, {places['there']} {b:.4f}, within {near}", flush=True)
            if not good:
                bad.append(what)

        runs = {where: train(images, folder / f"hard-{where}", device, "--epochs", 6) for where, device in places.items()}
        # The first pass has the same crops in the same order; rounding parts them slowly.
        compare("hard labels, loss of the first pass", runs["here"][0]["loss"], runs["there"][0]["loss"], 0.05)
        compare("hard labels, top-1", runs["here"][-1]["top1"], runs["there"][-1]["top1"], 0.05)
        teacher = f"resnet6-w8:{folder / 'hard-here' / 'weights.safetensors'}"
        for where, device in places.items():
            run(BIN / "fkdb-write", "--images", images, "--teacher", teacher, "--crops", 8, "--scale", "0.6,1", "--device", device,
                "--out", folder / f"{where}.fkdb")
            run(BIN / "fkdb-verify", folder / f"{where}.fkdb")
        student = ("--crops-per-image", 4, "--epochs", 12)
        runs = {where: train(images, folder / f"fkd-{where}", device, "--db", folder / "here.fkdb", *student) for where, device in places.items()}
        compare("label set, loss of the first pass", runs["here"][0]["loss"], runs["there"][0]["loss"], 0.05)
        compare("label set, top-1", runs["here"][-1]["top1"], runs["there"][-1]["top1"], 0.05)
        on_gpu = () if places["there"] == "cpu" else ("--crop-on", "gpu")
        cropped = train(images, folder / "cropped", places["there"], "--db", folder / "here.fkdb", *on_gpu, *student)
        # The same bits go in; what a card adds up in another order parts them no further than two runs.
        compare("crops made there, loss of the first pass", runs["there"][0]["loss"], cropped[0]["loss"], 0.01)
        compare("crops made there, top-1", runs["there"][-1]["top1"], cropped[-1]["top1"], 0.05)
        again = train(images, folder / "again", places["there"], "--db", folder / "there.fkdb", *student)
        compare("the same from labels made there, top-1", runs["here"][-1]["top1"], again[-1]["top1"], 0.05)
        mixed = train(images, folder / "mixed", places["there"], "--db", folder / "here.fkdb", "--channels-last",
                      *(("--autocast", "bf16") if places["there"] != "cpu" else ()), *student)
        compare("bfloat16, channels last, loss of the first pass", runs["there"][0]["loss"], mixed[0]["loss"], 0.03)
        compare("bfloat16, channels last, top-1", runs["there"][-1]["top1"], mixed[-1]["top1"], 0.05)
        # A group of one process: NCCL (CPU: gloo) sums what is there already.
        alone = train(images, folder / "alone", places["there"], "--db", folder / "here.fkdb", *student,
                      RANK="0", WORLD_SIZE="1", LOCAL_RANK="0", LOCAL_WORLD_SIZE="1", MASTER_ADDR="127.0.0.1", MASTER_PORT="29533")
        compare("a process group of one, loss of the first pass", runs["there"][0]["loss"], alone[0]["loss"], 0.01)
        compare("a process group of one, top-1", runs["there"][-1]["top1"], alone[-1]["top1"], 0.05)
        asked = {where: train(images, folder / f"asked-{where}", device, "--supervision", "teacher", "--teacher", teacher, "--epochs", 4)
                 for where, device in places.items()}
        compare("a teacher asked there, loss of the first pass", asked["here"][0]["loss"], asked["there"][0]["loss"], 0.05)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
