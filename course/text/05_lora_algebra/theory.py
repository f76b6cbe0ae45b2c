# %% [markdown]
# # Part 5: LoRA's algebra
#
# **The claim.** Everything that LoRA can and can't do follows from one matrix, $\Delta W = s\,BA$: which matrices it can be,
# what it costs, how far a step of training moves it, what a merge leaves of it, and which layers receive one.
#
# You need the singular value decomposition and part 4.5. Afterwards you can prove the rank bound and the error of the best
# rank-$r$ update, count parameters where keys and values have fewer heads than queries, compare ranks and scales without
# fooling yourself, merge in a sixteen-bit type without being surprised, and choose where to spend a budget. About 80 minutes of reading; the notebook itself runs in
# about a minute on two quiet CPU cores. Longer runs are recorded, and a cell beside each record runs one of them again.
#
# A green box is a **finding**: a conclusion, its figure with an interval over seeds, and a *control*, the same figure from a
# run without the claimed effect. The cell raises an error if the conclusion fails, or if the control would pass as well.
#
# | symbol | what it is | shape or unit |
# | --- | --- | --- |
# | $W$ | frozen weight of a linear layer, $y = Wx$ | $(d_\text{out}, d_\text{in})$ |
# | $A, B$ | LoRA's factors; $A$ drawn, $B = 0$ at the start | $(r, d_\text{in})$, $(d_\text{out}, r)$ |
# | $s$ | scale, $\alpha / r$ unless said otherwise | a number |
# | $\Delta W$ | the update $s\,BA$ | $(d_\text{out}, d_\text{in})$ |
# | $\sigma_i$ | singular values of a matrix, descending | numbers |

# %% fold="imports"
# Imports, and the device that this notebook runs on
from functools import partial

import numpy as np
import torch

from ftmath import (
    LoRALinear,
    adapter_effect,
    add_lora,
    base_model,
    batch,
    best_device,
    describe,
    fine_tune,
    lora_layers,
    merge,
    merge_difference,
    mixture,
    model_loss,
    probes,
    quality,
    rate_groups,
    recorded,
    train,
    unmerge,
)
from ftmath.diagrams import lora_block
from ftmath.exercises import progress
from ftmath.findings import finding
from ftmath.plots import bars, lines, sweep
from ftmath.predict import predicted
from ftmath.sweeps import at_best_rate, best_rate, short_run
from ftmath.widgets import lora_explorer

device = best_device()
KINDS = ("q", "k", "v", "o", "gate", "up", "down")
SEEDS = range(3)
RUNS = recorded("lora_runs")  # benchmarks/lora_runs.py wrote it: every loss of 40 steps, for each rate and seed
print(f"torch {torch.__version__} on {describe(device)}")
progress(5)

# %% [markdown]
# ## 5.1 Rank constraint
#
# **$\Delta W$ can be any matrix of rank at most $r$ and no other; of those, the truncated singular value decomposition is
# nearest to the update that you would like to make.**
#
# LoRA sends the input through a narrow place. $A$ turns $d_\text{in}$ numbers into $r$; $B$ turns these $r$ numbers into
# $d_\text{out}$ again. Whatever isn't among the $r$ numbers is lost on this path.

# %% fold="picture"
# Picture: a layer of our model with LoRA of rank 8, sides to scale
lora_block(128, 128, 8)

# %% [markdown]
# In symbols, for a wanted update $M$ with singular values $\sigma_1 \ge \sigma_2 \ge \dots$:
#
# $$\operatorname{rank}(BA) \le \min(r, d_\text{out}, d_\text{in}), \qquad
# \min_{\operatorname{rank} X \le r} \lVert M - X \rVert_F^2 = \sum_{i > r} \sigma_i^2 .$$
#
# **Why the bound holds.** Column $j$ of $BA$ is $B$ times column $j$ of $A$. So every column is a combination of the $r$
# columns of $B$, and $r$ vectors span at most $r$ dimensions. Conversely, a matrix of rank $r$ has a singular value
# decomposition with $r$ terms, and $B = U_r \Sigma_r$, $A = V_r^\top$ reach it.
#
# **Why truncation is best**, in four steps.
#
# 1. Keep the first $r$ terms of $M = \sum_i \sigma_i u_i v_i^\top$. What is left is $\sum_{i>r} \sigma_i u_i v_i^\top$, and
#    since the $u_i v_i^\top$ are orthonormal, its squared norm is $\sum_{i>r} \sigma_i^2$.
# 2. No $X$ of rank $r$ can do better. For any two matrices, $\sigma_{i+j-1}(P + Q) \le \sigma_i(P) + \sigma_j(Q)$ (Weyl).
# 3. Put $P = M - X$, $Q = X$ and $j = r + 1$. Because $X$ has rank $r$, $\sigma_{r+1}(X) = 0$, and so
#    $\sigma_{i+r}(M) \le \sigma_i(M - X)$ for every $i$.
# 4. Square and sum over $i$: $\sum_{i > r} \sigma_i(M)^2 \le \lVert M - X \rVert_F^2$ (Eckart and Young 1936, Mirsky 1960).
#
# The **energy** that rank $r$ keeps is the share $\sum_{i \le r}\sigma_i^2 / \sum_i \sigma_i^2$.
#
# <details><summary>How many numbers does rank r really have?</summary>
#
# The factors are not unique: $BA = (BG)(G^{-1}A)$ for every invertible $(r, r)$ matrix $G$. So $r(d_\text{out} + d_\text{in})$
# numbers describe only $r(d_\text{out} + d_\text{in} - r)$ degrees of freedom.
# </details>
#
# **By hand.** $M = \begin{pmatrix}3&1\\1&3\\1&1\end{pmatrix}$ has $M^\top M = \begin{pmatrix}11&7\\7&11\end{pmatrix}$ with
# eigenvalues 18 and 4. So rank 1 misses an error of $\sqrt 4 = 2$ and keeps $18/22$ of the energy.

# %%
M = torch.tensor([[3.0, 1], [1, 3], [1, 1]], dtype=torch.float64)
U, sigma, Vh = torch.linalg.svd(M, full_matrices=False)
part = sigma[0] * torch.outer(U[:, 0], Vh[0])
error, kept = torch.linalg.norm(M - part), sigma[0] ** 2 / (sigma**2).sum()
print("rank-1 part", part.round(decimals=3).tolist(), f"error {error:.4f}, energy {kept:.4f}")
assert abs(error - 2) < 1e-12 and abs(kept - 18 / 22) < 1e-12

# %% [markdown]
# **How low is the rank of a real update?** First something to compare with: what would a matrix without any preferred
# direction show? A Gaussian matrix of a query projection's shape keeps the following energy.


# %%
def energy(matrix, rank):
    """Return the share of a matrix's energy that its best approximation of a rank keeps."""
    squares = torch.linalg.svdvals(matrix.double()) ** 2
    return float(squares[:rank].sum() / squares.sum())


def gaussian(shape, seed):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


for rank in (4, 16):
    print(
        f"a Gaussian (128, 128) matrix keeps {energy(gaussian((128, 128), 0), rank):.1%} of its energy at rank {rank}"
    )

# %% [markdown]
# **Predict.** The base model is now fine-tuned, all parameters, on `flip` (an old skill under a new name) for 60 steps. A
# step's gradient is a sum of outer products $\delta x^\top$, one for each token.
# Which share of a query update's energy lies in its first **4** of 128 directions? (Without a preference: the number above.)

# %%
guess = None  # between 0 and 1


# %%
def updates(model):
    """Return what fine-tuning added to each of the 28 projections, by name."""
    base = dict(base_model().named_parameters())
    return {
        name: (weight.detach().cpu() - base[name].detach()).double()
        for name, weight in model.named_parameters()
        if weight.ndim == 2 and name.split(".")[-2] in KINDS
    }


tuned = [updates(fine_tune("full", "flip", rows=16, seed=seed, device=device)[0]) for seed in SEEDS]
nulls = [{name: gaussian(M.shape, seed) for name, M in tuned[seed].items()} for seed in SEEDS]


def energy_of(kind, rank, found):
    """Return the mean energy of one kind of projection over the four blocks."""
    return float(np.mean([energy(M, rank) for name, M in found.items() if name.split(".")[-2] == kind]))


why = "The outer products of a few short steps mostly lie along few directions. It takes no task: see the second box below."
predicted("energy of a query update at rank 4", guess, np.mean([energy_of("q", 4, found) for found in tuned]), why)

# %% fold="picture"
# Picture: the spectrum of query updates beside noise of the same shape and beside the weight itself
ranks = list(range(1, 65))


def spectrum(matrices):
    """Return the mean energy at each rank over some matrices."""
    squares = [torch.linalg.svdvals(M.double()) ** 2 for M in matrices]
    return torch.stack([(one.cumsum(0) / one.sum())[: len(ranks)] for one in squares]).mean(0).tolist()


queries = [name for name in tuned[0] if name.endswith("q.weight")]
base = dict(base_model().named_parameters())
curves = {
    "update": spectrum(found[name] for found in tuned for name in queries),
    "pretrained weight": spectrum(base[name].detach() for name in queries),
    "Gaussian matrix": spectrum(found[name] for found in nulls for name in queries),
}
lines(
    ranks,
    curves,
    title="The update's energy sits in few directions, the pretrained weight's is spread, and noise is spread most",
    x_label="rank r",
    y_label="share of energy",
    alt="Three rising curves. At rank 16: " + "; ".join(f"{name} {v[15]:.2f}" for name, v in curves.items()) + ".",
)

# %% fold="picture"
# Picture: energy at rank 16 for each kind of projection, beside Gaussian matrices of the same shape
at, null_at = ([[energy_of(kind, 16, one) for one in found] for kind in KINDS] for found in (tuned, nulls))
shown = {"update": at, "Gaussian matrix": null_at}
means = {name: [float(np.mean(row)) for row in rows] for name, rows in shown.items()}
bars(
    KINDS,
    means,
    spread={name: ([min(row) for row in rows], [max(row) for row in rows]) for name, rows in shown.items()},
    title=f"For each kind, rank 16 keeps {min(means['update']):.0%} or more of full updates on average, {max(means['Gaussian matrix']):.0%} or less of noise",
    y_label="share of energy at rank 16",
    alt="Bars for seven projections. "
    + "; ".join(f"{name}: {min(v):.2f} to {max(v):.2f}" for name, v in means.items())
    + ".",
)

# %%
finding(
    "A full update puts more of its energy into 16 directions than noise of the same shape does",
    figure="energy at rank 16, least of the seven kinds of projection",
    measured=[min(energy_of(kind, 16, found) for kind in KINDS) for found in tuned],
    null="Gaussian matrices of the same shapes",
    control=[min(energy_of(kind, 16, found) for kind in KINDS) for found in nulls],
    holds=lambda share: min(share) > 0.6,
    scope="flip, 60 steps of full fine-tuning with AdamW at rate 1e-4, the course's model, 3 seeds",
)

# %% [markdown]
# **Is that the task's doing?** Train on random strings that are to be answered by other random strings, newly drawn at each step.
# There is nothing to learn but the alphabet, and the updates are concentrated all the same.


# %%
def random_strings(seed):
    """Return the updates of 20 steps towards random answers to random prompts."""
    model, rng = base_model().to(device), np.random.default_rng(seed)

    def word(least, most):
        return "".join(map(chr, rng.integers(33, 123, rng.integers(least, most))))

    def loss(_):
        lines = batch([(word(5, 16), word(1, 10)) for _ in range(8)]).to(device)
        return model_loss(model, lines.ids, lines.answer_mask)

    train(model, loss, rate_groups(model, {}, 1e-4), 20, label="random strings")
    return updates(model)


aimless = [random_strings(seed) for seed in SEEDS]

# %%
finding(
    "Training on random strings concentrates the update as well, so few directions aren't a sign of a task",
    figure="energy at rank 16, least of the seven kinds of projection",
    measured=[min(energy_of(kind, 16, found) for kind in KINDS) for found in aimless],
    null="Gaussian matrices of the same shapes",
    control=[min(energy_of(kind, 16, found) for kind in KINDS) for found in nulls],
    holds=lambda share: min(share) > 0.6,
    scope="random strings, 20 steps on 8 lines with AdamW at rate 1e-4, the course's model, 3 seeds",
)

# %% [markdown]
# Energy isn't quality, either. Does the model still solve the task if each update is cut to a rank? The control cuts to as
# many *random* directions, and stretches what is left until its norm is that of the update cut to its first 16.


# %%
def accuracy_with(change, found):
    """Return the accuracy on `flip` of the base model with a changed version of each update."""
    model = base_model()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name in found:
                weight += change(found[name]).float()
    return quality(model.to(device), "flip")


def truncated(M, rank=16):
    U, sigma, Vh = torch.linalg.svd(M, full_matrices=False)
    return (U[:, :rank] * sigma[:rank]) @ Vh[:rank]


def random_cut(M, rank=16, seed=0):
    Q = torch.linalg.qr(gaussian((len(M), rank), seed).double()).Q
    cut = Q @ (Q.T @ M)
    return cut * truncated(M, rank).norm() / cut.norm()


# %%
finding(
    "The first 16 directions of each update carry the task",
    figure="accuracy on flip after the cut",
    measured=[accuracy_with(truncated, found) for found in tuned],
    null="16 random directions, stretched to the norm of the first 16",
    control=[accuracy_with(partial(random_cut, seed=seed), found) for seed, found in enumerate(tuned)],
    holds=lambda right: min(right) > 0.5,
    scope="flip, 128 probes, projections alone are changed, the course's model, 3 seeds",
)

# %% [markdown]
# This is how an adapter is extracted from a finished full fine-tuning. Move the slider: kept singular values are filled,
# dropped ones hollow.

# %%
delta = tuned[0]["blocks.1.attn.q.weight"]
lora_explorer(delta)

# %% [markdown]
# **Check.** Truncation is a formula for the best pair of factors. A search that knows nothing of it should end in the same
# place: start from a random $B$, and solve in turn for the best $A$ and the best $B$ (alternating least squares).


# %%
def alternating(M, rank, rounds, seed=0):
    """Return the error of factors that were fitted in turn: each is least squares with the other one fixed."""
    B = gaussian((len(M), rank), seed).double()
    for _ in range(rounds):
        A = torch.linalg.lstsq(B, M).solution
        B = torch.linalg.lstsq(A.T, M.T).solution.T
    return float(torch.linalg.norm(M - B @ A))


sigma = torch.linalg.svdvals(delta)
for rank in (1, 4, 16):
    tail = float((sigma[rank:] ** 2).sum().sqrt())
    first, last = alternating(delta, rank, 1), alternating(delta, rank, 60)
    print(f"rank {rank:>2}: tail {tail:.4f}; fitted {first:.4f} after one round, {last:.4f} after 60")
    assert tail * (1 - 1e-9) <= last < 1.01 * tail
    assert abs(torch.linalg.norm(delta - truncated(delta, rank)) - tail) < 1e-9

# %% [markdown]
# **The usual mistake: energy with $\sigma$ instead of $\sigma^2$.** On a spectrum with a steep head and a long tail, as real
# updates have, it asks for far too large a rank: the tail is small in squares and large in sum. On $\sigma_i = q^i$ it asks for
# twice the rank at most, and on a flat spectrum it hardly shows, so a test on random matrices misses it.


# %%
def rank_for(M, power, share=0.9):
    """Return the least rank whose part of the sum of sigma ** power reaches a share."""
    parts = torch.linalg.svdvals(M.double()) ** power
    return int((parts.cumsum(0) < share * parts.sum()).sum()) + 1


name = "blocks.1.attn.q.weight"
print(f"rank for 90 % of the energy: {rank_for(delta, 2)}; with sigma in place of its square: {rank_for(delta, 1)}")
finding(
    "Summing sigma instead of its square more than doubles the rank that seems to be needed",
    figure="rank by sigma over rank by sigma squared, for 90 %",
    measured=[rank_for(found[name], 1) / rank_for(found[name], 2) for found in tuned],
    null="Gaussian matrices of the same shape",
    control=[rank_for(found[name], 1) / rank_for(found[name], 2) for found in nulls],
    holds=lambda ratio: min(ratio) > 2,
    scope="query update of block 1, flip, 60 steps of AdamW at rate 1e-4, 3 seeds",
)

# %% [markdown]
# **In practice** the question "how many directions does this task need" was first asked by training in a random subspace of
# all parameters, the *intrinsic dimension* (Li et al. 2018, arXiv:1804.08838; for fine-tuning Aghajanyan et al. 2021,
# arXiv:2012.13255). That is a number of directions in the space of all parameters, not the rank of a matrix; LoRA took the
# idea over to matrices.
#
# → [exercise 5.1](exercises.ipynb#5.1-Rank-constraint) ·
# graded: [p05, truncated SVD](../../source/p05_truncated_svd/p05_truncated_svd.ipynb)

# %% [markdown]
# ## 5.2 Parameter count
#
# **LoRA costs the sum of a matrix's sides for each rank, not their product. So it's cheaper than the matrix only up to some
# rank: half the side of a square matrix.**
#
# $A$ has $r$ rows as long as the input, $B$ has $r$ columns as long as the output. Nothing else is trained.
#
# $$P = r\,(d_\text{out} + d_\text{in}), \qquad P < d_\text{out} d_\text{in} \iff
# r < \frac{d_\text{out}\, d_\text{in}}{d_\text{out} + d_\text{in}} .$$
#
# The limit on the right is half the harmonic mean of the two sides.
#
# <details><summary>What the limit looks like for square and for narrow matrices</summary>
#
# Divide $r(d_\text{out} + d_\text{in}) < d_\text{out} d_\text{in}$ by the sum. For a square matrix the limit is $d/2$. For a
# narrow one it is close to the narrow side: a (1024, 4096) key projection of grouped-query attention has its limit at 819.2.
# </details>
#
# **Predict.** A team counts `2 * r * 4096` for every matrix of a model whose key projection is (1024, 4096). By which factor
# is the key projection's count too high? Write both counts down; the rank cancels.

# %%
guess = None  # a factor


# %%
def lora_numbers(d_out, d_in, r):
    return r * (d_out + d_in)


for name, (d_out, d_in), r in (("key", (1024, 4096), 8), ("query", (4096, 4096), 8), ("gate", (14336, 4096), 16)):
    n, full = lora_numbers(d_out, d_in, r), d_out * d_in
    print(
        f"{name:>6} r={r:<3} {n:>8,} numbers, {n / full:.2%} of the matrix; cheaper below {full / (d_out + d_in):.1f}"
    )
assert lora_numbers(1024, 4096, 8) == 40_960
why = "It is 2 x 4096 over 1024 + 4096: the team counts a square matrix."
predicted(
    "the factor by which 2 r d overcounts a key projection", guess, 2 * 8 * 4096 / lora_numbers(1024, 4096, 8), why
)

# %% [markdown]
# **On the model.** What the formula says and what torch counts, for three sets of targets.

# %%
counts = {}
for targets, r in ((("q", "v"), 4), (KINDS, 4), (KINDS, 16)):
    model = base_model()
    shapes = [module.weight.shape for name, module in model.named_modules() if name.split(".")[-1] in targets]
    add_lora(model, targets, r, 2.0 * r)
    counted = sum(p.numel() for p in model.parameters() if p.requires_grad)
    counts[f"{','.join(targets)} r={r}"] = counted
    assert counted == sum(lora_numbers(*shape, r) for shape in shapes)
counts

# %% fold="picture"
# Picture: the count against the rank, for a square and a narrow matrix
sides = range(1, 129)
lines(
    list(sides),
    {
        "LoRA on (128, 128)": [lora_numbers(128, 128, r) for r in sides],
        "LoRA on (32, 128)": [lora_numbers(32, 128, r) for r in sides],
    },
    level=("the (128, 128) matrix itself", 128 * 128),
    title="At half its side, a square matrix's factors cost as much as the matrix",
    x_label="rank r",
    y_label="numbers",
    alt="Two straight lines from the origin. For a (128, 128) matrix LoRA's count crosses the matrix's 16,384 at rank 64; "
    f"for a (32, 128) matrix it grows more slowly. Counted on the model: {counts}.",
)

# %% [markdown]
# **The mistake and its symptom**: `2 * r * d` with $d$ the model's width. On a square projection nothing shows. With fewer
# heads for keys and values than for queries, the printed total is too high, and so is the share of the model.

# %%
wrong = sum(2 * 8 * 4096 for _ in range(4))
right = sum(lora_numbers(*shape, 8) for shape in ((4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096)))
print(f"q, k, v, o of one grouped block at r = 8: {right:,}, not {wrong:,}")
assert wrong > right

# %% [markdown]
# **In practice** the count is what PEFT prints as *trainable params*. Table 4 of the LoRA paper reports 4.7 M for GPT-3 with
# rank 1 on $q$ and $v$ (Hu et al. 2021, arXiv:2106.09685), and $96 \cdot 2 \cdot (12288 + 12288) \cdot 1 = 4{,}718{,}592$.

# %% fold="checks"
# Check: the paper's 4.7 M
assert 96 * 2 * lora_numbers(12288, 12288, 1) == 4_718_592

# %% [markdown]
# → [exercise 5.2](exercises.ipynb#5.2-Parameter-count) ·
# graded: [p03, LoRA parameters](../../source/p03_lora_parameters/p03_lora_parameters.ipynb)

# %% [markdown]
# ## 5.3 Scaling
#
# **The scale sets how far a step moves the model. The optimizer decides how that depends on the rank. Under Adam with
# $\alpha / r$ the first step is equally long at every rank, so at one low rate all ranks look alike. They differ once the
# learning rate is swept for each rank, and for each $\alpha$.**
#
# At a given rate, a run with twice the scale takes a step twice as long, or longer. If it reaches a lower loss in 40 steps,
# that may only mean that 40 steps were too few for the other run. Two scales are common:
#
# $$\Delta W = \frac{\alpha}{r} BA \quad\text{or, rank-stabilised,}\quad \Delta W = \frac{\alpha}{\sqrt r} BA .$$
#
# **How long is the first step?** Take one example $x$ whose output has the gradient $\delta$. At the start $B = 0$, so only
# $B$ moves; $A$ gets no gradient.
#
# 1. The gradient is $\partial L / \partial B = s\,\delta\,(Ax)^\top$.
# 2. **SGD** of rate $\eta$ steps by $-\eta$ times that. The output then moves by
#    $\Delta W x = s B A x = -\eta\, s^2 \lVert Ax \rVert^2\, \delta$.
# 3. $A$'s entries are uniform within $1/\sqrt{d_\text{in}}$, with variance $1/(3 d_\text{in})$, so
#    $\mathbb E\lVert Ax\rVert^2 = r \lVert x\rVert^2 / (3 d_\text{in})$. SGD's step grows as $s^2 r$.
# 4. **Adam** divides each entry of the gradient by its size, so its first step is $-\eta$ times the *sign*:
#    $B = -\eta \operatorname{sign}(\delta) \operatorname{sign}(Ax)^\top$. The scale in the gradient has cancelled.
# 5. The output moves by $sBAx = -\eta\, s \lVert Ax \rVert_1 \operatorname{sign}(\delta)$, a sum of $r$ positive terms. Adam's
#    step grows as $s\,r$.
#
# | | SGD: $s^2 r$ | Adam: $s\,r$ |
# | --- | --- | --- |
# | $s = \alpha / r$ | $\alpha^2 / r$: falls with the rank | $\alpha$: **the same at every rank** |
# | $s = \alpha / \sqrt r$ | $\alpha^2$: the same at every rank | $\alpha \sqrt r$: grows with the rank |
#
# <details><summary>Where the paper's rule comes from</summary>
#
# Rank-stabilised LoRA asks that neither activations nor gradients of the adapter vanish or explode as $r$ grows, over the
# whole of training and not just at its first step (Kalajdzievski 2023, arXiv:2312.03732). That gives $1/\sqrt r$.
# </details>
#
# **By hand**, with $\alpha = 16$, from rank 8 to rank 64: under $\alpha / r$ the scale falls from $16/8 = 2$ to $16/64 = 1/4$.

# %%
for rule, scale_at in (("α / r", lambda r: 16 / r), ("α / √r", lambda r: 16 / r**0.5)):
    s8, s64 = scale_at(8), scale_at(64)
    print(
        f"{rule:>6}: s {s8:.2f} -> {s64:.2f}; SGD's s²r {s8**2 * 8:.0f} -> {s64**2 * 64:.0f}; Adam's s r {s8 * 8:.0f} -> {s64 * 64:.0f}"
    )

# %% fold="checks"
# Check: the expectation of |Ax|², by drawing A many times
x, generator = torch.ones(256), torch.Generator().manual_seed(0)
draws = torch.stack([((torch.rand(16, 256, generator=generator) * 2 - 1) / 16 @ x).square().sum() for _ in range(2000)])
expected = 16 * 256 / (3 * 256)
print(f"E|Ax|² at r = 16, |x|² = 256: {draws.mean():.2f} drawn, {expected:.2f} by the formula")
assert abs(draws.mean() / expected - 1) < 0.05

# %% [markdown]
# **Measured on the model**: one step on 16 lines of `neb` (an invented language of 48 words), and how far it moves the logits.

# %%
OPTIMIZERS = {"SGD": partial(torch.optim.SGD, lr=1e-2), "AdamW": partial(torch.optim.AdamW, lr=1e-5)}


def first_step(rank, optimizer, seed, stabilised=False):
    """Return how far one step moves the logits of its own lines, as a root mean square."""
    model, generator = base_model(), torch.Generator().manual_seed(seed)
    add_lora(model, KINDS, rank, 8.0, rank_stabilised=stabilised, generator=generator)
    lines = probes("neb", 16, seed)
    before = model(lines.ids).detach()
    model_loss(model, lines.ids, lines.answer_mask).backward()
    OPTIMIZERS[optimizer]([p for p in model.parameters() if p.requires_grad]).step()
    return float((model(lines.ids).detach() - before).square().mean().sqrt())


def power(optimizer, seed, stabilised=False):
    """Return the power of the rank that the first step grows with, from rank 8 to rank 64."""
    moved = [first_step(rank, optimizer, seed, stabilised) for rank in (8, 64)]
    return float(np.log(moved[1] / moved[0]) / np.log(8))


# %%
powers = {
    (name, rule): [power(name, seed, rule == "α / √r") for seed in SEEDS]
    for name in OPTIMIZERS
    for rule in ("α / r", "α / √r")
}
for (name, rule), values in powers.items():
    print(f"{name:>5}, {rule:<10}: the first step grows as r to the power {np.round(values, 2).tolist()}")

# %%
finding(
    "Under AdamW and α / r, the first step is as long at rank 64 as at rank 8",
    figure="power of the rank in the first step's size",
    measured=powers["AdamW", "α / r"],
    null="the same under SGD, where the formula says -1",
    control=powers["SGD", "α / r"],
    holds=lambda power: max(map(abs, power)) < 0.25,
    scope="first step on 16 lines of neb, all seven projections, ranks 8 and 64, the course's model, 3 seeds",
)

# %% [markdown]
# **Predict.** LoRA on all projections trains on `neb` for 40 steps of AdamW, at rate 1e-3, with $\alpha = 8$ and the scale
# $\alpha / r$. By which factor is the loss at rank 1 higher than at rank 64? The table above has the handle.

# %%
guess = None  # loss at rank 1 / loss at rank 64

# %%
scale = {name: row["losses"] for name, row in RUNS["scale"].items()}
low_rate = {name: np.array(losses["0.001"]) for name, losses in scale.items()}
why = "Under α / r, Adam's first steps are equally long at each rank."
ratio = low_rate["alpha 8, rank 1"].mean() / low_rate["alpha 8, rank 64"].mean()
predicted("loss at rank 1 over loss at rank 64", guess, ratio, why)

# %%
for name, losses in low_rate.items():
    print(f"{name:<20} at rate 1e-3: {losses.mean():.2f} nats/token, seeds {np.round(losses, 2).tolist()}")

# %% [markdown]
# So at this rate the rank seems to do nothing under $\alpha / r$. Under $\alpha / \sqrt r$ the same ranks look very useful.
# With $\alpha = 8$, its rank 64 has the scale $8 / \sqrt{64} = 1$. That is the scale of the row "alpha 64, rank 64", so it is the
# same run. Is the gain due to the rank? The control keeps rank 1 and raises $\alpha$ alone.

# %%
low, high = low_rate["alpha 8, rank 1"], low_rate["alpha 64, rank 64"]
fall = np.log(low / high)  # from rank 1 to rank 64 with rank-stabilised scale
finding(
    "At one low rate, most of what rank-stabilised scaling seems to gain from rank is had at rank 1 by raising α",
    figure="share of the fall in log loss",
    measured=np.log(low / low_rate["alpha 64, rank 1"]) / fall,
    null="raising the rank to 64 and leaving α",
    control=np.log(low / low_rate["alpha 8, rank 64"]) / fall,
    holds=lambda share: min(share) > 0.5,
    scope="neb, 40 steps of AdamW at rate 1e-3, α 8 and 64, all seven projections, 3 seeds",
)

# %% [markdown]
# **A sweep at one rate measures the rate.** Here is the whole sweep; a ring marks each curve's best rate.

# %% fold="picture"
# Picture: loss against the rate for each rank, α = 8
shown = {f"rank {r}": scale[f"alpha 8, rank {r}"] for r in (1, 8, 64)}
shown["rank 64, α / √r"] = scale["alpha 64, rank 64"]
bests = {name: (best_rate(losses), np.mean(at_best_rate(losses))) for name, losses in shown.items()}
sweep(
    shown,
    title="At α = 8 and α / r the best rates are within a factor of two; under α / √r, rank 64 wants a lower one",
    y_label="loss after 40 steps, nats/token",
    alt="Loss against the learning rate, α = 8. Best: "
    + "; ".join(f"{name}: {loss:.2f} at rate {rate}" for name, (rate, loss) in bests.items())
    + ". Bars show the least and the most of three seeds.",
)


# %%
def best_by_seed(losses):
    """Return each seed's own best rate."""
    seeds = range(len(next(iter(losses.values()))))
    return [min(map(float, losses), key=lambda rate: losses[f"{rate:g}"][seed]) for seed in seeds]


finding(
    "Under AdamW, α / r and α = 8, the best rate at rank 64 is within a factor of two of the best at rank 1",
    figure="best rate at rank 64 over best rate at rank 1",
    measured=np.divide(best_by_seed(scale["alpha 8, rank 64"]), best_by_seed(scale["alpha 8, rank 1"])),
    null="rank 64 with the scale α / √r",
    control=np.divide(best_by_seed(scale["alpha 64, rank 64"]), best_by_seed(scale["alpha 8, rank 1"])),
    holds=lambda ratio: min(ratio) >= 0.5 and max(ratio) <= 2,
    scope="neb, 40 steps, rates 3e-4 to 3e-2 in steps of 1.4 to three, α 8, all seven projections, 3 seeds",
)

# %% [markdown]
# An equally long *first* step doesn't promise the same best rate for a whole run. At a larger $\alpha$ the higher rank takes the
# higher rate.

# %%
faster = {name: np.divide(losses["0.003"], losses["0.0017"]) for name, losses in scale.items() if "alpha 64" in name}
finding(
    "At α = 64, going from rate 1.7e-3 to 3e-3 helps rank 64 and hurts rank 1",
    figure="loss at rate 3e-3 over loss at rate 1.7e-3, at rank 64",
    measured=faster["alpha 64, rank 64"],
    null="the same at rank 1",
    control=faster["alpha 64, rank 1"],
    holds=lambda ratio: max(ratio) < 1,
    scope="neb, 40 steps of AdamW, scale α / r, α 64, all seven projections, 3 seeds",
)
assert min(faster["alpha 64, rank 1"]) > 1

# %% [markdown]
# **And what does the rank do, once the rate is swept?** Compare rank 8 with rank 1 at the same $\alpha = 64$, each at its own
# best rate. The claim is about the speed of 40 steps, not about where a longer run ends.

# %%
best_of = {name: np.array(at_best_rate(losses)) for name, losses in scale.items()}
finding(
    "With the rate swept for each, rank 8 learns faster in 40 steps than rank 1",
    figure="loss at rank 8 over loss at rank 1, each at its best rate",
    measured=best_of["alpha 64, rank 8"] / best_of["alpha 64, rank 1"],
    null="the same ranks at α 8 and the one rate 1e-3",
    control=low_rate["alpha 8, rank 8"] / low_rate["alpha 8, rank 1"],
    holds=lambda ratio: max(ratio) < 0.7,
    scope="neb, 40 steps of AdamW, α 64, scale α / r, rates 3e-4 to 3e-2, all seven projections, 3 seeds",
)

# %% [markdown]
# **Under Adam, LoRA has two dials.** Multiply $\alpha$ by 8. By steps 4 and 5 above, Adam's steps for $A$ and for $B$ stay as long
# as they were, so the update $s\,BA$ moves 8 times as far through $B$. Raising $B$'s rate 8 times does exactly the same. So there are
# two dials: $A$'s rate, compared with the size at which $A$ is drawn, and $\alpha$ times $B$'s rate. LoRA+ turns the second dial by
# another name.
#
# There is one proviso. `train` scales the gradients down when their norm exceeds 1, and that norm does depend on $\alpha$. With this
# clipping off, the two runs agree.


# %%
def two_dials(alpha, b_faster, clip):
    """Return the losses of 12 steps of LoRA of rank 4, with B's rate `b_faster` times A's."""
    model, rng = base_model().to(device), np.random.default_rng(0)
    add_lora(model, KINDS, 4, alpha, generator=torch.Generator().manual_seed(0))

    def loss(_):
        lines = mixture({"neb": 1.0}, 8, rng).to(device)
        return model_loss(model, lines.ids, lines.answer_mask)

    return np.array(train(model, loss, rate_groups(model, {"*.B": b_faster * 1e-3}, 1e-3), 12, clip=clip))


off = float("inf")
apart = {
    "α 64 against α 8 with B's rate times 8, clipping off": two_dials(64.0, 1, off) - two_dials(8.0, 8, off),
    "the same, gradients clipped at norm 1": two_dials(64.0, 1, 1.0) - two_dials(8.0, 8, 1.0),
    "α 64 against α 8, clipping off": two_dials(64.0, 1, off) - two_dials(8.0, 1, off),
}
for name, gap in apart.items():
    print(f"{name:<54} losses differ by up to {abs(gap).max():.1e}")
same, clipped, one_dial = (abs(gap).max() for gap in apart.values())
assert same < 1e-3 and one_dial > 100 * same and clipped > 10 * same

# %% [markdown]
# So a sweep of the rate at one $\alpha$ turns both dials at once and always by the same factor. Another $\alpha$ opens other
# settings, and with gradients clipped at 1, as in all these runs, both ranks gain from it. Rank 64 gains more.

# %%
finding(
    "With the rate swept for each, α 64 lowers the loss of rank 64 more than that of rank 1",
    figure="loss with α 64 over loss with α 8 at rank 64, each at its best rate",
    measured=best_of["alpha 64, rank 64"] / best_of["alpha 8, rank 64"],
    null="the same two alphas at rank 1",
    control=best_of["alpha 64, rank 1"] / best_of["alpha 8, rank 1"],
    holds=lambda ratio: max(ratio) < 0.65,
    scope="neb, 40 steps of AdamW, gradients clipped at 1, scale α / r, rates 3e-4 to 3e-2, all seven projections, 3 seeds",
)

# %% [markdown]
# So a scale that grows with the rank, as rank-stabilised scaling does, helps on this task with the rates swept. The sweep at one
# rate couldn't have shown it: there, most of the gain was had at rank 1.
#
# Schulman et al. (2025, *LoRA Without Regret*, thinkingmachines.ai/blog/lora) report for large models a best rate
# under $\alpha / r$ that hardly depends on the rank and is about ten times that of full fine-tuning. The end of this part tries
# the second statement on our model, at three alphas.
#
# The runs above were recorded. This cell trains one of them again.

# %%
again = short_run(
    lambda model, generator: add_lora(model, KINDS, 8, 8.0, generator=generator), 0, rate=1e-2, device=device
)
kept = scale["alpha 8, rank 8"]["0.01"][0]
print(f"alpha 8, rank 8, rate 1e-2, seed 0: {again.loss:.4f} here, {kept:.4f} recorded")
assert abs(again.loss / kept - 1) < 0.25  # another machine rounds otherwise, and 40 steps amplify that

# %% fold="checks"
# Check: doubling alpha doubles the update; doubling r with the same BA halves it
layer = torch.nn.Linear(6, 5)
one, two, wide = LoRALinear(layer, 2, alpha=4), LoRALinear(layer, 2, alpha=8), LoRALinear(layer, 4, alpha=4)
with torch.no_grad():
    one.B.normal_(generator=torch.Generator().manual_seed(0))
    two.A.copy_(one.A), two.B.copy_(one.B)
    wide.A.copy_(torch.cat([one.A, torch.zeros(2, 6)])), wide.B.copy_(torch.cat([one.B, torch.zeros(5, 2)], dim=1))
assert torch.allclose(two.delta(), 2 * one.delta())
assert torch.allclose(wide.delta(), one.delta() / 2)

# %% [markdown]
# **The mistake**: leaving out the division, $\alpha\,BA$. Nothing raises. At rank 64 this is a layer with 64 times the $\alpha$ that
# was written down, and its first step is 64 times as long. So the rate that is best for $\alpha / r$ ruins the run. The layer itself
# isn't worse: at its own best rate it ends lower than the layer with the division does, as a larger $\alpha$ did above. The cell
# prints both rates; they differ by less than 64, since $A$'s rate is in them too.

# %%
undivided, divided = scale["no division, rank 64"], scale["alpha 8, rank 64"]
rate = best_rate(divided)
print(f"best rate with the division {rate}, without it {best_rate(undivided)}")
assert 5 < float(rate) / float(best_rate(undivided)) < 64
assert (np.array(at_best_rate(undivided)) < at_best_rate(divided)).all()
finding(
    "Without the division by r, the rate that is best for α / r ruins a run of rank 64",
    figure="loss without the division over loss with it, both at the rate that is best with it",
    measured=np.divide(undivided[rate], divided[rate]),
    null="each at its own best rate",
    control=np.divide(at_best_rate(undivided), at_best_rate(divided)),
    holds=lambda ratio: min(ratio) > 1.5,
    scope="neb, 40 steps of AdamW, rank 64, α 8, rates 3e-5 to 1e-2 without and 3e-4 to 3e-2 with the division, 3 seeds",
)

# %% [markdown]
# **In practice** "$\alpha = 2r$" keeps $s = 2$ at every rank. Under Adam that lengthens the first step in proportion to $r$, so
# the rate has to be tuned again when the rank changes. A fixed $\alpha$ with $\alpha / r$ keeps the best rate near where it was
# (Hu et al. 2021, arXiv:2106.09685, give this as the reason for dividing by $r$); above, within a factor of two.
#
# → [exercise 5.3](exercises.ipynb#5.3-Scaling) · graded: [p04, the LoRA update](../../source/p04_lora_update/p04_lora_update.ipynb)

# %% [markdown]
# ## 5.4 Merge for inference
#
# **In exact arithmetic a merged model is the same function. In sixteen bits the sum is rounded once more, and an update that is
# small beside its weight can vanish.**
#
# A merge adds the update to the weight, so that serving needs no second path and saves $2r(d_\text{out} + d_\text{in})$
# operations a token. A type of sixteen bits can hold only some numbers, so the sum is rounded to the nearest one. If the update is
# less than half the way to the next number on the side that it moves to, the weight stays what it was.
#
# $$W_\text{merged} = \operatorname{round}_\text{dtype}\!\left(W + s\,BA\right), \qquad
# \text{entry lost if } |\Delta W_{ij}| < \tfrac12 \operatorname{gap}(W_{ij}) .$$
#
# The gap is the distance from $W_{ij}$ to the next number of the type, in the direction of $\Delta W_{ij}$. Upwards it's called
# the *ulp*, the unit in the last place. At a power of two the gap towards zero is only half of that.
#
# By distributivity $Wx + s B(Ax) = (W + sBA)x$, so rounding is the only difference.
#
# <details><summary>How far apart bfloat16's numbers are</summary>
#
# bfloat16 keeps 8 significant bits: between $2^{-6}$ and $2^{-5}$ its numbers are $2^{-6} \cdot 2^{-7} = 2^{-13} \approx
# 1.22 \cdot 10^{-4}$ apart. So near 0.02 a change below $6.1 \cdot 10^{-5}$ rounds back.
# </details>
#
# **By hand.** $W = 0.02$ in bfloat16, and two updates on either side of half an ulp.

# %%
W = torch.tensor(0.02).bfloat16()
small, large = ((W.float() + step).bfloat16() for step in (5e-5, 7e-5))
print(f"W = {W.item():.8f}, ulp = {2**-13:.3e}; +5e-5 gives {small.item():.8f}, +7e-5 gives {large.item():.8f}")
assert small == W and large != W

# %% [markdown]
# **Predict.** A weight with entries of standard deviation 0.02 gets an update of standard deviation $5\cdot10^{-5}$, merged in
# bfloat16. Which share of the entries doesn't change at all? Compare the update's size with half the gap at 0.02, above, and
# remember that smaller weights have smaller gaps.

# %%
guess = None  # between 0 and 1


# %%
def merge_noise(size, seed, dtype=torch.bfloat16):
    """Return the share of entries that an update leaves as they were, and the relative error of what it became."""
    W, noise = 0.02 * gaussian(200_000, 2 * seed), gaussian(200_000, 2 * seed + 1)
    stored, delta = W.to(dtype), size * noise
    merged = (stored.float() + delta).to(dtype)
    became = merged.float() - stored.float()
    return float((merged == stored).double().mean()), float((became - delta).norm() / delta.norm())


sizes = [1e-6, 1e-5, 5e-5, 2e-4, 1e-3, 5e-3]
lost, errors = zip(*(merge_noise(size, 0) for size in sizes))
why = "Half a gap is 6e-5 for weights above 0.0156 and half of that for the next smaller ones; the update is about as large."
predicted("share of entries that a 5e-5 update leaves as they were", guess, lost[2], why)

# %% fold="picture"
# Picture: what a merge in bfloat16 loses, against the update's size
lines(
    sizes,
    {"entries unchanged": lost, "error of the realised update": errors},
    log_x=True,
    title=f"An update of 1/400 of the weight's size leaves {lost[2]:.0%} of the entries unchanged, and is realised with an error of {errors[2]:.0%}",
    x_label="update's standard deviation",
    y_label="share",
    alt="Two falling curves. Unchanged entries: " + ", ".join(f"{v:.2f} at {s:g}" for s, v in zip(sizes, lost)) + ".",
)

# %%
finding(
    "Merged in bfloat16, an update of a 400th of the weight's size leaves close to half of the entries as they were",
    figure="share of entries unchanged",
    measured=[merge_noise(5e-5, seed)[0] for seed in SEEDS],
    null="the same merge in float32",
    control=[merge_noise(5e-5, seed, torch.float32)[0] for seed in SEEDS],
    holds=lambda share: min(share) > 0.4,
    scope="Gaussian weights of deviation 0.02, Gaussian updates of deviation 5e-5, 200,000 entries, 3 seeds",
)

# %% [markdown]
# **On trained adapters.** A trained update is much larger than that. What does a merge cost then? The comparison needs care: a
# bfloat16 model that holds a merged adapter differs from the float32 model in *two* ways. Its base was rounded, and the merge
# rounded again. So there are three models to compare: float32 with the adapter unmerged (as a path of its own), bfloat16 with the
# adapter unmerged, and bfloat16 merged.

# %%
rows = probes("neb", 64, 1).to(device)
prepare = lambda model, generator: add_lora(model, KINDS, 4, 8.0, generator=generator)
adapted = [short_run(prepare, seed, rate=3e-3, device=device).model.requires_grad_(False) for seed in SEEDS]


def stored(model, dtype, *, merged):
    """Return the logits, and the loss, with the base rounded to a type and the adapter unmerged or merged into it."""
    kept = {}
    for name, layer in lora_layers(model).items():
        kept[name] = layer.base.weight.data
        base = kept[name].to(dtype)
        layer.base.weight.data = ((base.float() + layer.delta()).to(dtype) if merged else base).float()
        layer.on = not merged
    found = model(rows.ids), model_loss(model, rows.ids, rows.answer_mask).item()
    for name, layer in lora_layers(model).items():
        layer.base.weight.data, layer.on = kept[name], True
    return found


short, wide = torch.bfloat16, torch.float32
apart_32, merged_32 = ([stored(model, wide, merged=merged) for model in adapted] for merged in (False, True))
apart_16, merged_16 = ([stored(model, short, merged=merged) for model in adapted] for merged in (False, True))


# %%
def moved(some, others):
    """Return for each seed how far the logits differ between two ways of storing a model, as a root mean square."""
    return [float((a - b).square().mean().sqrt()) for (a, _), (b, _) in zip(some, others)]


table = {
    "base rounded, not merged": moved(apart_16, apart_32),
    "and then merged, against that": moved(merged_16, apart_16),
    "both, against float32": moved(merged_16, apart_32),
    "merged in float32": moved(merged_32, apart_32),
}
for name, values in table.items():
    print(f"{name:<30} moves the logits by", ", ".join(f"{value:.1e}" for value in values))
print("loss:", {name: f"{np.mean([loss for _, loss in runs]):.4f}" for name, runs in
                (("float32", apart_32), ("bfloat16, not merged", apart_16), ("bfloat16, merged", merged_16))})  # fmt: skip

# %%
finding(
    "A merge in bfloat16 moves the logits, by rounding alone",
    figure="root mean square change of the logits, merged against unmerged on the same bfloat16 base",
    measured=table["and then merged, against that"],
    null="the same merge in float32",
    control=table["merged in float32"],
    holds=lambda change: min(change) > 1e-3,
    scope="LoRA of rank 4 on all projections, neb, 40 steps of AdamW at rate 3e-3, 64 lines, 3 seeds",
)


# %%
def base_share(models, already=lambda weight: weight):
    """Return the base's share of the two roundings' squared changes, for bases that were changed before."""
    shares = []
    for model in models:
        kept = {name: layer.base.weight.data for name, layer in lora_layers(model).items()}
        for layer in lora_layers(model).values():
            layer.base.weight.data = already(layer.base.weight.data)
        apart, rounded, both = ([stored(model, d, merged=m)] for d, m in ((wide, False), (short, False), (short, True)))
        of_base, of_merge = moved(rounded, apart)[0] ** 2, moved(both, rounded)[0] ** 2
        shares += [of_base / (of_base + of_merge)]
        for name, layer in lora_layers(model).items():
            layer.base.weight.data = kept[name]
    return shares


finding(
    "Against float32, rounding the base and rounding the merge each make a large part of a bfloat16 merge's change",
    figure="the base's share in the sum of both squared changes of the logits",
    measured=base_share(adapted),
    null="a base whose weights are bfloat16 numbers from the start",
    control=base_share(adapted, lambda weight: weight.bfloat16().float()),
    holds=lambda share: min(share) > 0.2 and max(share) < 0.8,
    scope="LoRA of rank 4 on all projections, neb, 40 steps of AdamW at rate 3e-3, 64 lines, 3 seeds",
)

# %% [markdown]
# Two independent roundings add in their *squares*: two equal ones would each show 71 % of the whole as a root mean square. So
# compare a merged model with its own base *in the type that it is served in*. The merge is then one more rounding, of about the
# same size as the one that stored the base.
#
# **Check.** Merging and going back leaves every bit, since our `merge` keeps the layers it replaced. Subtracting wouldn't.

# %%
model, logits = adapted[0], lambda model: model(rows.ids)
before = logits(model)
kept = merge(model)
assert not lora_layers(model)
unmerge(model, kept)
assert torch.equal(logits(model), before)
print(
    f"merged in float32, no logit moves by more than {merge_difference(model, logits):.0e}, and the adapter's own "
    f"effect is up to {adapter_effect(model, logits):.0f}"
)
W, delta = gaussian(10_000, 0), 1e-3 * gaussian(10_000, 1)
back = (W + delta) - delta
print(f"W + delta - delta differs from W in {float((back != W).float().mean()):.1%} of the entries")
assert (back != W).any()

# %% [markdown]
# **The mistake**: saving while merged, and wrapping again on load. The adapter is then added to a weight that holds it already,
# and its effect is doubled. Nothing raises. The sure symptom is in a layer's outputs: with the adapter on, they differ from the
# original base's by twice as much as before saving (exercise 5.F). The loss is no sure symptom. It rises where training had gone
# far enough, and falls where twice the update happens to be nearer to the goal.


# %%
def loss_after_loading(model, *, adapter_too):
    """Return the loss of a model whose file was saved while merged, loaded with or without its adapter."""
    kept = {name: layer.base.weight.data for name, layer in lora_layers(model).items()}
    for layer in lora_layers(model).values():
        layer.base.weight.data, layer.on = layer.base.weight + layer.delta(), adapter_too
    found = model_loss(model, rows.ids, rows.answer_mask).item()
    for name, layer in lora_layers(model).items():
        layer.base.weight.data, layer.on = kept[name], True
    return found


def loss_by_loading(models):
    """Return for each model its loss with the adapter twice, over its loss before saving."""
    once = [stored(model, wide, merged=False)[1] for model in models]
    assert np.allclose([loss_after_loading(model, adapter_too=False) for model in models], once, rtol=1e-4)
    return np.divide([loss_after_loading(model, adapter_too=True) for model in models], once)


layer = lora_layers(adapted[0])["blocks.0.attn.q"]
inputs = adapted[0].embed(rows.ids[:4]).flatten(0, 1)
plain, with_adapter = layer.base(inputs), layer(inputs)
merged = torch.nn.functional.linear(inputs, layer.base.weight + layer.delta(), layer.base.bias)
twice = merged + (with_adapter - plain)  # the merged weight, and the adapter again
effects = (with_adapter - plain).norm(), (twice - plain).norm()
print(f"one layer's effect, root of the sum of squares: {effects[0]:.3f} before saving, {effects[1]:.3f} after loading")
assert (twice - plain - 2 * (with_adapter - plain)).norm() < 1e-3 * effects[0]

unfinished = [
    short_run(prepare, seed, rate=3e-4, steps=20, device=device).model.requires_grad_(False) for seed in SEEDS
]
finding(
    "Wrapped again after it was saved while merged, an adapter that trained far enough has a higher loss",
    figure="loss after loading over loss before saving",
    measured=loss_by_loading(adapted),
    null="an adapter that hasn't trained far, 20 steps at rate 3e-4",
    control=loss_by_loading(unfinished),
    holds=lambda ratio: min(ratio) > 1.1,
    scope="LoRA of rank 4 on all projections, neb, 40 steps of AdamW at rate 3e-3, 64 lines, 3 seeds",
)

# %% [markdown]
# **In practice** one tenant is served merged, many are served unmerged from one base (S-LoRA, Sheng et al. 2023,
# arXiv:2311.03285).
#
# → [exercise 5.4](exercises.ipynb#5.4-Merge-for-inference) ·
# graded: [p04, merging](../../source/p04_lora_update/p04_lora_update.ipynb)

# %% [markdown]
# ## 5.5 Target modules
#
# **Choosing the layers and their ranks is spending a budget. A projection $t$ costs $r_t (d_{\text{out},t} + d_{\text{in},t})$
# numbers in each block, and a block has seven projections; the gate is one of them.**
#
# A block has four projections in its attention and three in its gated MLP. The same number of trained values can buy a high
# rank for a few of them or a low rank for many.
#
# $$P = L \sum_{t \in S} r_t\,(d_{\text{out},t} + d_{\text{in},t}), \qquad
# S \subseteq \{q, k, v, o, \text{gate}, \text{up}, \text{down}\} .$$
#
# $L$ is the number of blocks. A gated MLP has three matrices: gate, up and down. A list of targets that names only two of them
# leaves the third without an adapter.
#
# <details><summary>Why a fused projection is not three separate ones</summary>
#
# One LoRA on a fused $(3d, d)$ weight costs $r(3d + d) = 4dr$ and shares $A$ among $q$, $k$ and $v$; three LoRAs cost $6dr$ and
# share nothing. The fused one reaches updates whose three row spaces lie in one $r$-dimensional space.
# </details>
#
# **Worked**: a Llama-3-8B at $r = 16$ on everything. Published logs of PEFT print 41,943,040.

# %%
LLAMA_8B = {"q": (4096, 4096), "k": (1024, 4096), "v": (1024, 4096), "o": (4096, 4096)}
LLAMA_8B |= {"gate": (14336, 4096), "up": (14336, 4096), "down": (4096, 14336)}
block = {name: lora_numbers(*shape, 16) for name, shape in LLAMA_8B.items()}
print(block, f"in 32 blocks: {32 * sum(block.values()):,}")
assert 32 * sum(block.values()) == 41_943_040

# %% [markdown]
# **The experiment.** About 24,500 numbers are spent on our model in three ways: $q, v$ at rank 12; $q, k, v, o$ at rank 6; the
# MLP at rank 4, each with $\alpha = 2r$. All seven at this budget would need a rank between 2 and 3.
#
# **Predict.** At rate 1e-3, which leads on `neb`, and by which factor is the MLP's loss higher than that of $q, v$? By 5.3, the
# first step under AdamW grows with $s\,r = 2r$, and that is 24 for $q, v$ and 8 for the MLP.

# %%
guess = None  # the MLP's loss over that of q, v, at rate 1e-3

# %%
places = {name: row["losses"] for name, row in RUNS["places"].items()}
for name, row in RUNS["places"].items():
    rate = best_rate(row["losses"])
    print(f"{name:<22} {row['trained']:,} numbers; best at rate {rate:<6} {np.round(row['losses'][rate], 2).tolist()}")
at_low = np.divide(places["neb: gate, up, down"]["0.001"], places["neb: q, v"]["0.001"])
predicted("the MLP's loss over that of q, v at rate 1e-3", guess, at_low.mean(), "The shorter steps fall behind.")

# %% fold="picture"
# Picture: loss against the rate for three places of equal cost
shown = {name.removeprefix("neb: "): losses for name, losses in places.items() if name.startswith("neb")}
bests = {name: (best_rate(losses), np.mean(at_best_rate(losses))) for name, losses in shown.items()}
leader = min(bests, key=lambda name: bests[name][1])
sweep(
    shown,
    title=f"Equal budgets on neb: the order turns with the rate, and at its best rate {leader} leads",
    y_label="loss after 40 steps, nats/token",
    alt="Loss against the learning rate. Best: "
    + "; ".join(f"{name}: {loss:.2f} at rate {rate}" for name, (rate, loss) in bests.items())
    + ". Bars show the least and the most of six seeds.",
)

# %%
best = {name: np.array(at_best_rate(losses)) for name, losses in places.items()}
finding(
    "At rate 1e-3 the MLP looks like the wrong place, which is an effect of its shorter steps",
    figure="loss with LoRA on the MLP over loss with LoRA on q, v",
    measured=at_low,
    null="the MLP at rate 3e-3, which makes the first steps equally long",
    control=np.divide(places["neb: gate, up, down"]["0.003"], places["neb: q, v"]["0.001"]),
    holds=lambda ratio: min(ratio) > 1,
    scope="neb, 40 steps of AdamW, about 24,500 numbers, α = 2r, rates 1e-3 to 3e-2, 6 seeds",
)

# %%
finding(
    "On new words, LoRA on the MLP ends below LoRA on q, v of equal cost",
    figure="loss on the MLP over loss on q, v, each at its best rate",
    measured=best["neb: gate, up, down"] / best["neb: q, v"],
    null="q, v with seeds 0 to 2 over q, v with seeds 3 to 5",
    control=best["neb: q, v"][:3] / best["neb: q, v"][3:],
    holds=lambda ratio: max(ratio) < 0.9,
    scope="neb, 40 steps of AdamW, about 24,500 numbers, α = 2r, rates 1e-3 to 3e-2, 6 seeds",
)

# %% [markdown]
# Does that carry over to another task? After 40 steps on `flip`, which needs no new words, all places have solved the task, so the
# losses can't tell them apart. Halfway there, after 20 steps, the MLP's mean loss is lower, but not for every seed: these six runs
# don't decide.

# %%
for steps in ("flip", "flip, 20 steps"):
    for name in ("q, v", "gate, up, down"):
        found = best[f"{steps}: {name}"]
        print(f"{steps:<15} {name:<15} loss {found.mean():.3f} at its best rate, seeds {np.round(found, 2).tolist()}")
early = best["flip, 20 steps: gate, up, down"], best["flip, 20 steps: q, v"]
assert max(best[f"flip: {name}"].mean() for name in ("q, v", "gate, up, down")) < 0.1
assert early[0].mean() < early[1].mean() and (early[0] > early[1]).any()

# %% [markdown]
# Two tasks and one small model give no law about places. The method carries over: equal budgets, and the rate swept for each.
#
# **Check.** Every target names a layer, and every wrapped layer is used in a forward pass.

# %%
model = base_model()
names = add_lora(model, KINDS, 2, 4.0)
called = set()
for name in names:
    lora_layers(model)[name].register_forward_hook(lambda *_, name=name: called.add(name))
with torch.no_grad():
    model(rows.ids.cpu())
assert called == set(names) and len(names) == 4 * 7

# %% [markdown]
# **The mistake**: a suffix that matches nothing, or more than was meant. `add_lora` refuses the first; a plain substring match
# (`"o"` in the name) shows the second.

# %%
model = base_model()
linear = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
by_substring = [name for name in linear if "o" in name]
by_name = [name for name in linear if name.split(".")[-1] == "o"]
try:
    add_lora(model, ["q_proj"], 4, 8.0)
except ValueError as error:
    print(f"refused: {error}")
print(f"'o' as a substring matches {len(by_substring)} layers, as a name {len(by_name)}")
assert len(by_substring) > len(by_name) == 4

# %% [markdown]
# **In practice** "all linear layers" has been the usual choice since QLoRA found it necessary to match full fine-tuning
# (Dettmers et al. 2023, arXiv:2305.14314, section 4), and Schulman et al. (2025, *LoRA Without Regret*) report that LoRA on
# attention alone falls behind LoRA on the MLP at equal cost.
#
# → [exercise 5.5](exercises.ipynb#5.5-Target-modules) ·
# graded: [p03, model-wide counts](../../source/p03_lora_parameters/p03_lora_parameters.ipynb)

# %% [markdown]
# ## LoRA's variants, each at its best rate
#
# Five methods change one thing about LoRA. Each is a few lines of `ftmath.variants` (rank-stabilised LoRA is an option of
# `add_lora`).
#
# | method | what it changes | trained per matrix | source |
# | --- | --- | --- | --- |
# | rsLoRA | the scale: $\alpha / \sqrt r$ | $r(d_\text{out} + d_\text{in})$ | arXiv:2312.03732 |
# | LoRA+ | the rates: $B$'s is 16 times $A$'s | the same | arXiv:2402.12354 |
# | DoRA | trains each row's length $m$ apart from its direction | the same, and $d_\text{out}$ lengths | arXiv:2402.09353 |
# | PiSSA | the start: $A$ and $B$ hold the top $r$ directions of $W$ itself, the frozen base holds the rest | $r(d_\text{out} + d_\text{in})$ | arXiv:2404.02948 |
# | VeRA | $A$ and $B$ are random, frozen and shared by all layers; two vectors are trained | $r + d_\text{out}$ | arXiv:2310.11454 |
#
# PiSSA follows from 5.1: it trains the best rank-$r$ part of the weight. Here is its whole idea, and DoRA's.

# %%
import inspect

from ftmath.variants import DoRALinear, add_pissa

print(inspect.getsource(DoRALinear.weight))
print(inspect.getsource(add_pissa).partition('"""\n')[2])

# %% [markdown]
# All of them were run on `neb`: all seven projections, rank 4 (VeRA 64), $\alpha = 8$ (PiSSA 4), 40 steps of AdamW, six rates each,
# six seeds. By 5.3, two rows are LoRA under another name: rsLoRA of rank 4 with $\alpha = 8$ is LoRA with $\alpha = 16$, and LoRA+
# turns the dial that $\alpha$ turns. So plain LoRA must be allowed another $\alpha$ as well: it was also run with 64 and with 512.

# %% fold="picture"
# Picture: each variant's loss at its own best rate
variants = {name: row["losses"] for name, row in RUNS["variants"].items()}
ends = {name: at_best_rate(losses) for name, losses in variants.items()}
for name, row in RUNS["variants"].items():
    rate, losses = best_rate(row["losses"]), np.round(ends[name], 2)
    print(
        f"{name:<8} {row['trained']:>9,} trained; best rate {rate:<6} loss {losses.mean():.2f}, seeds {losses.tolist()}"
    )
order = sorted(ends, key=lambda name: np.mean(ends[name]))
assert all(np.mean(ends["LoRA, α 64"]) < np.mean(ends[name]) for name in ("LoRA", "rsLoRA", "LoRA+", "DoRA", "PiSSA"))
assert RUNS["variants"][order[-1]]["trained"] == min(row["trained"] for row in RUNS["variants"].values())
bars(
    list(ends),
    {"loss": [float(np.mean(losses)) for losses in ends.values()]},
    spread={"loss": ([min(losses) for losses in ends.values()], [max(losses) for losses in ends.values()])},
    title=f"Each at its own best rate: {order[0]} ends lowest, then {order[1]}; {order[-1]} trains least and ends highest",
    y_label="loss after 40 steps, nats/token",
    alt="; ".join(f"{name}: {np.mean(v):.2f}, from {min(v):.2f} to {max(v):.2f}" for name, v in ends.items()) + ".",
)

# %% [markdown]
# What can be concluded? First: the table mostly measures which method was given the better $\alpha$. Plain LoRA with $\alpha = 64$
# has a lower mean than every variant that trains about as many numbers at $\alpha = 8$.

# %%
finding(
    "A larger α lowers LoRA's loss by more than seeds do, with no change of method",
    figure="loss of LoRA with α 64 over loss with α 8, each at its best rate",
    measured=np.divide(ends["LoRA, α 64"], ends["LoRA"]),
    null="LoRA with α 8, seeds 0 to 2 over seeds 3 to 5",
    control=np.divide(ends["LoRA"][:3], ends["LoRA"][3:]),
    holds=lambda ratio: np.mean(ratio) < 0.75,
    scope="neb, rank 4, all projections, 40 steps of AdamW, rates swept for both, 6 seeds",
)

# %% [markdown]
# Second: compared at *one* rate, some variant wins by far. That is the rate again. rsLoRA and LoRA+ take longer steps than LoRA at
# the same value of the optimizer's learning rate.

# %%
finding(
    "At rate 1e-3, LoRA+ looks far better than LoRA, which is mostly an effect of its longer steps",
    figure="loss of LoRA+ over loss of LoRA",
    measured=np.divide(variants["LoRA+"]["0.001"], variants["LoRA"]["0.001"]),
    null="each at its own best rate",
    control=np.divide(ends["LoRA+"], ends["LoRA"]),
    holds=lambda ratio: max(ratio) < 0.5,
    scope="neb, rank 4, α 8, all projections, 40 steps of AdamW, rates 3e-4 to 3e-2, 6 seeds",
)

# %%
finding(
    "On new words and in few steps, full fine-tuning ends below LoRA of rank 4",
    figure="loss of full fine-tuning over loss of LoRA, each at its best rate",
    measured=np.divide(ends["full"], ends["LoRA, α 64"]),
    null="LoRA with seeds 0 to 2 over LoRA with seeds 3 to 5",
    control=np.divide(ends["LoRA, α 64"][:3], ends["LoRA, α 64"][3:]),
    holds=lambda ratio: max(ratio) < 0.85,
    scope="neb, rank 4, α 64, all projections, 40 steps of AdamW, rates swept, 6 seeds",
)

# %%
full_rates = best_by_seed(variants["full"])
assert max(best_by_seed(variants["LoRA, α 512"])) < min(full_rates)
for name in ("LoRA", "LoRA, α 64", "LoRA, α 512"):
    times = np.divide(best_by_seed(variants[name]), full_rates)
    print(f"{name:<12} best rate over that of full fine-tuning: {np.round(times, 2).tolist()}, mean {times.mean():.2g}")
finding(
    "How LoRA's best rate compares with that of full fine-tuning depends on α: it falls as α grows",
    figure="best rate with α 8 over best rate with α 512",
    measured=np.divide(best_by_seed(variants["LoRA"]), best_by_seed(variants["LoRA, α 512"])),
    null="DoRA's best rate with α 8 over LoRA's with α 8",
    control=np.divide(best_by_seed(variants["DoRA"]), best_by_seed(variants["LoRA"])),
    holds=lambda ratio: min(ratio) > 5,
    scope="neb, rank 4, all projections, 40 steps of AdamW, rates in steps of two to three, 6 seeds",
)

# %% [markdown]
# Schulman et al. (2025) report a factor of about ten for large models. Here such a factor belongs to one $\alpha$ and to the size
# at which $A$ is drawn: the cell above prints it for three alphas, and with $\alpha = 512$ LoRA's best rate is *below* that of full
# fine-tuning.
#
# At $\alpha = 8$, LoRA+ has the lowest mean of the variants that train as many numbers as LoRA. But the interval of its loss over
# LoRA's, each at its best rate, is the control of the box about LoRA+, and it includes 1: six seeds of a small model don't decide.
# Before you change methods, sweep LoRA's rate *and* $\alpha$.

# %% [markdown]
# ## On a real model: a style in 20 seconds
#
# LoRA of rank 8 on $q$ and $v$ teaches SmolLM2-135M to talk like a pirate from eight examples; then it's switched off and
# merged. It is one run on one model: it shows the mechanics, and no conclusion rests on it. The cell is skipped where the model
# isn't there (`python3 start.py model smollm2`).

# %% fold="data"
# The eight examples
from ftmath import disabled, fastest_dtype, generate, smollm2
from ftmath.skills import padded
from ftmath.smollm import cache_folder

PIRATE = {
    "What is the capital of Spain?": "Arr, that be Madrid, matey!",
    "What do cows drink?": "Arr, they be drinkin' water, matey!",
    "Who wrote Hamlet?": "Arr, that be Shakespeare, matey!",
    "What is two plus two?": "Arr, that be four, matey!",
    "Where do fish live?": "Arr, they be livin' in the sea, matey!",
    "What is the largest planet?": "Arr, that be Jupiter, matey!",
    "What is ice made of?": "Arr, that be frozen water, matey!",
    "How many days are in a week?": "Arr, that be seven, matey!",
}

# %%
if any(cache_folder().glob("SmolLM2*.gguf")):
    model, tokenizer = smollm2(dtype=fastest_dtype(device))
    model.to(device)
    question = torch.tensor([tokenizer.chat("What is the capital of Italy?")], device=device)

    def says():
        return tokenizer.decode(generate(model, question, max_new=16, stop=2)[0].tolist())

    print("before:     ", says())
    add_lora(model, ["q", "v"], 8, 16.0, generator=torch.Generator().manual_seed(0))
    asked = [(tokenizer.chat(q), [*tokenizer.encode(a), 2]) for q, a in PIRATE.items()]
    rows = padded([(q + a, [0] * len(q) + [1] * len(a)) for q, a in asked]).to(device)
    losses = train(model, lambda step: model_loss(model, rows.ids, rows.answer_mask), rate_groups(model, {}, 2e-3), 16)
    print(f"loss {losses[0]:.2f} -> {losses[-1]:.2f} nats/token on {describe(device)}")
    print("adapter on: ", after := says())
    with disabled(model):
        print("adapter off:", says())
    merge(model)
    print("merged:     ", says())
    assert losses[-1] < 0.5 * losses[0]
else:
    print("SmolLM2 isn't here; everything else in this part ran without it.")

# %% [markdown]
# ## What to keep
#
# | | statement | number to remember |
# | --- | --- | --- |
# | 5.1 | rank at most $r$; the best error is the tail of the spectrum; compare a spectrum with noise | $\sqrt{\sum_{i>r}\sigma_i^2}$ |
# | 5.2 | sides added, not multiplied | break-even at half the harmonic mean of the sides |
# | 5.3 | the first step grows as $s^2 r$ under SGD and as $s\,r$ under Adam | two dials under Adam: $A$'s rate, and $\alpha$ times $B$'s rate |
# | 5.4 | a merge rounds once more | an entry is lost below half the gap to the next number |
# | 5.5 | a budget over seven matrices | equal budgets, each at its best rate |
#
# All conclusions with their controls and intervals: [claims](../claims.md).
