"""The worker as a user whose number is in no list of users, as OpenShift chooses one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys

import pytest
from support.jobs import make_job

from cosmos_operator.plan.pod import build_pod_template
from cosmos_operator.plan.stages import plan_stages
from cosmos_operator.settings import Settings

USER_ID = 1_000_650_000
PROGRAM = """
import getpass, os, sys
import torch._dynamo
from torch._inductor.runtime.cache_dir_utils import default_cache_dir
from cosmos_worker.cli import main
assert os.getuid() == int(sys.argv[1])
print(getpass.getuser(), default_cache_dir(), main(["experiments"]))
"""
KEEP_READING = ("--inh-caps", "+dac_read_search", "--ambient-caps", "+dac_read_search")
"""Python may lie in a home folder; in the image everybody can read it."""


def test_worker_runs_as_a_user_that_nobody_knows() -> None:
    setpriv = shutil.which("setpriv")
    if setpriv is None or os.getuid() != 0:
        pytest.skip("needs root and setpriv, to become another user")
    job = make_job()
    train = next(stage for stage in plan_stages(job) if stage.kind == "train")
    pod = build_pod_template(job, train, config_map="c", settings=Settings())["spec"]
    variables = {one["name"]: one["value"] for one in pod["containers"][0]["env"] if "value" in one}
    variables |= {name: os.environ[name] for name in ("PATH", "PYTHONPATH") if name in os.environ}
    become = (setpriv, "--reuid", str(USER_ID), "--regid", "0", "--clear-groups", *KEEP_READING)

    done = subprocess.run(
        [*become, sys.executable, "-B", "-c", PROGRAM, str(USER_ID)],
        env=variables,
        capture_output=True,
        text=True,
        timeout=50,
    )

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "cosmos /tmp/torchinductor_cosmos 0"
