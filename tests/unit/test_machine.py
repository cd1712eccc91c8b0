"""What the machine is said to have."""

import pytest

from phi3kit import machine


def test_memory_is_more_in_all_than_free_and_disk_is_asked_of_a_folder_that_is_yet_to_be_made(tmp_path):
    total, free = machine.memory()
    assert total >= free > 0
    assert machine.disk_free(tmp_path / "not" / "yet") > 0


@pytest.mark.parametrize(
    ("folder", "limit", "used"),
    [(".", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes")],
)
def test_a_container_has_what_its_limit_leaves_and_what_is_only_cached(folder, limit, used, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    (tmp_path / folder).mkdir(exist_ok=True)
    for name, text in {limit: "1000", used: "900", "memory.stat": "anon 600\ninactive_file 250"}.items():
        (tmp_path / folder / name).write_text(f"{text}\n")
    assert machine.memory() == (1000, 350)
    (tmp_path / folder / limit).write_text("max\n")
    assert machine.memory()[0] > 1000


def test_memory_is_read_at_a_speed_that_some_computer_has(monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: (2**30, 2**26))  # keeps the test small
    assert 1e8 < machine.memory_bandwidth() < 1e13


def test_the_processor_has_a_name_and_extensions_that_torch_knows():
    name, extensions = machine.processor()
    assert name
    assert set(extensions) & {"avx2", "neon"} or not extensions
