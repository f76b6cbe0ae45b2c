"""The exercises of part 5: LoRA's algebra."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ftmath.exercises.exercise import Exercise, Mistake

Shape = tuple[int, int]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sum_rank_bound(shapes: Sequence[Shape], ranks: Sequence[int]) -> int:
    """Return the largest rank that the sum of K adapters on one weight can have.

    The k-th adapter is B_k A_k with rank `ranks[k]`; all `shapes` are the weight's (d_out, d_in).

    >>> sum_rank_bound([(8, 6), (8, 6)], [2, 3])
    5
    """
    most = sum(ranks)  # blank
    return min(most, *(min(shape) for shape in shapes))  # blank


def rank_in_log(trainable: int, shapes: Mapping[str, Shape], targets: Sequence[str], layers: int) -> int:
    """Return the rank at which a log's count of trainable numbers fits these targets, or 0 if no rank fits.

    `shapes` gives each target's (d_out, d_in); every layer has all targets, at one rank. A 0 says that the run has other
    targets than you think.

    >>> rank_in_log(104, {"q": (8, 8), "k": (2, 8)}, ["q", "k"], layers=2)
    2
    >>> rank_in_log(105, {"q": (8, 8), "k": (2, 8)}, ["q", "k"], layers=2)
    0
    """
    for_one = layers * sum(sum(shapes[target]) for target in targets)
    return trainable // for_one if trainable % for_one == 0 else 0


def equivalent_alpha(alpha: float, r_old: int, r_new: int, optimizer: str) -> float:
    """Return the alpha that makes the first step as large at rank r_new as `alpha` does at r_old, at the same rate.

    The scale is s = alpha / r. The first step grows as s^2 r if `optimizer` is "sgd", and as s r if it is "adam".

    >>> equivalent_alpha(16.0, 8, 8, "sgd")
    16.0
    """
    return alpha * math.sqrt(r_new / r_old) if optimizer == "sgd" else alpha


def surviving_fraction(W: Tensor, delta: Tensor, dtype: torch.dtype) -> float:
    """Return which share of the entries of W, stored in dtype, changes when delta is merged and rounded once.

    W and delta are float32 tensors of one shape; the sum is taken in float32.

    >>> surviving_fraction(torch.tensor([0.02, 0.02]), torch.tensor([5e-5, 7e-5]), torch.bfloat16)
    0.5
    """
    stored = W.to(dtype)
    merged = (stored.float() + delta).to(dtype)
    return float((merged != stored).double().mean())


def uniform_rank(shapes: Mapping[str, Shape], targets: Sequence[str], layers: int, budget: int) -> int:
    """Return the largest rank that all targets can have in every layer within a budget of parameters (0 if none).

    `shapes` gives each target's (d_out, d_in).

    >>> uniform_rank({"q": (8, 8), "k": (2, 8)}, ["q", "k"], layers=2, budget=110)
    2
    """
    return budget // (layers * sum(sum(shapes[target]) for target in targets))


def tail_rank(sigma: Tensor, d_out: int, d_in: int, share: float) -> tuple[int, int]:
    """Return the least rank that keeps `share` of the energy of an update, and how many numbers its factors hold.

    `sigma` (min(d_out, d_in),) are the update's singular values, descending; the energy is the sum of their squares.

    >>> tail_rank(torch.tensor([4.0, 2.0, 1.0]), 5, 3, share=0.9)
    (2, 16)
    """
    energy = sigma.square().cumsum(0)
    rank = int((energy < share * energy[-1] - 1e-12).sum()) + 1
    return rank, rank * (d_out + d_in)


def merged_error(W: Tensor, A: Tensor, B: Tensor, alpha: float, x: Tensor, dtype: torch.dtype) -> float:
    """Return max |W_merged x - (W x + s B (A x))|, where W is rounded to dtype first and W_merged = W + s B A is too.

    So both sides stand on the same base, and the error is the merge's own. Everything else is computed in float32;
    s = alpha / r with r from A (r, d_in).

    >>> one = torch.ones(1, 1)
    >>> merged_error(one, one, torch.zeros(1, 1), 1.0, torch.ones(1), torch.bfloat16)
    0.0
    """
    s, base = alpha / A.shape[0], W.to(dtype).float()
    merged = (base + s * B @ A).to(dtype).float()
    return float((merged @ x - (base @ x + s * (B @ (A @ x)))).abs().max())


# ------------------------------------------------------------------------------- a layer, its merge, its audit, a run


def lora_layer(base: nn.Linear, rank: int, alpha: float) -> nn.Module:
    """Return a module that computes base(x) + s B (A x), with s = alpha / rank, and trains A and B alone.

    It has the attributes `base` (frozen), `A` (rank, d_in), `B` (d_out, rank) and `scale`. A is drawn at random, and a
    fresh layer changes nothing. Write a class in this cell, or inside the function.

    >>> layer = lora_layer(nn.Linear(5, 3), rank=2, alpha=8.0)
    >>> layer.scale, tuple(layer.A.shape), tuple(layer.B.shape)
    (4.0, (2, 5), (3, 2))
    """

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.base = base.requires_grad_(False)
            self.A = nn.Parameter(torch.randn(rank, base.in_features) / base.in_features**0.5)
            self.B = nn.Parameter(torch.zeros(base.out_features, rank))
            self.scale = alpha / rank

        def forward(self, x: Tensor) -> Tensor:
            return self.base(x) + self.scale * (x @ self.A.T @ self.B.T)

    return Layer()


def merge_layer(layer: nn.Module) -> nn.Linear:
    """Return a plain linear layer that gives what a LoRA layer gives; the LoRA layer stays as it is.

    `layer` has `base` (an nn.Linear with a bias), `A`, `B` and `scale`, as yours has.

    >>> merge_layer(filled_layer(0)).weight.shape
    torch.Size([3, 5])
    """
    base, A, B, scale = parts_of(layer)
    plain = nn.Linear(base.in_features, base.out_features)
    with torch.no_grad():
        plain.weight.copy_(base.weight + scale * B @ A)
        plain.bias.copy_(base.bias)
    return plain


def audit_layer(layer: nn.Module, x: Tensor) -> list[str]:
    """Return what is wrong with a fresh LoRA layer: none or more of "base trains", "A frozen", "B frozen", "not a fresh start".

    The words come in this order. A start is fresh if the layer gives for x (rows, d_in) exactly what its `base` gives. And
    it can learn: A = 0 beside B = 0 is no fresh start either, since then neither factor ever gets a gradient.

    >>> audit_layer(filled_layer(0), torch.ones(1, 5))
    ['not a fresh start']
    """
    base, A, B, _ = parts_of(layer)
    stuck = not A.any() and not B.any()
    faults = {
        "base trains": any(parameter.requires_grad for parameter in base.parameters()),
        "A frozen": not A.requires_grad,
        "B frozen": not B.requires_grad,
        "not a fresh start": stuck or not torch.equal(layer(x), base(x)),
    }
    return [words for words, found in faults.items() if found]


def explain_run(base: Tensor, saved: Tensor, loaded: Tensor) -> str:
    """Return what happened to an adapter between saving and loading, from outputs of one layer for the same inputs.

    `base` is without the adapter, `saved` with it before saving, `loaded` after loading. Say "right" if the adapter's effect
    is there once, "twice" if twice, "missing" if not at all, and "other" for anything else. A layer is linear, so effects
    add; a merge rounds, so allow for a tenth of the effect's norm.

    >>> explain_run(torch.zeros(2), torch.ones(2), torch.tensor([2.0, 2.0]))
    'twice'
    """
    effect, found = saved - base, loaded - base
    for times, words in ((1, "right"), (2, "twice"), (0, "missing")):
        if (found - times * effect).norm() < 0.1 * effect.norm():
            return words
    return "other"


def parts_of(layer: nn.Module) -> tuple[nn.Linear, Tensor, Tensor, float]:
    """Return a LoRA layer's base, A, B and scale."""
    return layer.base, layer.A, layer.B, layer.scale  # pyright: ignore[reportReturnType]


def linear(seed: int, d_in: int, d_out: int, *, bias: bool = True) -> nn.Linear:
    """Return a layer whose weights are the same for the same seed; nothing else's draws are changed by it."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return nn.Linear(d_in, d_out, bias=bias)


def filled_layer(seed: int, rank: int = 2, alpha: float = 3.0) -> nn.Module:
    """Return a LoRA layer with factors that aren't zero, the same for the same seed."""
    layer = lora_layer(linear(seed, 5, 3), rank, alpha)
    with torch.no_grad():
        parts_of(layer)[1].copy_(drawn(seed, rank, 5))
        parts_of(layer)[2].copy_(drawn(seed + 1, 3, rank))
    return layer


def faulty_layer(seed: int, *faults: str) -> nn.Module:
    """Return a fresh LoRA layer with some faults planted."""
    layer = filled_layer(seed)
    base, A, B, _ = parts_of(layer)
    with torch.no_grad():
        if "not a fresh start" not in faults:
            B.zero_()
        if "stuck" in faults:
            A.zero_()
    base.requires_grad_("base trains" in faults)
    base.bias.requires_grad_("base trains" in faults or "bias trains" in faults)
    A.requires_grad_("A frozen" not in faults)
    B.requires_grad_("B frozen" not in faults)
    return layer


def behaviour(module: nn.Module) -> dict[str, object]:
    """Return what is compared of a LoRA layer: what trains, what a fresh one adds, and what it gives with given factors."""
    base, A, B, _ = parts_of(module)
    x = drawn(9, 4, base.in_features).float()
    with torch.no_grad():
        fresh = torch.equal(module(x), base(x))
        random = bool(A.any()) and len(set(A.flatten().tolist())) > 1
        A.copy_(drawn(10, *A.shape))
        B.copy_(drawn(11, *B.shape))
        given = module(x)
    trained = {name: tuple(one.shape) for name, one in module.named_parameters() if one.requires_grad}
    return {"trained": trained, "fresh": fresh, "random": random, "given": given}


def same_layer(result: nn.Module) -> dict[str, object]:
    """Return what is compared of a merged layer."""
    x = drawn(9, 4, 5).float()
    return {"kind": type(result).__name__, "given": result(x).detach()}


# ------------------------------------------------------------------------------------------ what people write instead


def largest_rank(shapes: Sequence[Shape], ranks: Sequence[int]) -> int:
    return max(ranks)


def unbounded_sum(shapes: Sequence[Shape], ranks: Sequence[int]) -> int:
    return sum(ranks)


def product_of_ranks(shapes: Sequence[Shape], ranks: Sequence[int]) -> int:
    return math.prod(ranks)


def always_divided(trainable: int, shapes: Mapping[str, Shape], targets: Sequence[str], layers: int) -> int:
    return trainable // (layers * sum(sum(shapes[target]) for target in targets))


def without_layers(trainable: int, shapes: Mapping[str, Shape], targets: Sequence[str], layers: int) -> int:
    return rank_in_log(trainable, shapes, targets, 1)


def twice_the_width(trainable: int, shapes: Mapping[str, Shape], targets: Sequence[str], layers: int) -> int:
    return rank_in_log(trainable, {name: (d_in, d_in) for name, (_, d_in) in shapes.items()}, targets, layers)


def same_ratio(alpha: float, r_old: int, r_new: int, optimizer: str) -> float:
    return alpha * r_new / r_old


def always_sgd(alpha: float, r_old: int, r_new: int, optimizer: str) -> float:
    return alpha * math.sqrt(r_new / r_old)


def unchanged_alpha(alpha: float, r_old: int, r_new: int, optimizer: str) -> float:
    return alpha


def undivided_layer(base: nn.Linear, rank: int, alpha: float) -> nn.Module:
    return lora_layer(base, rank, alpha * rank)


def trained_base(base: nn.Linear, rank: int, alpha: float) -> nn.Module:
    layer = lora_layer(base, rank, alpha)
    parts_of(layer)[0].requires_grad_(True)
    return layer


def drawn_twice(base: nn.Linear, rank: int, alpha: float) -> nn.Module:
    layer = lora_layer(base, rank, alpha)
    nn.init.normal_(parts_of(layer)[2])
    return layer


def both_zero(base: nn.Linear, rank: int, alpha: float) -> nn.Module:
    layer = lora_layer(base, rank, alpha)
    nn.init.zeros_(parts_of(layer)[1])
    return layer


def merged_without_scale(layer: nn.Module) -> nn.Linear:
    base, A, B, _ = parts_of(layer)
    plain = merge_layer(layer)
    plain.weight.data = base.weight + B @ A
    return plain


def merged_without_bias(layer: nn.Module) -> nn.Linear:
    plain = merge_layer(layer)
    nn.init.zeros_(plain.bias)
    return plain


def flags_alone(layer: nn.Module, x: Tensor) -> list[str]:
    return [words for words in audit_layer(layer, x) if words != "not a fresh start"]


def output_alone(layer: nn.Module, x: Tensor) -> list[str]:
    words = flags_alone(layer, x)
    return words if torch.equal(layer(x), parts_of(layer)[0](x)) else [*words, "not a fresh start"]


def weight_alone(layer: nn.Module, x: Tensor) -> list[str]:
    found = audit_layer(layer, x)
    return found if parts_of(layer)[0].weight.requires_grad else [words for words in found if words != "base trains"]


def by_norm(base: Tensor, saved: Tensor, loaded: Tensor) -> str:
    times = float((loaded - base).norm() / (saved - base).norm())
    close = {1: "right", 2: "twice", 0: "missing"}
    return close[round(times)] if abs(times - round(times)) < 0.1 and round(times) in close else "other"


def against_zero(base: Tensor, saved: Tensor, loaded: Tensor) -> str:
    return explain_run(torch.zeros_like(base), saved, loaded)


def bit_for_bit(base: Tensor, saved: Tensor, loaded: Tensor) -> str:
    for times, words in ((1, "right"), (2, "twice"), (0, "missing")):
        if torch.equal(loaded - base, times * (saved - base)):
            return words
    return "other"


def delta_rounded_alone(W: Tensor, delta: Tensor, dtype: torch.dtype) -> float:
    return float((delta.to(dtype) != 0).double().mean())


def in_float32(W: Tensor, delta: Tensor, dtype: torch.dtype) -> float:
    return float((W + delta != W).double().mean())


def lost_fraction(W: Tensor, delta: Tensor, dtype: torch.dtype) -> float:
    return 1 - surviving_fraction(W, delta, dtype)


def one_layer(shapes: Mapping[str, Shape], targets: Sequence[str], layers: int, budget: int) -> int:
    return uniform_rank(shapes, targets, 1, budget)


def rounded_up(shapes: Mapping[str, Shape], targets: Sequence[str], layers: int, budget: int) -> int:
    return -(-budget // (layers * sum(sum(shapes[target]) for target in targets)))


def all_targets(shapes: Mapping[str, Shape], targets: Sequence[str], layers: int, budget: int) -> int:
    return uniform_rank(shapes, list(shapes), layers, budget)


def energy_of_sigma(sigma: Tensor, d_out: int, d_in: int, share: float) -> tuple[int, int]:
    return tail_rank(sigma.sqrt(), d_out, d_in, share)


def full_size(sigma: Tensor, d_out: int, d_in: int, share: float) -> tuple[int, int]:
    rank, _ = tail_rank(sigma, d_out, d_in, share)
    return rank, rank * d_out * d_in


def one_rank_more(sigma: Tensor, d_out: int, d_in: int, share: float) -> tuple[int, int]:
    rank, _ = tail_rank(sigma, d_out, d_in, share)
    return rank + 1, (rank + 1) * (d_out + d_in)


def update_rounded_first(W: Tensor, A: Tensor, B: Tensor, alpha: float, x: Tensor, dtype: torch.dtype) -> float:
    s, base = alpha / A.shape[0], W.to(dtype)
    merged = base + (s * B @ A).to(dtype)
    return float((merged.float() @ x - (base.float() @ x + s * (B @ (A @ x)))).abs().max())


def base_unrounded(W: Tensor, A: Tensor, B: Tensor, alpha: float, x: Tensor, dtype: torch.dtype) -> float:
    s = alpha / A.shape[0]
    return float(((W + s * B @ A).to(dtype).float() @ x - (W @ x + s * (B @ (A @ x)))).abs().max())


def scale_forgotten(W: Tensor, A: Tensor, B: Tensor, alpha: float, x: Tensor, dtype: torch.dtype) -> float:
    base = W.to(dtype).float()
    merged = (base + B @ A).to(dtype).float()
    return float((merged @ x - (base @ x + alpha / A.shape[0] * (B @ (A @ x)))).abs().max())


LLAMA_8B = {"q": (4096, 4096), "k": (1024, 4096), "v": (1024, 4096), "o": (4096, 4096), "gate": (14336, 4096),
            "up": (14336, 4096), "down": (4096, 14336)}  # fmt: skip
FLOATS = [drawn(seed, *shape).float() for seed, shape in ((0, (6, 5)), (1, (2, 5)), (2, (6, 2)), (3, (5,)))]

# Words and cases read better unbroken, as a catalogue.
# ruff: noqa: E501, ISC004
EXERCISES = [
    Exercise(
        "5.1", "The rank of a sum", sum_rank_bound,
        cases=[([(8, 6)] * 2, [2, 3]), ([(8, 6)] * 3, [4, 4, 4]), ([(5, 9)], [2]), ([(4096, 1024)] * 4, [8, 8, 16, 4])],
        hints=["Where do the columns of B_1 A_1 + B_2 A_2 lie?", "In the span of B_1's and B_2's columns together.",
               "No matrix has a rank above its smaller side."],
        mistakes=[
            Mistake(largest_rank, "That is the largest single rank. Two adapters of rank 2 can point in different directions."),
            Mistake(unbounded_sum, "Ranks add up, but a (8, 6) matrix has no rank above 6."),
            Mistake(product_of_ranks, "Ranks multiply for Kronecker products; in a sum they add."),
        ],
        minutes=4, difficulty=2,
    ),
    Exercise(
        "5.2", "The rank behind a log", rank_in_log,
        cases=[(41_943_040, LLAMA_8B, list(LLAMA_8B), 32), (6_815_744, LLAMA_8B, ["q", "v"], 32),
               (41_943_040, LLAMA_8B, ["q", "v"], 32), (3_407_873, LLAMA_8B, ["q", "v"], 32),
               (104, {"q": (8, 8), "k": (2, 8)}, ["q", "k"], 2)],
        hints=["What does rank 1 cost in all layers together?", "Each target costs d_out + d_in a layer.",
               "A rank is a whole number: what if the count isn't a multiple of that cost?"],
        mistakes=[
            Mistake(always_divided, "A count that is no multiple fits no rank: the run has other targets, and the answer is 0."),
            Mistake(without_layers, "That is the rank if the model had one layer; every layer pays."),
            Mistake(twice_the_width, "That takes every matrix for a square one. A key projection has a short side."),
        ],
        minutes=6, difficulty=2,
    ),
    Exercise(
        "5.3", "The same first step at another rank", equivalent_alpha,
        cases=[(16.0, 8, 64, "sgd"), (16.0, 8, 64, "adam"), (16.0, 64, 8, "sgd"), (8.0, 4, 4, "adam"),
               (32.0, 1, 256, "adam"), (32.0, 1, 256, "sgd")],
        hints=["Put s = alpha / r into s^2 r and into s r.", "They are alpha^2 / r and alpha.",
               "Keep each fixed and solve for alpha: only one of them depends on the rank."],
        mistakes=[
            Mistake(same_ratio, "That keeps s = alpha / r. The step still grows with r, under either optimizer."),
            Mistake(always_sgd, "Right for SGD. Adam divides by the gradient's size, so one factor of s cancels: what is left?"),
            Mistake(unchanged_alpha, "Right for Adam. SGD's step is alpha^2 / r, and that falls as the rank grows."),
        ],
        minutes=6, difficulty=3,
    ),
    Exercise(
        "5.4", "What survives a merge", surviving_fraction,
        cases=[(torch.tensor([0.02, 0.02]), torch.tensor([5e-5, 7e-5]), torch.bfloat16),
               (0.02 * drawn(5, 400).float(), 5e-5 * drawn(6, 400).float(), torch.bfloat16),
               (0.02 * drawn(7, 400).float(), 2e-6 * drawn(8, 400).float(), torch.float16),
               (torch.zeros(3), torch.tensor([1e-9, 0.0, 1.0]), torch.bfloat16)],
        hints=["Compare two tensors of the storage type: before and after.", "The sum is taken in float32: widen the "
               "stored weight first.", "Round the sum once, at the end."],
        mistakes=[
            Mistake(delta_rounded_alone, "Alone, delta keeps its own exponent and survives. It's lost when it joins W."),
            Mistake(in_float32, "In float32 nearly everything survives. The weight is stored in a shorter type."),
            Mistake(lost_fraction, "That is the share that is lost."),
        ],
        minutes=6, difficulty=3,
    ),
    Exercise(
        "5.5", "One rank within a budget", uniform_rank,
        cases=[(LLAMA_8B, list(LLAMA_8B), 32, 41_943_040), (LLAMA_8B, ["q", "v"], 32, 5_000_000),
               (LLAMA_8B, ["q", "v"], 32, 100), (LLAMA_8B, ["k", "down"], 32, 18_874_368)],
        hints=["What does rank 1 cost in one layer?", "d_out + d_in for each target, summed.", "How often does that, "
               "times the layers, go into the budget?"],
        mistakes=[
            Mistake(one_layer, "That spends the whole budget on one layer; there are `layers` of them."),
            Mistake(rounded_up, "Rounded up, it no longer fits the budget."),
            Mistake(all_targets, "Only the targets pay, not every matrix that `shapes` knows."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "5.A", "Cheapest rank for a share of the energy", tail_rank,
        cases=[(torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64), 5, 3, 0.9),
               (torch.tensor([4.0, 2.0, 1.0], dtype=torch.float64), 3, 3, 16 / 21),
               (torch.linspace(8, 1, 8, dtype=torch.float64), 8, 40, 0.99),
               (torch.tensor([3.0, 0.0, 0.0], dtype=torch.float64), 3, 7, 1.0)],
        hints=["Energy is the sum of squared singular values.", "Count the ranks whose energy is still below the share, "
               "and add one.", "Factors of rank r hold r (d_out + d_in) numbers."],
        mistakes=[
            Mistake(energy_of_sigma, "Energy is the sum of sigma squared; with sigma itself, ranks come out too large."),
            Mistake(full_size, "The factors are (d_out, r) and (r, d_in): r (d_out + d_in) numbers."),
            Mistake(one_rank_more, "One rank too many: the first one that reaches the share is enough."),
        ],
        minutes=8, difficulty=3,
    ),
    Exercise(
        "5.B", "How much a merge moves an output", merged_error,
        cases=[(*FLOATS[:3], 6.5, FLOATS[3], torch.bfloat16), (*FLOATS[:3], 1.0, FLOATS[3], torch.float16),
               (*FLOATS[:3], 4.0, FLOATS[3], torch.float32)],
        hints=["s is alpha over A's number of rows.", "Round W and widen it again; this base stands on both sides.",
               "Round base + s B A once, then widen it to multiply; the other side is base x plus s times B (A x)."],
        mistakes=[
            Mistake(update_rounded_first, "The update was rounded by itself before the sum. Add it in float32, then round."),
            Mistake(base_unrounded, "Your error holds the base's own rounding too, even where B = 0: round W first."),
            Mistake(scale_forgotten, "The merged weight lacks s = alpha / r."),
        ],
        minutes=8, difficulty=4, tolerance=1e-4,
    ),
    Exercise(
        "5.C", "Build: a LoRA layer", lora_layer,
        cases=[(linear(0, 5, 3), 2, 8.0), (linear(1, 6, 6, bias=False), 3, 1.0), (linear(2, 4, 7), 1, 2.0)],
        hints=["Subclass nn.Module; wrap A and B in nn.Parameter.", "`base.requires_grad_(False)` freezes a layer.",
               "With x of shape (rows, d_in), the path is x @ A.T @ B.T times alpha / rank."],
        mistakes=[
            Mistake(undivided_layer, "The scale is alpha / rank; yours is alpha."),
            Mistake(trained_base, "The base still trains: `base.requires_grad_(False)`."),
            Mistake(drawn_twice, "A fresh layer must change nothing, and yours does: B starts at 0."),
            Mistake(both_zero, "With A = 0 and B = 0, neither factor ever gets a gradient: draw A at random."),
        ],
        minutes=12, difficulty=3, read=behaviour,
    ),
    Exercise(
        "5.D", "Build: its merge", merge_layer,
        cases=[(filled_layer(0),), (filled_layer(2, rank=3, alpha=1.0),)],
        hints=["A plain layer's weight is W + s B A.", "B @ A has the shape of W.", "The bias is the base's own, unscaled."],
        mistakes=[
            Mistake(merged_without_scale, "The update is scale times B A."),
            Mistake(merged_without_bias, "The base's bias is missing."),
        ],
        minutes=6, difficulty=2, read=same_layer,
    ),
    Exercise(
        "5.E", "Build: its audit", audit_layer,
        cases=[(faulty_layer(seed, *faults), torch.ones(2, 5)) for seed, faults in enumerate((
            (), ("base trains",), ("A frozen",), ("B frozen",), ("not a fresh start",), ("stuck",),
            ("base trains", "B frozen", "not a fresh start"), ("bias trains",)))],
        hints=["`requires_grad` says what trains; the base has a weight and a bias.", "A fresh layer gives what its base gives: "
               "compare the outputs with torch.equal.", "A layer whose A and B are both zero passes that comparison too."],
        mistakes=[
            Mistake(flags_alone, "Flags don't tell whether the start is fresh: compare outputs."),
            Mistake(output_alone, "A = 0 beside B = 0 gives the base's output and can never learn."),
            Mistake(weight_alone, "The base's bias can train too: look at all of its parameters."),
        ],
        minutes=10, difficulty=3,
    ),
    Exercise(
        "5.F", "Build: explain a run", explain_run,
        cases=[(drawn(1, 6), drawn(1, 6) + times * drawn(2, 6) + 1e-3 * drawn(3, 6), drawn(1, 6) + other)
               for times, other in ((1, drawn(2, 6)), (1, 2 * drawn(2, 6)), (1, 0 * drawn(2, 6)), (1, drawn(2, 6).flip(0)),
                                    (1, -drawn(2, 6)))],
        hints=["The adapter's effect is `saved - base`.", "Compare `loaded - base` with once, twice and zero times that effect.",
               "Compare directions too: an effect of the right size may point elsewhere."],
        mistakes=[
            Mistake(by_norm, "An effect of the right size that points elsewhere isn't right: compare the tensors."),
            Mistake(against_zero, "Take the base's own logits off first: the effect is what the adapter adds."),
            Mistake(bit_for_bit, "Saving and merging round: allow for a tenth of the effect's norm."),
        ],
        minutes=10, difficulty=3,
    ),
]  # fmt: skip
