"""Hashes of plain values, bytes and files: what keys and checksums are made of."""

import hashlib
import json
from functools import lru_cache
from pathlib import Path


def canonical(value) -> bytes:
    """JSON bytes that are equal exactly when the values are."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def digest(data: bytes) -> str:
    """sha256 in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def sha256(file: Path) -> str:
    """sha256 of a file, computed again when its time or size has changed. Raises FileNotFoundError."""
    stat = file.stat()
    return _sha256(file, stat.st_mtime_ns, stat.st_size, stat.st_ino)


@lru_cache(maxsize=256)
def _sha256(file: Path, *_) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
