"""One look for all figures and tables: colours, names, sizes, and how a figure is saved.

A method has one colour everywhere, and so has the procedure that it measures with. What the paper's own estimator gives
is hollow or dashed. Colours: Okabe & Ito, safe for colour-blind readers.
"""

import io
from functools import cached_property, wraps
from pathlib import Path
from textwrap import fill

import numpy as np
import pandas as pd
from matplotlib import rc_context
from matplotlib.figure import Figure

from cdlib.base import sheets
from cdlib.base.disk import write_bytes
from cdlib.base.errors import Missing
from cdlib.show.lettering import FONTS, stand_ins

WIDTH_IN = 5.5  # text width of the paper
NOTE_IN = 0.3  # for the note on names that cannot be drawn

PROCEDURES = {  # shown as
    "retrain": "Retraining",
    "given": "Given model",
    "finetune": "FT",
    "sparse_finetune": "Sparsified FT",
    "gradient_ascent": "Sparsified GA",
    "influence_unlearning": "Sparsified IU",
    "retrain_again": "Retraining, another seed",
    "unchanged": "Sparse model, unchanged",
}

COLOURS = {  # in the order of the paper's tables
    "Pixel similarity (average)": "#56B4E9",  # similarities: blues for averages, yellows for maxima
    "Pixel similarity (max)": "#E69F00",
    "Embedding dist. (average)": "#77AADD",
    "Embedding dist. (max)": "#DDAA33",
    **{
        f"{name} similarity ({how})": shade
        for name in ("CLIP", "CLIP ViT-L/14", "BLIP", "Inception", "Classifier", "Pooled-pixel")
        for how, shade in (("average", "#4477AA"), ("max", "#BB8800"))
    },
    "Gradient similarity (average)": "#225588",
    "Gradient similarity (max)": "#886600",
    "Aesthetic score (average)": "#88CCEE",
    "Aesthetic score (max)": "#EECC66",
    "Colourfulness (average)": "#88CCEE",
    "Colourfulness (max)": "#EECC66",
    "Relative IF": "#AA99CC",  # influence and TRAK: purples
    "Renormalized IF": "#887ABB",
    "TRAK": "#6A51A3",
    "Journey-TRAK": "#4A1486",
    "D-TRAK": "#882255",
    "Number of images (control)": "#999999",
    "Ridge datamodel (control)": "#555555",
    "Leave-one-out (LOO)": "#CC79A7",
    "Retraining Shapley": "#009E73",
    "FT Shapley": "#0072B2",
    "Sparsified-FT Shapley (paper's estimator)": "#D55E00",
    "Sparsified-FT Shapley (Ours)": "#D55E00",
    "retrain": "#009E73",
    "finetune": "#0072B2",
    "sparse_finetune": "#D55E00",
    "gradient_ascent": "#56B4E9",
    "influence_unlearning": "#CC79A7",
    "retrain_again": "#009E73",
    "unchanged": "#555555",
}
GROUPS = ("#000000", "#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#0072B2", "#D55E00")

GREY = "#555555"  # of what is not a method

INTERVAL = "95 % intervals, bootstrap over the test coalitions"  # the kind "subsets" of lds.csv
CEILING = "Ceiling: how well one retraining predicts another of the same coalitions."

RC = FONTS | {
    "axes.axisbelow": True,
    "axes.edgecolor": "#444444",
    "axes.grid": True,
    "axes.labelsize": 8,
    "axes.linewidth": 0.6,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 8,
    "figure.dpi": 110,
    "font.size": 8,
    "grid.color": "#E6E6E6",
    "grid.linewidth": 0.5,
    "image.cmap": "gray",
    "image.interpolation": "nearest",
    "legend.fontsize": 7.5,
    "legend.frameon": False,
    "lines.linewidth": 1.4,
    "lines.markersize": 4,
    "pdf.fonttype": 42,
    "savefig.dpi": 220,
    "text.usetex": False,
    "xtick.labelsize": 7.5,
    "ytick.labelsize": 7.5,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
}


class Drawing(Figure):
    """A figure in this style, which carries the tidy frame it was drawn from and shows itself in a notebook.

    pyplot does not know it, so a cell that ends in it shows it once.

    caption     one sentence on what is to be seen, which `save` keeps within the pdf and the png; a second one names who is a
                number in the figure
    missing     why there is nothing to be seen; empty when there is
    stand_ins   {label: name} of the contributors whose names no font here can draw
    """

    caption = ""
    missing = ""

    @rc_context(RC)
    def __init__(self, frame, height_in, width_in=WIDTH_IN, labels=()):
        """labels: those of `lettering.names` that are shown; a note says which of them stand for names that cannot be drawn."""
        self.frame, self.stand_ins = frame, stand_ins(dict(labels))
        super().__init__(figsize=(width_in, height_in + NOTE_IN * bool(self.stand_ins)), layout="constrained")
        if self.stand_ins:
            self.note("")

    @rc_context(RC)
    def draw(self, renderer):
        super().draw(renderer)

    def note(self, text):
        """Writes small lines under the axes: what an interval means, and n."""
        if self.stand_ins:
            text += f"\nNo font here has the letters of {', '.join(self.stand_ins)} (numbered in the order of all names)."
        text = "\n".join(fill(line, int(21 * self.get_figwidth())) for line in text.strip().splitlines())
        self.supxlabel(text, fontsize=6.5, color=GREY, x=0.01, horizontalalignment="left")

    @cached_property
    @rc_context(RC)
    def png(self):
        """The bytes of its png at twice the screen's resolution: rendered once, to be saved and shown."""
        png = io.BytesIO()
        self.savefig(png, format="png", metadata={"Title": self.caption, "Software": None})
        return png.getvalue()

    def _repr_png_(self):
        """PNG, and the size to show it at (pixels)."""
        width, height = (int(inches * RC["figure.dpi"]) for inches in self.get_size_inches())
        return self.png, {"width": width, "height": height}


def styled(draw):
    """Makes a function that draws a `Drawing` do so in this style; the first sentence of its docstring is the caption.

    It is laid out here, once: an engine moves things a little each time, so showing a figure would change its file.
    Where too little is measured for it (errors.Missing), a line says so in its place.
    """

    @wraps(draw)
    def drawn(*args, **kwargs):
        with rc_context(RC):
            try:
                figure = draw(*args, **kwargs)
            except Missing as error:
                figure = Drawing(pd.DataFrame(), 0.3)
                figure.missing = str(error)
                figure.text(0.01, 0.5, f"Not drawn: {error}", va="center", color=GREY)
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        figure.caption = " ".join((draw.__doc__ or "").split()).partition(". ")[0].rstrip(".")
        if figure.stand_ins:
            figure.caption += f". Not drawn: {', '.join(f'{label} is {name}' for label, name in figure.stand_ins.items())}"
        return figure

    return drawn


def colour(name):
    """Colour of a method or a procedure; grey for one that `COLOURS` does not name."""
    return COLOURS.get(name, "#7F7F7F")


def hollow(name):
    """Whether a method is the paper's own estimator, which is drawn hollow or dashed."""
    return "paper's estimator" in name


def in_order(frame, column="method"):
    """The frame with its methods (or procedures) in the order of the paper's tables, unknown ones first."""
    order = list(COLOURS)
    rank = [order.index(name) if name in order else -1 for name in frame[column]]
    return frame.iloc[np.argsort(rank, kind="stable")].reset_index(drop=True)


def broken(text, width_in, size=8):
    """The text on lines of so many inches at a font size in points, broken before its bracket where it is too long."""
    longest = int(136 * width_in / size)
    lines = (text if len(text) <= longest else text.replace(" (", "\n(")).splitlines()
    return "\n".join(fill(line, longest) for line in lines)


def spoken(name):
    """A property's name as a reader says it: "inception_score" is "Inception score"."""
    name = name.replace("_", " ")
    return name[:1].upper() + name[1:]


def unit(method, property_name):
    """Unit of a method's credit: the property's if it measures coalitions, else its own."""
    measures = any(word in method for word in ("Shapley", "LOO", "datamodel"))
    return f"in units of {spoken(property_name)}" if measures else "in the method's own unit"


@rc_context(RC)
def save(figure, folder, name, frame=None):
    """Writes folder/name.pdf, name.png (220 dpi), and name.csv; the same figure gives the same bytes.

    The title of the pdf and the png is the figure's caption.

    frame   what it was drawn from; left out, the frame that the figure carries
    Returns the path of the png.
    """
    path = Path(folder) / name
    about, pdf = {"Title": figure.caption, "CreationDate": None, "Creator": None, "Producer": None}, io.BytesIO()
    figure.savefig(pdf, format="pdf", metadata=about)
    csv = sheets.write(pd.DataFrame(figure.frame if frame is None else frame))
    for suffix, data in ((".pdf", pdf.getvalue()), (".png", figure.png), (".csv", csv)):
        write_bytes(path.with_suffix(suffix), data)
    return path.with_suffix(".png")
