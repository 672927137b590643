"""Images that the node needs before the kubelet starts: the pause image, which holds a pod's namespaces."""

from __future__ import annotations

from pathlib import Path

from harness import oci, runtime
from harness.build import pause
from harness.constants import PAUSE_IMAGE
from harness.paths import artifact


def import_missing() -> None:
    """Give containerd the pause image, unless it has it."""
    if PAUSE_IMAGE not in runtime.images():
        runtime.ctr("images", "import", _pause_archive())


def _pause_archive() -> Path:
    program = pause()

    def make(folder: Path) -> None:
        layer = oci.layer_of({"/pause": program}, folder / "layer.tar")
        oci.write_image(
            PAUSE_IMAGE, layer, folder / "image.tar", entrypoint=["/pause"], user="65535"
        )

    return artifact("pause-image", [PAUSE_IMAGE, program], make) / "image.tar"
