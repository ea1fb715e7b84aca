"""Which tables and figures of the paper each kind of run gives, under the paper's own numbers, and what makes them.

A maker is a function of a run (store.Run): it reads tidy files and example images, and returns a `tables.Table` or a
`style.Drawing`, or None when this run has nothing to show there. One that lacks what it takes raises Missing, or returns
a drawing that says so: it is left out and named.
"""

import re
from functools import partial

import pandas as pd

from cdlib.base import sheets
from cdlib.base.disk import write_bytes
from cdlib.base.errors import Missing
from cdlib.data import contributors, design
from cdlib.models import families
from cdlib.show import analysis, examples, figures, pictures, reported, schematic, tables
from cdlib.show.style import Drawing, save, spoken
from cdlib.show.tables import Table

DATASETS = {"pixel": "cifar20", "latent": "celeba_hq", "text_to_image": "artbench"}  # the paper's, by family of the model
UNLEARNING = ("retrain", "sparse_finetune", "gradient_ascent", "influence_unlearning")

PLUS_MINUS = " (mean ± half of the 95 % interval over three seeds)"
OVER_SUBSETS = " (mean over 10 subsets ± what it gives in brackets, and does not name)"


def _about(run):
    """What a caption says of every LDS: the property, and how often was retrained."""
    p = run.params
    images = f"{spoken(p['property'])} of {p['n_images']:,} generated images"
    return f"Run {run.title}: {images}; retrained with {'up to ' if run.so_far else ''}{p['n_lds_seeds']} seeds."


def _lds_at_half(run):
    return Table(tables.table_1(_lds(run)), f"LDS (%) of all methods at α = 0.5. {_about(run)}")


def _runtime(run):
    return Table(tables.table_2(run.table("runtime")), f"Runtime for one coalition. Run {run.title}.")


def _lds_by_alpha(run):
    return Table(tables.table_3(_lds(run)), f"LDS (%) of all methods by α. {_about(run)}")


def _by_coalitions(run):
    caption = f"LDS (%) of the removal-based methods by number of coalitions. {_about(run)}"
    return Table(tables.table_4(run.table("lds_by_coalitions")), caption)


def _of_all_coalitions(run):
    caption = f"LDS (%) of the removal-based methods from all their coalitions, whose number is named. {_about(run)}"
    return Table(tables.table_8(run.table("lds_by_coalitions")), caption)


def _unlearning(run):
    found = _optional(run, "unlearning")
    caption = f"FID by {run.params['fid_embedding']} between images of unlearned and retrained models. Run {run.title}."
    return None if found.empty else Table(tables.table_9(found), caption)


def _framework(run):
    shown, made = _images(run), run.table("framework")
    samples = {"full": shown[f"generated/{examples.FULL}"]}
    samples |= {members: shown[f"coalition/{members}"] for members in made.loc[made["stage"] == "coalition", "members"]}
    return schematic.framework(_ours(run), made, _given(run, shown), samples)


def _budget(run, alpha=None):
    return figures.budget(run.table("lds_by_coalitions"), run.table("runtime"), alpha, _n_tests(run))


def _n_tests(run):
    """Test coalitions for each alpha, where all have those that were asked for; else None."""
    return n if set(_lds(run)["n_coalitions"]) == {n := run.params["n_subsets"]} else None


def _counterfactual(run):
    return figures.counterfactual(_beside(run, "figure_3", run.table("counterfactual")))


def _top_contributors(run):
    shown, drawn = _images(run), run.table("generated")
    drawn = drawn[drawn["change"].isin(["none", next(iter(design.changes(run.params)))])]
    samples = {title: shown[f"generated/{title}"] for title in drawn["title"]}
    return pictures.top_and_generated(_ours(run), _given(run, shown), samples, drawn, run.params["property"])


def _top_contributors_and_pairs(run):
    compared, sides = run.params["compared"], run.table("pairs")
    if sides.empty:
        return _top_contributors(run)
    method = design.OURS if design.OURS in compared else next(iter(compared), design.OURS)
    remove, keep = (examples.title(method, change) for change in design.changes(run.params))
    headings = {remove: f"Without the top {_percent(run, 'remove')} %", examples.FULL: "All"}
    headings |= {keep: f"Only the top {_percent(run, 'keep')} %"}
    chosen = sides[sides["title"].isin(headings) & (sides["place"] < 2)]
    headings = {name: heading for name, heading in headings.items() if name in set(chosen["title"])}
    shown = _images(run)
    return pictures.top_and_pairs(_ours(run), _given(run, shown), shown, chosen, headings, run.params["quantile"])


def _by_fraction(run):
    drawn = run.table("generated")
    drawn = drawn[~drawn["change"].str.startswith("keep")]
    samples = {name.removeprefix("generated/"): array for name, array in _images(run).items()}
    return pictures.by_fraction(samples, drawn, run.params["property"])


def _pairs(run, places):
    """Two images above and two below the quantile, for each compared method."""
    sides, change = run.table("pairs"), next(iter(design.changes(run.params)))
    headings = {examples.title(method, change): method for method in run.params["compared"]}
    if sides.empty:
        return None
    chosen = sides[sides["title"].isin(headings) & sides["place"].isin(places)]
    headings = {title: method for title, method in headings.items() if title in set(chosen["title"])}
    if not headings:
        raise Missing("no model without the top contributors is measured")
    words = f"Retrained without the top {_percent(run, 'remove')} % by each method. "
    return pictures.pairs_of(_images(run), chosen, headings, run.params["quantile"], words)


def _unlearned(run):
    shown = _images(run)
    samples = {name: shown[f"unlearning/{name}"] for name in UNLEARNING if f"unlearning/{name}" in shown}
    if not samples and run.params["n_unlearn"]:
        raise Missing("no coalition is measured by every procedure")
    return pictures.unlearned(samples) if samples else None


def _who_they_are(run):
    training = run.table("training_images")
    if "entropy" in training:
        return analysis.image_entropy(_ours(run), training, _reported(run, "figure_12") if is_papers(run) else None)
    return analysis.clusters(_ours(run), training, _given(run, _images(run))) if "cluster" in training else None


def _credit(run):
    group = contributors.group(run.table("contributors"))
    return figures.credit(_ours(run).assign(group=lambda ours: ours["contributor"].map(group)), design.OURS)


def _credit_by_property(run):
    found = run.table("attributions").query("method == @design.OURS")
    return figures.credit_by_property(found, list(run.properties)) if len(run.properties) > 1 else None


def _lds_by_property(run):
    several = len(run.properties) > 1
    caption = f"LDS (%) of all methods at α = 0.5, of each property of the same images. Run {run.title}."
    return Table(tables.table_1(run.table("lds")), caption) if several else None


ALL = {
    "table_1": _lds_at_half,
    "table_2": _runtime,
    "figure_1": _framework,
    "figure_2": partial(_budget, alpha=0.5),
    "figure_3": _counterfactual,
    "figure_4": _top_contributors,
}
# Not in the paper.
OWN = {
    "credit": _credit,
    "credit_by_property": _credit_by_property,
    "lds_by_property": _lds_by_property,
    "fidelity": lambda run: figures.fidelity(run.table("fidelity"), run.params["property"]),
    "lds": lambda run: figures.methods_by_lds(_lds(run)),
    "lds_by_coalitions": lambda run: figures.by_coalitions(run.table("lds_by_coalitions"), _n_tests(run)),
}
UNLEARNED = {"table_9": _unlearning, "figure_11": _unlearned}
# Family of the run's model -> name of the file -> maker.
MAKERS = {
    "pixel": ALL
    | {"table_3": _lds_by_alpha, "table_4": _by_coalitions, "figure_5": _budget, "figure_6": _by_fraction}
    | {"figure_12": _who_they_are, **UNLEARNED, **OWN},
    "latent": ALL
    | {"table_5": _lds_by_alpha, "table_6": _by_coalitions, "figure_7": _budget}
    | {"figure_12": _who_they_are, **UNLEARNED, **OWN},
    "text_to_image": ALL
    | {"table_7": _lds_by_alpha, "table_8": _of_all_coalitions, "figure_8": _budget, "figure_4": _top_contributors_and_pairs}
    | {"figure_9": partial(_pairs, places=(0, 1)), "figure_10": partial(_pairs, places=(2, 3)), **OWN},
}


def family(model):
    """The family of a model, which decides whose tables and figures a run gives."""
    return families.PRESETS[model]["family"]


def make(run):
    """Every table and figure of a run: {name of its files: Table or Drawing}, tables first, by number."""
    makers = MAKERS[family(run.params["model"])]
    made = run.possible({name: partial(_made, makers[name]) for name in sorted(makers, key=_order)}, run)
    return {name: _compared(run, name, thing) for name, thing in made.items() if thing is not None}


def _made(maker, run):
    """What a maker returns. Raises Missing when there is nothing in it."""
    thing = maker(run)
    why = "nothing of it is measured" if isinstance(thing, Table) and thing.frame.empty else getattr(thing, "missing", "")
    if why:
        raise Missing(why)
    return thing


def write(run, made):
    """Writes what `make` made into figures/<name>/, and removes tables and figures there that are no longer this run's.

    In the tables of a run of the paper's own setting stand the paper's numbers too. Under those of another run they stand as
    context, and in files of their own (table_3_reported.csv).
    Returns a frame: file, caption or "figure".
    """
    run.figures.mkdir(parents=True, exist_ok=True)
    written = set(made)
    for name, thing in made.items():
        rows = _reported(run, name)
        apart = not rows.empty and not is_papers(run)
        if apart:
            write_bytes(run.figures / f"{name}_reported.csv", sheets.write(rows))
            written.add(f"{name}_reported")
        if isinstance(thing, Drawing):
            save(thing, run.figures, name)
        else:
            tables.write(
                thing.frame, run.figures, name, thing.caption, (_words(rows), reported.readable(rows)) if apart else None
            )
    for path in run.figures.iterdir():
        if re.fullmatch(r"(table|figure)_\d+(_reported)?", path.stem) and path.stem not in written:
            path.unlink(missing_ok=True)
    kinds = ["figure" if isinstance(thing, Drawing) else thing.caption for thing in made.values()]
    return pd.DataFrame({"file": list(made), "shows": kinds})


def is_papers(run):
    """Whether a run is of the paper's own setting, so that its numbers can be set beside the paper's."""
    return run.name.removesuffix("_released") in reported.SETTINGS


def _reported(run, name):
    return reported.of(name, DATASETS[family(run.params["model"])])


def _beside(run, name, frame):
    rows = _reported(run, name)
    return reported.beside(frame, rows) if is_papers(run) and not rows.empty else frame


def _compared(run, name, thing):
    return Table(_beside(run, name, thing.frame), thing.caption) if isinstance(thing, Table) else thing


def _words(rows):
    setting = reported.SETTINGS[rows["dataset"].iloc[0]]
    spread = OVER_SUBSETS if (rows["quantity"] == "fid_vs_retrain").any() else PLUS_MINUS
    return f"The paper reports for {setting}, on another data set and model{spread if rows['half_width'].any() else ''}:"


def _ours(run):
    found = run.table("attributions").query("method == @design.OURS and property == @run['property']")
    if found.empty:
        raise Missing(f"{design.OURS} has no credits")
    return found


def _lds(run):
    return run.table("lds").query("property == @run['property']")


def _images(run):
    return {name: pictures.channels_last(array) for name, array in run.arrays("examples").items()}


def _given(run, shown):
    return {name.removeprefix("contributor/"): array for name, array in shown.items() if name.startswith("contributor/")}


def _percent(run, what):
    return f"{100 * run.params[f'{what}_fraction']:.0f}"


def _optional(run, name):
    """A table that this run may not have; no rows then."""
    return run.table(name) if run.path(f"{name}.csv").is_file() else pd.DataFrame()


def _order(name):
    kind, _, number = name.partition("_")
    return (kind not in ("table", "figure"), kind == "figure", int(number) if number.isdigit() else 0)
