"""A run's folder."""

from cdlib.store.run import Run, open

__all__ = ["Run", "open"]
