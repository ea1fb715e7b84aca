"""The notes on the paper name parameters that exist, with values that they may have."""

import re
from typing import Annotated

import pytest
import yaml
from pydantic import TypeAdapter, ValidationError

from cdlib.base import params, paths

NOTES = (paths.root() / "docs" / "notes_on_the_paper.md").read_text(encoding="utf-8")
NAME = re.compile(r"`(\w+): ([^`]+)`")
NAMED = NAME.findall(NOTES)
PAPERS = ("cifar20", "celeba_hq", "artbench")


def wrong(name, text):
    """Why `name: text` cannot stand in a parameter file; empty when it can."""
    field = params.Params.model_fields.get(name)
    if field is None:
        return "no such parameter"
    try:
        TypeAdapter(Annotated[field.annotation, field]).validate_python(yaml.safe_load(text), strict=True)
    except ValidationError as error:
        return error.errors()[0]["msg"]
    return ""


def test_every_parameter_in_the_notes_exists_and_may_have_that_value():
    assert len(NAMED) > 50
    assert {f"{name}: {text}": why for name, text in NAMED if (why := wrong(name, text))} == {}


@pytest.mark.parametrize("text", ["n_coalition: 5", "ema: sometimes", "batch_size: 64.5", "train_lr: 1e-4"])
def test_a_parameter_that_is_not_one_is_seen(text):
    assert wrong(*text.split(": "))


def test_what_the_notes_say_is_done_here_stands_in_a_file_of_the_papers_settings():
    files = [params.load(p) for p in (paths.root() / "params").glob("*.yaml") if p.stem.startswith(PAPERS)]
    rows = [line.split("|") for line in NOTES.splitlines() if line.startswith("| ")]
    here = [named for row in rows for named in NAME.findall(row[4])]
    known = [(name, text) for name, text in here if name in params.Params.model_fields]
    assert len(known) > 25
    assert [f"{name}: {text}" for name, text in known if not any(f[name] == yaml.safe_load(text) for f in files)] == []
