"""Decides what to do about a PostTrainingJob, from its plan and the state of the cluster: no I/O, no clock."""
