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
    """A linear layer with factors A and B beside its weight; B is zero until `warm` is called."""

    def __init__(self, width: int, rank: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = nn.Parameter(numbers(generator, width, width) / width)
        self.A = nn.Parameter(numbers(generator, rank, width))
        self.B = nn.Parameter(torch.zeros(width, rank).double())

    def warm(self, generator: torch.Generator) -> None:
        """Give B numbers, as after a few steps; with B = 0 the gradient of A is zero."""
        self.B.data.copy_(numbers(generator, *self.B.shape))

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


class Halved(Norm):
    """A norm with a second gain: one half of a tensor, whose other half is another parameter."""

    def __init__(self, width: int, generator: torch.Generator) -> None:
        super().__init__(width, generator)
        both = 1 + 0.1 * numbers(generator, 2 * width)
        self.A, self.rest = nn.Parameter(both[:width]), nn.Parameter(both[width:])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * self.A


class Infinite(Norm):
    """A norm of infinite outputs: the loss is NaN, and so are the gradients."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * torch.inf


class Noise(nn.Dropout):
    """A dropout of the author's own."""


class Means(nn.BatchNorm2d):
    """A batch normalisation of the author's own."""


for planted in (Drifting, Flipping, Counted, Halved, Infinite):  # a name would tell what is wrong with them
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
        for module in self.model.modules():
            if spec["warm"] and isinstance(module, LowRank):
                module.warm(self.generator)
        for name, parameter in self.model.named_parameters():
            parameter.requires_grad_(any(fnmatchcase(name, pattern) for pattern in spec["patterns"]))
        self.plant(IN_FLAGS, spec)
        trained = [parameter for parameter in self.model.parameters() if parameter.requires_grad]
        groups = [{"params": trained[::2], "lr": 0.01}, {"params": trained[1::2], "lr": 0.16}]
        self.optimizer = torch.optim.SGD(groups, weight_decay=0.1)
        self.old_gradients = True
        self.strangers = [nn.Parameter(torch.ones(2).double()) for _ in range(2)]
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
    kinds = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, Means)
    bare = (batch_norm(at, affine=False), nn.BatchNorm2d(at.width, track_running_stats=False))
    block.norm = nn.Sequential(*(kind(at.width) for kind in kinds), *bare, batch_norm(at).eval())


def add_dropouts(at: SetUp, _: Any) -> None:
    """Add dropouts that are on, deep inside, among them one that hardly drops and one that drops all."""
    deep = nn.Sequential(nn.Sequential(nn.Dropout(1e-9), nn.Sequential(Noise(0.5))))
    at.model.reference.add_module("drop", nn.Dropout(0.1))
    at.model.reference.add_module("deep", deep.append(nn.Dropout(1.0)))


def add_other_kinds(_: SetUp, block: Any) -> None:
    """Add modules in training mode that no finding is about, though some behave otherwise in evaluation mode."""
    quiet = [nn.LayerNorm(2), nn.GroupNorm(1, 2), nn.ReLU(), nn.RReLU()]
    kin = [nn.Dropout1d(0.5), nn.Dropout2d(0.5), nn.Dropout3d(0.5), nn.AlphaDropout(0.5), nn.FeatureAlphaDropout(0.5)]
    with torch.random.fork_rng(devices=[]):
        inside = [nn.MultiheadAttention(2, 1, dropout=0.5), nn.LSTM(1, 1, num_layers=2, dropout=0.5)]
    block.others = nn.Sequential(*quiet, *kin, *inside)


def add_a_prefix(at: SetUp, _: Any) -> None:
    """Add a frozen part whose name begins the name of a part that trains."""
    at.model.block = nn.Sequential(Linear(square(at)), nn.Dropout(0.5))


def add_a_sharing_part(at: SetUp, block: Any) -> None:
    """Add a frozen part with a dropout, whose weight is the memory of a factor that trains."""
    at.model.shared = nn.Sequential(Linear(nn.Parameter(block.up.A.data)), nn.Dropout(0.5))


def add_a_scaled_part(at: SetUp, _: Any) -> None:
    """Add a part with a dropout and a number of its own that is frozen, while a factor deeper in it trains."""
    at.model.scaled = nn.Sequential(Inner(at.width, at.generator), nn.Dropout(0.5))
    at.model.scaled.register_parameter("scale", nn.Parameter(torch.ones(1)))


def be_a_norm(at: SetUp, _: Any) -> None:
    """Make the model a batch normalisation, without any part."""
    at.model = batch_norm(at)


def switch_dropout_off(at: SetUp, block: Any) -> None:
    """Add a dropout that is off, inside modules that are in training mode."""
    at.model.reference.training = block.training = True
    block.drop = nn.Dropout(0.1).eval()


def add_a_nan(_: SetUp, block: Any) -> None:
    """Add a parameter of two-byte numbers that nothing uses, with a NaN among them."""
    block.unused = nn.Parameter(torch.tensor([1.0, float("nan")], dtype=torch.bfloat16))


KINDS = (
    torch.float16, torch.bfloat16, torch.float32, torch.float64,
    torch.int8, torch.uint8, torch.int16, torch.int32, torch.int64, torch.bool,
)  # fmt: skip


def of_every_kind() -> list[torch.Tensor]:
    """Return tensors of every dtype, with a NaN in those of floats, and one without axes."""
    plain = [torch.tensor([1, 0, 1]).to(kind) for kind in KINDS]
    for value in plain[:4]:
        value[1] = torch.nan
    return [*plain, torch.tensor(1.0), torch.tensor([torch.nan]), torch.tensor([2**60])]


def of_every_layout() -> list[torch.Tensor]:
    """Return the same, and one that is transposed."""
    return [*of_every_kind(), torch.arange(6.0).reshape(2, 3).T]


def flip_a_bit(value: torch.Tensor) -> None:
    """Change the last bit of a tensor's first number."""
    first = value[(0,) * value.ndim]
    if value.dtype == torch.bool:
        first.logical_not_()
    else:
        whole = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}[value.element_size()]
        first.view(whole).bitwise_xor_(1)


def add_numbers(block: Any, values: list[torch.Tensor], changing: bool) -> None:
    """Add parameters to a frozen norm, which change at each call or stay."""
    for place, value in enumerate(values):
        block.norm.register_parameter(f"scale{place}", nn.Parameter(value, requires_grad=False))

    def change(module: Any, _: Any) -> None:
        for name, value in module.named_parameters(recurse=False):
            if name != "weight":
                flip_a_bit(value.data)

    if changing:
        block.norm.register_forward_pre_hook(change)


def add_buffers(block: Any, changing: bool) -> None:
    """Add buffers of every kind to a frozen norm, which change at each call or stay; some aren't in its state."""
    for place, value in enumerate(of_every_layout()):
        block.norm.register_buffer(f"state{place}", value, persistent=place % 2 == 0)

    def change(module: Any, _: Any) -> None:
        for value in module.buffers(recurse=False):
            flip_a_bit(value)

    if changing:
        block.norm.register_forward_pre_hook(change)


def count_at_the_top(at: SetUp, _: Any) -> None:
    """Give the model itself a frozen number, and a buffer that counts its calls."""
    at.model.scale = nn.Parameter(torch.ones(1))
    at.model.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def count(model: Any, _: Any) -> None:
        model.calls.add_(1)

    at.model.register_forward_pre_hook(count)


def held(name: str, value: Any) -> nn.Module:
    """Return a module that holds a parameter (or None) and does nothing."""
    module = nn.Module()
    module.register_parameter(name, value)
    return module


def tie_unused(at: SetUp, block: Any) -> None:
    """Add a trained parameter with two names that nothing uses."""
    block.spare = held("A", nn.Parameter(numbers(at.generator, at.width)))
    block.other = held("A", block.spare.A)


def tie_drifting(at: SetUp, block: Any) -> None:
    """Add a frozen parameter with two names that changes at each call."""
    block.norm = Drifting(at.width, at.generator)
    block.other = held("weight", block.norm.weight)


def add_a_late_module(at: SetUp, block: Any) -> None:
    """Add factors that the optimizer has never heard of and nothing uses."""
    block.late = LowRank(at.width, at.rank, at.generator)
    block.late.weight.requires_grad_(False)


def train_a_nan(_: SetUp, block: Any) -> None:
    """Add a trained parameter that nothing uses, of NaN and zeros."""
    block.spare = held("A", nn.Parameter(torch.tensor([torch.nan, 0.0, -0.0])))


def read_as_integers(_: SetUp, block: Any) -> None:
    """Add a frozen parameter that reads a factor's memory as integers."""
    block.ints = held("codes", nn.Parameter(block.up.A.data.view(torch.int64), requires_grad=False))


def keep_old_gradients(at: SetUp, _: Any) -> None:
    for parameter in at.model.parameters():
        if parameter.is_floating_point():
            parameter.grad = torch.ones_like(parameter)


def freeze_later(at: SetUp, block: Any) -> None:
    """Freeze a factor that the optimizer holds, and hold it twice."""
    at.members(1).append(block.up.A.requires_grad_(False))


def hold_aliases(at: SetUp, _: Any) -> None:
    """Let the optimizer hold other parameters over the same memory."""
    for group in at.optimizer.param_groups:
        group["params"] = [nn.Parameter(parameter.data) for parameter in group["params"]]


def hold_a_stranger(at: SetUp, _: Any) -> None:
    """Let each group hold a parameter of no model, with a gradient of a step before."""
    for group, stranger in enumerate(at.strangers):
        stranger.grad = torch.ones_like(stranger)
        at.members(group).append(stranger)


def share_all(at: SetUp, _: Any) -> None:
    """Load the policy's weights into the reference without a copy of them."""
    at.model.reference.load_state_dict(at.model.policy.state_dict(), assign=True)


def share_frozen(_: SetUp, block: Any) -> None:
    """Freeze a factor, and train a second parameter over all of its memory."""
    block.up.A.requires_grad_(False)
    block.second = nn.Parameter(block.up.A.data)


def hold_a_conflict(at: SetUp, block: Any) -> None:
    """Share a factor's memory, and hold it frozen in the optimizer, and the second parameter twice."""
    share_frozen(at, block)
    at.members(1).extend([block.second] * 2)


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
    "memory split": lambda at, block: block.add_module("norm", Halved(at.width, at.generator)),
    "memory read as integers": read_as_integers,
    "frozen numbers of every dtype": lambda _, block: add_numbers(block, of_every_kind(), changing=False),
    "frozen numbers of every kind": lambda _, block: add_numbers(block, of_every_layout(), changing=False),
    "frozen numbers of every kind change": lambda _, block: add_numbers(block, of_every_layout(), changing=True),
    "frozen buffers of every kind": lambda _, block: add_buffers(block, changing=False),
    "frozen buffers of every kind change": lambda _, block: add_buffers(block, changing=True),
    "the model itself counts": count_at_the_top,
    "the model itself is a norm": be_a_norm,
    "a parameter that is None": lambda _, block: block.add_module("spare", held("A", None)),
    "a tied parameter unused": tie_unused,
    "a tied frozen weight drifts": tie_drifting,
    "a trained NaN": train_a_nan,
    "a frozen part whose name begins another's": add_a_prefix,
    "a frozen part over a factor's memory": add_a_sharing_part,
    "a part with a frozen number of its own": add_a_scaled_part,
    "a head with dropout": lambda at, _: at.model.head.add_module("drop", nn.Dropout(0.5)),
    "the loss is NaN": lambda at, block: block.add_module("norm", Infinite(at.width, at.generator)),
    "only the model itself in evaluation mode": lambda at, _: setattr(at.model, "training", False),
    "embedding shared": lambda at, _: at.model.register_parameter("rows", nn.Parameter(at.model.embed.weight.data[1:])),
    "reference in train mode": add_dropouts,
    "reference with other kinds": add_other_kinds,
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
    "embedding in the optimizer twice": lambda at, _: at.members(0).extend([at.model.embed.weight] * 2),
    "frozen later": lambda _, block: block.up.A.requires_grad_(False),
    "frozen later, and twice": freeze_later,
    "optimizer without a group": lambda at, _: at.optimizer.param_groups.clear(),
    "optimizer of aliases": hold_aliases,
    "a stranger in the optimizer": hold_a_stranger,
    "a conflict in the optimizer": hold_a_conflict,
    "a late module": add_a_late_module,
    "old gradients": keep_old_gradients,
    "no old gradients": lambda at, _: setattr(at, "old_gradients", False),
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
    """Return a function that says whether model and optimizer are what they are now."""
    before, flags = numbers_of(made), flags_of(made)

    def observe() -> bool:
        return flags == flags_of(made) and before == numbers_of(made)

    return observe


def numbers_of(made: SetUp) -> list[Any]:
    """Return the bytes of all parameters, gradients and buffers."""
    parameters = list(made.model.parameters())
    tensors = [*parameters, *(p.grad for p in parameters), *made.model.buffers()]
    return [None if t is None else t.detach().clone().reshape(-1).view(torch.uint8).tolist() for t in tensors]


def flags_of(made: SetUp) -> list[Any]:
    """Return what trains, which modules are in training mode, and what the optimizer holds."""
    parameters = [(id(p), p.requires_grad) for p in made.model.parameters()]
    groups = [{**group, "params": [id(p) for p in group["params"]]} for group in made.optimizer.param_groups]
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
        after = [p.detach().clone() for p in [*model.parameters(), *made.strangers]]
        return seen | {"same": before == flags_of(made), "parameters": after}

    made.optimizer.register_step_post_hook(stepped)
    if made.old_gradients:
        keep_old_gradients(made, None)  # zero_grad has something to do
    return (model, made.optimizer, loss_fn), observe
