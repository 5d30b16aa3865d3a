"""The contract that operator, shard, simulator and command line share: resources, sharding maths, Discord constants."""

__version__ = "0.1.0"
