"""The exercises of part 9: choosing a method."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ftmath.exercises.exercise import Exercise, Mistake

Point = tuple[float, float, float]
Sweep = Mapping[str, Sequence[float]]


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


def flaws(sweeps: Mapping[str, Sweep], reported: Mapping[str, tuple[str, float]]) -> list[str]:
    """Return what is wrong with a table of methods: none or more of these, in this order.

    `sweeps` maps a method to its rates, and each rate to a score for each seed, higher is better. `reported` is what the
    table says of a method: the rate, and the score.

    - "not a mean": some reported score is more than 0.005 away from the mean of its rate's seeds;
    - "unequal seeds": not every rate of every method has the same number of seeds;
    - "unequal sweeps": not every method has the same number of rates;
    - "best at an end": some method with two rates or more has its best mean at its lowest or its highest rate.

    >>> flaws({"ours": {"1e-4": [0.7, 0.9]}, "base": {"1e-4": [0.8]}}, {"ours": ("1e-4", 0.9), "base": ("1e-4", 0.8)})
    ['not a mean', 'unequal seeds']
    """
    means = {
        name: {rate: sum(scores) / len(scores) for rate, scores in sweep.items()} for name, sweep in sweeps.items()
    }
    ends = {name: {min(sweep, key=float), max(sweep, key=float)} for name, sweep in sweeps.items()}
    best = {name: max(found, key=lambda rate: found[rate]) for name, found in means.items()}
    wrong = {
        "not a mean": any(abs(score - means[name][rate]) > 0.005 for name, (rate, score) in reported.items()),
        "unequal seeds": len({len(scores) for sweep in sweeps.values() for scores in sweep.values()}) > 1,
        "unequal sweeps": len({len(sweep) for sweep in sweeps.values()}) > 1,
        "best at an end": any(len(sweeps[name]) > 1 and best[name] in ends[name] for name in sweeps),
    }
    return [words for words, found in wrong.items() if found]


def recompute(sweeps: Mapping[str, Sweep]) -> dict[str, tuple[str, float, float]]:
    """Return each method's best rate, the mean over seeds there, and its worst seed there.

    So that luck is the same for all, every rate is judged by as many seeds as the poorest one has: by its first ones. The best
    rate is the one with the best mean; of equal ones, the lowest.

    >>> recompute({"ours": {"1e-4": [0.5, 0.75, 1.0], "3e-4": [0.75, 0.75]}})
    {'ours': ('3e-4', 0.75, 0.75)}
    """
    seeds = min(len(scores) for sweep in sweeps.values() for scores in sweep.values())
    found: dict[str, tuple[str, float, float]] = {}
    for name, sweep in sweeps.items():
        means = {rate: sum(sweep[rate][:seeds]) / seeds for rate in sorted(sweep, key=float)}
        best = max(means, key=lambda rate: means[rate])
        found[name] = best, means[best], min(sweep[best][:seeds])
    return found


def surely_left(options: Mapping[str, tuple[float, float, float]], least: float) -> list[str]:
    """Return the options that surely reach a quality and that none of these surely beats, the cheapest first.

    An option is (quality, half the width of its interval, cost). It surely reaches `least` if its interval's lower end does.
    One option surely beats another if it costs no more and its lower end lies above the other's upper end. Of equal costs, the
    first name in the alphabet comes first.

    >>> surely_left({"LoRA": (0.9, 0.02, 1.0), "full": (0.91, 0.02, 9.0), "BitFit": (0.8, 0.05, 0.5)}, least=0.8)
    ['LoRA', 'full']
    """
    good = {name: option for name, option in options.items() if option[0] - option[1] >= least}
    left = [
        name
        for name, (quality, half, cost) in good.items()
        if not any(c <= cost and q - h > quality + half for q, h, c in good.values())
    ]
    return sorted(left, key=lambda name: (good[name][2], name))


def what_decided(sweeps: Mapping[str, Sweep], reported: Mapping[str, tuple[str, float]]) -> str:
    """Return what made the winner of a table: "seeds", "sweep" or "nothing".

    The winner is the method with the highest score. "seeds": it's another one if each reported score becomes the mean over the
    seeds of its rate. "sweep": it's another one only if, besides, each method gets the rate with its best mean. "nothing": the
    winner stays.

    >>> what_decided({"ours": {"1e-4": [0.7, 0.9]}, "base": {"1e-4": [0.85, 0.85]}}, {"ours": ("1e-4", 0.9), "base": ("1e-4", 0.85)})
    'seeds'
    """
    means = {
        name: {rate: sum(scores) / len(scores) for rate, scores in sweep.items()} for name, sweep in sweeps.items()
    }
    told = max(reported, key=lambda name: reported[name][1])
    at_their_rates = max(reported, key=lambda name: means[name][reported[name][0]])
    at_best_rates = max(means, key=lambda name: max(means[name].values()))
    if at_their_rates != told:
        return "seeds"
    return "nothing" if at_best_rates == told else "sweep"


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


def values_alone(sweeps: Mapping[str, Sweep], reported: Mapping[str, tuple[str, float]]) -> list[str]:
    return [words for words in flaws(sweeps, reported) if words in ("not a mean", "unequal seeds")]


def best_seed_alone(sweeps: Mapping[str, Sweep], reported: Mapping[str, tuple[str, float]]) -> list[str]:
    best = any(score >= max(sweeps[name][rate]) > min(sweeps[name][rate]) for name, (rate, score) in reported.items())
    return (["not a mean"] if best else []) + [words for words in flaws(sweeps, reported) if words != "not a mean"]


def in_order_of_text(sweeps: Mapping[str, Sweep], reported: Mapping[str, tuple[str, float]]) -> list[str]:
    means = {name: {rate: sum(one) / len(one) for rate, one in sweep.items()} for name, sweep in sweeps.items()}
    best = {name: max(found, key=lambda rate: found[rate]) for name, found in means.items()}
    end = any(len(sweep) > 1 and best[name] in (min(sweep), max(sweep)) for name, sweep in sweeps.items())
    return [words for words in flaws(sweeps, reported) if words != "best at an end"] + (
        ["best at an end"] if end else []
    )


def best_single_run(sweeps: Mapping[str, Sweep]) -> dict[str, tuple[str, float, float]]:
    found = {name: max(sweep, key=lambda rate: max(sweep[rate])) for name, sweep in sweeps.items()}
    return {name: (rate, max(sweeps[name][rate]), min(sweeps[name][rate])) for name, rate in found.items()}


def all_seeds(sweeps: Mapping[str, Sweep]) -> dict[str, tuple[str, float, float]]:
    return {name: recompute({name: {rate: scores}})[name] if len(sweep) == 1 else one_by_one(name, sweep)
            for name, sweep in sweeps.items() for rate, scores in list(sweep.items())[:1]}  # fmt: skip


def one_by_one(name: str, sweep: Sweep) -> tuple[str, float, float]:
    found = {rate: recompute({name: {rate: scores}})[name] for rate, scores in sweep.items()}
    return max(found.values(), key=lambda one: one[1])


def worst_of_all_rates(sweeps: Mapping[str, Sweep]) -> dict[str, tuple[str, float, float]]:
    return {
        name: (rate, mean, min(score for scores in sweeps[name].values() for score in scores))
        for name, (rate, mean, _) in recompute(sweeps).items()
    }


def by_means(options: Mapping[str, tuple[float, float, float]], least: float) -> list[str]:
    return surely_left({name: (quality, 0.0, cost) for name, (quality, _, cost) in options.items()}, least)


def upper_end_reaches(options: Mapping[str, tuple[float, float, float]], least: float) -> list[str]:
    good = {name: option for name, option in options.items() if option[0] + option[1] >= least}
    return surely_left(good, -math.inf)


def cost_ignored(options: Mapping[str, tuple[float, float, float]], least: float) -> list[str]:
    left = surely_left({name: (quality, half, 0.0) for name, (quality, half, _) in options.items()}, least)
    return sorted(left, key=lambda name: (options[name][2], name))


def first_difference(sweeps: Mapping[str, Sweep], reported: Mapping[str, tuple[str, float]]) -> str:
    found = flaws(sweeps, reported)
    return "seeds" if "not a mean" in found else "sweep" if "unequal sweeps" in found else "nothing"


def sweep_first(sweeps: Mapping[str, Sweep], reported: Mapping[str, tuple[str, float]]) -> str:
    means = {name: max(sum(one) / len(one) for one in sweep.values()) for name, sweep in sweeps.items()}
    told = max(reported, key=lambda name: reported[name][1])
    return "nothing" if max(means, key=lambda name: means[name]) == told else "sweep"


def never_the_sweep(sweeps: Mapping[str, Sweep], reported: Mapping[str, tuple[str, float]]) -> str:
    found = what_decided(sweeps, reported)
    return "nothing" if found == "sweep" else found


CIRCLE = table([0, 6, 4], [4, 0, 6], [6, 4, 0])
LADDER = table([0, 6, 7, 8], [4, 0, 6, 9], [3, 4, 0, 6], [2, 1, 4, 0])
MIXED = table([0, 6, 3, 9], [4, 0, 6, 7], [7, 4, 0, 5], [1, 3, 5, 0])
FIVE = table([0, 9, 2, 8, 1], [1, 0, 9, 3, 7], [8, 1, 0, 9, 4], [2, 7, 1, 0, 9], [9, 3, 6, 1, 0])
MEDIUM = {"lora": 8, "adapter": 64, "prefix": 20, "prompt": 20}
FRONT = {"prompt": (0.62, 0.2, 0.0), "LoRA": (0.74, 0.5, 0.1), "adapter": (0.74, 0.4, 0.1), "full": (0.76, 2.0, 0.3)}
WAYS = {"few-shot": (0.7, 0.0, 900), "LoRA": (0.8, 40.0, 0), "full": (0.82, 300.0, 0), "probe": (0.3, 1.0, 0)}

FAIR = {"ours": {"1e-4": [0.70, 0.72], "3e-4": [0.80, 0.84], "1e-3": [0.60, 0.66]},
        "base": {"3e-5": [0.70, 0.70], "1e-4": [0.81, 0.81], "3e-4": [0.50, 0.40]}}  # fmt: skip
LUCKY = {"ours": {"1e-4": [0.70, 0.90, 0.77]}, "base": {"1e-4": [0.80, 0.82, 0.84]}}
ONE_SIDED = {"ours": {"1e-4": [0.5, 0.5], "1e-3": [0.8, 0.8], "1e-2": [0.6, 0.6]}, "base": {"1e-4": [0.7, 0.7]}}
SAME_RATE = {"full": {"3e-5": [0.6, 0.7], "1e-4": [0.9, 0.92], "1e-3": [0.8, 0.7]},
             "LoRA": {"1e-4": [0.4, 0.5], "1e-3": [0.93, 0.93], "1e-2": [0.5, 0.4]}}  # fmt: skip
UNEVEN = {
    "ours": {"1e-4": [0.6, 0.6], "3e-4": [0.7, 0.7, 1.0, 1.0]},
    "base": {"1e-4": [0.9, 0.6, 0.9], "9e-4": [0.7, 0.7, 0.9]},
}

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
    Exercise(
        "9.C", "Build: find the flaws", flaws,
        cases=[(FAIR, {"ours": ("3e-4", 0.82), "base": ("1e-4", 0.81)}), (LUCKY, {"ours": ("1e-4", 0.9), "base": ("1e-4", 0.82)}),
               (ONE_SIDED, {"ours": ("1e-3", 0.8), "base": ("1e-4", 0.7)}), (UNEVEN, {"ours": ("3e-4", 0.85), "base": ("1e-4", 0.85)}),
               (SAME_RATE, {"full": ("1e-4", 0.91), "LoRA": ("1e-3", 0.93)}), (FAIR, {"ours": ("3e-4", 0.78), "base": ("1e-4", 0.81)}),
               ({"a": {"9e-5": [0.1], "1e-4": [0.5], "2e-4": [0.2]}}, {"a": ("1e-4", 0.5)})],
        hints=["Compute every mean first, by method and rate.", "Sets tell whether all counts are equal: {len(...) for ...} has one element.", "Rates are text: compare them as numbers, float(rate)."],
        mistakes=[
            Mistake(values_alone, "You looked at the reported scores and seeds alone. How were the rates chosen, and for whom?"),
            Mistake(best_seed_alone, "A score needn't be the best seed to be wrong: compare it with the mean of its seeds."),
            Mistake(in_order_of_text, 'As text, "9e-5" comes after "2e-4". The ends of a sweep are those of the numbers.'),
        ],
        minutes=12, difficulty=3,
    ),
    Exercise(
        "9.D", "Build: recompute the table", recompute,
        cases=[(FAIR,), (LUCKY,), (UNEVEN,), (SAME_RATE,), ({"a": {"1e-3": [0.5, 0.5], "1e-4": [0.5, 0.5]}},)],
        hints=["How many seeds has the poorest rate of all methods? Judge every rate by that many.", "Sort the rates as numbers; max keeps the first of equals.", "The worst seed is the worst at the best rate."],
        mistakes=[
            Mistake(best_single_run, "That picks the luckiest single run. A rate is judged by the mean over its seeds."),
            Mistake(all_seeds, "Some rates had more seeds than others: judge all by the same number."),
            Mistake(worst_of_all_rates, "The worst seed counts at the rate that is used, not at rates that nobody would use."),
        ],
        minutes=10, difficulty=3,
    ),
    Exercise(
        "9.E", "Build: decide with intervals", surely_left,
        cases=[({"LoRA": (0.9, 0.02, 1.0), "full": (0.91, 0.02, 9.0), "BitFit": (0.8, 0.05, 0.5)}, 0.8), ({"a": (0.95, 0.01, 2.0), "b": (0.90, 0.01, 2.0), "c": (0.94, 0.03, 1.0)}, 0.5),
               ({"prompt": (0.7, 0.1, 0.0), "LoRA": (0.92, 0.03, 1.0), "full": (0.93, 0.03, 5.0)}, 0.65), ({"a": (0.6, 0.2, 1.0)}, 0.5), ({"a": (0.9, 0.05, 1.0), "b": (0.88, 0.05, 1.0), "d": (0.76, 0.02, 0.5)}, 0.8), ({"prompt": (0.75, 0.03, 0.0), "full": (0.95, 0.02, 9.0)}, 0.6), ({"z": (0.9, 0.1, 1.0), "y": (0.9, 0.1, 1.0)}, 0.8)],
        hints=["First who surely reaches the demand: quality - half.", "Then, among those, who is surely beaten: another one costs no more, and its lower end is above this one's upper end.", "Sort by (cost, name)."],
        mistakes=[
            Mistake(by_means, "A hundredth of quality within an interval of two isn't a reason to drop anything: compare ends, not means."),
            Mistake(upper_end_reaches, "That asks whether the demand *may* be reached. Surely means that the lower end reaches it."),
            Mistake(cost_ignored, "A better option that costs more doesn't beat a cheaper one: both stay."),
        ],
        minutes=10, difficulty=3,
    ),
    Exercise(
        "9.F", "Build: what made the winner", what_decided,
        cases=[(LUCKY, {"ours": ("1e-4", 0.9), "base": ("1e-4", 0.82)}), (FAIR, {"ours": ("3e-4", 0.82), "base": ("1e-4", 0.81)}),
               (SAME_RATE, {"full": ("1e-4", 0.91), "LoRA": ("1e-4", 0.45)}), (ONE_SIDED, {"ours": ("1e-3", 0.8), "base": ("1e-4", 0.7)}),
               (SAME_RATE, {"full": ("1e-4", 0.92), "LoRA": ("1e-4", 0.5)})],
        hints=["Three winners: as told, by means at the reported rates, by means at each method's best rate.", "Compare the first with the second, then with the third.", "A flaw that doesn't change the winner didn't make it."],
        mistakes=[
            Mistake(first_difference, "That names a flaw. Ask whether mending it changes the winner."),
            Mistake(sweep_first, "Both repairs at once don't tell which of them was needed: try the seeds alone first."),
            Mistake(never_the_sweep, "One rate for all isn't fair to all: give each method its own best rate, and look who wins then."),
        ],
        minutes=10, difficulty=3,
    ),
]  # fmt: skip
