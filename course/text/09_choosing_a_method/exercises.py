# %% [markdown]
# # Part 9, exercises: choosing a method
#
# Seven questions, about 40 minutes, and then a choice from a flawed table in four steps, about 40 more. Each check answers at once
# and knows the usual slips; nothing here is graded. The theory is in [theory.ipynb](theory.ipynb); the graded problems nearest to it are
# [p05](../../source/p05_truncated_svd/p05_truncated_svd.ipynb) for spectra,
# [p08](../../source/p08_dpo_loss/p08_dpo_loss.ipynb) for preferences and
# [p09](../../source/p09_scorecard/p09_scorecard.ipynb) for fronts and verdicts.

# %%
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ftmath.exercises import check_exercise, hint, progress, solution
from ftmath.widgets.clinics import recorded

Point = tuple[float, float, float]
Sweep = Mapping[str, Sequence[float]]
progress(9)

# %% [markdown]
# ## A worked one first
#
# Tuning costs 120, and makes a prompt 1,500 tokens shorter at 0.5 millionths a token. Every request saves $k c$, so after
# $F / (k c)$ of them the money is back.

# %%
tuning, tokens, price = 120.0, 1_500, 0.5e-6
requests = tuning / (tokens * price)
assert round(requests) == 160_000
f"{requests:,.0f} requests"

# %% [markdown]
# ## 9.1 No-update methods
#
# The same with a cache: a prompt that every request shares is read once, and most of its tokens cost nothing any more.

# %% exercise="9.1"

# %% [markdown]
# ## 9.2 PEFT methods
#
# Fifty customers, one base, a file each. Which methods' files fit?

# %% exercise="9.2"

# %% [markdown]
# ## 9.3 Full tuning
#
# One number for how many directions an update really uses.

# %% exercise="9.3"

# %% [markdown]
# ## 9.4 Preference tuning
#
# A single score for each answer can't express a circle. Count the circles before you fit one. Half of the function stands
# already.

# %% exercise="9.4" fade="half"

# %% [markdown]
# ## 9.5 Deployment constraints
#
# Limits first, then quality.

# %% exercise="9.5"

# %% [markdown]
# ## 9.A Two at once: volume and quality
#
# Long prompts cost with every request, tuning costs once. Which is cheapest depends on how many requests come.

# %% exercise="9.A"

# %% [markdown]
# ## 9.B Two at once: votes and costs
#
# Judges compared the answers of several models two by two; not every model can be afforded.

# %% exercise="9.B"

# %% [markdown]
# ## Choose from a flawed table
#
# A colleague hands you a table and a winner. Four steps lead to a choice of your own: find what is wrong with the table, compute it again, decide with
# intervals in place of means, and say which flaw made the winner. Each step checks itself, and the next one doesn't need it to be right.
#
# ## 9.C Find the flaws
#
# The table gives a rate and a score for each method. Behind it lie the runs: every rate that was tried, with a score for each seed.

# %% exercise="9.C"

# %% [markdown]
# ## 9.D Compute it again
#
# The same number of seeds for everyone, and each method at its own best rate.

# %% exercise="9.D"

# %% [markdown]
# ## 9.E Decide with intervals
#
# A difference that lies within the intervals drops nobody.

# %% exercise="9.E"

# %% [markdown]
# ## 9.F What made the winner
#
# A table can have flaws that change nothing, and one that changes everything. Which was it?

# %% exercise="9.F"

# %% [markdown]
# Now a real table. Full tuning and LoRA learned `flip` for 40 steps at eight rates with three seeds each (part 10.3's sweep). The score is the mean
# probability of a right token over the last ten steps. A team ran both methods at one rate, $10^{-4}$, and reports: "LoRA can't learn this task." What do
# your functions say, and why does the same rate treat the two so differently?

# %%
runs = [row for row in recorded()["rates"] if row["kind"] in ("full", "LoRA")]
rates = sorted({row["rate"] for row in runs})
sweeps = {
    kind: {
        f"{rate:g}": [math.exp(-row["loss"]) for row in runs if (row["kind"], row["rate"]) == (kind, rate)]
        for rate in rates
    }
    for kind in ("full", "LoRA")
}
told = {kind: ("0.0001", sum(sweep["0.0001"]) / len(sweep["0.0001"])) for kind, sweep in sweeps.items()}
print("the team's table:", {kind: round(score, 2) for kind, (_, score) in told.items()})
try:
    print(
        "flaws of the team's runs:", flaws({kind: {"0.0001": sweep["0.0001"]} for kind, sweep in sweeps.items()}, told)
    )
    print("flaws of the whole sweep:", flaws(sweeps, told))
    again = recompute(sweeps)
    print({kind: f"best at {rate}: {mean:.3f}, worst seed {worst:.3f}" for kind, (rate, mean, worst) in again.items()})
    halves = {kind: max(abs(one - mean) for one in sweeps[kind][rate]) for kind, (rate, mean, _) in again.items()}
    print("left:", surely_left({kind: (mean, halves[kind], 1.0) for kind, (_, mean, _) in again.items()}, least=0.9))
    print("what made the winner:", what_decided(sweeps, told))
except NotImplementedError:
    print("Write 9.C to 9.F above first.")

# %% [markdown]
# <details><summary>Why one rate treats them differently</summary>
#
# A rate is the distance that Adam's first step moves each entry. LoRA has far fewer entries between input and output, so at the same rate its
# output moves much less (10.3): in 40 steps at full tuning's rate it hardly leaves the base. The table's own checks find nothing, since
# with one rate for each method nothing is unequal. A fair table gives each method a sweep of its own whose best rate isn't at an end.
#
# And the winner? With its own best rate full tuning still has the higher mean, so the flaw made no winner: 9.F says "nothing". What it made is the
# *size* of the gap. At their best rates the two means lie about a hundredth apart, within LoRA's spread over seeds, so 9.E leaves both. "LoRA can't
# learn this task" is false, and "full tuning is better" isn't shown.
# </details>

# %% [markdown]
# ## How far you are

# %%
progress(9)
