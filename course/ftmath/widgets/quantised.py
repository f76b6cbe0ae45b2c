"""Explorers of part 6: what an outlier does to a block's codes, and which model fits which card under which method."""

from dataclasses import replace

import torch

from ftmath.memory import GIB, planned
from ftmath.model import Config
from ftmath.plots import said
from ftmath.quant import bits_per_weight, dequantise, quantise
from ftmath.widgets.explorer import Explorer, Frame, Line, Panel, Slider, slider
from ftmath.widgets.explorers import CARDS, SHAPES

MODELS: dict[str, Config] = {
    "SmolLM2 135M": SHAPES[0.135],
    "Llama 3.2 1B": SHAPES[1.2],
    "Llama 2 7B": SHAPES[6.7],
    "Llama 3 8B": Config(128_256, 4096, 32, 32, 8, 128, 14_336, biases=False, tied=False),
    "Llama 2 70B": Config(32_000, 8192, 80, 64, 8, 128, 28_672, biases=False, tied=False),
}
"""Shapes that their makers published."""

RANK = 16
WAYS = {
    "full": (None, 16.0, False),
    "LoRA": (RANK, 16.0, False),
    "LoRA, checkpointed": (RANK, 16.0, True),
    "QLoRA, checkpointed": (RANK, bits_per_weight(64, double=True), True),
}
"""Rank, bits of a linear layer's weight, checkpointing."""


def choice(label: str, names: tuple[str, ...], start: int) -> Slider:
    """Return a slider over names; the frame gets their numbers."""
    return replace(slider(label, range(len(names)), start=start), names=names)


def card_explorer() -> Explorer:
    """Choose a model, a card, a method and a batch: the bytes of a step beside what the card holds.

    LoRA is of rank 16 on all linear layers; `planned` counts, with every position's logits at once. The allocator
    comes on top.

    >>> dict(card_explorer().frame(2, 1, 3, 2)["readouts"])["in all"]
    '5.8 GiB'
    """
    models, cards, ways = tuple(MODELS), tuple(CARDS), tuple(WAYS)

    def frame(model: float, card: float, way: float, tokens: float) -> Frame:
        rank, bits, checkpointing = WAYS[ways[int(way)]]
        config, holds = MODELS[models[int(model)]], CARDS[cards[int(card)]]

        def at(count: int) -> tuple[float, ...]:
            budget = planned(config, count, lora_rank=rank, linear_bits=bits, checkpointing=checkpointing)
            return tuple(
                part / GIB
                for part in (budget.weights, budget.gradients, budget.optimizer, budget.activations, budget.logits)
            )

        parts = at(int(tokens))
        total, fixed, per_token = sum(parts), sum(at(0)), sum(at(1)[3:])
        room = max(0, int((holds - fixed) / per_token))
        fits = "fits" if total <= holds else "does not fit"
        names = ("weights", "gradients", "optimizer", "activations", "logits")
        words = ", ".join(f"{name} {value:.2f}" for name, value in zip(names, parts, strict=True))
        panel = Panel(
            "bars", f"{models[int(model)]}, {ways[int(way)]}: {fits}", (*names, "sum", cards[int(card)]),
            (Line("GiB", (*parts, total, holds), (*(True,) * 6, False)),), "a step (filled), the card (hollow)", "GiB",
            f"{words}; in all {total:.1f} GiB, and the {cards[int(card)]} holds {holds:.1f}: it {fits}.", low=0.0,
            high=1.05 * max(total, holds),
        )  # fmt: skip
        readouts = [(name, f"{value:.2f} GiB") for name, value in zip(names, parts, strict=True)]
        return Frame((panel,), (
            *readouts, ("in all", f"{total:.1f} GiB"), ("the card holds", f"{holds:.1f} GiB"), ("so it", fits),
            ("longest batch", f"{room:,} tokens" if room else "none"),
        ))  # fmt: skip

    sizes = slider("tokens in a batch", [4**power * 128 for power in range(6)], start=2)
    controls = [choice("model", models, 2), choice("card", cards, 1), choice("method", ways, 1), sizes]
    return Explorer("Does it fit?", controls, frame)


def outlier_explorer(seed: int = 0) -> Explorer:
    """Choose a block's size and plant one outlier among 4,096 normal weights: which NF4 codes are used, and the error.

    >>> rows = dict(outlier_explorer().frame(3, 4)["readouts"])
    >>> float(rows["weights stored as 0"].rstrip("%")) > 99
    True
    """
    weights = torch.randn(4096, generator=torch.Generator().manual_seed(seed))
    blocks, sizes = (16, 64, 256, 4096), (0, 5, 10, 30, 100)

    def frame(block: float, outlier: float) -> Frame:
        planted = weights.clone()
        if outlier:
            planted[0] = outlier
        found = quantise(planted, block=int(block))
        share = (torch.bincount(found.codes.long(), minlength=16) / len(planted)).tolist()
        error = float((dequantise(found) - planted)[1:].square().mean().sqrt())
        panel = Panel(
            "bars", "How often each of NF4's 16 codes is used", tuple(range(16)), (Line("share", tuple(share)),),
            "code", "share of weights",
            f"Blocks of {block:.0f}, an outlier of {outlier:.0f}: {share[7]:.1%} of the weights are stored as 0.",
            low=0.0, high=1.0,
        )  # fmt: skip
        return Frame((panel,), (
            ("block", f"{block:.0f}"), ("outlier", f"{outlier:.0f} standard deviations" if outlier else "none"),
            ("weights stored as 0", f"{share[7]:.1%}"), ("RMS error of the others", said(error)),
            ("bits per weight", said(bits_per_weight(int(block)))),
        ))  # fmt: skip

    outliers = slider("outlier, standard deviations (0: none)", sizes, start=3)
    return Explorer("One outlier and its block", [slider("block size", blocks, start=1), outliers], frame)


__all__ = ["MODELS", "WAYS", "card_explorer", "outlier_explorer"]
