"""Every table and figure of the paper in the form that applies to a run: from tidy files alone, under the paper's numbers."""

import os
import re
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from test_statement import played

from cdlib import store
from cdlib.base import params, paths
from cdlib.data import design
from cdlib.show import examples, overview, paper, reported
from cdlib.show.statement import statement
from cdlib.show.tables import Table

RUNS = {"digits": "pixel", "faces": "latent", "painters": "text_to_image"}
EVERYWHERE = {"table_1", "table_2", "figure_1", "figure_2", "figure_3", "figure_4"}
MADE = {
    "digits": EVERYWHERE | {"table_3", "table_4", "figure_5", "figure_6", "figure_11", "figure_12"},
    "faces": EVERYWHERE | {"table_5", "table_6", "figure_7", "figure_12"},
    "painters": EVERYWHERE | {"table_7", "table_8", "figure_8", "figure_9", "figure_10"},
}
# Notebook 08 as it is run, in a process in which torch cannot be imported.
NOTEBOOK = """
import json, pathlib, sys
class NoTorch:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in ("torch", "torchvision", "diffusers", "peft", "transformers"):
            raise ImportError(f"{name} was imported")
sys.meta_path.insert(0, NoTorch())
rich = lambda s: next(getattr(s, f"_repr_{kind}_")() for kind in ("png", "html", "markdown") if hasattr(s, f"_repr_{kind}_"))
cells = [c for c in json.loads(pathlib.Path(sys.argv[1]).read_text())["cells"] if c["cell_type"] == "code"]
namespace = {"name": sys.argv[2], "display": lambda *shown: [rich(s) for s in shown]}
for cell in cells[1:]:
    exec("".join(cell["source"]), namespace)
"""


def tidy(values, rng):
    """Tables of a finished run, made up: {name: frame}."""
    n, prop, methods = params.n_contributors(values), values["property"], [*values["compared"], design.PAPERS]
    labels = [f"c{i:02d}" for i in range(n)]
    credits = [(m, prop, c, v, 0.1, v - 0.2, v + 0.2) for m in methods for c, v in zip(labels, rng.normal(size=n), strict=True)]
    kinds = ("subsets", "seeds", "paper")
    scores = [(m, prop, a, rng.uniform(0, 90), -9.0, 95.0, k, 92.0, 8) for m in methods for a in values["alphas"] for k in kinds]
    curves = [
        (procedure, estimator, prop, alpha, k, rng.uniform(0, 90), -9.0, 95.0, "subsets", 92.0)
        for procedure, estimator in [("retrain", "ours"), ("sparse_finetune", "ours"), ("sparse_finetune", "paper")]
        for alpha in values["alphas"]
        for k in (40, 100)
    ]
    changes = [(m, c) for m in values["compared"] for c in ("remove_top_40", "keep_top_60", "remove_top_10")]
    drawn = [(examples.title(m, c), m, c, rng.uniform(2, 6), 2, "") for m, c in changes]
    drawn = pd.DataFrame(
        [(examples.FULL, examples.FULL, "none", 6.0, 5, ""), *drawn],
        columns=["title", "method", "change", "value", "n_seeds", "key"],
    )
    sides = [(t, s, i, i, 50.0, 60.0) for t in drawn["title"] for s in ("above", "below") for i in range(4)]
    coalitions = [("coalition", "1" * k + "0" * (n - k), 60, 5.0, "") for k in (n // 4, n // 2)]
    training = pd.DataFrame({"image": range(3 * n), "contributor": np.repeat(labels, 3)})
    seen = {"inception_score": {"entropy": rng.gamma(2, 1, 3 * n)}, "cluster_entropy": {"cluster": rng.integers(0, 5, 3 * n)}}
    changed = [(m, prop, c, rng.normal(), -3.0, 3.0, 2) for m, c in changes if not c.endswith("10")]
    return {
        "attributions": pd.DataFrame(credits, columns="method property contributor value stderr low high".split()),
        "contributors": training.assign(**{"class": 0}),
        "lds": pd.DataFrame(
            scores, columns="method property alpha lds_percent low high interval ceiling_percent n_coalitions".split()
        ),
        "lds_by_coalitions": pd.DataFrame(
            curves,
            columns="procedure estimator property alpha n_coalitions lds_percent low high interval ceiling_percent".split(),
        ),
        "runtime": pd.DataFrame(
            [("retrain", 8.0, 2.0, 9), ("sparse_finetune", 1.5, 1.0, 9)],
            columns="procedure train_seconds sample_seconds n".split(),
        ),
        "fidelity": pd.DataFrame({"retrain": rng.uniform(1, 6, 9), "sparse_finetune": rng.uniform(1, 6, 9), "size": range(9)}),
        "counterfactual": pd.DataFrame(changed, columns="method property change percent low high n_seeds".split()),
        "generated": drawn,
        "pairs": pd.DataFrame(
            sides if prop == "aesthetic_score" else [], columns="title side place image score threshold".split()
        ),
        "training_images": training.assign(**seen.get(prop, {})) if prop in seen else training.head(0),
        "framework": pd.DataFrame(
            [("full", "1" * n, 100, 6.0, ""), ("sparse", "", 60, np.nan, ""), *coalitions],
            columns="stage members parameters value key".split(),
        ),
    }


def arrays(values, tables, rng):
    """The arrays of examples.safetensors that belong to those tables."""
    titles, members = tables["generated"]["title"], tables["framework"]["members"]
    names = [f"contributor/{c}" for c in tables["contributors"]["contributor"].unique()]
    names += [f"generated/{t}" for t in titles] + [f"coalition/{m}" for m in members[2:]]
    names += [f"{side}/{t}" for t in titles for side in ("above", "below") if values["property"] == "aesthetic_score"]
    if values["dataset"] == "digits":
        names += [f"unlearning/{procedure}" for procedure in paper.UNLEARNING]
    shape = (8, 1 if values["dataset"] == "digits" else 3, 8, 8)
    return {name: rng.integers(0, 256, shape, np.uint8) for name in names}


def finish(name):
    """The run of a parameter file, whose notebooks 01 to 07 have finished."""
    values, rng = params.load(paths.params(name)), np.random.default_rng(0)
    notebooks = [store.Run(path.stem, values) for path in paths.notebooks()]
    tables = tidy(values, rng)
    others, labels = tables["attributions"], sorted(tables["contributors"]["contributor"].unique())
    tables |= played(values, labels, rng.normal(size=len(labels)), values["property"])  # credits that coalitions give
    others = others[~others["method"].isin(tables["attributions"]["method"])]
    tables["attributions"] = pd.concat([tables["attributions"], others], ignore_index=True)
    for table, frame in tables.items():
        notebooks[-2].write(table, frame)
    notebooks[-2].write_arrays("examples", arrays(values, tables, rng))
    for run in notebooks[:-1]:
        run.done()
    return notebooks[-1]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A finished run of each kind, and what notebook 08 alone drew of it without torch: a folder of runs/ and figures/."""
    folder = tmp_path_factory.mktemp("drawn")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CDLIB_RUNS", str(folder / "runs"))
        patch.setenv("CDLIB_FIGURES", str(folder / "figures"))
        for name in RUNS:
            finish(name)
            command = [sys.executable, "-W", "error", "-c", NOTEBOOK, paths.notebook("08_figures"), name]
            told = subprocess.run(command, capture_output=True, text=True)
            assert (told.returncode, told.stderr) == (0, "")
    return folder


@pytest.fixture
def at(drawn, monkeypatch):
    """Runs and figures are those of `drawn`; gives the folder of figures."""
    monkeypatch.setenv("CDLIB_RUNS", str(drawn / "runs"))
    monkeypatch.setenv("CDLIB_FIGURES", str(drawn / "figures"))
    return drawn / "figures"


def read(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("name", RUNS)
def test_notebook_08_draws_without_torch_what_the_paper_has_for_this_kind_of_run(at, name):
    kinds = {path.stem: set() for path in (at / name).iterdir()}
    for path in (at / name).iterdir():
        kinds[path.stem].add(path.suffix)
    numbered = {stem for stem in kinds if re.fullmatch(r"(table|figure)_\d+", stem)}
    assert numbered == MADE[name]
    assert {"credit", "fidelity", "lds", "lds_by_coalitions"} <= set(kinds)
    forms = {"table": {".csv", ".md", ".tex"}, "figure": {".csv", ".pdf", ".png"}}
    assert all(kinds[stem] == forms[stem.split("_")[0]] for stem in numbered)


def test_deleted_figures_come_back_byte_for_byte(at, tmp_path, monkeypatch):
    monkeypatch.setenv("CDLIB_FIGURES", str(tmp_path))
    run = store.Run("08_figures", params.load(paths.params("faces")))
    paper.write(run, paper.make(run))
    statement.write(run)
    assert read(tmp_path / "faces") == read(at / "faces")


def test_table_1_of_all_runs_has_a_column_for_each_and_the_papers_beneath(at):
    joined = pd.read_csv(at / "table_1.csv")
    assert list(joined["run"].unique()) == list(RUNS)
    for name in RUNS:
        own = pd.read_csv(at / name / "table_1.csv")
        part = joined[joined["run"] == name].drop(columns="run").reset_index(drop=True)
        pd.testing.assert_frame_equal(part, own)
    text = (at / "table_1.md").read_text()
    rows = [line.split("|")[1].strip() for line in text.splitlines() if line.startswith("| ")]
    assert re.search(r"\| digits +\| faces +\| painters +\|", text) and "61.44 ± 2.04" in text
    assert rows.index("Pixel similarity (max)") < rows.index("D-TRAK") < rows.index(design.OURS) < rows.index("Ceiling")


def test_one_run_alone_makes_table_1_and_none_makes_no_table(at, tmp_path, monkeypatch):
    monkeypatch.setenv("CDLIB_FIGURES", str(tmp_path))
    assert overview.table_1() is None
    (tmp_path / "faces").mkdir()
    (tmp_path / "faces" / "table_1.csv").write_bytes((at / "faces" / "table_1.csv").read_bytes())
    assert set(overview.table_1().frame["run"]) == {"faces"}


def test_the_papers_numbers_are_kept_as_they_were_committed(at):
    kept = (at / "paper" / "reported.csv").read_bytes()
    assert kept == (paths.root() / "figures" / "paper" / "reported.csv").read_bytes()


def test_under_a_laptop_table_stand_the_papers_numbers_as_context_and_never_in_its_csv(at):
    text = (at / "digits" / "table_3.md").read_text()
    assert "The paper reports for CIFAR-20, on another data set and model" in text and "51.24 ± 3.39" in text
    assert not [c for c in pd.read_csv(at / "digits" / "table_3.csv") if "reported" in c or "difference" in c]
    beside = pd.read_csv(at / "digits" / "table_3_reported.csv", dtype={"table": str})
    pd.testing.assert_frame_equal(beside, reported.of("table_3", "cifar20"))


@pytest.mark.parametrize("name", ["cifar20", "artbench_released"])
def test_in_a_run_of_the_papers_setting_the_tables_have_reported_and_difference(scratch, name):
    run = finish(name)
    made = paper.make(run)
    compared = {stem for stem, thing in made.items() if isinstance(thing, Table) and "difference" in thing.frame}
    assert compared == {stem for stem in made if stem.startswith("table")}
    ours = made["table_1"].frame.set_index("method").loc[design.OURS]
    assert ours["difference"].to_numpy() == pytest.approx((ours["lds_percent"] - ours["reported"]).to_numpy())
    assert made["figure_3"].frame["reported"].notna().any()


def test_what_has_another_number_now_is_removed_and_the_rest_stays(at, tmp_path, monkeypatch):
    monkeypatch.setenv("CDLIB_FIGURES", str(tmp_path))
    run = store.Run("08_figures", params.load(paths.params("faces")))
    run.figures.mkdir()
    for old in ("table_3.csv", "figure_6.png", "notes.md", "table_of_mine.csv"):
        (run.figures / old).write_text("old")
    paper.write(run, {"table_1": paper.make(run)["table_1"]})
    assert {"notes.md", "table_of_mine.csv", "table_1.csv"} <= set(os.listdir(run.figures))
    assert not {"table_3.csv", "figure_6.png"} & set(os.listdir(run.figures))


def test_a_run_without_other_unlearning_has_no_table_9_and_no_figure_11(at):
    made = {p.stem for p in (at / "faces").iterdir()}
    assert not {"table_9", "figure_11"} & made


def test_figures_9_and_10_show_different_images(at):
    places = [set(pd.read_csv(at / "painters" / f"figure_{k}.csv")["place"]) for k in (9, 10)]
    assert places == [{0, 1}, {2, 3}]


def test_figure_6_shows_every_fraction_by_every_compared_method(at):
    frame = pd.read_csv(at / "digits" / "figure_6.csv")
    assert set(frame["change"]) == {"none", "remove_top_10", "remove_top_40"}
    assert frame.groupby("change")["method"].nunique().to_dict() == {"none": 1, "remove_top_10": 4, "remove_top_40": 4}


@pytest.mark.parametrize("family", paper.MAKERS)
def test_each_kind_of_run_has_its_own_numbers_and_all_have_the_common_ones(family):
    others = {name for kind, makers in paper.MAKERS.items() if kind != family for name in makers}
    assert set(paper.ALL) | set(paper.OWN) <= set(paper.MAKERS[family])
    assert set(paper.MAKERS[family]) - others


def test_every_table_and_figure_of_the_paper_has_a_maker():
    made = {name for makers in paper.MAKERS.values() for name in makers}
    assert {f"table_{k}" for k in range(1, 10)} | {f"figure_{k}" for k in range(1, 13)} <= made


@pytest.mark.parametrize("name", RUNS)
def test_what_has_nothing_to_show_yet_is_left_out_and_named(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CDLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("CDLIB_FIGURES", str(tmp_path / "figures"))
    run = finish(name)
    before = store.Run("07_counterfactual", run.params)
    whole = set(paper.make(run)) | set(run.left_out)
    assert set(run.left_out) <= {"figure_11"}  # of which the made-up faces have no images
    for table in ("lds", "lds_by_coalitions", "runtime", "fidelity", "counterfactual"):
        before.write(table, run.table(table).head(0))
    for table in ("generated", "pairs"):
        before.write(table, run.table(table)[lambda rows: rows.title == examples.FULL])
    found = run.table("attributions")
    before.write("attributions", found[found.method != design.OURS])
    before.write_arrays("examples", {n: a for n, a in run.arrays("examples").items() if not n.startswith("unlearning")})
    before.done()
    made = set(paper.make(run))
    assert made | set(run.left_out) == whole and not made & set(run.left_out)
    assert made <= {"table_9"} and {"table_1", "table_2", "figure_1", "figure_2", "figure_3", "figure_4", "lds"} <= set(
        run.left_out
    )


@pytest.mark.parametrize("name", RUNS)
def test_with_some_models_missing_the_figures_show_the_others(name, tmp_path, monkeypatch):
    monkeypatch.setenv("CDLIB_RUNS", str(tmp_path / "runs"))
    monkeypatch.setenv("CDLIB_FIGURES", str(tmp_path / "figures"))
    run = finish(name)
    before = store.Run("07_counterfactual", run.params)
    whole = set(paper.make(run))
    gone = run.table("generated").title[[1, 5, 6]]
    for table in ("generated", "pairs"):
        before.write(table, run.table(table)[lambda rows: ~rows.title.isin(gone)])
    before.write("counterfactual", run.table("counterfactual").iloc[2:])
    before.write("framework", run.table("framework").iloc[:3])
    lds = run.table("lds")
    before.write("lds", lds[lds.alpha != 0.25].assign(low=np.nan, high=np.nan, ceiling_percent=np.nan, n_coalitions=3))
    before.done()
    assert set(paper.make(run)) == whole
