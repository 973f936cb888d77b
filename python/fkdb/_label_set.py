# SPDX-License-Identifier: Apache-2.0
"""Label sets, opened to be read."""

from __future__ import annotations

import functools
import json
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
import numpy.typing as npt

from . import _core
from ._core import LabelBatch, LabelSpec
from ._errors import InvalidArgumentError, MismatchError, NotFoundError

Path = str | os.PathLike[str]


class ImageRecord:
    """The labels of one image's M crops.

    Arrays are numpy's. Where the file holds plain arrays (encodings f32 and f16) they are read-only views of the mapped
    file, without a copy; packed records are decoded. A view keeps the map alive, whatever becomes of record and label set.
    """

    def __init__(self, core: _core.ImageRecord, key: str | None) -> None:
        self._core = core
        self.key = key

    @property
    def ordinal(self) -> int:
        """The image's number in key order."""
        return self._core.ordinal

    @property
    def width(self) -> int:
        """Of the image when it was labelled, pixels."""
        return self._core.width

    @property
    def height(self) -> int:
        """Of the image when it was labelled, pixels."""
        return self._core.height

    @property
    def class_index(self) -> int | None:
        """The image's own class, if it has one."""
        return self._core.class_index

    @property
    def num_crops(self) -> int:
        """M; 0 of an image that was skipped."""
        return self._core.num_crops

    @property
    def skip_reason(self) -> str | None:
        """Why it was skipped, if it was."""
        return self._core.skip_reason

    @property
    def content_hash(self) -> bytes:
        """XXH3-128 of the image file, 16 bytes; zeros: unknown."""
        return self._core.content_hash

    @property
    def flips(self) -> npt.NDArray[np.bool_]:
        """(M,): mirrored left to right after crop and resize."""
        return self._core.flips

    @property
    def raw(self) -> npt.NDArray[np.uint8]:
        """The record's bytes as they lie in the file, read-only."""
        return self._core.raw

    @property
    def boxes(self) -> npt.NDArray[Any]:
        """(M, 4) of top, left, height, width as stored: whole pixels, or fractions of the image's sides (imports)."""
        return self._core.boxes

    @property
    def pixel_boxes(self) -> npt.NDArray[np.int32]:
        """(M, 4): the same in whole pixels, whatever is stored."""
        return self._core.pixel_boxes

    @property
    def indices(self) -> npt.NDArray[Any]:
        """(M, K): the classes whose probabilities are stored; K = 0 for labels of kind full and logits."""
        return self._core.indices

    @property
    def values(self) -> npt.NDArray[Any]:
        """(M, K): their probabilities (label-map: scores), float32 or float16; (M, C) of kind full and logits, (M, 0) of kind hard."""
        return self._core.values

    @property
    def ops(self) -> list[list[tuple[str, dict[str, float]]]]:
        """For each crop the further operations it went through: a list of (name, parameters)."""
        return self._core.ops

    def dense(self, tau: float = 1.0) -> npt.NDArray[np.float32]:
        """(M, C): the labels recovered (Eq. 3 to 7), each row summing to 1. tau: of the softmax over stored logits."""
        return self._core.dense(_positive(tau, "tau"))

    def __len__(self) -> int:
        return self.num_crops

    def __repr__(self) -> str:
        return f"ImageRecord({self.key!r}, {self.width} x {self.height} pixels, {self.num_crops} crops)"


class LabelSet(Mapping[str, ImageRecord]):
    """A label file, or a collection's index file, mapped into memory. `fkdb.open` makes one.

    A mapping of image keys to `ImageRecord`s, and of their ordinals too. Thread-safe; batch calls release the GIL. Goes
    over to forked workers as it is; pickled, it is opened anew there, and must be the same label set still.
    """

    def __init__(self, path: Path, *, allow_partial: bool = False) -> None:
        self._allow_partial = allow_partial
        self._core = _core.open(os.path.abspath(os.fspath(path)), allow_partial)

    @property
    def path(self) -> str:
        return str(self._core.path)

    @functools.cached_property
    def manifest(self) -> dict[str, Any]:
        """What the label set says about itself, as a dict: labels, data_set, teachers, augmentation, counts, digest, .."""
        fields: dict[str, Any] = json.loads(self._core.manifest_json())
        return fields

    @functools.cached_property
    def spec(self) -> LabelSpec:
        """The `LabelSpec` of all its labels."""
        return self._core.spec

    @property
    def digest(self) -> str:
        """'sha256:..' of what it holds, whatever its file looks like; empty of a `.partial`."""
        return str(self.manifest["digest"])

    @property
    def partial(self) -> bool:
        """A build that is not finished: an interrupted one's `.partial`."""
        return self._core.partial

    def __len__(self) -> int:
        return self._core.num_images

    def keys(self) -> list[str]:  # type: ignore[override]
        """All image keys, in order. Bytes that are not UTF-8 are surrogates in them, as in file names."""
        return self._core.keys()

    def __iter__(self) -> Iterator[str]:
        return iter(self.keys())

    def __contains__(self, key: object) -> bool:
        if not isinstance(key, (str, bytes)):
            return isinstance(key, int) and 0 <= key < len(self)
        try:
            self._core.find(key)
        except NotFoundError:
            return False
        return True

    def key(self, ordinal: int) -> str | None:
        """The key of image `ordinal`; None in a `.partial`."""
        return self._core.key(_ordinal(ordinal, len(self)))

    def ordinal(self, key: str | bytes) -> int:
        """The number of the image with this key. Raises NotFoundError."""
        return self._core.find(key)

    def __getitem__(self, image: str | bytes | int) -> ImageRecord:
        """The record of an image, given by key or by ordinal (negative: from the end), every crop of it checked.

        Raises NotFoundError (a KeyError), IndexError, CorruptionError.
        """
        ordinal = self._core.find(image) if isinstance(image, (str, bytes)) else _ordinal(image, len(self))
        return ImageRecord(_core.get_record(self._core, ordinal), self._core.key(ordinal))

    def sample(self, ordinals: npt.ArrayLike, m: int, seed: int = 0, epoch: int = 0, *, order: Literal["cycle", "visit"] = "cycle",
               pass_number: int | None = None) -> LabelBatch:
        """The labels of m crops of each image: a `LabelBatch` of len(ordinals) * m rows.

        ordinals: (I,) whole numbers. Which crops come is a function of (seed, epoch, ordinal) alone, the same in every
        process, and the same that `fkdb-train` takes. epoch: how many crops of each image earlier passes have used.
        order: 'cycle' takes every stored crop once before any twice; 'visit' draws m of M afresh at each visit, by
        pass_number (epoch // m, unless given). Raises NotFoundError (also for a skipped image), CorruptionError.
        """
        m, seed, epoch = _place(m, seed, epoch)
        if pass_number is None:
            pass_number = epoch // m
        return self._core.sample(_ordinals(ordinals), m, seed, epoch, pass_number, order)

    def pool(self, ordinals: npt.ArrayLike, m: int = 1, seed: int = 0, epoch: int = 0, *, scale: Sequence[float] | None = None,
             ratio: Sequence[float] | None = None) -> LabelBatch:
        """Of label maps (ReLabel): m fresh crops of each image, each with the label that is pooled from its image's map.

        ordinals: (I,) whole numbers. Which crops come is a function of (seed, epoch, ordinal, scale, ratio), the same that `fkdb-train
        --supervision relabel` takes. epoch: how many crops of each image earlier passes have used; passes of m, begun m apart, repeat
        none. scale, ratio: LOW, HIGH of a crop's share of the image's area and of its width / height, as of torchvision's
        RandomResizedCrop; by default the label set's. Labels are of kind full: values (N, C). Raises InvalidArgumentError (labels of
        another kind), NotFoundError (also for a skipped image), CorruptionError.
        """
        if self.spec.kind != "label-map":
            raise InvalidArgumentError(f"{self.path}: its labels are of kind '{self.spec.kind}': pool() is for label maps, sample() for stored crops")
        return self._core.pool(_ordinals(ordinals), *_place(m, seed, epoch), *self._sampling(scale, ratio))

    def _sampling(self, scale: Sequence[float] | None, ratio: Sequence[float] | None) -> list[list[float]]:
        """Of fresh crops: scale and ratio, those of the label set where they are None."""
        if self.spec.kind != "label-map" and (scale is not None or ratio is not None):
            raise InvalidArgumentError("scale and ratio are of label maps' fresh crops: those of this label set are stored")
        stored = self.manifest["augmentation"]
        sampling = [[float(end) for end in np.ravel(stored[name] if given is None else given)] for name, given in (("scale", scale), ("ratio", ratio))]
        if self.spec.kind == "label-map":
            if any(len(ends) != 2 for ends in sampling):
                raise InvalidArgumentError(f"scale {scale} and ratio {ratio}: expected two numbers each, LOW and HIGH")
            _core.check_sampling(*sampling)
        return sampling

    def take(self, ordinals: npt.ArrayLike, crops: npt.ArrayLike) -> LabelBatch:
        """The labels of crops[i] of image ordinals[i]: a `LabelBatch`. ordinals: (I,), crops: (I, m), both whole numbers."""
        return self._core.take(_ordinals(ordinals), _whole(crops, "crops", np.uint32))

    def preload(self, mode: Literal["auto", "on", "off"] = "auto") -> None:
        """Begins to read the files into memory, front to back, on a thread: a first epoch then waits for no disk seek.

        mode: 'auto' (if they fit into half of the memory that is available), 'on', 'off'.
        """
        self._core.preload(mode)

    __eq__ = object.__eq__  # a mapping's would read everything
    __hash__ = object.__hash__

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self.path, self.digest, self._allow_partial)

    def __repr__(self) -> str:
        spec = self.spec
        return f"LabelSet({self.path!r}, {len(self)} images, {spec.kind} labels of {spec.num_classes} classes)"


def _reopen(path: str, digest: str, allow_partial: bool) -> LabelSet:
    labels = LabelSet(path, allow_partial=allow_partial)
    if labels.digest != digest:
        raise MismatchError(f"{path}: another label set than the one that was pickled: {digest} then, {labels.digest} now")
    return labels


def _place(m: int, seed: int, epoch: int) -> tuple[int, int, int]:
    """Whole numbers as C++ takes them."""
    m, seed, epoch = operator.index(m), operator.index(seed), operator.index(epoch)
    if m < 1:
        raise InvalidArgumentError(f"{m} crops an image: expected 1 or more")
    if not (m < 2**32 and 0 <= epoch < 2**32 and 0 <= seed < 2**64):
        raise InvalidArgumentError(f"{m} crops an image, epoch {epoch}, seed {seed}: expected less than 2^32, 2^32, 2^64, and none below 0")
    return m, seed, epoch


def _ordinals(ordinals: npt.ArrayLike) -> npt.NDArray[np.uint64]:
    return _whole(ordinals, "ordinals", np.uint64)


def _whole(values: npt.ArrayLike, name: str, dtype: Any) -> npt.NDArray[Any]:
    numbers = np.asarray(values)
    if numbers.size and numbers.dtype.kind not in "iu":
        raise TypeError(f"{name} of type {numbers.dtype}: expected whole numbers")
    if numbers.size and (numbers.min() < 0 or numbers.max() > np.iinfo(dtype).max):
        raise IndexError(f"{name} from {numbers.min()} to {numbers.max()}: expected 0 or more")
    return np.ascontiguousarray(numbers, dtype)


def _ordinal(number: Any, count: int) -> int:
    number = operator.index(number)
    if not -count <= number < count:
        raise IndexError(f"image {number} of {count}")
    return int(number % count)


def _positive(number: float, name: str) -> float:
    if not number > 0:
        raise ValueError(f"{name} {number}: expected more than 0")
    return float(number)


def open(path: Path, *, allow_partial: bool = False) -> LabelSet:
    """Opens a label set to be read: a label file NAME.fkdb, or the index file of a collection.

    allow_partial: also the `.partial` of an interrupted build, as far as it got. Raises NotFoundError, CorruptionError,
    UnsupportedError (a newer format), IncompleteError.
    """
    return LabelSet(path, allow_partial=allow_partial)


class Sparse(Protocol):
    """What `recover` takes: a LabelBatch, fkdb.torch.SparseLabels."""

    @property
    def spec(self) -> LabelSpec: ...
    @property
    def indices(self) -> Any: ...
    @property
    def values(self) -> Any: ...


def recover(labels: Sparse, num_classes: int | None = None, *, tau: float = 1.0,
            out: npt.NDArray[np.float32] | None = None) -> npt.NDArray[np.float32]:
    """Dense labels (N, C) of sparse ones (paper Eq. 3 to 7), each row summing to 1.

    labels: what `sample` gives, or anything with `spec`, `indices` and `values` of that shape. num_classes: C, checked.
    tau: of the softmax over stored logits. out: an array to fill.
    """
    spec = labels.spec
    if num_classes is not None and num_classes != spec.num_classes:
        raise MismatchError(f"labels of {spec.num_classes} classes: expected {num_classes}")
    indices, values = np.asarray(labels.indices), np.asarray(labels.values)
    if out is not None and (out.dtype != np.float32 or not out.flags.c_contiguous):
        raise TypeError("out: expected a contiguous array of float32")
    if out is None:
        out = np.empty((len(indices), spec.num_classes), np.float32)
    _core.recover(spec, indices, values, _positive(tau, "tau"), out)
    return out
