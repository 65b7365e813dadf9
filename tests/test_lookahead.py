"""No look-ahead, from chains to admissions: what is known at the close of t is the same whatever comes after t.

The history up to t is run twice: as all there is (truncated), and with nonsense behind it (poisoned: every quote,
delta, IV, count and underlying after t is random, a part of the rows is gone, and so are the daily closes, VIX and
bill rates). Every feature of the panel, every label, every candidate, every outcome by then, every admission and
every row of the account up to t must be those of the whole history, to the bit.

The market is the synthetic one of two tickers and 711 sessions, a crash among them. The rule labels on every one of
the 50 cuts; the mixture, a second or two a time, on a handful. On every other cut there is no daily series and the
chains stand in for it. Dividends are left out: an ex-date is announced before it comes.
"""

from __future__ import annotations

import dataclasses
from functools import cache

import numpy as np
import pytest

from mahler import backtesting, panel as panels, stages
from mahler.classifiers.rule import rule
from mahler.config import Backtest
from mahler.data import daily, store
from mahler.data.chain import QUOTES, Chain
from mahler.data.daily import Daily
from mahler.data.store import Chains
from mahler.exits import first_exits
from mahler.schema import Exit, Regime, Table
from tests.conftest import END, PERIOD, START, default_config

# Everything that may look at the future takes part: percentiles, labels, VIX, losses of the account.
OVERRIDES = ("universe=spy_qqq", "regime=prod", "breaker=production", "entry.min_iv_percentile=0.1", "limits=loose")
N_CUTS = 50
CAUSAL = ("day", "ticker", "side", "expiry", "dte", "short_strike", "long_strike", "width", "delta", "credit",
          "mid_credit", "max_loss", "score", "underlying", "iv_percentile", "regime", "multiplier", "risk_fraction",
          "max_contracts")


@dataclasses.dataclass(frozen=True, eq=False)
class Market:
    """Chains, and the daily series that belong to them or None."""

    chains: Chains
    series: Daily | None


@pytest.fixture(scope="module")
def whole(synthetic_home) -> Market:
    """The sessions from START to END, and no more of it: 50 histories are to be quick. With the daily series."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MAHLER_HOME", str(synthetic_home))
        chains, series = backtesting.market(config("rule"))
        root = backtesting.store_root(config("rule").data)
        chains = store.scan(root, chains.tickers, START, END, max_dte=chains.max_dte)
        assert len(chains.sessions) == 711 and all(len(chains[t].day) > 100_000 for t in chains.tickers)
    return Market(chains, series)


@pytest.fixture(scope="module")
def histories(whole) -> list[tuple[int, Market]]:
    """The 50 cuts, on every other one of which the chains stand in for the daily series."""
    bare = Market(whole.chains, None)
    return [(n, (whole, bare)[k % 2]) for k, n in enumerate(cuts(len(whole.chains.sessions)))]


@cache
def config(classifier: str) -> Backtest:
    return default_config(*PERIOD, *OVERRIDES, f"classifier={classifier}")


@cache
def cuts(n_days: int) -> list[int]:
    """Numbers of sessions of 50 histories: from the first candidates to the day before the last."""
    return sorted(np.random.default_rng(50).choice(np.arange(60, n_days), N_CUTS, replace=False).tolist())


# ---- histories -------------------------------------------------------------------------------------------------------


def of_rows(chain: Chain, keep: np.ndarray, sessions: np.ndarray, spot: np.ndarray) -> Chain:
    """`chain` with the rows `keep` alone; a contract of which none is left is not listed."""
    kept = np.append(0, np.cumsum(keep))[chain.contract_start]               # rows before each contract
    listed = np.diff(kept) > 0
    return dataclasses.replace(
        chain, sessions=sessions, day=chain.day[keep], spot=spot,
        **{name: getattr(chain, name)[keep] for name in QUOTES},
        activity={name: column[keep] for name, column in chain.activity.items()},
        contract_start=np.append(kept[:-1][listed], kept[-1]), contract_expiry=chain.contract_expiry[listed],
        contract_strike=chain.contract_strike[listed])


def with_chains(market: Market, loaded: dict[str, Chain], series: Daily | None, name: str) -> Market:
    sessions = next(iter(loaded.values())).sessions
    return Market(dataclasses.replace(market.chains, sessions=sessions, fingerprint=name, _loaded=loaded), series)


def truncated(market: Market, n_days: int) -> Market:
    """What there was at the close of session `n_days` - 1."""
    sessions, series = market.chains.sessions[:n_days], market.series
    loaded = {t: of_rows(c, c.day < n_days, sessions, c.spot[:n_days])
              for t in market.chains.tickers for c in [market.chains[t]]}
    if series is not None:
        known = series.dates <= sessions[-1]
        series = daily.from_table({"date": series.dates[known]} | {k: v[known] for k, v in series.columns.items()})
    return with_chains(market, loaded, series, f"the first {n_days} sessions")


def poisoned(market: Market, n_days: int, rng: np.random.Generator) -> Market:
    """The same up to session `n_days` - 1, and nonsense after it."""
    loaded, spots = {}, {}
    for ticker in market.chains.tickers:
        chain = market.chains[ticker]
        spots[ticker] = chain.spot.copy()
        spots[ticker][n_days:] *= rng.uniform(0.5, 1.5, len(chain.spot) - n_days)
        wrong = dataclasses.replace(chain, **_nonsense(chain, chain.day >= n_days, rng))
        keep = (chain.day < n_days) | (rng.random(len(chain.day)) < 0.8)
        loaded[ticker] = of_rows(wrong, keep, chain.sessions, spots[ticker])
    series = market.series and _nonsense_daily(market, n_days, spots, rng)
    return with_chains(market, loaded, series, f"nonsense {rng.integers(2**62)}")


def _nonsense(chain: Chain, after: np.ndarray, rng: np.random.Generator) -> Table:
    """Every quoted column of a chain, random in the rows `after`."""
    n, columns = int(after.sum()), {}
    for name in QUOTES:
        columns[name] = getattr(chain, name).copy()
        columns[name][after] = rng.random(n)                                 # deltas and IVs; quotes are below
    columns["activity"] = {name: column.copy() for name, column in chain.activity.items()}
    for column in columns["activity"].values():
        column[after] = rng.integers(0, 1000, n)
    for leg in ("call", "put"):
        bid = rng.uniform(0.0, 10.0, n).round(2)
        columns[f"{leg}_bid"][after], columns[f"{leg}_ask"][after] = bid, bid + rng.uniform(0.0, 1.0, n).round(2)
    return columns


def _nonsense_daily(market: Market, n_days: int, spots: Table, rng: np.random.Generator) -> Daily:
    """The daily series, random from session `n_days` on; closes stay those of the (random) market that is quoted."""
    sessions, series = market.chains.sessions, market.series
    columns = {name: column.copy() for name, column in series.columns.items()}
    after = series.dates >= sessions[n_days]
    for name in columns:
        columns[name][after] = rng.uniform(1.0, 90.0, int(after.sum()))
    at = np.searchsorted(series.dates, sessions[n_days:])
    for ticker, spot in spots.items():
        columns[f"{ticker}_close"][at] = spot[n_days:] * rng.uniform(0.996, 1.004, len(at))
    return daily.from_table({"date": series.dates} | columns)


# ---- what is known ---------------------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Everything that a backtest makes of a market."""

    market: Market
    prepared: stages.Prepared
    candidates: Table            # sized
    exits: Table
    admitted: np.ndarray         # contracts (n_candidates,)
    reasons: np.ndarray          # of rejection (n_candidates,), "" where admitted
    account: Table


def outcome(market: Market, classifier: str = "rule") -> Outcome:
    """The product's own stages, from chains to ledger, with nothing kept on disk."""
    c = config(classifier)
    first = market.chains.sessions[0]
    prepared = stages.prepare(market.chains, market.series, c.entry, c.fill, c.classifier, first, None)
    candidates = stages.sized(prepared, c.regime, c.sizing)
    exits = first_exits(candidates, prepared.found.paths, c.exit, c.costs, market.chains.sessions)
    ledger = backtesting.backtest(c, prepared)
    admitted = np.zeros(len(candidates["day"]), np.int64)
    admitted[ledger.trades["candidate"]] = ledger.trades["contracts"]
    reasons = np.full(len(admitted), "", dtype=object)
    reasons[admitted == 0] = ledger.rejections["reason"]
    return Outcome(market, prepared, candidates, exits, admitted, reasons.astype("U24"), ledger.account)


def known(made: Outcome, n_days: int) -> Table:
    """All that was known at the close of session `n_days` - 1, by name."""
    c, chains = made.candidates, made.market.chains
    upto = c["day"] < n_days
    table = {f"panel {name}": getattr(made.prepared.panel, name)[:n_days] for name in panels.FEATURES}
    table |= {"label of the rule": rule(made.prepared.panel)[:n_days], "label": made.prepared.labels[:n_days]}
    table |= {f"funnel {stage}": count[:n_days] for stage, count in made.prepared.found.funnel.items()}
    table |= {f"candidate {name}": c[name][upto] for name in CAUSAL}
    table |= {f"quote {leg} {name}": value for leg in ("short_row", "long_row")
              for name, value in _rows(chains, c["ticker"][upto], c[leg][upto]).items()}
    _, first, number = np.unique(c["spread_id"][upto], return_index=True, return_inverse=True)
    table["candidate of the same legs"] = first[number]
    table |= {"contracts": made.admitted[upto], "reason": made.reasons[upto]}
    table |= {f"account {name}": made.account[name][:n_days] for name in made.account}
    over = upto & (made.exits["day"] < n_days) & (made.exits["reason"] != Exit.END_OF_PERIOD)
    table["which are over"] = np.flatnonzero(over)
    return table | {f"exit {name}": column[over] for name, column in made.exits.items()}


def _rows(chains: Chains, ticker: np.ndarray, row: np.ndarray) -> Table:
    """Day, expiry and strike of rows of the chains: their numbers are others in another history."""
    n = len(row)
    found = {"day": np.empty(n, np.int32), "expiry": np.empty(n, "datetime64[D]"), "strike": np.empty(n)}
    for t, name in enumerate(chains.tickers):
        chain, mine = chains[name], ticker == t
        contract = np.searchsorted(chain.contract_start, row[mine], side="right") - 1
        found["day"][mine] = chain.day[row[mine]]
        found["expiry"][mine], found["strike"][mine] = chain.contract_expiry[contract], chain.contract_strike[contract]
    return found


def assert_same(history: Outcome, all_of_it: Outcome, n_days: int) -> Table:
    """Raise AssertionError, with the name of what differs, unless both knew the same at the close of `n_days` - 1."""
    there, expected = known(history, n_days), known(all_of_it, n_days)
    assert there.keys() == expected.keys()
    for name in expected:
        a, b = there[name], expected[name]
        same = a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
        assert same, f"{name} is another when the history ends with {all_of_it.market.chains.sessions[n_days - 1]}"
    return expected


@cache
def of_whole(market: Market, classifier: str) -> Outcome:
    return outcome(market, classifier)


# ---- tests -----------------------------------------------------------------------------------------------------------


def test_the_whole_run_meets_every_stage_that_could_look_ahead(whole, histories) -> None:
    for market in {m for _, m in histories}:
        made = of_whole(market, "rule")
        assert len(made.candidates["day"]) > 5_000 and (made.admitted > 0).sum() > 150
        assert {"max_positions", "breaker_vix", "already_open"} <= set(made.reasons)
        assert np.unique(made.prepared.labels).tolist() == [int(r) for r in Regime]
        funnel = made.prepared.found.funnel
        assert 0 < funnel["past_iv_filter"].sum() < funnel["paid_enough"].sum()
        assert made.prepared.panel.sources["close"] == ("chain" if market.series is None else "daily")
    cut = cuts(len(whole.chains.sessions))
    assert len(cut) == N_CUTS and cut[0] < 150 and cut[-1] > 650


def test_a_truncated_history_is_what_the_store_reads_up_to_that_day(whole, at_home) -> None:
    n_days = cuts(len(whole.chains.sessions))[25]
    sessions = whole.chains.sessions[:n_days]
    cut = truncated(whole, n_days)
    root = backtesting.store_root(config("rule").data)
    read = store.scan(root, whole.chains.tickers, START, sessions[-1].item(), max_dte=whole.chains.max_dte)
    for ticker in read.tickers:
        mine, theirs = ({f.name: getattr(chain, f.name) for f in dataclasses.fields(Chain)}
                        for chain in (cut.chains[ticker], read[ticker]))
        for column, activity in mine.pop("activity").items():
            np.testing.assert_array_equal(activity, theirs["activity"][column])
        for name, column in mine.items():
            np.testing.assert_array_equal(column, theirs[name])


def test_on_50_histories_truncated_at_random_everything_up_to_their_end_is_the_same(histories) -> None:
    compared = admitted = 0
    for n_days, market in histories:
        expected = assert_same(outcome(truncated(market, n_days)), of_whole(market, "rule"), n_days)
        compared += len(expected["contracts"])
        admitted += int((expected["contracts"] > 0).sum())
    assert compared > 100_000 and admitted > 3_000


def test_nonsense_after_any_of_50_random_days_changes_nothing_up_to_it(histories) -> None:
    rng = np.random.default_rng(51)
    compared = 0
    for n_days, market in histories:
        wrong = outcome(poisoned(market, n_days, rng))
        expected = assert_same(wrong, of_whole(market, "rule"), n_days)
        compared += len(expected["contracts"])
        for name in ("close", "vix", "spot", "atm_iv"):                      # and after it nothing is as it was
            a, b = (getattr(made.prepared.panel, name)[n_days:] for made in (wrong, of_whole(market, "rule")))
            assert not (a == b).any()
    assert compared > 100_000


@pytest.mark.parametrize("change", [truncated, poisoned])
def test_the_mixture_labels_and_its_admissions_up_to_t_do_not_depend_on_what_comes_after(whole, change) -> None:
    expected = of_whole(whole, "gmm")
    first = int(np.flatnonzero((expected.prepared.labels != Regime.NONE).all(axis=1))[0])
    labelled = [n for n in cuts(len(whole.chains.sessions)) if n > first]
    compared = 0
    for n_days in labelled[::len(labelled) // 4]:
        rest = [] if change is truncated else [np.random.default_rng(n_days)]
        there = assert_same(outcome(change(whole, n_days, *rest), "gmm"), expected, n_days)
        compared += int((there["label"] != Regime.NONE).sum())
    assert compared > 1_000
