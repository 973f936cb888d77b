# SPDX-License-Identifier: Apache-2.0
"""fkdb.torch: data set, sampler, loader and loss, and what can go wrong under them."""

import os
import pickle
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch.utils.data import DataLoader
from torchvision.transforms import v2

import fkdb
import fkdb.torch as ft
from fkdb import _torch_labels

IMAGES, CLASSES, CROPS, K = 26, 10, 6, 3


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """JPEG files in two classes whose folders torchvision and we list in another order."""
    folder = tmp_path_factory.mktemp("photos")
    rng = np.random.default_rng(1)
    for i in range(IMAGES):
        (folder / ("a", "a-b")[i % 2]).mkdir(exist_ok=True)
        small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), np.uint8))
        small.resize((80 + i, 60), Image.Resampling.BICUBIC).save(folder / ("a", "a-b")[i % 2] / f"{i}.jpg", quality=92)
    return folder


def label(photos, path, kind="marginal-smoothing", values="f32", skip=(), **options):
    images = fkdb.open_images(photos)
    rng = np.random.default_rng(2)
    spec = fkdb.LabelSpec(kind, num_classes=CLASSES, top_k=K, values=values)
    with fkdb.Writer(path, spec, images.keys, crops=CROPS, **{"input_size": 32, **options}) as writer:
        for image in images:
            boxes, flips = writer.sample(image.key, image.width, image.height)
            logits = 3 * rng.standard_normal((CROPS, CLASSES))
            if image.key in skip:
                writer.skip(image.key, "broken")
            else:
                writer.append(image, None, boxes, flips, logits=logits)
    return fkdb.open(path)


@pytest.fixture(scope="module")
def db(photos, tmp_path_factory):
    return label(photos, tmp_path_factory.mktemp("db") / "labels.fkdb", skip=["a/10.jpg"])


def passes(loader, count=1):
    return [[(b.inputs.clone(), b.labels.indices.clone(), b.labels.values.clone(), b.ordinals.tolist(), b.state) for b in loader]
            for _ in range(count)]


def same(a, b):
    return len(a) == len(b) and all(
        all(torch.equal(x, y) if torch.is_tensor(x) else x == y for x, y in zip(one, other)) for one, other in zip(a, b))


def data_loader(dataset, batch=4, sampler=None, **options):
    sampler = ft.FkdSampler(dataset) if sampler is None else sampler
    return DataLoader(dataset, batch_size=batch, sampler=sampler, collate_fn=ft.collate, **options)


@pytest.mark.parametrize("order", ["cycle", "visit"])
def test_every_way_gives_the_same_batches(photos, db, order):
    loader = ft.FkdLoader(photos, db, 3, 12, workers=2, seed=5, order=order)
    expected = passes(loader, 3)
    assert len(loader) == len(expected[0]) == 7 and [b[3] for b in expected[0]] != [b[3] for b in expected[1]]
    assert sorted(sum((b[3] for b in expected[0]), [])) == [i for i in range(IMAGES) if db.key(i) != "a/10.jpg"]
    assert same(expected[1], passes(ft.FkdLoader(photos, db.path, 3, 12, workers=1, seed=5, order=order), 2)[1])
    folder = torchvision.datasets.ImageFolder(photos)
    items = torchvision.datasets.ImageFolder(photos, transform=v2.PILToTensor())
    keys = [os.path.relpath(path, photos) for path, _ in items.samples]
    plain = torch.utils.data.Subset(items, range(IMAGES))
    for images, options in ((photos, {}), (fkdb.open_images(photos), {}), (folder, {}), (plain, {"keys": keys})):
        dataset = ft.FkdDataset(images, db, 3, seed=5, order=order, **options)
        assert len(dataset) == IMAGES - 1
        assert all(same(a, b) for a, b in zip(expected, passes(data_loader(dataset), 3)))
    one_by_one = ft.FkdDataset(photos, db, 3, seed=5, order=order)
    one_by_one.set_epoch(3)
    assert torch.equal(torch.stack([one_by_one[i].inputs for i in range(4)]).flatten(0, 1), next(iter(
        data_loader(one_by_one, sampler=range(4)))).inputs)


def test_labels_are_the_label_sets(photos, db):
    for batch in ft.FkdLoader(photos, db, 2, 8, seed=1, workers=2):
        expected = db.sample(batch.ordinals, 2, seed=1)
        inputs, labels = batch
        assert len(inputs) == len(labels) == 2 * len(batch.ordinals) and inputs.shape[1:] == (3, 32, 32)
        assert np.array_equal(labels.indices, expected.indices) and np.array_equal(labels.values, expected.values)
        assert torch.allclose(labels.dense(), torch.from_numpy(fkdb.recover(expected)), atol=1e-6)
        assert torch.equal(labels[1:3].values, labels.values[1:3])


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_workers(photos, db, method):
    """Eight workers, forked and spawned, kept from pass to pass: the batches of none."""
    dataset = ft.FkdDataset(photos, db, 3, seed=5)
    expected = passes(data_loader(dataset), 2)
    found = passes(data_loader(dataset, num_workers=8, multiprocessing_context=method, persistent_workers=True), 2)
    assert all(same(a, b) for a, b in zip(expected, found))


def test_pixels_of_torchvision_and_transforms(photos, db):
    ours = ft.FkdDataset(photos, db, 3)
    theirs = ft.FkdDataset(torchvision.datasets.ImageFolder(photos), db, 3, pixels="torchvision")
    a, b = ours[4], theirs[4]
    image = v2.functional.pil_to_tensor(Image.open(photos / db.key(int(b.ordinals[0]))).convert("RGB"))
    batch = db.sample(b.ordinals, 3)
    for i in range(3):
        crop = v2.functional.resized_crop(image, *batch.boxes[i].tolist(), [32, 32], antialias=True)
        crop = v2.functional.horizontal_flip(crop) if batch.flips[i] else crop
        mean, std = (torch.tensor(x).view(3, 1, 1) for x in ([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]))
        assert torch.allclose(b.inputs[i], (crop / 255 - mean) / std, atol=1e-6)
    assert (a.inputs - b.inputs).abs().max() < 0.04  # one step of 255, or two
    transform = v2.Compose([v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])])
    for pixels, plain in (("fkdb", a), ("torchvision", b)):
        changed = ft.FkdDataset(photos, db, 3, pixels=pixels, transform=transform)[4]
        assert torch.allclose(changed.inputs, plain.inputs, atol=1e-6)
    larger = ft.FkdDataset(photos, db, 3, input_size=(40, 48))
    assert larger[0].inputs.shape == (3, 3, 40, 48) == passes(ft.FkdLoader(photos, db, 3, 3, input_size=(40, 48)))[0][0][0].shape


def test_mid_epoch_state(photos, db):
    """Training goes on behind any batch, whatever workers had read ahead, with either way in and more processes."""
    def loader():
        return ft.FkdLoader(photos, db, 3, 12, workers=2, seed=5)

    whole = sum(passes(loader(), 3), [])
    for done in (1, 6, 7, 9, 14):
        state = whole[done - 1][4]
        rest = loader()
        rest.load_state_dict(state)
        assert rest.state_dict() == {"epoch": 3 * (done // 7), "images": 4 * (done % 7)} and len(rest) == 7 - done % 7
        assert same(whole[done:], sum(passes(rest, 3), [])[:len(whole) - done]), done
        dataset = ft.FkdDataset(photos, db, 3, seed=5)
        sampler = ft.FkdSampler(dataset)
        sampler.load_state_dict(state)
        assert len(sampler) == 25 - 4 * (done % 7)
        again = sum(passes(data_loader(dataset, sampler=sampler, num_workers=2), 3), [])
        assert same(whole[done:], again[:len(whole) - done]), done
    broken_off = loader()
    for batch in broken_off:
        if batch.state["images"] == 8:
            break
    assert same(passes(broken_off)[0], whole[7:14])  # the next pass
    broken_off.set_epoch(0)
    assert same(passes(broken_off)[0], whole[:7])
    dataset = ft.FkdDataset(photos, db, 3, seed=5)
    for workers in (0, 2):
        loader_ = data_loader(dataset, num_workers=workers)
        for batch, _ in zip(loader_, range(2)):
            pass
        assert same(passes(loader_)[0], whole[7:14]), workers
    for wrong in ({}, {"epoch": 0}, {"epoch": 0, "images": -4}):
        with pytest.raises(fkdb.InvalidArgumentError, match="expected a batch's state"):
            broken_off.load_state_dict(wrong)
    with pytest.warns(UserWarning, match="epoch 1: epochs count crops, so a pass with 3 crops an image begins at a multiple of 3"):
        broken_off.set_epoch(1)
    odd = ft.FkdLoader(photos, db, 3, 15, workers=1, seed=5)
    with pytest.raises(fkdb.MismatchError, match="ended at image 4 of a pass: these are of 5 images"):
        odd.load_state_dict(whole[0][4])


@pytest.mark.parametrize("ranks", [2, 3])
def test_shards(photos, db, ranks):
    """No image twice; fewer than `ranks` never; the same from both ways in; state is everybody's."""
    def loaders():
        return [ft.FkdLoader(photos, db, 3, 6, workers=1, seed=5, rank=rank, num_replicas=ranks) for rank in range(ranks)]

    shards = [passes(loader, 2) for loader in loaders()]
    dataset = ft.FkdDataset(photos, db, 3, seed=5)
    for rank, shard in enumerate(shards):
        sampler = ft.FkdSampler(dataset, rank=rank, num_replicas=ranks)
        assert all(same(a, b) for a, b in zip(shard, passes(data_loader(dataset, 2, sampler), 2)))
        assert [b[4] for b in shard[0]] == [b[4] for b in shards[0][0]] and len(loaders()[rank]) == len(shard[0])
    for number in range(2):
        seen = [ordinal for shard in shards for batch in shard[number] for ordinal in batch[3]]
        assert len(seen) == len(set(seen)) == (IMAGES - 1) // ranks * ranks
    for rank, loader in enumerate(loaders()):
        loader.load_state_dict(shards[0][0][1][4])
        assert same(shards[rank][0][2:], passes(loader)[0])
    with pytest.raises(fkdb.InvalidArgumentError, match="rank 3 of 3 processes"):
        ft.FkdLoader(photos, db, rank=3, num_replicas=3)


def _rank_of_two(rank, folder, photos, path):
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/group", rank=rank, world_size=2)
    loader = ft.FkdLoader(photos, path, 3, 6, workers=1, seed=5)
    dataset = ft.FkdDataset(photos, path, 3, seed=5)
    torch.save([[batch.ordinals.tolist() for batch in one] for one in (loader, data_loader(dataset, 2))], f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_shards_of_torch_distributed(photos, db, tmp_path):
    torch.multiprocessing.spawn(_rank_of_two, (str(tmp_path), str(photos), db.path), nprocs=2)
    for rank in range(2):
        expected = [batch[3] for batch in passes(ft.FkdLoader(photos, db, 3, 6, seed=5, rank=rank, num_replicas=2))[0]]
        assert torch.load(tmp_path / f"{rank}.pt") == [expected, expected]


def test_batches_stay_what_they_are(photos, db):
    """A batch that is kept is not overwritten; one that is not gives its memory to a later one."""
    loader = ft.FkdLoader(photos, db, 3, 12, workers=2, seed=5)
    kept, copies, addresses = [], [], set()
    for _ in range(3):
        for batch in loader:
            kept.append(batch)
            copies.append(batch.inputs.clone())
    assert all(torch.equal(batch.inputs, copy) for batch, copy in zip(kept, copies))
    assert len({batch.inputs.data_ptr() for batch in kept}) == 21
    rest = kept.pop().inputs
    del kept, batch, loader
    assert torch.equal(rest, copies[-1])
    loader = ft.FkdLoader(photos, db, 3, 12, workers=2, seed=5)
    for _ in range(10):
        for batch in loader:
            addresses.add(batch.inputs.data_ptr())
    assert len(addresses) <= loader._idle[1].max_batches + 2  # the one in hand, and the one before it


def test_iterations_at_a_time_do_not_meet(photos, db):
    """Each has its own pass, whoever else iterates: a peek, another thread."""
    expected = passes(ft.FkdLoader(photos, db, 3, 12, workers=1, seed=5), 6)
    loader = ft.FkdLoader(photos, db, 3, 12, workers=2, seed=5)
    first = iter(loader)
    assert same([tuple(passes([next(first)])[0][0])], expected[0][:1])
    assert same(passes(loader)[0], expected[1])
    assert same(passes(first)[0], expected[0][1:])
    found = {}

    def work():
        for batch in loader:
            found.setdefault(batch.state["epoch"], []).append(passes([batch])[0][0])

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(found) == [6, 9, 12, 15]
    assert all(same(found[epoch], expected[epoch // 3]) for epoch in found)
    loader.close()
    assert len(passes(loader)[0]) == 7


def test_drop_last_and_targets(photos, db):
    whole = passes(ft.FkdLoader(photos, db, 3, 12, seed=5), 2)
    loader = ft.FkdLoader(torchvision.datasets.ImageFolder(photos), db, 3, 12, seed=5, drop_last=True)
    assert len(loader) == 6 and all(same(a, b[:6]) for a, b in zip(passes(loader, 2), whole))
    folder = torchvision.datasets.ImageFolder(photos)
    for images in (photos, folder):
        for batch in [*ft.FkdLoader(images, db, 3, 12), *data_loader(ft.FkdDataset(images, db, 3))]:
            assert batch.targets.tolist() == [folder.class_to_idx[db.key(n).split("/")[0]] for n in batch.ordinals.tolist() for _ in range(3)]


def test_arguments_are_checked_at_once(photos, db):
    for options, message in (({"batch_size": 0}, "batch_size 0: expected 1 or more"), ({"workers": -1}, "workers -1: expected 1"),
                             ({"crops_per_image": 0}, "crops_per_image 0"), ({"num_replicas": 2}, "one of 2 processes, but which"),
                             ({"input_size": 0}, "an input of 0 pixels")):
        with pytest.raises(fkdb.InvalidArgumentError, match=message):
            ft.FkdLoader(photos, db, **options)
    with pytest.raises(fkdb.InvalidArgumentError, match="temperature 0, tau 1.0: expected more than 0"):
        ft.SoftTargetLoss(temperature=0)
    dataset = ft.FkdDataset(photos, db, 3)
    with pytest.warns(UserWarning, match="the same crops come again: give DataLoader an FkdSampler"):
        for _ in range(2):
            list(DataLoader(dataset, 4, shuffle=True, collate_fn=ft.collate))


def test_samples_are_normalized_when_they_are_looked_at(photos, db):
    """By then they may have gone to another process, another device, another type."""
    def batch():
        return next(iter(data_loader(ft.FkdDataset(photos, db, 3, seed=5))))

    expected = next(iter(ft.FkdLoader(photos, db, 3, 12, seed=5))).inputs
    samples = batch()._inputs
    assert samples.pixels.dtype == torch.uint8 and torch.equal(samples.normalized(), expected)
    assert torch.equal(ft._normalize(samples.pixels.permute(0, 3, 1, 2), samples.crop_inputs), expected)  # as a GPU would
    assert torch.equal(pickle.loads(pickle.dumps(batch())).inputs, expected)
    moved = batch().to("cpu", non_blocking=True)
    assert isinstance(moved._inputs, ft._Samples) and torch.equal(moved.inputs, expected)
    assert torch.equal(batch().to(torch.float64).inputs, expected.double()) and len(batch()) == 12
    seen = batch()
    assert seen.inputs is seen.inputs and torch.equal(seen.to("cpu", torch.bfloat16).inputs, expected.bfloat16())


def test_images_that_changed_before_a_worker_opens_them_are_refused(photos, db, tmp_path):
    import shutil
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    pickled = pickle.dumps(ft.FkdDataset(other, db, 3))
    pickle.loads(pickled)
    shutil.copy(other / "a/4.jpg", other / "a/0000.jpg")
    with pytest.raises(fkdb.MismatchError, match="other images than those that were pickled"):
        pickle.loads(pickled)


def test_images_that_both_have(photos, db, tmp_path):
    """Four of the labelled images are missing and one has no labels: the same batches from every kind of data set."""
    import shutil
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    gone = [key for key in db.keys() if key.startswith("a/1")]
    for key in gone:
        (other / key).unlink()
    shutil.copy(photos / "a-b/5.jpg", other / "a-b/new.jpg")
    missing = [db.ordinal(key) for key in gone]
    loader = ft.FkdLoader(other, db, 3, 12, workers=2, seed=5, allow_missing=True)
    expected = passes(loader, 2)
    trained = sorted(sum((b[3] for b in expected[0]), []))
    assert loader.missing.tolist() == missing and trained == [i for i in range(IMAGES) if i not in missing and db.key(i) != "a/10.jpg"]
    folder = torchvision.datasets.ImageFolder(other)
    for dataset in (ft.FkdDataset(other, db, 3, seed=5, allow_missing=True), ft.FkdDataset(folder, db, 3, seed=5, allow_missing=True)):
        dataset = pickle.loads(pickle.dumps(dataset))
        assert len(dataset) == len(trained) and dataset.missing.tolist() == missing
        assert same(passes(data_loader(dataset, num_workers=1))[0], expected[0])
    (tmp_path / "none").mkdir()
    shutil.copy(photos / "a-b/5.jpg", tmp_path / "none/x.jpg")
    for make in (lambda: ft.FkdLoader(tmp_path / "none", db, allow_missing=True),
                 lambda: ft.FkdDataset([0], db, keys=["x.jpg"], allow_missing=True)):
        with pytest.raises(fkdb.MismatchError):
            make()


def test_the_wrong_images_are_refused_by_name(photos, db, tmp_path):
    import shutil
    other = tmp_path / "other"
    shutil.copytree(photos, other)
    (other / "a/4.jpg").rename(other / "a/4b.jpg")
    for make in (lambda: ft.FkdLoader(other, db), lambda: ft.FkdDataset(other, db),
                 lambda: ft.FkdDataset(torchvision.datasets.ImageFolder(other), db)):
        with pytest.raises(fkdb.MismatchError, match=r"labels.fkdb does not match the images of '.*other': .*'a/4(b)?\.jpg'"):
            make()
    with pytest.raises(TypeError, match="give keys=, one for each item"):
        ft.FkdDataset([Image.new("RGB", (9, 9))] * IMAGES, db)
    with pytest.raises(fkdb.MismatchError, match="25 keys for a data set of 26 items"):
        ft.FkdDataset([0] * IMAGES, db, keys=db.keys()[1:])
    (other / "a/4b.jpg").rename(other / "a/4.jpg")
    Image.new("RGB", (80, 61)).save(other / "a/4.jpg")
    message = "a/4.jpg.*it was 84 x 60 pixels when labelled and is 80 x 61 now"
    for loader in (ft.FkdLoader(other, db), data_loader(ft.FkdDataset(other, db)),
                   data_loader(ft.FkdDataset(torchvision.datasets.ImageFolder(other), db), num_workers=2)):
        with pytest.raises(fkdb.MismatchError, match=message):
            for _ in loader:
                pass
    named = label(photos, tmp_path / "named.fkdb", "logits", class_names=["a", "c"])
    for make in (lambda: ft.FkdLoader(photos, named), lambda: ft.FkdDataset(torchvision.datasets.ImageFolder(photos), named)):
        with pytest.raises(fkdb.MismatchError, match="class 1 is 'c' in the label set, 'a-b' here"):
            make()


def _broken_transform(crop):
    raise ZeroDivisionError("in the transform")


def _deadly_transform(crop):
    if torch.utils.data.get_worker_info() is not None:
        os.kill(os.getpid(), signal.SIGKILL)
    return crop


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_a_broken_transform_and_a_killed_worker_are_reported(photos, db, method):
    options = {"num_workers": 2, "multiprocessing_context": method}
    with pytest.raises(ZeroDivisionError, match="in the transform"):
        list(data_loader(ft.FkdDataset(photos, db, 3, transform=_broken_transform), **options))
    with pytest.raises(RuntimeError, match="DataLoader worker .* (killed|exited)"):
        list(data_loader(ft.FkdDataset(photos, db, 3, transform=_deadly_transform), **options))
    assert len(passes(data_loader(ft.FkdDataset(photos, db, 3), **options))[0]) == 7  # nothing of it stays


def test_ctrl_c_in_mid_epoch(photos, db):
    """Ends at once and cleanly, whoever loads."""
    for make in ("ft.FkdLoader(sys.argv[1], sys.argv[2], 3, 12, workers=2)",
                 "torch.utils.data.DataLoader(d, batch_size=4, sampler=ft.FkdSampler(d), collate_fn=ft.collate, num_workers=2,"
                 " persistent_workers=True)"):
        code = f"""
import sys, torch, fkdb.torch as ft
d = ft.FkdDataset(sys.argv[1], sys.argv[2], 3)
loader = {make}
assert len(list(loader)) == 7
print("ready", flush=True)
try:
    while True:
        for batch in loader:
            pass
except KeyboardInterrupt:
    del loader
    print("interrupted", flush=True)
"""
        child = subprocess.Popen([sys.executable, "-c", code, photos, db.path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                 start_new_session=True)
        assert child.stdout.readline() == "ready\n"
        time.sleep(0.5)
        os.killpg(child.pid, signal.SIGINT)
        out, _ = child.communicate(timeout=30)
        assert (out, child.returncode) == ("interrupted\n", 0)


def test_a_loader_in_a_forked_child(photos, db):
    """It begins anew there, without waiting for threads that were not forked along."""
    loader = ft.FkdLoader(photos, db, 3, 12, workers=2)
    expected = passes(loader, 2)[1]
    assert len(passes(loader)[0]) == 7 and loader._idle
    child = os.fork()
    if child == 0:
        signal.alarm(30)
        torch.set_num_threads(1)  # as DataLoader does: Torch's own threads do not come along either
        loader.set_epoch(3)
        pipeline = loader._idle[1]
        equal = same(passes(loader)[0], expected)
        try:
            pipeline.next()
        except fkdb.InvalidArgumentError:
            del loader, pipeline
            os._exit(7 if equal else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    loader.set_epoch(3)
    assert same(passes(loader)[0], expected)
    with pytest.raises(TypeError, match="cannot be pickled"):
        pickle.dumps(loader)


KINDS = ["marginal-smoothing", "marginal-renorm", "smoothing", "hard", "full", "logits"]


def random_labels(kind, values="f32", rows=40, classes=50, seed=0):
    rng = np.random.default_rng(seed)
    spec = fkdb.LabelSpec(kind, num_classes=classes, top_k=5, values=values)
    logits = 3 * rng.standard_normal((rows, classes))
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    index = np.argsort(-p, 1)[:, :spec.num_indices]
    stored = logits if kind == "logits" else p if kind == "full" else np.take_along_axis(p, index, 1)[:, :spec.num_values]
    return ft.SparseLabels(spec, torch.tensor(index, dtype=torch.int32), torch.tensor(stored, dtype=torch.float32))


def dense_loss(logits, labels, temperature, tau):
    return torch.nn.functional.cross_entropy(logits.double() / temperature, labels.dense(tau).double(), reduction="none")


DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(
    not torch.cuda.is_available(), reason="no CUDA device; the kernels' bodies are tested on the CPU, in tests/cuda"))]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("kind", KINDS)
def test_loss_is_cross_entropy_with_the_dense_label(kind, device):
    labels = random_labels(kind).to(device)
    generator = torch.Generator().manual_seed(1)
    logits = (4 * torch.randn(40, 50, generator=generator)).to(device).requires_grad_()
    weights = torch.rand(40, generator=generator).to(device)
    losses, expected = ft.soft_target_loss(logits, labels, 1.5, 2.0), dense_loss(logits, labels, 1.5, 2.0)
    assert losses.dtype == torch.float32 and torch.allclose(losses.double(), expected, atol=2e-5)
    ours, theirs = (torch.autograd.grad((weights * x).sum(), logits)[0] for x in (losses, expected))
    assert torch.allclose(ours, theirs.float(), atol=1e-6)
    # What devices without our kernels compute.
    other, gradient = _torch_labels._torch_loss(logits.detach(), labels.indices, labels.values, labels._rule.text, 1.5, 2.0)
    assert torch.allclose(other, losses, atol=2e-5) and torch.allclose(weights[:, None] * gradient, ours, atol=1e-6)
    for reduction in ("mean", "sum"):
        assert torch.allclose(ft.SoftTargetLoss(1.5, 2.0, reduction)(logits, labels), getattr(losses, reduction)())
    if kind != "logits":
        assert torch.allclose(labels.dense().cpu(), torch.from_numpy(fkdb.recover(labels.to("cpu"))), atol=1e-6)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_loss_and_gradient_in_one_pass(dtype, device):
    labels = random_labels("marginal-smoothing").to(device)
    layer = torch.nn.Linear(20, 50, device=device)
    x = torch.randn(40, 20, generator=torch.Generator().manual_seed(3)).to(device)
    ft.SoftTargetLoss(1.5)(layer(x).to(dtype), labels).backward()
    expected, layer.weight.grad = layer.weight.grad, None
    logits = layer(x).to(dtype)
    losses, gradient = ft.loss_and_gradient(logits, labels, temperature=1.5)
    assert torch.equal(losses, ft.soft_target_loss(logits, labels, 1.5)) and not losses.requires_grad
    assert gradient.dtype == dtype and gradient.shape == logits.shape
    logits.backward(gradient)
    assert torch.allclose(layer.weight.grad, expected, atol=0.02 * float(expected.abs().max()) if dtype != torch.float32 else 1e-7)
    scaled = ft.loss_and_gradient(logits, labels, temperature=1.5, scale=2.0)[1]
    assert torch.allclose(scaled.float() / 80, gradient.float(), rtol=0.02, atol=1e-6)
    with pytest.raises(fkdb.MismatchError):
        ft.loss_and_gradient(logits[:, 1:], labels)


@pytest.mark.parametrize("device", DEVICES)
def test_a_loss_scale_comes_before_rounding_to_float16(device):
    labels = random_labels("hard").to(device)
    logits = (4 * torch.randn(40, 50, generator=torch.Generator().manual_seed(1))).to(device).half().requires_grad_()
    exact = logits.detach().double().requires_grad_()
    dense_loss(exact, labels, 1, 1).sum().backward()
    small = (exact.grad.abs() < 1e-8) & (exact.grad.abs() > 1e-9)  # binary16's smallest is 6e-8
    assert small.sum() > 5
    for scaled in (65536 * ft.soft_target_loss(logits, labels).sum(), None):
        if scaled is None:
            gradient = ft.loss_and_gradient(logits, labels, scale=65536)[1]
        else:
            gradient, = torch.autograd.grad(scaled, logits)
        assert gradient.dtype == torch.float16
        assert torch.allclose(gradient.double()[small] / 65536, exact.grad[small], rtol=0.01)


@pytest.mark.parametrize("device", DEVICES)
def test_loss_is_an_operation_that_torch_accepts(device):
    labels = random_labels("marginal-smoothing", rows=6, classes=12).to(device)
    arguments = (torch.randn(6, 12, requires_grad=True, device=device), labels.indices, labels.values, labels._rule.text, 1.0, 1.0)
    torch.library.opcheck(torch.ops.fkdb.soft_target_loss.default, arguments)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_loss_under_autocast(dtype, device):
    labels = random_labels("marginal-smoothing").to(device)
    layer = torch.nn.Linear(20, 50, device=device)
    x = torch.randn(40, 20, generator=torch.Generator().manual_seed(3)).to(device)
    expected = ft.SoftTargetLoss()(layer(x), labels)
    expected.backward()
    full = layer.weight.grad.clone()
    layer.weight.grad = None
    with torch.autocast(device, dtype=dtype):
        logits = layer(x)
        loss = ft.SoftTargetLoss()(logits, labels)
    assert logits.dtype == dtype and loss.dtype == torch.float32
    loss.backward()
    assert abs(loss - expected) < 0.01 and torch.allclose(layer.weight.grad, full, atol=5e-3)


def test_loss_and_labels_do_not_go_wrong_in_silence():
    """Types that would lose classes; second derivatives, which there are none of."""
    labels = random_labels("marginal-smoothing", classes=1000)
    with pytest.raises(TypeError, match="labels have no other type: expected a device, got torch.bfloat16"):
        labels.to(torch.bfloat16)
    batch = ft.FkdBatch(torch.zeros(40, 3, 2, 2), labels, torch.arange(40), torch.zeros(40), {})
    moved = batch.to("cpu", torch.bfloat16)
    assert moved.inputs.dtype == torch.bfloat16 and torch.equal(moved.labels.indices, labels.indices)
    assert labels.indices.dtype == torch.int32 and len(labels[0]) == 1
    wrong = ft.SparseLabels(labels.spec, labels.indices.long() + 2**32, labels.values)
    with pytest.raises(TypeError, match="expected int32 indices"):
        ft.SoftTargetLoss()(torch.zeros(40, 1000), wrong)
    x, w = torch.randn(40, 4, requires_grad=True), torch.randn(4, 1000, requires_grad=True)
    gradient, = torch.autograd.grad(ft.SoftTargetLoss()(x @ w, labels), x, create_graph=True)
    with pytest.raises(RuntimeError, match="no autograd formula|not.*registered"):
        torch.autograd.grad(gradient.pow(2).sum(), w)
    dense = torch.compile(lambda labels: labels.dense().sum(1), fullgraph=True, backend="aot_eager")(labels)
    assert torch.allclose(dense, torch.ones(40))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_loss_in_a_cuda_graph():
    labels = random_labels("marginal-smoothing").to("cuda")
    logits = torch.zeros(40, 50, device="cuda")
    for _ in range(2):
        ft.loss_and_gradient(logits, labels)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        losses, gradient = ft.loss_and_gradient(logits, labels)
    logits.copy_(torch.randn(40, 50))
    graph.replay()
    expected = ft.loss_and_gradient(logits, labels)
    assert torch.equal(losses, expected[0]) and torch.equal(gradient, expected[1])


def test_loss_compiled():
    backend = "inductor" if os.environ.get("FKDB_LONG_TESTS") == "1" else "aot_eager"
    labels = random_labels("marginal-renorm")
    layer, criterion = torch.nn.Linear(20, 50), ft.SoftTargetLoss()
    step = torch.compile(lambda x: criterion(layer(x), labels), fullgraph=True, backend=backend)
    x = torch.randn(40, 20, generator=torch.Generator().manual_seed(3))
    compiled = step(x)
    gradient = torch.autograd.grad(compiled, layer.weight)[0]
    plain = criterion(layer(x), labels)
    assert torch.allclose(compiled, plain) and torch.allclose(gradient, torch.autograd.grad(plain, layer.weight)[0], atol=1e-6)
    # Logits that are not contiguous: the gradient is.
    w = torch.randn(50, 40, requires_grad=True)
    step = torch.compile(lambda w: criterion((2 * w).t(), labels), fullgraph=True, backend=backend)
    gradient, plain = (torch.autograd.grad(loss, w)[0] for loss in (step(w), criterion((2 * w).t(), labels)))
    assert torch.allclose(gradient, plain, atol=1e-6)


def test_loss_refuses_what_does_not_fit():
    labels = random_labels("marginal-smoothing", rows=6, classes=12)
    for shape in ((6, 11), (5, 12), (6,)):
        with pytest.raises(fkdb.MismatchError, match=r"logits of shape .* for 6 labels of 12 classes"):
            ft.SoftTargetLoss()(torch.zeros(shape), labels)
    labels.indices[3, 2] = 12
    with pytest.raises(fkdb.InvalidArgumentError, match="row 3: class 12 of 12"):
        ft.SoftTargetLoss()(torch.zeros(6, 12), labels)
