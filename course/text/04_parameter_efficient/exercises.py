# %% [markdown]
# # Part 4, exercises: parameter-efficient fine-tuning
#
# Seven questions, about 50 minutes, and then adapters and a prefix of your own in four steps, about 40 more. Each check answers
# at once and knows the usual slips; nothing here is graded. The theory is in [theory.ipynb](theory.ipynb), the graded problems are
# [p04](../../source/p04_lora_update/p04_lora_update.ipynb), [p06](../../source/p06_adapter_parameters/p06_adapter_parameters.ipynb)
# and [p07](../../source/p07_prefix_parameters/p07_prefix_parameters.ipynb).

# %%
from collections.abc import Callable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmath import (
    Bottleneck,
    Decoder,
    add_prefix,
    base_model,
    best_device,
    mixture,
    model_loss,
    quality,
    rate_groups,
    rotated,
    train,
    turn,
)
from ftmath.exercises import check_exercise, hint, progress, solution
from ftmath.exercises.part04 import blocks_of, small_model
from ftmath.predict import predicted

Shape = tuple[int, ...]
progress(4)

# %% [markdown]
# ## A worked one first
#
# An adapter with $d = 2$, $m = 1$ meets $h = (2, -1)$: $W_\text{down} = (.5, -.25)$, $b_d = .25$, $W_\text{up} = (-1, 2)^\top$,
# no second bias, ReLU. What comes out?

# %%
h, W_down, W_up = torch.tensor([2.0, -1.0]), torch.tensor([[0.5, -0.25]]), torch.tensor([[-1.0], [2.0]])
inside = W_down @ h + 0.25
out = h + W_up @ F.relu(inside)
assert torch.allclose(out, torch.tensor([0.5, 2.0]))
f"inside {inside.item():.1f}, out {out.tolist()}"

# %% [markdown]
# ## 4.1 Linear probing
#
# A frozen model's features and a linear map, solved exactly. Half of the function stands already.

# %% exercise="4.1" fade="half"

# %% [markdown]
# ## 4.2 Adapters
#
# An adapter is no single matrix. But near any one input it is: a matrix and an offset. Which?

# %% exercise="4.2"

# %% [markdown]
# ## 4.3 Soft prompt tuning
#
# Virtual tokens change three tensors, not one.

# %% exercise="4.3"

# %% [markdown]
# ## 4.4 Prefix tuning
#
# A prefix is called small and LoRA large. It depends on the length: how long may a prefix be until it holds as many numbers?

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
# ## 4.B Two at once: counts and shapes
#
# A file of trained tensors turns up, its names stripped, and nobody remembers the run. The shapes are enough.

# %% exercise="4.B"

# %% [markdown]
# ## Build two methods into a model
#
# Four steps: an adapter, its place in the course's model, a prefix in attention, and the tool that says what really trained. Each
# step checks itself, and the next one doesn't need it to be right.
#
# ## 4.C An adapter
#
# A narrow detour beside the identity.

# %% exercise="4.C"

# %% [markdown]
# ## 4.D Its place in the model
#
# Two in each block, and nothing else trains.

# %% exercise="4.D"

# %% [markdown]
# Now the course's model, with your adapters. A fresh one must give the base's logits bit for bit, and the count must be that of 4.2,
# $2 L (2 d m + m + d)$. Then it learns `flip` in 60 steps.


# %%
def tune(model, steps=60, rate=3e-3):
    """Train on `flip` what trains."""
    rng = np.random.default_rng(0)

    def loss(step):
        rows = mixture({"flip": 1.0}, 16, rng).to(device)
        nats = model_loss(model, rows.ids, rows.answer_mask)
        return nats

    train(model, loss, rate_groups(model, {}, rate), steps)


device = best_device()
try:
    ids = mixture({"flip": 1.0}, 4, np.random.default_rng(1)).ids.to(device)
    model = place_adapters(base_model(), 8).to(device)
    count = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    print(
        f"same logits: {torch.equal(model(ids), base_model().to(device)(ids))}; {count:,} numbers train, by the formula {8 * (2 * 128 * 8 + 8 + 128):,}"
    )
    before = quality(model, "flip")
    tune(model)
    print(f"flip before {before:.2f}, after 60 steps {quality(model, 'flip'):.2f}")
except NotImplementedError:
    print("Write place_adapters above first.")

# %% [markdown]
# ## 4.E A prefix in attention
#
# Two things go wrong here in real code: the mask and the positions.

# %% exercise="4.E"

# %% [markdown]
# The course's model does the same. One of its attention layers with a prefix of three, and your function with that layer's own
# queries, keys and values:

# %%
model = base_model()
add_prefix(model, 3, torch.Generator().manual_seed(0), scale=1.0)
layer, x = model.blocks[0].attn, torch.randn(2, 7, 128, generator=torch.Generator().manual_seed(1))
with torch.no_grad():
    theirs, _ = layer(x, turn((3 + torch.arange(7)).expand(2, -1), 32, 10_000.0), None)
    q, k, v = (one(x).view(2, 7, 4, 32).transpose(1, 2) for one in (layer.q, layer.k, layer.v))
    try:
        own = prefixed_attention(q, k, v, layer.prefix.keys, layer.prefix.values, torch.ones(2, 7))
        own = layer.o(own.transpose(1, 2).reshape(2, 7, 128))
        print(f"largest difference: {(own - theirs).abs().max():.1e}, where outputs go up to {theirs.abs().max():.1f}")
    except NotImplementedError:
        print("Write prefixed_attention above first.")

# %% [markdown]
# ## 4.F What really trained
#
# A log says "trainable parameters: 17,472". That is what *may* train. Write the function that says what did.

# %% exercise="4.F"

# %% [markdown]
# Now a real run. A team put adapters into the course's model and trained `flip`. The loss doesn't fall.

# %%
model = base_model()
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
model.requires_grad_(False)
for block in model.blocks:
    block.attn.o = nn.Sequential(block.attn.o, Bottleneck(128, 8))
    block.mlp.down = nn.Sequential(block.mlp.down, Bottleneck(128, 8))
named, old = dict(model.named_parameters()), {id(one): name for name, one in model.named_parameters()}
start = {name: value.detach().clone() for name, value in named.items()}
rng, gradient, losses = np.random.default_rng(0), set(), []
for step in range(10):
    rows = mixture({"flip": 1.0}, 16, rng)
    loss = model_loss(model, rows.ids, rows.answer_mask)
    loss.backward()
    gradient |= {name for name, value in named.items() if value.grad is not None}
    losses.append(loss.item())
    optimizer.step()
    optimizer.zero_grad()
trains = {name for name, value in named.items() if value.requires_grad}
count = sum(named[name].numel() for name in trains)
assert count == 17_472
print(f"trainable parameters: {count:,}")
print("loss:", [round(value, 2) for value in losses])

# %% [markdown]
# **Explain it.** How many numbers moved in these ten steps? Guess, then ask your function, then find the line that did it.

# %%
guess = None  # a number

# %%
added = {name for name in named if any(part in name for part in (".1.down.", ".1.up."))}
held = {old[id(one)] for group in optimizer.param_groups for one in group["params"] if id(one) in old}
moved = {name for name, value in named.items() if not torch.equal(value, start[name])}
sizes = {name: value.numel() for name, value in named.items()}
try:
    print("your function says:", what_trained(sizes, added, trains, gradient, held, moved))
except NotImplementedError:
    print("Write what_trained above first.")
why = "The adapters have gradients, and the optimizer doesn't hold them; what it holds is frozen."
predicted("numbers that moved", guess, sum(sizes[name] for name in moved), why)

# %% [markdown]
# <details><summary>What the team did, in words</summary>
#
# The optimizer was made in the second line, before there were any adapters. It holds the base's parameters, which are frozen and
# never get a gradient. The adapters get gradients at each step, and nobody takes a step with them. `requires_grad` is right, the
# printed count is right, and nothing trains. Make the optimizer last, from the parameters that train, and compare a weight before and
# after the first step. (`zero_grad` doesn't reach the adapters either, so their gradients add up from step to step.)
# </details>

# %% [markdown]
# ## How far you are

# %%
progress(4)
