"""Whether upsampler and guardrails of an inference item could run on this machine, one line each.

The packages they need are imported where they are used, so that one that is absent is a line too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from cosmos_worker.config.stages import (
    GuardrailsConfig,
    ItemConfig,
)
from cosmos_worker.errors import UserError
from cosmos_worker.runtime.machine import Finding
from cosmos_worker.runtime.machine_check import Line
from cosmos_worker.storage.volumes import (
    FACE_FILE,
    FILTER_FILE,
    Volumes,
)

INSTALL = "install the extras 'worker' and 'guardrails' of this package"
READ = "give this user the right to read it, or fetch it again"


def auxiliary_model_lines(config: ItemConfig, volumes: Volumes) -> Iterator[Line]:
    """Look at the folders and packages of what the item asks for; nothing for what it does not."""
    if config.prompt_upsampler_uri is not None:
        uri = config.prompt_upsampler_uri
        yield _line("upsample", lambda: _look_at_upsampler(volumes.resolve(uri)))
    if config.guardrails is not None:
        yield from _guardrail_lines(config.guardrails, volumes)


def _guardrail_lines(guards: GuardrailsConfig, volumes: Volumes) -> Iterator[Line]:
    def resolve(uri: str) -> Path:
        return volumes.resolve(uri)

    yield _line("words", lambda: _look_at_words(resolve(guards.folder_uri)))
    yield _line("text", lambda: _look_at_classifier(resolve(guards.text_classifier_uri)))
    yield _line("siglip", lambda: _look_at_encoder(resolve(guards.image_encoder_uri)))
    yield _line("filter", lambda: _look_at_filter(resolve(guards.folder_uri)))
    if guards.face_blur:
        yield _line("faces", lambda: _look_at_faces(resolve(guards.folder_uri)))


def _line(name: str, look: Callable[[], str]) -> Line:
    """What a look found, or why it could not."""
    try:
        return Line(name, Finding(True, look()), True, "")
    except UserError as error:
        detail, _, remedy = str(error).rpartition("; ")  # as messages of the worker are made
        return Line(name, Finding(False, detail), True, remedy)
    except ImportError as error:
        package = f"needs the package {error.name or error}, which is not installed or broken"
        return Line(name, Finding(False, package), True, INSTALL)
    except OSError as error:
        reason = f"{error.filename or 'a file'}: cannot be read ({error.strerror or error})"
        return Line(name, Finding(False, reason), True, READ)


def _look_at_upsampler(folder: Path) -> str:
    from cosmos_worker.guardrails import upsampler

    upsampler.check_folder(folder)
    return _describe(folder, upsampler.WHAT)


def _look_at_words(folder: Path) -> str:
    from cosmos_worker.guardrails.blocklist import (
        Blocklist,
        list_files,
    )

    Blocklist(folder)
    return f"{folder}: {len(list_files(folder))} word lists"


def _look_at_classifier(folder: Path) -> str:
    from cosmos_worker.guardrails import text_classifier

    text_classifier.check_folder(folder)
    return _describe(folder, text_classifier.WHAT)


def _look_at_encoder(folder: Path) -> str:
    from cosmos_worker.guardrails import video_filter

    video_filter.check_encoder(folder)
    return _describe(folder, video_filter.ENCODER)


def _look_at_filter(folder: Path) -> str:
    from cosmos_worker.guardrails import video_filter

    video_filter.read_classifier(folder / FILTER_FILE)
    return f"{folder / FILTER_FILE}: {len(video_filter.CLASSES)} classes"


def _look_at_faces(folder: Path) -> str:
    from cosmos_worker.guardrails.retinaface import read_detector

    read_detector(folder / FACE_FILE)
    return f"{folder / FACE_FILE}: a RetinaFace network"


def _describe(folder: Path, what: str) -> str:
    from cosmos_worker.guardrails.pretrained import read_model_type

    return f"{folder}: {what} of type {read_model_type(folder, what)}"
