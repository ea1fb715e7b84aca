"""The paper's tables, from tidy frames.

`table_*` choose and order tidy rows; `readable` lays them out for a person; `write` keeps both.
"""

import re
from dataclasses import dataclass
from functools import partial
from html import escape
from pathlib import Path

import numpy as np
import pandas as pd

from cdlib.base import sheets
from cdlib.base.disk import write_bytes
from cdlib.base.errors import Missing
from cdlib.show.lettering import decimals, number
from cdlib.show.style import CEILING, INTERVAL, PROCEDURES, in_order

PERCENT = partial(number, least=1)
DIFFERENCE = "Reported: by the paper (95 % over three seeds). Difference: ours less that; the half widths in quadrature."
TEX = {
    **{letter: f"\\{letter}" for letter in "&%$#_{}"},
    **{"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"},
    **{"|": r"\textbar{}", "<": r"\textless{}", ">": r"\textgreater{}", "α": r"$\alpha$", "±": r"$\pm$"},
}


@dataclass(frozen=True, repr=False)
class Table:
    """A tidy frame with its caption, which shows itself in a notebook as `readable`."""

    frame: pd.DataFrame
    caption: str

    def _repr_html_(self):
        cells = re.sub(r"\*\*(.+?)\*\*", r"<b>\1</b>", readable(self.frame).to_html(index=False))
        return f"<p>{escape(self.caption)}</p>{cells}"


def table_1(lds, alpha=0.5):
    """LDS of each method at one alpha. Columns of lds.csv. Source: Table 1."""
    return in_order(lds[np.isclose(lds["alpha"], alpha)])


def table_2(runtime):
    """Seconds for one coalition by procedure, in all and in units of one retraining. Source: Table 2.

    Returns the columns of runtime.csv with total_seconds and ratio_to_retrain.
    Raises Missing (a ValueError) when nothing was retrained.
    """
    table = in_order(runtime, "procedure")
    table["total_seconds"] = table["train_seconds"] + table["sample_seconds"]
    retrain = table.loc[table["procedure"] == "retrain", "total_seconds"]
    if retrain.empty:
        raise Missing('runtime has no row "retrain" to compare with: measure one retrained coalition first')
    table["ratio_to_retrain"] = table["total_seconds"] / retrain.iloc[0]
    return table


def table_3(lds):
    """LDS of each method at every alpha. Columns of lds.csv. Source: Tables 3, 5 and 7."""
    return in_order(lds.sort_values("alpha", kind="stable"))


def table_4(lds_by_coalitions):
    """LDS of the removal-based methods by alpha and number of coalitions. Source: Tables 4 and 6.

    Returns the columns of lds_by_coalitions.csv.
    """
    return in_order(lds_by_coalitions.sort_values(["alpha", "n_coalitions"], kind="stable"), "procedure")


def table_8(lds_by_coalitions):
    """LDS of the removal-based methods by alpha, from all coalitions of each. Columns as of `table_4`. Source: Table 8."""
    most = lds_by_coalitions.groupby(["procedure", "estimator"])["n_coalitions"].transform("max")
    table = table_4(lds_by_coalitions[lds_by_coalitions["n_coalitions"] == most])
    return table.sort_values(["alpha", "estimator"], kind="stable", ignore_index=True)


def table_9(unlearning):
    """How far what each procedure draws is from what retraining draws: FID, over coalitions. Source: Table 9.

    unlearning    rows of unlearning.csv

    Returns procedure, fid (mean), fid_sd (NaN of one coalition), n_coalitions. `retrain_again` and `unchanged` are no
    procedures of the paper: the one is the noise of retraining, the other what doing nothing gives.
    """
    groups = unlearning.dropna(subset="fid").astype({"fid": float}).groupby("procedure", sort=False).fid
    return in_order(groups.agg(fid="mean", fid_sd="std", n_coalitions="count").reset_index(), "procedure")


def joined(by_run):
    """LDS of each method at alpha 0.5 in several runs: the columns of Table 1, one a run. Source: Table 1.

    by_run   {run: its table_1}
    Returns run, then the columns of lds.csv.
    """
    columns = "method property alpha lds_percent low high interval ceiling_percent n_coalitions".split()
    return pd.concat([table[columns].assign(run=name) for name, table in by_run.items()], ignore_index=True)[["run", *columns]]


def readable(frame):
    """The frame as a person reads it: "61.5 [55.2, 67.0]", best in **bold**, the ceiling last.

    Rows with LDS become methods x alpha (or x runs), or for each alpha coalitions x procedures (or alpha x procedures, when all
    coalitions of each were used), with the intervals over test coalitions; rows with seconds or FID, one line a procedure.
    Where the paper's numbers stand beside, they and the differences follow each column.
    Returns a frame of str.
    """
    if "lds_percent" in frame and "procedure" in frame:
        estimator = np.where(frame["estimator"] == "paper", " (paper's estimator)", "")
        named = frame.assign(method=frame["procedure"].replace(PROCEDURES) + estimator)
        if named.groupby("method")["n_coalitions"].nunique().max() == 1:
            named["method"] += ", " + named["n_coalitions"].astype(str)
            return _transposed(_lds(named[named["interval"] == "subsets"], "alpha", "{:g}"), "α")
        return _blocks(named, ["property", "alpha"], lambda rows: _transposed(_lds(rows, "n_coalitions", "{}"), "Coalitions"))
    if "run" in frame:
        cells = _lds(frame[frame["interval"] == "subsets"], "run", "{}")
        return pd.concat([in_order(cells.iloc[:-1], "Method"), cells.tail(1)], ignore_index=True)
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
    for value, rows in frame.groupby(across, sort=across != "run"):
        texts = map(PERCENT, rows["lds_percent"], rows["low"], rows["high"])
        cells = dict(zip(rows["method"], texts, strict=True))
        credits = rows[~rows["method"].str.endswith("(control)")].set_index("method")["lds_percent"].dropna()
        if len(credits):
            cells[credits.idxmax()] = f"**{cells[credits.idxmax()]}**"
        columns[heading.format(value)] = cells | {"Ceiling": PERCENT(rows["ceiling_percent"].iloc[0])}
        for name, texts in _beside(rows).items():
            columns[f"{heading.format(value)}, {name}"] = dict(zip(rows["method"], texts, strict=True))
    table = pd.DataFrame(columns, index=[*frame["method"].unique(), "Ceiling"]).fillna("-")
    return table.rename_axis("Method").reset_index()


def _transposed(table, name):
    return table.set_index("Method").T.rename_axis(name, axis=0).rename_axis(None, axis=1).reset_index()


def _beside(rows):
    """What the paper reports and the difference, as text, where a table has them."""
    if "reported" not in rows or rows["reported"].isna().all():
        return {}
    return {
        name: [PERCENT(*row) for row in rows[[name, f"{name}_low", f"{name}_high"]].itertuples(index=False)]
        for name in ("reported", "difference")
    }


def _seconds(table):
    minutes = table["total_seconds"].max() >= 120
    unit, divisor = ("min", 60) if minutes else ("s", 1)
    cells = pd.DataFrame(
        {
            "Procedure": table["procedure"].replace(PROCEDURES),
            f"Training ({unit})": (table["train_seconds"] / divisor).map(number),
            f"Inference ({unit})": (table["sample_seconds"] / divisor).map(number),
            f"Total ({unit})": (table["total_seconds"] / divisor).map(number),
            "Ratio to retraining": table["ratio_to_retrain"].map(partial(number, least=3)),
            "Coalitions": table["n"].map("{:.0f}".format),
        }
    )
    for name in [name for name in ("reported", "difference") if name in table]:
        cells[f"Total, {name} ({unit})"] = (table[name] / divisor).map(number)
    return cells


def _fid(table):
    digits = decimals(table["fid"].min(), 1 if table["fid"].max() >= 10 else 2)
    texts = [f"{mean:.{digits}f} ({sd:.{digits}f})" for mean, sd in zip(table["fid"], table["fid_sd"], strict=True)]
    return pd.DataFrame(
        {
            "Procedure": table["procedure"].replace(PROCEDURES),
            "FID to retraining": [text.removesuffix(" (nan)") for text in texts],
            "Coalitions": table["n_coalitions"].map("{:.0f}".format),
            **({"Reported": table["reported"].map("{:.1f}".format).replace("nan", "-")} if "reported" in table else {}),
        }
    )


def footer(frame):
    """What the readable form leaves unsaid: the kind of interval, n, and what the ceiling is."""
    beside = f" {DIFFERENCE}" if "reported" in frame else ""
    if "train_seconds" in frame:
        return f"Medians over the coalitions measured.{beside}"
    if "fid_sd" in frame:
        return "Mean (standard deviation) over coalitions; lower is closer. Retraining with another seed: noise alone."
    if "lds_percent" not in frame:
        return beside.strip()
    n = "" if "procedure" in frame else f" (n = {' or '.join(str(n) for n in sorted(set(frame['n_coalitions'])))})"
    dash = "Best credit in bold; a control is not a credit. A dash: not measured or not defined."
    interval = INTERVAL if frame["low"].notna().any() else "No intervals: too few test coalitions"
    return f"{interval}{n}. {CEILING} {dash}{beside}"


def write(frame, folder, name, caption, context=None):
    """Writes folder/name.csv (tidy, full precision), name.md and name.tex (readable, with caption and footer).

    context   (caption, cells of str): a second table under the first one in md and tex, such as what the paper reports
    Returns the path of the csv.
    """
    path = Path(folder) / name
    caption = f"{caption} {footer(frame)}".strip()
    parts = [("", readable(frame)), *([context] if context else [])]
    write_bytes(path.with_suffix(".csv"), sheets.write(frame))
    for suffix, text in ((".md", _markdown(parts, name, caption)), (".tex", _tex(parts, name, caption))):
        write_bytes(path.with_suffix(suffix), text.encode())
    return path.with_suffix(".csv")


def _markdown(parts, name, caption):
    blocks = [f"**{name.replace('_', ' ').capitalize()}.** {caption}"]
    for words, cells in parts:
        rows = [[cell.replace("|", r"\|") for cell in row] for row in [cells.columns, *cells.values]]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in rows]
        lines.insert(1, "|" + "|".join("-" * (w + 2) for w in widths) + "|")
        blocks += [*filter(None, [words]), "\n".join(lines)]
    return "\n\n".join(blocks) + "\n"


def _tex(parts, name, caption):
    """A table with one booktabs tabular for each part; a wide one is shrunk to the line."""
    lines = [r"\begin{table}", r"\centering", rf"\caption{{{_escape(caption)}}}", rf"\label{{tab:{name}}}"]
    for words, cells in parts:
        rows = [" & ".join(map(_escape, row)) + r" \\" for row in cells.values.tolist()]
        wide = len(cells.columns) > 5
        lines += [rf"\par\medskip {_escape(words)}\par\smallskip"] if words else []
        lines += [
            *([r"\resizebox{\linewidth}{!}{%"] if wide else []),
            rf"\begin{{tabular}}{{{'l' + 'r' * (len(cells.columns) - 1)}}}",
            r"\toprule",
            " & ".join(map(_escape, cells.columns)) + r" \\",
            r"\midrule",
            *rows,
            r"\bottomrule",
            r"\end{tabular}" + ("}" if wide else ""),
        ]
    return "\n".join([*lines, r"\end{table}", ""])


def _escape(text):
    text = "".join(TEX.get(letter, letter) for letter in text)
    return re.sub(r"\*\*(.+?)\*\*", r"\\textbf{\1}", re.sub(r"(?<![\w-])-(?=\d)", "$-$", text))
