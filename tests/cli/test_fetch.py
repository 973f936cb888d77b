# SPDX-License-Identifier: Apache-2.0
"""Shared label sets over the network: nginx serves them, with and without parts of files, and everything goes wrong on the way."""

import hashlib
import http.server
import json
import os
import random
import re
import resource
import shutil
import signal
import socket
import subprocess
import threading
import time

import pytest
from conftest import BIN, TRAIN
from processes import wait_for
from web_server import Server


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with Server(tmp_path_factory.mktemp("nginx")) as server:
        yield server


@pytest.fixture(scope="module")
def drawn(fkdb, tmp_path_factory):
    path = tmp_path_factory.mktemp("drawn") / "labels.fkdb"
    subprocess.run([BIN / "label_bench", "make", "--images", "9000", "--crops", "20", "--out", path, "--drawn"], check=True, capture_output=True)
    return path


@pytest.fixture(scope="module")
def packed(fkdb, drawn, tmp_path_factory):
    """A share of two shards, and the keys of the team that signed it."""
    folder = tmp_path_factory.mktemp("packed")
    fkdb.ok("share", "key", folder / "team")
    fkdb.ok("share", "key", folder / "others")
    fkdb.ok("share", "pack", drawn, folder / "share", "--shard-mib", 1, "--sign", folder / "team.pem", "--name", "made up")
    assert sorted(path.name for path in (folder / "share").iterdir()) == ["labels-00000.fkp", "labels-00001.fkp", "manifest.json", "manifest.json.sig"]
    return folder


@pytest.fixture
def share(server, packed):
    """A fresh copy of it on the server."""
    shutil.rmtree(server.www / "share", ignore_errors=True)
    shutil.copytree(packed / "share", server.www / "share")
    server.sent()
    return server.www / "share"


def same(a, b):
    names = sorted(path.name for path in a.iterdir())
    return names == sorted(path.name for path in b.iterdir()) and all((a / name).read_bytes() == (b / name).read_bytes() for name in names)


def total(share):
    return sum(path.stat().st_size for path in share.glob("*.fkp"))


class Cutter:
    """Passes connections on to nginx and cuts each of the first ones after so many bytes of its answer. meet(n): called as the nth comes."""

    def __init__(self, port, cut_after, meet=lambda n: None):
        self.port, self.cut_after, self.meet, self.cuts, self.met = port, list(cut_after), meet, 0, 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self.listener.getsockname()[1]}"
        self.lock = threading.Lock()
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            self.met += 1
            self.meet(self.met)
            server = socket.create_connection(("127.0.0.1", self.port))
            with self.lock:
                left = self.cut_after.pop(0) if self.cut_after else None
            threading.Thread(target=self.copy, args=(client, server, None), daemon=True).start()
            threading.Thread(target=self.copy, args=(server, client, left), daemon=True).start()

    def copy(self, source, to, left):
        try:
            while data := source.recv(4096 if left is None else min(4096, left)):
                to.sendall(data)
                if left is not None:
                    left -= len(data)
                    if left <= 0:
                        self.cuts += 1
                        break
        except OSError:
            pass
        for s in (source, to):
            try:
                s.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


def test_whole(fkdb, server, share, packed, tmp_path):
    trust = ("--trust", packed / "team.pub")
    got = fkdb.json("share", "fetch", f"{server.url}/share", tmp_path / "got", *trust)
    assert same(share, tmp_path / "got")
    sizes = sum(shard["bytes"] - shard["index"]["bytes"] - 16 for shard in json.loads((share / "manifest.json").read_text())["shards"])
    assert got["fetched_bytes"] == got["needed_bytes"] == sizes and got["signature"] == "trusted" and got["images"] == 9000 and got["part"] is False
    assert got["mirrors"] == [{"url": f"{server.url}/share/", "bytes": got["mirrors"][0]["bytes"], "given_up": None}]
    assert server.shard_bytes() == total(share) - 32  # all but the shards' heads
    fkdb.ok("share", "verify", tmp_path / "got", "--deep", *trust)
    # Again nothing comes but the manifest.
    assert fkdb.json("share", "fetch", f"{server.url}/share/manifest.json", tmp_path / "got", *trust)["fetched_bytes"] == 0
    assert {uri for uri, *_ in server.sent()} == {"/share/manifest.json", "/share/manifest.json.sig"}
    # What is damaged comes anew, and no more.
    shard = tmp_path / "got/labels-00001.fkp"
    damaged = bytearray(shard.read_bytes())
    damaged[5000] ^= 1
    shard.write_bytes(damaged)
    assert 0 < fkdb.json("share", "fetch", f"{server.url}/share", tmp_path / "got")["fetched_bytes"] < sizes / 8
    assert same(share, tmp_path / "got")


@pytest.mark.parametrize("url", ["{www}/share", "file://{www}/share/", "{http}/moved", "{http}/noranges/share"])
def test_from_anywhere(fkdb, server, share, tmp_path, url):
    url = url.format(www=server.www, http=server.url)
    got = fkdb.json("share", "fetch", url, tmp_path / "got")
    assert same(share, tmp_path / "got")
    if "noranges" in url:  # each shard once
        assert got["fetched_bytes"] == total(share)
        assert sum(status == 200 and part == "-" and uri.endswith("fkp") for uri, status, _, part in server.sent()) == 2


def test_info_brings_nothing_else(fkdb, server, share, packed):
    text = fkdb.ok("share", "info", f"{server.url}/share", "--trust", packed / "team.pub")
    assert text.startswith(f"{server.url}/share: 9000 images, 180000 crops in 2 shards of ") and "signature  signed by a trusted key\n" in text
    assert fkdb.json("share", "info", f"{server.url}/share/") == json.loads((share / "manifest.json").read_text())
    assert not [uri for uri, *_ in server.sent() if uri.endswith(".fkp")]


def test_a_part_is_what_subset_gives(fkdb, server, share, drawn, packed, tmp_path):
    """A tenth of the crops, of some images: only their chunks come, and they unpack to what fkdb-subset would give."""
    key = [fkdb.json("dump", drawn, "--ordinal", i)["key"] for i in (8500, 40, 41)]
    (tmp_path / "keys.txt").write_text("\n".join(key))
    part, out = tmp_path / "part", tmp_path / "out.fkdb"
    for flags, most in ((["--crops", 2], 0.6), (["--crops", 2, "--images", tmp_path / "keys.txt"], 0.2), (["--crops", 5], 0.7)):
        got = fkdb.json("share", "fetch", f"{server.url}/share", part, *flags, "--overwrite")
        assert got["part"] is True
        wanted = fkdb.json("subset", drawn, tmp_path / "subset.fkdb", *flags, "--overwrite")
        assert fkdb.json("share", "verify", part, "--deep")["part"] is True
        assert fkdb.json("share", "unpack", part, out, *flags, "--overwrite")["digest"] == wanted["digest"]
        fresh = fkdb.json("share", "fetch", f"{server.url}/share", tmp_path / "fresh", *flags)
        assert 0 < fresh["fetched_bytes"] < most * total(share) and got["fetched_bytes"] <= fresh["fetched_bytes"]
        shutil.rmtree(tmp_path / "fresh")
    # The same fetch again brings nothing; more of it what is missing; all of it makes it whole.
    assert fkdb.json("share", "fetch", f"{server.url}/share", part, "--crops", 5)["fetched_bytes"] == 0
    text = fkdb.ok("share", "info", part)
    assert ", of which a part is here: the first 5 crops\n" in text
    fkdb.fails(6, f"{part}/labels-00000.fkp: group 0: layer 2: is not here, this folder has a part of the label set; fetch more into it",
               "share", "unpack", part, tmp_path / "no.fkdb", "--crops", 20)
    fkdb.ok("share", "fetch", f"{server.url}/share", part)
    assert same(share, part)
    # A part of what is whole stays whole, and of a larger part the larger one.
    assert fkdb.json("share", "fetch", f"{server.url}/share", part, "--crops", 2)["part"] is False
    assert same(share, part)
    for crops in (5, 2):
        fkdb.ok("share", "fetch", f"{server.url}/share", tmp_path / "larger", "--crops", crops)
    assert ", of which a part is here: the first 5 crops\n" in fkdb.ok("share", "info", tmp_path / "larger")
    # A manifest alone is nothing that stays whole.
    (tmp_path / "alone").mkdir()
    shutil.copy(share / "manifest.json", tmp_path / "alone")
    fkdb.ok("share", "fetch", f"{server.url}/share", tmp_path / "alone", "--crops", 2)
    assert fkdb.json("share", "verify", tmp_path / "alone", "--deep")["part"] is True
    classes = fkdb.json("share", "fetch", f"{server.url}/share", tmp_path / "classes", "--classes", "17")
    assert classes["fetched_bytes"] <= total(share)
    fkdb.ok("share", "unpack", tmp_path / "classes", tmp_path / "classes.fkdb")
    assert {fkdb.json("dump", tmp_path / "classes.fkdb", "--ordinal", i)["class"] for i in range(3)} == {17}
    (tmp_path / "keys.txt").write_text("no.jpg\n")
    fkdb.fails(1, f"{tmp_path}/none: no image 'no.jpg' in it", "share", "fetch", f"{server.url}/share", tmp_path / "none", "--images", tmp_path / "keys.txt")
    assert not (tmp_path / "none/manifest.json").exists()
    # A part that lost something says so.
    shard = next((tmp_path / "classes").glob("*.fkp"))
    bad = bytearray(shard.read_bytes())
    bad[100] ^= 1
    shard.write_bytes(bad)
    assert fkdb("share", "verify", tmp_path / "classes").returncode == 3


def test_cut_twenty_times(fkdb, server, share, tmp_path):
    """The first connections end somewhere; nothing comes twice but the chunks that were cut."""
    draw = random.Random(7)
    cutter = Cutter(server.port, [draw.randrange(100, 120_000) for _ in range(40)])
    got = fkdb.json("share", "fetch", f"{cutter.url}/share", tmp_path / "got", "--connections", 4, "--retries", 30)
    assert cutter.cuts >= 20 and same(share, tmp_path / "got")
    largest = 60_000  # of this share's chunks
    assert got["needed_bytes"] <= got["fetched_bytes"] <= got["needed_bytes"] + cutter.cuts * largest


def test_cut_and_run_again(fkdb, server, share, tmp_path):
    """Without patience each cut ends the program; the same command goes on."""
    draw = random.Random(8)
    cutter = Cutter(server.port, [draw.randrange(60_000, 200_000) for _ in range(20)])
    needed = []
    for _ in range(40):
        done = fkdb("share", "fetch", f"{cutter.url}/share", tmp_path / "got", "--connections", 1, "--retries", 0, "--json")
        if done.returncode == 0:
            needed.append(json.loads(done.stdout)["needed_bytes"])
            break
        assert done.returncode == 1 and done.stderr.count("\n") == 1 and f"fkdb-share: {cutter.url}/share/" in done.stderr
        assert not (tmp_path / "got/manifest.json").exists()
    assert cutter.cuts >= 5 and same(share, tmp_path / "got") and needed[0] < total(share) / 2


def test_killed_at_any_moment(fkdb, server, share, tmp_path):
    draw = random.Random(9)
    for _ in range(12):
        fetch = subprocess.Popen([BIN / "fkdb-share", "fetch", f"{server.url}/unhurried/share", tmp_path / "got", "--quiet", "--connections", "3"])
        time.sleep(draw.uniform(0, 0.5))
        fetch.kill()
        fetch.wait()
        if (tmp_path / "got/manifest.json").exists():
            fkdb.ok("share", "verify", tmp_path / "got")
    fkdb.ok("share", "fetch", f"{server.url}/share", tmp_path / "got")
    assert same(share, tmp_path / "got")


def test_stopped(fkdb, server, share, tmp_path):
    fetch = subprocess.Popen([BIN / "fkdb-share", "fetch", f"{server.url}/unhurried/share", tmp_path / "got"], stderr=subprocess.PIPE, text=True)
    wait_for((tmp_path / "got/manifest.json.lock").exists, fetch)  # it listens to signals by then
    fetch.send_signal(signal.SIGINT)
    _, said = fetch.communicate(timeout=60)
    assert fetch.returncode == 6 and said == "fkdb-share: stopped before everything was fetched; the same command goes on\n"


def test_two_at_once(fkdb, server, share, tmp_path):
    first = subprocess.Popen([BIN / "fkdb-share", "fetch", f"{server.url}/unhurried/share", tmp_path / "got", "--quiet"])
    wait_for((tmp_path / "got/manifest.json.lock").exists, first)
    fkdb.fails(5, f"{tmp_path}/got/manifest.json.lock: another writer is at work on this label set; wait for it to end (its lock vanishes with it)",
               "share", "fetch", f"{server.url}/share", tmp_path / "got")
    assert first.wait() == 0 and same(share, tmp_path / "got")


def test_mirrors(fkdb, server, share, tmp_path):
    """One lacks a shard, one has a damaged one, one has an old manifest's: the last has it all."""
    www = server.www
    for name in ("lacks", "damaged"):
        shutil.rmtree(www / name, ignore_errors=True)
        shutil.copytree(share, www / name)
    (www / "lacks/labels-00001.fkp").unlink()
    bad = bytearray(share.joinpath("labels-00000.fkp").read_bytes())
    for at in range(3000, len(bad) - 50_000, 10_000):
        bad[at] ^= 1
    (www / "damaged/labels-00000.fkp").write_bytes(bad)
    fkdb.fails(1, f"{server.url}/lacks/labels-00001.fkp: no such file there", "share", "fetch", f"{server.url}/lacks", tmp_path / "one")
    done = fkdb("share", "fetch", f"{server.url}/damaged", tmp_path / "one")
    assert done.returncode == 3 and re.fullmatch(rf"fkdb-share: {server.url}/damaged/labels-00000\.fkp: labels-00000\.fkp: group \d+: \w+( \d)?: SHA-256 \w+, the index says "
                                                 r"\w+; it was changed there, or on the way\n", done.stderr), done.stderr
    urls = [f"{server.url}/{name}" for name in ("lacks", "damaged", "share")]
    got = fkdb.json("share", "fetch", *urls, tmp_path / "got", "--connections", 1)
    assert same(share, tmp_path / "got")
    given_up = [mirror["given_up"] for mirror in got["mirrors"]]
    assert given_up[0].endswith("/lacks/labels-00001.fkp: no such file there") and "SHA-256" in given_up[1] and given_up[2] is None
    # Mirrors without a manifest, and that always fail, are passed over.
    shutil.rmtree(tmp_path / "got")
    got = fkdb.json("share", "fetch", f"{server.url}/nothing", f"{server.url}/broken", *urls[2:], tmp_path / "got", "--retries", 1)
    assert same(share, tmp_path / "got") and "The requested URL returned error: 503" in got["mirrors"][1]["given_up"]
    fkdb.fails(1, f"{server.url}/cycle/manifest.json: Maximum (10) redirects followed", "share", "fetch", f"{server.url}/cycle", tmp_path / "cycle")


def test_certificates_are_checked(fkdb, server, share, tmp_path):
    done = fkdb("share", "fetch", f"https://127.0.0.1:{server.tls}/share", tmp_path / "got")
    assert done.returncode == 1 and "certificate" in done.stderr and done.stderr.count("\n") == 1


@pytest.mark.parametrize("where", ["share", "noranges/share"])
def test_wrong_lengths(fkdb, server, share, tmp_path, where):
    shard = share / "labels-00001.fkp"
    good = shard.read_bytes()
    url = f"{server.url}/{where}/labels-00001.fkp"
    for bad in (good[:-1], good + b"x"):
        shard.write_bytes(bad)
        fkdb.fails(3, f"{url}: {len(bad)} bytes, the manifest says {len(good)}; it was changed there, or on the way", "share", "fetch", f"{server.url}/{where}", tmp_path / "got")
        assert not (tmp_path / "got/manifest.json").exists()
    shard.write_bytes(good[: len(good) // 2])
    assert fkdb("share", "fetch", f"{server.url}/{where}", tmp_path / "got").returncode == 3
    shard.write_bytes(good)
    fkdb.ok("share", "fetch", f"{server.url}/{where}", tmp_path / "got")
    assert same(share, tmp_path / "got")


def test_changed_between_requests(fkdb, server, share, packed, tmp_path):
    """Another label set takes the place of this one while it is fetched."""
    other = tmp_path / "other"
    subprocess.run([BIN / "label_bench", "make", "--images", "9001", "--crops", "20", "--out", tmp_path / "o.fkdb", "--drawn"], check=True, capture_output=True)
    fkdb.ok("share", "pack", tmp_path / "o.fkdb", other, "--shard-mib", 1, "--name", "made up", "--revision", 2)

    def swap(n):
        if n == 5:  # manifest, signature, and some of the indexes have gone
            for path in other.iterdir():
                shutil.copy(path, share / path.name)

    cutter = Cutter(server.port, [], swap)
    done = fkdb("share", "fetch", f"{cutter.url}/once/share", tmp_path / "got", "--connections", 1)
    assert done.returncode == 3 and done.stderr.endswith("; it was changed there, or on the way\n") and not (tmp_path / "got/manifest.json").exists()
    # The same command then brings what is there now.
    (share / "manifest.json.sig").unlink()
    fkdb.ok("share", "fetch", f"{server.url}/share", tmp_path / "got")
    assert same(share, tmp_path / "got")
    # A folder that has one is not replaced unasked, and never by an older revision.
    shutil.rmtree(share)
    shutil.copytree(packed / "share", share)
    (share / "manifest.json.sig").unlink()
    older = f"{tmp_path}/got: has revision 2 of it, and this is revision 1: whoever offers it is behind, or wants you to be; remove the folder if you do"
    for flags in ([], ["--overwrite"]):
        fkdb.fails(3, older, "share", "fetch", f"{server.url}/share", tmp_path / "got", *flags)
    newer = json.loads((other / "manifest.json").read_text())
    newer["revision"] = 3
    (share / "manifest.json").write_text(json.dumps(newer))
    fetch = ("share", "fetch", f"{server.url}/share", tmp_path / "got")
    fkdb.fails(1, f"{tmp_path}/got: has another label set, or another revision of this one; choose another folder, or --overwrite to replace it", *fetch)
    # A newer manifest alone takes nothing away, and an overwrite that was broken off still knows what it replaced.
    mine = json.loads((packed / "share/manifest.json").read_text())
    mine["revision"] = 3
    (share / "manifest.json").write_text(json.dumps(mine))
    (share / "labels-00001.fkp").unlink()
    fkdb.fails(1, f"{server.url}/share/labels-00001.fkp: no such file there", *fetch, "--overwrite")
    assert same(other, tmp_path / "got")
    (tmp_path / "got/manifest.json").rename(tmp_path / "got/manifest.json.replaced")
    shutil.copy(packed / "share/manifest.json", share)
    fkdb.fails(3, older, *fetch)
    for path in other.glob("*.fkp"):
        shutil.copy(path, share)
    (share / "manifest.json").write_text(json.dumps(newer))
    (tmp_path / "got/labels-00007.fkp").write_bytes(b"of before")
    (tmp_path / "got/manifest.json").write_bytes((other / "manifest.json").read_bytes())
    fkdb.ok(*fetch, "--overwrite", "--crops", 2)
    names = ["labels-00000.fkp", "labels-00001.fkp", "manifest.json", "part.json"]
    assert sorted(path.name for path in (tmp_path / "got").iterdir()) == names
    fkdb.ok("share", "verify", tmp_path / "got", "--deep")


def test_a_slow_server(fkdb, server, share, tmp_path):
    begun = time.monotonic()
    done = fkdb("share", "fetch", f"{server.url}/slow", tmp_path / "got", "--timeout", 1, "--retries", 1, "--connections", 1)
    assert time.monotonic() - begun < 15
    assert done.returncode == 1 and done.stderr == f"fkdb-share: {server.url}/slow/labels-00000.fkp: no answer, or less than 1 KiB/s, in the time that --timeout gives\n"


def test_a_full_disk(fkdb, server, share, tmp_path):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "none", disk], capture_output=True).returncode != 0:
        pytest.skip("mounting a small tmpfs needs root")
    try:
        for size in (64, 200, 700, total(share) // 1024 - 60, total(share) // 1024 + 4):
            subprocess.run(["mount", "-o", f"remount,size={size}k", disk], check=True)
            done = fkdb("share", "fetch", f"{server.url}/share", disk / "got")
            assert done.returncode == 1 and done.stderr.count("\n") == 1, done.stderr
            assert "there is room for" in done.stderr or "No space left on device" in done.stderr or "disk" in done.stderr
            assert not (disk / "got/manifest.json").exists()
        subprocess.run(["mount", "-o", "remount,size=64m", disk], check=True)
        fkdb.ok("share", "fetch", f"{server.url}/share", disk / "got")
        assert same(share, disk / "got")
    finally:
        subprocess.run(["umount", disk], check=True)


def test_hostile_servers(fkdb, server, share, packed, tmp_path):
    """Exit 3, or 1 where there is just no share, in less than 400 MiB and not long."""
    manifest, signature = share / "manifest.json", share / "manifest.json.sig"
    text, key = manifest.read_text(), packed / "team.pub"

    def limited():
        resource.setrlimit(resource.RLIMIT_AS, (400 << 20, 400 << 20))

    def fails(code, said, *flags):
        begun = time.monotonic()
        done = fkdb("share", "fetch", f"{server.url}/share", tmp_path / "got", "--connections", 1, "--threads", 1, *flags, preexec_fn=limited)
        assert done.returncode == code and done.stderr.count("\n") == 1 and said in done.stderr, done.stderr
        assert time.monotonic() - begun < 10 and not (tmp_path / "got/manifest.json").exists()

    fails(3, f"{server.url}/share/manifest.json.sig: no signature of this manifest.json by {packed}/others.pub", "--trust", packed / "others.pub")
    with open(manifest, "wb") as file:  # a gigabyte
        file.truncate(1 << 30)
    fails(3, f"{server.url}/share/manifest.json: {1 << 30} bytes, at most {256 << 20}")
    for bad, said in (("[" * 100_000_000, "lists in lists, 33 deep"), (text.replace("labels-00000.fkp", "../../x"), "is not labels-NNNNN.fkp, but '../../x'"),
                      (text.replace('"images": 9000', '"images": 900000000'), "manifest.json: "), ("", "not a JSON object"), ("<html>", "not a JSON object")):
        manifest.write_text(bad)
        fails(3, said)
        fails(3, "no signature of this manifest.json", "--trust", key)
    manifest.write_text(text)
    signature.write_bytes(signature.read_bytes() + b"x")
    fails(3, f"{server.url}/share/manifest.json.sig: 65 bytes, at most 64", "--trust", key)
    signature.unlink()
    fails(3, "its manifest is not signed (no manifest.json.sig): nobody whom you trust vouches for it", "--trust", key)
    # Shards that took each other's place, one that is cut, one with an index of another.
    shards = [share / "labels-00000.fkp", share / "labels-00001.fkp"]
    good = [path.read_bytes() for path in shards]
    for path, swapped in zip(shards, reversed(good)):
        path.write_bytes(swapped)
    fails(3, "the manifest says")
    shards[0].write_bytes(good[0][:-100] + bytes(100))
    shards[1].write_bytes(good[1])
    fails(3, "labels-00000.fkp: its index has SHA-256")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["got"] and hashlib.sha256(good[1]).hexdigest() in text
    # A manifest that nobody signed may say that a small file is a large index.
    claims = json.loads(text)
    at = claims["shards"][0]["index"]
    at["bytes"], at["at"] = 200 << 20, 16
    claims["total_bytes"] += (200 << 20) + 16 - claims["shards"][0]["bytes"]
    claims["shards"][0]["bytes"] = (200 << 20) + 16
    manifest.write_text(json.dumps(claims))
    fails(3, f"labels-00000.fkp: {len(good[0])} bytes, the manifest says {(200 << 20) + 16}")


class Crooked(http.server.BaseHTTPRequestHandler):
    """A server that answers as no server should; `way` says how."""

    protocol_version = "HTTP/1.1"
    folder, way, requests = None, "", 0

    def do_GET(self):
        type(self).requests += 1
        file = self.folder / self.path.rsplit("/", 1)[-1]
        if not file.exists() or (self.way == "forbids" and file.suffix == ".sig"):
            return self.send_error(403 if self.way == "forbids" else 404)
        body, part = file.read_bytes(), re.fullmatch(r"bytes=(\d+)-(\d+)", self.headers.get("Range", ""))
        shard = file.suffix == ".fkp"
        if part and not (shard and self.way == "empty"):
            first, last = int(part[1]), int(part[2])
            body = body[first:last + 1]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{last}/{file.stat().st_size}")
        else:
            self.send_response(200)
        length = len(body)
        if shard and self.way == "empty":
            body, length = b"", 0
        elif shard and self.way == "never ends":
            length += 100
            self.close_connection = True
        elif shard and self.way == "a byte":
            body = body[:1]
            self.close_connection = True
        self.send_header("Content-Length", str(length))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass


@pytest.fixture
def crooked(share):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Crooked)
    Crooked.folder, Crooked.requests = share, 0
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_servers_that_answer_as_none_should(fkdb, server, share, packed, crooked, tmp_path):
    # Nothing where a whole shard should come.
    Crooked.way = "empty"
    done = fkdb("share", "fetch", crooked, tmp_path / "empty")
    assert done.returncode == 3 and "0 bytes" in done.stderr and not (tmp_path / "empty/manifest.json").exists()
    # All that was asked for, and a connection that then is cut.
    Crooked.way = "never ends"
    fkdb.ok("share", "fetch", crooked, tmp_path / "all", "--retries", 1)
    assert same(share, tmp_path / "all")
    # A byte, again and again: it is given up, and the other mirror has the rest.
    Crooked.way, Crooked.requests = "a byte", 0
    got = fkdb.json("share", "fetch", crooked, server.url + "/share", tmp_path / "byte", "--retries", 1, "--connections", 1)
    assert same(share, tmp_path / "byte") and got["mirrors"][0]["given_up"] and Crooked.requests < 10
    # A bucket that forbids what it does not have: not signed, unless somebody asks.
    Crooked.way = "forbids"
    assert fkdb.json("share", "fetch", crooked, tmp_path / "bucket")["signature"] == "none"
    assert fkdb("share", "fetch", crooked, tmp_path / "bucket2", "--trust", packed / "team.pub").returncode == 1
    # Of a mirror that lost it the signature that was checked is not lost.
    fkdb.ok("share", "fetch", server.url + "/share", tmp_path / "bucket", "--trust", packed / "team.pub")
    fkdb.ok("share", "fetch", crooked, tmp_path / "bucket")
    fkdb.ok("share", "verify", tmp_path / "bucket", "--trust", packed / "team.pub")


def test_folders_of_strangers(fkdb, server, share, tmp_path):
    """Links in the folder that is written lead nowhere, and what is said in a manifest is shown as text."""
    got, victim = tmp_path / "got", tmp_path / "victim"
    victim.write_text("mine")
    got.mkdir()
    for name in ("labels-00000.fkp", "labels-00001.fkp.partial", "manifest.json.partial", "part.json.partial"):
        (got / name).symlink_to("../victim")
    for place in ("share", "noranges/share"):
        fkdb.ok("share", "fetch", f"{server.url}/{place}", got)
        assert victim.read_text() == "mine" and not (got / "labels-00000.fkp").is_symlink() and not (got / "manifest.json").is_symlink()
        (got / "labels-00001.fkp").unlink()
        (got / "labels-00001.fkp").symlink_to("../victim")
    (got / "labels-00001.fkp").unlink()
    os.link(share / "labels-00001.fkp", got / "labels-00001.fkp")
    fkdb.fails(1, f"{got}/labels-00001.fkp: a link to another file, or none at all: it is not written to; remove it", "share", "fetch", f"{server.url}/share", got)
    text = (share / "manifest.json").read_text()
    (share / "manifest.json").write_text(text.replace('"notes": ""', '"notes": "\\u001b[31m\\nsignature  signed by a trusted key"'))
    assert "notes      \\x1b[31m\\x0asignature  signed by a trusted key\n" in fkdb.ok("share", "info", share)
    # A part that is all is no part: everything is checked.
    (share / "part.json").write_text(json.dumps({"format": "fkdb-share-part", "format_version": 1, "features": [], "images": [], "crops": 0, "classes": []}))
    (share / "manifest.json").write_text(re.sub('"digest": "sha256:[0-9a-f]', '"digest": "sha256:' + "0", text) if '"digest": "sha256:0' not in text
                                         else text.replace('"digest": "sha256:0', '"digest": "sha256:1'))
    assert fkdb("share", "verify", share, "--deep").returncode == 3


def test_what_was_fetched_trains_to_the_same_weights(fkdb, server, labels, tmp_path):
    shutil.rmtree(server.www / "fashion", ignore_errors=True)
    fkdb.ok("share", "pack", labels, server.www / "fashion")
    fkdb.ok("share", "fetch", f"{server.url}/fashion", tmp_path / "got")
    fkdb.ok("share", "unpack", tmp_path / "got", tmp_path / "got.fkdb")
    for name, db in (("original", labels), ("fetched", tmp_path / "got.fkdb")):
        fkdb.ok("train", "--images", TRAIN, "--limit", 500, "--db", db, "--model", "resnet6-w4", "--crops-per-image", 2, "--epochs", 2,
                "--batch-size", 32, "--seed", 3, "--out", tmp_path / name)
    assert (tmp_path / "original/weights.safetensors").read_bytes() == (tmp_path / "fetched/weights.safetensors").read_bytes()
