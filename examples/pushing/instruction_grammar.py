"""A grammar of robot instructions, wider than the example: what the tiny text encoder is trained on.

A sentence names a verb, a colour, an object and a direction or place, in one of several orders, with
optional words between them and sometimes a second object that is not the one to move.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

VERBS = (
    "push", "pull", "slide", "move", "lift", "place", "nudge", "drag", "shove", "roll", "carry", "tap",
)  # fmt: skip
COLOURS = (
    "red", "green", "blue", "yellow", "purple", "orange", "white", "black", "pink", "brown", "gray", "cyan",
)  # fmt: skip
OBJECTS = ("cube", "ball", "block", "cup", "box", "cylinder", "bowl", "ring", "plate", "can")
DIRECTIONS: dict[str, tuple[str, ...]] = {
    "left": ("left", "left", "to the left", "leftward"),
    "right": ("right", "right", "to the right", "rightward"),
    "away": ("away", "away", "away from the robot", "away from you"),
    "toward": ("toward", "toward", "toward the robot", "toward you"),
    "up": ("up", "upward"),
    "down": ("down", "downward"),
    "corner": ("into the corner", "to the corner"),
    "edge": ("to the edge", "over the edge"),
    "middle": ("to the middle", "into the middle of the table"),
    "tray": ("onto the tray", "to the tray"),
    "drawer": ("into the drawer", "to the drawer"),
    "around": ("around", "all around"),
}
"""Direction → phrases that mean it; the four directions of the example come first."""
ADVERBS = ("slowly", "gently", "carefully", "quickly", "now")
SIZES = ("small", "large", "wooden", "tiny", "heavy")
RELATIONS = ("next to", "behind", "in front of", "near")

SLOTS: dict[str, tuple[str, ...]] = {
    "verb": VERBS,
    "colour": COLOURS,
    "object": OBJECTS,
    "direction": tuple(DIRECTIONS),
}
"""Slots of a sentence, each with the values that it may take."""


@dataclass(frozen=True)
class Sentence:
    """A sentence and, for each slot in the order of SLOTS, the index of its value."""

    text: str
    slots: tuple[int, ...]


def _noun_phrase(colour: str, thing: str, rng: random.Random) -> str:
    article = rng.choice(("the", "the", "the", "a", "that"))
    size = rng.choice(SIZES) + " " if rng.random() < 0.15 else ""
    if rng.random() < 0.1:
        return f"{article} {size}{thing} that is {colour}"
    return f"{article} {size}{colour} {thing}"


def draw_sentence(rng: random.Random) -> Sentence:
    """Draw a sentence; all slot values are independent and uniform."""
    slots = tuple(rng.randrange(len(values)) for values in SLOTS.values())
    verb, colour, thing, direction = (
        values[i] for values, i in zip(SLOTS.values(), slots, strict=True)
    )
    phrase = "the " + colour + " " + thing
    where = rng.choice(DIRECTIONS[direction])
    if rng.random() < 0.4:
        return Sentence(f"{verb} {phrase} {where}", slots)
    phrase = _noun_phrase(colour, thing, rng)
    if rng.random() < 0.2:
        other = f"the {rng.choice(COLOURS)} {rng.choice(OBJECTS)}"
        phrase = f"{phrase} {rng.choice(RELATIONS)} {other}"
    adverb = rng.choice(ADVERBS)
    templates = (
        f"{verb} {phrase} {where}",
        f"{adverb} {verb} {phrase} {where}",
        f"please {verb} {phrase} {where}",
        f"{verb} {phrase} {where} {adverb}",
        f"take {phrase} and {verb} it {where}",
        f"with {phrase}, {verb} it {where}",
        f"robot, {verb} {phrase} {where}",
        f"{where}: {verb} {phrase}",
    )
    return Sentence(rng.choice(templates), slots)
