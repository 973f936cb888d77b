#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How fast fkdb-convert is beside torch.load, and what memory it takes as label sets grow.

    .venv/bin/python tests/bench/convert.py [--images 50000] [--rounds 5] [--json]

A folder of N images of 500 x 375 (110 KB each) and N of FKD's label files (200 crops, K = 5), 500 of each written and
linked under N names. One thread. Everything is in the page cache. Medians of the rounds.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import torch

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/cli"))
import peer_labels  # noqa: E402

DISTINCT, CROPS, CLASSES, IMAGE_BYTES = 500, 200, 1000, 110_000
ALL = 1_281_167


def make(root, count):
    """images/train/nX/Y.JPEG and labels/train/nX/Y.tar."""
    keys = [f"{i}.jpg" for i in range(DISTINCT)]
    sizes = peer_labels.images(root / "few", keys, sizes=dict.fromkeys(keys, (375, 500)))
    for key in keys:
        with open(root / "few" / key, "ab") as file:
            file.write(b"\0" * (IMAGE_BYTES - file.tell()))
    peer_labels.fkd(root / "few-labels", {f"n/{key}": size for key, size in sizes.items()}, crops=CROPS, classes=CLASSES, numpy_1=False)
    for i in range(count):
        name = f"n{i % 1000:04}/{i:07}"
        for folder, kind, source in (("images", "JPEG", root / f"few/{i % DISTINCT}.jpg"), ("labels", "tar", root / f"few-labels/train/n/{i % DISTINCT}.tar")):
            path = root / folder / "train" / f"{name}.{kind}"
            path.parent.mkdir(parents=True, exist_ok=True)
            os.link(source, path)


def run(*command):
    """The program's JSON, and the most memory that was its own, MiB: pages of the label set that it maps are the page cache's.
    Looked at every 5 ms."""
    with tempfile.TemporaryFile("w+") as out:
        process = subprocess.Popen(list(map(str, command)), stdout=out)
        most = 0
        while process.poll() is None:
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            most = max([most, *(int(line.split()[1]) / 1024 for line in status.splitlines() if line.startswith("RssAnon"))])
            time.sleep(0.005)
        if process.returncode:
            sys.exit(f"{command[0]} failed")
        out.seek(0)
        return json.loads(out.read()), most


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=50_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=pathlib.Path, help="where to work (a temporary folder)")
    parser.add_argument("--json", action="store_true")
    flags = parser.parse_args()
    program = pathlib.Path(os.environ.get("FKDB_BIN", ROOT / "build/release/bin")) / "fkdb-convert"
    root = pathlib.Path(tempfile.mkdtemp(dir=flags.folder))
    try:
        make(root, flags.images)

        def convert(limit, *more):
            return run(program, "--from", "fkd", "--images", root / "images/train", "--no-classes", "--num-classes", CLASSES, "--label", "marginal-smoothing", "--threads", 1,
                       "--limit", limit, "--overwrite", "--json", root / "labels", root / "l.fkdb", *more)

        few = min(5000, flags.images)
        files = sorted((root / "labels").rglob("*.tar"))[:2000]
        torch.set_num_threads(1)
        rates = {"torch.load": [], "in, f32": [], "in, packed": [], "out": []}
        for _ in range(flags.rounds):
            begun = time.perf_counter()
            for path in files:
                torch.load(path, map_location="cpu", weights_only=False)
            rates["torch.load"].append(len(files) / (time.perf_counter() - begun))
            rates["in, packed"].append(convert(few, "--encoding", "packed")[0]["images_per_second"])
            rates["in, f32"].append(convert(few)[0]["images_per_second"])
            shutil.rmtree(root / "out", ignore_errors=True)
            rates["out"].append(run(program, "--to", "fkd", root / "l.fkdb", root / "out", "--threads", 1, "--json")[0]["images_per_second"])
        memory = {n: convert(n)[1] for n in (flags.images // 10, flags.images // 2, flags.images)}
    finally:
        shutil.rmtree(root)

    # What waits to be committed fills up at first: 64 MiB.
    (small, small_mib), (large, large_mib) = list(memory.items())[-2:]
    an_image = (large_mib - small_mib) * 2**20 / (large - small)
    result = {"files_per_second": {name: statistics.median(values) for name, values in rates.items()}, "rounds": flags.rounds,
              "memory_mib": {str(n): mib for n, mib in memory.items()}, "bytes_an_image": an_image,
              "memory_mib_at_imagenet_size": large_mib + an_image * (ALL - large) / 2**20}
    if flags.json:
        return print(json.dumps(result))
    for name, rate in result["files_per_second"].items():
        print(f"{name:<12} {rate:8.0f} files/s   {' '.join(f'{v:.0f}' for v in rates[name])}")
    for n, mib in memory.items():
        print(f"{n:>9} images {mib:8.1f} MiB")
    print(f"{ALL:>9} images {result['memory_mib_at_imagenet_size']:8.1f} MiB by {an_image:.0f} bytes an image")


if __name__ == "__main__":
    main()
