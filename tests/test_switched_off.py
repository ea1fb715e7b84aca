"""What a run is told to leave away is left out by name, and the rest of it runs to its end."""

import json

import numpy as np
import pandas as pd
import pytest
from test_run import NOTEBOOKS, ROOT, cdlib

from cdlib import store
from cdlib.cli import status
from cdlib.credit import attributions, methods
from cdlib.data import design
from cdlib.judge import counterfactual, lds
from cdlib.measure import utility
from cdlib.models import stages
from cdlib.show import figures
from cdlib.store.measured import bits

GRADIENTS = ["Gradient similarity (average)", "Gradient similarity (max)", "Relative IF", "Renormalized IF"]
GRADIENTS += ["TRAK", "Journey-TRAK", "D-TRAK"]
OFF = ["n_loo_seeds=0", "n_subsets=0", "n_retrain=0", "compared=[]", "n_finetune=0", "n_paper_coalitions=0", "n_unlearn=0"]
OFF += ["n_counterfactual_seeds=0", "gradient_timesteps=0", "shown_fractions=[]"]
TINY = ["owners_per_class=[1,1,2]", "images_per_contributor=20", "n_coalitions=12", "n_full_seeds=1", "n_empty_seeds=1"]


@pytest.fixture
def off(run):
    """Gives the run of four contributors as a notebook sees it, with other parameters."""
    return lambda notebook, **changes: store.Run(notebook, run.params | changes)


def made_up(run, wanted):
    """A frame of the wanted coalitions, with a value for each."""
    rng = np.random.default_rng(0)
    return pd.DataFrame({"members": [bits(m) for m in wanted.members], run["property"]: rng.random(len(wanted))}).astype(
        {"members": str, run["property"]: float}
    )


@pytest.mark.parametrize(
    ("n_retrain", "credited", "left_out"),
    [(0, False, {"Retraining Shapley": "none of its coalitions is asked for"}), (4, False, {}), (7, False, {}), (8, True, {})],
)
def test_few_retrainings_give_no_credit_and_no_complaint_and_none_are_named(off, n_retrain, credited, left_out):
    here = off("04_shapley", n_retrain=n_retrain, n_finetune=0, n_paper_coalitions=0, n_coalitions=40)
    wanted = design.shapley(here.params)
    assert {w.purpose: len(w) for w in wanted} == {design.OURS: 40, "Retraining Shapley": n_retrain}
    tables = {w.purpose: made_up(here, w) for w in wanted}
    ends = [made_up(here, w) for w in design.ends(here.params)]
    found = attributions.estimate(here, wanted, tables, ends)[here["property"]]
    assert list(found) == [design.OURS] + ["Retraining Shapley"] * credited
    assert here.left_out == left_out


def test_without_leave_one_out_and_gradients_the_other_baselines_credit(off):
    here = off("05_baselines", n_loo_seeds=0, gradient_timesteps=0)
    data = stages.dataset(here.params)
    here.write("contributors", data.contributors)
    everybody = utility.measure(here, design.ends(here.params)[0])
    without = utility.measure(here, design.leave_one_out(here.params))
    sparse = made_up(here, design.shapley(here.params)[0])
    found = methods.credits(methods.Evidence(here, everybody, without, sparse))[here["property"]]
    assert set(here.left_out) == {*GRADIENTS, "Leave-one-out (LOO)"} == {*methods.names(here.params)} - {*found}
    assert here.left_out["TRAK"] == "gradient_timesteps: 0"


@pytest.mark.parametrize(
    ("changes", "left_out"), [({"n_subsets": 0}, ["LDS, alpha 0.25", "LDS, alpha 0.5"]), ({"alphas": []}, [])]
)
def test_without_test_coalitions_there_is_no_lds(off, changes, left_out):
    here = off("06_lds", **{"alphas": [0.25, 0.5], **changes})
    found = {w.purpose: utility.measure(here, w) for w in design.lds(here.params)}
    tests = here.possible({of: lambda t=table: lds.enough(*utility.by_seed(here, t)) for of, table in found.items()})
    assert tests == {} and list(here.left_out) == left_out
    scores = lds.judge_all(None, [], {here["property"]: tests})
    assert "too few test coalitions" in figures.methods_by_lds(scores).missing


@pytest.mark.parametrize("changes", [{"compared": []}, {"n_counterfactual_seeds": 0, "compared": ["D-TRAK"]}])
def test_without_compared_methods_or_their_seeds_nothing_is_retrained_without_the_top(off, changes):
    here = off("07_counterfactual", shown_fractions=[], **changes)
    columns = {"method": "D-TRAK", "property": here["property"], "contributor": list("abcd"), "value": range(4)}
    wanted = counterfactual.wanted(here, pd.DataFrame(columns))
    assert sum(map(len, wanted.values())) == len(design.together("all", wanted.values())) == 0
    after = {which: utility.values(here, utility.measure(here, w)) for which, w in wanted.items()}
    assert "no change" in figures.counterfactual(counterfactual.frame(here, after, [1.0])).missing


def test_status_counts_nothing_that_is_not_asked_for(off):
    here = off("08_figures", n_loo_seeds=0, n_subsets=0, n_retrain=0, n_finetune=0, n_paper_coalitions=0, n_unlearn=0)
    assert [w.purpose for w in status._wanted(here)] == ["everybody", "nobody", design.OURS]


def test_a_run_with_all_switched_off_ends_in_a_statement_and_names_what_it_leaves_out(tmp_path):
    options = [word for change in [*TINY, *OFF] for word in ("--set", change)]
    file = ROOT / "params" / "smoke.yaml"
    checked = cdlib(tmp_path, "check", file, *options)
    assert "models to make    1 retrain, 1 untrained, 12 sparse_finetune\n" in checked.stdout, checked.stdout + checked.stderr
    done = cdlib(tmp_path, "run", file, *options)
    assert done.returncode == 0, done.stdout + done.stderr
    states = {path.stem: json.loads(path.read_bytes()) for path in (tmp_path / "runs" / "smoke" / "done").iterdir()}
    assert set(states) == set(NOTEBOOKS)
    named = {what for state in states.values() for what in state["left_out"]}
    assert {"Retraining Shapley", "Leave-one-out (LOO)", "TRAK", "LDS, alpha 0.5"} <= named
    assert {"table_1", "table_2", "figure_2", "figure_3", "fidelity", "lds"} <= named
    made = {path.name for path in (tmp_path / "figures" / "smoke").iterdir()}
    assert {"statement.html", "statement.csv", "credit.png", "figure_1.png", "figure_4.png"} <= made
    assert not [name for name in made if name.startswith(("table_1", "table_2", "figure_3"))]
    told = cdlib(tmp_path, "status", file, *options).stdout
    assert "measured: 14 of 14 coalitions, 100 %" in told, told
