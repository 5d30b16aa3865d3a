"""The contract that operator, shard, simulator and command line share: resources, sharding maths, Discord constants."""
