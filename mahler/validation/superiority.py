"""Is any config better than the control, given that so many were compared? Hansen's SPA and Romano & Wolf's StepM.

Both look at mean daily returns: a loss is minus a return. More exposure at the same Sharpe ratio is then "superior",
so a study that asks for skill, not for leverage, passes returns `at_control_volatility`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mahler.validation.bootstrap import optimal_block_length
from mahler.validation.sharpe import long_run_variance


SAME = 1e-9              # of the control's range: what differs by less is the control


@dataclass(frozen=True)
class Superiority:
    """SPA's p-value (consistent) that no config beats the control, and the configs that StepM says do."""

    p_value: float
    superior: tuple[int, ...]      # columns
    size: float
    block_length: int


def at_control_volatility(returns: np.ndarray, control: np.ndarray) -> np.ndarray:
    """The returns (n, n_configs) scaled, each by a constant, to the standard deviation of the control's (n,).

    A mean difference is then a difference of Sharpe ratios times that deviation. A config that never moves stays so.
    """
    moves = returns.min(axis=0) < returns.max(axis=0)
    deviation = np.where(moves, returns.std(axis=0, ddof=1), 1.0)
    return returns * np.where(moves, control.std(ddof=1) / deviation, 1.0)


def superiority(returns: np.ndarray, control: np.ndarray, *, rng: np.random.Generator, replications: int,
                size: float = 0.05, block_length: int | None = None) -> Superiority:
    """Test all configs against the control, together.

    Parameters
    ----------
    returns, control : ndarray (n, n_configs), (n,)
        Daily returns of the same sessions.
    replications : int
        Samples of the stationary bootstrap.
    size : float
        Family-wise error rate of StepM.
    block_length : int, optional
        Mean block, sessions; by default the longest of the optimal ones of the daily differences.

    Each config's difference is divided by its long-run standard deviation before it reaches arch, whose statistic is
    not studentised: without that, the most volatile difference would set the critical value for all. A config whose
    returns are the control's is not superior, and is not asked about; where that leaves none, the p-value is 1.

    References
    ----------
    Hansen (2005), A Test for Superior Predictive Ability; Romano & Wolf (2005), Stepwise Multiple Testing as
    Formalized Data Snooping; arch.
    """
    from arch.bootstrap import StepM

    gains = returns - control[:, None]
    # Equal but for the last bit of a scaling is equal: studentised, that bit would be a difference like any other.
    asked = np.flatnonzero(np.ptp(gains, axis=0) > SAME * np.ptp(control))
    if len(asked) == 0:
        return Superiority(1.0, (), size, 1)
    gains = gains[:, asked]
    if block_length is None:
        block_length = int(np.ceil(max(optimal_block_length(column) for column in gains.T)))
    losses = -gains / np.sqrt([long_run_variance(column) for column in gains.T])
    test = StepM(np.zeros(len(losses)), losses, size=size, block_size=block_length, reps=replications,
                 bootstrap="stationary", seed=rng)
    test.compute()
    test.spa.compute()           # of all configs again: StepM leaves the p-values of its last step
    return Superiority(float(test.spa.pvalues["consistent"]), tuple(int(asked[i]) for i in test.superior_models),
                       size, block_length)
