"""Fuzzing: damaged and hostile inputs for everything that reads what other people have written; ``python -m fuzz``."""
