# SPDX-License-Identifier: Apache-2.0
"""What is trained for the tables: teachers, label sets, and cells, each a command of fkdb-train.

A name in braces is a path: {train} and {val}, what an entry of MADE makes ({w40}, {full}..), or the weights of a cell.
"""

from dataclasses import dataclass

SEEDS = (0, 1, 2)
MORE_SEEDS = tuple(range(10))  # where three left it open what is above what
CROPS = "--scale 0.25,1"  # of an image's area: teachers', label sets' and students'
# Passes are few: at m = 32 the paper's rate, which changes with passes, would not change at all.
SMOOTH = "--lr-interval step"
ONE_THREAD = f"{SMOOTH} --channels-last --threads 1"
PHOTO_STUDENT, PHOTO_INPUT = "resnet6-w16", "--input-size 64"


@dataclass(frozen=True)
class Cell:
    """flags: of fkdb-train, beside the student's. images: the first of Fashion-MNIST; 0: the photos, where there is no class, and
    students are compared with the teacher. weights: begins with those of this cell, of the same seed."""
    flags: str
    weights: str = ""
    images: int = 10_000
    epochs: int = 32
    batch: int = 128
    seeds: tuple = SEEDS

    def command(self, seed):
        student = (f"--images {{train}} --val {{val}} --limit {self.images} --model resnet6-w8 --epochs {self.epochs} {ONE_THREAD} --batch-size {self.batch}"
                   if self.images else f"--images {{photos}} --model {PHOTO_STUDENT} {PHOTO_INPUT} --epochs {self.epochs} {ONE_THREAD} --batch-size 32")
        initial = f" --weights {{{self.weights}}}" if self.weights else ""
        return f"fkdb-train {student} {self.flags}{initial} --seed {seed}"


def teacher(width, seed):
    return (f"fkdb-train --images {{train}} --val {{val}} --limit 60000 --model resnet6-w{width} --epochs 10 --nesterov --weight-decay 5e-4 {SMOOTH} "
            f"--batch-size 128 {CROPS} --seed {seed} --channels-last --threads 1")


LABELS = f"{CROPS} --batch-size 128"
W40, W32 = "resnet6-w40:{w40}", "resnet6-w32:{w32}"

PHOTO_TEACHERS = "--teacher {lite0},{lite2}"  # the average of both, after softmax
FULL = "--label full --encoding f32"

# Name: (the command that makes it, the file it is).
MADE = {
    "w40": (teacher(40, 0), "w40/weights.safetensors"),
    "w32": (teacher(32, 1), "w32/weights.safetensors"),
    "full": (f"fkdb-write --images {{train}} --limit 60000 --teacher {W40} {LABELS} {FULL} --crops 8", "full.fkdb"),
    "full10": (f"fkdb-write --images {{train}} --limit 10000 --teacher {W40} {LABELS} {FULL} --crops 32", "full10.fkdb"),
    "packed": ("fkdb-subset {full} --recode marginal-smoothing,top-k=5,packed", "packed.fkdb"),
    "map-teacher": ("map_teacher {w40} resnet6-w40 28", "maps.pt"),
    "maps": ("fkdb-write --images {train} --limit 60000 --teacher {map-teacher} --label label-map --top-k 10", "maps.fkdb"),
    "keys10": ("first_keys 10000", "keys10.txt"),
    "maps10": ("fkdb-subset {maps} --images {keys10}", "maps10.fkdb"),
    "ensemble": (f"fkdb-write --images {{train}} --limit 10000 --teacher {W40},{W32} {LABELS} --crops 24", "ensemble.fkdb"),
    "photos": ("photos", "photos"),
    "lite0": ("lite 0 224", "lite0.pt"),
    "lite2": ("lite 2 260", "lite2.pt"),
    "photos-full": (f"fkdb-write --images {{photos}} {PHOTO_TEACHERS} {CROPS} --batch-size 16 {FULL} --crops 32", "photos-full.fkdb"),
    "held-out": (f"fkdb-write --images {{photos}} {PHOTO_TEACHERS} {CROPS} --batch-size 16 {FULL} --crops 4 --seed 1", "held-out.fkdb"),
}

# How a student of the photos is judged: its labels of crops that nobody was trained on, beside the teachers'.
STUDENTS_LABELS = f"fkdb-write --images {{photos}} --boxes-from {{held-out}} --teacher {PHOTO_STUDENT}:{{student}} {PHOTO_INPUT} {FULL}"

# Table 6's kinds and encodings, and Table 7's, of the first 10,000 images.
KINDS = {
    "full-f32": "full,f32",
    "hard": "hard,packed",
    "smoothing": "smoothing,packed",
    "renorm-2": "marginal-renorm,top-k=2,packed",
    "ms-1": "marginal-smoothing,top-k=1,packed",
    "ms-2": "marginal-smoothing,top-k=2,packed",
    "ms-5": "marginal-smoothing,top-k=5,packed",
    "ms-2-f16": "marginal-smoothing,top-k=2,f16",
    "ms-2-f32": "marginal-smoothing,top-k=2,f32",
}
MADE |= {f"10-{name}": (f"fkdb-subset {{full10}} --recode {recode}", f"10-{name}.fkdb") for name, recode in KINDS.items()}
# And of the photos.
PHOTO_KINDS = {
    "full-f32": "full,f32",
    "hard": "hard,packed",
    "smoothing": "smoothing,packed",
    **{f"{short}-{k}": f"{kind},top-k={k},packed" for short, kind in (("renorm", "marginal-renorm"), ("ms", "marginal-smoothing")) for k in (5, 10)},
}
MADE |= {f"photos-{name}": (f"fkdb-subset {{photos-full}} --recode {recode}", f"photos-{name}.fkdb") for name, recode in PHOTO_KINDS.items()}

MS = (1, 2, 4, 8, 16, 32)  # m: crops of an image in a batch
NO_TAIL = "--no-single-crop-tail"

CELLS = {}
# Tables 1 and 3, all images; of the first 10,000 `hard-m1` and `fkd-m4` are two of the rows.
CELLS["hard"] = Cell(CROPS, images=60_000, epochs=8, seeds=MORE_SEEDS)
CELLS["fkd"] = Cell(f"--db {{packed}} --crops-per-image 4 {NO_TAIL}", images=60_000, epochs=8, seeds=MORE_SEEDS)
CELLS["fkd-single"] = Cell(f"--db {{packed}} --crops-per-image 1 {NO_TAIL}", images=60_000, epochs=8, seeds=MORE_SEEDS)
CELLS["relabel"] = Cell(f"--db {{maps}} {CROPS}", images=60_000, epochs=8)
CELLS["relabel-10k"] = Cell(f"--db {{maps10}} {CROPS}")
# Table 7.
CELLS |= {f"hard-m{m}": Cell(f"{CROPS} --crops-per-image {m} {NO_TAIL}") for m in MS}
CELLS |= {f"fkd-m{m}": Cell(f"--db {{10-ms-5}} --crops-per-image {m} {NO_TAIL}") for m in MS}
# The same in steps of four times the crops, at four times the rate: is it the images in a step that m > 1 lacks?
LARGE_MS = (1, 4, 16)
CELLS |= {f"fkd-m{m}-of-512": Cell(f"--db {{10-ms-5}} --crops-per-image {m} {NO_TAIL} --lr 0.4", batch=512) for m in LARGE_MS}
# Table 6.
CELLS |= {f"kind-{name}": Cell(f"--db {{10-{name}}} --crops-per-image 1 {NO_TAIL}", epochs=16) for name in KINDS}
CELLS |= {f"photos-{name}": Cell(f"--db {{photos-{name}}} --crops-per-image 4 {NO_TAIL}", images=0, epochs=64) for name in PHOTO_KINDS}
# Table 4: from the weights that hard labels gave; the recipes, a tenth and less of their epochs.
TUNED = "--config fkd-meal-v2 --step-epochs 8"
CELLS["meal-fkd"] = Cell(f"{TUNED} --db {{ensemble}}", weights="hard-m1", epochs=16)
CELLS["meal-fkd-cosine"] = Cell("--config fkd-meal-v2-cosine --db {ensemble}", weights="hard-m1", epochs=24)
CELLS["meal-hard"] = Cell(f"{TUNED} --supervision hard {CROPS} --crops-per-image 1", weights="hard-m1", epochs=16)
CELLS["meal-online"] = Cell(f"{TUNED} --supervision teacher --teacher {W40},{W32} {CROPS} --crops-per-image 1", weights="hard-m1", epochs=16)
# Table 3 once more: the dear one.
CELLS["kd"] = Cell(f"--supervision teacher --teacher {W40} {CROPS}", images=60_000, epochs=8)

# What is timed at once, on a machine that does nothing else; the first of each is the others' measure.
TIMED = [["hard", "relabel", "fkd", "fkd-single", "kd"], ["meal-online", "meal-fkd"], [f"{what}-m{m}" for m in MS for what in ("hard", "fkd")]]
