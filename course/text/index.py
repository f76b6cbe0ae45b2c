# %% [markdown]
# # Fine-Tuning Math
#
# What changes when a language model is fine-tuned, by how much, and how do you know? The course answers with formulas that
# you can check and with code that runs on a laptop. Every number is computed beside the sentence that claims it; where a
# slogan and a measurement disagree, the measurement is printed.
#
# **Everything here turns on one decomposition.** A tuned model is a known point and a small move,
#
# $$\theta = \theta_0 + \Delta\theta ,$$
#
# and each part of the course asks one question of $\Delta\theta$: what it does to the output, which tokens it learns from,
# which of its coordinates may move, what they cost, what they break, and how to tell.
#
# ## Start here
#
# 1. Run the cells of this page from the top: click a cell, press Shift and Enter. They take a few seconds.
# 2. Find out below whether you have what you need. It takes two minutes.
# 3. Open [part 1](01_local_adaptation/theory.ipynb). A part takes about three hours: 80 to 120 minutes for its theory, 75 to 93 for its
#    exercises, and then its graded problems at your own pace. Ten parts are a week of full days, or a term with a part a week.
#
# In each theory notebook you're asked to *predict* a number before the cell shows it. Guess; it is the part that teaches.
#
# ## Three doors
#
# - **Learn.** Work through the parts in order, or enter where you need to. Each has a theory notebook, an exercises notebook
#   with checks that answer at once, and graded problems.
# - **Teach.** Release the problems to a class and grade what comes back: see *Teach* in the repository's `README.md`.
# - **Contribute.** Write a problem, name a mistake, mend a sentence: see `CONTRIBUTING.md`.
#
# ## The ten parts
#
# | part | its question | |
# | ---: | --- | --- |
# | 1 | Local adaptation: what does a small change of the weights change in the output? | PART01 |
# | 2 | The supervised objective: which tokens are learned, and how are they weighed? | PART02 |
# | 3 | Full fine-tuning: how far does the model move, and what does it cost? | PART03 |
# | 4 | Parameter-efficient methods: what is trained instead of everything? | PART04 |
# | 5 | LoRA's algebra: what can a low-rank update reach, and what is left of it after a merge? | PART05 |
# | 6 | Quantised memory: where do the bytes go? | PART06 |
# | 7 | Preference: how do pairs of answers become a loss? | PART07 |
# | 8 | Evaluation: is the difference real? | PART08 |
# | 9 | Choosing a method: which trade is the right one here? | PART09 |
# | 10 | Implementation checklist: what goes wrong in silence? | PART10 |
#
# **The lab** asks whether all this holds on a real card and a real model. [Memory and speed](lab/memory_and_speed.ipynb)
# predicts the bytes and the seconds of a training step, then measures them; [one model](lab/one_model.ipynb) takes
# SmolLM2-135M from base to policy. Both replay a recorded card where there is none, and say whose numbers they show.
#
# To look things up: the [formula sheet](formulas.md), with one relation for each subtopic; the [glossary](glossary.md) of
# symbols and terms; the [claims](claims.md), each conclusion beside the control that could have overturned it; the
# [checklist](checklist.md) to pin up, one page to go through before a run; and the [errata](errata.md), numbers of well-known texts that
# come out differently here.

# %%
import hashlib
import json

import torch

from ftmath import best_device, check, describe
from ftmath.exercises import progress
from ftmath.plots import points
from ftmath.weights import FOLDER

print(f"torch {torch.__version__} on {describe(best_device())}")
progress()

# %% [markdown]
# A graphics card is welcome and never needed.
#
# ## What you need, and two minutes to find out
#
# Gradients and Taylor's formula; softmax, cross-entropy and KL divergence; matrices and the singular value decomposition;
# Python with torch. Each line below asks one thing: put your answer in the place of `None` (three digits are enough) and run the
# cell until it says *right* everywhere. The right answers aren't in the cell, only what they are turned into by a hash.

# %%
self_test = {
    "gradients: d/dw of (3 w - 6)^2 at w = 1": (None, "82a1955b9fd4"),
    "entropy in nats of a fair coin": (None, "27d76f035d90"),
    "softmax of (0, 0, 0, 0): its first entry": (None, "6dd6bc95322d"),
    "rank of [[1, 2], [2, 4]]": (None, "3cae67a480a3"),
    "torch: numel of torch.zeros(3, 4) @ torch.zeros(4, 5)": (None, "50218239b173"),
}
for question, (mine, truth) in self_test.items():
    told = "" if mine is None else hashlib.sha256(f"{mine:.3f}".encode()).hexdigest()[:12]
    said = "no answer yet" if mine is None else "right" if told == truth else "look again"
    print(f"{said:>13}: {question}")

# %% [markdown]
# ## The method map
#
# | | base weights | what trains | good at | the risk |
# | --- | --- | --- | --- | --- |
# | prompting, retrieval | untouched | nothing | no training, facts that change | what the base can't do stays undone |
# | linear probe | frozen | a head | a cheap diagnosis | what isn't linearly there can't be read |
# | adapters | frozen | bottlenecks in each block | small files, many tasks | more latency, no merge |
# | soft prompt, prefix | frozen | virtual tokens | kilobytes a task | little capacity in a small model, sensitive to its rate |
# | LoRA, QLoRA | frozen, perhaps in 4 bits | low-rank updates | merges, cheap optimizer state | rank and scale to choose |
# | BitFit | matrices frozen | biases | almost nothing to store | hardly any new features |
# | full fine-tuning | all move | everything | the largest changes | memory, and forgetting at a careless rate |
# | preference tuning | as the method above that carries it | the same, against a reference | what is easier to compare than to show | a perfect order of pairs beside ruined answers |
#
# Below is what *we* measured for the rows but the last, which part 7 measures. Our base model of 825,728 parameters learns one task,
# `flip`: turn a word round, which the base can do when it's called `reverse`, under a name that it has never read. Each method has 60 steps
# and the best of four rates by one rule fixed beforehand, on three seeds (`benchmarks/method_map.py`).

# %%
found = json.loads((FOLDER / "method_map.json").read_text())
print(f"task: {found['task']}, {found['steps']} steps; mean [least, most] of three seeds\n")
print(f"{'method':<18} {'trained':>8}  {'quality':<18} {'base kept':<18} {'KL, nats/token':<18}")
for row in found["rows"]:
    cells = (f"{mean:.2f} [{low:.2f}, {high:.2f}]" for mean, low, high in (row["quality"], row["kept"], row["kl"]))
    print(f"{row['method']:<18} {row['trained']:>8,}  " + " ".join(f"{cell:<18}" for cell in cells))

# %%
rows = found["rows"]
best = max((row for row in rows if row["trained"]), key=lambda row: row["quality"][0] + row["kept"][0])
points(
    {
        "no update": [(r["kept"][0], r["quality"][0], r["method"]) for r in rows if not r["trained"]],
        "trained": [(r["kept"][0], r["quality"][0], r["method"]) for r in rows if r["trained"]],
    },
    title=f"New skill against old ones: of what trains, {best['method']} keeps most for its quality here",
    x_label="base skills kept (1: all)",
    y_label=f"accuracy on {found['task']}",
    alt="A dot for each method. "
    + "; ".join(f"{r['method']}: quality {r['quality'][0]:.2f}, kept {r['kept'][0]:.2f}" for r in rows),
)

# %% [markdown]
# One task and one base model: read the trade-off, not a ranking. The rate moves a method along it more than the method's
# name does, which is the subject of part 4.
#
# ## Why it matters
#
# A pretrained model is bought once and adapted many times. Which tokens count in the loss, what is frozen, what the
# optimizer holds and what is forgotten decide whether an adaptation works, what it costs and whether anyone notices what it
# broke. Most faults here raise no error: a mask that is off by one position, a reference model that trains along, an
# optimizer that never saw the adapter.
#
# **A further axis beside scale.** Scaling laws tell how the loss of pretraining falls with parameters, data and compute
# (arXiv:2001.08361). Adaptation has a capacity of its own: how many directions may move (part 5), how far behaviour may drift
# (part 1), how many bytes a step may take (part 6). Two models with the same pretraining loss can differ in all three, so
# adaptation capacity is an axis to measure, not a constant.
#
# ## Checks answer at once
#
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

# %% [markdown]
# ## The papers behind it
#
# - Howard and Ruder 2018, *Universal language model fine-tuning for text classification*, arXiv:1801.06146
# - Houlsby et al. 2019, *Parameter-efficient transfer learning for NLP*, arXiv:1902.00751
# - Hu et al. 2021, *LoRA: low-rank adaptation of large language models*, arXiv:2106.09685
# - Li and Liang 2021, *Prefix-tuning*, arXiv:2101.00190
# - Dettmers et al. 2023, *QLoRA: efficient finetuning of quantized LLMs*, arXiv:2305.14314
# - Ouyang et al. 2022, *Training language models to follow instructions with human feedback*, arXiv:2203.02155
# - Rafailov et al. 2023, *Direct preference optimization*, arXiv:2305.18290
#
# Others are cited where they're used.
#
# ## Objectives, where they're taught, and what shows them

# %% hole="traceability"
