"""Similarity of training images to generated ones, as a credit.

T  training images        Q  generated images (queries)        N  contributors
"""

import numpy as np

AT_ONCE = 256
HOW = {"average": "mean", "max": "max", "sum": "sum"}


def pixel(train, queries):
    """Cosine similarity of each training image to the generated images, averaged over these.

    train    float [T, ...], -1..1, or uint8, 0..255
    queries  the same of [Q, ...]

    Returns float [T], in -1..1; an image of zeros is like none: 0.
    Source: appendix C, "raw pixel similarity".
    """
    queries, train = np.asarray(queries), np.asarray(train)
    mean_query = sum(_unit(part).sum(0) for part in _parts(queries)) / len(queries)
    return np.concatenate([_unit(part) @ mean_query for part in _parts(train)])


def aggregate(scores, owner, n, how="average"):
    """Credit of each contributor from the scores of the images that they gave, joined by image id.

    scores  pandas Series, float, indexed by image id
    owner   pandas Series, int 0..n-1, indexed by image id
    how     "average" | "max" | "sum"

    Returns float [N]; 0 for a contributor without images.
    Raises ValueError when `how` is none of these, or when the two do not hold the same images, once each.
    """
    if how not in HOW:
        raise ValueError(f"how={how!r}: write one of {', '.join(HOW)}")
    odd = scores.index.symmetric_difference(owner.index)
    if len(odd) or not (scores.index.is_unique and owner.index.is_unique):
        raise ValueError(f"scores and owners must name the same images, once each; {len(odd)} differ: {list(odd[:5])}")
    credit = scores.groupby(owner.loc[scores.index].to_numpy()).agg(HOW[how])
    return credit.reindex(range(n), fill_value=0.0).to_numpy(float)


def _parts(images):
    """Some images at a time, in -1..1, so that thousands of large ones need no more memory."""
    for start in range(0, len(images), AT_ONCE):
        part = images[start : start + AT_ONCE]
        yield part / 127.5 - 1 if part.dtype == np.uint8 else part


def _unit(images):
    flat = images.reshape(len(images), -1)
    norm = np.sqrt(np.einsum("id,id->i", flat, flat))
    return flat / np.where(norm > 0, norm, 1)[:, None]
