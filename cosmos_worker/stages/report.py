"""report: report.html of a run and its generated videos."""

from __future__ import annotations

from typing import Any

from cosmos_worker.config.stages import ReportConfig
from cosmos_worker.errors import ConfigError
from cosmos_worker.report.collect import (
    build_cards,
    count_captions,
    metrics_table,
    read_items,
    read_training,
)
from cosmos_worker.report.dataset import describe_losses, read_dataset
from cosmos_worker.report.page import render_page
from cosmos_worker.report.samples import sample_cards
from cosmos_worker.storage.volumes import (
    REPORT_FILE,
    Volumes,
    atomic_write,
)


def run(config: ReportConfig, volumes: Volumes) -> dict[str, Any]:
    """Write the report.

    Returns:
        report (path of the file) and table (rows of text, the header first).

    Raises:
        ConfigError: no inference item.
        DataError: a run, dataset or generated folder is not complete.
    """
    if not config.generated:
        raise ConfigError("generated: the list is empty; name at least one inference item")
    items = read_items([(name, volumes.resolve(uri)) for name, uri in config.generated])
    page = render_page(
        config.job_name,
        read_training(volumes.resolve(config.run_uri), config.steps),
        items,
        build_cards(items, config.max_videos),
        count_captions(volumes.resolve(config.dataset_uri)),
        sample_cards(volumes.resolve(config.run_uri), volumes.resolve(config.dataset_uri)),
        dataset=read_dataset(volumes.resolve(config.dataset_uri)),
        words=describe_losses(volumes.resolve(config.run_uri)),
    )
    path = volumes.resolve(config.target_uri) / REPORT_FILE
    with atomic_write(path, "w") as stream:
        stream.write(page)
    return {"report": str(path), "table": metrics_table(items)}
