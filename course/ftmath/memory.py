"""Every byte of a training run: by closed form, and measured on real tensors or on tensors that have only a shape."""

import math
import os
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from dataclasses import astuple, dataclass, replace

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.nn.functional import cross_entropy
from torch.utils.checkpoint import checkpoint

from ftmath.device import synchronize
from ftmath.model import Config, Decoder

KIB, MIB, GIB = 2**10, 2**20, 2**30
LOGIT_BYTES = 12
"""Bytes of a logit at the loss' peak: float32 log-probabilities, their gradient, and the logit's gradient, 4 each.

A caller that holds on to the 16-bit logits pays 2 more. `allocated_bytes` finds both numbers.
"""


@dataclass(frozen=True, slots=True)
class Budget:
    """The bytes of one training step: what stays (weights, gradients, optimizer), and what a backward pass waits for.

    That is what the blocks keep (`activations`), and the head's logits with their gradients (`logits`).

    >>> Budget(weights=4, gradients=2, optimizer=8, activations=6, logits=3).total
    23
    """

    weights: int
    gradients: int
    optimizer: int
    activations: int = 0
    logits: int = 0

    @property
    def total(self) -> int:
        """Return the sum. Other temporary buffers and the allocator's fragmentation come on top.

        Under checkpointing the logits are gone before the first block is computed again, so the sum is too large then,
        by the smaller of the two.
        """
        return self.weights + self.gradients + self.optimizer + self.activations + self.logits


def training_bytes(
    frozen: float, trained: int, *, weight_bytes: float = 2, gradient_bytes: float = 2, optimizer_bytes: float = 12
) -> Budget:
    """Return what stays in memory: weights for all parameters, gradients and optimizer state for the trained ones.

    The default is mixed-precision Adam: 2 + 2 + (4 + 4 + 4) = 16 bytes for each trained parameter, its float32 master
    copy counted with the optimizer (arXiv:1910.02054, section 3.1).

    >>> training_bytes(0, 1_300_000_000).total / GIB
    19.371509552001953

    Errors: ValueError for a negative count.
    """
    if frozen < 0 or trained < 0:
        raise ValueError(f"counts of parameters must not be negative, got {frozen} and {trained}")
    return Budget(
        math.ceil(weight_bytes * (frozen + trained)), math.ceil(gradient_bytes * trained),
        math.ceil(optimizer_bytes * trained),
    )  # fmt: skip


def zero_bytes(parameters: int, devices: int, stage: int) -> float:
    """Return the bytes a device holds under ZeRO: stage 1 splits the optimizer, 2 gradients too, 3 also weights.

    Stage 0 splits nothing (arXiv:1910.02054, figure 1).

    >>> [round(zero_bytes(7_500_000_000, 64, stage) / 1e9, 1) for stage in range(4)]
    [120.0, 31.4, 16.6, 1.9]
    """
    if stage not in range(4):
        raise ValueError(f"stage must be 0, 1, 2 or 3, got {stage}")
    parts = (12, 1), (2, 2), (2, 3)  # bytes per parameter, and from which stage on they're split
    return sum(size * parameters / (devices if stage >= first else 1) for size, first in parts)


def block_activation_bytes(time: int, batch: int, d_model: int, heads: int, *, flash: bool = False) -> int:
    """Return what one 16-bit transformer block with dropout keeps for its backward pass: s b h (34 + 5 a s / h).

    With `flash` the (time, time) scores are never kept, and the second term goes (arXiv:2205.05198, equation 1).

    >>> block_activation_bytes(2048, 1, 12288, 96) / (2048 * 12288)
    114.0
    """
    return time * batch * (34 * d_model + (0 if flash else 5 * heads * time))


def best_segments(layers: int) -> tuple[int, int]:
    """Return how many checkpointed segments keep least, and how much: k inputs and ceil(L / k) layers at a time.

    Of equal ones, the fewest segments (arXiv:1604.06174, section 4.1).

    >>> best_segments(36), best_segments(80)
    ((6, 12), (8, 18))
    """
    units = {k: k + math.ceil(layers / k) for k in range(1, layers + 1)}
    best = min(units, key=lambda k: (units[k], k))
    return best, units[best]


def decoder_parameters(config: Config) -> int:
    """Return how many parameters a `Decoder` has, by closed form; a tied head counts once.

    >>> decoder_parameters(Config())
    825728
    """
    d, queries, keys = config.d_model, config.heads * config.head_dim, config.kv_heads * config.head_dim
    widths = {"q": queries, "k": keys, "v": keys, "o": d, "gate": config.d_hidden, "up": config.d_hidden, "down": d}
    biases = sum(width for name, width in widths.items() if config.biases or name in config.biased)
    attention = 2 * d * (queries + keys) + 2 * config.head_dim * config.qk_norms
    mlp = 3 * d * config.d_hidden + biases
    return config.vocab * d * (1 if config.tied else 2) + config.layers * (attention + mlp + 2 * d) + d


def kept_bytes_per_token(config: Config, *, lora_rank: int | None = None, all_linears: bool = False) -> int:
    """Return what a block of the 16-bit `Decoder` keeps per token, without biases and with heads x head_dim = d_model.

    Full: 22 d + 4 e + 8 f + 4 h + 8, where e is the width of the keys (d without grouped heads). Each norm keeps its
    input in float32 (4 d), its inverse size (4) and its result before and after the gain (2 d each); attention keeps q,
    k, v (2 d + 4 e), its output twice laid out (2 d each) and a log-sum per head; the MLP its gate, the activation,
    `up` and their product (2 f each). LoRA of rank r on q and v: 14 d + 4 e + 6 f + 4 h + 8 + 4 r, since frozen layers
    and gains need no input. With `all_linears`, LoRA on all seven: 18 d + 4 e + 8 f + 4 h + 8 + 14 r, also on a base in
    four bits. `measured` finds the same bytes.

    >>> llama_7b = Config(32_000, 4096, 32, 32, 32, 128, 11_008, biases=False, tied=False)
    >>> [kept_bytes_per_token(llama_7b, lora_rank=rank) / 4096 for rank in (None, 8)]
    [47.533203125, 34.166015625]
    >>> kept_bytes_per_token(llama_7b, lora_rank=8, all_linears=True) / 4096
    43.560546875
    """
    d, f, h, e = config.d_model, config.d_hidden, config.heads, config.kv_heads * config.head_dim
    if lora_rank is None:
        return 22 * d + 4 * e + 8 * f + 4 * h + 8
    if all_linears:
        return 18 * d + 4 * e + 8 * f + 4 * h + 8 + 14 * lora_rank
    return 14 * d + 4 * e + 6 * f + 4 * h + 8 + 4 * lora_rank


def linear_parameters(config: Config) -> int:
    """Return how many weights stand in the seven linear layers of all blocks, without biases: what QLoRA quantises.

    >>> linear_parameters(Config())
    802816
    """
    d, queries, keys = config.d_model, config.heads * config.head_dim, config.kv_heads * config.head_dim
    return config.layers * (2 * d * (queries + keys) + 3 * d * config.d_hidden)


def lora_parameters(config: Config, rank: int) -> int:
    """Return how many numbers LoRA of a rank holds on all seven linear layers of each block.

    >>> lora_parameters(Config(32_000, 4096, 32, 32, 32, 128, 11_008), 1)
    2498560
    """
    d, queries, keys = config.d_model, config.heads * config.head_dim, config.kv_heads * config.head_dim
    return config.layers * rank * (2 * (d + queries) + 2 * (d + keys) + 3 * (d + config.d_hidden))


def planned(
    config: Config, tokens: int, *, lora_rank: int | None = None, linear_bits: float = 16, checkpointing: bool = False,
    chunk: int | None = None,
) -> Budget:  # fmt: skip
    """Return a training step's budget by closed form: all parameters, or LoRA on the seven linear layers of each block.

    Sixteen-bit weights and gradients, and 12 bytes of Adam's for what trains; the blocks' linear layers take
    `linear_bits` a weight (4.127 for QLoRA). With checkpointing each block keeps its input, and one block at a
    time all. Activations are those of the blocks, for a `Decoder` as `kept_bytes_per_token` describes it. Every
    position's logits are counted; with `chunk`, those of so many positions at a time (`chunked_loss`).

    >>> llama_7b = Config(32_000, 4096, 32, 32, 32, 128, 11_008, biases=False, tied=False)
    >>> budget = planned(llama_7b, 512, lora_rank=16)
    >>> round(budget.weights / GIB, 2), round(budget.optimizer / GIB, 2), round(budget.activations / GIB, 2)
    (12.63, 0.45, 2.72)
    >>> budget.logits == 512 * 32_000 * LOGIT_BYTES
    True

    Errors: ValueError for fewer bits than 16 where everything trains: codes have no gradient.
    """
    if lora_rank is None and linear_bits < 16:
        raise ValueError(f"linear_bits must be 16 where everything trains: codes have no gradient, got {linear_bits}")
    total, linears = decoder_parameters(config), linear_parameters(config)
    trained = total if lora_rank is None else lora_parameters(config, lora_rank)
    frozen = 0 if lora_rank is None else math.ceil(2 * (total - linears) + linear_bits / 8 * linears)
    fixed = training_bytes(0, trained)
    block = kept_bytes_per_token(config, lora_rank=lora_rank, all_linears=True)
    kept = config.layers * 2 * config.d_model + block if checkpointing else config.layers * block
    projected = tokens if chunk is None else min(chunk, tokens)
    logits = projected * config.vocab * LOGIT_BYTES
    return Budget(frozen + fixed.weights, fixed.gradients, fixed.optimizer, tokens * kept, logits)


# ------------------------------------------------------------------------------------------------------------ measured


def storage_bytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes behind some tensors, each storage once, however many tensors look at it.

    >>> whole = torch.zeros(4)
    >>> storage_bytes([whole, whole[:2], whole.view(2, 2)])
    16
    """
    return sum({identity(tensor): tensor.untyped_storage().nbytes() for tensor in tensors}.values())


def identity(tensor: Tensor) -> int:
    """Return which storage a tensor looks at, also one that has a shape and no numbers, while both are alive."""
    return tensor.untyped_storage()._cdata  # pyright: ignore[reportPrivateUsage]


@contextmanager
def saved_tensors(known: Iterable[Tensor]) -> Generator[list[Tensor]]:
    """Collect in the block what autograd keeps for the backward pass, apart from `known` tensors such as weights."""
    own = {identity(tensor) for tensor in known}
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        if identity(tensor) not in own:
            kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        yield kept


def measured(
    model: nn.Module, loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer | None = None
) -> Budget:  # fmt: skip
    """Run one training step and return the bytes that it took, each storage once.

    Without an optimizer nothing is updated, and its bytes are 0. A step's own gradients are left in the model.

    >>> layer = nn.Linear(4, 2, bias=False)
    >>> measured(layer, lambda: layer(torch.ones(3, 4)).sum(), torch.optim.AdamW(layer.parameters()))
    Budget(weights=32, gradients=32, optimizer=68, activations=48, logits=0)
    """
    weights = [*model.parameters(), *model.buffers()]
    with saved_tensors(weights) as kept:
        value = loss()
    activations = storage_bytes(kept)
    kept.clear()
    value.backward()
    gradients = storage_bytes(weight.grad for weight in weights if weight.grad is not None)
    if optimizer is not None:
        optimizer.step()
    state = [] if optimizer is None else [value for entry in optimizer.state.values() for value in entry.values()]
    return Budget(
        storage_bytes(weights), gradients, storage_bytes(value for value in state if isinstance(value, Tensor)),
        activations,
    )  # fmt: skip


def imagined(
    config: Config, time: int, prepare: Callable[[Decoder], object] = lambda model: None, *, batch: int = 1,
    dtype: torch.dtype = torch.bfloat16, checkpointing: bool = False, layers: int | None = None,
) -> Budget:  # fmt: skip
    """Return what a training step of a model of any size would take, on tensors that have a shape and no numbers.

    `prepare` makes the model trainable as a method does (`add_lora`); gradients and Adam's two moments are in the
    parameters' own types. Every block keeps the same, so one and two blocks are measured and the rest is added by
    their difference; give `layers` to measure that many instead. Activations are those up to the head, which depends
    on how many positions are projected.

    >>> small = Config(100, 64, 6, 4, 4, 16, 128, biases=False)
    >>> imagined(small, 10) == imagined(small, 10, layers=6)
    True
    """

    def of(count: int) -> Budget:
        return imagined_blocks(replace(config, layers=count), time, prepare, batch, dtype, checkpointing)

    if layers is not None:
        return of(layers)
    pairs = zip(astuple(of(1)), astuple(of(2)), strict=True)
    return Budget(*(one + (config.layers - 1) * (two - one) for one, two in pairs))


def imagined_blocks(
    config: Config, time: int, prepare: Callable[[Decoder], object], batch: int, dtype: torch.dtype, checkpointing: bool
) -> Budget:
    """Return the budget of a model whose blocks are all measured."""
    before = torch.get_default_dtype()
    with FakeTensorMode(allow_non_fake_inputs=True):
        torch.set_default_dtype(dtype)  # a module on fake tensors can't be converted later
        try:
            model = Decoder(config)
            prepare(model)
            model.checkpointing = checkpointing
            weights = [*model.parameters(), *model.buffers()]
            with saved_tensors(weights) as kept:
                model.hidden(torch.zeros(batch, time, dtype=torch.long))
            trained = storage_bytes(parameter for parameter in model.parameters() if parameter.requires_grad)
            return Budget(storage_bytes(weights), trained, 2 * trained, storage_bytes(kept))
        finally:
            torch.set_default_dtype(before)


def chunked_loss(head: nn.Module, hidden: Tensor, targets: Tensor, chunk: int) -> Tensor:
    """Return the mean cross-entropy of positions (positions, d_model), projected to the vocabulary a chunk at a time.

    A chunk's logits are thrown away and computed again in the backward pass, so no more than one chunk's ever exist.

    >>> head, hidden, targets = nn.Linear(4, 9), torch.ones(6, 4), torch.arange(6)
    >>> torch.allclose(chunked_loss(head, hidden, targets, 2), cross_entropy(head(hidden), targets))
    True
    """

    def summed(states: Tensor, wanted: Tensor) -> Tensor:
        return cross_entropy(head(states).float(), wanted, reduction="sum")

    sums = [
        checkpoint(summed, states, wanted, use_reentrant=False)
        for states, wanted in zip(hidden.split(chunk), targets.split(chunk), strict=True)
    ]
    return torch.stack(sums).sum() / len(targets)  # pyright: ignore


def allocated_bytes(run: Callable[[], object]) -> int:
    """Run something on the CPU and return the most that its tensors took meanwhile, beyond what stood there before.

    >>> allocated_bytes(lambda: torch.zeros(1000) + torch.zeros(1000))
    12000
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # or torch's profiler writes its stages to stderr
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as seen:
        run()
    results = seen.profiler.kineto_results if seen.profiler is not None else None
    events = [] if results is None else [one for one in results.events() if one.name() == "[memory]"]
    now = most = 0
    for one in sorted(events, key=lambda one: one.start_ns()):
        now += one.nbytes()  # pyright: ignore
        most = max(most, now)
    return most


def peak_bytes(device: torch.device, run: Callable[[], object]) -> int | None:
    """Run something and return the most that the device's allocator held meanwhile, or None on a CPU, which has none.

    >>> peak_bytes(torch.device("cpu"), lambda: torch.zeros(3)) is None
    True
    """
    if device.type == "cpu":
        run()
        return None
    torch.accelerator.reset_peak_memory_stats(device)
    run()
    synchronize(device)
    return int(torch.accelerator.max_memory_allocated(device))


__all__ = [
    "GIB", "KIB", "LOGIT_BYTES", "MIB", "Budget", "allocated_bytes", "best_segments", "block_activation_bytes",
    "chunked_loss", "decoder_parameters", "imagined", "kept_bytes_per_token", "linear_parameters", "lora_parameters",
    "measured", "peak_bytes", "planned", "saved_tensors", "storage_bytes", "training_bytes", "zero_bytes",
]  # fmt: skip
