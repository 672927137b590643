"""Helpers of the tests: small real inputs, runs, clusters, and stand-ins for GPUs, services and large models."""
