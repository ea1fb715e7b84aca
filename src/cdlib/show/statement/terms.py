"""What a credit statement says in words: what was measured, how, how well, and what its numbers do not mean.

A fact is (term, words). Numbers come from the run's tidy files and parameters alone.
"""

import numpy as np
import pandas as pd
from scipy import stats

from cdlib.base import registry
from cdlib.credit import attributions
from cdlib.data import design
from cdlib.judge import fidelity
from cdlib.show.lettering import decimals, number
from cdlib.show.statement.shares import defined
from cdlib.show.style import spoken
from cdlib.store import completion

PROPERTIES = {  # name, unit
    "inception_score": ("Inception Score", "no unit, at least 1"),
    "cluster_entropy": ("Cluster entropy", "nats"),
    "aesthetic_score": ("Aesthetic score", "units of the score"),
    "fid": ("FID to the training images", "squared units of the embedding"),
    "kid": ("KID to the training images", "no unit"),
}
PROCEDURES = {
    "retrain": "retraining: a new model, trained on the coalition's images alone for {length}",
    "finetune": "fine-tuning: the full model, trained on with the coalition's images alone for {finetune_steps} gradient steps",
    "sparse_finetune": "sparsified fine-tuning: the full model, pruned once ({pruning_ratio:.0%} removed), "
    "trained on with the coalition's images alone for {finetune_steps} gradient steps",
}
ESTIMATORS = {
    "ours": "Shapley value by constrained least squares (eq. 5), with size controls and a ridge chosen by cross-validation",
    "paper": "Shapley value by constrained least squares (eq. 5) in closed form, as in the paper",
}
DRAWS = {"ours": "in complementary pairs, all sizes equally often", "paper": "from the Shapley kernel"}

LEVEL = 0.95  # of the intervals on file, and of those here
PAPER = (
    "Lu, Lin, Kim and Lee: An Efficient Framework for Crediting Data Contributors of Diffusion Models, ICLR 2025; "
    "on use and misuse its section 6, Ethics statement."
)


def property_name(property):
    """A property as a statement calls it; of a function of the user's own, the function's name."""
    return PROPERTIES.get(property, (spoken(property.rpartition(":")[2]),))[0]


def about_property(run, property):
    """What the credits are of: name, unit, what it is computed from, of how many images, and direction."""
    own = registry.properties(run.params)[property]
    made = f"function {property}, {own['aggregate']}" if ":" in property else f"by {own['feature']}"
    made += f" {own['quantile']:g}" if property == "aesthetic_score" or "percentile" in made else ""
    unit, whose = PROPERTIES.get(property, ("", "its own unit"))[1], f"of {own['n_images']:,} images that a model draws"
    better = "Higher is better" if registry.sign(own) > 0 else "Lower is better, so v is its negative"
    return "Property", f"{property_name(property)} ({unit}; {made}) {whose}. {better}: a credit above zero improves it."


def ends(run, property):
    """v(everybody) and v(nobody): two facts, and the values of the models, float [R] each."""
    measured, facts, found = run.table("measured"), [], []
    given = "trained before, elsewhere" if run["full_path"] else "trained on everybody's images"
    of = {"everybody": given, "nobody": "without any contributor's images"}
    for wanted in design.ends(run.params):
        values = attributions.game(run.params, wanted, measured, property)[1]
        found.append(values)
        n, mean = len(values), values.mean()
        words = f"{mean:z.4g}, of one model, so its noise is not known"
        if n > 1:
            reach = stats.t.ppf((1 + LEVEL) / 2, n - 1) * stats.sem(values)
            spread = f"mean of {n} models, standard deviation {values.std(ddof=1):.2g}"
            words = f"{number(mean, mean - reach, mean + reach, decimals(abs(mean) / 100, 0))}, {spread}"
        facts.append((f"v({wanted.purpose})", f"{words}; {of[wanted.purpose]}"))
    return facts, *found


def shares(credit, adds_up):
    """How the shares are meant, with the credits that pull against each other.

    credit    float [N]
    adds_up   bool        whether they sum to v(everybody) - v(nobody), as Shapley values do
    """
    whole = "v(everybody) - v(nobody)"
    whole = whole if adds_up else f"the sum of the credits, which by this method is not {whole}"
    if not defined(credit):
        return f"None: {whole} is {credit.sum():z.3g}, no improvement, and a share of that would mean nothing."
    words = f"Percent of {whole} = {credit.sum():z.4g}; rounded by largest remainders, so that they add up to 100 as printed."
    if (credit < 0).any():
        up, down = credit[credit > 0].sum(), credit[credit < 0].sum()
        words += f" Credits above zero add up to {up:.3g}, those below to {down:.3g}: others' make up for negative shares."
    if np.abs(credit).max() > credit.sum():
        words += " The whole is smaller than single credits: read the credits, not their shares."
    return words


def compared(confidence, known, sure, why):
    """What intervals, ranks and groups mean.

    known   bool          whether credits have intervals
    sure    bool [N, N]   who is surely credited more than whom; None: not known
    why     str           why it is not known
    """
    percent = f"{100 * confidence:g} %"
    words = f"Intervals of credits: {percent} for each contributor by itself. " if known else ""
    if sure is None:
        return f"{words}How sure the ranking is, and who can be told apart, is not known: {why}."
    words += (
        f"Intervals of ranks, and groups: {percent} for all at once (max-t over all pairs). Contributors who share a letter "
        "cannot be told apart; between two who share none lies a sure difference, if not always their own."
    )
    words += "" if sure.any() else " Here nobody is surely credited more than anybody else."
    return words + ("" if confidence == LEVEL else f" Intervals further down: {100 * LEVEL:g} %.")


def noise(freedom):
    """What the intervals know of, and what they are judged by."""
    return f"bootstrap over the coalitions and the models of everybody and nobody; t with {freedom:.0f} degrees of freedom"


def pot(amount):
    """The rule by which a pot is divided."""
    return (
        f"{amount} is divided in proportion to the credits; one of zero or below gets nothing. Each amount is rounded down to "
        "two decimals; the hundredths left over go to the largest remainders, of equal ones to the first by label. So the "
        "amounts add up to the pot. In brackets: the amount if this credit alone stood at either end of its interval."
    )


def quality(run, method, property):
    """How well the credit was checked: fidelity of the fast models, LDS of the method; those that this run has."""
    facts, wanted = [], _wanted(run, method)
    if wanted is not None and wanted.procedure == "sparse_finetune" and property == run["property"]:
        facts += [("Fidelity", _fidelity(run))]
    if run.path("lds.csv").is_file():
        rows = run.table("lds").query("method == @method and property == @property and interval == 'subsets'")
        if rows["lds_percent"].notna().any():
            each = "; ".join(
                f"{number(row.lds_percent, row.low, row.high, least=0)} at alpha {row.alpha:g}"
                + ("" if np.isnan(row.ceiling_percent) else f" (ceiling {row.ceiling_percent:z.0f})")
                for row in rows.itertuples()
            )
            facts += [
                ("LDS (%)", f"{each}: how well the credits, added up, rank {rows['n_coalitions'].max()} retrained coalitions")
            ]
    return facts


def _fidelity(run):
    path = run.path("fidelity.csv")
    pairs = run.table("fidelity") if path.is_file() else pd.DataFrame({"retrain": [], "sparse_finetune": []})
    if len(pairs) < 3:  # 2 are always in order or reversed
        return f"not measured: {len(pairs) or 'no'} coalition{'s were' if len(pairs) == 2 else ' was'} also retrained"
    kinds = {"Pearson": fidelity.pearson, "Spearman": fidelity.spearman}
    found = {name: of(pairs["retrain"], pairs["sparse_finetune"], level=LEVEL) for name, of in kinds.items()}
    words = ", ".join(f"{name} {fidelity.said(number(*ends), ends[0])}" for name, ends in found.items())
    return f"{words} between the property after this procedure and after retraining, of the same {len(pairs)} coalitions"


def how(run, method):
    """How the credits were made: images, model, procedure, estimator, coalitions, seeds, versions."""
    p, table, wanted = run.params, run.table("contributors"), _wanted(run, method)
    length = f"{p['train_epochs']} passes" if p["train_epochs"] else f"{p['train_steps']} gradient steps"
    trained = "trained before, elsewhere" if p["full_path"] else f"trained on everybody's images for {length}"
    facts = [
        ("Images", f"dataset {p['dataset']}: {len(table):,} images of {table['contributor'].nunique()} contributors"),
        ("Model", f"{p['model']}, {trained}; images drawn in {p['sampling_steps']} steps"),
        ("Method", method),
    ]
    seeds = [f"models of {w.purpose} {', '.join(map(str, w.seeds))}" for w in design.ends(p)]
    if wanted is not None:
        measured = len(attributions.game(p, wanted, run.table("measured"), p["property"])[1])
        lost = f" of {len(wanted)} asked for" if measured < len(wanted) else ""
        facts += [
            ("Procedure", PROCEDURES[wanted.procedure].format(length=length, **p)),
            ("Estimator", ESTIMATORS[wanted.estimator]),
            ("Coalitions", f"{measured} measured{lost}, drawn {DRAWS[wanted.estimator]}"),
        ]
        seeds += [f"draw of the coalitions {p['coalition_seed']}", "training of each 0, and 1, 2, ... where drawn again"]
    return [*facts, ("Seeds", "; ".join(seeds)), ("Made with", _made_with(run, wanted))]


def _made_with(run, wanted):
    state = completion.state(run.results, "04_shapley" if wanted is not None else "05_baselines")
    if state is None:
        return "not known"
    versions = ", ".join(f"{name} {version}" for name, version in state["versions"].items())
    return ", ".join(filter(None, [versions, state["revision"] and f"revision {state['revision']}", state["machine"]]))


def limits(properties):
    """What the numbers do not mean."""
    here = ", ".join(map(property_name, properties))
    return [
        f"A credit is of one property (here: {here}), one kind of model and these contributors. Another property gives other "
        "credits, and credits of two properties cannot be added up.",
        "It depends on who else is there. What nobody else gives counts for much; those who give alike images, or the same ones, "
        "share the credit for them, however good the images are.",
        "A credit below zero says that models were on average worse in this property with these images than without. It is no "
        "fault, and says nothing of other respects.",
        "It is an estimate. A place in the ranking means little where intervals of ranks are wide; those in one group may stand "
        "in any order. The models were made by a short cut where the procedure says so.",
        "It is no legal claim. It says nothing of ownership, copyright, licence or market value. Privacy, consent and the "
        "amplification of biases are not easily put into a property, and none of them is measured here.",
        "It was made to give credit. By itself it is no ground to remove anyone's images; who is credited should be told how.",
    ]


def _wanted(run, method):
    return {w.purpose: w for w in design.shapley(run.params)}.get(method)
