"""Which parameter trains, at which rate, with which decay, and when: freezing, BitFit, ULMFiT's three schedules."""

from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

Group = dict[str, Any]
"""What torch's optimizers take: `params`, `lr`, `weight_decay`."""


def train_only(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Let the parameters train whose name matches a pattern, freeze all others, and return the names that train.

    Patterns are globs over whole names (`blocks.3.*`). A tied tensor has several names and one state.

    >>> train_only(nn.Linear(3, 2), ["bias"])
    ['bias']

    Errors: ValueError if a pattern matches nothing, or names of one tied tensor disagree.
    """
    named = dict(model.named_parameters(remove_duplicate=False))
    idle = [pattern for pattern in patterns if not any(fnmatchcase(name, pattern) for name in named)]
    if idle:
        raise ValueError(f"patterns must match parameters, and these match none: {', '.join(idle)}")
    wanted = {name for name in named if any(fnmatchcase(name, pattern) for pattern in patterns)}
    torn = [name for name in named if name not in wanted and any(named[name] is named[other] for other in wanted)]
    if torn:
        raise ValueError(f"a tied tensor can't be frozen under one name and trained under another: {', '.join(torn)}")
    for name, parameter in named.items():
        parameter.requires_grad_(name in wanted)
    return [name for name in named if name in wanted]


def bitfit(model: nn.Module) -> list[str]:
    """Train the biases and nothing else (arXiv:2106.10199); return their names.

    >>> bitfit(nn.Sequential(nn.Linear(3, 2), nn.LayerNorm(2)))
    ['0.bias', '1.bias']

    Errors: ValueError if the model has none.
    """
    return train_only(model, ["*bias"])


def level_of(name: str, layers: int) -> int:
    """Return the level of a parameter: 0 for the embeddings, 1..L for the blocks, L for the final norm and the head.

    >>> [level_of(name, layers=4) for name in ("embed.weight", "blocks.0.attn.q.weight", "norm.weight")]
    [0, 1, 4]
    """
    first, _, rest = name.partition(".")
    if first == "embed":
        return 0
    return int(rest.partition(".")[0]) + 1 if first == "blocks" else layers


def layer_rates(layers: int, top_rate: float, decay: float) -> list[float]:
    """Return the learning rates of levels 0..L: the top's, times `decay` for each level below (arXiv:1801.06146, 3.2).

    ULMFiT's decay is 1 / 2.6.

    >>> [round(rate, 6) for rate in layer_rates(3, 0.01, 1 / 2.6)]
    [0.000569, 0.001479, 0.003846, 0.01]

    Errors: ValueError for a decay outside (0, 1].
    """
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be within (0, 1], got {decay}")
    return [top_rate * decay ** (layers - level) for level in range(layers + 1)]


def decays(parameter: nn.Parameter) -> bool:
    """Say whether weight decay is for this parameter: matrices yes, biases and the gains of norms no."""
    return parameter.ndim >= 2


def layer_groups(model: nn.Module, top_rate: float, decay: float = 1.0, weight_decay: float = 0.0) -> list[Group]:
    """Return an optimizer's groups: each trained parameter once, by its level's rate; only matrices decay.

    The model is a `Decoder`, tuned or not; adapters belong to the level of their block.

    >>> from ftmath.model import Config, Decoder
    >>> sorted({group["lr"] for group in layer_groups(Decoder(Config(layers=2)), 1.0, 0.5)})
    [0.25, 0.5, 1.0]
    """
    layers = len({name.split(".")[1] for name, _ in model.named_parameters() if name.startswith("blocks.")})
    rates = layer_rates(layers, top_rate, decay)
    return grouped(
        (rates[level_of(name, layers)], weight_decay if decays(parameter) else 0.0, parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    )


def rate_groups(model: nn.Module, rates: Mapping[str, float], default: float, weight_decay: float = 0.0) -> list[Group]:
    """Return an optimizer's groups by globs over names: the first that matches gives the rate, else the default.

    LoRA+ is `{"*.B": 16 * rate}` with `rate` as the default (arXiv:2402.12354).

    >>> [(group["lr"], len(group["params"])) for group in rate_groups(nn.Linear(3, 2), {"b*": 2.0}, 1.0)]
    [(1.0, 1), (2.0, 1)]
    """
    return grouped(
        (next((rate for glob, rate in rates.items() if fnmatchcase(name, glob)), default),
         weight_decay if decays(parameter) else 0.0, parameter)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad
    )  # fmt: skip


def grouped(entries: Any) -> list[Group]:
    """Return (rate, decay, parameter) entries as groups, one for each pair of rate and decay."""
    found: dict[tuple[float, float], Group] = {}
    for rate, decay, parameter in entries:
        group = found.setdefault((rate, decay), {"params": [], "lr": rate, "weight_decay": decay})
        group["params"].append(parameter)
    return list(found.values())


def slanted_triangle(step: int, steps: int, cut: float = 0.1, ratio: float = 32) -> float:
    """Return the share of the peak rate at a step: up for the first `cut` of the steps, then down to 1 / ratio.

    Equation 3 of arXiv:1801.06146, divided by its peak rate.

    >>> [round(0.01 * slanted_triangle(step, 100), 7) for step in (0, 5, 10, 55, 100)]
    [0.0003125, 0.0051563, 0.01, 0.0051563, 0.0003125]

    The rise takes one step at least.

    Errors: ValueError unless 0 < cut < 1 and ratio >= 1.
    """
    if not (0 < cut < 1 and ratio >= 1):
        raise ValueError(f"cut must be within (0, 1) and ratio at least 1, got {cut} and {ratio}")
    rise = max(1, int(steps * cut))
    share = step / rise if step < rise else 1 - (step - rise) / (rise * (1 / cut - 1))
    return (1 + share * (ratio - 1)) / ratio


def thaw(model: nn.Module, levels: int) -> list[str]:
    """Let the top `levels` levels train and freeze those below: a stage of gradual unfreezing.

    The order is ULMFiT's (arXiv:1801.06146, section 3.3). The head's weight stays with the embeddings where it's tied
    to them. Returns the names that train.

    >>> from ftmath.model import Config, Decoder
    >>> thaw(Decoder(Config(layers=2)), 1)[:1]
    ['blocks.1.attn_norm.weight']

    Errors: ValueError for levels outside 1..L + 1.
    """
    layers = len({name.split(".")[1] for name, _ in model.named_parameters() if name.startswith("blocks.")})
    if not 1 <= levels <= layers + 1:
        raise ValueError(f"levels must be within 1..{layers + 1}, got {levels}")
    found: list[str] = []
    for name, parameter in model.named_parameters():  # a tied tensor comes once, by its first name
        parameter.requires_grad_(level_of(name, layers) > layers - levels)
        if parameter.requires_grad:
            found.append(name)
    return found


__all__ = [
    "bitfit", "layer_groups", "layer_rates", "level_of", "rate_groups", "slanted_triangle", "thaw", "train_only",
]  # fmt: skip
