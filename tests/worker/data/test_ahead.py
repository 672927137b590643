"""data/ahead.py: how many batches wait in memory. What they hold is tested with cache-latents."""

import pytest

from cosmos_worker.data.ahead import num_ahead
from cosmos_worker.options import VideoConfig

BRIDGE = VideoConfig(num_pixel_frames=57, height=256, width=320)
HD = VideoConfig(num_pixel_frames=121, height=704, width=1280)


@pytest.mark.parametrize(
    ("video", "batch_size", "cpus", "expected"),
    [(BRIDGE, 8, 16, 9), (BRIDGE, 8, 4, 4), (HD, 1, 16, 3), (HD, 8, 16, 1), (BRIDGE, 1, 1, 1)],
)
def test_batches_ahead_fit_memory_and_cpus(video, batch_size, cpus, expected):
    assert num_ahead(video, batch_size, cpus) == expected
