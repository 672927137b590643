"""The flags of the reference's inference command line, and their translation to a generate document. No torch here.

Names and defaults: cosmos-predict1, diffusion/inference/video2world.py. Differs: ``--tokenizer_dir``, ``--height``,
``--width`` and ``--prompt`` have an effect, any 8n+1 frames are admitted, and an unsupported value is an error.
"""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cosmos_worker.errors import ConfigError
from cosmos_worker.storage.volumes import FACE_FILE

if TYPE_CHECKING:
    from cosmos_worker.config.network import NetConfig

COMMAND = "video2world"
NETWORK_NAME = re.compile(r"Cosmos-Predict1-(?P<size>7B|14B)-Video2World([_-].*)?")
"""Folder names that state the network: those of the released models, also with a suffix such as _post-trained."""
DEFAULT_NAME = "output"


def add_flags(command: argparse.ArgumentParser) -> None:
    """Add the reference's flags, and ours for models for which the reference has no flag."""
    _add_models(command)
    _add_inputs(command)
    _add_sampling(command)
    _add_switches(command)


def _add_models(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--checkpoint_dir", type=Path, default=Path("checkpoints"), metavar="FOLDER")
    add(
        "--diffusion_transformer_dir",
        default="Cosmos-Predict1-7B-Video2World",
        metavar="NAME",
        help="folder of the weights below checkpoint_dir; its name or its model.json says which network it is",
    )
    add("--tokenizer_dir", default="Cosmos-Tokenize1-CV8x8x8-720p", metavar="NAME")
    add(
        "--tokenizer_runtime",
        choices=("native", "torchscript"),
        default="native",
        help="ours: torchscript runs the programs in the tokenizer's files, as the reference does",
    )
    add("--text_encoder_dir", default="google-t5/t5-11b", metavar="NAME", help="ours")
    add(
        "--experiment",
        metavar="NAME",
        help="ours: experiment whose network, text and tokenizer settings count",
    )
    add("--prompt_upsampler_dir", default="Pixtral-12B", metavar="NAME")
    add("--guardrail_dir", default="guardrail", metavar="NAME", help="ours")
    add("--text_classifier_dir", default="Llama-Guard-3-8B", metavar="NAME", help="ours")
    add(
        "--image_encoder_dir",
        default="siglip-so400m-patch14-384",
        metavar="NAME",
        help="ours: SigLIP, whose features the guardrail's video filter takes",
    )


def _add_inputs(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--prompt", metavar="TEXT")
    add("--input_image_or_video_path", type=Path, metavar="FILE")
    add("--num_input_frames", type=int, choices=(1, 9), default=1)
    add(
        "--batch_input_path",
        type=Path,
        metavar="FILE.jsonl",
        help='lines of {"visual_input": PATH, "prompt": TEXT} instead of one prompt and input',
    )
    negative = command.add_mutually_exclusive_group()
    negative.add_argument(
        "--negative_prompt",
        metavar="TEXT",
        help="default: a text of ours, which is not the reference's: other videos",
    )
    negative.add_argument(
        "--negative_prompt_file",
        type=Path,
        metavar="FILE",
        help="ours: file with that text, UTF-8, such as the reference's default",
    )
    add(
        "--video_save_name",
        metavar="NAME",
        help=f"without suffix (default: {DEFAULT_NAME}); those of a batch are called by their line, from 0",
    )
    add("--video_save_folder", type=Path, default=Path("outputs"), metavar="FOLDER")


def _add_sampling(command: argparse.ArgumentParser) -> None:
    add = command.add_argument
    add("--num_steps", type=int, default=35, metavar="N")
    add("--guidance", type=float, default=7.0, metavar="G")
    add("--num_video_frames", type=int, default=121, metavar="N", help="8n+1; of each pass")
    add("--num_passes", type=int, default=1, metavar="N", help="ours: each continues the video")
    add("--height", type=int, default=704, metavar="PIXELS")
    add("--width", type=int, default=1280, metavar="PIXELS")
    add("--fps", type=float, default=24.0, metavar="N")
    add(
        "--fit",
        choices=("stretch", "crop", "pad"),
        default="stretch",
        help="ours: how an input of another aspect ratio is brought to the size; the reference always stretches",
    )
    add("--seed", type=int, default=1, metavar="N")
    add(
        "--num_gpus",
        type=int,
        default=1,
        metavar="N",
        help="processes that share the frames of each video; they are started, unless torchrun has",
    )


def _add_switches(command: argparse.ArgumentParser) -> None:
    for name, text in (
        ("disable_guardrail", "prompts and videos are not judged, faces not blurred"),
        ("disable_prompt_upsampler", "the prompt is taken as it is"),
        ("offload_diffusion_transformer", "the network waits in host memory"),
        ("offload_tokenizer", "the tokenizer waits in host memory"),
        ("offload_text_encoder_model", "the text encoder is freed, as it always is"),
        ("offload_prompt_upsampler", "it is freed after use, as it always is"),
        ("offload_guardrail_models", "the text classifier is freed, as it always is"),
    ):
        command.add_argument(f"--{name}", action="store_true", help=text)


def check_flags(options: argparse.Namespace) -> None:
    """Check that the flags do not contradict each other, and that none is missing.

    Raises:
        ConfigError: with every problem, by the names of the flags.
    """
    problems = []
    single = ("prompt", "input_image_or_video_path")
    given = [name for name in (*single, "video_save_name") if getattr(options, name) is not None]
    if options.batch_input_path is not None:
        problems += [
            f"--{name}: is for a single video, but --batch_input_path is given too; give one of them"
            for name in given
        ]
    else:
        problems += [
            f"--{name}: is missing; give it, or --batch_input_path for a list"
            for name in single
            if name not in given
        ]
    if options.num_gpus < 1:
        problems.append(f"--num_gpus: got {options.num_gpus}; use 1 or more")
    if problems:
        raise ConfigError("; ".join(problems))


def named_network(folder: str) -> NetConfig | None:
    """The network that the name of a folder states; None for other names."""
    from cosmos_worker.config.presets import NET_7B, NET_14B

    match = NETWORK_NAME.fullmatch(Path(folder).name)
    return None if match is None else {"7B": NET_7B, "14B": NET_14B}[match["size"]]


def sampling_values(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of SamplingConfig. Of a video the last frames are known, which is its default and the reference's rule."""
    return {
        "num_steps": options.num_steps,
        "guidance": options.guidance,
        "seed": options.seed,
        "num_pixel_frames": options.num_video_frames,
        "num_passes": options.num_passes,
        "height": options.height,
        "width": options.width,
        "fps": options.fps,
        "num_input_frames": options.num_input_frames,
        "negative_prompt": _negative_prompt(options),
    }


def _negative_prompt(options: argparse.Namespace) -> str | None:
    """The text that guidance moves away from; None = the default of ours.

    Raises:
        ConfigError: a file that cannot be read as UTF-8 text.
    """
    path: Path | None = options.negative_prompt_file
    if path is None:
        text: str | None = options.negative_prompt
        return text
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise ConfigError(
            f"--negative_prompt_file: {path}: {reason}; give a text file in UTF-8"
        ) from None


def offloaded_models(options: argparse.Namespace) -> tuple[Literal["tokenizer", "network"], ...]:
    """Names of the models that wait in host memory while they are not at work."""
    names: list[Literal["tokenizer", "network"]] = []
    if options.offload_tokenizer:
        names.append("tokenizer")
    if options.offload_diffusion_transformer:
        names.append("network")
    return tuple(names)


def auxiliary_models(options: argparse.Namespace) -> dict[str, Any]:
    """Fields of the generate document for upsampler and guardrails, as far as they are not disabled.

    Raises:
        ConfigError: a folder that is absent; the message names the flag that disables what needs it.
    """
    wanted = {
        "prompt_upsampler": ("prompt_upsampler_dir",),
        "guardrail": ("guardrail_dir", "text_classifier_dir", "image_encoder_dir"),
    }
    wanted = {key: names for key, names in wanted.items() if not getattr(options, f"disable_{key}")}
    folders = {
        name: options.checkpoint_dir / getattr(options, name)
        for names in wanted.values()
        for name in names
    }
    problems = [
        f"--{name}: {folders[name]} is no folder; fetch it, name another, or go on without it by --disable_{key}"
        for key, names in wanted.items()
        for name in names
        if not folders[name].is_dir()
    ]
    folder = folders.get("guardrail_dir")
    if folder is not None and folder.is_dir() and not (folder / FACE_FILE).is_file():
        problems.append(
            f"--guardrail_dir: {folder / FACE_FILE} is no file, which finds the faces that are blurred; "
            "fetch it, or go on without guardrails by --disable_guardrail"
        )
    if problems:
        raise ConfigError("; ".join(problems))
    fields: dict[str, Any] = {}
    if "prompt_upsampler" in wanted:
        fields["prompt_upsampler_uri"] = str(folders["prompt_upsampler_dir"])
    if "guardrail" in wanted:
        fields["guardrails"] = {
            "folder_uri": str(folders["guardrail_dir"]),
            "text_classifier_uri": str(folders["text_classifier_dir"]),
            "image_encoder_uri": str(folders["image_encoder_dir"]),
            "face_blur": True,
        }
    return fields
