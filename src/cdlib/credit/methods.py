"""The attribution methods that the paper compares with (section 4.3), by their names: one function and one line for each.

    method(evidence) -> float [N], or a Credit with intervals

One more method is one more function of an `Evidence`, one more line in METHODS, and its name in names.Method. Where a method is
not for all runs, names.ONLY says for which.

T  training images        Q  queries: the generated images that the property was computed from        N  contributors
"""

import copy
import warnings
from functools import cached_property, partial

import numpy as np
import pandas as pd

from cdlib import store
from cdlib.base.errors import Missing
from cdlib.base.registry import EMBEDDINGS, HOW, SCORES, applies
from cdlib.credit import controls, influence, similarity
from cdlib.credit import leave_one_out as loo
from cdlib.data import contributors
from cdlib.measure import properties, sketches, utility
from cdlib.models import stages
from cdlib.store.measured import members


class Evidence:
    """What a run has to credit contributors by. What takes long is computed when it is first asked for, and kept.

    everybody, without, sparse    frames of measured coalitions (utility.measure): full models; models of everybody but one;
                                  sparsely fine-tuned models

    property    str     of the run's properties, the one that is credited; empty: the first
    params      dict    the run's parameters, with what is this property's own

    Images are joined to contributors by image id; training images are in the order of their ids.
    """

    def __init__(self, run: store.Run, everybody, without, sparse, property: str = ""):
        self.run, self.everybody, self.without, self.sparse = run, everybody, without, sparse
        self.property = property or run["property"]
        self.params = run.properties[self.property]
        self.table = run.table("contributors")
        self.labels, self.owner = contributors.labels(self.table), contributors.owners(self.table).sort_index()
        self._found = {}

    @cached_property
    def training(self) -> np.ndarray:
        """uint8 [T, C, H, W]"""
        return stages.dataset(self.run.params).images[self.owner.index]

    @cached_property
    def queries(self) -> np.ndarray:
        """uint8 [Q, C, H, W], of the first full model"""
        return self.run.measured.arrays(self.everybody.key.iloc[0])["images"]

    def features(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """A feature (module features) of the training images and of the queries: float32 [T, ...] and [Q, ...]."""
        feature = properties.feature(self.run.folder, self.run.params, name)
        if name not in self._found:
            self._found[name] = feature(self.training), feature(self.queries)
        return self._found[name]

    def gradients(self, what: str) -> np.ndarray:
        """Projected gradients (module sketches): float32 [T, k] or [Q, k]. Raises Missing where they are switched off."""
        if not self.run["gradient_timesteps"]:
            raise Missing("gradient_timesteps: 0")
        if what not in self._found:
            self._found[what] = sketches.features(self.run, what, self.everybody.key.iloc[0])
        return self._found[what]

    def by_contributor(self, scores: np.ndarray, how: str) -> np.ndarray:
        """float [T] -> float [N]: average, max or sum of the scores of each contributor's images."""
        return similarity.aggregate(pd.Series(scores, self.owner.index), self.owner, len(self.labels), how)

    def of(self, property: str) -> "Evidence":
        """The same for another of the run's properties; what was computed is shared."""
        other = copy.copy(self)
        other.property, other.params = property, self.run.properties[property]
        return other

    def _repr_markdown_(self) -> str:
        of = f"{len(self.training)} training images of {len(self.labels)} contributors, {len(self.queries)} queries"
        return f"{of}, {len(self.without)} models without a contributor, {len(self.sparse)} coalitions by sparsified fine-tuning"


def pixels(evidence: Evidence, how: str) -> np.ndarray:
    """Cosine of the pixels of training images and queries (appendix C, raw pixel similarity)."""
    return _alike(evidence, evidence.training, evidence.queries, how)


def embeddings(evidence: Evidence, how: str) -> np.ndarray:
    """Cosine of their embeddings by the parameter `embedding` (appendix C, CLIP similarity)."""
    return _alike(evidence, *evidence.features(evidence.run["embedding"]), how)


def gradients(evidence: Evidence, how: str) -> np.ndarray:
    """Cosine of their projected gradients (eq. 12)."""
    return _alike(evidence, evidence.gradients("training, simple"), evidence.gradients("generated, simple"), how)


def _alike(evidence, training, queries, how: str) -> np.ndarray:
    """Cosines by contributor. `similarity_max` says of what the maximum is: of the average over queries, or one for each query.

    Differs: the paper does not say which; the released code takes the former for CIFAR-20 and CelebA-HQ, the latter for ArtBench.
    """
    if how == "max" and evidence.run["similarity_max"] == "per_query":
        return similarity.max_per_query(training, queries, evidence.owner.to_numpy(), len(evidence.labels))
    return evidence.by_contributor(similarity.cosine(training, queries), how)


def embedding_distance(evidence: Evidence, how: str) -> np.ndarray:
    """Distance of training images' embeddings to the mean ones of the reference clusters (appendix C)."""
    name, to = evidence.params["feature"], evidence.params["embedding_distance"]
    centres = properties.named("cluster_entropy").centres(evidence.run.folder)
    scores = similarity.distance(evidence.features(name)[0], centres, to_global_mean=to == "global_mean")
    return evidence.by_contributor(scores, how)


def score(evidence: Evidence, how: str) -> np.ndarray:
    """The property's own score of the training images (section 4.3, application-specific metrics)."""
    return evidence.by_contributor(evidence.features(evidence.params["feature"])[0], how)


def summed(evidence: Evidence, method, loss: str = "simple", queries: str = "", damping: str = "damping") -> np.ndarray:
    """A method of module influence, summed over a contributor's images.

    damping    the parameter that holds it; 0 is the scale-free one

    `influence_sum: mean` averages instead. Differs: the released code averages for CIFAR-20 and CelebA-HQ.
    """
    training = evidence.gradients(f"training, {loss}")
    asked = evidence.run[damping] / training.shape[1]  # given for projections with entries N(0, 1): sqrt(k) times longer
    scores = method(training, evidence.gradients(queries or f"generated, {loss}"), asked or influence.scale_free(training))
    return evidence.by_contributor(scores, {"sum": "sum", "mean": "average"}[evidence.run["influence_sum"]])


def leave_one_out(evidence: Evidence):
    """F(everybody) - F(everybody but i), by retraining, with intervals (eq. 11); NaN for a contributor without such a model."""
    grid = utility.seed_grid(evidence.run, evidence.without, evidence.property)
    if grid.empty:
        raise Missing("no model without a contributor is measured")
    full = utility.values(evidence.run, evidence.everybody, evidence.property)
    credit = loo.loo(full, loo.by_contributor(members(grid.index), grid))
    unknown = [label for label, value in zip(evidence.labels, credit.value, strict=True) if np.isnan(value)]
    if unknown:
        why = f"no LDS, for it lacks the credit of {len(unknown)} without whom no model is measured: {', '.join(unknown)}"
        evidence.run.leave_out("Leave-one-out (LOO), in part", why)
        warnings.warn(f"Leave-one-out (LOO): {why}", stacklevel=2)
    return credit


def n_images(evidence: Evidence) -> np.ndarray:
    """How many images each gave: a control."""
    return controls.n_images(contributors.counts(evidence.table))


def ridge_datamodel(evidence: Evidence) -> np.ndarray:
    """A ridge regression of the property on who is in: a control."""
    return controls.ridge_datamodel(*utility.game(evidence.run, evidence.sparse, evidence.property))


METHODS = {
    **{f"Pixel similarity ({how})": partial(pixels, how=how) for how in HOW},
    **{f"Embedding dist. ({how})": partial(embedding_distance, how=how) for how in HOW},
    **{f"{name} similarity ({how})": partial(embeddings, how=how) for name in EMBEDDINGS.values() for how in HOW},
    **{f"Gradient similarity ({how})": partial(gradients, how=how) for how in HOW},
    **{f"{name} ({how})": partial(score, how=how) for name in SCORES.values() for how in HOW},
    "Relative IF": partial(summed, method=influence.relative_influence),
    "Renormalized IF": partial(summed, method=influence.renormalised_influence),
    "TRAK": partial(summed, method=influence.trak),
    "Journey-TRAK": partial(summed, method=influence.journey_trak, queries="journey"),
    "D-TRAK": partial(summed, method=influence.d_trak, loss="square", damping="d_trak_damping"),
    "Leave-one-out (LOO)": leave_one_out,
    "Number of images (control)": n_images,
    "Ridge datamodel (control)": ridge_datamodel,
}
ALIKE = (pixels, embeddings, gradients, summed, n_images)  # they credit every property alike


def names(params: dict) -> list[str]:
    """The methods that apply to a run, in the order of the paper's Table 1."""
    return [name for name in METHODS if applies(name, params)]


def credits(evidence: Evidence) -> dict[str, dict]:
    """{property: {method: float [N] or Credit}} by every method that applies to it and has what it goes by; the others are named.

    Methods that see images or gradients alone credit every property alike.
    """
    found, alike = {}, {}
    for property, params in evidence.run.properties.items():
        wanted = {name: METHODS[name] for name in names(params)}
        new = {name: method for name, method in wanted.items() if name not in alike}
        found[property] = alike | evidence.run.possible(new, evidence.of(property), of=evidence.run.about(property))
        found[property] = {name: found[property][name] for name in wanted if name in found[property]}
        alike |= {name: credit for name, credit in found[property].items() if _sees(METHODS[name]) in ALIKE}
    return found


def _sees(method):
    return method.func if isinstance(method, partial) else method
