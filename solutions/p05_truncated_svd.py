"""Approximate a weight update with a truncated singular value decomposition: contracts and references.

The best approximation of rank r keeps the r largest singular values (Eckart and Young, 1936).
"""

import torch


def low_rank_factors(M: torch.Tensor, r: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return balanced factors B (p, r) and A (r, q) whose product is the best rank-r approximation of M (p, q).

    Best in the Frobenius norm. The factors are balanced if both have the same squared Frobenius norm, the sum of the
    kept singular values. Factors are unique only up to rotation and sign; any balanced pair with the right product will
    do. The rank of M may be lower than r, and M may be zero. M is float32 or float64, and the factors have its dtype.

    Errors: ValueError naming `2-D` (M isn't a matrix), `finite` (M holds NaN or infinities), `rank` (r is not within
    1..min(p, q)).

    >>> M = torch.tensor([[4.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    >>> B, A = low_rank_factors(M, 1)
    >>> (B @ A).round(decimals=4).abs().tolist()
    [[4.0, 0.0], [0.0, 0.0], [0.0, 0.0]]

    Always: with full rank nothing is lost, and the factors are balanced.

    >>> B, A = low_rank_factors(M, 2)
    >>> bool(torch.allclose(B @ A, M, atol=1e-5))
    True
    >>> bool(torch.isclose((B**2).sum(), (A**2).sum()))  # bal
    True
    >>> low_rank_factors(M, 3)  # bad
    Traceback (most recent call last):
    ValueError: ...rank...
    """
    U, S, Vh = torch.linalg.svd(matrix(M), full_matrices=False)
    if not 1 <= r <= len(S):
        raise ValueError(f"rank must be within 1..{len(S)} for a matrix of shape {tuple(M.shape)}, got {r}")
    root = S[:r].sqrt()
    return U[:, :r] * root, root[:, None] * Vh[:r]


def truncation_error(M: torch.Tensor, r: int, norm: str = "fro") -> float:
    """Return the norm of what the best rank-r approximation of M leaves out, from the singular values.

    `norm` is "fro" (Frobenius) or "spectral". With r = 0 it's the norm of M, with r = min(p, q) it's 0.

    Errors: ValueError naming `2-D`, `finite`, `norm` (neither word) or `rank` (not within 0..min(p, q)).

    >>> M = torch.diag(torch.tensor([5.0, 4.0, 3.0], dtype=torch.float64))
    >>> round(truncation_error(M, 1), 6), round(truncation_error(M, 1, norm="spectral"), 6)
    (5.0, 4.0)
    >>> round(truncation_error(M, 0) ** 2, 6), truncation_error(M, 3, norm="spectral")
    (50.0, 0.0)
    """
    S = torch.linalg.svdvals(matrix(M))
    if norm not in ("fro", "spectral"):
        raise ValueError(f"norm must be 'fro' or 'spectral', got {norm!r}")
    if not 0 <= r <= len(S):
        raise ValueError(f"rank must be within 0..{len(S)} for a matrix of shape {tuple(M.shape)}, got {r}")
    tail = S[r:]
    if len(tail) == 0:
        return 0.0
    return float(tail.square().sum().sqrt() if norm == "fro" else tail[0])


def rank_for_energy(M: torch.Tensor, energy: float) -> int:
    """Return the smallest rank whose best approximation holds at least this share of M's squared Frobenius norm.

    A share that is missed by no more than rounding counts as reached: by 1e-12 of the whole for float64, by 1e-6 for
    float32. The zero matrix needs rank 0.

    Errors: ValueError naming `2-D`, `finite` or `energy` (NaN, or not within (0, 1]).

    >>> M = torch.diag(torch.tensor([2.0, 1.0, 1.0], dtype=torch.float64))
    >>> rank_for_energy(M, 0.6), rank_for_energy(M, 2 / 3), rank_for_energy(M, 0.9)
    (1, 1, 3)

    Always: more energy needs no smaller rank.

    >>> ranks = [rank_for_energy(M, share) for share in (0.1, 0.5, 0.7, 1.0)]
    >>> ranks == sorted(ranks)
    True
    """
    square = torch.linalg.svdvals(matrix(M)).double().square()
    if not 0 < energy <= 1:
        raise ValueError(f"energy must be within (0, 1], got {energy}")
    total = float(square.sum())
    if total == 0:
        return 0
    tolerance = 1e-6 if M.dtype != torch.float64 else 1e-12
    # The share that is lost at each rank, from the smallest value up, so that small values aren't swallowed.
    lost = square.flip(0).cumsum(0).flip(0) / total
    enough = torch.cat([lost, lost.new_zeros(1)]) <= 1 - energy + tolerance
    return int(enough.nonzero()[0])


def effective_rank(M: torch.Tensor) -> float:
    """Return the stable rank, the squared Frobenius norm over the squared spectral norm; 0 for the zero matrix.

    Errors: ValueError naming `2-D` or `finite`.

    >>> effective_rank(torch.eye(4)), effective_rank(torch.zeros(2, 3))
    (4.0, 0.0)

    Always: it's at most the rank, and a factor changes nothing, not even 1e-25 or 1e25 in float32.

    >>> M = torch.diag(torch.tensor([3.0, 1.0]))
    >>> 1 <= effective_rank(M) <= 2 and all(abs(effective_rank(c * M) - effective_rank(M)) < 1e-5 for c in (5, 1e-25))
    True
    """
    S = torch.linalg.svdvals(matrix(M)).double()
    if S[0] == 0:
        return 0.0
    return float((S / S[0]).square().sum())


def matrix(M: torch.Tensor) -> torch.Tensor:
    """Return M if it's a finite matrix, or raise ValueError."""
    if M.ndim != 2:
        raise ValueError(f"M must be 2-D, got {M.ndim} axes")
    if not bool(torch.isfinite(M).all()):
        raise ValueError("M must be finite: it holds NaN or infinities")
    return M
