"""The command `ftmath`: it lays the course down in a folder of the learner's, and opens it in JupyterLab."""
