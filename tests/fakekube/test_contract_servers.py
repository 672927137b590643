"""The contract is tried on every API server: the fake one, a real one alone, and that of the real cluster."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
SERVERS = {"fake", "api-server", "cluster"}
WITH_CONTROLLERS = {"fake", "cluster"}
"""Servers beside which a garbage collector runs."""


def collect() -> dict[str, set[str]]:
    """Names of the contract's tests, with their servers."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider"]
    command += ["-m", "", *map(str, sorted(Path(__file__).parent.glob("test_contract*.py")))]
    listing = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    found = defaultdict(set)
    for name, server in re.findall(r"::(test_\w+)\[([a-z-]+)\]", listing.stdout):
        found[name].add(server)
    assert found, listing.stdout + listing.stderr
    return found


def test_every_rule_is_tried_on_every_server_that_can_keep_it() -> None:
    found = collect()

    assert {name for name, servers in found.items() if servers == SERVERS} > {
        "test_strategic_merge_of_owners",
        "test_what_is_left_out_is_removed",
        "test_watch_from_a_version",
    }
    others = {name: servers for name, servers in found.items() if servers != SERVERS}
    assert set(others) == {
        "test_dependents_go_with_their_owner",
        "test_shared_dependents_stay_until_the_last_owner",
        "test_foreground_waits_for_dependents",
        "test_orphans_stay",
        "test_an_owner_that_never_was",
    }
    assert all(servers == WITH_CONTROLLERS for servers in others.values())
