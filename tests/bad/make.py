#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes files.json: bad label files, each a golden file of version 1 with a few bytes changed.

    tests/bad/make.py NEW.json          then compare with files.json by eye; cases are added, never changed

Where a fault lies below a checksum, the checksum is made right again, so that the next check has to
find it. `error` is filled in from what fkdb-verify says and must be read before it is believed.
"""

import json
import pathlib
import struct
import subprocess
import sys
import tempfile

import xxhash

ROOT = pathlib.Path(__file__).resolve().parents[2]
BASE = "marginal-smoothing.packed.pixel.fkdb"
GOOD = (ROOT / "tests/golden/v1" / BASE).read_bytes()
PAGE = 4096


def xxh(data):
    return struct.pack("<Q", xxhash.xxh3_64_intdigest(data))


class Bad:
    """A good file's bytes, to be spoilt."""

    def __init__(self, good=GOOD):
        self.bytes = bytearray(good)
        self.block = good.index(b"FKDBLOCK")
        self.names = good.index(b"FKDNAMES")
        self.mark = max(i for i in range(len(good)) if good.startswith(b"FKDB\x01\0\0\0\0\0\0\0\0\0\0\0", i))
        self.json = good.rindex(b'{\n  "format": "fkdb"')  # the last one written
        self.count = struct.unpack_from("<I", good, self.block + 12)[0]

    def put(self, at, data):
        self.bytes[at:at + len(data)] = data

    def entry(self, i):
        return self.block + 64 + 16 * i

    def record(self, i):
        offset, length = struct.unpack_from("<II", self.bytes, self.entry(i))
        return self.block + offset, length

    def seal_block(self):
        head = 64 + 16 * self.count
        b = bytes(self.bytes[self.block:self.block + head])
        self.put(self.block + 32, xxh(xxh(b[:32]) + xxh(b[40:])))

    def seal_record(self, i):
        at, length = self.record(i)
        self.put(self.entry(i) + 8, xxh(bytes(self.bytes[at:at + length])))
        self.seal_block()

    def in_record(self, i, find, data, skip=0):
        """Overwrites what lies `skip` bytes behind `find` in record i, and seals."""
        at, length = self.record(i)
        self.put(self.bytes.index(find, at, at + length) + skip, data)
        self.seal_record(i)


CASES = {}


def case(function):
    CASES[function.__name__.replace("_", "-")] = function
    return function


@case
def empty(b): b.bytes = b.bytes[:0]
@case
def text(b): b.bytes = bytearray(b"hello, these are labels\n" * 1000)
@case
def truncated_by_a_byte(b): b.bytes = b.bytes[:-1]
@case
def truncated_by_a_page(b): b.bytes = b.bytes[:-PAGE]
@case
def a_page_too_many(b): b.bytes += bytes(PAGE)
@case
def lmdb_1_0(b):
    for meta in (0, PAGE): b.put(meta + 16 + 4, struct.pack("<I", 3))
@case
def absurd_map(b):
    for meta in (0, PAGE): b.put(meta + 16 + 16, struct.pack("<Q", 1 << 60))
@case
def root_outside(b):
    for meta in (0, PAGE): b.put(meta + 16 + 24 + 48 + 40, struct.pack("<Q", 1 << 40))
@case
def root_is_a_meta_page(b):
    for meta in (0, PAGE): b.put(meta + 16 + 24 + 48 + 40, struct.pack("<Q", 1))
@case
def newer_format(b): b.put(b.mark + 4, struct.pack("<I", 2))
@case
def no_format_mark(b): b.put(b.mark, b"XXXX")
@case
def manifest_flipped(b): b.put(b.json + 40, b"#")
@case
def names_flipped(b): b.put(b.names + 50, b"#")
@case
def names_magic(b): b.put(b.names, b"X")
@case
def block_magic(b): b.put(b.block, b"X")
@case
def block_newer(b): b.put(b.block + 8, struct.pack("<I", 2))
@case
def block_elsewhere(b):
    b.put(b.block + 16, struct.pack("<Q", 7))
    b.seal_block()
@case
def block_directory_flipped(b): b.put(b.entry(0) + 8, b"########")
@case
def block_entry_outside(b):
    b.put(b.entry(0), struct.pack("<I", 1 << 30))
    b.seal_block()
@case
def record_flipped(b): b.put(b.record(0)[0] + 40, b"#")
@case
def record_identifier(b): b.in_record(0, b"FKDR", b"XXXX")
@case
def record_root_outside(b): b.in_record(0, b"FKDR", struct.pack("<I", 0x7fffffff), -4)
@case
def record_of_another_image(b): b.in_record(0, struct.pack("<Q", xxhash.xxh3_64_intdigest(b"00000.jpg")), bytes(8))
@case
def record_box_outside(b):
    at, length = b.record(0)
    packed = bytes(b.bytes).index(struct.pack("<I", 2 * (9 * 4 + 1 + 3 * 4 + 17) // 8 + 1 + 8), at, at + length) + 4
    b.put(packed, b"\xff\x01")  # top 511 of a height of 375
    b.seal_record(0)
@case
def record_index_twice(b):
    at, length = b.record(0)
    packed = bytes(b.bytes).index(struct.pack("<I", 2 * (9 * 4 + 1 + 3 * 4 + 17) // 8 + 1 + 8), at, at + length) + 4
    b.put(packed + 4, bytes([b.bytes[packed + 4] & 0x1f, 0]))  # bits 37.. are the indices
    b.seal_record(0)
@case
def record_bits_behind_the_end(b):
    at, length = b.record(0)
    packed = bytes(b.bytes).index(struct.pack("<I", 2 * (9 * 4 + 1 + 3 * 4 + 17) // 8 + 1 + 8), at, at + length) + 4
    b.put(packed + 2 * (9 * 4 + 1 + 3 * 4 + 17) // 8 + 1 + 7, b"\x80")
    b.seal_record(0)
@case
def record_string_without_end(b): b.in_record(2, b"\x0e\0\0\0truncated JPEG", bytes(4))


def patches(good, bad):
    """[offset, hex] of every run of changed bytes."""
    found, at = [], 0
    while at < min(len(good), len(bad)):
        if good[at] == bad[at]:
            at += 1
            continue
        end = at
        while end < min(len(good), len(bad)) and good[end] != bad[end]:
            end += 1
        found.append([at, bytes(bad[at:end]).hex()])
        at = end
    return found


def main():
    out = []
    for name, spoil in CASES.items():
        bad = Bad()
        spoil(bad)
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "bad.fkdb"
            path.write_bytes(bad.bytes)
            said = subprocess.run([ROOT / "build/release/bin/fkdb-verify", path, "--json"], capture_output=True, text=True)
            report = json.loads(said.stdout)
            error = report["errors"][0].replace(f"{path}: ", "") if report["errors"] else "NOT REFUSED"
        one = {"name": name, "base": BASE, "size": len(bad.bytes), "exit": said.returncode, "error": error}
        one |= {"fill": "hello, these are labels\n"} if name == "text" else {"patches": patches(GOOD, bad.bytes)}
        out.append(one)
    text = "[\n" + ",\n".join("  " + json.dumps(one) for one in out) + "\n]\n"
    pathlib.Path(sys.argv[1]).write_text(text)


if __name__ == "__main__":
    main()
