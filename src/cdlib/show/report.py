"""One static page of a run: its tables, its figures, its executed notebooks, and where they come from. No network.

runs/<name>/report/index.html    the page, with its figures inside; beside it the executed notebooks and files/
runs/index.html                  all runs
"""

import base64
import io
import re
import shutil
from pathlib import Path

from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html
from nbformat.reader import NotJSONError
from PIL import Image

from cdlib.base import paths
from cdlib.show import provenance
from cdlib.show.templates import render
from cdlib.store import completion

OFFLINE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}"""

CAPITALS = ("LDS", "FID")
STATEMENT = "statement"  # a page of its own (module statement)


def report(run, file, asked=None):
    """The page of a run, whatever is there of it by now; its size is mostly that of the figures.

    run, asked    as of `provenance.about`
    file                   the run's parameter file

    Returns the path of index.html.
    Writes runs/<name>/report/: index.html, one html an executed notebook, files/ (copies of all tables and figures).
    """
    folder = run.path("report")
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    for path in sorted(run.figures.glob("*.*")):
        shutil.copyfile(path, folder / "files" / path.name)
    executed = [path.stem for path in sorted(run.path("notebooks").glob("*.ipynb")) if _executed(path, folder)]
    tables = [_table(path) for path in sorted(run.figures.glob("*.md"), key=_number) if path.stem != STATEMENT]
    figures = [_figure(path) for path in sorted(run.figures.glob("*.png"), key=_number)]
    about = provenance.about(run, asked)
    about["statement"] = (run.figures / f"{STATEMENT}.html").is_file()
    return _write(folder / "index.html", "report.html", file=file, tables=tables, figures=figures, executed=executed, **about)


def index(runs_folder):
    """The page of all runs, each with a link to its report. Returns its path. Writes runs_folder/index.html."""
    folders = sorted(path.parent for path in Path(runs_folder).glob("*/done"))
    return _write(Path(runs_folder) / "index.html", "runs.html", runs=[_run(f) for f in folders], n=len(paths.notebooks()))


def _run(folder):
    """What the page of all runs says of one; what is not known yet is empty."""
    states = completion.states(folder)
    values = {name: value for s in states.values() for name, value in s["params"].items()}
    table = folder / "measured.csv"
    return {
        "name": folder.name,
        "done": len(states),
        "coalitions": table.read_bytes().count(b"\n") - 1 if table.is_file() else 0,
        "report": (folder / "report" / "index.html").is_file(),
        **{name: values.get(name, "") for name in ("dataset", "model", "property")},
    }


def _write(path, template, **values):
    path.write_text(render(template, **values), encoding="utf-8", newline="\n")
    return path


def _executed(path, folder):
    """Writes an executed notebook as html that loads nothing; formulas stay as they are written.

    Returns False for one that cannot be read: it may just be being written.
    """
    try:
        page = HTMLExporter(raw_template=OFFLINE, embed_images=True).from_filename(str(path))[0]
    except NotJSONError:
        return False
    (folder / f"{path.stem}.html").write_text(page, encoding="utf-8")
    return True


def _table(path):
    """A table for the page: what `_shown` has, and the rest of its caption and its rows as html."""
    text = path.read_text(encoding="utf-8")
    caption, rows = re.fullmatch(r"(?:\*\*[^*]+\*\* ?(.*?)\n\n)?(.*)", text, re.S).groups(default="")
    title, _, rest = caption.partition(". ")
    html = markdown2html(rows).replace("<th>", '<th scope="col">')
    return _shown(path, title.rstrip("."), "csv", "md", "tex") | {"rest": rest, "html": html}


def _figure(path):
    """A figure for the page: what `_shown` has, and the image as lossless WebP, a third of the png, and its size on a screen."""
    with Image.open(path) as image:
        data = io.BytesIO()
        image.save(data, "WEBP", lossless=True, method=6)
        title, _, rest = image.info.get("Title", "").partition(". ")
        size_px = [side // 2 for side in image.size]  # saved at twice a screen's resolution
    source = f"data:image/webp;base64,{base64.b64encode(data.getvalue()).decode()}"
    return _shown(path, title, "pdf", "png", "csv") | {"rest": rest, "source": source, "width": size_px[0], "height": size_px[1]}


def _shown(path, title, *kinds):
    """A table or figure: its id, its label, whether that is a number, its title, and its files of those kinds that exist."""
    words = path.stem.replace("_", " ").capitalize().split()
    label = " ".join(word.upper() if word.upper() in CAPITALS else word for word in words)
    files = [path.with_suffix(f".{kind}").name for kind in kinds if path.with_suffix(f".{kind}").is_file()]
    return {"id": path.stem, "label": label, "numbered": label[-1].isdigit(), "title": title, "files": files}


def _number(path):
    """Sorts figure_2 before figure_10, and what has a number before what has none."""
    parts = re.split(r"(\d+)", path.stem)
    return len(parts) == 1, [int(part) if part.isdigit() else part for part in parts]
