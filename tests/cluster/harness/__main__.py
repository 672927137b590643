"""A real Kubernetes of one node on this machine, for tests.

up starts it and prints KUBECONFIG=...; down stops it and leaves nothing running; images builds the project's images
and gives them to the node; env prints shell assignments: eval "$(python -m harness env)".
"""

from __future__ import annotations

import argparse
import logging
import shlex
import shutil
import sys
from collections.abc import Callable
from functools import partial

from harness import (
    api_server,
    base_image,
    build,
    images,
    kueue,
    lifecycle,
    preflight,
    trainer,
    training_operator,
)
from harness.constants import NEWEST_KUEUE_VERSION
from harness.errors import HarnessError
from harness.packages import environment
from harness.paths import cache, kubeconfig

ADDONS = {
    "training-operator": (training_operator.install, training_operator.remove),
    "trainer": (trainer.install, trainer.remove),
    "kueue": (kueue.install, kueue.remove),
}


def main() -> int:
    """Run one command; returns the exit code."""
    options = _parser().parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    action: Callable[[argparse.Namespace], None] = options.action
    try:
        action(options)
    except HarnessError as error:
        sys.stderr.write(f"harness: {error}\n")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m harness",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(
        name: str, summary: str, action: Callable[[argparse.Namespace], None]
    ) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=summary, description=summary)
        command.set_defaults(action=action)
        return command

    add(
        "build", "make what is slow and missing, programs and base image, and start nothing", _build
    )
    add(
        "api-server-programs",
        "make what tests of an API server without a node need, and is missing",
        _api_server_programs,
    )
    start = add("up", "build what is missing and start the cluster", _up)
    only = "start etcd, API server, controller-manager and scheduler: no pod runs"
    start.add_argument("--control-plane-only", action="store_true", help=only)
    stop = add("down", "stop the cluster; images stay", _down)
    stop.add_argument(
        "--keep", action="store_true", help="let the next start continue with its objects"
    )
    chosen = add("images", "build, push and preload images, and build the one for GPUs", _images)
    names = [*sorted(images.RECIPES), images.GPU_IMAGE]
    chosen.add_argument("names", nargs="*", default=names, metavar="NAME")
    add("status", "say what runs", _status)
    add("kubeconfig", "print the path of the administrator's kubeconfig", _kubeconfig)
    add("env", "print shell assignments of KUBECONFIG and PATH (kubectl, helm)", _environment)
    for name in ADDONS:
        addon = add(name, f"deploy or remove {name}", _addon)
        addon.add_argument("what", choices=("install", "remove"))
        addon.set_defaults(addon=name)
    add("clean", "remove cached images and registry data; the programs stay", _clean)
    return parser


def _say(text: str) -> None:
    sys.stdout.write(f"{text}\n")


def _refuse_unless_possible() -> None:
    found = preflight.problem()
    if found:
        raise HarnessError(found)


def _build(_: argparse.Namespace) -> None:
    _refuse_unless_possible()
    base_image.archive()
    with build.shared_objects():
        environment()
        for make in (
            training_operator.controller,
            trainer.jobset,
            trainer.trainer,
            kueue.controller,
            partial(kueue.controller, NEWEST_KUEUE_VERSION),
        ):
            make().build()


def _api_server_programs(_: argparse.Namespace) -> None:
    api_server.build_programs()


def _up(options: argparse.Namespace) -> None:
    _refuse_unless_possible()
    lifecycle.up(with_node=not options.control_plane_only)
    _say(f"KUBECONFIG={kubeconfig()}")


def _down(options: argparse.Namespace) -> None:
    lifecycle.down(keep=options.keep)


def _images(options: argparse.Namespace) -> None:
    for name in options.names:
        if name == images.GPU_IMAGE:
            _say(images.build_gpu_image())
            continue
        reference = images.build_and_push(name)
        images.preload(reference)
        _say(reference)


def _status(_: argparse.Namespace) -> None:
    for name, runs in lifecycle.running().items():
        _say(f"{name:20} {'running' if runs else 'stopped'}")
    if not lifecycle.running():
        _say("not started")


def _kubeconfig(_: argparse.Namespace) -> None:
    _say(str(kubeconfig()))


def _environment(_: argparse.Namespace) -> None:
    _say(f"export KUBECONFIG={shlex.quote(str(kubeconfig()))}")
    _say(f"export PATH={shlex.quote(environment()['PATH'])}")
    _say("export NO_PROXY='*' no_proxy='*'")


def _addon(options: argparse.Namespace) -> None:
    install, remove = ADDONS[options.addon]
    action = install if options.what == "install" else remove
    action()


def _clean(_: argparse.Namespace) -> None:
    if any(lifecycle.running().values()):
        raise HarnessError("the cluster runs: stop it with `down` first")
    for name in ("registry", "buildah", "run"):
        shutil.rmtree(cache() / name, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
