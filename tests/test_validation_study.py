"""A study, judged: what is not a test of one statistic."""

from __future__ import annotations

import numpy as np
import pytest

from mahler.schema import ConfigError
from mahler.validation import sharpe
from mahler.validation.study import YEAR, _single_test, judge


def _returns(rng: np.random.Generator, n: int, correlations: list[float]) -> np.ndarray:
    """Daily returns (n, 1 + len(correlations)): a control, and configs that are so correlated with it."""
    control = rng.normal(4e-4, 6e-3, n)
    others = [r * control + np.sqrt(1 - r * r) * rng.normal(4e-4, 6e-3, n) for r in correlations]
    return np.stack([control, *others], axis=1)


def test_what_a_single_test_sees_is_of_the_config_that_is_least_like_the_control() -> None:
    returns = _returns(np.random.default_rng(0), 3000, [0.99, 0.8])
    days = np.arange(1000, 3000)
    far = sharpe.detectable_by(returns[days, 2], returns[days, 0], periods=YEAR)
    near = sharpe.detectable_by(returns[days, 1], returns[days, 0], periods=YEAR)
    assert _single_test(returns, 0, days) == far > near > 0.0


def test_what_a_single_test_sees_is_not_zero_because_the_control_was_chosen() -> None:
    returns = _returns(np.random.default_rng(1), 2000, [0.9])
    assert _single_test(returns, 0, np.arange(2000)) > 0.1        # the stitched account would be the control itself
    assert np.isnan(_single_test(returns[:, :1], 0, np.arange(2000)))


def test_one_config_is_nothing_to_choose_from() -> None:
    from mahler.config import Validate, load
    from mahler.home import conf_dir
    from hydra import compose, initialize_config_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        method = load(compose("validate", []), Validate).method
    with pytest.raises(ConfigError, match="two configs or more"):
        judge(None, None, ["only"], 0, np.arange("2010-01", "2012-01", dtype="datetime64[D]"), 0, method, n_trials=1,
              shape=(1,), ordered=[False], risk_free=0.0, progress=lambda *_: None)


def test_the_control_is_never_superior_to_itself() -> None:
    from mahler.validation import superiority

    for seed in range(20):
        rng = np.random.default_rng(seed)
        control = rng.standard_t(5, 1500) * 4e-3 + 2e-4
        returns = np.stack([control, control.copy(), 0.7 * control], axis=1)     # the last is the control, scaled
        found = superiority.superiority(superiority.at_control_volatility(returns, control), control, rng=rng,
                                        replications=100)
        assert found.p_value == 1.0 and found.superior == ()
