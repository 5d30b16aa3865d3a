"""The CRDs read well in `kubectl explain`, and bound all that they take."""

from __future__ import annotations

import json
import re

import pytest

from shardwright_api import discord
from unit.crds.schemas import FILES, PRESERVES_UNKNOWN, Node, load, nodes, root

BOUNDS = {
    "string": ("maxLength",),
    "integer": ("minimum", "maximum"),
    "number": ("minimum", "maximum"),
    "array": ("maxItems", "x-kubernetes-list-type"),
    "boolean": (),
}
EFFECT = re.compile(r"\b[Ll]ive\b|\bhand-over\b|\bre-identify\b|\bnew layout\b")


def bounds_needed(node: Node) -> tuple[str, ...]:
    """Name the keywords that bound a schema of this type."""
    if node.schema.get("x-kubernetes-int-or-string"):
        return ("maxLength", "pattern")
    if node.schema["type"] == "object":
        open_ended = "additionalProperties" in node.schema or node.schema.get(PRESERVES_UNKNOWN)
        return ("maxProperties",) if open_ended or "properties" not in node.schema else ()
    return BOUNDS[node.schema["type"]]


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_crd_is_of_our_group_namespaced_and_has_a_status(file):
    spec = load(file)["spec"]
    (version,) = spec["versions"]
    assert (spec["group"], spec["scope"], version["name"]) == ("shardwright.dev", "Namespaced", "v1alpha1")
    assert version["served"]
    assert version["storage"]
    assert version["subresources"] == {"status": {}}
    assert file.stem == spec["names"]["plural"]
    assert load(file)["metadata"]["name"] == f"{file.stem}.shardwright.dev"


def test_every_field_is_described_in_full_sentences():
    sentence = re.compile(r"[A-Z].*\.", re.DOTALL)
    assert [node.path for node in nodes() if not sentence.fullmatch(node.schema.get("description", ""))] == []


def test_every_field_is_bounded():
    missing = [
        (node.path, keyword) for node in nodes() for keyword in bounds_needed(node) if keyword not in node.schema
    ]
    assert missing == []


def test_every_pattern_is_anchored_and_compiles():
    patterns = {node.path: node.schema["pattern"] for node in nodes() if "pattern" in node.schema}
    assert all(re.compile(pattern) for pattern in patterns.values())
    assert [path for path, pattern in patterns.items() if not re.fullmatch(r"\^.*\$", pattern)] == []


def test_a_default_of_what_users_write_is_said_in_its_description():
    """`kubectl explain` shows no defaults."""
    defaults = [
        (node.path, json.dumps(node.schema["default"]).strip('"'), node.schema["description"])
        for node in root("DiscordGateway").walk()
        if isinstance(node.schema.get("default"), str | int)
    ]
    assert [path for path, default, description in defaults if f"default {default}" not in description] == []


def test_every_field_that_users_write_says_what_a_change_of_it_does():
    spec = next(child for child in root("DiscordGateway").children() if child.path.endswith(".spec"))
    silent = [
        node.path
        for node in spec.walk()
        if node is not spec
        # the spec's own description explains the words: it is no answer
        and not any(EFFECT.search(each["description"]) for each in (*node.above[2:], node.schema))
    ]
    assert silent == []


def test_what_may_hold_a_password_is_never_repeated_in_a_message():
    """A pattern, an enum or a rule on the field itself would print the value; a rule on the object around it does not."""
    urls = [
        node for node in nodes() if node.path.startswith("DiscordGateway.spec") and node.path.lower().endswith("url")
    ]
    own = [node for node in urls if "activities" not in node.path]
    assert {node.path for node in own} == {
        "DiscordGateway.spec.sinks[].nats.url",
        "DiscordGateway.spec.sinks[].redis.url",
        "DiscordGateway.spec.sinks[].amqp.url",
        "DiscordGateway.spec.sinks[].http.url",
        "DiscordGateway.spec.transport.gatewayURL",
        "DiscordGateway.spec.transport.apiURL",
    }
    for node in own:
        assert {"pattern", "enum", "format", "x-kubernetes-validations"}.isdisjoint(node.schema)
        field = "." + node.path.rsplit(".", 1)[1]
        rules = [rule for rule in node.above[-1]["x-kubernetes-validations"] if rule["fieldPath"] == field]
        assert any("contains('@')" in rule["rule"] for rule in rules)


def test_each_sink_kind_is_counted_by_the_rule_that_wants_exactly_one():
    sink = root("DiscordGateway").schema["properties"]["spec"]["properties"]["sinks"]["items"]
    (rule,) = sink["x-kubernetes-validations"]
    common = {"name", "events", "overflow", "maxAge", "credentialsSecretRef", "tlsSecretRef"}
    kinds = sink["properties"].keys() - common
    assert set(re.findall(r"has\(self\.(\w+)\)", rule["rule"])) == kinds
    assert all(kind in rule["message"] for kind in kinds)


def test_filters_take_every_event_that_discord_documents_and_the_word_backfill():
    events = root("DiscordGateway").schema["properties"]["spec"]["properties"]["sinks"]["items"]["properties"]["events"]
    for side in ("include", "exclude"):
        pattern = events["properties"][side]["items"]["pattern"]
        assert all(re.match(pattern, name) for name in (*discord.EVENT_NAMES, "backfill"))
        assert len(discord.EVENT_NAMES) <= events["properties"][side]["maxItems"]


def test_columns_are_those_that_the_documentation_shows():
    def columns(kind: str, priority: int = 0) -> list[str]:
        (crd,) = [load(file) for file in FILES if load(file)["spec"]["names"]["kind"] == kind]
        shown = crd["spec"]["versions"][0]["additionalPrinterColumns"]
        return [column["name"] for column in shown if column.get("priority", 0) == priority]

    assert columns("DiscordGateway") == ["Shards", "Ready", "Pods", "Guilds", "Identifies-left", "Status", "Age"]
    assert columns("ShardRange") == ["First", "Last", "Not-ready", "Epoch", "Grant", "Spent", "Heartbeat", "Age"]
    assert columns("ShardRange", priority=1) == ["Holder", "Active", "Spool", "Message"]
