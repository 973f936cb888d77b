# SPDX-License-Identifier: Apache-2.0
"""Flags from files: --config, --print-config, and the recipes of trainer/recipes, each of which trains."""

import hashlib
import pathlib
import tomllib

import pytest
from conftest import TRAIN

RECIPES = pathlib.Path(__file__).parents[2] / "trainer" / "recipes"
TRAINING = sorted(path.stem for path in (RECIPES / "train").glob("*.toml"))
LABELLING = sorted(path.stem for path in (RECIPES / "write").glob("*.toml"))


def printed(fkdb, tool, *arguments):
    return fkdb.ok(tool, *arguments, "--print-config")


def the_same(a, b):
    return a == b if isinstance(a, (str, bool)) or (isinstance(a, list) and isinstance(a[0], str)) else pytest.approx(a, rel=1e-12) == b


@pytest.mark.parametrize("tool, recipe", [("train", r) for r in TRAINING] + [("write", r) for r in LABELLING])
def test_a_recipe_is_what_its_file_says(fkdb, tmp_path, tool, recipe):
    text = (RECIPES / tool / f"{recipe}.toml").read_text()
    assert text.startswith("# ")
    shown = printed(fkdb, tool, "--config", recipe)
    assert shown.startswith("".join(line + "\n" for line in text.splitlines() if line.startswith("#")))
    got = tomllib.loads(shown)
    for key, value in tomllib.loads(text).items():
        value = value[0] if isinstance(value, list) and len(value) == 1 else value
        assert the_same(got[key], value), key
    # What is printed is a recipe, and the same one; so is the file by its path.
    (tmp_path / "again.toml").write_text(shown)
    assert printed(fkdb, tool, "--config", tmp_path / "again.toml") == shown
    assert printed(fkdb, tool, f"--config={RECIPES}/{tool}/{recipe}.toml") == shown


def test_every_flag_goes_through_a_file(fkdb, tmp_path):
    """Texts with quotes, lists, numbers too large for TOML, flags."""
    given = ["--images", 'a "b" \\c', "--db", "it's", "--model", "m", "--epochs", 3, "--seed", 2**64 - 1, "--step-epochs", "1,2", "--betas", "0.5,0.75",
             "--nesterov", "--scale", "0.25,1", "--lr", "0.001", "--mean", "0.5", "--no-decay", "a,b", "--out", "1.10"]
    shown = printed(fkdb, "train", *given)
    got = tomllib.loads(shown)
    assert (got["images"], got["db"], got["seed"], got["step-epochs"]) == ('a "b" \\c', "it's", str(2**64 - 1), [1, 2])
    assert (got["betas"], got["nesterov"], got["channels-last"], got["scale"], got["lr"]) == ([0.5, 0.75], True, False, [0.25, 1], 1e-3)
    assert (got["no-decay"], got["out"]) == (["a", "b"], "1.10")
    (tmp_path / "c.toml").write_text(shown)
    assert printed(fkdb, "train", "--config", tmp_path / "c.toml") == shown
    for text in ("007", "[x]", "1,2"):
        assert tomllib.loads(printed(fkdb, "train", "--out", text))["out"] == text


def test_a_folder_of_a_recipe_s_name_is_no_file(fkdb, tmp_path, monkeypatch):
    shown = printed(fkdb, "train", "--config", "fkd-resnet")
    (tmp_path / "fkd-resnet").mkdir()
    monkeypatch.chdir(tmp_path)
    assert printed(fkdb, "train", "--config", "fkd-resnet") == shown
    done = fkdb("train", "--config", tmp_path)
    assert done.returncode == 1 and "no such file, and no such recipe" in done.stderr and done.stderr.count("\n") == 1


def test_another_schedule_than_the_recipe_s(fkdb):
    assert tomllib.loads(printed(fkdb, "train", "--config", "fkd-meal-v2", "--schedule", "cosine"))["schedule"] == "cosine"


def test_the_command_line_wins(fkdb, tmp_path):
    (tmp_path / "c.toml").write_text("nesterov = true\nlr = 0.5\nepochs = 7\n")
    got = tomllib.loads(printed(fkdb, "train", "--lr=0.25", "--config", tmp_path / "c.toml", "--nesterov=false"))
    assert (got["lr"], got["nesterov"], got["epochs"], got["momentum"]) == (0.25, False, 7, 0.9)


@pytest.mark.parametrize("text, complaint", [
    ("epochs = 3\nepoch = 3\n", "2: unknown key 'epoch': expected the name of a flag; fkdb-train --help lists them"),
    ("json = true\n", "1: unknown key 'json': expected the name of a flag; fkdb-train --help lists them"),
    ("[train]\nepochs = 3\n", "1: 'train' is a table: expected flags alone, as epochs = 300"),
    ("\nlr = 2026-01-01\n", "2: lr: expected a number, a text, true or false, or a list of these"),
    ("betas = [[1], 2]\n", "1: betas: expected a number, a text, true or false, or a list of these"),
    ("nesterov = 1\n", "1: nesterov = 1: expected true or false"),
])
def test_what_is_no_flag_is_named(fkdb, tmp_path, text, complaint):
    path = tmp_path / "c.toml"
    path.write_text(text)
    fkdb.fails(2, f"{path}:{complaint}", "train", "--config", path)


def test_values_of_the_wrong_kind_are_found_in_the_file(fkdb, tmp_path):
    path = tmp_path / "c.toml"
    path.write_text('model = "resnet18"\nimages = "x"\nepochs = "many"\n')
    done = fkdb("train", "--config", path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert done.stderr.startswith(f"fkdb-train: {path}:3: ") and "--epochs" in done.stderr and "many" in done.stderr
    path.write_text("epochs = = 3\n")
    done = fkdb("train", "--config", path)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and done.stderr.startswith(f"fkdb-train: {path}:1: ")
    # On the command line it is the command line's.
    path.write_text("epochs = 3\n")
    assert not fkdb("train", "--config", path, "--epochs", "many").stderr.startswith(f"fkdb-train: {path}")


def test_missing_recipes_are_named_with_those_that_exist(fkdb):
    fkdb.fails(1, f"--config fkd-resent: no such file, and no such recipe: expected a TOML file or {', '.join(TRAINING)}", "train", "--config", "fkd-resent")
    assert all(name in fkdb.ok("train", "--help") for name in TRAINING)
    assert all(name in fkdb.ok("write", "--help") for name in LABELLING)


@pytest.mark.parametrize("recipe", TRAINING)
def test_a_recipe_trains_and_resumes(fkdb, labels, label_maps, teacher, tmp_path, recipe):
    """At its own rates and schedule, shortened: the loss falls, and a run in pieces ends as the whole one, to the bit."""
    text = tomllib.loads((RECIPES / "train" / f"{recipe}.toml").read_text())
    images, db = label_maps if text.get("supervision") == "relabel" else (TRAIN, labels)
    command = ["train", "--config", recipe, "--images", images, "--limit", 500, "--model", "resnet6-w4", "--batch-size", 32, "--epochs", 12, "--threads", 1]
    if text.get("supervision") == "teacher":
        command += ["--teacher", teacher]
    elif text.get("supervision") != "hard":
        command += ["--db", db]
    if "step-epochs" in text:
        command += ["--step-epochs", 8]
    if "warmup-epochs" in text:
        command += ["--warmup-epochs", 2]
    whole = fkdb.passes(*command, "--out", tmp_path / "whole")
    losses = [line["loss"] for line in whole]
    assert losses[-1] < 0.9 * losses[0], losses
    if text.get("no-single-crop-tail"):
        assert [line["crops_per_image"] for line in whole] == [4, 4, 4]
    for steps in (50, 0):
        fkdb.ok(*command, "--out", tmp_path / "pieces", "--resume", "--max-steps", steps)
    weights = [(tmp_path / run / "weights.safetensors").read_bytes() for run in ("whole", "pieces")]
    assert hashlib.sha256(weights[0]).digest() == hashlib.sha256(weights[1]).digest()


def test_mixed_precision_and_channels_last(fkdb, labels, tmp_path):
    """The same training in other numbers: near the plain one, not equal to it, and exactly resumed."""
    command = ["train", "--images", TRAIN, "--limit", 500, "--db", labels, "--model", "resnet6-w4", "--epochs", 6, "--batch-size", 32, "--lr", 0.05,
               "--threads", 1]

    def losses(name, *flags):
        return [line["loss"] for line in fkdb.passes(*command, *flags, "--out", tmp_path / name)]

    plain = losses("plain")
    for name, flags, near in (("bf16", ["--autocast", "bf16"], 0.03), ("last", ["--channels-last"], 0.03)):
        other = losses(name, *flags)
        assert other[0] == pytest.approx(plain[0], rel=near) and other[-1] < 0.9 * other[0]
        assert (name == "last") or other != plain
        for steps in (20, 0):
            fkdb.ok(*command, *flags, "--out", tmp_path / f"{name}-pieces", "--resume", "--max-steps", steps)
        weights = [(tmp_path / run / "weights.safetensors").read_bytes() for run in (name, f"{name}-pieces")]
        assert weights[0] == weights[1], name
    done = fkdb(*command, "--autocast", "fp16", "--out", tmp_path / "fp16")
    assert done.returncode == 2 and done.stderr == "fkdb-train: autocast 'fp16' would need a loss scale: expected bf16\n"
    assert "autocast was" in fkdb(*command, "--out", tmp_path / "bf16", "--resume").stderr
