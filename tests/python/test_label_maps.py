# SPDX-License-Identifier: Apache-2.0
"""fkdb.torch.FkdLoader on ReLabel's label maps."""

import numpy as np
import pytest
import torch
from conftest import TRAIN

import fkdb
import fkdb.torch as ft


def one_pass(loader):
    return [(b.inputs.clone(), b.labels.values.clone(), b.ordinals.tolist(), b.state) for b in loader]


def test_label_maps(label_maps):
    """ReLabel: fresh crops, each labelled by what the map of its image says of it."""
    images, path = label_maps
    maps = fkdb.open(path)
    whole = dict(crops_per_image=1, batch_size=64, scale=(1, 1), ratio=(1, 1), input_size=16, workers=2)
    for batch in ft.FkdLoader(images, maps, **whole):
        assert batch.labels.values.shape == (len(batch), 10)
        for ordinal, label in zip(batch.ordinals.tolist(), batch.labels.dense().numpy()):
            scores = np.zeros((20, 10))  # of the cells, each of which counts once
            np.put_along_axis(scores, maps[ordinal].indices.astype(int), maps[ordinal].values, 1)
            expected = np.exp(scores.mean(0))
            assert np.allclose(label, expected / expected.sum(), atol=1e-5)
    loader = ft.FkdLoader(images, maps, batch_size=64, scale=(0.1, 0.3), input_size=16, workers=2, seed=3)
    assert loader.crops_per_image == 1 and len(loader) == 5
    first, second = one_pass(loader), one_pass(loader)
    again = ft.FkdLoader(images, maps, batch_size=64, scale=(0.1, 0.3), input_size=16, workers=1, seed=3)
    again.set_epoch(1)
    for a, b in zip(second, one_pass(again), strict=True):
        assert torch.equal(a[0], b[0]) and torch.equal(a[1], b[1]) and a[2:] == b[2:]
    labels_of = [{n: row for _, values, ordinals, _ in one for n, row in zip(ordinals, values)} for one in (first, second)]
    assert len(labels_of[0]) == 300 and not any(torch.equal(row, labels_of[1][n]) for n, row in labels_of[0].items())
    small = next(iter(ft.FkdLoader(images, maps, 2, 64, input_size=16)))  # in the label set's own scale
    assert torch.allclose(small.labels.dense().sum(1), torch.ones(64)) and small.targets.tolist() == small.targets[::2].repeat_interleave(2).tolist()
    assert (small.labels.dense().argmax(1) == small.targets).float().mean() > 0.9
    with pytest.raises(fkdb.UnsupportedError, match="label maps hold no crops: FkdLoader trains from them, with fresh ones"):
        ft.FkdDataset(images, maps)
    with pytest.raises(fkdb.InvalidArgumentError, match="crop scale 0.5,0.2 and ratio 0.75,1.33333333333333.*: expected LOW,HIGH with 0 < LOW <= HIGH"):
        ft.FkdLoader(images, maps, scale=np.array([0.5, 0.2]))
    with pytest.raises(fkdb.InvalidArgumentError, match=r"scale \(0.1,\) and ratio None: expected two numbers each"):
        ft.FkdLoader(images, maps, scale=(0.1,))


def test_stored_crops_have_their_scale(labels):
    with pytest.raises(fkdb.InvalidArgumentError, match="scale and ratio are of label maps' fresh crops: those of this label set are stored"):
        ft.FkdLoader(TRAIN, labels, scale=(0.1, 1))
