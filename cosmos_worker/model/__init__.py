"""The Cosmos-Predict1 diffusion transformer, as plain modules."""
