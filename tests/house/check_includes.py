#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Who may include whom: reads the #include lines of a tree and prints each that breaks the house rules.

    check_includes.py [TREE]            exit 1 if anything is printed
    check_includes.py --self-test       plants violations and checks that each is found
"""

import pathlib
import re
import sys
import tempfile

# A folder sees itself, and of others only this: a folder, or single headers of it.
MAY_INCLUDE = {
    "format": [],
    "db": ["format/"],
    "image": ["format/result.h", "format/augment_policy.h", "format/box.h", "format/crop_op.h", "format/hash.h", "format/half.h",
              "format/random.h", "format/host_device.h", "format/text.h"],
    "cuda": ["format/", "image/resample_weights.h"],
    "reader": ["format/", "db/"],
    "writer": ["format/", "db/", "image/"],
    "trainer": ["format/", "db/sha256.h", "reader/", "image/", "cuda/", "writer/convert/torch_file.h", "writer/crop_output.h", "writer/ensemble.h",
                "writer/shared_store.h", "writer/teacher.h"],
    "tools": ["format/", "db/", "image/", "cuda/", "reader/", "writer/", "trainer/"],
    "python": ["format/", "db/", "image/", "cuda/", "reader/", "writer/", "trainer/", "tools/programs.h"],
}

# Whose a third party's headers are. The tests may use them all.
OWNERS = {
    r"flatbuffers/|record_generated\.h": {"format"},
    r"zstd": {"db"},
    r"xxhash\.h": {"format"},
    r"lmdb\.h|boost/interprocess/sync/|openssl/": {"db"},
    r"boost/interprocess/file_mapping|boost/interprocess/mapped_region": {"db", "image", "writer"},
    r"jpeglib\.h|jerror\.h|turbojpeg|spng\.h": {"image"},
    r"zlib\.h": {"image", "writer"},
    r"zip\.h": {"writer"},
    r"cuda_runtime|cuda_fp16|cuda_bf16|cub/|thrust/": {"cuda"},
    r"torch/|ATen/|c10/|caffe2/|gloo/|omp\.h": {"trainer"},
    r"CLI/|arrow/|parquet/|toml\+\+/|curl/": {"tools"},
    r"hwy/": {"cuda", "image"},
    r"nanobind/|Python\.h": {"python"},
    r"gtest/|gmock/|benchmark/": set(),
}

# Public headers show no third party's types but tl::expected. These are for their own folder's
# sources (and tests) alone, and say so at their top.
INTERNAL = {"db/lmdb_env.h", "format/crop_lanes.h", "format/box_code.h", "format/column_layout.h", "format/field_writer.h", "format/packed_crops.h", "format/stored_record.h",
            "db/share/chunk.h", "db/share/ordered_work.h", "db/share/shard.h", "db/share/share_plan.h", "db/share/share_reader.h", "trainer/aoti_network.h", "trainer/initial_weights.h", "trainer/mobilenet.h", "trainer/models.h",
            "trainer/resnet.h", "trainer/script_model.h", "trainer/student.h", "trainer/checkpoint.h", "trainer/label_loss.h",
            "trainer/evaluate.h", "trainer/device.h", "trainer/device_batches.h", "trainer/discriminator.h", "trainer/autocast.h", "trainer/c10d_store.h", "trainer/data_parallel.h",
            "trainer/mixing.h", "trainer/optimizer.h", "trainer/weight_average.h"}
PURE = {"format", "db", "image", "writer", "reader", "cuda", "trainer"}
THIRD_PARTY = r"flatbuffers/|zstd|xxhash|lmdb\.h|boost/|openssl/|jpeglib|spng|zlib|zip\.h|nlohmann/|fmt/|hwy/|torch/|ATen/|c10/|CLI/"

INCLUDE = re.compile(r'^\s*#\s*include\s*["<]([^">]+)[">]')


def violations(tree):
    found = []
    for path in sorted(tree.rglob("*")):
        relative = path.relative_to(tree)
        folder = relative.parts[0]
        if folder not in MAY_INCLUDE or path.suffix not in (".h", ".cc", ".cu", ".cuh"):
            continue
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            name = match[1]
            where = f"{relative}:{number}: includes {name}"
            first = name.split("/")[0]
            if first in MAY_INCLUDE and "/" in name:
                allowed = first == folder or any(name == a or (a.endswith("/") and name.startswith(a)) for a in MAY_INCLUDE[folder])
                if not allowed:
                    found.append(f"{where}: {folder}/ may not see it")
                elif name in INTERNAL and first != folder:
                    found.append(f"{where}: it is internal to {first}/")
            elif first == "tests":
                found.append(f"{where}: tests are seen by nobody")
            elif name.startswith(".."):
                found.append(f"{where}: includes are rooted at the repository")
            for pattern, owners in OWNERS.items():
                if re.match(pattern, name) and folder not in owners:
                    found.append(f"{where}: it belongs to {', '.join(sorted(owners)) or 'tests'}")
            if path.suffix == ".h" and folder in PURE and str(relative) not in INTERNAL and re.match(THIRD_PARTY, name):
                found.append(f"{where}: a public header shows no third party but tl::expected")
    return found


PLANTED = {
    "format/a.cc": '#include "db/block.h"',
    "db/a.cc": '#include "reader/reader.h"',
    "image/a.cc": '#include "format/record.h"',
    "writer/a.h": '#include "reader/reader.h"',
    "reader/a.cc": '#include "writer/teacher.h"',
    "reader/b.cc": '#include "db/lmdb_env.h"',
    "trainer/a.cc": '#include "writer/label_job.h"',
    "trainer/b.cc": '#include "db/manifest.h"',
    "reader/c.cc": "#include <lmdb.h>",
    "writer/b.cc": "#include <torch/torch.h>",
    "db/b.cc": '#  include "flatbuffers/flatbuffers.h"',
    "format/b.cc": "#include <zstd.h>",
    "reader/e.cc": '#include "db/share/shard.h"',
    "db/c.h": "#include <nlohmann/json.hpp>",
    "cuda/a.cc": '#include "tests/x.h"',
    "tools/a.cc": '#include "../db/block.h"',
    "reader/d.cc": "#include <hwy/highway.h>",
    "writer/c.cc": "#include <nanobind/nanobind.h>",
    "python/a.cc": '#include "tools/cli.h"',
}
HARMLESS = {
    "writer/ok.cc": '#include "image/data_set.h"\n#include <vector>\n// #include <torch/torch.h>',
    "trainer/ok.cc": '#include "writer/teacher.h"\n#include <torch/script.h>',
    "reader/ok.cc": "#include <nlohmann/json.hpp>",
}


def self_test():
    with tempfile.TemporaryDirectory() as name:
        tree = pathlib.Path(name)
        for path, text in {**PLANTED, **HARMLESS}.items():
            (tree / path).parent.mkdir(exist_ok=True)
            (tree / path).write_text(text + "\n")
        found = {line.split(":")[0] for line in violations(tree)}
        missed, wrong = set(PLANTED) - found, found - set(PLANTED)
        if missed or wrong:
            print("planted but not found:", sorted(missed), "found but harmless:", sorted(wrong))
            return 1
    print(f"{len(PLANTED)} planted violations found")
    return 0


if __name__ == "__main__":
    if sys.argv[1:] == ["--self-test"]:
        sys.exit(self_test())
    lines = violations(pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else "."))
    print("\n".join(lines) or "every include keeps to the house rules")
    sys.exit(1 if lines else 0)
