"""The project's own conf/ behind the one of the package: where MAHLER_HOME moves the project, what it promoted is found.

Hydra accepts a search path plugin only from the package `hydra_plugins`.
"""

from __future__ import annotations

from hydra.core.config_search_path import ConfigSearchPath
from hydra.plugins.search_path_plugin import SearchPathPlugin

from mahler import home


class MahlerSearchPath(SearchPathPlugin):
    """Appends it last: an option of the package is never replaced."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        for folder in home.moved_conf():
            search_path.append("project", f"file://{folder}")
