"""Probes: measurements that never touch the weights."""

import importlib
from types import ModuleType

from orchestrator.probes.pass_at_k import pass_at_k

__all__ = ["pass_at_k"]


def __getattr__(name: str) -> ModuleType:
    """`probes.support` and `probes.occupancy` without an import of their own; loaded when first asked for, since they
    bring scipy."""
    if name in ("occupancy", "support"):
        return importlib.import_module(f"orchestrator.probes.{name}")
    raise AttributeError(f"module 'orchestrator.probes' has no attribute {name!r}")
