# %% [markdown]
# # Part 3: full fine-tuning
#
# **The claim.** Tuning everything has a price in bytes that can be written down before the run, and rates that decide what moves;
# whether it's worth the price is an inequality with units.
#
# You need parts 1 and 2 and Adam's update. You'll be able to count a transformer exactly, to budget its memory, to build
# layer-wise rates, to say what weight decay does and doesn't do, and to decide for or against full tuning. About 70 minutes; the
# notebook itself runs in under a minute on two CPU cores.
#
# | symbol | what it is | shape or unit |
# | --- | --- | --- |
# | $P, L, d, V$ | parameters, blocks, width, vocabulary | numbers |
# | $M$ | memory | bytes; $1$ GiB $= 2^{30}$ |
# | $\eta_\ell, \gamma$ | rate of level $\ell$, its factor from level to level | numbers; levels $0..L$ |
# | $\lambda$ | weight decay | a number |
# | $Q, C, F$ | quality, cost, forgetting of a method | points, units of compute, points |

# %%
import math

import numpy as np
import torch
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
from ftmath.exercises import progress
from ftmath.findings import finding
from ftmath.groups import level_of
from ftmath.memory import GIB, KIB, saved_tensors, storage_bytes
from ftmath.plots import bars, lines, points
from ftmath.predict import predicted
from ftmath.widgets import memory_explorer

device = best_device()
print(f"torch {torch.__version__} on {describe(device)}")
progress(3)

# %% [markdown]
# ## 3.1 All parameters trainable
#
# **Every distinct tensor counts once, and the sizes of a model give its parameters exactly.**
#
# $$P_\text{GPT-2} = V d + T d + L (12 d^2 + 13 d) + 2 d , \qquad \Delta\theta \in \mathbb R^{P} .$$
#
# $T$ is the number of positions; the head is the embedding's tensor.
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
# **Predict.** Our base model has 128 characters and a width of 128. Which share of its 825,728 parameters is the embedding?

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
predicted("the embedding's share", guess, kinds["embedding"] / counted)

# %%
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
# **Sixteen bytes a trained parameter stay in memory under mixed-precision Adam, two a frozen one; activations come on top.**
#
# $$M = b_w P + (b_g + b_o + b_\text{master})\, P_\text{train} + M_\text{act} + M_\text{tmp}$$
#
# in bytes: $b_w$ and $b_g$ for weights and gradients, $b_o$ for the optimizer's state, $b_\text{master}$ for a float32 copy,
# $M_\text{act}$ for what a backward pass waits for, $M_\text{tmp}$ for buffers.
#
# Sixteen and two are the count of the ZeRO paper, for weights that are *stored* in sixteen bits with a float32 master copy beside them. Other
# set-ups differ: torch's `autocast` leaves every weight in float32, frozen ones too, so a trained parameter also takes 16 bytes
# ($4 + 4 + 8$) but a frozen one takes 4, unless the model was loaded in sixteen bits.
#
# <details><summary>Why a master copy</summary>
#
# bfloat16 has 8 significant bits: an update below half an ulp of its weight is rounded away (part 5.4). So the update is added in
# float32 and the sixteen-bit weight is made from it. Adam keeps two float32 moments for each parameter that gets a gradient, and
# nothing for others.
# </details>

# %% [markdown]
# **By hand**: 1.3 billion parameters, and ZeRO's split of the optimizer's state over 64 devices.

# %%
budget = training_bytes(0, 1_300_000_000)
print(
    f"{budget.total / 1e9:.1f} GB = {budget.total / GIB:.2f} GiB; 7.5e9 parameters on 64 devices: {[round(zero_bytes(7_500_000_000, 64, s) / 1e9, 1) for s in range(4)]} GB by stage"
)
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

# %%
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
# The same sum for a model of 6.7 billion parameters, beside what cards hold. Move both sliders.

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
# **These activations end below the head.** The loss on top keeps more than all checkpointed blocks together: one log-probability in float32
# for each of the vocabulary's 49,152 tokens, at each of the $4 \cdot 128$ positions. Here they are, counted as autograd keeps them.

# %%
logits = torch.zeros(4 * 128, SMOL.vocab, requires_grad=True)
with saved_tensors([logits]) as kept:
    torch.nn.functional.cross_entropy(logits, torch.zeros(4 * 128, dtype=torch.long))
print(
    f"cross-entropy keeps {storage_bytes(kept) / 2**20:.0f} MiB, the checkpointed blocks {b.activations / 2**20:.0f} MiB"
)
assert storage_bytes(kept) >= 4 * 4 * 128 * SMOL.vocab > 2 * b.activations

# %% [markdown]
# **In practice** this sum is the reason for parameter-efficient methods, for 8-bit optimizers and for ZeRO (Rajbhandari et al. 2019,
# arXiv:1910.02054).
#
# → [exercise 3.2](exercises.ipynb#3.2-Memory-cost) · graded: [p03, bytes](../../source/p03_lora_parameters/p03_lora_parameters.ipynb)

# %% [markdown]
# ## 3.3 Layer-wise learning rates
#
# **A lower rate at lower levels moves them less. Whether that keeps more behaviour than one lower rate for all levels must be measured. Against
# $\gamma = 0.6$, in 40 steps of `flip`, it doesn't.**
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
# **By hand**: twelve levels at $\gamma = 0.9$; and ULMFiT's slanted triangle at five steps of a hundred.

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

# %%
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

# %%
mean_drift, mean_task = ({at: float(np.mean(v)) for at, v in what.items()} for what in (drift, task))
lines(
    list(range(5)),
    {f"gamma {gamma:g}": np.mean(moved[1e-3, gamma], axis=0).tolist() for gamma in GAMMAS},
    log_y=True,
    title=f"With gamma 0.3 the embeddings move {embeddings[1.0] / embeddings[0.3]:.0f} times less; KL falls from {mean_drift[1e-3, 1.0]:.1f} to "
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
# At one top rate $\gamma = 0.6$ looks like a gift: the task is learned as well as at 1, with a fraction of the drift. But a smaller $\gamma$ lowers
# *every* rate below the top. So the control is one lower rate for all levels, and a fair comparison lowers the top rate of $\gamma = 0.6$ as well. At
# 95 % of the task, which of the two has drifted less?

# %%
ONE_RATE = [(rate, 1.0) for rate in (1e-4, 1.5e-4, 2e-4)]
LAYER_WISE = [(4e-4, 0.6), (5e-4, 0.6), (1e-3, 0.6)]
for at in (*ONE_RATE, *LAYER_WISE[:2]):
    tuned_in_full(*at)
both = {"one rate": ONE_RATE, "gamma 0.6": LAYER_WISE}


def drift_at(settings, wanted=0.95):
    """Return each seed's KL where the task reaches a quality, read between neighbouring rates on both sides of it."""
    assert all(
        min(task[at][seed] for at in settings) <= wanted <= max(task[at][seed] for at in settings) for seed in range(3)
    )
    return [
        float(np.interp(wanted, *zip(*sorted((task[at][seed], drift[at][seed]) for at in settings))))
        for seed in range(3)
    ]


at_95 = {name: drift_at(settings) for name, settings in both.items()}
for name, settings in both.items():
    print(
        f"{name:>9}: "
        + "; ".join(f"rate {at[0]:g} task {np.mean(task[at]):.2f}, KL {np.mean(drift[at]):.2f}" for at in settings)
        + f"; at 95 % KL {min(at_95[name]):.2f} to {max(at_95[name]):.2f}"
    )
points(
    {
        name: [(float(np.mean(drift[at])), float(np.mean(task[at])), f"{at[0]:g}") for at in settings]
        for name, settings in both.items()
    },
    title=f"At 95 % of flip, one lower rate drifts by {np.mean(at_95['one rate']):.2f} nats, gamma 0.6 by {np.mean(at_95['gamma 0.6']):.2f}",
    x_label="KL to base, nats per token",
    y_label="accuracy on flip",
    alt="; ".join(
        f"{name} at rate {at[0]:g}: KL {np.mean(drift[at]):.2f}, task {np.mean(task[at]):.2f}"
        for name, settings in both.items()
        for at in settings
    )
    + ". Means of three seeds.",
)

# %%
flat = at_95["one rate"]
finding(
    "After 40 steps of flip, at equal quality, one lower rate drifts less than layer-wise rates with gamma 0.6",
    figure="KL at 95 % of the task, layer-wise less one rate, nats per token",
    measured=[layered - one for layered, one in zip(at_95["gamma 0.6"], flat)],
    null="one rate less one rate, with other seeds",
    control=[other - one for other, one in zip(flat[1:] + flat[:1], flat)],
    holds=lambda gaps: min(gaps) > 0.1,
    scope="flip, our base model of four blocks, full tuning with AdamW, 40 steps of 16 lines, three rates and three top rates; three seeds",
)

# %% [markdown]
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
# **Decoupled decay shrinks every weight by a fixed share a step, towards zero; put into the gradient, Adam turns it into something
# else.**
#
# $$\theta \leftarrow (1 - \eta\lambda)\,\theta - \eta\, \frac{\hat m}{\sqrt{\hat v} + \epsilon}$$
#
# with Adam's corrected moments $\hat m, \hat v$. If LoRA's loss itself holds the penalty $\tfrac\lambda2 (\lVert A \rVert_F^2 + \lVert B \rVert_F^2)$,
# the best it can be for a product $M$ is $\lambda$ times $\min_{BA = M} \tfrac12 (\lVert A \rVert_F^2 + \lVert B \rVert_F^2) = \lVert M \rVert_*$, the
# sum of the singular values of $M$. That is the *coupled* kind. AdamW's decay belongs to no such penalty, since the step that it's added
# to is divided by $\sqrt{\hat v}$ and the decay isn't.
#
# <details><summary>Why coupling fails, and the nuclear norm</summary>
#
# A gradient of $\lambda\theta$ alone gives $\hat m / \sqrt{\hat v} \approx \operatorname{sign}\theta$: the weight moves by $\eta$ a step
# whatever $\lambda$ is. For the norm: by Cauchy and Schwarz $\lVert M \rVert_* = \operatorname{tr}(U^\top B A V) \le \lVert B \rVert_F
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
predicted("what Adam with L2 leaves after 60 steps", guess, left["Adam with L2, 0.1"][-1])

# %%
assert abs(left["Adam with L2, 0.1"][-1] - left["Adam with L2, 0.001"][-1]) < 0.05 < 1 - left["Adam with L2, 0.1"][-1]
lines(
    list(range(1, 61)),
    left,
    title="Inside the gradient, decay runs at the learning rate, whatever lambda is",
    x_label="step",
    y_label="weight",
    alt="; ".join(f"{kind}: {path[-1]:.3f} after 60 steps" for kind, path in left.items()) + ".",
)

# %% [markdown]
# **Check.** A zero gradient leaves exactly $(1 - \eta\lambda)$; and no pair of factors beats the balanced one.

# %%
generator = torch.Generator().manual_seed(0)
M = torch.randn(5, 4, generator=generator, dtype=torch.float64) @ torch.randn(
    4, 6, generator=generator, dtype=torch.float64
)
U, S, Vh = torch.linalg.svd(M, full_matrices=False)
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
# **In practice** biases and norms are exempt, and decay on LoRA's factors doesn't touch $W$. Decoupling is Loshchilov and Hutter 2017
# (arXiv:1711.05101).
#
# → [exercise 3.4](exercises.ipynb#3.4-Weight-decay) · graded: [p10, frozen weights that move](../../source/p10_freeze_and_mask_audit/p10_freeze_and_mask_audit.ipynb)

# %% [markdown]
# ## 3.5 When full tuning helps
#
# **Full tuning pays where the wanted update isn't low-rank and there is data enough to find it: the spectrum says how much. It decides *where* full tuning overtakes a low rank, not whether. What a
# frozen weight saves in compute is a third, if gradients must still pass through it.**
#
# $$v\,(Q_f - Q_p) > c\,(C_f - C_p) + \rho\,(F_f - F_p)$$
#
# $f$ and $p$ stand for full and parameter-efficient; $v$ and $\rho$ are money per point of quality and forgetting, $c$ money per unit
# of compute.
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
predicted("LoRA's share of the operations", guess, lora_flops / full_flops)

# %%
top_flops = operations(lambda model: train_only(model, ["blocks.3.*"]))
head_flops = operations(add_head)
print(
    f"saved: LoRA on q and v {1 - lora_flops / full_flops:.1%}, the top block alone {1 - top_flops / full_flops:.1%}, "
    f"a head alone {1 - head_flops / full_flops:.1%}"
)
assert abs(lora_flops / full_flops - 2 / 3) < 0.03  # LoRA stands in every block, so gradients cross nearly all
assert top_flops < 0.55 * full_flops and head_flops < 0.4 * full_flops  # what ends early saves more than a third


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
# fixed rank that is too low. The question is where the two curves cross, and the spectrum answers it: the steep one crosses beyond the picture.

# %%
assert 5 <= wins[0.25][0] <= 15 and wins[0.25][1:] == [0] * 6  # flat: a tie at 30 samples, then full tuning
assert wins[2.0] == [SEEDS] * 7  # steep: rank 4 at every size that is shown
assert all(
    excess_risk(2.0, 30_000, 4, seed) > excess_risk(2.0, 30_000, None, seed) for seed in range(3)
)  # and full beyond
crossing = next(n for n, won in zip(SIZES, wins[1.0]) if won < 0.75 * SEEDS)
lines(
    SIZES,
    {"full (any spectrum)": risks[1.0, None].mean(1).tolist()}
    | {f"rank 4, spectrum i^-{power:g}": risks[power, 4].mean(1).tolist() for power in POWERS},
    log_x=True,
    log_y=True,
    title=f"Full tuning overtakes rank 4 at 60 samples or fewer (flat spectrum), at about {crossing} (i^-1), or not by 2,000 (steep)",
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
tuned_in_full(3e-3, 1.0)  # the rate that suits LoRA on q and v
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
# ## What to keep
#
# | | statement | number to remember |
# | --- | --- | --- |
# | 3.1 | each distinct tensor once | GPT-2 small: 124,439,808 |
# | 3.2 | 16 bytes a trained parameter, 2 a frozen one | activations and logits come on top |
# | 3.3 | a rate limits how far a level moves in a run; it's no anchor | try one lower rate first |
# | 3.4 | decoupled decay leaves $(1 - \eta\lambda)^t$ | it pulls to zero |
# | 3.5 | full against low rank: the spectrum says how much data is enough | compute: $6N$ against $4N$ |
