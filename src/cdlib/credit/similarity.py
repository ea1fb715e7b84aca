"""Similarity of training images to generated ones, as a credit.

T  training images        Q  generated images (queries)        K  clusters        N  contributors

Of raw pixels, embeddings (`features`), or projected gradients (`gradients.features`): any vectors; a cosine sees only direction.
Two maxima are possible: of scores averaged over the queries (`aggregate`), as the paper's text and the released code for CIFAR-20
and CelebA-HQ have it; or of each query, averaged afterwards (`max_per_query`), as the released code for ArtBench has it.
"""

import numpy as np

AT_ONCE = 1024  # rows
MEMORY_BYTES = 2**27  # of the rows at once, as float64
HOW = {"average": "mean", "max": "max", "sum": "sum"}


def cosine(train, queries):
    """Cosine similarity of each training image to the generated images, averaged over these.

    train    float [T, ...], or uint8, 0..255, which is taken as -1..1
    queries  the same of [Q, ...]

    Returns float [T], in -1..1; 0 for a row of zeros, which is like none.
    Raises ValueError when the two cannot be compared.
    Source: appendix C, "raw pixel similarity", "CLIP similarity"; eq. 12, of gradients.
    """
    train, queries = _checked(train, queries)
    mean_query = sum(asked.sum(0) for _, asked in _units(queries)) / len(queries)
    return np.concatenate([given @ mean_query for _, given in _units(train)])


def max_per_query(train, queries, owner, n):
    """Credit of each contributor: the largest cosine of each query to one of their images, averaged over the queries.

    train, queries  as for `cosine`; the matrix [T, Q] is never whole
    owner           int [T], 0..n-1, of the rows of train

    Returns float [N], in -1..1; 0 for a contributor without images.
    Raises ValueError when these cannot be compared.
    Source: section 4.3, aggregation by maximum. Differs: the paper averages over the queries first; see above.
    """
    (train, queries), owner = _checked(train, queries), np.asarray(owner)
    if owner.shape != (len(train),):
        raise ValueError(f"owners {list(owner.shape)} of {len(train)} images: must be one for each")
    total = np.zeros(n)
    for _, asked in _units(queries):
        largest = np.full((n, len(asked)), -np.inf)
        for rows, given in _units(train):
            np.maximum.at(largest, owner[rows], given @ asked.T)
        total += largest.sum(1)
    return np.where(np.bincount(owner, minlength=n) > 0, total, 0) / len(queries)


def distance(train, centres, to_global_mean=False):
    """Euclidean distance of each training image's embedding to the mean embedding of each reference cluster, averaged over these.

    train           float [T, D]
    centres         float [K, D]  mean embeddings of the clusters
    to_global_mean  take the distance to the mean of all training embeddings instead

    Returns float [T], at least 0: larger is less similar, and the paper's score all the same.
    Raises ValueError when the two cannot be compared.
    Source: appendix C, "embeddings distance". Differs: the released code does what to_global_mean does.
    """
    train, centres = _checked(train, centres)
    centres = train.mean(0, dtype=float)[None] if to_global_mean else centres
    return np.mean([np.linalg.norm(train - centre, axis=1) for centre in centres.astype(float)], 0)


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


def _checked(train, queries):
    """Both as arrays. Raises ValueError when their rows are not alike, or when there are none."""
    train, queries = np.asarray(train), np.asarray(queries)
    if train.shape[1:] != queries.shape[1:] or train.dtype.kind != queries.dtype.kind or not (len(train) and len(queries)):
        both = f"{train.dtype} {list(train.shape)} and {queries.dtype} {list(queries.shape)}"
        raise ValueError(f"{both}: must be rows of one shape and kind, and not none")
    return train, queries


def _units(vectors):
    """Some rows at a time: which they are (a slice), and the rows as unit vectors, float64 [n, D]; zeros stay zeros."""
    n_rows = min(AT_ONCE, max(1, MEMORY_BYTES // (8 * vectors[0].size)))
    for start in range(0, len(vectors), n_rows):
        rows = slice(start, start + n_rows)
        part = vectors[rows].reshape(-1, vectors[0].size)
        part = part / 127.5 - 1 if part.dtype == np.uint8 else part.astype(float)
        norm = np.sqrt(np.einsum("id,id->i", part, part))
        if not np.isfinite(norm).all():
            raise ValueError("vectors that are not finite: compute them again")
        yield rows, part / np.where(norm > 0, norm, 1)[:, None]
