"""What the machine is said to have."""

import pytest

from phi3kit.system import machine


def test_memory_and_disk_are_measured(tmp_path):
    total, free = machine.memory()
    assert total >= free > 0
    assert machine.disk_free(tmp_path / "not" / "yet") > 0


@pytest.mark.parametrize(
    ("folder", "limit", "used"),
    [(".", "memory.max", "memory.current"), ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes")],
)
def test_a_containers_limit_counts(folder, limit, used, tmp_path, monkeypatch):
    monkeypatch.setattr(machine, "CGROUP", tmp_path)
    (tmp_path / folder).mkdir(exist_ok=True)
    for name, text in {limit: "1000", used: "900", "memory.stat": "anon 600\ninactive_file 250"}.items():
        (tmp_path / folder / name).write_text(f"{text}\n")
    assert machine.memory() == (1000, 350)
    (tmp_path / folder / limit).write_text("max\n")
    assert machine.memory()[0] > 1000


def test_the_bandwidth_is_plausible(monkeypatch):
    monkeypatch.setattr(machine, "memory", lambda: (2**30, 2**26))  # keeps the test small
    assert 1e8 < machine.memory_bandwidth() < 1e13


def test_the_processor_has_a_name_and_extensions():
    name, extensions = machine.processor()
    assert name
    assert set(extensions) & {"avx2", "neon"} or not extensions
