"""The sandbox: what runs in it reaches nothing, keeps its limits, and leaves nothing behind."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from verifiers.census import descendants
from verifiers.sandbox import JOB, PYTHON, Cgroups, Ended, Limits, Sandbox, folder_of
from verifiers.sandbox_probe import breach, described, sandbox

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def jail():
    return sandbox(2)


def run(jail, source, stdin=b"", **limits):
    with folder_of({"program.py": source.encode()}) as folder:
        return jail.run([f"{PYTHON}/bin/python3", "-I", "-S", f"{JOB}/program.py"], folder, stdin, Limits(**limits))


def test_this_machine_has_one(jail):
    assert breach(jail) == ""
    assert described(jail).startswith("nsjail, ")


def test_it_holds_without_control_groups_too():
    assert breach(Sandbox(1, Cgroups())) == ""


def test_a_wall_that_is_missing_is_found():
    """The probe can fail: a sandbox that mounts the host's /etc, or lets sockets through, is no sandbox."""
    jail = sandbox(1)
    holes = [
        (lambda command: [*command[:1], "--bindmount_ro", "/etc", *command[1:]], "the host's users"),
        (lambda command: [part.replace("socket(domain) { domain != 1 }", "acct") for part in command], "the network"),
        (lambda command: [part for part in command if part != "--disable_proc"], "other processes"),
        (lambda command: [part.replace("(flags & 0x7E020080)", "(flags & 0x20000)") for part in command], "namespaces"),
    ]
    for hole, found in holes:
        assert found in breach(Leaking(jail, hole))


class Leaking(Sandbox):
    """A sandbox with a hole in its command line."""

    def __init__(self, jail, hole):
        super().__init__(1, jail.cgroups)
        self.hole = hole

    def _jail(self, *args):
        return self.hole(Sandbox._jail(self, *args))


def test_what_it_prints_and_its_status_come_back(jail):
    ran = run(jail, "import sys; print(input()[::-1]); print('x', file=sys.stderr); sys.exit(7)", b"abc\n")
    assert (ran.ended, ran.code, ran.stdout, ran.stderr) == (Ended.EXITED, 7, b"cba\n", b"x\n")


def test_status_255_is_the_programs_own(jail):
    assert (run(jail, "raise SystemExit(255)").ended, run(jail, "raise SystemExit(255)").code) == (Ended.EXITED, 255)


def test_a_command_that_is_not_there_is_the_sandboxs_fault(jail):
    with folder_of({}) as folder:
        ran = jail.run(["/no/such/command"], folder, b"", Limits())
    assert ran.ended == Ended.BROKEN and "No such file" in ran.reason


BUSY = {Ended.EXITED, Ended.SLOW, Ended.STARVED}
"""How a run that uses all its time ends: by the kernel at its CPU limit, or at the wall clock on a busy machine."""


@pytest.mark.parametrize(
    ("source", "ended"),
    [
        ("while True: pass", BUSY),
        ("import time; time.sleep(60)", {Ended.SLOW}),
        ("import signal\nfor n in range(1, 32):\n try: signal.signal(n, signal.SIG_IGN)\n except OSError: pass\n"
         "import time; time.sleep(60)", {Ended.SLOW}),
        ("while True: print('x' * 4096)", {Ended.FLOODED}),
        ("import sys\nwhile True: sys.stderr.write('x' * 4096)", BUSY | {Ended.FLOODED}),
        ("import time; time.sleep(1.7)\nwhile True: pass", {Ended.SLOW}),  # ready to run at the end, by its own choice
        ("import os; os.close(1); os.close(2)\nwhile True: pass", BUSY),
    ],
)  # fmt: skip
def test_it_ends_whatever_it_does(jail, source, ended):
    began = time.monotonic()
    ran = run(jail, source, seconds=0.5)
    assert time.monotonic() - began < 15
    assert ran.ended in ended
    assert ran.code != 0
    assert len(ran.stderr) <= 1 << 17


def test_memory_of_one_process_and_of_all(jail):
    one = run(jail, "x = bytearray(400 << 20); print(len(x))", memory_bytes=128 << 20)
    assert b"MemoryError" in one.stderr or one.code == 137
    if jail.cgroups.version:
        source = (
            "import os, time\nborn = []\nfor _ in range(6):\n pid = os.fork()\n if not pid:\n"
            "  x = bytearray(b'a') * (60 << 20); time.sleep(1); os._exit(0)\n born.append(pid)\n"
            "print(sum(os.waitpid(pid, 0)[1] == 0 for pid in born))"
        )
        ran = run(jail, source, memory_bytes=128 << 20)
        assert ran.code == 137 or int(ran.stdout) <= 2


def test_the_disk_is_its_own_and_small(jail):
    source = "open('/tmp/x', 'wb').write(b'a' * (200 << 20))"
    ran = run(jail, source, file_bytes=8 << 20)
    assert ran.code and (b"No space" in ran.stderr or b"File too large" in ran.stderr)
    assert b"[]" in run(jail, "import os; print(os.listdir('/tmp'))").stdout


def test_nothing_of_this_process_comes_along(jail, tmp_path):
    os.environ["BRAID_TEST_SECRET"] = "hunter2"
    try:
        with open(tmp_path / "secret", "w+") as secret:
            secret.write("hunter2")
            secret.flush()
            os.set_inheritable(secret.fileno(), True)
            ran = run(
                jail,
                "import os; print(dict(os.environ))\n"
                "for n in range(3, 64):\n try: print(n, os.fstat(n))\n except OSError: pass",
            )
    finally:
        del os.environ["BRAID_TEST_SECRET"]
    assert b"hunter2" not in ran.stdout + ran.stderr
    assert not re.search(rb"^\d+ os.stat_result", ran.stdout, re.MULTILINE)
    assert ran.stdout.startswith(b"{'PATH'")


def test_no_process_outlives_its_run(jail):
    marker = f"survivor-{os.getpid()}"
    source = (
        "import ctypes, os, signal, time\n"
        f"ctypes.CDLL(None).prctl(15, b'{marker}'[:15])\n"
        "ctypes.CDLL(None).prctl(1, 0)\n"  # the death of its parent is no signal to it
        "if not os.fork():\n os.setsid()\n if os.fork(): os._exit(0)\n"
        " for n in range(1, 32):\n  try: signal.signal(n, signal.SIG_IGN)\n  except OSError: pass\n"
        " time.sleep(600)\n"
        "time.sleep(0.3); print('left')"
    )
    assert run(jail, source).stdout == b"left\n"
    assert not [one for one in psutil.process_iter(["name"]) if one.info["name"] == marker[:15]]


def runs(process, file):
    """Whether the file is on the process's command line; False for one that has ended meanwhile."""
    try:
        return file in " ".join(process.cmdline())
    except psutil.Error:
        return False


def test_a_supervisor_that_is_killed_takes_the_run_with_it():
    """SIGKILL on the process that judges: nsjail has a time limit of its own, and what it holds goes with it."""
    source = (
        "from verifiers.sandbox_probe import sandbox\nfrom verifiers.sandbox import *\n"
        "with folder_of({'p.py': b'import time; time.sleep(600)'}) as folder:\n"
        " sandbox(1).run([f'{PYTHON}/bin/python3', f'{JOB}/p.py'], folder, b'', Limits(seconds=1))"
    )
    judge = subprocess.Popen([sys.executable, "-c", source], cwd=ROOT)
    deadline = time.monotonic() + 30
    while not (below := [one for one in descendants(judge.pid) if runs(one, "p.py")]):
        assert time.monotonic() < deadline, "the run did not begin"
        time.sleep(0.05)
    judge.send_signal(signal.SIGKILL)
    judge.wait(timeout=10)
    _, alive = psutil.wait_procs(below, timeout=20)
    assert not alive


def test_runs_at_once_cannot_signal_each_other(jail):
    found = []

    def victim():
        found.append(run(jail, "import time; time.sleep(1.5); print('whole')", seconds=3))

    waiting = threading.Thread(target=victim)
    waiting.start()
    attack = "import os\nfor pid in range(2, 60000):\n try: os.kill(pid, 9)\n except OSError: pass"
    run(jail, attack, seconds=3)
    waiting.join(timeout=30)
    assert found[0].stdout == b"whole\n"


def test_a_starved_program_is_not_a_slow_one(jail):
    """Twelve others on its one CPU: it was ready to run and had no time, and that says nothing of the program."""
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(allowed)})
    hog = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(hog, start_new_session=True) for _ in range(12)]  # a share of the CPU is a session's
    try:
        assert run(jail, "while True: pass", seconds=1.0).ended == Ended.STARVED
        assert run(jail, "import time; time.sleep(60)", seconds=0.2).ended == Ended.SLOW
    finally:
        for one in hogs:
            one.kill()
            one.wait(timeout=10)
        os.sched_setaffinity(0, allowed)


def test_a_large_input_to_a_program_that_does_not_read(jail):
    assert run(jail, "print('done')", b"x" * (8 << 20)).stdout == b"done\n"


def test_binary_output_comes_back_whole(jail):
    every = bytes(range(256)) * 100
    assert run(jail, "import sys; sys.stdout.buffer.write(sys.stdin.buffer.read())", every).stdout == every
