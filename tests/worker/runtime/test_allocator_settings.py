"""Settings of PyTorch's allocator that the launcher gives to the processes of a training."""

from __future__ import annotations

import pytest

from cosmos_worker.runtime import launch
from cosmos_worker.runtime.launch import allocator_settings

GROWING = "expandable_segments:True"


@pytest.mark.parametrize(
    ("release", "variable"),
    [
        ("2.8.0", "PYTORCH_CUDA_ALLOC_CONF"),
        ("2.15.0+cu132", "PYTORCH_ALLOC_CONF"),
        ("3.0.0", "PYTORCH_ALLOC_CONF"),
    ],
)
def test_segments_grow_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch, release: str, variable: str
) -> None:
    monkeypatch.setattr(launch, "version", lambda name: release)

    assert allocator_settings({}, has_gpu=True) == {variable: GROWING}


def test_nothing_is_set_without_a_gpu() -> None:
    assert allocator_settings({}, has_gpu=False) == {}


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_what_the_user_has_set_is_kept(name: str) -> None:
    assert allocator_settings({name: "max_split_size_mb:128"}, has_gpu=True) == {}
