"""Measured tables brought along: the same bytes under the same keys, one experiment only, and whole or not at all."""

import json
import shutil
import zipfile

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cdlib import __main__, coalitions, exchange, measured, store, utilities
from cdlib.errors import Refused
from cdlib.measured import Measured
from cdlib.plan import Wanted

MEMBERS = coalitions.paired(4, 12, 0)
SEEDS = coalitions.repeats(MEMBERS)


def write(run, procedure="sparse_finetune", rows=slice(None), value=None):
    """Coalitions as if they had been measured: no value is like another, unless it is given."""
    wanted = Wanted("as if", procedure, MEMBERS[rows], SEEDS[rows])
    specs = utilities.specifications(run, wanted)
    for spec in specs:
        rng = np.random.default_rng(int(Measured.key(spec), 16) % 2**32)
        arrays = {"images": rng.integers(0, 256, (3, 1, 8, 8), np.uint8), "inception_score/probabilities": rng.random((3, 10))}
        run.measured.write(spec, {"inception_score": rng.random() if value is None else value}, arrays, rng.random(), 0.1)
    return [Measured.key(spec) for spec in specs]


def other(run, name="other", models=True, **changes):
    """Another run of the same parameters, with the first one's models or without."""
    here = store.Run("04_shapley", run.params | {"name": name} | changes)
    if models:
        shutil.copytree(run.path("models"), here.path("models"))
    return here


def files(run, below="measured"):
    """All files of a run's folder, and their bytes."""
    return {p.relative_to(run.folder): p.read_bytes() for p in sorted(run.path(below).rglob("*")) if p.is_file()}


def export(run, file, every=False):
    exchange.write(run, exchange.kept(run, every), file)
    return file


def merge(run, *exports, **options):
    """What `cdlib import` does with tables."""
    device = exchange.check(run, list(exports))
    return [exchange.merge(run, file, device=device, **options) for file in exports]


@pytest.fixture
def table(tmp_path):
    return tmp_path / "table.parquet"


@pytest.fixture
def command(run, tmp_path, capsys):
    """The command line on a run's parameters: (exit status, lines told, lines of errors)."""

    def command(name, here, *arguments):
        file = tmp_path / f"{here.name}.yaml"
        file.write_text(yaml.safe_dump(here.params))
        capsys.readouterr()
        code = __main__.main([name, str(file), *map(str, arguments)])
        told = capsys.readouterr()
        return code, told.out, "\n".join(line for line in told.err.splitlines() if line.startswith(("cdlib", " ", "start")))

    return command


def rewritten(file, change):
    """The file with its rows changed, as a person would with pyarrow."""
    found = pq.read_table(file)
    rows = found.to_pylist()
    change(rows)
    pq.write_table(pa.Table.from_pylist(rows, found.schema), file)


def test_what_is_imported_is_what_was_exported_byte_for_byte(run, table):
    keys = write(run) + write(run, "retrain")
    there = other(run)
    [merged] = merge(there, export(run, table))
    assert (merged.imported, merged.there, merged.others) == (24, 0, [])
    assert files(there) == files(run) and len(files(run)) == 48
    assert {key: there.measured.row(key) for key in keys} == {key: run.measured.row(key) for key in keys}


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False), min_size=1, max_size=6),
    text=st.text(max_size=8),
    shape=st.lists(st.integers(0, 4), max_size=3),
    part=st.sampled_from([1, 100, 10**9]),
)
def test_any_record_and_any_arrays_go_through_a_file_unchanged(run, tmp_path, values, text, shape, part):
    source, target = (store.Run("04_shapley", run.params | {"name": name}) for name in ("source", "target"))
    for here in (source, target):
        shutil.rmtree(here.folder, ignore_errors=True)
    for seed, value in enumerate(values):
        spec = {"procedure": "retrain", "seed": seed, "members": "0101", "words": text}
        source.measured.write(spec, {"inception_score": value}, {"a": np.full(shape, value)}, 0.1, 0.2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(exchange, "PART_BYTES", part)
        file = export(source, tmp_path / "any.parquet", every=True)
    exchange.check(target, [file], every=True)
    assert exchange.merge(target, file).imported == len(values)
    assert files(target) == files(source)


def test_a_file_is_a_table_that_others_can_read(run, table):
    keys = write(run)
    found = pq.read_table(export(run, table))
    assert found.column_names == [
        *("key", "procedure", "seed", "members", "inception_score", "train_seconds", "sample_seconds", "record", "arrays")
    ]
    frame = found.to_pandas().set_index("key").loc[keys]
    assert frame.members.tolist() == [measured.bits(m) for m in MEMBERS]
    assert frame.inception_score.tolist() == [run.measured.row(key)["inception_score"] for key in keys]
    about = found.schema.metadata
    assert json.loads(about[b"contributors"]) == ["0", "1", "2a", "2b"]
    assert json.loads(about[b"experiment"]) == {"sparse_finetune": exchange.expected(run, "sparse_finetune")}
    assert pq.ParquetFile(table).metadata.row_group(0).column(0).compression == "ZSTD"


def test_a_large_table_is_written_and_read_in_parts(run, table, monkeypatch):
    monkeypatch.setattr(exchange, "PART_ROWS", 5)
    write(run)
    there = other(run)
    merge(there, export(run, table))
    parts = pq.ParquetFile(table).metadata
    assert [parts.row_group(i).num_rows for i in range(parts.num_row_groups)] == [5, 5, 2]
    assert files(there) == files(run)


def test_halves_that_were_measured_apart_make_the_whole(run, tmp_path):
    write(run)
    halves = [other(run, name) for name in ("first", "second")]
    for half, rows in zip(halves, (slice(0, 7), slice(5, 12)), strict=True):
        write(half, rows=rows)
    whole = other(run, "whole")
    merged = merge(whole, *(export(half, tmp_path / f"{half.name}.parquet") for half in halves))
    assert [(m.imported, m.there) for m in merged] == [(7, 0), (5, 2)]
    assert files(whole) == files(run)


def test_importing_again_changes_nothing(run, table):
    write(run)
    there = other(run)
    merge(there, export(run, table))
    before = {p: p.stat().st_mtime_ns for p in there.path("measured").rglob("*")}
    [merged] = merge(there, table)
    assert (merged.imported, merged.there) == (0, 12)
    assert {p: p.stat().st_mtime_ns for p in there.path("measured").rglob("*")} == before


def test_an_import_that_was_killed_is_finished_by_the_next(run, table, monkeypatch):
    write(run)
    there, put = other(run), exchange.put

    def dying(*arguments):
        if len(files(there)) >= 10:
            raise KeyboardInterrupt
        put(*arguments)

    monkeypatch.setattr(exchange, "put", dying)
    with pytest.raises(KeyboardInterrupt):
        merge(there, export(run, table))
    monkeypatch.setattr(exchange, "put", put)
    [merged] = merge(there, table)
    assert (merged.imported, merged.there) == (7, 5)
    assert files(there) == files(run)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"n_images": 17}, "sampler.n_images: 16 there, 17 here"),
        ({"finetune_lr": 0.5}, "recipe.lr: 0.012 there, 0.5 here"),
        ({"assignment_seed": 1}, "dataset.digest: "),
    ],
)
def test_another_experiment_is_refused_by_what_differs_before_anything_is_written(run, tmp_path, changes, told):
    write(run, rows=slice(0, 3))
    there = other(run, **changes)
    with pytest.raises(
        Refused, match="another experiment than this run's, by sparse_finetune .* nothing was imported"
    ) as refused:
        merge(there, export(run, tmp_path / "run.parquet"))
    assert told in str(refused.value)
    assert not files(there)


def test_one_file_of_another_experiment_refuses_all_files_before_anything_is_written(run, tmp_path):
    write(run, rows=slice(0, 3))
    different = other(run, n_images=17)
    write(different, rows=slice(3, 6))
    first, second = (export(here, tmp_path / f"{here.name}.parquet") for here in (run, different))
    there = other(run, "there")
    with pytest.raises(Refused, match=f"^{second}: another experiment"):
        merge(there, first, second)
    assert not files(there)


def test_coalitions_of_another_experiment_lie_beside_the_own_when_all_are_asked_for(run, table, command):
    write(run)
    write(store.Run("04_shapley", run.params | {"n_images": 17}), rows=slice(0, 3))
    there = other(run)
    assert command("export", run, table)[1].startswith(f"{table}: 12 coalitions")
    assert command("export", run, table, "--all")[1].startswith(f"{table}: 15 coalitions")
    code, _, error = command("import", there, table)
    assert code == 2 and "sampler.n_images: 17 there, 16 here" in error and not files(there)
    assert command("import", there, table, "--all")[0] == 0
    assert files(there) == files(run)


def test_failed_coalitions_are_not_exported(run, table):
    keys = write(run)
    spec = utilities.specifications(run, Wanted("as if", "sparse_finetune", MEMBERS[:1], SEEDS[:1] + 9))[0]
    run.measured.fail(spec, "out of memory")
    assert pq.read_table(export(run, table))["key"].to_pylist() == sorted(keys)


def test_what_failed_here_is_replaced_by_what_was_measured_elsewhere(run, table):
    keys = write(run)
    there = other(run)
    there.measured.fail(run.measured.read(keys[0])["spec"], "out of memory")
    assert merge(there, export(run, table))[0].imported == 12
    assert files(there) == files(run)


@pytest.mark.parametrize("replace", [False, True])
def test_another_value_of_the_same_coalition_is_told_and_the_one_at_hand_is_kept_unless_asked(run, table, command, replace):
    keys = write(run)
    there = other(run)
    write(there, rows=slice(0, 2), value=7.5)
    before = files(there)
    command("export", run, table)
    code, told, _ = command("import", there, table, *["--replace"] * replace)
    assert code == 0
    for key in keys[:2]:
        [line] = [line for line in told.splitlines() if key in line]
        assert "{'inception_score': 7.5} here" in line and line.endswith("replaced" if replace else "kept")
    assert f"{12 if replace else 10} imported" in told and "2 with another value here" in told
    assert (files(there) == files(run)) == replace
    assert (before.items() <= files(there).items()) != replace


def test_a_damaged_record_at_hand_is_told_before_anything_is_written(run, table):
    keys = write(run)
    export(run, table)
    there = other(run)
    write(there, rows=slice(0, 1))
    there.measured.path(keys[0]).write_bytes(b"{")
    before = files(there)
    with pytest.raises(Refused, match="not a whole record; run again"):
        merge(there, table)
    assert files(there) == before


def test_arrays_that_were_lost_here_come_back(run, table):
    keys = write(run)
    export(run, table)
    blob = run.measured.path(keys[3]).with_suffix(".safetensors")
    whole = blob.read_bytes()
    blob.unlink()
    assert merge(run, table)[0].imported == 1
    assert blob.read_bytes() == whole


def edit(**columns):
    """Other values in the first row."""
    return lambda rows: rows[0].update({name: change(rows[0][name]) for name, change in columns.items()})


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (edit(record=lambda text: text[:-20]), "not a whole record"),
        (edit(record=lambda text: text.replace('"seed":', '"seed": ').replace("inception_score", "other")), "changed since"),
        (edit(record=lambda text: None), "not a whole record"),
        (edit(arrays=lambda data: data[:-1]), "its arrays are not those"),
        (edit(arrays=lambda data: None), "its arrays are not those"),
        (edit(inception_score=lambda value: value + 1), "a column says other than its record"),
        (edit(members=lambda text: text[::-1] if text != text[::-1] else "0000"), "a column says other than its record"),
        (lambda rows: rows[0].update(record=rows[1]["record"]), "changed since"),
        (lambda rows: rows[0].update(arrays=rows[1]["arrays"]), "its arrays are not those"),
    ],
)
def test_an_edited_row_is_refused_by_name_and_nothing_is_imported(run, table, change, why):
    write(run)
    export(run, table)
    key = pq.read_table(table)["key"][0].as_py()
    rewritten(table, change)
    there = other(run)
    with pytest.raises(Refused, match=why) as refused:
        merge(there, table)
    assert str(table) in str(refused.value) and key in str(refused.value)
    assert not files(there)


@pytest.mark.parametrize(
    "spoil", [lambda d: d[:-30], lambda d: d[: len(d) // 2] + b"\0" * 8 + d[len(d) // 2 + 8 :], lambda d: b""]
)
def test_a_torn_file_is_refused_and_nothing_is_imported(run, table, spoil):
    write(run)
    export(run, table)
    table.write_bytes(spoil(table.read_bytes()))
    there = other(run)
    with pytest.raises(Refused, match=f"{table}: "):
        merge(there, table)
    assert not files(there)


def test_a_parquet_file_that_is_no_export_is_refused(run, table):
    pq.write_table(pa.table({"key": ["a"]}), table)
    with pytest.raises(Refused, match="no export of measured coalitions"):
        merge(run, table)


def test_an_export_of_damaged_arrays_is_refused_and_leaves_no_file(run, table, tmp_path):
    keys = write(run)
    run.measured.path(keys[0]).with_suffix(".safetensors").write_bytes(b"")
    with pytest.raises(Refused, match="missing or changed"):
        export(run, table)
    assert not list(tmp_path.glob("*table*"))


def test_a_run_without_models_tells_how_to_bring_them_and_takes_them(run, table, command):
    write(run), write(run, "retrain"), write(run, "finetune")
    there = other(run, models=False)
    code, told, _ = command("export", run, table, "--with-models")
    assert code == 0 and "36 coalitions" in told and "6 files of models/" in told
    code, _, error = command("import", there, table)
    assert code == 2 and "export with --with-models where they were measured" in error and not files(there)
    code, told, error = command("import", there, table, table.with_suffix(".zip"))
    assert code == 0, error
    assert files(there) == files(run)
    brought = {path: data for path, data in files(run, "models").items() if path.name != "inputs.safetensors"}
    assert files(there, "models") == brought
    assert [utilities.context(there, p) for p in utilities.START] == [utilities.context(run, p) for p in utilities.START]
    assert "0 imported, 36 there already" in command("import", there, table, table.with_suffix(".zip"))[1]


def test_a_moved_run_asks_for_nothing_that_was_measured(run, table, command):
    write(run)
    there = other(run, models=False)
    command("export", run, table, "--with-models")
    command("import", there, table, table.with_suffix(".zip"))
    frame = utilities.measure(there, Wanted("again", "sparse_finetune", MEMBERS, SEEDS))
    assert frame.inception_score.tolist() == [run.measured.row(key)["inception_score"] for key in frame.key]


def test_another_full_model_makes_another_experiment_and_it_is_said_why(run, table, command):
    write(run, "finetune")
    there = other(run)
    about = there.path("models/full.json")
    weights = there.path("models/full.safetensors")
    weights.write_bytes(there.path("models/sparse.safetensors").read_bytes())
    about.write_text(json.dumps(json.loads(about.read_bytes()) | {"digest": measured.digest(weights.read_bytes())}))
    command("export", run, table, "--with-models")
    code, _, error = command("import", there, table)
    assert code == 2 and "  start: " in error and "tell of a run's own models" in error
    before = files(there, ".")
    code, _, error = command("import", there, table, table.with_suffix(".zip"))
    assert code == 2 and "this run has another one" in error and "nothing was imported" in error
    assert files(there, ".") == before


@pytest.mark.parametrize("name", ["models/../../away.json", "models/run.py", "measured/a.json"])
def test_a_zip_that_holds_anything_but_models_is_refused(run, table, command, name):
    write(run)
    command("export", run, table)
    with zipfile.ZipFile(table.with_suffix(".zip"), "w") as archive:
        archive.writestr(name, "{}")
    there = other(run, models=False)
    code, _, error = command("import", there, table, table.with_suffix(".zip"))
    assert code == 2 and "is no model" in error and not there.folder.exists()


@pytest.fixture
def from_gpu(run, table):
    """An export of coalitions that were measured on a GPU."""
    run.path("measured").mkdir()
    run.path("measured/device.txt").write_text("cuda")
    write(run)
    return export(run, table)


def test_a_run_that_has_measured_nothing_takes_over_the_device(run, from_gpu):
    there = other(run)
    merge(there, from_gpu)
    assert utilities.measured_on(there) == "cuda"
    found = utilities.measure(there, Wanted("again", "sparse_finetune", MEMBERS[:5], SEEDS[:5]))
    assert len(found) == 5


def test_what_is_missing_is_not_measured_under_the_name_of_another_device(run, from_gpu):
    there = other(run)
    merge(there, from_gpu)
    before = files(there)
    with pytest.raises(Refused, match="12 coalitions of run other are not measured yet, .* device: cuda; this is cpu"):
        utilities.measure(there, Wanted("more", "retrain", MEMBERS, SEEDS))
    assert files(there) == before


def test_tables_of_two_devices_are_not_mixed(run, from_gpu, tmp_path):
    here = other(run, "here")
    write(here)
    there = other(run)
    with pytest.raises(Refused, match="measured on several devices, cpu, cuda"):
        merge(there, from_gpu, export(here, tmp_path / "cpu.parquet"))
    assert not files(there)


def test_a_run_that_has_measured_some_refuses_those_of_another_device(run, from_gpu):
    there = other(run)
    write(there, rows=slice(0, 1))
    before = files(there)
    with pytest.raises(Refused, match='device: "cuda" there, "cpu" here\n.*with another name'):
        merge(there, from_gpu)
    assert files(there) == before


def test_an_empty_run_has_nothing_to_export(run, table, command):
    code, _, error = command("export", run, table)
    assert code == 2 and "holds no measured coalition" in error and not table.exists()
