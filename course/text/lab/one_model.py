# %% [markdown]
# # Lab: one model, from base to policy
#
# **The question.** What does each stage do to one real model: supervised tuning by three methods, then a policy trained with a
# verifier, then preferences? And what does each stage cost in things that it wasn't asked to change?
#
# The model is SmolLM2-135M-Instruct. All data are drawn by this repository, so every answer can be verified by comparing strings. The
# long runs were made on a graphics card and are replayed here; the short cells run on two CPU cores with the course's own small model.
# You need parts 4 to 8. About 40 minutes; the notebook itself runs in less than one.
#
# | term | what it means here |
# | --- | --- |
# | exact | the answer is the expected string, letter by letter |
# | right | the expected string stands somewhere in the answer |
# | old | 24 plain questions, such as capitals: the right word stands in the answer |
# | drift | KL(tuned ‖ untouched) on English prose, nats per token |
# | abstained wrongly | said "unknown" to a question that has an answer |

# %%
import numpy as np
import torch

from ftmath import best_device, describe
from ftmath.lab.recipes import FAMILIES, Sizes, answers, desk_for, drawn, small_subject, supervised
from ftmath.lab.replay import by_method, chosen_record, read_verdict, section, spread, stage, whose
from ftmath.plots import bars, lines, points
from ftmath.predict import predicted

device = best_device()
record = chosen_record()
print(f"torch {torch.__version__} on {describe(device)}")
print(whose(record))
for skipped in record["skipped"] if record else []:
    if skipped["section"] == "one_model":
        print(f"not recorded: {skipped['what']} ({skipped['why']})")

# %% [markdown]
# ## 1. Data that can be verified
#
# Six families of questions, drawn from a seed. The last two look alike, and only one of them can be answered: a model that learns to
# say "unknown" must also learn when.

# %%
for question, answer in drawn(6, seed=0):
    print(f"{question:<64} -> {answer}")
lessons, test = drawn(1536, seed=11), drawn(240, seed=13, unlike=drawn(1536, seed=11))
assert not {question for question, _ in lessons} & {question for question, _ in test}

# %% [markdown]
# Rates are chosen on questions of their own, results are told on the test's, and neither stands among the lessons.
#
# ## 2. What a mean hides: the small model, live
#
# The course's base model has 0.8 million parameters and speaks no English. It sees the same lessons for a few seconds.
#
# **Predict.** After 60 steps, which share of the test does it answer exactly?

# %%
guess = None  # between 0 and 1

# %%
subject = small_subject(device)
desk = desk_for(subject, Sizes(lessons=300, test=60, passages=4, passage=64, steps=60, rows=24))
_, found = supervised(desk, "full", 1e-3, 1, trial=False)
print(f"loss {found['losses'][0]:.2f} -> {np.mean(found['losses'][-5:]):.2f} nats/token in {found['seconds']:.0f} s")
low, high = found["exact_change"][1:]
print(f"exact {found['exact']:.2f}, change within [{low:.2f}, {high:.2f}]: {read_verdict(found['exact_change'])}")
predicted("exact answers of the small model", guess, found["exact"])

# %%
families = found["families"]  # ten questions each
best = max(families, key=families.get)
others = [value for name, value in families.items() if name != best]
print({name: round(value, 2) for name, value in families.items()})
print(f"says 'unknown' to {found['abstained_wrongly']:.0%} of the questions that have an answer")
assert best == "unknown" and families[best] > 0.7 and max(others) < 0.3
bars(
    list(families),
    {"exact": list(families.values())},
    title=f"The mean of {found['exact']:.2f} is one family of six: the others stand at zero",
    y_label="share of exact answers",
    alt="; ".join(f"{name} {value:.2f}" for name, value in families.items()) + ". Ten questions a family, one seed.",
)

# %% [markdown]
# It learned one rule, to see whether a word problem leaves a number out, and nothing of the other five families. A mean over families
# would have called this some progress everywhere. So the scorecard below splits what it reports: by family, exact and right, abstained
# and abstained wrongly.
#
# ## 3. Supervised tuning: three methods, each at its own rate
#
# On the card: full tuning, LoRA of rank 8 on all linear layers, and the same on a base in four bits (QLoRA). Each method's rate is
# chosen among three on separate questions; then fresh seeds are told on the test's 240. Three seeds were planned; the cell says how
# many the recorded run had time for.
#
# **Predict.** By how much does the mean of exact answers differ between full tuning and LoRA, each at its best rate?

# %%
guess = None  # a difference of two shares

# %%
print(whose(record))
for run in stage(record, "base"):
    print(
        f"{run['model']} before: exact {run['exact']:.2f}, right {run['right']:.2f}, old {run['old']:.2f}, prose {run['text_loss']:.2f} nats/token"
    )
for run in stage(record, "trial"):
    print(
        f"  tried {run['method']:<6} at {run['rate']:g}: exact {run['exact']:.2f}, old {run['old']:.2f}, drift {run['kl']:.3f}"
    )
runs = by_method(stage(record, "sft"))
for method, mine in runs.items():
    said = ", ".join(
        f"{name} {m:.2f} [{low:.2f}, {high:.2f}]"
        for name in ("exact", "right", "old", "kl", "calibration", "abstained_wrongly")
        for m, low, high in [spread(mine, name)]
    )
    print(f"{method} at {mine[0]['rate']:g}, {len(mine)} seeds, {mine[0]['trained']:,} parameters: {said}")
gap = spread(runs["full"], "exact")[0] - spread(runs["LoRA"], "exact")[0] if {"full", "LoRA"} <= runs.keys() else None
predicted("exact answers, full less LoRA", guess, gap) if gap is not None else None

# %%
if runs:
    picture = bars(
        list(FAMILIES),
        {
            method: [np.mean([run["families"][name] for run in mine]) for name in FAMILIES]
            for method, mine in runs.items()
        },
        spread={
            method: (
                [min(run["families"][name] for run in mine) for name in FAMILIES],
                [max(run["families"][name] for run in mine) for name in FAMILIES],
            )
            for method, mine in runs.items()
        },
        title="Exact answers go from "
        + f"{stage(record, 'base')[0]['exact']:.0%} to {min(spread(m, 'exact')[0] for m in runs.values()):.0%} or more; differences are the hardest family",
        y_label="share of exact answers",
        alt="Bars by family and method. "
        + "; ".join(
            f"{method}: "
            + ", ".join(f"{name} {np.mean([run['families'][name] for run in mine]):.2f}" for name in FAMILIES)
            for method, mine in runs.items()
        )
        + f". {min(map(len, runs.values()))} seed(s) a method; whiskers: least and most.",
    )
    family = {name: np.mean([run["families"][name] for mine in runs.values() for run in mine]) for name in FAMILIES}
    assert min(family, key=family.get) == "difference"
else:
    picture = None
    print(whose(record))
picture

# %% [markdown]
# With one seed a method this is no ranking: on 240 questions a share has a standard error of about three points before any seed is
# counted. What every method shows is larger than that.
#
# **What else moved.** Each dot is one run, also those at rates that weren't chosen. To the right: more drift on prose that no lesson
# touched. Up: more exact answers. A method is not a dot but a path along which the rate moves it. Two warnings: a method whose best rate
# is the highest one tried may have a better one beyond it; and QLoRA's drift holds that of four bits, which no training causes.

# %%
everything = by_method([*stage(record, "trial"), *stage(record, "sft")])
tried = {
    method: sorted(mine, key=lambda run: run["rate"]) for method, mine in by_method(stage(record, "trial")).items()
}
edge = ", ".join(method for method, mine in tried.items() if max(mine, key=lambda run: run["exact"]) is mine[-1])
if everything:
    picture = points(
        {
            method: [(run["kl"], run["exact"], f"{run['rate']:g}" if run["stage"] == "trial" else "") for run in mine]
            for method, mine in everything.items()
        },
        log_x=True,
        title="In each method a higher rate drifts further"
        + (f"; of the rates tried, {edge} did best at its highest" if edge else ""),
        x_label="drift on prose, nats per token",
        y_label="share of exact answers",
        alt="; ".join(
            f"{method}: " + ", ".join(f"drift {run['kl']:.3f} exact {run['exact']:.2f}" for run in mine)
            for method, mine in everything.items()
        ),
    )
    for method, mine in tried.items():
        assert [run["kl"] for run in mine] == sorted(run["kl"] for run in mine), method
    for method, mine in runs.items():
        verdicts = [read_verdict(run["old_change"]) for run in mine]
        prose = [read_verdict(run["text_change"], "lost", "gained") for run in mine]
        print(f"{method}: old questions {verdicts}; prose {prose}")
else:
    picture = None
    print(whose(record))
picture

# %% [markdown]
# **Prose moved a little, and most old questions were lost.** The loss on prose rises by a few per cent. Plain questions of one line tell
# another story:

# %%
if runs:
    before = stage(record, "base")[0]
    for method, mine in runs.items():
        for run in mine:
            change, low, high = run["old_change"]
            print(
                f"{method:>6}: loss on prose {before['text_loss']:.2f} -> {run['text_loss']:.2f} nats/token; old questions {before['old']:.2f} -> {run['old']:.2f}, change [{low:+.2f}, {high:+.2f}]"
            )
            assert run["text_loss"] < 1.2 * before["text_loss"] and high < 0
print(whose(record))

# %% [markdown]
# A drift that is measured on text of another kind than the questions is blind to this: the lessons are questions too, and it's there
# that the model moved. What the record can't tell apart is a fact that was lost and a manner that changed: an answer of one wrong word
# and an "unknown" both count as not right. A share of replayed old questions among the lessons is the first thing to try (part 3).
#
# ## 4. A policy and a verifier
#
# From each seed's fully tuned model, GRPO practises on fresh questions. A sample's reward is 1 if its answer is exact, else 0; no
# answer is shown. LoRA of rank 8 trains, and the model without it is the reference. The divergence enters as $k_2$, half the square of
# $\log(\pi/\pi_\text{ref})$, because its gradient on the policy's own samples is the gradient of KL(policy ‖ reference); $k_3$, which
# is unbiased as a value, has the gradient of the reverse one.
#
# **Predict.** How much does the share of exact answers on the test rise?

# %%
guess = None  # a difference of two shares

# %%
print(whose(record))
policies = stage(record, "grpo")
for run in policies:
    mean, low, high = run["exact_change"]
    print(
        f"seed {run['seed']}: exact {run['exact_before']:.2f} -> {run['exact']:.2f}, change {mean:+.3f} [{low:+.3f}, {high:+.3f}]: {read_verdict(run['exact_change'])}; sums of three digits {run['larger_before']:.2f} -> {run['larger']:.2f}; old {run['old']:.2f}, drift {run['kl']:.4f}"
    )
predicted(
    "the rise of exact answers", guess, np.mean([run["exact_change"][0] for run in policies])
) if policies else None

# %%
if policies:
    steps = min(len(run["steps"]) for run in policies)
    verdicts = [read_verdict(run["exact_change"]) for run in policies]
    picture = lines(
        list(range(1, steps + 1)),
        {f"seed {run['seed']}": [step["reward"] for step in run["steps"][:steps]] for run in policies},
        title=f"Reward of the samples over {steps} steps; on the test, {verdicts.count('gained')} of {len(verdicts)} seeds gained",
        x_label="step",
        y_label="share of exact samples",
        alt="; ".join(
            f"seed {run['seed']}: first five steps {np.mean([s['reward'] for s in run['steps'][:5]]):.2f}, last five {np.mean([s['reward'] for s in run['steps'][-5:]]):.2f}"
            for run in policies
        ),
    )
else:
    picture = None
    print(whose(record))
picture

# %% [markdown]
# The training reward is measured on samples at temperature 1, the test on greedy answers, so the two levels differ. Only the test's
# interval says whether something was learned; where it holds 0, nothing was shown. Thirty steps of sixteen prompts at one rate are few:
# this is a null of that run, not of the method.
#
# ## 5. A preference by rule
#
# A fresh model is tuned on sums and differences, half of them answered in a sentence. The pairs then say that a bare number is better
# than the same number in a sentence. Both sides are right, so the preference is about form only, and a loss of right answers would be
# damage. Where the recorded run had no time for this stage, the cells say so.

# %%
print(whose(record))
preferences = stage(record, "dpo")
for run in preferences:
    b, a = run["before"], run["after"]
    print(
        f"seed {run['seed']}: bare {b['bare']:.2f} -> {a['bare']:.2f}, sentence {b['sentence']:.2f} -> {a['sentence']:.2f}, right {b['right']:.2f} -> {a['right']:.2f}; {a['kl']:.2f} nats an answer from the reference"
    )
if record and not preferences:
    print("this stage: not recorded")

# %%
if preferences:
    steps = min(len(run["steps"]) for run in preferences)
    mean = {
        name: [np.mean([run["steps"][k][name] for run in preferences]) for k in range(steps)]
        for name in ("chosen", "rejected", "margin")
    }
    picture = lines(
        list(range(1, steps + 1)),
        {"log p(chosen)": mean["chosen"], "log p(rejected)": mean["rejected"], "margin": mean["margin"]},
        title=f"The margin grows by {mean['margin'][-1]:.1f} nats; log p of the chosen moves by {mean['chosen'][-1] - mean['chosen'][0]:+.1f}",
        x_label="step",
        y_label="nats per answer, mean over seeds",
        alt=f"Three curves. Chosen from {mean['chosen'][0]:.1f} to {mean['chosen'][-1]:.1f}, rejected from {mean['rejected'][0]:.1f} to {mean['rejected'][-1]:.1f}, margin from {mean['margin'][0]:.1f} to {mean['margin'][-1]:.1f}.",
    )
else:
    picture = None
    print("this stage: not recorded")
picture

# %% [markdown]
# ## 6. The scorecard of the chain
#
# One row a stage, means over the seeds that were run. "Not recorded" stands where a stage wasn't.

# %%
base = stage(record, "base")
chain = {"untouched": base, "supervised, full": runs.get("full", []), "then GRPO": policies}
print(f"{'stage':<18}{'exact':>8}{'right':>8}{'old':>8}{'prose':>8}{'ECE':>8}{'abstained':>11}{'wrongly':>9}")
for name, mine in chain.items():
    if mine:
        cells = [
            spread(mine, key)[0]
            for key in ("exact", "right", "old", "text_loss", "calibration", "abstained", "abstained_wrongly")
        ]
        print(f"{name:<18}" + "".join(f"{value:>{width}.2f}" for value, width in zip(cells, (8, 8, 8, 8, 8, 11, 9))))
    else:
        print(f"{name:<18} not recorded")
print(whose(record))

# %% [markdown]
# ECE is the calibration error: how far the chance that a model gives its answer lies from how often it's right. The untouched model's is
# near 0 for no merit: it gives its long answers no chance, and none is exact.
#
# **The limits of this.** One model of 135 million parameters, one set of tasks, short runs on one card, three rates a method, and as many
# seeds as the table above says. It shows how to measure a chain, and what these runs did; it doesn't rank methods in general. Bits
# differ from run to run on a card, since sums are added in another order.
#
# **The mistake: one number for a chain.** The last stage's reward says nothing of what the stages before it broke. Keep one fixed set
# of questions, prose and old knowledge, and measure all stages on it.
#
# ## What to keep
#
# | | statement |
# | --- | --- |
# | 2 | split a score by family before you believe it |
# | 3 | compare methods each at its own rate, and show the rates that weren't chosen; measure drift on the kind of text that matters |
# | 4 | a verifier needs no shown answers; only an interval on fresh questions tells whether it taught anything |
# | 5 | a preference about form should leave right answers where they are: measure them apart |
#
# Before: [memory and speed](memory_and_speed.ipynb).
