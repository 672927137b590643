"""The pages of the repository: every link, anchor and path in them exists, and the index of docs/ names every page."""

from __future__ import annotations

import re
import subprocess
import tomllib
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TRACKED = subprocess.run(
    ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
).stdout.splitlines()
PAGES = [name for name in TRACKED if name.endswith(".md")]
FOLDERS = {parent.as_posix() for name in TRACKED for parent in Path(name).parents}

FENCE = re.compile(r"^```.*?^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"!?\[[^\]\[]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+?) *$", re.MULTILINE)
CODE = re.compile(r"`([^`\n]+)`")
PLACED_NAME = re.compile(r"`(\w+)`(?:,\s+`(\w+)`)?\s+in\s+`([\w.-]+/[\w./-]+)`")
"""Matches `name` in `path`, where the file must contain the name."""
IDENTIFIER = re.compile(r"_?[A-Za-z]+(?:_[A-Za-z]+)+|[A-Z][a-z]+[A-Z]\w*")
"""Names of code that no prose has: SUCH_AS_THIS, such_as_this, SuchAsThis."""
MAKE_TARGET = re.compile(r"\bmake ([a-z-]+)`")
MAP_LINE = re.compile(r"^  (\w+)/ ", re.MULTILINE)
README_WORDS = 900
PICTURE_BYTES = 300_000


@cache
def read(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def without_examples(name: str) -> str:
    """The text of a page without its blocks of code."""
    return FENCE.sub("", read(name))


@cache
def anchors(name: str) -> frozenset[str]:
    """Anchors that GitHub gives to the headings of a page."""
    found: list[str] = []
    for heading in HEADING.findall(without_examples(name)):
        text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).replace("`", "")
        slug = re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
        twins = found.count(slug)
        found.append(f"{slug}-{twins}" if twins else slug)
    return frozenset(found)


def target_of(page: str, link: str) -> tuple[str, str]:
    """The file and the anchor that a relative link of a page leads to."""
    path, _, anchor = link.partition("#")
    if not path:
        return page, anchor
    absolute = ((ROOT / page).parent / path).resolve()
    assert absolute.is_relative_to(ROOT), f"{page}: {link} leaves the repository"
    return absolute.relative_to(ROOT).as_posix(), anchor


def relative_links(page: str) -> list[str]:
    links = LINK.findall(without_examples(page))
    return [link for link in links if not re.match(r"[a-z]+:", link)]


@pytest.mark.parametrize("page", PAGES)
def test_links_and_anchors_exist(page: str) -> None:
    for link in relative_links(page):
        target, anchor = target_of(page, link)
        assert target in TRACKED or target in FOLDERS, f"{page}: {link} leads nowhere"
        if anchor:
            assert anchor in anchors(target), f"{page}: {link} names no heading of {target}"


def test_index_names_every_page_of_docs() -> None:
    linked = {target_of("docs/README.md", link)[0] for link in relative_links("docs/README.md")}
    pages = {name for name in PAGES if name.startswith("docs/")} - {"docs/README.md"}

    assert pages - linked == set()


def test_readme_leads_to_the_index_and_to_contributing() -> None:
    linked = {target_of("README.md", link)[0] for link in relative_links("README.md")}

    assert {"docs/README.md", "CONTRIBUTING.md"} <= linked


def test_readme_is_read_in_three_minutes_and_its_picture_is_small() -> None:
    assert len(read("README.md").split()) <= README_WORDS
    for name in TRACKED:
        if name.startswith("docs/images/"):
            assert (ROOT / name).stat().st_size <= PICTURE_BYTES, name


# --- paths, names and commands in the text ---------------------------------------------------


def looks_like_a_path(text: str) -> bool:
    """True if a piece of code names a file or folder of this repository by its path from the root."""
    first, slash, _ = text.partition("/")
    roots = {name.split("/")[0] for name in TRACKED if "/" in name}
    return bool(slash) and first in roots and bool(re.fullmatch(r"[\w./*{},-]+", text))


def expand(text: str) -> list[str]:
    """The paths that a text with {a,b} stands for."""
    match = re.search(r"\{([^{}]+)\}", text)
    if match is None:
        return [text]
    before, after = text[: match.start()], text[match.end() :]
    return [path for part in match[1].split(",") for path in expand(f"{before}{part}{after}")]


def exists(path: str) -> bool:
    if "*" in path:
        return any(ROOT.glob(path))
    return path in TRACKED or path.rstrip("/") in FOLDERS


@pytest.mark.parametrize("page", [name for name in PAGES if name != "CHANGELOG.md"])
def test_paths_in_the_text_exist(page: str) -> None:
    named = [text for text in CODE.findall(without_examples(page)) if looks_like_a_path(text)]

    assert [path for text in named for path in expand(text) if not exists(path)] == []


@pytest.mark.parametrize("page", PAGES)
def test_names_are_in_the_files_where_a_page_says_they_are(page: str) -> None:
    for *names, path in PLACED_NAME.findall(without_examples(page)):
        for name in filter(None, names if looks_like_a_path(path) else ()):
            assert re.search(rf"\b{name}\b", read(path)), f"{page}: no {name} in {path}"


@pytest.mark.parametrize("page", [name for name in PAGES if name != "CHANGELOG.md"])
def test_make_has_the_targets_that_a_page_names(page: str) -> None:
    targets = set(re.findall(r"^([a-z-]+):", read("Makefile"), re.MULTILINE))

    assert set(MAKE_TARGET.findall(read(page))) <= targets


def test_names_of_code_in_contributing_exist() -> None:
    code = " ".join(read(name) for name in TRACKED if name.endswith((".py", ".yaml", ".tpl")))
    words = set(re.findall(r"\w+", code))
    named = set(CODE.findall(without_examples("CONTRIBUTING.md")))

    assert {text for text in named if IDENTIFIER.fullmatch(text)} - words == set()


# --- the map ---------------------------------------------------------------------------------


def folders_in_the_map(package: str) -> list[str]:
    (block,) = [
        text
        for text in FENCE.findall(read("CONTRIBUTING.md"))
        if text.splitlines()[1].startswith(f"{package}/ ")
    ]
    return MAP_LINE.findall(block)


@pytest.mark.parametrize("package", ["cosmos_worker", "operator/cosmos_operator"])
def test_map_has_every_folder(package: str) -> None:
    folders = {
        Path(name).relative_to(package).parts[0]
        for name in TRACKED
        if name.startswith(f"{package}/") and Path(name).parent != Path(package)
    }

    assert set(folders_in_the_map(package)) == folders


@pytest.mark.parametrize("package", ["cosmos_worker", "operator/cosmos_operator"])
def test_map_is_in_the_order_of_the_layers(package: str) -> None:
    root = Path(package).name
    contracts = tomllib.loads(read("pyproject.toml"))["tool"]["importlinter"]["contracts"]
    (layers,) = (one["layers"] for one in contracts if one.get("containers") == [root])
    height = {
        name.strip(): -number for number, layer in enumerate(layers) for name in layer.split("|")
    }
    heights = [height[folder] for folder in folders_in_the_map(package)]

    assert heights == sorted(heights)
