"""Records of the released code: who was in, of which origin, and the credits they give."""

import json
import math

import numpy as np
import pytest
import yaml

from cdlib import __main__, attributions, coalitions, done, imported, names, released, stages, store, style
from cdlib.errors import Refused
from cdlib.measured import bits

N = 20
LABELS = [f"{d}" for d in range(5)] + [f"{d}{c}" for d in range(5, 10) for c in "abc"]


@pytest.fixture
def run(scratch):
    """A run of 20 contributors with 5 images each, which has nothing yet."""
    from cdlib import params

    return store.Run("imported", params.check({"name": "theirs", "images_per_contributor": 5}, "theirs"))


@pytest.fixture
def images(run):
    """The indices of each contributor's images among all images: int [5], by the contributor's index."""
    table = stages.dataset(run.params).contributors.sort_values("image").reset_index(drop=True)
    return [table.index[table.contributor == label].to_numpy() for label in LABELS]


def cifar(images, draw, value, method="gd", **more):
    """A line of unlearn.py for CIFAR: its arguments, its scores, and the indices of images."""
    members = coalitions.kernel(N, 1, draw)[0] if draw is not None else np.ones(N, bool)
    record = {"load": "/a/models/full", "dataset": "cifar100", "excluded_class": None, "method": method, "opt_seed": 42}
    record |= {"removal_dist": None if draw is None else "shapley", "removal_seed": draw or 0, "datamodel_alpha": 0.5}
    record |= {"gd_steps": 1000, "iu_ratio": 0.5, "n_samples": 10240, "pruning_ratio": 0.3, "use_ema": False, "db": "a.jsonl"}
    record |= {"exp_name": "gd_shapley", "model_behavior": "global", "device": "cuda:0", "by_class": True}
    record |= {"fid_value": "12.3456", "precision": 0.5, "recall": 0.25, "is": value, "trained_steps": 40}
    record |= {"total_steps_time": 60.5, "total_sampling_time": 30.25} | indices(images, members)
    return record | more


def indices(images, members):
    """Who remained and who was removed, as indices of images in no order."""
    sides = [[int(i) for k in np.flatnonzero(side)[::-1] for i in images[k]] for side in (members, ~np.asarray(members))]
    return dict(zip(("remaining_idx", "removed_idx"), sides, strict=True))


def artbench(draw, value, method="sparse_gd", dist="shapley", members=None, seed=42, **more):
    """A line of compute_model_behaviors.py: who was in stands in its name, and in indices of artists."""
    names = f"{dist}_seed_{draw}" if draw is not None else ""
    name = "/".join(filter(None, ["artbench_post_impressionism", method, f"artist_{dist}", f"seed{seed}", names]))
    record = {"reference_lora_dir": "/r", "lora_dir": f"/m/{draw}", "lora_steps": 200, "dataset": "artbench", "num_images": 50}
    record |= {"resolution": 256, "seed": 42, "cls": "post_impressionism", "exp_name": name, "no_duplicate": True}
    record |= {"generated_image_0_ssim": 0.5, "aesthetic_score_0.5": value - 1, "aesthetic_score_0.9": value}
    record |= {"aesthetic_score_time": 100.0, "remaining_idx": None, "removal_idx": None}
    if members is not None:
        record |= {"remaining_idx": np.flatnonzero(members).tolist(), "removal_idx": np.flatnonzero(~members).tolist()}
    return record | more


def surrogate(draw, value, dist="shapley", **more):
    """A line of SurrogateSHAP's compute_model_behavior.py for ArtBench: it keeps no indices."""
    record = {"lora_dir": "/m/full", "lora_steps": None, "dataset": "artbench", "removal_dist": dist, "removal_seed": draw}
    record |= {"datamodel_alpha": 0.5, "num_images": 150, "seed": 42, "exp_name": "cfg", "guidance_scale": 7.5}
    return record | {"aesthetic_score_0.9": value, "aesthetic_score_time": 9.0} | more


def jsonl(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@pytest.fixture
def command(tmp_path, capsys):
    """`cdlib import` on a run's parameters: (exit status, what it says, its error)."""

    def command(run, *arguments):
        file = tmp_path / "theirs.yaml"
        file.write_text(yaml.safe_dump(run.params))
        capsys.readouterr()
        code = __main__.main(["import", str(file), *map(str, arguments)])
        told = capsys.readouterr()
        return code, told.out, told.err

    return command


def painted(run, **changes):
    """The same contributors, and the property of ArtBench."""
    return store.Run("imported", run.params | {"property": "aesthetic_score", "feature": "colourfulness"} | changes)


def read(run, path, records, **options):
    return released.read(run, [jsonl(path, records)], **options)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "gd.jsonl"


def test_members_are_the_contributors_whose_images_remained(run, images, path):
    found, _ = read(run, path, [cifar(images, draw, 2.0) for draw in range(30)])
    np.testing.assert_array_equal([r["spec"]["members"] for r in found], [bits(m) for m in coalitions.kernel(N, 30, 0)])


def test_members_are_the_artists_that_remained(run, path):
    members = coalitions.datamodel(N, 4, 0.25, 0)
    records = [artbench(j, 5.0, "retrain", "datamodel_alpha=0.25", m) for j, m in enumerate(members)]
    found, _ = read(painted(run), path, records)
    assert [r["spec"]["members"] for r in found] == [bits(m) for m in members]
    assert [r["spec"]["drawn"] for r in found] == [{"from": "datamodel", "seed": j, "alpha": 0.25} for j in range(4)]


def test_members_are_drawn_again_where_no_indices_were_kept(run, path):
    found, _ = read(painted(run), path, [surrogate(draw, 5.0) for draw in range(5)], procedure="conditional")
    assert [r["spec"]["members"] for r in found] == [bits(m) for m in coalitions.kernel(N, 5, 0)]
    # the first two draws of 20, as the released code has them
    assert [np.flatnonzero([c == "1" for c in r["spec"]["members"]]).tolist() for r in found[:2]] == [
        [1, 4, 6, 8, 10, 11, 12, 13, 14, 15, 16, 19],
        [3, 10, 13, 15, 16, 18, 19],
    ]
    [one] = read(painted(run), path, [surrogate(7, 5.0, "loo")], procedure="retrain")[0]
    assert one["spec"]["members"] == bits(~np.eye(N, dtype=bool)[7])


def test_indices_that_are_not_what_the_seed_draws_are_refused_by_line(run, images, path):
    records = [cifar(images, draw, 2.0) for draw in range(3)]
    records[2] |= indices(images, coalitions.kernel(N, 1, 9)[0])
    with pytest.raises(Refused, match="line 3: who remained .* are others than shapley drew with seed 2"):
        read(run, path, records)


def test_a_contributor_with_images_in_and_images_out_is_refused_by_line_and_name(run, images, path):
    record = cifar(images, 0, 2.0)
    record["remaining_idx"].append(int(images[0][0]))
    record["removed_idx"].remove(int(images[0][0]))
    with pytest.raises(Refused, match=f"^{path}: line 1: contributor 0 has images in and images out; nothing was imported$"):
        read(run, path, [record])


@pytest.mark.parametrize(
    "change",
    [
        {"remaining_idx": [0, 1], "removed_idx": [2]},
        {"remaining_idx": [0, 0], "removed_idx": []},
        {"remaining_idx": "all", "removed_idx": []},
        {"remaining_idx": [0.5], "removed_idx": [1]},
    ],
)
def test_indices_of_another_dataset_are_refused(run, images, path, change):
    with pytest.raises(
        Refused, match="line 1: remaining_idx and removed_idx must be the indices of all 20 contributors or of all"
    ):
        read(run, path, [cifar(images, 0, 2.0) | change])


@pytest.mark.parametrize("broken", ['{"dataset": "cifar100", "remaining_', "[1, 2]", "nothing"])
def test_a_broken_line_is_named(run, images, path, broken):
    jsonl(path, [cifar(images, 0, 2.0)])
    path.write_text(path.read_text() + "\n" + broken + "\n")
    with pytest.raises(Refused, match=f"^{path}: line 3: no whole JSON record"):
        released.read(run, [path])


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"is": "nan"}, "has no number is or inception_score, which is inception_score"),
        ({"is": float("inf")}, "has no number"),
        ({"is": None}, "has no number"),
        ({"removed_idx": None, "removal_dist": "uniform"}, "tells neither who remained and who did not, nor a draw"),
        ({"removed_idx": None, "removal_dist": "datamodel", "datamodel_alpha": 7}, "datamodel_alpha 7: alpha=7.0 with 20"),
        ({"method": None}, "does not tell how its model was made: say --procedure"),
    ],
)
def test_a_record_that_cannot_be_a_coalition_is_refused_by_line(run, images, path, change, why):
    with pytest.raises(Refused, match=f"line 2: {why}"):
        read(run, path, [cifar(images, 0, 2.0), cifar(images, 1, 2.0) | change])


@pytest.mark.parametrize(
    ("record", "procedure"),
    [
        (dict(method="retrain"), "retrain"),
        (dict(method="gd"), "sparse_finetune"),
        (dict(method="gd_u"), "finetune"),
        (dict(method="ga"), "gradient_ascent"),
        (dict(method="iu"), "influence_unlearning"),
        (dict(method="prune_fine_tune"), "prune_fine_tune"),
    ],
)
def test_methods_have_our_names(run, images, path, record, procedure):
    [one] = read(run, path, [cifar(images, 0, 2.0, **record)])[0]
    assert one["spec"]["procedure"] == procedure
    assert one["spec"]["origin"] == "suinleelab/Group-Attribution-for-Diffusion-Models"
    assert (one["train_seconds"], one["sample_seconds"], one["spec"]["seed"]) == (60.5, 30.25, 42)


def test_of_text_to_image_gd_is_plain_fine_tuning(run, path):
    found, _ = read(painted(run), path, [artbench(0, 5.0, method, seed=43) for method in ("sparse_gd", "gd", "retrain")])
    assert [r["spec"]["procedure"] for r in found] == ["sparse_finetune", "finetune", "retrain"]
    assert {r["spec"]["seed"] for r in found} == {43}


def test_an_entropy_in_bits_becomes_one_in_nats(run, images, path):
    here = store.Run("imported", run.params | {"property": "cluster_entropy"})
    [one] = read(here, path, [cifar(images, 0, 2.0) | {"entropy": 3.0}])[0]
    assert one["properties"] == {"cluster_entropy": pytest.approx(3 * math.log(2))}


def test_of_a_distance_less_is_better_so_credits_are_how_far_it_falls(run, images, path):
    here = store.Run("imported", run.params | {"property": "fid", "feature": "pooled_pixels"})
    members = coalitions.kernel(N, 80, 0)
    records = [cifar(images, j, 2.0, fid_value=f"{50 - v:.17g}") for j, v in enumerate(game(members))]
    records += [cifar(images, None, 2.0, "retrain", fid_value="40.0")]
    records += [cifar(images, None, 2.0, "retrain", fid_value="49.0", trained_steps=0)]
    rows = [imported.row(r) for r in read(here, path, records)[0]]
    credits, _ = imported.credits(here, imported.table(here, rows))
    expected = attributions.of_draws(members, game(members), [1.0], [10.0])
    np.testing.assert_allclose(credits["Sparsified-FT Shapley (imported)"].value, expected.value, rtol=1e-9)


def test_a_property_that_no_record_has_is_refused(run, path):
    with pytest.raises(Refused, match="property: kid: no record of the released code has it"):
        read(store.Run("imported", run.params | {"property": "kid"}), path, [])


def test_the_property_is_the_runs_quantile(run, path):
    [one] = read(painted(run, quantile=0.5), path, [artbench(0, 5.0)])[0]
    assert one["properties"] == {"aesthetic_score": 4.0}


def test_of_repeated_records_the_first_counts_and_equal_draws_of_other_seeds_all_do(run, images, path):
    # of the first 500 draws of 20, many are equal
    records = [cifar(images, draw, 1 + draw / 100) for draw in range(100)]
    found, n_left_out = read(run, path, [*records, cifar(images, 3, 9.0), *records[:5]])
    assert ([r["properties"]["inception_score"] for r in found], n_left_out) == ([r["is"] for r in records], 6)
    assert len({r["spec"]["members"] for r in found}) < 100


def test_another_setting_seed_origin_or_draw_has_another_key(run, images, path):
    first = cifar(images, 0, 2.0)
    others = [{"gd_steps": 500}, {"opt_seed": 43}, {"n_samples": 9}, {"use_ema": True}, {"method": "gd_u"}]
    others += [{"guidance_w": 1.4}, {"dataset": "cifar100_f"}, {"pruning_ratio": 0.5}]
    same = [{"outdir": "/b"}, {"db": "b.jsonl"}, {"device": "cpu"}, {"total_steps_time": 1.0}, {"fid_value": "9"}]
    found, n_left_out = read(run, path, [first, *(first | change for change in others + same)])
    assert (len(found), n_left_out) == (1 + len(others), len(same))


def test_only_records_that_say_so_are_read(run, images, path):
    records = [cifar(images, draw, 2.0, gd_steps=steps) for steps in (500, 1000) for draw in range(3)]
    found, _ = read(run, path, records, where={"gd_steps": 500, "method": "gd"})
    assert [r["spec"]["settings"]["gd_steps"] for r in found] == [500] * 3


def test_a_csv_of_surrogate_shap_is_read(run, tmp_path):
    file = tmp_path / "cfg.csv"
    head = (
        "dataset,removal_dist,removal_idx,datamodel_alpha,method,opt_seed,fid,inception_score,time,n_samples,guidance_w,ddim,lr"
    )
    rows = [
        "cifar20,shapley,0,0.5,cfg,42,20.5,3.5,12.0,10240,1.4,True,",
        "cifar20,all,0,0.5,retrain,42,20.5,4.5,12.0,10240,1.4,True,",
    ]
    file.write_text("\n".join([head, *rows]) + "\n")
    found, _ = released.read(run, [file])
    assert [r["spec"]["origin"] for r in found] == ["suinleelab/SurrogateSHAP"] * 2
    assert [r["spec"]["procedure"] for r in found] == ["conditional", "retrain"]
    assert [r["spec"]["members"] for r in found] == [bits(coalitions.kernel(N, 1, 0)[0]), "1" * N]
    assert found[0]["spec"]["settings"] == {"method": "cfg", "n_samples": 10240, "ddim": True, "guidance_w": 1.4}
    file.write_text("\n".join([head, rows[0], rows[1][:20]]) + "\n")
    with pytest.raises(Refused, match="line 3"):
        released.read(run, [file])


def game(members):
    """A property of coalitions that is not additive, float [M]."""
    worth = np.linspace(0, 1, N)
    return 1 + members @ worth + 0.1 * np.sin(members.sum(1))


@pytest.fixture
def theirs(images, tmp_path):
    """What the released code leaves for one experiment: draws, full models, and an untrained one."""
    values = game(coalitions.kernel(N, 120, 0))
    fits = jsonl(tmp_path / "gd.jsonl", [cifar(images, draw, float(v)) for draw, v in enumerate(values)])
    full = jsonl(tmp_path / "full.jsonl", [cifar(images, None, v, "retrain", opt_seed=s) for s, v in ((42, 11.0), (43, 11.5))])
    null = jsonl(tmp_path / "null.jsonl", [cifar(images, None, 1.0, "retrain", trained_steps=0)])
    return fits, full, null


def test_credits_from_imported_rows_are_the_papers_estimate_on_the_same_arrays(run, theirs, command):
    code, told, error = command(run, *theirs)
    assert code == 0, error
    assert "123 imported" in told and "20 contributors credited" in told
    members = coalitions.kernel(N, 120, 0)
    expected = attributions.of_draws(members, game(members), [1.0], [11.0, 11.5])
    found = run.table("attributions")
    assert found.method.unique().tolist() == ["Sparsified-FT Shapley (imported)"]
    assert found.contributor.tolist() == LABELS
    for column in ("value", "stderr", "low", "high"):
        np.testing.assert_allclose(found[column], getattr(expected, column), rtol=1e-12)
    assert found.value.sum() == pytest.approx(11.25 - 1.0)
    table = run.table("imported")
    assert len(table) == 123 and table.members[table.drawn == "shapley"].tolist() == [bits(m) for m in members]
    assert not run.path("models").exists()


def test_files_may_come_one_after_another_and_again(run, theirs, command):
    told = [command(run, path)[1] for path in theirs]
    assert "no credits yet: v(nobody) of sparse_finetune, or of retrain, was not imported" in told[0]
    assert "no credits yet: v(nobody)" in told[1] and "credited" in told[2]
    one_by_one = {name: run.path(f"{name}.csv").read_bytes() for name in ("imported", "attributions")}
    assert "0 imported, 123 there already" in command(run, *theirs)[1]
    assert {name: run.path(f"{name}.csv").read_bytes() for name in one_by_one} == one_by_one


def test_records_of_nobody_may_be_named(run, images, theirs, command):
    fits, full, null = theirs
    jsonl(null, [cifar(images, None, 1.0, "retrain", trained_steps=None)])
    assert "credited" in command(run, fits, full, "--nobody", null)[1]
    assert run.table("imported").members.tolist().count("0" * N) == 1


def test_too_few_draws_are_imported_and_give_no_credit_yet(run, images, theirs, command):
    fits, full, null = theirs
    jsonl(fits, [cifar(images, draw, 2.0) for draw in range(10)])
    code, told, _ = command(run, fits, full, null)
    assert code == 0 and "no credits yet: 10 coalitions cannot tell 20 contributors apart" in told
    assert not run.path("attributions.csv").exists() and len(run.table("imported")) == 13


def test_two_experiments_of_a_procedure_are_refused_by_what_differs_before_anything_is_written(run, images, theirs, command):
    fits, full, null = theirs
    with fits.open("a") as file:
        file.write(json.dumps(cifar(images, 0, 2.0, gd_steps=500)) + "\n")
    code, _, error = command(run, *theirs)
    assert code == 2 and "records with gd_steps 1000 and 500" in error and "--where gd_steps=VALUE" in error
    assert not run.path("measured").exists()
    assert command(run, *theirs, "--where", "method=gd", "--where", "gd_steps=1000")[0] == 0


def test_a_broken_line_leaves_nothing_behind(run, theirs, command):
    with theirs[0].open("a") as file:
        file.write("{\n")
    code, _, error = command(run, *theirs)
    assert code == 2 and f"{theirs[0]}: line 121: no whole JSON record" in error
    assert not run.path("measured").exists()


def test_another_value_under_the_same_key_is_told_and_the_first_kept(run, images, theirs, command):
    command(run, *theirs)
    before = run.path("attributions.csv").read_bytes()
    code, told, _ = command(run, jsonl(theirs[0], [cifar(images, 0, 77.0)]))
    assert code == 0 and "{'inception_score': 77.0} in the file; the one at hand is kept" in told
    assert run.path("attributions.csv").read_bytes() == before


def test_imported_credits_stand_beside_those_of_the_notebooks_and_what_judges_them_is_to_be_run_again(run, theirs, command):
    ours = attributions.frame({"Retraining Shapley": np.arange(N)}, LABELS, "inception_score")
    store.Run("04_shapley", run.params).write_part("attributions", ours)
    for notebook in ("04_shapley", "06_lds", "08_figures"):
        run.path("done").mkdir(exist_ok=True)
        run.path(f"done/{notebook}.json").write_text("{}")
    command(run, *theirs)
    assert run.table("attributions").method.unique().tolist() == ["Retraining Shapley", "Sparsified-FT Shapley (imported)"]
    assert [done.state(run.folder, n) for n in ("04_shapley", "06_lds", "08_figures")] == [{}, None, None]
    again = store.Run("04_shapley", run.params).write_part("attributions", ours)
    assert len(again) == 2 * N


def test_each_imported_method_has_a_colour_and_a_place_of_its_own():
    assert set(names.IMPORTED.values()) <= set(style.COLOURS)
    colours = [style.colour(method) for method in names.IMPORTED.values()]
    assert len(set(colours)) == len(colours)


def test_imported_records_are_never_taken_for_our_own(run, theirs, command):
    command(run, *theirs)
    records = [run.measured.read(key) for key in run.table("imported").key]
    assert all("origin" in r["spec"] and "recipe" not in r["spec"] for r in records)
    assert imported.table(run).key.tolist() == run.table("imported").key.tolist()
