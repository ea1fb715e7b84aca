"""A property of the user's own: it is called as it says, and reported by its name when it does not do as it should."""

import sys

import numpy as np
import pytest

from cdlib import store
from cdlib.base import params, registry
from cdlib.base.errors import Refused
from cdlib.data import design
from cdlib.measure import properties, utility, worker
from cdlib.measure.properties import own

MINE = """
import numpy as np

def brightness(images):
    assert images.dtype == np.uint8 and images.shape[1] == 3
    return images.mean((1, 2, 3))

def spread(images):
    return images.astype(float).std()

def dark(images):
    return images.mean((1, 2, 3)) < 100

def raises(images):
    raise ZeroDivisionError("no light")

def nan(images):
    return np.where(np.arange(len(images)) == 1, np.nan, 0.0)

def short(images):
    return np.zeros(len(images) - 1)

def words(images):
    return ["bright"] * len(images)

def moody(images):
    return np.random.default_rng().normal(size=len(images))

number = 3
"""
IMAGES = np.random.default_rng(0).integers(0, 256, (20, 1, 8, 8), np.uint8)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of the user's, which can be imported."""
    (tmp_path / "mine_for_tests.py").write_text(MINE)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "mine_for_tests", raising=False)
    own._found.cache_clear()
    yield (
        lambda name, **more: (
            {"property": f"mine_for_tests:{name}", "n_images": 20, "quantile": 0.9} | {"aggregate": "mean"} | more
        )
    )
    own._found.cache_clear()


@pytest.mark.parametrize(
    ("name", "aggregate", "expected"),
    [
        ("brightness", "mean", IMAGES.mean()),
        ("brightness", "percentile", np.quantile(IMAGES.mean((1, 2, 3)), 0.9)),
        ("dark", "entropy", None),
        ("spread", "percentile", IMAGES.astype(float).std()),
    ],
)
def test_numbers_of_the_images_become_one(mine, name, aggregate, expected):
    given = mine(name, aggregate=aggregate)
    if expected is None:
        share = np.mean(IMAGES.mean((1, 2, 3)) < 100)
        expected = -sum(p * np.log(p) for p in (share, 1 - share) if p)
    assert own.value(given, own.per_image(None, given, IMAGES)) == pytest.approx(expected)


def test_the_entropy_of_one_image_is_0(mine):
    given = mine("brightness", aggregate="entropy", n_images=1)
    assert own.value(given, own.per_image(None, given, IMAGES[:1])) == 0


@pytest.mark.parametrize(
    ("name", "told"),
    [
        ("raises", "raised ZeroDivisionError: no light"),
        ("nan", "gave nan for 1 of 16 images: must be finite numbers"),
        ("short", r"gave an array \[15\] for 16 images: must be \[16\] or one number"),
        ("words", "raised ValueError"),
        ("moody", "gives other numbers for the same images"),
        ("absent", "mine_for_tests has no function absent"),
        ("number", "mine_for_tests has no function number"),
    ],
)
def test_a_bad_function_is_refused_by_its_name_before_any_work(mine, name, told):
    with pytest.raises(Refused, match=f"property: mine_for_tests:{name}: {told}"):
        own.tried(mine(name), IMAGES)


def test_a_module_that_is_not_there_is_refused(mine):
    with pytest.raises(Refused, match="property: nowhere_at_all:f: nowhere_at_all cannot be imported: ModuleNotFoundError"):
        own.tried(mine("brightness") | {"property": "nowhere_at_all:f"}, IMAGES)


def test_a_trial_tells_what_is_given_and_how_long_it_takes(mine):
    assert own.tried(mine("brightness"), IMAGES)["gives"] == "one number for each image"
    found = own.tried(mine("spread"), IMAGES)
    assert found["gives"] == "one number for all images" and 0 <= found["seconds_for_each_model"] < 10


def test_another_source_is_another_key(mine, tmp_path):
    before = own.settings(None, mine("brightness"))
    (tmp_path / "mine_for_tests.py").write_text(MINE + "\n# another one\n")
    own._found.cache_clear()
    assert own.settings(None, mine("brightness")) != before
    assert own.settings(None, mine("brightness", aggregate="percentile")) != before


def test_a_function_does_not_change_the_images_of_the_next(mine, tmp_path):
    (tmp_path / "mine_for_tests.py").write_text("def spoil(images):\n    images[:] = 0\n    return images.mean((1, 2, 3))\n")
    colour = np.repeat(IMAGES, 3, axis=1)
    before = colour.copy()
    own.per_image(None, mine("spoil"), colour)
    assert (colour == before).all()


def several(run, **changes):
    """A run like another, with other parameters."""
    return store.Run("04_shapley", params.check(run.params | changes, "several"))


def test_all_properties_are_measured_from_the_same_images(run, mine):
    asked = several(run, also=["kid/pooled_pixels", "mine_for_tests:brightness/mean/lower", "fid/pooled_pixels"])
    properties.prepare(asked.folder, asked.params)
    table = utility.measure(asked, design.ends(asked.params)[0])
    one = utility.measure(run, design.ends(run.params)[0])
    assert {"inception_score", "kid", "mine_for_tests:brightness", "fid"} <= set(table.columns)
    assert table.inception_score.tolist() == one.inception_score.tolist()
    assert set(table.key).isdisjoint(one.key)
    images = asked.measured.arrays(table.key[0])["images"]
    assert table["mine_for_tests:brightness"][0] == pytest.approx(images.mean())


def test_what_is_better_when_lower_counts_as_its_negative(run, mine):
    asked = several(run, also=["kid/pooled_pixels", "mine_for_tests:brightness/lower", "mine_for_tests:spread"])
    properties.prepare(asked.folder, asked.params)
    table = utility.measure(asked, design.ends(asked.params)[0])
    for name, sign in {"inception_score": 1, "kid": -1, "mine_for_tests:brightness": -1, "mine_for_tests:spread": 1}.items():
        assert utility.values(asked, table, name).tolist() == (sign * table[name]).tolist()
        assert utility.by_seed(asked, table, name)[1].ravel().tolist() == (sign * table[name]).tolist()


def test_a_function_of_the_users_can_be_the_runs_property(run, mine):
    asked = several(run, property="mine_for_tests:spread", direction="lower")
    properties.prepare(asked.folder, asked.params)
    table = utility.measure(asked, design.ends(asked.params)[0])
    assert (utility.values(asked, table) < 0).all()


def test_one_that_fails_is_named_in_the_record(run, mine):
    asked = several(run, property="mine_for_tests:spread")
    wanted = design.ends(asked.params)[0]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(own, "function", lambda name: lambda images: np.nan)
        with pytest.raises(RuntimeError, match="mine_for_tests:spread: gave nan"):
            utility.measure(asked, wanted)
    record = asked.measured.read(asked.measured.key(utility.specifications(asked, wanted)[0]))
    assert record["status"] == "failed" and "mine_for_tests:spread" in record["error"]


def test_a_source_that_changed_since_it_was_asked_for_measures_nothing(run, mine):
    asked = several(run, property="mine_for_tests:spread")
    spec = utility.specifications(asked, design.ends(asked.params)[0])[0]
    spec["properties"]["mine_for_tests:spread"]["source"] = "another"
    with pytest.raises(Refused, match="its source has changed"):
        worker.measure(str(asked.folder), asked.params, spec)


@pytest.mark.parametrize(
    ("also", "told"),
    [
        (["inception_score/inception_v3"], "inception_score must stand there once"),
        (["kid/pooled_pixels", "kid/clip_b32"], "kid must stand there once"),
        (["beauty"], "beauty must be one of"),
        (["kid"], "after kid/ must stand pooled_pixels"),
        (["kid/colourfulness"], "after kid/ must stand pooled_pixels"),
        (["mine:f/loudly"], "after mine:f/ must stand mean | percentile | entropy and higher | lower"),
    ],
)
def test_other_properties_are_checked(tiny, also, told):
    with pytest.raises(Refused, match="also: ") as refused:
        params.check(tiny | {"also": also}, "file.yaml")
    assert told in str(refused.value)


def test_each_property_has_its_own_settings(tiny):
    found = registry.properties(tiny | {"also": ["aesthetic_score/colourfulness", "a.b:c/percentile/lower"]})
    assert list(found) == ["inception_score", "aesthetic_score", "a.b:c"]
    assert found["aesthetic_score"]["feature"] == "colourfulness" and found["inception_score"]["feature"] == tiny["feature"]
    assert (found["a.b:c"]["aggregate"], found["a.b:c"]["direction"]) == ("percentile", "lower")
