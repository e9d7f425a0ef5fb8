"""Runs inside the sandbox, alone: calls one function of the program and says what it returned.

    python harness.py program.py  <  {"nonce": ..., "name": ..., "args": [...]}

Answers one line, `NONCE {"value": ...}` or `NONCE {"fault": ...}`, on the standard output that it keeps for itself;
what the program prints is not read. Only plain values count, by their exact types: an object that claims to equal
everything is no value. It knows no expected result, so a forged line is a guess like any other.
"""

import json
import os
import sys

PLAIN = (bool, int, float, str)


def main() -> None:
    """Serve one call."""
    answers = os.dup(1)
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    asked = json.loads(sys.stdin.buffer.read())
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    try:
        with open(sys.argv[1], encoding="utf-8") as file:
            code = compile(file.read(), "program.py", "exec")
        space = {"__name__": "program", "__builtins__": __builtins__}
        exec(code, space)
        function = found(space, asked["name"])
        told = json.dumps({"value": plain(function(*asked["args"]))})  # type: ignore[operator]
    except BaseException as error:  # noqa: BLE001  (SystemExit is the program's fault too)
        told = json.dumps({"fault": fault_of(error)})
    line = f"{asked['nonce']} {told}\n".encode()
    while line:
        line = line[os.write(answers, line) :]
    os._exit(0)  # nothing that the program left behind runs


def found(space: dict[str, object], name: str) -> object:
    """The function, or a method of a fresh object for `Class.method`."""
    first, *rest = name.split(".")
    if first not in space:
        raise NameError(f"the program defines no {first}")
    value = space[first]
    for part in rest:
        value = getattr(value() if isinstance(value, type) else value, part)
    return value


def plain(value: object) -> object:
    """The value in JSON's types; tuples are lists. TypeError for anything else, also for a subclass of these."""
    if value is None or type(value) in PLAIN:
        return value
    if type(value) in (list, tuple):
        return [plain(one) for one in value]  # type: ignore[attr-defined]
    if type(value) is dict:
        return {key_of(key): plain(one) for key, one in value.items()}
    raise TypeError(f"returned a {type(value).__name__}, which is no plain value")


def key_of(key: object) -> str:
    """A key as JSON writes it."""
    if type(key) is str:
        return key
    if type(key) is int:
        return str(key)
    raise TypeError(f"returned a dict with a key of type {type(key).__name__}")


def fault_of(error: BaseException) -> str:
    """What went wrong, in a line; the error is the program's and may be made to hurt."""
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except BaseException:  # noqa: BLE001
        return "an error that cannot be written"


if __name__ == "__main__":
    main()
