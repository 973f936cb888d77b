# SPDX-License-Identifier: Apache-2.0
"""How users with a type checker use the package; test_install.py checks it with mypy --strict and never runs it."""

import numpy as np
import numpy.typing as npt
import torch

import fkdb
import fkdb.torch


def look(path: str) -> npt.NDArray[np.float32]:
    db = fkdb.open(path)
    record: fkdb.ImageRecord = db["n01440764/x.JPEG"]
    reason: str | None = record.skip_reason
    batch: fkdb.LabelBatch = db.sample([1, 2], m=4)
    report: fkdb.VerifyReport = fkdb.verify(path, progress=lambda done, images: None)
    print(reason, batch.indices.shape, report.errors[0].upper(), len(db) + db[0].num_crops, db.manifest["digest"])
    return fkdb.recover(batch)


def label(images: fkdb.DataSet, spec: fkdb.LabelSpec, teacher: torch.nn.Module) -> str:
    with fkdb.Writer("x.fkdb", spec, images.keys, crops=8, resume=True) as writer:
        for image in images:
            boxes, flips = writer.sample(image.key, image.width, image.height)
            writer.append(image, None, boxes, flips, logits=teacher(torch.from_numpy(writer.inputs(image, boxes, flips))))
    return str(writer.manifest["digest"])


def train(model: torch.nn.Module) -> torch.Tensor:
    loader = fkdb.torch.FkdLoader("train/", "x.fkdb", crops_per_image=4, batch_size=256)
    batch = next(iter(loader))
    labels: fkdb.torch.SparseLabels = batch.labels
    dense: npt.NDArray[np.float32] = fkdb.recover(labels)
    loss: torch.Tensor = fkdb.torch.SoftTargetLoss()(model(batch.inputs), labels)
    dataset = fkdb.torch.FkdDataset("train/", "x.fkdb")
    sampled = torch.utils.data.DataLoader(dataset, sampler=fkdb.torch.FkdSampler(dataset), collate_fn=fkdb.torch.collate)
    for item in sampled:
        print(item.labels.values, dense)
    return loss
