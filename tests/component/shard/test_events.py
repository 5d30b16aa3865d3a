"""What a pod forwards: every event as Discord sent it, whatever its name, size and layout."""


async def test_every_event_is_forwarded(open_stage, compression):
    """A mix of events reaches the sink once each, byte for byte and in order."""
    stage = await open_stage(shards=2, compression=compression)
    await stage.started()
    stage.load(1000, rate=3000)
    await stage.arrived()
