"""The command line: `cdlib run | status | check | report | statement | bench PARAMS`, and `cdlib new`.

The same as `python -m cdlib`.
"""

import argparse
import sys
from importlib import import_module
from pathlib import Path

from cdlib.base import params
from cdlib.base.errors import Refused

# where each command is
MODULES = {"run": "run", "status": "status", "report": "status", "check": "check", "bench": "check", "statement": "statement"}
MODULES |= {"new": "new", "photographs": "photographs"}


def parser() -> argparse.ArgumentParser:
    """The commands and their options."""
    top = argparse.ArgumentParser(prog="cdlib", description="Credit the data contributors of diffusion models.")
    commands = top.add_subparsers(dest="command", required=True)
    for name, what in (
        ("run", "run the notebooks that are not done"),
        ("status", "what is done, measured, missing and failed"),
        ("check", "check the parameters and print the plan"),
        ("report", "write one page with all tables, figures and notebooks"),
        ("statement", "write what each contributor is credited with, and perhaps what of a sum they get"),
        ("bench", "time steps of the full and the sparse model on this machine, without any data"),
    ):
        command = commands.add_parser(name, help=what, description=what)
        command.add_argument("file", type=Path, metavar="PARAMS", help="such as params/digits.yaml")
        command.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="another value for this time")
        if name == "status":
            command.add_argument("--se", type=float, metavar="X", help="say what it takes to bring the standard error to X")
            command.add_argument("--top", type=int, metavar="K", help="and to tell the top K contributors from the others (5)")
        if name == "check":
            command.add_argument("--without-data", action="store_true", help="look for no images: the plan as the paper has it")
        if name == "bench":
            command.add_argument("--steps", type=int, default=5, metavar="N", help="time the mean of N steps (5)")
        if name == "statement":
            command.add_argument("--method", help="whose credits; left out: the paper's method as estimated here")
            command.add_argument("--confidence", type=float, default=0.95, metavar="P", help="of intervals and groups (0.95)")
            command.add_argument("--pot", metavar="AMOUNT", help="a sum to divide by the credits, such as 10000 or 10000.50")
            command.add_argument("--property", default="", metavar="NAME", help="where a run credits several: this one alone")
        if name in ("run", "report"):
            told = {"run": "use what is measured by now, measure nothing", "report": "of what `run --so-far` has left"}[name]
            command.add_argument("--so-far", action="store_true", help=told)
        if name == "run":
            command.add_argument("--only", metavar="NN", help="run this notebook, done or not, such as 04")
            command.add_argument("--from", dest="start", metavar="NN", help="run this notebook and those after it, done or not")
    new = "write params/NAME.yaml for a folder of your own images"
    command = commands.add_parser("new", help=new, description=new)
    command.add_argument("name", metavar="NAME", help="of the run: small letters, digits and _")
    command.add_argument("--images", required=True, metavar="FOLDER", help="with one folder in it for each contributor")
    command.add_argument("--contributors", default="", metavar="CSV", help="whose each image is: columns file, contributor")
    for column in ("file", "contributor"):
        told = f"the csv's column of the {column}s ({column})"
        command.add_argument(f"--{column}-column", default=column, metavar="NAME", help=told)
    told = "what is credited, such as cluster_entropy (the default), inception_score, fid/clip_b32, mine:sharpness/mean/lower; "
    command.add_argument("--property", action="append", default=[], metavar="NAME", help=told + "several are given one by one")
    command.add_argument("--side", type=int, default=0, metavar="PX", help="side of the images: 16 | 32; 16 without a GPU")
    pieces = "write a folder of images to try `cdlib new` on: pieces of photographs, of eight contributors"
    command = commands.add_parser("photographs", help=pieces, description=pieces)
    command.add_argument("folder", type=Path, metavar="FOLDER", help="not there yet, such as data/photographs")
    return top


def main(argv: list[str] | None = None) -> int:
    """Run a command; 0 when all went well, 2 when the input was refused, 1 when something failed."""
    from cdlib.cli.command import fail

    given = parser().parse_args(argv)
    options = {k: v for k, v in vars(given).items() if k not in ("command", "set")}
    try:
        if "set" in given:
            options["changes"] = {key: value for text in given.set for key, value in params.change(text).items()}
            options["changes"] |= {"so_far": True} if options.pop("so_far", False) else {}
        # a command brings what it needs, and no more: status starts in a second
        getattr(import_module(f"cdlib.cli.{MODULES[given.command]}"), given.command)(**options)
    except Refused as error:
        return fail(error, 2)
    except RuntimeError as error:
        return fail(error, 1)
    except KeyboardInterrupt:
        return fail("stopped; run the same command again to go on", 130)
    return 0


if __name__ == "__main__":
    sys.exit(main())
