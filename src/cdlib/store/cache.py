"""Kept files: data, and beside them a record (json), written last, that says what they are and holds the sha256 of both.

    <name>.safetensors    data
    <name>.json           record: origin and other plain values, `digest` of the data, and last `sha256` of the text before it

Each file takes its name by a rename when it is whole (module disk), so what is kept is whole or not there.
"""

import json
import warnings
from pathlib import Path

from cdlib.base.disk import write_bytes
from cdlib.base.errors import Refused
from cdlib.base.hashing import canonical, digest, sha256

TAIL = ',\n "sha256": "%s"\n}'
AGAIN = "run the notebook that makes it"


class Torn(Refused):
    """A kept file is not the one that was written."""

    def __init__(self, path: Path, why: str = "changed since it was written"):
        self.what = f"{path}: {why}"
        super().__init__(f"{self.what}; {AGAIN} again")


def write(path: Path, record: dict):
    """Write a record: plain JSON values."""
    text = json.dumps(record, indent=1, allow_nan=False).removesuffix("\n}")
    write_bytes(path, (text + TAIL % digest(text.encode())).encode())


def read(path: Path) -> dict:
    """A record. Raises FileNotFoundError, and Torn when it is not the one that was written."""
    data = path.read_bytes()
    text = data[: -len(TAIL % digest(b""))]
    if data != text + (TAIL % digest(text)).encode():
        raise Torn(path)
    return json.loads(text + b"}")


def put(path: Path, data: bytes, record: dict) -> dict:
    """Keep data and then their record; returns the record, with the digest of the data."""
    record = record | {"digest": digest(data)}
    write_bytes(path, data)
    write(path.with_suffix(".json"), record)
    return record


def get(path: Path, origin: dict | None = None) -> dict:
    """The record of kept data. Raises Refused when they are missing, changed (Torn), or of another origin."""
    try:
        record, found = read(path.with_suffix(".json")), sha256(path)
    except FileNotFoundError:
        raise Refused(f"{path}: missing; {AGAIN}") from None
    if found != record["digest"]:
        raise Torn(path)
    if origin is not None and canonical(record["origin"]) != canonical(origin):
        raise Refused(f"{path}: made from something else; {AGAIN} again")
    return record


def find(path: Path, origin: dict | None = None) -> dict | None:
    """As `get`; None where data of this origin are to be made. A changed file is named in a warning."""
    try:
        return get(path, origin)
    except Torn as error:
        warnings.warn(f"{error.what}; made again", stacklevel=2)
    except Refused:
        pass
    return None
