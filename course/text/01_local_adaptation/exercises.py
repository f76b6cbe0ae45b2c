# %% [markdown]
# # Part 1, exercises: a local move
#
# Seven questions, about 45 minutes, and then a training loop of your own in four steps, about 40 more. Each check answers at
# once and knows the usual slips; nothing here is graded. The theory is in [theory.ipynb](theory.ipynb), the graded problem is [p02](../../source/p02_kl_shift/p02_kl_shift.ipynb).

# %%
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmath import base_model
from ftmath.exercises import check_exercise, hint, progress, solution
from ftmath.skills import SKILLS, mixture

Weights = Mapping[str, Tensor]
Lines = tuple[Tensor, Tensor]
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
# ## Build a training loop
#
# Four steps make the loop that the theory used: the loop itself, the drift that it should watch, a stop when the drift is used
# up, and a function that reads the log of somebody else's run. Each step checks itself, and the next one doesn't need it to be
# right.
#
# ## 1.C The loop
#
# Batches come in, losses go out, and the model is another one afterwards.

# %% exercise="1.C"

# %% [markdown]
# ## 1.D Its drift
#
# The loss knows the task alone. Measure how far the model has moved from the base on lines that the task doesn't show.

# %% exercise="1.D"

# %% [markdown]
# ## 1.E Stop within a budget
#
# Decide beforehand how many nats a token you can spend. Measure on the way, stop when they are spent, and go back to the last
# weights that were within the budget.

# %% exercise="1.E"

# %% [markdown]
# ## 1.F Explain a run
#
# You are sent the log of a run: the losses, and the drift whenever it was measured. Say what happened.

# %% exercise="1.F"

# %% [markdown]
# Now three real runs with your own functions. Every run trains the course's model on `flip` for 30 steps, and its drift is
# measured every ten steps on lines of the old skills. One of them has a fault in its set-up. Before you run the second cell: its `for` line
# builds the three runs. Which fault is it, and what will your function say?


# %%
def batches(count, seed=0):
    rng = np.random.default_rng(seed)
    rows = [mixture({"flip": 1.0}, 16, rng) for _ in range(count)]
    return [(one.ids, one.answer_mask) for one in rows]


def log_of(tuned, base, rate):
    losses, drifts = [], []
    for stretch in range(3):
        losses += fit(tuned, batches(10, seed=stretch), rate, clip=1.0)
        drifts.append(drift(tuned, base, old.ids, old.answer_mask))
    log = losses, drifts
    return log


# %%
old = mixture(dict.fromkeys(SKILLS, 1.0), 64, np.random.default_rng(1))
model = base_model()
try:
    for tuned, base, rate in (
        (base_model(), base_model(), 3e-4),
        (model, model, 3e-4),
        (base_model(), base_model(), 1e-3),
    ):
        losses, drifts = log_of(tuned, base, rate)
        said = explain_run(losses, drifts)
        print(f"loss {losses[0]:.2f} -> {losses[-1]:.3f}, drift {[round(one, 3) for one in drifts]}: {said}")
except NotImplementedError:
    print("Write fit, drift and explain_run above first.")

# %% [markdown]
# <details><summary>What the three runs are, in words</summary>
#
# The second run compares the model with itself: `tuned` and `base` are one object, so the drift is exactly 0 at every measurement,
# whatever is learned. A base must be a model of its own, loaded a second time or copied before the first step. The first and the
# third run differ in the rate alone. Both learn the task, and at the higher rate the drift is several times as large. The
# loss hardly shows the difference. So watch the drift from the first steps on, not after the last one.
# </details>

# %% [markdown]
# ## How far you are

# %%
progress(1)
