"""The resource PostTrainingJob, its plan, and the two ways to carry it out: on a cluster, on one machine. No torch."""
