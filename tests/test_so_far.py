"""What is measured so far: found without measuring, kept apart from the run's own results, and what is missing is said."""

import numpy as np
import pandas as pd
import pytest

from cdlib import store
from cdlib.base import machine
from cdlib.base.errors import Missing, Refused
from cdlib.credit import attributions, methods
from cdlib.data import design
from cdlib.judge import counterfactual
from cdlib.measure import sketches, utility, worker
from cdlib.models import stages
from cdlib.show import examples
from cdlib.store import cache, completion

CREDITS = pd.DataFrame({"method": "D-TRAK", "property": "inception_score", "contributor": list("abcd"), "value": range(4)})


@pytest.fixture
def so_far(run):
    """The run of four contributors as `--so-far` sees it; it has measured nothing."""
    return store.Run(run.notebook, run.params | {"so_far": True})


def files(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def wanted(n=4, n_seeds=2):
    members = ~np.eye(4, dtype=bool)[:n]
    return design.Wanted("some coalitions", "retrain", np.tile(members, (n_seeds, 1)), np.repeat(np.arange(n_seeds), n))


def test_what_is_measured_is_found_and_what_is_not_is_counted_and_not_measured(run, so_far, monkeypatch):
    measured = utility.measure(run, wanted(2, 1))
    before = files(run.folder)
    monkeypatch.setattr(worker, "measure", None)
    table = utility.measure(so_far, wanted())
    assert table.equals(measured)
    assert files(run.folder) == before
    assert (so_far.keys, so_far.failed) == (measured.key.tolist(), [])
    counts = {"wanted": 8, "measured": 2, "missing": 6}
    assert so_far.missing().rows() == [{"purpose": "some coalitions", "procedure": "retrain", **counts}]
    assert "| some coalitions | retrain | 8 | 2 | 6 |" in so_far.missing()._repr_markdown_()


def test_of_none_measured_the_table_has_its_columns_and_the_game_its_contributors(run, so_far):
    others = design.Wanted("others", "finetune", np.eye(4, dtype=bool), np.zeros(4, int))
    some, none = utility.measure(run, wanted(1, 1)), utility.measure(so_far, others)
    assert none.empty and none.dtypes.equals(some.dtypes)
    assert [part.shape for part in utility.game(so_far, none)] == [(0, 4), (0,)]
    assert [part.shape for part in utility.by_seed(so_far, none)] == [(0, 4), (0, 0)]
    assert utility.runtime(none).columns.tolist() == utility.runtime(some).columns.tolist()


def test_where_nothing_is_missing_that_is_said(run):
    utility.measure(run, wanted(1, 1))
    assert run.missing().rows() == []
    assert run.missing()._repr_markdown_().startswith("Nothing is missing")


def test_what_was_measured_on_a_gpu_is_found_from_a_machine_without_one(run, so_far, monkeypatch):
    path = run.folder / "models" / "full.json"
    cache.write(path, cache.read(path) | {"device": "cuda:1 NVIDIA H200"})
    looked = utility.specifications(so_far, wanted())
    monkeypatch.setattr(machine, "device", lambda name: "cuda:0")
    assert looked == utility.specifications(run, wanted())


def test_results_so_far_lie_beside_those_of_the_run_and_leave_them_as_they_are(run, so_far):
    frame = pd.DataFrame({"method": ["a"], "contributor": ["1"]})
    run.write_part("attributions", frame)
    before = files(run.folder)
    so_far.write_part("attributions", frame.assign(method="b"))
    so_far.done()
    after = files(run.folder)
    assert {name for name in after if name not in before} == {name for name in after if name.startswith("so_far/")}
    assert all(after[name] == data for name, data in before.items())
    assert so_far.table("attributions").method.tolist() == ["b"] and run.table("attributions").method.tolist() == ["a"]
    assert so_far.figures == run.folder / "so_far" / "figures"
    assert completion.why_not("04_shapley", run.params) == "has not finished"


def test_a_notebook_opened_so_far_rests_on_the_runs_own_first_notebooks_and_is_not_done_by_it(run):
    for notebook in ("01_contributors", "02_train", "03_prune"):
        store.Run(notebook, run.params).done()
    (run.folder / "contributors.csv").write_text("image,contributor\n0,a\n")
    given = {"name": "tiny", "so_far": True}
    here = store.open("04_shapley", dict(given))
    assert here.params["train_steps"] == run.params["train_steps"] and here.table("contributors").contributor.tolist() == ["a"]
    here.done()
    with pytest.raises(Refused, match="run 05_baselines first"):
        store.open("06_lds", dict(given))
    assert completion.state(run.folder, "04_shapley") is None
    (run.folder / "done" / "03_prune.json").unlink()
    with pytest.raises(Refused, match="run 03_prune first"):
        store.open("04_shapley", dict(given))


def test_results_so_far_rest_on_models_of_these_parameters_whatever_the_library(run):
    here, now = store.Run("02_train", run.params), run.params | {"so_far": True}
    assert completion.why_not("02_train", now) == "has not finished"
    here.use(utility.measure(here, wanted(1, 1)).key.tolist(), failed=["another"])
    here.done()
    completion.write(run.folder, completion.state(run.folder, "02_train") | {"inputs": "of another library"})
    assert completion.why_not("02_train", now) is None and completion.why_not("02_train", run.params)
    assert completion.why_not("02_train", now | {"train_steps": 4}) == "was run with train_steps: 3, not 4"
    run.measured.path(here.keys[0]).unlink()
    assert completion.why_not("02_train", now).startswith("1 measured coalitions are gone")


def test_a_run_may_be_called_so_far(run):
    here = store.Run("02_train", run.params | {"name": "so_far"})
    here.done()
    assert completion.why_not("02_train", here.params) is None


def test_what_lacks_its_rows_is_left_out_and_named_and_other_errors_are_not_hidden(run):
    def lacking():
        raise Missing("two rows, and it takes three")

    assert run.possible({0.25: lacking, 0.5: lambda: 7}, of="alpha ") == {0.5: 7}
    assert "- Left out: alpha 0.25: two rows, and it takes three" in run.missing()._repr_markdown_()
    with pytest.raises(ZeroDivisionError):
        run.possible({"a": lambda: 1 / 0})


def grid(run, text):
    """Measured coalitions, one line a coalition, one place a seed: a digit is its value, a dot is missing."""
    rows = [
        (f"{i}-{seed}", f"{i:04b}", seed, float(value))
        for seed in range(3)
        for i, line in enumerate(text.split())
        if (value := line[seed : seed + 1]) not in ("", ".")
    ]
    return pd.DataFrame(rows, columns=["key", "members", "seed", run["property"]])


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("123 456 789", [[1, 2, 3], [4, 5, 6], [7, 8, 9]]),
        ("12. 456 789 321 654", [[4, 5, 6], [7, 8, 9], [3, 2, 1], [6, 5, 4]]),  # one failure: the coalition goes
        ("12. 4.. 7.. 3..", [[1], [4], [7], [3]]),  # a seed has just begun: the seed goes
        ("12. 45. 78. 32. 6..", [[1, 2], [4, 5], [7, 8], [3, 2]]),
        (".2. .5. .8.", [[2], [5], [8]]),
    ],
)
def test_seeds_that_many_lack_go_and_else_coalitions_that_lack_one(run, text, expected):
    members, targets = utility.by_seed(run, grid(run, text))
    assert targets.tolist() == expected
    assert len(members) == len(expected)


def test_gradients_that_are_not_all_there_are_not_computed(run, so_far, monkeypatch):
    monkeypatch.setattr(sketches, "compute_one", None)
    key = utility.measure(run, design.ends(run.params)[0]).key[0]
    before = files(run.folder)
    with pytest.raises(Missing, match="gradients of 80 of 80 training images are not computed"):
        sketches.features(so_far, "training, simple", key)
    assert files(run.folder) == before


def test_leave_one_out_lacks_the_contributor_whose_retraining_failed_and_names_them(run):
    run = store.Run("05_baselines", run.params)
    data = design.ends(run.params)[0], design.leave_one_out(run.params)
    everybody, without = (utility.measure(run, w) for w in data)
    run.write("contributors", stages.dataset(run.params).contributors)
    whole = methods.leave_one_out(methods.Evidence(run, everybody, without, everybody))
    lacking = methods.Evidence(run, everybody, without.drop(index=1), everybody)
    with pytest.warns(UserWarning, match=r"Leave-one-out \(LOO\): .* lacks the credit of 1 without whom .*: 1$"):
        credit = methods.leave_one_out(lacking)
    table = attributions.frame({"Leave-one-out (LOO)": credit}, lacking.labels, run["property"])
    assert table.contributor[table.value.isna()].tolist() == ["1"]
    assert credit.value[[0, 2, 3]] == pytest.approx(whole.value[[0, 2, 3]])
    with pytest.raises(Missing, match="no model without a contributor"):
        methods.leave_one_out(methods.Evidence(run, everybody, without.head(0), everybody))


def test_a_method_that_does_not_know_all_contributors_has_no_counterfactual_and_is_named(run):
    run = store.Run("07_counterfactual", run.params | {"compared": ["D-TRAK", "TRAK", "Relative IF"], "shown_fractions": []})
    unknown = CREDITS.assign(method="TRAK", value=[0, np.nan, 2, 3])
    found = counterfactual.wanted(run, pd.concat([CREDITS, unknown]))
    assert {method for method, _ in found} == {"D-TRAK"}
    assert set(run.left_out) == {"counterfactuals of TRAK", "counterfactuals of Relative IF"}


def test_changes_without_a_model_have_no_row_and_no_image(run):
    full = utility.measure(run, design.ends(run.params)[0])
    none = {("D-TRAK", "remove_top_40"): full.head(0), ("D-TRAK", "keep_top_60"): full}
    assert examples.models(run, full, none).change.tolist() == ["none", "keep_top_60"]
    frame = counterfactual.frame(run, {which: utility.values(run, t) for which, t in none.items()}, [1.0])
    assert frame.change.tolist() == ["keep_top_60"]
    assert len(design.together("none", [])) == 0


def test_figure_1_shows_coalitions_that_are_measured(run, so_far):
    full = utility.measure(run, design.ends(run.params)[0])
    ours = design.shapley(run.params)[0]
    rows = [next(i for i, members in enumerate(ours.members) if members.sum() == size) for size in (1, 3)]
    few = design.Wanted("few", ours.procedure, ours.members[rows], ours.seeds[rows])
    there = utility.measure(run, few)
    made = examples.framework(so_far, full)
    assert set(made.members[made.stage == "coalition"]) == set(there.members)
    assert so_far.missing().rows() == []  # notebook 04 counts them
