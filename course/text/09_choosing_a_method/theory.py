# %% [markdown]
# # Part 9
