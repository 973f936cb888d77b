# SPDX-License-Identifier: Apache-2.0
"""tests/bench/paper_tables: every cell trains, in tiny; what is done stays done; the tables are the results'."""

import json
import pathlib
import re
import shutil
import statistics
import subprocess
import sys
import threading

import pytest
from conftest import BIN

TABLES = pathlib.Path(__file__).parents[1] / "bench" / "paper_tables"
sys.path.insert(0, str(TABLES))

import cells  # noqa: E402
import tables  # noqa: E402
from runner import Results, Runner, cell_origin, digest  # noqa: E402


def run(*arguments):
    return subprocess.run([sys.executable, TABLES, *map(str, arguments)], capture_output=True, text=True, timeout=600)


@pytest.fixture(scope="module")
def work(tmp_path_factory):
    """All cells trained, two at a time."""
    work = tmp_path_factory.mktemp("tables")
    done = run(work, "--tiny", "--bin", BIN, "--jobs", 2)
    assert (done.returncode, done.stderr) == (0, "")
    assert sorted(line.split()[1] for line in done.stdout.splitlines()) == sorted(f"{name}/0:" for name in cells.CELLS)
    return work / "tiny"


def test_every_cell_has_its_result(work):
    results = json.loads((work / "results.json").read_text())
    for name, cell in cells.CELLS.items():
        result = results["cells"][name]["0"]
        last = json.loads((work / f"runs/{name}-0/metrics.jsonl").read_text().splitlines()[-1])
        assert result["loss"] == last["loss"]
        assert result["crops"] == (96 if cell.images else 12) * cell.epochs  # in tiny
        if cell.images:
            assert result["top1"] == last["top1"]
        else:
            assert 0 <= result["agreement"] <= 1 and result["kl"] > 0
    # Table 6 has as many bytes as its encodings ask for.
    bytes_of = {name: results["made"][f"10-{name}"]["bytes_per_crop"] for name in cells.KINDS}
    assert bytes_of["hard"] < bytes_of["ms-1"] < bytes_of["ms-2"] < bytes_of["ms-5"] < bytes_of["ms-2-f32"] < bytes_of["full-f32"]


def test_what_is_done_stays_done_and_one_command_trains_a_cell_again(work):
    before = json.loads((work / "results.json").read_text())
    done = run(work.parent, "--tiny", "--bin", BIN)
    assert (done.returncode, done.stdout) == (0, "")
    done = run(work.parent, "--tiny", "--bin", BIN, "--cell", "fkd-m4/0")
    assert (done.returncode, done.stderr) == (0, "")
    assert re.fullmatch(r"\d\d:\d\d fkd-m4/0: top-1 [\d.]+ %, \d+ s\n", done.stdout)
    after = json.loads((work / "results.json").read_text())
    again, first = after["cells"]["fkd-m4"].pop("0"), before["cells"]["fkd-m4"].pop("0")
    assert again.pop("seconds") != first.pop("seconds")
    assert again == first  # the same bits
    assert after == before


def test_what_another_command_made_is_trained_again(work):
    """cells.py changed: neither its result nor its weights are this cell's."""
    results = Results(work / "results.json")
    results.put("another", "cells", "hard-m2", "0", "origin")
    (work / "runs/hard-m2-0.command").write_text("another")
    (work / "runs/hard-m2-0/weights.safetensors").write_bytes(b"another's")
    done = run(work.parent, "--tiny", "--bin", BIN)
    assert (done.returncode, done.stderr) == (0, "") and len(done.stdout.splitlines()) == 1 and "hard-m2/0" in done.stdout
    assert Results(work / "results.json").of("hard-m2", 0)["command"] == cells.CELLS["hard-m2"].command(0)
    assert (work / "runs/hard-m2-0/weights.safetensors").stat().st_size > 1000
    # So is what is made for them, and what was made of that.
    other = work / "10-hard.fkdb"
    kept = other.read_bytes()
    (work / "made/10-hard.command").write_text("another")
    other.write_bytes(b"another's")
    results = Results(work / "results.json")
    made = results.made("10-hard")["digest"]
    results.put("another machine's", "made", "10-hard", "digest")
    results.put(None, "cells", "kind-hard", "0")
    shutil.rmtree(work / "runs/kind-hard-0")
    done = run(work.parent, "--tiny", "--bin", BIN)
    assert (done.returncode, done.stderr) == (0, "") and len(done.stdout.splitlines()) == 1 and "kind-hard/0" in done.stdout
    assert other.stat().st_size == len(kept)
    assert Results(work / "results.json").made("10-hard")["digest"] == made


def test_speed_is_of_few_images_of_a_larger_label_set(work):
    """A table's cells share a core in every turn, with a twin of the first; nothing of them is left."""
    done = run(work.parent, "--tiny", "--bin", BIN, "--speed", "--turns", 2, "--seconds", 1, "--cell", "meal-fkd", "--cell", "fkd/0")
    assert (done.returncode, done.stderr) == (0, "")
    first, second = (["hard", "relabel", "fkd", "fkd-single", "kd"], ["meal-online", "meal-fkd"])
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == 2 * first + 2 * second
    speeds = json.loads((work / "results.json").read_text())["speed"]
    assert set(speeds) == {*first, *second} and {name for name in speeds if "again" in speeds[name]} == {first[0], second[0]}
    for speed in speeds.values():
        assert all(len(turns) == 2 and min(turns) > 0 for turns in (speed["turns"], speed.get("again", speed["turns"])))
    # The same training twice: of its own time, whoever else has the core.
    assert statistics.median(speeds["hard"]["again"]) == pytest.approx(statistics.median(speeds["hard"]["turns"]), rel=0.3)
    assert not list((work / "runs").glob("speed-*"))


def test_speed_says_which_training_failed(work):
    (work / "maps.fkdb").rename(work / "kept")
    (work / "maps.fkdb").write_bytes(b"no label set")
    try:
        done = run(work.parent, "--tiny", "--bin", BIN, "--speed", "--seconds", 1, "--cell", "relabel")
    finally:
        (work / "kept").rename(work / "maps.fkdb")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1) and "maps.fkdb" in done.stderr
    assert not list((work / "runs").glob("speed-*"))


def test_where_a_cell_comes_from():
    """Its own command, and those of all that it needs, and the recipe that it names."""
    assert "\nstep-factor = 0.1\n" in cell_origin("meal-fkd", 0)
    for name, parts in {"fkd-m4": ["--crops-per-image 4", "10-ms-5: fkdb-subset", "full10: fkdb-write", "w40: fkdb-train"],
                        "meal-fkd": ["ensemble: fkdb-write", "w32: fkdb-train", "--crops-per-image 1"],
                        "photos-hard": ["photos-full: fkdb-write", "lite0: lite 0", "held-out: fkdb-write", "--boxes-from"]}.items():
        text = cell_origin(name, 1)
        assert all(part in text for part in parts) and text != cell_origin(name, 2)


def test_a_cell_that_fails_is_named_and_the_others_go_on(work):
    (work / "10-ms-2.fkdb").rename(work / "kept")
    (work / "10-ms-2.fkdb").write_bytes(b"no label set")
    try:
        done = run(work.parent, "--tiny", "--bin", BIN, "--cell", "kind-ms-2/0", "--cell", "hard-m8/0")
    finally:
        (work / "kept").rename(work / "10-ms-2.fkdb")
    assert done.returncode == 1
    assert "hard-m8/0: top-1" in done.stdout
    assert done.stderr.count("\n") == 1 and "10-ms-2.fkdb" in done.stderr


class Makes(Runner):
    """Three cells need one thing. It is made while `free/0` trains; `free/1` and `free/2` are behind `needs-it/1`."""

    def __init__(self):
        self.locks, self.locks_lock, self.trained = {}, threading.Lock(), []
        self.began, self.made, self.second = (threading.Event() for _ in range(3))

    def train(self, name, seed):
        if name == "needs-it":
            with self.only_one("it"):
                assert self.made.is_set() or self.began.wait(60)
            (self.second if seed == 1 else self.made).set()
        elif seed == 0:
            self.began.set()
            assert self.made.wait(60)
        else:
            assert self.second.wait(60 if seed == 1 else 0)
        self.trained.append((name, seed))
        return name, seed, {"top1": 0.5, "seconds": 1.0}


def test_no_job_waits_for_what_another_one_makes(capsys):
    """And the cells that it goes past keep their place."""
    runner = Makes()
    cells = [("needs-it", 0), ("needs-it", 1), ("needs-it", 2), ("free", 0), ("free", 1), ("free", 2)]
    assert runner.train_all(cells, 2) == 0, capsys.readouterr().err
    assert sorted(runner.trained) == sorted(cells) and len(capsys.readouterr().out.splitlines()) == len(cells)


def test_no_such_cell():
    done = run("nowhere", "--cell", "fkd-m3")
    assert (done.returncode, done.stderr) == (1, "paper_tables: no cell 'fkd-m3': expected a name of --list, or a name / a seed\n")
    assert not pathlib.Path("nowhere").exists()


def test_tables_are_the_results(tmp_path):
    results = Results(tmp_path / "results.json")
    top1 = [0.8712, 0.8751, 0.8699]
    for seed, value in enumerate(top1):
        results.put({"top1": value, "origin": digest(cell_origin("fkd-m8", seed)), "cpu": "a CPU"}, "cells", "fkd-m8", str(seed))
    for seed, value in enumerate([0.86, 0.87, 0.88, 0.8]):
        results.put({"top1": value + 0.01 * seed, "origin": digest(cell_origin("fkd", seed)), "cpu": "a CPU"}, "cells", "fkd", str(seed))
        if seed < 3:
            results.put({"top1": value, "origin": digest(cell_origin("hard", seed)), "cpu": "a CPU"}, "cells", "hard", str(seed))
    for name, turns in {"fkd-m8": [3900.0, 4000.0, 4100.0], "fkd": [3000.0, 4000.0, 2000.0], "hard": [3300.0, 3000.0, 2400.0]}.items():
        results.put({"turns": turns, "again": [turns[0], 1.02 * turns[1], turns[2]], "origin": digest(cell_origin(name, 0)), "cpu": "a CPU"}, "speed", name)
    # What another command gave is in no table.
    results.put({"top1": 0.99, "origin": "another", "cpu": "another CPU"}, "cells", "hard", "0")
    results.put({"turns": [1.0], "origin": "another", "cpu": "another CPU"}, "speed", "relabel")
    results.put({"bytes_per_crop": 77.7, "origin": "another", "cpu": "another CPU"}, "made", "10-hard")
    text = tables.written(results)
    mean = f"{100 * statistics.mean(top1):.2f} ± {100 * statistics.stdev(top1):.2f} (3)"
    assert mean == "87.21 ± 0.27 (3)"
    assert text.count(mean) == 1
    assert re.search(r"^\| images/s of one core \|.*\n.*\n.*\n\| FKD.* 500 \| not timed yet \| not timed yet \|$", text, re.MULTILINE)
    assert re.search(r"^\| FKD, m = 4.* \| not run yet \| 1\.10 x \(0\.75 to 1\.20\) \|$", text, re.MULTILINE)
    assert "Twice the same training in a turn: `hard` 1.00 x (0.98 to 1.00)." in text
    assert "FKD, m = 4, above hard labels +1.50 ± 0.50 (2)" in text  # of seeds 1 and 2, which both have
    assert not any(stale in text for stale in ("99.00", "77.7", "another CPU", "3000.00 x"))
