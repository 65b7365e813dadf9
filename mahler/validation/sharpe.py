"""How much a Sharpe ratio is worth: its probability, what is left of it after many trials, and paired differences.

Conventions: a Sharpe ratio is per period (one observation), not annualised; n is the number of observations; skew is
the third and kurtosis the *raw* fourth standardised moment of the population (3 is normal). The probabilistic Sharpe
ratio is that of 2012, whose variance is taken at the observed Sharpe ratio, not at the benchmark.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy.special import ndtr, ndtri

from mahler import metrics

EXACT_BELOW = 50
"""Trials below which the expected maximum is the integral: the approximation is 2 % too high at ten of them."""

SIZE, POWER = 0.05, 0.80
"""One-sided size of a comparison, and the probability with which a difference worth naming would be seen."""


@dataclass(frozen=True)
class Sample:
    """A Sharpe ratio per period (ddof 1, as `metrics.sharpe`) and what its uncertainty depends on."""

    sharpe: float
    n: int
    skew: float
    kurtosis: float         # raw: 3 is normal


def sample(returns: np.ndarray, risk_free: float = 0.0) -> Sample:
    """The Sharpe ratio per period of daily returns (n,), with their moments.

    `risk_free` is an annual decimal. Raises ValueError below two observations and for returns that never differ:
    a flat account has no Sharpe ratio.
    """
    if len(returns) < 2 or returns.min() == returns.max():
        raise ValueError(f"a Sharpe ratio needs returns that differ, got {len(returns)} observations that do not")
    excess = returns - metrics.daily_rate(risk_free)
    return Sample(float(excess.mean() / excess.std(ddof=1)), len(returns),
                  metrics.standardised_moment(returns, 3), metrics.standardised_moment(returns, 4))


# ---- one Sharpe ratio ------------------------------------------------------------------------------------------------

def sharpe_variance(sharpe: float, skew: float, kurtosis: float) -> float:
    """V = 1 - g3 SR + (g4 - 1) / 4 SR^2: n times the asymptotic variance of an estimated Sharpe ratio.

    Raises ValueError where the moments cannot be those of any distribution (kurtosis below 1 + skew^2 makes V < 0).

    References
    ----------
    Mertens (2002), Comments on variance of the IID estimator in Lo (2002).
    """
    variance = 1.0 - skew * sharpe + (kurtosis - 1.0) / 4.0 * sharpe ** 2
    if not variance > 0.0:
        raise ValueError(f"no distribution has skew {skew} and raw kurtosis {kurtosis}: the variance is {variance}")
    return variance


def probabilistic_sharpe(sharpe: float, benchmark: float, n: int, skew: float, kurtosis: float) -> float:
    """Probability that the true Sharpe ratio exceeds `benchmark`: Phi[(SR - SR*) sqrt(n - 1) / sqrt(V)].

    References
    ----------
    Bailey & Lopez de Prado (2012), The Sharpe Ratio Efficient Frontier.
    """
    error = np.sqrt(sharpe_variance(sharpe, skew, kurtosis) / (n - 1))
    return float(ndtr((sharpe - benchmark) / error))


def min_track_record(sharpe: float, benchmark: float, skew: float, kurtosis: float, *,
                     confidence: float = 0.95) -> float:
    """Observations after which `sharpe` is above `benchmark` with `confidence`: 1 + V (z / (SR - SR*))^2.

    inf where the Sharpe ratio is not above the benchmark.

    References
    ----------
    Bailey & Lopez de Prado (2012), The Sharpe Ratio Efficient Frontier.
    """
    if sharpe <= benchmark:
        return np.inf
    return float(1.0 + sharpe_variance(sharpe, skew, kurtosis) * (ndtri(confidence) / (sharpe - benchmark)) ** 2)


def autocorrelations(returns: np.ndarray, lags: int) -> np.ndarray:
    """Sample autocorrelations of lags 1 to `lags`: (lags,)."""
    d = returns - returns.mean()
    return np.array([d[k:] @ d[:-k] for k in range(1, lags + 1)]) / (d @ d)


def annualisation(periods: int, correlations: np.ndarray) -> float:
    """What a Sharpe ratio per period is multiplied by to be that of a year, when returns are autocorrelated.

    q / sqrt(q + 2 sum_{k < q} (q - k) rho_k), which is sqrt(q) where they are not.

    Parameters
    ----------
    periods : int
        Periods of a year, q.
    correlations : ndarray (m,)
        Autocorrelations of lags 1, 2, ...; those beyond m are zero.

    References
    ----------
    Lo (2002), The Statistics of Sharpe Ratios.
    """
    rho = np.asarray(correlations, float)[:periods - 1]
    lags = np.arange(1, len(rho) + 1)
    return float(periods / np.sqrt(periods + 2.0 * ((periods - lags) @ rho)))


# ---- the best of many ------------------------------------------------------------------------------------------------

def expected_max_sharpe(n_trials: int) -> float:
    """Expected maximum of `n_trials` independent standard normals, in standard deviations across trials.

    The exact integral below EXACT_BELOW trials, the usual approximation from there on. 0 of one trial.
    """
    return expected_max_exact(n_trials) if n_trials < EXACT_BELOW else expected_max_approximation(n_trials)


@lru_cache
def expected_max_exact(n_trials: int) -> float:
    """Integral of x N phi(x) Phi(x)^(N - 1) over the real line; 0 of one trial."""
    from scipy.integrate import quad

    _check_trials(n_trials)

    def integrand(x: float) -> float:
        return x * n_trials * np.exp(-0.5 * x * x) / np.sqrt(2.0 * np.pi) * ndtr(x) ** (n_trials - 1)

    return float(quad(integrand, -12.0, 12.0, epsabs=1e-13, epsrel=1e-13, limit=200)[0])


def expected_max_approximation(n_trials: int) -> float:
    """(1 - gamma) Phi^-1(1 - 1/N) + gamma Phi^-1(1 - 1/(N e)), gamma being Euler's constant; 0 of one trial.

    References
    ----------
    Bailey & Lopez de Prado (2014), The Deflated Sharpe Ratio.
    """
    _check_trials(n_trials)
    if n_trials == 1:
        return 0.0
    gamma = np.euler_gamma
    return float((1.0 - gamma) * ndtri(1.0 - 1.0 / n_trials) + gamma * ndtri(1.0 - 1.0 / (n_trials * np.e)))


def _check_trials(n_trials: int) -> None:
    if n_trials < 1:
        raise ValueError(f"n_trials is a count of 1 or more, got {n_trials}")


def trial_variance(annual_sharpes: np.ndarray, *, periods: float) -> float:
    """Variance (ddof 1) across trials of their Sharpe ratios per session, from the annualised ones (n_trials,).

    A trial without a Sharpe ratio (NaN: it never traded) is left out; NaN where fewer than two are left.
    """
    known = annual_sharpes[~np.isnan(annual_sharpes)]
    return float(known.var(ddof=1) / periods) if len(known) > 1 else np.nan


def deflated_benchmark(n_trials: int, trial_variance: float) -> float:
    """SR0, the Sharpe ratio per period that the best of `n_trials` worthless trials is expected to show.

    `trial_variance` is the variance across trials of their Sharpe ratios per period.
    """
    return float(np.sqrt(trial_variance)) * expected_max_sharpe(n_trials)


def deflated_sharpe(sharpe: float, n_trials: int, trial_variance: float, n: int, skew: float,
                    kurtosis: float) -> float:
    """Probability that the true Sharpe ratio is positive, given that it is the best of many.

    Parameters
    ----------
    sharpe : float
        Sharpe ratio per period of the configuration that was chosen.
    n_trials : int
        Configurations tried on this data, those abandoned and those of earlier studies included.
    trial_variance : float
        Variance across trials of their Sharpe ratios per period.
    n, skew, kurtosis
        Observations and moments of the chosen one's returns.

    References
    ----------
    Bailey & Lopez de Prado (2014), The Deflated Sharpe Ratio.
    """
    return probabilistic_sharpe(sharpe, deflated_benchmark(n_trials, trial_variance), n, skew, kurtosis)


def difference_past_deflation(control: float, n_trials: int, trial_variance: float, n_configs: int, n: int, skew: float,
                              kurtosis: float, *, confidence: float = 1.0 - SIZE, power: float = POWER) -> float:
    """Smallest true difference per period with which one config's DSR reaches `confidence` as often as `power`.

    The config earns the control's Sharpe ratio and the difference X. Being better also sets it apart from the other
    n_configs - 1, which raises the variance across trials from `trial_variance` by X^2 / n_configs, and with it SR0:

        control + X >= E[max_N] sqrt(trial_variance + X^2 / n_configs) + (z_confidence + z_power) sqrt(V / (n - 1)).

    0 where the control itself is far enough above; inf where no X is enough: E[max_N] then grows faster than X.

    Parameters
    ----------
    control : float
        The control's Sharpe ratio per period.
    n_trials, trial_variance
        As for `deflated_sharpe`.
    n_configs : int
        Configurations of this study, over which the variance is taken.
    n, skew, kurtosis
        Observations of the account that is judged, and moments of the returns.
    """
    z, best = float(ndtri(confidence) + ndtri(power)), expected_max_sharpe(n_trials)
    missing = z * np.sqrt(sharpe_variance(z / np.sqrt(n), skew, kurtosis) / (n - 1)) - control
    if -missing >= best * np.sqrt(trial_variance):
        return 0.0
    # The condition squared is a parabola in X; of its roots those count that are right before squaring, too.
    roots = np.roots([1.0 - best ** 2 / n_configs, -2.0 * missing, missing ** 2 - best ** 2 * trial_variance])
    return min((float(x.real) for x in roots if x.imag == 0.0 and x.real >= max(missing, 0.0)), default=np.inf)


def min_backtest_length(annual_sharpe: float, n_trials: int) -> float:
    """Years below which the best of `n_trials` worthless trials is expected to show `annual_sharpe`: (E[max] / SR)^2.

    With the approximation of E[max] at any N, as it was published; for more than two trials that errs on the side
    of a longer backtest.

    References
    ----------
    Bailey, Borwein, Lopez de Prado & Zhu (2014), Pseudo-Mathematics and Financial Charlatanism.
    """
    return (expected_max_approximation(n_trials) / annual_sharpe) ** 2


# ---- paired differences ----------------------------------------------------------------------------------------------

def difference_variance(sharpe: float, control: float, correlation: float, n: int) -> float:
    """Variance of the difference of two Sharpe ratios per period, for iid normal returns.

    (2 - 2 rho + (SR1^2 + SR2^2 - 2 SR1 SR2 rho^2) / 2) / n.

    References
    ----------
    Jobson & Korkie (1981), Performance Hypothesis Testing; Memmel (2003), the correction.
    """
    spread = sharpe ** 2 + control ** 2 - 2.0 * sharpe * control * correlation ** 2
    return (2.0 - 2.0 * correlation + spread / 2.0) / n


def detectable_difference(sharpe: float, control: float, correlation: float, n: int, *, periods: float,
                          size: float = SIZE, power: float = POWER) -> float:
    """Smallest true difference of Sharpe ratios that n observations would show, annualised.

    (z_{1-size} + z_{power}) times the Jobson-Korkie-Memmel standard error, one-sided: "better than control" has one
    side. `sharpe` and `control` are per period, `periods` the periods of a year (1 leaves the result per period).
    """
    error = np.sqrt(max(difference_variance(sharpe, control, correlation, n), 0.0))
    return float((ndtri(1.0 - size) + ndtri(power)) * error * np.sqrt(periods))


def detectable_by(returns: np.ndarray, control: np.ndarray, *, periods: float, size: float = SIZE,
                  power: float = POWER) -> float:
    """`detectable_difference` at the Sharpe ratios, correlation and length of two series of returns, both (n,).

    0 for two equal series, whose difference is known to be none. NaN where one of them never moves.
    """
    if np.array_equal(returns, control):
        return 0.0
    if returns.min() == returns.max() or control.min() == control.max():
        return np.nan
    correlation = float(np.corrcoef(returns, control)[0, 1])
    return detectable_difference(sample(returns).sharpe, sample(control).sharpe, correlation, len(returns),
                                 periods=periods, size=size, power=power)


@dataclass(frozen=True)
class SharpeDifference:
    """A paired difference of Sharpe ratios, its HAC standard error, two-sided p-value and interval."""

    difference: float
    standard_error: float
    p_value: float
    low: float
    high: float
    level: float


def sharpe_difference(returns: np.ndarray, control: np.ndarray, *, periods: float,
                      level: float = 0.95) -> SharpeDifference:
    """The Sharpe ratio of `returns` less that of `control`, robust to fat tails and to autocorrelation.

    The delta method gives each day's influence on the difference; its long-run variance (AR(1) prewhitening, Parzen
    kernel, Andrews' bandwidth) gives the standard error. Taking the variance of the one influence series, not of the
    four moments, is the same estimator at a given bandwidth and stays defined where two configs are nearly equal.

    Parameters
    ----------
    returns, control : ndarray (n,)
        Returns of the same sessions.
    periods : float
        Sessions of a year, which everything that comes back is annualised by; 1 leaves it per session.

    Raises
    ------
    ValueError
        Where lengths differ, or one account never moves and the other does.

    References
    ----------
    Ledoit & Wolf (2008), Robust performance hypothesis testing with the Sharpe ratio, sections 3.1 and 3.2.
    """
    if len(returns) != len(control):
        raise ValueError(f"paired returns are of one length, got {len(returns)} and {len(control)}")
    if np.array_equal(returns, control):
        return SharpeDifference(0.0, 0.0, 1.0, 0.0, 0.0, level)
    influence = _influence(returns) - _influence(control)
    difference = sample(returns).sharpe - sample(control).sharpe
    n = len(returns)
    error = float(np.sqrt(long_run_variance(influence) * n / (n - 4.0) / n))
    if error * np.sqrt(n) < 1e-9:      # one is a multiple of the other: the same Sharpe ratio for certain
        return SharpeDifference(0.0, 0.0, 1.0, 0.0, 0.0, level)
    scale, z = float(np.sqrt(periods)), float(ndtri(0.5 + level / 2.0))
    return SharpeDifference(difference * scale, error * scale, float(2.0 * ndtr(-abs(difference) / error)),
                            (difference - z * error) * scale, (difference + z * error) * scale, level)


def _influence(returns: np.ndarray) -> np.ndarray:
    """Each observation's first-order influence on the Sharpe ratio, of mean zero: (n,).

    The gradient of mu / sqrt(gamma - mu^2) at the sample's mean mu and second moment gamma, times what each
    observation adds to them.
    """
    mean, variance = returns.mean(), returns.var()
    if returns.min() == returns.max():
        raise ValueError("an account that never moves has no Sharpe ratio")
    second = variance + mean ** 2
    return (second * (returns - mean) - 0.5 * mean * (returns ** 2 - second)) / variance ** 1.5


def long_run_variance(x: np.ndarray) -> float:
    """Variance of sqrt(n) times the mean of an autocorrelated series (n,): AR(1) prewhitened, Parzen kernel.

    References
    ----------
    Andrews (1991) for the bandwidth, 2.6614 (alpha(2) n)^(1/5); Andrews & Monahan (1992) for the prewhitening, whose
    coefficient is kept within 0.97.
    """
    rho = float(np.clip(_ar1(x - x.mean()), -0.97, 0.97))
    d = x - x.mean()
    residual = d[1:] - rho * d[:-1]
    n, phi = len(residual), float(np.clip(_ar1(residual), -0.97, 0.97))
    bandwidth = 2.6614 * (4.0 * phi ** 2 / (1.0 - phi) ** 4 * n) ** 0.2
    total = residual @ residual
    for k in range(1, min(int(np.ceil(bandwidth)), n)):
        total += 2.0 * _parzen(k / bandwidth) * (residual[k:] @ residual[:-k])
    return float(total / n / (1.0 - rho) ** 2)


def _ar1(d: np.ndarray) -> float:
    """Coefficient of a centred series on its own past; 0 of a constant."""
    power = d[:-1] @ d[:-1]
    return float(d[1:] @ d[:-1] / power) if power > 0 else 0.0


def _parzen(x: float) -> float:
    """Parzen's kernel on [0, 1)."""
    return 1.0 - 6.0 * x ** 2 + 6.0 * x ** 3 if x <= 0.5 else 2.0 * (1.0 - x) ** 3
