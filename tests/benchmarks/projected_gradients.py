"""How long projected gradients take, and the projection alone beside traker's and dattri's: two tables in markdown.

    .venv/bin/python tests/benchmarks/projected_gradients.py --k 4096
    .venv/bin/python tests/benchmarks/projected_gradients.py --device cuda

traker and dattri, where installed, are asked for nothing that would take over --limit seconds, going by the size before.
Run it by hand; the machine should have nothing else to do, above all for two threads, which wait for each other.
"""

import argparse
import time
import warnings
from importlib.util import find_spec

import numpy as np
import torch

from cdlib.models import families, gradients

SIZES = ((118_289, 4_096, 64), (2_000_000, 1_024, 2), (35_746_307, 32_768, 2))  # P, k, gradients


def seconds(work, *given) -> float:
    """Seconds that `work(*given)` takes."""
    start = time.perf_counter()
    work(*given)
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter() - start


def spent(n: float) -> str:
    """Seconds, or minutes, hours or days of them, to two digits."""
    for unit, size in (("d", 86400), ("h", 3600), ("min", 60)):
        if n >= 2 * size:
            return f"{n / size:.2g} {unit}"
    return f"{n:.2g} s"


def table(rows: list[list]):
    """Print rows as a table; the first is the head."""
    for i, row in enumerate(rows):
        print("|", " | ".join(map(str, row)), "|")
        if i == 0:
            print("|", " | ".join(["---"] * len(row)), "|")
    print(flush=True)


def digits(device: str, n: int):
    """The U-Net for 8x8 digits with random weights, and prepared images of noise."""
    model = families.new(families.preset("unet_8x8") | {"noise_schedule": "linear"}, 0, device)
    return model, model.prepare(np.random.default_rng(0).integers(0, 256, (n, 1, 8, 8), np.uint8))


def count_sketch(g, k, device):
    return gradients.project(g, k, 0)


def traker(g, k, device):
    from trak.projectors import BasicProjector

    return BasicProjector(g.shape[1], k, 0, "rademacher", torch.device(device)).project(g, 0)


def dattri(g, k, device):
    from dattri.func.projection import random_project

    return random_project(g, len(g), k, 32, proj_type="rademacher", device=device)(g)


def of_features(args):
    """Images a second, of features of so many images at 100 timesteps."""
    model, x = digits(args.device, args.images)
    rows = [["device", "threads", f"images / s, k = {args.k}", "ms an image", "peak GPU memory"]]
    for threads in (1, 2) if args.device == "cpu" else (1,):
        torch.set_num_threads(threads)
        gradients.features(model, x[:1], [0], k=args.k)
        if args.device != "cpu":
            torch.cuda.reset_peak_memory_stats()
        taken = seconds(lambda: gradients.features(model, x, range(len(x)), k=args.k))
        peak = "-" if args.device == "cpu" else f"{torch.cuda.max_memory_allocated() / 2**30:.2f} GiB"
        rows.append([args.device, threads, f"{len(x) / taken:.1f}", f"{1000 * taken / len(x):.1f}", peak])
    table(rows)


def of_projections(args):
    """Seconds of one projection of the same gradients on one thread, random numbers counted; ours also with them drawn before."""
    torch.set_num_threads(1)
    model, x = digits(args.device, SIZES[0][2])
    rows = [["P", "k", "gradients", "count-sketch", "drawn before", "traker", "ratio", "dattri", "ratio"]]
    pace = {other: 0.0 for other, package in ((traker, "trak"), (dattri, "dattri")) if find_spec(package)}
    for n_parameters, k, n in SIZES:
        if n_parameters == model.n_parameters():
            g = torch.from_numpy(gradients.features(model, x[:n], range(n), timesteps=[500], k=None)).to(args.device)
        else:
            g = torch.randn(n, n_parameters, generator=torch.Generator().manual_seed(0)).to(args.device)
        gradients._sketch.cache_clear()
        ours, again = (seconds(count_sketch, g, k, args.device) for _ in range(2))
        row = [f"{n_parameters:,}", f"{k:,}", n, spent(ours), spent(again)]
        for other in (traker, dattri):
            if other not in pace:
                row += ["not installed", ""]
            elif (expected := pace[other] * n_parameters * k) > args.limit:
                row += [f"not run: about {spent(expected)}", f"{expected / ours:,.0f}"]
            else:
                try:
                    taken = seconds(other, g, k, args.device)
                except torch.OutOfMemoryError:  # dattri's matrix is whole on a GPU
                    row += ["out of memory", ""]
                    continue
                pace[other] = taken / n_parameters / k
                row += [spent(taken), f"{taken / ours:,.0f}"]
        rows.append(row)
        del g
    table(rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--k", type=int, default=4096, help="dimension of the features")
    parser.add_argument("--images", type=int, default=64, help="of which features are made")
    parser.add_argument("--device", default="cpu", help="cpu | cuda")
    parser.add_argument("--limit", type=float, default=300, help="seconds that one projection of the others may take")
    args = parser.parse_args()
    warnings.filterwarnings("ignore", "invalid escape sequence", DeprecationWarning)
    of_features(args)
    of_projections(args)
