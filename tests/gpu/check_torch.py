#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""fkdb.torch's loss on a GPU against float64 on dense labels: every kind and type, autograd, CUDA graphs, torch.compile,
another stream, another thread. For machines without pytest; exit 1 at the first thing that is wrong.

    check_torch.py [--device cuda]      with `--device cpu` the same of the CPU's kernels, as far as it has them
"""

import argparse
import math
import os
import shutil
import threading

import torch

import fkdb
import fkdb.torch as ft

KINDS = ["marginal-smoothing", "marginal-renorm", "smoothing", "hard", "full", "logits"]
DTYPES = {torch.float32: 2e-6, torch.bfloat16: 1e-2, torch.float16: 1e-3}  # how far a gradient may be off, of the largest


def random_labels(kind, rows, classes, device):
    generator = torch.Generator().manual_seed(rows + classes)
    spec = fkdb.LabelSpec(kind, num_classes=classes, top_k=min(5, classes), values="f32")
    logits = 3 * torch.randn(rows, classes, generator=generator)
    p, order = torch.softmax(logits, 1).sort(1, descending=True)
    stored = logits if kind == "logits" else torch.softmax(logits, 1) if kind == "full" else p[:, :spec.num_values]
    return ft.SparseLabels(spec, order[:, :spec.num_indices].int().contiguous(), stored.contiguous()).to(device)


def dense_loss(logits, labels, temperature, tau):
    return torch.nn.functional.cross_entropy(logits.double() / temperature, labels.dense(tau).double(), reduction="none")


def check(what, good):
    print(f"{'ok  ' if good else 'BAD '} {what}", flush=True)
    if not good:
        raise SystemExit(1)


def check_kind(kind, dtype, rows, classes, device):
    labels = random_labels(kind, rows, classes, device)
    logits = (4 * torch.randn(rows, classes, device=device)).to(dtype).requires_grad_()
    exact = logits.detach().double().requires_grad_()
    weights = torch.rand(rows, device=device)
    expected = dense_loss(exact, labels, 1.5, 2.0)
    slope, = torch.autograd.grad((weights * expected).sum(), exact)
    losses = ft.soft_target_loss(logits, labels, 1.5, 2.0)
    gradient, = torch.autograd.grad((weights * losses).sum(), logits)
    once_losses, once = ft.loss_and_gradient(logits, labels, 1.5, 2.0)
    near = DTYPES[dtype] * max(float(slope.abs().max()), 1e-3)
    check(f"{kind}, {dtype}, {rows} x {classes}",
          losses.dtype == torch.float32 and gradient.dtype == dtype and
          torch.allclose(losses.double(), expected, rtol=2e-5, atol=2e-5) and torch.equal(losses, once_losses) and
          float((gradient - slope).abs().max()) <= near and
          float((once.double() * rows * weights[:, None] - slope).abs().max()) <= 2 * near)


def check_graph(labels, logits):
    for _ in range(2):
        ft.loss_and_gradient(logits, labels)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses, gradient = ft.loss_and_gradient(logits, labels)
    logits.copy_(torch.randn_like(logits))
    graph.replay()
    expected = ft.loss_and_gradient(logits, labels)
    check("in a CUDA graph", torch.equal(losses, expected[0]) and torch.equal(gradient, expected[1]))


def check_stream(labels, logits):
    """Work before it on the same stream is seen, whatever the stream."""
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        moved = logits
        for _ in range(50):
            moved = moved + 1
        losses = ft.soft_target_loss(moved, labels)
    stream.synchronize()
    check("on another stream", torch.allclose(losses, ft.soft_target_loss(logits + 50, labels), atol=1e-3))


def check_thread(labels, logits):
    seen = []
    thread = threading.Thread(target=lambda: seen.append(ft.soft_target_loss(logits, labels)))
    thread.start()
    thread.join()
    check("on another thread", torch.equal(seen[0], ft.soft_target_loss(logits, labels)))


def check_scaler(labels, logits):
    """float16 under a loss scale: what is below its smallest number without one is there with it."""
    half = (logits * 4).half().requires_grad_()
    scale = 65536.0
    (ft.SoftTargetLoss(reduction="sum")(half, labels) * scale).backward()
    exact = half.detach().double().requires_grad_()
    dense_loss(exact, labels, 1, 1).sum().backward()
    small = (exact.grad.abs() < 1e-8) & (exact.grad.abs() > 1e-10)
    error = (half.grad.double() / scale - exact.grad).abs()[small] / exact.grad.abs()[small]
    check(f"{int(small.sum())} gradients below binary16's smallest, scaled", int(small.sum()) > 0 and float(error.median()) < 0.01)


def check_compiled(labels, logits):
    if not any(shutil.which(name) for name in (os.environ.get("CC", "cc"), "gcc", "clang")):
        print("     torch.compile: not tried, there is no C compiler")
        return
    criterion = ft.SoftTargetLoss()
    layer = torch.nn.Linear(logits.shape[1], logits.shape[1], device=logits.device)
    step = torch.compile(lambda x: criterion(layer(x), labels), fullgraph=True)
    ours, plain = step(logits), criterion(layer(logits), labels)
    slopes = [torch.autograd.grad(loss, layer.weight)[0] for loss in (ours, plain)]
    check("under torch.compile", torch.allclose(ours, plain, rtol=1e-3) and torch.allclose(*slopes, rtol=1e-2, atol=1e-4))


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("--device", default="cuda", choices=["cuda", "cpu"])
    device = parser.parse_args().device
    if device == "cuda":
        check(f"torch {torch.__version__} sees a GPU", torch.cuda.is_available())
        print(f"     {torch.cuda.get_device_name()}")
        check("this build of fkdb has kernels for GPUs", fkdb._core.has_gpu_kernels)
    torch.manual_seed(1)
    for kind in KINDS:
        for dtype in DTYPES:
            for rows, classes in ((40, 50), (7, 1000), (3, 21841)):
                check_kind(kind, dtype, rows, classes, device)
    labels, logits = random_labels("marginal-smoothing", 64, 500, device), torch.randn(64, 500, device=device)
    if device == "cuda":
        check_graph(labels, logits)
        check_stream(labels, logits)
    check_thread(labels, logits)
    check_scaler(random_labels("hard", 64, 500, device), logits)
    check_compiled(labels, logits)
    print(f"everything is right on {device}" + ("" if math.isfinite(float(logits.sum())) else "?"))


if __name__ == "__main__":
    main()
