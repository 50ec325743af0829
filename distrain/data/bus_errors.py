"""A memory-mapped file that is cut while a process reads it ends the process with a message and exit code 3.

Decides: what a bus error (SIGBUS) in a memory map prints. Never: maps a file.

    labels = np.lib.format.open_memmap("train-00000.labels.npy", mode="r")
    report_lost_pages(labels)

Linux sends SIGBUS where a mapped page no longer lies in its file, or where its disk fails. Python handles a signal
only after the instruction that was interrupted, which here would fail again and again. So the handler is a C function,
which llvmlite (numba's compiler) makes in 20 ms. The handler looks for the address in a list of maps, writes the
map's message and leaves. Outside of these maps the earlier handler counts.
"""

from __future__ import annotations

import ctypes
import mmap
import os
import signal
import sys
import weakref
from functools import cache
from typing import Any

import numpy as np
from llvmlite import binding, ir

from distrain.aligned_memory import address_of
from distrain.cluster.world import find_world
from distrain.data.readahead import mapping_of
from distrain.errors import ConfigurationError, DataError

_STDERR = 2
_ADDRESS_FIELD = 2  # of siginfo_t as int64 [16], on 64-bit Linux
_SA_SIGINFO = 4


class _SignalAction(ctypes.Structure):
    """Linux's struct sigaction."""

    _fields_ = (
        ("handler", ctypes.c_void_p),
        ("mask", ctypes.c_ubyte * 128),
        ("flags", ctypes.c_int),
        ("restorer", ctypes.c_void_p),
    )


def report_lost_pages(array: Any) -> None:
    """Let a page of this array that cannot be read end the process; arrays that no file backs are left alone."""
    path, mapping = _file_name(array), mapping_of(array)
    is_known_system = sys.platform == "linux" and ctypes.sizeof(ctypes.c_void_p) == 8
    if path is not None and mapping is not None and is_known_system:
        _handler().add(mapping, np.frombuffer(_message(path), np.uint8))


def _file_name(array: Any) -> Any:
    while isinstance(array, np.ndarray):
        if isinstance(array, np.memmap) and array.filename is not None:
            return array.filename
        array = array.base
    return None


def _message(path: Any) -> bytes:
    try:
        world = find_world(os.environ)
        rank = f"rank {world.rank}: " if world.size > 1 else ""
    except ConfigurationError:  # the command itself raises this error, if the command needs a world
        rank = ""
    sentences = (
        "was cut, or its disk failed, while the process read it. "
        "Restore the file or prepare the data again, then start the same command: it goes on from the last checkpoint."
    )
    return f"distrain: error: {rank}".encode() + os.fsencode(path) + f" {sentences}\n".encode()


class _Handler:
    """The installed handler and its list of maps.

    A map is a node int64 `[5]`: first address, end, address and length of the message, and the address of the next
    node. A node stays in the list when its map is gone, and then holds no address.
    """

    def __init__(self) -> None:
        self._head = np.zeros(1, np.int64)
        self._kept: list[np.ndarray] = []
        self._known: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()
        self._previous = _SignalAction()
        libc = ctypes.CDLL(None)
        addresses = {name: _address(getattr(libc, name)) for name in ("write", "_exit", "sigaction")}
        self._code = _compile(address_of(self._head), ctypes.addressof(self._previous), addresses)
        action = _SignalAction(handler=self._code.get_function_address("on_bus_error"), flags=_SA_SIGINFO)
        libc.sigaction(int(signal.SIGBUS), ctypes.byref(action), ctypes.byref(self._previous))

    def add(self, mapping: mmap.mmap, text: np.ndarray) -> None:
        if mapping in self._known:
            return
        self._known.add(mapping)
        start = address_of(np.frombuffer(mapping, np.uint8))
        node = np.array([start, start + len(mapping), address_of(text), len(text), self._head[0]], np.int64)
        self._kept += [node, text]
        self._head[0] = address_of(node)
        weakref.finalize(mapping, node.__setitem__, slice(0, 2), 0)


@cache
def _handler() -> _Handler:
    return _Handler()


def _address(function: Any) -> int:
    return ctypes.cast(function, ctypes.c_void_p).value or 0


def _compile(head: int, previous: int, functions: dict[str, int]) -> Any:
    """Return compiled code with the function `on_bus_error(signal, info, context)`."""
    i32, i64 = ir.IntType(32), ir.IntType(64)
    module = ir.Module()
    kind = ir.FunctionType(ir.VoidType(), [i32, i64.as_pointer(), i64])
    function = ir.Function(module, kind, "on_bus_error")
    entry, loop, test, following, found, foreign = map(
        function.append_basic_block, ("entry", "loop", "test", "following", "found", "foreign")
    )

    def field(pointer: Any, index: int) -> Any:
        return builder.load(builder.gep(pointer, [ir.Constant(i64, index)]))

    def call(name: str, result: Any, *arguments: Any) -> None:
        kind = ir.FunctionType(result, [argument.type for argument in arguments])
        builder.call(builder.inttoptr(ir.Constant(i64, functions[name]), kind.as_pointer()), arguments)

    builder = ir.IRBuilder(entry)
    address = field(function.args[1], _ADDRESS_FIELD)
    first = field(ir.Constant(i64, head).inttoptr(i64.as_pointer()), 0)
    builder.branch(loop)

    builder.position_at_end(loop)
    number = builder.phi(i64)
    builder.cbranch(builder.icmp_unsigned("==", number, ir.Constant(i64, 0)), foreign, test)

    builder.position_at_end(test)
    node = builder.inttoptr(number, i64.as_pointer())
    is_after = builder.icmp_unsigned(">=", address, field(node, 0))
    is_before = builder.icmp_unsigned("<", address, field(node, 1))
    builder.cbranch(builder.and_(is_after, is_before), found, following)

    builder.position_at_end(following)
    number.add_incoming(first, entry)
    number.add_incoming(field(node, 4), following)
    builder.branch(loop)

    builder.position_at_end(found)
    call("write", i64, ir.Constant(i32, _STDERR), field(node, 2), field(node, 3))
    call("_exit", ir.VoidType(), ir.Constant(i32, DataError.exit_code))
    builder.unreachable()

    builder.position_at_end(foreign)  # the instruction fails once more after the return, and meets the earlier handler
    call("sigaction", i32, function.args[0], ir.Constant(i64, previous), ir.Constant(i64, 0))
    builder.ret_void()

    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    parsed = binding.parse_assembly(str(module))
    target = binding.Target.from_default_triple().create_target_machine()
    compiler = binding.create_mcjit_compiler(parsed, target)
    compiler.finalize_object()
    return compiler
