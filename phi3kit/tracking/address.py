"""Addresses of tracking stores: the SQLite file that one names, and the refusal of one that MLflow cannot use.

A file's path is escaped in an address (`%25` for `%`, `%3F` for `?`), since SQLAlchemy unescapes it.
"""

from __future__ import annotations

import os
import re
from pathlib import Path, PurePath
from typing import TYPE_CHECKING

from phi3kit.errors import Phi3KitError

if TYPE_CHECKING:
    from sqlalchemy import URL

VARIABLE = "MLFLOW_TRACKING_URI"
_DATABASES = ("sqlite", "postgresql", "mysql", "mssql")
_SERVERS = ("http", "https")


class UnusableStore(Phi3KitError):
    """MLflow cannot use an address, or must not open its file; the message says what to do instead."""


def sqlite_address(file: PurePath, driver: str = "sqlite") -> str:
    """The address of an SQLite file.

    Args:
        file: its path.
        driver: `sqlite` or `sqlite+pysqlite`, which mean the same to SQLAlchemy.
    """
    path = file.as_posix().replace("%", "%25").replace("?", "%3F")
    # Where an address begins with `sqlite:///`, MLflow makes a folder by the escaped name, beside the true one.
    return f"{'sqlite+pysqlite' if '%' in path else driver}:///{path}"


def sqlite_file(address: str) -> Path | None:
    """The file of an SQLite address; None for any other store, and for an address that `check` refuses."""
    try:
        url = check(address)
    except UnusableStore:
        return None
    return Path(url.database) if url and url.get_backend_name() == "sqlite" else None


def absolute(address: str, folder: Path) -> str:
    """An address whose SQLite file is found from every working directory; any other address is returned as it is.

    Args:
        address: in any form that MLflow takes.
        folder: where a relative path in it begins.
    """
    if (file := sqlite_file(address)) is None:
        return address
    before, question_mark, options = address.partition("?")
    return sqlite_address((folder / file).absolute(), before.partition(":")[0]) + question_mark + options


def check(address: str) -> URL | None:
    """Refuse an address that MLflow cannot use. It is not examined whether its file or server is there.

    Returns:
        the parts of a database's address; None for a server and for the store of a plugin.

    Raises:
        UnusableStore: with an address to write instead.
    """
    scheme = address.partition(":")[0].partition("+")[0].lower()
    if re.search("[\ud800-\udfff]", address):  # so Python reads a path with other bytes
        raise _refusal(address, "it is no text in UTF-8")
    if scheme in _DATABASES:
        return _database(address)
    if scheme in _SERVERS:
        _check_server(address)
    elif scheme == "databricks" or scheme in _plugins():
        pass
    elif scheme != "file" and len(scheme) > 1 and "/" not in scheme and ":" in address:
        raise _refusal(address, f"MLflow knows {', '.join(_DATABASES + _SERVERS)} and databricks, not {scheme}")
    elif os.environ.get("MLFLOW_ALLOW_FILE_STORE", "").lower() not in ("1", "true"):
        raise _refusal(address, "MLflow no longer keeps a store in a folder")
    return None


def _plugins() -> set[str]:
    """The further schemes that installed packages teach MLflow."""
    from importlib import metadata

    entries = (entry for package in metadata.distributions() for entry in package.entry_points)
    return {entry.name for entry in entries if entry.group == "mlflow.tracking_store"}


def _database(address: str) -> URL:
    from sqlalchemy import exc, make_url

    scheme, _, rest = address.partition(":")
    if scheme.startswith("sqlite") and not rest.startswith("///") and rest != "//":
        raise _refusal(address, "three slashes come before a path", f"sqlite:///{rest.removeprefix('//')}")
    try:
        url = make_url(address)
        dialect = url.get_dialect()
        if dialect.is_async:
            raise ValueError(f"MLflow needs another driver than {dialect.driver}, which is asynchronous")
        dialect.import_dbapi()
    except ImportError as error:
        raise _refusal(address, f"the driver {error.name} is not installed") from None
    except (exc.ArgumentError, ValueError) as error:
        raise _refusal(address, str(error)) from None
    if dialect.name == "sqlite":
        _check_sqlite(address, url)
    return url


def _check_sqlite(address: str, url: URL) -> None:
    path, _, options = address.partition(":///")[2].partition("?")
    if path in ("", ":memory:"):
        raise _refusal(address, "a store in memory ends with its process")
    if re.match(r"[A-Za-z]:[\\/]|\\\\", path) and os.name != "nt":
        raise _refusal(address, "its path is one of Windows")
    if path.startswith("file:"):
        raise _refusal(address, "MLflow takes no URI of SQLite's own")
    if path != url.database and _is_there(path) > _is_there(url.database):
        raise _refusal(address, f"in an address, {escape(path)} stands for another character")
    if not re.fullmatch(r"(timeout=\d+(\.\d+)?)?", options):
        raise _refusal(address, "after a ? comes timeout=SECONDS; in a path, ? is written %3F")


def _is_there(path: str) -> tuple[bool, bool]:
    return Path(path).exists(), Path(path).parent.is_dir()


def escape(path: str) -> str | None:
    """The first part of a path that reads as an escape, for example `%2F`; None if there is none."""
    match = re.search(r"%[\da-fA-F]{2}", path)
    return match and match[0]


def _check_server(address: str) -> None:
    import httpx

    try:
        reason = "" if httpx.URL(address).host else "it names no host"
    except httpx.InvalidURL as error:
        reason = str(error)
    if reason:
        raise _refusal(address, reason, "http://127.0.0.1:5000")


def without_password(text: str) -> str:
    """A text without what stands before the host in an address: a user's name and password."""
    return re.sub(r"(?<=://)[^/\s]\S*@", "", text)


def _refusal(address: str, reason: str, example: str = "sqlite:///mlflow.db") -> UnusableStore:
    remedy = f"set it to another address, for example {example}, or unset it for the workbook's own store"
    return UnusableStore(f"{VARIABLE}={without_password(address)!r} cannot be used ({reason}): {remedy}.")
