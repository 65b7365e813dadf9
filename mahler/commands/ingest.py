"""Read a source into the store, with a quality report."""

from __future__ import annotations

from mahler import home
from mahler.commands import data_report
from mahler.config import Ingest
from mahler.data import quality, store
from mahler.terminal import progress, say


def run(config: Ingest) -> None:
    """Ingest, then say what is in the store and how good it is."""
    with progress("ingest") as bar:
        done = config.data(home.store_dir(), bar)
    for line in done.notes:
        say(line)
    if done.planned:
        return
    say(f"{len(done.partitions)} partitions written to {done.root}")
    for line in quality.summary(done):
        say(line)
    source = done.source.split("-")[0]
    there = [ticker for ticker in done.counts if store.partitions(done.root, ticker)]
    if there:
        data_report.show(done.root, there, config.quality)
    say(f"A picture of its days: mahler data-report data={source}. Next: mahler backtest data={source}")
