# %% [markdown]
# # Problem 7. Prefixes: count them, attend to them
#
# Prefix tuning ([arXiv:2101.00190](https://arxiv.org/abs/2101.00190)) trains keys and values that every query can see and
# that no token ever produced. Counting them asks which width and which heads; using them asks what a causal mask may hide.

# %% hole="card"

# %% [markdown]
# ## Conventions
#
# - A prefix of length $m$ gives each layer and each **key-value** head $m$ keys and $m$ values of width $d_\text{head}$.
# - With grouped-query attention there are fewer key-value heads than query heads; query head $h$ uses key-value head
#   $\lfloor h / g \rfloor$ with $g = H / H_\text{kv}$. Neighbours share. With one key-value head it's multi-query attention.
# - $d_\text{head}$ is `head_dim` where a configuration names it, else `hidden_size / num_attention_heads`. Some models name one
#   that differs from this quotient.
# - Scores are $q \cdot k / \sqrt{d_\text{head}}$. A *causal* query at time $t$ sees the times up to $t$ and the **whole**
#   prefix, which stands before all times. One softmax runs over prefix and sequence together.
# - The *gate* of a query is the total weight of its prefix positions in that softmax.
# - While it's trained, a prefix may be made by a small network: an embedding of $m$ vectors, a linear layer, an activation, a
#   linear layer to the keys and values of all layers at once. Both linear layers have biases.
# - Counts are Python `int`s, neither floats nor NumPy's integers. So are the sizes that a function gets; counts stay below
#   $2^{53}$.
# - Tensors have the axes that a function's text names, are all float32 or all float64, and may be views that aren't
#   contiguous.
# - Invalid input raises a `ValueError` whose message contains `n_layers`, `n_prefix`, `multiple`, `divisible` or `shape`: the
#   one that is at fault. A function leaves its arguments as they were, the configuration too.

# %% hole="setup"

# %% [markdown]
# ## Warm-up: who shares with whom
#
# Four query heads and two key-value heads: which key-value head does each query head use? The cell shows the two ways to
# repeat; only one of them is the convention. It is not graded.

# %%
kv_heads = torch.tensor([0, 1])
print("repeat_interleave", kv_heads.repeat_interleave(2).tolist(), "repeat", kv_heads.repeat(2).tolist())

# %% [markdown]
# ## 1. Counting

# %% hole="answer" function="prefix_params"

# %% hole="checks" function="prefix_params"

# %% [markdown]
# ## 2. From a configuration

# %% hole="answer" function="prefix_params_from_config"

# %% hole="checks" function="prefix_params_from_config"

# %% [markdown]
# ## 3. The network that makes them

# %% hole="answer" function="reparam_params"

# %% hole="checks" function="reparam_params"

# %% [markdown]
# ## 4. Attention with a prefix

# %% hole="answer" function="prefix_attention"

# %% hole="checks" function="prefix_attention"

# %% [markdown]
# ## 5. How much the prefix takes
#
# Show on paper that attention over both is a mixture: a share $g$ of attention to the prefix alone, the rest of attention to
# the sequence alone. The share is what you compute.

# %% hole="answer" function="prefix_gate"

# %% hole="checks" function="prefix_gate"

# %% [markdown]
# ## Find the error in the paper
#
# Table 15 of the LoRA paper ([arXiv:2106.09685](https://arxiv.org/abs/2106.09685)) has a prefix method of another kind: at
# each prefix position it trains the **output** of every layer, one vector of GPT-3's width 12,288 instead of a key and a
# value. By the paper's formula $L \cdot d\,(l_p + l_i)$, with $l_p$ positions before the prompt and $l_i$ behind it, $L$ layers
# and $m = l_p + l_i$ positions take $12{,}288 \cdot L \cdot m$ parameters, without the factor 2 of your count. The table prints
# 5.1 M for $m = 4$, 10.1 M for 8, 20.2 M for 16, 44.1 M for 36 and 76.1 M for 64. GPT-3 has 96 layers. Which number of layers
# does each of the five rows imply? (Your count would imply half as many, which is no error of the paper.) It is not graded.

# %% hole="personal"
