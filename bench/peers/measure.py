"""Runs a peer to its end or its time, and takes its peak memory the same way for every peer."""

import ctypes
import os
import signal
import subprocess
import time
from pathlib import Path

POLL = 0.02  # seconds


class DeviceMemory:
    """Bytes in use on GPU 0, by NVML: all processes' together, so nothing else may run on it."""

    def __init__(self):
        self.handle = None
        try:
            nvml = ctypes.CDLL("libnvidia-ml.so.1")
        except OSError:
            return
        first = os.environ.get("CUDA_VISIBLE_DEVICES", "0").split(",")[0]
        handle = ctypes.c_void_p()
        if nvml.nvmlInit_v2() != 0:
            return
        if first.isdigit():
            found = nvml.nvmlDeviceGetHandleByIndex_v2(int(first), ctypes.byref(handle))
        else:
            found = nvml.nvmlDeviceGetHandleByUUID(first.encode(), ctypes.byref(handle))
        if found == 0:
            self.nvml, self.handle = nvml, handle

    def used(self):
        """None where NVML does not say."""
        fields = (ctypes.c_ulonglong * 3)()  # nvmlMemory_t: total, free, used
        if self.handle is None or self.nvml.nvmlDeviceGetMemoryInfo(self.handle, fields) != 0:
            return None
        return fields[2]


class Outcome:
    """code: of the process, None where its time was up. peak_mb: resident. device_mb: None without a GPU."""

    def __init__(self, code, peak_mb, device_mb, log):
        self.code, self.peak_mb, self.device_mb, self.log = code, peak_mb, device_mb, log

    def reason(self):
        """Why it failed, in a line."""
        if self.code is None:
            return "its time was up before two steps were done"
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        if any("out of memory" in line.lower() for line in lines[-40:]):
            return "out of memory"
        return f"exit status {self.code}: {lines[-1][:200] if lines else 'no output'}"


def environment(device, threads, cache):
    own = {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL", "OPENBLAS")}
    own |= {
        "HF_HUB_OFFLINE": "1",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "XDG_CACHE_HOME": str(cache),
        "HF_HOME": str(cache / "huggingface"),
    }
    if device == "cpu":
        own["CUDA_VISIBLE_DEVICES"] = ""
    return os.environ | own


def spawn(command, device, threads, log, seconds):
    """This process must stay small: a child starts with the resident set of its parent."""
    memory = DeviceMemory() if device == "cuda" else None
    before = memory.used() if memory else None
    most, ended, code = before, time.monotonic() + seconds, None
    with open(log, "wb") as out:
        child = subprocess.Popen(
            [str(word) for word in command],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=out,
            env=environment(device, threads, Path(log).parent / "cache"),
            start_new_session=True,
        )
        try:
            while True:
                pid, status, usage = os.wait4(child.pid, os.WNOHANG)
                if pid:
                    code = os.waitstatus_to_exitcode(status)
                    break
                if time.monotonic() > ended:
                    os.killpg(child.pid, signal.SIGKILL)
                    _, _, usage = os.wait4(child.pid, 0)
                    break
                if before is not None:
                    most = max(most, memory.used() or 0)
                time.sleep(POLL)
        except BaseException:
            os.killpg(child.pid, signal.SIGKILL)
            raise
        child.returncode = code if code is not None else -signal.SIGKILL
    used = None if before is None else (most - before) / 1e6
    return Outcome(code, usage.ru_maxrss * 1024 / 1e6, used, Path(log))
