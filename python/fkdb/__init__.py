# SPDX-License-Identifier: Apache-2.0
"""The label database for Fast Knowledge Distillation (FKD, Shen & Xing): crops and labels of a teacher in one mapped file.

    import fkdb
    db = fkdb.open("labels.fkdb")
    record = db["n01440764/x.JPEG"]           # boxes, flips, indices, values: numpy
    batch = db.sample([7, 3, 9], m=4)         # sparse labels of 12 crops
    dense = fkdb.recover(batch)               # (12, C)

`fkdb.torch` has the data set, sampler, loader and loss for PyTorch; `python -m fkdb` the command line programs.
"""

from ._core import LabelBatch, LabelSpec, version
from ._errors import (
    AlreadyExistsError,
    CorruptionError,
    CudaError,
    Error,
    IncompleteError,
    InvalidArgumentError,
    IoError,
    LockedError,
    MismatchError,
    ModelError,
    NotFoundError,
    ResourceExhaustedError,
    UnsupportedError,
)
from ._images import CropInputs, DataSet, Image, decode, open_images
from ._jobs import VerifyReport, audit, merge, subset, verify
from ._label_set import ImageRecord, LabelSet, open, recover
from ._writer import Writer, state_dict_sha256

__version__ = version()

__all__ = [
    "AlreadyExistsError", "CorruptionError", "CropInputs", "CudaError", "DataSet", "Error", "Image", "ImageRecord",
    "IncompleteError", "InvalidArgumentError", "IoError", "LabelBatch", "LabelSet", "LabelSpec", "LockedError",
    "MismatchError", "ModelError", "NotFoundError", "ResourceExhaustedError", "UnsupportedError", "VerifyReport", "Writer",
    "__version__", "audit", "decode", "merge", "open", "open_images", "recover", "state_dict_sha256", "subset", "verify",
]
