"""The train and test windows of a walk-forward, in sessions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from mahler.schema import ConfigError


@dataclass(frozen=True)
class Fold:
    """A train and a test window, sessions [first, last) each, of the staggered start that begins `shift` later."""

    shift: int
    train: tuple[int, int]
    test: tuple[int, int]


def folds(dates: np.ndarray, *, start: np.datetime64, train: int, test: int, step: int, anchored: bool,
          shifts: Sequence[int], embargo: int) -> list[Fold]:
    """The folds of a walk-forward, start by start, in the order of time.

    Parameters
    ----------
    dates : ndarray of datetime64[D] (n_days,)
        All sessions that there are; those before `start` are history, and are in no window.
    start : datetime64[D]
        First day of the first train window, from which months are counted; where the data begin in a later month,
        the first of that.
    train, test, step : int
        Months. The last test window ends with the data; one that the data leave less than half of is left out.
    anchored : bool
        Whether every train window begins at `start` instead of moving along.
    shifts : sequence of int
        Sessions by which all boundaries move, a staggered start each: [0, 5, 10] walks everything three times.
    embargo : int
        Sessions before each test window that are in no train window: trades must have ended before them.

    Raises
    ------
    ConfigError
        Where windows are empty, test windows would overlap, or the data end before the first test window.
    """
    for name, months in (("train", train), ("test", test), ("step", step)):
        if months < 1:
            raise ConfigError(f"{name} is a count of months in [1, inf), got {months}")
    if step < test:
        raise ConfigError(f"step is months, at least test ({test}), or months would be tested twice; got {step}")
    if embargo < 0 or min(shifts, default=-1) < 0:
        raise ConfigError(f"embargo and shifts are sessions in [0, inf), got {embargo} and {list(shifts)}")
    start = max(start, dates[0].astype("datetime64[M]").astype("datetime64[D]"))
    made = [fold for shift in shifts for fold in _folds(dates, start, train, test, step, anchored, shift, embargo)]
    if not made:
        raise ConfigError(f"walk-forward with train {train} and test {test} months needs more sessions than "
                          f"the {np.sum(dates >= start)} from {start} to {dates[-1]}")
    return made


def _folds(dates: np.ndarray, start: np.datetime64, train: int, test: int, step: int, anchored: bool, shift: int,
           embargo: int) -> Iterator[Fold]:
    def session(day: np.datetime64) -> int:
        return int(np.searchsorted(dates, day)) + shift

    done = 0
    while True:
        first, last = (_months_later(start, done + months) for months in (train, train + test))
        if dates[-1] < first + (last - first) // 2:
            return
        begin = session(start if anchored else _months_later(start, done))
        fold = Fold(shift, (begin, session(first) - embargo), (session(first), min(session(last), len(dates))))
        if fold.train[0] >= fold.train[1] or fold.test[0] >= fold.test[1]:
            raise ConfigError(f"a walk-forward window is empty: train {train} and test {test} months from {first}, "
                              f"shifted by {shift} sessions, embargo {embargo} sessions")
        yield fold
        done += step


def _months_later(day: np.datetime64, months: int) -> np.datetime64:
    """The same day of the month so many months later, or that month's last day."""
    month = day.astype("datetime64[M]")
    of_month = (day - month.astype("datetime64[D]")).astype(int)
    later = month + months
    last = ((later + 1).astype("datetime64[D]") - later.astype("datetime64[D]")).astype(int) - 1
    return later.astype("datetime64[D]") + min(of_month, last)
