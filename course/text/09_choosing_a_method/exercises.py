# %% [markdown]
# # Part 9, exercises: choosing a method
#
# Seven questions, about 40 minutes. Each check answers at once and knows the usual slips; nothing here is graded. The theory
# is in [theory.ipynb](theory.ipynb); the graded problems nearest to it are
# [p05](../../source/p05_truncated_svd/p05_truncated_svd.ipynb) for spectra,
# [p08](../../source/p08_dpo_loss/p08_dpo_loss.ipynb) for preferences and
# [p09](../../source/p09_scorecard/p09_scorecard.ipynb) for fronts and verdicts.

# %%
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ftmath.exercises import check_exercise, hint, progress, solution

Point = tuple[float, float, float]
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
# ## How far you are

# %%
progress(9)
