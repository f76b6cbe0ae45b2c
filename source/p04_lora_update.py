# %% [markdown]
# # Problem 4. The LoRA update, in every detail
#
# $W + \frac{\alpha}{r} B A$ is short enough to be written from memory, and long enough to be wrong in ways that no shape
# error reports: factors in the other order on a square layer, a scale that is missing or applied twice, a merge that rounds
# twice. Here you write each piece and find out which mistakes a square matrix hides.

# %% hole="card"

# %% [markdown]
# ## Conventions
#
# - A linear layer is $y = W x + b$ with $W$ of shape $(d_\text{out}, d_\text{in})$, stored as torch stores it; for a batch
#   torch computes $x W^\top + b$ over the last axis.
# - The factors are $A$ of shape $(r, d_\text{in})$ and $B$ of shape $(d_\text{out}, r)$. The update is
#   $\Delta W = s\, B A$ with $s = \alpha / r$. The rank $r$ is read off the factors; $\alpha$ is a float such as 6.5.
# - rsLoRA ([arXiv:2312.03732](https://arxiv.org/abs/2312.03732)) uses $s = \alpha / \sqrt{r}$, only where it's asked for.
# - The bias belongs to the base layer: it's neither adapted nor scaled.
# - A merged weight has $W$'s dtype, which may differ from the factors'. Product and sum are made in float32 or wider, never
#   in less than $W$'s dtype, and rounded once; a 16-bit result is compared bit by bit. The two factors share a dtype, which
#   is float64 only if $W$'s is.
# - In `lora_delta`, `lora_forward` and `first_step_grads` all tensors share one dtype, and nothing is computed in a narrower
#   one: float16, float32 or float64, and in `lora_forward` bfloat16 too.
# - A tensor may be a view that isn't contiguous, or an expanded one. The rank and both sides are at least 1.
# - Inputs and right results are finite, and no step overflows in the dtype in which it's computed: neither $\alpha$ or the
#   scale times a tensor, nor a product of tensors, also times $\alpha$. There is one exception: $B A$ in `lora_forward`.
# - Training differentiates `lora_forward` alone; the other functions needn't keep a graph. Parameters, which want gradients,
#   are passed to `lora_forward` and `merge` only.
# - $G = \partial L / \partial W'$ is the gradient by the adapted weight $W' = W + \Delta W$, of shape
#   $(d_\text{out}, d_\text{in})$.
# - Invalid shapes raise a `ValueError` in `check_lora_shapes` whose message contains `2-D`, `A must`, `B must` or `rank`; the
#   other functions are called with valid shapes. A function leaves its arguments as they were.

# %% hole="setup"

# %% [markdown]
# ## Warm-up: an update on paper
#
# Take $r = 1$, $\alpha = 2$, $A = (1, 2)$ and $B = (3, 0, 1)^\top$. The update has three rows and two columns, and rank one:
# every row is a multiple of $A$. The cell prints it; it is not graded.

# %%
A, B = torch.tensor([[1.0, 2.0]]), torch.tensor([[3.0], [0.0], [1.0]])
print(2.0 / 1 * B @ A, "rank", torch.linalg.matrix_rank(B @ A).item())

# %% [markdown]
# ## 1. Shapes first

# %% hole="answer" function="check_lora_shapes"

# %% hole="checks" function="check_lora_shapes"

# %% [markdown]
# ## 2. The update

# %% hole="answer" function="lora_delta"

# %% hole="checks" function="lora_delta"

# %% [markdown]
# ## 3. Applying it without forming it
#
# The update has $d_\text{out} d_\text{in}$ entries and never needs to exist: send $x$ through the two thin factors. The
# hidden inputs hold factors whose product overflows, while the output is finite.

# %% hole="answer" function="lora_forward"

# %% hole="checks" function="lora_forward"

# %% [markdown]
# ## 4. Merging
#
# For serving, the update is added to the weight once and for all. With a bfloat16 weight each rounding costs accuracy.

# %% hole="answer" function="merge"

# %% hole="checks" function="merge"

# %% [markdown]
# ## 5. The first gradients
#
# Derive $\partial L / \partial A$ and $\partial L / \partial B$ from $G$ with the chain rule. Training starts at $B = 0$: see
# which factor moves first. Write the two products; autograd isn't needed.

# %% hole="answer" function="first_step_grads"

# %% hole="checks" function="first_step_grads"

# %% hole="personal"
