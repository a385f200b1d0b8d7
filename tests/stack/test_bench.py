"""What faults act on, without a stack: scripted levels in the real text."""

from __future__ import annotations

from harness.stack.bench import scripted

TEXT = """\
# TYPE node_cpu_seconds_total counter
node_cpu_seconds_total{cpu="0",mode="idle"} 100.5
node_cpu_seconds_total{cpu="0",mode="user"} 7
node_memory_MemAvailable_bytes 5e+09
node_memory_MemTotal_bytes 1e+10
node_filesystem_avail_bytes{device="/dev/vda",mountpoint="/"} 8e+10
node_filesystem_avail_bytes{device="tmpfs",mountpoint="/run"} 4096
node_filesystem_size_bytes{device="/dev/vda",mountpoint="/"} 1e+11
"""


def test_only_the_levels_change() -> None:
    """Whatever else the real exporter says stays as it was."""
    said = scripted(TEXT, 42.0, {"cpu": 0.0, "memory": 75.0, "disk": 90.0})

    assert said.splitlines() == [
        "# TYPE node_cpu_seconds_total counter",
        'node_cpu_seconds_total{cpu="0",mode="idle"} 42.0',
        'node_cpu_seconds_total{cpu="0",mode="user"} 7',
        "node_memory_MemAvailable_bytes 2500000000.0",
        "node_memory_MemTotal_bytes 1e+10",
        f'node_filesystem_avail_bytes{{device="/dev/vda",mountpoint="/"}} {1e11 * (1 - 0.9)!r}',
        'node_filesystem_avail_bytes{device="tmpfs",mountpoint="/run"} 4096',
        'node_filesystem_size_bytes{device="/dev/vda",mountpoint="/"} 1e+11',
    ]
