"""Cluster entropy is eq. 8, its clusters are Ward's, and images go where each rule says; the aesthetic score is a quantile."""

import numpy as np
import pytest
from scipy import stats
from sklearn.cluster import AgglomerativeClustering

from cdlib import store
from cdlib.base import params
from cdlib.base.errors import Refused
from cdlib.measure.properties import aesthetic_score, cluster_entropy
from cdlib.measure.properties.cluster_entropy import assign, entropy, ward
from cdlib.models import stages

BLOBS = np.concatenate([np.random.default_rng(k).normal(6 * k, 1, (20, 5)) for k in range(4)]).astype(np.float32)


def test_entropy_is_in_nats_and_largest_when_clusters_are_even():
    assert entropy(np.array([0, 1, 2, 3])) == pytest.approx(np.log(4))
    assert str(entropy(np.array([7, 7, 7]))) == str(entropy(np.array([7]))) == "0.0"
    cluster = np.random.default_rng(0).integers(0, 20, 300)
    assert entropy(cluster) == pytest.approx(stats.entropy(np.bincount(cluster)))


@pytest.mark.parametrize("n_clusters", [2, 4, 7])
def test_ward_is_the_partition_of_scikit_learn(n_clusters):
    ours = ward(BLOBS, n_clusters)
    theirs = AgglomerativeClustering(n_clusters, linkage="ward").fit_predict(BLOBS)
    assert len({(a, b) for a, b in zip(ours, theirs, strict=True)}) == n_clusters == len(set(ours))


def test_nearest_mean_is_the_nearest_by_brute_force():
    reference, cluster = BLOBS, ward(BLOBS, 6)
    images = np.random.default_rng(1).normal(9, 8, (50, 5)).astype(np.float32)
    means = np.stack([reference[cluster == k].mean(0) for k in range(6)])
    nearest = [min(range(6), key=lambda k: np.linalg.norm(image - means[k])) for image in images]
    assert assign(images, reference, cluster).tolist() == nearest


def test_average_linkage_has_the_least_mean_dissimilarity_by_inner_products():
    reference, cluster = BLOBS, ward(BLOBS, 6)
    images = np.random.default_rng(2).normal(0, 1, (50, 5)).astype(np.float32)
    apart = (reference @ reference.T).max() - images @ reference.T
    least = [min(range(6), key=lambda k: row[cluster == k].mean()) for row in apart]
    assert assign(images, reference, cluster, "average_linkage").tolist() == least
    assert least != assign(images, reference, cluster).tolist()


@pytest.fixture
def clustered(run):
    """A run with clusters of its full model's images."""
    changes = {"property": "cluster_entropy", "feature": "pooled_pixels", "n_clusters": 3, "n_reference": 12}
    changes |= {"embedding": "pooled_pixels", "fid_embedding": "pooled_pixels", "compared": ["D-TRAK"]}
    run = store.Run("04_shapley", params.check(run.params | changes, "clustered"))
    cluster_entropy.prepare(run.folder, run.params)
    return run


def test_the_full_models_images_fall_where_they_were_clustered(clustered):
    folder, values = clustered.folder, clustered.params
    state = cluster_entropy.about(folder, values)
    assert sum(state["sizes"]) == 12 and len(state["sizes"]) == state["clusters"] == 3
    drawn = stages.load(folder, values, "full").draw(range(12), values["sampling_steps"]).numpy()
    arrays = cluster_entropy.per_image(folder, values, drawn)
    assert arrays["embedding"].shape == (12, 64)
    assert np.bincount(arrays["cluster"], minlength=3).sum() == 12
    assert cluster_entropy.value(values, arrays) == entropy(arrays["cluster"])


def test_clusters_are_made_once_and_anew_for_another_number(clustered, monkeypatch):
    before = cluster_entropy.settings(clustered.folder, clustered.params)
    monkeypatch.setattr(stages, "load", lambda *a: pytest.fail("drawn again"))
    cluster_entropy.prepare(clustered.folder, clustered.params)
    assert cluster_entropy.settings(clustered.folder, clustered.params) == before
    monkeypatch.undo()


@pytest.mark.parametrize("change", [{"n_clusters": 4}, {"n_reference": 13}, {"sampling_steps": 3}])
def test_clusters_of_other_parameters_are_refused(clustered, change):
    with pytest.raises(Refused, match="clusters.safetensors: made from something else"):
        cluster_entropy.settings(clustered.folder, clustered.params | change)


def test_changed_clusters_are_refused(clustered):
    path = clustered.path("models/clusters.safetensors")
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    with pytest.raises(Refused, match="clusters.safetensors: changed since it was written"):
        cluster_entropy.settings(clustered.folder, clustered.params)


def test_the_assignment_is_part_of_the_key(clustered):
    other = clustered.params | {"assignment": "average_linkage"}
    assert cluster_entropy.settings(clustered.folder, other) != cluster_entropy.settings(clustered.folder, clustered.params)


def test_the_aesthetic_score_is_the_quantile_of_the_scores(tmp_path, tiny):
    scores = np.random.default_rng(0).normal(5, 1, 50).astype(np.float32)
    order = np.sort(scores.astype(float))
    assert aesthetic_score.value(tiny, {"score": scores}) == pytest.approx(order[44] + 0.1 * (order[45] - order[44]))
    assert aesthetic_score.value(tiny | {"quantile": 0.5}, {"score": scores}) == pytest.approx(np.median(scores))


def test_the_quantile_and_the_score_are_part_of_the_key(tmp_path, tiny):
    values = tiny | {"property": "aesthetic_score", "feature": "colourfulness"}
    first = aesthetic_score.settings(tmp_path, values)
    assert first != aesthetic_score.settings(tmp_path, values | {"quantile": 0.5})
    grey = np.full((3, 3, 8, 8), 90, np.uint8)
    assert aesthetic_score.value(values, aesthetic_score.per_image(tmp_path, values, grey)) == 0


@pytest.mark.parametrize(("name", "feature"), [("inception_score", "colourfulness"), ("aesthetic_score", "pooled_pixels")])
def test_a_feature_that_does_not_fit_the_property_is_refused(name, feature, tiny):
    with pytest.raises(Refused, match=f"feature: {feature}: must be one of"):
        params.check(tiny | {"property": name, "feature": feature}, "here")


def test_fewer_reference_images_than_clusters_are_refused(tiny):
    changes = {"property": "cluster_entropy", "feature": "pooled_pixels", "n_clusters": 20, "n_reference": 19}
    with pytest.raises(Refused, match=r"n_reference: 19: must be at least n_clusters \(20\)"):
        params.check(tiny | changes, "here")
