"""Write the JSON Schema of params.yaml, for editors that complete and check YAML."""

import argparse
import json
from pathlib import Path

from stages.lib.plumbing import command
from stages.lib.plumbing.params import Params

OUT = Path("docs/params.schema.json")


def main(arguments: argparse.Namespace) -> None:
    schema = {"$schema": "https://json-schema.org/draft/2020-12/schema", **Params.model_json_schema()}
    schema["title"] = "params.yaml"
    OUT.parent.mkdir(exist_ok=True)
    OUT.write_text(json.dumps(schema, indent=2) + "\n", encoding="utf-8")
    print(f"{OUT}: written")


if __name__ == "__main__":
    command.run("schema", main, argparse.ArgumentParser(prog="python -m stages.schema", description=__doc__))
