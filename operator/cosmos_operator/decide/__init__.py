"""What to do about a PostTrainingJob, from what was seen: pure functions, no I/O, no clock."""
