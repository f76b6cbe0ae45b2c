"""Audits of freezing and masking: contracts and references.

An audit returns findings; none of them raises for what it finds, and an empty list means that nothing is wrong.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

import torch

BATCH_NORMS = (torch.nn.BatchNorm1d, torch.nn.BatchNorm2d, torch.nn.BatchNorm3d)


def count_parameters(model: torch.nn.Module) -> dict[str, int]:
    """Return how many numbers the model holds in parameters: ints by the keys `total`, `trainable`, `frozen`.

    A parameter that has several names (a tied head) counts once. Two parameters over one memory are two. Buffers are
    not parameters.

    >>> model = torch.nn.Linear(3, 2)
    >>> model.bias.requires_grad_(False).shape
    torch.Size([2])
    >>> count_parameters(model)
    {'total': 8, 'trainable': 6, 'frozen': 2}

    Always: a tied head adds nothing.

    >>> model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.Linear(3, 2))
    >>> model[1].weight = model[0].weight
    >>> count_parameters(model)["total"]
    10
    """
    # parameters() gives each tensor once, whatever its names.
    sizes = [(parameter.numel(), parameter.requires_grad) for parameter in model.parameters()]
    trainable = sum(size for size, trains in sizes if trains)
    total = sum(size for size, _ in sizes)
    return {"total": total, "trainable": trainable, "frozen": total - trainable}


def audit_freeze(
    model: torch.nn.Module, trainable_patterns: Sequence[str], optimizer: torch.optim.Optimizer | None = None
) -> list[tuple[str, str]]:
    """Return the findings (code, name) about what trains, against what should train; each once, in any order.

    A parameter should train if its name matches one of `trainable_patterns`, which are globs for whole names as in
    `fnmatch.fnmatchcase`: `blocks.1.*` matches `blocks.1.up.A` and not `blocks.10.up.A`. A tied parameter has several
    names (`named_parameters(remove_duplicate=False)` gives them all); either all of them match or none, and a finding
    stands for each of them.

    - `PATTERN_MATCHES_NOTHING`, with the pattern for a name: no parameter's name matches it (once, if it stands
      there twice);
    - `SHARED_TENSOR_CONFLICT`, with each of their names: two parameters share memory (one `untyped_storage()`, perhaps
      other parts of it), and one should train while the other shouldn't. Names in a conflict get neither of the next
      two codes;
    - `UNEXPECTED_TRAINABLE`: it requires a gradient and should not train;
    - `UNEXPECTED_FROZEN`: it should train and requires no gradient;
    - `FROZEN_IN_TRAIN_MODE`, with a module's name: it is in training mode, and a `Dropout` with p > 0 or a
      `BatchNorm1d`, `BatchNorm2d` or `BatchNorm3d`, or of a subclass (`Dropout2d` is none, and nothing else with
      running means occurs). It is, or stands at any depth in, a direct child of the model that has parameters of which
      none should train (a reference model, a feature extractor).

    And with an optimizer, over all of its groups:

    - `NOT_IN_OPTIMIZER`: it requires a gradient and isn't there;
    - `FROZEN_IN_OPTIMIZER`: it requires no gradient and is there;
    - `DUPLICATE_IN_OPTIMIZER`: it's there more than once, in one group or in several.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1, bias=False))
    >>> sorted(audit_freeze(model, ["1.*"]))
    [('UNEXPECTED_TRAINABLE', '0.bias'), ('UNEXPECTED_TRAINABLE', '0.weight')]
    >>> model[0].requires_grad_(False)
    Linear(in_features=2, out_features=2, bias=True)
    >>> audit_freeze(model, ["1.*"], torch.optim.SGD([model[0].weight], lr=0.1))  # opt
    [('NOT_IN_OPTIMIZER', '1.weight'), ('FROZEN_IN_OPTIMIZER', '0.weight')]

    Always: a finding about a tied parameter stands for each of its names.

    >>> model = torch.nn.Sequential(torch.nn.Linear(2, 2, bias=False), torch.nn.Linear(2, 2, bias=False))
    >>> model[1].weight = model[0].weight
    >>> sorted(audit_freeze(model, []))  # tied
    [('UNEXPECTED_TRAINABLE', '0.weight'), ('UNEXPECTED_TRAINABLE', '1.weight')]
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    matches = {pattern: {name for name in named if fnmatchcase(name, pattern)} for pattern in trainable_patterns}
    wanted = set[str]().union(*matches.values())
    conflict = conflicting(named, wanted)
    trains = {name for name, parameter in named.items() if parameter.requires_grad}
    findings = [
        *(("PATTERN_MATCHES_NOTHING", pattern) for pattern, names in matches.items() if not names),
        *(("SHARED_TENSOR_CONFLICT", name) for name in sorted(conflict)),
        *(("UNEXPECTED_TRAINABLE", name) for name in sorted(trains - wanted - conflict)),
        *(("UNEXPECTED_FROZEN", name) for name in sorted(wanted - trains - conflict)),
        *(("FROZEN_IN_TRAIN_MODE", name) for name in noisy_frozen(model, wanted)),
    ]
    if optimizer is not None:
        held = Counter(id(parameter) for group in optimizer.param_groups for parameter in group["params"])
        times = {name: held[id(parameter)] for name, parameter in named.items()}
        findings += [
            *(("NOT_IN_OPTIMIZER", name) for name in sorted(trains) if not times[name]),
            *(("FROZEN_IN_OPTIMIZER", name) for name in sorted(named.keys() - trains) if times[name]),
            *(("DUPLICATE_IN_OPTIMIZER", name) for name in sorted(named) if times[name] > 1),
        ]
    return findings


def audit_step(
    model: torch.nn.Module, optimizer: torch.optim.Optimizer, loss_fn: Callable[[torch.nn.Module], torch.Tensor]
) -> list[tuple[str, str]]:
    """Run exactly one training step and return the findings (code, name) about what moved; each once, in any order.

    The step: clear old gradients of the model and of the optimizer's members (to None), call `loss_fn(model)` once,
    `backward()` if the loss requires a gradient (with everything frozen it doesn't), `optimizer.step()` once. A
    parameter counts as trainable if it requires a gradient. *Changed* means any bit, whatever the dtype: a NaN that
    stays has not changed, and a 0.0 that became -0.0 has. Names are those of `named_parameters()` and
    `named_buffers()`: a tied parameter has one.

    - `NO_GRAD`: trainable, and its gradient is None after the backward pass; a gradient of zeros is one;
    - `FROZEN_CHANGED`: a parameter that isn't trainable changed, or a buffer of a module that has parameters of its
      own, all of them frozen, did;
    - `NOTHING_MOVED`, with the name `model`: no trainable parameter changed.

    >>> model = torch.nn.Linear(2, 1, bias=False)
    >>> audit_step(model, torch.optim.SGD(model.parameters(), lr=0.1), lambda model: model(torch.ones(2)).sum())
    []
    >>> audit_step(model, torch.optim.SGD(model.parameters(), lr=0.0), lambda model: model(torch.ones(2)).sum())
    [('NOTHING_MOVED', 'model')]
    """
    before = {name: bits(value) for name, value in watched(model).items()}
    model.zero_grad()
    optimizer.zero_grad()
    loss = loss_fn(model)
    if loss.requires_grad:
        loss.backward()
    parameters = dict(model.named_parameters())
    trainable = {name for name, parameter in parameters.items() if parameter.requires_grad}
    no_grad = [("NO_GRAD", name) for name in parameters if name in trainable and parameters[name].grad is None]
    optimizer.step()
    changed = {name for name, value in watched(model).items() if not torch.equal(bits(value), before[name])}
    frozen = [("FROZEN_CHANGED", name) for name in before if name in changed and name not in trainable]
    still = [] if changed & trainable else [("NOTHING_MOVED", "model")]
    return [*no_grad, *frozen, *still]


def audit_masks(
    input_ids: torch.Tensor, labels: torch.Tensor, attention_mask: torch.Tensor, prompt_lens: Sequence[int], eos_id: int
) -> list[tuple[str, int]]:
    """Return the findings (code, row) about a batch of prompts with answers; each once, in any order.

    The three tensors are (batch, time); `attention_mask` is 1 for real tokens and 0 for padding, and only it tells
    padding, on either side: a padding id may equal `eos_id`. A row's first `prompt_lens[row]` real tokens are its
    prompt, the others its answer. `labels` are not shifted: at an answer token stands its id, everywhere else -100.

    - `PROMPT_UNMASKED`: a prompt token has a label other than -100;
    - `PAD_UNMASKED`: padding has one;
    - `LABEL_MISMATCH`: a label other than -100 isn't the id at its position;
    - `NO_ANSWER`: no answer token has a label other than -100, or there is no answer token (a row may be padding
      alone, and `prompt_lens[row]` may be all of its tokens or more);
    - `ANSWER_MASKED`: an answer token has the label -100, the last one being an EOS aside; not where `NO_ANSWER` is;
    - `EOS_MASKED`: the last answer token is an EOS and has the label -100; not where `NO_ANSWER` is;
    - `NO_EOS`: there are answer tokens, and the last one isn't `eos_id`.

    Errors: ValueError naming `shape` if the three tensors differ in shape or `prompt_lens` isn't one number a row.

    >>> ids = torch.tensor([[5, 6, 7, 2], [5, 8, 2, 2]])
    >>> labels = torch.tensor([[-100, -100, 7, -100], [-100, 8, 2, 2]])
    >>> audit_masks(ids, labels, torch.tensor([[1, 1, 1, 1], [1, 1, 1, 0]]), [2, 1], eos_id=2)
    [('EOS_MASKED', 0), ('PAD_UNMASKED', 1)]

    Always: a row without an answer is found, even if all of it is padding.

    >>> audit_masks(torch.tensor([[2, 2]]), torch.tensor([[-100, -100]]), torch.tensor([[0, 0]]), [1], eos_id=2)
    [('NO_ANSWER', 0)]
    """
    if not input_ids.shape == labels.shape == attention_mask.shape:
        shapes = [tuple(tensor.shape) for tensor in (input_ids, labels, attention_mask)]
        raise ValueError(f"shape: ids, labels and attention_mask must be (batch, time) alike, got {shapes}")
    if len(prompt_lens) != len(input_ids):
        raise ValueError(f"shape: {len(input_ids)} rows need as many prompt lengths, got {len(prompt_lens)}")
    rows = zip(input_ids, labels, attention_mask != 0, prompt_lens, strict=True)
    return [(code, row) for row, parts in enumerate(rows) for code in row_findings(*parts, eos_id)]


def row_findings(
    ids: torch.Tensor, labels: torch.Tensor, real: torch.Tensor, prompt_len: int, eos_id: int
) -> list[str]:
    """Return the codes of one row; every tensor is (time,)."""
    # Counting real tokens, not positions, places the prompt with left padding too.
    prompt = real & (real.cumsum(0) <= prompt_len)
    answer = real & ~prompt
    labelled = labels != -100
    found = {
        "PROMPT_UNMASKED": bool((labelled & prompt).any()),
        "PAD_UNMASKED": bool((labelled & ~real).any()),
        "LABEL_MISMATCH": bool((labelled & (labels != ids)).any()),
        "NO_ANSWER": not bool((labelled & answer).any()),
    }
    places = answer.nonzero().flatten()
    if len(places):
        last = int(places[-1])
        ends = int(ids[last]) == eos_id
        inner = places[:-1] if ends else places
        found["ANSWER_MASKED"] = not found["NO_ANSWER"] and not bool(labelled[inner].all())
        found["EOS_MASKED"] = not found["NO_ANSWER"] and ends and not bool(labelled[last])
        found["NO_EOS"] = not ends
    return [code for code, stands in found.items() if stands]


def conflicting(named: dict[str, torch.nn.Parameter], wanted: set[str]) -> set[str]:
    """Return the names whose memory is shared by a parameter that should train and one that shouldn't."""
    sharing: dict[int, set[str]] = defaultdict(set)
    for name, parameter in named.items():
        sharing[parameter.untyped_storage().data_ptr()].add(name)
    return {name for names in sharing.values() if names & wanted and names - wanted for name in names}


def noisy_frozen(model: torch.nn.Module, wanted: set[str]) -> list[str]:
    """Return the modules in training mode whose output is random or whose buffers move, in children meant frozen."""
    found: list[str] = []
    for child_name, child in model.named_children():
        names = {f"{child_name}.{name}" for name, _ in child.named_parameters()}
        if not names or names & wanted:
            continue
        for name, module in child.named_modules(prefix=child_name):
            dropout = isinstance(module, torch.nn.Dropout) and module.p > 0
            batch_norm = isinstance(module, BATCH_NORMS)
            if module.training and (dropout or batch_norm):
                found.append(name)
    return found


def bits(value: torch.Tensor) -> torch.Tensor:
    """Return a copy of a tensor's bytes. A view of them would move along with the tensor."""
    return value.detach().clone().contiguous().reshape(-1).view(torch.uint8)


def watched(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """Return what a step is watched for: every parameter, and the buffers of modules that are wholly frozen."""
    values: dict[str, torch.Tensor] = dict(model.named_parameters())
    for prefix, module in model.named_modules():
        own = list(module.parameters(recurse=False))
        if own and not any(parameter.requires_grad for parameter in own):
            for name, buffer in module.named_buffers(prefix=prefix, recurse=False):
                values[name] = buffer
    return values
