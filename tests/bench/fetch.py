#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What fkdb-share fetch takes beside curl and the hash alone, and how much of a share a part is.

    tests/bench/fetch.py --bin build/release/bin --out FOLDER [--json]

nginx on loopback serves a synthetic label set with boxes that fkdb drew. Medians of --repeats runs, each beside the others'.
"""

import argparse
import json
import os
import pathlib
import shutil
import statistics
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "cli"))
from web_server import Server  # noqa: E402


def run(*command):
    """Seconds, and MiB at the most."""
    begun = time.monotonic()
    process = subprocess.Popen([*map(str, command)], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, command
    return time.monotonic() - begun, usage.ru_maxrss / 1024


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--bin", type=pathlib.Path, required=True)
    arguments.add_argument("--out", type=pathlib.Path, required=True, help="made, and emptied at the end")
    arguments.add_argument("--images", type=int, default=100_000)
    arguments.add_argument("--crops", type=int, default=200)
    arguments.add_argument("--repeats", type=int, default=5)
    arguments.add_argument("--json", action="store_true")
    flags = arguments.parse_args()
    flags.out.mkdir()
    share_tool, db, got = flags.bin / "fkdb-share", flags.out / "labels.fkdb", flags.out / "got"
    with Server(flags.out) as server:
        share = server.www / "share"
        subprocess.run([flags.bin / "label_bench", "make", "--images", str(flags.images), "--crops", str(flags.crops), "--drawn", "--out", db], check=True,
                       capture_output=True)
        subprocess.run([share_tool, "pack", db, share, "--shard-mib", "32", "--quiet"], check=True)
        shards = sorted(share.glob("*.fkp"))
        size = sum(path.stat().st_size for path in shards)

        def curl(place):
            shutil.rmtree(got, ignore_errors=True)
            return run("curl", "-sf", "--create-dirs", *(part for path in shards for part in ("-o", got / path.name, f"{server.url}/{place}/{path.name}")))

        def fetch(place, *more):
            shutil.rmtree(got, ignore_errors=True)
            return run(share_tool, "fetch", f"{server.url}/{place}", got, "--quiet", *more)

        ways = {
            "SHA-256 alone (openssl)": lambda: run("openssl", "dgst", "-sha256", *shards),
            "curl": lambda: curl("share"),
            "fetch, 1 connection": lambda: fetch("share", "--connections", 1),
            "fetch, 8 connections": lambda: fetch("share"),
            "fetch of a server without ranges": lambda: fetch("noranges/share"),
        }
        times = {way: [] for way in ways}
        for _ in range(flags.repeats):
            for way, go in ways.items():
                times[way].append(go())
        result = {"bytes": size, "shards": len(shards), "images": flags.images, "crops": flags.crops, "ways": {}, "parts": {}}
        for way, measured in times.items():
            result["ways"][way] = {"mb_per_s": size / statistics.median(t for t, _ in measured) / 1e6, "mib": max(m for _, m in measured)}
        for part in (["--crops", "25"], ["--crops", "100"]):
            shutil.rmtree(got, ignore_errors=True)
            told = subprocess.run([share_tool, "fetch", f"{server.url}/share", got, "--json", *part], check=True, capture_output=True, text=True).stdout
            result["parts"][" ".join(part)] = json.loads(told)["fetched_bytes"] / size
    shutil.rmtree(flags.out)
    if flags.json:
        print(json.dumps(result, indent=1))
        return
    print(f"{size / 1e6:.0f} MB in {len(shards)} shards: {flags.images} images of {flags.crops} crops")
    for way, measured in result["ways"].items():
        print(f"{way:<34}{measured['mb_per_s']:>8.0f} MB/s{measured['mib']:>8.0f} MiB")
    for part, of_all in result["parts"].items():
        print(f"fetch {part:<28}{100 * of_all:>8.1f} % of the bytes")


if __name__ == "__main__":
    main()
