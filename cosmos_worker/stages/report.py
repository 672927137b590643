"""report: one HTML file on generated videos, and on the run that trained their model."""

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
from cosmos_worker.report.page import Course, render_page
from cosmos_worker.report.samples import sample_cards
from cosmos_worker.storage.volumes import (
    REPORT_FILE,
    Volumes,
    atomic_write,
)


def run(config: ReportConfig, volumes: Volumes) -> dict[str, Any]:
    """Write the report.

    Returns:
        report: path of the file; table: rows of metrics as text, the header first.

    Raises:
        ConfigError: no inference item.
        DataError: the folder of the run, the dataset or an item is not complete.
    """
    if not config.generated:
        raise ConfigError("generated: the list is empty; name at least one inference item")
    items = read_items([(name, volumes.resolve(uri)) for name, uri in config.generated])
    page = render_page(
        config.job_name,
        items,
        build_cards(items, config.max_videos),
        _read_course(config, volumes),
    )
    path = volumes.resolve(config.target_uri) / REPORT_FILE
    with atomic_write(path, "w") as stream:
        stream.write(page)
    return {"report": str(path), "table": metrics_table(items)}


def _read_course(config: ReportConfig, volumes: Volumes) -> Course | None:
    """The report's part on the training; None if the model was not trained by a run that is known."""
    if config.run_uri is None or config.dataset_uri is None:
        return None
    run_folder, dataset = volumes.resolve(config.run_uri), volumes.resolve(config.dataset_uri)
    return Course(
        read_training(run_folder, config.steps),
        count_captions(dataset),
        sample_cards(run_folder, dataset),
        read_dataset(dataset),
        describe_losses(run_folder),
    )
