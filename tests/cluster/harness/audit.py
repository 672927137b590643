"""The audit log of the API server: which verbs the operator's service account has used on which resources."""

from __future__ import annotations

import json
from pathlib import Path

from harness.paths import logs, state

ACCOUNTS = "system:serviceaccounts"
"""Group of all service accounts; controllers of Kubernetes have theirs in kube-system."""
POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "None", "userGroups": [f"{ACCOUNTS}:kube-system"]},
        {"level": "Metadata", "userGroups": [ACCOUNTS]},
        {"level": "None"},
    ],
}
"""Requests of service accounts outside of kube-system, without their contents; nobody else's."""
MAX_SIZE_MIB, MAX_BACKUPS = 512, 4


def log_file() -> Path:
    """The newest file of the audit log of the running cluster; older ones lie beside it."""
    return logs() / "audit.log"


def api_server_options() -> list[str]:
    """Options of kube-apiserver with which it writes the log; writes the policy that they name."""
    policy = state() / "audit-policy.json"
    policy.parent.mkdir(parents=True, exist_ok=True)
    policy.write_text(json.dumps(POLICY), encoding="utf-8")
    log_file().parent.mkdir(parents=True, exist_ok=True)
    return [
        f"--audit-policy-file={policy}",
        f"--audit-log-path={log_file()}",
        f"--audit-log-maxsize={MAX_SIZE_MIB}",
        f"--audit-log-maxbackup={MAX_BACKUPS}",
    ]
