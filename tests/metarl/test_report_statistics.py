"""Statistics over runs, against scipy and closed forms; and the tables that they are written in."""

import numpy as np
import pytest
from scipy import stats

from metarl.reports.sheets import Sheet, escaped, latex, markdown
from metarl.reports.statistics import (
    interquartile_mean,
    mean_band,
    over_runs,
    probability_of_improvement,
    profile,
)


def draws(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_iqm_over_runs_is_scipys_trimmed_mean_of_all_scores() -> None:
    strata = [draws().normal(size=(4, 6)), draws(1).normal(2.0, size=(8, 2))]
    flat = np.concatenate([scores.ravel() for scores in strata])
    assert over_runs(strata, iqm=True).value == pytest.approx(stats.trim_mean(flat, 0.25), rel=1e-12)
    assert over_runs(strata).value == pytest.approx((strata[0].mean() + strata[1].mean()) / 2, rel=1e-12)


@pytest.mark.parametrize("iqm", [False, True])
def test_the_interval_is_scipys_percentile_bootstrap_over_runs(iqm: bool) -> None:
    scores = draws().exponential(size=(12, 1))

    def statistic(x, axis):
        return interquartile_mean(np.moveaxis(x, axis, -1)) if iqm else x.mean(axis)

    theirs = stats.bootstrap((scores[:, 0],), statistic, n_resamples=9999, method="percentile", rng=draws(1))
    ours, spread = over_runs([scores], iqm=iqm), theirs.standard_error
    assert abs(ours.low - theirs.confidence_interval.low) < 0.15 * spread
    assert abs(ours.high - theirs.confidence_interval.high) < 0.15 * spread


def test_strata_are_resampled_by_themselves() -> None:
    """Then the mean's variance is that within the strata alone, however far they lie apart."""
    strata = [draws(k).normal(100.0 * k, 1.0 + k, size=(20 + 10 * k, 1)) for k in range(3)]
    found = over_runs(strata)
    exact = np.sqrt(sum(x.var() / len(x) for x in strata)) / len(strata)
    assert (found.high - found.low) / (2 * stats.norm.ppf(0.975)) == pytest.approx(exact, rel=0.06)


def test_intervals_over_whole_runs_cover_the_truth_and_those_by_task_do_not() -> None:
    """A run's luck is in all of its scores: 60 studies of 12 runs, true mean 0."""
    covered = {False: 0, True: 0}
    for study in range(60):
        luck, noise = draws(study).normal(size=(12, 1)), draws(1000 + study).normal(size=(12, 30))
        for by_task in covered:
            found = over_runs([luck + 0.3 * noise], by_task=by_task)
            covered[by_task] += found.low <= 0 <= found.high
    assert covered[False] >= 50
    assert covered[True] <= 30


def test_the_probability_of_improvement_is_mann_and_whitneys_u_by_pairs() -> None:
    ours, theirs = draws().integers(0, 4, size=(5, 7)), draws(1).integers(0, 4, size=(3, 7))  # with ties
    u = [stats.mannwhitneyu(x, y).statistic / 15 for x, y in zip(ours.T, theirs.T, strict=True)]
    found = probability_of_improvement(ours.astype(float), theirs.astype(float))
    assert found.value == pytest.approx(np.mean(u), rel=1e-12)
    assert found.low <= found.value <= found.high
    back = probability_of_improvement(theirs.astype(float), ours.astype(float))
    assert found.value + back.value == pytest.approx(1.0)
    better = probability_of_improvement(ours + 10.0, theirs.astype(float))
    assert better == (1.0, 1.0, 1.0)


def test_a_profile_is_the_share_of_scores_above_each_threshold() -> None:
    scores = draws().normal(size=(4, 5))
    thresholds = np.linspace(-3, 3, 13)
    found = profile(scores, thresholds)
    survival = stats.ecdf(scores.ravel()).sf.evaluate(thresholds)
    assert [e.value for e in found] == pytest.approx(list(survival))
    assert all(e.low <= e.value <= e.high for e in found)
    assert [e.value for e in profile(np.array([[1.0], [2.0]]), np.array([0.5, 1.0, 2.0]))] == [1.0, 0.5, 0.0]


def test_the_band_of_a_curve_is_the_interval_of_the_mean_at_each_point() -> None:
    values = draws().normal(size=(5, 3))
    low, high = mean_band(values)
    for point in range(3):
        found = over_runs([values[:, point : point + 1]])
        assert (low[point], high[point]) == pytest.approx((found.low, found.high))


SHEET = Sheet("5 % of a_b", ("task", "X|Y", "mean"), [["RL²", "a & b", "1.0 [0.5, 2]"]], ("95 % < all",))


def test_a_sheet_in_markdown() -> None:
    assert markdown(SHEET) == (
        "### 5 % of a_b\n\n| task | X\\|Y | mean |\n| --- | --- | ---: |\n| RL² | a & b | 1.0 [0.5, 2] |\n\n"
        "- 95 % < all\n"
    )


def test_a_sheet_in_latex_has_no_character_that_means_something_else() -> None:
    found = latex(SHEET)
    assert r"\caption{5 \% of a\_b}" in found
    assert r"\begin{tabular}{llr}" in found
    assert r"RL\textsuperscript{2} & a \& b & 1.0 [0.5, 2] \\" in found
    assert r"95 \% \textless{} all" in found
    assert escaped("\\{}~^$#") == r"\textbackslash{}\{\}\textasciitilde{}\textasciicircum{}\$\#"
