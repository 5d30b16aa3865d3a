"""The verbs of `python3 -m testbed`."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from testbed import bed, images, second_node, settings
from testbed.errors import BedError

if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one verb; print a `BedError` as it is and return 1."""
    arguments = _parser().parse_args(argv)
    try:
        arguments.run(arguments)
    except BedError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="testbed", description="A real Kubernetes node for tests and the demo.")
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    up = verbs.add_parser("up", help="bring the bed up (harmless when it is)")
    up.add_argument("--images", action="store_true", help="build and import the project's images too")
    up.set_defaults(run=_up)
    plain = {
        "down": (lambda _: bed.down(), "stop everything, remove the state folder, keep the cache"),
        "images": (lambda _: images.build_and_import(), "build and import the project's images"),
        "status": (lambda _: print(bed.status()), "what runs, and where the logs are"),
        "env": (lambda _: print(environment()), "print exports for a shell"),
        "stop-apiserver": (lambda _: bed.stop_api_server(), "take the API server away"),
        "start-apiserver": (lambda _: bed.start_api_server(), "bring the API server back"),
    }
    for verb, (action, text) in plain.items():
        verbs.add_parser(verb, help=text).set_defaults(run=action)
    _add_second_node(verbs.add_parser("second-node", help="a second node, and its network cable"))
    return parser


def _add_second_node(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    verbs.add_parser("up").set_defaults(run=lambda _: bed.second_node_up())
    verbs.add_parser("down").set_defaults(run=lambda _: bed.second_node_down())
    link = verbs.add_parser("link", help="plug the cable in (up) or out (down)")
    link.add_argument("state", choices=("up", "down"))
    link.set_defaults(run=lambda arguments: second_node.set_link(up=arguments.state == "up"))


def _up(arguments: argparse.Namespace) -> None:
    bed.up()
    if arguments.images:
        images.build_and_import()


def environment() -> str:
    """Return the lines that make a shell use the bed."""
    return f'export KUBECONFIG="{settings.ADMIN_KUBECONFIG}"\nexport PATH="{settings.BIN}:$PATH"'
