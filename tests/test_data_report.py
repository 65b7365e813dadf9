"""`mahler data-report` and its page: what is drawn and written is what the report says, and every run keeps it."""

from __future__ import annotations

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mahler import data_page, home, tracking
from mahler.commands import data_report
from mahler.data import quality, store
from mahler.data.calendar import sessions
from mahler.data.quality import Quality, State, Verdict
from mahler.schema import ConfigError
from tests.conftest import PERIOD, default_config, mahler
from tests.test_quality import report, silent, sound_chain, weeks, write

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture
def faulty(tmp_path: Path) -> Quality:
    """SPY from 15 December 2023 to 29 February 2024: three days missing, one each repeated, thin, crossed and odd."""
    days = [day for day in weeks("2023-12-15") if day not in ("2024-01-09", "2024-01-10", "2024-02-07")]
    chain = sound_chain(*days)
    on = {day: chain["date"] == np.datetime64(day) for day in days}
    for name in ("call_bid", "call_ask", "put_bid", "put_ask"):
        chain[name][on["2024-01-18"]] = chain[name][on["2024-01-17"]]
    chain["put_bid"][on["2024-01-24"]] += 5.0
    chain["delta"][on["2024-01-30"]] = chain["delta"][on["2024-01-30"]][::-1]
    thin = on["2024-01-22"] & (chain["strike"] > 97)
    write(tmp_path, {name: column[~thin] for name, column in chain.items()})
    return report(tmp_path)


def maps(page: str) -> list[ElementTree.Element]:
    return [ElementTree.fromstring(svg) for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL)]


def cells(svg: ElementTree.Element) -> dict[str, list[tuple[int, float, int, str]]]:
    """By colour, (row, first place, width in days, words) of the rectangles."""
    found: dict[str, list] = {}
    for rect in svg.iter(f"{SVG}rect"):
        place = (float(rect.get("x")) - data_page.LEFT) / data_page.DAY
        wide = float(rect.get("width")) / data_page.DAY
        row = round((float(rect.get("y")) - 16) / data_page.ROW)
        title = rect.find(f"{SVG}title")
        words = "" if title is None else title.text
        found.setdefault(rect.get("fill"), []).append((row, round(place), round(wide), words))
    return found


def drawn(quality_: Quality, state: State) -> list[str]:
    """The days that the map of SPY draws in the colour of `state`."""
    (svg,) = maps(data_page.page(quality_, "test", synthetic=False))
    years = quality_.years["year"]
    out = []
    for row, first, wide, _ in cells(svg).get(data_page.COLOURS[state], []):
        out += sessions(f"{years[row]}-01-01", f"{years[row]}-12-31")[first:first + wide].astype(str).tolist()
    return sorted(out)


@pytest.mark.parametrize(("state", "days"), [
    (State.MISSING, ["2024-01-09", "2024-01-10", "2024-02-07"]), (State.REPEATED, ["2024-01-18"]),
    (State.FEW_ROWS, ["2024-01-22"]), (State.QUOTES, ["2024-01-24"]), (State.GREEKS, ["2024-01-30"]),
])
def test_each_day_has_the_colour_of_its_state_in_its_place(faulty: Quality, state: State, days: list[str]) -> None:
    assert drawn(faulty, state) == days


def test_every_session_of_the_store_is_drawn_once_and_no_other(faulty: Quality) -> None:
    everything = sorted(day for state in State for day in drawn(faulty, state))
    assert everything == sessions("2023-12-15", "2024-02-29").astype(str).tolist()
    (svg,) = maps(data_page.page(faulty, "test", synthetic=False))
    assert [cell[:3] for cell in cells(svg)[data_page.OUTSIDE]] == [(0, 0, 250), (1, 0, 252)]


def test_a_marked_day_says_why_and_missing_days_in_a_row_are_one_cell(faulty: Quality) -> None:
    (svg,) = maps(data_page.page(faulty, "test", synthetic=False))
    titles = [words for found in cells(svg).values() for *_, words in found if words]
    assert sorted(titles) == sorted([
        "2024-01-09 to 2024-01-10: not in the store",
        "2024-01-18: 100% of the quotes are those of the session before",
        "2024-01-22: 62% fewer rows than usual",
        "2024-01-24: 100% of the expiries have no quotes that imply a forward; 50.0% of the quotes crossed",
        "2024-01-30: delta rises with the strike at 100.0% of the steps",
        "2024-02-07: not in the store"])


def test_the_legend_counts_the_days_and_the_tables_name_them(faulty: Quality) -> None:
    page = data_page.page(faulty, "test", synthetic=False)
    for words in ("complete: 44", "missing: 3", "quotes in doubt: 1", "repeats the session before: 1", "few rows: 1"):
        assert words in page
    assert "<th>SPY</th><td>2024-01-09 to 2024-01-10</td><td>2</td>" in page
    assert "50.0% of the quotes crossed" in page and "missing_days 0.01 / 0.05" in page


def test_each_year_has_its_verdict_and_its_reasons_beside_it(faulty: Quality) -> None:
    (svg,) = maps(data_page.page(faulty, "test", synthetic=False))
    words = [text.text for text in svg.iter(f"{SVG}text")]
    assert words[words.index("2024") + 1] == "do not use" and words[words.index("2023") + 1] == "good"
    reasons = faulty.years["reasons"][1]
    assert reasons.startswith("3 of 41 days missing; 2.6% of the days repeat the day before; ")
    assert reasons in [title.text for title in svg.iter(f"{SVG}title")]


def test_a_synthetic_market_is_named_and_what_a_name_holds_is_escaped(faulty: Quality) -> None:
    page = data_page.page(replace(faulty, source="<b>"), "<script>", synthetic=True)
    assert "SYNTHETIC MARKET: &lt;script&gt;" in page and "<script" not in page and "<b>" not in page
    assert "SYNTHETIC" not in data_page.page(faulty, "test", synthetic=False)


def test_the_page_needs_no_other_file(faulty: Quality) -> None:
    page = data_page.page(faulty, "test", synthetic=False).replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|src=|href=|url\(|@import", page)


def test_the_marked_days_listed_are_at_most_three_hundred_and_the_others_counted(tmp_path: Path) -> None:
    days = weeks("2019-01-02", "2023-12-29")
    write(tmp_path, sound_chain(*days[::2]))
    found = report(tmp_path)
    page, missing = data_page.page(found, "test", synthetic=False), np.sum(found.days["SPY"]["state"] == State.MISSING)
    assert page.count("not in the store</td>") == 300 and f"And {missing - 300} more." in page


# ---------------------------------------------------------------------------------------------- the verb and the runs


def config_of(*overrides: str, verb: str = "data_report"):
    from hydra import compose, initialize_config_dir

    from mahler.config import DataReport, load
    from mahler.home import conf_dir

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        return load(compose(verb, list(overrides)), DataReport)


def test_the_verb_writes_the_page_of_the_tickers_that_are_there(at_home: Path, capsys, tmp_path) -> None:
    data_report.run(config_of(f"out={tmp_path}/page.html"))
    said = capsys.readouterr().out
    assert "Not in the store: IWM" in said and said.rstrip().endswith("page.html")
    page = (tmp_path / "page.html").read_text()
    assert "SYNTHETIC MARKET" in page and len(maps(page)) == 2
    data_report.run(config_of("data.tickers=[SPY]"))
    (default,) = (home.data_dir() / "reports").iterdir()
    assert default.name == f"{data_report.store_root(config_of().data).name}.html"


def test_a_store_without_the_tickers_is_refused_with_what_to_do(at_home: Path) -> None:
    with pytest.raises(ConfigError, match=r"SPY, QQQ, IWM are not in the store .*orats .*mahler ingest data=orats"):
        data_report.run(config_of("data=orats"))


def test_the_synthetic_market_is_good_and_what_is_said_of_it_is_so(at_home: Path) -> None:
    """Held against the chain itself, expiry by expiry on a day in a slow loop."""
    root = data_report.store_root(config_of().data)
    parts = quality.partitions(root, ["SPY"])
    found = quality.report(parts, default_config().quality, None, silent)
    assert set(found.years["verdict"]) == {Verdict.GOOD}
    chain = store.read_partition(store.partitions(root, "SPY")[2018])
    year = found.years["year"].tolist().index(2018)
    assert found.years["rows"][year] == len(chain["date"])
    assert found.years["zero_bids"][year] == np.mean([chain["call_bid"] == 0, chain["put_bid"] == 0])
    day = np.datetime64("2018-02-06")
    near = []
    for expiry in np.unique(chain["expiry"][chain["date"] == day]):
        rows = np.flatnonzero((chain["date"] == day) & (chain["expiry"] == expiry) & (chain["call_bid"] > 0)
                              & (chain["put_bid"] > 0))
        apart = [(chain["call_bid"][k] + chain["call_ask"][k] - chain["put_bid"][k] - chain["put_ask"][k]) / 2
                 for k in rows]
        votes = sorted(zip(np.abs(apart), chain["strike"][rows] + apart))[:10]
        if len(votes) >= 3:
            forward = np.median([vote for _, vote in votes])
            near += [abs(chain["strike"][k] + a - forward) / forward for k, a in zip(rows, apart)
                     if abs(chain["strike"][k] / forward - 1) < 0.05]
    at = found.days["SPY"]["date"].tolist().index(day.astype(object))
    assert found.days["SPY"]["parity_95"][at] == pytest.approx(np.quantile(near, 0.95))


def test_a_run_keeps_the_quality_of_its_data_and_says_which_years_are_not_to_be_used(at_home: Path, tmp_path: Path,
                                                                                    monkeypatch) -> None:
    monkeypatch.setenv("MAHLER_HOME", str(tmp_path))
    shutil.copytree(at_home / "data" / "chains", tmp_path / "data" / "chains")
    root = data_report.store_root(config_of().data)
    path = store.partitions(root, "SPY")[2019]
    info, chain = store.partition_info(path), store.read_partition(path)
    kept = ~np.isin(chain["date"], info.sessions[5::15])
    store.write_partition(root, "SPY", 2019, {name: column[kept] for name, column in chain.items()}, source=info.source,
                          max_dte=info.max_dte, start=info.start, end=info.end)
    done = mahler(tmp_path, "backtest", *PERIOD, "universe=spy", "classifier=rule", "study=judged")
    assert done.returncode == 0, done.stderr
    assert "DO NOT USE: SPY 2019 (17 of 252 days missing); see quality.html of the run" in done.stdout
    (row,) = tracking.runs("judged")
    assert row["tags.quality"] == "do not use: SPY 2019"
    assert len(maps((row["artifacts"] / "quality.html").read_text())) == 1
    said = json.loads((row["artifacts"] / "quality.json").read_text())
    assert {year["year"] for year in said["years"] if year["verdict"] != "good"} == {2019}
    assert sum(day["date"][:4] == "2019" for day in said["marked_days"]) == 17
