# %% [markdown]
# # Part 6, exercises: quantized and memory-aware tuning
#
# Seven questions, about 40 minutes, and then a four-bit quantiser of your own in four steps, about 40 more. Each check answers at
# once and knows the usual slips; nothing here is graded. The theory is in [theory.ipynb](theory.ipynb), the graded problems are
# [p03](../../source/p03_lora_parameters/p03_lora_parameters.ipynb),
# [p05](../../source/p05_truncated_svd/p05_truncated_svd.ipynb) and
# [p10](../../source/p10_freeze_and_mask_audit/p10_freeze_and_mask_audit.ipynb).

# %%
import math
from collections.abc import Sequence
from statistics import NormalDist

import torch
from torch import Tensor

from ftmath import base_model, dequantise, nf4_levels, quantise, uniform_levels
from ftmath.exercises import check_exercise, hint, progress, solution
from ftmath.exercises.part06 import decoded
from ftmath.quant import dequantise_scales, dynamic_levels, quantise_scales

Shape = tuple[int, int]
progress(6)

# %% [markdown]
# ## A worked one first
#
# A 13-billion model lies frozen in 4.127 bits a weight, with adapters of 60 million numbers beside it, at 16 bytes each. What
# stays in memory before the first token comes? Bits to bytes first: a frozen weight takes $4.127 / 8$ of one.

# %%
frozen, trained = 13e9 * 4.127 / 8, 60e6 * 16
total_gib = (frozen + trained) / 2**30
assert 7.1 < total_gib < 7.2
f"{frozen / 2**30:.2f} GiB frozen, {trained / 2**30:.2f} GiB for what trains, {total_gib:.2f} GiB in all"

# %% [markdown]
# ## 6.1 Frozen quantized base
#
# "Four bits" is never four bits: each block brings a constant. How many bits does a weight take, with and without double
# quantisation? One line is left open.

# %% exercise="6.1" fade="half"

# %% [markdown]
# ## 6.2 Adapter optimizer states
#
# You want to know what stays in memory before you rent the card.

# %% exercise="6.2"

# %% [markdown]
# ## 6.3 Activation memory remains
#
# What does a block keep between its forward and its backward pass, with and without stored attention scores?

# %% exercise="6.3"

# %% [markdown]
# ## 6.4 Gradient checkpointing
#
# Into how many segments should equal layers be cut? The square root is a good guess; the exact answer has whole numbers in it.

# %% exercise="6.4"

# %% [markdown]
# ## 6.5 Rank-memory tradeoff
#
# A budget in GiB is left on the card. How large may the rank be?

# %% exercise="6.5"

# %% [markdown]
# ## 6.A Two at once: activations and segments
#
# A transformer block keeps some twenty times what its input weighs. Into how many segments should such blocks be cut?

# %% exercise="6.A"

# %% [markdown]
# ## 6.B Two at once: quantisation and rank
#
# An adapter can begin by repairing what rounding broke. How much of the error is left after the best repair of rank $r$?

# %% exercise="6.B"

# %% [markdown]
# ## Build an NF4 quantiser
#
# Four steps make the quantiser of QLoRA: its levels, its blocks, its double quantisation, and the tool that tells what somebody else's file holds. Each
# step checks itself, and the next one doesn't need it to be right. At the end yours is held to the library's on real weights.
#
# ## 6.C The levels
#
# NF4's levels stand at quantiles of the normal distribution, so that each is used about equally often.

# %% exercise="6.C"

# %% [markdown]
# ## 6.D Blocks and their constants
#
# Each block of weights is divided by its largest magnitude; then each weight becomes the number of its nearest level.

# %% exercise="6.D"

# %% [markdown]
# ## 6.E Constants quantised again
#
# A constant of 32 bits for each 64 weights is half a bit a weight. Stored in eight bits, they cost an eighth.

# %% exercise="6.E"

# %% [markdown]
# **Yours beside the library's**, on a weight matrix of the course's model.

# %%
weight = base_model().get_parameter("blocks.0.mlp.up.weight").detach()
theirs = quantise(weight)
try:
    levels = quantile_levels(4)
    codes, constants = quantise_blocks(weight.flatten().double(), levels, 64)
    twice = quantise_twice(constants.view(-1, 8).flatten(), dynamic_levels().double(), 8)
    print("levels apart by at most", f"{float((levels - nf4_levels()).abs().max()):.1e}")
    print("codes that differ:", int((codes != theirs.codes).sum()), "of", len(codes))
    print(
        "constants, quantised again, off by",
        f"{float((twice - constants).norm() / constants.norm()):.2%}; the library's, in blocks of 256,",
        f"by {float((dequantise_scales(quantise_scales(theirs.scales)) - theirs.scales).norm() / theirs.scales.norm()):.2%}",
    )
    for name, book in (("normal", levels), ("uniform", uniform_levels(4).double())):
        codes, constants = quantise_blocks(weight.flatten().double(), book, 64)
        back = (book[codes] * constants.repeat_interleave(64)).view_as(weight)
        print(f"{name:>8} levels: relative error {float((back - weight).norm() / weight.norm()):.4f}")
except NotImplementedError:
    print("Write 6.C, 6.D and 6.E above first.")

# %% [markdown]
# ## 6.F Explain a file
#
# A team says that its file holds NF4 in blocks of 64. You have the weights from before, and those that the file gives back. Write the function that tells what
# the file really holds.

# %% exercise="6.F"

# %% [markdown]
# Now two files. One was made in blocks of 64, one with a single constant for the whole matrix, in which one weight is an outlier. The cell prints
# each file's error and what your function says. Why does one outlier spoil a file of 45,056 weights in the second case and not in the first?

# %%
outlier = weight.flatten().double().clone()
outlier[7] = 30 * outlier.std()
for size in (64, len(outlier)):
    file = decoded(outlier, nf4_levels().double(), size)
    try:
        said = explain_file(outlier, file, nf4_levels().double(), 64)
    except NotImplementedError:
        said = "Write explain_file above first."
    others = torch.arange(len(outlier)) != 7
    wrong = float((file - outlier)[others].norm() / outlier[others].norm())
    print(
        f"blocks of {size:>6}: error of the other weights {wrong:.2f}, stored as 0: {float((file == 0).double().mean()):.0%}; {said}"
    )

# %% [markdown]
# <details><summary>What the outlier does, in words</summary>
#
# A constant is the largest magnitude of those who share it. In blocks of 64, the outlier stretches the levels of 63 neighbours only. With one
# constant it stretches them for everyone: nearly all weights then lie within half a gap of 0, and are stored as 0. The file's size is almost the
# same, and so is its maker's claim of "four bits"; only a comparison with the weights tells.
# </details>

# %% [markdown]
# ## How far you are

# %%
progress(6)
