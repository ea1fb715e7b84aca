"""The report of a run: what is on the page, that it needs nothing else, and that nothing in it is made up."""

from html.parser import HTMLParser

import nbformat
import numpy as np
import pandas as pd
import pytest
from nbformat import v4

from cdlib import store
from cdlib.base import params, paths
from cdlib.data import design
from cdlib.show import figures, provenance, style, tables
from cdlib.show.report import index, report
from cdlib.store import cache

VALUES = params.check({"name": "tiny", "n_subsets": 60}, "tiny")
SPEC = {"procedure": "retrain", "seed": 0, "members": "10"}
WANTED = design.Wanted("everybody", "retrain", np.array([[True, False], [True, True]]), np.array([0, 0]))


class Page(HTMLParser):
    """What a page loads and links to, its headings, its images' texts, and its language."""

    def __init__(self, path):
        super().__init__()
        self.loaded, self.linked, self.headings, self.alts, self.ids, self.language = [], [], [], [], [], None
        self.text = path.read_text(encoding="utf-8")
        self.feed(self.text)

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.loaded += [found[name] for name in ("src", "srcset") if name in found]
        self.ids += [found["id"]] if "id" in found else []
        if "href" in found:
            (self.loaded if tag == "link" else self.linked).append(found["href"])
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append(int(tag[1]))
        if tag == "img":
            self.alts.append(found.get("alt"))
        if tag == "html":
            self.language = found.get("lang")


@pytest.fixture
def here(scratch):
    """A run that nobody has begun."""
    return store.Run("01_contributors", VALUES)


def draw(run, *names):
    """Tables and figures of these names."""
    runtime = pd.DataFrame({"procedure": ["retrain"], "train_seconds": [2.0], "sample_seconds": [1.0], "n": [3]})
    for name in names:
        if name.startswith("table"):
            tables.write(tables.table_2(runtime), run.figures, name, f"Caption of {name}. More of it.")
        else:
            style.save(figures.sizes(np.eye(9) > 0), run.figures, name)


def execute(run, name, *outputs):
    """An executed notebook with one cell."""
    cells = [v4.new_markdown_cell("# A notebook"), v4.new_code_cell("1 + 1", outputs=list(outputs))]
    run.path("notebooks").mkdir(parents=True, exist_ok=True)
    nbformat.write(v4.new_notebook(cells=cells), run.path(f"notebooks/{name}.ipynb"))


def measure(run, seconds=5.0):
    """A measured coalition, which the run's notebook rests on; the models there are were made on the CPU."""
    run.measured.write(SPEC, {"inception_score": 2.0}, {"x": np.zeros(1)}, seconds - 1, 1.0)
    run.use([run.measured.key(SPEC)])
    run.done()
    cache.put(run.path("models/full.safetensors"), b"weights", {"device": "cpu"})


def test_the_page_needs_no_network_and_its_links_hold(here):
    draw(here, "table_1", "figure_2")
    execute(here, "04_shapley", v4.new_output("stream", text="2"))
    path = report(here, "params/tiny.yaml")
    page, notebook = Page(path), Page(path.parent / "04_shapley.html")
    assert path == here.folder / "report" / "index.html"
    assert len(page.loaded) == 2 and [link for link in page.loaded + notebook.loaded if not link.startswith("data:")] == []
    assert "04_shapley.html" in page.linked and "files/figure_2.pdf" in page.linked
    inside = [link[1:] for link in page.linked if link.startswith("#")]
    outside = [link for link in page.linked if not link.startswith("#")]
    assert set(inside) <= set(page.ids)
    assert [link for link in outside if not (path.parent / link).is_file()] == []


def test_a_reader_without_eyes_finds_the_way(here):
    draw(here, "table_1", "figure_2")
    page = Page(report(here, "params/tiny.yaml"))
    assert page.language == "en"
    assert page.headings[0] == 1 and page.headings.count(1) == 1
    assert max(np.diff(page.headings)) == 1
    assert page.alts == ["Figure 2: How many coalitions there are of each size"]
    assert "<th>" not in page.text
    assert len(page.ids) == len(set(page.ids))


def test_numbers_sort_as_numbers_and_names_come_last(here):
    draw(here, "table_10", "table_9", "figure_12", "credit", "figure_2")
    ids = [i for i in Page(report(here, "params/tiny.yaml")).ids if i.startswith(("table_", "figure_", "credit"))]
    assert ids == ["table_9", "table_10", "figure_2", "figure_12", "credit"]


def test_the_contents_have_every_title(here):
    draw(here, "table_1", "figure_2")
    contents = Page(report(here, "params/tiny.yaml")).text.split('id="tables"')[0]
    assert "Caption of table_1</span>" in contents
    assert "How many coalitions there are of each size</span>" in contents


def test_what_people_write_is_shown_as_written(here):
    draw(here, "table_1")
    path = here.figures / "table_1.md"
    path.write_text(path.read_text().replace("Caption", "<script>"))
    text = Page(report(here, "params/<b>.yaml")).text
    assert "<script>" not in text and "&lt;script&gt;" in text and "params/&lt;b&gt;.yaml" in text


def test_a_page_can_be_made_before_anything_has_run(here):
    text = Page(report(here, "params/tiny.yaml")).text
    assert text.count("None yet.") == 3
    assert ", ".join(p.stem for p in paths.notebooks()) + ": has not finished." in text


def test_a_notebook_that_failed_says_why_and_one_half_written_is_left_out(here):
    execute(here, "02_train", v4.new_output("error", ename="ValueError", evalue="no\nimages", traceback=[]))
    here.path("notebooks/03_prune.ipynb").write_text('{"cells": [')
    page = Page(report(here, "params/tiny.yaml"))
    assert "02_train: failed: ValueError: no." in page.text
    assert "02_train.html" in page.linked and "03_prune.html" not in page.linked


def test_coalitions_are_counted_and_those_that_failed_are_named(here):
    measure(here)
    failed = SPEC | {"members": "11"}
    here.measured.fail(failed, "Traceback\nMemoryError: of 3 GB\n")
    records = [here.measured.read(here.measured.key(spec)) for spec in (SPEC, failed)]
    about = provenance.about(here, [(WANTED, records)])
    assert about["coalitions"] == [{"procedure": "retrain", "n": 1, "train": 4.0, "sample": 1.0, "seconds": 5.0}]
    assert about["asked"] == [
        {"purpose": "everybody", "procedure": "retrain", "wanted": 2, "measured": 1, "failed": 1, "missing": 1}
    ]
    text = Page(report(here, "params/tiny.yaml", [(WANTED, records)])).text
    assert 'still to be measured: <a href="#coalitions">1</a>, of which 1 failed.' in text
    assert "retrain of 11, seed 0, tried 1 times: MemoryError: of 3 GB" in text


def test_parameters_stand_beside_their_defaults_and_what_they_are_for(here):
    (subsets,) = [p for p in provenance.parameters(VALUES) if p["name"] == "n_subsets"]
    assert subsets["differs"] and (subsets["value"], subsets["default"]) == (60, params.defaults()["n_subsets"])
    assert "alpha" in subsets["meaning"]
    assert [p["name"] for p in provenance.parameters(VALUES) if p["differs"]] == ["name", "n_subsets"]


def test_the_page_shows_what_the_run_was_made_with_not_what_the_file_says_now(here):
    here.done()
    now = store.Run("08_figures", VALUES | {"images_per_contributor": 7})
    about = provenance.about(now, None)
    used = {p["name"]: p["value"] for p in about["parameters"]}
    assert about["changed"] == {"images_per_contributor": 56} and used["images_per_contributor"] == 56
    assert "images_per_contributor (the run had 56)." in Page(report(now, "params/tiny.yaml")).text


def test_the_page_of_all_runs_links_to_their_reports(here):
    measure(here)
    store.Run("01_contributors", VALUES | {"name": "later"}).done()
    report(here, "params/tiny.yaml")
    page = Page(index(here.folder.parent))
    assert page.linked == ["tiny/report/index.html"]
    assert "later (no report yet)" in page.text
    assert page.text.count(f"1 of {len(paths.notebooks())}") == 2
