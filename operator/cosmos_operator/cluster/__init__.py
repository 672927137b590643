"""The API server: kinds, the protocol that the operator needs, and its implementation."""
