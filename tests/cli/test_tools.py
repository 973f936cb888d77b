# SPDX-License-Identifier: Apache-2.0
"""What each program prints for good input."""

import json
import pathlib
import shutil
import signal
import subprocess
import tarfile
import time

import pytest
from conftest import BIN, TEST, TRAIN
from processes import wait_for

GOLDEN = pathlib.Path(__file__).parent.parent / "golden/pillow"

KINDS = ["full", "hard", "smoothing", "marginal-smoothing", "marginal-renorm", "logits"]


@pytest.mark.parametrize("tool", ["write", "convert", "dump", "audit", "verify", "merge", "share", "subset", "train"])
def test_version_and_help(fkdb, tool):
    assert fkdb.ok(tool, "--version").startswith(f"fkdb-{tool} 0.")
    assert f"Usage: fkdb-{tool}" in fkdb.ok(tool, "--help")


@pytest.mark.parametrize("encoding", ["f32", "f16", "packed"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_from_teacher_to_dump(fkdb, teacher, tmp_path, kind, encoding):
    path = tmp_path / "l.fkdb"
    made = fkdb.json("write", "--images", TRAIN, "--limit", 20, "--teacher", teacher, "--crops", 3, "--label", kind,
                     "--encoding", encoding, "--out", path)
    assert made["images"] == 20 and made["crops"] == 60 and made["digest"].startswith("sha256:")
    tau = ["--tau", 2] if kind == "logits" else []
    image = fkdb.json("dump", path, "--image", "00007", "--dense", *tau)
    assert list(image) == ["key", "ordinal", "width", "height", "class", "kind", "box_unit", "crops"]
    assert image["key"] == "00007" and image["ordinal"] == 7 and image["kind"] == kind and image["box_unit"] == "pixel"
    assert (image["width"], image["height"]) == (28, 28) and image["class"] == 2
    sparse = kind in ("hard", "smoothing", "marginal-smoothing", "marginal-renorm")
    for crop in image["crops"]:
        top, left, height, width = crop["box"]
        assert 0 <= top and 0 <= left and top + height <= 28 and left + width <= 28
        assert crop["ops"] == [] and isinstance(crop["flip"], bool)
        assert ("indices" in crop) == sparse
        assert len(crop["dense"]) == 10 and abs(sum(crop["dense"]) - 1) < 1e-5
        assert kind != "hard" or crop["values"] == [1]
    assert fkdb.json("dump", path, "--ordinal", 7, "--dense", *tau) == image
    assert fkdb.json("dump", path, "--image", "00007", "--dense", "--crop", 1, *tau)["crops"] == image["crops"][1:2]
    verified = fkdb.json("verify", path)
    assert verified == {"ok": True, "images": 20, "crops": 60, "digest": made["digest"], "errors": [], "error_count": 0}
    audit = fkdb.json("audit", path)
    assert audit["file_bytes"] == path.stat().st_size == sum(audit["parts"].values())
    assert audit["bytes_per_crop"] == pytest.approx(path.stat().st_size / 60)


def test_manifest(fkdb, labels):
    manifest = fkdb.json("dump", labels)
    assert manifest["format"] == "fkdb" and manifest["format_version"] == 1 and manifest["complete"]
    assert manifest["labels"] == {"kind": "marginal-smoothing", "num_classes": 10, "top_k": 5, "boxes": "pixel",
                                  "values": "packed", "temperature": 1.0}
    assert manifest["counts"] == {"images": 500, "crops": 2000, "skipped": 0}
    assert manifest["augmentation"]["mean"] == [0.449] and manifest["augmentation"]["input_height"] == 28
    first = fkdb.ok("dump", labels).splitlines()[0]
    assert first == (f"{labels}: 500 images, 4 crops an image, marginal-smoothing labels of 10 classes (top 5), "
                     "boxes pixel, values packed")
    assert fkdb.ok("dump", labels, "--image", "00007").splitlines()[0] == \
        '"00007" (image 7): 28 x 28 pixels, class 2, 4 crops, marginal-smoothing'


def test_lmdbs_own_tools_read_it(labels):
    listed = subprocess.run(["mdb_stat", "-a", "-n", labels], capture_output=True, text=True, check=True).stdout
    assert "blocks" in listed and "meta" in listed and "names" in listed


def test_digests_do_not_depend_on_threads(fkdb, teacher, tmp_path):
    digests = set()
    for threads in (1, 2, 3):
        digests.add(fkdb.json("write", "--images", TRAIN, "--limit", 700, "--teacher", teacher, "--crops", 4,
                              "--threads", threads, "--commit-seconds", threads - 1, "--out",
                              tmp_path / f"{threads}.fkdb")["digest"])
    assert len(digests) == 1
    assert fkdb("verify", tmp_path / "1.fkdb", "--against", tmp_path / "3.fkdb").returncode == 0
    fkdb.ok("write", "--images", TRAIN, "--limit", 700, "--teacher", teacher, "--crops", 4, "--seed", 1, "--out",
            tmp_path / "other.fkdb")
    assert fkdb("verify", tmp_path / "1.fkdb", "--against", tmp_path / "other.fkdb").returncode == 3


def test_ctrl_c_stops_and_resume_continues(fkdb, teacher, tmp_path):
    path = tmp_path / "l.fkdb"
    command = ["--images", TRAIN, "--limit", 30000, "--teacher", teacher, "--crops", 16, "--threads", 1, "--out", path]
    writer = subprocess.Popen([BIN / "fkdb-write", *map(str, command)], stderr=subprocess.PIPE, text=True)
    partial = path.with_name("l.fkdb.partial")
    wait_for(partial.exists, writer)
    time.sleep(0.5)
    writer.send_signal(signal.SIGINT)
    _, stderr = writer.communicate(timeout=60)
    assert writer.returncode == 6, stderr
    assert "the same command with --resume continues" in stderr
    # What is there can be looked at.
    listed = fkdb.ok("dump", partial)
    assert "not finished, " in listed.splitlines()[0]
    done = json.loads(fkdb.ok("dump", partial, "--json"))["counts"]["images"]
    assert 0 < done < 30000
    assert fkdb.json("audit", partial)["images"] == done
    assert fkdb.json("dump", partial, "--image", "00000")["key"] is None
    fkdb.fails(6, f"{path}: not finished: only {partial} is there; finish it with fkdb-write --resume", "audit", path)
    assert fkdb.json("write", *command, "--resume")["images"] == 30000
    assert not partial.exists()
    assert [p.name for p in tmp_path.iterdir()] == ["l.fkdb"]


def test_training_from_labels_and_without(fkdb, labels, tmp_path):
    common = ["--images", TRAIN, "--limit", 500, "--val", TEST, "--model", "resnet6-w4", "--epochs", 4, "--batch-size", 50]
    results = {}
    for name, more in (("db", ["--db", labels, "--crops-per-image", 2]), ("hard", [])):
        done = fkdb("train", *common, *more, "--out", tmp_path / name, "--json")
        assert done.returncode == 0, done.stderr
        *metrics, results[name] = [json.loads(line) for line in done.stdout.splitlines()]
        assert [m["crops_per_image"] for m in metrics] == ([2, 1, 1] if name == "db" else [1] * 4)
        assert metrics[-1]["epoch"] == 4 and metrics[-1]["loss"] < metrics[0]["loss"]
        assert [json.loads(line) for line in open(tmp_path / name / "metrics.jsonl")] == metrics
        assert results[name]["finished"] and results[name]["top1"] == metrics[-1]["top1"]
        assert sum(m["crops"] for m in metrics) == 4 * 500
    assert results["db"]["weights"] == str(tmp_path / "db/weights.safetensors")


def test_table2_is_the_papers(fkdb):
    """Table 2 for ImageNet: 5.3, 6.2, 13.3, 22.2 GB and 0.9 TB, ReLabel's maps 10 GB and 1 TB, of which ours are the GiB."""
    rows = fkdb.ok("audit", "--table2-for", "1200000,200,1000").splitlines()[1:]
    assert [" ".join(row.split()[-3:-1]) for row in rows] == ["5.36 GiB", "6.26 GiB", "13.41 GiB", "22.35 GiB", "898.54 GiB", "10.06 GiB", "1005.83 GiB"]


def test_audit_says_what_the_labels_are_like(fkdb, labels):
    audit = fkdb.json("audit", labels)
    teacher = audit["teacher"]
    assert sum(teacher["entropy_histogram"]) == audit["crops"] == 2000
    seen, indices = {}, {}
    for ordinal in range(500):
        image = fkdb.json("dump", labels, "--ordinal", ordinal)
        for crop in image["crops"]:
            seen[crop["indices"][0]] = seen.get(crop["indices"][0], 0) + 1
            indices.setdefault(ordinal, set()).update(crop["indices"])
    assert teacher["classes_seen"] == len(seen)
    assert teacher["crops_per_class"] == {"fewest": min(seen.values()), "median": sorted(seen.values())[len(seen) // 2],
                                          "most": max(seen.values())}
    assert teacher["distinct_classes_per_image"] == pytest.approx(sum(map(len, indices.values())) / 500)
    assert teacher["duplicate_images"] == 0
    assert audit["projection"]["ImageNet-1K"]["bytes"] == pytest.approx(1281167 * 4 * audit["bytes_per_crop"])


def test_logits_are_not_packed_unless_asked(fkdb, teacher, tmp_path):
    for encoding, stored in (([], "f16"), (["--encoding", "bf16"], "bf16"), (["--encoding", "packed"], "packed")):
        path = tmp_path / f"{stored}.fkdb"
        fkdb.ok("write", "--images", TRAIN, "--limit", 5, "--teacher", teacher, "--crops", 2, "--label", "logits", *encoding,
                "--out", path)
        assert fkdb.json("dump", path)["labels"]["values"] == stored
        assert fkdb.json("verify", path)["ok"]


def test_shards_merge_to_the_label_set_of_one_run(fkdb, teacher, labels, tmp_path):
    """Three parts of a label set, taken out and joined again, are that label set."""
    keys = [f"{i:05}" for i in range(500)]
    parts = []
    for part in range(3):
        (tmp_path / "keys.txt").write_text("\n".join(keys[part::3]))
        parts.append(tmp_path / f"{part}.fkdb")
        made = fkdb.json("subset", labels, parts[-1], "--images", tmp_path / "keys.txt")
        assert made["images"] == len(keys[part::3]) and made["crops"] == 4 * made["images"]
    merged = tmp_path / "merged.fkdb"
    assert fkdb.json("merge", merged, *parts)["digest"] == fkdb.json("dump", labels)["digest"]
    assert fkdb.json("verify", merged, "--against", labels)["ok"]
    fkdb.fails(1, f"{merged}: exists already; choose another name, or --overwrite to replace it", "merge", merged, *parts)
    fkdb.fails(7, f"image '00000' is in both {parts[0]} and {labels}", "merge", tmp_path / "no.fkdb", parts[0], labels)


def test_a_collection_is_the_label_set_of_its_shards(fkdb, labels, tmp_path):
    """An index file over three shards: every program takes it for the label set they are parts of."""
    whole, shards = fkdb.json("dump", labels), tmp_path / "shards"
    shards.mkdir()
    parts = []
    for part in range(3):
        (tmp_path / "keys.txt").write_text("\n".join(f"{i:05}" for i in range(part, 500, 3)))
        parts.append(shards / f"{part}.fkdb")
        fkdb.ok("subset", labels, parts[-1], "--images", tmp_path / "keys.txt")
    out = shards / "all.fkdb"
    made = fkdb.json("merge", out, *parts, "--collection")
    files = sum(path.stat().st_size for path in shards.iterdir())
    assert (made["images"], made["crops"], made["digest"], made["file_bytes"]) == (500, 2000, whole["digest"], files)
    manifest = fkdb.json("dump", out)
    assert manifest["counts"] == whole["counts"] and manifest["data_set"] == whole["data_set"]
    assert [shard["file"] for shard in manifest["shards"]] == [str(part) for part in parts]
    assert fkdb.ok("dump", out).startswith(f"{out}: 500 images in 3 files, 4 crops an image, marginal-smoothing labels")
    for i in (0, 7, 250, 499):
        assert fkdb.json("dump", out, "--image", f"{i:05}") == fkdb.json("dump", labels, "--ordinal", i)
    assert fkdb.json("verify", out, "--against", labels)["ok"]
    audit = fkdb.json("audit", out)
    assert audit["file_bytes"] == sum(audit["parts"].values()) == files
    assert audit["teacher"] == fkdb.json("audit", labels)["teacher"]
    for name, db in (("one", labels), ("three", out)):
        fkdb.ok("train", "--images", TRAIN, "--limit", 500, "--db", db, "--model", "resnet6-w4", "--epochs", 2,
                "--crops-per-image", 2, "--out", tmp_path / name)
    assert (tmp_path / "one/weights.safetensors").read_bytes() == (tmp_path / "three/weights.safetensors").read_bytes()

    shards.rename(tmp_path / "moved")
    out = tmp_path / "moved/all.fkdb"
    assert fkdb.json("verify", out)["digest"] == whole["digest"]
    text = out.read_text()
    out.write_text(text.replace("0.fkdb", "2.fkdb"))
    fkdb.fails(3, f"{out}: collection: its checksum does not match: the index was damaged or edited; fkdb-merge --collection "
                  "makes it anew", "dump", out)
    out.write_text(text)
    (tmp_path / "moved/1.fkdb").unlink()
    fkdb.fails(1, f"{out}: {tmp_path}/moved/1.fkdb: no such file", "audit", out)


def test_crops_appended_to_a_label_set(fkdb, teacher, labels, tmp_path):
    """More crops for the same images: the recipe is that of the label set, the old crops stay as they are."""
    out = tmp_path / "more.fkdb"
    command = ["write", "--images", TRAIN, "--teacher", teacher, "--append-crops", labels, "--crops", 3, "--out", out]
    made = fkdb.json(*command, "--limit", 500)
    assert (made["images"], made["crops"]) == (500, 3500)
    manifest = fkdb.json("dump", out)
    assert manifest["extends"] == fkdb.json("dump", labels)["digest"] and manifest["augmentation"]["crops"] == 7
    old, new = fkdb.json("dump", labels, "--image", "00007"), fkdb.json("dump", out, "--image", "00007")
    assert new["crops"][:4] == old["crops"] and len(new["crops"]) == 7
    assert fkdb.json("verify", out)["ok"]
    first = tmp_path / "first.fkdb"
    assert fkdb.json("subset", out, first, "--crops", 4)["digest"] == manifest["extends"]
    out.unlink()
    fkdb.fails(2, f"{labels}: cannot append to it: labels.top_k: 5 in the file, 3 asked for", *command, "--limit", 500, "--top-k", 3)
    fkdb.fails(7, f"{labels}: cannot append to it: 100 of 500 labelled images are missing, first '00400'",
               *command, "--limit", 400)
    assert not list(tmp_path.glob("more*"))


def test_a_subset_of_crops_in_another_kind(fkdb, labels, tmp_path):
    whole = fkdb.json("dump", labels, "--image", "00007")
    out = tmp_path / "hard.fkdb"
    made = fkdb.json("subset", labels, out, "--crops", 2, "--recode", "hard")
    assert (made["images"], made["crops"]) == (500, 1000)
    image = fkdb.json("dump", out, "--image", "00007")
    assert image["kind"] == "hard" and len(image["crops"]) == 2
    for hard, soft in zip(image["crops"], whole["crops"]):
        assert hard["box"] == soft["box"] and hard["flip"] == soft["flip"] and hard["indices"] == soft["indices"][:1]
    fkdb.fails(2, "full (packed) labels cannot be derived from hard (packed) labels: they do not hold enough", "subset", out,
               tmp_path / "no.fkdb", "--recode", "full")
    (tmp_path / "keys.txt").write_text("00001\nnobody\n")
    fkdb.fails(1, f"{out}: no image 'nobody' in it", "subset", out, tmp_path / "no.fkdb", "--images", tmp_path / "keys.txt")
    assert not list(tmp_path.glob("no.fkdb*"))


@pytest.mark.parametrize("layout", ["USTAR", "GNU", "PAX"])
def test_tar_shards_are_the_folder_they_were_made_of(fkdb, tmp_path, layout):
    torch = pytest.importorskip("torch")
    teacher = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 2))
    torch.jit.trace(teacher, torch.zeros(2, 3, 32, 32)).save(str(tmp_path / "t.pt"))
    folder, shards = tmp_path / "images", tmp_path / "shards"
    shards.mkdir()
    for i in range(24):
        deep = folder / "ab"[i % 2] / ("x" * 60) / ("long" * 12 if i % 3 else "y")
        deep.mkdir(parents=True, exist_ok=True)
        shutil.copy(GOLDEN / ["444.jpg", "420.jpg", "rgb.png", "cmyk.jpg"][i % 4], deep / f"{i:02}.{'png' if i % 4 == 2 else 'jpg'}")
    for n in range(3):
        with tarfile.open(shards / f"{n}.tar", "w", format=getattr(tarfile, f"{layout}_FORMAT")) as tar:
            for path in sorted(folder.rglob("*.*"))[n::3]:
                tar.add(path, arcname=path.relative_to(folder))
    for name, images in (("f", folder), ("s", shards)):
        fkdb.ok("write", "--images", images, "--teacher", tmp_path / "t.pt", "--crops", 3, "--top-k", 2, "--input-size", 32,
                "--out", tmp_path / f"{name}.fkdb")
    assert fkdb("verify", tmp_path / "s.fkdb", "--against", tmp_path / "f.fkdb").returncode == 0
    weights = []
    for images in (folder, shards):
        fkdb.ok("train", "--images", images, "--db", tmp_path / "f.fkdb", "--model", "resnet6-w4", "--epochs", 3, "--crops-per-image",
                2, "--batch-size", 8, "--threads", 1, "--out", tmp_path / images.name / "run", "--val", images, "--val-resize", 36,
                "--val-crop", 32)
        weights.append((tmp_path / images.name / "run/weights.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_the_order_of_passes_is_the_label_sets(fkdb, tmp_path):
    torch = pytest.importorskip("torch")
    teacher = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(2), torch.nn.Flatten(), torch.nn.Linear(12, 2))
    torch.jit.trace(teacher, torch.zeros(2, 3, 16, 16)).save(str(tmp_path / "t.pt"))
    for i in range(8):
        (tmp_path / "images" / "ab"[i % 2]).mkdir(parents=True, exist_ok=True)
        shutil.copy(GOLDEN / "444.jpg", tmp_path / "images" / "ab"[i % 2] / f"{i}.jpg")
    digests = []
    for order in ("pillow-integer-horizontal-first", "pillow-integer-13"):
        path = tmp_path / f"{order}.fkdb"
        command = ["--images", tmp_path / "images", "--teacher", tmp_path / "t.pt", "--crops", 8, "--top-k", 2, "--input-size", 16,
                   "--encoding", "f32"]
        digests.append(fkdb.json("write", *command, "--resampling", order, "--out", path)["digest"])
        manifest = fkdb.json("dump", path)
        assert manifest["augmentation"]["resampling"] == order and manifest["augmentation"]["wide_samples"] == "high-byte"
        fkdb.ok("train", "--images", tmp_path / "images", "--db", path, "--model", "resnet6-w4", "--epochs", 8, "--batch-size", 8,
                "--threads", 1, "--out", tmp_path / f"{order}.run")
    assert digests[0] != digests[1]
    weights = [(tmp_path / f"{order}.run/weights.safetensors").read_bytes()
               for order in ("pillow-integer-horizontal-first", "pillow-integer-13")]
    assert weights[0] != weights[1]


def test_progress_as_json_lines(fkdb, teacher, tmp_path):
    """One that plans, at least one of progress, of which the last says that all is done; then the result on stdout."""
    done = fkdb("write", "--images", TRAIN, "--limit", 200, "--teacher", teacher, "--crops", 10, "--out", tmp_path / "l.fkdb", "--json",
                "--progress", "json")
    assert done.returncode == 0
    plan, *progress = [json.loads(line) for line in done.stderr.splitlines()]
    assert plan["event"] == "plan" and (plan["images"], plan["crops"]) == (200, 2000) and plan["projected_bytes"] > 2000
    assert progress and {p["event"] for p in progress} == {"progress"}
    last = progress[-1]
    assert (last["crops"], last["all_crops"], last["all_images"], last["seconds_left"]) == (2000, 2000, 200, 0)
    assert last["crops_per_second"] == pytest.approx(2000 / last["seconds"])
    assert sum(last[stage] for stage in ("decode", "crop", "teacher", "encode")) == pytest.approx(1) and last["teacher"] > 0.3
    assert last["bad"] == last["waiting"] == 0 and plan["memory_bytes"] > 50 << 20 and json.loads(done.stdout)["peak_memory_bytes"] >= plan["memory_bytes"]
    assert json.loads(done.stdout)["crops"] == 2000
    assert fkdb("write", "--images", TRAIN, "--limit", 20, "--teacher", teacher, "--crops", 2, "--out", tmp_path / "q.fkdb", "--quiet",
                "--progress", "json").stderr == ""
