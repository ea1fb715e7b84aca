"""What a run will take, said beforehand: `cdlib check` and `cdlib bench`."""

from pathlib import Path

import pandas as pd

from cdlib.base import disk, paths, progress
from cdlib.cli.command import load, needed, say
from cdlib.data import contributors, datasets, design
from cdlib.measure.executors import tasks
from cdlib.models import families, stages


def check(file: Path, changes: dict | None = None, without_data: bool = False):
    """Check the parameters and print the plan: contributors, images, models, coalitions by procedure, estimated time.

    Without data, neither images nor pretrained parts are looked for: contributors and images are those that the paper names.
    """
    values = load(file, changes, without_data)
    stages.fits(values)
    if not without_data:
        for folder in (paths.runs() / values["name"], paths.figures(values["name"])):
            disk.check(folder)
        needed(values)
    say(f"{file}: every parameter is allowed")
    for line in lines(values, None if without_data else datasets.load(values).contributors):
        say(line)
    for note in [] if without_data else datasets.notes(values):
        say(f"note              {note}")
    if "minutes" in families.PRESETS[values["model"]]:
        say(f"this machine      cdlib bench {file}")


def lines(values: dict, given: pd.DataFrame | None = None) -> list[str]:
    """The plan of a run, one line for each thing; the last one is the time that it takes.

    given    the dataset's contributors; None: as many, and as many images, as the paper names
    """
    from cdlib.cli import bench  # here, for it brings torch

    n, images = datasets.planned(values) if given is None else (given.contributor.nunique(), len(given))
    each = "" if given is None else f", {contributors.span(contributors.counts(given))} from each"
    each += f", {out} more opted out" if given is not None and (out := given.attrs.get("opted_out")) else ""
    full, sparse = bench.models(values)
    planned = design.n_planned(values)
    found = [
        f"contributors      {n}",
        f"images            {images:,}{each}",
        f"parameters        {full.n_parameters():,} -> {sparse.n_parameters():,} pruned",
        "models to make    " + ", ".join(f"{k:,} {p}" for p, k in planned.items()),
    ]
    minutes = families.PRESETS[values["model"]].get("minutes")
    if minutes:
        minutes = minutes | {design.UNTRAINED: (0, minutes["retrain"][1])}
        found += [f"  one {p:16s} {train:g} + {draw:g} min, training + sampling" for p, (train, draw) in minutes.items()]
        # other unlearning is not timed in the paper; it takes fewer steps than fine-tuning
        hours = sum(k * sum(minutes.get(p, minutes["sparse_finetune"])) for p, k in planned.items()) / 60
        return [*found, f"estimated work    {hours:,.0f} GPU hours by the paper's Table 2 (RTX 6000, A40, A100)"]
    step = bench.seconds(values, full, sparse)
    one = bench.by_procedure(values, step, images)
    found += [f"  one {p:20s} {s:.1f} s" for p, s in one.items() if p in planned]
    took = progress.duration(bench.total(values, step, bench.gradient_seconds(values, full), images))
    return [*found, f"estimated time    {took} with {tasks.n_workers(values)} workers, measured now on a few steps"]


def bench(file: Path, changes: dict | None = None, steps: int = 5):
    """Time training and sampling steps of the full and the sparse model on the device at hand, with random weights."""
    from cdlib.base import machine
    from cdlib.cli import bench

    values = load(file, changes, without_data=True)
    full, sparse = bench.models(values)
    each = bench.seconds(values, full, sparse, steps)
    say(f"{file}: {values['model']} on {machine.device_name(full.device)}, {values['precision']}")
    say(f"{'':8s}{'parameters':>14s}{'train steps/s':>16s}{'images/s':>12s}")
    for name, model in (("full", full), ("sparse", sparse)):
        images = 1 / (each["sample"][name] * values["sampling_steps"])
        say(f"{name:8s}{model.n_parameters():14,}{1 / each.train[name]:16.3g}{images:12.3g}")
    seconds = bench.by_procedure(values, each, datasets.planned(values)[1])
    say("one coalition of everybody: " + ", ".join(f"{p} {progress.duration(s)}" for p, s in seconds.items()))
    say(f"retrain / sparse_finetune = {seconds['retrain'] / seconds['sparse_finetune']:.1f}")
    at_once = f"steps of {values['batch_size']} images, sampling {min(values['n_images'], values['sample_batch'])} at once"
    say("decoding latents is not counted" if full.encodes else "nothing has to be decoded")
    say(f"{at_once}; peak memory {bench.peak_gb(full.device):.1f} GB")
