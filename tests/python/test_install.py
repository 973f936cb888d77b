# SPDX-License-Identifier: Apache-2.0
"""The package as users get it: pip install into an empty environment, and a wheel for machines without our libraries."""

import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig

import pytest

TREE = pathlib.Path(__file__).resolve().parents[2]
# What a machine has that can run Python at all.
SYSTEM = ("ld-linux-x86-64.so.2", "libc.so.6", "libm.so.6", "libdl.so.2", "libpthread.so.0", "librt.so.1", "libutil.so.1",
          "libstdc++.so.6", "libgcc_s.so.1", "libz.so.1")
ALL_PYTHONS = os.environ.get("FKDB_LONG_TESTS") == "1"

SCRIPT = """
import json, sys
import fkdb
db = fkdb.open(sys.argv[1])
batch = db.sample([0, 1], 2)
report = fkdb.verify(sys.argv[1])
pixels = fkdb.decode(open(sys.argv[2], "rb").read())
fkdb.subset(db, sys.argv[3], crops=1)
print(json.dumps({"version": fkdb.__version__, "images": len(db), "dense": fkdb.recover(batch).sum(1).tolist(), "ok": report.ok,
                  "pixels": pixels.shape, "subset": len(fkdb.open(sys.argv[3])), "torch": "torch" in sys.modules}))
"""


def environment():
    """CMake and Ninja of the tree, and the compiler's cache."""
    bin = pathlib.Path(sys.executable).parent
    return {**{k: v for k, v in os.environ.items() if k != "PYTHONPATH"}, "PATH": f"{bin}:{os.environ['PATH']}",
            "CXX": "/usr/bin/c++", "CMAKE_CXX_COMPILER_LAUNCHER": "ccache"}


def run(*command, **options):
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, timeout=800, **options)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-4000:]
    return done.stdout


def check(output):
    result = json.loads(output)
    assert result.pop("dense") == pytest.approx([1, 1, 1, 1], abs=1e-5)
    assert result == {"version": "0.1.0", "images": 500, "ok": True, "pixels": [1, 1, 3], "subset": 500, "torch": False}


@pytest.fixture(scope="module")
def png(tmp_path_factory):
    from PIL import Image
    path = tmp_path_factory.mktemp("png") / "x.png"
    Image.new("RGB", (1, 1)).save(path)
    return path


def pythons():
    """This one; in long tests every other that there is, of the versions we promise."""
    found = {sys.version_info[1]: sys._base_executable}
    for minor in range(10, 14) if ALL_PYTHONS else ():
        for path in [shutil.which(f"python3.{minor}"), *pathlib.Path.home().glob(f".pyenv/versions/3.{minor}.*/bin/python")]:
            if path and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
                found.setdefault(minor, str(path))
    return found.values()


@pytest.mark.parametrize("python", pythons())
def test_pip_install_into_an_empty_environment(python, labels, png, tmp_path):
    run(python, "-m", "venv", tmp_path / "venv")
    bin = tmp_path / "venv/bin"
    run(bin / "pip", "install", "--disable-pip-version-check", "--config-settings=cmake.define.FKDB_WERROR=ON", TREE, env=environment())
    check(run(bin / "python", "-c", SCRIPT, labels, png, tmp_path / "one.fkdb", cwd=tmp_path, env=environment()))
    assert run(bin / "fkdb-dump", "--version") == "fkdb-dump 0.1.0\n"
    assert run(bin / "python", "-m", "fkdb", "verify", labels).startswith("ok: 500 images")
    package = pathlib.Path(run(bin / "python", "-c", "import fkdb; print(fkdb.__path__[0])", cwd=tmp_path).strip())
    assert {"py.typed", "_core.pyi", "torch.py"} <= {path.name for path in package.iterdir()}
    assert "def sample(" in (package / "_core.pyi").read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, for chroot")
def test_the_wheel_runs_where_our_libraries_are_not(labels, png, tmp_path):
    wheel = TREE / run(TREE / "tools/wheel", env={**os.environ, "FKDB_HAS_TURN": "1"}).split()[-1]
    assert "manylinux" in wheel.name
    root = tmp_path / "root"
    run(sys._base_executable, "-m", "venv", tmp_path / "venv")
    site = root / "site"
    run(tmp_path / "venv/bin/pip", "install", "--disable-pip-version-check", "-q", "--target", site, wheel)

    def copy(path):
        target = root / str(path).lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)

    def copy_libraries(binary):
        for line in subprocess.run(["ldd", binary], capture_output=True, text=True).stdout.splitlines():
            name, _, where = line.strip().partition(" => ")
            path = where.split(" ")[0] or name.split(" ")[0]
            if path.startswith("/") and (pathlib.Path(path).name in SYSTEM or "python" in path):
                copy(path)

    python = pathlib.Path(sys._base_executable).resolve()
    copy(python)
    copy_libraries(python)
    for name in SYSTEM:  # libstdc++ is not Python's own
        for folder in ("/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu", "/lib64"):
            if (pathlib.Path(folder) / name).exists():
                copy(pathlib.Path(folder) / name)
                break
    stdlib = pathlib.Path(sysconfig.get_path("stdlib", vars={"base": sys.base_prefix, "installed_base": sys.base_prefix}))
    shutil.copytree(stdlib, root / str(stdlib).lstrip("/"), ignore=shutil.ignore_patterns("site-packages", "test", "dist-packages", "config-*"))
    (root / "tmp").mkdir(exist_ok=True)
    for path in (labels, png):
        shutil.copy(path, root / "tmp" / path.name)
    assert not list(root.rglob("lib/**/liblmdb*")), "the root is to have none of our libraries but those in the wheel"
    command = [shutil.which("chroot") or "/usr/sbin/chroot", root, python, "-c", SCRIPT, f"/tmp/{labels.name}", f"/tmp/{png.name}", "/tmp/one.fkdb"]
    check(run(*command, env={"PYTHONPATH": "/site", "PYTHONHOME": sys.base_prefix, "LC_ALL": "C.UTF-8"}))
    # Without what the wheel brings along, it does not: the test can fail.
    shutil.rmtree(next(site.glob("fkdb.libs")))
    broken = subprocess.run([*map(str, command)], capture_output=True, text=True, env={"PYTHONPATH": "/site", "PYTHONHOME": sys.base_prefix})
    assert broken.returncode != 0 and "cannot open shared object file" in broken.stderr
