#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes pickles.json: hostile and broken files in torch.save's form, and what fkdb-convert must say of each.

    tests/bad/make_pickles.py NEW.json      then compare with pickles.json by eye; cases are added, never changed

`error` and `code` are kept from the old file; a new case has none, and the test prints what came out.
"""

import gzip
import io
import json
import pathlib
import pickle
import struct
import sys
import zipfile

import numpy as np

HERE = pathlib.Path(__file__).parent


def archive(program, storages=(), compression=zipfile.ZIP_STORED, prefix="x", byteorder=b"little"):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compression) as z:
        for name, member in (("data.pkl", program), ("byteorder", byteorder), ("version", b"3\n"), *((f"data/{k}", v) for k, v in storages)):
            z.writestr(zipfile.ZipInfo(f"{prefix}/{name}"), member, compression)
    return out.getvalue()


def g(module, name):
    return f"c{module}\n{name}\n".encode()


def x(text):
    return b"X" + struct.pack("<I", len(text.encode())) + text.encode()


P = b"\x80\x02"
NUMPY = b"numpy.core.multiarray"
DTYPE = g("numpy", "dtype") + x("f4") + b"\x89\x88\x87R(K\x03" + x("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
BYTES = g("_codecs", "encode") + x("abcd") + x("latin1") + b"\x86R"
EMPTY = g("numpy.core.multiarray", "_reconstruct") + g("numpy", "ndarray") + b"K\x00\x85" + g("_codecs", "encode") + x("b") + x("latin1") + b"\x86R\x87R"


def array(shape, dtype=DTYPE, data=BYTES):
    return P + EMPTY + b"(K\x01" + shape + dtype + b"\x89" + data + b"tb."


def tensor(offset=b"K\x00", size=b"K\x01\x85", stride=b"K\x01\x85", key="0", kind="FloatStorage"):
    storage = b"(" + x("storage") + g("torch", kind) + x(key) + x("cpu") + b"K\x01tQ"
    return P + g("torch._utils", "_rebuild_tensor_v2") + b"(" + storage + offset + size + stride + b"\x89" + g("collections", "OrderedDict") + b")RtR."


class Evil:
    def __reduce__(self):
        return (print, ("run",))


def cases():
    four = (("0", b"\0" * 4),)
    # Code that would run.
    yield "os.system", archive(P + g("os", "system") + x("echo run") + b"\x85R.")
    yield "posix.system, protocol 4", archive(b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x08echo run\x85R.")
    yield "builtins.eval", archive(P + g("builtins", "eval") + x("1") + b"\x85R.")
    yield "print, by __reduce__", archive(pickle.dumps(Evil(), 2))
    yield "numpy.load, of an allowed module", archive(P + g("numpy", "load") + x("/etc/passwd") + b"\x85R.")
    yield "torch.load", archive(P + g("torch", "load") + x("x") + b"\x85R.")
    yield "an attribute of an allowed name", archive(b"\x80\x04\x8c\x05numpy\x8c\x0dndarray.dumps\x93.")
    yield "codecs with another codec", archive(P + g("_codecs", "encode") + x("abc") + x("zip") + b"\x86R.")
    yield "INST", archive(P + b"(ios\nsystem\n.")
    yield "OBJ", archive(P + b"(" + g("numpy", "ndarray") + b"o.")
    yield "NEWOBJ", archive(P + g("numpy", "ndarray") + b")\x81.")
    yield "EXT1", archive(P + b"\x82\x01.")
    yield "BUILD of a dict", archive(P + b"}}b.")
    yield "a call of a list", archive(P + b"])R.")
    yield "a text persistent id", archive(P + b"P1\n.")
    # Arrays that are not there.
    yield "a shape of 2^62", archive(array(b"\x8a\x08" + struct.pack("<q", 1 << 62) + b"\x85"))
    yield "a shape whose product wraps", archive(array(b"\x8a\x05\0\0\0\0\x01\x8a\x05\0\0\0\0\x01\x86"))
    yield "a negative shape", archive(array(b"J\xff\xff\xff\xff\x85"))
    yield "a shape of 17 dimensions", archive(array(b"(" + b"K\x01" * 17 + b"t"))
    yield "a shape of a text", archive(array(x("4") + b"\x85"))
    yield "fewer bytes than the shape", archive(array(b"K\x02\x85"))
    yield "objects", archive(array(b"K\x01\x85", g("numpy", "dtype") + x("O8") + b"\x89\x88\x87R"))
    yield "big-endian numbers", archive(array(b"K\x01\x85", DTYPE.replace(x("<"), x(">"))))
    yield "a list for bytes", archive(array(b"K\x01\x85", data=b"]"))
    yield "a tensor behind its storage", archive(tensor(size=b"K\x02\x85"), four)
    yield "a tensor that strides out", archive(tensor(stride=b"K\x00\x85", size=b"M\xff\xff\x85"), four)
    yield "a tensor that begins out", archive(tensor(offset=b"K\x02"), four)
    yield "a tensor of negative stride", archive(tensor(stride=b"J\xff\xff\xff\xff\x85"), four)
    yield "a storage that is not there", archive(tensor(key="1"), four)
    yield "a storage outside", archive(tensor(key="../../../etc/passwd"), four)
    yield "a storage of no type", archive(tensor(kind="Size"), four)
    # Instructions that make no sense.
    yield "nothing", archive(P + b".")
    yield "no end", archive(P + b"]")
    yield "two values", archive(P + b"]].")
    yield "protocol 1", archive(b"\x80\x01].")
    yield "protocol 6", archive(b"\x80\x06].")
    yield "protocol 0", archive(pickle.dumps([1], 0))
    yield "a text of 4 GiB", archive(P + b"X\xff\xff\xff\xff.")
    yield "bytes of 2^64", archive(b"\x80\x04\x8e" + b"\xff" * 8 + b".")
    yield "a number of 1000 bytes", archive(P + b"\x8b" + struct.pack("<i", 1000) + b"\1" * 1000 + b".")
    yield "no mark", archive(P + b"K\x01t.")
    yield "a memo that is not there", archive(P + b"h\x05.")
    yield "a pop of a mark", archive(P + b"(0.")
    yield "a dict of one", archive(P + b"(K\x01d.")
    yield "out-of-band bytes", archive(b"\x80\x05\x97.")
    # Small files that would fill the memory.
    yield "the same text again and again", archive(P + x("a" * 5000) + b"q\x000" + b"".join(g("_codecs", "encode") + b"h\x00" + x("latin1") + b"\x86R0" for _ in range(50)) + b"].")
    yield "lists of lists of lists", archive(P + b"(]q\x00" + b"".join(b"]q" + bytes([i]) + b"(" + b"h" + bytes([i - 1]) + b"h" + bytes([i - 1]) + b"e" for i in range(1, 64)) + b"t.")
    yield "a list in itself", archive(P + b"]q\x00h\x00a.")
    yield "a compressed program", archive(P + b"N0" * 500000 + b"].", compression=zipfile.ZIP_DEFLATED)
    yield "a gzip bomb", gzip.compress(b"PK" + b"\0" * 3_000_000, mtime=0)
    yield "gzip, cut off", gzip.compress(archive(P + b"]."), mtime=0)[:-12]
    # Files that are something else.
    yield "empty", b""
    yield "text", b"coords, flip, label\n"
    yield "a bare pickle", pickle.dumps([1, 2], 2)
    yield "a zip without a pickle", archive(P).replace(b"data.pkl", b"data.txt")
    yield "big-endian file", archive(P + b"].", byteorder=b"big")
    yield "old torch.save", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02M\xe9\x03."
    whole = archive(P + b"].")
    yield "no directory", whole[:-30]
    yield "a flipped bit", whole.replace(P + b"].", P + b"[.")


def main():
    known = {case["name"]: case for case in json.loads((HERE / "pickles.json").read_text())} if (HERE / "pickles.json").exists() else {}
    out = [{"name": name, "file": data.hex(), "code": known.get(name, {}).get("code", 0), "error": known.get(name, {}).get("error", "")} for name, data in cases()]
    assert np.unique([case["name"] for case in out]).size == len(out)
    pathlib.Path(sys.argv[1]).write_text("[\n" + ",\n".join(json.dumps(case) for case in out) + "\n]\n")


if __name__ == "__main__":
    main()
