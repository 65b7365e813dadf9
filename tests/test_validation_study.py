"""A study, judged: what is not a test of one statistic."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
from hydra import compose, initialize_config_dir

from mahler.config import Validate, load
from mahler.home import conf_dir
from mahler.schema import ConfigError
from mahler.validation import pbo, sharpe, study, superiority
from mahler.validation.method import Method
from mahler.validation.processes import alone
from mahler.validation.study import YEAR, Judgement, _single_test, judge
from mahler.validation.walkforward import Walk


def _returns(rng: np.random.Generator, n: int, correlations: list[float]) -> np.ndarray:
    """Daily returns (n, 1 + len(correlations)): a control, and configs that are so correlated with it."""
    control = rng.normal(4e-4, 6e-3, n)
    others = [r * control + np.sqrt(1 - r * r) * rng.normal(4e-4, 6e-3, n) for r in correlations]
    return np.stack([control, *others], axis=1)


def _method(*overrides: str) -> Method:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return load(compose("validate", list(overrides)), Validate).method


def _walked(mine: np.ndarray, first: int, last: int) -> Walk:
    """A walk without trades that made daily returns (n_days,)."""
    none, flat = np.zeros(0, int), np.zeros(last - first)
    return Walk(first, 1000.0, 1000.0 * np.cumprod(1.0 + mine[first:last]), flat + 50.0, flat, none, none, np.zeros(0))


def _judged(returns: np.ndarray) -> Judgement:
    """The study of the configs of given returns (n_days, n_configs), the first of which is the control."""
    days = np.arange(np.datetime64("2015-01-01"), np.datetime64("2019-01-01"))
    days = days[np.is_busday(days)][:len(returns)]
    method = _method("method.train=12", "method.test=6", "method.step=6", "method.replications=100", "method.shifts=[0]",
                     "method.pbo_replications=19", "method.workers=1")
    n = returns.shape[1]

    def market(trial: int):
        return partial(_walked, returns[:, trial])

    return judge(alone(lambda: market), lambda scale, natural: market, [str(k) for k in range(n)], 0, days, 0, method,
                 n_trials=n, shape=(n,), ordered=[False], risk_free=0.0, progress=lambda *_: None)


def test_superiority_and_overfitting_are_asked_of_all_configs_and_not_of_those_that_are_shown(monkeypatch) -> None:
    monkeypatch.setattr(study, "MOST_SHOWN", 4)
    returns = _returns(np.random.default_rng(2), 750, [0.9] * 9)
    found = _judged(returns)
    level = superiority.at_control_volatility(returns, returns[:, 0])
    asked = superiority.superiority(level, returns[:, 0], rng=np.random.default_rng(0), replications=400)
    assert len(found.configs["config"]) == 4 and len(found.weighed.tested) == 10
    assert found.spa_p_value == pytest.approx(asked.p_value, abs=0.15)
    assert found.weighed.overfitting.pbo == pytest.approx(found.overfitting.pbo) == pbo.overfitting(returns).pbo


def test_of_more_configs_than_fit_together_the_best_are_not_asked_whether_any_is_superior(monkeypatch) -> None:
    monkeypatch.setattr(study, "MOST_SHOWN", 4)
    monkeypatch.setattr(study, "MOST_TESTED", 9)
    returns = _returns(np.random.default_rng(2), 750, [0.9] * 9)
    found = _judged(returns)
    assert np.isnan(found.spa_p_value) and found.superior == ()
    assert found.weighed.overfitting.pbo == pbo.overfitting(returns[:, found.weighed.shown]).pbo
    assert found.overfitting.pbo == pytest.approx(pbo.overfitting(returns).pbo)


@pytest.mark.parametrize("who", [0, 1, 2])
def test_an_account_that_is_ruined_has_no_sharpe_ratio_from_there_and_is_not_better(who: int) -> None:
    returns = _returns(np.random.default_rng(4), 750, [0.9, 0.9])
    returns[300, who] = -1.2                                          # in a test window
    with np.errstate(invalid="ignore"):
        found = _judged(returns)
    assert found.verdict.verdict == "no evidence"
    assert np.isnan(found.configs["sharpe"][who]) and np.isnan(found.configs["difference_low"][who])
    ruined = np.isnan(found.weighed.scored.returns - found.weighed.scored.control).any()
    assert np.isnan(found.weighed.evidence.difference.low) == ruined and (ruined or who == 1)


def test_an_account_that_is_ruined_on_its_last_day_has_no_intervals_and_is_not_better() -> None:
    returns = _returns(np.random.default_rng(4), 750, [0.9, 0.9])
    returns[-1, 2] = -1.2
    found = _judged(returns)
    assert np.isnan(found.configs["sharpe_low"][2]) and not np.isnan(found.configs["sharpe_low"][1])
    assert found.verdict.verdict == "no evidence"


def test_the_interval_of_a_config_does_not_depend_on_what_is_beside_it() -> None:
    returns = _returns(np.random.default_rng(6), 750, [0.9, 0.8])
    three, two = _judged(returns).configs, _judged(returns[:, :2]).configs
    for name in ("sharpe_low", "sharpe_high", "cagr_low", "max_drawdown_high"):
        assert three[name][:2].tolist() == two[name].tolist()


def test_a_deflation_of_unknown_variance_is_unknown_and_not_passed() -> None:
    returns = _returns(np.random.default_rng(3), 750, [0.9])
    returns[:, 0] = 0.0                                        # one Sharpe ratio has no variance
    found = _judged(returns)
    assert np.isnan(found.weighed.worth.deflated) and not np.isnan(found.weighed.worth.probabilistic)
    assert found.verdict.verdict == "no evidence"


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
    with pytest.raises(ConfigError, match="two configs or more"):
        judge(None, None, ["only"], 0, np.arange("2010-01", "2012-01", dtype="datetime64[D]"), 0, _method(), n_trials=1,
              shape=(1,), ordered=[False], risk_free=0.0, progress=lambda *_: None)


@pytest.mark.parametrize("shifts", ["[5]", "[]", "[0,0]", "[0,5,5]"])
def test_each_start_is_walked_once_and_the_scored_one_is_among_them(shifts) -> None:
    with pytest.raises(ConfigError, match="each once, and 0 among them"):       # a day that is there twice is evidence twice
        _method(f"method.shifts={shifts}")
    assert _method("method.shifts=[5,0]").shifts == [5, 0]


def test_the_control_is_never_superior_to_itself() -> None:
    for seed in range(20):
        rng = np.random.default_rng(seed)
        control = rng.standard_t(5, 1500) * 4e-3 + 2e-4
        returns = np.stack([control, control.copy(), 0.7 * control], axis=1)     # the last is the control, scaled
        found = superiority.superiority(superiority.at_control_volatility(returns, control), control, rng=rng,
                                        replications=100)
        assert found.p_value == 1.0 and found.superior == ()
