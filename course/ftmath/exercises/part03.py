"""The exercises of part 3: full fine-tuning."""

import math

import torch
from torch import Tensor

from ftmath.exercises.exercise import Exercise, Mistake


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def gpt2_parameters(layers: int, d: int, vocab: int, positions: int, tied: bool) -> int:
    """Return the parameters of a GPT-2: embeddings, blocks of attention (4 d^2 + 4 d), MLP (8 d^2 + 5 d) and two norms.

    A norm has a gain and a bias; one more stands at the end. An untied head is another (vocab, d) without bias.

    >>> gpt2_parameters(1, 2, 10, 4, tied=True)
    106

    """
    block = 12 * d * d + 13 * d  # blank
    embeddings = vocab * d + positions * d
    return embeddings + layers * block + 2 * d + (0 if tied else vocab * d)  # blank


def training_memory(frozen: int, trained: int, weight: int, gradient: int, optimizer: int, master: bool) -> int:
    """Return the bytes that stay: weights for all parameters, gradients and optimizer state for the trained ones.

    `weight`, `gradient` and `optimizer` are bytes per parameter; with `master`, trained ones have a float32 copy too.

    >>> training_memory(10, 5, 2, 2, 8, master=True)
    100
    """
    return weight * (frozen + trained) + (gradient + optimizer + 4 * master) * trained


def level_rates(layers: int, top: float, decay: float) -> list[float]:
    """Return the learning rates of levels 0 (embeddings) to `layers`: `top` at the top, times `decay` each level down.

    >>> level_rates(2, 1.0, 0.5)
    [0.25, 0.5, 1.0]

    Errors: ValueError naming `decay` unless it's within (0, 1].
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be within (0, 1], got {decay}")
    return [top * decay ** (layers - level) for level in range(layers + 1)]


def adamw_step(theta: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, rate: float, decay: float) -> Tensor:
    """Return theta after one AdamW step with betas (0.9, 0.999) and eps 1e-8; m and v are the moments before it.

    `step` counts from 1, as the bias corrections need.

    >>> one = torch.ones(1, dtype=torch.float64)
    >>> round(adamw_step(one, 0 * one, 0 * one, 0 * one, 1, rate=0.1, decay=0.5).item(), 4)
    0.95
    """
    m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g.square()
    m_hat, v_hat = m / (1 - 0.9**step), v / (1 - 0.999**step)
    return (1 - rate * decay) * theta - rate * m_hat / (v_hat.sqrt() + 1e-8)


def prefer_full(quality: float, cost: float, forgetting: float, value: float, price: float, risk: float) -> bool:
    """Say whether full tuning pays: value of its extra quality above the price of its extra cost and forgetting.

    The first three are differences, full minus parameter-efficient; `value` and `risk` are money per point, `price`
    money per unit of cost.

    >>> prefer_full(1.5, 375.0, 0.8, value=2000.0, price=1.0, risk=1500.0)
    True
    """
    return value * quality > price * cost + risk * forgetting


def largest_batch(free: float, per_token: float, time: int) -> int:
    """Return how many sequences of `time` tokens fit, if each token keeps `per_token` bytes and `free` bytes are left.

    >>> largest_batch(1000.0, 2.0, 100)
    5
    """
    return math.floor(free / (per_token * time))


def steps_until(rate: float, decay: float, share: float) -> int:
    """Return after how many AdamW steps without gradient a weight is below `share` of itself.

    >>> steps_until(0.5, 1.0, 0.3)
    2
    """
    steps = math.log(share) / math.log(1 - rate * decay)
    whole = round(steps) if math.isclose(steps, round(steps), rel_tol=1e-12) else math.floor(steps)
    return whole + 1  # at a whole number of steps it's equal, not below; logarithms hit that only up to rounding


# ------------------------------------------------------------------------------------------ what people write instead


def matrices_only(layers: int, d: int, vocab: int, positions: int, tied: bool) -> int:
    return vocab * d + positions * d + 12 * layers * d * d + (0 if tied else vocab * d)


def head_counted_twice(layers: int, d: int, vocab: int, positions: int, tied: bool) -> int:
    return gpt2_parameters(layers, d, vocab, positions, tied=False)


def final_norm_forgotten(layers: int, d: int, vocab: int, positions: int, tied: bool) -> int:
    return gpt2_parameters(layers, d, vocab, positions, tied) - 2 * d


def state_for_all(frozen: int, trained: int, weight: int, gradient: int, optimizer: int, master: bool) -> int:
    return (weight + gradient + optimizer + 4 * master) * (frozen + trained)


def no_master(frozen: int, trained: int, weight: int, gradient: int, optimizer: int, master: bool) -> int:
    return training_memory(frozen, trained, weight, gradient, optimizer, False)


def trained_weights_only(frozen: int, trained: int, weight: int, gradient: int, optimizer: int, master: bool) -> int:
    return (weight + gradient + optimizer + 4 * master) * trained


def upside_down(layers: int, top: float, decay: float) -> list[float]:
    return level_rates(layers, top, decay)[::-1]


def one_level_more(layers: int, top: float, decay: float) -> list[float]:
    return [top * decay ** (layers - level + 1) for level in range(layers + 1)]


def no_embeddings(layers: int, top: float, decay: float) -> list[float]:
    return level_rates(layers, top, decay)[1:]


def coupled(theta: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, rate: float, decay: float) -> Tensor:
    return adamw_step(theta, g + decay * theta, m, v, step, rate, 0.0)


def not_corrected(theta: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, rate: float, decay: float) -> Tensor:
    return adamw_step(theta, g, m, v, 10**6, rate, decay)


def decay_without_rate(theta: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, rate: float, decay: float) -> Tensor:
    return adamw_step(theta, g, m, v, step, rate, decay / rate)


def ratio_of_both(quality: float, cost: float, forgetting: float, value: float, price: float, risk: float) -> bool:
    return value * quality / (price * cost) > 1


def forgetting_added(quality: float, cost: float, forgetting: float, value: float, price: float, risk: float) -> bool:
    return value * quality + risk * forgetting > price * cost


def rounded_up(free: float, per_token: float, time: int) -> int:
    return math.ceil(free / (per_token * time))


def tokens_not_sequences(free: float, per_token: float, time: int) -> int:
    return math.floor(free / per_token)


def one_step_early(rate: float, decay: float, share: float) -> int:
    return math.floor(math.log(share) / math.log(1 - rate * decay))


def straight_line(rate: float, decay: float, share: float) -> int:
    return math.floor((1 - share) / (rate * decay)) + 1


STATE = [drawn(seed, 3) for seed in range(4)]

# Words and cases read better unbroken, as a catalogue.
# ruff: noqa: E501
EXERCISES = [
    Exercise(
        "3.1", "Count a GPT-2", gpt2_parameters,
        cases=[(1, 2, 10, 4, True), (12, 768, 50257, 1024, True), (12, 768, 50257, 1024, False), (2, 8, 11, 5, False)],
        hints=["One block: four attention matrices, two of the MLP, their biases, two norms.", "4 d^2 + 4 d, 8 d^2 + 5 d and 4 d make a block.", "Then the final norm, and a head only where it isn't tied."],
        mistakes=[
            Mistake(matrices_only, "12 L d^2 leaves out biases and norms: 13 d a block, and 2 d at the end."),
            Mistake(head_counted_twice, "A tied head is the embedding under another name: it counts once."),
            Mistake(final_norm_forgotten, "One more norm stands behind the last block: 2 d."),
        ],
        minutes=6, difficulty=2,
    ),
    Exercise(
        "3.2", "Bytes that stay", training_memory,
        cases=[(10, 5, 2, 2, 8, True), (6_738_415_616, 4_194_304, 2, 2, 8, True), (0, 1000, 4, 4, 8, False), (100, 0, 2, 2, 8, True)],
        hints=["Every parameter has a weight.", "Only trained ones have gradient, optimizer state and master copy.", "A master copy is float32: 4 bytes."],
        mistakes=[
            Mistake(state_for_all, "Frozen parameters have no gradient and no optimizer state."),
            Mistake(no_master, "With mixed precision each trained parameter has a float32 master copy: 4 bytes more."),
            Mistake(trained_weights_only, "Frozen weights take memory too: they are read at every step."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "3.3", "A rate for each level", level_rates,
        cases=[(2, 1.0, 0.5), (12, 2e-5, 0.9), (3, 0.01, 1 / 2.6), (4, 1.0, 1.0)],
        errors=[((2, 1.0, 0.0), "decay"), ((2, 1.0, 1.5), "decay")],
        hints=["There are layers + 1 levels, the embeddings being 0.", "The top level has decay^0.", "Level l has decay^(layers - l)."],
        mistakes=[
            Mistake(upside_down, "The other way round: the embeddings move least."),
            Mistake(one_level_more, "The top level has the full rate: its exponent is 0."),
            Mistake(no_embeddings, "The embeddings are a level too: layers + 1 rates."),
        ],
        minutes=4, difficulty=2, tolerance=1e-9,
    ),
    Exercise(
        "3.4", "One step of AdamW", adamw_step,
        cases=[(*STATE[:3], STATE[3].square(), 3, 0.1, 0.5), (STATE[0], STATE[1], 0 * STATE[0], 0 * STATE[0], 1, 0.01, 0.1), (STATE[0], 0 * STATE[0], 0 * STATE[0], 0 * STATE[0], 1, 0.1, 0.5)],
        hints=["Update both moments first.", "Divide them by 1 - beta^step.", "Shrink theta by rate * decay, apart from the gradient's part."],
        mistakes=[
            Mistake(coupled, "The decay went into the gradient: Adam then divides it by its own size. Decoupled, it acts on theta alone."),
            Mistake(not_corrected, "The moments start at 0 and are too small at first: divide by 1 - beta^step."),
            Mistake(decay_without_rate, "The shrinkage is rate times decay."),
        ],
        minutes=8, difficulty=3, tolerance=1e-9,
    ),
    Exercise(
        "3.5", "Does full tuning pay?", prefer_full,
        cases=[(1.5, 375.0, 0.8, 2000.0, 1.0, 1500.0), (1.5, 375.0, 2.0, 2000.0, 1.0, 1500.0), (0.2, 10.0, -1.0, 10.0, 1.0, 20.0), (0.1, 375.0, -0.5, 1000.0, 1.0, 100.0), (0.2, 375.0, 0.5, 1000.0, 1.0, 500.0)],
        hints=["Put everything into money.", "Benefit: value times extra quality.", "Against: price times extra cost plus risk times extra forgetting."],
        mistakes=[
            Mistake(ratio_of_both, "A ratio of benefit and cost leaves forgetting out."),
            Mistake(forgetting_added, "Forgetting is a cost: it stands on the other side."),
        ],
        minutes=4, difficulty=1,
    ),
    Exercise(
        "3.A", "The batch that fits", largest_batch,
        cases=[(1000.0, 2.0, 100), (10 * 2.0**30, 6_000_000.0, 512), (100.0, 2.0, 100), (1200.0, 2.0, 100)],
        hints=["What does one sequence keep?", "Bytes per token times its tokens.", "Round down."],
        mistakes=[
            Mistake(rounded_up, "Rounded up, the last sequence doesn't fit."),
            Mistake(tokens_not_sequences, "Those are tokens; a sequence has `time` of them."),
        ],
        minutes=4, difficulty=1,
    ),
    Exercise(
        "3.B", "How long decay takes", steps_until,
        cases=[(0.5, 1.0, 0.3), (0.01, 0.1, 0.9), (2e-5, 0.01, 0.99), (0.1, 0.5, 0.5)],
        hints=["Each step multiplies by 1 - rate * decay.", "Take logarithms.", "Below, not at: one step after the whole part."],
        mistakes=[
            Mistake(one_step_early, "After that many steps it is still above."),
            Mistake(straight_line, "Each step takes a share of what is left, not of the start."),
        ],
        minutes=6, difficulty=3,
    ),
]  # fmt: skip
