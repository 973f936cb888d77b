# SPDX-License-Identifier: Apache-2.0
"""The folders that writer/CONVERTING.md converts: 60 images of 12 classes and their labels in every form."""

import json

import numpy as np
import peer_labels
import torch

KEYS = [f"n{c}/n{c}_{i}.JPEG" for c in range(12) for i in range(5)]


def batches(rng, order, size):
    """Image numbers of an epoch, and its batches' keys."""
    ids = rng.permutation(len(order)).tolist()
    return ids, [[order[i] for i in ids[at:at + size]] for at in range(0, len(ids), size)]


def make(root):
    torch.manual_seed(0)
    rng = np.random.default_rng(0)
    train = root / "imagenet/train"
    sizes = peer_labels.images(train, KEYS)
    order = peer_labels.folder_order(train)
    options = {"crops": 20}
    peer_labels.fkd(root / "fkd-labels/imagenet", sizes, "marginal_smoothing_k5", **options)
    peer_labels.fkd(root / "fkd-fp16/imagenet", sizes, "marginal_smoothing_k10", half=True, **options)
    (root / "fkd-fp16/imagenet/train/n11/n11_4.tar").unlink()
    broken = root / "fkd-fp16/imagenet/train/n2/n2_4.tar"
    broken.write_bytes(broken.read_bytes()[:1000])
    peer_labels.ml_dr(root / "imagenet-plus", order, sizes, crops=20, k=10, gzipped=True)
    peer_labels.relabel(root / "label-maps", sizes)
    peer_labels.tiny_vit(root / "tinyvit-logits", order, epochs=4, k=10)
    sampler = torch.utils.data.RandomSampler(range(len(order)), generator=torch.Generator().manual_seed(42))  # as SRe2L's
    for epoch in range(3):
        ids = list(sampler)
        for b, at in enumerate(range(0, len(ids), 25)):
            keys = [order[i] for i in ids[at:at + 25]]
            value, _ = peer_labels.batch(rng, keys, sizes, True, torch.randn(len(keys), 12), "cutmix", False)
            peer_labels.write(value, root / f"sre2l/epoch_{epoch}/batch_{b}.tar")
    ids = {}
    for n in range(9):
        _, of = batches(rng, order, 20)
        ids[str(n)] = [order.index(key) for key in of[0]]
        value, _ = peer_labels.batch(rng, of[0], sizes, True, torch.randn(20, 12), "cutmix", True, k=5)
        peer_labels.write(value, root / f"lpqld/batch_{n}.tar")
    missing = sorted(set(range(len(order))) - {i for batch in ids.values() for i in batch})
    if missing:
        ids["9"] = missing
        keys = [order[i] for i in missing]
        value, _ = peer_labels.batch(rng, keys, sizes, True, torch.randn(len(keys), 12), "cutmix", True, k=5)
        peer_labels.write(value, root / "lpqld/batch_9.tar")
    (root / "lpqld/sampler_indices_batch.json").write_text(json.dumps(ids))
    ids = {}
    for epoch in range(2):
        ids[str(epoch)], of = batches(rng, order, 25)
        values = [peer_labels.batch(rng, keys, sizes, True, torch.softmax(torch.randn(len(keys), 12) / 20, 1), "cutmix", False)[0] for keys in of]
        peer_labels.write(values, root / f"hald/epoch_{epoch}.tar")
    peer_labels.write(ids, root / "hald/sampler_indices_dict.pt")
