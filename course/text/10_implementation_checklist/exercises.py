# %% [markdown]
# # Part 10, exercises: implementation checklist
#
# Seven questions, about 40 minutes, and then a training script with five silent faults, about 40 more. Each check answers at once
# and knows the usual slips; nothing here is graded. The theory is in
# [theory.ipynb](theory.ipynb), the graded problems are
# [p10](../../source/p10_freeze_and_mask_audit/p10_freeze_and_mask_audit.ipynb), [p08](../../source/p08_dpo_loss/p08_dpo_loss.ipynb)
# and [p09](../../source/p09_scorecard/p09_scorecard.ipynb).

# %%
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ftmath import add_lora, base_model, batch, example, load_lora, lora_state, model_loss
from ftmath.exercises import check_exercise, hint, progress, solution
from ftmath.exercises.part10 import small_model
from ftmath.skills import EOS, PAD, SEP

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
# ## Five faults of a training script
#
# Below stands a team's script. It runs to the end, its loss falls, and nobody sees a warning. Its recipe says: LoRA of rank 4 on `q` and `v` with
# $\alpha = 8$, the answer and its end are learned, validation lines are new ones. Read it once and guess where the five faults are. Then write
# five checks, each of which finds one of them, in this script and in others. The last cell runs all five.


# %%
def team_script(steps=30):
    """Train, save and reload, as a team did it; return what a check can look at."""
    rng = np.random.default_rng(0)
    lines = [example("neb", rng) for _ in range(160)]
    train_lines, validation = lines[:128], lines[128:]
    rows = batch(train_lines)
    mask = rows.answer_mask.roll(-1, dims=1)  # position t predicts token t + 1
    model = base_model()
    add_lora(model, ["q", "v"], 4, 8.0, generator=torch.Generator().manual_seed(0))
    adapters = [p for name, p in model.named_parameters() if ".q." in name and p.requires_grad]
    optimizer, losses = torch.optim.AdamW(adapters, lr=1e-2, weight_decay=0.0), []
    for step in range(steps):
        before_backward = [None if p.grad is None else p.grad.clone() for p in model.parameters()]
        pick = torch.from_numpy(rng.integers(128, size=16))
        loss = model_loss(model, rows.ids[pick], mask[pick])
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        losses.append(loss.item())
    served = base_model()
    add_lora(served, ["q", "v"], 4, 16.0)
    return train_lines, validation, rows.ids, mask, (model, optimizer), before_backward, served, losses


# %% [markdown]
# ## 10.C Lines on both sides of the split

# %% exercise="10.C"

# %% [markdown]
# ## 10.D What is learned

# %% exercise="10.D"

# %% [markdown]
# ## 10.E What the optimizer holds

# %% exercise="10.E"

# %% [markdown]
# ## 10.F What is left of the last step

# %% exercise="10.F"

# %% [markdown]
# ## 10.G What comes back from the file

# %% exercise="10.G"

# %% [markdown]
# Now the team's script. Which of the five faults could its loss curve have shown? And why is its validation loss no help?

# %%
train_lines, validation, ids, mask, setup, before_backward, served, losses = team_script()
print(f"loss {losses[0]:.2f} -> {np.mean(losses[-5:]):.2f}")
assert np.mean(losses[-5:]) < 0.8 * losses[0]
try:
    shared = shared_prompts([prompt for prompt, _ in train_lines], [prompt for prompt, _ in validation])
    print(f"{len(shared)} of {len({prompt for prompt, _ in validation})} validation prompts were learned from")
    print("the mask:", mask_faults(ids, mask))
    print("trained, and in no group:", not_held(setup))
    print(f"gradient before the last backward pass: {gradient_norm(before_backward):.2f}")
    print(f"saved and reloaded, a logit moves by up to {reload_difference(setup[0], served, ids[:8]):.1f}")
except NotImplementedError:
    print("Write 10.C to 10.G above first.")

# %% [markdown]
# <details><summary>The five faults, and what the loss shows of them</summary>
#
# 1. `neb` has 48 words, and 160 lines are drawn from them: nearly every validation prompt was learned from. Split the *words*, not the lines.
# 2. The mask is rolled one place early, and `model_loss` shifts by itself. The separator is learned, the end isn't: the model won't stop.
# 3. The name filter keeps `q` and drops `v`: half of the adapters never move.
# 4. Nothing sets the gradients back, so each step adds to all steps before it.
# 5. The program that serves the model makes its adapters with $\alpha = 16$: the update comes back twice as loud. The scale isn't in the file.
#
# None of them raises an error, and the loss falls all the same. Half an adapter still learns, a gradient that holds old steps still points downhill
# (like a momentum that never fades), and a mask one place early ends as low as the right one (10.1). The fifth happens after training. The validation loss
# is computed with the same mask on lines that were learned, so it follows the training loss down and confirms it.
# </details>

# %% [markdown]
# ## How far you are

# %%
progress(10)
