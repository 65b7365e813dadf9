"""The probability of backtest overfitting: reference values, a literal twin, invariances, the null's p-value."""

from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from pytest import approx

from mahler.validation import pbo


def noise(seed: int, n: int, n_configs: int, common: float = 0.0) -> np.ndarray:
    """Configs that are worth nothing, with a share of their variance in common."""
    rng = np.random.default_rng(seed)
    return 0.01 * (np.sqrt(common) * rng.standard_normal((n, 1))
                   + np.sqrt(1 - common) * rng.standard_normal((n, n_configs)))


def literal(returns: np.ndarray, count: int) -> tuple[float, list[float], float]:
    """CSCV as the paper writes it, with midranks and half of the zeros: PBO, logits, P(loss)."""
    parts = np.split(returns, pbo.blocks(len(returns), count)[1:-1])
    logits, losses = [], 0
    for chosen in combinations(range(count), count // 2):
        seen = np.concatenate([parts[i] for i in chosen])
        unseen = np.concatenate([parts[i] for i in range(count) if i not in chosen])
        best = int(np.argmax(seen.mean(axis=0) / seen.std(axis=0)))
        out = unseen.mean(axis=0) / unseen.std(axis=0)
        rank = 1 + np.sum(out < out[best]) + 0.5 * (np.sum(out == out[best]) - 1)
        share = rank / (returns.shape[1] + 1)
        logits.append(float(np.log(share / (1 - share))))
        losses += out[best] < 0
    signs = np.sign(np.round(logits, 12))
    return float(np.mean(signs < 0) + 0.5 * np.mean(signs == 0)), logits, losses / len(logits)


# ---- the reference table ---------------------------------------------------------------------------------------------

def test_the_best_of_demeaned_noise_is_always_below_the_median_out_of_sample():
    returns = noise(0, 4752, 20)
    assert pbo.overfitting(returns - returns.mean(axis=0)).pbo == 1.0


def test_one_column_that_is_worth_three_is_always_found():
    returns = noise(1, 4752, 20)
    returns[:, 7] += 3 / np.sqrt(252) * 0.01
    found = pbo.overfitting(returns)
    assert (found.pbo, found.probability_of_loss) == (0.0, 0.0)


def test_sixteen_blocks_have_12870_combinations():
    assert len(pbo.overfitting(noise(0, 320, 3)).logits) == 12_870


# ---- against the literal twin ----------------------------------------------------------------------------------------

@pytest.mark.parametrize(("n_configs", "count", "n"), [(2, 6, 60), (5, 6, 61), (9, 8, 203)])
def test_block_sums_equal_the_literal_procedure(n_configs, count, n):
    returns = noise(n_configs, n, n_configs, 0.5)
    value, logits, loss = literal(returns, count)
    found = pbo.overfitting(returns, count)
    assert found.pbo == approx(value, abs=1e-12) and found.probability_of_loss == approx(loss)
    assert np.sort(found.logits) == approx(np.sort(logits), abs=1e-9)


def test_pieces_do_not_change_the_answer(monkeypatch):
    returns = noise(3, 320, 11)
    whole = pbo.overfitting(returns)
    monkeypatch.setattr(pbo, "CELLS", 1000)
    pieces = pbo.overfitting(returns)
    assert (pieces.pbo, pieces.degradation) == (whole.pbo, approx(whole.degradation))


# ---- what must hold --------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("n_configs", [10, 11])
def test_noise_is_overfitted_half_of_the_time_at_odd_and_even_numbers_of_configs(n_configs):
    found = [pbo.overfitting(noise(seed, 320, n_configs), 8).pbo for seed in range(200)]
    assert np.mean(found) == approx(0.5, abs=0.04)      # the textbook's strict inequality is 0.05 too low at 11


@given(st.integers(0, 2**31), st.integers(2, 9))
@settings(max_examples=25, deadline=None)
def test_the_scale_and_the_order_of_configs_do_not_matter(seed, n_configs):
    rng = np.random.default_rng(seed)
    returns = noise(seed, 64, n_configs, 0.3)
    found = pbo.overfitting(returns, 6)
    changed = pbo.overfitting((returns * rng.uniform(0.1, 10, n_configs))[:, rng.permutation(n_configs)], 6)
    assert changed.pbo == approx(found.pbo, abs=1e-12)
    assert np.sort(changed.logits) == approx(np.sort(found.logits))


def test_configs_that_did_the_same_are_exactly_on_the_median():
    one = noise(0, 320, 1)
    assert pbo.overfitting(np.repeat(one, 5, axis=1)).pbo == 0.5
    assert pbo.overfitting(np.repeat(np.zeros((320, 1)), 4, axis=1)).pbo == 0.5


def test_a_config_that_never_trades_is_better_than_a_loser_and_worse_than_a_winner():
    returns = 0.01 * np.random.default_rng(0).standard_normal((320, 1)) + [[-0.02, 0.0, 0.02]]
    returns[:, 1] = 0.0
    assert pbo.overfitting(returns).pbo == 0.0
    assert pbo.overfitting(returns[:, :2]).pbo == 0.0
    assert pbo.overfitting(returns[:, :2]).degradation != pbo.overfitting(returns[:, :2]).degradation   # 0 in, 0 out


def test_a_ruined_config_is_the_worst_everywhere():
    returns = noise(0, 320, 3)
    returns[:, 0] -= 0.05
    returns[200:, 1] = np.nan                            # the metrics' return on an equity that is gone
    assert pbo.overfitting(returns[:, :2]).pbo == 0.0
    assert pbo.overfitting(returns).probability_of_loss == pbo.overfitting(returns[:, [0, 2]]).probability_of_loss


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ValueError, match="between two or more configs, got 1"):
        pbo.overfitting(noise(0, 320, 1))
    with pytest.raises(ValueError, match="16 blocks of two sessions need 32, got 31"):
        pbo.overfitting(noise(0, 31, 3))


# ---- how surprising --------------------------------------------------------------------------------------------------

def test_equalised_configs_have_one_sharpe_ratio_and_their_own_correlations():
    returns = noise(0, 500, 4, 0.6) * [1, 2, 3, 4] + [0, 1e-3, 2e-3, 0]
    equal = pbo.equalised(returns)
    ratios = equal.mean(axis=0) / equal.std(axis=0)
    assert ratios == approx(np.mean(returns.mean(axis=0) / returns.std(axis=0)))
    assert np.corrcoef(equal.T) == approx(np.corrcoef(returns.T))


def null_p_values(shift: float, n: int) -> list[float]:
    p_values = []
    for seed in range(n):
        returns = noise(seed, 320, 5, 0.5)
        returns[:, 0] += shift
        p_values.append(pbo.null_test(returns, rng=np.random.default_rng(seed), replications=39, count=8,
                                      block_length=2.0)[0])
    return p_values


def test_the_p_value_of_equal_configs_is_about_uniform():
    p_values = np.array(null_p_values(0.0, 150))
    assert 2 <= np.sum(p_values < 0.10) <= 28            # 15 expected, at 4 standard deviations
    assert np.mean(p_values) == approx(0.5, abs=0.1)


def test_the_p_value_of_a_config_that_is_better_is_small():
    assert np.median(null_p_values(0.004, 20)) < 0.10


def test_the_null_of_five_configs_is_as_wide_as_the_design_says():
    _, draws = pbo.null_test(noise(0, 960, 5), rng=np.random.default_rng(0), replications=200)
    low, high = np.quantile(draws, [0.05, 0.95])
    assert low < 0.2 and high > 0.75                    # the PBO of a handful of configs says little by itself


def test_the_same_seed_gives_the_same_p_value():
    returns = noise(2, 320, 4)
    one, two = (pbo.null_test(returns, rng=np.random.default_rng(3), replications=20, count=8) for _ in range(2))
    assert one[0] == two[0] and one[1].tolist() == two[1].tolist()
