"""The arguments of ``cosmos prune``; imports no library, so that every help is quick."""

from __future__ import annotations

import argparse
import re
from pathlib import Path

from cosmos_worker.storage.volumes import VOLUMES

UNITS_S = {"m": 60.0, "h": 3600.0, "d": 86400.0}


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of ``cosmos prune``."""
    command.add_argument("--workspace", type=Path, metavar="DIR", help="a folder of cosmos run")
    for volume in VOLUMES:
        command.add_argument(
            f"--{volume}",
            type=Path,
            metavar="DIR",
            help=f"folder at which the volume {volume} is mounted (default: $COSMOS_{volume.upper()})",
        )
    command.add_argument(
        "--namespace",
        action="append",
        default=[],
        metavar="NAME",
        help="namespace whose jobs use the volumes; give it once for each (read from the API server)",
    )
    command.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="credentials (default: those of the pod, else $KUBECONFIG)",
    )
    command.add_argument(
        "--jobs",
        action="append",
        default=[],
        metavar="FILE",
        help="in place of --namespace: all living jobs, as `kubectl get posttrainingjobs,inferencejobs,configmaps "
        "-n NAMESPACE -o yaml` prints them; - reads standard input",
    )
    command.add_argument(
        "--older-than",
        type=parse_age,
        default=UNITS_S["d"],
        metavar="AGE",
        help="leave what was changed within this time, such as 90m, 12h or 7d (default: 1d)",
    )
    command.add_argument(
        "--also",
        action="append",
        default=[],
        metavar="VOLUME/NAME",
        help="a run, published model or other folder that is to go too, such as checkpoints/NAME",
    )
    command.add_argument("--delete", action="store_true", help="remove what is listed as unused")
    command.add_argument(
        "--render",
        type=Path,
        metavar="JOB",
        help="print the manifests of a Job that prunes the claims of this job's file, and do nothing else",
    )
    command.add_argument(
        "--image", metavar="IMAGE", help="with --render: the image of the operator, with its tag"
    )


def parse_age(text: str) -> float:
    """Seconds of a time such as 90m, 12h or 7d.

    Raises:
        ArgumentTypeError: it is none.
    """
    match = re.fullmatch(r"(\d{1,6})([mhd])", text)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r}: give a number and m, h or d, such as 12h")
    return int(match[1]) * UNITS_S[match[2]]
