"""Pure functions from a PostTrainingJob to its stages and manifests."""
