"""The chart as Helm renders it, in this process: no helm program, no cluster."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml
from helm_python import Chart, _native

from cosmos_operator.kube.kinds import Manifest

CHART = Path(__file__).parents[2] / "charts" / "cosmos"
NOTES = "cosmos/templates/NOTES.txt"
RELEASE, NAMESPACE = "cosmos", "cosmos-system"

Values = dict[str, Any]

SWITCHES: Values = {
    "crds.install": False,
    "image.list": True,
    "storage.claim.create": True,
    "networkPolicy.operator": True,
    "networkPolicy.workers": True,
    "metrics.serviceMonitor.create": True,
    "metrics.podMonitor.create": True,
    "metrics.prometheusRule.create": True,
    "metrics.dashboard.create": True,
    "trainer.runtime.create": True,
    "viewer.enabled": True,
    "tests.smoke.enabled": True,
}
"""Values with which every template makes its objects, but that of the CustomResourceDefinition, which is long."""


@lru_cache
def load_chart() -> Chart:
    return Chart.load(CHART)


def nested(changes: dict[str, Any]) -> Values:
    """Values by dotted path, such as ``{"crds.keep": False}``, as ``--set`` takes them."""
    values: Values = {}
    for path, value in changes.items():
        *parents, last = path.split(".")
        target = values
        for part in parents:
            target = target.setdefault(part, {})
        target[last] = value
    return values


def render_texts(
    changes: dict[str, Any] | None = None,
    *,
    apis: Sequence[str] = (),
    release: str = RELEASE,
    namespace: str = NAMESPACE,
    chart: Chart | None = None,
) -> dict[str, str]:
    """Template → text, for values by dotted path and a cluster that serves these APIs.

    ``chart`` is another one than that of the project.
    """
    # Chart.render takes no API versions, the library below it does
    options = {"name": release, "namespace": namespace, "api_versions": list(apis)}
    values = json.dumps(nested(changes or {}))
    arguments = ((chart or load_chart())._raw(), values, json.dumps(options))
    texts: dict[str, str] = json.loads(_native.call_string("helm_render", *arguments))
    return texts


@lru_cache(maxsize=256)
def _parse(text: str) -> tuple[Manifest, ...]:
    loader = yaml.CSafeLoader  # a few times faster, and the CRD is long
    return tuple(document for document in yaml.load_all(text, loader) if document is not None)


def render(changes: dict[str, Any] | None = None, **options: Any) -> list[Manifest]:
    """All objects, those of ``helm test`` included; they are shared, so nobody may change them."""
    texts = render_texts(changes, **options)
    texts.pop(NOTES)
    return [manifest for text in texts.values() for manifest in _parse(text)]


def render_notes(changes: dict[str, Any] | None = None, apis: Sequence[str] = ()) -> str:
    """The notes that Helm prints after installing."""
    return render_texts(changes, apis=apis)[NOTES]


def is_test(manifest: Manifest) -> bool:
    """True if an object exists for ``helm test`` only."""
    return "helm.sh/hook" in manifest["metadata"].get("annotations", {})


def find(manifests: list[Manifest], kind: str, name: str | None = None) -> list[Manifest]:
    """The objects of a kind that belong to the installation itself."""
    return [
        manifest
        for manifest in manifests
        if manifest["kind"] == kind
        and name in (None, manifest["metadata"]["name"])
        and not is_test(manifest)
    ]


def find_one(manifests: list[Manifest], kind: str, name: str | None = None) -> Manifest:
    """The one object of a kind."""
    (found,) = find(manifests, kind, name)
    return found
