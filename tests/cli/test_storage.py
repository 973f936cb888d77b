# SPDX-License-Identifier: Apache-2.0
"""Disks that fill up, and several programs at one file."""

import json
import os
import re
import subprocess
import time

import pytest
from conftest import BIN, TRAIN


@pytest.fixture(scope="module")
def shards(fkdb, tmp_path_factory):
    """A label set of 400 images and its two halves."""
    folder = tmp_path_factory.mktemp("shards")
    whole = folder / "whole.fkdb"
    subprocess.run([BIN / "label_bench", "make", "--images", "400", "--crops", "50", "--out", whole], check=True, capture_output=True)
    keys = [json.loads(fkdb.ok("dump", whole, "--ordinal", i, "--json"))["key"] for i in range(400)]
    for part in range(2):
        (folder / f"{part}.txt").write_text("\n".join(keys[part::2]))
        fkdb.ok("subset", whole, folder / f"{part}.fkdb", "--images", folder / f"{part}.txt")
    return whole, folder / "0.fkdb", folder / "1.fkdb"


def test_a_disk_that_fills_up_at_every_stage(fkdb, shards, tmp_path):
    """One line, exit 1; with more room a resume completes it."""
    whole, *parts = shards
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4k", "none", disk], capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    subprocess.run(["umount", disk], check=True)
    stages = set()
    kib = whole.stat().st_size // 1024
    for size in [*range(4, 48, 4), *range(64, kib, 40), *range(kib - 28, kib + 1, 4)]:
        subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}k", "none", disk], check=True)
        try:
            out = disk / "out.fkdb"
            done = fkdb("merge", out, *parts, "--commit-seconds", 0)
            assert done.returncode == 1 and done.stderr.count("\n") == 1, (size, done)
            assert re.search("No space left on device|the disk is full", done.stderr), done.stderr
            assert not out.exists()
            stages.add(done.stderr)
            subprocess.run(["mount", "-o", "remount,size=10m", disk], check=True)
            assert fkdb.json("merge", out, *parts, "--resume")["digest"] == fkdb.json("dump", whole)["digest"]
        finally:
            subprocess.run(["umount", disk], check=True)
    assert len(stages) > 1


def test_readers_beside_a_writer(fkdb, teacher, tmp_path):
    """dump and audit of a `.partial` while it grows; a second writer is sent away with 5."""
    out = tmp_path / "l.fkdb"
    command = ["--images", TRAIN, "--limit", 20000, "--teacher", teacher, "--crops", 16, "--threads", 1, "--commit-seconds", 0,
               "--out", out]
    writer = subprocess.Popen([BIN / "fkdb-write", *map(str, command), "--quiet"])
    partial = tmp_path / "l.fkdb.partial"
    seen, refused = [], 0
    while writer.poll() is None:
        if not partial.exists():
            time.sleep(0.01)
            continue
        shown, counted = fkdb("dump", partial, "--json"), fkdb("audit", partial, "--json")
        if shown.returncode == counted.returncode == 0:
            seen.append(json.loads(shown.stdout)["counts"]["images"])
            assert json.loads(counted.stdout)["images"] >= seen[-1]
        second = fkdb("write", *command, "--resume")
        if second.returncode == 5:
            refused += 1
            assert second.stderr.count("\n") == 1
        else:
            assert out.exists(), second.stderr
    assert writer.returncode == 0
    assert seen == sorted(seen) and len(set(seen)) > 3 and refused > 3
    assert fkdb.json("verify", out)["images"] == 20000


def test_eight_readers_of_one_file_leave_nothing_behind(fkdb, shards, tmp_path):
    whole = shards[0]
    readers = [subprocess.Popen([BIN / "fkdb-verify", whole, "--json"], stdout=subprocess.PIPE, text=True) for _ in range(8)]
    digests = {json.loads(reader.communicate()[0])["digest"] for reader in readers}
    assert digests == {fkdb.json("dump", whole)["digest"]}
    assert sorted(os.listdir(whole.parent)) == sorted(p.name for p in whole.parent.iterdir() if p.suffix in (".fkdb", ".txt"))
