"""YAML as Braid reads and writes it: a key stands once, booleans are true and false, 1e-3 is a number.

PyYAML follows YAML 1.1, where `off` is false, `1e-3` is text and the last of two equal keys wins in silence.
"""

import re
from collections.abc import Hashable
from typing import Any

import yaml

_FLOAT = re.compile(
    r"^(?:[-+]?(?:[0-9][0-9_]*)\.[0-9_]*(?:[eE][-+]?[0-9]+)?|[-+]?[0-9]+[eE][-+]?[0-9]+"
    r"|[-+]?\.[0-9]+(?:[eE][-+]?[0-9]+)?|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN))$"
)
_INT = re.compile(r"^[-+]?(?:0|[1-9][0-9_]*)$")
_REPLACED = {
    "tag:yaml.org,2002:bool",
    "tag:yaml.org,2002:float",
    "tag:yaml.org,2002:int",
    "tag:yaml.org,2002:timestamp",
}


class Reader(yaml.SafeLoader):
    """Safe loading that refuses duplicate keys."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        """A mapping, if no key stands in it twice."""
        seen: set[Any] = set()
        for key_node, _ in node.value:
            if key_node.tag == "tag:yaml.org,2002:merge":
                continue  # `<<: *anchor` gives way to the keys beside it
            key = self.construct_object(key_node, deep=True)
            if key in seen:
                raise yaml.constructor.ConstructorError(None, None, f"key '{key}' stands twice", key_node.start_mark)
            seen.add(key)
        return super().construct_mapping(node, deep)


class Writer(yaml.SafeDumper):
    """Safe dumping that quotes what `Reader`, or a reader of YAML 1.1, would take for a number or a boolean."""

    def ignore_aliases(self, data: Any) -> bool:
        """Never write anchors: a file should read from top to bottom."""
        return True


def _resolve(reader: Any, replaced: set[str]) -> None:
    """Add YAML 1.2's scalars, in place of those `replaced`."""
    kept = {
        first: [(tag, pattern) for tag, pattern in resolvers if tag not in replaced]
        for first, resolvers in reader.yaml_implicit_resolvers.items()
    }
    reader.yaml_implicit_resolvers = kept
    reader.add_implicit_resolver(
        "tag:yaml.org,2002:bool", re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), list("tTfF")
    )
    reader.add_implicit_resolver("tag:yaml.org,2002:int", _INT, list("-+0123456789"))
    reader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))


_resolve(Reader, _REPLACED)
_resolve(Writer, set())


def parse(text: str) -> Any:
    """The YAML document in `text`; yaml.YAMLError where it is none."""
    return yaml.load(text, Loader=Reader)


def write(value: Any) -> str:
    """`value` as YAML that `parse` reads back equal; keys keep their order."""
    return yaml.dump(value, Dumper=Writer, sort_keys=False, allow_unicode=True, width=120)
