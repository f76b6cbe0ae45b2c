"""How audits are judged: by planting faults in models, optimizers and batches that are built at the other end."""

import re
from collections.abc import Callable, Iterator, Sequence
from fnmatch import fnmatchcase
from typing import Any

import torch
from ftgrade.problem import (
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

Tensor = torch.Tensor
Spec = dict[str, Any]
Found = list[tuple[str, str]]
Rows = list[tuple[str, int]]


# ------------------------------------------------------------------------------------------------------------ checks

FACTORS = ["*.A", "*.B"]


def spec_of(rng: Rng, asks: str, faults: Sequence[str] = (), **more: Any) -> Spec:
    """Return the plain data of a small set-up, with a block for each fault."""
    blocks = int(more.pop("blocks", max(2, len(faults))))
    sizes = {
        name: int(size)
        for name, size in zip(("vocab", "width", "rank"), rng.permutation([3, 4, 5, 6])[:3], strict=True)
    }
    places = [int(place) for place in rng.permutation(blocks)[: len(faults)]]
    spec = {
        "asks": asks,
        "blocks": blocks,
        "seed": int(rng.integers(2**31)),
        "patterns": FACTORS,
        "tied": False,
        "pair": False,
    }
    return spec | sizes | {"faults": list(zip(faults, places, strict=True))} | more


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
    extra = sorted({code for code, place in found if (code, place) not in wanted})
    told = [f"it misses {', '.join(missing)}"] if missing else []
    told += [f"it reports {', '.join(map(str, extra))} where that isn't so"] if extra else []
    if not told and len(found) != len(wanted):
        told = ["it reports a finding more than once"]
    return Difference("; ".join(told)) if told else None


def same_audit(expected: Any, got: Any) -> Difference | None:
    """Demand the same findings, and the same state afterwards."""
    difference = same_findings(expected[0], got[0])
    if difference or isinstance(expected[1], bool):
        return difference or (
            None if got[1] is True else Difference("it changed the model, which it should only look at")
        )
    for what in ("losses", "steps"):
        if got[1][what] != expected[1][what]:
            return Difference(f"it should run loss_fn and optimizer.step() once each, and the number of {what} differs")
    moved = Close(rtol=1e-6, atol=1e-9)(expected[1]["parameters"], got[1]["parameters"])
    return Difference("after the step the parameters are not what one clean step gives") if moved else None


def same_count(expected: Any, got: Any) -> Difference | None:
    return Close()(expected[0], got[0]) or (None if got[1] is True else Difference("it changed the model"))


def asked(rng: Rng, words: str, function: str, asks: str, faults: Sequence[str] = (), **more: Any) -> Case:
    return Case(words, call(function, spec_of(rng, asks, faults, **more), build=BUILD))


@problem.check(
    "count", points=1, of="count_parameters", title="counting", same=same_count,
    concerns=["a tied head", "buffers", "a part frozen"],
    next_step="Say for a tied head, and for a buffer, whether it's a parameter more.",
)  # fmt: skip
def count(rng: Rng) -> Iterator[AnyCase]:
    yield asked(rng, "a tied head", "count_parameters", "count", tied=True)
    yield asked(rng, "buffers", "count_parameters", "count", ["running mean moves"], patterns=["head.*", "*.A"])


@problem.check(
    "freeze", points=2, of="audit_freeze", title="what trains", same=same_audit,
    concerns=["planted faults", "globs", "set-ups without a fault", "parts in training mode"],
    next_step="Compare two sets of names, in both directions; then look at each pattern.",
)  # fmt: skip
def freeze(rng: Rng) -> Iterator[AnyCase]:
    clean = ["dropout in a trained part", "dropout of its own"]
    yield asked(rng, "nothing wrong, dropout in a trained part", "audit_freeze", "freeze", clean)
    extra = ["extra trainable", "norm left on", "flag set as an attribute", "gradient zeroed instead"]
    yield asked(rng, "what shouldn't train does", "audit_freeze", "freeze", extra)
    yield asked(rng, "a factor frozen", "audit_freeze", "freeze", ["one factor frozen"])
    whole = ["blocks.1.*", "head.*", "head.weight"]
    yield asked(rng, "one block of eleven", "audit_freeze", "freeze", blocks=11, patterns=whole)
    missing = ["blocks.0.up.[AB]", "blocks.1.up.[AB]"]
    yield asked(rng, "factors missing", "audit_freeze", "freeze", ["factors missing"], patterns=missing)
    policy = {"pair": True, "patterns": ["policy.*.A", "policy.*.B"]}
    calm = ["reference with its dropout off", "reference with a dropout of zero"]
    noisy = ["reference trainable", "reference in train mode", "reference with a running mean", *calm]
    yield asked(rng, "a reference that trains, and one in training mode", "audit_freeze", "freeze", noisy, **policy)
    yield asked(rng, "a reference as it should be", "audit_freeze", "freeze", calm, **policy)


@problem.check(
    "tied", points=1, of="audit_freeze", title="shared tensors", same=same_audit,
    concerns=["a tied head", "two parameters over one memory", "a reference that is the policy"],
    next_step="Group the names by the memory of their tensors, then ask each group what should train.",
)  # fmt: skip
def tied(rng: Rng) -> Iterator[AnyCase]:
    yield asked(rng, "a tied head, frozen", "audit_freeze", "freeze", tied=True)
    yield asked(rng, "a tied head, trained", "audit_freeze", "freeze", tied=True, patterns=["embed.*", "head.*"])
    half = [*FACTORS, str(rng.choice(["head.*", "embed.*"]))]
    yield asked(
        rng,
        "a tied head, half frozen; memory shared",
        "audit_freeze",
        "freeze",
        ["memory shared"],
        tied=True,
        patterns=half,
    )
    policy = ["policy.*.A", "policy.*.B"]
    half = [*policy, "reference.head.*"]
    noisy = ["reference in train mode"]
    yield asked(
        rng,
        "a reference, half trained by its tie",
        "audit_freeze",
        "freeze",
        noisy,
        patterns=half,
        pair=True,
        tied=True,
    )
    alias = ["reference is the policy"]
    yield asked(rng, "a reference that is the policy", "audit_freeze", "freeze", alias, patterns=policy, pair=True)


@problem.check(
    "opt", points=2, of="audit_freeze", title="what the optimizer holds", same=same_audit,
    concerns=["several groups", "an optimizer of another model", "frozen and repeated members", "a tied head"],
    next_step="Collect the members of all groups by identity, and compare them with the trainable parameters.",
)  # fmt: skip
def opt(rng: Rng) -> Iterator[AnyCase]:
    trained = ["embed.*", "head.*", "*.B"]
    yield asked(rng, "two groups, a tied head, nothing wrong", "audit_freeze", "optimizer", tied=True, patterns=trained)
    wrong = ["left out of the optimizer", "frozen in the optimizer", "twice in the optimizer"]
    yield asked(rng, "members missing, frozen and repeated", "audit_freeze", "optimizer", wrong)
    yield asked(rng, "a group forgotten", "audit_freeze", "optimizer", ["second group forgotten"])
    yield asked(rng, "an optimizer of another model", "audit_freeze", "optimizer", ["optimizer of a copy"])
    flags = ["norm left on", "one factor frozen"]
    yield asked(rng, "flags that were set before", "audit_freeze", "optimizer", flags)


@problem.check(
    "step", points=2, of="audit_step", title="what moves", same=same_audit,
    concerns=["planted faults", "zero gradients", "buffers", "exactly one clean step"],
    next_step="Write the five lines of a training step, and keep a copy of everything from before it.",
)  # fmt: skip
def step(rng: Rng) -> Iterator[AnyCase]:
    norms = [*FACTORS, "*.norm.weight"]
    moving = [
        "running mean of a trained norm",
        "running mean of a norm without parameters",
        "left out of the optimizer",
    ]
    yield asked(rng, "nothing wrong, a trained norm", "audit_step", "step", moving, patterns=norms)
    yield asked(rng, "an unused module and a drift", "audit_step", "step", ["unused module", "frozen weight drifts"])
    silent = ["running mean moves", "memory shared", "frozen norm counts"]
    yield asked(rng, "a running mean and shared memory", "audit_step", "step", silent)
    yield asked(rng, "a rate of zero and a drift", "audit_step", "step", ["rate of zero", "frozen weight drifts"])
    yield asked(rng, "an optimizer of another model", "audit_step", "step", ["optimizer of a copy"])
    yield asked(rng, "everything frozen", "audit_step", "step", ["everything frozen"])


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
    "a label that is no id": lambda ids, labels, real: torch.where(labels == EOS, -1, labels),
    "one row without a target": lambda ids, labels, real: torch.cat(
        [labels[:-1], torch.full_like(labels[-1:], MASKED)]
    ),
}
"""How the labels of a clean batch (ids, labels, attention mask) are spoiled."""


@problem.check(
    "mask", points=2, of="audit_masks", title="which tokens are targets", same=same_findings,
    concerns=["planted faults", "left padding", "padding with the id of EOS", "rows without an answer", "shapes"],
    next_step="For one row, write three masks: padding, prompt, answer. Every finding is about one of them.",
)  # fmt: skip
def mask(rng: Rng) -> Iterator[AnyCase]:
    clean = batch(rng, 3, left=True, pad=EOS)
    yield Case("left padding with EOS, nothing wrong", call("audit_masks", *clean, EOS), pure=True)
    yield Case("right padding, nothing wrong", call("audit_masks", *batch(rng, 3, left=False, pad=PAD), EOS))
    yield Case("left padding, a fault a row", call("audit_masks", *one_fault_a_row(rng, left=True, pad=PAD), EOS))
    faulty = one_fault_a_row(rng, left=False, pad=EOS)
    yield Case("right padding with EOS, a fault a row", call("audit_masks", *faulty, EOS))
    for words, spoil in MASK_FAULTS.items():
        ids, labels, real, prompts = batch(rng, 2, bool(rng.integers(2)), EOS)
        yield Case(words, call("audit_masks", ids, spoil(ids, labels, real), real, prompts, EOS))
    ids, labels, real, prompts = clean
    long = [int(length) for length in real.sum(1)]
    yield Case("prompts without an answer", call("audit_masks", ids, torch.full_like(labels, MASKED), real, long, EOS))
    yield Refusal("labels of another length", call("audit_masks", ids, labels[:, 1:], real, prompts, EOS), "shape")
    yield Refusal("a prompt length missing", call("audit_masks", ids, labels, real, prompts[1:], EOS), "shape")


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

Module = torch.nn.Module
Optimizer = torch.optim.Optimizer
Named = dict[str, torch.nn.Parameter]
Match = Callable[[str, str], bool]
LossFn = Callable[[Module], Tensor]


def count_mistake(name: str, formula: Callable[[Module], tuple[int, int]], says: str, next_step: str) -> None:
    """Register a wrong count; it gives the total and the trainable ones."""

    def function(model: Module) -> dict[str, int]:
        total, trainable = formula(model)
        return {"total": total, "trainable": trainable, "frozen": total - trainable}

    problem.mistake(name=name, replaces="count_parameters", says=says, next_step=next_step)(function)


def numel(model: Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in model.parameters() if p.requires_grad or not trainable)


def by_name(model: Module) -> Named:
    return dict(model.named_parameters(remove_duplicate=False))


def numel_by_name(model: Module, trainable: bool = False) -> int:
    return sum(p.numel() for p in by_name(model).values() if p.requires_grad or not trainable)


count_mistake(
    "counts_tied_twice", lambda m: (numel_by_name(m), numel_by_name(m, True)),
    "Your count has a tied parameter once for each name.", "`parameters()` gives each tensor once.",
)  # fmt: skip
count_mistake(
    "counts_state_dict", lambda m: (sum(value.numel() for value in m.state_dict().values()), numel(m, True)),
    "Your count goes over the state dict: buffers, and each name of a tied parameter.", "Count parameters.",
)  # fmt: skip
count_mistake(
    "counts_buffers", lambda m: (numel(m) + sum(b.numel() for b in m.buffers()), numel(m, True)),
    "Your count has buffers in it.", "A running mean is state, not a parameter.",
)  # fmt: skip
count_mistake(
    "counts_tensors", lambda m: (len(list(m.parameters())), sum(p.requires_grad for p in m.parameters())),
    "Your count is of tensors, not of numbers.", "A tensor holds `numel()` numbers.",
)  # fmt: skip
count_mistake(
    "counts_all_as_trainable", lambda m: (numel(m), numel(m)), "Your count takes everything for trainable.",
    "Ask each parameter whether it requires a gradient.",
)  # fmt: skip
count_mistake(
    "counts_matrices", lambda m: (sum(p.numel() for p in m.parameters() if p.ndim > 1), numel(m, True)),
    "Your count leaves out vectors.", "Norms and biases are parameters too.",
)  # fmt: skip
count_mistake(
    "total_is_frozen", lambda m: (numel(m) - numel(m, True), numel(m, True)), "Your total is the frozen part.",
    "The total is frozen and trainable together.",
)  # fmt: skip


def freeze_mistake(
    name: str, says: str, next_step: str, *,
    drop: Sequence[str] = (), match: Match = fnmatchcase, alone: bool = True,
    named: Callable[[Module], Named] = by_name,
    trains: Callable[[Module, Named], set[str]] = lambda model, named: {n for n, p in named.items() if p.requires_grad},
    key: Callable[[torch.nn.Parameter], object] = lambda parameter: parameter.untyped_storage().data_ptr(),
    clash: Callable[[set[str], set[str]], bool] = lambda names, wanted: bool(names & wanted and names - wanted),
    noisy: Callable[[Module, set[str]], list[str]] = lambda model, wanted: noisy_frozen(model, wanted),
    held: Callable[[Optimizer], list[Tensor]] = lambda optimizer: members(optimizer),
    member: Callable[[Tensor, list[Tensor]], int] = lambda p, held: sum(p is other for other in held),
    should_be_held: Callable[[set[str], set[str]], set[str]] = lambda trains, wanted: trains,
    keep: Callable[[Found], Found] = lambda found: found,
) -> None:  # fmt: skip
    """Register a wrong audit of freezing: each argument changes one thing of the right one."""

    def function(model: Module, trainable_patterns: Sequence[str], optimizer: Optimizer | None = None) -> Found:
        names = named(model)
        wanted = {name for name in names if any(match(name, pattern) for pattern in trainable_patterns)}
        trained = trains(model, names)
        groups: dict[object, set[str]] = {}
        for each, parameter in names.items():
            groups.setdefault(key(parameter), set()).add(each)
        conflict = {each for group in groups.values() if len(group) > 1 and clash(group, wanted) for each in group}
        apart = conflict if alone else set[str]()
        found: Found = [
            ("PATTERN_MATCHES_NOTHING", pattern)
            for pattern in trainable_patterns
            if not any(match(each, pattern) for each in names)
        ]
        found += [("SHARED_TENSOR_CONFLICT", each) for each in sorted(conflict)]
        found += [("UNEXPECTED_TRAINABLE", each) for each in sorted(trained - wanted - apart)]
        found += [("UNEXPECTED_FROZEN", each) for each in sorted(wanted - trained - apart)]
        found += [("FROZEN_IN_TRAIN_MODE", each) for each in noisy(model, wanted)]
        if optimizer is not None:
            inside = held(optimizer)
            counts = {each: member(parameter, inside) for each, parameter in names.items()}
            due = should_be_held(trained, wanted)
            found += [("NOT_IN_OPTIMIZER", each) for each in sorted(due) if not counts[each]]
            found += [("FROZEN_IN_OPTIMIZER", each) for each in sorted(names.keys() - due) if counts[each]]
            found += [("DUPLICATE_IN_OPTIMIZER", each) for each in sorted(names) if counts[each] > 1]
        return keep([finding for finding in found if finding[0] not in drop])

    problem.mistake(name=name, replaces="audit_freeze", says=says, next_step=next_step)(function)


def members(optimizer: Optimizer) -> list[Tensor]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def noisy_frozen(
    model: Module, wanted: set[str], any_mode: bool = False, any_child: bool = False, all_kinds: bool = False
) -> list[str]:
    """Return the modules that are reported as in training mode, rightly or with one condition less."""
    found: list[str] = []
    for child_name, child in model.named_children():
        names = {f"{child_name}.{name}" for name, _ in child.named_parameters(remove_duplicate=False)}
        if not any_child and (not names or names & wanted):
            continue
        for name, module in child.named_modules(prefix=child_name):
            kind = isinstance(module, torch.nn.Dropout | torch.nn.BatchNorm1d) or all_kinds
            if kind and (module.training or any_mode):
                found.append(name)
    return found


SETS = "Compare two sets of names, in both directions."
PATTERNS = "Use `fnmatch.fnmatchcase(name, pattern)`."

freeze_mistake(
    "substring_match", "Your patterns match any name that they stand in.", PATTERNS,
    match=lambda name, pattern: pattern.replace("*", "").replace("[AB]", "") in name,
)  # fmt: skip
freeze_mistake(
    "prefix_match", "Your patterns match names that begin like them: block 1, and block 10.", PATTERNS,
    match=lambda name, pattern: fnmatchcase(name, pattern.replace(".*", "*")),
)  # fmt: skip
freeze_mistake(
    "exact_match", "Your patterns match nothing but themselves.", PATTERNS, match=lambda name, pattern: name == pattern
)
freeze_mistake(
    "regular_expression", "Your patterns are read as regular expressions.", PATTERNS,
    match=lambda name, pattern: bool(re.search(pattern.replace("*", ".*") + "$", name)) and name.count(".") < 4,
)  # fmt: skip
freeze_mistake(
    "never_flags_unexpected_frozen", "Your audit doesn't see what should train and doesn't.", SETS,
    drop=["UNEXPECTED_FROZEN"],
)  # fmt: skip
freeze_mistake(
    "never_flags_unexpected_trainable", "Your audit doesn't see what trains and shouldn't.", SETS,
    drop=["UNEXPECTED_TRAINABLE"],
)  # fmt: skip
freeze_mistake(
    "patterns_unchecked", "Your audit doesn't see a pattern that matches nothing.", "Ask it of each pattern.",
    drop=["PATTERN_MATCHES_NOTHING"],
)  # fmt: skip
freeze_mistake(
    "modules_asked", "Your audit asks modules whether they train; an attribute set there does nothing.",
    "Ask the parameters.",
    trains=lambda model, named: {
        name for name, p in named.items()
        if p.requires_grad and getattr(model.get_submodule(name.rpartition(".")[0]), "requires_grad", None) is not False
    },
)  # fmt: skip
freeze_mistake(
    "gradients_asked", "Your audit asks for gradients, which are None before a backward pass.", "Ask `requires_grad`.",
    trains=lambda model, named: {name for name, p in named.items() if p.grad is not None},
)  # fmt: skip
freeze_mistake(
    "hooks_believed", "Your audit believes that a parameter with a hook on its gradient doesn't train.",
    "Weight decay moves a parameter whose gradient is zero.",
    trains=lambda model, named: {n for n, p in named.items() if p.requires_grad and not p._backward_hooks},
)  # fmt: skip
freeze_mistake(
    "norms_excused", "Your audit lets norms train.", SETS,
    trains=lambda model, named: {n for n, p in named.items() if p.requires_grad and "norm" not in n},
)  # fmt: skip
freeze_mistake(
    "training_mode_ignored", "Your audit doesn't look at training mode.", "Look for dropout in parts that are frozen.",
    drop=["FROZEN_IN_TRAIN_MODE"],
)  # fmt: skip
freeze_mistake(
    "dropout_anywhere", "Your audit reports dropout in parts that train.", "In a part that trains, dropout is right.",
    noisy=lambda model, wanted: noisy_frozen(model, wanted, any_child=True),
)  # fmt: skip
freeze_mistake(
    "dropout_in_any_mode", "Your audit reports dropout that is off.", "`module.training` says whether it's on.",
    noisy=lambda model, wanted: noisy_frozen(model, wanted, any_mode=True),
)  # fmt: skip
freeze_mistake(
    "every_module_in_train_mode", "Your audit reports modules that behave alike in both modes.",
    "Only dropout and batch normalisation differ.",
    noisy=lambda model, wanted: noisy_frozen(model, wanted, all_kinds=True),
)  # fmt: skip
freeze_mistake(
    "first_finding_only", "Your audit stops at its first finding.", "Collect them all.", keep=lambda found: found[:1]
)

GROUP = "Group the names by the memory of their tensors, then ask each group what should train."

freeze_mistake(
    "tied_names_unseen", "Your audit sees one name of a tied parameter.", "`remove_duplicate=False` gives them all.",
    named=lambda model: dict(model.named_parameters()),
)  # fmt: skip
freeze_mistake(
    "tied_conflict_ignored", "Your audit doesn't see conflicting intentions for one tensor.", GROUP,
    clash=lambda names, wanted: False,
)  # fmt: skip
freeze_mistake(
    "shared_storage_ignored", "Your audit doesn't see that two parameters share memory.",
    "Compare `untyped_storage().data_ptr()`, not identity.", key=id,
)  # fmt: skip
freeze_mistake(
    "any_sharing_flagged", "Your audit reports a tied tensor on which all names agree.", GROUP,
    clash=lambda names, wanted: True,
)  # fmt: skip
freeze_mistake(
    "conflict_counted_twice", "Your audit gives a conflict a second code.", "A name in a conflict gets no other code.",
    alone=False,
)  # fmt: skip
freeze_mistake(
    "conflict_for_one_name", "Your audit reports a conflict for one of the names.", "Report every name.",
    keep=lambda found: [f for f in found if f[0] != "SHARED_TENSOR_CONFLICT" or f[1].startswith(("embed", "policy"))],
)  # fmt: skip

MEMBERS = "Collect the members of all groups by identity."

freeze_mistake(
    "members_by_value", "Your audit takes equal numbers for the same parameter: another model's copy passes.", MEMBERS,
    member=lambda p, held: max(
        sum(p is other for other in held),
        int(any(p.shape == other.shape and bool((p == other).all()) for other in held)),
    ),
)  # fmt: skip
freeze_mistake(
    "optimizer_ignored", "Your audit doesn't look into the optimizer.", MEMBERS,
    drop=["NOT_IN_OPTIMIZER", "FROZEN_IN_OPTIMIZER", "DUPLICATE_IN_OPTIMIZER"],
)  # fmt: skip
freeze_mistake(
    "only_first_group", "Your audit looks at the optimizer's first group.", MEMBERS,
    held=lambda optimizer: optimizer.param_groups[0]["params"],
)  # fmt: skip
freeze_mistake(
    "duplicates_ignored", "Your audit doesn't see a parameter that is there twice.", "Count the members.",
    drop=["DUPLICATE_IN_OPTIMIZER"],
)  # fmt: skip
freeze_mistake(
    "frozen_in_optimizer_ignored", "Your audit doesn't see a frozen parameter in the optimizer.", SETS,
    drop=["FROZEN_IN_OPTIMIZER"],
)  # fmt: skip
freeze_mistake(
    "missing_from_optimizer_ignored", "Your audit doesn't see a trainable parameter that the optimizer lacks.", SETS,
    drop=["NOT_IN_OPTIMIZER"],
)  # fmt: skip
freeze_mistake(
    "intentions_in_optimizer", "Your audit compares the optimizer with what should train, not with what does.",
    "`NOT_IN_OPTIMIZER` is about parameters that require a gradient.", should_be_held=lambda trains, wanted: wanted,
)  # fmt: skip


def step_mistake(
    name: str, says: str, next_step: str, *,
    drop: Sequence[str] = (), steps: int = 1, zero: bool = True, guarded: bool = True, early: bool = False,
    copied: Callable[[Tensor], Tensor] = lambda value: value.detach().clone(),
    moved: Callable[[Tensor, Tensor], bool] = lambda value, old: not torch.equal(value.detach(), old),
    absent: Callable[[Tensor], bool] = lambda p: p.grad is None,
    buffers: Callable[[Module], bool] = lambda module: module_frozen(module),
    rest: Callable[[set[str], set[str]], bool] = lambda changed, trainable: not changed & trainable,
) -> None:  # fmt: skip
    """Register a wrong audit of a step: each argument changes one thing of the right one."""

    def watched(model: Module) -> dict[str, Tensor]:
        values: dict[str, Tensor] = dict(model.named_parameters())
        for prefix, module in model.named_modules():
            if buffers(module):
                values |= dict(module.named_buffers(prefix=prefix, recurse=False))
        return values

    def function(model: Module, optimizer: Optimizer, loss_fn: LossFn) -> Found:
        before = {name: copied(value) for name, value in watched(model).items()}
        parameters = dict(model.named_parameters())
        trainable = {name for name, p in parameters.items() if p.requires_grad}
        if zero:
            optimizer.zero_grad()
        missing = [name for name in parameters if name in trainable and absent(parameters[name])]
        loss = loss_fn(model)
        if loss.requires_grad or not guarded:
            loss.backward()
        if not early:
            missing = [name for name in parameters if name in trainable and absent(parameters[name])]
        for _ in range(steps):
            optimizer.step()
        changed = {name for name, value in watched(model).items() if moved(value, before[name])}
        found: Found = [("NO_GRAD", name) for name in missing]
        found += [("FROZEN_CHANGED", name) for name in before if name in changed and name not in trainable]
        found += [("NOTHING_MOVED", "model")] if rest(changed, trainable) else []
        return [finding for finding in found if finding[0] not in drop]

    problem.mistake(name=name, replaces="audit_step", says=says, next_step=next_step)(function)


def module_frozen(module: Module) -> bool:
    own = list(module.parameters(recurse=False))
    return bool(own) and not any(p.requires_grad for p in own)


LINES = "Write the lines of a training step: zero_grad, loss, backward, step."

step_mistake(
    "no_grad_ignored", "Your audit doesn't see a parameter that got no gradient.", "After backward, ask for None.",
    drop=["NO_GRAD"],
)  # fmt: skip
step_mistake(
    "zero_gradient_is_none", "Your audit takes a gradient of zeros for none.",
    "With B = 0 the gradient of A is zero, and A is part of the graph.",
    absent=lambda p: p.grad is None or not bool(p.grad.any()),
)  # fmt: skip
step_mistake("asked_before_backward", "Your audit asks for gradients before the backward pass.", LINES, early=True)
step_mistake(
    "frozen_drift_allclose", "Your audit doesn't see small changes of a frozen parameter.",
    "Compare bits: `torch.equal`.",
    moved=lambda value, old: not torch.allclose(value.detach(), old, rtol=1e-4, atol=1e-5),
)  # fmt: skip
step_mistake(
    "snapshot_without_clone", "Your snapshot is the parameter itself, so nothing ever changed.",
    "Clone before the step.",
    copied=lambda value: value.detach(),
)  # fmt: skip
step_mistake("no_step_taken", "Your audit takes no step.", LINES, steps=0)
step_mistake("two_steps_taken", "Your audit takes two steps.", LINES, steps=2)
step_mistake(
    "old_gradients_kept",
    "Your step adds to gradients of a step before.",
    "Call `optimizer.zero_grad()` first.",
    zero=False,
)
step_mistake(
    "frozen_unwatched", "Your audit doesn't see that something frozen changed.", "Snapshot every parameter.",
    drop=["FROZEN_CHANGED"],
)  # fmt: skip
step_mistake(
    "buffers_unwatched", "Your audit doesn't watch buffers of frozen modules.",
    "A running mean moves without an optimizer.",
    buffers=lambda module: False,
)  # fmt: skip
step_mistake(
    "every_buffer_watched", "Your audit reports buffers of modules that train.",
    "A trained norm's running mean may move.",
    buffers=lambda module: True,
)  # fmt: skip
step_mistake(
    "frozen_movement_counts", "Your audit takes a change of something frozen for progress.",
    "Only trainable parameters count for `NOTHING_MOVED`.", rest=lambda changed, trainable: not changed,
)  # fmt: skip
step_mistake(
    "standstill_ignored", "Your audit doesn't see that nothing moved.", "Compare the trainable parameters too.",
    drop=["NOTHING_MOVED"],
)  # fmt: skip
step_mistake(
    "all_must_move", "Your audit reports a standstill as soon as one parameter stays.",
    "`NOTHING_MOVED` means none moved.",
    rest=lambda changed, trainable: bool(trainable - changed) or not trainable,
)  # fmt: skip
step_mistake(
    "backward_unguarded", "With everything frozen your backward pass raises an error.",
    "A loss that requires no gradient has no backward pass.", guarded=False,
)  # fmt: skip


def mask_mistake(
    name: str, says: str, next_step: str, *,
    drop: Sequence[str] = (),
    real_of: Callable[[Tensor, Tensor], Tensor] = lambda ids, real: real,
    prompt_of: Callable[[Tensor, int], Tensor] = lambda real, length: real & (real.cumsum(0) <= length),
    wrong_label: Callable[[Tensor, Tensor, Tensor, Tensor], bool] = (
        lambda ids, labels, labelled, real: bool((labelled & (labels != ids)).any())
    ),
    is_labelled: Callable[[Tensor], Tensor] = lambda labels: labels != MASKED,
    excused: bool = True, eos_apart: bool = True, end_known: bool = True,
    keep: Callable[[Rows], Rows] = lambda found: found,
    empty: Callable[[bool, bool], bool] = lambda answers, labelled: not labelled,
) -> None:  # fmt: skip
    """Register a wrong audit of masks: each argument changes one thing of the right one."""

    def codes(ids: Tensor, labels: Tensor, real: Tensor, length: int, eos_id: int) -> list[str]:
        real = real_of(ids, real)
        prompt = prompt_of(real, length)
        answer, labelled = real & ~prompt, is_labelled(labels)
        target = bool((labelled & answer).any())
        places = answer.nonzero().flatten()
        ends = bool(len(places)) and (not end_known or int(ids[places[-1]]) == eos_id)
        inner = places[:-1] if ends and eos_apart else places
        silent = excused and not target
        found = {
            "PROMPT_UNMASKED": bool((labelled & prompt).any()),
            "PAD_UNMASKED": bool((labelled & ~real).any()),
            "LABEL_MISMATCH": wrong_label(ids, labels, labelled, real),
            "NO_ANSWER": empty(bool(len(places)), target),
            "ANSWER_MASKED": bool(len(places)) and not silent and not bool(labelled[inner].all()),
            "EOS_MASKED": ends and eos_apart and not silent and not bool(labelled[places[-1]]),
            "NO_EOS": bool(len(places)) and not ends,
        }
        return [code for code, stands in found.items() if stands and code not in drop]

    def function(
        input_ids: Tensor, labels: Tensor, attention_mask: Tensor, prompt_lens: Sequence[int], eos_id: int
    ) -> Rows:
        if not input_ids.shape == labels.shape == attention_mask.shape or len(prompt_lens) != len(input_ids):
            raise ValueError("shape")
        rows = zip(input_ids, labels, attention_mask != 0, prompt_lens, strict=True)
        return keep([(code, row) for row, parts in enumerate(rows) for code in codes(*parts, eos_id)])

    problem.mistake(name=name, replaces="audit_masks", says=says, next_step=next_step)(function)


THREE = "For one row, write three masks: padding, prompt, answer. Every finding is about one of them."


def first_positions(real: Tensor, length: int) -> Tensor:
    return real & (torch.arange(len(real)) < length)


mask_mistake(
    "pad_by_token_id", "Your audit tells padding by its id; EOS may have the same.",
    "Only `attention_mask` tells padding.",
    real_of=lambda ids, real: real & (ids != EOS),
)  # fmt: skip
mask_mistake(
    "right_padding_assumed", "Your prompt begins at column 0, where left padding stands.", "Count real tokens.",
    prompt_of=first_positions,
)  # fmt: skip
mask_mistake(
    "prompt_one_short", "Your prompt is one token shorter than it is.", THREE,
    prompt_of=lambda real, length: real & (real.cumsum(0) < length),
)  # fmt: skip
mask_mistake(
    "prompt_one_long", "Your prompt is one token longer than it is.", THREE,
    prompt_of=lambda real, length: real & (real.cumsum(0) <= length + 1),
)  # fmt: skip
mask_mistake("prompt_not_checked", "Your audit doesn't see prompt tokens with labels.", THREE, drop=["PROMPT_UNMASKED"])
mask_mistake("pad_not_checked", "Your audit doesn't see padding with labels.", THREE, drop=["PAD_UNMASKED"])
mask_mistake("answer_not_checked", "Your audit doesn't see a masked answer token.", THREE, drop=["ANSWER_MASKED"])
mask_mistake(
    "eos_not_distinguished", "Your audit takes a masked EOS for any masked answer token.",
    "The last answer token has a code of its own if it's an EOS.", eos_apart=False,
)  # fmt: skip
mask_mistake("eos_mask_not_checked", "Your audit doesn't see a masked EOS.", THREE, drop=["EOS_MASKED"])
mask_mistake(
    "only_legal_ids_checked", "Your audit only sees labels that are no ids at all.",
    "A label is the id at its own position.",
    wrong_label=lambda ids, labels, labelled, real: bool((labelled & (labels < 0)).any()),
)  # fmt: skip
mask_mistake(
    "label_values_unchecked", "Your audit doesn't compare labels with ids.", "A label is the id at its own position.",
    drop=["LABEL_MISMATCH"],
)  # fmt: skip
mask_mistake(
    "labels_expected_shifted", "Your audit expects labels that are shifted by one.",
    "A label is the id at its own position.",
    wrong_label=lambda ids, labels, labelled, real: bool((labelled[:-1] & (labels[:-1] != ids[1:])).any()),
)  # fmt: skip
mask_mistake(
    "negative_is_masked", "Your audit takes every negative label for masked.", "Only -100 means that.",
    is_labelled=lambda labels: labels >= 0,
)  # fmt: skip
mask_mistake(
    "empty_answer_unseen", "Your audit passes a row that has no answer token at all.", "No target is no target.",
    empty=lambda answers, labelled: answers and not labelled,
)  # fmt: skip
mask_mistake("no_answer_ignored", "Your audit doesn't see a row without a target.", THREE, drop=["NO_ANSWER"])
mask_mistake(
    "no_answer_counted_twice", "Your audit gives a row without a target further codes.",
    "Where `NO_ANSWER` is, masked tokens need no code.", excused=False,
)  # fmt: skip
mask_mistake(
    "last_token_is_eos", "Your audit takes the last answer token for EOS, whatever it is.", "Compare it with `eos_id`.",
    end_known=False,
)  # fmt: skip
mask_mistake("eos_presence_unchecked", "Your audit doesn't see an answer without EOS.", THREE, drop=["NO_EOS"])
mask_mistake(
    "first_row_only", "Your audit looks at the first row.", "Go over all rows.",
    keep=lambda found: [finding for finding in found if finding[1] == 0],
)  # fmt: skip
mask_mistake(
    "one_finding_a_row", "Your audit stops at a row's first finding.", "Collect them all.",
    keep=lambda found: [f for i, f in enumerate(found) if not any(g[1] == f[1] for g in found[:i])],
)  # fmt: skip


@problem.mistake(
    replaces="audit_masks", says="Your audit looks at no shapes.", next_step="Compare the three tensors' shapes first."
)
def shapes_unchecked(
    input_ids: Tensor, labels: Tensor, attention_mask: Tensor, prompt_lens: Sequence[int], eos_id: int
) -> Rows:
    width = min(input_ids.shape[1], labels.shape[1])
    found: Rows = []
    for row, length in enumerate(prompt_lens):
        ids, label, real = (part[row, :width] for part in (input_ids, labels, attention_mask != 0))
        prompt = real & (real.cumsum(0) <= length)
        answer, labelled = real & ~prompt, label != MASKED
        places = answer.nonzero().flatten()
        target, ends = bool((labelled & answer).any()), bool(len(places)) and int(ids[places[-1]]) == eos_id
        inner = places[:-1] if ends else places
        found += [("PROMPT_UNMASKED", row)] if bool((labelled & prompt).any()) else []
        found += [("PAD_UNMASKED", row)] if bool((labelled & ~real).any()) else []
        found += [("LABEL_MISMATCH", row)] if bool((labelled & (label != ids)).any()) else []
        found += [("NO_ANSWER", row)] if not target else []
        found += [("ANSWER_MASKED", row)] if target and not bool(labelled[inner].all()) else []
        found += [("EOS_MASKED", row)] if target and ends and not bool(labelled[places[-1]]) else []
        found += [("NO_EOS", row)] if len(places) and not ends else []
    return found


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "audit_freeze: sorted(*": "findings have no order; sorting is for the reader",
    "audit_step: value.detach()* -> value": "a comparison of numbers needs no graph to be cut",
    "row_findings: 0 -> -1": "a row has one axis: -1 is 0",
})  # fmt: skip
