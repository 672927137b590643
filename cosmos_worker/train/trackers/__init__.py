"""Services that a run's figures and sample videos go to, besides the files of the run."""
