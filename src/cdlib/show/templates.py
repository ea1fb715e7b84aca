"""Text from the templates in pages/: html, whose values are escaped, and Markdown."""

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from cdlib.base.progress import duration
from cdlib.show.lettering import number


def _plain(text):
    """Text that Markdown shows as it is, on one line."""
    return "".join(f"\\{letter}" if letter in "\\`*_[]<>|~&$#!" else letter for letter in " ".join(str(text).split()))


PAGES = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "pages"),
    autoescape=lambda template: template.endswith(".html"),
    trim_blocks=True,
    lstrip_blocks=True,
    keep_trailing_newline=True,
    undefined=StrictUndefined,
)
PAGES.filters |= {"duration": duration, "number": number, "plain": _plain}


def render(template: str, **values) -> str:
    """A template of pages/ with these values. Raises UndefinedError when it needs another."""
    return PAGES.get_template(template).render(values)
