# %% [markdown]
# # Part 8, exercises: evaluation and diagnostics
#
# Seven questions, about 45 minutes, and then a verdict built from items in four steps, about 30 more. Each check answers at once
# and knows the usual slips; nothing here is graded. The theory is in [theory.ipynb](theory.ipynb), the graded problem is
# [p09, the scorecard](../../source/p09_scorecard/p09_scorecard.ipynb).

# %%
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ftmath import LoRALinear, mcnemar, paired_error, recorded
from ftmath.exercises import check_exercise, hint, progress, solution
from ftmath.widgets import unpacked

progress(8)

# %% [markdown]
# ## A worked one first
#
# Of 500 items, 30 that were right before tuning are wrong after it, and 18 went the other way. Accuracy fell by
# $(30 - 18) / 500 = 2.4$ points. Is that a loss? Each item's difference is $-1$, $0$ or $1$; their variance is
# $48/500 - (12/500)^2$, and the standard error its root over $\sqrt{500}$.

# %%
lost, gained, n = 30, 18, 500
error = math.sqrt((lost + gained) / n - ((lost - gained) / n) ** 2) / math.sqrt(n)
assert abs(error - paired_error(lost, gained, n)) < 1e-12
f"{(gained - lost) / n:+.3f} with a standard error of {error:.4f}; exact p = {mcnemar(lost, gained):.3f}: not shown"

# %% [markdown]
# ## 8.1 Train and validation loss
#
# A run is stopped when validation hasn't improved for a while. Which weights are handed out, and when does it stop?

# %% exercise="8.1"

# %% [markdown]
# ## 8.2 Base-task retention
#
# A mean over skills hides the one that collapsed. Name it.

# %% exercise="8.2"

# %% [markdown]
# ## 8.3 Task quality
#
# From $n$ samples of which $c$ are right: how likely is at least one success among $k$?

# %% exercise="8.3"

# %% [markdown]
# ## 8.4 Distribution shift
#
# The validation rows come from training's mixture of domains; your users don't. Half of the function stands already.

# %% exercise="8.4" fade="half"

# %% [markdown]
# ## 8.5 Adapter sanity checks
#
# `LoRALinear` has the frozen layer `base`, the switch `on` and the method `merged()`. Write the report that you'd want before a
# long run.

# %% exercise="8.5"

# %% [markdown]
# ## 8.A Two at once: stopping and shift
#
# The best epoch for your validation set may not be the best one for your users.

# %% exercise="8.A"

# %% [markdown]
# ## 8.B Two at once: pass@k and paired errors
#
# A model was tuned; each problem has $n$ samples before and after. By how much did pass@k move, and how sure is that?
# (`pass_at_k` from 8.3 may be used.)

# %% exercise="8.B"

# %% [markdown]
# ## From items to a verdict
#
# Four steps lead from two files of scores to a sentence that you could defend: pair the items, put an interval on the change, compute how many
# items the question takes, and say what the interval shows. Each step checks itself, and the next one doesn't need it to be right.
#
# ## 8.C Paired differences
#
# Two runs were scored on test files that overlap. Each file maps an item's name to its score, in an order of its own.

# %% exercise="8.C"

# %% [markdown]
# ## 8.D An interval for items in groups
#
# Several questions were asked about each text. The interval must ask how the *texts* differ.

# %% exercise="8.D"

# %% [markdown]
# ## 8.E How many items
#
# Before the next comparison: how many items will it take?

# %% exercise="8.E"

# %% [markdown]
# ## 8.F A verdict with a margin
#
# Nobody needs every number to rise. A loss of up to a margin is put up with, if the run gains something else.

# %% exercise="8.F"

# %% [markdown]
# Now a real comparison. LoRA with half of each batch from old lines was tuned on `flip`; ten old skills were asked before and after, 200 items each. Your
# functions give two intervals of the change, one by items and one with the skill as the group, and a verdict for each at a margin of
# 5 points. Why do they differ, and which should the team believe? Would more items of each skill settle it?

# %%
kept = recorded("evaluation_runs")["kept"]
before, after = (unpacked(side, kept["count"]) for side in (kept["base"], kept["runs"]["LoRA, half replay"][0]))
skills = sorted(skill for skill in before if skill != "flip")
names = {f"{skill} {place:03}": (skill, place) for skill in skills for place in range(kept["count"])}
try:
    change = paired_differences(
        *({name: float(side[skill][place]) for name, (skill, place) in names.items()} for side in (before, after))
    )
    for what, groups in (("by items", list(names)), ("by skills", [skill for skill, _ in names.values()])):
        mean, low, high = grouped_interval(change, groups, 1.96 if what == "by items" else 2.262)
        print(f"{what:>9}: {mean:+.3f} ({low:+.3f} to {high:+.3f}): {verdict_of(low, high, margin=0.05)}")
    print("lost by skill:", {skill: round(float((before[skill] - after[skill]).mean()), 3) for skill in skills})
except NotImplementedError:
    print("Write 8.C, 8.D and 8.F above first.")

# %% [markdown]
# <details><summary>What the two intervals say</summary>
#
# By items, all of the interval lies above -0.05: no worse. By skills it reaches below -0.05: more items. Both are computed
# correctly, and they answer two questions. The first asks what other items of *these ten skills* would show. The second asks about old
# skills *in general*, of which ten were looked at. One of them, `zog`, lost several times the mean, and all of its items share that loss.
#
# More items of each skill would narrow the first interval and leave the second as it is: that one needs more skills. And if these ten are
# all that counts, the mean is the wrong number: the worst skill decides (8.2).
# </details>

# %% [markdown]
# ## How far you are

# %%
progress(8)
