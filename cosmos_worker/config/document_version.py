"""Versions of the stage documents, which let an image of the worker be older or newer than the operator.

A document is written with as little as possible: an option that is newer than version 1 is left out while it has the
value that stands for what was done before, so that an older worker reads the document. Where such an option has
another value, the document states the version that it needs, and an older worker refuses it by that number. What an
older worker may do without stands in a file of its own beside the document, the hints. A document without a version is
of version 1. A newer worker reads older documents, because the default of a new option is what was done before. No
torch here.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from cosmos_worker.errors import ImageTooOld

if TYPE_CHECKING:
    from cosmos_worker.config.stages import StageConfig

VERSION_KEY = "version"
"""Key of a document that holds its version."""
HINTS_FILE = "hints.yaml"
"""File beside a document: path of an option → its value, for options that an older worker may do without."""


@dataclass(frozen=True)
class Addition:
    """An option, or values of an option, that the first version of the documents did not have."""

    version: int
    """The version of the documents that has it first, from 2."""
    earlier: tuple[Any, ...]
    """Values, as JSON, that stand for what was done before."""
    later: tuple[Any, ...] = ()
    """Values, as JSON, that are new where all others stand for what was done before; instead of ``earlier``."""
    is_option: bool = True
    """True if the option itself is new and can be left out; False if only further values of it are."""
    is_hint: bool = False
    """True if a worker that does not know the option may do without it, whatever its value."""

    instead: Any = None
    """For a hint of an option that is not new: the value that an older worker gets in place of one of ``later``."""

    def is_earlier(self, value: object) -> bool:
        """True for a value that stands for what was done before."""
        return value not in self.later if self.later else value in self.earlier


CHECKS_OF_NAME = {
    name: Addition(2, (None,), is_hint=True)
    for name in (
        "job",
        "published_uri",
    )  # an older worker finds a name that is taken when it publishes
}
TOKENIZER_RUNTIME = {"tokenizer_runtime": Addition(2, ("native",), is_hint=True)}
"""An older worker always runs the programs in a tokenizer's files, which give the same numbers within rounding."""


def _left_to_the_gpu(instead: int | str) -> Addition:
    """Addition of the value ``auto``, for which an older worker takes what any GPU can do."""
    return Addition(2, (), later=("auto",), is_option=False, is_hint=True, instead=instead)


ADDITIONS: dict[str, dict[str, Addition]] = {
    "train": {
        "experiment.trainer.save_every_minutes": Addition(2, (None,)),
        "experiment.trainer.validation_windows": Addition(2, (), is_hint=True),
        "experiment.trainer.micro_batch_size": _left_to_the_gpu(1),
        "experiment.parallel.activation_checkpointing": _left_to_the_gpu("block"),
        "experiment.acceleration.attention": _left_to_the_gpu("torch"),
        "start_from": Addition(2, (None,)),
        "experiment.acceleration.compile": Addition(2, ("auto",)),
        **CHECKS_OF_NAME,
        **TOKENIZER_RUNTIME,
    },
    "check-inputs": CHECKS_OF_NAME,
    "cache-latents": TOKENIZER_RUNTIME,
    "generate": {
        **TOKENIZER_RUNTIME,
        "embeddings_uri": Addition(2, (None,), is_hint=True),
        "compile": Addition(2, ("auto",)),
    },
    "report": {
        name: Addition(2, (), later=(None,), is_option=False) for name in ("run_uri", "dataset_uri")
    },
}
"""Stage → path of an option in its document → what was added; ``*`` in a path stands for every item of a list."""
DOCUMENT_VERSION = max(
    (one.version for of_stage in ADDITIONS.values() for one in of_stage.values()), default=1
)
"""The latest version of the documents, which this worker reads with all earlier ones."""


def dump_document(stage: str, document: StageConfig) -> dict[str, Any]:
    """A document as JSON for a worker of any version that can do what it asks for.

    Args:
        stage: the stage of the document.
        document: the complete document.
    """
    values = document.model_dump(mode="json")
    needed = 1
    for path, addition in ADDITIONS.get(stage, {}).items():
        for block, name in _places(values, path.split(".")):
            if addition.is_hint and addition.is_option:
                del block[name]
            elif addition.is_hint:
                block[name] = block[name] if addition.is_earlier(block[name]) else addition.instead
            elif not addition.is_earlier(block[name]):
                needed = max(needed, addition.version)
            elif addition.is_option:
                del block[name]
    return {VERSION_KEY: needed, **values} if needed > 1 else values


def dump_hints(stage: str, document: StageConfig) -> dict[str, Any]:
    """The options of a document that an older worker may do without, by path, for the file beside it."""
    values = document.model_dump(mode="json")
    return {
        path: block[name]
        for path, addition in ADDITIONS.get(stage, {}).items()
        if addition.is_hint
        for block, name in _places(values, path.split("."))
        if not addition.is_earlier(block[name])
    }


def with_hints(stage: str, document: dict[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    """A document with the hints that this worker knows; those of newer versions are ignored."""
    values = copy.deepcopy(document)
    for path, addition in ADDITIONS.get(stage, {}).items():
        if addition.is_hint and path in hints:
            *blocks, name = path.split(".")
            block = values
            for one in blocks:
                block = block.setdefault(one, {})
            block[name] = hints[path]
    return values


def without_version(document: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A document as it was read, without its version.

    Args:
        document: the document.
        where: its file, for messages.

    Raises:
        ImageTooOld: the document needs a newer worker.
    """
    values = dict(document)
    version = values.pop(VERSION_KEY, 1)
    if not isinstance(version, int) or version > DOCUMENT_VERSION:
        raise ImageTooOld(
            f"{where}: the job asks for something that this image cannot do yet: its document is of version {version}, "
            f"the image reads versions 1 to {DOCUMENT_VERSION}; give a newer image in spec.compute.image, or omit it "
            "for that of the installation"
        )
    return values


def _places(values: Any, path: list[str]) -> Iterator[tuple[dict[str, Any], str]]:  # noqa: ANN401 - JSON
    """(block, name) of every option at a path; none where a block of the path is absent."""
    first, *rest = path
    if first == "*":
        for item in values if isinstance(values, list) else ():
            yield from _places(item, rest)
    elif isinstance(values, dict) and first in values:
        if rest:
            yield from _places(values[first], rest)
        else:
            yield values, first
