# %% [markdown]
# # Problem 10. What trains, and on which tokens: a checklist as code
#
# The costliest mistakes of fine-tuning raise no error: a norm that was left trainable, an adapter that the optimizer has never
# heard of, an end-of-sequence token that is masked as padding. Each has a signature that a few lines can look for. Here you
# write those lines, once, as four audits. They are graded by planting faults.

# %% hole="card"

# %% [markdown]
# ## Conventions
#
# - An audit **returns a list of findings**: tuples of a code and a name (or a row's number), each once, in any order. An empty
#   list means that nothing is wrong. False alarms cost as much as faults that are missed.
# - A parameter **is trainable** if it requires a gradient, and **should train** if its name matches a pattern. The first is a
#   fact about the model, the second your intention; most findings are a difference between the two.
# - One parameter may have several names (an input embedding *tied* to the output head). It counts once, and a finding about it
#   stands for each name. The patterns of these exercises match all names of a parameter or none.
# - Two parameters may share memory: one can be a view of a part of the other, and training one moves both.
# - A *buffer* is state that is no parameter, such as the running mean of a batch normalisation. It may move without an optimizer.
# - `input_ids`, `labels` and `attention_mask` are (batch, time). `labels` are **not** shifted, and -100 means *not a target*.
#   Only `attention_mask` (integers or bools) tells what is padding: padding may stand on the left, and its id may be that of
#   EOS.
# - Models are small: a few hundred numbers, at least one in each parameter. Parameters and buffers are floats of 2, 4 or 8
#   bytes, integers or bools. They change in place: a module's tensors stay the same objects. No module and no buffer stands
#   in two places. A model is audited as it comes: in whatever mode its modules are.
# - `audit_masks` raises a `ValueError` whose message contains `shape` if its arguments don't fit together. The other audits
#   raise nothing of their own.
# - `audit_step` trains the model by one step; the other audits leave everything as it was: numbers, flags, gradients, modes and
#   the optimizer.

# %% hole="setup"

# %% [markdown]
# ## Warm-up: a flag that does nothing
#
# The cell sets `requires_grad` on a module and asks its parameters. It is not graded.

# %%
layer = torch.nn.Linear(2, 2)
layer.requires_grad = False
print("set as an attribute:", layer.weight.requires_grad)
layer.requires_grad_(False)
print("set by the method:  ", layer.weight.requires_grad)

# %% [markdown]
# ## 1. Counting

# %% hole="answer" function="count_parameters"

# %% hole="checks" function="count_parameters"

# %% [markdown]
# ## 2. What trains, against what should
#
# Start with the four sets: the names, those that should train, those that do, and those that the optimizer holds. The findings
# are differences of these sets.

# %% hole="answer" function="audit_freeze"

# %% hole="checks" function="audit_freeze"

# %% [markdown]
# ## 3. What really moves
#
# A flag is a promise. This audit takes a step and looks at the bits.

# %% hole="answer" function="audit_step"

# %% hole="checks" function="audit_step"

# %% [markdown]
# ## 4. Which tokens are targets

# %% hole="answer" function="audit_masks"

# %% hole="checks" function="audit_masks"

# %% hole="personal"

# %% [markdown]
# ## 5. In words (optional)
#
# Order the four audits by what they cost to run, and say for each one fault that it's the first to catch. A person reads this.

# %% hole="written" function="order"
