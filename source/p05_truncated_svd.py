# %% [markdown]
# # Problem 5. A weight update, truncated
#
# LoRA bets that the change a fine-tuning makes can be written with few directions. The singular value decomposition says
# how good that bet is for any given update: it gives the best approximation of every rank, and its exact error, without
# any training.

# %% hole="card"

# %% [markdown]
# ## Conventions
#
# - $M$ has shape $(p, q)$ and singular values $\sigma_1 \ge \sigma_2 \ge \dots \ge \sigma_{\min(p, q)} \ge 0$.
#   $M = U \Sigma V^\top$; torch returns $V^\top$ itself, called `Vh`.
# - The best rank-$r$ approximation keeps the $r$ largest singular values (Eckart and Young). It is handed out as two factors,
#   $B$ of shape $(p, r)$ and $A$ of shape $(r, q)$, as LoRA stores them: $M \approx B A$.
# - Factors are *balanced* if $\lVert B \rVert_F^2 = \lVert A \rVert_F^2 = \sigma_1 + \dots + \sigma_r$. Signs and rotations of
#   the factors are free: only products, norms and errors are compared.
# - Norms: Frobenius $\lVert M \rVert_F = \sqrt{\sum_{ij} M_{ij}^2}$, spectral $\lVert M \rVert_2 = \sigma_1$.
# - *Energy* is the squared Frobenius norm. A rank holds a share of it: $\sum_{i \le r} \sigma_i^2 / \sum_i \sigma_i^2$.
# - The *effective* (stable) rank is $\lVert M \rVert_F^2 / \lVert M \rVert_2^2$.
# - $M$ is a float32 or float64 tensor with one to ten rows and columns. It may be a view, such as a transposed matrix. A
#   rank is an `int` or NumPy's `int64`, a share a number or NumPy's `float64`. No gradients are asked for.
# - In the graded calls $M$ is zero, or its largest entry is between 0.001 and 1,000 in size. For `rank_for_energy` and
#   `effective_rank` it is between 1e-25 and 1e25: square float32 singular values in float64. Valid shares are at least 0.001.
# - Float32 results are graded like all others, also where singular values differ by a factor of 10,000: then
#   $M^\top M$ in float32 is too coarse.
# - Invalid input raises a `ValueError` whose message names what is wrong: it contains `2-D`, `finite`, `rank`, `norm` or
#   `energy`. A message that always contains all of these names nothing. A function leaves its arguments as they were.

# %% hole="setup"

# %% [markdown]
# ## Warm-up: singular values by hand
#
# For the matrix below $M^\top M$ has the eigenvalues 18 and 4, so $M$ has the singular values $\sqrt{18}$ and 2. Leaving out
# the smaller one costs 2. The cell checks it; it is not graded.

# %%
M = torch.tensor([[3.0, 1.0], [1.0, 3.0], [1.0, 1.0]])
print("squared singular values", torch.linalg.svdvals(M).square().round(decimals=4).tolist())

# %% [markdown]
# ## 1. Two factors

# %% hole="answer" function="low_rank_factors"

# %% hole="checks" function="low_rank_factors"

# %% [markdown]
# ## 2. What is left out
#
# The error follows from the singular values alone: derive which of them, and how they combine in each norm.

# %% hole="answer" function="truncation_error"

# %% hole="checks" function="truncation_error"

# %% [markdown]
# ## 3. How much rank is enough

# %% hole="answer" function="rank_for_energy"

# %% hole="checks" function="rank_for_energy"

# %% [markdown]
# ## 4. One number for how many directions matter

# %% hole="answer" function="effective_rank"

# %% hole="checks" function="effective_rank"

# %% hole="personal"
