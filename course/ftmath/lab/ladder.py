"""A ladder of speed: each rung changes one thing, gets a floor from the card's ceilings, and is then timed."""

import importlib
from collections.abc import Callable
from contextlib import AbstractContextManager, ExitStack, nullcontext
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from ftmath.lab.cards import Budget, Record
from ftmath.lab.forms import SHAPES, step_flops
from ftmath.lab.meters import card_peak, default_type, free_all, median_seconds
from ftmath.lab.steps import LINEARS, UNSEEN, build, chunked_loss, plain_loss, step, targets_of
from ftmath.memory import decoder_parameters, kept_bytes_per_token
from ftmath.model import Config, Decoder


@dataclass(frozen=True, slots=True)
class Rung:
    """How a step differs from the textbook's: in 32 bits, scores written to memory, one tensor updated at a time."""

    name: str
    tf32: bool = False
    autocast: bool = False
    narrow: bool = False
    flash: bool = False
    optimizer: str = "loop"
    chunks: int = 1
    compiled: bool = False
    packed: bool = False
    checkpointing: bool = False


def rungs() -> list[Rung]:
    """Return the ladder. Each rung keeps the changes of those before it; the last two stand beside it."""
    first = Rung("fp32 by the book")
    found = [first]
    for name, change in (
        ("tf32 products", {"tf32": True}), ("bf16 autocast", {"autocast": True}), ("fused attention", {"flash": True}),
        ("fused optimizer", {"optimizer": "fused"}), ("chunked loss", {"chunks": 8}),
        ("compiled blocks", {"compiled": True}),
        ("packed rows", {"packed": True}),
    ):  # fmt: skip
        found.append(replace(found[-1], name=name, **change))
    aside = replace(found[4], autocast=False, narrow=True)
    return [*found, replace(aside, name="bf16 weights"), replace(aside, name="bf16, checkpointed", checkpointing=True)]


# ------------------------------------------------------------------------------------------------------------ ceilings


def ceilings(device: torch.device, toy: bool) -> dict[str, float]:
    """Return the device's ceilings: operations a second of products, bytes a second of a copy, seconds a launch."""
    size = 512 if toy else 8192
    found: dict[str, float] = {}
    for name, dtype, tf32 in (
        ("fp32", torch.float32, False),
        ("tf32", torch.float32, True),
        ("bf16", torch.bfloat16, False),
    ):
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        x = torch.randn(size, size, device=device, dtype=dtype)
        found[name] = 2 * size**3 / median_seconds(device, lambda: x @ x, warm=3, rounds=5)  # noqa: B023
    torch.set_float32_matmul_precision("highest")
    source = torch.randn((2**20 if toy else 2**28), device=device)
    target = torch.empty_like(source)
    found["copy"] = 2 * source.nbytes / median_seconds(device, lambda: target.copy_(source), warm=3, rounds=5)
    tiny = torch.ones(1, device=device)
    many = 200

    def launches() -> None:
        for _ in range(many):
            tiny.add_(1)

    found["launch"] = median_seconds(device, launches, warm=2, rounds=5) / many
    return found


def measure_ceilings(record: Record, budget: Budget, device: torch.device, toy: bool) -> None:
    """Record the device's ceilings."""
    record.begin("ceilings")
    found = ceilings(device, toy)
    record.add("ceilings", found)
    rates = ", ".join(f"{name} {found[name] / 1e12:,.1f}" for name in ("fp32", "tf32", "bf16"))
    record.say(
        f"ceilings: products {rates} TFLOP/s; copies {found['copy'] / 1e12:.2f} TB/s; "
        f"a launch {found['launch'] * 1e6:.1f} us"
    )


# ---------------------------------------------------------------------------------------------------------- prediction

LAUNCHES = {False: 115, True: 40}
"""Kernels that a block starts in both passes. Eager (False): operations that aren't views, counted by a test. Compiled
(True): a guess.

The H200's record was predicted with 150 for eager blocks, before they were counted.
"""
CASTS = 33
"""Kernels that autocast adds to an eager block, to convert weights and inputs to 16 bits, and gradients back."""


def predicted_seconds(rung: Rung, config: Config, rows: int, time: int, top: dict[str, float]) -> dict[str, float]:
    """Return the seconds that the parts of a step take at the ceilings, and their `total`, a rough floor.

    Products run at the ceiling's rate, everything else at the rate of a copy. Five passes read or write what a block
    keeps (half as many where it is compiled), and twelve the scores that are written to memory. A logit costs 40 bytes
    of traffic. Adam costs 28 bytes a parameter in one kernel, and 80 in many. These counts are rough. If starting all
    kernels takes longer than the sum of the parts, that is the total.
    """
    tokens = rows * time
    wide = 1 if rung.narrow else 2 if not rung.autocast else 1.5
    kind = "bf16" if rung.autocast or rung.narrow else "tf32" if rung.tf32 else "fp32"
    forward = step_flops(config, tokens, time) / 3
    again = (forward if rung.checkpointing else 0) + (
        2 * tokens * config.vocab * config.d_model if rung.chunks > 1 else 0
    )
    blocks = 5 * tokens * config.layers * kept_bytes_per_token(config) * wide * (0.5 if rung.compiled else 1)
    scores = 0 if rung.flash else 12 * config.layers * config.heads * tokens * time * 2 * wide
    update = (28 if rung.optimizer == "fused" else 80) * decoder_parameters(config) / (2 if rung.narrow else 1)
    parts = {
        "products": (3 * forward + again) / top[kind], "blocks": blocks / top["copy"], "scores": scores / top["copy"],
        "loss": 40 * tokens * config.vocab / top["copy"], "optimizer": update / top["copy"],
    }  # fmt: skip
    tensors = 9 * config.layers + 2
    casts = CASTS if rung.autocast and not rung.compiled else 0
    starts = (LAUNCHES[rung.compiled] + casts) * config.layers * (4 / 3 if rung.checkpointing else 1)
    starts += 30 * rung.chunks + (12 * tensors if rung.optimizer == "loop" else 20)
    return parts | {"launches": starts * top["launch"], "total": max(sum(parts.values()), starts * top["launch"])}


# --------------------------------------------------------------------------------------------------------- measurement


def drawn_rows(vocab: int, rows: int, time: int, packed: bool, device: torch.device) -> tuple[Tensor, Tensor, int]:
    """Return ids and targets (rows, time), and how many tokens are real.

    Lines have uniformly drawn lengths from `time` / 4 to `time`, and are padded. Packed rows are full, as if several
    lines followed each other, each seeing those before it.
    """
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(1, vocab, (rows, time), generator=generator)
    lengths = torch.randint(time // 4, time + 1, (rows,), generator=generator)
    real = torch.ones(rows, time, dtype=torch.bool) if packed else torch.arange(time) < lengths[:, None]
    ids = ids.where(real, 0)
    targets = targets_of(ids).where(F.pad(real[:, 1:], (0, 1)), UNSEEN)
    return ids.to(device), targets.to(device), int(real.sum())


def optimizer_of(rung: Rung, model: Decoder) -> torch.optim.Optimizer:
    kind: dict[str, Any] = {"loop": {"foreach": False}, "many": {"foreach": True}, "fused": {"fused": True}}[
        rung.optimizer
    ]
    return torch.optim.AdamW(model.parameters(), lr=1e-5, **kind)


def timed(rung: Rung, config: Config, rows: int, time: int, device: torch.device, rounds: int) -> dict[str, Any]:
    """Return the median seconds of a rung's step, its real tokens, and on a card its peak bytes."""
    torch.set_float32_matmul_precision("high" if rung.tf32 else "highest")
    with ExitStack() as stack:
        stack.enter_context(default_type(torch.bfloat16 if rung.narrow else torch.float32))
        if not rung.flash:
            stack.enter_context(sdpa_kernel(SDPBackend.MATH))
        model = build(config, "full", device)
        model.checkpointing = rung.checkpointing
        if rung.compiled:
            for block in model.blocks:
                block.compile(dynamic=False)
        optimizer = optimizer_of(rung, model)
        ids, targets, real = drawn_rows(config.vocab, rows, time, rung.packed, device)

        def loss() -> Tensor:
            block: AbstractContextManager[Any] = nullcontext()
            if rung.autocast:
                block = torch.autocast(device.type, torch.bfloat16)
            with block:
                if rung.chunks > 1:
                    return chunked_loss(model, ids, rung.chunks, targets)
                return plain_loss(model, ids, targets)

        seconds = median_seconds(device, lambda: step(loss, optimizer), warm=2, rounds=rounds)
        peak = card_peak(device, lambda: step(loss, optimizer)) if device.type == "cuda" else None
    torch.set_float32_matmul_precision("highest")
    return {"seconds": seconds, "real_tokens": real, "peak": peak}


def measure_speed(record: Record, budget: Budget, device: torch.device, toy: bool) -> None:
    """Predict and time each rung that the budget allows, on two shapes (one toy shape on a CPU)."""
    if not record.data.get("ceilings"):
        measure_ceilings(record, budget, device, toy)
    record.begin("speed")
    top = record.data["ceilings"][0]
    for shape, rows, time in (("toy", 4, 64),) if toy else (("135M", 8, 1024), ("1.5B", 3, 1024)):
        config = SHAPES[shape]
        record.say(
            f"speed of {shape}, {rows} x {time}: predicted and measured ms, real tokens/s, share of the bf16 peak"
        )
        for rung in rungs():
            if budget.left <= (20 if rung.compiled else 0) or (toy and rung.compiled):
                record.skip("speed", f"{shape} {rung.name}", "out of time" if not toy else "not compiled at toy sizes")
                continue
            guess = predicted_seconds(rung, config, rows, time, top)
            found: dict[str, Any] = {
                "shape": shape,
                "rows": rows,
                "time": time,
                "rung": asdict(rung),
                "predicted": guess,
            }
            try:
                found |= timed(rung, config, rows, time, device, rounds=2 if toy else 5)
            except Exception as error:  # a compiler that isn't there must not end the record
                record.skip("speed", f"{shape} {rung.name}", f"{type(error).__name__}: {str(error)[:120]}")
                free_all()
                continue
            free_all()
            flops = step_flops(config, rows * time, time) / found["seconds"]
            peak = record.data["dense_bf16_flops"] or top["bf16"]
            found |= {
                "tokens_per_second": found["real_tokens"] / found["seconds"],
                "flops": flops,
                "share": flops / peak,
            }
            record.add("speed", found)
            record.say(
                f"  {rung.name:<20} {guess['total'] * 1e3:>9.1f} {found['seconds'] * 1e3:>9.1f} ms "
                f"{found['tokens_per_second']:>11,.0f} tokens/s {found['share']:>6.1%}"
            )


# --------------------------------------------------------------------------------------------------------------- peers


def peer_model(config: Config) -> Any:
    """Return a Llama of transformers with the same shape and random weights in the default type."""
    library = importlib.import_module("transformers")
    settings = library.LlamaConfig(
        vocab_size=config.vocab, hidden_size=config.d_model, intermediate_size=config.d_hidden,
        num_hidden_layers=config.layers, num_attention_heads=config.heads, num_key_value_heads=config.kv_heads,
        head_dim=config.head_dim, tie_word_embeddings=config.tied, use_cache=False,
    )  # fmt: skip
    settings._attn_implementation = "sdpa"
    return library.LlamaForCausalLM(settings)


def with_peft(model: Any) -> Any:
    library = importlib.import_module("peft")
    names = [f"{name}_proj" for name in LINEARS]
    settings = library.LoraConfig(r=16, lora_alpha=32, target_modules=names)
    return library.get_peft_model(model, settings, autocast_adapter_dtype=False)


def with_liger(model: Any) -> Any:
    importlib.import_module("liger_kernel.transformers")._apply_liger_kernel_to_instance(model=model)
    return model


def measure_peers(record: Record, budget: Budget, device: torch.device, toy: bool) -> None:
    """Measure seconds and peak of our step beside transformers, peft and Liger: one shape, bfloat16, fused AdamW."""
    record.begin("peers")
    shape, rows, time = ("toy", 2, 64) if toy else ("135M", 8, 1024)
    config = SHAPES[shape]

    def theirs(change: Callable[[Any], Any]) -> Callable[[], Any]:
        return lambda: change(peer_model(config).to(device))

    ways: dict[str, tuple[str, Callable[[], Any]]] = {
        "ours, LoRA": ("torch", lambda: build(config, "LoRA", device)),
        "transformers + peft, LoRA": ("peft", theirs(with_peft)),
        "ours, full": ("torch", lambda: build(config, "full", device)),
        "transformers, full": ("transformers", theirs(lambda model: model)),
        "transformers + Liger, full": ("liger_kernel", theirs(with_liger)),
    }
    for name, (needs, make) in ways.items():
        if needs != "torch" and record.data["libraries"][needs] == "not installed":
            record.skip("peers", name, f"{needs} is not installed")
        elif budget.left <= 0:
            record.skip("peers", name, "out of time")
        else:
            try:
                with default_type(torch.bfloat16):
                    found = peer_step(make(), config, rows, time, device, 2 if toy else 5)
            except Exception as error:  # another version of a library may have another interface
                record.skip("peers", name, f"{type(error).__name__}: {str(error)[:120]}")
            else:
                record.add("peers", {"name": name, "shape": shape, "rows": rows, "time": time, **found})
                record.say(f"  {name:<28} {found['seconds'] * 1e3:>9.1f} ms, peak {found['peak']}")
        free_all()
    record.skip("peers", "bitsandbytes", "not installed" if record.data["libraries"]["bitsandbytes"] == "not installed"
                else "not measured by this version of the lab")  # fmt: skip


def peer_step(model: Any, config: Config, rows: int, time: int, device: torch.device, rounds: int) -> dict[str, Any]:
    """Return the seconds and the peak of a step of our decoder or of a transformers model."""
    ids, _, _ = drawn_rows(config.vocab, rows, time, True, device)
    optimizer = torch.optim.AdamW((p for p in model.parameters() if p.requires_grad), lr=1e-5, fused=True)

    def loss() -> Tensor:
        return plain_loss(model, ids) if isinstance(model, Decoder) else model(input_ids=ids, labels=ids).loss

    seconds = median_seconds(device, lambda: step(loss, optimizer), warm=2, rounds=rounds)
    peak = card_peak(device, lambda: step(loss, optimizer)) if device.type == "cuda" else None
    return {"seconds": seconds, "tokens_per_second": ids.numel() / seconds, "peak": peak}


__all__ = [
    "Rung", "ceilings", "drawn_rows", "measure_ceilings", "measure_peers", "measure_speed", "predicted_seconds",
    "rungs",
]  # fmt: skip
