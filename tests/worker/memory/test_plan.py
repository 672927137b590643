"""Memory arithmetic against the network itself, and against the sizes of the recipes."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from support import fake_transformer_engine
from support.training import SMALL_NET, small_experiment
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode

from cosmos_worker.config.network import NetConfig
from cosmos_worker.config.presets import (
    EXPERIMENTS,
    NET_7B,
    NET_14B,
    NET_TINY,
)
from cosmos_worker.config.training import (
    AccelerationConfig,
    LoraConfig,
    has_8bit_states,
)
from cosmos_worker.config.values import GIB
from cosmos_worker.errors import ConfigError
from cosmos_worker.memory.activations import Checkpointing, block_activation_bytes, kept_block_bytes
from cosmos_worker.memory.plan import (
    Setup,
    check_setup,
    copies_bytes,
    loading_bytes,
    plan_memory,
    saving_bytes,
)
from cosmos_worker.memory.remedies import (
    find_remedies,
    require_fit,
)
from cosmos_worker.memory.sizes import (
    checkpoint_bytes,
    lora_parameters,
    net_size,
    optimizer_bytes,
    product_parameters,
    quantised_parameters,
    trained_parameters,
    weight_bytes,
)
from cosmos_worker.model.dit import CosmosDiT, CosmosModel
from cosmos_worker.model.lora import add_lora
from cosmos_worker.train.transformer_engine import replace_products

BRIDGE = EXPERIMENTS["video2world_instruction_bridge_57frames"]
BRIDGE_14B = EXPERIMENTS["video2world_instruction_bridge_57frames_14b"]
PLAIN = EXPERIMENTS["video2world_7b_example_cosmos_nemo_assets"]


@pytest.mark.parametrize(
    ("net", "parameters", "entries"),
    [
        (NET_7B, 7_236_208_640, 571),
        (NET_7B.model_copy(update={"extra_pos_emb": "none"}), 7_234_701_312, 568),
        (NET_14B, 14_267_169_792, 731),
        (NET_TINY, None, 91),
        (SMALL_NET.model_copy(update={"mlp_ratio": 2.5}), None, 51),
    ],
)
def test_size_is_that_of_the_network(net: NetConfig, parameters: int | None, entries: int) -> None:
    with torch.device("meta"):
        model = CosmosDiT(net, extra_pos_emb=net.extra_pos_emb != "none")

    size = net_size(net)

    assert size.parameters == sum(p.numel() for p in model.parameters())
    assert size.block_parameters == sum(p.numel() for p in model.blocks["block0"].parameters())
    assert size.entries == len(model.state_dict()) == entries
    assert parameters in (None, size.parameters)


# --- activations -----------------------------------------------------------------------------


def saved_bytes_of_a_block(
    net: NetConfig,
    latent: tuple[int, int, int, int],
    text_tokens: int,
    width: int,
    float8: bool = False,
) -> int:
    """Bytes that autograd, or with float8 Transformer Engine, saves for one block more, on tensors without storage.

    Weights and their rounded copies, which have transposed shapes, are counted elsewhere.
    """

    def saved(num_blocks: int) -> int:
        B, T, H, W = latent
        found: dict[int, torch.Tensor] = {}
        with FakeTensorMode():
            model = CosmosDiT(net.model_copy(update={"num_blocks": num_blocks}), True)
            if float8:
                recipe = fake_transformer_engine.Float8CurrentScaling()
                replace_products(model.blocks, fake_transformer_engine.engine(), recipe)
            own = {p.untyped_storage()._cdata for p in model.parameters()}

            def keep(tensor: torch.Tensor) -> torch.Tensor:
                found.setdefault(tensor.untyped_storage()._cdata, tensor)
                return tensor

            with (
                torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor),
                torch.autocast("cpu", torch.bfloat16, enabled=width == 2),
            ):
                output = model(
                    torch.randn(B, net.latent_channels, T, H, W),
                    torch.randn(B),
                    torch.randn(B, text_tokens, net.text_channels),
                    torch.zeros(B, 1, T, H, W),
                    torch.ones(B),
                )
            del output
        kinds = (nn.Linear, fake_transformer_engine.Linear)
        linears = [tuple(m.weight.shape) for m in model.modules() if isinstance(m, kinds)]
        rounded = {(columns, rows) for rows, columns in linears} | ({*linears} if float8 else set())
        return sum(
            tensor.untyped_storage().nbytes()
            for storage, tensor in found.items()
            if storage not in own and tuple(tensor.shape) not in rounded
        )

    return saved(2) - saved(1)


@pytest.mark.parametrize("width", [2, 4])
@pytest.mark.parametrize(
    ("net", "latent", "text_tokens"),
    [
        (NET_7B, (1, 8, 32, 40), 512),
        (NET_7B, (2, 3, 16, 16), 64),
        (NET_TINY.model_copy(update={"mlp_ratio": 2.0}), (8, 3, 16, 20), 33),
    ],
)
def test_activations_are_what_autograd_saves(
    net: NetConfig, latent: tuple[int, int, int, int], text_tokens: int, width: int
) -> None:
    B, T, H, W = latent
    tokens = B * T * H * W // net.patch_size**2

    estimate = block_activation_bytes(net, tokens, B * text_tokens, width)

    # the formula leaves out modulations, (B, 3D), and the statistics of norms, (B, L, N)
    saved = saved_bytes_of_a_block(net, latent, text_tokens, width)
    assert estimate == pytest.approx(saved, rel=0.02)


@pytest.mark.parametrize(
    ("net", "latent", "text_tokens"),
    [
        (NET_7B, (1, 8, 32, 40), 512),
        (NET_TINY.model_copy(update={"mlp_ratio": 2.0}), (8, 3, 16, 32), 32),
    ],
)
def test_layers_of_transformer_engine_keep_their_inputs_in_float8(
    net: NetConfig, latent: tuple[int, int, int, int], text_tokens: int
) -> None:
    B, T, H, W = latent
    tokens = B * T * H * W // net.patch_size**2

    estimate = block_activation_bytes(net, tokens, B * text_tokens, 2, float8_inputs=True)

    saved = saved_bytes_of_a_block(net, latent, text_tokens, 2, float8=True)
    assert estimate == pytest.approx(saved, rel=0.02)
    assert estimate < 0.94 * block_activation_bytes(net, tokens, B * text_tokens, 2)


def test_plan_counts_layers_of_transformer_engine() -> None:
    linear = AccelerationConfig(linear="transformer_engine_float8")
    engine = BRIDGE.model_copy(update={"acceleration": linear})
    plain, found = plan_memory(Setup(BRIDGE)), plan_memory(Setup(engine))

    assert found.activations < plain.activations
    # in the place of weights rounded to bfloat16 there are two copies in float8
    assert replace(found, setup=plain.setup, activations=plain.activations) == plain
    with pytest.raises(
        ConfigError, match=r"selective cannot keep .* 'transformer_engine_float8'; use block"
    ):
        check_setup(Setup(engine, activation_checkpointing="selective"))
    assert not any("selective" in one.arguments for one in find_remedies(Setup(engine)))


def test_checkpointing_keeps_less() -> None:
    def kept(checkpointing: Checkpointing) -> int:
        return kept_block_bytes(NET_7B, 2560, 512, 2, checkpointing)

    assert kept("block") == 2560 * 4096 * 4  # the float32 input of the block
    assert kept("block") < kept("selective") < kept("none") / 2


def test_twice_the_samples_or_half_the_tokens() -> None:
    one = plan_memory(Setup(BRIDGE))
    halved = plan_memory(Setup(BRIDGE, context_parallel=2))

    # the captions and the block that is recomputed are not shared
    assert one.activations / 2 < halved.activations < 0.6 * one.activations


# --- states ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setup", "gigabytes"),
    [
        (Setup(BRIDGE, num_gpus=1), 144.7),
        (Setup(BRIDGE, sharding="full"), 18.1),
        (Setup(BRIDGE, num_gpus=4, gpus_per_node=4, sharding="full"), 36.2),
        (Setup(BRIDGE_14B, sharding="full"), 35.7),
        (Setup(PLAIN.model_copy(update={"ema": PLAIN.ema.model_copy(update={"enabled": False})}),
               num_gpus=1), 115.8),
    ],
)  # fmt: skip
def test_states_have_20_bytes_a_parameter(setup: Setup, gigabytes: float) -> None:
    plan = plan_memory(setup)

    states = plan.weights + plan.gradients + plan.optimizer + plan.ema
    assert states / 1e9 == pytest.approx(gigabytes, abs=0.06)


@pytest.mark.parametrize("targets", [("q", "v"), ("q", "k", "v", "out", "mlp")])
def test_low_rank_counts_equal_the_network(targets: tuple[str, ...]) -> None:
    lora = LoraConfig(rank=3, targets=targets)
    with torch.device("meta"):
        model = CosmosModel(SMALL_NET, extra_pos_emb=True)
    add_lora(model, lora, torch.bfloat16)
    experiment = small_experiment(lora=lora)

    net = list(model.net.parameters())
    assert trained_parameters(experiment) == sum(p.numel() for p in net if p.requires_grad)
    held = sum(p.numel() * p.element_size() for p in net)
    assert weight_bytes(experiment, 2) == held


@pytest.mark.parametrize("net", [NET_7B, NET_14B, NET_TINY, SMALL_NET])
@pytest.mark.parametrize("lora", [LoraConfig(), LoraConfig(rank=256, targets=("q", "k", "mlp"))])
def test_moments_of_8_bits_are_counted_by_the_shapes_of_the_network(
    net: NetConfig, lora: LoraConfig
) -> None:
    experiment = small_experiment(lora=lora).model_copy(update={"net": net})
    optimizer = experiment.optimizer.model_copy(update={"state_bits": 8})
    with torch.device("meta"):
        model = CosmosModel(net, extra_pos_emb=True)
    if lora.rank:
        add_lora(model, lora, torch.bfloat16)

    found = quantised_parameters(experiment.model_copy(update={"optimizer": optimizer}))

    shapes = [p.shape for p in model.net.parameters() if p.requires_grad]
    assert found == sum(shape.numel() for shape in shapes if has_8bit_states(shape))
    assert quantised_parameters(experiment) == 0


def test_moments_of_8_bits_of_the_7b_take_a_quarter() -> None:
    optimizer = BRIDGE.optimizer.model_copy(update={"state_bits": 8})
    small = optimizer_bytes(BRIDGE.model_copy(update={"optimizer": optimizer}))

    assert small / optimizer_bytes(BRIDGE) == pytest.approx(0.254, abs=0.001)


def test_float8_layers_are_counted_by_the_network() -> None:
    with torch.device("meta"):
        block = CosmosDiT(NET_7B, extra_pos_emb=True).blocks["block0"]
    layers = [one for name, one in block.named_modules() if "block." in name]

    assert product_parameters(NET_7B) == sum(
        one.weight.numel() for one in layers if isinstance(one, nn.Linear)
    )


def test_node_holds_the_checkpoint_and_the_exports_while_they_are_written() -> None:
    parameters = net_size(BRIDGE.net).parameters
    eight = saving_bytes(Setup(BRIDGE, sharding="full"))
    sixteen = saving_bytes(Setup(BRIDGE, num_gpus=16, sharding="full"))

    # weights, moments and average of all; the file of the average
    assert eight == pytest.approx(parameters * (16 + 4), rel=1e-6)
    assert sixteen == pytest.approx(parameters * (8 + 4), rel=1e-6)
    assert saving_bytes(Setup(BRIDGE, sharding="none")) == eight
    assert loading_bytes(Setup(BRIDGE)) == 2 * parameters


def test_hybrid_sharding_is_within_its_group() -> None:
    batch = BRIDGE.trainer.model_copy(update={"global_batch_size": 16})
    setup = Setup(
        BRIDGE.model_copy(update={"trainer": batch}),
        num_gpus=16,
        gpus_per_node=8,
        sharding="hybrid",
    )

    assert setup.num_shards == 8
    assert plan_memory(setup).weights == plan_memory(Setup(BRIDGE, sharding="full")).weights
    assert replace(setup, shard_group_size=4).num_shards == 4


def test_copies_of_weights_and_gradients() -> None:
    size = net_size(NET_7B)

    assert copies_bytes(size, sharded=False, num_gpus=1, width=4) == 0
    assert copies_bytes(size, sharded=False, num_gpus=1, width=2) == 2 * size.parameters
    assert copies_bytes(size, sharded=False, num_gpus=2, width=2) == 6 * size.parameters
    one_block = copies_bytes(size, sharded=False, num_gpus=1, width=2, recomputed=True)
    assert one_block == 2 * (size.outer_parameters + size.block_parameters)
    float8 = copies_bytes(
        size, False, 1, 2, recomputed=True, float8_parameters=size.block_parameters
    )
    assert float8 == 2 * size.outer_parameters
    gathered = copies_bytes(size, sharded=True, num_gpus=8, width=2)
    assert gathered == 10 * size.block_parameters + 2 * size.outer_parameters


def test_checkpoints_on_disk() -> None:
    experiment = small_experiment(keep_last=1, keep_exports=2)

    # 16 bytes of weights, moments and EMA; 6 of exports in bfloat16 and float32; one more of each while writing
    assert checkpoint_bytes(experiment) == net_size(SMALL_NET).parameters * (16 * 2 + 6 * 3)


def test_adapters_on_disk() -> None:
    lora = LoraConfig(rank=2)
    experiment = small_experiment(lora=lora, keep_last=1, keep_exports=2)
    whole, learned = net_size(SMALL_NET).parameters, lora_parameters(SMALL_NET, lora)

    # corrections, float32: 16 bytes in a checkpoint, 8 as adapters
    assert checkpoint_bytes(experiment) == whole * 6 * 3 + learned * (16 * 2 + 8 * 3)


# --- refusals --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("setup", "message"),
    [
        (Setup(BRIDGE, num_gpus=12), r"gpus: 12 do not fill nodes of 8"),
        (
            Setup(BRIDGE, sharding="hybrid", shard_group_size=3),
            r"shard group size: 3 does not divide 8",
        ),
        (Setup(BRIDGE, context_parallel=3), r"context parallel: 3 does not divide 8 GPUs"),
        (
            Setup(BRIDGE, num_gpus=16),
            r"global_batch_size: 8 is not a multiple of the 16 groups .* or fewer GPUs",
        ),
    ],
)
def test_numbers_that_do_not_divide_are_refused(setup: Setup, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        check_setup(setup)


def test_all_problems_are_reported_together() -> None:
    with pytest.raises(ConfigError) as caught:
        check_setup(Setup(BRIDGE, num_gpus=12, context_parallel=5))

    assert len(str(caught.value).splitlines()) == 2


def test_what_fits_is_accepted() -> None:
    require_fit(plan_memory(Setup(BRIDGE, sharding="full")))


@pytest.mark.parametrize(
    ("setup", "advice"),
    [
        (
            Setup(BRIDGE),
            r"207\.5 GiB on every GPU of 8, which has 80\.0 GiB; it fits with parallel.sharding=full \(51",
        ),
        (
            Setup(BRIDGE, num_gpus=1),
            r"it fits with parallel.activation_checkpointing=block optimizer.state_bits=8 ema.enabled=false "
            r"\(7\d\.\d GiB\), or with --gpus 2 parallel.sharding=full parallel.activation_checkpointing=block",
        ),
        (
            Setup(PLAIN, sharding="full"),
            r"it fits with parallel.activation_checkpointing=block \(76\.6 GiB\)$",
        ),
        (
            Setup(BRIDGE_14B),
            r"it fits with parallel.sharding=full parallel.activation_checkpointing=selective",
        ),
        (Setup(BRIDGE, num_gpus=1, gpu_memory=4 * GIB), r"no option makes it fit; use GPUs with more memory"),
    ],
)  # fmt: skip
def test_what_cannot_fit_is_refused_with_what_would(setup: Setup, advice: str) -> None:
    with pytest.raises(ConfigError, match=advice):
        require_fit(plan_memory(setup))


@pytest.mark.parametrize("gigabytes", [24, 40, 80, 141])
@pytest.mark.parametrize("num_gpus", [1, 2, 4, 8])
def test_every_remedy_fits(num_gpus: int, gigabytes: int) -> None:
    for experiment in EXPERIMENTS.values():
        setup = Setup(experiment, num_gpus, min(8, num_gpus), gigabytes * GIB)
        for remedy in find_remedies(setup):
            assert plan_memory(remedy.setup).fits
            assert remedy.setup != setup
            assert remedy.arguments
