#!/usr/bin/env python3
"""Writes the schemas beside this file: the kinds that the chart makes, without descriptions.

    vendor.py KUBERNETES CRD...

KUBERNETES is a folder of strict JSON schemas of one Kubernetes version, as the package kubernetes-validate has them
on PyPI (kubernetes_validate/kubernetes-json-schema/v1.37.0-local-strict). Each CRD is a file of a custom resource's
definition: HTTPRoute (kubernetes-sigs/gateway-api), ServiceMonitor and PrometheusRule
(prometheus-operator/prometheus-operator). README.md says which versions are here.
"""

import json
import pathlib
import sys

import yaml

HERE = pathlib.Path(__file__).parent
KINDS = [
    "configmap-v1",
    "deployment-apps-v1",
    "horizontalpodautoscaler-autoscaling-v2",
    "ingress-networking-v1",
    "networkpolicy-networking-v1",
    "poddisruptionbudget-policy-v1",
    "service-v1",
]


def bare(schema):
    """A schema without what is for people; a property may be called `description`."""
    if isinstance(schema, list):
        return [bare(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {}
    for key, value in schema.items():
        if key in ("properties", "$defs"):
            found[key] = {name: bare(item) for name, item in value.items()}
        elif key != "description" and not key.startswith("x-kubernetes"):
            found[key] = bare(value)
    return found


def strict(schema):
    """A custom resource's schema, in which a misspelt property is an error."""
    if isinstance(schema, list):
        return [strict(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    found = {key: strict(value) for key, value in schema.items()}
    open_to_all = schema.get("x-kubernetes-preserve-unknown-fields") or "additionalProperties" in schema
    if isinstance(schema.get("properties"), dict) and schema.get("type") == "object" and not open_to_all:
        found["additionalProperties"] = False
    if schema.get("x-kubernetes-int-or-string"):
        found.pop("type", None)
    return found


def references(schema):
    if isinstance(schema, dict):
        for key, value in schema.items():
            if key == "$ref":
                yield value.rsplit("/", 1)[1]
            else:
                yield from references(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from references(item)


def write(name, schema):
    text = json.dumps(schema, separators=(",", ":"), sort_keys=True).replace("/api/_definitions.json#", "#")
    (HERE / f"{name}.json").write_text(text + "\n")


def core(folder):
    everything = json.loads((folder / "_definitions.json").read_text())["$defs"]
    for kind in KINDS:
        schema = bare(json.loads((folder / f"{kind}.json").read_text()))
        used, open_names = {}, list(references(schema))
        while open_names:
            name = open_names.pop()
            if name not in used:
                used[name] = bare(everything[name])
                open_names.extend(references(used[name]))
        write(kind, schema | {"$defs": used})


def custom(file):
    crd = yaml.safe_load(file.read_text())["spec"]
    for version in crd["versions"]:
        if version["storage"]:
            schema = strict(version["schema"]["openAPIV3Schema"])
            # `metadata` is the same for all kinds, and any object in a custom resource's schema.
            schema["properties"]["metadata"] = {"type": "object"}
            group = crd["group"].split(".")[0]
            write(f"{crd['names']['kind'].lower()}-{group}-{version['name']}", bare(schema))


core(pathlib.Path(sys.argv[1]))
for path in sys.argv[2:]:
    custom(pathlib.Path(path))
