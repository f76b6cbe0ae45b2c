"""The exercises of part 10: an implementation checklist."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from torch import Tensor

from ftmath.exercises.exercise import Exercise, Mistake

Group = tuple[float, Sequence[str]]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def packed_mask(lengths: Sequence[int]) -> Tensor:
    """Return which pairs (query, key) of packed documents may be used: (N, N) bool with N the sum of lengths.

    >>> packed_mask([1, 2]).int().tolist()
    [[1, 0, 0], [0, 1, 0], [0, 1, 1]]
    """
    order = torch.arange(sum(lengths))
    document = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(list(lengths)))
    past = order[None, :] <= order[:, None]  # blank
    same = document[:, None] == document[None, :]  # blank
    return past & same


def diff_sets(intended: Iterable[str], actual: Iterable[str]) -> tuple[list[str], list[str]]:
    """Return (missing, extra): names that should train and don't, and names that train and shouldn't, each sorted.

    >>> diff_sets(["q.A", "q.B"], ["q.A", "head", "embed"])
    (['q.B'], ['embed', 'head'])
    """
    wanted, found = set(intended), set(actual)
    return sorted(wanted - found), sorted(found - wanted)


def make_groups(names: Sequence[str], rules: Mapping[str, float], default_lr: float) -> dict[str, float]:
    """Return the rate of each name: that of the first glob of `rules` that matches the whole name, else the default.

    >>> make_groups(["q.A", "q.B", "head"], {"*.B": 16.0, "q*": 1.0}, 0.1)
    {'q.A': 1.0, 'q.B': 16.0, 'head': 0.1}
    """
    return {name: next((rate for glob, rate in rules.items() if fnmatchcase(name, glob)), default_lr) for name in names}


def reference_ok(before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor], batch: Tensor) -> bool:
    """Say whether a reference stood still: are its log-probabilities of a probe batch the same bits before and after?

    `before` and `after` map a batch to log-probabilities (rows,).

    >>> reference_ok(lambda x: x.sum(1), lambda x: x.sum(1), torch.ones(2, 3))
    True
    """
    return torch.equal(before(batch), after(batch))


def paired_ci(a: Tensor, b: Tensor, drawn: Tensor) -> tuple[float, float, float]:
    """Return the mean of b - a over items, and the 2.5 % and 97.5 % quantiles of its bootstrap means.

    a and b (items,) are scores of the same items in the same order, float64; drawn (resamples, items) holds the
    item numbers of each resample.

    >>> paired_ci(torch.tensor([0.0, 1.0]).double(), torch.tensor([0.5, 1.5]).double(), torch.tensor([[0, 0], [0, 1]]))
    (0.5, 0.5, 0.5)
    """
    change = b - a
    means = change[drawn].mean(1)
    return float(change.mean()), float(means.quantile(0.025)), float(means.quantile(0.975))


def audit_rates(
    intended: Mapping[str, float], groups: Sequence[Group]
) -> tuple[list[str], list[str], list[str]]:  # fmt: skip
    """Return (missing, extra, wrong): where an optimizer's groups aren't what was intended, each sorted.

    `intended` gives the rate of each name that should train; a group is (rate, names). `missing` are intended names in
    no group, `extra` names in a group that aren't intended, `wrong` intended names that don't stand exactly once, at
    their rate, in the groups (missing ones are not repeated here).

    >>> audit_rates({"q.A": 1.0, "q.B": 16.0}, [(1.0, ["q.A", "q.B"]), (0.1, ["head"])])
    ([], ['head'], ['q.B'])
    """
    held: dict[str, list[float]] = {}
    for rate, names in groups:
        for name in names:
            held.setdefault(name, []).append(rate)
    missing = sorted(name for name in intended if name not in held)
    extra = sorted(name for name in held if name not in intended)
    wrong = sorted(name for name, rate in intended.items() if name in held and held[name] != [rate])
    return missing, extra, wrong


def first_loss(policy: Tensor, reference: Tensor, answer_mask: Tensor, beta: float) -> float:
    """Return the mean DPO loss of pairs from tables of token log-probabilities, in nats.

    policy and reference are (2, pairs, time): chosen answers first, rejected second; answer_mask, of the same shape,
    is 1 on answer tokens and already stands over the log-probability of its own token.

    >>> one = torch.full((2, 1, 3), -1.0)
    >>> round(first_loss(one, one, torch.ones(2, 1, 3), beta=0.1), 4)
    0.6931
    """
    ours, theirs = ((table * answer_mask).sum(-1) for table in (policy, reference))
    h = (ours[0] - ours[1]) - (theirs[0] - theirs[1])
    return float(-F.logsigmoid(beta * h).mean())


# ------------------------------------------------------------------------------------------ what people write instead


def no_documents(lengths: Sequence[int]) -> Tensor:
    return torch.ones(sum(lengths), sum(lengths), dtype=torch.bool).tril()


def looks_ahead(lengths: Sequence[int]) -> Tensor:
    return packed_mask(lengths).T


def not_itself(lengths: Sequence[int]) -> Tensor:
    return packed_mask(lengths) & ~torch.eye(sum(lengths), dtype=torch.bool)


def both_ways(intended: Iterable[str], actual: Iterable[str]) -> tuple[list[str], list[str]]:
    apart = sorted(set(intended) ^ set(actual))
    return apart, apart


def swapped(intended: Iterable[str], actual: Iterable[str]) -> tuple[list[str], list[str]]:
    return diff_sets(actual, intended)


def by_substring(intended: Iterable[str], actual: Iterable[str]) -> tuple[list[str], list[str]]:
    wanted, found = list(intended), list(actual)
    missing = {name for name in wanted if not any(name in other for other in found)}
    return sorted(missing), sorted({name for name in found if not any(other in name for other in wanted)})


def last_wins(names: Sequence[str], rules: Mapping[str, float], default_lr: float) -> dict[str, float]:
    return make_groups(names, dict(reversed(list(rules.items()))), default_lr)


def unmatched_dropped(names: Sequence[str], rules: Mapping[str, float], default_lr: float) -> dict[str, float]:
    return {name: rate for name, rate in make_groups(names, rules, -1.0).items() if rate != -1.0}


def glob_as_substring(names: Sequence[str], rules: Mapping[str, float], default_lr: float) -> dict[str, float]:
    return {name: next((rate for glob, rate in rules.items() if glob.strip("*") in name), default_lr) for name in names}


def close_enough(before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor], batch: Tensor) -> bool:
    return torch.allclose(before(batch), after(batch), atol=1e-3)


def on_average(before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor], batch: Tensor) -> bool:
    return bool(before(batch).mean() == after(batch).mean())


def first_row(before: Callable[[Tensor], Tensor], after: Callable[[Tensor], Tensor], batch: Tensor) -> bool:
    return torch.equal(before(batch)[0], after(batch)[0])


def drawn_apart(a: Tensor, b: Tensor, drawn: Tensor) -> tuple[float, float, float]:
    means = b[drawn.flip(0)].mean(1) - a[drawn].mean(1)
    return float((b - a).mean()), float(means.quantile(0.025)), float(means.quantile(0.975))


def two_deviations(a: Tensor, b: Tensor, drawn: Tensor) -> tuple[float, float, float]:
    change = b - a
    spread = 1.96 * float(change.std())
    return float(change.mean()), float(change.mean()) - spread, float(change.mean()) + spread


def other_sign(a: Tensor, b: Tensor, drawn: Tensor) -> tuple[float, float, float]:
    return paired_ci(b, a, drawn)


def duplicates_fine(
    intended: Mapping[str, float], groups: Sequence[Group]
) -> tuple[list[str], list[str], list[str]]:  # fmt: skip
    missing, extra, _ = audit_rates(intended, groups)
    last = {name: rate for rate, names in groups for name in names}
    return missing, extra, sorted(name for name in intended if name in last and last[name] != intended[name])


def names_only(
    intended: Mapping[str, float], groups: Sequence[Group]
) -> tuple[list[str], list[str], list[str]]:  # fmt: skip
    missing, extra, _ = audit_rates(intended, groups)
    return missing, extra, []


def one_group(
    intended: Mapping[str, float], groups: Sequence[Group]
) -> tuple[list[str], list[str], list[str]]:  # fmt: skip
    return audit_rates(intended, groups[:1])


def mean_per_token(policy: Tensor, reference: Tensor, answer_mask: Tensor, beta: float) -> float:
    ours, theirs = ((table * answer_mask).sum(-1) / answer_mask.sum(-1) for table in (policy, reference))
    return float(-F.logsigmoid(beta * ((ours[0] - ours[1]) - (theirs[0] - theirs[1]))).mean())


def everything_counted(policy: Tensor, reference: Tensor, answer_mask: Tensor, beta: float) -> float:
    return first_loss(policy, reference, torch.ones_like(answer_mask), beta)


def no_reference(policy: Tensor, reference: Tensor, answer_mask: Tensor, beta: float) -> float:
    return first_loss(policy, torch.zeros_like(reference), answer_mask, beta)


def summed(x: Tensor) -> Tensor:
    return x.sum(1)


def summed_and_drifted(x: Tensor) -> Tensor:
    return x.sum(1) + 1e-4


def second_row_moved(x: Tensor) -> Tensor:
    return x.sum(1) + torch.tensor([0.0, 0.5, -0.5])[: len(x)]


def first_two_traded(x: Tensor) -> Tensor:
    return x.sum(1) + torch.tensor([0.5, -0.5, 0.0])[: len(x)]


NAMES = ["blocks.0.q.A", "blocks.0.q.B", "blocks.1.v.A", "blocks.1.v.B", "head.weight", "norm.bias"]
SCORES = [(drawn(seed, 40) > cut).double() for seed, cut in ((0, 0.3), (0, -0.1), (2, 0.0))]
RESAMPLES = torch.randint(40, (300, 40), generator=torch.Generator().manual_seed(7))
TABLES = [-drawn(seed, 2, 3, 5).abs() for seed in (3, 4)]
ANSWERS = torch.tensor(
    [[[0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0]], [[0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 1, 0]]]
)

# Words and cases read better unbroken, as a catalogue.
# ruff: noqa: E501, ISC004
EXERCISES = [
    Exercise(
        "10.1", "The mask of a packed row", packed_mask,
        cases=[([3, 2],), ([1, 2],), ([4],), ([1, 1, 1],), ([2, 5, 3],)],
        hints=["Two conditions, both (N, N): the key isn't later than the query, and both lie in one document.",
               "Rows are queries, columns are keys: order[:, None] runs over queries.",
               "`document` holds each position's document number; compare it with itself, once as a column."],
        mistakes=[
            Mistake(no_documents, "That is the plain causal mask: the second document reads the first."),
            Mistake(looks_ahead, "Rows are queries. Transposed, each token reads the future and not the past."),
            Mistake(not_itself, "A token may read itself; the first token of a document has nothing else, and would be NaN."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "10.2", "What should train, and what does", diff_sets,
        cases=[(["q.A", "q.B"], ["q.A", "head", "embed"]), (["a", "b"], ["b", "a"]), ([], ["z", "y", "x"]),
               (["head", "norm"], ["head.bias"]), (["v", "u", "w"], [])],
        hints=["Two differences of sets, one in each direction.", "Names are whole: `head` isn't `head.bias`.",
               "Sort both, so that two logs can be compared."],
        mistakes=[
            Mistake(both_ways, "One list for both directions: frozen by accident and trained by accident have different mends."),
            Mistake(swapped, "Missing is what should train and doesn't; you return it as extra."),
            Mistake(by_substring, "A substring match: `head` is taken for `head.bias`."),
        ],
        minutes=4, difficulty=1,
    ),
    Exercise(
        "10.3", "A rate for each name", make_groups,
        cases=[(NAMES, {"*.B": 16e-4, "blocks*": 1e-4}, 1e-5), (NAMES, {"*.A": 1.0}, 0.5), (NAMES, {}, 0.1),
               (["bias", "bias.gain", "a.bias"], {"*bias": 2.0, "*": 1.0}, 0.0)],
        hints=["fnmatchcase(name, glob) from fnmatch compares whole names.", "A dictionary keeps the order of its rules: "
               "take the first that matches.", "A name that no rule matches still trains, at the default."],
        mistakes=[
            Mistake(last_wins, "The last rule that matches won; the first should, so that exceptions stand on top."),
            Mistake(unmatched_dropped, "Names that no rule matches are lost: they'd be in no group and never move."),
            Mistake(glob_as_substring, "A glob matches the whole name: `*bias` isn't `bias.gain`."),
        ],
        minutes=6, difficulty=2,
    ),
    Exercise(
        "10.4", "Did the reference stand still?", reference_ok,
        cases=[(summed, summed, torch.ones(3, 2)), (summed, summed_and_drifted, torch.ones(3, 2)),
               (summed, second_row_moved, torch.ones(3, 2)), (summed, first_two_traded, torch.ones(3, 2))],
        hints=["A reference that stands still gives the same bits, not nearly the same numbers.", "torch.equal compares bits "
               "and shape.", "Compare all rows: a mean or a first row can agree by chance."],
        mistakes=[
            Mistake(close_enough, "A tolerance hides exactly what is looked for: a small rate moves log-probabilities by 1e-4 a step."),
            Mistake(on_average, "Means agree when one row rises and another falls."),
            Mistake(first_row, "Only the first row is compared."),
        ],
        minutes=3, difficulty=1,
    ),
    Exercise(
        "10.5", "A paired interval", paired_ci,
        cases=[(SCORES[0], SCORES[1], RESAMPLES), (SCORES[1], SCORES[2], RESAMPLES), (SCORES[0], SCORES[0], RESAMPLES)],
        hints=["Subtract item by item before anything is drawn.", "change[drawn] is (resamples, items): its row means are "
               "the bootstrap's.", "Quantiles of these means; the first number is the mean without resampling."],
        mistakes=[
            Mistake(drawn_apart, "The two sides were drawn apart: that throws the pairing away, and the interval is far too wide."),
            Mistake(two_deviations, "That is the spread of items, not of their mean: it doesn't shrink with more items."),
            Mistake(other_sign, "b - a: a gain of the method b is positive."),
        ],
        minutes=7, difficulty=3,
    ),
    Exercise(
        "10.A", "Two at once: freezing and rates", audit_rates,
        cases=[({"q.A": 1.0, "q.B": 16.0}, [(1.0, ["q.A", "q.B"]), (0.1, ["head"])]), ({"a": 1.0, "b": 2.0, "c": 2.0}, [(2.0, ["c", "b"])]),
               ({"a": 1.0}, [(1.0, ["a"]), (1.0, ["a"])]), ({"a": 1.0, "b": 2.0}, [(1.0, ["a"]), (2.0, ["b"])]), ({"z": 0.5, "y": 0.5}, [])],
        hints=["Collect, for each name, the list of rates under which it stands.", "Right is a list with exactly one entry, the "
               "intended rate.", "Missing and extra are the two differences of names."],
        mistakes=[
            Mistake(duplicates_fine, "A name in two groups is stepped twice: exactly once is part of being right."),
            Mistake(names_only, "All names are there, at whatever rate: a group with the wrong rate goes unseen."),
            Mistake(one_group, "Only the first group is read."),
        ],
        minutes=9, difficulty=3,
    ),
    Exercise(
        "10.B", "Two at once: mask and reference", first_loss,
        cases=[(TABLES[0], TABLES[1], ANSWERS, 0.1), (TABLES[0], TABLES[0], ANSWERS, 0.5), (5 * TABLES[1], TABLES[0], ANSWERS, 0.3)],
        hints=["An answer's log-probability is the sum over its tokens: four sums for each pair.", "h is how much more the policy "
               "prefers the chosen answer than the reference does.", "-logsigmoid(beta h), mean over pairs."],
        mistakes=[
            Mistake(mean_per_token, "Divided by length: DPO's log-probabilities are sums."),
            Mistake(everything_counted, "Prompt and padding are counted too: the mask is unused."),
            Mistake(no_reference, "The reference is missing: an unmoved policy should score log 2."),
        ],
        minutes=7, difficulty=3,
    ),
]  # fmt: skip
