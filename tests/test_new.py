"""`cdlib new`: from a folder of images to a parameter file that can be run, and never over anything that is there."""

import re
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cdlib import __main__
from cdlib.base import params, paths
from cdlib.cli import check, command, new
from cdlib.models import families

N, EACH = 4, 5


@pytest.fixture
def here(tmp_path, scratch, monkeypatch):
    """A repository of its own, with 20 images of four contributors in data/mine."""
    for name in ("notebooks", "src"):
        (tmp_path / name).symlink_to(paths.root() / name)
    (tmp_path / "params").mkdir()
    (tmp_path / "params/digits.yaml").write_text(paths.params().read_text())
    monkeypatch.setenv("CDLIB_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "data/mine")
    return tmp_path


def draw(folder, n=N, mode="RGB"):
    """Five images of noise by each of n contributors."""
    draws = np.random.default_rng(0)
    for k in range(n):
        (folder / f"giver {k}").mkdir(parents=True)
        for i in range(EACH):
            image = Image.fromarray(draws.integers(0, 256, (20, 24, 3), np.uint8)).convert(mode)
            image.save(folder / f"giver {k}" / f"{i}.png")


@pytest.fixture
def quick(monkeypatch):
    """The plan without timing a model."""
    monkeypatch.setattr(check, "lines", lambda values, given: [f"contributors      {values['n_contributors']}"])


def run(*arguments):
    """A command's exit status."""
    return __main__.main([str(a) for a in arguments])


def refusal(capsys, *arguments):
    """The line with which `cdlib new` refuses; it leaves no file."""
    before = sorted(paths.root().glob("params/*"))
    assert run("new", *arguments) == 2
    [line] = capsys.readouterr().err.splitlines()
    assert sorted(paths.root().glob("params/*")) == before and not list(paths.runs().glob("[!.]*"))  # .images may be kept
    return line


def test_what_it_writes_can_be_checked_and_tells_the_plan(here, capsys):
    assert run("new", "mine", "--images", "data/mine") == 0
    told = capsys.readouterr().out
    values = params.load(here / "params/mine.yaml")
    assert (values["dataset"], values["images"], values["n_contributors"]) == ("image_folder", "data/mine", N)
    assert run("check", "params/mine.yaml") == 0
    checked = capsys.readouterr().out
    for words in (f"contributors      {N}\n", f"images            {N * EACH}, {EACH} from each", "48 sparse_finetune"):
        assert words in told and words in checked
    assert re.search(r"estimated time    \d.* with \d+ workers", told) and re.search(
        r"estimated disk    \d+ MB in runs/mine", told
    )
    assert told.splitlines()[-1] == f"{here}/params/mine.yaml: written; read it, and then: cdlib run params/mine.yaml"
    head = [line[2:] for line in (here / "params/mine.yaml").read_text().splitlines() if line.startswith("# ")]
    assert set(head[1:]) < set(told.splitlines()) and any(line.startswith("estimated time") for line in head)


@pytest.mark.parametrize("n", [3, 4, 8, 20, 258])
@pytest.mark.parametrize("of", list(new.FEATURE))
@pytest.mark.parametrize("side", list(new.MODELS))
def test_every_choice_is_allowed_and_fits_its_model(n, of, side):
    wished = new._wished([of])
    chosen = new.choices("mine", {"images": "a", "contributors_csv": ""}, n, 5 * n, wished, side)
    text = new.text(chosen, ["estimated time    1 min"])
    values = params.check(yaml.safe_load(text), "mine")
    assert values["n_coalitions"] >= max(2 * n, 48)
    network = families.preset(values["model"])["network"]
    assert (network["sample_size"], network["in_channels"]) == (values["side_px"], 3)
    assert all("  # " in line or " # " in line for line in text.splitlines() if re.match("[a-z]", line)), "a value without a word"


def test_a_folder_inside_is_written_from_the_root_and_another_one_whole(here, quick, tmp_path_factory, monkeypatch):
    other = tmp_path_factory.mktemp("elsewhere")
    draw(other / "my: images")
    (other / "who.csv").write_text(
        "file,contributor\n" + "".join(f"giver {k}/{i}.png,{k}\n" for k in range(N) for i in range(EACH))
    )
    monkeypatch.chdir(here / "data")
    assert run("new", "inside", "--images", "mine") == 0
    assert run("new", "outside", "--images", other / "my: images", "--contributors", other / "who.csv") == 0
    inside, outside = (params.load(paths.params(name)) for name in ("inside", "outside"))
    assert (inside["images"], inside["contributors_csv"]) == ("data/mine", "")
    assert (outside["images"], outside["contributors_csv"]) == (str(other / "my: images"), str(other / "who.csv"))
    assert all(command.load(paths.params(name)) for name in ("inside", "outside"))


def test_several_properties_are_written_as_they_are_measured(here, quick, capsys):
    (here / "mine.py").write_text("def bright(images):\n    return images.mean((1, 2, 3))\n")
    asked = ["mine:bright/percentile/lower", "inception_score", "fid", "cluster_entropy/pooled_pixels"]
    assert run("new", "mine", "--images", "data/mine", *(word for one in asked for word in ("--property", one))) == 0
    values = command.load(here / "params/mine.yaml")
    assert [values[name] for name in ("property", "aggregate", "direction")] == ["mine:bright", "percentile", "lower"]
    assert values["also"] == ["inception_score/contributor_classifier", "fid/pooled_pixels", "cluster_entropy/pooled_pixels"]
    assert "mine:bright: one number for each image" in capsys.readouterr().out


def test_a_home_of_ones_own_is_found(here, quick, monkeypatch):
    monkeypatch.setenv("HOME", str(here / "data"))
    assert run("new", "mine", "--images", "~/mine") == 0
    assert params.load(here / "params/mine.yaml")["images"] == "data/mine"


def test_nothing_is_ever_overwritten(here, quick, capsys):
    assert run("new", "mine", "--images", "data/mine") == 0
    file = here / "params/mine.yaml"
    before = file.read_bytes()
    capsys.readouterr()
    assert run("new", "mine", "--images", "data/mine") == 2
    assert capsys.readouterr().err == f"cdlib: {file}: is there already: choose another name, or edit that file\n"
    assert file.read_bytes() == before


@pytest.mark.parametrize("folder", ["runs", "figures"])
def test_the_name_of_another_run_is_refused(here, quick, capsys, folder):
    (here / folder / "old").mkdir(parents=True)
    assert run("new", "old", "--images", "data/mine") == 2
    assert f"{here / folder / 'old'}: is there already, of another run" in capsys.readouterr().err
    assert not paths.params("old").exists()


BAD = {
    "capitals": (["Mine", "--images", "data/mine"], "Mine: small letters, digits and _ make a name"),
    "a path": (["../mine", "--images", "data/mine"], "../mine: small letters"),
    "a folder that is not there": (["mine", "--images", "nowhere"], "images: 'nowhere': no such folder"),
    "a csv that is not there": (["mine", "--images", "data/mine", "--contributors", "who.csv"], "who.csv: no such file"),
    "no property": (
        ["mine", "--images", "data/mine", "--property", "fame"],
        "property fame: fame must be one of inception_score",
    ),
    "a property twice": (["mine", "--images", "data/mine", "--property", "fid", "--property", "fid"], "must stand there once"),
    "no feature": (["mine", "--images", "data/mine", "--property", "kid/fame"], "kid/fame: after kid/ must stand pooled_pixels"),
    "no function": (["mine", "--images", "data/mine", "--property", "nowhere:f"], "nowhere:f: nowhere cannot be imported"),
    "no side": (["mine", "--images", "data/mine", "--side", "24"], "--side 24: must be one of 16, 32"),
    "colourfulness of grey": (["mine", "--images", "grey", "--property", "aesthetic_score"], "are grey, so they have no"),
    "two contributors": (["mine", "--images", "two"], "contributors: giver 0, giver 1: must be at least 3"),
    "an unreadable image": (["mine", "--images", "spoilt"], "cannot be decoded, 1: giver 0/0.png"),
}


@pytest.mark.parametrize(("arguments", "said"), BAD.values(), ids=BAD)
def test_what_cannot_be_used_is_refused_in_one_line_and_nothing_is_written(here, quick, capsys, arguments, said):
    draw(here / "grey", mode="L")
    draw(here / "two", n=2)
    draw(here / "spoilt")
    (here / "spoilt/giver 0/0.png").write_bytes(b"")
    assert said in refusal(capsys, *arguments)


def test_the_photographs_to_try_it_on_are_of_eight_contributors(here, quick, capsys):
    assert run("photographs", "data/photographs") == 0
    assert "next: cdlib new photographs --images data/photographs" in capsys.readouterr().out
    assert run("new", "photographs", "--images", "data/photographs") == 0
    values = params.load(here / "params/photographs.yaml")
    assert (values["n_contributors"], len(list(Path("data/photographs").glob("*/*.png")))) == (8, 240)
    assert run("photographs", "data/photographs") == 2
    assert "data/photographs: is there already; name another folder" in capsys.readouterr().err
