"""`tf.train.Example`, TensorFlow's record of named lists, read without TensorFlow.

Decides: the Python form of each list. Never: what a name means.

    >>> parse_example(bytes.fromhex("0a0c0a0a0a017812051a030a0105"))
    {'x': array([5])}

The package protobuf, which TensorFlow needs as well, parses the bytes. The messages are declared here as in
TensorFlow's example.proto and feature.proto, in a pool of their own.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

from distrain.extras import require_extra

Feature = list[bytes] | np.ndarray  # a bytes_list, or float32 or int64 `[k]`; a feature of no kind is an empty list


class NoExampleError(ValueError):
    """The bytes are no Example."""


def parse_example(content: bytes) -> dict[str, Feature]:
    """Return the features of an Example by name.

    Raises:
        NoExampleError: the bytes are no Example.
        ConfigurationError: the package protobuf is not installed.
    """
    example, damage = _message()
    try:
        features = example.FromString(content).features.feature
    except damage as error:
        raise NoExampleError(str(error)) from None
    return {name: _values(feature) for name, feature in features.items()}


def _values(feature: Any) -> Feature:
    kind = feature.WhichOneof("kind")
    if kind == "float_list":
        return np.array(feature.float_list.value, np.float32)
    if kind == "int64_list":
        return np.array(feature.int64_list.value, np.int64)
    return list(feature.bytes_list.value)


@cache
def _message() -> tuple[Any, type[Exception]]:
    """Return the class of an Example, and the error of its parser."""
    require_extra("google.protobuf", package="protobuf", extra="tfrecord", what="Reading TFRecord files")
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
    from google.protobuf.message import DecodeError

    field = descriptor_pb2.FieldDescriptorProto
    file = descriptor_pb2.FileDescriptorProto(name="distrain/example.proto", package="distrain", syntax="proto3")

    def add(message: Any, number: int, name: str, kind: int, message_name: str = "", **more: Any) -> None:
        type_name = f".distrain.{message_name}" if message_name else None
        message.field.add(name=name, number=number, type=kind, type_name=type_name, **more)

    feature = descriptor_pb2.DescriptorProto(name="Feature")
    feature.oneof_decl.add(name="kind")
    kinds = {"BytesList": field.TYPE_BYTES, "FloatList": field.TYPE_FLOAT, "Int64List": field.TYPE_INT64}
    for number, (name, kind) in enumerate(kinds.items(), start=1):
        add(file.message_type.add(name=name), 1, "value", kind, label=field.LABEL_REPEATED)
        add(feature, number, f"{name[:-4].lower()}_list", field.TYPE_MESSAGE, name, oneof_index=0)
    features = descriptor_pb2.DescriptorProto(name="Features")
    entry = features.nested_type.add(name="FeatureEntry", options={"map_entry": True})
    add(entry, 1, "key", field.TYPE_STRING)
    add(entry, 2, "value", field.TYPE_MESSAGE, "Feature")
    add(features, 1, "feature", field.TYPE_MESSAGE, "Features.FeatureEntry", label=field.LABEL_REPEATED)
    example = descriptor_pb2.DescriptorProto(name="Example")
    add(example, 1, "features", field.TYPE_MESSAGE, "Features")
    file.message_type.extend([feature, features, example])
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("distrain.Example")), DecodeError
