"""docker/images.sh, which `make images` calls, with engines that only write down what they are asked for."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from support.helm_chart import render_texts

ROOT = Path(__file__).resolve().parents[1]
ENGINE = """#!/bin/sh
name=$(basename "$0")
[ "$1" != info ] || exit {daemon}
printf '%s' "$name" >> "$RECORD"
for one in "$@"; do printf '\\t%s' "$one" >> "$RECORD"; done
echo >> "$RECORD"
"""
NEEDED = ("bash", "sh", "sed", "git", "dirname", "basename", "cat")


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """A folder of programs without an engine."""
    folder = tmp_path / "bin"
    folder.mkdir()
    for name in NEEDED:
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    return folder


def has(machine: Path, *engines: str, daemon: bool = True) -> None:
    for name in engines:
        (machine / name).write_text(ENGINE.format(daemon=0 if daemon else 1))
        (machine / name).chmod(0o755)


def images(machine: Path, **variables: str) -> tuple[int, list[list[str]], str]:
    """Exit code, what engines were asked for, and what was said."""
    record = machine.parent / "record"
    record.write_text("")
    environment = {
        "PATH": str(machine),
        "RECORD": str(record),
        "HOME": os.environ["HOME"],
        **variables,
    }
    done = subprocess.run(
        [ROOT / "docker" / "images.sh"],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    calls = [line.split("\t") for line in record.read_text().splitlines()]
    return done.returncode, [call for call in calls if call[1] != "--version"], done.stderr


def test_all_images_are_built_and_pushed_under_the_names_that_the_chart_asks_for(
    machine: Path,
) -> None:
    has(machine, "docker")
    code, calls, said = images(machine, REGISTRY="registry.example.com/team/", PUSH="1")
    listed = render_texts({"global.imageRegistry": "registry.example.com/team", "image.list": True})
    wanted = [
        line.strip()
        for line in listed["cosmos/templates/images.yaml"].splitlines()
        if line.strip().startswith("registry.example.com/")
    ]

    assert code == 0, said
    assert sorted(call[-1] for call in calls if call[1] == "push") == sorted(wanted)
    built = {call[call.index("--tag") + 1]: call for call in calls if call[1] == "build"}
    assert sorted(built) == sorted(wanted)
    for call in built.values():
        assert call[-1] == "."
        assert any(one.startswith("VERSION=") for one in call)
        assert any(one.startswith("REVISION=") and len(one) == 49 for one in call)
    assert "--set global.imageRegistry=registry.example.com/team" in said


def test_advice_with_another_tag_gives_the_chart_the_images_that_were_built(machine: Path) -> None:
    has(machine, "docker")
    code, calls, said = images(machine, REGISTRY="r.example.com", TAG="2024")
    advice = said.splitlines()[-1]
    values: dict[str, object] = {"image.list": True}
    for pair in re.findall(r"--set(?:-string)? (\S+)", advice):
        values |= dict(one.split("=") for one in pair.split(","))
    listed = render_texts(values)["cosmos/templates/images.yaml"]

    assert code == 0, said
    built = {call[call.index("--tag") + 1] for call in calls}
    assert built == {
        f"r.example.com/cosmos-{name}:2024" for name in ("operator", "worker", "worker-cpu")
    }
    assert built == {line.strip() for line in listed.splitlines() if line.strip().startswith("r.")}


@pytest.mark.parametrize(("engines", "daemon", "chosen"), [
    (("docker", "podman", "buildah"), True, "docker"),
    (("docker", "podman", "buildah"), False, "podman"),
    (("buildah",), True, "buildah"),
])  # fmt: skip
def test_the_first_engine_that_works_is_taken(
    machine: Path, engines: tuple[str, ...], daemon: bool, chosen: str
) -> None:
    has(machine, *engines, daemon=daemon)
    code, calls, said = images(machine, IMAGES="operator")

    assert code == 0, said
    assert {call[0] for call in calls} == {chosen}
    (call,) = calls
    assert call[call.index("--tag") + 1].startswith("cosmos-operator:")
    ignored = "docker/operator.Dockerfile.dockerignore"
    assert (ignored in call) is (chosen != "docker"), "docker finds it by its name"


def test_base_images_secrets_and_options_reach_the_engine(machine: Path) -> None:
    has(machine, "podman")
    code, calls, said = images(
        machine, IMAGES="worker worker-cpu", BASE_IMAGE="mirror/python", CUDA_BASE_IMAGE="mirror/cuda",
        EXTENSIONS="compiled", CUDA_BUILD_IMAGE="mirror/devel", CA_BUNDLE="/ca.crt",
        BUILD_OPTIONS="--network=host --quiet",
    )  # fmt: skip
    cuda, cpu = calls

    assert code == 0, said
    assert {"BASE_IMAGE=mirror/cuda", "BUILD_IMAGE=mirror/devel"} <= set(cuda)
    assert cuda[cuda.index("--target") + 1] == "cuda-compiled"
    assert "BASE_IMAGE=mirror/python" in cpu
    assert cpu[cpu.index("--target") + 1] == "cpu"
    for call in calls:
        assert {"id=ca-bundle,src=/ca.crt", "--network=host", "--quiet"} <= set(call)


@pytest.mark.parametrize(("engines", "variables", "message"), [
    ((), {}, "neither docker (with its daemon) nor podman nor buildah works here"),
    (("podman",), {"ENGINE": "docker"}, "ENGINE=docker does not work here"),
    (("podman",), {"PUSH": "1"}, "PUSH=1 needs a registry: REGISTRY="),
    (("podman",), {"EXTENSIONS": "all"}, "EXTENSIONS=all: give compiled, or nothing"),
    (("podman",), {"REGISTRY": "https://r.example.com"}, "give it without a scheme"),
    (("podman",), {"IMAGES": "cuda"}, "IMAGES: no image cuda; there are operator, worker, worker-cpu"),
])  # fmt: skip
def test_what_cannot_work_is_refused_before_anything_is_built(
    machine: Path, engines: tuple[str, ...], variables: dict[str, str], message: str
) -> None:
    has(machine, *engines)
    code, calls, said = images(machine, **variables)

    assert (code, calls) == (2, [])
    assert message in said
