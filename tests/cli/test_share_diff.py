# SPDX-License-Identifier: Apache-2.0
"""fkdb-share diff beside the same formulas in NumPy, on labels as fkdb-dump shows them."""

import itertools
import json
import pathlib
import struct

import numpy as np
import pytest
from test_share import keys_of, make

GOLDEN = pathlib.Path(__file__).parent.parent / "golden/v1"
IMAGES, CROPS = 1500, 10
LEAST = 1e-7


@pytest.fixture(scope="module")
def labels(tmp_path_factory):
    return make(tmp_path_factory.mktemp("labels") / "labels.fkdb", IMAGES, CROPS, "--encoding", "f32")


def load(fkdb, path):
    """key -> image, and the manifest."""
    manifest = fkdb.json("dump", path)
    images = [fkdb.json("dump", path, "--ordinal", i) for i in range(manifest["counts"]["images"])]
    return {image["key"]: image for image in images}, manifest["labels"]


def dense(crop, spec):
    """(C), as format/recover.h says."""
    kind, classes, values = spec["kind"], spec["num_classes"], np.array(crop["values"])
    if kind == "logits":
        p = np.exp(values - values.max())
        return p / p.sum()
    if kind == "full":
        return values if spec["values"] == "f32" else values / values.sum()
    left = 1 - values.sum()
    tailed = kind in ("smoothing", "marginal-smoothing") and left > 0
    p = np.full(classes, left / (classes - len(values)) if tailed else 0.0)
    p[crop["indices"]] = values if tailed or kind == "hard" else values / values.sum()
    return p


def top1(crop):
    return crop["indices"][0] if "indices" in crop else int(np.argmax(crop["values"]))


def reference(a, b):
    """What --json says of two that load() gave."""
    (images_a, spec_a), (images_b, spec_b) = a, b
    both = sorted(images_a.keys() & images_b.keys(), key=str.encode)
    rows, worst = [], {"key": None, "crop": None, "kl": -np.inf}
    crops = {"same": 0, "a": 0, "b": 0}
    for key in both:
        crops["a"] += len(images_a[key]["crops"])
        crops["b"] += len(images_b[key]["crops"])
        size = [(image[key]["width"], image[key]["height"]) for image in (images_a, images_b)]
        for number, (x, y) in enumerate(zip(images_a[key]["crops"], images_b[key]["crops"])):
            if size[0] != size[1] or any(x[part] != y[part] for part in ("box", "flip", "ops")):
                continue
            p, q = dense(x, spec_a), dense(y, spec_b)
            least_p, least_q = np.maximum(p, LEAST), np.maximum(q, LEAST)
            kl = (least_p * np.log(least_p / least_q)).sum()
            rows.append((kl, (least_q * np.log(least_q / least_p)).sum(), np.abs(p - q).sum() / 2, top1(x) == top1(y)))
            if kl > worst["kl"] + 1e-9:
                worst = {"key": key, "crop": number, "kl": kl}
    crops["same"] = len(rows)
    mean = np.mean(rows, axis=0)
    return {"images": {"both": len(both), "only_a": len(images_a) - len(both), "only_b": len(images_b) - len(both)}, "crops": crops,
            "kl_ab": mean[0], "kl_ba": mean[1], "total_variation": mean[2], "top1_agreement": mean[3], "worst": worst}


def agrees(found, wanted):
    assert {k: found[k] for k in ("images", "crops")} == {k: wanted[k] for k in ("images", "crops")}
    for name in ("kl_ab", "kl_ba", "total_variation", "top1_agreement"):
        assert found[name] == pytest.approx(wanted[name], rel=1e-5, abs=1e-5), name
    assert found["worst"]["kl"] == pytest.approx(wanted["worst"]["kl"], rel=1e-5, abs=1e-5)
    if wanted["worst"]["kl"] > 1e-4:  # below it rounding picks the crop
        assert (found["worst"]["key"], found["worst"]["crop"]) == (wanted["worst"]["key"], wanted["worst"]["crop"])


def lines(text):
    return {line[:16].rstrip(): line[17:] for line in text.splitlines()}


def test_against_itself(fkdb, labels):
    digest = fkdb.json("dump", labels)["digest"]
    found = fkdb.json("share", "diff", labels, labels)
    assert found == {"images": {"both": IMAGES, "only_a": 0, "only_b": 0}, "crops": dict.fromkeys(("same", "a", "b"), IMAGES * CROPS),
                     "spec_same": True, "digest_same": True, "kl_ab": 0, "kl_ba": 0, "total_variation": 0, "top1_agreement": 1,
                     "worst": {"key": keys_of(fkdb, labels, [0])[0], "crop": 0, "kl": 0}}
    said = fkdb.ok("share", "diff", labels, labels)
    head = f"{labels}: {IMAGES} images, {IMAGES * CROPS} crops, {digest}"
    assert said.splitlines() == [f"A                {head}", f"B                {head}",
                                 f"digest           the same labels: digest {digest}",
                                 "labels           same: marginal-smoothing of 1000 classes (top 5), boxes pixel, values f32",
                                 "data set         same: synthetic",
                                 "class names      same: 1000",
                                 "teachers         same",
                                 "augmentation     same",
                                 f"images           {IMAGES} in both, 0 only in A, 0 only in B",
                                 "crops            15000 the same, of 15000 in A and 15000 in B, of images in both",
                                 "KL(A||B)         0 nats, mean of the same crops",
                                 "KL(B||A)         0 nats",
                                 "total variation  0",
                                 "top-1            the same in 100.00%",
                                 f"largest KL(A||B) 0 nats, image '{found['worst']['key']}', crop 0"]
    assert all(said in " ".join(fkdb.ok("share", "diff", "--help").split()) for said in ("under 1e-07 count as 1e-07", "--threads"))


def test_parts(fkdb, labels, tmp_path):
    """Fewer crops and other images, as a file and as a collection."""
    fkdb.ok("subset", labels, tmp_path / "crops.fkdb", "--crops", 3)
    found = fkdb.json("share", "diff", labels, tmp_path / "crops.fkdb")
    assert found["crops"] == {"same": 3 * IMAGES, "a": CROPS * IMAGES, "b": 3 * IMAGES}
    assert found["kl_ab"] == 0 and found["top1_agreement"] == 1 and found["spec_same"] and not found["digest_same"]
    for name, ordinals in (("x", range(0, 9)), ("y", range(6, 12)), ("z", [1400, 1499])):
        (tmp_path / f"{name}.txt").write_text("\n".join(keys_of(fkdb, labels, ordinals)))
        fkdb.ok("subset", labels, tmp_path / f"{name}.fkdb", "--images", tmp_path / f"{name}.txt")
    x, y, z = (tmp_path / f"{name}.fkdb" for name in "xyz")
    found = fkdb.json("share", "diff", x, y)
    assert found["images"] == {"both": 3, "only_a": 6, "only_b": 3} and found["crops"] == dict.fromkeys(("same", "a", "b"), 3 * CROPS)
    found = fkdb.json("share", "diff", z, labels)
    assert found["images"] == {"both": 2, "only_a": 0, "only_b": IMAGES - 2} and found["total_variation"] == 0
    # No image in both: nothing to compare.
    found = fkdb.json("share", "diff", x, z)
    assert found["images"] == {"both": 0, "only_a": 9, "only_b": 2} and found["crops"] == {"same": 0, "a": 0, "b": 0}
    assert [found[k] for k in ("kl_ab", "kl_ba", "total_variation", "top1_agreement", "worst")] == [None] * 5
    assert lines(fkdb.ok("share", "diff", x, z))["distances"] == "none: no crop is the same in both"
    fkdb.ok("merge", tmp_path / "both.fkdb", x, z, "--collection")
    found = fkdb.json("share", "diff", labels, tmp_path / "both.fkdb")
    assert found["images"] == {"both": 11, "only_a": IMAGES - 11, "only_b": 0} and found["kl_ab"] == 0


def test_every_kind_beside_every_other(fkdb):
    """The golden label sets hold the same crops as labels of each kind."""
    names = ("full.f32.pixel", "full.packed.pixel", "hard.f16.pixel", "smoothing.packed.pixel", "marginal-smoothing.f16.pixel",
             "marginal-smoothing.packed.pixel.ops", "marginal-renorm.packed.pixel", "logits.f32.pixel", "logits.bf16.pixel")
    sets = {name: load(fkdb, GOLDEN / f"{name}.fkdb") for name in names}
    for a, b in itertools.chain(itertools.combinations(names, 2), [("hard.f16.pixel", "full.f32.pixel"), ("logits.f32.pixel", "full.f32.pixel")]):
        found = fkdb.json("share", "diff", GOLDEN / f"{a}.fkdb", GOLDEN / f"{b}.fkdb")
        agrees(found, reference(sets[a], sets[b]))
        assert not found["spec_same"] and not found["digest_same"]
    # Boxes as fractions, and as the pixels they show.
    pixels, fractions = GOLDEN / "marginal-smoothing.packed.pixel.fkdb", GOLDEN / "marginal-smoothing.packed.fraction-f32.fkdb"
    found = fkdb.json("share", "diff", pixels, fractions)
    assert found["crops"]["same"] == found["crops"]["a"] > 0 and found["kl_ab"] == 0


def test_label_maps_are_not_compared(fkdb):
    maps = [GOLDEN / f"label-map.{values}.grid.fkdb" for values in ("f32", "f16")]
    found = fkdb.json("share", "diff", *maps)
    assert found["kl_ab"] is None and found["worst"] is None and found["crops"]["same"] == found["crops"]["a"] > 0
    said = lines(fkdb.ok("share", "diff", *maps))
    assert said["distances"] == "none: label maps are not compared"
    assert said["labels"] == "A: label-map of 12 classes (top 3), boxes grid 2x3, values f32"


@pytest.fixture
def tables(fkdb, tmp_path):
    """tables(name, labels, ..) converts a table of labels of 25 IDX images, 6 crops each, whose boxes and flips have a seed."""
    images = tmp_path / "x-images-idx3-ubyte"
    images.write_bytes(struct.pack(">IIII", 0x803, 25, 28, 28) + bytes(25 * 28 * 28))
    (tmp_path / "x-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, 25) + bytes(i % 10 for i in range(25)))

    def convert(name, seed, k, *flags, change=lambda box, flip: None):
        rng = np.random.default_rng(1)
        rows = 25 * 6
        box = np.concatenate([rng.integers(0, 10, (rows, 2)), rng.integers(8, 18, (rows, 2))], axis=1)
        flip = rng.integers(0, 2, rows).astype(bool)
        change(box, flip)
        rng = np.random.default_rng(seed)
        values = -np.sort(-rng.dirichlet(np.full(10, 0.5), rows), axis=1)[:, :k].astype(np.float32)
        indices = np.array([rng.permutation(10)[:k] for _ in range(rows)])
        np.savez(tmp_path / f"{name}.npz", key=np.repeat([f"{i:02}" for i in range(25)], 6), box=box, flip=flip, indices=indices, values=values)
        fkdb.ok("convert", "--from", "npz", "--images", images, tmp_path / f"{name}.npz", tmp_path / f"{name}.fkdb", "--label", *flags)
        return tmp_path / f"{name}.fkdb"

    return convert


def test_other_labels_of_the_same_crops(fkdb, tables, tmp_path):
    def change(box, flip):
        box[[7, 8, 60], [0, 1, 2]] -= 1
        flip[100:103] ^= True

    a, b = tables("a", 2, 3, "marginal-smoothing", "--teacher", "a.pt"), tables("b", 3, 4, "marginal-renorm", "--teacher", "b.pt", change=change)
    (tmp_path / "keys.txt").write_text("\n".join(f"{i:02}" for i in range(1, 25)))
    fkdb.ok("subset", b, tmp_path / "few.fkdb", "--images", tmp_path / "keys.txt")
    for x, y, same in ((a, b, 144), (b, a, 144), (a, tmp_path / "few.fkdb", 138)):
        found = fkdb.json("share", "diff", x, y)
        agrees(found, reference(load(fkdb, x), load(fkdb, y)))
        assert found["crops"]["same"] == same and 0 < found["top1_agreement"] < 0.5
    said = fkdb.ok("share", "diff", a, b)
    assert ("labels           A: marginal-smoothing of 10 classes (top 3), boxes pixel, values f32\n"
            "                 B: marginal-renorm of 10 classes (top 4), boxes pixel, values f32\n") in said
    assert "teachers         A: a.pt sha256:" in said and "\n                 B: b.pt sha256:" in said
    assert lines(said)["top-1"] == f"the same in {100 * fkdb.json('share', 'diff', a, b)['top1_agreement']:.2f}%"


def test_other_specs(fkdb, labels, tables, tmp_path):
    ten = tables("ten", 2, 3, "marginal-smoothing")
    found = fkdb.json("share", "diff", labels, ten)
    assert not found["spec_same"] and found["kl_ab"] is None and found["images"] == {"both": 0, "only_a": IMAGES, "only_b": 25}
    said = fkdb.ok("share", "diff", labels, ten)
    assert lines(said)["distances"] == "none: 1000 classes in A, 10 in B"
    assert lines(said)["class names"] == "A: 1000, class0000 at 0" and "\n                 B: 10, 0 at 0\n" in said
    fkdb.ok("subset", labels, tmp_path / "hard.fkdb", "--recode", "hard")
    found = fkdb.json("share", "diff", labels, tmp_path / "hard.fkdb")
    assert not found["spec_same"] and found["top1_agreement"] == 1 and 0.1 < found["total_variation"] < 0.9 and found["kl_ab"] > found["kl_ba"]


def test_the_same_with_any_number_of_threads(fkdb, labels, tmp_path):
    fkdb.ok("subset", labels, tmp_path / "other.fkdb", "--recode", "packed", "--crops", 7)
    said = {fkdb.ok("share", "diff", labels, tmp_path / "other.fkdb", "--json", "--threads", n) for n in (1, 2, 3)}
    assert len(said) == 1
    found = json.loads(said.pop())
    assert 0 < found["kl_ab"] < 0.0005 < found["worst"]["kl"] < 0.0015 and found["top1_agreement"] == 1


def test_errors(fkdb, labels, tmp_path):
    fkdb.fails(1, "/no/such.fkdb: no such file", "share", "diff", labels, "/no/such.fkdb")
    fkdb.fails(2, "B is required (see --help)", "share", "diff", labels)
    good = labels.read_bytes()
    (tmp_path / "bad.fkdb").write_bytes(good[:-4096])
    assert fkdb("share", "diff", labels, tmp_path / "bad.fkdb").returncode == 3
    # A bit of a label.
    image = fkdb.json("dump", labels, "--ordinal", 700)
    at = good.index(np.array(image["crops"][3]["values"], np.float32).tobytes())
    (tmp_path / "bad.fkdb").write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1:])
    for more in ([], ["--json"], ["--threads", 1]):
        fkdb.fails(3, f"{tmp_path}/bad.fkdb: image 700: block: checksum of record 80 does not match", "share", "diff", labels, tmp_path / "bad.fkdb", *more)
    assert fkdb("share", "diff", labels, tmp_path / "bad.fkdb").stdout == ""
