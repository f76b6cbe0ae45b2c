# %% [markdown]
# # Part 5: LoRA's algebra
#
# **The claim.** Everything that LoRA can and can't do is a statement about one matrix, $\Delta W = s\,BA$: which matrices it
# reaches, what they cost, how large a step of training makes them, what is left of them after a merge, and where they pay.
#
# You need the singular value decomposition and part 4.5. You'll be able to prove the rank bound and the error of the best
# rank-$r$ update, count parameters with grouped heads, compare two scalings by measuring them, merge in a short type without
# being surprised, and spend a budget of ranks. About 70 minutes; the notebook itself runs in about one on two CPU cores.
#
# | symbol | what it is | shape or unit |
# | --- | --- | --- |
# | $W$ | frozen weight of a linear layer, $y = Wx$ | $(d_\text{out}, d_\text{in})$ |
# | $A, B$ | LoRA's factors; $A$ drawn, $B = 0$ at the start | $(r, d_\text{in})$, $(d_\text{out}, r)$ |
# | $s$ | scale, $\alpha / r$ unless said otherwise | a number |
# | $\Delta W$ | the update $s\,BA$ | $(d_\text{out}, d_\text{in})$ |
# | $\sigma_i$ | singular values of a matrix, descending | numbers |

# %%
import numpy as np
import torch

from ftmath import (
    add_lora,
    adapter_effect,
    base_model,
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
    train,
    unmerge,
)
from ftmath.exercises import progress
from ftmath.plots import bars, lines
from ftmath.predict import predicted
from ftmath.widgets import lora_explorer

device = best_device()
print(f"torch {torch.__version__} on {describe(device)}")
progress(5)

# %% [markdown]
# ## 5.1 Rank constraint
#
# **$\Delta W$ can be any matrix of rank at most $r$, and nothing else; of those, the truncated singular value decomposition is
# the nearest to the update that you'd like.**
#
# $$\operatorname{rank}(BA) \le \min(r, d_\text{out}, d_\text{in}), \qquad
# \min_{\operatorname{rank} X \le r} \lVert M - X \rVert_F^2 = \sum_{i > r} \sigma_i^2 .$$
#
# $M$ is the update that full fine-tuning finds. Its **energy** at rank $r$ is $\sum_{i \le r}\sigma_i^2 / \sum_i \sigma_i^2$.
#
# <details><summary>Why: two lines for the bound, four for the error</summary>
#
# Every column of $BA$ is a combination of $B$'s $r$ columns. For the error: an $X$ of rank $r$ has a kernel of dimension at
# least $d_\text{in} - r$, which meets the span of the top $r + 1$ right singular vectors in some unit $v$; there
# $\lVert (M - X) v \rVert = \lVert M v \rVert \ge \sigma_{r+1}$, so no $X$ has a smaller spectral error than truncation. For
# the Frobenius norm, $\sigma_{i + r}(M) \le \sigma_i(M - X) + \sigma_{r + 1}(X) = \sigma_i(M - X)$ (Weyl), and squaring and
# summing over $i$ gives the tail (Eckart and Young 1936, Mirsky 1960).
#
# The factors are not unique: $BA = (BG)(G^{-1}A)$ for any invertible $G$. So $r(d_\text{out} + d_\text{in})$ numbers describe
# only $r(d_\text{out} + d_\text{in} - r)$ degrees of freedom.
# </details>

# %% [markdown]
# **By hand.** $M = \begin{pmatrix}3&1\\1&3\\1&1\end{pmatrix}$ has $M^\top M = \begin{pmatrix}11&7\\7&11\end{pmatrix}$ with
# eigenvalues 18 and 4. The next cell computes the rest.

# %%
M = torch.tensor([[3.0, 1], [1, 3], [1, 1]], dtype=torch.float64)
U, sigma, Vh = torch.linalg.svd(M, full_matrices=False)
part = sigma[0] * torch.outer(U[:, 0], Vh[0])
error, energy = torch.linalg.norm(M - part), sigma[0] ** 2 / (sigma**2).sum()
assert torch.allclose(sigma**2, torch.tensor([18.0, 4.0], dtype=torch.float64))
assert abs(error - 2) < 1e-12
print("rank-1 part", part.round(decimals=3).tolist(), f"error {error:.4f}, energy {energy:.4f}")

# %% [markdown]
# **Predict.** Our base model is fine-tuned, all parameters, on `flip` (an old skill under a new name) for 60 steps. Each
# query projection's update is a (128, 128) matrix. Which share of its energy lies in the first **4** of 128 directions?

# %%
guess = None  # between 0 and 1

# %%
base = dict(base_model().named_parameters())
KINDS = ("q", "k", "v", "o", "gate", "up", "down")


def energies(model, ranks=(4, 16)):
    """Return for each kind of projection the mean share of energy at some ranks, and the mean stable rank."""
    found = {kind: [] for kind in KINDS}
    for name, weight in model.named_parameters():
        kind = name.split(".")[-2]
        if weight.ndim == 2 and kind in found:
            s2 = torch.linalg.svdvals((weight.cpu() - base[name]).detach().double()) ** 2
            found[kind].append([*(float(s2[:r].sum() / s2.sum()) for r in ranks), float(s2.sum() / s2[0])])
    return {kind: np.mean(rows, axis=0) for kind, rows in found.items()}


tuned = [fine_tune("full", "flip", rows=16, seed=seed, device=device) for seed in range(3)]
spectra = [energies(model) for model, _ in tuned]
print("\n".join(str(run) for _, run in tuned))
mean = {kind: np.mean([spectrum[kind] for spectrum in spectra], axis=0) for kind in KINDS}
ends = [
    [f([spectrum[kind][column] for spectrum in spectra]) for kind in KINDS] for column in (0, 1) for f in (min, max)
]
predicted("energy of a query update at rank 4", guess, mean["q"][0])

# %%
at_4, at_16 = [mean[kind][0] for kind in KINDS], [mean[kind][1] for kind in KINDS]
assert min(at_16) > 0.8 > max(at_4) - 0.05  # low-rank-ish: most at 16 of 128, not all at 4
bars(
    KINDS,
    {"rank 4": at_4, "rank 16": at_16},
    spread={"rank 4": (ends[0], ends[1]), "rank 16": (ends[2], ends[3])},
    title=f"Rank 16 of 128 holds {min(at_16):.0%} or more of a full update, rank 4 only {min(at_4):.0%} to {max(at_4):.0%}",
    y_label="share of energy",
    alt=f"Bars for seven projections. Rank 4 keeps from {min(at_4):.2f} to {max(at_4):.2f} of the energy, rank 16 from "
    f"{min(at_16):.2f} to {max(at_16):.2f}; three seeds differ by at most {max(b - a for a, b in zip(ends[0], ends[1])):.2f}.",
)

# %% [markdown]
# Move the slider: kept singular values are filled, dropped ones hollow.

# %%
delta = (dict(tuned[0][0].named_parameters())["blocks.1.attn.q.weight"].cpu() - base["blocks.1.attn.q.weight"]).detach()
lora_explorer(delta)

# %% [markdown]
# **Check.** The truncation's error is the tail, and no random pair of factors does better.

# %%
U, sigma, Vh = torch.linalg.svd(delta.double(), full_matrices=False)
for r in (1, 4, 16):
    best = torch.linalg.norm(delta - (U[:, :r] * sigma[:r]) @ Vh[:r])
    assert abs(best - (sigma[r:] ** 2).sum().sqrt()) < 1e-9
    for seed in range(20):
        generator = torch.Generator().manual_seed(seed)
        B = torch.randn(128, r, generator=generator, dtype=torch.float64)
        A = torch.linalg.lstsq(B, delta.double()).solution  # the best A for this B
        assert torch.linalg.norm(delta - B @ A) >= best

# %% [markdown]
# **The usual mistake: energy with $\sigma$ instead of $\sigma^2$.** Its symptom is ranks that come out far too large.

# %%
right = int(((sigma**2).cumsum(0) < 0.9 * (sigma**2).sum()).sum()) + 1
wrong = int((sigma.cumsum(0) < 0.9 * sigma.sum()).sum()) + 1
assert wrong > 2 * right
print(f"rank for 90 % of the energy: {right}; with sigma in place of its square: {wrong}")

# %% [markdown]
# **In practice** an adapter is extracted from a finished full fine-tuning by exactly this truncation; how many directions a
# task needs was first measured as its *intrinsic dimension* (Aghajanyan et al. 2021, arXiv:2012.13255).
#
# → [exercise 5.1](exercises.ipynb#5.1-Rank-constraint) ·
# graded: [p05, truncated SVD](../../source/p05_truncated_svd/p05_truncated_svd.ipynb)

# %% [markdown]
# ## 5.2 Parameter count
#
# **LoRA costs the sum of a matrix's sides for each rank, not their product, and it's cheaper than the matrix only below half
# the harmonic mean of the sides.**
#
# $$P = r\,(d_\text{out} + d_\text{in}), \qquad P < d_\text{out} d_\text{in} \iff
# r < \frac{d_\text{out}\, d_\text{in}}{d_\text{out} + d_\text{in}} .$$
#
# <details><summary>Why</summary>
#
# $A$ has $r\,d_\text{in}$ entries and $B$ has $d_\text{out}\,r$. Divide $r(d_\text{out} + d_\text{in}) < d_\text{out}
# d_\text{in}$ by the sum. For a square matrix the limit is $d/2$; for a narrow one it is close to the narrow side: a
# (1024, 4096) key projection of grouped-query attention has its limit at 819.2.
# </details>

# %% [markdown]
# **Worked.** Three weights of a Llama-3-8B block, computed below. **Predict** first: a team counts `2 * r * 4096` for every
# matrix, at $r = 8$. By which factor is the key projection's count too high?

# %%
guess = None  # a factor


# %%
def lora_numbers(d_out, d_in, r):
    return r * (d_out + d_in)


for name, (d_out, d_in), r in (("key", (1024, 4096), 8), ("query", (4096, 4096), 8), ("gate", (14336, 4096), 16)):
    n, full = lora_numbers(d_out, d_in, r), d_out * d_in
    print(
        f"{name:>6} r={r:<3} {n:>8,} numbers, {n / full:.2%} of the matrix, cheaper below r = {full / (d_out + d_in):.1f}"
    )
assert lora_numbers(1024, 4096, 8) == 40_960
predicted("the factor by which 2 r d overcounts a key projection", guess, 2 * 8 * 4096 / lora_numbers(1024, 4096, 8))

# %% [markdown]
# **On the model.** What the formula says and what torch counts, for three sets of targets.

# %%
counts = {}
for targets, r in ((("q", "v"), 4), (KINDS, 4), (KINDS, 16)):
    model = base_model()
    shapes = {name: module.weight.shape for name, module in model.named_modules() if name.split(".")[-1] in targets}
    add_lora(model, targets, r, 2.0 * r)
    formula = sum(lora_numbers(*shape, r) for shape in shapes.values())
    counted = sum(parameter.numel() for name, parameter in model.named_parameters() if name.endswith((".A", ".B")))
    assert formula == counted == sum(p.numel() for p in model.parameters() if p.requires_grad)
    counts[f"{','.join(targets)} r={r}"] = counted
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
# **The mistake and its symptom**: `2 * r * d` with $d$ the model's width. On a square projection nothing shows; with grouped
# heads the printed total is too high, and the share of the model too.

# %%
wrong = sum(2 * 8 * 4096 for _ in range(4))
right = sum(lora_numbers(*shape, 8) for shape in ((4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096)))
assert wrong > right
print(f"q, k, v, o of one grouped block at r = 8: {right:,}, not {wrong:,}")

# %% [markdown]
# **In practice** the count is what PEFT prints as *trainable params*; table 4 of the LoRA paper reports 4.7 M for GPT-3 with
# rank 1 on $q$ and $v$ (Hu et al. 2021, arXiv:2106.09685), and $96 \cdot 2 \cdot (12288 + 12288) \cdot 1 = 4{,}718{,}592$.

# %%
assert 96 * 2 * lora_numbers(12288, 12288, 1) == 4_718_592

# %% [markdown]
# → [exercise 5.2](exercises.ipynb#5.2-Parameter-count) ·
# graded: [p03, LoRA parameters](../../source/p03_lora_parameters/p03_lora_parameters.ipynb)

# %% [markdown]
# ## 5.3 Scaling
#
# **The scale decides how much a higher rank can use its freedom: with $\alpha / r$ and a fixed $\alpha$, extra rank is
# switched off as fast as it is added.**
#
# $$\Delta W = \frac{\alpha}{r} BA \quad\text{or, rank-stabilised,}\quad \Delta W = \frac{\alpha}{\sqrt r} BA .$$
#
# <details><summary>Why: the first step of gradient descent</summary>
#
# At $B = 0$ only $B$ moves. On one example $x$ with output gradient $\delta$, $\partial L / \partial B = s\,\delta (Ax)^\top$,
# so after a step of rate $\eta$
# $$\Delta W x = s B A x = -\eta s^2 \lVert Ax \rVert^2 \delta .$$
# $A$'s entries are uniform within $1/\sqrt{d_\text{in}}$, of variance $1/(3 d_\text{in})$, so
# $\mathbb E\lVert Ax\rVert^2 = r \lVert x\rVert^2 / (3 d_\text{in})$. The step grows as $s^2 r$: $\alpha^2 / r$ under the
# first rule, $\alpha^2$ under the second (Kalajdzievski 2023, arXiv:2312.03732).
#
# Adam divides by the gradient's size, so there the coherent part of the step grows as $s\,r$ instead. Which power is right
# depends on the optimizer; measure.
# </details>

# %% [markdown]
# **Worked**, with $\alpha = 16$, from rank 8 to rank 64; and the expectation by drawing $A$ many times.

# %%
for rule, scale in (("alpha / r", lambda r: 16 / r), ("alpha / sqrt r", lambda r: 16 / r**0.5)):
    print(
        f"{rule:>14}: s {scale(8):.2f} -> {scale(64):.2f}, s^2 r {scale(8) ** 2 * 8:.0f} -> {scale(64) ** 2 * 64:.0f}"
    )
x, generator = torch.ones(256), torch.Generator().manual_seed(0)
draws = torch.stack([((torch.rand(16, 256, generator=generator) * 2 - 1) / 16 @ x).square().sum() for _ in range(2000)])
expected = 16 * 256 / (3 * 256)
assert abs(draws.mean() / expected - 1) < 0.05
print(f"E|Ax|^2 at r = 16, |x|^2 = 256: {draws.mean():.2f} drawn, {expected:.2f} by the formula")

# %% [markdown]
# **Predict.** On `neb` (48 new words, a task that needs rank) LoRA trains for 40 steps of Adam at one rate and $\alpha = 8$.
# With $\alpha / r$, how much lower is the loss at rank 64 than at rank 1, as a ratio (1: no difference)?

# %%
guess = None  # loss at rank 1 / loss at rank 64


# %%
def lora_run(targets, rank, alpha, seed, *, rank_stabilised=False, rate=1e-3, steps=40, task="neb"):
    """Return the mean loss of the last ten steps, in nats per token, and the model."""
    model = base_model()
    add_lora(
        model, targets, rank, alpha, rank_stabilised=rank_stabilised, generator=torch.Generator().manual_seed(seed)
    )
    model, rng = model.to(device), np.random.default_rng(seed)

    def loss(step):
        rows = mixture({task: 1.0}, 16, rng).to(device)
        return model_loss(model, rows.ids, rows.answer_mask)

    losses = train(model, loss, rate_groups(model, {}, rate), steps, label=f"rank {rank}")
    return np.mean(losses[-10:]), model


RANKS, found = (1, 8, 64), {}
for rule, stabilised in (("alpha / r", False), ("alpha / sqrt r", True)):
    found[rule] = np.array(
        [[lora_run(KINDS, r, 8.0, s, rank_stabilised=stabilised)[0] for s in range(3)] for r in RANKS]
    )
    print(rule, {r: f"{row.min():.2f} to {row.max():.2f}" for r, row in zip(RANKS, found[rule])})
predicted(
    "loss at rank 1 over loss at rank 64, alpha / r", guess, found["alpha / r"][0].mean() / found["alpha / r"][2].mean()
)

# %%
means = {rule: values.mean(1).tolist() for rule, values in found.items()}
assert abs(means["alpha / r"][2] / means["alpha / r"][0] - 1) < 0.35  # flat: rank looks useless
assert means["alpha / sqrt r"][2] < 0.6 * means["alpha / sqrt r"][0]  # and isn't
lines(
    list(RANKS),
    means,
    log_x=True,
    title="With alpha / r a sweep of ranks looks flat; the same ranks help under alpha / sqrt r",
    x_label="rank r",
    y_label="loss after 40 steps, nats/token",
    alt="Loss against rank 1, 8 and 64. "
    + "; ".join(f"{rule}: " + ", ".join(f"{v:.2f}" for v in values) for rule, values in means.items())
    + ". Means of three seeds.",
)

# %% [markdown]
# One rate, one $\alpha$ and 40 steps: part of what rank buys here is speed. The point is narrower, and holds: **a rank sweep
# at fixed $\alpha$ under $\alpha / r$ measures the scale, not the rank.**
#
# **Check.** Doubling $\alpha$ doubles $\Delta W$; doubling $r$ with the same $BA$ halves it.

# %%
from ftmath import LoRALinear

layer = torch.nn.Linear(6, 5)
one, two = LoRALinear(layer, 2, alpha=4), LoRALinear(layer, 2, alpha=8)
wide = LoRALinear(layer, 4, alpha=4)
with torch.no_grad():
    one.B.normal_(generator=torch.Generator().manual_seed(0))
    two.A.copy_(one.A), two.B.copy_(one.B)
    wide.A.copy_(torch.cat([one.A, torch.zeros(2, 6)])), wide.B.copy_(torch.cat([one.B, torch.zeros(5, 2)], dim=1))
assert torch.allclose(two.delta(), 2 * one.delta())
assert torch.allclose(wide.delta(), one.delta() / 2)

# %% [markdown]
# **The mistake**: leaving out the division, $\alpha\,BA$. Its symptom: a rank sweep at one $\alpha$ that trains at small ranks
# and gets worse at large ones, since the step is $r$ times too large.

# %%
late = {}
for name, alpha in (("alpha / r", 16.0), ("no division", 16.0 * 64)):  # LoRALinear divides: this undoes it
    late[name] = lora_run(KINDS, 64, alpha, 0, rate=3e-3, steps=30)[0]
print({name: f"loss of the last ten of 30 steps at rank 64: {value:.2f} nats" for name, value in late.items()})
assert late["no division"] > 1.3 * late["alpha / r"]

# %% [markdown]
# **In practice** "$\alpha = 2r$" is folklore for "keep $s = 2$"; rsLoRA keeps $s\sqrt r$ instead (arXiv:2312.03732).
#
# → [exercise 5.3](exercises.ipynb#5.3-Scaling) · graded: [p04, the LoRA update](../../source/p04_lora_update/p04_lora_update.ipynb)

# %% [markdown]
# ## 5.4 Merge for inference
#
# **In exact arithmetic a merged model is the same function; in sixteen bits the sum is rounded, and an update that is small
# beside its weight can vanish.**
#
# $$W_\text{merged} = \operatorname{round}_\text{dtype}\!\left(W + s\,BA\right), \qquad
# \text{entry lost if } |\Delta W_{ij}| < \tfrac12 \operatorname{ulp}(W_{ij}) .$$
#
# The ulp is the distance to the next number of the type; a merge saves $2r(d_\text{out} + d_\text{in})$ operations a token.
#
# <details><summary>Why</summary>
#
# $Wx + s B(Ax) = (W + sBA)x$ by distributivity. bfloat16 keeps 8 significant bits: between $2^{-6}$ and $2^{-5}$ numbers stand
# $2^{-13} \approx 1.22 \cdot 10^{-4}$ apart, so near 0.02 a change below $6.1 \cdot 10^{-5}$ rounds back.
# </details>

# %% [markdown]
# **Worked.** $W = 0.02$ in bfloat16, and two updates on either side of half an ulp.

# %%
W = torch.tensor(0.02).bfloat16()
ulp = torch.tensor(2.0**-13)
small, large = ((W.float() + step).bfloat16() for step in (5e-5, 7e-5))
assert small == W and large != W
print(f"W = {W.item():.8f}, ulp = {ulp:.3e}; +5e-5 gives {small.item():.8f}, +7e-5 gives {large.item():.8f}")

# %% [markdown]
# **Predict.** A weight with entries of standard deviation 0.02 gets an update of standard deviation $5\cdot10^{-5}$, merged in
# bfloat16. Which share of the entries doesn't change at all?

# %%
guess = None  # between 0 and 1

# %%
generator = torch.Generator().manual_seed(0)
W = 0.02 * torch.randn(200_000, generator=generator)
noise = torch.randn(200_000, generator=generator)
sizes, lost, realised = [1e-6, 1e-5, 5e-5, 2e-4, 1e-3, 5e-3], [], []
for size in sizes:
    stored, delta = W.bfloat16(), size * noise
    merged = (stored.float() + delta).bfloat16()
    lost.append(float((merged == stored).double().mean()))
    realised.append(float(((merged.float() - stored.float()) - delta).norm() / delta.norm()))
predicted("share of entries that a 5e-5 update leaves as they were", guess, lost[2])

# %%
assert lost == sorted(lost, reverse=True) and lost[2] > 0.4
lines(
    sizes,
    {"entries unchanged": lost, "error of the realised update": realised},
    log_x=True,
    title="An update of 1/400 of the weight's size is half lost in a bfloat16 merge",
    x_label="update's standard deviation",
    y_label="share",
    alt="Two falling curves. Unchanged entries: " + ", ".join(f"{v:.2f} at {s:g}" for s, v in zip(sizes, lost)) + ".",
)

# %% [markdown]
# **On a trained adapter**, the largest change of any logit when it is merged in float32, in bfloat16 with one rounding, and in
# bfloat16 with the update rounded before the sum.

# %%
_, adapted = lora_run(KINDS, 4, 8.0, 0, rate=3e-3)
adapted, rows = adapted.cpu().requires_grad_(False), probes("neb", 64, 1)


def logits(model):
    return model(rows.ids)


def merged_in(dtype, *, update_first):
    """Return the largest change of a logit when the merged weights are stored in a type; the model stays as it was."""
    before, kept = logits(adapted), {}
    for name, layer in lora_layers(adapted).items():
        update = layer.delta().to(dtype) if update_first else layer.delta()
        kept[name] = layer
        plain = layer.merged()
        plain.weight.data = (layer.base.weight.to(dtype).float() + update.float()).to(dtype).float()
        parent, _, last = name.rpartition(".")
        setattr(adapted.get_submodule(parent), last, plain)
    found = (logits(adapted) - before).abs().max().item()
    unmerge(adapted, kept)
    return found


changes = {
    "float32": merge_difference(adapted, logits),
    "bfloat16": merged_in(torch.bfloat16, update_first=False),
    "bfloat16, update rounded first": merged_in(torch.bfloat16, update_first=True),
}
print(
    {name: f"{value:.1e}" for name, value in changes.items()},
    f"the adapter's own effect: {adapter_effect(adapted, logits):.1f}",
)
assert changes["float32"] < 1e-3 < 1e-2 < changes["bfloat16"]

# %% [markdown]
# **Check.** Merging and going back leaves every bit, since our `merge` keeps the layers it replaced; subtracting would not.

# %%
before = logits(adapted)
kept = merge(adapted)
assert not lora_layers(adapted)
unmerge(adapted, kept)
assert torch.equal(logits(adapted), before)
W, delta = torch.randn(10_000, generator=generator), 1e-3 * torch.randn(10_000, generator=generator)
back = (W + delta) - delta
print(f"W + delta - delta differs from W in {float((back != W).float().mean()):.1%} of the entries")
assert (back != W).any()

# %% [markdown]
# **The mistake**: saving while merged and wrapping again on load. The symptom is a doubled effect: the adapter is added to a
# weight that holds it already.


# %%
def task_loss():
    return model_loss(adapted, rows.ids, rows.answer_mask).item()


with torch.no_grad():
    once = task_loss()
    for layer in lora_layers(adapted).values():
        layer.base.weight += layer.delta()  # what a file holds that was saved while merged
    twice = task_loss()
    for layer in lora_layers(adapted).values():
        layer.base.weight -= layer.delta()
print(f"loss on the task: {once:.2f} nats with the update once, {twice:.2f} with it twice")
assert twice > 1.15 * once

# %% [markdown]
# **In practice** one tenant is served merged, many are served unmerged from one base (S-LoRA, Sheng et al. 2023,
# arXiv:2311.03285).
#
# → [exercise 5.4](exercises.ipynb#5.4-Merge-for-inference) ·
# graded: [p04, merging](../../source/p04_lora_update/p04_lora_update.ipynb)

# %% [markdown]
# ## 5.5 Target modules
#
# **Where the ranks go is a budget: $\sum_t r_t (d_{\text{out},t} + d_{\text{in},t})$ a layer, over seven projections, the gate
# among them.**
#
# $$P = L \sum_{t \in S} r_t\,(d_{\text{out},t} + d_{\text{in},t}), \qquad
# S \subseteq \{q, k, v, o, \text{gate}, \text{up}, \text{down}\} .$$
#
# $L$ is the number of blocks. A gated MLP has three matrices; lists of targets that name two were written for older models.
#
# <details><summary>Why a fused projection is not three separate ones</summary>
#
# One LoRA on a fused $(3d, d)$ weight costs $r(3d + d) = 4dr$ and shares $A$ among $q$, $k$ and $v$; three LoRAs cost $6dr$ and
# share nothing. The fused one reaches updates whose three row spaces lie in one $r$-dimensional space.
# </details>

# %% [markdown]
# **Worked**: a Llama-3-8B at $r = 16$ on everything. Published logs of PEFT print 41,943,040.

# %%
LLAMA_8B = {
    "q": (4096, 4096),
    "k": (1024, 4096),
    "v": (1024, 4096),
    "o": (4096, 4096),
    "gate": (14336, 4096),
    "up": (14336, 4096),
    "down": (4096, 14336),
}
block = {name: lora_numbers(*shape, 16) for name, shape in LLAMA_8B.items()}
print(
    block,
    f"in 32 blocks: {32 * sum(block.values()):,}; a fused (3 x 1024, 1024) at r = 4: {4 * 4 * 1024:,}, not {6 * 4 * 1024:,}",
)
assert 32 * sum(block.values()) == 41_943_040

# %% [markdown]
# **Predict.** About 24,500 numbers are spent on our model in three ways: $q, v$ at rank 12; $q, k, v, o$ at rank 6; the MLP at
# rank 4. Same task, rate and steps, $s = 2$. How many times lower is the best placement's loss than the worst one's?

# %%
guess = None  # a ratio

# %%
PLACES = {
    "q, v": (("q", "v"), 12),
    "q, k, v, o": (("q", "k", "v", "o"), 6),
    "gate, up, down": (("gate", "up", "down"), 4),
}
found, spent = {}, {}
for name, (targets, r) in PLACES.items():
    runs = [lora_run(targets, r, 2.0 * r, seed, rate=3e-3) for seed in range(3)]
    found[name] = [loss for loss, _ in runs]
    spent[name] = sum(p.numel() for p in runs[0][1].parameters() if p.requires_grad)
print({name: f"{spent[name]:,} numbers, loss {min(v):.2f} to {max(v):.2f}" for name, v in found.items()})
means = {name: float(np.mean(values)) for name, values in found.items()}
predicted("worst placement's loss over the best one's", guess, max(means.values()) / min(means.values()))

# %%
assert max(spent.values()) < 1.1 * min(spent.values())
bars(
    list(PLACES),
    {"loss": list(means.values())},
    spread={"loss": ([min(v) for v in found.values()], [max(v) for v in found.values()])},
    title=f"Equal budgets end within {max(means.values()) / min(means.values()) - 1:.0%} of each other; {min(means, key=means.get)} leads",
    y_label="loss after 40 steps, nats/token",
    alt="; ".join(
        f"{name}: {means[name]:.2f}, from {min(v):.2f} to {max(v):.2f} over three seeds" for name, v in found.items()
    )
    + ".",
)

# %% [markdown]
# One task and one rate: a bar chart, not a law. What carries over is the method, equal budgets beside each other.
#
# **Check.** Every target names a layer, and every wrapped layer is used in a forward pass.

# %%
model = base_model()
names = add_lora(model, KINDS, 2, 4.0)
called = set()
handles = [lora_layers(model)[name].register_forward_hook(lambda *_, name=name: called.add(name)) for name in names]
logits(model)
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
# **In practice** "all linear layers" is the default since QLoRA found it necessary to match full fine-tuning (Dettmers et al.
# 2023, arXiv:2305.14314, section 4).
#
# → [exercise 5.5](exercises.ipynb#5.5-Target-modules) ·
# graded: [p03, model-wide counts](../../source/p03_lora_parameters/p03_lora_parameters.ipynb)

# %% [markdown]
# ## On a real model: a style in 20 seconds
#
# LoRA of rank 8 on $q$ and $v$ teaches SmolLM2-135M to talk like a pirate from eight examples; then it's switched off and
# merged. The cell is skipped where the model isn't there (`python3 start.py model smollm2`).

# %%
from pathlib import Path

from ftmath import fastest_dtype, generate, smollm2
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
    from ftmath import disabled

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
# | 5.1 | rank at most $r$; the best error is the tail of the spectrum | $\sqrt{\sum_{i>r}\sigma_i^2}$ |
# | 5.2 | sides added, not multiplied | break-even at half the harmonic mean |
# | 5.3 | under SGD the first step grows as $s^2 r$ | a flat rank sweep measures $\alpha / r$ |
# | 5.4 | merging rounds once | lost below half an ulp |
# | 5.5 | a budget over seven matrices | equal budgets, then compare |
#
# Next: [part 5, exercises](exercises.ipynb).
