"""Where things live on disk: the project, its data and its runs, and the config tree of the package.

In a checkout installed with `pip install -e .` everything is inside the checkout. From a wheel,
conf/ lies in the package and the project is ~/mahler. `MAHLER_HOME` moves the project, never conf/.
"""

from __future__ import annotations

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _checkout() -> Path | None:
    """The source tree that this package is imported from; None where it was installed from a wheel."""
    root = _PACKAGE.parent
    return root if (root / "pyproject.toml").is_file() and (root / "conf").is_dir() else None


def project() -> Path:
    """The directory of data/ and mlruns/: $MAHLER_HOME, else the checkout, else ~/mahler. Absolute."""
    configured = os.environ.get("MAHLER_HOME")
    if configured:
        return user_path(configured)
    return _checkout() or Path.home() / "mahler"


def data_dir() -> Path:
    return project() / "data"


def store_dir() -> Path:
    """The chain store; below it a directory per source, which never mix."""
    return data_dir() / "chains"


def cache_dir() -> Path:
    """Candidates, paths and slow labels by fingerprint: may be deleted at any time."""
    return data_dir() / "cache"


def daily_dir() -> Path:
    return data_dir() / "daily"


def paper_dir() -> Path:
    """The paper ledger: a SQLite database."""
    return data_dir() / "paper"


def replies_path() -> Path:
    """Every reply of every model that was asked: what was paid for once."""
    return data_dir() / "llm" / "replies.sqlite"


def mlruns_dir() -> Path:
    return project() / "mlruns"


def conf_dir() -> Path:
    """The config tree: conf/ of the checkout, or mahler/conf of an installed wheel."""
    checkout = _checkout()
    return checkout / "conf" if checkout else _PACKAGE / "conf"


def project_conf() -> Path:
    """conf/ of the project: what is promoted here. In a checkout that nothing moves it is the config tree itself."""
    return project() / "conf"


def moved_conf() -> list[Path]:
    """The project's conf/ where it is another than the config tree and there, to be searched after it; else nothing."""
    own = project_conf()
    return [own] if own.is_dir() and own.resolve() != conf_dir().resolve() else []


def user_path(path: str | os.PathLike[str]) -> Path:
    """`path` as the user means it: relative to where they stand, with ~ expanded. Absolute, not resolved."""
    return Path(os.path.abspath(os.path.expanduser(path)))
