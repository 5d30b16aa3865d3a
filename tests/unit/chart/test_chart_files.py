"""The chart's files agree with each other and with the CRDs; what they render is tested in tests/cluster/test_chart.py."""

from __future__ import annotations

import json
import re
import runpy
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

import shardwright_api

ROOT = Path(__file__).resolve().parents[3]
CHART = ROOT / "charts" / "shardwright"
SYNC = ROOT / "tools" / "sync_crds.py"
FREE_FORM = {
    "commonLabels",
    "serviceAccount.annotations",
    "resources",
    "podLabels",
    "podAnnotations",
    "nodeSelector",
    "affinity",
}


def values() -> dict[str, Any]:
    """Read the chart's defaults."""
    defaults: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text())
    return defaults


def leaves(tree: dict[str, Any], above: str = "") -> Iterator[str]:
    """Name every value that can be set, such as `image.tag`."""
    for name, value in tree.items():
        path = f"{above}{name}"
        if isinstance(value, dict) and path not in FREE_FORM:
            yield from leaves(value, f"{path}.")
        else:
            yield path


def schema_leaves(schema: dict[str, Any], above: str = "") -> Iterator[str]:
    """Name every value that the schema knows."""
    for name, child in schema["properties"].items():
        if "properties" in child:
            yield from schema_leaves(child, f"{above}{name}.")
        else:
            yield f"{above}{name}"


def test_the_charts_copy_of_the_crds_is_up_to_date():
    done = subprocess.run([sys.executable, SYNC, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_braces_that_helm_would_read_are_escaped():
    escape = runpy.run_path(str(SYNC))["escape"]
    assert escape("a {{ b }} {c}") == 'a {{ "{{" }} b {{ "}}" }} {c}'


def test_every_value_is_documented():
    lines = (CHART / "values.yaml").read_text().splitlines()
    silent = []
    for number, line in enumerate(lines):
        key = re.match(r" *(\w+):(?! *$)", line)
        if key:
            above = next(index for index in range(number - 1, -2, -1) if not lines[index].lstrip().startswith("#"))
            if not any("# -- " in comment for comment in lines[above + 1 : number]):
                silent.append(key.group(1))
    assert silent == []


def test_the_schema_knows_exactly_the_values_that_exist():
    schema = json.loads((CHART / "values.schema.json").read_text())
    assert set(schema_leaves(schema)) - {"global"} == set(leaves(values()))


def test_the_schema_lets_no_unknown_value_pass():
    def open_objects(schema: dict[str, Any], path: str) -> Iterator[str]:
        if "properties" in schema and schema.get("additionalProperties") is not False:
            yield path
        for name, child in schema.get("properties", {}).items():
            yield from open_objects(child, f"{path}.{name}")

    assert list(open_objects(json.loads((CHART / "values.schema.json").read_text()), "values")) == []


def test_every_value_is_used_by_a_template():
    templates = "".join(path.read_text() for path in (CHART / "templates").iterdir())
    unused = [path for path in leaves(values()) if f".Values.{path}" not in templates]
    image = {"image.repository", "image.tag", "image.digest"}  # read inside `with .Values.image`
    assert set(unused) == image


def test_the_charts_app_version_is_the_distributions():
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
    assert chart["appVersion"] == shardwright_api.__version__
