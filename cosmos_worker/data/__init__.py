"""Datasets: decoding, checking, index, data order. Knows no model."""
