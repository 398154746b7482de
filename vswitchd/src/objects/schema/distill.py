#!/usr/bin/env python3
"""Makes openapi.json and protobuf.json from Kubernetes' own descriptions of its API.

    distill.py FOLDER-OF-KUBERNETES-VALIDATE FOLDER-OF-K8S-PB

The first is the unpacked PyPI package kubernetes-validate, which holds Kubernetes' OpenAPI
definitions of each version with their extensions; the second the crate k8s-pb, which holds the
field numbers of Kubernetes' protobuf messages. Both are Apache-2.0, as Kubernetes itself. Kept is
what the served kinds reach; protobuf.json names the property of each field number, or, for a
message whose fields are the outer object's in JSON, the properties of its numbers.
"""

import json
import pathlib
import re
import sys

VERSION = "1.33"
CORE, META = "io.k8s.api.core.v1.", "io.k8s.apimachinery.pkg.apis.meta.v1."
ROOTS = [CORE + kind for kind in ("Namespace", "Node", "Pod", "Service", "ServiceAccount", "Event")] + [
    "io.k8s.api.discovery.v1.EndpointSlice",
    "io.k8s.api.events.v1.Event",
    "io.k8s.api.networking.v1.NetworkPolicy",
    META + "DeleteOptions",
]
# Keys of lists that may be left out. Kubernetes tells defaults in version 3 of OpenAPI alone.
DEFAULTS = {("ContainerPort", "protocol"): "TCP", ("ServicePort", "protocol"): "TCP"}


def main(validate, protobuf):
    folder = validate / "kubernetes_validate/kubernetes-json-schema" / f"v{VERSION}.0-local"
    definitions = json.loads((folder / "_definitions.json").read_text())["$defs"]
    kept = {}
    todo = list(ROOTS)
    while todo:
        name = todo.pop()
        if name in kept:
            continue
        kept[name] = openapi(definitions[name], todo)
        for field, schema in kept[name].get("properties", {}).items():
            default = DEFAULTS.get((name.rsplit(".", 1)[1], field))
            if default:
                schema["default"] = default
        # Tells every group that has these options; only the kinds served here count.
        if name == META + "DeleteOptions":
            kept[name].pop("x-kubernetes-group-version-kind", None)
    messages = {}
    for source in sorted((protobuf / "src").rglob("mod.rs")):
        package = "io.k8s." + ".".join(source.relative_to(protobuf / "src").parts[:-1])
        messages.update(messages_of(package, source.read_text()))
    numbers = {name: tags(name, kept, messages) for name in kept}
    here = pathlib.Path(__file__).parent
    write(here / "openapi.json", kept)
    write(here / "protobuf.json", {name: found for name, found in numbers.items() if found})


def openapi(schema, todo):
    """Brings a definition of the package, which allows null, into the form of OpenAPI 3."""
    result = {}
    for key, value in schema.items():
        # The package says which kinds and versions an object may name; Kubernetes does not.
        if key in ("$schema", "$id", "enum"):
            continue
        if key == "type" and isinstance(value, list):
            value = next(kind for kind in value if kind != "null")
        if key == "$ref":
            name = value.rsplit("/", 1)[1]
            todo.append(name)
            value = "#/components/schemas/" + name
        elif key == "properties":
            value = {field: openapi(inner, todo) for field, inner in value.items()}
        elif isinstance(value, dict):
            value = openapi(value, todo)
        elif key == "oneOf":
            value = [openapi(inner, todo) for inner in value]
            named = [inner for inner in value if inner.get("type") != "null"]
            if len(named) == 1 and "$ref" in named[0]:
                result.update(named[0])
                continue
        result[key] = value
    return result


def messages_of(package, text):
    """The fields of each message of a file that prost has written, by lower case names."""
    found = {}
    for struct in re.finditer(r"^pub struct (\w+) \{(.*?)^\}", text, re.M | re.S):
        fields = re.finditer(r'tag = "(\d+)"[^\]]*\]\s*pub (?:r#)?(\w+):\s*([^#/]+),', struct[2])
        found[f"{package}.{struct[1]}".lower()] = [
            (field[1], field[2].replace("_", ""), re.sub(r"\s|,", "", field[3])) for field in fields
        ]
    return found


def tags(name, kept, messages):
    properties = {field.lower(): field for field in kept[name].get("properties", {})}
    result = {}
    for number, field, kind in messages.get(name.lower(), []):
        known = properties.get(field.lower())
        if known:
            result[number] = known
            continue
        # A message of its own in protobuf whose fields are the outer object's in JSON.
        inner = name.rsplit(".", 1)[0] + "." + kind.rstrip(">").rsplit("<", 1)[-1].rsplit("::", 1)[-1]
        inner_fields = messages.get(inner.lower(), [])
        if properties and any(field in properties for _, field, _ in inner_fields):
            result[number] = {number: properties[field] for number, field, _ in inner_fields if field in properties}
    return result


def write(path, definitions):
    lines = [f" {json.dumps(name)}: {json.dumps(definitions[name])}" for name in sorted(definitions)]
    path.write_text("{\n" + ",\n".join(lines) + "\n}\n")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
