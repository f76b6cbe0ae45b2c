# %% [markdown]
# # Part 2, exercises: the supervised objective
#
# Seven questions, about 45 minutes, and then the masks of a chat and a packed row in four steps, about 40 more. Each check answers at
# once and knows the usual slips; nothing here is graded. The theory is in [theory.ipynb](theory.ipynb), the graded problem is
# [p01](../../source/p01_answer_only_loss/p01_answer_only_loss.ipynb).

# %%
import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ftmath import base_model, token_logprobs
from ftmath.chats import packed_logits
from ftmath.exercises import check_exercise, hint, progress, solution

Said = tuple[str, str]
progress(2)

# %% [markdown]
# ## A worked one first
#
# Five tokens have the probabilities .1, .2, .5, .8 and .9 under the model; the last three are the answer. What is the loss on
# the answer, and on everything?

# %%
nll, answer = -torch.tensor([0.1, 0.2, 0.5, 0.8, 0.9]).log(), torch.tensor([0, 0, 1, 1, 1])
on_answer, on_all = (nll * answer).sum() / answer.sum(), nll.mean()
assert round(on_answer.item(), 4) == 0.3406 and round(on_all.item(), 4) == 0.9867
f"answer only {on_answer:.4f} nats, all tokens {on_all:.4f}"

# %% [markdown]
# ## 2.1 Instruction-response pairs
#
# Build one training line, and shorten it where it must be. Half of the function stands already.

# %% exercise="2.1" fade="half"

# %% [markdown]
# ## 2.2 Answer-only loss
#
# One batch, two means; a paper that doesn't say which can't be reproduced.

# %% exercise="2.2"

# %% [markdown]
# ## 2.3 Teacher forcing
#
# Training shows the whole line at once. That is honest only if no position sees a later one: write the test.

# %% exercise="2.3"

# %% [markdown]
# ## 2.4 Label smoothing
#
# Move a share $e$ of the target's mass onto the whole vocabulary.

# %% exercise="2.4"

# %% [markdown]
# ## 2.5 Dataset mixture weights
#
# Large and small data sets in one run: who is drawn how often, and how often is each example seen?

# %% exercise="2.5"

# %% [markdown]
# ## 2.A Two at once: means and accumulation
#
# A batch doesn't fit and is computed in micro-batches. Put their losses together as if it had.

# %% exercise="2.A"

# %% [markdown]
# ## 2.B Two at once: token accuracy and exact match
#
# Each token is right with some probability. How long may an answer be to come out whole?

# %% exercise="2.B"

# %% [markdown]
# ## Build a chat's masks
#
# Four steps lead from a list of turns to a row that a model can train on: the template, the labels, the packing, and a function that
# tells whether a packing is right. Each step checks itself, and the next one doesn't need it to be right.
#
# ## 2.C The template
#
# Turns become text, text becomes tokens, and every token remembers who wrote it.

# %% exercise="2.C"

# %% [markdown]
# ## 2.D Its labels
#
# From the roles follow the targets: every answer of the chat, or the last one alone. In both cases the answer's end is learned.

# %% exercise="2.D"

# %% [markdown]
# ## 2.E Lines packed into one row
#
# Several lines share a row, and no line may notice it.

# %% exercise="2.E"

# %% [markdown]
# ## 2.F Explain a packed run
#
# A packing is right if the losses stay what they were. If they don't, the place where they change says what is wrong.

# %% exercise="2.F"

# %% [markdown]
# Now the course's model. Three chats of its skills are scored alone and packed, with your functions. In the first packed row all is as `pack` made
# it. In the second one the mask is plain causal. In the third one the positions run on, with the right mask. What will your function say of each? One of the three
# answers may surprise you: why is it so?

# %%
CHATS = [
    [("user", "copy sun"), ("assistant", "sun")],
    [("user", "upper ab"), ("assistant", "AB")],
    [("user", "last tree"), ("assistant", "e")],
]


def losses_of(logits, row):
    return -token_logprobs(logits[:-1], row["ids"][1:])[row["labels"][1:] != -100].detach()


# %%
try:
    lines = [(ids, chat_labels(ids, roles, False)) for ids, roles in map(chat_ids, CHATS)]
    model, row = base_model(), pack(lines)
    alone = [losses_of(model(pack([line])["ids"][None])[0], pack([line])) for line in lines]
    plain, running = torch.ones_like(row["allowed"]).tril(), torch.arange(len(row["ids"]))
    for name, changes in (
        ("as packed", {}),
        ("plain causal", {"allowed": plain}),
        ("positions run on", {"positions": running}),
    ):
        used = row | changes
        packed = losses_of(packed_logits(model, used["ids"], used["positions"], used["allowed"]), row)
        largest = float((torch.cat(alone) - packed).abs().max())
        print(f"{name:>16}: {explain_packing(alone, packed)}; largest difference {largest:.1g} nats")
except NotImplementedError:
    print("Write chat_ids, chat_labels, pack and explain_packing above first.")

# %% [markdown]
# <details><summary>What the three rows show, in words</summary>
#
# The row as packed gives the losses of the separate lines, up to rounding. With the plain causal mask the second and the third chat read the first one, and their losses
# change: a leak. Positions that run on change nothing here. This model's positions are rotary: a query and a key see only how far they are apart, and that is the same wherever
# the line begins. A model with learned positions, which are added to the input, would notice. So a packing that passes this test on one model may fail on another; reset the
# positions anyway.
# </details>

# %% [markdown]
# ## How far you are

# %%
progress(2)
