# %% [markdown]
# # Problem 3. Count LoRA parameters
#
# LoRA leaves a weight alone and trains a small update beside it. Before anyone starts a run they should be able to say
# how many numbers that update stores, how many of them can really move the weight, and what the run costs in memory.
# Every answer here is an integer that you can check by hand.

# %% hole="card"

# %% [markdown]
# ## Conventions
#
# - A linear layer is $y = W x$ with $W$ of shape $(d_\text{out}, d_\text{in})$, stored as torch stores it.
#   Biases are not adapted and not counted.
# - LoRA's factors are $A$ of shape $(r, d_\text{in})$ and $B$ of shape $(d_\text{out}, r)$; the update is
#   $\Delta W = \frac{\alpha}{r} B A$. The scale $\alpha / r$ is a constant: it is not a parameter.
# - *Parameters* are stored numbers. What a function returns is exact and a Python `int`; every count is below $2^{62}$. A
#   whole number is a Python `int` or a NumPy integer of any width; where a product would overflow, convert first. A Python
#   `float` isn't one, not even 4.0. Nothing else is passed in place of a number.
# - With grouped-query attention the key and value projections are rectangular: for 32 query heads and 8 key-value heads
#   of width 128, $W_q$ is $(4096, 4096)$ and $W_k$ is $(1024, 4096)$. A fused projection is one weight of shape
#   $(3d, d)$ with one pair of factors.
# - Sizes are bytes. Training in fp32 with Adam keeps 16 bytes for each trained parameter: weight, gradient, two moments.
# - Invalid input raises a `ValueError` whose message names the argument at fault: `rank`, `d_in`, `d_out`, `target` or
#   `n_layers`. Zero, negative numbers and floats are invalid, in each of the first four functions. There is one fault at a
#   time, and a message that lists every argument of its function names none. `lora_training_bytes` is called with valid
#   numbers, in 64 bits where they are NumPy's.
# - A function leaves its arguments as they were.

# %% hole="setup"

# %% [markdown]
# ## Warm-up: the two factors on paper
#
# Take $d_\text{out} = 5$, $d_\text{in} = 3$, $r = 2$. $B$ holds $5 \cdot 2 = 10$ numbers and $A$ holds $2 \cdot 3 = 6$.
# The cell builds them and counts; it is not graded.

# %%
A, B = torch.zeros(2, 3), torch.zeros(5, 2)
print("A", tuple(A.shape), "B", tuple(B.shape), "stored:", A.numel() + B.numel(), "entries of B @ A:", (B @ A).numel())

# %% [markdown]
# ## 1. One weight
#
# Count the stored numbers of one adapter. The rank may be larger than $\min(d_\text{out}, d_\text{in})$; counting what
# is stored is another question than what it is good for.

# %% hole="answer" function="lora_param_count"

# %% hole="checks" function="lora_param_count"

# %% [markdown]
# ## 2. A model
#
# A model has `n_layers` equal blocks. `shapes` lists the weights of one block; only those in `targets` get an adapter.
# Real configurations mix rectangular shapes and give each target its own rank.

# %% hole="answer" function="lora_model_params"

# %% hole="checks" function="lora_model_params"

# %% [markdown]
# ## 3. When LoRA stops saving anything
#
# Find the largest rank $r$ with $r (d_\text{out} + d_\text{in}) < d_\text{out} d_\text{in}$. The inequality is strict.

# %% hole="answer" function="breakeven_rank"

# %% hole="checks" function="breakeven_rank"

# %% [markdown]
# ## 4. Degrees of freedom
#
# Not every stored number moves $B A$ in a direction of its own. For an invertible $r \times r$ matrix $G$,
# $(B G)(G^{-1} A) = B A$. Derive the dimension of the set of matrices that $B A$ can reach near generic factors. It is
# graded against the numerical rank of the Jacobian of $(A, B) \mapsto B A$.

# %% hole="answer" function="low_rank_dof"

# %% hole="checks" function="low_rank_dof"

# %% [markdown]
# ## 5. What the run costs
#
# The base is frozen: it costs its weights and nothing more. 4-bit NormalFloat with double quantisation stores
# 0.51587 bytes a parameter, so a total may be fractional before you round it, once, to the nearest byte.

# %% hole="answer" function="lora_training_bytes"

# %% hole="checks" function="lora_training_bytes"

# %% [markdown]
# ## Find the error in the paper
#
# Published tables are computed by people. Three counts of the LoRA paper ([arXiv:2106.09685](https://arxiv.org/abs/2106.09685))
# are not what its own formula gives; with your functions you can say by how much. It is not graded.
#
# - Table 3 prints 0.35 M trained parameters for GPT-2 medium (24 layers, width 1,024, rank 4 on the query and value weights)
#   and 0.77 M for GPT-2 large (36 layers, width 1,280). Which share of the whole model are these numbers close to?
# - Appendix D.4 speaks of 37.7 M for GPT-3 (96 layers, width 12,288) with rank 2 on all four attention weights. Which rank
#   does 37.7 M need?
# - Table 15 prints 603.8 M for rank 64 on all four, and 301.9 M for two of them. How can both come about?

# %% hole="personal"
