"""Finding layers by name, and putting others in their place: what every method of tuning does first."""

from collections.abc import Callable, Sequence
from fnmatch import fnmatchcase

from torch import nn


def matches(name: str, glob: str) -> bool:
    """Say whether a module's name, or its last part, matches a glob.

    >>> matches("blocks.1.attn.q", "q"), matches("blocks.1.attn.q", "blocks.*"), matches("blocks.1.mlp.up", "p")
    (True, True, False)
    """
    return fnmatchcase(name, glob) or fnmatchcase(name.rpartition(".")[2], glob)


def replace(model: nn.Module, name: str, module: nn.Module) -> None:
    """Put a module where another one stands."""
    parent, _, last = name.rpartition(".")
    setattr(model.get_submodule(parent), last, module)


def is_linear(module: nn.Module) -> bool:
    """Say whether a module maps in_features to out_features by a weight, plain or stored in four bits."""
    return all(hasattr(module, name) for name in ("in_features", "out_features", "weight"))


def wrap_linears(model: nn.Module, targets: Sequence[str], wrap: Callable[[str, nn.Module], nn.Module]) -> list[str]:
    """Replace each linear layer that a target names by what `wrap(name, layer)` makes of it; return the names.

    A target is a glob over names such as `blocks.0.attn.q`, or over the last part of one (`q`).

    Errors: ValueError if a target matches nothing.
    """
    linear = {name: module for name, module in model.named_modules() if is_linear(module)}
    missing = [target for target in targets if not any(matches(name, target) for name in linear)]
    if missing:
        raise ValueError(f"targets must name linear layers, and these match none: {', '.join(missing)}")
    chosen = [name for name in linear if any(matches(name, target) for target in targets)]
    for name in chosen:
        replace(model, name, wrap(name, linear[name]))
    return chosen


__all__ = ["is_linear", "matches", "replace", "wrap_linears"]
