import jax
import numpy as np
import pytest

import isnas_jax as isnas
from isnas_jax.fitting import Fit
from isnas_jax.searching import cohort, selection
from isnas_jax.searching.strategies import Candidates


def test_best_by_score_is_ascending_and_stable():
    assert cohort.lowest([3.0, 1.0, 2.0, 1.0], 3).tolist() == [1, 3, 2]
    with pytest.raises(ValueError, match="cohort of 5 from 4"):
        cohort.lowest([3.0, 1.0, 2.0, 1.0], 5)
    with pytest.raises(ValueError, match="candidate 1"):
        cohort.lowest([3.0, np.nan], 1)


def test_weights_fall_with_the_score_and_the_worst_has_a_voice():
    weights = selection.metric_weights([1.0, 2.0, 4.0])
    assert weights.sum() == pytest.approx(1)
    # (4 - s + 3 / 2) normalised
    np.testing.assert_allclose(weights, np.array([4.5, 3.5, 1.5]) / 9.5)
    np.testing.assert_allclose(selection.metric_weights([2.0, 2.0]), [0.5, 0.5])
    np.testing.assert_allclose(selection.metric_weights([2.0]), [1.0])


def test_closest_to_the_weighted_mean():
    images = np.stack([np.full((4, 4, 1), v, np.float32) for v in (0.0, 0.4, 1.0)])
    mean = selection.weighted_mean(images, np.array([0.5, 0.25, 0.25]))
    np.testing.assert_allclose(mean, 0.35)
    assert selection.closest(images, mean) == 1
    assert selection.closest(images[[1, 1]], mean) == 0


def test_random_cohorts_are_distinct_and_repeatable():
    candidates = Candidates(range(20), np.zeros((20, 1)))
    drawn = cohort.at_random(jax.random.key(0), candidates, 15)
    assert len(set(drawn.tolist())) == 15
    again = cohort.at_random(jax.random.key(0), candidates, 15)
    np.testing.assert_array_equal(drawn, again)


def fitted(validation, restored_at):
    blank = np.zeros((2, 2, 1), np.float32)
    curve = np.zeros(len(validation), np.float32)
    return Fit(
        loss=curve,
        validation=None if validation[0] is None else np.array(validation),
        psnr=None,
        psnr_mean=None,
        criterion=curve,
        output=blank,
        mean=blank,
        restored=blank,
        restored_at=restored_at,
        best=None,
        snapshots={},
        variables=None,
    )


def test_selection_by_validation_error_and_by_ranks():
    problem = isnas.denoising(np.zeros((2, 2, 1)))
    # Of what was restored, not of the least ever: 4, 2, 3, 1 have the ranks 4, 2, 3, 1.
    fits = [fitted([4.0, 0.1], 0), fitted([9.0, 2.0], 1), fitted([3.0, 8.0], 0), fitted([1.0], 0)]
    for scores, by_ranks in (
        ([1.0, 2.0, 3.0, 4.0], 1),  # sums of ranks 5, 4, 6, 5
        ([1.0, 3.0, 4.0, 2.0], 3),  # 5, 5, 7, 3
        ([1.0, 3.0, 2.0, 4.0], 3),  # 5, 5, 5, 5: the least error decides
    ):
        members = cohort.Cohort(list("abcd"), np.array(scores), problem, fits)
        assert selection.SELECTIONS["validation"](members) == 3
        assert selection.SELECTIONS["ranks"](members) == by_ranks
    without = cohort.Cohort(["a"], np.zeros(1), problem, [fitted([None], 0)])
    with pytest.raises(ValueError, match="needs fits with a split"):
        selection.SELECTIONS["validation"](without)
