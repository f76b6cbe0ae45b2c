# %% [markdown]
# # Part 4, exercises: parameter-efficient fine-tuning
#
# Seven questions, about 45 minutes. Each check answers at once and knows the usual slips; nothing here is graded. The theory
# is in [theory.ipynb](theory.ipynb), the graded problems are
# [p04](../../source/p04_lora_update/p04_lora_update.ipynb), [p06](../../source/p06_adapter_parameters/p06_adapter_parameters.ipynb)
# and [p07](../../source/p07_prefix_parameters/p07_prefix_parameters.ipynb).

# %%
import torch
import torch.nn.functional as F
from torch import Tensor

from ftmath.exercises import check_exercise, hint, progress, solution

progress(4)

# %% [markdown]
# ## A worked one first
#
# An adapter with $d = 2$, $m = 1$ meets $h = (1, -2)$: $W_\text{down} = (.5, .25)$, $b_d = .1$, $W_\text{up} = (2, -1)^\top$,
# no second bias, ReLU. What comes out?

# %%
h, W_down, W_up = torch.tensor([1.0, -2.0]), torch.tensor([[0.5, 0.25]]), torch.tensor([[2.0], [-1.0]])
inside = W_down @ h + 0.1
out = h + W_up @ F.relu(inside)
assert torch.allclose(out, torch.tensor([1.2, -2.1]))
f"inside {inside.item():.1f}, out {out.tolist()}"

# %% [markdown]
# ## 4.1 Linear probing
#
# A frozen model's features and a linear map, solved exactly. Half of the function stands already.

# %% exercise="4.1" fade="half"

# %% [markdown]
# ## 4.2 Adapters
#
# The correction of a bottleneck is low-rank at each input. How low?

# %% exercise="4.2"

# %% [markdown]
# ## 4.3 Soft prompt tuning
#
# Virtual tokens change three tensors, not one.

# %% exercise="4.3"

# %% [markdown]
# ## 4.4 Prefix tuning
#
# A prefix is a cache of keys and values that no token produced.

# %% exercise="4.4"

# %% [markdown]
# ## 4.5 Low-rank adaptation
#
# The first step of LoRA is the full gradient seen through $A$.

# %% exercise="4.5"

# %% [markdown]
# ## 4.A Two at once: attention and the prefix's share
#
# One query, its keys and a prefix's: who gets how much?

# %% exercise="4.A"

# %% [markdown]
# ## 4.B Two at once: counts of three methods
#
# What adapters cost, and what the same numbers buy elsewhere.

# %% exercise="4.B"

# %% [markdown]
# ## How far you are

# %%
progress(4)
