"""A notebook's file: what is repaired for a run, and what is refused in one sentence."""

import json
import os
import sys

import pytest

from phi3kit.errors import InvalidRequest
from phi3kit.workbook.running.notebook import read

CODE = {"cell_type": "code", "id": "a", "source": "1", "metadata": {}, "outputs": [], "execution_count": None}
MARKDOWN = {"cell_type": "markdown", "id": "b", "source": "*", "metadata": {}}


def content(*cells, **changes) -> dict:
    return {"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": list(cells)} | changes


@pytest.fixture
def path(tmp_path):
    return tmp_path / "one.ipynb"


@pytest.mark.parametrize(
    "notebook",
    [
        content(CODE | {"execution_count": "*"}),
        content(CODE | {"outputs": [{"output_type": "no such"}]}),
        content(CODE | {"id": None}),
        content(CODE | {"id": "x" * 80}),
        content(CODE | {"id": "with space"}),
        content(CODE | {"comment": "mine"}),
        content(CODE, CODE | {"source": ["2\n", "3"]}),
        content(CODE, MARKDOWN | {"outputs": [], "execution_count": None}),
        content({name: value for name, value in CODE.items() if name != "id"}, nbformat_minor=4),
        content(CODE, nbformat_minor=4),
        content(CODE, nbformat_minor=None),
        content(CODE, nbformat_minor=9),
        content(CODE, comment="mine"),
    ],
    ids=range(13),
)
def test_what_a_run_writes_anew_is_no_obstacle(path, notebook):
    path.write_text(json.dumps(notebook), encoding="utf-8")
    cell = read(path).cells[0]
    assert (cell.source, cell.outputs, cell.execution_count) == ("1", [], None)


def test_a_byte_order_mark_is_no_obstacle(path):
    path.write_text(json.dumps(content(CODE)), encoding="utf-8-sig")
    assert read(path).cells[0].source == "1"


def test_a_notebook_of_version_3_is_converted(path):
    cell = {"cell_type": "code", "input": ["1"], "language": "python", "outputs": [], "metadata": {}}
    path.write_text(json.dumps({"nbformat": 3, "nbformat_minor": 0, "metadata": {}, "worksheets": [{"cells": [cell]}]}))
    assert read(path).cells[0].source == "1"


def test_ids_that_are_valid_stay(path):
    path.write_text(json.dumps(content(CODE, MARKDOWN)), encoding="utf-8")
    assert [cell.id for cell in read(path).cells] == ["a", "b"]


@pytest.mark.parametrize(
    ("damage", "problem"),
    [
        (b"", "is empty"),
        (b" \n\xef\xbb\xbf", "is no JSON"),
        (b"print(1)", "is no JSON"),
        (b'{"nbformat": 4,', "is no JSON"),
        (b"[]", "holds no notebook"),
        (b"null", "holds no notebook"),
        (b"[" * 100_000, "holds no notebook"),
        (b"caf\xe9", "is not in UTF-8"),
        (b"\x89PNG\r\n\x1a\n\0", "is not in UTF-8"),
        (json.dumps(content(CODE), ensure_ascii=False).encode("utf-16"), "is not in UTF-8"),
        ({}, "holds no notebook"),
        (content(nbformat=99), "Unsupported nbformat version 99"),
        (content(cells=None), "holds no notebook"),
        (content("text"), "is not valid"),
        (content({"cell_type": "code", "source": "1"}), "is not valid"),
        (content(CODE | {"cell_type": "wow"}), "is not valid"),
        (content(CODE | {"source": None}), "is not valid at $.cells[0].source (None is"),
        (content(CODE | {"metadata": {"tags": "parameters"}}), "is not valid"),
        (content(MARKDOWN | {"source": "\ud800"}), "half of a character"),
    ],
    ids=range(19),
)
def test_what_is_no_notebook_is_named_in_one_sentence(path, damage, problem):
    path.write_bytes(damage if isinstance(damage, bytes) else json.dumps(damage).encode())
    with pytest.raises(InvalidRequest) as refused:
        read(path)
    assert (problem in str(refused.value), str(refused.value).count("\n")) == (True, 0)


def test_a_folder_is_no_notebook(tmp_path):
    with pytest.raises(InvalidRequest, match="cannot be read"):
        read(tmp_path)


@pytest.mark.skipif(sys.platform != "linux", reason="there, every name of a file is text")
def test_a_name_without_utf_8_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.ipynb")
    path.write_text(json.dumps(content(CODE)), encoding="utf-8")
    with pytest.raises(InvalidRequest, match="half of a character"):
        read(path)
