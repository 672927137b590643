"""Decisions about the other stages. Pure."""
