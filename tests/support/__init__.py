"""Helpers of the tests: small real inputs, runs, clusters, and stand-ins for what tests lack."""
