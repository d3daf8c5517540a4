#!/usr/bin/env python3
"""Empty libraries in the place of CUDA's, for PyTorch on a CPU: python3 cuda_stubs.py [VENV]

PyPI's torch for Linux is linked with cuBLAS, cuDNN, NCCL and others, 2.5 GB to fetch, and is not loaded without
them; on a CPU it calls none. This makes, beside the wheel's own files, a library of each of those names with the
symbols that torch looks for, each of which returns an error. The runtime, libcudart, is not replaced: it is what
says that there is no GPU, and takes 4 MB (nvidia-cuda-runtime). Never for a machine with a GPU.
"""

import re
import subprocess
import sys
import sysconfig
from collections import defaultdict
from pathlib import Path

CUDA = re.compile(r"lib(cu|nv|nccl)")
KEPT = re.compile(r"libcudart\.|libcuda\.")  # the runtime is real; the driver must be absent
SYMBOL = re.compile(r"cu[A-Z]|cublas|cudnn|cufft|cusparse|cusolver|cupti|nv|nccl")
ERROR = 1  # of every CUDA library: not CUDA_SUCCESS


def output(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def wanted_by(files):
    """(names of absent libraries, {library: {version or "": symbols}})"""
    here = {f.name for f in files}
    heads = output("objdump", "-p", *map(str, files))
    names = {n for n in re.findall(r"NEEDED +(\S+)", heads) if CUDA.match(n) and not KEPT.match(n)} - here
    home = {}  # version -> the library that has it
    for block in heads.split("required from ")[1:]:
        name, _, rest = block.partition(":")
        for version in re.findall(r"^ +0x\S+ 0x\S+ \d+ (\S+)$", rest.split("required")[0], re.M):
            home[version] = name
    undefined, defined = set(), set()
    for words in map(str.split, output("nm", "-D", *map(str, files)).splitlines()):
        if len(words) < 2:
            continue
        name, _, version = words[-1].partition("@")
        if words[0] == "U":
            undefined.add((name, version.lstrip("@")))
        elif len(words) == 3:
            defined.add(name)
    symbols = defaultdict(lambda: defaultdict(list))
    for name, version in sorted(undefined):
        if name in defined:
            continue
        if home.get(version) in names:
            symbols[home[version]][version].append(name)
        elif not version and SYMBOL.match(name):  # any library may have it
            symbols[min(names)][""].append(name)
    return names, symbols


def make(folder, name, versions):
    source, script = folder / "stub.c", folder / "stub.map"
    lines = []
    for symbol in (s for group in versions.values() for s in group):
        text = re.search(r"String|Name", symbol)
        lines.append(
            f'const char *{symbol}(void) {{ return "no CUDA"; }}'
            if text
            else f"long {symbol}(void) {{ return {ERROR}; }}"
        )
    source.write_text("\n".join(lines) + "\n")
    command = [
        "cc",
        "-w",
        "-fno-builtin",
        "-shared",
        "-fPIC",
        "-o",
        folder / name,
        source,
        f"-Wl,-soname,{name}",
    ]
    if any(versions):
        nodes = (
            f"{v} {{ global: {' '.join(s + ';' for s in group)} }};" for v, group in versions.items() if v
        )
        script.write_text("\n".join(nodes) + "\n")
        command.append(f"-Wl,--version-script,{script}")
    subprocess.run(command, check=True)
    for scrap in (source, script):
        scrap.unlink(missing_ok=True)


def main():
    if len(sys.argv) > 1:
        packages = next(Path(sys.argv[1]).glob("lib/python3*/site-packages"))
    else:
        packages = Path(sysconfig.get_paths()["platlib"])
    folder = packages / "torch" / "lib"  # torch's own files look here last
    names, symbols = wanted_by(sorted(folder.glob("*.so")))
    for name in sorted(names):
        make(folder, name, symbols[name])
    print(f"{len(names)} libraries of CUDA replaced in {folder}")


if __name__ == "__main__":
    main()
