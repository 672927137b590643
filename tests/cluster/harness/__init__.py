"""A real Kubernetes of one node on this machine, for tests. ``python -m harness --help`` says how to use it."""
