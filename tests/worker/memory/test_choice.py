"""What is chosen of activation checkpointing and micro-batch for the memory of a GPU."""

from __future__ import annotations

import pytest

from cosmos_worker.config.experiment import Experiment
from cosmos_worker.config.presets import get_experiment
from cosmos_worker.config.values import GIB
from cosmos_worker.errors import ConfigError
from cosmos_worker.memory.choice import FILLED, choose, describe_choice
from cosmos_worker.memory.plan import Setup, plan_memory

BRIDGE = "video2world_instruction_bridge_57frames"
PLAIN = "video2world_7b_example_cosmos_nemo_assets"


def chosen(name: str, *overrides: str, gpus: int = 8, gib: int = 80) -> Setup:
    return choose(setup(get_experiment(name, overrides), gpus, gib))


def setup(experiment: Experiment, gpus: int, gib: int) -> Setup:
    return Setup(
        experiment, gpus, gpus_per_node=gpus, gpu_memory=gib * GIB,
        **experiment.parallel.model_dump(),
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "gpus", "gib", "kind"),
    [
        (BRIDGE, 8, 80, "none"),
        (BRIDGE, 8, 40, "selective"),
        (f"{BRIDGE}_14b", 8, 80, "selective"),
        (f"{BRIDGE}_1gpu_80gb", 1, 80, "block"),
        (PLAIN, 8, 80, "block"),
        (f"{PLAIN}_4gpu_40gb", 4, 40, "selective"),
    ],
)
def test_checkpointing_that_computes_least_again_and_fits_is_chosen(
    name: str, gpus: int, gib: int, kind: str
) -> None:
    found = chosen(name, gpus=gpus, gib=gib)

    assert found.activation_checkpointing == kind
    assert found.experiment.parallel.activation_checkpointing == kind
    assert found.experiment.trainer.micro_batch_size == 1


def test_micro_batch_is_the_largest_that_divides_and_fits() -> None:
    batch = "trainer.global_batch_size=96"
    found = chosen(BRIDGE, batch, "trainer.micro_batch_size=auto")
    size = found.experiment.trainer.micro_batch_size

    assert found.activation_checkpointing == "none"
    assert isinstance(size, int)
    assert 96 // 8 % size == 0
    assert plan_memory(found).total <= FILLED * found.gpu_memory
    larger = min(one for one in (1, 2, 3, 4, 6, 12) if one > size)
    options = (
        batch,
        f"trainer.micro_batch_size={larger}",
        "parallel.activation_checkpointing=none",
    )
    assert plan_memory(chosen(BRIDGE, *options)).total > FILLED * found.gpu_memory


def test_what_is_given_is_kept() -> None:
    given = ("parallel.activation_checkpointing=selective", "trainer.micro_batch_size=1")
    asked = setup(get_experiment(BRIDGE, given), 8, 80)

    assert choose(asked) is asked


def test_trimmed_captions_share_no_forward_pass() -> None:
    overrides = ("trainer.micro_batch_size=auto", "compat.trimmed_text=true")
    found = chosen(BRIDGE, *overrides, "trainer.global_batch_size=64")

    assert found.experiment.trainer.micro_batch_size == 1


def test_where_nothing_fits_the_least_memory_is_chosen() -> None:
    found = chosen(BRIDGE, "trainer.micro_batch_size=auto", gpus=1, gib=24)

    assert (found.activation_checkpointing, found.micro_batch_size) == ("block", 1)
    assert not plan_memory(found).fits


def test_processes_that_do_not_divide_the_batch_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"global_batch_size: 8 is not a multiple of the 3"):
        chosen(BRIDGE, gpus=3)


def test_choice_is_described_with_its_memory() -> None:
    assert describe_choice(chosen(BRIDGE)) == (
        "activation_checkpointing=none micro_batch_size=1 planned_gib=51.6 gpu_gib=80.0"
    )
