# %% [markdown]
# # Part 10, exercises: implementation checklist
#
# Seven questions, about 40 minutes. Each check answers at once and knows the usual slips; nothing here is graded. The theory is in
# [theory.ipynb](theory.ipynb), the graded problems are
# [p10](../../source/p10_freeze_and_mask_audit/p10_freeze_and_mask_audit.ipynb), [p08](../../source/p08_dpo_loss/p08_dpo_loss.ipynb)
# and [p09](../../source/p09_scorecard/p09_scorecard.ipynb).

# %%
from collections.abc import Callable, Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ftmath.exercises import check_exercise, hint, progress, solution

Group = tuple[float, Sequence[str]]
progress(10)

# %% [markdown]
# ## A worked one first
#
# A row packs documents of 3, 4 and 5 tokens. Which share of the pairs that a plain causal mask allows are leaks?

# %%
lengths = [3, 4, 5]
own = sum(n * (n + 1) // 2 for n in lengths)
plain = sum(lengths) * (sum(lengths) + 1) // 2
assert (own, plain) == (31, 78) and plain - own == 3 * 4 + 3 * 5 + 4 * 5
f"{plain - own} of {plain} pairs read another document: {(plain - own) / plain:.0%}"

# %% [markdown]
# ## 10.1 Masking
#
# The same mask as a tensor. Half of the function stands already.

# %% exercise="10.1" fade="half"

# %% [markdown]
# ## 10.2 Parameter freeze audit
#
# Two lists of names: what the recipe says, and what `requires_grad` says.

# %% exercise="10.2"

# %% [markdown]
# ## 10.3 Learning-rate groups
#
# LoRA+ for $B$, a small rate for the rest, and nobody forgotten. `fnmatchcase` of the standard library's `fnmatch` compares a whole name with a
# glob; import it where you need it.

# %% exercise="10.3"

# %% [markdown]
# ## 10.4 Reference model
#
# A reference was read before training and again after it.

# %% exercise="10.4"

# %% [markdown]
# ## 10.5 Ablations
#
# Item scores of two methods, and the item numbers of each resample.

# %% exercise="10.5"

# %% [markdown]
# ## 10.A Two at once: freezing and rates
#
# An optimizer's groups against the recipe: who is missing, who is too many, who has the wrong rate?

# %% exercise="10.A"

# %% [markdown]
# ## 10.B Two at once: mask and reference
#
# Token log-probabilities of policy and reference, the answer mask, and the loss that must be $\ln 2$ at the first step.

# %% exercise="10.B"

# %% [markdown]
# ## How far you are

# %%
progress(10)
