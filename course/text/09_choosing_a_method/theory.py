# %% [markdown]
# # Part 9: choosing a method
#
# **The claim.** A method is chosen by what is demanded and by what was measured: write the demands down, drop what breaks one, and
# look at those that nothing beats. No method wins on all three tasks here, and on two of them the best one trains nothing.
#
# You need parts 1 to 8. You'll be able to compute when tuning pays for itself, tell a small number of parameters from a small
# change, read the spectrum of a pilot run, say when pairs teach what demonstrations can't, and draw a Pareto front of runs. About
# 80 minutes; the notebook itself runs in about one on two CPU cores.
#
# | symbol | what it is | shape or unit |
# | --- | --- | --- |
# | $F, k, c$ | cost of tuning; prompt tokens that it saves a request; price of a token | money, tokens, money per token |
# | $\Delta\theta$, $P$, $P_\text{train}$ | update; all parameters, trained ones | $\mathbb R^P$, numbers |
# | $\sigma_i$ | singular values of an update, descending | numbers |
# | $y^+ \succ y^-$ | answer that is preferred to another one | token sequences |
# | $Q, C, \Delta_\text{forget}$ | quality; costs; accuracy lost on old skills | $[0, 1]$, any unit each, $[-1, 1]$ |

# %% fold="imports"
# Imports, and the device that this notebook runs on
import math
from functools import partial

import numpy as np
import torch

from ftmath import (
    METHODS,
    Needs,
    accuracy_change,
    add_houlsby,
    add_lora,
    ask,
    base_model,
    batch,
    best_device,
    better_prompt,
    bradley_terry,
    choosing_table,
    count_parameters,
    decode,
    describe,
    fine_tune,
    fit_preferences,
    frozen_copy,
    generate,
    lora_layers,
    measured_options,
    merge,
    mixture,
    model_logprob,
    model_loss,
    outcomes,
    pareto_set,
    probes,
    prompts,
    quality,
    rate_groups,
    recommend,
    recorded,
    relative_times,
    train,
)
from ftmath.exercises import progress
from ftmath.findings import finding
from ftmath.plots import bars, lines, points
from ftmath.predict import predicted
from ftmath.skills import EOS, letters
from ftmath.widgets import choosing_explorer

device = best_device()
print(f"torch {torch.__version__} on {describe(device)}")
progress(9)

# %% [markdown]
# **The measurements** that this part decides by: eleven ways to train, two of them also with a quarter of old lines in each batch
# (replay), and four ways to ask, on three tasks, with three seeds each. A training run has 80 steps of 16 lines, drawn from 512; the
# two `long` rows have 320. Rows that weren't run are named.


# %%
table = choosing_table()


def measured_rows(method, task, examples=512):
    """Return the runs of a row of the table, one a seed."""
    return [run for run in table["runs"] if (run["method"], run["task"], run["examples"]) == (method, task, examples)]


def spread(runs, what):
    return f"{min(run[what] for run in runs):.2f} to {max(run[what] for run in runs):.2f}"


rows = list(dict.fromkeys(run["method"] for run in table["runs"]))
print(f"{len(table['runs'])} runs of {len(rows)} rows; not in the table: {', '.join(table['left_out'])}")
for row in rows:
    cells = []
    for task in ("flip", "neb", "pig"):
        runs = measured_rows(row, task) or measured_rows(row, task, 0)
        cells.append(f"{task} {spread(runs, 'quality')}, kept {spread(runs, 'kept')}" if runs else f"{task} not run")
        assert len(runs) in (0, 3)
    print(f"{row:<20}", "  |  ".join(cells))

# %% [markdown]
# `flip` is an old skill under a new name, `neb` 48 new words, `pig` a new rule; "kept" is the mean accuracy on the ten old skills with
# the change switched on. The rates were chosen beforehand by quality *plus* what is kept, on other probes: that rule is itself a choice.

# %% [markdown]
# ## 9.1 No-update methods
#
# **With $\Delta\theta = 0$ behaviour still changes, through what is read; you pay for it with every request, and for tuning once.**
#
# $$\Delta\theta = 0, \quad y \sim p_{\theta_0}(\,\cdot \mid \text{examples}, \text{notes}, x), \qquad N^\star = \frac{F}{k\,c} .$$
#
# $N^\star$ is the number of requests at which tuning has paid for itself.
#
# <details><summary>Why reading can be like training: linear attention takes a gradient step</summary>
#
# Fit $w \in \mathbb R^d$ to pairs $(x_i, y_i)$ by $\tfrac12\sum_i (w^\top x_i - y_i)^2$, from $w = 0$. The gradient there is
# $-\sum_i y_i x_i$, so one step of rate $\eta$ gives $w = \eta\sum_i y_i x_i$ and predicts $\eta\sum_i y_i\,x_i^\top x_q$ for a
# query. The right side is attention without a softmax: keys $x_i$, values $y_i$, query $x_q$. It holds for one step from zero and
# nothing more; it says what such layers *can* do, not what a trained model does (von Oswald et al. 2022, arXiv:2212.07677).
# </details>
#
# **Worked.** $F = 120$, $k = 1500$, $c = 0.5 \cdot 10^{-6}$; and the identity on numbers.

# %%
F, k, c = 120.0, 1_500, 0.5e-6
generator = torch.Generator().manual_seed(0)
x, y, x_q = (torch.randn(size, generator=generator, dtype=torch.float64) for size in ((6, 3), (6,), (3,)))
attention = 0.1 * (y * (x @ x_q)).sum()
w = torch.zeros(3, dtype=torch.float64, requires_grad=True)
(0.5 * (x @ w - y).square().sum()).backward()
step = (-0.1 * w.grad) @ x_q
assert abs(attention - step) < 1e-12
print(f"break-even after {F / (k * c):,.0f} requests; attention {attention:.6f}, gradient step {step:.6f}")

# %% [markdown]
# **Predict.** Noisy linear examples in 8 dimensions are read by such a layer (with its best rate) and by ridge regression, which solves
# the fit. With 32 examples, how many times larger is the layer's squared error?

# %%
guess = None  # a ratio


# %%
def regression_errors(n, seed, d=8, tasks=200, noise=0.3):
    """Return the mean squared error of a query's prediction: one step at its best rate, and ridge."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    w, x, x_q = draw(tasks, d) / d**0.5, draw(tasks, n, d), draw(tasks, d)
    y, truth = torch.einsum("tnd,td->tn", x, w) + noise * draw(tasks, n), (w * x_q).sum(1)
    read = torch.einsum("tn,tnd,td->t", y, x, x_q)
    eta = (read * truth).sum() / read.square().sum()
    gram = x.mT @ x + d * noise**2 * torch.eye(d, dtype=torch.float64)
    solved = (torch.linalg.solve(gram, torch.einsum("tnd,tn->td", x, y)) * x_q).sum(1)
    return [float((found - truth).square().mean()) for found in (eta * read, solved)]


COUNTS = [2, 4, 8, 16, 32, 64]
errors = np.array([[regression_errors(n, seed) for n in COUNTS] for seed in range(3)])  # (seeds, counts, ways)
ratios = errors[:, 4, 0] / errors[:, 4, 1]
print(f"ratio at 32 examples over three seeds: {ratios.min():.1f} to {ratios.max():.1f}")
predicted("one step's error over ridge's at 32 examples", guess, ratios.mean())

# %%
assert (errors[:, 2:, 0] > errors[:, 2:, 1]).all()
one, ridge = errors.mean(0).T.tolist()
lines(
    COUNTS,
    {"attention = one step": one, "ridge": ridge},
    log_y=True,
    title=f"Reading by one step learns from examples, and is {ratios.mean():.0f} times worse than solving at 32",
    x_label="examples in the context",
    y_label="squared error of a prediction",
    alt=f"Two falling curves over 2 to 64 examples: one step from {one[0]:.2f} to {one[-1]:.3f}, ridge from {ridge[0]:.2f} to "
    f"{ridge[-1]:.4f}. Means of three seeds.",
)

# %%
finding(
    "Reading examples by one gradient step falls behind solving the fit",
    figure="squared error of one step at its best rate over ridge regression's, 32 examples in 8 dimensions",
    measured=ratios,
    null="2 examples, from which nothing can be solved",
    control=errors[:, 0, 0] / errors[:, 0, 1],
    holds=lambda found: min(found) > 3,
    scope="200 linear tasks with noise 0.3, three seeds",
)

# %% [markdown]
# **On our model** it's the other way round from what's often said: three solved examples do nothing for it, as it never saw a line
# with several in pretraining, while the right *words* (`flip`) or the right *note* (`neb`) do everything.
#
# **Check.** Nothing was updated, so nothing can be forgotten; and the long prompt does cost.

# %%
cost_of = {row["method"] + (", " + row["way"] if row["way"] else ""): row for row in table["costs"]}
for way, task in (("few-shot", "flip"), ("better prompt", "flip"), ("retrieval", "neb"), ("retrieval", "pig")):
    run = ask(way, task, device=device)
    stored = measured_rows(way, task, 0)[0]
    assert abs(run.quality - stored["quality"]) < 0.02 and run.kl == 0
    print(f"{way} on {task}: {run.quality:.2f}, {cost_of[way]['prompt']} prompt tokens,"
          f" {cost_of[way]['latency']:.2f} times the base's time")  # fmt: skip
assert cost_of["few-shot"]["prompt"] > 3 * cost_of["as it is"]["prompt"]
assert cost_of["few-shot"]["latency"] > 1.1

# %% [markdown]
# **The usual mistake**: a base that gets the good prompt is compared with a tuned model that doesn't, or the reverse. The symptom is
# "tuning does nothing", from a table that hides what tuning did.

# %%
tuned, run = fine_tune("full", "flip", steps=80, rows=16, seed=1, examples=512, device=device)
tuned_on_flip = tuned  # 9.5 asks it again
unlike = run.quality - ask("better prompt", "flip", device=device).quality
alike = run.quality - ask("as it is", "flip", device=device).quality
assert abs(unlike) < 0.1 < 0.8 < alike
print(f"gain over a base with another prompt: {unlike:+.2f}; over the base with the same prompt: {alike:+.2f}")

# %% [markdown]
# Both are true, and they answer different questions: the second says what the update does, the first whether you need it.
#
# That run stands in the table as well; run again here, it comes out alike (another machine rounds differently).

# %%
stored = next(one for one in measured_rows("full", "flip") if one["seed"] == 1)
print(f"table: quality {stored['quality']:.2f}, kept {stored['kept']:.2f}; now {run.quality:.2f}, {run.kept:.2f}")
assert abs(run.quality - stored["quality"]) < 0.06 and abs(run.kept - stored["kept"]) < 0.1

# %% [markdown]
# **In practice** try the prompt, then retrieval, then tune: retrieval brings facts that change, tuning brings behaviour. The two go
# together, too: the first retrieval-augmented generator was tuned to use what it retrieved (Lewis et al. 2020, arXiv:2005.11401). A cache for the shared part of the prompt lowers $c$ and moves $N^\star$ out.
#
# → [exercise 9.1](exercises.ipynb#9.1-No-update-methods) ·
# graded: [p02, KL shift](../../source/p02_kl_shift/p02_kl_shift.ipynb)

# %% [markdown]
# ## 9.2 PEFT methods
#
# **What is small in parameter-efficient tuning is a count. The rate, more than the method, decides how long the update is; and it can change
# behaviour more than full tuning does.**
#
# $$P_\text{train} \ll P \quad\text{says nothing about}\quad \frac{\lVert \Delta W \rVert_F}{\lVert W \rVert_F}
# \quad\text{or}\quad D_\text{KL}(p_\theta \Vert p_{\theta_0}) .$$
#
# $W$ and $\Delta W$ are all linear weights and their effective updates ($sBA$ for LoRA). It is often written $|\Delta\theta| \ll |\theta|$,
# which reads like a norm.
#
# <details><summary>Why a few numbers can move far</summary>
#
# $P_\text{train}$ is the dimension of the set of reachable updates, a surface in $\mathbb R^P$. A line has dimension 1 and is as long
# as you like: rate, steps and scale decide how far along it a run goes. And the *shortest* update that reaches a loss within the surface
# is at least as long as the shortest one in the whole space, since a minimum over fewer candidates is never smaller. Which of the
# many updates that reach the loss a run finds is another question: it is the optimizer's, and is measured below.
# </details>
#
# **Worked**: six methods on GPT-2 medium's shape ($d = 1024$, 24 blocks, 354,823,168 parameters), and fifty tasks of it in bfloat16.

# %%
d, blocks, whole = 1024, 24, 354_823_168
counts = {
    "LoRA r=8 on q, v": blocks * 2 * 8 * 2 * d,
    "Houlsby adapters m=64": blocks * 2 * (2 * d * 64 + 64 + d),
    "prefix m=20": blocks * 2 * 20 * d,
    "soft prompt m=20": 20 * d,
    "biases": blocks * 11 * d,
    "two-class probe": 2 * (d + 1),
}
print(", ".join(f"{name} {count:,}" for name, count in counts.items()))
full_gib, lora_mib = 50 * whole * 2 / 2**30, 50 * counts["LoRA r=8 on q, v"] * 2 / 2**20
assert counts["Houlsby adapters m=64"] == 6_343_680 and lora_mib == 75
print(f"fifty tasks: {full_gib:.1f} GiB of full models, or one base and {lora_mib:.0f} MiB of LoRA")

# %% [markdown]
# **Predict.** Full tuning at $10^{-4}$ and LoRA (rank 4, all linear layers, 5 % of the parameters) at $10^{-3}$, rates that suit each of them, are
# stopped at the *same* loss on `flip`. How long is LoRA's relative update, as a multiple of full tuning's? And if both run at $10^{-3}$?

# %%
guess = None  # a ratio, at the rates that suit each

# %% fold="run"
# Read: how long the updates were that reached one loss, by method and rate
KINDS = ("q", "k", "v", "o", "gate", "up", "down")
before = {name: value.detach().clone() for name, value in base_model().named_parameters()}


def relative_update(model):
    """Return the norm of all linear layers' updates over that of their weights."""
    moved = stood = 0.0
    adapters = lora_layers(model)
    for name, weight in before.items():
        if name.split(".")[-2] in KINDS and weight.ndim == 2:
            layer = name.removesuffix(".weight")
            change = (adapters[layer].delta() if adapters else model.get_parameter(name)).detach().cpu()
            moved += float((change if adapters else change - weight).square().sum())
            stood += float(weight.square().sum())
    return (moved / stood) ** 0.5


controls = recorded("choice_controls")  # benchmarks/choice_controls.py writes them
RATES_OF = {"full": (1e-4, 3e-4, 1e-3), "LoRA": (3e-4, 1e-3, 3e-3)}


def length(kind, rate):
    """Return the recorded relative updates (seeds,) of runs that were stopped at one loss."""
    rows = [row for row in controls["lengths"] if (row["kind"], row["rate"]) == (kind, rate)]
    assert len(rows) == 3 and all(row["update"] for row in rows)
    return np.array([row["update"] for row in rows])


for kind, rates in RATES_OF.items():
    for rate in rates:
        found = length(kind, rate)
        print(f"{kind:>4} at {rate:g}: relative update {found.min():.3f} to {found.max():.3f}")
suited, same = length("LoRA", 1e-3) / length("full", 1e-4), length("LoRA", 1e-3) / length("full", 1e-3)
predicted("LoRA's relative update over full tuning's, each at its own rate", guess, suited.mean())
print(f"both at 1e-3: {same.mean():.2f}")

# %%
points(
    {
        kind: [(rate, float(length(kind, rate).mean()), f"{length(kind, rate).mean():.3f}") for rate in rates]
        for kind, rates in RATES_OF.items()
    },
    log_x=True,
    title=f"At one loss the update's length follows the rate: LoRA's is {suited.mean():.1f} times full tuning's at rates of their own, "
    f"{same.mean():.1f} times at one rate",
    x_label="learning rate",
    y_label="‖ΔW‖ / ‖W‖ of the linear layers",
    alt="; ".join(
        f"{kind} " + ", ".join(f"{length(kind, rate).mean():.3f} at {rate:g}" for rate in rates)
        for kind, rates in RATES_OF.items()
    )
    + ". Means of three seeds, stopped at a loss of 0.15 on flip.",
)

# %%
finding(
    "At the rates that suit each, LoRA's update is the longer one at one loss; it's the rate that makes it longer",
    figure="LoRA's relative update at 1e-3 over full tuning's at 1e-4",
    measured=suited,
    null="full tuning at LoRA's rate, 1e-3, as well",
    control=same,
    holds=lambda ratios: min(ratios) > 1.5,
    scope="flip to a loss of 0.15, AdamW, LoRA of rank 4 on all linear layers, three seeds",
)

# %% [markdown]
# So "few parameters" is no bound on how far a model moves, in either direction. Full tuning's own update grows more than threefold from
# $10^{-4}$ to $10^{-3}$. A longer update isn't a worse one by itself; what it does to behaviour is another measurement. One row again:


# %%
def until(loss_wanted, seed, rate, most=160):
    """Tune on `flip` in full until the mean loss of five steps is low enough; return the model."""
    model, rng = base_model().to(device), np.random.default_rng(seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=rate, weight_decay=0.0)
    losses = []
    while len(losses) < most and (len(losses) < 5 or np.mean(losses[-5:]) > loss_wanted):
        rows = mixture({"flip": 1.0}, 16, rng).to(device)
        loss = model_loss(model, rows.ids, rows.answer_mask)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return model


again, row = relative_update(until(0.15, 0, 1e-3)), length("full", 1e-3)[0]
print(f"full at 1e-3, seed 0: {again:.4f} now, {row:.4f} recorded")
assert abs(again / row - 1) < 0.15

# %% [markdown]
# **Check.** The counts of the table are the closed forms, on the model itself.

# %%
d, blocks, f = 128, 4, 352
forms = {
    "full": sum(value.numel() for value in before.values()),
    "LoRA q,v": blocks * 2 * 4 * (d + d),
    "LoRA": blocks * 4 * (4 * (d + d) + 3 * (d + f)),
    "Houlsby adapters": blocks * 2 * (2 * d * 8 + 8 + d),
    "prefix": 2 * blocks * 8 * d,
    "soft prompt": 8 * d,
    "BitFit": blocks * (5 * d + 2 * f),
}
for name, form in forms.items():
    model = METHODS[name].prepare(base_model(), torch.Generator().manual_seed(0))
    counted = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert counted == form == cost_of[name]["trained"], name
print({name: f"{form / forms['full']:.2%}" for name, form in forms.items()})

# %% [markdown]
# **The mistake**: "0.1 % of the parameters train, so the model has hardly changed." The symptom is a KL of several nats a token, and old
# skills that are gone. A little **replay**, old lines mixed into each batch, changes more about that than the count does.

# %%
changes = {}
for row in ("full", "LoRA", "LoRA q,v", "BitFit", "soft prompt", "full + replay", "LoRA + replay"):
    changes[row] = np.mean([run["kl"] for run in measured_rows(row, "flip")])
    print(
        f"{row:<14} {cost_of[row]['trained']:>8,} trained: KL {spread(measured_rows(row, 'flip'), 'kl')} nats a token"
    )
assert changes["full + replay"] < 0.2 * changes["full"]
points(
    {
        "alone": [(cost_of[row]["trained"], kl, row) for row, kl in changes.items() if "replay" not in row],
        "a quarter of replay": [(cost_of[row]["trained"], kl, row) for row, kl in changes.items() if "replay" in row],
    },
    log_x=True,
    title=f"1,024 trained numbers change the model by {changes['soft prompt']:.1f} nats a token, all of them by "
    f"{changes['full']:.1f}; replay decides more than the count",
    x_label="trained numbers",
    y_label="KL(tuned || base), nats/token",
    alt="On flip: " + "; ".join(f"{row} {kl:.2f} nats" for row, kl in changes.items()) + ". Means of three seeds.",
)

# %%
kl_of = {row: np.array([run["kl"] for run in measured_rows(row, "flip")]) for row in ("full", "soft prompt")}
finding(
    "A method that trains 1,024 numbers changes behaviour more than full tuning does",
    figure="KL to the base, soft prompt over full tuning",
    measured=kl_of["soft prompt"] / kl_of["full"],
    null="full tuning over full tuning with another seed",
    control=np.roll(kl_of["full"], 1) / kl_of["full"],
    holds=lambda ratios: min(ratios) > 3,
    scope="flip, 80 steps, each method at the best of four rates by quality plus what is kept, three seeds",
)

# %% [markdown]
# **In practice** the small *count* is what pays: thousands of adapters beside one base, swapped by request (Sheng et al. 2023,
# arXiv:2311.03285). That one can be switched off is their protection; while it's on, nothing protects.
#
# → [exercise 9.2](exercises.ipynb#9.2-PEFT-methods) · graded:
# [p06, adapter parameters](../../source/p06_adapter_parameters/p06_adapter_parameters.ipynb),
# [p07, prefix parameters](../../source/p07_prefix_parameters/p07_prefix_parameters.ipynb)

# %% [markdown]
# ## 9.3 Full tuning
#
# **A short pilot of full tuning shows how many directions its update has. That spectrum overstates what LoRA needs.**
#
# $$\operatorname{srank}(\Delta W) = \frac{\lVert \Delta W \rVert_F^2}{\lVert \Delta W \rVert_2^2} = \frac{\sum_i \sigma_i^2}{\sigma_1^2},
# \qquad r_{90} = \min\Big\{ r : \sum_{i \le r} \sigma_i^2 \ge 0.9 \sum_i \sigma_i^2 \Big\} .$$
#
# Both are counts of directions. The **stable rank** weighs each direction by its squared length, in units of the longest. "Full tuning's
# $|\Delta\theta|$ can be large" says neither how many nor which.
#
# <details><summary>Why 1 ≤ stable rank ≤ rank, and what it can't tell</summary>
#
# $\sigma_1^2 \le \sum_i \sigma_i^2 \le \operatorname{rank} \cdot \sigma_1^2$. It is the area under the squared spectrum in units of its
# largest value, so one large direction hides a long tail. $r_{90}$ sees the tail, and counts noise of the optimizer as if the task
# needed it: Adam moves *every* entry by about the rate at its first step, whether it matters or not. Neither looks at the loss, and only
# the loss knows which directions matter.
# </details>
#
# **Worked**: two spectra on which the measures disagree.


# %%
def measures(sigma):
    """Return stable rank, rank for 90 % of the energy, and e to the entropy of the energies."""
    share = sigma.double().square() / sigma.double().square().sum()
    entropic = float(torch.exp(-(share * share.clamp_min(1e-300).log()).sum()))
    return float(1 / share[0]), int((share.cumsum(0) < 0.9 - 1e-12).sum()) + 1, entropic


flat, steep = measures(torch.tensor([3.0, 3, 3, 3])), measures(torch.tensor([3.0, 1, 1, 1]))
print("(3,3,3,3):", [round(v, 2) for v in flat], " (3,1,1,1):", [round(v, 2) for v in steep])
assert abs(flat[0] - 4) < 1e-12 and flat[1] == 4 and abs(steep[0] - 4 / 3) < 1e-12 and steep[1] == 3
assert abs(steep[2] - 2.31) < 0.01

# %% [markdown]
# **Predict.** A pilot tunes everything on `neb`; then each linear layer's update is cut down to its best rank-4 part. Full tuning knows
# about nine words in ten or more, and a LoRA of rank 4 that was *trained* on them about as many. Which share of the words does the *cut*
# update of rank 4 know?

# %%
guess = None  # between 0 and 1

# %%
CUTS = (1, 2, 4, 8, 16, 32, 128)
cut_quality, found = [], {kind: [] for kind in KINDS}
for seed in (1, 2, 3):
    tuned, run = fine_tune("full", "neb", steps=80, rows=16, rate=3e-4, seed=seed, examples=512, device=device)
    parts = {}
    for name, weight in tuned.named_parameters():
        kind = name.split(".")[-2]
        if weight.ndim == 2 and kind in KINDS:
            parts[name] = torch.linalg.svd((weight.detach().cpu() - before[name]).double(), full_matrices=False)
            found[kind].append((*measures(parts[name][1]), float(parts[name][1][0]), float(parts[name][1][:4].square().sum() / parts[name][1].square().sum())))  # fmt: skip
    marks = []
    for r in CUTS:
        with torch.no_grad():
            for name, (U, sigma, V) in parts.items():
                tuned.get_parameter(name).copy_(before[name] + ((U[:, :r] * sigma[:r]) @ V[:r]).float())
        marks.append(quality(tuned, "neb"))
    cut_quality.append(marks)
    print(
        f"seed {seed}: full {run.quality:.2f}; cut to rank " + ", ".join(f"{r}: {q:.2f}" for r, q in zip(CUTS, marks))
    )
cut = np.array(cut_quality)
trained_lora = [one["quality"] for one in measured_rows("LoRA", "neb")]
print(f"LoRA trained at rank 4 on all of them: {min(trained_lora):.2f} to {max(trained_lora):.2f}")
predicted("words that the update cut to rank 4 knows", guess, cut[:, 2].mean())

# %%
kinds = {kind: np.mean(values, axis=0) for kind, values in found.items()}
for kind, (stable, r90, entropic, largest, at_4) in kinds.items():
    print(
        f"{kind:>4}: stable rank {stable:4.1f}, 90 % at rank {r90:4.1f}, largest value {largest:.2f}, energy at rank 4 {at_4:.0%}"
    )
assert min(trained_lora) > 0.7
lines(
    list(CUTS),
    {"full update, cut afterwards": cut.mean(0).tolist()},
    log_x=True,
    level=("LoRA trained at rank 4", float(np.mean(trained_lora))),
    title=f"Cut to rank 4, the update knows {cut[:, 2].mean():.0%} of the words; trained at rank 4, {np.mean(trained_lora):.0%}",
    x_label="rank to which every linear layer's update is cut",
    y_label="quality on neb",
    alt="Quality of the cut update at rank " + ", ".join(f"{r}: {v:.2f}" for r, v in zip(CUTS, cut.mean(0)))
    + f". Trained LoRA of rank 4: {np.mean(trained_lora):.2f}. Means of three seeds.",
)  # fmt: skip

# %%
finding(
    "The best rank-4 part of full tuning's update doesn't know the words that a rank-4 update can know",
    figure="quality on neb of full tuning's update, each layer cut to rank 4",
    measured=cut[:, 2],
    null="LoRA trained at rank 4 on the same layers",
    control=trained_lora,
    holds=lambda known: max(known) < 0.4,
    scope="neb, 512 examples, 80 steps; full tuning with AdamW at 3e-4, LoRA at the better of two rates; three seeds",
)

# %% [markdown]
# So a spectrum is a pessimistic guide. Training at rank 4 doesn't look for the best part of the full update: it finds *another* update that
# fits. A large $r_{90}$ therefore doesn't tell you that LoRA won't do. That a small one tells you it will isn't shown here: $r_{90}$ counts
# directions of weights, and the loss decides which of them matter. Train a small rank and look.
#
# **Check.** The bounds, on every update of the pilot and on random matrices.

# %%
for values in found.values():
    assert all(1 <= stable <= 128 and stable <= entropic + 1e-9 for stable, _, entropic, _, _ in values)
for seed in range(20):
    M = torch.randn(9, 4, generator=torch.Generator().manual_seed(seed)) @ torch.randn(4, 7)
    stable, _, _ = measures(torch.linalg.svdvals(M.double()))
    assert 1 <= stable <= int(torch.linalg.matrix_rank(M.double(), rtol=1e-6))

# %% [markdown]
# **The mistake**: judging by the largest singular value. The symptom is a rank spent where one direction is long, and not where there are many.

# %%
by_largest, by_tail = max(kinds, key=lambda kind: kinds[kind][3]), max(kinds, key=lambda kind: kinds[kind][1])
print(f"largest singular value: {by_largest}; most directions for 90 %: {by_tail}; "
      f"stable ranks {kinds[by_largest][0]:.1f} and {kinds[by_tail][0]:.1f}")  # fmt: skip
assert by_largest != by_tail and kinds[by_tail][0] > 1.5 * kinds[by_largest][0]

# %% [markdown]
# **In practice** full tuning is kept for what needs many directions and has the data for it. In continued pretraining and instruction tuning on
# code and on mathematics LoRA learned less than full tuning, and forgot less; full tuning's updates had ten to a hundred times the
# usual LoRA rank (Biderman et al. 2024, arXiv:2405.09673).
#
# → [exercise 9.3](exercises.ipynb#9.3-Full-tuning) ·
# graded: [p05, truncated SVD](../../source/p05_truncated_svd/p05_truncated_svd.ipynb)

# %% [markdown]
# ## 9.4 Preference tuning
#
# **Use pairs where comparing is easier than demonstrating, and where the wrong answer must become less likely: demonstrations alone can make
# it *more* likely.**
#
# $$y^+ \succ y^- \mid x, \qquad \text{one reward fits only if preferences have an order:}\quad
# \Pr[i \succ j] = \sigma(r_i - r_j) .$$
#
# $r_i$ is answer $i$'s reward, a number. A **cyclic triad** is $i \succ j \succ k \succ i$.
#
# <details><summary>Why a circle can't be fitted, and what the best fit then says</summary>
#
# $i \succ j$ means $r_i > r_j$, so a circle would need $r_i > r_j > r_k > r_i$. The likelihood of a circle with equal rates is concave in $r$
# and doesn't change if the three answers are turned round; its maximum is therefore at $r_i = r_j = r_k$, where every pair is a coin: loss
# $\ln 2$. A model of pairs could reach the entropy of the rate. Among $K$ answers the number of circles is
# $\binom K3 - \sum_i \binom{w_i}{2}$, with $w_i$ how many others $i$ beats: every triple that isn't a circle has one answer that beats
# the two others.
# </details>
#
# **Worked**: 60 to 40 in a circle.

# %%
circle = torch.tensor([[0.0, 60, 40], [40, 0, 60], [60, 40, 0]])
rewards = bradley_terry(circle)
fitted, attainable = math.log(2), -(0.6 * math.log(0.6) + 0.4 * math.log(0.4))
assert rewards.abs().max() < 1e-9 and abs(attainable - 0.6730) < 1e-4
print(f"fitted rewards {rewards.abs().tolist()}: loss {fitted:.4f}, where a model of pairs reaches {attainable:.4f}")

# %% [markdown]
# **Predict.** Our model is shown answers that end in `, thanks!`, and nothing else. What it must *not* say is the same with a question mark,
# `, thanks?`, at first $\log p(y^-) \approx -119$ nats. By how many nats does training on $y^+$ alone change $\log p(y^-)$?

# %%
guess = None  # nats; negative if it falls


# %% fold="run"
# Run: demonstrations of the wanted answer, and both log-probabilities along the way
def polite_pairs(seed, count=32):
    """Return (prompt, wanted, unwanted): the two answers differ in one character."""
    rng = np.random.default_rng(seed)
    words = [letters(rng) for _ in range(count)]
    return [(f"copy {word}", f"{word}, thanks!", f"{word}, thanks?") for word in words]


held_out = polite_pairs(99, 24)


@torch.no_grad()
def log_probabilities(model):
    """Return the mean log p(y+) and log p(y-) on pairs that no run sees, in nats."""
    sides = [batch([(pair[0], pair[side]) for pair in held_out]).to(device) for side in (1, 2)]
    return [float(model_logprob(model, side.ids, side.answer_mask).mean()) for side in sides]


def polite_share(model):
    """Return the share of 24 greedy answers with `thanks!` in them."""
    ids, mask = (part.to(device) for part in prompts([pair[0] for pair in held_out]))
    said = generate(model, ids, mask, max_new=18, stop=EOS).tolist()
    return float(np.mean(["thanks!" in decode(tokens) for tokens in said]))


def demonstrate(pairs, seed, steps=45, rate=3e-4):
    """Fine-tune on the wanted answers; return the model and both log-probabilities every five steps."""
    model, rng, seen = base_model().to(device), np.random.default_rng(seed), []

    def loss(step):
        if step % 5 == 0:
            seen.append(log_probabilities(model))
        drawn = batch([pairs[i][:2] for i in rng.integers(len(pairs), size=16)]).to(device)
        return model_loss(model, drawn.ids, drawn.answer_mask)

    train(model, loss, rate_groups(model, {}, rate), steps, label="demonstrations")
    return model, [*seen, log_probabilities(model)]


curves, shown, alone = [], [], []
for seed in range(3):
    model, seen = demonstrate(polite_pairs(seed), seed)
    curves.append(seen)
    shown.append(model)
    print(
        f"seed {seed}: demonstrations {seen[0][1]:.0f} -> {seen[-1][1]:.1f} nats for y-; {polite_share(model):.0%} polite"
    )
curves = np.array(curves)  # (seeds, points, 2)
rise = curves[:, -1, 1] - curves[:, 0, 1]
predicted("nats that demonstrations add to log p(y-)", guess, rise.mean())

# %%
assert (
    abs(curves[:, 0, 1].mean() + 119) < 2 and rise.min() > 60
)  # the wrong answer shares all but one character with the right one
steps = [5 * place for place in range(curves.shape[1])]
lines(
    steps,
    {"log p(y+)": curves[:, :, 0].mean(0).tolist(), "log p(y-)": curves[:, :, 1].mean(0).tolist()},
    title=f"Demonstrating y+ raises the wrong answer by {rise.mean():.0f} nats too",
    x_label="steps on y+ alone",
    y_label="log-probability, nats",
    alt=f"Both curves rise together from about {curves[:, 0].mean():.0f} nats; y+ ends at {curves[:, -1, 0].mean():.1f}, y- at "
    f"{curves[:, -1, 1].mean():.1f}. Means of three seeds.",
)

# %% [markdown]
# Most of what $y^+$ teaches is what $y^-$ shares with it: copy, comma, `thanks`. Only the last character tells them apart, and that is
# what a loss on pairs sees: the shared part cancels in $\log\pi(y^+) - \log\pi(y^-)$.
#
# **What do twelve steps on pairs add?** The control is twelve more *demonstration* steps, and both at four rates.


# %% fold="run"
# Read: twelve more steps on pairs or on demonstrations, at four rates
def went_on(way, rate):
    """Return the changes (seeds, 2) of log p(y+) and log p(y-) in twelve more steps of one kind, from the record."""
    rows = [row for row in controls["widened"] if (row["way"], row["rate"]) == (way, rate)]
    return np.array([np.subtract(row["after"], row["before"]) for row in rows])


more = {way: {rate: went_on(way, rate) for rate in (2e-5, 5e-5, 1e-4, 3e-4)} for way in ("pairs", "demonstrations")}
for way, rates in more.items():
    for rate, moved in rates.items():
        print(
            f"{way:>14} at {rate:g}: y+ {moved[:, 0].mean():+6.2f}, y- {moved[:, 1].mean():+6.2f}, "
            f"the gap {(moved[:, 0] - moved[:, 1]).min():+.2f} to {(moved[:, 0] - moved[:, 1]).max():+.2f}"
        )
harmless = [rate for rate, moved in more["pairs"].items() if moved[:, 0].min() > -0.3]
widest = {
    way: max((m[:, 0] - m[:, 1]).mean() for r, m in rates.items() if way != "pairs" or r in harmless)
    for way, rates in more.items()
}
assert harmless == [2e-5, 5e-5] and widest["demonstrations"] > widest["pairs"]
finding(
    "Pairs make the wrong answer less likely, where more demonstrations of the right one don't",
    figure="change of log p(y-) in twelve steps on pairs at 5e-5, nats",
    measured=more["pairs"][5e-5][:, 1],
    null="twelve more demonstration steps at the same rate",
    control=more["demonstrations"][5e-5][:, 1],
    holds=lambda moved: max(moved) < -0.2,
    scope="copy with thanks, wanted and unwanted differ in one character; AdamW, beta 0.1, after 45 demonstration steps; three seeds",
)

# %% [markdown]
# The *gap* is no argument for pairs: more demonstrations at a higher rate widen it further than pairs do at any rate that leaves $y^+$ in
# place. They do it by raising $y^+$; only pairs push $y^-$ down. So the question to ask is whether the wrong answer must become *rarer*.
# One row again, on this machine:

# %%
model = frozen_copy(shown[0]).requires_grad_(True)
before_pairs = log_probabilities(model)
fit_preferences(model, frozen_copy(shown[0]), polite_pairs(0), steps=12, rate=5e-5, seed=0)
now, then = np.subtract(log_probabilities(model), before_pairs), more["pairs"][5e-5][0]
print(f"seed 0, pairs at 5e-5: y+ {now[0]:+.2f}, y- {now[1]:+.2f} now; {then[0]:+.2f}, {then[1]:+.2f} recorded")
assert abs(now - then).max() < 0.25

# %% [markdown]
# **Check.** Circles counted by triples, and by the closed form of the derivation.


# %%
def circles(beats):
    """Return how many triples of a tournament (K, K) go round."""
    return sum(
        bool((beats[i, j] and beats[j, k] and beats[k, i]) or (beats[j, i] and beats[k, j] and beats[i, k]))
        for i, j, k in torch.combinations(torch.arange(len(beats)), 3).tolist()
    )


for seed in range(20):
    upper = torch.triu(torch.rand(7, 7, generator=torch.Generator().manual_seed(seed)) < 0.5, diagonal=1)
    beats = upper | torch.tril(~upper.T, diagonal=-1)
    assert circles(beats) == math.comb(7, 3) - sum(math.comb(int(w), 2) for w in beats.sum(1))
assert circles(circle > circle.T) == 1
print(f"coin-toss judges over 7 answers: on average {math.comb(7, 3) / 4:.2f} of {math.comb(7, 3)} triples go round")

# %% [markdown]
# **The mistake**: pairs for a model that could say neither answer. The symptom: the loss falls and the margin grows, while both answers stay about
# a hundred nats away and the model says what it always said.

# %%
for seed in range(3):
    model = base_model().to(device)
    history = fit_preferences(model, frozen_copy(model), polite_pairs(seed), steps=12, rate=5e-5, seed=seed)
    alone.append(
        (history[0].loss, history[-1].loss, history[-1].margin, *log_probabilities(model), polite_share(model))
    )
first, last, margins, chosen, rejected, share = np.array(alone).T
print(f"loss {first.mean():.3f} -> {last.mean():.3f}, margin {margins.min():.2f} to {margins.max():.2f} nats, "
      f"log p(y+) {chosen.mean():.0f}, polite answers {share.max():.0%}")  # fmt: skip
assert (last < first).all() and margins.min() > 0 and share.max() == 0
whole = controls["budget"]  # as many steps on pairs as the other way takes in all, 57
print(
    f"with 57 steps on pairs: margin {min(r['margin'] for r in whole):.1f} to {max(r['margin'] for r in whole):.1f} nats, polite {max(r['polite'] for r in whole):.0%}"
)
finding(
    "Pairs alone don't teach an answer that the model can't say: log p(y+) stays about a hundred nats away",
    figure="log p(y+) after 57 steps on pairs, nats",
    measured=[row["after"][0] for row in whole],
    null="45 demonstration steps, then 12 on pairs",
    control=[row["after"][0] for row in controls["widened"] if (row["way"], row["rate"]) == ("pairs", 5e-5)],
    holds=lambda wanted: max(wanted) < -60,
    scope="copy with thanks, AdamW at 5e-5 on pairs, beta 0.1, 32 pairs, three seeds",
)

# %% [markdown]
# **In practice** demonstrations come first and pairs second: InstructGPT adds a reward model and policy updates (Ouyang et al. 2022,
# arXiv:2203.02155), DPO goes from pairs to the policy at once (Rafailov et al. 2023, arXiv:2305.18290).
#
# → [exercise 9.4](exercises.ipynb#9.4-Preference-tuning) ·
# graded: [p08, DPO loss](../../source/p08_dpo_loss/p08_dpo_loss.ipynb)

# %% [markdown]
# ## 9.5 Deployment constraints
#
# **Quality per cost is no metric: it always finds whatever costs nearly nothing. State limits, drop what breaks one, and choose among what
# nothing else beats.**
#
# $$\max_m\ Q(m) \quad\text{subject to}\quad C_j(m) \le c_j \ \text{for every cost } j,\quad \Delta_\text{forget}(m) \le \phi .$$
#
# $m$ is a way to train *and* to serve; the $C_j$ are run time in full steps, bytes of a step, bytes to serve $T$ tasks, and latency as a
# multiple of the base's; $\phi$ is the risk that you accept. A way is **dominated** if another one is as good in everything and better in
# something.
#
# <details><summary>Why limits and fronts can be taken in either order</summary>
#
# Let $m'$ beat $m$: as good in every coordinate, better in one. If $m$ meets every limit, so does $m'$. Hence inside the limits $m$ is beaten
# exactly if it is beaten at all, and (front of what is allowed) = (front) $\cap$ (allowed). Two things follow: a tighter limit never brings
# a new method in, and a beaten method is never the answer, whatever the limits. A ratio $Q/C$ has neither: add a constant to $Q$
# (another zero of the same scale) and its order changes.
# </details>
#
# **Worked**: five methods by quality and cost; and what an unmerged update adds to a layer.

# %%
five = {
    "prompt": (0.62, 0.2),
    "retrieval": (0.68, 0.6),
    "LoRA": (0.74, 0.5),
    "adapter": (0.73, 0.9),
    "full": (0.76, 2.0),
}
front = pareto_set({name: (q, -cost) for name, (q, cost) in five.items()})
by_ratio, moved = (max(five, key=lambda name: (five[name][0] - zero) / five[name][1]) for zero in (0.0, 0.6))
extra = 16 * (4096 + 4096) / (4096 * 4096)
assert front == ["LoRA", "full", "prompt"] and by_ratio == "prompt" and moved == "LoRA" and abs(extra - 0.0078) < 1e-4
print(
    f"front {front}; best ratio: {by_ratio}, and with the zero of quality at 0.6: {moved}; r=16 unmerged: +{extra:.2%}"
)

# %% [markdown]
# **Predict.** LoRA of rank 4 beside all of our linear layers adds 5 % of multiplications. How long does a forward pass of one short line take,
# as a multiple of the merged model's?

# %%
guess = None  # a ratio


# %%
def adapted(change):
    model = base_model()
    change(model)
    return model.to(device).requires_grad_(False)


unmerged = adapted(lambda model: add_lora(model, KINDS, 4, 8.0))
merged = adapted(lambda model: (add_lora(model, KINDS, 4, 8.0), merge(model)))
with_adapters = adapted(lambda model: add_houlsby(model, 8))
BATCHES, ratios = (1, 16, 64), {"LoRA, unmerged": [], "Houlsby adapters": []}
with torch.no_grad():
    for size in BATCHES:
        ids = torch.full((size, 16), 65, device=device)
        ways = {"merged": merged, "LoRA, unmerged": unmerged, "Houlsby adapters": with_adapters}
        times = relative_times({name: partial(model, ids) for name, model in ways.items()}, device, rounds=3, calls=9)
        for name in ratios:
            ratios[name].append(times[name])
flops = 1 + forms["LoRA"] / (4 * (4 * 128 * 128 + 3 * 128 * 352) + 128 * 128)
print({name: [round(v, 2) for v in found] for name, found in ratios.items()}, f"by multiplications: {flops:.2f}")
predicted("unmerged over merged at batch 1", guess, ratios["LoRA, unmerged"][0])

# %% [markdown]
# What goes beyond the multiplications isn't arithmetic: every small product is a call, and calls cost alike. In a large batch or a large model the
# arithmetic takes over. Times on a busy machine are rough: medians of three rounds, and only the direction is asserted.

# %%
assert ratios["LoRA, unmerged"][0] > 1.05  # twice as many calls take longer
bars(
    [f"batch {size}" for size in BATCHES],
    ratios,
    title=f"Unmerged LoRA takes {ratios['LoRA, unmerged'][0]:.2f} times a merged model's time at batch 1; multiplications say {flops:.2f}",
    y_label="time, merged model = 1",
    alt="; ".join(f"{name}: " + ", ".join(f"{v:.2f}" for v in found) for name, found in ratios.items())
    + f" at batch {BATCHES}. Medians of three rounds.",
)  # fmt: skip

# %% [markdown]
# **Now decide.** `measured_options` gives every way to do a task with its *worst* seed, `recommend` what is left of them. A merged adapter
# is as fast as the base but a whole model for each task; an unmerged one is slower and small. (QLoRA's latency is that of our own
# unpacking in Python, which makes the weight anew at each call; libraries have kernels for it. Its other costs are its own.)
#
# A hundredth of quality is enough to be "not beaten", and 128 probes don't tell a hundredth. A paired interval says so: full tuning's items
# against the better prompt's, on the same words.

# %%
items = outcomes(base_model().to(device), better_prompt("flip", 128, 2024).to(device))
mean, low, high = accuracy_change(items, outcomes(tuned_on_flip, probes("flip", 128, 2024).to(device)))
print(f"full tuning, seed 1, less the better prompt: {mean:+.3f} ({low:+.3f} to {high:+.3f})")
assert low < 0 < high and high - low > 0.02  # a hundredth either way is not shown

# %% [markdown]
# So the first demand is asked twice, the second time with quality, forgetting and latency compared in tenths when it comes to who beats
# whom. (A demand itself is always asked of the number as measured: a rounded 0.78 would pass for 0.8.)

# %%
flip, neb, pig = (measured_options(task, 512) for task in ("flip", "neb", "pig"))
tuned_only = [option for option in flip if option.training > 0]
many = {"memory_bytes": 64 * 2**20, "tasks": 100}
demands = {
    "flip, quality 0.9": (flip, Needs(quality=0.9), 0.0),
    "flip, quality 0.9, in tenths": (flip, Needs(quality=0.9), 0.1),
    "flip, prompts don't count: quality 0.9, forgetting 0.1": (tuned_only, Needs(quality=0.9, forgotten=0.1), 0.0),
    "the same for 100 tasks in 64 MiB": (tuned_only, Needs(0.9, 0.1, **many), 0.0),
    "and no slower than the base": (tuned_only, Needs(0.9, 0.1, latency=1.0, **many), 0.0),
    "neb, quality 0.8, in tenths": (neb, Needs(quality=0.8), 0.1),
    "pig, quality 0.95, forgetting 0.02": (pig, Needs(quality=0.95, forgotten=0.02), 0.0),
}
advice = {name: recommend(options, needs, tell) for name, (options, needs, tell) in demands.items()}
for name, one in advice.items():
    print(f"{name}: {[option.name for option in one.front]} ({one.why})")

# %%
names = {name: [option.name for option in one.front] for name, one in advice.items()}
exact, tenths, second, third, fourth, words, sixth = names
assert all(o.quality >= needs.quality for name, (_, needs, _) in demands.items() for o in advice[name].front)
assert len(names[exact]) >= 2 * len(names[tenths]) and set(names[tenths]) <= {"better prompt", "QLoRA"}
assert names[words] == ["retrieval"] and "QLoRA" in advice[words].refused and "better prompt" in names[tenths]
assert names[second] and all("replay" in name for name in names[second])
assert names[third] and all("LoRA" in name and "merged" not in name for name in names[third])
assert not names[fourth] and "giving up one of these" in advice[fourth].why
assert not names[sixth] and max(o.quality for o in pig if o.training == 0) < 0.05
shown = [option for option in tuned_only if "merged" not in option.name]
best = pareto_set({option.name: (option.quality, -option.forgotten) for option in shown})
edge = sorted(((o.forgotten, o.quality) for o in shown if o.name in best))
points(
    {
        "nothing beats it": [(o.forgotten, o.quality, o.name) for o in shown if o.name in best],
        "beaten": [(o.forgotten, o.quality, "") for o in shown if o.name not in best],
    },
    curve=("front", [x for x, _ in edge], [y for _, y in edge]),
    title=f"On flip, {len(best)} of {len(shown)} trained ways are on the front of quality and forgetting: {', '.join(best)}",
    x_label="accuracy lost on old skills, worst of three seeds",
    y_label="quality, worst of three seeds",
    alt="Each trained way by what it forgets and how good it is. "
    + "; ".join(f"{o.name}: {o.forgotten:.2f} lost, quality {o.quality:.2f}" for o in shown) + ".",
)  # fmt: skip

# %% [markdown]
# In tenths, a prompt beats all training on `flip` but QLoRA, whose four-bit weights are smaller still; on `neb` the look-up is the only one
# left (QLoRA's worst seed misses the demand). **Our world has a part in that**: `flip` is an old skill under a new name, so that a prompt
# can name it, and the look-up is handed the very dictionary that the others must learn. `pig`, a new rule, has neither, and there
# nothing that trains nothing works. Where prompts don't count, what did it? Not the name of the method but a quarter of old lines in each batch (drawn from the very skills
# that are measured; what replay of other lines keeps isn't measured here). A hundred merged models don't fit, so a hundred tasks make
# the unmerged adapter the only one left; ask for the base's speed too, and nothing is left, and the answer says which demand to give up.

# %% [markdown]
# **With intervals in place of tenths.** A grid of tenths is crude: 0.94 and 0.96 fall on two sides of a line, 0.96 and 1.04 on one. A cleaner rule: one
# way *surely* beats another if it costs no more, is surely better in quality or in what is kept, and in the other of the two surely not worse by more
# than a margin, here 5 points. "Surely" is asked of the difference and its interval. "Not shown to be worse" would be too little: then the
# way with the widest interval would beat the most.


# %% fold="run"
# Compute: an interval for each trained way, and who surely beats whom
def interval_of(runs, what, items):
    """Return mean and half-width of a share over the seeds of a row, all asked the same items: both errors together."""
    values = np.array([run[what] for run in runs])
    mean, seeds = values.mean(), len(values)
    return mean, 1.96 * math.sqrt(mean * (1 - mean) / items + values.var(ddof=1) / seeds)


def surely_beats(one, other, margin=0.05):
    """Say whether one row costs no more, surely is better in quality or in what is kept, and surely worse in neither."""
    low = [m - m2 - math.hypot(half, half2) for (m, half), (m2, half2) in zip(one[:2], other[:2])]
    return one[2] <= other[2] and max(low) > 0 and min(low) > -margin


trained_rows = [
    option.name for option in tuned_only if "merged" not in option.name and measured_rows(option.name, "flip")
]
spans = {
    name: (
        interval_of(measured_rows(name, "flip"), "quality", 128),
        interval_of(measured_rows(name, "flip"), "kept", 640),
        cost_of[name.removesuffix(", long")]["step"],
    )
    for name in trained_rows
    if name.removesuffix(", long") in cost_of
}
points_of = {name: (q[0], k[0], -cost) for name, (q, k, cost) in spans.items()}
by_means = pareto_set(points_of)
surely = [name for name in spans if not any(surely_beats(other, spans[name]) for other in spans.values())]
print(f"of {len(spans)} trained ways for flip, by means {len(by_means)} are on the front: {', '.join(by_means)}")
print(f"surely beaten by nobody: {len(surely)}: {', '.join(sorted(surely))}")
for name in sorted(set(by_means) - set(surely)):
    print(
        f"  {name}: surely beaten by {', '.join(other for other in spans if surely_beats(spans[other], spans[name]))}"
    )
assert "full" in by_means and "full" not in surely and "full + replay" in surely and "prefix" not in by_means

# %% [markdown]
# By means, hardly anything is beaten: with three numbers a row, a hundredth more of one is enough to stay. With intervals and a margin a hundredth
# protects nobody. Full tuning without replay goes: with replay it costs the same, surely keeps more, and surely loses less than 5 points of quality.
# And some ways come back, such as the prefix: something is better on average, and not surely.
#
# **Data** is a demand as well: with 32 examples instead of 512, `flip` loses a little and `neb` half, since no method knows a word that
# it has never read.

# %%
for task in ("flip", "neb", "pig"):
    few = {row: spread(measured_rows(row, task, 32), "quality") for row in ("full", "LoRA", "full + replay")}
    print(task, "with 32 examples:", few)
words_read = 1 - (47 / 48) ** 32
assert max(run["quality"] for row in ("full", "LoRA") for run in measured_rows(row, "neb", 32)) < words_read + 0.1
assert min(run["quality"] for run in measured_rows("full", "flip", 32)) > 0.75
print(f"of 48 words, 32 draws read {words_read:.0%} on average")

# %% [markdown]
# Move the sliders: filled dots are recommended, hollow ones break a demand or are beaten. First `flip` without the prompts, then `pig` with
# everything: the short runs learn little of it, so longer ones at a higher rate were added, and those learn their 512 lines by heart
# without finding the rule for most new ones.

# %%
choosing_explorer(tuned_only, "Which way to tune for flip?")

# %%
choosing_explorer(pig, "Which way to do pig?")

# %%
long_runs = {
    row: spread(measured_rows(row, "pig"), "quality")
    for row in ("full", "full + replay", "full + replay, long", "LoRA + replay, long")
}
print(long_runs)
assert min(run["quality"] for run in measured_rows("full + replay, long", "pig")) > max(
    run["quality"] for run in measured_rows("full", "pig")
)

# %% [markdown]
# **Check.** The law of the derivation, on random limits: the front of what is allowed is the allowed part of the front; tighter limits bring
# nothing in.

# %%
rng = np.random.default_rng(0)
for options in (flip, neb, pig):
    everything = {option.name for option in recommend(options, Needs()).front}
    for _ in range(100):
        loose = Needs(
            rng.uniform(0, 1), rng.uniform(0, 1), memory_bytes=rng.uniform(2e7, 6e7), latency=rng.uniform(1, 3)
        )
        tight = Needs(
            loose.quality + 0.05, 0.8 * loose.forgotten, memory_bytes=0.9 * loose.memory_bytes, latency=loose.latency
        )
        chosen = {option.name for option in recommend(options, loose).front}
        assert chosen == {o.name for o in options if o.name in everything and not loose.refusals(o)}
        assert {option.name for option in recommend(options, tight).front} <= chosen

# %% [markdown]
# ### The choice in 2026, beyond these rows
#
# The first question is what you *have*: answers, pairs, single votes, or a program that checks. Part 7 derives most of these losses; what isn't run in
# this course is marked.
#
# | you have | try first | it needs | look out for |
# | --- | --- | --- | --- |
# | a program that checks an answer (tests, a solution, a format) | **verifiable rewards**: a policy gradient over a group's answers (GRPO, arXiv:2402.03300; Tulu 3, arXiv:2411.15124) | a base that is right now and then; samples at every step | a check that can be passed without solving the task; lost diversity (7.5) |
# | pairs, better and worse | **DPO** (arXiv:2305.18290) | a reference; answers near the policy's own | $\log\pi(y^+)$ sinking with the margin (7.4) |
# | pairs, and no room for a reference | **SimPO** (arXiv:2405.14734), **ORPO** (arXiv:2403.07691) | lengths; ORPO: one run on demonstrations and pairs at once | nothing holds the policy to its start |
# | single votes, thumbs up or down | **KTO** (arXiv:2402.01306) | a reference; both kinds of vote, with weights where one is rare | votes that depend on the prompt more than on the answer |
# | demonstrations, little memory | **LoRA** on all linear layers, about ten times full tuning's rate (10.3) | a rate of its own | data that asks for more than the adapter holds |
# | LoRA that falls short at a small rank | **DoRA** (arXiv:2402.09353; not run here): a trained length for each row of the merged weight, LoRA for its direction | a norm of every merged row at each step: slower | a LoRA that wasn't given its own rate: sweep that first |
# | facts that change | **retrieval** (9.1) | a look-up at each request | facts that must be combined |
#
# Rows combine: demonstrations first, then pairs or rewards, each with an adapter. And each asks for the same table as above: on the same items, with
# intervals, with what was kept.

# %% [markdown]
# **The mistake**: ranking by quality per trained number (or per byte). The symptom: the same smallest method comes out on every task, whatever it
# destroys or fails to do.

# %%
for task, options in (("flip", flip), ("pig", pig)):
    worth = {o.name: o.quality / cost_of[o.name]["trained"] for o in options if o.training > 0 and o.name in cost_of}
    winner = max(worth, key=worth.get)
    lost = next(o.forgotten for o in options if o.name == winner)
    print(f"{task}: {winner} wins by ratio, with {lost:.2f} of the old skills' accuracy lost")
    assert cost_of[winner]["trained"] < 2_000 and lost > 0.3

# %% [markdown]
# **In practice** adapters are routed by request, hot ones are merged, and safety is tested again for *each* of them: tuning on harmless data can
# already weaken a model's refusals (Qi et al. 2023, arXiv:2310.03693).
#
# → [exercise 9.5](exercises.ipynb#9.5-Deployment-constraints) ·
# graded: [p09, the scorecard](../../source/p09_scorecard/p09_scorecard.ipynb)

# %% [markdown]
# ## What to keep
#
# | | statement | number to remember |
# | --- | --- | --- |
# | 9.1 | reading costs every request, tuning once | $N^\star = F / (k c)$ |
# | 9.2 | few parameters isn't a small change, nor a large one | at one loss the update's length follows the rate |
# | 9.3 | a spectrum overstates what LoRA needs | cut at rank 4 fails, trained at rank 4 works |
# | 9.4 | demonstrations also raise what resembles them | pairs cancel the shared part, and push $y^-$ down |
# | 9.5 | limits and the front, never a ratio | front of the allowed = allowed part of the front |
