"""The exercises of part 1: fine-tuning as a local move."""

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ftmath.exercises.exercise import Exercise, Mistake

Weights = Mapping[str, Tensor]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def relative_update(base: Weights, tuned: Weights) -> float:
    """Return |tuned - base| / |base|, both norms over all weights together.

    A tensor that stands under two names of `base` (a tied head) counts once.

    >>> relative_update({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([3.0, 5.0])})
    0.2

    Errors: ValueError naming `names` if the two don't hold the same names.
    """
    if base.keys() != tuned.keys():
        raise ValueError(f"names must be the same, got {sorted(base)} and {sorted(tuned)}")
    once = {base[name].data_ptr(): name for name in base}.values()
    moved = sum(float((tuned[name] - base[name]).square().sum()) for name in once)  # blank
    size = sum(float(base[name].square().sum()) for name in once)  # blank
    return math.sqrt(moved / size)  # blank


def excess_loss(logits: Tensor, q: Tensor) -> float:
    """Return how many nats the cross-entropy of softmax(logits) (V,) lies above its floor, the entropy of q (V,).

    Entries of q may be 0.

    >>> round(excess_loss(torch.zeros(2), torch.tensor([1.0, 0.0])), 4)
    0.6931
    """
    log_p = logits.log_softmax(0)
    seen = q > 0
    return float((q[seen] * (q[seen].log() - log_p[seen])).sum())


def anchored_solution(H: Tensor, theta_star: Tensor, theta_0: Tensor, strength: float, F: Tensor) -> Tensor:
    """Return the minimiser (P,) of 1/2 (x - theta_star)^T H (x - theta_star) + strength/2 sum F_i (x_i - theta_0_i)^2.

    H is (P, P), symmetric and positive definite; F (P,) isn't negative.

    >>> anchored_solution(torch.eye(1), torch.tensor([1.0]), torch.tensor([0.0]), 3.0, torch.ones(1))
    tensor([0.2500])
    """
    pull = strength * torch.diag(F)
    return torch.linalg.solve(H + pull, H @ theta_star + pull @ theta_0)


def kl_small(p: Tensor, delta: Tensor) -> float:
    """Return the second-order value of KL(p moved by delta || p) for a small change delta (V,) of the logits of p (V,).

    >>> round(kl_small(torch.tensor([0.5, 0.5]), torch.tensor([0.2, 0.0])), 6)
    0.005
    """
    mean = (p * delta).sum()
    return float(0.5 * (p * (delta - mean).square()).sum())


def sequence_bound(kl_per_token: float, tokens: int) -> float:
    """Return Pinsker's bound on the change of the probability of a whole answer, from the KL per token along it.

    KL adds up over the tokens of an answer; a probability can't change by more than 1.

    >>> sequence_bound(0.02, 1)
    0.1

    Errors: ValueError naming `kl` for a negative one.
    """
    if kl_per_token < 0:
        raise ValueError(f"kl must not be negative, got {kl_per_token}")
    return min(1.0, math.sqrt(tokens * kl_per_token / 2))


def largest_step(g: Tensor, H: Tensor) -> float:
    """Return the rate below which one gradient step lowers the quadratic model of the loss: g (P,), H (P, P).

    It's infinite where the curvature along g isn't positive.

    >>> largest_step(torch.tensor([1.0, 0.0]), torch.tensor([[4.0, 0.0], [0.0, 1.0]]))
    0.5
    """
    curvature = float(g @ H @ g)
    return 2 * float(g @ g) / curvature if curvature > 0 else math.inf


def drift_budget(kl_allowed: float, near: tuple[float, float], far: tuple[float, float]) -> tuple[float, float]:
    """Return the power k by which KL grows along an update, and the largest share of it that a KL budget allows.

    `near` and `far` are two measurements (share, KL) along it. Between them KL is taken as c share^k: k is 2 for small
    moves (1.4), and more where the move isn't small. The share is at most that of `far`: beyond it nothing is known.

    >>> power, share = drift_budget(0.16, (0.1, 0.01), (1.0, 1.0))
    >>> round(power, 4), round(share, 4)
    (2.0, 0.4)
    """
    power = math.log(far[1] / near[1]) / math.log(far[0] / near[0])
    return power, min(far[0], near[0] * (kl_allowed / near[1]) ** (1 / power))


# ------------------------------------------------------------------------------------------ what people write instead


def twice_tied(base: Weights, tuned: Weights) -> float:
    moved = sum(float((tuned[name] - base[name]).square().sum()) for name in base)
    return math.sqrt(moved / sum(float(base[name].square().sum()) for name in base))


def mean_of_ratios(base: Weights, tuned: Weights) -> float:
    ratios = [float((tuned[name] - base[name]).norm() / base[name].norm()) for name in base]
    return sum(ratios) / len(ratios)


def cross_entropy_itself(logits: Tensor, q: Tensor) -> float:
    return float(-(q * logits.log_softmax(0)).sum())


def reverse_kl(logits: Tensor, q: Tensor) -> float:
    p = logits.softmax(0)
    return float((p * (p.log() - q.clamp(min=1e-12).log())).sum())


def anchored_at_zero(H: Tensor, theta_star: Tensor, theta_0: Tensor, strength: float, F: Tensor) -> Tensor:
    return anchored_solution(H, theta_star, torch.zeros_like(theta_0), strength, F)


def unweighted_anchor(H: Tensor, theta_star: Tensor, theta_0: Tensor, strength: float, F: Tensor) -> Tensor:
    return anchored_solution(H, theta_star, theta_0, strength, torch.ones_like(F))


def not_centred(p: Tensor, delta: Tensor) -> float:
    return float(0.5 * (p * delta.square()).sum())


def unweighted_variance(p: Tensor, delta: Tensor) -> float:
    return float(0.5 * delta.var(correction=0))


def without_half(p: Tensor, delta: Tensor) -> float:
    return 2 * kl_small(p, delta)


def one_token(kl_per_token: float, tokens: int) -> float:
    return sequence_bound(kl_per_token, 1)


def bounds_added(kl_per_token: float, tokens: int) -> float:
    return min(1.0, tokens * math.sqrt(kl_per_token / 2))


def not_capped(kl_per_token: float, tokens: int) -> float:
    return math.sqrt(tokens * kl_per_token / 2)


def half_the_step(g: Tensor, H: Tensor) -> float:
    return largest_step(g, H) / 2


def inverse_largest_eigenvalue(g: Tensor, H: Tensor) -> float:
    return 2 / float(torch.linalg.eigvalsh(H)[-1])


Measured = tuple[float, float]


def always_square(kl_allowed: float, near: Measured, far: Measured) -> tuple[float, float]:
    return 2.0, min(far[0], near[0] * math.sqrt(kl_allowed / near[1]))


def square_share(kl_allowed: float, near: Measured, far: Measured) -> tuple[float, float]:
    return drift_budget(kl_allowed, near, far)[0], min(far[0], near[0] * math.sqrt(kl_allowed / near[1]))


def linear_share(kl_allowed: float, near: Measured, far: Measured) -> tuple[float, float]:
    return drift_budget(kl_allowed, near, far)[0], min(far[0], near[0] * kl_allowed / near[1])


def beyond_far(kl_allowed: float, near: Measured, far: Measured) -> tuple[float, float]:
    power, _ = drift_budget(kl_allowed, near, far)
    return power, near[0] * (kl_allowed / near[1]) ** (1 / power)


TIED = torch.tensor([1.0, 2.0])
SPD = [m @ m.T + torch.eye(3, dtype=torch.float64) for m in (drawn(seed, 3, 3) for seed in (1, 2))]

# Words and cases read better unbroken, as a catalogue.
# ruff: noqa: E501
EXERCISES = [
    Exercise(
        "1.1", "Flatten the update", relative_update,
        cases=[({"w": torch.tensor([3.0, 4.0])}, {"w": torch.tensor([3.0, 5.0])}),
               ({"embed": TIED, "head": TIED, "b": torch.tensor([2.0])},
                {"embed": TIED + 1, "head": TIED + 1, "b": torch.tensor([2.0])}),
               ({"a": drawn(1, 3, 2), "b": drawn(2, 4)}, {"a": drawn(3, 3, 2), "b": drawn(4, 4)})],
        errors=[(({"a": torch.ones(1)}, {"b": torch.ones(1)}), "names")],
        hints=["Think of all weights as one long vector.", "Its squared norm is the sum of the tensors' squared norms.",
               "One square root at the end; a tied tensor enters both sums once."],
        mistakes=[
            Mistake(twice_tied, "A tied tensor has two names and is one tensor: it enters each sum once."),
            Mistake(mean_of_ratios, "That averages the tensors' ratios: a small bias then counts as much as a large matrix."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "1.2", "Nats above the floor", excess_loss,
        cases=[(torch.zeros(2), torch.tensor([1.0, 0.0])), (torch.zeros(4, dtype=torch.float64), torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)),
               (drawn(5, 6), drawn(6, 6).softmax(0)), (drawn(7, 6), drawn(7, 6).softmax(0))],
        hints=["Cross-entropy is entropy plus a divergence.", "It's KL(q || p) with p = softmax(logits).", "Where q is 0, its term is 0: leave it out before taking a logarithm."],
        mistakes=[
            Mistake(cross_entropy_itself, "That is the cross-entropy. Its floor is the entropy of q, and that is to come off."),
            Mistake(reverse_kl, "That is KL(p || q). The loss averages over the data, so q stands in front."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "1.3", "Where an anchored quadratic comes to rest", anchored_solution,
        cases=[(SPD[0], drawn(8, 3), drawn(9, 3), 0.7, drawn(10, 3).square()), (SPD[1], drawn(11, 3), drawn(12, 3), 100.0, drawn(13, 3).square()),
               (SPD[1], drawn(11, 3), drawn(12, 3), 0.0, drawn(13, 3).square())],
        hints=["Set the gradient to zero.", "H (x - theta_star) + strength * F * (x - theta_0) = 0.", "Collect x on one side and solve the linear system."],
        mistakes=[
            Mistake(anchored_at_zero, "That pulls to 0, as weight decay does. The anchor stands at theta_0."),
            Mistake(unweighted_anchor, "Every coordinate is pulled alike: F is left out."),
        ],
        minutes=8, difficulty=3,
    ),
    Exercise(
        "1.4", "KL of a small move", kl_small,
        cases=[(torch.tensor([0.5, 0.5]), torch.tensor([0.2, 0.0])), (drawn(14, 5).softmax(0), torch.full((5,), 0.3, dtype=torch.float64)),
               (drawn(15, 5).softmax(0), 0.1 * drawn(16, 5))],
        hints=["Adding a constant to all logits changes nothing.", "So only delta's deviation from its mean counts.", "Half the variance of delta, weighted by p."],
        mistakes=[
            Mistake(not_centred, "A constant delta changes no probability, and this gives it a KL. Subtract the mean under p."),
            Mistake(unweighted_variance, "Tokens count by their probability, not alike."),
            Mistake(without_half, "Twice too much: the second-order term carries 1/2."),
        ],
        minutes=6, difficulty=3, tolerance=1e-6,
    ),
    Exercise(
        "1.5", "A bound for a whole answer", sequence_bound,
        cases=[(0.02, 1), (0.02, 4), (0.5, 8), (0.0, 3), (0.001, 50)],
        errors=[((-0.1, 2), "kl")],
        hints=["KL of a sequence is the sum of the tokens' KLs.", "Pinsker: the change is at most sqrt(KL / 2).", "No probability changes by more than 1."],
        mistakes=[
            Mistake(one_token, "That bounds one token. An answer of n tokens has n times the KL."),
            Mistake(bounds_added, "KL adds up, bounds don't: n belongs under the root."),
            Mistake(not_capped, "A bound above 1 says nothing: no probability changes by more."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "1.A", "The largest rate that still descends", largest_step,
        cases=[(torch.tensor([1.0, 0.0]), torch.tensor([[4.0, 0.0], [0.0, 1.0]])), (drawn(17, 3), SPD[0]), (drawn(18, 3), SPD[1]),
               (torch.tensor([1.0, 0.0]), torch.tensor([[-1.0, 0.0], [0.0, 1.0]]))],
        hints=["A step of rate e changes the quadratic model by -e g.g + e^2/2 g^T H g.", "Where is that zero again?", "Along a direction that curves down, any rate descends."],
        mistakes=[
            Mistake(half_the_step, "That is where the descent is largest, not where it ends."),
            Mistake(inverse_largest_eigenvalue, "That is safe for every gradient. This one's own direction may curve less."),
        ],
        minutes=8, difficulty=4,
    ),
    Exercise(
        "1.B", "How much of an update a drift budget allows", drift_budget,
        cases=[(0.16, (0.1, 0.01), (1.0, 1.0)), (0.01, (0.1, 7e-5), (0.2, 0.046)), (20.0, (0.1, 0.5), (0.5, 12.5)), (0.001, (0.1, 0.004), (0.4, 0.1))],
        hints=["On axes that are both logarithmic, c share^k is a line: k is its slope.", "k = ln(KL_far / KL_near) / ln(share_far / share_near).", "Solve c share^k = budget through the near point, and stop at the far share."],
        mistakes=[
            Mistake(always_square, "2 is the power of small moves. Here it is to be measured: 1.4 found one along which doubling the share multiplies KL by hundreds."),
            Mistake(square_share, "You found the power and then used 2: the share takes the root that the power says."),
            Mistake(linear_share, "KL isn't proportional to the share: it grows with the power that you found."),
            Mistake(beyond_far, "Beyond the far point nothing was measured: stop there."),
        ],
        minutes=6, difficulty=3,
    ),
]  # fmt: skip
