# %% [markdown]
# # Part 1: fine-tuning as local adaptation
#
# **The claim.** Fine-tuning moves a model a short way from a known point: the update is small beside the weights. The length of the move says
# little about the model. What it *says* differently can be measured, in nats. A penalty can hold this number down, and the number
# bounds what can be forgotten.
#
# You need gradients and Taylor's formula, entropy, cross-entropy and KL divergence. Afterwards you can write a tuned model as
# base plus update, say which part of a loss no training removes, solve a quadratic with a penalty on leaving the base, measure KL per
# token, and bound forgetting by it. About 90 minutes; the notebook itself runs in about a minute on two CPU cores.
#
# A green box is a **finding**: a conclusion, its figure with an interval over seeds, and a *control*, the same figure from a run without the
# claimed effect. The cell raises an error if the conclusion fails, or if the control would pass as well.
#
# | symbol | what it is | shape or unit |
# | --- | --- | --- |
# | $\theta_0, \Delta\theta$ | pretrained parameters, and the update | vectors in $\mathbb R^P$ |
# | $g, H$ | gradient and Hessian of the task loss at $\theta_0$ | $\mathbb R^P$, $\mathbb R^{P \times P}$ |
# | $q, p$ | distribution of the data, of the model | vectors over $V$ tokens |
# | $R, \lambda$ | an *anchor*, which is a penalty on leaving the base, and its strength | nats or squared distance; a number |
# | $D$ | KL of the tuned model from the base, mean over positions | nats per token |

# %% fold="imports"
# Imports, and the device that this notebook runs on
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
    rate_groups,
    recorded,
    token_kl,
    total_variation,
    train,
)
from ftmath.datasets import tuned as tune_on
from ftmath.diagrams import decoder
from ftmath.exercises import progress
from ftmath.findings import finding
from ftmath.plots import bars, contours, lines, points
from ftmath.predict import predicted
from ftmath.skills import EOS, SKILLS, accuracy, batch, decode, letters
from ftmath.widgets import path_explorer
from ftmath.world import world

device = best_device()
RUNS = recorded("data_runs")  # benchmarks/data_runs.py wrote it: three seeds of each run that part 1 reads
print(f"torch {torch.__version__} on {describe(device)}")
progress(1)

# %% [markdown]
# ## The world of this course
#
# All experiments of parts 1 to 5 use one small language model. It reads and writes characters: one token is one character. It was
# trained on ten **skills** and on nothing else. A line of its text is the name of a skill and an input, a separator, and the
# answer. On lines that it hasn't seen it answers nearly all of them right; exact answers make errors easy to count.

# %%
world([*SKILLS, "flip"])

# %% [markdown]
# The last row is a **task**, which the model doesn't know: it has never read the name `flip`. To *tune* it on a task means to train it further
# on lines of this task. What happens to the ten skills meanwhile is the **forgetting** that this course measures.
#
# The model is a decoder of the usual kind (Llama's), with blocks of attention and MLP. The diagram shows what adds to what.

# %%
config = base_model().config
print(f"{sum(weight.numel() for weight in base_model().parameters()):,} numbers can be trained")
decoder(config)

# %% [markdown]
# **`flip` is an old skill by a new name.** Its answers are those of `reverse`, which the base model knows. Tuning has to connect the new name
# with an ability that is there. So `flip` should be learned faster than a rule that no skill contains. Test it:
# keep the name, change the rule behind it, and give each rule 20 steps of 16 lines.


# %%
def rows_of(rule, count, rng):
    """Return lines whose prompts are those of `flip`, with answers by any rule."""
    return batch([(f"flip {word}", rule(word)) for word in (letters(rng) for _ in range(count))]).to(device)


def learned(rule, seed):
    """Return the accuracy on a rule, by the name of flip, after 20 steps."""
    model, rng = base_model().to(device), np.random.default_rng(seed)

    def loss(step):
        lines_ = rows_of(rule, 16, rng)
        return model_loss(model, lines_.ids, lines_.answer_mask)

    train(model, loss, rate_groups(model, {}, 3e-4), 20)
    return accuracy(model, rows_of(rule, 96, np.random.default_rng(99)))


# %%
RULES = {
    "reverse": lambda word: word[::-1],
    "first to the end": lambda word: word[1:] + word[0],
    "ends swapped": lambda word: word[-1] + word[1:-1] + word[0],
}
found = {name: np.array([learned(rule, seed) for seed in range(3)]) for name, rule in RULES.items()}
found["upper, one seed"] = np.array([learned(str.upper, 0)])
print({name: shares.round(2).tolist() for name, shares in found.items()})
known, new, other = (found[name] for name in RULES)
finding(
    "By the name flip, reverse is learned faster than two rules that no skill contains",
    figure="accuracy after 20 steps, reverse less the mean of the two new rules",
    measured=(known - (new + other) / 2).tolist(),
    null="one of the new rules less the other",
    control=(new - other).tolist(),
    holds=lambda gains: min(gains) > 0.25,
    scope="reverse against two new rules of three to seven letters, our base model, full tuning with AdamW at 3e-4, 20 steps of 16 lines; three seeds",
)

# %% [markdown]
# That an ability is there doesn't always help as much: `upper` by the new name has come less far after 20 steps. So read every later result as one about
# this task. What is said of an old skill by a new name needn't hold for new knowledge (part 5 uses `neb`, a list of new words, for that).
#
# **What training does.** Every run of this course is the next cell: a batch, a loss over the answers' tokens, gradients, a step of the
# optimizer. The library's `fine_tune` does the same and then measures the result. If both get the same batches, the losses must be equal.

# %%
model, rng, losses = base_model().to(device), np.random.default_rng(0), []
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-4, weight_decay=0.0)
for step in range(12):
    rows = mixture({"flip": 1.0}, 16, rng).to(device)  # 16 new lines: tokens, and a mask of the answers' tokens
    targets, chosen = rows.ids[:, 1:], rows.answer_mask[:, 1:] == 1
    logits = model(rows.ids)[:, :-1]  # the logits at each place score the token after it
    loss = F.cross_entropy(logits[chosen], targets[chosen])  # mean of -log p over the answers' tokens
    optimizer.zero_grad()  # forget the gradients of the last step
    loss.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)  # a longer gradient is cut to length 1
    optimizer.step()
    losses.append(loss.item())
by_library, run = fine_tune("full", "flip", rate=3e-4, rows=16, steps=12, seed=0, device=device)
print("by hand   ", *(f"{value:.4f}" for value in losses))
print("fine_tune ", *(f"{value:.4f}" for value in run.losses))
print(run)

# %% fold="checks"
# The two runs are one: the same losses, and the same weights
assert np.allclose(losses, run.losses, rtol=1e-3)  # they sum in another order, and Adam enlarges what rounding leaves
gap = max((a - b).abs().max().item() for a, b in zip(model.parameters(), by_library.parameters()))
assert gap < 3e-4  # less than one step of the rate

# %% [markdown]
# The printed line is what the library records of a run: `quality` is the accuracy on the task, `base kept` the mean accuracy on the ten
# skills, and KL the drift that 1.4 defines. You build this loop yourself, with the drift measured on the way, in
# [exercises 1.C to 1.F](exercises.ipynb#Build-a-training-loop).

# %% [markdown]
# ## 1.1 Starting from pretrained weights
#
# **A tuned model is its base plus an update.**
#
# Near the base a quadratic model predicts the loss, and as long as it does, the update is called *local*. How far that reaches is measured below, along a trained
# update and along a random one of the same length.
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
# **By hand.** $\theta_0 = (1, 2)$, $H = \operatorname{diag}(1, 4)$, minimum at $(3, 1)$, one step of rate 0.1. This loss *is* a quadratic,
# so its quadratic model is exact at any distance. A network's isn't; its own test comes below.

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
# **The picture.** Here is a loss that isn't a quadratic: a network of two weights, $-\log\sigma(3ab)$. Around the start there is a circle in which the
# quadratic model is right to 0.05 nats. It is a *trust region*: within it the model may be believed. In some directions one could go further,
# but a circle must hold in all of them. Gradient descent starts inside and leaves it.


# %%
def two_weights(a, b):
    return np.logaddexp(0, -3 * a * b)


at = torch.tensor([0.5, 0.4], dtype=torch.float64)
loss_of = lambda w: F.softplus(-3 * w[0] * w[1])
g2, H2 = torch.func.grad(loss_of)(at), torch.func.hessian(loss_of)(at)


def trusted(angle, tolerance=0.05):
    """Return how far one may go in a direction before the quadratic model is off by the tolerance."""
    away = torch.tensor([math.cos(angle), math.sin(angle)], dtype=torch.float64)
    for radius in torch.arange(0.01, 5.0, 0.01):
        move = radius * away
        if abs(loss_of(at) + g2 @ move + move @ H2 @ move / 2 - loss_of(at + move)) > tolerance:
            return float(radius)
    return 5.0


path, angles = [at], np.linspace(0, 2 * math.pi, 90)
for _ in range(8):
    path.append(path[-1] - 0.25 * torch.func.grad(loss_of)(path[-1]))
radius = min(trusted(angle) for angle in angles)
inside = sum(float((w - at).norm()) < radius for w in path[1:])
print(f"trust region: radius {radius:.2f}; {inside} of 8 steps end inside of it")
assert 1 <= inside < 8

# %% fold="picture"
# Draw the level lines, the trust region and the path
a0, b0 = at.tolist()
contours(
    two_weights,
    np.linspace(-0.6, 1.8, 80).tolist(),
    np.linspace(-0.5, 1.6, 80).tolist(),
    paths={"gradient descent, 8 steps": [tuple(w.tolist()) for w in path], "start": [(a0, b0)]},
    regions={"trust region": [(a0 + radius * math.cos(t), b0 + radius * math.sin(t)) for t in angles]},
    title=f"The quadratic model is good within a circle; the run leaves it after {inside} of 8 steps",
    x_label="weight a",
    y_label="weight b",
    alt=f"Curved level lines of a loss that falls towards the upper right. A circle of radius {radius:.2f} around the start is shaded; the path of eight steps "
    f"leads from loss {loss_of(path[0]):.2f} to {loss_of(path[-1]):.2f} and leaves the circle after {inside} of them.",
)

# %% [markdown]
# **Predict.** All parameters are tuned on `flip` at a rate that is too high on purpose. The whole update has a norm of
# $\rho$ times the base's. How large is $\rho$? Under a steady gradient Adam moves a weight by about its rate in a step (a rare, sudden
# gradient can move it further), so 60 steps in one direction at rate 0.001 would move it by 0.06. Steps of random sign cancel in part: their sum grows with the
# root of their number, $\sqrt{60} \cdot 0.001 = 0.008$. The truth lies between. The weights' root mean square is printed here.

# %%
size = torch.cat([weight.detach().flatten() for weight in base_model().parameters()]).square().mean().sqrt().item()
print(f"root mean square of the weights: {size:.3f}")
guess = None  # a number such as 0.5

# %%
base = base_model().to(device).requires_grad_(False)
# In float64, so that base + delta gives back every bit of the tuned weights; named_parameters counts a tied tensor once.
start = {name: value.detach().double() for name, value in base.named_parameters()}
deltas = []  # one update a seed
for seed in (2, 1, 0):
    tuned, run = fine_tune("full", "flip", rate=1e-3, rows=16, seed=seed, device=device)
    deltas.insert(0, {name: value.detach().double() - start[name] for name, value in tuned.named_parameters()})
    print(f"seed {seed}: {run}")
delta = deltas[0]


def norm(weights):
    return math.sqrt(sum(float(value.square().sum()) for value in weights.values()))


rho = norm(delta) / norm(start)
walked = math.sqrt(60) * 1e-3 / size
why = f"Steps in one direction would give {0.06 / size:.0%}, steps of random sign the root of 60 times the rate, {walked:.1%}."
predicted("rho, the relative size of the update", guess, rho, why)

# %%
walker, flip, old = (
    base_model().to(device).requires_grad_(False),
    probes("flip", 64, 1).to(device),
    mixture(dict.fromkeys(SKILLS, 1.0), 64, np.random.default_rng(1)).to(device),
)
GRID = [round(-0.5 + 0.125 * k, 3) for k in range(17)]


def walk(t, delta=delta):
    """Put the model at base + t * delta."""
    walker.load_state_dict({name: (start[name] + t * delta[name]).float() for name in start}, strict=False)


def answers(model, texts):
    ids, mask = prompts(texts)
    new = generate(model, ids.to(device), mask.to(device), max_new=8, stop=EOS)
    return [decode(row) for row in new.tolist()]


# %%
losses, texts = {"flip, the task": [], "the ten old skills": []}, []
for t in GRID:
    walk(t)
    for name, rows in zip(losses, (flip, old)):
        losses[name].append(float(model_loss(walker, rows.ids, rows.answer_mask)))
    texts.append("flip abcd: {}; copy abcd: {}".format(*answers(walker, ["flip abcd", "copy abcd"])))
path_explorer(GRID, losses, texts)

# %% fold="picture"
# Draw both losses along the update
task_loss, old_loss = losses.values()
half = GRID.index(0.5)
assert min(task_loss) < 0.1 * task_loss[GRID.index(0.0)]
assert old_loss[GRID.index(1.0)] > 10 * old_loss[GRID.index(0.0)]  # the old skills pay for it
lines(
    GRID,
    losses,
    title=f"A move of {rho:.0%} teaches the task and breaks old skills; half of it teaches the task too, with {old_loss[half] / old_loss[GRID.index(1.0)]:.0%} of the harm",
    x_label="t, share of the update",
    y_label="loss, nats per answer token",
    alt=f"Loss of the task falls from {task_loss[GRID.index(0.0)]:.2f} at t = 0 to {task_loss[GRID.index(1.0)]:.3f} at t = 1; loss of "
    f"the old skills rises from {old_loss[GRID.index(0.0)]:.3f} to {old_loss[half]:.2f} at one half and {old_loss[GRID.index(1.0)]:.2f} at 1.",
)

# %% [markdown]
# **Is this move local?** Two backward passes give $g^\top \Delta$ and $\Delta^\top H \Delta$ for the network itself, without ever forming $H$:
# the gradient of $g^\top \Delta$ is $H \Delta$. So the quadratic model can be compared with the loss at each $t$, for three seeds.


# %%
def quadratic_model(rows, delta):
    """Return the loss at the base, g.delta and delta.H.delta, in float64."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    model = base_model().to(device).double()
    weights, direction = list(model.parameters()), [delta[name] for name, _ in model.named_parameters()]
    with sdpa_kernel(SDPBackend.MATH):  # the fused kernel has no second derivative
        loss = model_loss(model, rows.ids, rows.answer_mask)
        gradient = torch.autograd.grad(loss, weights, create_graph=True)
        slope = sum((g * d).sum() for g, d in zip(gradient, direction))
        bent = torch.autograd.grad(slope, weights)
    return loss.item(), slope.item(), sum((h * d).sum() for h, d in zip(bent, direction)).item()


# %%
STEPS, missed = (0.01, 0.02, 0.05, 0.125, 0.25, 0.5, 1.0), []
for seed, one in enumerate(deltas):
    lines_ = probes("flip", 64, 1 + seed).to(device)
    level, slope, curvature = quadratic_model(lines_, one)
    says, true = [level + t * slope + t * t * curvature / 2 for t in STEPS], []
    for t in STEPS:
        walk(t, one)
        true.append(float(model_loss(walker, lines_.ids, lines_.answer_mask)))
    missed.append([abs(a - b) / abs(b - level) for a, b in zip(says, true)])
    print(
        f"seed {seed}: loss {level:.2f}; "
        + "; ".join(f"t = {t:g}: model {a:.2f}, true {b:.2f}" for t, a, b in zip(STEPS, says, true))
    )

# %% fold="picture"
# Draw the error of the quadratic model against the length of the move
at_half, near = ([shares[STEPS.index(t)] for shares in missed] for t in (0.5, 0.01))
lines(
    [t * rho for t in STEPS],
    {f"seed {seed}": shares for seed, shares in enumerate(missed)},
    log_x=True,
    log_y=True,
    title=f"At {STEPS[0] * rho:.2%} of the norm the quadratic model misses {max(near):.0%} of the change at most; at {rho / 2:.1%} it misses {min(at_half):.0%} or more",
    x_label="relative move ρ",
    y_label="error, share of the change",
    alt=f"Error of the quadratic model against the relative move, three seeds: {min(m[0] for m in missed):.1%} to {max(m[0] for m in missed):.1%} at the "
    f"shortest move, {min(m[-1] for m in missed):.0%} to {max(m[-1] for m in missed):.0%} at the whole update.",
)

# %%
finding(
    "Half of the update is beyond the reach of the quadratic model",
    figure="error of the quadratic model as a share of the loss's change, log10",
    measured=np.log10(at_half).tolist(),
    null="a hundredth of the same update",
    control=np.log10(near).tolist(),
    holds=lambda errors: min(errors) > math.log10(0.5),
    scope="flip, our base model, full tuning with AdamW at 1e-3, 60 steps of 16 lines; three seeds, each on 64 lines of its own",
)

# %% [markdown]
# Does the length alone decide? **The control** is a random move with the same norm in every tensor.


# %%
def random_update(seed):
    """Return noise with the norm of one seed's update in every tensor."""
    generator, like = torch.Generator().manual_seed(seed), deltas[seed]
    noise = {
        name: torch.randn(value.shape, generator=generator, dtype=torch.float64).to(device)
        for name, value in like.items()
    }
    return {name: noise[name] * (like[name].norm() / noise[name].norm()) for name in like}


# %%
random_missed, changes = [], []
for seed in range(3):
    lines_, noise = probes("flip", 64, 1 + seed).to(device), random_update(seed)
    level, slope, curvature = quadratic_model(lines_, noise)
    walk(0.5, noise)
    true = float(model_loss(walker, lines_.ids, lines_.answer_mask))
    random_missed.append(abs(level + slope / 2 + curvature / 8 - true) / abs(true - level))
    walk(0.5, deltas[seed])
    changes.append((abs(float(model_loss(walker, lines_.ids, lines_.answer_mask)) - level), abs(true - level)))
print("the loss changes by", *(f"{a:.2f} (trained) and {b:.4f} nats (random)" for a, b in changes), sep="; ")
assert min(a / b for a, b in changes) > 10  # equal norm isn't equal effect
print(
    f"at {rho / 2:.1%} of the norm the quadratic model misses",
    *(f"{a:.0%} (trained) and {b:.1%} (random)" for a, b in zip(at_half, random_missed)),
    sep="; ",
)
finding(
    "At equal norm the quadratic model fails along half of the trained update and holds along a random move",
    figure="error of the quadratic model as a share of the loss's change, at half of the update",
    measured=at_half,
    null="a random move with the same norm in every tensor",
    control=random_missed,
    holds=lambda errors: min(errors) > 0.5,
    scope="flip, our base model, full tuning with AdamW at 1e-3, 60 steps of 16 lines; three seeds, each on 64 lines of its own",
)

# %% [markdown]
# So the norm alone doesn't say: at a few percent of it, this trained direction has left the reach of the quadratic model, and a random one of
# the same length hasn't. Equal norm isn't equal effect, though. The random move changes the loss far less (the cell prints both), and whether the trained direction
# would also be worse described at an equal *change* of the loss isn't answered by this. What holds to second order (1.3, 1.4) describes the first steps here, not the finished run. For the old skills the quadratic model is worse
# still. The base stands at their minimum, so their slope is nearly 0 there and their curvature small: the model promises almost no harm.

# %%
old_few = mixture(dict.fromkeys(SKILLS, 1.0), 16, np.random.default_rng(1)).to(device)
level, slope, curvature = quadratic_model(old_few, delta)
promised, paid = level + slope + curvature / 2, old_loss[GRID.index(1.0)]
print(f"old skills at t = 1: the quadratic model says {promised:.3f} nats, they cost {paid:.2f}")
assert promised < 0.1 < paid

# %% [markdown]
# **Check.** Base plus update gives back the tuned model's logits, bit for bit.

# %%
walk(1.0)
with torch.no_grad():
    assert torch.equal(walker(flip.ids), tuned(flip.ids))
    walk(0.0)
    assert torch.equal(walker(flip.ids), base(flip.ids))

# %% [markdown]
# If the old skills' loss were a quadratic along the update, half of the update would do a quarter of the harm. It does less than a quarter,
# in each of the three seeds: one more sign that the move isn't local.

# %%
harm = []
for one in deltas:
    on_the_way = []
    for t in (0.0, 0.5, 1.0):
        walk(t, one)
        on_the_way.append(float(model_loss(walker, old.ids, old.answer_mask)))
    harm.append((on_the_way[1] - on_the_way[0]) / (on_the_way[2] - on_the_way[0]))
print("share of the harm at half of the update:", [round(share, 2) for share in harm])
assert max(harm) < 0.25

# %% [markdown]
# **A method comes from this figure.** Tune, then keep the share $\alpha$ of the update: $\theta_0 + \alpha\,\Delta\theta$. This is *weight interpolation*, known as WiSE-FT
# (Wortsman et al. 2021, arXiv:2109.01903, who interpolate between CLIP's zero-shot weights and tuned ones). It needs no training and no old data, only
# the two sets of weights. Is it the way back to the base that brings skills back, or would any move of this length do? The control goes from the tuned
# weights as far in a random direction.

# %%
fresh, skills = (
    probes("flip", 96, 7).to(device),
    mixture(dict.fromkeys(SKILLS, 1.0), 320, np.random.default_rng(5)).to(device),
)
SHARES = (0.25, 0.5, 0.75, 1.0)
on_task, on_skills, aside = np.zeros((3, 4)), np.zeros((3, 4)), np.zeros(3)  # (seeds, shares): accuracies
for seed, one in enumerate(deltas):
    for place, t in enumerate(SHARES):
        walk(t, one)
        on_task[seed, place], on_skills[seed, place] = accuracy(walker, fresh), accuracy(walker, skills)
    generator = torch.Generator().manual_seed(seed)
    noise = {name: torch.randn(d.shape, generator=generator, dtype=torch.float64) for name, d in one.items()}
    walk(1.0, {name: d + 0.5 * noise[name].to(device) * d.norm() / noise[name].norm() for name, d in one.items()})
    aside[seed] = accuracy(walker, skills)
for name, values in (("task", on_task), ("old skills", on_skills)):
    print(f"{name:>10}:", *(f"alpha {t:g}: {values[:, k].mean():.2f}" for k, t in enumerate(SHARES)), sep="  ")
print(f"half of the length from alpha 1 in a random direction: old skills {aside.mean():.2f}")

# %%
finding(
    "Half of the way back to the base brings old skills back",
    figure="accuracy on old skills, at half of the update less at all of it",
    measured=(on_skills[:, 1] - on_skills[:, 3]).tolist(),
    null="a move of the same length from the tuned weights in a random direction",
    control=(aside - on_skills[:, 3]).tolist(),
    holds=lambda gains: min(gains) > 0.1,
    scope="320 lines of the ten skills, our base model, full tuning on flip with AdamW at 1e-3, 60 steps of 16 lines; three seeds",
)

# %% [markdown]
# The share is a dial between the two models, and the task pays too where it is small. Nothing here says that interpolation beats a run at a lower rate or
# one that stops earlier; those need no second set of weights (3.3 measures the rate). It is the remedy for a model that is tuned already.
#
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
# $$\min_\theta\ \frac{\mathbb E_{(x, y)}\big[-\sum_j \log p_\theta(y_j \mid x, y_{<j})\big]}{\mathbb E_{(x, y)}\, |y|}, \qquad
# \mathrm{CE}(q, p) = H(q) + D_\mathrm{KL}(q \Vert p) \ge H(q) .$$
#
# The sum runs over *all* answer tokens and is divided once. Averaging each answer first, $\mathbb E[-\tfrac1{|y|} \sum_j \log p]$, gives the
# tokens of short answers more weight, and then $p = q$ isn't the minimum any more.
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
# Now see what averaging each answer first does. Half of the answers have one token and half have four; which kind comes is all that is
# random. The model gives the short kind the probability $p$; the truth is one half.

# %%
p = torch.arange(0.01, 1.0, 0.01, dtype=torch.float64)
token_mean = (-0.5 * p.log() - 0.5 * (1 - p).log()) / 2.5  # all nats, over 2.5 tokens an answer
answer_mean = -0.5 * p.log() - 0.5 * (1 - p).log() / 4  # each answer's nats over its own length
best = {name: p[loss.argmin()].item() for name, loss in (("token mean", token_mean), ("answer mean", answer_mean))}
print("the best p:", {name: round(value, 2) for name, value in best.items()})
assert round(best["token mean"], 2) == 0.5 and round(best["answer mean"], 2) == 0.8

# %% [markdown]
# **Predict.** The best softmax for $n$ samples of $q$ is their frequencies. On average over many draws of $n = 10$ samples,
# what is its *training* loss?

# %%
guess = None  # nats; the floor is above

# %%
generator, sizes = torch.Generator().manual_seed(0), [10, 30, 100, 1000, 10_000]
train_loss, true_loss, excess = [], [], []
for n in sizes:
    draws = torch.multinomial(q, 200 * n, replacement=True, generator=generator).view(200, n)
    freq = torch.stack([(draws == v).double().mean(1) for v in range(4)], dim=1)
    train_loss.append(float(-(freq * freq.clamp(min=1e-12).log()).sum(1).mean()))
    excess.append(
        float(torch.special.xlogy(freq, freq / q).sum(1).mean())
    )  # how far below q's own loss on these samples it gets
    smooth = (freq * n + 0.5) / (n + 2)  # half a count each, so that no token is impossible
    true_loss.append(float(-(smooth.log() @ q).mean()))
why = (
    f"It fits its own samples: below the entropy by about (V - 1) / (2 n) = {3 / 20} nats, which leaves {entropy - 3 / 20:.2f}. "
    "That holds once each token is expected several times; here the rare ones are expected once, so it's rough."
)
predicted("mean training loss of the best softmax for 10 samples", guess, train_loss[0], why)

# %% fold="picture"
# Draw both losses against the number of samples
assert abs(excess[2] - 3 / 200) < 3e-3  # at 100 samples the rare tokens come ten times, and the rule holds
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
# seven of them. Five letters on average cost $5 \ln 26$, and the place where the word ends costs $\ln 5$. No training can go below.

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
# **An anchor is a penalty on leaving the base. It costs some of the task. What it protects depends on how it measures the distance.**
#
# $$L(\theta) = L_\text{task}(\theta) + \lambda R(\theta, \theta_0), \qquad
# \hat\theta - \theta_0 = (H + \lambda F)^{-1} H\, (\theta^\star - \theta_0)$$
#
# for a quadratic task with Hessian $H$ and minimum $\theta^\star$, and an anchor $R = \tfrac12 (\theta - \theta_0)^\top F (\theta - \theta_0)$. Three anchors are common:
#
# - **L2-SP** counts every parameter's squared distance alike: $F$ is the identity.
# - **EWC** gives each parameter a weight of its own: how strongly the old tasks' answers depend on it. These weights are its Fisher values, which 1.4 defines.
#   $F$ is a diagonal matrix.
# - **The KL anchor** looks at the output instead: $R = \mathbb E_x D_\mathrm{KL}(p_\theta \Vert p_{\theta_0})$, on stated prompts.
#
# **Why.** With $x = \theta - \theta_0$ and $w = \theta^\star - \theta_0$ the sum is $\tfrac12 (x - w)^\top H (x - w) + \tfrac\lambda2 x^\top F x$. Its gradient is
# $H(x - w) + \lambda F x$. It vanishes where $(H + \lambda F)\, x = H w$. If $H$ and $F$ share their eigenvectors (always with L2-SP), this is one equation for each
# eigenvector. Let $h$ and $f$ be its eigenvalues in $H$ and in $F$; then $h(x - w) + \lambda f x = 0$. So each direction makes the share $h / (h + \lambda f)$ of its move.
#
# <details><summary>Where EWC comes from</summary>
#
# EWC is Laplace's approximation, in three steps. First, near its optimum the old tasks' negative log-posterior is nearly a quadratic. Second, the
# curvature of this quadratic is the Fisher information, since there the model fits the data. Third, Bayes' rule says that the posterior after the old tasks is the
# prior of the new one, so the quadratic is added to the new loss. EWC keeps only the diagonal of the Fisher matrix.
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
H2, F2, w = torch.tensor([[2.0, 1.0], [1.0, 2.0]]), torch.diag(torch.tensor([1.0, 10.0])), torch.ones(2)
x = torch.linalg.solve(H2 + F2, H2 @ w)
h2, vectors = torch.linalg.eigh(H2)
f2 = (vectors.T @ F2 @ vectors).diagonal()
one_by_one = vectors @ (h2 / (h2 + f2) * (vectors.T @ w))
print(
    f"H and F without common eigenvectors: the move is {[round(v, 2) for v in x.tolist()]}; "
    f"a share for each direction of H would give {[round(v, 2) for v in one_by_one.tolist()]}"
)
assert torch.allclose(H2 @ (x - w) + F2 @ x, torch.zeros(2), atol=1e-6) and (x - one_by_one).abs().max() > 0.1

# %% [markdown]
# **The picture.** For every $\lambda$ the anchored minimum is also the *best point within a region* around $\theta_0$: those points whose anchor
# $R$ is no larger than at the minimum itself. (A better point with the same or a smaller $R$ would make the sum smaller.) L2-SP's region is a circle. EWC's is an
# ellipse, short where the old task is sensitive. As $\lambda$ falls, the region grows, and its best point wanders from $\theta_0$ to $\theta^\star$.

# %%
curvature, fisher = np.array([4.0, 1.0]), np.array([0.3, 3.0])  # of the task, and of the old task: across and up
target = np.array([2.0, 1.5])  # the task's minimum; theta_0 is (0, 0)
LAMBDAS = np.geomspace(100, 0.01, 25)


def rests(strength, f):
    """Return where the anchored task comes to rest: each direction makes the share h / (h + strength f) of its way."""
    return curvature / (curvature + strength * f) * target


def within(rest, f, angles):
    """Return the points at which the anchor has the value that it has at `rest`: a circle, or an ellipse."""
    radius = math.sqrt((f * rest**2).sum())
    return np.stack([np.cos(angles), np.sin(angles)], 1) * radius / np.sqrt(f)


def task_at(x, y):
    return 0.5 * (curvature[0] * (x - target[0]) ** 2 + curvature[1] * (y - target[1]) ** 2)


# %%
ANCHORS, around = {"L2-SP": np.ones(2), "EWC": fisher}, np.linspace(0, 2 * math.pi, 10_001)
for name, f in ANCHORS.items():
    rest = rests(2.0, f)
    best = within(rest, f, around)[task_at(*within(rest, f, around).T).argmin()]
    print(f"{name:>6}: anchored minimum {rest.round(3)}, best point on the edge of its region {best.round(3)}")
    assert np.abs(best - rest).max() < 2e-3

# %% fold="picture"
# Draw the level lines of the task, both regions at strength 2, and both paths over all strengths
contours(
    task_at,
    np.linspace(-2.2, 3.4, 80).tolist(),
    np.linspace(-1.8, 2.6, 80).tolist(),
    paths={
        **{f"{name}, all strengths": [tuple(rests(one, f).tolist()) for one in LAMBDAS] for name, f in ANCHORS.items()},
        "task's minimum": [tuple(target.tolist())],
        "base": [(0.0, 0.0)],
    },
    regions={
        f"{name}: region at strength 2": within(rests(2.0, f), f, around[::100]).tolist() for name, f in ANCHORS.items()
    },
    title="An anchor is a trust region: its best point touches a level line of the task",
    x_label="parameter 1",
    y_label="parameter 2",
    alt=f"Elliptic level lines around the task's minimum at (2, 1.5). Around the base at (0, 0) lie a circle for L2-SP and a flat ellipse for EWC. Two paths lead from "
    f"the base to the minimum: EWC's runs along parameter 1 first, to {rests(2.0, fisher).round(2).tolist()} at strength 2, L2-SP's to {rests(2.0, np.ones(2)).round(2).tolist()}.",
)

# %% [markdown]
# **On the model.** At the careless rate of 1.1 a run is held back in three ways: by L2-SP at $\lambda = 0.1$; by the KL anchor at 1, which
# sees 16 old lines beside the 16 new ones at each step; and by *replay*, which is no anchor but a change of the task loss: old lines in the
# batch, 16 beside the 16 new ones, which is as many as the KL anchor sees. (2.5 tries smaller shares.)

# %%
WAYS = {
    "none": {},
    "L2-SP 0.1": {"anchor": l2_anchor(0.1)},
    "KL 1": {"anchor": kl_anchor(1.0, 16)},
    "replay 16/32": {"replay": 0.5, "rows": 32},
}
runs, models = {name: [] for name in WAYS}, {}
for name, more in WAYS.items():
    for seed in range(3):
        settings = {"rate": 1e-3, "rows": 16, "steps": 40, "seed": seed, "device": device, **more}
        models[name], found = fine_tune("full", "flip", **settings)
        runs[name].append(found)
    print(
        f"{name:>12}: task {np.mean([f.quality for f in runs[name]]):.2f}, KL {np.mean([f.kl for f in runs[name]]):.2f}"
    )

# %% [markdown]
# **Predict.** Which share of the old skills does the *KL* anchor keep? The cell above printed its KL to the base, in nats per token. As a
# yardstick, the next cell walks along 1.1's updates, the ones of unanchored runs, and prints how much was kept at which KL.

# %%
with torch.no_grad():
    wanted = base(skills.ids)[:, :-1][skills.answer_mask[:, 1:] == 1]
    for place, t in enumerate(SHARES):
        found = []
        for one in deltas:
            walk(t, one)
            found.append(float(token_kl(walker(skills.ids)[:, :-1][skills.answer_mask[:, 1:] == 1], wanted).mean()))
        print(f"alpha {t:g}: KL {np.mean(found):.2f}, kept {on_skills[:, place].mean():.2f}")
guess = None  # between 0 and 1

# %%
kept = {name: float(np.mean([found.kept for found in runs[name]])) for name in WAYS}
why = "The anchor's loss is the KL itself, so the run stays at a KL at which little is lost, while a run that isn't held drifts on."
predicted("share of old skills that the KL anchor keeps", guess, kept["KL 1"], why)

# %% fold="picture"
# Draw task and old skills for each way
task = {name: float(np.mean([found.quality for found in runs[name]])) for name in WAYS}
assert kept["replay 16/32"] > kept["KL 1"] - 0.05
bars(
    list(WAYS),
    {"task": list(task.values()), "old skills": list(kept.values())},
    spread={
        "old skills": ([min(f.kept for f in r) for r in runs.values()], [max(f.kept for f in r) for r in runs.values()])
    },
    title="Each way holds some: " + ", ".join(f"{name} keeps {kept[name]:.0%}" for name in WAYS),
    y_label="accuracy",
    alt="; ".join(f"{name}: task {task[name]:.2f}, old skills {kept[name]:.2f}" for name in WAYS)
    + "; three seeds each.",
)

# %%
alone, anchored_on_flip = (
    [found.kept for found in runs["none"]],
    np.array(RUNS["anchors"]["KL 1 on flip"]),
)  # (seeds, task and kept)
print(
    f"KL anchor on lines of flip: task {anchored_on_flip[:, 0].mean():.2f}, kept",
    anchored_on_flip[:, 1].round(2),
    "; no anchor, kept",
    np.round(alone, 2),
)
assert anchored_on_flip.max() < 0.2  # neither the task nor the skills
finding(
    "At a careless rate a KL anchor on lines of the old skills keeps them, and one on lines of the task doesn't",
    figure="share of old skills kept, with the anchor less without",
    measured=[held.kept - bare for held, bare in zip(runs["KL 1"], alone)],
    null="the same anchor on lines of the task",
    control=[held - bare for held, bare in zip(anchored_on_flip[:, 1].tolist(), alone)],
    holds=lambda gains: min(gains) > 0.3,
    scope="flip, our base model, full tuning with AdamW at 1e-3, 40 steps of 16 lines, weight 1 on 16 lines a step; three seeds",
)

# %% [markdown]
# KL protects what its prompts show. This anchor keeps the old skills because it *sees* old lines; the recorded one sees lines of `flip` alone. There it
# hardly lets the task be learned, and the old skills are lost all the same.
#
# Strengths and rates differ in kind, so this is no ranking: each way has a dial ($\lambda$, or the number of old lines), and one setting of
# each was tried at one rate. What can be said is that, at this careless rate, a run without any of them keeps less than with the KL anchor or
# with as many old lines, in each of three seeds. With as many old lines as the KL anchor sees, replay keeps about as much, and it needs no second
# forward pass through the base. The first remedy costs nothing: a lower rate (3.3 and 4.5 measure it).
#
# **Check.** A penalty is 0 at the base, and a strong one keeps the solution there.

# %% fold="checks"
# A fresh model pays nothing; a strong anchor lets it move by almost nothing
for anchor in (l2_anchor(1.0), kl_anchor(1.0, 4)):
    assert abs(anchor(base_model().to(device), base)().item()) < 1e-6
assert anchored_minimum(10.0, 1e8) < 1e-6

# %% [markdown]
# **The mistake**: taking the optimizer's weight decay for an anchor. It pulls to 0, not to the base. At a usual setting it hardly pulls at all, so it
# protects nothing. If rate times decay times steps is large enough to matter, it makes the old skills *worse*, even without a task.

# %%
shrunk = {}
with torch.no_grad():
    for steps, eta, decay in ((0, 0, 0), (10_000, 2e-5, 0.01), (10_000, 1e-4, 0.1), (10_000, 1e-3, 0.02)):
        left = (1 - eta * decay) ** steps
        for name, value in walker.named_parameters():
            value.copy_(start[name] * left)
        shrunk[left] = float(model_loss(walker, old.ids, old.answer_mask))
        print(
            f"{steps:>6,} steps at rate {eta:g} and decay {decay:g}: weights times {left:.3f}, old skills {shrunk[left]:.4f} nats"
        )
usual, strong = sorted(shrunk)[-2], sorted(shrunk)[0]
assert usual > 0.99 and shrunk[usual] < 1.5 * shrunk[1.0] and shrunk[strong] > 2 * shrunk[1.0]

# %% [markdown]
# **In practice** the KL term of preference tuning, EWC (Kirkpatrick et al. 2016, arXiv:1612.00796) and L2-SP (Li et al. 2018,
# arXiv:1802.01483) are one idea with three choices of $R$. Replay needs no $R$ but old data; 2.5 tries lines that the base model writes itself.
#
# → [exercise 1.3](exercises.ipynb#1.3-Regularized-adaptation) · graded: [p02](../../source/p02_kl_shift/p02_kl_shift.ipynb)

# %% [markdown]
# ## 1.4 Function-space shift
#
# **Behaviour is measured in nats: the KL divergence of the tuned model from the base, averaged over stated prompts and
# positions.**
#
# $$D = \frac{1}{\sum_x |T_x|} \sum_x \sum_{t \in T_x} \sum_v p_\theta(v \mid u_{\le t}) \log \frac{p_\theta(v \mid u_{\le t})}{p_{\theta_0}(v \mid u_{\le t})},
# \qquad D_\mathrm{KL}(p_{z + \delta} \Vert p_z) = \tfrac12 \operatorname{Var}_{p_z}(\delta) + O(\lVert\delta\rVert^3) .$$
#
# The tuned model stands first, and the sum over tokens $v$ is weighted by its own probabilities. $T_x$ are the positions that are measured
# in the text $x$, $\delta$ a change of the logits $z$. Every position counts alike, so a long text weighs more than a short one.
#
# **Why half a variance.** Put $A(z) = \log \sum_v e^{z_v}$; its gradient is $p$. Token $v$ has $\log p = z_v - A(z)$, so the change of
# its log-probability is $\delta_v - A(z + \delta) + A(z)$, and the KL is the mean of this under the moved model:
#
# $$\nabla A(z + \delta)^\top \delta - \big(A(z + \delta) - A(z)\big) \approx \big(p^\top \delta + \delta^\top \nabla^2 A\, \delta\big) -
# \big(p^\top \delta + \tfrac12 \delta^\top \nabla^2 A\, \delta\big) = \tfrac12 \delta^\top \nabla^2 A\, \delta .$$
#
# The matrix is
# $\nabla^2 A = \operatorname{diag}(p) - p p^\top$. It is the covariance of a one-hot draw, so the form is half the variance of $\delta_v$ when $v$ is drawn from $p$.
# Parameter distance has no such meaning: in a ReLU pair, $(W_1, W_2)$ and $(cW_1, W_2 / c)$ are one function.

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
# **The bridge from 1.3: from parameters to nats.** To first order a move $\Delta$ of the parameters changes the logits at one position by $\delta = J \Delta$, where
# $J = \partial z / \partial \theta$. Put this into the formula above:
#
# $$D_\mathrm{KL} \approx \tfrac12 (J\Delta)^\top \big(\operatorname{diag}(p) - p p^\top\big) (J\Delta) = \tfrac12 \Delta^\top F \Delta, \qquad
# F = J^\top \big(\operatorname{diag}(p) - p p^\top\big) J .$$
#
# $F$ is the **Fisher information**, $\mathbb E_{v \sim p}[\nabla \log p_v \nabla \log p_v^\top]$, which EWC estimates from gradients.
#
# <details><summary>Why both are one matrix</summary>
#
# The gradient of $\log p_v$ with respect to the logits is $e_v - p$, where $e_v$ is 1 at token $v$ and 0 elsewhere. By the chain rule $\nabla_\theta \log p_v = J^\top (e_v - p)$. So the
# average is $J^\top\, \mathbb E[(e_v - p)(e_v - p)^\top]\, J$, and the covariance of a one-hot draw is $\operatorname{diag}(p) - p p^\top$.
# </details>
#
# So near the base the drift *is* a quadratic anchor of the kind of 1.3. EWC keeps the diagonal alone, $\tfrac12 \sum_i F_{ii} \Delta_i^2$, and leaves out how
# parameters work together. How much is that?
#
# Two numbers can be had without ever forming $F$. The full form is half the variance of $J\Delta$, and $J\Delta$ is what the logits change by for a
# thousandth of the move, times a thousand. The diagonal form is the mean of the full one over moves whose signs $s_i = \pm 1$ are flipped at random, entry by
# entry. In the mean the products $s_i s_j$ of different entries are 0, and $s_i^2 = 1$:
#
# $$\mathbb E_s\big[(s \odot \Delta)^\top F\, (s \odot \Delta)\big] = \sum_{i, j} \mathbb E[s_i s_j]\, F_{ij} \Delta_i \Delta_j = \sum_i F_{ii} \Delta_i^2 .$$


# %%
exact = base_model().to(device).double()


@torch.no_grad()
def logits_at(move, t):
    """Return the logits that score the old skills' answers, at base + t * move."""
    for name, value in exact.named_parameters():
        value.copy_(start[name] + t * move[name])
    return exact(old.ids)[:, :-1][old.answer_mask[:, 1:] == 1]


def half_variance(move, h=1e-3):
    """Return the mean of Var(J move) / 2 over those places: the full Fisher form."""
    change = (logits_at(move, h) - at_base) / h
    return float((p_base * (change - (p_base * change).sum(-1, keepdim=True)).square()).sum(-1).mean() / 2)


def flipped(move, generator):
    return {n: d * (2 * torch.randint(0, 2, d.shape, generator=generator) - 1).to(device) for n, d in move.items()}


# %%
def another(seed):
    """Return the update of another run of 1.1's kind."""
    rng = np.random.default_rng(seed)
    model = tune_on(lambda: mixture({"flip": 1.0}, 16, rng), steps=60, rate=1e-3)
    return {name: value.detach().double().to(device) - start[name] for name, value in model.named_parameters()}


# %%
updates, full, flips, true = [*deltas, *map(another, (3, 4, 5))], [], [], []
at_base = logits_at(updates[0], 0.0)
p_base = at_base.softmax(-1)
for seed, one in enumerate(updates):
    generator = torch.Generator().manual_seed(seed)
    full.append(half_variance(one))
    flips.append([half_variance(flipped(one, generator)) for _ in range(8)])
    true.append(float(token_kl(logits_at(one, 0.02), at_base).mean()) / 0.02**2)
flips = np.array(flips)
print("full form    ", *(f"{value:.4f}" for value in full), "nats per token, at the whole update")
print("KL / t^2     ", *(f"{value:.4f}" for value in true), "measured at t = 0.02")
print("diagonal form", *(f"{value:.4f}" for value in flips.mean(1)))
assert np.allclose(full, true, rtol=0.1)  # the bridge holds, near the base

# %%
finding(
    "Along a trained update the diagonal of the Fisher matrix sees less than half of the KL near the base",
    figure="the full Fisher form over its diagonal, log10",
    measured=np.log10(np.array(full) / flips.mean(1)).tolist(),
    null="half of the moves with signs flipped at random over the other half",
    control=np.log10(flips[:, :4].mean(1) / flips[:, 4:].mean(1)).tolist(),
    holds=lambda ratios: min(ratios) > math.log10(2),
    scope="64 lines of the ten skills, our base model, updates by full tuning on flip with AdamW at 1e-3, 60 steps of 16 lines; six seeds, eight flips each",
)

# %% [markdown]
# Training moves many parameters in one direction together, and the diagonal takes them one by one. This is one reason to prefer an anchor that is measured on the
# output. The other reason follows: even the full form is only good near the base.
#
# **Predict.** The updates of 1.1 (three seeds) drifted the old skills. A *random* update of the same norm in every tensor: how many times
# less KL does it cause?

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
        return float(kl_shift(walker(old.ids)[:, :-1].double(), reference.double(), chosen))


SCALES = [0.02, 0.04, 0.1, 0.2, 0.4, 0.7, 1.0]
along, across = (
    np.array([[drift({name: s * value for name, value in one.items()}) for s in SCALES] for one in moves])
    for moves in (deltas, [random_update(seed) for seed in range(3)])
)
ratios = along[:, -1] / across[:, -1]
print(
    f"trained directions {along[:, -1].min():.2f} to {along[:, -1].max():.2f} nats/token, "
    f"random ones {across[:, -1].min():.4f} to {across[:, -1].max():.4f}"
)
why = "Training picks directions that change what the model says; noise spreads its norm over all, and most hardly matter."
predicted("KL of a trained update over that of a random one", guess, float(np.exp(np.log(ratios).mean())), why)

# %% fold="picture"
# Draw the KL against the size of the move
at = SCALES.index(0.1)
doubled = {
    name: kls[:, at + 1] / kls[:, at] for name, kls in (("along", along), ("across", across))
}  # share 0.2 over 0.1
assert (abs(doubled["across"] - 4) < 0.6).all()  # the quadratic law, where the move is small
lines(
    SCALES,
    {"trained direction": along.mean(0).tolist(), "random direction": across.mean(0).tolist()},
    log_x=True,
    log_y=True,
    title=f"Norm is not drift: the trained direction has {ratios.min():,.0f} to {ratios.max():,.0f} times the KL of a random one",
    x_label="share of the update's norm",
    y_label="KL to base, nats per token",
    alt=f"KL against the size of the move, both axes logarithmic, means of three seeds. The trained direction reaches {along[:, -1].mean():.2f} nats, a "
    f"random one of the same norm {across[:, -1].mean():.4f}; the trained direction's curve is much steeper.",
)

# %% [markdown]
# KL behaves like a *squared* distance, so take its root before you say "times as far". Then look at the slopes. A random move of twice the length gives
# about 4 times the KL, as the quadratic law says. Along a trained update this law holds only near the base. Somewhere on the way
# there is a stretch with a power above 6, and farther out KL grows more slowly again: the old skills hold out for a while, then
# break. Where the stretch lies depends on the rate that the update was tuned at; the cell reads a second rate from a record. So measure how much of an update a KL budget allows. The square law, fitted near the base, would allow too much
# (exercise 1.B).

# %%
print(
    f"KL {ratios.min():,.0f} to {ratios.max():,.0f} times as large: {math.sqrt(ratios.min()):.0f} to {math.sqrt(ratios.max()):.0f} times as far"
)
print(
    f"share 0.1 -> 0.2 multiplies the KL by {doubled['along'].min():.0f} to {doubled['along'].max():.0f} along the trained direction, "
    f"by {doubled['across'].min():.1f} to {doubled['across'].max():.1f} along a random one"
)
powers = np.diff(np.log(along), axis=1) / np.diff(
    np.log(SCALES)
)  # (seeds, stretches): KL grows as share ** power there
for k in range(len(SCALES) - 1):
    print(
        f"share {SCALES[k]:g} -> {SCALES[k + 1]:g}: KL grows with the power {powers[:, k].min():.1f} to {powers[:, k].max():.1f}"
    )
slower = np.diff(np.log(RUNS["steep"]["0.0003"]), axis=1) / np.diff(np.log(SCALES))
for name, found in (("rate 0.001", powers), ("rate 0.0003 (recorded)", slower)):
    steepest = [f"{SCALES[k]:g} to {SCALES[k + 1]:g} (power {row[k]:.1f})" for row, k in zip(found, found.argmax(1))]
    print(f"{name}: steepest from", *steepest, sep="  ")
assert (abs(powers[:, 0] - 2) < 0.2).all()
# %%
finding(
    "Somewhere on the way along a trained update KL grows much faster than the square of the share",
    figure="the power k by which KL grows with the share, on the steepest of six stretches",
    measured=powers.max(1).tolist(),
    null="a random move with the same norm in every tensor",
    control=(np.diff(np.log(across), axis=1) / np.diff(np.log(SCALES))).max(1).tolist(),
    holds=lambda powers: min(powers) > 6,
    scope="shares of 0.02 to 1, near the base the power is 2; lines of the ten old skills, our base model, "
    "updates by full tuning on flip with AdamW at 1e-3; three seeds",
)

# %%
finding(
    "At equal norm a trained update drifts further than a random one",
    figure="KL of one move over that of a random move of the same norm, log10",
    measured=np.log10(ratios).tolist(),
    null="a random move over another seed's random move",
    control=np.log10(across[:, -1] / np.roll(across[:, -1], 1)).tolist(),
    holds=lambda factors: min(factors) > 2,
    scope="lines of the ten old skills, our base model, updates by full tuning on flip with AdamW at 1e-3; three seeds",
)

# %% [markdown]
# **Check.** KL is never negative, 0 at the base, blind to a constant added to the logits, and not symmetric.

# %% fold="checks"
# KL is 0 at the base, blind to a constant, not symmetric, and never negative
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
# **The KL bounds what a sampled token can lose, and the sum of the KLs over its tokens what a sampled answer can lose. For the greedy answer
# there is no such bound.**
#
# $$\Delta_\text{forget} = S(\theta_0) - S(\theta), \qquad
# |\Delta_\text{forget}| \le \mathrm{TV} \le \min\!\big\{\sqrt{K / 2},\ \sqrt{1 - e^{-K}}\big\}, \qquad
# K = D \text{ for one token}, \quad K = n D \text{ for an answer of } n$$
#
# for a score $S = \mathbb E_{y \sim p}[f(y)]$ with $f$ in $[0, 1]$, higher being better. A positive difference is a loss. $D$ is in nats *per
# token*. For whole answers the chain rule gives
#
# $$D_\mathrm{KL}\big(p_\theta(y \mid x) \,\Vert\, p_{\theta_0}(y \mid x)\big) = \mathbb E_{y \sim p_\theta} \sum_t
# D_\mathrm{KL}\big(p_\theta(\cdot \mid x, y_{<t}) \,\Vert\, p_{\theta_0}(\cdot \mid x, y_{<t})\big) ,$$
#
# so $D$ is to be measured along answers that the *tuned* model samples.
#
# <details><summary>Why</summary>
#
# $|\mathbb E_p f - \mathbb E_{p_0} f| \le \mathrm{TV}(p, p_0)$ since $f$ moves at most the mass that moved. The two roots are
# Pinsker's inequality and Bretagnolle and Huber's; the second never exceeds 1. By Jensen the bound of the mean KL covers the
# mean over prompts.
# </details>

# %% [markdown]
# **By hand**: the bound at three divergences, and two distributions that are almost equal but have different likeliest tokens.

# %%
print({kl: round(forgetting_bound(kl), 3) for kl in (0.02, 0.5, 2.0)})
was, now, n = 0.99, 0.95, 30  # the chance that a token is right, before and after, and an answer's length
D = now * math.log(now / was) + (1 - now) * math.log((1 - now) / (1 - was))
print(
    f"{was} -> {now} right: D = {D:.3f} nats. A token loses {was - now:.2f} <= {forgetting_bound(D):.3f}; "
    f"an answer of {n} tokens loses {was**n - now**n:.2f}, which needs n D: <= {forgetting_bound(n * D):.3f}"
)
assert was - now < forgetting_bound(D) < was**n - now**n < forgetting_bound(n * D)
before, after = (torch.tensor(values, dtype=torch.float64).log() for values in ([0.51, 0.49], [0.49, 0.51]))
kl = float(token_kl(after, before))
print(f"(.51, .49) -> (.49, .51): KL {kl:.4f}, bound {forgetting_bound(kl):.3f}; greedy accuracy falls from 1 to 0")
assert before.argmax() != after.argmax() and kl < 1e-3

# %% [markdown]
# **Predict.** In the runs of 1.1 and 1.3, by how much did the mean probability of the right next token fall on the old skills, at most?

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
slack = [forgetting_bound(kl) / drop for kl, drop, _ in dots if drop > 1e-3]
print(f"the bound is {min(slack):.1f} to {max(slack):.0f} times the measured fall")
why = "The run of 1.1 lost most. A token's probability falls less than the share of wrong answers: one wrong token spoils a whole answer."
predicted("the largest fall of the right token's mean probability", guess, max(drop for _, drop, _ in dots), why)

# %% fold="picture"
# Draw every run below the bound
assert all(drop <= forgetting_bound(kl) + 1e-6 for kl, drop, _ in dots)
across = np.geomspace(1e-3, max(kl for kl, _, _ in dots) * 1.2, 60).tolist()
points(
    {"our models": dots},
    curve=("the bound", across, [forgetting_bound(kl) for kl in across]),
    log_x=True,
    title=f"No run loses more than its KL allows, and all lose less: the bound is {min(slack):.1f} to {max(slack):.0f} times the fall",
    x_label="KL to base, nats per token",
    y_label="fall of the right token's probability",
    alt="Dots below a rising curve. " + "; ".join(f"{name}: KL {kl:.2f}, fall {drop:.2f}" for kl, drop, name in dots),
)

# %% [markdown]
# No run could have lost more: the bound is a theorem, and the figure can only show how loose it is. A small KL guarantees that little was lost. A large KL
# says only that much *may* be lost.
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
# | 1.1 | base plus update; local while the quadratic model holds, and the norm alone doesn't say how long; a share of the update is a model too | $\eta < 2 g^\top g / g^\top H g$ |
# | 1.2 | the floor is the entropy of the data | what can be trained away is KL |
# | 1.3 | an anchored task makes $(H + \lambda F)^{-1} H$ of its move | decay pulls to 0, not to $\theta_0$ |
# | 1.4 | drift is KL, tuned first, on stated prompts | near the base half a variance of the logits' change, $\tfrac12 \Delta^\top F \Delta$ |
# | 1.5 | a sampled token loses at most $\sqrt{D/2}$, an answer of $n$ tokens $\sqrt{nD/2}$ | greedy answers have no such bound |
