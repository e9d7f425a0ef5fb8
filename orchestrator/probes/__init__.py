"""Probes: measurements that never touch the weights."""

from orchestrator.probes.pass_at_k import pass_at_k

__all__ = ["pass_at_k"]
