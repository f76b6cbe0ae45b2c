"""The autograder of Fine-Tuning Math; it knows no problem by name."""
