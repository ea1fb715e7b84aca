"""The paper's tables, from tidy frames.

`table_*` choose and order tidy rows; `readable` lays them out for a person; `write` keeps both.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd

from .style import CEILING, INTERVAL, PROCEDURES, in_order

TEX = {"&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_", "~": r"\textasciitilde{}", "α": r"$\alpha$"}


def table_1(lds, alpha=0.5):
    """LDS of each method at one alpha. Columns of lds.csv. Source: Table 1."""
    return in_order(lds[np.isclose(lds["alpha"], alpha)])


def table_2(runtime):
    """Seconds for one coalition by procedure, in all and in units of one retraining. Source: Table 2.

    Returns the columns of runtime.csv with total_seconds and ratio_to_retrain.
    Raises ValueError when nothing was retrained.
    """
    table = in_order(runtime, "procedure")
    table["total_seconds"] = table["train_seconds"] + table["sample_seconds"]
    retrain = table.loc[table["procedure"] == "retrain", "total_seconds"]
    if retrain.empty:
        raise ValueError('runtime has no row "retrain" to compare with: measure one retrained coalition first')
    table["ratio_to_retrain"] = table["total_seconds"] / retrain.iloc[0]
    return table


def table_3(lds):
    """LDS of each method at every alpha. Columns of lds.csv. Source: Tables 3, 5 and 7."""
    return in_order(lds.sort_values("alpha", kind="stable"))


def table_4(lds_by_coalitions):
    """LDS of the removal-based methods by alpha and number of coalitions. Source: Tables 4, 6 and 8.

    Returns the columns of lds_by_coalitions.csv.
    """
    return in_order(lds_by_coalitions.sort_values(["alpha", "n_coalitions"], kind="stable"), "procedure")


def table_9(unlearning):
    """How far what each procedure draws is from what retraining draws: FID, over coalitions. Source: Table 9.

    unlearning    rows of unlearning.csv

    Returns procedure, fid (mean), fid_sd (NaN of one coalition), n_coalitions. `retrain_again` and `unchanged` are no
    procedures of the paper: the one is the noise of retraining, the other what doing nothing gives.
    """
    groups = unlearning.dropna(subset="fid").astype({"fid": float}).groupby("procedure", sort=False).fid
    return in_order(groups.agg(fid="mean", fid_sd="std", n_coalitions="count").reset_index(), "procedure")


def readable(frame):
    """The frame as a person reads it: "61.5 [55.2, 67.0]", best in **bold**, the ceiling last.

    Rows with LDS become methods x alpha, or for each alpha coalitions x procedures, with the intervals over test
    coalitions; rows with seconds, or with FID, become one line a procedure.
    Returns a frame of str.
    """
    if "lds_percent" in frame and "procedure" in frame:
        estimator = np.where(frame["estimator"] == "paper", " (paper's estimator)", "")
        named = frame.assign(method=frame["procedure"].replace(PROCEDURES) + estimator)
        return _blocks(named, ["property", "alpha"], lambda rows: _transposed(_lds(rows, "n_coalitions", "{}")))
    if "lds_percent" in frame:
        return _blocks(frame, ["property"], lambda rows: _lds(rows, "alpha", "LDS (%), α = {:g}"))
    if "train_seconds" in frame:
        return _seconds(frame)
    if "fid_sd" in frame:
        return _fid(frame)
    return frame.map(lambda cell: f"{cell:.4g}" if isinstance(cell, float) else str(cell))


def _blocks(frame, by, table_of):
    """The table of each property, and of each alpha if asked for, one under another; a lone property is not named."""
    frame, blocks = frame[frame["interval"] == "subsets"], []
    for values, rows in frame.groupby(by):
        block = table_of(rows)
        for place, (column, value) in enumerate(zip(by, values, strict=True)):
            block.insert(place, {"property": "Property", "alpha": "α"}[column], str(value))
        blocks.append(block)
    table = pd.concat(blocks, ignore_index=True).fillna("-")
    return table if frame["property"].nunique() > 1 else table.drop(columns="Property")


def _lds(frame, across, heading):
    """One row a method, and the ceiling; one column for each value of `across`."""
    columns = {}
    for value, rows in frame.groupby(across):
        texts = map(_with_interval, rows["lds_percent"], rows["low"], rows["high"])
        cells = dict(zip(rows["method"], texts, strict=True))
        credits = rows[~rows["method"].str.endswith("(control)")].set_index("method")["lds_percent"].dropna()
        if len(credits):
            cells[credits.idxmax()] = f"**{cells[credits.idxmax()]}**"
        columns[heading.format(value)] = cells | {"Ceiling": _with_interval(rows["ceiling_percent"].iloc[0])}
    table = pd.DataFrame(columns, index=[*frame["method"].unique(), "Ceiling"])
    return table.rename_axis("Method").reset_index()


def _transposed(table):
    return table.set_index("Method").T.rename_axis("Coalitions", axis=0).rename_axis(None, axis=1).reset_index()


def _with_interval(value, low=np.nan, high=np.nan):
    if np.isnan(value):
        return "-"
    return f"{value:z.1f}" if np.isnan(low) else f"{value:z.1f} [{low:z.1f}, {high:z.1f}]"


def _seconds(table):
    minutes = table["total_seconds"].max() >= 120
    unit, divisor = ("min", 60) if minutes else ("s", 1)
    return pd.DataFrame(
        {
            "Procedure": table["procedure"].replace(PROCEDURES),
            f"Training ({unit})": (table["train_seconds"] / divisor).map("{:.2f}".format),
            f"Inference ({unit})": (table["sample_seconds"] / divisor).map("{:.2f}".format),
            f"Total ({unit})": (table["total_seconds"] / divisor).map("{:.2f}".format),
            "Ratio to retraining": table["ratio_to_retrain"].map("{:.3f}".format),
            "Coalitions": table["n"].map("{:.0f}".format),
        }
    )


def _fid(table):
    digits = 1 if table["fid"].max() >= 10 else 2
    texts = [f"{mean:.{digits}f} ({sd:.{digits}f})" for mean, sd in zip(table["fid"], table["fid_sd"], strict=True)]
    return pd.DataFrame(
        {
            "Procedure": table["procedure"].replace(PROCEDURES),
            "FID to retraining": [text.removesuffix(" (nan)") for text in texts],
            "Coalitions": table["n_coalitions"].map("{:.0f}".format),
        }
    )


def footer(frame):
    """What the readable form leaves unsaid: the kind of interval, n, and what the ceiling is."""
    if "train_seconds" in frame:
        return "Medians over the coalitions measured."
    if "fid_sd" in frame:
        return "Mean (standard deviation) over coalitions; lower is closer. Retraining with another seed: noise alone."
    if "lds_percent" not in frame:
        return ""
    n = "" if "procedure" in frame else f" (n = {' or '.join(str(n) for n in sorted(set(frame['n_coalitions'])))})"
    dash = "Best credit in bold; a control is not a credit. A dash: not measured or not defined."
    return f"{INTERVAL}{n}. {CEILING} {dash}"


def write(frame, folder, name, caption):
    """Writes folder/name.csv (tidy, full precision), name.md and name.tex (readable, with caption and footer).

    Returns the path of the csv.
    """
    path = Path(folder) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    cells, caption = readable(frame), f"{caption} {footer(frame)}".strip()
    frame.to_csv(path.with_suffix(".csv"), index=False, lineterminator="\n")
    path.with_suffix(".md").write_text(_markdown(cells, name, caption), encoding="utf-8", newline="\n")
    path.with_suffix(".tex").write_text(_tex(cells, name, caption), encoding="utf-8", newline="\n")
    return path.with_suffix(".csv")


def _markdown(cells, name, caption):
    rows = [[cell.replace("|", r"\|") for cell in row] for row in [cells.columns, *cells.values]]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
    lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
    return f"**{name.replace('_', ' ').capitalize()}.** {caption}\n\n" + "\n".join(lines) + "\n"


def _tex(cells, name, caption):
    """A booktabs table."""
    rows = [" & ".join(map(_escape, row)) + r" \\" for row in cells.values.tolist()]
    return "\n".join(
        [
            r"\begin{table}",
            r"\centering",
            rf"\caption{{{_escape(caption)}}}",
            rf"\label{{tab:{name}}}",
            rf"\begin{{tabular}}{{{'l' + 'r' * (len(cells.columns) - 1)}}}",
            r"\toprule",
            " & ".join(map(_escape, cells.columns)) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _escape(text):
    text = "".join(TEX.get(letter, letter) for letter in text)
    return re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", re.sub(r"(?<![\w-])-(?=\d)", "$-$", text))
