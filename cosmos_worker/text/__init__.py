"""Text encoders and the store of their embeddings."""
