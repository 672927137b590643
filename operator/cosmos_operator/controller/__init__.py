"""What runs on a cluster: watches, the queue of jobs, one pass over one job, the lease, health and metrics."""
