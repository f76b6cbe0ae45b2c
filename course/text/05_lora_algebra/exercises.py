# %% [markdown]
# # Part 5, exercises: LoRA's algebra
#
# Seven questions, about 40 minutes. Each check answers at once and knows the usual slips; nothing here is graded. The theory
# is in [theory.ipynb](theory.ipynb), the graded problems are
# [p03](../../source/p03_lora_parameters/p03_lora_parameters.ipynb),
# [p04](../../source/p04_lora_update/p04_lora_update.ipynb) and
# [p05](../../source/p05_truncated_svd/p05_truncated_svd.ipynb).

# %%
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from ftmath.exercises import check_exercise, hint, progress, solution

Shape = tuple[int, int]
progress(5)

# %% [markdown]
# ## A worked one first
#
# How many numbers has LoRA of rank 8 on a (1024, 4096) key projection, and which share of the matrix is that? Each column of
# $A$ and each row of $B$ costs $r$ numbers, so $r\,(d_\text{out} + d_\text{in})$.

# %%
d_out, d_in, r = 1024, 4096, 8
numbers = r * (d_out + d_in)
assert numbers == 40_960
f"{numbers:,} numbers, {numbers / (d_out * d_in):.2%} of the matrix"

# %% [markdown]
# ## 5.1 Rank constraint
#
# Two adapters were trained apart and are now added to one weight. What is the largest rank that their sum can have? Half of
# the function stands already.

# %% exercise="5.1" fade="half"

# %% [markdown]
# ## 5.2 Parameter count
#
# From which rank on does LoRA hold as many numbers as the matrix that it adapts? The answer decides what "low" means for a
# narrow key projection.

# %% exercise="5.2"

# %% [markdown]
# ## 5.3 Scaling
#
# Under SGD the first move of $\Delta W$ grows as $s^2 r$ with $s = \alpha / r$. A colleague tuned $\alpha$ at rank 8 and wants
# to go to rank 64 without touching the learning rate.

# %% exercise="5.3"

# %% [markdown]
# ## 5.4 Merge for inference
#
# A merge into bfloat16 rounds. Which share of the entries moves at all?

# %% exercise="5.4"

# %% [markdown]
# ## 5.5 Target modules
#
# A budget of parameters is to be spent on equal ranks for some projections in every layer.

# %% exercise="5.5"

# %% [markdown]
# ## 5.A Two at once: spectrum and cost
#
# You have the singular values of a full update and want the cheapest LoRA that keeps a share of its energy.

# %% exercise="5.A"

# %% [markdown]
# ## 5.B Two at once: scale and rounding
#
# Merge an adapter into a short type, and measure what that does to one output.

# %% exercise="5.B"

# %% [markdown]
# ## How far you are

# %%
progress(5)
