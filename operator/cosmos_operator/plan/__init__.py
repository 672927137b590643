"""The plan of a PostTrainingJob: its stages, their documents and the manifests of their objects. Pure functions."""
