"""Two pods with the same stage document: one makes the result, the other waits and finds it."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from cosmos_worker.config.source import Artifact, Source
from cosmos_worker.config.stages import FetchModelConfig
from cosmos_worker.runtime.outcome import Outcome
from cosmos_worker.stages import fetch_model
from cosmos_worker.stages.run_stage import run_stage
from cosmos_worker.storage import same_work
from cosmos_worker.storage.volumes import Volumes


def document(folder: Path) -> FetchModelConfig:
    artifact = Artifact(
        kind="tokenizer", name="t", source=Source(path="/nowhere"), target_uri=str(folder / "t")
    )
    return FetchModelConfig(key="0123456789ab", target_uri=str(folder), artifacts=(artifact,))


def test_second_pod_with_the_same_stage_waits_and_makes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(same_work, "LOCK_WAIT_S", 0.01)
    config, volumes = document(tmp_path / "m"), Volumes({})
    begun, goes_on = threading.Event(), threading.Event()
    runs: list[int] = []

    def run(config: FetchModelConfig, volumes: Volumes) -> dict[str, Any]:
        runs.append(threading.get_ident())
        begun.set()
        assert goes_on.wait(10)
        return {"artifacts": [{"files": {}}]}

    monkeypatch.setattr(fetch_model, "run", run)
    outcomes: list[Outcome] = []
    threads = [
        threading.Thread(target=lambda: outcomes.append(run_stage("fetch-model", config, volumes)))
        for _ in range(2)
    ]
    threads[0].start()
    assert begun.wait(10)
    threads[1].start()
    threads[1].join(0.2)
    assert threads[1].is_alive(), "it waits"
    goes_on.set()
    for thread in threads:
        thread.join(10)

    assert len(runs) == 1
    assert outcomes[1].message == "fetch-model was already done"
    assert outcomes[0].result == outcomes[1].result
