"""Where a binding has its data, as the `store` of its table says it: in a file of SQLite, or in a Redis."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from proxy_server.tables import Table

__all__ = ["check_redis", "scheme_of", "sqlite_path"]


def scheme_of(table: Table, url: str) -> str:
    """How a store is reached: "sqlite", or "redis" for rediss: as well.

    Raises:
        ConfigError: if it is another way.
    """
    scheme = url.partition(":")[0].lower()
    if scheme not in {"sqlite", "redis", "rediss"}:
        raise table.error(f'stores with {scheme}: are not known here: "sqlite:///FILE" and "redis://HOST" are', "store")
    return "sqlite" if scheme == "sqlite" else "redis"


def sqlite_path(table: Table, url: str, state_dir: Path) -> Path:
    """The file that a URL names: "sqlite:///cache.db" in the state directory, "sqlite:////srv/cache.db" anywhere.

    Raises:
        ConfigError: if it names none.
    """
    parts = urlsplit(url)
    path = unquote(parts.path.removeprefix("/"))
    if parts.netloc or not path or parts.query or parts.fragment:
        raise table.error('a store of SQLite is written "sqlite:///FILE"', "store")
    return state_dir / path


def check_redis(table: Table, url: str) -> None:
    """Check that a store can be in a Redis. What uses one is imported behind this: it needs a package of an extra.

    Raises:
        ConfigError: if the URL is none of a Redis, or the package is not installed.
    """
    try:
        from proxy_server.stores.redis import check_url
    except ModuleNotFoundError as error:
        raise table.package_missing("a store of Redis", error, "redis", "store") from error
    try:
        check_url(url)
    except ValueError as error:
        raise table.error(str(error), "store") from error
