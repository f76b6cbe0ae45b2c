# %% [markdown]
# # Problem 8. The DPO loss
#
# Direct preference optimisation ([arXiv:2305.18290](https://arxiv.org/abs/2305.18290)) turns pairs of answers, one
# preferred to the other, into a loss on the policy itself: no reward model, no sampling. The formula is one line. What
# goes wrong is around it: which tokens are summed, where beta stands, what the reference may do, and what happens when a
# log-probability is minus ten thousand.

# %% hole="card"

# %% [markdown]
# ## Conventions
#
# - Logits at position $t$ predict the token at $t + 1$. An answer's log-probability is the **sum** over its answer tokens
#   (those where the mask is 1), in nats; prompt and padding are left out. Column 0 is never a target.
# - The names are $\pi$ for the policy, which is trained, and $\rho$ for the reference, which is not; $y_c$ is the chosen
#   answer and $y_r$ the rejected one. A pair's **margin** is
#   $$h = \bigl(\log \pi(y_c) - \log \pi(y_r)\bigr) - \bigl(\log \rho(y_c) - \log \rho(y_r)\bigr).$$
# - The loss of a pair is $-\log \sigma(\beta h)$ with $\sigma$ the logistic function; the loss of a batch is the **mean**
#   over its pairs. $\beta > 0$ multiplies the whole margin and stands inside $\sigma$.
# - With `label_smoothing` $\varepsilon$ a pair's label is wrong with probability $\varepsilon$: the loss is the expectation
#   over the two labels. It goes with both reductions.
# - The reference is a constant: its tensors receive no gradient, even if they ask for one.
# - Tensors of log-probabilities have one common dtype and one common shape, `()` for one pair or `(pairs,)`; nothing is
#   broadcast.
# - float64 stays float64; bfloat16 and float16 inputs are computed in float32 and give float32.
# - Invalid input raises a `ValueError` whose message names what is at fault: `shape`, `beta`, `empty`,
#   `label_smoothing` or `reduction`. All four functions refuse what their text names. A function leaves its arguments as
#   they were.

# %% hole="setup"

# %% [markdown]
# ## Warm-up: one pair on paper
#
# The policy gives the chosen answer $-12$ nats and the rejected one $-14$; the reference gives $-13$ and $-13.5$. The cell
# computes the margin and the loss for $\beta = 0.1$; it is not graded.

# %%
h = (-12.0 - -14.0) - (-13.0 - -13.5)
print("margin", h, "loss", round(np.log1p(np.exp(-0.1 * h)), 4), "at margin 0:", round(np.log(2.0), 4))

# %% [markdown]
# ## 1. From logits to one number an answer
#
# Gather each answer token's log-probability and add them up, row by row. Outside the answer, ids may be $-100$ and logits
# may be NaN: they must not matter, in the gradient either. Training goes through this number, so the graph must stay whole.

# %% hole="answer" function="sequence_logprob"

# %% hole="checks" function="sequence_logprob"

# %% [markdown]
# ## 2. The loss
#
# Margins of $\pm 10\,000$ occur in float32 when answers are long. There the loss is a plain number, and so is its gradient.

# %% hole="answer" function="dpo_loss"

# %% hole="checks" function="dpo_loss"

# %% [markdown]
# ## 3. The rewards one logs
#
# $\hat r(y) = \beta\,(\log \pi(y) - \log \rho(y))$ for both answers of each pair. This is the reward that DPO fits, up to a
# constant of the prompt that no comparison of two answers can see. The rewards are for plots: no gradient flows through them.

# %% hole="answer" function="implicit_rewards"

# %% hole="checks" function="implicit_rewards"

# %% [markdown]
# ## 4. The gradient by hand
#
# Differentiate the mean loss with respect to the two log-probabilities of the policy, on paper, and write the result as a
# formula. It is graded on inputs that autograd refuses to work on.

# %% hole="answer" function="dpo_grad"

# %% hole="checks" function="dpo_grad"

# %% hole="personal"
