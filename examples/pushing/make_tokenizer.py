"""Train the quickstart's video tokenizer and write it in the files of Cosmos-Tokenize1-CV8x8x8.

The folder it writes holds `encoder.jit`, `decoder.jit`, `mean_std.pt` (what the worker loads),
`figures.json` (what was measured) and `contact_sheet.png`. The files are rewritten from the
weights' moving average every few minutes, so that a stopped run leaves a usable tokenizer. On
Linux, start it with `MALLOC_MMAP_MAX_=0 MALLOC_TRIM_THRESHOLD_=100000000000 GOMP_SPINCOUNT=0`:
memory is then reused between the steps instead of being faulted in anew, and waiting threads
leave the processor to others.

    python examples/pushing/make_tokenizer.py --videos DATA/videos/train --threads 2 --bf16
"""

from __future__ import annotations

import argparse
import copy
import json
import logging
import math
import time
import warnings
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import torch
from PIL import Image
from tokenizer_net import LATENT_CHANNELS, TEMPORAL_FACTOR, Autoencoder
from torch import Tensor

logger = logging.getLogger("make_tokenizer")

NUM_TIME_SLOTS = 16  # of mean_std.pt, as in NVIDIA's file
MOTION_THRESHOLD = 0.08  # of a pixel's range over a clip, in [0, 1], above which it "moves"
DEFAULT_OUTPUT = Path(__file__).parent / "checkpoints" / "Cosmos-Tiny-Tokenizer-CV8x8x8"


@dataclass(frozen=True)
class Progress:
    """Progress of the training."""

    step: int
    minutes: float
    fraction: float


def read_clip(path: Path) -> Tensor:
    """Decode one MP4 to uint8 pixels [3, T, H, W]."""
    with av.open(str(path)) as container:
        frames = [f.to_ndarray(format="rgb24") for f in container.decode(video=0)]
    return torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2).contiguous()


def to_unit(clips_BCTHW: Tensor) -> Tensor:
    """Turn uint8 pixels into floats in [-1, 1]."""
    return clips_BCTHW.float() / 127.5 - 1.0


def moving_pixels(clips_BCTHW: Tensor) -> Tensor:
    """Pixels that change during their clip, as a bool mask [B, 1, 1, H, W]; uint8 input."""
    span = clips_BCTHW.amax(2, keepdim=True).float() - clips_BCTHW.amin(2, keepdim=True).float()
    return span.amax(1, keepdim=True) > 255 * MOTION_THRESHOLD


class ClipStore:
    """The clips of a folder in memory, the last ones (by id) kept apart for the measurements."""

    def __init__(self, folder: Path, held_out_fraction: float) -> None:
        """Read all clips that are there now.

        Args:
            folder: holds `<id>/rgb.mp4` for every clip.
            held_out_fraction: part of these clips, from the end by id, that is not trained on.

        Raises:
            ValueError: if the folder holds fewer than ten clips.
        """
        self.folder = folder
        self.seen: set[Path] = set()
        self.train: list[Tensor] = []
        self.cells: list[Tensor] = []
        paths = self._new_paths()
        if len(paths) < 10:
            raise ValueError(f"--videos: {folder} holds {len(paths)} */rgb.mp4; 10 are needed")
        num_held_out = max(1, round(held_out_fraction * len(paths)))
        self.held_out = torch.stack([read_clip(path) for path in paths[-num_held_out:]])
        self.seen.update(paths[-num_held_out:])
        self._add(paths[:-num_held_out])

    def refresh(self) -> None:
        """Read clips that have appeared since; the held-out ones stay as they are."""
        self._add(self._new_paths())

    def _new_paths(self) -> list[Path]:
        now = time.time()
        found = sorted(set(self.folder.glob("*/rgb.mp4")) - self.seen)
        return [path for path in found if now - path.stat().st_mtime > 5]

    def _add(self, paths: list[Path]) -> None:
        for path in paths:
            clip = read_clip(path)
            moving = moving_pixels(clip[None])[0, 0, 0]
            self.train.append(clip)
            self.cells.append(moving.nonzero()[:: max(1, int(moving.sum()) // 64)])
        self.seen.update(paths)

    def draw_crops(self, count: int, size: int, generator: torch.Generator) -> Tensor:
        """Draw uint8 crops [count, 3, T, size, size], three in four around something that moves."""
        crops = []
        for _ in range(count):
            draw = torch.rand(5, generator=generator)
            index = int(draw[0] * len(self.train))
            clip, cells = self.train[index], self.cells[index]
            H, W = clip.shape[2:]
            top, left = int(draw[1] * (H - size + 1)), int(draw[2] * (W - size + 1))
            if len(cells) and draw[3] < 0.75:
                centre = cells[int(draw[4] * len(cells))]
                jitter = (draw[1:3] - 0.5) * size * 0.75
                corner = centre - size // 2 + jitter.round().long()
                top = int(corner[0].clamp(0, H - size))
                left = int(corner[1].clamp(0, W - size))
            crop = clip[:, :, top : top + size, left : left + size]
            crops.append(crop.flip(3) if torch.rand((), generator=generator) < 0.5 else crop)
        return torch.stack(crops)


def reconstruction_loss(output_BCTHW: Tensor, target_BCTHW: Tensor, moving: Tensor) -> Tensor:
    """Absolute and squared error, and the absolute error of the spatial differences.

    Moving pixels count three times. So does frame 0: the diffusion model is conditioned on it.

    Args:
        output_BCTHW: reconstruction.
        target_BCTHW: pixels in [-1, 1].
        moving: mask of `moving_pixels`.

    Returns:
        The loss, a scalar.
    """
    weight = 1.0 + 2.0 * moving.float()
    weight = weight.expand(-1, -1, target_BCTHW.shape[2], -1, -1).clone()
    weight[:, :, 0] = 3.0
    weight /= weight.mean()
    error = output_BCTHW - target_BCTHW
    pixel = (weight * (error.abs() + 4.0 * error.square())).mean()
    rows = (weight[..., 1:, :] * error.diff(dim=3).abs()).mean()
    columns = (weight[..., 1:] * error.diff(dim=4).abs()).mean()
    return pixel + 0.5 * (rows + columns)


def correlation_of(z_BCTHW: Tensor) -> Tensor:
    """Correlations between the latent channels, [16, 16] with a zero diagonal."""
    z_CM = z_BCTHW.transpose(0, 1).flatten(1)
    z_CM = z_CM - z_CM.mean(1, keepdim=True)
    z_CM = z_CM / z_CM.std(1, keepdim=True).clamp_min(1e-4)
    correlation = z_CM @ z_CM.T / z_CM.shape[1]
    return correlation - torch.diag(correlation.diag())


class Muon(torch.optim.Optimizer):
    """Momentum whose update of every weight is made orthogonal; for convolution weights.

    Source: Jordan et al. 2024, "Muon: an optimizer for hidden layers"; five Newton-Schulz steps.
    """

    def __init__(self, params: list[torch.nn.Parameter], lr: float, momentum: float = 0.95) -> None:
        """Take over weights of two or more dimensions."""
        super().__init__(params, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override] # closures are not needed here
        """Update all weights."""
        for group in self.param_groups:
            for weight in group["params"]:
                state = self.state[weight]
                if not state:
                    state["momentum"] = torch.zeros_like(weight)
                state["momentum"].lerp_(weight.grad, 1 - group["momentum"])
                update = weight.grad.lerp(state["momentum"], group["momentum"]).flatten(1)
                wide = update.shape[0] <= update.shape[1]
                x = update if wide else update.T
                x = (x / (x.norm() + 1e-8)).bfloat16()
                for _ in range(5):
                    gram = x @ x.T
                    x = 3.4445 * x + (-4.775 * gram + 2.0315 * gram @ gram) @ x
                x = x.float() if wide else x.T.float()
                scale = max(1.0, x.shape[0] / x.shape[1]) ** 0.5
                weight.add_(x.reshape(weight.shape), alpha=-group["lr"] * scale)


@torch.no_grad()
def update_average(average: Autoencoder, model: Autoencoder, decay: float) -> None:
    """Move the averaged weights towards the model's; the other buffers are copied."""
    torch._foreach_lerp_(list(average.parameters()), list(model.parameters()), 1.0 - decay)
    for kept, new in zip(average.buffers(), model.buffers(), strict=True):
        kept.copy_(new)


def build_optimizers(model: Autoencoder, args: argparse.Namespace) -> list[torch.optim.Optimizer]:
    """Muon for the hidden convolutions; Adam for first and last ones and for the biases."""
    outer = (model.encoder.stem, model.encoder.out, model.decoder.stem, model.decoder.out)
    outer_ids = {id(p) for module in outer for p in module.parameters()}
    hidden = [p for p in model.parameters() if p.ndim > 1 and id(p) not in outer_ids]
    hidden_ids = {id(p) for p in hidden}
    rest = [p for p in model.parameters() if id(p) not in hidden_ids]
    optimizers = [
        Muon(hidden, lr=args.muon_learning_rate),
        torch.optim.Adam(rest, lr=args.learning_rate, betas=(0.9, 0.98)),
    ]
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["peak_lr"] = group["lr"]
    return optimizers


def train(args: argparse.Namespace, store: ClipStore) -> None:
    """Train until --steps or --minutes are spent, and export on the way and at the end."""
    torch.manual_seed(args.seed)
    generator = torch.Generator().manual_seed(args.seed)
    model = Autoencoder(args.frame_channels, args.clip_channels, args.deep_channels)
    average = copy.deepcopy(model)
    optimizers = build_optimizers(model, args)
    start = exported = logged = time.monotonic()
    step, fraction, running = 0, 0.0, 0.0
    while fraction < 1.0:
        loss = train_step(model, optimizers, store, generator, args, fraction)
        step += 1
        update_average(average, model, min(0.999, step / (step + 10)))
        running = loss if step == 1 else 0.98 * running + 0.02 * loss
        now = time.monotonic()
        minutes = (now - start) / 60
        fraction = minutes / args.minutes if args.minutes else step / args.steps
        if now - logged > 15:
            rate = step / (now - start)
            logger.info(
                "step=%d minutes=%.2f loss=%.4f steps/s=%.2f clips=%d",
                *(step, minutes, running, rate, len(store.train)),
            )
            logged = now
            if args.follow:
                store.refresh()
        if now - exported > 60 * args.export_minutes and fraction < 0.97:
            export(average, store, args, Progress(step, minutes, fraction))
            exported = time.monotonic()
    export(average, store, args, Progress(step, (time.monotonic() - start) / 60, 1.0))


def train_step(
    model: Autoencoder,
    optimizers: list[torch.optim.Optimizer],
    store: ClipStore,
    generator: torch.Generator,
    args: argparse.Namespace,
    fraction: float,
) -> float:
    """One optimizer step; returns the reconstruction loss.

    Args:
        model: in training mode.
        optimizers: their learning rates are set here: a short warm-up, then a cosine.
        store: source of the crops.
        generator: draws them.
        args: the command line.
        fraction: how much of the training is done, in [0, 1).

    Returns:
        The reconstruction loss.
    """
    warm_up = min(1.0, 0.1 + fraction / 0.02)
    scale = max(0.005, warm_up * 0.5 * (1 + math.cos(math.pi * fraction)))
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = group["peak_lr"] * scale
    crops = store.draw_crops(args.micro_batch_size, args.crop_px, generator)
    target = to_unit(crops)
    with torch.autocast("cpu", torch.bfloat16, enabled=args.bf16):
        output, z = model(target, args.max_noise)
    loss = reconstruction_loss(output.float(), target, moving_pixels(crops))
    penalty = correlation_of(z).square().sum() / LATENT_CHANNELS
    model.zero_grad(set_to_none=True)
    (loss + args.decorrelation * penalty).backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimizer in optimizers:
        optimizer.step()
    return loss.item()


@torch.no_grad()
def encode_all(encoder: torch.nn.Module, clips: Tensor) -> Tensor:
    """Encode uint8 clips in small batches."""
    return torch.cat([encoder(to_unit(part))[0] for part in clips.split(4)])


@torch.no_grad()
def whitened(average: Autoencoder, sample: Tensor) -> tuple[Autoencoder, Tensor, Tensor]:
    """Copy with uncorrelated latents of variance one, and their remaining slot statistics.

    Args:
        average: trained weights.
        sample: uint8 clips to measure on.

    Returns:
        The copy, and mean and std in the form of mean_std.pt: 256 floats, 16 channels x 16 slots;
        the slots after the clips' last one repeat that one.
    """
    model = copy.deepcopy(average).eval()
    z_BCTHW = encode_all(model.encoder, sample)
    within = z_BCTHW - z_BCTHW.mean((0, 3, 4), keepdim=True)
    within_CM = within.transpose(0, 1).flatten(1).double()
    model.whiten(within_CM @ within_CM.T / within_CM.shape[1])
    z_BCTHW = encode_all(model.encoder, sample)
    mean_CT, std_CT = z_BCTHW.mean((0, 3, 4)), z_BCTHW.std((0, 3, 4))
    rest = NUM_TIME_SLOTS - mean_CT.shape[1]
    mean_CT, std_CT = (torch.cat([s, s[:, -1:].expand(-1, rest)], 1) for s in (mean_CT, std_CT))
    return model, mean_CT.reshape(-1).clone(), std_CT.reshape(-1).clone()


def psnr(square_error: Tensor) -> float:
    """Mean over clips of the peak signal-to-noise ratio in dB; errors are per clip, peak 1."""
    return round(float((-10 * square_error.clamp_min(1e-10).log10()).mean()), 2)


@torch.no_grad()
def measure(model: Autoencoder, clips: Tensor, mean: Tensor, std: Tensor) -> dict[str, object]:
    """Measure reconstructions and latents of clips that were not trained on."""
    mean_CT = mean.view(LATENT_CHANNELS, -1)[:, : (clips.shape[2] - 1) // TEMPORAL_FACTOR + 1]
    std_CT = std.view(LATENT_CHANNELS, -1)[:, : mean_CT.shape[1]]
    z = encode_all(model.encoder, clips)
    normal = (z - mean_CT[None, :, :, None, None]) / std_CT[None, :, :, None, None]
    outputs = torch.cat([model.decoder(part).clamp(-1, 1) for part in z.split(4)])
    noisy = torch.cat([model.decoder(p + 0.2 * torch.randn_like(p)) for p in z.split(4)])
    squares = ((outputs - to_unit(clips)) / 2).square().mean(1)  # [B, T, H, W]
    noisy_squares = ((noisy.clamp(-1, 1) - to_unit(clips)) / 2).square().mean(1)
    mask = moving_pixels(clips)[:, 0].float().expand(-1, clips.shape[2] - 1, -1, -1)
    moving = (squares[:, 1:] * mask).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1)
    return {
        "num_held_out_clips": len(clips),
        "psnr_db": psnr(squares.mean((1, 2, 3))),
        "psnr_first_frame_db": psnr(squares[:, 0].mean((1, 2))),
        "psnr_moving_pixels_db": psnr(moving),
        "psnr_frames_db": [psnr(squares[:, t].mean((1, 2))) for t in range(clips.shape[2])],
        "psnr_with_latent_noise_0.2_db": psnr(noisy_squares.mean((1, 2, 3))),
        "latent_mean_max_abs": round(float(normal.mean((0, 3, 4)).abs().max()), 3),
        "latent_std_min": round(float(normal.std((0, 3, 4)).min()), 3),
        "latent_std_max": round(float(normal.std((0, 3, 4)).max()), 3),
        "latent_correlation_max_abs": round(float(correlation_of(normal).abs().max()), 3),
        "latent_abs_max": round(float(normal.abs().max()), 2),
    }


@torch.no_grad()
def write_contact_sheet(model: Autoencoder, clips: Tensor, path: Path) -> None:
    """Draw clips (odd rows) above their reconstructions (even rows), eight frames of each."""
    rows = []
    for clip in clips:
        z = model.encoder(to_unit(clip[None]))[0]
        output = ((model.decoder(z)[0].clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
        times = torch.linspace(0, clip.shape[1] - 1, 8).round().long()
        rows += [v[:, times].permute(2, 1, 3, 0).flatten(1, 2) for v in (clip, output)]
    Image.fromarray(torch.cat(rows).numpy()).save(path)


@torch.no_grad()
def milliseconds_per_clip(model: Autoencoder, clip: Tensor) -> tuple[float, float]:
    """Encode and decode one clip on one thread; the median of five each."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    x, encode, decode = to_unit(clip[None]), [], []
    for _ in range(7):
        begin = time.perf_counter()
        z = model.encoder(x)[0]
        middle = time.perf_counter()
        model.decoder(z)
        encode.append(middle - begin)
        decode.append(time.perf_counter() - middle)
    torch.set_num_threads(threads)
    return 1e3 * sorted(encode[2:])[2], 1e3 * sorted(decode[2:])[2]


def write_script(module: torch.nn.Module, path: Path) -> None:
    """Write a module as TorchScript; the file is replaced in one go."""
    with warnings.catch_warnings():
        for category in (DeprecationWarning, FutureWarning):  # TorchScript is NVIDIA's format
            warnings.simplefilter("ignore", category)
        torch.jit.script(copy.deepcopy(module).eval()).save(str(path) + ".tmp")
    Path(str(path) + ".tmp").replace(path)


def export(
    average: Autoencoder, store: ClipStore, args: argparse.Namespace, progress: Progress
) -> None:
    """Write the files of the tokenizer from the averaged weights, and what they measure."""
    args.output.mkdir(parents=True, exist_ok=True)
    stride = max(1, len(store.train) // args.num_statistics_clips)
    model, mean, std = whitened(average, torch.stack(store.train[::stride]))
    write_script(model.encoder, args.output / "encoder.jit")
    write_script(model.decoder, args.output / "decoder.jit")
    torch.save((mean, std), args.output / "mean_std.pt")
    encode_ms, decode_ms = milliseconds_per_clip(model, store.held_out[0])
    modules = {"encoder": model.encoder, "decoder": model.decoder}
    figures = {
        "parameters": {k: sum(p.numel() for p in m.parameters()) for k, m in modules.items()},
        "training_minutes": round(progress.minutes, 2),
        "training_steps": progress.step,
        "training_threads": torch.get_num_threads(),
        "num_training_clips": len(store.train),
        "finished": progress.fraction >= 1.0,
        "encode_ms_per_clip_one_thread": round(encode_ms, 1),
        "decode_ms_per_clip_one_thread": round(decode_ms, 1),
        **measure(model, store.held_out[: args.num_statistics_clips], mean, std),
        "arguments": {k: str(v) if isinstance(v, Path) else v for k, v in vars(args).items()},
    }
    (args.output / "figures.json").write_text(json.dumps(figures, indent=2) + "\n")
    write_contact_sheet(model, store.held_out[:6], args.output / "contact_sheet.png")
    names = (
        "psnr_db",
        "psnr_first_frame_db",
        "psnr_moving_pixels_db",
        "latent_correlation_max_abs",
    )
    summary = " ".join(f"{name}={figures[name]}" for name in names)
    logger.info("exported step=%d minutes=%.2f %s", progress.step, progress.minutes, summary)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description="Train the quickstart's tiny video tokenizer on a folder of clips.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--videos", type=Path, required=True, help="folder with <id>/rgb.mp4, 1 + 8k frames each")
    add("--output", type=Path, default=DEFAULT_OUTPUT, help="folder to write")
    budget = parser.add_mutually_exclusive_group()
    budget.add_argument("--minutes", type=float, help="train for this time instead of --steps")
    budget.add_argument("--steps", type=int, default=2800, help="optimizer steps")
    add("--seed", type=int, default=0, help="of weights, crops and noise")
    add("--threads", type=int, default=1, help="of the training")
    add("--bf16", action="store_true", help="bf16 autocast: twice as fast with avx512_bf16 or AMX")
    add("--learning-rate", type=float, default=2e-3, help="Adam's peak, decays as a cosine")
    add("--muon-learning-rate", type=float, default=0.02, help="Muon's peak, decays likewise")
    add("--micro-batch-size", type=int, default=6, help="crops a step")
    add("--crop-px", type=int, default=80, help="side of the crops, a multiple of 8")
    add("--max-noise", type=float, default=0.25, help="most noise on the latents, in their std")
    add("--decorrelation", type=float, default=0.05, help="weight of the correlation penalty")
    add("--frame-channels", type=int, default=40, help="width of the stage of single frames")
    add("--clip-channels", type=int, default=64, help="width of the stage of four frames")
    add("--deep-channels", type=int, default=112, help="width of the stage of eight frames")
    add("--held-out-fraction", type=float, default=0.1, help="last clips by id, not trained on")
    add("--num-statistics-clips", type=int, default=192, help="clips measured for mean_std.pt")
    add("--export-minutes", type=float, default=4.0, help="write the files this often")
    add("--follow", action="store_true", help="take up clips that appear while training")
    return parser.parse_args()


def main() -> None:
    """Run."""
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S"
    )
    args = parse_args()
    if args.minutes:
        args.steps = None
    torch.set_num_threads(args.threads)
    store = ClipStore(args.videos, args.held_out_fraction)
    logger.info("%d clips to train on, %d held out", len(store.train), len(store.held_out))
    train(args, store)


if __name__ == "__main__":
    main()
