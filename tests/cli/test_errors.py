# SPDX-License-Identifier: Apache-2.0
"""Bad input: one clear line and the right exit code each; nothing is lost."""

import gzip
import shutil
import struct

import pytest
from conftest import MODELS, TRAIN

GOLDEN = __import__("pathlib").Path(__file__).parent.parent / "golden/pillow"


def write(fkdb, teacher, out, *more, images=TRAIN):
    return ["write", "--images", images, "--limit", 30, "--teacher", teacher, "--crops", 2, "--out", out, *more]


def make_idx(folder, images, labels):
    """A copy of the data set with other labels."""
    with gzip.open(TRAIN) as file:
        pixels = file.read()[16:16 + 784 * images]
    path = folder / "x-images-idx3-ubyte"
    path.write_bytes(struct.pack(">IIII", 0x803, images, 28, 28) + pixels)
    (folder / "x-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, images) + bytes(labels))
    return path


def test_missing_images(fkdb, teacher, tmp_path):
    fkdb.fails(1, "/no/such: no such image folder, tar or IDX file", *write(fkdb, teacher, tmp_path / "l.fkdb", images="/no/such"))
    empty = tmp_path / "empty"
    empty.mkdir()
    fkdb.fails(2, f"{empty}: no image in it (expected .jpg, .jpeg or .png files)",
               *write(fkdb, teacher, tmp_path / "l.fkdb", images=empty))


def test_corrupt_jpeg(fkdb, tmp_path):
    torch = pytest.importorskip("torch")
    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3))
    model = tmp_path / "mean.pt"
    torch.jit.script(Mean().eval()).save(str(model))
    images = tmp_path / "images"
    images.mkdir()
    for name in ("a.jpg", "c.jpg"):
        shutil.copy(GOLDEN / "444.jpg", images / name)
    data = (GOLDEN / "444.jpg").read_bytes()
    (images / "b.jpg").write_bytes(data[:len(data) // 2])
    command = ["write", "--images", images, "--teacher", model, "--crops", 2, "--top-k", 2, "--input-size", 16, "--out",
               tmp_path / "l.fkdb"]
    fkdb.fails(1, f"image '{images}/b.jpg': broken JPEG: the file ends early; --skip-bad labels the others", *command)
    made = fkdb.json(*command, "--skip-bad", "--resume")
    assert made["images"] == 3 and made["skipped"] == 1 and made["crops"] == 4
    skipped = fkdb.json("dump", tmp_path / "l.fkdb", "--image", "b.jpg")
    assert skipped["crops"] == [] and skipped["skipped"] == f"image '{images}/b.jpg': broken JPEG: the file ends early"
    assert fkdb.json("verify", tmp_path / "l.fkdb")["ok"]


def test_teachers(fkdb, teacher, tmp_path):
    torch = pytest.importorskip("torch")
    out = tmp_path / "l.fkdb"
    fkdb.fails(1, "teacher 'no.pt': no such file (expected a TorchScript file, a .pt2 package, or MODEL:WEIGHTS.safetensors with one of "
                  f"{MODELS})", *write(fkdb, "no.pt", out))
    fkdb.fails(2, "teacher 'resnet18' has no weights: expected resnet18:WEIGHTS.safetensors", *write(fkdb, "resnet18", out))
    text = tmp_path / "text.pt"
    text.write_text("not a model")
    done = fkdb(*write(fkdb, text, out))
    assert done.returncode == 1 and done.stderr.startswith(f"fkdb-write: {text}: not a TorchScript file this fkdb can load: ")

    class Wide(torch.nn.Module):
        def __init__(self, outputs):
            super().__init__()
            self.fc = torch.nn.Linear(784, outputs)
        def forward(self, x):
            return self.fc(x.flatten(1))
    torch.jit.script(Wide(7).eval()).save(str(tmp_path / "seven.pt"))
    fkdb.fails(2, "teacher 'seven.pt' has 7 outputs, data set 'train-images-idx3-ubyte.gz' 10 classes; if its folders are "
                  "not the teacher's classes, say --no-classes", *write(fkdb, tmp_path / "seven.pt", out))

    class Flat(torch.nn.Module):
        def forward(self, x):
            return x.flatten(2)
    torch.jit.script(Flat().eval()).save(str(tmp_path / "flat.pt"))
    fkdb.fails(1, "teacher 'flat.pt': gives an output of shape [64, 1, 784] for an input of [64, 1, 28, 28], expected "
                  "[64, C], or of label maps [64, C, H, W]", *write(fkdb, tmp_path / "flat.pt", out))

    class Map(torch.nn.Module):
        def forward(self, x):
            return x
    torch.jit.script(Map().eval()).save(str(tmp_path / "map.pt"))
    fkdb.fails(2, "teacher 'map.pt' gives maps of 28 x 28 cells, not one row a crop: fkdb-write --label label-map stores them",
               *write(fkdb, tmp_path / "map.pt", out))

    class NaN(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :10] * float("nan")
    torch.jit.script(NaN().eval()).save(str(tmp_path / "nan.pt"))
    fkdb.fails(1, "teacher 'nan.pt' gave NaN or infinity for crop 0 of image '00000': check the model and its normalization",
               *write(fkdb, tmp_path / "nan.pt", out, "--threads", 1))
    other = "resnet6-w8:" + teacher.split(":")[1]
    fkdb.fails(7, f"{teacher.split(':')[1]}: weights do not fit the model: tensor 'conv1.weight' has shape [4, 1, 3, 3], "
                  "expected [8, 1, 3, 3]", *write(fkdb, other, out))


def test_outputs(fkdb, teacher, tmp_path):
    fkdb.fails(1, f"{tmp_path}/no: no such folder for the output", *write(fkdb, teacher, tmp_path / "no/l.fkdb"))
    out = tmp_path / "l.fkdb"
    fkdb.ok(*write(fkdb, teacher, out))
    before = out.read_bytes()
    fkdb.fails(1, f"{out}: exists already; choose another name, or --overwrite to replace it", *write(fkdb, teacher, out))
    assert out.read_bytes() == before
    fkdb.ok(*write(fkdb, teacher, out, "--overwrite", "--seed", 1))
    assert out.read_bytes() != before
    done = fkdb(*write(fkdb, teacher, "/proc/l.fkdb"))
    assert done.returncode == 1 and done.stderr.startswith("fkdb-write: /proc/l.fkdb.lock: cannot create the lock file: ")


def test_a_resume_with_another_recipe(fkdb, labels, teacher, tmp_path):
    out = tmp_path / "l.fkdb"
    partial = tmp_path / "l.fkdb.partial"
    images = tmp_path / "images"
    images.mkdir()
    shutil.copy(GOLDEN / "grey.png", images / "a.png")
    (images / "b.png").write_bytes(b"no image")
    torch = pytest.importorskip("torch")
    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3))
    torch.jit.script(Mean().eval()).save(str(tmp_path / "mean.pt"))
    command = ["write", "--images", images, "--teacher", tmp_path / "mean.pt", "--top-k", 2, "--input-size", 16,
               "--out", out, "--batch-size", 1]
    assert fkdb(*command, "--crops", 2).returncode == 1  # stops at b.png, and keeps a.png
    assert partial.exists()
    fkdb.fails(1, f"{partial}: an interrupted build is there; --resume continues it, --overwrite throws it away",
               *command, "--crops", 2)
    fkdb.fails(2, f"{partial}: cannot resume with another recipe: augmentation.crops: 2 in the file, 3 asked for",
               *command, "--crops", 3, "--resume")
    shutil.copy(GOLDEN / "grey.png", images / "c.png")
    fkdb.fails(7, f"{partial}: cannot resume with another data set: data_set.images: 2 in the file, 3 asked for",
               *command, "--crops", 2, "--resume")
    (images / "c.png").unlink()
    shutil.copy(GOLDEN / "grey.png", images / "b.png")
    assert fkdb.json(*command, "--crops", 2, "--resume")["images"] == 2


def test_training_on_what_does_not_match(fkdb, labels, tmp_path):
    train = ["train", "--model", "resnet6-w4", "--epochs", 1, "--out", tmp_path / "run"]
    does_not = f"{labels} does not match the images of "
    fkdb.fails(7, does_not + "'train-images-idx3-ubyte.gz': 59500 of 60000 images have no labels, first '00500' "
                             "(--limit N takes only the first N images); --allow-missing trains on those that both have", *train, "--images", TRAIN, "--db", labels)
    fkdb.fails(7, does_not + "'train-images-idx3-ubyte.gz': 100 of 500 labelled images are missing, first '00400'; --allow-missing trains on those that both have",
               *train, "--images", TRAIN, "--limit", 400, "--db", labels)
    small = tmp_path / "small"
    small.mkdir()
    other = make_idx(small, 500, [i % 10 for i in range(500)])
    fkdb.fails(7, does_not + "'x-images-idx3-ubyte': 500 of 500 labelled images are missing, first '00000'; 500 of 500 "
                             "images have no labels, first '000'", *train, "--images", other, "--db", labels)
    folder = tmp_path / "folder"
    folder.mkdir()
    shutil.copy(GOLDEN / "rgb.png", folder)
    fkdb.fails(7, does_not + "'folder': labelled images have 1 channels, these 3", *train, "--images", folder, "--db", labels)


def test_training_with_classes_renumbered(fkdb, teacher, tmp_path):
    """The same images, a class folder renamed: every number behind it now means another class."""
    torch = pytest.importorskip("torch")
    class Mean(torch.nn.Module):
        def forward(self, x):
            return x.mean((2, 3))
    torch.jit.script(Mean().eval()).save(str(tmp_path / "mean.pt"))
    images = tmp_path / "images"
    for name in ("ant", "bee", "cat"):
        (images / name).mkdir(parents=True)
        shutil.copy(GOLDEN / "rgb.png", images / name / "1.png")
    db = tmp_path / "l.fkdb"
    fkdb.ok("write", "--images", images, "--teacher", tmp_path / "mean.pt", "--top-k", 2, "--input-size", 16, "--crops", 2,
            "--out", db)
    train = ["train", "--images", images, "--db", db, "--model", "resnet6-w4", "--epochs", 1, "--out", tmp_path / "run"]
    fkdb.ok(*train)
    (images / "bee").rename(images / "zebra")
    fkdb.fails(7, f"{db} does not match the images of 'images': 1 of 3 labelled images are missing, first 'bee/1.png'; 1 of "
                  "3 images have no labels, first 'zebra/1.png'", *train)
    (images / "zebra").rename(images / "bee")
    # IDX images keep their keys whatever their labels say.
    few = tmp_path / "few"
    few.mkdir()
    idx = make_idx(few, 30, [i % 10 for i in range(30)])
    db = tmp_path / "idx.fkdb"
    fkdb.ok("write", "--images", idx, "--teacher", teacher, "--crops", 2, "--out", db)
    make_idx(few, 30, [i % 9 for i in range(30)])
    fkdb.fails(7, f"{db} does not match the images of 'x-images-idx3-ubyte': its classes are numbered otherwise: class 9 is "
                  "'9' in the label set, missing here", "train", "--images", idx, "--db", db, "--model", "resnet6-w4",
               "--epochs", 1, "--out", tmp_path / "run2")


def test_damaged_and_foreign_files(fkdb, labels, tmp_path):
    bad = tmp_path / "bad.fkdb"
    data = labels.read_bytes()
    bad.write_bytes(data[:-4096])
    pages = len(data) // 4096
    for tool in ("dump", "audit", "verify"):
        fkdb.fails(3, f"{bad}: damaged LMDB file: expected {len(data)} bytes ({pages} pages of 4096), got {len(data) - 4096}: "
                      "truncated or not copied whole", tool, bad)
    bad.write_text("hello")
    fkdb.fails(3, f"{bad}: damaged LMDB file: 5 bytes are too few for an LMDB file", "dump", bad)
    bad.write_bytes(b"x" * 9000)
    fkdb.fails(3, f"{bad}: not an LMDB file, so not a label set", "verify", bad)
    fkdb.fails(1, "/no/such.fkdb: no such file", "dump", "/no/such.fkdb")
    # A record's bytes: found on reading it, and by verify.
    at = data.find(b"FKDR")
    broken = bytearray(data)
    broken[at + 200] ^= 1
    bad.write_bytes(broken)
    done = fkdb("verify", bad, "--json")
    assert done.returncode == 3 and '"ok":false' in done.stdout and "checksum of record" in done.stdout


def test_usage(fkdb, labels):
    fkdb.fails(2, "DB is required (see --help)", "dump")
    done = fkdb("dump", labels, "--what")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    fkdb.fails(2, "--crop and --dense need an image: --image KEY or --ordinal N", "dump", labels, "--dense")
    fkdb.fails(1, f"{labels}: no image 'x' in it", "dump", labels, "--image", "x")
    fkdb.fails(1, f"{labels}: no image 500: the label set has 500 (counted from 0)", "dump", labels, "--ordinal", 500)
    fkdb.fails(1, f"{labels}: image '00003': no crop 4: it has 4 (counted from 0)", "dump", labels, "--ordinal", 3, "--crop", 4)
    fkdb.fails(2, "--crop-on gpu is for trainings on one: --device cuda", "train", "--images", TRAIN, "--model", "resnet6-w4", "--epochs", 1,
               "--crop-on", "gpu", "--out", "/tmp/never")
    fkdb.fails(2, "--supervision db needs a label set: --db DB", "train", "--images", TRAIN, "--model", "resnet6-w4",
               "--epochs", 1, "--supervision", "db")
    fkdb.fails(2, f"model 'vgg' is not known: expected {MODELS}, or FILE.pt",
               "train", "--images", TRAIN, "--limit", 30, "--model", "vgg", "--epochs", 1, "--out", "/tmp/never")


def test_two_writers(fkdb, teacher, tmp_path):
    import fcntl
    out = tmp_path / "l.fkdb"
    with open(tmp_path / "l.fkdb.lock", "w") as lock:
        fcntl.lockf(lock, fcntl.LOCK_EX)
        fkdb.fails(5, f"{out}.lock: another writer is at work on this label set; wait for it to end (its lock vanishes "
                      "with it)", *write(fkdb, teacher, out))
    fkdb.ok(*write(fkdb, teacher, out))
