"""Memory that stays with the process: a large tensor made again costs no new pages."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource, sys
import torch
from sparsevit.latency.memory import keep_freed_memory

def new_pages():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(10 * 2**20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

kept = keep_freed_memory()
# glibc before 2.38 finds an aligned block again only once small blocks of its rim are all taken
for _ in range(24):
    new_pages()
print(kept, min(new_pages() for _ in range(3)))
"""


def kept_and_pages(**environment: str) -> tuple[str, int]:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=True,
    )
    kept, pages = done.stdout.split()
    return kept, int(pages)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_a_large_tensor_made_again_takes_no_new_pages():
    kept, pages = kept_and_pages()
    assert kept == "True"
    # 40 MiB are 10240 pages, or 20 huge ones
    assert pages < 16


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="a setting of glibc")
def test_settings_of_the_user_are_left_alone():
    kept, pages = kept_and_pages(MALLOC_MMAP_THRESHOLD_="1048576")
    assert kept == "False"
    assert pages >= 16
