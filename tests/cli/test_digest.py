# SPDX-License-Identifier: Apache-2.0
"""The digest, computed from FORMAT.md section 7 alone: of what fkdb-dump prints and of the images."""

import gzip
import hashlib
import struct

import numpy as np
import pytest
import xxhash
from conftest import TRAIN


def text(value):
    value = value if isinstance(value, bytes) else value.encode()
    return struct.pack("<Q", len(value)) + value


@pytest.mark.parametrize("kind", ["full", "hard", "marginal-smoothing"])
def test_digest_is_what_format_md_says(fkdb, teacher, tmp_path, kind):
    path = tmp_path / "l.fkdb"
    fkdb.ok("write", "--images", TRAIN, "--limit", 9, "--teacher", teacher, "--crops", 5, "--label", kind,
            "--temperature", 2, "--out", path)
    manifest = fkdb.json("dump", path)
    with gzip.open(TRAIN) as file:
        pixels = file.read()[16:]

    spec = manifest["labels"]
    temperature = np.float32(spec["temperature"]).view(np.uint32)
    lines = "".join(f"{line}\n" for line in [
        "fkdb labels 1", f"kind={spec['kind']}", f"num_classes={spec['num_classes']}", f"top_k={spec['top_k']}",
        f"boxes={spec['boxes']}", f"values={spec['values']}", f"temperature_bits={temperature:08x}"])
    names = manifest["data_set"]["class_names"]
    whole = hashlib.sha256(text(lines) + struct.pack("<Q", len(names)) + b"".join(map(text, names)))

    contents = hashlib.sha256()
    for ordinal in range(9):
        image = fkdb.json("dump", path, "--ordinal", ordinal)
        crops = image["crops"]
        content = xxhash.xxh3_128(pixels[784 * ordinal:784 * (ordinal + 1)]).digest()
        contents.update(struct.pack("<II", image["width"], image["height"]) + content)
        one = text(image["key"]) + struct.pack("<IIi", image["width"], image["height"], image["class"]) + content
        one += b"\0" + text("") + struct.pack("<I", len(crops))
        one += np.array([c["box"] for c in crops], "<u4").tobytes()
        one += bytes(c["flip"] for c in crops)
        if kind != "full":
            one += np.array([c["indices"] for c in crops], "<u4").tobytes()
        if kind != "hard":
            one += np.array([c["values"] for c in crops], "<f4").tobytes()
        whole.update(hashlib.sha256(one).digest())
    assert manifest["digest"] == "sha256:" + whole.hexdigest()
    assert manifest["contents_sha256"] == contents.hexdigest()
    key_list = b"".join(f"{i:05d}".encode() + b"\0" for i in range(9))
    assert manifest["data_set"]["key_list_sha256"] == hashlib.sha256(key_list).hexdigest()
