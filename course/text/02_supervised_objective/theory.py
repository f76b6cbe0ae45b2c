# %% [markdown]
# # Part 2: the supervised objective
#
# **The claim.** Much of what supervised fine-tuning teaches is decided before the first step: which tokens are targets, how their losses are
# averaged, in which shares the data sets are drawn, and how good the answers are. Each choice has a number that shows it.
#
# You need part 1, causal language models and padding. Afterwards you can build lines, chats of several turns and their masks, pack lines into
# one row, compute token and sequence means, test that no position sees a later one, derive the floor of smoothed labels, and weigh and
# clean a mixture. About 90 minutes; the notebook itself runs in about a minute on two CPU cores. Longer runs are recorded, and a cell beside the first record runs one
# of them again. As in part 1, a green box is a finding beside its control.
#
# | symbol | what it is | shape or unit |
# | --- | --- | --- |
# | $u$ | tokens of a line: begin, prompt, separator, answer, end | $T$ ids |
# | $m$ | answer mask: 1 where the token is a target | $\{0, 1\}^{B \times T}$ |
# | $z$ | logits; $z_t$ score token $t + 1$ | $(B, T, V)$ |
# | $\epsilon$ | label smoothing | a share |
# | $\alpha_k, n_k, \tau$ | share, size and temperature of data set $k$ | shares, examples, a number |

# %% fold="imports"
# Imports, and the device that this notebook runs on
import math
from collections import Counter

import numpy as np
import torch
import torch.nn.functional as F

from ftmath import (
    add_lora,
    answer_only_loss,
    base_model,
    best_device,
    block_causal,
    describe,
    fine_tune,
    generate,
    labels_of,
    mixture,
    mixture_weights,
    model_loss,
    probes,
    prompts,
    quality,
    rate_groups,
    recorded,
    retention,
    sequence_logprob,
    token_logprobs,
    train,
)
from ftmath.chats import answer_turns, assistant_mask, chat, completion_mask, packed_logits
from ftmath.datasets import chat_probes, chat_run, own_lines
from ftmath.diagrams import token_grid
from ftmath.exercises import progress
from ftmath.findings import finding
from ftmath.plots import bars, lines
from ftmath.predict import predicted
from ftmath.skills import EOS, SEP, SKILLS, Batch, accuracy, batch, decode, encode
from ftmath.widgets import MaskPainter

device = best_device()
RUNS = recorded("data_runs")  # benchmarks/data_runs.py wrote it: three or six seeds of each run
print(f"torch {torch.__version__} on {describe(device)}")
progress(2)

# %% [markdown]
# ## 2.1 Instruction-response pairs
#
# **A pair becomes one line of tokens, of which only the answer and its end are targets.**
#
# $$u = [\text{BOS}, \text{prompt}, \text{SEP}, y, \text{EOS}], \qquad
# \log p_\theta(y \mid x) = \sum_{j = 1}^{|y| + 1} \log p_\theta(y_j \mid x, y_{<j}), \quad y_{|y| + 1} = \text{EOS} .$$
#
# <details><summary>Why only the answer's factors</summary>
#
# The chain rule splits $p(u)$ into the prompt's factors and the answer's. Only the latter say what to answer; the end-of-sequence
# token is one of them, since stopping is part of the answer.
# </details>

# %% [markdown]
# **By hand.** A prompt of 12 tokens with its begin and separator, an answer of 5 and its end: how many targets, and which
# logits are read?

# %%
prompt, answer = "sort fedcb", "bcdef"  # ten letters; BOS and SEP make it twelve
ids, mask = encode(prompt, answer)
first, last = mask.index(1) - 1, len(ids) - 2
print(
    f"{len(ids)} tokens, {sum(mask)} targets; the first used logits stand at {first}, the last at {last}; {len(ids) - 1} predicts nothing"
)
assert (len(ids), sum(mask), first, last) == (18, 6, 11, 16)

# %% [markdown]
# **Predict.** A model is tuned on `flip` (reversing a word, under a new name) with answers whose end-of-sequence token is *not* a target. The
# base already ends its answers on ten other skills, whose words have 3 to 7 letters, as those of `flip` do. It is asked for 32 words each of 3, 5
# and 7 letters, with up to 20 tokens for an answer. How many of the 96 answers are right, letters *and* end?

# %%
guess = None  # 0 to 96


# %%
def tuned_on(mask_of, steps=50, rows=16, rate=3e-4, seed=0):
    """Return the base model after full tuning on flip, with a mask made by `mask_of(batch)`; and its losses."""
    model, rng = base_model().to(device), np.random.default_rng(seed)

    def loss(step):
        lines_ = mixture({"flip": 1.0}, rows, rng).to(device)
        return model_loss(model, lines_.ids, mask_of(lines_))

    return model, train(model, loss, rate_groups(model, {}, rate), steps)


# %%
LENGTHS = (3, 5, 7)


def answered(model, length, count=32):
    """Return of 32 answers how many have the right letters in front, how many are right with their end, and how far they overrun."""
    rng = np.random.default_rng(length)
    words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), length)) for _ in range(count)]
    ids, mask = (part.to(device) for part in prompts([f"flip {word}" for word in words]))
    new = [decode(row) for row in generate(model, ids, mask, max_new=20, stop=EOS).tolist()]
    letters = sum(text.startswith(word[::-1]) for text, word in zip(new, words))
    return (
        letters,
        sum(text == word[::-1] for text, word in zip(new, words)),
        int(np.median([len(text) for text in new])) - length,
    )


# %%
def without_end(lines_):
    return lines_.answer_mask * (lines_.ids != EOS)


found, models = {}, {}  # (three seeds, three lengths, what `answered` returns), and the three models
for name, mask_of in (("with EOS", lambda lines_: lines_.answer_mask), ("without EOS", without_end)):
    tuned = models[name] = [tuned_on(mask_of, seed=seed)[0] for seed in range(3)]
    found[name] = np.array([[answered(model, length) for length in LENGTHS] for model in tuned])
    for place, length in enumerate(LENGTHS):
        letters, right, over = found[name][:, place].T.tolist()
        print(
            f"{name}, {length} letters: right letters {letters}, right with their end {right} of 32, median overrun {over}"
        )
right = {name: values[:, :, 1] for name, values in found.items()}
predicted(
    "right answers of 96, without EOS as a target (mean of three seeds)",
    guess,
    right["without EOS"].sum(1).mean(),
    "Nothing says when flip is complete. Only the longest words end by themselves: after seven letters no line went on.",
)

# %% fold="picture"
# Draw the right answers by the length of the word
assert found["without EOS"][:, :, 0].min() >= 30  # the letters are right; it's the end that isn't
bars(
    [f"{length} letters" for length in LENGTHS],
    {name: values.mean(0).tolist() for name, values in right.items()},
    spread={name: (values.min(0).tolist(), values.max(0).tolist()) for name, values in right.items()},
    title=f"Without EOS in the loss, words of 3 and 5 letters run on; of 7, the longest there are, {right['without EOS'][:, 2].mean():.0f} of 32 end right",
    y_label="right answers of 32",
    alt="; ".join(
        f"{name}: " + ", ".join(f"{length} letters {v:.1f}" for length, v in zip(LENGTHS, values.mean(0)))
        for name, values in right.items()
    )
    + " right of 32; means of three seeds.",
)

# %%
short = {name: values[:, :2].sum(1) for name, values in right.items()}
finding(
    "Without EOS as a target, short answers run on past their end",
    figure="right answers of 64 words of 3 and 5 letters, with EOS as a target less without",
    measured=(short["with EOS"] - short["without EOS"]).tolist(),
    null="EOS as a target in both, with different seeds",
    control=(short["with EOS"] - np.roll(short["with EOS"], 1)).tolist(),
    holds=lambda lost: min(lost) > 32,
    scope="flip, our base model, full tuning with AdamW at 3e-4, 50 steps of 16 lines; three seeds",
)

# %% [markdown]
# **Check.** What the mask marks is the answer and its end, for every skill.

# %% fold="checks"
# The last target of a line is EOS, and its first token is none
for skill in SKILLS:
    rows = probes(skill, 8, 0)
    for line, chosen in zip(rows.ids, rows.answer_mask):
        assert line[chosen == 1][-1] == EOS and not chosen[0]

# %% [markdown]
# The letters are right nearly always, the end is not. Nothing taught the model when `flip` is complete, and every step taught it that letters follow
# letters. The longest words are the exception: in no line that the model ever saw does an eighth letter follow. That this is the reason is a reading
# of the figure, not a test of it.
#
# **The usual mistake**: padding with the end-of-sequence id and masking *by id*. The true end is masked along, and the symptom is
# the one above: answers that run on past their end.

# %%
rows = batch([("flip ab", "ba"), ("flip abcd", "dcba")])
padded_with_eos = rows.ids.where(rows.attention_mask == 1, EOS)
by_id = rows.answer_mask * (padded_with_eos != EOS)
print("targets per row, by mask:", rows.answer_mask.sum(1).tolist(), " by id:", by_id.sum(1).tolist())
assert (by_id.sum(1) == rows.answer_mask.sum(1) - 1).all()

# %% [markdown]
# **A chat of several turns.** A *chat template* turns a list of (role, text) turns into one line of tokens, with marks where a turn begins or ends. Ours is
# short: the chat opens with BOS, a user's turn closes with SEP, an assistant's with EOS. So a chat of one question and one answer is the line from above.
# With several answers in a line there is a choice. *Assistant-only* loss makes all of them targets, *completion-only* loss the last one alone; TRL's
# trainer calls these options `assistant_only_loss` and `completion_only_loss`.

# %%
TALK = [("user", "flip abc"), ("assistant", "cba"), ("user", "flip xy"), ("assistant", "yx")]
ids, roles = chat(TALK)
names = {1: "BOS", SEP: "SEP", EOS: "EOS", 32: "_"}
everything = [0] + [1] * (len(ids) - 1)
masks = {"all tokens": everything, "assistant-only": assistant_mask(roles), "completion-only": completion_mask(roles)}
print({name: f"{sum(mask)} targets" for name, mask in masks.items()})
turns = answer_turns(assistant_mask(roles))
assert all(
    ids[place] == EOS for place in range(len(ids)) if turns[place] and (turns + [0])[place + 1] == 0
)  # each answer is taught to end
token_grid(
    [names.get(token, chr(token)) for token in ids],
    list(masks.items()),
    borders=[place for place in range(1, len(ids)) if roles[place] != roles[place - 1]],
    title="One chat, three choices of targets",
    alt=f"A chat of two questions and two answers, {len(ids)} tokens. All tokens: {sum(everything)} targets. Assistant-only: both answers with their EOS. "
    "Completion-only: the second answer with its EOS.",
)

# %% [markdown]
# **Predict.** The base model is tuned on chats of two turns, 20 steps of 8 chats, each choice at its best of three rates. Assistant-only loss learns from
# both answers. Completion-only loss puts all its weight on the second one. Now take the loss on the *second* answers of new chats alone: how many times as large is it
# after completion-only training, at equal *steps*? (1: equal. The base model has never seen a second turn.)

# %%
guess = None  # completion-only over assistant-only, loss on the second answer

# %%
second = {}  # the loss on the second answer at the best rate, one a seed
for which in ("assistant", "completion"):
    rates = {name: np.array(runs) for name, runs in RUNS["chats"].items() if name.startswith(which)}
    best = min(rates, key=lambda name: rates[name][:, 1].mean())
    second[which] = rates[best][:, 1]
    print(
        f"{which}-only, best at {best.partition(', ')[2]}: first answer {rates[best][:, 0].mean():.2f} nats, second {second[which].mean():.2f}"
    )
again = chat_run("assistant", 0, rate=1e-3)
print(f"run again here, assistant-only, rate 0.001, seed 0: {again}; recorded {RUNS['chats']['assistant, 0.001'][0]}")
why = "Both turns ask for one rule. In as many steps assistant-only loss learns from twice as many answers."
predicted(
    "loss on the second answer, completion-only over assistant-only",
    guess,
    second["completion"].mean() / second["assistant"].mean(),
    why,
)

# %%
finding(
    "At equal steps, where all answers of a chat follow one rule, learning all of them is better for the last one too",
    figure="loss on the second answer, completion-only less assistant-only, nats per token",
    measured=(second["completion"] - second["assistant"]).tolist(),
    null="assistant-only in both, with different seeds",
    control=(second["assistant"] - np.roll(second["assistant"], 1)).tolist(),
    holds=lambda gaps: min(gaps) > 0.4,
    scope="chats of two turns that both ask for flip, our base model, full tuning with AdamW, 20 steps of 8 chats, each choice at its best of three rates; six seeds",
)

# %% [markdown]
# A step of assistant-only loss learns from twice as many answers. So the comparison at equal *answers* gives completion-only loss twice the steps. That costs
# twice the computation: a chat of two turns is read for one answer.

# %%
longer = {name: np.array(runs) for name, runs in RUNS["chats at equal answers"].items()}
best = min(longer, key=lambda name: np.median(longer[name][:, 1]))
wins = int((longer[best][:, 1] < second["assistant"]).sum())
print(
    f"completion-only in 40 steps, best at {best.partition(', ')[2]}; loss on the second answer, six seeds:",
    longer[best][:, 1],
)
print("assistant-only in 20 steps:                                                        ", second["assistant"])
print(
    f"completion-only is lower in {wins} of 6; on the first answer {(longer[best][:, 0] > 1).sum()} of 6 are above 1 nat"
)
assert wins >= 4 and np.median(longer[best][:, 1]) < np.median(second["assistant"]) and longer[best][:, 0].min() > 1

# %% [markdown]
# With as many learned answers, completion-only loss is the better one for the second answer in most seeds (the best rate is picked by the median, since one run
# hardly learns). So what assistant-only loss saves is steps: each chat teaches two answers. It also teaches the first one, which completion-only loss leaves
# bad. In other data it needn't save anything: where the early answers of a chat are bad, assistant-only loss teaches them. So look at the early answers before you
# choose.
#
# **What was never trained isn't there.** The models above, tuned on single lines with EOS, get three requests. They get the known template, the same
# with a newline in place of SEP, and a second question after a right first answer.

# %%
single = chat_probes(1, 1, count=96)
other = chat_probes(1, 1, count=96, seed=5)
newline = Batch(single.ids.where(single.ids != SEP, 10), single.answer_mask, single.attention_mask)
asked = {
    "known template": single,
    "other words": other,
    "newline for SEP": newline,
    "second turn": chat_probes(2, 2, count=96),
}
right = {name: [accuracy(model, rows) for model in models["with EOS"]] for name, rows in asked.items()}
for name, shares in right.items():
    print(f"{name:>16}: {[round(share, 2) for share in shares]}")
known = np.array(right["known template"])
finding(
    "A model tuned on single lines fails in another template and in the second turn",
    figure="accuracy in the known template less the better of the two other requests",
    measured=(known - np.maximum(right["newline for SEP"], right["second turn"])).tolist(),
    null="the known template with other words",
    control=(known - np.array(right["other words"])).tolist(),
    holds=lambda lost: min(lost) > 0.5,
    scope="96 lines of flip, our base model, which has seen lines of one turn only, full tuning with AdamW at 3e-4, 50 steps of 16 lines; three seeds",
)

# %% [markdown]
# Is a second turn too hard for this model, or is it only unknown? The positive control is recorded: the same base, tuned on chats of two turns with both answers
# as targets, 60 steps of 16 chats at rate 0.001.

# %%
two_turns = np.array(RUNS["turns"]["tuned on two"])  # (seeds, single line and second turn)
print("tuned on two turns: single lines", two_turns[:, 0].round(2), "second turn", two_turns[:, 1].round(2))
assert two_turns.min() > 0.8

# %% [markdown]
# So it was unknown. A large model has seen many formats and may bend where ours breaks; that isn't tested here. The rule is the same: train on what you will serve,
# with the same template, turns and ends.
#
# **In practice** use the template that comes with the model's tokenizer, for training and for service (the
# end of this part shows one). Llama 2's chat models were tuned with the loss on the user's tokens set to zero (Touvron et al. 2023,
# arXiv:2307.09288, section 3.1).
#
# → [exercise 2.1](exercises.ipynb#2.1-Instruction-response-pairs) ·
# graded: [p01, answer-only loss](../../source/p01_answer_only_loss/p01_answer_only_loss.ipynb)

# %% [markdown]
# ## 2.2 Answer-only loss
#
# **The loss is a sum over targets divided by their number, with one shift: logits at $t - 1$ against the token at $t$.**
#
# $$L = -\frac{\sum_b \sum_{t \ge 1} m_{bt} \log p_\theta(u_{bt} \mid u_{b, <t})}{\sum_b \sum_{t \ge 1} m_{bt}}, \qquad
# \frac{\partial L}{\partial z_{b, t-1}} = \frac{m_{bt}}{\sum m} \big(\operatorname{softmax}(z_{b, t-1}) - e_{u_{bt}}\big) .$$
#
# <details><summary>Why a masked position still learns</summary>
#
# The gradient at its *output* is exactly zero. Its hidden state still gets one, through the attention of later targets that read
# it: the prompt is read, not predicted.
# </details>

# %% [markdown]
# **By hand**: five tokens, and two ways to average two rows.

# %%
nll = -torch.tensor([0.1, 0.2, 0.5, 0.8, 0.9]).log()
print(f"answer only {nll[2:].mean():.4f}, all tokens {nll.mean():.4f}")
one, nine = [3.0], [0.5] * 9
token_mean, sequence_mean = sum(one + nine) / 10, (np.mean(one) + np.mean(nine)) / 2
print(
    f"a row of one token at 3.0 and one of nine at 0.5: token mean {token_mean:.2f}, sequence mean {sequence_mean:.2f}"
)
assert (round(token_mean, 2), round(sequence_mean, 2)) == (0.75, 1.75)

# %% [markdown]
# Paint the targets of a line; the numbers below each token are the base model's losses. The first token has nothing before it.

# %%
ids, mask = encode("reverse stone", "enots")
with torch.no_grad():
    logits = base_model()(torch.tensor([ids]))
    nats = -token_logprobs(logits[:, :-1], torch.tensor([ids])[:, 1:])[0]
NAMES = {1: "BOS", 2: "SEP", 3: "EOS"}
MaskPainter("What is learned, and what that costs", [NAMES.get(i, chr(i)) for i in ids], [0.0, *nats.tolist()], mask)

# %% [markdown]
# **Predict.** On the ten old skills the base model's answer tokens cost almost nothing. What is its loss over *all* tokens of
# the same lines, prompts included?

# %%
guess = None  # nats per token

# %%
rows = mixture(dict.fromkeys(SKILLS, 1.0), 256, np.random.default_rng(0))
base = base_model().requires_grad_(False)
on_answers = float(model_loss(base, rows.ids, rows.answer_mask))
on_all = float(model_loss(base, rows.ids, rows.attention_mask))
why = "Letters of a prompt are drawn at random and cost ln 26 = 3.26 nats each, answers nearly nothing; words cost less than letters."
predicted("the base model's loss over all tokens", guess, on_all, why)

# %%
EVERY = {"answer only": lambda lines_: lines_.answer_mask, "all tokens": lambda lines_: lines_.attention_mask}
found = {name: [tuned_on(mask_of, seed=seed) for seed in range(3)] for name, mask_of in EVERY.items()}
right = {name: [accuracy(model, probes("flip", 96, 3)) for model, _ in runs] for name, runs in found.items()}
final = {name: float(np.mean([losses[-1] for _, losses in runs])) for name, runs in found.items()}
print({name: f"accuracy {min(v):.2f} to {max(v):.2f}, last loss {final[name]:.2f}" for name, v in right.items()})
# %% fold="picture"
# Draw both losses
assert on_all > 20 * on_answers and final["all tokens"] > 5 * final["answer only"]
lines(
    list(range(50)),
    {name: np.mean([losses for _, losses in runs], axis=0).tolist() for name, runs in found.items()},
    title=f"The losses aren't comparable: a prompt's letters are random, so all tokens end at {final['all tokens']:.2f} nats",
    x_label="step",
    y_label="loss, nats per target",
    alt=f"Answer-only loss falls to {final['answer only']:.2f}, the loss over all tokens to {final['all tokens']:.2f}. Accuracy on the task: "
    + "; ".join(f"{name} {np.mean(v):.2f}" for name, v in right.items())
    + ".",
)

# %% [markdown]
# Prompts aren't out of reach altogether: the new name `flip` is learned too, so the loss over all tokens falls in this run. What stays is the price
# of letters drawn at random.
#
# **Check.** Logits that no target reads may be anything: NaN there changes neither loss nor gradient. (Multiplying losses by the mask
# would fail this: NaN times 0 is NaN.)

# %%
rows = probes("sort", 6, 1)
logits = base(rows.ids).clone().requires_grad_()
spoiled = logits.detach().clone()
unread = torch.ones_like(rows.answer_mask)
unread[:, :-1] = 1 - rows.answer_mask[:, 1:]
spoiled[unread == 1] = float("nan")
spoiled.requires_grad_()
whole, cut = (answer_only_loss(z, rows.ids, rows.answer_mask) for z in (logits, spoiled))
whole.backward(), cut.backward()
assert torch.equal(whole, cut) and torch.equal(logits.grad, spoiled.grad)

# %% [markdown]
# **Packing.** Padding costs time and teaches nothing, so short lines are *packed*: several stand one behind the other in one row. The loss must not notice. That takes
# two things. A token may read its own line only; and the first token of a line is no target, since what stands before it
# belongs to another line. A model with *absolute* positions needs a third: positions count from 0 in every line. Ours has rotary ones, which enter attention
# only by their differences, so positions that run on change nothing; the cell tries both. Here is the mask for two packed lines, and the test that says whether a packing is right: the losses are those of the
# separate lines.

# %%
pair = [encode("reverse ab", "ba"), encode("last sun", "n")]
lengths = [len(ids) for ids, _ in pair]
allowed = block_causal(lengths)
names = [NAMES.get(token, chr(token)) for ids, _ in pair for token in ids]
token_grid(
    names,
    list(zip(names, allowed.int().tolist())),
    borders=[lengths[0]],
    title="Each line reads itself, and nothing later: rows read columns",
    alt=f"A grid of {sum(lengths)} by {sum(lengths)} tokens. Two triangles are filled, of {lengths[0]} and of {lengths[1]} tokens; all cells between the lines are empty.",
)


# %%
def target_losses(logits, ids, mask):
    """Return the loss of each target, in order."""
    return -token_logprobs(logits[:-1], ids[1:])[mask[1:] == 1]


alone = torch.cat(
    [target_losses(base(torch.tensor([ids]))[0], torch.tensor(ids), torch.tensor(mask)) for ids, mask in pair]
)
row, row_mask = (torch.tensor([token for line in pair for token in line[part]]) for part in (0, 1))
reset, plain = torch.cat([torch.arange(n) for n in lengths]), torch.ones_like(allowed).tril()
on = torch.arange(sum(lengths))
tried = {"block mask": (reset, allowed), "positions run on": (on, allowed), "plain causal mask": (reset, plain)}
packed = {
    name: target_losses(packed_logits(base, row, places, mask), row, row_mask) for name, (places, mask) in tried.items()
}
print("alone:            ", [round(value, 4) for value in alone.tolist()])
for name, losses in packed.items():
    print(f"{name:>17}:", [round(value, 4) for value in losses.tolist()])
assert all(torch.allclose(packed[name], alone, atol=1e-3) for name in ("block mask", "positions run on"))
first = int(pair[0][1].count(1))
assert torch.allclose(
    packed["plain causal mask"][:first], alone[:first], atol=1e-3
)  # nothing stands before the first line
assert (packed["plain causal mask"][first:] - alone[first:]).abs().max() > 0.1  # the second reads the first

# %% [markdown]
# With the plain mask the first line's losses are right and the second's aren't: this is how a leak looks in a log. You build both the chat's masks
# and the packing in [exercises 2.C to 2.F](exercises.ipynb#Build-a-chat's-masks).
#
# **The mistake**: no shift, each position scored on its *own* token. The symptom is a loss that falls to nothing within tens of
# steps, and a model that repeats what it just read.

# %%
model, rng = base_model().to(device), np.random.default_rng(0)


def unshifted(step):
    rows = mixture({"flip": 1.0}, 16, rng).to(device)
    return F.cross_entropy(model(rows.ids).transpose(1, 2), labels_of(rows.ids, rows.answer_mask))


losses = train(model, unshifted, rate_groups(model, {}, 1e-3), 40)
ids, mask = (part.to(device) for part in prompts(["copy fox"]))
said = generate(model, ids, mask, max_new=8)[0].tolist()
print(f"loss {losses[0]:.2f} -> {losses[-1]:.3f}; it says {[NAMES.get(i, chr(i)) for i in said]}")
assert losses[-1] < 0.3 and len(set(said)) <= 3

# %% [markdown]
# **In practice** the same mean must hold across micro-batches: averaging their means weighs a short one like a long one, a bug that
# several trainers carried until 2024. Most recipes learn the answer only; what prompts add was measured by Shi et al. 2024
# (arXiv:2405.14394).
#
# → [exercise 2.2](exercises.ipynb#2.2-Answer-only-loss) · graded: [p01](../../source/p01_answer_only_loss/p01_answer_only_loss.ipynb)

# %% [markdown]
# ## 2.3 Teacher forcing
#
# **In training, the right answer so far (the *gold* prefix) stands before each target, whatever the model would have said. This gives the likelihood exactly. It
# doesn't show what happens after a model's own first slip.**
#
# Let $y^\star$ be the gold answer of $n$ tokens and $\varepsilon$ the chance of a wrong token. The last step takes errors as independent.
#
# $$\log p_\theta(y^\star \mid x) = \sum_j \log p_\theta(y^\star_j \mid x, y^\star_{<j}), \qquad
# \Pr[\text{greedy exact match}] = \Pr[\forall j: \arg\max_v p_\theta(v \mid x, y^\star_{<j}) = y^\star_j] \approx (1 - \varepsilon)^n .$$
#
# <details><summary>Why greedy exact match needs no decoding</summary>
#
# Until the first wrong token the greedy prefix *is* the gold one. So the greedy answer is right if and only if every
# teacher-forced argmax is. After a slip the two prefixes differ, and only a run shows what follows.
# </details>

# %% [markdown]
# **By hand**: 2 % of the tokens wrong.

# %%
print({n: round(0.98**n, 3) for n in (10, 50, 100)})
assert [round(0.98**n, 3) for n in (10, 50, 100)] == [0.817, 0.364, 0.133]

# %% [markdown]
# **Predict.** Models that saw only 10 steps are asked for the *fourth* letter of their answers, once behind the gold letters and once behind their
# own. Take the answers in which a slip came *before* that place. Behind its own prefix, is such a model right as often as behind the gold one? Guess
# the ratio (1: as often; bear in mind that the fourth letter can be read off the prompt, whatever stands before it).

# %%
guess = None  # after a slip: accuracy behind its own prefix over accuracy behind the gold one, at the fourth letter

# %%
rng = np.random.default_rng(9)
words = ["".join(rng.choice(list("abcdefghijklmnopqrstuvwxyz"), 6)) for _ in range(800)]
rows = batch([(f"flip {word}", word[::-1]) for word in words]).to(device)
at = int(rows.answer_mask[0].argmax())
gold = rows.ids[:, at : at + 6]
PREFIXES = ("gold letters", "gold letters but for the first slip", "its own letters")


def behind(model):
    """Return what the model says at places 1 to 6 behind each kind of prefix."""
    forced = model(rows.ids)[:, at - 1 : at + 5].argmax(-1)
    own = generate(model, rows.ids[:, :at], max_new=6)
    own = F.pad(own, (0, 6 - own.shape[1]))
    line, first = torch.arange(len(own), device=device), (own != gold).double().argmax(1)
    slipped = rows.ids.clone()
    slipped[line, at + first] = own[line, first]  # an answer without a slip gets the letter that it has
    return torch.stack([forced, model(slipped)[:, at - 1 : at + 5].argmax(-1), own])


# %%
exact, after_slip, by_count, skipped = [], [], [], []  # one entry a seed
for seed in range(3):
    early = tuned_on(lambda lines_: lines_.answer_mask, steps=10, rows=8, seed=seed)[0].requires_grad_(False)
    said = behind(early)
    right = said == gold  # (three prefixes, words, places)
    exact.append(right.all(2).double().mean(1)[[0, 2]].tolist())
    late = [right[:, ~right[2, :, :place].all(1), place].double().mean(1).tolist() for place in range(2, 6)]
    after_slip.append(late)  # (places 3 to 6, prefixes)
    wrong = 3 - right[2, :, :3].sum(1)  # how many of its first three letters are wrong
    groups = (wrong == 1, wrong >= 2)
    by_count.append([right[:, chosen, 3].double().mean(1).tolist() for chosen in groups])
    ahead = (said[2, :, 2:4] == gold[:, 3:5]).all(1)  # its third and fourth letter are gold's fourth and fifth
    skipped.append([ahead[chosen & ~right[2, :, 3]].double().mean().item() for chosen in groups])
    print(f"seed {seed}: exact match {exact[-1][0]:.3f} and {exact[-1][1]:.3f}")
    for name, shares, skip in zip(("one wrong letter", "two or more"), by_count[-1], skipped[-1]):
        print(f"  {name}: fourth right", *(f"{v:.2f} behind {k}" for k, v in zip(PREFIXES, shares)), sep="; ", end="; ")
        print(f"{skip:.0%} of its wrong ones go on from a skip")


# %%
slips, counts = (
    np.array(after_slip),
    np.array(by_count),
)  # (seeds, places 3 to 6, prefixes), (seeds, one or more, prefixes)
predicted(
    "after a slip, accuracy at the fourth letter behind its own prefix over that behind gold",
    guess,
    (slips[:, 1, 2] / slips[:, 1, 0]).mean(),
    "The letter can be read off the prompt, so most of the accuracy stays. What is lost is lost where a second letter is wrong.",
)

# %% fold="picture"
# Draw the accuracy after a slip, place by place
assert all(gold_ == own for gold_, own in exact)  # the same number, by the argument above
lines(
    [3, 4, 5, 6],
    {f"behind {name}": slips[:, :, column].mean(0).tolist() for column, name in enumerate(PREFIXES)},
    title="The first slip alone costs little; the model's own further letters cost more",
    x_label="place in the answer",
    y_label="accuracy, of the answers that slipped before",
    alt="Accuracy after an earlier slip, at places 3 to 6: "
    + "; ".join(
        f"behind {name} " + ", ".join(f"{v:.2f}" for v in slips[:, :, column].mean(0))
        for column, name in enumerate(PREFIXES)
    )
    + ". Means of three seeds.",
)

# %%
finding(
    "After a slip a model's own prefix costs accuracy, and the first wrong letter alone doesn't explain it",
    figure="accuracy at the fourth letter behind gold less behind its own prefix, answers that slipped before it",
    measured=(slips[:, 1, 0] - slips[:, 1, 2]).tolist(),
    null="the first slip put in, gold letters after it",
    control=(slips[:, 1, 0] - slips[:, 1, 1]).tolist(),
    holds=lambda gaps: min(gaps) > 0.03,
    scope="flip, 800 words of six letters, our base model after 10 steps of 8 lines, full tuning with AdamW at 3e-4; three seeds",
)
assert (counts[:, 0, 0] - counts[:, 0, 2]).max() < 0.06 and (counts[:, 1, 0] - counts[:, 1, 2]).min() > 0.15
assert all(more > 0.15 and more > 2 * few for few, more in skipped)

# %% [markdown]
# The loss is in the answers with two or more wrong letters. There a part of the wrong fourth letters go on from a skip (the cell prints how many): the third and fourth
# letters are gold's fourth and fifth. After one wrong letter this is rarer. A skipped letter moves those that follow, and a metric that scores by place counts each of
# them as an error. So part of the gap is the metric's; the rest isn't explained here.
#
# `flip` is also a mild case, since each letter can be read off the prompt. If an answer builds on its own earlier steps, a slip can cost more; that isn't tested here.

# %% [markdown]
# **Check.** Causality: a later token changes no earlier logit by more than rounding (0.00001); and one pass gives what step by step gives.

# %%
line = probes("story", 1, 0).ids
before = base(line)
for place in range(1, line.shape[1]):
    changed = line.clone()
    changed[0, place] = 70
    torch.testing.assert_close(base(changed)[0, :place], before[0, :place], rtol=0, atol=1e-5)
    assert (base(changed)[0, place:] - before[0, place:]).abs().max() > 0.1  # and from there on it does
cache = [None] * base.config.layers
steps = torch.cat([base(line[:, t : t + 1], torch.ones(1, t + 1), cache=cache) for t in range(line.shape[1])], dim=1)
torch.testing.assert_close(steps, before, rtol=0, atol=1e-3)

# %% [markdown]
# **The mistake**: no causal mask. The symptom is a teacher-forced loss near nothing with generations that are garbage, since each
# position may read its own answer.

# %%
generator, T = torch.Generator().manual_seed(0), 12
x = torch.randint(0, 20, (64, T), generator=generator)
table = torch.nn.Embedding(20, 20)


def peeking(shown):
    """Score each next token by what stands there: what attention without a mask learns first."""
    return table(F.pad(shown[:, 1:], (0, 1)))


def next_loss():
    return F.cross_entropy(peeking(x)[:, :-1].transpose(1, 2), x[:, 1:])


losses = train(table, lambda step: next_loss(), [{"params": table.parameters(), "lr": 0.3}], 60)
print(f"loss on random tokens {losses[-1]:.3f} nats; without peeking no model is below ln 20 = {math.log(20):.3f}")
assert losses[-1] < 0.3 * math.log(20)

# %% [markdown]
# **In practice** answers are judged by generating them. Training on the model's own prefixes was proposed as scheduled sampling
# (Bengio et al. 2015, arXiv:1506.03099).
#
# → [exercise 2.3](exercises.ipynb#2.3-Teacher-forcing) · graded:
# [p08, an answer's log-probability](../../source/p08_dpo_loss/p08_dpo_loss.ipynb)

# %% [markdown]
# ## 2.4 Label smoothing
#
# **Smoothing gives a little probability to every token. This raises the floor of the loss, and beyond a certain gap more confidence costs loss.**
#
# $$q = (1 - \epsilon)\, e_y + \frac{\epsilon}{V}, \qquad L = (1 - \epsilon)(-\log p_y) + \epsilon\, \tfrac1V \sum_v (-\log p_v), \qquad
# z_y - z_v = \ln\!\Big(\tfrac{V (1 - \epsilon)}{\epsilon} + 1\Big) \text{ at the optimum.}$$
#
# <details><summary>Why</summary>
#
# The loss is $\mathrm{CE}(q, p) = H(q) + D_\mathrm{KL}(q \Vert p)$, least at $p = q$, where the logit gap is $\ln(q_y / q_v)$. The
# gradient $p - q$ pushes back a model that is surer than $q$.
# </details>

# %% [markdown]
# **By hand**, with $V = 5$ and with a real vocabulary.

# %%
for V in (5, 32_000):
    q_true, q_other = 0.9 + 0.1 / V, 0.1 / V
    floor = -(q_true * math.log(q_true) + (V - 1) * q_other * math.log(q_other))
    gap = math.log(V * 0.9 / 0.1 + 1)
    assert abs(gap - math.log(q_true / q_other)) < 1e-9
    print(f"V = {V:>6}: floor {floor:.4f} nats, best gap {gap:.2f}")
z = torch.tensor([[2.0, 1.0, 0.0, -1.0, 0.5]])
print(
    f"logits (2, 1, 0, -1, .5): plain {F.cross_entropy(z, torch.tensor([0])):.4f}, smoothed {F.cross_entropy(z, torch.tensor([0]), label_smoothing=0.1):.4f}"
)

# %% [markdown]
# **Predict.** A small classifier of six classes trains for 300 steps on 400 labels, 10 % of which are drawn anew (one in six of those comes out right
# again). Which $\epsilon$ of 0, 0.1 and 0.4 gives the lowest loss on *clean* validation labels? The cell also tries what else could help: to stop after 40 steps, and
# to divide the finished network's logits by one *temperature*, fitted on 200 further labels of the same kind.

# %%
guess = None  # 0, 0.1 or 0.4

# %%
EPS = (0.0, 0.1, 0.4)


def classified(eps, seed, steps=300, share=0.1, apart=1.2):
    """Return clean loss, accuracy, and loss with a fitted temperature; a share of the labels is drawn anew."""
    generator = torch.Generator().manual_seed(seed)
    centres = apart * torch.randn(6, 10, generator=generator)
    y = torch.randint(0, 6, (1200,), generator=generator)
    x = centres[y] + torch.randn(1200, 10, generator=generator)
    anew = torch.rand(1200, generator=generator) <= share
    labels = torch.randint(0, 6, (1200,), generator=generator).where(anew, y)
    torch.manual_seed(seed)
    net = torch.nn.Sequential(torch.nn.Linear(10, 64), torch.nn.ReLU(), torch.nn.Linear(64, 6))
    groups = [{"params": net.parameters(), "lr": 1e-2}]
    train(net, lambda step: F.cross_entropy(net(x[:400]), labels[:400], label_smoothing=eps), groups, steps)
    with torch.no_grad():
        fit, out = net(x[400:]).split([200, 600])
    heat = min(np.geomspace(0.3, 30, 60).tolist(), key=lambda t: F.cross_entropy(fit / t, labels[400:600]).item())
    clean = y[600:]
    return (
        F.cross_entropy(out, clean).item(),
        (out.argmax(1) == clean).double().mean().item(),
        F.cross_entropy(out / heat, clean).item(),
    )


# %%
def over_seeds(*settings, **more):
    return np.array([classified(*settings, seed, **more) for seed in range(5)])


noisy, early = ({eps: over_seeds(eps, steps=steps) for eps in which} for steps, which in ((300, EPS), (40, EPS[:2])))
close = {eps: over_seeds(eps, share=0.0, apart=0.5) for eps in EPS[:2]}  # all labels right, classes that overlap
for name, runs in (("300 steps", noisy), ("40 steps", early), ("300 steps, all labels right, closer classes", close)):
    for eps, (loss, accurate, heated) in ((eps, values.mean(0)) for eps, values in runs.items()):
        print(f"{name}, e = {eps:g}: loss {loss:.2f}, with a temperature {heated:.2f}, accuracy {accurate:.2f}")
means = {eps: values[:, 0].mean() for eps, values in noisy.items()}
predicted("the smoothing with the lowest clean loss after 300 steps", guess, min(means, key=means.get))

# %% fold="picture"
# Draw the clean loss of each way
ways = {f"e = {eps:g}": values[:, 0] for eps, values in noisy.items()}
ways |= {"e = 0 and a temperature": noisy[0.0][:, 2], "e = 0, 40 steps": early[0.0][:, 0]}
bars(
    list(ways),
    {"10 % of the labels drawn anew": [float(v.mean()) for v in ways.values()]},
    spread={
        "10 % of the labels drawn anew": (
            [float(v.min()) for v in ways.values()],
            [float(v.max()) for v in ways.values()],
        )
    },
    title="After 300 steps smoothing helps; one temperature, or stopping at 40 steps, does as much",
    y_label="loss on clean labels, nats",
    alt="; ".join(f"{name}: {v.mean():.2f} nats" for name, v in ways.items())
    + "; means of five seeds, with their ranges.",
)

# %%
finding(
    "After 300 steps on 400 labels smoothing limits over-confidence",
    figure="clean validation loss without smoothing less that with 0.1, nats",
    measured=(noisy[0.0] - noisy[0.1])[:, 0].tolist(),
    null="the same training, stopped after 40 steps",
    control=(early[0.0] - early[0.1])[:, 0].tolist(),
    holds=lambda gains: min(gains) > 0.15,
    scope="six Gaussian classes, 10 % of the labels drawn anew, a network of 64 hidden units, 400 labels, Adam at 1e-2; five seeds",
)
assert (close[0.0] - close[0.1])[:, 0].min() > (noisy[0.0] - noisy[0.1])[:, 0].max()  # wrong labels aren't needed
assert (early[0.0] < noisy[0.1])[:, 0].all() and abs(noisy[0.0][:, 2] - noisy[0.1][:, 0]).mean() < 0.1

# %% [markdown]
# The network without smoothing is trained too long: it fits every label and is far too sure. Smoothing limits that, whatever causes it; where all labels are right but the
# classes overlap, it gains more still. Stopping early does better here, and one fitted temperature about as much, without any smoothing.

# %% [markdown]
# **Check.** Ours is torch's, and no model is below the floor.

# %%
rows = probes("add", 8, 0)
logits = base(rows.ids).cpu().double()
for eps in (0.0, 0.1, 0.3):
    theirs = F.cross_entropy(
        logits[:, :-1].transpose(1, 2), labels_of(rows.ids, rows.answer_mask)[:, 1:], label_smoothing=eps
    )
    assert torch.allclose(answer_only_loss(logits, rows.ids, rows.answer_mask, label_smoothing=eps), theirs)
    q_true, q_other = 1 - eps + eps / 128, eps / 128
    floor = -(q_true * math.log(q_true) + (127 * q_other * math.log(q_other) if eps else 0))
    assert theirs >= floor - 1e-6

# %% [markdown]
# **The mistake**: reading a smoothed loss as a plain one. It can't fall below its floor, so the symptom is a curve that is flat far above 0
# while accuracy is perfect. And it punishes confidence: our base model, which was trained without smoothing, stands far *above* the floor for being
# right and sure.

# %%
table = torch.nn.Embedding(128, 128)
tokens = torch.arange(128)
curve = train(
    table,
    lambda step: F.cross_entropy(table(tokens), tokens.flip(0), label_smoothing=0.1),
    [{"params": table.parameters(), "lr": 0.1}],
    400,
    clip=1e9,
)
q_true, q_other = 0.9 + 0.1 / 128, 0.1 / 128
floor = -(q_true * math.log(q_true) + 127 * q_other * math.log(q_other))
learned = (table(tokens).argmax(1) == tokens.flip(0)).double().mean().item()
smoothed, plain = (answer_only_loss(logits, rows.ids, rows.answer_mask, e).item() for e in (0.1, 0.0))
print(
    f"a table trained with smoothing 0.1: accuracy {learned:.2f}, loss {curve[0]:.2f} -> {curve[-1]:.4f}; floor {floor:.4f} nats"
)
print(
    f"base model on `add`: accuracy {accuracy(base, rows):.2f}, plain loss {plain:.4f}, smoothed at 0.1 {smoothed:.2f} nats"
)
assert learned == 1 and 0 <= curve[-1] - floor < 0.01  # at the floor, and nothing is left to learn
assert accuracy(base, rows) == 1.0 and plain < 0.1 and smoothed > floor + 0.5  # right and sure: above the floor

# %% [markdown]
# **In practice** LoRA's GPT-2 runs used 0.1 on E2E and WebNLG, and 0 on DART (Hu et al. 2021, arXiv:2106.09685, appendix D); language models are mostly tuned without, and log-probabilities for preference
# tuning need the plain ones. Müller et al. 2019 show what it does to representations (arXiv:1906.02629).
#
# → [exercise 2.4](exercises.ipynb#2.4-Label-smoothing); no graded problem asks for this

# %% [markdown]
# ## 2.5 Dataset mixture weights
#
# **A mixture gives each data set a share. A temperature moves the shares from proportional to size towards equal. The loss counts tokens, not lines.**
#
# $$L = \sum_k \alpha_k\, \mathbb E_{D_k}[\ell], \quad \alpha_k \ge 0,\ \sum_k \alpha_k = 1, \qquad
# \alpha_k = \frac{n_k^{1/\tau}}{\sum_j n_j^{1/\tau}} .$$
#
# <details><summary>Why sampling and weighting agree in the mean</summary>
#
# Drawing set $k$ with probability $\alpha_k$, or drawing with any $p_k > 0$ and weighing losses by $\alpha_k / p_k$, both have the
# expectation $\sum_k \alpha_k \mathbb E_{D_k}[\ell]$; their variances differ. With a token mean, a set of long answers weighs
# $\alpha_k \ell_k / \sum_j \alpha_j \ell_j$, $\ell_k$ being its mean length.
# </details>

# %% [markdown]
# **By hand**: three sets of 100,000, 10,000 and 1,000 examples, and 30,000 draws.

# %%
sizes = [100_000, 10_000, 1_000]
for tau in (1, 2, 100):
    shares = mixture_weights(sizes, tau)
    print(
        f"tau = {tau:>3}: shares {[round(s, 3) for s in shares]}, epochs {[round(s * 30_000 / n, 2) for s, n in zip(shares, sizes)]}"
    )
lengths = [50, 200, 10]
weights = [s * n for s, n in zip(mixture_weights(sizes, 1), lengths)]
print("tokens, at mean lengths 50, 200, 10:", [round(w / sum(weights), 3) for w in weights])
assert [round(s, 3) for s in mixture_weights(sizes, 2)] == [0.706, 0.223, 0.071]

# %% [markdown]
# **Duplicates are weights that nobody chose.** A line that stands $k$ times among $n$ is drawn with probability $k / n$: copies are a mixture weight. So count the copies
# before you choose a temperature. Removing the copies gives every line the same weight again. Whether that is better depends on why they are there.

# %%
pool = [("flip abc", "cba")] * 40 + [
    (f"flip {word}", word[::-1]) for word in ("sun", "tree", "lamp", "road", "fish", "door")
]
counts = Counter(pool)
shares = {prompt: count / len(pool) for (prompt, _), count in counts.items()}
print(
    f"{len(pool)} lines, {len(counts)} different ones; drawn shares: {[round(share, 3) for share in shares.values()]}; without copies {1 / len(counts):.3f} each"
)
assert math.isclose(sum(shares.values()), 1) and math.isclose(shares["flip abc"], 40 / 46)

# %% [markdown]
# **Predict.** `flip` is tuned at a careless rate with a share of old lines in every batch. The first cell shows what is kept without any. Which
# share of the old skills is kept with *5 %* old lines? In 40 steps of 16 lines that is about 32 old lines in all, three for each skill.

# %%
SHARES, kept, task = (0.0, 0.05, 0.2, 0.5), {}, {}


def mixed(share):
    """Tune on flip with a share of old lines, for three seeds; print and keep the accuracies."""
    runs = [
        fine_tune("full", "flip", rate=1e-3, rows=16, steps=40, replay=share, seed=seed, device=device)[1]
        for seed in range(3)
    ]
    kept[share], task[share] = [run.kept for run in runs], [run.quality for run in runs]
    return (
        f"{share:.0%} old lines: task {np.mean(task[share]):.2f}, kept {min(kept[share]):.2f} to {max(kept[share]):.2f}"
    )


print(mixed(0.0))
guess = None  # between 0 and 1

# %%
print(*(mixed(share) for share in SHARES[1:]), sep="\n")
predicted(
    "share of old skills kept with 5 % old lines",
    guess,
    np.mean(kept[0.05]),
    "The skills needn't be learned again, only held. A few lines do much, though many batches hold none of them.",
)

# %% fold="picture"
# Draw what is kept against the share of old lines
mean_kept = [float(np.mean(kept[s])) for s in SHARES]
lines(
    list(SHARES),
    {"old skills kept": mean_kept, "task": [float(np.mean(task[s])) for s in SHARES]},
    title=f"Old lines buy old skills: {mean_kept[0]:.0%} kept without, {mean_kept[-1]:.0%} with half a batch of them",
    x_label="share of old lines",
    y_label="accuracy",
    alt="; ".join(f"{s:.0%} old lines: kept {k:.2f}, task {np.mean(task[s]):.2f}" for s, k in zip(SHARES, mean_kept))
    + ".",
)

# %% [markdown]
# At 5 % a batch of 16 lines holds no old line with the chance $0.95^{16}$: four batches in ten. What a lower rate does without any old lines was recorded beside it.

# %%
slower = np.array(RUNS["rates"]["no old lines, 0.0003"])  # (seeds, task and kept)
print(f"a batch without old lines: {0.95**16:.0%}")
print(
    f"rate 0.0003, no old lines: task {slower[:, 0].mean():.2f}, kept {slower[:, 1].min():.2f} to {slower[:, 1].max():.2f}"
)
assert 0.4 < 0.95**16 < 0.5 and slower[:, 1].mean() > np.mean(kept[0.05]) and slower[:, 0].min() > 0.95

# %% [markdown]
# The task is learned as well, and more is kept than with 5 % of old lines at the careless rate. So lower the rate first.
#
# Half a batch of old lines also leaves half the lines of `flip`. So the control is a run with 8 lines of `flip` a step and no old ones: is it the old
# lines that keep the skills, or is it that less of the task was seen?

# %%
fewer = [fine_tune("full", "flip", rate=1e-3, rows=8, steps=40, seed=seed, device=device)[1].kept for seed in range(3)]
finding(
    "Old lines in the batch keep old skills",
    figure="share of old skills kept, with half a batch of old lines less without",
    measured=[more - none for more, none in zip(kept[0.5], kept[0.0])],
    null="as many lines of the task, without the old ones",
    control=[few - none for few, none in zip(fewer, kept[0.0])],
    holds=lambda gains: min(gains) > 0.3,
    scope="flip, our base model, full tuning with AdamW at 1e-3, 40 steps of 16 lines; three seeds",
)

# %% [markdown]
# **Without the old data.** Often nobody has the base model's training data. But the model itself is a source of such lines: start it with BOS alone, draw every token from
# its own distribution, and rehearse what it writes (self-synthesized rehearsal, Huang et al. 2024, arXiv:2403.01244, who prompt with examples). Our base writes whole
# lines of its skills.

# %%
print("written by the base model:", *(" -> ".join(pair) for pair in own_lines(base_model(), 6, seed=0)), sep="\n  ")
by_source = {source: np.array(runs) for source, runs in RUNS["rehearsal"].items()}  # (seeds, task and kept)
names = {"none": "no other lines", "own": "its own lines", "old": "old lines"}
for source, runs in by_source.items():
    print(f"{names[source]:>15}: task {runs[:, 0].mean():.2f}, kept {runs[:, 1].min():.2f} to {runs[:, 1].max():.2f}")
finding(
    "Lines that the base model writes itself keep old skills",
    figure="share of old skills kept, with 8 own lines a batch less without",
    measured=(by_source["own"][:, 1] - by_source["none"][:, 1]).tolist(),
    null="no other lines in both, with different seeds",
    control=(by_source["none"][:, 1] - np.roll(by_source["none"][:, 1], 1)).tolist(),
    holds=lambda gains: min(gains) > 0.3,
    scope="256 own lines a seed, our base model, full tuning on flip with AdamW at 1e-3, 40 steps of 8 lines of flip; three seeds",
)

# %% [markdown]
# Our base was trained on prompts too, so it can write them. A model that has learned answers alone needs prompts from elsewhere and writes the answers.
#
# **Quality.** What do wrong answers cost? In each run 1,000 lines of `flip` are drawn once, and each letter of their answers is replaced by a random one with the stated probability; training
# takes 60 steps of 16 lines.

# %%
by_wrong = {name: np.array(runs) for name, runs in RUNS["quality"].items()}  # (seeds, task and kept)
for name, runs in by_wrong.items():
    print(f"{name:>22}: task {runs[:, 0].mean():.2f}, old skills kept {runs[:, 1].min():.2f} to {runs[:, 1].max():.2f}")
clean, tenth = by_wrong["1000 lines, 0 wrong"], by_wrong["1000 lines, 0.1 wrong"]
assert abs(clean[:, 0] - tenth[:, 0]).max() < 0.1  # the task hardly shows it
finding(
    "Replacing a tenth of the answers' letters at random costs old skills while the task looks fine",
    figure="share of old skills kept, with right answers less with a tenth of the letters replaced",
    measured=(clean[:, 1] - tenth[:, 1]).tolist(),
    null="right answers in both, with different seeds",
    control=(clean[:, 1] - np.roll(clean[:, 1], 1)).tolist(),
    holds=lambda lost: min(lost) > 0.05,
    scope="1,000 lines of flip, our base model, full tuning with AdamW at 3e-4, 60 steps of 16 lines; six seeds",
)

# %% [markdown]
# The greedy answer is the likeliest letter, and nine right ones outvote one wrong one; so accuracy on the task is the wrong place to look for bad data. Why the skills suffer isn't tested
# here. A reading that fits: on wrong letters the loss stays high, so the gradients never become small and the weights keep moving.
#
# **Check.** Shares sum to 1, keep the order of sizes, and even out as the temperature rises.

# %% fold="checks"
# Shares sum to 1, fall with the size of the set, and come together
for tau in (1.0, 2.0, 5.0, 1e6):
    shares = mixture_weights(sizes, tau)
    assert abs(sum(shares) - 1) < 1e-12 and shares == sorted(shares, reverse=True)
assert max(mixture_weights(sizes, 1e6)) - 1 / 3 < 1e-4

# %% [markdown]
# **The mistake**: concatenating data sets and expecting each to count alike. The symptom is a small task that isn't learned.

# %%
order = np.random.default_rng(0).permutation(sum(sizes))[:2000]
smallest = float((order >= sizes[0] + sizes[1]).mean())
print(f"of 2,000 lines drawn from the concatenation {smallest:.2%} are of the smallest set, not {1 / 3:.0%}")
assert smallest < 0.03

# %% [markdown]
# **In practice** T5 capped and tempered its mixtures (Raffel et al. 2019, arXiv:1910.10683); past about four epochs, repeated data is
# worth less than fresh data (Muennighoff et al. 2023, arXiv:2305.16264).
#
# → [exercise 2.5](exercises.ipynb#2.5-Dataset-mixture-weights); no graded problem asks for this

# %% [markdown]
# ## On a real model: the template and the assistant's mask
#
# SmolLM2's own template, token by token, with its losses on a right answer. Skipped where the model isn't there (`python3 start.py
# model smollm2`).

# %%
from ftmath import smollm2
from ftmath.smollm import cache_folder

if any(cache_folder().glob("SmolLM2*.gguf")):
    model, tokenizer = smollm2()
    model.to(device)
    asked = tokenizer.chat("What is the capital of France?")
    said = [*tokenizer.encode("The capital of France is Paris."), 2]
    ids, mask = (torch.tensor([row], device=device) for row in (asked + said, [0] * len(asked) + [1] * len(said)))
    with torch.no_grad():
        logits = model(ids)
        nats = -token_logprobs(logits[:, :-1], ids[:, 1:])[0]
    print(f"{len(asked)} prompt tokens with the template, {len(said)} targets with its end")
    print(
        f"answer only {answer_only_loss(logits, ids, mask):.3f} nats/token, all tokens {nats.mean():.3f}; log p(answer) = {sequence_logprob(logits, ids, mask).item():.2f}"
    )
    assert answer_only_loss(logits, ids, mask) < nats.mean()
else:
    print("SmolLM2 isn't here; everything else in this part ran without it.")

# %% [markdown]
# ## What to keep
#
# | | statement | number to remember |
# | --- | --- | --- |
# | 2.1 | the answers *and their ends* are targets; a model knows the template and the turns that it was tuned with | one more target than letters, per answer |
# | 2.2 | one shift, one mean, and the paper says which; packing must change no loss | logits $t - 1$ against token $t$ |
# | 2.3 | gold prefixes give the exact likelihood | greedy exact match needs no decoding |
# | 2.4 | smoothing raises the floor | best gap $\ln(V(1-\epsilon)/\epsilon + 1)$ |
# | 2.5 | shares sum to 1, tokens count; old lines hold old skills, also such as the model writes itself | epochs $\alpha_k N / n_k$ |
