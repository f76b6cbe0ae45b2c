# %% [markdown]
# # Problem 2. How far did the predictions move?
#
# A fine-tuned model differs from its base in every prediction, a little or a lot. The Kullback-Leibler divergence measures
# it, token by token. Its direction, its unit, what it's averaged over and what happens at probability zero are choices that
# change the number; here each is made.

# %% hole="card"

# %% [markdown]
# ## Conventions
#
# - $p$ is the tuned model's next-token distribution, $q$ the base's, both softmaxes over the last axis, the vocabulary.
#   $$\mathrm{KL}(p \,\|\, q) = \sum_v p_v \log \frac{p_v}{q_v}$$
#   in nats: **tuned first**.
# - A token with $p_v = 0$ contributes 0, whatever $q_v$ is. A token with $q_v = 0 < p_v$ makes the divergence $+\infty$.
#   A logit of $-\infty$ means probability 0.
# - The divergence is a sum over the vocabulary and a **mean** over the positions that are selected, all of them together.
# - For small changes $\delta$ of the logits, $\mathrm{KL}(\mathrm{softmax}(z + \delta) \,\|\, \mathrm{softmax}(z))$ is
#   quadratic in $\delta$; you derive the form.
# - Pinsker: the total variation distance $\frac12 \sum_v |p_v - q_v|$ is at most $\sqrt{\mathrm{KL} / 2}$, and never above 1.
# - A NaN that counts is never hidden: it makes the result NaN. A NaN at a position that isn't selected doesn't count.
# - float64 logits are computed in float64, and a result per token is float64. bfloat16 and float16 logits are computed in
#   float32, and the result is not turned back. One rounding of the largest logit is no error. Only values are asked for:
#   nothing has to be differentiated.
# - What occurs: axes that aren't empty, finite logits within ±20,000, at least one in each distribution, and $-\infty$; two
#   tensors of one dtype. Where the base alone rules a token out, $p_v$ is at least $10^{-30}$. NaN stands beside no $-\infty$.
#   `kl_quadratic` gets no NaN, and changes within ±1. `kl_shift` is never asked about two tensors of one axis: that is
#   neither a shape error nor a single position.
# - Invalid input raises a `ValueError` whose message contains `shape`, `mask` or `non-negative`, whichever is at fault, and not
#   all of them. A function leaves its arguments as they were.

# %% hole="setup"

# %% [markdown]
# ## Warm-up: two distributions on paper
#
# The base gives three tokens the probabilities 0.5, 0.3 and 0.2, the tuned model 0.6, 0.3 and 0.1. The cell computes the
# divergence in both directions; it is not graded.

# %%
q, p = np.array([0.5, 0.3, 0.2]), np.array([0.6, 0.3, 0.1])
print(
    "tuned || base",
    round(float((p * np.log(p / q)).sum()), 4),
    " base || tuned",
    round(float((q * np.log(q / p)).sum()), 4),
)

# %% [markdown]
# ## 1. Token by token

# %% hole="answer" function="per_token_kl"

# %% hole="checks" function="per_token_kl"

# %% [markdown]
# ## 2. Over a batch

# %% hole="answer" function="kl_shift"

# %% hole="checks" function="kl_shift"

# %% [markdown]
# ## 3. For small changes
#
# Expand the divergence to second order in the change of the logits. The first order vanishes: say why.

# %% hole="answer" function="kl_quadratic"

# %% hole="checks" function="kl_quadratic"

# %% [markdown]
# ## 4. What it bounds

# %% hole="answer" function="pinsker_bound"

# %% hole="checks" function="pinsker_bound"

# %% hole="personal"
