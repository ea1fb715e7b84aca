"""The paper's three datasets, on small data in their true formats: what is kept, who gave it, and what is refused by name."""

import contextlib
import csv
import hashlib
import os
import pickle
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from torchvision.datasets import CIFAR100

from cdlib.base.errors import Refused
from cdlib.data.datasets import artbench, celeba_hq, cifar20, files

FINE = """apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can castle
caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin elephant flatfish forest fox
girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster man maple_tree motorcycle mountain mouse mushroom
oak_tree orange orchid otter palm_tree pear pickup_truck pine_tree plain plate poppy porcupine possum rabbit raccoon ray road
rocket rose sea seal shark shrew skunk skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank
telephone television tiger tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm""".split()
PAPER = "bear leopard lion tiger wolf orchid poppy rose sunflower tulip clock keyboard lamp telephone television bicycle bus"
PAPER = sorted([*PAPER.split(), "motorcycle", "pickup_truck", "train"])


def refusal(module, params: dict) -> str:
    """The one line with which both functions refuse."""
    said = set()
    for function in (module.check, module.load):
        with pytest.raises(Refused) as error:
            function(params)
        said.add(str(error.value))
    assert len(said) == 1 and "\n" not in (text := said.pop())
    return text


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def accept(monkeypatch, folder: Path):
    """Let torchvision take the files of a folder for those that were published."""
    monkeypatch.setattr(CIFAR100, "train_list", [["train", md5(folder / "train")]])
    monkeypatch.setattr(CIFAR100, "test_list", [["test", md5(folder / "test")]])
    monkeypatch.setattr(CIFAR100, "meta", CIFAR100.meta | {"md5": md5(folder / "meta")})


def write_cifar(folder: Path, labels: np.ndarray):
    """An archive whose image t is filled with the byte t in red, its label in green and the column in blue."""
    data = np.zeros((len(labels), 3, 32, 32), np.uint8)
    data[:, 0], data[:, 1], data[:, 2] = np.arange(len(labels)).reshape(-1, 1, 1) % 256, labels.reshape(-1, 1, 1), np.arange(32)
    entry = {"fine_labels": labels.tolist(), "data": data.reshape(len(labels), -1)}
    folder.mkdir(exist_ok=True)
    for name, content in {"train": entry, "test": {"data": data[:1]}, "meta": {"fine_label_names": FINE}}.items():
        (folder / name).write_bytes(pickle.dumps(content, protocol=2))


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """Parameters of a CIFAR-100 of two images for each class, in an order that is mixed."""
    monkeypatch.setattr(cifar20, "N_EACH", 2)
    write_cifar(tmp_path / "cifar-100-python", np.random.default_rng(0).permutation(np.repeat(np.arange(100), 2)))
    accept(monkeypatch, tmp_path / "cifar-100-python")
    return {"data": str(tmp_path), "classes": "paper", "n_contributors": 20}


@pytest.mark.parametrize(
    ("module", "n", "expected"),
    [(cifar20, 20, (20, 10_000)), (celeba_hq, 50, (50, 895)), (artbench, 258, (258, 5_000))],
)
def test_the_papers_numbers_are_planned_without_any_file(module, n, expected):
    assert module.planned({"data": "/nowhere", "classes": "paper", "n_contributors": n}) == expected


def test_the_papers_classes_are_its_four_superclasses(cifar):
    table = cifar20.load(cifar)[1]
    assert sorted(table.contributor.unique()) == PAPER
    indices = [[FINE.index(name) for name in names] for names in cifar20.SUPERCLASSES.values()]
    assert indices == [[3, 42, 43, 88, 97], [54, 62, 70, 82, 92], [22, 39, 40, 86, 87], [8, 13, 48, 58, 90]]
    assert (table["class"] == table.contributor).all()


def test_the_released_classes_are_the_indices_of_its_code(cifar):
    table = cifar20.load(cifar | {"classes": "released"})[1]
    indices = [*range(40, 45), *range(55, 60), *range(60, 65), *range(80, 85)]
    assert sorted(table.contributor.unique()) == [FINE[k] for k in indices]
    assert {"lamp", "lawn_mower", "table"} < set(table.contributor)


@pytest.mark.parametrize("classes", ["paper", "released"])
def test_every_training_image_of_a_kept_class_is_there_once_with_its_own_pixels(cifar, classes):
    images, table = cifar20.load(cifar | {"classes": classes})
    assert (images.shape, images.dtype, images.flags.c_contiguous) == ((40, 3, 32, 32), np.uint8, True)
    assert table.image.tolist() == list(range(40))
    assert table.contributor.value_counts().tolist() == [2] * 20
    assert [FINE[k] for k in images[:, 1, 5, 9]] == table.contributor.tolist()
    assert (images[:, 2] == np.arange(32)).all() and (np.diff(images[:, 0, 0, 0].astype(int)) > 0).all()


def test_unknown_classes_and_another_number_of_contributors_are_refused(cifar):
    assert refusal(cifar20, cifar | {"classes": "all"}) == "classes: 'all': must be paper or released"
    assert refusal(cifar20, cifar | {"n_contributors": 19}).startswith("n_contributors: 19: must be 20")


@pytest.mark.parametrize("name", ["train", "test", "meta"])
def test_a_missing_or_corrupt_part_of_the_archive_is_named_with_what_to_fetch(cifar, name):
    path = Path(cifar["data"]) / "cifar-100-python" / name
    path.write_bytes(path.read_bytes()[:-1])
    corrupt = refusal(cifar20, cifar)
    path.unlink()
    missing = refusal(cifar20, cifar)
    assert f"{path}: is corrupt (wrong md5)" in corrupt and f"{path}: is missing" in missing
    for said in (corrupt, missing):
        assert all(part in said for part in ("cifar-100-python.tar.gz (169 MB)", str(path.parent), "download=True"))


class Bomb:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self):
        return os.mkdir, (str(self.path),)


@pytest.mark.parametrize("name", ["train", "meta"])
def test_an_archive_that_was_not_published_is_refused_without_being_unpickled(cifar, monkeypatch, tmp_path, name):
    (tmp_path / "cifar-100-python" / name).write_bytes(pickle.dumps(Bomb(tmp_path / "boom")))
    assert "wrong md5" in refusal(cifar20, cifar)
    assert not (tmp_path / "boom").exists()
    accept(monkeypatch, tmp_path / "cifar-100-python")
    with pytest.raises(TypeError):
        cifar20.load(cifar)
    assert (tmp_path / "boom").exists(), "this file would have run code"


def test_torchvision_itself_compares_the_published_md5s_before_it_unpickles(tmp_path):
    write_cifar(tmp_path / "cifar-100-python", np.arange(100))
    with pytest.raises(RuntimeError, match="corrupted"):
        CIFAR100(tmp_path, train=True)
    assert "train: is corrupt" in refusal(cifar20, {"data": str(tmp_path), "classes": "paper", "n_contributors": 20})


def test_a_class_without_all_its_images_is_named(cifar, monkeypatch):
    folder = Path(cifar["data"]) / "cifar-100-python"
    write_cifar(folder, np.append(np.repeat(np.delete(np.arange(100), 97), 2), 97))
    accept(monkeypatch, folder)
    with pytest.raises(Refused, match="must be 2, wrong in 1: wolf 1$"):
        cifar20.load(cifar)


def test_a_folder_is_found_under_home(cifar, monkeypatch):
    monkeypatch.setenv("HOME", cifar["data"])
    assert len(cifar20.load(cifar | {"data": "~"})[0]) == 40


def paint(path: Path, seed: int, size=(8, 8)):
    """An image of noise, in the format of the file's name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), np.uint8)
    Image.fromarray(pixels).save(path)
    return pixels


PEOPLE = {"7": 3, "12": 3, "ann": 4, "bob": 2, "cy": 5, "dee": 3}


@pytest.fixture
def faces(tmp_path, monkeypatch):
    """Parameters of people with 3, 3, 4, 2, 5 and 3 images, of whom 3 are drawn: with fewer than 3 one is not eligible."""
    monkeypatch.setattr(celeba_hq, "LEAST_IMAGES", 3)
    for seed, (person, n) in enumerate(PEOPLE.items()):
        for i in range(n):
            paint(tmp_path / person / f"{i}.png", 10 * seed + i)
    return {"data": str(tmp_path), "n_contributors": 3, "assignment_seed": 0, "side_px": 8}


def write_labels(params: dict, rows: list | None = None, header=("file", "identity")) -> Path:
    """A labels.csv beside the images: of all of them, unless other rows are given."""
    path = Path(params["data"]) / "labels.csv"
    if rows is None:
        rows = [(f"{person}/{i}.png", person) for person, n in PEOPLE.items() for i in range(n)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([header, *rows])
    return path


def same(a, b) -> bool:
    return np.array_equal(a[0], b[0]) and a[1].equals(b[1])


def test_people_drawn_are_eligible_and_all_their_images_are_kept(faces):
    images, table = celeba_hq.load(faces | {"n_contributors": 5})
    assert table.contributor.value_counts().to_dict() == {person: n for person, n in PEOPLE.items() if n >= 3}
    assert images.shape == (18, 3, 8, 8) and images.dtype == np.uint8
    assert table.image.tolist() == list(range(18)) and (table["class"] == table.contributor).all()


def test_a_face_keeps_its_pixels_and_its_place_among_the_sorted_files(faces):
    images, table = celeba_hq.load(faces | {"n_contributors": 5})
    order = [(person, i) for person in sorted(PEOPLE) for i in range(PEOPLE[person]) if PEOPLE[person] >= 3]
    assert table.contributor.tolist() == [person for person, _ in order]
    for t, (person, i) in enumerate(order):
        file = Path(faces["data"]) / person / f"{i}.png"
        np.testing.assert_array_equal(images[t].transpose(1, 2, 0), np.asarray(Image.open(file)))


def test_people_are_those_of_the_seed(faces):
    assert same(celeba_hq.load(faces), celeba_hq.load(dict(faces)))
    drawn = {seed: tuple(celeba_hq.load(faces | {"assignment_seed": seed})[1].contributor.unique()) for seed in range(12)}
    assert len(set(drawn.values())) > 3 and all(len(people) == 3 and "bob" not in people for people in drawn.values())
    assert drawn[0] == ("ann", "cy", "dee"), "the draw of seed 0 has changed: runs made before would have other people"


def test_nothing_depends_on_the_order_in_which_the_system_lists_files(faces, monkeypatch):
    before, listed = celeba_hq.load(faces), Path.iterdir
    monkeypatch.setattr(Path, "iterdir", lambda self: iter(sorted(listed(self), reverse=True)))
    assert same(celeba_hq.load(faces), before)


@pytest.mark.parametrize("header", [("file", "identity"), ("filename", "celeb")])
def test_labels_in_a_file_say_the_same_as_sub_folders(faces, header):
    before = celeba_hq.load(faces)
    path = write_labels(faces, header=header)
    assert same(celeba_hq.load(faces), before)
    first, *rows = path.read_bytes().splitlines()
    path.write_bytes(b"\xef\xbb\xbf" + first + b"\n" + b"\n".join(row.replace(b",", b" , ") + b" " for row in reversed(rows)))
    assert same(celeba_hq.load(faces), before), "the order of the rows, spaces or a byte order mark made a difference"


def test_labels_are_text_even_when_they_look_like_numbers_or_like_nothing(faces):
    relabelled = {"7": "007", "12": "NA", "ann": "nan"}
    write_labels(faces, [(f"{p}/{i}.png", name) for p, name in relabelled.items() for i in range(PEOPLE[p])])
    assert set(celeba_hq.load(faces)[1].contributor) == {"007", "NA", "nan"}


def test_hidden_files_and_other_files_are_passed_over(faces):
    everyone = faces | {"n_contributors": 5}
    before, root = celeba_hq.load(everyone), Path(faces["data"])
    for name in ("ann/.0.png", "ann/._0.png", "ann/notes.txt", ".new/0.png", ".new/1.png", ".new/2.png", "README.png"):
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(b"no image")
    assert same(celeba_hq.load(everyone), before)
    assert "has 5 of them, among 6" in refusal(celeba_hq, faces | {"n_contributors": 6})


def test_more_people_than_have_images_enough_are_refused_with_how_many_there_are(faces):
    assert "n_contributors: 6:" in (said := refusal(celeba_hq, faces | {"n_contributors": 6}))
    assert "at least 3 images each" in said and "has 5 of them, among 6 identities" in said
    for n in (1, 0, -1):
        assert "must be 2 or more" in refusal(celeba_hq, faces | {"n_contributors": n})


@pytest.mark.parametrize("header", [("path", "identity"), ("file", "name"), ()])
def test_labels_without_their_columns_are_refused_with_those_allowed(faces, header):
    path = write_labels(faces, header=header)
    wanted = "identity or celeb" if header == ("file", "name") else "file or filename"
    assert refusal(celeba_hq, faces) == f"{path}: columns {', '.join(header) or 'none'}: one must be {wanted}"


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([("ann/0.png", "ann"), ("ann/9.png", "ann")], "names files that are not there, 1: ann/9.png"),
        ([("ann/0.png", "ann"), ("ann/./0.png", "bob")], "names files more than once, 1: ann/0.png"),
        ([("ann/0.png", "ann"), ("ann/1.png", " ")], "identity is empty for 1: ann/1.png"),
        ([("ann/0.png", "ann"), ("ann/1.png",)], "identity is empty for 1: ann/1.png"),
        ([(f"ann/{i}.png", "ann") for i in range(5, 9)], "4: ann/5.png, ann/6.png, ann/7.png, ...: add them"),
    ],
)
def test_labels_that_do_not_fit_the_files_name_those_files(faces, rows, said):
    path = write_labels(faces, rows)
    assert str(path) in (text := refusal(celeba_hq, faces)) and said in text


def test_labels_that_are_no_text_are_refused(faces):
    path = write_labels(faces)
    path.write_bytes(b"file,identity\n\xff\xfe\x00,a\n")
    assert f"{path}: cannot be read" in refusal(celeba_hq, faces)


@pytest.mark.parametrize("module", [cifar20, celeba_hq, artbench])
def test_a_folder_that_is_not_there_or_not_a_folder_is_refused(module, tmp_path):
    params = {"classes": "paper", "n_contributors": 258 if module is artbench else 20, "assignment_seed": 0, "side_px": 8}
    archive = tmp_path / "archive.tar"
    archive.write_bytes(b"")
    nowhere = str(tmp_path / "nowhere")
    assert refusal(module, params | {"data": nowhere}).startswith(f"data: {nowhere!r}: no such folder ({nowhere}): must be ")
    assert refusal(module, params | {"data": ""}).startswith("data: '': must be ")
    assert f"data: {archive}: is a file, not a folder: extract it first" in refusal(module, params | {"data": str(archive)})


@pytest.fixture
def paintings(tmp_path, monkeypatch):
    """Parameters of 7 paintings by 3 artists, beside a test split and another style that are not to be read."""
    names = ["van-gogh_cafe_1888", "van-gogh_night", "cross_pines", "cross_sea", "cross_bay", "denis_april", "denis_muses"]
    monkeypatch.setattr(artbench, "N_IMAGES", 7)
    monkeypatch.setattr(artbench, "N_ARTISTS", 3)
    for seed, name in enumerate(names):
        paint(tmp_path / "train" / "post_impressionism" / f"{name}.{'png' if seed % 2 else 'JPG'}", seed)
    paint(tmp_path / "train" / "baroque" / "rubens_hunt.jpg", 90)
    paint(tmp_path / "test" / "post_impressionism" / "signac_port.jpg", 91)
    return {"data": str(tmp_path), "n_contributors": 3, "side_px": 8}


def test_a_painting_is_its_artists_whose_name_ends_at_the_first_underscore(paintings):
    images, table = artbench.load(paintings)
    assert table.contributor.tolist() == ["cross"] * 3 + ["denis"] * 2 + ["van-gogh"] * 2
    assert table.image.tolist() == list(range(7)) and (table["class"] == table.contributor).all()
    style = Path(paintings["data"]) / artbench.STYLE
    for pixels, file in zip(images, sorted(style.iterdir()), strict=True):
        np.testing.assert_array_equal(pixels.transpose(1, 2, 0), np.asarray(Image.open(file)))


def test_an_incomplete_style_is_refused_with_what_was_found(paintings):
    style = Path(paintings["data"]) / artbench.STYLE
    (style / "cross_sea.png").unlink()
    assert f"{style}: 6 images by 3 artists, must be 7 by 3" in refusal(artbench, paintings)
    paint(style / "new_sea.png", 1)
    assert "7 images by 4 artists, must be 7 by 3" in refusal(artbench, paintings)


def test_a_folder_without_the_style_is_refused(paintings):
    root = Path(paintings["data"])
    said = refusal(artbench, paintings | {"data": str(root / "test")})
    assert f"{root / 'test' / artbench.STYLE}: no such folder" in said and "artbench-10-imagefolder-split" in said


def test_paintings_without_an_artist_are_named(paintings):
    for name in ("anonymous.jpg", "_untitled.jpg"):
        paint(Path(paintings["data"]) / artbench.STYLE / name, 5)
    assert "in the names of 2: _untitled.jpg, anonymous.jpg" in refusal(artbench, paintings)


def test_fewer_artists_than_there_are_and_images_of_no_size_are_refused(paintings, faces):
    assert refusal(artbench, paintings | {"n_contributors": 2}).startswith("n_contributors: 2: must be 3")
    for module, params in ((artbench, paintings), (celeba_hq, faces)):
        assert refusal(module, params | {"side_px": 0}) == "side_px: 0: must be at least 1"


def truncated(path: Path):
    path.write_bytes(path.read_bytes()[:-60])


def emptied(path: Path):
    path.write_bytes(b"")


def written_over(path: Path):
    path.write_bytes(b"<html>404</html>")


def decoded(path: Path, side: int) -> np.ndarray:
    """An image as uint8 [S, S, 3], or the refusal of a folder of it."""
    return files.images(path.parent, [path.name], side)[0][0].transpose(1, 2, 0)


@pytest.mark.parametrize("harm", [truncated, emptied, written_over])
@pytest.mark.parametrize("name", ["cross_pines.JPG", "van-gogh_night.png"])
def test_a_broken_painting_is_named(paintings, harm, name):
    path = Path(paintings["data"]) / artbench.STYLE / name
    harm(path)
    artbench.check(paintings)
    with pytest.raises(Refused) as error:
        artbench.load(paintings)
    assert str(error.value).startswith(f"data: {path.parent}: cannot be decoded, 1: {name}: replace or remove it (")


def test_damage_anywhere_in_a_file_is_refused_or_decoded_never_another_error(tmp_path):
    path = tmp_path / "a.png"
    paint(path, 0, (1, 1))
    whole = path.read_bytes()
    for at in range(len(whole)):
        for byte in (0, 255, whole[at] ^ 1, whole[at] ^ 128):
            path.write_bytes(whole[:at] + bytes([byte]) + whole[at + 1 :])
            with contextlib.suppress(Refused):
                assert decoded(path, 4).shape == (4, 4, 3)


def test_a_broken_face_is_named(faces):
    path = Path(faces["data"]) / "cy" / "4.png"
    truncated(path)
    with pytest.raises(Refused, match=f"{faces['data']}: cannot be decoded, 1: cy/4.png"):
        celeba_hq.load(faces)


@pytest.mark.parametrize(
    ("mode", "suffix", "colour"),
    [("1", "png", 255)]
    + [(m, "png", 102) for m in ("L", "LA", "P", "RGB", "RGBA")]
    + [(m, "jpg", 102) for m in ("L", "RGB", "CMYK")],
)
def test_images_of_every_mode_become_rgb(tmp_path, mode, suffix, colour):
    Image.new("RGB", (12, 8), (colour,) * 3).convert(mode).save(tmp_path / f"a.{suffix}")
    found = decoded(tmp_path / f"a.{suffix}", 4)
    assert found.shape == (4, 4, 3) and np.abs(found.astype(int) - colour).max() <= 1


@pytest.mark.parametrize("wide", [True, False])
def test_the_centre_is_what_is_cropped(tmp_path, wide):
    pixels = np.zeros((20, 60, 3), np.uint8)
    pixels[:, :20, 0], pixels[:, 20:40, 1], pixels[:, 40:, 2] = 255, 255, 255
    Image.fromarray(pixels if wide else pixels.transpose(1, 0, 2)).save(tmp_path / "a.png")
    assert decoded(tmp_path / "a.png", 20).reshape(-1, 3).tolist() == [[0, 255, 0]] * 400
    halved = decoded(tmp_path / "a.png", 10).astype(int)
    assert np.abs(halved[3:-3, 3:-3] - [0, 255, 0]).max() <= 2


@pytest.mark.parametrize("size", [(16, 16), (4, 4), (32, 8), (3, 40), (1, 1)])
def test_images_of_any_size_become_squares_of_the_side_and_keep_their_mean(tmp_path, size):
    Image.new("RGB", size, (200, 100, 50)).save(tmp_path / "a.png")
    found, _ = files.images(tmp_path, ["a.png"] * 2, 8)
    assert (found.shape, found.dtype) == ((2, 3, 8, 8), np.uint8)
    assert (found == np.array([200, 100, 50]).reshape(1, 3, 1, 1)).all()
