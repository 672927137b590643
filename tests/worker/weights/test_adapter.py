"""Export of LoRA corrections alone: PEFT's form, which with the base gives exactly the merged export."""

from __future__ import annotations

import importlib.util
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from support.training import (
    SMALL_NET,
    run_path,
    small_experiment,
    small_model,
    train_config,
    with_correction,
    write_model,
    write_training_inputs,
)
from torch import Tensor

from cosmos_worker.cli import main
from cosmos_worker.config.stages import FetchModelConfig, PublishConfig
from cosmos_worker.config.training import LoraConfig
from cosmos_worker.errors import CheckpointError, ConfigError, DataError
from cosmos_worker.stages import fetch_model, publish
from cosmos_worker.stages import train as train_stage
from cosmos_worker.storage.volumes import (
    EXPORT_FOLDER,
    Volumes,
)
from cosmos_worker.train.export import prune_exports
from cosmos_worker.weights.adapter_reading import read_adapter
from cosmos_worker.weights.convert import convert_weights
from cosmos_worker.weights.diffusers import diffusers_names
from cosmos_worker.weights.files import digest_weights, find_adapter
from cosmos_worker.weights.load import (
    load_model,
    read_weight_file,
    save_weight_file,
)
from cosmos_worker.weights.safetensors import Limits

LORA = LoraConfig(rank=3, alpha=8, targets=("q", "v", "mlp"))
EXPERIMENT = small_experiment(lora=LORA, max_steps=4)
PARTS = ("adapter_config.json", "adapter_model.safetensors")
PLACES = [f"blocks.{j}.block.attn.to_{which}.0" for j in (0, 1) for which in "qv"]
PLACES += ["blocks.2.block.layer1", "blocks.2.block.layer2"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with model.pt, the base, and out/, in which a run has trained corrections of it."""
    root = tmp_path_factory.mktemp("lora")
    write_training_inputs(root)
    write_model(root / "model.pt")
    train_stage.run(train_config(root, EXPERIMENT), Volumes())
    return root


def export_of(trained: Path, weights: str, step: int = 4) -> Path:
    return run_path(trained / "out") / EXPORT_FOLDER / f"iter_{step:09d}_{weights}_model.pt"


def together(folder: Path, base: Path, adapter: Path) -> Path:
    """A new folder with the base's weights and an adapter of them."""
    if base.is_dir():
        shutil.copytree(base, folder)
    else:
        folder.mkdir()
        shutil.copy(base, folder / base.name)
    for name in PARTS:
        shutil.copy(adapter / name, folder / name)
    return folder


def check_same_bits(
    state: Mapping[str, Tensor], expected: Mapping[str, Tensor], dtype: torch.dtype
) -> None:
    assert set(state) == set(expected)
    for name, value in expected.items():
        assert torch.equal(state[name].to(dtype), value), name


def export(source: Path, target: Path, *options: str) -> int:
    arguments = ["export", "--adapter", "--from", str(source), "--to", str(target), *options]
    return main([*arguments, "--format", "safetensors"] if "--format" not in options else arguments)


# --- the same weights ------------------------------------------------------------------------


@pytest.mark.parametrize(("weights", "dtype"), [("ema", torch.float32), ("reg", torch.bfloat16)])
@pytest.mark.parametrize("form", ["pt", "safetensors"])
def test_base_and_adapter_are_the_merged_weights_to_the_bit(
    trained: Path, tmp_path: Path, weights: str, dtype: torch.dtype, form: Any
) -> None:
    merged = export_of(trained, weights)
    base = tmp_path / "base"
    convert_weights(trained / "model.pt", base, form, SMALL_NET, Limits())

    folder = together(tmp_path / "both", base, find_adapter(merged))

    loaded, expected = read_weight_file(folder), read_weight_file(merged)
    check_same_bits(loaded, expected, dtype)
    before = read_weight_file(base)
    changed = {name for name, value in loaded.items() if not torch.equal(value, before[name])}
    layers = {f"net.blocks.block{i}.{place}.weight" for i in (0, 1) for place in PLACES}
    assert changed == layers | {"logvar.1.weight"}
    load_model(folder, SMALL_NET)


def test_base_in_bfloat16_that_is_frozen_in_bfloat16_is_no_matter_of_rounding(
    trained: Path, tmp_path: Path
) -> None:
    save_weight_file(tmp_path / "model.pt", small_model().state_dict(), torch.bfloat16)
    diffusion = EXPERIMENT.diffusion.model_copy(update={"compute_dtype": "bfloat16"})
    chosen = EXPERIMENT.model_copy(update={"diffusion": diffusion})
    config = train_config(trained, chosen, tmp_path / "out")
    train_stage.run(config.model_copy(update={"model_uri": str(tmp_path / "model.pt")}), Volumes())
    merged = export_of(tmp_path, "ema")

    folder = together(tmp_path / "both", tmp_path / "model.pt", find_adapter(merged))

    check_same_bits(read_weight_file(folder), read_weight_file(merged), torch.float32)


def test_a_file_is_loaded_without_the_adapter_beside_it(trained: Path, tmp_path: Path) -> None:
    adapter = find_adapter(export_of(trained, "ema"))
    folder = together(tmp_path / "both", trained / "model.pt", adapter)

    plain = read_weight_file(trained / "model.pt")
    check_same_bits(read_weight_file(folder / "model.pt"), plain, torch.float32)
    assert digest_weights(folder) != digest_weights(folder / "model.pt")


def test_adapter_with_the_names_of_diffusers(trained: Path, tmp_path: Path) -> None:
    merged = export_of(trained, "ema")
    base = tmp_path / "base"
    convert_weights(trained / "model.pt", base, "diffusers", SMALL_NET, Limits())

    assert export(merged, tmp_path / "adapter", "--format", "diffusers") == 0

    names = load_file(tmp_path / "adapter" / PARTS[1])
    assert "base_model.model.transformer_blocks.1.attn2.to_v.lora_B.weight" in names
    config = json.loads((tmp_path / "adapter" / PARTS[0]).read_text())
    assert config["target_modules"][:2] == ["attn1.to_q", "attn1.to_v"]
    assert config["modules_to_save"] is None
    loaded = read_weight_file(together(tmp_path / "both", base, tmp_path / "adapter"))
    expected = dict(read_weight_file(merged)) | {
        name: value for name, value in read_weight_file(base).items() if name.startswith("logvar.")
    }
    del expected["net.pos_embedder.seq"]  # which diffusers does not save
    check_same_bits(loaded, expected, torch.float32)


# --- PEFT's form -----------------------------------------------------------------------------


@pytest.mark.parametrize("weights", ["ema", "reg"])
def test_files_are_those_of_peft(trained: Path, weights: str) -> None:
    adapter = find_adapter(export_of(trained, weights))

    config = json.loads((adapter / PARTS[0]).read_text())
    with safe_open(adapter / PARTS[1], framework="pt") as file:
        names, metadata = set(file.keys()), file.metadata()
        types = {file.get_tensor(name).dtype for name in names}
    assert sorted(path.name for path in adapter.iterdir()) == sorted(PARTS)
    assert metadata == {"format": "pt"}
    assert types == {torch.float32}
    prefix = "base_model.model."
    heads = {f"{prefix}{name}" for name in small_model().state_dict() if name.startswith("logvar.")}
    layers = [f"{prefix}net.blocks.block{i}.{place}" for i in (0, 1) for place in PLACES]
    assert names == heads | {f"{layer}.lora_{part}.weight" for layer in layers for part in "AB"}
    wanted = {
        "peft_type": "LORA",
        "r": 3,
        "lora_alpha": 8,
        "target_modules": PLACES,
        "modules_to_save": ["logvar"],
        "base_model_name_or_path": str(trained / "model.pt"),
    }
    assert wanted.items() <= config.items()


def test_targets_name_the_corrected_layers_and_no_other(trained: Path) -> None:
    adapter = read_adapter(find_adapter(export_of(trained, "ema")))
    targets = [f".{target}" for target in PLACES]  # a module is meant whose name ends so

    modules = [name for name, _ in small_model().named_modules()]
    assert {name for name in modules if name.endswith(tuple(targets))} == set(adapter.layers)


with_peft = pytest.mark.skipif(
    importlib.util.find_spec("peft") is None, reason="peft is not installed"
)


@with_peft
@pytest.mark.filterwarnings("ignore")  # warnings of its imports
def test_peft_loads_and_merges_to_the_same_weights(trained: Path) -> None:
    from peft import PeftModel

    merged = export_of(trained, "ema")
    base = load_model(trained / "model.pt", SMALL_NET)

    model = PeftModel.from_pretrained(base, str(find_adapter(merged))).merge_and_unload()

    state = model.state_dict()
    expected = read_weight_file(merged)
    assert set(state) == set(expected)
    for name, value in expected.items():
        torch.testing.assert_close(state[name], value, rtol=0, atol=1e-7)


@with_peft
@pytest.mark.filterwarnings("ignore")  # warnings of its imports
def test_peft_loads_the_adapter_onto_the_network_of_diffusers(
    trained: Path, tmp_path: Path
) -> None:
    from diffusers import CosmosTransformer3DModel
    from peft import PeftModel

    convert_weights(trained / "model.pt", tmp_path / "base", "diffusers", SMALL_NET, Limits())
    merged = export_of(trained, "ema")
    assert export(merged, tmp_path / "adapter", "--format", "diffusers") == 0
    base = CosmosTransformer3DModel.from_pretrained(tmp_path / "base" / "transformer")

    model = PeftModel.from_pretrained(base, str(tmp_path / "adapter")).merge_and_unload()

    expected, state = read_weight_file(merged), model.state_dict()
    for name, theirs in diffusers_names(SMALL_NET.num_blocks).items():
        torch.testing.assert_close(state[theirs], expected[name], rtol=0, atol=1e-7)


@with_peft
@pytest.mark.filterwarnings("ignore")  # warnings of its imports
def test_adapter_that_peft_has_saved_is_merged_as_peft_merges_it(
    trained: Path, tmp_path: Path
) -> None:
    from peft import LoraConfig as PeftConfig
    from peft import get_peft_model

    config = PeftConfig(r=2, lora_alpha=6, target_modules=["attn.to_k.0"], init_lora_weights=False)
    model = get_peft_model(small_model(), config)
    model.save_pretrained(str(tmp_path / "adapter"))

    folder = together(tmp_path / "both", trained / "model.pt", tmp_path / "adapter")

    expected = model.merge_and_unload().state_dict()
    for name, value in read_weight_file(folder).items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-6)


# --- the command -----------------------------------------------------------------------------


def test_export_takes_the_folder_of_a_run_and_names_the_base(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = run_path(trained / "out") / EXPORT_FOLDER

    assert export(source, tmp_path / "a", "--base", "nvidia/X", "--dtype", "bfloat16") == 0

    assert "layers=12 rank=3 base=nvidia/X" in capsys.readouterr().err
    tensors = load_file(tmp_path / "a" / PARTS[1])
    own = load_file(find_adapter(export_of(trained, "ema")) / PARTS[1])
    assert {name: value.to(torch.bfloat16) for name, value in own.items()}.keys() == tensors.keys()
    assert all(torch.equal(tensors[name], own[name].to(torch.bfloat16)) for name in own)
    assert (
        json.loads((tmp_path / "a" / PARTS[0]).read_text())["base_model_name_or_path"] == "nvidia/X"
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--format", "pt"], "--format: got pt; an adapter is written as safetensors or diffusers"),
        (["--lora-scale", "2"], "--lora-scale: is of no use with --adapter; leave it out"),
        (["--experiment", "x"], "--experiment: is of no use with --adapter; leave it out"),
        (["--max-shard-gib", "2"], "--max-shard-gib: is of no use with --adapter; leave it out"),
        ([], "model.pt has no adapter ("),
    ],
)
def test_export_explains_what_it_cannot_do(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], message: str
) -> None:  # fmt: skip
    assert export(trained / "model.pt", tmp_path / "out", *options) == 2

    assert message in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_base_without_an_adapter_is_refused(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--from", str(trained / "model.pt"), "--to", str(tmp_path / "out")]

    assert main(["export", *places, "--format", "pt", "--base", "x"]) == 2

    assert "--base: got x, which --adapter alone writes" in capsys.readouterr().err


# --- what cannot be merged -------------------------------------------------------------------


def change_config(**values: object) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        path = folder / PARTS[0]
        path.write_text(json.dumps(json.loads(path.read_text()) | values))

    return change


def change_tensors(
    change: Callable[[dict[str, Tensor]], dict[str, Tensor]],
) -> Callable[[Path], None]:
    def write(folder: Path) -> None:
        save_file(change(load_file(folder / PARTS[1])), folder / PARTS[1])

    return write


def renamed(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name.replace("block1", "block7"): value for name, value in tensors.items()}


def wider(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {n: torch.zeros(3, 9) if n.endswith("lora_A.weight") else t for n, t in tensors.items()}


def halves(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    lost = "block1.blocks.1.block.attn.to_q.0.lora_A.weight"
    return {name: value for name, value in tensors.items() if not name.endswith(lost)}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda folder: (folder / PARTS[0]).unlink(), r"adapter_config\.json: no such file"),
        (lambda folder: (folder / PARTS[0]).write_text("{"), r"adapter_config\.json: not JSON"),
        (change_config(peft_type="LOHA"), r"peft_type: got 'LOHA'; only 'LORA'"),
        (change_config(bias="all"), r"uses bias=.all., which cannot"),
        (change_config(r=0), r"r: got 0; expected a whole number"),
        (change_config(lora_alpha=-1), r"lora_alpha: got -1; expected a positive number"),
        (change_config(r=4), r"has shapes A \(3, 32\), B \(\d+, 3\); expected A \(4, in\)"),
        (change_tensors(renamed), r"is of another network: 6 of its weights .*block7.*model\.pt"),
        (change_tensors(wider), r"corrects .* as \(\d+, 9\), which is \(\d+, \d+\); put it beside"),
        (change_tensors(halves), r"lacks .*net\.blocks\.block1\.blocks\.1.*to_q\.0\.lora_A"),
        (change_tensors(lambda t: {"a": torch.zeros(1)}), r"holds no lora_A and lora_B"),
        (lambda folder: (folder / "model.pt").unlink(), r"holds a LoRA adapter and not the network"),
    ],
)  # fmt: skip
def test_adapter_that_cannot_be_merged_is_refused(
    trained: Path, tmp_path: Path, change: Callable[[Path], None], message: str
) -> None:
    adapter = find_adapter(export_of(trained, "ema"))
    folder = together(tmp_path / "both", trained / "model.pt", adapter)
    change(folder)

    with pytest.raises(CheckpointError, match=message):
        read_weight_file(folder)


def test_scale_of_peft_is_alpha_by_the_root_of_the_rank_where_it_is_asked_for(
    trained: Path, tmp_path: Path
) -> None:
    adapter = find_adapter(export_of(trained, "ema"))
    folder = together(tmp_path / "both", trained / "model.pt", adapter)
    change_config(use_rslora=True)(folder)

    assert read_adapter(folder).scale == pytest.approx(8 / 3**0.5)


def test_scale_beside_an_adapter_is_refused(trained: Path, tmp_path: Path) -> None:
    adapter = find_adapter(export_of(trained, "ema"))
    folder = together(tmp_path / "both", trained / "model.pt", adapter)

    with pytest.raises(ConfigError, match=r"model\.pt holds no LoRA corrections; leave it out"):
        read_weight_file(folder, lora_scale=1)


# --- what is made of it ----------------------------------------------------------------------


def test_training_from_base_and_adapter_begins_where_the_other_ended(
    trained: Path, tmp_path: Path
) -> None:
    merged = export_of(trained, "ema")
    folder = together(tmp_path / "both", trained / "model.pt", find_adapter(merged))
    once = small_experiment(lora=LORA, max_steps=1)

    for name, weights in (("merged", merged), ("both", folder)):
        config = train_config(trained, once, tmp_path / f"of-{name}")
        train_stage.run(config.model_copy(update={"model_uri": str(weights)}), Volumes())

    files = [
        run_path(tmp_path / f"of-{name}") / EXPORT_FOLDER / "iter_000000001_ema_model.pt"
        for name in ("merged", "both")
    ]
    check_same_bits(*(read_weight_file(file) for file in files), torch.float32)
    adapter = read_adapter(find_adapter(files[1]))
    assert adapter.base == str(folder)
    assert adapter.tensors[f"{adapter.layers[0]}.lora_B"].abs().max() < 2e-3, "begun from zero"


def test_adapter_of_a_base_with_corrections_of_its_own(trained: Path, tmp_path: Path) -> None:
    (tmp_path / "base").mkdir()
    corrected, _ = with_correction(small_model().state_dict())
    torch.save(corrected, tmp_path / "base" / "model.pt")
    config = train_config(trained, EXPERIMENT, tmp_path / "out").model_copy(
        update={"model_uri": str(tmp_path / "base"), "model_lora_scale": 2.0}
    )
    train_stage.run(config, Volumes())
    merged = export_of(tmp_path, "ema")

    folder = together(tmp_path / "both", tmp_path / "base", find_adapter(merged))

    state = read_weight_file(folder, lora_scale=2)
    check_same_bits(state, read_weight_file(merged), torch.float32)


def test_adapters_go_with_the_weights_that_contain_them(trained: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(run_path(trained / "out"), run)

    prune_exports(run, keep=1)

    left = sorted(path.name for path in (run / EXPORT_FOLDER).glob("iter_*"))
    kinds = ("ema_adapter", "ema_model.pt", "reg_adapter", "reg_model.pt")
    assert left == [f"iter_000000004_{kind}" for kind in kinds]


def publish_config(trained: Path, target: Path, **options: Any) -> PublishConfig:
    fields = {"key": "k", "job": "arm", "name": "arm", "net": SMALL_NET, **options}
    return PublishConfig(target_uri=str(target), run_uri=str(run_path(trained / "out")), **fields)


def test_published_adapter_is_that_of_the_published_weights(trained: Path, tmp_path: Path) -> None:
    target = tmp_path / "arm"
    publish.run(publish_config(trained, target, step=2, adapter_of="nvidia/X"), Volumes())

    facts = json.loads((target / "model.json").read_text())
    assert facts["adapter"] == {"rank": 3, "alpha": 8, "base": "nvidia/X"}
    folder = together(tmp_path / "both", trained / "model.pt", target / "adapter")
    merged = read_weight_file(export_of(trained, "ema", 2))
    check_same_bits(read_weight_file(folder), merged, torch.float32)
    check_same_bits(read_weight_file(target), merged, torch.float32)  # and not twice
    assert export(target, tmp_path / "exported") == 0

    publish.run(publish_config(trained, target, step=4), Volumes())
    assert not (target / "adapter").exists(), "it belongs to other weights"


def test_publish_without_the_adapter_that_is_asked_for_leaves_what_was(
    trained: Path, tmp_path: Path
) -> None:
    run = tmp_path / "out"
    shutil.copytree(trained / "out", run)
    shutil.rmtree(find_adapter(export_of(tmp_path, "ema")))
    target = tmp_path / "arm"
    publish.run(publish_config(tmp_path, target), Volumes())
    before = (target / "model.pt").read_bytes()

    with pytest.raises(CheckpointError, match=r"iter_000000004_ema_model\.pt has no adapter"):
        publish.run(publish_config(tmp_path, target, weights="ema", adapter_of="x"), Volumes())

    assert (target / "model.pt").read_bytes() == before


def fetch(source: Path, target: Path) -> None:
    artifact = {
        "kind": "model",
        "name": "Tiny",
        "source": {"path": str(source)},
        "target_uri": str(target),
    }
    config = {"key": "k", "target_uri": str(target.parent), "artifacts": [artifact]}
    fetch_model.run(FetchModelConfig.model_validate(config), Volumes())


def test_fetched_model_has_the_adapter_that_lies_beside_it(trained: Path, tmp_path: Path) -> None:
    merged = export_of(trained, "ema")
    folder = together(tmp_path / "both", trained / "model.pt", find_adapter(merged))

    fetch(folder, tmp_path / "models" / "Tiny")

    fetched = tmp_path / "models" / "Tiny"
    check_same_bits(read_weight_file(fetched), read_weight_file(merged), torch.float32)
    with pytest.raises(
        DataError, match=r"adapter_model\.safetensors would be merged, which was not"
    ):
        fetch(trained / "model.pt", fetched)
    (folder / PARTS[0]).unlink()
    with pytest.raises(DataError, match=r"lacks adapter_config\.json for a model"):
        fetch(folder, tmp_path / "models" / "Other")
