"""Whether this machine gives a sandbox that holds: found out by trying to get out of one, once per process."""

import json
import os
import tempfile
from functools import lru_cache
from pathlib import Path

from verifiers.sandbox import FIRST_UID, JOB, PYTHON, Cgroups, Ended, Limits, NoSandboxError, Sandbox, folder_of

LIMITS = Limits(seconds=10.0, memory_bytes=256 << 20, processes=8)

ATTEMPTS = f"""
import ctypes, json, os, socket
def tried(what):
    try:
        return str(what())
    except OSError as error:
        return ""
secret = open("{JOB}/secret").read()
libc = ctypes.CDLL(None, use_errno=True)
def cloned():
    child = libc.syscall(56, 0x10000011, 0, 0, 0, 0)  # clone(CLONE_NEWUSER | SIGCHLD) on x86-64
    if child == 0:
        os._exit(0)
    return child == -1
def forks():
    born = []
    try:
        while len(born) < 64:
            child = os.fork()
            if not child:
                import time
                time.sleep(60)
            born.append(child)
    except OSError:
        return ""
    return "64 processes"
print(json.dumps({{
    "a file of the host": tried(lambda: open(secret).read()),
    "the host's users": tried(lambda: open("/etc/passwd").read()),
    "other processes": tried(lambda: os.listdir("/proc")),
    "the environment of another process": tried(lambda: open("/proc/1/environ").read()),
    "the network": tried(lambda: socket.create_connection(("127.0.0.1", 9), 0.2)) or tried(lambda: socket.socket()),
    "its own files": tried(lambda: open("{JOB}/secret", "w")),
    "root": "" if os.getuid() and os.geteuid() else "uid 0",
    "new namespaces": "" if libc.unshare(0x10000000) and cloned() else "a namespace of its own",
    "the environment": os.environ.get("BRAID_PROBE", ""),
    "more processes than allowed": forks(),
}}))
"""
"""Each entry is what could be reached that must not be; empty is right."""


@lru_cache(maxsize=4)
def sandbox(places: int = 2) -> Sandbox:
    """A sandbox that was tried out. NoSandboxError says what failed or what could be reached."""
    made = Sandbox(places, Cgroups.found())
    reason = breach(made)
    if reason and made.cgroups.version:
        # Groups that can be made and yet not used (no controller passed on): the other walls must hold alone.
        made = Sandbox(places, Cgroups())
        reason = breach(made)
    if reason:
        raise NoSandboxError(reason)
    return made


def breach(made: Sandbox) -> str:
    """What is wrong with the sandbox; empty if nothing could be reached."""
    with tempfile.NamedTemporaryFile("w", prefix="braid-probe-") as secret:
        secret.write("seen")
        secret.flush()
        Path(secret.name).chmod(0o644)
        os.environ["BRAID_PROBE"] = "seen"
        try:
            files = {"probe.py": ATTEMPTS.encode(), "secret": secret.name.encode()}
            with folder_of(files) as folder:
                ran = made.run([f"{PYTHON}/bin/python3", "-I", "-S", f"{JOB}/probe.py"], folder, b"", LIMITS)
        finally:
            del os.environ["BRAID_PROBE"]
    if ran.ended == Ended.BROKEN:
        return ran.reason
    try:
        reached = json.loads(ran.stdout)
    except ValueError:
        return (
            f"the probe did not answer ({ran.ended}, status {ran.code}): {ran.stderr.decode(errors='replace')[-300:]}"
        )
    return "; ".join(f"{what} can be reached" for what, got in reached.items() if got)


def described(made: Sandbox) -> str:
    """The sandbox in words, for `braid doctor`."""
    who = f"users from {FIRST_UID}" if os.geteuid() == 0 else "a user namespace"
    groups = f"control groups v{made.cgroups.version}" if made.cgroups.version else "rlimits alone (no control groups)"
    return f"nsjail, {who}, {groups}"
