# %% [markdown]
# # Project. An adapter that learns without forgetting
#
# Train a LoRA adapter for the course's base model, and hand in what was trained. The grader runs no line of this
# notebook: it reads your adapter's numbers, merges them into its own copy of the base model, and asks the result
# prompts that are drawn for you.
#
# **The task is `loud`**: write a word backwards and in capitals, so that `loud tree` gives `EERT`. The base model has
# learned `reverse` and `upper`, each alone, and doesn't know this word for both. **The budget**: the ten old skills must
# still work, the model must stay near its base, and the adapter must be small.

# %% hole="card"

# %% [markdown]
# ## What you hand in
#
# Three files in one folder, or in one archive: this notebook, `adapter.safetensors` (at most 2,000,000 bytes) and
# `card.json`. `save_adapter` writes the last two beside this notebook.
#
# The adapter holds the two factors of each adapted layer and nothing else: `NAME.A` of shape (rank, d_in) and `NAME.B`
# of shape (d_out, rank), in float32, float16 or bfloat16, where NAME is the layer's name in the base model, such as
# `blocks.0.attn.q`. The card says how they are read: the update of a layer's weight is alpha / rank · B A.
#
# | key of the card | what it holds |
# | --- | --- |
# | `task` | `"loud"` |
# | `rank` | the rank of every adapted layer, a whole number |
# | `alpha` | a number above 0, at most 1,000 |
# | `targets` | a list of layers: parts of names such as `"q"`, or globs such as `"blocks.3.*"` |
# | `who` | your name, as you like it |
#
# A file that doesn't fit its card, holds NaN or infinity, or has more than 80,000 parameters (a tenth of the base model)
# isn't scored; the feedback page says why, and you may hand in again.

# %% [markdown]
# ## Train it
#
# This cell is yours. `fine_tune` runs as it stands, and its adapter learns nearly nothing: it has too few steps. Change
# what you like, or write a training loop of your own; only the two files count.

# %% hole="training"
from ftmath import fine_tune
from ftmath.methods import Method, lora
from ftmath.project import save_adapter

TARGETS = ("q", "v")
mine = {"my adapter": Method(lora(TARGETS, rank=4), rate=1e-3)}
model, run = fine_tune("my adapter", "loud", steps=5, replay=0.0, methods=mine)
save_adapter(model, who="me", targets=TARGETS)
print(run)

# %% [markdown]
# ## Look at its scorecard
#
# The next cells measure what the grader measures, by the same program and on as many prompts: 360 of the task and 60 of
# each old skill. Here the prompts are public, and at grading they are others. An adapter that was tuned until it knew
# the public ones by heart gains nothing there.
#
# Each number stands with its 95 % interval: Wilson's for a share of right answers, a bootstrap over prompts for the
# drift. **A goal counts as reached if the better end of the interval reaches it**, so that an unlucky draw of prompts
# costs nobody a point.

# %% hole="scorecard"
