"""Carries out a job on one machine without a cluster: its stages run as processes."""
