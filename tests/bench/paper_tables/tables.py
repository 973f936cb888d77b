# SPDX-License-Identifier: Apache-2.0
"""The tables of README.md, from the results."""

import statistics

from cells import CELLS, KINDS, LARGE_MS, MS, PHOTO_KINDS, TIMED

BEGIN, END = "<!-- tables -->\n", "<!-- /tables -->\n"


def over_seeds(results, name, what, scale=100, digits=2):
    """"mean ± deviation (seeds)"."""
    values = [scale * r[what] for s in CELLS[name].seeds if (r := results.of(name, s)) is not None]
    if not values:
        return "not run yet"
    spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{spread} ({len(values)})"


def accuracy(results, name):
    """In percent."""
    return over_seeds(results, name, "top1")


def gain(results, name, over):
    """Points of top-1: the mean over seeds ± its standard error (seeds)."""
    pairs = [(results.of(name, s), results.of(over, s)) for s in CELLS[name].seeds]
    points = [100 * (a["top1"] - b["top1"]) for a, b in pairs if a and b]
    if len(points) < 2:
        return "not run yet"
    return f"{statistics.mean(points):+.2f} ± {statistics.stdev(points) / len(points) ** 0.5:.2f} ({len(points)})"


def label_words(recode):
    """["marginal smoothing, K = 2", "packed"] of "marginal-smoothing,top-k=2,packed"."""
    kind, *top_k, values = recode.split(",")
    return [kind.replace("-", " ") + "".join(f", K = {k.removeprefix('top-k=')}" for k in top_k), values]


def bytes_per_crop(results, name):
    made = results.made(name)
    return f"{made['bytes_per_crop']:,.1f}" if made else "not made yet"


def speed(results, name):
    """Crops a second, of the median turn."""
    found = results.speed(name)
    return found and statistics.median(found["turns"])


def of_plain(results, name, plain, turns="turns"):
    """Seconds a crop beside those of `plain`, which shared its core: the median turn (all turns)."""
    this, that = results.speed(name), results.speed(plain)
    if not this or not that:
        return "not timed yet"
    ratios = sorted(b / a for a, b in zip(this[turns], that["turns"]))
    return f"{statistics.median(ratios):.2f} x" + (f" ({ratios[0]:.2f} to {ratios[-1]:.2f})" if ratios[0] < ratios[-1] else "")


def table(head, rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]) + "\n"


def written(results):
    text = f"### Tables 1 and 3: hard labels, ReLabel, FKD, vanilla KD\n\nAll 60,000 images, {CELLS['hard'].epochs} epochs; and the first 10,000, "
    text += f"{CELLS['hard-m1'].epochs} epochs.\n\n"
    text += table(["supervision", "cells", "all: top-1, %", "10,000: top-1, %", "one core's seconds a crop, of plain training's"],
                  [[what, ", ".join(f"`{cell}`" for cell in (name, few) if cell), accuracy(results, name),
                    accuracy(results, few) if few else "", of_plain(results, name, "hard")]
                   for what, name, few in (("hard labels", "hard", "hard-m1"), ("ReLabel, maps of 7 x 7 cells, K = 10", "relabel", "relabel-10k"),
                                           ("FKD, m = 4, marginal smoothing, K = 5, packed", "fkd", "fkd-m4"),
                                           ("FKD, m = 1, the same labels", "fkd-single", "fkd-m1"),
                                           ("vanilla KD, the teacher in every step", "kd", ""))])
    text += f"\nBy seed, in points, mean ± standard error (seeds), of all images: FKD, m = 1, above hard labels {gain(results, 'fkd-single', 'hard')}, above "
    text += f"ReLabel {gain(results, 'fkd-single', 'relabel')}, above vanilla KD {gain(results, 'fkd-single', 'kd')}; FKD, m = 4, above hard labels "
    text += f"{gain(results, 'fkd', 'hard')}, above ReLabel {gain(results, 'fkd', 'relabel')}.\n"
    text += "\n### Table 4: MEAL V2, fine-tuning from hard labels' weights with two teachers\n\nThe first 10,000 images; from `hard-m1` of the same seed.\n\n"
    text += table(["training", "cell", "top-1, %", "one core's seconds a crop, of MEAL V2's"],
                  [["where it begins", "`hard-m1`", accuracy(results, "hard-m1"), ""],
                   [f"hard labels for {CELLS['meal-hard'].epochs} epochs more", "`meal-hard`", accuracy(results, "meal-hard"), ""],
                   [f"MEAL V2: both teachers in every step, {CELLS['meal-online'].epochs} epochs", "`meal-online`", accuracy(results, "meal-online"), "1.00 x"],
                   [f"with FKD, m = 4, {CELLS['meal-fkd'].epochs} epochs", "`meal-fkd`", accuracy(results, "meal-fkd"),
                    of_plain(results, "meal-fkd", "meal-online")],
                   [f"with FKD, cosine, {CELLS['meal-fkd-cosine'].epochs} epochs", "`meal-fkd-cosine`", accuracy(results, "meal-fkd-cosine"), "as above"]])
    text += f"\n### Table 6: what is kept of a label\n\nThe first 10,000 images, {CELLS['kind-hard'].epochs} epochs, m = 1; C = 10.\n\n"
    text += table(["label", "values", "cell", "top-1, %", "bytes a crop"],
                  [[*label_words(recode), f"`kind-{name}`", accuracy(results, f"kind-{name}"), bytes_per_crop(results, f"10-{name}")]
                   for name, recode in KINDS.items()])
    text += f"\nC = 1000: 252 cuts of 12 photos, {CELLS['photos-hard'].epochs} epochs, m = 4; on crops that nobody was trained on.\n\n"
    text += table(["label", "values", "cell", "first class is the teacher's, %", "KL(teacher, student), nats", "bytes a crop"],
                  [[*label_words(recode), f"`photos-{name}`", over_seeds(results, f"photos-{name}", "agreement"),
                    over_seeds(results, f"photos-{name}", "kl", 1, 3), bytes_per_crop(results, f"photos-{name}")] for name, recode in PHOTO_KINDS.items()])
    text += f"\n### Table 7: m crops of an image in a batch\n\nThe first 10,000 images, {CELLS['hard-m1'].epochs} epochs.\n\n"
    for what in ("top-1, %", "images/s of one core"):
        rows = []
        for label, name in (("hard labels", "hard"), ("FKD, marginal smoothing, K = 5", "fkd")):
            values = [accuracy(results, f"{name}-m{m}") if what.startswith("top") else
                      f"{rate / m:,.0f}" if (rate := speed(results, f"{name}-m{m}")) else "not timed yet" for m in MS]
            rows.append([label, *values])
        if what.startswith("top"):
            rows.append(["images in a step", *(str(128 // m) for m in MS)])
            rows.append(["FKD in steps of 512 crops", *(accuracy(results, f"fkd-m{m}-of-512") if m in LARGE_MS else "" for m in MS)])
            rows.append(["images in a step", *(str(512 // m) if m in LARGE_MS else "" for m in MS)])
        text += table([what, *(f"m = {m}" for m in MS)], rows) + "\n"
    teachers = [f"{name} {100 * made['top1']:.2f} %" for name in ("w40", "w32") if (made := results.made(name))]
    cpus = sorted({r["cpu"] for name, cell in CELLS.items() for s in cell.seeds if (r := results.of(name, s))})
    twins = [f"`{group[0]}` {of_plain(results, group[0], group[0], 'again')}" for group in TIMED if results.speed(group[0])]
    timed = sorted({r["cpu"] for name in CELLS if (r := results.speed(name))})
    text += f"Mean ± standard deviation (seeds). Teachers' top-1: {', '.join(teachers) or 'not trained yet'}."
    text += f" Trained on {'; '.join(cpus) or 'nothing yet'}" + (f", timed on {'; '.join(timed)}" if timed else "") + ".\n"
    if twins:
        text += f"Seconds a crop: the median of turns (the least to the most). Twice the same training in a turn: {', '.join(twins)}.\n"
    return text


def update(readme, results, check):
    """Writes the tables into the README between their marks, or only compares: an exit status."""
    before = readme.read_text()
    head, rest = before.split(BEGIN)
    after = head + BEGIN + "\n" + written(results) + "\n" + END + rest.split(END)[1]
    if check:
        return f"{readme}: not the tables of results.json: run paper_tables --tables" if before != after else 0
    readme.write_text(after)
    return 0
