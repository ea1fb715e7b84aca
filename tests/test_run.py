"""The whole chain, as its user runs it: the command line, eight notebooks, tables and figures; killed, and run again."""

import json
import os
import random
import shutil
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from cdlib.base import params, paths, registry
from cdlib.credit import methods

ROOT = Path(__file__).resolve().parents[1]
# Seconds differ from run to run; everything else must not.
MEASURED_SECONDS = ("seconds", "budget", "ratio")
PROPERTIES = ["inception_score", "cluster_entropy"]  # of a smoke run, measured from the same images
NOTEBOOKS = [p.stem for p in paths.notebooks()]


def cdlib(scratch, *words, **options):
    """Run the command line in a process of its own, with its runs and figures in a scratch folder."""
    env = os.environ | {"CDLIB_RUNS": str(scratch / "runs"), "CDLIB_FIGURES": str(scratch / "figures"), "CDLIB_ROOT": str(ROOT)}
    command = [sys.executable, "-m", "cdlib", *map(str, words)]
    return subprocess.run(command, env=env, cwd=scratch, capture_output=True, text=True, **options)


@pytest.fixture(scope="session")
def smoke(tmp_path_factory):
    """A finished smoke run."""
    scratch = tmp_path_factory.mktemp("smoke")
    done = cdlib(scratch, "run", ROOT / "params" / "smoke.yaml")
    assert done.returncode == 0, done.stdout + done.stderr
    return scratch


def results(scratch, name="smoke"):
    """{file: bytes} of all csv files of a run and its figures, without what was timed."""
    found = {}
    for path in sorted([*(scratch / "runs" / name).glob("*.csv"), *(scratch / "figures" / name).glob("*.csv")]):
        frame = pd.read_csv(path, dtype=str, keep_default_na=False)
        timed = [c for c in frame if any(word in c for word in MEASURED_SECONDS)]
        found[path.name] = frame.drop(columns=timed).to_csv(index=False)
    return found


def test_a_run_leaves_every_table_and_figure(smoke):
    figures = {p.name for p in (smoke / "figures" / "smoke").iterdir()}
    tables = {f"table_{k}.{kind}" for k in (1, 2, 3, 4, 9) for kind in ("csv", "md", "tex")}
    assert tables | {f"figure_{k}.{kind}" for k in (1, 2, 3, 4, 5, 6, 11, 12) for kind in ("pdf", "png", "csv")} <= figures
    done = {p.stem for p in (smoke / "runs" / "smoke" / "done").iterdir()}
    assert done == set(NOTEBOOKS)


def test_shapley_values_sum_to_the_difference_of_the_ends(smoke):
    run = smoke / "runs" / "smoke"
    measured = pd.read_csv(run / "measured.csv", dtype={"members": str})
    retrained = measured[measured.procedure == "retrain"]
    credits = pd.read_csv(run / "attributions.csv", dtype={"contributor": str})
    for property in PROPERTIES:
        full = retrained[~retrained.members.str.contains("0")][property]
        empty = retrained[~retrained.members.str.contains("1")][property]
        of = credits[credits.method.str.contains("Shapley") & (credits.property == property)]
        shapley = of.groupby("method").value.sum()
        assert len(shapley) == 4
        assert shapley.to_numpy() == pytest.approx(full.mean() - empty.mean(), abs=1e-9)


def test_every_method_is_judged_at_every_alpha_for_every_property(smoke):
    run = smoke / "runs" / "smoke"
    credits, scores = pd.read_csv(run / "attributions.csv"), pd.read_csv(run / "lds.csv")
    shapley = {"Retraining Shapley", "FT Shapley", "Sparsified-FT Shapley (paper's estimator)", "Sparsified-FT Shapley (Ours)"}
    for property, own in registry.properties(params.load(paths.params("smoke"))).items():
        credited = set(credits[credits.property == property].method)
        assert credited == shapley | set(methods.names(own))
        assert all(set(part.method) == credited for _, part in scores[scores.property == property].groupby("alpha"))
    assert set(scores.property) == set(PROPERTIES)
    assert set(scores.alpha) == {0.25, 0.5, 0.75}
    assert scores.n_coalitions.eq(4).all()


def test_measured_holds_each_coalition_once(smoke):
    measured = pd.read_csv(smoke / "runs" / "smoke" / "measured.csv", dtype={"members": str})
    assert measured.key.is_unique
    assert not measured.duplicated(["procedure", "seed", "members"]).any()


def test_what_is_done_is_not_run_again(smoke):
    before = (smoke / "runs" / "smoke" / "done" / "08_figures.json").stat().st_mtime_ns
    again = cdlib(smoke, "run", ROOT / "params" / "smoke.yaml")
    assert again.returncode == 0
    assert [line for line in again.stdout.splitlines() if line.endswith(": done")] == [f"{n}: done" for n in NOTEBOOKS]
    assert (smoke / "runs" / "smoke" / "done" / "08_figures.json").stat().st_mtime_ns == before


def test_status_finds_nothing_missing(smoke):
    told = cdlib(smoke, "status", ROOT / "params" / "smoke.yaml").stdout
    table = (line.split() for line in told.splitlines() if line.endswith("%"))
    rows = [row for row in table if {"retrain", "finetune"} & set(row)]
    assert len(rows) >= 10
    for row in rows:
        wanted, measured, failed, missing, share = row[-6:-1]
        assert (measured, failed, missing, share) == (wanted, "0", "0", "100")


def test_check_tells_contributors_images_and_sizes(tmp_path):
    told = cdlib(tmp_path, "check", ROOT / "params" / "digits.yaml").stdout
    assert "contributors      20" in told
    assert "images            1,120" in told
    assert "118,289 -> 65,257 pruned" in told
    assert not (tmp_path / "runs").exists()


def test_report_is_one_page_with_every_table_and_figure(smoke):
    done = cdlib(smoke, "report", ROOT / "params" / "smoke.yaml")
    assert done.returncode == 0, done.stderr
    page = (smoke / "runs" / "smoke" / "report" / "index.html").read_text()
    assert all(f"{n}.html" in page for n in NOTEBOOKS)
    assert page.count("data:image/webp") >= 3 and "Table 4" in page


def test_plain_papermill_runs_a_notebook_beside_a_startup_file_and_refuses_an_unknown_name(smoke, tmp_path):
    startup = tmp_path / "ipython" / "profile_default" / "startup" / "00-mine.py"
    startup.parent.mkdir(parents=True)
    startup.write_text("DEBUG_LEVEL = 3\n")
    env = os.environ | {"CDLIB_RUNS": str(smoke / "runs"), "CDLIB_FIGURES": str(smoke / "figures")}
    env["IPYTHONDIR"] = str(tmp_path / "ipython")
    command = [sys.executable, "-m", "papermill", str(paths.notebook("08_figures")), str(tmp_path / "out.ipynb")]
    command += ["-f", str(ROOT / "params" / "smoke.yaml"), "--no-progress-bar"]
    assert subprocess.run(command, env=env, cwd=ROOT, capture_output=True).returncode == 0
    refused = subprocess.run([*command, "-p", "n_colitions", "5"], env=env, cwd=ROOT, capture_output=True, text=True)
    assert refused.returncode != 0
    assert "n_colitions: 5: no notebook reads this name; did you mean n_coalitions?" in refused.stderr


def test_a_truncated_record_is_named_and_measured_again(smoke, tmp_path):
    measured = pd.read_csv(smoke / "runs" / "smoke" / "measured.csv")
    key = measured[measured.procedure == "sparse_finetune"].key.iloc[0]
    path = smoke / "runs" / "smoke" / "measured" / key[:2] / f"{key}.json"
    whole, before = json.loads(path.read_bytes()), results(smoke)
    path.write_bytes(path.read_bytes()[:300])
    done = cdlib(smoke, "run", ROOT / "params" / "smoke.yaml")
    assert done.returncode == 0, done.stderr
    assert f"04_shapley: 1 measured coalitions are gone or damaged, the first: {path}" in done.stdout
    assert json.loads(path.read_bytes())["properties"] == whole["properties"]
    assert results(smoke) == before


def files(folder, apart=()):
    """{path: bytes} of all files in a folder, but for those in folders of these names."""
    paths = [p for p in sorted(folder.rglob("*")) if p.is_file() and not set(p.relative_to(folder).parts) & set(apart)]
    return {str(p.relative_to(folder)): p.read_bytes() for p in paths}


def so_far(scratch):
    """What `cdlib run --so-far` says, when it ends well and leaves the run's own files as they are."""
    before = files(scratch)
    done = cdlib(scratch, "run", ROOT / "params" / "smoke.yaml", "--so-far")
    assert done.returncode == 0, done.stdout + done.stderr
    assert files(scratch, apart=["so_far"]) == before
    return done.stdout


def test_so_far_a_finished_run_has_the_same_credits_and_scores_and_nothing_is_missing(smoke, tmp_path):
    shutil.copytree(smoke, tmp_path, dirs_exist_ok=True)
    assert "\n0 coalitions are missing\n" in so_far(tmp_path)
    run = tmp_path / "runs" / "smoke"
    for name in ("attributions.csv", "lds.csv", "lds_by_coalitions.csv", "counterfactual.csv", "unlearning.csv"):
        assert (run / "so_far" / name).read_bytes() == (run / name).read_bytes()
    assert cdlib(tmp_path, "report", ROOT / "params" / "smoke.yaml", "--so-far").returncode == 0
    page = (run / "so_far" / "report" / "index.html").read_text()
    assert "<h1>Run smoke, so far</h1>" in page and 'id="table_1"' in page


def test_so_far_a_run_at_work_tells_what_is_missing_and_has_the_rest(smoke, tmp_path):
    shutil.copytree(smoke, tmp_path, dirs_exist_ok=True)
    run = tmp_path / "runs" / "smoke"
    ends = json.loads((run / "done" / "02_train.json").read_bytes())["keys"]
    records = sorted(p for p in (run / "measured").rglob("*.json") if p.stem not in ends)
    for path in random.Random(1).sample(records, len(records) // 2):
        for file in path.parent.glob(f"{path.stem}.*"):
            file.unlink()
    shutil.rmtree(run / "gradients")
    for notebook in NOTEBOOKS[3:]:
        (run / "done" / f"{notebook}.json").unlink()
    there = len(list((run / "measured").rglob("*.json")))
    told = so_far(tmp_path)
    assert len(list((run / "measured").rglob("*.json"))) == there
    states = [json.loads((run / "so_far" / "done" / f"{notebook}.json").read_bytes()) for notebook in NOTEBOOKS[3:]]
    missing = {(r["purpose"], r["procedure"]): r for s in states for r in s["missing"]}
    assert f"\n{sum(r['missing'] for r in missing.values())} coalitions are missing\n" in told
    assert missing["leave one out", "retrain"]["wanted"] == 20
    assert 0 < missing["Sparsified-FT Shapley (Ours)", "sparse_finetune"]["missing"] < 40
    assert "left out: TRAK: gradients of 1120 of 1120 training images are not computed" in told
    credits = pd.read_csv(run / "so_far" / "attributions.csv").query("property == @PROPERTIES[0]").groupby("method")
    assert not {"TRAK", "D-TRAK"} & set(credits.groups)
    unknown = credits.value.apply(lambda values: values.isna().sum())
    assert unknown["Leave-one-out (LOO)"] == missing["leave one out", "retrain"]["missing"]
    assert unknown.drop("Leave-one-out (LOO)").eq(0).all()
    shown = (run / "so_far" / "notebooks" / "04_shapley.ipynb").read_text()
    assert "**Missing: " in shown and "Run **smoke, so far**" in shown


def test_so_far_nothing_is_said_before_there_are_models(smoke, tmp_path):
    refused = cdlib(tmp_path, "run", ROOT / "params" / "smoke.yaml", "--so-far")
    assert refused.returncode == 2 and len(refused.stderr.splitlines()) == 1
    assert "01_contributors has not finished" in refused.stderr and not (tmp_path / "runs").exists()
    other = cdlib(smoke, "run", ROOT / "params" / "smoke.yaml", "--so-far", "--set", "train_steps=13")
    assert other.returncode == 2 and "02_train was run with train_steps: 12, not 13" in other.stderr
    part = cdlib(smoke, "run", ROOT / "params" / "smoke.yaml", "--so-far", "--only", "04")
    assert part.returncode == 2 and "leave out --only and --from" in part.stderr
    assert not (smoke / "runs" / "smoke" / "so_far").exists()


@pytest.mark.slow
def test_one_worker_and_serial_end_in_the_same_files_as_two(smoke, tmp_path):
    for change in ("workers=1", "executor=serial"):
        scratch = tmp_path / change
        scratch.mkdir()
        done = cdlib(scratch, "run", ROOT / "params" / "smoke.yaml", "--set", change)
        assert done.returncode == 0, done.stderr
        assert results(scratch) == results(smoke)


def test_no_notebook_is_done_before_its_inputs(smoke):
    states = [json.loads(p.read_bytes()) for p in sorted((smoke / "runs" / "smoke" / "done").iterdir())]
    assert [s["notebook"] for s in states] == NOTEBOOKS
    assert len({s["inputs"] for s in states}) == len(states)
