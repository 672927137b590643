from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from support.training import small_experiment, train_config

from cosmos_worker.config.documents import parse_document
from cosmos_worker.config.experiment import CompatConfig, Experiment
from cosmos_worker.config.moved_options import MOVED_OPTIONS, as_before, of_today
from cosmos_worker.config.presets import PRESETS, PUSH_TINY
from cosmos_worker.config.stages import TrainConfig
from cosmos_worker.errors import ConfigError

EARLIER = {
    "text": {"max_length": 32, "padding": "trim", "dropout": 0.1},
    "conditioning": {
        "min_cond_latent_frames": 1, "max_cond_latent_frames": 1, "flag_dropout": 0.0,
        "augment_sigma_p_mean": 0.0, "augment_sigma_p_std": 1.0, "augment_sigma_multiplier": 4.0,
    },
    "diffusion": {"p_mean": 0.4, "loss_frames": "all", "sigma_dtype": "bfloat16"},
    "ema": {"enabled": True, "rate": 0.05, "source_dtype": "bfloat16"},
    "optimizer": {"learning_rate": 0.0015, "start_factor": 1e-06, "on_bad_gradient": "zero"},
}  # fmt: skip
"""Parts of an experiment as the version before compat wrote them, with every behaviour of the reference."""


def with_options(changes: dict[str, Any]) -> dict[str, Any]:
    return {group: {**EARLIER[group], **values} for group, values in changes.items()}


def test_earlier_document_becomes_one_of_today() -> None:
    found = of_today(EARLIER)

    assert found["compat"] == dict.fromkeys(CompatConfig.model_fields, True)
    assert found["text"] == {"max_length": 32, "dropout": 0.1}
    assert found["conditioning"] == {
        "min_cond_latent_frames": 1, "max_cond_latent_frames": 1, "flag_dropout": 0.0,
    }  # fmt: skip
    assert found["optimizer"] == {"learning_rate": 0.0015}


@pytest.mark.parametrize("switch", [None, *CompatConfig.model_fields])
def test_document_of_today_is_the_same_after_the_way_back(switch: str | None) -> None:
    experiments = [preset.experiment for preset in PRESETS]
    if switch is not None:
        update = {"compat": CompatConfig(**{switch: True})}
        experiments = [experiment.model_copy(update=update) for experiment in experiments]
    for experiment in experiments:
        earlier = as_before(experiment.model_dump(mode="json"))

        assert "compat" not in earlier
        assert all(
            option.split(".")[1] in earlier[option.split(".")[0]] for option in MOVED_OPTIONS
        )
        assert CompatConfig(**of_today(earlier)["compat"]) == experiment.compat
        assert {**of_today(earlier), "compat": None} == {
            **experiment.model_dump(mode="json"),
            "compat": None,
        }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"optimizer": {"start_factor": 0.1}},
            r"start_factor: an earlier version has trained with 0\.1",
        ),
        (
            {"text": {"padding": "left"}},
            r"text\.padding: got 'left'; an earlier version has written 'pad' or",
        ),
        (
            {"conditioning": {"augment_sigma_p_mean": -1.0}},
            r"an earlier version has trained with \(-1\.0, 1\.0, 4\.0\)",
        ),
    ],
)
def test_earlier_value_that_nothing_stands_for_is_refused(
    changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        of_today({**EARLIER, **with_options(changes)})


@pytest.mark.parametrize("path", MOVED_OPTIONS)
def test_moved_option_in_a_document_is_answered_with_what_is_used_instead(path: str) -> None:
    document = train_config(Path("runs"), small_experiment()).model_dump(mode="json")
    group, name = path.split(".")
    document["experiment"][group][name] = 1

    with pytest.raises(ConfigError) as caught:
        parse_document(TrainConfig, document, "train.yaml")

    assert f"train.yaml.experiment.{path}: is no option any more; {MOVED_OPTIONS[path]}" in str(
        caught.value
    )


def test_earlier_name_of_the_text_padding_is_answered_in_a_part_of_a_document() -> None:
    values = PUSH_TINY.model_dump(mode="json")
    values["text"]["padding"] = "trim"

    with pytest.raises(
        ConfigError, match=r"text\.padding: is no option any more; 'trim' is compat"
    ):
        parse_document(Experiment, values, "experiment")
