"""Show the paper account, list its ledger, import what was filled, or fill what no broker fills."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from mahler import home
from mahler.config import Paper
from mahler.figures import percent
from mahler.paper import account as accounts, joining, modelled, records
from mahler.paper.filled import filled
from mahler.schema import MULTIPLIER, ConfigError, Table, one_line
from mahler.terminal import say, table


def run(config: Paper) -> None:
    """Do the action; every one of them needs the account that `mahler scan scan.record=true` opens."""
    folder = home.paper_dir()
    account = accounts.load(folder)
    kind = "SYNTHETIC market" if account.synthetic else "chains"
    say(f"Paper account on {kind} {account.source}: {folder / records.FILE}")
    actions: dict[str, Callable[[Paper, Path], None]] = {
        "show": show, "list": list_rows, "import": import_fills, "fill": fill_as_modelled}
    actions[config.action](config, folder)


def show(config: Paper, folder: Path) -> None:
    """Equity, heat, what is open, what was closed, and how it was filled."""
    account, tables = accounts.load(folder), records.read_all(folder, "exits", "tickets", "fills", "quotes")
    last = str(account.history["date"][-1]) if len(account.history["date"]) else "nothing yet"
    say(f"Equity {account.equity:,.2f} dollars ({account.equity - account.initial_equity:+,.2f} since the start), cash "
        f"{account.cash:,.2f}, heat {percent(account.open_max_loss / account.equity)}; last record: {last}.")
    held = account.positions
    if len(held["position"]):
        gain = held["contracts"] * MULTIPLIER * (held["credit"] - held["mark"])
        table([{"open": _spread(held, k), "expires": str(held["expiration"][k]), "since": str(held["date"][k]),
                "contracts": str(held["contracts"][k]), "credit": f"{held['credit'][k]:.3f}",
                "mark": f"{held['mark'][k]:.3f}", "of": str(held["mark_date"][k]), "$ at the mid": f"{gain[k]:+,.2f}"}
               for k in range(len(held["position"]))])
    exits = tables["exits"]
    if len(exits["position"]):
        won = exits["pnl"] > 0
        say(f"{len(won)} closed, {won.sum()} of them with a profit, {exits['pnl'].sum():+,.2f} dollars in all.")
    traded = filled(tables["tickets"], tables["fills"], tables["quotes"])
    known = ~np.isnan(traded["travel"])
    if known.any():
        say(f"Fills: {traded['travel'][known].mean():.2f} of the bid-ask travelled, modelled "
            f"{np.nanmean(traded['modelled_travel'][known]):.2f}; 0.5 is the mid, 1 crosses ({known.sum()} tickets).")


def list_rows(config: Paper, folder: Path) -> None:
    """The last rows of a table of the ledger, a block of lines a row."""
    known = [*records.TABLES, "exits"]
    if config.table not in known:
        close = get_close_matches(config.table, known, n=1)
        raise ConfigError(f"table={config.table}: the paper ledger has {', '.join(known)}"
                          + (f"; did you mean {close[0]}?" if close else ""))
    rows = records.read(folder, config.table)
    n = len(next(iter(rows.values())))
    say(f"{config.table}: {n} rows" + (f", the last {config.limit}" if n > config.limit else ""))
    for k in range(max(0, n - config.limit), n):
        say("  " + "  ".join(f"{name}={_cell(column[k])}" for name, column in rows.items() if _cell(column[k])))


def import_fills(config: Paper, folder: Path) -> None:
    """Bring in what a broker did, and say what was new."""
    tables = records.read_all(folder, "account", *joining.NEEDED)
    imported = config.source(tables["account"]["started"][0])
    joined = joining.join(imported, tables)
    new = records.write(folder, joined.rows)
    say(f"{imported.source}: {new['fills']} new fills and {joined.known} known ones, {new['orders']} orders new or moved "
        f"on, {new['quotes']} quotes, {new['cash']} movements of cash.")
    for what, n in sorted(imported.left_out.items()):
        say(f"  left out: {n} {what}")
    for line in joined.differing:
        say(f"  NOT WHOLE: {line}")
    show(config, folder)


def fill_as_modelled(config: Paper, folder: Path) -> None:
    """Fill the tickets of which nothing is filled at the price that they model, on their own session."""
    tables = records.read_all(folder, "account", "tickets", "quotes", "fills", "orders")
    tickets, account = tables["tickets"], tables["account"]
    touched = {*tables["fills"]["ticket_id"].tolist(), *tables["orders"]["ticket_id"].tolist()}
    today = tickets["date"] == tickets["date"].max() if len(tickets["date"]) else np.zeros(0, bool)
    wanting = today & ~np.isin(tickets["ticket_id"].astype(str), list(touched))
    rows = modelled.fills({name: column[wanting] for name, column in tickets.items()}, tables["quotes"], None,
                          commission=account["commission"][0], assignment_fee=account["assignment_fee"][0])
    records.write(folder, {"fills": rows})
    say(f"{wanting.sum()} tickets of the last scan filled as modelled: by no broker, at no market.")
    show(config, folder)


def _spread(rows: Table, k: int) -> str:
    return f"{rows['ticker'][k]} {rows['side'][k][0].upper()} {rows['short_strike'][k]:g}/{rows['long_strike'][k]:g}"


def _cell(value: object) -> str:
    """A value in short; "" of what is missing."""
    if isinstance(value, (float, np.floating)):
        return "" if np.isnan(value) else f"{value:g}"
    return "" if isinstance(value, np.datetime64) and np.isnat(value) else one_line(str(value))
