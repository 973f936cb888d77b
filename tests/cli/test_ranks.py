# SPDX-License-Identifier: Apache-2.0
"""Several processes label together, as torchrun and Slurm start them: the label set is that of one."""

import json
import os
import pathlib
import random
import re
import signal
import subprocess
import sys
import time

import pytest
from conftest import BIN, TRAIN
from processes import free_port, ranks_of, torchrun

SECONDS = 240  # for what should take ten


def arguments(teacher, out, *more):
    return [BIN / "fkdb-write", "--images", TRAIN, "--limit", 9000, "--teacher", teacher, "--crops", 16, "--out", out,
            "--commit-seconds", 0, *more]


def run(command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=SECONDS, **options)
    done.said = [line for line in done.stderr.splitlines() if line.startswith("fkdb-write: ")]
    return done


@pytest.fixture(scope="module")
def one(fkdb, teacher, tmp_path_factory):
    """What one process makes."""
    out = tmp_path_factory.mktemp("one") / "one.fkdb"
    done = run(arguments(teacher, out, "--json"))
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def left(folder):
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("processes", [1, 2, 4])
def test_any_number_of_processes_labels_the_same(one, fkdb, teacher, tmp_path, processes):
    out = tmp_path / "many.fkdb"
    done = run(torchrun(processes, arguments(teacher, out, "--json", "--progress", "json")))
    assert done.returncode == 0, done.stderr
    made = json.loads(done.stdout)  # one process speaks for all
    assert made["digest"] == one["digest"] and made["crops"] == one["crops"]
    assert left(tmp_path) == ["many.fkdb"]
    assert fkdb.json("verify", out)["ok"]
    events = [json.loads(line) for line in done.stderr.splitlines() if line.startswith("{")]
    assert events[0]["event"] == "plan" and events[-1]["images"] == 9000 and events[-1]["crops"] == 9000 * 16


def test_shards_that_stay(one, fkdb, teacher, tmp_path):
    out = tmp_path / "many.fkdb"
    done = run(torchrun(2, arguments(teacher, out, "--collection", "--json")))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == one["digest"]
    assert left(tmp_path) == ["many.fkdb", "many.shard-00000.fkdb", "many.shard-00001.fkdb"]
    assert fkdb.json("verify", out)["digest"] == one["digest"]
    assert fkdb.json("merge", tmp_path / "merged.fkdb", out)["digest"] == one["digest"]


def begin(command):
    """The job, some way into its work."""
    launcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    until = time.monotonic() + SECONDS
    for line in launcher.stderr:
        assert time.monotonic() < until
        if line.startswith('{"event":"progress"') and json.loads(line)["images"] > 500:
            return launcher
    raise AssertionError(launcher.wait())


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_is_started_again_with_all_others(one, fkdb, teacher, tmp_path, victim):
    out = tmp_path / "many.fkdb"
    launcher = begin(torchrun(2, arguments(teacher, out, "--threads", 1, "--json", "--progress", "json"), "--max-restarts", 2))
    time.sleep(random.uniform(0, 0.15 * one["seconds"]))
    os.kill(ranks_of(launcher)[victim], signal.SIGKILL)
    stdout, stderr = launcher.communicate(timeout=SECONDS)
    assert launcher.returncode == 0, stderr
    made = json.loads(stdout)
    assert made["digest"] == one["digest"]
    assert made["crops_labelled"] < one["crops"], "what was committed was not labelled again"
    assert left(tmp_path) == ["many.fkdb"]


def test_a_killed_job_is_resumed_by_any_number_of_processes(one, fkdb, teacher, tmp_path):
    out = tmp_path / "many.fkdb"
    launcher = begin(torchrun(2, arguments(teacher, out, "--threads", 1, "--progress", "json")))
    os.kill(ranks_of(launcher)[1], signal.SIGKILL)
    launcher.communicate(timeout=SECONDS)
    assert launcher.returncode != 0 and not out.exists()

    again = run(torchrun(1, arguments(teacher, out)))
    assert again.said == [f"fkdb-write: {out}.job: an interrupted build is there; --resume continues it, --overwrite throws it away"]
    alone = run(arguments(teacher, out, "--resume"))
    assert alone.returncode == 2 and "several processes began this label set" in alone.said[0]
    other = run(torchrun(1, arguments(teacher, out, "--resume", "--top-k", 3)))
    assert "cannot resume with another recipe: labels.top_k: 5 in the file, 3 asked for" in other.said[0]
    done = run(torchrun(3, arguments(teacher, out, "--resume", "--json")))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == one["digest"]
    assert left(tmp_path) == ["many.fkdb"]


def processes_of(kinds, teacher, out, *more, of_rank=lambda rank: []):
    """Without torchrun: each told its place by the variables of a launcher."""
    names = {"slurm": ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS"), "mpi": ("OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_SIZE")}[kinds]
    environment = os.environ | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), names[1]: "2"}
    return [subprocess.Popen([*map(str, arguments(teacher, out, "--threads", 1, *more, *of_rank(rank)))], env=environment | {names[0]: str(rank)},
                             stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) for rank in range(2)]


@pytest.mark.parametrize("kinds", ["slurm", "mpi"])
def test_processes_of_other_launchers_find_each_other(one, teacher, tmp_path, kinds):
    running = processes_of(kinds, teacher, tmp_path / "many.fkdb", "--json")
    said = [process.communicate(timeout=SECONDS) for process in running]
    assert [process.returncode for process in running] == [0, 0], said
    assert json.loads(said[0][0])["digest"] == one["digest"] and said[1][0] == ""


def test_a_process_with_other_flags_stops_all(teacher, tmp_path):
    running = processes_of("slurm", teacher, tmp_path / "many.fkdb", of_rank=lambda rank: ["--seed", rank])
    said = [process.communicate(timeout=SECONDS)[1] for process in running]
    assert said[1] == ("fkdb-write: rank 1: rank 1 was asked for something else than rank 0: augmentation.seed: 0 of rank 0, "
                       "1 of this process\n")
    assert running[1].returncode == 2
    assert said[0].startswith("fkdb-write: rank 0: stopped, as another process failed (rank 1: ") and said[0].count("\n") == 1
    assert running[0].returncode == 6


def test_a_bad_teacher_of_one_process_stops_all(teacher, tmp_path):
    broken = tmp_path / "broken.pt"
    broken.write_bytes(b"no network")
    running = processes_of("slurm", teacher, tmp_path / "many.fkdb", of_rank=lambda rank: ["--teacher-weights", "1,2"] if rank else [])
    said = [process.communicate(timeout=SECONDS)[1] for process in running]
    assert running[1].returncode == 2 and running[0].returncode == 6, said
    running = [*processes_of("slurm", broken, tmp_path / "many.fkdb")]
    said = [process.communicate(timeout=SECONDS)[1] for process in running]
    for rank in range(2):
        assert running[rank].returncode == 1 and "not a TorchScript file" in said[rank] and said[rank].count("\n") == 1
    assert not (tmp_path / "many.fkdb").exists()


def test_a_full_disk_in_one_process_loses_nothing(one, teacher, tmp_path):
    out = tmp_path / "many.fkdb"
    # No file of rank 1 may become larger than 300 KiB.
    script = tmp_path / "limited.sh"
    script.write_text('#!/bin/bash\nif [ "$RANK" = 1 ]; then trap "" XFSZ; ulimit -f 300; fi\nexec "$@"\n')
    script.chmod(0o755)
    done = run(torchrun(2, [script, *arguments(teacher, out, "--threads", 1)]))
    assert done.returncode != 0 and not out.exists()
    assert any("rank 1: " in line and ("the disk is full" in line or "File too large" in line) for line in done.said), done.stderr
    done = run(torchrun(2, arguments(teacher, out, "--resume", "--json")))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["digest"] == one["digest"]


def test_two_jobs_on_one_output(teacher, one, tmp_path):
    out = tmp_path / "many.fkdb"
    first = begin(torchrun(2, arguments(teacher, out, "--threads", 1, "--json", "--progress", "json")))
    for process in ranks_of(first).values():  # so that it is not done before the others begin
        os.kill(process, signal.SIGSTOP)
    for command in [torchrun(2, arguments(teacher, out, "--overwrite")), arguments(teacher, out, "--overwrite")]:
        second = run(command)
        assert second.returncode != 0
        assert any("another writer is at work on this label set" in line for line in second.said), second.stderr
    for process in ranks_of(first).values():
        os.kill(process, signal.SIGCONT)
    stdout, stderr = first.communicate(timeout=SECONDS)
    assert first.returncode == 0, stderr
    assert json.loads(stdout)["digest"] == one["digest"]


def test_what_a_launcher_must_say(teacher, tmp_path):
    def fails(message, **variables):
        done = run(arguments(teacher, tmp_path / "out.fkdb"), env=os.environ | variables)
        assert done.returncode == 2 and message in done.stderr and done.stderr.count("\n") == 1, done.stderr

    fails("2 processes were started together (SLURM_STEP_NUM_TASKS), but MASTER_ADDR is not set", SLURM_PROCID="0", SLURM_STEP_NUM_TASKS="2")
    fails("RANK is set, and WORLD_SIZE is not: a launcher sets both", RANK="0")
    fails("RANK=2 of WORLD_SIZE=2: ranks begin at 0", RANK="2", WORLD_SIZE="2", MASTER_ADDR="127.0.0.1")
    fails("WORLD_SIZE='two': expected a number from 1 on", RANK="0", WORLD_SIZE="two")
    done = run([*arguments(teacher, tmp_path / "out.fkdb"), "--collection"])
    assert done.returncode == 2 and "--collection: one process writes one file" in done.stderr


def test_the_guides_slurm_script(one, teacher, tmp_path):
    """As it stands there, but for the images, the teacher and the GPU; srun and scontrol are stand-ins that start two processes here."""
    guide = (pathlib.Path(__file__).resolve().parents[2] / "writer/README.md").read_text()
    script = re.search(r"```bash\n(#!/bin/bash\n#SBATCH.*?)```", guide, re.DOTALL).group(1)
    line = next(line for line in script.splitlines() if line.startswith("srun "))
    flags = re.search(r"fkdb-write (.*)", line).group(1)
    ours = flags.replace("train/", str(TRAIN)).replace("teacher.pt", teacher).replace("--device cuda --threads 8", "--limit 9000 --crops 16 --threads 1")
    assert ours.count("--") == flags.count("--") + 1
    commands = tmp_path / "bin"
    commands.mkdir()
    (commands / "scontrol").write_text("#!/bin/bash\n[ \"$*\" = 'show hostnames here,there' ] && printf '127.0.0.1\\nthere\\n'\n")
    (commands / "srun").write_text("#!/bin/bash\n[ \"$1\" = --kill-on-bad-exit=1 ] || exit 9\nshift\nexport SLURM_STEP_NUM_TASKS=2\nSLURM_PROCID=1 \"$@\" &\n"
                                   "SLURM_PROCID=0 \"$@\" && wait %1\n")
    for command in commands.iterdir():
        command.chmod(0o755)
    environment = os.environ | {"PATH": f"{commands}:{BIN.resolve()}:{os.environ['PATH']}", "SLURM_JOB_NODELIST": "here,there"}
    job = tmp_path / "job.sh"
    job.write_text(script.replace(flags, ours).replace("29500", str(free_port())))
    done = run(["bash", "-e", job], cwd=tmp_path, env=environment)
    assert done.returncode == 0, done.stderr
    assert one["digest"] in done.stdout
    assert left(tmp_path) == ["bin", "job.sh", "labels.fkdb"]
