"""What this machine offers a run, what falls back, and why."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from gpumargin.identity import versions
from gpumargin.limits import physical_memory, usable_memory

if TYPE_CHECKING:
    import jax

_DRIVER = Path("/proc/driver/nvidia/version")
_PLUGINS = ("jax-cuda13-plugin", "jax-cuda12-plugin", "jax-rocm7-plugin", "jax-rocm60-plugin")
# Cards whose float64 units run at half the float32 rate; on others a 32nd or a 64th is usual.
_FULL_RATE = ("P100", "V100", "A100", "A30", "H100", "H200", "H800", "GH200", "GB200", "B100", "B200", "MI")


class Finding(NamedTuple):
    """One thing about the machine.

    Attributes:
      topic: what it is about.
      state: `ok`, `note` (works, but not as it could) or `warning` (something falls back).
      detail: what was found, and what to do.
    """

    topic: str
    state: str
    detail: str


def diagnose() -> list[Finding]:
    """Versions, devices, driver, precision and memory. Imports JAX and starts its devices."""
    return [*_versions(), *_devices(), _driver_and_plugin(), _leg_loop(), _precision(), _memory()]


def _versions() -> Iterator[Finding]:
    for name, found in versions().items():
        yield Finding(name, "ok", found)


def _seen() -> list[jax.Device]:
    import jax

    return list(jax.devices())


def _devices() -> Iterator[Finding]:
    from gpumargin.device import choose_devices

    try:
        used = choose_devices("auto")
    except RuntimeError as error:
        yield Finding("devices", "warning", f"JAX starts no device: {error}")
        return
    kinds = sorted({device.device_kind for device in used})
    yield Finding("devices", "ok", f"{len(used)} x {used[0].platform} ({', '.join(kinds)}): what --device auto uses")


def driver_found() -> str:
    """How the NVIDIA driver shows, empty where it does not."""
    if _DRIVER.is_file():
        return _DRIVER.read_text("utf-8", "replace").splitlines()[0].strip()
    tool = shutil.which("nvidia-smi")
    return f"{tool} is installed" if tool else ""


def _plugin() -> str:
    """Name and version of JAX's GPU plugin, empty without one."""
    for name in _PLUGINS:
        try:
            return f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
    return ""


def _gpus() -> list[jax.Device]:
    try:
        return [device for device in _seen() if device.platform not in ("cpu", "tpu")]
    except RuntimeError:
        return []


def _driver_and_plugin() -> Finding:
    driver, plugin, gpus = driver_found(), _plugin(), _gpus()
    if gpus:
        return Finding("gpu", "ok", f"{len(gpus)} seen by JAX; {driver or 'unknown driver'}; {plugin or 'no plugin'}")
    if driver and not plugin:
        remedy = "JAX has no GPU plugin, so runs use the CPU: install gpumargin[cuda]"
        return Finding("gpu", "warning", f"driver present ({driver}), but {remedy}")
    if driver:
        remedy = "JAX sees no GPU, so runs use the CPU: check that plugin and driver fit, and JAX_PLATFORMS"
        return Finding("gpu", "warning", f"driver present ({driver}), {plugin} installed, but {remedy}")
    return Finding("gpu", "note", "no NVIDIA driver here: runs use the CPU, and --device gpu ends with exit code 5")


def _leg_loop() -> Finding:
    from gpumargin.native import is_available

    if _gpus():
        return Finding("leg loop", "ok", "XLA's, on the GPU")
    if is_available():
        return Finding("leg loop", "ok", "native, compiled by LLVM for this processor; same bits as XLA's")
    remedy = "install llvmlite, and the hot loop takes a fraction of the time, with the same bits"
    return Finding("leg loop", "warning", f"XLA's: {remedy}")


def _precision() -> Finding:
    gpus = _gpus()
    if not gpus:
        return Finding("float64", "ok", "full precision at the CPU's usual half rate of float32")
    kind = gpus[0].device_kind
    if any(name in kind for name in _FULL_RATE):
        return Finding("float64", "ok", f"{kind} computes float64 at half its float32 rate")
    detail = f"{kind} is likely to compute float64 at a 32nd or 64th of its float32 rate: margin will be slow, or use "
    return Finding("float64", "note", detail + "--dtype float32 where its rounding is acceptable")


def _memory() -> Finding:
    total, usable = physical_memory(), usable_memory()
    if not usable:
        return Finding("memory", "note", "its size is not known on this system")
    capped = "" if usable == total else f" of {total / 2**30:.1f} GiB in the machine"
    return Finding("memory", "ok", f"{usable / 2**30:.1f} GiB usable{capped}")
