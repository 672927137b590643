"""The command ``cosmos``: run, render, validate, crd, fields. Imports no torch.

The only file of ``cosmos`` that turns errors into exit codes.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from cosmos_operator.errors import OperatorError
from cosmos_worker.errors import EXIT_OK

Command = Callable[[argparse.Namespace], int]


def build_parser() -> argparse.ArgumentParser:
    """The argument parser of ``cosmos``."""
    parser = argparse.ArgumentParser(
        prog="cosmos",
        description="Post-train Cosmos-Predict1 Video2World models from one PostTrainingJob YAML.",
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
    run.add_argument("job", type=Path, help="YAML file of a PostTrainingJob")
    run.add_argument(
        "--workspace",
        type=Path,
        metavar="DIR",
        help="folder for all files of the job (default: runs/<job name>)",
    )
    render = add(
        "render", _render, "print the manifests of all objects that the operator would create"
    )
    render.add_argument("job", type=Path, help="YAML file of a PostTrainingJob")
    validate = add(
        "validate",
        _validate,
        "check the jobs of a file; print what is wrong with them, or what they would do",
    )
    validate.add_argument("job", type=Path, help="YAML file of a PostTrainingJob")
    add("crd", _crd, "print the CustomResourceDefinition")
    fields = add(
        "fields", _fields, "print all fields of a job, or all options of an experiment, as Markdown"
    )
    fields.add_argument("subject", choices=("job", "experiment"), help="what to print")
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of ``cosmos``; returns the exit code."""
    options = build_parser().parse_args(arguments)
    try:
        code: int = options.run(options)
    except OperatorError as error:
        sys.stderr.write(f"{error}\n")
        return error.exit_code
    except BrokenPipeError:  # the reader of our output, such as head, has seen enough
        sys.stderr.close()
        return EXIT_OK
    return code


def _run(options: argparse.Namespace) -> int:
    from cosmos_operator.local.run import run_job

    return run_job(options.job, options.workspace)


def _render(options: argparse.Namespace) -> int:
    from cosmos_operator.api.parse import load_job
    from cosmos_operator.plan.render import build_manifests, to_yaml
    from cosmos_operator.plan.stages import plan_stages

    job = load_job(options.job)
    sys.stdout.write(to_yaml(build_manifests(job, plan_stages(job))))
    sys.stdout.flush()
    return EXIT_OK


def _validate(options: argparse.Namespace) -> int:
    from cosmos_operator.local.validate import describe_file

    for line in describe_file(options.job):
        sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
    return EXIT_OK


def _crd(options: argparse.Namespace) -> int:
    from cosmos_operator.api.crd import build_crd
    from cosmos_operator.plan.render import to_yaml

    sys.stdout.write(to_yaml([build_crd()]))
    sys.stdout.flush()
    return EXIT_OK


def _fields(options: argparse.Namespace) -> int:
    from cosmos_operator.api.docs import experiment_page, job_page

    sys.stdout.write(job_page() if options.subject == "job" else experiment_page())
    sys.stdout.flush()
    return EXIT_OK


if __name__ == "__main__":
    sys.exit(main())
