"""Prompt upsampler and guardrails of the generate stage: their order, blocked inputs, errors that end the stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from support.auxiliary_models import (
    VERDICTS,
    filter_state,
    write_auxiliary_models,
    write_classifier,
    write_guardrails,
)
from support.generation import generate_config, inputs_of, read_json, read_list

from cosmos_worker.data.video.files import read_video
from cosmos_worker.errors import CheckpointError, DataError, UserError
from cosmos_worker.guardrails import (
    text_classifier,
    upsampler,
    video_filter,
)
from cosmos_worker.guardrails.blocklist import Blocklist
from cosmos_worker.guardrails.verdict import Blocked
from cosmos_worker.sample import records
from cosmos_worker.sample.inputs import collect_inputs
from cosmos_worker.sample.kept_passes import KeptPasses
from cosmos_worker.sample.prompts import prepare_prompts
from cosmos_worker.stages import generate
from cosmos_worker.storage.volumes import (
    FILTER_FILE,
    Volumes,
)
from cosmos_worker.text.t5 import T5Encoder

PROMPTS = ("a red cube", "a bomb", "a cube?")
VIOLENCE = (0, 0, 9, 0, 0, 0, 0)
# NVIDIA releases TorchScript, which PyTorch deprecates since 2.9
pytestmark = pytest.mark.filterwarnings(r"ignore:`torch\.jit\.\w+` is (deprecated|not supported)")


@pytest.fixture(scope="module")
def auxiliary_models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    return write_auxiliary_models(tmp_path_factory.mktemp("auxiliary-models"))


def guardrails(auxiliary_models: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {**auxiliary_models["guardrails"], **{name: str(path) for name, path in changes.items()}}


def videos_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("*.mp4"))


def test_blocked_inputs_have_a_record_and_no_video(
    models: Path, clips: list[Path], auxiliary_models: dict[str, Any], tmp_path: Path
) -> None:
    config = generate_config(
        models, tmp_path, inputs_of(clips, PROMPTS), guardrails=auxiliary_models["guardrails"]
    )

    result = generate.run(config, Volumes())

    assert (result["videos"], result["blocked"], result["kept"]) == (1, 2, 0)
    assert videos_in(tmp_path) == ["000.mp4"]
    listed = read_list(tmp_path)
    assert listed == [read_json(tmp_path / f"{i:03d}.json") for i in range(3)]
    assert [line.get("blocked") for line in listed] == [
        None,
        {"by": "blocklist", "reason": "'bomb' is on a list of words"},
        {"by": "text-classifier", "reason": "unsafe: S2"},
    ]
    assert listed[1]["video"] is None
    assert len(read_video(tmp_path / "000.mp4")) == 17


def test_guardrails_do_not_change_the_videos_that_they_let_through(
    models: Path, clips: list[Path], auxiliary_models: dict[str, Any], tmp_path: Path
) -> None:
    inputs = inputs_of(clips, ("a red cube", "a blue cube"))
    generate.run(generate_config(models, tmp_path / "without", inputs), Volumes())

    config = generate_config(
        models, tmp_path / "with", inputs, guardrails=auxiliary_models["guardrails"]
    )
    generate.run(config, Volumes())

    for name in ("000.mp4", "001.mp4"):
        assert (tmp_path / "with" / name).read_bytes() == (tmp_path / "without" / name).read_bytes()


def test_one_unsafe_frame_keeps_a_video_from_being_written(
    models: Path,
    clips: list[Path],
    auxiliary_models: dict[str, Any],
    tmp_path: Path,
) -> None:
    guards = guardrails(auxiliary_models, folder_uri=write_guardrails(tmp_path / "g", VIOLENCE))
    config = generate_config(
        models, tmp_path / "out", inputs_of(clips, PROMPTS)[:1], guardrails=guards
    )

    result = generate.run(config, Volumes())

    assert (result["videos"], result["blocked"]) == (0, 1)
    assert "seconds_per_video" not in result
    assert videos_in(tmp_path / "out") == []
    assert read_json(tmp_path / "out" / "000.json")["blocked"] == {
        "by": "video-filter",
        "reason": "17 of 17 frames are unsafe, the first is frame 0: violence",
    }


@pytest.mark.parametrize(("scores", "num_kept"), [(None, 1), (VIOLENCE, 0)])
def test_a_pass_with_an_unsafe_frame_is_not_kept(
    models: Path,
    clips: list[Path],
    auxiliary_models: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    scores: tuple[int, ...] | None,
    num_kept: int,
) -> None:
    kept: list[Path] = []
    remove = KeptPasses.remove
    monkeypatch.setattr(
        KeptPasses, "remove", lambda self: (kept.extend(self.folder.glob("*")), remove(self))
    )
    changes = {"folder_uri": write_guardrails(tmp_path / "g", scores)} if scores else {}
    guards = guardrails(auxiliary_models, **changes)
    config = generate_config(
        models, tmp_path / "out", inputs_of(clips, PROMPTS)[:1], guardrails=guards,
        sampling={"num_passes": 2},
    )  # fmt: skip

    result = generate.run(config, Volumes())

    assert len(kept) == num_kept
    assert result["videos"] == num_kept


def test_everything_happens_in_order(
    models: Path,
    clips: list[Path],
    auxiliary_models: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    order: list[str] = []

    def watch(owner: Any, name: str, word: str) -> None:
        true = getattr(owner, name)

        def called(*args: Any, **kwargs: Any) -> Any:
            if not order or order[-1] != word:
                order.append(word)
            return true(*args, **kwargs)

        monkeypatch.setattr(owner, name, called)

    watch(upsampler.PromptUpsampler, "write", "upsampler")
    watch(Blocklist, "check", "blocklist")
    watch(text_classifier.TextClassifier, "check", "classifier")
    watch(T5Encoder, "encode", "t5")
    watch(generate, "generate_videos", "sampler")
    watch(video_filter.VideoFilter, "check", "filter")
    watch(records, "write_video", "written")
    config = generate_config(models, tmp_path, inputs_of(clips, PROMPTS)[:1], **auxiliary_models)

    generate.run(config, Volumes())

    assert order == [
        "upsampler", "blocklist", "classifier", "t5", "sampler", "filter", "written",
    ]  # fmt: skip


def test_the_written_prompt_is_sampled_and_recorded_and_both_prompts_are_judged(
    models: Path, clips: list[Path], auxiliary_models: dict[str, Any], tmp_path: Path
) -> None:
    inputs = inputs_of(clips, ("a red cube", "a bomb"))
    config = generate_config(models, tmp_path / "long", inputs, **auxiliary_models)
    generate.run(config, Volumes())
    same = [{**inputs[0], "prompt": "A cube moves."}]
    generate.run(generate_config(models, tmp_path / "same", same), Volumes())

    record = read_json(tmp_path / "long" / "000.json")
    blocked = read_json(tmp_path / "long" / "001.json")

    assert (record["prompt"], record["final_prompt"]) == ("a red cube", "A cube moves.")
    assert read_json(tmp_path / "same" / "000.json")["video_sha256"] == record["video_sha256"]
    assert "final_prompt" not in read_json(tmp_path / "same" / "000.json")
    assert blocked["final_prompt"] == "A cube moves."  # harmless, but the user's own is not
    assert blocked["blocked"]["by"] == "blocklist"


def test_a_written_prompt_is_judged_too(
    models: Path, clips: list[Path], auxiliary_models: dict[str, Any], tmp_path: Path
) -> None:
    """The classifier is told to refuse what ends as the upsampler's sentence does."""
    strict = write_classifier(tmp_path / "strict", {**VERDICTS, ".": ("unsafe\nS2",)})
    guards = guardrails(auxiliary_models, text_classifier_uri=strict)
    config = generate_config(
        models,
        tmp_path / "out",
        inputs_of(clips, PROMPTS)[:1],
        **{**auxiliary_models, "guardrails": guards},
    )

    assert generate.run(config, Volumes())["blocked"] == 1


@pytest.fixture
def no_auxiliary_model_is_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any, **__: Any) -> None:
        raise AssertionError("an auxiliary model was loaded")

    for owner in (
        upsampler.PromptUpsampler,
        text_classifier.TextClassifier,
        video_filter.VideoFilter,
    ):
        monkeypatch.setattr(owner, "__init__", fail)


def test_finished_results_are_kept_without_loading_anything(
    models: Path,
    clips: list[Path],
    auxiliary_models: dict[str, Any],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    config = generate_config(models, tmp_path, inputs_of(clips, PROMPTS), **auxiliary_models)
    first = generate.run(config, Volumes())
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    request.getfixturevalue("no_auxiliary_model_is_loaded")
    second = generate.run(config, Volumes())

    assert second["kept"] == 3
    assert second["blocked"] == first["blocked"] == 2
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_interrupted_results_come_out_bit_equal(
    models: Path, clips: list[Path], auxiliary_models: dict[str, Any], tmp_path: Path
) -> None:
    inputs = inputs_of(clips, ("a red cube", "a bomb", "a blue cube"))
    config = generate_config(models, tmp_path, inputs, **auxiliary_models)
    generate.run(config, Volumes())
    wanted = (tmp_path / "002.mp4").read_bytes()
    (tmp_path / "002.json").unlink()
    (tmp_path / "001.json").unlink()

    result = generate.run(config, Volumes())

    assert (result["kept"], result["videos"], result["blocked"]) == (1, 2, 1)
    assert (tmp_path / "002.mp4").read_bytes() == wanted


def test_batches_after_an_interruption_are_those_of_all_inputs_that_were_sampled(
    models: Path, clips: list[Path], tmp_path: Path
) -> None:
    """An input that the video filter held back was sampled with the others, one that a text guardrail held was not."""
    config = generate_config(models, tmp_path, inputs_of(clips, PROMPTS))
    inputs = collect_inputs(config.inputs, None, Volumes())
    finished = {
        "000": {"prompt": "a", "blocked": Blocked("video-filter", "x").as_record()},
        "001": {
            "prompt": "b",
            "final_prompt": "c",
            "blocked": Blocked("blocklist", "x").as_record(),
        },
    }

    prompts = prepare_prompts(
        config, Volumes(), torch.device("cpu"), torch.float32, inputs, finished
    )

    assert [one.id for one in prompts.sampled] == ["000", "002"]
    assert prompts.final == {"000": "a", "001": "c", "002": PROMPTS[2]}
    assert prompts.blocked == {}


def test_other_guardrails_judge_again_and_take_earlier_videos_away(
    models: Path, clips: list[Path], auxiliary_models: dict[str, Any], tmp_path: Path
) -> None:
    folder = write_guardrails(tmp_path / "g")
    guards = guardrails(auxiliary_models, folder_uri=folder)
    config = generate_config(
        models, tmp_path / "out", inputs_of(clips, PROMPTS)[:1], guardrails=guards
    )
    generate.run(config, Volumes())
    assert videos_in(tmp_path / "out") == ["000.mp4"]

    (folder / "blocklist" / "custom" / "more").write_text("cube\n")
    result = generate.run(config, Volumes())

    assert (result["kept"], result["blocked"]) == (0, 1)
    assert videos_in(tmp_path / "out") == []


@pytest.mark.parametrize("left_out", ["guardrails", "prompt_upsampler_uri"])
def test_results_of_auxiliary_models_are_made_again_once_without_them(
    models: Path, clips: list[Path], auxiliary_models: dict[str, Any], tmp_path: Path, left_out: str
) -> None:
    inputs = inputs_of(clips, ("a red cube", "a bomb"))
    generate.run(generate_config(models, tmp_path, inputs, **auxiliary_models), Volumes())
    fewer = {name: value for name, value in auxiliary_models.items() if name != left_out}
    without = generate_config(models, tmp_path, inputs, **fewer)

    changed = generate.run(without, Volumes())
    again = generate.run(without, Volumes())

    blocked = int(left_out != "guardrails")
    assert [changed.get(name, 0) for name in ("kept", "blocked", "videos")] == [
        0,
        blocked,
        2 - blocked,
    ]
    assert ("final_prompt" in read_json(tmp_path / "000.json")) == (left_out == "guardrails")
    assert again["kept"] == 2


def test_results_without_auxiliary_models_are_kept(
    models: Path, clips: list[Path], tmp_path: Path
) -> None:
    config = generate_config(models, tmp_path, inputs_of(clips, PROMPTS)[:1])
    generate.run(config, Volumes())

    assert generate.run(config, Volumes())["kept"] == 1


def test_a_blocked_record_beside_a_video_is_made_again(
    models: Path, clips: list[Path], auxiliary_models: dict[str, Any], tmp_path: Path
) -> None:
    guards = auxiliary_models["guardrails"]
    config = generate_config(models, tmp_path, inputs_of(clips, ("a bomb",)), guardrails=guards)
    generate.run(config, Volumes())
    (tmp_path / "000.mp4").write_bytes(b"from elsewhere")

    result = generate.run(config, Volumes())

    assert result["kept"] == 0
    assert videos_in(tmp_path) == []


def break_auxiliary_models(folder: Path, change: str) -> None:
    if change == "adapter":
        (folder / "classifier" / "adapter_config.json").write_text("{}")
    elif change.startswith("no "):
        path = folder / change.removeprefix("no ")
        if path.is_dir():
            path.rename(folder / "elsewhere")
        else:
            path.unlink()
    else:
        torch.save({"model": filter_state((0,) * 3)}, folder / "guardrails" / FILTER_FILE)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ("no upsampler", CheckpointError, r"upsampler/config\.json: no such file"),
        ("no upsampler/processor_config.json", CheckpointError, "upsampler: .* prompt upsampler"),
        ("no guardrails", DataError, "guardrails/blocklist/custom: no list of words"),
        ("no guardrails/blocklist/exact_match/list", DataError, "exact_match: no list of words"),
        (f"no guardrails/{FILTER_FILE}", CheckpointError, r"safety_filter\.pt: no such file"),
        ("no classifier", CheckpointError, r"classifier/config\.json: no such file"),
        ("no classifier/chat_template.jinja", CheckpointError, "has no chat template"),
        ("no siglip", CheckpointError, r"siglip/config\.json: no such file"),
        ("no siglip/preprocessor_config.json", CheckpointError, "cannot load the image encoder"),
        ("adapter", CheckpointError, "an adapter"),
        ("classes", CheckpointError, "3 classes, the video filter has 7"),
    ],
)
def test_generate_refuses_auxiliary_models_that_are_not_there_before_anything_is_loaded(
    models: Path,
    clips: list[Path],
    tmp_path: Path,
    no_auxiliary_model_is_loaded: None,
    change: str,
    error: type[UserError],
    message: str,
) -> None:
    auxiliary_models = write_auxiliary_models(tmp_path / "auxiliary-models")
    break_auxiliary_models(tmp_path / "auxiliary-models", change)
    config = generate_config(
        models, tmp_path / "out", inputs_of(clips, PROMPTS)[:1], **auxiliary_models
    )

    with pytest.raises(error, match=message):
        generate.run(config, Volumes())

    assert not (tmp_path / "out").exists()


def test_a_classifier_that_raises_ends_the_stage_without_a_video(
    models: Path,
    clips: list[Path],
    auxiliary_models: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def fail(*_: Any) -> str:
        raise RuntimeError("broken")

    monkeypatch.setattr(text_classifier.TextClassifier, "ask", fail)
    config = generate_config(
        models,
        tmp_path / "out",
        inputs_of(clips, PROMPTS)[:1],
        guardrails=auxiliary_models["guardrails"],
    )

    with pytest.raises(RuntimeError, match="broken"):
        generate.run(config, Volumes())

    assert not (tmp_path / "out").exists()
