"""Soak: churn of jobs on the real cluster, and whether anything grows; ``python -m soak``."""
