"""What a pod forwards: every event as Discord sent it, whatever its name, size and layout."""

from component.shard.stage import until
from shardwright_simulator import Action, Fault
from shardwright_simulator.options import KeyOrder


async def test_every_event_is_forwarded_as_sent(open_stage, compression):
    """A mix of events reaches the sink once each, byte for byte and in order per session."""
    stage = await open_stage(shards=2, compression=compression)
    await stage.started()
    stage.load(1000, rate=3000)
    await stage.arrived()


async def test_an_unknown_event_is_forwarded_and_counted_as_other(open_stage):
    """A name that no docs know goes to the sink under its own name, and into one series of the metrics."""
    stage = await open_stage()
    pod = await stage.started()
    stage.load(20, mix={"SHARDWRIGHT_FUTURE_EVENT": 1})
    await stage.arrived()
    assert [e.name for _, e in pod.sink.events].count("SHARDWRIGHT_FUTURE_EVENT") == 20
    assert 'discord_gateway_events_total{event="other"} 20.0' in pod.metrics()
    assert "SHARDWRIGHT_FUTURE_EVENT" not in pod.metrics()


async def test_identical_twins_both_arrive(open_stage, compression):
    """Two events with the same data are two events: only their sequences differ."""
    stage = await open_stage(compression=compression)
    pod = await stage.started()
    stage.load(50, twins=1.0)
    await stage.arrived()
    assert sum(entry.flags == "twin" for entry in stage.control.ledger()) == 50
    assert len(pod.sink.events) == 103  # with READY and the two guilds


async def test_events_of_three_megabytes_arrive(open_stage, compression):
    """The largest events there are pass, among small ones."""
    stage = await open_stage(compression=compression)
    pod = await stage.started()
    stage.load(12, mix={"GUILD_UPDATE": 1}, sizes=[(3_000_000, 1), (300, 1)])
    await stage.arrived()
    assert max(len(event.payload) for _, event in pod.sink.events) > 2_900_000


async def test_the_order_of_the_envelopes_keys_does_not_matter(open_stage, compression):
    """Discord's key order is not promised: with `op` first everything works, a resume included."""
    stage = await open_stage(compression=compression, key_order=KeyOrder.OP_FIRST)
    pod = await stage.started()
    stage.load(400)
    await stage.sim.wait_for(lambda: stage.control.sessions()[0].seq > 200)
    stage.control.add_fault(Fault(action=Action.RECONNECT))
    await stage.arrived()
    assert pod.count("resumed") == 1


async def test_guilds_after_ready_are_marked_as_backfill_and_counted(open_stage):
    """GUILD_CREATE of a guild that READY listed carries `backfill`; the row says how many guilds the shard has."""
    stage = await open_stage(shards=2, bot={"guilds": 61})
    pod = await stage.started()
    await stage.arrived()
    assert sum(event.backfill for _, event in pod.sink.events) == 61
    await until(lambda: sorted(row.guilds for row in stage.rows()) == [30, 31])


async def test_a_guild_that_is_joined_later_is_no_backfill(open_stage):
    """A GUILD_CREATE without an announcement is a join: not marked, and one guild more. A GUILD_DELETE is one less."""
    stage = await open_stage()
    await stage.started()
    await stage.arrived()
    stage.load(3, mix={"GUILD_CREATE": 1})
    await stage.arrived()
    await until(lambda: stage.rows()[0].guilds == 5)
    stage.load(1, mix={"GUILD_DELETE": 1})
    await stage.arrived()
    await until(lambda: stage.rows()[0].guilds == 4)


async def test_a_guild_that_comes_back_after_an_outage_is_backfill(open_stage):
    """GUILD_DELETE with `unavailable` announces the GUILD_CREATE that ends the outage: no join, and no guild less."""
    stage = await open_stage()
    pod = await stage.started()
    await stage.arrived()
    session = next(iter(stage.control._gateway.bot(stage.control.bot().config.id).sessions.values()))
    guild = str(next(stage.control._gateway.bot(session.bot).guilds(0, 1)))
    for name, unavailable in (("GUILD_DELETE", True), ("GUILD_CREATE", False)):
        stage.control._gateway.dispatch_own(session, name, {"id": guild, "unavailable": unavailable}, flags="backfill")
    stage.control._flush()
    await until(lambda: len(pod.sink.events) == 5)
    assert [(e.name, e.backfill) for _, e in pod.sink.events[-2:]] == [("GUILD_DELETE", False), ("GUILD_CREATE", True)]
    await until(lambda: stage.rows()[0].guilds == 2)
