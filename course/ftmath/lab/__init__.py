"""The lab: a step's bytes and seconds predicted, then measured; and one real model from base to policy."""
