"""`python -m phi3kit.cli`: the command with this very Python, whatever PATH says."""

from phi3kit.cli import app

app()
