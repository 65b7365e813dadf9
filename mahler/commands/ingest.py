"""Read a source into the store, with a quality report."""

from __future__ import annotations

from mahler import home
from mahler.config import Ingest
from mahler.terminal import progress, say


def run(config: Ingest) -> None:
    """Ingest, then say what is in the store and how good it is."""
    from mahler.data import quality

    with progress("ingest") as bar:
        done = config.data(home.store_dir(), bar)
    say(f"{len(done.partitions)} partitions written to {done.root}")
    quality.show(done)
    say(f"Next: mahler backtest data={done.source.split('-')[0]}")
