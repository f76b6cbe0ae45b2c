# %% [markdown]
# # Part 7, exercises: preference fine-tuning
#
# Seven questions, about 45 minutes. Each check answers at once and knows the usual slips; nothing here is graded. The theory
# is in [theory.ipynb](theory.ipynb), the graded problem is
# [p08, the DPO loss](../../source/p08_dpo_loss/p08_dpo_loss.ipynb).

# %%
import math

import torch
from torch import Tensor

from ftmath.exercises import check_exercise, hint, progress, solution

progress(7)

# %% [markdown]
# ## A worked one first
#
# Four answers to one prompt were ranked. How many pairs does that give, and what would the loss be if the reward model had
# no idea, all rewards equal? Every two answers make a pair, and $-\log\sigma(0) = \log 2$ for each.

# %%
answers = 4
pairs = answers * (answers - 1) // 2
assert pairs == 6
f"{pairs} pairs; the mean loss of a model without an idea is {math.log(2):.4f} nats"

# %% [markdown]
# ## 7.1 Preference pairs
#
# One answer was compared with another a number of times. How far apart are their rewards? Start from the skeleton: where one
# of the two never won, there is no finite answer.

# %% exercise="7.1" fade="half"

# %% [markdown]
# ## 7.2 Reward-model view
#
# A reward is read off one hidden state, that of the last real token. A batch may be padded on either side.

# %% exercise="7.2"

# %% [markdown]
# ## 7.3 KL-regularized policy update
#
# Write the closed form down so that it survives $r / \beta = 10\,000$.

# %% exercise="7.3"

# %% [markdown]
# ## 7.4 DPO loss
#
# Not every pair pulls alike. What is the pull at margin $h$?

# %% exercise="7.4"

# %% [markdown]
# ## 7.5 Preference over-optimization
#
# You may go so many nats away from the policy, and not one more. How many answers may you draw and pick from at most? (Rewards
# without ties, so that the formula holds exactly.)

# %% exercise="7.5"

# %% [markdown]
# ## 7.A Two at once: DPO and Bradley-Terry
#
# A policy that was trained by DPO holds a reward model inside. Ask it for its vote.

# %% exercise="7.A"

# %% [markdown]
# ## 7.B Two at once: the closed form and a budget
#
# Over-optimisation is kept off by a budget of KL. Which $\beta$ spends exactly that?

# %% exercise="7.B"

# %% [markdown]
# ## How far you are

# %%
progress(7)
