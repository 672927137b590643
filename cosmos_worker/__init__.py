"""Cosmos worker: one command per stage of a post-training job. Importing it imports no torch."""

__version__ = "0.1.0"
