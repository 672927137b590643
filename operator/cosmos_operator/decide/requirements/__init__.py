"""What a job needs before anything runs. Pure."""
