"""The exercises of part 3: full fine-tuning."""

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from ftmath.exercises.exercise import Exercise, Mistake
from ftmath.groups import level_of

Optimizer = Callable[[Sequence[Tensor], float], None]
"""What moves parameters in place by their gradients, at a rate times a factor."""


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


def most_trained(card: float, parameters: int, devices: int) -> int:
    """Return how many of a model's parameters can train if `card` bytes are there on each of some devices.

    Weights and gradients have 2 bytes; Adam's state and the master copy together 12. ZeRO's first stage splits those 12
    over the devices, and nothing else: each device holds all weights and all gradients. Frozen parameters have a weight
    alone. The answer is 0 if nothing can train, and never more than there are parameters.

    >>> most_trained(340.0, 100, devices=1)
    10
    """
    left = card - 2 * parameters
    return max(0, min(parameters, math.floor(left / (2 + 12 / devices))))


def gamma_in_log(rates: Mapping[str, float], layers: int) -> float:
    """Return the factor gamma between neighbouring levels of a model, read from a log of some parameters' rates.

    The embeddings are level 0, block 0 (`blocks.0.`) is level 1, and the top block, the final norm and the head are
    level `layers`. The log needn't name each level, and its order says nothing. A level has one rate, gamma times that of
    the level above.

    >>> gamma_in_log({"blocks.3.attn.q.weight": 1.0, "blocks.1.mlp.up.weight": 0.25}, layers=4)
    0.5

    Errors: ValueError naming `gamma` if no gamma explains all of the rates, or if all of them belong to one level.
    """
    by_level = sorted((level_of(name, layers), rate) for name, rate in rates.items())
    (low, first), (high, last) = by_level[0], by_level[-1]
    if low == high:
        raise ValueError("gamma can't be read from the rates of one level")
    gamma = (first / last) ** (1 / (high - low))
    if any(not math.isclose(rate, last * gamma ** (high - level), rel_tol=1e-6) for level, rate in by_level):
        raise ValueError("no gamma explains all of these rates")
    return gamma


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


def worth_it(quality: float, cost: float, forgetting: float, price: float, risk: float) -> tuple[float, float] | None:
    """Return the least and the most that a point of quality may be worth so that full tuning pays, or None if it never does.

    The first three are differences, full less parameter-efficient, and each may be negative. `price` is money per unit of
    cost, `risk` money per point of forgetting. A point is worth 0 or more; `math.inf` says that there is no most.

    >>> worth_it(1.5, 300.0, 0.8, price=1.0, risk=1500.0)
    (1000.0, inf)
    """
    against = price * cost + risk * forgetting  # full pays where value * quality > against
    if quality > 0:
        return max(0.0, against / quality), math.inf
    if against >= 0:
        return None
    return 0.0, (against / quality if quality < 0 else math.inf)


def largest_batch(free: float, per_token: float, time: int, vocab: int, chunk: int | None) -> int:
    """Return how many sequences of `time` tokens fit into `free` bytes.

    Each token keeps `per_token` bytes in the blocks. Each position whose logits exist takes 12 bytes for each of `vocab`
    words. Without a `chunk` the logits of all positions exist at once; with one, those of `chunk` positions at a time, or
    of all of them if the batch has fewer.

    >>> largest_batch(10_000.0, 8.0, 100, vocab=1, chunk=None), largest_batch(10_000.0, 8.0, 100, vocab=1, chunk=50)
    (5, 11)
    """

    def taken(sequences: int) -> float:
        tokens = sequences * time
        projected = tokens if chunk is None else min(chunk, tokens)
        return per_token * tokens + 12 * vocab * projected

    sequences = 0
    while taken(sequences + 1) <= free:
        sequences += 1
    return sequences


def steps_until(rate: float, decay: float, share: float) -> int:
    """Return after how many AdamW steps without gradient a weight is below `share` of itself.

    >>> steps_until(0.5, 1.0, 0.3)
    2
    """
    steps = math.log(share) / math.log(1 - rate * decay)
    whole = round(steps) if math.isclose(steps, round(steps), rel_tol=1e-12) else math.floor(steps)
    return whole + 1  # at a whole number of steps it's equal, not below; logarithms hit that only up to rounding


# ------------------------------------------------------------ an optimizer, its schedule, its clip, and its alarm


def adamw(rate: float, decay: float) -> Optimizer:
    """Return an optimizer: a function step(parameters, factor) that moves the parameters in place by one AdamW step.

    Its rate is rate * factor, betas are (0.9, 0.999), eps is 1e-8, and the decay is decoupled. Each call gets the same
    parameters in the same order, and reads each one's `.grad`. Where that is None, nothing happens to the parameter: it
    doesn't move, its moments stay, and this step isn't counted for it.

    >>> weight = nn.Parameter(torch.ones(1, dtype=torch.float64))
    >>> weight.grad = torch.full_like(weight, 3.0)
    >>> adamw(rate=0.1, decay=0.5)([weight], 1.0)
    >>> round(weight.item(), 4)
    0.85
    """
    state: dict[int, tuple[Tensor, Tensor, int]] = {}

    @torch.no_grad()
    def step(parameters: Sequence[Tensor], factor: float) -> None:
        for place, parameter in enumerate(parameters):
            g = parameter.grad
            if g is None:
                continue
            m, v, count = state.get(place, (torch.zeros_like(g), torch.zeros_like(g), 0))
            m, v, count = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g.square(), count + 1
            state[place] = m, v, count
            m_hat, v_hat = m / (1 - 0.9**count), v / (1 - 0.999**count)
            parameter.mul_(1 - rate * factor * decay)
            parameter.sub_(rate * factor * m_hat / (v_hat.sqrt() + 1e-8))

    return step


def warm_cosine(step: int, steps: int, rise: int, floor: float) -> float:
    """Return the factor of the rate at a step, counted from 0: a straight rise, then half a cosine down to `floor`.

    The rise takes `rise` steps: the first has 1 / rise, so that no batch is wasted on a rate of 0, and the last has 1.
    From there the cosine falls, and the last step of all, steps - 1, has `floor`.

    >>> [round(warm_cosine(step, 6, 2, 0.0), 3) for step in range(6)]
    [0.5, 1.0, 0.854, 0.5, 0.146, 0.0]

    Errors: ValueError naming `rise` unless 0 <= rise < steps.
    """
    if not 0 <= rise < steps:
        raise ValueError(f"rise must be within 0..{steps - 1}, got {rise}")
    if step < rise:
        return (step + 1) / rise
    done = (step + 1 - rise) / (steps - rise)
    return floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * done))


def clip_together(gradients: Sequence[Tensor | None], most: float) -> tuple[list[Tensor | None], float]:
    """Return the gradients, scaled down by one common factor if the norm of all of them together is above `most`.

    That norm, from before, is returned beside them. A gradient of None stays None.

    >>> scaled, norm = clip_together([torch.tensor([3.0]), None, torch.tensor([4.0])], 1.0)
    >>> norm, [None if one is None else round(one.item(), 4) for one in scaled]
    (5.0, [0.6, None, 0.8])

    Errors: ValueError naming the norm if it isn't finite: no factor mends such a step.
    """
    norm = math.sqrt(sum(float(one.square().sum()) for one in gradients if one is not None))
    if not math.isfinite(norm):
        raise ValueError(f"the norm must be finite, got {norm}")
    factor = min(1.0, most / norm) if norm else 1.0
    return [None if one is None else factor * one for one in gradients], norm


def first_alarm(log: Mapping[str, Sequence[float]], start: int, window: int, times: float) -> tuple[str, int] | None:
    """Return which quantity of a run's log leaves its range first, and at which step; None if none does.

    `log` has one value a step for each quantity. Values before step `start` aren't looked at: a warm-up raises them on
    purpose. From there on, look at the mean of the last `window` values. A quantity leaves its range at the first step at
    which this mean is above `times` the least such mean before, or at which the value isn't finite. Of two that leave at
    the same step, name the one that comes first in the log.

    >>> first_alarm({"loss": [2, 1, 1, 1, 2, 8], "update": [9, 1, 1, 4, 4, 4]}, start=1, window=2, times=2.0)
    ('update', 3)
    """
    found: list[tuple[int, int, str]] = []
    for place, (name, values) in enumerate(log.items()):
        least = math.inf
        for step in range(start, len(values)):
            mean = sum(values[step + 1 - window : step + 1]) / window if step + 1 - window >= start else math.nan
            if not math.isfinite(values[step]) or mean > times * least:
                found.append((step, place, name))
                break
            least = min(least, mean) if math.isfinite(mean) else least
    return (min(found)[2], min(found)[0]) if found else None


# ------------------------------------------------------------------------------- what an optimizer is tried on


def walked(step: Optimizer) -> list[Tensor]:
    """Return where an optimizer takes two parameters in six steps; the second gets no gradient at two of them."""
    parameters = [nn.Parameter(drawn(1, 3)), nn.Parameter(drawn(2, 2, 2))]
    for count, factor in enumerate((0.25, 0.5, 1.0, 1.0, 0.5, 0.25)):
        parameters[0].grad = drawn(10 + count, 3) * torch.tensor([1.0, 1e-2, 1e-8], dtype=torch.float64)
        parameters[1].grad = None if count in (0, 3) else drawn(20 + count, 2, 2)
        step(parameters, factor)
    return [parameter.detach().clone() for parameter in parameters]


def team_factor(step: int) -> float:
    """Return the factor of the rate in the run that 3.F ends with: a warm-up of five steps, as its authors wrote it."""
    return (step + 1) / 5


def slipped(rate: float, decay: float, slip: str) -> Optimizer:
    """Return AdamW with one slip."""
    state: dict[int, tuple[Tensor, Tensor, int]] = {}
    calls = [0]

    @torch.no_grad()
    def step(parameters: Sequence[Tensor], factor: float) -> None:
        calls[0] += 1
        for place, parameter in enumerate(parameters):
            g = parameter.grad
            if g is None and slip != "None is zero":
                continue
            g = torch.zeros_like(parameter) if g is None else g + (decay * parameter if slip == "coupled" else 0)
            m, v, count = state.get(place, (torch.zeros_like(g), torch.zeros_like(g), 0))
            m, v, count = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g.square(), count + 1
            state[place] = m, v, count
            count = {"one count": calls[0], "not corrected": 10**6}.get(slip, count)
            m_hat, v_hat = m / (1 - 0.9**count), v / (1 - 0.999**count)
            shrink = {"coupled": 0.0, "decay at the full rate": rate * decay}.get(slip, rate * factor * decay)
            below = (v_hat + 1e-8).sqrt() if slip == "eps inside" else v_hat.sqrt() + 1e-8
            parameter.mul_(1 - shrink)
            parameter.sub_(rate * factor * m_hat / below)

    return step


# ------------------------------------------------------------------------------------------ what people write instead


def matrices_only(layers: int, d: int, vocab: int, positions: int, tied: bool) -> int:
    return vocab * d + positions * d + 12 * layers * d * d + (0 if tied else vocab * d)


def head_counted_twice(layers: int, d: int, vocab: int, positions: int, tied: bool) -> int:
    return gpt2_parameters(layers, d, vocab, positions, tied=False)


def final_norm_forgotten(layers: int, d: int, vocab: int, positions: int, tied: bool) -> int:
    return gpt2_parameters(layers, d, vocab, positions, tied) - 2 * d


def coupled(theta: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, rate: float, decay: float) -> Tensor:
    return adamw_step(theta, g + decay * theta, m, v, step, rate, 0.0)


def not_corrected(theta: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, rate: float, decay: float) -> Tensor:
    return adamw_step(theta, g, m, v, 10**6, rate, decay)


def decay_without_rate(theta: Tensor, g: Tensor, m: Tensor, v: Tensor, step: int, rate: float, decay: float) -> Tensor:
    return adamw_step(theta, g, m, v, step, rate, decay / rate)


def one_step_early(rate: float, decay: float, share: float) -> int:
    return math.floor(math.log(share) / math.log(1 - rate * decay))


def straight_line(rate: float, decay: float, share: float) -> int:
    return math.floor((1 - share) / (rate * decay)) + 1


def weight_twice(card: float, parameters: int, devices: int) -> int:
    return max(0, min(parameters, math.floor((card - 2 * parameters) / (4 + 12 / devices))))


def gradients_split(card: float, parameters: int, devices: int) -> int:
    return max(0, min(parameters, math.floor((card - 2 * parameters) / (14 / devices))))


def frozen_for_free(card: float, parameters: int, devices: int) -> int:
    return max(0, min(parameters, math.floor(card / (4 + 12 / devices))))


def nothing_split(card: float, parameters: int, devices: int) -> int:
    return most_trained(card, parameters, 1)


def never_bounded(card: float, parameters: int, devices: int) -> int:
    return math.floor((card - 2 * parameters) / (2 + 12 / devices))


def levels_of(rates: Mapping[str, float], layers: int) -> list[tuple[int, float]]:
    return sorted((level_of(name, layers), rate) for name, rate in rates.items())


def ratio_of_ends(rates: Mapping[str, float], layers: int) -> float:
    found = levels_of(rates, layers)
    return found[0][1] / found[-1][1]


def one_level_each(rates: Mapping[str, float], layers: int) -> float:
    found = levels_of(rates, layers)
    return (found[0][1] / found[-1][1]) ** (1 / (len(found) - 1))


def blocks_from_zero(rates: Mapping[str, float], layers: int) -> float:
    known = {name: int(name.split(".")[1]) if name.startswith("blocks") else level_of(name, layers) for name in rates}
    low, high = (pick(known, key=known.__getitem__) for pick in (min, max))
    return (rates[low] / rates[high]) ** (1 / (known[high] - known[low]))


def upside_down(rates: Mapping[str, float], layers: int) -> float:
    return 1 / gamma_in_log(rates, layers)


Worth = tuple[float, float] | None


def sign_forgotten(quality: float, cost: float, forgetting: float, price: float, risk: float) -> Worth:
    return ((price * cost + risk * forgetting) / quality, math.inf) if quality else None


def below_zero(quality: float, cost: float, forgetting: float, price: float, risk: float) -> Worth:
    found, against = worth_it(quality, cost, forgetting, price, risk), price * cost + risk * forgetting
    return (against / quality, math.inf) if quality > 0 else found


def forgetting_added(quality: float, cost: float, forgetting: float, price: float, risk: float) -> Worth:
    return worth_it(quality, cost, -forgetting, price, risk)


def worse_never_pays(quality: float, cost: float, forgetting: float, price: float, risk: float) -> Worth:
    return worth_it(quality, cost, forgetting, price, risk) if quality > 0 else None


def logits_forgotten(free: float, per_token: float, time: int, vocab: int, chunk: int | None) -> int:
    return math.floor(free / (per_token * time))


def chunk_ignored(free: float, per_token: float, time: int, vocab: int, chunk: int | None) -> int:
    return math.floor(free / (time * (per_token + 12 * vocab)))


def chunk_in_each(free: float, per_token: float, time: int, vocab: int, chunk: int | None) -> int:
    return math.floor(free / (time * per_token + 12 * vocab * (time if chunk is None else min(chunk, time))))


def chunk_always_full(free: float, per_token: float, time: int, vocab: int, chunk: int | None) -> int:
    if chunk is None:
        return chunk_ignored(free, per_token, time, vocab, chunk)
    return max(0, math.floor((free - 12 * vocab * chunk) / (per_token * time)))


def none_is_zero(rate: float, decay: float) -> Optimizer:
    return slipped(rate, decay, "None is zero")


def one_count(rate: float, decay: float) -> Optimizer:
    return slipped(rate, decay, "one count")


def moments_not_corrected(rate: float, decay: float) -> Optimizer:
    return slipped(rate, decay, "not corrected")


def decay_in_gradient(rate: float, decay: float) -> Optimizer:
    return slipped(rate, decay, "coupled")


def decay_at_full_rate(rate: float, decay: float) -> Optimizer:
    return slipped(rate, decay, "decay at the full rate")


def eps_inside(rate: float, decay: float) -> Optimizer:
    return slipped(rate, decay, "eps inside")


def first_step_lost(step: int, steps: int, rise: int, floor: float) -> float:
    return step / rise if step < rise else warm_cosine(step, steps, rise, floor)


def cosine_from_the_start(step: int, steps: int, rise: int, floor: float) -> float:
    return min(1.0, (step + 1) / rise if rise else 1.0) * warm_cosine(step, steps, 0, floor)


def floor_cuts(step: int, steps: int, rise: int, floor: float) -> float:
    return max(floor, warm_cosine(step, steps, rise, 0.0))


def never_at_the_floor(step: int, steps: int, rise: int, floor: float) -> float:
    return warm_cosine(step, steps, rise, floor) if step < rise else warm_cosine(step, steps + 1, rise, floor)


Clipped = tuple[list[Tensor | None], float]


def each_alone(gradients: Sequence[Tensor | None], most: float) -> Clipped:
    return [None if one is None else clip_together([one], most)[0][0] for one in gradients], clip_together(
        gradients, most
    )[1]


def entries_cut(gradients: Sequence[Tensor | None], most: float) -> Clipped:
    cut = [None if one is None else one.clamp(-most, most) for one in gradients]
    return cut, clip_together(gradients, most)[1]


def scaled_up_too(gradients: Sequence[Tensor | None], most: float) -> Clipped:
    norm = clip_together(gradients, most)[1]
    return [None if one is None else one * most / norm if norm else one for one in gradients], norm


def norms_added(gradients: Sequence[Tensor | None], most: float) -> Clipped:
    norm = sum(float(one.norm()) for one in gradients if one is not None)
    return [None if one is None else one * min(1.0, most / norm) if norm else one for one in gradients], norm


Alarm = tuple[str, int] | None


def first_in_the_log(log: Mapping[str, Sequence[float]], start: int, window: int, times: float) -> Alarm:
    alone = (first_alarm({name: values}, start, window, times) for name, values in log.items())
    return next((found for found in alone if found), None)


def warm_up_too(log: Mapping[str, Sequence[float]], start: int, window: int, times: float) -> Alarm:
    return first_alarm(log, 0, window, times)


def single_values(log: Mapping[str, Sequence[float]], start: int, window: int, times: float) -> Alarm:
    return first_alarm(log, start, 1, times)


def nan_is_not_above(log: Mapping[str, Sequence[float]], start: int, window: int, times: float) -> Alarm:
    finite = {name: [value if math.isfinite(value) else 0.0 for value in values] for name, values in log.items()}
    return first_alarm(finite, start, window, times)


def counted_from_the_start(log: Mapping[str, Sequence[float]], start: int, window: int, times: float) -> Alarm:
    found = first_alarm(log, start, window, times)
    return (found[0], found[1] - start) if found else None


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
        "3.2", "How much can train", most_trained,
        cases=[(340.0, 100, 1), (80 * 2.0**30, 6_738_415_616, 1), (80 * 2.0**30, 6_738_415_616, 8), (15_000.0, 1000, 4), (2800.0, 1000, 4), (1500.0, 1000, 2)],
        hints=["Every parameter has a weight, whether it trains or not: take those off first.", "A parameter that trains costs more on top. Its weight is paid already.", "2 bytes of gradient, and 12 over the number of devices. Then look at both ends: 0 and all."],
        mistakes=[
            Mistake(weight_twice, "A trained parameter's weight is counted twice: once with all weights, once more with its gradient."),
            Mistake(gradients_split, "The first stage splits the optimizer's 12 bytes alone: every device holds all gradients."),
            Mistake(frozen_for_free, "Frozen parameters hold their weights too: 2 bytes each, before anything trains."),
            Mistake(nothing_split, "The optimizer's 12 bytes are split over the devices."),
            Mistake(never_bounded, "Look at both ends: no fewer than 0 can train, and no more than there are."),
        ],
        minutes=7, difficulty=3,
    ),
    Exercise(
        "3.3", "Read gamma from a log", gamma_in_log,
        cases=[({"blocks.3.attn.q.weight": 1.0, "blocks.1.mlp.up.weight": 0.25}, 4), ({"norm.weight": 2e-5, "embed.weight": 2e-5 * 0.9**12}, 12),
               ({"blocks.0.attn.q.weight": 0.01 / 2.6, "head.weight": 0.01, "embed.weight": 0.01 / 2.6**2, "blocks.0.mlp.up.bias": 0.01 / 2.6}, 2),
               ({"blocks.5.attn.o.weight": 1e-3, "embed.weight": 1e-3}, 6)],
        errors=[(({"blocks.0.attn.q.weight": 1.0, "blocks.1.attn.q.weight": 0.5, "embed.weight": 0.25}, 3), "gamma"), (({"norm.weight": 1.0, "blocks.1.attn.q.weight": 1.0}, 2), "gamma")],
        hints=["First turn each name into a level; `level_of(name, layers)` of ftmath does it.", "Levels k apart have rates that differ by gamma^k: take the k-th root.", "Take the lowest and the highest level, then check that gamma explains every other rate."],
        mistakes=[
            Mistake(ratio_of_ends, "That is gamma once for each level between the two: take the root."),
            Mistake(one_level_each, "The log needn't name every level: count the levels between, not the entries."),
            Mistake(blocks_from_zero, "Level 0 are the embeddings, so blocks.0 is level 1."),
            Mistake(upside_down, "The other way round: the lower level has the lower rate, and gamma is at most 1."),
        ],
        minutes=9, difficulty=3,
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
        "3.5", "For which value of a point", worth_it,
        cases=[(1.5, 300.0, 0.8, 1.0, 1500.0), (1.0, 100.0, -2.0, 1.0, 100.0), (-0.5, 100.0, -2.0, 1.0, 100.0), (-0.5, 100.0, 2.0, 1.0, 100.0), (0.0, 100.0, -2.0, 1.0, 100.0), (0.0, 100.0, 2.0, 1.0, 100.0)],
        hints=["Full pays where value * quality > price * cost + risk * forgetting.", "Divide by the quality. What does a negative one do to the sign >?", "If full tuning is worse and also cheaper in all, it pays as long as a point is worth little."],
        mistakes=[
            Mistake(sign_forgotten, "Dividing by a negative quality turns > into <: then there is a most, not a least."),
            Mistake(below_zero, "A point is worth 0 or more: a negative least is 0."),
            Mistake(forgetting_added, "Forgetting is a cost: it stands on the side of the price."),
            Mistake(worse_never_pays, "A worse model can pay too, if it saves more than its lost points are worth."),
        ],
        minutes=9, difficulty=3,
    ),
    Exercise(
        "3.A", "The batch that fits", largest_batch,
        cases=[(10_000.0, 8.0, 100, 1, None), (10_000.0, 8.0, 100, 1, 50), (10 * 2.0**30, 300_000.0, 512, 49_152, None), (10 * 2.0**30, 300_000.0, 512, 49_152, 1024),
               (500.0, 2.0, 10, 2, 1000), (100.0, 2.0, 100, 5, 10), (2000.0, 8.0, 100, 1, 150)],
        hints=["Write a function for what a number of sequences takes, then look for the largest number that fits.", "Blocks: per_token for each token. Logits: 12 * vocab for each position that is projected at once.", "With a chunk the logits are paid once, not for each sequence; and a small batch may not fill the chunk."],
        mistakes=[
            Mistake(logits_forgotten, "The logits take memory too: 12 bytes for each word of the vocabulary, at each projected position."),
            Mistake(chunk_ignored, "With a chunk, only that many positions' logits exist at a time, however large the batch is."),
            Mistake(chunk_in_each, "The chunks come one after the other, so one chunk's memory serves the whole batch: it's paid once, not for each sequence."),
            Mistake(chunk_always_full, "A batch with fewer positions than a chunk has that many logits, not a whole chunk's."),
        ],
        minutes=8, difficulty=3,
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
    Exercise(
        "3.C", "Build: AdamW", adamw,
        cases=[(0.1, 0.5), (0.01, 0.0), (1e-3, 0.1)],
        hints=["Keep for each parameter its two moments and how many steps it has made: a dict by its place in the list.", "Write in place, under `torch.no_grad()`: `parameter.mul_(...)`, then `parameter.sub_(...)`.",
               "Shrink by 1 - rate * factor * decay, then take off rate * factor * m_hat / (sqrt(v_hat) + eps). Skip a parameter whose grad is None."],
        mistakes=[
            Mistake(none_is_zero, "A missing gradient isn't a gradient of 0: with 0, momentum and decay go on. Skip such a parameter."),
            Mistake(one_count, "The bias corrections need each parameter's own count: a skipped step isn't counted for it."),
            Mistake(moments_not_corrected, "The moments start at 0 and are too small at first: divide by 1 - beta^count."),
            Mistake(decay_in_gradient, "The decay went into the gradient, and was divided by its size. Decoupled, it acts on the weight alone."),
            Mistake(decay_at_full_rate, "The schedule's factor multiplies the rate everywhere, also in the decay."),
            Mistake(eps_inside, "eps is added to the root, not under it: for small gradients that is another step."),
        ],
        minutes=12, difficulty=3, tolerance=1e-9, read=walked,
    ),
    Exercise(
        "3.D", "Build: warm-up and cosine", warm_cosine,
        cases=[(step, 6, 2, 0.0) for step in range(6)] + [(step, 9, 3, 0.1) for step in (0, 2, 5, 8)] + [(0, 4, 0, 0.5), (3, 4, 0, 0.5)],
        errors=[((0, 5, 5, 0.0), "rise"), ((0, 5, -1, 0.0), "rise")],
        hints=["During the rise: (step + 1) / rise.", "After it, which share of the remaining steps - rise steps is done, this one included?", "Half a cosine from 1 to 0 is (1 + cos(pi * done)) / 2; mix it with the floor: floor + (1 - floor) * that."],
        mistakes=[
            Mistake(first_step_lost, "The first step has a rate of 0: a batch for nothing. It has 1 / rise."),
            Mistake(cosine_from_the_start, "The cosine begins where the rise ends; yours falls during the rise already."),
            Mistake(floor_cuts, "The cosine ends in the floor smoothly; yours falls to 0 and is cut off on the way."),
            Mistake(never_at_the_floor, "The last step, steps - 1, has the floor; yours would reach it one step after the end."),
        ],
        minutes=8, difficulty=2, tolerance=1e-9,
    ),
    Exercise(
        "3.E", "Build: clip by the global norm", clip_together,
        cases=[([torch.tensor([3.0]), None, torch.tensor([4.0])], 1.0), ([drawn(5, 4), drawn(6, 2, 3)], 0.5), ([drawn(7, 4), None], 100.0), ([torch.zeros(2)], 1.0)],
        errors=[(([torch.tensor([math.nan]), torch.ones(2)], 1.0), "norm"), (([torch.tensor([math.inf])], 1.0), "norm")],
        hints=["The norm of all together is the root of the sum of all squares.", "One factor for all keeps the direction: min(1, most / norm).", "NaN fails every comparison: test the norm with math.isfinite before you use it."],
        mistakes=[
            Mistake(each_alone, "Each tensor was clipped by its own norm: that turns the gradient. One factor for all."),
            Mistake(entries_cut, "Cutting entries is clipping by value: it turns the gradient. Scale all of them by one factor."),
            Mistake(scaled_up_too, "A smaller norm is left as it is: the factor is never above 1."),
            Mistake(norms_added, "The norm of all together isn't the sum of the norms: add the squares, then take the root."),
        ],
        minutes=8, difficulty=2,
    ),
    Exercise(
        "3.F", "Build: find the divergence", first_alarm,
        cases=[
            ({"loss": [2, 1, 1, 1, 2, 8], "update": [9, 1, 1, 4, 4, 4]}, 1, 2, 2.0),
            ({"loss": [3.0, 2.0, 1.5, 1.2, 1.1, 5.0, 9.0, 9.0], "norm": [1.0, 1.1, 0.9, 1.0, 1.0, 1.0, 1.0, math.nan]}, 0, 2, 2.0),
            ({"loss": [3.0, 2.0, 1.0, 1.0, 1.0, 1.0], "norm": [1.0, 1.0, 1.0, 1.0, math.inf, 1.0]}, 0, 3, 2.0),
            ({"loss": [1.0] * 8, "update": [0.1, 0.4, 0.8, 1.0, 1.0, 1.0, 1.0, 1.0]}, 3, 2, 2.0),
            ({"loss": [1.0, 1.0, 4.0, 4.0], "update": [1.0, 1.0, 4.0, 4.0]}, 0, 1, 3.0),
            ({"loss": [1.0, 1.0, 1.0, 2.6, 1.0, 1.0, 1.0, 1.0]}, 0, 3, 2.0),
            ({"loss": [math.nan, 1.0, 1.0, 1.0], "update": [1.0, 1.0, 1.0, 1.0]}, 1, 1, 2.0),
        ],
        hints=["For each quantity, walk through the steps and keep the least mean so far.", "The mean of the last `window` values exists from step start + window - 1 on.", "Collect (step, place in the log, name) of each quantity's first alarm; the least of these is the answer. NaN and infinity are alarms at once."],
        mistakes=[
            Mistake(first_in_the_log, "That is the first quantity in the log that ever leaves its range. Which leaves it at the earliest step?"),
            Mistake(warm_up_too, "Values before `start` were looked at: a warm-up raises them on purpose."),
            Mistake(single_values, "One value is noise: compare means of `window` values."),
            Mistake(nan_is_not_above, "NaN isn't above anything: ask math.isfinite first."),
            Mistake(counted_from_the_start, "Steps are counted from the run's beginning, not from `start`."),
        ],
        minutes=12, difficulty=3,
    ),
]  # fmt: skip
