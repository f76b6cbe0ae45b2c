# %% [markdown]
# # Part 8, exercises: evaluation and diagnostics
#
# Seven questions, about 45 minutes. Each check answers at once and knows the usual slips; nothing here is graded. The theory
# is in [theory.ipynb](theory.ipynb), the graded problem is
# [p09, the scorecard](../../source/p09_scorecard/p09_scorecard.ipynb).

# %%
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ftmath import LoRALinear, mcnemar, paired_error
from ftmath.exercises import check_exercise, hint, progress, solution

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
# ## How far you are

# %%
progress(8)
