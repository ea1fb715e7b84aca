"""Every attribution method by its name: against a loop over images, whatever their order; and which methods apply to a run."""

import csv
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from cdlib import store
from cdlib.base import params, paths
from cdlib.base.registry import ONLY, SCORES, Method
from cdlib.credit import methods
from cdlib.data import contributors
from cdlib.data.design import Wanted
from cdlib.measure import sketches, utility
from cdlib.models import stages
from cdlib.show import style

K, QUERIES = 6, 5
OWNER = {3: "a", 8: "b", 1: "b", 12: "c", 7: "a", 5: "c", 20: "b"}  # image id -> contributor; unequal counts
COPIES = {31: 3, 30: 7}  # contributor d gives exact copies of a's images
FROM_IMAGES = [  # those that see images, not coalitions
    name for name in methods.METHODS if not name.endswith("(control)") and name != "Leave-one-out (LOO)"
]


def row(image, kind):
    """What is known of an image: the same for a copy, another for another image or kind."""
    image = COPIES.get(image, image)
    seed = [image, *kind.encode()]
    if kind == "pixels":
        return np.random.default_rng(seed).integers(0, 256, (1, 4, 4), np.uint8)
    return np.random.default_rng(seed).normal(size=K) + 0.5


class Parameters(dict):
    """Parameters as a run gives them, with a folder that nobody reads."""

    folder = None


class MadeUp(methods.Evidence):
    """Evidence of a run that there is not: features by image id, in the order in which an Evidence has to give them."""

    def __init__(self, order, copies=False, **changes):
        owner = OWNER | (dict.fromkeys(COPIES, "d") if copies else {})
        self.table = pd.DataFrame([(i, owner[i]) for i in order if i in owner], columns=["image", "contributor"])
        self.labels, self.owner = contributors.labels(self.table), contributors.owners(self.table).sort_index()
        self.run = self.params = Parameters(params.check({}, "made up") | changes)
        self.training = np.stack([row(i, "pixels") for i in self.owner.index])
        self.queries = np.stack([row(1000 + q, "pixels") for q in range(QUERIES)])

    def features(self, name):
        found = [np.stack([row(i, name) for i in ids]) for ids in (self.owner.index, range(1000, 1000 + QUERIES))]
        return [f[:, 0] for f in found] if name in SCORES else found

    def gradients(self, what):
        of, _, loss = what.partition(", ")
        ids = self.owner.index if of == "training" else range(1000, 1000 + QUERIES)
        return np.stack([row(i, f"gradient {loss or what}") for i in ids])


ORDERS = [sorted([*OWNER, *COPIES]), [20, 5, 31, 12, 8, 30, 1, 3, 7]]
CENTRES = np.random.default_rng(0).normal(size=(3, K))


@pytest.fixture(autouse=True)
def centres(monkeypatch):
    monkeypatch.setattr("cdlib.measure.properties.cluster_entropy.centres", lambda folder: CENTRES)


def credit(name, order=ORDERS[0], copies=False, **changes):
    """{contributor: credit} by a method of the registry."""
    only = ONLY.get(name, {})
    evidence = MadeUp(order, copies, **(only | changes))
    return dict(zip(evidence.labels, methods.METHODS[name](evidence), strict=True))


def vectors(name):
    """{image id: vector} of the training images and of the queries, for a similarity of this name."""
    kinds = {"Pixel": "pixels", "Gradient": "gradient simple"}
    kind = kinds.get(name.split()[0]) or ONLY[name]["embedding"]

    def vector(i):
        found = row(i, kind).ravel()
        return found / 127.5 - 1 if kind == "pixels" else found

    return {i: vector(i) for i in OWNER}, [vector(1000 + q) for q in range(QUERIES)]


def cosine(a, b):
    return float(a @ b / np.sqrt((a @ a) * (b @ b)))


def looped(name, similarity_max="of_average"):
    """Similarity rows by a loop over contributors, images and queries."""
    (training, queries), found = vectors(name), {}
    for label in "abc":
        scores = [[cosine(training[i], q) for q in queries] for i, owner in OWNER.items() if owner == label]
        if "max" not in name:
            found[label] = np.mean(scores)
        elif similarity_max == "per_query":
            found[label] = np.mean([max(column) for column in zip(*scores, strict=True)])
        else:
            found[label] = max(np.mean(row) for row in scores)
    return found


SIMILARITIES = [name for name in FROM_IMAGES if "similarity" in name]


@pytest.mark.parametrize("name", SIMILARITIES)
def test_similarity_rows_equal_a_loop_over_images_and_queries(name):
    assert credit(name) == pytest.approx(looped(name), rel=1e-6)


@pytest.mark.parametrize("name", [name for name in SIMILARITIES if "max" in name])
def test_the_maximum_can_be_one_for_each_query(name):
    assert credit(name, similarity_max="per_query") == pytest.approx(looped(name, "per_query"), rel=1e-6)
    assert credit(name, similarity_max="per_query") != pytest.approx(credit(name), rel=1e-6)


@pytest.mark.parametrize(("how", "of"), [("average", np.mean), ("max", max)])
def test_embedding_distance_is_to_the_means_of_the_clusters(how, of):
    kind = "pooled_pixels"
    found = credit(f"Embedding dist. ({how})", feature=kind)
    distances = {i: np.mean([np.linalg.norm(row(i, kind) - c) for c in CENTRES]) for i in OWNER}
    assert found == pytest.approx({label: of([distances[i] for i in OWNER if OWNER[i] == label]) for label in "abc"})
    middle = np.mean([row(i, kind) for i in OWNER], 0)
    distances = {i: np.linalg.norm(row(i, kind) - middle) for i in OWNER}
    found = credit(f"Embedding dist. ({how})", feature=kind, embedding_distance="global_mean")
    assert found == pytest.approx({label: of([distances[i] for i in OWNER if OWNER[i] == label]) for label in "abc"})


@pytest.mark.parametrize(("how", "of"), [("average", np.mean), ("max", max)])
def test_the_score_of_the_training_images_is_theirs(how, of):
    found = credit(f"Aesthetic score ({how})")
    scores = {i: row(i, "laion_aesthetic")[0] for i in OWNER}
    assert found == pytest.approx({label: of([scores[i] for i in OWNER if OWNER[i] == label]) for label in "abc"})


def dense(name, damping, over=sum):
    """Influence and TRAK rows from dense float64 matrices, by the paper's equations, one training image at a time."""
    loss = "square" if name == "D-TRAK" else "simple"
    phi = {i: row(i, f"gradient {loss}") for i in OWNER}
    kernel = np.linalg.inv(sum(np.outer(p, p) for p in phi.values()) + damping * np.eye(K))
    asked = "gradient journey" if name == "Journey-TRAK" else f"gradient {loss}"
    scores = {}
    for i, p in phi.items():
        length = {"Relative IF": np.linalg.norm(kernel @ p), "Renormalized IF": np.linalg.norm(p)}.get(name, 1)
        scores[i] = np.mean([row(1000 + q, asked) @ kernel @ p / length for q in range(QUERIES)])
    return {label: over([scores[i] for i in OWNER if OWNER[i] == label]) for label in "abc"}


INFLUENCES = ["Relative IF", "Renormalized IF", "TRAK", "Journey-TRAK", "D-TRAK"]


@pytest.mark.parametrize("name", INFLUENCES)
def test_influence_rows_equal_dense_matrices_and_are_sums(name):
    damping = "d_trak_damping" if name == "D-TRAK" else "damping"
    assert credit(name, **{damping: 0.7}) == pytest.approx(dense(name, 0.7 / K), rel=1e-9)
    assert credit(name, **{damping: 0.7}, influence_sum="mean") == pytest.approx(dense(name, 0.7 / K, np.mean), rel=1e-9)


@pytest.mark.parametrize("name", INFLUENCES)
def test_without_a_damping_it_grows_with_the_kernel(name):
    loss = "square" if name == "D-TRAK" else "simple"
    diagonal = np.mean(sum(row(i, f"gradient {loss}") ** 2 for i in OWNER))
    damping = "d_trak_damping" if name == "D-TRAK" else "damping"
    assert credit(name, **{damping: 0.0}) == pytest.approx(dense(name, 0.1 * diagonal), rel=1e-9)


@pytest.mark.parametrize("name", FROM_IMAGES)
def test_the_order_of_the_images_changes_no_credit(name):
    assert credit(name, ORDERS[1]) == credit(name, ORDERS[0])


@pytest.mark.parametrize("name", FROM_IMAGES)
def test_exact_copies_of_anothers_images_get_the_same_credit(name):
    found = credit(name, ORDERS[1], copies=True)
    assert found["d"] == pytest.approx(found["a"], rel=1e-9) and found["a"] != pytest.approx(found["b"], rel=1e-3)


def test_every_method_may_be_named_in_a_parameter_file_and_has_a_colour():
    shapley = [name for name in get_args(Method) if "Shapley" in name]
    assert [*methods.METHODS, *shapley] == list(get_args(Method)), "in the order of the paper's Table 1"
    assert set(get_args(Method)) <= set(style.COLOURS)


@pytest.mark.parametrize("name", ["cifar20", "celeba_hq", "artbench"])
def test_the_papers_runs_have_the_rows_of_its_table_1(name):
    with (paths.root() / "figures" / "paper" / "reported.csv").open() as file:
        reported = {line["method"] for line in csv.DictReader(file) if (line["table"], line["dataset"]) == ("1", name)}
    ours = set(methods.names(params.load(paths.params(name))))
    assert {method for method in ours if "(control)" not in method} == reported - {"Sparsified-FT Shapley (Ours)"}


@pytest.mark.parametrize(
    ("name", "has", "lacks"),
    [
        ("digits", "Classifier similarity (max)", "Embedding dist. (max)"),
        ("faces", "Embedding dist. (average)", "Colourfulness (max)"),
        ("painters", "Colourfulness (average)", "Aesthetic score (average)"),
    ],
)
def test_a_laptop_run_names_its_rows_after_its_own_embedding(name, has, lacks):
    ours = methods.names(params.load(paths.params(name)))
    assert has in ours and lacks not in ours and not any("CLIP" in method for method in ours)
    assert {"TRAK", "D-TRAK", "Journey-TRAK", "Relative IF", "Renormalized IF", "Gradient similarity (max)"} <= set(ours)


@pytest.fixture
def measured(run):
    """A run with what its notebooks 01, 02 and 04 leave for the baselines."""
    run.params = run.params | {"gradient_timesteps": 2, "projection_dim": 32}
    run.write("contributors", stages.dataset(run.params).contributors)
    everybody = np.ones((1, 4), bool)
    wanted = Wanted("everybody", "retrain", everybody, np.array([0]))
    return run, utility.measure(run, wanted)


def test_methods_that_see_images_alone_credit_every_property_alike_and_are_computed_once(measured, monkeypatch):
    run, everybody = measured
    run.params = run.params | {"also": ["cluster_entropy/pooled_pixels"]}
    everybody = everybody.assign(cluster_entropy=1.5)
    sparse = everybody.iloc[[0, 0]].assign(members=["1100", "0011"], inception_score=[2.0, 1.0], cluster_entropy=[1.0, 3.0])
    asked = []
    chosen = {name: lambda evidence, name=name: asked.append(name) or np.arange(4.0) for name in ("TRAK", "D-TRAK")}
    chosen |= {name: methods.METHODS[name] for name in ("Number of images (control)", "Ridge datamodel (control)")}
    chosen |= {f"Embedding dist. ({how})": lambda evidence: np.full(4, len(evidence.params["feature"])) for how in ("max",)}
    monkeypatch.setattr(methods, "METHODS", chosen)
    monkeypatch.setattr(methods, "ALIKE", (*methods.ALIKE, chosen["TRAK"]))
    found = methods.credits(methods.Evidence(run, everybody, everybody, sparse))
    first, second = found["inception_score"], found["cluster_entropy"]
    assert list(found) == [run["property"], "cluster_entropy"] and asked == ["TRAK", "D-TRAK", "D-TRAK"]
    assert first["Number of images (control)"] is second["Number of images (control)"]
    ridge = [by_method["Ridge datamodel (control)"] for by_method in (first, second)]
    assert ridge[0][0] > ridge[0][2] and ridge[1][0] < ridge[1][2]
    assert "Embedding dist. (max)" not in first and second["Embedding dist. (max)"][0] == len("pooled_pixels")


def test_gradients_are_the_same_from_one_worker_and_from_two(measured, server, tmp_path):
    run, everybody = measured
    evidence = methods.Evidence(run, everybody, everybody, everybody)
    serial = {what: evidence.gradients(what) for what in sketches.WHAT}
    other = store.Run("05_baselines", run.params | {"executor": "processes", "workers": 2})
    for path in other.path("gradients").iterdir():
        path.rename(tmp_path / path.name)
    again = {what: sketches.features(other, what, everybody.key[0]) for what in sketches.WHAT}
    assert {what: found.tobytes() for what, found in again.items()} == {w: found.tobytes() for w, found in serial.items()}
    assert {len(found) for found in serial.values()} == {len(evidence.training), run["n_images"]}
    assert len({found.tobytes() for found in serial.values()}) == len(serial)


def test_kept_gradients_are_not_computed_again(measured, monkeypatch):
    run, everybody = measured
    first = sketches.features(run, "training, simple", everybody.key[0])
    monkeypatch.setattr(sketches, "compute_one", lambda task: pytest.fail("computed again"))
    assert sketches.features(run, "training, simple", everybody.key[0]).tobytes() == first.tobytes()


def test_a_failure_names_the_images(measured, monkeypatch):
    run, everybody = measured
    monkeypatch.setattr("cdlib.models.gradients.features", lambda *args, **how: 1 / 0)
    with pytest.raises(RuntimeError, match="(?s)gradients, training, simple, of images .*ZeroDivisionError"):
        sketches.features(run, "training, simple", everybody.key[0])
