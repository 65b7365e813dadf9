"""A walk that starts in the middle, from the book of the day loop, goes on as the day loop does."""

from collections import Counter
from types import SimpleNamespace

import numpy as np
import pytest

from mahler.schema import Rejection
from mahler.simulate import Book, walk, weeks
from tests import oracle
from tests.markets import Market, Run, random_market, run_market
from tests.test_kernels_equal_the_day_loop import _date, _oracle

N_MARKETS = 60


def book_of(truth: oracle.Result, market: Market, run: Run, day: int) -> Book:
    """What the day loop holds and remembers before session `day`; the marks are the last usable mids of the paths."""
    date = _date(market.sessions[day])
    held = np.array([i for i, c in enumerate(truth.candidates) if c.contracts and c.date < date <= c.exit_date], np.int64)
    marks = []
    for i in held:
        path = run.paths.mid[run.paths.start[i]:run.paths.start[i] + day - run.candidates["day"][i]]
        marks.append(path[np.flatnonzero(~np.isnan(path))[-1]])
    past = [market.initial_equity, *(row.equity for row in truth.account[:day])]
    week = weeks(market.sessions)
    return Book(held, np.array([truth.candidates[i].contracts for i in held], np.int64), np.array(marks, float),
                truth.account[day - 1].cash, past[-1], past[int(np.searchsorted(week, week[day]))], max(past))


def go_on(market: Market, run: Run, book: Book, day: int) -> tuple[np.ndarray, ...]:
    panel = SimpleNamespace(tickers=market.tickers, dates=market.sessions,
                            vix=np.repeat(market.vix[:, None], len(market.tickers), axis=1))
    return walk(run.candidates, run.paths, run.exits, panel, market.limits, market.breaker, market.costs,
                initial_equity=market.initial_equity, first_day=day, book=book)


def test_a_walk_from_a_book_goes_on_as_the_day_loop_does() -> None:
    reached = Counter()
    for seed in range(N_MARKETS):
        market = random_market(seed)
        run, truth = run_market(market), _oracle(market)
        n_days = len(market.sessions)
        for day in {n_days // 4, n_days // 2, n_days // 2 + 3, 3 * n_days // 4}:
            book = book_of(truth, market, run, day)
            contracts, reasons, cash, marks, open_max_loss, positions, entries, exits = go_on(market, run, book, day)
            later = run.candidates["day"] >= day
            assert contracts[later].tolist() == [c.contracts for c in truth.candidates if c.date >= _date(market.sessions[day])]
            assert [Rejection(r).name for r in reasons[later]] == [
                c.reason.name for c in truth.candidates if c.date >= _date(market.sessions[day])], f"market {seed}"
            span = slice(day, -1)        # the day loop closes what is open before it records the last session
            for name, column in {"cash": cash, "marks": marks, "open_max_loss": open_max_loss, "positions": positions,
                                 "entries": entries, "exits": exits}.items():
                np.testing.assert_allclose(column[span], [getattr(row, name) for row in truth.account][span], rtol=1e-9,
                                           atol=1e-6, err_msg=f"market {seed}: {name} from day {day}")
            reached["held"] += len(book.held)
            reached["closed of the book"] += int((run.exits["day"][book.held] < n_days - 1).sum())
            reached.update(f"{Rejection(r).name}" for r in reasons[later])
            reached["below the peak"] += book.peak > book.yesterday
    assert min(reached[what] for what in ("held", "closed of the book", "below the peak")) > 30
    for reason in list(Rejection)[1:]:
        assert reached[reason.name] > 0, f"no candidate was rejected for {reason.name}"


def test_more_may_be_held_than_the_limits_would_open() -> None:
    for seed in range(N_MARKETS):
        market = random_market(seed)
        run, truth = run_market(market), _oracle(market)
        for day in range(5, len(market.sessions) - 1):
            book = book_of(truth, market, run, day)
            left = int((run.exits["day"][book.held] > day).sum())
            if left > 1 and (run.candidates["day"] == day).any():
                market.limits.max_positions = 1
                contracts, _, *_, positions, entries, _ = go_on(market, run, book, day)
                assert (positions[day], entries[day]) == (left, 0)
                assert not contracts[run.candidates["day"] == day].any()
                return
    raise AssertionError("no market holds several positions and has candidates")


@pytest.mark.parametrize("wrong", ["a candidate of the day itself", "one that is closed", "no contracts"])
def test_what_cannot_be_held_is_refused(wrong: str) -> None:
    market = random_market(3)
    run, truth = run_market(market), _oracle(market)
    day = next(d for d in range(5, len(market.sessions)) if len(book_of(truth, market, run, d).held))
    book = book_of(truth, market, run, day)
    at = {"a candidate of the day itself": int(run.candidates["day"][book.held[0]]),
          "one that is closed": int(run.exits["day"][book.held[0]]) + 1}.get(wrong, day)
    if wrong == "no contracts":
        book.contracts[0] = 0
    with pytest.raises(ValueError, match="cannot be held"):
        go_on(market, run, book, min(at, len(market.sessions) - 1) if wrong != "one that is closed" else at)
