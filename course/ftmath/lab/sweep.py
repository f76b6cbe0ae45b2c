"""Predict the peaks of many steps, then measure them: on a card by its allocator, elsewhere by counting."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from ftmath.lab.cards import Budget, Record
from ftmath.lab.forms import SHAPES, Setup, largest_batch, predicted
from ftmath.lab.meters import (
    AliveBytes,
    card_course,
    card_peak,
    default_type,
    free_all,
    held,
    output_is_copied,
    shapes_only,
    thinned,
)  # fmt: skip
from ftmath.lab.steps import build, chunked_loss, dpo_step, grpo_step, make_optimizer, plain_loss, step
from ftmath.memory import GIB, MIB
from ftmath.model import Config, Decoder

CARD_SIZES = (6, 8, 12, 16, 24, 40)
SPARE = 1 * GIB
"""The bytes of a card that a step can't use: the driver's and a desktop's."""


def setups_for(toy: bool) -> list[Setup]:
    """Return the steps to be measured, the most important first, grouped by shape and method."""
    if toy:
        one = [Setup("toy", time=64, batch=2), Setup("toy", time=64, batch=2, checkpointing=True)]
        loss = [Setup("small", "LoRA", time=64, batch=2, chunks=chunks) for chunks in (1, 4)]
        pair = Setup("small", "LoRA", "dpo", time=32, batch=2)
        return [*one, *loss, pair, replace(pair, task="grpo", answer=8, rank=16), Setup("toy", "QLoRA", time=64)]
    found: list[Setup] = []
    for shape, batch in (("135M", 8), ("1.5B", 4), ("7B", 2), ("0.5B", 8)):
        for method in ("full", "LoRA", "QLoRA"):
            base = Setup(shape, method, batch=batch)
            long = replace(base, batch=max(1, batch // 4), time=4096, checkpointing=True)
            found += [base, replace(base, checkpointing=True), replace(base, checkpointing=True, chunks=8)]
            found += [replace(base, chunks=8), long, replace(long, chunks=8)]
            if method != "QLoRA" and shape in ("135M", "1.5B"):
                found.append(replace(base, task="dpo", batch=batch // 2))
                found.append(replace(base, task="grpo", batch=8, time=512, checkpointing=True))
    # A 7B model's plain full step is the one that hardly fits; QLoRA of the small shapes is measured last.
    order = {"full": 0, "LoRA": 1, "QLoRA": 2}
    late = [setup for setup in found if setup.method == "QLoRA" and setup.shape in ("0.5B", "1.5B")]
    return sorted((s for s in found if s not in late), key=lambda s: ("135M", "1.5B", "7B", "0.5B").index(s.shape) * 3
                  + order[s.method]) + late  # fmt: skip


def loss_of(setup: Setup, model: Decoder, reference: Decoder | None, ids: Tensor) -> Callable[[], Tensor]:
    """Return a function that computes the loss of a setup on some tokens, to be called once a step."""
    if setup.task == "dpo":
        return lambda: dpo_step(model, reference, ids)
    if setup.task == "grpo":
        prompts = ids[:, : setup.time - setup.answer]
        group = next(size for size in (8, 4, 2) if setup.batch % size == 0)
        return lambda: grpo_step(model, reference, prompts, setup.answer, group)
    if setup.chunks > 1:
        return lambda: chunked_loss(model, ids, setup.chunks)
    return lambda: plain_loss(model, ids)


def prepared(setup: Setup, config: Config, device: torch.device, model: Decoder) -> tuple[Callable[[], Tensor], Any]:
    """Return the loss function of a setup on a model, and what must be kept alive: the reference and the tokens."""
    model.checkpointing = setup.checkpointing
    reference = None
    if setup.task != "sft" and not setup.adapters:
        reference = build(config, "full", device).requires_grad_(False)
    ids = torch.zeros(setup.rows, setup.time, dtype=torch.long, device=device)
    if device.type == "cuda":
        ids.random_(0, config.vocab)
    return loss_of(setup, model, reference, ids), (reference, ids)


def counted(setup: Setup, config: Config | None = None) -> AliveBytes:
    """Count the bytes of a setup's second step on tensors without numbers; it needs no card and little memory.

    >>> counted(Setup("toy", time=8)).peak == counted(Setup("toy", time=8)).peak
    True
    """
    config = config or SHAPES[setup.shape]
    with shapes_only(torch.bfloat16):
        model = build(config, setup.method, rank=setup.rank)
        loss, (reference, ids) = prepared(setup, config, torch.device("cpu"), model)
        optimizer = make_optimizer(model)
        step(loss, optimizer)
        alive = AliveBytes()
        alive.watch([*held(model, optimizer), ids, *(reference.parameters() if reference else ())])
        with alive:
            step(loss, optimizer, alive.mark)
    return alive


def finding(
    setup: Setup, measured: dict[str, int] | None, note: str = "", *, copied: bool = True
) -> dict[str, Any]:  # fmt: skip
    """Return a prediction and its measurement as the record stores them."""
    peak = predicted(setup, copied=copied)
    return {
        "copied": copied,
        "name": setup.name, "setup": asdict(setup), "predicted": peak.total, "moment": peak.moment, "terms": peak.terms,
        "measured": measured, "note": note,
    }  # fmt: skip


def line(found: dict[str, Any]) -> str:
    """Return a stored measurement as a line of text."""
    measured = found["measured"]
    if measured is None:
        return f"  {found['name']:<44} {found['predicted'] / MIB:>10,.0f} MiB  {found['note']}"
    seen = measured.get("allocated", measured.get("counted"))
    off = f"{found['predicted'] / seen - 1:+.1%}"
    return f"  {found['name']:<44} {found['predicted'] / MIB:>10,.0f} MiB  {seen / MIB:>10,.0f} MiB  {off}"


def measure_memory(record: Record, budget: Budget, device: torch.device, setups: Sequence[Setup]) -> None:
    """Measure the peak of each setup that the budget allows; note those that don't fit."""
    record.begin("memory")
    record.say(f"memory: predicted, {'the allocator peak' if device.type == 'cuda' else 'counted'}, prediction's error")
    for (shape, method), mine in groupby(setups, key=lambda setup: (setup.shape, setup.method)):
        group = list(mine)
        if budget.left <= 0:
            for setup in group:
                record.skip("memory", setup.name, "out of time")
        elif device.type == "cuda":
            try:
                with default_type(torch.bfloat16):
                    for found in measured_on_card(group, device, SHAPES[shape], method, budget):
                        keep(record, found)
            except RuntimeError as error:  # another group may still fit
                record.skip("memory", f"the rest of {shape} {method}", f"{type(error).__name__}: {str(error)[:120]}")
        else:
            for setup in group:
                keep(record, finding(setup, {"counted": counted(setup).peak}))
        free_all()


def keep(record: Record, found: dict[str, Any]) -> None:
    record.say(line(found))
    record.add("memory", found)


def measured_on_card(
    setups: Iterable[Setup], device: torch.device, config: Config, method: str, budget: Budget
) -> Iterator[dict[str, Any]]:
    """Yield the findings of setups that share a model, each from its second step, when Adam's moments exist."""
    free_all()
    model = build(config, method, device)
    optimizer = make_optimizer(model)
    room, copied = torch.cuda.get_device_properties(device).total_memory, output_is_copied(device, config)
    for setup in setups:
        if budget.left <= 0:
            yield finding(setup, None, "out of time", copied=copied)
        elif predicted(setup).total > 1.05 * room:
            yield finding(setup, None, "not tried: more than the card holds", copied=copied)
        else:
            yield measured_step(setup, config, device, model, optimizer, copied)
            optimizer.zero_grad(set_to_none=True)
            free_all()


def measured_step(
    setup: Setup, config: Config, device: torch.device, model: Decoder, optimizer: torch.optim.Optimizer, copied: bool
) -> dict[str, Any]:
    """Return the finding of one setup on a card: its peak, or the reason why there is none."""
    try:
        loss, _kept = prepared(setup, config, device, model)
        step(loss, optimizer)
        return finding(setup, card_peak(device, lambda: step(loss, optimizer)), copied=copied)
    except torch.cuda.OutOfMemoryError:
        return finding(setup, None, "out of memory", copied=copied)
    except RuntimeError as error:
        return finding(setup, None, f"{type(error).__name__}: {str(error)[:120]}", copied=copied)


def measure_timeline(record: Record, budget: Budget, device: torch.device, toy: bool) -> None:
    """Record the bytes held after each event of a step: plain, with a chunked loss, with checkpoints, and with both."""
    record.begin("timeline")
    base = Setup("small", batch=2, time=128) if toy else Setup("135M", batch=4)
    for checkpointing, chunks in ((False, 1), (False, 8), (True, 1), (True, 8)):
        setup = replace(base, checkpointing=checkpointing, chunks=chunks)
        if budget.left <= 0:
            record.skip("timeline", setup.name, "out of time")
            continue
        if device.type != "cuda":
            alive = counted(setup)
            course = thinned(alive.course, alive.marks)
        else:
            course = course_on_card(setup, device)
            free_all()
        record.add("timeline", {"name": setup.name, "setup": asdict(setup), **course})
        record.say(f"  timeline of {setup.name}: peak {max(course['bytes']) / MIB:,.0f} MiB, {course['events']} events")


def course_on_card(setup: Setup, device: torch.device) -> dict[str, Any]:
    """Return the bytes that a card's allocator held after each event of a setup's second step."""
    with default_type(torch.bfloat16):
        model = build(SHAPES[setup.shape], setup.method, device)
        optimizer = make_optimizer(model)
        loss, _kept = prepared(setup, SHAPES[setup.shape], device, model)
        step(loss, optimizer)
        return card_course(device, lambda mark: step(loss, optimizer, mark))


def fitting_batches(setup: Setup, size: float) -> tuple[int, int]:
    """Return the largest batch that should fit on a card of `size` GiB, and one that shouldn't.

    The first leaves a twentieth of the card to workspace and fragments; the second is a tenth above what fits without.
    """
    room = size * GIB - SPARE
    return largest_batch(setup, 0.95 * room), int(largest_batch(setup, room) * 1.1) + 1


def measure_fits(record: Record, budget: Budget, device: torch.device) -> None:
    """Limit a card to smaller sizes and record whether the predicted largest batch runs, and a larger one doesn't."""
    record.begin("fits")
    if device.type != "cuda":
        return record.skip("fits", "smaller cards", "no card")
    room = torch.cuda.get_device_properties(device).total_memory
    for base in (Setup("1.5B", "LoRA", checkpointing=True), Setup("0.5B", "full", chunks=8)):
        with default_type(torch.bfloat16):
            for size in CARD_SIZES:
                most, more = fitting_batches(base, size)
                if budget.left <= 0 or not most:
                    record.skip("fits", f"{base.name} on {size} GB", "out of time" if most else "not even one row fits")
                    continue
                torch.cuda.set_per_process_memory_fraction((size * GIB - SPARE) / room, device)
                runs = {str(batch): fits(replace(base, batch=batch), device) for batch in (most, more)}
                torch.cuda.set_per_process_memory_fraction(1.0, device)
                record.add("fits", {"setup": asdict(base), "size": size, "most": most, "more": more, "runs": runs})
                record.say(
                    f"  {base.shape} {base.method} on {size} GB: {most} rows {runs[str(most)]}, "
                    f"{more} {runs[str(more)]}"
                )
    return None


def fits(setup: Setup, device: torch.device) -> bool:
    """Say whether two steps of a setup run without running out of memory."""
    free_all()
    try:
        model = build(SHAPES[setup.shape], setup.method, device)
        optimizer = make_optimizer(model)
        loss, _kept = prepared(setup, SHAPES[setup.shape], device, model)
        step(loss, optimizer)
        step(loss, optimizer)
        torch.cuda.synchronize(device)
    except torch.cuda.OutOfMemoryError:
        return False
    return True


__all__ = [
    "CARD_SIZES", "counted", "finding", "fitting_batches", "loss_of", "measure_fits", "measure_memory",
    "measure_timeline", "setups_for",
]  # fmt: skip
