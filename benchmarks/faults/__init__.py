"""Faults of a worker's processes and storage, and what came of them: used by ``benchmarks/worker_sweep.py``."""
