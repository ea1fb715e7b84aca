"""Who owns which image, joined by image id and never by position.

N  contributors, in the order of their labels         T  images
"""

import numpy as np
import pandas as pd


def labels(table: pd.DataFrame) -> list[str]:
    """The contributors' labels, sorted: their order in every coalition and every result, [N]."""
    return sorted(table.contributor.unique())


def counts(table: pd.DataFrame) -> np.ndarray:
    """How many images each contributor gave, int [N]."""
    return table.groupby("contributor").size().loc[labels(table)].to_numpy()


def span(counts) -> str:
    """The least and the most of some counts, in words: "30", or "15 to 30"."""
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def owners(table: pd.DataFrame) -> pd.Series:
    """The contributor's index of each image, indexed by image id."""
    index = {label: i for i, label in enumerate(labels(table))}
    return table.set_index("image").contributor.map(index)


def images_of(table: pd.DataFrame, members: np.ndarray) -> np.ndarray:
    """Ids of a coalition's images, sorted, so that they do not depend on the table's order.

    members    bool [N]
    """
    owner = owners(table)
    return np.sort(owner.index[np.asarray(members, bool)[owner.to_numpy()]].to_numpy())


def group(table: pd.DataFrame) -> pd.Series:
    """The group of each contributor, for figures, indexed by label: the table's own column `group`, where it has one.

    Else whether the contributor is the only one to give a class: `alone` or `shares`.
    """
    if "group" in table:
        return table.groupby("contributor").group.first()
    givers = table.groupby("class").contributor.nunique()
    return table.groupby("contributor")["class"].agg(lambda c: "alone" if (givers[c.unique()] == 1).any() else "shares")
