"""One machine without a cluster: a job's stages as processes."""
