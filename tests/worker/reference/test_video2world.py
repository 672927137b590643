"""The reference's inference command line, on a tree of tiny models."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from support.auxiliary_models import write_auxiliary_models
from support.faces import write_face_detector
from support.generation import TINY_NET, generate_config, moving_square, write_clips, write_models
from support.training import CORRECTED, with_correction

from cosmos_worker.arguments import build_parser
from cosmos_worker.cli import main
from cosmos_worker.config.presets import (
    NET_7B,
    NET_14B,
)
from cosmos_worker.config.sampling import SamplingConfig
from cosmos_worker.data.video.files import (
    open_video,
    read_video,
)
from cosmos_worker.errors import ConfigError
from cosmos_worker.reference.video2world_flags import named_network, sampling_values
from cosmos_worker.stages import generate
from cosmos_worker.storage.volumes import (
    FACE_FILE,
    Volumes,
)
from cosmos_worker.weights.adapter import (
    Adapter,
    write_adapter,
)

# NVIDIA releases TorchScript, which PyTorch deprecates since 2.9
pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is (deprecated|not supported)")

NAME = "Tiny-Video2World"
SMALL = (
    *("--num_video_frames", "17", "--height", "32", "--width", "64", "--fps", "4"),
    *("--num_steps", "3", "--guidance", "0", "--seed", "7"),
)
UNGUARDED = ("--disable_guardrail", "--disable_prompt_upsampler")


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of checkpoints as the reference has it: NAME/model.pt, a tokenizer, an encoder."""
    root = tmp_path_factory.mktemp("checkpoints")
    write_models(root)
    (root / NAME).mkdir()
    (root / "model.pt").rename(root / NAME / "model.pt")
    (root / NAME / "model.json").write_text(json.dumps({"net": TINY_NET.model_dump()}))
    return root


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return write_clips(tmp_path, 1)[0]


def flags(tree: Path, folder: Path, *more: str) -> list[str]:
    return [
        *("video2world", "--checkpoint_dir", str(tree), "--diffusion_transformer_dir", NAME),
        *("--tokenizer_dir", "tokenizer", "--tokenizer_runtime", "torchscript"),
        *("--text_encoder_dir", "encoder"),
        *("--video_save_folder", str(folder), *SMALL, *UNGUARDED, *more),
    ]


def single(clip: Path) -> tuple[str, ...]:
    return ("--prompt", " push the cube ", "--input_image_or_video_path", str(clip))


def test_command_writes_the_video_and_the_prompt(tree: Path, clip: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"

    assert main(flags(tree, out, *single(clip), "--video_save_name", "cube")) == 0

    assert (out / "cube.txt").read_text() == "push the cube"
    video = open_video(out / "cube.mp4")
    assert video.num_frames == 17
    assert read_video(out / "cube.mp4").shape == (17, 32, 64, 3)


def test_command_gives_the_video_of_the_stage(tree: Path, clip: Path, tmp_path: Path) -> None:
    main(flags(tree, tmp_path / "out", *single(clip), "--num_passes", "2"))

    sampling = {"seed": 7, "num_passes": 2, "input_frames": "last", "batch_size": 1}
    config = generate_config(
        tree,
        tmp_path / "stage",
        [{"prompt": "push the cube", "visual_input_uri": str(clip), "id": "output"}],
        sampling=sampling,
        checkpoint_uri=str(tree / NAME / "model.pt"),
        text={"max_length": 512},
        tokenizer={"chunk_pixel_frames": 121, "dtype": "float32"},
    )
    generate.run(config, Volumes())
    mine, stage = (tmp_path / folder / "output.mp4" for folder in ("out", "stage"))
    assert mine.read_bytes() == stage.read_bytes()
    assert open_video(mine).num_frames == 33


def test_adapter_in_the_folder_of_the_weights_counts(
    tree: Path, clip: Path, tmp_path: Path
) -> None:
    corrected = shutil.copytree(tree, tmp_path / "tree")
    weights = torch.load(tree / NAME / "model.pt", weights_only=True)
    A, B = list(with_correction(weights)[0].values())[-2:]
    layer = CORRECTED.removesuffix(".weight")
    adapter = Adapter({f"{layer}.lora_A": A, f"{layer}.lora_B": B}, alpha=4.0)
    write_adapter(corrected / NAME, adapter)

    for folder in (tree, corrected):
        assert main(flags(folder, tmp_path / f"of-{folder.name}", *single(clip))) == 0

    plain, other = (tmp_path / f"of-{folder.name}" / "output.mp4" for folder in (tree, corrected))
    assert plain.read_bytes() != other.read_bytes()


def test_batch_is_named_by_its_lines(
    tree: Path, clip: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(moving_square()[0]).save(tmp_path / "first.png")
    lines = [("clip-0.mp4", "push"), ("first.png", "lift")]
    folder = tmp_path / "lists"
    folder.mkdir()
    batch = folder / "batch.jsonl"
    batch.write_text(
        "".join(json.dumps({"visual_input": path, "prompt": text}) + "\n" for path, text in lines)
    )
    monkeypatch.chdir(tmp_path)  # relative paths begin here, as in the reference
    out = tmp_path / "out"

    assert main(flags(tree, out, "--batch_input_path", str(batch))) == 0

    assert {path.name for path in out.glob("*.mp4")} == {"0.mp4", "1.mp4"}
    assert [(out / f"{number}.txt").read_text() for number in range(2)] == ["push", "lift"]


def test_tokenizer_folder_counts(
    tree: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = main(flags(tree, tmp_path / "out", *single(clip), "--tokenizer_dir", "elsewhere"))

    assert code == 2
    assert "elsewhere: no encoder.jit" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("remove", "add", "message"),
    [
        (("--disable_guardrail",), (), "--guardrail_dir: "),
        (("--disable_guardrail",), (), "go on without it by --disable_guardrail"),
        (("--disable_prompt_upsampler",), (), "Pixtral-12B is no folder; fetch it"),
        ((), ("--batch_input_path", "x.jsonl"), "--prompt: is for a single video, but --batch"),
        ((), ("--num_gpus", "0"), "--num_gpus: got 0; use 1 or more"),
        ((), ("--num_video_frames", "16"), "num_pixel_frames: 16 is not 8n+1; use 9 or 17"),
        ((), ("--height", "40"), "height: 40 is not a multiple of 16"),
        ((), ("--video_save_name", "../x"), "the command line: id: got '../x'"),
        ((), ("--diffusion_transformer_dir", "gone"), "gone: no such weight file"),
        ((), ("--experiment", "tiny"), "experiment: got 'tiny'; did you mean"),
        ((), ("--input_image_or_video_path", "gone.mp4"), "visual_input: no such file gone.mp4"),
        ((), ("--prompt", " "), "prompt: is blank"),
    ],
)
def test_wrong_flags_are_explained(
    tree: Path,
    clip: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    remove: tuple[str, ...],
    add: tuple[str, ...],
    message: str,
) -> None:
    given = [one for one in flags(tree, tmp_path / "out", *single(clip)) if one not in remove]

    assert main([*given, *add]) == 2

    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("missing", ["--prompt", "--input_image_or_video_path"])
def test_missing_flags_are_named(
    tree: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    given = list(single(clip))
    position = given.index(missing)

    assert main(flags(tree, tmp_path, *given[:position], *given[position + 2 :])) == 2

    assert f"{missing}: is missing; give it, or --batch_input_path" in capsys.readouterr().err


def test_bad_lines_of_a_batch_are_named_before_sampling(
    tree: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = tmp_path / "batch.jsonl"
    good = {"visual_input": str(clip), "prompt": "a"}
    lines = [good, {**good, "visual_input": ""}, {**good, "prompt": ""}]
    batch.write_text("".join(json.dumps(line) + "\n" for line in lines))

    assert main(flags(tree, tmp_path / "out", "--batch_input_path", str(batch))) == 2

    told = capsys.readouterr().err
    assert f"{batch}:2: visual_input: no such file" in told
    assert f"{batch}:3: prompt: is blank" in told
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("key", ["id", "ground_truth"])
def test_keys_that_would_have_no_effect_are_refused(
    tree: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], key: str
) -> None:
    batch = tmp_path / "batch.jsonl"
    batch.write_text(json.dumps({"visual_input": str(clip), "prompt": "a", key: str(clip)}) + "\n")

    assert main(flags(tree, tmp_path / "out", "--batch_input_path", str(batch))) == 2

    assert f"{batch}:1: id and ground_truth are for inference items" in capsys.readouterr().err


def test_too_short_video_of_a_batch_is_named_by_its_line(
    tree: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    batch = tmp_path / "batch.jsonl"
    picture = tmp_path / "first.png"
    Image.fromarray(moving_square()[0]).save(picture)
    lines = [{"visual_input": str(path), "prompt": "a"} for path in (clip, picture)]
    batch.write_text("".join(json.dumps(line) + "\n" for line in lines))

    code = main(
        flags(tree, tmp_path / "out", "--batch_input_path", str(batch), "--num_input_frames", "9")
    )

    assert code == 2
    assert f"{batch}:2: visual_input: {picture} is an image, but" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("folder", "network"),
    [
        ("Cosmos-Predict1-7B-Video2World", NET_7B),
        ("Cosmos-Predict1-14B-Video2World", NET_14B),
        ("Cosmos-Predict1-7B-Video2World_post-trained", NET_7B),
        ("Cosmos-Predict1-14B-Video2World_post-trained", NET_14B),
        ("Cosmos-Predict1-7B-Video2World_post-trained_lora", NET_7B),
        ("Cosmos-Predict1-7B-Video2World_instruction_post-trained", NET_7B),
        ("Cosmos-Predict1-7B-Text2World", None),
        (NAME, None),
    ],
)
def test_name_of_the_folder_says_the_network(folder: str, network: object) -> None:
    assert named_network(folder) == network


def test_defaults_are_the_references() -> None:
    options = build_parser().parse_args(["video2world"])

    assert (options.num_steps, options.guidance, options.num_video_frames) == (35, 7, 121)
    assert (options.height, options.width, options.fps, options.seed) == (704, 1280, 24, 1)
    assert (options.num_input_frames, options.num_gpus) == (1, 1)
    assert options.tokenizer_dir == "Cosmos-Tokenize1-CV8x8x8-720p"
    assert isinstance(options, argparse.Namespace)


def test_negative_prompt_is_read_from_a_file(tmp_path: Path) -> None:
    file = tmp_path / "negative.txt"
    file.write_text("\ufeff blurry \n", encoding="utf-8")
    options = build_parser().parse_args(["video2world", "--negative_prompt_file", str(file)])

    assert SamplingConfig(**sampling_values(options)).guided_away_from == "blurry"
    file.unlink()
    with pytest.raises(ConfigError, match=r"--negative_prompt_file: .*negative\.txt: No such file"):
        sampling_values(options)


def test_negative_prompt_is_given_once() -> None:
    given = ["--negative_prompt", "a", "--negative_prompt_file", "b"]

    with pytest.raises(SystemExit):
        build_parser().parse_args(["video2world", *given])


def test_help_imports_no_torch() -> None:
    program = (
        "import sys; from cosmos_worker.cli import main\n"
        "try: main(['video2world', '--help'])\n"
        "except SystemExit: pass\n"
        "sys.exit('torch' in sys.modules)"
    )

    subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)


@pytest.mark.multiproc
@pytest.mark.timeout(300)
def test_gpus_share_the_frames(
    tree: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def given(folder: str, num_gpus: int) -> list[str]:
        return flags(tree, tmp_path / folder, *single(clip), "--num_gpus", str(num_gpus))

    assert main(given("one", 1)) == 0
    shared = subprocess.run(
        [sys.executable, "-m", "cosmos_worker.cli", *given("three", 3)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert shared.returncode == 0, shared.stderr

    one, three = (read_video(tmp_path / f / "output.mp4").astype(int) for f in ("one", "three"))
    assert np.abs(one - three).mean() < 0.5  # sums of another order: float32 rounding
    assert (tmp_path / "three" / "output.txt").read_text() == "push the cube"
    assert main(given("two", 2)) == 2
    refusal = "--num_gpus: 2 does not divide the 3 latent frames of 17 pixel frames"
    assert refusal in capsys.readouterr().err


def test_what_is_not_disabled_writes_prompts_and_holds_inputs_back(
    tree: Path, clip: Path, tmp_path: Path
) -> None:
    write_auxiliary_models(tmp_path)
    write_face_detector(tmp_path / "guardrails" / FACE_FILE)
    batch = tmp_path / "batch.jsonl"
    batch.write_text(
        "".join(
            json.dumps({"visual_input": str(clip), "prompt": text}) + "\n"
            for text in ("push", "a bomb")
        )
    )
    out = tmp_path / "out"
    given = [one for one in flags(tree, out) if one not in UNGUARDED]
    places = {
        "--prompt_upsampler_dir": "upsampler",
        "--guardrail_dir": "guardrails",
        "--text_classifier_dir": "classifier",
        "--image_encoder_dir": "siglip",
    }
    for flag, name in places.items():
        given += [flag, str(tmp_path / name)]

    assert main([*given, "--batch_input_path", str(batch)]) == 0

    assert [path.name for path in out.glob("*.mp4")] == ["0.mp4"]
    assert (out / "0.txt").read_text() == "A cube moves."
    assert not (out / "1.txt").exists()
    assert json.loads((out / "1.json").read_text())["blocked"]["by"] == "blocklist"
    assert "frames_with_faces" in json.loads((out / "0.json").read_text())


def test_guardrails_without_the_network_that_finds_faces_end_the_command(
    tree: Path, clip: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_auxiliary_models(tmp_path)
    given = [one for one in flags(tree, tmp_path / "out", *single(clip)) if one not in UNGUARDED]

    code = main([*given, "--guardrail_dir", str(tmp_path / "guardrails")])

    assert code == 2
    assert f"{FACE_FILE} is no file, which finds the faces that are blurred" in (
        capsys.readouterr().err
    )
    assert not (tmp_path / "out").exists()
