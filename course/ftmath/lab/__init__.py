"""The lab predicts a training step's bytes and seconds and measures them, and takes one model from base to policy."""
