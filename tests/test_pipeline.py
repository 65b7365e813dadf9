"""The whole path on the synthetic market: chains to a logged run. Small periods of the market that users get."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import numpy as np
import pytest

from mahler import cache, home, ledger as ledgers, stages, tracking
from mahler.commands import backtest as command
from mahler.data import store
from mahler.exits import first_exits
from mahler.panel import build
from mahler.paths import trace
from mahler.schema import CANDIDATE, CHAIN, ConfigError
from mahler.screen import screen
from tests.conftest import PERIOD, default_config, mahler, shell
from tests.test_orats import write_zip


def run(*overrides: str):
    config = default_config(*PERIOD, *overrides)
    return command.backtest(config, command.prepare(config, *command.market(config)))


# ---- from the command line -------------------------------------------------------------------------------------------


def test_a_backtest_is_a_run_with_params_metrics_tags_and_artifacts_and_is_found_again(at_home, tmp_path) -> None:
    arguments = ["backtest", *PERIOD, "universe=spy", "classifier=rule", "regime=prod", "study=pipeline",
                 "export_trades=trades.json"]
    first = shell(at_home, *arguments, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    assert "Traceback" not in first.stderr
    row, = tracking.runs("pipeline")
    assert row["name"] == "SPY " + ", ".join([*PERIOD, "classifier=rule", "regime=prod"])
    assert row["params.regime.multipliers"] == "[1.0, 0.75, 0.5, 0.4]" and row["params.limits.max_heat"] == "0.2"
    assert row["tags.market"] == "synthetic" and row["tags.kind"] == "backtest" and len(row["tags.signature"]) == 64
    for name in ("sharpe", "cagr", "max_drawdown", "trades", "covid_2020.return", "equity", "rejected.max_positions"):
        assert name in row, name
    names = {p.name for p in row["artifacts"].iterdir()}
    assert {"config.yaml", "trades.parquet", "rejections.parquet", "account.parquet", "trades.json", "page.html"} <= names
    ledger = ledgers.read(row["artifacts"])
    ledgers.check(ledger)
    assert len(ledger.trades["pnl"]) == row["trades"] > 50
    assert json.loads((tmp_path / "trades.json").read_text()) == ledgers.export(ledger)
    assert "SYNTHETIC" in (row["artifacts"] / "page.html").read_text()

    again = mahler(at_home, *arguments, cwd=tmp_path)
    assert again.returncode == 0 and "found" in again.stdout and len(tracking.runs("pipeline")) == 1
    other = mahler(at_home, *arguments, "limits.max_heat=0.1", cwd=tmp_path)
    assert other.returncode == 0 and len(tracking.runs("pipeline")) == 2


def test_a_sweep_on_the_command_line_is_a_run_a_job(at_home) -> None:
    done = mahler(at_home, "backtest", "-m", *PERIOD, "classifier=rule", "study=sweep", "universe=spy,qqq",
                  "limits.max_heat=0.1,0.2")
    assert done.returncode == 0, done.stderr
    assert len(tracking.runs("sweep")) == 4
    listed = mahler(at_home, "runs", "study=sweep")
    assert listed.returncode == 0 and "limits.max_heat=0.1" in listed.stdout and "synthetic" in listed.stdout


def test_a_store_that_is_not_there_is_refused_with_the_command_that_fills_it(at_home) -> None:
    done = mahler(at_home, "backtest", "data=orats", "universe=spy")
    assert done.returncode == 2 and done.stderr.count("\n") == 1
    assert "mahler ingest data=orats" in done.stderr


def test_a_run_that_breaks_is_marked_failed_and_leaves_no_artifacts(at_home, monkeypatch) -> None:
    from mahler import metrics

    monkeypatch.setattr(metrics, "summary", lambda *_, **__: 1 / 0)
    monkeypatch.setattr(command, "overrides", list)
    config = default_config(*PERIOD, "universe=spy", "classifier=rule", "study=broken")
    with pytest.raises(ZeroDivisionError):
        command.run(config)
    row, = tracking._search(["broken"], "attributes.status = 'FAILED'", most=None)
    assert "ZeroDivisionError" in row["tags.error"] and not row["artifacts"].exists()
    assert tracking.runs("broken") == []


# ---- what a result depends on ----------------------------------------------------------------------------------------


def test_the_same_config_and_data_give_the_same_ledger_to_the_byte(at_home, tmp_path) -> None:
    for k in range(2):
        stages._recent.clear()
        ledgers.write(run("universe=spy_qqq", "classifier=rule"), tmp_path / str(k))
    for path in (tmp_path / "0").iterdir():
        assert path.read_bytes() == (tmp_path / "1" / path.name).read_bytes()


def test_a_warm_run_equals_a_cold_one_and_a_damaged_cache_is_made_again(at_home, tmp_path, caplog) -> None:
    config = default_config(*PERIOD, "universe=spy")
    chains, series = command.market(config)
    panel = build(chains, series)

    def found():
        stages._recent.clear()
        return stages.opportunities(chains, panel, config.entry, config.fill, 0, tmp_path)

    cold, warm = found(), found()
    entry = tmp_path / cold.fingerprint
    assert entry.is_dir()
    for name in CANDIDATE.names:
        np.testing.assert_array_equal(cold.candidates[name], warm.candidates[name])
    np.testing.assert_array_equal(cold.paths.close, warm.paths.close)
    damaged = bytearray((entry / "path.mid.npy").read_bytes())
    damaged[len(damaged) // 2] ^= 0xFF
    (entry / "path.mid.npy").write_bytes(damaged)
    mended = found()
    assert "damaged" in caplog.text
    np.testing.assert_array_equal(mended.paths.mid, cold.paths.mid)
    (entry / "candidate.credit.npy").write_bytes(b"\x93NUMPY")
    np.testing.assert_array_equal(found().candidates["credit"], cold.candidates["credit"])
    assert cache.load(tmp_path, cold.fingerprint) is not None


@pytest.mark.parametrize("override", ["entry.max_delta=0.14", "entry.widths=[2.0,5.0]", "fill.travel=0.7", "fill=mid",
                                      "entry.per_day=4", "entry.min_credit_to_width=0.031"])
def test_a_changed_number_of_entry_or_fill_changes_the_fingerprint(at_home, override, tmp_path) -> None:
    chains, series = command.market(default_config(*PERIOD, "universe=spy"))
    panel = build(chains, series)
    prints = {stages.opportunities(chains, panel, c.entry, c.fill, 0, None).fingerprint
              for c in (default_config(*PERIOD, "universe=spy"), default_config(*PERIOD, "universe=spy", override))}
    assert len(prints) == 2


def test_of_those_who_want_the_same_arrays_at_once_one_makes_them(tmp_path) -> None:
    made = []

    def make():
        made.append(1)
        time.sleep(0.2)
        return {"a": np.arange(3)}

    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda _: cache.kept(tmp_path, "key", make)["a"].tolist(), range(4)))
    assert found == [[0, 1, 2]] * 4 and len(made) == 1
    assert not list(tmp_path.glob(".*"))                # no lock is left behind
    assert cache.kept(None, "key", make)["a"].tolist() == [0, 1, 2] and len(made) == 2


def test_a_cache_that_cannot_be_written_to_is_refused_in_one_line(tmp_path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(ConfigError, match=r"the cache .*data/cache cannot be written to \(Not a directory\)"):
        cache.kept(tmp_path / "data" / "cache", "key", lambda: {"a": np.arange(3)})


def test_who_comes_while_another_has_waited_for_the_lock_does_not_get_it_as_well(tmp_path) -> None:
    waits, inside, leave = Event(), Event(), Event()

    def second():
        waits.set()
        with cache.alone(tmp_path, "key"):
            inside.set()
            leave.wait(10)

    with ThreadPoolExecutor(1) as pool, cache.remembering(tmp_path):
        with cache.alone(tmp_path, "key"):
            pool.submit(second)
            waits.wait(10)
            time.sleep(0.1)                             # it is at the lock, and not in the block
            assert not inside.is_set()
        assert inside.wait(10)
        third = cache.in_turn(["key", "other"])
        assert next(third) == 1                         # the key is the second's, though the first removed its file
        leave.set()
        assert next(third) == 0


def test_what_another_process_is_at_comes_last(tmp_path) -> None:
    with cache.remembering(tmp_path):
        order = cache.in_turn(["a", "b", "c"])
        with cache.alone(tmp_path, "a"):
            first = [next(order), next(order)]
        assert [*first, *order] == [1, 2, 0]
    assert list(cache.in_turn(["a", "b"])) == [0, 1]    # nothing is shared where nothing is remembered


def test_a_config_that_differs_elsewhere_shares_candidates_and_paths(at_home) -> None:
    base = default_config(*PERIOD, "universe=spy", "classifier=rule")
    command.backtest(base, command.prepare(base, *command.market(base)))
    n = len(list(home.cache_dir().iterdir()))
    for override in ("regime=prod", "limits=tight", "exit.profit_target=0.5", "sizing.fraction=0.01", "breaker=production"):
        config = default_config(*PERIOD, "universe=spy", "classifier=rule", override)
        command.backtest(config, command.prepare(config, *command.market(config)))
    assert len(list(home.cache_dir().iterdir())) == n


def test_a_changed_row_of_data_changes_the_fingerprint(at_home, tmp_path) -> None:
    root = command.store_root(default_config().data)
    path = store.partitions(root, "SPY")[2019]
    info, table = store.partition_info(path), store.read_partition(path)
    args = dict(source=info.source, max_dte=info.max_dte, start=info.start, end=info.end)
    store.write_partition(tmp_path / "a", "SPY", 2019, table, **args)
    table["put_bid"] = table["put_bid"].copy()
    table["put_bid"][1000] += 0.01
    store.write_partition(tmp_path / "b", "SPY", 2019, table, **args)
    same, changed = (store.scan(tmp_path / k, ["SPY"], None, None).fingerprint for k in "ab")
    assert same != changed


def test_the_store_says_so_where_it_is_too_short_for_the_entry_rules(at_home) -> None:
    done = mahler(at_home, "backtest", *PERIOD, "universe=spy", "entry.max_dte=75")
    assert done.returncode == 2 and "60" in done.stderr and "75" in done.stderr


# ---- honesty ---------------------------------------------------------------------------------------------------------


def test_the_whole_pipeline_on_history_truncated_at_t_admits_the_same_up_to_t(at_home) -> None:
    whole = run("universe=spy_qqq", "classifier=rule", "regime=prod")
    met = 0
    for last in ("2018-02-06", "2019-01-02", "2020-03-13"):
        config = default_config(f"period.start={PERIOD[0].partition('=')[2]}", f"period.end={last}",
                                "universe=spy_qqq", "classifier=rule", "regime=prod")
        cut = command.backtest(config, command.prepare(config, *command.market(config)))
        upto = whole.trades["date"] <= np.datetime64(last)
        for column in ("ticker", "side", "date", "short_strike", "expiration", "credit", "contracts", "regime"):
            np.testing.assert_array_equal(cut.trades[column], whole.trades[column][upto])
        n = len(cut.account["date"])
        np.testing.assert_array_equal(cut.account["equity"], whole.account["equity"][:n])
        met += int(upto.sum())
    assert met > 100


def test_a_run_without_a_candidate_says_at_which_stage_they_were_lost(at_home) -> None:
    done = mahler(at_home, "backtest", *PERIOD, "universe=spy", "classifier=rule", "entry.min_credit_to_width=0.2",
                  "study=starved")
    assert done.returncode == 0, done.stderr
    assert "no candidate at all" in done.stdout and "paid_enough 0" in done.stdout
    row, = tracking.runs("starved")
    assert "win_rate" not in row and "sharpe" not in row and row["trades"] == 0


def test_on_the_null_market_the_mean_trade_is_minus_its_costs(tmp_path, monkeypatch) -> None:
    """Fairly priced options on a driftless path: what a trade makes before costs is nothing, within its interval.

    Held to the costs that it paid, one trade a week at most (they overlap less), over several seeds.
    """
    monkeypatch.setenv("MAHLER_HOME", str(tmp_path))
    gross = []
    for seed in (1, 2, 3):
        config = default_config("universe=spy", "classifier=rule", "period.start=2010-01-01", "period.end=2012-12-31",
                                "data.variance_premium=0", "data.drift=0", f"data.seed={seed}", "entry.max_delta=0.3",
                                "entry.min_delta=0.1", "entry.per_day=1", "limits.max_entries_per_day=1", "exit=hold",
                                "limits=wide_open", "limits.max_positions=40", "sizing=fixed_contracts")
        ledger = command.backtest(config, command.prepare(config, *command.market(config)))
        trades = ledger.trades
        over = trades["exit_reason"] == "expiry"
        before_costs = (trades["pnl"] + trades["commission"] + trades["slippage"])[over]
        week = trades["expiration"][over]
        gross += [before_costs[week == w].mean() for w in np.unique(week)]      # one independent path an expiry
    gross = np.array(gross)
    error = gross.std(ddof=1) / np.sqrt(len(gross))
    assert len(gross) > 150
    assert abs(gross.mean()) < 3 * error, f"{gross.mean():.2f} dollars a contract before costs, error {error:.2f}"


THEIRS = {"strike": "strike", "stkPx": "underlying", "cBidPx": "call_bid", "cAskPx": "call_ask", "pBidPx": "put_bid",
          "pAskPx": "put_ask", "cVolu": "call_volume", "cOi": "call_open_interest", "pVolu": "put_volume",
          "pOi": "put_open_interest", "cMidIv": "call_iv", "pMidIv": "put_iv", "smoothSmvVol": "smooth_iv",
          "delta": "delta", "gamma": "gamma", "theta": "theta", "vega": "vega"}


def write_day(folder: Path, chain: dict, day: np.datetime64) -> None:
    """A day's chain of SPY as a zip of ORATS's."""
    rows = []
    for k in range(len(chain["strike"])):
        expiry, traded = (d.astype("datetime64[D]").item() for d in (chain["expiry"][k], day))
        cells = {theirs: repr(float(chain[ours][k])) for theirs, ours in THEIRS.items()}
        cells |= {name: str(int(chain[THEIRS[name]][k])) for name in ("cVolu", "cOi", "pVolu", "pOi")}
        cells |= {"expirDate": f"{expiry.month}/{expiry.day}/{expiry.year}",
                  "trade_date": f"{traded.month}/{traded.day}/{traded.year}"}
        rows.append({name: "" if text == "nan" else text for name, text in cells.items()})
    write_zip(folder, *rows, day=str(day).replace("-", ""))


def test_real_files_of_orats_reach_a_ledger(tmp_path, at_home, monkeypatch) -> None:
    """Synthetic chains, written as ORATS writes them and ingested as such, give the very same candidates."""
    config = default_config("period.start=2019-01-02", "period.end=2019-03-29", "universe=spy", "classifier=rule")
    root = command.store_root(config.data)
    chain = store.read_partition(store.partitions(root, "SPY")[2019])
    (tmp_path / "raw").mkdir()
    for day in np.unique(chain["date"][chain["date"] <= np.datetime64("2019-03-29")]):
        write_day(tmp_path / "raw", {name: chain[name][chain["date"] == day] for name in CHAIN.names}, day)
    monkeypatch.setenv("MAHLER_HOME", str(tmp_path / "home"))
    done = mahler(tmp_path / "home", "ingest", "data=orats", f"data.path={tmp_path / 'raw'}", "data.tickers=[SPY]",
                  "data.max_dte=60")
    assert done.returncode == 0, done.stderr
    ran = mahler(tmp_path / "home", "backtest", "data=orats", "universe=spy", "classifier=rule",
                 "period.start=2019-01-02", "period.end=2019-03-29")
    assert ran.returncode == 0, ran.stderr
    theirs = store.scan(home.store_dir() / "orats", ["SPY"], None, None)
    row, = tracking.runs("backtest")
    assert row["tags.market"] == "real" and row["trades"] > 5
    panel = build(theirs, None)
    candidates, _ = screen(theirs, panel, config.entry, config.fill)
    first_exits(candidates, trace(candidates, theirs, panel, config.fill), config.exit, config.costs, theirs.sessions)
    assert len(candidates["day"]) == row["candidates"]


# ---- holes and caches ------------------------------------------------------------------------------------------------


def test_a_hole_in_the_data_is_refused_and_never_settles_a_position(at_home, tmp_path, monkeypatch) -> None:
    root = command.store_root(default_config().data)
    for year in (2018, 2020):
        path = store.partition_path(tmp_path / "data/chains/orats", "SPY", year)
        path.parent.mkdir(parents=True, exist_ok=True)
        table = store.read_partition(store.partitions(root, "SPY")[year])
        store.write_partition(tmp_path / "data/chains/orats", "SPY", year, table, source="orats", max_dte=60,
                              start=f"{year}-01-01", end=f"{year}-12-31")
    monkeypatch.setenv("MAHLER_HOME", str(tmp_path))
    arguments = ["backtest", "data=orats", "universe=spy", "classifier=rule"]
    done = mahler(tmp_path, *arguments, "period.start=2018-01-01")
    assert done.returncode == 2 and "252 sessions in a row are missing between 2018-12-31 and 2020-01-02" in done.stderr
    assert tracking._search(None, "", most=None) == []              # refused before a run was begun
    after = mahler(tmp_path, *arguments, "period.start=2020-01-02", "period.end=2020-06-30")
    assert after.returncode == 0, after.stderr
    assert "are not in the store" not in after.stdout
    before = mahler(tmp_path, *arguments, "period.start=2017-01-03", "period.end=2018-12-31")
    assert before.returncode == 0 and "251 sessions of 2017-01-03 to 2018-12-31 are not in the store" in before.stdout


def test_an_expiry_on_a_missing_session_settles_on_the_one_before_and_is_counted(at_home) -> None:
    config = default_config(*PERIOD, "universe=spy", "classifier=rule", "exit=hold", "entry.side=put")
    chains, series = command.market(config)
    whole = command.backtest(config, command.prepare(config, chains, series))
    expiry = np.unique(whole.trades["expiration"][whole.trades["exit_reason"] == "expiry"])[3]
    chains = dataclasses.replace(chains, sessions=chains.sessions[chains.sessions != expiry], _loaded={},
                                 fingerprint="without an expiry")
    holed = command.backtest(config, command.prepare(config, chains, series))
    mine = holed.trades["expiration"] == expiry
    assert mine.any() and holed.counts["settled_early"] == mine.sum() and whole.counts["settled_early"] == 0
    assert (holed.trades["exit_date"][mine] == chains.sessions[chains.sessions < expiry][-1]).all()


@pytest.fixture
def copied(tmp_path, monkeypatch):
    """A copy of the package whose files the digests of code are of, and a function that adds a line to one of them."""
    import shutil

    package = tmp_path / "mahler"
    shutil.copytree(cache.PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__", "*.c"))
    monkeypatch.setattr(cache, "PACKAGE", package)

    def edit(name: str) -> None:
        with open(package / name, "a", encoding="utf-8") as file:
            file.write("# edited\n")
        forget()

    def forget() -> None:
        for function in (cache.code_version, cache._files, cache._imports):
            function.cache_clear()

    forget()
    yield edit
    forget()


def test_what_edited_code_made_before_is_not_found_again_and_what_other_code_made_is(at_home, tmp_path, copied,
                                                                                                    monkeypatch) -> None:
    monkeypatch.setattr(stages, "_recent", {})
    config = default_config(*PERIOD, "universe=spy")
    chains, series = command.market(config)
    panel, kept = build(chains, series), tmp_path / "kept"
    found = []
    for edited in ("paths.py", "fills/travel.py", "cache.py", "sizing/fixed_fraction.py", "simulate.py", "classifiers/rule.py"):
        found.append(stages.opportunities(chains, panel, config.entry, config.fill, 0, kept).fingerprint)
        copied(edited)
    assert len(set(found)) == 4 and len(list(kept.iterdir())) == 4
    assert found[3] == found[4] == found[5]         # neither a size nor a walk changes what could be sold


def test_the_code_version_is_of_sources_and_kernels_and_changes_with_an_edit(copied) -> None:
    versions = [cache.code_version()]
    for edited in ("classifiers/rule.py", "core/admission.pyx"):
        copied(edited)
        versions.append(cache.code_version())
    assert len(set(versions)) == 3


@pytest.mark.parametrize("module, edited, same", [
    ("mahler.classifiers.gmm", "classifiers/gmm.py", False), ("mahler.classifiers.gmm", "schema.py", False),
    ("mahler.classifiers.gmm", "core/features.pyx", False),          # of the panel, which it imports
    ("mahler.classifiers.gmm", "classifiers/__init__.py", False),
    ("mahler.classifiers.gmm", "classifiers/rule.py", True), ("mahler.classifiers.gmm", "commands/report.py", True),
    ("mahler.classifiers.gmm", "stages.py", False)])
def test_the_code_of_a_module_is_what_it_imports(module, edited, same, copied) -> None:
    before = cache.code_version(module, alone="mahler.stages")
    copied(edited)
    assert (cache.code_version(module, alone="mahler.stages") == before) == same


def test_the_package_imports_itself_by_whole_names() -> None:
    """What `cache.code_version` follows."""
    for path in cache.PACKAGE.rglob("*.py"):
        assert not re.search(r"^\s*from \.", path.read_text(encoding="utf-8"), re.M), path


def test_the_demo_does_not_depend_on_what_was_run_before_it(at_home) -> None:
    config = default_config("period.start=2019-01-02", "period.end=2019-12-31", "universe=spy")
    chains, _ = command.market(config)
    assert chains.sessions[0] == np.datetime64("2007-01-03") and chains.sessions[-1] == np.datetime64("2019-12-31")


@pytest.mark.parametrize("override, said", [
    ("data.start=2020-01-01", "period.start"), ("data.tickers=[QQQ]", "universe.tickers"), ("study=", "study"),
    ("universe.tickers=[DIA]", "universe.tickers"), ("entry.widths=[5,5]", "twice")])
def test_an_option_that_a_backtest_has_not_is_refused_in_one_line(at_home, override, said) -> None:
    done = mahler(at_home, "backtest", *PERIOD, "universe=spy", override)
    assert done.returncode == 2 and said in done.stderr and done.stderr.strip().count("\n") == 0


def test_a_close_that_is_missing_when_spreads_expire_is_refused_by_name(at_home) -> None:
    config = default_config(*PERIOD, "universe=spy", "classifier=rule")
    chains, series = command.market(config)
    panel = build(chains, series)
    candidates, _ = screen(chains, panel, config.entry, config.fill)
    expiry = np.unique(candidates["expiry"])[5]
    close = panel.close.copy()
    close[chains.sessions == expiry] = np.nan
    with pytest.raises(ConfigError, match=f"SPY has no close on {expiry}"):
        trace(candidates, chains, dataclasses.replace(panel, close=close), config.fill)
