"""Measures on one GPU, within minutes, all that docs/benchmarks.md wants to know of it; started by ``__main__.py``."""
