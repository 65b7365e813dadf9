"""The paper ledger on disk: a SQLite database in WAL mode, a table for each dtype of mahler.schema below.

    account     one row: initial equity, the store that is scanned            (started)
    tickets     what a scan says to trade: opens and closes                   (ticket_id)
    orders      the orders of a broker, of both legs together                 (order_id)
    fills       what changed a leg, partial fills one by one                  (fill_id)
    quotes      bid and ask of a leg at the scan and at a fill                (ticket_id, symbol, at)
    marks       mid cost to close of an open position on a session            (position, date)
    cash        dollars without a fill: fees, interest, transfers             (cash_id)
    scans       the days that were scanned and recorded                       (date)
    scanned     the candidates of a scan and what became of them              (date, legs)
    funnels     what the screen left of a day, per ticker                     (date, ticker)
    decisions   what an LLM layer said of the candidates it was asked about   (date, legs)
    stages      moves between stages: when, to which, who, why                (moved_at)
    exits       a view: what the fills of each closed position come to

In brackets the natural key, by which a row is written once: the same row again changes nothing. A row of orders or
marks with other content replaces the one that is there, because an order and a mark move on; elsewhere it is refused,
because what was said and what was filled does not change. Dates and times are ISO text, missing numbers and dates
NULL. Nothing is pickled.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path
from typing import Any

import numpy as np

from mahler import schema
from mahler.schema import ConfigError, Table, check_columns, one_line

VERSION = 2
"""Of the layout; it is the user_version of the database."""

FILE = "ledger.sqlite"

CANDIDATE = ("date", "ticker", "side", "expiration", "short_strike", "long_strike")
"""What names a candidate of a scan."""

TABLES: dict[str, tuple[np.dtype, tuple[str, ...]]] = {
    "account": (schema.PAPER_ACCOUNT, ("started",)),
    "tickets": (schema.TICKET, ("ticket_id",)),
    "orders": (schema.ORDER, ("order_id",)),
    "fills": (schema.FILL, ("fill_id",)),
    "quotes": (schema.QUOTE, ("ticket_id", "symbol", "at")),
    "marks": (schema.MARK, ("position", "date")),
    "cash": (schema.CASH, ("cash_id",)),
    "scans": (schema.SCAN, ("date",)),
    "scanned": (schema.SCANNED, CANDIDATE),
    "funnels": (schema.FUNNEL, ("date", "ticker")),
    "decisions": (schema.DECIDED, CANDIDATE),
    "stages": (schema.STAGE_MOVE, ("moved_at",)),
}
"""Each table, its columns and its natural key."""

MOVES_ON = ("orders", "marks")

# A position is closed when no leg of it is left, nor a share. Options count 100 shares a contract.
_EXITS = """
CREATE VIEW exits AS
WITH dollars AS (
    SELECT *, quantity * price * CASE leg WHEN 'shares' THEN 1 ELSE 100 END AS paid FROM fills
), sums AS (
    SELECT position, MIN(CASE reason WHEN '' THEN date END) AS entry_date, MAX(date) AS date,
           -SUM(CASE WHEN reason = '' AND leg = 'short' THEN quantity ELSE 0 END) AS contracts,
           -SUM(CASE WHEN reason = '' THEN paid ELSE 0 END) AS received,
           SUM(CASE WHEN reason <> '' THEN paid ELSE 0 END) AS paid, SUM(fees) AS fees
    FROM dollars GROUP BY position
    HAVING SUM(quantity * (leg = 'short')) = 0 AND SUM(quantity * (leg = 'long')) = 0
       AND SUM(quantity * (leg = 'shares')) = 0
)
SELECT position, entry_date, date,
       (SELECT reason FROM fills WHERE fills.position = sums.position AND reason <> ''
        ORDER BY at DESC, leg DESC, fill_id DESC LIMIT 1) AS reason,
       contracts, received / (100.0 * contracts) AS credit, paid / (100.0 * contracts) AS cost, fees,
       received - paid - fees AS pnl
FROM sums
"""

_VIEWS = {"exits": schema.PAPER_EXIT}


def exists(folder: Path) -> bool:
    """Whether there is a paper ledger in `folder`."""
    return (folder / FILE).is_file()


def read(folder: Path, table: str) -> Table:
    """All rows of a table or of the view `exits`, in the order of its key; none where there is no ledger yet.

    Raises ConfigError, naming the file, where it is no paper ledger of this version.
    """
    return read_all(folder, table)[table]


def read_all(folder: Path, *tables: str) -> dict[str, Table]:
    """Several tables as they are at one moment, whatever is written meanwhile."""
    of = {name: _VIEWS[name] if name in _VIEWS else TABLES[name][0] for name in tables}
    if not exists(folder):
        return {name: schema.empty(dtype) for name, dtype in of.items()}
    with _connected(folder) as connection:
        connection.execute("BEGIN")
        return {name: _select(connection, name, dtype) for name, dtype in of.items()}


def write(folder: Path, rows: Mapping[str, Table]) -> dict[str, int]:
    """Write tables in one transaction, all or nothing, and return how many rows of each are new or have moved on.

    The ledger is made where there is none. A row that is there already is not written again.

    Raises
    ------
    ConfigError
        Where a row of other content has the same key, but for the tables of MOVES_ON.
    ValueError
        Where a column is missing.
    """
    for name, table in rows.items():
        check_columns(table, TABLES[name][0], f"the paper ledger's {name}")
    with _connected(folder) as connection:
        connection.execute("BEGIN IMMEDIATE")
        written = {name: _insert(connection, name, table) for name, table in rows.items()}
        connection.execute("COMMIT")
    return written


def _select(connection: sqlite3.Connection, name: str, dtype: np.dtype) -> Table:
    key = ("date", "position") if name in _VIEWS else TABLES[name][1]
    found = connection.execute(f"SELECT {', '.join(dtype.names)} FROM {name} ORDER BY {', '.join(key)}").fetchall()
    columns = zip(*found, strict=True) if found else [()] * len(dtype.names)
    return {column: _from_sql(values, dtype[column]) for column, values in zip(dtype.names, columns, strict=True)}


def _insert(connection: sqlite3.Connection, name: str, table: Table) -> int:
    dtype, key = TABLES[name]
    names = dtype.names
    insert = (f"INSERT OR {'REPLACE' if name in MOVES_ON else 'ABORT'} INTO {name} ({', '.join(names)}) "
              f"VALUES ({', '.join('?' * len(names))})")
    same_key = f"SELECT {', '.join(names)} FROM {name} WHERE {' AND '.join(f'{column} = ?' for column in key)}"
    n = 0
    for row in zip(*(_to_sql(table[column], dtype[column]) for column in names), strict=True):
        of_row = dict(zip(names, row, strict=True))
        there = connection.execute(same_key, [of_row[column] for column in key]).fetchone()
        if there == row:
            continue
        if there is not None and name not in MOVES_ON:
            raise ConfigError(_conflict(name, key, of_row, dict(zip(names, there, strict=True))))
        connection.execute(insert, row)
        n += 1
    return n


def _conflict(name: str, key: tuple[str, ...], new: dict[str, Any], there: dict[str, Any]) -> str:
    column = next(column for column in new if new[column] != there[column])
    return (f"the paper ledger's {name} have {', '.join(str(new[part]) for part in key)} with {column} "
            f"{there[column]}, not {new[column]}: what is recorded is not changed")


def _to_sql(column: np.ndarray, dtype: np.dtype) -> list[Any]:
    """Python values that SQLite keeps and gives back as they are."""
    values = np.asarray(column).astype(dtype)
    if dtype.kind == "M":
        return [None if text == "NaT" else text for text in np.datetime_as_string(values).tolist()]
    if dtype.kind == "f":
        return [None if value != value else value for value in values.tolist()]
    if dtype.kind == "b":
        return values.astype(int).tolist()
    return [str(value) for value in values.tolist()] if dtype.kind == "O" else values.tolist()


def _from_sql(values: tuple[Any, ...], dtype: np.dtype) -> np.ndarray:
    if dtype.kind == "M":
        return np.array(["NaT" if value is None else value for value in values], dtype)
    if dtype.kind == "f":
        return np.array([np.nan if value is None else value for value in values], dtype)
    return np.array(values, dtype)


# ---- the database ----------------------------------------------------------------------------------------------------

@contextmanager
def _connected(folder: Path) -> Iterator[sqlite3.Connection]:
    """A connection to the ledger of `folder`, made where it is missing; what is not committed is not written."""
    path = folder / FILE
    if not path.is_file():
        _create(path)
    try:
        with closing(sqlite3.connect(path, timeout=60.0, isolation_level=None)) as connection:
            # In WAL mode a power cut may take the last writes, never half of one; they can be imported again.
            connection.execute("PRAGMA synchronous = NORMAL")
            [version] = connection.execute("PRAGMA user_version").fetchone()
            if version != VERSION:
                raise ConfigError(f"{path} is no paper ledger of version {VERSION} (its version is {version})")
            yield connection
    except sqlite3.DatabaseError as error:
        raise ConfigError(f"{path} cannot be used: {one_line(error)}") from error


def _create(path: Path) -> None:
    """Make the database, once, however many processes want it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path.with_suffix(".lock"), "w") as file:
        flock(file, LOCK_EX)
        if path.is_file():
            return
        scratch = path.with_suffix(".new")
        scratch.unlink(missing_ok=True)          # of a process that was killed while it made one
        with closing(sqlite3.connect(scratch, isolation_level=None)) as connection:
            for name, (dtype, key) in TABLES.items():
                columns = ", ".join(f"{column} {_type(dtype[column], column in key)}" for column in dtype.names)
                connection.execute(f"CREATE TABLE {name} ({columns}, PRIMARY KEY ({', '.join(key)})) STRICT")
            connection.execute(_EXITS)
            connection.execute(f"PRAGMA user_version = {VERSION}")
            connection.execute("PRAGMA journal_mode = WAL")        # kept in the file: writers do not block readers
        scratch.rename(path)


def _type(dtype: np.dtype, in_key: bool) -> str:
    """The SQLite type of a column; what may be missing, numbers and dates that are no key, may be NULL."""
    kind = {"f": "REAL", "M": "TEXT", "O": "TEXT"}.get(dtype.kind, "INTEGER")
    return kind if dtype.kind in "fM" and not in_key else f"{kind} NOT NULL"
