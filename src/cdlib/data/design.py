"""Which coalitions each notebook asks for: a function of the parameters, so that the work is known before it starts.

N  contributors        M  coalitions
"""

from dataclasses import dataclass

import numpy as np
import pandas as pd

from cdlib.base import registry
from cdlib.base.params import n_contributors, share
from cdlib.data import coalitions

OURS = "Sparsified-FT Shapley (Ours)"
PAPERS = "Sparsified-FT Shapley (paper's estimator)"
AGAIN, UNCHANGED = "retrain_again", "unchanged"  # what retraining with another seed changes, and what doing nothing leaves
UNTRAINED = "untrained"  # models that stay as they start: they cost their images only


@dataclass(frozen=True)
class Wanted:
    """Coalitions to be measured.

    purpose      what for: a method's name, or a few words
    procedure    of procedures.START: how the models are made
    members      bool [M, N]
    seeds        int [M]: of initial weights (retrain) and of the training's randomness
    estimator    of the credits that these coalitions give (attributions.ESTIMATORS); empty when they give none
    keeps        features (params.EMBEDDINGS) of all images, which are kept with each; they are no part of its key
    counted      whether these are told when some are missing; not those that other purposes count
    """

    purpose: str
    procedure: str
    members: np.ndarray
    seeds: np.ndarray
    estimator: str = ""
    keeps: tuple[str, ...] = ()
    counted: bool = True

    def __len__(self) -> int:
        return len(self.members)

    @property
    def cost(self) -> str:
        """What one of them takes the time of: the procedure, or UNTRAINED (nobody trained, everybody unlearned)."""
        learned = ~self.members if self.procedure in ("gradient_ascent", "influence_unlearning") else self.members
        return self.procedure if learned.any() else UNTRAINED


def _crossed(purpose: str, members: np.ndarray, seeds) -> Wanted:
    """Every coalition, retrained with every seed; seeds vary slowest."""
    members = np.atleast_2d(members)
    return Wanted(purpose, "retrain", np.tile(members, (len(seeds), 1)), np.repeat(np.array(seeds, int), len(members)))


def ends(params: dict) -> list[Wanted]:
    """Notebook 02: v(everybody) and v(nobody), each with several seeds, for their noise enters every credit.

    Of a model that was given (full_path) there is but one, whose noise is not known.
    """
    n, first = n_contributors(params), params["train_seed"]
    full = _crossed("everybody", coalitions.everybody(n), range(first, first + params["n_full_seeds"]))
    if params["full_path"]:
        full = Wanted("everybody", "given", full.members[:1], full.seeds[:1])
    return [
        full,
        _crossed("nobody", coalitions.nobody(n), range(first, first + params["n_empty_seeds"])),
    ]


def shapley(params: dict) -> list[Wanted]:
    """Notebook 04: our paired design by sparsified fine-tuning, the paper's draws, and the first of ours by other procedures.

    A coalition drawn again gets another seed. More coalitions are always the same ones, and then others. Too few for credits
    (names.NEEDS) have no estimator.
    """
    n, seed = n_contributors(params), params["coalition_seed"]
    paired = coalitions.paired(n, max(params[k] for k in ("n_coalitions", "n_finetune", "n_retrain")), seed)
    drawn = coalitions.kernel(n, params["n_paper_coalitions"], seed)
    return [
        Wanted(method, procedure, members, coalitions.repeats(members), "" if registry.lacking(method, params) else estimator)
        for method, procedure, members, estimator in (
            (OURS, "sparse_finetune", paired[: params["n_coalitions"]], "ours"),
            (PAPERS, "sparse_finetune", drawn, "paper"),
            ("FT Shapley", "finetune", paired[: params["n_finetune"]], "ours"),
            ("Retraining Shapley", "retrain", paired[: params["n_retrain"]], "ours"),
        )
        if len(members) or procedure == "retrain"  # which others are compared with
    ]


def leave_one_out(params: dict) -> Wanted:
    """Notebook 05: everybody but one, with the seeds of the full models (eq. 11)."""
    members, first = coalitions.leave_one_out(n_contributors(params)), params["train_seed"]
    return _crossed("leave one out", members, range(first, first + params["n_loo_seeds"]))


def lds(params: dict) -> list[Wanted]:
    """Notebook 06: for each alpha, random coalitions of size alpha N, each retrained with several seeds (eq. 10).

    Their seeds start at 1, those of the credits' own coalitions at 0.
    """
    n, seeds = n_contributors(params), range(1, 1 + params["n_lds_seeds"])
    return [
        _crossed(
            f"LDS, alpha {alpha:g}",
            coalitions.datamodel(n, params["n_subsets"], alpha, params["coalition_seed"]),
            seeds,
        )
        for alpha in params["alphas"]
    ]


def changes(params: dict) -> dict[str, tuple]:
    """The counterfactual changes: name -> (function of a ranking, fraction)."""
    remove, keep = params["remove_fraction"], params["keep_fraction"]
    return {
        f"remove_top_{100 * remove:.0f}": (coalitions.remove_top, remove),
        f"keep_top_{100 * keep:.0f}": (coalitions.keep_top, keep),
    }


def counterfactual(params: dict, attributions: pd.DataFrame) -> dict[tuple[str, str], Wanted]:
    """Notebook 07: without the top contributors of each method, and with only them; (method, change) -> coalitions.

    None of a method that has no credits here, or not of all contributors: who its top contributors are is not known.
    """
    return _changed(params, attributions, changes(params), params["n_counterfactual_seeds"])


def _more(params: dict) -> dict[str, tuple]:
    """The other fractions without which images are shown (Figure 6), as `changes`; none that would remove nobody."""
    fractions = [f for f in params["shown_fractions"] if share(n_contributors(params), f) > 0]
    found = {f"remove_top_{100 * f:.0f}": (coalitions.remove_top, f) for f in fractions}
    return {change: how for change, how in found.items() if change not in changes(params)}


def shown(params: dict, attributions: pd.DataFrame) -> dict[tuple[str, str], Wanted]:
    """Notebook 07: without other fractions of the top contributors, once each, for what is drawn then. As `counterfactual`."""
    return _changed(params, attributions, _more(params), 1)


def _changed(params: dict, attributions: pd.DataFrame, how: dict[str, tuple], n_seeds: int) -> dict[tuple[str, str], Wanted]:
    found = attributions[attributions.property == params["property"]]
    credits = {m: found[found.method == m].sort_values("contributor").value.to_numpy() for m in params["compared"]}
    return {
        (method, change): _crossed(f"{method}, {change}", choose(values, fraction), range(n_seeds))
        for method, values in credits.items()
        if len(values) and np.isfinite(values).all()
        for change, (choose, fraction) in how.items()
    }


def unlearning(params: dict) -> dict[str, Wanted]:
    """Notebook 07: the first of the paper's draws by each procedure of Table 9; and two to compare those with.

    They are each coalition retrained once more, with the next seed, and the sparse model as it is: unlearning nobody.
    Where notebook 04 asks for the same coalition, procedure and seed, it is the same measured coalition.
    """
    n = n_contributors(params)
    members = coalitions.kernel(n, params["n_unlearn"], params["coalition_seed"])
    seeds, keeps = coalitions.repeats(members), (params["fid_embedding"],)
    procedures = ("retrain", "sparse_finetune", "gradient_ascent", "influence_unlearning")
    wanted = {p: Wanted("unlearning", p, members, seeds, keeps=keeps) for p in procedures}
    wanted[AGAIN] = Wanted("unlearning: noise of retraining", "retrain", members, seeds + 1, keeps=keeps)
    everybody = coalitions.everybody(n)[None]
    wanted[UNCHANGED] = Wanted("unlearning: nothing done", "gradient_ascent", everybody, np.zeros(1, int), keeps=keeps)
    return wanted if len(members) else {}


def together(purpose: str, several) -> Wanted:
    """Coalitions of one procedure, none or more, as one, so that all workers are busy."""
    several = list(several) or [Wanted(purpose, "retrain", np.zeros((0, 0), bool), np.zeros(0, int))]
    members, seeds = (np.concatenate([getattr(w, name) for w in several]) for name in ("members", "seeds"))
    return Wanted(purpose, several[0].procedure, members, seeds, counted=False)


def n_planned(params: dict) -> pd.Series:
    """How many models a run makes, by what they cost; coalitions that several notebooks ask for are counted for each."""
    wanted = [*ends(params), *shapley(params), leave_one_out(params), *lds(params), *unlearning(params).values()]
    found = pd.Series([len(w) for w in wanted]).groupby([w.cost for w in wanted], sort=False).sum()
    n_compared = sum(not registry.lacking(method, params) for method in params["compared"])
    found["retrain"] += n_compared * (len(changes(params)) * params["n_counterfactual_seeds"] + len(_more(params)))
    return found[found > 0]
