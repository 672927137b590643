"""Quantities and names of resources."""

from __future__ import annotations

from decimal import Decimal

import pytest
from kubernetes.utils.quantity import parse_quantity
from support.jobs import make_document, make_job

from cosmos_operator.api.parse import parse_job
from cosmos_operator.api.quantities import quantity_value
from cosmos_operator.errors import InvalidSpec


@pytest.mark.parametrize(
    "text",
    ["0", "4", "0.5", ".5", "5.", "500m", "100u", "1n", "2k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1.5Mi", "64Gi",
     "1Ti", "1Pi", "1Ei", "1e3", "1E2", "1e-3", "12.5e+1"],
)  # fmt: skip
def test_value_is_that_of_kubernetes(text: str) -> None:
    assert quantity_value(text) == parse_quantity(text)


def test_value_with_a_sign() -> None:
    assert quantity_value("+5k") == Decimal(5000)


@pytest.mark.parametrize(
    "text", ["", "-8", "8 Gi", "8gi", "1K", "1ki", ".", "1e3Mi", "0x10", "x", "1.1.1"]
)
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(ValueError, match="is no quantity, such as 4, 500m or 64Gi"):
        quantity_value(text)


@pytest.mark.parametrize(
    ("resources", "problems"),
    [
        (
            {"limits": {"nvidia.com/gpu": 4, "meomry": "8Gi"}},
            ["limits: nvidia.com/gpu is for compute.gpusPerNode", "limits: 'meomry' is no resource; use cpu"],
        ),
        (
            {"requests": {"memory": "2Gi", "cpu": 3}, "limits": {"memory": "2000M", "cpu": "2500m"}},
            ["requests: memory 2Gi is above its limit 2000M", "requests: cpu 3 is above its limit 2500m"],
        ),
        ({"requests": {"rdma/hca": 1}}, ["requests: rdma/hca 1 needs a limit of the same quantity"]),
        ({"requests": {"nvidia.com/gpu": 1}}, ["requests: nvidia.com/gpu is for compute.gpusPerNode"]),
    ],
)  # fmt: skip
def test_each_resource_has_its_message(resources: dict[str, object], problems: list[str]) -> None:
    with pytest.raises(InvalidSpec) as caught:
        parse_job(make_document({"compute.resources": resources}))

    assert len(caught.value.problems) == len(problems)
    for line, problem in zip(caught.value.problems, problems, strict=True):
        assert line.startswith(f"spec.compute.resources: {problem}")


def test_fraction_without_quotes_is_told_how_to_be_written() -> None:
    with pytest.raises(InvalidSpec, match=r'write "0\.5" in quotes, or 500m'):
        parse_job(make_document({"compute.resources": {"requests": {"cpu": 0.5}}}))


def test_network_devices_are_no_gpus() -> None:
    job = make_job({"compute.resources": {"limits": {"nvidia.com/hostdev": 1, "rdma/hca": "1"}}})

    assert job.spec.compute.resources.limits == {"nvidia.com/hostdev": "1", "rdma/hca": "1"}
