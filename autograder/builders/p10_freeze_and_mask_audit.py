"""Build what an audit is called with: a small model, perhaps an optimizer or a step, with faults planted in them.

The model has an embedding, blocks of a norm and a linear layer with low-rank factors, and a head. What matches the
patterns trains; then the faults are planted. Things that look like a fault and are none are planted in the same way.
"""

import copy
from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn
from torch.nn import functional

Spec = dict[str, Any]
Built = tuple[tuple[Any, ...], Callable[[], Any]]


def numbers(generator: torch.Generator, *shape: int) -> torch.Tensor:
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


# --------------------------------------------------------------------------------------------------------- the model


class Linear(nn.Module):
    """A linear layer with a given weight; torch's own would draw one from the global generator."""

    def __init__(self, weight: torch.Tensor) -> None:
        super().__init__()
        self.weight = weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x, self.weight)


class Norm(nn.Module):
    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(1 + 0.1 * numbers(generator, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x / x.square().mean(-1, keepdim=True).add(1e-6).sqrt() * self.weight


class LowRank(nn.Module):
    """A linear layer with factors A and B beside its weight; B is zero."""

    def __init__(self, width: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(numbers(generator, width, width) / width)
        self.A = nn.Parameter(numbers(generator, rank, width))
        self.B = nn.Parameter(torch.zeros(width, rank).double())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ self.weight.T + x @ self.A.T @ self.B.T


class Block(nn.Module):
    def __init__(self, width: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.norm, self.up = Norm(width, generator), LowRank(width, rank, generator)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.up(self.norm(x))


class Model(nn.Module):
    def __init__(self, spec: Spec, generator: torch.Generator) -> None:
        super().__init__()
        vocab, width, rank = spec["vocab"], spec["width"], spec["rank"]
        self.embed = nn.Embedding(vocab, width, _weight=numbers(generator, vocab, width))
        self.blocks = nn.ModuleList(Block(width, rank, generator) for _ in range(spec["blocks"]))
        self.head = Linear(self.embed.weight if spec["tied"] else nn.Parameter(numbers(generator, vocab, width)))
        self.register_buffer("positions", torch.arange(7))

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.embed(ids)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


class Pair(nn.Module):
    """A policy with its reference model."""

    def __init__(self, policy: nn.Module, reference: nn.Module) -> None:
        super().__init__()
        self.policy, self.reference = policy, reference


class Drifting(Norm):
    """A norm whose weight changes at each call, without an optimizer."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.weight.data.mul_(1 + 1e-12)
        return super().forward(x)


class Flipping(Norm):
    """A norm with frozen numbers that change at each call: a zero gets another sign, and two change places."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__(width, generator)
        self.zero, self.two = nn.Parameter(torch.zeros(1)), nn.Parameter(torch.tensor([1.0, 2.0]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.zero.data.neg_()
        self.two.data.copy_(self.two.data.flip(0))
        return super().forward(x)


class Inner(nn.Module):
    """A part that trains and counts its calls."""

    seen: torch.Tensor

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__()
        self.A = nn.Parameter(numbers(generator, width))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.add_(1)
        return x * self.A


class Counted(Norm):
    """A frozen norm that counts its calls, with a trained part inside that counts its own."""

    calls: torch.Tensor

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__(width, generator)
        self.inner = Inner(width, generator)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls.add_(1)
        return super().forward(x) + self.inner(x)


for planted in (Drifting, Flipping, Counted):  # a name would tell what is wrong with them
    planted.__name__ = planted.__qualname__ = "Norm"


# -------------------------------------------------------------------------------------------------------- the faults


class SetUp:
    """What is being built: a model in which some parameters train, and an optimizer with two groups."""

    def __init__(self, spec: Spec) -> None:
        self.width, self.rank = spec["width"], spec["rank"]
        self.generator = torch.Generator().manual_seed(spec["seed"])
        self.model: Any = Model(spec, self.generator)
        if spec["pair"]:
            self.model = Pair(self.model, Model(spec, self.generator).eval())
        self.blocks: Any = (self.model.reference if spec["pair"] else self.model).blocks
        self.plant(IN_MODULES, spec)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in spec["patterns"]))
        self.plant(IN_FLAGS, spec)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        groups = [{"params": trained[::2], "lr": 0.01}, {"params": trained[1::2], "lr": 0.16}]
        self.optimizer = torch.optim.SGD(groups, weight_decay=0.1)
        self.plant(IN_OPTIMIZER, spec)

    def plant(self, table: "dict[str, Plant]", spec: Spec) -> None:
        """Plant those of the specification's faults that a table has."""
        for fault, place in spec["faults"]:
            if fault in table:
                table[fault](self, self.blocks[place])

    def members(self, group: int) -> list[Any]:
        return self.optimizer.param_groups[group]["params"]


Plant = Callable[[SetUp, Any], object]
"""Plant a fault in a set-up, in one of its blocks if it's a block's."""


def zero_the_gradient(_: SetUp, block: Any) -> None:
    block.up.weight.requires_grad_(True)
    block.up.weight.register_hook(torch.zeros_like)


def set_an_attribute(_: SetUp, block: Any) -> None:
    """Set a flag on the module, where it does nothing."""
    block.norm.weight.requires_grad_(True)
    block.norm.requires_grad = False


def hold_copies(at: SetUp, _: Any) -> None:
    for group in at.optimizer.param_groups:
        group["params"] = copy.deepcopy(group["params"])


def set_rates(rate: float) -> "Plant":
    def plant(at: SetUp, _: Any) -> None:
        for group in at.optimizer.param_groups:
            group["lr"] = rate

    return plant


def batch_norm(at: SetUp, affine: bool = True) -> nn.Module:
    return nn.BatchNorm1d(at.width, affine=affine, dtype=torch.float64)


def add_parts_without_parameters(at: SetUp, _: Any) -> None:
    at.model.drop = nn.Dropout(0.5)
    at.model.plain = batch_norm(at, affine=False)


def add_running_means(at: SetUp, block: Any) -> None:
    """Add a batch normalisation of each kind, and one that is off."""
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)
    block.norm = nn.Sequential(*(kind(at.width) for kind in kinds), batch_norm(at).eval())


def switch_dropout_off(at: SetUp, block: Any) -> None:
    """Add a dropout that is off, inside modules that are in training mode."""
    at.model.reference.training = block.training = True
    block.drop = nn.Dropout(0.1).eval()


def add_a_nan(_: SetUp, block: Any) -> None:
    """Add a parameter of two-byte numbers that nothing uses, with a NaN among them."""
    block.unused = nn.Parameter(torch.tensor([1.0, float("nan")], dtype=torch.bfloat16))


def share_all(at: SetUp, _: Any) -> None:
    """Load the policy's weights into the reference without a copy of them."""
    at.model.reference.load_state_dict(at.model.policy.state_dict(), assign=True)


def share_frozen(_: SetUp, block: Any) -> None:
    """Freeze a factor, and train a second parameter over all of its memory."""
    block.up.A.requires_grad_(False)
    block.second = nn.Parameter(block.up.A.data)


def share_rows(block: Any) -> nn.Parameter:
    """Return a second parameter over a part of a factor's memory: no name is shared, every step moves both."""
    return nn.Parameter(block.up.B.data[1:])


def square(at: SetUp) -> nn.Parameter:
    return nn.Parameter(numbers(at.generator, at.width, at.width))


IN_MODULES: dict[str, Plant] = {
    "factors missing": lambda at, block: block.add_module("up", Linear(square(at))),
    "unused module": lambda at, block: block.add_module("spare", LowRank(at.width, at.rank, at.generator)),
    "frozen weight drifts": lambda at, block: block.add_module("norm", Drifting(at.width, at.generator)),
    "frozen norm counts": lambda at, block: block.add_module("norm", Counted(at.width, at.generator)),
    "running mean moves": lambda at, block: block.add_module("norm", batch_norm(at)),
    "running mean of a trained norm": lambda at, block: block.add_module("norm", batch_norm(at)),
    "running mean of a norm without parameters": lambda at, block: block.add_module("norm", batch_norm(at, False)),
    "dropout in a trained part": lambda _, block: block.add_module("norm", nn.Sequential(block.norm, nn.Dropout(0.5))),
    "dropout that is off": lambda _, block: block.add_module("norm", nn.Sequential(block.norm, nn.Dropout(0.5).eval())),
    "parts without parameters": add_parts_without_parameters,
    "a frozen norm beside the model": lambda at, _: at.model.add_module("beside", batch_norm(at)),
    "an unused NaN": add_a_nan,
    "a zero's sign flips": lambda at, block: block.add_module("norm", Flipping(at.width, at.generator)),
    "memory shared": lambda _, block: block.register_parameter("shadow", share_rows(block)),
    "reference in train mode": lambda at, _: at.model.reference.add_module("drop", nn.Dropout(0.1)),
    "reference with its dropout off": switch_dropout_off,
    "reference with a dropout of zero": lambda _, block: block.add_module("drop", nn.Dropout(0.0)),
    "reference with running means": add_running_means,
    "reference shares memory": share_all,
}
"""Change what a model is made of, before it's said what trains."""

IN_FLAGS: dict[str, Plant] = {
    "extra trainable": lambda _, block: block.up.weight.requires_grad_(True),
    "gradient zeroed instead": zero_the_gradient,
    "norm left on": lambda _, block: block.norm.weight.requires_grad_(True),
    "flag set as an attribute": set_an_attribute,
    "one factor frozen": lambda _, block: block.up.A.requires_grad_(False),
    "embedding left on": lambda at, _: at.model.embed.requires_grad_(True),
    "embedding frozen": lambda at, _: at.model.embed.requires_grad_(False),
    "a frozen factor shared": share_frozen,
    "memory shared and trained": lambda _, block: block.register_parameter("shadow", share_rows(block)),
    "reference trainable": lambda _, block: block.up.B.requires_grad_(True),
    "everything frozen": lambda at, _: at.model.requires_grad_(False),
}
"""Change what trains, before the optimizer is made."""

IN_OPTIMIZER: dict[str, Plant] = {
    "optimizer of a copy": hold_copies,
    "left out of the optimizer": lambda at, _: at.members(0).pop(0),
    "second group forgotten": lambda at, _: at.optimizer.param_groups.pop(1),
    "frozen in the optimizer": lambda at, block: at.members(0).append(block.norm.weight),
    "twice in the optimizer": lambda at, _: at.members(0).append(at.members(1)[0]),
    "twice in a group": lambda at, _: at.members(1).append(at.members(1)[-1]),
    "frozen and twice in a group": lambda at, block: at.members(1).extend([block.norm.weight] * 2),
    "rate of zero": set_rates(0.0),
    "tiny rates": set_rates(1e-13),
}
"""Change what the optimizer holds; what `add_param_group` would refuse is possible too."""

FAULTS = IN_MODULES | IN_FLAGS | IN_OPTIMIZER


# -------------------------------------------------------------------------------------------------- what is handed out


def build(spec: Spec) -> Built:
    """Return an audit's arguments and a function that tells, after the call, what became of them.

    `spec["faults"]` are names of faults, each with a block's number; `spec["asks"]` says for which audit it is.
    """
    for fault, _ in spec["faults"]:
        if fault not in FAULTS:
            raise ValueError(f"no fault is called {fault!r}; the faults are: {', '.join(FAULTS)}")
    made = SetUp(spec)
    if spec["asks"] == "step":
        return step(made, torch.randint(spec["vocab"], (5,), generator=made.generator))
    arguments = {
        "count": (made.model,),
        "freeze": (made.model, spec["patterns"]),
        "optimizer": (made.model, spec["patterns"], made.optimizer),
    }
    return arguments[spec["asks"]], untouched(made)


def untouched(made: SetUp) -> Callable[[], bool]:
    """Return a function that says whether model and optimizer are what they are now: numbers, flags, modes, members."""
    numbers, flags = [p.detach().clone() for p in made.model.parameters()], flags_of(made)

    def observe() -> bool:
        pairs = zip(made.model.parameters(), numbers, strict=True)
        return all(torch.equal(p, old) and p.grad is None for p, old in pairs) and flags == flags_of(made)

    return observe


def flags_of(made: SetUp) -> list[Any]:
    """Return what trains, which modules are in training mode, and what the optimizer holds."""
    parameters = [(id(p), p.requires_grad) for p in made.model.parameters()]
    groups = [[id(p) for p in group["params"]] for group in made.optimizer.param_groups]
    return [parameters, [module.training for module in made.model.modules()], groups]


def step(made: SetUp, ids: torch.Tensor) -> Built:
    """Return what a step is called with, and a function that tells what it did."""
    model, seen = made.model, {"losses": 0, "steps": 0}
    before = flags_of(made)

    def stepped(*_: Any) -> None:
        seen["steps"] += 1

    def loss_fn(model: nn.Module) -> torch.Tensor:
        seen["losses"] += 1
        return model(ids).square().mean()

    def observe() -> dict[str, Any]:
        return seen | {"same": before == flags_of(made), "parameters": [p.detach().clone() for p in model.parameters()]}

    made.optimizer.register_step_post_hook(stepped)
    for p in model.parameters():
        if p.requires_grad:
            p.grad = torch.ones_like(p)  # of a step before: zero_grad has something to do
    return (model, made.optimizer, loss_fn), observe
