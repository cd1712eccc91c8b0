"""The browser that the tests here drive."""

import os

import chromium
import pytest


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    """One for each file: while Playwright has one open, no other event loop runs in this thread."""
    if not chromium.executable():
        message = "there is no Chromium here: `apt-get install chromium` gets it, or install Google Chrome"
        (pytest.fail if os.environ.get("BROWSER_REQUIRED") else pytest.skip)(message)
    with chromium.started(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser
