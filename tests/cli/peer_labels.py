# SPDX-License-Identifier: Apache-2.0
"""Small label sets in other systems' forms, written from the facts of their formats, and images for them."""

import gzip
import io
import pathlib
import pickle
import struct
import zipfile

import numpy as np
import torch
from PIL import Image

CLASSES = 12


def images(folder, keys, seed=0, sizes=None):
    """Photos (of noise) of mixed sizes; returns {key: (height, width)}."""
    rng = np.random.default_rng(seed)
    made = {}
    for key in keys:
        height, width = sizes[key] if sizes else (int(rng.integers(20, 640)), int(rng.integers(20, 640)))
        path = folder / key
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = rng.integers(0, 255, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((width, height)).save(path, quality=50) if path.suffix.lower() != ".png" else \
            Image.fromarray(pixels).resize((width, height)).save(path)
        made[key] = (height, width)
    return made


def boxes(rng, height, width, crops):
    """Whole-pixel boxes (M, 4): top, left, height, width."""
    h = rng.integers(1, height + 1, crops)
    w = rng.integers(1, width + 1, crops)
    return np.stack([rng.integers(0, height - h + 1), rng.integers(0, width - w + 1), h, w], 1)


def probabilities(rng, crops, classes, sharpness=3.0):
    logits = rng.normal(0, sharpness, (crops, classes)).astype(np.float32)
    return torch.softmax(torch.from_numpy(logits), 1)


def fkd_label(p, kind):
    """label of FKD's generator for p (M, C): `kind` as its --label_type."""
    top = torch.sort(p, 1, descending=True)
    if kind == "ori":
        return p.numpy()
    if kind == "hard":
        return top.indices[:, 0].numpy()
    if kind == "smoothing":
        return torch.stack([top.indices[:, 0].float(), top.values[:, 0]], 1).numpy()
    k = int(kind.rsplit("_k", 1)[1])
    return torch.stack([top.indices[:, :k].float(), top.values[:, :k]], 1).numpy()


def fkd_name(key):
    folder, _, name = key.rpartition("/")
    return f"{folder}/{name.split('.')[0]}.tar"


def fkd(folder, sizes, kind="marginal_smoothing_k5", crops=6, half=False, tensors=False, classes=CLASSES, protocol=2, seed=1,
        numpy_1=True):
    """FKD's label folder for images of these sizes, below `folder`/train; returns {key: [coords, flip, label]}."""
    rng = np.random.default_rng(seed)
    made = {}
    for key, (height, width) in sizes.items():
        coords = torch.tensor(boxes(rng, height, width, crops).tolist(), dtype=torch.float64)
        coords = (coords / torch.tensor([height, width, height, width], dtype=torch.float64)).float().numpy()
        flip = rng.integers(0, 2, crops).astype(bool)
        label = fkd_label(probabilities(rng, crops, classes), kind)
        if half:
            coords, label = coords.astype(np.float16), label.astype(np.float16)
        state = [coords, flip, label]
        made[key] = state
        if tensors:
            state = [torch.from_numpy(np.ascontiguousarray(a)) for a in state]
        save(state, folder / "train" / fkd_name(key), protocol, numpy_1)
    return made


def save(state, path, protocol=2, numpy_1=True):
    """torch.save, with the module names of NumPy 1 or 2."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.save(state, path, pickle_protocol=protocol)
    except UnicodeEncodeError:  # a name that is no text; the archive in the file then has another
        out = io.BytesIO()
        torch.save(state, out, pickle_protocol=protocol)
        path.write_bytes(out.getvalue())
    data = path.read_bytes()
    assert data[:2] == b"PK"  # a zip, whatever the name says
    if numpy_1 and b"numpy._core.multiarray" in data:
        rename_numpy(state, path, protocol)


def rename_numpy(state, path, protocol):
    """The same file as NumPy 1 would have had it written."""
    class OldNames(pickle._Pickler):
        def save_global(self, obj, name=None):
            module = getattr(obj, "__module__", None) or ""
            if not module.startswith("numpy._core"):
                return super().save_global(obj, name)
            old, name = module.replace("numpy._core", "numpy.core"), obj.__qualname__
            if self.proto >= 4:
                self.save(old), self.save(name)
                self.write(pickle.STACK_GLOBAL)
            else:
                self.write(pickle.GLOBAL + old.encode() + b"\n" + name.encode() + b"\n")
            self.memoize(obj)

        dispatch = dict(pickle._Pickler.dispatch)
        dispatch[type(save)] = save_global
        dispatch[type(np.array)] = save_global

    out = io.BytesIO()
    OldNames(out, protocol).dump(state)
    with zipfile.ZipFile(path, "w") as archive:
        for name, member in (("data.pkl", out.getvalue()), ("version", b"3\n")):
            archive.writestr(f"{path.stem}/{name}", member)


def folder_order(folder):
    """The keys of a folder's images as torchvision numbers them."""
    from torchvision.datasets import ImageFolder
    return [str(pathlib.Path(path).relative_to(folder)) for path, _ in ImageFolder(folder).samples]


def ml_dr(folder, order, sizes, crops=5, k=4, mixing=True, rand_augment=True, erase=True, gzipped=False, seed=2):
    """ml-dr's files; returns {key: [{'box', 'flip', 'ops', 'p', 'classes'}]}, ops as fkdb-dump names them."""
    rng = np.random.default_rng(seed)
    folder.mkdir(parents=True)
    steps = {"uint8": {"enable": True}, "random_resized_crop": {"size": 224}, "random_horizontal_flip": {"enable": True, "p": 0.5},
             "rand_augment": {"enable": rand_augment}, "to_tensor": {"enable": True}, "normalize": {"mean": [0.5], "std": [0.5]},
             "random_erase": {"enable": erase}, "mixup": {"enable": mixing, "p": 0.5}, "cutmix": {"enable": mixing, "p": 0.5}}
    torch.save({"seed": None, "reinforce": {"num_samples": crops, "topk": k, "compress": True, "image_augmentation": steps}}, folder / "config.pth.tar")

    def view(key):
        """The parameters of one image's part of a crop, and what they mean."""
        height, width = sizes[key]
        box = boxes(rng, height, width, 1)[0].tolist()
        flip = bool(rng.integers(2))
        params, ops = [tuple(box), flip], []
        if rand_augment:
            drawn = [(int(rng.integers(14)), float(np.float32(rng.uniform(0.1, 0.9)))) for _ in range(2)] if rng.random() < 0.8 else None
            params.append(drawn)
            for index, m in drawn or []:
                name, value = [(None, None), ("shear-x", np.degrees(np.arctan(m))), ("shear-y", np.degrees(np.arctan(m))), ("translate-x", int(m)),
                               ("translate-y", int(m)), ("rotate", m), ("brightness", 1 + m), ("saturation", 1 + m), ("contrast", 1 + m),
                               ("sharpness", 1 + m), ("posterize", int(m)), ("solarize", m), ("auto-contrast", None), ("equalize", None)][index]
                if name:
                    ops.append((name, None, [] if value is None else [value]))
        if erase:
            drawn = (3, 4, 20, 30) if rng.random() < 0.5 else None
            params.append(drawn)
            ops += [("erase", None, list(drawn))] if drawn else []
        return params, box, flip, ops

    made = {}
    for number, key in enumerate(order):
        samples, meant = [], []
        for _ in range(crops):
            own, box, flip, ops = view(key)
            params = list(own)
            if mixing:
                mixup = float(rng.uniform(0, 0.5)) if rng.random() < 0.5 else None
                cutmix = [float(rng.uniform()), 10, 20, 60, 90] if rng.random() < 0.5 else None
                partner = int(rng.integers(len(order))) if mixup is not None or cutmix else None
                if partner is not None:
                    other, other_box, other_flip, other_ops = view(order[partner])
                    params = [list(pair) for pair in zip(own, other)]
                    ops = ops + [("partner-crop", None, [*other_box, int(other_flip)])] + other_ops
                    ops += [("mixup", order[partner], [mixup])] if mixup is not None else []
                    ops += [("cutmix", order[partner], [cutmix[0], 10, 20, 50, 70])] if cutmix else []
                params = [partner, *params, mixup, cutmix]
            p = probabilities(rng, 1, CLASSES)[0].numpy()
            classes = np.argpartition(p, -k)[-k:]
            samples.append({"params": params, "prob": (p[classes].tolist(), classes.tolist())})
            meant.append({"box": box, "flip": flip, "ops": ops, "p": np.sort(p[classes])[::-1], "classes": classes[np.argsort(-p[classes])]})
        path = folder / f"{number}.pth.tar"
        torch.save((number, samples), path, pickle_protocol=4)
        if gzipped:
            path.write_bytes(gzip.compress(path.read_bytes()))
        made[key] = meant
    return made


def batch(rng, keys, sizes, half, outputs, mix, listed, k=None):
    """One batch of dataset distillation; returns (the list that is saved, {key: what its crop is})."""
    size = len(keys)
    whole = [boxes(rng, *sizes[key], 1)[0] for key in keys]
    coords = torch.tensor([[t / sizes[key][0], l / sizes[key][1], h / sizes[key][0], w / sizes[key][1]] for key, (t, l, h, w) in zip(keys, whole)])
    coords = coords.half() if half else coords
    flips = torch.from_numpy(rng.integers(0, 2, size).astype(bool))
    rand = [[torch.from_numpy(rng.integers(0, 15, size)), torch.from_numpy(rng.integers(0, 2, size)), torch.rand(size).half()] for _ in range(2)] if listed else None
    index = torch.from_numpy(rng.permutation(size)) if mix else None
    lam = float(rng.beta(1, 1)) if mix else None
    box = [np.int64(10), np.int64(20), np.int64(60), np.int64(90)] if mix == "cutmix" else None
    if k and mix:
        index = index.to(torch.uint8)
        box = box and [torch.tensor(b, dtype=torch.uint8) for b in box]
    value = [coords, flips, *([rand] if listed else []), index, lam, box]
    top = torch.topk(outputs, k, 1) if k else None
    value += [top.values.half(), top.indices.short()] if k else [outputs.half() if half else outputs]
    crops = []
    for i, key in enumerate(keys):
        def listed_ops(j):
            return [("listed", None, [int(op[0][j]), int(op[1][j]), float(op[2][j])]) for op in rand or []]
        ops = listed_ops(i)
        if mix:
            j = int(index[i])
            ops += [("partner-crop", None, [*(int(v) for v in whole[j]), int(flips[j])]), *listed_ops(j)]
            ops.append(("cutmix", keys[j], [lam, 10, 20, 50, 70]) if box else ("mixup", keys[j], [lam]))
        crops.append({"box": [int(v) for v in whole[i]], "flip": bool(flips[i]), "ops": ops,
                      "output": value[3 + bool(listed) + 2][i].float().numpy(), "classes": top.indices[i].numpy() if k else None})
    return value, crops


def tiny_vit(folder, order, epochs=3, ranks=2, k=6, by_number=False, seed=4):
    """TinyViT's sparse logits; returns {key: [(seed, classes, p as float16)]}."""
    rng = np.random.default_rng(seed)
    made = {key: [] for key in order}
    for epoch in range(epochs):
        below = folder / f"logits_top{k}_epoch{epoch}"
        below.mkdir(parents=True)
        for rank in range(ranks):
            keys, values = "", b""
            for number in rng.permutation(range(rank, len(order), ranks)):
                p = probabilities(rng, 1, CLASSES)
                top = torch.topk(p[0], k)
                drawn = int(rng.integers(0, 2**31))
                keys += f"{number if by_number else order[number]}\n"
                record = struct.pack("<i", drawn) + top.indices.numpy().astype(np.int16).tobytes() + top.values.half().numpy().tobytes()
                assert len(record) == 4 + 4 * k
                values += record
                made[order[number]].append((drawn, top.indices.numpy(), top.values.half().numpy()))
            (below / f"rank{rank}-keys.txt").write_text(keys)
            (below / f"rank{rank}-values.bin").write_bytes(values)
    return made


def write(value, path):
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(value, path)


def relabel(folder, sizes, grid=(15, 15), k=5, half=False, seed=6):
    """ReLabel's label maps, <class>/<name>.pt; returns {key: tensor (2, K, H, W)}: scores, classes."""
    rng = np.random.default_rng(seed)
    made = {}
    for key in sizes:
        logits = torch.from_numpy(rng.normal(0, 4, (CLASSES, *grid)).astype(np.float32))
        top = torch.topk(logits, k, 0)
        made[key] = torch.stack([top.values, top.indices.float()])
        made[key] = made[key].half() if half else made[key]
        write(made[key], folder / fkd_name(key).replace(".tar", ".pt"))
    return made
