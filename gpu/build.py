"""Compile each `.cu` to a cubin without a GPU, by NVRTC from PyPI or nvcc, and report its resource usage."""

import ctypes
import functools
import importlib.util
import json
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
KERNELS = HERE / "kernels"
ARCHITECTURES = ("sm_75", "sm_80", "sm_90", "sm_100")
REPORT = HERE / "report.json"
COMPLEX = ("scan",)  # sources with a version for complex numbers
TENSOR_CORES = "_tensor_cores"  # suffix of sources for float32 on tensor cores, from sm_80 on
# Sources with a version for tensor cores.
PRODUCTS = ("gated_delta_rule", "gated_delta_rule_keys", "gated_linear_attention")
OPTIONS = ("-std=c++17", f"-I{KERNELS}")

Needs = dict[str, int]  # registers, bytes of static shared memory, bytes spilled


class BuildError(RuntimeError):
    """Raised where a source does not compile or there is no compiler."""


def needs(source: str, defines: tuple[str, ...], architecture: str, *, tool: str = "nvrtc") -> dict[str, Needs]:
    """Return the resources of each kernel of `gpu/kernels/<source>.cu`. Raises BuildError where it does not compile."""
    options = (*OPTIONS, *(f"-D{d}" for d in defines))
    log = {"nvrtc": _nvrtc, "nvcc": _nvcc}[tool](KERNELS / f"{source}.cu", options, architecture)
    return parsed(log)


def sources() -> list[str]:
    """Return the names of all sources, without suffix."""
    return sorted(path.stem for path in KERNELS.glob("*.cu"))


def versions() -> dict[str, tuple[str, tuple[str, ...]]]:
    """Return every version for float32 and bfloat16: name → (source, macro definitions)."""
    wide: dict[str, tuple[str, tuple[str, ...]]] = {source: (source, ("REAL=float",)) for source in sources()}
    wide |= {f"{source}{TENSOR_CORES}": (source, ("REAL=float", "OPERAND=Tf32")) for source in PRODUCTS}
    two_bytes = "REAL=float", "OPERAND=Bf16", "ARRAY=Bfloat16"
    return wide | {f"{x}_bfloat16": (source, two_bytes) for x, (source, _) in wide.items() if TENSOR_CORES in x}


def architectures(version: str) -> tuple[str, ...]:
    """Return the architectures that a version is compiled for."""
    return ARCHITECTURES[1:] if TENSOR_CORES in version else ARCHITECTURES


def report() -> dict[str, dict[str, dict[str, Needs]]]:
    """Compile all versions and return the resources by version, kernel and architecture."""
    resources: dict[str, dict[str, dict[str, Needs]]] = {}
    for version, (source, defines) in sorted(versions().items()):
        kernels = resources.setdefault(version, {})
        for architecture in architectures(version):
            for kernel, need in needs(source, defines, architecture).items():
                kernels.setdefault(kernel, {})[architecture] = need
    return resources


def recorded() -> dict[str, dict[str, dict[str, Needs]]]:
    """Return the recorded report."""
    return json.loads(REPORT.read_text(encoding="utf-8"))


def record() -> None:
    """Record what `report` returns, a line for each kernel and architecture."""
    text = json.dumps(report(), indent=2)
    text = re.sub(r"{\s+(\"registers\": \d+),\s+(\"shared\": \d+),\s+(\"spilled\": \d+)\s+}", r"{\1, \2, \3}", text)
    REPORT.write_text(text + "\n", encoding="utf-8")


def parsed(log: str) -> dict[str, Needs]:
    """Parse the output of `ptxas -v`, by kernel."""
    resources: dict[str, Needs] = {}
    for part in re.split(r"Compiling entry function '", log)[1:]:
        name = part.partition("'")[0]
        registers = int(_first(r"Used (\d+) registers", part))
        shared = int(_first(r"(\d+) bytes smem", part))
        spilled = sum(map(int, re.findall(r"(\d+) bytes spill", part)))
        resources[name] = {"registers": registers, "shared": shared, "spilled": spilled}
    return dict(sorted(resources.items()))


def _first(pattern: str, text: str) -> str:
    match = re.search(pattern, text)
    return match[1] if match else "0"


def _nvcc(source: Path, options: tuple[str, ...], architecture: str) -> str:
    if not shutil.which("nvcc"):
        raise BuildError("no nvcc on PATH (it comes with the CUDA toolkit)")
    with tempfile.TemporaryDirectory() as folder:
        command = ["nvcc", "-cubin", f"-arch={architecture}", "-Xptxas", "-v", *options, "-o", f"{folder}/out.cubin"]
        done = subprocess.run([*command, str(source)], capture_output=True, text=True)
    if done.returncode:
        raise BuildError(f"{source.name} does not compile for {architecture}:\n{done.stderr.strip()}")
    return done.stderr


def _nvrtc(source: Path, options: tuple[str, ...], architecture: str) -> str:
    library = nvrtc()
    program, size = ctypes.c_void_p(), ctypes.c_size_t()
    code = source.read_bytes()
    library.nvrtcCreateProgram(ctypes.byref(program), code, source.name.encode(), 0, None, None)
    try:
        words = [f"--gpu-architecture={architecture}", "--ptxas-options=-v", *options]
        failed = library.nvrtcCompileProgram(
            program, len(words), (ctypes.c_char_p * len(words))(*map(str.encode, words))
        )
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    if failed:
        raise BuildError(f"{source.name} does not compile for {architecture}:\n{log.value.decode().strip()}")
    return log.value.decode()


@functools.cache
def nvrtc() -> ctypes.CDLL:
    """Load NVRTC, which needs no driver and no device. Raises BuildError where it is missing."""
    try:
        spec = importlib.util.find_spec("nvidia")
    except ValueError:
        spec = None
    for root in (spec and spec.submodule_search_locations) or ():
        for path in sorted(Path(root).glob("**/libnvrtc.so.*")):
            for part in sorted(path.parent.glob("libnvrtc-builtins.so.*")):
                ctypes.CDLL(str(part))  # NVRTC looks it up by name; loading it first makes it found
            return ctypes.CDLL(str(path))
    raise BuildError("no NVRTC, which the extra 'gpu' installs: pip install nvidia-cuda-nvrtc")
