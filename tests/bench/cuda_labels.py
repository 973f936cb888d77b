#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The kernels of cuda/ beside what Torch does for the same labels, on one GPU in one run.

    cuda_labels.py [--program build/release/bin/cuda_labels] [--json FILE] [--device cuda]

Runs the program `cuda_labels`, then times Torch the same way: an event before and after every launch, all queued while the
GPU is busy, inputs rotated through more memory than the second-level cache holds, medians after a warm-up. The ways,
forward and backward through autograd, Torch's eager and compiled:

    dense     the sparse label scattered into a dense one, log_softmax, matrix product, sum
    soft      F.cross_entropy with a dense label that is there already
    scatter   the sparse label scattered into a dense one, alone
    fkdb      fkdb.torch.SoftTargetLoss, where the package is found
    one pass  fkdb.torch.loss_and_gradient

Needs a GPU; `--device cpu --rows 64` only shows that it runs.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import time

import torch
import torch.nn.functional as F

try:
    import fkdb
    import fkdb.torch as ft
except ImportError:
    ft = None

K = 5


def labels_of(rows, classes, device):
    first = torch.randint(classes, (rows, 1), device=device)
    indices = (first + 37 * torch.arange(K, device=device)) % classes
    values = (0.5 ** (1 + torch.arange(K, device=device).float())).expand(rows, K).contiguous()
    return indices, values


def recover(indices, values, classes):
    tail = (1 - values.sum(1, keepdim=True)) / (classes - K)
    return tail.expand(-1, classes).scatter(1, indices, values)


def dense(logits, indices, values):
    return -(recover(indices, values, logits.shape[1]) * torch.log_softmax(logits.float(), 1)).sum(1).mean()


def soft(logits, target):
    return F.cross_entropy(logits.float(), target)


def microseconds(launch, turns, device, repeats=20, warm_up=5):
    if device == "cpu":
        times = []
        for i in range(3):
            start = time.perf_counter()
            launch(i % turns)
            times.append(1e6 * (time.perf_counter() - start))
        return statistics.median(times)
    starts, ends = ([torch.cuda.Event(enable_timing=True) for _ in range(repeats)] for _ in range(2))
    launch(0)  # a compiled function is compiled
    torch.cuda.synchronize()
    torch.cuda._sleep(100_000_000)  # while what follows is queued
    for i in range(-warm_up, repeats):
        starts[max(i, 0)].record()
        launch((i + warm_up) % turns)
        ends[max(i, 0)].record()
    torch.cuda.synchronize()
    return 1e3 * statistics.median(a.elapsed_time(b) for a, b in zip(starts, ends, strict=True))


def peers(rows, classes, dtype, device):
    """(way, compiled, microseconds) of each."""
    cache = torch.cuda.get_device_properties(0).L2_cache_size if device == "cuda" else 1
    size = 2 * rows * classes * dtype.itemsize
    turns = max(2, min(64, 4 * cache // size + 1))
    inputs = [(3 * torch.randn(rows, classes, device=device)).to(dtype).requires_grad_() for _ in range(turns)]
    indices, values = labels_of(rows, classes, device)
    target = recover(indices, values, classes)

    def backward(function, *labels):
        def launch(turn):
            inputs[turn].grad = None
            function(inputs[turn], *labels).backward()
        return launch

    ways = {"dense": lambda made: backward(made(dense), indices, values), "soft": lambda made: backward(made(soft), target),
            "scatter": lambda made: (lambda function: lambda _: function(indices, values, classes))(made(recover))}
    for compiled in (False, True):
        for way, launch in ways.items():
            try:
                yield way, compiled, microseconds(launch(lambda f: torch.compile(f, dynamic=False) if compiled else f), turns, device)
            except Exception as error:  # a machine without a C compiler compiles nothing
                print(f"{way}, compiled: {str(error).strip().splitlines()[0]}", file=sys.stderr)
    if ft is None:
        return
    labels = ft.SparseLabels(fkdb.LabelSpec("marginal-smoothing", num_classes=classes, top_k=K, values="f32"), indices.int(), values)
    criterion = ft.SoftTargetLoss()
    yield "fkdb", False, microseconds(backward(criterion, labels), turns, device)
    yield "one pass", False, microseconds(lambda turn: ft.loss_and_gradient(inputs[turn], labels), turns, device)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--program", type=pathlib.Path, default=pathlib.Path("build/release/bin/cuda_labels"))
    parser.add_argument("--json", type=pathlib.Path)
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    parser.add_argument("--rows", type=int, nargs="+", default=[1024, 16384])
    arguments = parser.parse_args()
    done = subprocess.run([arguments.program], stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode != 0 and arguments.device == "cuda":
        sys.exit(done.returncode)
    lines = []

    def add(line):
        lines.append(line)
        print("  ".join(f"{name} {value}" for name, value in line.items()), flush=True)

    for text in done.stdout.splitlines():
        add(json.loads(text))
    for rows in arguments.rows:
        for dtype, name in ((torch.float32, "f32"), (torch.bfloat16, "bf16")):
            for way, compiled, time_of in peers(rows, 1000, dtype, arguments.device):
                add({"what": "torch", "way": way, "compiled": compiled, "type": name, "rows": rows, "classes": 1000,
                     "microseconds": round(time_of, 2)})
    # The kernel alone, and what Python has of it.
    ours = {("kernel", line["rows"], line["type"]): line["microseconds"] for line in lines
            if line["what"] == "loss" and line["classes"] == 1000 and line["kind"] == "marginal-smoothing" and not line["mixed"]}
    ours |= {(line["way"], line["rows"], line["type"]): line["microseconds"] for line in lines if line.get("way") in ("fkdb", "one pass")}
    print("\nloss and gradient, times as fast as Torch:")
    for line in lines:
        if line["what"] != "torch" or line["way"] not in ("dense", "soft"):
            continue
        for way in ("kernel", "fkdb", "one pass"):
            if (way, line["rows"], line["type"]) in ours:
                ratio = line["microseconds"] / ours[way, line["rows"], line["type"]]
                print(f"{line['rows']} x 1000 {line['type']}: {way} {ratio:.2f} x {line['way']}{', compiled' if line['compiled'] else ''}")
    if arguments.json:
        arguments.json.write_text("".join(json.dumps(line) + "\n" for line in lines))


if __name__ == "__main__":
    main()
