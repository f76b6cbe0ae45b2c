# %% [markdown]
# # Problem 9. Task quality against forgetting: a scorecard
#
# A tuned model is better at its task and worse at something else. Whether to ship it is a question with an error bar. Here
# you write the scorecard: what improved, what was forgotten and where most, how sure that is, and which candidates are worth
# looking at.

# %% hole="card"

# %% [markdown]
# ## Conventions
#
# - Scores come item by item: `before[i]` and `after[i]` belong to the same item. All comparisons are **paired**.
# - $\text{improvement} = \overline{S_\text{after}} - \overline{S_\text{before}}$: positive is good.
#   $\text{forgetting} = \overline{S_\text{before}} - \overline{S_\text{after}}$: positive is bad, and a negative value is kept:
#   a suite that got better must not hide.
# - Some scores are better when lower (a loss, a perplexity). For them both signs turn round, so that *positive improvement is
#   good* and *positive forgetting is bad* hold for every suite.
# - A *suite* is a named set of items that measures one old skill. The mean over suites counts each suite once.
# - An interval is the triple (mean, low, high). A 95 % bootstrap interval runs from the 2.5 % to the 97.5 % quantile of the
#   resampled means.
# - Of two candidates (quality, forgetting), one *dominates* the other if it's at least as good in both and better in one.
# - Invalid input raises a `ValueError` whose message contains `length`, `empty`, `NaN`, `suite`, `level`, `n_boot`,
#   `n must` or `candidate`. A function leaves its arguments as they were.

# %% hole="setup"

# %% [markdown]
# ## Warm-up: what pairing buys
#
# Forty items of very different difficulty, each a little better after tuning. The cell prints the spread of the differences,
# and the spread of two independent means' difference. It is not graded.

# %%
difficulty = np.linspace(0, 1, 40)
better = difficulty + 0.02 + 0.01 * np.cos(np.arange(40))
paired = (better - difficulty).std() / 40**0.5
unpaired = (better.var() / 40 + difficulty.var() / 40) ** 0.5
print(f"standard error of the improvement: paired {paired:.4f}, as if unpaired {unpaired:.4f}")

# %% [markdown]
# ## 1. Improvement

# %% hole="answer" function="improvement"

# %% hole="checks" function="improvement"

# %% [markdown]
# ## 2. Forgetting, suite by suite

# %% hole="answer" function="forgetting"

# %% hole="checks" function="forgetting"

# %% [markdown]
# ## 3. How sure is it
#
# Draw items with replacement, take the mean of their differences, many times; the spread of these means is the spread that
# other items would have given.

# %% hole="answer" function="paired_ci"

# %% hole="checks" function="paired_ci"

# %% [markdown]
# ## 4. Right or wrong
#
# Where a score is right or wrong, the standard error follows from two counts. Derive it on paper from the variance of a
# difference that is $-1$, $0$ or $1$.

# %% hole="answer" function="paired_binary_se"

# %% hole="checks" function="paired_binary_se"

# %% [markdown]
# ## 5. Candidates worth looking at

# %% hole="answer" function="pareto_front"

# %% hole="checks" function="pareto_front"

# %% [markdown]
# ## 6. The verdict

# %% hole="answer" function="verdict"

# %% hole="checks" function="verdict"

# %% hole="personal"
