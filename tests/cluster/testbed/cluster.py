"""What tests hold in their hands: `bed = testbed.up()`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from testbed import bed, images, second_node, settings

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Cluster:
    """A running bed: where to find it, and the few things tests do to it."""

    kubeconfig: Path = settings.ADMIN_KUBECONFIG
    bin: Path = settings.BIN
    state: Path = settings.STATE
    logs: Path = settings.LOGS
    node_address: str = settings.NODE_ADDRESS

    def images(self) -> list[str]:
        """Build and import the project's images; return their names."""
        return images.build_and_import()

    def second_node_up(self) -> None:
        """Bring the second node up, unless it is."""
        bed.second_node_up()

    def second_node_down(self) -> None:
        """Stop the second node and remove all of it."""
        bed.second_node_down()

    def second_node_link(self, *, up: bool) -> None:
        """Plug the second node's network cable in or out."""
        second_node.set_link(up=up)

    def stop_api_server(self) -> None:
        """Take the API server away."""
        bed.stop_api_server()

    def start_api_server(self) -> None:
        """Bring the API server back, and wait until it is ready."""
        bed.start_api_server()


def up() -> Cluster:
    """Bring the bed up unless it is, and return it."""
    bed.up()
    return Cluster()
