"""Image files of every kind: what they become, what is told of them, and what is refused for it would be lost in silence.

The tables say (file, what comes of it).
"""

import io
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageCms, ImageOps

from cdlib.base.errors import Refused
from cdlib.data.datasets import files, image_folder

SIDE = 8
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
PROPHOTO = [(0.79767, 0.28804, 0.0), (0.13519, 0.71188, 0.00009), (0.03134, 0.00008, 0.8251)]  # XYZ of its primaries


def profile(space, gamma, **points):
    """An ICC profile (version 2) of one gamma, with XYZ points by their tags."""
    curve = b"curv" + struct.pack(">4xIH2x", 1, round(256 * gamma))
    found = {b"desc": b"desc" + struct.pack(">4xI", 2) + b"a\0" + bytes(78), b"cprt": b"text" + bytes(4) + b"a\0\0\0"}
    found[b"wtpt"] = b"XYZ " + bytes(4) + struct.pack(">3i", 63190, 65536, 54061)
    for tag, xyz in points.items():
        found[tag.encode() + b"XYZ"] = b"XYZ " + bytes(4) + struct.pack(">3i", *(round(65536 * c) for c in xyz))
    found |= {tag: curve for tag in ([b"kTRC"] if space == b"GRAY" else [b"rTRC", b"gTRC", b"bTRC"])}
    table, data, at = struct.pack(">I", len(found)), b"", 132 + 12 * len(found)
    for tag, content in found.items():
        content += bytes(-len(content) % 4)
        table += tag + struct.pack(">II", at + len(data), len(content))
        data += content
    head = struct.pack(">I4xI4s4s4s12x4s", at + len(data), 0x02100000, b"mntr", space, b"XYZ ", b"acsp")
    return head.ljust(68, b"\0") + struct.pack(">3i", 63190, 65536, 54061).ljust(60, b"\0") + table + data


WIDE = profile(b"RGB ", 1.8, r=PROPHOTO[0], g=PROPHOTO[1], b=PROPHOTO[2])


def in_prophoto(colour):
    """An sRGB colour as ProPhoto has it, by the definitions of both: linear light, XYZ at D50, shares, gamma 1.8."""
    part = np.array(colour) / 255
    light = np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)
    d50 = np.array([[0.43607, 0.38515, 0.14307], [0.22249, 0.71687, 0.06061], [0.01392, 0.09708, 0.71410]])
    return tuple(int(v) for v in np.round(255 * np.linalg.solve(np.array(PROPHOTO).T, d50 @ light) ** (1 / 1.8)))


def plain(colour, mode="RGB", size=(9, 9)):
    return Image.new(mode, size, colour)


def saved(image, suffix="png", **how):
    """The image as bytes."""
    data = io.BytesIO()
    image.save(data, {"tif": "TIFF", "jpg": "JPEG", "pgm": "PPM", "ppm": "PPM", "pbm": "PPM"}.get(suffix, suffix), **how)
    return data.getvalue()


def png(pixels, size=None):
    """16 bits of grey or RGB as PNG; with another size in its head, if one is given."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    height, width = pixels.shape[:2]
    head = struct.pack(">IIBBBBB", *(size or (width, height)), 16, 2 if pixels.ndim == 3 else 0, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def tiff(level, bits=16, photometric=1, largest=None):
    """Grey of one level as TIFF, with so many bits a pixel in the file; `largest` is its tag MaxSampleValue."""
    little = bits == 12 or photometric == 0  # as Pillow reads them
    order, short = (b"II*\0", "<") if little else (b"MM\0*", ">")
    data = int(format(level, "012b") * 64, 2).to_bytes(96) if bits == 12 else struct.pack(f"{short}H", level) * 64
    tags = {256: 8, 257: 8, 258: bits, 259: 1, 262: photometric, 277: 1, 278: 8, 279: len(data)}
    tags |= {281: largest} if largest else {}
    tags[273] = 8 + 2 + 12 * (len(tags) + 1) + 4
    entries = b"".join(struct.pack(f"{short}HHIHH", tag, 3, 1, value, 0) for tag, value in sorted(tags.items()))
    return order + struct.pack(f"{short}IH", 8, len(tags)) + entries + bytes(4) + data


def grey(level, dtype=np.uint16):
    return np.full((9, 9), level, dtype)


def turned(suffix):
    """Red on the left, blue on the right, stored upside down with EXIF that says so."""
    image = plain((0, 0, 255), size=(8, 8))
    image.paste((255, 0, 0), (4, 0, 8, 8))
    exif = Image.Exif()
    exif[0x0112] = 3
    return saved(image, suffix, exif=exif)


RED = (200, 60, 60)
HEAD = (98 + 128, 0, 66, 40, 8, 8, 1, 16, 3, 128, 0, 0, 0, 0, 63488, 2016, 31)
DARK = b"BM" + struct.pack("<IIIIiiHHIIiiIIIII", *HEAD) + struct.pack("<H", 0x2104) * 64  # 5, 6 and 5 bits a channel
DECODED = {  # file: (content, the colour it becomes)
    "prophoto.png": (saved(plain(in_prophoto(RED)), icc_profile=WIDE), RED),
    "prophoto.tif": (saved(plain(in_prophoto(RED)), "tif", icc_profile=WIDE), RED),
    "prophoto.jpg": (saved(plain(in_prophoto(RED)), "jpg", quality=100, icc_profile=WIDE), RED),
    "prophoto_opaque.png": (saved(plain((*in_prophoto(RED), 255), "RGBA"), icc_profile=WIDE), RED),
    "prophoto_half.png": (saved(plain((*in_prophoto(RED), 51), "RGBA"), icc_profile=WIDE), (244, 216, 216)),
    "linear_grey.png": (saved(plain(128, "L"), icc_profile=profile(b"GRAY", 1.0)), (188, 188, 188)),
    "linear_grey_16_bits.png": (saved(Image.fromarray(grey(128 * 257)), icc_profile=profile(b"GRAY", 1.0)), (188, 188, 188)),
    "srgb.png": (saved(plain(RED), icc_profile=SRGB), RED),
    "a_profile_that_is_none.png": (saved(plain(RED), icc_profile=b"none"), RED),
    "grey_with_a_profile_of_colours.png": (saved(plain(90, "L"), icc_profile=WIDE), (90, 90, 90)),
    "colours_with_a_profile_of_grey.png": (saved(plain(RED), icc_profile=profile(b"GRAY", 1.0)), RED),
    "16_bits.png": (png(grey(128 * 257)), (128, 128, 128)),
    "16_bits_of_colours.png": (png(np.full((9, 9, 3), [200 * 257, 60 * 257, 60 * 257])), RED),
    "12_bits.tif": (tiff(2048, bits=12), (128, 128, 128)),
    "12_bits_in_16_as_a_tag_says.tif": (tiff(2048, largest=4095), (128, 128, 128)),
    "16_bits.tif": (tiff(128 * 257), (128, 128, 128)),
    "16_bits_white_is_zero.tif": (tiff(55 * 257 + 16384, photometric=0), (136, 136, 136)),
    "12_bits.pgm": (b"P5 8 8 4095\n" + struct.pack(">H", 2048) * 64, (128, 128, 128)),
    "12_bits_as_text.pgm": (b"P2 8 8 4095\n" + b"2048 " * 64, (128, 128, 128)),
    "16_bits.ppm": (b"P6 8 8 65535\n" + struct.pack(">HHH", 200 * 257, 60 * 257, 60 * 257) * 64, RED),
    "bits.pbm": (saved(plain(1, "1"), "pbm"), (255, 255, 255)),
    "grey.pgm": (saved(plain(90, "L"), "pgm"), (90, 90, 90)),
    "colours.ppm": (saved(plain(RED), "ppm"), RED),
    "targa.tga": (saved(plain(RED), "tga"), RED),
    "icon.ico": (saved(plain(RED, size=(16, 16)), "ico"), RED),
    "colours.jpe": (saved(plain(RED), "jpg", quality=100), RED),
    "colours.jfif": (saved(plain(RED), "jpg", quality=100), RED),
    "png_by_content": (saved(plain(RED)), RED),
    "pgm_by_content": (saved(plain(90, "L"), "pgm"), (90, 90, 90)),
    "cmyk.tif": (saved(plain((0, 100, 100, 0), "CMYK"), "tif"), (255, 155, 155)),
    "dark_5_bits.bmp": (DARK, (33, 32, 33)),
}


@pytest.mark.parametrize("name", DECODED)
def test_every_kind_of_file_becomes_the_colour_that_it_shows(tmp_path, name):
    content, colour = DECODED[name]
    (tmp_path / name).write_bytes(content)
    assert files.is_image(tmp_path / name)
    found = files.images(tmp_path, [name], SIDE)[0][0].reshape(3, -1).T.astype(int)
    assert np.abs(found - colour).max() <= 2, found[0]


LOST = "is stored with more than 8 bits and uses less than a quarter of their range: save it with 8 bits"
REFUSED = {  # file: (content, why)
    "12_bits_in_16.tif": (tiff(3977), LOST),
    "12_bits_in_16_white_is_zero.tif": (tiff(100, photometric=0), LOST),
    "14_bits_in_16_as_no_tag_says.tif": (tiff(9000, largest=9000), LOST),
    "12_bits_in_16.png": (png(grey(3977)), LOST),
    "12_bits_in_16_of_colours.png": (png(np.full((9, 9, 3), 3977)), LOST),
    "8_bits_in_16_of_colours.png": (png(np.full((9, 9, 3), 255)), LOST),
    "12_bits_in_16.pgm": (b"P5 8 8 65535\n" + struct.pack(">H", 3977) * 64, LOST),
    "12_bits_in_16.ppm": (b"P6 8 8 65535\n" + struct.pack(">H", 3977) * 192, LOST),
    "32_bits.tif": (saved(Image.fromarray(grey(0, np.float32)), "tif"), "has 32 bits a pixel: save it with 8 or 16"),
    "32_bits_whole.tif": (saved(Image.fromarray(grey(0, np.int32)), "tif"), "has 32 bits a pixel: save it with 8 or 16"),
    "20000_wide.png": (png(grey(0), (20_000, 20_000)), "has more than 178,956,970 pixels: make it smaller"),
    "20000_wide": (png(grey(0), (20_000, 20_000)), "has more than 178,956,970 pixels: make it smaller"),
}


def glyph(colour, mode="RGBA"):
    """A shape of one colour on transparency, with soft edges."""
    alpha = np.zeros((20, 20), np.uint8)
    alpha[4:16, 8:12], alpha[4:16, 7], alpha[4:16, 12] = 255, 90, 180
    return Image.merge("RGBA", [*plain(colour, size=(20, 20)).split(), Image.fromarray(alpha)]).convert(mode)


VANISHES = "is white on transparency, which would become blank: lay it on a background first"
for mode in ("RGBA", "LA", "P"):
    REFUSED[f"white_{mode}.png"] = (saved(glyph((255, 255, 255), mode)), VANISHES)
REFUSED["nearly_white.webp"] = (saved(glyph((252, 252, 252)), "webp", lossless=True), VANISHES)


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_lost_in_silence_is_refused_in_one_line(tmp_path, name):
    content, why = REFUSED[name]
    (tmp_path / name).write_bytes(content)
    assert files.is_image(tmp_path / name)
    with pytest.raises(Refused) as error:
        files.images(tmp_path, [name], SIDE)
    assert str(error.value) == f"data: {tmp_path}: cannot be decoded, 1: {name}: {why}"


@pytest.mark.parametrize("colour", [(0, 0, 0), RED, (230, 230, 230)])
def test_a_glyph_that_is_seen_on_white_is_laid_on_white(tmp_path, colour):
    glyph(colour).save(tmp_path / "a.png")
    found = files.image(tmp_path / "a.png", 20)[0].transpose(1, 2, 0)
    assert (found[0] == 255).all() and (found[8, 9] == colour).all()


@pytest.mark.parametrize("alpha", [0, 51, 255])
def test_white_that_is_equally_transparent_everywhere_is_white(tmp_path, alpha):
    plain((255, 255, 255, alpha), "RGBA").save(tmp_path / "a.png")
    assert (files.image(tmp_path / "a.png", SIDE)[0] == 255).all()


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
def test_every_dataset_turns_images_upright(tmp_path, suffix):
    (tmp_path / f"a.{suffix}").write_bytes(turned(suffix))
    found = files.images(tmp_path, [f"a.{suffix}"], 8)[0][0]
    assert found[0, 4, 1] > 200 > 50 > found[2, 4, 1] and found[2, 4, 6] > 200 > 50 > found[0, 4, 6]


@pytest.mark.parametrize("mode", ["RGB", "L"])
@pytest.mark.parametrize("suffix", ["png", "jpg"])
@pytest.mark.parametrize("how", [{}, {"icc_profile": SRGB}, {"icc_profile": b"none"}], ids=["plain", "sRGB", "broken"])
def test_ordinary_images_of_8_bits_are_what_pillow_makes_of_them(tmp_path, mode, suffix, how):
    noise = np.random.default_rng(0).integers(0, 256, (24, 30, 3), np.uint8)
    Image.fromarray(noise).convert(mode).save(path := tmp_path / f"a.{suffix}", **how)
    wanted = ImageOps.fit(Image.open(path).convert("RGB"), (SIDE, SIDE), Image.Resampling.LANCZOS)
    for reduced in (0, image_folder.REDUCED):
        np.testing.assert_array_equal(files.image(path, SIDE, reduced)[0].transpose(1, 2, 0), np.asarray(wanted))


def frames(suffix, n=3):
    first, *others = (plain((90 * v, 0, 0)) for v in range(n))
    return saved(first, suffix, save_all=True, append_images=others)


TOLD = {  # file: (content, remarks)
    **{f"moving.{suffix}": (frames(suffix), [0]) for suffix in ("gif", "webp", "png", "tif")},
    "one_pixel.png": (saved(plain(RED, size=(1, 1))), [1]),
    "two_pixels.png": (saved(plain(RED, size=(2, 2))), []),
    "long.png": (saved(plain(RED, size=(500, 20))), [2]),
    "5000x2.png": (saved(plain(RED, size=(5000, 2))), [2]),
    "5000x1.png": (saved(plain(RED, size=(5000, 1))), [1, 2]),
    "20000x100.png": (saved(plain(RED, size=(20_000, 100))), [2]),
    "4x1.png": (saved(plain(RED, size=(40, 10))), []),
    "no_profile.png": (DECODED["a_profile_that_is_none.png"][0], [3]),
    "not_its_profile.png": (DECODED["grey_with_a_profile_of_colours.png"][0], [3]),
    "wide.png": (DECODED["prophoto.png"][0], []),
    "photograph_with_a_preview.jpg": (frames("mpo"), []),
    "icon.ico": (saved(plain(RED, size=(64, 64)), "ico", sizes=[(16, 16), (32, 32)]), []),
}


@pytest.mark.parametrize("name", TOLD)
def test_what_is_lost_of_an_image_is_told(tmp_path, name):
    content, remarks = TOLD[name]
    (tmp_path / name).write_bytes(content)
    assert np.flatnonzero(files.images(tmp_path, [name], SIDE)[1][0]).tolist() == remarks


@pytest.mark.parametrize(
    ("name", "content"),
    [("LICENSE", b"MIT License"), ("P5", b"P5"), ("zeros", bytes(600)), ("targa", DECODED["targa.tga"][0]), ("empty", b""),
     ("notes.txt", saved(plain(RED)))],
)  # fmt: skip
def test_what_does_not_begin_as_an_image_is_none_where_the_name_has_no_ending(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    assert not files.is_image(Path(tmp_path / name))
