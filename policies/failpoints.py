"""`failpoint`: a named place where a test can make the process die, fail or hang; free when nothing is armed.

Armed from outside: `BRAID_FAILPOINT="checkpoint.before_manifest=kill9"`, several separated by commas. A caller that
wants one step of many puts the step in the name, as in `failpoint(f"loop.after_step.{step}")`.
"""

import os
import signal
import time

VARIABLE = "BRAID_FAILPOINT"
HANG_SECONDS = 3600.0


class FailpointError(RuntimeError):
    """The armed action was `raise`."""


def failpoint(name: str) -> None:
    """Does what the environment armed for `name`: kill9, raise or hang; nothing otherwise.

    Raises FailpointError for `raise`, ValueError for an action that does not exist.
    """
    armed = os.environ.get(VARIABLE)
    if not armed:
        return
    for entry in armed.split(","):
        where, _, action = entry.strip().partition("=")
        if where == name:
            _act(name, action)


def _act(name: str, action: str) -> None:
    match action:
        case "kill9":
            os.kill(os.getpid(), signal.SIGKILL)
        case "raise":
            raise FailpointError(f"{VARIABLE} armed {name} to raise")
        case "hang":
            time.sleep(HANG_SECONDS)
        case _:
            raise ValueError(f"{VARIABLE}: {name}={action!r}: the action must be kill9, raise or hang")
