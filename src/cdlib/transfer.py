"""Measured coalitions out of a run and into one: `cdlib export` and `cdlib import`."""

import contextlib
from pathlib import Path

from cdlib import cargo, exchange, imported, params, released, store
from cdlib.command import load, say
from cdlib.errors import Refused
from cdlib.progress import Progress


def export(file: Path, target: Path, every: bool = False, with_models: bool = False, changes: dict | None = None):
    """Write the measured coalitions of a run's experiment, or of `every` one in its folder, as one Parquet file.

    with_models    also the run's models, beside it, with the ending .zip
    """
    if target.suffix != ".parquet":
        raise Refused(f"{target}: must end in .parquet")
    run = store.Run("08_figures", load(file, changes))
    keys = exchange.kept(run, every)
    if not keys and not with_models:
        raise Refused(f"{run.measured.folder}: holds no measured coalition that {file} asks for; --all takes the others too")
    if with_models:
        models = target.with_suffix(".zip")
        say(f"{models}: {cargo.pack(run, models)} files of models/, {_size(models)}")
    exchange.write(run, keys, target, Progress("export", len(keys)).step)
    say(f"{target}: {len(keys)} coalitions, {_size(target)}")


def import_(
    file: Path,
    sources: list[Path],
    every: bool = False,
    replace: bool = False,
    nobody: list[Path] = (),
    procedure: str | None = None,
    where: list[str] = (),
    changes: dict | None = None,
):
    """Add exported coalitions and models, or records of the released code, to a run's; what it has is kept.

    Everything is read through before anything is written. The options are those of exchange.check, exchange.merge and
    released.read.
    """
    run = store.Run("imported", load(file, changes))
    by_kind = {kind: [p for p in sources if p.suffix == kind] for kind in (".parquet", ".zip")}
    records = [p for p in sources if p.suffix not in by_kind]
    if len(by_kind[".zip"]) > 1:
        raise Refused(f"{by_kind['.zip'][1]}: a run has the models of one file: name one .zip")
    asked = {key: value for text in where for key, value in params.change(text, "--where").items()}
    found, n_left_out = released.read(run, records, nobody, procedure, asked) if records or nobody else ([], 0)
    if found:
        imported.require_one_experiment(imported.table(run, [imported.row(r) for r in found]))
    _tables(run, by_kind[".parquet"], by_kind[".zip"], every, replace)
    if records or nobody:
        _records(run, found, n_left_out)


def _tables(run: store.Run, tables: list[Path], archives: list[Path], every: bool, replace: bool):
    """Import exports of other runs, and tell what became of them."""
    reading = Progress("reading", sum(map(exchange.count, tables)))
    with cargo.unpacked(run, archives[0]) if archives else contextlib.nullcontext() as models:
        device = exchange.check(run, tables, every, models, reading.step)
        if models:
            say(f"{archives[0]}: {cargo.install(models, run)} new files in {run.path('models')}")
    if device:
        say(f"run {run.name}: its coalitions are those measured with device: {device} from now on")
    for table in tables:
        importing = Progress(f"importing {table.name}", exchange.count(table))
        merged = exchange.merge(run, table, replace, device, importing.step)
        for other in merged.others:
            say(f"another value: {other}")
        say(f"{table}: {merged.imported} imported, {merged.there} there already, {len(merged.others)} with another value here")


def _records(run: store.Run, found: list[dict], n_left_out: int):
    """Keep records of the released code, and credit by all that are kept; tell what became of them."""
    new = [r for r in found if not run.measured.has(r["key"])]
    for one in new:
        run.measured.write(one["spec"], one["properties"], {}, one["train_seconds"], one["sample_seconds"])
    others = [r for r in found if run.measured.read(r["key"])["properties"] != r["properties"]]
    for one in others:
        say(f"another value: {one['key']}: {one['properties']} in the file; the one at hand is kept")
    say(f"records: {len(new)} imported, {len(found) - len(new)} there already, {n_left_out} repeated and left out")
    frame = imported.table(run)
    say(frame.groupby(["origin", "procedure", "drawn"]).size().rename("coalitions").reset_index().to_string(index=False))
    try:
        credits, why_not = imported.write(run, frame)
    except Refused as error:
        say(f"no credits yet: {error}")
        return
    for method, why in why_not.items():
        say(f"{method}: no credits yet: {why}")
    for method, credit in credits.items():
        say(f"{method}: {len(credit.value)} contributors credited, with intervals, in {run.path('attributions.csv')}")
    if credits:
        say("`cdlib run` judges and draws them with the other methods")


def _size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:,.1f} MB"
