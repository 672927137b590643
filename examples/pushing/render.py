"""Render the pushing data set: a robot arm pushes the named cube in the named direction.

Writes the layout of the Bridge and IRASim data sets (annotation/<split>/<id>.json beside
videos/<split>/<id>/rgb.mp4). A clip depends only on (seed, split, number of cubes, its number), so
an interrupted run continues where it stopped. Needs `pip install pybullet av`.

    python examples/pushing/render.py --out data --split train --count 480 --cubes 1 2
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

import av
import layout
import numpy as np
import simulate
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")
KINDS = {1: "one", 2: "two"}
MAX_DRAWS = 200
MIN_MOVED_PX, MAX_OTHER_MOVED_PX = 25.0, 3.0
MIN_NAMED_VISIBLE, MIN_OTHER_VISIBLE = 0.33, 0.45


@dataclass(frozen=True)
class Job:
    """One clip to render: where it goes and the numbers that determine it."""

    out: Path
    split: str
    seed: int
    num_cubes: int
    number: int
    crf: int

    @property
    def clip_id(self) -> str:
        """Name of the clip, e.g. `two-000123`."""
        return f"{KINDS[self.num_cubes]}-{self.number:06d}"

    @property
    def video_path(self) -> str:
        """Path of the video below the data set folder."""
        return f"videos/{self.split}/{self.clip_id}/rgb.mp4"

    @property
    def annotation_path(self) -> Path:
        """Path of the annotation."""
        return self.out / "annotation" / self.split / f"{self.clip_id}.json"


def choose_instruction(num_cubes: int, number: int) -> layout.Instruction:
    """Walk through all combinations, so that every run of 20 (or 80) clips is balanced."""
    names = tuple(layout.COLOURS)
    direction = tuple(layout.DIRECTIONS)[number % 4]
    first = number // 4 % len(names)
    second = (first + 1 + number // 20 % (len(names) - 1)) % len(names)
    return layout.Instruction((names[first], names[second])[:num_cubes], direction)


def swap_instruction(num_cubes: int, number: int) -> str:
    """Another caption that is possible in the same scene.

    One cube: the opposite direction. Two cubes: in turn the other cube or the opposite direction
    (in turn after every 4 clips, so that both halves hold all directions).
    """
    instruction = choose_instruction(num_cubes, number)
    if num_cubes == 2 and number // 4 % 2 == 0:
        return layout.Instruction(instruction.colours[::-1], instruction.direction).caption
    opposite = layout.OPPOSITE[instruction.direction]
    return layout.Instruction(instruction.colours, opposite).caption


def is_clean_push(clip: simulate.Clip, direction: str) -> bool:
    """Judge a clip by the simulator's truth: the named cube went where asked, others stayed."""
    ux, uy = layout.DIRECTIONS[direction]
    along_px = clip.moved_px[0] @ np.array([ux, -uy])
    across_px = abs(clip.moved_px[0] @ np.array([uy, ux]))
    moved = along_px >= MIN_MOVED_PX and across_px < along_px / 3
    others_still = (np.abs(clip.moved_px[1:]) < MAX_OTHER_MOVED_PX).all()
    others_visible = (clip.least_visible[1:] >= MIN_OTHER_VISIBLE).all()
    visible = clip.least_visible[0] >= MIN_NAMED_VISIBLE
    return bool(moved and visible and others_still and others_visible)


def write_video(path: Path, frames: NDArray[np.uint8], crf: int) -> None:
    """Write frames (T, H, W, 3) as constant-rate H.264 without B-frames."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", options={"fflags": "+bitexact"}) as container:
        stream = container.add_stream("libx264", rate=layout.FPS)
        stream.width, stream.height, stream.pix_fmt = frames.shape[2], frames.shape[1], "yuv420p"
        stream.thread_count = 1
        stream.options = {"crf": str(crf), "preset": "slow", "bf": "0", "g": str(len(frames))}
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())


_simulators: list[simulate.Simulator] = []


def render_job(job: Job) -> int:
    """Render, check and write one clip; the annotation comes last and marks it complete.

    Returns:
        The number of rejected draws.

    Raises:
        RuntimeError: if no draw gives a clean push.
    """
    if not _simulators:
        _simulators.append(simulate.Simulator())
    instruction = choose_instruction(job.num_cubes, job.number)
    for draw in range(MAX_DRAWS):
        stream = [job.seed, SPLITS.index(job.split), job.num_cubes, job.number, draw]
        clip = _simulators[0].run(layout.draw_scene(instruction, np.random.default_rng(stream)))
        if not is_clean_push(clip, instruction.direction):
            continue
        write_video(job.out / job.video_path, clip.frames, job.crf)
        annotation = {
            "task": "push",
            "texts": [instruction.caption],
            "videos": [{"video_path": job.video_path}],
            "episode_id": job.clip_id,
            "state": clip.hand_poses.round(4).tolist(),
            "continuous_gripper_state": [0.0] * layout.NUM_FRAMES,
        }
        job.annotation_path.parent.mkdir(parents=True, exist_ok=True)
        job.annotation_path.write_text(json.dumps(annotation) + "\n")
        return draw
    raise RuntimeError(f"{job.clip_id} ({instruction.caption}): {MAX_DRAWS} draws were rejected")


def plan_jobs(args: argparse.Namespace) -> list[Job]:
    """All clips of a run; `--cubes 1 2 2` repeats its pattern, here one third with one cube."""
    numbers = dict.fromkeys(KINDS, 0)
    jobs = []
    for index in range(args.count):
        num_cubes = args.cubes[index % len(args.cubes)]
        jobs.append(Job(args.out, args.split, args.seed, num_cubes, numbers[num_cubes], args.crf))
        numbers[num_cubes] += 1
    return jobs


def write_prompt_lists(out: Path, jobs: Iterable[Job]) -> None:
    """Write NVIDIA's batch files (JSON Lines): as recorded, and with a swapped instruction."""
    lists: dict[str, list[str]] = {}
    for job in jobs:
        name, video = f"{job.split}_{KINDS[job.num_cubes]}", job.video_path
        caption = choose_instruction(job.num_cubes, job.number).caption
        recorded = {"id": job.clip_id, "visual_input": video, "prompt": caption}
        swapped = {**recorded, "prompt": swap_instruction(job.num_cubes, job.number)}
        lists.setdefault(name, []).append(json.dumps({**recorded, "ground_truth": video}))
        lists.setdefault(f"{name}_swapped", []).append(json.dumps(swapped))
    for name, lines in lists.items():
        (out / f"{name}.jsonl").write_text("\n".join(lines) + "\n")


def _show_progress(rejections: Iterator[int], total: int) -> int:
    """Count finished clips on one line and return the sum of rejected draws."""
    rejected, started = 0, time.monotonic()
    for done, count in enumerate(rejections, start=1):
        rejected += count
        rate = (time.monotonic() - started) / done
        line = f"\r{done}/{total} clips, {rejected} draws rejected, {rate:.2f} s/clip"
        if done == total or sys.stderr.isatty() or done % 50 == 0:
            sys.stderr.write(line + ("\n" if done == total else ""))
            sys.stderr.flush()
    return rejected


def parse_args(argv: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Render the pushing data set with PyBullet.")
    parser.add_argument("--out", type=Path, required=True, help="folder of the data set")
    parser.add_argument("--split", choices=SPLITS, default="train")
    parser.add_argument("--count", type=int, default=480, help="number of clips in all")
    parser.add_argument(
        "--cubes",
        type=int,
        nargs="+",
        choices=tuple(KINDS),
        default=[1, 2],
        help="cubes in the clips, a pattern that repeats: '1 2' is half and half",
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2, help="processes")
    parser.add_argument("--crf", type=int, default=20, help="H.264 quality; lower is better")
    args = parser.parse_args(argv)
    if args.count < 1 or args.workers < 1:
        parser.error(f"--count {args.count} --workers {args.workers}: both must be at least 1")
    return args


def main(argv: list[str] | None = None) -> int:
    """Render what is missing and write the prompt lists of the test split."""
    args = parse_args(argv)
    jobs = plan_jobs(args)
    missing = [job for job in jobs if not job.annotation_path.exists()]
    with multiprocessing.get_context("spawn").Pool(args.workers) as pool:
        _show_progress(pool.imap_unordered(render_job, missing, chunksize=1), len(missing))
    if args.split == "test":
        write_prompt_lists(args.out, jobs)
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
