"""Compare the runs of a study: performance, rejections by reason, stress windows."""

from __future__ import annotations

from mahler import findings, ledger as ledgers, tracking
from mahler.config import Compare
from mahler.schema import ConfigError
from mahler.terminal import say, table


def run(config: Compare) -> None:
    """Print the tables. The order is that in which the runs were started: the study's own."""
    rows = sorted(tracking.runs(config.study), key=lambda row: row["started"])
    if not rows:
        raise ConfigError(f"study={config.study}: no finished run; mahler backtest experiment={config.study}")
    markets = " and ".join(sorted({row["tags.market"] for row in rows}))
    table(findings.performance(rows), title=f"{config.study}, {markets} market")
    table(findings.rejections(rows), title="Candidates, and why they were not admitted")
    stress = findings.stress(rows)
    if stress:
        table(stress, title="Stress windows: return / drawdown")
    total = findings.joint_run(rows, lambda row: ledgers.read(row["artifacts"]))
    if total:
        say(f"Together: {total.joint_pnl:+,.0f} dollars in {total.joint_trades} trades. The singles added up: "
            f"{total.singles_pnl:+,.0f} dollars in {total.singles_trades} trades, each on equity of its own.")
        say(f"Of those, {total.missed} were not made together: sharing the limits cost {total.cost:,.0f} dollars of "
            f"winners and saved {total.saved:,.0f} dollars of losers (at the singles' sizes).")
        say("Sessions dropped because another ticker lacks them: "
            + ", ".join(f"{ticker} {n:.0f}" for ticker, n in total.dropped.items()))
