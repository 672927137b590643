"""Write an OCI image archive without a container engine."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

MANIFEST = "application/vnd.oci.image.manifest.v1+json"
CONFIG = "application/vnd.oci.image.config.v1+json"
LAYER = "application/vnd.oci.image.layer.v1.tar"
SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
EXECUTABLE = 0o755


def layer_of(files: Mapping[str, Path], output: Path) -> Path:
    """A layer of executable files, given as a map from names in the image to files."""
    with tarfile.open(output, "w") as archive:
        for name, path in sorted(files.items()):
            info = tarfile.TarInfo(name.lstrip("/"))
            info.mode, info.size = EXECUTABLE, path.stat().st_size
            with path.open("rb") as file:
                archive.addfile(info, file)
    return output


def write_image(
    reference: str, layer: Path, output: Path, *, entrypoint: Sequence[str] = (), user: str = ""
) -> None:
    """An OCI archive of one uncompressed layer, for ``ctr images import`` and ``buildah pull oci-archive:``."""
    layer_digest = _digest_of_file(layer)
    process = {"Env": [f"PATH={SEARCH_PATH}"], "Entrypoint": list(entrypoint), "User": user}
    config = _json(
        {
            "architecture": "amd64",
            "os": "linux",
            "config": {key: value for key, value in process.items() if value},
            "rootfs": {"type": "layers", "diff_ids": [layer_digest]},
            "history": [{"created": "1970-01-01T00:00:00Z", "created_by": "cosmos test harness"}],
        }
    )
    layers = [{"mediaType": LAYER, "digest": layer_digest, "size": layer.stat().st_size}]
    manifest = _json(
        {
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": _descriptor(CONFIG, config),
            "layers": layers,
        }
    )
    names = {
        "org.opencontainers.image.ref.name": reference,
        "io.containerd.image.name": reference,
    }
    listed = {
        **_descriptor(MANIFEST, manifest),
        "platform": {"architecture": "amd64", "os": "linux"},
        "annotations": names,
    }
    index = _json({"schemaVersion": 2, "manifests": [listed]})
    with tarfile.open(output, "w") as archive:
        _add(archive, "oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        _add(archive, "index.json", index)
        for blob in (config, manifest):
            _add(archive, _blob(_digest(blob)), blob)
        archive.add(layer, arcname=_blob(layer_digest), filter=_plain)


def _json(value: object) -> bytes:
    return json.dumps(value, sort_keys=True).encode()


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def _digest_of_file(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            total.update(block)
    return f"sha256:{total.hexdigest()}"


def _descriptor(media_type: str, content: bytes) -> dict[str, object]:
    return {"mediaType": media_type, "digest": _digest(content), "size": len(content)}


def _blob(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    archive.addfile(info, io.BytesIO(content))


def _plain(info: tarfile.TarInfo) -> tarfile.TarInfo:
    info.uid = info.gid = info.mtime = 0
    info.uname = info.gname = ""
    return info
