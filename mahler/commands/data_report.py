"""Say which days of a store are missing or in doubt, and which years are fit for use; draw it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mahler import data_page, home
from mahler.backtesting import source_module, store_root
from mahler.config import DataReport
from mahler.data import quality, store
from mahler.data.quality import Quality, Thresholds
from mahler.schema import ConfigError
from mahler.terminal import progress, say, table


def run(config: DataReport) -> None:
    """Judge the tickers of `data.tickers` that are in the store, and write the page."""
    root, wanted = store_root(config.data), config.data.keywords["tickers"]
    there = [ticker for ticker in wanted if ticker in store.tickers_in(root)]
    if not there:
        held = ", ".join(store.tickers_in(root)) or "nothing"
        raise ConfigError(f"data.tickers: {', '.join(wanted)} are not in the store {root} (there: {held}); "
                          f"mahler ingest data={root.name.partition('-')[0]}")
    absent = [ticker for ticker in wanted if ticker not in there]
    if absent:
        say(f"Not in the store: {', '.join(absent)}")
    judged = show(root, there, config.quality)
    out = config.out or home.data_dir() / "reports" / f"{root.name}.html"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(data_page.page(judged, f"{judged.source} chains", synthetic=source_module(config.data).SYNTHETIC),
                   encoding="utf-8")
    say(str(out))


def show(root: Path, tickers: Sequence[str], thresholds: Thresholds) -> Quality:
    """Print a row for each year of `tickers` in the store `root`, and what it comes to."""
    with progress("quality of") as bar:
        judged = quality.report(quality.partitions(root, tickers), thresholds, home.cache_dir(), bar)
    table(data_page.cells(judged), title=f"Quality of {judged.source} chains")
    say(quality.headline(judged))
    return judged
