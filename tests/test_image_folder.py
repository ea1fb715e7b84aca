"""A folder of images: every bad one is one line that says what to do, and every readable image becomes the same small square."""

import csv
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageOps

from cdlib.base import params, paths
from cdlib.base.errors import Refused
from cdlib.data import contributors, datasets
from cdlib.data.datasets import files, image_folder
from cdlib.store import completion

SIDE = 8
GIVEN = {"ann": 3, "bob": 2, "cy": 4}
FILES = [f"{who}/{i}.png" for who, n in GIVEN.items() for i in range(n)]


def noise(seed, size=(12, 10), mode="RGB"):
    """An image of random pixels."""
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def put(root, name, content=b""):
    """A file below a folder: an image, or bytes."""
    path = Path(root) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, Image.Image):
        content.save(path)
    else:
        path.write_bytes(content)
    return path


@pytest.fixture
def given(tmp_path, scratch):
    """Parameters of nine images by three contributors."""
    for seed, name in enumerate(FILES):
        put(tmp_path / "images", name, noise(seed))
    return {"dataset": "image_folder", "images": str(tmp_path / "images"), "contributors_csv": ""} | {
        "n_contributors": 3,
        "side_px": SIDE,
        "file_column": "file",
        "contributor_column": "contributor",
    }


def write_csv(given, rows, header="file,contributor", encoding="utf-8"):
    """The same parameters with a csv; rows are lines."""
    path = Path(given["images"]).parent / "who.csv"
    path.write_bytes("\n".join([header, *rows, ""]).encode(encoding))
    return given | {"contributors_csv": str(path)}


ROWS = [f"{name},{name.split('/')[0]}" for name in FILES]


def refusal(given):
    """The one line with which check and load refuse; no image is kept then."""
    said = set()
    for function in (datasets.check, datasets.load):
        with pytest.raises(Refused) as error:
            function(given)
        said.add(str(error.value))
    assert len(said) == 1 and "\n" not in (line := said.pop())
    assert not paths.runs().exists()
    return line


def cut(path):
    """A file without its end."""
    path.write_bytes(path.read_bytes()[:-60])


def only(root, *kept):
    """Remove all images but those of some contributors."""
    for name in FILES:
        if name.split("/")[0] not in kept:
            (root / name).unlink()
    for who in GIVEN:
        if who not in kept:
            (root / who).rmdir()


def copy(root, old, new):
    (root / new).write_bytes((root / old).read_bytes())


BAD = {
    "an image of no bytes": (lambda r: put(r, "bob/9.jpg"), ["cannot be decoded, 1: bob/9.jpg: replace or remove"]),
    "an image that is text": (lambda r: put(r, "bob/9.jpg", b"no image"), ["cannot be decoded, 1: bob/9.jpg"]),
    "an image without its end": (lambda r: cut(r / "cy/1.png"), ["cannot be decoded, 1: cy/1.png: replace or remove"]),
    "many unreadable ones": (
        lambda r: [put(r, f"bob/{i}.tif", b"x") for i in range(5, 9)],
        ["cannot be decoded, 4: bob/5.tif, bob/6.tif, bob/7.tif, ...: the first: replace or remove it (UnidentifiedImageError"],
    ),
    "a link to nothing": (lambda r: (r / "bob/9.png").symlink_to("nowhere"), ["cannot be decoded, 1: bob/9.png"]),
    "grey of 32 bits": (
        lambda r: put(r, "bob/9.tif", Image.fromarray(np.zeros((9, 9), np.float32))),
        ["cannot be decoded, 1: bob/9.tif", "save it with 8 or 16"],
    ),
    "a format that is not read": (lambda r: put(r, "ann/a.HEIC", b"x"), ["1: ann/a.HEIC: save them as PNG or JPEG"]),
    "no images of one": (lambda r: (r / "dee").mkdir(), ["contributors without images, 1: dee: add images or remove"]),
    "only text of one": (lambda r: put(r, "dee/notes.txt", b"x"), ["contributors without images, 1: dee"]),
    "images of nobody": (lambda r: put(r, "a.png", noise(99)), ["in no contributor's folder, 1: a.png", "contributors_csv"]),
    "two contributors": (lambda r: only(r, "ann", "cy"), ["contributors: ann, cy: must be at least 3"]),
    "one contributor": (lambda r: only(r, "ann"), ["contributors: ann: must be at least 3"]),
    "nobody": (lambda r: only(r), ["no image in it: put a folder for each contributor there"]),
    "another number of contributors": (
        lambda r: put(r, "dee/0.png", noise(99)),
        ["n_contributors: 3: ", "has 4: write 4, and for n_coalitions 8 or more"],
    ),
    "the same file of two": (
        lambda r: copy(r, "cy/0.png", "ann/z.png"),
        ["the same image of two contributors (8 pixels a side), 1: ann/z.png and cy/0.png: leave one of each"],
    ),
    "the same pixels of two, in other formats": (
        lambda r: put(r, "ann/z.bmp", Image.open(r / "cy/0.png")),
        ["the same image of two contributors (8 pixels a side), 1: ann/z.bmp and cy/0.png"],
    ),
    "a name that is no text": (lambda r: os.rename(r / "ann/0.png", os.fsencode(r / "ann") + b"/\xff.png"), ["rename them"]),
    "a name of two lines": (lambda r: os.rename(r / "ann/0.png", r / "ann/a\nb.png"), [r"1: 'ann/a\nb.png': rename them"]),
}


@pytest.mark.parametrize(("spoil", "named"), BAD.values(), ids=BAD)
def test_a_bad_folder_is_refused_in_one_line(given, spoil, named):
    spoil(Path(given["images"]))
    line = refusal(given)
    assert given["images"] in line
    assert not [part for part in named if part not in line], line


BAD_CSV = {
    "a file that is not there": (["ann/9.png,ann"], {}, ["names files that are not there, 1: ann/9.png"]),
    "a file above the folder": (["../who.csv,ann"], {}, ["names what is no image in", "1: ../who.csv: remove their rows"]),
    "a file twice": (["ann/./0.png,bob"], {}, ["names files more than once, 1: ann/0.png: leave one row"]),
    "nobody": (["new/0.png,"], {}, ["contributor is empty for 1: new/0.png: say whose they are"]),
    "no column of contributors": ([], {"header": "file,by"}, ["columns file, by: one must be contributor"]),
    "no column of files": ([], {"header": "path,contributor"}, ["columns path, contributor: one must be file"]),
    "another encoding": (["ann/é.png,ann"], {"encoding": "latin-1"}, ["cannot be read as comma-separated text in UTF-8"]),
    "UTF-16": ([], {"encoding": "utf-16"}, ["cannot be read as comma-separated text in UTF-8"]),
}


@pytest.mark.parametrize(("rows", "how", "named"), BAD_CSV.values(), ids=BAD_CSV)
def test_a_bad_csv_is_refused_in_one_line(given, rows, how, named):
    put(given["images"], "new/0.png", noise(99))
    if "nobody" not in rows:
        rows = [*ROWS, *([] if any(row.startswith("new/") for row in rows) else ["new/0.png,ann"]), *rows]
    line = refusal(write_csv(given, rows, **how))
    assert "who.csv" in line
    assert not [part for part in named if part not in line], line


def test_a_file_without_a_row_is_refused(given):
    line = refusal(write_csv(given, ROWS[:-2]))
    assert f"who.csv: has no row for 2: cy/2.png, cy/3.png in {given['images']}: say whose they are" in line


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"images": ""}, ["images: '': must be the folder of your images"]),
        ({"images": "nowhere"}, ["images: 'nowhere': no such folder", "one folder in it for each contributor"]),
        (
            {"contributors_csv": "nowhere.csv"},
            ["contributors_csv: ", "nowhere.csv: no such file", "file and contributor"],
        ),
    ],
)
def test_what_is_not_there_is_refused_by_its_parameter(given, changes, named):
    line = refusal(given | changes)
    assert not [part for part in named if part not in line], line


def test_a_file_for_a_folder_is_refused(given):
    file = put(given["images"], "archive.zip")
    assert refusal(given | {"images": str(file)}).startswith(f"images: {file}: is a file, not a folder: extract it first")


def test_a_folder_that_cannot_be_read_is_named(given, monkeypatch):
    def denied(path):
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(Refused, match=r"images: cannot be read: Permission denied: allow it"):
        datasets.check(given)


def decoded(path, side=SIDE):
    """An image as a folder's dataset has it, uint8 [3, S, S]."""
    return files.image(path, side, image_folder.REDUCED)[0]


def expected(image, side=SIDE):
    """What Pillow itself makes of an RGB image: its shorter side resized, the centre cropped; uint8 [3, S, S]."""
    return np.asarray(ImageOps.fit(image, (side, side), Image.Resampling.LANCZOS)).transpose(2, 0, 1)


@pytest.mark.parametrize("size", [(8, 8), (12, 10), (64, 48), (5, 40), (1, 1)])
@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "tiff", "webp", "PNG"])
def test_a_lossless_image_becomes_what_pillow_makes_of_it(tmp_path, suffix, size):
    path, how = tmp_path / f"a.{suffix}", {"lossless": True} if suffix == "webp" else {}
    noise(0, size).save(path, **how)
    np.testing.assert_array_equal(decoded(path), expected(noise(0, size)))


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "jfif"])
def test_a_jpeg_becomes_what_pillow_makes_of_it(tmp_path, suffix):
    noise(0, (30, 20)).save(tmp_path / f"a.{suffix}", "JPEG")
    found = decoded(tmp_path / f"a.{suffix}")
    np.testing.assert_array_equal(found, expected(Image.open(tmp_path / f"a.{suffix}")))


def test_a_large_jpeg_decoded_small_is_within_two_grey_levels(tmp_path):
    y, x = np.mgrid[0:600, 0:800]
    picture = Image.fromarray(np.stack([x // 4, y // 3, (x + y) % 256], 2).astype(np.uint8))
    picture.save(tmp_path / "a.jpg", quality=95)
    whole = expected(Image.open(tmp_path / "a.jpg")).astype(int)
    assert np.abs(decoded(tmp_path / "a.jpg")[:2] - whole[:2]).max() <= 2


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "CMYK", "LA", "RGBA"])
def test_images_of_every_mode_become_rgb(tmp_path, mode):
    suffix = "tif" if mode == "CMYK" else "png"
    Image.new("RGB", (20, 12), (255, 255, 255)).convert(mode).save(tmp_path / f"a.{suffix}")
    assert (decoded(tmp_path / f"a.{suffix}") == 255).all()


def test_grey_becomes_three_equal_channels(tmp_path):
    noise(0, mode="L").save(tmp_path / "a.png")
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), expected(noise(0, mode="L").convert("RGB")))


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_grey_of_16_bits_keeps_its_range(tmp_path, suffix):
    Image.fromarray(np.full((9, 9), 128 * 257, np.uint16)).save(tmp_path / f"a.{suffix}")
    assert (decoded(tmp_path / f"a.{suffix}") == 128).all()


@pytest.mark.parametrize(("alpha", "colour"), [(0, 255), (255, 40), (51, 212)])
def test_transparency_lies_on_white(tmp_path, alpha, colour):
    Image.new("RGBA", (9, 9), (40, 40, 40, alpha)).save(tmp_path / "a.png")
    assert (decoded(tmp_path / "a.png") == colour).all()


def test_a_transparent_palette_lies_on_white(tmp_path):
    Image.new("P", (9, 9), 3).save(tmp_path / "a.gif", transparency=3)
    assert (decoded(tmp_path / "a.gif") == 255).all()


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_of_several_frames_the_first_counts(tmp_path, suffix):
    first, *others = (Image.new("RGB", (9, 9), (v, v, v)) for v in (10, 200, 90))
    first.save(tmp_path / f"a.{suffix}", save_all=True, append_images=others, **({"lossless": True} if suffix == "webp" else {}))
    assert np.abs(decoded(tmp_path / f"a.{suffix}").astype(int) - 10).max() <= 1


@pytest.mark.parametrize(("orientation", "turned"), [(3, 180), (6, 270), (8, 90)])
def test_a_photograph_is_turned_upright(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    noise(0).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(decoded(tmp_path / "a.png"), expected(noise(0).rotate(turned, expand=True)))


def test_images_are_sorted_by_file_and_joined_by_id(given):
    data = datasets.load(given)
    assert (data.images.shape, data.images.dtype, data.images.flags.c_contiguous) == ((9, 3, SIDE, SIDE), np.uint8, True)
    assert data.contributors.image.tolist() == list(range(9))
    assert data.contributors.contributor.tolist() == [name.split("/")[0] for name in FILES]
    assert contributors.counts(data.contributors).tolist() == list(GIVEN.values())
    for seed in range(9):
        np.testing.assert_array_equal(data.images[seed], expected(noise(seed)))


def test_numbers_are_planned_without_opening_an_image(given):
    for name in FILES:
        put(given["images"], name)
    assert datasets.planned(given) == (3, 9)


def same(a, b):
    return np.array_equal(a.images, b.images) and a.contributors.equals(b.contributors)


class Listed(list):
    """Entries of a folder as os.scandir gives them: closed by a `with`."""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass


def test_ids_do_not_depend_on_the_order_in_which_the_system_lists_files(given, monkeypatch):
    before, scandir = datasets.load(given), os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: Listed(sorted(scandir(path), key=lambda e: e.name, reverse=True)))
    assert same(datasets.load(given), before)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_and_folders_that_say_the_same_agree(given, encoding):
    rows = [row.replace("/", "\\", 1) if i % 2 else row.replace(",", " , ") for i, row in enumerate(reversed(ROWS))]
    assert same(datasets.load(write_csv(given, rows, encoding=encoding)), datasets.load(given))


def test_a_csv_says_whose_images_are_wherever_they_lie(given):
    put(given["images"], "loose.png", noise(50))
    (Path(given["images"]) / "empty").mkdir()
    found = datasets.load(write_csv(given, ["loose.png,NA", *(f"{name},007" for name in FILES[:5]), *ROWS[5:]]))
    assert found.contributors.contributor.tolist() == ["007"] * 5 + ["cy"] * 4 + ["NA"]


def test_deeper_folders_belong_to_the_first(given):
    before = datasets.load(given)
    put(given["images"], "ann/2024/may/0.png", noise(50))
    found = datasets.load(given).contributors
    assert (found.contributor == "ann").sum() == GIVEN["ann"] + 1 and len(found) == len(before.images) + 1


def test_hidden_files_and_what_systems_leave_are_passed_over(given):
    before = datasets.load(given)
    for name in (".DS_Store", "ann/.0.png", "ann/Thumbs.db", "__MACOSX/ann/0.png", "ann/@eaDir/0.png", ".git/0.png"):
        put(given["images"], name, b"x")
    assert same(datasets.load(given), before) and datasets.notes(given) == []


def test_files_passed_over_and_copies_are_told(given):
    for i in range(4):
        put(given["images"], f"ann/{i}.txt", b"x")
    copy(Path(given["images"]), "cy/0.png", "cy/z.png")
    assert datasets.notes(given) == [
        "1 images are copies of others by the same contributor",
        "not images, passed over, 4: ann/0.txt, ann/1.txt, ann/2.txt, ...",
    ]


def test_a_linked_folder_is_a_contributor(given, tmp_path):
    put(tmp_path / "elsewhere", "0.png", noise(60))
    (Path(given["images"]) / "dee").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    assert datasets.load(given | {"n_contributors": 4}).contributors.contributor.iloc[-1] == "dee"


def test_images_are_decoded_once_until_a_file_changes(given, monkeypatch):
    before, decoded = datasets.load(given), []
    image = files.image
    monkeypatch.setattr(files, "image", lambda path, *how: decoded.append(path) or image(path, *how))
    assert same(datasets.load(given), before) and not decoded
    noise(70).save(Path(given["images"]) / FILES[0])
    changed = datasets.load(given)
    assert len(decoded) == 9 and not np.array_equal(changed.images[0], before.images[0])
    assert changed.digest() != before.digest()


def test_kept_images_that_are_not_whole_are_decoded_again(given):
    before = datasets.load(given)
    [kept] = paths.runs().glob(".images/*.safetensors")
    for spoilt in (kept.read_bytes()[:-1], kept.read_bytes()[:-1] + b"\x07"):
        kept.write_bytes(spoilt)
        with pytest.warns(UserWarning, match=f"^{kept}: changed since it was written; made again"):
            assert same(datasets.load(given), before)


def test_a_changed_image_or_owner_undoes_the_notebooks(given):
    values = params.check({"name": "mine", "alphas": [0.5]} | write_csv(given, ROWS), "mine")
    seen = [completion.inputs("01_contributors", values)]
    noise(70).save(Path(given["images"]) / FILES[0])
    seen.append(completion.inputs("01_contributors", values))
    put(given["images"], "ann/.DS_Store", b"x")
    assert completion.inputs("01_contributors", values) == seen[-1]
    with open(values["contributors_csv"], "a") as file:
        csv.writer(file).writerow([])
    seen.append(completion.inputs("01_contributors", values))
    assert len(set(seen)) == 3
