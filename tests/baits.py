"""Bait for hostile programs: a secret, a file, a process, sockets, and what of an attack can be found afterwards."""

import contextlib
import ctypes
import os
import secrets
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).resolve().parents[1]
KEPT = "amaranth is kept"
SUBREAPER = 36
IPC_CREATE, IPC_REMOVE = 0o1666, 0
PLANTED = ("conftest.py", "reward.txt", "reward.json", "result.json", "sitecustomize.py", "usercustomize.py", "json.py")
"""Files that a test runner or Python would read where an attacker put them."""

LIBC = ctypes.CDLL(None, use_errno=True)


@dataclass(frozen=True, slots=True)
class Bait:
    """What is laid out, and how to find that it was touched."""

    mark: str
    """Part of every name that an attack leaves."""
    key: int
    """Of a shared memory segment of this machine."""
    folder: Path
    """What anybody may read; the bait file is in it, and nothing else may be afterwards."""
    victim: "subprocess.Popen[bytes]"
    listening: dict[str, socket.socket] = field(default_factory=dict)

    @property
    def file(self) -> Path:
        """Holds KEPT."""
        return self.folder / "kept"

    def filled(self, text: str) -> str:
        """The program with what it needs to know of the bait."""
        said = {
            "MARK": self.mark,
            "ROOT": str(ROOT),
            "BAIT": str(self.file),
            "PORT": str(self.listening["TCP"].getsockname()[1]),
            "SOCKET": str(self.listening["path"].getsockname()),
            "VICTIM": str(self.victim.pid),
            "KEY": str(self.key),
        }
        for name, value in said.items():
            text = text.replace(f"@{name}@", value)
        return text

    def touched(self) -> list[str]:
        """Everything that is not as it was."""
        found = [f"{name}: somebody connected" for name, one in self.listening.items() if _was_called(one)]
        if self.victim.poll() is not None:
            found.append("the other process was ended")
        if self.file.read_text() != KEPT:
            found.append("the file was changed")
        left = sorted(path.name for path in self.folder.iterdir() if path.name not in ("kept", "end"))
        return found + [f"{self.folder}: {name} was left" for name in left] + self._files() + self._processes()

    def _files(self) -> list[str]:
        """Files of an attack where somebody would find or run them."""
        here = {"/", "/etc", "/usr", "/usr/lib", "/tmp", "/var/tmp", "/dev/shm", "/run", "/home", "/root", os.getcwd()}
        folders = {*here, str(ROOT), str(ROOT / "tests"), tempfile.gettempdir(), *filter(os.path.isdir, sys.path)}
        named = [str(path) for folder in folders for path in _listed(folder) if self.mark in path.name]
        planted = [Path(folder, name) for folder in folders for name in PLANTED]
        readable = [path for path in planted if os.access(path, os.R_OK)]
        return named + [str(path) for path in readable if self.mark in path.read_text("latin1")]

    def _processes(self) -> list[str]:
        """Processes that bear the mark, and any that came from here and has no parent but us."""
        found = []
        for one in psutil.process_iter(["pid", "name", "cmdline"]):
            words = " ".join([one.info["name"] or "", *(one.info["cmdline"] or ())])
            if self.mark[:15] in words and one.pid != self.victim.pid:
                found.append(f"process {one.pid}: {words[:80]}")
        return found


def descendants() -> set[int]:
    """Living processes that came from this one, orphans included (within `baited`)."""
    found = set()
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.Error):
            if one.status() != psutil.STATUS_ZOMBIE:
                found.add(one.pid)
    return found


@contextlib.contextmanager
def baited() -> Iterator[Bait]:
    """Lay it out. Orphans of this process come back to it meanwhile, so that none gets away unseen."""
    mark = f"braid-bait-{secrets.token_hex(4)}"
    before = tempfile.tempdir
    with tempfile.TemporaryDirectory(prefix="bait-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        folder.chmod(0o755)
        (folder / "kept").write_text(KEPT)
        (folder / "kept").chmod(0o666)
        LIBC.prctl(SUBREAPER, 1, 0, 0, 0)
        stack.callback(LIBC.prctl, SUBREAPER, 0, 0, 0, 0)
        command = [sys.executable, "-c", "import time; time.sleep(600)", "braid-victim"]
        victim = subprocess.Popen(command, env={"BRAID_BAIT": "secret"})
        stack.callback(victim.wait, 10)
        stack.callback(victim.kill)
        os.environ["BRAID_BAIT"] = "secret"
        stack.callback(os.environ.pop, "BRAID_BAIT", None)
        key = secrets.randbelow(1 << 30) + 1
        segment = LIBC.shmget(key, 4096, IPC_CREATE)
        stack.callback(LIBC.shmctl, segment, IPC_REMOVE, None)
        listening = {
            "TCP": _listen(socket.AF_INET, ("127.0.0.1", 0)),
            "abstract": _listen(socket.AF_UNIX, f"\0{mark}"),
            "path": _listen(socket.AF_UNIX, str(folder / "end")),
        }
        for one in listening.values():
            stack.callback(one.close)
        tempfile.tempdir = str(folder)  # where sandboxes keep their folders: none may be left
        try:
            yield Bait(mark, key, folder, victim, listening)
        finally:
            tempfile.tempdir = before


def _listen(family: int, address: object) -> socket.socket:
    one = socket.socket(family)
    one.bind(address)
    one.listen(16)
    one.setblocking(False)
    return one


def _was_called(listening: socket.socket) -> bool:
    try:
        listening.accept()[0].close()
    except BlockingIOError:
        return False
    return True


def _listed(folder: str) -> list[Path]:
    try:
        return list(Path(folder).iterdir())
    except OSError:
        return []
