# SPDX-License-Identifier: Apache-2.0
"""Vanilla knowledge distillation (Eq. 1), which FKD replays: the same crops and labels, but the teacher is asked in every step."""

import pathlib

import pytest
from conftest import TRAIN

RUN = ["train", "--images", TRAIN, "--limit", 500, "--model", "resnet6-w4", "--epochs", 4, "--batch-size", 32, "--lr", 0.02, "--threads", 1]


def passes(fkdb, *arguments):
    return fkdb.passes(*RUN, *arguments)


@pytest.fixture(scope="module")
def full_labels(tmp_path_factory, fkdb, teacher):
    path = tmp_path_factory.mktemp("labels") / "full.fkdb"
    fkdb.ok("write", "--images", TRAIN, "--limit", 500, "--teacher", teacher, "--crops", 4, "--batch-size", 32, "--label", "full",
            "--encoding", "f32", "--out", path)
    return path


def test_it_is_what_the_stored_labels_replay(fkdb, full_labels, teacher, tmp_path):
    stored = passes(fkdb, "--db", full_labels, "--out", tmp_path / "stored")
    asked = passes(fkdb, "--db", full_labels, "--supervision", "teacher", "--teacher", teacher, "--out", tmp_path / "asked", "--profile")
    # In batches of the same size: a teacher's last bits depend on it.
    assert [p["loss"] for p in asked] == pytest.approx([p["loss"] for p in stored], rel=1e-3)
    assert all(p["profile"]["workers"]["teacher"] > 0 for p in asked)
    other = passes(fkdb, "--db", full_labels, "--teacher", teacher, "--teacher-temperature", 4, "--out", tmp_path / "other")
    assert abs(other[0]["loss"] - stored[0]["loss"]) > 0.01


def test_fresh_crops_and_the_share_of_the_class(fkdb, teacher, tmp_path):
    hard = passes(fkdb, "--out", tmp_path / "hard")
    none = passes(fkdb, "--teacher", teacher, "--lambda", 0, "--out", tmp_path / "none")
    half = passes(fkdb, "--teacher", teacher, "--lambda", 0.5, "--out", tmp_path / "half")
    assert [p["loss"] for p in none] == pytest.approx([p["loss"] for p in hard], rel=1e-4)
    assert abs(half[-1]["loss"] - hard[-1]["loss"]) > 0.01


def test_two_teachers_and_a_resumed_run(fkdb, teacher, tmp_path):
    both = ["--teacher", f"{teacher},{teacher}", "--teacher-weights", "1,3", "--workers", 3]
    passes(fkdb, *both, "--out", tmp_path / "whole")
    passes(fkdb, *both, "--out", tmp_path / "pieces", "--max-steps", 20)
    passes(fkdb, *both, "--out", tmp_path / "pieces", "--resume")
    assert (tmp_path / "whole/weights.safetensors").read_bytes() == (tmp_path / "pieces/weights.safetensors").read_bytes()
    done = fkdb(*RUN, "--teacher", teacher, "--out", tmp_path / "pieces", "--resume")
    assert done.returncode == 2 and "cannot resume with another configuration: supervision was" in done.stderr


def test_what_a_teacher_sees_and_where_crops_come_from_is_the_run_s(fkdb, teacher, full_labels, tmp_path):
    path = tmp_path / "weights.safetensors"
    path.write_bytes(pathlib.Path(teacher.split(":")[1]).read_bytes())
    command = [*RUN, "--teacher", f"resnet6-w4:{path}", "--out", tmp_path / "run"]
    fkdb.ok(*command, "--max-steps", 3)
    for flags in (["--scale", "0.9,1"], ["--ratio", "1,1"]):
        done = fkdb(*command, "--resume", *flags)
        assert done.returncode == 2 and "cannot resume with another configuration: supervision was" in done.stderr
    (tmp_path / "weights.safetensors.json").write_text('{"mean": [0.0], "std": [3.0]}')
    done = fkdb(*command, "--resume")
    assert done.returncode == 2 and "cannot resume with another configuration: supervision was" in done.stderr
    fkdb.fails(2, "--scale and --ratio are of fresh crops: those of --db are stored", *RUN, "--db", full_labels, "--scale", "0.9,1", "--out", tmp_path / "x")


def test_a_teacher_that_sees_mixed_crops(fkdb, teacher, tmp_path):
    """FunMatch: other labels than mixing those of each crop; a run in pieces is the undisturbed one."""
    mixed = ["--config", "funmatch", "--teacher", teacher, "--warmup-epochs", 1, "--workers", 2]
    after = passes(fkdb, *mixed, "--teacher-sees", "crops", "--out", tmp_path / "crops")
    whole = passes(fkdb, *mixed, "--out", tmp_path / "whole")
    assert abs(whole[-1]["loss"] - after[-1]["loss"]) > 0.01
    passes(fkdb, *mixed, "--out", tmp_path / "pieces", "--max-steps", 21)
    passes(fkdb, *mixed, "--out", tmp_path / "pieces", "--resume")
    assert (tmp_path / "whole/weights.safetensors").read_bytes() == (tmp_path / "pieces/weights.safetensors").read_bytes()
    done = fkdb(*RUN, *mixed, "--teacher-sees", "crops", "--out", tmp_path / "pieces", "--resume")
    assert done.returncode == 2 and "cannot resume with another configuration: supervision was" in done.stderr


@pytest.mark.parametrize("code, message, flags", [
    (2, "--teacher-sees is for --supervision teacher", ["--teacher-sees", "mixed", "--mixup", 1]),
    (2, "--teacher-sees mixed needs crops that are mixed: --mixup A or --cutmix A", ["--teacher", "x.pt", "--teacher-sees", "mixed"]),
    (2, "--supervision teacher needs one: --teacher MODEL", ["--supervision", "teacher"]),
    (2, "--teacher is for --supervision teacher", ["--supervision", "hard", "--teacher", "x.pt"]),
    (2, "--lambda is for --supervision teacher", ["--lambda", 0.5]),
    (2, "--label-smoothing is for hard labels: a teacher's are soft already", ["--label-smoothing", 0.1, "--teacher", "x.pt"]),
])
def test_flags_that_do_not_go_together(fkdb, tmp_path, code, message, flags):
    fkdb.fails(code, message, *RUN, *flags, "--out", tmp_path / "run")


def test_bad_lambda_and_missing_files(fkdb, teacher, tmp_path):
    fkdb.fails(2, "lambda 1.5: expected 0 to 1", *RUN, "--teacher", teacher, "--lambda", 1.5, "--out", tmp_path / "run")
    done = fkdb(*RUN, "--teacher", tmp_path / "none.pt", "--out", tmp_path / "run")
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "none.pt" in done.stderr
