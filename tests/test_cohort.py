import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.optimize

import isnas_jax as isnas
from isnas_jax.searching import COMBINATIONS, cohort, selection
from isnas_jax.searching.combination import Stack, simplex_least_squares
from isnas_jax.searching.strategies import Candidates

KEY = jax.random.key(0)


def test_best_by_score_is_ascending_and_stable():
    assert cohort.lowest([3.0, 1.0, 2.0, 1.0], 3).tolist() == [1, 3, 2]
    with pytest.raises(ValueError, match="cohort of 5 from 4"):
        cohort.lowest([3.0, 1.0, 2.0, 1.0], 5)
    with pytest.raises(ValueError, match="candidate 1"):
        cohort.lowest([3.0, np.nan], 1)


def test_weights_fall_with_the_score_and_the_worst_has_a_voice():
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
    candidates = Candidates(range(20), np.zeros((20, 1)))
    drawn = cohort.at_random(jax.random.key(0), candidates, 15)
    assert len(set(drawn.tolist())) == 15
    again = cohort.at_random(jax.random.key(0), candidates, 15)
    np.testing.assert_array_equal(drawn, again)


def test_the_better_half():
    scores = np.random.default_rng(0).permutation(9).astype(float)
    candidates = Candidates(range(9), scores[:, None])
    drawn = [cohort.top_half(key, candidates, 3) for key in jax.random.split(KEY, 40)]
    for one in drawn:
        assert (np.diff(scores[one]) > 0).all()
        assert scores[one].max() < 5
    assert len({tuple(one) for one in drawn}) == 10  # all there are of 3 among 5
    assert sorted(scores[cohort.top_half(KEY, candidates, 9)]) == sorted(scores)


def of_images(images, scores, validation):
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
        ([1.0, 2.0, 3.0, np.nan], 1),  # who has no score has no rank
    ):
        members = of_images(images, np.array(scores), validation)
        np.testing.assert_allclose(members.errors, [0.16, 0.04, 0.09, 0.01], rtol=1e-6)
        assert selection.SELECTIONS["validation"](members) == 3
        assert selection.SELECTIONS["ranks"](members) == by_ranks
    with pytest.raises(ValueError, match="need a split"):
        selection.SELECTIONS["validation"](of_images(images, np.zeros(4), None))


def test_the_papers_choice_is_among_the_scored():
    images = np.stack([np.full((4, 4, 1), v, np.float32) for v in (0.0, 0.4, 0.2)])
    members = of_images(images, np.array([1.0, 2.0, np.nan]), None)
    # Weights 2/3 and 1/3 make 0.13.
    assert selection.closest_to_mean(members) == 0
    np.testing.assert_allclose(COMBINATIONS["scores"](members, 0), [2 / 3, 1 / 3, 0])
    np.testing.assert_allclose(COMBINATIONS["mean"](members, 0), [1 / 3, 1 / 3, 1 / 3])


@pytest.mark.parametrize("task", ["denoising", "inpainting", "super_resolution"])
def test_stack_weights_against_a_general_optimizer(task):
    """SciPy's SLSQP on the validation error of the mean itself, of members like a fit's."""
    rng = np.random.default_rng(0)
    clean = rng.uniform(size=(32, 32, 3)).astype(np.float32)
    problem = {
        "denoising": lambda: isnas.denoising(clean + rng.normal(0, 0.1, clean.shape)),
        "inpainting": lambda: isnas.inpainting(clean, rng.uniform(size=(32, 32)) > 0.5),
        "super_resolution": lambda: isnas.super_resolution(clean[::2, ::2], 2),
    }[task]()
    _, validation = isnas.hold_out(jax.random.key(0), problem, 0.2)
    noises = rng.normal(size=(5, *clean.shape))
    noises[1] = 0.9 * noises[0] + 0.2 * noises[1]  # two of a kind
    strengths = np.array([0.1, 0.12, 0.08, 0.3, 0.1])[:, None, None, None]
    images = np.clip(clean + strengths * noises, 0, 1).astype(np.float32)
    weights = Stack(0)(of_images(images, np.zeros(5), validation), 0)
    assert weights.min() >= 0
    assert weights.sum() == pytest.approx(1)

    def error(w):
        return 1e3 * float(validation.error(jnp.tensordot(w, images, axes=1)))

    seen = np.stack([np.asarray(validation.operator(image)) for image in images])
    mask = np.broadcast_to(validation.weights, seen[0].shape)

    def exact(w):
        off = np.tensordot(w, seen.astype(float), axes=1) - np.asarray(validation.observed)
        return 1e3 * (mask * off**2).sum() / mask.sum()

    assert exact(weights) == pytest.approx(error(weights), rel=1e-4)
    found = scipy.optimize.minimize(
        exact,
        np.full(5, 0.2),
        bounds=[(0, 1)] * 5,
        constraints={"type": "eq", "fun": lambda w: w.sum() - 1},
        options={"ftol": 1e-12},
    )
    assert found.success
    assert exact(weights) <= found.fun + 1e-6
    np.testing.assert_allclose(weights, found.x, atol=2e-3)
    # At least as good as any member alone.
    assert exact(weights) <= min(exact(one) for one in np.eye(5))


def test_the_ridge_draws_towards_equal_weights():
    rng = np.random.default_rng(1)
    clean = rng.uniform(size=(8, 8, 1)).astype(np.float32)
    images = (clean + rng.normal(size=(3, 8, 8, 1)) * [[[[0.1]]], [[[0.2]]], [[[0.3]]]]).astype(
        "f4"
    )
    members = of_images(images, np.zeros(3), isnas.denoising(clean))
    off = np.square(images - clean).mean(axis=(1, 2, 3))
    products = np.einsum("ahwc,bhwc->ab", *((images - clean).astype(float),) * 2) / clean.size

    def penalised(w, ridge):
        return w @ products @ w + ridge * off.mean() * np.square(w - 1 / 3).sum()

    for ridge in (0.01, 0.1, 1.0):
        weights = Stack(ridge)(members, 0)
        for other in rng.dirichlet(np.ones(3), 500):
            assert penalised(weights, ridge) <= penalised(other, ridge) + 1e-9
    np.testing.assert_allclose(Stack(1e6)(members, 0), 1 / 3, atol=1e-4)


def test_a_perfect_member_takes_all():
    vectors = np.array([[0.0, 0.0], [1.0, 2.0], [3.0, -1.0]])
    np.testing.assert_allclose(simplex_least_squares(vectors), [1, 0, 0], atol=1e-12)
    opposite = np.array([[2.0, 0.0], [-1.0, 0.0], [0.0, 5.0]])
    np.testing.assert_allclose(simplex_least_squares(opposite), [1 / 3, 2 / 3, 0], atol=1e-12)
