"""The command ``cosmos``: run, view, render, validate, prune, crd, fields. Imports no torch.

The only file of ``cosmos`` that turns errors into exit codes.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cosmos_operator.errors import OperatorError
from cosmos_worker.errors import EXIT_OK, UserError

VIEW = "view"
JOB_HELP = "YAML file of a PostTrainingJob or an InferenceJob"
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
    return parser


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
