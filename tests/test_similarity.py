"""Pixel similarity: equal to loops, and joined by image id."""

import numpy as np
import pandas as pd
import pytest

from cdlib import similarity


def images(n, seed):
    return np.random.default_rng(seed).uniform(-1, 1, (n, 1, 4, 4))


def cosine(a, b):
    return np.sum(a * b) / np.sqrt(np.sum(a**2) * np.sum(b**2))


def scored():
    """Scores of 9 images by id, and who gave each: contributor 3 gave none."""
    ids = [f"digit-{i}" for i in range(9)]
    scores = pd.Series(np.random.default_rng(0).normal(size=9), ids)
    return scores, pd.Series([0, 1, 2, 0, 1, 2, 4, 0, 1], ids)


def test_pixel_similarity_is_the_mean_cosine_of_a_loop():
    train, queries = images(7, 0), images(5, 1)
    expected = [np.mean([cosine(image, query) for query in queries]) for image in train]
    assert similarity.pixel(train, queries) == pytest.approx(expected)


def test_an_image_is_wholly_similar_to_itself_and_its_negative_is_not():
    image = images(1, 0)
    assert similarity.pixel(np.concatenate([image, -image, 0 * image]), image) == pytest.approx([1, -1, 0])


def test_brightness_scale_and_the_order_of_queries_change_nothing():
    train, queries = images(7, 0), images(5, 1)
    assert similarity.pixel(0.3 * train, queries[::-1]) == pytest.approx(similarity.pixel(train, queries))


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
