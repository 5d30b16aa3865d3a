"""The CRDs and the structs are one contract: the same fields, types, defaults and values, both ways."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import inspect

from shardwright_api import discord, resources
from unit.crds.schemas import PRESERVES_UNKNOWN, Node, root

KINDS = {"DiscordGateway": resources.DiscordGateway, "ShardRange": resources.ShardRange}
KUBERNETES_OWN = {"apiVersion", "kind", "metadata"}
FOR_TESTS = {"memory"}
JSON_TYPES = {
    inspect.IntType: "integer",
    inspect.FloatType: "number",
    inspect.StrType: "string",
    inspect.EnumType: "string",
    inspect.BoolType: "boolean",
    inspect.StructType: "object",
    inspect.DictType: "object",
    inspect.VarTupleType: "array",
}


def without_none(kind: inspect.Type) -> inspect.Type:
    """Give the type inside an optional one."""
    if isinstance(kind, inspect.UnionType):
        (kind,) = [each for each in kind.types if not isinstance(each, inspect.NoneType)]
    return kind


def default_of(field: inspect.Field) -> Any:
    """Give a field's default as it stands on the wire, None where leaving the field out says the same."""
    factory = field.default_factory
    default = field.default if factory is msgspec.NODEFAULT else factory()
    return None if default is msgspec.NODEFAULT else msgspec.to_builtins(default) or None


def differences(kind: inspect.Type, node: Node) -> list[str]:
    """Compare a type with a schema, and all that is inside them."""
    kind = without_none(kind)
    found = []
    if node.schema.get("x-kubernetes-int-or-string"):
        return []
    if isinstance(kind, inspect.AnyType):  # Kubernetes' and Discord's shapes: dicts in the structs
        return []
    if JSON_TYPES[type(kind)] != node.schema["type"]:
        found.append(f"{node.path}: {JSON_TYPES[type(kind)]} in the struct, {node.schema['type']} in the CRD")
    if isinstance(kind, inspect.EnumType) and {each.value for each in kind.cls} != set(node.schema["enum"]):
        found.append(f"{node.path}: the enums differ")
    if isinstance(kind, inspect.VarTupleType):
        found += differences(kind.item_type, Node(f"{node.path}[]", node.schema["items"]))
    if isinstance(kind, inspect.DictType) and "additionalProperties" in node.schema:
        found += differences(kind.value_type, Node(f"{node.path}{{}}", node.schema["additionalProperties"]))
    if isinstance(kind, inspect.StructType):
        found += differences_of_fields(kind, node)
    return found


def differences_of_fields(struct: inspect.StructType, node: Node) -> list[str]:
    """Compare a struct's fields with an object's properties."""
    properties = node.schema.get("properties", {})
    fields = {each.encode_name: each for each in struct.fields}
    unknown = properties.keys() - fields.keys() - KUBERNETES_OWN
    missing = fields.keys() - properties.keys() - KUBERNETES_OWN - FOR_TESTS
    found = [f"{node.path}.{name}: not in the struct" for name in sorted(unknown)]
    if not node.schema.get(PRESERVES_UNKNOWN):
        found += [f"{node.path}.{name}: not in the CRD" for name in sorted(missing)]
    for name in sorted(fields.keys() & properties.keys() - KUBERNETES_OWN):
        field, schema = fields[name], properties[name]
        if field.required and name not in node.schema.get("required", ()):
            found.append(f"{node.path}.{name}: required in the struct, optional in the CRD")
        if default_of(field) != (schema.get("default") or None):
            found.append(f"{node.path}.{name}: default {default_of(field)!r}, in the CRD {schema.get('default')!r}")
        found += differences(field.type, Node(f"{node.path}.{name}", schema))
    return found


@pytest.mark.parametrize("kind", KINDS)
def test_structs_and_crd_have_the_same_fields_types_and_defaults(kind):
    assert differences(inspect.type_info(KINDS[kind]), root(kind)) == []


def test_the_comparison_sees_what_one_side_lacks():
    schema = {"type": "object", "properties": {"ready": {"type": "string"}, "more": {"type": "string"}}}
    assert differences(inspect.type_info(resources.PodTotals), Node("pods", schema)) == [
        "pods.more: not in the struct",
        "pods.total: not in the CRD",
        "pods.ready: integer in the struct, string in the CRD",
    ]


def test_intents_are_the_known_ones_in_discords_order():
    intents = root("DiscordGateway").schema["properties"]["spec"]["properties"]["intents"]
    assert intents["items"]["enum"] == [intent.name for intent in discord.Intent]


def test_a_sample_decodes_into_the_structs():
    sample = {
        "metadata": {"name": "mybot"},
        "spec": {"tokenSecretRef": {"name": "t"}, "sinks": [{"name": "s", "stdout": {}}], "intents": ["GUILDS"]},
    }
    gateway = resources.decode(resources.DiscordGateway, msgspec.json.encode(sample))
    assert gateway.spec.sinks[0].stdout == resources.StdoutSink()
