# %% [markdown]
# # Part 7, exercises: preference fine-tuning
#
# Seven questions, about 45 minutes, and then a round of policy updates of your own in five steps, about 45 more. Each check
# answers at once and knows the usual slips; nothing here is graded. The theory is in [theory.ipynb](theory.ipynb), the graded
# problem is [p08, the DPO loss](../../source/p08_dpo_loss/p08_dpo_loss.ipynb).

# %%
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ftmath import polite_policy, polite_requests, roll_out
from ftmath.exercises import check_exercise, hint, progress, solution
from ftmath.exercises.part07 import Table, told_answers
from ftmath.manners import word_of

progress(7)

# %% [markdown]
# ## A worked one first
#
# Four answers to one prompt were ranked. How many pairs does that give, and what would the loss be if the reward model had
# no idea, all rewards equal? Every two answers make a pair, and $-\log\sigma(0) = \log 2$ for each.

# %%
answers = 4
pairs = answers * (answers - 1) // 2
assert pairs == 6
f"{pairs} pairs; the mean loss of a model without an idea is {math.log(2):.4f} nats"

# %% [markdown]
# ## 7.1 Preference pairs
#
# One answer was compared with another a number of times. How far apart are their rewards? Start from the skeleton: where one
# of the two never won, there is no finite answer.

# %% exercise="7.1" fade="half"

# %% [markdown]
# ## 7.2 Reward-model view
#
# A reward is read off one hidden state, that of the last real token. A batch may be padded on either side.

# %% exercise="7.2"

# %% [markdown]
# ## 7.3 KL-regularized policy update
#
# Write the closed form down so that it survives $r / \beta = 10\,000$.

# %% exercise="7.3"

# %% [markdown]
# ## 7.4 DPO loss
#
# Not every pair pulls alike. What is the pull at margin $h$?

# %% exercise="7.4"

# %% [markdown]
# ## 7.5 Preference over-optimization
#
# You may go so many nats away from the policy, and not one more. How many answers may you draw and pick from at most? (Rewards
# without ties, so that the formula holds exactly.)

# %% exercise="7.5"

# %% [markdown]
# ## 7.A Two at once: DPO and Bradley-Terry
#
# A policy that was trained by DPO holds a reward model inside. Ask it for its vote.

# %% exercise="7.A"

# %% [markdown]
# ## 7.B Two at once: the closed form and a budget
#
# Over-optimisation is kept off by a budget of KL. Which $\beta$ spends exactly that?

# %% exercise="7.B"

# %% [markdown]
# ## Build a round of policy updates
#
# Four steps make what a trainer of preferences is made of: a DPO step, a group's advantage, a clipped update, and a round of GRPO
# that uses the last two. The fifth explains somebody else's run. Each step checks itself.
#
# ## 7.C A DPO step
#
# A policy over a handful of answers is a row of logits. Take one step on some pairs.

# %% exercise="7.C"

# %% [markdown]
# ## 7.D A group's advantage
#
# Now without pairs: several answers to each prompt, and a reward for each. How good is an answer beside the others to its prompt?

# %% exercise="7.D"

# %% [markdown]
# ## 7.E A clipped update
#
# The policy moves while the answers stay. Write the loss that counts how far, and stops a token that has gained enough; and count
# how many tokens it stops.

# %% exercise="7.E"

# %% [markdown]
# ## 7.F One round of GRPO
#
# Put them together. `Table(0)` is a language model of one table, and `told_answers(0)` gives ids, a mask and rewards to try it on.

# %% exercise="7.F"

# %% [markdown]
# Your round works on the course's model too. The skill can be verified: the letters of the answer are right or they aren't. The next
# cell teaches the model from demonstrations with typos, and then runs eight of your rounds.

# %%
requests = dict(polite_requests(48, 300))
policy, draws = polite_policy(0, steps=40, rate=1e-3, typos=0.15, thanks=0.5), torch.Generator().manual_seed(0)


def answers_of(asked):
    """Return ids, mask, rewards and texts of eight answers to each prompt."""
    rows, said = roll_out(policy, asked, 8, generator=draws)
    right = [float(word_of(one) == requests[asked[k // 8]]) for k, one in enumerate(said)]
    return rows.ids, rows.answer_mask, torch.tensor(right).view(-1, 8), said


try:
    for number in range(8):
        ids, mask, rewards, _ = answers_of(list(requests)[6 * number :][:6])
        seen = one_round(policy, ids, mask, rewards, updates=3, rate=0.1, clip=0.2)
        print(f"round {number}: right {rewards.mean():.2f}, cut {[f'{cut:.0%}' for _, cut in seen]}")
except NotImplementedError:
    print("Write group_advantage, clipped_update and one_round above first.")

# %% [markdown]
# ## 7.G Explain a run
#
# Rewards that don't rise have several causes, and the log of one round tells them apart.

# %% exercise="7.G"

# %% [markdown]
# Now a real round. A team asks the model for words that are longer than any that it has seen, with a verifier that is strict and
# correct, and reports: "reinforcement learning doesn't work here". What does your function say? And what would you change, the rate,
# the clip, or the questions?

# %%
asked = ["please reverse abcdefghij", "please copy qwertzuiop"]
requests |= {asked[0]: "jihgfedcba", asked[1]: "qwertzuiop"}
ids, mask, rewards, said = answers_of(asked)
kinds = sum(len(set(said[k : k + 8])) / 8 for k in (0, 8)) / 2
try:
    print("your function says:", explain_round(rewards, [0.0, 0.0, 0.0], kinds))
except NotImplementedError:
    print("Write explain_round above first.")
print("some answers:", said[:3])

# %% [markdown]
# <details><summary>What the team saw, in words</summary>
#
# No answer was right, so every advantage is 0 and the gradient too: no rate and no clip changes that. Updates can only make more frequent
# what is drawn now and then. Ask questions that the policy answers right sometimes (shorter words first), draw more answers to each, show
# demonstrations first, or reward a part of the answer: each brings groups with unequal rewards.
# </details>

# %% [markdown]
# ## How far you are

# %%
progress(7)
