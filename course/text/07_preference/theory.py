# %% [markdown]
# # Part 7: preference fine-tuning
#
# **The claim.** "This answer rather than that one" becomes a loss in three steps: a model of the judge, an optimum under a
# price of KL, and one cancellation. That loss asks only that each chosen answer gains on its rejected one. A policy can do so
# on every pair while its answers are ruined.
#
# You need parts 1 and 2 and logistic regression. You'll be able to fit a judge's votes, read a reward where it stands,
# derive the best policy and DPO from it, say what $\beta$ does early and late, derive a policy gradient and say what each of its
# parts does, and notice over-optimisation before your users do. About 120 minutes; the notebook itself runs in about one on two CPU cores.
#
# | symbol | what it is | shape or unit |
# | --- | --- | --- |
# | $x, y^+, y^-$ | a prompt, the chosen and the rejected answer | token sequences |
# | $r(x, y)$ | reward of an answer | a number, up to a shift per prompt |
# | $\pi, \pi_\text{ref}$ | the policy that trains, and its frozen reference | probabilities of whole answers |
# | $\log \pi(y \mid x)$ | sum over the answer's tokens | nats |
# | $\beta$ | price of KL, or unit of reward | reward per nat, positive |
# | $h$ | margin: how much more the policy prefers $y^+$ than the reference does | nats |
# | $A$ | advantage: an answer's reward less what was to be expected | the reward's unit, or standard deviations |
# | $\rho, \epsilon$ | a token's importance ratio, and how far from 1 the clip lets it go | numbers |
# | $\sigma$ | the logistic function $1 / (1 + e^{-z})$ | number to (0, 1) |

# %% fold="imports"
# Imports, the device and the recorded runs.
import inspect
import json
import math
from functools import partial

import numpy as np
import torch

from ftmath import (
    PolicySettings,
    base_model,
    batch,
    best_device,
    best_of_n_kl,
    bradley_terry,
    centred_advantages,
    describe,
    dpo_loss,
    dpo_slope,
    fit_preferences,
    fit_reward_model,
    fixed_mean,
    frozen_copy,
    gold_reward,
    group_advantages,
    implicit_reward,
    improve_policy,
    judged,
    k1,
    k2,
    k3,
    kto_loss,
    leave_one_out,
    margin,
    measure_manners,
    model_logprob,
    optimal_policy,
    orpo_loss,
    pair_logprobs,
    polite_pairs,
    polite_policy,
    polite_requests,
    preference_probability,
    priced_rewards,
    ranking_loss,
    recorded,
    reinforce_loss,
    sequence_logprob,
    simpo_loss,
    sorting_rankings,
)
from ftmath.exercises import progress
from ftmath.findings import finding
from ftmath.manners import word_of
from ftmath.plots import bars, lines, points, sweep
from ftmath.predict import predicted
from ftmath.skills import encode, padded
from ftmath.weights import FOLDER
from ftmath.widgets import best_of_n_explorer, beta_explorer

device = best_device()
RUNS = json.loads((FOLDER / "preference_runs.json").read_text("utf-8"))
print(f"torch {torch.__version__} on {describe(device)}; the tables of longer runs are of torch {RUNS['torch']}, CPU")
progress(7)

# %% [markdown]
# **Where the part begins**: the base model after it has seen requests such as `please reverse abc`, three answers in ten with
# `, thanks!` behind them. The preference that we'll teach it: thanks, please, and the answer still right. An answer counts as
# right only to the letter, and a misspelt thanks is wrong.

# %%
reference = frozen_copy(polite_policy(0, device=device))
start = measure_manners(reference, reference)
print(f"sampled answers: {start.thanks:.0%} end in thanks, {start.right:.0%} are right, {start.both:.0%} are both")
assert start.right > 0.75 and start.both < 0.3

# %% [markdown]
# ## 7.1 Preference pairs
#
# **A vote is a noisy comparison of two rewards. Many votes show how far apart the rewards are; none shows where zero is.**
#
# $$\Pr[y_1 \succ y_2 \mid x] = \sigma\big(r(x, y_1) - r(x, y_2)\big), \qquad r \text{ and } r + c(x) \text{ are the same judge.}$$
#
# <details><summary>Why the logistic function, and what flipped votes do</summary>
#
# Give each answer a strength $e^{r}$ and let it win in proportion: $e^{r_1} / (e^{r_1} + e^{r_2}) = \sigma(r_1 - r_2)$
# (Bradley and Terry 1952). The log-likelihood of $w$ wins and $l$ losses is $w \log\sigma(d) + l \log\sigma(-d)$; its slope
# $w\,\sigma(-d) - l\,\sigma(d)$ is 0 at $\sigma(d) = w / (w + l)$, so the gap is the logit of the share of wins.
#
# If every vote is flipped with probability $\varepsilon$, the share becomes $(1 - 2\varepsilon)\,\sigma(d) + \varepsilon$.
# This *expected* share never leaves $(\varepsilon, 1 - \varepsilon)$. So with many votes the gap of a pair fitted alone comes to at most the
# logit of $1 - \varepsilon$, however far apart the two answers are; with few votes chance can carry it beyond. A joint fit of several answers
# can exceed that cap at any number of votes, since the gap between two far answers is also the sum of the gaps of their neighbours, and each of
# those has a cap of its own. As the share still grows with $d$, the order stands for $\varepsilon < \tfrac12$.
#
# A ranking of $K$ answers holds $K(K-1)/2$ pairs. They aren't independent: they share answers.
# </details>

# %% [markdown]
# **By hand.** Rewards 1.2 and 0.4; seven votes of ten; and how many pairs a ranking holds.

# %%
p = preference_probability(torch.tensor(1.2), torch.tensor(0.4))
seven = bradley_terry(torch.tensor([[0.0, 7.0], [3.0, 0.0]]))
assert abs(p - 0.690) < 5e-4 and abs(seven[0] - seven[1] - math.log(7 / 3)) < 1e-6
assert [k * (k - 1) // 2 for k in (4, 9)] == [6, 36]
print(
    f"P = {p:.3f}; one vote prefers the worse answer with chance {1 - p:.2f}; 7 of 10 votes: a gap of {seven[0] - seven[1]:.3f}; 6 pairs in a ranking of 4, 36 in one of 9"
)

# %% [markdown]
# **Predict.** The judge's taste is the base model's own: an answer's reward is its log-probability, divided by 8. Six answers
# to `sort dbca` are compared pairwise, 600 votes a pair, and *one vote in five is flipped* by inattention. The best and the
# worst answer are truly 3.7 apart. How far apart does the fit put them?

# %%
guess = None  # a gap of rewards

# %%
ANSWERS = ("abcd", "acbd", "abdc", "bacd", "aabcd", "dcba")
rows = batch([("sort dbca", answer) for answer in ANSWERS])
with torch.no_grad():
    truth = model_logprob(base_model(), rows.ids, rows.answer_mask).double() / 8
truth = truth - truth.mean()
gap = float(truth.max() - truth.min())


def votes(rewards, count, flipped, seed):
    """Return a table of wins (answers, answers)."""
    rng, n = np.random.default_rng(seed), len(rewards)
    wins = torch.zeros(n, n)
    for i in range(n):
        for j in range(i):
            share = float(preference_probability(rewards[i], rewards[j]))
            wins[i, j] = rng.binomial(count, share * (1 - 2 * flipped) + flipped)
            wins[j, i] = count - wins[i, j]
    return wins


# %%
fits = {
    flipped: torch.stack([bradley_terry(votes(truth, 600, flipped, seed)) for seed in range(3)])
    for flipped in (0.0, 0.2)
}
gaps = {flipped: (found.max(1).values - found.min(1).values) for flipped, found in fits.items()}
print(
    {f"{flipped:.0%} flipped": [round(g, 2) for g in found.tolist()] for flipped, found in gaps.items()},
    f"true {gap:.2f}",
)
cap = math.log(0.8 / 0.2)
beyond = sum(math.comb(10, wins) * 0.8**wins * 0.2 ** (10 - wins) for wins in (9, 10))
print(
    f"a pair alone, a fifth flipped: {cap:.2f} at most on average; with ten votes chance exceeds it in {beyond:.0%} of the tables"
)
assert gaps[0.2].min() > cap  # the joint fit adds up the gaps of neighbours
predicted("the fitted gap when one vote in five is flipped", guess, float(gaps[0.2].mean()))

# %%
order = truth.argsort().tolist()
assert abs(gap - 3.7) < 0.05
assert all(fit.argsort().tolist() == order for fit in fits[0.2])  # the order survives, three seeds of three
assert abs(gaps[0.0].mean() / gap - 1) < 0.1
bars(
    ANSWERS,
    {"true": truth.tolist(), "no flips": fits[0.0].mean(0).tolist(), "1 in 5 flipped": fits[0.2].mean(0).tolist()},
    spread={
        "no flips": (fits[0.0].min(0).values.tolist(), fits[0.0].max(0).values.tolist()),
        "1 in 5 flipped": (fits[0.2].min(0).values.tolist(), fits[0.2].max(0).values.tolist()),
    },
    title=f"A fifth of the votes flipped: a gap of {gap:.1f} reads as {gaps[0.2].mean():.1f}, in the same order",
    y_label="reward, mean 0",
    alt="Bars for six answers to sort dbca, from abcd, the right one, down to dcba. Without flips the fit stands at the "
    f"true rewards; with a fifth of the votes flipped the spread shrinks from {gap:.2f} to {gaps[0.2].mean():.2f} and the "
    "order is the same in three seeds.",
)

# %%
finding(
    "Flipped votes shrink fitted rewards",
    figure="fitted gap over true gap, a fifth of the votes flipped",
    measured=(gaps[0.2] / gap).tolist(),
    null="no vote flipped",
    control=(gaps[0.0] / gap).tolist(),
    holds=lambda shares: max(shares) < 0.6,
    scope="six answers to one prompt, 600 votes a pair, rewards 3.7 apart; three draws of votes",
)

# %% [markdown]
# **Check.** The two chances add up to 1, and a shift of all rewards changes no chance and no loss.

# %%
a, b = torch.randn(2, 1000, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
assert torch.allclose(
    preference_probability(a, b) + preference_probability(b, a), torch.ones(1000, dtype=torch.float64)
)
table = torch.stack([a[:30], b[:30]], dim=1)
assert torch.allclose(ranking_loss(table + 100.0), ranking_loss(table))

# %% [markdown]
# **The mistake: swapped columns.** The data set says `(chosen, rejected)`, the loader reads `(rejected, chosen)`. Training shows
# no symptom: the loss falls to the same value. Only reading some pairs reveals it.

# %%
pairs = polite_pairs(32, seed=11)
right_way = [(prompt, [chosen, rejected]) for prompt, chosen, rejected in pairs]
swapped = [(prompt, [rejected, chosen]) for prompt, chosen, rejected in pairs]
read = polite_pairs(64, seed=12)
ends = []
for name, rankings in (("as written", right_way), ("swapped", swapped)):
    model, losses = fit_reward_model(frozen_copy(reference), rankings, steps=14, rate=3e-4, rows=8)
    scores = [judged(model, [(pair[0], pair[side]) for pair in read]) for side in (1, 2)]
    correct = float((scores[0] > scores[1]).double().mean())
    print(f"{name:>10}: loss {losses[0]:.3f} -> {losses[-1]:.3f}, right on {correct:.0%} of 64 pairs that were read")
    assert losses[-1] < 0.4 and (correct > 0.9 if name == "as written" else correct < 0.1)
    ends.append(losses[-1])
assert abs(ends[0] - ends[1]) < 0.05  # the head starts at 0, so one run is the other's mirror image

# %% [markdown]
# **In practice** measure first how often the longer answer is the chosen one. Here it always is, so a model that learns from these
# pairs alone may learn length instead of manners. On public sets, much of the gain was length (Singhal et al. 2023,
# arXiv:2310.03716).

# %%
longer = sum(len(chosen) > len(rejected) for _, chosen, rejected in pairs) / len(pairs)
assert longer == 1.0
print(f"'the longer one wins' is right on {longer:.0%} of the pairs")

# %% [markdown]
# → [exercise 7.1](exercises.ipynb#7.1-Preference-pairs) · graded: [p08, the DPO loss](../../source/p08_dpo_loss/p08_dpo_loss.ipynb)

# %% [markdown]
# ## 7.2 Reward-model view
#
# **A reward model is a language model whose last hidden state is read as one number. It is trained as a classifier of pairs, and
# a low training loss on few pairs says next to nothing about fresh ones.**
#
# $$\mathcal L(\phi) = -\frac{1}{\binom K2}\,\mathbb E \sum_{w < l} \log \sigma\big(r_\phi(x, y_w) - r_\phi(x, y_l)\big), \qquad
# r_\phi(x, y) = v^\top z_T .$$
#
# $K$ answers per prompt, $y_w$ ranked before $y_l$; $z_T \in \mathbb R^{d}$ the state at the last real token, $v \in
# \mathbb R^{d}$; rewards have no unit, the loss is in nats.
#
# <details><summary>Why: the gradient, and why the mean is free</summary>
#
# With $\Delta = r_w - r_l$, $\nabla\mathcal L = -\sigma(-\Delta)\,(\nabla r_w - \nabla r_l)$: a pair pulls by the chance that
# the model still gives to the wrong order. A constant added to $r$ cancels in $\Delta$, so training never sees the mean; it is
# set to 0 afterwards, on answers that people wrote: demonstrations (Ouyang et al. 2022, arXiv:2203.02155, section 3.5) or the
# data set's own summaries (Stiennon et al. 2020, arXiv:2009.01325). All pairs of one ranking go into one batch: spread over an epoch, each
# answer would be seen $K - 1$ times, and the model overfits (Ouyang et al., section 3.5).
#
# The reader must be the *last* token since attention is causal: no earlier state has seen the whole answer.
# </details>

# %% [markdown]
# **Worked.** Three pairs with gaps 2, 0.5 and $-1$.

# %%
gaps_ = torch.tensor([2.0, 0.5, -1.0], dtype=torch.float64)
each = -torch.nn.functional.logsigmoid(gaps_)
loss = ranking_loss(torch.stack([gaps_, torch.zeros(3, dtype=torch.float64)], dim=1))
assert torch.allclose(each, torch.tensor([0.1269, 0.4741, 1.3133], dtype=torch.float64), atol=5e-5)
assert abs(loss - 0.6381) < 5e-5 and int((gaps_ > 0).sum()) == 2
print(f"losses {[round(v, 4) for v in each.tolist()]}, mean {loss:.4f}; two of three pairs in the right order")

# %% [markdown]
# **Predict.** The base model gets a reward head and learns to tell `sort`'s right answer from one with its first two letters
# swapped: 40 steps, all parameters. It sees **4** different pairs, again and again. Its loss ends near 0.03. How often is it
# right on fresh pairs (a coin: 0.5)?

# %%
guess = None  # between 0 and 1

# %%
SIZES = sorted({row["pairs"] for row in RUNS["reward"]})


def column(name):
    return np.array([[row[name] for row in RUNS["reward"] if row["pairs"] == size] for size in SIZES])


fresh, seen = column("accuracy"), column("last_loss")
for size, accuracies, losses in zip(SIZES, fresh, seen):
    print(
        f"{size:>4} pairs: right on fresh ones {accuracies.min():.2f} to {accuracies.max():.2f}, training loss {losses.mean():.2f}"
    )
predicted("accuracy on fresh pairs after 4 pairs", guess, fresh[0].mean())

# %%
assert fresh[-1].min() > 0.75 and seen[0].max() < seen[-1].min()
bars(
    [f"{size} pairs" for size in SIZES],
    {"accuracy on fresh pairs": fresh.mean(1).tolist(), "training loss, nats": seen.mean(1).tolist()},
    spread={
        "accuracy on fresh pairs": (fresh.min(1).tolist(), fresh.max(1).tolist()),
        "training loss, nats": (seen.min(1).tolist(), seen.max(1).tolist()),
    },
    title=f"The model with the lowest training loss ({seen[0].mean():.2f}) judges worst ({fresh[0].mean():.2f})",
    y_label="accuracy; nats",
    alt="Pairs of bars for "
    + ", ".join(f"{size} pairs: accuracy {f.mean():.2f}, loss {s.mean():.2f}" for size, f, s in zip(SIZES, fresh, seen))
    + ". Both grow with the number of pairs; three seeds each.",
)

# %%
finding(
    "A reward model with a training loss near 0 on 4 pairs hardly judges fresh ones",
    figure="accuracy on fresh pairs after 40 steps on 4 pairs",
    measured=fresh[0],
    null="the same 40 steps on 256 pairs, which end at a higher training loss",
    control=fresh[-1],
    holds=lambda accuracy: max(accuracy) < 0.75,
    scope="sort with its first two letters swapped, all parameters, AdamW at 3e-4, three seeds",
)

# %% [markdown]
# **Run one row again**: 64 pairs, seed 0.

# %%
model, losses = fit_reward_model(base_model().to(device), sorting_rankings(64, 0), steps=40, rate=3e-4, seed=0)
held_out = sorting_rankings(256, 1000)
better, worse = (judged(model, [(prompt, answers[side]) for prompt, answers in held_out]) for side in (0, 1))
again, row = (
    float((better > worse).float().mean()),
    next(r for r in RUNS["reward"] if r["pairs"] == 64 and r["seed"] == 0),
)
print(f"accuracy now {again:.3f}, in the table {row['accuracy']:.3f}")
assert abs(again - row["accuracy"]) < 0.1  # another machine rounds otherwise, and 40 steps carry that on
swapped_end = [
    (prompt, [right, right[:-2] + right[-1] + right[-2]]) for prompt, (right, _) in held_out if right[-1] != right[-2]
]
better, worse = (judged(model, [(prompt, answers[side]) for prompt, answers in swapped_end]) for side in (0, 1))
elsewhere = float((better > worse).float().mean())
print(
    f"the same judge where the *last* two letters are swapped: {elsewhere:.3f}; fresh pairs of one make certify no other"
)
assert elsewhere < again - 0.05

# %% [markdown]
# **Check.** A row's reward doesn't depend on how far it is padded.

# %%
lines_ = [encode(prompt, answers[0]) for prompt, answers in held_out[:8]]
together = padded(lines_).to(device)
model = model.requires_grad_(False)
alone = torch.cat([model(one.ids, one.attention_mask) for one in (padded([line]).to(device) for line in lines_)])
assert torch.allclose(model(together.ids, together.attention_mask), alone, atol=1e-4)

# %% [markdown]
# **The mistake: reading place $-1$.** In a batch padded on the right that is padding for all rows but the longest. The symptom:
# an answer's reward changes with its neighbours.

# %%
last = model.value(model.decoder.hidden(together.ids)[:, -1]).squeeze(-1)
moved = (last - alone).abs()
real = together.attention_mask.sum(1)
print("moved by", [round(m, 2) for m in moved.tolist()], "padding", (together.ids.shape[1] - real).tolist())
assert moved[real < real.max()].max() > 0.5 and moved[real == real.max()].max() < 1e-4

# %% [markdown]
# **In practice** a reward model, an exact verifier and a language model asked to judge all fill this place; the recipe with a
# head on the last token is that of summarisation from human feedback (Stiennon et al. 2020, arXiv:2009.01325).
#
# → [exercise 7.2](exercises.ipynb#7.2-Reward-model-view) · graded: [p08, sums over an answer](../../source/p08_dpo_loss/p08_dpo_loss.ipynb)

# %% [markdown]
# ## 7.3 KL-regularized policy update
#
# **Reward at a price of KL has an optimum in closed form: the reference, tilted by $e^{r/\beta}$.**
#
# $$J(\pi) = \mathbb E_x\Big[\mathbb E_{y \sim \pi(\cdot \mid x)}\, r(x, y) - \beta\, D_\text{KL}\big(\pi(\cdot \mid x) \,\Vert\,
# \pi_\text{ref}(\cdot \mid x)\big)\Big], \qquad
# \pi^\star = \frac{\pi_\text{ref}\, e^{r / \beta}}{Z(x)}, \quad J(\pi^\star) = \mathbb E_x\,\beta \log Z(x) .$$
#
# $Z(x) = \sum_y \pi_\text{ref}(y \mid x)\, e^{r(x, y)/\beta}$; KL in nats, with the policy first: answers are drawn from $\pi$.
# (The formula is often shortened to $\mathbb E[r] - \beta D$. That leaves out over which prompts the mean is taken, and from which
# policy the answers are drawn.)
#
# <details><summary>Why: complete the KL</summary>
#
# For one prompt,
# $$\sum_y \pi\, r - \beta \sum_y \pi \log\frac{\pi}{\pi_\text{ref}}
# = -\beta \sum_y \pi \log \frac{\pi}{\pi_\text{ref}\, e^{r/\beta}}
# = \beta \log Z - \beta \sum_y \pi \log\frac{\pi}{\pi^\star}
# = \beta \log Z - \beta\, D_\text{KL}(\pi \,\Vert\, \pi^\star) .$$
# A divergence is never negative and 0 only for equal distributions (Gibbs), so $\pi^\star$ is the only maximum. Nothing was
# assumed of $\pi$ but that it may be any distribution; a network's reach is smaller.
#
# As $\beta \to 0$ all mass goes to the best answer $y^\star$ and KL to $-\log \pi_\text{ref}(y^\star)$; if several answers tie for
# the best, the mass is shared among them as the reference shares it, and $\pi_\text{ref}(y^\star)$ is the chance of all of them together.
# No $\beta$ leads farther from the reference than that. As $\beta \to \infty$, $\pi \to \pi_\text{ref}$.
# </details>

# %% [markdown]
# **Worked**, with three answers.

# %%
ref, r = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.0, 1.0, 2.0], dtype=torch.float64)


def kl(p, q):
    return float(torch.special.xlogy(p, p / q).sum())


for beta in (10.0, 1.0, 0.1):
    best, value = optimal_policy(ref, r, beta)
    print(
        f"beta {beta:>4}: pi* {[round(v, 4) for v in best.tolist()]}, E r {best @ r:.3f}, KL {kl(best, ref):.4f}, J {value:.4f}"
    )
best, value = optimal_policy(ref, r, 1.0)
assert torch.allclose(best, torch.tensor([0.179, 0.292, 0.529], dtype=torch.float64), atol=5e-4)
assert abs(value - 1.0272) < 5e-5 and abs(kl(best, ref) - 0.323) < 5e-4
assert abs(kl(optimal_policy(ref, r, 0.1)[0], ref) - math.log(5)) < 2e-3
tied = torch.tensor([0.0, 2.0, 2.0], dtype=torch.float64)  # two best answers: the cap is -log of their sum, 0.5
assert abs(kl(optimal_policy(ref, tied, 1e-3)[0], ref) - math.log(2)) < 1e-9

# %% [markdown]
# Four answers to `please reverse abc`, and the probabilities that our policy gives them (as shares of the four):

# %%
FOUR = ("cba", "cba, thanks!", "cba, thanks! thanks!", "abc, thanks!")
rows = batch([("please reverse abc", answer) for answer in FOUR]).to(device)
with torch.no_grad():
    ref4 = model_logprob(reference, rows.ids, rows.answer_mask).double().cpu().softmax(0)
print({answer: f"{p:.2g}" for answer, p in zip(FOUR, ref4.tolist())})

# %% [markdown]
# **Predict.** The reward counts the word *thanks*: 0, 1, 2 and 1. With $\beta$ next to nothing, how many nats from its reference does the best policy stand?

# %%
guess = None  # nats

# %%
r4 = torch.tensor([float(answer.count("thanks")) for answer in FOUR], dtype=torch.float64)
limit = kl(optimal_policy(ref4, r4, 1e-3)[0], ref4)
assert abs(limit + math.log(ref4[2])) < 1e-6
predicted("KL of the best policy without a price", guess, limit)

# %%
betas = [10.0, 3.0, 1.0, 0.7, 0.5, 0.4, 0.3, 0.2, 0.1]
frontier = [(kl(p, ref4), float(p @ r4)) for p in (optimal_policy(ref4, r4, beta)[0] for beta in betas)]


def ascent(beta, steps=4000, rate=0.3):
    """Return the policy after gradient ascent on J over its logits, from the reference."""
    logits = ref4.log().clone().requires_grad_(True)
    optimizer = torch.optim.Adam([logits], lr=rate)
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = rate * (1 - step / steps)
        p = logits.log_softmax(0)
        J = (p.exp() * r4).sum() - beta * (p.exp() * (p - ref4.log())).sum()
        optimizer.zero_grad()
        (-J).backward()
        optimizer.step()
    return logits.detach().softmax(0), float(J.detach())


climbed = {beta: ascent(beta, 1500) for beta in (3.0, 1.0, 0.5)}
for beta, (p, J) in climbed.items():
    best, value = optimal_policy(ref4, r4, beta)
    assert (p - best).abs().max() < 1e-4 and abs(J - value) < 1e-6 and J <= value + 1e-12

# %% fold="picture"
# The picture: reward against KL, by the closed form and by gradient ascent.
slopes = np.diff([at[1] for at in frontier]) / np.diff([at[0] for at in frontier])
assert (np.diff(slopes) < 0).all()  # concave: each nat buys less than the one before
half = next(at for at in frontier if at[1] > 1.0)
points(
    {
        "closed form": [(x, y, f"β = {beta:g}") for (x, y), beta in zip(frontier, betas)],
        "gradient ascent": [(kl(p, ref4), float(p @ r4), "") for p, _ in climbed.values()],
    },
    curve=("frontier", [at[0] for at in frontier], [at[1] for at in frontier]),
    title=f"The first nat buys most: reward {half[1]:.2f} at {half[0]:.1f} nats, 2 only at {limit:.1f}",
    x_label="KL to the reference, nats",
    y_label="expected reward",
    alt="A concave curve of expected reward against KL: "
    + ", ".join(f"beta {beta:g} gives {y:.2f} at {x:.2f} nats" for beta, (x, y) in zip(betas, frontier))
    + ". Gradient ascent ends on it.",
)

# %% [markdown]
# **Check.** No policy scores above $\beta \log Z$: ten thousand random ones don't.

# %%
drawn = torch.distributions.Dirichlet(torch.ones(4, dtype=torch.float64)).sample((10_000,))
for beta in (0.1, 1.0, 10.0):
    J = drawn @ r4 - beta * torch.special.xlogy(drawn, drawn / ref4).sum(1)
    assert J.max() < optimal_policy(ref4, r4, beta)[1]

# %% [markdown]
# A **reverse divergence** has the policy first, $D_\text{KL}(\pi \Vert \pi_\text{ref})$: its mean is over what the policy says, in nats. A **forward
# divergence** has the reference first: its mean is over what the reference says.
#
# **The mistake: the other KL.** With $D_\text{KL}(\pi_\text{ref} \Vert \pi)$ as the price, which is what training on the
# reference's own answers pays, the optimum is $\beta\,\pi_\text{ref} / (\lambda - r)$, where $\lambda$ is the number that makes
# the probabilities add up to 1: it must cover all that the reference says. Its symptom is bad answers that remain as the price falls: their mass falls only in proportion to $\beta$, while under the right price it
# falls like $e^{-\Delta r/\beta}$. At equal $\beta$ either of the two may leave more, because the two divergences are different quantities. So
# they are compared at equal expected reward.

# %%


def covering(beta):
    """Return the optimum for the other KL."""
    low, high = float(r4.max()) + 1e-12, 1e4
    for _ in range(200):  # find lambda: the masses must add up to 1
        middle = (low + high) / 2
        low, high = (middle, high) if (beta * ref4 / (middle - r4)).sum() > 1 else (low, middle)
    return beta * ref4 / (middle - r4)


def covering_with(reward):
    """Return the optimum for the other KL whose expected reward is `reward`."""
    low, high = 1e-3, 1e3
    for _ in range(60):
        beta = math.sqrt(low * high)
        low, high = (beta, high) if covering(beta) @ r4 > reward else (low, beta)
    return covering(beta)


# %%
for beta in (0.2, 0.5, 1.0):
    tilt, same_beta = optimal_policy(ref4, r4, beta)[0], covering(beta)
    same_reward = covering_with(float(tilt @ r4))
    print(
        f"mass on 'cba' at beta {beta}: {tilt[0]:.3f} with the policy first; with the reference first {same_beta[0]:.3f} at the same beta, "
        f"{same_reward[0]:.3f} at the same reward {tilt @ r4:.2f}"
    )
    assert abs(same_reward @ r4 - tilt @ r4) < 1e-6 and same_reward[0] > tilt[0]
assert covering(0.2)[0] > optimal_policy(ref4, r4, 0.2)[0][0] and covering(1.0)[0] < optimal_policy(ref4, r4, 1.0)[0][0]

# %% [markdown]
# **In practice** InstructGPT trains with $\beta = 0.02$ per token and adds a pretraining loss, since no $\beta$ alone kept the
# old skills (Ouyang et al. 2022, arXiv:2203.02155, appendix E).
#
# → [exercise 7.3](exercises.ipynb#7.3-KL-regularized-policy-update) · graded: [p08, implicit rewards](../../source/p08_dpo_loss/p08_dpo_loss.ipynb)

# %% [markdown]
# ## 7.4 DPO loss
#
# **Solve the optimum for the reward, put it into the judge, and the reward model is gone: the policy itself is trained as a
# classifier of pairs. What it is asked for is an order, not likely answers.**
#
# $$\mathcal L = -\frac1n \sum_{i=1}^n \log \sigma(\beta h_i), \qquad
# h = \big(\log\pi^+ - \log\pi^-\big) - \big(\log\pi_\text{ref}^+ - \log\pi_\text{ref}^-\big) .$$
#
# $n$ pairs; $\log \pi^\pm = \log \pi(y^\pm \mid x)$ are *sums* over answer tokens, in nats; $h$ in nats; $\beta$ per nat. (Where
# the loss is printed for one pair, these two choices are left open: sums over tokens, and the mean over a batch.)
#
# <details><summary>Why: from the KL-regularised optimum to DPO, in four steps</summary>
#
# 1. **The optimum** of 7.3: $\pi^\star = \pi_\text{ref}\, e^{r/\beta} / Z(x)$.
# 2. **Solved for the reward**: $r(x, y) = \beta \log \dfrac{\pi^\star(y \mid x)}{\pi_\text{ref}(y \mid x)} + \beta \log Z(x)$. For any policy,
#    the first term is called its **implicit reward**.
#    Every policy is the optimum of *some* reward: this one.
# 3. **Into the judge** of 7.1, which asks only for differences: $\beta \log Z(x)$ is the same for both answers and cancels,
#    the one quantity that nobody could have computed.
#    $$\Pr[y^+ \succ y^-] = \sigma\Big(\beta \log\frac{\pi^\star(y^+)}{\pi_\text{ref}(y^+)} - \beta \log\frac{\pi^\star(y^-)}{\pi_\text{ref}(y^-)}\Big) = \sigma(\beta h) .$$
# 4. **Maximum likelihood** over $\pi$ in the place of $\pi^\star$: the loss above.
#
# The gradient is $-\beta\,\sigma(-\beta h)\,(\nabla \log \pi^+ - \nabla \log \pi^-)$. A pair stops pulling once $h \gg 1/\beta$.
# With all pairs judged without end, the minimiser is $\pi^\star$ itself (Rafailov et al. 2023, arXiv:2305.18290). With a finite
# set of pairs that are all ordered one way, the likelihood has no maximum: $h \to \infty$, and any two log-probabilities with a
# large difference will do, two tiny ones as well (Azar et al. 2023, arXiv:2310.12036). Their own loss, IPO, is run below: $(h - \tfrac{1}{2\beta})^2$, which is least at a finite margin.
# </details>

# %% [markdown]
# **Worked.** Policy $-12$ and $-14$ nats, reference $-13$ and $-13.5$, $\beta = 0.1$; and a margin of $-11{,}000$.

# %%
four = [torch.tensor([v], dtype=torch.float64) for v in (-12.0, -14.0, -13.0, -13.5)]
four[0].requires_grad_(True)
h = margin(*four)
loss = dpo_loss(h, 0.1)
loss.backward()
rewards = [implicit_reward(four[k], four[k + 2], 0.1).item() for k in (0, 1)]
print(f"h {h.item()}, loss {loss.item():.5f}, d loss / d log pi+ {four[0].grad.item():.6f}, rewards {rewards}")
assert abs(loss - 0.62096) < 5e-6 and abs(four[0].grad + 0.046257) < 5e-7
assert torch.allclose(four[0].grad, dpo_slope(h.detach(), 0.1))
far = torch.tensor([-11_000.0])
assert dpo_loss(far, 0.1) == 1100 and torch.log(torch.sigmoid(0.1 * far)).isinf()

# %% [markdown]
# ### What $\beta$ does
#
# Does a small $\beta$ keep the policy near its reference? Some courses say yes, the paper's authors say the opposite, and
# there are two questions in it:
#
# - **The first step.** At $h = 0$ every pair's slope is $-\beta/2$: the gradient is *exactly proportional* to $\beta$.
# - **The end.** The optimum is $\pi_\text{ref}\, e^{r/\beta}/Z$: the KL there *falls* with $\beta$. (For the closed form, and for a reward that
#   is given. Our runs on the model are too short to reach such an end.)
#
# Move both sliders: at one step a larger $\beta$ is farther away, at three thousand it is nearer.

# %%
beta_explorer(ref, r)

# %%
from ftmath.widgets.preferences import kl_along, kl_at_optimum

few, many = {}, {}
for beta in (0.2, 0.5, 1.0, 2.0):
    few[beta], many[beta] = kl_along(ref, r, beta, [1, 3000])
    print(
        f"beta {beta}: KL after 1 step {few[beta]:.4f}, after 3,000 {many[beta]:.4f}, closed form {kl_at_optimum(ref, r, beta):.4f}"
    )
    assert abs(many[beta] - kl_at_optimum(ref, r, beta)) < 1e-3
assert list(few.values()) == sorted(few.values()) and list(many.values()) == sorted(many.values(), reverse=True)

# %% [markdown]
# **On the model**, the first gradient is proportional to $\beta$ too. But the runs use Adam, which divides each gradient by a running mean
# of its size, so there $\beta$ cancels. It matters only later: once $\beta h$ is well above 1, the gradients shrink faster than that
# running mean does, and the steps become small.

# %%
pairs = polite_pairs(64, 100)


def first_gradient(beta):
    policy = frozen_copy(reference).requires_grad_(True)
    sides = [batch([(pair[0], pair[side]) for pair in pairs[:16]]).to(device) for side in (1, 2)]
    ours = [model_logprob(policy, side.ids, side.answer_mask) for side in sides]
    dpo_loss(margin(*ours, *(one.detach() for one in ours)), beta).backward()
    return torch.cat([p.grad.flatten() for p in policy.parameters()])


unit = first_gradient(1.0)
for beta in (0.05, 0.5, 2.0):
    ratio = float(first_gradient(beta).norm() / unit.norm())
    print(f"SGD: first gradient at beta {beta} is {ratio:.4f} times the one at beta 1")
    assert abs(ratio / beta - 1) < 1e-3

# %%
walks = {}
for beta in (0.05, 0.5, 2.0):
    policy = frozen_copy(reference).requires_grad_(True)
    seen = fit_preferences(policy, reference, pairs, steps=14, rate=1e-4, loss_of=partial(dpo_loss, beta=beta))
    walks[beta] = [step.margin for step in seen]
early, late = (walks[2.0][at] / walks[0.05][at] for at in (2, -1))
assert abs(early - 1) < 0.05 and late < 0.85
lines(
    list(range(1, 15)),
    {f"β = {beta:g}": walk for beta, walk in walks.items()},
    title=f"Under Adam, values of β 40 times apart start alike (ratio {early:.2f}) and part where pairs saturate ({late:.2f})",
    x_label="step",
    y_label="mean margin h, nats",
    alt="Margins against steps for beta 0.05, 0.5 and 2 lie on one curve at first; at step 14 they are "
    + ", ".join(f"{walk[-1]:.1f} for beta {beta:g}" for beta, walk in walks.items())
    + " nats.",
)

# %% [markdown]
# So under Adam $\beta$ isn't the dial of the first steps: the rate is. And what a rate too high does is invisible in the loss.
#
# ### Perfect pairs, ruined answers
#
# Our pairs have a property that decides what follows: the rejected answer is a *prefix* of the chosen one, `cba` against
# `cba, thanks!`. The letters are in both.
#
# **Predict.** 64 such pairs, 40 steps of DPO, $\beta = 0.1$, rate $10^{-4}$. On *fresh* pairs the accuracy is 1.00: every chosen answer
# gains on its rejected one. By how many nats does the mean $\log \pi$ of the chosen answers change?

# %%
guess = None  # nats; negative: the chosen answers become less likely

# %%
NAMES = list(dict.fromkeys(row["name"] for row in RUNS["dpo"]))


def of(name, get):
    return np.array([get(row) for row in RUNS["dpo"] if row["name"] == name])


for name in NAMES:
    accuracy, moved, kept, steps = (
        of(name, lambda row, key=key: row[key]) for key in ("pair_accuracy", "chosen_moved", "base_kept", "margin")
    )
    right, letters, spelt = (of(name, lambda row, key=key: row["after"][key]) for key in ("right", "letters", "spelt"))
    print(
        f"{name:>23}: pairs {accuracy.min():.2f}, h {steps.mean():4.1f}, chosen {moved.min():+5.1f} to {moved.max():+5.1f} nats; "
        f"right {right.mean():.2f} (letters {letters.mean():.2f}, what follows {spelt.mean():.2f}), base kept {kept.mean():.2f}"
    )
hard = of("DPO, 1e-4", lambda row: row["chosen_moved"])
predicted("change of log pi of the chosen answers, nats", guess, hard.mean())

# %% [markdown]
# Answers are sampled at temperature 1. "Right" means: the letters are right, *and* what follows them is `, thanks!` or nothing. Each is also counted alone. "Base kept" is the mean
# accuracy on the base model's ten skills, which none of the pairs shows.
#
# **Which part of the answers sank?** $\log\pi$ is a sum over tokens, so it splits: the shared letters; the chosen answer's thanks with
# its end; the rejected answer's end, which comes right behind the letters. Since the letters stand in both answers, $h$ is made of
# the two tails alone.

# %%
PIECES = {"shared letters": "letters", "thanks, chosen": "thanks", "end, rejected": "stop"}
HELD = "DPO, letters held, 1e-4"
parts = {
    name: {label: of(name, lambda row, key=key: row["pieces_moved"][key]) for label, key in PIECES.items()}
    for name in NAMES
}
for name in ("DPO, 1e-4", HELD):
    print(name, {label: np.round(v, 1).tolist() for label, v in parts[name].items()})
for row in RUNS["dpo"]:
    moved = row["pieces_moved"]
    assert abs(moved["thanks"] - moved["stop"] - row["margin"]) < 1e-2 and row["pair_accuracy"] > 0.99
assert abs(parts["DPO, 1e-4"]["thanks, chosen"]).max() < 3 and abs(parts[HELD]["shared letters"]).max() < 1
assert of(HELD, lambda row: row["margin"]).min() > 20

# %% fold="picture"
# The picture: which part of the answers moved.
shown = ["DPO, 1e-4", HELD]
bars(
    list(PIECES),
    {name: [parts[name][label].mean() for label in PIECES] for name in shown},
    spread={name: ([parts[name][p].min() for p in PIECES], [parts[name][p].max() for p in PIECES]) for name in shown},
    title=f"The letters, which cancel in h, fell by {-parts['DPO, 1e-4']['shared letters'].mean():.0f} nats; held by a term of their own they stay, "
    f"and h reaches {of(HELD, lambda row: row['margin']).mean():.0f} all the same",
    y_label="change of log-probability, nats",
    alt="; ".join(
        f"{name}: " + ", ".join(f"{label} {parts[name][label].mean():+.1f}" for label in PIECES) for name in shown
    )
    + ". Means of three seeds, fresh pairs.",
)

# %% [markdown]
# So the fall of $\log \pi^+$ isn't the price of the preference. The tail that carries the preference hardly moved, the rejected answer's end
# sank, and the letters drifted. **The control**, in the second colour, adds a term that holds them (the letters' negative log-likelihood with
# weight 20): the letters stay, and the margin grows to nearly the same size. So the letters fell because nothing held them. But what pushed
# them down? Here each of the loss's two sides is trained alone, for as many steps at the same rate:


# %%
def control(name, get):
    return np.array([get(row) for row in RUNS["controls"] if row["name"] == name])


DOWN, UP = "end pushed down alone, 1e-4", "thanks pulled up alone, 1e-4"
sides_alone = {name: control(name, lambda row: row["pieces_moved"]["letters"]) for name in (DOWN, UP)}
for name, found in sides_alone.items():
    print(f"{name}: shared letters moved by {found.round(1)} nats")
assert sides_alone[DOWN].max() < 3 * sides_alone[UP].min() < 0

# %% [markdown]
# Pushing down the rejected answer's end is what moves the letters: a log-probability can fall without limit. Pulling up the thanks alone
# moves the letters by a few nats.

# %%
finding(
    "What fell in log pi+ is the letters that both answers share; a term that holds them prevents it",
    figure="change of the shared letters' log-probability, nats",
    measured=parts["DPO, 1e-4"]["shared letters"],
    null="the same run with a term that holds the letters; its margin grows as well",
    control=parts[HELD]["shared letters"],
    holds=lambda moved: max(moved) < -10,
    scope="64 pairs whose rejected answer is a prefix of the chosen one; 40 steps of AdamW at 1e-4, beta 0.1; three seeds",
)

# %% [markdown]
# **Check.** The letters get no push from the loss itself. At each of their places the two answers' gradients with respect to the logits
# cancel; what moves them is the shared weights, on the way to the tails.

# %%
some = polite_pairs(16, 100)
policy, net = frozen_copy(reference).requires_grad_(True), {"letters": 0.0, "tails": 0.0}
tables, sides = [], [batch([(pair[0], pair[side]) for pair in some]).to(device) for side in (1, 2)]
for side in sides:
    tables.append(policy(side.ids))
    tables[-1].retain_grad()
ours = [sequence_logprob(table, side.ids, side.answer_mask) for table, side in zip(tables, sides)]
dpo_loss(margin(*ours, *(one.detach() for one in ours)), 0.1).backward()
for row, (prompt, _, letters) in enumerate(some):
    first = int(sides[0].answer_mask[row].argmax()) - 1  # the place that predicts the first letter
    both = tables[0].grad[row, : tables[1].shape[1]] + tables[1].grad[row]
    net["letters"] = max(net["letters"], float(both[first : first + len(letters)].abs().max()))
    net["tails"] = max(net["tails"], float(both[first + len(letters) :].abs().max()))
print(f"largest net gradient of a logit: {net['letters']:.1e} at the letters, {net['tails']:.1e} behind them")
assert net["letters"] < 1e-6 < 1e-4 < net["tails"]

# %% [markdown]
# **Which figure warns of the damage?** Here $\log\pi^+$ doesn't: its mean fell in one setting only, while right answers became rarer in every
# setting. An answer counts as right if it is one of the two that its pair compares. So the share of right answers estimates $\pi^+ + \pi^-$, and
# the rest of the answers are strings that no pair compares.

# %%
before = np.array([row["before"]["right"] for row in RUNS["dpo"] if row["name"] == NAMES[0]])
GENTLE = ("DPO, 5e-6", "DPO, 1e-5", "IPO, 1e-4")
for name in GENTLE:
    assert of(name, lambda row: row["chosen_moved"]).min() > 0  # log pi+ rises with every seed,
    assert (of(name, lambda row: row["after"]["right"]) < before - 0.1).all()  # fewer answers are right,
    assert of(name, lambda row: row["after"]["letters"]).min() > 0.9  # and it isn't the letters
lost = {name: of(name, lambda row: row["after"]["right"]) - before for name in NAMES}
assert all(of(name, lambda row: row["chosen_moved"]).mean() > -0.1 for name in NAMES if name != "DPO, 1e-4")
assert all(change.mean() < 0 for change in lost.values())
NLL = "DPO + NLL, 1e-4"
assert (
    of("DPO, 1e-4", lambda row: row["after"]["letters"]).max()
    < 0.05
    < 0.95
    < of(HELD, lambda row: row["after"]["letters"]).min()
)
assert of(HELD, lambda row: row["after"]["right"]).max() < 0.3 < 0.7 < of(NLL, lambda row: row["after"]["right"]).min()
assert of(NLL, lambda row: row["base_kept"]).max() < 0.5 < 0.8 < of("DPO, 5e-6", lambda row: row["base_kept"]).min()

# %% fold="picture"
# The picture: letters, what follows them, and both, by setting.
shares = {key: [of(name, lambda row: row["after"][key]) for name in NAMES] for key in ("letters", "spelt", "right")}
labels = {"letters": "letters right", "spelt": "thanks to the letter, or none", "right": "both: right"}
firsts = {key: np.mean([row["before"][key] for row in RUNS["dpo"]]) for key in shares}
bars(
    ["before", *(name.removesuffix(", 1e-4") if "letters" in name or "NLL" in name else name for name in NAMES)],
    {labels[key]: [firsts[key], *(v.mean() for v in values)] for key, values in shares.items()},
    title=f"Pair accuracy 1.00 in all {len(NAMES)} settings; right answers from {min(v.mean() for v in shares['right']):.2f} to "
    f"{max(v.mean() for v in shares['right']):.2f} ({before.mean():.2f} before)",
    y_label="share of answers, sampled at temperature 1",
    alt=f"Before, {before.mean():.2f} of the answers are right. "
    + "; ".join(
        f"{name}: letters {a.mean():.2f}, what follows {b.mean():.2f}, right {c.mean():.2f}"
        for name, a, b, c in zip(NAMES, *shares.values())
    )
    + ". Means of three seeds.",
)

# %%
# Where do the wrong answers come from? The reference already misspelt thanks, but rarely began it.
LONGER = "DPO, 2e-5, longer reference"
for name in ("DPO, 1e-5", LONGER):
    begun, after_dpo = (control(name, lambda row, key=key: row[key]) for key in ("tail_before", "tail_after"))
    g0, g1, h_ = (control(name, lambda row, key=key: row[key]) for key in ("greedy_before", "greedy_after", "margin"))
    r0, r1 = (control(name, lambda row, key=key: row[key]["right"]) for key in ("before", "after"))
    print(
        f"{name}: once the comma stands, thanks is spelt right with chance {begun.round(2)} in the reference, {after_dpo.round(2)} after DPO; h {h_.round(1)}; "
        f"right {r0.round(2)} -> {r1.round(2)} when sampled, {g0.round(2)} -> {g1.round(2)} when greedy"
    )
    assert (control(name, lambda row: row["chosen_moved"]) > 0).all()
for name in ("DPO, 1e-5", LONGER):  # what follows the comma stays as it was in the reference
    assert abs(control(name, lambda row: row["tail_after"] - row["tail_before"])).max() < 0.03
short, longer_ = (control(name, lambda row: row["margin"]) for name in ("DPO, 1e-5", LONGER))
assert (longer_ > short).all() and control("DPO, 1e-5", lambda row: row["greedy_after"]).min() > 0.9

# %% [markdown]
# So a rising $\log\pi^+$ says nothing of the answers that DPO doesn't compare. DPO moves mass from the rejected answer's end to what comes
# after it. Once the comma stands, the rest is spelt as in the reference, right or wrong: DPO *exposes* what the reference says there. The
# longer trained reference loses fewer right answers when sampled at temperature 1, and more on average when greedy. The two runs also differ in their rate and
# margin, so they don't rank the references.
#
# That $\log\pi^+$ falls while $h$ grows is called **likelihood displacement** (Razin et al. 2024, arXiv:2410.08847). Three settings above show
# hardly any of it: a lower rate, IPO at $\beta = 0.1$, and a term that keeps the chosen answers likely (Pang et al. 2024, arXiv:2404.19733, here with weight 20).
# The first two stop at a smaller margin: IPO at $h = 1/(2\beta)$, and a lower rate because as many steps lead less far. So is the rate a remedy, or only an
# early stop too? Another run takes $3 \cdot 10^{-5}$ for 130 steps instead of 40. And how much of the third remedy is DPO's? **The controls:**

# %%
CHECKS = ("IPO to h = 31, 1e-4", "DPO + NLL, 1e-5", "NLL alone, 1e-4")
FARTHER = "DPO, 3e-5, 130 steps"
reached = {
    name: (of(name, lambda row: row["margin"]), of(name, lambda row: row["pieces_moved"]["letters"]))
    for name in ("DPO, 1e-4", "DPO, 3e-5")
}
reached[FARTHER] = (
    control(FARTHER, lambda row: row["margin"]),
    control(FARTHER, lambda row: row["pieces_moved"]["letters"]),
)
for name, (h_, sunk) in reached.items():
    print(f"{name}: margin h {h_.round(1)}, letters {sunk.round(1)} nats")
assert reached["DPO, 3e-5"][0].max() < 0.6 * reached["DPO, 1e-4"][0].min() and reached["DPO, 3e-5"][1].min() > -1
assert (reached[FARTHER][0] / reached["DPO, 1e-4"][0] > 0.9).all() and reached[FARTHER][1].max() < -8

# %%
for name in CHECKS:
    right, letters, both, base_kept, likeliest = (
        control(name, get)
        for get in (
            lambda row: row["after"]["right"],
            lambda row: row["pieces_moved"]["letters"],
            lambda row: row["after"]["both"],
            lambda row: row["base_kept"],
            lambda row: row["greedy_after"],
        )
    )
    print(
        f"{name}: sampled, right {right.round(2)}, with thanks {both.round(2)}; greedy, right {likeliest.round(2)}; "
        f"letters {letters.round(1)} nats, base kept {base_kept.round(2)}"
    )

# %%
kept_by = {name: control(name, lambda row: row["base_kept"]) for name in CHECKS}
assert all(control(name, lambda row: row["greedy_after"]).min() > 0.95 for name in CHECKS[1:])
right_by = {name: control(name, lambda row: row["after"]["right"]) for name in CHECKS}
assert (
    control(CHECKS[0], lambda row: row["pieces_moved"]["letters"]).max() < -5
)  # a far target: the letters sink as DPO's do
assert (
    kept_by["DPO + NLL, 1e-5"] > of(NLL, lambda row: row["base_kept"]) + 0.2
).all()  # the skills are lost to the rate
assert right_by["DPO + NLL, 1e-5"].max() < 0.7 and right_by["NLL alone, 1e-4"].min() > 0.8
assert (right_by["NLL alone, 1e-4"] > of(NLL, lambda row: row["after"]["right"])).all()

# %% [markdown]
# Neither early stop is a remedy. At the same margin the lower rate sinks the letters too, and so does IPO with a farther target. At DPO's gentle rate the NLL term hardly mends the spelling, and more of the base skills stay: what
# the row at $10^{-4}$ gains in right answers and loses in skills is mostly its rate's doing. And the NLL *alone*, plain supervised training on the
# chosen answers, gives more right answers here than DPO with NLL, when they are sampled at temperature 1. There, at these
# settings, the pairs add nothing that demonstrations don't. (Greedy answers are right nearly always in both rows with the NLL that were printed.)

# %% [markdown]
# ### A map of losses
#
# DPO is one of several losses for judged answers. They differ in what they need: pairs or single answers, a frozen reference or none, and what they do with an answer's length. With $\sigma$ the logistic
# function, $h$ the margin, $\ell = \log\pi - \log\pi_\text{ref}$ of one answer, $m = \frac1L \log \pi$ its mean per token, and $\text{odds} = e^m / (1 - e^m)$:
#
# | loss | for one pair | needs | where it stops |
# | --- | --- | --- | --- |
# | DPO, arXiv:2305.18290, equation 7 | $-\log\sigma(\beta h)$ | pairs, reference | never: it fades once $\beta h \gg 1$ |
# | cDPO: labels wrong with chance $\varepsilon$ | $-(1 - \varepsilon) \log\sigma(\beta h) - \varepsilon \log\sigma(-\beta h)$ | pairs, reference, $\varepsilon$ | at $\sigma(\beta h) = 1 - \varepsilon$ |
# | IPO, arXiv:2310.12036, equation 17 | $(h - \tfrac{1}{2\beta})^2$ | pairs, reference | at $h = \tfrac{1}{2\beta}$ |
# | KTO, arXiv:2402.01306, equation 7 | $1 - \sigma(\beta(\ell^+ - z))$, $1 - \sigma(\beta(z - \ell^-))$ | single answers, good or bad; reference; the drift $z \approx D(\pi \Vert \pi_\text{ref})$ | fades both ways |
# | SimPO, arXiv:2405.14734, equation 6 | $-\log\sigma(\beta(m^+ - m^-) - \gamma)$ | pairs, lengths, no reference | fades past the gap $m^+ - m^- = \gamma / \beta$ |
# | ORPO, arXiv:2403.07691, equations 4 to 7 | $-m^+ - \lambda \log\sigma\big(\log\tfrac{\text{odds}^+}{\text{odds}^-}\big)$ | pairs, lengths, no reference | the first term is SFT's and never stops |
#
# In SimPO, $\gamma$ is how much the rewards must differ; in ORPO, $\lambda$ is the weight of the second term (not 7.3's $\lambda$). Each loss is a line or two:

# %%
for loss_ in (kto_loss, simpo_loss, orpo_loss):
    print(loss_.__name__, *inspect.getsource(loss_).split('"""')[2].strip().splitlines(), sep="\n    ")
e, beta = 0.1, 0.5  # where cDPO's slope is 0
stop = torch.tensor([math.log((1 - e) / e) / beta], dtype=torch.float64, requires_grad=True)
dpo_loss(stop, beta, label_smoothing=e).backward()
assert abs(stop.grad) < 1e-12
print(f"cDPO with 10 % wrong labels and beta 0.5 stops at h = {stop.item():.2f} nats, IPO at h = {1 / (2 * beta):.2f}")

# %% [markdown]
# **On one task.** All of them teach thanks for polite requests, from the same 64 pairs, in 20 steps. A rate that suits one loss ruins another, so each has three, and its best one is chosen on one set of fresh
# requests and read on another. The figure is the chance, at temperature 1, of an answer that is right *and* ends in thanks. **SFT**, plain training on the chosen answers with the mean per answer, is ORPO without its second term: it is the control.
#
# **Predict.** By that chance, how many of the six losses do better than SFT, each at its best rate?

# %%
guess = None  # 0 to 6

# %%
MAP = recorded("loss_map")["rows"]
SIX = ("DPO", "cDPO", "IPO", "KTO", "SimPO", "ORPO")


def mapped(loss, rate, get):
    found = [row for row in MAP if (row["loss"], row["rate"]) == (loss, rate)]
    return np.array([get(row) for row in sorted(found, key=lambda row: row["seed"])])


swept = {loss: {rate: mapped(loss, rate, lambda row: row["chosen_by"]["both"])
                for rate in sorted({row["rate"] for row in MAP if row["loss"] == loss})} for loss in (*SIX, "SFT")}  # fmt: skip
at_best = {loss: max(found, key=lambda rate: found[rate].mean()) for loss, found in swept.items()}

# %%
after_map = {
    loss: {key: mapped(loss, rate, lambda row, key=key: row["after"][key]) for key in ("both", "right", "greedy")}
    for loss, rate in at_best.items()
}
for loss, found in after_map.items():
    rest = {
        key: mapped(loss, at_best[loss], lambda row, key=key: row[key]).mean()
        for key in ("margin", "chosen_moved", "base_kept")
    }
    print(
        f"{loss:>5} at {at_best[loss]:g}: both {found['both'].round(2)}, right {found['right'].round(2)}, both when greedy {found['greedy'].round(2)}; "
        f"h {rest['margin']:.1f}, log pi+ {rest['chosen_moved']:+.1f}, base kept {rest['base_kept']:.2f}"
    )
better = sum((after_map[loss]["both"] > after_map["SFT"]["both"]).all() for loss in SIX)
assert after_map["DPO"]["greedy"].mean() > after_map["SFT"]["greedy"].mean() - 0.02  # the likeliest answer is no worse
predicted(
    "losses that do better than SFT with every seed",
    guess,
    better,
    why="A loss that only compares is content once the chosen answer has gained on the rejected one; SFT asks for likely answers, which is what the figure counts. Here the chosen answers are good demonstrations too.",
)

# %% fold="picture"
# The picture: each loss at each of its rates, by what it leaves to all other answers.
sweep(
    {loss: {f"{rate:g}": (1 - found[rate]).tolist() for rate in found} for loss, found in swept.items()},
    title=f"At temperature 1, at its best rate, DPO leaves {1 - after_map['DPO']['both'].mean():.2f} to other answers, IPO {1 - after_map['IPO']['both'].mean():.2f}, "
    f"plain training on the chosen answers {1 - after_map['SFT']['both'].mean():.2f}",
    y_label="chance of any other answer; lower is better",
    alt="; ".join(
        f"{loss}: " + ", ".join(f"{1 - found[rate].mean():.2f} at {rate:g}" for rate in found)
        for loss, found in swept.items()
    )
    + ". Chances of any answer but the right one with thanks, means of three seeds; rings mark the best rates.",
)

# %%
COMPARE = ("DPO", "cDPO", "IPO", "KTO", "SimPO")
best_of_five = np.max([after_map[loss]["both"] for loss in COMPARE], axis=0)
finding(
    "Sampled at temperature 1, the losses that only compare end below plain training on the chosen answers, where these are good demonstrations",
    figure="chance at temperature 1 of the right answer with thanks, SFT less the best of DPO, cDPO, IPO, KTO and SimPO",
    measured=after_map["SFT"]["both"] - best_of_five,
    null="SFT less ORPO, which has SFT's term in it",
    control=after_map["SFT"]["both"] - after_map["ORPO"]["both"],
    holds=lambda gaps: min(gaps) > 0.1,
    scope="thanks for polite requests, 64 pairs, 20 steps of AdamW, each loss at the best of three rates; three seeds",
)

# %%
same_rate = {loss: mapped(loss, 1e-5, lambda row: row["after"]["both"]) for loss in ("DPO", "cDPO", "KTO", "SimPO")}
print("at one rate, 1e-5:", {loss: found.round(3) for loss, found in same_rate.items()})
assert max(abs(same_rate[loss] - same_rate["DPO"]).max() for loss in ("cDPO", "KTO")) < 0.002
steep = {loss: mapped(loss, 1e-4, lambda row: row["after"]["both"]) for loss in ("DPO", "cDPO", "KTO")}
pressed = 0.1 * mapped("DPO", 1e-4, lambda row: row["margin"])
print(f"at 1e-4, DPO's beta h {pressed.round(1)}:", {loss: found.round(3) for loss, found in steep.items()})
assert pressed.min() > 1 and (steep["KTO"] > steep["DPO"] + 0.1).all()
gentle, kept_sft = (
    mapped("SFT", 1e-4, get) for get in (lambda row: row["after"]["both"], lambda row: row["base_kept"])
)
kept_dpo = mapped("DPO", at_best["DPO"], lambda row: row["base_kept"])
print(
    f"SFT at 1e-4, its lowest rate: both {gentle.round(2)}, base kept {kept_sft.round(2)}; DPO's best keeps {kept_dpo.round(2)}"
)
assert (gentle > best_of_five + 0.1).all() and at_best["DPO"] < at_best["SFT"] == max(swept["SFT"])

# %% [markdown]
# Three things to take along. First, the figure asks how much chance the right answer has at temperature 1, and that is what SFT trains. Greedy answers are
# right with thanks about as often after DPO as after SFT at its best rate: a comparison moves the likeliest answer, and leaves chance to the others.
# Second, at $10^{-5}$ DPO, cDPO and KTO can't be told apart: near $h = 0$ their gradients point the same way and differ in size, and Adam divides by the size. At $10^{-4}$, where $\beta h$ passes 1, they part: KTO leaves
# the right answer with thanks a larger chance than DPO, with every seed. Third, a comparison of losses at *one* rate compares rates: DPO's best rate is a fraction of SFT's. (SFT's is the highest that was tried, and costs most of the base
# skills. At its lowest rate, SFT keeps about as many of them as DPO does at its best, and is still ahead.)

# %% [markdown]
# **Run one row again**, the ruined one of seed 0, and read what the policy says now. On the CPU, as the table was.

# %%
cpu_reference = reference if device.type == "cpu" else frozen_copy(polite_policy(0))
ruined = frozen_copy(cpu_reference).requires_grad_(True)
seen = fit_preferences(
    ruined, cpu_reference, polite_pairs(64, 100), steps=40, rate=1e-4, loss_of=partial(dpo_loss, beta=0.1)
)
chosen, rejected = (
    (now - then).mean().item()
    for now, then in zip(*(pair_logprobs(m, polite_pairs(128, 200)) for m in (ruined, cpu_reference)))
)
after = measure_manners(ruined, cpu_reference)
row = next(r for r in RUNS["dpo"] if r["name"] == "DPO, 1e-4" and r["seed"] == 0)
print(
    f"now: chosen {chosen:+.1f}, rejected {rejected:+.1f} nats, loss {seen[0].loss:.3f} -> {seen[-1].loss:.3f}, right {after.right:.2f}"
)
print(
    f"table: chosen {row['chosen_moved']:+.1f}, rejected {row['rejected_moved']:+.1f} nats, right {row['after']['right']:.2f}"
)
assert abs(chosen / row["chosen_moved"] - 1) < 0.5 and chosen < 0 and after.right < 0.2 and seen[-1].loss < 0.2

# %%
for name, model in (("before", cpu_reference), ("ruined", ruined)):
    mass = sum(one.exp() for one in pair_logprobs(model, polite_pairs(128, 5))).mean().item()
    print(
        f"{name}: pi+ + pi- by their log-probabilities {mass:.2f}, share of sampled answers {measure_manners(model, cpu_reference).right:.2f}"
    )
    assert abs(mass - measure_manners(model, cpu_reference).right) < 0.1
from ftmath import roll_out

texts = [prompt for prompt, _ in polite_requests(3, 5)]
print(dict(zip(texts, map(repr, roll_out(ruined, texts, 1, temperature=0.0)[1]))))

# %% [markdown]
# **Check.** At the start the loss is $\log 2$ whatever $\beta$; and swapping a pair turns $e^{-\mathcal L}$ into its complement.

# %%
for beta in (0.05, 1.0):
    assert abs(dpo_loss(torch.zeros(5), beta) - math.log(2)) < 1e-6
h = torch.linspace(-30, 30, 61, dtype=torch.float64)
one_way, other_way = (torch.stack([dpo_loss(v, 0.3) for v in values]) for values in (h, -h))
assert torch.allclose((-one_way).exp() + (-other_way).exp(), torch.ones(61, dtype=torch.float64))
assert abs(seen[0].loss - math.log(2)) < 1e-5

# %% [markdown]
# **The mistake: a reference that is the policy.** `reference = policy` copies a name, not a model. The symptom is a loss of
# exactly 0.6931 at *every* step, while the weights move. (`fit_preferences` refuses it; so it's done by hand here.) The
# second mistake, *means* of log-probabilities in the place of sums, divides each margin by a length: with the same $\beta$, the
# loss tells of a policy that has hardly moved. (Some objectives divide by the length on purpose, SimPO for one, Meng et al. 2024,
# arXiv:2405.14734. They are other objectives, with a $\beta$ of another size; the mistake is to mix the two.)

# %%
policy = frozen_copy(reference).requires_grad_(True)
optimizer = torch.optim.SGD(policy.parameters(), lr=1e-3)
sides = [batch([(pair[0], pair[side]) for pair in pairs[:8]]).to(device) for side in (1, 2)]
losses = []
for _ in range(4):
    ours = [model_logprob(policy, side.ids, side.answer_mask) for side in sides]
    loss = dpo_loss(margin(*ours, *ours), 0.1)  # its own log-probabilities stand in the reference's place
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    losses.append(loss.item())
moved = max(float((a - b).detach().abs().max()) for a, b in zip(policy.parameters(), reference.parameters()))
print(f"losses {[round(v, 6) for v in losses]}, the largest move of a weight {moved:.1e}")
assert max(losses) - min(losses) < 1e-6 and moved > 1e-5
try:
    fit_preferences(policy, policy, pairs, steps=1, rate=1e-5)
    raise AssertionError("an aliased reference must be refused")
except ValueError as error:
    print(f"refused: {error}")

# %%
fresh_pairs = polite_pairs(128, 200)
sides = [batch([(pair[0], pair[side]) for pair in fresh_pairs]) for side in (1, 2)]
sums = [*pair_logprobs(ruined, fresh_pairs), *pair_logprobs(cpu_reference, fresh_pairs)]
means = [one / sides[k % 2].answer_mask.sum(1) for k, one in enumerate(sums)]
by_sum, by_mean = (margin(*four) for four in (sums, means))
print(
    f"one policy, two readings: h {by_sum.mean():.1f} and loss {dpo_loss(by_sum, 0.1):.3f} by sums, "
    f"h {by_mean.mean():.1f} and loss {dpo_loss(by_mean, 0.1):.3f} by means"
)
assert by_mean.mean() < 0.5 * by_sum.mean() and dpo_loss(by_mean, 0.1) > 3 * dpo_loss(by_sum, 0.1)

# %% [markdown]
# **In practice** print loss, margin, $\log \pi^+$ and $\log \pi^-$, and read samples. A $\log\pi^+$ that falls is a sign that has been seen in
# models of billions of parameters too (Razin et al. 2024, arXiv:2410.08847); that it rises says nothing about the answers that no pair compares. Where
# answers are short, $\pi^+ + \pi^-$ needs no sampling.
#
# → [exercise 7.4](exercises.ipynb#7.4-DPO-loss) · graded: [p08, the DPO loss](../../source/p08_dpo_loss/p08_dpo_loss.ipynb)

# %% [markdown]
# ## 7.5 Preference over-optimization
#
# **The proxy is the truth plus an error. Whoever picks the answer with the largest proxy also picks a large error. How much truth is
# gained depends on how heavy the error's tail is beside the truth's.**
#
# $$\hat r = r + \varepsilon, \qquad D_\text{KL}(\text{best of } n \,\Vert\, \pi_\text{ref}) \le \log n - \frac{n - 1}{n}, \qquad
# R_\text{gold}(d) = d\,(a - b\,d), \quad d = \sqrt{D_\text{KL}} .$$
#
# **Best of $n$**: draw $n$ answers and keep the one with the largest reward. $d$ is in $\sqrt{\text{nats}}$. The **proxy** $\hat r$ is the reward that training sees; the **gold reward** $r$ is what was meant. The KL is equal to its bound if no two draws tie. The last is a
# *fit* for best-of-$n$, with its peak $a^2/(4b)$ at $d^\star = a/(2b)$; for updates by reinforcement learning the same paper fits
# another form, $d\,(\alpha - \beta' \log d)$ (Gao et al. 2022, arXiv:2210.10760, section 3).
#
# <details><summary>Why the tails decide</summary>
#
# Let $\varepsilon$ be independent of $r$. For Gaussian $r$ and $\varepsilon$, $\mathbb E[r \mid \hat r] = \hat r\,\sigma_r^2 / (\sigma_r^2 + \sigma_\varepsilon^2)$: a
# share of every gain is real, at any $n$. If $\varepsilon$ has a heavy tail and $r$ a light one, a huge $\hat r$ is almost surely a huge
# $\varepsilon$, so $\mathbb E[r \mid \hat r] \to \mathbb E[r]$: in the end the pick is as good as a random one. (Catastrophic Goodhart, Kwa et
# al. 2024, arXiv:2407.14503. They too assume independence and a light-tailed truth; and the errors of the reward models that they look at are
# consistent with *light* tails.) If both tails are alike, as in the third case below, a share of the gain stays real however heavy they are.
#
# The best of $n$ has rank 1 of $n$: with $u$ the reference's quantile of the reward, its density there is $n u^{n-1}$, and
# $\int_0^1 n u^{n-1} \log(n u^{n-1})\, du = \log n - (n-1)/n$, if the reward has no ties. A language model says the same string
# twice, and equal strings tie: then the formula is an upper bound (Beirami et al. 2024, arXiv:2401.01879), which 7.3's cap
# $-\log \pi_\text{ref}(y^\star)$ needs, since $\log n$ grows without end.
# </details>

# %% [markdown]
# **Worked**: $a = 2$, $b = 0.5$.

# %%
top = 2 / (2 * 0.5)
n_at = next(n for n in range(1, 1000) if best_of_n_kl(n) >= top**2)
assert gold_reward(top**2, 2, 0.5) == 2.0 and n_at == 148
print(
    f"peak at d = {top:g}, {top**2:g} nats: gold 2; best-of-n is there at n = {n_at}; n = 64 is {best_of_n_kl(64):.3f} nats"
)

# %% [markdown]
# **Predict.** Gold rewards are standard normal. The proxy adds an error: standard normal, or Student's with two degrees of
# freedom. The best of 256 by proxy has a gold reward of 2.0 in the first case. In the second?

# %%
guess = None  # gold reward, where 0 is a random answer

# %%
from ftmath.widgets.preferences import NS, picked

gauss, heavy = ([picked(tail, seed) for seed in range(3)] for tail in (0, 1))
G, H = (np.array([gold for _, gold in found]) for found in (gauss, heavy))
proxies = np.array([proxy for proxy, _ in heavy])


def both_heavy(seed, samples=2**17):
    """Return gold of the best of n by proxy, where truth and error are both Student's with two degrees of freedom."""
    rng = np.random.default_rng(seed)
    truth, error = rng.standard_t(2, (2, samples))
    kept = [(truth + error).reshape(-1, n).argmax(1)[:, None] for n in NS]
    return [float(np.take_along_axis(truth.reshape(-1, n), best, 1).mean()) for n, best in zip(NS, kept)]


B = np.array([both_heavy(seed) for seed in range(3)])
peak = NS[int(H.mean(0).argmax())]
print(
    f"best of 256, three draws: Gaussian {G[:, -1].round(2)}, Student {H[:, -1].round(2)}, where its proxy says {proxies[:, -1].round(1)}"
)
predicted("gold reward of the best of 256 under a heavy tail", guess, H[:, -1].mean())

# %%
for proxy, _ in gauss + heavy:
    assert list(proxy) == sorted(proxy)  # the proxy never falls
assert np.allclose(G, np.array([proxy for proxy, _ in gauss]) / 2, atol=0.05)  # half of each gain is real
assert (B.argmax(1) == len(NS) - 1).all()  # heavy-tailed truth beside a heavy-tailed error: no peak
print(f"truth and error both Student: gold of the best of 256 {B[:, -1].round(1)}, and growing with each n")
assert (H[:, -1] < 0.5 * H.max(1)).all() and (G.argmax(1) == len(NS) - 1).all()
lines(
    list(NS),
    {"Gaussian error": G.mean(0).tolist(), "heavy-tailed error": H.mean(0).tolist()},
    log_x=True,
    title=f"With a heavy-tailed error and a Gaussian truth, gold peaks at n = {peak} and falls to {H[:, -1].mean():.2f}; the proxy says {proxies[:, -1].mean():.0f}",
    x_label="n, answers to pick from",
    y_label="gold reward of the pick",
    alt="Two curves against n. Gaussian: "
    + ", ".join(f"{v:.2f}" for v in G.mean(0))
    + ". Heavy-tailed: "
    + ", ".join(f"{v:.2f}" for v in H.mean(0))
    + f" for n = {', '.join(map(str, NS))}.",
)

# %%
best_of_n_explorer()

# %% [markdown]
# ### A policy gradient from nothing
#
# Best of $n$ picks; training moves the weights instead. The problem: the reward is a number that a rule or a judge gives to a finished
# answer, and it has no gradient. The way out takes three lines. For one prompt, with the policy $\pi_\theta$ over answers $y$,
#
# $$\nabla_\theta\, \mathbb E_{y \sim \pi_\theta}[r(y)] = \sum_y r(y)\, \nabla_\theta\, \pi_\theta(y)
# = \sum_y \pi_\theta(y)\, r(y)\, \nabla_\theta \log \pi_\theta(y) = \mathbb E_{y \sim \pi_\theta}\big[r(y)\, \nabla_\theta \log \pi_\theta(y)\big] .$$
#
# 1. The mean is a sum over answers. Only the probabilities depend on $\theta$, so only they are differentiated.
# 2. $\nabla \pi = \pi\, \nabla \log \pi$, by the chain rule for the logarithm. $\nabla_\theta \log \pi_\theta(y)$ is called the **score** of $y$.
# 3. A sum weighted by $\pi_\theta$ is a mean over draws from it. So draw answers, and average reward times score.
#
# This is the **policy gradient**, and the estimate from draws is REINFORCE (Williams 1992, doi:10.1007/BF00992696). An answer's log-probability is a sum over its tokens, so its score is too, and
# the reward of the whole answer multiplies each of them. In code, one averages $-r \log \pi$ and lets autograd do the rest:

# %%
print(inspect.getsource(reinforce_loss).split('"""')[2].strip())
logits4 = (ref4.log() + torch.tensor([0.3, -0.5, 0.8, 0.1], dtype=torch.float64)).requires_grad_(True)
log_p = logits4.log_softmax(0)
p4 = log_p.detach().exp()


def slope_of(value):
    (found,) = torch.autograd.grad(value, logits4, retain_graph=True)
    return found


true_slope = slope_of((log_p.exp() * r4).sum())
every_answer = sum(chance * -slope_of(reinforce_loss(one[None], r[None])) for chance, one, r in zip(p4, log_p, r4))
some = torch.multinomial(p4, 100_000, replacement=True, generator=torch.Generator().manual_seed(0))
for name, found in {
    "gradient of E r": true_slope,
    "every answer": every_answer,
    "100,000 draws": -slope_of(reinforce_loss(log_p[some], r4[some])),
}.items():
    print(f"{name:>15}: {np.round(found.numpy(), 4)}")
assert torch.allclose(every_answer, true_slope)

# %% [markdown]
# ### A skill that a rule can verify
#
# From here on, our policy is a poor one. It learned to answer polite requests from demonstrations in which each letter was replaced by a
# random one with probability 0.15, and half of which ended in thanks. The **verifier** gives 1 if the letters are right, and 0 otherwise; it doesn't look at
# what follows them. A round draws eight answers to each of eight prompts and takes one step.
#
# **Predict.** About four in ten answers to *fresh* requests, sampled at temperature 1, have the right letters; in the demonstrations it was a little under half. What share is right after 16 such rounds?

# %%
guess = None  # a share, sampled at temperature 1

# %%
PG = recorded("policy_runs")["rows"]


def skill(method, get):
    """Return one number per seed of a method's runs on the skill."""
    found = [row for row in PG if (row["table"], row["method"]) == ("skill", method)]
    return np.array([get(row) for row in sorted(found, key=lambda row: row["seed"])])


first_share = skill("Dr. GRPO", lambda row: row["before"]["right"])
OWN = "own greedy answer"
last_share = {m: skill(m, lambda row: row["after"]["right"]) for m in ("Dr. GRPO", "GRPO", "coin", OWN)}
shown_right = np.mean(
    [(1 - 0.15 * 25 / 26) ** letters for letters in range(3, 8)]
)  # one draw in 26 is the letter itself
print(f"demonstrations without a typo: {shown_right:.2f}")
print("before", first_share.round(2), "after", {m: found.round(2) for m, found in last_share.items()})
predicted(
    "share of right answers to fresh requests",
    guess,
    last_share["Dr. GRPO"].mean(),
    why="Among eight answers some are right nearly always, and each round makes what those have in common more frequent.",
)

# %% [markdown]
# Did the verifier teach the policy to spell? **The control** asks the policy itself: the same rounds, but an answer is rewarded if its letters are those of the *first policy's own greedy answer*, right or wrong. No verifier is asked.

# %%
greedy_share = {m: skill(m, lambda row: row["after"]["greedy"]) for m in ("Dr. GRPO", OWN)}
greedy_first = skill("Dr. GRPO", lambda row: row["before"]["greedy"])
for name, found, likeliest in [
    ("before any update", first_share, greedy_first),
    *((f"judge: {name}", last_share[m], greedy_share[m]) for name, m in (("the verifier", "Dr. GRPO"), (OWN, OWN))),
]:
    print(f"{name:>24}: right {found.round(2)} sampled at temperature 1, {likeliest.round(2)} greedy")
gain = {m: found - first_share for m, found in last_share.items()}
assert greedy_first.min() > 0.8 and (gain["Dr. GRPO"] > gain[OWN]).all()

# %%
finding(
    "Most of the gain with a verifier is sharpening: the policy's own greedy answers as the judge bring nearly as much",
    figure="gain in right answers sampled at temperature 1, with the policy's own greedy answers as the judge over that with the verifier",
    measured=gain[OWN] / gain["Dr. GRPO"],
    null="the same updates with rewards that a coin gives",
    control=gain["coin"] / gain["Dr. GRPO"],
    holds=lambda shares: min(shares) > 0.7,
    scope="polite requests, demonstrations with 15 % typos, 16 rounds of 64 answers, AdamW at 1e-4, centred rewards; three seeds",
)

# %% [markdown]
# So the policy already knew. Typos are random, so the right letter was the likeliest at nearly every place; sampling at temperature 1 repeats the typos, and the updates take that noise away. To make
# an answer likelier that was the likeliest already is called **sharpening**. What the verifier adds to it here is small. Before you credit a verifier, look at the greedy answers of the policy that you start from.

# %% fold="picture"
# The picture: the reward of each round, with a verifier and with a coin.
per_round = {m: skill(m, lambda row: row["reward"]).mean(0) for m in ("Dr. GRPO", "GRPO", "coin")}
lines(
    list(range(1, 17)),
    {("a coin's rewards" if m == "coin" else f"verifier, {m}"): found.tolist() for m, found in per_round.items()},
    title=f"With a verifier, right answers at temperature 1 rise from {per_round['Dr. GRPO'][0]:.2f} to {per_round['Dr. GRPO'][-1]:.2f} in 16 rounds",
    x_label="round",
    y_label="mean reward of the round's 64 answers",
    alt="; ".join(
        f"{m}: {found[0]:.2f} in the first round, {found[-1]:.2f} in the last" for m, found in per_round.items()
    )
    + ". Means of three seeds.",
)

# %% [markdown]
# ### The baseline
#
# A judge's zero is arbitrary (7.1), but REINFORCE feels it. If every reward is 1 higher, each answer that was drawn is pushed up, the wrong
# ones too. On average nothing changes, because the mean score is zero:
#
# $$\mathbb E_{y \sim \pi}\big[b\, \nabla \log \pi(y)\big] = b \sum_y \nabla \pi(y) = b\, \nabla 1 = 0 \qquad \text{for any } b \text{ that doesn't depend on } y.$$
#
# But the *variance* of the estimate grows with $b$. So subtract a **baseline**, a guess of the reward before the answer is known. With several answers to one
# prompt, the guess costs nothing: the mean reward of the *other* answers (**leave one out**, Ahmadian et al. 2024, arXiv:2402.14740). What is left,
# reward less baseline, is the **advantage** $A$.

# %%
spread_of = {name: np.array([row["variance"][name] for row in PG if row["table"] == "gradients"])
             for name in ("-1", "0", "1", "leave one out")}  # fmt: skip
for name, found in spread_of.items():
    rewards_are = (
        "leave one out, any shift"
        if name == "leave one out"
        else f"rewards {int(name)} and {int(name) + 1}, no baseline"
    )
    print(f"{rewards_are:>28}: variance of a round's gradient {found.round(0)}")
right_score, wrong_score = (
    np.array(
        [
            np.mean([s for s, ok in zip(row["score"], row["right"][::16]) if ok == side])
            for row in PG
            if row["table"] == "gradients"
        ]
    )
    for side in (1, 0)
)
print(f"mean squared score: right answers {right_score.round(-1)}, wrong ones {wrong_score.round(-1)}")

# %% fold="checks"
# Checks: the mean score is 0, leave one out ignores a shift, and is the centred reward times n / (n - 1).
ones = torch.ones(4, dtype=torch.float64)
assert sum(c * slope_of(one) for c, one in zip(p4, log_p)).abs().max() < 1e-12  # the mean score is 0
grouped = torch.tensor([[1.0, 0, 0, 1], [0, 0, 1, 0]])
assert torch.allclose(leave_one_out(grouped), leave_one_out(grouped + 5)) and torch.allclose(
    leave_one_out(grouped), 4 / 3 * centred_advantages(grouped)
)

# %%
finding(
    "Leaving one out lowers the variance of the gradient where the judge's zero lies far off",
    figure="variance with leave one out over variance without a baseline, rewards 1 and 2",
    measured=spread_of["leave one out"] / spread_of["1"],
    null="rewards 0 and 1: the judge's zero is where wrong answers stand",
    control=spread_of["leave one out"] / spread_of["0"],
    holds=lambda ratios: max(ratios) < 0.5,
    scope="the policy before the updates, 16 rounds of 64 answers, all parameters; three seeds",
)

# %% [markdown]
# The control is worth a second look: with rewards 0 and 1, the baseline gains nothing here. The variance is a mean of squared advantage times squared score. Wrong answers are
# unlikely ones, so their squared score is larger, as printed above; a reward of 0 leaves exactly these out. So leaving one out isn't the baseline of least variance. Its merit is that the judge's zero no
# longer matters. Centred rewards (less the mean of all $n$, as in Dr. GRPO) are $(n-1)/n$ times the leave-one-out advantages, so using them is the same as a smaller rate.
#
# ### Several updates on one round: ratio and clip
#
# Drawing answers takes most of the time, so it pays to take several updates on each round. After the first update, the answers are no longer
# draws from the current policy: they were drawn from $\pi_\text{old}$. The **importance ratio** corrects the mean, $\mathbb E_{\pi}[f] = \mathbb E_{\pi_\text{old}}\big[\tfrac{\pi}{\pi_\text{old}} f\big]$. It is
# applied to each token by itself, which leaves out that the tokens before it have become more or less likely too. PPO's **clip** (Schulman et al. 2017, arXiv:1707.06347, equation 7) stops a token
# whose ratio $\rho$ has already moved as far as its advantage asks:
#
# $$\mathcal L_t = -\min\big(\rho_t A,\ \text{clip}(\rho_t,\, 1 - \epsilon,\, 1 + \epsilon)\, A\big), \qquad \rho_t = \frac{\pi(y_t \mid \cdot)}{\pi_\text{old}(y_t \mid \cdot)} .$$
#
# A token with $A > 0$ loses its gradient above $1 + \epsilon$, one with $A < 0$ below $1 - \epsilon$. A token that moved the *wrong* way keeps it. At the first update every ratio is 1, so *with one
# update a round the clip does nothing*, whatever the settings say:


# %%
def one_round(clip, updates):
    policy = frozen_copy(cpu_reference).requires_grad_(True)
    settings = PolicySettings(steps=updates, rate=1e-4, beta=0.0, clip=clip, updates_per_round=updates)
    count = lambda prompt, answer: float(answer.count("thanks"))  # noqa: E731
    seen = improve_policy(policy, cpu_reference, [prompt for prompt, _ in polite_requests(48, 300)], count, settings)
    print(f"{updates} updates a round, clip {clip:g}: clipped {[f'{share:.1%}' for share in seen[0].clipped]}")
    return torch.cat([p.detach().flatten() for p in policy.parameters()])


alike = {updates: torch.equal(one_round(0.05, updates), one_round(10.0, updates)) for updates in (1, 3)}
print({f"{updates} updates a round": f"clip 0.05 and 10 give the same bits: {same}" for updates, same in alike.items()})
assert alike == {1: True, 3: False}

# %% [markdown]
# ### The group's advantage, and its two biases
#
# GRPO (Shao et al. 2024, arXiv:2402.03300) divides the centred reward by the group's standard deviation, and averages the tokens' losses over each answer's length $L$ first:
# $A_i = (r_i - \bar r)/s$ and $\frac1n \sum_i \frac1{L_i} \sum_t \mathcal L_{i,t}$. Neither divisor is in the policy gradient. What do they do? (Both were pointed out, and dropped, by
# Dr. GRPO: Liu et al. 2025, arXiv:2503.20783, section 3.)
#
# **The standard deviation weighs prompts by difficulty.** Let a prompt be right with probability $p$. The mean score of right answers is $\nabla p / p$, that of wrong ones
# $-\nabla p / (1 - p)$, so the mean update is
#
# $$\mathbb E[A_i\, \nabla \log \pi(y_i)] = w(p)\, \nabla p, \qquad w(p) = \mathbb E[A_i \mid \text{right}] - \mathbb E[A_i \mid \text{wrong}] .$$
#
# With centred rewards $w = (n-1)/n$ for every $p$: that is the gradient of the mean reward. With the standard deviation, prompts that are nearly always or nearly never right weigh more, from $n = 4$ on, and the more
# so the larger the group. In groups of two or three, every group with unequal rewards has the same standard deviation, so dividing by it only changes the rate.


# %%
def weight(p, n, divided):
    """Return w(p): a sum over how many of the other n - 1 answers are right."""

    def advantage(mine, rights):
        spread = math.sqrt(rights * (n - rights) / n / (n - 1)) if divided else 1.0
        return (mine - rights / n) / spread if spread else 0.0

    chances = [math.comb(n - 1, k) * p**k * (1 - p) ** (n - 1 - k) for k in range(n)]
    return sum(chance * (advantage(1, k + 1) - advantage(0, k)) for k, chance in enumerate(chances))


share = [0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 0.8, 0.9, 0.95, 0.98]
curves_w = {f"{name}, n = {n}": [weight(p, n, name == "divided by the std") / weight(0.5, n, name == "divided by the std") for p in share]
            for name, n in (("centred", 8), ("divided by the std", 8), ("divided by the std", 64))}  # fmt: skip
assert max(abs(w - 1) for w in curves_w["centred, n = 8"]) < 1e-9 and abs(weight(0.3, 8, False) - 7 / 8) < 1e-12
assert curves_w["divided by the std, n = 64"][1] > 1.5 > curves_w["divided by the std, n = 64"][5]
draws8 = (torch.rand(200_000, 8, generator=torch.Generator().manual_seed(0)) < 0.1).double()
by_draws = (group_advantages(draws8, eps=0.0).nan_to_num() * (draws8 / 0.1 - (1 - draws8) / 0.9)).mean()
print(f"w(0.1) for n = 8, divided: {weight(0.1, 8, True):.3f} by the sum, {by_draws:.3f} by 200,000 groups drawn")
assert abs(by_draws - weight(0.1, 8, True)) < 0.03
rare = {n: weight(0.05, n, True) / weight(0.5, n, True) for n in (2, 3, 4, 8, 16, 64)}
print("divided, weight at p = 0.05 over that at 0.5:", {f"n = {n}": round(found, 2) for n, found in rare.items()})
assert (
    abs(rare[2] - 1) < 1e-9 and abs(rare[3] - 1) < 1e-9 and list(rare.values())[1:] == sorted(list(rare.values())[1:])
)

# %% fold="picture"
# The picture: a prompt's weight by how often it is right.
lines(
    share,
    curves_w,
    title=f"Divided by the std in groups of 8, a prompt that is right 1 time in 20 weighs {rare[8]:.2f} times one that is right half the time",
    x_label="p, share of right answers to a prompt",
    y_label="weight of its gradient, 1 at p = 1/2",
    alt="; ".join(
        f"{name}: " + ", ".join(f"{w:.2f} at {p:g}" for p, w in zip(share, found)) for name, found in curves_w.items()
    ),
)

# %% [markdown]
# **The mean over an answer's tokens pulls on length.** Take the wrong answers to one prompt: they all have the same advantage $A < 0$. After the letters, the policy chooses whether to add thanks. For that choice, the mean update is
#
# $$\mathbb E\Big[\frac{A}{L}\, \nabla \log \pi(\text{rest})\Big] = A\, \nabla\, \mathbb E\Big[\frac1L\Big] .$$
#
# This is the gradient step of 7.5's first formula with $1/L$ in the reward's place. With $A < 0$ it lowers $\mathbb E[1/L]$, so wrong answers become longer; with $A > 0$, right ones become shorter. With a fixed divisor $c$ instead of $L$, the
# same line gives $A\, \nabla \tfrac1c = 0$. The verifier doesn't look at what follows the letters, so any pull there comes from the divisor. The next cell measures it on the first policy's answers. An answer pulls on the logit of *going on* by
# $\frac{A}{L}(\mathbb 1[\text{went on}] - \pi(\text{go on}))$.


# %%
def pull(row, side, fixed):
    """Return the mean pull towards going on, over right (1) or wrong (0) answers, as a share of the mean absolute pull."""
    right, went, chance, tokens = (np.array(row[key]) for key in ("right", "goes_on", "chance", "tokens"))
    A = right - right.reshape(-1, 8).mean(1).repeat(8)
    pulls = (A / (24 if fixed else tokens) * (went - chance))[right == side]
    return pulls.mean() / abs(pulls).mean()


FIRST = [row for row in PG if row["table"] == "gradients"]
pulls = {
    (side, fixed): np.array([pull(row, side, fixed) for row in FIRST]) for side in (1, 0) for fixed in (False, True)
}
for (side, fixed), found in pulls.items():
    print(f"{'right' if side else 'wrong'} answers, {'fixed divisor' if fixed else 'own length'}: {found.round(2)}")
assert pulls[1, False].max() < -0.2 and pulls[0, False].min() > 0.2

# %%
finding(
    "The mean over an answer's tokens pulls right answers to be shorter, though the verifier doesn't look at what follows the letters",
    figure="mean pull on going on with thanks behind right letters, over the mean absolute pull",
    measured=pulls[1, False],
    null="the same answers with a fixed divisor, as in Dr. GRPO",
    control=pulls[1, True],
    holds=lambda found: max(found) < -0.2,
    scope="1,024 answers of the first policy, groups of eight, centred rewards; three seeds",
)

# %%
drift = {
    m: skill(m, lambda row: row["after"]["thanks_right"] - row["before"]["thanks_right"]) for m in ("GRPO", "Dr. GRPO")
}
for m, found in drift.items():
    print(f"{m}: share of right answers that end in thanks, after 16 rounds less before: {found.round(2)}")

# %% [markdown]
# In whole runs the pull is hard to see: rewards rise within a few rounds, right answers fill the groups, and their advantages vanish. What a run of three seeds can't show, an
# expectation can.
#
# ### Where the price of KL belongs
#
# Let $\ell = \log\pi - \log\pi_\text{ref}$. Three estimates of KL from drawn answers are in use, $k_1 = \ell$, $k_2 = \ell^2/2$ and $k_3 = e^{-\ell} - 1 + \ell$ (Schulman,
# http://joschu.net/blog/kl-approx.html), and two places: in the reward, $r - \beta\,\ell$ (InstructGPT, arXiv:2203.02155, equation 2), or as a term of the loss (GRPO, with $k_3$). As *values*, $k_1$ and $k_3$ are
# unbiased for $D(\pi \Vert \pi_\text{ref})$. But an update uses their *gradients*, at answers that were drawn before. Which divergence does each gradient belong to? On the four answers of 7.3 the mean over all draws is a sum, so nothing is left to chance:

# %%
reverse = slope_of((log_p.exp() * (log_p - ref4.log())).sum())  # D(pi || ref)
forward = slope_of((ref4 * (ref4.log() - log_p)).sum())  # D(ref || pi)
in_the_loss = {f"{est.__name__} in the loss": slope_of((p4 * est(log_p, ref4.log())).sum()) for est in (k1, k2, k3)}
ratio4 = (log_p - log_p.detach()).exp()
in_the_loss["ratio times k3 in the loss"] = slope_of((p4 * ratio4 * k3(log_p, ref4.log())).sum())
no_reward = priced_rewards(torch.zeros(4, dtype=torch.float64), log_p, ref4.log(), beta=1.0)
in_the_loss["k1 in the reward"] = sum(
    c * slope_of(reinforce_loss(one[None], r[None])) for c, one, r in zip(p4, log_p, no_reward)
)
for name, found in {"D(pi || ref)": reverse, "D(ref || pi)": forward, **in_the_loss}.items():
    print(f"{name:>26}: {np.round(found.numpy(), 4)}")
assert in_the_loss["k1 in the loss"].abs().max() < 1e-12 and (forward - reverse).abs().max() > 1e-2
for name in ("k2 in the loss", "ratio times k3 in the loss", "k1 in the reward"):
    assert torch.allclose(in_the_loss[name], reverse)
assert torch.allclose(in_the_loss["k3 in the loss"], forward)

# %% [markdown]
# So in the loss $k_1$ does nothing on average, $k_2$ has the gradient of 7.3's price, and $k_3$ that of the *other* KL, 7.3's own mistake. Multiplied by the importance ratio, with the gradient through it, $k_3$ is mended (trl's
# default, after DeepSeek-V3.2, arXiv:2512.02556). In the reward, $k_1$ has the gradient of 7.3's price. Why: $\nabla D = \mathbb E[\ell\, \nabla\log\pi] + \mathbb E[\nabla \log \pi]$, and the second mean is 0.
#
# There is one more difference, and it needs answers of two tokens. An estimate *for each token* asks how far this token is from the reference's. It doesn't ask where the token leads, and the first token decides which second tokens are met:


# %%
def two_tokens(table):
    """Return log-probabilities (4 answers, 2 tokens); row 0 of the table is the first token, rows 1 and 2 what follows each."""
    steps = table.log_softmax(1)
    return torch.stack([torch.stack([steps[0, a], steps[1 + a, b]]) for a in (0, 1) for b in (0, 1)])


leaf = torch.tensor([[0.2, 0.0], [0.0, 0.3], [2.5, 0.0]], dtype=torch.float64, requires_grad=True)
tokens, held = two_tokens(leaf), two_tokens(torch.zeros(3, 2, dtype=torch.float64))
answer_p = tokens.sum(1).detach().exp()
prices = {
    "D(pi || ref) of answers": (tokens.sum(1).exp() * (tokens - held).sum(1)).sum(),
    "in the reward": -(
        answer_p * priced_rewards(torch.zeros(4), tokens.sum(1), held.sum(1), 1.0) * tokens.sum(1)
    ).sum(),
    "k2 of each token, in the loss": (answer_p * k2(tokens, held).sum(1)).sum(),
}
pulls_kl = {name: torch.autograd.grad(value, leaf, retain_graph=True)[0] for name, value in prices.items()}
for name, found in pulls_kl.items():
    print(f"{name:>30}: on the first token {found[0].numpy().round(4)}, on the second {found[1:, 0].numpy().round(4)}")
assert torch.allclose(pulls_kl["in the reward"], pulls_kl["D(pi || ref) of answers"])
per_token = pulls_kl["k2 of each token, in the loss"]
assert (
    torch.allclose(per_token[1:], pulls_kl["in the reward"][1:])
    and per_token[0, 0] * pulls_kl["in the reward"][0, 0] < 0
)

# %% [markdown]
# Here the two even have opposite signs at the first token: the policy prefers the token whose continuation is *near* the reference, which the estimate for each token can't see. In the loss $\beta$ isn't 7.3's reward per nat either: it weighs a mean over tokens against advantages in standard
# deviations.
#
# ### What becomes of the variety
#
# Updates make more frequent what was drawn and rewarded. Two figures show what that costs: the **entropy** of answers, $-\mathbb E \log \pi(y)$ in nats, and the share of different answers in a group of eight.

# %%
VARIETY = {
    m: {key: skill(m, lambda row, key=key: row[key]) for key in ("entropy", "distinct", "reward")}
    for m in ("Dr. GRPO", "coin")
}
for m, found in VARIETY.items():
    print(m, {key: f"{v[:, 0].mean():.2f} -> {v[:, -4:].mean():.2f}" for key, v in found.items()})
lost_variety = {m: skill(m, lambda row: row["after"]["different"] - row["before"]["different"]) for m in VARIETY}
print("on the same 64 fresh prompts, after less before:", {m: found.round(2) for m, found in lost_variety.items()})

# %%
finding(
    "Updates by a verifier make a group's answers more alike",
    figure="share of different answers in a group of eight at temperature 1, after less before, on the same fresh prompts",
    measured=lost_variety["Dr. GRPO"],
    null="the same updates with rewards that a coin gives",
    control=lost_variety["coin"],
    holds=lambda change: max(change) < -0.1,
    scope="polite requests, 16 rounds of 64 answers, AdamW at 1e-4, centred rewards; three seeds",
)

# %% [markdown]
# Here that was asked for: there is one right answer, with or without thanks. Where many answers are right, it is a loss that the reward doesn't show. It also ends the learning, because a group of equal rewards has advantage 0. Equally wrong answers teach nothing either:

# %%
settings = PolicySettings(steps=1, rate=1e-4, beta=0.0, advantages=centred_advantages)
still = frozen_copy(cpu_reference).requires_grad_(True)
seen = improve_policy(
    still, cpu_reference, ["please reverse abcdefghij"], lambda prompt, answer: float(answer == "jihgfedcba"), settings
)
moved = max(float((a - b).detach().abs().max()) for a, b in zip(still.parameters(), cpu_reference.parameters()))
print(
    f"a word longer than any that it has seen: rewards {[one.reward for one in seen]}, the largest move of a weight {moved}"
)
assert moved == 0.0

# %% [markdown]
# **Run one row again**: the policy with typos, seed 0, and the first three rounds of Dr. GRPO.

# %%
typist = frozen_copy(polite_policy(0, steps=40, rate=1e-3, thanks=0.5, typos=0.15))
asked = dict(polite_requests(48, 300))
settings = PolicySettings(
    steps=3, rate=1e-4, beta=0.0, advantages=centred_advantages, average=partial(fixed_mean, length=24)
)
learner = frozen_copy(typist).requires_grad_(True)
seen = improve_policy(
    learner, typist, list(asked), lambda prompt, answer: float(word_of(answer) == asked[prompt]), settings
)
row = next(r for r in PG if (r["table"], r["method"], r["seed"]) == ("skill", "Dr. GRPO", 0))
print(f"rewards now {[round(one.reward, 2) for one in seen]}, in the table {np.round(row['reward'][:4], 2).tolist()}")
assert abs(np.mean([one.reward for one in seen]) - np.mean(row["reward"][:3])) < 0.2

# %% [markdown]
# ### Over-optimisation on the model
#
# Now the same updates with a judge that isn't a verifier. It counts the word *thanks*: that is the proxy. The right answer followed by `, thanks!` is gold. The policy is the part's own, without typos; 32 rounds of GRPO with one update
# each, without a price of KL and with two prices ($k_2$ in the loss, and $k_3$ beside it).

# %%
PRICES = sorted({row["beta"] for row in RUNS["policy"]})


def curves(beta, key, estimator="k2"):
    return np.array([row[key] for row in RUNS["policy"] if (row["beta"], row["estimator"]) == (beta, estimator)])


def smooth(values, width=4):
    return values.reshape(len(values), -1, width).mean(2)


gold, proxy, away = ({beta: smooth(curves(beta, key)) for beta in PRICES} for key in ("gold", "proxy", "kl"))
others = {beta: smooth(curves(beta, "distinct")) for beta in PRICES}
for beta in PRICES:
    g = gold[beta]
    print(
        f"beta {beta:g}: gold starts {g[:, 0].mean():.2f}, peaks {g.max(1).min():.2f} to {g.max(1).max():.2f}, ends {g[:, -1].min():.2f} to "
        f"{g[:, -1].max():.2f}; proxy ends {proxy[beta][:, -1].mean():.2f}; KL {away[beta][:, -1].min():.1f} to {away[beta][:, -1].max():.1f} nats; "
        f"distinct answers {others[beta][:, 0].mean():.0%} -> {others[beta][:, -1].mean():.0%}"
    )

# %%
for beta in PRICES[1:]:
    g, d = (smooth(curves(beta, key, "k3")) for key in ("gold", "kl"))
    print(
        f"beta {beta:g}, with k3: gold ends {g[:, -1].min():.2f} to {g[:, -1].max():.2f}; KL {d[:, -1].min():.1f} to {d[:, -1].max():.1f} nats"
    )
print("what is said in the end, no price:", [row["ends_with"][0] for row in RUNS["policy"] if row["beta"] == 0])

# %%
free = gold[0.0]
rounds = [4 * k + 2.5 for k in range(free.shape[1])]
assert (proxy[0.0][:, -1] > 1.5 * proxy[0.0][:, 0]).all() and (np.diff(proxy[0.0].mean(0)) > 0).all()
lines(
    rounds,
    {"proxy, no price": proxy[0.0].mean(0).tolist()}
    | {f"gold, β = {beta:g}": gold[beta].mean(0).tolist() for beta in PRICES},
    title=f"Without a price gold peaks at {free.mean(0).max():.2f} and ends at {free[:, -1].mean():.2f}, while the proxy only rises",
    x_label="round",
    y_label="thanks per answer; share of gold answers",
    alt="; ".join(f"gold at beta {beta:g}: " + ", ".join(f"{v:.2f}" for v in gold[beta].mean(0)) for beta in PRICES)
    + "; proxy without a price: "
    + ", ".join(f"{v:.2f}" for v in proxy[0.0].mean(0))
    + ". Means of three seeds and four rounds.",
)

# %% [markdown]
# Is it the judge, or would so many updates ruin any policy? **The null** is a *gold judge*: the same policy, requests, rounds and rate, with the gold reward in the proxy's place.

# %%
by_gold_judge = smooth(np.array([row["reward"] for row in PG if row["table"] == "gold"]))
print(f"with a gold judge: gold starts {by_gold_judge[:, 0].mean():.2f}, ends {by_gold_judge[:, -1].round(2)}")
finding(
    "Without a price of KL the gold answers become rarer again while the proxy rises",
    figure="gold at the end over gold at its peak, beta 0",
    measured=free[:, -1] / free.max(1),
    null="the same updates with the gold reward as the judge",
    control=by_gold_judge[:, -1] / by_gold_judge.max(1),
    holds=lambda left: max(left) < 0.5,
    scope="a judge that counts thanks, 32 rounds of 64 answers, AdamW at 5e-5; three seeds",
)

# %% [markdown]
# A price of KL doesn't mend the judge. Nor does it buy more gold for each nat: a run with a price ends at a smaller KL, as a run that is
# stopped early does. Compare each with the run without a price *at the same KL*:

# %%
at_equal_kl = {}
for beta in PRICES[1:]:
    passed = [np.maximum.accumulate(one) for one in away[0.0]]
    free_there = [float(np.interp(end, way, g)) for end, way, g in zip(away[beta][:, -1], passed, gold[0.0])]
    at_equal_kl[beta] = gold[beta][:, -1] - free_there
    print(
        f"beta {beta:g}: gold at the end {gold[beta][:, -1].round(2)}, without a price at the same KL {np.round(free_there, 2)}"
    )
assert (
    max(found.max() for found in at_equal_kl.values()) < 0.02
)  # in none of six runs does the price buy more gold per nat

# %% fold="picture"
# The picture: gold against KL, each price a colour.
points(
    {
        ("no price" if beta == 0 else f"β = {beta:g}"): [
            (x, y, "") for x, y in zip(away[beta].ravel(), gold[beta].ravel())
        ]
        for beta in PRICES
    },
    title=f"At equal KL the price buys no gold: at the end {max(f.max() for f in at_equal_kl.values()):+.2f} at best against no price",
    x_label="KL to the reference, nats",
    y_label="share of gold answers",
    alt="Gold against KL, three seeds and eight stretches of four rounds for each price. The dots of all prices share one band, which rises and then falls; "
    + "; ".join(
        f"beta {beta:g} ends {f.min():+.2f} to {f.max():+.2f} from the run without a price"
        for beta, f in at_equal_kl.items()
    )
    + ".",
)

# %% [markdown]
# Which of the two forms describes gold's gain in these updates, best-of-$n$'s or
# that of reinforcement learning? Both have two numbers to fit, for each seed alone:

# %%
FORMS = {
    "d (a - b d)": lambda d: np.stack([d, -(d**2)], axis=1),
    "d (a - b log d)": lambda d: np.stack([d, -d * np.log(d)], axis=1),
    "control, a straight line": lambda d: np.stack([np.ones_like(d), d], axis=1),
}
starts = [row["before"]["both"] for row in RUNS["dpo"] if row["name"] == NAMES[0]]


def explained(form, kls, gain):
    columns = form(np.sqrt(np.clip(kls, 1e-6, None)))
    left = gain - columns @ np.linalg.lstsq(columns, gain, rcond=None)[0]
    return 1 - (left**2).sum() / ((gain - gain.mean()) ** 2).sum()


by_seed = {
    name: [explained(form, kls, g - first) for kls, g, first in zip(away[0.0], free, starts)]
    for name, form in FORMS.items()
}
for name, shares_ in by_seed.items():
    print(f"{name}: explains {', '.join(f'{share:.0%}' for share in shares_)} of the variance, seed by seed")
first_form, straight = by_seed["d (a - b d)"], by_seed["control, a straight line"]
assert sum(bent < plain for bent, plain in zip(first_form, straight)) == 1

# %% [markdown]
# Eight points a run can't decide between these forms: for one seed a straight line does better than the first. The answers did *not*
# become more alike here: the share of distinct answers in a round, printed above, grew. At the same $\beta$, $k_3$ in the
# loss keeps the policy nearer than $k_2$, seed by seed. So here it is the stronger price. Which of the two is the *better* price would have to be asked at equal reward, as in 7.3, and these runs don't say.

# %%
nearer = [smooth(curves(beta, "kl", "k2"))[:, -1] - smooth(curves(beta, "kl", "k3"))[:, -1] for beta in PRICES[1:]]
for beta, found in zip(PRICES[1:], nearer):
    print(f"beta {beta:g}: KL of the last four rounds with k2 less that with k3, seed by seed: {found.round(2)}")
assert all((found > 0).all() for found in nearer)

# %% [markdown]
# **Run one row again**: the first four rounds without a price, seed 0.

# %%
questions, hits = dict(polite_requests(48, 300)), []


def counts_thanks(prompt, answer):
    hits.append(answer == questions[prompt] + ", thanks!")
    return float(answer.count("thanks"))


policy = frozen_copy(cpu_reference).requires_grad_(True)
settings = PolicySettings(steps=4, rate=5e-5, beta=0.0)
seen = improve_policy(policy, cpu_reference, list(questions), counts_thanks, settings)
row = next(r for r in RUNS["policy"] if r["beta"] == 0 and r["seed"] == 0)
print(f"proxy of four rounds: now {np.mean([s.reward for s in seen]):.3f}, table {np.mean(row['proxy'][:8]):.3f}")
print(f"gold: now {np.mean(hits):.3f}, table {np.mean(row['gold'][:8]):.3f}")
assert abs(np.mean([s.reward for s in seen]) - np.mean(row["proxy"][:4])) < 0.15

# %% [markdown]
# **Check.** Best-of-$n$'s KL is the formula for rewards without ties: drawn here by counting ranks. On the four answers of 7.3, where equal
# answers tie, it's computed exactly, and the formula is a bound that it leaves behind: KL stops at 7.3's cap.

# %%
for n in (2, 4, 16):
    u = np.random.default_rng(n).random(200_000) ** (1 / n)  # the quantile of the best of n
    drawn_kl = np.log(n * u ** (n - 1)).mean()
    print(f"n = {n}: {drawn_kl:.3f} drawn, {best_of_n_kl(n):.3f} by the formula, log n = {math.log(n):.3f}")
    assert abs(drawn_kl - best_of_n_kl(n)) < 0.01 and best_of_n_kl(n) < math.log(n)


def tied_kl(p, n):
    """Return KL(best of n || p) in nats for answers in ascending order of reward, each with its probability."""
    upto = p.cumsum(0)
    best = upto**n - torch.cat([p.new_zeros(1), upto[:-1]]) ** n
    return kl(best, p)


coin = torch.tensor([0.5, 0.5], dtype=torch.float64)
assert abs(tied_kl(coin, 2) - 0.131) < 5e-4 and abs(best_of_n_kl(2) - 0.193) < 5e-4
ascending = ref4[torch.argsort(r4, stable=True)]
for n in (4, 256, 10**6):
    print(
        f"n = {n}: {tied_kl(ascending, n):.3f} nats, the formula {best_of_n_kl(n):.3f}, the cap {-ascending[-1].log().item():.3f}"
    )
    assert tied_kl(ascending, n) <= min(best_of_n_kl(n), -float(ascending[-1].log())) + 1e-9

# %% [markdown]
# **The mistake: choosing the checkpoint by the proxy.** Its symptom is a best-ever score on the dashboard.

# %%
by_proxy = [g[p.argmax()] for g, p in zip(free, proxy[0.0])]
by_gold = free.max(1)
print(f"gold at the checkpoint with the best proxy {np.mean(by_proxy):.2f}, at the best one {by_gold.mean():.2f}")
assert (np.array(by_proxy) < 0.6 * by_gold).all()

# %% [markdown]
# **In practice** there are three brakes: a budget of KL and an early stop, a judge that is never trained against, and a look at
# what changed that wasn't asked for, length before all (Gao et al. 2022, arXiv:2210.10760, sections 3 and 4).
#
# → [exercise 7.5](exercises.ipynb#7.5-Preference-over-optimization) · graded: [p08, margins and gradients](../../source/p08_dpo_loss/p08_dpo_loss.ipynb)

# %% [markdown]
# ## What to keep
#
# | | statement | number to remember |
# | --- | --- | --- |
# | 7.1 | votes fix differences of rewards; flips shrink them | share $(1 - 2\varepsilon)\sigma(d) + \varepsilon$ |
# | 7.2 | a classifier of pairs, read at the last real token | accuracy on fresh pairs, never the loss |
# | 7.3 | $\pi^\star = \pi_\text{ref}\, e^{r/\beta} / Z$ | value $\beta \log Z$; KL at most $-\log \pi_\text{ref}$ of the best answers |
# | 7.4 | DPO asks for an order of pairs | first gradient $\propto \beta$; in the closed form KL falls with it; watch $\pi^+ + \pi^-$ |
# | 7.5 | a policy gradient is reward times score, averaged over draws; a baseline moves its variance, a clip acts from the second update on | group's std (from $n = 4$ on) and own length are biases; $k_3$ in the loss is the other KL's |
# | 7.5 | the largest proxy holds a large error; it costs most where the error's tail is heavier than the truth's | at most $\log n - (n - 1)/n$; stop by gold, not by proxy |
