# SPDX-License-Identifier: Apache-2.0
"""Label sets that travel: packed, verified, unpacked whole and in part, killed and damaged on the way."""

import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import time

import pytest
from conftest import BIN

IMAGES, CROPS = 3000, 20


def make(path, images, crops, *more):
    subprocess.run([BIN / "label_bench", "make", "--images", str(images), "--crops", str(crops), "--out", path, *more], check=True,
                   capture_output=True)
    return path


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A label set whose boxes fkdb drew."""
    return make(tmp_path_factory.mktemp("drawn") / "labels.fkdb", IMAGES, CROPS, "--drawn")


@pytest.fixture(scope="module")
def digest(fkdb, drawn):
    return fkdb.json("verify", drawn)["digest"]


@pytest.fixture
def share(fkdb, drawn, tmp_path):
    fkdb.ok("share", "pack", drawn, tmp_path / "share")
    return tmp_path / "share"


def keys_of(fkdb, path, ordinals):
    return [fkdb.json("dump", path, "--ordinal", i)["key"] for i in ordinals]


def test_version_and_help(fkdb):
    assert fkdb.ok("share", "--version").startswith("fkdb-share 0.")
    text = fkdb.ok("share", "--help")
    assert all(command in text for command in ("pack", "verify", "unpack", "info"))
    assert "--shard-mib" in fkdb.ok("share", "pack", "--help")


def test_there_and_back(fkdb, drawn, digest, tmp_path):
    share, out = tmp_path / "share", tmp_path / "out.fkdb"
    packed = fkdb.json("share", "pack", drawn, share, "--licence", "CC-BY-4.0", "--authors", "A. Nobody", "--name", "made up")
    assert packed == {"out": str(share), "images": IMAGES, "crops": IMAGES * CROPS, "shards": 1,
                      "bytes": (share / "labels-00000.fkp").stat().st_size, "bytes_per_crop": packed["bytes"] / (IMAGES * CROPS),
                      "digest": digest, "revision": 1, "signature": "none", "part": False, "drawn_images": IMAGES}
    assert sorted(path.name for path in share.iterdir()) == ["labels-00000.fkp", "manifest.json"]
    size = fkdb.ok("share", "verify", share)
    assert re.fullmatch(rf"ok: {IMAGES} images, {IMAGES * CROPS} crops in 1 shard of \d+\.\d\d KiB \(\d\.\d bytes a crop\), {digest}; not signed\n", size)
    assert fkdb.ok("share", "verify", share, "--deep") == size
    assert fkdb.json("share", "verify", share) == {"ok": True, "deep": False, **{k: packed[k] for k in list(packed)[1:10]}}
    info = fkdb.ok("share", "info", share).splitlines()
    assert info[0] == f"{share}: {size.removeprefix('ok: ').split(',  ')[0].rsplit(', ', 1)[0]}" and info[1] == digest
    assert "name       made up" in info and "licence    CC-BY-4.0" in info and "authors    A. Nobody" in info
    manifest = fkdb.json("share", "info", share)
    assert manifest == json.loads((share / "manifest.json").read_text()) and manifest["label_set"]["digest"] == digest
    made = fkdb.json("share", "unpack", share, out)
    assert made["digest"] == digest and made["images"] == IMAGES
    assert fkdb.json("dump", out)["provenance"]["licence"] == "CC-BY-4.0"
    assert fkdb.json("verify", out, "--against", drawn)["ok"]
    # The same bytes with any number of threads.
    for threads in (1, 3):
        fkdb.ok("share", "pack", drawn, tmp_path / str(threads), "--threads", threads)
        assert (tmp_path / str(threads) / "labels-00000.fkp").read_bytes() == (share / "labels-00000.fkp").read_bytes()


def test_a_part_is_what_subset_gives(fkdb, drawn, share, tmp_path):
    (tmp_path / "keys.txt").write_text("\n".join(keys_of(fkdb, drawn, [2999, 1, 1024, 17])))
    for flags in (["--crops", 3], ["--crops", 11, "--images", tmp_path / "keys.txt"], ["--images", tmp_path / "keys.txt"]):
        wanted = fkdb.json("subset", drawn, tmp_path / "subset.fkdb", *flags, "--overwrite")
        got = fkdb.json("share", "unpack", share, tmp_path / "part.fkdb", *flags, "--overwrite")
        assert got["digest"] == wanted["digest"] and got["images"] == wanted["images"]
    classes = fkdb.json("dump", drawn)["data_set"]["class_names"]
    of_class = fkdb.json("share", "unpack", share, tmp_path / "class.fkdb", "--classes", f"{classes[3]},17")
    assert of_class["images"] > 0
    assert {fkdb.json("dump", tmp_path / "class.fkdb", "--ordinal", i)["class"] for i in range(of_class["images"])} == {3, 17}


def test_every_golden_label_set_travels(fkdb, tmp_path):
    import pathlib
    golden = sorted((pathlib.Path(__file__).parent.parent / "golden/v1").glob("*.fkdb"))
    assert golden
    for path in golden:
        share = tmp_path / path.stem
        digest = fkdb.json("share", "pack", path, share)["digest"]
        assert fkdb.json("share", "verify", share, "--deep")["digest"] == digest
        assert fkdb.json("share", "unpack", share, tmp_path / path.name)["digest"] == digest


def test_a_card_for_model_hubs(fkdb, drawn, digest, tmp_path):
    share = tmp_path / "soft-labels"
    fkdb.ok("share", "pack", drawn, share, "--licence", "CC-BY-4.0", "--name", "made | up", "--accuracy", "top-1 80.9 %", "--notes", "evil\n---\n# <b>")
    size = fkdb.ok("share", "info", share).splitlines()[0].removeprefix(f"{share}: ")
    assert fkdb.ok("share", "card", share) == f"{share}/README.md: {size}\n"
    lines = (share / "README.md").read_text().splitlines()
    assert lines[:7] == ["---", 'license: "cc-by-4.0"', 'pretty_name: "made | up"', "tags: [fkdb, knowledge-distillation, soft-labels]",
                         "task_categories: [image-classification]", 'size_categories: ["1K<n<10K"]', "---"]
    assert lines.count("---") == 2 and "# made \\| up" in lines and f"| digest | {digest} |" in lines
    assert "| crops | 60000, 20 an image |" in lines and "$ fkdb-share verify soft-labels" in lines
    assert "| teacher's accuracy | top-1 80.9 % |" in lines
    assert "| notes | evil\\x0a---\\x0a\\# \\<b\\> |" in lines
    fkdb.fails(1, f"{share}/README.md: exists already; --overwrite to replace it", "share", "card", share)
    fkdb.ok("share", "card", share, "--overwrite")


def test_errors(fkdb, drawn, share, tmp_path):
    manifest, shard = share / "manifest.json", share / "labels-00000.fkp"
    fkdb.fails(1, f"{manifest}: exists already; choose another folder, or --overwrite to replace it", "share", "pack", drawn, share)
    fkdb.fails(1, f"{tmp_path}: no shared label set there: it has no manifest.json", "share", "verify", tmp_path)
    fkdb.fails(1, f"{share}: no class 'cat' among its 1000", "share", "unpack", share, tmp_path / "x.fkdb", "--classes", "cat")
    (tmp_path / "keys.txt").write_text("no.jpg\n")
    fkdb.fails(1, f"{share}: no image 'no.jpg' in it", "share", "unpack", share, tmp_path / "x.fkdb", "--images", tmp_path / "keys.txt")
    fkdb.fails(1, f"{drawn}: exists already; choose another name, or --overwrite to replace it", "share", "unpack", share, drawn)
    fkdb.fails(2, "A subcommand is required (see --help)", "share")
    good = shard.read_bytes()
    shard.write_bytes(good[:-1])
    fkdb.fails(3, f"{shard}: {len(good) - 1} bytes, the manifest says {len(good)}", "share", "verify", share)
    shard.write_bytes(good[:100] + bytes([good[100] ^ 1]) + good[101:])
    done = fkdb("share", "verify", share)
    assert done.returncode == 3 and re.fullmatch(rf"fkdb-share: {shard}: SHA-256 [0-9a-f]{{64}}, the manifest says [0-9a-f]{{64}}\n", done.stderr)
    done = fkdb("share", "verify", share, "--json")
    assert done.returncode == 3 and json.loads(done.stdout)["ok"] is False
    done = fkdb("share", "unpack", share, tmp_path / "x.fkdb")
    assert done.returncode == 3 and done.stderr.startswith(f"fkdb-share: {shard}: group 0: heads: SHA-256 ") and not (tmp_path / "x.fkdb").exists()
    shard.write_bytes(good)
    fkdb.ok("share", "verify", share, "--deep")
    manifest.write_text(manifest.read_text().replace('"format_version": 1', '"format_version": 2', 1))
    fkdb.fails(4, f"{manifest}: share format version 2 is newer than this fkdb reads (1): update fkdb", "share", "verify", share)


def test_hostile_manifests_take_no_memory(fkdb, share):
    """Exit 3 in less than 400 MiB."""
    manifest = share / "manifest.json"
    good = manifest.read_text()

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))

    for text, message in (("[" * 100_000_000, "manifest: lists in lists, 33 deep"),
                          ("[" + "0," * 25_000_000 + "0]", "manifest: more than 20000000 values"),
                          (good.replace("labels-00000.fkp", "../../etc/passwd"), "manifest: field 'shards[0].file' is not labels-NNNNN.fkp, but '../../etc/passwd'"),
                          (good.replace('"bytes": ', '"bytes": 9'), None), ("", "manifest: not a JSON object")):
        manifest.write_text(text)
        for command in (["verify", share], ["unpack", share, share.parent / "x.fkdb"], ["info", share]):
            done = fkdb("share", *command, "--threads", 1, preexec_fn=limited) if command[0] != "info" else fkdb("share", *command, preexec_fn=limited)
            assert done.returncode == 3 and done.stderr.count("\n") == 1, done.stderr
            assert message is None or done.stderr == f"fkdb-share: {manifest}: {message}\n"
    with open(manifest, "wb") as file:
        file.truncate(1 << 30)
    fkdb.fails(3, f"{manifest}: {1 << 30} bytes, at most {256 << 20}", "share", "verify", share)


def test_killed_at_any_moment(fkdb, drawn, digest, tmp_path):
    """Nothing half under a final name, and the same command, or --resume, completes it."""
    share, out = tmp_path / "share", tmp_path / "out.fkdb"
    fkdb.ok("share", "pack", drawn, tmp_path / "whole")
    whole = (tmp_path / "whole/labels-00000.fkp").read_bytes()
    begun = time.monotonic()
    fkdb.ok("share", "unpack", tmp_path / "whole", out)
    seconds = time.monotonic() - begun
    out.unlink()
    for attempt in range(8):
        pack = subprocess.Popen([BIN / "fkdb-share", "pack", drawn, share, "--quiet"])
        time.sleep(seconds * attempt / 16)
        pack.send_signal(signal.SIGKILL)
        pack.wait()
        if (share / "manifest.json").exists():  # then it is whole, even where the kill came before the exit
            fkdb.ok("share", "verify", share)
            shutil.rmtree(share)
        else:
            shard = share / "labels-00000.fkp"
            assert not shard.exists() or shard.read_bytes() == whole
    fkdb.ok("share", "pack", drawn, share)
    assert (share / "labels-00000.fkp").read_bytes() == whole and len(os.listdir(share)) == 2
    for attempt in range(8):
        unpack = subprocess.Popen([BIN / "fkdb-share", "unpack", share, out, "--resume", "--commit-seconds", "0", "--quiet"])
        time.sleep(seconds * attempt / 8)
        unpack.send_signal(signal.SIGKILL)
        unpack.wait()
        if out.exists():
            assert fkdb.json("verify", out)["digest"] == digest
            out.unlink()
    assert fkdb.json("share", "unpack", share, out, "--resume")["digest"] == digest


@pytest.fixture(scope="module")
def team(fkdb, tmp_path_factory):
    """The folder of two teams' keys."""
    folder = tmp_path_factory.mktemp("keys")
    said = fkdb.ok("share", "key", folder / "ours")
    assert said == f"{folder}/ours.pem: to sign with; keep it to yourselves\n{folder}/ours.pub: to be given to whoever shall trust you\n"
    assert fkdb.json("share", "key", folder / "theirs") == {"private": f"{folder}/theirs.pem", "public": f"{folder}/theirs.pub"}
    assert (folder / "ours.pem").stat().st_mode & 0o777 == 0o600
    return folder


def edit(share, old, new):
    path = share / "manifest.json"
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_signed_and_trusted(fkdb, drawn, digest, team, tmp_path):
    share, manifest = tmp_path / "share", tmp_path / "share" / "manifest.json"
    assert fkdb.json("share", "pack", drawn, share, "--sign", team / "ours.pem")["signature"] == "unchecked"
    assert fkdb.ok("share", "verify", share).endswith(f"{digest}; signed, by whom was not asked (--trust KEY.pub)\n")
    assert fkdb.ok("share", "verify", share, "--trust", team / "ours.pub").endswith(f"{digest}; signed by a trusted key\n")
    both = ("--trust", team / "theirs.pub", "--trust", team / "ours.pub")
    assert fkdb.json("share", "verify", share, *both)["signature"] == "trusted"
    assert "signature  signed by a trusted key\n" in fkdb.ok("share", "info", share, *both)
    # Whoever has openssl alone can check it.
    openssl = ["openssl", "pkeyutl", "-verify", "-pubin", "-inkey", team / "ours.pub", "-rawin", "-in", manifest, "-sigfile", share / "manifest.json.sig"]
    assert "Verified Successfully" in subprocess.run(openssl, capture_output=True, text=True, check=True).stdout
    assert fkdb.json("share", "unpack", share, tmp_path / "out.fkdb", "--trust", team / "ours.pub")["digest"] == digest
    # Of somebody else.
    def other(by):
        return f"{share}/manifest.json.sig: no signature of this manifest.json by {by}: it was changed, or somebody else signed it"

    fkdb.fails(3, other(team / "theirs.pub"), "share", "verify", share, "--trust", team / "theirs.pub")
    # What people say in it can be edited, and signed again.
    edit(share, '"notes": ""', '"notes": "checked by hand"')
    fkdb.fails(3, other(team / "ours.pub"), "share", "unpack", share, tmp_path / "no.fkdb", "--trust", team / "ours.pub")
    assert not list(tmp_path.glob("no.fkdb*"))
    assert fkdb.ok("share", "sign", share, team / "ours.pem") == f"{share}: signed, {digest}\n"
    assert "notes      checked by hand\n" in fkdb.ok("share", "info", share, "--trust", team / "ours.pub")
    # A new pack without --sign is not signed by the old one.
    fkdb.ok("share", "pack", drawn, share, "--overwrite")
    assert fkdb.json("share", "verify", share)["signature"] == "none"


def test_what_nobody_vouches_for(fkdb, share, team):
    verify = ("share", "verify", share, "--trust", team / "ours.pub")
    fkdb.fails(3, f"{share}: its manifest is not signed (no manifest.json.sig): nobody whom you trust vouches for it", *verify)
    fkdb.ok("share", "sign", share, team / "ours.pem")
    signature, shard = share / "manifest.json.sig", share / "labels-00000.fkp"
    good = signature.read_bytes()
    assert len(good) == 64
    for bad in (good[:63], b"", good[:-1] + bytes([good[-1] ^ 1]), bytes(64)):
        signature.write_bytes(bad)
        fkdb.fails(3, f"{signature}: no signature of this manifest.json by {team}/ours.pub: it was changed, or somebody else signed it", *verify)
    signature.write_bytes(good + b"x")
    fkdb.fails(3, f"{signature}: 65 bytes, at most 64", *verify)
    # The signature binds the shards by their hashes.
    signature.write_bytes(good)
    said = json.loads((share / "manifest.json").read_text())["shards"][0]["sha256"]
    changed = bytearray(shard.read_bytes())
    changed[len(changed) // 2] ^= 1
    shard.write_bytes(changed)
    fkdb.fails(3, f"{shard}: SHA-256 {hashlib.sha256(changed).hexdigest()}, the manifest says {said}", *verify)


def test_files_that_are_no_keys(fkdb, drawn, share, team, tmp_path):
    fkdb.fails(1, f"{team}/ours.pem: cannot write it: File exists", "share", "key", team / "ours")
    rsa = tmp_path / "rsa.pem"
    subprocess.run(["openssl", "genpkey", "-algorithm", "rsa", "-out", rsa], check=True, capture_output=True)
    locked = tmp_path / "locked.pem"
    subprocess.run(["openssl", "pkey", "-in", team / "ours.pem", "-aes256", "-passout", "pass:word", "-out", locked], check=True)
    why = "not an Ed25519 key to sign with, in PEM and without a pass phrase (fkdb-share key makes one)"
    for key in (team / "ours.pub", rsa, locked, share / "manifest.json"):
        fkdb.fails(2, f"{key}: {why}", "share", "sign", share, key)
        fkdb.fails(2, f"{key}: {why}", "share", "pack", drawn, tmp_path / "new", "--sign", key)
        assert not (tmp_path / "new").exists()
    fkdb.ok("share", "sign", share, team / "ours.pem")
    for key in (team / "ours.pem", rsa):
        fkdb.fails(2, f"{key}: not a public Ed25519 key in PEM", "share", "verify", share, "--trust", key)
    fkdb.fails(1, f"{tmp_path}/none.pem: no such key file", "share", "sign", share, tmp_path / "none.pem")
