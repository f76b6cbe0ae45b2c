"""The exercises of part 2: the supervised objective."""

import math
from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ftmath.exercises.exercise import Exercise, Mistake

Said = tuple[str, str]


def drawn(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def build_example(prompt: list[int], answer: list[int], eos: int, max_length: int) -> dict[str, list[int]]:
    """Return `input_ids` and `labels` of a line: prompt, answer, `eos`; labels are -100 on the prompt, not shifted.

    If the line is longer than `max_length`, the prompt loses tokens from its left; the answer never does.

    >>> build_example([5, 6], [7], eos=2, max_length=3)
    {'input_ids': [6, 7, 2], 'labels': [-100, 7, 2]}

    Errors: ValueError naming `max_length` if the answer with its `eos` alone is longer.
    """
    kept = max_length - len(answer) - 1  # blank
    if kept < 0:
        raise ValueError(f"max_length must hold the answer and eos, {len(answer) + 1} tokens, got {max_length}")
    prompt = prompt[len(prompt) - kept :] if len(prompt) > kept else prompt
    return {"input_ids": [*prompt, *answer, eos], "labels": [-100] * len(prompt) + [*answer, eos]}  # blank


def token_and_sequence_mean(nll: Tensor, mask: Tensor) -> tuple[float, float]:
    """Return two means of a batch's losses nll (B, T): over all its target tokens, and over its rows' own means.

    `mask` (B, T) marks targets; a row without one is left out of the second mean.

    >>> token_and_sequence_mean(torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[1, 0], [1, 1]]))
    (1.6666666269302368, 2.0)
    """
    counts = mask.sum(1)
    rows = (nll * mask).sum(1)[counts > 0] / counts[counts > 0]
    return float((nll * mask).sum() / mask.sum()), float(rows.mean())


def is_causal(model: Callable[[Tensor], Tensor], ids: Tensor, vocab: int) -> bool:
    """Say whether no logit of `model(ids)` (T, V) changes when a later token of ids (T,) does.

    Every position is changed in turn, to another token; logits are compared exactly.

    >>> is_causal(lambda ids: torch.nn.functional.one_hot(ids, 5).cumsum(0), torch.tensor([1, 2, 3]), 5)
    True
    """
    before = model(ids)
    for place in range(1, len(ids)):
        changed = ids.clone()
        changed[place] = (ids[place] + 1) % vocab
        if not torch.equal(model(changed)[:place], before[:place]):
            return False
    return True


def smoothed_loss(logits: Tensor, targets: Tensor, smoothing: float) -> float:
    """Return the mean cross-entropy of logits (N, V) against 1 - e on the target and e spread over all V tokens.

    A target of -100 isn't learned. e is `smoothing`.

    >>> round(smoothed_loss(torch.zeros(1, 4), torch.tensor([2]), 0.1), 4)
    1.3863
    """
    kept = targets != -100
    log_p = logits[kept].log_softmax(-1)
    hit = log_p.gather(1, targets[kept][:, None])[:, 0]
    return float(-((1 - smoothing) * hit + smoothing * log_p.mean(1)).mean())


def mixture(sizes: Sequence[int], temperature: float, draws: int) -> tuple[list[float], list[float]]:
    """Return each data set's share when drawn in proportion to size^(1 / temperature), and its epochs in so many draws.

    An epoch is one pass: draws of the set over its size.

    >>> mixture([900, 100], 1.0, 1000)
    ([0.9, 0.1], [1.0, 1.0])
    """
    powers = [size ** (1 / temperature) for size in sizes]
    shares = [power / sum(powers) for power in powers]
    return shares, [share * draws / size for share, size in zip(shares, sizes, strict=True)]


def accumulated(losses: Sequence[float], counts: Sequence[int]) -> float:
    """Return the token-mean loss of a whole batch from its micro-batches' token means and numbers of targets.

    >>> accumulated([1.0, 3.0], [3, 1])
    1.5
    """
    return sum(loss * count for loss, count in zip(losses, counts, strict=True)) / sum(counts)


def length_for_exact_match(accuracy: float, wanted: float) -> int:
    """Return how many tokens an answer may have at most to be wholly right with probability `wanted`.

    Each token is right with probability `accuracy`, independently; `accuracy` is below 1.

    >>> length_for_exact_match(0.5, 0.25)
    2
    """
    return math.floor(math.log(wanted) / math.log(accuracy) + 1e-12)


def chat_ids(turns: Sequence[Said]) -> tuple[list[int], list[str]]:
    """Return the tokens of a chat, and for each token the role that wrote it.

    `turns` are (role, text) pairs; a character's token is its ASCII code. The chat opens with token 1, whose role is "".
    A turn is its text and a closing token: 2 for "system" and "user", 3 for "assistant". It belongs to the turn that it closes.

    >>> chat_ids([("user", "Hi"), ("assistant", "A")])
    ([1, 72, 105, 2, 65, 3], ['', 'user', 'user', 'user', 'assistant', 'assistant'])

    Errors: ValueError naming `role` for a role that isn't one of the three.
    """
    closing = {"system": 2, "user": 2, "assistant": 3}
    ids, roles = [1], [""]
    for role, text in turns:
        if role not in closing:
            raise ValueError(f"role must be one of {', '.join(closing)}, got {role!r}")
        said = [*text.encode("ascii"), closing[role]]
        ids += said
        roles += [role] * len(said)
    return ids, roles


def chat_labels(ids: Sequence[int], roles: Sequence[str], completion_only: bool) -> list[int]:
    """Return the labels of a chat, not shifted: the token's id where it is a target, else -100.

    Targets are the tokens of every assistant turn, with their closing tokens. With `completion_only` they are only those assistant
    tokens that no token of another role follows, the last answer of the chat.

    >>> chat_labels([1, 72, 2, 65, 3], ["", "user", "user", "assistant", "assistant"], False)
    [-100, -100, -100, 65, 3]
    """
    begin = 0
    if completion_only:
        begin = max(place for place, role in enumerate(roles) if role != "assistant") + 1
    kept = [place >= begin and role == "assistant" for place, role in enumerate(roles)]
    return [token if keep else -100 for token, keep in zip(ids, kept, strict=True)]


def pack(lines: Sequence[tuple[list[int], list[int]]]) -> dict[str, Tensor]:
    """Return (ids, labels) lines packed into one row: what a model needs to treat them as if each stood alone.

    "ids" and "labels" (T,) are the lines one behind the other. "positions" (T,) count from 0 in every line. "allowed" (T, T)
    is True where the query of a row may read the key of a column: in its own line, and not later. A line's first token
    is never a target: what stands before it is another line's end.

    >>> row = pack([([5, 6], [-100, 6]), ([7], [7])])
    >>> row["labels"].tolist(), row["positions"].tolist()
    ([-100, 6, -100], [0, 1, 0])
    >>> row["allowed"].tolist()
    [[True, False, False], [True, True, False], [False, False, True]]
    """
    lengths = [len(ids) for ids, _ in lines]
    number = torch.repeat_interleave(torch.arange(len(lengths)), torch.tensor(lengths))
    order = torch.arange(sum(lengths))
    return {
        "ids": torch.tensor([token for ids, _ in lines for token in ids]),
        "labels": torch.tensor([token for _, labels in lines for token in [-100, *labels[1:]]]),
        "positions": torch.cat([torch.arange(length) for length in lengths]),
        "allowed": (number[:, None] == number) & (order[:, None] >= order),
    }


def explain_packing(alone: Sequence[Tensor], packed: Tensor) -> str:
    """Return what packing did to the losses of some lines: "same", "leak", "targets" or "other".

    `alone` holds for each line the losses of its targets when it is a row of its own, `packed` those of all targets of the
    packed row, in order. Losses agree if they differ by 0.001 at most. "targets": the numbers of targets differ. "leak": the first line's
    losses agree and some later ones don't. "other": losses of the first line differ already.

    >>> explain_packing([torch.tensor([0.1]), torch.tensor([0.2])], torch.tensor([0.1, 0.9]))
    'leak'
    """
    apart = torch.cat(list(alone))
    if len(apart) != len(packed):
        return "targets"
    differs = (apart - packed).abs() > 1e-3
    if not differs.any():
        return "same"
    return "other" if differs[: len(alone[0])].any() else "leak"


# ------------------------------------------------------------------------------------------ what people write instead


def prompt_learned(prompt: list[int], answer: list[int], eos: int, max_length: int) -> dict[str, list[int]]:
    line = build_example(prompt, answer, eos, max_length)
    return {"input_ids": line["input_ids"], "labels": list(line["input_ids"])}


def cut_right(prompt: list[int], answer: list[int], eos: int, max_length: int) -> dict[str, list[int]]:
    ids, labels = [*prompt, *answer, eos], [-100] * len(prompt) + [*answer, eos]
    return {"input_ids": ids[:max_length], "labels": labels[:max_length]}


def eos_not_learned(prompt: list[int], answer: list[int], eos: int, max_length: int) -> dict[str, list[int]]:
    line = build_example(prompt, answer, eos, max_length)
    return {"input_ids": line["input_ids"], "labels": [*line["labels"][:-1], -100]}


def over_all_places(nll: Tensor, mask: Tensor) -> tuple[float, float]:
    return float((nll * mask).mean()), token_and_sequence_mean(nll, mask)[1]


def empty_rows_counted(nll: Tensor, mask: Tensor) -> tuple[float, float]:
    rows = (nll * mask).sum(1) / mask.sum(1).clamp(min=1)
    return token_and_sequence_mean(nll, mask)[0], float(rows.mean())


def same_mean_twice(nll: Tensor, mask: Tensor) -> tuple[float, float]:
    first, _ = token_and_sequence_mean(nll, mask)
    return first, first


def last_place_only(model: Callable[[Tensor], Tensor], ids: Tensor, vocab: int) -> bool:
    changed = ids.clone()
    changed[-1] = (ids[-1] + 1) % vocab
    return bool(torch.equal(model(changed)[:-1], model(ids)[:-1]))


def likeliest_only(model: Callable[[Tensor], Tensor], ids: Tensor, vocab: int) -> bool:
    before = model(ids)
    for place in range(1, len(ids)):
        changed = ids.clone()
        changed[place] = (ids[place] + 1) % vocab
        if not torch.equal(model(changed)[:place].argmax(-1), before[:place].argmax(-1)):
            return False
    return True


def own_place_too(model: Callable[[Tensor], Tensor], ids: Tensor, vocab: int) -> bool:
    before = model(ids)
    for place in range(1, len(ids)):
        changed = ids.clone()
        changed[place] = (ids[place] + 1) % vocab
        if not torch.equal(model(changed)[: place + 1], before[: place + 1]):
            return False
    return True


def spread_over_others(logits: Tensor, targets: Tensor, smoothing: float) -> float:
    vocab = logits.shape[1]
    kept = targets != -100
    log_p = logits[kept].log_softmax(-1)
    hit = log_p.gather(1, targets[kept][:, None])[:, 0]
    rest = (log_p.sum(1) - hit) / (vocab - 1)
    return float(-((1 - smoothing) * hit + smoothing * rest).mean())


def not_smoothed(logits: Tensor, targets: Tensor, smoothing: float) -> float:
    return float(F.cross_entropy(logits, targets))


def ignored_learned(logits: Tensor, targets: Tensor, smoothing: float) -> float:
    return smoothed_loss(logits, targets.clamp(min=0), smoothing)


def power_itself(sizes: Sequence[int], temperature: float, draws: int) -> tuple[list[float], list[float]]:
    return mixture(sizes, 1 / temperature, draws)


def softmax_of_sizes(sizes: Sequence[int], temperature: float, draws: int) -> tuple[list[float], list[float]]:
    weights = [math.exp((size - max(sizes)) / temperature) for size in sizes]
    shares = [weight / sum(weights) for weight in weights]
    return shares, [share * draws / size for share, size in zip(shares, sizes, strict=True)]


def draws_not_epochs(sizes: Sequence[int], temperature: float, draws: int) -> tuple[list[float], list[float]]:
    shares, _ = mixture(sizes, temperature, draws)
    return shares, [share * draws for share in shares]


def mean_of_means(losses: Sequence[float], counts: Sequence[int]) -> float:
    return sum(losses) / len(losses)


def sum_over_tokens(losses: Sequence[float], counts: Sequence[int]) -> float:
    return sum(losses) / sum(counts)


def rounded_up(accuracy: float, wanted: float) -> int:
    return math.ceil(math.log(wanted) / math.log(accuracy) - 1e-12)


def errors_added(accuracy: float, wanted: float) -> int:
    return math.floor((1 - wanted) / (1 - accuracy) + 1e-12)


def plain_sum(ids: Tensor) -> Tensor:
    return F.one_hot(ids, 7).cumsum(0)


def leaks_early(ids: Tensor) -> Tensor:
    logits = F.one_hot(ids, 7).cumsum(0).double()
    logits[0, 0] += 0.01 * float(ids[1])
    return logits


def leaks_softly(ids: Tensor) -> Tensor:
    return 10 * F.one_hot(ids, 7).double() + 1e-3 * ids.double().mean()


def closing_nobodys(turns: Sequence[Said]) -> tuple[list[int], list[str]]:
    ids, roles = chat_ids(turns)
    return ids, ["" if token < 4 else role for token, role in zip(ids, roles, strict=True)]


def opened_every_turn(turns: Sequence[Said]) -> tuple[list[int], list[str]]:
    parts = [chat_ids([one]) for one in turns]
    return [token for ids, _ in parts for token in ids], [role for _, roles in parts for role in roles]


def one_closing(turns: Sequence[Said]) -> tuple[list[int], list[str]]:
    ids, roles = chat_ids(turns)
    return [2 if token == 3 else token for token in ids], roles


def closed_at_the_end(turns: Sequence[Said]) -> tuple[list[int], list[str]]:
    ids, roles = chat_ids(turns)
    kept = [place for place, token in enumerate(ids) if token != 3 or place == len(ids) - 1]
    return [ids[place] for place in kept], [roles[place] for place in kept]


def moved_left(ids: Sequence[int], roles: Sequence[str], completion_only: bool) -> list[int]:
    return [*chat_labels(ids, roles, completion_only)[1:], -100]


def end_untaught(ids: Sequence[int], roles: Sequence[str], completion_only: bool) -> list[int]:
    return [-100 if label == 3 else label for label in chat_labels(ids, roles, completion_only)]


def always_all(ids: Sequence[int], roles: Sequence[str], completion_only: bool) -> list[int]:
    return chat_labels(ids, roles, False)


def always_last(ids: Sequence[int], roles: Sequence[str], completion_only: bool) -> list[int]:
    return chat_labels(ids, roles, True)


def last_assistant_turn(ids: Sequence[int], roles: Sequence[str], completion_only: bool) -> list[int]:
    end = max((place for place, role in enumerate(roles) if role == "assistant"), default=-1) + 1
    return chat_labels(ids[:end], roles[:end], completion_only) + [-100] * (len(ids) - end)


Row = dict[str, Tensor]
Line = tuple[list[int], list[int]]


def positions_run_on(lines: Sequence[Line]) -> Row:
    row = pack(lines)
    return row | {"positions": torch.arange(len(row["ids"]))}


def plain_causal(lines: Sequence[Line]) -> Row:
    row = pack(lines)
    return row | {"allowed": torch.ones_like(row["allowed"]).tril()}


def whole_blocks(lines: Sequence[Line]) -> Row:
    row = pack(lines)
    return row | {"allowed": row["allowed"] | row["allowed"].T}


def across_the_border(lines: Sequence[Line]) -> Row:
    return pack(lines) | {"labels": torch.tensor([token for _, labels in lines for token in labels])}


def means_alone(alone: Sequence[Tensor], packed: Tensor) -> str:
    return "same" if abs(float(torch.cat(list(alone)).mean() - packed.mean())) < 1e-3 else "leak"


def any_difference_leaks(alone: Sequence[Tensor], packed: Tensor) -> str:
    said = explain_packing(alone, packed)
    return "leak" if said == "other" else said


def not_counted(alone: Sequence[Tensor], packed: Tensor) -> str:
    apart = torch.cat(list(alone))
    count = min(len(apart), len(packed))
    differs = (apart[:count] - packed[:count]).abs() > 1e-3
    return "same" if not differs.any() else "other" if differs[: len(alone[0])].any() else "leak"


TALK = [("user", "1+1"), ("assistant", "2"), ("user", "up ab"), ("assistant", "AB")]
ASKED = [("system", "be kind"), ("user", "hi"), ("assistant", "hello"), ("user", "bye")]
TOLD = [(chat_ids(talk), only) for talk in (TALK, ASKED, TALK[:2]) for only in (False, True)]
LINES = [([1, 70, 2, 65, 3], [-100, -100, -100, 65, 3]), ([1, 71, 2, 3], [-100, -100, -100, 3]), ([9, 8], [9, 8])]
LOSSES = [drawn(seed, size).abs() for seed, size in ((11, 3), (12, 2), (13, 4))]
WHOLE = torch.cat(LOSSES)


MASK = torch.tensor([[0, 1, 1, 0], [0, 0, 0, 0], [1, 1, 1, 1]])
LINE = torch.tensor([1, 4, 2, 5])

# Words and cases read better unbroken, as a catalogue.
# ruff: noqa: E501
EXERCISES = [
    Exercise(
        "2.1", "From prompt and answer to labels", build_example,
        cases=[([5, 6], [7], 2, 10), ([5, 6], [7], 2, 3), ([5, 6, 7, 8], [9, 9], 2, 5), ([5, 6], [7, 8], 2, 3), ([], [4], 2, 4)],
        errors=[(([5], [7, 8, 9], 2, 3), "max_length")],
        hints=["The answer and eos take len(answer) + 1 places: the rest is the prompt's.", "Cut the prompt from its left, where the oldest tokens stand.",
               "Labels repeat the ids of answer and eos; everywhere else they are -100."],
        mistakes=[
            Mistake(prompt_learned, "The prompt's labels are its own ids: it is learned too. They should be -100."),
            Mistake(cut_right, "Cutting on the right takes the answer's end and its eos: the model never learns to stop."),
            Mistake(eos_not_learned, "The eos isn't a target, so the model never learns to stop."),
        ],
        minutes=8, difficulty=3,
    ),
    Exercise(
        "2.2", "Two means of one batch", token_and_sequence_mean,
        cases=[(torch.tensor([[3.0, 0.0], [1.0, 1.0]]), torch.tensor([[1, 0], [1, 1]])), (drawn(1, 3, 4).abs(), MASK), (drawn(2, 3, 4).abs(), torch.ones(3, 4))],
        hints=["The first: all targets' losses over the number of targets.", "The second: each row's own mean, then their mean.", "A row without targets has no mean; leave it out."],
        mistakes=[
            Mistake(over_all_places, "Divided by every place, targets or not: the loss shrinks with padding."),
            Mistake(empty_rows_counted, "A row without targets went in as 0 and pulls the second mean down."),
            Mistake(same_mean_twice, "The two differ as soon as answers are of different lengths."),
        ],
        minutes=6, difficulty=2,
    ),
    Exercise(
        "2.3", "Is it causal?", is_causal,
        cases=[(plain_sum, LINE, 7), (leaks_early, LINE, 7), (leaks_softly, LINE, 7)],
        hints=["Change one token; what may change?", "Nothing before it. Compare the logits of all earlier places, exactly.", "Do that for every place, not for the last one alone."],
        mistakes=[
            Mistake(last_place_only, "One leak hides where you didn't look: change every position in turn."),
            Mistake(likeliest_only, "The likeliest token can stay while the logits move. Compare the numbers."),
            Mistake(own_place_too, "A token may change the logits of its own place; only earlier ones must stand."),
        ],
        minutes=8, difficulty=3,
    ),
    Exercise(
        "2.4", "Smoothed labels", smoothed_loss,
        cases=[(torch.zeros(1, 4), torch.tensor([2]), 0.1), (torch.tensor([[2.0, 1.0, 0.0, -1.0, 0.5]], dtype=torch.float64), torch.tensor([0]), 0.1),
               (drawn(3, 4, 6), torch.tensor([1, -100, 5, 0]), 0.2), (drawn(4, 3, 6), torch.tensor([1, 2, 3]), 0.0)],
        hints=["The loss is linear in the target distribution.", "(1 - e) times the plain loss plus e times the mean of -log p over the vocabulary.", "Leave out the rows whose target is -100 first."],
        mistakes=[
            Mistake(spread_over_others, "That spreads e over the other tokens. Here it goes over all V, the target too."),
            Mistake(not_smoothed, "That is the plain cross-entropy."),
            Mistake(ignored_learned, "A target of -100 isn't a token: that row is left out."),
        ],
        minutes=7, difficulty=3,
    ),
    Exercise(
        "2.5", "Shares and epochs", mixture,
        cases=[([900, 100], 1.0, 1000), ([100_000, 10_000, 1_000], 2.0, 30_000), ([50, 50], 5.0, 10), ([1000, 10], 100.0, 500)],
        hints=["Raise each size to the power 1 / temperature.", "Divide by their sum: those are the shares.", "Epochs: how many draws a set gets, over its size."],
        mistakes=[
            Mistake(power_itself, "The power is 1 / temperature: a higher temperature evens the shares out."),
            Mistake(softmax_of_sizes, "A softmax of sizes gives the largest set everything."),
            Mistake(draws_not_epochs, "Those are draws. An epoch is one pass through the set."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "2.A", "Micro-batches of unequal size", accumulated,
        cases=[([1.0, 3.0], [3, 1]), ([0.5, 0.7, 2.0], [10, 200, 5]), ([1.0, 1.0], [1, 9])],
        hints=["A token mean is a sum over a count.", "Turn each micro-batch's mean back into its sum.", "Sum of sums over sum of counts."],
        mistakes=[
            Mistake(mean_of_means, "Small micro-batches then count as much as large ones: the bug of gradient accumulation."),
            Mistake(sum_over_tokens, "The losses are means already: multiply each by its count first."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "2.B", "How long may an answer be?", length_for_exact_match,
        cases=[(0.5, 0.25), (0.98, 0.8), (0.99, 0.5), (0.9, 0.95)],
        hints=["n tokens are all right with probability accuracy^n.", "Take logarithms.", "Round down: one token more and it falls below."],
        mistakes=[
            Mistake(rounded_up, "One token too many: with it the probability is below what is wanted."),
            Mistake(errors_added, "Adding errors is a bound for small ones; the exact answer multiplies."),
        ],
        minutes=5, difficulty=2,
    ),
    Exercise(
        "2.C", "Build: a chat template", chat_ids,
        cases=[(TALK,), (ASKED,), ([("user", "Hi"), ("assistant", "A")],), ([("assistant", "yes?"), ("user", "up a"), ("assistant", "A")],)],
        errors=[(([("user", "a"), ("tool", "b")],), "role")],
        hints=["Begin with [1] and its role, then add each turn's tokens to both lists.", '`[*text.encode("ascii")]` are the tokens of a text.',
               "A turn has len(text) + 1 tokens, and all of them have its role."],
        mistakes=[
            Mistake(closing_nobodys, "The closing tokens have no role. Then no mask of roles will ever teach the assistant to stop."),
            Mistake(opened_every_turn, "Token 1 opens the chat, not every turn: the model would see a place that it never saw in training."),
            Mistake(one_closing, "The assistant's turns close with 3: that is what generation stops at."),
            Mistake(closed_at_the_end, "Every assistant turn closes with 3, not the last one alone."),
        ],
        minutes=8, difficulty=2,
    ),
    Exercise(
        "2.D", "Build: its labels", chat_labels,
        cases=[(ids, roles, only) for (ids, roles), only in TOLD],
        hints=["Without `completion_only` the role of a token decides alone.", "With it, find the last token that isn't the assistant's: targets come after it.",
               "If the chat ends with the user, there is no completion and nothing is a target."],
        mistakes=[
            Mistake(moved_left, "These labels are shifted already. A loss that shifts would then learn the token after the next."),
            Mistake(end_untaught, "The closing token isn't a target: such a model doesn't learn to stop."),
            Mistake(always_all, "With `completion_only` the earlier answers are context, not targets."),
            Mistake(always_last, "Without `completion_only` every assistant turn is a target, not the last one alone."),
            Mistake(last_assistant_turn, "A chat that ends with the user has no completion: its last answer is followed by a question."),
        ],
        minutes=8, difficulty=3,
    ),
    Exercise(
        "2.E", "Build: pack lines into one row", pack,
        cases=[(LINES,), (LINES[:1],), ([([5, 6], [-100, 6]), ([7], [7])],), (LINES[::-1],)],
        hints=["First write down each token's line: `torch.repeat_interleave` of the line's number.", "Allowed: the same line, and a key not later than the query.",
               "Positions are one `torch.arange` a line; the first label of each line becomes -100."],
        mistakes=[
            Mistake(positions_run_on, "Positions begin again with every line: alone, each would stand at 0."),
            Mistake(plain_causal, "With the plain causal mask a line reads the lines before it."),
            Mistake(whole_blocks, "Inside a line a token must not read later ones: blocks *and* causal."),
            Mistake(across_the_border, "A line's first token would be predicted from another line's end: its label is -100."),
        ],
        minutes=12, difficulty=3,
    ),
    Exercise(
        "2.F", "Build: explain a packed run", explain_packing,
        cases=[(LOSSES, WHOLE), (LOSSES, WHOLE + torch.tensor([0.0] * 4 + [0.4] * 5)), (LOSSES, WHOLE[1:]), (LOSSES, WHOLE.flip(0)),
               (LOSSES, torch.cat([WHOLE, WHOLE[:1]])), (LOSSES, WHOLE + 1e-5), (LOSSES[:1], LOSSES[0] + 0.1)],
        hints=["Compare numbers of targets first: without that, losses don't stand over each other.", "`torch.cat` puts the lines' losses in the order of the packed row.",
               "The first line has nothing before it, so a leak can't reach it."],
        mistakes=[
            Mistake(means_alone, "Means can agree by chance, and they don't say which line is hit: compare losses one by one."),
            Mistake(any_difference_leaks, "If the first line differs too, it isn't other lines that it read: nothing stands before it."),
            Mistake(not_counted, "Count first: one target more or less shifts all that follow."),
        ],
        minutes=8, difficulty=3,
    ),
]  # fmt: skip
