#!/usr/bin/env python3
"""Copy the CRDs of `crds/` into the chart, as one template.

`tools/sync_crds.py` writes the copy; `tools/sync_crds.py --check` only tells whether it is up to date. The copy adds the
chart's labels and, under `crds.keep`, the annotation that lets the CRDs survive an uninstall; braces that Helm would read as
its own are escaped, and the comments above each CRD are left out.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path
from typing import Final

REPOSITORY: Final = Path(__file__).resolve().parents[1]
SOURCES: Final = REPOSITORY / "crds"
COPY: Final = REPOSITORY / "charts" / "shardwright" / "templates" / "crds.yaml"

HEAD: Final = "{{- /* Made by tools/sync_crds.py from crds/; do not edit. */}}\n{{- if .Values.crds.enabled }}\n"
TAIL: Final = "{{- end }}\n"
METADATA: Final = """\
  labels:
    {{- include "shardwright.labels" . | nindent 4 }}
  {{- if .Values.crds.keep }}
  annotations:
    helm.sh/resource-policy: keep
  {{- end }}
"""


def escape(text: str) -> str:
    """Make Helm print double braces instead of reading them."""
    return re.sub(r"\{\{|\}\}", r'{{ "\g<0>" }}', text)


def template(crd: str) -> str:
    """Turn a CRD into the part of the chart's template that renders it."""
    body = crd[crd.index("apiVersion:") :]
    head, name, tail = re.split(r"^(metadata:\n  name: \S+\n)", body, maxsplit=1, flags=re.MULTILINE)
    return f"---\n{escape(head)}{name}{METADATA}{escape(tail)}"


def render() -> str:
    """Give the whole template: all CRDs in the order of their file names."""
    return HEAD + "".join(template(path.read_text()) for path in sorted(SOURCES.glob("*.yaml"))) + TAIL


def main() -> int:
    """Write or check the copy; give the exit code."""
    parser = argparse.ArgumentParser(description="Copy the CRDs into the chart.")
    parser.add_argument("--check", action="store_true", help="write nothing; fail when the copy is out of date")
    if not parser.parse_args().check:
        COPY.write_text(render())
    elif not COPY.exists() or COPY.read_text() != render():
        sys.stderr.write(f"{COPY.relative_to(REPOSITORY)} is not what crds/ says: run tools/sync_crds.py\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
