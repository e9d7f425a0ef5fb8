"""The most memory that torch's own allocator held at once while something ran, above what it held before."""

from collections.abc import Callable

from torch.profiler import ProfilerActivity, profile


def peak_bytes(run: Callable[[], object]) -> int:
    """Highest sum of allocations less frees during `run`, in bytes; what an operator allocates inside counts too."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as watched:
        kept = run()
    del kept
    results = watched.profiler.kineto_results  # type: ignore[union-attr]
    changes = sorted((one.start_ns(), one.nbytes()) for one in results.events() if one.name() == "[memory]")
    held = peak = 0
    for _, change in changes:
        held += change
        peak = max(peak, held)
    return peak
