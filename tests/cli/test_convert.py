# SPDX-License-Identifier: Apache-2.0
"""fkdb-convert: label sets in other systems' forms, in and out."""

import json
import pickletools
import struct
import zipfile

import numpy as np
import peer_labels
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

KEYS = [f"n{c}/{c}_{i}.{e}" for c in range(3) for i, e in enumerate(("JPEG", "jpg", "png"))]
KINDS = ["hard", "smoothing", "marginal_smoothing_k5", "marginal_smoothing_k10", "marginal_renorm_k5", "ori"]
OURS = {"hard": "hard", "smoothing": "smoothing", "ori": "full", "marginal_renorm_k5": "marginal-renorm"}


def flags(kind):
    return [] if kind in ("hard", "smoothing", "ori") else ["--label", OURS.get(kind, "marginal-smoothing")]


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images") / "data/train"
    return folder, peer_labels.images(folder, KEYS)


def same(a, b):
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


def load(path):
    return torch.load(path, map_location="cpu", weights_only=False)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_fkd_in_and_out_gives_every_bit_back(fkdb, train, tmp_path, kind, half):
    folder, sizes = train
    labels = peer_labels.fkd(tmp_path / "labels", sizes, kind, half=half)
    convert = ["convert", "--from", "fkd", "--images", folder, "--num-classes", 12, "--no-classes", *flags(kind), tmp_path / "labels"]
    made = fkdb.json(*convert, tmp_path / "l.fkdb")
    assert (made["images"], made["crops"], made["skipped"]) == (9, 54, 0)
    assert made["labels"]["kind"] == OURS.get(kind, "marginal-smoothing")
    assert made["labels"]["boxes"] == "pixel" and made["labels"]["values"] == ("f16" if half else "f32")
    assert made["refused_count"] == made["stray_count"] == made["rounded_boxes"] == made["sorted_crops"] == 0
    assert fkdb.json("verify", tmp_path / "l.fkdb")["ok"]
    # What fkdb-dump says is what the file says.
    key = "n1/1_0.JPEG"
    image = fkdb.json("dump", tmp_path / "l.fkdb", "--image", key)
    coords, flip, label = labels[key]
    height, width = sizes[key]
    for crop, c, f in zip(image["crops"], coords, flip):
        top, left, h, w = np.asarray(c, np.float64) * [height, width, height, width]
        assert crop["box"] == [round(top), round(left), round(top + h) - round(top), round(left + w) - round(left)] and crop["flip"] == f
    if kind.startswith("marginal"):
        assert [c["indices"] for c in image["crops"]] == label[:, 0].astype(int).tolist()
        assert np.array_equal(np.array([c["values"] for c in image["crops"]], label.dtype), label[:, 1])
    out = fkdb.json("convert", "--to", "fkd", tmp_path / "l.fkdb", tmp_path / "out")
    assert (out["images"], out["crops"]) == (9, 54)
    for key, state in labels.items():
        back = load(tmp_path / "out/train" / peer_labels.fkd_name(key))
        assert isinstance(back, list) and all(same(a, b) for a, b in zip(back, state, strict=True)), key
    # And again: the same label set.
    again = fkdb.json(*convert[:-1], tmp_path / "out", tmp_path / "again.fkdb")
    assert again["digest"] == made["digest"]


@pytest.mark.parametrize("numpy_1", [False, True])
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("tensors", [False, True])
def test_fkd_however_it_was_saved(fkdb, train, tmp_path, tensors, protocol, numpy_1):
    folder, sizes = train
    digests = set()
    for name, options in (("plain", {}), ("other", {"tensors": tensors, "protocol": protocol, "numpy_1": numpy_1})):
        peer_labels.fkd(tmp_path / name, sizes, **options)
        digests.add(fkdb.json("convert", "--from", "fkd", "--images", folder, "--no-classes", "--num-classes", 12, "--label", "marginal_smoothing_k5",
                              tmp_path / name, tmp_path / f"{name}.fkdb")["digest"])
    assert len(digests) == 1


def test_the_exported_file_is_laid_out_as_the_generators(fkdb, train, tmp_path):
    """The same instructions as Python's pickler writes, memo numbers and all."""
    folder, sizes = train
    peer_labels.fkd(tmp_path / "labels", sizes)
    fkdb.ok("convert", "--from", "fkd", "--images", folder, "--no-classes", "--num-classes", 12, "--label", "marginal-smoothing", tmp_path / "labels",
            tmp_path / "l.fkdb")
    fkdb.ok("convert", "--to", "fkd", tmp_path / "l.fkdb", tmp_path / "out")

    def instructions(path):
        with zipfile.ZipFile(path) as archive:
            assert {m.compress_type for m in archive.infolist()} == {zipfile.ZIP_STORED} and archive.testzip() is None
            assert {"version", "data.pkl"} <= {name.split("/")[1] for name in archive.namelist()} and archive.namelist()[0] == f"{path.stem}/data.pkl"
            return [(op.name, arg) for op, arg, _ in pickletools.genops(archive.read(f"{path.stem}/data.pkl")) if op.name not in ("BINPUT", "BINGET", "LONG_BINPUT")]

    name = "train/n0/0_0.tar"
    ours, theirs = instructions(tmp_path / "out" / name), instructions(tmp_path / "labels" / name)
    assert [i for i in ours if i[0] not in ("GLOBAL", "BINUNICODE")][:12] == [i for i in theirs if i[0] not in ("GLOBAL", "BINUNICODE")][:12]
    assert [arg for op, arg in ours if op == "BINUNICODE" and len(arg) > 20] == [arg for op, arg in theirs if op == "BINUNICODE" and len(arg) > 20]
    assert struct.unpack("<I", (tmp_path / "out" / name).read_bytes()[:4])[0] == 0x04034B50


def ops_of(crop, hashes):
    """fkdb-dump's operations as peer_labels has them."""
    found = []
    for op in crop["ops"]:
        op = dict(op)
        name, partner = op.pop("op"), op.pop("partner", None)
        found.append((name, partner and hashes[partner], list(op.values())))
    return found


def same_ops(found, meant):
    return [op[:2] for op in found] == [op[:2] for op in meant] and all(np.allclose(f[2], m[2], rtol=1e-6, atol=1e-6) for f, m in zip(found, meant))


@pytest.fixture(scope="module")
def hashes(train):
    """Keys by the hash that names a partner."""
    import xxhash
    return {f"{xxhash.xxh3_64_hexdigest(key.encode())}": key for key in ODD_KEYS + KEYS}


# torchvision counts class `a` before `a-b`; as bytes "a-b/" comes before "a/".
ODD_KEYS = [f"{c}/{name}.jpg" for c in ("a", "a-b", "b") for name in ("1-2", "1", "10", "2")]


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    folder = tmp_path_factory.mktemp("odd") / "train"
    sizes = peer_labels.images(folder, ODD_KEYS, seed=5)
    order = peer_labels.folder_order(folder)
    assert order == ODD_KEYS and order != sorted(order)
    return folder, sizes, order


def convert(fkdb, system, folder, source, out, *more):
    return fkdb.json("convert", "--from", system, "--images", folder, "--no-classes", "--num-classes", 12, source, out, *more)


@pytest.mark.parametrize("options", [{}, {"gzipped": True}, {"mixing": False}, {"mixing": False, "rand_augment": False, "erase": False}],
                         ids=["mixed", "gzipped", "unmixed", "crops"])
def test_ml_dr(fkdb, odd, hashes, tmp_path, options):
    folder, sizes, order = odd
    labels = peer_labels.ml_dr(tmp_path / "labels", order, sizes, **options)
    made = convert(fkdb, "ml-dr", folder, tmp_path / "labels", tmp_path / "l.fkdb", "--label", "marginal-smoothing")
    assert (made["images"], made["crops"], made["refused_count"], made["stray_count"]) == (12, 60, 0, 0)
    assert made["labels"] == {"kind": "marginal-smoothing", "num_classes": 12, "top_k": 4, "boxes": "pixel", "values": "f32"}
    for key, crops in labels.items():
        for got, meant in zip(fkdb.json("dump", tmp_path / "l.fkdb", "--image", key)["crops"], crops, strict=True):
            assert got["box"] == meant["box"] and got["flip"] == meant["flip"]
            assert same_ops(ops_of(got, hashes), meant["ops"]), (got["ops"], meant["ops"])
            assert got["indices"] == meant["classes"].tolist() and np.array_equal(np.float32(got["values"]), meant["p"])


@pytest.mark.parametrize("mix", [None, "mixup", "cutmix"])
@pytest.mark.parametrize("half", [False, True])
def test_sre2l(fkdb, odd, hashes, tmp_path, mix, half):
    """Epochs of batches of 5, 5 and 2, in several passes over the files."""
    folder, sizes, order = odd
    rng = np.random.default_rng(7)
    ids, meant = {}, {key: [] for key in order}
    for epoch in range(3):
        ids[str(epoch)] = rng.permutation(len(order)).tolist()
        for b in range(3):
            keys = [order[i] for i in ids[str(epoch)][5 * b:5 * b + 5]]
            value, crops = peer_labels.batch(rng, keys, sizes, half, torch.randn(len(keys), 12), mix, False)
            path = tmp_path / f"labels/epoch_{epoch}/batch_{b}.tar"
            path.parent.mkdir(parents=True, exist_ok=True)
            torch.save(value, path)
            for key, crop in zip(keys, crops):
                meant[key].append(crop)
    (tmp_path / "order.json").write_text(json.dumps(ids))
    torch.save({int(e): torch.tensor(i) for e, i in ids.items()}, tmp_path / "order.pt")
    torch.save(torch.tensor([ids[str(e)] for e in range(3)]), tmp_path / "table.pt")
    digests = set()
    for n, (order_file, memory) in enumerate((("order.json", 4), ("order.pt", 1e-6), ("table.pt", 3e-6))):
        made = convert(fkdb, "sre2l", folder, tmp_path / "labels", tmp_path / f"{n}.fkdb", "--order", tmp_path / order_file, "--memory", memory)
        assert made["crops"] == 36 and made["labels"]["kind"] == "logits" and made["labels"]["values"] == ("f16" if half else "f32")
        digests.add(made["digest"])
    assert len(digests) == 1 and made["labels"]["boxes"] == "pixel"
    for key, crops in meant.items():
        for got, crop in zip(fkdb.json("dump", tmp_path / "0.fkdb", "--image", key)["crops"], crops, strict=True):
            assert got["box"] == crop["box"] and got["flip"] == crop["flip"] and same_ops(ops_of(got, hashes), crop["ops"])
            assert np.array_equal(np.float32(got["values"]), crop["output"])
    fkdb.fails(2, "these labels do not say which images a batch is of: --order names a file with the image numbers of each epoch", "convert", "--from", "sre2l",
               "--images", folder, tmp_path / "labels", tmp_path / "x.fkdb")


@pytest.mark.parametrize("listed", [False, True])
def test_lpqld(fkdb, odd, hashes, tmp_path, listed):
    """Batches that were left out: images have 2, 3 or 4 crops."""
    folder, sizes, order = odd
    rng = np.random.default_rng(8)
    ids, meant = {}, {key: [] for key in order}
    (tmp_path / "labels").mkdir()
    for n in range(7):
        ids[str(n)] = rng.permutation(len(order))[:5].tolist() if n > 2 else list(range(5 * n, min(12, 5 * n + 5)))
        keys = [order[i] for i in ids[str(n)]]
        value, crops = peer_labels.batch(rng, keys, sizes, True, torch.randn(len(keys), 12) * 3, "cutmix", listed, k=3)
        torch.save(value, tmp_path / f"labels/batch_{n}.tar")
        for key, crop in zip(keys, crops):
            meant[key].append(crop)
    (tmp_path / "labels/sampler_indices_batch.json").write_text(json.dumps(ids))
    made = convert(fkdb, "lpqld", folder, tmp_path / "labels", tmp_path / "l.fkdb", "--temperature", 2)
    most = max(map(len, meant.values()))
    assert made["labels"]["kind"] == "marginal-renorm" and made["crops"] == sum(map(len, meant.values()))
    assert made["short_images"] == sum(len(crops) < most for crops in meant.values()) > 0
    for key, crops in meant.items():
        for got, crop in zip(fkdb.json("dump", tmp_path / "l.fkdb", "--image", key)["crops"], crops, strict=True):
            assert got["box"] == crop["box"] and same_ops(ops_of(got, hashes), crop["ops"])
            assert got["indices"] == crop["classes"].tolist()
            assert np.allclose(got["values"], torch.softmax(torch.from_numpy(crop["output"]) / 2, 0), atol=1e-6)


def test_hald(fkdb, odd, hashes, tmp_path):
    folder, sizes, order = odd
    rng = np.random.default_rng(9)
    ids, meant = {}, {key: [] for key in order}
    (tmp_path / "labels").mkdir()
    for epoch in range(2):
        ids[str(epoch)] = rng.permutation(len(order)).tolist()
        values = []
        for b in range(3):
            keys = [order[i] for i in ids[str(epoch)][5 * b:5 * b + 5]]
            value, crops = peer_labels.batch(rng, keys, sizes, True, torch.softmax(torch.randn(len(keys), 12) / 20, 1), "cutmix", False)
            values.append(value)
            for key, crop in zip(keys, crops):
                meant[key].append(crop)
        torch.save(values, tmp_path / f"labels/epoch_{epoch}.tar")
    torch.save(ids, tmp_path / "labels/sampler_indices_dict.pt")
    made = convert(fkdb, "hald", folder, tmp_path / "labels", tmp_path / "l.fkdb")
    assert made["labels"]["kind"] == "full" and made["labels"]["values"] == "f16"
    assert fkdb.json("dump", tmp_path / "l.fkdb")["labels"]["temperature"] == 20
    for key, crops in meant.items():
        for got, crop in zip(fkdb.json("dump", tmp_path / "l.fkdb", "--image", key)["crops"], crops, strict=True):
            assert got["box"] == crop["box"] and same_ops(ops_of(got, hashes), crop["ops"]) and np.array_equal(np.float32(got["values"]), crop["output"])


@pytest.mark.parametrize("by_number", [False, True])
def test_tiny_vit(fkdb, odd, tmp_path, by_number):
    folder, sizes, order = odd
    labels = peer_labels.tiny_vit(tmp_path / "labels", order, by_number=by_number)
    made = convert(fkdb, "tinyvit", folder, tmp_path / "labels", tmp_path / "l.fkdb", "--label", "marginal-smoothing")
    assert made["crops"] == 36 and made["labels"]["values"] == "f16" and made["labels"]["top_k"] == 6
    for key, crops in labels.items():
        for got, (drawn, classes, p) in zip(fkdb.json("dump", tmp_path / "l.fkdb", "--image", key)["crops"], crops, strict=True):
            assert got["box"] == [0, 0, *sizes[key]] and got["indices"] == classes.tolist() and np.array_equal(np.float16(got["values"]), p)
            (op,) = got["ops"]
            assert op["op"] == "replay" and (op["seed_high"] * 65536 + op["seed_low"]) == drawn


TABLE_KINDS = ["hard", "smoothing", "marginal-smoothing", "marginal-renorm", "full", "logits"]


@pytest.fixture(scope="module")
def tables(fkdb, train, tmp_path_factory):
    """Label sets of every kind, f32 and f16."""
    folder, sizes = train
    made = {}
    for kind in TABLE_KINDS:
        for encoding in ("f32", "f16"):
            path = tmp_path_factory.mktemp("tables") / "l.fkdb"
            if kind == "logits":
                rng = np.random.default_rng(3)
                value, _ = peer_labels.batch(rng, sorted(KEYS), sizes, encoding == "f16", torch.randn(9, 12), None, False)
                source = path.parent / "labels/epoch_0/batch_0.tar"
                source.parent.mkdir(parents=True)
                torch.save(value, source)
                (path.parent / "order.json").write_text(json.dumps({"0": [peer_labels.folder_order(folder).index(k) for k in sorted(KEYS)]}))
                convert(fkdb, "sre2l", folder, path.parent / "labels", path, "--order", path.parent / "order.json")
            else:
                ours = {v: k for k, v in OURS.items()} | {"marginal-smoothing": "marginal_smoothing_k5"}
                peer_labels.fkd(path.parent / "labels", sizes, ours[kind], half=encoding == "f16")
                convert(fkdb, "fkd", folder, path.parent / "labels", path, "--label", kind)
            made[kind, encoding] = path
    return made


@pytest.mark.parametrize("form", ["npz", "parquet"])
@pytest.mark.parametrize("encoding", ["f32", "f16"])
@pytest.mark.parametrize("kind", TABLE_KINDS)
def test_tables_out_and_in_give_the_same_label_set(fkdb, train, tables, tmp_path, kind, encoding, form):
    folder, _ = train
    path = tables[kind, encoding]
    digest = fkdb.json("verify", path)["digest"]
    out = fkdb.json("convert", "--to", form, path, tmp_path / f"t.{form}")
    assert (out["images"], out["bytes"]) == (9, (tmp_path / f"t.{form}").stat().st_size)
    temperature = fkdb.json("dump", path)["labels"]["temperature"]
    back = convert(fkdb, form, folder, tmp_path / f"t.{form}", tmp_path / "b.fkdb", "--label", kind, "--temperature", temperature, "--encoding", encoding)
    assert back["digest"] == digest
    if kind == "marginal-smoothing":
        read = np.load(tmp_path / "t.npz") if form == "npz" else pq.read_table(tmp_path / "t.parquet").to_pydict()
        image = fkdb.json("dump", path, "--image", "n1/1_1.jpg")["crops"]
        rows = [i for i, key in enumerate(read["key"]) if key == "n1/1_1.jpg"]
        assert [list(read["box"][i]) for i in rows] == [c["box"] for c in image] and [bool(read["flip"][i]) for i in rows] == [c["flip"] for c in image]
        assert [list(read["indices"][i]) for i in rows] == [c["indices"] for c in image]
        assert np.array_equal(np.float32([read["values"][i] for i in rows]), np.float32([c["values"] for c in image]))
        fkdb.fails(1, f"{tmp_path}/t.{form}: it is there already; --overwrite replaces it", "convert", "--to", form, path, tmp_path / f"t.{form}")


@pytest.mark.parametrize("form", ["npz", "parquet"])
def test_tables_that_a_script_wrote(fkdb, odd, tmp_path, form):
    """Rows in any order over several files, fractions for boxes, wide integers, another column, a key of no image."""
    folder, sizes, order = odd
    rng = np.random.default_rng(11)
    rows = [(key, crop) for key in order for crop in range(4)]
    rng.shuffle(rows)
    meant, columns = {key: [] for key in order}, {"key": [], "box": [], "flip": [], "indices": [], "values": [], "note": []}
    for key, _ in [*rows, ("nobody.jpg", 0)]:
        p = peer_labels.probabilities(rng, 1, 12)[0].numpy()
        box = rng.uniform(0.1, 0.4, 4).astype(np.float32).tolist()
        top = rng.permutation(np.argsort(-p)[:3])
        for name, value in zip(columns, (key, box, bool(rng.integers(2)), top.astype(np.int64).tolist(), p[top].astype(np.float64).tolist(), "x")):
            columns[name].append(value)
        meant.setdefault(key, []).append((box, columns["flip"][-1], sorted(top, key=lambda c: -p[c]), np.sort(p[top])[::-1]))
    (tmp_path / "labels").mkdir()
    for part, rows in enumerate((slice(0, 20), slice(20, None))):
        some = {name: column[rows] for name, column in columns.items()}
        if form == "npz":
            np.savez_compressed(tmp_path / f"labels/{part}.npz", **{name: np.array(column) for name, column in some.items()})
        else:
            pq.write_table(pa.table(some), tmp_path / f"labels/{part}.parquet", row_group_size=7)
    for memory in (4, 1e-6):
        made = convert(fkdb, form, folder, tmp_path / "labels", tmp_path / "l.fkdb", "--label", "marginal-renorm", "--memory", memory, "--overwrite")
        assert made["crops"] == 48 and made["labels"]["boxes"] == "fraction-f32" and made["labels"]["values"] == "f32"
        assert made["sorted_crops"] > 0 and made["stray_count"] == 3
        assert f"{tmp_path}/labels/0.{form}: column 'note' is not read" in made["strays"] and f"{tmp_path}/labels/1.{form}: 'nobody.jpg'" in made["strays"]
        for key in order:
            for got, (box, flip, classes, p) in zip(fkdb.json("dump", tmp_path / "l.fkdb", "--image", key)["crops"], meant[key], strict=True):
                assert np.array_equal(np.float32(got["box"]), np.float32(box)) and got["flip"] == flip
                assert got["indices"] == classes and np.array_equal(np.float32(got["values"]), np.float32(p))


def test_tables_that_are_wrong(fkdb, odd, tmp_path):
    folder, _, order = odd
    n = len(order)
    good = {"key": np.array(order), "box": np.tile([0, 0, 9, 9], (n, 1)), "flip": np.zeros(n, bool), "indices": np.tile([1, 2], (n, 1)),
            "values": np.tile(np.float32([0.5, 0.25]), (n, 1))}

    def refused(code, message, **change):
        columns = {name: column for name, column in {**good, **change}.items() if column is not None}
        np.savez(tmp_path / "t.npz", **columns)
        fkdb.fails(code, message.replace("T:", f"{tmp_path}/t.npz:"), "convert", "--from", "npz", "--images", folder, "--no-classes", "--num-classes", 12,
                   "--label", "marginal-smoothing", tmp_path / "t.npz", tmp_path / "l.fkdb", "--overwrite")

    refused(3, "T: no array 'key' in it", key=None)
    refused(4, "T: array 'key': its keys are Python objects: save them as text, numpy.array(keys, dtype=str)", key=np.array(order, dtype=object))
    refused(3, f"T: array 'flip': b1 ({n - 1},), expected a bool a row of {n} rows", flip=np.zeros(n - 1, bool))
    refused(3, "T: array 'box': -1: expected 0 to 2147483647", box=np.tile([0, -1, 9, 9], (n, 1)))
    refused(3, "T: array 'indices': 1.5 where a whole number belongs: expected classes", indices=np.tile([1.5, 2], (n, 1)))
    refused(4, "T: array 'values': numbers in big-endian order: save them in little-endian", values=np.tile(np.array([0.5, 0.25], ">f4"), (n, 1)))
    refused(3, "T: boxes of pixels, 2 indices and 3 values a row: as many of one as of the other are needed", values=np.zeros((n, 3), np.float32))
    refused(7, f"image '{min(order)}': T: class 12, expected below 12: --num-classes says how many there are; --skip-bad converts the others",
            indices=np.tile([1, 12], (n, 1)))
    refused(7, f"3 of {n} images have no labels: 'a-b/1-2.jpg', 'a-b/1.jpg', 'a-b/10.jpg'; --skip-bad converts the others",
            **{name: np.concatenate([column[:4], column[7:]]) for name, column in good.items()})
    fkdb.fails(1, f"{tmp_path}: no .parquet file in it", "convert", "--from", "parquet", "--images", folder, tmp_path, tmp_path / "l.fkdb")
    (tmp_path / "x.parquet").write_bytes(b"PAR1 and nothing else")
    done = fkdb("convert", "--from", "parquet", "--images", folder, tmp_path / "x.parquet", tmp_path / "l.fkdb")
    assert done.returncode == 3 and done.stderr.startswith(f"fkdb-convert: {tmp_path}/x.parquet: ") and done.stderr.count("\n") == 1


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("grid", [(15, 15), (3, 7)])
def test_relabel(fkdb, train, tmp_path, grid, half):
    folder, sizes = train
    maps = peer_labels.relabel(tmp_path / "labels", sizes, grid, half=half)
    made = convert(fkdb, "relabel", folder, tmp_path / "labels", tmp_path / "l.fkdb")
    cells = grid[0] * grid[1]
    assert made["crops"] == 9 * cells and made["labels"]["kind"] == "label-map" and made["labels"]["boxes"] == "grid"
    assert made["labels"]["values"] == ("f16" if half else "f32")
    manifest = fkdb.json("dump", tmp_path / "l.fkdb")
    assert (manifest["labels"]["grid_height"], manifest["labels"]["grid_width"]) == grid
    assert fkdb.json("verify", tmp_path / "l.fkdb")["ok"] and fkdb.json("audit", tmp_path / "l.fkdb")["crops"] == 9 * cells
    assert fkdb.ok("audit", tmp_path / "l.fkdb")
    for key, m in maps.items():
        image = fkdb.json("dump", tmp_path / "l.fkdb", "--image", key, "--dense")
        assert image["box_unit"] == "fraction" and len(image["crops"]) == cells
        for cell, crop in enumerate(image["crops"]):
            i, j = divmod(cell, grid[1])
            assert np.allclose(crop["box"], [i / grid[0], j / grid[1], 1 / grid[0], 1 / grid[1]]) and not crop["flip"]
            assert crop["indices"] == m[1, :, i, j].int().tolist() and np.array_equal(np.float32(crop["values"]), m[0, :, i, j].float().numpy())
            scores = torch.zeros(12).scatter_(0, m[1, :, i, j].long(), m[0, :, i, j].float())
            assert np.allclose(crop["dense"], torch.softmax(scores, 0), atol=1e-6)
    # Another encoding of it, and back from halves: a label set like any other.
    fkdb.ok("subset", tmp_path / "l.fkdb", tmp_path / "s.fkdb", "--recode", "f16")
    assert fkdb.json("verify", tmp_path / "s.fkdb")["ok"]
    assert (tmp_path / "s.fkdb").stat().st_size <= (tmp_path / "l.fkdb").stat().st_size
    for arguments, code, message in ((["--crops", 3], 2, "cells"), (["--recode", "hard"], 2, "cannot be derived"), (["--recode", "packed"], 2, "label maps as packed: their scores are stored as f32 or f16")):
        done = fkdb("subset", tmp_path / "l.fkdb", tmp_path / "x.fkdb", *arguments)
        assert done.returncode == code and message in done.stderr and done.stderr.count("\n") == 1, done.stderr
    done = fkdb("convert", "--to", "fkd", tmp_path / "l.fkdb", tmp_path / "out")
    assert done.returncode == 4 and "labels of kind 'label-map' have no form in FKD's files" in done.stderr


def test_relabel_that_is_wrong(fkdb, train, tmp_path):
    folder, sizes = train
    maps = peer_labels.relabel(tmp_path / "labels", sizes)
    path = tmp_path / "labels" / "n1/1_1.pt"

    def refused(code, reason, value):
        peer_labels.write(value, path)
        fkdb.fails(code, f"image 'n1/1_1.jpg': {path}: {reason}; --skip-bad converts the others", "convert", "--from", "relabel", "--images", folder, "--no-classes",
                   "--num-classes", 12, tmp_path / "labels", tmp_path / "l.fkdb", "--overwrite")

    good = maps["n1/1_1.jpg"]
    refused(3, "an array f4 (2, 5, 15), expected floats (2, K, H, W): scores and classes", good[..., 0].clone())
    refused(7, "14 x 15 cells, expected 15 x 15, as the others'", good[:, :, 1:].clone())
    refused(7, "a label map, K = 4: expected labels of kind label-map, K = 5, as the others'", good[:, 1:].clone())
    bad = good.clone()
    bad[1, 0, 3, 3] = 0.5
    refused(3, "0.5 where a whole number belongs: expected classes", bad)
    peer_labels.write(good, path)
    fkdb.fails(2, "--crops and --boxes are for crops: a label map has the cells of a grid", "convert", "--from", "relabel", "--images", folder, "--no-classes", "--num-classes", 12,
               tmp_path / "labels", tmp_path / "l.fkdb", "--crops", 3, "--overwrite")


def test_the_original_training_code_finds_and_uses_the_exported_files(fkdb, train, tmp_path):
    """Its lookup and its use of what it finds: a path's last three parts up to the first dot, rows by number, edges of the crop."""
    folder, sizes = train
    labels = peer_labels.fkd(tmp_path / "labels", sizes)
    convert(fkdb, "fkd", folder, tmp_path / "labels", tmp_path / "l.fkdb", "--label", "marginal-smoothing")
    fkdb.ok("convert", "--to", "fkd", tmp_path / "l.fkdb", tmp_path / "out")
    dumped = {key: fkdb.json("dump", tmp_path / "l.fkdb", "--image", key)["crops"] for key in sizes}
    for key, (height, width) in sizes.items():
        path = str(folder / key)
        found = load(tmp_path / "out" / ("/".join(path.split("/")[-3:]).split(".")[0] + ".tar"))
        coords, flip_status, output = found
        for i in torch.randperm(len(output)):
            top, left = coords[i][0].item() * height, coords[i][1].item() * width
            bottom, right = top + coords[i][2].item() * height, left + coords[i][3].item() * width
            assert [round(top), round(left), round(bottom) - round(top), round(right) - round(left)] == dumped[key][i]["box"]
            assert (flip_status[i] == True) == dumped[key][i]["flip"]  # noqa: E712
            index, value = torch.tensor(output[i])[0].to(dtype=int), torch.tensor(output[i])[1]
            assert index.tolist() == dumped[key][i]["indices"] and np.array_equal(value, np.float32(dumped[key][i]["values"]))
    assert labels
