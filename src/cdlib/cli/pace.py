"""How fast coalitions are being measured, by when their records were written, and how long the rest will take."""

import statistics
from collections.abc import Iterable
from dataclasses import dataclass

WINDOW_SECONDS = 3600.0
LEAST_SECONDS = 1.0  # of the clock, that anything counts as having taken


@dataclass(frozen=True)
class Pace:
    """What was measured in the last hour.

    n          coalitions
    seconds    of the clock while any was under way, so that a run that ended or did other work meanwhile is not slower by it
    at_once    how many were under way at once: their own seconds in such a second
    """

    n: int
    seconds: float
    at_once: float

    @property
    def per_hour(self) -> float:
        """Coalitions of all procedures in an hour of such seconds."""
        return 3600 * self.n / self.seconds


def present(records: Iterable[tuple[float, float]], now: float, workers: float = float("inf")) -> Pace | None:
    """How fast it goes now; None when nothing was measured in the last hour.

    records    (when it was written, in seconds since the epoch; its own seconds of training and sampling) of each coalition
    now        seconds since the epoch
    workers    how many can be under way at once: more was not measured but copied here, and says nothing (None)

    Another machine's clock may be ahead. What it writes counts when its time has come here: while the machine keeps its pace,
    as many come in from before as are still to come.
    """
    recent = [(written, seconds) for written, seconds in records if now - WINDOW_SECONDS < written <= now]
    if not recent:
        return None
    clock, work = max(_busy(recent, now), LEAST_SECONDS), sum(seconds for _, seconds in recent)
    if work > workers * (clock + max(seconds for _, seconds in recent)):
        return None
    return Pace(len(recent), clock, work / clock)


def _busy(recent: list[tuple[float, float]], now: float) -> float:
    """Seconds of the last hour in which any was under way: as long after one was written as it took, the next may have been."""
    busy, until = 0.0, now - WINDOW_SECONDS
    for begun, over in sorted((written - seconds, min(written + seconds, now)) for written, seconds in recent):
        busy += max(over - max(begun, until), 0)
        until = max(until, over)
    return busy


def each(seconds: dict[str, list[float]]) -> dict[str, float]:
    """Median seconds of one coalition by procedure, of the procedures that have any."""
    return {procedure: statistics.median(found) for procedure, found in seconds.items() if found}


def left(missing: dict[str, int], each: dict[str, float], at_once: float) -> float:
    """Seconds until the missing coalitions of each procedure are measured; procedures of which none is yet are left out."""
    return sum(n * each.get(procedure, 0.0) for procedure, n in missing.items()) / at_once
