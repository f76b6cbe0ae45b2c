"""How audits are judged: by planting faults in models, optimizers and batches that are built at the other end."""

import dataclasses
import itertools
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from ftgrade.catalog import Catalog
from ftgrade.judging.corners import as_views, with_numpy_numbers
from ftgrade.judging.problem import (
    AnyCase,
    Case,
    Close,
    Difference,
    Problem,
    Question,
    Refusal,
    Rng,
    Written,
    builder,
    call,
    integer,
)

problem = Problem(
    part="10_implementation_checklist", difficulty=4, importance=5, minutes=90, written=(Written("order", 1),)
)
BUILD = builder(__file__)
LEAVES = Catalog(Path(__file__).parents[2]).leaves(Path(__file__).stem)
CODES = frozenset(re.findall(r"`([A-Z]+(?:_[A-Z]+)+)`", LEAVES.solution.read_text("utf-8")))
"""The codes of the contract: a page repeats no others, since a code that was made up may hold a hidden input."""

Tensor = torch.Tensor
Spec = dict[str, Any]


# ------------------------------------------------------------------------------------------------------------ checks

FACTORS = ["*.A", "*.B"]


def spec_of(rng: Rng, asks: str, faults: Sequence[str] = (), **more: Any) -> Spec:
    """Return the plain data of a small set-up, with a block for each fault."""
    blocks = int(more.pop("blocks", max(2, len(faults))))
    vocab, width, rank = (int(size) for size in rng.permutation([3, 4, 5, 6])[:3])
    places = [int(place) for place in rng.permutation(blocks)[: len(faults)]]
    sizes = {"vocab": vocab, "width": width, "rank": rank}
    spec = {"asks": asks, "blocks": blocks, "seed": int(rng.integers(2**31)), "patterns": FACTORS}
    return (
        spec
        | {"tied": False, "pair": False, "warm": False}
        | sizes
        | {"faults": list(zip(faults, places, strict=True))}
        | more
    )


def pairs(value: Any) -> list[tuple[str, Any]] | None:
    """Return findings as pairs, with a row as an int, or None if they aren't findings."""
    if not isinstance(value, list | tuple) or not all(
        isinstance(pair, list | tuple) and len(pair) == 2 for pair in value
    ):
        return None
    found = [(code, place if isinstance(place, str) else int(place)) for code, place in value]
    return found if all(isinstance(code, str) for code, _ in found) else None


def same_findings(expected: Any, got: Any) -> Difference | None:
    """Demand the same findings, in any order, each once; say which codes are missing or too many."""
    wanted, found = pairs(expected), pairs(got)
    assert wanted is not None
    if found is None:
        return Difference("a list of (code, name or row) was expected")
    missing = sorted({code for code, place in wanted if (code, place) not in found})
    extra = {code for code, place in found if (code, place) not in wanted}
    made_up = ["codes that the text doesn't have"] if extra - CODES else []
    told = [f"it misses {', '.join(missing)}"] if missing else []
    told += [f"it reports {', '.join([*sorted(extra & CODES), *made_up])} where that isn't so"] if extra else []
    if not told and len(found) != len(wanted):
        told = ["it reports a finding more than once"]
    return Difference("; ".join(told)) if told else None


def same_audit(expected: Any, got: Any) -> Difference | None:
    """Demand the same findings, and the same state afterwards."""
    difference = same_findings(expected[0], got[0])
    if difference or isinstance(expected[1], bool):
        return difference or (None if got[1] == expected[1] else Difference("it changed what it should only look at"))
    for what in ("losses", "steps"):
        if got[1][what] != expected[1][what]:
            return Difference(f"it should run loss_fn and optimizer.step() once each, and the number of {what} differs")
    if got[1]["same"] != expected[1]["same"]:
        return Difference("it changed the mode of a module, or what trains")
    moved = Close(rtol=1e-6, atol=1e-9)(expected[1]["parameters"], got[1]["parameters"])
    return Difference("after the step the parameters are not what one clean step gives") if moved else None


def same_count(expected: Any, got: Any) -> Difference | None:
    """Demand the same ints by the same keys, and a model left alone."""
    counts = got[0]
    if not isinstance(counts, dict) or set(counts) != set(expected[0]):
        return Difference("a dict with the keys total, trainable and frozen was expected")
    if counts == expected[0] and [*map(type, counts.values())] == [*map(type, expected[0].values())]:
        return None if got[1] == expected[1] else Difference("it changed the model")
    differences = (integer(right, counts[key]) for key, right in expected[0].items())
    return next((difference for difference in differences if difference), None)


ASKED = {"count": "count_parameters", "freeze": "audit_freeze", "optimizer": "audit_freeze", "step": "audit_step"}
"""The function that each kind of set-up is for."""


def asked(rng: Rng, words: str, asks: str, faults: Sequence[str] = (), promise: str = "", **more: Any) -> Case:
    return Case(words, call(ASKED[asks], spec_of(rng, asks, faults, **more), build=BUILD), promise=promise)


def corner(rng: Rng, words: str, asks: str, faults: Sequence[str] = (), promise: str = "", **more: Any) -> Case:
    """Return a case that is asked once a student."""
    return dataclasses.replace(asked(rng, words, asks, faults, promise, **more), once=True)


problem.promise(
    "count",
    "how many numbers the model holds in parameters: ints by the keys `total`, `trainable`, `frozen`",
    "Two parameters over one memory are two.",
)
TIED_ONCE = problem.promise("tied_once", "A parameter that has several names (a tied head) counts once.",
    "a tied head adds nothing")  # fmt: skip
NO_BUFFERS = problem.promise("no_buffers", "Buffers are not parameters.")


@problem.check(
    "count", points=1, of="count_parameters", title="counting", same=same_count,
    concerns=["a tied head", "buffers", "a part frozen"],
    next_step="Say for a tied head, and for a buffer, whether it's a parameter more.",
)  # fmt: skip
def count(rng: Rng) -> Iterator[AnyCase]:
    yield asked(rng, "a part frozen", "count", patterns=["head.*", "*.A", "*.norm.*"])
    yield asked(rng, "nothing frozen", "count", blocks=1, patterns=["*"])
    for words, faults in (
        ("two parameters over one memory", ["memory shared", "memory split", "memory read as integers"]),
        ("parameters of every dtype, one without axes, and one that is None",
         ["frozen numbers of every dtype", "a parameter that is None", "the model itself counts"]),
        ("a model without parts", ["the model itself is a norm"]),
        ("a model with old gradients", ["old gradients"]),
    ):  # fmt: skip
        yield corner(rng, words, "count", faults)
    yield asked(rng, "a tied head", "count", promise=TIED_ONCE, tied=True, patterns=["embed.*", "*.B"])
    buffers = ["running mean moves"]
    yield asked(rng, "buffers, and everything frozen", "count", buffers, promise=NO_BUFFERS, patterns=[])
    buffers = ["frozen buffers of every kind"]
    yield corner(rng, "buffers of every dtype", "count", buffers, promise=NO_BUFFERS)
    yield corner(rng, "parameters tied twice", "count", ["a tied parameter unused"], promise=TIED_ONCE, tied=True)


problem.promise("freeze", "Return the findings (code, name) about what trains, against what should train; each once",
    "`UNEXPECTED_TRAINABLE`: it requires a gradient and should not train",
    "`UNEXPECTED_FROZEN`: it should train and requires no gradient",
    "the other audits leave everything as it was")  # fmt: skip
GLOBS = problem.promise("globs", "A parameter should train if its name matches one of `trainable_patterns`, which are "
    "globs for whole names as in `fnmatch.fnmatchcase`:",
    "`blocks.1.*` matches `blocks.1.up.A` and not `blocks.10.up.A`.",
    "`PATTERN_MATCHES_NOTHING`, with the pattern for a name: no parameter's name matches it")  # fmt: skip
MODES = problem.promise("modes", "`FROZEN_IN_TRAIN_MODE`, with a module's name: it is in training mode, and a "
    "`Dropout` with p > 0 or a `BatchNorm1d`, `BatchNorm2d` or `BatchNorm3d`, or of a subclass (`Dropout2d` is none, "
    "and nothing else with running means occurs).",
    "It is, or stands at any depth in, a direct child of the model that has parameters of which none should "
    "train")  # fmt: skip


MATCHING = (
    "*", "**", "*.up.*", "blocks.?.up.A", "blocks.[!1].*", "blocks.[0-9].norm.weight", "*A", "?mbed.weight", "*.weight",
    "blocks*B", "head*", "scale",
)  # fmt: skip
"""Globs that match a name, each for a case of its own."""
IDLE = (
    "", "?", "embed", "blocks.1", "blocks.*.", "*.a", "Embed.*", "embed.weight ", "embed.weight$", "^embed.weight",
    "embed.weight|head.weight", "embed.+", "blocks.\\d.up.A", "blocks.(0|1).up.A", "blocks.[01.up.A", "mbed.weight",
    "embed.weigh", "positions", "calls", "*.[C-Z]", "blocks.{0,1}.up.A", "model.embed.weight",
)  # fmt: skip
"""Globs that match no name."""


@problem.check(
    "freeze", points=2, of="audit_freeze", title="what trains", same=same_audit,
    concerns=["planted faults", "globs", "set-ups without a fault", "parts in training mode"],
    next_step="Compare two sets of names, in both directions; then look at each pattern.",
)  # fmt: skip
def freeze(rng: Rng) -> Iterator[AnyCase]:
    yield asked(rng, "nothing wrong", "freeze")
    wrong = [
        "extra trainable",
        "norm left on",
        "flag set as an attribute",
        "gradient zeroed instead",
        "one factor frozen",
    ]
    yield asked(rng, "what shouldn't train does, what should doesn't", "freeze", wrong)
    idle = ["head.bias", "positions", "blocks.2", "blocks.3.up.a", "head.bias"]
    whole = ("blocks.1.*", "blocks.?.norm.*", "head.*", "head.weight", *idle)
    yield asked(rng, "one block of eleven", "freeze", promise=GLOBS, blocks=11, patterns=whole)
    for glob in MATCHING:
        patterns = (glob, *FACTORS, glob)
        yield corner(rng, "a glob", "freeze", ["the model itself counts"], promise=GLOBS, patterns=patterns)
    idle = [str(glob) for glob in rng.permutation(IDLE)]
    patterns = [*idle, *FACTORS]
    yield corner(rng, "globs that match nothing", "freeze", ["the model itself counts"], GLOBS, patterns=patterns)
    yield corner(rng, "a glob within another", "freeze", promise=GLOBS, patterns=["*", "embed.*", "*.A"])
    for words, faults in (
        ("old gradients", ["old gradients", "extra trainable"]),
        ("numbers of every dtype, and one of the model itself",
         ["frozen numbers of every kind", "frozen buffers of every kind", "the model itself counts"]),
        ("a model in which nothing trains", ["everything frozen"]),
    ):  # fmt: skip
        yield corner(rng, words, "freeze", faults)
    yield corner(rng, "nothing wrong, and no pattern", "freeze", ["everything frozen"], patterns=[])
    yield corner(rng, "a model without parts", "freeze", ["the model itself is a norm"], MODES, patterns=["weight"])
    yield corner(rng, "a part whose parameter is tied", "freeze", ["a head with dropout"], MODES, tied=True)
    both = ["embed.weight", "head.*"]
    yield corner(rng, "a trained part whose parameter is tied", "freeze", ["a head with dropout"], MODES, tied=True,
                 patterns=both)  # fmt: skip
    sharing = ["a frozen part over a factor's memory"]
    yield corner(rng, "a frozen part that shares memory", "freeze", sharing, MODES)
    yield corner(rng, "a frozen part with half the name of one that trains", "freeze",
                 ["a frozen part whose name begins another's"], MODES)  # fmt: skip
    yield corner(rng, "a trained part with a frozen number of its own", "freeze",
                 ["a part with a frozen number of its own"], MODES)  # fmt: skip
    idle = ["everything frozen", "parts without parameters"]
    yield corner(rng, "everything frozen, and dropout in parts without parameters", "freeze", idle, MODES, patterns=[])
    idle = ["everything frozen", "dropout in a trained part"]
    yield corner(rng, "dropout in a part that should train and is frozen", "freeze", idle, MODES)
    missing = ["blocks.0.up.[AB]", "blocks.1.up.[AB]"]
    yield asked(rng, "factors missing", "freeze", ["factors missing"], promise=GLOBS, patterns=missing)
    policy: dict[str, Any] = {"promise": MODES, "pair": True, "patterns": ["policy.*.A", "policy.*.B"]}
    clean = ["dropout in a trained part", "parts without parameters"]
    yield asked(rng, "dropout in a trained part", "freeze", clean, promise=MODES)
    calm = ["reference with its dropout off", "reference with a dropout of zero", "reference with other kinds"]
    noisy = ["reference in train mode", "reference with running means"]
    wrong = [*noisy, "reference trainable", "a frozen norm beside the model"]
    yield asked(rng, "a reference that trains, and one in training mode", "freeze", wrong, **policy)
    yield corner(rng, "a reference in training mode", "freeze", noisy, **policy)
    root = [*noisy, "only the model itself in evaluation mode"]
    yield corner(rng, "a reference in training mode, the model in evaluation mode", "freeze", root, **policy)
    yield asked(rng, "a reference as it should be", "freeze", calm, **policy)
    policy["patterns"] = [*FACTORS, "reference.head.*"]
    yield asked(rng, "a reference of which a part trains", "freeze", noisy, **policy)


problem.promise("tied", "A tied parameter has several names (`named_parameters(remove_duplicate=False)` gives them "
    "all); either all of them match or none, and a finding stands for each of them.",
    "a finding about a tied parameter stands for each of its names.")  # fmt: skip
SHARED = problem.promise("shared", "`SHARED_TENSOR_CONFLICT`, with each of their names: two parameters share "
    "memory (one `untyped_storage()`, perhaps other parts of it), and one should train while the other shouldn't.",
    "Names in a conflict get neither of the next two codes")  # fmt: skip


@problem.check(
    "tied", points=1, of="audit_freeze", title="shared tensors", same=same_audit,
    concerns=["a tied head", "two parameters over one memory", "a reference that shares the policy's memory"],
    next_step="Group the names by the memory of their tensors, then ask each group what should train.",
)  # fmt: skip
def tied(rng: Rng) -> Iterator[AnyCase]:
    yield asked(rng, "a tied head that shouldn't train", "freeze", ["embedding left on"], tied=True, patterns=[])
    both = ["embed.*", "head.*"]
    yield asked(rng, "a tied head that should train", "freeze", ["embedding frozen"], tied=True, patterns=both)
    yield asked(rng, "a tied head, nothing wrong", "freeze", tied=True, patterns=both)
    shared = ["memory shared and trained", "a frozen factor shared"]
    yield asked(rng, "memory shared", "freeze", shared, promise=SHARED)
    parts = ["memory split", "memory read as integers"]
    yield corner(rng, "two parts of one memory, and another dtype", "freeze", parts, promise=SHARED)
    frozen = ["memory split", "memory shared", "everything frozen"]
    yield corner(rng, "memory shared, and everything frozen", "freeze", frozen, promise=SHARED)
    halves = [*FACTORS, "*.rest"]
    yield corner(rng, "two parts that both train", "freeze", ["memory split"], promise=SHARED, patterns=halves)
    yield corner(rng, "two parts that are both frozen", "freeze", ["memory split"], promise=SHARED, patterns=["*.B"])
    beside = ["embedding shared"]
    yield corner(rng, "a tied head, and its memory shared", "freeze", beside, SHARED, tied=True, patterns=both)
    yield corner(rng, "tied parameters that nothing uses", "freeze", ["a tied parameter unused"], patterns=["*.B"])
    policy: Spec = {"promise": SHARED, "pair": True, "patterns": ["policy.*.A", "policy.*.B"]}
    yield asked(rng, "a reference that shares the policy's memory", "freeze", ["reference shares memory"], **policy)


problem.promise("opt", "`NOT_IN_OPTIMIZER`: it requires a gradient and isn't there",
    "`FROZEN_IN_OPTIMIZER`: it requires no gradient and is there",
    "And with an optimizer, over all of its groups:")  # fmt: skip
TWICE = problem.promise("twice", "`DUPLICATE_IN_OPTIMIZER`: it's there more than once, in one group or in several.")


@problem.check(
    "opt", points=2, of="audit_freeze", title="what the optimizer holds", same=same_audit,
    concerns=["several groups", "an optimizer of another model", "frozen and repeated members", "a tied head"],
    next_step="Collect the members of all groups by identity, and compare them with the trainable parameters.",
)  # fmt: skip
def opt(rng: Rng) -> Iterator[AnyCase]:
    trained = ["embed.*", "head.*", "*.B"]
    yield asked(rng, "two groups, a tied head, nothing wrong", "optimizer", tied=True, patterns=trained)
    wrong = ["left out of the optimizer", "frozen in the optimizer", "second group forgotten"]
    yield asked(rng, "members missing and frozen", "optimizer", wrong)
    yield asked(rng, "an optimizer of another model", "optimizer", ["optimizer of a copy"], tied=True, patterns=trained)
    flags = ["norm left on", "one factor frozen", "a frozen factor shared", "optimizer of a copy"]
    yield asked(rng, "flags that were set before", "optimizer", flags)
    held = "embedding in the optimizer twice"
    yield corner(rng, "a frozen tied head in the optimizer", "optimizer", [held], tied=True)
    for words, faults in (
        ("an optimizer without a group", ["optimizer without a group"]),
        ("other parameters over the same memory", ["optimizer of aliases"]),
        ("a member that the model lacks", ["a stranger in the optimizer"]),
        ("a module that came later", ["a late module", "frozen in the optimizer", "old gradients"]),
        ("a rate of zero", ["rate of zero", "twice in a group"]),
    ):
        yield corner(rng, words, "optimizer", faults)
    yield corner(rng, "a factor frozen later", "optimizer", ["frozen later", "left out of the optimizer"])
    yield corner(rng, "a factor frozen later, and twice", "optimizer", ["frozen later, and twice"], promise=TWICE)
    conflict = ["a conflict in the optimizer"]
    yield corner(rng, "memory shared, a frozen member", "optimizer", [*conflict, "frozen in the optimizer"])
    yield corner(rng, "memory shared, a member twice", "optimizer", conflict, promise=TWICE)
    yield corner(rng, "a tied head twice", "optimizer", [held], promise=TWICE, tied=True, patterns=trained)
    twice = ["twice in the optimizer", "twice in a group", "frozen and twice in a group"]
    yield asked(rng, "members repeated", "optimizer", twice, promise=TWICE)


problem.promise("step", "Run exactly one training step and return the findings (code, name) about what moved",
    "`NO_GRAD`: trainable, and its gradient is None after the backward pass; a gradient of zeros is one",
    "A parameter counts as trainable if it requires a gradient.",
    "`NOTHING_MOVED`, with the name `model`: no trainable parameter changed.",
    "Names are those of `named_parameters()` and `named_buffers()`: a tied parameter has one.")  # fmt: skip
LINES_OF_A_STEP = problem.promise("lines", "The step: clear old gradients of the model and of the optimizer's members "
    "(to None), call `loss_fn(model)` once, `backward()` if the loss requires a gradient (with everything frozen it "
    "doesn't), `optimizer.step()` once.",
    "A model is audited as it comes: in whatever mode its modules are.")  # fmt: skip
BITS = problem.promise("bits", "*Changed* means any bit, whatever the dtype: a NaN that stays has not changed, "
    "and a 0.0 that became -0.0 has.")  # fmt: skip
BUFFERS = problem.promise("buffers", "`FROZEN_CHANGED`: a parameter that isn't trainable changed, or a buffer of a "
    "module that has parameters of its own, all of them frozen, did")  # fmt: skip


@problem.check(
    "step", points=2, of="audit_step", title="what moves", same=same_audit,
    concerns=["planted faults", "zero gradients", "buffers", "exactly one clean step"],
    next_step="Write the five lines of a training step, and keep a copy of everything from before it.",
)  # fmt: skip
def step(rng: Rng) -> Iterator[AnyCase]:
    still = ["rate of zero", "frozen weight drifts", "unused module"]
    yield asked(rng, "a rate of zero, a drift and an unused module", "step", still)
    yield asked(rng, "an optimizer of another model", "step", ["optimizer of a copy"], blocks=1)
    names = ["a tied parameter unused", "a tied frozen weight drifts"]
    yield corner(rng, "tied parameters", "step", names)
    late = ["a late module", "no old gradients"]
    yield corner(rng, "a module that came later, and no old gradients", "step", late, warm=True)
    yield corner(rng, "a loss of NaN", "step", ["the loss is NaN", "unused module"], warm=True)
    yield corner(rng, "a trained NaN that stays", "step", ["a trained NaN", "rate of zero"])
    outside = ["frozen weight drifts", "optimizer without a group"]
    norms = [*FACTORS, "*.norm.weight"]
    yield corner(rng, "what moves isn't in the optimizer", "step", outside, patterns=norms)
    # With B = 0 the gradient of A is zero, which is what the cases above are about.
    lines: dict[str, Any] = {"promise": LINES_OF_A_STEP, "warm": True}
    old = ["unused module", "dropout that is off", "left out of the optimizer"]
    yield asked(rng, "old gradients, and a dropout that is off", "step", old, **lines)
    yield asked(rng, "everything frozen", "step", ["everything frozen"], blocks=1, **lines)
    for words, faults in (
        ("old gradients of a module that came later", ["a late module"]),
        ("old gradients of members that the model lacks", ["a stranger in the optimizer"]),
        ("old gradients of frozen members", ["frozen in the optimizer", "frozen and twice in a group"]),
        ("a loss without a gradient, and a parameter that trains", ["everything frozen", "a late module"]),
    ):
        yield corner(rng, words, "step", faults, **lines)
    tiny = ["an unused NaN", "a zero's sign flips", "tiny rates"]
    yield asked(rng, "tiny rates, a NaN, and the sign of a zero", "step", tiny, promise=BITS, warm=True)
    kinds = ["frozen numbers of every kind change", "frozen numbers of every kind"]
    yield corner(rng, "a bit in numbers of every dtype", "step", kinds, promise=BITS, warm=True)
    yield corner(rng, "the other half of a tensor", "step", ["memory split"], promise=BITS, warm=True)
    means = ["running mean of a trained norm", "running mean of a norm without parameters"]
    yield asked(rng, "nothing wrong, a trained norm", "step", means, promise=BUFFERS, warm=True, patterns=norms)
    silent = ["running mean moves", "memory shared", "frozen norm counts"]
    yield asked(rng, "a running mean and shared memory", "step", silent, promise=BUFFERS, warm=True)
    kinds = ["frozen buffers of every kind change", "frozen buffers of every kind", "the model itself counts"]
    yield corner(rng, "a bit in buffers of every dtype", "step", kinds, promise=BUFFERS, warm=True)


PAD, EOS, MASKED = 0, 2, -100


def batch(rng: Rng, rows: int, left: bool, pad: int) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Return ids, labels, attention mask and prompt lengths of a batch without a fault; EOS stands in prompts too."""
    prompts = [int(number) for number in rng.integers(2, 5, size=rows)]
    answers = [int(number) for number in rng.integers(3, 6, size=rows)]
    time = max(p + a for p, a in zip(prompts, answers, strict=True)) + 1
    ids, labels = torch.full((rows, time), pad), torch.full((rows, time), MASKED)
    real = torch.zeros(rows, time, dtype=torch.int64)
    for row, (p, a) in enumerate(zip(prompts, answers, strict=True)):
        start = time - p - a if left else 0
        ids[row, start : start + p + a] = torch.from_numpy(rng.integers(3, 20, size=p + a))
        ids[row, start + p - 1] = EOS
        ids[row, start + p + a - 1] = EOS
        real[row, start : start + p + a] = 1
        labels[row, start + p : start + p + a] = ids[row, start + p : start + p + a]
    return ids, labels, real, prompts


def one_fault_a_row(rng: Rng, left: bool, pad: int) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Return a batch in which every row but the first has a fault of its own."""
    ids, labels, real, prompts = batch(rng, 10, left, pad)
    for row in range(1, 10):
        places = real[row].nonzero().flatten()
        p = prompts[row]
        if row == 1:
            labels[row, places[int(rng.integers(p))]] = ids[row, places[0]]  # a prompt token, perhaps of another id
        elif row == 2:
            gap = (real[row] == 0).nonzero().flatten()
            labels[row, gap[-1]] = pad
        elif row == 3:
            labels[row, places[p + 1]] = MASKED
        elif row == 4:
            labels[row, places[-1]] = MASKED
        elif row == 5:
            labels[row] = MASKED
        elif row == 6:
            ids[row, places[-1]] = labels[row, places[-1]] = 19
        elif row == 9:
            ids[row, places[-1]], labels[row, places[-1]] = 19, MASKED
        elif row == 7:
            labels[row, places[p]] += 1
        else:
            labels[row, places[p]] = MASKED
    return ids, labels, real, prompts


MASK_FAULTS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "nothing is a target": lambda ids, labels, real: torch.full_like(labels, MASKED),
    "everything is a target": lambda ids, labels, real: ids.clone(),
    "padding is a target": lambda ids, labels, real: torch.where(real == 0, ids, labels),
    "the mask is inverted": lambda ids, labels, real: torch.where((labels == MASKED) & (real == 1), ids, MASKED),
    "EOS is masked": lambda ids, labels, real: labels.masked_fill(ids == EOS, MASKED),
    "labels are shifted": lambda ids, labels, real: labels.roll(-1, 1),
    "a label that is no id": lambda ids, labels, real: torch.where(labels == EOS, -101, labels),
    "one row without a target": lambda ids, labels, real: torch.cat(
        [labels[:-1], torch.full_like(labels[-1:], MASKED)]
    ),
}
"""How the labels of a clean batch (ids, labels, attention mask) are spoiled."""


EDGES = ("------", "+!----", "tte---", "ppp---", "pppe--", "pppm--", "ppxx--", "ppmte-", "ppxte-", "pppt--")
"""Rows without an answer, without a prompt, or with an answer of a token. A row is spelled out in `SPELLING`."""
SPELLING = {
    "p": "prompt", "P": "prompt with its id as a label", "q": "prompt with another label", "E": "prompt of EOS",
    "t": "answer", "x": "masked answer", "e": "EOS", "m": "masked EOS", "w": "answer with another label",
    "-": "padding", "+": "padding with its id as a label", "!": "padding with another label",
}  # fmt: skip


def spelled(rng: Rng, rows: Sequence[str], eos: int) -> tuple[Tensor, Tensor, Tensor, list[int]]:
    """Return a batch of spelled rows; padding has the id of EOS, and prompts without an answer are too long."""
    ids = torch.tensor([[eos if mark in "Eem-+!" else int(rng.integers(3, 20)) for mark in row] for row in rows])
    kept = torch.tensor([[mark in "Pqtew+!" for mark in row] for row in rows])
    real = torch.tensor([[int(mark not in "-+!") for mark in row] for row in rows])
    prompts = [sum(mark in "pPqE" for mark in row) + 2 * (not set(row) & set("txemw")) for row in rows]
    other = torch.tensor([[int(mark in "!qw") for mark in row] for row in rows])
    wrong = torch.from_numpy(rng.choice([1000, eos, -101, -99, -1], size=tuple(ids.shape)))
    values = torch.where(other == 1, torch.where(wrong == 1000, ids + 1, wrong), ids)
    return ids, torch.where(kept, values, MASKED), real, prompts


ANSWERS = ["".join(marks) for length in range(3) for marks in itertools.product("txemw", repeat=length)]
ENDINGS = (
    "tet",
    "txt",
    "eet",
    "eme",
    "emt",
    "tee",
    "tem",
    "tme",
    "xxe",
    "xxm",
    "mmm",
    "mmt",
    "wmw",
    "tex",
    "eex",
    "xet",
)


def rows_of_every_kind(rng: Rng) -> list[str]:
    """Return rows with every answer of up to two tokens, and some of three; prompts and padding have faults too."""
    rows: list[str] = []
    for answer in [*ANSWERS, *ENDINGS]:
        prompt = "".join(rng.choice(list("pppPqE"), size=int(rng.integers(0, 4))))
        padding = "".join(rng.choice(list("----+!"), size=7 - len(prompt) - len(answer)))
        left = int(rng.integers(0, len(padding) + 1))
        rows.append(padding[:left] + prompt + answer + padding[left:])
    return rows


def kinds_of_masks(rng: Rng) -> Iterator[Case]:
    """Yield batches with attention masks of other dtypes, one token more than a byte counts, and large ids."""
    ids, labels, real, prompts = one_fault_a_row(rng, left=True, pad=EOS)
    for dtype in (torch.bool, torch.uint8, torch.int8, torch.int32):
        given = (ids, labels, real.to(dtype), tuple(prompts))
        yield Case(f"an attention mask of {dtype}".replace("torch.", ""), call("audit_masks", *given, EOS))
    large = torch.where(ids > EOS, ids + 150_000, ids), torch.where(labels > EOS, labels + 150_000, labels)
    yield Case("ids of a large vocabulary", call("audit_masks", *large, real, prompts, EOS))
    eos = 128_009
    swap = [torch.where(one == EOS, eos, one) for one in (ids, labels)]
    yield Case("a large id of EOS", call("audit_masks", *swap, real, prompts, eos))
    rows = ["p" * 280 + middle + "t" * 18 + mark + "--" for middle in ("tx", "tt") for mark in "emxt"]
    ids, labels, real, prompts = spelled(rng, rows, EOS)
    for dtype in (torch.bool, torch.uint8, torch.int64):
        yield Case("300 tokens", call("audit_masks", ids, labels, real.to(dtype), prompts, EOS))


def torn_shapes(clean: tuple[Tensor, Tensor, Tensor, list[int]]) -> Iterator[tuple[str, tuple[Any, ...]]]:
    """Yield batches of which one part has another shape."""
    names = ("ids", "labels", "an attention mask")
    for place, name in enumerate(names):
        tensor = clean[place]
        assert isinstance(tensor, Tensor)
        for words, other in (
            ("of one row", tensor[:1]),
            ("of one column", tensor[:, :1]),
            ("of a column less", tensor[:, 1:]),
            ("of a row less", tensor[1:]),
            ("of a column more", torch.cat([tensor, tensor[:, :1]], 1)),
            ("of a row more", torch.cat([tensor, tensor[:1]])),
            ("of (time, batch)", tensor.T.clone()),
            ("of one axis", tensor[0]),
            ("of one axis, all in a row", tensor.reshape(-1)),
            ("of three axes", tensor[..., None]),
            ("of three axes, the first of 1", tensor[None]),
        ):
            yield f"{name} {words}", (*clean[:place], other, *clean[place + 1 :])
    prompts = clean[3]
    for words, other in (
        ("missing", prompts[1:]),
        ("too many", [*prompts, 1]),
        ("for no row", []),
        ("for one row", [2]),
    ):
        yield f"prompt lengths {words}", (*clean[:3], other)


problem.promise("mask", "Return the findings (code, row) about a batch of prompts with answers; each once",
    "`labels` are not shifted: at an answer token stands its id, everywhere else -100.",
    "A row's first `prompt_lens[row]` real tokens are its prompt, the others its answer.",
    "`PROMPT_UNMASKED`: a prompt token has a label other than -100", "`PAD_UNMASKED`: padding has one",
    "`LABEL_MISMATCH`: a label other than -100 isn't the id at its position",
    "`ANSWER_MASKED`: an answer token has the label -100, the last one being an EOS aside",
    "`EOS_MASKED`: the last answer token is an EOS and has the label -100",
    "`NO_EOS`: there are answer tokens, and the last one isn't `eos_id`")  # fmt: skip
PADDING = problem.promise("padding", "`attention_mask` is 1 for real tokens and 0 for padding, and only it tells "
    "padding, on either side: a padding id may equal `eos_id`.")  # fmt: skip
NO_ANSWER = problem.promise("no_answer", "`NO_ANSWER`: no answer token has a label other than -100, or there is no "
    "answer token (a row may be padding alone, and `prompt_lens[row]` may be all of its tokens or more)",
    "not where `NO_ANSWER` is",
    "a row without an answer is found, even if all of it is padding.")  # fmt: skip
SHAPE = problem.promise("shape", "ValueError naming `shape` if the three tensors differ in shape or `prompt_lens` "
    "isn't one number a row.")  # fmt: skip


@problem.check(
    "mask", points=2, of="audit_masks", title="which tokens are targets", same=same_findings,
    concerns=["planted faults", "left padding", "padding with the id of EOS", "rows without an answer", "shapes"],
    next_step="For one row, write three masks: padding, prompt, answer. Every finding is about one of them.",
)  # fmt: skip
def mask(rng: Rng) -> Iterator[AnyCase]:
    yield Case("right padding, nothing wrong", call("audit_masks", *batch(rng, 3, left=False, pad=PAD), EOS))
    faulty = Case("right padding, a fault a row", call("audit_masks", *one_fault_a_row(rng, False, PAD), EOS))
    yield as_views(with_numpy_numbers(faulty))
    for rows in (rows_of_every_kind(rng), rows_of_every_kind(rng)):
        eos = int(rng.integers(0, 3))
        yield Case("rows of every kind", call("audit_masks", *spelled(rng, rows, eos), eos), once=True)
    yield from (dataclasses.replace(case, once=True) for case in kinds_of_masks(rng))
    for words, spoil in MASK_FAULTS.items():
        ids, labels, real, prompts = batch(rng, 2, left=False, pad=PAD)
        yield Case(words, call("audit_masks", ids, spoil(ids, labels, real), real, prompts, EOS))
    clean = batch(rng, 2, left=True, pad=EOS)
    yield Case("left padding with EOS, nothing wrong", call("audit_masks", *clean, EOS), promise=PADDING)
    for left, pad in ((True, PAD), (False, EOS)):
        given = one_fault_a_row(rng, left, pad)
        words = f"{'left' if left else 'right'} padding, a fault a row"
        yield Case(words, call("audit_masks", *given, EOS), promise=PADDING)
    both = ["--Eptte--", "-ppttxte-", "ppte-----", "-----ppte"]
    words = "padding on both sides"
    yield Case(words, call("audit_masks", *spelled(rng, both, EOS), EOS), promise=PADDING, once=True)
    edges = [EDGES[place] for place in rng.permutation(len(EDGES))]
    words = "rows without an answer, without a prompt, with an answer of one token"
    yield Case(words, call("audit_masks", *spelled(rng, edges, 0), 0), promise=NO_ANSWER)
    left = [row[::-1] if len(set(row)) < 3 else row for row in EDGES]
    yield Case("such rows, padded on the left", call("audit_masks", *spelled(rng, left, EOS), EOS), promise=NO_ANSWER)
    for place, (words, given) in enumerate(torn_shapes(clean)):
        twin = None if place else call("audit_masks", *clean, EOS)
        yield Refusal(words, call("audit_masks", *given, EOS), "shape", twin=twin, promise=SHAPE)


def trainable(counted: Any) -> int:
    return counted[0]["trainable"]


@problem.personal(
    title="your model", same=integer, next_step="Make a row for each parameter: its numbers, and whether it trains."
)
def mine(rng: Rng) -> Question:
    patterns = [*FACTORS, str(rng.choice(["*.norm.weight", "embed.weight"]))]
    spec = spec_of(rng, "count", blocks=int(rng.integers(3, 9)), tied=True, patterns=patterns)
    width, rank = spec["width"], spec["rank"]
    words = (
        f"A model embeds {spec['vocab']} tokens in {width} dimensions (embed.weight; the head is tied to it). Each of "
        f"its {spec['blocks']} blocks has a gain of {width} (norm.weight) and a {width} x {width} weight (up.weight) "
        f"with factors up.A ({rank} x {width}) and up.B ({width} x {rank}). What matches {', '.join(patterns)} trains. "
        "How many numbers train?"
    )
    return Question(words, call("count_parameters", spec, build=BUILD), trainable)


# ---------------------------------------------------------------------------------------------------------- mistakes

# Texts of the reference that stand more than once below.
PARAMETERS, TOTAL = "model.parameters()", "total = sum(size for size, _ in sizes)"
MATCH, TRAINS, MEMBER = "fnmatchcase(name, pattern)", "parameter.requires_grad", "held[id(parameter)]"
TOO_FEW, TOO_MANY = "wanted - trains - conflict", "trains - wanted - conflict"
FROZEN = "own and not any(parameter.requires_grad for parameter in own)"
GRAD, ALIVE, STEP = "parameters[name].grad is None", "changed & trainable", "optimizer.step()"
CLEAR, CLEAR_MEMBERS = "model.zero_grad()", "optimizer.zero_grad()"
OLD, SAME, SAME_NUMBERS = (
    "bits(value)",
    "torch.equal(bits(value), before[name])",
    "torch.equal(value.detach(), before[name])",
)
COMPARE_BITS = "Compare bits: view a copy of the tensor as bytes (`torch.uint8`)."
BACKWARD = "if loss.requires_grad:\n        loss.backward()"
PROMPT, VALUES, EOS_MASKED = "real.cumsum(0) <= prompt_len", "(labels != ids)", "ends and not bool(labelled[last])"

SETS = "Compare two sets of names, in both directions."
FNMATCH = "Use `fnmatch.fnmatchcase(name, pattern)`."
GROUP = "Group the names by the memory of their tensors, then ask each group what should train."
MEMBERS = "Collect the members of all groups by identity."
LINES = "Write the lines of a training step: zero_grad, loss, backward, step."
THREE = "For one row, write three masks: padding, prompt, answer. Every finding is about one of them."
OWN_ID = "A label is the id at its own position."

for name, of, edits, says, next_step in (
    ("counts_tied_twice", "count_parameters",
     {PARAMETERS: "dict(model.named_parameters(remove_duplicate=False)).values()"},
     "Your count has a tied parameter once for each name.", "`parameters()` gives each tensor once."),
    ("counts_state_dict", "count_parameters", {TOTAL: "total = sum(v.numel() for v in model.state_dict().values())"},
     "Your total goes over the state dict: buffers, and each name of a tied parameter.", "Count parameters."),
    ("counts_buffers", "count_parameters", {TOTAL: f"{TOTAL} + sum(buffer.numel() for buffer in model.buffers())"},
     "Your total has buffers in it.", "A running mean is state, not a parameter."),
    ("counts_tensors", "count_parameters", {"parameter.numel()": "1"},
     "Your count is of tensors, not of numbers.", "A tensor holds `numel()` numbers."),
    ("counts_all_as_trainable", "count_parameters", {" if trains": ""},
     "Your count takes everything for trainable.", "Ask each parameter whether it requires a gradient."),
    ("counts_matrices", "count_parameters", {PARAMETERS: f"{PARAMETERS} if parameter.ndim > 1"},
     "Your count leaves out vectors.", "Norms and biases are parameters too."),
    ("total_is_frozen", "count_parameters", {'"total": total': '"total": total - trainable'},
     "Your total is the frozen part.", "The total is frozen and trainable together."),
    ("counts_as_floats", "count_parameters", {TOTAL: f"{TOTAL} * 1.0"},
     "Your counts are floats.", "A count is an int."),

    ("duplicates_ignored", "audit_freeze", {"times[name] > 1": "False"},
     "Your audit doesn't see a parameter that is there twice.", "Count the members."),
    ("substring_match", "audit_freeze", {MATCH: 'pattern.replace("*", "") in name'},
     "Your patterns match any name that they stand in.", FNMATCH),
    ("prefix_match", "audit_freeze", {MATCH: 'fnmatchcase(name, pattern.replace(".*", "*"))'},
     "Your patterns match names that begin like them: block 1, and block 10.", FNMATCH),
    ("exact_match", "audit_freeze", {MATCH: "name == pattern"}, "Your patterns match nothing but themselves.", FNMATCH),
    ("regular_expression", "audit_freeze",
     {"named = ": "import re\n\n    named = ", MATCH: 're.search(pattern.replace("*", ".*"), name)'},
     "Your patterns are read as regular expressions.", FNMATCH),
    ("case_ignored", "audit_freeze", {MATCH: "fnmatchcase(name.lower(), pattern.lower())"},
     "Your patterns ignore upper and lower case.", FNMATCH),
    ("buffers_matched", "audit_freeze",
     {"for name in named if": "for name in [*named, *dict(model.named_buffers())] if"},
     "Your patterns match buffers.", "Match the names of parameters."),
    ("pattern_reported_twice", "audit_freeze",
     {"for pattern, names in matches.items() if not names":
      "for pattern in trainable_patterns if not matches[pattern]"},
     "Your audit reports a pattern as often as it stands there.", "Each finding once."),
    ("freezes_itself", "audit_freeze",
     {"if optimizer is":
      "for name, value in named.items():\n        value.requires_grad_(name in wanted)\n    if optimizer is"},
     "Your audit sets what it should only look at.", "Leave `requires_grad` as it was."),
    ("switches_to_eval", "audit_freeze", {"named = ": "model.eval()\n    named = "},
     "Your audit puts the model into evaluation mode.", "Read `module.training`, and leave it."),
    ("never_flags_unexpected_frozen", "audit_freeze", {TOO_FEW: "()"},
     "Your audit doesn't see what should train and doesn't.", SETS),
    ("never_flags_unexpected_trainable", "audit_freeze", {TOO_MANY: "()"},
     "Your audit doesn't see what trains and shouldn't.", SETS),
    ("patterns_unchecked", "audit_freeze", {"matches.items() if not names": "()"},
     "Your audit doesn't see a pattern that matches nothing.", "Ask it of each pattern."),
    ("modules_asked", "audit_freeze",
     {TRAINS: f'getattr(model.get_submodule(name.rpartition(".")[0]), "requires_grad", {TRAINS})'},
     "Your audit asks modules whether they train; an attribute set there does nothing.", "Ask the parameters."),
    ("gradients_asked", "audit_freeze", {TRAINS: "parameter.grad is not None"},
     "Your audit asks for gradients, which are None before a backward pass.", "Ask `requires_grad`."),
    ("hooks_believed", "audit_freeze", {TRAINS: f"{TRAINS} and not parameter._backward_hooks"},
     "Your audit believes that a parameter with a hook on its gradient doesn't train.",
     "Weight decay moves a parameter whose gradient is zero."),
    ("norms_excused", "audit_freeze", {TRAINS: f'{TRAINS} and "norm" not in name'},
     "Your audit lets norms train.", SETS),
    ("training_mode_ignored", "audit_freeze", {"noisy_frozen(model, wanted)": "()"},
     "Your audit doesn't look at training mode.", "Look for dropout in parts that are frozen."),
    ("dropout_anywhere", "noisy_frozen", {"not names or names & wanted": "not names"},
     "Your audit reports dropout in parts that train.", "In a part that trains, dropout is right."),
    ("dropout_in_any_mode", "noisy_frozen", {"module.training and ": ""},
     "Your audit reports dropout that is off.", "`module.training` says whether it's on."),
    ("dropout_of_zero", "noisy_frozen", {" and module.p > 0": ""},
     "Your audit reports a dropout that drops nothing.", "Ask for `p > 0`."),
    ("one_kind_of_batch_norm", "noisy_frozen", {"BATCH_NORMS": "torch.nn.BatchNorm1d"},
     "Your audit knows `BatchNorm1d` alone.", "There are three."),
    ("facts_for_intentions", "noisy_frozen",
     {"names & wanted": "any(parameter.requires_grad for parameter in child.parameters())"},
     "Your audit asks what trains, where the contract says what should.", SETS),
    ("own_parameters_only", "noisy_frozen",
     {"in child.named_parameters()": "in [*child.named_parameters(recurse=False)] or child.named_parameters()"},
     "Your audit asks a child's own parameters alone, where one deeper in it should train.",
     "`named_parameters()` goes all the way down."),
    ("mode_of_the_child", "noisy_frozen", {"module.training": "child.training"},
     "Your audit asks the outer module for its mode.", "Each module has a `training` of its own."),
    ("child_itself_unseen", "noisy_frozen", {"if module.training": "if name != child_name and module.training"},
     "Your audit looks inside each child and not at the child itself.", "`named_modules()` gives both."),
    ("first_level_only", "noisy_frozen",
     {"child.named_modules(prefix=child_name)": '((f"{child_name}.{n}", m) for n, m in child.named_children())'},
     "Your audit doesn't look into the modules of a child's modules.", "`named_modules()` goes all the way down."),
    ("part_without_parameters", "noisy_frozen", {"not names or ": ""},
     "Your audit reports dropout in a part that has no parameters.", "It has nothing that could be frozen."),
    ("every_module_in_train_mode", "noisy_frozen", {" and (dropout or batch_norm)": ""},
     "Your audit reports modules that behave alike in both modes.", "Only dropout and batch normalisation differ."),
    ("first_finding_only", "audit_freeze", {"return findings": "return findings[:1]"},
     "Your audit stops at its first finding.", "Collect them all."),

    ("tied_names_unseen", "audit_freeze", {"remove_duplicate=False": ""},
     "Your audit sees one name of a tied parameter.", "`remove_duplicate=False` gives them all."),
    ("pointer_of_the_view", "conflicting", {"parameter.untyped_storage().data_ptr()": "parameter.data_ptr()"},
     "Your audit compares where tensors begin: a view may begin inside another.",
     "Compare `untyped_storage().data_ptr()`."),
    ("tied_conflict_ignored", "audit_freeze", {"conflicting(named, wanted)": "set()"},
     "Your audit doesn't see that two parameters share memory.", GROUP),
    ("any_sharing_flagged", "conflicting", {"names & wanted and names - wanted": "len(names) > 1"},
     "Your audit reports a tied tensor on which all names agree.", GROUP),
    ("conflict_counted_twice", "audit_freeze", {TOO_FEW: "wanted - trains", TOO_MANY: "trains - wanted"},
     "Your audit gives a conflict a second code.", "A name in a conflict gets no other code."),
    ("conflict_for_one_name", "audit_freeze",
     {"in sorted(conflict)": "in {named[n].untyped_storage().data_ptr(): n for n in sorted(conflict)[::-1]}.values()"},
     "Your audit reports a conflict for one of the names.", "Report every name."),

    ("members_by_value", "audit_freeze",
     {MEMBER: f'{MEMBER} or any(parameter.equal(p) for g in optimizer.param_groups for p in g["params"])'},
     "Your audit takes equal numbers for the same parameter: another model's copy passes.", MEMBERS),
    ("optimizer_ignored", "audit_freeze", {"optimizer is not None": "False"},
     "Your audit doesn't look into the optimizer.", MEMBERS),
    ("only_first_group", "audit_freeze", {"optimizer.param_groups": "optimizer.param_groups[:1]"},
     "Your audit looks at the optimizer's first group.", MEMBERS),
    ("duplicates_between_groups_only", "audit_freeze", {'in group["params"]': 'in dict.fromkeys(group["params"])'},
     "Your audit doesn't see a parameter that is twice in one group.", "Count the members."),
    ("duplicates_within_a_group_only", "audit_freeze",
     {"times[name] > 1": 'any([*map(id, g["params"])].count(id(named[name])) > 1 for g in optimizer.param_groups)'},
     "Your audit doesn't see a parameter that is in two groups.", "Count the members of all groups together."),
    ("frozen_duplicates_ignored", "audit_freeze", {"sorted(named) if times": "sorted(trains) if times"},
     "Your audit looks for duplicates among trainable parameters alone.", "A frozen parameter may be there twice too."),
    ("conflict_hides_optimizer", "audit_freeze", {"sorted(trains) if not": "sorted(trains - conflict) if not"},
     "Your audit doesn't look for names of a conflict in the optimizer.",
     "A conflict replaces the `UNEXPECTED_` codes alone."),
    ("frozen_in_optimizer_ignored", "audit_freeze", {"named.keys() - trains": "()"},
     "Your audit doesn't see a frozen parameter in the optimizer.", SETS),
    ("missing_from_optimizer_ignored", "audit_freeze", {"sorted(trains) if not": "() if not"},
     "Your audit doesn't see a trainable parameter that the optimizer lacks.", SETS),
    ("intentions_in_optimizer", "audit_freeze",
     {"sorted(trains) if not": "sorted(wanted) if not", "named.keys() - trains": "named.keys() - wanted"},
     "Your audit compares the optimizer with what should train, not with what does.",
     "`NOT_IN_OPTIMIZER` is about parameters that require a gradient."),

    ("no_grad_ignored", "audit_step", {"*no_grad, ": ""},
     "Your audit doesn't see a parameter that got no gradient.", "After backward, ask for None."),
    ("zero_gradient_is_none", "audit_step", {GRAD: f"({GRAD} or not parameters[name].grad.any())"},
     "Your audit takes a gradient of zeros for none.",
     "With B = 0 the gradient of A is zero, and A is part of the graph."),
    ("asked_before_backward", "audit_step", {BACKWARD: "", STEP: f"{BACKWARD}\n    {STEP}"},
     "Your audit asks for gradients before the backward pass.", LINES),
    ("frozen_drift_allclose", "audit_step",
     {f"{OLD} for": "value.detach().clone() for", SAME: SAME_NUMBERS.replace("equal", "allclose")},
     "Your audit doesn't see small changes.", COMPARE_BITS),
    ("numbers_compared", "audit_step", {f"{OLD} for": "value.detach().clone() for", SAME: SAME_NUMBERS},
     "Your audit compares numbers: NaN differs from itself, and 0.0 equals -0.0.", COMPARE_BITS),
    ("sums_compared", "audit_step",
     {f"{OLD} for": "value.detach().sum() for", SAME: SAME_NUMBERS.replace("()", "().sum()")},
     "Your audit compares sums, in which small changes are lost.", COMPARE_BITS),
    ("loss_called_twice", "audit_step", {"loss = ": "loss_fn(model)\n    loss = "},
     "Your audit calls `loss_fn` twice.", LINES),
    ("gradients_zeroed", "audit_step", {one: f"{one[:-1]}set_to_none=False)" for one in (CLEAR, CLEAR_MEMBERS)},
     "Your audit sets old gradients to zeros, which hides a gradient of None.", "Set them to None."),
    ("switched_to_train", "audit_step", {"optimizer.zero": "model.train()\n    optimizer.zero"},
     "Your audit puts the model into training mode.", "Step with the model as it comes."),
    ("snapshot_without_clone", "bits", {".clone()": ""},
     "Your snapshot is the parameter itself, so nothing ever changed.", "Clone before the step."),
    ("no_step_taken", "audit_step", {STEP: ""}, "Your audit takes no step.", LINES),
    ("two_steps_taken", "audit_step", {STEP: f"{STEP}\n    {STEP}"}, "Your audit takes two steps.", LINES),
    ("old_gradients_kept", "audit_step", {CLEAR: "", CLEAR_MEMBERS: ""},
     "Your step adds to gradients of a step before.", "Call `model.zero_grad()` and `optimizer.zero_grad()` first."),
    ("old_gradients_outside_kept", "audit_step", {CLEAR: ""},
     "Your step keeps old gradients of parameters that the optimizer doesn't hold.", "Call `model.zero_grad()` too."),
    ("old_gradients_of_members_kept", "audit_step", {CLEAR_MEMBERS: ""},
     "Your step keeps old gradients of members that the model lacks.", "Call `optimizer.zero_grad()` too."),
    ("frozen_unwatched", "audit_step", {"*frozen, ": ""},
     "Your audit doesn't see that something frozen changed.", "Snapshot every parameter."),
    ("buffers_unwatched", "watched", {FROZEN: "False"},
     "Your audit doesn't watch buffers of frozen modules.", "A running mean moves without an optimizer."),
    ("children_asked_too", "watched", {"(recurse=False))": "())"},
     "Your audit asks a module's children whether it is frozen.", "Ask for parameters of its own: `recurse=False`."),
    ("half_frozen_is_frozen", "watched", {"not any(": "not all("},
     "Your audit watches buffers of a module of which one parameter is frozen.", "All of its own must be frozen."),
    ("every_buffer_watched", "watched", {FROZEN: "True"},
     "Your audit reports buffers of modules that train.", "A trained norm's running mean may move."),
    ("frozen_movement_counts", "audit_step", {ALIVE: "changed"},
     "Your audit takes a change of something frozen for progress.",
     "Only trainable parameters count for `NOTHING_MOVED`."),
    ("standstill_ignored", "audit_step", {", *still": ""},
     "Your audit doesn't see that nothing moved.", "Compare the trainable parameters too."),
    ("all_must_move", "audit_step", {ALIVE: "trainable and trainable <= changed"},
     "Your audit reports a standstill as soon as one parameter stays.", "`NOTHING_MOVED` means none moved."),
    ("backward_unguarded", "audit_step", {BACKWARD: "loss.backward()"},
     "With everything frozen your backward pass raises an error.",
     "A loss that requires no gradient has no backward pass."),

    ("pad_by_token_id", "audit_masks", {"attention_mask != 0": "input_ids != eos_id"},
     "Your audit tells padding by its id; EOS may have the same.", "Only `attention_mask` tells padding."),
    ("right_padding_assumed", "row_findings", {PROMPT: "torch.arange(len(real)) < prompt_len"},
     "Your prompt begins at column 0, where left padding stands.", "Count real tokens."),
    ("prompt_one_short", "row_findings", {PROMPT: "real.cumsum(0) < prompt_len"},
     "Your prompt is one token shorter than it is.", THREE),
    ("prompt_one_long", "row_findings", {PROMPT: f"{PROMPT} + 1"},
     "Your prompt is one token longer than it is.", THREE),
    ("prompt_not_checked", "row_findings", {"(labelled & prompt).any()": "False"},
     "Your audit doesn't see prompt tokens with labels.", THREE),
    ("pad_not_checked", "row_findings", {"(labelled & ~real).any()": "False"},
     "Your audit doesn't see padding with labels.", THREE),
    ("answer_not_checked", "row_findings", {"labelled[inner].all()": "True"},
     "Your audit doesn't see a masked answer token.", THREE),
    ("eos_not_distinguished", "row_findings", {"places[:-1] if ends else places": "places", EOS_MASKED: "False"},
     "Your audit takes a masked EOS for any masked answer token.",
     "The last answer token has a code of its own if it's an EOS."),
    ("eos_mask_not_checked", "row_findings", {EOS_MASKED: "False"}, "Your audit doesn't see a masked EOS.", THREE),
    ("only_legal_ids_checked", "row_findings", {VALUES: "(labels < 0)"},
     "Your audit only sees labels that are no ids at all.", OWN_ID),
    ("label_values_unchecked", "row_findings", {f"(labelled & {VALUES}).any()": "False"},
     "Your audit doesn't compare labels with ids.", OWN_ID),
    ("labels_expected_shifted", "row_findings", {f"labelled & {VALUES}": "labelled[:-1] & (labels[:-1] != ids[1:])"},
     "Your audit expects labels that are shifted by one.", OWN_ID),
    ("negative_is_masked", "row_findings", {"labels != -100": "labels >= 0"},
     "Your audit takes every negative label for masked.", "Only -100 means that."),
    ("empty_answer_unseen", "row_findings", {'"NO_ANSWER": not': '"NO_ANSWER": bool(answer.any()) and not'},
     "Your audit passes a row that has no answer token at all.", "No target is no target."),
    ("row_of_padding_unseen", "row_findings", {'"NO_ANSWER": not': '"NO_ANSWER": bool(real.any()) and not'},
     "Your audit passes a row of padding alone.", "No target is no target."),
    ("no_prompt_unseen", "row_findings", {PROMPT: f"{PROMPT.replace('prompt_len', 'max(1, prompt_len)')}"},
     "Your audit takes the first token for a prompt where there is none.", "A prompt may have no tokens."),
    ("eos_of_zero", "row_findings", {"ends = ": "ends = eos_id > 0 and "},
     "Your audit finds no EOS whose id is 0.", "0 is an id like any other."),
    ("inner_eos_excused", "row_findings", {"labelled[inner]": "(labelled | (ids == eos_id))[inner]"},
     "Your audit excuses a masked EOS in the middle of an answer.",
     "Only the last answer token has a code of its own."),
    ("no_answer_ignored", "row_findings", {"if stands": 'if stands and code != "NO_ANSWER"'},
     "Your audit doesn't see a row without a target.", THREE),
    ("no_answer_counted_twice", "row_findings",
     {f'{code}"] = not found["NO_ANSWER"] and ': f'{code}"] = ' for code in ("ANSWER_MASKED", "EOS_MASKED")},
     "Your audit gives a row without a target further codes.", "Where `NO_ANSWER` is, masked tokens need no code."),
    ("last_token_is_eos", "row_findings", {"int(ids[last]) == eos_id": "True"},
     "Your audit takes the last answer token for EOS, whatever it is.", "Compare it with `eos_id`."),
    ("eos_presence_unchecked", "row_findings", {'found["NO_EOS"] = not ends': ""},
     "Your audit doesn't see an answer without EOS.", THREE),
    ("first_row_only", "audit_masks", {"enumerate(rows)": "list(enumerate(rows))[:1]"},
     "Your audit looks at the first row.", "Go over all rows."),
    ("one_finding_a_row", "audit_masks", {"row_findings(*parts, eos_id)": "row_findings(*parts, eos_id)[:1]"},
     "Your audit stops at a row's first finding.", "Collect them all."),
    ("lengths_alone_compared", "audit_masks",
     {"input_ids.shape == labels.shape == attention_mask.shape":
      "len(input_ids) == len(labels) == len(attention_mask)"},
     "Your audit compares the tensors' first axis alone.", "Compare whole shapes."),
    ("prompt_lens_unchecked", "audit_masks",
     {"len(prompt_lens) != len(input_ids)": "False", "strict=True": "strict=False"},
     "Your audit doesn't count the prompt lengths.", "One number a row."),
    ("shapes_unchecked", "audit_masks",
     {"not input_ids.shape == labels.shape == attention_mask.shape": "False",
      "len(prompt_lens) != len(input_ids)": "False", "strict=True": "strict=False"},
     "Your audit looks at no shapes.", "Compare the three tensors' shapes first."),
):  # fmt: skip
    problem.slip(name, of, edits, says=says, next_step=next_step)


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "bits: value.detach()* -> value": "a comparison of bytes needs no graph to be cut",
    "audit_freeze: sorted(*": "findings have no order; sorting is for the reader",
    "row_findings: 0 -> -1": "a row has one axis: -1 is 0",
})  # fmt: skip
