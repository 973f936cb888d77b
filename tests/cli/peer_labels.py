# SPDX-License-Identifier: Apache-2.0
"""Small label sets in other systems' forms, written from the facts of their formats, and images for them."""

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
    torch.save(state, path, pickle_protocol=protocol)
    data = path.read_bytes()
    assert data[:2] == b"PK"  # a zip, whatever the name says
    if numpy_1 and b"numpy._core.multiarray" in data:
        rename_numpy(state, path, protocol)


def rename_numpy(state, path, protocol):
    """The same file as NumPy 1 would have had it written."""
    import io
    import pickle
    import zipfile

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
