"""The command ``cosmos``: run, view, render, validate, prune, crd, fields, and jobs on a cluster. Imports no torch.

The only file of ``cosmos`` that turns errors into exit codes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cosmos_operator.errors import InvalidSpec, OperatorError
from cosmos_worker.errors import EXIT_OK, UserError

VIEW = "view"
JOB_HELP = "YAML file of a PostTrainingJob or an InferenceJob"
ON_A_CLUSTER = {
    "submit": "create the jobs of a file on a cluster, after the checks of cosmos validate",
    "wait": "print the states of a job until it ends; exit code 0 if it succeeds, 1 if it fails",
    "logs": "print the log of a job's current stage",
    "stop": "suspend a job: its training saves a checkpoint and frees its GPUs",
    "resume": "let a suspended job go on",
    "ls": "list the jobs of a namespace, as kubectl get does",
    "pull": "copy the model, the report and the videos of a job into a local folder",
}
"""Commands for jobs on a cluster, and what they do."""
INSTALL = "install it: pip install 'cosmos-post-training[client]'"
Command = Callable[[argparse.Namespace], int]


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of ``cosmos``."""
    parser = argparse.ArgumentParser(
        prog="cosmos",
        description="Post-train Cosmos-Predict1 Video2World models, and generate videos with them, from one YAML.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")

    def add(name: str, run: Command, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(run=run)
        return command

    run = add(
        "run",
        _run,
        "carry out a job on this machine; the same command continues a job that was stopped",
    )
    run.add_argument("job", type=Path, help=JOB_HELP)
    run.add_argument(
        "--workspace",
        type=Path,
        metavar="DIR",
        help="folder for all files of the job (default: runs/<job name>)",
    )
    render = add(
        "render", _render, "print the manifests of all objects that the operator would create"
    )
    render.add_argument("job", type=Path, help=JOB_HELP)
    validate = add(
        "validate",
        _validate,
        "check the jobs of a file; print what is wrong with them, or what they would do",
    )
    validate.add_argument("job", type=Path, help=JOB_HELP)
    for command in (run, render, validate):
        command.add_argument(
            "--model-job",
            type=Path,
            metavar="FILE",
            help="for an InferenceJob: YAML file of the PostTrainingJob that its spec.model.job names "
            "(default: as it was run in the workspace)",
        )
    _add_prune(
        add(
            "prune",
            _prune,
            "say what in a workspace, or on the claims of a cluster, belongs to no job; remove it with --delete",
        )
    )
    commands.add_parser(
        VIEW, add_help=False, help="serve pages of runs, videos and datasets to a browser"
    )
    add("crd", _crd, "print the CustomResourceDefinitions")
    fields = add(
        "fields", _fields, "print all fields of a job, or all options of an experiment, as Markdown"
    )
    fields.add_argument(
        "subject", choices=("job", "inferencejob", "experiment"), help="what to print"
    )
    for name, text in ON_A_CLUSTER.items():
        _add_arguments(name, add(name, _on_a_cluster, text))
    return parser


def _add_arguments(name: str, command: argparse.ArgumentParser) -> None:
    """Add the arguments of a command for jobs on a cluster."""
    if name == "submit":
        command.add_argument("file", type=Path, metavar="JOB.yaml", help="YAML file of the jobs")
        command.add_argument("--wait", action="store_true", help="wait for the end, as cosmos wait")
    elif name == "ls":
        command.add_argument(
            "kind", nargs="?", choices=("ptj", "ij"), help="PostTrainingJobs or InferenceJobs only"
        )
        command.add_argument("-A", "--all-namespaces", action="store_true")
        command.add_argument("-o", "--output", choices=("wide",), help="wide: all columns")
    else:
        command.add_argument(
            "job",
            metavar="JOB",
            help="name of the job; ptj/NAME or ij/NAME where both kinds have it",
        )
    if name in ("submit", "wait"):
        command.add_argument(
            "--timeout", type=float, metavar="SECONDS", help="longest wait (default: for ever)"
        )
    if name == "logs":
        command.add_argument(
            "-f", "--follow", action="store_true", help="go on, with the next stages too"
        )
        command.add_argument("--stage", help="only this stage, such as train or generate-before")
        command.add_argument("--tail", type=int, metavar="LINES", help="only the last lines")
    if name == "pull":
        command.add_argument(
            "--to", type=Path, metavar="DIR", help="local folder (default: the job's name)"
        )
        command.add_argument(
            "--only",
            action="append",
            choices=("model", "report", "videos"),
            help="only this; may be repeated",
        )
        command.add_argument(
            "--image", help="image of the pod that reads the claim (default: that of the job)"
        )
    command.add_argument("-n", "--namespace", help="namespace (default: that of the context)")
    command.add_argument("--context", help="context of the kubeconfig (default: its current one)")
    command.add_argument(
        "--kubeconfig",
        type=Path,
        metavar="FILE",
        help="credentials (default: those of kubectl, or of the pod)",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``cosmos``; returns the exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    if given[:1] == [VIEW]:
        return _view(given)
    options = build_parser().parse_args(given)
    try:
        code: int = options.run(options)
    except (OperatorError, UserError) as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        sys.stderr.close()
        return EXIT_OK
    return code


def _on_a_cluster(options: argparse.Namespace) -> int:
    try:
        from cosmos_operator.client import commands
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] not in ("kubernetes", "aiohttp"):
            raise
        problem = f"cosmos {options.command}: package {error.name!r} is missing; {INSTALL}"
        raise InvalidSpec([problem]) from None
    return commands.run(options)


def _run(options: argparse.Namespace) -> int:
    from cosmos_operator.local.run import run_job

    return run_job(options.job, options.workspace, options.model_job)


def _view(given: Sequence[str]) -> int:
    """Go on as ``cosmos-worker view``, which has the options; returns only if that program cannot be started."""
    program = [sys.executable, "-m", "cosmos_worker.cli", *given]
    os.execv(program[0], program)  # noqa: S606 - our own program, without a shell


def _render(options: argparse.Namespace) -> int:
    from cosmos_operator.local.render import render_job

    sys.stdout.write(render_job(options.job, options.model_job))
    sys.stdout.flush()
    return EXIT_OK


def _validate(options: argparse.Namespace) -> int:
    from cosmos_operator.local.validate import describe_file

    for line in describe_file(options.job, options.model_job):
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    return EXIT_OK


def _add_prune(command: argparse.ArgumentParser) -> None:
    from cosmos_operator.local.prune_arguments import add_arguments

    add_arguments(command)


def _prune(options: argparse.Namespace) -> int:
    from cosmos_operator.local.prune_command import run_prune

    return run_prune(options)


def _crd(options: argparse.Namespace) -> int:
    from cosmos_operator.api.crd import build_crds
    from cosmos_operator.plan.render import to_yaml

    sys.stdout.write(to_yaml(build_crds()))
    sys.stdout.flush()
    return EXIT_OK


def _fields(options: argparse.Namespace) -> int:
    from cosmos_operator.api.docs import experiment_page, inference_job_page, job_page

    pages = {
        "job": job_page,
        "inferencejob": inference_job_page,
        "experiment": experiment_page,
    }
    sys.stdout.write(pages[options.subject]())
    sys.stdout.flush()
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
