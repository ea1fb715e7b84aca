"""v(S): measured once, in the order asked for, from the right start, and kept whatever fails beside it."""

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from cdlib import __main__, store
from cdlib.base import progress
from cdlib.data import design
from cdlib.data.design import Wanted
from cdlib.measure import properties, utility, worker
from cdlib.measure.properties import inception_score
from cdlib.models import families, stages, unlearn
from cdlib.models.train import NotFinite

MEMBERS = np.array([[1, 1, 0, 0], [0, 0, 1, 1], [1, 1, 0, 0], [1, 1, 1, 1], [0, 0, 0, 0]], bool)
SEEDS = np.array([1, 0, 0, 0, 5])
PROCEDURES = ["retrain", "finetune", "sparse_finetune"]
UNLEARNING = ["gradient_ascent", "influence_unlearning"]
ALL = PROCEDURES + UNLEARNING


def wanted(procedure="retrain", members=MEMBERS, seeds=SEEDS):
    """Coalitions of the four contributors."""
    return Wanted("some coalitions", procedure, members, seeds)


def changed(run, **values):
    """The same run with other parameters."""
    return store.Run(run.notebook, run.params | values)


def keys(run, procedure):
    """Under which keys a run measures its coalitions."""
    return [run.measured.key(spec) for spec in utility.specifications(run, wanted(procedure))]


def pixels(x):
    """The images that a model was trained on, uint8 [T, C, H, W], of float [T, 1, C, H, W] in [-1, 1]."""
    return ((x[:, 0] + 1) * 127.5).round().to(torch.uint8).numpy()


def snapshot(model):
    """A copy of a model's weights."""
    return {name: tensor.detach().clone() for name, tensor in model.state().items()}


def same(a, b):
    """Whether two models' weights are equal bit for bit."""
    return a.keys() == b.keys() and all((a[name] == b[name]).all() for name in a)


@pytest.fixture
def trainings(monkeypatch):
    """What each training started from: (weights, prepared images, recipe, seed), in their order."""
    seen, train = [], worker.train

    def remember(model, images, recipe, seed, average=None, checkpoint=None):
        seen.append((snapshot(model), images, recipe, seed))
        return train(model, images, recipe, seed, average)

    monkeypatch.setattr(worker, "train", remember)
    return seen


@pytest.fixture
def unlucky(monkeypatch):
    """Makes every training with seed 1 fail while `unlucky.on`; counts them."""
    train = worker.train

    class Unlucky:
        on, n_failures = True, 0

    def fail(model, images, recipe, seed, average=None, checkpoint=None):
        if seed == 1 and Unlucky.on:
            Unlucky.n_failures += 1
            raise NotFinite("the loss of step 2 of 3 is not finite")
        return train(model, images, recipe, seed, average)

    monkeypatch.setattr(worker, "train", fail)
    return Unlucky


def test_rows_come_in_the_order_asked_for(run):
    table = utility.measure(run, wanted())
    assert table.members.tolist() == ["1100", "0011", "1100", "1111", "0000"]
    assert table.seed.tolist() == SEEDS.tolist()
    assert table["size"].tolist() == [2, 2, 2, 4, 0]
    np.testing.assert_array_equal(utility.game(run, table)[0], MEMBERS)
    assert table.columns.tolist() == [
        "key",
        "procedure",
        "seed",
        "members",
        "size",
        "inception_score",
        "train_seconds",
        "sample_seconds",
    ]
    assert table.key.tolist() == keys(run, "retrain") == run.keys


def test_a_coalition_is_measured_once_whoever_asks(run, trainings):
    first = utility.measure(run, wanted())
    assert len(trainings) == 4
    order = [3, 0, 0, 4]
    other = changed(run, name="tiny", n_coalitions=77, sample_batch=3)
    again = utility.measure(other, wanted(members=MEMBERS[order], seeds=SEEDS[order]))
    assert len(trainings) == 4
    assert again.to_dict("list") == first.iloc[order].to_dict("list")


def test_two_runs_merge_by_copying_the_records_that_one_of_them_lacks(run, trainings):
    there, alone = changed(run, name="there"), changed(run, name="alone")
    for other in (there, alone):
        shutil.copytree(run.path("models"), other.path("models"))
    expected = utility.measure(alone, wanted())
    here = utility.measure(run, wanted(members=MEMBERS[:3], seeds=SEEDS[:3]))
    utility.measure(there, wanted(members=MEMBERS[2:], seeds=SEEDS[2:]))
    foreign = utility.measure(changed(there, train_steps=2), wanted())
    before = {p: p.read_bytes() for p in run.measured.folder.rglob("*.*")}
    trainings.clear()

    def ignore_existing(source, target):
        return target if Path(target).exists() else shutil.copy2(source, target)

    shutil.copytree(there.measured.folder, run.measured.folder, dirs_exist_ok=True, copy_function=ignore_existing)
    merged = utility.measure(run, wanted())
    assert trainings == [] and len(before) == 2 * len(here.key.unique())
    seconds = ["train_seconds", "sample_seconds"]
    assert merged.drop(columns=seconds).equals(expected.drop(columns=seconds))
    assert all(path.read_bytes() == data for path, data in before.items())
    assert all(run.measured.complete(key) for key in foreign.key) and not set(foreign.key) & set(run.keys)


def test_another_seed_gives_another_model(run):
    table = utility.measure(run, wanted()).set_index(["members", "seed"]).inception_score
    assert table["1100", 0] != table["1100", 1]


@pytest.mark.parametrize("procedure", PROCEDURES)
def test_each_procedure_starts_from_its_weights_and_sees_the_coalitions_images_only(run, trainings, procedure):
    utility.measure(run, wanted(procedure, MEMBERS[:2], SEEDS[:2]))
    data = stages.dataset(run.params)
    for (weights, images, recipe, seed), members, expected_seed in zip(trainings, MEMBERS, SEEDS, strict=False):
        start = (
            families.new(stages.config(run.folder, run.params), int(expected_seed))
            if procedure == "retrain"
            else families.load(stages.path(run.folder, {"finetune": "full", "sparse_finetune": "sparse"}[procedure]))
        )
        assert same(weights, start.state())
        labels = np.array(["0", "1", "2a", "2b"])[members]
        given = data.contributors[data.contributors.contributor.isin(labels)].image
        np.testing.assert_array_equal(pixels(images), data.images[sorted(given)])
        assert (recipe.steps, seed) == (3 if procedure == "retrain" else 2, expected_seed)
    assert len(trainings) == 2


def test_nobodys_model_is_as_it_was_initialised_and_everybodys_saw_every_image(run, trainings):
    everybody, nobody = (utility.measure(run, w) for w in design.ends(run.params))
    assert (everybody.members.tolist(), nobody.members.tolist()) == (["1111"], ["0000"])
    assert [len(images) for _, images, _, _ in trainings] == [80]
    drawn = run.measured.arrays(nobody.key[0])["images"]
    model = families.new(stages.config(run.folder, run.params), 0)
    np.testing.assert_array_equal(drawn, model.draw(range(16), 2).numpy())


@pytest.mark.parametrize("procedure", UNLEARNING)
def test_unlearning_starts_from_the_sparse_model_and_is_told_whose_images_go(run, procedure, monkeypatch):
    seen = []
    monkeypatch.setitem(unlearn.METHODS, procedure, lambda model, *rest, checkpoint: seen.append((snapshot(model), *rest)))
    utility.measure(run, wanted(procedure, MEMBERS[:2], SEEDS[:2]))
    data, start = stages.dataset(run.params), stages.load(run.folder, run.params, "sparse").state()
    owner = data.contributors.set_index("image").contributor.sort_index()
    for (weights, x, removed, how, seed), gone, expected_seed in zip(seen, (["2a", "2b"], ["0", "1"]), SEEDS, strict=False):
        assert same(weights, start) and seed == expected_seed
        np.testing.assert_array_equal(pixels(x), data.images[owner.index])
        np.testing.assert_array_equal(removed, owner.isin(gone))
        assert how.as_dict().get("lr") == (run["ga_lr"] if procedure == "gradient_ascent" else None)
    assert len(seen) == 2


@pytest.mark.parametrize("procedure", UNLEARNING)
def test_unlearning_nobody_leaves_the_sparse_model_and_unlearning_everybody_does_not(run, procedure):
    everybody, nobody = utility.measure(run, wanted(procedure, MEMBERS[[3, 4]], SEEDS[[3, 4]])).key
    sparse = stages.load(run.folder, run.params, "sparse").draw(range(16), 2).numpy()
    np.testing.assert_array_equal(run.measured.arrays(everybody)["images"], sparse)
    assert (run.measured.arrays(nobody)["images"] != sparse).any()


def test_a_model_that_unlearning_destroys_is_a_failure_and_the_others_are_kept(run):
    wild = changed(run, ga_lr=1e39)
    with pytest.warns(UserWarning, match="4 coalitions could not be measured"):
        table = utility.measure(wild, wanted("gradient_ascent"))
    assert table.members.tolist() == ["1111"]
    assert "NotFinite" in run.measured.read(keys(wild, "gradient_ascent")[0])["error"]


def keeping(*names, procedure="retrain"):
    """The first two coalitions, and what is kept of all their images."""
    return Wanted("some coalitions", procedure, MEMBERS[:2], SEEDS[:2], keeps=names)


def test_a_feature_of_all_images_is_kept_on_demand_and_is_no_part_of_the_key(run, monkeypatch):
    monkeypatch.setattr(worker, "KEPT_IMAGES", 5)
    table = utility.measure(run, keeping("digits_embedding", "pooled_pixels"))
    assert table.key.tolist() == keys(run, "retrain")[:2]
    for key in table.key:
        arrays = run.measured.arrays(key)
        assert len(arrays["images"]) == 5
        for name, d in (("digits_embedding", 64), ("pooled_pixels", 64)):
            feature = properties.feature(run.folder, run.params, name)
            found, expected = arrays[properties.kept_as(name, feature.digest)], feature(arrays["images"])
            assert (found.dtype, found.shape) == (np.float16, (16, d))
            np.testing.assert_allclose(found[:5], expected, rtol=1e-3, atol=1e-4)


def test_a_coalition_that_lacks_a_feature_is_measured_again_with_the_same_values(run, trainings):
    first = utility.measure(run, wanted(members=MEMBERS[:2], seeds=SEEDS[:2]))
    before = [run.measured.arrays(key) for key in first.key]
    again = utility.measure(run, keeping("pooled_pixels"))
    seconds = ["train_seconds", "sample_seconds"]
    assert len(trainings) == 4 and again.drop(columns=seconds).equals(first.drop(columns=seconds))
    for key, arrays in zip(again.key, before, strict=True):
        now = run.measured.arrays(key)
        digest = properties.feature(run.folder, run.params, "pooled_pixels").digest
        assert now.keys() - arrays.keys() == {properties.kept_as("pooled_pixels", digest)}
        assert all((now[name] == array).all() for name, array in arrays.items())
    for asked in (keeping("pooled_pixels"), keeping()):
        utility.measure(run, asked)
    assert len(trainings) == 4


def test_a_coalition_stays_measured_when_it_fails_as_it_is_measured_again(run, unlucky):
    unlucky.on = False
    first = utility.measure(run, wanted(members=MEMBERS[:2], seeds=SEEDS[:2]))
    unlucky.on = True
    with pytest.warns(UserWarning, match="1 coalitions could not be measured"):
        assert len(utility.measure(run, keeping("pooled_pixels"))) == 1
    assert utility.measure(run, wanted(members=MEMBERS[:2], seeds=SEEDS[:2])).key.tolist() == first.key.tolist()


def test_a_feature_that_is_not_there_is_refused_before_anything_is_trained(run, trainings):
    (run.folder / "models" / "classifier.json").unlink()
    other = changed(run, property="aesthetic_score", feature="colourfulness")
    with pytest.raises(ValueError, match="classifier.safetensors: missing"):
        utility.measure(other, keeping("digits_embedding"))
    assert not trainings


def test_what_the_property_is_made_of_is_kept(run):
    table = utility.measure(run, wanted())
    for key, value in zip(table.key, table.inception_score, strict=True):
        arrays = run.measured.arrays(key)
        assert arrays["inception_score/probabilities"].shape == (16, 10)
        assert inception_score.inception_score(arrays["inception_score/probabilities"]) == value


def test_all_images_of_everybody_are_kept_and_some_of_the_others(run, monkeypatch):
    monkeypatch.setattr(worker, "KEPT_IMAGES", 5)
    table = utility.measure(run, wanted())
    assert [len(run.measured.arrays(key)["images"]) for key in table.key] == [5, 5, 5, 16, 5]


def test_a_failure_is_recorded_retried_and_named_and_the_others_are_kept(run, unlucky):
    with pytest.warns(UserWarning, match="1 coalitions could not be measured, each tried 3 times: 1100 seed 1") as warned:
        table = utility.measure(run, wanted())
    lost, *kept = keys(run, "retrain")
    assert unlucky.n_failures == utility.MAX_ATTEMPTS == 3
    assert lost in str(warned[0].message)
    assert table.key.tolist() == run.keys == kept
    record = run.measured.read(lost)
    assert (record["status"], record["attempts"]) == ("failed", 3)
    assert "Traceback" in record["error"] and "step 2 of 3 is not finite" in record["error"]


@pytest.mark.parametrize(("procedure", "stage", "lr"), [("retrain", "train", 1e-9), ("sparse_finetune", "finetune", 1.0)])
def test_a_coalitions_model_that_learned_nothing_is_recorded_as_failed(run, procedure, stage, lr):
    idle = changed(run, **{f"{stage}_steps": 40, f"{stage}_lr": lr})
    with pytest.raises(RuntimeError, match="none of 1 coalitions could be measured; the first: .*Untrained: the loss ends at"):
        utility.measure(idle, wanted(procedure, MEMBERS[:1], SEEDS[:1]))
    assert idle.measured.read(keys(idle, procedure)[0])["status"] == "failed"


def test_what_failed_is_tried_again_the_next_time(run, unlucky, trainings):
    with pytest.warns(UserWarning, match="could not be measured"):
        utility.measure(run, wanted())
    unlucky.on = False
    trainings.clear()
    assert utility.measure(run, wanted()).key.tolist() == keys(run, "retrain")
    assert [seed for *_, seed in trainings] == [1]


def test_a_property_that_is_not_finite_is_a_failure(run, monkeypatch):
    monkeypatch.setattr(inception_score, "value", lambda params, arrays: float("nan"))
    with pytest.raises(RuntimeError, match="none of 5 coalitions could be measured; the first: .*property not finite"):
        utility.measure(run, wanted())
    assert "property not finite: {'inception_score': nan}" in run.measured.read(keys(run, "retrain")[0])["error"]


def test_a_changed_record_is_named_and_measured_again(run, trainings):
    first = utility.measure(run, wanted())
    path = run.measured.path(first.key[0])
    path.write_bytes(path.read_bytes()[:-10])
    trainings.clear()
    with pytest.warns(UserWarning, match=f"^{path}: changed since it was written; counts as not measured"):
        again = utility.measure(run, wanted())
    assert [seed for *_, seed in trainings] == [1]
    seconds = ["train_seconds", "sample_seconds"]
    assert again.drop(columns=seconds).equals(first.drop(columns=seconds))


@pytest.mark.parametrize("spoil", [lambda path: path.unlink(), lambda path: path.write_bytes(path.read_bytes()[:-1])])
def test_arrays_that_are_missing_or_changed_are_measured_again(run, trainings, spoil):
    key = utility.measure(run, wanted()).key[0]
    blob = run.measured.blob(run.measured.read(key))
    whole = blob.read_bytes()
    spoil(blob)
    trainings.clear()
    with pytest.warns(UserWarning, match=f"^{blob}: (missing|changed since it was written); "):
        utility.measure(run, wanted())
    assert [seed for *_, seed in trainings] == [1] and blob.read_bytes() == whole


def test_status_names_a_truncated_record_and_changes_nothing(run, capsys, tmp_path):
    path = run.measured.path(utility.measure(run, design.ends(run.params)[0]).key[0])
    path.write_bytes(path.read_bytes()[:-10])
    (path.parent / "notes.txt").touch()
    before = {file: file.read_bytes() for file in run.folder.rglob("*") if file.is_file()}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(run.params))
    capsys.readouterr()
    assert __main__.main(["status", str(tmp_path / "tiny.yaml")]) == 0
    told = capsys.readouterr().out
    assert f"damaged: {path}: changed since it was written; run the notebook that makes it again" in told
    assert "1 files in" in told and "notes.txt" in told
    assert {file: file.read_bytes() for file in run.folder.rglob("*") if file.is_file()} == before


def status(run, capsys, tmp_path):
    """The lines of `cdlib status` on how long it takes, by their first words."""
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(run.params))
    assert __main__.main(["status", str(tmp_path / "tiny.yaml")]) == 0
    return dict(line.split(": ", 1) for line in capsys.readouterr().out.splitlines() if line.startswith(("by proc", "time left")))


def pretend(run, asked, seconds):
    """Records of coalitions that took so long."""
    for spec in utility.specifications(run, asked):
        run.measured.write(spec, {"inception_score": 1.0}, {}, seconds - 1, 1)


def test_models_of_nobody_are_no_retrainings_in_the_rate(run, capsys, tmp_path):
    run = changed(run, n_full_seeds=2, n_empty_seeds=3, workers=1, executor="processes")
    everybody, nobody = design.ends(run.params)
    assert status(run, capsys, tmp_path)["time left"].startswith("not known yet: none of retrain, untrained, ")
    pretend(run, nobody, 2)
    assert status(run, capsys, tmp_path)["time left"].startswith("not known yet: none of retrain, sparse_finetune, ")
    pretend(run, everybody, 100)
    told = status(run, capsys, tmp_path)
    assert told["by procedure"] == "retrain 36 an hour, untrained 1,800 an hour"
    missing = design.n_planned(run.params | {"compared": []})["retrain"] - len(everybody)
    assert told["time left"].startswith(f"more than {progress.duration(100 * missing + 2)}: none of sparse_finetune, ")


@pytest.mark.parametrize("name", ["full", "sparse"])
def test_a_start_model_that_is_missing_is_refused(run, name):
    shutil.rmtree(run.folder / "models")
    procedure = {"full": "finetune", "sparse": "sparse_finetune"}[name]
    with pytest.raises(ValueError, match=f"{name}.safetensors: missing; run the notebook"):
        utility.measure(run, wanted(procedure))


def test_values_do_not_depend_on_the_executor_or_the_number_of_workers(made, run, server):
    tables, arrays = [], []
    for name, executor, workers in (("tiny", "serial", 1), ("one", "processes", 1), ("two", "processes", 2)):
        here = changed(run, name=name, executor=executor, workers=workers)
        if name != "tiny":
            shutil.copytree(made, here.folder)
        table = utility.measure(here, wanted("sparse_finetune"))
        few = [utility.measure(here, wanted(p, MEMBERS[:2], SEEDS[:2])) for p in UNLEARNING]
        table = pd.concat([table, *few])
        tables.append(table.drop(columns=["train_seconds", "sample_seconds"]).to_dict("list"))
        arrays.append([here.measured.arrays(key) for key in table.key])
    assert tables[0] == tables[1] == tables[2]
    for one in zip(*arrays, strict=True):
        assert same(one[0], one[1]) and same(one[0], one[2])


@pytest.mark.parametrize(
    ("name", "value", "affected"),
    [
        ("finetune_lr", 0.5, ["finetune", "sparse_finetune"]),
        ("finetune_steps", 9, ["finetune", "sparse_finetune"]),
        ("finetune_schedule", "constant", ["finetune", "sparse_finetune"]),
        ("train_lr", 0.5, ["retrain"]),
        ("train_steps", 9, ["retrain"]),
        ("ga_lr", 0.5, ["gradient_ascent"]),
        ("ga_epochs", 9, ["gradient_ascent"]),
        ("iu_ratio", 0.7, ["influence_unlearning"]),
        ("iu_damping", 9.0, ["influence_unlearning"]),
        ("iu_batch", 9, ["influence_unlearning"]),
        ("iu_draws", 9, ["influence_unlearning"]),
        ("grad_clip", 0.5, [*PROCEDURES, "gradient_ascent"]),
        ("batch_size", 5, [*PROCEDURES, "gradient_ascent"]),
        ("ema", "fresh", PROCEDURES),
        ("timesteps", "uniform", ALL),
        ("n_images", 17, ALL),
        ("sampling_steps", 3, ALL),
        ("images_per_contributor", 19, ALL),
        ("assignment_seed", 1, ALL),
        ("n_unlearn", 9, []),
        ("fid_embedding", "pooled_pixels", []),
        ("n_coalitions", 99, []),
        ("coalition_seed", 1, []),
        ("executor", "processes", []),
        ("workers", 7, []),
        ("ray_address", "auto", []),
        ("gpus_per_coalition", 0.5, []),
        ("sample_batch", 5, []),
        ("checkpoint_minutes", 0.0, []),
        ("keep_models", "all", []),
    ],
)
def test_a_parameter_changes_the_keys_of_the_procedures_it_can_change(run, name, value, affected):
    other = changed(run, **{name: value})
    assert [p for p in ALL if keys(run, p) != keys(other, p)] == affected


def test_procedures_coalitions_and_seeds_never_share_a_key(run):
    found = [key for procedure in ALL for key in keys(run, procedure)]
    assert len(set(found)) == len(found) == 25


def test_another_full_model_makes_other_finetuned_coalitions(run):
    before = {p: keys(run, p) for p in ALL}
    stages.full(changed(run, train_seed=1))
    assert [p for p in ALL if keys(run, p) != before[p]] == ["finetune"]
    stages.sparse(changed(run, train_seed=1))
    assert [p for p in ALL if keys(run, p) != before[p]] == ["finetune", "sparse_finetune", *UNLEARNING]


def test_the_game_of_a_table_is_who_was_in_and_v(run):
    table = utility.measure(run, wanted())
    members, value = utility.game(run, table)
    np.testing.assert_array_equal(members, MEMBERS)
    assert value.tolist() == table.inception_score.tolist()


def test_a_coalition_that_lacks_a_seed_is_left_out_of_the_grid(run):
    members, seeds = MEMBERS[[1, 0, 3]].repeat(2, axis=0), np.tile([0, 1], 3)
    table = utility.measure(run, wanted(members=members, seeds=seeds))
    found, value = utility.by_seed(run, table)
    np.testing.assert_array_equal(found, members[::2])
    by_hand = table.set_index(["members", "seed"]).inception_score
    assert value.tolist() == [[by_hand[m, 0], by_hand[m, 1]] for m in ("0011", "1100", "1111")]
    found, _ = utility.by_seed(run, table[1:])
    np.testing.assert_array_equal(found, members[2::2])


def test_a_coalition_that_was_drawn_twice_counts_once_in_the_grid(run):
    table = utility.measure(run, wanted(members=MEMBERS[[0, 1, 0]], seeds=[0, 0, 0]))
    np.testing.assert_array_equal(utility.by_seed(run, table)[0], MEMBERS[[0, 1]])


def test_runtime_is_the_median_by_procedure(run):
    table = utility.measure(run, wanted()).assign(train_seconds=[1.0, 2.0, 9.0, 3.0, 0.0], sample_seconds=2.0)
    assert utility.runtime(table).to_dict("records") == [
        {"procedure": "retrain", "train_seconds": 2.0, "sample_seconds": 2.0, "n": 5}
    ]
