"""A planted truth: a folder whose contributors' order is known must come out so in the statement. The whole way of a user."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from cdlib.base import paths

pytestmark = pytest.mark.slow

EACH, NOISE, SIDE, COALITIONS = 40, 12, 16, 96

KINDS = '''
"""How many of four patterns are drawn: one counts when 4 % of the images show it, and not when only 2 % do, as by mistake."""
import numpy as np

Y, X = np.mgrid[:16, :16]
PATTERNS = np.stack([X < 8, Y < 8, (X < 8) ^ (Y < 8), np.hypot(X - 7.5, Y - 7.5) < 6])


def unit(grey):
    grey = grey.reshape(len(grey), -1) - grey.mean((1, 2))[:, None]
    return grey / np.maximum(np.linalg.norm(grey, axis=1), 1e-9)[:, None]


def kinds(images):
    shown = unit(images.mean(1)) @ unit(PATTERNS).T > 0.6
    return float(np.clip((shown.mean(0) - 0.02) / 0.02, 0, 1).sum())
'''


@pytest.fixture(scope="module")
def statement(tmp_path_factory):
    """The statement of seven contributors, by `cdlib new`, `run` and `statement`, with a function as the property.

    left, upper     each alone with a pattern
    first, copy     give the same images of a third; those of copy are a level off here and there, as a file that is saved again
    disc, disc_too  give different images of a fourth
    noise           gives noise: 12 images, the others 40 each
    """
    root = tmp_path_factory.mktemp("planted")
    for name in ("notebooks", "src"):
        (root / name).symlink_to(paths.root() / name)
    (root / "params").mkdir()
    (root / "params/digits.yaml").write_text(paths.params().read_text())
    (root / "planted.py").write_text(KINDS)
    draw(root / "images")
    env = os.environ | {"CDLIB_ROOT": str(root), "CDLIB_RUNS": str(root / "runs"), "CDLIB_FIGURES": str(root / "figures")}

    def cdlib(*arguments):
        subprocess.run([sys.executable, "-m", "cdlib", *arguments], cwd=root, env=env, check=True)

    cdlib("new", "planted", "--images", "images", "--property", "planted:kinds")
    more = ("--set", f"n_coalitions={COALITIONS}", "--set", "n_retrain=4")
    for notebook in ("01", "02", "03", "04"):
        cdlib("run", "params/planted.yaml", "--only", notebook, *more)
    cdlib("statement", "params/planted.yaml", "--pot", "1000", *more)
    return pd.read_csv(root / "figures/planted/statement.csv", dtype={"groups": str}).set_index("contributor")


def draw(folder):
    """The images of each contributor as png files."""
    rng, found = np.random.default_rng(0), {}
    exec(KINDS, found)

    def of(pattern):
        light = rng.uniform(120, 200, (EACH, 1, 1)) * found["PATTERNS"][pattern]
        return np.clip(25 + light + rng.normal(0, 8, (EACH, SIDE, SIDE)), 0, 255).astype(np.uint8)

    given = {"left": of(0), "upper": of(1), "first": of(2), "disc": of(3), "disc_too": of(3)}
    given["copy"] = np.clip(given["first"].astype(int) + rng.integers(-1, 2, given["first"].shape), 0, 255).astype(np.uint8)
    given["noise"] = rng.integers(0, 256, (NOISE, SIDE, SIDE), np.uint8)
    for name, images in given.items():
        (folder / name).mkdir(parents=True)
        for i, image in enumerate(images):
            Image.fromarray(image).save(folder / name / f"{i}.png")


def apart(statement, better, worse):
    """Is one surely above another: they share no group, and their own intervals do not meet."""
    told = set(statement.groups[better].split()).isdisjoint(statement.groups[worse].split())
    return told and statement.low[better] > statement.high[worse]


@pytest.mark.parametrize("alone", ["left", "upper"])
@pytest.mark.parametrize("shared", ["first", "copy"])
def test_who_alone_has_a_pattern_is_surely_above_those_who_give_the_same_images(statement, alone, shared):
    assert apart(statement, alone, shared)


@pytest.mark.parametrize("other", ["left", "upper", "first", "copy", "disc", "disc_too"])
def test_noise_is_surely_below_everybody(statement, other):
    assert apart(statement, other, "noise")


def test_a_copy_cannot_be_told_from_the_original(statement):
    first, copy = statement.loc["first"], statement.loc["copy"]
    assert set(first.groups.split()) & set(copy.groups.split())
    assert first.low < copy.high and copy.low < first.high


def test_credits_are_the_shapley_values_of_the_number_of_patterns_given(statement):
    """Models that draw what was given, and that alone, would have these values: known without a model."""
    known = pd.Series({"left": 1, "upper": 1, "first": 0.5, "copy": 0.5, "disc": 0.5, "disc_too": 0.5, "noise": 0})
    assert (statement.credit - known).abs().max() < 0.2


def test_the_pot_is_paid_out_and_noise_gets_the_least(statement):
    assert round(100 * statement.payout.sum()) == 100_000
    assert statement.payout.idxmin() == "noise"
