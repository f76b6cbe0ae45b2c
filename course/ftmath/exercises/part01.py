"""The exercises of part 1: fine-tuning as a local move."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmath.exercises.exercise import Exercise, Mistake

Weights = Mapping[str, Tensor]
Lines = tuple[Tensor, Tensor]


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


def fit(model: nn.Module, batches: Sequence[Lines], rate: float, clip: float) -> list[float]:
    """Tune `model` in place, one step for each batch, and return the loss of each step.

    A batch is (ids, mask), both (rows, time); mask is 1 where a token is a target. `model(ids)` gives logits (rows, time,
    vocab), and those at t score the token at t + 1. The loss is the mean of -log p over all targets of the batch. If the
    gradient of all weights together is longer than `clip`, it is scaled to that length. Then comes a step of
    `torch.optim.AdamW` with this rate and `weight_decay=0`; gradients of one step don't enter the next.

    >>> table = nn.Embedding.from_pretrained(torch.zeros(4, 4), freeze=False)
    >>> losses = fit(table, [(torch.tensor([[0, 1, 2]]), torch.tensor([[0, 0, 1]]))] * 2, rate=0.1, clip=1.0)
    >>> [round(loss, 3) for loss in losses]
    [1.386, 1.24]
    """
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    losses = []
    for ids, mask in batches:
        chosen = mask[:, 1:] == 1
        loss = F.cross_entropy(model(ids)[:, :-1][chosen], ids[:, 1:][chosen])
        losses.append(loss.item())
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return losses


def drift(tuned: nn.Module, base: nn.Module, ids: Tensor, mask: Tensor) -> float:
    """Return KL(tuned || base) in nats, averaged over the places whose *next* token is a target.

    ids and mask are (rows, time), as above; both models give logits (rows, time, vocab).

    >>> base = nn.Embedding.from_pretrained(torch.tensor([[0.5, 0.5]] * 2).log())
    >>> tuned = nn.Embedding.from_pretrained(torch.tensor([[0.8, 0.2]] * 2).log())
    >>> round(drift(tuned, base, torch.tensor([[0, 1]]), torch.tensor([[0, 1]])), 4)
    0.1927
    """
    chosen = mask[:, 1:] == 1
    with torch.no_grad():
        log_p, log_q = (model(ids)[:, :-1][chosen].log_softmax(-1) for model in (tuned, base))
    return float((log_p.exp() * (log_p - log_q)).sum(-1).mean())


def tune_within(
    model: nn.Module, step: Callable[[nn.Module], object], drift_of: Callable[[nn.Module], float],
    steps: int, every: int, budget: float,
) -> tuple[list[tuple[int, float]], dict[str, Tensor]]:  # fmt: skip
    """Return the measurements (steps done, drift) of a run within a budget, and the weights to keep, by their names.

    `step(model)` makes one step in place, `steps` times at most. After every `every` steps the drift is measured and noted. The
    run ends at the first drift above `budget`, or that is NaN. The weights to keep are those of the last measurement within the
    budget, or those at the start if there is none.

    >>> point = nn.Embedding.from_pretrained(torch.zeros(1, 1))
    >>> up = lambda model: model.weight.data.add_(1)
    >>> seen, kept = tune_within(point, up, lambda model: model.weight.item() ** 2, steps=6, every=2, budget=5.0)
    >>> seen, kept["weight"].item()
    ([(2, 4.0), (4, 16.0)], 2.0)
    """
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    seen = []
    for done in range(1, steps + 1):
        step(model)
        if done % every:
            continue
        seen.append((done, drift_of(model)))
        if not seen[-1][1] <= budget:  # NaN isn't above anything
            break
        kept = {name: value.clone() for name, value in model.state_dict().items()}
    return seen, kept


def explain_run(losses: Sequence[float], drifts: Sequence[float]) -> str:
    """Return what a log says of a run: "base moves along", "nothing trains", "forgets" or "healthy".

    `losses` is the task's loss at each step, `drifts` the KL to the base in nats per token at each measurement. A run has learned
    if its last loss is less than half of its first one. If it has, a drift of exactly 0 at every measurement means
    "base moves along", and a last drift above 2 means "forgets". A run that hasn't learned is "nothing trains".

    >>> explain_run([2.0, 1.0, 0.1], [0.02, 0.3])
    'healthy'
    """
    if losses[-1] >= losses[0] / 2:
        return "nothing trains"
    if not any(drifts):
        return "base moves along"
    return "forgets" if drifts[-1] > 2 else "healthy"


# ------------------------------------------------------------------------------------------ what the steps are tried on


def table(seed: int, scale: float = 1.0) -> nn.Embedding:
    """Return a model that scores the next token by the last one alone: a table of 6 x 6 logits."""
    return nn.Embedding.from_pretrained(scale * drawn(seed, 6, 6), freeze=False)


def some_lines(seed: int) -> Lines:
    """Return two rows of six tokens, with four and two targets."""
    ids = torch.randint(0, 6, (2, 6), generator=torch.Generator().manual_seed(seed))
    return ids, torch.tensor([[0, 0, 1, 1, 1, 1], [0, 0, 0, 1, 1, 0]])


def one_up(model: nn.Module) -> None:
    with torch.no_grad():
        for value in model.parameters():
            value += 1


def back_and_forth(model: nn.Module) -> None:
    """Go up while the first weight is below 3, then down to 0 at once."""
    with torch.no_grad():
        for value in model.parameters():
            value.copy_(value + 1 if value.flatten()[0].item() < 3 else 0 * value)


def squared(model: nn.Module) -> float:
    return next(model.parameters()).flatten()[0].item() ** 2


def broken(model: nn.Module) -> float:
    """Return the square, or NaN from 3 on."""
    return squared(model) if squared(model) < 9 else math.nan


def point(value: float) -> nn.Embedding:
    return nn.Embedding.from_pretrained(torch.tensor([[value]]), freeze=False)


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


def fitted(
    model: nn.Module, batches: Sequence[Lines], rate: float, clip: float, *, forget: bool = True, shift: bool = True,
    masked: bool = True, clipped: bool = True, decay: float = 0.0,
) -> list[float]:  # fmt: skip
    """Return the losses of `fit` with one of its lines missing or changed."""
    optimizer, losses = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=decay), list[float]()
    for ids, mask in batches:
        chosen = (mask if masked else torch.ones_like(mask))[:, 1:] == 1
        scores = model(ids)[:, :-1] if shift else model(ids)[:, 1:]
        loss = F.cross_entropy(scores[chosen], ids[:, 1:][chosen])
        losses.append(loss.item())
        if forget:
            optimizer.zero_grad()
        loss.backward()
        if clipped:
            nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
    return losses


def gradients_pile_up(model: nn.Module, batches: Sequence[Lines], rate: float, clip: float) -> list[float]:
    return fitted(model, batches, rate, clip, forget=False)


def own_token(model: nn.Module, batches: Sequence[Lines], rate: float, clip: float) -> list[float]:
    return fitted(model, batches, rate, clip, shift=False)


def every_token(model: nn.Module, batches: Sequence[Lines], rate: float, clip: float) -> list[float]:
    return fitted(model, batches, rate, clip, masked=False)


def never_clipped(model: nn.Module, batches: Sequence[Lines], rate: float, clip: float) -> list[float]:
    return fitted(model, batches, rate, clip, clipped=False)


def decayed(model: nn.Module, batches: Sequence[Lines], rate: float, clip: float) -> list[float]:
    return fitted(model, batches, rate, clip, decay=0.01)


def base_first(tuned: nn.Module, base: nn.Module, ids: Tensor, mask: Tensor) -> float:
    return drift(base, tuned, ids, mask)


def at_the_targets(tuned: nn.Module, base: nn.Module, ids: Tensor, mask: Tensor) -> float:
    return drift(tuned, base, torch.cat([ids[:, 1:], ids[:, :1]], dim=1), mask)


def at_all_places(tuned: nn.Module, base: nn.Module, ids: Tensor, mask: Tensor) -> float:
    return drift(tuned, base, ids, torch.ones_like(mask))


def row_by_row(tuned: nn.Module, base: nn.Module, ids: Tensor, mask: Tensor) -> float:
    rows = [drift(tuned, base, ids[row : row + 1], mask[row : row + 1]) for row in range(len(ids))]
    return sum(rows) / len(rows)


Step = Callable[[nn.Module], object]
Measure = Callable[[nn.Module], float]
Record = tuple[list[tuple[int, float]], dict[str, Tensor]]


def nan_is_not_above(model: nn.Module, step: Step, drift_of: Measure, steps: int, every: int, budget: float) -> Record:
    below: dict[int, float] = {}

    def shown(model: nn.Module) -> float:
        below[len(below)] = drift_of(model)
        return -math.inf if math.isnan(below[len(below) - 1]) else below[len(below) - 1]

    seen, kept = tune_within(model, step, shown, steps, every, budget)
    return [(done, below[place]) for place, (done, _) in enumerate(seen)], kept


def kept_by_reference(model: nn.Module, step: Step, drift_of: Measure, steps: int, every: int, budget: float) -> Record:
    seen, _ = tune_within(model, step, drift_of, steps, every, budget)
    return seen, dict(model.state_dict())


def never_stopped(model: nn.Module, step: Step, drift_of: Measure, steps: int, every: int, budget: float) -> Record:
    return tune_within(model, step, drift_of, steps, every, math.inf)


def stopped_unrecorded(
    model: nn.Module, step: Step, drift_of: Measure, steps: int, every: int, budget: float
) -> Record:
    seen, kept = tune_within(model, step, drift_of, steps, every, budget)
    return [one for one in seen if one[1] <= budget], kept


def counted_from_zero(model: nn.Module, step: Step, drift_of: Measure, steps: int, every: int, budget: float) -> Record:
    kept = {name: value.clone() for name, value in model.state_dict().items()}
    seen: list[tuple[int, float]] = []
    for k in range(steps):
        step(model)
        if k % every:
            continue
        seen.append((k, drift_of(model)))
        if seen[-1][1] > budget:
            break
        kept = {name: value.clone() for name, value in model.state_dict().items()}
    return seen, kept


def drift_alone(losses: Sequence[float], drifts: Sequence[float]) -> str:
    if not any(drifts):
        return "nothing trains"
    return "forgets" if drifts[-1] > 2 else "healthy"


def loss_alone(losses: Sequence[float], drifts: Sequence[float]) -> str:
    return "nothing trains" if losses[-1] >= losses[0] / 2 else "healthy"


def largest_drift(losses: Sequence[float], drifts: Sequence[float]) -> str:
    said = explain_run(losses, drifts)
    return "forgets" if said == "healthy" and max(drifts) > 2 else said


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
    Exercise(
        "1.C", "Build: the training loop", fit,
        cases=[(table(1), [some_lines(seed) for seed in range(4)], 0.1, 1.0), (table(2, 3.0), [some_lines(7), some_lines(8)] * 3, 0.05, 0.3),
               (table(3), [some_lines(9)] * 5, 1e-2, 100.0), (table(4, 5.0), [some_lines(seed) for seed in (1, 2, 3, 4, 5, 6)], 1.0, 0.02)],
        hints=["Six lines a step: choose the targets, score them, note the loss, backward, clip, step. And one that clears the gradients.",
               "`model(ids)[:, :-1]` stands over `ids[:, 1:]` and `mask[:, 1:]`: pick with the mask, then `F.cross_entropy` takes the mean.",
               "`nn.utils.clip_grad_norm_(model.parameters(), clip)` comes after backward and before the step; `optimizer.zero_grad()` once a step."],
        mistakes=[
            Mistake(gradients_pile_up, "The second step's gradient contains the first one's: nothing sets gradients back to zero."),
            Mistake(own_token, "Each place is scored on its own token: logits at t belong to the token at t + 1."),
            Mistake(every_token, "Every token is learned: the mask isn't used."),
            Mistake(never_clipped, "The gradient isn't clipped, or only after the step."),
            Mistake(decayed, "AdamW decays weights by 0.01 unless told otherwise: `weight_decay=0`."),
        ],
        minutes=12, difficulty=3, tolerance=1e-5,
    ),
    Exercise(
        "1.D", "Build: its drift", drift,
        cases=[(table(5), table(6), *some_lines(3)), (table(7), table(7), *some_lines(4)), (table(8, 4.0), table(9), *some_lines(5))],
        hints=["What the models say about a target stands one place before it.", "KL(tuned || base) is the tuned model's mean of log p - log q.",
               "Pick the places as in the loop, sum over the vocabulary, then take the mean over places. No gradient is needed."],
        mistakes=[
            Mistake(base_first, "That is KL(base || tuned): the expectation is to be taken under the tuned model."),
            Mistake(at_the_targets, "You measured where the targets stand. They are predicted one place earlier."),
            Mistake(at_all_places, "That averages over all places; only those count whose next token is a target."),
            Mistake(row_by_row, "Places count alike, not rows: take one mean over all places."),
        ],
        minutes=8, difficulty=3,
    ),
    Exercise(
        "1.E", "Build: stop within a budget", tune_within,
        cases=[(point(0.0), one_up, squared, 6, 2, 5.0), (point(0.0), one_up, squared, 7, 3, 100.0), (point(2.0), one_up, squared, 5, 1, 4.0),
               (point(0.0), one_up, squared, 4, 2, 4.0), (point(0.0), back_and_forth, squared, 9, 1, 5.0), (point(0.0), one_up, broken, 6, 1, 20.0)],
        hints=["`state_dict()` holds the tensors that train on, not copies of them.", "Clone the weights at the start, and again after each measurement that is within the budget.",
               "Note the drift first, then compare it: the one that ends the run is noted too."],
        mistakes=[
            Mistake(kept_by_reference, "The weights that you keep are those of the end: `state_dict()` gives references. Clone each tensor."),
            Mistake(never_stopped, "The run goes on past a drift above the budget."),
            Mistake(nan_is_not_above, "NaN isn't above anything, so a broken run goes on: end unless the drift is at most the budget."),
            Mistake(stopped_unrecorded, "The measurement that ended the run belongs to the record."),
            Mistake(counted_from_zero, "After the first step one step is done, not none: measure when the number of steps done is a multiple of `every`."),
        ],
        minutes=10, difficulty=3,
    ),
    Exercise(
        "1.F", "Build: explain a run", explain_run,
        cases=[([2.0, 1.0, 0.1], [0.02, 0.3]), ([2.0, 1.0, 0.1], [0.0, 0.0]), ([2.0, 1.9, 1.8], [0.0, 0.0]), ([2.0, 0.4, 0.02], [0.3, 4.0]),
               ([2.0, 1.9, 1.7], [0.1, 0.2]), ([2.0, 0.4, 0.02], [3.7, 0.4])],
        hints=["Ask first whether the run has learned.", "A model that learns can't have a drift of exactly 0, unless it's compared with itself.", "Only the last drift says where the run ended."],
        mistakes=[
            Mistake(drift_alone, "A drift of 0 beside a falling loss isn't a run that stands still: ask the loss first."),
            Mistake(loss_alone, "The loss knows nothing of the old skills: the drift decides between the runs that learned."),
            Mistake(largest_drift, "A run may drift and come back, as under an anchor: the last measurement counts."),
        ],
        minutes=6, difficulty=2,
    ),
]  # fmt: skip
