"""Processes of the worker: their start, machine, peers, progress, and end."""
