# %% [markdown]
# # Part 6: quantized and memory-aware tuning
#
# **The claim.** A step's memory is a sum of five terms, and each trick touches one of them: four bits shrink frozen weights,
# adapters shrink gradients and optimizer, checkpointing shrinks activations, a loss in chunks shrinks the logits. None does
# another's work.
#
# You need parts 3 to 5. You'll be able to quantise by hand, to say how many bits a weight really takes, to budget a QLoRA run
# before it starts, to explain why an adapter doesn't cure a long-sequence crash, and to place checkpoints. About 85 minutes; the
# notebook itself runs in about one on two CPU cores.
#
# | symbol | what it is | shape or unit |
# | --- | --- | --- |
# | $q_k$ | levels of a code book, from $-1$ to $1$ | $(2^b,)$, $b$ bits |
# | $n, c_b$ | weights in a block, its constant | a number; the weights' unit |
# | $\hat w, \widehat W$ | the weight that a code stands for | as $w$; $(d_\text{out}, d_\text{in})$ |
# | $M$ | memory | bytes; $1$ GiB $= 2^{30}$ |
# | $d, f, h, L$ | width, MLP width, heads, blocks | numbers |
# | $r$ | LoRA's rank | a number |

# %% fold="imports"
# Imports, and the device that this notebook runs on
import math
from pathlib import Path

import numpy as np
import torch
from torch.utils.benchmark import Timer
from torch.utils.checkpoint import checkpoint, checkpoint_sequential
from torch.utils.flop_counter import FlopCounterMode

from ftmath import (
    METHODS,
    Config,
    QuantLinear,
    add_lora,
    allocated_bytes,
    base_model,
    best_device,
    best_segments,
    bits_per_weight,
    block_activation_bytes,
    choosing_table,
    chunked_loss,
    dequantise,
    describe,
    imagined,
    kept_bytes_per_token,
    kl_to_base,
    lora_layers,
    measured,
    mixture,
    model_loss,
    nf4_levels,
    normal_levels,
    planned,
    probes,
    quality,
    quantise,
    quantise_linears,
    rate_groups,
    retention,
    storage_bytes,
    train,
    uniform_levels,
)
from ftmath.exercises import progress
from ftmath.findings import finding
from ftmath.memory import GIB, KIB, linear_parameters, lora_parameters, peak_bytes, saved_tensors
from ftmath.plots import bars, lines
from ftmath.predict import predicted
from ftmath.widgets import card_explorer, outlier_explorer

LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
LLAMA_7B = Config(32_000, 4096, 32, 32, 32, 128, 11_008, biases=False, tied=False)
device = best_device()
torch.manual_seed(0)  # for the few layers below that are drawn without a generator of their own
print(f"torch {torch.__version__} on {describe(device)}")
progress(6)

# %% [markdown]
# ## 6.1 Frozen quantized base
#
# **A frozen weight is only read, so it may be stored as a code; on our base model four bits leave behaviour where it was, three
# scratch it, two destroy it.**
#
# $$c_b = \max_{j \in b} \lvert w_j \rvert, \qquad k(i) = \arg\min_k \lvert w_i / c_b - q_k \rvert, \qquad
# \hat w_i = c_b\, q_{k(i)}, \qquad y = \widehat W x + s B A x .$$
#
# A block $b$ holds $n$ weights in a row; $q$ are the levels of a code book. The code book **normal float**, NF4 for short, puts its $2^4$
# levels at quantiles of the normal distribution. With 32-bit constants a weight takes $4 + 32/n$ bits. Storing the constants themselves
# in 8 bits, by blocks of 256, is called **double quantisation**: a weight then takes $4 + 8/n + 32/(256\,n)$ bits.
#
# <details><summary>Why: the error of one weight, and why quantiles</summary>
#
# The nearest level is at most half a gap away, so $\lvert w - \hat w \rvert \le c_b \max_k (q_{k+1} - q_k) / 2$. NF4's widest gap
# lies between $-1$ and $-0.696$: half of it is $0.152$.
#
# Trained weights look normal. If levels stand at the normal distribution's quantiles, each code is used about equally often, which
# is what a fixed number of bits does best with. "About": $w / c_b$ is a normal variable divided by the largest of its block, and
# the two outermost codes are used more rarely, as a cell below counts. Levels at quantiles aren't the least squared error either
# (that would be Lloyd's and Max's levels of 1957 and 1960); they're close to it at four bits, and at eight they lose.
# </details>

# %% [markdown]
# **By hand.** Eight weights in one block: the constant is 0.5, and each weight's sixteenth is looked up.

# %%
w = torch.tensor([0.12, -0.40, 0.03, 0.25, -0.07, 0.33, -0.18, 0.50])
found = quantise(w, block=8)
w_hat = dequantise(found)
rmse = (w - w_hat).square().mean().sqrt().item()
print(f"c = {found.scales.item()}, codes {found.codes.tolist()}, back {[round(v, 4) for v in w_hat.tolist()]}")
print(
    f"root mean square error {rmse:.4f}; bits at n = 64: {bits_per_weight(64)}, twice {bits_per_weight(64, True):.3f}"
)
assert found.codes.tolist() == [10, 1, 8, 12, 5, 14, 3, 15] and round(rmse, 4) == 0.0262
assert round(nf4_levels().diff().max().item() / 2, 3) == 0.152

# %% [markdown]
# **Predict.** All 28 linear layers of our base model are rounded, in blocks of 64. It answers nearly all of its probes.
# With four levels placed by NF4's recipe, **2 bits** a weight, which share does it still answer?

# %%
guess = None  # between 0 and 1

# %% fold="run"
# Run: round every linear weight to 8, 4, 3 and 2 bits, by two code books, and ask the ten skills
base = base_model().to(device).requires_grad_(False)
linears = [name for name, module in base.named_modules() if name.split(".")[-1] in LINEARS]
BITS, BOOKS = (8, 4, 3, 2), {"normal levels": normal_levels, "uniform levels": uniform_levels}


def rounded(levels, block=64):
    """Return the base model with every linear weight replaced by what its code stands for."""
    model = base_model().to(device).requires_grad_(False)
    for name in linears:
        weight = model.get_submodule(name).weight
        weight.copy_(dequantise(quantise(weight, levels, block)))
    return model


def squared_error(model):
    """Return the squared change of all linear weights, as a share of their squares."""
    pairs = [(model.get_submodule(name).weight, base.get_submodule(name).weight) for name in linears]
    return float(sum((a - b).square().sum() for a, b in pairs) / sum(b.square().sum() for _, b in pairs))


kept, kl, squares = {}, {}, {}
print(f"unrounded: accuracy {np.mean([list(retention(base, 24, seed).values()) for seed in range(3)]):.3f}")
for book, levels in BOOKS.items():
    for bits in BITS:
        model = rounded(levels(bits))
        kept[book, bits] = [np.mean(list(retention(model, 24, seed).values())) for seed in range(3)]
        kl[book, bits] = [kl_to_base(model, base, 6, seed) for seed in range(3)]
        squares[book, bits] = squared_error(model)
        a, k = kept[book, bits], kl[book, bits]
        print(
            f"{book:>14} {bits} bits ({len(levels(bits)):>3} levels): accuracy {min(a):.3f} to {max(a):.3f}, KL {min(k):.5f} "
            f"to {max(k):.5f} nats/token, squared error {squares[book, bits]:.5f}"
        )
predicted("accuracy with four levels", guess, np.mean(kept["normal levels", 2]))

# %%
means = {book: [float(np.mean(kept[book, bits])) for bits in BITS] for book in BOOKS}
spread = {book: ([min(kept[book, b]) for b in BITS], [max(kept[book, b]) for b in BITS]) for book in BOOKS}
kl_mean = {key: float(np.mean(values)) for key, values in kl.items()}
normal, uniform = means.values()
assert min(normal[1], uniform[1]) > 0.97 and max(normal[3], uniform[3]) < 0.5  # four bits hold, two break
assert normal[2] > uniform[2] and all(kl_mean["normal levels", b] < kl_mean["uniform levels", b] for b in (4, 3, 2))
assert (
    squares["normal levels", 4] < squares["uniform levels", 4]
    and squares["normal levels", 8] > squares["uniform levels", 8]
)
bars(
    [f"{bits} bits" for bits in BITS],
    means,
    spread=spread,
    title=f"Behaviour breaks between 3 and 2 bits: {normal[2]:.0%} → {normal[3]:.0%} (normal), {uniform[2]:.0%} → {uniform[3]:.0%} (uniform)",
    y_label="accuracy on the ten skills",
    alt="; ".join(
        f"{book}: " + ", ".join(f"{b} bits {v:.2f}" for b, v in zip(BITS, values)) for book, values in means.items()
    )
    + ". Whiskers: three sets of probes.",
)

# %%
unrounded = [np.mean(list(retention(base, 24, seed).values())) for seed in range(3)]
finding(
    "Rounded to four bits, the base model answers as many of its probes as before",
    figure="accuracy with NF4's 16 levels less accuracy unrounded",
    measured=np.subtract(kept["normal levels", 4], unrounded),
    null="the same recipe with four levels, 2 bits",
    control=np.subtract(kept["normal levels", 2], unrounded),
    holds=lambda change: min(change) > -0.02,
    scope="one base model of 825,728 parameters, ten skills, blocks of 64; three sets of probes",
)

# %% [markdown]
# Where the normal levels help is the middle: at 8 bits either book is enough (and the uniform one has the smaller squared error),
# at 2 bits neither is. Two handicaps stand in the table: a symmetric uniform book of 2 bits has only 3 levels, and one base model
# is one sample of a network.
#
# **How evenly are the codes used**, and what do the constants cost? Counted on the base model, and on a layer whose blocks are full.

# %% fold="checks"
# Check: how evenly the codes are used, and what the constants cost
weights = [base.get_submodule(name).weight for name in linears]


def use(levels):
    counts = sum(
        torch.bincount(quantise(weight, levels).codes.long().cpu(), minlength=len(levels)) for weight in weights
    )
    return counts / counts.sum()


for name, levels in (("NF4", nf4_levels()), ("uniform, 15 levels", uniform_levels(4))):
    share = use(levels)
    entropy = float(-(share * share.log2()).sum())
    print(
        f"{name}: a code is used for {share.min():.1%} to {share.max():.1%} of the weights, {entropy:.2f} bits of entropy"
    )
assert use(nf4_levels()).max() < use(uniform_levels(4)).max()
wide = torch.nn.Linear(1024, 1024, bias=False)
for double in (False, True):
    stored = 8 * QuantLinear(wide, double=double).stored_bytes / 1024**2
    print(
        f"double quantisation {double}: {stored:.4f} bits a weight stored, {bits_per_weight(64, double):.4f} by the formula"
    )
    assert abs(stored - bits_per_weight(64, double)) < 1e-4
small = base_model()
bits = (
    8
    * sum(small.get_submodule(name).stored_bytes for name in quantise_linears(small))
    / linear_parameters(small.config)
)
print(f"our base model, whose last blocks of constants are part full: {bits:.4f}")
assert bits_per_weight(64, True) < bits < 4.14

# %% [markdown]
# **Does LoRA still learn on such a base?** `flip` for 60 steps, LoRA of rank 4 on all linear layers, on float32, on NF4 with double
# quantisation, and as a control on the base of two bits that was ruined above; same rate, three seeds.


# %% fold="run"
# Run: LoRA on float32, on four bits and on two bits, three seeds each
def tuned(method, task, seed, rate, steps=60):
    """Return the base model, made trainable by a row of the method map and tuned on a task."""
    generator = torch.Generator().manual_seed(seed)
    if method == "two bits":
        model = base_model().to(device)
        quantise_linears(model, levels=normal_levels(2))
        add_lora(model, LINEARS, 4, 8.0, generator=generator)
    else:
        model = METHODS[method].prepare(base_model().to(device), generator)
    rng = np.random.default_rng(seed)

    def loss(step):
        lines = mixture({task: 1.0}, 16, rng).to(device)
        return model_loss(model, lines.ids, lines.answer_mask)

    train(model, loss, rate_groups(model, {}, rate), steps, label=f"{method}, {task}")
    return model


learnt, left_of_base = {}, {}
for method in ("LoRA", "QLoRA", "two bits"):
    models = [tuned(method, "flip", seed, METHODS["LoRA"].rate) for seed in range(3)]
    q = learnt[method] = [quality(model, "flip") for model in models]
    k = left_of_base[method] = [np.mean(list(retention(model, 24).values())) for model in models]
    if method == "QLoRA":
        qlora = models  # merged further down
    size = storage_bytes([*models[0].parameters(), *models[0].buffers()]) / KIB
    print(
        f"{method:>8}: flip {min(q):.2f} to {max(q):.2f}, base kept {min(k):.2f} to {max(k):.2f}, weights {size:,.0f} KiB"
    )
gap, lost = (np.mean(found["QLoRA"]) - np.mean(found["LoRA"]) for found in (learnt, left_of_base))
print(f"NF4 less float32, means: quality {gap:+.3f}, base kept {lost:+.3f}")
assert METHODS["LoRA"].rate == METHODS["QLoRA"].rate and abs(gap) < 0.08 and abs(lost) < 0.12
finding(
    "LoRA learns flip on a base of four bits",
    figure="quality on flip, LoRA on NF4",
    measured=learnt["QLoRA"],
    null="LoRA on a base of two bits",
    control=learnt["two bits"],
    holds=lambda q: min(q) > 0.85,
    scope="flip, 60 steps of AdamW at 1e-3, rank 4 on all linear layers, three seeds",
)

# %% [markdown]
# On `flip` no difference between float32 and four bits shows that three seeds could tell from chance, neither in what is learned nor in what
# is lost. That isn't "as good as" everywhere. On `neb`, 48 new words, part 9's table has the same pair:

# %%
TABLE = choosing_table()["runs"]
on_neb = {
    method: np.array(
        [[r["quality"], r["kept"]] for r in TABLE if (r["method"], r["task"], r["examples"]) == (method, "neb", 512)]
    )
    for method in ("LoRA", "QLoRA")
}
for method, found in on_neb.items():
    print(
        f"{method:>5} on neb: learned {found[:, 0].min():.2f} to {found[:, 0].max():.2f}, base kept {found[:, 1].min():.2f} to {found[:, 1].max():.2f}"
    )
assert (
    on_neb["QLoRA"][:, 0].mean() < on_neb["LoRA"][:, 0].mean()
    and on_neb["QLoRA"][:, 1].min() > on_neb["LoRA"][:, 1].max()
)

# %% [markdown]
# There the four-bit base learned a little less and kept more. Two tasks and one base model: test yours.
#
# **Check.** No weight moves further than half the widest gap; the layer computes $\widehat W x$, and hands $\widehat W^\top g$ back.

# %%
for weight in weights:
    code = quantise(weight)
    constants = code.scales.repeat_interleave(64)[: weight.numel()].view_as(weight)
    assert ((dequantise(code) - weight).abs() <= (0.1520 * constants) + 1e-6).all()
layer = QuantLinear(torch.nn.Linear(64, 32, bias=False))
x = torch.randn(5, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
y = layer(x)
(g,) = torch.autograd.grad(y.sum(), x)
assert torch.equal(y, x @ layer.weight.T) and torch.allclose(g, torch.ones(5, 32) @ layer.weight)
assert not list(layer.parameters())  # codes have no gradient: nothing here can train

# %% [markdown]
# **The usual mistake: one constant for a whole tensor.** One outlier then sets the scale for everybody. Its symptom: most codes are the
# one for 0.

# %%
weight = base.get_submodule("blocks.0.attn.q").weight.cpu().clone()
weight[0, 0] = 30 * weight.std()
zeros, errors = {}, {}
for name, block in (("blocks of 64", 64), ("whole tensor", weight.numel())):
    code = quantise(weight, block=block)
    others = (dequantise(code) - weight).flatten()[1:]
    zeros[name], errors[name] = (
        float((code.codes == 7).float().mean()),
        float(others.norm() / weight.flatten()[1:].norm()),
    )
    print(f"{name}: {zeros[name]:.0%} of the weights stored as 0, relative error of the others {errors[name]:.2f}")
assert zeros["whole tensor"] > 0.5 > 0.2 > zeros["blocks of 64"] and errors["whole tensor"] > 3 * errors["blocks of 64"]

# %%
outlier_explorer()

# %% [markdown]
# ### Which base does a QLoRA adapter belong to?
#
# The adapter was trained beside $\widehat W$, the four-bit weights, so what it learned is $\widehat W + sBA$. For serving, three merges are common:
#
# - **into the dequantised base**, $\widehat W + sBA$ in 16 or 32 bits: what was trained, in a file of full size;
# - **into the original base**, $W + sBA$: another model, since the adapter never saw $W$;
# - **into four bits again**, $Q(\widehat W + sBA)$: the file stays small, and each entry of the update that is smaller than half a gap may be lost.
#
# **Predict.** QLoRA answers nearly all of `flip`. Which share does it answer once its merged weights are rounded to NF4 again?

# %%
guess = None  # between 0 and 1


# %% fold="run"
# Run: each adapter merged in three ways, and its distance from what was trained
@torch.no_grad()
def merged_qlora(tuned_model, weight_of, again=False):
    """Return a plain model whose linear weights are a base's, given by `weight_of`, plus the adapter's updates."""
    model = base_model().to(device).requires_grad_(False)
    for name, layer in lora_layers(tuned_model).items():
        total = weight_of(name, layer) + layer.delta()
        model.get_submodule(name).weight.copy_(dequantise(quantise(total)) if again else total)
    return model


BASES = {
    "dequantised base": (lambda name, layer: layer.base.weight, False),
    "original base": (lambda name, layer: base.get_submodule(name).weight, False),
    "four bits again": (lambda name, layer: layer.base.weight, True),
}
rows = probes("flip", 64, 5).to(device)
answer = rows.answer_mask[:, 1:] == 1
apart, right = {name: [] for name in BASES}, {name: [] for name in BASES}
for one in qlora:
    with torch.no_grad():
        wanted = one(rows.ids)[:, :-1][answer].log_softmax(-1)
    for name, (weight_of, again) in BASES.items():
        model = merged_qlora(one, weight_of, again)
        said = model(rows.ids)[:, :-1][answer].log_softmax(-1)
        apart[name].append(float((wanted.exp() * (wanted - said)).sum(-1).mean().clamp(min=0)))
        right[name].append(quality(model, "flip"))
for name in BASES:
    print(
        f"merged into {name:>16}: KL {min(apart[name]):.4f} to {max(apart[name]):.4f} nats a token, flip {min(right[name]):.2f} to {max(right[name]):.2f}"
    )
predicted("share of flip that is answered after rounding to four bits again", guess, np.mean(right["four bits again"]))

# %%
assert max(apart["dequantised base"]) < 1e-5 < 1e-4 < min(apart["original base"])
finding(
    "Rounded to four bits again after the merge, a QLoRA adapter loses part of what it learned",
    figure="KL of the merged model from what was trained, nats per answer token",
    measured=apart["four bits again"],
    null="merged into the original base, not rounded",
    control=apart["original base"],
    holds=lambda kl: min(kl) > 0.03,
    scope="flip, 60 steps of AdamW at 1e-3, rank 4 on all linear layers, NF4 in blocks of 64, three seeds",
)

# %% [markdown]
# Only the first merge is what was trained. The second one is close here, because four bits changed this base little. Test it as a model of its own.
# The third one is a new rounding and needs a new evaluation; PEFT warns of it when it merges into a four-bit layer. An adapter that is served
# unmerged beside the four-bit base has neither problem.
#
# **Which four bits, and which eight?** NF4 is one answer among several; they differ in what is rounded, and when.
#
# | | what is rounded | needs data? | when | for |
# | --- | --- | --- | --- | --- |
# | **NF4** (arXiv:2305.14314) | weights, by blocks, to levels of a code book | no | while loading | a frozen base under adapters (QLoRA) |
# | **GPTQ** (arXiv:2210.17323) | weights, column by column; each error is made up for in the columns that aren't rounded yet | yes, to know which errors matter to a layer's output | once, before serving | serving in 3 or 4 bits |
# | **AWQ** (arXiv:2306.00978) | weights, after channels with large activations were scaled up | yes, to measure activations | once, before serving | serving in 4 bits |
# | **fp8** (arXiv:2209.05433) | weights *and* activations, in training gradients too, to 8-bit floats with a scale | for static scales | at each product | speed, on hardware that multiplies fp8 |
#
# The first three save memory: the product itself is computed in 16 bits. fp8 saves arithmetic as well. A GPTQ or AWQ file can carry adapters too; its
# rounding was chosen for the base's outputs, so the same question returns: merge into which base?

# %% [markdown]
# **In practice** this is QLoRA: NF4 in blocks of 64, double quantisation, adapters in 16 bits on every linear layer (Dettmers et al.
# 2023, arXiv:2305.14314). LoftQ lets the adapter begin by repairing: it alternates between rounding $W - BA$ and taking the best
# rank-$r$ part of what the rounding lost (Li et al. 2023, arXiv:2310.08659, algorithm 1). Exercise 6.B does the first of these rounds.
#
# → [exercise 6.1](exercises.ipynb#6.1-Frozen-quantized-base) · graded: [p03, bytes](../../source/p03_lora_parameters/p03_lora_parameters.ipynb)

# %% [markdown]
# ## 6.2 Adapter optimizer states
#
# **Gradients and optimizer state belong to what trains, so an adapter makes them small; what then remains is the frozen base, and only
# fewer bits touch that.**
#
# $$M_\text{stay} = \tfrac{b}{8}\, P_\text{frozen} + (2 + 2 + 12)\, P_\text{train} \ \text{bytes}, \qquad
# M_\text{moments} = 8\, P_\text{train} .$$
#
# $b$ are the bits of a frozen weight; the 16 bytes of a trained one are its weight and gradient in 16 bits, and Adam's two moments
# and master copy in 32.
#
# <details><summary>Why nothing is kept for a frozen parameter</summary>
#
# Adam's moments are averages of a parameter's gradients. torch makes them at the first step that finds a gradient; a frozen
# parameter never has one. So passing all parameters to the optimizer costs nothing, as long as they were frozen *before*.
# </details>

# %% [markdown]
# **Worked**: LLaMA-7B with nothing in the batch; LoRA of rank 16 on all linear layers.

# %%
plans = {
    "full": planned(LLAMA_7B, 0),
    "LoRA": planned(LLAMA_7B, 0, lora_rank=16),
    "QLoRA": planned(LLAMA_7B, 0, lora_rank=16, linear_bits=bits_per_weight(64, True)),
}
for name, b in plans.items():
    print(
        f"{name:>5}: weights {b.weights / GIB:.2f}, gradients {b.gradients / GIB:.2f}, optimizer {b.optimizer / GIB:.2f}, in all {b.total / GIB:.2f} GiB"
    )
assert lora_parameters(LLAMA_7B, 16) == 39_976_960
assert round(plans["full"].total / GIB, 1) == 100.4 and round(plans["LoRA"].total / GIB, 2) == 13.15

# %% [markdown]
# **Predict.** An 8-bit Adam keeps 2 bytes of moments a parameter in place of 8. It saves 6 bytes on each trained one. How many GiB
# does that save on this model under **LoRA** of rank 16 (full tuning: 37.65)?

# %%
guess = None  # GiB

# %%
saved_full, saved_lora = (6 * plans[name].gradients / 2 / GIB for name in ("full", "LoRA"))
assert round(saved_full, 2) == 37.65 and saved_lora < 0.01 * saved_full
predicted("GiB that an 8-bit Adam saves under LoRA", guess, saved_lora)

# %% [markdown]
# **On the model**: one AdamW step in float32 under six rows of the method map, every byte measured.

# %%
rows = mixture({"flip": 1.0}, 16, np.random.default_rng(0)).to(device)
budgets = {}
for name in ("full", "LoRA", "LoRA q,v", "QLoRA", "Houlsby adapters", "BitFit"):
    model = METHODS[name].prepare(base_model().to(device), torch.Generator().manual_seed(0))
    trained = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)  # all are passed, few get state
    b = budgets[name] = measured(model, lambda: model_loss(model, rows.ids, rows.answer_mask), optimizer)
    assert len(optimizer.state) == len(trained)  # the check: one entry for each tensor that trains
    numbers = sum(p.numel() for p in trained)
    assert 8 * numbers <= b.optimizer <= 8 * numbers + 4 * len(trained)  # two moments, and a counter a tensor
    print(
        f"{name:>16}: {numbers:>7,} train; weights {b.weights / KIB:,.0f} KiB, gradients {b.gradients / KIB:,.0f}, optimizer {b.optimizer / KIB:,.1f}"
    )

# %%
fall = budgets["full"].optimizer / budgets["LoRA"].optimizer
thin = budgets["LoRA"].weights / budgets["QLoRA"].weights
assert (
    abs(budgets["LoRA"].optimizer / budgets["QLoRA"].optimizer - 1) < 1e-9
    and budgets["LoRA"].weights > budgets["full"].weights
)
bars(
    [name.removesuffix(" adapters") for name in budgets],
    {
        "weights": [b.weights / KIB for b in budgets.values()],
        "gradients + optimizer": [(b.gradients + b.optimizer) / KIB for b in budgets.values()],
    },
    title=f"LoRA cuts the optimizer {fall:.0f}-fold and no weights; QLoRA cuts the weights {thin:.1f}-fold and no more optimizer",
    y_label="KiB",
    alt="; ".join(
        f"{name}: weights {b.weights / KIB:,.0f} KiB, gradients and optimizer {(b.gradients + b.optimizer) / KIB:,.0f}"
        for name, b in budgets.items()
    )
    + ".",
)

# %% [markdown]
# **The mistake: freezing after the first step.** The optimizer keeps the state that it has made. Its symptom: memory stays where it
# was, although `requires_grad` says that hardly anything trains.

# %%
model = base_model().to(device)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
model_loss(model, rows.ids, rows.answer_mask).backward()
optimizer.step()


def state_bytes(optimizer):
    return storage_bytes(value for entry in optimizer.state.values() for value in entry.values())


before = state_bytes(optimizer)
model.requires_grad_(False)
model.blocks[3].requires_grad_(True)
optimizer.zero_grad()
after = state_bytes(optimizer)
fresh = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
model_loss(model, rows.ids, rows.answer_mask).backward()
fresh.step()
print(
    f"state before {before / KIB:,.0f} KiB, after freezing {after / KIB:,.0f}, in a new optimizer {state_bytes(fresh) / KIB:,.0f}"
)
assert after == before > 3 * state_bytes(fresh)

# %% [markdown]
# **In practice** 8-bit optimizers (Dettmers et al. 2021, arXiv:2110.02861) are worth their trouble for full tuning; under LoRA, what
# they'd save is less than a GiB, as you just saw. A **paged optimizer** serves another purpose. It came with QLoRA (Dettmers et al.
# 2023, arXiv:2305.14314, section 3): a few long sequences make a spike of memory, and the optimizer's state moves to the host's
# memory until the spike is over. It keeps a run from crashing and makes no term of the sum smaller.
#
# → [exercise 6.2](exercises.ipynb#6.2-Adapter-optimizer-states) ·
# graded: [p10, what trains](../../source/p10_freeze_and_mask_audit/p10_freeze_and_mask_audit.ipynb)

# %% [markdown]
# ## 6.3 Activation memory remains
#
# **To reach an adapter in the first block, the backward pass crosses all later ones, and each of them waits with what its
# nonlinearities need. An adapter removes the optimizer's bytes, and hardly any of these.**
#
# $$M_\text{act} = L \, s\, b\, d \left(34 + \frac{5\,h\,s}{d}\right) \ \text{bytes}, \qquad
# M_\text{act}^\text{flash} \approx 34\, L\, s\, b\, d .$$
#
# $s$ tokens in each of $b$ sequences, width $d$, $h$ heads; 16 bits, dropout masks included, an ungated MLP of width $4d$. The
# quadratic term holds the attention's $(s, s)$ scores and goes where they are never stored.
#
# <details><summary>Why an adapter saves some, and which</summary>
#
# A linear layer $y = Wx$ keeps $x$ for one purpose: $\partial L / \partial W = \delta x^\top$. Frozen, it needs only $W$ to hand
# $W^\top \delta$ back, and $x$ isn't kept, unless LoRA stands beside it: $\partial L / \partial A = s\,(B^\top \delta)\, x^\top$
# needs the same $x$. Norms, softmax, silu and the product of the MLP's halves keep theirs, frozen or not, since their derivative
# depends on where they are.
#
# Our decoder, per token and block, in bytes, with keys as wide as queries: full $26d + 8f + 4h + 8$; LoRA on $q$ and $v$
# $18d + 6f + 4h + 8 + 4r$; LoRA on all seven $22d + 8f + 4h + 8 + 14r$. The list is in `kept_bytes_per_token`.
# </details>

# %% [markdown]
# **Worked**: $s = 2048$, one sequence, $d = 4096$, 32 heads, 32 blocks; and where the two terms are equal.

# %%
s, d, h, L = 2048, 4096, 32, 32
whole, flash = (L * block_activation_bytes(s, 1, d, h, flash=on) / GIB for on in (False, True))
crossing = 34 * d / (5 * h)
print(
    f"{whole} GiB with scores, {flash} without, inputs of blocks only {L * 2 * s * d / GIB}; terms equal at s = {crossing:.0f}"
)
assert (whole, flash) == (28.5, 8.5) and round(crossing) == 870

# %% [markdown]
# **Predict.** LLaMA-7B in bfloat16, 512 tokens. Full tuning keeps 2.98 GiB for the backward pass. Which share of that does LoRA of
# rank 8 on *all seven* kinds of linear layers keep?

# %%
guess = None  # between 0 and 1


# %% fold="run"
# Run: four ways to tune a model of 7 billion, without its numbers
def lora(targets, rank=8, bits=False):
    def prepare(model):
        if bits:
            quantise_linears(model)
        add_lora(model, targets, rank, 2.0 * rank)

    return prepare


def resident_bytes():
    """Return what this process holds in memory, where the system tells (Linux)."""
    told = Path("/proc/self/status")
    rows = told.read_text().splitlines() if told.exists() else []
    return next((int(row.split()[1]) * KIB for row in rows if row.startswith("VmRSS")), None)


WAYS = {
    "full": lambda model: None,
    "LoRA on all": lora(LINEARS),
    "QLoRA on all": lora(LINEARS, bits=True),
    "LoRA on q, v": lora(("q", "v")),
}
imagined(LLAMA_7B, 16)  # the first call loads what torch needs for tensors without numbers
before = resident_bytes()
thought = {name: imagined(LLAMA_7B, 512, prepare) for name, prepare in WAYS.items()}
grown = None if before is None else (resident_bytes() - before) / 2**20
for name, b in thought.items():
    print(
        f"{name:>13}: weights {b.weights / GIB:6.3f}, optimizer {b.optimizer / GIB:6.3f}, kept for backward {b.activations / GIB:.3f} GiB"
    )
seconds = Timer("f()", globals={"f": lambda: imagined(LLAMA_7B, 512)}).timeit(1).mean
print(
    f"one of these models of 7 billion takes {seconds:.2f} s"
    + ("" if grown is None else f"; all four grew the process by {grown:.0f} MiB")
)
assert grown is None or grown < 200  # a real one would take 12,800
predicted(
    "LoRA's share of full tuning's activations", guess, thought["LoRA on all"].activations / thought["full"].activations
)

# %%
left = {
    part: [getattr(b, part) / getattr(thought["full"], part) for b in thought.values()]
    for part in ("weights", "optimizer", "activations")
}
assert left["optimizer"][1] < 0.01 and left["activations"][1] > 0.9 and left["activations"][3] > 0.7
assert thought["QLoRA on all"].activations == thought["LoRA on all"].activations
bars(
    list(thought),
    left,
    title=f"LoRA on all linears: {left['optimizer'][1]:.1%} of the optimizer, {left['activations'][1]:.0%} of the activations",
    y_label="share of full fine-tuning's bytes",
    alt="; ".join(
        f"{name}: " + ", ".join(f"{part} {left[part][place]:.3f}" for part in left)
        for place, name in enumerate(thought)
    )
    + ". LLaMA-7B, 512 tokens, bfloat16.",
)

# %% [markdown]
# These models were never in memory: their tensors have shapes and no numbers, autograd runs over them all the same, and a hook counts
# each storage that it keeps. **Check** that such bytes are real: the closed forms are met to the byte, at two lengths, and so is a real
# step of our base model.

# %%
for time in (128, 2048):
    for prepare, closed in (
        (WAYS["full"], kept_bytes_per_token(LLAMA_7B)),
        (WAYS["LoRA on q, v"], kept_bytes_per_token(LLAMA_7B, lora_rank=8)),
        (WAYS["LoRA on all"], kept_bytes_per_token(LLAMA_7B, lora_rank=8, all_linears=True)),
    ):
        one, two = (imagined(LLAMA_7B, time, prepare, layers=layers).activations for layers in (1, 2))
        assert two - one == time * closed
model = base_model()
WAYS["LoRA on all"](model)
with saved_tensors(model.parameters()) as kept_tensors:
    out = model.hidden(torch.ones(4, 20, dtype=torch.long))
real = storage_bytes(kept_tensors)
copy = imagined(model.config, 20, WAYS["LoRA on all"], batch=4, dtype=torch.float32).activations
print(f"our model, LoRA on all, 4 x 20 tokens in float32: {real:,} bytes really kept, {copy:,} imagined")
assert abs(real / copy - 1) < 0.01

# %% [markdown]
# **What does remove them** is not fewer trained numbers but a shorter way back: adapters in the top $k$ blocks only.

# %%
kept_by_top = {}
for k in (4, 3, 2, 1):
    model = base_model().to(device)
    add_lora(model, [f"blocks.{number}.*" for number in range(4 - k, 4)], 4, 8.0)
    kept_by_top[k] = measured(model, lambda: model_loss(model, rows.ids, rows.answer_mask)).activations / KIB
print({f"top {k} blocks": f"{value:,.0f} KiB" for k, value in kept_by_top.items()})
assert all(abs(kept_by_top[k] / kept_by_top[4] - k / 4) < 0.03 for k in kept_by_top)

# %% [markdown]
# **The term behind the blocks: logits.** The head turns each position into $V$ numbers. The loss keeps their logarithms in 32 bits, and
# the backward pass makes the gradient of those and then of the logits: 12 bytes for each position and each word of the vocabulary,
# and 14 if the caller holds on to the 16-bit logits, as many libraries do to return them. No adapter and no code of four bits
# touches this term. What helps is to project fewer positions at a time: a **chunked loss** computes one chunk's logits, adds up its
# loss, and makes the logits again in the backward pass.

# %% fold="run"
# Run: bytes a logit at once and in chunks
vocab, width, positions = 16_000, 64, 1024
head = torch.nn.Linear(width, vocab, bias=False, dtype=torch.bfloat16)
states, wanted = torch.randn(positions, width, dtype=torch.bfloat16), torch.randint(vocab, (positions,))


def at_once():
    head.zero_grad()
    loss = torch.nn.functional.cross_entropy(head(states).float(), wanted)
    loss.backward()
    return loss.item(), head.weight.grad.clone()


def in_chunks(chunk):
    head.zero_grad()
    loss = chunked_loss(head, states, wanted, chunk)
    loss.backward()
    return loss.item(), head.weight.grad.clone()


def bytes_a_logit(run):
    head.zero_grad()
    return allocated_bytes(run) / positions / vocab


plain, pieces = at_once(), in_chunks(64)
a_logit = {
    "forward alone": bytes_a_logit(lambda: head(states).float().log_softmax(-1)),
    "with its backward pass": bytes_a_logit(at_once),
    "in 16 chunks": bytes_a_logit(lambda: in_chunks(64)),
}
print({name: f"{size:.2f} bytes a logit" for name, size in a_logit.items()})
assert abs(pieces[0] / plain[0] - 1) < 1e-3 and float((pieces[1] - plain[1]).norm() / plain[1].norm()) < 0.02
assert 12 <= a_logit["with its backward pass"] < 12.5 and a_logit["in 16 chunks"] < 1.5

# %% [markdown]
# The gradients agree up to sixteen-bit rounding. **What that does to a plan**: a Llama 3.2 with 1.2 billion parameters and a vocabulary of
# 128,256, QLoRA with every block checkpointed, 32,768 tokens. Without its logits the run would seem to fit a card of 8 GB.

# %%
LLAMA_1B = Config(128_256, 2048, 16, 32, 8, 64, 8192, biases=False)
long = {
    name: planned(LLAMA_1B, 32_768, lora_rank=16, linear_bits=4.127, checkpointing=True, chunk=chunk)
    for name, chunk in (("all logits at once", None), ("chunks of 1,024 positions", 1024))
}
for name, b in long.items():
    print(f"{name:>25}: {(b.total - b.logits) / GIB:.1f} GiB + {b.logits / GIB:.1f} GiB of logits")
assert all(b.total - b.logits < 8e9 for b in long.values())
assert long["all logits at once"].logits > 5 * 8e9 and long["chunks of 1,024 positions"].logits < 2 * GIB

# %% [markdown]
# The loss of this course projects the positions of answers alone, which is the same idea where prompts are long.
#
# **The mistake: switching to LoRA to cure a crash on long sequences.** The same model, one sequence of 16,384 tokens, a card of 24 GiB. The
# symptom is the same crash. The cure is the two tricks that touch
# these terms, checkpointing and a chunked loss.

# %%
card, tokens = 24 * GIB, 16_384  # an RTX 4090 reports 24,564 MiB
tried = {
    "full": planned(LLAMA_1B, tokens),
    "LoRA, rank 16": planned(LLAMA_1B, tokens, lora_rank=16),
    "LoRA, rank 1": planned(LLAMA_1B, tokens, lora_rank=1),
    "QLoRA, rank 16": planned(LLAMA_1B, tokens, lora_rank=16, linear_bits=4.127),
}
for name, b in tried.items():
    stay = b.weights + b.gradients + b.optimizer
    print(
        f"{name:>14}: {stay / GIB:5.1f} GiB stay + {b.activations / GIB:.1f} wait in the blocks + {b.logits / GIB:.1f} of logits, "
        f"of {card / GIB:.1f}"
    )
    assert stay + b.activations > card  # the blocks alone are too much, whatever becomes of the logits
cured = planned(LLAMA_1B, tokens, lora_rank=16, checkpointing=True, chunk=1024)
print(f"LoRA, rank 16, checkpointed, logits in chunks of 1,024: {cured.total / GIB:.1f} GiB")
assert cured.total < card

# %% [markdown]
# **In practice** QLoRA's authors report, for a 7B LLaMA, 26 MB of LoRA weights beside 567 MB of input gradients at batch size 1 (2023,
# arXiv:2305.14314); the formula with scores is Korthikanti's (arXiv:2205.05198, equation 1).
#
# → [exercise 6.3](exercises.ipynb#6.3-Activation-memory-remains) · graded: [p03, bytes](../../source/p03_lora_parameters/p03_lora_parameters.ipynb)

# %% [markdown]
# ## 6.4 Gradient checkpointing
#
# **Keep the inputs of segments, throw the rest away, and compute it again when the backward pass comes by: the gradients are the same
# to the last bit, and the price is at most one more forward pass.**
#
# $$M(k) = k + \lceil L / k \rceil \ \ge\ 2 \sqrt L \ \text{ layer units}, \qquad
# \text{compute} \times \tfrac{1 + 1 + 2}{1 + 2} = \tfrac43, \ \text{ or } \times \tfrac{1 + 1 + 1}{1 + 1} = \tfrac32 \text{ on a frozen base.}$$
#
# $k$ segments of $L$ equal layers. A forward pass counts 1; a backward pass counts 1 for the gradients of inputs and 1 more for those
# of weights, which a frozen base doesn't need.
#
# <details><summary>Why the square root, and when it isn't one</summary>
#
# $k$ inputs are kept, and one segment's layers at a time while they're computed again. $k + L/k$ is least where both are equal.
# That takes for granted that a layer keeps as much as its input weighs. If an input weighs $u$ and a layer keeps $v$, the sum is
# $k u + v L / k$, and the best $k$ is $\sqrt{L v / u}$: cheap inputs want many segments.
# </details>

# %% [markdown]
# **Worked**: how many segments for 36, 80 and 1,000 layers, and what is then kept.

# %%
for layers in (36, 80, 1000):
    k, units = best_segments(layers)
    print(f"{layers} layers: {k} segments, {units} units in place of {layers}; 2 sqrt(L) = {2 * math.sqrt(layers):.1f}")
assert best_segments(36) == (6, 12) and best_segments(80) == (8, 18)

# %% [markdown]
# **On 36 equal layers**, what torch really keeps, in units of one layer's input.

# %%
mlp = torch.nn.Sequential(*(torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Tanh()) for _ in range(36)))
x = torch.randn(32, 64, generator=torch.Generator().manual_seed(0)).requires_grad_()
KS, units, same = (1, 2, 3, 4, 6, 9, 12, 18, 36), [], []
mlp(x).square().sum().backward()
wanted = [p.grad.clone() for p in mlp.parameters()]
for k in KS:
    mlp.zero_grad()
    with saved_tensors(mlp.parameters()) as kept_tensors:
        out = checkpoint_sequential(mlp, k, x, use_reentrant=False)
    units.append(storage_bytes(kept_tensors) / (4 * x.numel()))
    out.square().sum().backward()
    same.append(all(torch.equal(p.grad, g) for p, g in zip(mlp.parameters(), wanted)))
assert all(same) and units == [k + math.ceil(36 / k) for k in KS]
lines(
    list(KS),
    {"kept by torch": units, "k + L / k": [k + 36 / k for k in KS]},
    log_x=True,
    title=f"Six segments keep {min(units):.0f} units of {units[0]:.0f}, and every gradient is bit-identical",
    x_label="segments k",
    y_label="kept, in units of a layer's input",
    alt="A U-shaped curve: "
    + ", ".join(f"{k} segments {u:.0f}" for k, u in zip(KS, units))
    + ". Formula and measurement agree.",
)

# %% [markdown]
# **Predict.** Our base model with LoRA of rank 4 on all linear layers, every block checkpointed. By which factor do the operations of
# a step rise?

# %%
guess = None  # a factor

# %%
found, gradients = {}, {}
for name in ("full", "LoRA", "LoRA q,v", "QLoRA"):
    for on in (False, True):
        model = METHODS[name].prepare(base_model().to(device), torch.Generator().manual_seed(0))
        model.checkpointing = on
        kept_now = measured(model, lambda: model_loss(model, rows.ids, rows.answer_mask)).activations
        gradients[name, on] = [p.grad.clone() for p in model.parameters() if p.requires_grad]
        model.zero_grad()
        with FlopCounterMode(display=False) as flops:
            model_loss(model, rows.ids, rows.answer_mask).backward()
        peak = peak_bytes(device, lambda: model_loss(model, rows.ids, rows.answer_mask).backward())
        found[name, on] = kept_now, flops.get_total_flops()
        more = "" if peak is None else f", the allocator's peak {peak / KIB:,.0f} KiB"
        print(
            f"{name:>8}, checkpointing {on!s:>5}: {kept_now / KIB:7,.0f} KiB kept, {flops.get_total_flops() / 1e9:.2f} GFLOP{more}"
        )
ratio = {name: found[name, True][1] / found[name, False][1] for name, on in found if on}
print({name: f"x {value:.3f}" for name, value in ratio.items()})
predicted("operations with checkpointing over without, LoRA on all", guess, ratio["LoRA"])

# %% [markdown]
# LoRA's step pays a half more, not a third. Full tuning pays even less than a third: torch stops computing again as soon as it has
# every tensor that it had kept, so each block's last product, `down`, isn't repeated. **Check:** no bit of any gradient changes.

# %%
alike = torch.equal if device.type == "cpu" else torch.allclose  # a GPU may add in another order each time
for name in ("full", "LoRA", "LoRA q,v", "QLoRA"):
    assert all(alike(a, b) for a, b in zip(gradients[name, False], gradients[name, True], strict=True))
    assert found[name, True][0] < 0.3 * found[name, False][0]
assert 1.2 < ratio["full"] < 4 / 3 < 1.45 < ratio["LoRA"] < 1.51

# %% [markdown]
# **The square root is for equal units, and a transformer's aren't.** A 7B block keeps 47.5 $d$ bytes a token and its input weighs 2 $d$.

# %%
block_bytes, input_bytes, tokens = kept_bytes_per_token(LLAMA_7B), 2 * LLAMA_7B.d_model, 4096
KS = [1, 2, 3, 4, 6, 8, 11, 16, 32]
total = [tokens * (k * input_bytes + math.ceil(32 / k) * block_bytes) / GIB for k in KS]
rule = tokens * (6 * input_bytes + math.ceil(32 / 6) * block_bytes) / GIB
assert min(total) == total[-1] and best_segments(32)[0] in (4, 5, 6, 8) and rule > 2 * total[-1]
print(
    f"a block keeps {block_bytes / LLAMA_7B.d_model:.1f} d, its input weighs {input_bytes / LLAMA_7B.d_model:.0f} d a token"
)
print(
    f"sqrt(L v / u) = {math.sqrt(32 * block_bytes / input_bytes):.1f}; without checkpointing {tokens * 32 * block_bytes / GIB:.1f} GiB"
)
lines(
    KS,
    {"kept at the worst moment": total},
    log_x=True,
    title=f"In a 7B model a segment a block is best: {total[-1]:.1f} GiB, against {rule:.1f} with six segments",
    x_label="segments of 32 blocks",
    y_label="GiB at 4,096 tokens",
    alt="A falling curve: " + ", ".join(f"{k} segments {v:.2f} GiB" for k, v in zip(KS, total)) + ".",
)

# %% [markdown]
# All five terms stand now. **Choose** a model, a card, a method and a batch. The logits are counted for every position at once, as a
# plain cross-entropy makes them.

# %%
card_explorer()

# %% [markdown]
# **The mistake: computing again something else.** With dropout, the second forward pass must draw the same mask;
# `preserve_rng_state=False` saves a little time and draws another. Its symptom: nothing is reported, the loss is right, and the
# gradients belong to another function.

# %%
noisy = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.Dropout(0.5), torch.nn.Tanh(), torch.nn.Linear(64, 1))


def step(run):
    noisy.zero_grad()
    torch.manual_seed(0)
    loss = run().square().mean()
    loss.backward()
    return loss.item(), noisy[0].weight.grad.clone()


plain = step(lambda: noisy(x))
careful = step(lambda: checkpoint(noisy, x, use_reentrant=False))
careless = step(lambda: checkpoint(noisy, x, use_reentrant=False, preserve_rng_state=False))
off = float((careless[1] - plain[1]).norm() / plain[1].norm())
print(
    f"losses {plain[0]:.4f}, {careful[0]:.4f}, {careless[0]:.4f}; the careless gradient is off by {off:.0%} of its length"
)
assert torch.equal(careful[1], plain[1]) and careless[0] == plain[0] and off > 0.2

# %% [markdown]
# **In practice** Chen et al. took a 1,000-layer network from 48 GB to 7 GB for 30 % more time (2016, arXiv:1604.06174). Libraries
# checkpoint each block, and for adapters ask you to let the embeddings' output require a gradient: an older kind
# (`use_reentrant=True`) gives a frozen base's segments none at all.
#
# → [exercise 6.4](exercises.ipynb#6.4-Gradient-checkpointing) ·
# graded: [p03, bytes](../../source/p03_lora_parameters/p03_lora_parameters.ipynb)

# %% [markdown]
# ## 6.5 Rank-memory tradeoff
#
# **Rank is paid for in proportion and pays back less and less; where it stops paying is the task's own number, not a constant.**
#
# $$M_\text{LoRA} = 16\, r\, L \sum_t (d_{\text{in},t} + d_{\text{out},t}) + 2\, r\, \lvert S \rvert L\, T \ \text{bytes}, \qquad
# \text{error}^2 = \sum_{i > r} \sigma_i^2 .$$
#
# The first sum runs over the targets $t \in S$; the second term is $A x$, $r$ numbers of 16 bits that each adapter keeps for each
# of $T$ tokens. $\sigma_i$ are the singular values of the update that full tuning would make; the error is the cut's, in the
# Frobenius norm.
#
# <details><summary>Why the two curves look as they do</summary>
#
# Bytes are linear in $r$, beside a constant: base and activations. The tail of the spectrum falls with every $\sigma_r^2$ taken out
# of it, and the $\sigma$ descend, so each further rank buys at most what the one before did: the *squared* error is convex in $r$.
# Its root needn't be: with $\sigma = (1, 1)$ the error is $\sqrt 2$, then 1, then 0, and the second rank buys more than the first.
# Accuracy isn't convex either: it waits until enough of the update is there.
# </details>

# %% [markdown]
# **Worked**: LLaMA-7B with adapters on all linear layers, one number for each unit of rank; and the part that depends on the batch.

# %%
per_rank = lora_parameters(LLAMA_7B, 1)
for r in (8, 16, 64, 256):
    batch = 14 * r * 32 * 16_384
    print(f"r = {r:>3}: {16 * r * per_rank / GIB:5.2f} GiB stay, and {batch / GIB:4.2f} GiB wait at 16,384 tokens")
    assert planned(LLAMA_7B, 0, lora_rank=r).total - 2 * 6_738_415_616 == 16 * r * per_rank
assert per_rank == 2_498_560 and round(16 * 256 * per_rank / GIB, 2) == 9.53
squared = np.array([2.0, 1.0, 0.0])  # what is left of sigma = (1, 1) at ranks 0, 1, 2
assert (np.diff(squared, 2) >= 0).all() and (np.diff(np.sqrt(squared), 2) < 0).all()

# %% [markdown]
# **Predict.** Our base model is tuned in full on `neb` (48 new words) and on `flip` (an old skill renamed), and each linear layer's
# update is cut to rank $r$; embeddings, gains and biases go back to the base's. Which rank does `neb` need for 90 % of what it reaches
# with all 128?

# %%
guess = None  # a rank

# %% fold="run"
# Run: full tuning's update on two tasks, cut to each rank
RANKS = (1, 2, 4, 8, 16, 32, 128)


def update_of(task, seed):
    """Return the singular value decompositions of each linear layer's update after 60 steps of full tuning."""
    model = tuned("full", task, seed, 1e-3)
    found = {name: model.get_submodule(name).weight - base.get_submodule(name).weight for name in linears}
    return {name: torch.linalg.svd(delta.detach(), full_matrices=False) for name, delta in found.items()}


def cut_to(update, r):
    model = base_model().to(device).requires_grad_(False)
    for name, (U, sigma, Vh) in update.items():
        model.get_submodule(name).weight += (U[:, :r] * sigma[:r]) @ Vh[:r]
    return model


def tail(update, r):
    return float(
        sum(s[r:].square().sum() for _, s, _ in update.values()) / sum(s.square().sum() for _, s, _ in update.values())
    )


score, error = {}, {}
for task in ("flip", "neb"):
    updates = [update_of(task, seed) for seed in range(3)]
    score[task] = np.array([[quality(cut_to(update, r), task, 96) for update in updates] for r in RANKS])
    error[task] = np.array([[tail(update, r) for update in updates] for r in RANKS])
    print(task, {r: f"{row.min():.2f} to {row.max():.2f}" for r, row in zip(RANKS, score[task])})


def knee(task):
    """Return the first rank whose mean accuracy is 90 % of that of rank 128."""
    mean = score[task].mean(1)
    return next(r for r, value in zip(RANKS, mean) if value >= 0.9 * mean[-1])


predicted("the rank that neb needs", guess, knee("neb"))

# %% fold="picture"
# Picture: score and tail of the update against the adapter's cost
cost = [16 * lora_parameters(base.config, r) / KIB for r in RANKS]
apart = float(np.abs(error["flip"].mean(1) - error["neb"].mean(1)).max())
print(
    f"the two tails lie at most {apart:.2f} apart; 90 % of the score takes rank {knee('flip')} and rank {knee('neb')}"
)
as_full = 825_728 / lora_parameters(base.config, 1)
assert (
    knee("neb") >= 2 * knee("flip")
    and apart < 0.15
    and all((np.diff(values, axis=0) <= 1e-7).all() for values in error.values())
)
lines(
    cost,
    {
        f"{task}, {what}": list(v[task].mean(1))
        for task in score
        for what, v in (("accuracy", score), ("tail of the update", error))
    },
    log_x=True,
    title=f"flip is served by rank {knee('flip')} ({cost[RANKS.index(knee('flip'))]:,.0f} KiB), neb needs {knee('neb')} ({cost[RANKS.index(knee('neb'))]:,.0f} KiB)",
    x_label="KiB of adapters at 16 bytes a number, ranks 1 to 128",
    y_label="share",
    alt="; ".join(
        f"{task}: " + ", ".join(f"rank {r} {v:.2f}" for r, v in zip(RANKS, score[task].mean(1))) for task in score
    )
    + f". Tails fall for both. At rank {as_full:.0f} the adapters cost as much as full tuning. Means of three seeds.",
)

# %%
finding(
    "Which rank is enough is the task's own number: rank 4 of the update keeps flip, and not neb",
    figure="quality on flip with every update cut to rank 4",
    measured=score["flip"][RANKS.index(4)],
    null="neb, tuned and cut alike",
    control=score["neb"][RANKS.index(4)],
    holds=lambda q: min(q) > 0.9,
    scope="full tuning, 60 steps of AdamW at 1e-3, linear layers cut, three seeds",
)

# %% [markdown]
# The tails of the two tasks lie close together, and their ranks don't: **squared error doesn't tell which rank is enough; the task's
# score does.** And an update that was found without a bound on its rank is not the best one of rank $r$: training at that rank can do
# better than a cut.
#
# **Check.** Bytes are linear in the rank, what is imagined has the same slope, and the batch's part is $14 r$ bytes a token and block.

# %%
small, large = (imagined(LLAMA_7B, 256, lora(LINEARS, r)) for r in (8, 24))
assert large.gradients - small.gradients == 2 * 16 * per_rank
assert large.activations - small.activations == 14 * 16 * 32 * 256

# %% [markdown]
# **The mistake: taking the adapter's file for its cost.** The file holds 2 bytes a number, the run 16. The symptom: a rank that was
# chosen to fill a spare GiB asks for eight.

# %%
spare = 1 * GIB
by_file, by_run = spare // (2 * per_rank), spare // (16 * per_rank)
print(
    f"rank {by_file} by the file, {by_run} by the run: rank {by_file} takes {16 * by_file * per_rank / GIB:.1f} GiB in training"
)
assert by_file > 7 * by_run and 16 * by_file * per_rank > 7 * spare

# %% [markdown]
# **In practice** LoRA's authors found the validation loss of GPT-2 medium flat from rank 8 or 16 up to 1,024 (2021, arXiv:2106.09685,
# table 18). Before you believe such a plateau of your own, see whether the scale made it (part 5.3).
#
# → [exercise 6.5](exercises.ipynb#6.5-Rank-memory-tradeoff) · graded: [p05, truncated SVD](../../source/p05_truncated_svd/p05_truncated_svd.ipynb)

# %% [markdown]
# ## On a real model: SmolLM2-135M in NF4
#
# Its file holds weights of four bits already (the kind is called Q4_1, blocks of 32 with a constant and a minimum), so what you see is
# the *second* rounding of numbers that were rounded once, not that of the model as it was trained. The cell is skipped where the model
# isn't there (`python3 start.py model smollm2`).

# %% fold="run"
# Run: SmolLM2 before and after rounding, if its file is there
from ftmath import smollm2
from ftmath.smollm import cache_folder

SENTENCES = (
    "The cat sat on the mat and looked out of the window at the rain.",
    "Water boils at one hundred degrees Celsius at sea level.",
    "She opened the old wooden door and walked into the quiet garden.",
    "Paris is the capital of France, and Rome is the capital of Italy.",
    "The bakery at the corner sells fresh bread every morning.",
    "A triangle has three sides, and the sum of its angles is 180 degrees.",
)
if any(cache_folder().glob("SmolLM2*.gguf")):
    model, tokenizer = smollm2()
    model.to(device)
    model.requires_grad_(False)
    texts = [torch.tensor([tokenizer.encode(text)], device=device) for text in SENTENCES]

    def losses():
        return [float(torch.nn.functional.cross_entropy(model(ids)[0, :-1], ids[0, 1:])) for ids in texts]

    before = losses()
    names = quantise_linears(model)
    after = losses()
    bits = 8 * sum(model.get_submodule(name).stored_bytes for name in names) / linear_parameters(model.config)
    print(f"{len(names)} layers, {bits:.3f} bits a weight; loss on six sentences, nats/token:")
    print(f"before {[round(v, 2) for v in before]}, mean {np.mean(before):.3f}")
    print(
        f"after  {[round(v, 2) for v in after]}, mean {np.mean(after):.3f}; {sum(a < b for a, b in zip(after, before))} of six fell"
    )
    assert -0.1 < np.mean(after) - np.mean(before) < 0.8
else:
    print("SmolLM2 isn't here; everything else in this part ran without it.")

# %% [markdown]
# ## What to keep
#
# | | statement | number to remember |
# | --- | --- | --- |
# | 6.1 | block constants and a code book; four bits hold, two break; an adapter belongs to the base beside which it was trained | 4.5 bits a weight, 4.127 with double quantisation |
# | 6.2 | state belongs to what trains | 16 bytes a trained number |
# | 6.3 | activations and logits don't care how few numbers train | above 90 % of activations stay with LoRA on all linears; 12 bytes a logit |
# | 6.4 | same bits, more compute | a third more, a half on a frozen base |
# | 6.5 | linear cost, diminishing return | the rank is the task's |
