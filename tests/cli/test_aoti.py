# SPDX-License-Identifier: Apache-2.0
"""Teachers that AOTInductor compiled: they label as the model does, and what does not fit is said before it computes garbage."""

import json
import os
import re
import zipfile
from pathlib import Path

import pytest
import torch
from PIL import Image
from test_teachers import MEAN, PHOTOS, STD, input_of
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

SIDE = 48
COMPILED = {"cpp.threads": 2}  # it is written into the code


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.first, self.second = torch.nn.Conv2d(3, 8, 3, stride=2), torch.nn.Conv2d(8, 16, 3, stride=2)
        self.norm, self.last = torch.nn.BatchNorm2d(8), torch.nn.Linear(16, 10)

    def forward(self, x):
        return self.last(self.second(self.norm(self.first(x)).relu()).relu().mean((2, 3))) * 20


class OfItsBatch(torch.nn.Module):
    """As a model in training mode: an image's output depends on the others."""

    def forward(self, x):
        y = x.mean(3)[:, 0]
        return y - y.mean(0)


def compiled(model, path, example, dynamic=True, card=None):
    shapes = ({0: torch.export.Dim("n")},) if dynamic else None
    with torch.no_grad():
        torch._inductor.aoti_compile_and_package(torch.export.export(model, (example,), dynamic_shapes=shapes), package_path=str(path),
                                                 inductor_configs=COMPILED)
    Path(f"{path}.json").write_text(json.dumps(card or {"input_size": [3, SIDE, SIDE]}))
    return path


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    model = Net().eval()
    model.norm.running_mean.normal_(0, 0.1)
    return model


@pytest.fixture(scope="module")
def package(net, tmp_path_factory):
    return compiled(net, tmp_path_factory.mktemp("aoti") / "t.pt2", torch.zeros(16, 3, SIDE, SIDE))


def made_with(package, out, *more):
    return ["write", "--images", PHOTOS, "--limit", 3, "--teacher", package, "--crops", 24, "--batch-size", 32, "--label", "logits", "--encoding", "f32",
            "--out", out, *more]


def copied(package, folder, card=None, change=None):
    """The package with another card, or with changed members; of the same name."""
    path = folder / package.name
    with zipfile.ZipFile(package) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as new:
        for name in old.namelist():
            data = old.read(name) if change is None else change(name, old.read(name))
            if data is not None:
                new.writestr(name, data)
    Path(f"{path}.json").write_text(json.dumps(card or {"input_size": [3, SIDE, SIDE]}))
    return path


def test_labels_are_pytorchs(net, package, fkdb, tmp_path):
    one, two = tmp_path / "one.fkdb", tmp_path / "two.fkdb"
    digest = fkdb.json(*made_with(package, one, "--threads", 1))["digest"]
    assert fkdb.json(*made_with(package, two, "--threads", 2))["digest"] == digest
    for ordinal in range(3):
        image = json.loads(fkdb.ok("dump", one, "--ordinal", ordinal, "--json"))
        photo = Image.open(PHOTOS / image["key"]).convert("RGB")
        x = torch.stack([F.normalize(F.to_tensor(input_of(photo, c, SIDE, InterpolationMode.BILINEAR)), MEAN, STD) for c in image["crops"]])
        with torch.inference_mode():
            z = net(x)
        assert z.std(0).max() > 0.1  # crops differ
        assert (z - torch.tensor([c["values"] for c in image["crops"]])).abs().max() < 1e-5 * z.abs().max()


def test_a_call_computes_on_its_own_thread(package, fkdb, tmp_path):
    """libgomp announces each thread of a team of several."""
    env = os.environ | {"OMP_DISPLAY_AFFINITY": "TRUE", "OMP_AFFINITY_FORMAT": "team of %N"}
    done = fkdb(*made_with(package, tmp_path / "a.fkdb", "--threads", 2), env=env)
    assert done.returncode == 0
    assert not re.search("team of [2-9]", done.stdout + done.stderr)


def test_dry_run(package, fkdb, tmp_path):
    assert "10" in fkdb.ok(*made_with(package, tmp_path / "a.fkdb", "--dry-run"))
    assert not list(tmp_path.iterdir())


def test_its_card_must_say_its_size(package, fkdb, tmp_path):
    path = copied(package, tmp_path)
    for card in (None, '{"mean": [0.5, 0.5, 0.5]}'):
        Path(f"{path}.json").unlink()
        if card:
            Path(f"{path}.json").write_text(card)
        fkdb.fails(2, f"teacher 't.pt2': compiled code takes inputs of a wrong size without a word: say in '{path}.json' what it was exported for, "
                   'e.g. {"input_size": [3, 224, 224]}', *made_with(path, tmp_path / "a.fkdb"))
        Path(f"{path}.json").touch()


def test_a_card_of_another_size(package, fkdb, tmp_path):
    for size in ([3, SIDE, SIDE + 1], [3, SIDE - 1, SIDE]):
        fkdb.fails(1, f"teacher 't.pt2': was exported for [N, 3, {SIDE}, {SIDE}] and its card says [N, 3, {size[1]}, {size[2]}]",
                   *made_with(copied(package, tmp_path, {"input_size": size}), tmp_path / "a.fkdb"))


def test_exported_otherwise(fkdb, tmp_path):
    class Flat(torch.nn.Module):
        def forward(self, x):
            return x.flatten(1)[:, :10].float() * 2

    ask = 'export it with dynamic_shapes=({0: torch.export.Dim("n")},)'
    path, out = tmp_path / "t.pt2", tmp_path / "a.fkdb"
    compiled(Flat(), path, torch.zeros(32, 3, SIDE, SIDE), dynamic=False)
    fkdb.fails(1, f"teacher 't.pt2': was exported for [32, 3, {SIDE}, {SIDE}], batches only, and is asked for batches of 16 to 32: {ask}", *made_with(path, out))
    # The same without the source that tells: what it computes tells.
    silent = tmp_path / "silent"
    silent.mkdir()
    path = copied(path, silent, change=lambda name, data: b"" if name.endswith(".cpp") else data)
    done = fkdb(*made_with(path, out))
    assert done.returncode == 1 and "expected [16, C]" in done.stderr and done.stderr.count("\n") == 1
    compiled(Flat(), path, torch.zeros(32, 3, SIDE, SIDE).to(memory_format=torch.channels_last))
    fkdb.fails(1, f"teacher 't.pt2': was exported for [N, 3, {SIDE}, {SIDE}] in another memory layout: export it with a contiguous input, channels first",
               *made_with(path, out))
    compiled(Flat(), path, torch.zeros(32, 3, SIDE, SIDE, dtype=torch.float16))
    fkdb.fails(1, "teacher 't.pt2': takes inputs of type float16, expected float32: convert them inside the model", *made_with(path, out))


def test_rows_that_depend_on_their_batch(fkdb, tmp_path):
    path = compiled(OfItsBatch(), tmp_path / "t.pt2", torch.zeros(16, 3, SIDE, SIDE))
    done = fkdb(*made_with(path, tmp_path / "a.fkdb"))
    assert done.returncode == 1 and done.stderr.count("\n") == 1
    assert re.search(r"teacher 't.pt2': gives other outputs, by up to [\d.]+, for images in a batch of 32 than for the same in one of 16: export the model in "
                     "eval mode, with a batch of any size", done.stderr)


def test_a_softmax_is_noticed(net, fkdb, tmp_path):
    path = compiled(torch.nn.Sequential(net, torch.nn.Softmax(1)), tmp_path / "t.pt2", torch.zeros(16, 3, SIDE, SIDE))
    done = fkdb(*made_with(path, tmp_path / "a.fkdb"))
    assert done.returncode == 1 and "teacher 't.pt2' gives probabilities, not logits" in done.stderr
    assert sorted(p.name for p in tmp_path.iterdir()) == ["t.pt2", "t.pt2.json"]


def test_of_another_machine(package, fkdb, tmp_path):
    def changed(field, value):
        def change(name, data):
            return json.dumps(json.loads(data) | {field: value}) if name.endswith("_metadata.json") else data
        return made_with(copied(package, tmp_path, change=change), tmp_path / "a.fkdb")

    here = os.uname().machine
    fkdb.fails(1, "teacher 't.pt2': was compiled for device 'cuda' and is asked to run on 'cpu': say --device cuda, or export it again for cpu",
               *changed("AOTI_DEVICE_KEY", "cuda"))
    fkdb.fails(1, f"teacher 't.pt2': was compiled for linux mips, and this is linux {here}: export it again on this kind of machine",
               *changed("AOTI_MACHINE", "mips"))
    if torch.cpu.get_capabilities().get("amx_tile") is False:
        fkdb.fails(1, "teacher 't.pt2': was compiled for a CPU with AVX2 AMX_TILE, and this one has no AMX_TILE: export it again on this kind of machine",
                   *changed("AOTI_CPU_ISA", "AVX2 AMX_TILE"))


def test_damaged_or_no_package(package, net, fkdb, tmp_path):
    path, out = tmp_path / "t.pt2", tmp_path / "a.fkdb"
    Path(f"{path}.json").write_text(json.dumps({"input_size": [3, SIDE, SIDE]}))
    before = set(Path("/tmp").iterdir())
    whole = package.read_bytes()
    for damaged in (b"", b"no zip", whole[:1000], whole[:-1], whole[: len(whole) // 2]):
        path.write_bytes(damaged)
        done = fkdb(*made_with(path, out))
        assert done.returncode == 1 and done.stderr.count("\n") == 1
        assert "teacher 't.pt2': expected a package made by torch._inductor.aoti_compile_and_package: " in done.stderr
    none = "teacher 't.pt2': no compiled model in it: expected a package made by torch._inductor.aoti_compile_and_package"
    torch.save(net.state_dict(), path)
    fkdb.fails(1, none, *made_with(path, out))
    torch.export.save(torch.export.export(net, (torch.zeros(16, 3, SIDE, SIDE),)), str(path))  # not compiled, of the same extension
    fkdb.fails(1, none, *made_with(path, out))
    copied(package, tmp_path, change=lambda name, data: None if name.endswith(".so") else data)
    fkdb.fails(1, none, *made_with(path, out))
    copied(package, tmp_path, change=lambda name, data: b"not code" if name.endswith(".so") else data)
    done = fkdb(*made_with(path, out))
    assert done.returncode == 1 and done.stderr.count("\n") == 1 and "teacher 't.pt2'" in done.stderr
    assert not out.exists()
    left = [p for p in set(Path("/tmp").iterdir()) - before if (p / "t/data/aotinductor").is_dir()]  # where Torch unpacks t.pt2
    assert not left


def test_autocast_is_for_gpus(package, net, fkdb, tmp_path):
    out, traced = tmp_path / "a.fkdb", tmp_path / "t.pt"
    torch.jit.trace(net, torch.zeros(16, 3, SIDE, SIDE)).save(str(traced))
    fkdb.fails(2, "--autocast: for teachers on a GPU; say --device cuda, or leave it out", *made_with(traced, out, "--autocast", "bf16"))
    for device in ("cpu", "cuda"):
        fkdb.fails(2, f"--autocast: the number type of '{package}' was compiled into it; leave --autocast out",
                   *made_with(package, out, "--device", device, "--autocast", "fp16"))
    done = fkdb(*made_with(package, out, "--autocast", "fp8"))
    assert done.returncode == 2 and "--autocast" in done.stderr
    assert not out.exists()
