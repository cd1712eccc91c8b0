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
        content(CODE | {"id": ["a"]}),
        content(CODE | {"comment": "mine"}),
        content(CODE | {"metadata": None}),
        content({"cell_type": "code", "source": "1"}),
        content(CODE, metadata=None),
        content(CODE, CODE | {"source": ["2\n", "3"]}),
        content(CODE, MARKDOWN | {"outputs": [], "execution_count": None}),
        content({name: value for name, value in CODE.items() if name != "id"}, nbformat_minor=4),
        content(CODE, nbformat_minor=4),
        content(CODE, nbformat_minor=None),
        content(CODE, nbformat_minor=9),
        content(CODE, comment="mine"),
    ],
    ids=range(17),
)
def test_what_a_run_writes_anew_is_no_obstacle(path, notebook):
    path.write_text(json.dumps(notebook), encoding="utf-8")
    cell = read(path).cells[0]
    assert (cell.source, cell.outputs, cell.execution_count) == ("1", [], None)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_is_no_obstacle(path, encoding):
    path.write_text(json.dumps(content(CODE)), encoding=encoding)
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
        (b"", "(one.ipynb is empty)"),
        (b" \n", "(one.ipynb is empty)"),
        (b" \n\xef\xbb\xbf", "is no whole JSON: Expecting value: line 2"),
        (b"print(1)", "is no whole JSON"),
        (b'{"nbformat": 4,', "is no whole JSON"),
        (b"[]", "is JSON, but not of a notebook"),
        (b"null", "is JSON, but not of a notebook"),
        (b"[" * 100_000, "is no whole JSON: maximum recursion depth"),
        (b"caf\xe9", "can't decode byte 0xe9"),
        (b"\x89PNG\r\n\x1a\n\0", "can't decode byte 0x89"),
        ({}, "is JSON, but not of a notebook"),
        (content(nbformat=True), "is JSON, but not of a notebook"),
        (content(nbformat=99), "is in version 99 of the format, and cannot be converted"),
        (content(nbformat=3), "is in version 3 of the format, and cannot be converted"),
        (content(cells=None), "has no list of cells"),
        (content("text"), "has a cell, number 1, that is neither code, markdown nor raw text"),
        (content(CODE, CODE | {"cell_type": "wow"}), "has a cell, number 2, that is neither"),
        (content(CODE | {"source": None}), "has a cell, number 1, without a source"),
        (content(CODE | {"metadata": {"tags": "parameters"}}), "is not valid at $.cells[0].metadata.tags"),
        (content(CODE | {"metadata": "text"}), "is not valid at $.cells[0].metadata"),
        (content(CODE, metadata="text"), "is not valid at $.metadata"),
        (content(MARKDOWN | {"attachments": "text"}), "is not valid at $.cells[0].attachments"),
        (content(MARKDOWN | {"source": "\ud800"}), "half of a character"),
    ],
    ids=range(23),
)
def test_what_is_no_notebook_is_named_in_one_sentence(path, damage, problem):
    path.write_bytes(damage if isinstance(damage, bytes) else json.dumps(damage).encode())
    with pytest.raises(InvalidRequest) as refused:
        read(path)
    assert (problem in str(refused.value), str(refused.value).count("\n")) == (True, 0), str(refused.value)


def test_a_folder_is_no_notebook(tmp_path):
    with pytest.raises(InvalidRequest, match="give a file that can be read"):
        read(tmp_path)


def test_an_absent_file_is_no_notebook(tmp_path):
    with pytest.raises(InvalidRequest, match="give a file that exists"):
        read(tmp_path / "absent.ipynb")


@pytest.mark.skipif(sys.platform != "linux", reason="there, every name of a file is text")
def test_a_name_without_utf_8_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.ipynb")
    path.write_text(json.dumps(content(CODE)), encoding="utf-8")
    with pytest.raises(InvalidRequest, match="half of a character"):
        read(path)
