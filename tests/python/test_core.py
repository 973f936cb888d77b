# SPDX-License-Identifier: Apache-2.0
"""fkdb without PyTorch: label sets, batches, the writer, whole-file jobs, the programs."""

import gc
import json
import multiprocessing
import os
import pathlib
import pickle
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest
from conftest import BIN
from PIL import Image

import fkdb

KINDS = {"marginal-smoothing": 3, "marginal-renorm": 3, "smoothing": 1, "hard": 1, "full": 0, "logits": 0}


def write(path, kind="marginal-smoothing", values="packed", images=7, crops=4, classes=10, seed=0, **options):
    """A label set of made-up images; returns what was appended by key."""
    rng = np.random.default_rng(seed)
    spec = fkdb.LabelSpec(kind, num_classes=classes, top_k=3, values=values)
    with fkdb.Writer(path, spec, [f"class{i % 2}/{i:03}.png" for i in range(images)], crops=crops, **options) as writer:
        for key in writer.todo():
            width, height = (int(n) for n in rng.integers(20, 600, 2))
            boxes, flips = writer.sample(key, width, height)
            writer.append(key, (width, height), boxes, flips, logits=4 * rng.standard_normal((crops, classes)))
    return fkdb.open(path)


@pytest.fixture
def db(tmp_path):
    return write(tmp_path / "made.fkdb")


@pytest.mark.parametrize("values", ["packed", "f16", "f32", "bf16"])
@pytest.mark.parametrize("kind", KINDS)
def test_arrays_are_what_the_dump_says_bit_for_bit(fkdb_program, tmp_path, kind, values):
    if values == "bf16" and kind != "logits":
        with pytest.raises(fkdb.InvalidArgumentError):
            fkdb.LabelSpec(kind, num_classes=10, top_k=3, values=values)
        return
    labels = write(tmp_path / "x.fkdb", kind, values)
    assert (labels.spec.kind, labels.spec.values, labels.spec.num_indices) == (kind, values, KINDS[kind])
    for ordinal in range(len(labels)):
        dumped = json.loads(fkdb_program.ok("dump", labels.path, "--ordinal", ordinal, "--dense", "--tau", 2, "--json"))
        record = labels[ordinal]
        crops = dumped["crops"]
        assert (record.key, record.ordinal, record.width, record.height) == tuple(dumped[n] for n in ("key", "ordinal", "width", "height"))
        assert np.array_equal(record.boxes, [c["box"] for c in crops])
        assert np.array_equal(record.pixel_boxes, record.boxes)
        assert np.array_equal(record.flips, [c["flip"] for c in crops]) and record.flips.dtype == bool
        if KINDS[kind]:
            assert np.array_equal(record.indices, [c["indices"] for c in crops])
        stored = np.array([c["values"] for c in crops], np.float32)
        if kind != "hard":  # which the dump gives the value 1
            assert np.array_equal(record.values.astype(np.float32), stored)
        assert np.array_equal(record.dense(tau=2), np.array([c["dense"] for c in crops], np.float32))
        batch = labels.take([ordinal], [[2, 0, 2]])
        assert np.array_equal(batch.indices, record.indices[[2, 0, 2]])
        assert np.array_equal(batch.values, record.values[[2, 0, 2]].astype(np.float32))
        assert np.array_equal(batch.boxes, record.boxes[[2, 0, 2]])
        assert np.array_equal(batch.flips, record.flips[[2, 0, 2]])
        assert batch.sizes.tolist() == [[record.height, record.width]]
        assert np.allclose(fkdb.recover(batch, 10, tau=2), record.dense(tau=2)[[2, 0, 2]], atol=2e-7)
        assert np.allclose(fkdb.recover(batch, tau=2).sum(1), 1, atol=1e-5)


def test_records_by_key_and_ordinal(db):
    assert len(db) == 7 and list(db) == db.keys() == sorted(db.keys())
    assert db["class1/003.png"].ordinal == db.ordinal("class1/003.png") == db.keys().index("class1/003.png")
    assert db[-1].key == db.key(6) == db.keys()[-1]
    assert "class1/003.png" in db and "class1/004.png" not in db and 6 in db and 7 not in db and 0.5 not in db
    assert db.get("x") is None and [record.key for record in db.values()] == db.keys()
    assert db.spec != 3 and db.spec != None and db.spec == fkdb.LabelSpec(num_classes=10, top_k=3)  # noqa: E711
    out = np.zeros((2, 10), np.float32)
    assert fkdb.recover(db.sample([0], 2), out=out) is out and np.allclose(out.sum(1), 1)
    assert db.manifest["counts"] == {"images": 7, "crops": 28, "skipped": 0}
    assert db.digest == db.manifest["digest"] and db.digest.startswith("sha256:")
    assert repr(db) == f"LabelSet({db.path!r}, 7 images, marginal-smoothing labels of 10 classes)"
    assert len(db[0]) == 4 and db[0].ops == [[]] * 4 and db[0].class_index is None and db[0].skip_reason is None


def test_errors_have_the_librarys_codes_and_one_line(db, tmp_path, labels):
    cases = [
        (lambda: db["nope"], fkdb.NotFoundError, KeyError, f"{db.path}: no image 'nope' in it"),
        (lambda: fkdb.open(tmp_path / "no.fkdb"), fkdb.NotFoundError, KeyError, f"{tmp_path}/no.fkdb: no such file"),
        (lambda: db[7], IndexError, IndexError, "image 7 of 7"),
        (lambda: db.sample([7], 2), fkdb.NotFoundError, KeyError, f"{db.path}: no image 7: the label set has 7 (counted from 0)"),
        (lambda: db.sample([0.5], 2), TypeError, TypeError, "ordinals of type float64: expected whole numbers"),
        (lambda: db.sample([-1], 2), IndexError, IndexError, "ordinals from -1 to -1: expected 0 or more"),
        (lambda: db.take([0], [[1.9]]), TypeError, TypeError, "crops of type float64: expected whole numbers"),
        (lambda: db.take([0], [[2**32 + 1]]), IndexError, IndexError, "crops from 4294967297 to 4294967297: expected 0 or more"),
        (lambda: db[b"class0/000.png\0x"], fkdb.NotFoundError, KeyError, None),
        (lambda: fkdb.subset(db, tmp_path / "s.fkdb", images=[]), fkdb.InvalidArgumentError, ValueError, "no images to keep: expected keys, or None for all"),
        (lambda: fkdb.recover(db.sample([0], 1), out=np.zeros((1, 10))), TypeError, TypeError, "out: expected a contiguous array of float32"),
        (lambda: db.sample([0], -1), fkdb.InvalidArgumentError, ValueError, "-1 crops an image: expected 1 or more"),
        (lambda: db.sample([0], 0), fkdb.InvalidArgumentError, ValueError, "0 crops an image: expected 1 or more"),
        (lambda: db.sample([0], 1, order="x"), fkdb.InvalidArgumentError, ValueError, "crop order 'x': expected cycle or visit"),
        (lambda: db.take([0], [[4]]), fkdb.NotFoundError, KeyError, f"{db.path}: image 'class0/000.png': no crop 4: it has 4 (counted from 0)"),
        (lambda: db.take([0, 1], [[1]]), fkdb.InvalidArgumentError, ValueError, "crops of 1 images for 2 ordinals"),
        (lambda: fkdb.recover(db.sample([0], 1), 11), fkdb.MismatchError, fkdb.Error, "labels of 10 classes: expected 11"),
        (lambda: fkdb.LabelSpec("x", num_classes=3), fkdb.UnsupportedError, fkdb.Error, None),
        (lambda: fkdb.merge(tmp_path / "out.fkdb", [db.path, labels]), fkdb.MismatchError, fkdb.Error, None),
        (lambda: fkdb.subset(db, db.path), fkdb.AlreadyExistsError, fkdb.Error, None),
        (lambda: fkdb.decode(b"no image"), fkdb.UnsupportedError, fkdb.Error, None),
        (lambda: fkdb.open_images(tmp_path / "none"), fkdb.NotFoundError, fkdb.Error, None),
    ]
    for action, kind, base, message in cases:
        with pytest.raises(kind) as raised:
            action()
        assert isinstance(raised.value, base)
        assert "\n" not in str(raised.value)
        if message:
            assert str(raised.value) == message
        again = pickle.loads(pickle.dumps(raised.value))  # as a DataLoader's worker hands it on
        assert type(again) is kind and str(again) == str(raised.value)
    codes = {kind.code for kind in fkdb.Error.__subclasses__()}
    assert len(codes) == len(fkdb.Error.__subclasses__()) == 12


def test_a_damaged_file_is_refused(db, tmp_path):
    bytes_ = bytearray(open(db.path, "rb").read())
    record = db[3].raw.tobytes()
    at = bytes_.find(record)
    bytes_[at + len(record) // 2] ^= 16
    damaged = tmp_path / "damaged.fkdb"
    damaged.write_bytes(bytes_)
    other = fkdb.open(damaged)
    assert np.array_equal(other[2].boxes, db[2].boxes)
    for action in (lambda: other[3], lambda: other.sample([2, 3], 1)):
        with pytest.raises(fkdb.CorruptionError, match="damaged.fkdb: image 3: block: checksum"):
            action()
    report = fkdb.verify(damaged)
    assert not report and report.error_count == 1 and "image 3" in report.errors[0]


def views(record):
    return record.raw, record.boxes, record.indices, record.values


def test_views_share_the_maps_memory_and_outlive_everything(tmp_path):
    labels = write(tmp_path / "f32.fkdb", values="f32")
    record = labels[2]
    copies = [view.copy() for view in views(record)]
    maps = [line for line in open("/proc/self/maps") if "f32.fkdb" in line]
    spans = [tuple(int(end, 16) for end in line.split()[0].split("-")) for line in maps]
    for view in views(record):
        assert not view.flags.writeable and not view.flags.owndata
        address = view.__array_interface__["data"][0]
        assert any(begin <= address < end for begin, end in spans)
        with pytest.raises(ValueError):
            view[...] = 0
    kept = views(record)
    os.unlink(labels.path)
    del record, labels, view
    gc.collect()
    assert any("f32.fkdb" in line for line in open("/proc/self/maps"))
    assert all(np.array_equal(view, copy) for view, copy in zip(kept, copies))
    del kept
    gc.collect()
    assert not any("f32.fkdb" in line for line in open("/proc/self/maps"))


def test_a_batch_outlives_its_label_set(db):
    batch = db.sample([1, 5], 2)
    indices, expected = batch.indices, batch.indices.copy()
    del db, batch
    gc.collect()
    assert np.array_equal(indices, expected) and indices.dtype == np.int32


def test_a_label_set_replaced_on_disk_stays_the_one_that_was_opened(db, tmp_path):
    before, pickled = db[0].boxes.copy(), pickle.dumps(db)
    write(tmp_path / "other.fkdb", seed=1)
    os.replace(tmp_path / "other.fkdb", db.path)
    assert np.array_equal(db[0].boxes, before) and not np.array_equal(fkdb.open(db.path)[0].boxes, before)
    with pytest.raises(fkdb.MismatchError, match="another label set than the one that was pickled"):
        pickle.loads(pickled)


def test_sampling_is_a_function_of_seed_epoch_and_ordinal(db):
    seen = [db.sample([3, 5], 2, seed=1, epoch=epoch) for epoch in (0, 2)]
    for image in range(2):
        boxes = np.concatenate([batch.boxes[2 * image:2 * image + 2] for batch in seen])
        assert sorted(map(tuple, boxes)) == sorted(map(tuple, db[3 + 2 * image].boxes))  # each of the 4 crops once
    one = db.sample(np.array([5], np.int32), 2, seed=1)
    assert np.array_equal(one.values, seen[0].values[2:]) and seen[0].ordinals.tolist() == [3, 5]
    visits = [db.sample([3], 2, seed=1, epoch=epoch, order="visit").boxes.tolist() for epoch in range(0, 40, 2)]
    assert len({str(boxes) for boxes in visits}) > 4


def _read(labels, ordinal):
    return labels[ordinal].values.tolist(), labels.sample([ordinal], 3, seed=2).values.tolist()


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_children_read_the_same(db, method):
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.starmap(_read, [(db, ordinal) for ordinal in range(7)])
    assert found == [_read(db, ordinal) for ordinal in range(7)]


def test_threads_read_the_same(db):
    expected, failed = [db.sample(range(7), 3, epoch=e).values for e in range(20)], []

    def work():
        for _ in range(50):
            for epoch in range(20):
                if not np.array_equal(db.sample(range(7), 3, epoch=epoch).values, expected[epoch]):
                    failed.append(epoch)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed


def test_nothing_leaks(tmp_path):
    path = write(tmp_path / "f16.fkdb", values="f16").path

    def resident():
        gc.collect()
        return int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize()

    def open_and_read(times):
        for i in range(times):
            labels = fkdb.open(path)
            record = labels[i % 7]
            record.indices, record.values, record.boxes, record.flips, record.ops, record.raw
            labels.sample([0, 1], 2).values
            try:
                labels["nope"]
            except fkdb.NotFoundError:
                pass

    times = 100_000 if os.environ.get("FKDB_LONG_TESTS") == "1" else 10_000
    open_and_read(times // 10)
    files, before = len(os.listdir("/proc/self/fd")), resident()
    open_and_read(times)
    assert len(os.listdir("/proc/self/fd")) == files
    assert resident() - before < 2 << 20  # 100,000 leaks of 21 bytes


def test_writer_makes_what_fkdb_write_makes(fkdb_program, tmp_path):
    """The same images, crops and outputs give the same digest: from the TorchScript of a model, and from the model."""
    import torch

    class Teacher(torch.nn.Module):
        """Sums in float64: its float32 outputs are the same bits in whatever order a CPU's kernels sum."""

        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.randn(2, 3 * 32 * 32) / 50)

        def forward(self, x):
            return torch.nn.functional.linear(x.flatten(1).double(), self.weight.double()).float()

    photos = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for i in range(6):
        (photos / f"{'ab'[i % 2]}").mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (40 + i, 60, 3), np.uint8)).save(photos / f"{'ab'[i % 2]}/{i}.png")
    torch.manual_seed(0)
    model = Teacher().eval()
    torch.jit.trace(model, torch.zeros(16, 3, 32, 32)).save(str(tmp_path / "teacher.pt"))
    made = fkdb_program.json("write", "--images", photos, "--teacher", tmp_path / "teacher.pt", "--crops", 16, "--batch-size", 16,
                             "--label", "full", "--encoding", "f32", "--input-size", 32, "--seed", 9, "--out", tmp_path / "a.fkdb")
    images = fkdb.open_images(photos)
    assert images.keys == ["a/0.png", "a/2.png", "a/4.png", "b/1.png", "b/3.png", "b/5.png"] and images.class_names == ["a", "b"]
    spec = fkdb.LabelSpec("full", num_classes=2, values="f32")
    with fkdb.Writer(tmp_path / "b.fkdb", spec, images.keys, crops=16, class_names=images.class_names, input_size=32, seed=9) as writer:
        for image in images:
            boxes, flips = writer.sample(image.key, image.width, image.height)
            with torch.inference_mode():
                logits = model(torch.from_numpy(writer.inputs(image, boxes, flips)))
            writer.append(image, None, boxes, flips, logits=logits)
    assert writer.manifest["digest"] == made["digest"]
    assert fkdb.verify(tmp_path / "b.fkdb", progress=lambda done, all: None).digest == made["digest"]


def test_writer_resumes_after_anything(tmp_path):
    expected = write(tmp_path / "whole.fkdb").digest
    rng = np.random.default_rng(0)
    path = tmp_path / "x.fkdb"
    spec = fkdb.LabelSpec(num_classes=10, top_k=3)
    keys = [f"class{i % 2}/{i:03}.png" for i in range(7)]
    cut = 0
    while not path.exists():
        cut += 3
        try:
            with fkdb.Writer(path, spec, reversed(keys), crops=4, resume=cut > 3) as writer:
                for key in writer.todo():
                    width, height = (int(n) for n in rng.integers(20, 600, 2))
                    boxes, flips = writer.sample(key, width, height)
                    logits = 4 * rng.standard_normal((4, 10))
                    writer.append(key, (width, height), boxes, flips, logits=logits)
                    if len(writer) == cut:
                        raise KeyboardInterrupt
        except KeyboardInterrupt:
            assert fkdb.open(f"{path}.partial", allow_partial=True).partial
    assert cut == 9 and fkdb.open(path).digest == expected


def test_writer_refuses(tmp_path):
    spec = fkdb.LabelSpec(num_classes=10, top_k=3)
    path, keys = tmp_path / "x.fkdb", ["a/1.png", "a/2.png"]
    boxes, flips, logits = [[0, 0, 5, 5]] * 2, [False, True], np.zeros((2, 10))
    for message, options in [("key 'a/1.png' comes twice", {"keys": ["a/1.png"] * 2}), ("no keys", {"keys": []}),
                             ("0 crops an image", {"crops": 0}), ("3 class names for labels of 10", {"class_names": ["a", "b", "c"]})]:
        with pytest.raises(fkdb.InvalidArgumentError, match=message):
            fkdb.Writer(path, spec, **{"keys": keys, "crops": 2, **options})
    writer = fkdb.Writer(path, spec, keys, crops=2)
    with pytest.raises(fkdb.LockedError):
        fkdb.Writer(path, spec, keys, crops=2, resume=True)
    refused = [
        (fkdb.InvalidArgumentError, "'a/2.png' is not the next one: .* expected 'a/1.png'", {"image": "a/2.png"}),
        (fkdb.InvalidArgumentError, "1 boxes and 2 flips: expected 2 of each", {"boxes": boxes[:1]}),
        (fkdb.InvalidArgumentError, "outputs of 18 numbers, 9 a crop: expected 2 x 10", {"logits": np.zeros((2, 9))}),
        (fkdb.ModelError, "outputs for crop 1 are not logits that are finite", {"logits": np.array([[0.0] * 10, [np.nan] * 10])}),
        (fkdb.ModelError, "not probabilities", {"logits": None, "probabilities": np.full((2, 10), 0.2)}),
        (fkdb.InvalidArgumentError, "box", {"boxes": [[0, 0, 5, 5], [3, 3, 5, 5]]}),
        (fkdb.InvalidArgumentError, "is not of pixels", {"boxes": [[0, 0, 5, 5], [-1, 0, 5, 5]]}),
        (fkdb.InvalidArgumentError, "class 0 of the 0 that have names", {"class_index": 0}),
        (TypeError, "one of logits and probabilities", {"logits": None}),
    ]
    for kind, message, changed in refused:
        with pytest.raises(kind, match=message):
            writer.append(**{"image": "a/1.png", "size": (7, 6), "boxes": boxes, "flips": flips, "logits": logits, **changed})
    writer.append("a/1.png", (7, 6), boxes, flips, probabilities=np.full((2, 10), 0.1))
    with pytest.raises(fkdb.LockedError):  # still
        fkdb.Writer(path, spec, keys, crops=2, resume=True)
    with pytest.raises(fkdb.IncompleteError, match="1 of 2 images are written; the next is 'a/2.png'"):
        writer.finish()
    writer.skip("a/2.png", "broken file")
    assert writer.finish()["counts"] == {"images": 2, "crops": 2, "skipped": 1}
    with pytest.raises(fkdb.InvalidArgumentError, match="the writer is closed"):
        writer.todo()
    assert fkdb.open(path)["a/2.png"].skip_reason == "broken file"
    assert fkdb.audit(path)["teacher"]["duplicate_images"] == 0  # nobody hashed these files
    with pytest.raises(fkdb.AlreadyExistsError):
        fkdb.Writer(path, spec, keys, crops=2)
    with pytest.raises(fkdb.NotFoundError):
        fkdb.open(path).sample([1], 1)


def test_writers_lock_is_let_go(tmp_path):
    """Whatever ends the block, the next run in the same process can go on."""
    spec, keys = fkdb.LabelSpec(num_classes=10, top_k=3), ["a/1.png", "a/2.png"]
    kept = []

    def one_image():
        with fkdb.Writer(tmp_path / "x.fkdb", spec, keys, crops=1, resume=True) as writer:
            kept.append(writer)
            writer.append(writer.todo()[0], (9, 9), [[0, 0, 9, 9]], [0], logits=np.zeros((1, 10)))

    with pytest.raises(fkdb.IncompleteError, match="1 of 2 images are written"):
        one_image()
    one_image()
    assert len(fkdb.open(tmp_path / "x.fkdb")) == 2
    with fkdb.Writer(tmp_path / "y.fkdb", spec, keys[:1], crops=1) as writer:
        writer.append("a/1.png", (9, 9), [[0, 0, 9, 9]], [0], logits=np.zeros((1, 10)))
        writer.finish()


def test_writer_among_threads_and_processes(tmp_path):
    spec, keys = fkdb.LabelSpec(num_classes=10, top_k=3), [f"{i:04}.png" for i in range(1000)]
    writer = fkdb.Writer(tmp_path / "x.fkdb", spec, keys, crops=1)

    def work():
        for key in keys:
            try:
                writer.append(key, (9, 9), [[0, 0, 9, 9]], [0], logits=np.zeros((1, 10)))
            except fkdb.InvalidArgumentError:
                writer.flush() if key.endswith("7.png") else None

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    child = os.fork()
    if child == 0:
        try:
            writer.append(keys[0], (9, 9), [[0, 0, 9, 9]], [0], logits=np.zeros((1, 10)))
        except fkdb.InvalidArgumentError as error:
            os._exit(7 if "works in the process that opened it" in str(error) else 2)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
    for thread in threads:
        thread.join()
    assert len(writer) == 1000
    writer.finish()
    assert fkdb.verify(tmp_path / "x.fkdb").images == 1000


def test_state_dict_sha256():
    import torch
    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    expected = fkdb.state_dict_sha256(model)
    assert expected == fkdb.state_dict_sha256(torch.compile(model)) == fkdb.state_dict_sha256(torch.nn.DataParallel(model))
    assert expected == fkdb.state_dict_sha256(model.state_dict()) != fkdb.state_dict_sha256(model.bfloat16())
    model[0].weight.data[1, 1] += 1
    assert fkdb.state_dict_sha256(model.float()) != expected


def test_jobs(db, fkdb_program, tmp_path):
    parts = [fkdb.subset(db, tmp_path / f"{n}.fkdb", images=keys) for n, keys in enumerate((db.keys()[:3], db.keys()[3:]))]
    assert [part["counts"]["images"] for part in parts] == [3, 4]
    calls = []
    merged = fkdb.merge(tmp_path / "all.fkdb", [tmp_path / "1.fkdb", tmp_path / "0.fkdb"], progress=lambda *n: calls.append(n))
    together = fkdb.merge(tmp_path / "index.fkdb", [tmp_path / "1.fkdb", tmp_path / "0.fkdb"], collection=True)
    assert merged["digest"] == together["digest"] == db.digest == fkdb.open(tmp_path / "index.fkdb").digest
    assert fkdb.open(tmp_path / "all.fkdb").manifest["provenance"]["tool"] == "fkdb (Python) 0.1.0"
    assert fkdb.audit(db) == json.loads(fkdb_program.ok("audit", db.path, "--json"))
    report = fkdb.verify(db.path)
    assert report and (report.images, report.crops, report.digest) == (7, 28, db.digest)
    with pytest.raises(ZeroDivisionError):
        fkdb.verify(db.path, progress=lambda done, all: 1 / 0)


def test_keys_are_bytes(tmp_path):
    names = [b"a/\xff.png", "a/ü.png", "a/\udcfe.png"]
    spec = fkdb.LabelSpec("hard", num_classes=2, values="f16")
    with fkdb.Writer(tmp_path / "x.fkdb", spec, names, crops=1) as writer:
        for key in writer.todo():
            writer.append(key, (4, 4), [[0, 0, 4, 4]], [False], logits=np.eye(2)[:1])
    labels = fkdb.open(tmp_path / "x.fkdb")
    assert labels.keys() == ["a/ü.png", "a/\udcfe.png", "a/\udcff.png"] and names[0] in labels and names[2] in labels
    assert labels[b"a/\xff.png"].ordinal == 2


def python(*arguments, **options):
    return subprocess.run([sys.executable, "-m", "fkdb", *map(str, arguments)], capture_output=True, text=True, timeout=100, **options)


def test_the_programs_are_the_same(db, tmp_path):
    for arguments in (["dump", db.path], ["dump", db.path, "--ordinal", "3", "--json"], ["audit", db.path], ["verify", db.path, "--json"],
                      ["dump", tmp_path / "none"], ["dump"], ["merge", db.path, db.path], ["convert", "--from", "fkd", db.path], ["subset", "--help"], ["verify", "--version"]):
        ours = python(*arguments)
        theirs = subprocess.run([BIN / f"fkdb-{arguments[0]}", *map(str, arguments[1:])], capture_output=True, text=True)
        assert (ours.stdout, ours.stderr, ours.returncode) == (theirs.stdout, theirs.stderr, theirs.returncode)
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/\xff.fkdb")
    shutil.copy(db.path, odd)
    assert python("verify", odd).returncode == 0
    assert python("nope").stderr == "fkdb: no program 'nope': expected one of audit, convert, dump, merge, share, subset, verify\n"
    assert python("nope").returncode == 2 and python("--version").stdout == "fkdb 0.1.0\n"


def test_type_checkers_know_it():
    here = pathlib.Path(__file__).parent
    done = subprocess.run([sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--no-incremental", here / "typed.py"],
                          capture_output=True, text=True, timeout=300, env={**os.environ, "MYPYPATH": str(BIN.parent / "python")})
    assert done.stdout == "Success: no issues found in 1 source file\n", done.stdout + done.stderr


def test_import_is_quick_and_light():
    code = "import sys, fkdb; print(sorted({'torch', 'torchvision', 'PIL', 'multiprocessing'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "[]\n"


def processor_time_of_children():
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def test_ctrl_c_ends_a_program_and_a_job(labels, tmp_path):
    big = tmp_path / "big.fkdb"
    subprocess.run([BIN / "label_bench", "make", "--images", "60000", "--out", big], check=True, capture_output=True)
    for code in ("import runpy, sys; sys.argv[1:] = ['verify', '--threads', '1', sys.argv[1]]; runpy.run_module('fkdb', run_name='__main__')",
                 "import fkdb, sys; fkdb.verify(sys.argv[1], threads=1)"):
        used = [processor_time_of_children()]
        subprocess.run([sys.executable, "-c", code, big], check=True, capture_output=True)
        used.append(processor_time_of_children())
        child = subprocess.Popen([sys.executable, "-c", code, big], stderr=subprocess.PIPE, text=True)
        until = time.monotonic() + 60
        while "big.fkdb" not in pathlib.Path(f"/proc/{child.pid}/maps").read_text():  # it reads the file, and will for a second
            assert child.poll() is None and time.monotonic() < until
            time.sleep(0.001)
        child.send_signal(signal.SIGINT)
        child.communicate(timeout=60)
        used.append(processor_time_of_children())
        assert child.returncode == -signal.SIGINT
        assert used[2] - used[1] < 0.7 * (used[1] - used[0])  # it did not come to its end first


def test_daemon_threads_at_exit(db):
    """Threads that never end do not take the process down with an error (Torch's own operations may)."""
    code = """
import sys, threading, time, fkdb
db = fkdb.open(sys.argv[1])
def sample():
    while True:
        fkdb.recover(db.sample(range(5), 3))
for _ in range(3):
    threading.Thread(target=sample, daemon=True).start()
time.sleep(0.3)
"""
    for _ in range(5):
        done = subprocess.run([sys.executable, "-c", code, db.path], capture_output=True, text=True, timeout=60)
        assert (done.returncode, done.stderr) == (0, "")


def test_decoding_and_crops_are_pillows(tmp_path):
    rng = np.random.default_rng(3)
    photo = Image.fromarray(rng.integers(0, 256, (60, 90, 3), np.uint8))
    photo.save(tmp_path / "x.jpg", quality=90)
    pixels = fkdb.decode((tmp_path / "x.jpg").read_bytes())
    opened = Image.open(tmp_path / "x.jpg").convert("RGB")
    assert np.array_equal(pixels, np.asarray(opened))
    inputs = fkdb.CropInputs((20, 30), mean=[0.5] * 3, std=[0.25] * 3)
    boxes, flips = [[3, 5, 40, 50], [0, 0, 60, 90]], [True, False]
    samples = inputs.samples(opened, boxes, flips)
    for (top, left, height, width), flip, found in zip(boxes, flips, samples):
        crop = opened.crop((left, top, left + width, top + height)).resize((30, 20), Image.Resampling.BILINEAR)
        assert np.array_equal(found, np.asarray(crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT) if flip else crop))
    expected = (samples.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.25)
    assert np.array_equal(inputs(pixels, boxes, flips), expected)
    assert np.array_equal(pickle.loads(pickle.dumps(inputs))(pixels, boxes, flips), expected)
    with pytest.raises(fkdb.InvalidArgumentError, match="is not inside an image of 90 x 60 pixels"):
        inputs(pixels, [[30, 0, 31, 90]], [False])
    with pytest.raises(TypeError, match="boxes of type float64: expected whole pixels"):
        inputs(pixels, [[0.9, 0, 31, 90]], [False])
    with pytest.raises(TypeError, match="flips of type float64: expected truth values"):
        inputs(pixels, [[0, 0, 31, 90]], [0.2])


def test_a_label_map_is_read():
    import torch
    from fkdb.torch import SparseLabels
    maps = fkdb.open(pathlib.Path(__file__).parent.parent / "golden/v1/label-map.f32.grid.fkdb")
    record = maps[0]
    assert maps.spec.kind == "label-map" and len(record) == 6 and record.indices.shape == record.values.shape == (6, 3)
    assert np.allclose(record.boxes, [[i / 2, j / 3, 1 / 2, 1 / 3] for i in range(2) for j in range(3)])
    dense = record.dense()
    for cell in range(6):
        scores = np.zeros(12)
        scores[record.indices[cell]] = record.values[cell]
        assert np.allclose(dense[cell], np.exp(scores) / np.exp(scores).sum(), atol=1e-6)
    batch = maps.sample([0], 2)
    assert np.allclose(fkdb.recover(batch).sum(1), 1, atol=1e-5)
    with pytest.raises(fkdb.UnsupportedError, match="label maps hold no labels of crops"):
        SparseLabels(maps.spec, torch.from_numpy(batch.indices), torch.from_numpy(batch.values))
