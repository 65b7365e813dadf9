"""`mahler ingest` ends with commands that can be pasted: they find the store that was written, and its period."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import numpy as np
import pytest

from mahler.data.calendar import stretches
from tests.test_yahoo import both, write
from tests.conftest import mahler


def commands(output: str) -> list[list[str]]:
    """The arguments of the commands that an ingest suggests: the picture of its days, and what is next."""
    lines = re.findall(r"^(?:A picture of its days|Next): mahler (.*)$", output, re.MULTILINE)
    return [shlex.split(line) for line in lines]


def test_what_is_next_names_the_market_that_was_made_and_its_period(tmp_path: Path) -> None:
    done = mahler(tmp_path, "ingest", "data=synthetic", "data.tickers=[SPY]", "data.start=2007-01-01", "data.seed=3",
                  "data.end=2007-02-28", "quality.zero_bids=[0.6,0.7]", "data.workers=1")
    assert done.returncode == 0, done.stderr
    picture, following = commands(done.stdout)
    assert picture == ["data-report", "data=synthetic", "data.tickers=[SPY]", "data.seed=3",
                       "quality.zero_bids=[0.6,0.7]"]
    assert following == ["backtest", "data=synthetic", "data.seed=3", "quality.zero_bids=[0.6,0.7]",
                         "universe.tickers=[SPY]", "period.start=2007-01-03", "period.end=2007-02-28"]
    assert mahler(tmp_path, *picture).returncode == 0
    (store,) = (tmp_path / "data" / "chains").iterdir()
    ran = mahler(tmp_path, *following, "classifier=rule")
    assert ran.returncode == 0, ran.stderr
    assert [path.name for path in (tmp_path / "data" / "chains").iterdir()] == [store.name], "no other market was made"


def test_what_is_next_is_of_the_days_that_were_ingested_and_says_what_six_days_do_not_tell(tmp_path: Path) -> None:
    for day, quoted in (("2026-08-12", "2026-08-13"), ("2026-08-13", "2026-08-14")):
        rows = both(*np.arange(90.0, 111.0, 2.0), session=day, lastTradeDate=f"{quoted} 15:58:32+00:00")
        write(tmp_path, rows, f"{day}-SPY.csv.gz")
    done = mahler(tmp_path, "ingest", "data=yahoo", f"data.path={tmp_path}")
    assert done.returncode == 0, done.stderr
    assert "only 2 of 251 days" not in done.stdout and "2 of 251" in done.stdout, "usable needs no reason here"
    picture, following = commands(done.stdout)
    assert picture == ["data-report", "data=yahoo"]
    assert following == ["backtest", "data=yahoo", "universe.tickers=[SPY]", "period.start=2026-08-13",
                         "period.end=2026-08-14"]
    ran = mahler(tmp_path, *following, "entry.min_iv_percentile=0.3")
    assert ran.returncode == 0, ran.stderr
    assert "2 sessions are few" in ran.stdout
    assert "missing on every session, for want of history: iv_percentile, realized_vol, momentum, trend" in ran.stdout


@pytest.mark.parametrize(("options", "words"), [
    (["data.max_dte=30"], "ingest again with data.max_dte=60 or more"),
    (["data.end=2007-01-03"], "ingest more: a backtest needs two sessions of SPY without a hole"),
])
def test_a_store_of_which_nothing_can_be_traded_says_what_it_lacks(tmp_path: Path, options, words) -> None:
    done = mahler(tmp_path, "ingest", "data.tickers=[SPY]", "data.end=2007-01-10", "data.workers=1", *options)
    assert done.returncode == 0, done.stderr
    assert f"Next: {words}" in done.stdout


def test_sessions_are_in_one_stretch_while_few_lack_in_a_row() -> None:
    days = np.array(["2024-01-02", "2024-01-03", "2024-01-08", "2024-01-12"], "datetime64[D]")  # 2 and 3 lack
    assert [stretch.tolist() for stretch in stretches(days, 3)] == [days.tolist()]
    assert [len(stretch) for stretch in stretches(days, 2)] == [3, 1]
    assert [len(stretch) for stretch in stretches(days, 1)] == [2, 1, 1]
