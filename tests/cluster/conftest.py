"""What some tests of the real cluster need beside the operator."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from real_world import RealWorld


@pytest.fixture
def trainer(real_world: RealWorld) -> Iterator[RealWorld]:
    """The cluster with Trainer v2, and the chart with its runtime."""
    real_world.cluster.install_trainer()
    real_world.install("--set=trainer.runtime.create=true")
    yield real_world
    real_world.install()
    real_world.cluster.remove_trainer()
