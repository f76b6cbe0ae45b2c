"""What people read in a browser: feedback, class report, likeness; it may import gradebook and the rooms below."""
