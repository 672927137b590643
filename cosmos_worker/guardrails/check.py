"""Checks that upsampler and guardrails of an inference item could run on this machine, one line each.

The packages they need are imported where they are used, so that one that is absent is a line too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

from cosmos_worker.config.stages import GuardrailsConfig, ItemConfig
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
    """Check folders and packages of the upsampler and the guardrails that an item asks for; no line for others."""
    if config.prompt_upsampler_uri is not None:
        uri = config.prompt_upsampler_uri
        yield _check_line("upsample", lambda: _check_upsampler(volumes.resolve(uri)))
    if config.guardrails is not None:
        yield from _guardrail_lines(config.guardrails, volumes)


def _guardrail_lines(config: GuardrailsConfig, volumes: Volumes) -> Iterator[Line]:
    def resolve(uri: str) -> Path:
        return volumes.resolve(uri)

    yield _check_line("words", lambda: _check_words(resolve(config.folder_uri)))
    yield _check_line("text", lambda: _check_classifier(resolve(config.text_classifier_uri)))
    yield _check_line("siglip", lambda: _check_encoder(resolve(config.image_encoder_uri)))
    yield _check_line("filter", lambda: _check_filter(resolve(config.folder_uri)))
    if config.face_blur:
        yield _check_line("faces", lambda: _check_faces(resolve(config.folder_uri)))


def _check_line(name: str, check: Callable[[], str]) -> Line:
    """A line with what a check found, or with the reason why it failed and a remedy."""
    try:
        return Line(name, Finding(True, check()), True, "")
    except UserError as error:
        detail, _, remedy = str(error).rpartition("; ")  # as messages of the worker are made
        return Line(name, Finding(False, detail), True, remedy)
    except ImportError as error:
        package = f"needs the package {error.name or error}, which is not installed or broken"
        return Line(name, Finding(False, package), True, INSTALL)
    except OSError as error:
        reason = f"{error.filename or 'a file'}: cannot be read ({error.strerror or error})"
        return Line(name, Finding(False, reason), True, READ)


def _check_upsampler(folder: Path) -> str:
    from cosmos_worker.guardrails import upsampler

    upsampler.check_folder(folder)
    return _describe(folder, upsampler.ROLE)


def _check_words(folder: Path) -> str:
    from cosmos_worker.guardrails.blocklist import (
        Blocklist,
        list_files,
    )

    Blocklist(folder)
    return f"{folder}: {len(list_files(folder))} word lists"


def _check_classifier(folder: Path) -> str:
    from cosmos_worker.guardrails import text_classifier

    text_classifier.check_folder(folder)
    return _describe(folder, text_classifier.ROLE)


def _check_encoder(folder: Path) -> str:
    from cosmos_worker.guardrails import video_filter

    video_filter.check_encoder(folder)
    return _describe(folder, video_filter.ENCODER_ROLE)


def _check_filter(folder: Path) -> str:
    from cosmos_worker.guardrails import video_filter

    video_filter.read_classifier(folder / FILTER_FILE)
    return f"{folder / FILTER_FILE}: {len(video_filter.CLASSES)} classes"


def _check_faces(folder: Path) -> str:
    from cosmos_worker.guardrails.retinaface import read_detector

    read_detector(folder / FACE_FILE)
    return f"{folder / FACE_FILE}: a RetinaFace network"


def _describe(folder: Path, role: str) -> str:
    from cosmos_worker.guardrails.pretrained import read_model_type

    return f"{folder}: {role} of type {read_model_type(folder, role)}"
