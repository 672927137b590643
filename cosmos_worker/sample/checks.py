"""All that can be found wrong with an inference item without a model: before the training and before the sampling."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace

from cosmos_worker.config.experiment import (
    NetConfig,
    TokenizerConfig,
)
from cosmos_worker.config.stages import ItemConfig
from cosmos_worker.data.text_files import printable
from cosmos_worker.errors import UserError
from cosmos_worker.sample.conditioning import check_visual_input
from cosmos_worker.sample.inputs import SampleInput, collect_inputs, raise_all
from cosmos_worker.sample.records import MAX_RATE_DIFFERENCE, check_metrics
from cosmos_worker.sample.sampler import check_admitted
from cosmos_worker.storage.volumes import Volumes

logger = logging.getLogger(__name__)


def check_item(
    item: ItemConfig, net: NetConfig, tokenizer: TokenizerConfig, volumes: Volumes
) -> list[SampleInput]:
    """Read everything that an inference item names: list, images, videos, ground truth.

    Args:
        item: the inference item.
        net: network that samples it.
        tokenizer: its tokenizer.
        volumes: where addresses lie on this machine.

    Returns:
        The inputs, each with the rate of its result and the notes on what is done to its file.

    Raises:
        ConfigError: inputs or sizes that cannot be.
        DataError: inputs that cannot be read; at most 10 problems are told.
        OSError: a volume does not give the content of a file.
    """
    inputs_file = volumes.resolve(item.inputs_file_uri) if item.inputs_file_uri else None
    inputs = collect_inputs(item.inputs, inputs_file, volumes)
    check_admitted(net, tokenizer, item.sampling)
    checked: list[SampleInput] = []
    problems: list[UserError] = []
    for one in inputs:
        try:
            known = check_visual_input(one, item.sampling, item.fit)
            checked.append(check_metrics(known, item))
        except UserError as error:
            problems.append(error)
    raise_all(problems)
    checked = with_rates(item, checked)
    _tell(item, checked)
    return checked


def with_rates(item: ItemConfig, inputs: Sequence[SampleInput]) -> list[SampleInput]:
    """The inputs with the frames per second of their results; None = those of the item's sampling.

    With ``fps_of_inputs`` a video goes on at its own rate, and an image takes that of the item's videos if they have
    one.
    """
    if not item.fps_of_inputs:
        return [_with_rate_told(one, item) for one in inputs]
    rates = {one.fps for one in inputs if one.fps is not None}
    if len(rates) < 2:
        return [replace(one, fps=next(iter(rates), None)) for one in inputs]
    note = (
        f"sampled at {item.sampling.fps:g} frames per second, as it is an image and the videos of the item have "
        "different rates; set parameters.fps to choose"
    )
    return [replace(one, notes=(*one.notes, note)) if one.fps is None else one for one in inputs]


def _with_rate_told(one: SampleInput, item: ItemConfig) -> SampleInput:
    """An input of an item with a rate of its own, with a note if its known frames were taken at another one."""
    wanted, known = item.sampling.fps, item.sampling.num_input_frames
    notes = one.notes
    if one.fps is not None and known > 1 and abs(one.fps - wanted) > MAX_RATE_DIFFERENCE * wanted:
        note = (
            f"its {known} known frames are {one.fps:g} a second and are taken as they are, the result has {wanted:g}; "
            f"re-encode it (ffmpeg -i OLD -r {wanted:g} NEW), or choose parameters.fps"
        )
        notes = (*notes, note)
    return replace(one, fps=None, notes=notes)


def _tell(item: ItemConfig, inputs: Sequence[SampleInput]) -> None:
    """Log the notes, each once, with the inputs that have it."""
    by_note: dict[str, list[SampleInput]] = {}
    for one in inputs:
        for note in one.notes:
            by_note.setdefault(note, []).append(one)
    for note, having in by_note.items():
        more = f" and {len(having) - 1} more" if len(having) > 1 else ""
        shown = printable(f"{having[0].where}{more}: {having[0].visual_input}: {note}")
        logger.warning("item=%s %s", item.name, shown)
