"""What a result has to say of the machine that it was measured on."""

import os
import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path


def said(*command):
    """Standard output of a command in one line, or None where it does not run."""
    try:
        done = subprocess.run(
            [str(w) for w in command], capture_output=True, text=True, timeout=60, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return " ".join(done.stdout.split())


def versions(packages):
    """Of those that are installed."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            pass
    return found


def commit(repo):
    """$CUDPO_COMMIT where the tree came without git; a + where the tree has changes."""
    if "CUDPO_COMMIT" in os.environ:
        return os.environ["CUDPO_COMMIT"]
    short = said("git", "-C", repo, "rev-parse", "--short", "HEAD")
    return short and short + ("+" if said("git", "-C", repo, "status", "--porcelain", "-uno") else "")


def processor():
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def facts(device="cpu"):
    found = {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "system": platform.platform()}
    if device == "cuda":
        smi = ["nvidia-smi", "--id=0", "--format=csv,noheader"]
        names = ("name", "driver_version", "memory.total", "power.limit", "clocks.max.sm")
        values = (said(*smi, f"--query-gpu={','.join(names)}") or "").split(", ")
        found["gpu"] = dict(zip(names, values)) if len(values) == len(names) else {}
        found["nvcc"] = (said("nvcc", "--version") or "").split(" release ")[-1].split(",")[0] or None
    return found
