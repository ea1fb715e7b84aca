"""Whose each image is: what is said of every csv, of every name, of links, and of images that two contributors gave."""

import unicodedata
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st
from PIL import Image

from cdlib import __main__
from cdlib.base import params, paths
from cdlib.base.errors import Refused
from cdlib.cli import check
from cdlib.data import datasets
from cdlib.data.datasets import owners

WHO = ("ann", "bob", "cy", "dee")
FILES = [f"{who}/{i}.png" for who in WHO for i in range(2)]


def put(root, name, seed=None, colour=None):
    """An image of noise, or of one colour."""
    path = Path(root) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 256, (9, 9, 3), np.uint8)
    (Image.fromarray(noise) if colour is None else Image.new("RGB", (9, 9), colour)).save(path, "PNG")


@pytest.fixture
def given(tmp_path, scratch):
    """Parameters of eight images by four contributors."""
    for seed, name in enumerate(FILES):
        put(tmp_path / "images", name, seed)
    values = {"dataset": "image_folder", "images": str(tmp_path / "images"), "contributors_csv": "", "side_px": 8}
    return values | {"n_contributors": 4, "file_column": "file", "contributor_column": "contributor"}


def table(given, text, encoding="utf-8"):
    """The same parameters with a csv."""
    path = Path(given["images"]).parent / "who.csv"
    path.write_bytes(text.encode(encoding) if isinstance(text, str) else text)
    return given | {"contributors_csv": str(path)}


def lines(*more, header="file,contributor", mark=","):
    rows = [f"{name},{name.split('/')[0]}" for name in FILES]
    return "\n".join([header, *rows, *more, ""]).replace(",", mark)


def refusal(given):
    with pytest.raises(Refused) as error:
        datasets.check(given)
    assert "\n" not in str(error.value)
    return str(error.value)


SAID = {  # csv: (text or bytes, what is said)
    "a name with a comma": (lines("x.png,Doe, John"), 'fields than the header has in 1: line 10: write names as "Doe, Jane"'),
    "names with commas": (lines("x.png,Doe, John", "y.png,Doe, Jane"), "in 2: line 10, line 11: write"),
    "a name over two lines": (lines('x.png,"Doe\nJohn"', "y.png,Doe, Jane"), "in 1: line 12: write"),
    "a name with a semicolon": (lines("x.png,Doe; John", mark=";"), 'in 1: line 10: write names as "Doe; Jane", in quotes'),
    "an absolute path": (lines("/data/x.png,ann"), "absolute paths, 1: /data/x.png: write each relative to"),
    "a path of Windows": (lines(r"C:\data\x.png,ann"), "absolute paths, 1: C:/data/x.png: write each relative to"),
    "a path of a network": (lines(r"\\server\data\x.png,ann"), "absolute paths, 1: //server/data/x.png"),
    "a path from home": (lines("~/x.png,ann"), "absolute paths, 1: ~/x.png"),
    "UTF-16": (lines().encode("utf-16"), "UTF-8: it is in UTF-16: save it as CSV UTF-8"),
    "UTF-16 without a mark": (lines().encode("utf-16-le"), "it is in UTF-16: save it as CSV UTF-8"),
    "Latin-1": (lines("é.png,ann").encode("latin-1"), "it is in Latin-1 or another 8-bit encoding: save it as CSV UTF-8"),
    "two columns of contributors": (lines(header="file,contributor,contributor"), "one must be contributor, or name it"),
    "other columns": (lines(header="path,who"), "columns path, who: one must be file, or name it (--file-column, file_column)"),
    "a word for opt_out": (lines(header="file,contributor,opt_out").replace("0.png,ann", "0.png,ann,maybe"),
        "opt_out is neither true nor false for 1: ann/0.png: maybe: write true or false"),
    "a row without a contributor": (lines("ann/0.png"), "names files more than once, 1: ann/0.png"),
    "nothing": (b"", "columns none: one must be file"),
    "two lines in a name": (lines().replace("0.png,ann", '0.png,"a\nnn"'), r"in the names of 1: 'a\nnn': rename them"),
    "names that look alike": (lines().replace("0.png,ann", "0.png,Ann"),
        "contributor: contributors whose names look alike, 1: 'Ann' and 'ann' differ in capitals (or ß): write one name for one"),
    "a space at an end": (lines().replace("0.png,ann", "0.png,ann "), "1: 'ann' and 'ann ' differ in a space at an end"),
}  # fmt: skip


@pytest.mark.parametrize(("text", "said"), SAID.values(), ids=SAID)
def test_a_csv_that_would_be_misread_is_refused_in_one_line(given, text, said):
    for name in ("x.png", "y.png"):
        put(given["images"], name, 50)
    line = refusal(table(given, text))
    assert "who.csv: " in line and said in line, line


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("header", ["file,contributor", " file , contributor ", '"file","contributor"'])
def test_commas_semicolons_and_tabs_are_read_and_spaces_about_headers_are_not(given, mark, header):
    found = datasets.load(table(given, lines(header=header, mark=mark))).contributors
    assert found.equals(datasets.load(given).contributors)


def test_a_name_in_quotes_keeps_its_comma_and_empty_rows_count_nothing(given):
    text = lines(",", " ").replace("0.png,ann", '0.png,"Doe, Jane"').replace("1.png,ann", '1.png,"Doe, Jane"')
    assert set(datasets.load(table(given, text)).contributors.contributor) == {"Doe, Jane", "bob", "cy", "dee"}


def test_columns_of_other_names_are_chosen(given):
    values = table(given, lines(header="Bild,Von wem")) | {"file_column": "Bild", "contributor_column": "Von wem"}
    assert datasets.load(values).contributors.equals(datasets.load(given).contributors)


@pytest.mark.parametrize("word", ["true", "TRUE", "yes", "1"])
def test_opt_out_leaves_an_image_out_and_is_counted_and_other_columns_are_told(given, word):
    rows = [["file", "contributor", "licence", "opt_out", "year"]]
    words = dict(zip(FILES, [word, "", "no", "false", "0", "No", word, ""], strict=True))
    rows += [[name, name.split("/")[0], "CC0", words[name], "2024"] for name in FILES]
    values = table(given, "\n".join(map(",".join, rows)))
    found = datasets.load(values)
    assert (len(found.images), datasets.planned(values)) == (6, (4, 6))
    assert datasets.notes(values) == [
        "left out, as opt_out says, 2: ann/0.png, dee/0.png",
        "columns of the csv that are not read, 2: licence, year",
    ]


def test_the_plan_tells_how_many_opted_out(given, monkeypatch):
    values = table(given, lines(header="file,contributor,opt_out").replace("0.png,ann", "0.png,ann,yes"))
    values = params.check(params.defaults() | values | {"side_px": 16, "model": "unet_16x16"}, "mine")
    assert "images            7, 1 to 2 from each, 1 more opted out" in check.lines(values, datasets.load(values).contributors)


def test_who_opts_out_with_all_images_is_no_contributor(given):
    text = lines(header="file,contributor,opt_out").replace(".png,dee", ".png,dee,true")
    assert set(datasets.load(table(given, text) | {"n_contributors": 3}).contributors.contributor) == {"ann", "bob", "cy"}


NFC, NFD = (unicodedata.normalize(form, "Jörg") for form in ("NFC", "NFD"))
ALIKE = {  # what differs: (two names)
    "capitals (or ß)": ("Anna", "anna"),
    "accents as one character or as two (NFC, NFD)": (NFC, NFD),
    "a space at an end": ("Anna", "Anna "),
    "the kind or number of spaces": ("Anna\u00a0Lee", "Anna Lee"),
    "invisible characters, such as a zero-width space": ("An\u200bna", "Anna"),
    "capitals (or ß) and accents as one character or as two (NFC, NFD)": (NFC.upper(), NFD),
    "invisible characters, such as a zero-width space and a space at an end": ("Anna \ufeff", "Anna"),
}
ALIKE_TOO = [
    ("Anna\u00a0", "Anna"),
    ("\u2003Anna", "Anna"),
    ("Anna  Lee", "Anna Lee"),
    ("Weiß", "Weiss"),
    ("a\u00adb", "ab"),
    ("İ", "i̇"),
]


def by_folders(given, names):
    for seed, name in enumerate(names):
        put(given["images"], f"{name}/0.png", 80 + seed)
    return given


def by_rows(given, names):
    for seed in range(len(names)):
        put(given["images"], f"{seed}.png", 80 + seed)
    return table(given, lines(*(f'{seed}.png,"{name}"' for seed, name in enumerate(names))))


@pytest.mark.parametrize("told", [by_folders, by_rows])
@pytest.mark.parametrize(("differ", "names"), [*ALIKE.items(), *(("", names) for names in ALIKE_TOO)])
def test_names_that_look_alike_are_refused_together_with_what_tells_them_apart(given, told, differ, names):
    line = refusal(told(given, names))
    first, second = sorted(names)
    assert f"contributors whose names look alike, 1: {first!r} and {second!r} differ in {differ}" in line, line


@pytest.mark.parametrize("told", [by_folders, by_rows])
@pytest.mark.parametrize("name", ["a\x07b", "a\x85b", "a\u202egnp", "\u2067a", "a\u200f", "a\u2028b", "\u200b", "\u2060"])
def test_control_bidirectional_and_invisible_names_are_refused(given, told, name):
    line = refusal(told(given, [name]))
    assert "characters in" in line and line.isprintable(), line
    assert repr(name)[1:-1] in line


@pytest.mark.parametrize("told", [by_folders, by_rows])
def test_names_that_differ_are_kept_as_they_are(given, told):
    names = ["Anna", "Hanna", "Anna L", "Ännä", NFC, "=1+1", "'t Hooft", "علی\u200cرضا", "李", "$unny", "👩\u200d🎨"]
    found = datasets.load(told(given, names) | {"n_contributors": 4 + len(names)}).contributors
    assert set(found.contributor) == {*WHO, *names}


@for_all(st.lists(st.text(st.sampled_from("aAäÄßs e\u0301\u00a0\u200b"), min_size=1, max_size=4), min_size=2, max_size=6))
def test_names_are_refused_exactly_when_two_of_them_are_alike_and_then_a_difference_is_named(names):
    keys = [owners.alike(name) for name in set(names)]
    if all(keys) and len(set(keys)) == len(keys):
        owners.distinct(set(names), "here")
    else:
        with pytest.raises(Refused, match="differ in |invisible characters in"):
            owners.distinct(set(names), "here")


def link(given, name, target):
    (Path(given["images"]) / name).parent.mkdir(parents=True, exist_ok=True)
    (Path(given["images"]) / name).symlink_to(target, target_is_directory=True)


def test_linked_folders_are_followed_at_any_depth(given, tmp_path):
    put(tmp_path / "elsewhere/deep", "0.png", 60)
    (tmp_path / "elsewhere/more").symlink_to(tmp_path / "third", target_is_directory=True)
    put(tmp_path / "third", "1.png", 61)
    link(given, "ann/2024", tmp_path / "elsewhere")
    assert (datasets.load(given).contributors.contributor == "ann").sum() == 4


@pytest.mark.parametrize(
    ("name", "target"), [("ann/up", ".."), ("ann/self", "self"), ("loop", "."), ("ann/a/b", "../../../images/ann")]
)
def test_a_loop_of_links_is_named(given, name, target):
    link(given, name, target)
    line = refusal(given)
    assert f"{given['images']}/{name}: cannot be read: a loop of links" in line and line.endswith(": remove the link")


LITTER = [
    ".DS_Store",
    "ann/Icon\r",
    "Icon\r",
    "ann/Thumbs.db",
    "desktop.ini",
    "ehthumbs.db",
    "__MACOSX/ann/0.png",
    "@eaDir/0.png",
]
LITTER += ["$RECYCLE.BIN/0.png", "System Volume Information/0.png", "lost+found/0.png", "#recycle/0.png", "Picasa.ini"]


@pytest.mark.parametrize("name", LITTER)
def test_files_of_systems_never_block_and_are_not_told(given, name):
    path = Path(given["images"]) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x")
    assert len(datasets.load(given).images) == len(FILES) and datasets.notes(given) == []


def test_a_file_that_is_no_image_may_have_any_name_and_is_told_in_one_line(given):
    for name in ("a\nb.txt", "c\r"):
        (Path(given["images"]) / name).write_bytes(b"x")
    assert datasets.notes(given) == [r"not images, passed over, 2: 'a\nb.txt', 'c\r'"]


FOUND = {  # files: what is said
    ("a.txt", "b.txt", "c.pdf"): "no image in it, but 2: 2 .txt, 1 .pdf: put a folder for each contributor there",
    ("README",): "no image in it, but 1: 1 without an ending: put",
    (): "no image in it: put a folder for each contributor there",
    **{(f"ann/a.{kind}",): f"in a format that is not read, 1: ann/a.{kind}: save them as PNG or JPEG"
       for kind in ("heic", "HEIF", "avif", "jxl", "psd", "svg", "exr", "dng", "icns", "dds")},
}  # fmt: skip


@pytest.mark.parametrize("names", FOUND, ids=str)
def test_a_folder_without_a_readable_image_says_what_was_found(given, names, tmp_path):
    root = tmp_path / "other"
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"x")
    root.mkdir(exist_ok=True)
    assert FOUND[names] in refusal(given | {"images": str(root)})


def test_images_of_two_contributors_are_told_in_one_message(given):
    for seed in range(2):
        put(given["images"], f"dee/copy {seed}.png", seed)
    put(given["images"], "cy/copy.png", 0)
    assert (
        "the same image of two contributors (8 pixels a side), 3: ann/0.png and cy/copy.png, ann/0.png and dee/copy 0.png, "
        "ann/1.png and dee/copy 1.png: leave one of each" in refusal(given)
    )


def test_images_of_a_single_colour_are_no_copies_and_are_told(given):
    for who in WHO[:2]:
        for i in range(2):
            put(given["images"], f"{who}/blank {i}.png", colour=(255, 255, 255))
    assert datasets.notes(given) == ["of a single colour, 4: ann/blank 0.png, ann/blank 1.png, bob/blank 0.png, ..."]


def test_what_is_lost_of_images_is_told_by_name_and_count_also_when_they_are_kept(given):
    frames = [Image.new("RGB", (9, 9), (v, 0, 90)) for v in (10, 90, 200)]
    frames[0].save(Path(given["images"]) / "ann/a.gif", save_all=True, append_images=frames[1:])
    Image.fromarray(np.arange(60, dtype=np.uint8).reshape(2, 30)).save(Path(given["images"]) / "ann/long.png")
    told = [
        "of several frames only the first counts, 1: ann/a.gif",
        "less than a quarter is left by cropping, 1: ann/long.png",
        "of a single colour, 1: ann/a.gif",
    ]
    assert datasets.notes(given) == told and list(paths.runs().glob(".images/*")) and datasets.notes(given) == told


def test_new_takes_the_columns_of_a_csv(given, tmp_path, monkeypatch):
    values = table(given, lines(header="path,who"))
    for name in ("notebooks", "src"):
        (tmp_path / name).symlink_to(paths.root() / name)
    (tmp_path / "params").mkdir()
    (tmp_path / "params/digits.yaml").write_text(paths.params().read_text())
    monkeypatch.setenv("CDLIB_ROOT", str(tmp_path))
    monkeypatch.setattr(check, "lines", lambda values, given: [])
    columns = ["--file-column", "path", "--contributor-column", "who"]
    asked = ["new", "mine", "--images", values["images"], "--contributors", values["contributors_csv"]]
    assert __main__.main(asked) == 2 and __main__.main([*asked, *columns]) == 0
    written = params.load(tmp_path / "params/mine.yaml")
    assert (written["file_column"], written["contributor_column"]) == ("path", "who")


def test_one_column_cannot_be_both(given):
    with pytest.raises(Refused, match="contributor_column: file: must be another column than file_column"):
        params.check(params.defaults() | {"contributor_column": "file"}, "mine")
