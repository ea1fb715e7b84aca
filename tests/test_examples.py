"""What is kept for the figures: images and scores that are those of the measured coalitions, none measured twice."""

import numpy as np
import pandas as pd
import pytest

from cdlib.data import design
from cdlib.measure import properties, utility, worker
from cdlib.models import stages
from cdlib.show import examples

COMPARED = ["Sparsified-FT Shapley (Ours)", "Leave-one-out (LOO)"]


@pytest.fixture
def values(tiny):
    """Parameters with two compared methods and three shown fractions of 20 contributors."""
    return tiny | {"owners_per_class": [1] * 5 + [3] * 5, "compared": COMPARED, "shown_fractions": [0.1, 0.2, 0.4]}


@pytest.fixture
def attributions(values):
    credit = np.arange(20.0)
    rows = [(m, "inception_score", f"c{i:02d}", v) for m in COMPARED for i, v in enumerate(credit)]
    return pd.DataFrame(rows, columns=["method", "property", "contributor", "value"])


@pytest.fixture
def everybody(run):
    return utility.measure(run, design.ends(run.params)[0])


def test_only_what_the_counterfactual_does_not_measure_is_asked_for_once_more(values, attributions):
    wanted = design.shown(values, attributions)
    assert set(wanted) == {(m, f"remove_top_{k}") for m in COMPARED for k in (10, 20)}
    assert all(len(w) == 1 and w.procedure == "retrain" for w in wanted.values())
    assert np.flatnonzero(~wanted[COMPARED[0], "remove_top_10"].members[0]).tolist() == [18, 19]
    assert design.shown(values | {"shown_fractions": [0.4, 0.01]}, attributions) == {}  # 1 % of 20 is nobody


def test_the_plan_counts_the_shown_models(values):
    with_them, without = (design.n_planned(values | {"shown_fractions": f})["retrain"] for f in ([0.1, 0.2, 0.4], [0.4]))
    assert with_them - without == 2 * len(COMPARED)


def test_together_are_all_coalitions_in_their_order(values, attributions):
    several = design.shown(values, attributions) | design.counterfactual(values, attributions)
    one = design.together("all", several.values())
    assert len(one) == sum(map(len, several.values())) and one.procedure == "retrain"
    assert (one.members == np.concatenate([w.members for w in several.values()])).all()


def test_images_beside_the_quantile_are_the_first_of_those_that_are_kept():
    score = np.array([5, 1, 9, 2, 8, 3, 4, 7, 6, 10], np.float32)
    threshold, above, below = examples.beside_quantile(score, 0.5, n_kept=8, n=2)
    assert threshold == 5.5
    assert (above.tolist(), below.tolist()) == ([2, 4], [0, 1])
    assert examples.beside_quantile(score, 0.9, n_kept=2)[1].tolist() == []


def test_a_title_tells_the_change_and_the_method():
    assert examples.title("TRAK", "remove_top_40") == "Without the top 40 % by TRAK"
    assert examples.title("TRAK", "keep_top_60") == "With the top 60 % by TRAK alone"


def given(run):
    return run.write("contributors", stages.dataset(run.params).contributors)


def test_an_image_has_the_entropy_of_its_class_probabilities(run, monkeypatch):
    n = len(given(run))
    sure, torn = np.eye(10)[np.zeros(n - 1, int)], np.full((1, 10), 0.1)
    probabilities = np.concatenate([sure, torn]).astype(np.float32)
    monkeypatch.setattr(properties.named("inception_score"), "per_image", lambda *_: {"probabilities": probabilities})
    frame = examples.training_images(run)
    assert list(map(str, frame.entropy[: n - 1])) == ["0.0"] * (n - 1)
    assert frame.entropy.iloc[-1] == pytest.approx(np.log(10))


def test_the_classifier_is_surer_of_digits_than_of_nothing(run):
    table = given(run)
    frame = examples.training_images(run)
    assert frame[["image", "contributor"]].equals(table[["image", "contributor"]])
    assert 0 <= frame.entropy.mean() < 0.5


def test_without_a_figure_no_training_image_is_looked_at(run, monkeypatch):
    given(run)
    monkeypatch.setitem(run.params, "property", "aesthetic_score")
    assert examples.training_images(run).empty


def test_models_have_the_mean_over_seeds_and_the_images_of_the_first(run, everybody):
    n = len(everybody.members[0])
    members = np.arange(n) > 0
    wanted = design.Wanted("w", "retrain", np.stack([members, members]), np.array([0, 1]))
    table = utility.measure(run, wanted)
    drawn = examples.models(run, everybody, {("TRAK", "remove_top_25"): table})
    assert drawn.title.tolist() == ["Full model", "Without the top 25 % by TRAK"]
    assert drawn.value.to_list() == pytest.approx([everybody.inception_score.mean(), table.inception_score.mean()])
    assert drawn.n_seeds.tolist() == [len(everybody), 2]
    images = examples.images(run, drawn)
    assert (images[drawn.title[1]] == run.measured.arrays(table.key[0])["images"][: examples.N_OF_MODEL]).all()


def test_the_framework_shows_measured_coalitions_of_growing_size(run, everybody):
    given(run)
    made = examples.framework(run, everybody)
    assert made.stage.tolist() == ["full", "sparse", *["coalition"] * (len(made) - 2)]
    sizes = made.members[2:].str.count("1").tolist()
    assert sizes == sorted(sizes) and len(set(made.members)) == len(made)
    assert made.parameters[0] > made.parameters[1] == made.parameters.iloc[-1]
    for row in made[2:].itertuples():
        assert run.measured.rows([row.key])[0]["inception_score"] == row.value
    arrays = examples.arrays(run, examples.models(run, everybody, {}), examples.pairs(run, everybody), made)
    assert {f"coalition/{m}" for m in made.members[2:]} | {"generated/Full model"} <= set(arrays)
    assert sum(name.startswith("contributor/") for name in arrays) == len(made.members[0])


def test_pairs_are_the_images_with_those_scores(run, monkeypatch):
    monkeypatch.setitem(run.params, "property", "aesthetic_score")
    score, images = np.arange(16, dtype=np.float32), np.arange(16, dtype=np.uint8).reshape(16, 1, 1, 1)
    monkeypatch.setattr(run.measured, "arrays", lambda key: {"aesthetic_score/score": score, "images": images})
    drawn = pd.DataFrame(
        [("Full model", "Full model", "none", 1.0, 1, "k")], columns="title method change value n_seeds key".split()
    )
    sides = examples.pairs(run, drawn)
    above = sides[sides.side == "above"]
    assert above.image.tolist() == [14, 15] and above.score.tolist() == [14, 15]
    assert (above.score > above.threshold).all() and (sides[sides.side == "below"].score <= sides.threshold.iloc[0]).all()
    given(run)
    arrays = examples.arrays(run, drawn, sides, pd.DataFrame({"stage": []}))
    assert arrays["above/Full model"].ravel().tolist() == [14, 15]


@pytest.mark.parametrize(
    ("members", "procedure", "n_images", "side_px", "kept"),
    [
        ("1111", "retrain", 1024, 256, 1024),
        ("1101", "retrain", 1024, 256, 16),
        ("1101", "retrain", 50, 256, 64),
        ("1101", "sparse_finetune", 50, 256, 16),
        ("1101", "sparse_finetune", 512, 32, 64),
    ],
)
def test_enough_images_are_kept_to_choose_from(members, procedure, n_images, side_px, kept):
    spec = {"members": members, "procedure": procedure, "sampler": {"n_images": n_images}}
    assert worker._n_kept(spec, side_px, ()) == kept


def test_where_features_are_kept_for_the_fid_more_large_images_are():
    spec = {"members": "1101", "procedure": "gradient_ascent", "sampler": {"n_images": 1024}}
    assert worker._n_kept(spec, 256, ("inception_pool",)) == 64
