# %% [markdown]
# # Part 3, exercises: full fine-tuning
#
# Seven questions, about 50 minutes, and then an optimizer of your own in four steps, about 40 more. Each check answers at once
# and knows the usual slips; nothing here is graded. The theory is in [theory.ipynb](theory.ipynb), the graded problems are
# [p03](../../source/p03_lora_parameters/p03_lora_parameters.ipynb) (bytes) and
# [p09](../../source/p09_scorecard/p09_scorecard.ipynb).

# %%
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor, nn

from ftmath import base_model, mixture, model_loss, rate_groups, train
from ftmath.exercises import check_exercise, hint, progress, solution
from ftmath.exercises.part03 import team_factor
from ftmath.groups import level_of
from ftmath.plots import lines
from ftmath.predict import predicted

Optimizer = Callable[[Sequence[Tensor], float], None]
progress(3)

# %% [markdown]
# ## A worked one first
#
# A model of 2.7 billion parameters is tuned with mixed-precision Adam: 2 bytes of weight, 2 of gradient, and 4 + 4 + 4 for both
# moments and the master copy. How much memory stays, in GB and in GiB?

# %%
per_parameter = 2 + 2 + 4 + 4 + 4
total = 2_700_000_000 * per_parameter
assert round(total / 1e9, 1) == 43.2 and round(total / 2**30, 2) == 40.23
f"{per_parameter} bytes a parameter: {total / 1e9:.1f} GB = {total / 2**30:.2f} GiB"

# %% [markdown]
# ## 3.1 All parameters trainable
#
# Count a model by its sizes. Half of the function stands already.

# %% exercise="3.1" fade="half"

# %% [markdown]
# ## 3.2 Memory cost
#
# Sixteen bytes for a parameter that trains, two for one that doesn't, and a card that holds less than sixteen for all. How many
# can train? With several devices the optimizer's bytes may be split.

# %% exercise="3.2"

# %% [markdown]
# ## 3.3 Layer-wise learning rates
#
# A colleague's log shows the rates of a few parameters, in no order. Which $\gamma$ did the run have, and did it have one at all?

# %% exercise="3.3"

# %% [markdown]
# ## 3.4 Weight decay
#
# Decoupled: the decay doesn't pass through Adam's division.

# %% exercise="3.4"

# %% [markdown]
# ## 3.5 When full tuning helps
#
# Nobody can say what a point of quality is worth to them. So turn the question round: for which values would full tuning pay?

# %% exercise="3.5"

# %% [markdown]
# ## 3.A Two at once: activations and logits
#
# So many bytes are free after weights, gradients and optimizer. Blocks and head both want them. Which batch fits?

# %% exercise="3.A"

# %% [markdown]
# ## 3.B Two at once: rates and decay
#
# How many steps until decay alone has taken a share of a weight?

# %% exercise="3.B"

# %% [markdown]
# ## Build an optimizer
#
# Four steps make what `ftmath.train` has inside: AdamW, its schedule, its clip, and an alarm that reads the log. Each step checks
# itself, and the next one doesn't need it to be right.
#
# ## 3.C AdamW
#
# The update rule of 3.4, for a list of parameters, with a state that lives from step to step.

# %% exercise="3.C"

# %% [markdown]
# Does it train as torch's own? Both take ten steps on the course's model, with the same lines and a decay of 0.1.


# %%
def ten_steps(optimizer):
    """Train the base model on `neb`; `optimizer(parameters)` returns the function that takes one step."""
    model, rng = base_model(), np.random.default_rng(0)
    parameters = list(model.parameters())
    step = optimizer(parameters)
    for _ in range(10):
        rows = mixture({"neb": 1.0}, 8, rng)
        model_loss(model, rows.ids, rows.answer_mask).backward()
        step()
        model.zero_grad()
    return torch.nn.utils.parameters_to_vector(parameters).detach()


def mine(parameters):
    move = adamw(1e-3, 0.1)
    return lambda: move(parameters, 1.0)


# %%
try:
    own = ten_steps(mine)
    theirs = ten_steps(lambda parameters: torch.optim.AdamW(parameters, lr=1e-3, weight_decay=0.1).step)
    print(
        f"ten steps moved a weight by {(theirs - ten_steps(lambda parameters: lambda: None)).abs().max():.1e} at most,"
    )
    print(f"and yours and torch's ended {(own - theirs).abs().max():.1e} apart")
except NotImplementedError:
    print("Write adamw above first.")

# %% [markdown]
# ## 3.D Warm-up and cosine
#
# The factor that multiplies the rate at each step.

# %% exercise="3.D"

# %% [markdown]
# ## 3.E Clipping by the global norm
#
# One factor for all gradients, so that their direction stays. (For plain descent it is the step's direction; Adam's step may still turn.) The norm from before is worth a place in the log.

# %% exercise="3.E"

# %% [markdown]
# The three pieces together are the inside of `ftmath.train`. Both loops take ten steps with the same lines.


# %%
def schedule(step, steps):
    return warm_cosine(step, steps, 3, 0.0)


def own_loop(model, loss, steps=10):
    parameters, move = list(model.parameters()), adamw(1e-3, 0.0)
    for step in range(steps):
        loss(step).backward()
        gradients, norm = clip_together([parameter.grad for parameter in parameters], 1.0)
        for parameter, gradient in zip(parameters, gradients):
            parameter.grad = gradient
        move(parameters, schedule(step, steps))
        model.zero_grad()


def tuned_by(loop):
    model, rng = base_model(), np.random.default_rng(0)

    def loss(step):
        rows = mixture({"neb": 1.0}, 8, rng)
        return model_loss(model, rows.ids, rows.answer_mask)

    loop(model, loss)
    return torch.nn.utils.parameters_to_vector(model.parameters()).detach()


# %%
try:
    own = tuned_by(own_loop)
    theirs = tuned_by(lambda model, loss: train(model, loss, rate_groups(model, {}, 1e-3), 10, schedule=schedule))
    print(f"your loop's weights and ftmath.train's are {(own - theirs).abs().max():.1e} apart")
except NotImplementedError:
    print("Write adamw, warm_cosine and clip_together above first.")

# %% [markdown]
# ## 3.F Find the divergence
#
# A run that goes wrong shows it in one quantity before the others. Write the alarm that reads a log and says which one, and when.

# %% exercise="3.F"

# %% [markdown]
# Now a real run. A team tuned the course's model on `neb`, with AdamW at 6e-4, clipped at 1, with a warm-up of five steps. The loss
# fell, and then it stayed far too high. The next cell trains once with the team's schedule and once with a warm-up of five steps
# done right, and draws the team's log.


# %%
def logged(factor, steps=80):
    """Train with AdamW and return the log: the loss, the norm before clipping, and the update's size over the weights'."""
    model, rng = base_model(), np.random.default_rng(0)
    parameters = list(model.parameters())
    optimizer = torch.optim.AdamW(parameters, lr=6e-4, weight_decay=0.0)
    log = {"loss": [], "gradient norm": [], "update / weights": []}
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = 6e-4 * factor(step)
        rows = mixture({"neb": 1.0}, 8, rng)
        loss = model_loss(model, rows.ids, rows.answer_mask)
        loss.backward()
        norm = torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        before = torch.nn.utils.parameters_to_vector(parameters).detach()
        optimizer.step()
        optimizer.zero_grad()
        moved = torch.nn.utils.parameters_to_vector(parameters).detach() - before
        for name, value in zip(log, (loss.detach(), norm, moved.norm() / before.norm())):
            log[name].append(float(value))
    return log


# %%
team, right = logged(team_factor), logged(lambda step: min(1.0, (step + 1) / 5))
last = {name: sum(log["loss"][-10:]) / 10 for name, log in (("team", team), ("right", right))}
print(f"mean loss of the last ten steps: the team's {last['team']:.2f}, done right {last['right']:.2f} nats")
lines(
    list(range(80)),
    team,
    log_y=True,
    title="The team's log: the loss falls and stays high",
    x_label="step",
    y_label="value",
    alt="; ".join(f"{name} from {values[0]:.2g} to {values[-1]:.2g}" for name, values in team.items())
    + f" over 80 steps. Done right, the loss ends at {last['right']:.2f}.",
)

# %% [markdown]
# Ask your function, for both runs: values from step 5 on, means of 10, alarm at twice the least.

# %%
try:
    for name, log in (("the team's run", team), ("done right", right)):
        print(f"{name}: {first_alarm(log, start=5, window=10, times=2.0)}")
except NotImplementedError:
    print("Write first_alarm above first.")

# %% [markdown]
# **Explain it.** Which quantity raised the alarm, did the loss raise one at all, and what did the team do? Say how many times too high
# the rate was at the last step. The third line of the picture tells you, if you read it at step 4 and at step 79.

# %%
guess = None  # a factor

# %%
assert last["team"] > 3 * last["right"]
predicted(
    "rate at the last step over the rate that was meant",
    guess,
    team_factor(79),
    why="The warm-up never ends: its factor is (step + 1) / 5 where it should be min(1, (step + 1) / 5).",
)

# %% [markdown]
# <details><summary>What happened, in words</summary>
#
# The updates grow all through the run, long after the five steps of the warm-up, because nothing stops the rise. The loss gives no
# alarm of its own: it stops falling, and a loss that stays high looks like a hard task. Clipping at 1 doesn't help. It bounds the
# gradient, and Adam divides by the gradient's size anyway: its step follows the rate. So log the size of the update beside the loss.
# </details>

# %% [markdown]
# ## How far you are

# %%
progress(3)
