import pytest
import torch

from cosmos_worker.tokenizer import embedded


def test_analyse_gives_cell_means_first():
    video = torch.randn(2, 3, 4, 6, 8)

    bands = embedded.analyse(video)

    assert bands.shape == (2, 24, 2, 3, 4)
    torch.testing.assert_close(bands[:, :3], torch.nn.functional.avg_pool3d(video, 2))


@pytest.mark.parametrize(("dim", "band"), [(4, 1), (3, 2), (2, 4)])
def test_analyse_puts_differences_along_each_axis_into_their_band(dim, band):
    video = torch.zeros(1, 1, 2, 2, 2)
    video.narrow(dim, 0, 1).fill_(1.0)

    bands = embedded.analyse(video).flatten()

    expected = torch.zeros(8)
    expected[[0, band]] = 0.5
    assert torch.equal(bands, expected)


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_unpatch_inverts_patch(rounds):
    size = 2**rounds
    video = torch.randn(1, 3, 1 + 2 * size, 2 * size, 3 * size)

    patches = embedded.patch(video, rounds)

    assert patches.shape == (1, 3 * size**3, 3, 2, 3)
    torch.testing.assert_close(embedded.unpatch(patches, rounds), video)


def test_patch_of_the_first_frame_does_not_see_later_frames():
    video = torch.randn(1, 3, 9, 8, 8)

    assert torch.equal(embedded.patch(video[:, :, :1], 3), embedded.patch(video, 3)[:, :, :1])
