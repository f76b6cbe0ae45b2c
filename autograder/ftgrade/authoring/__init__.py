"""From a problem's leaves to its notebook, and how good its tests are; it may import judging and what is below."""
