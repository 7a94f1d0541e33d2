"""Ridge regression in its dual form, cross-validated: what a linear probe reads from features of any length."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

PENALTIES = np.logspace(-8, 4, 13)
"""Those that are tried, as multiples of the mean squared length of a centered feature vector."""


class Dual(NamedTuple):
    """Centered training samples: K = X X' = U diag(s) U', with the numbers that a prediction needs."""

    vectors: Array
    values: Array
    scale: float
    """Mean squared length of a sample."""
    cross: Array
    """Products of centered samples to predict with the training samples [test train]."""


def held_out_predictions(features: Array, targets: Array, fold: NDArray[np.int64]) -> Array:
    """Predictions of each sample by a ridge regression with intercept on the other folds' samples.

    The penalty is chosen for each target and fold by the leave-one-out error on the training samples, which has a
    closed form; a sample's own fold has no part in that.

    Args:
        features: [sample feature].
        targets: [sample target].
        fold: which fold each sample is of [sample].

    Returns:
        Predictions [sample target].
    """
    products = features @ features.T
    predicted = np.empty_like(targets)
    for which in np.unique(fold):
        train, test = np.flatnonzero(fold != which), np.flatnonzero(fold == which)
        mean = targets[train].mean(0)
        predicted[test] = mean + regression(_dual(products, train, test), targets[train] - mean)
    return predicted


def regression(dual: Dual, targets: Array) -> Array:
    """Predictions [test target] from centered targets [train target], each with its own best penalty."""
    if dual.scale <= 0.0:  # features that are all the same
        return np.zeros((len(dual.cross), targets.shape[1]))
    rotated = dual.vectors.T @ targets
    penalties = dual.scale * PENALTIES
    kept = penalties[:, None] / (dual.values + penalties[:, None])  # [penalty eigenvalue]
    # 1 - h, h of the hat matrix with its intercept: whose eigenvector has the eigenvalue 0 in K
    free = np.maximum(kept @ dual.vectors.T**2 - 1 / len(targets), 1e-12)
    errors = np.stack(
        [np.square(dual.vectors @ (k[:, None] * rotated) / f[:, None]).mean(0) for k, f in zip(kept, free, strict=True)]
    )
    penalty = penalties[errors.argmin(0)]  # [target]
    return dual.cross @ dual.vectors @ (rotated / (dual.values[:, None] + penalty))


def _dual(products: Array, train: NDArray[np.int64], test: NDArray[np.int64]) -> Dual:
    among = products[np.ix_(train, train)]
    cross = products[np.ix_(test, train)]
    column = among.mean(0)
    centered = among - column - column[:, None] + column.mean()
    values, vectors = np.linalg.eigh(centered)
    cross = cross - cross.mean(1, keepdims=True) - column + column.mean()
    return Dual(vectors, np.maximum(values, 0.0), float(np.trace(centered)) / len(train), cross)
