"""What is publicly known of 2007-2025: rounded closes at turning points, the level of interest rates, yields."""

from __future__ import annotations

import numpy as np

TICKERS = ("IWM", "QQQ", "SPY")
"""In alphabetical order, which is the order of every axis of tickers."""

# date, IWM, QQQ, SPY in dollars, VIX in points
_ROWS = """
2007-01-03  78  43 141 12
2007-10-09  84  53 156 16
2008-03-10  64  42 127 29
2008-05-19  74  50 143 17
2008-09-12  72  44 125 26
2008-10-27  45  29  84 80
2009-01-06  51  31  93 39
2009-03-09  34  26  68 50
2009-12-31  62  46 111 22
2010-04-23  74  51 122 17
2010-07-02  60  43 102 30
2011-04-29  86  59 136 15
2011-08-08  65  51 112 48
2011-10-03  61  51 110 45
2012-12-31  84  65 142 18
2013-12-31 115  88 185 14
2014-12-31 120 103 206 19
2015-07-20 125 114 213 12
2015-08-25 110  99 187 36
2016-02-11  95  97 183 28
2016-12-30 135 118 224 14
2017-12-29 152 156 267 11
2018-01-26 160 170 287 11
2018-02-08 146 154 258 33
2018-09-20 170 185 293 12
2018-12-24 126 144 234 36
2019-12-31 166 213 322 14
2020-02-19 168 237 338 14
2020-03-16 103 170 240 83
2020-03-23 100 170 223 62
2020-06-08 152 241 323 26
2020-12-31 196 314 374 23
2021-12-31 222 398 475 17
2022-06-16 164 272 366 33
2022-10-12 168 263 357 34
2022-12-30 174 266 382 22
2023-07-31 199 384 458 14
2023-10-27 162 345 411 21
2023-12-29 201 410 475 12
2024-08-05 202 435 517 39
2024-12-31 221 511 586 17
2025-02-19 226 540 613 15
2025-04-08 175 417 497 52
2025-12-31 247 614 682 15
"""
_FIELDS = [row.split() for row in _ROWS.strip().splitlines()]

DATES = np.array([row[0] for row in _FIELDS], dtype="datetime64[D]")                     # (44,)
CLOSES = np.array([[float(x) for x in row[1:4]] for row in _FIELDS])                     # (44, 3) dollars
VIX = np.array([float(row[4]) for row in _FIELDS])                                       # (44,) points

# Three-month Treasury bill, decimals a year; the straight lines between these follow the Federal Reserve's cycles.
_RATE = """
2007-01-03 0.049  2007-08-01 0.048  2008-01-15 0.031  2008-04-01 0.014  2008-09-01 0.017  2008-12-15 0.001
2015-11-01 0.001  2016-12-15 0.005  2017-12-15 0.013  2018-12-15 0.024  2019-07-15 0.021  2019-11-15 0.015
2020-02-28 0.013  2020-03-20 0.001  2022-02-15 0.003  2022-06-15 0.016  2022-12-15 0.043  2023-07-15 0.053
2024-08-15 0.051  2024-12-31 0.043  2025-08-31 0.041  2025-12-31 0.036
""".split()
RATE_DATES, RATES = np.array(_RATE[::2], dtype="datetime64[D]"), np.array([float(x) for x in _RATE[1::2]])

# VXN / VIX, the implied volatility of QQQ over that of SPY, at the middle of a year.
VXN_DATES = np.array(["2009-07-01", "2012-07-01", "2016-07-01", "2017-07-01", "2020-07-01", "2023-07-01", "2025-07-01"],
                     dtype="datetime64[D]")
VXN_RATIOS = np.array([1.03, 1.06, 1.16, 1.30, 1.20, 1.28, 1.16])

DIVIDEND_YIELDS = np.array([0.013, 0.008, 0.018])   # IWM, QQQ, SPY: mean of 2007-2025, decimals a year


def between(dates: np.ndarray, at: np.ndarray, values: np.ndarray) -> np.ndarray:
    """`values` known on the days `at`, on straight lines between them and flat outside, at `dates` (n,)."""
    return np.interp(dates.astype(np.int64), at.astype(np.int64), values)
