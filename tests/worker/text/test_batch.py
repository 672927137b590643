from __future__ import annotations

import numpy as np
import pytest
import torch

from cosmos_worker.errors import DataError
from cosmos_worker.text.embeddings import pad_text


def embedding(length: int, dim: int = 4, value: float = 1.0) -> np.ndarray:
    return np.full((length, dim), value, np.float16)


def test_pad_text_fills_with_zero_rows_up_to_max_length() -> None:
    batch = pad_text([embedding(2), embedding(5, value=2.0)], 8, "pad")

    assert batch.shape == (2, 8, 4)
    assert batch.dtype == torch.float32
    assert batch[0, :2].eq(1).all()
    assert batch[0, 2:].eq(0).all()
    assert batch[1, :5].eq(2).all()
    assert batch[1, 5:].eq(0).all()


def test_pad_text_trim_keeps_the_longest_of_the_batch() -> None:
    assert pad_text([embedding(2), embedding(5)], 8, "trim").shape == (2, 5, 4)
    assert pad_text([embedding(2)], 8, "trim").shape == (1, 2, 4)


def test_pad_text_refuses_a_text_longer_than_max_length() -> None:
    with pytest.raises(DataError, match=r"9 tokens, text\.max_length allows 8"):
        pad_text([embedding(9)], 8, "pad")


def test_pad_text_refuses_two_widths() -> None:
    with pytest.raises(DataError, match="widths 4 and 6"):
        pad_text([embedding(2), embedding(2, dim=6)], 8, "pad")


def test_pad_text_refuses_an_empty_batch() -> None:
    with pytest.raises(ValueError, match="no embedding"):
        pad_text([], 8, "pad")
