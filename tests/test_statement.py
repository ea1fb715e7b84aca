"""The credit statement: sums that add up as printed, all that it must name, and nothing but tidy files behind it."""

import shutil
from decimal import Decimal
from html.parser import HTMLParser

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cdlib import store
from cdlib.__main__ import main
from cdlib.base import params, registry
from cdlib.base.errors import Refused
from cdlib.credit import attributions
from cdlib.data import design
from cdlib.show.report import report
from cdlib.show.statement import shares, statement, terms
from cdlib.store.measured import bits

CREDITS = st.lists(
    st.one_of(st.floats(-5, 5), st.sampled_from([0.0, 0.1, 0.1, 1 / 3, -0.1, 1e-12, 7e6])), min_size=2, max_size=40
)
VALUES = params.check(
    {"name": "given", "owners_per_class": [1, 1, 1, 2, 3], "n_coalitions": 40, "n_paper_coalitions": 60}, "given"
)
LABELS = sorted(["<b>bold</b>", "a|b", "c*d*_e_", "[x](y)", "plain", "two words", "z&amp;", "ünï"])


def played(values, labels, worth, property="inception_score", noise=0.3):
    """What is left of a finished run in which every contributor is worth so much: {table: frame}.

    worth    float [N]: v(S) is the sum over S, with noise
    """
    rng, rows, sign = np.random.default_rng(0), {}, registry.sign(registry.properties(values)[property])
    wanted = design.shapley(values)
    for w in [*design.ends(values), *wanted]:
        for m, seed in zip(w.members, w.seeds, strict=True):
            rows.setdefault((w.procedure, bits(m), int(seed)), sign * (1 + m @ worth + noise * rng.normal()))
    measured = pd.DataFrame([(f"key{i}", *where, v, 2.0, 1.0) for i, (where, v) in enumerate(rows.items())])
    measured.columns = ["key", "procedure", "members", "seed", property, "train_seconds", "sample_seconds"]
    (_, full), (_, empty) = (attributions.game(values, w, measured, property) for w in design.ends(values))
    credits = {
        w.purpose: attributions.ESTIMATORS[w.estimator](*attributions.game(values, w, measured, property), empty, full)
        for w in wanted
        if w.estimator
    }
    return {"measured": measured, "attributions": attributions.frame(credits, labels, property)}


def finished(values=VALUES, labels=LABELS, worth=None, **options):
    """A finished run of a few tidy files."""
    worth = np.linspace(-0.5, 3, len(labels)) if worth is None else np.asarray(worth)
    run, n = store.Run("04_shapley", values), np.arange(2, 2 + len(labels))
    tables = played(values, labels, worth, values["property"], **options)
    tables["attributions"] = pd.concat(
        [
            tables["attributions"],
            attributions.frame({"Pixel similarity (max)": worth / 9}, labels, values["property"]),
        ],
        ignore_index=True,
    )
    rng, size = np.random.default_rng(1), 30
    tables["contributors"] = pd.DataFrame({"image": range(n.sum()), "contributor": np.repeat(labels, n), "class": 0})
    retrained = rng.normal(size=size)
    cheap = retrained + 0.2 * rng.normal(size=size)
    tables["fidelity"] = pd.DataFrame({"retrain": retrained, "sparse_finetune": cheap, "size": 3})
    score = (design.OURS, values["property"], 0.5, 61.2, 40.0, 75.0, "subsets", 88.0, 24)
    tables["lds"] = pd.DataFrame(
        [score], columns="method property alpha lds_percent low high interval ceiling_percent n_coalitions".split()
    )
    for name, frame in tables.items():
        run.write(name, frame)
    run.done()
    return run


def printed(frame, column):
    """Sum of a column of text as decimals."""
    return sum(map(Decimal, frame[column]))


def page_text(html):
    """What a reader of a page sees."""

    class Text(HTMLParser):
        found = ""

        def handle_data(self, data):
            self.found += data

    parser = Text()
    parser.feed(html)
    return parser.found


@settings(max_examples=200, deadline=None)
@given(CREDITS, st.sampled_from([1, 2]))
def test_shares_add_up_to_100_percent_as_printed(credits, decimals):
    if not shares.defined(credits):
        assert sum(credits) <= 1e-8 * max(map(abs, credits))
        return
    units = shares.apportion(credits, 100 * 10**decimals)
    assert sum(Decimal(shares.decimal(u, decimals)) for u in units) == 100
    whole = sum(map(shares.Fraction, credits))
    assert all(abs(u - 100 * 10**decimals * shares.Fraction(c) / whole) < 1 for u, c in zip(units, credits, strict=True))


@settings(max_examples=200, deadline=None)
@given(CREDITS, st.integers(1, 10**9))
def test_payouts_add_up_to_the_pot_and_follow_the_credits(credits, cents):
    if max(credits) <= 0:
        with pytest.raises(Refused, match="no credit is above zero"):
            shares.payouts(credits, cents)
        return
    found = shares.payouts(credits, cents)
    assert sum(found) == cents and min(found) >= 0
    for c, amount in zip(credits, found, strict=True):
        assert c > 0 or amount == 0
        for d, other in zip(credits, found, strict=True):
            assert c <= d or amount >= other, "who has more credit gets no less"
            assert c != d or abs(amount - other) <= 1, "equal credits differ by a cent at most"


def test_weights_that_sum_to_nothing_share_nothing_out():
    with pytest.raises(ValueError, match="nothing can be shared out"):
        shares.apportion([1.0, -1.0], 1000)


def test_of_equal_remainders_the_first_label_gets_the_cent():
    assert shares.payouts([1.0, 1.0, 1.0], 10000) == [3334, 3333, 3333]
    assert shares.apportion([3, 0, -1], 1000) == [1500, 0, -500]


def test_a_payout_at_its_own_credit_is_the_payout_and_the_ends_enclose_it():
    credits = np.array([2.0, 1.0, -1.0, 0.5])
    paid = shares.payouts(credits, 700_00)
    assert shares.payout_at(credits, credits, 700_00) == paid == [400_00, 200_00, 0, 100_00]
    assert shares.payout_at(credits, credits - 3, 700_00) == [0, 0, 0, 0]
    assert shares.payout_at([1.0, -1.0], [-1.0, 2.0], 900) == [0, 600]


@pytest.mark.parametrize(("text", "cents"), [("10000", 1000000), ("10000.00", 1000000), ("0.5", 50), ("0.01", 1)])
def test_an_amount_is_read_in_cents(text, cents):
    assert shares.cents(text) == cents


@pytest.mark.parametrize("text", ["0", "-5", "1.005", "1e4", "1,000", "ten", "", "5.", "nan", "١"])
def test_another_amount_is_refused(text):
    with pytest.raises(Refused, match="at most two decimals"):
        shares.cents(text)


@pytest.mark.parametrize(
    ("units", "decimals", "text"), [(0, 1, "0.0"), (-5, 1, "-0.5"), (1000, 1, "100.0"), (-1205, 2, "-12.05")]
)
def test_units_are_printed_exactly(units, decimals, text):
    assert shares.decimal(units, decimals) == text


def test_the_statement_adds_up_and_says_so(scratch):
    made = statement.write(finished(), pot=10_000_00)
    assert printed(made.frame, "share_percent") == 100
    assert printed(made.frame, "payout") == 10_000
    for text in (made.markdown, made.page):
        assert "add up to 100 as printed" in text and "10,000.00 is divided in proportion" in text
    for row in made.frame.itertuples():
        assert Decimal(row.payout_low) <= Decimal(row.payout) <= Decimal(row.payout_high)
        assert row.low <= row.credit <= row.high and row.rank_low <= row.rank <= row.rank_high


def test_it_is_drawn_from_tidy_files_alone_to_the_same_bytes(scratch):
    run = finished()
    statement.write(run)
    first = {path.name: path.read_bytes() for path in run.figures.iterdir()}
    assert set(first) == {"statement.csv", "statement.md", "statement.html"}
    for folder in ("measured", "parts", "models"):
        shutil.rmtree(run.path(folder), ignore_errors=True)
    shutil.rmtree(run.figures)
    statement.write(store.Run("08_figures", VALUES))
    assert {path.name: path.read_bytes() for path in run.figures.iterdir()} == first


def test_credits_are_those_on_file_with_their_intervals(scratch):
    run = finished()
    found = statement.make(run).frame.set_index("contributor").sort_index()
    filed = run.table("attributions").query("method == @design.OURS").set_index("contributor").sort_index()
    assert found[["credit", "low", "high"]].to_numpy() == pytest.approx(filed[["value", "low", "high"]].to_numpy())
    wider = statement.make(run, confidence=0.99).frame.set_index("contributor").sort_index()
    assert (wider["low"] < found["low"]).all() and (wider["rank_high"] >= found["rank_high"]).all()


def test_it_names_everything_that_it_rests_on(scratch):
    run = finished()
    made = statement.make(run)
    state = run.table("attributions")
    for text in (made.markdown, page_text(made.page)):
        for words in (
            "Inception Score (no unit", "Higher is better", "of 512 images that a model draws", "by digits_classifier",
            "v(everybody)", "v(nobody)", "mean of 2 models",
            design.OURS, "sparsified fine-tuning", "80 gradient steps", "pruned once (30% removed)",
            "cross-validation", "40 measured, drawn in complementary pairs", "draw of the coalitions 0", "models of nobody 0, 1",
            "dataset digits: 44 images of 8 contributors", "unet_8x8",
            "Pearson 0.9", "Spearman 0.9", "the same 30 coalitions", "61 [40, 75] at alpha 0.5 (ceiling 88)",
            "degrees of freedom", "numpy ", "revision ",
            "no legal claim", "cannot be added up", "who else is there", "below zero", "alike images", "Ethics statement",
        ):  # fmt: skip
            assert words in text, words
    assert len(state) == 5 * len(LABELS)


def test_labels_are_shown_as_they_are(scratch):
    made = statement.make(finished())
    assert set(LABELS) == set(made.frame["contributor"])
    shown = page_text(made.page)
    assert all(label in shown for label in LABELS)
    assert "<b>" not in made.page
    rows = [line for line in made.markdown.splitlines() if line.startswith("| ") and "Rank" not in line]
    assert len(rows) == len(LABELS)
    assert {line.replace(r"\|", "").count("|") for line in rows} == {7}
    assert r"\<b\>bold\</b\>" in made.markdown and r"\[x\](y)" in made.markdown and r"z\&amp;" in made.markdown


def test_the_page_needs_nothing_else(scratch):
    made = statement.make(finished(), pot=100)
    assert not [word for word in ("http", "src=", "url(", "<script", '<link rel="style') if word in made.page]
    assert made.page.count('class="bar" aria-hidden="true"') == len(LABELS) + 1
    assert made.page.count('<th role="rowheader" scope="row">') == len(LABELS)


def test_where_lower_is_better_who_lowers_it_most_ranks_first(scratch):
    run = finished(VALUES | {"property": "fid", "feature": "pooled_pixels"}, worth=np.linspace(0.2, 3, 8))
    raw = run.table("measured").set_index("members")["fid"]
    assert raw["11111111"].mean() < raw["00000000"].mean()
    made = statement.make(run, pot=100_00)
    assert made.frame["contributor"].iloc[0] == LABELS[-1] and made.frame["credit"].gt(0).all()
    assert printed(made.frame, "share_percent") == 100 == printed(made.frame, "payout")
    assert "Lower is better, so v is its negative" in made.markdown and "FID to the training images" in made.markdown


def test_where_everybody_is_no_better_than_nobody_there_are_no_shares(scratch):
    run = finished(worth=-np.linspace(0.2, 3, 8))
    made = statement.make(run)
    assert "no improvement" in made.markdown and "Share (%)" not in made.markdown
    assert set(made.frame["share_percent"]) == {""}
    with pytest.raises(Refused, match="no credit is above zero"):
        statement.make(run, pot=100)
    assert not shares.defined([0.1, 0.2, -0.3]) and not shares.defined([0.0, 0.0])  # what is left of them is rounding


def test_negative_credits_have_negative_shares_and_the_sum_is_still_100(scratch):
    made = statement.make(finished(worth=[-4, -2, -1, 0, 1, 2, 3, 4], noise=0.01))
    assert printed(made.frame, "share_percent") == 100
    assert (made.frame["credit"].lt(0) == made.frame["share_percent"].str.startswith("-")).all()
    assert "make up for negative shares" in made.markdown and "read the credits, not their shares" in made.markdown


def test_a_method_without_intervals_says_so(scratch):
    made = statement.make(finished(), method="Pixel similarity (max)", pot=100_00)
    assert "is not known: the method does not tell" in made.markdown
    assert "by this method is not v(everybody) - v(nobody)" in made.markdown
    assert printed(made.frame, "payout") == 100 and printed(made.frame, "share_percent") == 100
    assert made.frame[["low", "rank_low", "payout_low"]].replace("", np.nan).isna().all(axis=None)
    assert "Group" not in made.markdown


def test_intervals_that_are_on_file_at_one_confidence_are_not_made_up_at_another(scratch):
    run, method = finished(), "Leave-one-out (LOO)"
    ours = run.table("attributions").query("method == @design.OURS").assign(method=method)
    run.write("attributions", pd.concat([run.table("attributions"), ours], ignore_index=True))
    run.done()
    made = statement.make(run, method=method)
    assert "Intervals of credits: 95 % for each contributor by itself. How sure the ranking is" in made.markdown
    assert made.frame["low"].notna().all() and made.frame["rank_low"].isna().all()
    with pytest.raises(Refused, match="known at a confidence of 0.95 only"):
        statement.make(run, method=method, confidence=0.9)


def test_too_few_coalitions_leave_the_noise_unknown(scratch):
    made = statement.make(finished(), method="Retraining Shapley")
    assert "too few coalitions to judge their noise" in made.markdown
    assert printed(made.frame, "share_percent") == 100


def test_credits_that_the_coalitions_do_not_give_are_refused(scratch):
    run = finished()
    run.write("attributions", run.table("attributions").assign(value=lambda frame: frame["value"] * 1.001))
    with pytest.raises(Refused, match="do not agree"):
        statement.make(run)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "TRAK"}, "has no such method, but Sparsified-FT"),
        ({"confidence": 1.0}, "must lie in"),
        ({"confidence": float("nan")}, "must lie in"),
        ({"property": "fid"}, "credits inception_score"),
    ],
)
def test_what_a_run_does_not_have_is_refused(scratch, options, words):
    with pytest.raises(Refused, match=words):
        statement.make(finished(), **options)


def test_two_properties_have_two_sections_and_a_pot_needs_one(scratch):
    run = finished(VALUES | {"also": ["mine:sharpness/percentile/lower"]})
    measured, credits, name = run.table("measured"), run.table("attributions"), "mine:sharpness"
    run.write("measured", measured.assign(**{name: -3 * measured["inception_score"]}))
    more = credits.assign(property=name, **{c: 3 * credits[c] for c in ("value", "stderr", "low", "high")})
    run.write("attributions", pd.concat([credits, more], ignore_index=True))
    run.done()
    made = statement.make(run)
    assert "## Credits: Inception Score" in made.markdown and "## Credits: Sharpness" in made.markdown
    assert "function mine:sharpness, percentile 0.9" in made.markdown
    assert made.frame.groupby("property").size().to_dict() == {"inception_score": 8, name: 8}
    assert made.markdown.count("**Fidelity**") == 1  # of the property that it was measured for
    with pytest.raises(Refused, match="name it: inception_score, mine:sharpness"):
        statement.make(run, pot=100)
    assert printed(statement.make(run, pot=100, property=name).frame, "payout") == 1
    with pytest.raises(Refused, match="this run's properties are inception_score"):
        statement.make(store.Run("08_figures", VALUES), property=name)


def test_two_contributors_and_258_are_both_readable(scratch):
    few = {"owners_per_class": [2], "n_coalitions": 0, "n_paper_coalitions": 8, "n_finetune": 0, "n_retrain": 0}
    run = finished(VALUES | few, ["a", "b"], [1.0, 2.0])  # of two there is one pair of coalitions: too few for a ridge
    made = statement.make(run, method=design.PAPERS)
    assert made.frame["contributor"].tolist() == ["b", "a"] and printed(made.frame, "share_percent") == 100
    labels = [f"artist {i:03d}" for i in range(258)]
    run = finished(VALUES | few | {"owners_per_class": [258], "n_paper_coalitions": 0}, labels, np.linspace(0, 1, 258))
    made = statement.make(run, method="Pixel similarity (max)", pot=1000_00)
    assert printed(made.frame, "share_percent") == 100 and printed(made.frame, "payout") == 1000
    assert made.frame["share_percent"].str.fullmatch(r"\d+\.\d\d").all()  # of so many, one decimal would say little
    assert max(map(len, made.markdown.splitlines())) < 700 and len(made.page) < 300_000


def test_bars_stand_where_the_numbers_do():
    frame = pd.DataFrame({"credit": [3.0, -1.0], "low": [1.0, -2.0], "high": [8.0, np.nan]})
    assert statement._bars(frame) == [
        {"credit": 50.0, "low": 30.0, "high": 100.0, "zero": 20.0},
        {"credit": 10.0, "low": 0.0, "high": 10.0, "zero": 20.0},
    ]


def test_letters_in_a_row_are_written_short():
    assert [statement._short(text) for text in ("", "b", "a b", "a b c d")] == ["", "b", "a b", "a-d"]


def test_every_property_and_procedure_has_its_words():
    assert set(terms.PROPERTIES) == set(registry.FEATURES)
    assert set(terms.ESTIMATORS) == set(terms.DRAWS) == set(attributions.ESTIMATORS)
    assert {w.procedure for w in design.shapley(VALUES)} <= set(terms.PROCEDURES)


def test_the_fidelity_of_a_constant_is_not_defined(scratch):
    run = finished()
    run.write("fidelity", run.table("fidelity").assign(sparse_finetune=1.0))
    assert terms._fidelity(run).startswith("Pearson not defined, Spearman not defined between")


def test_the_command_divides_a_pot(scratch, tmp_path, capsys):
    run = finished()
    file = tmp_path / "given.yaml"
    file.write_text("name: given\nowners_per_class: [1, 1, 1, 2, 3]\nn_coalitions: 44\nn_paper_coalitions: 60\n")
    assert main(["statement", str(file), "--pot", "1000", "--confidence", "0.9"]) == 0
    told = capsys.readouterr().out
    assert "which the statement tells: n_coalitions" in told and "statement.html" in told
    frame = pd.read_csv(run.figures / "statement.csv", dtype=str)
    assert printed(frame, "payout") == 1000 and set(frame["confidence"]) == {"0.9"}
    assert main(["statement", str(file), "--pot", "1000.001"]) == 2
    assert "at most two decimals" in capsys.readouterr().err


def test_the_command_tells_what_the_credits_were_made_with_not_what_a_later_notebook_had_before(scratch, tmp_path):
    run = finished()
    store.Run("06_lds", VALUES | {"n_coalitions": 30}).done()
    file = tmp_path / "given.yaml"
    file.write_text("name: given\nowners_per_class: [1, 1, 1, 2, 3]\nn_coalitions: 40\nn_paper_coalitions: 60\n")
    assert main(["statement", str(file)]) == 0
    assert "40 measured, drawn" in (run.figures / "statement.md").read_text()


def test_the_report_links_to_the_statement_and_does_not_take_it_for_a_table(scratch):
    run = finished()
    without = report(run, "given.yaml").read_text()
    statement.write(run)
    page = report(run, "given.yaml")
    assert "files/statement.html" in page.read_text() and "files/statement.html" not in without
    assert (page.parent / "files" / "statement.html").is_file() and 'id="statement"' not in page.read_text()


def test_the_command_refuses_a_run_without_credits(scratch, tmp_path, capsys):
    file = tmp_path / "none.yaml"
    file.write_text("name: nobody\n")
    assert main(["statement", str(file)]) == 2
    assert "nobody has been credited yet" in capsys.readouterr().err
