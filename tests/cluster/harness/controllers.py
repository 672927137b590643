"""Controllers of other projects in the cluster: built from their Go modules, deployed from their own manifests.

A controller's program is alone in its image, and a kustomization over its manifests sets that image, asks for little
of the node's processors, and adds what the controller's own file (training_operator.py, kueue.py, trainer.py) says.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness import oci, registry
from harness.build import go, install
from harness.buildah import pull_archive, push
from harness.commands import run
from harness.constants import GO_VERSION, REGISTRY_OF_PODS
from harness.control_plane import kubectl
from harness.errors import HarnessError
from harness.images import preload
from harness.paths import artifact, artifact_path, cache, lock, state

logger = logging.getLogger(__name__)

Manifest = Mapping[str, Any]
USER = "65532"
WAIT = "180s"
SERVED_AFTER_S = 60
PROGRAM = "manager"


@dataclass(frozen=True)
class DeployedController:
    """A controller, where it comes from, and how it is deployed."""

    name: str
    """Name of its image, and of its folders in the cache."""
    module: str
    version: str
    package: str
    """The program's main package."""
    manifests: str
    """The module's folder of kustomizations."""
    bases: tuple[str, ...]
    """Kustomizations in that folder that are deployed."""
    namespace: str
    deployment: str
    crd: str
    """Name of a CustomResourceDefinition that it brings."""
    certificate: str = ""
    """Secret in which it writes its certificate, and which it reads as a file of its pod."""
    container: str = "manager"
    objects: tuple[Manifest, ...] = ()
    """Objects that are deployed beside the manifests."""
    kustomization: Manifest = field(default_factory=dict)
    """Further fields of our kustomization."""
    container_patch: Manifest = field(default_factory=dict)
    pod_patch: Manifest = field(default_factory=dict)

    def build(self) -> Path:
        """A folder with its program (bin/) and its manifests (manifests/)."""

        def make(folder: Path) -> None:
            logger.info("%s %s is built from its module: minutes", self.name, self.version)
            module = (
                folder / "module"
            )  # of our own: not every module can be installed by name@version
            module.mkdir()
            run([go(), "mod", "init", "controller"], folder=module)
            run([go(), "mod", "edit", f"-require={self.module}@{self.version}"], folder=module)
            flags = ["-mod=mod", "-trimpath", "-ldflags", "-s -w"]
            install([*flags, self.package], folder / "bin", module)
            found = run([go(), "mod", "download", "-json", self.module], folder=module)
            source = Path(json.loads(found)["Dir"]) / self.manifests
            shutil.copytree(source, folder / "manifests", copy_function=shutil.copyfile)
            run(["chmod", "-R", "u+w", folder / "manifests"])

        return artifact(self.name, self._ingredients, make)

    @property
    def _ingredients(self) -> list[str]:
        return [self.module, self.version, self.package, GO_VERSION]

    @property
    def folder(self) -> Path:
        """The folder that ``build`` makes; absent before."""
        return artifact_path(self.name, self._ingredients)

    def image(self) -> str:
        """Push an image that holds its program alone; returns the image's name for pods."""
        with lock("images"):
            if not registry.has(self.name, self.version):
                folder = cache() / f"{self.name}-image"
                folder.mkdir(exist_ok=True)
                (program,) = (self.build() / "bin").iterdir()
                layer = oci.layer_of({f"/{PROGRAM}": program}, folder / "layer.tar")
                archive = folder / "image.tar"
                local = f"localhost/{self.name}:{self.version}"
                oci.write_image(local, layer, archive, entrypoint=[f"/{PROGRAM}"], user=USER)
                pull_archive(archive)
                push(self.name, self.version)
                shutil.rmtree(folder)
        return f"{REGISTRY_OF_PODS}/{self.name}:{self.version}"

    def install(self) -> None:
        """Deploy it and wait until it is ready."""
        image = self.image()
        preload(image)
        overlay = self._write_overlay(image)
        kubectl("apply", "--server-side", "--force-conflicts", f"--kustomize={overlay}")
        self._wait_until_served()
        where = f"--namespace={self.namespace}"
        if self.certificate:
            # the file follows the Secret after a minute or more, and is then looked for at growing intervals, minutes
            # in all; in a pod that begins after the Secret was filled it is there at once
            filled = "--for=jsonpath={.data.tls\\.crt}"
            kubectl("wait", where, filled, f"secret/{self.certificate}", f"--timeout={WAIT}")
            # gone before the other is ready, so that no request goes where nobody answers
            kubectl("delete", "pods", "--all", where, f"--timeout={WAIT}")
        kubectl("rollout", "status", where, f"deployment/{self.deployment}", f"--timeout={WAIT}")

    def _wait_until_served(self) -> None:
        """Wait until the resource has conditions, without which ``kubectl wait`` fails."""
        end = time.monotonic() + SERVED_AFTER_S
        while not self._is_served():
            if time.monotonic() > end:
                raise HarnessError(f"{self.crd} is not served after {SERVED_AFTER_S} s")
            time.sleep(0.2)

    def _is_served(self) -> bool:
        found = json.loads(kubectl("get", f"crd/{self.crd}", "--output=json"))
        conditions = found.get("status", {}).get("conditions") or ()
        return any(one["type"] == "Established" and one["status"] == "True" for one in conditions)

    def remove(self) -> None:
        """Remove it with its resources and all their objects, if it is there."""
        if self._overlay.exists() and kubectl("get", f"crd/{self.crd}", "--ignore-not-found"):
            gone = ("--ignore-not-found", "--wait", f"--timeout={WAIT}")
            kubectl("delete", f"--kustomize={self._overlay}", *gone)

    @property
    def _overlay(self) -> Path:
        return state() / self.name

    def _write_overlay(self, image: str) -> Path:
        """A kustomization over the module's. kustomize wants relative paths to folders."""
        folder = self._overlay
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        files = {f"object-{i}.yaml": manifest for i, manifest in enumerate(self.objects)}
        for name, manifest in files.items():
            (folder / name).write_text(json.dumps(manifest, indent=1))
        built = self.build() / "manifests"
        kustomization = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            "resources": [*(os.path.relpath(built / base, folder) for base in self.bases), *files],
            "patches": [
                {"target": {"kind": "Deployment"}, "patch": json.dumps(self._patch(image))}
            ],
            **self.kustomization,
        }
        (folder / "kustomization.yaml").write_text(json.dumps(kustomization, indent=1))
        return folder

    def _patch(self, image: str) -> Manifest:
        probe = {"initialDelaySeconds": 1, "periodSeconds": 1}
        container = {
            "name": self.container,
            "image": image,
            "imagePullPolicy": "IfNotPresent",
            "resources": {"requests": {"cpu": "10m"}},
            "readinessProbe": probe,
            **self.container_patch,
        }
        return {
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {"name": self.deployment},
            "spec": {"template": {"spec": {"containers": [container], **self.pod_patch}}},
        }
