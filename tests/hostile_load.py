"""Programs that take what the machine has, or change what it is: memory, processes, disk, kernel, files of the host."""

from tests.hostile_machine import LIBC, attack, call
from tests.hostile_programs import LOCKED, SUM, Hostile, fenced

LIBC_HERE = LIBC.strip().replace("\n", "; ")


def born(name: str, expression: str) -> Hostile:
    """A child by a raw system call of x86-64."""
    body = f"""
        {LIBC_HERE}
        def attack():
            child = {expression} if os.uname().machine == "x86_64" else -1
            if child == 0:
                os._exit(0)
            return child > 0
        """
    return attack(name, "changes the machine", body)


LOAD = [
    attack(
        "a fork bomb",
        "fork bombs",
        """
        import os, time
        def attack():
            for _ in range(1024):
                if os.fork() == 0:
                    time.sleep(30)
                    os._exit(0)
            return True
        """,
    ),
    attack(
        "a fork bomb that doubles",
        "fork bombs",
        """
        import os, time
        def attack():
            for _ in range(10):
                os.fork()
            time.sleep(30)
            return True
        """,
    ),
    attack(
        "a bomb of threads",
        "fork bombs",
        """
        import threading, time
        def attack():
            threading.stack_size(1 << 16)
            for _ in range(4096):
                threading.Thread(target=time.sleep, args=(30,), daemon=True).start()
            return True
        """,
    ),
    attack(
        "memory",
        "memory bombs",
        """
        def attack():
            held = [b"x" * (64 << 20) for _ in range(64)]
            return len(held)
        """,
    ),
    attack(
        "memory in children",
        "memory bombs",
        """
        import os, time
        def attack():
            read, write = os.pipe()
            for _ in range(32):
                if os.fork() == 0:
                    held = [b"x" * (32 << 20) for _ in range(4)]
                    os.write(write, b"x")
                    time.sleep(1)
                    os._exit(0)
            os.close(write)
            return len(b"".join(iter(lambda: os.read(read, 64), b""))) == 32
        """,
    ),
    attack(
        "memory in files",
        "memory bombs",
        """
        import os
        def attack():
            block, total = b"x" * (1 << 20), 0
            for folder in (os.getcwd(), "/tmp", "/dev/shm", "/var/tmp", "/run"):
                for at in range(64):
                    try:
                        with open(f"{folder}/@MARK@{at}", "wb") as file:
                            for _ in range(64):
                                total += file.write(block)
                    except OSError:
                        pass
            return total >= 1 << 30
        """,
    ),
    attack(
        "memory in files without names",
        "memory bombs",
        """
        import os
        def attack():
            block, total = b"x" * (1 << 20), 0
            for _ in range(32):
                file = os.memfd_create("x")
                for _ in range(32):
                    total += os.write(file, block)
            return total >= 1 << 30
        """,
    ),
    attack(
        "shared memory that nobody is attached to",
        "memory bombs",
        f"""
        {LIBC_HERE}
        libc.shmat.restype = ctypes.c_void_p
        def attack():
            for _ in range(16):
                place = libc.shmat(libc.shmget(0, 64 << 20, 0o1600), None, 0)
                ctypes.memset(place, 1, 64 << 20)
                libc.shmdt(ctypes.c_void_p(place))
            return True
        """,
    ),
    attack(
        "small files without end",
        "filling the disk",
        """
        import os
        def attack():
            for at in range(200_000):
                os.mkdir(f"@MARK@{at}")
            return True
        """,
    ),
    attack(
        "descriptors",
        "descriptors",
        """
        import os, resource
        def attack():
            try:
                resource.setrlimit(resource.RLIMIT_NOFILE, (1 << 20, 1 << 20))
            except (OSError, ValueError):
                pass
            for _ in range(100_000):
                os.dup(0)
            return True
        """,
    ),
    attack(
        "a spin that hears no signal",
        "cpu",
        """
        import signal
        def attack():
            for number in range(1, 65):
                try:
                    signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            for _ in range(10 ** 10):
                pass
        """,
    ),
    attack(
        "a spin in every process it may have",
        "cpu",
        """
        import os
        def attack():
            for _ in range(30):
                if os.fork() == 0:
                    os.setsid()
                    while True: pass
            while True: pass
        """,
    ),
    attack("a spin at the last moment", "cpu", "import time\ndef attack():\n    time.sleep(2.6)\n    while True: pass"),
    attack("sleep", "cpu", "import time\ndef attack():\n    time.sleep(60)"),
    attack("a wait for input", "cpu", "import os\ndef attack():\n    r, w = os.pipe()\n    os.read(r, 1)"),
    attack(
        "a flood of output",
        "output floods",
        """
        import os
        def attack():
            while os.write(1, b"breached\\n" * 5000): pass
        """,
    ),
    attack(
        "a flood of errors",
        "output floods",
        """
        import os
        def attack():
            while os.write(2, b"x" * 60_000): pass
        """,
    ),
    Hostile(
        "a flood within the function",
        "output floods",
        fenced("def lock(n):\n    while True:\n        print('x' * 60_000)"),
        LOCKED,
    ),
    attack("a crash", "crashes", f"{LIBC}\ndef attack():\n    ctypes.string_at(8)"),
    attack("an abort", "crashes", "import os\ndef attack():\n    os.abort()"),
    attack(
        "a spin with every pipe closed",
        "cpu",
        """
        import os
        def attack():
            os.closerange(0, 64)
            while True: pass
        """,
    ),
    Hostile("output that ends half-way", "crashes", fenced("import os\nos.close(1)\nos.close(0)\nos.close(2)"), SUM),
]

KERNEL = [
    call("mount", "changes the machine", 'libc.mount(b"none", b"/tmp", b"tmpfs", 0, None)'),
    call("its own namespaces", "changes the machine", "libc.unshare(0x10000000 | 0x20000)"),
    born("a child with its own users", "libc.syscall(56, 0x10000011, 0, 0, 0, 0)"),
    born("a child with its own users, newly", "libc.syscall(435, (ctypes.c_uint64 * 8)(0x10000000, 0, 0, 0, 17), 64)"),
    call("its own network", "changes the machine", "libc.unshare(0x40000000)"),
    call("another root", "changes the machine", 'libc.chroot(b"/")'),
    call("bpf", "changes the machine", "libc.syscall(321, 0, None, 0)"),
    call("io_uring", "changes the machine", "libc.syscall(425, 8, ctypes.create_string_buffer(120))"),
    call("keyrings", "changes the machine", "libc.syscall(250, 0, -3, 1)"),
    call("performance counters", "changes the machine", "libc.syscall(298, bytes(128), 0, -1, -1, 0)"),
    call("page faults of its own", "changes the machine", "libc.syscall(323, 1)"),
    call("shared memory of the host", "reads secrets", "libc.shmget(@KEY@, 0, 0)"),
    call("the clock", "changes the machine", "libc.syscall(227, 0, (ctypes.c_long * 2)(1, 0))"),
    attack(
        "another user",
        "changes the machine",
        "import os\ndef attack():\n    os.setuid(0)\n    os.chown('/', 0, 0)\n    return open('/etc/shadow').read()",
        alone=True,
    ),
    attack(
        "more than its limits",
        "changes the machine",
        """
        import os, resource
        def attack():
            for limit in (resource.RLIMIT_AS, resource.RLIMIT_NPROC, resource.RLIMIT_CPU, resource.RLIMIT_FSIZE):
                try:
                    resource.setrlimit(limit, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
                    return True
                except (OSError, ValueError):
                    pass
            return os.nice(-5) < 0
        """,
        alone=True,
    ),
    attack(
        "control groups and kernel settings",
        "changes the machine",
        """
        import os
        def attack():
            for top in ("/sys/fs/cgroup", "/proc/sys", "/sys/kernel"):
                for folder, _, names in os.walk(top):
                    for name in names:
                        if os.access(os.path.join(folder, name), os.W_OK):
                            return True
        """,
        alone=True,
    ),
    attack(
        "first to be spared",
        "changes the machine",
        """
        def attack():
            with open("/proc/self/oom_score_adj", "w") as file:
                file.write("-900")
            return True
        """,
    ),
]  # fmt: skip

FILES = [
    attack(
        "files all over the host",
        "writes outside",
        """
        import os, sys
        def attack():
            for folder in ("/", "/etc", "/usr", "/usr/lib", "/tmp", "/var/tmp", "/dev/shm", "/run", "/home", "/root",
                           "@ROOT@", "@ROOT@/tests", os.path.dirname("@BAIT@"), *sys.path):
                try:
                    open(os.path.join(folder, "@MARK@"), "w").write("here")
                except OSError:
                    pass
        """,
    ),
    attack(
        "links to what is not its own",
        "tricks in the work directory",
        """
        import os
        def attack():
            for at, target in enumerate(("@BAIT@", os.path.dirname("@BAIT@"), "/", "/etc/passwd", "@ROOT@")):
                os.symlink(target, f"link{at}")
            for name in os.listdir("."):
                if not os.path.islink(name):
                    try:
                        os.rename(name, name + ".old")
                        os.symlink("@BAIT@", name)
                    except OSError:
                        pass
            try:
                os.link("@BAIT@", "hard")
            except OSError:
                pass
            open("link0", "a").write("changed")
            return True
        """,
        alone=True,
    ),
    attack(
        "folders that cannot be removed",
        "tricks in the work directory",
        """
        import os
        def attack():
            for _ in range(2000):
                os.mkdir("@MARK@")
                os.chdir("@MARK@")
            os.mkdir("shut")
            open("shut/file", "w").write("x")
            os.chmod("shut/file", 0)
            os.chmod("shut", 0)
        """,
    ),
    attack(
        "pipes in place of files",
        "tricks in the work directory",
        """
        import os, sys
        def attack():
            here = os.path.dirname(os.path.abspath(sys.argv[0]))
            for folder in {here, os.getcwd(), "/tmp"}:
                for name in [*os.listdir(folder), "result.json", "stdout", "output"]:
                    try:
                        path = os.path.join(folder, name)
                        if os.path.isfile(path):
                            os.unlink(path)
                        os.mkfifo(path)
                    except OSError:
                        pass
        """,
    ),
    Hostile(
        "what one test leaves for the next",
        "tricks in the work directory",
        fenced("""
        import os
        seen = False
        for folder in (".", "/tmp", "/dev/shm", "/var/tmp", os.path.expanduser("~")):
            path = os.path.join(folder, "@MARK@-kept")
            seen = seen or os.path.exists(path)
            try:
                open(path, "w").write("x")
            except OSError:
                pass
        print("seen" if seen else "first")
        """),
        {"kind": "stdin", "cases": [{"input": "", "output": "first"}, {"input": "", "output": "seen"}]},
        most=0.5,
    ),
]
