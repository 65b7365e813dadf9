"""List the runs of a study, the best first by a metric."""

from __future__ import annotations

import math

from mahler import tracking
from mahler.config import Runs
from mahler.schema import ConfigError
from mahler.terminal import say, table

LESS_IS_BETTER = ("max_drawdown", "max_drawdown_days", "annual_volatility", "expected_shortfall_95", "mean_heat",
                  "peak_heat", "slippage", "commission", "stale_marks")
COLUMNS = (("CAGR", "cagr", ".2%"), ("Sharpe", "sharpe", ".2f"), ("Sortino", "sortino", ".2f"),
           ("max DD", "max_drawdown", ".1%"), ("win", "win_rate", ".1%"), ("PF", "profit_factor", ".2f"),
           ("trades", "trades", ".0f"), ("heat", "mean_heat", ".1%"))


def run(config: Runs) -> None:
    """Print the table. Runs without the metric come last; a metric that is undefined is a dash."""
    rows = tracking.runs(config.study, config.order_by)
    if not rows:
        raise ConfigError(f"study={config.study}: no finished run; "
                          f"mahler backtest study={config.study}, or experiment=... of one in conf")
    if not any(config.order_by in row for row in rows):
        known = sorted(k for k in rows[0] if isinstance(rows[0][k], float))
        raise ConfigError(f"order_by={config.order_by}: no run has that metric; among others there are "
                          f"{', '.join(known[:12])}")
    if config.order_by in LESS_IS_BETTER:
        rows.sort(key=lambda row: row.get(config.order_by, math.inf))
    shown = rows[:config.limit]
    markets = {row["tags.market"] for row in rows}
    table([{"run": row["name"], "id": row["run_id"][:8]}
           | {label: f"{row[key]:{form}}" if key in row else "-" for label, key, form in COLUMNS} for row in shown],
          title=f"{config.study}: {len(rows)} runs by {config.order_by}, {' and '.join(sorted(markets))} market")
    say("Sorted is not proven: the best of many is partly luck. Look closer:  make ui")
