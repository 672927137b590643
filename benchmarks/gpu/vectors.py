"""The reference's tensors of tests/data/vectors against ours on the device, in float32 and in bfloat16.

In float32 the tolerances are those of the tests on the CPU (tests/worker). In bfloat16 the tolerance is a relative
error, twice what our code has on a CPU in bfloat16 (AMD EPYC, torch 2.15, on 2026-11-30); for the loss, a single number
of which luck decides (2.6e-4), four times that.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.gpu.worker import Job
from cosmos_worker.diffusion.edm import Noise, denoise, edm_loss, loss_weight, scalings
from cosmos_worker.diffusion.known_frames import KnownFrames
from cosmos_worker.diffusion.samplers import (
    edm_euler_sigmas,
    guide,
    res_sigmas,
    sample_edm_euler,
    sample_res,
)
from cosmos_worker.model.dit import CosmosDiT, CosmosModel
from cosmos_worker.model.rope import RotaryPositions
from cosmos_worker.tokenizer.network import AutoencoderConfig, load_autoencoder
from tests.support.vectors import (
    DEFAULT_FOLDER,
    build_network,
    load_vector,
    net_config,
    under,
    vector_paths,
)

SIGMA_DATA = 0.5
BFLOAT16 = {
    "output": 0.014,
    "theirs": 0.018,
    "x0": 0.015,
    "loss": 0.001,
    "gradients": 0.019,
    "sample": 0.017,
    "latent": 0.023,
    "pixels": 0.029,
}
"""Relative errors that are allowed in bfloat16."""
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Check:
    """A quantity of ours beside the reference's.

    Attributes:
        name: of the quantity.
        got, wanted: tensors of one shape.
        atol, rtol: in float32: each difference may be atol + rtol times the reference's value.
        relative: error of the whole tensor that is allowed, as a share of its norm; None = by atol and rtol.
    """

    name: str
    got: Tensor
    wanted: Tensor
    atol: float = 0.0
    rtol: float = 0.0
    relative: float | None = None

    def error(self) -> tuple[float, float]:
        """The error and its tolerance: relative ones, or the difference that takes most of its tolerance."""
        got, wanted = self.got.detach().cpu().double(), self.wanted.detach().cpu().double()
        difference = got - wanted
        if self.relative is not None:
            return float(difference.norm() / wanted.norm()), self.relative
        allowed = (self.atol + self.rtol * wanted.abs()).flatten()
        worst = int((difference.abs().flatten() / allowed).nan_to_num(torch.inf).argmax())
        return float(difference.abs().flatten()[worst]), float(allowed[worst])


@dataclass(frozen=True)
class Setting:
    """Device and type of the products; ``bfloat16`` is autocast's, as in training and sampling."""

    device: torch.device
    dtype: torch.dtype

    @property
    def is_float32(self) -> bool:
        """True if products are in float32."""
        return self.dtype == torch.float32

    def put(self, values: dict[str, Any]) -> dict[str, Any]:
        """Tensors on the device; other values as they are."""
        return {
            name: one.to(self.device) if isinstance(one, Tensor) else one
            for name, one in values.items()
        }

    def products(self) -> torch.autocast:
        """Inside, products are in the type."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=not self.is_float32)


def measure(job: Job, word: str) -> None:
    """Check the files whose name begins with a word; a row for each quantity."""
    dtypes = [torch.float32, torch.bfloat16]
    if word == "tokenizer" and job.device.type == "cpu":
        job.note(
            "the tokenizer is not checked in bfloat16 on a CPU, for which PyTorch lacks a layer"
        )
        dtypes.remove(torch.bfloat16)
    for path in vector_paths(word, DEFAULT_FOLDER):
        for dtype in dtypes:
            setting = Setting(job.device, dtype)
            with exact_float32():
                for check in CHECKS[word](path, setting):
                    _tell(job, path.stem, setting, check)


@contextmanager
def exact_float32() -> Iterator[None]:
    """Inside, float32 products and convolutions are not rounded to TF32, which PyTorch does in cuDNN by itself."""
    before = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before


def _tell(job: Job, file: str, setting: Setting, check: Check) -> None:
    error, tolerance = check.error()
    is_within = error <= tolerance
    products = str(setting.dtype).removeprefix("torch.")
    job.row(
        vector=file,
        products=products,
        quantity=check.name,
        error=error,
        tolerance=tolerance,
        kind="absolute" if check.relative is None else "relative",
        within=is_within,
    )
    if not is_within:
        job.problem(f"{file}, {products}, {check.name}: error {error:.2g} of {tolerance:.2g}")


# --- the network --------------------------------------------------------------------------------


def _network(path: Path, setting: Setting) -> Iterator[Check]:
    values, tensors = load_vector(path)
    net = build_network(values, tensors).to(setting.device)
    given, wanted = setting.put(under(tensors, "inputs")), under(tensors, "outputs")
    hidden: list[Tensor] = []
    for block in net.blocks.values():
        block.register_forward_hook(lambda _module, _inputs, output: hidden.append(output))
    count = len(given["x"])
    with torch.no_grad(), setting.products():
        y = net(
            given["x"],
            given["timesteps"],
            given["crossattn_emb"],
            given["condition_video_input_mask"],
            given["fps"].expand(count),
            given["padding_mask"].expand(count, -1, -1, -1),
        )
        emb, lora = net.embed_timestep(given["timesteps"])
    if not setting.is_float32:
        yield Check("output", y, wanted["y_train_fp32"], relative=BFLOAT16["output"])
        own = wanted["y_train_bf16"]
        yield Check("output, beside theirs in bfloat16", y, own, relative=BFLOAT16["theirs"])
        return
    yield Check("output", y, wanted["y_train_fp32"], atol=5e-6)
    yield Check("timestep embedding", emb, wanted["affline_emb"], atol=5e-6)
    yield Check("shared modulation", lora, wanted["t_lora_3D"], atol=5e-6)
    for i, hidden_BLD in enumerate(hidden):
        expected = wanted[f"hidden_THWBD/{i}"].permute(3, 0, 1, 2, 4).flatten(1, 3)
        yield Check(f"after block {i}", hidden_BLD, expected, atol=2e-5, rtol=1e-5)


def _positions(path: Path, setting: Setting) -> Iterator[Check]:
    values, tensors = load_vector(path)
    name = "fp32" if setting.is_float32 else "bf16"
    ratio_h, ratio_w, ratio_t, T, h, w, fps = values["cfg"]
    expected = tensors[name]
    positions = RotaryPositions(expected.shape[-1], ratio_t, ratio_h, ratio_w, 128)
    positions.init_positions()
    rate = torch.tensor([float(fps)], device=setting.device)
    angles = positions.to(setting.device)((T, h, w), rate, setting.dtype)[0]
    got = torch.cat([angles, angles], -1)
    yield Check("rotary angles", got, expected[:, 0, 0], atol=2e-6, rtol=1e-6)


# --- the training -------------------------------------------------------------------------------


def _training(path: Path, setting: Setting) -> Iterator[Check]:
    values, tensors = load_vector(path)
    state, wanted = under(tensors, "state_dict"), under(tensors, "outputs")
    given = setting.put(under(tensors, "inputs"))
    model = CosmosModel(net_config(values), any(key.startswith("net.extra_pos") for key in state))
    model.net.pos_embedder.init_positions()
    lacking, unknown = model.load_state_dict(state, strict=False)  # positions are not stored
    assert not unknown, unknown
    assert all("pos_embedder" in name for name in lacking), lacking
    model.to(setting.device)
    x0, count = given["x0"], len(given["x0"])
    noise = Noise(
        given["sigma"].expand(count),
        given["epsilon"],
        given["augment_sigma"].expand(count),
        given["augment_noise"],
        torch.full((count,), values["inputs/n_cond"], device=setting.device),
        torch.full((count,), bool(values["inputs/video_cond_bool"]), device=setting.device),
        torch.full((count,), bool((given["text"] != 0).any()), device=setting.device),
    )
    fps = torch.full((count,), float(values["inputs/fps"]), device=setting.device)
    with setting.products():
        result = denoise(model, x0, given["text"], fps, noise, SIGMA_DATA)
    use_logvar = values["inputs/loss_add_logvar"]
    loss = edm_loss(result, x0, noise.sigma_B, SIGMA_DATA, use_logvar, only_generated=False)
    loss.total.backward()
    gradients = under(wanted, "grads")
    got = {name: one.grad for name, one in model.named_parameters() if name in gradients}
    flat, wanted_flat = _flat(got, gradients), _flat(gradients, gradients)
    if not setting.is_float32:
        predicted = result.x0_pred_BCTHW
        yield Check("x0", predicted, wanted["x0_pred"], relative=BFLOAT16["x0"])
        yield Check("loss", loss.edm, wanted["edm_loss_mean"], relative=BFLOAT16["loss"])
        yield Check("all gradients", flat, wanted_flat, relative=BFLOAT16["gradients"])
        return
    yield Check("x0", result.x0_pred_BCTHW, wanted["x0_pred"], atol=5e-6, rtol=1e-5)
    yield Check("loss", loss.edm, wanted["edm_loss_mean"], atol=1e-6, rtol=2e-6)
    yield Check("all gradients", flat, wanted_flat, atol=2e-5, rtol=1e-4)


def _flat(tensors: Mapping[str, Tensor | None], like: Tensors) -> Tensor:
    """All values, in one order; zeros where there is no gradient."""
    parts = []
    for name, reference in like.items():
        one = tensors.get(name)
        parts.append((torch.zeros_like(reference) if one is None else one.cpu()).flatten().float())
    return torch.cat(parts)


def _scalars(path: Path, setting: Setting) -> Iterator[Check]:
    """Coefficients, computed in float64 whatever the products are."""
    if not setting.is_float32:
        return
    _, tensors = load_vector(path)
    sigma = tensors["sigma"].to(setting.device)
    found = scalings(sigma, SIGMA_DATA)
    for name in ("c_skip", "c_out", "c_in", "c_noise"):
        yield Check(name, getattr(found, name), tensors[name], atol=1e-12, rtol=1e-12)
    weight = loss_weight(sigma, SIGMA_DATA)
    yield Check("loss weight", weight, tensors["weight"], atol=1e-12, rtol=1e-12)


# --- samplers -----------------------------------------------------------------------------------


def _euler(path: Path, setting: Setting) -> Iterator[Check]:
    values, tensors = load_vector(path)
    given, scalars = setting.put(under(tensors, "inputs")), under(values, "inputs")
    net = build_network(values, tensors).to(setting.device).eval()
    known = KnownFrames(
        given["latent"], scalars["n_cond"], given["augment_noise"], scalars["augment_sigma"]
    )
    fps = torch.full((len(given["latent"]),), scalars["fps"], device=setting.device)
    with torch.no_grad():
        sample = sample_edm_euler(
            guide(
                _bind(net, known, fps, given["pos"], setting),
                _bind(net, known, fps, given["neg"], setting),
                scalars["guidance"],
            ),
            given["x_T_unit"],
            known,
            edm_euler_sigmas(scalars["num_steps"]),
            known_output="correct" if scalars["fixed"] else "legacy",
        )
    tolerance = 1.4e-6 if setting.is_float32 else BFLOAT16["sample"]
    yield Check("sample", sample, tensors["outputs/sample"], relative=tolerance)


def _bind(
    net: CosmosDiT, known: KnownFrames, fps_B: Tensor, text_BSD: Tensor, setting: Setting
) -> Callable[[Tensor, Tensor], Tensor]:
    def net_fn(x_BCTHW: Tensor, c_noise_B: Tensor) -> Tensor:
        with setting.products():
            return net(x_BCTHW, c_noise_B, text_BSD, known.mask_B1THW, fps_B).float()

    return net_fn


def _res(path: Path, setting: Setting) -> Iterator[Check]:
    """The second-order samplers; bit-equal on a CPU, in float64 inside whatever the products are."""
    if not setting.is_float32:
        return
    _, tensors = load_vector(path)

    def denoiser(x: Tensor, sigma_B: Tensor) -> Tensor:
        return x / (1 + sigma_B.reshape(-1, *[1] * (x.ndim - 1)) ** 2)

    for name, wanted in under(tensors, "outputs").items():
        solver, num_steps = name.split("_")
        start = tensors["inputs/x"].to(setting.device)
        got = sample_res(denoiser, start, int(num_steps), solver=solver)
        yield Check(name, got, wanted, atol=1e-6, rtol=1e-6)
    yield Check("sigmas", res_sigmas(35), tensors["sigmas_35"], atol=1e-12, rtol=1e-12)


# --- the tokenizer ------------------------------------------------------------------------------


def _tokenizer(path: Path, setting: Setting) -> Iterator[Check]:
    """Encoder and decoder; in bfloat16 weights and pixels are rounded, as the tokenizer's dtype does it."""
    values, tensors = load_vector(path)
    config = AutoencoderConfig.from_reference(under(values, "config"))
    network = load_autoencoder(under(tensors, "state_dict"), config)
    network = network.to(setting.device, setting.dtype)
    cases = sorted({match[1] for key in tensors if (match := re.match(r"cases/(.+)/x$", key))})
    for case in cases:
        given = under(tensors, f"cases/{case}")
        x, z = (given[name].to(setting.device, setting.dtype) for name in "xz")
        with torch.no_grad():
            latent, video = network.encode(x), network.decode(z)
        for name, got, wanted in (("latent", latent, given["z"]), ("pixels", video, given["y"])):
            if setting.is_float32:
                tolerance = max(2.5e-5, 2e-6 * float(wanted.abs().max()))
                yield Check(f"{case} frames: {name}", got, wanted, atol=tolerance)
            else:
                yield Check(f"{case} frames: {name}", got, wanted, relative=BFLOAT16[name])


CHECKS: dict[str, Callable[[Path, Setting], Iterator[Check]]] = {
    "net": _network,
    "train": _training,
    "sampler": _euler,
    "tokenizer": _tokenizer,
    "rope": _positions,
    "scalars": _scalars,
    "res": _res,
}
