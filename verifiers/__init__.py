"""Verifiers: text in, `Score` out. Know neither policies nor Ray."""

from verifiers.grader import Item
from verifiers.score import Score, Status
from verifiers.verifier import Verifier, build

__all__ = ["Item", "Score", "Status", "Verifier", "build"]
