"""The operator: PostTrainingJob resources, their plan, and the ways to carry it out. Never imports torch."""
