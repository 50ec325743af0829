"""Where the operations of a compiled step would run on a GPU, read from the kernels that TensorFlow registers.

    placement = placement_of(concrete_function)
    placement.without_kernel            # [("SplitV", "uint8")]
    placement.to_host                   # tensors that an operation in host memory would read from the device

TensorFlow's build for GPUs registers its kernels also where there is no GPU. What XLA compiles is left out.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow.core.framework import types_pb2
from tensorflow.python.framework import kernels, op_def_registry

# Nodes without a computation, and nodes that call a function, whose nodes are looked at in turn.
STRUCTURE = {
    "_Arg",
    "_Retval",
    "Placeholder",
    "NoOp",
    "Const",
    "Identity",
    "IdentityN",
    "StopGradient",
    "PlaceholderWithDefault",
    "PreventGradient",
}
CALLS = {
    "PartitionedCall",
    "StatefulPartitionedCall",
    "If",
    "StatelessIf",
    "While",
    "StatelessWhile",
    "Case",
    "StatelessCase",
}
ON_HOST = {types_pb2.DT_INT32, types_pb2.DT_STRING, types_pb2.DT_RESOURCE}  # lists of tensors stay on the device


class Placement(NamedTuple):
    """Findings about a step.

    Attributes:
        without_kernel: operation and types of each node that has no GPU kernel.
        to_host: for each tensor the operation on the device that computes it, and operation and name of the node on
            the host that reads it.
        num_nodes: nodes that were looked at.
    """

    without_kernel: list[tuple[str, str]]
    to_host: list[tuple[str, str, str]]
    num_nodes: int


def placement_of(concrete: Any) -> Placement:
    """Look at a concrete function and at all functions that it calls, but for those that XLA compiles."""
    definition = concrete.graph.as_graph_def()
    functions = {function.signature.name: function for function in definition.library.function}
    inputs = {tensor.name.split(":")[0]: True for tensor in concrete.graph.inputs}  # batches come from the host
    graphs = [(list(definition.node), inputs)]
    found = Placement([], [], 0)
    seen: set[str] = set()
    while graphs:
        nodes, arguments = graphs.pop()
        graph = _Graph(nodes, arguments)
        found = Placement(
            found.without_kernel + graph.without_kernel(), found.to_host + graph.to_host(), found.num_nodes + len(nodes)
        )
        for name in _called(nodes):
            function = functions.get(name)
            if function is None or name in seen or function.attr["_XlaMustCompile"].b:
                continue
            seen.add(name)
            on_host = {argument.name: argument.type in ON_HOST for argument in function.signature.input_arg}
            graphs.append((list(function.node_def), on_host))
    return found


class _Graph:
    """The nodes of one function; `arguments` says of each argument whether it lies in host memory."""

    def __init__(self, nodes: list[Any], arguments: Mapping[str, bool]) -> None:
        self._nodes = {node.name: node for node in nodes}
        self._arguments = arguments

    def without_kernel(self) -> list[tuple[str, str]]:
        return [
            (node.op, ", ".join(sorted({tf.as_dtype(t).name for attr in node.attr.values() for t in _types(attr)})))
            for node in self._nodes.values()
            if node.op not in STRUCTURE | CALLS and not _is_pinned(node) and _kernel(node) is None
        ]

    def to_host(self) -> list[tuple[str, str, str]]:
        edges = []
        for node in self._nodes.values():
            if node.op in {"Placeholder", "_Arg", "Const"}:
                continue
            references = [reference for reference in node.input if not reference.startswith("^")]
            definition = op_def_registry.get(node.op)
            places = _places(node, definition.input_arg)
            for reference, (is_host, dtype) in zip(references, places, strict=True):
                if is_host and dtype != types_pb2.DT_RESOURCE and not self._is_on_host(reference):
                    source = reference.split(":")[0]
                    op = self._nodes[source].op if source in self._nodes else "argument"
                    edges.append((op, node.op, node.name))
        return edges

    def _is_on_host(self, reference: str) -> bool:
        name, *rest = reference.split(":")
        node = self._nodes.get(name)
        if node is None or node.op in {"Placeholder", "_Arg"}:
            return self._arguments.get(name, False)
        definition = op_def_registry.get(node.op)
        places = _places(node, definition.output_arg)
        if len(rest) < 2:
            return places[int(rest[0]) if rest else 0][0]
        before = 0
        for argument in definition.output_arg:
            if argument.name == rest[0]:
                break
            before += len(_types_of(node, argument))
        return places[before + int(rest[1])][0]


def _places(node: Any, arguments: Iterable[Any]) -> list[tuple[bool, int]]:
    """Return for each input or output tensor of a node whether it lies in host memory, and its type."""
    typed = [(argument.name, dtype) for argument in arguments for dtype in _types_of(node, argument)]
    if node.op in CALLS:
        return [(dtype in ON_HOST or (name == "cond" and "If" in node.op), dtype) for name, dtype in typed]
    if node.op in STRUCTURE:
        return [(dtype in ON_HOST or _is_pinned(node), dtype) for _, dtype in typed]
    kernel = _kernel(node)
    if _is_pinned(node) or kernel is None:
        return [(True, dtype) for _, dtype in typed]
    return [(name in kernel.host_memory_arg, dtype) for name, dtype in typed]


def _types_of(node: Any, argument: Any) -> list[int]:
    if argument.type_list_attr:
        return list(node.attr[argument.type_list_attr].list.type)
    count = node.attr[argument.number_attr].i if argument.number_attr else 1
    return [argument.type or node.attr[argument.type_attr].type] * count


def _kernel(node: Any) -> Any:
    """Return the kernel of a node on a GPU; None if there is no kernel."""
    for device in ("GPU", "DEFAULT"):
        for kernel in _kernels(node.op):
            fits = all(
                set(_types(node.attr[each.name])) <= set(each.allowed_values.list.type) for each in kernel.constraint
            )
            if kernel.device_type == device and not kernel.label and fits:
                return kernel
    return None


@cache
def _kernels(operation: str) -> list[Any]:
    return list(kernels.get_registered_kernels_for_op(operation).kernel)


def _types(attribute: Any) -> list[int]:
    if attribute.HasField("type"):
        return [attribute.type]
    return list(attribute.list.type) if attribute.HasField("list") else []


def _is_pinned(node: Any) -> bool:
    """Whether the step places a node on the CPU on purpose."""
    return "CPU" in node.device


def _called(nodes: Iterable[Any]) -> Iterator[str]:
    for node in nodes:
        if node.attr["_XlaMustCompile"].b:
            continue
        for attribute in node.attr.values():
            if attribute.HasField("func"):
                yield attribute.func.name
            yield from (function.name for function in attribute.list.func)
