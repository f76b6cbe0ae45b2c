# %% [markdown]
# # Part 1, exercises: a local move
#
# Seven questions, about 45 minutes. Each check answers at once and knows the usual slips; nothing here is graded. The theory
# is in [theory.ipynb](theory.ipynb), the graded problem is [p02](../../source/p02_kl_shift/p02_kl_shift.ipynb).

# %%
import math
from collections.abc import Mapping

import torch
from torch import Tensor

from ftmath.exercises import check_exercise, hint, progress, solution

Weights = Mapping[str, Tensor]
progress(1)

# %% [markdown]
# ## A worked one first
#
# A quadratic with minimum at $(3, 1)$ and curvatures 1 and 4 is left from $\theta_0 = (1, 2)$ by one gradient step of rate
# 0.1. How much does the loss fall, and how much of that does the linear model promise?

# %%
H, minimum, start = torch.diag(torch.tensor([1.0, 4.0])), torch.tensor([3.0, 1.0]), torch.tensor([1.0, 2.0])
g = H @ (start - minimum)
step = -0.1 * g
linear, quadratic = g @ step, g @ step + 0.5 * step @ H @ step
assert torch.isclose(linear, torch.tensor(-2.0)) and torch.isclose(quadratic, torch.tensor(-1.66))
f"gradient {g.tolist()}: the linear model promises {linear:.2f}, the loss changes by {quadratic:.2f}"

# %% [markdown]
# ## 1.1 Starting from pretrained weights
#
# How far did a model move, measured against its own size? Half of the function stands already.

# %% exercise="1.1" fade="half"

# %% [markdown]
# ## 1.2 Task loss
#
# A loss of 0.6 may be perfect or poor. What counts is how far it lies above the entropy of the data.

# %% exercise="1.2"

# %% [markdown]
# ## 1.3 Regularized adaptation
#
# An anchor and a task pull at the same parameters. Where do they come to rest?

# %% exercise="1.3"

# %% [markdown]
# ## 1.4 Function-space shift
#
# For small changes of the logits, KL is a variance.

# %% exercise="1.4"

# %% [markdown]
# ## 1.5 Catastrophic forgetting
#
# You know the KL per token along an answer. By how much can the chance of the whole answer have changed?

# %% exercise="1.5"

# %% [markdown]
# ## 1.A Two at once: gradient and curvature
#
# When does a step along the gradient stop lowering the loss?

# %% exercise="1.A"

# %% [markdown]
# ## 1.B Two at once: drift and the size of a move
#
# An update may be applied in part, $\theta_0 + \alpha\,\Delta\theta$. KL was measured at two shares $\alpha$. Does it grow as the square, and how
# large may $\alpha$ be?

# %% exercise="1.B"

# %% [markdown]
# ## How far you are

# %%
progress(1)
