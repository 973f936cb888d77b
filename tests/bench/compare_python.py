# SPDX-License-Identifier: Apache-2.0
"""The Python package's part of compare.py: labels, threads, and the whole way from files to batches."""

import pathlib
import random
import sys
import threading
import time

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms import functional as F

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[2] / "build/release/python"))
import fkdb  # noqa: E402
import fkdb.torch  # noqa: E402

M, BATCH_IMAGES, WORKERS = 4, 16, 2


def batches_of(db, count, rng):
    return [rng.integers(0, len(db), 256) for _ in range(count)]


def sampled(db, batches):
    """Microseconds an image of db.sample, 4 of 200 crops, every array looked at."""
    begun = time.perf_counter()
    for ordinals in batches:
        batch = db.sample(ordinals, M, seed=1)
        batch.indices, batch.values, batch.boxes, batch.flips
    return 1e6 * (time.perf_counter() - begun) / sum(map(len, batches))


def sampled_by(db, batches, count):
    """The same by `count` threads at once, of all images."""
    threads = [threading.Thread(target=sampled, args=(db, batches)) for _ in range(count)]
    begun = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return 1e6 * (time.perf_counter() - begun) / count / sum(map(len, batches))


class Reference(Dataset):
    """As the original trains: Pillow, and one torch.save file an image."""

    def __init__(self, photos, files, mean, std, dense):
        self.photos, self.files, self.mean, self.std, self.dense = photos, files, mean, std, dense

    def __len__(self):
        return len(self.photos)

    def __getitem__(self, i):
        photo = Image.open(self.photos[i]).convert("RGB")
        boxes, flips, label = torch.load(self.files[i], weights_only=False)
        chosen, crops = random.sample(range(len(boxes)), M), []
        for n in chosen:
            top, left, height, width = (int(round(s * e)) for s, e in zip(boxes[n].tolist(), (photo.height, photo.width) * 2))
            crop = photo.crop((left, top, left + width, top + height)).resize((224, 224), Image.Resampling.BILINEAR)
            crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flips[n] else crop
            crops.append(F.normalize(F.to_tensor(crop), self.mean, self.std))
        label = torch.from_numpy(label[np.array(chosen)])
        return torch.stack(crops), self.dense(label[:, 0].long(), label[:, 1])


def pickled(work, photos, image_labels):
    """A file for each photo in the original's form, 200 crops with boxes inside it."""
    rng, folder = np.random.default_rng(6), work / "photo-pickles"
    folder.mkdir()
    for i in range(len(photos)):
        _, flips, label = image_labels(rng)
        sides = rng.uniform(0.3, 1, (len(flips), 2))
        boxes = np.concatenate([rng.random(sides.shape) * (1 - sides), sides], 1).astype("f4")
        torch.save([boxes, flips, label], folder / f"{i}.tar")
    return [folder / f"{i}.tar" for i in range(len(photos))]


def loaded(loader, images, passes=4):
    """Images a second, from files to batches of tensors; workers are there already."""
    def one():
        begun = time.perf_counter()
        for _ in range(passes):
            for inputs, _ in loader:
                assert inputs.dtype == torch.float32
        return passes * images / (time.perf_counter() - begun)
    one()
    return one


def pipelines(work, image_labels, mean, std, dense):
    """{name: callable}: the reference, FkdDataset under DataLoader, FkdLoader; two workers each."""
    photos = sorted((work / "photos").glob("*/*"))
    db = fkdb.open(work / "photos.fkdb")
    options = {"batch_size": BATCH_IMAGES, "num_workers": WORKERS, "persistent_workers": True}
    reference = Reference(photos, pickled(work, photos, image_labels), mean, std, dense)
    dataset = fkdb.torch.FkdDataset(work / "photos", db, M, input_size=224)
    sampler = fkdb.torch.FkdSampler(dataset)
    return {
        "Pillow, torch.load, DataLoader": loaded(DataLoader(reference, shuffle=True, **options), len(photos)),
        "FkdDataset": loaded(DataLoader(dataset, sampler=sampler, collate_fn=fkdb.torch.collate, **options), len(photos)),
        "FkdLoader": loaded(fkdb.torch.FkdLoader(work / "photos", db, M, M * BATCH_IMAGES, workers=WORKERS, input_size=224), len(photos)),
    }
