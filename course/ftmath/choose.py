"""Which method: what each one gives and costs, as it was measured, against what is needed."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ftmath.evaluate import pareto_set
from ftmath.weights import FOLDER


@dataclass(frozen=True, slots=True)
class Option:
    """One way to have a task done: trained somehow, and served somehow.

    `quality` is the accuracy on the task and `forgotten` the accuracy lost on what the model knew, both within [0, 1];
    `training` is the run's time in steps of full tuning and `step_bytes` what a step takes; `once_bytes` stand there
    for all tasks and `each_bytes` for each; `latency` is the time of a request beside the base's.

    >>> lora = Option("LoRA", 0.9, 0.1, training=80, step_bytes=40, once_bytes=20, each_bytes=1, latency=1.3)
    >>> lora.served_bytes(tasks=10)
    30
    """

    name: str
    quality: float
    forgotten: float
    training: float
    step_bytes: int
    once_bytes: int
    each_bytes: int
    latency: float

    def served_bytes(self, tasks: int) -> int:
        """Return what so many tasks take in memory when all are served at once."""
        return self.once_bytes + tasks * self.each_bytes

    def told(self, tell: float) -> "Option":
        """Return the option with quality, forgetting and latency rounded to multiples of `tell`; 0 leaves them.

        >>> Option("LoRA", 0.87, 0.02, 80, 40, 20, 1, 1.31).told(0.1).scores(1)[:2]
        (0.9, -0.0)
        """
        if not tell:
            return self
        quality, forgotten, latency = (
            round(tell * round(value / tell), 6) + 0.0 for value in (self.quality, self.forgotten, self.latency)
        )
        return replace(self, quality=quality, forgotten=forgotten, latency=latency)

    def scores(self, tasks: int) -> tuple[float, ...]:
        """Return everything that counts, each as a number that is better when higher."""
        costs = self.forgotten, self.training, self.step_bytes, self.served_bytes(tasks), self.latency
        return self.quality, *(-cost for cost in costs)


@dataclass(frozen=True, slots=True)
class Needs:
    """What is demanded; what isn't given is free.

    `quality` is the least accuracy, `forgotten` the most that may be lost, `training` the longest run in steps of full
    tuning, `memory_bytes` the machine's, for a training step and for serving all `tasks` at once, `latency` the most
    time of a request beside the base's.

    >>> Needs(quality=0.9).tasks
    1
    """

    quality: float = 0.0
    forgotten: float = 1.0
    training: float = math.inf
    memory_bytes: float = math.inf
    latency: float = math.inf
    tasks: int = 1

    def refusals(self, option: Option) -> tuple[str, ...]:
        """Return why an option won't do, a sentence for each demand that it fails."""
        served = option.served_bytes(self.tasks)
        found = {
            f"quality {option.quality:.2f} is below {self.quality:.2f}": option.quality < self.quality,
            f"it forgets {option.forgotten:.2f}, more than {self.forgotten:.2f}": option.forgotten > self.forgotten,
            f"a run takes {option.training:.0f} full steps, more than {self.training:.0f}":
                option.training > self.training,
            f"a step takes {mib(option.step_bytes)} of {mib(self.memory_bytes)}": option.step_bytes > self.memory_bytes,
            f"serving {self.tasks} takes {mib(served)} of {mib(self.memory_bytes)}": served > self.memory_bytes,
            f"a request takes {option.latency:.2f} times the base's, more than {self.latency:.2f}":
                option.latency > self.latency,
        }  # fmt: skip
        return tuple(words for words, failed in found.items() if failed)


@dataclass(frozen=True, slots=True)
class Advice:
    """What is left and why the rest isn't: `front` best quality first, `refused` by demands, `beaten` by who is better.

    >>> advice = recommend([Option("full", 0.9, 0.0, 80, 4, 0, 1, 1.0)], Needs(quality=0.95))
    >>> advice.front, advice.why
    ((), 'no option has a quality of 0.95: the nearest is full with 0.90')
    """

    front: tuple[Option, ...]
    refused: dict[str, tuple[str, ...]]
    beaten: dict[str, str]
    why: str


def recommend(options: Sequence[Option], needs: Needs, tell: float = 0.0) -> Advice:
    """Return the options that meet every demand and that no other option beats in everything.

    Which comes first doesn't matter: whatever beats an option meets the demands that it meets. Differences in quality,
    forgetting and latency below `tell` shouldn't decide who beats whom, so these are compared in multiples of it.
    Demands are always asked of the numbers as they were measured: a rounded 0.78 would pass a demand of 0.80.

    >>> cheap, good = Option("prompt", 0.6, 0.0, 0, 1, 1, 0, 1.0), Option("full", 0.9, 0.1, 80, 9, 0, 1, 1.0)
    >>> worse = Option("adapter", 0.8, 0.2, 80, 9, 1, 1, 1.2)
    >>> advice = recommend([cheap, good, worse], Needs())
    >>> [option.name for option in advice.front], advice.beaten
    (['full', 'prompt'], {'adapter': 'full'})

    Errors: ValueError without options, for a name that stands twice, for fewer than one task, or a negative `tell`.
    """
    names = [option.name for option in options]
    if not names or len(set(names)) != len(names):
        raise ValueError(f"options must have names of their own, got {names}")
    if needs.tasks < 1:
        raise ValueError(f"tasks must be at least 1, got {needs.tasks}")
    if tell < 0:
        raise ValueError(f"tell must not be negative, got {tell}")
    refused = {option.name: needs.refusals(option) for option in options if needs.refusals(option)}
    left = [option for option in options if option.name not in refused]
    rounded = {option.name: option.told(tell) for option in left}
    best = pareto_set({name: option.scores(needs.tasks) for name, option in rounded.items()})
    front = sorted(
        (option for option in left if option.name in best), key=lambda option: (-option.quality, option.name)
    )
    beaten = {
        option.name: next(
            other.name for other in front if beats(rounded[other.name], rounded[option.name], needs.tasks)
        )
        for option in left
        if option.name not in best
    }
    why = f"{len(front)} of {len(options)} are left" if front else why_nothing(options, needs)
    return Advice(tuple(front), refused, beaten, why)


def beats(one: Option, other: Option, tasks: int) -> bool:
    """Say whether one option is at least as good as another in everything, and better in something."""
    mine, theirs = one.scores(tasks), other.scores(tasks)
    return mine != theirs and all(a >= b for a, b in zip(mine, theirs, strict=True))


def why_nothing(options: Sequence[Option], needs: Needs) -> str:
    """Return which demand nobody meets, and who is nearest; or, where each is met by someone, which one to give up."""

    def peak(option: Option) -> int:
        return max(option.step_bytes, option.served_bytes(needs.tasks))

    good, safe = max(options, key=lambda o: o.quality), min(options, key=lambda o: o.forgotten)
    small, fast = min(options, key=peak), min(options, key=lambda o: o.latency)
    short = min(options, key=lambda o: o.training)
    alone = {
        f"no option has a quality of {needs.quality:.2f}: the nearest is {good.name} with {good.quality:.2f}":
            good.quality < needs.quality,
        f"every option forgets more than {needs.forgotten:.2f}: the nearest is {safe.name} with {safe.forgotten:.2f}":
            safe.forgotten > needs.forgotten,
        f"every run is longer than {needs.training:.0f} full steps: the nearest is {short.name} with "
        f"{short.training:.0f}": short.training > needs.training,
        f"no option fits into {mib(needs.memory_bytes)}: the nearest is {small.name} with {mib(peak(small))}":
            peak(small) > needs.memory_bytes,
        f"no option answers within {needs.latency:.2f} of the base's time: the nearest is {fast.name} with "
        f"{fast.latency:.2f}": fast.latency > needs.latency,
    }  # fmt: skip
    found = [words for words, failed in alone.items() if failed]
    if found:
        return "; ".join(found)
    without = {
        "quality": replace(needs, quality=0.0),
        "forgetting": replace(needs, forgotten=1.0),
        "training": replace(needs, training=math.inf),
        "memory": replace(needs, memory_bytes=math.inf),
        "latency": replace(needs, latency=math.inf),
    }
    opened = [name for name, other in without.items() if any(not other.refusals(option) for option in options)]
    more = f"giving up one of these would leave some: {', '.join(opened)}" if opened else "no single one is to blame"
    return f"each demand is met by some option, all of them by none; {more}"


def mib(count: float) -> str:
    return f"{count / 2**20:.1f} MiB"


# -------------------------------------------------------------------------------------------------- what was measured


def choosing_table() -> dict[str, Any]:
    """Return the committed measurements: `runs` by method, task, examples and seed, and `costs` by method.

    `benchmarks/choosing.py` made them and says how.

    >>> sorted(choosing_table())[:3]
    ['costs', 'left_out', 'not_run']
    """
    return json.loads((FOLDER / "choosing.json").read_text("utf-8"))


def measured_options(task: str, examples: int) -> list[Option]:
    """Return every measured way to do a task with so many examples, each with its *worst* seed.

    A choice should survive another seed. What needs no training is there whatever the number of examples. With 128
    probes a quality's standard error is up to 0.04.

    >>> [option.quality for option in measured_options("flip", 512) if option.name == "better prompt"]
    [0.9766]

    Errors: ValueError for a task or a number of examples that wasn't measured.
    """
    table = choosing_table()
    here = [run for run in table["runs"] if run["task"] == task and run["examples"] in (0, examples)]
    if not any(run["examples"] == examples for run in here):
        known = sorted({(run["task"], run["examples"]) for run in table["runs"] if run["examples"]})
        raise ValueError(f"task and examples must be measured ones, {known}; got {task!r} and {examples}")
    base = max(run["kept"] for run in here if run["method"] == "as it is")
    options: list[Option] = []
    for cost in table["costs"]:
        # A longer run of a method costs what the method costs, for longer.
        rows = {run["method"] for run in here if run["method"].removesuffix(", long") == cost["method"]}
        for row in sorted(rows):
            runs = [run for run in here if run["method"] == row]
            name = f"{row}, {cost['way']}" if cost["way"] else row
            options.append(
                Option(
                    name, min(run["quality"] for run in runs), round(base - min(run["kept"] for run in runs), 4) + 0.0,
                    cost["step"] * runs[0].get("steps", table["steps"]), cost["step_bytes"], cost["once"],
                    cost["each"], cost["latency"],
                )
            )  # fmt: skip
    return options


__all__ = ["Advice", "Needs", "Option", "choosing_table", "measured_options", "recommend"]
