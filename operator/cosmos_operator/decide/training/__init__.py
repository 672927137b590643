"""Decisions about the training: its attempts, its pods, when the next one begins. Pure."""
