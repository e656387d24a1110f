import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import isnas_jax as isnas
from isnas_jax import registries
from isnas_jax.searching import cohort, selection
from isnas_jax.searching.selection import simplex_least_squares


def new_key():
    return jax.random.key(0)


def test_lowest_scores_are_ascending_and_equal_ones_keep_their_order():
    assert cohort.lowest([3.0, 1.0, 2.0, 1.0], 3).tolist() == [1, 3, 2]
    with pytest.raises(ValueError, match="cohort of 5 from 4"):
        cohort.lowest([3.0, 1.0, 2.0, 1.0], 5)
    with pytest.raises(ValueError, match="candidate 1"):
        cohort.lowest([3.0, np.nan], 1)


def test_weights_fall_with_the_score_and_the_worst_is_not_0():
    weights = selection.metric_weights([1.0, 2.0, 4.0])
    assert weights.sum() == pytest.approx(1)
    # (4 - s + 3 / 2) normalized
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
    candidates = isnas.Candidates(range(20), np.zeros((20, 1)))
    chosen = isnas.random_subset(jax.random.key(0), candidates, 15)
    assert len(set(chosen.tolist())) == 15
    again = isnas.random_subset(jax.random.key(0), candidates, 15)
    np.testing.assert_array_equal(chosen, again)
    with pytest.raises(ValueError, match="cohort of 21 from 20"):
        isnas.random_subset(new_key(), candidates, 21)


def test_top_k_are_the_lowest_mean_scores():
    scores = np.array([[3.0, 5.0], [0.0, 1.0], [9.0, 0.0], [2.0, 2.0]])
    candidates = isnas.Candidates(range(4), scores)  # means 4, 0.5, 4.5, 2
    assert isnas.top_k(new_key(), candidates, 3).tolist() == [1, 3, 0]


def test_top_half_draws_from_the_better_half():
    scores = np.random.default_rng(0).permutation(9).astype(float)
    candidates = isnas.Candidates(range(9), scores[:, None])
    cohorts = [isnas.top_half(key, candidates, 3) for key in jax.random.split(new_key(), 40)]
    for chosen in cohorts:
        assert (np.diff(scores[chosen]) > 0).all()
        assert scores[chosen].max() < 5
    assert len({tuple(chosen) for chosen in cohorts}) == 10  # all subsets of 3 among 5
    assert sorted(scores[isnas.top_half(new_key(), candidates, 9)]) == sorted(scores)


def cohort_of(images, scores, validation):
    blank = isnas.denoising(np.zeros((4, 4, 1)))
    folds = [cohort.Fold(blank, validation, images, [None] * len(images))]
    return cohort.Cohort(list(range(len(images))), scores, blank, folds)


def test_selection_by_validation_error_and_by_ranks():
    validation = isnas.denoising(np.zeros((4, 4, 1)))
    # Errors 0.16, 0.04, 0.09, 0.01 have the ranks 4, 2, 3, 1.
    images = np.stack([np.full((4, 4, 1), v, np.float32) for v in (0.4, 0.2, 0.3, 0.1)])
    for scores, by_ranks in (
        ([1.0, 2.0, 3.0, 4.0], 1),  # sums of ranks 5, 4, 6, 5
        ([1.0, 3.0, 4.0, 2.0], 3),  # 5, 5, 7, 3
        ([1.0, 3.0, 2.0, 4.0], 3),  # 5, 5, 5, 5: the least error decides
        ([1.0, 2.0, 3.0, np.nan], 1),  # a member without a score has no rank
    ):
        members = cohort_of(images, np.array(scores), validation)
        np.testing.assert_allclose(members.errors, [0.16, 0.04, 0.09, 0.01], rtol=1e-6)
        assert isnas.lowest_validation(members) == 3
        assert isnas.lowest_mean_rank(members) == by_ranks
    with pytest.raises(ValueError, match="need a split"):
        isnas.lowest_validation(cohort_of(images, np.zeros(4), None))


def test_members_without_a_score_are_not_selected_by_score():
    images = np.stack([np.full((4, 4, 1), v, np.float32) for v in (0.0, 0.4, 0.2)])
    members = cohort_of(images, np.array([1.0, 2.0, np.nan]), None)
    # The mean with weights 2/3 and 1/3 is 0.13, to which the last member would be closest.
    assert isnas.closest_to_mean(members) == 0
    np.testing.assert_allclose(isnas.score_weighted_mean(members, 0), [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(isnas.uniform_mean(members, 0), [1 / 3, 1 / 3, 1 / 3])
    np.testing.assert_allclose(isnas.selected_only(members, 2), [0, 0, 1])


def test_registries_hold_the_decisions_by_name():
    assert registries.COHORT_SELECTIONS["top-half"] is isnas.top_half
    assert registries.SELECTIONS["ranks"] is isnas.lowest_mean_rank
    assert registries.COMBINATIONS["stack"] == isnas.Stack()
    for registry, message in (
        (registries.COHORT_SELECTIONS, "cohort selection 'best' does not exist.*top-k, top-half"),
        (registries.SELECTIONS, "selection 'best' does not exist.*closest, validation, ranks"),
        (registries.COMBINATIONS, "combination 'best' does not exist.*selected, scores, mean"),
    ):
        for error in (ValueError, KeyError):
            with pytest.raises(error, match=message):
                registry["best"]


@pytest.mark.parametrize("task", ["denoising", "inpainting", "super_resolution"])
def test_stack_weights_equal_those_of_a_general_optimizer(task):
    """SciPy's SLSQP minimizes the validation error of the mean itself."""
    rng = np.random.default_rng(0)
    clean = rng.uniform(size=(32, 32, 3)).astype(np.float32)
    problem = {
        "denoising": lambda: isnas.denoising(clean + rng.normal(0, 0.1, clean.shape)),
        "inpainting": lambda: isnas.inpainting(clean, rng.uniform(size=(32, 32)) > 0.5),
        "super_resolution": lambda: isnas.super_resolution(clean[::2, ::2], 2),
    }[task]()
    _, validation = isnas.HoldOut(0.2)(jax.random.key(0), problem)
    noises = rng.normal(size=(5, *clean.shape))
    noises[1] = 0.9 * noises[0] + 0.2 * noises[1]  # two similar members
    strengths = np.array([0.1, 0.12, 0.08, 0.3, 0.1])[:, None, None, None]
    images = np.clip(clean + strengths * noises, 0, 1).astype(np.float32)
    weights = isnas.Stack(0)(cohort_of(images, np.zeros(5), validation), 0)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)

    def error(w):
        return 1e3 * float(validation.error(jnp.tensordot(w, images, axes=1)))

    predicted = np.stack([np.asarray(validation.operator(image)) for image in images])
    mask = np.broadcast_to(validation.weights, predicted[0].shape)

    def exact(w):
        mean = np.tensordot(w, predicted.astype(float), axes=1)
        return 1e3 * (mask * (mean - np.asarray(validation.observed)) ** 2).sum() / mask.sum()

    assert exact(weights) == pytest.approx(error(weights), rel=1e-4)
    optimum = scipy.optimize.minimize(
        exact,
        np.full(5, 0.2),
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12},
    )
    assert optimum.success
    assert exact(weights) <= optimum.fun + 1e-6
    np.testing.assert_allclose(weights, optimum.x, atol=2e-3)
    # At least as good as any member alone.
    assert exact(weights) <= min(exact(member) for member in np.eye(5))


def test_the_ridge_shrinks_towards_equal_weights():
    rng = np.random.default_rng(1)
    clean = rng.uniform(size=(8, 8, 1)).astype(np.float32)
    images = (clean + rng.normal(size=(3, 8, 8, 1)) * [[[[0.1]]], [[[0.2]]], [[[0.3]]]]).astype(
        "f4"
    )
    members = cohort_of(images, np.zeros(3), isnas.denoising(clean))
    errors = np.square(images - clean).mean(axis=(1, 2, 3))
    products = np.einsum("ahwc,bhwc->ab", *((images - clean).astype(float),) * 2) / clean.size

    def penalized(w, ridge):
        return w @ products @ w + ridge * errors.mean() * np.square(w - 1 / 3).sum()

    for ridge in (0.01, 0.1, 1.0):
        weights = isnas.Stack(ridge)(members, 0)
        for other in rng.dirichlet(np.ones(3), 500):
            assert penalized(weights, ridge) <= penalized(other, ridge) + 1e-9
    np.testing.assert_allclose(isnas.Stack(1e6)(members, 0), 1 / 3, atol=1e-4)


def test_a_perfect_member_gets_all_weight():
    vectors = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, -1.0]])
    np.testing.assert_allclose(simplex_least_squares(vectors), [1, 0, 0], atol=1e-12)
    opposite = np.array([[2.0, 0.0], [-1.0, 0.0], [0.0, 5.0]])
    np.testing.assert_allclose(simplex_least_squares(opposite), [1 / 3, 2 / 3, 0], atol=1e-12)
