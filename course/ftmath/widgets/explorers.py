"""One function an explorer: what it shows, computed with the library, as frames."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ftmath.memory import GIB, LOGIT_BYTES, kept_bytes_per_token, training_bytes
from ftmath.model import Config
from ftmath.plots import said
from ftmath.widgets.explorer import Explorer, Frame, Line, Panel, slider


def path_explorer(t: Sequence[float], losses: Mapping[str, Sequence[float]], texts: Sequence[str]) -> Explorer:
    """Walk along theta_0 + t Delta: the losses on the way, in nats, and what the model says there.

    >>> path_explorer([0.0, 1.0], {"task": [2.0, 0.1], "base": [0.1, 1.0]}, ["cba", "abc"]).frame(1)["readouts"][0]
    ('t', '1')
    """
    top = max(max(values) for values in losses.values())

    def frame(at: float) -> Frame:
        place = list(t).index(at)
        first = next(iter(losses.values()))
        series = tuple(Line(name, tuple(values)) for name, values in losses.items())
        alt = "; ".join(f"{name} loss {values[place]:.2f} nats" for name, values in losses.items())
        panel = Panel(
            "lines", "Loss along the update", tuple(t), series, "t", "loss, nats per token", f"At t = {at:g}: {alt}.",
            low=0.0, high=top, mark={"x": at, "y": first[place]},
        )  # fmt: skip
        said_there = tuple((f"{name} loss", f"{values[place]:.3f}") for name, values in losses.items())
        return Frame((panel,), (("t", f"{at:g}"), *said_there, ("the model says", texts[place])))

    return Explorer("Walk along the update", [slider("t", t, start=list(t).index(1.0) if 1.0 in t else None)], frame)


def lora_explorer(delta: Tensor) -> Explorer:
    """Choose the rank of the best approximation of an update (d_out, d_in): what is kept, what is lost, what it costs.

    >>> explorer = lora_explorer(torch.tensor([[3.0, 1.0], [1.0, 3.0], [1.0, 1.0]]))
    >>> explorer.frame(0)["readouts"][1:3]
    (('energy kept', '0.8182'), ('error, Frobenius norm', '2'))
    """
    d_out, d_in = delta.shape
    sigma = torch.linalg.svdvals(delta.double())
    energy = sigma.square().cumsum(0) / sigma.square().sum()
    error = (sigma.square().sum() - sigma.square().cumsum(0)).clamp(min=0).sqrt()
    count = min(len(sigma), 32)

    def frame(at: float) -> Frame:
        r = int(at)
        kept = tuple(place < r for place in range(count))
        bars = Panel(
            "bars", "Singular values: kept and dropped", tuple(range(1, count + 1)),
            (Line("σ", tuple(sigma[:count].tolist()), kept),), "index", "singular value",
            f"{r} of {len(sigma)} singular values kept, from {sigma[0]:.3g} down to {sigma[r - 1]:.3g}.", low=0.0,
        )  # fmt: skip
        curve = Panel(
            "lines", "Energy that a rank keeps", tuple(range(1, count + 1)),
            (Line("energy", tuple(energy[:count].tolist())),), "rank r", "share of ‖ΔW‖²",
            f"Rank {r} keeps {energy[r - 1]:.1%} of the squared norm.", low=0.0, high=1.0,
            mark={"x": r, "y": float(energy[r - 1])},
        )  # fmt: skip
        stored = r * (d_out + d_in)
        return Frame((bars, curve), (
            ("rank", str(r)), ("energy kept", said(float(energy[r - 1]))),
            ("error, Frobenius norm", said(round(float(error[r - 1]), 9))), ("numbers stored", f"{stored:,}"),
            ("of the full matrix", f"{stored / (d_out * d_in):.1%}"),
        ))  # fmt: skip

    return Explorer(
        f"The best rank-r part of a {d_out} x {d_in} update",
        [slider("rank r", range(1, count + 1), start=min(3, count - 1))],
        frame,
    )


CARD_MIB = {"laptop GPU": 8_192, "consumer GPU": 24_564, "H100": 81_559, "H200": 143_771}
"""What `nvidia-smi` reports, in MiB: a nominal 8 GiB, an RTX 4090, an H100 with 80 "GB", an H200 with 141."""
CARDS = {name: size / 1024 for name, size in CARD_MIB.items()}
"""The same in GiB. The number on the box is neither GB nor GiB for all of them."""
SHAPES = {
    0.135: Config(49_152, 576, 30, 9, 3, 64, 1536, biases=False),
    1.2: Config(128_256, 2048, 16, 32, 8, 64, 8192, biases=False),
    6.7: Config(32_000, 4096, 32, 32, 32, 128, 11_008, biases=False, tied=False),
}


def memory_explorer() -> Explorer:
    """Choose a Llama of 6.7 billion parameters' batch and method: where the bytes go, beside what cards hold.

    Weights and gradients in 16 bits, mixed-precision Adam for what trains, activations by `kept_bytes_per_token`, and
    the logits of every position, at `LOGIT_BYTES` each.

    >>> dict(memory_explorer().frame(0, 0)["readouts"])["weights"]
    '12.55 GiB'
    """
    config = SHAPES[6.7]
    total, adapters = 6_738_415_616, 4_194_304
    ways = ("full", "LoRA r=8 on q, v", "LoRA, checkpointed")

    def frame(way: float, tokens: float) -> Frame:
        trained = total if way == 0 else adapters
        fixed = training_bytes(total - trained if way == 0 else total, trained)
        per_token = kept_bytes_per_token(config, lora_rank=None if way == 0 else 8)
        kept = config.layers * tokens * (2 * config.d_model if way == 2 else per_token)
        if way == 2:
            kept += tokens * per_token  # one block at a time is computed again
        sizes = (fixed.weights, fixed.gradients, fixed.optimizer, kept, tokens * config.vocab * LOGIT_BYTES)
        parts = [size / GIB for size in sizes]
        names = ("weights", "gradients", "optimizer", "activations", "logits")
        sum_of = sum(parts)
        fits = [name for name, size in CARDS.items() if size >= sum_of]
        words = ", ".join(f"{name} {value:.2f}" for name, value in zip(names, parts, strict=True))
        panel = Panel(
            "bars", "GiB by what they are for", (*names, "sum", *CARDS),
            (Line("GiB", (*parts, sum_of, *CARDS.values()),
                  (*(True,) * 6, *(False,) * len(CARDS))),),
            "what is held (filled), what cards hold (hollow)", "GiB", f"{words}; in all {sum_of:.1f} GiB.", low=0.0,
            high=180.0,
        )  # fmt: skip
        readouts = [(name, f"{value:.2f} GiB") for name, value in zip(names, parts, strict=True)]
        return Frame(
            (panel,),
            (*readouts, ("in all", f"{sum_of:.1f} GiB"), ("smallest card", fits[0] if fits else "none of these")),
        )

    methods = slider("method", range(3), start=0)
    named = type(methods)("method", methods.values, ways, 0)
    sizes = slider("tokens in a batch", [2**power for power in range(8, 16)], start=3)
    return Explorer("Where the bytes of a 6.7-billion-parameter model go", [named, sizes], frame)


def prefix_gate_explorer(values: Tensor, prefix_value: Tensor, scores: Tensor) -> Explorer:
    """Raise a prefix's score: how much of the output it takes, and where it pulls it.

    `values` (tokens, 2) and `scores` (tokens,) are the content's, `prefix_value` (2,) the prefix's.

    >>> explorer = prefix_gate_explorer(torch.eye(2), torch.tensor([-1.0, 3.0]), torch.tensor([1.0, 0.0]))
    >>> dict(explorer.frame(8)["readouts"])["gate"]
    '0.6652'
    """
    content = scores.softmax(0) @ values
    grid = [round(-6 + 1.0 * step, 2) for step in range(15)]
    gates = [float(torch.sigmoid(torch.tensor(at) - scores.logsumexp(0))) for at in grid]

    def frame(at: float) -> Frame:
        gate = gates[grid.index(at)]
        out = (1 - gate) * content + gate * prefix_value
        line = Panel(
            "lines", "The gate: the prefix's share", tuple(grid), (Line("gate", tuple(gates)),), "the prefix's score",
            "share", f"At score {at:g} the prefix takes {gate:.1%}.", low=0.0, high=1.0, mark={"x": at, "y": gate},
        )  # fmt: skip
        low, high = float(torch.minimum(content, prefix_value).min()), float(torch.maximum(content, prefix_value).max())
        bars = Panel(
            "bars", "The output's two entries", ("first", "second"),
            (Line("content alone", tuple(content.tolist())), Line("with the prefix", tuple(out.tolist()))), "", "value",
            f"The output is ({out[0]:.3f}, {out[1]:.3f}).", low=min(0.0, low), high=high,
        )  # fmt: skip
        return Frame(
            (line, bars), (("score", said(at)), ("gate", said(gate)), ("output", f"({out[0]:.4f}, {out[1]:.4f})"))
        )

    return Explorer("What a prefix does to one query", [slider("score of the prefix", grid, start=8)], frame)


__all__ = ["CARDS", "lora_explorer", "memory_explorer", "path_explorer", "prefix_gate_explorer"]
