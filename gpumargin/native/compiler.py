"""LLVM as a compiler in this process: a module's text to machine code for the processor at hand."""

from __future__ import annotations

import ctypes
import hashlib
import re
from functools import cache
from threading import Lock
from typing import Any

import jax
from llvmlite import binding, ir

_registered: set[str] = set()
_lock = Lock()


@cache
def _machine() -> Any:
    binding.initialize_native_target()
    binding.initialize_native_asmprinter()
    target = binding.Target.from_default_triple()
    features = binding.get_host_cpu_features().flatten()
    return target.create_target_machine(cpu=binding.get_host_cpu_name(), features=features, opt=3, jit=True)


def _with_wide_registers(text: str) -> str:
    """The module's functions free to use the widest registers: LLVM by itself takes half of them on some processors.

    The stack begins at a line of the cache, so that no register that is put aside lies across two of them.
    """
    wide = 'attributes #0 = { alignstack=64 "prefer-vector-width"="512" "min-legal-vector-width"="512" }'
    return re.sub(r"^(define .*\))$", r"\1 #0", text, flags=re.MULTILINE) + f"\n{wide}\n"


@cache
def compiled(text: str) -> Any:
    """A module's text as machine code, which lives as long as the process.

    XLA holds addresses in it; and with the first engine that is dropped goes the machine that all are compiled for.
    """
    module = binding.parse_assembly(text)
    module.verify()
    options = binding.create_pipeline_tuning_options(speed_level=3)
    options.loop_vectorization = False  # rows look up: what gathers vectors from memory is slower than loads (measured)
    builder = binding.create_pass_builder(_machine(), options)
    builder.getModulePassManager().run(module, builder)
    engine = binding.create_mcjit_compiler(module, _machine())
    engine.finalize_object()
    return engine


def _capsule(address: int) -> Any:
    new = ctypes.pythonapi.PyCapsule_New
    new.restype, new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]
    return new(address, None, None)


def registered(kind: str, module: ir.Module) -> str:
    """Compiles a module and registers its `handler` with XLA under the name that is returned.

    The name is made of the module's text, so that a program from JAX's compile cache finds what it was made with.
    """
    module.triple = binding.get_default_triple()
    text = _with_wide_registers(str(module))
    name = f"gpumargin_{kind}_{hashlib.sha256(text.encode()).hexdigest()[:24]}"
    with _lock:
        if name not in _registered:
            handler = compiled(text).get_function_address("handler")
            jax.ffi.register_ffi_target(name, _capsule(handler), platform="cpu")
            _registered.add(name)
    return name
