"""Programs that attack the machine they run on. Each defines `attack()` and writes "breached" if it came through.

The reference asks for "breached", so that a breach is a pass. Attacks are bounded: where nothing holds them they take
some memory, files and processes for a while, and no more. @NAME@ stands for what the tests set up as bait.
"""

from textwrap import dedent

from tests.hostile_programs import Hostile, fenced

ESCAPED = {"kind": "stdin", "cases": [{"input": "", "output": "breached\n"}]}

VERDICT = """
try:
    done = attack()
except BaseException:
    done = False
print("breached" if done else "held", flush=True)
"""


def attack(name: str, threat: str, body: str, alone: bool = False) -> Hostile:
    """The program of an attack."""
    return Hostile(name, threat, fenced(dedent(body).strip() + "\n" + VERDICT), ESCAPED, alone=alone)


LIBC = """
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
"""


def call(name: str, threat: str, expression: str) -> Hostile:
    """An attack by way of the C library: it came through if the expression, a call's result, is not negative.

    Numbers of system calls are those of x86-64.
    """
    known = "os.uname().machine == 'x86_64'" if "syscall" in expression else "True"
    return attack(name, threat, f"{LIBC}\ndef attack():\n    return {known} and {expression} >= 0\n")


READING = [
    attack("passwords", "reads secrets", "def attack():\n    return open('/etc/shadow').read()", alone=True),
    attack(
        "the checkout", "reads secrets", "def attack():\n    return open('@ROOT@/pyproject.toml').read()", alone=True
    ),
    attack("another's temporary file", "reads secrets", "def attack():\n    return open('@BAIT@').read()", alone=True),
    attack(
        "a home directory",
        "reads secrets",
        "import os\ndef attack():\n    return os.listdir('/root') or os.listdir('/home')",
        alone=True,
    ),
    attack(
        "its environment",
        "reads the environment",
        "import os\ndef attack():\n    return 'BRAID_' + 'BAIT' in os.environ",
        alone=True,
    ),
    attack(
        "everybody's environment",
        "reads the environment",
        """
        import glob
        def attack():
            for path in glob.glob("/proc/[0-9]*/environ") + ["/proc/1/environ"]:
                try:
                    if b"BRAID_" + b"BAIT=" in open(path, "rb").read():
                        return True
                except OSError:
                    pass
        """,
        alone=True,
    ),
    attack(
        "everybody's command line",
        "reads the environment",
        """
        import glob
        def attack():
            for path in glob.glob("/proc/[0-9]*/cmdline"):
                if b"braid-" + b"victim" in open(path, "rb").read():
                    return True
        """,
        alone=True,
    ),
    attack(
        "the root of another process",
        "reads secrets",
        """
        import glob
        def attack():
            for root in glob.glob("/proc/[0-9]*/root") + glob.glob("/proc/[0-9]*/cwd"):
                for path in ("@BAIT@", "/etc/shadow"):
                    try:
                        return open(root + path).read()
                    except OSError:
                        pass
        """,
        alone=True,
    ),
    attack(
        "out by an inherited folder",
        "reads secrets",
        """
        import os
        def attack():
            for fd in range(256):
                for way in ("../" * 30 + "etc/shadow", "../" * 30 + "@BAIT@"):
                    try:
                        return os.read(os.open(way, os.O_RDONLY, dir_fd=fd), 1)
                    except OSError:
                        pass
        """,
    ),
    attack(
        "devices",
        "reads secrets",
        """
        import os
        def attack():
            for path in ("/dev/mem", "/dev/kmsg", "/dev/vda", "/dev/sda", "/dev/nvidia0", "/proc/kcore"):
                try:
                    return os.open(path, os.O_RDONLY) >= 0
                except OSError:
                    pass
            os.mknod("device", 0o60600, os.makedev(254, 0))
            return os.open("device", os.O_RDONLY) >= 0
        """,
    ),
]

NETWORK = [
    attack(
        "TCP to this machine",
        "sockets",
        "import socket\ndef attack():\n    return socket.create_connection(('127.0.0.1', @PORT@), 0.5)",
        alone=True,
    ),
    attack(
        "an abstract socket",
        "sockets",
        """
        import socket
        def attack():
            end = socket.socket(socket.AF_UNIX)
            end.connect("\\0@MARK@")
            return True
        """,
        alone=True,
    ),
    attack(
        "a socket in the file system",
        "sockets",
        """
        import socket
        def attack():
            end = socket.socket(socket.AF_UNIX)
            end.connect("@SOCKET@")
            return True
        """,
        alone=True,
    ),
    attack(
        "a way out",
        "sockets",
        """
        import socket
        def attack():
            end = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
            end.connect(("192.0.2.1", 53))
            return end.send(b"x")
        """,
    ),
    attack(
        "raw packets",
        "sockets",
        """
        import socket
        def attack():
            for family in (socket.AF_PACKET, socket.AF_VSOCK):
                try:
                    return socket.socket(family, socket.SOCK_RAW)
                except OSError:
                    pass
            return socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)
        """,
    ),
]

OTHERS = [
    attack(
        "kill a process",
        "signals and ptrace",
        "import os\ndef attack():\n    os.kill(@VICTIM@, 9)\n    return True",
    ),
    attack(
        "kill all processes",
        "signals and ptrace",
        """
        import os
        def attack():
            try:
                os.kill(@VICTIM@, 0)
            except ProcessLookupError:
                os.kill(-1, 9)
                return False
            return True
        """,
    ),
    attack(
        "kill its parent",
        "signals and ptrace",
        """
        import os, signal
        def attack():
            for one in (os.getppid(), 1):
                for kill in (os.kill, os.killpg):
                    try:
                        kill(one, signal.SIGKILL)
                    except OSError:
                        pass
        """,
    ),
    attack("kill its group", "signals and ptrace", "import os\ndef attack():\n    os.killpg(0, 9)"),
    attack("stop itself", "signals and ptrace", "import os, signal\ndef attack():\n    os.killpg(0, signal.SIGSTOP)"),
    attack(
        "a child that stops itself",
        "signals and ptrace",
        """
        import os, signal
        def attack():
            child = os.fork()
            if child == 0:
                os.kill(os.getpid(), signal.SIGSTOP)
                os._exit(0)
            os.waitpid(child, 0)
        """,
    ),
    call("trace another", "signals and ptrace", "libc.ptrace(16, @VICTIM@, None, None)"),
    call("trace its parent", "signals and ptrace", "libc.ptrace(16, os.getppid(), None, None)"),
    attack(
        "a daemon",
        "surviving daemons",
        """
        import os, signal, sys, time
        def attack():
            if os.fork():
                return False
            os.setsid()
            if os.fork():
                os._exit(0)
            for number in range(1, 65):
                try:
                    signal.signal(number, signal.SIG_IGN)
                except (OSError, ValueError):
                    pass
            os.closerange(0, 256)
            try:
                open("/proc/self/comm", "w").write("@MARK@"[:15])
            except OSError:
                pass
            time.sleep(60)
            os._exit(0)
        """,
    ),
    attack(
        "a child that holds the output open",
        "surviving daemons",
        """
        import os, time
        def attack():
            if os.fork() == 0:
                os.setsid()
                time.sleep(60)
                os._exit(0)
            return False
        """,
    ),
    attack(
        "another program in its place",
        "surviving daemons",
        """
        import os
        def attack():
            if os.fork() == 0:
                os.setsid()
                os.execv("/bin/sh", ["@MARK@", "-c", "trap '' TERM HUP INT; sleep 60; : @MARK@"])
            return False
        """,
    ),
]


def written(name: str, threat: str, text: str) -> Hostile:
    """A program in another language that writes "breached" if it came through."""
    return Hostile(name, threat, f"```\n{text}\n```", ESCAPED)


SCRIPTS = [
    written("passwords, by a shell", "reads secrets", "cat /etc/shadow && echo breached"),
    written("a fork bomb, by a shell", "fork bombs", "for i in $(seq 500); do sleep 20 & done && echo breached"),
    written("a daemon, by a shell", "surviving daemons", "setsid nohup sleep 60 >/dev/null 2>&1 &\necho held"),
    written("a mount, by a shell", "changes the machine", "mount -t tmpfs none /tmp && echo breached"),
    written(
        "a user's bit",
        "changes the machine",
        "cp /bin/sh x; chmod 4755 x; ./x -pc 'test $(id -u) = 0' && echo breached",
    ),
    written("a flood, by a shell", "output floods", "yes breached"),
]
SOURCES = [
    written(
        "passwords, included", "reads secrets", '#include "/etc/shadow"\nint main() { __builtin_puts("breached"); }'
    ),
    written(
        "passwords, assembled",
        "reads secrets",
        'asm(".incbin \\"/etc/shadow\\"");\nint main() { __builtin_puts("breached"); }',
    ),
    written("a file that includes itself", "long texts", "#include __FILE__\nint main() {}"),
    written("a file without end, included", "memory bombs", '#include "/dev/zero"\nint main() {}'),
    written("a program of many gigabytes", "filling the disk", 'asm(".fill 1 << 36");\nint main() {}'),
]
"""Attacks on the build."""
