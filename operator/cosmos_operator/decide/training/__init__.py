"""Decisions about the training: its attempts, its pods, the time of the next attempt."""
