"""What a run will take, said beforehand: `cdlib check` and `cdlib bench`."""

from pathlib import Path

from cdlib import contributors, datasets, executors, families, paths, plan, progress, writing
from cdlib.command import load, needed, say


def check(file: Path, changes: dict | None = None, without_data: bool = False):
    """Check the parameters and print the plan: contributors, images, models, coalitions by procedure, estimated time.

    Without data, neither images nor pretrained parts are looked for: contributors and images are those that the paper names.
    """
    from cdlib import bench  # here, for it brings torch

    values = load(file, changes, without_data)
    if not without_data:
        for folder in (paths.runs() / values["name"], paths.figures(values["name"])):
            writing.check(folder)
        needed(values)
    found = None if without_data else datasets.load(values).contributors
    n, images = datasets.planned(values) if without_data else (found.contributor.nunique(), len(found))
    full, sparse = bench.models(values)
    say(f"{file}: every parameter is allowed")
    say(f"contributors      {n}")
    each = "" if without_data else f", {contributors.counts(found).min()} to {contributors.counts(found).max()} from each"
    say(f"images            {images:,}{each}")
    say(f"parameters        {full.n_parameters():,} -> {sparse.n_parameters():,} pruned")
    planned = plan.n_planned(values)
    say("models to make    " + ", ".join(f"{k:,} {p}" for p, k in planned.items()))
    minutes = families.PRESETS[values["model"]].get("minutes")
    if minutes:
        for procedure, (train, sample) in minutes.items():
            say(f"  one {procedure:16s} {train:g} + {sample:g} min, training + sampling")
        # other unlearning is not timed in the paper; it takes fewer steps than fine-tuning
        hours = sum(k * sum(minutes.get(p, minutes["sparse_finetune"])) for p, k in planned.items()) / 60
        say(f"estimated work    {hours:,.0f} GPU hours by the paper's Table 2 (RTX 6000, A40, A100)")
        say(f"this machine      cdlib bench {file}")
        return
    each = bench.by_procedure(values, bench.seconds(values, full, sparse), images)
    for procedure, seconds in each.items():
        say(f"  one {procedure:20s} {seconds:.1f} s (measured now on a few steps)")
    total, workers = sum(k * each[p] for p, k in planned.items()), executors.n_workers(values)
    say(f"estimated time    {progress.duration(total / workers)} with {workers} workers, and about 5 s for each notebook")


def bench(file: Path, changes: dict | None = None, steps: int = 5):
    """Time training and sampling steps of the full and the sparse model on the device at hand, with random weights."""
    from cdlib import bench, machine

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
