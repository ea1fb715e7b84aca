"""The comparison of Table 9: which coalitions, against which retrained model, and whose images are shown."""

import numpy as np
import pandas as pd
import pytest

from cdlib import store
from cdlib.base import params
from cdlib.data import coalitions, design
from cdlib.judge import unlearning
from cdlib.measure import properties, utility
from cdlib.measure.frechet import fid
from cdlib.show import tables
from cdlib.store import measured

PROCEDURES = ["retrain", "sparse_finetune", "gradient_ascent", "influence_unlearning"]


@pytest.fixture
def values(tiny):
    return tiny | {"n_unlearn": 3, "coalition_seed": 12, "fid_embedding": "pooled_pixels"}  # of 1, 3 and 2 contributors


@pytest.fixture
def small(run, values):
    """A run of four contributors, and everything that its comparison measures."""
    run = store.Run(run.notebook, values)
    return run, {name: utility.measure(run, wanted) for name, wanted in design.unlearning(values).items()}


def features(run, key):
    digest = properties.feature(run.folder, run.params, "pooled_pixels").digest
    return run.measured.arrays(key)[properties.kept_as("pooled_pixels", digest)]


# What is asked for.


def test_the_coalitions_are_the_first_of_the_papers_draws_by_each_procedure():
    values = params.defaults() | {"n_unlearn": 5}
    wanted = design.unlearning(values)
    assert list(wanted) == [*PROCEDURES, "retrain_again", "unchanged"]
    draws = coalitions.kernel(20, 5, values["coalition_seed"])
    for name in [*PROCEDURES, "retrain_again"]:
        np.testing.assert_array_equal(wanted[name].members, draws)
        assert wanted[name].procedure == name.removesuffix("_again") and wanted[name].keeps == ("digits_embedding",)
    assert (wanted["retrain_again"].seeds == wanted["retrain"].seeds + 1).all()
    assert wanted["unchanged"].members.all() and len(wanted["unchanged"]) == 1


def test_fine_tuned_ones_are_those_that_the_shapley_values_use(run, values):
    of = {w.purpose: w for w in design.shapley(values | {"n_paper_coalitions": 40})}[design.PAPERS]
    ours = design.unlearning(values)["sparse_finetune"]
    specs = utility.specifications(run, of)[:3]
    assert utility.specifications(run, ours) == specs


def test_a_draw_that_repeats_has_a_seed_of_its_own(values):
    wanted = design.unlearning(values | {"n_unlearn": 12})["retrain"]
    assert len(np.unique(wanted.members, axis=0)) < 12
    assert len({(measured.bits(m), s) for m, s in zip(wanted.members, wanted.seeds, strict=True)}) == 12


def test_none_are_asked_for_where_none_are_wanted(run, values):
    none = values | {"n_unlearn": 0}
    assert design.unlearning(none) == {}
    added = design.n_planned(values) - design.n_planned(none).reindex(design.n_planned(values).index, fill_value=0)
    changed = {"retrain": 6, "sparse_finetune": 3, "gradient_ascent": 3, "influence_unlearning": 3, "untrained": 1}
    assert added[added != 0].to_dict() == changed
    frame = unlearning.frame(run, {})
    assert frame.columns.tolist() == unlearning.COLUMNS and frame.empty
    assert unlearning.examples(run, {}) == {}


# What comes out.


def test_each_model_is_compared_with_the_one_retrained_on_its_coalition(small):
    run, found = small
    frame = unlearning.frame(run, found)
    assert frame.groupby("procedure", sort=False).size().to_dict() == dict.fromkeys(
        [*PROCEDURES, "retrain_again", "unchanged"], 3
    )
    assert frame[frame.procedure == "retrain"].fid.isna().all()
    for name in [*PROCEDURES[1:], "retrain_again"]:
        rows = frame[frame.procedure == name]
        assert rows.members.tolist() == found["retrain"].members.tolist()
        expected = [fid(features(run, a), features(run, b)) for a, b in zip(found[name].key, found["retrain"].key, strict=True)]
        assert rows.fid.tolist() == expected and min(expected) > 0
        assert rows.value.tolist() == found[name].inception_score.tolist()
    sparse = found["unchanged"].key[0]
    expected = [fid(features(run, sparse), features(run, key)) for key in found["retrain"].key]
    assert frame[frame.procedure == "unchanged"].fid.tolist() == expected


def test_rows_survive_a_csv_and_become_the_table(small, tmp_path):
    run, found = small
    frame = run.write("unlearning", unlearning.frame(run, found))
    pd.testing.assert_frame_equal(run.table("unlearning"), frame)
    table = tables.table_9(run.table("unlearning"))
    assert table.procedure.tolist() == [*PROCEDURES[1:], "retrain_again", "unchanged"] and (table.n_coalitions == 3).all()


def test_a_coalition_that_could_not_be_retrained_has_no_distance(small):
    run, found = small
    frame = unlearning.frame(run, found | {"retrain": found["retrain"][1:]})
    lost = frame[frame.members == found["retrain"].members[0]]
    assert lost.procedure.tolist() == [*PROCEDURES[1:], "retrain_again"] and lost.fid.isna().all()
    table = tables.table_9(frame)
    assert len(table) == 5 and (table.n_coalitions == 2).all()


def test_the_images_are_of_one_coalition_of_middling_size_that_all_have(small):
    run, found = small
    sizes = found["retrain"]["size"].tolist()
    row = sizes.index(2)
    assert row > 0
    shown = unlearning.examples(run, found)
    assert list(shown) == [f"unlearning/{name}" for name in PROCEDURES]
    for name in PROCEDURES:
        np.testing.assert_array_equal(shown[f"unlearning/{name}"], run.measured.arrays(found[name].key[row])["images"])
    left = found | {"gradient_ascent": found["gradient_ascent"].drop(index=row)}
    other = unlearning.examples(run, left)["unlearning/retrain"]
    np.testing.assert_array_equal(other, run.measured.arrays(found["retrain"].key[0])["images"])
