"""Measured coalitions, read once: for who looks at a run as it is at one moment."""

from pathlib import Path

from cdlib.base.errors import Refused
from cdlib.store.measured import Measured


class Snapshot(Measured):
    """Measured coalitions as they are when first asked for: each record is read once."""

    def __init__(self, folder: Path):
        super().__init__(folder)
        self._seen, self._damaged = {}, {}

    def records(self, keys, damaged: dict | None = None) -> dict[str, dict]:
        keys = list(dict.fromkeys(keys))
        new = [key for key in keys if key not in self._seen]
        self._seen |= dict.fromkeys(new) | super().records(new, self._damaged)
        why = {key: self._damaged[key] for key in keys if key in self._damaged}
        if why and damaged is None:
            raise Refused(next(iter(why.values())))
        (damaged if damaged is not None else {}).update(why)
        return {key: self._seen[key] for key in keys if self._seen[key]}
