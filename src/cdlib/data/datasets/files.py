"""Image files in a folder, and decoding them: what datasets of files share.

Every image becomes the same kind of square, 8 bits of sRGB. Turned upright as its EXIF says; brought to sRGB by its colour
profile, where it has a usable one; laid on white where it is transparent; grey in three equal channels; of several frames the
first. Then the shorter side is resized (Lanczos) and the centre cropped. More than 8 bits are scaled by the depth that the
format declares.

Refused, as the picture would be lost: what is white on transparency; what has more than 8 bits and uses less than a quarter
of the declared range (such as 12 bits stored as 16); 32 bits; more pixels than LIMIT.

T  images         S  side_px
"""

import io
import os
import re
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from joblib import cpu_count
from PIL import Image, ImageCms, ImageOps

from cdlib.base import paths
from cdlib.base.errors import Refused

FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM", "ICO")  # which begin with what they are; TGA does not
EXTENSIONS = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".bmp", ".gif", ".tif", ".tiff")
EXTENSIONS += (".pgm", ".ppm", ".pbm", ".pnm", ".tga", ".ico")
LIMIT = 2 * Image.MAX_IMAGE_PIXELS  # which Pillow opens
REMARKS = ("of several frames only the first counts", "enlarged more than 4 times", "less than a quarter is left by cropping")
REMARKS += ("the colour profile cannot be used, sRGB is assumed",)
TIFF_BITS, TIFF_PHOTOMETRIC, TIFF_MAX_SAMPLE = 258, 262, 281


def folder(params: dict, wanted: str, key: str = "data") -> Path:
    """The folder that the parameter `key` names; `wanted` says what it holds. Raises Refused when it is none."""
    if not params[key]:
        raise Refused(f"{key}: '': must be {wanted}")
    given = paths.given(params[key])
    if os.path.isfile(given):
        raise Refused(f"{key}: {given}: is a file, not a folder: extract it first, then name {wanted}")
    if not os.path.isdir(given):
        raise Refused(f"{key}: {params[key]!r}: no such folder ({given}): must be {wanted}")
    return given


def listed(directory: Path) -> list[str]:
    """Names of a folder's image files, sorted; hidden files, and files with another ending, are passed over."""
    return sorted(p.name for p in directory.iterdir() if p.suffix.lower() in EXTENSIONS and p.name[0] != "." and p.is_file())


def some(names: list[str]) -> str:
    """How many there are, and the first three by name, with escapes for what cannot be printed."""
    shown = [name if name.isprintable() else repr(name) for name in names[:3]]
    return f"{len(names)}: {', '.join(shown)}{', ...' if len(names) > 3 else ''}"


def opened(path: Path) -> Image.Image:
    """An image whose pixels are not read yet. Raises what Pillow raises."""
    return Image.open(path, formats=FORMATS + ("TGA",) * (path.suffix.lower() == ".tga"))


def is_image(path: Path) -> bool:
    """Whether a file is an image: by its ending, or by its content where it has none."""
    if path.suffix:
        return path.suffix.lower() in EXTENSIONS
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            opened(path).close()
        except Exception as error:  # decoders raise many kinds
            return isinstance(error, Image.DecompressionBombError)
    return True


def image(path: Path, side_px: int, reduced: int = 0) -> tuple[np.ndarray, list[bool]]:
    """One image, as the head of this module says: uint8 [3, S, S], 0..255; and which REMARKS there are of it.

    reduced    a JPEG may be decoded at a smaller size, of at least so many times S; 0: it may not

    Raises Refused, and what Pillow raises.
    """
    with opened(path) as file:
        short, long = sorted(file.size)
        frames = file.format != "MPO" and getattr(file, "n_frames", 1) > 1  # a photograph may carry a preview
        if reduced:
            file.draft(None, (reduced * side_px,) * 2)
        deep = re.search(r"(?<!BGR);1[26]|, 65535\)", str(file.tile))
        upright = ImageOps.exif_transpose(file)
        if deep or upright.mode in ("I", "F"):
            upright = _eight_bits(upright, file)
    white, usable = _on_white(upright)
    pixels = np.asarray(ImageOps.fit(white, (side_px, side_px), Image.Resampling.LANCZOS))
    remarks = [frames, 4 * short < side_px, 4 * short < long, not usable]
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)), remarks


def _eight_bits(image: Image.Image, file: Image.Image) -> Image.Image:
    """A deep image with 8 bits of grey; one of colours has lost all but 8 already. Raises Refused when its depth is not sure."""
    if image.mode == "F" or image.mode == "I" and file.format != "PPM":
        raise Refused("has 32 bits a pixel: save it with 8 or 16")
    tags, white = getattr(file, "tag_v2", {}), 255
    levels = np.asarray(image if image.mode.startswith("I") else image.convert("RGB"))
    if levels.ndim == 2:
        largest = int(np.max(tags.get(TIFF_MAX_SAMPLE, 0)))  # tells the depth where it is 2 ** bits - 1
        white = largest if largest > 255 and not largest & largest + 1 else 2 ** int(np.max(tags.get(TIFF_BITS, 16))) - 1
    if levels.max() <= white / 4:
        raise Refused("is stored with more than 8 bits and uses less than a quarter of their range: save it with 8 bits")
    if levels.ndim == 3:
        return image
    share = np.clip(levels.astype(np.float32) / white, 0, 1)
    grey = Image.fromarray(np.round(255 * (1 - share if tags.get(TIFF_PHOTOMETRIC) == 0 else share)).astype(np.uint8))
    grey.info = image.info
    return grey


def _on_white(image: Image.Image) -> tuple[Image.Image, bool]:
    """The same as sRGB, on white; and whether its colour profile, if it has one, was used. Raises Refused when it vanishes."""
    alpha = image.convert("RGBA").getchannel("A") if image.has_transparency_data else None
    colours = image.convert({"LA": "L", "RGBA": "RGB", "P": "RGB", "PA": "RGB", "1": "L"}.get(image.mode, image.mode))
    plain, usable = colours.convert("RGB"), True
    if profile := image.info.get("icc_profile"):
        try:
            srgb = (ImageCms.ImageCmsProfile(io.BytesIO(profile)), ImageCms.createProfile("sRGB"))
            found = ImageCms.profileToProfile(colours, *srgb, outputMode="RGB")
            if np.abs(np.subtract(found, plain, dtype=np.int16)).max() > 2:  # else the profile is sRGB's own
                plain = found
        except (OSError, ImageCms.PyCMSError):
            usable = False
    if alpha is None:
        return plain, usable
    plain.putalpha(alpha)
    white = Image.alpha_composite(Image.new("RGBA", plain.size, "white"), plain).convert("RGB")
    if len(set(alpha.getextrema())) > 1 and min(low for low, _ in white.getextrema()) >= 250:
        raise Refused("is white on transparency, which would become blank: lay it on a background first")
    return white, usable


def _attempt(path: Path, side_px: int, reduced: int) -> tuple[np.ndarray, list[bool]] | str:
    """An image, or why it cannot be used and what to do."""
    try:
        return image(path, side_px, reduced)
    except Refused as error:
        return str(error)
    except Image.DecompressionBombError:
        return f"has more than {LIMIT:,} pixels: make it smaller"
    except Exception as error:  # decoders raise many kinds
        why = " ".join(f"{type(error).__name__}: {error}".split()).replace(str(path), path.name)
        return f"replace or remove it ({why})"


def images(root: Path, names: list[str], side_px: int, key: str = "data", reduced: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """The images of some files below a folder, in that order: uint8 [T, 3, S, S], 0..255; and bool [T, R] of the REMARKS.

    key    the parameter that names the folder

    Raises Refused with the names of those that cannot be decoded.
    """
    pixels, remarks = np.empty((len(names), 3, side_px, side_px), np.uint8), np.empty((len(names), len(REMARKS)), bool)
    wrong = {}
    with warnings.catch_warnings(), ThreadPoolExecutor(min(cpu_count(), 8)) as pool:
        warnings.simplefilter("ignore")  # of odd metadata, and of size, which is refused only beyond LIMIT
        for t, found in enumerate(pool.map(lambda name: _attempt(root / name, side_px, reduced), names)):
            if isinstance(found, str):
                wrong[names[t]] = found
            else:
                pixels[t], remarks[t] = found
    if wrong:
        first = "the first: " if len(wrong) > 1 else ""
        raise Refused(f"{key}: {root}: cannot be decoded, {some(list(wrong))}: {first}{next(iter(wrong.values()))}")
    return pixels, remarks
