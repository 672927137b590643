"""Make the picture of the README: one first frame, two instructions, before and after post-training.

    make quickstart
    .venv/bin/python examples/pushing/picture.py runs/quickstart --out docs/images/pushing.webp

It shows videos that the quickstart has generated from a held-out clip with two cubes. Without --clip it is the clip
with the highest PSNR after post-training, of those whose instruction only the post-trained model follows.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
from PIL import Image, ImageDraw, ImageFont

FRAMES = (0, 4, 8, 12, 16)
ENLARGED = 1.25
TITLE_PX, GAP_PX, MARGIN_PX = 34, 6, 14
BACKGROUND, INK, MUTED = "#ffffff", "#1f2328", "#59636e"  # readable on light and dark pages


@dataclass(frozen=True)
class Row:
    """A video and what stands before it."""

    title: str
    instruction: str
    video: Path


def read_records(run: Path, item: str) -> dict[str, tuple[dict[str, Any], Path]]:
    """Records of an inference item and their videos, by the id of the clip."""
    lists = sorted(run.glob(f"**/generated/{item}-????????????/generated.jsonl"))
    if len(lists) != 1:
        sys.exit(
            f"{run}: {len(lists)} results of the item {item}; give the folder of one quickstart"
        )
    lines = lists[0].read_text(encoding="utf-8").splitlines()
    records = [json.loads(line) for line in lines if line]
    return {one["id"]: (one, lists[0].parent / f"{one['id']}.mp4") for one in records}


def choose_rows(run: Path, clip: str | None) -> tuple[str, list[Row]]:
    """The clip that is shown, and its three videos."""
    items = {name: read_records(run, name) for name in ("base-two", "two", "two-swapped")}

    def follows(key: str) -> tuple[bool, ...]:
        return tuple(records[key][0]["metrics"]["follows"] for records in items.values())

    clips = [key for key in items["two"] if follows(key) == (False, True, True)]
    found = clip or max(clips, key=lambda key: items["two"][key][0]["metrics"]["psnr_db"])
    titles = ("base model", "post-trained", "post-trained")
    return found, [
        Row(title, records[found][0]["prompt"], records[found][1])
        for title, records in zip(titles, items.values(), strict=True)
    ]


def read_frames(video: Path, numbers: Sequence[int]) -> list[Image.Image]:
    """The frames of these numbers, enlarged."""
    with av.open(str(video)) as container:
        frames = [frame.to_image() for frame in container.decode(video=0)]
    size = tuple(round(side * ENLARGED) for side in frames[0].size)
    return [frames[number].resize(size, Image.Resampling.LANCZOS) for number in numbers]


def draw(rows: Sequence[Row], frames_per_s: int) -> Image.Image:
    """Rows of frames with their instructions to the left and the times above."""
    strips = [read_frames(row.video, FRAMES) for row in rows]
    width, height = strips[0][0].size
    large, small = ImageFont.load_default(21), ImageFont.load_default(18)
    left = MARGIN_PX + round(max(large.getlength(row.instruction) for row in rows)) + 2 * GAP_PX
    size = (
        left + MARGIN_PX + len(FRAMES) * (width + GAP_PX) - GAP_PX,
        2 * MARGIN_PX + TITLE_PX + len(rows) * (height + GAP_PX) - GAP_PX,
    )
    page = Image.new("RGB", size, BACKGROUND)
    pen = ImageDraw.Draw(page)
    for column, number in enumerate(FRAMES):
        words = "given first frame" if number == 0 else f"{number / frames_per_s:.1f} s"
        x = left + column * (width + GAP_PX) + width / 2
        pen.text((x, MARGIN_PX), words, MUTED, small, anchor="ma")
    for line, (row, strip) in enumerate(zip(rows, strips, strict=True)):
        y = MARGIN_PX + TITLE_PX + line * (height + GAP_PX)
        pen.text((MARGIN_PX, y + height / 2 - 14), row.title, MUTED, small, anchor="lm")
        pen.text((MARGIN_PX, y + height / 2 + 12), row.instruction, INK, large, anchor="lm")
        for column, frame in enumerate(strip):
            page.paste(frame, (left + column * (width + GAP_PX), y))
    return page


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description="Make the picture of the README.")
    parser.add_argument("run", type=Path, help="folder of a finished quickstart: runs/quickstart")
    parser.add_argument("--out", type=Path, required=True, help="a .webp or .png")
    parser.add_argument("--clip", help="id of a two-cube test clip, such as two-000003")
    options = parser.parse_args()
    clip, rows = choose_rows(options.run, options.clip)
    page = draw(rows, frames_per_s=10)
    page.save(options.out, quality=88)
    print(f"{options.out}: {clip}, {page.width}x{page.height}, {options.out.stat().st_size} bytes")


if __name__ == "__main__":
    main()
