# %% [markdown]
# # Part 5, exercises: LoRA's algebra
#
# Seven questions, about 45 minutes, and then a LoRA layer of your own in four steps, about 40 more. Each check answers at once
# and knows the usual slips; nothing here is graded. The theory is in [theory.ipynb](theory.ipynb), the graded problems are
# [p03](../../source/p03_lora_parameters/p03_lora_parameters.ipynb),
# [p04](../../source/p04_lora_update/p04_lora_update.ipynb) and
# [p05](../../source/p05_truncated_svd/p05_truncated_svd.ipynb).

# %%
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from ftmath import add_lora, base_model, lora_layers, probes
from ftmath.exercises import check_exercise, hint, progress, solution
from ftmath.exercises.part05 import filled_layer
from ftmath.sweeps import short_run

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
# A log prints how many numbers train. From that count you can tell whether the run has the rank and the targets that its
# settings claim. Work back from the count to the rank.

# %% exercise="5.2"

# %% [markdown]
# ## 5.3 Scaling
#
# The first step moves the model in proportion to $s^2 r$ under SGD and to $s\,r$ under Adam, with $s = \alpha / r$. A colleague
# tuned $\alpha$ at rank 8 and wants to go to rank 64 without touching the learning rate. What should $\alpha$ become?

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
# Merge an adapter into a type of sixteen bits, and measure what the merge does to one output. The base is served in that type too,
# so round it first: with $B = 0$ the merge does nothing, whatever $W$ is.

# %% exercise="5.B"

# %% [markdown]
# ## Build a LoRA layer
#
# Four steps make a LoRA layer that you could use: the layer, its merge, its audit, and the tool that tells what went wrong in
# somebody else's run. Each step checks itself, and the next one doesn't need it to be right.
#
# ## 5.C The layer
#
# Write the class that part 5 drew: a frozen base, and a narrow path beside it that starts by adding nothing.

# %% exercise="5.C"

# %% [markdown]
# ## 5.D Its merge
#
# For serving, the layer becomes one plain linear layer.

# %% exercise="5.D"

# %% [markdown]
# ## 5.E Its audit
#
# Most broken runs were broken before their first step. Write the check that you would run on every layer before training.

# %% exercise="5.E"

# %% [markdown]
# ## 5.F Explain a run
#
# A team trained an adapter and saved it. After loading, its answers aren't what they were. All that you have is one layer's
# outputs for the same inputs: without the adapter, with it before saving, and after loading. Write the function that tells what
# happened. (The logits of a whole model wouldn't do: twice the update isn't twice its effect on them.)

# %% exercise="5.F"

# %% [markdown]
# Now a real run. The next cell trains LoRA on the course's model for 40 steps, saves it in one of the ways that teams do, loads
# it, and asks your function. What did this team do, and what should it have saved instead?

# %%
model = short_run(lambda one, draw: add_lora(one, ["q", "v"], 4, 8.0, generator=draw), 0, rate=3e-3).model
layer = lora_layers(model)["blocks.0.attn.q"]
inputs = model.embed(probes("neb", 4, 1).ids).flatten(0, 1)
with torch.no_grad():
    base, saved = layer.base(inputs), layer(inputs)
    layer.base.weight += layer.delta()  # the fault
    loaded = layer(inputs)
try:
    print("your function says:", explain_run(base, saved, loaded))
except NotImplementedError:
    print("Write explain_run above first.")

# %% [markdown]
# <details><summary>What the team did, in words</summary>
#
# It merged, saved the merged weights as the base, and wrapped them with the same adapter again on loading. The effect is there
# twice. Either save the factors alone and leave the base as it was, or save the merged weights and load them without an adapter.
# </details>

# %% [markdown]
# ## How far you are

# %%
progress(5)
