"""Quantities as Kubernetes writes them: 4, 3920m, 1k, 16Gi. Pure."""

from __future__ import annotations

from kubernetes.utils.quantity import parse_quantity


def whole_units(quantity: object) -> int:
    """The whole units in a quantity: 3920m of a resource are 3. What is not a quantity counts as 0.

    An odd value on one node must not keep the operator from all jobs.
    """
    try:
        return int(parse_quantity(quantity))  # type: ignore[no-untyped-call]  # it has no types
    except (ValueError, ArithmeticError):
        return 0
