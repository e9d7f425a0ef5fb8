"""pass@k: the probability that at least one of k responses passes."""

import math


def pass_at_k(n: int, c: int, k: int) -> float:
    """Unbiased estimate from n responses of which c passed: 1 - C(n - c, k) / C(n, k) (Chen et al., arXiv 2107.03374).

    1 - (1 - c/n)^k, the plug-in, is biased low. ValueError unless 0 <= c <= n and 1 <= k <= n: fewer than k
    responses say nothing of k.
    """
    if not 0 <= c <= n or not 1 <= k <= n:
        raise ValueError(f"pass_at_k: n={n}, c={c}, k={k}; it needs 0 <= c <= n and 1 <= k <= n")
    return 1.0 - math.prod(1.0 - k / i for i in range(n - c + 1, n + 1))
