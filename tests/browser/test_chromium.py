"""The browser that the tests drive calls nothing outside, which `cut_off.py` would report as a failure."""

import subprocess
import sys
from pathlib import Path

import cut_off
import pytest

pytestmark = pytest.mark.browser

TESTS = Path(cut_off.__file__).parent
CUT_OFF = [sys.executable, str(TESTS / "cut_off.py"), sys.executable, "-c"]
OPEN = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import chromium
with chromium.started(Path(sys.argv[2])) as browser:
    page = browser.new_page()
    page.goto(Path(sys.argv[2]).as_uri())
    page.set_content("<img src='https://example.org/a.png'>")
    page.wait_for_function("document.images[0].complete")
"""
SEND = "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).sendto(b'x', (cut_off.PROBED, 53))"


@pytest.fixture(autouse=True)
def namespaces(browser):
    if why := cut_off.refusal():
        pytest.skip(f"the network cannot be cut here: {why}")


def test_chromium_calls_nothing_outside(tmp_path):
    done = subprocess.run([*CUT_OFF, OPEN, str(TESTS), str(tmp_path)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_datagrams_to_the_probed_address_are_reported():
    script = f"import sys; sys.path.insert(0, {str(TESTS)!r}); import cut_off; {SEND}"
    done = subprocess.run([*CUT_OFF, script], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "Something called out" in done.stderr and cut_off.PROBED in done.stderr
