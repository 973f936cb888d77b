# SPDX-License-Identifier: Apache-2.0
"""Label sets from any labelling loop."""

from __future__ import annotations

import datetime
import hashlib
import json
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any

import numpy as np
import numpy.typing as npt

from . import _core
from ._core import LabelSpec
from ._errors import InvalidArgumentError
from ._images import CropInputs, Image, as_array, as_boxes, as_flips, sides
from ._label_set import Path


def now() -> str:
    return datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%dT%H:%M:%SZ")


class Writer:
    """Builds a label set image by image, in bytewise key order, never half under its final name.

        with fkdb.Writer("labels.fkdb", spec, images.keys, crops=8, teacher="resnet50", resume=True) as writer:
            for key in writer.todo():
                boxes, flips = writer.sample(key, width, height)
                ...
                writer.append(key, (width, height), boxes, flips, logits=teacher(crops))

    Everything goes to `NAME.partial`, committed every 5 seconds; the end of the `with` block checks every record, computes
    the digest and publishes NAME. After an exception, a kill or a power cut, the same call with resume=True goes on where
    it ended.

    path: NAME.fkdb. spec: a `LabelSpec`. keys: of all images, any order: paths below the data set's folder.
    crops: M, what every image gets. class_names: in index order, if the images' classes are the teacher's.
    teacher, teacher_sha256: its name, and the hash of its weights (`state_dict_sha256`); teacher_batch_size: for the record.
    seed, scale, ratio, flip_probability: of `sample`. input_size, interpolation, resampling, mean, std: of `inputs`, and
    for the students, who must see the same pixels. resume, overwrite: of an interrupted build, of a finished one.

    Raises AlreadyExistsError, LockedError, InvalidArgumentError (also: resumed with another recipe), MismatchError (with
    other keys), IoError.
    """

    def __init__(self, path: Path, spec: LabelSpec, keys: Iterable[str | bytes], *, crops: int, class_names: Sequence[str] = (),
                 data_set: str = "", layout: str = "folder", teacher: str = "", teacher_sha256: str = "",
                 teacher_batch_size: int = 0, seed: int = 0, scale: tuple[float, float] = (0.08, 1.0),
                 ratio: tuple[float, float] = (3 / 4, 4 / 3), flip_probability: float = 0.5,
                 input_size: int | Sequence[int] = 224, interpolation: str = "bilinear",
                 resampling: str = "pillow-integer-horizontal-first", mean: Sequence[float] = (0.485, 0.456, 0.406),
                 std: Sequence[float] = (0.229, 0.224, 0.225), licence: str = "", notes: str = "", resume: bool = False,
                 overwrite: bool = False) -> None:
        height, width = sides(input_size)
        self.inputs = CropInputs((height, width), interpolation=interpolation, resampling=resampling, mean=mean, std=std)
        self.spec = spec
        self.manifest: dict[str, Any] = {}  # once it is finished
        self._has_classes = len(class_names) > 0
        self._core: _core.Writer | None = _core.open_writer(
            path, spec, keys, data_set=data_set, layout=layout, channels=len(mean), class_names=class_names, teacher=teacher,
            teacher_sha256=teacher_sha256, teacher_batch_size=teacher_batch_size, crops=crops, seed=seed, scale=scale,
            ratio=ratio, flip_probability=flip_probability, input_height=height, input_width=width,
            interpolation=interpolation, resampling=resampling, mean=mean, std=std, created=now(), licence=licence,
            notes=notes, resume=resume, overwrite=overwrite)

    def __len__(self) -> int:
        """Images written, those before a resume included."""
        return self._open.num_images

    def todo(self) -> list[str]:
        """The keys that are still to be written, in their order."""
        return self._open.keys()[len(self):]

    def sample(self, key: str | bytes, width: int, height: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_]]:
        """Random resized crops (torchvision's rule) of an image: boxes (M, 4) int64, flips (M,) bool. A function of the
        seed, the key and the image's size: the same at every run, and those of `fkdb-write`."""
        return self._open.sample(key, width, height)

    def append(self, image: str | bytes | Image, size: tuple[int, int] | None, boxes: Any, flips: Any, *, logits: Any = None,
               probabilities: Any = None, class_index: int | None = None, content_hash: bytes | None = None) -> None:
        """Labels the next image.

        image: its key, or an `Image`, which knows its size (None then), class and content hash. size: (width, height).
        boxes: (M, 4) of top, left, height, width in pixels; flips: (M,). One of logits (M, C), to which the spec's
        temperature is applied, and probabilities (M, C): arrays or tensors, on any device.
        Raises InvalidArgumentError, ModelError (NaN; no distribution); the image may then be appended again.
        """
        if isinstance(image, Image):
            size = (image.width, image.height)
            if self._has_classes and class_index is None:
                class_index = image.class_index
            content_hash = content_hash or image.content_hash
            image = image.key
        if size is None:
            raise TypeError("a key alone does not tell the image's size: expected (width, height)")
        if (logits is None) == (probabilities is None):
            raise TypeError("expected one of logits and probabilities")
        self._open.append(image, *size, as_boxes(boxes), as_flips(flips), class_index, content_hash, _outputs(logits),
                          _outputs(probabilities))

    def skip(self, key: str | bytes, reason: str) -> None:
        """Records that the next image has no labels, and why."""
        self._open.skip(key, reason)

    def flush(self) -> None:
        """Commits what was appended."""
        self._open.flush()

    def finish(self) -> dict[str, Any]:
        """Publishes the label set and returns its manifest. Raises IncompleteError (images are missing)."""
        self.manifest = json.loads(self._open.finish())
        self._core = None
        return self.manifest

    def close(self) -> None:
        """Commits what was appended and lets go of the file, to be resumed. Nothing to do after finish."""
        if self._core is not None:
            self._core.flush()
            self._core = None

    @property
    def _open(self) -> _core.Writer:
        if self._core is None:
            raise InvalidArgumentError("the writer is closed")
        return self._core

    def __enter__(self) -> Writer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        try:
            if kind is None and self._core is not None:
                self.finish()
        finally:
            self.close()


def _outputs(outputs: Any) -> npt.NDArray[np.float32] | None:
    if outputs is None:
        return None
    if hasattr(outputs, "detach"):
        outputs = outputs.detach().float()  # numpy has no bfloat16
    return np.ascontiguousarray(as_array(outputs), np.float32)


def state_dict_sha256(model: Any) -> str:
    """SHA-256, hex, of a PyTorch module's (or state dict's) parameters and buffers: names, types, shapes and bytes in the order of names.

    The same for the same weights, wherever they come from and whatever device they are on.
    """
    import torch
    state = model if isinstance(model, dict) else model.state_dict()
    # Compiled and wrapped, a model's names begin with these.
    named = {name.replace("_orig_mod.", "").removeprefix("module."): tensor for name, tensor in state.items()}
    digest = hashlib.sha256()
    for name, tensor in sorted(named.items()):
        if not isinstance(tensor, torch.Tensor):
            raise TypeError(f"'{name}' is a {type(tensor).__name__}: expected parameters and buffers only")
        digest.update(f"{name}\0{tensor.dtype}\0{tuple(tensor.shape)}\0".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()
