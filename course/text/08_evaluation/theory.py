# %% [markdown]
# # Part 8: evaluation and diagnostics
#
# **The claim.** A fine-tuning run is judged by three questions, and each has an error bar: did it learn the task, what did it
# break, and was it the adapter that did both? A number without its interval answers none of them.
#
# You need parts 1 to 7, means and variances. You'll be able to stop a run, compare two models on the same items, say how many items
# that takes, estimate pass@k, check a judge, carry a validation result over to other users, and check an adapter in five minutes.
# About 105 minutes; the notebook itself runs in about one on two CPU cores.
#
# | symbol | what it is | shape or unit |
# | --- | --- | --- |
# | $L_\text{train}, L_\text{val}$ | mean loss on learned and on held-out lines | nats per token |
# | $S$ | a score, higher is better | between 0 and 1 |
# | $l, g, n$ | items lost, gained, and all items of a comparison | counts |
# | $w$ | importance weight $p_\text{dep} / p_\text{tr}$ | a number per row |
# | $p_i, y_i$ | confidence in an answer; 1 if it's right, else 0 | between 0 and 1 |
# | $c, k$ | right ones among $n$ samples; samples that a user sees | counts |
# | $G, m, \rho$ | groups of items, items in each, correlation within | counts; between 0 and 1 |
# | $\delta, d$ | gain in accuracy; share of items that change | between 0 and 1 |

# %% fold="imports"
# Imports, the device, and the recorded runs
import math
from functools import partial

import numpy as np
import torch

from ftmath import (
    LoRALinear,
    SKILLS,
    accuracy,
    accuracy_change,
    add_lora,
    base_model,
    batch,
    best_device,
    brier_score,
    calibration_error,
    clustered_error,
    clustered_interval,
    decode,
    describe,
    design_effect,
    disabled,
    distinct,
    effective_sample_size,
    equal_length_wins,
    error_of_mean,
    fine_tune,
    fit_epochs,
    generate,
    items_needed,
    kappa,
    lora_layers,
    mcnemar,
    merge_difference,
    mixture,
    model_logprob,
    model_loss,
    mood_prompts,
    outcomes,
    paired_error,
    paired_interval,
    pass_at_k,
    power_of,
    probes,
    prompts,
    rate_groups,
    recorded,
    reliability,
    scorecard,
    spoilt,
    train,
    variance_parts,
    verdict,
)
from ftmath.exercises import progress
from ftmath.findings import finding
from ftmath.plots import COLOURS, MARKS, Picture, bars, canvas, grid, lines
from ftmath.predict import predicted
from ftmath.widgets import scorecard_explorer, unpacked

device = best_device()
record = recorded("evaluation_runs")  # longer runs, three seeds each: benchmarks/evaluation_runs.py writes them
print(f"torch {torch.__version__} on {describe(device)}")
progress(8)

# %% [markdown]
# ## 8.1 Train and validation loss
#
# **Keep the epoch that is best on held-out data *by what the model is for*. If that is the loss, it's where validation is lowest.
# A gap between the two losses is no reason to stop; a rising validation loss is a reason to look at the score.**
#
# $$\text{gap}(t) = L_\text{val}(t) - L_\text{train}(t), \qquad t^\star = \arg\min_t L_\text{val}(t),$$
#
# $t$ counts epochs. Waiting has a price: with **patience** $m$ the run ends at the $m$-th epoch in a row without a new best,
# and the weights of $t^\star$ are kept, not those of the last epoch.
# That validation "no longer falls" is the usual warning; a plateau isn't a turn yet, and one bad epoch isn't either. Loss and score
# needn't turn together: in InstructGPT's supervised tuning validation loss rose after one epoch, while the reward model's score and
# people's preference went on improving through sixteen (Ouyang et al. 2022, arXiv:2203.02155, section 3.5).
#
# <details><summary>Why the training loss is too low: least squares, exactly</summary>
#
# Fit $p$ parameters to $y = X\beta + \varepsilon$ with $n$ points and noise variance $\sigma^2$. The fitted values are $Hy$ with
# the projection $H = X(X^\top X)^{-1}X^\top$ of trace $p$. In sample, $\mathbb E\lVert y - Hy\rVert^2 / n = \sigma^2 (n - p) / n$.
# For new noise $\varepsilon'$ at the same $X$, $\mathbb E\lVert X\beta + \varepsilon' - Hy\rVert^2 / n = \sigma^2 (n + p) / n$. The
# difference is $2\sigma^2 p / n$: each parameter makes the training loss look better than it is, even if the model is right.
# </details>

# %% [markdown]
# **Worked.** $p = 10$, $n = 50$, $\sigma = 1$: the optimism is 0.40. And a run of five epochs, read with patience 2.

# %%
rng = np.random.default_rng(0)
X = rng.normal(size=(50, 10))
H = X @ np.linalg.solve(X.T @ X, X.T)
noise, fresh = rng.normal(size=(2, 4000, 50))
optimism = ((fresh - noise @ H) ** 2).mean() - ((noise - noise @ H) ** 2).mean()
assert abs(optimism - 2 * 10 / 50) < 0.02
learned, held_out = [1.90, 1.20, 0.70, 0.35, 0.15], [1.95, 1.55, 1.48, 1.60, 1.90]
best = int(np.argmin(held_out))
gaps = [round(v - t, 2) for t, v in zip(learned, held_out)]
assert best == 2 and gaps[best] == 0.78 and gaps[-1] == 1.75
print(f"optimism {optimism:.3f} simulated, 0.4 by the formula")
print(
    f"keep epoch {best} (counted from 0), gap {gaps[best]}; the run ends at epoch {best + 2}, where the gap is {gaps[-1]}"
)

# %% [markdown]
# **Predict.** The base model learns `flip` from 96 examples, all parameters, for 20 epochs. In one half of the runs a quarter of the
# answers' letters is replaced at random; validation is clean in all. After which epoch is validation lowest with the wrong
# letters, on average over three seeds?

# %%
guess = None  # an epoch, 1 to 20

# %%
turn = record["turn"]
curves = {
    (share, side): np.array([run[side] for run in turn["runs"] if run["share"] == share])
    for share in turn["shares"]
    for side in ("learned", "held_out")
}
NOISY, CLEAN = turn["shares"]
noisy, clean = curves[NOISY, "held_out"], curves[CLEAN, "held_out"]
for share in turn["shares"]:
    for seed, (low, val) in enumerate(zip(curves[share, "learned"], curves[share, "held_out"])):
        at = int(val.argmin())
        print(
            f"wrong letters {share:.0%}, seed {seed}: train ends at {low[-1]:.4f}, validation best {val[at]:.4f} after epoch "
            f"{at}, last {val[-1]:.4f}"
        )
best_epochs = noisy.argmin(1)
predicted("the best epoch with wrong letters", guess, best_epochs.mean())

# %%
rise = noisy[:, -5:].mean(1) / noisy.min(1)
assert (curves[NOISY, "learned"][:, -1] < 0.2 * curves[NOISY, "learned"][:, 5]).all()  # training goes on falling
assert (best_epochs < 15).all()
epochs = list(range(5, turn["epochs"] + 1))
lines(
    epochs,
    {
        "validation, wrong letters": noisy.mean(0)[5:],
        "training, wrong letters": curves[NOISY, "learned"].mean(0)[5:],
        "validation, right letters": clean.mean(0)[5:],
        "training, right letters": curves[CLEAN, "learned"].mean(0)[5:],
    },
    title=f"With wrong letters validation turns after epoch {best_epochs.min()} to {best_epochs.max()}; with right ones it doesn't in {turn['epochs']}",
    x_label="epoch",
    y_label="loss, nats per token",
    alt=f"Four curves from epoch 5 to 20, means of three seeds. Validation with wrong letters falls to about {noisy.min(1).mean():.2f} and "
    f"ends at {noisy[:, -1].mean():.2f}; with right letters it falls to {clean[:, -1].mean():.4f}. Both training losses end near 0.",
)

# %%
finding(
    "With wrong letters in training, validation loss turns within 20 epochs",
    figure="validation loss after the last epoch over that after the best one",
    measured=noisy[:, -1] / noisy.min(1),
    null="the same runs without wrong letters",
    control=clean[:, -1] / clean.min(1),
    holds=lambda ratios: min(ratios) > 1.1,
    scope="flip, 96 examples, full tuning with AdamW at 5e-4, 20 epochs, three seeds",
)

# %% [markdown]
# The last five epochs of validation lie above its best by the factors printed below, different for each seed: that it turns is
# safe to say here, by how much isn't. Without wrong letters the gap is huge *as a ratio*, and validation still falls.
#
# **And the score?** Accuracy on the same held-out prompts, epoch by epoch. Here it turns as well. But the epoch of the lowest loss isn't
# always that of the highest accuracy: 128 items can't tell neighbours apart, and with one seed the two choices differ by a tenth.

# %%
right = {
    share: np.array([run["accuracy"] for run in turn["runs"] if run["share"] == share]) for share in turn["shares"]
}
for seed, (losses, hits) in enumerate(zip(noisy, right[NOISY])):
    by_loss, by_score = int(losses.argmin()), int(hits.argmax())
    print(
        f"wrong letters, seed {seed}: epoch {by_loss} by loss, accuracy {hits[by_loss]:.2f}; epoch {by_score} by accuracy, "
        f"{hits[by_score]:.2f}; last epoch {hits[-1]:.2f}"
    )
costs = [hits.max() - hits[losses.argmin()] for losses, hits in zip(noisy, right[NOISY])]
assert max(costs) > 0.1 and sorted(costs)[1] == 0
late_less_early = {share: hits[:, -5:].mean(1) - hits[:, 6:11].mean(1) for share, hits in right.items()}
finding(
    "With wrong letters the score falls too, once validation loss has turned",
    figure="accuracy, mean of epochs 16 to 20 less mean of epochs 6 to 10",
    measured=late_less_early[NOISY],
    null="the same runs without wrong letters",
    control=late_less_early[CLEAN],
    holds=lambda change: max(change) < -0.05,
    scope="flip, 96 examples, 128 held-out prompts, full tuning with AdamW at 5e-4, three seeds",
)

# %%
ratio, still = (clean / curves[CLEAN, "learned"])[:, 10], clean[:, 10] / clean[:, -1]
assert (ratio > 5).all() and (still > 3).all()
print(f"wrong letters: last five epochs over best, {rise.min():.2f} to {rise.max():.2f}")
print(
    f"right letters, epoch 10: validation is {ratio.min():.0f} to {ratio.max():.0f} times training, and falls to "
    f"1/{still.min():.1f} to 1/{still.max():.1f} of that by the last epoch"
)

# %% [markdown]
# **Run again.** One of the six, its first epochs, on this machine; the record comes from another run of the same script.

# %%
rng = np.random.default_rng(0)
pairs = distinct(turn["task"], turn["learned"] + turn["held_out"], rng)
learned_rows = batch(spoilt(pairs[: turn["learned"]], NOISY, rng)).to(device)
held_rows = batch(pairs[turn["learned"] :]).to(device)
half_trained = base_model().to(device)
low, val = fit_epochs(half_trained, learned_rows, held_rows, 8, rate=turn["rate"], seed=0)
assert all(abs(a / b - 1) < 0.2 for a, b in zip(val[:4], noisy[0])) and val[-1] < 0.6
print("now     ", [f"{value:.3f}" for value in val])
print("recorded", [f"{value:.3f}" for value in noisy[0][:9]])

# %% [markdown]
# **Check.** No prompt stands on both sides, and looking changes nothing: two looks give the same bits and leave no gradient.

# %%
asked = [prompt for prompt, _ in pairs]
assert not set(asked[: turn["learned"]]) & set(asked[turn["learned"] :])
with torch.no_grad():
    looks = [model_loss(half_trained, held_rows.ids, held_rows.answer_mask) for _ in range(2)]
assert torch.equal(*looks) and not looks[0].requires_grad
assert all(parameter.grad is None for parameter in half_trained.parameters())

# %% [markdown]
# **The mistake**: duplicates across the split. A validation set of which half is copied from training has the mean of the two
# losses. The symptom is a validation curve that follows training down: it calls for more epochs, where the clean one says stop.

# %%
leaky = (noisy + curves[NOISY, "learned"]) / 2
said, true = leaky.argmin(1), noisy.argmin(1)
print(f"best epoch by the leaky set: {said.tolist()}, by the clean one: {true.tolist()}")
assert (said > true).all() and (leaky[:, -1] < 0.75 * noisy[:, -1]).all()

# %% [markdown]
# **In practice** a run keeps a checkpoint of each epoch and picks by the score that counts, on data that isn't used for the final number.
# That large models fit random labels to the last one, so that training loss says nothing about them, was shown by Zhang et al. 2016
# (arXiv:1611.03530).
#
# → [exercise 8.1](exercises.ipynb#8.1-Train-and-validation-loss) · graded:
# [p09, the scorecard](../../source/p09_scorecard/p09_scorecard.ipynb)

# %% [markdown]
# ## 8.2 Base-task retention
#
# **What a run keeps is a vector, one entry a skill; it's compared on the same items before and after, and the worst entry decides.**
#
# $$\Delta_s = \frac{l_s - g_s}{n}, \qquad \mathrm{SE}(\Delta_s) = \frac1n\sqrt{(l_s + g_s) - \frac{(l_s - g_s)^2}{n}}, \qquad
# S^\text{corrected} = \frac{S - S_\text{chance}}{1 - S_\text{chance}} .$$
#
# For skill $s$, $l_s$ of $n$ items were right before and are wrong after, $g_s$ the other way round. $S_\text{chance}$ is the score of a
# guess: 1/2 for `mood`, which has two answers.
#
# The **exact paired test** of McNemar (1947) asks whether $l$ and $g$ are two sides of a fair coin; items that agree don't count. With several
# skills at once, the **correction for many comparisons** of Bonferroni gives each of $k$ intervals the level $1 - 0.05/k$, so that all hold
# together with 95 %.
#
# <details><summary>Why: the variance of a difference that is -1, 0 or 1</summary>
#
# Let $d_i$ be after minus before. $\sum d_i = g - l$ and $\sum d_i^2 = g + l$, so their variance is $(l + g)/n - (l - g)^2/n^2$; the mean's
# is that over $n$. Items that agree add nothing to the numerator: that's what pairing buys. Two separate samples of the same
# accuracy would have $2S(1 - S)/n$, also where hardly an item changed.
#
# A **bootstrap** draws the items again and again with replacement, and reads the interval off the means. With $l = g = 0$ the formula gives 0,
# and so does any bootstrap: *nothing was seen* isn't *nothing happens*. Adding half an item to each of the four
# kinds keeps a width (Agresti and Min 2005); `accuracy_change` does that.
# </details>

# %% [markdown]
# **Worked.** Three skills; then 500 items of which 30 were lost and 18 gained; then a four-choice test at 0.40.

# %%
before, after = np.array([0.62, 0.55, 0.71]), np.array([0.61, 0.40, 0.73])
drops = before - after
error = paired_error(lost=30, gained=18, count=500)
assert abs(drops.mean() - 0.14 / 3) < 1e-9 and abs(drops.max() - 0.15) < 1e-9 and abs(error - 0.0138) < 5e-5
print(f"mean drop {drops.mean():.3f}, worst {drops.max():.2f}")
print(
    f"lost 30, gained 18 of 500: -2.4 points, SE {error:.2%}, z {-0.024 / error:.2f}, exact McNemar p {mcnemar(30, 18):.3f}"
)
print(f"0.40 of a four-choice test is {(0.40 - 0.25) / 0.75:.2f} above chance")

# %% [markdown]
# **Read one interval before many.** What a run lost on one skill, against two lines: 0 and the loss that is put up with, here 10 points. If the
# interval ends before the limit, the loss is surely small enough. If it begins beyond the limit, it surely isn't. If the limit lies inside, these
# items don't tell: that is *inconclusive*, and no fault of the run.

# %% fold="picture"
# Picture: three intervals of 200 items each, before, across and beyond a limit of 10 points
LIMIT, CASES = 0.10, {"5 lost, 2 gained": (5, 2), "26 lost, 6 gained": (26, 6), "60 lost, 4 gained": (60, 4)}
losses_of, judged_as = {}, {}
for name, (l, g) in CASES.items():
    was = torch.cat([torch.ones(l), torch.zeros(g), torch.ones(200 - l - g)])
    now = torch.cat([torch.zeros(l), torch.ones(g), torch.ones(200 - l - g)])
    losses_of[name] = accuracy_change(now, was)
    judged_as[name] = verdict((1.0, 0.9, 1.0), losses_of[name], LIMIT)
figure, axes = canvas("Before, across and beyond the limit: small enough, not told, too large", "accuracy lost", "")
for row, (name, (mean, low, high)) in enumerate(losses_of.items()):
    axes.errorbar(mean, row, xerr=[[mean - low], [high - mean]], fmt=MARKS[row], color=COLOURS[row], capsize=5)
axes.axvline(0, color="#555555", linewidth=1)
axes.axvline(LIMIT, color="#555555", linewidth=1, linestyle=":")
axes.annotate("limit", (LIMIT, 2.4), fontsize=8, ha="left")
axes.set_yticks(range(3), [f"{name}: {judged_as[name]}" for name in CASES])
axes.set_ylim(-0.5, 2.6)
assert list(judged_as.values()) == ["accept", "inconclusive", "reject"]
words = "; ".join(
    f"{name} of 200: {m:.3f}, from {a:.3f} to {b:.3f}, {judged_as[name]}" for name, (m, a, b) in losses_of.items()
)
rows_shown = tuple((name, f"{m:.3f}", f"{a:.3f}", f"{b:.3f}", judged_as[name]) for name, (m, a, b) in losses_of.items())
Picture(
    figure,
    "Three intervals against a limit",
    f"Three intervals of the accuracy lost, and a limit at 0.1. {words}.",
    ("run", "lost", "low", "high", "verdict"),
    rows_shown,
)

# %% [markdown]
# **Predict.** Seven ways of tuning on `flip`, 60 steps, three seeds, 200 items a skill. A run is *accepted* if the task's interval lies above
# 0 and all ten skills' intervals of the loss end at or below 10 points; it's *rejected* if the task's ends at or below 0, or some skill's
# lies above 10 points; else it's *inconclusive*. How many of the seven ways are accepted with all three seeds?

# %%
guess = None  # 0 to 7

# %%
kept = record["kept"]
base_items = unpacked(kept["base"], kept["count"])
runs = {name: [unpacked(seed, kept["count"]) for seed in seeds] for name, seeds in kept["runs"].items()}
cards = {name: [scorecard(base_items, run, "flip", most=0.1) for run in seeds] for name, seeds in runs.items()}
for name, found in cards.items():
    gain, drop = [card.gain[0] for card in found], [card.drop[0] for card in found]
    print(
        f"{name:20} gained {min(gain):.2f} to {max(gain):.2f}, worst skill lost {min(drop):.2f} to {max(drop):.2f} "
        f"({', '.join(sorted({card.worst for card in found}))}): {', '.join(card.verdict for card in found)}"
    )


def always(verdict, most):
    """Return the ways that get a verdict with every seed."""
    return [
        name
        for name, seeds in runs.items()
        if all(scorecard(base_items, run, "flip", most).verdict == verdict for run in seeds)
    ]


accepted, rejected = always("accept", 0.1), always("reject", 0.1)
predicted("ways accepted with all three seeds", guess, len(accepted))

# %%
matrix = {
    name: [np.mean([float(run[skill].mean()) for run in seeds]) for skill in SKILLS]
    for name, seeds in {"base": [base_items], **runs}.items()
}
assert accepted == ["full, KL anchor"] and rejected == ["full, careless rate", "full", "LoRA"]
grid(
    list(matrix.values()),
    row_names=list(matrix),
    column_names=list(SKILLS),
    title=f"Surely within 10 points on every skill, with every seed: {len(accepted)} of {len(runs)} ways, {', '.join(accepted)}",
    alt="Accuracy by way of tuning and skill, means of three seeds. "
    + "; ".join(f"{name}: worst {min(row):.2f}, mean {np.mean(row):.2f}" for name, row in matrix.items())
    + ".",
)

# %% [markdown]
# Replay of half of each batch *looks* nearly as good; what it isn't is sure. The probe keeps every skill and learns nothing, and is inconclusive
# too: no gain in 200 items doesn't prove that there is none. (The graded problem's bootstrap takes no change for certain, and rejects it.)
# At 5 points 200 items are too few for any way; the cell says how many more it would take.

# %%
mean, low, high = cards["full, KL anchor"][0].drop
needed = kept["count"] * ((high - mean) / (0.05 - mean)) ** 2
assert always("accept", 0.05) == [] and needed > kept["count"]
print(
    f"accepted at 5 points with every seed: {always('accept', 0.05)}; KL anchor, seed 0, lost {mean:.3f} ({low:.3f} to {high:.3f}): "
    f"to end at 0.05 that takes about {needed:.0f} items a skill"
)

# %% [markdown]
# Choose a run, then fewer items: what was a verdict becomes *inconclusive*. Each interval holds at $1 - 0.05/10$, so that all ten hold at once.

# %%
scorecard_explorer(base_items, {name: seeds[0] for name, seeds in runs.items()}, "flip")

# %% [markdown]
# **Means hide, and chance flatters.** The mean over skills of one run, its worst skill, and `mood` with and without its chance. Below chance
# means that the answer isn't even one of the two words.

# %%
lora = runs["LoRA"][0]
scores = {skill: float(lora[skill].mean()) for skill in SKILLS}
worst = min(scores, key=scores.get)
careless = [float(run["mood"].mean()) for run in runs["full, careless rate"]]
print(f"LoRA, seed 0: mean {np.mean(list(scores.values())):.2f}, {worst} {scores[worst]:.2f}")
print(
    f"mood: LoRA {scores['mood']:.2f}, which is {(scores['mood'] - 0.5) / 0.5:.2f} above chance; careless rate "
    f"{min(careless):.2f} to {max(careless):.2f}"
)
assert np.mean(list(scores.values())) - scores[worst] > 0.2 and max(careless) < 0.25

# %% [markdown]
# ### Sure, and right?
#
# Accuracy counts answers. Whoever uses a model also goes by how sure it is. A model has **calibration** if of the answers that it gives with
# confidence 0.8 eight in ten are right. Confidence here: the probability $p_i$ that the model gives to the greedy answer it writes, end
# included; $y_i$ is 1 if that answer is right, else 0.
#
# $$\text{Brier} = \frac1n \sum_i (p_i - y_i)^2, \qquad \text{ECE} = \sum_b \frac{n_b}{n} \lvert \bar p_b - \bar y_b \rvert .$$
#
# The **expected calibration error** (ECE) puts the answers into bins $b$ by confidence and compares each bin's means (Guo et al. 2017,
# arXiv:1706.04599). It isn't 0 for an honest model: in a bin of five answers the share of right ones is chance. So it needs its own control:
# the same confidences, and "right" drawn with just those chances.
#
# **Predict.** LoRA was tuned on `flip` and has lost half of the old skills (as above). It still answers their prompts. How much larger than
# its accuracy is its mean confidence there?

# %%
guess = None  # a difference, 0 to 1

# %%
sure = record["sure"]
WAYS_SURE = {"base": [sure["base"]], **sure["runs"]}
tables = {
    name: [
        (torch.tensor(one["confidence"], dtype=torch.float64), torch.tensor(one["right"], dtype=torch.float64))
        for one in seeds
    ]
    for name, seeds in WAYS_SURE.items()
}
over = {name: [float(p.mean() - c.mean()) for p, c in found] for name, found in tables.items()}
for name, found in tables.items():
    honest = [
        np.mean(
            [calibration_error(p, torch.bernoulli(p, generator=torch.Generator().manual_seed(k))) for k in range(50)]
        )
        for p, _ in found
    ]
    for seed, (p, c) in enumerate(found):
        print(
            f"{name:>15}, seed {seed}: right {c.mean():.2f}, sure {p.mean():.2f}, Brier {brier_score(p, c):.3f}, "
            f"ECE {calibration_error(p, c):.3f} (honest: {honest[seed]:.3f})"
        )
    assert name == "base" or calibration_error(*found[0]) > 1.5 * honest[0]
predicted("LoRA's mean confidence less its accuracy on old skills", guess, np.mean(over["LoRA"]))

# %%
pooled = [torch.cat(side) for side in zip(*tables["LoRA"])]
shown = reliability(*pooled, bins=5)
bars(
    [f"about {row[0]:.1f}" for row in shown],
    {"mean confidence": [row[0] for row in shown], "share right": [row[1] for row in shown]},
    title=f"LoRA after flip: sure {np.mean([float(p.mean()) for p, _ in tables['LoRA']]):.2f}, right {np.mean([float(c.mean()) for _, c in tables['LoRA']]):.2f} on old skills",
    y_label="share",
    alt="By confidence: "
    + "; ".join(f"sure {a:.2f}, right {b:.2f} ({n} answers)" for a, b, n in shown)
    + ". Three seeds together.",
)

# %%
finding(
    "After tuning on flip LoRA is surer of its answers to old prompts than they are right",
    figure="mean confidence less accuracy on ten old skills",
    measured=over["LoRA"],
    null="full tuning with a KL anchor to the base",
    control=over["full, KL anchor"],
    holds=lambda gaps: min(gaps) > 0.1,
    scope="60 steps on flip, AdamW, 200 items, greedy answers, three seeds",
)

# %% [markdown]
# The base is a little too sure as well, and the anchored run stays like it. LoRA's confidence fell less than its accuracy, so that a threshold
# on confidence which was set on the base lets more wrong answers through after tuning. Measure it again after each run, beside retention.
# (A base that *refuses* needs a third column, what it still refuses: ours refuses nothing.)

# %% [markdown]
# **Run again**: LoRA with seed 0 on this machine; 8.5 uses the same model.

# %%
tuned, run = fine_tune("LoRA", "flip", seed=0, device=device)
again = {name: outcomes(tuned, probes(name, 100, kept["seed"])) for name in ("flip", "reverse", "sort")}
apart = {name: float(items.mean() - lora[name][:100].mean()) for name, items in again.items()}
assert max(abs(value) for value in apart.values()) < 0.3
print(run)
print("accuracy now minus recorded, same 100 items:", {name: round(value, 2) for name, value in apart.items()})

# %% [markdown]
# **Check.** The base against itself changes nothing, bit for bit; bootstrap and formula agree where both have items to go by; and
# pairing is what makes the interval narrow.

# %%
base = base_model().to(device)
sort_items = [outcomes(base, probes("sort", kept["count"], kept["seed"])) for _ in range(2)]
assert torch.equal(*sort_items) and torch.equal(sort_items[0], base_items["sort"])
one, other = runs["full"][0], runs["full"][1]  # two seeds of one way: mostly the same items are lost
lost = int(((one["copy"] == 1) & (other["copy"] == 0)).sum())
gained = int(((one["copy"] == 0) & (other["copy"] == 1)).sum())
_, low, high = paired_interval(one["copy"], other["copy"], generator=torch.Generator().manual_seed(0))
half = 1.96 * paired_error(lost, gained, kept["count"])
assert abs((high - low) / 2 / half - 1) < 0.15
S, T = float(one["copy"].mean()), float(other["copy"].mean())
separate = 1.96 * math.sqrt((S * (1 - S) + T * (1 - T)) / kept["count"])
assert half < separate
print(
    f"copy, seed 1 against seed 0 of full tuning: half-width {half:.3f} paired, {separate:.3f} as if the items were others"
)
print(
    f"no item lost of 25: the bootstrap says ±0, accuracy_change ±{accuracy_change(torch.ones(25), torch.ones(25))[2]:.2f}"
)

# %% [markdown]
# **The mistake**: another template after tuning than before. The symptom is forgetting with $\Delta\theta = 0$: here one space more.

# %%
rng = np.random.default_rng(8)
asked = [pair for name in ("copy", "upper", "last", "add") for pair in distinct(name, 50, rng)]
plain = outcomes(base, batch(asked))
spaced = outcomes(base, batch([(prompt.replace(" ", "  ", 1), answer) for prompt, answer in asked]))
mean, low, high = accuracy_change(plain, spaced)
print(f"the same weights, one space more: {mean:+.3f} ({low:.3f} to {high:.3f})")
assert high < -0.05

# %% [markdown]
# **In practice** a frozen suite runs at each release, with paired errors.
#
# → [exercise 8.2](exercises.ipynb#8.2-Base-task-retention) · graded:
# [p09, forgetting and paired intervals](../../source/p09_scorecard/p09_scorecard.ipynb)

# %% [markdown]
# ## How sure is a score?
#
# **Items that share a cause are worth less than their number. Seeds are a second source of chance, which no number of items shrinks. And how
# many items a comparison takes can be computed before it starts.**
#
# $$\mathrm{SE}_\text{groups} = \frac1n \sqrt{\frac{G}{G-1} \sum_{g} \Big( \sum_{i \in g} (s_i - \bar s) \Big)^2}, \qquad
# \frac{\mathrm{SE}_\text{groups}^2}{\mathrm{SE}_\text{items}^2} \approx 1 + (m - 1)\,\rho .$$
#
# $s_i$ is the score of item $i$, $\bar s$ the mean of all $n$. There are $G$ groups $g$ of about $m$ items each, and $\rho$ is the correlation of two
# items of one group. The ratio on the right is the **design effect** (Kish 1965): divide the number of items by it to see what the sample is worth.
#
# ### Items in groups
#
# The skill `mood` has 20 words, and each is asked about with 12 things: "the book was bright", "the cake was bright". A model that has lost
# `bright` gets most of them wrong together. So the word is the group. A test set of 120 prompts can be 10 words with 12 things each, or 120 prompts
# drawn one by one.
#
# **Worked.** With $m = 12$ and $\rho = 0.5$ the design effect is $1 + 11 \cdot 0.5 = 6.5$: the 120 prompts are worth 18.

# %%
m, rho = 12, 0.5
print(f"design effect {1 + (m - 1) * rho}, worth {120 / (1 + (m - 1) * rho):.0f} items")
by_word = torch.arange(20).repeat_interleave(12)  # the group of each of the 240 prompts
grouped = record["grouped"]
moods = {
    name: [unpacked({"mood": seed["written"]}, 240)["mood"] for seed in seeds]
    for name, seeds in grouped["runs"].items()
}
for name, seeds in moods.items():
    for seed, items in enumerate(seeds):
        effect = f"design effect {design_effect(items, by_word):.1f}" if items.std() > 0 else "no spread at all"
        print(f"{name:>20}, seed {seed}: {items.mean():.2f} of 240 right, {effect}")

# %% [markdown]
# **Predict.** We know a run's true score on `mood`, because all 240 prompts were asked. Draw a test of 10 words with all their prompts, and compute
# the usual 95 % interval from the 120 items, as if each were independent. In which share of such tests does it hold the true score?

# %%
guess = None  # between 0 and 1


# %%
def coverage(items, words, rng, times=4000):
    """Return how often 95 % intervals of tests of 120 prompts hold the true score: by items, and by groups."""
    table = items.numpy().reshape(20, 12)
    if words:
        tests = table[rng.integers(20, size=(times, 10))]  # ten words, each with its twelve prompts
    else:
        tests = table.flatten()[rng.integers(240, size=(times, 10, 12))]
    means = tests.mean((1, 2))
    by_item = 1.96 * tests.reshape(times, -1).std(1, ddof=1) / math.sqrt(120)
    by_group = 2.262 * tests.mean(2).std(1, ddof=1) / math.sqrt(10)  # Student's t for 10 - 1 degrees of freedom
    return [float((abs(means - table.mean()) <= half).mean()) for half in (by_item, by_group)]


rng = np.random.default_rng(0)
tests = {way: [coverage(items, way == "words", rng) for items in moods["LoRA"]] for way in ("words", "single prompts")}
for way, found in tests.items():
    print(
        f"{way:>14}: usual interval holds the truth in {[f'{one:.0%}' for one, _ in found]}, by groups {[f'{two:.0%}' for _, two in found]}"
    )
usual = [one for one, _ in tests["words"]]
predicted("share of usual intervals that hold the true score", guess, np.mean(usual))

# %%
finding(
    "An interval that takes grouped items for independent ones misses the true score far more often than it says",
    figure="share of 95 % intervals that hold the true score, tests of 10 words with 12 prompts each",
    measured=usual,
    null="tests of 120 prompts drawn one by one",
    control=[one for one, _ in tests["single prompts"]],
    holds=lambda shares: max(shares) < 0.8,
    scope="mood after LoRA on flip, 60 steps; 4,000 tests drawn from 240 prompts, three seeds",
)

# %% [markdown]
# The interval by groups keeps its promise better, because it asks how the *words* differ. Ten groups are few: use Student's $t$, or draw
# whole groups in the bootstrap. **Check**: the library's error for one such test is the spread of its words' means, and the bootstrap agrees.

# %%
picked = torch.tensor(
    [place for word in (0, 3, 5, 8, 9, 11, 12, 15, 17, 19) for place in range(12 * word, 12 * word + 12)]
)
test, words = moods["LoRA"][0][picked], by_word[picked]
error = clustered_error(test, words)
assert abs(error - float(test.double().reshape(10, 12).mean(1).std()) / math.sqrt(10)) < 1e-9
assert max(two for _, two in tests["words"]) > 0.85 and all(two > one for one, two in tests["words"])
mean, low, high = clustered_interval(test, words, generator=torch.Generator().manual_seed(0))
print(
    f"one test: {mean:.2f}, error {test.std() / math.sqrt(120):.3f} by items, {error:.3f} by words; bootstrap {low:.2f} to {high:.2f}"
)
assert abs((high - low) / 2 / (1.96 * error) - 1) < 0.2

# %% [markdown]
# ### Seeds beside items
#
# Two runs of one recipe differ in their items' luck *and* in their seed's. With $R$ runs on the same $n$ items,
#
# $$\operatorname{Var}(\bar S) = \frac{\sigma^2_\text{seed}}{R} + \frac{\sigma^2_\text{item}}{n} + \frac{\sigma^2_\text{rest}}{R\,n} .$$
#
# An interval over items describes *this model*. If the claim is about the *recipe*, the first term belongs to it too, and only more runs
# make it smaller. The cell estimates the three parts from 8.2's runs, skill by skill, and prints the error of one skill's score.

# %%
for name in ("full", "LoRA", "full, KL anchor"):
    parts = np.mean([variance_parts(torch.stack([run[skill] for run in runs[name]])) for skill in SKILLS], axis=0)
    print(
        f"{name:>14}: one run of 200 items ±{error_of_mean(parts, 1, 200):.3f}, of 20,000 items ±{error_of_mean(parts, 1, 20_000):.3f}, "
        f"five runs of 200 items ±{error_of_mean(parts, 5, 200):.3f}"
    )


def over_luck(one, other):
    """Return the squared difference of two runs' scores over what their items' luck explains, all skills together."""
    apart = sum(float(a.mean() - b.mean()) ** 2 for a, b in zip(one, other))
    return apart / sum(float(a.var()) / len(a) + float(b.var()) / len(b) for a, b in zip(one, other))


# %%
by_seed = {name: [[run[skill] for skill in SKILLS] for run in runs[name]] for name in ("full", "LoRA")}
of_seeds = {
    name: [over_luck(found[a], found[b]) for a, b in ((0, 1), (0, 2), (1, 2))] for name, found in by_seed.items()
}
halves = [[[items[:100] for items in run], [items[100:] for items in run]] for run in by_seed["LoRA"]]
print(
    f"full tuning: two seeds differ by {min(of_seeds['full']):.1f} to {max(of_seeds['full']):.1f} times what luck explains"
)
assert max(of_seeds["full"]) < 2
finding(
    "Two seeds of LoRA differ more on the old skills than their items' luck explains",
    figure="log of two runs' squared difference over its expectation from items alone, ten skills",
    measured=np.log(of_seeds["LoRA"]),
    null="one run against itself, on the other half of the items",
    control=[math.log(over_luck(*pair)) for pair in halves],
    holds=lambda logs: min(logs) > 0.7,
    scope="60 steps on flip with AdamW, LoRA at 1e-3 on all linear layers, 200 items a skill, three seeds",
)

# %% [markdown]
# That is LoRA's, at this rate. The seeds of full tuning at its own rate differ by no more than luck, so there more items do help. Find out which
# case yours is before you pay for items: run the recipe twice.
#
# ### How many items?
#
# A comparison on the same items sees only those that *change*. If a share $d$ of them changes and the gain is $\delta$, then to show it
# with probability $1 - \beta$ (the **power**) at the level $1 - \alpha$ takes
#
# $$n = \frac{\big( z_{1 - \alpha/2} \sqrt{d} + z_{1 - \beta} \sqrt{d - \delta^2} \big)^2}{\delta^2}$$
#
# items (Connor 1987, *Biometrics* 43:207), where $z$ are quantiles of the normal distribution: 1.96 for 95 %, 0.84 for a power of 80 %. Multiply by the
# design effect if items come in groups. Half the gain takes four times the items.

# %%
print("items for a power of 80 %, by gain (down) and by share of items that change (across)")
SHARES_CHANGED = (0.05, 0.15, 0.30)
print("gain   " + "".join(f"{share:>8.0%}" for share in SHARES_CHANGED))
for gain in (0.01, 0.02, 0.05):
    print(f"{gain:.0%}     " + "".join(f"{items_needed(gain, share):>8,}" for share in SHARES_CHANGED))
COUNTS = [50, 100, 200, 300, 500, 1000, 2000, 3000, 5000]
lines(
    COUNTS,
    {f"gain {gain:.0%}": [power_of(n, gain, 0.15) for n in COUNTS] for gain in (0.02, 0.05, 0.10)},
    log_x=True,
    level=("80 %", 0.8),
    title=f"With 15 % of the items changing, a gain of 5 points takes {items_needed(0.05, 0.15):,} items, one of 2 points {items_needed(0.02, 0.15):,}",
    x_label="items, asked of both models",
    y_label="chance that the comparison shows the gain",
    alt="Three rising curves of power over 50 to 5,000 items. "
    + "; ".join(
        f"a gain of {gain:.0%} reaches 80 % at {items_needed(gain, 0.15):,} items" for gain in (0.02, 0.05, 0.10)
    )
    + ".",
)

# %% [markdown]
# **Check** by drawing: experiments of that size, with that gain, show it in eight of ten. With half the items it's barely more than a coin.

# %%
rng, gain, changed = np.random.default_rng(0), 0.05, 0.15
shown = {}
for count in (items_needed(gain, changed), items_needed(gain, changed) // 2):
    up, down, _ = rng.multinomial(count, [(changed + gain) / 2, (changed - gain) / 2, 1 - changed], size=20_000).T
    shown[count] = float((abs(up - down) > 1.96 * np.sqrt(up + down)).mean())
    print(
        f"{count} items: the gain is shown in {shown[count]:.0%} of the experiments, {power_of(count, gain, changed):.0%} by the formula"
    )
    assert abs(shown[count] - power_of(count, gain, changed)) < 0.03

# %% [markdown]
# **The mistake**: choosing the number of items after looking, that is, adding items until the interval leaves 0. A comparison of two *equal* models
# that is tested after every 50 items, up to 1,000, "finds" a difference far more often than the 5 % that it names.

# %%
steps = rng.choice([1, -1, 0], p=[changed / 2, changed / 2, 1 - changed], size=(4000, 1000))
looks = np.arange(49, 1000, 50)
difference, moved = steps.cumsum(1)[:, looks], abs(steps).cumsum(1)[:, looks]
found_one = abs(difference) > 1.96 * np.sqrt(moved)
print(
    f"equal models: one look at 1,000 items finds a difference in {found_one[:, -1].mean():.1%}, twenty looks in {found_one.any(1).mean():.1%}"
)
assert found_one[:, -1].mean() < 0.07 and found_one.any(1).mean() > 0.15

# %% [markdown]
# **In practice** clustered errors for evaluations of language models, and the items that a question of a given size needs, are worked out by Miller
# (2024, arXiv:2411.00640).
#
# → exercises 8.C to 8.F build this into [one verdict](exercises.ipynb#From-items-to-a-verdict)

# %% [markdown]
# ## 8.3 Task quality
#
# **A score is an estimator: pass@k from $n$ samples has an unbiased one, and putting $c/n$ into $1 - (1 - p)^k$ isn't it.**
#
# $$\widehat{\text{pass@}k} = 1 - \binom{n - c}{k} \Big/ \binom nk, \qquad
# \text{win rate} = \frac{\text{wins} + \tfrac12\,\text{ties}}{n}, \qquad \kappa = \frac{p_o - p_e}{1 - p_e} .$$
#
# $p_o$ is how often two judges agree, $p_e$ how often they would if each kept its own shares of labels and looked at nothing. The **win rate**
# counts a tie as half a win. The **agreement beyond chance** of two judges is $\kappa$, 1 if they always agree and 0 if chance would do as well.
#
# <details><summary>Why unbiased, and why the other one is too low</summary>
#
# Of all subsets of $k$ among the $n$ samples, $\binom{n-c}k / \binom nk$ hold no right one. Each subset is $k$ independent samples, so
# the chance of a success in it is $1 - (1-p)^k$; averaging over subsets keeps that mean. The plug-in $1 - (1 - c/n)^k$ is a concave
# function of $c/n$ for $k \ge 2$: by Jensen's inequality its mean lies below its value at the mean, by about
# $\tfrac12 k(k-1)(1-p)^{k-2} p(1-p)/n$.
# </details>

# %% [markdown]
# **Worked.** $n = 10$, $c = 3$, $k = 5$; a comparison of 57 wins, 33 losses and 10 ties; two judges that agree on 88 of 100.

# %%
n, c, k = 10, 3, 5
unbiased, plugged_in = pass_at_k(n, c, k), 1 - (1 - c / n) ** k
results = np.repeat([1.0, 0.0, 0.5], [57, 33, 10])
table = torch.tensor([[85.0, 6], [6, 3]])
assert abs(unbiased - 11 / 12) < 1e-12 and abs(plugged_in - 0.83193) < 1e-5 and results.mean() == 0.62
print(f"pass@5 from 3 of 10: {unbiased:.4f} unbiased, {plugged_in:.4f} plugged in")
print(f"win rate {results.mean():.2f}, SE {results.std() / 10:.3f}")
print(
    f"two judges agree on {table.diagonal().sum() / 100:.2f} of the answers, kappa {kappa(table):.2f}: most of it is chance"
)
assert kappa(table) < 0.3

# %% [markdown]
# **Predict.** The half-trained model of 8.1 writes 10 answers at temperature 1 to each of 128 prompts that it hasn't seen. We know the exact
# chance of each right answer from its log-probability, so we know the true pass@5. By how many points is the plug-in too low?

# %%
guess = None  # points, 0 to 100

# %% fold="run"
# Run: six draws of ten answers to each of 128 prompts, and two estimates of pass@k
with torch.no_grad():
    p = model_logprob(half_trained, held_rows.ids, held_rows.answer_mask).double().exp().cpu()
questions, answers = zip(*pairs[turn["learned"] :])
ids, mask = (tensor.repeat_interleave(n, 0) for tensor in prompts(questions))


def rights(seed):
    """Return how many of n sampled answers are right, for each prompt."""
    drawn = generate(
        half_trained,
        ids.to(device),
        mask.to(device),
        max_new=9,
        stop=3,
        temperature=1.0,
        generator=torch.Generator(device).manual_seed(seed),
    )
    said = [decode(row) for row in drawn.tolist()]
    return np.array([said[row] == answers[row // n] for row in range(len(said))]).reshape(-1, n).sum(1)


counts = [rights(seed) for seed in range(6)]
KS = (1, 2, 5, 10)
truth = [float((1 - (1 - p) ** k).mean()) for k in KS]
right_way = np.array([[np.mean([pass_at_k(n, int(c), k) for c in found]) for k in KS] for found in counts])
plug_in = np.array([[np.mean(1 - (1 - found / n) ** k) for k in KS] for found in counts])
for k, t, a, b in zip(KS, truth, right_way.T, plug_in.T):
    print(
        f"pass@{k:<2} true {t:.3f}; unbiased {a.min():.3f} to {a.max():.3f}; plugged in {b.min():.3f} to {b.max():.3f}"
    )
low_by = 100 * (truth[2] - plug_in[:, 2].mean())
predicted("points that the plug-in lacks at k = 5", guess, low_by)

# %%
assert np.allclose(right_way[:, 0], plug_in[:, 0])  # one and the same at k = 1
assert (plug_in[:, 2:] < right_way[:, 2:]).all()
assert (abs(right_way.mean(0) - truth) < 0.08).all()
bars(
    [f"pass@{k}" for k in KS],
    {"true": truth, "unbiased": right_way.mean(0), "plugged in": plug_in.mean(0)},
    spread={
        "unbiased": (right_way.min(0), right_way.max(0)),
        "plugged in": (plug_in.min(0), plug_in.max(0)),
    },
    title=f"From ten samples the plug-in misses {100 * (truth[3] - plug_in[:, 3].mean()):.0f} points of pass@10, the unbiased one "
    f"{100 * abs(truth[3] - right_way[:, 3].mean()):.0f}",
    y_label="share of prompts",
    alt="Grouped bars. "
    + "; ".join(
        f"pass@{k}: true {t:.2f}, unbiased {a:.2f}, plugged in {b:.2f}"
        for k, t, a, b in zip(KS, truth, right_way.mean(0), plug_in.mean(0))
    )
    + "; six draws of samples.",
)

# %%
finding(
    "Plugging c/n into 1 - (1 - p)^k gives too low a pass@k",
    figure="true pass@10 less the plug-in's, from ten samples",
    measured=truth[3] - plug_in[:, 3],
    null="the unbiased estimate from the same samples",
    control=truth[3] - right_way[:, 3],
    holds=lambda short: sum(short) / len(short) > 0.06,
    scope="a half-trained model on flip, 128 prompts, 10 answers each at temperature 1; six draws",
)

# %% [markdown]
# Unbiased isn't exact: each draw of 1,280 samples is off by a few points either way, the plug-in by more and always the same way.
#
# **Check.** pass@1 is $c/n$, it grows with $k$, and the mean over all possible $c$ is the truth.

# %%
for rate in (0.1, 0.5):
    chances = [math.comb(10, c) * rate**c * (1 - rate) ** (10 - c) for c in range(11)]
    for k in range(1, 11):
        mean = sum(chance * pass_at_k(10, c, k) for c, chance in enumerate(chances))
        assert abs(mean - (1 - (1 - rate) ** k)) < 1e-12
naive = sum(math.comb(10, c) * 0.1**c * 0.9 ** (10 - c) * (1 - (1 - c / 10) ** 5) for c in range(11))
assert all(pass_at_k(10, 3, k) < pass_at_k(10, 3, k + 1) for k in range(1, 8)) and math.isclose(
    pass_at_k(10, 3, 1), 0.3
)
print(f"p = 0.1, n = 10, k = 5: truth {1 - 0.9**5:.4f}, mean of the plug-in {naive:.4f}")
try:
    pass_at_k(4, 2, 5)
except ValueError as error:
    print("refused:", error)

# %% [markdown]
# **The mistake**: a judge that always reads the same side first. A model is set against *itself*: a judge with a taste for what it reads
# first gives it a win rate that isn't one half. Asking both ways round cancels that.

# %%
rng = np.random.default_rng(0)
quality_of = rng.normal(size=(400, 2))  # two answers of one model to each prompt


def prefers_first(first, second):
    """Judge by quality, with half a standard deviation of favour for what is read first."""
    return (first + 0.5 > second).astype(float)


fixed = prefers_first(*quality_of.T)
both_ways = (fixed + 1 - prefers_first(*quality_of.T[::-1])) / 2
print(
    f"a model against itself: {fixed.mean():.3f} in one order, {both_ways.mean():.3f} both ways (SE {both_ways.std() / 20:.3f})"
)
assert fixed.mean() > 0.58 and abs(both_ways.mean() - 0.5) < 3 * both_ways.std() / 20

# %% [markdown]
# **In practice** pass@k with this estimator comes from Chen et al. 2021 (arXiv:2107.03374); judges' taste for the first answer was measured by
# Zheng et al. 2023 (arXiv:2306.05685).
#
# → [exercise 8.3](exercises.ipynb#8.3-Task-quality) · graded:
# [p09, improvement](../../source/p09_scorecard/p09_scorecard.ipynb)

# %% [markdown]
# ## What does a score measure?
#
# **A judge, a way of asking and a test set each put something of their own into a score: the judge's taste, the form of the answer, and lines that
# the model has read before. Each has a control that shows how much.**
#
# ### Judges
#
# Where no program can check an answer, people or a model judge it. Three habits keep such a score honest.
#
# - A **rubric**: several questions that can be answered with yes or no ("Is every letter right? Does it stop?") in place of one mark from 1 to 10. Each
#   can be checked for agreement by itself.
# - **Agreement on a sample**: people judge some of the answers as well, and $\kappa$ (8.3) compares. Agreement alone flatters where
#   nearly all answers are good.
# - **A control for taste**: many judges prefer what is longer. Regress the wins on the difference in length, and read off the win rate where
#   that difference is 0 (Dubois et al. 2024, arXiv:2404.04475):
#
# $$\Pr[\text{win}] = \sigma(a + b\,\Delta\text{length}), \qquad \text{win rate at equal length} = \sigma(a) .$$
#
# **Predict.** Two models answer equally well, and one writes longer answers by half a standard deviation. The judge's verdict is quality, plus 0.6 for
# each standard deviation of length. Which win rate does the longer model get?

# %%
guess = None  # between 0 and 1


# %%
def judged_pairs(taste, seed, better=0.0, count=2000):
    """Return wins and differences in length of simulated pairs: a judge with a taste for length."""
    generator = torch.Generator().manual_seed(seed)
    draw = partial(torch.randn, count, generator=generator, dtype=torch.float64)
    longer_by, quality_gap = 0.5 + draw(), better + draw()
    return (quality_gap + taste * longer_by > 0).double(), longer_by


raw, controlled = [], []
for seed in range(3):
    wins, longer_by = judged_pairs(0.6, seed)
    raw.append(float(wins.mean()))
    controlled.append(equal_length_wins(wins, longer_by))
    no_taste = float(judged_pairs(0.0, seed)[0].mean())
    print(
        f"seed {seed}: win rate {raw[-1]:.3f}, at equal length {controlled[-1]:.3f}; by a judge without the taste {no_taste:.3f}"
    )
predicted("the longer model's win rate", guess, np.mean(raw))

# %%
finding(
    "A judge's taste for length gives the longer of two equal models wins that vanish at equal length",
    figure="win rate less one half",
    measured=np.subtract(raw, 0.5),
    null="the same verdicts, read off at equal length",
    control=np.subtract(controlled, 0.5),
    holds=lambda gains: min(gains) > 0.05,
    scope="simulated judge and answers, 2,000 pairs, three seeds",
)

# %% [markdown]
# The control must not take skill away: if the longer model *is* better, it still wins at equal length. And it controls for what you measured:
# a taste for lists or for flattery needs a column of its own.

# %%
wins, longer_by = judged_pairs(0.6, 0, better=0.5)
print(f"a longer and better model: {wins.mean():.2f} raw, {equal_length_wins(wins, longer_by):.2f} at equal length")
assert 0.6 < equal_length_wins(wins, longer_by) < wins.mean()
strict = torch.tensor([[45.0, 5], [5, 45]])  # two judges on 100 answers, half of them good
lenient = torch.tensor([[85.0, 5], [5, 5]])  # the same number of disagreements where most are good
print(f"both pairs of judges agree on 90 of 100: kappa {kappa(strict):.2f} and {kappa(lenient):.2f}")
assert kappa(strict) == 0.8 and kappa(lenient) < 0.5

# %% [markdown]
# ### Likelihood or generation
#
# A test with two options can be scored in two ways: let the model write, and compare; or compute $\log p$ of each option, and take the likelier. The
# second never sees an answer that is neither. On all 240 prompts of `mood`, both ways:

# %%
liked = {
    name: [unpacked({"mood": seed["likelier"]}, 240)["mood"] for seed in seeds]
    for name, seeds in grouped["runs"].items()
}
apart = {name: [float(a.mean() - b.mean()) for a, b in zip(liked[name], moods[name])] for name in moods}
for name in moods:
    for seed, (a, b) in enumerate(zip(liked[name], moods[name])):
        print(f"{name:>20}, seed {seed}: right by likelihood {a.mean():.2f}, right in writing {b.mean():.2f}")
finding(
    "Scored by likelihood, LoRA keeps a skill that it no longer shows when it writes",
    figure="accuracy on mood by likelihood of two options less accuracy of what is written",
    measured=apart["LoRA"],
    null="full tuning with a KL anchor to the base",
    control=apart["full, KL anchor"],
    holds=lambda gaps: min(gaps) > 0.2,
    scope="mood, 240 prompts, after 60 steps on flip, LoRA with AdamW at 1e-3, three seeds",
)

# %% [markdown]
# Neither is wrong. LoRA still knows which word fits and writes something else. The careless run shows the limit of the first way: with
# two options chance alone gives 0.5, so a model that writes no right answer at all still scores half.
#
# Likelihood asks what the model *prefers among these*, generation what a user *sees*. Say which one a table holds, and never compare
# one model's likelihood score with another one's written answers. One row again, with the LoRA of 8.2:

# %%
with torch.no_grad():
    asked = mood_prompts()
    options = [batch([(prompt, word) for prompt, _ in asked]).to(device) for word in ("good", "bad")]
    good, bad = (model_logprob(tuned, rows.ids, rows.answer_mask).cpu() for rows in options)
picks = torch.tensor([float((a > b) == (answer == "good")) for a, b, (_, answer) in zip(good, bad, asked)])
written = outcomes(tuned, batch(asked))
print(
    f"LoRA, seed 0, now: likelihood {picks.mean():.2f}, writing {written.mean():.2f}; recorded {liked['LoRA'][0].mean():.2f}, {moods['LoRA'][0].mean():.2f}"
)
assert abs(float(picks.mean() - liked["LoRA"][0].mean())) < 0.25

# %% [markdown]
# ### Contamination
#
# A test item that stood in the training data measures memory. `pig` shows it well: in a short run our model learns its lines by heart and
# not the rule. One run has 32 of the 128 test items among its 64 lines, the other has 64 other lines.

# %%
LEAK = record["leaked"]["leaked"]
leaks = {(run["seed"], run["leaked"]): unpacked({"pig": run["right"]}, 128)["pig"] for run in record["leaked"]["runs"]}
for seed in range(3):
    dirty, honest = leaks[seed, LEAK], leaks[seed, 0]
    print(
        f"seed {seed}: score of the run that saw {LEAK} of 128 test items {dirty.mean():.2f} ({dirty[:LEAK].mean():.2f} on those, "
        f"{dirty[LEAK:].mean():.2f} on the others); of the other run {honest.mean():.2f}"
    )
gap = {
    count: [float(leaks[s, count][:LEAK].mean() - leaks[s, count][LEAK:].mean()) for s in range(3)]
    for count in (LEAK, 0)
}
finding(
    "A run scores higher on test items that it was trained on than on the others of the same test",
    figure="accuracy on the 32 leaked test items less accuracy on the other 96",
    measured=gap[LEAK],
    null="a run on 64 other lines, the same two parts of the test",
    control=gap[0],
    holds=lambda gaps: min(gaps) > 0.3,
    scope="pig, 64 lines, 20 epochs of full tuning with AdamW at 5e-4, three seeds",
)

# %% [markdown]
# So compare the test with the training data before you train, after the same normalising (case, spaces, punctuation), and by near-duplicates as well as
# exact ones. Where the training data isn't yours, compare old test items with ones written after the model's cut-off date: a model that is
# better on the old ones has probably read them.


# %%
def normalised(text):
    return " ".join(text.lower().split())


train_side = ["flip  Stone", "flip river", "flip cloud"]
test_side = ["flip stone", "flip lake", "flip rivers"]
exact = set(train_side) & set(test_side)
same_line = {normalised(one) for one in train_side} & {normalised(one) for one in test_side}
print(
    f"shared as they stand: {sorted(exact)}; after normalising: {sorted(same_line)}; 'flip rivers' takes a near-duplicate search"
)
assert not exact and same_line == {"flip stone"}

# %% [markdown]
# ## 8.4 Distribution shift
#
# **Other prompts can be answered for by weights on the rows that you have; another answer to the same prompt can't.**
#
# $$D(p_\text{dep} \Vert p_\text{tr}) = \underbrace{D(p_\text{dep}(x) \Vert p_\text{tr}(x))}_{\text{weights can do this}} +
# \underbrace{\mathbb E_{p_\text{dep}(x)} D(p_\text{dep}(y|x) \Vert p_\text{tr}(y|x))}_{\text{not this}}, \qquad
# \mathbb E_\text{dep}[\ell] = \mathbb E_\text{tr}[w\,\ell], \qquad \frac{\mathrm{ESS}}{n} = \frac{(\sum w)^2}{n \sum w^2} .$$
#
# "Train on what you'll see" is thus two demands, and only the second one needs new data.
#
# $D$ is KL in nats, $x$ a prompt, $y$ its answer, $\ell$ a row's loss in nats, and $w = p_\text{dep}(x)/p_\text{tr}(x)$; training must show
# whatever deployment shows. ESS, the **effective sample size**, is how many equally weighted rows would give a mean as steady as the weighted one.
#
# <details><summary>Why</summary>
#
# The first line is the chain rule: $\log$ of a product of $p(x)\,p(y|x)$ is a sum. The second is
# $\sum_x p_\text{tr}(x) \frac{p_\text{dep}(x)}{p_\text{tr}(x)} \ell(x) = \sum_x p_\text{dep}(x)\,\ell(x)$. For the third: if $\ell$ has one variance
# $\sigma^2$ everywhere and is independent of $w$, the weighted mean $\sum w\ell / \sum w$ has variance
# $\sigma^2 \sum w^2 / (\sum w)^2$, as $\mathrm{ESS}$ equal rows would. Where losses are larger just where weights are, it's worse than that.
# </details>

# %% [markdown]
# **Worked.** Training shows two domains as (.8, .2), users as (.5, .5); the losses are .4 and 1.2.

# %%
p_train, p_deploy, loss = np.array([0.8, 0.2]), np.array([0.5, 0.5]), np.array([0.4, 1.2])
w = p_deploy / p_train
share = 1 / (p_train * w**2).sum()
drift = (p_deploy * np.log(w)).sum()
assert np.allclose([p_train @ loss, p_deploy @ loss, p_train @ (w * loss), share], [0.56, 0.80, 0.80, 0.64])
rows = torch.tensor(w).log().repeat_interleave(torch.tensor([80, 20]))
assert abs(effective_sample_size(rows) / 100 - share) < 1e-9
print(
    f"on paper {p_train @ loss:.2f}, in service {p_deploy @ loss:.2f}; w = {w.tolist()}, ESS {share:.0%}, KL(x) {drift:.3f} nats"
)

# %% [markdown]
# **Predict.** The base model is tuned on `flip` and `pig` in proportions 8 : 2; users ask for both alike. 200 validation rows come from
# training's mixture. The reweighted mean is right on average: but its spread over such samples is how many times that of 200 rows
# drawn from the users themselves? (The ESS alone says $1/\sqrt{0.64} = 1.25$.)

# %%
guess = None  # a ratio

# %% fold="run"
# Run: three models, many validation samples, four estimates of the loss in service
DOMAINS = ("flip", "pig")


def losses_by_domain(seed):
    """Return the losses of 200 fresh rows of each domain (2, 200), in nats per answer, after tuning on their mixture."""
    model, rng = base_model().to(device), np.random.default_rng(seed)

    def loss(step):
        rows = mixture(dict(zip(DOMAINS, p_train)), 32, rng).to(device)
        return model_loss(model, rows.ids, rows.answer_mask)

    train(model, loss, rate_groups(model, {}, 5e-4), 30)
    with torch.no_grad():
        rows = [probes(name, 200, 1000 + seed).to(device) for name in DOMAINS]
        return model, np.stack([-model_logprob(model, one.ids, one.answer_mask).cpu().numpy() for one in rows])


def samples(pool, shares, rng, times=2000, count=200):
    """Return domains and losses of many validation samples: two arrays (times, count)."""
    domains = (rng.random((times, count)) < shares[1]).astype(int)
    return domains, pool[domains, rng.integers(pool.shape[1], size=domains.shape)]


found = []
for seed in range(3):
    model, pool = losses_by_domain(seed)
    rng = np.random.default_rng(seed)
    domains, offline = samples(pool, p_train, rng)
    _, online = samples(pool, p_deploy, rng)
    weights = w[domains]
    estimates = {
        "as validated": offline.mean(1),
        "reweighted": (weights * offline).mean(1),
        "reweighted, sum w": (weights * offline).sum(1) / weights.sum(1),
        "users' own rows": online.mean(1),
    }
    found.append((float(p_deploy @ pool.mean(1)), estimates))
    print(
        f"seed {seed}: true {found[-1][0]:.2f};",
        {name: f"{v.mean():.2f} ± {v.std():.2f}" for name, v in estimates.items()},
    )
wider = [e["reweighted"].std() / e["users' own rows"].std() for _, e in found]
predicted("spread of the reweighted mean over that of users' own rows", guess, np.mean(wider))

# %%
for true, estimates in found:
    assert abs(estimates["reweighted"].mean() / true - 1) < 0.02 and estimates["as validated"].mean() < 0.7 * true
    assert estimates["users' own rows"].std() < estimates["reweighted, sum w"].std() < estimates["reweighted"].std()
assert min(wider) > 1.25  # worse than the effective sample size says
true, estimates = found[0]
quantiles = {name: np.quantile(values, [0.025, 0.975]) for name, values in estimates.items()}
bars(
    list(estimates),
    {"mean loss": [values.mean() for values in estimates.values()]},
    spread={"mean loss": ([q[0] for q in quantiles.values()], [q[1] for q in quantiles.values()])},
    title=f"Weights find the users' {true:.1f} nats where validation says {estimates['as validated'].mean():.1f}, with "
    f"{min(wider):.1f} to {max(wider):.1f} times the spread of their own rows",
    y_label="nats per answer",
    alt=f"Bars with the middle 95 % of 2,000 samples of 200 rows; the true loss in service is {true:.2f}. "
    + "; ".join(f"{name} {values.mean():.2f}" for name, values in estimates.items())
    + ".",
)

# %% [markdown]
# The effective sample size knows the weights only. Here the rare domain is also the hard one, and the spread is larger than it says.
# Dividing by the sum of the weights instead of $n$ helps, since both then err together.
#
# **What weights can't do.** These users say `flip` and mean *copy*: the same prompts, other answers. No row of the training data shows it, so
# every reweighted number stays what it was.

# %%
asked = distinct("flip", 100, np.random.default_rng(5))
with torch.no_grad():
    meant, wanted = (
        float(-model_logprob(model, rows.ids, rows.answer_mask).mean())
        for rows in (batch(asked).to(device), batch([(q, q.removeprefix("flip ")) for q, _ in asked]).to(device))
    )
print(f"loss on the answers that training taught {meant:.2f} nats, on those that users now want {wanted:.1f}")
assert wanted > 5 * meant

# %% [markdown]
# **Check.** Over a sample from training the weights have mean 1, within three standard errors.

# %%
rng = np.random.default_rng(0)
drawn = w[rng.choice(2, size=5000, p=p_train)]
assert abs(drawn.mean() - 1) < 3 * drawn.std() / math.sqrt(5000)
assert abs((p_train / p_deploy)[rng.choice(2, size=5000, p=p_train)].mean() - 1) > 0.1  # the ratio upside down fails it

# %% [markdown]
# **The mistake**: validation split off from training data, and more of it when users complain. The symptom is an interval that closes around
# the wrong number.

# %%
for count in (50, 500, 5000):
    _, offline = samples(pool, p_train, np.random.default_rng(1), times=200, count=count)
    low, high = np.quantile(offline.mean(1), [0.025, 0.975])
    print(f"{count:>5} rows: {low:.2f} to {high:.2f} nats; in service {p_deploy @ pool.mean(1):.2f}")
assert high < 0.7 * (p_deploy @ pool.mean(1))

# %% [markdown]
# **In practice** drift is watched by a classifier that tells today's prompts from training's; Rabanser et al. 2018 (arXiv:1810.11953) compare
# such alarms. It sees the first term above and never the second.
#
# → [exercise 8.4](exercises.ipynb#8.4-Distribution-shift) · graded:
# [p02, KL between two distributions](../../source/p02_kl_shift/p02_kl_shift.ipynb)

# %% [markdown]
# ## 8.5 Adapter sanity checks
#
# **A falling loss doesn't show that the adapter works. Six checks of $f_{W + \Delta W}(x) - f_W(x)$ find faults that a loss doesn't, in
# seconds; an adapter that isn't the one you meant passes all six.**
#
# $$f_{W + \Delta W}(x) - f_W(x) = s\,BAx \ \text{ for one layer}, \qquad
# \lVert s\,BAx \rVert \le s\,\lVert B \rVert\,\lVert A \rVert\,\lVert x \rVert .$$
#
# $f_W$ is the model with its base weights, $s$, $A$ and $B$ as in part 5; the norms of matrices are their largest singular values.
#
# | check | must hold |
# | --- | --- |
# | zero at start | the fresh adapter changes no logit |
# | moves | the trained one changes some |
# | base kept | the base's weights have the bits that they had |
# | off is base | switched off, every logit has the base's bits |
# | merge agrees | merged and unmerged give the same logits, up to rounding |
# | rows apart | permuted rows give permuted logits |
#
# They compare a model with itself. Two more compare it with something outside: the *recipe*, which adapters there are and with which
# scale, and the *file*, what comes back after a save and a reload.
#
# <details><summary>Why: what each one needs</summary>
#
# $B = 0$ gives $sBAx = 0$: the first. A gradient that reaches $B$ makes it non-zero after one step: the second. Only $A$ and $B$ train, so
# that the base's bits stay: the third, by comparison of bits, since a drift of $10^{-6}$ a step is training. With the adapter off the same
# products are computed on the same weights in the same order, and floating point repeats itself: the fourth is exact. The fifth is
# distributivity, $Wx + sBAx = (W + sBA)x$, with one rounding. The sixth: no row's answer may depend on its neighbours or on a draw of
# random numbers.
# </details>

# %% [markdown]
# **Worked.** $W = I$, $x = (1, 2)$, $A = (1, -1)$, $B = (\tfrac12, 0)^\top$, $s = 2$.

# %%
layer = LoRALinear(torch.nn.Linear(2, 2, bias=False), rank=1, alpha=2)
x = torch.tensor([1.0, 2.0])
with torch.no_grad():
    (
        layer.base.weight.copy_(torch.eye(2)),
        layer.A.copy_(torch.tensor([[1.0, -1.0]])),
        layer.B.copy_(torch.tensor([[0.5], [0.0]])),
    )
    effect = layer(x) - layer.base(x)
bound = layer.scale * torch.linalg.norm(layer.B) * torch.linalg.norm(layer.A) * torch.linalg.norm(x)
assert effect.tolist() == [-1.0, 0.0] and effect.norm() <= bound
print(f"effect {effect.tolist()}, output {layer(x).tolist()}, bound {bound:.2f}")

# %% [markdown]
# **Predict.** Nine adapters are broken, each in another way: never called; base trainable; merged into the base and still attached; merged with
# twice its scale; dropout that stays on; $B$ drawn instead of 0; a quarter of the scale that was meant; no adapter on `down`; reloaded with
# another scale than it was trained with. Each is trained for 12 steps. For how many of the nine does the training loss fail to fall?

# %%
guess = None  # 0 to 9


# %% fold="run"
# Run: nine broken adapters and a good one, each trained for 12 steps and checked
class NeverCalled(LoRALinear):
    def forward(self, x):
        return self.base(x)


class MergedTwiceAsLoud(LoRALinear):
    def merged(self):
        self.scale *= 2
        plain = super().merged()
        self.scale /= 2
        return plain


class AlwaysDropping(LoRALinear):
    def forward(self, x):
        out = self.base(x)
        return out + torch.nn.functional.dropout(super().forward(x) - out, 0.1) if self.on else out


def become(kind):
    """Return what makes every adapter of a model one of another kind."""

    def change(model):
        for layer in lora_layers(model).values():
            layer.__class__ = kind

    return change


def base_trainable(model):
    for layer in lora_layers(model).values():
        layer.base.weight.requires_grad_(True)


def b_drawn(model):
    for layer in lora_layers(model).values():
        torch.nn.init.normal_(layer.B, std=0.02, generator=torch.Generator(layer.B.device).manual_seed(0))


@torch.no_grad()
def attached_and_merged(model):
    for layer in lora_layers(model).values():
        layer.base.weight += layer.delta()


def no_down(model):
    for block in model.blocks:
        block.mlp.down = block.mlp.down.base.requires_grad_(False)


def quarter_scale(model):
    for layer in lora_layers(model).values():
        layer.scale /= 4


def reloaded(model):
    """Put the trained factors, which is all that the file holds, into adapters of another alpha."""
    quarter_scale(model)


BROKEN = {
    "good": (None, None),
    "never called": (become(NeverCalled), None),
    "base trainable": (base_trainable, None),
    "merged and attached": (None, attached_and_merged),
    "merged twice as loud": (become(MergedTwiceAsLoud), None),
    "dropout stays on": (become(AlwaysDropping), None),
    "B drawn": (b_drawn, None),
    "a quarter of the scale": (quarter_scale, None),
    "no adapter on down": (no_down, None),
    "reloaded, other scale": (None, reloaded),
}
LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
seen = probes("flip", 32, 3).to(device)
order = torch.randperm(32, generator=torch.Generator().manual_seed(0)).to(device)
base_bits = {name: value.detach().clone() for name, value in base.named_parameters()}


@torch.no_grad()
def logits(model, rows=slice(None)):
    return model(seen.ids[rows])


def sanity(model, fresh_effect):
    """Return the six checks of an adapter after training, True where it holds."""
    on, reference = logits(model), logits(base)
    with disabled(model):
        off = logits(model)
    held = {
        name.replace(".base.", "."): value
        for name, value in model.named_parameters()
        if not name.endswith((".A", ".B"))
    }
    near = 1e-3 * float(on.abs().max())
    return {
        "zero at start": fresh_effect == 0,
        "moves": not torch.equal(on, off),
        "base kept": all(torch.equal(value, base_bits[name]) for name, value in held.items()),
        "off is base": torch.equal(off, reference),
        "merge agrees": merge_difference(model, logits) < near,
        "rows apart": float((logits(model, order) - on[order]).abs().max()) < near,
    }


RECIPE = {f"blocks.{number}.{kind}": 2.0 for number in range(4)
          for kind in ("attn.q", "attn.k", "attn.v", "attn.o", "mlp.gate", "mlp.up", "mlp.down")}  # fmt: skip


def trial(name, seed, steps=12):
    """Return the checks and the losses of one adapter, good or broken."""
    before, after = BROKEN[name]
    model = base_model().to(device)
    add_lora(model, LINEARS, 4, 8.0, generator=torch.Generator().manual_seed(seed))
    if before:
        before(model)
    fresh = float((logits(model) - logits(base)).abs().max())
    rng = np.random.default_rng(seed)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]

    def loss(step):
        rows = mixture({"flip": 1.0}, 12, rng).to(device)
        return model_loss(model, rows.ids, rows.answer_mask) + 0 * sum(parameter.sum() for parameter in trained)

    losses = train(model, loss, rate_groups(model, {}, 3e-3), steps)
    left_training = logits(model)
    if after:
        after(model)
    return sanity(model, fresh), losses, {
        "recipe": {layer: adapter.scale for layer, adapter in lora_layers(model).items()} == RECIPE,
        "same as trained": float((logits(model) - left_training).abs().max()) < 1e-3 * float(left_training.abs().max()),
    }  # fmt: skip


tried = {name: [trial(name, seed) for seed in range(3)] for name in BROKEN}
caught = {
    name: [[check for check, holds in checks.items() if not holds] for checks, _, _ in found]
    for name, found in tried.items()
}
outside = {
    name: [[check for check, holds in checks.items() if not holds] for _, _, checks in found]
    for name, found in tried.items()
}
for name, found in tried.items():
    ends = [np.mean(losses[-3:]) for _, losses, _ in found]
    print(
        f"{name:22} loss ends at {min(ends):.2f} to {max(ends):.2f}; fails, seed 0: {caught[name][0] + outside[name][0]}"
    )
flat = [
    name
    for name, found in tried.items()
    if any(np.mean(losses[-3:]) > 0.8 * np.mean(losses[:3]) for _, losses, _ in found)
]
predicted("broken adapters whose loss doesn't fall", guess, len(flat))

# %%
names = list(tried["good"][0][0])
assert all(
    found[0] == found[1] == found[2] for found in [*caught.values(), *outside.values()]
)  # the same with every seed
caught = {name: found[0] for name, found in caught.items()}
outside = {name: found[0] for name, found in outside.items()}
assert caught.pop("good") == [] == outside.pop("good") and flat == ["never called"]
BLIND = ["a quarter of the scale", "no adapter on down", "reloaded, other scale"]
assert [name for name, failed in caught.items() if not failed] == BLIND and all(
    "recipe" in outside[name] for name in BLIND
)
grid(
    [
        [float(check in caught[name] + outside[name]) for check in [*names, "recipe", "same as trained"]]
        for name in caught
    ],
    row_names=list(caught),
    column_names=[*names, "recipe", "same as trained"],
    title=f"The loss gives away {len(flat)} of {len(caught)} broken adapters, the six checks {len(caught) - len(BLIND)}; "
    f"for {len(BLIND)} it takes the recipe",
    alt="Which check catches which broken adapter. "
    + "; ".join(f"{name}: {', '.join(failed + outside[name])}" for name, failed in caught.items())
    + ".",
)

# %% [markdown]
# It's no diagonal: a base that trains and a base that already holds the update fail the same checks, and dropout spoils two. The checks say
# *that* something is wrong; which, only where a row of the table is alone. And the last three rows pass every check of the model against
# itself: an adapter of a quarter of the scale is a sound adapter, only not yours. So write the recipe down, and compare. Which rows
# aren't told apart by the six:

# %%
twins = [(a, b) for a in caught for b in caught if a < b and caught[a] == caught[b]]
print("told apart by no check:", twins)
assert ("base trainable", "merged and attached") in twins and ("a quarter of the scale", "no adapter on down") in twins

# %% [markdown]
# **Check.** The LoRA of 8.2 passes, and switching it off gives the base back bit for bit, weights and logits.

# %%
checks = sanity(tuned, fresh_effect=0)
assert all(checks.values())
with disabled(tuned):
    assert torch.equal(logits(tuned), logits(base)) and accuracy(tuned, seen) == accuracy(base, seen)
print(
    f"adapter on: {accuracy(tuned, seen):.2f} of flip right; off: {accuracy(base, seen):.2f}; merge moves a logit by at most "
    f"{merge_difference(tuned, logits):.1e} of {float(logits(tuned).abs().max()):.0f}"
)

# %% [markdown]
# **The mistake**: comparing the base's weights with a tolerance. Whether one step of a trained base passes `allclose` depends on the rate and on
# the tolerance; `torch.equal` leaves nothing to choose. The symptom comes later, when the adapter is attached to a clean base and isn't what
# it was.

# %%
rows = mixture({"flip": 1.0}, 12, np.random.default_rng(0)).to(device)
clean_weight, said = base_bits["blocks.0.attn.q.weight"], {}
for rate in (1e-5, 1e-8):
    model = base_model().to(device)
    add_lora(model, LINEARS, 4, 8.0, generator=torch.Generator().manual_seed(0))
    base_trainable(model)
    train(model, lambda step: model_loss(model, rows.ids, rows.answer_mask), rate_groups(model, {}, rate), 1)
    weight = lora_layers(model)["blocks.0.attn.q"].base.weight
    said[rate] = (
        torch.allclose(weight, clean_weight),
        torch.allclose(weight, clean_weight, atol=1e-4),
        torch.equal(weight, clean_weight),
    )
    print(
        f"one step at {rate:g} moved the base by at most {float((weight - clean_weight).detach().abs().max()):.1e}: "
        f"allclose {said[rate][0]}, with atol 1e-4 {said[rate][1]}, equal {said[rate][2]}"
    )
assert said == {1e-5: (False, True, False), 1e-8: (True, True, False)}

# %% [markdown]
# **In practice** these checks are the first ten minutes with an adapter; libraries test their own layers the same way, since a fresh adapter must
# start as the identity (Hu et al. 2021, arXiv:2106.09685, section 4.1).
#
# → [exercise 8.5](exercises.ipynb#8.5-Adapter-sanity-checks) · graded:
# [p04, the LoRA update](../../source/p04_lora_update/p04_lora_update.ipynb),
# [p10, the freeze audit](../../source/p10_freeze_and_mask_audit/p10_freeze_and_mask_audit.ipynb)

# %% [markdown]
# ## What to keep
#
# | | statement | number to remember |
# | --- | --- | --- |
# | 8.1 | pick the epoch by the score that counts, on clean held-out data; a gap alone says nothing | optimism $2\sigma^2 p / n$ |
# | 8.2 | same items before and after; the worst skill decides | $\sqrt{(l + g) - (l - g)^2/n}\,/\,n$ |
# | how sure | groups count less than their items; seeds are a second source; compute $n$ first | design effect $1 + (m - 1)\rho$ |
# | 8.3 | pass@k is a mean over subsets | $1 - \binom{n-c}{k}/\binom nk$ |
# | what it measures | a judge at equal length; likelihood isn't writing; leaked items are memory | win rate at equal length $\sigma(a)$ |
# | 8.4 | weights carry over prompts, not answers | ESS $= (\sum w)^2/\sum w^2$, at best |
# | 8.5 | six checks of the model against itself, and one against the recipe; compare bits, not closeness | $\lVert sBAx\rVert \le s\lVert B\rVert\lVert A\rVert\lVert x\rVert$ |
