# SPDX-License-Identifier: Apache-2.0
"""ReLabel's label maps from Python: LabelSet.pool, FkdLoader, FkdDataset."""

import shutil

import numpy as np
import pytest
import torch
import torchvision
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
    for way in (ft.FkdLoader, ft.FkdDataset):
        with pytest.raises(fkdb.InvalidArgumentError, match="crop scale 0.5,0.2 and ratio 0.75,1.33333333333333.*: expected LOW,HIGH with 0 < LOW <= HIGH"):
            way(images, maps, scale=np.array([0.5, 0.2]))
        with pytest.raises(fkdb.InvalidArgumentError, match=r"scale \(0.1,\) and ratio None: expected two numbers each"):
            way(images, maps, scale=(0.1,))
        with pytest.raises(fkdb.InvalidArgumentError, match="scale None and ratio 0.5: expected two numbers each"):
            way(images, maps, ratio=0.5)
    with pytest.raises(fkdb.InvalidArgumentError, match="order 'random': expected 'cycle' or 'visit'"):
        ft.FkdDataset(images, maps, order="random")


@pytest.mark.parametrize("m, workers", [(None, 0), (2, 2)])
def test_a_dataset_is_the_loader(label_maps, m, workers):
    """The same crops, labels and pixels in two passes, from the middle of the first on."""
    images, maps = label_maps
    options = dict(scale=(0.1, 0.4), ratio=(0.5, 1), input_size=16, seed=3)
    dataset = ft.FkdDataset(images, maps, m, **options)
    m = m or 1
    assert dataset.crops_per_image == m
    loader = ft.FkdLoader(images, maps, m, 64 * m, workers=1, **options)
    sampler = ft.FkdSampler(dataset)
    batches = torch.utils.data.DataLoader(dataset, 64, sampler=sampler, collate_fn=ft.collate, num_workers=workers,
                                          multiprocessing_context="spawn" if workers else None)
    for begin in ({"epoch": 0, "images": 128}, None):
        if begin:
            loader.load_state_dict(begin), sampler.load_state_dict(begin)
        theirs = one_pass(loader)
        for ours, (inputs, values, ordinals, state) in zip(batches, theirs, strict=True):
            assert torch.equal(ours.inputs, inputs) and torch.equal(ours.labels.values, values)
            assert (ours.ordinals.tolist(), ours.state, ours.labels.spec.kind) == (ordinals, state, "full")
        assert len(theirs) == (3 if begin else 5)


def test_images_that_are_missing(label_maps, tmp_path):
    """Of a path and of torchvision's ImageFolder, beside the loader."""
    images, maps = label_maps
    some = tmp_path / "some"
    shutil.copytree(images, some)
    gone = sorted(some.glob("*/*.png"))[5:300:100]
    for file in gone:
        file.unlink()
    options = dict(input_size=16, seed=1, allow_missing=True)
    loader = ft.FkdLoader(some, maps, 1, 512, **options)
    whole = next(iter(loader))
    for source in (some, torchvision.datasets.ImageFolder(some)):
        dataset = ft.FkdDataset(source, maps, **options)
        assert len(dataset) == len(loader.db) - len(gone) == len(whole) and dataset.missing.tolist() == loader.missing.tolist()
        batch = dataset.__getitems__(list(ft.FkdSampler(dataset)))
        assert torch.equal(batch.inputs, whole.inputs) and torch.equal(batch.labels.values, whole.labels.values)
        with pytest.raises(fkdb.MismatchError):
            ft.FkdDataset(source, maps)


def test_crops_for_transforms_of_one_s_own(label_maps):
    images, path = label_maps
    maps = fkdb.open(path)
    item = ft.FkdDataset(images, maps, 2, transform=lambda crop: crop.float().mean(), pixels="torchvision")[7]
    batch = maps.pool([7], 2)
    assert item.inputs.shape == (2,) and torch.equal(item.labels.values, torch.from_numpy(batch.values))
    assert batch.values.shape == (2, 10) and batch.indices.shape == (2, 0) and np.allclose(batch.values.sum(1), 1)
    top, left, height, width = batch.boxes.T
    assert (height * width >= 0.05 * 28 * 28).all() and (top + height <= 28).all() and (left + width <= 28).all() and batch.sizes.tolist() == [[28, 28]]
    assert not np.array_equal(maps.pool([7], 2, epoch=2).boxes, batch.boxes) and np.array_equal(maps.pool([5, 7], 2).boxes[2:], batch.boxes)
    for number, what in ((0, "0 crops an image: expected 1 or more"), (2**32, "4294967296 crops an image, epoch 0, seed 0: expected less than")):
        with pytest.raises(fkdb.InvalidArgumentError, match=what):
            maps.pool([7], number)
    with pytest.raises(fkdb.InvalidArgumentError, match="1 crops an image, epoch 4294967296, seed -1: expected less than 2.32, 2.32, 2.64, and none below 0"):
        maps.pool([7], 1, -1, 2**32)
    with pytest.raises(fkdb.NotFoundError, match="no image 300: the label set has 300"):
        maps.pool([300])


def test_stored_crops_have_their_scale(labels):
    for way in (ft.FkdLoader, ft.FkdDataset):
        with pytest.raises(fkdb.InvalidArgumentError, match="scale and ratio are of label maps' fresh crops: those of this label set are stored"):
            way(TRAIN, labels, scale=(0.1, 1))
    with pytest.raises(fkdb.InvalidArgumentError, match="its labels are of kind '.*': pool\\(\\) is for label maps, sample\\(\\) for stored crops"):
        fkdb.open(labels).pool([0])
