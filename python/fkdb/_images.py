# SPDX-License-Identifier: Apache-2.0
"""Images: data sets, decoding, and crops as a teacher and its students see them."""

from __future__ import annotations

import dataclasses
import operator
import os
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from ._errors import MismatchError
from ._label_set import Path, _ordinal


@dataclasses.dataclass(frozen=True, eq=False)
class Image:
    """A decoded image of a data set."""

    key: str
    pixels: npt.NDArray[np.uint8]  # (height, width, channels)
    class_index: int | None
    content_hash: bytes  # of its file

    @property
    def height(self) -> int:
        return int(self.pixels.shape[0])

    @property
    def width(self) -> int:
        return int(self.pixels.shape[1])


class DataSet:
    """The images that labels belong to: a folder of JPEG and PNG files (`class/name.JPEG`), tar archives of them
    (WebDataset's shards), or an IDX file. Images are numbered in bytewise key order. `fkdb.open_images` makes one.
    """

    def __init__(self, path: Path, *, limit: int = 0) -> None:
        self._path, self._limit = os.path.abspath(os.fspath(path)), limit
        self._core = _core.open_images(path, limit)

    @property
    def name(self) -> str:
        return self._core.name

    @property
    def layout(self) -> str:
        """'folder', 'webdataset' or 'idx'."""
        return self._core.layout

    @property
    def channels(self) -> int:
        """Of every image: 3, or 1 for IDX."""
        return self._core.channels

    @property
    def keys(self) -> list[str]:
        """In bytewise order; an image's place in it is its ordinal."""
        return self._core.keys()

    @property
    def class_names(self) -> list[str]:
        """In index order; empty if images have no class."""
        return self._core.class_names()

    @property
    def class_indices(self) -> npt.NDArray[np.int32]:
        """(len,); -1: no class."""
        return self._core.class_indices()

    def __len__(self) -> int:
        return len(self._core)

    def __iter__(self) -> Iterator[Image]:
        return (self[ordinal] for ordinal in range(len(self)))

    def __getitem__(self, ordinal: int) -> Image:
        """Decodes image `ordinal`: an `Image`. Raises IndexError, IoError, CorruptionError, UnsupportedError."""
        ordinal = _ordinal(ordinal, len(self))
        pixels, content_hash = self._core.load(ordinal)
        class_index = self._core.class_index(ordinal)
        return Image(self._core.key(ordinal), pixels, None if class_index < 0 else class_index, content_hash)

    def __reduce__(self) -> tuple[Any, ...]:
        return _reopen, (self._path, self._limit, self._core.key_list_sha256())

    def __repr__(self) -> str:
        return f"DataSet({str(self._path)!r}, {len(self)} images)"


def _reopen(path: str, limit: int, key_list_sha256: str) -> DataSet:
    images = DataSet(path, limit=limit)
    if images._core.key_list_sha256() != key_list_sha256:
        raise MismatchError(f"{path}: other images than those that were pickled: some came, went or were renamed")
    return images


def open_images(path: Path, *, limit: int = 0) -> DataSet:
    """Opens a folder of images, of tar archives, or an IDX file (with its labels beside it). limit: only so many; 0: all."""
    return DataSet(path, limit=limit)


def decode(file: bytes | bytearray | memoryview) -> npt.NDArray[np.uint8]:
    """The pixels (height, width, 3) of a JPEG or PNG file's bytes: those of Pillow's open().convert("RGB")."""
    return _core.decode(bytes(memoryview(file)))


class CropInputs:
    """Crops of an image as the input of a network: cropped, resized, mirrored, normalized; Pillow's bytes.

    size: of the input, pixels, or (height, width). interpolation: 'bilinear' or 'bicubic'. resampling: the convention that
    the manifest names. mean, std: of values in 0 to 1, one a channel.
    """

    def __init__(self, size: int | Sequence[int] = 224, *, interpolation: str = "bilinear",
                 resampling: str = "pillow-integer-horizontal-first", mean: Sequence[float] = (0.485, 0.456, 0.406),
                 std: Sequence[float] = (0.229, 0.224, 0.225)) -> None:
        height, width = sides(size)
        self.shape = (len(mean), height, width)  # of one crop
        self._arguments = (height, width, interpolation, resampling, list(mean), list(std))
        self._spec = _core.make_input_spec(*self._arguments)
        self._makers = threading.local()

    @classmethod
    def of(cls, manifest: dict[str, Any], size: int | Sequence[int] | None = None) -> CropInputs:
        """As the label set with this manifest was made. size: another one for the student."""
        a = manifest["augmentation"]
        return cls((a["input_height"], a["input_width"]) if size is None else size, interpolation=a["interpolation"], resampling=a["resampling"],
                   mean=a["mean"], std=a["std"])

    @property
    def core(self) -> _core.CropMaker:
        # It has scratch memory: one a thread.
        if not hasattr(self._makers, "maker"):
            self._makers.maker = _core.CropMaker(self._spec)
        maker: _core.CropMaker = self._makers.maker
        return maker

    def __call__(self, pixels: Any, boxes: Any, flips: Any) -> npt.NDArray[np.float32]:
        """(M, channels, height, width). pixels: (H, W, channels) uint8, boxes: (M, 4), flips: (M,)."""
        boxes, flips = as_boxes(boxes), as_flips(flips)
        out = np.empty((len(boxes), *self.shape), np.float32)
        self.core.from_image(as_pixels(pixels), boxes, flips, out)
        return out

    def samples(self, pixels: Any, boxes: Any, flips: Any) -> npt.NDArray[np.uint8]:
        """The same, not normalized: (M, height, width, channels)."""
        return self.core.samples(as_pixels(pixels), as_boxes(boxes), as_flips(flips))

    def __getstate__(self) -> tuple[Any, ...]:
        return self._arguments

    def __setstate__(self, arguments: tuple[Any, ...]) -> None:
        height, width, interpolation, resampling, mean, std = arguments
        CropInputs.__init__(self, (height, width), interpolation=interpolation, resampling=resampling, mean=mean, std=std)


def as_pixels(image: Any) -> npt.NDArray[np.uint8]:
    """(height, width, channels) uint8 of an array, a PIL image, a torch tensor (channels first) or an `Image`."""
    if isinstance(image, Image):
        return image.pixels
    if hasattr(image, "convert"):  # PIL
        pixels = np.asarray(image if image.mode in ("L", "RGB") else image.convert("RGB"))
    elif hasattr(image, "detach"):  # torch
        pixels = image.detach().cpu().numpy()
        pixels = pixels.transpose(1, 2, 0) if pixels.ndim == 3 else pixels
    else:
        pixels = np.asarray(image)
    if pixels.dtype != np.uint8:
        raise TypeError(f"an image of {pixels.dtype}: expected uint8 samples")
    return np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[:, :, None])


def sides(size: int | Sequence[int]) -> tuple[int, int]:
    """Height and width."""
    height, width = size if isinstance(size, Sequence) else (size, size)
    return operator.index(height), operator.index(width)


def as_boxes(boxes: Any) -> npt.NDArray[np.int64]:
    numbers = as_array(boxes)
    if numbers.size and numbers.dtype.kind not in "iu":
        raise TypeError(f"boxes of type {numbers.dtype}: expected whole pixels")
    return np.ascontiguousarray(numbers if numbers.size else np.empty((0, 4)), np.int64)


def as_flips(flips: Any) -> npt.NDArray[np.bool_]:
    values = as_array(flips)
    if values.size and values.dtype.kind not in "biu":
        raise TypeError(f"flips of type {values.dtype}: expected truth values")
    return np.ascontiguousarray(values, np.bool_)


def as_array(values: Any) -> npt.NDArray[Any]:
    return values.detach().cpu().numpy() if hasattr(values, "detach") else np.asarray(values)
