"""The report of a job: one HTML file with all pictures and videos in it."""
