# %% [markdown]
# # Lab: memory and speed
#
# **The claim.** The peak memory of a training step can be computed before the step runs, to within five per cent, from the shape of
# the model and the batch. Its speed can't be computed as well: how fast the machine multiplies, copies and starts kernels gives a
# floor, and the recorded steps took up to several times that.
#
# You need part 6. In the lab you predict first, then look at a measurement. On a machine without a graphics card the notebook counts
# bytes on tensors that have only a shape, and replays numbers that were recorded on a real card; it always says which of the two you
# see. About 40 minutes; the notebook itself runs in less than one.
#
# | symbol | what it is | unit |
# | --- | --- | --- |
# | $N$ | tokens in a batch, padding included | a number |
# | $V, d, f, L$ | vocabulary, width, MLP width, blocks | numbers |
# | $P, P_\text{train}$ | parameters, and those that train | numbers |
# | $a$ | bytes that a block keeps for the backward pass, per token | bytes |

# %%
import inspect

import torch

from ftmath import best_device, describe
from ftmath.lab.forms import SHAPES, Setup, largest_batch, loss_bytes, predicted, step_flops
from ftmath.lab.ladder import predicted_seconds, rungs
from ftmath.lab.meters import thinned
from ftmath.lab.replay import chosen_record, measured_rows, section, whose
from ftmath.lab.steps import plain_loss
from ftmath.lab.sweep import counted
from ftmath.memory import GIB, MIB
from ftmath.plots import bars, lines, points
from ftmath.predict import predicted as compare
from ftmath.widgets import timeline_explorer

record = chosen_record()
print(f"torch {torch.__version__} on {describe(best_device())}")
print(whose(record))

# %% [markdown]
# ## 1. The logits are a term of their own
#
# Part 6 adds four terms: weights, gradients, optimizer state and the activations of the blocks. One more belongs to every language
# model. The last layer gives $N \times V$ logits, and the usual loss copies them:

# %%
print(inspect.getsource(plain_loss))

# %% [markdown]
# The logits are in 16 bits (2 bytes each). `.float()` makes a copy in 32 bits (4 bytes), and `cross_entropy` keeps the
# log-probabilities (4 bytes): ten bytes a logit in the forward pass. In the backward pass three copies in 32 bits are alive at once:
# the log-probabilities, the gradient that reaches them and the gradient that leaves them. So the loss holds
#
# $$M_\text{loss} = 12\, N V \ \text{bytes}.$$
#
# **Predict.** SmolLM2-135M ($V = 49{,}152$) is tuned in full on 8 rows of 1,024 tokens. Which share of the step's peak do the copies of
# the logits take?

# %%
guess = None  # a share between 0 and 1

# %%
peak = predicted(Setup("135M", batch=8))
print({name: f"{size / GIB:.2f} GiB" for name, size in peak.terms.items()}, f"in all {peak.total / GIB:.2f} GiB")
assert peak.terms["logits"] == loss_bytes(8 * 1024, 49_152) == 12 * 8 * 1024 * 49_152
compare("the logits' share of the peak", guess, peak.terms["logits"] / peak.total)

# %%
methods = {"full": "full", "LoRA": "LoRA", "QLoRA": "QLoRA"}
terms = {name: predicted(Setup("135M", method, batch=8)).terms for name, method in methods.items()}
kinds = ("weights", "optimizer", "activations", "logits")
assert all(found["logits"] > 5 * (found["weights"] + found["optimizer"]) for found in terms.values())
bars(
    list(terms),
    {kind: [found[kind] / GIB for found in terms.values()] for kind in kinds},
    title="A small model with a large vocabulary: the logits weigh more than weights and optimizer together",
    y_label="GiB at the peak, by the form",
    alt="SmolLM2-135M, 8 rows of 1,024 tokens. "
    + "; ".join(f"{name}: " + ", ".join(f"{k} {v[k] / GIB:.2f}" for k in kinds) for name, v in terms.items())
    + " GiB.",
)

# %% [markdown]
# LoRA and QLoRA save little here, because neither touches the two large terms.
#
# ## 2. A peak is a moment
#
# Not all terms are there at the same time. Gradients of weights appear during the backward pass, while activations are freed. So the
# form looks at six moments and takes the largest. Here is the library's own text of it:

# %%
print(inspect.getdoc(predicted))

# %% [markdown]
# **Check without a card.** We run a real step on tensors that have a shape and no numbers, and count the bytes of every tensor that is
# alive after each operation. Nothing is simulated about *which* tensors exist: it is torch's own autograd. What it can't see is memory
# that a kernel takes for itself while it runs. And watching changes one thing: autograd adds two gradients in place only where nothing
# looks on, which `watched=True` accounts for.

# %%
checks = [
    Setup("small", batch=2, time=128),
    Setup("small", batch=2, time=128, checkpointing=True),
    Setup("small", batch=2, time=128, chunks=8),
    Setup("small", "LoRA", batch=2, time=128),
    Setup("small", "LoRA", "dpo", batch=1, time=128),
    Setup("small", "QLoRA", batch=2, time=128),
    Setup("135M", batch=4),
]
counts = {setup.name: counted(setup) for setup in checks}
for setup in checks:
    form, count = predicted(setup, watched=True), counts[setup.name].peak
    print(
        f"{setup.name:<42} form {form.total / MIB:8.1f} MiB, counted {count / MIB:8.1f} MiB ({form.total / count - 1:+.2%}), at: {form.moment}"
    )
    assert abs(form.total / count - 1) < 0.01

# %% [markdown]
# **Move through a step.** Four ways to compute the same gradient. The plain one climbs through the forward pass and has its peak at the
# loss; checkpointing keeps the climb flat; the chunked loss cuts the peak.

# %%
courses = {}
for name, change in {
    "plain": {},
    "chunked loss": {"chunks": 8},
    "checkpointed": {"checkpointing": True},
    "checkpointed, chunked": {"checkpointing": True, "chunks": 8},
}.items():
    alive = counted(Setup("small", batch=2, time=128, **change))
    courses[name] = thinned(alive.course, alive.marks, points=120)
recorded = {
    name: thinned(found["bytes"], found["marks"], points=120)
    for name, found in zip(courses, section(record, "timeline"))
}
print("counted on this machine, a toy shape" if not recorded else f"SmolLM2-135M, 4 x 1,024 tokens. {whose(record)}")
shown = recorded if len(recorded) == len(courses) else courses
timeline_explorer(shown)

# %%
tops = {name: max(course["bytes"]) / MIB for name, course in shown.items()}
assert tops["checkpointed, chunked"] < min(tops["checkpointed"], tops["chunked loss"]) < tops["plain"]
lines(
    [100 * place / 119 for place in range(120)],
    {
        name: [
            course["bytes"][min(len(course["bytes"]) - 1, place * len(course["bytes"]) // 120)] / MIB
            for place in range(120)
        ]
        for name, course in shown.items()
    },
    title=f"Checkpoints and a chunked loss need each other: {tops['plain']:,.0f} -> {tops['checkpointed, chunked']:,.0f} MiB only with both",
    x_label="share of the step's events, %",
    y_label="memory held, MiB",
    alt="Four curves of memory over one step. Largest values: "
    + ", ".join(f"{name} {value:,.0f} MiB" for name, value in tops.items())
    + ".",
)

# %% [markdown]
# ## 3. On a card: predicted and measured
#
# The same steps on a graphics card, measured with the allocator's own peak (`max_memory_allocated` after
# `reset_peak_memory_stats`). Each is the second step, when Adam's moments exist.
#
# **Predict.** What is the largest error of the form over all the steps that were measured?

# %%
guess = None  # per cent

# %%
rows = measured_rows(record)
print(whose(record))
for row in rows:
    print(
        f"{row['name']:<43} form {row['predicted'] / MIB:>7,.0f} MiB, measured {row['measured']['allocated'] / MIB:>7,.0f} MiB: {row['error']:+.1%}, with workspace {row['error_with']:+.1%}"
    )
worst = max((abs(row["error"]) for row in rows), default=None)
worst_with = max((abs(row["error_with"]) for row in rows), default=None)
if rows:
    above = [row for row in rows if abs(row["error"]) > 0.05]
    print(
        f"alone: at most {worst:.1%}, above 5 % in {len(above)} of {len(rows)}, with peaks below {max((row['measured']['allocated'] for row in above), default=0) / GIB:.1f} GiB; with workspace: at most {worst_with:.1%}"
    )
    assert worst_with < 0.05 and all(row["measured"]["allocated"] < 2 * GIB for row in above)
compare("the largest error in per cent", guess, 100 * worst) if rows else None

# %%
if rows:
    shapes = dict.fromkeys(row["setup"]["shape"] for row in rows)
    picture = points(
        {
            shape: [
                (row["measured"]["allocated"] / GIB, row["predicted"] / GIB, "")
                for row in rows
                if row["setup"]["shape"] == shape
            ]
            for shape in shapes
        },
        curve=("equal", [1, 80], [1, 80]),
        log_x=True,
        title=f"{len(rows)} steps from {min(r['predicted'] for r in rows) / GIB:.1f} to {max(r['predicted'] for r in rows) / GIB:.0f} GiB: off by at most {worst:.1%}, {worst_with:.1%} with workspace",
        x_label=f"measured peak on {record['card']}, GiB",
        y_label="predicted peak, GiB",
        alt=f"{len(rows)} dots along the diagonal, of the shapes {', '.join(shapes)}; the largest relative distance is {worst:.1%}.",
    )
    picture.figure.axes[0].set_yscale("log")
else:
    picture = None
    print(whose(record))
picture

# %% [markdown]
# **What is left over.** Three things come on top of the form, and each has its own counter. *Workspace*: the matrix library keeps
# buffers that are no tensors of ours; they're there before a step begins, and weigh the same for a small model as for a large one.
# (NVIDIA advises 32 MiB for each of the library's handles on cards of this kind, and a step uses two threads, the caller's and
# autograd's. A sum of 64 MiB agrees with that; it doesn't prove it.) *Rounding*: the allocator hands out blocks, so it holds a little
# more than was asked for. *Fragments*: it takes more from the card than it hands out, since holes remain between blocks.

# %%
if rows:
    for name in ("workspace", "rounding", "fragments"):
        values = sorted(row[name] / MIB for row in rows)
        print(f"{name:>9}: {values[0]:,.0f} to {values[-1]:,.0f} MiB, median {values[len(values) // 2]:,.0f}")
    share = max(row["fragments"] / row["measured"]["allocated"] for row in rows)
    print(f"the allocator takes up to {share:.0%} more from the card than it hands out")
    assert max(row["workspace"] for row in rows) < 100 * MIB
else:
    print(whose(record))

# %% [markdown]
# **What the card corrected.** Where an error stays after the workspace is added, the form had a mistake. In the record that is one
# step, full tuning of 1.5B with checkpoints and a chunked loss: the form expected three gradients of the tied embedding at once, as
# the count sees them. The card held two, because nothing watched and autograd added in place. Today's form says two. Its error below
# is *after* the fact; the recorded predictions above stay as they were made.

# %%
if rows:
    today = [
        (predicted(Setup(**row["setup"]), copied=row.get("copied", True)).total + row["workspace"])
        / row["measured"]["requested"]
        - 1
        for row in rows
    ]
    print(f"today's form with the workspace, against the bytes requested: {min(today):+.2%} to {max(today):+.2%}")
else:
    print(whose(record))

# %% [markdown]
# ## 4. Which batch fits on which card?
#
# The form answers by bisection. A card of so many GB can't give all of it: one GiB is set aside for the driver, and a twentieth for
# workspace and fragments. Rows of 1,024 tokens, blocks checkpointed.

# %%
SIZES = (6, 8, 12, 16, 24, 40, 80)


def rows_that_fit(setup, size):
    return largest_batch(setup, 0.95 * (size - 1) * GIB)


print(f"{'rows of 1,024 tokens on a card of':<34}" + "".join(f"{size:>6} GB" for size in SIZES))
table = {}
for shape in ("135M", "0.5B", "1.5B", "7B"):
    for method in ("full", "LoRA", "QLoRA"):
        for chunks in (1, 8):
            setup = Setup(shape, method, checkpointing=True, chunks=chunks)
            table[shape, method, chunks] = [rows_that_fit(setup, size) for size in SIZES]
            name = f"{shape} {method}, {'chunked' if chunks > 1 else 'plain'} loss"
            print(f"{name:<34}" + "".join(f"{most or '-':>9}" for most in table[shape, method, chunks]))
assert table["7B", "full", 8][:6] == [0] * 6 and table["7B", "full", 8][6] > 0 and table["7B", "QLoRA", 8][1] > 0

# %% [markdown]
# **Checked on a card** that was told to be smaller. Two batches each time: the one that the table's rule allows, and one a tenth larger
# than the card could hold without any reserve.

# %%
fits = section(record, "fits")
for found in fits:
    says = {int(batch): "runs" if ok else "out of memory" for batch, ok in found["runs"].items()}
    print(f"{found['setup']['shape']} {found['setup']['method']} on {found['size']} GB, rows: {says}")
if fits:
    small = sum(found["runs"][str(found["most"])] for found in fits)
    large = sum(found["runs"][str(found["more"])] for found in fits)
    print(f"of the batches that should fit, {small} of {len(fits)} ran; of those that shouldn't, {large} did")
print(whose(record))

# %% [markdown]
# So the rule isn't safe. The form is right about tensors, but a card's limit is on what the allocator *takes*, and it takes more than it
# hands out. Read the table as an upper end, and start a row or two below it.

# %% [markdown]
# ## 5. Speed: three ceilings give a floor
#
# A step is a list of matrix products, and of passes over memory between them. Products can't be faster than the card multiplies; the
# rest can't be faster than it copies; and the processor that starts thousands of small kernels can be slower than both. The sum of the
# first two, or the third if that is longer, estimates a floor; passes over memory are only counted roughly. The model FLOPs of a step
# are counted by formula:
#
# $$\text{FLOPs} = 6\, P_\text{mat} N + 6\, L\, h\, d_h\, T\, N .$$
#
# $P_\text{mat}$ are the weights of matrices (embeddings that are only looked up don't count, the head does), $h\,d_h$ is the width of
# all heads, and $T$ the length of a row: causal attention sees half of it on average. LoRA needs 4 in place of the first 6. Operations
# that are done twice (checkpoints) don't count: the share of a card's peak is about useful work.

# %%
flops = step_flops(SHAPES["135M"], 8 * 1024, 1024)
print(f"SmolLM2-135M, 8 x 1,024 tokens: {flops / 1e12:.2f} TFLOP a step")
for found in section(record, "ceilings"):
    print(
        f"products: fp32 {found['fp32'] / 1e12:.0f}, tf32 {found['tf32'] / 1e12:.0f}, bf16 {found['bf16'] / 1e12:.0f} TFLOP/s; copies {found['copy'] / 1e12:.2f} TB/s; a kernel's start {found['launch'] * 1e6:.1f} microseconds"
    )
print(whose(record))

# %% [markdown]
# **Predict.** The ladder starts with a textbook step in 32 bits and ends with compiled blocks and packed rows. By which factor do the
# useful tokens a second rise from the first rung to the last, for SmolLM2-135M?

# %%
guess = None  # a factor


# %%
def bound(parts):
    """Return what takes most of a predicted time: the starts of kernels where the device waits for them, else a part."""
    if parts["launches"] >= parts["total"]:
        return "launches"
    return max((name for name in parts if name not in ("total", "launches")), key=parts.get)


speeds = section(record, "speed")
for shape in dict.fromkeys(found["shape"] for found in speeds):
    print(f"{shape}: floor and measured milliseconds, useful tokens a second, share of the peak")
    for found in (one for one in speeds if one["shape"] == shape):
        print(
            f"  {found['rung']['name']:<18} {found['predicted']['total'] * 1e3:>8.1f} {found['seconds'] * 1e3:>8.1f} ms {found['tokens_per_second']:>10,.0f}  {found['share']:>6.1%}   floor set by {bound(found['predicted'])}"
        )
ladder = [found for found in speeds if found["shape"] == "135M" and not found["rung"]["narrow"]]
factor = ladder[-1]["tokens_per_second"] / ladder[0]["tokens_per_second"] if len(ladder) > 1 else None
if speeds:
    times = [found["seconds"] / found["predicted"]["total"] for found in speeds]
    print(f"measured over floor: {min(times):.1f} to {max(times):.1f}")
    assert min(times) > 1
print(whose(record))
compare("tokens a second, last rung over first", guess, factor) if factor else None

# %%
if len(ladder) > 1:
    picture = bars(
        [found["rung"]["name"] for found in ladder],
        {
            "at the floor": [found["real_tokens"] / found["predicted"]["total"] / 1e3 for found in ladder],
            "measured": [found["tokens_per_second"] / 1e3 for found in ladder],
        },
        title=f"From {ladder[0]['tokens_per_second']:,.0f} to {ladder[-1]['tokens_per_second']:,.0f} useful tokens a second: a factor of {factor:.1f}",
        y_label=f"1,000 tokens a second, {record['card']}",
        alt="Bars for each rung, at the floor and measured: "
        + "; ".join(
            f"{found['rung']['name']} {found['real_tokens'] / found['predicted']['total'] / 1e3:.0f} and {found['tokens_per_second'] / 1e3:.0f}"
            for found in ladder
        )
        + " thousand tokens a second.",
    )
else:
    picture = None
    print(whose(record))
picture

# %% [markdown]
# **Why so far above the floor?** A kernel's start was timed in the barest loop there is. A step starts its kernels through modules,
# autograd and the optimizer, and each of these costs the processor time. Divide the measured time by the number of starts:

# %%
for found in speeds:
    if not found["rung"]["compiled"]:
        launch = section(record, "ceilings")[0]["launch"]
        starts = found["predicted"]["launches"] / launch
        print(
            f"{found['shape']:>4} {found['rung']['name']:<18} {starts:6,.0f} starts assumed, {found['seconds'] / starts * 1e6:5.0f} microseconds each; {launch * 1e6:.0f} in the bare loop"
        )
seconds = {(found["shape"], found["rung"]["name"]): found["seconds"] for found in speeds}
if speeds:
    dearer = seconds["135M", "bf16, checkpointed"] / seconds["135M", "bf16 weights"]
    print(f"checkpoints cost {dearer - 1:+.0%} for the 135M shape; by operations they would cost a third")
    assert dearer > 4 / 3
print(whose(record))

# %% [markdown]
# A step of these sizes on this machine seems to wait for its processor more than for its card: shares of the peak are low, and
# checkpoints cost more than their operations do. A profile would settle it; none was recorded. With another processor or a larger
# batch the order of the rungs can change. This is one machine and two shapes.
#
# The rungs, in words: *tf32* rounds the inputs of a product to 10 bits of fraction; *autocast* computes products in bfloat16 and keeps
# weights in 32 bits; *fused attention* never writes the $T \times T$ scores; a *fused optimizer* updates all tensors in few kernels; a
# *chunked loss* costs one more product with the head and saves memory, so it isn't there for speed; *compiled* blocks join the small
# operations between products; *packed* rows hold no padding. Packing here lets a line see the lines before it in its row; masking that
# out needs an attention kernel that knows where lines end.
#
# **Without a card**, the floor alone, for a card whose ceilings you choose. These are round numbers to play with, not measurements.

# %%
ceilings = {"fp32": 50e12, "tf32": 380e12, "bf16": 700e12, "copy": 3.0e12, "launch": 5e-6}
for rung in rungs():
    parts = predicted_seconds(rung, SHAPES["135M"], 8, 1024, ceilings)
    print(f"{rung.name:<18} at least {parts['total'] * 1e3:7.1f} ms, set by {bound(parts)}")

# %% [markdown]
# ## 6. Beside other libraries
#
# The same shape and batch in one run: our decoder, transformers with peft's LoRA, and transformers with Liger's fused kernels. A
# library that wasn't there is named as not installed.

# %%
for found in section(record, "peers"):
    size = f", peak {found['peak']['allocated'] / GIB:.2f} GiB" if found["peak"] else ""
    print(f"{found['name']:<28} {found['seconds'] * 1e3:7.1f} ms, {found['tokens_per_second']:>10,.0f} tokens/s{size}")
for skipped in record["skipped"] if record else []:
    if skipped["section"] == "peers":
        print(f"not measured: {skipped['what']} ({skipped['why']})")
print(whose(record))

# %% [markdown]
# **The mistake: budgeting without the logits.** A QLoRA run of a 1.5B model with a vocabulary of 151,936 and long rows seems to fit on a
# small card, because blocks are checkpointed and weights are in four bits. Its symptom: out of memory at the first loss, not in a block.

# %%
long = Setup("1.5B", "QLoRA", batch=1, time=8192, checkpointing=True)
whole = predicted(long)
without = whole.total - whole.terms["logits"]
print(
    f"without the logits {without / GIB:.1f} GiB, with them {whole.total / GIB:.1f} GiB; chunked {predicted(Setup('1.5B', 'QLoRA', batch=1, time=8192, checkpointing=True, chunks=32)).total / GIB:.1f} GiB"
)
assert without < 6 * GIB and whole.total > 12 * GIB

# %% [markdown]
# ## What to keep
#
# | | statement | number to remember |
# | --- | --- | --- |
# | 1 | the plain loss holds three copies of the logits in 32 bits | 12 bytes a logit |
# | 2 | a peak is the largest of a few moments, not the sum of all terms | six moments |
# | 3 | what the form leaves out is workspace, rounding and fragments | 64 MiB of workspace on the recorded card |
# | 4 | checkpoints and a chunked loss are worth most together; leave room for fragments | |
# | 5 | ceilings give a floor; first ask whether products, copies or starts set it | FLOPs are $6 P_\text{mat} N$ and attention |
#
# Record your own card with `python3 start.py lab --record`. Next: [one model, from base to policy](one_model.ipynb).
