"""Decisions about the stages of a job: all of them in their order, and one Job for each stage but the training."""
