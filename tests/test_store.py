"""A run's folder: notebooks agree on their parameters, rows are never doubled, and what is done is known."""

import json

import pandas as pd
import pytest

from cdlib import store
from cdlib.base import params, paths
from cdlib.base.errors import Refused
from cdlib.store import cells, completion

NAMES = [path.stem for path in paths.notebooks()]
DEFAULTS = params.check({}, "defaults")


def is_done(notebook, values):
    return completion.why_not(notebook, values) is None


def open_(notebook, **values):
    """A notebook's run, as the notebook opens it."""
    return store.open(notebook, {"name": "tiny", **values})


def finish(notebook, **values):
    """Run a notebook that does nothing."""
    run = open_(notebook, **values)
    run.done()
    return run


def measure(run, *seeds):
    """Measure coalitions without a model; returns their keys."""
    specs = [{"procedure": "retrain", "members": "01", "seed": seed} for seed in seeds]
    for spec in specs:
        run.measured.write(spec, {"inception_score": float(spec["seed"])}, {}, 1.0, 0.5)
    return [run.measured.key(spec) for spec in specs]


def rows(**credits):
    """Rows of a shared table."""
    return pd.DataFrame({"contributor": list(credits), "value": list(credits.values())})


def test_the_first_notebook_opens_in_an_empty_folder_with_the_defaults(scratch):
    assert open_("01_contributors").params == DEFAULTS | {"name": "tiny"}


def test_a_later_notebook_has_what_the_earlier_ones_were_given(scratch):
    finish("01_contributors", images_per_contributor=10)
    assert open_("02_train")["images_per_contributor"] == 10


def test_a_value_that_contradicts_an_earlier_notebook_is_refused(scratch):
    finish("01_contributors", images_per_contributor=10)
    with pytest.raises(Refused, match=r"02_train.ipynb: images_per_contributor: 20: 01_contributors of this run had 10; "):
        open_("02_train", images_per_contributor=20)


def test_a_notebook_between_that_was_run_with_other_values_must_be_run_again(scratch):
    finish("01_contributors"), finish("02_train", train_steps=5), finish("03_prune")
    finish("02_train", train_steps=6)
    with pytest.raises(Refused, match=r"04_shapley.ipynb: run 03_prune first: it was run with train_steps: 5, .* run with 6"):
        open_("04_shapley")


@pytest.mark.parametrize("name", params.EXECUTION[1:])
def test_how_a_run_is_executed_may_change_between_notebooks(scratch, name):
    values = {"executor": "serial", "workers": 3, "device": "cpu", "sample_batch": 7, "checkpoint_minutes": 0.0}
    values |= {"keep_models": "last", "ray_address": "auto", "gpus_per_coalition": 0.5, "so_far": True}
    finish("01_contributors"), finish("02_train")
    assert open_("03_prune", **{name: values[name]})[name] == values[name] != DEFAULTS[name]


def test_a_notebook_may_not_be_skipped(scratch):
    finish("01_contributors")
    with pytest.raises(Refused, match=r"03_prune.ipynb: run 02_train first: in run tiny it has not finished"):
        open_("03_prune")


def test_a_bad_parameter_is_refused_in_the_notebook_too(scratch):
    with pytest.raises(Refused, match=r"notebooks/01_contributors.ipynb: images_per_contributor: -1: must be greater"):
        open_("01_contributors", images_per_contributor=-1)
    assert not scratch.exists()


def test_a_notebook_that_is_opened_with_other_inputs_is_not_done_until_it_says_so(scratch):
    finish("01_contributors")
    run = open_("01_contributors", images_per_contributor=10)
    assert completion.why_not("01_contributors", run.params) == "has not finished"
    run.done()
    assert is_done("01_contributors", run.params)


def test_a_notebook_that_is_opened_with_the_same_inputs_stays_done_for_another_run_on_the_folder(scratch):
    finish("01_contributors")
    open_("01_contributors")
    assert open_("02_train")


def test_rows_of_a_shared_table_are_replaced_when_a_notebook_runs_again(scratch, tiny):
    early, late = store.Run("04_shapley", tiny), store.Run("05_baselines", tiny)
    late.write_part("attributions", rows(a=5.0))
    early.write_part("attributions", rows(a=1.0, b=2.0))
    whole = early.write_part("attributions", rows(a=3.0))
    pd.testing.assert_frame_equal(whole, rows(a=3.0).merge(rows(a=5.0), how="outer"))
    pd.testing.assert_frame_equal(late.table("attributions"), whole)


def test_labels_and_members_stay_text(scratch, tiny):
    run = store.Run("04_shapley", tiny)
    run.write_part("attributions", pd.DataFrame({"contributor": ["0", "1"]}))
    run.write("measured", pd.DataFrame({"members": ["0011"]}))
    assert run.table("attributions").contributor.tolist() == ["0", "1"]
    assert run.table("measured").members.tolist() == ["0011"]


def test_what_is_not_there_yet_is_refused_with_how_to_make_it(scratch, tiny):
    run = store.Run("06_lds", tiny)
    for read, file in ((run.table, "lds.csv"), (run.arrays, "lds.safetensors")):
        with pytest.raises(Refused, match=rf"{file}: not there; `cdlib run` with this run's parameter file makes it"):
            read("lds")


def test_measured_csv_has_the_coalitions_in_use_once_each_in_the_order_of_the_notebooks(scratch):
    first = open_("01_contributors")
    keys = measure(first, 3, 1, 2, 9)
    first.use(keys[:2]), first.use(keys[:1]), first.done()
    second = open_("02_train")
    second.use([keys[2], keys[0]]), second.done()
    table = second.table("measured")
    assert table.key.tolist() == keys[:3]
    assert table.columns.tolist() == [
        "key",
        "procedure",
        "seed",
        "members",
        "inception_score",
        "train_seconds",
        "sample_seconds",
    ]
    assert table.inception_score.tolist() == [3.0, 1.0, 2.0]


def test_the_done_file_says_what_the_results_come_from(scratch):
    run = finish("01_contributors", assignment_seed=7)
    state = json.loads((run.folder / "done" / "01_contributors.json").read_bytes())
    assert state["params"] == {name: run.params[name] for name in completion.names("01_contributors")}
    assert state["inputs"] == completion.inputs("01_contributors", run.params)
    assert state["versions"]["torch"]
    assert state["seconds"] >= 0


def test_a_parameter_of_an_earlier_notebook_undoes_the_later_ones_only(scratch):
    values = [finish(name) for name in NAMES[:3]][-1].params
    assert [is_done(name, values) for name in NAMES[:4]] == [True, True, True, False]
    assert [is_done(name, values | {"train_lr": 0.1}) for name in NAMES[:3]] == [True, False, False]


def test_what_later_notebooks_declare_does_not_take_earlier_rows_out_of_measured_csv(scratch):
    first = open_("01_contributors")
    keys = measure(first, 1, 2)
    first.use(keys[:1]), first.done()
    second = open_("02_train", train_lr=0.5)
    second.use(keys[1:]), second.done()
    assert second.table("measured").key.tolist() == keys


def test_a_notebook_is_not_done_when_what_it_rests_on_is_gone(scratch):
    run = open_("01_contributors")
    keys = measure(run, 1, 2)
    run.use(keys), run.write("contributors", pd.DataFrame({"image": [1]})), run.done()
    assert is_done("01_contributors", run.params)
    record = run.measured.path(keys[1])
    whole = record.read_bytes()
    record.unlink()
    assert completion.why_not("01_contributors", run.params) == f"1 measured coalitions are gone or damaged, the first: {record}"
    record.write_bytes(whole)
    run.path("contributors.csv").unlink()
    assert completion.why_not("01_contributors", run.params) == "contributors.csv is gone"


def test_earlier_notebooks_can_be_run_again_when_what_a_later_one_rests_on_is_gone(scratch):
    values = {"name": "tiny"}
    open_("01_contributors").done()
    second = open_("02_train")
    keys = measure(second, 1, 2)
    second.use(keys), second.done()
    second.measured.path(keys[0]).unlink()
    open_("01_contributors").done()
    assert second.table("measured").key.tolist() == keys[1:] and not is_done("02_train", second.params | values)


def test_a_notebook_with_failed_coalitions_is_not_done(scratch):
    run = open_("01_contributors")
    run.use([], failed=["abc"]), run.done()
    assert completion.why_not("01_contributors", run.params) == "1 coalitions failed"


def test_other_coalitions_below_undo_the_notebooks_above(scratch):
    run, later = finish("01_contributors"), finish("02_train")
    assert is_done("02_train", later.params)
    again = open_("01_contributors")
    again.use(measure(run, 5)), again.done()
    assert not is_done("02_train", later.params)


@pytest.mark.parametrize("spoil", [lambda text: text[:40], lambda text: text.replace('"failed": []', '"failed": ["a"]')])
def test_a_done_file_that_is_not_what_was_written_counts_as_none_and_is_named(scratch, spoil):
    run = finish("01_contributors")
    file = run.folder / "done" / "01_contributors.json"
    file.write_text(spoil(file.read_text()))
    assert completion.why_not("01_contributors", run.params) == f"{file} is not what was written"


def one_and_two():
    """Two finished notebooks: each has written a table of its own, and rows of one that they share."""
    for notebook, table in (("01_contributors", "contributors"), ("02_train", "lds")):
        run = open_(notebook)
        run.write(table, rows(a=1.0, b=2.0))
        run.write_part("attributions", rows(a=3.0))
        run.done()
    return run


@pytest.mark.parametrize("file", ["contributors.csv", "parts/attributions/01_contributors.csv"])
def test_a_table_that_was_cut_short_is_named_refused_and_written_again(scratch, file):
    run = one_and_two()
    assert is_done("01_contributors", run.params) and is_done("02_train", run.params)
    path = run.path(file)
    whole = path.read_bytes()
    path.write_bytes(whole[:-6])
    assert completion.why_not("01_contributors", run.params) == f"{path.name} was changed"
    assert is_done("02_train", run.params)
    later = store.Run("03_prune", run.params)
    with pytest.raises(Refused, match=f"^{path}: {path.name} was changed; run 01_contributors again"):
        later.table(file.split("/")[-2] if "/" in file else "contributors")
    with pytest.warns(UserWarning, match=f"^{path}: .* was changed; made again"):
        again = open_("01_contributors")
    again.write("contributors", rows(a=1.0, b=2.0)), again.write_part("attributions", rows(a=3.0)), again.done()
    assert path.read_bytes() == whole
    assert is_done("01_contributors", run.params) and is_done("02_train", run.params)


def test_a_joined_table_that_was_cut_short_is_not_what_is_read(scratch):
    run = one_and_two()
    path = run.path("attributions.csv")
    path.write_bytes(path.read_bytes()[:-6])
    assert run.table("attributions").value.tolist() == [3.0, 3.0]


def test_joined_tables_that_were_cut_short_are_written_again_by_the_last_notebook(scratch):
    run = one_and_two()
    keys = measure(run, 1, 2)
    for name in NAMES[2:]:
        run = open_(name)
        run.use(keys), run.done()
    for file in ("attributions.csv", "measured.csv"):
        path = run.path(file)
        whole = path.read_bytes()
        path.write_bytes(whole[:-6])
        assert [name for name in NAMES if not is_done(name, run.params)] == [NAMES[-1]]
        again = open_(NAMES[-1])
        again.use(keys), again.done()
        assert path.read_bytes() == whole and is_done(NAMES[-1], run.params)


def test_a_notebook_is_not_done_when_a_model_that_it_rests_on_is_another(scratch):
    run = open_("01_contributors")
    run.folder.mkdir(parents=True)
    run.path("full.bin").write_bytes(b"weights")
    run.rests_on(run.path("full.bin")), run.done()
    assert is_done("01_contributors", run.params)
    run.path("full.bin").write_bytes(b"others")
    assert completion.why_not("01_contributors", run.params) == "full.bin was changed"
    open_("01_contributors")
    assert run.path("full.bin").read_bytes() == b"others"


@pytest.mark.parametrize("name", params.EXECUTION[1:])
def test_how_a_run_is_executed_undoes_nothing(scratch, name):
    assert completion.inputs("08_figures", DEFAULTS | {name: "other"}) == completion.inputs("08_figures", DEFAULTS)


@pytest.mark.parametrize("name", sorted(set(DEFAULTS) - set(params.EXECUTION)))
def test_every_other_parameter_undoes_the_notebook_that_reads_it(name):
    reader = next(path.stem for path in paths.notebooks() if name in cells.declared(path))
    assert completion.inputs(reader, DEFAULTS | {name: "other"}) != completion.inputs(reader, DEFAULTS)


@pytest.mark.parametrize("file", sorted((paths.root() / "params").glob("*.yaml")), ids=lambda file: file.stem)
def test_every_notebook_of_every_run_opens_with_what_it_declares_and_knows_what_was_given_before(file, scratch):
    values = params.load(file)
    for path in paths.notebooks():
        run = store.open(path.stem, {name: values[name] for name in cells.declared(path)})
        known = [n for p in paths.notebooks() if p.stem <= path.stem for n in cells.declared(p) if n not in params.EXECUTION]
        assert {n: run[n] for n in known} == {n: values[n] for n in known}
        run.done()
