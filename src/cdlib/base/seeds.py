"""Randomness made where it is used, from (seed, purpose, index).

No generator is carried from one place to another, so a result cannot depend on what ran before it or beside it.
"""

import hashlib

import numpy as np


def number(seed: int, purpose: str, index: int = 0) -> int:
    """A 63-bit integer for one use of randomness: the same for the same arguments, on every machine."""
    digest = hashlib.sha256(f"{seed}/{purpose}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1


def generator(seed: int, purpose: str, index: int = 0) -> np.random.Generator:
    """A numpy generator for one use of randomness."""
    return np.random.default_rng(number(seed, purpose, index))
