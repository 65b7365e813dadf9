"""The page of a run: whole, escaped, labelled where the market is synthetic, and drawn for every account."""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from dataclasses import replace

import numpy as np
import pytest

from mahler import figures, metrics
from mahler.ledger import Ledger
from mahler.schema import FUNNEL
from tests.ledgers import hand_ledger, random_ledger, table

SVG = "{http://www.w3.org/2000/svg}"


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    return random_ledger(np.random.default_rng(21), n_days=2600, n_trades=400, n_rejections=300)


def page(ledger: Ledger, *, title: str = "prod, QQQ", subtitle: str = "", synthetic: bool = False) -> str:
    return figures.run_page(ledger, metrics.summary(ledger), title, subtitle, synthetic=synthetic)


def picture(html: str) -> ElementTree.Element:
    return ElementTree.fromstring(html[html.index("<svg"):html.index("</svg>") + 6])


def words(html: str) -> list[str]:
    return [element.text or "" for element in picture(html).iter(f"{SVG}text")]


def test_a_synthetic_market_is_named_in_the_title_and_a_real_one_is_not(ledger):
    made = page(ledger, synthetic=True)
    assert "SYNTHETIC MARKET: prod, QQQ" in words(made) and "<title>SYNTHETIC MARKET: prod, QQQ</title>" in made
    assert "SYNTHETIC" not in page(ledger)


def test_what_a_user_writes_is_escaped(ledger):
    html = page(ledger, title='<script>alert("x")</script> & $x$', subtitle="</svg><img src=x>")
    assert "<script" not in html and "<img" not in html and html.count("</svg>") == 1
    assert '<script>alert("x")</script> & $x$' in words(html) and "</svg><img src=x>" in words(html)


def test_the_page_needs_no_other_file(ledger):
    html = page(ledger).replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.search(r"https?:|src=|href=|url\(|@import", html)


def test_the_maximum_drawdown_is_written_with_its_depth_and_dates(ledger):
    worst = metrics.max_drawdown(ledger.account["equity"], ledger.initial_equity, ledger.account["date"])
    (note,) = [text for text in words(page(ledger)) if text.startswith("-") and "from" in text]
    for part in (figures.percent(worst.depth), str(worst.trough), str(worst.start), f"{worst.days:,} days"):
        assert part in note


def test_every_month_and_year_of_the_run_has_its_return(ledger):
    account, text = ledger.account, words(page(ledger))
    months, monthly = metrics.period_returns(account["equity"], ledger.initial_equity, account["date"], "M")
    years, _ = metrics.period_returns(account["equity"], ledger.initial_equity, account["date"], "Y")
    first = text.index("Year") + 1
    cells = text[first:first + len(months)]
    assert cells == [f"{100 * x:.1f}".replace("-0.0", "0.0") for x in monthly]
    assert set(years.astype(str)) <= set(text)


def test_bars_count_the_exits(ledger):
    text, summary = words(page(ledger)), metrics.summary(ledger)
    for name in (name for name in summary if name.startswith("exits.") and summary[name]):
        label = text[text.index(name.removeprefix("exits.").replace("_", " ")) + 1]
        assert label.startswith(f"{summary[name]:,.0f} · "), name


def test_what_was_rejected_has_its_count_mean_and_total_by_reason_under_what_was_traded(ledger):
    text, rejections = words(page(ledger)), ledger.rejections
    for reason in np.unique(rejections["reason"]):
        pnl = rejections["pnl_per_contract"][rejections["reason"] == reason]
        at = text.index(reason.replace("_", " ").replace(" vix", " VIX"))
        assert text[at + 1:at + 4] == [str(len(pnl)), figures.dollars(pnl.mean()), figures.dollars(pnl.sum())]
    pnl, at = ledger.trades["pnl_per_contract"], text.index("traded")
    assert text[at + 1:at + 4] == [str(len(pnl)), figures.dollars(pnl.mean()), figures.dollars(pnl.sum())]
    assert "many overlap: they could not all have been sold" in " ".join(text)


def test_the_funnel_has_each_stage_its_total_and_what_it_kept_of_the_one_above():
    days = ("2019-01-02", "2019-01-02", "2019-01-03", "2019-01-04")
    counts = {"in_dte_window": (2000, 1000, 500, 500), "in_delta_window": (80, 20, 0, 0),
              "with_long_leg": (120, 60, 0, 0), "liquid": (80, 10, 0, 0), "paid_enough": (40, 5, 0, 0),
              "past_iv_filter": (40, 5, 0, 0), "ranked": (2, 1, 3, 0), "admitted": (1, 1, 0, 0)}
    rows = [{"date": day, "ticker": ticker} | {name: n[i] for name, n in counts.items()}
            for i, (day, ticker) in enumerate(zip(days, ("QQQ", "SPY", "SPY", "SPY")))]
    text = words(page(replace(hand_ledger([100.0] * 3), funnel=table(FUNNEL, rows))))
    at = text.index("Funnel: from chain to trade") + 4               # behind the three headings
    assert text[at:at + 31] == [
        "in DTE window", "4,000", "1,333", "in delta window", "100", "33", "2.50 %",
        "with long leg", "180", "60", "180.0 %", "liquid", "90", "30", "50.0 %", "paid enough", "45", "15", "50.0 %",
        "past IV filter", "45", "15", "100.0 %", "ranked", "6", "2.0", "13.3 %", "admitted", "2", "0.67", "33.3 %"]
    assert "Of 3 sessions 1 had a trade, 1 had candidates that were all rejected, 1 had no candidate." in " ".join(text)


def test_a_bar_of_what_a_stage_kept_is_no_longer_than_its_track():
    rows = [{"date": "2019-01-02", "ticker": "SPY", "in_dte_window": 5, "in_delta_window": 10, "with_long_leg": 100}]
    html = page(replace(hand_ledger([100.0]), funnel=table(FUNNEL, rows)))
    tracks = [rect for rect in picture(html).iter(f"{SVG}rect") if rect.get("height") == str(figures.ROW - 6)]
    assert max(float(rect.get("width")) for rect in tracks) == float(tracks[0].get("width"))


def test_the_line_keeps_the_highest_and_the_lowest_equity():
    equity = np.full(4780, 100.0)
    equity[[1234, 3456]] = 90.0, 108.0       # one day each: between two pixels of the picture
    ledger = hand_ledger(equity.tolist(), start="2007-01-03")
    (line,) = [path.get("d") for path in picture(page(ledger)).iter(f"{SVG}path") if path.get("fill") == "none"]
    heights = [float(point.split(",")[1]) for point in line[1:].split("L")]
    start = heights[0]
    assert (max(heights) - start) / (start - min(heights)) == pytest.approx(10 / 8, abs=0.02)
    assert len(heights) < 2500


def test_an_account_that_trebles_is_drawn_on_a_logarithmic_scale():
    growing = hand_ledger([100.0 * 1.01 ** i for i in range(200)])
    assert "Equity, dollars, logarithmic" in words(page(growing))
    assert "Equity, dollars" in words(page(hand_ledger([100.0, 120.0])))


def test_an_undefined_metric_is_a_dash_and_a_zero_is_a_zero():
    html = page(random_ledger(np.random.default_rng(0), n_days=60, n_trades=0))
    assert "<tr><th>Win rate</th><td>–</td></tr>" in html and "<tr><th>Trades</th><td>0</td></tr>" in html
    assert words(html).count("none") == 2 and words(html).count("not kept") == 1 and "covers none of them" in html


@pytest.mark.parametrize("equity", [[100.0], [101.0, 99.0], [0.0], [50.0, -10.0, 5.0], [100.0] * 40,
                                    [100.0 * 1.1 ** i for i in range(150)]])
def test_every_account_has_a_page(equity):
    html = page(hand_ledger(equity))
    assert "nan" not in html and "inf" not in html
    picture(html)


@pytest.mark.parametrize("n_days", [1, 5, 30, 250, 800, 2600, 4780])
def test_an_axis_has_a_handful_of_dates(n_days):
    text = words(page(hand_ledger([100.0] * n_days, start="2007-01-03")))
    below_equity = text[:text.index("Drawdown from the running peak, %")]
    dates = [label for label in below_equity if re.fullmatch(r"(19|20)\d\d(-\d\d)?", label)]
    assert len(dates) <= 13 and (dates or n_days < 30)


def test_the_same_ledger_gives_the_same_page(ledger):
    assert page(ledger) == page(ledger)


def test_numbers_are_written_as_a_desk_writes_them():
    assert [figures.percent(x) for x in (0.0435, 0.699, -0.5, 0.0)] == ["4.35 %", "69.9 %", "-50.0 %", "0.00 %"]
    assert [figures.dollars(x) for x in (1234.5, -12.345, -1234.5, 0.0)] == ["$1,234", "-$12.35", "-$1,234", "$0.00"]


def test_a_warning_stands_above_every_number_of_the_page_and_is_escaped(ledger):
    page = figures.run_page(ledger, metrics.summary(ledger), "t", "s", synthetic=False, warnings=["rounding <erases>"])
    assert page.index("rounding &lt;erases&gt;") < page.index("<svg") and "<erases>" not in page
    assert "warning\"" not in figures.run_page(ledger, metrics.summary(ledger), "t", "s", synthetic=False)
