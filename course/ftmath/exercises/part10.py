"""The exercises of part 10: an implementation checklist."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmath.exercises.exercise import Exercise, Mistake
from ftmath.lora import add_lora, load_lora, lora_layers, lora_state
from ftmath.model import Config, Decoder
from ftmath.skills import EOS, PAD, SEP, batch

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


def shared_prompts(train: Sequence[str], validation: Sequence[str]) -> list[str]:
    """Return the prompts that stand on both sides of a split, sorted, each once.

    Two prompts are one if they differ in case and in the number of spaces only. Each is returned in lower case, with single spaces
    and none at its ends.

    >>> shared_prompts(["Neb  sun", "neb moon"], ["neb sun ", "neb tree"])
    ['neb sun']
    """
    sides = [{" ".join(prompt.lower().split()) for prompt in side} for side in (train, validation)]
    return sorted(sides[0] & sides[1])


def mask_faults(ids: Tensor, mask: Tensor) -> list[str]:
    """Return what is wrong with the loss mask of some rows, both (rows, time): each word once, in the order below.

    A row is a prompt that ends in SEP, an answer that ends in EOS, and padding. The mask is 1 where a token is to be learned:
    the answer and its EOS, and nothing else. "prompt learned", SEP included; "answer missing" if a token of the answer before
    EOS isn't learned; "end missing" if EOS isn't; "padding learned" if something after EOS is.

    >>> mask_faults(torch.tensor([[1, 97, SEP, 98, EOS, PAD]]), torch.tensor([[0, 0, 1, 1, 0, 0]]))
    ['prompt learned', 'end missing']
    """
    found: set[str] = set()
    for row, learned in zip(ids.tolist(), mask.tolist(), strict=True):
        start, end = row.index(SEP) + 1, row.index(EOS)
        found |= {"prompt learned"} if any(learned[:start]) else set()
        found |= set() if all(learned[start:end]) else {"answer missing"}
        found |= set() if learned[end] else {"end missing"}
        found |= {"padding learned"} if any(learned[end + 1 :]) else set()
    return [words for words in ("prompt learned", "answer missing", "end missing", "padding learned") if words in found]


def not_held(setup: tuple[nn.Module, torch.optim.Optimizer]) -> list[str]:
    """Return the names of the model's parameters that should train and aren't in the optimizer, in the model's order.

    `setup` is (model, optimizer). A parameter should train if it requires a gradient. The optimizer holds the very same tensor, not
    one that looks like it.

    >>> layer = nn.Linear(2, 1)
    >>> not_held((layer, torch.optim.SGD([layer.weight], lr=0.1)))
    ['bias']
    """
    model, optimizer = setup
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return [name for name, one in model.named_parameters() if one.requires_grad and id(one) not in held]


def gradient_norm(gradients: Sequence[Tensor | None]) -> float:
    """Return the norm of all gradients as if they were one long vector; a gradient of None counts as zeros.

    Just before a backward pass it should be 0: what is left there belongs to an earlier step.

    >>> gradient_norm([torch.tensor([3.0]), None, torch.tensor([[4.0]])])
    5.0
    """
    return math.sqrt(sum(float(one.double().square().sum()) for one in gradients if one is not None))


def reload_difference(trained: nn.Module, fresh: nn.Module, ids: Tensor) -> float:
    """Return the most that a logit differs, in either direction, between a trained model and its saved and reloaded adapter.

    Put `lora_state(trained)` into `fresh` with `load_lora`, and ask both for their logits on `ids`. `fresh` is a base with new
    adapters, as the program that serves the model makes it. 0 means that nothing was lost.

    >>> reload_difference(small_model(0, 8.0, filled=True), small_model(1, 8.0), torch.tensor([[1, 2]]))
    0.0
    """
    load_lora(fresh, lora_state(trained))
    with torch.no_grad():
        return float((trained(ids) - fresh(ids)).abs().max())


def small_model(seed: int, alpha: float, *, filled: bool = False) -> Decoder:
    """Return a small model with LoRA on q and v, its base always the same; `filled` draws B as if it had been trained."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Decoder(Config(layers=1, d_model=16, heads=2, kv_heads=2, head_dim=8, d_hidden=32))
    add_lora(model, ["q", "v"], 2, alpha, generator=torch.Generator().manual_seed(seed))
    if filled:
        for place, layer in enumerate(lora_layers(model).values()):
            with torch.no_grad():
                layer.B.copy_(drawn(seed + place + 1, *layer.B.shape))
    return model


def optimizer_of(model: nn.Module, *parts: str) -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model and an optimizer that holds what trains and has one of the parts in its name."""
    named = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    return model, torch.optim.SGD([one for name, one in named if any(part in name for part in parts)], lr=0.1)


def built_too_early() -> tuple[nn.Module, torch.optim.Optimizer]:
    """Return a model and an optimizer that holds another one's parameters: equal in name, shape and value."""
    return small_model(0, 8.0), optimizer_of(small_model(0, 8.0), "A", "B")[1]


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


def as_they_stand(train: Sequence[str], validation: Sequence[str]) -> list[str]:
    return sorted(set(train) & set(validation))


def case_alone(train: Sequence[str], validation: Sequence[str]) -> list[str]:
    return sorted({one.lower() for one in train} & {one.lower() for one in validation})


def one_for_each_line(train: Sequence[str], validation: Sequence[str]) -> list[str]:
    shared = set(shared_prompts(train, validation))
    return sorted(line for line in (" ".join(one.lower().split()) for one in validation) if line in shared)


def separator_is_answer(ids: Tensor, mask: Tensor) -> list[str]:
    shown = mask.clone()
    shown[ids == SEP] = 0
    return mask_faults(ids, shown)


def by_share(ids: Tensor, mask: Tensor) -> list[str]:
    return mask_faults(ids[:1], mask[:1])


def end_forgotten(ids: Tensor, mask: Tensor) -> list[str]:
    return [words for words in mask_faults(ids, mask) if words != "end missing"]


def by_count(setup: tuple[nn.Module, torch.optim.Optimizer]) -> list[str]:
    model, optimizer = setup
    held = sum(len(group["params"]) for group in optimizer.param_groups)
    return [name for name, one in model.named_parameters() if one.requires_grad][held:]


def by_value(setup: tuple[nn.Module, torch.optim.Optimizer]) -> list[str]:
    model, optimizer = setup
    held = [one for group in optimizer.param_groups for one in group["params"]]
    missing = [(name, one) for name, one in model.named_parameters() if one.requires_grad]
    return [
        name for name, one in missing if not any(one.shape == two.shape and bool((one == two).all()) for two in held)
    ]


def frozen_too(setup: tuple[nn.Module, torch.optim.Optimizer]) -> list[str]:
    model, optimizer = setup
    held = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    return [name for name, one in model.named_parameters() if id(one) not in held]


def sum_of_norms(gradients: Sequence[Tensor | None]) -> float:
    return sum(float(one.double().norm()) for one in gradients if one is not None)


def largest_entry(gradients: Sequence[Tensor | None]) -> float:
    return max((float(one.double().abs().max()) for one in gradients if one is not None), default=0.0)


def not_rooted(gradients: Sequence[Tensor | None]) -> float:
    return gradient_norm(gradients) ** 2


def never_loaded(trained: nn.Module, fresh: nn.Module, ids: Tensor) -> float:
    with torch.no_grad():
        return float((trained(ids) - fresh(ids)).abs().max())


def mean_difference(trained: nn.Module, fresh: nn.Module, ids: Tensor) -> float:
    load_lora(fresh, lora_state(trained))
    with torch.no_grad():
        return float((trained(ids) - fresh(ids)).abs().mean())


def one_direction(trained: nn.Module, fresh: nn.Module, ids: Tensor) -> float:
    load_lora(fresh, lora_state(trained))
    with torch.no_grad():
        return float((trained(ids) - fresh(ids)).max())


NAMES = ["blocks.0.q.A", "blocks.0.q.B", "blocks.1.v.A", "blocks.1.v.B", "head.weight", "norm.bias"]
SCORES = [(drawn(seed, 40) > cut).double() for seed, cut in ((0, 0.3), (0, -0.1), (2, 0.0))]
RESAMPLES = torch.randint(40, (300, 40), generator=torch.Generator().manual_seed(7))
TABLES = [-drawn(seed, 2, 3, 5).abs() for seed in (3, 4)]
ANSWERS = torch.tensor(
    [[[0, 1, 1, 1, 0], [0, 0, 1, 1, 1], [1, 1, 0, 0, 0]], [[0, 1, 1, 0, 0], [1, 1, 1, 1, 1], [0, 0, 0, 1, 0]]]
)

ROWS = batch([("neb sun", "bavo"), ("neb moon", "ki"), ("flip abc", "cba")])
TOKEN_IDS, GOOD_MASK = ROWS.ids, ROWS.answer_mask
HOLED = GOOD_MASK.clone()
HOLED[2, int(GOOD_MASK[2].argmax())] = 0
PADDED = GOOD_MASK | (TOKEN_IDS == PAD).long()

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
    Exercise(
        "10.C", "Build: prompts on both sides", shared_prompts,
        cases=[(["Neb  sun", "neb moon"], ["neb sun ", "neb tree"]), (["a b", "c", "A  B"], ["a  b", "C", "a b", "d"]), (["x"], ["y"]), ([" neb sea", "neb  SEA"], ["neb sea", "NEB sea"])],
        hints=["Bring each prompt into one form first: lower case, single spaces.", '`" ".join(text.split())` leaves single spaces and none at the ends.', "Two sets have an intersection; sort it."],
        mistakes=[
            Mistake(as_they_stand, "Compared as they stand, `Neb  sun` and `neb sun` are two prompts. To the model they are nearly one."),
            Mistake(case_alone, "Lower case isn't enough: two spaces in place of one hide a copy as well."),
            Mistake(one_for_each_line, "Each shared prompt once, however often it is asked."),
        ],
        minutes=6, difficulty=2,
    ),
    Exercise(
        "10.D", "Build: faults of a loss mask", mask_faults,
        cases=[(TOKEN_IDS, GOOD_MASK), (TOKEN_IDS, GOOD_MASK.roll(-1, 1)), (TOKEN_IDS, GOOD_MASK.roll(1, 1)), (TOKEN_IDS, HOLED), (TOKEN_IDS, PADDED), (TOKEN_IDS, 1 - GOOD_MASK)],
        hints=["`row.index(SEP)` and `row.index(EOS)` give the two places that matter.", "Before the answer, the answer without its end, the end, after the end: four slices, four questions.", "Collect the words of all rows in a set, and return them in the order of the task."],
        mistakes=[
            Mistake(separator_is_answer, "The separator belongs to the prompt: a mask that is one place early learns it."),
            Mistake(by_share, "You looked at the first row only; a fault may stand in another one."),
            Mistake(end_forgotten, "A model that never learns EOS never stops: look at the end by itself."),
        ],
        minutes=10, difficulty=3,
    ),
    Exercise(
        "10.E", "Build: what no optimizer holds", not_held,
        cases=[(optimizer_of(small_model(0, 8.0), "A", "B"),), (optimizer_of(small_model(0, 8.0), ".q."),), (optimizer_of(small_model(0, 8.0), ".v."),), (built_too_early(),), (optimizer_of(small_model(0, 8.0, filled=True), ".B"),)],
        hints=["`optimizer.param_groups` is a list of dictionaries; each has `params`.", "The same tensor is the same object: compare `id(parameter)`.", "Ask only for parameters with `requires_grad`."],
        mistakes=[
            Mistake(by_count, "Counts can't tell which ones are held."),
            Mistake(by_value, "A tensor that looks alike isn't the model's: an optimizer that was built before the model was replaced moves the old one."),
            Mistake(frozen_too, "Frozen parameters needn't be held: ask for requires_grad."),
        ],
        minutes=8, difficulty=3,
    ),
    Exercise(
        "10.F", "Build: the norm of all gradients", gradient_norm,
        cases=[([torch.tensor([3.0]), None, torch.tensor([[4.0]])],), ([drawn(1, 3, 2), drawn(2, 4)],), ([None, None],), ([torch.zeros(3)],), ([drawn(3, 5), None],)],
        hints=["Squares add up over all tensors; the root comes last.", "Skip None.", "math.sqrt of a sum of `float(one.square().sum())`."],
        mistakes=[
            Mistake(sum_of_norms, "Norms don't add up, their squares do: as one long vector."),
            Mistake(largest_entry, "That is the largest entry, not the length of the whole vector."),
            Mistake(not_rooted, "The root is missing."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "10.G", "Build: saved and reloaded", reload_difference,
        cases=[(small_model(0, 8.0, filled=True), small_model(1, alpha), torch.tensor([[1, 97, 98, 2], [1, 99, 97, 2]])) for alpha in (8.0, 16.0, 2.0)],
        hints=["`load_lora(fresh, lora_state(trained))` saves and reloads in one line.", "Then the logits of both on the same ids.", "The largest difference in either direction: abs, then max."],
        mistakes=[
            Mistake(never_loaded, "The fresh model's adapter is still empty: load the saved factors first."),
            Mistake(mean_difference, "A mean hides one logit that is far off: take the largest."),
            Mistake(one_direction, "A logit can differ downwards too: take the absolute difference."),
        ],
        minutes=6, difficulty=2,
    ),
]  # fmt: skip
