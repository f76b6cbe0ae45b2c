# %% [markdown]
# # Part 3, exercises: full fine-tuning
#
# Seven questions, about 40 minutes. Each check answers at once and knows the usual slips; nothing here is graded. The theory
# is in [theory.ipynb](theory.ipynb), the graded problems are
# [p03](../../source/p03_lora_parameters/p03_lora_parameters.ipynb) (bytes) and
# [p09](../../source/p09_scorecard/p09_scorecard.ipynb).

# %%
import math

import torch
from torch import Tensor

from ftmath.exercises import check_exercise, hint, progress, solution

progress(3)

# %% [markdown]
# ## A worked one first
#
# A model of 1.3 billion parameters is tuned with mixed-precision Adam: 2 bytes of weight, 2 of gradient, and 4 + 4 + 4 for both
# moments and the master copy. How much memory stays, in GB and in GiB?

# %%
per_parameter = 2 + 2 + 4 + 4 + 4
total = 1_300_000_000 * per_parameter
assert round(total / 1e9, 1) == 20.8 and round(total / 2**30, 2) == 19.37
f"{per_parameter} bytes a parameter: {total / 1e9:.1f} GB = {total / 2**30:.2f} GiB"

# %% [markdown]
# ## 3.1 All parameters trainable
#
# Count a model by its sizes. Half of the function stands already.

# %% exercise="3.1" fade="half"

# %% [markdown]
# ## 3.2 Memory cost
#
# Which bytes stay through a whole run?

# %% exercise="3.2"

# %% [markdown]
# ## 3.3 Layer-wise learning rates
#
# Lower levels move less.

# %% exercise="3.3"

# %% [markdown]
# ## 3.4 Weight decay
#
# Decoupled: the decay doesn't pass through Adam's division.

# %% exercise="3.4"

# %% [markdown]
# ## 3.5 When full tuning helps
#
# A decision with units: points, money and units of cost.

# %% exercise="3.5"

# %% [markdown]
# ## 3.A Two at once: activations and a card
#
# So many bytes are free after weights, gradients and optimizer. Which batch fits?

# %% exercise="3.A"

# %% [markdown]
# ## 3.B Two at once: rates and decay
#
# How many steps until decay alone has taken a share of a weight?

# %% exercise="3.B"

# %% [markdown]
# ## How far you are

# %%
progress(3)
