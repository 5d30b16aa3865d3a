"""The shard pod's program: keeps the sessions of a shard range and forwards every event to the sinks."""
