"""Two ways to measure a step's bytes: the card's own allocator, and on any machine a count of all living tensors.

The count observes the results of each operation. It needs no card, and works on tensors that have a shape but no
numbers. It can't see the memory that a kernel takes for itself while it runs.
"""

import gc
import time
import weakref
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from ftmath.device import synchronize
from ftmath.memory import identity
from ftmath.model import Config


class AliveBytes(TorchDispatchMode):
    """Count the bytes of all living tensors in a `with` block: `now`, the `peak`, and the `course` by operation.

    A tensor made before the block counts once it is given to `watch`, or returned by an operation. Each storage counts
    once. Sizes are rounded up to multiples of `unit` bytes; CUDA's allocator rounds to 512.

    >>> with AliveBytes() as alive:
    ...     x = torch.ones(4)
    ...     y = x * 2
    ...     del x
    >>> alive.now, alive.peak
    (16, 32)
    """

    def __init__(self, unit: int = 1) -> None:
        super().__init__()
        self.now = self.peak = 0
        self.unit = unit
        self.course: list[int] = []
        self.marks: dict[str, int] = {}
        self.seen: set[int] = set()

    def watch(self, tensors: Iterable[Tensor]) -> None:
        """Count these tensors from now on, until they are freed."""
        for tensor in tensors:
            key = identity(tensor)
            if key in self.seen:
                continue
            size = -(-tensor.untyped_storage().nbytes() // self.unit) * self.unit
            self.seen.add(key)
            self.now += size
            # The storage, not the tensor: views of it keep the bytes alive.
            weakref.finalize(tensor.untyped_storage(), self.forget, key, size)
        self.peak = max(self.peak, self.now)

    def forget(self, key: int, size: int) -> None:
        self.seen.discard(key)
        self.now -= size

    def mark(self, name: str) -> None:
        """Name the present moment."""
        self.marks[name] = len(self.course)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        self.watch(leaf for leaf in tree_leaves(found) if isinstance(leaf, Tensor))
        self.course.append(self.now)
        return found


def held(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> list[Tensor]:
    """Return the tensors that stay between steps: weights, gradients if there are any, and the optimizer's state."""
    weights = [*model.parameters(), *model.buffers()]
    gradients = [weight.grad for weight in weights if weight.grad is not None]
    entries = optimizer.state.values() if optimizer else ()
    state = [value for entry in entries for value in entry.values() if isinstance(value, Tensor)]
    return weights + gradients + state


def counted_peak(run: Callable[[], object], before: Iterable[Tensor], *, unit: int = 1) -> AliveBytes:
    """Run something and return the count of living tensors, those in `before` included.

    >>> x = torch.ones(100)
    >>> counted_peak(lambda: (x + 1) * 2, [x]).peak
    1200
    """
    alive = AliveBytes(unit)
    alive.watch(before)
    with alive:
        run()
    return alive


@contextmanager
def default_type(dtype: torch.dtype) -> Generator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@contextmanager
def shapes_only(dtype: torch.dtype) -> Generator[None]:
    """Make new tensors of the given type, with a shape but no numbers: a 7B model takes no memory."""
    with FakeTensorMode(allow_non_fake_inputs=True), default_type(dtype):
        yield


def free_all() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def card_peak(device: torch.device, run: Callable[[], object]) -> dict[str, int]:
    """Run something on a CUDA card and return the allocator's peaks in bytes, and the bytes held before.

    `requested` is what the program asked for, `allocated` the same rounded up to blocks, and `reserved` what the
    allocator took from the card. The difference of the last two is fragmentation.
    """
    synchronize(device)
    torch.cuda.empty_cache()
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    synchronize(device)
    stats = torch.cuda.memory_stats(device)
    names = {"requested": "requested_bytes", "allocated": "allocated_bytes", "reserved": "reserved_bytes"}
    return {"before": before} | {name: int(stats[f"{key}.all.peak"]) for name, key in names.items()}


def output_is_copied(device: torch.device, config: Config) -> bool:
    """Say whether the output of fused attention must be copied before the next layer reads it.

    >>> output_is_copied(torch.device("cpu"), Config())
    True
    """
    heads, kv_heads, width = config.heads, config.kv_heads, config.head_dim
    q = torch.zeros(2, heads, 128, width, dtype=torch.bfloat16, device=device, requires_grad=True)
    k = torch.zeros(2, kv_heads, 128, width, dtype=torch.bfloat16, device=device)
    v = torch.zeros(2, 128, kv_heads, width, dtype=torch.bfloat16, device=device).transpose(1, 2)
    found = F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=heads != kv_heads)
    return not found.transpose(1, 2).is_contiguous()


def card_course(device: torch.device, run: Callable[[Callable[[str], None]], object], points: int = 400) -> Any:
    """Run something on a CUDA card; return the bytes that its allocator held after each event, and the named moments.

    `run` gets a function that names the present moment. A long course is thinned to `points` points and keeps its peak.
    """
    begin = torch.cuda.memory_allocated(device)
    marks: dict[str, int] = {}
    start = time.time_ns() // 1000

    def mark(name: str) -> None:
        marks[name] = time.time_ns() // 1000

    torch.cuda.memory._record_memory_history(context=None, max_entries=200_000)  # pyright: ignore
    try:
        run(mark)
        synchronize(device)
        found: Any = torch.cuda.memory._snapshot(device)  # pyright: ignore
    finally:
        torch.cuda.memory._record_memory_history(enabled=None)  # pyright: ignore
    events = found["device_traces"][device.index or 0]
    course, times, now = [begin], [0], begin
    for event in events:
        if event["action"] in ("alloc", "free_completed") and event.get("time_us", start) >= start:
            now += event["size"] if event["action"] == "alloc" else -event["size"]
            course.append(now)
            times.append(event.get("time_us", 0))
    places = {name: sum(at <= moment for at in times) for name, moment in marks.items()}
    return thinned(course, places, points)


def thinned(course: list[int], marks: dict[str, int], points: int = 400) -> dict[str, Any]:
    """Return a course of bytes in at most `points` points, each the largest value of a stretch.

    >>> thinned([1, 5, 2, 3], {"backward": 2}, points=2)
    {'bytes': [5, 3], 'marks': {'backward': 1}, 'events': 4}
    """
    stride = max(1, -(-len(course) // points))
    kept = [max(course[at : at + stride]) for at in range(0, len(course), stride)]
    return {"bytes": kept, "marks": {name: at // stride for name, at in marks.items()}, "events": len(course)}


def median_seconds(device: torch.device, run: Callable[[], object], *, warm: int = 2, rounds: int = 5) -> float:
    """Return the median seconds of a call over some rounds, after calls that aren't timed."""
    for _ in range(warm):
        run()
    times: list[float] = []
    for _ in range(rounds):
        synchronize(device)
        start = time.perf_counter()
        run()
        synchronize(device)
        times.append(time.perf_counter() - start)
    return sorted(times)[len(times) // 2]


__all__ = [
    "AliveBytes", "card_course", "card_peak", "counted_peak", "default_type", "free_all", "held", "median_seconds",
    "output_is_copied", "shapes_only", "thinned",
]  # fmt: skip
