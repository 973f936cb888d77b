# SPDX-License-Identifier: Apache-2.0
"""fkdb-audit --compare A B: the cross-entropies of Eq. 2 and Fig. 3, against NumPy's."""

import shutil
import xml.etree.ElementTree as ElementTree

import numpy as np
import peer_labels
import pytest
import torch
from relabel_reference import pooled

CLASSES, LEAST = 12, 1e-7
KEYS = [f"n{c:02}/{i}.jpg" for c in range(CLASSES) for i in range(2)]


class Sees(torch.nn.Module):
    """(N, 3, 16, 16) to logits (N, 12)."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(3)
        self.last = torch.nn.Linear(3 * 16 * 16, CLASSES)

    def forward(self, x):
        return 4 * self.last(x.flatten(1))


@pytest.fixture(scope="module")
def sets(fkdb, tmp_path_factory):
    """Images, their sizes and label maps, and label sets: of crops, the same crops' hard labels, other crops, the maps."""
    root = tmp_path_factory.mktemp("compare")
    sizes = peer_labels.images(root / "images", KEYS, sizes={key: (60 + 7 * i, 80 + 5 * i) for i, key in enumerate(KEYS)})
    maps = peer_labels.relabel(root / "maps", sizes, (4, 7))
    torch.jit.trace(Sees().eval(), torch.zeros(16, 3, 16, 16)).save(str(root / "t.pt"))
    write = ["write", "--images", root / "images", "--teacher", root / "t.pt", "--input-size", 16]
    fkdb.ok(*write, "--crops", 6, "--encoding", "f32", "--out", root / "soft.fkdb")
    fkdb.ok(*write, "--boxes-from", root / "soft.fkdb", "--label", "hard", "--out", root / "hard.fkdb")
    fkdb.ok(*write, "--crops", 6, "--seed", 1, "--out", root / "others.fkdb")
    fkdb.ok("convert", "--from", "relabel", "--images", root / "images", root / "maps", root / "maps.fkdb")
    return root, sizes, maps


def dense(fkdb, path):
    """{key: (boxes, labels (M, C))}"""
    images = (fkdb.json("dump", path, "--image", key, "--dense") for key in KEYS)
    return {i["key"]: ([c["box"] for c in i["crops"]], np.array([c["dense"] for c in i["crops"]], np.float64)) for i in images}


def cross(x, y):
    return float(-(y * np.log(np.maximum(x, LEAST))).sum(1).mean())


def expect(said, a, b, of):
    one_hot = np.eye(CLASSES)[of]
    for name, x, y in (("a_to_a", a, a), ("a_to_b", a, b), ("b_to_a", b, a), ("b_to_b", b, b), ("a_to_class", a, one_hot), ("b_to_class", b, one_hot)):
        assert said[name] == pytest.approx(cross(x, y), abs=1e-5), name
    assert said["crops"] == len(a)


@pytest.mark.parametrize("other", ["maps", "hard"])
def test_cross_entropies_are_numpys(fkdb, sets, other):
    root, sizes, maps = sets
    soft = dense(fkdb, root / "soft.fkdb")
    if other == "maps":
        q = {key: np.stack([pooled(maps[key], sizes[key], box, CLASSES) for box in soft[key][0]]) for key in KEYS}
    else:
        q = {key: labels for key, (_, labels) in dense(fkdb, root / "hard.fkdb").items()}
    said = fkdb.json("audit", "--compare", root / "soft.fkdb", root / f"{other}.fkdb", "--threads", 2)
    assert said["images"] == 24 and said["crops_with_class"] == 144
    a, b = (np.concatenate([of[key] for key in KEYS]) for of in ({key: p for key, (_, p) in soft.items()}, q))
    of = np.repeat([int(key[1:3]) for key in KEYS], 6)
    expect(said, a, b, of)
    assert [c["class"] for c in said["classes"]] == list(range(CLASSES)) and said["classes"][3]["name"] == "n03"
    for c in said["classes"]:
        expect(c, a[of == c["class"]], b[of == c["class"]], of[of == c["class"]])
    # The other way round, on one thread: the same numbers, to the bit.
    swapped = fkdb.json("audit", "--compare", root / f"{other}.fkdb", root / "soft.fkdb", "--threads", 1)
    names = str.maketrans("ab", "ba")
    for x in ("a_to_a", "a_to_b", "b_to_a", "b_to_b"):
        assert swapped[x.split("_")[0].translate(names) + "_to_" + x.split("_")[2].translate(names)] == said[x]


def test_the_table_and_the_plot(fkdb, sets, tmp_path):
    root = sets[0]
    shutil.copy(root / "maps.fkdb", tmp_path / "a & <b>.fkdb")
    compare = ["audit", "--compare", root / "soft.fkdb", tmp_path / "a & <b>.fkdb"]
    said = fkdb.json(*compare)
    lines = fkdb.ok(*compare, "--svg", tmp_path / "plot.svg").splitlines()
    assert lines[0] == f"A  {root}/soft.fkdb: marginal-smoothing of 12 classes (top 5), boxes pixel, values f32"
    assert lines[2] == "144 crops of 24 images in both, 144 with a class"
    assert lines[5].split() == ["x", "y", "=", "A", "y", "=", "B", "y", "=", "class"]
    assert lines[6].split() == ["A", *(f"{said[name]:.4f}" for name in ("a_to_a", "a_to_b", "a_to_class"))]
    assert lines[7].split() == ["B", *(f"{said[name]:.4f}" for name in ("b_to_a", "b_to_b", "b_to_class"))]
    assert lines[10].split()[:2] == ["n00", "12"] and len(lines) == 10 + CLASSES
    svg = "{http://www.w3.org/2000/svg}"
    plot = ElementTree.parse(tmp_path / "plot.svg").getroot()
    curves = plot.findall(f"{svg}polyline")
    assert len(curves) == 4
    # Heights are proportional to the numbers.
    for curve, name in zip(curves, ("a_to_b", "b_to_a", "a_to_class", "b_to_class")):
        points = [tuple(map(float, point.split(","))) for point in curve.get("points").split()]
        assert len(points) == CLASSES and points == sorted(points)
        y = np.array([c[name] for c in said["classes"]])
        assert np.corrcoef([-p[1] for p in points], y)[0, 1] > 0.999
    texts = [text.text for text in plot.findall(f"{svg}text")]
    assert "A: soft.fkdb    B: a & <b>.fkdb" in texts and {"A -> B", "B -> class"} <= set(texts)


def test_a_limit_takes_the_first_images(fkdb, sets):
    said = fkdb.json("audit", "--compare", sets[0] / "soft.fkdb", sets[0] / "maps.fkdb", "--limit", 3)
    assert said["images"] == 3 and said["crops"] == 18 and [c["class"] for c in said["classes"]] == [0, 1]


def test_what_cannot_be_compared_is_refused(fkdb, sets, tmp_path):
    root = sets[0]
    soft, maps, others = root / "soft.fkdb", root / "maps.fkdb", root / "others.fkdb"
    fkdb.fails(2, f"{maps} and {maps}: both hold label maps, and no crops to compare their labels for", "audit", "--compare", maps, maps)
    fkdb.fails(7, f"{soft} and {others}: no crop is the same in both; fkdb-write --boxes-from labels another label set's crops", "audit", "--compare", soft, others)
    other = root / "maps13.fkdb"
    fkdb.ok("convert", "--from", "relabel", "--images", root / "images", "--no-classes", "--num-classes", 13, root / "maps", other)
    fkdb.fails(7, f"{soft} and {other}: labels of 12 classes and of 13", "audit", "--compare", soft, other)
    mixed = root / "mixed.fkdb"
    fkdb.ok("write", "--images", root / "images", "--teacher", root / "t.pt", "--input-size", 16, "--crops", 2, "--mixup", 1, "--mix-probability", 0.5, "--out", mixed)
    plain = sum(not crop["ops"] for key in KEYS for crop in fkdb.json("dump", mixed, "--image", key)["crops"])
    assert 0 < plain < 48 and fkdb.json("audit", "--compare", maps, mixed)["crops"] == plain
    fkdb.fails(2, "--compare A B: name two label sets, and nothing else to audit", "audit", soft, "--compare", soft, maps)
    fkdb.fails(2, f"--svg {soft}: expected NAME.svg", "audit", "--compare", soft, maps, "--svg", soft)
    assert fkdb("audit", "--svg", "x.svg", soft).returncode == 2
