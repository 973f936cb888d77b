# SPDX-License-Identifier: Apache-2.0
"""Several processes train one student together, as torchrun and Slurm start them."""

import json
import os
import re
import signal
import subprocess

import numpy as np
import pytest
import torch
from conftest import BIN, TEST, TRAIN
from processes import free_port, ranks_of, torchrun, wait_for
from safetensors.numpy import load_file

SECONDS = 240


BASE = {"--images": TRAIN, "--limit": 601, "--model": "resnet6-w4", "--epochs": 6, "--batch-size": 32, "--crops-per-image": 2, "--lr": 0.05, "--threads": 1}


def arguments(out, *more):
    """A training of 37 steps a pass of two crops; the last of 601 images is left out of each pass."""
    return [BIN / "fkdb-train", *(part for flag, value in BASE.items() if flag not in more for part in (flag, value)), "--out", out, *more]


def run(command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=SECONDS, **options)
    done.said = [line for line in done.stderr.splitlines() if line.startswith("fkdb-train: ")]
    return done


def ok(command, **options):
    done = run(command, **options)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def parameters(out, file="weights.safetensors"):
    """Running statistics are rank 0's, of the batches that it saw."""
    return {name: tensor for name, tensor in load_file(out / file).items() if not re.search("running_|num_batches", name)}


def same(a, b):
    return a.keys() == b.keys() and all(np.array_equal(a[name], b[name]) for name in a)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """What two processes make of it, undisturbed."""
    out = tmp_path_factory.mktemp("whole") / "run"
    lines = ok(torchrun(2, arguments(out, "--val", TEST, "--json")))
    return out, lines


def test_float64_steps_of_two_processes_are_one_s(tmp_path):
    """Without batch statistics the mean of the halves' gradients is the whole's: 100 steps, within 1e-10."""
    ok([BIN / "parallel_steps", tmp_path / "one"])
    for processes in (2, 4):
        ok(torchrun(processes, [BIN / "parallel_steps", tmp_path / "many"]))
        one, many = load_file(tmp_path / "one"), load_file(tmp_path / "many")
        assert one["a.weight"].dtype == np.float64 and np.abs(one["a.weight"]).max() > 0.25
        assert max(np.abs(one[name] - many[name]).max() for name in one) < 1e-10


def test_two_processes_are_one_in_two_parts(whole, tmp_path):
    """To the bit: one process that computes both ranks' parts, each with its own batch statistics."""
    out, lines = whole
    one = ok(arguments(tmp_path / "one", "--accumulate", 2, "--val", TEST, "--json"))
    assert same(parameters(out), parameters(tmp_path / "one"))
    passes = [line for line in lines if "pass" in line]
    assert [line["loss"] for line in passes] == pytest.approx([line["loss"] for line in one if "pass" in line], rel=1e-12)
    assert [line["crops"] for line in passes] == [line["crops"] for line in one if "pass" in line] == [1200, 1200, 600, 600]
    assert not same(parameters(out), parameters_of_one_part(tmp_path))
    # Each evaluated half of the images: the counts are of all, by rank 0's statistics.
    weights = out / "weights.safetensors"
    assert lines[-1]["finished"] and 0.2 < lines[-1]["top1"] < lines[-1]["top5"] <= 1 and weights.exists()
    assert round(lines[-1]["top1"] * 10000, 6) == round(lines[-1]["top1"] * 10000)


def parameters_of_one_part(tmp_path):
    ok(arguments(tmp_path / "undivided"))
    return parameters(tmp_path / "undivided")


def test_every_option_at_once(tmp_path):
    """Parts within ranks, clipping of the average's norm, AdamW, a moving average.

    Twenty steps: four parts are summed in another order, and after 30 one rounded ReLU can have turned that into 1e-4."""
    more = ["--optimizer", "adamw", "--lr", 0.002, "--clip-norm", 0.5, "--ema-decay", 0.9, "--weight-decay", 0.05, "--no-decay-1d", "--max-steps", 20]
    ok(torchrun(2, arguments(tmp_path / "two", *more, "--accumulate", 2)))
    ok(arguments(tmp_path / "one", *more, "--accumulate", 4))
    a, b = (parameters(tmp_path / out, "checkpoint.safetensors") for out in ("two", "one"))
    names = [name for name in a if re.match("model|average|optimizer", name)]
    assert len(names) > 90 and a.keys() == b.keys(), sorted(a)
    assert max(np.abs(a[name] - b[name]).max() for name in names) < 1e-5


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_is_started_again_with_all_others(whole, tmp_path, victim):
    out, _ = whole
    launcher = subprocess.Popen(torchrun(2, arguments(tmp_path / "run", "--val", TEST, "--checkpoint-steps", 7, "--json"), "--max-restarts", 2),
                                stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "run" / "metrics.jsonl").exists, launcher)  # the first pass is done
    os.kill(ranks_of(launcher)[victim], signal.SIGKILL)
    stdout, stderr = launcher.communicate(timeout=SECONDS)
    assert launcher.returncode == 0, stderr
    assert same(parameters(tmp_path / "run"), parameters(out))
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [line["pass"] for line in lines] == [0, 1, 2, 3]


def test_a_restart_does_not_take_over_a_training_that_was_there(tmp_path):
    """What the first start refused, a later one does not resume."""
    ok(arguments(tmp_path / "run", "--accumulate", 2, "--max-steps", 3))
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    done = run(torchrun(2, arguments(tmp_path / "run"), "--max-restarts", 1))
    assert done.returncode != 0 and (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before
    assert sum("a training is there already" in line for line in done.said) == 2  # of either start


def test_parameters_that_a_step_leaves_out(tmp_path):
    class Net(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.extra, self.f = torch.nn.Parameter(torch.zeros(3)), torch.nn.Linear(784, 10)

        def forward(self, x):
            return self.f(x.flatten(1))

    torch.manual_seed(1)
    torch.jit.script(Net()).save(str(tmp_path / "net.pt"))
    ok(torchrun(2, arguments(tmp_path / "two", "--model", tmp_path / "net.pt", "--epochs", 2)))
    ok(arguments(tmp_path / "one", "--model", tmp_path / "net.pt", "--epochs", 2, "--accumulate", 2))
    assert same(parameters(tmp_path / "two"), parameters(tmp_path / "one"))


def test_stopped_and_resumed_by_another_number_of_processes(whole, tmp_path):
    out, _ = whole
    run_dir = tmp_path / "run"
    ok(torchrun(2, arguments(run_dir, "--max-steps", 30)))
    ok(arguments(run_dir, "--resume", "--accumulate", 2, "--max-steps", 60))
    done = run(torchrun(3, arguments(run_dir, "--resume", "--batch-size", 36)))
    assert done.returncode != 0 and any("batch_size was 32, now 36" in line for line in done.said), done.stderr
    ok(torchrun(2, arguments(run_dir, "--resume")))
    assert same(parameters(run_dir), parameters(out))


def test_sigterm_saves_and_ends_all(whole, tmp_path):
    out, _ = whole
    launcher = subprocess.Popen(torchrun(2, arguments(tmp_path / "run", "--val", TEST, "--json")), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "run" / "metrics.jsonl").exists, launcher)  # the first pass is done
    os.kill(ranks_of(launcher)[1], signal.SIGTERM)  # one that was told tells the other
    stdout, stderr = launcher.communicate(timeout=SECONDS)
    assert launcher.returncode == 0 and json.loads(stdout.splitlines()[-1])["finished"] is False, stderr
    assert not (tmp_path / "run" / "weights.safetensors").exists()
    ok(torchrun(2, arguments(tmp_path / "run", "--resume")))
    assert same(parameters(tmp_path / "run"), parameters(out))


def two(out, *more, of_rank=lambda rank: []):
    """Both processes started by hand, as srun would: what each said."""
    port = free_port()
    started = []
    for rank in range(2):
        environment = {**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
        started.append(subprocess.Popen([*map(str, arguments(out, *more, *of_rank(rank)))], env=environment, stdout=subprocess.PIPE,
                                        stderr=subprocess.PIPE, text=True))
    said = [process.communicate(timeout=SECONDS)[1] for process in started]
    return [process.returncode for process in started], said


def test_processes_with_other_flags_are_named(tmp_path):
    codes, said = two(tmp_path / "run", of_rank=lambda rank: ["--momentum", 0.8] if rank else [])
    assert said[1] == "fkdb-train: rank 1: momentum at rank 0 0.9, now 0.8\n" and codes[1] == 2
    assert said[0] == "fkdb-train: another process was started with another configuration, and has said which\n" and codes[0] == 6
    assert not (tmp_path / "run").exists()


def test_a_run_that_is_there_already_is_named_once(tmp_path):
    ok(arguments(tmp_path / "run", "--max-steps", 1))
    before = (tmp_path / "run" / "checkpoint.safetensors").read_bytes()
    codes, said = two(tmp_path / "run")
    assert said[0] == f"fkdb-train: {tmp_path}/run: a training is there already; --resume continues it, or choose another folder\n" and codes[0] == 1
    assert said[1] == "fkdb-train: rank 0 could not begin, and has said why\n" and codes[1] == 6
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == before


def test_a_loss_that_is_nan_ends_all(tmp_path):
    codes, said = two(tmp_path / "run", "--lr", 1e30)
    assert codes == [1, 1]
    assert all(re.fullmatch(r"fkdb-train: the loss is -?nan at step \d+ of epoch 0: a lower --lr may help; the last checkpoint is .*\n", line) for line in said), said


def test_who_is_left_alone_says_so(tmp_path):
    port = free_port()
    started = [subprocess.Popen([*map(str, arguments(tmp_path / "run", "--json", "--epochs", 200))], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)})
               for rank in range(2)]
    assert "pass" in json.loads(started[0].stdout.readline())
    started[1].kill()
    said = started[0].communicate(timeout=SECONDS)[1]
    assert started[0].returncode == 1 and said.count("\n") == 1
    assert said.startswith("fkdb-train: rank 0 of 2 has lost the others: one of them ended, and has said why (")


def test_the_share_of_a_process_is_a_whole_number_of_crops(tmp_path):
    codes, said = two(tmp_path / "run", "--batch-size", 33)
    assert said == ["fkdb-train: batches of 33 crops in 2 parts: expected parts of the same size\n"] * 2 and codes == [2, 2]
    done = run(arguments(tmp_path / "run", "--accumulate", 32))
    assert done.said == ["fkdb-train: batches of 32 crops in 32 parts: a part would be less than an image of 2 crops"]
