# %% [markdown]
# # Part 3: full fine-tuning
#
# **The claim.** Full fine-tuning changes every parameter. What that costs in bytes can be written down before the run. What it does
# to the model depends on the learning rate more than on anything else. Whether it's worth the cost is an inequality with units.
#
# You need parts 1 and 2 and Adam's update. You'll be able to count a transformer exactly, to budget its memory, to build
# layer-wise rates, to say what weight decay, clipping and warm-up do and don't do, and to decide for or against full tuning. About
# 90 minutes; the notebook itself runs in about a minute on two CPU cores.
#
# | symbol | what it is | shape or unit |
# | --- | --- | --- |
# | $P, L, d, V$ | parameters, blocks, width, vocabulary | numbers |
# | $M$ | memory | bytes; $1$ GiB $= 2^{30}$ |
# | $\eta$ | learning rate | a number |
# | $\eta_\ell, \gamma$ | rate of level $\ell$, and the factor between the rates of neighbouring levels | numbers; levels $0..L$ |
# | $\lambda$ | weight decay | a number |
# | $Q, C, F$ | quality, cost, forgetting of a method | points, units of compute, points |

# %% fold="imports"
# Imports
import math

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from ftmath import (
    Config,
    Decoder,
    add_head,
    add_lora,
    base_model,
    best_device,
    bitfit,
    decoder_parameters,
    describe,
    imagined,
    kl_to_base,
    layer_groups,
    layer_rates,
    measured,
    mixture,
    model_loss,
    probes,
    quality,
    slanted_triangle,
    train,
    train_only,
    training_bytes,
    zero_bytes,
)
from ftmath.diagrams import byte_rows
from ftmath.exercises import progress
from ftmath.findings import finding
from ftmath.groups import level_of
from ftmath.memory import GIB, KIB, MIB, allocated_bytes, chunked_loss, saved_tensors, storage_bytes
from ftmath.plots import bars, lines, points, sweep
from ftmath.predict import predicted
from ftmath.sweeps import at_best_rate, best_rate, held_out_loss, short_run
from ftmath.weights import recorded
from ftmath.widgets import memory_explorer

# %%
device = best_device()
print(f"torch {torch.__version__} on {describe(device)}")
RUNS = recorded("full_runs")  # benchmarks/full_runs.py wrote it: a figure for each run, rate and seed
progress(3)

# %% [markdown]
# ## 3.1 All parameters trainable
#
# **The sizes of a model give its number of parameters exactly, if each tensor is counted once.**
#
# $$P_\text{GPT-2} = V d + T d + L (12 d^2 + 13 d) + 2 d , \qquad \Delta\theta \in \mathbb R^{P} .$$
#
# $T$ is the number of positions. The head uses the embedding's tensor (it's *tied*), so it adds nothing.
#
# <details><summary>Why</summary>
#
# A block has four attention matrices with biases, $4d^2 + 4d$, an MLP of width $4d$, $8d^2 + 5d$, and two norms of $2d$. One norm
# more stands at the end. Our decoder has a gated MLP and grouped heads; its formula is printed with its source below.
# </details>

# %% [markdown]
# **By hand**: GPT-2 small, and what the same sum says if the tied head is counted again.

# %%
layers, d, V, T = 12, 768, 50257, 1024
gpt2 = V * d + T * d + layers * (12 * d * d + 13 * d) + 2 * d
print(f"{gpt2:,} parameters, of which {(V + T) * d / gpt2:.1%} are embeddings; with the head twice {gpt2 + V * d:,}")
assert gpt2 == 124_439_808

# %% [markdown]
# **Predict.** Our base model knows 128 characters, each with a vector of width 128. Its head is tied. Which share of its 825,728
# parameters is the embedding?

# %%
guess = None  # between 0 and 1

# %%
model = base_model()
kinds = {"embedding": 0, "attention": 0, "MLP": 0, "norms": 0}
for name, value in model.named_parameters():
    kind = (
        "embedding"
        if name.startswith("embed")
        else "norms"
        if "norm" in name
        else "attention"
        if ".attn." in name
        else "MLP"
    )
    kinds[kind] += value.numel()
counted = sum(kinds.values())
assert counted == decoder_parameters(model.config) == 825_728
predicted(
    "the embedding's share", guess, kinds["embedding"] / counted, "128 x 128 = 16,384, and the tied head adds nothing."
)

# %% fold="picture"
# Picture: which part of a model holds how many of its parameters
small_gpt = {
    "embedding": (V + T) * d,
    "attention": layers * (4 * d * d + 4 * d),
    "MLP": layers * (8 * d * d + 5 * d),
    "norms": layers * 4 * d + 2 * d,
}
shares = {
    "our base model": [n / counted for n in kinds.values()],
    "GPT-2 small": [n / gpt2 for n in small_gpt.values()],
}
assert sum(small_gpt.values()) == gpt2
bars(
    list(kinds),
    shares,
    title=f"The MLPs are the largest part: {shares['our base model'][2]:.0%} of ours, {shares['GPT-2 small'][2]:.0%} of GPT-2 small",
    y_label="share of parameters",
    alt="; ".join(
        f"{name}: " + ", ".join(f"{kind} {v:.1%}" for kind, v in zip(kinds, values)) for name, values in shares.items()
    )
    + ".",
)

# %% [markdown]
# **Check.** The optimizer holds each trained tensor once.

# %%
groups = layer_groups(model, 1e-3)
assert sum(p.numel() for group in groups for p in group["params"]) == counted
assert len({id(p) for group in groups for p in group["params"]}) == sum(len(group["params"]) for group in groups)

# %% [markdown]
# **The usual mistake**: summing `state_dict()`, where a tied tensor stands under two names. The symptom is the "163 M" that is quoted
# for GPT-2 small.

# %%
by_names = sum(value.numel() for value in model.state_dict().values())
print(
    f"by names {by_names:,}, by tensors {counted:,}: the difference is the embedding, {by_names - counted:,}; GPT-2 small: {gpt2 + V * d:,}"
)
assert by_names - counted == kinds["embedding"] and gpt2 + V * d == 163_037_184

# %% [markdown]
# **In practice** cards of one model quote different totals for this reason; what a count should
# leave out is discussed by Kaplan et al. 2020 (arXiv:2001.08361, table 1).
#
# → [exercise 3.1](exercises.ipynb#3.1-All-parameters-trainable) · graded: [p03](../../source/p03_lora_parameters/p03_lora_parameters.ipynb)

# %% [markdown]
# ## 3.2 Memory cost
#
# **Under mixed-precision Adam a trained parameter takes sixteen bytes through the whole run, a frozen one two. Activations and logits come on
# top.**
#
# $$M = b_w P + (b_g + b_o + b_\text{master})\, P_\text{train} + M_\text{act} + M_\text{tmp}$$
#
# Mixed precision means: weights and gradients in sixteen bits, the optimizer in thirty-two. $b_w$ and $b_g$ are the bytes of a weight and of a
# gradient, $b_o$ those of the optimizer's state, $b_\text{master}$ those of a float32 copy of the weight. $M_\text{act}$ are the activations that the
# backward pass needs, $M_\text{tmp}$ are buffers.
#
# Sixteen and two are the count of the ZeRO paper (Rajbhandari et al. 2019, arXiv:1910.02054), for weights that are *stored* in sixteen bits with a float32 master copy beside them. Other
# set-ups differ: torch's `autocast` leaves every weight in float32, frozen ones too, so a trained parameter also takes 16 bytes
# ($4 + 4 + 8$) but a frozen one takes 4, unless the model was loaded in sixteen bits.
#
# <details><summary>Why a master copy</summary>
#
# bfloat16 has 8 significant bits: an update below half an *ulp* of its weight (the gap to the next number that bfloat16 can write) is rounded away (part 5.4). So the update is added in
# float32 and the sixteen-bit weight is made from it. Adam keeps two float32 moments for each parameter that gets a gradient, and
# nothing for others.
# </details>

# %% [markdown]
# **By hand**: 1.3 billion parameters.

# %%
budget = training_bytes(0, 1_300_000_000)
print(f"{budget.total / 1e9:.1f} GB = {budget.total / GIB:.2f} GiB")
assert round(budget.total / 1e9, 1) == 20.8

# %% [markdown]
# **Predict.** Our model takes one AdamW step in float32, once with all parameters and once with LoRA of rank 4 on $q$ and $v$. By
# which factor does the optimizer's memory fall?

# %%
guess = None  # a factor

# %%
rows = mixture({"flip": 1.0}, 32, np.random.default_rng(0)).to(device)
WAYS = {"full": lambda model: None, "LoRA q, v": lambda model: add_lora(model, ["q", "v"], 4, 8.0), "biases": bitfit}
budgets = {}
for name, prepare in WAYS.items():
    model = base_model().to(device)
    prepare(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    budgets[name] = measured(
        model, lambda: model_loss(model, rows.ids, rows.answer_mask), torch.optim.AdamW(trained, lr=1e-3)
    )
    print(
        f"{name:>9}: weights {budgets[name].weights / KIB:,.0f} KiB, gradients {budgets[name].gradients / KIB:,.0f}, optimizer "
        f"{budgets[name].optimizer / KIB:,.1f}, activations {budgets[name].activations / KIB:,.0f}"
    )
    assert 0 <= budgets[name].optimizer - 8 * sum(p.numel() for p in trained) <= 4 * len(trained)
why = "8 bytes a trained parameter: 825,728 of them against 4 blocks x 2 matrices x rank 4 x (128 + 128) = 8,192."
predicted("optimizer bytes, full over LoRA", guess, budgets["full"].optimizer / budgets["LoRA q, v"].optimizer, why)

# %% fold="picture"
# Picture: the bytes of one step, for three ways to tune
parts = {
    part: [getattr(b, part) / KIB for b in budgets.values()]
    for part in ("weights", "gradients", "optimizer", "activations")
}
fall = budgets["full"].activations / budgets["LoRA q, v"].activations
assert fall < 4 < budgets["full"].optimizer / budgets["LoRA q, v"].optimizer
bars(
    list(budgets),
    parts,
    title=f"LoRA cuts optimizer memory {budgets['full'].optimizer / budgets['LoRA q, v'].optimizer:.0f}-fold, activations {fall:.1f}-fold",
    y_label="KiB",
    alt="; ".join(
        f"{name}: " + ", ".join(f"{part} {values[n]:,.0f} KiB" for part, values in parts.items())
        for n, name in enumerate(budgets)
    )
    + ".",
)

# %% [markdown]
# **Who needs fewer bytes.** Twelve of the sixteen belong to the optimizer. They can be made smaller, or they can be split over devices.
#
# - **Another optimizer.** Muon (Jordan et al. 2024, kellerjordan.github.io/posts/muon; at scale Liu et al. 2025, arXiv:2502.16982) keeps
#   one moment instead of two: it makes the momentum's matrix orthogonal, which sets the step's size without a second moment.
#   It is for matrices; embeddings, head and vectors stay with AdamW. Adam in 8 bits keeps both moments in one byte each (Dettmers et
#   al. 2021, arXiv:2110.02861). GaLore (Zhao et al. 2024, arXiv:2403.03507) projects each gradient onto $r$ directions and keeps
#   Adam's moments of the projection alone: $(4 m r + 8 n r) / (m n)$ bytes for each number of an $m \times n$ matrix with $m \le n$. All weights
#   still train, but each step moves a matrix within rank $r$.
# - **More devices.** ZeRO splits what one device would hold $N$ times over: the optimizer's state (stage 1), the gradients too
#   (stage 2), the weights too (stage 3). PyTorch's FSDP (Zhao et al. 2023, arXiv:2304.11277) does what stage 3 does: a device gathers a
#   layer's weights just before they're used, and drops them again. The price is traffic between the devices. None of this touches
#   activations and logits.


# %%
def state_bytes(make):
    """Return how many bytes of state an optimizer really keeps for each number of a (512, 512) matrix."""
    layer = torch.nn.Linear(512, 512, bias=False)
    return measured(layer, lambda: layer(torch.ones(1, 512)).sum(), make(layer.parameters())).optimizer / 512**2


adam, muon = state_bytes(torch.optim.AdamW), state_bytes(torch.optim.Muon)
rank, side, devices = 128, 4096, 8
m, n = side, side  # GaLore keeps a map of m r numbers and two moments of n r
galore = (4 * m * rank + 8 * n * rank) / (m * n)
zero = {stage: zero_bytes(7_000_000_000, devices, stage) / 7e9 for stage in range(4)}
print(
    f"state, measured: AdamW {adam:.2f}, Muon {muon:.2f} bytes; GaLore of rank {rank} on a {side} x {side} matrix: {galore:.3f}"
)
print(
    "ZeRO on 8 devices, bytes for each parameter on each device:",
    {stage: round(size, 2) for stage, size in zero.items()},
)
assert abs(adam - 8) < 0.01 and abs(muon - 4) < 0.01 and galore == 12 * rank / side
assert zero == {0: 16, 1: 4 + 12 / 8, 2: 2 + 14 / 8, 3: 16 / 8}

# %% fold="picture"
# Picture: where each way's bytes are
both = {"weight": 2, "gradient": 2, "master copy": 4}
share = 2 * 8 * 2 * 4096 * 32 / 6_738_415_616  # LoRA of rank 8 on q and v of 32 layers
byte_rows(
    {
        "AdamW, 16 and 32 bits": both | {"first moment": 4, "second moment": 4},
        "Muon (matrices)": both | {"first moment": 4},
        "AdamW in 8 bits": both | {"first moment": 1, "second moment": 1},
        f"GaLore, rank {rank}": both
        | {"first moment": galore / 3, "second moment": galore / 3, "projection": galore / 3},
        "ZeRO 1, 8 devices": both | {part: 4 / 8 for part in ("master copy", "first moment", "second moment")},
        "ZeRO 3 or FSDP, 8 devices": {
            part: size / 8 for part, size in (both | {"first moment": 4, "second moment": 4}).items()
        },
        "LoRA, rank 8 on q and v": {"weight": 2 + 2 * share}
        | {"gradient": 2 * share, "master copy": 4 * share, "first moment": 4 * share, "second moment": 4 * share},
    },
    title=f"Three quarters of AdamW's bytes are the optimizer's; eight devices leave {zero[3]:.0f} of {zero[0]:.0f}",
)

# %% [markdown]
# The same sum for a model of 6.7 billion parameters, with activations and logits, beside what cards hold. Move both sliders.

# %%
memory_explorer()

# %% [markdown]
# **Check.** The formula is what is measured: 8 bytes of moments for each trained parameter, and a counter of 4 bytes for each
# tensor. The cell above asserts it; here is the whole for a model that exists in shape only.

# %%
config = Config(32_000, 4096, 32, 32, 32, 128, 11_008, biases=False, tied=False)
thought = imagined(config, 512)
assert thought.weights == 2 * decoder_parameters(config) and thought.optimizer == 2 * thought.weights
print(
    f"6.7e9 parameters, pure bfloat16, 512 tokens: {[round(part / GIB, 2) for part in (thought.weights, thought.gradients, thought.optimizer, thought.activations)]} GiB"
)

# %% [markdown]
# **The mistake**: converting the number on the box. Vendors write "GB" for memory that is built in powers of two, so an "80 GB" A100 has
# 80 GiB, not $80 \cdot 10^9$ bytes. Some cards also set memory aside, for error correction among other things. The symptom is a plan that is
# several GiB off, in either direction. Plan with what the driver reports (`nvidia-smi`, or `torch.cuda.get_device_properties(0).total_memory`).

# %%
REPORTED_MIB = {
    "A100": (80, 81_920),
    "H100": (80, 81_559),
    "H200": (141, 143_771),
    "RTX 4090": (24, 24_564),
    "L4": (24, 23_034),
}
missed = {}
for card, (box, mib) in REPORTED_MIB.items():
    gib = mib / 1024
    missed[card] = (gib - box * 1e9 / GIB, gib - box)
    print(
        f"{card:>8}: the box says {box}, the driver {mib:,} MiB = {gib:.1f} GiB; read as GB off by {missed[card][0]:+.1f}, as GiB by {missed[card][1]:+.1f}"
    )
assert missed["A100"][0] > 5 and missed["A100"][1] == 0  # read as GB, 5 GiB stay unused
assert missed["L4"][1] < -1.5 and missed["H200"][1] < -0.5  # read as GiB, the plan doesn't fit

# %% [markdown]
# **On a real model's shape**: SmolLM2-135M, 512 tokens, float32; no weights are needed for it, and where they are there
# (`python3 start.py model smollm2`), one real step is measured beside.

# %%
from ftmath import smollm2
from ftmath.smollm import cache_folder

SMOL = Config(49_152, 576, 30, 9, 3, 64, 1536, biases=False, rope_base=100_000.0)
cases = {
    "full": (lambda model: None, False),
    "LoRA": (lambda model: add_lora(model, ["q", "v"], 8, 16.0), False),
    "LoRA, checkpointed": (lambda model: add_lora(model, ["q", "v"], 8, 16.0), True),
}
for name, (prepare, checkpointing) in cases.items():
    b = imagined(SMOL, 128, prepare, batch=4, dtype=torch.float32, checkpointing=checkpointing)
    print(f"{name:>18}: {[round(part / 2**20) for part in (b.weights, b.gradients, b.optimizer, b.activations)]} MiB")
if any(cache_folder().glob("SmolLM2*.gguf")):
    model, _ = smollm2()
    model.to(device)
    add_lora(model, ["q", "v"], 8, 16.0)
    model.checkpointing = True
    ids = torch.randint(0, 49_152, (4, 128), generator=torch.Generator().manual_seed(0)).to(device)
    real = measured(model, lambda: model.hidden(ids).square().mean())
    print(f"really kept, LoRA checkpointed: {real.activations / 2**20:.0f} MiB")
    assert abs(real.activations / b.activations - 1) < 0.2
else:
    print("SmolLM2 isn't here; its shape was enough.")

# %% [markdown]
# **Those activations end below the head, and the logits come on top.** The loss keeps one log-probability in float32
# for each of the vocabulary's 49,152 tokens, at each of the $4 \cdot 128$ positions. That is more than all checkpointed blocks together.
# Here they are, counted as autograd keeps them.

# %%
logits = torch.zeros(4 * 128, SMOL.vocab, requires_grad=True)
with saved_tensors([logits]) as kept:
    torch.nn.functional.cross_entropy(logits, torch.zeros(4 * 128, dtype=torch.long))
print(
    f"cross-entropy keeps {storage_bytes(kept) / 2**20:.0f} MiB, the checkpointed blocks {b.activations / 2**20:.0f} MiB"
)
assert storage_bytes(kept) >= 4 * 4 * 128 * SMOL.vocab > 2 * b.activations

# %% [markdown]
# At the peak it is three times that, 12 bytes a logit: the log-probabilities, their gradient, and the gradient of the logits. A program that holds
# on to the float32 logits as well pays 16. A **chunked** cross-entropy makes the logits of a
# few positions at a time, adds up their loss, and makes them once more in the backward pass. It costs one more product with the
# head, and the loss is the same. Libraries fuse the same idea into one kernel. Part 6.3 puts this term into a plan.

# %%
head = torch.nn.Linear(SMOL.d_model, SMOL.vocab, bias=False).requires_grad_(False)
draw = torch.Generator().manual_seed(0)
states = torch.randn(256, SMOL.d_model, generator=draw).requires_grad_()
wanted = torch.randint(SMOL.vocab, (256,), generator=draw)
held = []  # what a program holds on to that returns its logits
LOSSES = {
    "all at once": lambda: F.cross_entropy(head(states), wanted),
    "logits held as well": lambda: F.cross_entropy(held.append(head(states)) or held[0], wanted),
    "32 positions at a time": lambda: chunked_loss(head, states, wanted, 32),
}
values, peak = {}, {}
for name, loss in LOSSES.items():

    def both_ways(loss=loss, name=name):
        values[name] = loss()
        values[name].backward()

    peak[name] = allocated_bytes(both_ways) / MIB
    print(f"{name:>22}: loss {values[name]:.4f}, peak {peak[name]:.0f} MiB")
held.clear()
assert abs(values["all at once"] / values["32 positions at a time"] - 1) < 1e-5
assert round(peak["logits held as well"] * MIB / (256 * SMOL.vocab)) == 16
assert peak["all at once"] > 0.98 * 12 * 256 * SMOL.vocab / MIB > 6 * peak["32 positions at a time"]

# %% [markdown]
# **In practice** this sum is the reason for parameter-efficient methods, for smaller optimizers, and for splitting over devices.
#
# → [exercise 3.2](exercises.ipynb#3.2-Memory-cost) · graded: [p03, bytes](../../source/p03_lora_parameters/p03_lora_parameters.ipynb)

# %% [markdown]
# ## 3.3 Layer-wise learning rates
#
# **A lower rate at lower levels moves them less. Whether that keeps more behaviour than one lower rate for all levels must be measured. On our
# model it doesn't: one lower rate keeps more than $\gamma = 0.6$ does.**
#
# $$\eta_\ell = \eta_0\, \gamma^{L - \ell}, \quad \ell = 0..L, \quad 0 < \gamma \le 1 .$$
#
# Level 0 are the embeddings, level $L$ the top block with the final norm and the head. ULMFiT took $\gamma = 1 / 2.6$.
#
# <details><summary>Why a rate holds a level back, and why it's no anchor</summary>
#
# One step of gradient descent with rates $\eta_\ell$ minimises $g^\top \Delta + \sum_\ell \lVert \Delta_\ell \rVert^2 / (2 \eta_\ell)$: each level
# pays for its squared distance, weighted by $1 / \eta_\ell$. But that is the distance from where the step *starts*, not from $\theta_0$, and the next
# step starts anew. With Adam a weight moves by about $\eta_\ell$ at most in a step, so by about $n \eta_\ell$ at most in $n$ steps. In a short run this
# limit is what holds a level back. In a long one any positive rate gets where the gradient vanishes, while an anchor (1.3) still pulls there.
# </details>

# %% [markdown]
# **By hand**: twelve levels at $\gamma = 0.9$; and ULMFiT's *slanted triangle* at five steps of a hundred. That is a schedule whose rate rises in a
# straight line for the first tenth of the steps and falls in a longer one to 1/32 of its peak.

# %%
rates = layer_rates(12, 2e-5, 0.9)
print({level: f"{rates[level]:.2e}" for level in (12, 6, 1, 0)})
print([round(0.01 * slanted_triangle(step, 100), 6) for step in (0, 5, 10, 55, 100)])
assert rates[12] == 2e-5 and rates[0] == min(rates)

# %% [markdown]
# **Predict.** `flip` is tuned in full at one top rate, with $\gamma = 1$, 0.6 and 0.3. By which factor does the *embeddings'* relative
# move fall from $\gamma = 1$ to $0.3$? (Level 0 is four levels below the top.)

# %%
guess = None  # a factor

# %% fold="training"
# The training: 40 steps of flip at a rate and a gamma, for three seeds; it records moves, drift and task
base = base_model().to(device).requires_grad_(False)
start = {name: value.detach().clone() for name, value in base.named_parameters()}
moved, drift, task = {}, {}, {}  # by (rate, gamma), each with one entry a seed


def tuned_in_full(rate, gamma):
    """Tune on flip in 40 steps, three seeds; record the levels' relative moves, the KL to the base, and the task."""
    for at in (moved, drift, task):
        at[rate, gamma] = []
    for seed in range(3):
        model, rng = base_model().to(device), np.random.default_rng(seed)

        def loss(step):
            rows = mixture({"flip": 1.0}, 16, rng).to(device)
            return model_loss(model, rows.ids, rows.answer_mask)

        train(model, loss, layer_groups(model, rate, gamma), 40, label=f"rate {rate:g}, gamma {gamma:g}")
        squares = np.zeros((2, 5))
        for name, value in model.named_parameters():
            squares[:, level_of(name, 4)] += [
                float((value - start[name]).detach().square().sum()),
                float(start[name].square().sum()),
            ]
        moved[rate, gamma].append(np.sqrt(squares[0] / squares[1]))
        drift[rate, gamma].append(kl_to_base(model, base, count=8))
        task[rate, gamma].append(quality(model, "flip"))


# %%
GAMMAS = (1.0, 0.6, 0.3)
for gamma in GAMMAS:
    tuned_in_full(1e-3, gamma)
    at = (1e-3, gamma)
    print(
        f"gamma {gamma:g}: moves of levels 0..4 {np.round(np.mean(moved[at], axis=0), 4).tolist()}, task {np.mean(task[at]):.2f}, "
        f"KL {min(drift[at]):.2f} to {max(drift[at]):.2f}"
    )
embeddings = {gamma: np.mean(moved[1e-3, gamma], axis=0)[0] for gamma in GAMMAS}
why = f"Four levels below the top the rate is 0.3^4 of it: 1/{0.3**-4:.0f}. The move falls nearly as far, since Adam's steps follow the rate."
predicted("move of the embeddings at gamma 1 over that at 0.3", guess, embeddings[1.0] / embeddings[0.3], why)

# %% fold="picture"
# Picture: how far each level moves
mean_drift, mean_task = ({at: float(np.mean(v)) for at, v in what.items()} for what in (drift, task))
lines(
    list(range(5)),
    {f"γ = {gamma:g}": np.mean(moved[1e-3, gamma], axis=0).tolist() for gamma in GAMMAS},
    log_y=True,
    title=f"With γ = 0.3 the embeddings move {embeddings[1.0] / embeddings[0.3]:.0f} times less; KL falls from {mean_drift[1e-3, 1.0]:.1f} to "
    f"{mean_drift[1e-3, 0.3]:.1f}, the task from {mean_task[1e-3, 1.0]:.0%} to {mean_task[1e-3, 0.3]:.0%}",
    x_label="level (0: embeddings)",
    y_label="relative move",
    alt="; ".join(
        f"gamma {gamma:g}: embeddings {embeddings[gamma]:.4f}, top {np.mean(moved[1e-3, gamma], axis=0)[-1]:.4f}, "
        f"task {mean_task[1e-3, gamma]:.2f}, KL {mean_drift[1e-3, gamma]:.2f}"
        for gamma in GAMMAS
    )
    + ". Means of three seeds.",
)

# %%
falls = np.array(moved[1e-3, 1.0]) / np.array(moved[1e-3, 0.3])  # (seeds, levels)
finding(
    "A lower rate at lower levels moves them less",
    figure="relative move of the embeddings at gamma 1 over that at gamma 0.3, log10",
    measured=np.log10(falls[:, 0]).tolist(),
    null="the top level of the same runs, whose rate is the same",
    control=np.log10(falls[:, -1]).tolist(),
    holds=lambda factors: min(factors) > 0.7,
    scope="flip, our base model of four blocks, full tuning with AdamW, top rate 1e-3, 40 steps of 16 lines; three seeds",
)

# %% [markdown]
# At this top rate $\gamma = 0.6$ looks like a gift: the task is learned as well as at 1, with a fraction of the drift. But a smaller $\gamma$ lowers
# *every* rate below the top. So the control is one lower rate for all levels, and a fair comparison lowers the top rate of $\gamma = 0.6$ as well.
# Eight seeds of each were recorded, at three rates. At 95 % of the task, which of the two has drifted less?

# %%
layers = RUNS["layers"]  # accuracy on flip and KL, for each gamma, top rate and seed


def drift_at(name, wanted=0.95):
    """Return each seed's KL where the task reaches a quality, read between neighbouring rates."""
    return [float(np.interp(wanted, *zip(*sorted(runs)))) for runs in zip(*layers[name].values())]


at_95 = {name: drift_at(name) for name in layers}
for name, by_rate in layers.items():
    means = {rate: np.mean(runs, axis=0) for rate, runs in by_rate.items()}
    print(name, {rate: f"task {task:.2f}, KL {kl:.2f}" for rate, (task, kl) in means.items()})
again = task[1e-3, 0.6][0], drift[1e-3, 0.6][0]
print(
    f"gamma 0.6 at 1e-3, seed 0: task and KL {again[0]:.2f} and {again[1]:.2f} above, {layers['gamma 0.6']['0.001'][0]} recorded"
)
assert abs(again[1] / layers["gamma 0.6"]["0.001"][0][1] - 1) < 0.25  # another machine rounds otherwise

# %% fold="picture"
# Picture: the task against the drift, at three rates each
named = {"one rate": layers["gamma 1"], "γ = 0.6": layers["gamma 0.6"]}
dots = {
    name: [(*np.mean(runs, axis=0)[::-1].tolist(), rate) for rate, runs in by_rate.items()]
    for name, by_rate in named.items()
}
points(
    dots,
    title=f"At 95 % of flip, one lower rate drifts by {np.mean(at_95['gamma 1']):.2f} nats, γ = 0.6 by {np.mean(at_95['gamma 0.6']):.2f}",
    x_label="KL to base, nats per token",
    y_label="accuracy on flip",
    alt="; ".join(
        f"{name} at rate {rate}: KL {kl:.2f}, task {done:.2f}"
        for name, group in dots.items()
        for kl, done, rate in group
    )
    + f". Means of {len(at_95['gamma 1'])} seeds.",
)

# %%
flat = at_95["gamma 1"]
finding(
    "After 40 steps of flip, at equal quality, one lower rate drifts less than layer-wise rates with gamma 0.6",
    figure="KL at 95 % of the task, layer-wise less one rate, nats per token",
    measured=[layered - one for layered, one in zip(at_95["gamma 0.6"], flat)],
    null="one rate less one rate with the next seed (mean 0 by construction; the spread is what counts)",
    control=[other - one for other, one in zip(flat[1:] + flat[:1], flat)],
    holds=lambda gaps: min(gaps) > 0.1,
    scope="flip, our base model of four blocks, full tuning with AdamW, 40 steps of 16 lines, three rates and three top rates; eight seeds",
)

# %% [markdown]
# (One of the eight seeds stays below 95 % with $\gamma = 0.6$ at every rate tried. It is read at the best it reached, which counts in its favour.)
#
# One task, one base of four blocks, one value of $\gamma$, 40 steps: another task, a milder $\gamma$ or a longer run may show another order. But
# try the lower rate first. It has one dial less, and
# part of what layer-wise rates seem to give is a lower rate under another name.
#
# **Check.** Every trained tensor stands in one group, with its level's rate.

# %%
groups = layer_groups(base_model(), 1e-3, 0.5)
assert sorted({group["lr"] for group in groups}) == [1e-3 * 0.5**k for k in (4, 3, 2, 1, 0)]

# %% [markdown]
# **The mistake**: a scheduler that writes *one* rate into all groups. The symptom is that after the first step all rates are equal.

# %%
optimizer = torch.optim.AdamW(layer_groups(base_model(), 1e-3, 0.5))
before = {group["lr"] for group in optimizer.param_groups}
for group in optimizer.param_groups:
    group["lr"] = 1e-3 * slanted_triangle(3, 100)  # the bug; a schedule multiplies each group's own rate
after = {group["lr"] for group in optimizer.param_groups}
print(f"{len(before)} rates before, {len(after)} after")
assert len(before) == 5 and len(after) == 1

# %% [markdown]
# **In practice** layer-wise rates are common for encoders and for vision towers; they come from ULMFiT (Howard and Ruder 2018,
# arXiv:1801.06146).
#
# → [exercise 3.3](exercises.ipynb#3.3-Layer-wise-learning-rates) · graded: [p02, measuring drift](../../source/p02_kl_shift/p02_kl_shift.ipynb)

# %% [markdown]
# ## 3.4 Weight decay
#
# **AdamW's decay is decoupled: it shrinks every weight by the same share at each step. Put into the gradient instead, the decay is divided by the
# gradient's size, and then a weight without another gradient shrinks at the learning rate, whatever $\lambda$ is.**
#
# $$\theta \leftarrow (1 - \eta\lambda)\,\theta - \eta\, \frac{\hat m}{\sqrt{\hat v} + \epsilon}$$
#
# with Adam's corrected moments $\hat m, \hat v$. A decay that is part of the loss, $\tfrac\lambda2 \lVert \theta \rVert^2$, is called *coupled*.
#
# What would a coupled decay of LoRA's factors do to their product? Many pairs $A, B$ have the same product $BA = X$, and training can choose
# among them. The smallest penalty is $\lambda$ times
#
# $$\min_{BA = X} \tfrac12 \left(\lVert A \rVert_F^2 + \lVert B \rVert_F^2\right) = \lVert X \rVert_* ,$$
#
# the sum of the singular values of $X$, called its *nuclear norm*. It pushes small singular values to zero, so it favours a low rank. AdamW's decay isn't the gradient of any
# such penalty: the step beside it is divided by $\sqrt{\hat v}$, and the decay isn't.
#
# <details><summary>Why coupling fails, and the nuclear norm</summary>
#
# A gradient of $\lambda\theta$ alone gives $\hat m / \sqrt{\hat v} \approx \operatorname{sign}\theta$: the weight moves by $\eta$ a step
# whatever $\lambda$ is. For the norm, with $X = U \Sigma V^\top$: by Cauchy and Schwarz $\lVert X \rVert_* = \operatorname{tr}(U^\top B A V) \le \lVert B \rVert_F
# \lVert A \rVert_F \le \tfrac12(\lVert A \rVert_F^2 + \lVert B \rVert_F^2)$, with equality at $B = U\Sigma^{1/2}, A = \Sigma^{1/2} V^\top$.
# </details>

# %% [markdown]
# **By hand**: one weight at 1, rate 0.01, $\lambda = 0.1$, with and without a gradient of 0.1; then a long run at a usual rate.


# %%
def one_step(kind, gradient):
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer = {"Adam with L2": torch.optim.Adam, "AdamW": torch.optim.AdamW}[kind](
        [weight], lr=0.01, weight_decay=0.1
    )
    weight.grad = torch.full((1,), gradient, dtype=torch.float64)
    optimizer.step()
    return weight.item()


for kind in ("Adam with L2", "AdamW"):
    print(f"{kind:>12}: gradient 0.1 -> {one_step(kind, 0.1):.4f}, gradient 0 -> {one_step(kind, 0.0):.4f}")
print(f"10,000 steps at rate 2e-5 and decay 0.01: times {(1 - 2e-7) ** 10_000:.4f}")
assert abs(one_step("AdamW", 0.0) - (1 - 0.01 * 0.1)) < 1e-12

# %% [markdown]
# **Predict.** A weight at 1 gets no gradient at all for 60 steps at rate 0.01 and $\lambda = 0.1$. AdamW leaves 0.94 of it. What does Adam
# with L2 in the gradient leave?

# %%
guess = None  # between 0 and 1

# %%
left = {}
for kind, maker, decay in (
    ("AdamW, 0.1", torch.optim.AdamW, 0.1),
    ("Adam with L2, 0.1", torch.optim.Adam, 0.1),
    ("Adam with L2, 0.001", torch.optim.Adam, 0.001),
    ("SGD, 0.1", torch.optim.SGD, 0.1),
):
    weight = torch.nn.Parameter(torch.ones(1, dtype=torch.float64))
    optimizer, path = maker([weight], lr=0.01, weight_decay=decay), []
    for _ in range(60):
        weight.grad = torch.zeros(1, dtype=torch.float64)
        optimizer.step()
        path.append(weight.item())
    left[kind] = path
why = "With decay as its only gradient, Adam steps by the rate, 0.01, towards zero: 60 steps take 0.6."
predicted("what Adam with L2 leaves after 60 steps", guess, left["Adam with L2, 0.1"][-1], why)

# %% fold="picture"
# Picture: how a weight without a gradient decays
assert abs(left["Adam with L2, 0.1"][-1] - left["Adam with L2, 0.001"][-1]) < 0.05 < 1 - left["Adam with L2, 0.1"][-1]
lines(
    list(range(1, 61)),
    left,
    title="Inside the gradient, decay runs at the learning rate, whatever λ is",
    x_label="step",
    y_label="weight",
    alt="; ".join(f"{kind}: {path[-1]:.3f} after 60 steps" for kind, path in left.items()) + ".",
)

# %% [markdown]
# **Check.** A zero gradient leaves exactly $(1 - \eta\lambda)$; and no pair of factors beats the balanced one.

# %%
generator = torch.Generator().manual_seed(0)
X = torch.randn(5, 4, generator=generator, dtype=torch.float64) @ torch.randn(
    4, 6, generator=generator, dtype=torch.float64
)
U, S, Vh = torch.linalg.svd(X, full_matrices=False)
B, A = U * S.sqrt(), S.sqrt()[:, None] * Vh
assert abs(0.5 * ((A**2).sum() + (B**2).sum()) - S.sum()) < 1e-9
for _ in range(20):
    G = torch.randn(5, 5, generator=generator, dtype=torch.float64)
    assert 0.5 * (((torch.linalg.inv(G) @ A) ** 2).sum() + ((B @ G) ** 2).sum()) >= S.sum() - 1e-9

# %% [markdown]
# **The mistake**: freezing a weight after a first step while gradients are *zeroed* instead of removed. Its symptom: a "frozen" weight
# drifts, by momentum and by decay.

# %%
layer = torch.nn.Linear(2, 1)
optimizer = torch.optim.AdamW(layer.parameters(), lr=0.1, weight_decay=0.1)
layer(torch.ones(2)).sum().backward()
optimizer.step()
layer.weight.requires_grad_(False)
frozen = layer.weight.clone()
optimizer.zero_grad(set_to_none=False)
optimizer.step()
drifted = (layer.weight - frozen).abs().max().item()
optimizer.zero_grad(set_to_none=True)
still = layer.weight.clone()
optimizer.step()
print(f"zeroed gradient: moved by {drifted:.3f}; no gradient: moved by {(layer.weight - still).abs().max().item():.3f}")
assert drifted > 0.01 and torch.equal(layer.weight, still)

# %% [markdown]
# **In practice** biases and norms don't decay, and decay on LoRA's factors doesn't touch $W$. Decoupling is Loshchilov and Hutter 2017
# (arXiv:1711.05101).
#
# → [exercise 3.4](exercises.ipynb#3.4-Weight-decay) · graded: [p10, frozen weights that move](../../source/p10_freeze_and_mask_audit/p10_freeze_and_mask_audit.ipynb)

# %% [markdown]
# ## 3.5 When full tuning helps
#
# **Full tuning learns more than a low rank if there is data enough. The noise and the spectrum of the wanted update say how much that is: little
# data if the noise is low or the spectrum flat, very much if the noise is high and the spectrum steep. In compute, a frozen weight saves a third if gradients must still pass through it.**
#
# $$v\,(Q_f - Q_p) > c\,(C_f - C_p) + \rho\,(F_f - F_p)$$
#
# Full tuning pays if this holds. $f$ and $p$ stand for full and parameter-efficient. $v$ and $\rho$ are money per point of quality and of forgetting,
# $c$ is money per unit of compute.
#
# <details><summary>Why a third</summary>
#
# A forward pass costs about $2N$ operations a token for $N$ weights, the gradients of activations $2N$ more, the gradients of weights
# another $2N$. A frozen weight with something trained below it saves the last only: $4N$ instead of $6N$. With nothing trained below, the
# backward pass ends above it, and it costs $2N$. And the best rank-$r$ update misses $\sum_{i > r} \sigma_i^2$ of the wanted one (part 5.1).
# </details>

# %% [markdown]
# **By hand**: 1.5 points at 2,000 each, 375 units of extra compute at 1, extra forgetting at 1,500 a point.

# %%
for forgetting in (0.8, 2.0):
    benefit, cost = 2000 * 1.5, 375 + 1500 * forgetting
    print(
        f"extra forgetting {forgetting}: benefit {benefit:,.0f}, cost {cost:,.0f}: {'full' if benefit > cost else 'parameter-efficient'}"
    )
assert 2000 * 1.5 > 375 + 1500 * 0.8 and 2000 * 1.5 < 375 + 1500 * 2.0

# %% [markdown]
# **Predict.** torch counts the operations of one forward and backward pass of our model, with all parameters and with LoRA on $q$ and
# $v$. Which share of the full pass's operations does LoRA need?

# %%
guess = None  # between 0 and 1


# %%
def operations(prepare):
    model = base_model().to(device)
    prepare(model)
    with FlopCounterMode(display=False) as counter:
        model_loss(model, rows.ids, rows.answer_mask).backward()
    return counter.get_total_flops()


rows = mixture({"flip": 1.0}, 32, np.random.default_rng(0)).to(device)
full_flops, lora_flops = operations(lambda model: None), operations(lambda model: add_lora(model, ["q", "v"], 4, 8.0))
why = "4N of 6N: what is saved are the gradients of the frozen weights alone."
predicted("LoRA's share of the operations", guess, lora_flops / full_flops, why)

# %%
top_flops = operations(lambda model: train_only(model, ["blocks.3.*"]))
head_flops = operations(add_head)
print(
    f"saved: LoRA on q and v {1 - lora_flops / full_flops:.1%}, the top block alone {1 - top_flops / full_flops:.1%}, "
    f"a head alone {1 - head_flops / full_flops:.1%}"
)
assert abs(lora_flops / full_flops - 2 / 3) < 0.03  # LoRA stands in every block, so gradients cross nearly all
assert top_flops < 0.55 * full_flops and head_flops < 0.4 * full_flops  # what ends early saves more than a third

# %% [markdown]
# **Now the quality.** A linear teacher of 24 x 24 is estimated from noisy samples, by least squares in full and cut to rank 4. The teacher's
# singular values fall as $i^{-1/4}$ (nearly flat), $i^{-1}$ or $i^{-2}$ (steep). The excess risk is the squared distance to the teacher.


# %%
def excess_risk(power, n, rank, seed, noise=0.5):
    """Return the excess risk of least squares on n noisy samples of a linear teacher, cut to a rank (None: full)."""
    generator = torch.Generator().manual_seed(seed)
    d = 24
    U, V = (torch.linalg.qr(torch.randn(d, d, generator=generator, dtype=torch.float64))[0] for _ in range(2))
    teacher = U @ torch.diag(torch.arange(1, d + 1, dtype=torch.float64) ** -power) @ V.T
    X = torch.randn(n, d, generator=generator, dtype=torch.float64)
    Y = X @ teacher.T + noise * torch.randn(n, d, generator=generator, dtype=torch.float64)
    found = torch.linalg.lstsq(X, Y).solution.T
    if rank:
        P, S, Q = torch.linalg.svd(found)
        found = P[:, :rank] * S[:rank] @ Q[:rank]
    return float((found - teacher).square().sum())


SIZES, POWERS, SEEDS = [30, 60, 120, 250, 500, 1000, 2000], (0.25, 1.0, 2.0), 20
risks = {
    (power, rank): np.array([[excess_risk(power, n, rank, seed) for seed in range(SEEDS)] for n in SIZES])
    for power in POWERS
    for rank in (None, 4)
}
wins = {power: (risks[power, 4] < risks[power, None]).sum(1).tolist() for power in POWERS}  # of 20 seeds, by size
for power in POWERS:
    print(f"spectrum i^-{power:g}: of {SEEDS} draws rank 4 is better in {dict(zip(SIZES, wins[power]))}")

# %% [markdown]
# A full update has to estimate every direction; its risk is noise alone and falls with the samples. Rank 4 leaves out 20 directions: it saves
# their noise and loses what stood there. A fixed loss meets a noise that falls without end, so with enough samples full tuning overtakes any
# fixed rank that is too low. The question is where the two curves cross. With noise of standard deviation $\sigma$, each free parameter costs about
# $\sigma^2 / n$. A rank $r$ does without $(d - r)^2$ of the $d^2$ parameters and loses the tail of the spectrum, so they cross at about
#
# $$n \approx \sigma^2\, \frac{(d - r)^2}{\sum_{i > r} \sigma_i^2} .$$
#
# The spectrum *and* the noise decide. The picture is for $\sigma = 0.5$; the cell below it changes $\sigma$.

# %% fold="picture"
# Picture: the risk against the number of samples
assert 5 <= wins[0.25][0] <= 15 and wins[0.25][1:] == [0] * 6  # flat: a tie at 30 samples, then full tuning
assert wins[2.0] == [SEEDS] * 7  # steep: rank 4 at every size that is shown
assert all(
    excess_risk(2.0, 30_000, 4, seed) > excess_risk(2.0, 30_000, None, seed) for seed in range(3)
)  # and full beyond
crossing = next(n for n, won in zip(SIZES, wins[1.0]) if won < 0.75 * SEEDS)
SPECTRA = {0.25: "flat spectrum", 1.0: "spectrum 1/i", 2.0: "spectrum 1/i²"}
lines(
    SIZES,
    {"full (any spectrum)": risks[1.0, None].mean(1).tolist()}
    | {f"rank 4, {SPECTRA[power]}": risks[power, 4].mean(1).tolist() for power in POWERS},
    log_x=True,
    log_y=True,
    title=f"Full tuning overtakes rank 4 at 60 samples or fewer (flat spectrum), at about {crossing} (1/i), or not by 2,000 (steep)",
    x_label="samples",
    y_label="excess risk",
    alt="; ".join(
        f"spectrum i^-{power:g}: full {risks[power, None].mean(1)[0]:.2g} at 30 samples and {risks[power, None].mean(1)[-1]:.2g} at 2,000, "
        f"rank 4 {risks[power, 4].mean(1)[0]:.2g} and {risks[power, 4].mean(1)[-1]:.2g}"
        for power in POWERS
    )
    + ". Means of 20 draws.",
)

# %%
for noise in (0.1, 0.5, 2.0):
    about = {p: noise**2 * 20**2 / sum(i ** (-2 * p) for i in range(5, 25)) for p in POWERS}
    better = {
        n: sum(excess_risk(1.0, n, 4, s, noise) < excess_risk(1.0, n, None, s, noise) for s in range(10))
        for n in (60, 2000)
    }
    print(f"noise {noise}: by the formula they cross at", {f"i^-{p:g}": f"{n:.2g}" for p, n in about.items()})
    print(f"          i^-1: of 10 draws rank 4 is better in {better}")
    assert better == {0.1: {60: 0, 2000: 0}, 0.5: {60: 10, 2000: 0}, 2.0: {60: 10, 2000: 10}}[noise]


# %%
def switch(power):
    """Return for each draw how surely the better method changes between 30 and 2,000 samples: above 0, it does."""
    few, many = (np.log(risks[power, 4][at] / risks[power, None][at]) for at in (0, -1))
    return np.minimum(-few, many).tolist()


finding(
    "With a spectrum of i^-1, full overtakes rank 4 between 30 and 2,000 samples",
    figure="the smaller of rank 4's lead at 30 samples and full's at 2,000, log of the risks' ratio",
    measured=switch(1.0),
    null="a steep spectrum, i^-2, which crosses only beyond",
    control=switch(2.0),
    holds=lambda leads: min(leads) > 0,
    scope="least squares in 24 dimensions, noise 0.5, 30 to 2,000 samples; 20 draws",
)

# %% [markdown]
# **Check.** Without noise, what a rank-4 fit is left with is exactly the tail of the teacher's spectrum, and full tuning with nothing.

# %%
for power in POWERS:
    tail = float((torch.arange(5, 25, dtype=torch.float64) ** (-2 * power)).sum())
    assert abs(excess_risk(power, 120, 4, 0, noise=0.0) - tail) < 1e-9
    assert excess_risk(power, 120, None, 0, noise=0.0) < 1e-18

# %% [markdown]
# **The mistake**: full tuning judged at LoRA's learning rate. The symptom is that it "forgets everything", which is the rate's doing.

# %%
for rate in (2e-4, 3e-3):  # the second one suits LoRA on q and v
    tuned_in_full(rate, 1.0)
for rate in (2e-4, 3e-3):
    print(
        f"full at rate {rate:g}: task {np.mean(task[rate, 1.0]):.2f}, KL to base {min(drift[rate, 1.0]):.2f} to {max(drift[rate, 1.0]):.2f} nats/token"
    )
assert min(task[2e-4, 1.0]) > 0.9
own = drift[2e-4, 1.0]
finding(
    "Full tuning at LoRA's rate drifts several times as far as at its own",
    figure="KL to the base at rate 3e-3 over that at 2e-4",
    measured=[high / low for high, low in zip(drift[3e-3, 1.0], own)],
    null="the same rate, 2e-4, with other seeds",
    control=[other / low for other, low in zip(own[1:] + own[:1], own)],
    holds=lambda factors: min(factors) > 3,
    scope="flip, our base model, full tuning with AdamW, 40 steps of 16 lines; three seeds",
)

# %% [markdown]
# **In practice** "LoRA learns less and forgets less" states a trade-off, not a ranking (Biderman et al. 2024, arXiv:2405.09673); part 4.5
# draws it for our model.
#
# → [exercise 3.5](exercises.ipynb#3.5-When-full-tuning-helps) · graded: [p09, the scorecard](../../source/p09_scorecard/p09_scorecard.ipynb)

# %% [markdown]
# ## Three more dials: clipping, warm-up, batch size
#
# **Each of them changes which rate is right. So each is measured here with the rate swept, and its effect is read at the best rate.**
#
# All runs tune our model in full on `neb`, a lookup that the base doesn't know, with AdamW. They were recorded, and one cell below
# runs one of them again. The figure is the loss on 128 lines that are the same for all runs.
#
# ### Clipping
#
# $$g \leftarrow g \cdot \min\!\left(1, \frac{c}{\lVert g \rVert}\right), \qquad \lVert g \rVert \text{ over all parameters together, before the step.}$$
#
# One factor for all gradients keeps the gradient's direction (Pascanu et al. 2012, arXiv:1211.5063). For plain gradient descent that is the step's
# direction, and $\eta c$ is the longest step there can be. Adam is different. It divides by the gradient's size, so a factor that is the same at every step
# cancels. What a clip changes is how the steps of one run *weigh against each other*: the second moment forgets with $\beta_2 = 0.999$, so
# the first gradients count for a thousand steps.
#
# **Predict.** One weight gets gradients of 30 for five steps and of 3 for the next 35, which is about how the norm of our model's gradient
# falls. Adam's step is $\eta\, \hat m / \sqrt{\hat v}$, and after 40 steps $\hat v$ is nearly the mean of the squared gradients so far. Which share
# of $\eta$ is the last step?

# %%
guess = None  # between 0 and 1


# %%
def last_step(gradients):
    """Return Adam's last step for one weight, as a share of the rate."""
    m = v = 0.0
    for count, g in enumerate(gradients, 1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
    return m / (1 - 0.9**count) / (v / (1 - 0.999**count)) ** 0.5


falling = [30.0] * 5 + [3.0] * 35
outlier = [3.0] * 20 + [300.0] + [3.0] * 19
for name, gradients in {"falling": falling, "one outlier": outlier}.items():
    plain, cut = last_step(gradients), last_step([min(1.0, g) for g in gradients])
    print(f"{name:>12}: last step {plain:.2f} of the rate, with the gradients clipped at 1 {cut:.2f}")
assert last_step(falling) < 0.4 and last_step(outlier) < 0.2 and abs(last_step([1.0] * 40) - 1) < 1e-9
predicted(
    "the last step's share of the rate",
    guess,
    last_step(falling),
    "The mean square is (5 x 900 + 35 x 9) / 40 = 120, and 3 / 11 is 0.27.",
)

# %% [markdown]
# So without a clip one outlier, or the large gradients of the first steps, make all later steps small. The run doesn't explode, it stalls. A
# higher rate would mend the later steps, and be too high for the first ones. Does it matter on the model?

# %%
clip = RUNS["clip"]
best_of = {name: np.array(at_best_rate(losses)) for name, losses in clip.items()}
for name, losses in best_of.items():
    print(
        f"{name:>27}: best rate {best_rate(clip[name])}, loss {losses.mean():.2f} ({losses.min():.2f} to {losses.max():.2f})"
    )

# %% fold="picture"
# Picture: the loss against the rate
shown = ("clipped at 1", "not clipped", "clipped, warm-up of 10")
sweep(
    {name: clip[name] for name in shown},
    title=f"Best with a clip {best_of['clipped at 1'].mean():.2f} nats, without {best_of['not clipped'].mean():.2f}; warm-up widens the valley",
    y_label="loss on held-out lines, nats",
    alt="; ".join(f"{name}: best {best_of[name].mean():.2f} at rate {best_rate(clip[name])}" for name in shown)
    + ". Means of six seeds, 40 steps.",
)

# %%
clipped = best_of["clipped at 1"]
finding(
    "A clip at norm 1 lets AdamW learn more in 40 steps, each at its best rate",
    figure="loss without a clip over loss with one, each at its best rate",
    measured=(best_of["not clipped"] / clipped).tolist(),
    null="with a clip over with a clip, with other seeds",
    control=(np.roll(clipped, 1) / clipped).tolist(),
    holds=lambda ratios: min(ratios) > 2,
    scope="neb, our base model, full tuning with AdamW (betas 0.9 and 0.999), 40 steps of 16 lines, five rates each; six seeds",
)

# %% [markdown]
# Which steps need the clip? Two controls clip some steps and not others. Two more set $\beta_2$ to 0.95, which is common for pretraining and
# forgets in about twenty steps.

# %%
first = RUNS["first"]
some = {name: np.array(at_best_rate(runs)) for name, runs in first.items()}
for name, losses in some.items():
    print(
        f"{name:>34}: best rate {best_rate(first[name])}, loss {losses.mean():.2f} ({losses.min():.2f} to {losses.max():.2f})"
    )
forgetful = some["beta2 0.95, not clipped"] / some["beta2 0.95, clipped at 1"]
print(f"gain of the clip with beta2 0.95: {forgetful.mean():.1f}-fold")
assert forgetful.min() > 2
unclipped = best_of["not clipped"][:3]
finding(
    "A clip in the first five steps alone brings the gain; a clip in all steps but these doesn't",
    figure="loss without a clip over loss with a clip in the first five steps alone, each at its best rate",
    measured=(unclipped / some["clipped in the first 5 steps alone"]).tolist(),
    null="loss without a clip over loss with a clip from the sixth step on",
    control=(unclipped / some["clipped after the first 5 steps"]).tolist(),
    holds=lambda ratios: min(ratios) > 2,
    scope="neb, our base model, full tuning with AdamW (betas 0.9 and 0.999), 40 steps of 16 lines, three to five rates each; three seeds",
)

# %% [markdown]
# So on this run the first steps' gradients matter, through what Adam's state keeps of them. A clip that begins only afterwards makes it worse: the
# second moment is still large from the first steps, and now the gradients are cut. A shorter memory is no cure here, since with $\beta_2 = 0.95$ the clip
# gains as much. In a run of thousands of steps the difference may vanish; that wasn't run.
#
# ### Warm-up
#
# The rate rises over the first steps, and then it stays or falls (`warm_up(10, cosine)` in `ftmath.training`). Adam's first step is
# $\eta$ in *every* entry, whatever the gradient is, in a direction that one batch has chosen. Kalra and Barkeshli (2024, arXiv:2406.09405) find
# that a warm-up's main use is to make higher rates possible. Read both of these off the picture: what does it do at a rate
# that is four times too high, and what at the best one?

# %%
high, best = (
    np.array(clip["clipped at 1"][rate]) / clip["clipped, warm-up of 10"][rate]
    for rate in ("0.004", best_rate(clip["clipped at 1"]))
)
print(f"loss without warm-up over loss with it: {high.mean():.2f} at 4e-3, {best.mean():.2f} at the best rate")
finding(
    "A warm-up of ten steps forgives a rate that is four times too high",
    figure="loss without warm-up over loss with it at rate 4e-3",
    measured=high.tolist(),
    null="the same two runs at the best rate, 1e-3",
    control=best.tolist(),
    holds=lambda ratios: min(ratios) > 1.5,
    scope="neb, our base model, full tuning with AdamW clipped at 1, 40 steps of 16 lines; six seeds",
)

# %% [markdown]
# At the best rate the warm-up buys nothing here: ten of only forty steps are taken at a lower rate, and the loss ends higher. So it is an
# insurance. Its premium is small in a long run, and you want it as long as you don't know the rate.
#
# ### Batch size
#
# A batch of $b$ lines has a gradient whose noise falls as $1 / \sqrt{b}$. For plain gradient descent a batch that is $k$ times as large asks
# for $k$ times the rate (Goyal et al. 2017, arXiv:1706.02677), for Adam for about $\sqrt{k}$ times (Malladi et al. 2022, arXiv:2205.10782). Here
# every run sees the same 640 lines: 160 steps of 4, 40 of 16, or 10 of 64.

# %%
sizes = (4, 16, 64)
full = {rows: RUNS["batch"][f"full, {rows} lines"] for rows in sizes}


def own_best(losses):
    """Return each seed's best rate, as log2: the lowest point of a parabola through the three rates around the least loss."""
    rates, found = sorted(losses, key=float), []
    for values in np.log(np.array([losses[rate] for rate in rates]).T):
        at = int(np.clip(values.argmin(), 1, len(rates) - 2))
        bend, slope, _ = np.polyfit([-1, 0, 1], values[at - 1 : at + 2], 2)
        found.append(float(np.log2(float(rates[at])) - slope / (2 * bend)))
    return np.array(found)


best_at = {(640 // rows, rows): own_best(full[rows]) for rows in sizes}
for steps, rows in best_at:
    losses, log_rates = at_best_rate(full[rows]), best_at[steps, rows]
    print(f"{steps:>4} steps of {rows:>2} lines: best rate {2 ** log_rates.mean():.2g}, loss {np.mean(losses):.2f}")
print(f"from 4 to 64 lines the best rate rises {2 ** (best_at[10, 64] - best_at[160, 4]).mean():.1f}-fold")

# %% [markdown]
# That is what the square-root rule says: 4-fold. But two things have changed at once. The runs with the larger batch also take *fewer steps*, and a run
# of few steps may want a higher rate to get anywhere. So let the run with 4 lines take ten steps as well.
#
# **Predict.** Ten steps each: from 4 lines to 64, by which factor does the best rate rise? (The rule for Adam says 4, and if the number of
# steps were all that matters, it would be 1.)

# %%
guess = None  # a factor

# %%
for steps in (40, 10):
    best_at[steps, 4] = own_best(RUNS["steps"][f"full, {steps} steps"])
for steps, rows in sorted(best_at, reverse=True):
    print(f"{steps:>4} steps of {rows:>2} lines: best rate {2 ** best_at[steps, rows].mean():.2g}")
same_steps = {steps: best_at[steps, rows] - best_at[steps, 4] for steps, rows in ((10, 64), (40, 16))}
rise = {steps: 2 ** shift.mean() for steps, shift in same_steps.items()}
why = f"The steps made nearly all of the difference. At 40 steps, from 4 lines to 16, it is {rise[40]:.1f}, where the rule says 2."
predicted("best rate for 64 lines over that for 4, ten steps each", guess, rise[10], why)

# %% fold="picture"
# Picture: the loss against the rate, for three sizes of batch, and for ten steps of 4 lines
fewer = RUNS["steps"]["full, 10 steps"]
sweep(
    {f"{640 // rows} steps of {rows} lines": full[rows] for rows in sizes} | {"10 steps of 4 lines": fewer},
    title="Fewer steps want a higher rate: ten steps of 4 lines want that of ten steps of 64",
    y_label="loss on held-out lines, nats",
    alt="; ".join(
        f"{640 // rows} steps of {rows} lines: best {np.mean(at_best_rate(full[rows])):.2f} at rate {best_rate(full[rows])}"
        for rows in sizes
    )
    + f"; 10 steps of 4 lines: best {np.mean(at_best_rate(fewer)):.2f} at rate {best_rate(fewer)}. Means of five seeds.",
)

# %%
finding(
    "Fewer steps want a higher rate; at ten steps a larger batch does not",
    figure="best rate for 10 steps of 4 lines over that for 160 steps of 4, log2",
    measured=(best_at[10, 4] - best_at[160, 4]).tolist(),
    null="best rate for 10 steps of 64 lines over that for 10 steps of 4",
    control=same_steps[10].tolist(),
    holds=lambda doublings: min(doublings) > 1 and sum(doublings) / len(doublings) > 1.5,
    scope="neb, our base model, full tuning with AdamW clipped at 1, 10 to 160 steps of 4 to 64 lines, four or five rates each; five seeds",
)

# %% [markdown]
# So with the data fixed a larger batch means fewer steps, and fewer steps want a higher rate. The square-root rule isn't shown here. It is derived
# for gradients that are mostly noise, and a test of it needs longer runs with as many steps for each batch.
#
# What does the larger batch do to the loss, from the same lines?

# %%
few = np.array(at_best_rate(full[4]))
finding(
    "From the same lines, more and smaller steps learn more",
    figure="loss after 10 steps of 64 lines over loss after 160 steps of 4, each at its best rate",
    measured=(np.array(at_best_rate(full[64])) / few).tolist(),
    null="steps of 4 lines against steps of 4 lines, with other seeds",
    control=(np.roll(few, 1) / few).tolist(),
    holds=lambda ratios: min(ratios) > 4,
    scope="neb, our base model, full tuning with AdamW clipped at 1, 640 lines in all, five rates each; five seeds",
)

# %% [markdown]
# A large batch is bought for another reason: its lines are computed side by side, so a step of 64 takes a GPU little longer than one of 4.
# Up to a critical size, which grows during a run, twice the batch halves the number of steps that a loss takes; beyond it, it buys
# almost nothing (McCandlish et al. 2018, arXiv:1812.06162). Ten steps are simply too few here.
#
# One of the recorded runs, again:

# %%
run = short_run(lambda model, _: model.requires_grad_(True), 0, rate=1e-3, device=device)
loss, kept = held_out_loss(run.model), clip["clipped at 1"]["0.001"][0]
print(f"clipped at 1, rate 1e-3, seed 0: {loss:.4f} here, {kept} recorded")
assert abs(loss / kept - 1) < 0.25  # another machine rounds otherwise, and 40 steps amplify that

# %% [markdown]
# **The mistake**: changing the batch, or the number of devices, and keeping the rate. With the data fixed the number of steps has changed, too. The
# symptom is a run that learns worse than before for no reason in the data. Sweep three rates again.
#
# → [exercises 3.C to 3.F](exercises.ipynb#Build-an-optimizer) build AdamW, its warm-up and its clip, and find a divergence

# %% [markdown]
# ## What to keep
#
# | | statement | number to remember |
# | --- | --- | --- |
# | 3.1 | each distinct tensor once | GPT-2 small: 124,439,808 |
# | 3.2 | 16 bytes a trained parameter, 2 a frozen one; 12 of the 16 are the optimizer's | activations come on top, and 12 bytes a logit (16 if the logits are held) |
# | 3.3 | a rate limits how far a level moves in a run; it's no anchor | try one lower rate first |
# | 3.4 | decoupled decay leaves $(1 - \eta\lambda)^t$ | it pulls to zero |
# | 3.5 | full against low rank: the spectrum and the noise say how much data is enough | compute: $6N$ against $4N$ |
# | dials | clip so that the first gradients don't set the later steps; warm up for a rate you aren't sure of; with the data fixed, a larger batch means fewer steps, and fewer steps want a higher rate | sweep three rates again |
