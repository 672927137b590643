from __future__ import annotations

import pytest
import torch
from support.training import small_experiment

from cosmos_worker.config.experiment import CompatConfig, Experiment
from cosmos_worker.errors import CheckpointError, ConfigError, DataError
from cosmos_worker.train.data import micro_batch_positions
from cosmos_worker.train.noise import draw_noise
from cosmos_worker.train.order import DataOrder


def test_order_shows_every_sample_once_an_epoch() -> None:
    order = DataOrder(num_samples=10, global_batch_size=4, seed=3, digest="d")

    seen = [sample for step in range(5) for sample in order.batch(step)]

    assert sorted(seen[:10]) == list(range(10))
    assert sorted(seen[10:]) == list(range(10))
    assert seen[:10] != seen[10:]


def test_order_is_the_same_in_every_version() -> None:
    order = DataOrder(num_samples=5, global_batch_size=3, seed=3, digest="d")

    assert [order.batch(step) for step in (0, 1, 2)] == [[4, 0, 1], [3, 2, 0], [4, 2, 3]]


def test_order_of_a_step_does_not_depend_on_the_steps_before() -> None:
    assert DataOrder(10, 4, 3, "d").batch(7) == DataOrder(10, 4, 3, "d").batch(7)


def test_order_refuses_a_dataset_smaller_than_one_batch() -> None:
    with pytest.raises(DataError, match=r"3 training windows are fewer than one batch of 4; lower"):
        DataOrder(3, 4, 0, "d")


def test_order_refuses_a_checkpoint_of_another_dataset() -> None:
    state = DataOrder(10, 4, 3, "old").state(5)

    with pytest.raises(CheckpointError, match=r"digest \(checkpoint 'old', now 'new'\)"):
        DataOrder(10, 4, 3, "new").check_state(state, "state/iter_000000005")


def test_draws_of_a_sample_do_not_depend_on_the_split_over_processes() -> None:
    experiment = small_experiment()
    shape = (16, 3, 4, 4)

    whole = draw_noise(shape, experiment, "train", 5, range(4))
    parts = [draw_noise(shape, experiment, "train", 5, [i]) for i in range(4)]

    for name in ("sigma_B", "noise_BCTHW", "augment_sigma_B", "num_cond_B", "use_text_B"):
        torch.testing.assert_close(
            getattr(whole, name), torch.cat([getattr(part, name) for part in parts]), atol=0, rtol=0
        )
    assert not torch.equal(
        whole.noise_BCTHW, draw_noise(shape, experiment, "train", 6, range(4)).noise_BCTHW
    )


def test_draws_follow_their_distributions() -> None:
    experiment = small_experiment()

    noise = draw_noise((1, 1, 1, 1), experiment, "train", 0, range(4000))

    assert noise.sigma_B.log().mean() == pytest.approx(0.0, abs=0.06)
    assert noise.sigma_B.log().std() == pytest.approx(1.0, abs=0.05)
    assert noise.augment_sigma_B.log().mean() == pytest.approx(-3.0, abs=0.12)
    assert noise.augment_sigma_B.log().std() == pytest.approx(2.0, abs=0.1)
    assert noise.num_cond_B.float().mean() == pytest.approx(0.5, abs=0.03)
    assert noise.use_cond_B.float().mean() == pytest.approx(0.8, abs=0.03)
    assert noise.use_text_B.float().mean() == pytest.approx(0.8, abs=0.03)


def with_switch(name: str) -> Experiment:
    return small_experiment().model_copy(update={"compat": CompatConfig(**{name: True})})


def test_strong_noise_on_known_frames_is_that_of_the_references_bridge_configuration() -> None:
    noise = draw_noise(
        (1, 1, 1, 1), with_switch("strong_known_frame_noise"), "train", 0, range(4000)
    )

    assert (noise.augment_sigma_B / 4).log().mean() == pytest.approx(0.0, abs=0.06)
    assert noise.augment_sigma_B.log().std() == pytest.approx(1.0, abs=0.05)


def test_sigma_is_rounded_to_bfloat16_if_it_is_asked_for() -> None:
    exact, rounded = (
        draw_noise((1, 1, 1, 1), experiment, "train", 0, range(8))
        for experiment in (small_experiment(), with_switch("bfloat16_sigma"))
    )

    for name in ("sigma_B", "augment_sigma_B"):
        before, after = getattr(exact, name), getattr(rounded, name)
        assert torch.equal(after, before.bfloat16().float())
        assert not torch.equal(after, before)


def test_positions_cover_the_global_batch_once() -> None:
    parts = [micro_batch_positions(16, 4, rank, 2) for rank in range(2)]

    assert [i for part in parts for micro in part for i in micro] == list(range(16))


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ((6, 1, 0, 4), r"6 is not a multiple of the 4 processes"),
        ((12, 4, 0, 2), r"4 does not divide the 6"),
    ],
)
def test_positions_refuse_sizes_that_do_not_divide(
    sizes: tuple[int, int, int, int], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        micro_batch_positions(*sizes)
