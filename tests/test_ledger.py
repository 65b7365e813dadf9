"""The ledger: it conserves money, survives the disk to the bit, and exports what the LLM layer reads."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from mahler import ledger as ledgers
from mahler.ledger import Ledger
from mahler.schema import ACCOUNT, REJECTED, TRADE, ConfigError, Deferred
from tests.ledgers import hand_ledger, random_ledger


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return random_ledger(np.random.default_rng(7), n_days=300, n_trades=80)


def with_account(ledger: Ledger, column: str, row: int, value: float) -> Ledger:
    changed = ledger.account[column].copy()
    changed[row] = value
    return replace(ledger, account=ledger.account | {column: changed})


# ---- conservation ----------------------------------------------------------------------------------------------------

def test_a_ledger_whose_account_follows_from_its_trades_passes(ledger):
    ledgers.check(ledger)
    ledgers.check(random_ledger(np.random.default_rng(7), n_days=50, n_trades=0))


def test_a_cent_of_trade_pnl_too_much_is_found(ledger):
    pnl = ledger.trades["pnl"].copy()
    pnl[3] += 0.01
    with pytest.raises(ValueError, match=r"trades' P&L is .* dollars, but the account went from 100000\.00 to"):
        ledgers.check(replace(ledger, trades=ledger.trades | {"pnl": pnl}))


def test_half_a_cent_of_rounding_is_not_a_violation(ledger):
    pnl = ledger.trades["pnl"].copy()
    pnl[3] += 0.004
    ledgers.check(replace(ledger, trades=ledger.trades | {"pnl": pnl}))


def test_the_first_row_whose_cash_and_marks_are_not_the_equity_is_named(ledger):
    cash = ledger.account["cash"].copy()
    cash[[40, 60]] += 2.5
    with pytest.raises(ValueError, match=rf"account row 40 \({ledger.account['date'][40]}\): .* is 2\.5000 dollars"):
        ledgers.check(replace(ledger, account=ledger.account | {"cash": cash}))


def test_a_missing_mark_is_a_violation_not_a_pass(ledger):
    with pytest.raises(ValueError, match="account row 12 .*cash"):
        ledgers.check(with_account(ledger, "marks", 12, np.nan))


def test_heat_is_open_max_loss_over_equity_on_every_row(ledger):
    row = int(np.flatnonzero(ledger.account["heat"] > 0)[5])
    with pytest.raises(ValueError, match=f"account row {row} .*heat x equity"):
        ledgers.check(with_account(ledger, "heat", row, ledger.account["heat"][row] * 1.01))


def test_heat_is_not_looked_at_where_equity_is_gone():
    ledger = hand_ledger([50.0, 0.0], initial=100.0, trades=[{"pnl": -100.0, "exit_reason": "stop_loss"}])
    ledgers.check(with_account(ledger, "heat", 1, np.inf))


def test_sessions_that_do_not_ascend_are_refused(ledger):
    dates = ledger.account["date"].copy()
    dates[5] = dates[4]
    with pytest.raises(ValueError, match="account row 5 .* does not come after row 4"):
        ledgers.check(replace(ledger, account=ledger.account | {"date": dates}))


def test_counted_rejections_are_the_rows_of_their_table(ledger):
    with pytest.raises(ValueError, match="rejections"):
        ledgers.check(replace(ledger, counts=ledger.counts | {"rejected.no_cash": 10_000.0}))


def test_an_account_without_rows_and_a_missing_column_are_refused(ledger):
    empty = {name: column[:0] for name, column in ledger.account.items()}
    with pytest.raises(ValueError, match="no rows"):
        ledgers.check(replace(ledger, account=empty))
    with pytest.raises(ValueError, match="trades lacks the columns pnl"):
        ledgers.check(replace(ledger, trades={k: v for k, v in ledger.trades.items() if k != "pnl"}))


# ---- the disk --------------------------------------------------------------------------------------------------------

def same(a: Ledger, b: Ledger) -> None:
    for dtype, name in ((TRADE, "trades"), (REJECTED, "rejections"), (ACCOUNT, "account")):
        for column in dtype.names:
            left, right = getattr(a, name)[column], getattr(b, name)[column]
            assert left.dtype == right.dtype == dtype[column]
            np.testing.assert_array_equal(left, right)
    assert (a.initial_equity, a.counts) == (b.initial_equity, b.counts)


@pytest.mark.parametrize("n_trades", [0, 80])
def test_what_is_read_is_what_was_written_to_the_bit(tmp_path, n_trades):
    ledger = random_ledger(np.random.default_rng(1), n_days=120, n_trades=n_trades)
    ledger.account["marks"][3] = np.nan          # a missing number comes back missing
    ledgers.write(ledger, tmp_path / "run")
    same(ledger, ledgers.read(tmp_path / "run"))


def test_the_same_ledger_is_written_to_the_same_bytes(ledger, tmp_path):
    ledgers.write(ledger, tmp_path / "a")
    ledgers.write(ledger, tmp_path / "b")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == ["account.parquet", "funnel.parquet", "ledger.json", "rejections.parquet", "trades.json", "trades.parquet"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


@pytest.mark.parametrize("name", ["ledger.json", "trades.parquet", "account.parquet"])
def test_a_folder_that_lacks_a_file_is_refused_by_name(ledger, tmp_path, name):
    ledgers.write(ledger, tmp_path)
    (tmp_path / name).unlink()
    with pytest.raises(ConfigError, match=name):
        ledgers.read(tmp_path)


def test_rejections_may_be_built_when_they_are_first_looked_at(ledger, tmp_path):
    built = []
    lazy = replace(ledger, rejections=Deferred(lambda: built.append(1) or ledger.rejections))
    assert not built
    ledgers.check(lazy)
    ledgers.write(lazy, tmp_path)
    assert built == [1]
    same(ledger, ledgers.read(tmp_path))


# ---- the export ------------------------------------------------------------------------------------------------------

TRADE_BY_HAND = {
    "trade_id": 4, "ticker": "QQQ", "side": "put", "regime": "bear_high_vol", "date": np.datetime64("2020-02-03"),
    "expiration": np.datetime64("2020-03-20"), "exit_date": np.datetime64("2020-02-24"), "short_strike": 200.0,
    "long_strike": 195.0, "width": 5.0, "delta": 0.12, "dte": 46, "credit": 0.4, "max_loss": 4.6, "entry_score": 0.01,
    "underlying_price": 222.5, "iv_percentile": 0.29, "vix": 17.97, "contracts": 3, "multiplier": 0.75,
    "exit_reason": "stop_loss", "exit_cost": 0.95, "hold_days": 21, "pnl_per_contract": -59.0, "pnl": -177.0,
}


def test_a_trade_is_exported_in_the_names_and_units_of_the_llm_layer():
    (row,) = ledgers.export(hand_ledger([100.0], trades=[TRADE_BY_HAND]))
    assert row == {
        "date": "2020-02-03", "ticker": "QQQ", "short_strike": 200.0, "long_strike": 195.0, "expiration": "2020-03-20",
        "credit": 0.4, "max_loss": 4.6, "delta": 0.12, "dte": 46, "iv_percentile": 29.0, "vix": 17.97,
        "underlying_price": 222.5, "outcome": "loss", "pnl": -59.0, "exit_reason": "stop_loss", "hold_days": 21,
        "side": "put", "contracts": 3, "regime": "bear_high_vol", "width": 5.0, "entry_score": 0.01, "trade_id": 4,
    }


def test_a_missing_percentile_is_null_and_break_even_is_a_loss():
    missing = TRADE_BY_HAND | {"iv_percentile": np.nan, "vix": np.nan, "pnl": 0.0, "pnl_per_contract": 0.0}
    won = TRADE_BY_HAND | {"pnl": 0.01, "pnl_per_contract": 0.01}
    first, second = ledgers.export(hand_ledger([100.0], trades=[missing, won]))
    assert (first["iv_percentile"], first["vix"], first["outcome"]) == (None, None, "loss")
    assert (second["iv_percentile"], second["outcome"]) == (29.0, "profit")


@pytest.mark.parametrize("n_trades", [0, 80])
def test_the_export_is_strict_json(tmp_path, n_trades):
    ledger = random_ledger(np.random.default_rng(2), n_days=120, n_trades=n_trades)
    ledger.trades["vix"][:2] = np.nan
    ledgers.write_export(ledger, tmp_path / "new" / "trades.json")

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is not JSON")

    rows = json.loads((tmp_path / "new" / "trades.json").read_text(), parse_constant=refuse)
    assert rows == ledgers.export(ledger) and len(rows) == n_trades
