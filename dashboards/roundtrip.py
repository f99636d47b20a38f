#!/usr/bin/env python3
"""Reads each dashboard into grafana-foundation-sdk's types and writes it again: a key that Grafana does not know would vanish."""

import json
import pathlib
import sys

from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard


def lost(before, after, path="$"):
    if isinstance(before, dict):
        if not isinstance(after, dict):
            return [path]
        return [miss for key, value in before.items() for miss in
                (lost(value, after[key], f"{path}.{key}") if key in after else [f"{path}.{key}"])]
    if isinstance(before, list):
        if not isinstance(after, list) or len(before) != len(after):
            return [path]
        return [miss for n, pair in enumerate(zip(before, after)) for miss in lost(*pair, f"{path}[{n}]")]
    return [] if before == after else [f"{path} ({before!r} became {after!r})"]


missing = {}
for file in sorted((pathlib.Path(__file__).parent / "grafana").glob("*.json")):
    before = json.loads(file.read_text())
    after = json.loads(json.dumps(Dashboard.from_json(before), cls=JSONEncoder))
    missing[file.name] = lost(before, after)
    print(f"{file.name}: {len(before['panels'])} panels, {len(missing[file.name])} keys lost")
if any(missing.values()):
    sys.exit("\n".join(f"{file}: {key}" for file, keys in missing.items() for key in keys[:20]))
