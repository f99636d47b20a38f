#!/usr/bin/env python3
"""Holds YAML files to the schemas that check-jsonschema brings: schemas.py SCHEMA FILE... [-- SCHEMA FILE...]...

In one process: its own command takes a second to start, for each schema.
"""

import importlib.resources
import json
import sys
from pathlib import Path

import jsonschema
from ruamel.yaml import YAML


def groups(arguments):
    """[[schema, file, ...], ...]: what stands between the dashes."""
    found = [[]]
    for argument in arguments:
        if argument == "--":
            found.append([])
        else:
            found[-1].append(argument)
    return found


def main():
    """Says each file that is wrong, and where."""
    wrong = False
    for name, *files in groups(sys.argv[1:]):
        schema = json.loads((importlib.resources.files("check_jsonschema") / "builtin_schemas/vendor" / f"{name}.json").read_text())
        validator = jsonschema.validators.validator_for(schema)(schema)
        if not files:
            sys.exit(f"schemas.py: no file for {name}")
        for file in files:
            for error in validator.iter_errors(YAML(typ="safe", pure=True).load(Path(file).read_text())):
                wrong = True
                print(f"{file}: {error.json_path}: {error.message}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
