"""Checkpoints: atomic save and resume, export, loading of weight files."""
