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
# - Scores come item by item, in lists of floats: `before[i]` and `after[i]` belong to the same item. All comparisons are
#   **paired**. Sizes are small: a hundred items (a thousand where they are only counted), ten suites, ten candidates.
#   Suites and candidates come in dicts, by names of lower-case letters.
# - Scores are within ±10, and float32 is exact enough. No number is infinite but `max_forgetting`, which may be
#   $+\infty$; it may also be negative, where a suite has to get better. Numbers that are compared are equal or differ by
#   more than a millionth.
# - $\text{improvement} = \overline{S_\text{after}} - \overline{S_\text{before}}$: positive is good.
#   $\text{forgetting} = \overline{S_\text{before}} - \overline{S_\text{after}}$: positive is bad, and a negative value is kept:
#   a suite that got better must not hide.
# - Some scores are better when lower (a loss, a perplexity). For them both signs turn round, so that *positive improvement is
#   good* and *positive forgetting is bad* hold for every suite.
# - A *suite* is a named set of items that measures one old skill. The mean over suites counts each suite once.
# - An interval is the triple (mean, low, high). A 95 % bootstrap interval runs from the 2.5 % to the 97.5 % quantile of the
#   resampled means. Resamples differ, so half the width may be off by 15 %; the mean may not.
# - A bootstrap knows what was seen. Where no item changed, or all changed alike, its interval has no width: that says that the
#   items showed no spread, not that there is none. Section 8.2 of the course widens such an interval before it's believed.
# - Of two candidates (quality, forgetting), one *dominates* the other if it's at least as good in both and better in one.
# - Invalid input raises a `ValueError` whose message contains `length`, `empty`, `NaN`, `suite`, `level`, `n_boot`,
#   `n must` or `candidate`, whichever is at fault. A function leaves its arguments as they were, and remembers nothing.

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

# %% [markdown]
# ## From items to a verdict
#
# The worst suite is picked after looking at all of them, so an interval that holds for one suite is too narrow for the worst.
# With $k$ suites each gets the level $1 - 0.05/k$ (Bonferroni): then all hold at once, and the worst loss lies between the
# largest of their low ends and the largest of their high ends.
#
# ```python
# each = 1 - 0.05 / len(before)
# lost = [paired_ci(after[name], before[name], each) for name in before]  # before - after: positive is forgotten
# worst = (max(mean for mean, _, _ in lost), max(low for _, low, _ in lost), max(high for _, _, high in lost))
# verdict(paired_ci(task_before, task_after), worst, max_forgetting=0.05)
# ```
#
# Look at the widths first. An interval without one came from too few items (see the conventions), and a verdict on it is as
# sure as they were.

# %% hole="personal"
