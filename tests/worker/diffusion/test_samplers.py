from __future__ import annotations

from pathlib import Path

import pytest
import torch
from support.vectors import build_network, load_vector, under
from torch import Tensor

from cosmos_worker.diffusion.known_frames import KnownFrames, arch_invariant_noise
from cosmos_worker.diffusion.samplers import (
    SOLVER_ORDERS,
    edm_euler_sigmas,
    guide,
    res_sigmas,
    sample_edm_euler,
    sample_res,
)

SIGMA_DATA = 0.5
SHAPE = (2, 4, 3, 2, 2)


def make_known(num_latent_frames: int, shape: tuple[int, ...] = SHAPE) -> KnownFrames:
    latent = arch_invariant_noise(shape, 5) * SIGMA_DATA
    return KnownFrames(latent, num_latent_frames, arch_invariant_noise(shape, 6))


def zero_net(x_BCTHW: Tensor, c_noise_B: Tensor) -> Tensor:
    assert c_noise_B.shape == (len(x_BCTHW),)
    return torch.zeros_like(x_BCTHW)


def relative_error(got: Tensor, wanted: Tensor) -> float:
    return float((got - wanted).norm() / wanted.norm())


def test_edm_euler_reproduces_reference_sample(sampler_vector_path: Path) -> None:
    values, tensors = load_vector(sampler_vector_path)
    inputs, scalars = under(tensors, "inputs"), under(values, "inputs")
    outputs = under(tensors, "outputs")
    net = build_network(values, tensors).eval()
    known = KnownFrames(
        inputs["latent"], scalars["n_cond"], inputs["augment_noise"], scalars["augment_sigma"]
    )
    fps_B = torch.full((len(inputs["latent"]),), scalars["fps"])

    def bind(text_BSD: Tensor):
        return lambda x, c_noise: net(x, c_noise, text_BSD, known.mask_B1THW, fps_B)

    sigmas = edm_euler_sigmas(scalars["num_steps"])
    with torch.no_grad():
        sample = sample_edm_euler(
            guide(bind(inputs["pos"]), bind(inputs["neg"]), scalars["guidance"]),
            inputs["x_T_unit"],
            known,
            sigmas,
            known_output="correct" if scalars["fixed"] else "legacy",
        )

    torch.testing.assert_close(sigmas, outputs["sigmas"], rtol=1e-7, atol=0)
    # another order of float32 additions costs 7e-7 (measured: 4e-7 to 7.5e-7); the stored samples are
    # themselves up to 6.4e-7 away from the same sampler in float64
    assert relative_error(sample, outputs["sample"]) <= 1.4e-6


def test_res_solvers_are_bit_equal_to_reference(res_vector_path: Path) -> None:
    _, tensors = load_vector(res_vector_path)

    def denoiser(x: Tensor, sigma_B: Tensor) -> Tensor:
        return x / (1 + sigma_B.reshape(-1, *[1] * (x.ndim - 1)) ** 2)

    for name, wanted in under(tensors, "outputs").items():
        solver, num_steps = name.split("_")

        sample = sample_res(denoiser, tensors["inputs/x"], int(num_steps), solver=solver)

        assert torch.equal(sample, wanted), name
    assert torch.equal(res_sigmas(35), tensors["sigmas_35"])


def test_edm_euler_sigmas_are_those_of_the_facts() -> None:
    sigmas = edm_euler_sigmas(35)

    wanted = torch.tensor([79.999985, 67.125992, 56.070259, 0.00055270933, 0.00019999986, 0.0])
    assert sigmas.dtype == torch.float32
    torch.testing.assert_close(sigmas[[0, 1, 2, 33, 34, 35]], wanted, rtol=1e-6, atol=0)


def test_edm_euler_known_frames_come_out_as_given_when_correct() -> None:
    known = make_known(num_latent_frames=1)

    sample = sample_edm_euler(zero_net, arch_invariant_noise(SHAPE, 1), known, edm_euler_sigmas(35))

    # the last two of 35 steps are below the augment noise and leave 0.001 of it
    torch.testing.assert_close(sample[:, :, 0], known.latent_BCTHW[:, :, 0], rtol=0, atol=5e-3)


def test_edm_euler_known_frames_are_too_large_when_legacy() -> None:
    known = make_known(num_latent_frames=1)

    sample = sample_edm_euler(
        zero_net,
        arch_invariant_noise(SHAPE, 1),
        known,
        edm_euler_sigmas(35),
        known_output="legacy",
    )

    first, given = sample[:, :, 0], known.latent_BCTHW[:, :, 0]
    slope = float((first * given).sum() / (given * given).sum())
    assert slope == pytest.approx(1.5875, abs=2e-3)


def test_edm_euler_shows_the_same_known_frames_at_every_step() -> None:
    known = make_known(num_latent_frames=2)
    seen: list[Tensor] = []

    def net_fn(x_BCTHW: Tensor, c_noise_B: Tensor) -> Tensor:
        seen.append(x_BCTHW[:, :, :2])
        return torch.zeros_like(x_BCTHW)

    sample_edm_euler(net_fn, arch_invariant_noise(SHAPE, 1), known, edm_euler_sigmas(10))

    for shown in seen[1:-1]:
        torch.testing.assert_close(shown, seen[0], rtol=1e-5, atol=1e-6)


def test_edm_euler_without_known_frames_follows_the_net_everywhere() -> None:
    known = make_known(num_latent_frames=0)

    sample = sample_edm_euler(zero_net, arch_invariant_noise(SHAPE, 1), known, edm_euler_sigmas(35))

    assert float(sample.abs().max()) < 3  # a posterior mean of 0.5-sigma data, not the latents
    assert not torch.allclose(sample[:, :, 0], known.latent_BCTHW[:, :, 0], atol=0.1)


def test_edm_euler_sample_does_not_depend_on_its_batch() -> None:
    noise, known = arch_invariant_noise(SHAPE, 1), make_known(1)
    alone = KnownFrames(known.latent_BCTHW[:1], 1, known.augment_noise_BCTHW[:1])

    together = sample_edm_euler(zero_net, noise, known, edm_euler_sigmas(5))
    single = sample_edm_euler(zero_net, noise[:1], alone, edm_euler_sigmas(5))

    assert torch.equal(together[:1], single)


def test_guidance_zero_makes_a_single_pass() -> None:
    def never(x_BCTHW: Tensor, c_noise_B: Tensor) -> Tensor:
        raise AssertionError("the unconditional pass ran")

    guided = guide(zero_net, never, 0.0)

    assert torch.equal(guided(torch.ones(SHAPE), torch.ones(2)), torch.zeros(SHAPE))


def test_guidance_moves_away_from_the_unconditional_output() -> None:
    guided = guide(lambda x, _: x + 1, lambda x, _: x, 7.0)

    assert torch.equal(guided(torch.zeros(SHAPE), torch.ones(2)), torch.full(SHAPE, 8.0))


@pytest.mark.parametrize("solver", SOLVER_ORDERS)
def test_res_evaluates_the_denoiser_num_steps_times_and_once_more(solver: str) -> None:
    calls: list[float] = []

    def denoiser(x: Tensor, sigma_B: Tensor) -> Tensor:
        calls.append(float(sigma_B[0]))
        return torch.zeros_like(x)

    sample_res(denoiser, torch.ones(2, 3), 10, solver=solver)

    assert len(calls) == 11
    assert calls[0] == pytest.approx(80)
    assert calls[-1] == pytest.approx(0.002)


def test_res_second_order_beats_euler_on_a_gaussian() -> None:
    x = torch.full((1, 4), 80.0, dtype=torch.float64)

    def denoiser(x: Tensor, sigma_B: Tensor) -> Tensor:
        return x / (1 + sigma_B[:, None] ** 2)

    exact = 80 / (1 + 80**2) ** 0.5
    error = {
        solver: abs(float(sample_res(denoiser, x, 20, solver=solver)[0, 0]) - exact)
        for solver in SOLVER_ORDERS
    }

    assert error["2ab"] < error["1euler"]
    assert error["2mid"] < error["1euler"]


@pytest.mark.parametrize("sigmas", [edm_euler_sigmas, res_sigmas])
def test_sigmas_refuse_no_steps(sigmas) -> None:
    with pytest.raises(ValueError, match="num_steps: 0 is not positive"):
        sigmas(0)
