"""Before GPU hours are spent: what trains, what the optimizer holds, what moved, what is masked, what stays the base.

An audit returns findings, pairs of a code and a place; an empty list means that nothing is wrong.
"""

from collections.abc import Callable, Iterable, Sequence
from fnmatch import fnmatchcase

import torch
from torch import Tensor, nn

from ftmath.lora import disabled, merge, unmerge

Findings = list[tuple[str, str]]


def count_parameters(model: nn.Module) -> dict[str, int]:
    """Return how many numbers are parameters: `total`, `trainable` and `frozen`; a tied tensor counts once.

    >>> count_parameters(nn.Linear(3, 2).requires_grad_(False))
    {'total': 8, 'trainable': 0, 'frozen': 8}
    """
    counts = {True: 0, False: 0}
    for parameter in model.parameters():
        counts[parameter.requires_grad] += parameter.numel()
    return {"total": counts[True] + counts[False], "trainable": counts[True], "frozen": counts[False]}


def audit_freeze(model: nn.Module, patterns: Sequence[str]) -> Findings:
    """Return where `requires_grad` isn't what the patterns (globs over whole names) say.

    Codes: PATTERN_MATCHES_NOTHING; SHARED_TENSOR_CONFLICT for names of one memory that should differ;
    UNEXPECTED_TRAINABLE; UNEXPECTED_FROZEN.

    >>> audit_freeze(nn.Linear(3, 2), ["bias", "scale"])
    [('PATTERN_MATCHES_NOTHING', 'scale'), ('UNEXPECTED_TRAINABLE', 'weight')]
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    should = {name: any(fnmatchcase(name, pattern) for pattern in patterns) for name in named}
    by_memory: dict[int, list[str]] = {}
    for name, parameter in named.items():
        by_memory.setdefault(parameter.untyped_storage().data_ptr(), []).append(name)
    torn = {name for names in by_memory.values() if len({should[name] for name in names}) == 2 for name in names}
    idle = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in named)]
    found = [("PATTERN_MATCHES_NOTHING", pattern) for pattern in idle]
    for name, parameter in named.items():
        if name in torn:
            found.append(("SHARED_TENSOR_CONFLICT", name))
        elif parameter.requires_grad != should[name]:
            found.append(("UNEXPECTED_TRAINABLE" if parameter.requires_grad else "UNEXPECTED_FROZEN", name))
    return found


def audit_groups(model: nn.Module, optimizer: torch.optim.Optimizer) -> Findings:
    """Return where the optimizer's groups aren't the trained parameters, each once.

    Codes: NOT_IN_OPTIMIZER, FROZEN_IN_OPTIMIZER, DUPLICATE_IN_OPTIMIZER; STRANGER_IN_OPTIMIZER, with the number of
    the group, for a parameter that isn't the model's (an optimizer built before the layers were replaced).

    >>> layer = nn.Linear(3, 2)
    >>> audit_groups(layer, torch.optim.SGD([layer.weight], lr=0.1))
    [('NOT_IN_OPTIMIZER', 'bias')]
    """
    held: dict[int, int] = {}
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            held[id(parameter)] = held.get(id(parameter), 0) + 1
    found: Findings = []
    for name, parameter in model.named_parameters(remove_duplicate=False):
        times = held.get(id(parameter), 0)
        if parameter.requires_grad and not times:
            found.append(("NOT_IN_OPTIMIZER", name))
        if times and not parameter.requires_grad:
            found.append(("FROZEN_IN_OPTIMIZER", name))
        if times > 1:
            found.append(("DUPLICATE_IN_OPTIMIZER", name))
    own = {id(parameter) for parameter in model.parameters()}
    for number, group in enumerate(optimizer.param_groups):
        if any(id(parameter) not in own for parameter in group["params"]):
            found.append(("STRANGER_IN_OPTIMIZER", f"group {number}"))
    return found


def audit_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, loss: Callable[[nn.Module], Tensor]
) -> Findings:  # fmt: skip
    """Take one real step and return what didn't do as it should: the model is one step on afterwards.

    Codes: NO_GRAD for a trained parameter that the loss doesn't reach (a gradient of zeros is one), FROZEN_CHANGED for
    a frozen one of which any bit moved, NOTHING_MOVED.

    >>> layer = nn.Linear(2, 1)
    >>> audit_step(layer, torch.optim.SGD(layer.parameters(), lr=0.1), lambda model: model.weight.sum())
    [('NO_GRAD', 'bias')]
    """
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer.zero_grad()
    value = loss(model)
    if value.requires_grad:
        value.backward()
    trained = {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}
    found = [("NO_GRAD", name) for name, parameter in trained.items() if parameter.grad is None]
    optimizer.step()
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    found += [("FROZEN_CHANGED", name) for name in before if name in moved and name not in trained]
    return found if moved & trained.keys() else [*found, ("NOTHING_MOVED", "model")]


def audit_masks(
    ids: Tensor, labels: Tensor, attention_mask: Tensor, prompt_lengths: Sequence[int], eos: int
) -> Findings:  # fmt: skip
    """Return what is wrong with the labels (batch, time) of a batch of prompts and answers, by row.

    Labels are not shifted and -100 where nothing is learned; padding, on either side, is what `attention_mask` says.
    Codes: PROMPT_UNMASKED, PAD_UNMASKED, LABEL_MISMATCH, NO_ANSWER, ANSWER_MASKED, EOS_MASKED, NO_EOS.

    >>> ids = torch.tensor([[5, 6, 7, 2]])
    >>> audit_masks(ids, torch.tensor([[5, -100, 7, -100]]), torch.ones(1, 4), [2], eos=2)
    [('PROMPT_UNMASKED', 'row 0'), ('EOS_MASKED', 'row 0')]
    """
    if not ids.shape == labels.shape == attention_mask.shape or len(prompt_lengths) != len(ids):
        raise ValueError(f"ids, labels and attention_mask must have one shape, got {tuple(ids.shape)}, "
                         f"{tuple(labels.shape)}, {tuple(attention_mask.shape)}")  # fmt: skip
    found: Findings = []
    for row, length in enumerate(prompt_lengths):
        real = attention_mask[row] != 0
        line, learned = ids[row, real], labels[row, real]
        answer, kept = line[length:], learned[length:] != -100
        wrong = {
            "PROMPT_UNMASKED": bool((learned[:length] != -100).any()),
            "PAD_UNMASKED": bool((labels[row, ~real] != -100).any()),
            "LABEL_MISMATCH": bool(((labels[row] != -100) & (labels[row] != ids[row])).any()),
            "NO_ANSWER": not bool(kept.any()),
        }
        ends = len(answer) > 0 and int(answer[-1]) == eos
        if bool(kept.any()):
            wrong["ANSWER_MASKED"] = not bool((kept[:-1] if ends else kept).all())
            wrong["EOS_MASKED"] = ends and not bool(kept[-1])
        wrong["NO_EOS"] = len(answer) > 0 and not ends
        found += [(code, f"row {row}") for code, is_so in wrong.items() if is_so]
    return found


def audit_reference(reference: nn.Module, policy: nn.Module) -> Findings:
    """Return what keeps a module from being a fixed reference: what trains in it, what is random, what it shares.

    Codes: REFERENCE_TRAINS, REFERENCE_IN_TRAIN_MODE for a dropout or batch normalisation that is on, SHARED_WITH_POLICY
    for memory that the policy trains (a reference that is the policy itself: the loss stays log 2 for ever).

    >>> layer = nn.Linear(2, 1)
    >>> audit_reference(layer.requires_grad_(False), layer)
    []
    >>> audit_reference(layer.requires_grad_(True), layer)[0]
    ('REFERENCE_TRAINS', 'weight')
    """
    found = [("REFERENCE_TRAINS", name) for name, parameter in reference.named_parameters() if parameter.requires_grad]
    for name, module in reference.named_modules():
        if module.training and (getattr(module, "p", 0) > 0 or hasattr(module, "running_mean")):
            found.append(("REFERENCE_IN_TRAIN_MODE", name))
    trained = memory(parameter for parameter in policy.parameters() if parameter.requires_grad)
    shared = [name for name, parameter in reference.named_parameters() if memory([parameter]) & trained]
    return found + [("SHARED_WITH_POLICY", name) for name in shared]


def memory(tensors: Iterable[Tensor]) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors}


@torch.no_grad()
def merge_difference(model: nn.Module, logits: Callable[[nn.Module], Tensor]) -> float:
    """Return the most that merging the LoRA layers moves any logit; the model is as before afterwards.

    >>> from ftmath.lora import LoRALinear
    >>> layer = nn.Sequential(LoRALinear(nn.Linear(4, 3), rank=2, alpha=2))
    >>> merge_difference(layer, lambda model: model(torch.ones(1, 4)))
    0.0
    """
    apart = logits(model)
    kept = merge(model)
    try:
        return float((logits(model) - apart).abs().max())
    finally:
        unmerge(model, kept)


@torch.no_grad()
def adapter_effect(model: nn.Module, logits: Callable[[nn.Module], Tensor]) -> float:
    """Return the most that switching the LoRA layers on moves any logit: 0 before training, more after it.

    >>> from ftmath.lora import LoRALinear
    >>> adapter_effect(nn.Sequential(LoRALinear(nn.Linear(4, 3), 2, 2)), lambda model: model(torch.ones(1, 4)))
    0.0
    """
    on = logits(model)
    with disabled(model):
        return float((on - logits(model)).abs().max())


__all__ = [
    "adapter_effect", "audit_freeze", "audit_groups", "audit_masks", "audit_reference", "audit_step",
    "count_parameters", "merge_difference",
]  # fmt: skip
