"""Datasets: layouts, checked clips, index, windows as pixels. Imports no model."""
