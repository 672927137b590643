"""Progress of a download: a bar on a terminal, lines elsewhere."""

from __future__ import annotations

import logging

import pytest

from cosmos_worker.sources import download_progress
from cosmos_worker.sources.download_progress import TransferRate

MIB = 1 << 20


@pytest.mark.parametrize("total", [100 * MIB, None])
def test_terminal_shows_a_bar_and_no_lines(monkeypatch, capsys, caplog, total):
    monkeypatch.setattr(download_progress, "shows_bars", lambda: True)
    monkeypatch.setattr(download_progress, "LOG_INTERVAL_S", 0.0)
    caplog.set_level(logging.INFO)
    rate = TransferRate("url=x", total, 10 * MIB)
    rate.report(60 * MIB)
    rate.report(100 * MIB)
    rate.close()

    shown = capsys.readouterr().err
    assert ("url=x: 100%" if total else "url=x: 105MB") in shown
    assert caplog.text == ""


def test_log_gets_a_line_an_interval_and_no_bar(monkeypatch, capsys, caplog):
    monkeypatch.setattr(download_progress, "shows_bars", lambda: False)
    monkeypatch.setattr(download_progress, "LOG_INTERVAL_S", 0.0)
    monkeypatch.setattr(logging.getLogger(), "handlers", [caplog.handler])
    caplog.set_level(logging.INFO)
    rate = TransferRate("url=x", 100 * MIB)
    rate.report(50 * MIB)
    rate.close()

    assert "fetching url=x mib=50/100 mib_per_s=" in caplog.text
    assert capsys.readouterr().err == ""
