"""How precise a run's credits are by now, and what a better precision will take: lines of `cdlib status`."""

import math
from collections.abc import Callable

from cdlib import store
from cdlib.base import progress, registry
from cdlib.base.errors import Refused
from cdlib.cli.command import say
from cdlib.credit import attributions, precision
from cdlib.credit.shapley import TooFewCoalitions
from cdlib.data import design
from cdlib.store import measured

RESAMPLES = 200  # they give a standard error to 5 %

# Seconds that so many more coalitions of a procedure take; None when none of it is measured yet.
Speed = Callable[[float, str], float | None]


def check(params: dict, se: float | None, top: int | None):
    """Refuse a standard error and a number of contributors that cannot be reached. Raises Refused."""
    n = design.n_contributors(params)
    if se is not None and not 0 < se < math.inf:
        raise Refused(f"--se: {se}: must be above 0, in the unit of {params['property']}")
    if top is not None and not 0 < top < n:
        raise Refused(f"--top: {top}: must be 1 to {n - 1}, for there are {n} contributors")


def tell(run: store.Run, asked: list, speed: Speed, se: float | None, top: int | None):
    """Say of each way to the credits how precise it is, and how many more coalitions a better precision takes.

    asked    (plan.Wanted, its records) of everybody, of nobody, and of all others
    se       the standard error to be reached, in the property's own unit; None: half of the present one
    top      how many contributors are to be told from the others; None: 5, or fewer than half
    """
    n, name = design.n_contributors(run.params), run["property"]
    k = top or max(min(5, (n - 1) // 2), 1)
    full, empty = (_values(run, _measured(records)) for _, records in asked[:2])
    say(f"\ncredits so far, with the largest standard error of the {n} contributors, in {name}:")
    for wanted, records in asked:
        if wanted.estimator:
            found = _measured(records)
            members = measured.members([r["spec"]["members"] for r in found]).reshape(-1, n)
            game = members, _values(run, found), empty, full
            lines = _lines(wanted, game, speed, se, k) if full and empty else ["v(everybody) or v(nobody) is not measured yet"]
            say(f"{wanted.purpose}, {len(found):,} coalitions: " + "\n    ".join(lines))


def _measured(records: list[dict]) -> list[dict]:
    return [r for r in records if r["status"] == "measured"]


def _values(run: store.Run, records: list[dict]) -> list[float]:
    """v(S): more is better, as in utilities.values."""
    return [registry.sign(run.params) * r["properties"][run["property"]] for r in records]


def _lines(wanted: design.Wanted, game: tuple, speed: Speed, se: float | None, k: int) -> list[str]:
    """What there is to say of one way to the credits.

    game    members bool [M, N], utility [M], v of nobody and of everybody, each with several seeds
    """
    members, _, empty, full = game
    m, n = members.shape
    try:
        credit = attributions.ESTIMATORS[wanted.estimator](*game, resamples=RESAMPLES) if m else None
    except TooFewCoalitions as error:
        return [f"too few yet: {error}"]
    if credit is None or credit.again is None:
        return ["too few yet to judge their noise"]
    now, ends = precision.stderr(credit), precision.ends(empty, full, n)
    wish = now / 2 if se is None else se
    more = precision.more_for_stderr(now, ends, m, wish)
    if more < math.inf:
        takes = _takes(more, wanted, speed)
    else:
        seeds, rest = precision.more_ends(ends, min(len(empty), len(full)), wish), math.sqrt(max(now**2 - ends**2, 0))
        more = precision.more_for_stderr(rest, 0, m, wish / math.sqrt(2))
        takes = f"not by coalitions alone, for v(everybody) and v(nobody) leave {ends:.3g}; {seeds:,} more seeds of each "
        takes += f"(n_full_seeds, n_empty_seeds), and then {_takes(more, wanted, speed)}"
    apart = _takes(precision.more_for_top(precision.margin(credit, k), m), wanted, speed)
    return [
        f"standard error {now:.3g}",
        f"for {wish:.3g}: {takes}",
        f"top {k}: the same in {100 * precision.same_top(credit, k):.0f} % of resamples; to be sure of it: {apart}",
    ]


def _takes(more: float, wanted: design.Wanted, speed: Speed) -> str:
    """How many more coalitions, up to the next two digits, for it is an estimate, and about how long they take."""
    if more == math.inf:
        return "no number of coalitions, two values are equal"
    digit = 10 ** max(len(str(more)) - 2, 0)
    more = -(-more // digit) * digit
    seconds = speed(more, wanted.procedure)
    return f"{more:,} more coalitions" + (f", about {progress.duration(seconds)}" if more and seconds is not None else "")
