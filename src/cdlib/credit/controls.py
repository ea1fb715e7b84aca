"""Two control rows: an amount that a credit must beat, and a prediction that shows why a high LDS alone makes no credit.

M  coalitions measured        N  contributors
"""

import numpy as np
from sklearn.linear_model import RidgeCV

from cdlib.credit.shapley import TooFewCoalitions

ALPHAS = np.logspace(-2, 1, 100)


def n_images(counts):
    """Credit by amount alone: how many images each contributor gave, float [N]."""
    return np.asarray(counts, float)


def ridge_datamodel(members, utility):
    """Coefficients of a cross-validated ridge regression of utility on membership.

    It predicts coalitions like those that it is fitted on, so it can reach a high LDS; but its values obey no axiom of
    credit and sum to nothing in particular.

    members  bool  [M, N]
    utility  float [M]     v(S), in the property's own unit

    Returns float [N].
    Raises TooFewCoalitions when there are not two coalitions.
    Source: Ilyas et al. 2022, with the ridge strengths .01 to 10 of the released code.
    """
    if len(utility) < 2:
        raise TooFewCoalitions("a regression takes at least 2 coalitions")
    return RidgeCV(alphas=ALPHAS).fit(np.asarray(members, float), utility).coef_
