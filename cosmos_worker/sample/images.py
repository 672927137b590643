"""Image files as 8-bit RGB arrays in sRGB, as a viewer shows them. Knows nothing of inference inputs.

What a file is follows from its content, never from its name. What is changed on the way (orientation, bit depth,
transparency, colours) is said in ``Picture.notes``.
"""

from __future__ import annotations

import io
import warnings
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageOps

from cosmos_worker.data.video.decoding import read_through
from cosmos_worker.errors import DataError

HEAD_BYTES = 512
READ: dict[str, tuple[str, ...]] = {
    "PNG": ("PNG",),
    "JPEG": ("JPEG", "MPO"),
    "GIF": ("GIF",),
    "WebP": ("WEBP",),
    "BMP": ("BMP",),
    "TIFF": ("TIFF",),
    "AVIF": ("AVIF",),
}
"""Formats that are read → Pillow's names of them."""
READ_TEXT = ", ".join(READ)
SAVE_AGAIN = "save it as PNG or JPEG"
SIGNATURES: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"\xff\xd8\xff", "JPEG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"II+\0", "TIFF"),
    (b"MM\0+", "TIFF"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\0\0\0\x0cJXL ", "JPEG XL"),
    (b"\0\0\0\x0cjP  ", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"8BPS", "Photoshop"),
    (b"v/1\x01", "OpenEXR"),
    (b"#?RADIANCE", "Radiance HDR"),
    (b"DDS ", "DDS"),
    (b"qoif", "QOI"),
    (b"%PDF", "PDF"),
    (b"<svg", "SVG"),
)
"""How files of a format begin."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
MAX_PIXELS = 89_478_485
"""Larger images are refused: 256 MiB of 8-bit RGB, where Pillow begins to warn of decompression bombs."""
ORIENTATION = 0x0112
"""Tag of EXIF."""
TURNED = range(2, 9)
"""Orientations other than upright."""
OPAQUE = 255
GREY_16 = ("I;16", "I;16L", "I;16B", "I;16N")
REFUSED_MODES = {
    "F": "floating-point values, which have no agreed range",
    "I": "32-bit integers, which have no agreed range",
    "LAB": "L*a*b* colours",
}
PROBE_LEVELS = (0, 37, 73, 110, 146, 183, 219, 255)
SAME_COLOUR = 2
"""A colour profile that moves no probe by more than so many of 255 levels counts as sRGB: pixels stay as they are."""

Pixels = NDArray[np.uint8]


@dataclass(frozen=True)
class Picture:
    """A decoded image.

    Attributes:
        pixels_HWC: uint8 RGB, turned as it is to be seen.
        notes: what was changed on the way, for the log and the record.
    """

    pixels_HWC: Pixels
    notes: tuple[str, ...]


def image_format(path: Path) -> str | None:
    """Name of the image format that a file's content is of, read or not; None = none that is known here.

    Raises:
        OSError: the volume does not give the file's content.
    """
    with path.open("rb") as stream:
        head = stream.read(HEAD_BYTES)
    for signature, name in SIGNATURES:
        if head.startswith(signature):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WebP"
    if head[:2] == b"BM" and head[6:10] == b"\0\0\0\0":
        return "BMP"
    if head[4:8] == b"ftyp":
        brands = head[8 : min(len(head), int.from_bytes(head[:4], "big"))]
        if b"avif" in brands or b"avis" in brands:
            return "AVIF"
        if brands[:4] in HEIF_BRANDS:
            return "HEIC"
    return None


def read_image(path: Path) -> Picture:
    """An image as a viewer shows it.

    EXIF orientation is applied, 16 bits are scaled to 8, transparent parts are laid over black, and colours of an
    embedded profile are converted to sRGB.

    Raises:
        DataError: a format, a kind of pixels or a size that is not read, several frames, or a damaged file.
        OSError: the volume does not give the file's content.
    """
    name = image_format(path)
    if name not in READ:
        raise DataError(
            f"{path}: {name or 'no'} image; read are {READ_TEXT} (known by content, not by name); {SAVE_AGAIN}"
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=READ[name]) as image:
                _check(path, image, name)
                return _decode(path, image)
    except (DataError, MemoryError):
        raise
    except Image.DecompressionBombError:
        raise DataError(f"{path}: {_too_large()}") from None
    except Exception as error:  # damaged files make decoders raise nearly anything
        read_through(path)
        if name == "AVIF" and "AVIF" not in Image.registered_extensions().values():
            raise DataError(f"{path}: AVIF needs Pillow 11.3 or later; {SAVE_AGAIN}") from None
        reason = " ".join(str(error).replace(str(path), "the file").split())[:200]
        raise DataError(
            f"{path}: cannot be read as an image ({name}: {reason or type(error).__name__}); save it again"
        ) from None


def _too_large(size: tuple[int, int] | None = None) -> str:
    got = f"{size[0]}x{size[1]} pixels are" if size else "it has"
    return f"{got} more than the {MAX_PIXELS} pixels that an image may have; make it smaller"


def _check(path: Path, image: Image.Image, name: str) -> None:
    """Refuse what the header already says cannot be used."""
    if image.width * image.height > MAX_PIXELS:
        raise DataError(f"{path}: {_too_large(image.size)}")
    frames = getattr(image, "n_frames", 1)
    if (
        frames > 1 and image.format != "MPO"
    ):  # further pictures of a JPEG are previews and gain maps
        what = "pages" if name == "TIFF" else "frames"
        raise DataError(
            f"{path}: {name} of {frames} {what}; save the wanted one as PNG or JPEG, or an animation as MP4"
        )
    if image.mode in REFUSED_MODES and not _is_16_bit_png(image):
        raise DataError(
            f"{path}: {name} of {REFUSED_MODES[image.mode]}; save it with 8 or 16 bits a channel in RGB or grey"
        )


def _is_16_bit_png(image: Image.Image) -> bool:
    """Older versions of Pillow give 16-bit grey of PNG as 32-bit integers."""
    return image.mode == "I" and image.format == "PNG"


def _decode(path: Path, image: Image.Image) -> Picture:
    notes: list[str] = []
    orientation = image.getexif().get(ORIENTATION, 1)  # TIFF forgets it when it is loaded
    image.load()
    profile = image.info.get("icc_profile")
    turned = ImageOps.exif_transpose(image)
    if orientation in TURNED:
        notes.append(f"turned as its EXIF orientation {orientation} says")
    image, has_alpha = _eight_bits(turned, notes)
    alpha = image.getchannel("A") if has_alpha else None
    image = image.convert("RGB") if has_alpha or image.mode not in ("L", "CMYK") else image
    if profile:
        image = _to_srgb(image, profile, notes)
    elif image.mode == "CMYK":
        notes.append("converted from CMYK without a colour profile, so colours are approximate")
    image = image.convert("RGB")
    if alpha is not None and alpha.getextrema()[0] != OPAQUE:
        notes.append("transparent parts are laid over black")
        image = Image.composite(image, Image.new("RGB", image.size), alpha)
    return Picture(np.array(image), tuple(notes))


def _eight_bits(image: Image.Image, notes: list[str]) -> tuple[Image.Image, bool]:
    """The image with 8 bits a channel, in mode RGB, RGBA, L or CMYK, and whether it has an alpha channel."""
    if image.mode in GREY_16 or image.mode == "I":
        values = np.asarray(image).astype(np.uint32)
        key = image.info.get("transparency")
        image8 = Image.fromarray(((values + 128) // 257).astype(np.uint8))
        notes.append("16 bits are scaled to 8")
        if isinstance(key, int):
            mask = np.where(values == key, 0, OPAQUE).astype(np.uint8)
            image8.putalpha(Image.fromarray(mask))
            return image8.convert("RGBA"), True
        return image8, False
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        if image.mode == "La":
            image = image.convert("LA")
        return image.convert("RGBA"), True
    if image.mode in ("L", "CMYK"):
        return image, False
    return image.convert("RGB"), False


# --- colours ---------------------------------------------------------------------------------


def _to_srgb(image: Image.Image, profile: bytes, notes: list[str]) -> Image.Image:
    """The image in sRGB; one whose profile is no other than sRGB, or cannot be used, as it is."""
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        name = " ".join(ImageCms.getProfileDescription(source).split())[:60]
        transform = ImageCms.buildTransform(
            source, ImageCms.createProfile("sRGB"), image.mode, "RGB"
        )
        if image.mode == "RGB" and _is_srgb(transform):
            return image
        converted = ImageCms.applyTransform(image, transform)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        reason = " ".join(str(error).split())[:100]
        notes.append(f"its colour profile cannot be used ({reason}), so colours are taken as sRGB")
        return image
    assert converted is not None
    notes.append(f"colours are converted from {name or 'its profile'} to sRGB")
    return converted


def _is_srgb(transform: ImageCms.ImageCmsTransform) -> bool:
    """Whether a transform from RGB to sRGB leaves a grid of colours as they are."""
    grid = np.stack(np.meshgrid(*[PROBE_LEVELS] * 3), axis=-1).reshape(1, -1, 3).astype(np.uint8)
    moved = ImageCms.applyTransform(Image.fromarray(grid), transform)
    return bool(np.abs(np.asarray(moved).astype(int) - grid).max() <= SAME_COLOUR)
