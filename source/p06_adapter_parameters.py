# %% [markdown]
# # Problem 6. Adapters: count them, run them
#
# Houlsby and others ([arXiv:1902.00751](https://arxiv.org/abs/1902.00751)) put two small bottlenecks into each layer of a
# frozen model. They trained these, the layer normalisations and the task's last layer, and nothing else. Papers count such
# adapters in different ways, with or without biases, one or two a layer; here every choice is an argument.

# %% hole="card"

# %% [markdown]
# ## Conventions
#
# - An adapter maps a hidden state $h$ of width $d$ to
#   $h + W_\text{up}\, f(W_\text{down} h + b_\text{down}) + b_\text{up}$, with $W_\text{down}$ of shape $(m, d)$ and
#   $W_\text{up}$ of shape $(d, m)$, as torch stores them. $m$ is the *bottleneck*. The first term is the *residual*.
# - `bias=True` gives **both** maps a bias. `per_layer` adapters stand in each of `n_layers` layers.
# - A trained layer normalisation holds a gain and an offset, $2 d$ numbers; `n_trained_layernorms` counts them over the whole
#   model.
# - A *budget* is a number of parameters. It may be used up exactly.
# - GELU is the exact one, $x\, \Phi(x)$ with the normal distribution function, not its tanh approximation.
# - The Jacobian has a row for each output and a column for each input.
# - Counts are Python `int`s below $2^{31}$. `d`, `m`, `n_layers` and `budget` may be NumPy's `int32` or `int64`. In the
#   graded calls a width or a bottleneck is at most 200, also one that is returned, and a budget at most 200,000. An invalid width or bottleneck is 0, negative or a float with a fraction,
#   such as 2.5; floats such as 2.0 aren't passed. `n_layers` is always whole.
#   `per_layer` is at least 1 and `n_trained_layernorms` at least 0; they need no check.
# - Training goes through `adapter_forward`: gradients reach all of its five tensors. Its tensors are float32 or float64, and
#   those of `adapter_jacobian` are float64. They may be views. `h` may hold no hidden state at all, with the shape $(0, d)$.
# - Invalid input raises a `ValueError` whose message names what is wrong: it contains `bottleneck`, `d must`, `n_layers`,
#   `budget`, `shape` or `activation`. A message that always contains all of these names nothing. Tensors of wrong shapes
#   are refused even where torch would broadcast them; weights always have two axes and biases one, `h` at least one.
#   A function leaves its arguments as they were.

# %% hole="setup"

# %% [markdown]
# ## Warm-up: one adapter, built and counted
#
# For $d = 6$ and $m = 2$ the two matrices hold 12 numbers each, the biases 2 and 6. The cell counts what torch stores; it is
# not graded.

# %%
maps = torch.nn.Linear(6, 2), torch.nn.Linear(2, 6)
print(
    [tuple(part.shape) for layer in maps for part in layer.parameters()],
    sum(p.numel() for m in maps for p in m.parameters()),
)

# %% [markdown]
# ## 1. One adapter

# %% hole="answer" function="adapter_params"

# %% hole="checks" function="adapter_params"

# %% [markdown]
# ## 2. A model

# %% hole="answer" function="adapter_model_params"

# %% hole="checks" function="adapter_model_params"

# %% [markdown]
# ## 3. What a budget buys

# %% hole="answer" function="largest_bottleneck"

# %% hole="checks" function="largest_bottleneck"

# %% [markdown]
# ## 4. Running it

# %% hole="answer" function="adapter_forward"

# %% hole="checks" function="adapter_forward"

# %% [markdown]
# ## 5. What it does to a small change
#
# Derive the Jacobian of the relu adapter on paper. How many directions can it change?

# %% hole="answer" function="adapter_jacobian"

# %% hole="checks" function="adapter_jacobian"

# %% [markdown]
# ## Find the error in the paper
#
# Table 2 of the LoRA paper ([arXiv:2106.09685](https://arxiv.org/abs/2106.09685)) gives RoBERTa-large (24 layers, width 1,024)
# 3 M parameters for one adapter of bottleneck 64 a layer, and 6 M for two. Compute both. Then leave out the biases and divide
# by $2^{20}$: what do you see? It is not graded.

# %% hole="personal"
