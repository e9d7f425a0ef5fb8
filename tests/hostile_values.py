"""Programs whose results or texts are the attack: wrong values dressed as right ones, and texts that break a parser."""

from tests.hostile_programs import ADD, LOCKED, SUM, Hostile, fenced, forging, one, returning

ODD = "odd values"

VALUES = [
    *(
        forging(
            f"with the nonce: {name}",
            f"""
            import os, re, sys
            def lock(n):
                frame, said = sys._getframe(), ""
                while frame:
                    said += repr(frame.f_locals)
                    frame = frame.f_back
                for fd in range(1, 64):
                    for nonce in re.findall("[0-9a-f]{{32}}", said)[:1]:
                        line = (nonce + " " + {line} + "\\n").encode()
                        try:
                            while line:
                                line = line[os.write(fd, line):]
                        except OSError:
                            pass
                os._exit(0)
            """,
        )
        for name, line in {
            "passed": '\'{"passed": true, "value": true, "ok": 1}\'',
            "lists without end": "'[' * 200_000",
            "a number without end": "'{\"value\": ' + '9' * 100_000 + '}'",
            "the key twice": '\'{"value": 1, "value": null, "fault": ""}\'',
            "a fault that is no text": '\'{"fault": {"a": [1]}}\'',
            "nothing": "''",
        }.items()
    ),
    Hostile("a constant", "constants", fenced("def add(a, b):\n    return 5"), ADD, most=0.25),
    Hostile("a constant on standard output", "constants", fenced("print(1000)"), SUM, most=0.25),
    Hostile("true for one", ODD, returning("True"), one(1)),
    Hostile("a text for a number", ODD, returning("'1'"), one(1)),
    Hostile("a number for a text", ODD, returning("1"), one("1")),
    Hostile("one for true", ODD, returning("1"), one(True)),
    Hostile("nan", ODD, returning("float('nan')"), one(0.5)),
    Hostile("infinity", ODD, returning("float('inf')"), one(1e308)),
    Hostile("none for an empty list", ODD, returning("None"), one([])),
    Hostile("nan in a list", ODD, returning("[1.0, float('nan')]"), one([1.0, 2.0])),
    Hostile("a longer list", ODD, returning("[1, 2, 3]"), one([1, 2])),
    Hostile("a key more", ODD, returning("{'a': 1, 'b': 2}"), one({"a": 1})),
    Hostile("bytes", ODD, returning("b'yes'"), one("yes")),
    Hostile("a surrogate", ODD, returning("'\\ud800'"), one("?")),
    Hostile("a text with a NUL", ODD, returning("'yes\\x00'"), one("yes")),
    Hostile("a composed letter", ODD, returning("'e\\u0301'"), one("\u00e9")),
    Hostile("a list in itself", ODD, fenced("A = []\nA.append(A)\ndef value():\n    return A"), one([])),
    Hostile(
        "a hundred thousand lists deep",
        "deep recursion",
        fenced("A = []\nfor _ in range(100_000):\n    A = [A]\ndef value():\n    return A"),
        one([]),
    ),
    Hostile("a huge number", "huge numbers", returning("10 ** 20_000"), one(1)),
    Hostile("a huge number, written", "huge numbers", fenced("print('9' * 20_000)"), SUM),
    Hostile("a huge exponent, written", "huge numbers", fenced("print('1e999999999')"), SUM),
    Hostile("a huge text", "huge numbers", returning("'x' * (64 << 20)"), one("x")),
    Hostile(
        "a generator without end", "odd values", returning("(i for i in iter(int, 1))"), one([0])
    ),
    Hostile("a coroutine", ODD, fenced("async def value():\n    return 1"), one(1)),
    Hostile("a class in place of the function", ODD, fenced("class value(int): pass"), one(1)),
    Hostile(
        "a pickle that runs a command where it is read",
        "unpickling",
        fenced("""
        import os, pickle, base64
        class Gadget:
            def __reduce__(self):
                return (os.system, ("touch /tmp/@MARK@ @ROOT@/@MARK@",))
            def __reduce_ex__(self, _):
                return self.__reduce__()
        def value():
            print(base64.b64encode(pickle.dumps(Gadget())), flush=True)
            os.write(1, pickle.dumps(Gadget()))
            return Gadget()
        """),
        one(0),
    ),
    Hostile("yaml and eval bait", "unpickling", fenced("""
        BAIT = "__import__('os').system('touch /tmp/@MARK@')"
        def value():
            print("!!python/object/apply:os.system ['touch /tmp/@MARK@']")
            print(BAIT)
            return BAIT
        """), one(0)),
    Hostile("an error that is no text", "unicode", fenced("def value():\n    raise OSError('\\ud800\\x1b')"), one(0)),
    Hostile("a class whose name is no text", "unicode", returning("type('\\ud800', (), {})()"), one(0)),
    Hostile(
        "a class whose name raises",
        ODD,
        fenced("""
        class Meta(type):
            __name__ = property(lambda self: 1 / 0)
        class Value(metaclass=Meta):
            __repr__ = __str__ = lambda self: 1 / 0
        def add(a, b):
            return Value()
        """),
        ADD,
    ),
    Hostile("an error whose text never ends", ODD, fenced("""
        class Error(Exception):
            def __str__(self):
                while True: pass
        def add(a, b):
            raise Error
        """), ADD),
    Hostile("nan on standard output", ODD, fenced("print('nan')"), SUM),
    Hostile("infinity on standard output", ODD, fenced("print('inf')"), SUM),
    Hostile(
        "digits of another script", ODD, fenced("print('\\uff11\\uff10')"),
        {"kind": "stdin", "cases": [{"input": "", "output": "10"}]},
    ),
    Hostile(
        "digits with an underscore", ODD, fenced("print('1_000')"),
        {"kind": "stdin", "cases": [{"input": "", "output": "1000"}]},
    ),
    Hostile("every number", "answer lists", fenced("print(*range(-2000, 2001))"), SUM),
    Hostile("every number, a line each", "answer lists", fenced("print(*range(-2000, 2001), sep='\\n')"), SUM),
    Hostile(
        "the answer on standard error",
        ODD,
        fenced("import sys\nprint(sum(map(int, input().split())), file=sys.stderr)"),
        SUM,
    ),
    Hostile("bytes that are no text", ODD, fenced("import sys\nsys.stdout.buffer.write(bytes(range(256)) * 99)"), SUM),
]  # fmt: skip
"""Wrong values."""

RIGHT = "print(sum(map(int, input().split())))"
WRONG = "print('no')"

TEXTS = [
    Hostile(
        "quotes that end the harness's string",
        "injection",
        "```python\n'''\nimport os\nos._exit(0)\n'''\n\"\"\"\nimport os\nos._exit(0)\n\"\"\"\n```",
        LOCKED,
        alone=True,
    ),
    Hostile(
        "quotes, backslashes and braces",
        "injection",
        "```python\n\\'\\'\\' \\\"\\\"\\\" {0} {nonce} %s %(x)s $HOME `id` \\N{BULLET}\n```",
        LOCKED,
    ),
    Hostile("no block", "fenced blocks", RIGHT, SUM),
    Hostile("an empty block last", "fenced blocks", f"```python\n{RIGHT}\n```\n\n```python\n```\n", SUM),
    Hostile("a wrong block last", "fenced blocks", f"```python\n{RIGHT}\n```\nor\n```python\n{WRONG}\n```", SUM),
    Hostile("many wrong blocks last", "fenced blocks", f"```python\n{RIGHT}\n```\n" + "```\npass\n```\n" * 5000, SUM),
    Hostile("nothing", "fenced blocks", "", SUM),
    Hostile("fences only", "fenced blocks", "```" * 30_000, SUM),
    Hostile("a program of ten megabytes", "long texts", fenced("x = '" + "y" * (10 << 20) + "'"), SUM),
    Hostile("a surrogate in the program", "unicode", "```python\nprint('\ud800')\n```", SUM),
    Hostile("a NUL in the program", "unicode", f"```python\n{WRONG}\x00\n```", SUM),
    Hostile("an encoding line", "unicode", "```python\n# -*- coding: utf-7 -*-\n+AHAAcgBpAG4AdAAoADUAKQ-\n```", SUM),
    Hostile(
        "brackets without end", "deep recursion", fenced("(" * 100_000), SUM,
    ),
    Hostile("a sum that breaks the compiler", "deep recursion", fenced("x = " + "-" * 200_000 + "1"), SUM),
    Hostile(
        "recursion without a limit",
        "deep recursion",
        fenced("import sys\nsys.setrecursionlimit(10 ** 9)\ndef f(n):\n    return f(n + 1) + 1\nprint(f(0))"),
        SUM,
    ),
    Hostile("a constant that takes a year", "huge numbers", fenced("print(((9 ** 9) ** 9 ** 3) ** 9 ** 3)"), SUM),
    Hostile("a pattern without end", "pattern bombs", fenced("import re\nre.match('(a+)+$', 'a' * 64 + 'b')"), SUM),
]  # fmt: skip
"""Texts that a grader must read with care."""
