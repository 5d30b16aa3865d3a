"""A real Kubernetes node for tests and the demo: `bed = testbed.up()`, or `python3 -m testbed up`."""

from testbed.bed import down
from testbed.cluster import Cluster, up
from testbed.errors import BedError

__all__ = ["BedError", "Cluster", "down", "up"]
