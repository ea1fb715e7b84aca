"""One static page of a run: its tables, its figures, its executed notebooks, and where they come from. No network."""

import base64
import html
import re
import shutil
from pathlib import Path

from nbconvert import HTMLExporter
from nbconvert.filters import markdown2html

OFFLINE = """{% extends 'lab/index.html.j2' %}
{% block html_head_js %}{% endblock %}
{% block html_head_js_mathjax %}{% endblock %}
{% block html_head_js_mermaidjs %}{% endblock %}
{% block jupyter_widgets %}{% endblock %}"""

PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{name}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; color: #222; max-width: 52rem; margin: 0 auto; padding: 1rem; }}
h1, h2 {{ line-height: 1.2; }}
h2 {{ border-bottom: 1px solid #ddd; margin-top: 2.5rem; }}
a {{ color: #0072b2; }}
section {{ margin: 2rem 0; }}
nav a {{ display: inline-block; margin-right: 1rem; }}
img {{ max-width: 100%; height: auto; }}
.wide {{ overflow-x: auto; }}
table {{ border-collapse: collapse; font-size: .85rem; font-variant-numeric: tabular-nums; margin: .5rem 0; }}
th, td {{ padding: .2rem .7rem .2rem 0; text-align: left; vertical-align: top; white-space: nowrap; }}
thead tr {{ border-top: 2px solid #222; border-bottom: 1px solid #222; }}
tbody tr:last-child {{ border-bottom: 2px solid #222; }}
.provenance td {{ white-space: normal; overflow-wrap: anywhere; }}
.files {{ font-size: .85rem; }}
@media print {{
body {{ font-size: 10pt; max-width: none; }}
section {{ break-inside: avoid; }}
nav, .files {{ display: none; }}
}}
</style>
</head>
<body>
<h1>{name}</h1>
<nav>
<a href="#tables">Tables</a> <a href="#figures">Figures</a>
<a href="#notebooks">Notebooks</a> <a href="#provenance">Provenance</a>
</nav>
<h2 id="tables">Tables</h2>
{tables}
<h2 id="figures">Figures</h2>
{figures}
<h2 id="notebooks">Notebooks</h2>
{notebooks}
<h2 id="provenance">Provenance</h2>
{provenance}
</body>
</html>
"""


def report(run_folder, figures_folder, notebooks, name, provenance):
    """The page of a run.

    run_folder       runs/<name>
    figures_folder   tables (csv, md, tex) and figures (pdf, png, csv) as `tables.write` and `figures.save` leave them
    notebooks        paths of the executed notebooks, in their order
    provenance       {what: value}: parameters, versions, device, revision, seconds

    Returns the path of index.html.
    Writes run_folder/report/: index.html, one html a notebook, files/ (copies of all tables and figures).
    """
    folder, source = Path(run_folder) / "report", Path(figures_folder)
    shutil.rmtree(folder, ignore_errors=True)
    (folder / "files").mkdir(parents=True)
    for path in sorted(source.glob("*.*")):
        shutil.copyfile(path, folder / "files" / path.name)
    for path in notebooks:
        (folder / f"{Path(path).stem}.html").write_text(_executed(path), encoding="utf-8")
    page = PAGE.format(
        name=html.escape(name),
        tables="\n".join(map(_table, sorted(source.glob("*.md"), key=_number))) or "None yet.",
        figures="\n".join(map(_figure, sorted(source.glob("*.png"), key=_number))) or "None yet.",
        notebooks="\n".join(f'<p><a href="{Path(p).stem}.html">{Path(p).stem}</a></p>' for p in notebooks) or "None yet.",
        provenance=_provenance(provenance),
    )
    (folder / "index.html").write_text(page, encoding="utf-8")
    return folder / "index.html"


def _executed(path):
    """An executed notebook as html that loads nothing; formulas stay as they are written."""
    return HTMLExporter(raw_template=OFFLINE, embed_images=True).from_filename(str(path))[0]


def _table(path):
    text = markdown2html(path.read_text(encoding="utf-8"))
    return f'<section id="{path.stem}"><div class="wide">{text}</div>{_files(path, "csv", "md", "tex")}</section>'


def _figure(path):
    png = path.read_bytes()
    half_width_px = int.from_bytes(png[16:20]) // 2  # of the header: figures are saved at twice a screen's resolution
    title = path.stem.replace("_", " ").capitalize()
    image = f'<img alt="{title}" width="{half_width_px}" src="data:image/png;base64,{base64.b64encode(png).decode()}">'
    return f'<section id="{path.stem}"><h3>{title}</h3>{image}{_files(path, "pdf", "png", "csv")}</section>'


def _files(path, *kinds):
    """Links to the copies of a table or figure, in those kinds that exist."""
    kinds = [kind for kind in kinds if path.with_suffix(f".{kind}").is_file()]
    links = " · ".join(f'<a href="files/{path.stem}.{kind}">{kind}</a>' for kind in kinds)
    return f'<p class="files">{links}</p>'


def _provenance(provenance):
    rows = (f"<tr><td>{html.escape(str(k))}</td><td>{html.escape(str(v))}</td></tr>" for k, v in provenance.items())
    return f'<table class="provenance"><tbody>{"".join(rows)}</tbody></table>'


def _number(path):
    """Sorts figure_2 before figure_10."""
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", path.stem)]
