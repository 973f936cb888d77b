# SPDX-License-Identifier: Apache-2.0
"""Programs under way: as torchrun starts them, and up to some point of their work."""

import pathlib
import socket
import sys
import time

TORCHRUN = pathlib.Path(sys.executable).parent / "torchrun"


def torchrun(processes, command, *flags):
    # A free port: several runs at once must not meet.
    return [*map(str, [TORCHRUN, "--standalone", "--nproc-per-node", processes, *flags, "--no-python", *command])]


def ranks_of(launcher):
    """The processes that it started, by rank."""
    found = {}
    for folder in pathlib.Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            parent = int((folder / "stat").read_text().rsplit(")", 1)[1].split()[1])
            environment = (folder / "environ").read_bytes()
        except OSError:
            continue
        if parent == launcher.pid and b"\0RANK=" in b"\0" + environment:
            found[int((b"\0" + environment).split(b"\0RANK=")[1].split(b"\0")[0])] = int(folder.name)
    return found


def wait_for(condition, running, seconds=240):
    """Until the condition holds, of a process that runs meanwhile."""
    until = time.monotonic() + seconds
    while not condition():
        if running.poll() is not None or time.monotonic() > until:
            running.kill()
            raise AssertionError(running.communicate())
        time.sleep(0.005)


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]
