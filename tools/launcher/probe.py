"""Which network answers: one quick look, for the choice of the profile and for `tools/bazel doctor`."""

import concurrent.futures
import os
import tempfile

from . import download

# What the upstream profile cannot do without.
UPSTREAM = {"Bazel Central Registry": "https://bcr.bazel.build/bazel_registry.json", "GitHub": "https://github.com/robots.txt"}


def answers(url, seconds):
    """None where the URL answers in time, else one line that says why not."""
    try:
        with download.open_url(url, timeout=seconds) as response:
            response.read(1)
    except Exception as error:  # Whatever goes wrong is the answer.
        return download.reason(error)
    return None


def profile(seconds):
    """("upstream", why) where everything that it needs answers, else ("registries", why)."""
    pool = concurrent.futures.ThreadPoolExecutor(len(UPSTREAM))
    try:
        jobs = {name: pool.submit(answers, url, seconds) for name, url in UPSTREAM.items()}
        for name, job in jobs.items():
            try:
                problem = job.result(timeout=seconds + 0.5)
            except concurrent.futures.TimeoutError:
                problem = "timed out"
            if problem:
                return "registries", f"{name} does not answer: {problem}"
        return "upstream", " and ".join(UPSTREAM) + " answer"
    finally:
        pool.shutdown(wait=False)


def write_atomically(path, text):
    """Writes a small file of the launcher's cache in one step; a cache that cannot be written is no error."""
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=os.path.dirname(path))
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(temporary, path)
    except OSError:
        pass
