"""The report of a job: one HTML file that needs nothing else."""
