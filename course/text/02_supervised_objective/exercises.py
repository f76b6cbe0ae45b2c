# %% [markdown]
# # Part 2, exercises: the supervised objective
#
# Seven questions, about 45 minutes. Each check answers at once and knows the usual slips; nothing here is graded. The theory
# is in [theory.ipynb](theory.ipynb), the graded problem is
# [p01](../../source/p01_answer_only_loss/p01_answer_only_loss.ipynb).

# %%
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ftmath.exercises import check_exercise, hint, progress, solution

progress(2)

# %% [markdown]
# ## A worked one first
#
# Five tokens have the probabilities .1, .2, .5, .8 and .9 under the model; the last three are the answer. What is the loss on
# the answer, and on everything?

# %%
nll, answer = -torch.tensor([0.1, 0.2, 0.5, 0.8, 0.9]).log(), torch.tensor([0, 0, 1, 1, 1])
on_answer, on_all = (nll * answer).sum() / answer.sum(), nll.mean()
assert round(on_answer.item(), 4) == 0.3406 and round(on_all.item(), 4) == 0.9867
f"answer only {on_answer:.4f} nats, all tokens {on_all:.4f}"

# %% [markdown]
# ## 2.1 Instruction-response pairs
#
# Build one training line, and shorten it where it must be. Half of the function stands already.

# %% exercise="2.1" fade="half"

# %% [markdown]
# ## 2.2 Answer-only loss
#
# One batch, two means; a paper that doesn't say which can't be reproduced.

# %% exercise="2.2"

# %% [markdown]
# ## 2.3 Teacher forcing
#
# Training shows the whole line at once. That is honest only if no position sees a later one: write the test.

# %% exercise="2.3"

# %% [markdown]
# ## 2.4 Label smoothing
#
# Move a share $e$ of the target's mass onto the whole vocabulary.

# %% exercise="2.4"

# %% [markdown]
# ## 2.5 Dataset mixture weights
#
# Large and small data sets in one run: who is drawn how often, and how often is each example seen?

# %% exercise="2.5"

# %% [markdown]
# ## 2.A Two at once: means and accumulation
#
# A batch doesn't fit and is computed in micro-batches. Put their losses together as if it had.

# %% exercise="2.A"

# %% [markdown]
# ## 2.B Two at once: token accuracy and exact match
#
# Each token is right with some probability. How long may an answer be to come out whole?

# %% exercise="2.B"

# %% [markdown]
# ## How far you are

# %%
progress(2)
