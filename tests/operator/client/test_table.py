from datetime import UTC, datetime

import pytest

from cosmos_operator.api.crd import INFERENCE_JOB, POST_TRAINING_JOB
from cosmos_operator.client.table import age, table

NOW = datetime(2026, 1, 2, 5, 0, tzinfo=UTC)


def job(name, status, namespace="default", **spec):
    created = "2026-01-01T00:00:00Z"
    metadata = {"name": name, "namespace": namespace, "creationTimestamp": created}
    return {"metadata": metadata, "spec": spec, "status": status}


def test_columns_are_those_of_the_resource():
    running = {
        "state": "Training",
        "progress": {"summary": "5/20", "loss": "0.5", "eta": "1m10s"},
        "attempts": [{"number": 1}, {"number": 2}],
    }
    lines = table(POST_TRAINING_JOB, [job("b", {"state": "Pending"}), job("a", running)], NOW)

    assert [line.split() for line in lines] == [
        ["NAME", "STATE", "PROGRESS", "LOSS", "ETA", "ATTEMPT", "AGE"],
        ["a", "Training", "5/20", "0.5", "1m10s", "2", "29h"],
        ["b", "Pending", "29h"],
    ]
    assert {line.index(cell) for line, cell in zip(lines, ("AGE", "29h", "29h"), strict=True)} == {
        lines[0].index("AGE")
    }


def test_wide_table_has_the_columns_of_a_wide_output_and_namespaces():
    jobs = [job("a", {"message": "two\nlines"}, "team", compute={"gpusPerNode": 8})]
    header, row = table(POST_TRAINING_JOB, jobs, NOW, wide=True, with_namespace=True)

    assert header.split()[:2] == ["NAMESPACE", "NAME"]
    assert header.split()[-2:] == ["CHECKPOINT", "MESSAGE"]
    assert row.split() == ["team", "a", "29h", "8", "two", "lines"]


def test_several_values_of_one_cell_are_joined():
    status = {"state": "Succeeded", "inference": [{"numVideos": 2}, {}, {"numVideos": 3}]}
    _, row = table(INFERENCE_JOB, [job("v", status, model={"job": "a"})], NOW, with_kind=True)

    assert row.split() == ["inferencejob/v", "Succeeded", "a", "2", "3", "29h"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(-5, "0s"), (119, "119s"), (120, "2m"), (150, "2m30s"), (601, "10m"), (10799, "179m"),
     (3 * 3600, "3h"), (5 * 3600 + 180, "5h3m"), (20 * 3600, "20h"), (50 * 3600, "2d2h"),
     (9 * 86400, "9d")],
)  # fmt: skip
def test_ages_are_written_as_kubectl_does(seconds, text):
    assert age(seconds) == text
