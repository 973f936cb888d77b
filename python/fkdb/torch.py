# SPDX-License-Identifier: Apache-2.0
"""fkdb for PyTorch: stored crops and labels in place of a data set's random crops and classes.

Two ways in, which give the same crops, labels and pixels:

* `FkdLoader`: the C++ input path; decodes, crops and reads labels on threads of its own, gives ready tensors.
* `FkdDataset` with `FkdSampler` and `collate` under torch.utils.data.DataLoader, for data sets and transforms of your own.

Both give `FkdBatch`es, which unpack into (inputs, labels), and `SoftTargetLoss` takes logits and labels.

Epochs count crops, as in the paper: a pass with m crops an image is m epochs (section 3.3), so a training of 300 epochs is
a loop over range(0, 300, m).
"""

from __future__ import annotations

import dataclasses
import operator
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
import torch.utils.data

from . import _core
from ._core import LabelBatch, LabelSpec
from ._errors import InvalidArgumentError, MismatchError, UnsupportedError
from ._images import CropInputs, DataSet, as_pixels
from ._label_set import LabelSet, Path, open
from ._torch_labels import SoftTargetLoss, SparseLabels, loss_and_gradient, soft_target_loss

__all__ = ["FkdBatch", "FkdDataset", "FkdLoader", "FkdSampler", "SoftTargetLoss", "SparseLabels", "Visit", "collate", "loss_and_gradient", "soft_target_loss"]


@dataclasses.dataclass
class _Samples:
    """Crops that are not normalized yet: a quarter of the bytes to hand from a worker, to pin, to copy to a GPU."""

    pixels: torch.Tensor  # (N, height, width, channels) uint8
    crop_inputs: CropInputs

    def __len__(self) -> int:
        return len(self.pixels)

    def normalized(self) -> torch.Tensor:
        """(N, channels, height, width) float32, computed where the samples are."""
        if self.pixels.device.type == "cpu":
            return torch.from_numpy(self.crop_inputs.core.normalize(self.pixels.numpy()))
        return _normalize(self.pixels.permute(0, 3, 1, 2), self.crop_inputs)


class FkdBatch:
    """N = I * m crops of I images: image i has rows i * m to (i + 1) * m - 1. Unpacks into (inputs, labels).

    labels: `SparseLabels`. ordinals: (I,) int64, the images. targets: (N,) int64, the class of each crop's image; -1: none
    that is known. state: of the loader or sampler, to go on behind this batch (load_state_dict).
    """

    def __init__(self, inputs: torch.Tensor | _Samples, labels: SparseLabels, ordinals: torch.Tensor, targets: torch.Tensor,
                 state: dict[str, int]) -> None:
        self._inputs, self.labels, self.ordinals, self.targets, self.state = inputs, labels, ordinals, targets, state

    @property
    def inputs(self) -> torch.Tensor:
        """(N, channels, height, width). Samples from a DataLoader are normalized at the first look, where they are by then."""
        if isinstance(self._inputs, _Samples):
            self._inputs = self._inputs.normalized()
        return self._inputs

    def __iter__(self) -> Iterator[Any]:
        return iter((self.inputs, self.labels))

    def __len__(self) -> int:
        return len(self._inputs)

    def to(self, *arguments: Any, **options: Any) -> FkdBatch:
        """On another device, or the inputs in another type, as Tensor.to."""
        device, dtype, non_blocking, _ = torch._C._nn._parse_to(*arguments, **options)
        inputs, device = self._inputs, self.labels.device if device is None else device
        if isinstance(inputs, _Samples):
            inputs = _Samples(inputs.pixels.to(device, non_blocking=non_blocking), inputs.crop_inputs)
        if dtype is not None or isinstance(inputs, torch.Tensor):
            floats = inputs.normalized() if isinstance(inputs, _Samples) else inputs
            inputs = floats.to(device, dtype, non_blocking=non_blocking)
        return FkdBatch(inputs, self.labels.to(device, non_blocking), self.ordinals, self.targets.to(device, non_blocking=non_blocking),
                        self.state)

    def pin_memory(self, *arguments: Any) -> FkdBatch:
        inputs = self._inputs
        pinned = _Samples(inputs.pixels.pin_memory(), inputs.crop_inputs) if isinstance(inputs, _Samples) else inputs.pin_memory()
        return FkdBatch(pinned, self.labels.pin_memory(), self.ordinals, self.targets.pin_memory(), self.state)


class Visit(NamedTuple):
    """What `FkdSampler` asks of `FkdDataset`: an image in one pass."""

    item: int  # of the data set
    epoch: int
    images: int  # of the pass that are done with it, in all processes


class FkdDataset(torch.utils.data.Dataset[FkdBatch]):
    """m crops of each image with their labels, for torch.utils.data.DataLoader: stored ones, or fresh ones of label maps (ReLabel).

        dataset = FkdDataset("train/", "labels.fkdb", crops_per_image=4)
        loader = DataLoader(dataset, batch_size=64, sampler=FkdSampler(dataset), collate_fn=collate, num_workers=8)

    A batch of 64 images then has 256 crops. Works with forked and spawned workers, persistent or not.

    images: a path as of `fkdb.open_images`; an `fkdb.DataSet`; a torchvision ImageFolder; or any data set whose items are
    images (PIL, uint8 arrays, uint8 tensors) or tuples that begin with one, with `keys` naming each item's image.
    db: a `LabelSet` or its path. crops_per_image: m; of stored crops 4, of label maps 1 unless given.
    order: 'cycle' or 'visit', as of LabelSet.sample; of stored crops alone.
    pixels: 'fkdb', the bytes the teacher saw, normalized as the manifest says; 'torchvision': its v2 resized_crop
    (antialiased) and horizontal_flip.
    transform: applied to each crop, (channels, height, width) uint8: what it returns is stacked instead of normalized crops.
    input_size: of the student, pixels or (height, width); the teacher's unless given.
    allow_missing: takes the images that both have; `missing` says which labelled ones there are not.
    scale, ratio: of label maps' fresh crops, as of LabelSet.pool.

    len() counts the images that have labels, in key order; items are `FkdBatch`es of one image.
    Raises MismatchError, naming the first difference, if images and label set do not belong together.
    """

    def __init__(self, images: Any, db: LabelSet | Path, crops_per_image: int | None = None, *, seed: int = 0,
                 order: Literal["cycle", "visit"] = "cycle", pixels: Literal["fkdb", "torchvision"] = "fkdb",
                 transform: Callable[[torch.Tensor], torch.Tensor] | None = None, keys: Sequence[str | bytes] | None = None,
                 input_size: int | Sequence[int] | None = None, allow_missing: bool = False, scale: Sequence[float] | None = None,
                 ratio: Sequence[float] | None = None) -> None:
        if pixels not in ("fkdb", "torchvision"):
            raise InvalidArgumentError(f"pixels {pixels!r}: expected 'fkdb' or 'torchvision'")
        if order not in ("cycle", "visit"):
            raise InvalidArgumentError(f"order {order!r}: expected 'cycle' or 'visit'")
        self.db = db if isinstance(db, LabelSet) else open(db)
        crops_per_image = _crops_per_image(crops_per_image, self.db)
        _check_numbers(crops_per_image=crops_per_image)
        self._sampling = self.db._sampling(scale, ratio)
        self.crops_per_image, self.seed, self.order, self.pixels, self.transform = crops_per_image, seed, order, pixels, transform
        self.epoch, self._plain = 0, 0
        self._inputs = CropInputs.of(self.db.manifest, input_size)
        self._images = _match(images, self.db, keys, allow_missing)
        if pixels == "fkdb":
            self.db._core.check_pixels()
        self.missing = self._images.missing
        self._labelled = _labelled(self.db, self.missing)
        self.db.preload()

    def set_epoch(self, epoch: int) -> None:
        """For plain whole-number indices only: persistent workers do not hear of it. `FkdSampler` tells them itself."""
        self.epoch, self._plain = epoch, 0

    def __len__(self) -> int:
        return len(self._labelled)

    def __getitem__(self, index: int | Visit) -> FkdBatch:
        return self.__getitems__([index])

    def __getitems__(self, indices: Sequence[int | Visit]) -> FkdBatch:
        visits = [index if isinstance(index, Visit) else Visit(int(index), self.epoch, 0) for index in indices]
        if not isinstance(indices[0], Visit):
            self._plain += len(indices)
            if len(self) < self._plain <= len(self) + len(indices):
                warnings.warn("the same crops come again: give DataLoader an FkdSampler, or call set_epoch before each pass", stacklevel=2)
        if len({visit.epoch for visit in visits}) > 1:
            raise InvalidArgumentError("a batch of several passes")
        ordinals = self._labelled[[visit.item for visit in visits]]
        epoch = visits[0].epoch
        m, (scale, ratio) = self.crops_per_image, self._sampling
        batch = (self.db.pool(ordinals, m, self.seed, epoch, scale=scale, ratio=ratio) if _has_maps(self.db)
                 else self.db.sample(ordinals, m, self.seed, epoch, order=self.order))
        _check_ops(self.db, batch, self._inputs.shape, self.pixels == "fkdb" and self.transform is None and isinstance(self._images, _FilesOfDataSet))
        labels = SparseLabels(batch.spec, torch.from_numpy(batch.indices), torch.from_numpy(batch.values))
        targets = torch.from_numpy(np.repeat(self._images.targets[ordinals], m))
        return FkdBatch(self._crops(ordinals, batch), labels, torch.from_numpy(batch.ordinals), targets,
                        {"epoch": epoch, "images": visits[-1].images})

    def _crops(self, ordinals: npt.NDArray[np.int64], batch: LabelBatch) -> torch.Tensor | _Samples:
        if self.pixels == "fkdb" and self.transform is None:
            channels, height, width = self._inputs.shape
            out = _empty((len(batch), height, width, channels))
            self._images.read(self._inputs, ordinals, batch, out)
            return _Samples(out, self._inputs)
        crops: list[torch.Tensor] = []
        m = self.crops_per_image
        for i, ordinal in enumerate(ordinals.tolist()):
            pixels = self._images.load(ordinal)
            _check_size(self.db, ordinal, pixels, batch.sizes[i])
            boxes, flips = batch.boxes[i * m:(i + 1) * m], batch.flips[i * m:(i + 1) * m]
            if self.pixels == "fkdb":
                samples = torch.from_numpy(self._inputs.samples(pixels, boxes, flips)).permute(0, 3, 1, 2)
            else:
                samples = _torchvision_crops(pixels, boxes, flips, self._inputs)
            crops += [self.transform(crop) for crop in samples] if self.transform else [_normalize(samples, self._inputs)]
        return torch.stack(crops) if self.transform else torch.cat(crops)


def collate(items: FkdBatch | Sequence[FkdBatch]) -> FkdBatch:
    """For DataLoader's collate_fn: one `FkdBatch` of several."""
    if isinstance(items, FkdBatch):  # DataLoader fetched them in one call
        return items
    parts = [item._inputs for item in items]
    samples = [part for part in parts if isinstance(part, _Samples)]
    inputs = (_Samples(torch.cat([part.pixels for part in samples]), samples[0].crop_inputs) if len(samples) == len(parts)
              else torch.cat([item.inputs for item in items]))
    return FkdBatch(inputs,
                    SparseLabels(items[0].labels.spec, torch.cat([item.labels.indices for item in items]),
                                 torch.cat([item.labels.values for item in items])),
                    torch.cat([item.ordinals for item in items]), torch.cat([item.targets for item in items]), items[-1].state)


class FkdSampler(torch.utils.data.Sampler[Visit]):
    """The images of a pass in the order of (seed, epoch), for an `FkdDataset`: that of `FkdLoader` and `fkdb-train`.

    Of num_replicas processes, each gets its share by rank (both from torch.distributed, if it is initialized): no image
    twice; the last few, fewer than num_replicas, are left out of a pass, others in each.

    Every iteration is the pass after the last, also if that was broken off; set_epoch goes elsewhere.
    `load_state_dict(batch.state)` goes on behind that batch, however far workers had read ahead of it, with any number of
    processes.
    """

    def __init__(self, dataset: FkdDataset, *, num_replicas: int | None = None, rank: int | None = None, shuffle: bool = True) -> None:
        self._dataset, self._shuffle = dataset, shuffle
        self._rank, self._ranks = _shard(rank, num_replicas)
        self.epoch, self._done = 0, 0

    def set_epoch(self, epoch: int) -> None:
        """epoch: how many crops of each image were used before the pass: a multiple of m."""
        _check_epoch(epoch, self._dataset.crops_per_image)
        if epoch != self.epoch:
            self.epoch, self._done = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Of the pass that the next iteration is. In mid-pass ask the batch: batch.state."""
        return {"epoch": self.epoch, "images": self._done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.epoch, self._done = _place(state, self._dataset.crops_per_image, len(self._dataset), self._ranks)

    def __len__(self) -> int:
        return (len(self._dataset) - self._done) // self._ranks

    def __iter__(self) -> Iterator[Visit]:
        epoch, m, done = self.epoch, self._dataset.crops_per_image, self._done
        self.epoch, self._done = epoch + m, 0
        return self._visits(epoch, m, done)

    def _visits(self, epoch: int, m: int, done: int) -> Iterator[Visit]:
        count = len(self._dataset)
        order = _core.image_order(count, self._dataset.seed, epoch // m) if self._shuffle else np.arange(count)
        for place in range(done, count - self._ranks + 1, self._ranks):
            yield Visit(int(order[place + self._rank]), epoch, place + self._ranks)


class FkdLoader:
    """The C++ input path: decoding, cropping and labels on threads of its own, ahead of their use. No DataLoader.

        loader = FkdLoader("train/", "labels.fkdb", crops_per_image=4, batch_size=256, workers=8)
        for epoch in range(0, 300, 4):
            for inputs, labels in loader:
                loss = criterion(model(inputs), labels)

    Each iteration is the pass after the last, also if that was broken off, and is as `fkdb-train` would make it, bit for bit
    whatever the number of workers; the first batches of the next pass are made while this one ends. A batch's memory is used
    again once its tensors are gone. `close()` ends the threads, and so does forgetting the loader.

    images: a path as of `fkdb.open_images`, an `fkdb.DataSet`, or a torchvision ImageFolder, whose root is opened.
    db: a `LabelSet` or its path. batch_size: crops, in each process, rounded up to whole images; drop_last: leaves out a
    smaller last batch. order: 'cycle' or 'visit'. input_size: of the student, pixels or (height, width).
    num_replicas, rank: from torch.distributed, if it is initialized; shares as of `FkdSampler`.
    allow_missing: takes the images that both have; `missing` says which labelled ones there are not.

    From label maps (ReLabel) it takes fresh crops of every image, one a pass unless crops_per_image says more, and pools each one's
    label from the map of its image (`fkdb-train --supervision relabel`): labels are of kind full. scale and ratio are of these crops,
    as torchvision's RandomResizedCrop has them; by default those of the label set. order is of stored crops alone.

    Raises MismatchError, naming the first difference, if images and label set do not belong together.
    """

    _PASSES = 256  # that a pipeline goes through before the next is begun

    def __init__(self, images: Any, db: LabelSet | Path, crops_per_image: int | None = None, batch_size: int = 256, *,
                 workers: int | None = None, seed: int = 0, order: Literal["cycle", "visit"] = "cycle", drop_last: bool = False,
                 input_size: int | Sequence[int] | None = None, num_replicas: int | None = None, rank: int | None = None,
                 allow_missing: bool = False, scale: Sequence[float] | None = None, ratio: Sequence[float] | None = None) -> None:
        workers = len(os.sched_getaffinity(0)) if workers is None else workers
        self.db = db if isinstance(db, LabelSet) else open(db)
        crops_per_image = _crops_per_image(crops_per_image, self.db)
        _check_numbers(crops_per_image=crops_per_image, batch_size=batch_size, workers=workers)
        self._sampling = self.db._sampling(scale, ratio)
        # Of the batches' labels: those of pooled maps are full.
        self._spec = LabelSpec("full", num_classes=self.db.spec.num_classes, values="f32") if _has_maps(self.db) else self.db.spec
        if _is_image_folder(images):
            images = images.root
        self._data = _of_label_set(images if isinstance(images, DataSet) else DataSet(images), self.db, allow_missing)
        self.missing = self._data._core.missing()  # ordinals
        self._targets = self._data.class_indices.astype(np.int64)
        self._inputs = CropInputs.of(self.db.manifest, input_size)
        self.crops_per_image, self.batch_size, self.seed, self.order = crops_per_image, batch_size, seed, order
        self._workers, self._drop_last = workers, drop_last
        self._rank, self._ranks = _shard(rank, num_replicas)
        self._images_a_step = -(-batch_size // crops_per_image) * self._ranks
        self._num_images = len(_labelled(self.db, self.missing)) // self._ranks * self._ranks  # of a pass
        self.epoch, self._step = 0, 0  # where the next iteration begins
        # The pipeline that no iteration is using, and where it is: process, epoch, step.
        self._idle: tuple[tuple[int, int, int], _core.Pipeline] | None = None
        self.db.preload()

    def set_epoch(self, epoch: int) -> None:
        """epoch: how many crops of each image were used before the pass, a multiple of m. Not needed from pass to pass."""
        _check_epoch(epoch, self.crops_per_image)
        if epoch != self.epoch:
            self.epoch, self._step = epoch, 0

    def state_dict(self) -> dict[str, int]:
        """Of the pass that the next iteration is. In mid-pass ask the batch: batch.state."""
        return {"epoch": self.epoch, "images": self._step * self._images_a_step}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Goes on behind the batch that this is the state of. The number of processes and the batch size must be such that
        a batch ended there."""
        epoch, images = _place(state, self.crops_per_image, self._num_images, self._ranks)
        if images % self._images_a_step:
            raise MismatchError(f"the state is of batches that ended at image {images} of a pass: these are of {self._images_a_step} images")
        self.epoch, self._step = epoch, images // self._images_a_step

    def close(self) -> None:
        """Ends the threads. The next iteration starts others."""
        self._idle = None

    def __len__(self) -> int:
        """Batches of the next iteration."""
        return self._steps() - self._step

    def _steps(self) -> int:
        return self._num_images // self._images_a_step if self._drop_last else -(-self._num_images // self._images_a_step)

    def __iter__(self) -> Iterator[FkdBatch]:
        epoch, step = self.epoch, self._step
        self.epoch, self._step = epoch + self.crops_per_image, 0
        return self._batches(epoch, step)

    def _batches(self, epoch: int, first: int) -> Iterator[FkdBatch]:
        idle, self._idle = self._idle, None  # another iteration at the same time has one of its own
        here = (os.getpid(), epoch, first)
        pipeline = idle[1] if idle is not None and idle[0] == here else None
        del idle  # the threads of another place end before ours begin
        for step in range(first, -(-self._num_images // self._images_a_step)):
            loaded = pipeline.next() if pipeline is not None else None
            if loaded is None:  # the last of its passes was done, or there is none
                pipeline = self._begin(epoch, step)
                loaded = pipeline.next()
            assert loaded is not None and (loaded.pass_number, loaded.step) == (epoch // self.crops_per_image, step)
            if step < self._steps():
                yield self._batch(loaded, epoch, min((step + 1) * self._images_a_step, self._num_images))
            del loaded
        if pipeline is not None:
            self._idle = ((os.getpid(), epoch + self.crops_per_image, 0), pipeline)

    def _batch(self, loaded: _core.LoadedBatch, epoch: int, images: int) -> FkdBatch:
        labels = SparseLabels(self._spec, torch.from_numpy(loaded.indices), torch.from_numpy(loaded.values))
        inputs = torch.from_numpy(loaded.inputs).view(len(labels), *self._inputs.shape)
        targets = torch.from_numpy(np.repeat(self._targets[loaded.ordinals], self.crops_per_image))
        return FkdBatch(inputs, labels, torch.from_numpy(loaded.ordinals), targets, {"epoch": epoch, "images": images})

    def _begin(self, epoch: int, step: int) -> _core.Pipeline:
        return _core.open_pipeline(
            self._data._core, self.db._core, self._inputs._spec, self.order, self.crops_per_image, self.batch_size, self.seed,
            epoch, epoch // self.crops_per_image, step, self._PASSES, self._workers, self._rank, self._ranks, *self._sampling)

    def __getstate__(self) -> Any:
        raise TypeError("an FkdLoader has threads and cannot be pickled: it needs no DataLoader around it")


class _Images(Protocol):
    """The images of a label set, by its ordinals."""

    targets: npt.NDArray[np.int64]  # the class of each, or -1
    missing: npt.NDArray[np.int64]  # ordinals that have no image

    def read(self, inputs: CropInputs, ordinals: npt.NDArray[np.int64], batch: LabelBatch, out: torch.Tensor) -> None:
        """Fills out (N, height, width, channels) with the batch's crops."""

    def load(self, ordinal: int) -> npt.NDArray[np.uint8]:
        """(height, width, channels)"""


class _FilesOfDataSet:
    """Those of an `fkdb.DataSet`, whose ordinals are the same."""

    def __init__(self, data: DataSet) -> None:
        self.data, self.targets, self.missing = data, data.class_indices.astype(np.int64), data._core.missing()

    def read(self, inputs: CropInputs, ordinals: npt.NDArray[np.int64], batch: LabelBatch, out: torch.Tensor) -> None:
        inputs.core.samples_from_data_set(self.data._core, batch, out.numpy())

    def load(self, ordinal: int) -> npt.NDArray[np.uint8]:
        return self.data[ordinal].pixels


class _ItemsOfDataset:
    """Those of a torchvision-style data set: of_ordinal[ordinal] is its index of an image, -1 of one that is missing."""

    def __init__(self, dataset: Any, of_ordinal: npt.NDArray[np.int64], db: LabelSet) -> None:
        self.dataset, self.of_ordinal, self.db = dataset, of_ordinal, db
        classes = [number for _, number in dataset.samples] if _is_image_folder(dataset) else [-1] * len(dataset)
        self.targets = np.array([*classes, -1], np.int64)[of_ordinal]
        self.missing = np.flatnonzero(of_ordinal < 0)

    def read(self, inputs: CropInputs, ordinals: npt.NDArray[np.int64], batch: LabelBatch, out: torch.Tensor) -> None:
        rows, m = out.numpy(), len(batch) // len(ordinals)
        for i, ordinal in enumerate(ordinals.tolist()):
            pixels = self.load(ordinal)
            _check_size(self.db, ordinal, pixels, batch.sizes[i])
            rows[i * m:(i + 1) * m] = inputs.samples(pixels, batch.boxes[i * m:(i + 1) * m], batch.flips[i * m:(i + 1) * m])

    def load(self, ordinal: int) -> npt.NDArray[np.uint8]:
        index = int(self.of_ordinal[ordinal])
        if _is_image_folder(self.dataset):  # its transform is not ours to run
            return as_pixels(self.dataset.loader(self.dataset.samples[index][0]))
        item = self.dataset[index]
        return as_pixels(item[0] if isinstance(item, (tuple, list)) else item)


def _is_image_folder(images: Any) -> bool:
    return all(hasattr(images, name) for name in ("root", "samples", "loader"))


class _LabelledImages(DataSet):
    """Those of a data set that a label set has, by its ordinals."""

    def __init__(self, images: DataSet, db: LabelSet) -> None:
        self._of = images, db
        self._core = _core.labelled_images(db._core, images._core)

    def __reduce__(self) -> tuple[Any, ...]:
        return _LabelledImages, self._of


def _of_label_set(images: DataSet, db: LabelSet, allow_missing: bool) -> DataSet:
    """Raises MismatchError unless they are the same images, or allow_missing and some are."""
    if allow_missing:
        return _LabelledImages(images, db)
    _core.check_match(db._core, images._core)
    return images


def _match(images: Any, db: LabelSet, keys: Sequence[str | bytes] | None, allow_missing: bool) -> _Images:
    """The images of `db`, by its ordinals; raises MismatchError unless they are the same ones, or allow_missing and some are."""
    if isinstance(images, (str, os.PathLike)):
        images = DataSet(images)
    if isinstance(images, DataSet):
        return _FilesOfDataSet(_of_label_set(images, db, allow_missing))
    name = str(getattr(images, "root", type(images).__name__))
    if keys is None:
        if not _is_image_folder(images):
            raise TypeError(f"a {type(images).__name__} does not say which image is which: give keys=, one for each item: "
                            "the image's key in the label set")
        keys = [os.path.relpath(path, images.root).replace(os.sep, "/") for path, _ in images.samples]
        db._core.check_classes(name, images.classes)
    if len(keys) != len(images):
        raise MismatchError(f"{len(keys)} keys for a data set of {len(images)} items")
    encoded = [key.encode("utf-8", "surrogateescape") if isinstance(key, str) else key for key in keys]
    of_ordinal = np.array(sorted(range(len(encoded)), key=encoded.__getitem__))
    if allow_missing:
        item_of = {key: i for i, key in enumerate(encoded)}
        some = np.array([item_of.get(key.encode("utf-8", "surrogateescape"), -1) for key in db.keys()])
        if (some >= 0).any():
            return _ItemsOfDataset(images, some, db)
    db._core.check_images(name, [encoded[i] for i in of_ordinal])
    return _ItemsOfDataset(images, of_ordinal, db)


def _labelled(db: LabelSet, missing: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    return np.setdiff1d(np.arange(len(db)), np.union1d(np.array(db.manifest["skipped"], np.int64), missing))


def _shard(rank: int | None, ranks: int | None) -> tuple[int, int]:
    distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
    if rank is None and ranks not in (None, 1) and not distributed:
        raise InvalidArgumentError(f"one of {ranks} processes, but which? Expected rank= too, or torch.distributed")
    if ranks is None:
        ranks = torch.distributed.get_world_size() if distributed else 1
    if rank is None:
        rank = torch.distributed.get_rank() if distributed else 0
    if not 0 <= rank < ranks:
        raise InvalidArgumentError(f"rank {rank} of {ranks} processes")
    return rank, ranks


def _has_maps(db: LabelSet) -> bool:
    return db.spec.kind == "label-map"


def _crops_per_image(given: int | None, db: LabelSet) -> int:
    """What is given, or: of stored crops 4, of label maps one."""
    return given if given is not None else 1 if _has_maps(db) else 4


def _check_numbers(**numbers: int) -> None:
    for name, number in numbers.items():
        if operator.index(number) < 1:
            raise InvalidArgumentError(f"{name} {number}: expected 1 or more")


def _check_epoch(epoch: int, m: int) -> None:
    if epoch < 0:
        raise InvalidArgumentError(f"epoch {epoch}: expected 0 or more")
    if epoch % m:
        warnings.warn(f"epoch {epoch}: epochs count crops, so a pass with {m} crops an image begins at a multiple of {m}", stacklevel=3)


def _place(state: dict[str, int], m: int, images: int, ranks: int) -> tuple[int, int]:
    """Epoch and images done that a state says; the end of a pass is the beginning of the next."""
    epoch, done = state.get("epoch", -1), state.get("images", -1)
    if epoch < 0 or done < 0:
        raise InvalidArgumentError(f"{state}: expected a batch's state, with epoch and images")
    return (epoch, done) if done + ranks <= images else (epoch + m, 0)


def _check_ops(db: LabelSet, batch: LabelBatch, shape: tuple[int, int, int], ours: bool) -> None:
    """Whether what was done to the crops of a batch can be done to a student's. ours: fkdb reads the images and makes the pixels."""
    if not batch.has_ops:
        return
    if db.manifest.get("imported_from"):
        raise UnsupportedError(f"{db.path}: its crops were changed by operations of the system that they were imported from, which cannot be done to a student's")
    if not ours:
        raise UnsupportedError(f"{db.path}: its crops were changed by further operations, which fkdb does to pixels of its own: give it the path of the images, "
                               "or an fkdb.DataSet, without transform")
    seen = db.manifest["augmentation"]
    if shape[1:] != (seen["input_height"], seen["input_width"]):
        raise InvalidArgumentError(f"{db.path}: its crops were changed as {seen['input_height']} x {seen['input_width']} pixels: an input of "
                                   f"{shape[1]} x {shape[2]} cannot be made of them")


def _check_size(db: LabelSet, ordinal: int, pixels: npt.NDArray[np.uint8], size: npt.NDArray[np.int32]) -> None:
    if tuple(pixels.shape[:2]) != tuple(size):
        raise MismatchError(f"{db.path}: image '{db.key(ordinal)}': it was {size[1]} x {size[0]} pixels when labelled and is "
                            f"{pixels.shape[1]} x {pixels.shape[0]} now")


def _torchvision_crops(pixels: npt.NDArray[np.uint8], boxes: npt.NDArray[np.int32], flips: npt.NDArray[np.bool_],
                       inputs: CropInputs) -> torch.Tensor:
    from torchvision.transforms import InterpolationMode
    from torchvision.transforms.v2 import functional as F
    image = torch.from_numpy(np.array(pixels)).permute(2, 0, 1)  # a copy: PIL's are read-only
    mode = InterpolationMode(inputs._arguments[2])
    crops = []
    for (top, left, height, width), flip in zip(boxes.tolist(), flips.tolist()):
        crop = F.resized_crop(image, top, left, height, width, list(inputs.shape[1:]), mode, antialias=True)
        crops.append(F.horizontal_flip(crop) if flip else crop)
    return torch.stack(crops)


def _normalize(samples: torch.Tensor, inputs: CropInputs) -> torch.Tensor:
    """samples (N, channels, height, width) uint8"""
    mean, std = (torch.tensor(numbers, device=samples.device).view(-1, 1, 1) for numbers in inputs._arguments[4:])
    return samples.float().div_(255).sub_(mean).div_(std)


def _empty(shape: tuple[int, ...]) -> torch.Tensor:
    """uint8, in a DataLoader's worker where the main process can see it: batches then go over without a copy."""
    if torch.utils.data.get_worker_info() is None:
        return torch.empty(shape, dtype=torch.uint8)
    shared: Any = torch.UntypedStorage
    return torch.empty(0, dtype=torch.uint8).set_(shared._new_shared(int(np.prod(shape)), device="cpu")).view(shape)
