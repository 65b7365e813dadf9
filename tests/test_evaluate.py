"""`mahler evaluate` from the command line: the baseline without a model, and models of a server on this machine."""

from __future__ import annotations

import json
import sqlite3
from datetime import date
from pathlib import Path

import numpy as np
import pytest

from mahler import cli, home, tracking
from mahler.commands.evaluate import _clean, _seen
from mahler.data import store
from mahler.llm.context import contexts
from mahler.schema import DECISION
from tests.conftest import PERIOD, evaluate_config
from tests.llm_records import records
from tests.llm_server import CUTOFF, KEY, LlmServer

QUICK = ["draws=20", "replications=100"]


@pytest.fixture(scope="module")
def book(synthetic_home: Path, tmp_path_factory) -> Path:
    """A home with one backtest, and its export as trades.json."""
    folder = tmp_path_factory.mktemp("evaluate")
    (folder / "data").mkdir()
    for name in ("chains", "cache"):
        source = synthetic_home / "data" / name
        source.mkdir(exist_ok=True)
        (folder / "data" / name).symlink_to(source)
    patch = pytest.MonkeyPatch()
    patch.setenv("MAHLER_HOME", str(folder))
    assert cli.main(["backtest", *PERIOD, "classifier=rule", f"export_trades={folder / 'trades.json'}"]) == 0
    yield folder
    patch.undo()


@pytest.fixture(scope="module")
def trades(book: Path) -> list[dict]:
    return json.loads((book / "trades.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def some(book: Path, trades) -> str:
    """The first 150 of them, as an argument: every call costs 10 ms."""
    (book / "some.json").write_text(json.dumps(trades[:150]), encoding="utf-8")
    return f"trades={book / 'some.json'}"


@pytest.fixture(scope="module")
def server(trades):
    """A server whose models with skill know how the trades ended, by every context."""
    truth = {}
    for name in ("full", "blind", "shifted", "date_only"):
        texts = contexts(trades, evaluate_config(f"context={name}").context, trades)
        truth |= {text: trade["outcome"] == "profit" for text, trade in zip(texts, trades, strict=True)}
    with LlmServer(truth) as running:
        yield running


def of(server: LlmServer, model: str, *overrides: str) -> list[str]:
    return ["arm=model", "llm=local", f"llm.model=openai/{model}", f"llm.api_base={server.api_base}", "llm.concurrency=32",
            "llm.backoff=0.01", *overrides]


def evaluate(*arguments: str) -> int:
    return cli.main(["evaluate", *QUICK, *arguments])


def newest(study: str, kind: str = "evaluation") -> dict:
    return max(tracking.runs(study, kind=kind), key=lambda row: row["started"])


# ---- without a model -------------------------------------------------------------------------------------------------


def test_the_default_is_the_offline_baseline_and_says_so(book, trades, capsys):
    assert evaluate() == 0
    said = capsys.readouterr().out
    assert "the offline baseline decides: no model, no key, no network" in said and "SYNTHETIC market" in said
    assert "VERDICT: " in said
    row = newest("evaluate")
    assert row["judged"] == row["decided"] == len(trades) and row["cost"] == row["calls"] == 0.0
    assert (row["tags.arm"], row["tags.model"], row["tags.market"]) == ("baseline", "none", "synthetic")
    decisions = store.read_table(row["artifacts"] / "decisions.parquet")
    assert list(decisions) == list(DECISION.names) and len(decisions["approve"]) == len(trades)
    assert evaluate() == 0 and "found, run" in capsys.readouterr().out


@pytest.mark.parametrize("arm, rate", [("approve_all", 1.0), ("coin_flip", 0.6)])
def test_a_control_needs_no_model(book, arm, rate):
    more = ["arm.rejection_rate=0.4"] if arm == "coin_flip" else []
    assert evaluate(f"arm={arm}", "study=controls", *more) == 0
    assert newest("controls")["approval_rate"] == pytest.approx(rate, abs=0.1)


def test_approve_all_in_the_loop_is_the_book_itself(book):
    row = newest("controls") if tracking.runs("controls", kind="evaluation") else None
    if row is None or row["tags.arm"] != "approve_all":
        assert evaluate("arm=approve_all", "study=controls", "force=true") == 0
        row = newest("controls")
    assert row["loop.rounds"] == 1 and row["loop.vetoes"] == 0 and row["layer.sharpe.change"] == 0.0


def test_trades_of_a_file_are_judged_without_a_book(book, trades, capsys):
    assert evaluate(f"trades={book / 'trades.json'}", "study=file") == 0
    row = newest("file")
    assert row["decided"] == len(trades) and "layer.sharpe" not in row and row["tags.market"] == "unknown"
    assert "market not known" in capsys.readouterr().out
    assert evaluate("run=last", f"trades={book / 'trades.json'}") == 2
    assert "give one of them" in capsys.readouterr().err
    assert evaluate("run=ffffffffff") == 2 and "is not the id of a run" in capsys.readouterr().err


# ---- with one --------------------------------------------------------------------------------------------------------


def test_a_dry_run_shows_the_first_question_and_asks_nothing(book, server, capsys):
    before = len(server.asked)
    assert evaluate(*of(server, "no_skill", "llm.dry_run=true", "study=dry")) == 0
    said = capsys.readouterr().out
    assert "none can promote it" in said                    # llm=local states no cutoff
    assert "replies (0 are there), about $0.00 at 200 tokens a reply" in said and '"p_profit"' in said and "Proposed trade" in said
    assert len(server.asked) == before and not tracking.runs("dry", kind="evaluation")


def test_only_trades_after_the_cutoff_are_announced_as_able_to_promote():
    rows = records(300, skill=0.5)                          # a day each, from 2019-01-02
    assert "100 of them were entered after 2019-07-20, and only" in _clean(rows, date(2019, 4, 20))
    assert "shared by 29 tests it is" in _clean(rows, date(2019, 4, 20))
    assert _clean(rows, date(2024, 1, 31)).startswith("0 of them") and "sees" not in _clean(rows, date(2024, 1, 31))


def test_power_is_said_in_words_where_every_trade_ended_alike():
    said = _seen([row | {"outcome": "profit", "pnl": 25.0} for row in records(60, skill=0.0)])
    assert said.startswith("none; every trade") and "nan" not in said
    assert "it is no difference that there can be" in _seen(records(15, skill=0.0))


def test_a_model_whose_every_reply_failed_can_remember_as_well_as_before(some, server):
    asked = of(server, "500", some, "study=silent", "llm.attempts=1", "llm.max_failed=1000", "llm.knowledge_cutoff=null")
    assert evaluate(*asked) == 0
    row = newest("silent")
    said = json.loads((row["artifacts"] / "answers.json").read_text(encoding="utf-8"))
    assert row["failed"] == 150 and row["tags.model"] == said["model"] == "openai/500" and said["remembers"] is True


def test_what_a_model_does_not_answer_is_counted_and_takes_the_stated_default(some, server):
    server.faults["no_skill"] = ["refusal"] * 5 + ["half_json"] * 8
    assert evaluate(*of(server, "no_skill", some, "study=mixed", "llm.repair=false", "llm.on_missing=reject")) == 0
    row = newest("mixed")
    assert (row["judged"], row["refused"], row["invalid"]) == (150, 5, 8)
    decisions = store.read_table(row["artifacts"] / "decisions.parquet")
    missing = decisions["status"] != "decision"
    assert missing.sum() == 13 and not decisions["approve"][missing].any() and row["decided"] == 137


def test_an_evaluation_is_replayed_from_its_replies_without_a_server(some, server):
    asked = of(server, "no_skill", some, "study=replay")
    assert evaluate(*asked) == 0
    before, first = len(server.asked), newest("replay")
    assert evaluate(*asked, "llm.cache_only=true", "force=true") == 0
    second = newest("replay")
    assert len(server.asked) == before and second["calls"] == 0 and second["auroc"] == first["auroc"]
    one, two = (store.read_table(row["artifacts"] / "decisions.parquet") for row in (first, second))
    for name in ("approve", "p_profit", "cost", "reply_ids", "fingerprint"):
        np.testing.assert_array_equal(one[name], two[name])


def test_every_call_is_a_trace_where_that_is_asked_for_and_the_key_is_nowhere(book, trades, server, monkeypatch, capfd):
    monkeypatch.setenv("LOCAL_KEY", KEY)
    (book / "few.json").write_text(json.dumps(trades[:15]), encoding="utf-8")
    few = f"trades={book / 'few.json'}"
    assert evaluate(*of(server, "echo_key", few, "study=traced", "llm.trace=true", "llm.key=LOCAL_KEY")) == 0
    row = newest("traced")
    assert f"Bearer {KEY}" in server.authorization
    with sqlite3.connect(home.mlruns_dir() / "mlflow.db") as db:
        assert db.execute("SELECT count(*) FROM trace_info").fetchone() == (15,) and row["judged"] == 15
    assert evaluate(*of(server, "401", few, "study=traced", "llm.key=LOCAL_KEY")) == 2
    assert cli.main(["report", "study=traced"]) == 0 and (book / "experiments" / "traced" / "README.md").is_file()
    said = capfd.readouterr()
    assert KEY not in said.out + said.err
    files = [path for folder in ("mlruns", "data/llm", "experiments") for path in (book / folder).rglob("*") if path.is_file()]
    assert any(path.name == "report.html" for path in files)
    assert len(files) > 10 and not [path for path in files if KEY.encode() in path.read_bytes()]


def test_the_recall_probe_is_of_prices_and_a_coin_knows_half_of_them(book, some, server, capsys):
    assert evaluate(*of(server, "no_skill", some, "study=memory", "prompt=recall", "context=recall")) == 0
    assert "claims judged rightly (a coin: 50 %)" in capsys.readouterr().out
    row = newest("memory", kind="recall")
    assert 0.35 < row["recall"] < 0.65 and 0.35 < row["auroc"] < 0.65
    assert (row["artifacts"] / "quarters.parquet").is_file()
    assert cli.main(["report", "study=memory"]) == 2 and "recall probes and no evaluation" in capsys.readouterr().err
    assert evaluate(some, "study=memory") == 0 and cli.main(["report", "study=memory"]) == 0
    readme = (book / "experiments" / "memory" / "README.md").read_text(encoding="utf-8")
    assert f"| openai/no_skill recall | {100 * row['recall']:.1f} |" in readme and "recall.svg" in readme
    assert "prompt=recall context=recall" in readme.partition("## How to reproduce")[2]


def test_a_model_that_has_read_the_future_is_called_contaminated(some, server, capsys):
    asked = of(server, "memory", some, "study=reader", f"llm.knowledge_cutoff='{CUTOFF}'")
    assert evaluate(*asked) == 0
    assert newest("reader")["tags.verdict"].upper() == "CONTAMINATED"
    assert "contaminated: upper bound: it may have read about 150 of these" in capsys.readouterr().out
    assert evaluate(*asked, "context=date_only") == 0
    assert newest("reader")["auroc"] > 0.9
    assert evaluate(*asked, "context=blind") == 0
    assert newest("reader")["auroc"] < 0.65


def test_the_permuted_arm_sees_nothing_where_the_model_sees_much(some, server):
    asked = of(server, "honest", some, "study=shuffled", "llm.knowledge_cutoff='2010-01-01'")
    assert evaluate(*asked) == 0
    honest = newest("shuffled")
    assert evaluate(*asked[1:], "arm=permuted") == 0
    permuted = newest("shuffled")
    assert honest["auroc"] > 0.7 and abs(permuted["auroc"] - 0.5) < 0.15 and permuted["calls"] == 0


# ---- the whole flow --------------------------------------------------------------------------------------------------


def test_from_a_backtest_to_a_verdict_that_somebody_else_can_read(book, capsys):
    """A backtest and its export; three prompts in two contexts; the report and its verdicts."""
    export = book / "year.json"
    assert cli.main(["backtest", "period.start=2019-01-02", "period.end=2019-06-28", "universe=spy", "classifier=rule",
                     f"export_trades={export}"]) == 0
    trades = json.loads(export.read_text(encoding="utf-8"))
    truth = {text: trade["outcome"] == "profit" for name in ("full", "blind") for text, trade in
             zip(contexts(trades, evaluate_config(f"context={name}").context, trades), trades, strict=True)}
    with LlmServer(truth) as server:
        grid = ["evaluate", "-m", "experiment=prompt_grid", *QUICK,
                *of(server, "honest", "llm.knowledge_cutoff='2010-01-01'")[1:]]
        assert cli.main(grid) == 0
        calls = len(server.asked)
        assert cli.main(grid) == 0 and len(server.asked) == calls          # all six are found
    rows = tracking.runs("prompt_grid", kind="evaluation")
    assert {(row["tags.prompt"], row["tags.context"]) for row in rows} == {
        (prompt, context) for prompt in ("aggressive", "balanced", "conservative") for context in ("full", "blind")}
    for row in rows:
        assert row["judged"] == len(trades) and row["loop.rounds"] >= 1 and row["input_tokens"] > 0
        assert row["cost"] == 0.0 and row["tags.market"] == "synthetic" and row["tags.model"] == "openai/honest"
        assert (row["artifacts"] / "decisions.parquet").is_file()
    capsys.readouterr()
    assert cli.main(["report", "study=prompt_grid"]) == 0
    said = capsys.readouterr().out
    readme = (book / "experiments" / "prompt_grid" / "README.md").read_text(encoding="utf-8")
    assert "synthetic" in readme.lower() and str(book / "experiments" / "prompt_grid") in said
    for row in rows:
        assert row["tags.verdict"].upper() in readme.upper() and row["tags.prompt"] in readme and row["tags.prompt"] in said
