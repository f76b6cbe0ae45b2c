"""Reports into nbgrader's records and folders, and scores out of them; it may import grading and the rooms below."""
