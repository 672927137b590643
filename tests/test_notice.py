"""NOTICE lists what the images redistribute under licences that ask for more than that their text stays with them.

The packages and their licences are read from what is installed here: the pins of docker/constraints.txt for this
Python, which may be older than the images' and then has other versions of a few packages.
"""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
DOCKERFILES = sorted((ROOT / "docker").glob("*.Dockerfile"))
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
NOTICE = (ROOT / "NOTICE").read_text(encoding="utf-8")

PERMISSIVE = {
    *("0BSD", "Apache-2.0", "Apache-2.0 WITH LLVM-exception", "BSD-2-Clause", "BSD-3-Clause"),
    *("BSL-1.0", "CC0-1.0", "CNRI-Python", "ISC", "MIT", "MIT-0", "MIT-CMU", "PSF-2.0", "Zlib"),
    # classifiers
    *("Apache Software License", "BSD License", "ISC License (ISCL)", "MIT License"),
    "Python Software Foundation License",
    # first lines of the metadata's field License
    *("3-Clause BSD License", "Apache 2.0 License", "BSD"),
}
WITHOUT_METADATA = {"torchao": "BSD-3-Clause"}
"""Licences of packages whose metadata names none, from the text that they bring."""
PERMISSIVE_LIBRARIES = {
    # av
    *("libSvtAv1Enc", "libXau", "libdav1d", "libdrm", "libopencore-amrnb", "libopencore-amrwb"),
    *("libopus", "libvmaf", "libvpl", "libvpx", "libxcb", "libxcb-shape", "libxcb-shm"),
    "libxcb-xfixes",
    # numpy
    "libscipy_openblas64_",
    # pillow and torchvision
    *("libavif", "libbrotlicommon", "libbrotlidec", "libfreetype", "libharfbuzz", "libjpeg"),
    *("liblcms2", "liblzma", "libopenjp2", "libpng16", "libsharpyuv", "libtiff", "libwebp"),
    *("libwebpdemux", "libwebpmux", "libz", "libzstd"),
}
"""Libraries that wheels bring from other projects, each under a permissive licence that its wheel holds."""


def packages_of(extras: Iterable[str]) -> set[str]:
    """The packages that the project and these extras depend on here, however indirectly."""
    optional = PROJECT["optional-dependencies"]
    lines = [*PROJECT["dependencies"], *(line for extra in extras for line in optional[extra])]
    left, seen = [Requirement(line) for line in lines], set()
    while left:
        wanted = left.pop()
        key = (canonicalize_name(wanted.name), frozenset(wanted.extras))
        if key in seen:
            continue
        seen.add(key)
        for line in importlib.metadata.requires(wanted.name) or ():
            needed = Requirement(line)
            contexts = [{"extra": extra} for extra in ("", *wanted.extras)]
            if needed.marker is None or any(map(needed.marker.evaluate, contexts)):
                left.append(needed)
    return {name for name, _ in seen}


def packages_of_images() -> set[str]:
    """The packages of constraints.txt that the Dockerfiles install."""
    found: set[str] = set()
    for path in DOCKERFILES:
        text = path.read_text(encoding="utf-8")
        extras = re.findall(
            r'^ARG EXTRAS="(.+)"$|^RUN python3 requirements\.py (\w.*)$', text, re.M
        )
        assert extras, path
        found |= {extra for pair in extras for extra in "".join(pair).split()}
    return packages_of(found)


def pins() -> dict[str, str]:
    """Pins of constraints.txt: version and environment marker of each package."""
    text = (ROOT / "docker" / "constraints.txt").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==(.*?) \\$", text, re.MULTILINE))


def licence(package: str) -> str:
    """The licence that an installed package names: an SPDX expression, or words joined by AND."""
    metadata = importlib.metadata.metadata(package)
    classifiers = [
        line.rpartition(" :: ")[2]
        for line in metadata.get_all("Classifier", [])
        if line.startswith("License :: ")
    ]
    words = str(metadata.get("License") or "").strip().partition("\n")[0]
    return (
        WITHOUT_METADATA.get(package)
        or metadata.get("License-Expression")
        or " AND ".join(classifiers)
        or {"Apache 2.0": "Apache-2.0", "ISC License": "ISC"}.get(words, words)
        or "none named"
    )


def is_permissive(expression: str) -> bool:
    """Of each part (AND) one alternative (OR) is permissive."""
    return all(
        any({name.strip(), name.strip("() ")} & PERMISSIVE for name in part.split(" OR "))
        for part in expression.split(" AND ")
    )


def listed() -> set[str]:
    """The packages with an entry in NOTICE."""
    return set(re.findall(r"^\* ([a-z0-9-]+): ", NOTICE, re.MULTILINE))


def unlisted(packages: Iterable[str]) -> list[str]:
    """Packages, with their licences, that are neither permissive nor listed in NOTICE."""
    return [
        f"{package}: {licence(package)}"
        for package in sorted(set(packages) - listed())
        if not is_permissive(licence(package))
    ]


def test_packages_of_images_are_permissive_or_listed() -> None:
    assert unlisted(packages_of_images()) == []


def test_notice_lists_only_packages_of_images() -> None:
    assert listed() - packages_of_images() == set()


def test_every_pin_is_for_images_or_tests_or_other_systems() -> None:
    """Checks that the reading of dependencies above misses no package."""
    read = packages_of_images() | packages_of(PROJECT["optional-dependencies"].keys() - {"sim"})

    left = {name: pin for name, pin in pins().items() if name not in read}

    assert {"torch", "certifi", "kopf", "transformers", "wandb"} <= packages_of_images()
    assert packages_of_images() <= pins().keys()
    assert not [f"{n}=={p}" for n, p in left.items() if not re.search("win32|emscripten", p)]


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        ("License-Expression: AGPL-3.0-only", "AGPL-3.0-only"),
        ("License-Expression: MIT AND LGPL-2.1-or-later", "MIT AND LGPL-2.1-or-later"),
        ("License: GPL", "GPL"),
        (
            "Classifier: License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)",
            "Mozilla Public License 2.0 (MPL 2.0)",
        ),
        ("Summary: says nothing", "none named"),
        ("License-Expression: (GPL-2.0-only OR MIT) AND BSD-3-Clause", None),
        ("License: MIT\nClassifier: License :: OSI Approved :: MIT License", None),
    ],
)
def test_new_package_is_found_unless_permissive(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, metadata: str, found: str | None
) -> None:
    folder = tmp_path / "planted-1.0.dist-info"
    folder.mkdir()
    (folder / "METADATA").write_text(f"Metadata-Version: 2.4\nName: planted\n{metadata}\n\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setitem(PROJECT["optional-dependencies"], "worker", ["planted"])

    packages = packages_of_images()

    assert "planted" in packages
    assert unlisted(packages) == ([f"planted: {found}"] if found else [])


def libraries(folder: Path) -> set[str]:
    """The names of the shared libraries that wheels in a folder bring from other projects."""
    found = [*folder.glob("*.libs/*.so*"), *folder.glob("torch/lib/*.so.*")]
    return {re.split(r"(?:-[0-9a-f]{8})*\.", path.name)[0] for path in found}


def unlisted_libraries(folder: Path) -> set[str]:
    """Shared libraries that wheels bring and that are neither known as permissive nor in NOTICE."""
    in_notice = set(re.findall(r"\blib[\w-]*\w", NOTICE))
    return libraries(folder) - PERMISSIVE_LIBRARIES - in_notice


def test_libraries_in_wheels_are_permissive_or_listed() -> None:
    folder = Path(str(importlib.metadata.distribution("av").locate_file("")))

    assert {"libavcodec", "libx264", "libgomp"} <= libraries(folder)
    assert unlisted_libraries(folder) == set()


def test_new_library_in_a_wheel_is_found(tmp_path: Path) -> None:
    for name in ("libx264-d6533a8d.so.165", "libfdk-aac-0123abcd.so.2", "libpng16.86585de4.so.16"):
        (tmp_path / "av.libs").mkdir(exist_ok=True)
        (tmp_path / "av.libs" / name).touch()

    assert unlisted_libraries(tmp_path) == {"libfdk-aac"}


def test_packages_added_by_the_gpu_image_are_listed() -> None:
    text = (ROOT / "docker" / "worker.Dockerfile").read_text().replace("\\\n", " ")
    text = text.partition("AS extensions\n")[2].partition("\nFROM ")[0]
    named = [
        word.strip('";').partition("=")[0]
        for words in re.findall(r"--no-deps +([^;]+);", text)
        for word in words.split()
    ]

    assert {"transformer-engine", "onnx"} <= set(named)
    words = set(re.findall(r"[\w-]+", NOTICE))
    assert {name.removeprefix("./") for name in named} - words == set()


@pytest.mark.parametrize("path", DOCKERFILES, ids=lambda path: path.stem)
def test_images_hold_licence_and_notice(path: Path) -> None:
    stages = path.read_text(encoding="utf-8").split("\nFROM ")[1:]
    last_stage = stages[-1]
    for common in stages:  # both images of the worker begin with one stage
        if last_stage.startswith(f"{common.splitlines()[0].rpartition(' AS ')[2]} AS "):
            last_stage = common
    ignored = path.with_name(f"{path.name}.dockerignore").read_text(encoding="utf-8")

    assert "\nCOPY LICENSE NOTICE /usr/share/doc/cosmos/\n" in last_stage
    assert {"!LICENSE", "!NOTICE"} <= set(ignored.splitlines())


def test_wheel_holds_licence_and_notice(tmp_path: Path) -> None:
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path)]
    subprocess.run(build, cwd=ROOT, capture_output=True, check=True)

    (wheel,) = tmp_path.glob("*.whl")
    held = {name.rpartition("/")[2] for name in zipfile.ZipFile(wheel).namelist()}
    assert {"LICENSE", "NOTICE"} <= held
