"""The PostTrainingJob resource: models, generated CRD."""
