"""Tables, figures and the report, from tidy frames made here."""

import os
import subprocess
import sys

import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot
from PIL import Image

from cdlib.show import analysis, figures, pictures, reported, schematic, style, tables

OURS = "Sparsified-FT Shapley (Ours)"
CONTRIBUTORS = [*"01234", *(f"{digit}{owner}" for digit in "56789" for owner in "abc")]


@pytest.fixture(scope="module")
def lds():
    percents = {OURS: 61.5, "Leave-one-out (LOO)": 30.7, "Ridge datamodel (control)": 90.0, "A new method": -4.01}
    rows = [
        (method, "inception_score", alpha, percent + alpha / 3, percent - 6, percent + 5, interval, 94.0, 48)
        for method, percent in percents.items()
        for alpha in (0.25, 0.5, 0.75)
        for interval in ("subsets", "seeds")
    ]
    columns = "method property alpha lds_percent low high interval ceiling_percent n_coalitions"
    return pd.DataFrame(rows, columns=columns.split())


@pytest.fixture(scope="module")
def lds_by_coalitions():
    rows = [
        (procedure, estimator, "inception_score", alpha, n, n / 2, n / 2 - 9, n / 2 + 9, "subsets", 94.0)
        for procedure, estimator in [("retrain", "ours"), ("sparse_finetune", "ours"), ("sparse_finetune", "paper")]
        for alpha in (0.25, 0.5)
        for n in (40, 80, 120)
    ]
    columns = "procedure estimator property alpha n_coalitions lds_percent low high interval ceiling_percent"
    return pd.DataFrame(rows, columns=columns.split())


@pytest.fixture(scope="module")
def runtime():
    rows = [("sparse_finetune", 2.4, 1.0, 160), ("finetune", 4.0, 1.6, 40), ("retrain", 12.1, 1.5, 96)]
    return pd.DataFrame(rows, columns=["procedure", "train_seconds", "sample_seconds", "n"])


@pytest.fixture(scope="module")
def counterfactual():
    rows = [
        (method, "inception_score", change, percent, percent - 3, percent + 3, 3)
        for method, percent in [
            (OURS, -23.2),
            ("Sparsified-FT Shapley (paper's estimator)", -9.0),
            ("FT Shapley", -17.3),
        ]
        for change in ("remove_top_40", "keep_top_60")
    ]
    return pd.DataFrame(rows, columns=["method", "property", "change", "percent", "low", "high", "n_seeds"])


@pytest.fixture(scope="module")
def attributions():
    value = np.linspace(0.1, 0.5, 20)
    frame = pd.DataFrame({"method": OURS, "property": "inception_score", "contributor": CONTRIBUTORS, "value": value})
    return frame.assign(stderr=0.05, low=value - 0.1, high=value + 0.1, group=["alone"] * 5 + ["shares"] * 15)


@pytest.fixture(scope="module")
def examples():
    return {contributor: np.full((6, 8, 8), 10 * i, np.uint8) for i, contributor in enumerate(CONTRIBUTORS)}


@pytest.fixture(scope="module")
def samples():
    noise = np.random.default_rng(0).integers(0, 256, (2, 5, 8, 8, 3), np.uint8)
    return dict(zip(["Full model", "Without the top 40 %"], noise, strict=True))


@pytest.fixture(scope="module")
def models(samples):
    """Rows of generated.csv, of which the second belongs to no sample's method."""
    rows = [(title, title, change, 5.0, 3, "") for title, change in zip(samples, ("none", "remove_top_40"), strict=True)]
    return pd.DataFrame(rows, columns=["title", "method", "change", "value", "n_seeds", "key"])


@pytest.fixture(scope="module")
def pairs(samples):
    """Rows of pairs.csv; the second model has only one image above."""
    rows = [(title, side, i, i, 60.0 + i, 62.5) for title in samples for side in ("above", "below") for i in (0, 1)]
    return pd.DataFrame(rows, columns=["title", "side", "place", "image", "score", "threshold"]).drop(index=5)


@pytest.fixture(scope="module")
def training():
    """Rows of training_images.csv, with both of what a property may see; the first contributor fills a cluster alone."""
    rng, contributor = np.random.default_rng(0), np.repeat(CONTRIBUTORS, 6)
    cluster = np.where(contributor == "0", 7, rng.integers(0, 4, len(contributor)))
    return pd.DataFrame({"contributor": contributor, "entropy": rng.gamma(2, 1, len(contributor)), "cluster": cluster})


@pytest.fixture(scope="module")
def framework():
    coalitions = [("coalition", "1" * k + "0" * (20 - k), 65_257, 3.0 + k / 4, "") for k in (5, 10, 15)]
    rows = [("full", "1" * 20, 118_289, 6.17, ""), ("sparse", "", 65_257, np.nan, ""), *coalitions]
    return pd.DataFrame(rows, columns=["stage", "members", "parameters", "value", "key"])


@pytest.fixture(scope="module")
def every_table(lds, lds_by_coalitions, runtime):
    return {
        "table_1": tables.table_1(lds),
        "table_2": tables.table_2(runtime),
        "table_3": tables.table_3(lds),
        "table_4": tables.table_4(lds_by_coalitions),
        "table_9": tables.table_9(unlearning(("sparse_finetune", [0.2, 0.3]), ("gradient_ascent", [1 / 3, np.pi]))),
        "table_8": tables.table_8(lds_by_coalitions),
    }


def several(attributions):
    """Credits of three properties, the second in reverse of the first, and their names."""
    ours = attributions[attributions["method"] == OURS]
    other = ours.assign(property="mine:a_long_name_of_a_function", value=-ours["value"], low=-ours["high"], high=-ours["low"])
    names = [ours["property"].iloc[0], *other["property"].unique(), "cluster_entropy"]
    return pd.concat([ours, other, ours.assign(property="cluster_entropy")], ignore_index=True), names


@pytest.fixture(scope="module")
def every_figure(
    lds, lds_by_coalitions, runtime, counterfactual, attributions, examples, samples, models, pairs, training, framework
):
    generator = np.random.default_rng(0)
    v = generator.uniform(3, 6, 48)
    coalitions = pd.DataFrame({"retrain": v, "sparse_finetune": 0.9 * v, "size": np.arange(48) % 19 + 1})
    full, without = samples.values()
    drawn = {"full": full} | dict.fromkeys(framework["members"], without)
    sides = {f"{side}/{title}": array for title, array in samples.items() for side in ("above", "below")}
    headings = {title: title for title in samples}
    unlearned = dict.fromkeys(("retrain", "sparse_finetune", "gradient_ascent", "influence_unlearning"), full)
    return {
        "figure_1": schematic.framework(attributions, framework, examples, drawn),
        "figure_2": figures.budget(lds_by_coalitions, runtime, 0.5, n_tests=48),
        "figure_5": figures.budget(lds_by_coalitions, runtime),
        "figure_6": pictures.by_fraction(samples, models, "inception_score", k=5),
        "figure_9": pictures.pairs_of(sides, pairs, headings, 0.9, "Two models. "),
        "figure_11": pictures.unlearned(unlearned),
        "figure_12 left": analysis.image_entropy(attributions, training),
        "figure_12 right": analysis.clusters(attributions, training, examples),
        "top_and_pairs": pictures.top_and_pairs(attributions, examples, sides, pairs, headings),
        "figure_3": figures.counterfactual(counterfactual),
        "figure_4": pictures.top_and_generated(attributions, examples, samples, models, "inception_score"),
        "by_coalitions": figures.by_coalitions(lds_by_coalitions),
        "methods": figures.methods_by_lds(lds),
        "credit": figures.credit(attributions, OURS),
        "credit_by_property": figures.credit_by_property(*several(attributions)),
        "fidelity": figures.fidelity(coalitions, "inception_score"),
        "sizes": figures.sizes(generator.random((160, 20)) < 0.5),
        "curve": figures.curve(generator.uniform(0.1, 1, 200)),
        "images": pictures.images(samples["Full model"], 3, "Images of contributor 0"),
        "top": pictures.top_contributors(attributions, examples),
        "generated": pictures.generated(samples, models, "inception_score"),
    }


def read(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def words(figure):
    """All that is written in a figure."""
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_a_table_comes_back_from_its_csv_in_full_precision(every_table, tmp_path):
    for name, frame in every_table.items():
        path = tables.write(frame, tmp_path, name, "A caption.")
        pd.testing.assert_frame_equal(pd.read_csv(path), frame, check_exact=True)


def test_tables_are_written_in_three_forms_with_the_same_bytes_twice(every_table, tmp_path):
    for folder in (tmp_path / "a", tmp_path / "b"):
        for name, frame in every_table.items():
            tables.write(frame, folder, name, "A caption.")
    first = read(tmp_path / "a")
    assert sorted(first) == sorted(f"{name}.{kind}" for name in every_table for kind in ("csv", "md", "tex"))
    assert first == read(tmp_path / "b")


def test_table_1_is_lds_at_one_half_with_ours_last(lds):
    table = tables.table_1(lds)
    assert list(table.columns) == list(lds.columns)
    assert set(table["alpha"]) == {0.5}
    assert table["method"].iloc[-1] == OURS


def test_table_2_is_in_units_of_one_retraining(runtime):
    table = tables.table_2(runtime).set_index("procedure")
    assert list(table.index) == ["retrain", "finetune", "sparse_finetune"]
    assert table["ratio_to_retrain"].to_list() == pytest.approx([1, 5.6 / 13.6, 0.25])


def test_without_a_retraining_table_2_says_what_to_measure(runtime):
    with pytest.raises(ValueError, match="measure one retrained coalition"):
        tables.table_2(runtime[runtime["procedure"] != "retrain"])


def test_the_readable_form_has_intervals_the_best_credit_in_bold_and_the_ceiling_last(lds):
    cells = tables.readable(tables.table_1(lds)).set_index("Method")["LDS (%), α = 0.5"]
    assert cells[OURS] == "**61.7 [55.5, 66.5]**"
    assert cells["Ridge datamodel (control)"] == "90.2 [84.0, 95.0]"
    assert (cells.index[-1], cells.iloc[-1]) == ("Ceiling", "94.0")


def unlearning(*rows):
    """unlearning.csv, of (procedure, distances)."""
    rows = [(name, f"{i:04b}", 0, "inception_score", 5.0, fid) for name, fids in rows for i, fid in enumerate(fids)]
    return pd.DataFrame(rows, columns=["procedure", "members", "seed", "property", "value", "fid"])


def test_table_9_is_the_mean_and_spread_of_the_distances_in_the_papers_order():
    fids = [("unchanged", [1.0, 3.0]), ("influence_unlearning", [90.0]), ("gradient_ascent", [180.0, np.nan, 190.0])]
    table = tables.table_9(unlearning(*fids, ("retrain", [np.nan] * 3), ("sparse_finetune", [20.0, 25.5, 31.0])))
    names = ["sparse_finetune", "gradient_ascent", "influence_unlearning", "unchanged"]
    assert table.procedure.tolist() == names and table.n_coalitions.tolist() == [3, 2, 1, 2]
    assert table.fid.tolist() == pytest.approx([25.5, 185, 90, 2])
    assert table.fid_sd.tolist() == pytest.approx([5.5, 50**0.5, np.nan, 2**0.5], nan_ok=True)
    cells = tables.readable(table)
    assert cells["FID to retraining"].tolist() == ["25.5 (5.5)", "185.0 (7.1)", "90.0", "2.0 (1.4)"]
    assert cells["Procedure"].tolist() == ["Sparsified FT", "Sparsified GA", "Sparsified IU", "Sparse model, unchanged"]


def test_small_distances_have_two_decimals():
    table = tables.table_9(unlearning(("sparse_finetune", [0.2, 0.25]), ("gradient_ascent", [1.0, 1.5])))
    assert tables.readable(table)["FID to retraining"].tolist() == ["0.23 (0.04)", "1.25 (0.35)"]


def test_without_unlearning_table_9_is_empty_and_can_be_written(tmp_path):
    unlearning().to_csv(tmp_path / "unlearning.csv", index=False)
    table = tables.table_9(pd.read_csv(tmp_path / "unlearning.csv"))
    assert table.empty and tables.readable(table).empty
    assert pd.read_csv(tables.write(table, tmp_path, "table_9", "FID.")).columns.tolist() == list(table.columns)


def test_what_is_not_defined_is_a_dash(lds):
    table = tables.table_1(lds)
    table.loc[table["method"] == OURS, ["lds_percent", "low", "high"]] = np.nan
    cells = tables.readable(table).set_index("Method").iloc[:, 0]
    assert cells[OURS] == "-"
    assert cells["Leave-one-out (LOO)"].startswith("**")


def test_two_properties_are_named_and_kept_apart(lds):
    both = pd.concat([lds, lds.assign(property="entropy", lds_percent=1.0)])
    cells = tables.readable(tables.table_1(both))
    assert cells["Property"].value_counts().to_dict() == {"entropy": 5, "inception_score": 5}


def test_markdown_and_tex_say_which_interval_and_how_many_coalitions(every_table, tmp_path):
    tables.write(every_table["table_1"], tmp_path, "table_1", "LDS, 3 seeds.")
    markdown, tex = ((tmp_path / f"table_1.{kind}").read_text() for kind in ("md", "tex"))
    assert markdown.startswith("**Table 1.** LDS, 3 seeds. 95 % intervals, bootstrap over the test coalitions (n = 48).")
    assert r"95 \% intervals, bootstrap over the test coalitions (n = 48)" in tex
    assert rf"{OURS} & \textbf{{61.7 [55.5, 66.5]}} \\" in tex
    assert "A new method & $-$3.8 [$-$10.0, 1.0]" in tex


def test_a_method_has_the_colour_of_its_procedure():
    pairs = [("Retraining Shapley", "retrain"), ("FT Shapley", "finetune"), (OURS, "sparse_finetune")]
    assert [style.colour(method) for method, _ in pairs] == [style.colour(procedure) for _, procedure in pairs]


def test_every_figure_saves_three_files_and_the_same_bytes_twice(every_figure, tmp_path):
    for name, figure in every_figure.items():
        style.save(figure, tmp_path / "a", name)
    for name in ("figure_1", "figure_2", "figure_4", "figure_9", "figure_12 left", "fidelity"):
        style.save(every_figure[name], tmp_path / "b", name)
    first, second = read(tmp_path / "a"), read(tmp_path / "b")
    assert sorted(first) == sorted(f"{name}.{kind}" for name in every_figure for kind in ("pdf", "png", "csv"))
    assert [name for name in second if first[name] != second[name]] == []


def test_showing_a_figure_changes_no_byte(runtime, lds_by_coalitions, tmp_path):
    shown, unseen = figures.budget(lds_by_coalitions, runtime), figures.budget(lds_by_coalitions, runtime)
    shown._repr_png_()
    style.save(shown, tmp_path / "a", "figure_2")
    style.save(unseen, tmp_path / "b", "figure_2")
    assert read(tmp_path / "a") == read(tmp_path / "b")


def test_another_process_draws_the_same_bytes(tmp_path):
    style.save(figures.sizes(np.eye(9) > 0), tmp_path / "here", "sizes")
    code = "import sys, numpy as np; from cdlib.show import figures, style; "
    code += "style.save(figures.sizes(np.eye(9) > 0), sys.argv[1], 'sizes')"
    environment = os.environ | {"PYTHONHASHSEED": "1"}
    subprocess.run([sys.executable, "-c", code, tmp_path / "there"], env=environment, check=True)
    assert read(tmp_path / "here") == read(tmp_path / "there")


def test_letters_are_embedded_as_truetype(every_figure, tmp_path):
    pdf = style.save(every_figure["sizes"], tmp_path, "sizes").with_suffix(".pdf").read_bytes()
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("figure_1", ["118,289 parameters", "65,257 parameters", "5 of 20", "= 6.17", "C_{20}", "Inception score"]),
        ("figure_2", ["LDS (%)", "α = 0.5", "one retraining with its inference", "bootstrap over 48 test", "Ceiling"]),
        ("figure_5", ["α = 0.25", "α = 0.5", "Budget (retrainings)"]),
        ("figure_6", ["Full model:  Inception score 5.00", "without the\ntop 40 %", "n = 3"]),
        ("figure_9", ["Two models.", "90th percentile: 62.50", "60.00", "above", "below"]),
        ("figure_11", ["Retraining", "Sparsified FT", "Sparsified GA", "Sparsified IU"]),
        ("figure_12 left", ["nats", "n = 20", "mean of the top 20 % (n = 4)", "6 images", OURS]),
        ("figure_12 right", ["of 120", "top 20 % of contributors (n = 4)", "1. 9c", OURS]),
        (
            "figure_3",
            ["Change of Inception score against the full model (%)", "mean of 3 seeds", "top 40 %", "top 60 %"],
        ),
        ("figure_4", ["in units of Inception score", "3:  0.16 [0.06, 0.26]", "Full model:  Inception score 5.00"]),
        ("by_coalitions", ["LDS (%)", "α = 0.25", "Sparsified FT (paper's estimator)"]),
        ("methods", ["LDS (%), α = 0.5, 48 test coalitions", "ceiling", OURS]),
        ("credit", ["in units of Inception score", "Contributor (n = 20)", "alone (n = 5)", "95 % intervals"]),
        ("fidelity", ["Pearson r = 1.00", "Spearman r = 1.00", "n = 48 coalitions", "Inception score, retrained"]),
        ("sizes", ["of 20 contributors", "of 160"]),
        ("curve", ["Loss (MSE)", "Step", "mean of 10 steps"]),
        ("images", ["Images of contributor 0"]),
    ],
)
def test_a_figure_says_its_units_and_n(every_figure, name, said):
    written = words(every_figure[name])
    assert [text for text in said if text not in written] == []


def test_nothing_leaves_the_page(every_figure):
    for name, figure in every_figure.items():
        drawn, page = figure.get_tightbbox().padded(-0.01), figure.bbox_inches
        assert page.contains(*drawn.min) and page.contains(*drawn.max), f"{name}: {drawn} is not within {page}"


def test_rows_may_share_an_index(lds):
    doubled = pd.concat([lds, lds.assign(method="Another method")])
    assert len(tables.table_3(doubled)) == len(doubled)


def test_only_what_measures_coalitions_is_in_the_propertys_unit():
    assert style.unit("Leave-one-out (LOO)", "inception_score") == "in units of Inception score"
    assert style.unit("Pixel similarity (max)", "inception_score") == "in the method's own unit"


def test_a_lone_number_of_coalitions_has_its_interval_too(lds_by_coalitions):
    once = lds_by_coalitions[lds_by_coalitions["n_coalitions"] == 40]
    panel = figures.by_coalitions(once).axes[0]
    spans = [tuple(segment[:, 1]) for lines in panel.collections for segment in getattr(lines, "get_segments", list)()]
    assert sorted(spans) == [(11.0, 29.0)] * 3


def test_table_8_takes_all_coalitions_of_each_procedure_and_says_how_many(lds_by_coalitions):
    curves = lds_by_coalitions[(lds_by_coalitions["procedure"] != "retrain") | (lds_by_coalitions["n_coalitions"] < 100)]
    cells = tables.readable(tables.table_8(curves)).set_index("α")
    assert cells.columns.to_list() == [
        "Retraining, 80",
        "Sparsified FT, 120",
        "Sparsified FT (paper's estimator), 120",
        "Ceiling",
    ]
    assert cells.loc["0.25", "Retraining, 80"] == "40.0 [31.0, 49.0]"


def test_long_names_are_broken_before_their_bracket():
    assert style.broken("Sparsified-FT Shapley (paper's estimator)", 1.66, 7.5) == "Sparsified-FT Shapley\n(paper's estimator)"
    assert style.broken("D-TRAK", 1.66, 7.5) == "D-TRAK"


def test_the_entropy_of_a_contributor_is_the_mean_over_their_images_within_its_interval(attributions, training):
    frame = analysis.entropies(attributions, training)
    assert frame["contributor"].to_list() == CONTRIBUTORS[::-1]
    assert frame["top"].to_list() == [True] * 4 + [False] * 16
    means = training.groupby("contributor")["entropy"].mean().loc[frame["contributor"]]
    assert frame["entropy"].to_numpy() == pytest.approx(means.to_numpy())
    assert ((0 <= frame["low"]) & (frame["low"] < frame["entropy"]) & (frame["entropy"] < frame["high"])).all()


def test_every_training_image_is_in_one_cluster_and_those_of_the_top_are_marked(attributions, training, examples):
    frame = analysis.clusters(attributions, training, examples).frame.set_index("cluster")
    assert frame["n_images"].sum() == len(training) and frame["n_top"].sum() == 4 * 6
    assert frame.loc[7].to_list() == [6, 0, 6]  # of contributor 0, who has the least credit


def test_budget_counts_in_retrainings(lds_by_coalitions, runtime):
    frame = figures.budget(lds_by_coalitions, runtime).frame
    assert (frame["budget"] / frame["n_coalitions"]).groupby(frame["procedure"]).mean().to_list() == pytest.approx([1, 0.25])


def test_the_contributor_with_the_most_credit_is_on_top(attributions):
    axes = figures.credit(attributions, OURS).axes[0]
    assert [label.get_text() for label in axes.get_yticklabels()] == CONTRIBUTORS[::-1]
    assert axes.yaxis_inverted()


def test_credits_of_several_properties_stand_in_the_order_of_the_first(attributions):
    first, reverse, same = figures.credit_by_property(*several(attributions)).axes
    assert [label.get_text() for label in first.get_yticklabels()] == CONTRIBUTORS[::-1]
    dots = [[line.get_xdata()[0] for line in axes.lines if line.get_marker() == "o"] for axes in (first, reverse)]
    assert dots[0] == sorted(dots[0], reverse=True) and dots[1] == [-v for v in dots[0]]
    assert "-1.00" in reverse.get_xlabel() and "1.00" in same.get_xlabel()


def test_a_correlation_with_a_constant_is_not_defined(attributions):
    v = np.arange(5.0)
    constant = pd.DataFrame({"retrain": v, "sparse_finetune": 1.0, "size": 3})
    assert "Pearson not defined\nSpearman not defined\nn = 5" in words(figures.fidelity(constant))
    other = attributions.assign(property="another", value=1.0)
    both = figures.credit_by_property(pd.concat([attributions, other]), ["inception_score", "another"])
    assert both.axes[1].get_xlabel().split() == "Credit Spearman to the first: not defined".split()


def test_a_change_of_what_is_better_when_lower_says_which_side_is_worse(counterfactual):
    assert "Below 0 is worse." in words(figures.counterfactual(counterfactual.assign(property="fid")))
    assert "worse" not in words(figures.counterfactual(counterfactual))


def test_a_property_without_credits_is_missing(attributions):
    assert "no credits for another" in figures.credit_by_property(attributions, ["inception_score", "another"]).missing


def test_top_contributors_are_the_first_and_the_last(attributions, examples):
    shown = pictures.top_contributors(attributions, examples, n=2).frame["contributor"]
    assert shown.to_list() == ["9c", "9b", "1", "0"]


def test_an_interval_that_misses_its_value_is_drawn(attributions):
    figures.credit(attributions.assign(low=0.45, high=0.46), OURS).draw_without_rendering()


def test_a_grid_has_its_images_row_by_row_on_white():
    array = np.array([1, 2, 3], np.uint8).reshape(3, 1, 1)
    assert pictures.mosaic(array, 2).tolist() == [[1, 255, 2], [255, 255, 255], [3, 255, 255]]


def test_a_notebook_shows_a_figure_once(every_figure):
    assert pyplot.get_fignums() == []
    png, size = every_figure["sizes"]._repr_png_()
    assert png.startswith(b"\x89PNG")
    assert size == {"width": 605, "height": 198}


def test_a_saved_figure_carries_its_caption(every_figure, tmp_path):
    png = style.save(every_figure["figure_3"], tmp_path, "figure_3")
    caption = "Relative change of the property without the top contributors, and with them alone"
    with Image.open(png) as image:
        assert image.info["Title"] == caption
    assert caption.encode() in png.with_suffix(".pdf").read_bytes()


def test_every_figure_has_a_caption_of_one_sentence(every_figure):
    captions = {name: figure.caption for name, figure in every_figure.items()}
    assert [name for name, c in captions.items() if not c or "`" in c or ". " in c or c.endswith(".")] == []


def test_the_papers_entropies_stand_under_those_of_a_run_of_its_setting(attributions, training):
    said = analysis.image_entropy(attributions, training, reported.of("figure_12", "cifar20")).get_supxlabel()
    assert "5.18 (top 20% classes by sparsified-FT Shapley), 6.03 (remaining classes)" in said.replace("\n", " ")
    assert "paper" not in analysis.image_entropy(attributions, training).get_supxlabel()
