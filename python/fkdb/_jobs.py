# SPDX-License-Identifier: Apache-2.0
"""Whole label sets: checked, counted, joined, cut. Each is what the command line program of its name does."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Callable, Iterable
from typing import Any

from . import _core
from ._errors import InvalidArgumentError
from ._label_set import LabelSet, Path
from ._writer import now

Progress = Callable[[int, int], object]


@dataclasses.dataclass(frozen=True)
class VerifyReport:
    """What `verify` found."""

    ok: bool
    images: int
    crops: int
    digest: str  # of what was read; empty if a record could not be
    errors: list[str]  # the first hundred
    error_count: int

    def __bool__(self) -> bool:
        return self.ok


def verify(path: Path, *, threads: int = 0, progress: Progress | None = None) -> VerifyReport:
    """Checks everything a label file claims: structure, checksums, schema, the meaning of every crop, keys, counts, digest.

    A `VerifyReport`, true if all is well; a file that cannot be opened is a report too. threads: 0: one a processor.
    progress: called now and then with images done and images in all; what it raises, or Ctrl-C, ends the work.
    """
    return VerifyReport(**_core.verify(path, threads, progress))


def audit(labels: LabelSet | Path) -> dict[str, Any]:
    """Where the bytes of a label set go, beside the paper's Table 2, and how sure and right the teacher was: the JSON of
    `fkdb-audit` as a dict. labels: a `LabelSet` or a path."""
    if not isinstance(labels, LabelSet):
        labels = LabelSet(labels, allow_partial=True)
    return _fields(_core.audit_json(labels._core))


def merge(out: Path, inputs: Iterable[Path], *, collection: bool = False, resume: bool = False, overwrite: bool = False,
          progress: Progress | None = None) -> dict[str, Any]:
    """Joins label sets of one recipe and different images into one file; no label changes. Returns its manifest.

    collection: copy nothing, write a small index file that names the inputs. Raises MismatchError (names the first
    difference), AlreadyExistsError, LockedError. Interrupted, resume=True goes on.
    """
    return _fields(_core.merge(out, [os.fspath(path) for path in inputs], collection, resume, overwrite, now(), progress))


def subset(labels: LabelSet | Path, out: Path, *, images: Iterable[str | bytes] | None = None, crops: int = 0, recode: str = "",
           resume: bool = False, overwrite: bool = False, progress: Progress | None = None) -> dict[str, Any]:
    """Takes a part of a label set into a new one. Returns its manifest.

    images: keys to keep; None: all. crops: keep the first so many of each; 0: all. recode: another encoding, kind or K,
    for instance 'packed', 'hard', 'marginal-smoothing,top-k=3,f16'. Raises NotFoundError, InvalidArgumentError,
    AlreadyExistsError, LockedError.
    """
    path = labels.path if isinstance(labels, LabelSet) else labels
    kept = [] if images is None else [images] if isinstance(images, (str, bytes)) else list(images)
    if images is not None and not kept:
        raise InvalidArgumentError("no images to keep: expected keys, or None for all")
    return _fields(_core.subset(path, out, kept, crops, recode, resume, overwrite, now(), progress))


def _fields(text: str) -> dict[str, Any]:
    fields: dict[str, Any] = json.loads(text)
    return fields
