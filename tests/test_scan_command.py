"""`mahler scan` and `mahler paper` as a person types them."""

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mahler import cli
from mahler.paper import account as accounts, records

PRODUCTION = """# @package _global_
defaults:
  - override /classifier: rule
  - override /universe: spy_qqq
study: production
"""


@pytest.fixture(scope="module")
def home_of_desk(synthetic_home: Path, tmp_path_factory) -> Path:
    """A home with chains, and a cache that the tests share."""
    folder = tmp_path_factory.mktemp("desk")
    shutil.copytree(synthetic_home / "data" / "chains", folder / "data" / "chains", copy_function=os.link)
    return folder


@pytest.fixture
def desk(home_of_desk: Path, monkeypatch) -> Path:
    """That home with a production config, and without a paper ledger."""
    experiments = home_of_desk / "conf" / "experiment"
    for left in (experiments, home_of_desk / "data" / "paper"):
        shutil.rmtree(left, ignore_errors=True)
    experiments.mkdir(parents=True)
    (experiments / "production.yaml").write_text(PRODUCTION)
    monkeypatch.setenv("MAHLER_HOME", str(home_of_desk))
    return home_of_desk


@pytest.fixture
def mahler(desk, capfd) -> Callable[..., tuple[int, str]]:
    """The command line, in this process: its status, and what it said."""
    def run(*arguments: str) -> tuple[int, str]:
        capfd.readouterr()
        status = cli.main(arguments)
        said = capfd.readouterr()
        return status, said.out + said.err
    return run


def test_days_of_a_paper_account_from_the_command_line(desk, mahler):
    status, said = mahler("scan", "date=2020-03-09", f"scan.json={desk}/day.json")
    assert status == 0 and "SYNTHETIC market" in said and "Not recorded" in said
    assert not records.exists(desk / "data" / "paper")
    told = json.loads((desk / "day.json").read_text())
    assert told["market"] == "SYNTHETIC" and told["account"]["before"]["equity"] == 100_000.0
    ticket = told["tickets"][0]
    assert ticket["action"] == "open" and [leg["action"] for leg in ticket["legs"]] == ["sell", "buy"]
    assert 0 < ticket["fill"] < ticket["mid"] and ticket["max_loss"] == pytest.approx(100 * (5 - ticket["fill"]) + 4)
    assert ticket["legs"][0]["symbol"].startswith(f"{ticket['ticker']}20")

    assert mahler("scan", "date=2020-03-09", "scan.record=true")[0] == 0
    assert "Recorded already, and the same" in mahler("scan", "date=2020-03-09", "scan.record=true")[1]
    status, said = mahler("paper", "fill")
    assert status == 0 and f"{len(told['tickets'])} tickets of the last scan filled as modelled" in said
    assert f"{told['account']['after']['equity']:,.2f}" in said and "SYNTHETIC" in said
    assert "0 tickets of the last scan" in mahler("paper", "fill")[1]

    status, said = mahler("scan", "date=2020-03-10", "scan.record=true")
    assert status == 0 and "To close: buy the short leg, sell the long leg" in said
    paper = desk / "data" / "paper"
    assert records.read(paper, "scans")["date"].astype(str).tolist() == ["2020-03-09", "2020-03-10"]
    assert (paper / "scans" / "2020-03-10.json").is_file()
    assert len(accounts.load(paper, np.datetime64("2020-03-10")).positions["position"]) == len(told["tickets"])
    assert "scans: 2 rows" in mahler("paper", "list", "table=scans")[1]


def test_fills_of_a_file_are_imported_and_shown(desk, mahler):
    mahler("scan", "date=2020-03-09", "scan.record=true")
    ticket = json.loads((desk / "data" / "paper" / "scans" / "2020-03-09.json").read_text())["tickets"][0]
    (desk / "fills.csv").write_text("fill_id,at,symbol,side,contracts,price\n" + "".join(
        f"{k},2020-03-09T15:46:00-04:00,{leg['symbol']},{leg['action']},{ticket['contracts']},{leg['bid']}\n"
        for k, leg in enumerate(ticket["legs"])))
    status, said = mahler("paper", "import", f"source.path={desk}/fills.csv")
    assert status == 0 and "csv: 2 new fills and 0 known ones" in said and "of the bid-ask travelled" in said
    assert "0 new fills and 2 known ones" in mahler("paper", "import", f"source.path={desk}/fills.csv")[1]


@pytest.mark.parametrize("arguments, says", [
    (["scan"], "the chains of QQQ, SPY end on|the chains of SPY, QQQ end on"),
    (["scan", "date=2020-03-08"], "a Sunday, it is no session; the last before it is 2020-03-06"),
    (["scan", "date=soon"], "date is today or a date YYYY-MM-DD, got 'soon'"),
    (["scan", "date=2020-03-09", "scan.record=maybe"], "scan.record is true or false"),
    (["paper"], "the paper ledger has no account yet: mahler scan scan.record=true opens it"),
])
def test_what_cannot_be_done_is_refused_in_one_line(mahler, arguments, says):
    status, said = mahler(*arguments)
    assert status == 2 and len(said.strip().splitlines()) == 1
    assert any(part in said for part in says.split("|"))


def test_without_a_promoted_config_there_is_nothing_to_scan(desk, mahler):
    (desk / "conf" / "experiment" / "production.yaml").unlink()
    status, said = mahler("scan", "date=2020-03-09")
    assert status == 2 and "nothing was promoted yet: mahler promote run=ID" in said


def test_an_llm_layer_that_does_not_say_how_it_is_asked_is_refused(desk, mahler):
    (desk / "conf" / "experiment" / "production.json").write_text('{"llm": "on", "llm_model": "some-model"}')
    status, said = mahler("scan", "date=2020-03-09")
    assert status == 2 and "production.json: the whole: " in said and "is a required property" in said


def test_ledgers_of_two_stores_never_mix(desk, mahler):
    mahler("scan", "date=2020-03-09", "scan.record=true")
    status, said = mahler("scan", "date=2020-03-10", "data.seed=99")
    assert status == 2 and "they never mix" in said


def test_a_table_that_is_not_there_is_refused_with_those_that_are(desk, mahler):
    mahler("scan", "date=2020-03-09", "scan.record=true")
    status, said = mahler("paper", "list", "table=tiket")
    assert status == 2 and "did you mean tickets?" in said
