# %% [markdown]
# # Part 6, exercises: quantized and memory-aware tuning
#
# Seven questions, about 40 minutes. Each check answers at once and knows the usual slips; nothing here is graded. The theory
# is in [theory.ipynb](theory.ipynb), the graded problems are
# [p03](../../source/p03_lora_parameters/p03_lora_parameters.ipynb),
# [p05](../../source/p05_truncated_svd/p05_truncated_svd.ipynb) and
# [p10](../../source/p10_freeze_and_mask_audit/p10_freeze_and_mask_audit.ipynb).

# %%
import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ftmath.exercises import check_exercise, hint, progress, solution

Shape = tuple[int, int]
progress(6)

# %% [markdown]
# ## A worked one first
#
# A 13-billion model lies frozen in 4.127 bits a weight, with adapters of 60 million numbers beside it, at 16 bytes each. What
# stays in memory before the first token comes? Bits to bytes first: a frozen weight takes $4.127 / 8$ of one.

# %%
frozen, trained = 13e9 * 4.127 / 8, 60e6 * 16
total_gib = (frozen + trained) / 2**30
assert 7.1 < total_gib < 7.2
f"{frozen / 2**30:.2f} GiB frozen, {trained / 2**30:.2f} GiB for what trains, {total_gib:.2f} GiB in all"

# %% [markdown]
# ## 6.1 Frozen quantized base
#
# "Four bits" is never four bits: each block brings a constant. How many bits does a weight take, with and without double
# quantisation? One line is left open.

# %% exercise="6.1" fade="half"

# %% [markdown]
# ## 6.2 Adapter optimizer states
#
# You want to know what stays in memory before you rent the card.

# %% exercise="6.2"

# %% [markdown]
# ## 6.3 Activation memory remains
#
# What does a block keep between its forward and its backward pass, with and without stored attention scores?

# %% exercise="6.3"

# %% [markdown]
# ## 6.4 Gradient checkpointing
#
# Into how many segments should equal layers be cut? The square root is a good guess; the exact answer has whole numbers in it.

# %% exercise="6.4"

# %% [markdown]
# ## 6.5 Rank-memory tradeoff
#
# A budget in GiB is left on the card. How large may the rank be?

# %% exercise="6.5"

# %% [markdown]
# ## 6.A Two at once: activations and segments
#
# A transformer block keeps some twenty times what its input weighs. Into how many segments should such blocks be cut?

# %% exercise="6.A"

# %% [markdown]
# ## 6.B Two at once: quantisation and rank
#
# An adapter can begin by repairing what rounding broke. How much of the error is left after the best repair of rank $r$?

# %% exercise="6.B"

# %% [markdown]
# ## How far you are

# %%
progress(6)
