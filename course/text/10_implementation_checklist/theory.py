# %% [markdown]
# # Part 10: implementation checklist
#
# **The claim.** The expensive faults of fine-tuning raise no error: a mask off by one place, an adapter that no optimizer holds, a
# reference that trains along, a gain that is one lucky seed. Each leaves a trace that a few lines of code can look for before the
# hours are spent.
#
# You need parts 2, 4, 5, 7 and 8. You'll be able to read a fault off a loss curve and know which faults a curve can't show, audit
# what trains by four independent lists, choose rates by what an Adam step moves, hold a reference still, and put an interval on
# every row of a table. About 90 minutes; the notebook itself runs in about one on two CPU cores.
#
# | symbol | what it is | shape or unit |
# | --- | --- | --- |
# | $m$ | loss mask, 1 for a target | $(B, T)$ |
# | $A$ | attention mask, 1 where query $t$ may read key $k$ | $(T, T)$ |
# | $\mathcal I$ | the parameters that are meant to train | a set of names |
# | $\eta$ | learning rate of a group | a number |
# | $\pi_\theta, \pi_\text{ref}$ | policy and reference; log-probabilities summed over an answer | nats |
# | $S$ | score of a method, mean over items, higher is better | a share |

# %% fold="imports"
# Imports, and the device that this notebook runs on
import math
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ftmath import (
    add_lora,
    audit_freeze,
    audit_groups,
    audit_masks,
    audit_reference,
    audit_step,
    base_model,
    batch,
    best_device,
    block_causal,
    count_parameters,
    describe,
    disabled,
    dpo_loss,
    example,
    expected_best,
    fit_preferences,
    frozen_copy,
    labels_of,
    load_lora,
    load_weights,
    lora_state,
    margin,
    mcnemar,
    mixture,
    model_logprob,
    model_loss,
    paired_interval,
    probes,
    rate_groups,
    save_weights,
    train,
    turn,
)
from ftmath.context import better_prompt
from ftmath.exercises import progress
from ftmath.findings import finding
from ftmath.plots import bars, grid, lines
from ftmath.predict import predicted
from ftmath.skills import EOS, SKILLS
from ftmath.widgets import mask_clinic, reference_clinic
from ftmath.widgets.clinics import (
    MASK_FAULTS,
    MASK_LETTERS,
    REFERENCE_LETTERS,
    patients,
    recorded,
    sides,
    thankful_pairs,
    treat_mask,
    treat_reference,
    with_dropout,
)

device = best_device()
print(f"torch {torch.__version__} on {describe(device)}")
progress(10)

# %% [markdown]
# ## 10.1 Masking
#
# **Two masks, two questions: $m$ says what is learned, $A$ what may be read. A fault in either runs to the end; which one it is shows
# in the loss, or in the generations, and seldom in both.**
#
# $$L = -\frac{\sum_{b, t} m_{bt} \log p_\theta(u_{bt} \mid u_{b, <t})}{\sum_{b, t} m_{bt}}, \qquad
# A_{tk} = \mathbb 1[k \le t]\;\mathbb 1[\mathrm{doc}_k = \mathrm{doc}_t]\;\mathbb 1[\mathrm{real}_k] .$$
#
# $u$ are the tokens $(B, T)$; $\mathrm{doc}_t$ is the document that position $t$ of a packed row belongs to; $\mathrm{real}_k$ is 0 for padding.
#
# <details><summary>Why packing leaks, and whether positions must start again</summary>
#
# Documents of lengths $n_1, \dots, n_K$ in one row of $N = \sum_i n_i$ tokens need $\sum_i n_i (n_i + 1) / 2$ pairs; the plain causal mask
# gives $N (N + 1) / 2$, and the surplus $\sum_{i < j} n_i n_j$ are readings of somebody else's text.
#
# With the block mask, is it enough? A rotary score is $q^\top R_{t}^\top R_{k}\, k = q^\top R_{k - t}\, k$: it depends on $k - t$ only, and
# inside a document that is the same wherever the document stands. Learned absolute positions are *added* to the input, so there a
# document that begins at place 37 is another input, and positions must start again.
# </details>

# %% [markdown]
# **By hand**: lengths 3 and 2. The block mask allows $6 + 3$ pairs, the plain one $15$; and a row that may read nothing at all is a
# softmax over nothing.

# %%
allowed = block_causal([3, 2])
assert int(allowed.sum()) == 9 and 5 * 6 // 2 - 9 == 3 * 2
nothing = torch.full((3,), -math.inf).softmax(0)
assert nothing.isnan().all()
print(allowed.int(), f"\nsoftmax over a row that is fully masked: {nothing.tolist()}")

# %% [markdown]
# **Predict.** Two lines are packed into one row of our base model, which has rotary positions. With the block mask, but positions that
# simply run on, by how much do the second line's logits differ from the same line alone, at most?

# %%
guess = None  # largest difference of a logit

# %% fold="run"
# Run: two packed lines under two masks and two kinds of positions
base = base_model().requires_grad_(False)


def packed_logits(model, ids, positions, visible, table=None):
    """Run a decoder with a mask (time, time) and positions (time,) of our own; `table` adds absolute positions."""
    x = model.embed(ids)
    if table is not None:
        x = x + table[positions]
    angles = turn(positions[None], model.config.head_dim, model.config.rope_base)
    for block in model.blocks:
        x, _ = block(x, angles, visible[None, None])
    return model.head(model.norm(x))[0]


first, second = (probes(name, 1, 0).ids for name in ("story", "sort"))
ids, lengths = torch.cat([first, second], dim=1), [first.shape[1], second.shape[1]]
running, reset = torch.arange(sum(lengths)), torch.cat([torch.arange(n) for n in lengths])
plain, blocked = torch.ones(sum(lengths), sum(lengths), dtype=torch.bool).tril(), block_causal(lengths)
table = 0.05 * torch.randn(128, 128, generator=torch.Generator().manual_seed(0))
leak = {}
for kind, added in (("rotary", None), ("absolute, added", table)):
    alone = packed_logits(base, second, torch.arange(lengths[1]), block_causal([lengths[1]]), added)
    for mask_name, visible in (("plain", plain), ("block", blocked)):
        for place_name, positions in (("running", running), ("reset", reset)):
            found = packed_logits(base, ids, positions, visible, added)[lengths[0] :]
            leak[kind, mask_name, place_name] = float((found - alone).abs().max())
            print(f"{kind:>16}, {mask_name} mask, {place_name:>7} positions: {leak[kind, mask_name, place_name]:.1e}")
predicted("largest difference, block mask, running rotary positions", guess, leak["rotary", "block", "running"])

# %% [markdown]
# **Check.** With block mask and reset positions a packed document's logits are those of the document alone. With rotary positions
# the mask suffices; with absolute ones both are needed.

# %%
assert leak["rotary", "block", "reset"] < 1e-4 and leak["absolute, added", "block", "reset"] < 1e-4
assert leak["rotary", "block", "running"] < 1e-3 < 0.1 < leak["absolute, added", "block", "running"]
assert min(value for (_, mask_name, _), value in leak.items() if mask_name == "plain") > 0.1
assert torch.equal(packed_logits(base, second, torch.arange(lengths[1]), block_causal([lengths[1]])), base(second)[0])

# %% [markdown]
# ### The clinic
#
# Six runs of full tuning on `flip`, alike but for the loss mask: right; inverted (the prompt is learned); EOS masked; padding trained; the
# mask one place late; one place early. Who is who? Pick a letter, look at the curve *first*, then at the losses by kind of token.

# %%
mask_clinic()

# %% [markdown]
# <details><summary>The diagnoses</summary>
#
# A is one early, B padding trained, C healthy, D inverted, E one late, F EOS masked. D gives itself away by a loss that stops far above 0:
# random letters can't be learned. B and E start high, since what follows EOS was never seen before, and come down late. A and F look like the
# healthy C: nothing in their curve is wrong, but their loss on EOS is above 8 nats, and they seldom stop writing.
# </details>
#
# **What three seeds say**, measured with fresh probes by writing answers out and demanding that they end.

# %% fold="picture"
# Picture: last losses and stopped answers of the six masks, three seeds each
ward = {fault: [one for one in patients("masks") if one.fault == fault] for fault in MASK_FAULTS}
last = {fault: [float(np.mean(one.losses[-10:])) for one in runs] for fault, runs in ward.items()}
stopped = {fault: [one.measures["right and stopped"] for one in runs] for fault, runs in ward.items()}
for fault in ward:
    low, high = min(last[fault]), max(last[fault])
    print(f"{MASK_LETTERS[fault]} {fault:<16} last losses {low:.3f} to {high:.3f}, "
          f"right and stopped {min(stopped[fault]):.2f} to {max(stopped[fault]):.2f}")  # fmt: skip
unseen = [fault for fault in ward if fault != "right" and max(last[fault]) < 0.05]
assert set(unseen) == {"EOS masked", "one early"} and max(max(stopped[fault]) for fault in unseen) < 0.5
assert (
    min(one.measures["EOS"] for fault in unseen for one in ward[fault])
    > 8
    > 0.1
    > max(one.measures["EOS"] for one in ward["right"])
)
assert min(last["one late"]) > 3 * max(last["right"]) and min(stopped["one late"]) > 0.75
bars(
    list(ward),
    {"last losses, nats": [float(np.mean(v)) for v in last.values()], "right and stopped": [float(np.mean(v)) for v in stopped.values()]},
    spread={
        "last losses, nats": ([min(v) for v in last.values()], [max(v) for v in last.values()]),
        "right and stopped": ([min(v) for v in stopped.values()], [max(v) for v in stopped.values()]),
    },
    title=f"One late costs {1 - np.mean(stopped['one late']):.0%} of the answers and shows in the loss; one early costs "
    f"{1 - np.mean(stopped['one early']):.0%} and doesn't",
    y_label="nats per target, or share of answers",
    alt="Bars for six masks, means of three seeds. "
    + "; ".join(f"{f}: loss {np.mean(last[f]):.2f}, right and stopped {np.mean(stopped[f]):.2f}" for f in ward)
    + ".",
)  # fmt: skip

# %% [markdown]
# "Off by one" is two faults. One place *late* drops the first answer token and learns what follows the end: a few points of accuracy,
# and a loss that is many times too high. One place *early* swaps the end for the separator: a loss as good as the healthy one, and
# a model that doesn't stop. So neither curve nor accuracy is a test of a mask. The mask itself is:

# %%
rows = batch([("flip abc", "cba"), ("flip wxyz", "zyxw")])
starts = [int(line.argmax()) for line in rows.answer_mask]
codes = {}
for fault, mask_of in MASK_FAULTS.items():
    findings = audit_masks(rows.ids, labels_of(rows.ids, mask_of(rows)), rows.attention_mask, starts, eos=EOS)
    codes[fault] = sorted({code for code, _ in findings})
    print(f"{fault:>16}: {', '.join(codes[fault]) or 'nothing to report'}")
assert (
    codes.pop("right") == [] and len({tuple(found) for found in codes.values()}) == len(codes) and all(codes.values())
)

# %% [markdown]
# Run one patient again: another machine gives other last digits and the same diagnosis.

# %%
again, before = treat_mask("one early", 0, count=64), ward["one early"][0]
print(f"losses at steps 0, 20 and 59: {[round(again.losses[k], 3) for k in (0, 20, 59)]}; "
      f"recorded {[round(before.losses[k], 3) for k in (0, 20, 59)]}\n{again.says}")  # fmt: skip
assert abs(again.losses[0] - before.losses[0]) < 1e-2 and again.measures["right and stopped"] < 0.5

# %% [markdown]
# **The usual mistake**: packing with the plain causal mask, because "attention is causal anyway". Its symptom is an answer that changes
# with its neighbour: the same line, behind forty different others.

# %%
neighbours = mixture(dict.fromkeys(SKILLS, 1.0), 40, np.random.default_rng(1))
target = probes("capital", 1, 5)
answer = target.answer_mask[0, 1:] == 1
wanted = target.ids[0, 1:][answer]
nats = {"plain": [], "block": []}
for line, real in zip(neighbours.ids, neighbours.attention_mask, strict=True):
    before = line[real == 1][None]
    both, sizes = torch.cat([before, target.ids], dim=1), [before.shape[1], target.ids.shape[1]]
    for name, visible in (
        ("plain", torch.ones(sum(sizes), sum(sizes), dtype=torch.bool).tril()),
        ("block", block_causal(sizes)),
    ):
        scores = packed_logits(base, both, torch.cat([torch.arange(n) for n in sizes]), visible)[sizes[0] :][:-1][
            answer
        ]
        nats[name].append(nn.functional.cross_entropy(scores, wanted).item())
print({name: f"loss on one answer, over 40 neighbours: {min(v):.4f} to {max(v):.4f} nats" for name, v in nats.items()})
assert max(nats["block"]) < 0.01 and min(nats["plain"]) > 1

# %% [markdown]
# **In practice** a trainer that packs (in many it's an option, off at first) passes lengths to a kernel that never forms $A$; look whether
# yours does. Krell et al. 2021 (arXiv:2107.02027) pack for BERT without such leaks, with a mask and positions for each document.
#
# → [exercise 10.1](exercises.ipynb#10.1-Masking) · graded: [p10, mask audit](../../source/p10_freeze_and_mask_audit/p10_freeze_and_mask_audit.ipynb),
# [p01](../../source/p01_answer_only_loss/p01_answer_only_loss.ipynb)

# %% [markdown]
# ## 10.2 Parameter freeze audit
#
# **"What trains" is four lists, and they are equal only if somebody checks: what `requires_grad` says, what the optimizer holds, what
# gets a gradient, and what moves.**
#
# $$\mathcal I = \{p : \texttt{requires\_grad}\} = \{p \in \text{optimizer}\} = \{p : \nabla_p L \ne \texttt{None}\},
# \qquad p \notin \mathcal I \Rightarrow p \text{ is the same bits after a step.}$$
#
# $\mathcal I$ is the set of names that the recipe means; $p$ runs over the model's parameters, tied ones once.
#
# <details><summary>Why four lists and not one</summary>
#
# They are written by four different lines of code. `requires_grad` is a flag on a tensor *object*; the optimizer keeps references to the
# objects that existed when it was built; a gradient arrives where the *graph* of this forward pass reaches; and what moves is *memory*,
# which two objects may share. So each list can be right while the next is wrong. Two names of one tensor (a tied head) can't be given
# different states at all: an audit must report the conflict, not pick a side.
# </details>

# %% [markdown]
# **By hand.** LoRA of rank 4 on $q$ and $v$ of 4 blocks of width 128: $4 \cdot 2 \cdot 2 = 16$ tensors, $8 \cdot 4 \cdot (128 + 128) = 8{,}192$
# numbers. And who trains "the head only" trains the embedding too.


# %%
def adapted(seed=0):
    """Return the base model with LoRA of rank 4 on q and v."""
    model = base_model()
    add_lora(model, ["q", "v"], 4, 8.0, generator=torch.Generator().manual_seed(seed))
    return model


names = [name for name, parameter in adapted().named_parameters() if parameter.requires_grad]
print(len(names), "tensors,", count_parameters(adapted()))
assert len(names) == 16 and count_parameters(adapted())["trainable"] == 8 * 4 * (128 + 128) == 8192
print(audit_freeze(base_model().requires_grad_(False), ["head.weight"]))
assert audit_freeze(base_model().requires_grad_(False), ["head.weight"])[0][0] == "SHARED_TENSOR_CONFLICT"

# %% [markdown]
# **Predict.** Ten faults are planted below, one at a time, in a LoRA setup that is right otherwise. How many of the ten does a
# comparison of `requires_grad` with the recipe see?

# %%
guess = None  # of 10


# %% fold="run"
# Run: ten faults planted one at a time, and what five instruments say
def setup(fault, seed=0):
    """Return a model and an optimizer with one fault planted; a fault of None is the healthy setup."""
    model = base_model()
    early = list(model.parameters())
    if fault == "one target forgotten":
        add_lora(model, ["q"], 4, 8.0, generator=torch.Generator().manual_seed(seed))
    else:
        add_lora(model, ["q", "v"], 4, 8.0, generator=torch.Generator().manual_seed(seed))
    trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
    layer = model.blocks[1].attn.q
    if fault == "norm left trainable":
        model.norm.weight.requires_grad_(True)
    if fault == "B frozen in one layer":
        layer.B.requires_grad_(False)
    groups = [p for p in model.parameters() if p.requires_grad]
    if fault == "optimizer before wrapping":
        groups = early
    if fault == "B in no group":
        groups = [p for name, p in trained.items() if name.endswith(".A")]
    if fault == "frozen in a group":
        groups = [*groups, model.embed.weight]
    optimizer = torch.optim.AdamW(groups, lr=1e-3, weight_decay=0.0)
    if fault == "twice in a group":
        optimizer.param_groups[0]["params"].append(layer.A)
    if fault == "adapter switched off":
        layer.on = False
    if fault == "shared memory":  # a frozen weight that is a view of a trained one
        model.blocks[0].attn_norm.weight = nn.Parameter(layer.B.data.view(-1)[:128], requires_grad=False)
    if fault == "rate of zero":
        optimizer.param_groups[0]["lr"] = 0.0
    return model, optimizer


FAULTS = ("one target forgotten", "norm left trainable", "B frozen in one layer", "optimizer before wrapping", "B in no group",
          "frozen in a group", "twice in a group", "adapter switched off", "shared memory", "rate of zero")  # fmt: skip
PATTERNS = ["*.q.A", "*.q.B", "*.v.A", "*.v.B"]
INTENDED = set(names)


def examined(fault, seed=0):
    """Return what each of five instruments says of a setup."""
    model, optimizer = setup(fault, seed)
    rows = mixture({"flip": 1.0}, 4, np.random.default_rng(seed))
    count, flags = (
        count_parameters(model)["trainable"],
        {name for name, p in model.named_parameters() if p.requires_grad},
    )
    return {
        "count": [("COUNT", str(count))] if count != 8192 else [],
        "requires_grad": [("FLAG", name) for name in sorted(flags ^ INTENDED)],
        "audit_freeze": audit_freeze(model, PATTERNS),
        "audit_groups": audit_groups(model, optimizer),
        "audit_step": audit_step(model, optimizer, lambda tuned: model_loss(tuned, rows.ids, rows.answer_mask)),
    }


assert not any(examined(None).values())  # no false alarm
seen = {fault: examined(fault) for fault in FAULTS}
for fault, found in seen.items():
    print(f"{fault:<26}", {tool: sorted({code for code, _ in said}) for tool, said in found.items() if said})
by_flag = [fault for fault in FAULTS if seen[fault]["requires_grad"]]
predicted("faults that requires_grad sees, of 10", guess, len(by_flag))

# %%
assert len(by_flag) == 3
TOOLS = list(seen[FAULTS[0]])
for seed in (1, 2):  # the codes don't depend on the draw
    assert all(
        {k: {c for c, _ in v} for k, v in examined(f, seed).items()}
        == {k: {c for c, _ in v} for k, v in seen[f].items()}
        for f in FAULTS
    )
assert all(any(found.values()) for found in seen.values())  # together the audits see all
missed = [fault for fault in FAULTS if fault not in by_flag]
grid(
    [[float(bool(seen[fault][tool])) for tool in TOOLS] for fault in FAULTS],
    row_names=list(FAULTS),
    column_names=TOOLS,
    title=f"requires_grad sees {len(by_flag)} of {len(FAULTS)} planted faults, all audits together {len(FAULTS)}",
    alt="A table of ten faults by five instruments, 1 where it speaks. requires_grad misses: "
    + ", ".join(missed)
    + ".",
)

# %% [markdown]
# Flags see what was done to flags. They miss what the optimizer holds, what the graph reaches and what memory shares. The audits speak in
# order of cost: `audit_freeze` and `audit_groups` read, `audit_step` takes a step.
#
# **Check.** In the healthy setup every frozen tensor is the same bits after a step, and no trained one is without a gradient. ($A$'s gradient
# at the first step is zero since $B = 0$; zero isn't `None`.)

# %%
model, optimizer = setup(None)
before = {name: p.detach().clone() for name, p in model.named_parameters()}
rows = mixture({"flip": 1.0}, 4, np.random.default_rng(0))
assert audit_step(model, optimizer, lambda tuned: model_loss(tuned, rows.ids, rows.answer_mask)) == []
moved = {name for name, p in model.named_parameters() if not torch.equal(p, before[name])}
assert moved == {name for name in names if name.endswith(".B")}
assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
print(f"{len(moved)} tensors moved at step 1, all of them B; {len(before) - len(names)} frozen ones kept every bit")

# %% [markdown]
# **The usual mistake**: the optimizer is built, and then the model is wrapped. Its symptom is a flat loss and no error. The same batch for
# twenty steps, so that a flat loss is flat:

# %%
curves = {}
for order in ("optimizer, then LoRA", "LoRA, then optimizer"):
    model = base_model().to(device)
    groups = list(model.parameters())
    add_lora(model, ["q", "v"], 4, 8.0, generator=torch.Generator().manual_seed(0))
    if order == "LoRA, then optimizer":
        groups = [p for p in model.parameters() if p.requires_grad]
    rows = mixture({"flip": 1.0}, 8, np.random.default_rng(0)).to(device)
    curves[order] = train(
        model, lambda step: model_loss(model, rows.ids, rows.answer_mask), [{"params": groups, "lr": 1e-3}], 20
    )
print({order: f"{values[0]:.3f} -> {values[-1]:.3f} nats" for order, values in curves.items()})
assert (
    len(set(curves["optimizer, then LoRA"])) == 1
    and curves["LoRA, then optimizer"][-1] < curves["LoRA, then optimizer"][0] - 0.5
)

# %% [markdown]
# **In practice** the printed share of trainable parameters is the usual audit, and a count can't tell *which* tensors those are; print names
# and the findings of one step into every log. A taxonomy of real faults of deep learning, from repositories and interviews with
# practitioners, has whole branches for the training process and for models that are built otherwise than meant (Humbatova et al. 2020,
# arXiv:1910.11015).
#
# → [exercise 10.2](exercises.ipynb#10.2-Parameter-freeze-audit) ·
# graded: [p10, freeze, optimizer and step](../../source/p10_freeze_and_mask_audit/p10_freeze_and_mask_audit.ipynb)

# %% [markdown]
# ## 10.3 Learning-rate groups
#
# **A rate is a distance: Adam's first step moves every entry by $\eta$. LoRA has far fewer entries between $x$ and the output, so its first step
# at the same rate moves the output about $d_\text{in} / (s\,r)$ times less. The best rates of whole runs depend on $s\,r$ too, more
# weakly, and have another size.**
#
# $$\eta_\text{base} \ne \eta_\text{adapter}, \qquad
# \frac{\lVert \Delta W_\text{full}\, x \rVert}{\lVert \Delta W_\text{LoRA}\, x \rVert}
# = \frac{\sum_j |x_j|}{s \sum_k |(Ax)_k|} \approx \frac{\sqrt 3\, d_\text{in}}{s\, r} .$$
#
# Both sides after one Adam step at the same rate $\eta$ on one example $x \in \mathbb R^{d_\text{in}}$; $A$ $(r, d_\text{in})$ as it's drawn, $B = 0$,
# $s = \alpha / r$.
#
# <details><summary>Why</summary>
#
# Adam's first step is $-\eta \operatorname{sign}(g)$ (bias correction makes $\hat m / \sqrt{\hat v} = \pm 1$). In full tuning $g = \delta x^\top$, so output $i$
# moves by $-\eta \operatorname{sign}(\delta_i) \sum_j |x_j|$. In LoRA $\partial L / \partial B = s\,\delta (Ax)^\top$ and $A$ doesn't move, so output $i$ moves by
# $-s\,\eta \operatorname{sign}(\delta_i) \sum_k |(Ax)_k|$. $A$'s entries have variance $1 / (3 d_\text{in})$, so $(Ax)_k$ is of size $\lVert x \rVert / \sqrt{3 d_\text{in}}$, a
# $\sqrt 3$-th of a typical $|x_j|$; there are $r$ of them instead of $d_\text{in}$.
#
# That is exact for one step on one example. It isn't a rule for the best rate of a run. The signs of many examples agree less, for full
# tuning more than for LoRA. After the first step $A$ moves too, and $B$ is no longer 0. And what limits a rate is where training becomes
# unstable, not how far the first step goes.
# </details>

# %% [markdown]
# **Worked**: $d_\text{in} = 4096$, $r = 16$, $s = 2$ gives $\sqrt 3 \cdot 128 \approx 222$. One real step of Adam on one example, ten draws:


# %%
def first_moves(d_in, r, s, seed, d_out=64, rate=1e-3):
    """Return how much one step of Adam moves a layer's output on its example: full, and LoRA."""
    generator = torch.Generator().manual_seed(seed)
    x, delta = torch.randn(d_in, generator=generator), torch.randn(d_out, generator=generator)
    W, B = torch.zeros(d_out, d_in, requires_grad=True), torch.zeros(d_out, r, requires_grad=True)
    A = (torch.rand(r, d_in, generator=generator) * 2 - 1) / d_in**0.5
    found = []
    for weight, output in ((W, lambda: W @ x), (B, lambda: s * (B @ (A @ x)))):
        (output() @ delta).backward()
        torch.optim.Adam([weight], lr=rate).step()
        found.append(float(output().detach().norm()))
    return found


for d_in, r, s in ((4096, 16, 2), (1024, 16, 2), (128, 4, 2)):
    ratios = [full / lora for full, lora in (first_moves(d_in, r, s, seed) for seed in range(10))]
    rule = math.sqrt(3) * d_in / (s * r)
    print(f"d_in {d_in}, r {r}, s {s}: measured {np.mean(ratios):.0f}, by the rule {rule:.0f}")
    assert abs(np.mean(ratios) / rule - 1) < 0.35

# %% [markdown]
# **Predict.** `flip`, 40 steps, at eight rates from $10^{-5}$ to $3 \cdot 10^{-2}$, full tuning and LoRA of rank 4, $s = 2$, on all linear layers ($d_\text{in}$ is 128,
# in one of seven 352). By which factor is LoRA's best rate above full tuning's?

# %%
guess = None  # a factor

# %%
sweep = recorded()["rates"]
RATES = sorted({row["rate"] for row in sweep})
KINDS = ("full", "LoRA", "LoRA+")
losses = {
    k: np.array([[row["loss"] for row in sweep if (row["kind"], row["rate"]) == (k, rate)] for rate in RATES])
    for k in KINDS
}
kept = {
    k: np.array([[row["kept"] for row in sweep if (row["kind"], row["rate"]) == (k, rate)] for rate in RATES])
    for k in KINDS
}
best = {k: [RATES[place] for place in values.argmin(0)] for k, values in losses.items()}
for k in KINDS:
    print(f"{k:>5}: best rate per seed {best[k]}, loss there {losses[k].min(0).min():.4f} to {losses[k].min(0).max():.4f}, "
          f"old skills kept there {[round(float(kept[k][RATES.index(rate), seed]), 2) for seed, rate in enumerate(best[k])]}")  # fmt: skip
ratio = float(np.exp(np.mean(np.log(best["LoRA"])) - np.mean(np.log(best["full"]))))
predicted("LoRA's best rate over full tuning's", guess, ratio)

# %%
assert all(abs(lora / full - 10) < 1e-6 for lora, full in zip(best["LoRA"], best["full"], strict=True))
lines(
    RATES,
    {k: values.mean(1).tolist() for k, values in losses.items()},
    log_x=True,
    title=f"LoRA's best rate lies {ratio:.0f} times above full tuning's, on a grid of steps of about 3",
    x_label="learning rate (of A, for LoRA+)",
    y_label="loss of steps 31 to 40, nats/token",
    alt="Loss against rate, means of three seeds. "
    + "; ".join(f"{k}: least {v.mean(1).min():.3f} at {RATES[int(v.mean(1).argmin())]:g}" for k, v in losses.items()) + ".",
)  # fmt: skip

# %% [markdown]
# **Is that the rule's factor?** For rank 4 and width 128 it says 28, so it's too large here; at the widths of large models it is far too large:
# 222 in the worked case, where people use about ten. What of its $s\,r$? Below is the same sweep at ranks 1 and 16,
# once with the same scale $s = 2$, where the rule sets the best rates 16 times apart, and once with the same $\alpha = s\,r = 8$, where it
# sets them equal.


# %%
def best_rates(kind):
    """Return each seed's best rate of a row of the sweep."""
    runs = [row for row in sweep if row["kind"] == kind]
    seeds = sorted({row["seed"] for row in runs})
    return np.array(
        [min((row for row in runs if row["seed"] == seed), key=lambda row: row["loss"])["rate"] for seed in seeds]
    )


apart = {
    name: best_rates("LoRA, rank 1" + of) / best_rates("LoRA, rank 16" + of)
    for name, of in (("s = 2", ""), ("alpha = 8", ", alpha 8"))
}
typical = {name: float(np.exp(np.log(found).mean())) for name, found in apart.items()}
print({name: f"best rate at rank 1 is {value:.1f} times that at rank 16" for name, value in typical.items()})
assert 3 < typical["s = 2"] < 10 and 0.5 < typical["alpha = 8"] < 2
finding(
    "At one scale s a rank 16 times as large wants a lower rate; at one alpha it doesn't",
    figure="decades between the best rates of rank 1 and of rank 16, both with s = 2",
    measured=np.log10(apart["s = 2"]),
    null="both with alpha = 8, so that s r is the same",
    control=np.log10(apart["alpha = 8"]),
    holds=lambda decades: sum(decades) / len(decades) > 0.4,
    scope="flip, 40 steps of AdamW, LoRA on all linear layers, five rates with steps of about 3, six seeds",
)

# %% [markdown]
# So $s\,r$ matters, less than the rule says, which sets the rates 16 times apart. And one sweep with a fixed $\alpha$ and $s = \alpha / r$ serves
# both ranks here, while another $\alpha$ asks for another sweep.
#
# The least loss is not the best model: at these rates most of the old skills are gone (the shares above). Pick the rate by both, as part 4.5 does;
# the *ratio* between the methods is what this cell is about.
#
# **LoRA+** (Hayou et al. 2024, arXiv:2402.12354) gives $B$ a rate 16 times $A$'s, since $A$ and $B$ shouldn't need the same. Here both had
# the same eight rates to choose from:

# %%
at_best = {k: losses[k].min(0) for k in KINDS}
shift = float(np.mean(np.log(best["LoRA"])) - np.mean(np.log(best["LoRA+"])))
print(f"LoRA+ wants a rate of A {math.exp(shift):.0f} times lower than LoRA's one rate, so B's is "
      f"{16 / math.exp(shift):.1f} times LoRA's;\nbest losses: LoRA {np.round(at_best['LoRA'], 4).tolist()}, LoRA+ {np.round(at_best['LoRA+'], 4).tolist()}")  # fmt: skip
gap = float(np.log(at_best["LoRA+"]).mean() - np.log(at_best["LoRA"]).mean())
assert 1 < math.exp(shift) < 16 and abs(gap) < math.log(3)  # another best rate, about the same loss there
print(
    f"at its own best rate LoRA+ ends at {math.exp(gap):.2f} times LoRA's loss: no gain that these three seeds could show"
)

# %% [markdown]
# **Check.** The groups are the trained set, each name once, and the first step of Adam moves each entry by its group's rate: the rates can be
# read off the weights. No gradient is clipped away here, since Adam doesn't see its size.

# %%
model = adapted()
with torch.no_grad():
    for name, p in model.named_parameters():
        if name.endswith(".B"):
            p.normal_(std=0.01, generator=torch.Generator().manual_seed(1))  # so that A gets a gradient too
groups = rate_groups(model, {"*.B": 16e-4, "*.v.A": 1e-4}, 5e-4)
held = [id(p) for group in groups for p in group["params"]]
assert sorted(held) == sorted(id(p) for p in model.parameters() if p.requires_grad)
before = {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}
train(model, lambda step: model_loss(model, rows.ids, rows.answer_mask), groups, 1)
read = {name: float((p.detach() - before[name]).abs().max()) for name, p in model.named_parameters() if name in before}
print({name: f"{read[name]:.1e}" for name in list(read)[:4]})
for name, size in read.items():
    wanted = 16e-4 if name.endswith(".B") else 1e-4 if name.endswith(".v.A") else 5e-4
    assert abs(size / wanted - 1) < 0.02, name

# %% [markdown]
# **The usual mistake**: LoRA at full tuning's rate. Its symptom is a loss that barely moves, and then a higher rank that *seems* the cure: its step
# grows as $s\,r$. Rank 4 and rank 32 at full tuning's best rate, then rank 4 at its own (seed 0).

# %%
slow, own, ends = float(np.median(best["full"])), float(np.median(best["LoRA"])), {}
LINEARS = ("q", "k", "v", "o", "gate", "up", "down")
for rank, rate in ((4, slow), (32, slow), (4, own)):
    model, rng = base_model(), np.random.default_rng(0)
    add_lora(model, LINEARS, rank, 2.0 * rank, generator=torch.Generator().manual_seed(0))
    model = model.to(device)

    def one_loss(step):
        rows = mixture({"flip": 1.0}, 16, rng).to(device)
        return model_loss(model, rows.ids, rows.answer_mask)

    found = train(model, one_loss, rate_groups(model, {}, rate), 40)
    ends[rank, rate] = float(np.mean(found[-10:]))
    print(f"rank {rank:>2} at {rate:.0e}: {found[0]:.2f} -> {ends[rank, rate]:.3f} nats")
recorded_loss = next(row["loss"] for row in sweep if (row["kind"], row["rate"], row["seed"]) == ("LoRA", own, 0))
assert ends[4, own] < 0.1 * ends[32, slow] and abs(ends[4, own] - recorded_loss) < 0.05 + 0.5 * recorded_loss

# %% [markdown]
# **In practice** LoRA is run at $10^{-4}$ to $2 \cdot 10^{-4}$ where full tuning takes $10^{-5}$ to $2 \cdot 10^{-5}$: QLoRA used $2 \cdot 10^{-4}$ up to 13 billion parameters (Dettmers et al.
# 2023, arXiv:2305.14314). Sweeps on large models found a factor of about ten as well, nearly the same at every rank (Schulman et al. 2025,
# *LoRA without regret*, https://thinkingmachines.ai/blog/lora/). Whoever compares methods sweeps the rate of each.
#
# → [exercise 10.3](exercises.ipynb#10.3-Learning-rate-groups) ·
# graded: [p10, optimizer audit](../../source/p10_freeze_and_mask_audit/p10_freeze_and_mask_audit.ipynb)

# %% [markdown]
# ## 10.4 Reference model
#
# **A reference is a fixed function, unless the recipe itself says when it moves. If it is the policy by mistake, the loss shows a constant that
# looks like "no progress yet", while the weights move, and nothing slows them down.**
#
# $$\pi_\text{ref} = \pi_{\theta_0} \text{ at every step}, \qquad
# h = \big(\log \pi_\theta^+ - \log \pi_\theta^-\big) - \big(\log \pi_\text{ref}^+ - \log \pi_\text{ref}^-\big), \qquad
# L_{t = 0} = -\log \sigma(\beta \cdot 0) = \ln 2 .$$
#
# $\log \pi^\pm$ are an answer's log-probabilities (pairs,), in nats; $\beta > 0$. (Some recipes move the reference on purpose, at steps that they
# state: TR-DPO copies or mixes the policy into it now and then, Gorbatovski et al. 2024, arXiv:2404.09656. The checks below hold between
# two such steps.)
#
# <details><summary>Why an alias gives ln 2 exactly, and doesn't stop</summary>
#
# If the reference is the policy itself, $h = 0$ in value at every step, so $L = \ln 2$ to the last bit. The reference's part is read without
# gradient, so $\nabla L = -\beta\,\sigma(-\beta h)\,(\nabla \log \pi^+ - \nabla \log \pi^-)$ with $\sigma(0) = \tfrac12$: the full slope of the first step, at *every* step. A
# healthy run's slope $\sigma(-\beta h)$ shrinks as the margin grows; an alias removes the brake.
#
# Since $\pi_\text{ref}$'s bits never change, $\log \pi_\text{ref}^\pm$ can be computed once: two numbers a pair in place of a second model.
# </details>

# %% [markdown]
# **By hand**: a reference of 6,738,415,616 parameters in bfloat16 against 100,000 pairs of two float32 numbers; and the alias' gradient.

# %%
model_bytes, stored_bytes = 6_738_415_616 * 2, 100_000 * 2 * 4
print(f"a second model: {model_bytes / 2**30:.2f} GiB; stored log-probabilities: {stored_bytes / 2**20:.2f} MiB")
assert round(model_bytes / 2**30, 2) == 12.55 and stored_bytes == 800_000
mine = torch.tensor([-12.0, -14.0], requires_grad=True)
loss = dpo_loss(margin(mine[:1], mine[1:], mine[:1], mine[1:]), beta=0.1)
loss.backward()
assert abs(loss.item() - math.log(2)) < 1e-6 and torch.allclose(mine.grad, torch.tensor([-0.05, 0.05]))
print(f"alias: loss {loss.item():.4f}, gradient {mine.grad.tolist()}: beta / 2, not 0")

# %% [markdown]
# **Predict.** DPO for 32 steps on pairs with and without ", thanks!". The healthy run's weights move by some distance. How far do those of
# the run go whose reference is the policy itself, as a multiple of that?

# %%
guess = None  # a ratio

# %%
cases = {fault: [one for one in patients("references") if one.fault == fault] for fault in REFERENCE_LETTERS}
moved = {fault: np.array([one.measures["moved"] for one in runs]) for fault, runs in cases.items()}
predicted("distance of the aliased run over the healthy one's", guess, float((moved["alias"] / moved["right"]).mean()))

# %% [markdown]
# Five patients: right; the reference is the policy; dropout left on in both; a reference renewed every eight steps; a reference that reads its prompts
# by another template. Pick one and say which it is.

# %%
reference_clinic()

# %% [markdown]
# <details><summary>The diagnoses</summary>
#
# A is renewed every eight steps: the loss jumps back to $\ln 2$ each time. B reads another template: the first loss isn't $\ln 2$. C is the alias. D is
# healthy. E has dropout: the first loss is near $\ln 2$ and never on it.
# </details>

# %%
first = {fault: [one.losses[0] for one in runs] for fault, runs in cases.items()}
curves = {fault: np.mean([one.losses for one in runs], axis=0) for fault, runs in cases.items()}
for fault, runs in cases.items():
    margins = [one.measures["margin against the base"] for one in runs]
    print(f"{REFERENCE_LETTERS[fault]} {fault:<16} first loss {min(first[fault]):.4f} to {max(first[fault]):.4f}, last eight "
          f"{curves[fault][-8:].mean():.3f}, moved {moved[fault].mean():.3f}, margin against the base {min(margins):.1f} to {max(margins):.1f}, "
          f"KL to the base {max(one.measures['KL to the base'] for one in runs):.5f}, skills kept {min(one.measures['old skills kept'] for one in runs):.3f}")  # fmt: skip
assert all(abs(value - math.log(2)) < 1e-5 for one in cases["alias"] for value in one.losses)
assert all(abs(one.losses[at] - math.log(2)) < 1e-5 for one in cases["refreshed"] for at in (0, 8, 16, 24))
assert all(abs(value - math.log(2)) < 1e-5 for value in first["right"])
assert all(abs(value - math.log(2)) > 1e-4 for fault in ("dropout in both", "other template") for value in first[fault])
assert (moved["alias"] > 0.8 * moved["right"]).all()
lines(
    list(range(32)),
    {fault: values.tolist() for fault, values in curves.items()},
    level=("ln 2", math.log(2)),
    title=f"The alias' loss never leaves ln 2, and its weights move {(moved['alias'] / moved['right']).mean():.2f} times as far as a healthy run's",
    x_label="step",
    y_label="DPO loss, nats per pair",
    alt="Loss by step, means of three seeds. "
    + "; ".join(f"{f}: {v[0]:.3f} at first, {v[-8:].mean():.3f} at last" for f, v in curves.items()) + ".",
)  # fmt: skip

# %% [markdown]
# **Was any of them harmed?** After these 32 gentle steps, no: all five end at about the same margin, $\log\pi^+$ rose, KL to the base on old
# skills is a few hundred-thousandths of a nat, and the skills are kept. At this rate Adam, which divides by the gradient's size, takes
# all of them equally far. A fault of the reference shows in the log here, not yet in the model.
#
# At five times the rate and 40 steps it does show: the healthy run's slope $\sigma(-\beta h)$ dies and its momentum with it; the alias goes on.

# %% fold="run"
# Read: the healthy and the aliased run at five times the rate
brakes = {
    fault: {
        name: np.array([row["measures"][name] for row in recorded()["brakes"] if row["fault"] == fault])
        for name in ("moved", "KL to the base", "log pi+ against the base", "old skills kept")
    }
    for fault in ("right", "alias")
}
for fault, found in brakes.items():
    print(f"40 steps at 5e-5, {fault:>5}:", {name: f"{v.min():.3g} to {v.max():.3g}" for name, v in found.items()})
assert (brakes["alias"]["moved"] > 1.1 * brakes["right"]["moved"]).all()
assert brakes["alias"]["KL to the base"].max() < 0.2 and brakes["alias"]["old skills kept"].min() > 0.95
assert all(
    abs(value - math.log(2)) < 1e-5
    for row in recorded()["brakes"]
    if row["fault"] == "alias"
    for value in row["losses"]
)
drift = {fault: np.array([one.measures["KL to the base"] for one in cases[fault]]) for fault in ("right", "alias")}
finding(
    "A reference that is the policy takes the brake away: old skills drift several times as far",
    figure="log of KL to the base on old skills, aliased run less healthy run, 40 steps at 5e-5",
    measured=np.log(brakes["alias"]["KL to the base"] / brakes["right"]["KL to the base"]),
    null="the same two runs at 1e-5 and 32 steps, before the healthy pairs saturate",
    control=np.log(drift["alias"] / drift["right"]),
    holds=lambda logs: min(logs) > 1,
    scope="DPO with beta 0.1 and AdamW on 32 pairs with and without thanks, three seeds",
)

# %% [markdown]
# In absolute numbers that drift is small (a tenth of a nat, two or three skills' answers in a hundred): these pairs ask for something harmless.
# One patient again, its first eight steps:

# %%
again, before = treat_reference("refreshed", 0, steps=9).losses, cases["refreshed"][0].losses
print(f"run again: {[round(value, 3) for value in again]}\nrecorded:  {[round(value, 3) for value in before[:9]]}")
assert max(abs(a - b) for a, b in zip(again, before)) < 0.05 and again[8] > again[7] + 0.1

# %% [markdown]
# Only two of the four faults miss $\ln 2$ at step 0, so that test is necessary and not enough. The alias and the renewed reference pass it; what they
# fail is that the reference's numbers stay.
#
# **Check.** `log pi_ref` on a probe batch is the same bits before and after training: for a frozen copy, and for LoRA with its adapters switched
# off, which needs no second model. `audit_reference` finds the alias before the first step.

# %% fold="checks"
# Check: the reference's log-probabilities before and after training, for a copy and for adapters switched off
pairs = thankful_pairs(0, 12)
chosen, rejected = (side.to(device) for side in sides(pairs))
policy = base_model().to(device)
reference = frozen_copy(policy)


def logprob(model):
    with torch.no_grad():
        return model_logprob(model, chosen.ids, chosen.answer_mask)


stood, went = logprob(reference), logprob(policy)
fit_preferences(policy, reference, pairs, steps=6, rate=1e-5, rows=6)
assert torch.equal(logprob(reference), stood) and not torch.equal(logprob(policy), went)

policy = adapted().to(device)
for step in fit_preferences(policy, base_model().to(device).requires_grad_(False), pairs, steps=6, rate=1e-3, rows=6)[
    :1
]:
    print(f"LoRA's first loss {step.loss:.4f}")
with disabled(policy):
    assert torch.equal(logprob(policy), stood)
assert not torch.equal(logprob(policy), stood)

alias = base_model()
print(sorted({code for code, _ in audit_reference(alias, alias)}), audit_reference(frozen_copy(alias), alias))
assert {code for code, _ in audit_reference(alias, alias)} == {"REFERENCE_TRAINS", "SHARED_WITH_POLICY"}
try:
    fit_preferences(alias, alias, pairs, steps=1, rate=1e-5)
except ValueError as error:
    print(f"refused: {error}")

# %% [markdown]
# **The usual mistake**: dropout that is still on, in policy and reference. Its symptom is a step-0 loss that differs from $\ln 2$, in either direction, and
# differs again when asked again.

# %%
noisy, still = [], frozen_copy(base_model().to(device))
for seed in range(8):
    shaken = with_dropout(frozen_copy(base_model().to(device)), 0.1, seed)
    with torch.no_grad():
        four = [model_logprob(m, side.ids, side.answer_mask) for m in (shaken, shaken) for side in (chosen, rejected)]
    noisy.append(dpo_loss(margin(*four), 0.1).item())
print(
    f"eight first losses with dropout 0.1: {min(noisy):.4f} to {max(noisy):.4f}; audit: {audit_reference(shaken, still)[0]}"
)
assert min(abs(value - math.log(2)) for value in noisy) > 1e-5 and len(set(noisy)) == 8
assert audit_reference(shaken, still)[0][0] == "REFERENCE_IN_TRAIN_MODE"
assert audit_reference(shaken.eval(), still) == []

# %% [markdown]
# **In practice** PEFT's `disable_adapter` and stored log-probabilities are the two ways to have no second model; both rest on $\pi_\text{ref}$ being what the
# pairs' answers were tuned from (Rafailov et al. 2023, arXiv:2305.18290).
#
# → [exercise 10.4](exercises.ipynb#10.4-Reference-model) · graded: [p08, DPO loss](../../source/p08_dpo_loss/p08_dpo_loss.ipynb)

# %% [markdown]
# ## 10.5 Ablations
#
# **A row of a table is a difference with an interval; the same items for every method make the interval short, and seeds are a second source of
# chance that items don't show.**
#
# $$\Delta S = S_\text{method} - S_\text{base}, \qquad
# \operatorname{Var}(\bar a - \bar b) = \tfrac1n \big(\sigma_a^2 + \sigma_b^2 - 2 \sigma_{ab}\big) .$$
#
# $a, b$ are the scores of $n$ items under two methods; $\sigma_{ab}$ is their covariance over items.
#
# <details><summary>Why pairing helps by $\sqrt{1 - \rho}$, and what the best of k seeds adds</summary>
#
# With equal variances and correlation $\rho$, the variance is $2 \sigma^2 (1 - \rho) / n$; drawn apart it would be $2 \sigma^2 / n$. So the interval shrinks by
# $\sqrt{1 - \rho}$. Two versions of one model find the same items hard, so $\rho$ is large where it matters, in comparing neighbours.
#
# The best of $k$ independent runs of *one* method lies $\mathbb E \max_k$ standard deviations above its mean: $\int z\, k\, \Phi(z)^{k-1} \varphi(z)\, dz$, which is 0.56,
# 0.85, 1.16 and 1.54 for $k$ = 2, 3, 5, 10.
# </details>

# %% [markdown]
# **By hand**: 200 items, base right on 120; the method loses 10 of them and gains 22.

# %%
n, lost, gained = 200, 10, 22
gain = (gained - lost) / n
paired_se = math.sqrt((gained + lost) - (gained - lost) ** 2 / n) / n
apart_se = math.sqrt(0.60 * 0.40 / n + 0.66 * 0.34 / n)
print(f"gain {gain:+.1%}; paired SE {paired_se:.2%}, interval {gain - 1.96 * paired_se:.1%} to {gain + 1.96 * paired_se:.1%}; "
      f"unpaired SE {apart_se:.2%}; exact McNemar p = {mcnemar(lost, gained):.4f}")  # fmt: skip
assert (
    round(paired_se, 4) == 0.0280
    and round(apart_se, 4) == 0.0482
    and gain - 1.96 * paired_se > 0 > gain - 1.96 * apart_se
)
assert mcnemar(lost, gained) > 0.05  # the exact test is on the other side: borderline, and that is what to report

# %% [markdown]
# **Predict.** Two methods' item scores correlate at 0.9. How long is the paired bootstrap interval, as a share of the unpaired one?

# %%
guess = None  # between 0 and 1


# %%
def unpaired_length(a, b, generator, resamples=2000):
    """Return the length of a bootstrap interval that draws both sides apart."""
    one, two = (side[torch.randint(len(side), (resamples, len(side)), generator=generator)].mean(1) for side in (a, b))
    low, high = torch.quantile(two - one, torch.tensor([0.025, 0.975], dtype=one.dtype)).tolist()
    return high - low


RHOS, measured = (0.0, 0.3, 0.6, 0.9), {}
for rho in RHOS:
    for seed in range(3):
        generator = torch.Generator().manual_seed(100 * seed + int(10 * rho))
        a, noise = torch.randn(2, 400, generator=generator, dtype=torch.float64)
        b = rho * a + math.sqrt(1 - rho**2) * noise
        _, low, high = paired_interval(a, b, generator=generator)
        measured.setdefault(rho, []).append((high - low) / unpaired_length(a, b, generator))
    assert abs(np.mean(measured[rho]) - math.sqrt(1 - rho)) < 0.1
print({rho: f"{min(v):.2f} to {max(v):.2f}, by the rule {math.sqrt(1 - rho):.2f}" for rho, v in measured.items()})
predicted("paired interval over unpaired, correlation 0.9", guess, float(np.mean(measured[0.9])))

# %% [markdown]
# **The table**: four rows on `flip` and on the old skills, the same items for each. Base; the base with a better prompt (`flip` is an old skill
# under a new name); LoRA; full tuning. Three seeds of the two that train: the interval is over
# items, for seed 0; the range over seeds stands beside it.

# %% fold="run"
# Run: base, better prompt, LoRA and full tuning on the same items
task, asked_better = probes("flip", 200, 2024), better_prompt("flip", 200, 2024)
old = batch([example(name, draw) for draw in [np.random.default_rng(2024)] for name in SKILLS for _ in range(20)])


@torch.no_grad()
def item_scores(model, rows):
    """Return 1 for each row whose whole answer is the greedy one, else 0."""
    rows = rows.to(model.embed.weight.device)
    right = model(rows.ids, rows.attention_mask)[:, :-1].argmax(-1) == rows.ids[:, 1:]
    return (right | (rows.answer_mask[:, 1:] == 0)).all(1).cpu().double()


def tuned(kind, seed, rate, steps=30):
    """Tune the base model on flip, with LoRA of rank 4 on all linear layers or in full."""
    model, rng = base_model(), np.random.default_rng(seed)
    if kind == "LoRA":
        add_lora(model, LINEARS, 4, 8.0, generator=torch.Generator().manual_seed(seed))
    model = model.to(device)

    def one_loss(step):
        rows = mixture({"flip": 1.0}, 16, rng).to(device)
        return model_loss(model, rows.ids, rows.answer_mask)

    train(model, one_loss, rate_groups(model, {}, rate), steps)
    return model


scores = {
    "base": [(item_scores(base, task), item_scores(base, old))],
    "prompt only": [(item_scores(base, asked_better), item_scores(base, old))],
}
for kind, rate in (("LoRA", 1e-3), ("full", 1e-4)):
    scores[kind] = [(item_scores(m, task), item_scores(m, old)) for m in (tuned(kind, seed, rate) for seed in range(3))]
table = {}
for row, runs in scores.items():
    for place, what in enumerate(("flip", "old skills")):
        means = [float(run[place].mean()) for run in runs]
        gain = paired_interval(scores["base"][0][place], runs[0][place], generator=torch.Generator().manual_seed(0))
        table[row, what] = (*gain, means)
        seeds = f"seeds {min(means):.2f} to {max(means):.2f}" if len(means) > 1 else f"score {means[0]:.2f}"
        print(f"{row:<12} {what:<11} gain {gain[0]:+.3f} [{gain[1]:+.3f}, {gain[2]:+.3f}]   {seeds}")

# %%
ROWS = ("prompt only", "LoRA", "full")
assert table["prompt only", "flip"][1] > 0.9 and table["prompt only", "old skills"][:3] == (0.0, 0.0, 0.0)
assert all(table[row, "flip"][1] > 0.3 for row in ROWS) and all(table[row, "old skills"][0] <= 0 for row in ROWS)
bars(
    ROWS,
    {what: [table[row, what][0] for row in ROWS] for what in ("flip", "old skills")},
    spread={what: ([table[row, what][1] for row in ROWS], [table[row, what][2] for row in ROWS]) for what in ("flip", "old skills")},
    title=f"The row that trains nothing gains {table['prompt only', 'flip'][0]:.1%} on flip and loses nothing: leave it out, and training looks needed",
    y_label="score minus the base's, paired 95 % intervals",
    alt="; ".join(f"{row}, {what}: {table[row, what][0]:+.2f}, from {table[row, what][1]:+.2f} to {table[row, what][2]:+.2f}"
                  for row in ROWS for what in ("flip", "old skills")) + ".",
)  # fmt: skip

# %% [markdown]
# On `flip` the cheapest row is also the best one: a table without "prompt only" would have sold a training run. (A task that the base can't do at
# all, `neb`, has no such prompt.) LoRA and full tuning stand here at one rate each, stopped early: two rows, not a ranking.
#
# **Check.** Pairing is a property of the data: the same items in the same order. Shuffle one side, and the mean stays while the interval grows to
# the unpaired one.

# %%
one, two = (item_scores(tuned("full", seed, 1e-4, 20), task) for seed in (0, 1))
generator = torch.Generator().manual_seed(0)
kept_pairs = paired_interval(one, two, generator=generator)
torn = paired_interval(one, two[torch.randperm(len(two), generator=generator)], generator=generator)
correlation = float(torch.corrcoef(torch.stack([one, two]))[0, 1])
print(
    f"correlation of items {correlation:.2f}: interval {kept_pairs[2] - kept_pairs[1]:.3f}; shuffled {torn[2] - torn[1]:.3f}"
)
assert torch.equal(probes("flip", 200, 2024).ids, task.ids) and abs(torn[0] - kept_pairs[0]) < 1e-9
assert kept_pairs[2] - kept_pairs[1] < 0.9 * (torn[2] - torn[1])

# %% [markdown]
# **The usual mistake**: the best of five seeds of "ours" against one seed of the baseline. Twenty runs of *one* recipe, LoRA stopped early, whose
# seeds alone differ:

# %%
accuracies = np.array([row["accuracy"] for row in recorded()["seeds"]])
rng = np.random.default_rng(0)
picked = {
    k: float(np.mean([rng.choice(accuracies, k).max() for _ in range(4000)]) - accuracies.mean()) for k in (2, 5, 10)
}
deviation = float(accuracies.std())
for k, inflation in picked.items():
    print(
        f"best of {k:>2} seeds: {inflation:+.3f}, {inflation / deviation:.2f} standard deviations; normal scores say {expected_best(k):.2f}"
    )
print(f"twenty seeds: {accuracies.min():.2f} to {accuracies.max():.2f}, standard deviation {deviation:.3f}")
assert abs(picked[5] / deviation - expected_best(5)) < 0.35 and picked[5] > 0.5 * deviation
one_more = float(item_scores(tuned("LoRA", 0, 5e-4, 40), probes("flip", 256, 2024)).mean())
print(f"seed 0 run again: {one_more:.3f}, recorded {accuracies[0]:.3f}")
assert abs(one_more - accuracies[0]) < 0.05
assert {row["rate"] for row in recorded()["seeds"]} == {5e-4}  # one recipe: every "gain" above is from nothing

# %% [markdown]
# **In practice** a table holds base, prompt-only, PEFT and full, each with a paired interval on the same items and the spread over seeds beside it;
# that seeds alone reorder fine-tuned models was shown by Dodge et al. 2020 (arXiv:2002.06305).
#
# → [exercise 10.5](exercises.ipynb#10.5-Ablations) · graded: [p09, scorecard](../../source/p09_scorecard/p09_scorecard.ipynb)

# %% [markdown]
# ## Four checks of a minute
#
# **Before the hours are spent: learn one batch by heart, watch the gradient's norm, save and reload to equal logits, and count lines on both sides
# of the split. Each finds faults that the other three don't.**
#
# | check | it finds | it doesn't find |
# | --- | --- | --- |
# | one batch by heart | adapters that nobody moves, a rate that is far off, labels that can't be reached | a mask one place early, lines on both sides |
# | gradient norm | gradients that were never set back, spikes, layers that get none | wrong data |
# | save, reload, equal logits | a scale or a target that the file doesn't hold | anything before saving |
# | lines on both sides | a validation loss that only confirms | everything else |
#
# **Predict.** LoRA of rank 4 on all linear layers is trained on the same four lines for 25 steps at $5 \cdot 10^{-3}$. Where does the loss end?

# %%
guess = None  # nats per token


# %% fold="run"
# Run: one batch learned by heart, with and without a fault
def by_heart(seed, early_optimizer=False, shift=0, steps=25):
    """Return the losses of training on one batch; the optimizer may be built too early, the mask may be shifted."""
    model = base_model()
    groups = list(model.parameters())
    add_lora(model, LINEARS, 4, 8.0, generator=torch.Generator().manual_seed(seed))
    if not early_optimizer:
        groups = [p for p in model.parameters() if p.requires_grad]
    rows = mixture({"flip": 1.0}, 4, np.random.default_rng(seed)).to(device)
    mask = rows.answer_mask.roll(-shift, 1)
    losses = train(
        model.to(device), lambda step: model_loss(model, rows.ids, mask), [{"params": groups, "lr": 5e-3}], steps
    )
    return losses, model


learned = [by_heart(seed) for seed in range(3)]
flat = [by_heart(seed, early_optimizer=True, steps=2)[0] for seed in range(3)]
early = by_heart(0, shift=1)[0]
print(
    "ends at",
    [f"{losses[-1]:.4f}" for losses, _ in learned],
    "with an optimizer built too early",
    [f"{losses[-1]:.1f}" for losses in flat],
)
print(f"a mask one place early: {early[0]:.1f} -> {early[-1]:.4f}: this check doesn't see it")
predicted("last loss on one batch, nats per token", guess, np.mean([losses[-1] for losses, _ in learned]))

# %%
assert all(losses[0] == losses[1] for losses in flat)  # not a bit moves, so more steps change nothing
finding(
    "A sound LoRA setup learns one batch by heart within 25 steps",
    figure="last loss over first loss, four lines of flip",
    measured=[losses[-1] / losses[0] for losses, _ in learned],
    null="the optimizer built before the adapters",
    control=[losses[-1] / losses[0] for losses in flat],
    holds=lambda left: max(left) < 0.1,
    scope="LoRA of rank 4 on all linear layers, AdamW at 5e-3, three seeds",
)

# %% [markdown]
# **The gradient's norm**, before clipping, belongs into the log of each step: `clip_grad_norm_` returns it. Just before a backward pass it should be 0.
# If nobody sets the gradients back, they grow by one gradient a step; clipping then hides the size, and what is left is a momentum that never fades.

# %%
for set_back in (True, False):
    model, norms = adapted().to(device), []
    rows = mixture({"flip": 1.0}, 8, np.random.default_rng(0)).to(device)
    for step in range(5):
        if set_back:
            model.zero_grad()
        model_loss(model, rows.ids, rows.answer_mask).backward()
        norms.append(float(nn.utils.clip_grad_norm_(model.parameters(), math.inf)))
    print("set back" if set_back else "never set back", [round(norm, 2) for norm in norms])
    assert abs(norms[-1] / norms[0] - (1 if set_back else 5)) < 0.01

# %% [markdown]
# **Save, reload, compare logits**: through a real file, into a model that was built from the recipe as the serving program builds it. The file holds
# the factors and not the scale.

# %%
trained, ids = learned[0][1], probes("flip", 8, 1).ids.to(device)
with tempfile.TemporaryDirectory() as folder:
    save_weights(lora_state(trained), Path(folder) / "adapter.safetensors")
    stored = load_weights(Path(folder) / "adapter.safetensors")
for alpha in (8.0, 16.0):
    served = base_model()
    add_lora(served, LINEARS, 4, alpha)
    load_lora(served.to(device), stored)
    with torch.no_grad():
        same, apart = torch.equal(served(ids), trained(ids)), float((served(ids) - trained(ids)).abs().max())
    print(f"served with alpha = {alpha:g}: the same bits {same}, a logit moves by up to {apart:.1f}")
    assert same == (alpha == 8.0)

# %% [markdown]
# **Lines on both sides.** Splitting *lines* isn't splitting what they ask. `neb` has 48 words, so that a random split of 160 lines leaves hardly any
# validation prompt that wasn't learned. Split by what a line is about, as part 8 groups items.

# %%
rng = np.random.default_rng(0)
lines_of_neb = [example("neb", rng)[0] for _ in range(160)]
seen_before = set(lines_of_neb[:128])
shared = np.mean([prompt in seen_before for prompt in lines_of_neb[128:]])
words = sorted(set(lines_of_neb))
by_word = set(words[:36]) & set(words[36:])
print(f"split by line: {shared:.0%} of the validation lines ask for a learned word; split by word: {len(by_word)}")
assert shared > 0.8 and not by_word

# %% [markdown]
# → exercises 10.C to 10.G find [five faults of a training script](exercises.ipynb#Five-faults-of-a-training-script)

# %% [markdown]
# ## What to keep
#
# | | statement | number to remember |
# | --- | --- | --- |
# | 10.1 | two masks; a loss curve doesn't show a lost end | late: in the loss; early: in the generations |
# | 10.2 | flags, optimizer, gradient, memory: four lists | `requires_grad` sees 3 of our 10 faults |
# | 10.3 | a rate is a distance in output | $\sqrt 3\, d_\text{in} / (s r)$ for one step; a factor of ten for whole runs, then a sweep |
# | 10.4 | a reference is a fixed function | $\ln 2$ at step 0, the same bits at the end |
# | 10.5 | same items, an interval a row, seeds beside it | best of 5: $+1.16$ standard deviations from nothing |
#
# **To pin up: [the checklist on one page](../checklist.md)**, each line with its code and its symptom, and the same checks in PEFT and TRL.
