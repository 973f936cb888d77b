# SPDX-License-Identifier: Apache-2.0
"""A build killed at 20 random moments and resumed has the digest of an undisturbed one."""

import random
import subprocess
import time

from conftest import BIN, TRAIN

KILLS = 20


def test_sigkill_at_random_moments(fkdb, teacher, tmp_path):
    seed = random.SystemRandom().randrange(1 << 32)
    print("seed", seed)  # shown when the test fails
    chance = random.Random(seed)
    common = ["--images", TRAIN, "--limit", 12000, "--teacher", teacher, "--crops", 16, "--threads", 1]
    whole = fkdb.json("write", *common, "--out", tmp_path / "whole.fkdb")
    longest = whole["seconds"] + 1

    kills, builds, progress = 0, 0, 0
    while kills < KILLS:
        out = tmp_path / f"{builds}.fkdb"
        builds += 1
        while not out.exists():
            writer = subprocess.Popen([BIN / "fkdb-write", *map(str, common), "--out", out, "--resume",
                                       "--commit-seconds", "0", "--quiet"])
            try:
                writer.wait(chance.uniform(0.3, longest * 0.6) if kills < KILLS else 600)
                assert writer.returncode == 0
            except subprocess.TimeoutExpired:
                writer.kill()
                writer.wait()
                kills += 1
                partial = out.with_name(out.name + ".partial")
                if partial.exists() and not out.exists():
                    shown = fkdb("dump", partial, "--json")  # whatever is there opens
                    assert shown.returncode == 0 or "is missing" in shown.stderr or "no database" in shown.stderr, shown.stderr
                    progress += shown.returncode == 0 and '"images":0' not in shown.stdout
        verified = fkdb.json("verify", out)
        assert verified["digest"] == whole["digest"]
    assert progress >= KILLS // 4, "the kills hit nothing that was under way"
