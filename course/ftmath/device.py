"""Where the numbers are computed: an accelerator that is really there, else the CPU, and in which precision."""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median

import torch


def best_device() -> torch.device:
    """Return the accelerator of this machine if there is one that works, else the CPU.

    torch's name for "the accelerator" is that of its build: a CUDA build without a GPU says `cuda`, unless it is asked
    to look (https://docs.pytorch.org/docs/stable/accelerator.html).

    >>> best_device().type in ("cpu", "cuda", "mps", "xpu")
    True
    """
    return torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")


def describe(device: torch.device) -> str:
    """Return a device in words, as every demo prints it.

    >>> describe(torch.device("cpu")).startswith("cpu (")
    True
    """
    if device.type == "cuda":
        return f"cuda ({torch.cuda.get_device_name(device)})"
    if device.type == "cpu":
        threads = torch.get_num_threads()
        return f"cpu ({threads} thread{'s' if threads != 1 else ''})"
    return device.type


def synchronize(device: torch.device) -> None:
    """Wait until the device has done what it was given, so that a clock read now tells the truth."""
    if device.type != "cpu":
        torch.accelerator.synchronize(device)


def fastest_dtype(
    device: torch.device, candidates: Sequence[torch.dtype] = (torch.float32, torch.bfloat16), size: int = 512
) -> torch.dtype:
    """Return the precision in which this device multiplies two (size, size) matrices fastest, by a short measurement.

    A processor without instructions for bfloat16 computes it more slowly than float32, so it can't be known from the
    name. A wider type wins unless a narrower one takes less than 0.8 of its time.

    >>> fastest_dtype(torch.device("cpu"), [torch.float32])
    torch.float32
    """
    times = {dtype: matmul_seconds(device, dtype, size) for dtype in candidates}
    best = candidates[0]
    for dtype in candidates[1:]:
        if times[dtype] < 0.8 * times[best]:
            best = dtype
    return best


def matmul_seconds(device: torch.device, dtype: torch.dtype, size: int, rounds: int = 5) -> float:
    """Return the shortest time of a few products."""
    x = torch.ones(size, size, device=device, dtype=dtype)
    times: list[float] = []
    for _ in range(rounds):
        start = time.perf_counter()
        _ = x @ x
        synchronize(device)
        times.append(time.perf_counter() - start)
    return min(times)


def relative_times(
    ways: Mapping[str, Callable[[], object]],
    device: torch.device | None = None,
    *,
    rounds: int = 3,
    calls: int = 5,
    clock: Callable[[], float] = time.perf_counter,
) -> dict[str, float]:
    """Return how long each way takes beside the first one: the median over rounds of the ratio of its shortest call.

    Within a round the ways take turns, so that a busy machine slows all of them. On one thread of a shared machine,
    `clock=time.process_time` counts this program's work alone.

    >>> import time
    >>> found = relative_times({"short": lambda: time.sleep(0.002), "long": lambda: time.sleep(0.02)})
    >>> found["short"], found["long"] > 3
    (1.0, True)
    """
    device = device or torch.device("cpu")
    ratios: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        shortest = dict.fromkeys(ways, float("inf"))
        for _ in range(calls):
            for name, way in ways.items():
                synchronize(device)
                start = clock()
                way()
                synchronize(device)
                shortest[name] = min(shortest[name], clock() - start)
        first = next(iter(shortest.values()))
        for name, seconds in shortest.items():
            ratios[name].append(seconds / first)
    return {name: median(found) for name, found in ratios.items()}


__all__ = ["best_device", "describe", "fastest_dtype", "relative_times", "synchronize"]
