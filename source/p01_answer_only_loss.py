# %% [markdown]
# # Problem 1. The answer-only loss
#
# Supervised fine-tuning shows a model a prompt and its answer, and asks it to predict the answer's tokens. Everything that
# decides what is learned sits in a few index operations: which logits predict which token, which tokens count, and what the
# sum is divided by. None of them crashes when it is wrong.

# %% hole="card"

# %% [markdown]
# ## Conventions
#
# - The logits at position $t$ predict the token at $t + 1$: `logits[:, t]` belongs with `input_ids[:, t + 1]` and
#   `answer_mask[:, t + 1]`. The shift happens **inside** your function. The last position predicts nothing, and the token in
#   column 0 is never a target.
# - The mask says which *tokens* are answers: 1 for a token that is learned, 0 for prompt and padding. Padding may use the id
#   of the end-of-sequence token, so only the mask can tell.
# - A token's loss is $-\log p$ in nats. `token_mean` divides the sum by the number of targets in the whole batch;
#   `sequence_mean` averages the rows' own means, over the rows that have targets; `sum` doesn't divide.
# - With $m$ the mask of targets, the gradient of the token mean by the logits is a formula in the softmax, the one-hot
#   target and $m$; you derive it below.
# - Outside the targets anything may stand: ids of $-100$ or beyond the vocabulary, logits that are NaN or infinite. It must
#   not get into the loss or its gradient. At a target, a logit of $-\infty$ gives its token the probability 0.
# - float64 logits are computed in float64, and the result is float64. bfloat16 and float16 logits are computed in float32, and
#   the result is not turned back. One rounding of the largest logit is no error. The graded batches are small: no speed is
#   asked for.
# - Invalid input raises a `ValueError` whose message names the argument: `shape`, `mask`, `answer`, `reduction`, `count`.
#   One argument is at fault, so the message doesn't name all of them. A function leaves its arguments as they were.

# %% hole="setup"

# %% [markdown]
# ## Warm-up: five tokens on paper
#
# A model gives the five tokens of a row the probabilities 0.1, 0.2, 0.5, 0.8 and 0.9, and the last three are the answer. The
# loss is the mean of three negative logarithms. The cell computes it; it is not graded.

# %%
probabilities, answer = np.array([0.1, 0.2, 0.5, 0.8, 0.9]), np.array([0, 0, 1, 1, 1])
print("loss", round(float(-(np.log(probabilities) * answer).sum() / answer.sum()), 4), "nats a token")

# %% [markdown]
# ## 1. The loss
#
# Shift, select, and divide by the right number. Logits of size 3,000 occur in float32: the loss there is a plain number.

# %% hole="answer" function="answer_only_loss"

# %% hole="checks" function="answer_only_loss"

# %% [markdown]
# ## 2. Its gradient by hand
#
# Derive $\partial L / \partial z$ for the token mean on paper and write it down as a formula. It is graded on inference
# tensors too, on which autograd refuses to work.

# %% hole="answer" function="answer_only_grad"

# %% hole="checks" function="answer_only_grad"

# %% [markdown]
# ## 3. Micro-batches
#
# A batch that doesn't fit in memory is split. Each micro-batch gives its own token mean. Find the weights with which these
# means add up to the token mean of the whole batch.

# %% hole="answer" function="accumulation_weights"

# %% hole="checks" function="accumulation_weights"

# %% hole="personal"
