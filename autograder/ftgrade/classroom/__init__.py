"""What surrounds a term: courses, personal copies, bundles, self-study; it may import all rooms but commands."""
