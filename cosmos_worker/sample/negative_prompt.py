"""The text that guidance moves away from when a job names none. Ours; the reference has another of its own."""

from __future__ import annotations

DEFAULT_NEGATIVE_PROMPT = (
    "A bad recording: blurred, noisy, blocky, flickering or frozen, with a shaking camera, wrong exposure and dull "
    "colours; objects melt, jump, vanish or pass through each other, and the motion obeys no physics."
)
