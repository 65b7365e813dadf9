"""What may be looked at every day: run lengths, coverage at every peek, bands for whole paths."""

from __future__ import annotations

import numpy as np
import pytest

from mahler.validation import sequential
from mahler.validation.sequential import (confidence_sequence, cusum, extremes, log_capital, multipliers, run_length,
                                          running_means, shared_rate, spread, stretches)


# ---- CUSUM -----------------------------------------------------------------------------------------------------------

def test_a_cusum_adds_what_exceeds_k_and_forgets_below_zero():
    assert cusum(np.array([1.0, -2.0, 1.5, 1.0, 0.0]), 0.5) == pytest.approx([0.5, 0.0, 1.0, 1.5, 1.0])


@pytest.mark.parametrize("h, one_sided, two_sided, shifted", [(4.0, 335.4, 168, 8.38), (5.0, 930.9, 465, 10.4)])
def test_the_run_lengths_of_a_cusum_are_those_of_the_tables(h, one_sided, two_sided, shifted):
    assert run_length(0.5, h) == pytest.approx(one_sided, abs=0.1)
    assert run_length(0.5, h, two_sided=True) == pytest.approx(two_sided, abs=0.6)
    assert run_length(0.5, h, shift=1.0) == pytest.approx(shifted, abs=0.03)


def test_a_simulated_cusum_passes_h_as_late_as_is_computed():
    path = cusum(np.random.default_rng(0).standard_normal((4000, 1500)), 0.5)
    passed = path > 3.0
    assert passed.any(axis=1).all()
    assert (passed.argmax(axis=1) + 1).mean() == pytest.approx(run_length(0.5, 3.0), rel=0.05)


# ---- confidence sequences --------------------------------------------------------------------------------------------

@pytest.mark.parametrize("draw", [lambda rng: rng.random((2000, 500)) < 0.7, lambda rng: rng.beta(7, 3, (2000, 500))])
def test_a_confidence_sequence_holds_at_every_peek(draw):
    x = draw(np.random.default_rng(1)).astype(float)
    ever_missed = (log_capital(x, 0.7, 0.05) >= np.log(20)).any(axis=1).mean()
    assert ever_missed <= 0.05


def test_peeking_at_an_ordinary_interval_misses_far_more_often():
    x = (np.random.default_rng(1).random((2000, 500)) < 0.7).astype(float)
    means = running_means(x)[:, 19:]
    wide = 1.96 * np.sqrt(means * (1 - means) / np.arange(20, 501))
    assert (np.abs(means - 0.7) > wide).any(axis=1).mean() > 0.2


def test_a_confidence_sequence_closes_in_on_the_mean():
    x = np.random.default_rng(2).beta(7, 3, 2000)
    wide = [np.diff(confidence_sequence(x[:n], 0.05)).item() for n in (20, 200, 2000)]
    low, high = confidence_sequence(x, 0.05)
    assert low < 0.7 < high and wide[0] > 2 * wide[1] > 4 * wide[2] and wide[2] < 0.04


def test_a_confidence_sequence_of_nothing_says_nothing_and_refuses_what_is_no_share():
    assert confidence_sequence(np.zeros(0), 0.05) == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"\[0, 1\]"):
        confidence_sequence(np.array([0.5, 1.2]), 0.05)


def test_the_interval_is_where_the_capital_is_small():
    x = np.random.default_rng(3).random(60)
    low, high = confidence_sequence(x, 0.1)
    owned = [log_capital(x, mean, 0.1)[-1] for mean in (low - 0.002, low + 0.002, high - 0.002, high + 0.002)]
    assert [capital < np.log(10) for capital in owned] == [False, True, True, False]


# ---- bands -----------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def walks() -> np.ndarray:
    return np.cumsum(np.random.default_rng(4).standard_normal((20_000, 42)), axis=1)


def test_a_pointwise_cone_is_left_by_three_true_paths_in_ten(walks):
    worst = extremes(walks, spread(walks), 1)                  # in units of what holds 95 % at each step
    assert (worst > 1.0).any(axis=1).mean() == pytest.approx(0.305, abs=0.01)


def test_a_simultaneous_cone_has_2_8_deviations_where_a_pointwise_one_has_1_96(walks):
    worst = extremes(walks, spread(walks), 1)
    assert 1.96 * multipliers(worst, 0.025) == pytest.approx(2.8, abs=0.05)


def test_a_simultaneous_cone_is_left_by_one_new_path_in_twenty(walks):
    around, worst = spread(walks), extremes(walks, spread(walks), 1)
    new = np.cumsum(np.random.default_rng(5).standard_normal((20_000, 42)), axis=1)
    assert (extremes(new, around, 1) > multipliers(worst, 0.025)).any(axis=1).mean() == pytest.approx(0.05, abs=0.006)


def test_a_path_that_has_ended_goes_no_further():
    paths = np.array([[0.0, 9.0], [1.0, np.nan], [-1.0, 0.0]])
    assert extremes(paths, sequential.Spread(np.zeros(2), np.ones(2), np.ones(2)), 1).tolist() == [
        [0.0, 9.0], [0.0, 1.0], [1.0, 0.0]]


def test_checks_that_are_one_check_share_nothing_and_others_share_the_rate():
    worst = np.abs(np.random.default_rng(6).standard_normal((8000, 10)))
    assert shared_rate(np.repeat(worst[:, :1], 10, axis=1), 0.1) == pytest.approx(0.1, abs=0.001)
    rate = shared_rate(worst, 0.1)
    assert rate == pytest.approx(1 - 0.9 ** 0.1, rel=0.1)
    assert (worst > multipliers(worst, rate)).any(axis=1).mean() == pytest.approx(0.1, abs=0.01)


def test_stretches_are_blocks_that_go_round():
    drawn = stretches(50, 30, 5.0, 4000, np.random.default_rng(7))
    jumps = (np.diff(drawn, axis=1) % 50) != 1
    assert drawn.shape == (4000, 30) and drawn.min() == 0 and drawn.max() == 49
    assert jumps.mean() == pytest.approx(0.2 * 49 / 50, abs=0.005)       # one in fifty goes on by chance
    assert np.bincount(drawn.ravel()) / drawn.size == pytest.approx(0.02, abs=0.001)
