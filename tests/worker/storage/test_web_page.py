"""Web pages, and files that only look like one."""

from __future__ import annotations

from pathlib import Path

import pytest

from cosmos_worker.errors import DataError
from cosmos_worker.storage.web_page import (
    describe_page,
    refuse_page,
)

PAGES = {
    b"<!DOCTYPE html><html><head><title>Sign in</title>": "an HTML page titled 'Sign in'",
    b"\xef\xbb\xbf \n<HTML lang=en><TITLE a=b>\n Log &amp; in \x1b[31m</TITLE>": "an HTML page titled 'Log & in [31m'",
    b"<!-- proxy --> <!-- v2 -->\n<!doctype HTML>": "an HTML page without a title",
    b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "x"><html xmlns="x"><title></title>': "an HTML page without a title",
    b"<head><title>" + b"x" * 200 + b"</title>": f"an HTML page titled {'x' * 100!r}",
    "<html><title>Anmelden: Köln</title>".encode(): "an HTML page titled 'Anmelden: Köln'",
}


@pytest.mark.parametrize("content", PAGES)
def test_pages_are_told_with_their_titles(content: bytes):
    assert describe_page(content) == PAGES[content]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\x1f\x8b<html>",
        b"PK\x03\x04",
        b"<?xml version='1.0'?><Error/>",
        b"<htmlish>",
        b"\x00<html>",
        b"text about <html>",
    ],
)
def test_other_content_is_no_page(content: bytes):
    assert describe_page(content) is None


def test_refuse_page_looks_at_what_the_name_promises(tmp_path: Path):
    path = tmp_path / "x"
    path.write_bytes(b"<html><title>Hub</title>")

    for name in ("model.pt", "config.json", "videos/a.mp4", "clips.parquet", "LICENSE"):
        with pytest.raises(
            DataError,
            match=r"^https://a/b: got an HTML page titled 'Hub' instead of the file; .* open",
        ):
            refuse_page(path, "https://a/b", name)
    for name in ("README.md", "docs/index.html", "a.HTM", "notes.txt"):
        refuse_page(path, "https://a/b", name)
