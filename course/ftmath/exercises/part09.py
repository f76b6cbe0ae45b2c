"""The exercises of part 9: choosing a method."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ftmath.exercises.exercise import Exercise, Mistake

Point = tuple[float, float, float]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def break_even(tuning_cost: float, extra_tokens: int, price_per_token: float, cached_fraction: float = 0.0) -> float:
    """Return how many requests make tuning pay for itself, since they no longer carry a long prompt.

    Without tuning, each request carries `extra_tokens` more. A share `cached_fraction` of them is read from a cache and
    costs nothing. The result isn't rounded; it is infinite where the extra tokens cost nothing.

    >>> break_even(100.0, 1000, 0.5)
    0.2
    """
    paid = extra_tokens * (1 - cached_fraction) * price_per_token
    return tuning_cost / paid if paid > 0 else math.inf


def methods_within(d: int, layers: int, sizes: Mapping[str, int], tasks: int, budget_bytes: int) -> list[str]:
    """Return which methods' files for all tasks fit a budget, the smallest file first.

    `sizes` gives "lora" its rank (on q and v, both (d, d)), "adapter" its width (two a block, with biases), "prefix"
    and "prompt" their virtual tokens (as many key-value heads as heads). Each number takes two bytes.

    >>> methods_within(8, 1, {"lora": 1, "prompt": 2}, tasks=1, budget_bytes=32)
    ['prompt']
    """

    def count(name: str, size: int) -> int:
        lora, adapter = layers * 2 * size * 2 * d, layers * 2 * (2 * d * size + size + d)
        return {"lora": lora, "adapter": adapter, "prefix": layers * 2 * size * d, "prompt": size * d}[name]

    needed = {name: 2 * tasks * count(name, size) for name, size in sizes.items()}
    return [name for size, name in sorted((size, name) for name, size in needed.items()) if size <= budget_bytes]


def stable_rank(M: Tensor) -> float:
    """Return |M|_F^2 / |M|_2^2: the sum of the squared singular values over the largest one; 0 for the zero matrix.

    >>> round(stable_rank(torch.diag(torch.tensor([3.0, 1.0, 1.0, 1.0]))), 4)
    1.3333
    """
    squares = torch.linalg.svdvals(M.double()) ** 2
    return float(squares.sum() / squares[0]) if squares[0] > 0 else 0.0


def cyclic_triads(wins: Tensor) -> int:
    """Return how many triples of answers are preferred in a circle; each triple counts once.

    `wins` (K, K) holds how often row i was preferred to column j; i beats j if that is more often than the reverse.

    >>> cyclic_triads(torch.tensor([[0, 6, 4], [4, 0, 6], [6, 4, 0]]))
    1
    """
    beats = wins > wins.T  # blank
    circles = 0
    for i, j, k in torch.combinations(torch.arange(len(wins)), 3).tolist():
        one_way = beats[i, j] and beats[j, k] and beats[k, i]  # blank
        other_way = beats[j, i] and beats[k, j] and beats[i, k]
        circles += int(one_way or other_way)
    return circles


def best_under(points: Mapping[str, Point], max_cost: float, max_forget: float) -> str | None:
    """Return the name of the best quality among the points (quality, cost, forgotten) within both limits.

    A limit that is met exactly is met. Of equal qualities the cheaper wins, then the first name; None if nothing fits.

    >>> best_under({"full": (0.9, 9.0, 0.1), "LoRA": (0.8, 1.0, 0.1)}, max_cost=2.0, max_forget=0.1)
    'LoRA'
    """
    left = {name: p for name, p in points.items() if p[1] <= max_cost and p[2] <= max_forget}
    return min(left, key=lambda name: (-left[name][0], left[name][1], name)) if left else None


def cheapest_good(
    options: Mapping[str, tuple[float, float, int]], requests: int, price: float, least_quality: float
) -> str | None:
    """Return the option that costs least over all requests, among those that are good enough.

    Options are (quality, tuning cost, extra tokens a request); `price` is that of a token. Of equal costs the better
    quality wins; None if nothing is good enough.

    >>> cheapest_good({"prompt": (0.7, 0.0, 100), "LoRA": (0.8, 50.0, 0)}, 10, 1.0, 0.75)
    'LoRA'
    """
    total = {name: tuning + requests * extra * price for name, (_, tuning, extra) in options.items()}
    good = [name for name in options if options[name][0] >= least_quality]
    return min(good, key=lambda name: (total[name], -options[name][0])) if good else None


def favourite_within(wins: Tensor, costs: Sequence[float], max_cost: float) -> int | None:
    """Return which affordable answerer beats every other affordable one, head to head; None if nobody does.

    `wins` (K, K) holds how often row i was preferred to column j; i beats j if that is more often than the reverse.

    >>> favourite_within(torch.tensor([[0, 6, 4], [4, 0, 6], [6, 4, 0]]), [1.0, 1.0, 5.0], max_cost=2.0)
    0
    """
    left = [i for i in range(len(costs)) if costs[i] <= max_cost]
    for i in left:
        if all(wins[i, j] > wins[j, i] for j in left if j != i):
            return i
    return None


# ------------------------------------------------------------------------------------------ what people write instead


def caching_ignored(
    tuning_cost: float, extra_tokens: int, price_per_token: float, cached_fraction: float = 0.0
) -> float:
    return break_even(tuning_cost, extra_tokens, price_per_token)


def whole_requests(
    tuning_cost: float, extra_tokens: int, price_per_token: float, cached_fraction: float = 0.0
) -> float:
    found = break_even(tuning_cost, extra_tokens, price_per_token, cached_fraction)
    return found if math.isinf(found) else float(math.floor(found))


def cached_paid(tuning_cost: float, extra_tokens: int, price_per_token: float, cached_fraction: float = 0.0) -> float:
    return break_even(tuning_cost, extra_tokens, price_per_token, 1 - cached_fraction)


def numbers_for_bytes(d: int, layers: int, sizes: Mapping[str, int], tasks: int, budget_bytes: int) -> list[str]:
    return methods_within(d, layers, sizes, tasks, 2 * budget_bytes)


def one_task_only(d: int, layers: int, sizes: Mapping[str, int], tasks: int, budget_bytes: int) -> list[str]:
    return methods_within(d, layers, sizes, 1, budget_bytes)


def largest_first(d: int, layers: int, sizes: Mapping[str, int], tasks: int, budget_bytes: int) -> list[str]:
    return methods_within(d, layers, sizes, tasks, budget_bytes)[::-1]


def without_squares(M: Tensor) -> float:
    values = torch.linalg.svdvals(M.double())
    return float(values.sum() / values[0]) if values[0] > 0 else 0.0


def root_of_it(M: Tensor) -> float:
    return math.sqrt(stable_rank(M))


def plain_rank(M: Tensor) -> float:
    return float(torch.linalg.matrix_rank(M.double()))


def each_start_counted(wins: Tensor) -> int:
    return 3 * cyclic_triads(wins)


def each_order_counted(wins: Tensor) -> int:
    return 6 * cyclic_triads(wins)


def any_win_beats(wins: Tensor) -> int:
    return cyclic_triads((wins > 0).int() if bool((wins > wins.T).any()) else wins)


def transitive_ones(wins: Tensor) -> int:
    return math.comb(len(wins), 3) - cyclic_triads(wins)


def cheapest_that_fits(points: Mapping[str, Point], max_cost: float, max_forget: float) -> str | None:
    left = {name: p for name, p in points.items() if p[1] <= max_cost and p[2] <= max_forget}
    return min(left, key=lambda name: (left[name][1], name)) if left else None


def forgetting_ignored(points: Mapping[str, Point], max_cost: float, max_forget: float) -> str | None:
    return best_under(points, max_cost, math.inf)


def best_ratio(points: Mapping[str, Point], max_cost: float, max_forget: float) -> str | None:
    left = {name: p for name, p in points.items() if p[1] <= max_cost and p[2] <= max_forget}
    return max(left, key=lambda name: left[name][0] / left[name][1]) if left else None


def ties_by_name(points: Mapping[str, Point], max_cost: float, max_forget: float) -> str | None:
    return best_under({name: (p[0], 0.0 if p[1] <= max_cost else math.inf, p[2]) for name, p in points.items()},
                      max_cost, max_forget)  # fmt: skip


Options = Mapping[str, tuple[float, float, int]]


def tuning_alone(options: Options, requests: int, price: float, least_quality: float) -> str | None:
    return cheapest_good(options, 0, price, least_quality)


def one_request(options: Options, requests: int, price: float, least_quality: float) -> str | None:
    return cheapest_good(
        {name: (q, 0.0, extra) for name, (q, _, extra) in options.items()}, requests, price, least_quality
    )


def any_quality(options: Options, requests: int, price: float, least_quality: float) -> str | None:
    return cheapest_good(options, requests, price, 0.0)


def the_best(options: Options, requests: int, price: float, least_quality: float) -> str | None:
    good = [name for name in options if options[name][0] >= least_quality]
    return max(good, key=lambda name: options[name][0]) if good else None


def favourite_of_all(wins: Tensor, costs: Sequence[float], max_cost: float) -> int | None:
    return favourite_within(wins, [0.0] * len(costs), max_cost)


def affordable_favourite(wins: Tensor, costs: Sequence[float], max_cost: float) -> int | None:
    found = favourite_of_all(wins, costs, max_cost)
    return found if found is not None and costs[found] <= max_cost else None


def most_votes(wins: Tensor, costs: Sequence[float], max_cost: float) -> int | None:
    left = [i for i in range(len(costs)) if costs[i] <= max_cost]
    return max(left, key=lambda i: float(wins[i, left].sum())) if left else None


def table(*rows: Sequence[int]) -> Tensor:
    return torch.tensor(rows)


CIRCLE = table([0, 6, 4], [4, 0, 6], [6, 4, 0])
LADDER = table([0, 6, 7, 8], [4, 0, 6, 9], [3, 4, 0, 6], [2, 1, 4, 0])
MIXED = table([0, 6, 3, 9], [4, 0, 6, 7], [7, 4, 0, 5], [1, 3, 5, 0])
FIVE = table([0, 9, 2, 8, 1], [1, 0, 9, 3, 7], [8, 1, 0, 9, 4], [2, 7, 1, 0, 9], [9, 3, 6, 1, 0])
MEDIUM = {"lora": 8, "adapter": 64, "prefix": 20, "prompt": 20}
FRONT = {"prompt": (0.62, 0.2, 0.0), "LoRA": (0.74, 0.5, 0.1), "adapter": (0.74, 0.4, 0.1), "full": (0.76, 2.0, 0.3)}
WAYS = {"few-shot": (0.7, 0.0, 900), "LoRA": (0.8, 40.0, 0), "full": (0.82, 300.0, 0), "probe": (0.3, 1.0, 0)}

# Words and cases read better unbroken, as a catalogue.
# ruff: noqa: E501
EXERCISES = [
    Exercise(
        "9.1", "When tuning pays for itself", break_even,
        cases=[(120.0, 1500, 0.5e-6), (120.0, 1500, 0.5e-6, 0.9), (100.0, 7, 0.3, 0.25), (5.0, 0, 1.0), (5.0, 10, 1.0, 1.0)],
        hints=["What does one request cost more than after tuning?", "Only the share that isn't cached is paid: 1 minus the fraction.",
               "Tuning cost over that, and infinity where it is 0."],
        mistakes=[
            Mistake(caching_ignored, "The cached tokens are paid for here as well. With nine tenths cached, the long prompt stays worth it ten times longer."),
            Mistake(whole_requests, "Rounded down. The point at which the costs meet needn't be a whole request."),
            Mistake(cached_paid, "That prices the cached share. What is cached is what costs nothing."),
        ],
        minutes=4, difficulty=2,
    ),
    Exercise(
        "9.2", "Which files fit", methods_within,
        cases=[(1024, 24, MEDIUM, 50, 50 * 2 * 983_040), (1024, 24, MEDIUM, 50, 120 * 2**20), (1024, 24, MEDIUM, 1, 2 * 786_431),
               (128, 4, {"adapter": 8, "prefix": 8, "lora": 4}, 10, 400_000), (64, 2, {"prompt": 4, "lora": 1}, 3, 100)],
        hints=["Count numbers first, then bytes: two for each number, for each task.", "lora: 2 matrices of r (d + d); adapter: 2 (2 d m + m + d); prefix: 2 m d; each times the layers.",
               "A soft prompt stands once, not in every layer."],
        mistakes=[
            Mistake(numbers_for_bytes, "The budget is in bytes, and every number takes two."),
            Mistake(one_task_only, "That is the file of one task; all of them are kept."),
            Mistake(largest_first, "The smallest file comes first."),
        ],
        minutes=6, difficulty=3,
    ),
    Exercise(
        "9.3", "Stable rank", stable_rank,
        cases=[(torch.diag(torch.tensor([3.0, 1.0, 1.0, 1.0])),), (torch.diag(torch.tensor([3.0, 3.0, 3.0, 3.0])),), (torch.zeros(3, 2),),
               (drawn(0, 6, 4),), (drawn(1, 5, 1) @ drawn(2, 1, 7),)],
        hints=["`torch.linalg.svdvals` gives the singular values, largest first.", "|M|_F^2 is the sum of their squares, |M|_2 the largest one.",
               "The zero matrix has a largest value of 0: answer 0 before you divide."],
        mistakes=[
            Mistake(without_squares, "That is the nuclear norm over the spectral one: the values themselves instead of their squares."),
            Mistake(root_of_it, "Both norms are squared: |M|_F / |M|_2 is the root of what is asked."),
            Mistake(plain_rank, "That counts directions, however short they are; a stable rank weighs them."),
        ],
        minutes=4, difficulty=2,
    ),
    Exercise(
        "9.4", "Preferences that go round", cyclic_triads,
        cases=[(CIRCLE,), (LADDER,), (MIXED,), (FIVE,), (table([0, 5, 5], [5, 0, 5], [5, 5, 0]),)],
        hints=["i beats j if wins[i, j] is larger than wins[j, i].", "Take each triple once: `torch.combinations(torch.arange(K), 3)`.",
               "A circle goes either i over j over k over i, or the other way round."],
        mistakes=[
            Mistake(each_start_counted, "Every circle is there three times, once for each answer that it may start with."),
            Mistake(each_order_counted, "Every circle is there six times, once for each order of its three answers."),
            Mistake(any_win_beats, "A single win isn't a preference: i beats j if it was preferred *more often* than j was."),
            Mistake(transitive_ones, "Those are the triples that do have an order."),
        ],
        minutes=7, difficulty=3,
    ),
    Exercise(
        "9.5", "The best within limits", best_under,
        cases=[(FRONT, 1.0, 0.1), (FRONT, 5.0, 0.2), (FRONT, 5.0, 0.3), (FRONT, 0.1, 1.0), (FRONT, 0.5, 0.05),
               ({"b": (0.5, 1.0, 0.0), "a": (0.5, 1.0, 0.0)}, 1.0, 0.0)],
        hints=["First throw out what breaks a limit.", "Then sort by quality, falling; by cost; by name.", "`min` over the key (-quality, cost, name), and None where nothing is left."],
        mistakes=[
            Mistake(cheapest_that_fits, "That is the cheapest that fits. Limits are for costs; what is wanted is quality."),
            Mistake(forgetting_ignored, "The second limit isn't looked at."),
            Mistake(best_ratio, "Quality over cost picks whatever costs nearly nothing. A limit is no divisor."),
            Mistake(ties_by_name, "Equal in quality, the cheaper one wins, whatever its name."),
        ],
        minutes=6, difficulty=2,
    ),
    Exercise(
        "9.A", "Two at once: volume and quality", cheapest_good,
        cases=[(WAYS, 10, 1e-3, 0.6), (WAYS, 1000, 1e-3, 0.6), (WAYS, 1000, 1e-3, 0.81), (WAYS, 10, 1e-3, 0.99), (WAYS, 40, 1e-3, 0.75),
               ({"a": (0.5, 9.0, 0), "b": (0.6, 0.0, 9)}, 1, 1.0, 0.5)],
        hints=["What does an option cost over all requests?", "Tuning cost plus requests times extra tokens times the price.", "Drop what isn't good enough before you compare costs."],
        mistakes=[
            Mistake(tuning_alone, "The tokens of every request are missing: at a large volume they decide."),
            Mistake(one_request, "The tuning itself is missing: at a small volume it decides."),
            Mistake(any_quality, "The cheapest of all isn't good enough."),
            Mistake(the_best, "That is the best one, whatever it costs."),
        ],
        minutes=7, difficulty=3,
    ),
    Exercise(
        "9.B", "Two at once: votes and costs", favourite_within,
        cases=[(CIRCLE, [1.0, 1.0, 1.0], 2.0), (CIRCLE, [1.0, 1.0, 5.0], 2.0), (LADDER, [9.0, 1.0, 1.0, 1.0], 2.0), (LADDER, [1.0, 1.0, 1.0, 1.0], 2.0),
               (LADDER, [9.0] * 4, 2.0), (table([0, 6, 6], [4, 0, 20], [4, 0, 0]), [1.0, 1.0, 1.0], 1.0)],
        hints=["Who can be afforded?", "Among those, who wins each of its comparisons? Most votes in all isn't the same.", "A circle has no such one: None."],
        mistakes=[
            Mistake(favourite_of_all, "It may cost too much: only those within the limit are compared."),
            Mistake(affordable_favourite, "Who is too expensive can't be a rival either: drop it first, then compare."),
            Mistake(most_votes, "Votes against a weak rival add up. What counts is to be preferred to each."),
        ],
        minutes=7, difficulty=3,
    ),
]  # fmt: skip
