"""Distortion of clips whose aspect ratio is not the window's."""

import pytest

from cosmos_worker.config.stages import PrepareDatasetConfig
from cosmos_worker.data.distortion import (
    Distortion,
    describe_distortion,
    find_distortions,
    summarize_distortions,
)
from cosmos_worker.data.index import Clip


def make_config(fit: str, **fields) -> PrepareDatasetConfig:
    return PrepareDatasetConfig.model_validate(
        {
            "key": "k",
            "target_uri": "x",
            "data_uri": "x",
            "source": {"path": "x"},
            "layout": "bridge",
            "video": {"num_pixel_frames": 9, "height": 32, "width": 64},
            "fit": fit,
            **fields,
        }
    )


def clip(name: str, height: int, width: int, bucket: str | None = None) -> Clip:
    return Clip(name, "train", "x.mp4", ("a",), 9, 10.0, height, width, (0,), "", bucket)


@pytest.mark.parametrize(
    ("fit", "size", "words"),
    [
        ("stretch", (64, 64), "stretched by 100 % in width"),
        ("stretch", (32, 128), "stretched by 100 % in height"),
        ("crop", (64, 64), "50 % of the picture is cut (top and bottom)"),
        ("crop", (16, 64), "50 % of the picture is cut (left and right)"),
        ("pad", (64, 64), "50 % is black (left and right)"),
        ("pad", (16, 64), "50 % is black (top and bottom)"),
    ],
)
def test_what_becomes_of_a_picture(fit: str, size: tuple[int, int], words: str):
    (found,) = find_distortions(make_config(fit), [clip("a", *size)])

    assert found.words == words


def test_up_to_ten_percent_is_not_told():
    kept = [
        clip("at", 320, 704),
        clip("below", 32, 64),
        clip("above", 320, 705),
        clip("worst", 9, 9),
    ]

    found = find_distortions(make_config("stretch"), kept)

    assert [one.name for one in found] == ["worst", "above"]
    assert summarize_distortions("stretch", found) == {
        "fit": "stretch",
        "clips": 2,
        "largest": "stretched by 100 % in width",
        "sizes": [
            {
                "size": size,
                "window": "32x64",
                "clips": 1,
                "what": f"stretched by {words}",
                "example": name,
            }
            for size, words, name in (
                ("9x9", "100 % in width", "worst"),
                ("320x705", "10 % in height", "above"),
            )
        ],
    }


def test_the_window_is_that_of_the_bucket():
    buckets = [{"num_pixel_frames": 9, "height": size, "width": 32} for size in (32, 64)]
    kept = [clip("a", 64, 32, "9x64x32"), clip("b", 64, 32, "9x32x32")]

    found = find_distortions(make_config("pad", buckets=buckets), kept)

    assert [(one.name, one.window_size) for one in found] == [("b", "32x32")]


def shape(height: int, width: int, window_height: int, window_width: int, fit: str) -> Distortion:
    return Distortion("x", height, width, window_height, window_width, fit)


def test_the_factor_is_the_ratio_of_both_aspect_ratios():
    assert shape(36, 64, 72, 128, "stretch").factor == 1
    assert shape(100, 100, 200, 100, "pad").factor == shape(100, 100, 100, 200, "crop").factor == 2
    assert float(shape(480, 640, 704, 1280, "stretch").factor) == pytest.approx(1.3636, abs=1e-4)


def test_a_picture_to_continue_from_is_told_by_the_same_measure():
    assert describe_distortion(shape(640, 360, 64, 96, "stretch"), "set dataset.fit") == (
        "360x640 is stretched to 96x64, which distorts by 167%; to keep the aspect ratio, set dataset.fit"
    )
    assert describe_distortion(shape(640, 360, 64, 96, "crop"), "set dataset.fit") is None
    assert describe_distortion(shape(100, 110, 100, 100, "stretch"), "set dataset.fit") is None
    assert describe_distortion(shape(100, 111, 100, 100, "stretch"), "set dataset.fit") is not None
