from __future__ import annotations

import re
import urllib.request
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from broker import metrics
from tests.conftest import free_port

_COUNTED = re.compile(r'(?:counts|values)\[\s*"([a-z_]+)"((?:,[^\],]*(?:\([^)]*\))?[^\],]*)*),?\s*\]')

_SAID = re.compile(r'\(\s*"([a-z_]+)",\s*\): ')


def test_whatever_is_counted_is_exposed_with_its_labels() -> None:
    package = Path(metrics.__file__).parent
    found = {}
    for path in package.glob("*.py"):
        for name, rest in _COUNTED.findall(path.read_text(encoding="utf-8")):
            found[name] = len([label for label in rest.split(",") if label.strip()])
        found |= dict.fromkeys(_SAID.findall(path.read_text(encoding="utf-8")), 0)
    assert len(found) > 40
    missing = {name: labels for name, labels in found.items() if name not in metrics.CATALOGUE}
    assert not missing
    assert {name: len(metrics.CATALOGUE[name][1]) for name in found} == found


def test_samples_are_served_as_prometheus_reads_them() -> None:
    port = free_port()
    samples = {("rejected_total", "protocol"): 3.0, ("open_bytes",): 7.0, ("unlisted",): 1.0}
    with (
        metrics.served(port, lambda: samples),
        urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as page,
    ):
        families = {one.name: one for one in text_string_to_metric_families(page.read().decode())}
    (sample,) = families["gongwei_rejected"].samples
    assert (sample.name, sample.labels, sample.value) == ("gongwei_rejected_total", {"reason": "protocol"}, 3.0)
    assert families["gongwei_rejected"].type == "counter"
    assert families["gongwei_open_bytes"].samples[0].value == 7.0
    # what other tests of this process could not log is counted here as well
    assert families.keys() - {"gongwei_log_lines_lost"} == {"gongwei_rejected", "gongwei_open_bytes"}
