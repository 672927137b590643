"""Where a run's figures and sample videos go beside metrics.jsonl, which holds them all."""
