"""Strategic merges of pod specs: name → (original, patch, result)."""

from __future__ import annotations

from typing import Any

Spec = dict[str, Any]
CONTAINER = {"name": "worker", "image": "w"}


def worker(**fields: Any) -> Spec:
    """A pod spec whose container has these fields."""
    return {"containers": [{**CONTAINER, **fields}]}


def change(**fields: Any) -> Spec:
    """A patch of these fields of the container."""
    return {"containers": [{"name": "worker", **fields}]}


def env(**values: str) -> list[Spec]:
    return [{"name": name, "value": value} for name, value in values.items()]


GPU = {"key": "gpu", "operator": "Exists"}
SPOT = {"key": "spot", "operator": "Exists"}
RACK = {"maxSkew": 1, "topologyKey": "rack", "whenUnsatisfiable": "DoNotSchedule"}
ZONE = {"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}
DATA = {"name": "data", "emptyDir": {}}
CACHE = {"name": "cache", "emptyDir": {}}

MERGES: dict[str, tuple[Spec, Spec, Spec]] = {
    "variables by name, new ones first": (
        worker(env=env(A="1", B="2")),
        change(env=env(C="3", B="9")),
        worker(env=env(C="3", A="1", B="9")),
    ),
    "variable deleted": (
        worker(env=env(A="1", B="2")),
        change(env=[{"name": "A", "$patch": "delete"}]),
        worker(env=env(B="2")),
    ),
    "list replaced": (
        worker(env=env(A="1", B="2")),
        change(env=[{"$patch": "replace"}, *env(C="3")]),
        worker(env=env(C="3")),
    ),
    "tolerations as a whole": (
        {**worker(), "tolerations": [GPU]},
        {"tolerations": [SPOT]},
        {**worker(), "tolerations": [SPOT]},
    ),
    "node selector key by key": (
        {**worker(), "nodeSelector": {"a": "1", "b": "2"}},
        {"nodeSelector": {"a": None, "c": "3"}},
        {**worker(), "nodeSelector": {"b": "2", "c": "3"}},
    ),
    "null removes": (
        {**worker(), "securityContext": {"runAsUser": 5, "fsGroup": 5, "runAsNonRoot": True}},
        {"securityContext": {"runAsUser": None, "fsGroup": None}},
        {**worker(), "securityContext": {"runAsNonRoot": True}},
    ),
    "map replaced": (
        {**worker(), "securityContext": {"runAsUser": 5, "fsGroup": 5}},
        {"securityContext": {"$patch": "replace", "runAsNonRoot": True}},
        {**worker(), "securityContext": {"runAsNonRoot": True}},
    ),
    "null of what is not there": (
        worker(),
        {"securityContext": {"runAsUser": None, "fsGroup": 7}},
        {**worker(), "securityContext": {"fsGroup": 7}},
    ),
    "volumes by name, mounts by path": (
        {**worker(volumeMounts=[{"name": "data", "mountPath": "/a"}]), "volumes": [DATA]},
        {
            **change(
                volumeMounts=[
                    {"name": "data", "mountPath": "/b"},
                    {"name": "cache", "mountPath": "/a", "readOnly": True},
                ]
            ),
            "volumes": [CACHE],
        },
        {
            **worker(
                volumeMounts=[
                    {"name": "data", "mountPath": "/b"},
                    {"name": "cache", "mountPath": "/a", "readOnly": True},
                ]
            ),
            "volumes": [CACHE, DATA],
        },
    ),
    "spread constraints by topology": (
        {**worker(), "topologySpreadConstraints": [RACK]},
        {"topologySpreadConstraints": [{**RACK, "maxSkew": 2}, ZONE]},
        {**worker(), "topologySpreadConstraints": [{**RACK, "maxSkew": 2}, ZONE]},
    ),
    "pull secrets by name": (
        {**worker(), "imagePullSecrets": [{"name": "a"}, {"name": "b"}]},
        {"imagePullSecrets": [{"name": "c"}, {"name": "b"}]},
        {**worker(), "imagePullSecrets": [{"name": "c"}, {"name": "a"}, {"name": "b"}]},
    ),
    "host aliases by address": (
        {**worker(), "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["a"]}]},
        {"hostAliases": [{"ip": "10.0.0.1", "hostnames": ["b"]}]},
        {**worker(), "hostAliases": [{"ip": "10.0.0.1", "hostnames": ["b"]}]},
    ),
    "affinity: maps merged, terms replaced": (
        {
            **worker(),
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "a", "operator": "Exists"}]}
                        ]
                    },
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "weight": 1,
                            "preference": {
                                "matchExpressions": [{"key": "c", "operator": "Exists"}]
                            },
                        }
                    ],
                }
            },
        },
        {
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "b", "operator": "Exists"}]}
                        ]
                    }
                }
            }
        },
        {
            **worker(),
            "affinity": {
                "nodeAffinity": {
                    "requiredDuringSchedulingIgnoredDuringExecution": {
                        "nodeSelectorTerms": [
                            {"matchExpressions": [{"key": "b", "operator": "Exists"}]}
                        ]
                    },
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {
                            "weight": 1,
                            "preference": {
                                "matchExpressions": [{"key": "c", "operator": "Exists"}]
                            },
                        }
                    ],
                }
            },
        },
    ),
    "resources and sidecars": (
        {
            **worker(resources={"requests": {"cpu": "1", "memory": "1Gi"}}),
            "initContainers": [{"name": "one", "image": "x"}, {"name": "two", "image": "y"}],
        },
        {
            **change(resources={"requests": {"cpu": "2"}, "limits": {"memory": "2Gi"}}),
            "initContainers": [
                {"name": "proxy", "image": "p", "restartPolicy": "Always"},
                {"name": "two", "image": "z"},
            ],
        },
        {
            **worker(
                resources={
                    "requests": {"cpu": "2", "memory": "1Gi"},
                    "limits": {"memory": "2Gi"},
                }
            ),
            "initContainers": [
                {"name": "proxy", "image": "p", "restartPolicy": "Always"},
                {"name": "one", "image": "x"},
                {"name": "two", "image": "z"},
            ],
        },
    ),
}
