# SPDX-License-Identifier: Apache-2.0
"""The tables of README.md, from the results."""

import statistics

from cells import CELLS, KINDS, MS

BEGIN, END = "<!-- tables -->\n", "<!-- /tables -->\n"


def accuracy(results, name):
    """"mean ± deviation (seeds)" of the top-1 in percent."""
    top1 = [100 * r["top1"] for s in CELLS[name].seeds if (r := results.of(name, s)) is not None]
    if not top1:
        return "not run yet"
    spread = f" ± {statistics.stdev(top1):.2f}" if len(top1) > 1 else ""
    return f"{statistics.mean(top1):.2f}{spread} ({len(top1)})"


def speed(results, name):
    found = results.json["speed"].get(name)
    return found and found["crops_per_second"]


def of_plain(results, name, plain):
    """Seconds a crop beside those of `plain`."""
    this, that = speed(results, name), speed(results, plain)
    return f"{that / this:.2f} x" if this and that else "not timed yet"


def table(head, rows):
    return "\n".join("| " + " | ".join(row) + " |" for row in [head, ["---"] * len(head), *rows]) + "\n"


def written(results):
    made = results.json["made"]
    text = "### Tables 1 and 3: hard labels, ReLabel, FKD, vanilla KD\n\nAll 60,000 images, 32 epochs.\n\n"
    text += table(["supervision", "cell", "top-1, %", "seconds an epoch, of plain training's"],
                  [[what, f"`{name}`", accuracy(results, name), of_plain(results, name, "hard")]
                   for what, name in (("hard labels", "hard"), ("ReLabel, maps of 14 x 14 cells, K = 5", "relabel"),
                                      ("FKD, m = 4, marginal smoothing, K = 5, packed", "fkd"), ("vanilla KD, the teacher in every step", "kd"))])
    text += "\n### Table 4: MEAL V2, fine-tuning from hard labels' weights with two teachers\n\nThe first 20,000 images; from `hard-m1` of the same seed.\n\n"
    text += table(["training", "cell", "top-1, %", "seconds an epoch, of MEAL V2's"],
                  [["where it begins", "`hard-m1`", accuracy(results, "hard-m1"), ""],
                   ["MEAL V2: both teachers in every step, 12 epochs", "`meal-online`", accuracy(results, "meal-online"), "1.00 x"],
                   ["with FKD, m = 4, 12 epochs", "`meal-fkd`", accuracy(results, "meal-fkd"), of_plain(results, "meal-fkd", "meal-online")],
                   ["with FKD, cosine, 18 epochs", "`meal-fkd-cosine`", accuracy(results, "meal-fkd-cosine"),
                    of_plain(results, "meal-fkd", "meal-online")]])
    text += "\n### Table 6: what is kept of a label\n\nThe first 20,000 images, 32 epochs, m = 8; C = 10.\n\n"
    text += table(["label", "cell", "top-1, %", "bytes a crop"],
                  [[KINDS[name], f"`{cell}`", accuracy(results, cell),
                    f"{made[f'20-{name}']['bytes_per_crop']:.1f}" if f"20-{name}" in made else "not made yet"]
                   for name in KINDS for cell in ["fkd-m8" if name == "ms-5" else f"kind-{name}"]])
    text += "\n### Table 7: m crops of an image in a batch\n\nThe first 20,000 images, 32 epochs.\n\n"
    for what in ("top-1, %", "images/s"):
        rows = []
        for label, name in (("hard labels", "hard"), ("FKD, marginal smoothing, K = 5", "fkd")):
            values = [accuracy(results, f"{name}-m{m}") if what.startswith("top") else
                      f"{rate / m:,.0f}" if (rate := speed(results, f"{name}-m{m}")) else "not timed yet" for m in MS]
            rows.append([label, *values])
        text += table([what, *(f"m = {m}" for m in MS)], rows) + "\n"
    teachers = [f"{name} {100 * made[name]['top1']:.2f} %" for name in ("w48", "w32") if name in made]
    cpus = sorted({r["cpu"] for cell in results.json["cells"].values() for r in cell.values()})
    timed = sorted({r["cpu"] for r in results.json["speed"].values()})
    text += f"Mean ± standard deviation (seeds). Teachers' top-1: {', '.join(teachers) or 'not trained yet'}."
    text += f" Trained on {'; '.join(cpus) or 'nothing yet'}" + (f", timed on {'; '.join(timed)}" if timed else "") + ".\n"
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
