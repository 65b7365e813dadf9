"""What a person sees in the terminal: progress bars on long work, tables that fit, lines that say what to do next."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager

Progress = Callable[[int, int, str], None]
"""Called with the units done, the units in all, and what is being done."""


@contextmanager
def progress(title: str) -> Iterator[Progress]:
    """A progress bar on stderr for as long as the block lasts; it appears with the first report, where somebody looks."""
    if not sys.stderr.isatty():
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress as Bar, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
               TextColumn("left"), TimeRemainingColumn())
    bar, task = Bar(*columns, console=Console(stderr=True), transient=True), None

    def report(done: int, total: int, label: str) -> None:
        nonlocal task
        if task is None:
            if done >= total:               # nothing to wait for
                return
            bar.start()
            task = bar.add_task(title, total=total)
        bar.update(task, completed=done, total=total, description=f"{title} {label}")

    try:
        yield report
    finally:
        if task is not None:
            bar.stop()


def table(rows: Sequence[Mapping[str, str]], title: str = "") -> None:
    """Print rows of strings under the keys of the first; all columns but the first are flush right."""
    from rich.console import Console
    from rich.table import Table

    shown = Table(title=title or None, title_justify="left", box=None, pad_edge=False, header_style="bold")
    for i, name in enumerate(rows[0]):
        widest = max(len(name), *(len(row[name]) for row in rows))
        shown.add_column(name, justify="left" if i == 0 else "right", overflow="fold", no_wrap=i > 0,
                         min_width=min(widest, 30) if i == 0 else None)
    for row in rows:
        shown.add_row(*row.values())
    console = Console(file=sys.stdout)
    if not sys.stdout.isatty():
        console.width = 120
    console.print(shown)


class ExitStatus(int):
    """What a verb returns to be its exit status; whatever else it returns is for a sweep."""


def say(line: str) -> None:
    """Print a line that is worth keeping: where the result lies, what to run next."""
    print(line, flush=True)
