"""Similarities and distances: equal to loops, whatever is computed at once, and joined by image id."""

import tracemalloc

import numpy as np
import pandas as pd
import pytest

from cdlib.credit import similarity


def images(n, seed):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 1, 4, 4))


def cosine(a, b):
    return np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2))


def scored():
    """Scores of 9 images by id, and who gave each: contributor 3 gave none."""
    ids = [f"digit-{i}" for i in range(9)]
    scores = pd.Series(np.random.default_rng(0).normal(size=9), ids)
    return scores, pd.Series([0, 1, 2, 0, 1, 2, 4, 0, 1], ids)


@pytest.fixture(params=[1, 3, 1024])
def at_once(request, monkeypatch):
    """So many rows at a time, of training images and of queries."""
    monkeypatch.setattr(similarity, "AT_ONCE", request.param)


def test_pixel_similarity_is_the_mean_cosine_of_a_loop(at_once):
    train, queries = images(7, 0), images(5, 1)
    expected = [np.mean([cosine(image, query) for query in queries]) for image in train]
    assert similarity.cosine(train, queries) == pytest.approx(expected)


def test_bytes_are_pixels_from_minus_one_to_one():
    train, queries = (np.random.default_rng(seed).integers(0, 256, (5, 3, 4, 4), np.uint8) for seed in (0, 1))
    assert similarity.cosine(train, queries) == pytest.approx(similarity.cosine(train / 127.5 - 1, queries / 127.5 - 1))
    assert similarity.cosine(train[:1], 255 - train[:1]) == pytest.approx(-1)


def test_gradients_too_small_for_the_square_of_their_entries_have_the_cosine_of_any():
    train, queries = (np.random.default_rng(seed).normal(size=(5, 8)).astype(np.float32) for seed in (0, 1))
    assert similarity.cosine(1e-25 * train, 1e-25 * queries) == pytest.approx(similarity.cosine(train, queries), rel=1e-5)


@pytest.mark.parametrize("n_bytes", [1, 2**27])
def test_the_maximum_of_each_query_is_that_of_a_loop(at_once, n_bytes, monkeypatch):
    monkeypatch.setattr(similarity, "MEMORY_BYTES", n_bytes)
    train, queries, owner = images(11, 0), images(5, 1), [0, 1, 4, 0, 1, 2, 4, 0, 1, 2, 2]
    expected = [
        np.mean([max(cosine(image, query) for image, o in zip(train, owner, strict=True) if o == c) for query in queries])
        for c in (0, 1, 2, 4)
    ]
    credit = similarity.max_per_query(train, queries, owner, 6)
    assert credit[[0, 1, 2, 4]] == pytest.approx(expected) and not credit[[3, 5]].any()


def test_of_one_query_both_maxima_are_the_same_and_of_more_that_of_each_is_larger():
    train, queries, owner = images(11, 0), images(5, 1), pd.Series([0, 1, 2, 0, 1, 2, 0, 1, 2, 0, 1], range(100, 111))

    def after(queries):
        return similarity.aggregate(pd.Series(similarity.cosine(train, queries), owner.index), owner, 3, "max")

    assert similarity.max_per_query(train, queries[:1], owner, 3) == pytest.approx(after(queries[:1]))
    assert (similarity.max_per_query(train, queries, owner, 3) > after(queries)).all()


def test_an_image_more_never_lowers_the_maximum():
    train, queries, owner = images(11, 0), images(5, 1), np.arange(11) % 3
    credits = [similarity.max_per_query(train[:t], queries, owner[:t], 3) for t in range(3, 12)]
    assert (np.diff(credits, axis=0) >= 0).all()


def test_the_matrix_of_images_and_queries_is_never_whole():
    train, queries = (np.random.default_rng(seed).normal(size=(n, 4)) for seed, n in ((0, 4000), (1, 4100)))
    tracemalloc.start()
    similarity.max_per_query(train, queries, np.arange(4000) % 5, 5)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4000 * 4100 * 8 / 4


def test_distances_are_those_of_a_loop():
    train, centres = images(7, 0).reshape(7, -1), images(3, 1).reshape(3, -1)
    expected = [np.mean([np.sqrt(((row - centre) ** 2).sum()) for centre in centres]) for row in train]
    assert similarity.distance(train, centres) == pytest.approx(expected)
    assert similarity.distance(train[:1], train[:1]) == 0
    mean = sum(train) / 7
    expected = [np.sqrt(((row - mean) ** 2).sum()) for row in train]
    assert similarity.distance(train, centres, to_global_mean=True) == pytest.approx(expected)


def test_vectors_that_cannot_be_compared_are_refused():
    train, queries = images(7, 0), images(5, 1)
    for bad in (queries[:, :, :3], queries[:0], (127 * queries).astype(np.uint8)):
        with pytest.raises(ValueError, match=r"float64 \[7, 1, 4, 4\] and .* must be rows of one shape and kind"):
            similarity.cosine(train, bad)
    with pytest.raises(ValueError, match=r"owners \[6\] of 7 images"):
        similarity.max_per_query(train, queries, np.zeros(6, int), 2)


def test_an_image_is_wholly_similar_to_itself_and_its_negative_is_not():
    image = images(1, 0)
    assert similarity.cosine(np.concatenate([image, -image, 0 * image]), image) == pytest.approx([1, -1, 0])


def test_brightness_scale_and_the_order_of_queries_change_nothing():
    train, queries = images(7, 0), images(5, 1)
    assert similarity.cosine(0.3 * train, queries[::-1]) == pytest.approx(similarity.cosine(train, queries))


@pytest.mark.parametrize("how, reduce", [("average", np.mean), ("max", np.max), ("sum", np.sum)])
def test_aggregates_are_those_of_a_loop(how, reduce):
    scores, owner = scored()
    expected = [reduce([scores[i] for i in scores.index if owner[i] == c] or [0.0]) for c in range(5)]
    assert similarity.aggregate(scores, owner, 5, how) == pytest.approx(expected)


@pytest.mark.parametrize("how", similarity.HOW)
def test_shuffling_the_order_of_images_changes_nothing(how):
    scores, owner = scored()
    shuffled = similarity.aggregate(scores.sample(frac=1, random_state=1), owner.sample(frac=1, random_state=2), 5, how)
    assert shuffled == pytest.approx(similarity.aggregate(scores, owner, 5, how))


def test_images_that_only_one_side_knows_are_refused():
    scores, owner = scored()
    for pair in ((scores[1:], owner), (scores, owner[1:])):
        with pytest.raises(ValueError, match="1 differ.*digit-0"):
            similarity.aggregate(*pair, 5)


def test_an_image_named_twice_is_refused():
    scores, owner = scored()
    with pytest.raises(ValueError, match="once each"):
        similarity.aggregate(pd.concat([scores, scores[:1]]), owner, 5)


def test_an_unknown_aggregate_is_refused():
    with pytest.raises(ValueError, match="how='median': write one of average, max, sum"):
        similarity.aggregate(*scored(), 5, "median")
