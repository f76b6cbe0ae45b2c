"""How audits are judged: by planting faults in models, optimizers and batches that are built at the other end."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
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
    return spec | {"tied": False, "pair": False} | sizes | {"faults": list(zip(faults, places, strict=True))} | more


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


ASKED = {"count": "count_parameters", "freeze": "audit_freeze", "optimizer": "audit_freeze", "step": "audit_step"}
"""The function that each kind of set-up is for."""


def asked(rng: Rng, words: str, asks: str, faults: Sequence[str] = (), **more: Any) -> Case:
    return Case(words, call(ASKED[asks], spec_of(rng, asks, faults, **more), build=BUILD))


@problem.check(
    "count", points=1, of="count_parameters", title="counting", same=same_count,
    concerns=["a tied head", "buffers", "a part frozen"],
    next_step="Say for a tied head, and for a buffer, whether it's a parameter more.",
)  # fmt: skip
def count(rng: Rng) -> Iterator[AnyCase]:
    yield asked(rng, "a tied head", "count", tied=True)
    yield asked(rng, "buffers", "count", ["running mean moves"], patterns=["head.*", "*.A"])


@problem.check(
    "freeze", points=2, of="audit_freeze", title="what trains", same=same_audit,
    concerns=["planted faults", "globs", "set-ups without a fault", "parts in training mode"],
    next_step="Compare two sets of names, in both directions; then look at each pattern.",
)  # fmt: skip
def freeze(rng: Rng) -> Iterator[AnyCase]:
    clean = ["dropout in a trained part", "dropout of its own"]
    yield asked(rng, "nothing wrong, dropout in a trained part", "freeze", clean)
    extra = ["extra trainable", "norm left on", "flag set as an attribute", "gradient zeroed instead"]
    yield asked(rng, "what shouldn't train does", "freeze", extra)
    yield asked(rng, "a factor frozen", "freeze", ["one factor frozen"])
    whole = ["blocks.1.*", "blocks.?.norm.weight", "head.*", "head.weight"]
    yield asked(rng, "one block of eleven", "freeze", blocks=11, patterns=whole)
    missing = ["blocks.0.up.[AB]", "blocks.1.up.[AB]"]
    yield asked(rng, "factors missing", "freeze", ["factors missing"], patterns=missing)
    policy = {"pair": True, "patterns": ["policy.*.A", "policy.*.B"]}
    calm = ["reference with its dropout off", "reference with a dropout of zero"]
    noisy = ["reference trainable", "reference in train mode", "reference with a running mean", *calm]
    yield asked(rng, "a reference that trains, and one in training mode", "freeze", noisy, **policy)
    yield asked(rng, "a reference as it should be", "freeze", calm, **policy)


@problem.check(
    "tied", points=1, of="audit_freeze", title="shared tensors", same=same_audit,
    concerns=["a tied head", "two parameters over one memory", "a reference that is the policy"],
    next_step="Group the names by the memory of their tensors, then ask each group what should train.",
)  # fmt: skip
def tied(rng: Rng) -> Iterator[AnyCase]:
    yield asked(rng, "a tied head, frozen", "freeze", tied=True)
    yield asked(rng, "a tied head, trained", "freeze", tied=True, patterns=["embed.*", "head.*"])
    half = [*FACTORS, str(rng.choice(["head.*", "embed.*"]))]
    shared = ["memory shared"]
    yield asked(rng, "a tied head, half frozen; memory shared", "freeze", shared, tied=True, patterns=half)
    policy = ["policy.*.A", "policy.*.B"]
    half, noisy = [*policy, "reference.head.*"], ["reference in train mode"]
    yield asked(rng, "a reference, half trained by its tie", "freeze", noisy, patterns=half, pair=True, tied=True)
    alias = ["reference is the policy"]
    yield asked(rng, "a reference that is the policy", "freeze", alias, patterns=policy, pair=True)


@problem.check(
    "opt", points=2, of="audit_freeze", title="what the optimizer holds", same=same_audit,
    concerns=["several groups", "an optimizer of another model", "frozen and repeated members", "a tied head"],
    next_step="Collect the members of all groups by identity, and compare them with the trainable parameters.",
)  # fmt: skip
def opt(rng: Rng) -> Iterator[AnyCase]:
    trained = ["embed.*", "head.*", "*.B"]
    yield asked(rng, "two groups, a tied head, nothing wrong", "optimizer", tied=True, patterns=trained)
    wrong = ["left out of the optimizer", "frozen in the optimizer", "twice in the optimizer"]
    yield asked(rng, "members missing, frozen and repeated", "optimizer", wrong)
    yield asked(rng, "a group forgotten", "optimizer", ["second group forgotten"])
    yield asked(rng, "an optimizer of another model", "optimizer", ["optimizer of a copy"])
    flags = ["norm left on", "one factor frozen"]
    yield asked(rng, "flags that were set before", "optimizer", flags)


@problem.check(
    "step", points=2, of="audit_step", title="what moves", same=same_audit,
    concerns=["planted faults", "zero gradients", "buffers", "exactly one clean step"],
    next_step="Write the five lines of a training step, and keep a copy of everything from before it.",
)  # fmt: skip
def step(rng: Rng) -> Iterator[AnyCase]:
    norms = [*FACTORS, "*.norm.weight"]
    means = ["running mean of a trained norm", "running mean of a norm without parameters"]
    moving = [*means, "left out of the optimizer"]
    yield asked(rng, "nothing wrong, a trained norm", "step", moving, patterns=norms)
    yield asked(rng, "an unused module and a drift", "step", ["unused module", "frozen weight drifts"])
    silent = ["running mean moves", "memory shared", "frozen norm counts"]
    yield asked(rng, "a running mean and shared memory", "step", silent)
    yield asked(rng, "a rate of zero and a drift", "step", ["rate of zero", "frozen weight drifts"])
    yield asked(rng, "an optimizer of another model", "step", ["optimizer of a copy"])
    yield asked(rng, "everything frozen", "step", ["everything frozen"])


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

# Texts of the reference that stand more than once below.
PARAMETERS, TOTAL = "model.parameters()", "total = sum(size for size, _ in sizes)"
MATCH, TRAINS, MEMBER = "fnmatchcase(name, pattern)", "parameter.requires_grad", "held[id(parameter)]"
TOO_FEW, TOO_MANY = "wanted - trains - conflict", "trains - wanted - conflict"
FROZEN = "own and not any(parameter.requires_grad for parameter in own)"
GRAD, ALIVE, STEP = "parameters[name].grad is None", "changed & trainable", "optimizer.step()"
BACKWARD = "if loss.requires_grad:\n        loss.backward()"
PROMPT, VALUES, EOS_MASKED = "real.cumsum(0) <= prompt_len", "(labels != ids)", "ends and not bool(labelled[last])"

SETS = "Compare two sets of names, in both directions."
GLOBS = "Use `fnmatch.fnmatchcase(name, pattern)`."
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

    ("substring_match", "audit_freeze", {MATCH: 'pattern.replace("*", "") in name'},
     "Your patterns match any name that they stand in.", GLOBS),
    ("prefix_match", "audit_freeze", {MATCH: 'fnmatchcase(name, pattern.replace(".*", "*"))'},
     "Your patterns match names that begin like them: block 1, and block 10.", GLOBS),
    ("exact_match", "audit_freeze", {MATCH: "name == pattern"}, "Your patterns match nothing but themselves.", GLOBS),
    ("regular_expression", "audit_freeze",
     {"named = ": "import re\n\n    named = ", MATCH: 're.search(pattern.replace("*", ".*"), name)'},
     "Your patterns are read as regular expressions.", GLOBS),
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
    ("every_module_in_train_mode", "noisy_frozen", {" and (dropout or batch_norm)": ""},
     "Your audit reports modules that behave alike in both modes.", "Only dropout and batch normalisation differ."),
    ("first_finding_only", "audit_freeze", {"return findings": "return findings[:1]"},
     "Your audit stops at its first finding.", "Collect them all."),

    ("tied_names_unseen", "audit_freeze", {"remove_duplicate=False": ""},
     "Your audit sees one name of a tied parameter.", "`remove_duplicate=False` gives them all."),
    ("tied_conflict_ignored", "audit_freeze", {"conflicting(named, wanted)": "set()"},
     "Your audit doesn't see conflicting intentions for one tensor.", GROUP),
    ("shared_storage_ignored", "conflicting", {"parameter.untyped_storage().data_ptr()": "id(parameter)"},
     "Your audit doesn't see that two parameters share memory.",
     "Compare `untyped_storage().data_ptr()`, not identity."),
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
    ("duplicates_ignored", "audit_freeze", {"times[name] > 1": "False"},
     "Your audit doesn't see a parameter that is there twice.", "Count the members."),
    ("frozen_in_optimizer_ignored", "audit_freeze", {"named.keys() - trains": "()"},
     "Your audit doesn't see a frozen parameter in the optimizer.", SETS),
    ("missing_from_optimizer_ignored", "audit_freeze", {"sorted(trains)": "()"},
     "Your audit doesn't see a trainable parameter that the optimizer lacks.", SETS),
    ("intentions_in_optimizer", "audit_freeze",
     {"sorted(trains)": "sorted(wanted)", "named.keys() - trains": "named.keys() - wanted"},
     "Your audit compares the optimizer with what should train, not with what does.",
     "`NOT_IN_OPTIMIZER` is about parameters that require a gradient."),

    ("no_grad_ignored", "audit_step", {"*no_grad, ": ""},
     "Your audit doesn't see a parameter that got no gradient.", "After backward, ask for None."),
    ("zero_gradient_is_none", "audit_step", {GRAD: f"({GRAD} or not parameters[name].grad.any())"},
     "Your audit takes a gradient of zeros for none.",
     "With B = 0 the gradient of A is zero, and A is part of the graph."),
    ("asked_before_backward", "audit_step", {BACKWARD: "", STEP: f"{BACKWARD}\n    {STEP}"},
     "Your audit asks for gradients before the backward pass.", LINES),
    ("frozen_drift_allclose", "audit_step", {"torch.equal": "torch.allclose"},
     "Your audit doesn't see small changes of a frozen parameter.", "Compare bits: `torch.equal`."),
    ("snapshot_without_clone", "audit_step", {".clone()": ""},
     "Your snapshot is the parameter itself, so nothing ever changed.", "Clone before the step."),
    ("no_step_taken", "audit_step", {STEP: ""}, "Your audit takes no step.", LINES),
    ("two_steps_taken", "audit_step", {STEP: f"{STEP}\n    {STEP}"}, "Your audit takes two steps.", LINES),
    ("old_gradients_kept", "audit_step", {"optimizer.zero_grad()": ""},
     "Your step adds to gradients of a step before.", "Call `optimizer.zero_grad()` first."),
    ("frozen_unwatched", "audit_step", {"*frozen, ": ""},
     "Your audit doesn't see that something frozen changed.", "Snapshot every parameter."),
    ("buffers_unwatched", "watched", {FROZEN: "False"},
     "Your audit doesn't watch buffers of frozen modules.", "A running mean moves without an optimizer."),
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
    ("shapes_unchecked", "audit_masks",
     {"not input_ids.shape == labels.shape == attention_mask.shape": "False",
      "len(prompt_lens) != len(input_ids)": "False", "strict=True": "strict=False"},
     "Your audit looks at no shapes.", "Compare the three tensors' shapes first."),
):  # fmt: skip
    problem.slip(name, of, edits, says=says, next_step=next_step)


# ------------------------------------------------------------------------------------------- mutants that are none

problem.equivalent.update({
    "audit_freeze: sorted(*": "findings have no order; sorting is for the reader",
    "audit_step: value.detach()* -> value": "a comparison of numbers needs no graph to be cut",
    "row_findings: 0 -> -1": "a row has one axis: -1 is 0",
})  # fmt: skip
