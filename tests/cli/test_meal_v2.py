# SPDX-License-Identifier: Apache-2.0
"""MEAL V2 (Table 4): from given weights, with teachers averaged after the softmax and its schedule; with FKD, without, and with its discriminator."""

import pathlib

import pytest
from conftest import TRAIN

DATA = ["--images", TRAIN, "--limit", 500]
RUN = ["train", *DATA, "--model", "resnet6-w4", "--config", "fkd-meal-v2", "--epochs", 12, "--step-epochs", 8, "--batch-size", 32, "--threads", 1]


@pytest.fixture(scope="module")
def begun(tmp_path_factory, fkdb):
    """The weights that a short training with hard labels gave."""
    out = tmp_path_factory.mktemp("begun")
    fkdb.ok("train", *DATA, "--model", "resnet6-w4", "--epochs", 6, "--batch-size", 32, "--lr", 0.05, "--threads", 1, "--out", out)
    return out / "weights.safetensors"


@pytest.fixture(scope="module")
def teachers(teacher, begun):
    return f"{teacher},resnet6-w4:{begun}"


@pytest.fixture(scope="module")
def ensemble(tmp_path_factory, fkdb, teachers):
    path = tmp_path_factory.mktemp("labels") / "full.fkdb"
    fkdb.ok("write", *DATA, "--teacher", teachers, "--crops", 8, "--batch-size", 32, "--label", "full", "--encoding", "f32", "--out", path)
    return path


def test_with_fkd_and_without(fkdb, begun, teachers, ensemble, tmp_path):
    fkd = fkdb.passes(*RUN, "--weights", begun, "--db", ensemble, "--out", tmp_path / "fkd")
    assert [p["crops_per_image"] for p in fkd] == [4, 4, 4]
    assert [p["lr"] for p in fkd] == pytest.approx([0.01, 0.01, 0.001])
    # Both teachers asked in every step, of the same crops, in batches of the same size: a teacher's last bits depend on it.
    online = fkdb.passes(*RUN, "--weights", begun, "--db", ensemble, "--teacher", teachers, "--out", tmp_path / "online")
    assert [p["loss"] for p in online] == pytest.approx([p["loss"] for p in fkd], rel=1e-3)
    # One of them is another label, and a fresh student another beginning.
    one = fkdb.passes(*RUN, "--weights", begun, "--db", ensemble, "--teacher", teachers.split(",")[0], "--out", tmp_path / "one")
    fresh = fkdb.passes(*RUN, "--db", ensemble, "--out", tmp_path / "fresh")
    assert abs(one[0]["loss"] - fkd[0]["loss"]) > 0.02
    assert fkd[0]["loss"] < fresh[0]["loss"] - 0.1
    longer = fkdb.passes(*RUN[:RUN.index("--config")], "--config", "fkd-meal-v2-cosine", "--epochs", 16, "--batch-size", 32, "--threads", 1, "--weights", begun,
                    "--db", ensemble, "--out", tmp_path / "cosine")
    rates = [p["lr"] for p in longer]
    assert len(rates) == 4 and rates[0] == 0.01 and rates == sorted(rates, reverse=True) and rates[-1] < 0.002


def test_its_discriminator(fkdb, begun, ensemble, tmp_path):
    run = [*RUN, "--weights", begun, "--db", ensemble]
    plain = fkdb.passes(*run, "--out", tmp_path / "plain")
    assert "discriminator_loss" not in plain[0]
    told = fkdb.passes(*run, "--discriminator-lr", 0.01, "--out", tmp_path / "told")
    losses = [p["discriminator_loss"] for p in told]
    assert 0 < losses[-1] < losses[0] < 1
    weights = {name: (tmp_path / name / "weights.safetensors").read_bytes() for name in ("plain", "told")}
    assert weights["plain"] != weights["told"]
    # It is told apart from a run without at a resume, and resumed to the bit with its momentum and its loss so far.
    fkdb.passes(*run, "--discriminator-lr", 0.01, "--out", tmp_path / "pieces", "--max-steps", 21)
    done = fkdb(*run, "--out", tmp_path / "pieces", "--resume")
    assert done.returncode == 2 and "cannot resume with another configuration: discriminator_rate was 0.01, now 0.0" in done.stderr
    pieces = fkdb.passes(*run, "--discriminator-lr", 0.01, "--out", tmp_path / "pieces", "--resume")
    assert (tmp_path / "pieces/weights.safetensors").read_bytes() == weights["told"]
    assert pieces[-1]["discriminator_loss"] == losses[-1]
    # In parts, bfloat16, and with mixed crops.
    more = fkdb.passes(*run, "--discriminator-lr", 0.01, "--accumulate", 2, "--autocast", "bf16", "--mixup", 0.2, "--out", tmp_path / "more")
    assert more[-1]["discriminator_loss"] == pytest.approx(losses[-1], abs=0.1)


def test_what_a_discriminator_cannot_be_told(fkdb, ensemble, tmp_path):
    discriminator = ["--discriminator-lr", 1e-4, "--out", tmp_path / "x"]
    fkdb.fails(2, "a discriminator needs a probability of every class: labels of kind 'hard' give most of them none",
               *RUN, "--supervision", "hard", *discriminator)
    renorm = tmp_path / "renorm.fkdb"
    fkdb.ok("subset", ensemble, renorm, "--recode", "marginal-renorm,top-k=2,packed")
    fkdb.fails(2, "a discriminator needs a probability of every class: labels of kind 'marginal-renorm' give most of them none",
               *RUN, "--db", renorm, *discriminator)
    fkdb.fails(2, "discriminator's learning rate -1: expected more than 0", *RUN, "--db", ensemble, "--discriminator-lr", -1, "--out", tmp_path / "x")
    assert not pathlib.Path(tmp_path / "x").exists()
