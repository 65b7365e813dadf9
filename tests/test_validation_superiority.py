"""SPA and StepM: what they find, what they must not, and how often they err on noise."""

from __future__ import annotations

import numpy as np
from pytest import approx

from mahler.validation.superiority import at_control_volatility, superiority


def study(seed: int, n: int = 500, n_configs: int = 5, noise: float = 2e-3) -> tuple[np.ndarray, np.ndarray]:
    """A control and configs that are the control with noise."""
    rng = np.random.default_rng(seed)
    control = rng.normal(3e-4, 5e-3, n)
    return control[:, None] + rng.normal(0, noise, (n, n_configs)), control


def judge(returns: np.ndarray, control: np.ndarray, **options):
    return superiority(returns, control, **{"rng": np.random.default_rng(0), "replications": 200} | options)


def test_a_config_that_is_better_is_named_and_no_other():
    returns, control = study(0)
    returns[:, 3] += 5e-4
    found = judge(returns, control)
    assert found.superior == (3,) and found.p_value < 0.01


def test_a_noisy_config_does_not_hide_a_small_sure_gain():
    returns, control = study(1)
    returns[:, 0] += 0.05 * np.random.default_rng(2).standard_normal(500)
    returns[:, 2] += 5e-4
    assert 2 in judge(returns, control).superior      # unstudentised, the noise would set the critical value


def test_a_config_that_is_worse_is_not_named():
    returns, control = study(0)
    found = judge(returns - 5e-4, control)
    assert found.superior == () and found.p_value > 0.5


def test_configs_that_are_the_control_are_not_asked_about():
    returns, control = study(0)
    returns[:, 1] = control
    returns[:, 4] += 5e-4
    assert judge(returns, control).superior == (4,)
    alone = judge(np.stack([control, control], axis=1), control)
    assert (alone.p_value, alone.superior) == (1.0, ())


def test_the_order_of_configs_does_not_matter():
    returns, control = study(3)
    returns[:, 0] += 3e-4
    one, two = judge(returns, control), judge(returns[:, ::-1], control)
    assert one.p_value == two.p_value and [4 - i for i in reversed(two.superior)] == list(one.superior)


def test_on_noise_the_family_is_rejected_about_as_often_as_the_size_says():
    found = [judge(*study(seed, n=250), replications=99, block_length=2) for seed in range(150)]
    assert sum(bool(x.superior) for x in found) <= 17      # 7.5 expected at 5 %, at 3.5 standard deviations
    assert np.mean([x.p_value < 0.5 for x in found]) == approx(0.5, abs=0.15)


def test_leverage_is_no_longer_superior_at_the_controls_volatility():
    returns, control = study(4, noise=2e-4)
    control = control + 3e-4
    returns = 2.0 * (returns + 3e-4)
    assert len(judge(returns, control).superior) == 5
    level = at_control_volatility(returns, control)
    assert level.std(axis=0) == approx(np.full(5, control.std()))
    assert judge(level, control).superior == ()


def test_a_flat_config_stays_flat_at_any_volatility():
    assert at_control_volatility(np.zeros((9, 1)), np.arange(9.0)).tolist() == np.zeros((9, 1)).tolist()
