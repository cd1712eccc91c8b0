"""A headless Chromium that reaches nothing but this machine."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# Playwright forbids it most of what it asks by itself. For the rest, no name has an address.
FLAGS = ("--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1", "--disable-quic")


def executable() -> str | None:
    """The program of a Chromium that is installed here."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@contextmanager
def started(home: Path) -> Iterator[Any]:
    """Playwright's browser. What Chromium keeps beside its profile lies in `home`."""
    from playwright.sync_api import sync_playwright

    env = {**os.environ, "XDG_CONFIG_HOME": str(home), "XDG_CACHE_HOME": str(home)}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=executable(), args=list(FLAGS), env=env)
        try:
            yield browser
        finally:
            browser.close()
