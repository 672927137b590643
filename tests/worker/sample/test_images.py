"""Images of all kinds as viewers show them, with the right pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms

from cosmos_worker.errors import DataError
from cosmos_worker.sample.images import image_format, read_image

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def quadrants() -> Image.Image:
    """24 x 16: red, green above; blue, white below."""
    pixels = np.zeros((16, 24, 3), dtype=np.uint8)
    pixels[:8, :12], pixels[:8, 12:], pixels[8:, :12], pixels[8:, 12:] = RED, GREEN, BLUE, WHITE
    return Image.fromarray(pixels)


def levels() -> np.ndarray:
    """All 256 levels, uint8 (16, 16)."""
    return np.arange(256, dtype=np.uint8).reshape(16, 16)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "bmp", "tiff", "gif", "avif"])
def test_formats_are_read_by_content(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"image.{ending}"
    quadrants().save(path, **({"lossless": True} if ending == "webp" else {"quality": 95}))
    path = path.rename(tmp_path / "image.mp4")

    picture = read_image(path)

    assert image_format(path) is not None
    assert picture.notes == ()
    assert picture.pixels_HWC.shape == (16, 24, 3)
    for (row, column), colour in zip(
        ((3, 3), (3, 20), (12, 3), (12, 20)), (RED, GREEN, BLUE, WHITE), strict=True
    ):
        np.testing.assert_allclose(picture.pixels_HWC[row, column], colour, atol=25)


@pytest.mark.parametrize("orientation", range(2, 9))
@pytest.mark.parametrize("ending", ["jpg", "png", "webp", "tiff", "avif"])
def test_exif_orientation_is_applied(tmp_path: Path, ending: str, orientation: int) -> None:
    wanted = quadrants()
    undo = {  # stored pixels from upright pixels
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM, 5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE, 8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"image.{ending}"
    wanted.transpose(undo[orientation]).save(path, exif=exif, quality=95)

    picture = read_image(path)

    assert picture.notes == (f"turned as its EXIF orientation {orientation} says",)
    np.testing.assert_allclose(
        picture.pixels_HWC[4:12:7, 4:20:13].astype(int),
        np.asarray(wanted)[4:12:7, 4:20:13].astype(int),
        atol=25,
    )


@pytest.mark.parametrize("ending", ["png", "tiff"])
def test_16_bit_grey_is_scaled_to_8(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"image.{ending}"
    Image.fromarray(levels().astype(np.uint16) * 257).save(path)

    picture = read_image(path)

    np.testing.assert_array_equal(picture.pixels_HWC, np.stack([levels()] * 3, axis=-1))
    assert picture.notes == ("16 bits are scaled to 8",)


def png(colour_type: int, depth: int, rows: np.ndarray, *chunks: tuple[bytes, bytes]) -> bytes:
    """A PNG of given bytes, written without a library; rows are bytes (H, bytes of a row)."""
    height, width = (
        rows.shape[0],
        rows.shape[1] * 8 // depth // {2: 3, 6: 4, 4: 2}.get(colour_type, 1),
    )

    def chunk(name: bytes, data: bytes) -> bytes:
        return (
            struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        )

    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    pixels = zlib.compress(b"".join(b"\0" + row.tobytes() for row in rows))
    parts = [(b"IHDR", header), *chunks, (b"IDAT", pixels), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_16_bit_rgb_is_scaled_to_8(tmp_path: Path) -> None:
    pixels = np.stack([levels(), levels()[::-1], levels().T], axis=-1)
    path = tmp_path / "image.png"
    path.write_bytes(
        png(2, 16, (pixels.astype(np.uint16) * 257).astype(">u2").view(np.uint8).reshape(16, -1))
    )

    np.testing.assert_array_equal(read_image(path).pixels_HWC, pixels)


def with_alpha() -> Image.Image:
    image = quadrants().convert("RGBA")
    alpha = np.full((16, 24), 255, dtype=np.uint8)
    alpha[:8, :12] = 0  # the red part
    alpha[8:, :12] = 128  # the blue part
    image.putalpha(Image.fromarray(alpha))
    return image


def save_palette(path: Path) -> None:
    image = quadrants().quantize(4)
    index = image.getpixel((0, 0))
    image.save(path, transparency=index)


@pytest.mark.parametrize(
    ("name", "save", "blue"),
    [
        ("rgba.png", lambda path: with_alpha().save(path), 128),
        ("rgba.webp", lambda path: with_alpha().save(path, lossless=True), 128),
        ("rgba.tiff", lambda path: with_alpha().save(path), 128),
        ("palette.png", save_palette, 255),
        ("palette.gif", save_palette, 255),
        ("key.png", lambda path: quadrants().save(path, transparency=RED), 255),
    ],
)
def test_transparent_parts_are_black(
    tmp_path: Path, name: str, save: Callable[[Path], None], blue: int
) -> None:
    save(tmp_path / name)

    picture = read_image(tmp_path / name)

    assert picture.notes == ("transparent parts are laid over black",)
    pixels = picture.pixels_HWC
    assert pixels[3, 3].tolist() == [0, 0, 0]
    assert pixels[12, 3].tolist() == [0, 0, blue]
    assert pixels[12, 20].tolist() == [255, 255, 255]


def test_an_alpha_channel_that_hides_nothing_is_dropped(tmp_path: Path) -> None:
    quadrants().convert("RGBA").save(tmp_path / "a.png")

    picture = read_image(tmp_path / "a.png")

    assert picture.notes == ()
    np.testing.assert_array_equal(picture.pixels_HWC, np.asarray(quadrants()))


@pytest.mark.parametrize("name", ["cmyk.jpg", "cmyk.tiff"])
def test_cmyk_is_converted_and_told(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    quadrants().convert("CMYK").save(
        path, quality=95
    )  # Pillow writes JPEGs as Adobe does: inverted

    picture = read_image(path)

    assert "CMYK without a colour profile" in picture.notes[0]
    np.testing.assert_allclose(picture.pixels_HWC[3, 3], RED, atol=25)
    np.testing.assert_allclose(picture.pixels_HWC[12, 20], WHITE, atol=25)


def test_one_bit_images_are_black_and_white(tmp_path: Path) -> None:
    for name in ("a.png", "a.tiff", "a.bmp"):
        quadrants().convert("1", dither=Image.Dither.NONE).save(tmp_path / name)

        pixels = read_image(tmp_path / name).pixels_HWC

        assert set(np.unique(pixels)) == {0, 255}
        assert pixels[12, 20].tolist() == [255, 255, 255]


# --- colour profiles -------------------------------------------------------------------------


def display_p3() -> bytes:
    """A profile with the primaries of Display P3 in place of sRGB's, as a matrix profile stores them."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    primaries = {b"rXYZ": (0.51512, 0.24120, -0.00105), b"gXYZ": (0.29198, 0.69225, 0.04189),
                 b"bXYZ": (0.15710, 0.06657, 0.78407)}  # fmt: skip
    for number in range(struct.unpack_from(">I", profile, 128)[0]):
        name, offset = struct.unpack_from(">4sI", profile, 132 + 12 * number)
        if name in primaries:
            struct.pack_into(
                ">3i", profile, offset + 8, *(round(v * 65536) for v in primaries[name])
            )
    return bytes(profile)


@pytest.mark.parametrize("ending", ["png", "jpg", "webp", "tiff", "avif"])
def test_colours_of_another_profile_are_converted(tmp_path: Path, ending: str) -> None:
    path = tmp_path / f"p3.{ending}"
    Image.new("RGB", (16, 16), (200, 100, 100)).save(path, icc_profile=display_p3(), quality=95)

    picture = read_image(path)

    assert "are converted from" in picture.notes[0]
    np.testing.assert_allclose(picture.pixels_HWC[8, 8], (214, 96, 97), atol=5)


def test_an_srgb_profile_leaves_the_pixels_as_they_are(tmp_path: Path) -> None:
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    pixels = np.stack([levels(), levels()[::-1], levels().T], axis=-1)
    Image.fromarray(pixels).save(tmp_path / "a.png", icc_profile=profile)

    picture = read_image(tmp_path / "a.png")

    np.testing.assert_array_equal(picture.pixels_HWC, pixels)
    assert picture.notes == ()


def test_a_profile_that_does_not_fit_is_told(tmp_path: Path) -> None:
    Image.new("RGB", (16, 16), RED).save(tmp_path / "a.png", icc_profile=b"not a profile")

    picture = read_image(tmp_path / "a.png")

    assert picture.pixels_HWC[8, 8].tolist() == [255, 0, 0]
    assert "its colour profile cannot be used" in picture.notes[0]


# --- what is refused -------------------------------------------------------------------------


def save_animated(path: Path, **options: object) -> None:
    first, second = quadrants(), Image.new("RGB", (24, 16), RED)
    first.save(path, save_all=True, append_images=[second], **options)


@pytest.mark.parametrize(
    ("name", "what"),
    [("a.gif", "frames"), ("a.webp", "frames"), ("a.png", "frames"), ("a.avif", "frames"), ("a.tiff", "pages")],
)  # fmt: skip
def test_images_of_several_frames_are_refused(tmp_path: Path, name: str, what: str) -> None:
    save_animated(tmp_path / name)

    with pytest.raises(DataError, match=f"of 2 {what}; save the wanted one as PNG or JPEG"):
        read_image(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b"\0\0\0\x1cftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic", "HEIC"),
        (b"\xff\x0a" + b"x" * 40, "JPEG XL"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"8BPS\0\x01", "Photoshop"),
        (b"<svg xmlns=''/>", "SVG"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_formats_that_are_not_read_are_refused_by_name(
    tmp_path: Path, content: bytes, name: str
) -> None:
    path = tmp_path / "image.jpg"
    path.write_bytes(content)

    assert image_format(path) == name
    with pytest.raises(
        DataError, match=f"{name} image; read are PNG, JPEG.*; save it as PNG or JPEG"
    ):
        read_image(path)


def test_floating_point_and_wide_integers_are_refused_by_name(tmp_path: Path) -> None:
    Image.fromarray(np.ones((8, 8), dtype=np.float32)).save(tmp_path / "f.tiff")
    Image.fromarray(np.ones((8, 8), dtype=np.int32)).save(tmp_path / "i.tiff")

    with pytest.raises(DataError, match="TIFF of floating-point values"):
        read_image(tmp_path / "f.tiff")
    with pytest.raises(DataError, match="TIFF of 32-bit integers"):
        read_image(tmp_path / "i.tiff")


@pytest.mark.parametrize("side", [10_000, 15_000])
def test_a_decompression_bomb_is_refused_unread(tmp_path: Path, side: int) -> None:
    path = tmp_path / "bomb.png"  # its header alone: pixels that were read would be missing
    path.write_bytes(png(0, 8, np.zeros((1, side), dtype=np.uint8)))
    content = bytearray(path.read_bytes())
    content[20:24] = struct.pack(">I", side)
    content[29:33] = struct.pack(">I", zlib.crc32(content[12:29]))
    path.write_bytes(content)

    with pytest.raises(
        DataError, match="more than the 89478485 pixels that an image may have; make"
    ):
        read_image(path)


def test_every_cut_and_every_flipped_byte_is_an_image_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "image"
    generator = np.random.default_rng(0)
    for name, options in (("PNG", {}), ("JPEG", {}), ("GIF", {}), ("WEBP", {}), ("TIFF", {"compression": "tiff_lzw"}),
                          ("BMP", {}), ("AVIF", {})):  # fmt: skip
        stream = io.BytesIO()
        quadrants().save(stream, format=name, **options)
        whole = stream.getvalue()
        for _ in range(30):
            damaged = bytearray(whole)
            damaged[generator.integers(len(whole))] ^= int(generator.integers(1, 256))
            cut = generator.integers(len(whole)) if generator.random() < 0.5 else len(whole)
            path.write_bytes(damaged[:cut])
            with suppress(DataError):
                assert read_image(path).pixels_HWC.shape[2] == 3
