# %% [markdown]
# # Part 1: fine-tuning as local adaptation
#
# **The claim.** Fine-tuning is a small move from a known point. How far the parameters moved says little; how far the
# *behaviour* moved can be measured in nats, anchored, and bounds what is forgotten.
#
# You need gradients and Taylor's formula, entropy, cross-entropy and KL divergence. You'll be able to write the objective as
# base plus update, to name the loss that can't be removed, to solve an anchored quadratic, to measure KL per token, and to
# bound forgetting by it. About 80 minutes; the notebook itself runs in about a minute on two CPU cores.
#
# | symbol | what it is | shape or unit |
# | --- | --- | --- |
# | $\theta_0, \Delta\theta$ | pretrained parameters, and the update | vectors in $\mathbb R^P$ |
# | $g, H$ | gradient and Hessian of the task loss at $\theta_0$ | $\mathbb R^P$, $\mathbb R^{P \times P}$ |
# | $q, p$ | distribution of the data, of the model | vectors over $V$ tokens |
# | $\lambda, R$ | strength of an anchor, and the anchor | a number; nats or squared distance |
# | $D$ | KL of the tuned model from the base, mean over positions | nats per token |

# %%
import math

import numpy as np
import torch
import torch.nn.functional as F

from ftmath import (
    anchored_minimum,
    base_model,
    best_device,
    describe,
    fine_tune,
    forgetting_bound,
    generate,
    kl_anchor,
    kl_shift,
    l2_anchor,
    mixture,
    model_loss,
    probes,
    prompts,
    token_kl,
    total_variation,
)
from ftmath.exercises import progress
from ftmath.plots import bars, lines, points
from ftmath.predict import predicted
from ftmath.skills import EOS, SKILLS, decode
from ftmath.widgets import path_explorer

device = best_device()
print(f"torch {torch.__version__} on {describe(device)}")
progress(1)

# %% [markdown]
# ## 1.1 Starting from pretrained weights
#
# **A tuned model is its base plus an update, and "local" means that the quadratic model of the loss still tells the truth.**
#
# $$\theta = \theta_0 + \Delta\theta, \qquad
# L(\theta_0 + \Delta) = L(\theta_0) + g^\top \Delta + \tfrac12 \Delta^\top H \Delta + O(\lVert\Delta\rVert^3) .$$
#
# The relative move is $\rho = \lVert\Delta\rVert / \lVert\theta_0\rVert$, a number without a unit.
#
# <details><summary>Why a gradient step descends, and how far</summary>
#
# Put $\Delta = -\eta g$: the change is $-\eta\, g^\top g + \tfrac12 \eta^2 g^\top H g$. It is negative for
# $\eta < 2\, g^\top g / (g^\top H g)$ and smallest at half of that.
# </details>

# %% [markdown]
# **By hand.** $\theta_0 = (1, 2)$, $H = \operatorname{diag}(1, 4)$, minimum at $(3, 1)$, one step of rate 0.1.

# %%
H, minimum, start = torch.diag(torch.tensor([1.0, 4.0])), torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0])


def loss_at(theta):
    return 0.5 * (theta - minimum) @ H @ (theta - minimum)


g = H @ (start - minimum)
step = -0.1 * g
linear, quadratic, truth = (
    loss_at(start) + g @ step,
    loss_at(start) + g @ step + 0.5 * step @ H @ step,
    loss_at(start + step),
)
assert torch.isclose(quadratic, truth) and not torch.isclose(linear, truth)
print(
    f"loss {loss_at(start):.2f}; after the step the linear model says {linear:.2f}, the quadratic {quadratic:.2f}, it is {truth:.2f}"
)

# %% [markdown]
# **Predict.** All parameters are tuned on `flip` at a rate that is too high on purpose. The whole update has a norm of
# $\rho$ times the base's. How large is $\rho$?

# %%
guess = None  # a number such as 0.5

# %%
base = base_model().to(device).requires_grad_(False)
tuned, run = fine_tune("full", "flip", rate=1e-3, rows=16, device=device)
print(run)
# In float64, so that base + delta gives back every bit of the tuned weights; named_parameters counts a tied tensor once.
start = {name: value.detach().double() for name, value in base.named_parameters()}
delta = {name: value.detach().double() - start[name] for name, value in tuned.named_parameters()}


def norm(weights):
    return math.sqrt(sum(float(value.square().sum()) for value in weights.values()))


rho = norm(delta) / norm(start)
predicted("rho, the relative size of the update", guess, rho)

# %%
walker, flip, old = (
    base_model().to(device).requires_grad_(False),
    probes("flip", 64, 1).to(device),
    mixture(dict.fromkeys(SKILLS, 1.0), 64, np.random.default_rng(1)).to(device),
)
GRID = [round(-0.5 + 0.125 * k, 3) for k in range(17)]


def walk(t):
    """Put the model at base + t * delta."""
    walker.load_state_dict({name: (start[name] + t * delta[name]).float() for name in start}, strict=False)


def answers(model, texts):
    ids, mask = prompts(texts)
    new = generate(model, ids.to(device), mask.to(device), max_new=8, stop=EOS)
    return [decode(row) for row in new.tolist()]


losses, texts = {"flip, the task": [], "the ten old skills": []}, []
for t in GRID:
    walk(t)
    for name, rows in zip(losses, (flip, old)):
        losses[name].append(float(model_loss(walker, rows.ids, rows.answer_mask)))
    texts.append("flip abcd: {}; copy abcd: {}".format(*answers(walker, ["flip abcd", "copy abcd"])))
path_explorer(GRID, losses, texts)

# %%
task_loss, old_loss = losses.values()
half = GRID.index(0.5)
assert min(task_loss) < 0.1 * task_loss[GRID.index(0.0)]
assert old_loss[GRID.index(1.0)] > 10 * old_loss[GRID.index(0.0)]  # the old skills pay for it
lines(
    GRID,
    losses,
    title=f"A move of {rho:.0%} teaches the task and breaks old skills; half of it does less harm than half",
    x_label="t, share of the update",
    y_label="loss, nats per answer token",
    alt=f"Loss of the task falls from {task_loss[GRID.index(0.0)]:.2f} at t = 0 to {task_loss[GRID.index(1.0)]:.3f} at t = 1; loss of "
    f"the old skills rises from {old_loss[GRID.index(0.0)]:.3f} to {old_loss[half]:.2f} at one half and {old_loss[GRID.index(1.0)]:.2f} at 1.",
)

# %% [markdown]
# **Check.** Base plus update gives back the tuned model's logits, bit for bit.

# %%
walk(1.0)
with torch.no_grad():
    assert torch.equal(walker(flip.ids), tuned(flip.ids))
    walk(0.0)
    assert torch.equal(walker(flip.ids), base(flip.ids))
assert old_loss[half] - old_loss[GRID.index(0.0)] < 0.5 * (old_loss[GRID.index(1.0)] - old_loss[GRID.index(0.0)])

# %% [markdown]
# **The usual mistake**: `theta_0 = model.state_dict()` before training. It holds references, so its symptom is an update of
# exactly 0 after any training.

# %%
layer = torch.nn.Linear(2, 1)
kept, cloned = layer.state_dict(), {name: value.clone() for name, value in layer.state_dict().items()}
with torch.no_grad():
    layer.weight += 1
by_reference, by_copy = ((layer.weight.detach() - old_one["weight"]).abs().max().item() for old_one in (kept, cloned))
print(f"update by reference: {by_reference}, by copy: {by_copy}")
assert torch.equal(layer.weight, kept["weight"]) and not torch.equal(layer.weight, cloned["weight"])

# %% [markdown]
# **In practice** updates are shipped, added and scaled as *task vectors* (Ilharco et al. 2022, arXiv:2212.04089).
#
# → [exercise 1.1](exercises.ipynb#1.1-Starting-from-pretrained-weights) · graded:
# [p05, how an update's energy lies](../../source/p05_truncated_svd/p05_truncated_svd.ipynb)

# %% [markdown]
# ## 1.2 Task loss
#
# **The loss has a floor, the entropy of the data; only what lies above it can be trained away.**
#
# $$\min_\theta\ \mathbb E_{(x, y)}\Big[-\tfrac1{|y|} \sum_j \log p_\theta(y_j \mid x, y_{<j})\Big], \qquad
# \mathrm{CE}(q, p) = H(q) + D_\mathrm{KL}(q \Vert p) \ge H(q) .$$
#
# <details><summary>Why</summary>
#
# $-\sum_v q_v \log p_v = -\sum_v q_v \log q_v + \sum_v q_v \log (q_v / p_v)$, and the last sum is at least
# $-\log \sum_v q_v\, p_v / q_v = 0$ by Jensen's inequality, with equality where $p = q$. The gradient with respect to the
# logits is $p - q$.
# </details>

# %% [markdown]
# **By hand**: $q = (.7, .1, .1, .1)$ against a uniform model.

# %%
q = torch.tensor([0.7, 0.1, 0.1, 0.1], dtype=torch.float64)
entropy, uniform = float(-(q * q.log()).sum()), math.log(4)
assert abs(entropy - 0.9404) < 1e-4
print(f"cross-entropy {uniform:.4f} = floor {entropy:.4f} + excess {uniform - entropy:.4f} nats")

# %% [markdown]
# **Predict.** The best softmax for $n$ samples of $q$ is their frequencies. On average over many draws of $n = 10$ samples,
# what is its *training* loss?

# %%
guess = None  # nats; the floor is above

# %%
generator, sizes = torch.Generator().manual_seed(0), [10, 30, 100, 1000, 10_000]
train_loss, true_loss = [], []
for n in sizes:
    draws = torch.multinomial(q, 200 * n, replacement=True, generator=generator).view(200, n)
    freq = torch.stack([(draws == v).double().mean(1) for v in range(4)], dim=1)
    train_loss.append(float(-(freq * freq.clamp(min=1e-12).log()).sum(1).mean()))
    smooth = (freq * n + 0.5) / (n + 2)  # half a count each, so that no token is impossible
    true_loss.append(float(-(smooth.log() @ q).mean()))
predicted("mean training loss of the best softmax for 10 samples", guess, train_loss[0])

# %%
assert train_loss[0] < entropy < true_loss[0] and abs(train_loss[-1] - entropy) < 1e-3
lines(
    sizes,
    {"training loss": train_loss, "true cross-entropy": true_loss},
    log_x=True,
    level=("entropy of the data", entropy),
    title="A training loss below the entropy is memory; the true loss never gets there",
    x_label="samples",
    y_label="nats",
    alt=f"Training loss rises from {train_loss[0]:.2f} at 10 samples to the floor {entropy:.2f}, true cross-entropy "
    f"falls from {true_loss[0]:.2f} to it.",
)

# %% [markdown]
# **On the base model.** The letters of `copy` prompts are drawn at random, so their entropy is known: 26 letters, three to
# seven of them. Five letters on average cost $5 \ln 26$, and where the word ends costs $\ln 5$. No training can go below.

# %%
rows = probes("copy", 256, 7).to(device)
text_mask = (rows.attention_mask - rows.answer_mask).clone()
text_mask[:, : len("copy ") + 1] = 0  # the letters and the separator that ends them
floor = 5 * math.log(26) + math.log(5)
lengths = text_mask.sum(1).double()
with torch.no_grad():
    nats = float(model_loss(base, rows.ids, text_mask)) * float(lengths.mean())
at_these_lengths = float((lengths - 1).mean()) * math.log(26) + math.log(5)
print(
    f"floor {floor:.2f} nats a line ({at_these_lengths:.2f} at these lengths); the base model's loss there: {nats:.2f}"
)
assert at_these_lengths - 0.3 < nats < 1.1 * at_these_lengths

# %% [markdown]
# **Check.** No model is below the entropy, for a thousand random pairs.

# %%
random_q = torch.randn(1000, 6, generator=generator, dtype=torch.float64).softmax(1)
random_p = torch.randn(1000, 6, generator=generator, dtype=torch.float64).log_softmax(1)
excess = -(random_q * random_p).sum(1) + (random_q * random_q.log()).sum(1)
assert (excess >= -1e-12).all()

# %% [markdown]
# **The mistake**: a softmax before `cross_entropy`, which takes its own. The symptom is a loss that a perfect model can't bring
# below $\ln\frac{e + V - 1}{e}$, close to $\ln V$.

# %%
for V in (4, 32_000):
    perfect = torch.zeros(1, V, dtype=torch.float64)
    perfect[0, 0] = 1e4
    stuck = float(F.cross_entropy(perfect.softmax(1), torch.tensor([0])))
    print(
        f"V = {V:>6}: right {float(F.cross_entropy(perfect, torch.tensor([0]))):.3f}, with two softmaxes {stuck:.3f}; ln V = {math.log(V):.3f}"
    )
    assert abs(stuck - math.log((math.e + V - 1) / math.e)) < 1e-9

# %% [markdown]
# **In practice** a floor can be estimated from several answers to the same prompt; how loss relates to entropy across scales is
# the subject of Henighan et al. 2020 (arXiv:2010.14701).
#
# → [exercise 1.2](exercises.ipynb#1.2-Task-loss) · graded: [p01](../../source/p01_answer_only_loss/p01_answer_only_loss.ipynb)

# %% [markdown]
# ## 1.3 Regularized adaptation
#
# **An anchor trades the task against staying; what it's measured in decides what it protects.**
#
# $$L(\theta) = L_\text{task}(\theta) + \lambda R(\theta, \theta_0), \qquad
# \hat\theta - \theta_0 = \frac{h}{h + \lambda f}\,(\theta^\star - \theta_0) \text{ in each eigen-direction.}$$
#
# $h$ is the task's curvature there, $f$ the anchor's weight: 1 for L2-SP, the Fisher value for EWC; the third anchor is
# $R = \mathbb E_x D_\mathrm{KL}(p_\theta \Vert p_{\theta_0})$, measured on the output.
#
# <details><summary>Why: set the slope to zero; and where EWC comes from</summary>
#
# Along one direction the sum is $\tfrac h2 (x - 1)^2 + \tfrac{\lambda f}2 x^2$, with slope $h(x - 1) + \lambda f x$, which
# vanishes at $h / (h + \lambda f)$. EWC is Laplace's approximation: near its optimum the old task's negative log-posterior is a
# quadratic with the Fisher information for curvature, and Bayes adds it to the new loss. The KL anchor has the same second
# order at $\theta_0$ (1.4), but it's measured anew on the way.
# </details>

# %% [markdown]
# **By hand**: curvatures $(10, 0.1)$, a wanted move of 1 in each direction, $\lambda = 1$; then plain weight decay, which pulls to
# zero, not to $\theta_0$.

# %%
for name, f in (("L2-SP", (1.0, 1.0)), ("EWC with F = (0.1, 10)", (0.1, 10.0))):
    print(f"{name:>23}: moves by", [round(anchored_minimum(h, 1.0, pull), 4) for h, pull in zip((10.0, 0.1), f)])
theta_0, h = torch.tensor([1.0, -1.0]), torch.tensor([10.0, 0.0])  # the second coordinate has no data
decayed = h * (theta_0 + 1) / (h + 1.0)
print(
    "weight decay takes",
    theta_0.tolist(),
    "to",
    [round(v, 4) for v in decayed.tolist()],
    "- the coordinate without data is erased",
)
assert decayed[1] == 0

# %% [markdown]
# **Predict.** At the careless rate of 1.1, three anchors are tried: L2-SP at $\lambda = 0.1$, KL at 1 on lines of the old skills,
# and no term but a quarter of old lines in each batch (replay). Which share of the old skills does the *KL* anchor keep?

# %%
guess = None  # between 0 and 1

# %%
WAYS = {
    "none": {},
    "L2-SP 0.1": {"anchor": l2_anchor(0.1)},
    "KL 1": {"anchor": kl_anchor(1.0, 16)},
    "replay 1/4": {"replay": 0.25},
}
runs, models = {name: [] for name in WAYS}, {}
for name, more in WAYS.items():
    for seed in range(3):
        models[name], found = fine_tune("full", "flip", rate=1e-3, rows=16, steps=40, seed=seed, device=device, **more)
        runs[name].append(found)
    kept = [found.kept for found in runs[name]]
    print(
        f"{name:>10}: task {np.mean([f.quality for f in runs[name]]):.2f}, kept {min(kept):.2f} to {max(kept):.2f}, KL {np.mean([f.kl for f in runs[name]]):.2f}"
    )
kept = {name: float(np.mean([found.kept for found in runs[name]])) for name in WAYS}
predicted("share of old skills that the KL anchor keeps", guess, kept["KL 1"])

# %%
task = {name: float(np.mean([found.quality for found in runs[name]])) for name in WAYS}
assert kept["KL 1"] > kept["none"] + 0.1 and kept["replay 1/4"] > kept["none"] + 0.1
bars(
    list(WAYS),
    {"task": list(task.values()), "old skills": list(kept.values())},
    spread={
        "old skills": ([min(f.kept for f in r) for r in runs.values()], [max(f.kept for f in r) for r in runs.values()])
    },
    title="Each anchor holds some: " + ", ".join(f"{name} keeps {kept[name]:.0%}" for name in WAYS),
    y_label="accuracy",
    alt="; ".join(f"{name}: task {task[name]:.2f}, old skills {kept[name]:.2f}" for name in WAYS)
    + "; three seeds each.",
)

# %% [markdown]
# Strengths and rates differ in kind, so this is no ranking: at this $\lambda$ a distance in parameters holds nearly what a distance
# in behaviour holds, and costs no second forward pass; at another one it doesn't. What can be said is that no anchor at all, at a
# careless rate, loses most of what was known.
#
# **Check.** A penalty weighs nothing where it starts, and a strong one brings the solution back.

# %%
for anchor in (l2_anchor(1.0), kl_anchor(1.0, 4)):
    assert abs(anchor(base_model().to(device), base)().item()) < 1e-6
assert anchored_minimum(10.0, 1e8) < 1e-6

# %% [markdown]
# **The mistake**: the optimizer's weight decay taken for an anchor. Its symptom: the old skills get worse with no task at all.

# %%
with torch.no_grad():
    for shrink in (1.0, 0.9, 0.8):
        for name, value in walker.named_parameters():
            value.copy_(start[name] * shrink)
        print(
            f"all weights times {shrink}: loss of the old skills {float(model_loss(walker, old.ids, old.answer_mask)):.3f} nats"
        )
    assert model_loss(walker, old.ids, old.answer_mask) > 2 * old_loss[GRID.index(0.0)]

# %% [markdown]
# **In practice** the KL term of preference tuning, replay of old data and EWC are one idea with three choices of $R$ (Kirkpatrick
# et al. 2016, arXiv:1612.00796; Li et al. 2018, arXiv:1802.01483).
#
# → [exercise 1.3](exercises.ipynb#1.3-Regularized-adaptation) · graded: [p02](../../source/p02_kl_shift/p02_kl_shift.ipynb)

# %% [markdown]
# ## 1.4 Function-space shift
#
# **Behaviour is measured in nats: the KL divergence of the tuned model from the base, averaged over stated prompts and
# positions.**
#
# $$D = \mathbb E_x \frac1{|T_x|} \sum_{t \in T_x} \sum_v p_\theta(v \mid u_{\le t}) \log \frac{p_\theta(v \mid u_{\le t})}{p_{\theta_0}(v \mid u_{\le t})},
# \qquad D_\mathrm{KL}(p_{z + \delta} \Vert p_z) = \tfrac12 \operatorname{Var}_{p_z}(\delta) + O(\lVert\delta\rVert^3) .$$
#
# The tuned model stands first, and the expectation is its own; $T_x$ are the positions that are measured, $\delta$ a change of the
# logits $z$.
#
# <details><summary>Why half a variance</summary>
#
# With $A(z) = \log \sum_v e^{z_v}$, the KL is $\nabla A(z + \delta)^\top \delta - A(z + \delta) + A(z)$. Expanding to second order
# leaves $\tfrac12 \delta^\top \nabla^2 A\, \delta$, and $\nabla^2 A = \operatorname{diag}(p) - p p^\top$ is the covariance of a
# one-hot draw. Parameter distance has no such meaning: in a ReLU pair, $(W_1, W_2)$ and $(cW_1, W_2 / c)$ are one function.
# </details>

# %% [markdown]
# **By hand**: base $(.5, .3, .2)$, tuned $(.6, .3, .1)$, both directions, and the quadratic form for a small move.

# %%
z, moved = (torch.tensor(values, dtype=torch.float64).log() for values in ([0.5, 0.3, 0.2], [0.6, 0.3, 0.1]))
forward, backward = float(token_kl(moved, z)), float(token_kl(z, moved))
tv = float(total_variation(moved, z))
print(
    f"KL(tuned || base) {forward:.4f}, reversed {backward:.4f}, total variation {tv:.2f} <= {math.sqrt(forward / 2):.4f}"
)
small = torch.tensor([0.02, -0.01, 0.0], dtype=torch.float64)
p = z.exp()
variance = float((p * (small - (p * small).sum()) ** 2).sum())
assert abs(forward - 0.0401) < 1e-4 and abs(float(token_kl(z + small, z)) - variance / 2) < 1e-6

# %% [markdown]
# **Predict.** The update of 1.1 drifted the old skills. A *random* update of the same norm in every tensor: how many times less
# KL does it cause?

# %%
guess = None  # a factor

# %%
chosen = old.answer_mask[:, 1:]
with torch.no_grad():
    reference = base(old.ids)[:, :-1]


def drift(update):
    """Return the KL to the base after an update, in nats per answer token of the old skills."""
    with torch.no_grad():
        for name, value in walker.named_parameters():
            value.copy_(start[name] + update[name])
        return float(kl_shift(walker(old.ids)[:, :-1], reference, chosen))


def random_update(seed):
    generator = torch.Generator().manual_seed(seed)
    noise = {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64).to(device)
        for name, value in delta.items()
    }
    return {name: noise[name] * (delta[name].norm() / noise[name].norm()) for name in delta}


trained = drift(delta)
by_chance = [drift(random_update(seed)) for seed in range(3)]
print(f"trained direction {trained:.3f} nats/token, random ones {min(by_chance):.4f} to {max(by_chance):.4f}")
predicted("KL of the trained update over that of a random one", guess, trained / np.mean(by_chance))

# %%
scales = [0.05, 0.1, 0.2, 0.4, 0.7, 1.0]
along = [drift({name: s * value for name, value in delta.items()}) for s in scales]
across = [drift({name: s * value for name, value in random_update(0).items()}) for s in scales]
assert trained > 5 * max(by_chance)
lines(
    scales,
    {"trained direction": along, "random direction": across},
    log_x=True,
    log_y=True,
    title=f"Norm is not drift: the trained direction moves behaviour {trained / np.mean(by_chance):,.0f} times as far",
    x_label="share of the update's norm",
    y_label="KL to base, nats per token",
    alt=f"KL against the size of the move, both axes logarithmic. The trained direction reaches {along[-1]:.2f} nats, a random one of the "
    f"same norm {across[-1]:.3f}.",
)

# %% [markdown]
# **Check.** KL is never negative, 0 at the base, blind to a constant added to the logits, and not symmetric.

# %%
assert float(token_kl(z, z)) == 0 and abs(float(token_kl(moved + 3, z)) - forward) < 1e-12 and forward != backward
with torch.no_grad():
    assert (token_kl(tuned(old.ids), base(old.ids)) >= 0).all()

# %% [markdown]
# **The mistake**: `F.kl_div(a, b)` takes the log-probabilities of the *second* argument of KL first, and `reduction="mean"` divides
# by the vocabulary too. The symptom is a plausible number.

# %%
swapped = float(F.kl_div(moved, z, log_target=True, reduction="sum"))
mean = float(F.kl_div(z, moved, log_target=True, reduction="none").mean())  # what reduction="mean" does
print(f"right {forward:.4f}; arguments swapped {swapped:.4f}; 'mean' over V = 3 {mean:.4f}")
assert abs(swapped - backward) < 1e-9 and abs(mean - forward / 3) < 1e-9

# %% [markdown]
# **In practice** the KL to a reference is watched during preference tuning, and on a fixed set of prompts in service; Gao et al.
# 2022 (arXiv:2210.10760) use its root as the distance of a run.
#
# → [exercise 1.4](exercises.ipynb#1.4-Function-space-shift) · graded: [p02, KL shift](../../source/p02_kl_shift/p02_kl_shift.ipynb)

# %% [markdown]
# ## 1.5 Catastrophic forgetting
#
# **What a sampled answer can lose is bounded by KL; what the greedy answer can lose is not.**
#
# $$\Delta_\text{forget} = S(\theta_0) - S(\theta), \qquad
# |\Delta_\text{forget}| \le \mathrm{TV} \le \min\!\big\{\sqrt{D / 2},\ \sqrt{1 - e^{-D}}\big\}$$
#
# for a score $S = \mathbb E_{y \sim p}[f(y)]$ with $f$ in $[0, 1]$, higher being better. A positive difference is a loss.
#
# <details><summary>Why</summary>
#
# $|\mathbb E_p f - \mathbb E_{p_0} f| \le \mathrm{TV}(p, p_0)$ since $f$ moves at most the mass that moved. The two roots are
# Pinsker's inequality and Bretagnolle and Huber's; the second never exceeds 1. By Jensen the bound of the mean KL covers the
# mean over prompts.
# </details>

# %% [markdown]
# **By hand**: three divergences, and a pair of distributions that argmax can't forgive.

# %%
print({kl: round(forgetting_bound(kl), 3) for kl in (0.02, 0.5, 2.0)})
before, after = (torch.tensor(values, dtype=torch.float64).log() for values in ([0.51, 0.49], [0.49, 0.51]))
kl = float(token_kl(after, before))
print(f"(.51, .49) -> (.49, .51): KL {kl:.4f}, bound {forgetting_bound(kl):.3f}; greedy accuracy falls from 1 to 0")
assert before.argmax() != after.argmax() and kl < 1e-3

# %% [markdown]
# **Predict.** In the runs of 1.3, by how much did the mean probability of the right next token fall on the old skills, at most?

# %%
guess = None  # between 0 and 1

# %%
targets = old.ids[:, 1:]


def right_probability(model):
    with torch.no_grad():
        p = model(old.ids)[:, :-1].softmax(-1).gather(-1, targets[..., None])[..., 0]
    return float(p[chosen == 1].mean())


dots = []
at_base = right_probability(base)
for name, model in {**models, "1.1": tuned}.items():
    with torch.no_grad():
        kl = float(kl_shift(model(old.ids)[:, :-1], reference, chosen))
    dots.append((kl, at_base - right_probability(model), name))
for t in (0.125, 0.25, 0.5, 0.75):
    walk(t)
    with torch.no_grad():
        kl = float(kl_shift(walker(old.ids)[:, :-1], reference, chosen))
    dots.append((kl, at_base - right_probability(walker), f"t={t:g}"))
predicted("the largest fall of the right token's mean probability", guess, max(drop for _, drop, _ in dots))

# %%
assert all(drop <= forgetting_bound(kl) + 1e-6 for kl, drop, _ in dots)
across = np.geomspace(1e-3, max(kl for kl, _, _ in dots) * 1.2, 60).tolist()
points(
    {"our models": dots},
    curve=("the bound", across, [forgetting_bound(kl) for kl in across]),
    log_x=True,
    title="No run loses more than its KL allows",
    x_label="KL to base, nats per token",
    y_label="fall of the right token's probability",
    alt="Dots below a rising curve. " + "; ".join(f"{name}: KL {kl:.2f}, fall {drop:.2f}" for kl, drop, name in dots),
)

# %% [markdown]
# The bound is for the score on *sampled* tokens. Whole answers multiply: with $n$ tokens the KL adds up, and exact matches fall
# faster than the right token's probability.
#
# **Check.** It holds for twenty thousand random pairs.

# %%
a, b = (torch.randn(20_000, 5, generator=generator, dtype=torch.float64) * 2 for _ in range(2))
kl, tv = token_kl(a, b), total_variation(a, b)
assert (tv <= torch.minimum((kl / 2).sqrt(), (1 - (-kl).exp()).sqrt()) + 1e-12).all()

# %% [markdown]
# **The mistake**: a metric where lower is better, such as perplexity, put in as $S$. Its symptom is negative "forgetting" while the
# model gets worse.

# %%
with torch.no_grad():
    before, after = (math.exp(float(model_loss(model, old.ids, old.answer_mask))) for model in (base, tuned))
print(f"perplexity {before:.2f} -> {after:.2f}: 'forgetting' {before - after:.2f}, negated first {after - before:.2f}")
assert after > before and before - after < 0

# %% [markdown]
# **In practice** InstructGPT mixed pretraining gradients into the update, since a larger KL coefficient alone didn't repair what was
# lost (Ouyang et al. 2022, arXiv:2203.02155).
#
# → [exercise 1.5](exercises.ipynb#1.5-Catastrophic-forgetting) · graded: [p02](../../source/p02_kl_shift/p02_kl_shift.ipynb)

# %% [markdown]
# ## What to keep
#
# | | statement | number to remember |
# | --- | --- | --- |
# | 1.1 | base plus update; local means that the quadratic model holds | $\eta < 2 g^\top g / g^\top H g$ |
# | 1.2 | the floor is the entropy of the data | what can be trained away is KL |
# | 1.3 | an anchor keeps a share $h / (h + \lambda f)$ of each move | decay pulls to 0, not to $\theta_0$ |
# | 1.4 | drift is KL, tuned first, on stated prompts | half a variance of the logits' change |
# | 1.5 | sampled answers lose at most $\sqrt{D/2}$ | greedy ones have no such bound |
#
# Next: [part 1, exercises](exercises.ipynb).
