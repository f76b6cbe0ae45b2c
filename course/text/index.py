# %% [markdown]
# # Fine-Tuning Math
#
# What changes when a language model is fine-tuned, by how much, and how do you know? The course answers with formulas that
# you can check and with code that runs on a laptop.
#
# ## Three doors
#
# - **Learn.** Work through the parts below in order, or enter where you need to. Each problem's notebook answers at once
#   when you run its check cells.
# - **Teach.** Release the problems to a class and grade what comes back: see *Teach* in `README.md`.
# - **Contribute.** Write a problem, name a mistake, mend a sentence: see `CONTRIBUTING.md`.
#
# ## The ten parts
#
# | part | its question |
# | ---: | --- |
# | 1 | Local adaptation: what does a small change of the weights change in the output? |
# | 2 | The supervised objective: which tokens are learned, and how are they weighed? |
# | 3 | Full fine-tuning: how far does the model move, and what does it forget? |
# | 4 | Parameter-efficient methods: what is trained instead of everything? |
# | 5 | LoRA's algebra: what can a low-rank update reach, and what does it cost? |
# | 6 | Quantised memory: where do the bytes go? |
# | 7 | Preference: how do pairs of answers become a loss? |
# | 8 | Evaluation: is the difference real? |
# | 9 | Choosing a method: which trade is the right one here? |
# | 10 | Implementation checklist: what goes wrong in silence? |
#
# The notebooks of the parts are being written. These graded problems are ready:
#
# | problem | part |
# | --- | ---: |
# | [Answer-only loss](../source/p01_answer_only_loss/p01_answer_only_loss.ipynb) | 2 |
# | [KL shift](../source/p02_kl_shift/p02_kl_shift.ipynb) | 3 |
# | [Count LoRA parameters](../source/p03_lora_parameters/p03_lora_parameters.ipynb) | 5 |
# | [The LoRA update](../source/p04_lora_update/p04_lora_update.ipynb) | 5 |
# | [Truncated SVD](../source/p05_truncated_svd/p05_truncated_svd.ipynb) | 5 |
# | [Adapters](../source/p06_adapter_parameters/p06_adapter_parameters.ipynb) | 4 |
# | [Prefixes](../source/p07_prefix_parameters/p07_prefix_parameters.ipynb) | 4 |
# | [The DPO loss](../source/p08_dpo_loss/p08_dpo_loss.ipynb) | 7 |
# | [A scorecard](../source/p09_scorecard/p09_scorecard.ipynb) | 8 |
# | [Freeze and mask audits](../source/p10_freeze_and_mask_audit/p10_freeze_and_mask_audit.ipynb) | 10 |
#
# ## Does everything run here?
#
# The next cell says which device torch uses. A graphics card is welcome and never needed.

# %%
import torch

from ftmath import check

device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
print(f"torch {torch.__version__} on {device}")

# %% [markdown]
# A check cell runs the examples in a function's docstring and says what came out. Change the 3 into a 2 and run the cell
# again.


# %%
def double(x):
    """Return twice x.

    >>> double(4)
    8
    """
    return 3 * x


check(double)
