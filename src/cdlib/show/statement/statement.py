"""The credit statement: what each contributor is shown of their credit, its uncertainty, and what it means.

Reads tidy files alone; the same run and options give the same bytes.

N  contributors
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd
from scipy import stats

from cdlib.base import sheets
from cdlib.base.disk import write_bytes
from cdlib.base.errors import Missing, Refused
from cdlib.credit import attributions, ranking
from cdlib.data import contributors, design
from cdlib.show.lettering import number
from cdlib.show.statement import shares, terms
from cdlib.show.statement.terms import LEVEL
from cdlib.show.templates import render

DECIMAL = ("share_percent", "payout", "payout_low", "payout_high")  # columns of text that is a number


@dataclass(frozen=True, repr=False)
class Statement:
    """A statement, which shows itself in a notebook.

    frame      property, method, confidence, contributor, n_images, credit, low, high, share_percent, rank, rank_low,
               rank_high, groups; with a pot payout, payout_low, payout_high. Shares and payouts are decimal text, which
               adds up exactly. Empty: not known, or not defined
    markdown   the same for a reader, with all that it rests on
    page       the same as one html page that needs nothing else
    """

    frame: pd.DataFrame
    markdown: str
    page: str

    def _repr_markdown_(self):
        return self.markdown


def write(run, **options):
    """Writes figures/<name>/statement.csv, .md and .html; returns the `Statement`. The options are those of `make`."""
    made = make(run, **options)
    files = {"csv": sheets.write(made.frame, DECIMAL), "md": made.markdown.encode(), "html": made.page.encode()}
    for kind, text in files.items():
        write_bytes(run.figures / f"statement.{kind}", text)
    return made


def make(run, method=design.OURS, confidence=LEVEL, pot=0, property=""):
    """The statement of a run by one method.

    confidence   float   of intervals, ranks and groups
    pot          int     hundredths to be divided by the credits; 0: nothing is
    property     str     the one to state; empty: each that the method credits, in a section of its own

    Raises Refused for a method, property or confidence that the run does not have, for a pot and several properties,
    and when no credit is above zero to divide it by.
    """
    if not 0.5 <= confidence <= 0.999:
        raise Refused(f"confidence {confidence:g}: must lie in 0.5 to 0.999")
    found = run.table("attributions")
    if method not in set(found["method"]):
        raise Missing(f"{method}: run {run.name} has no such method, but {', '.join(found['method'].unique())}")
    stated = list(found.loc[found["method"] == method, "property"].unique())
    if property and property not in stated:
        raise Refused(f"{property}: {method} credits {', '.join(stated)}")
    stated = [property] if property else stated
    if pot and len(stated) > 1:
        raise Refused(f"a pot is divided by the credits of one property; name it: {', '.join(stated)}")
    sections = [_section(run, found, method, one, confidence, pot) for one in stated]
    frame = pd.concat([section["frame"] for section in sections], ignore_index=True)
    head = {"property": frame.pop("property"), "method": method, "confidence": confidence}
    for place, (column, values) in enumerate(head.items()):
        frame.insert(place, column, values)
    values = {
        "name": run.title,
        "n": run.table("contributors")["contributor"].nunique(),
        "sections": sections,
        "how": terms.how(run, method),
        "limits": terms.limits(stated),
        "paper": terms.PAPER,
    }
    return Statement(frame, render("statement.md", **values), render("statement.html", **values))


def _section(run, found, method, property, confidence, pot):
    """What the statement says of one property: its rows, tidy and readable, and the facts beside them."""
    table = run.table("contributors")
    filed = found[(found["method"] == method) & (found["property"] == property)].set_index("contributor")
    filed = filed.reindex(contributors.labels(table))
    credit = filed["value"].to_numpy()
    if np.isnan(credit).any():
        raise Missing(f"{method}: no credit for some contributors")
    estimate = attributions.again(run.params, run.table("measured"), found, method, property)
    known = estimate is not None and estimate.covariance is not None
    sure = ranking.above(credit, estimate.covariance, estimate.freedom, confidence) if known else None
    ends = _interval(filed, estimate, confidence)
    frame = _tidy(filed.index, contributors.counts(table), credit, *ends, sure, pot)
    frame.insert(0, "property", property)
    facts, everybody, nobody = terms.ends(run, property)
    gain, precision = everybody.mean() - nobody.mean(), 1e-6 * np.abs(credit).max()
    why = "too few coalitions to judge their noise" if estimate is not None else "the method does not tell"
    return {
        "frame": frame,
        "property": terms.property_name(property),
        "facts": [
            terms.about_property(run, property),
            *facts,
            ("Shares", terms.shares(credit, np.isclose(credit.sum(), gain, rtol=0, atol=precision))),
            *([("Pot", terms.pot(f"{pot // 100:,}.{pot % 100:02d}"))] if pot else []),
            *([("Noise", terms.noise(estimate.freedom))] if known else []),
            *terms.quality(run, method, property),
        ],
        "note": terms.compared(confidence, not np.isnan(ends[0]).any(), sure, why),
        "cells": _readable(frame),
        "bars": _bars(frame),
    }


def _tidy(labels, n_images, credit, low, high, sure, pot):
    """The rows of statement.csv of one property, by rank, of equals by label.

    labels                sorted; n_images, credit, low, high [N] are in their order
    credit, low, high     float [N]
    sure                  bool [N, N]    of `ranking.above`; None: not known
    """
    frame = pd.DataFrame({"contributor": labels, "n_images": n_images, "credit": credit, "low": low, "high": high})
    decimals = 1 if len(frame) <= 50 else 2
    frame["share_percent"] = ""
    if shares.defined(credit):
        frame["share_percent"] = _decimals(shares.apportion(credit, 100 * 10**decimals), decimals)
    frame["rank"] = ranking.rank(credit)
    frame["rank_low"], frame["rank_high"] = (pd.NA, pd.NA) if sure is None else ranking.interval(sure)
    frame["groups"] = "" if sure is None else [" ".join(letters) for letters in ranking.groups(credit, sure)]
    if pot:
        known = not np.isnan(low).any()
        frame["payout"] = _decimals(shares.payouts(credit, pot), 2)
        frame["payout_low"] = _decimals(shares.payout_at(credit, low, pot), 2) if known else ""
        frame["payout_high"] = _decimals(shares.payout_at(credit, high, pot), 2) if known else ""
    return frame.sort_values("rank", kind="stable", ignore_index=True)


def _decimals(units, decimals):
    return [shares.decimal(unit, decimals) for unit in units]


def _interval(filed, estimate, confidence):
    """Ends of the credits' intervals, float [N] each; NaN where they are not known."""
    if estimate is not None:
        reach = stats.t.ppf((1 + confidence) / 2, estimate.freedom) * estimate.stderr
        return estimate.value - reach, estimate.value + reach
    low, high = filed["low"].to_numpy(), filed["high"].to_numpy()
    if confidence != LEVEL and not np.isnan(low).all():
        raise Refused(f"{filed['method'].iloc[0]}: its intervals are known at a confidence of {LEVEL} only")
    return low, high


def _readable(frame):
    """The rows as a person reads them: a frame of str, without the columns of which nothing is known."""
    largest = frame["credit"].abs().max()
    digits = int(np.clip(2 - np.floor(np.log10(largest)), 0, 12)) if largest > 0 else 0
    cells = {
        "Rank": [str(a) if pd.isna(b) else f"{a} [{b}, {c}]" for a, b, c in frame[["rank", "rank_low", "rank_high"]].values],
        "Contributor": frame["contributor"],
        "Images": frame["n_images"].map("{:,}".format),
        "Credit": [number(*row, least=digits) for row in frame[["credit", "low", "high"]].to_numpy(float)],
        "Share (%)": frame["share_percent"],
        "Group": frame["groups"].map(_short),
    }
    if "payout" in frame:
        thousands = frame[["payout", "payout_low", "payout_high"]].map(_grouped)
        cells["Payout"] = [f"{a} [{b}, {c}]" if b else a for a, b, c in thousands.values]
    cells = pd.DataFrame(cells)
    return cells.loc[:, cells.ne("").any()]


def _short(groups):
    """Letters that follow one another as a stretch: "a b c" is "a-c"."""
    letters = groups.split()
    return f"{letters[0]}-{letters[-1]}" if len(letters) > 2 else " ".join(letters)


def _grouped(amount):
    whole, point, part = amount.partition(".")
    return f"{int(whole):,}{point}{part}" if amount else ""


def _bars(frame):
    """Where each credit is drawn, in percent of the width: dicts zero, credit, low, high."""
    ends = frame[["credit", "low", "high"]].assign(zero=0.0)
    left, right = ends.min().min(), ends.max().max()
    ends = ends.fillna({"low": ends["credit"], "high": ends["credit"]})
    return (100 * (ends - left) / ((right - left) or 1.0)).round(2).to_dict("records")
