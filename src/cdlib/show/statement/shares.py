"""A whole shared out by credit, in units that add up exactly: hundredths of a percent, or cents.

N  contributors
"""

import math
import re
from fractions import Fraction

from cdlib.base.errors import Refused


def apportion(weights, total):
    """A whole number of units for each, [N] ints that sum to `total`, in proportion to the weights.

    Each gets its quota rounded down; the units left go to the largest remainders, of equals to the first. So a greater weight
    never gets less, and equal ones differ by one unit at most.

    weights   float [N]  may be negative, and so may be what they get; their sum must be above 0
    total     int        units to share out, at least 0

    Raises ValueError when the weights do not sum to more than 0.
    Source: the method of largest remainders (Hamilton); in exact arithmetic, so that no rounding breaks a tie.
    """
    quotas = _quotas(weights, total)
    units = [int(quota // 1) for quota in quotas]
    by_remainder = sorted(range(len(units)), key=lambda i: units[i] - quotas[i])
    for i in by_remainder[: total - sum(units)]:
        units[i] += 1
    return units


def defined(credits):
    """Whether credits have shares: whether they sum to more than nothing, and than the rounding of what cancels."""
    return math.fsum(credits) > 1e-9 * max(map(abs, credits))


def payouts(credits, cents):
    """What each gets of a pot, [N] ints of cents that sum to it: in proportion to the credits, of which none counts below 0.

    Raises Refused when no credit is above 0.
    """
    if not any(credit > 0 for credit in credits):
        raise Refused("no credit is above zero: there is nothing to divide the pot by")
    return apportion([max(float(credit), 0.0) for credit in credits], cents)


def payout_at(credits, ends, cents):
    """What each would get with another credit, all others as they are, [N] ints of cents.

    ends   float [N]  such as one end of the credit's interval
    """
    counted, ends = ([Fraction(max(float(credit), 0.0)) for credit in some] for some in (credits, ends))
    whole = sum(counted)
    others = [whole - credit for credit in counted]
    return [round(cents * end / (end + rest)) if end else 0 for end, rest in zip(ends, others, strict=True)]


def cents(text):
    """An amount of money as cents: "10000", "10000.5" or "10000.50". Raises Refused for anything else, and for nothing."""
    found = re.fullmatch(r"([0-9]+)(?:\.([0-9]{1,2}))?", text)
    amount = int(found[1]) * 100 + int((found[2] or "").ljust(2, "0")) if found else 0
    if not amount:
        raise Refused(f"{text}: an amount above 0 with at most two decimals is meant, such as 10000 or 10000.50")
    return amount


def decimal(units, decimals):
    """Units of 10^-decimals as text, exactly: 1205 with 2 decimals is "12.05"."""
    whole, part = divmod(abs(units), 10**decimals)
    return f"{'-' if units < 0 else ''}{whole}.{part:0{decimals}d}"


def _quotas(weights, total):
    exact = [Fraction(float(weight)) for weight in weights]
    if (whole := sum(exact)) <= 0:
        raise ValueError(f"the weights sum to {float(whole):g}: nothing can be shared out by them")
    return [weight * total / whole for weight in exact]
