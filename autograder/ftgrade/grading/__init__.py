"""A class graded: what is read, which reports stand, which are made anew; it may import judging, intake and sandbox."""
