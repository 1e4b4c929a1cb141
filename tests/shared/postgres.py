"""A PostgreSQL server of its own for a test, where one is installed."""

import contextlib
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path


def missing():
    """Why there can be no server here; None where there can."""
    if _tool("initdb") is None or _tool("pg_ctl") is None:
        return "PostgreSQL is not installed"
    try:
        import psycopg  # noqa: F401
    except ImportError:
        return "psycopg is not installed"
    return None


@contextlib.contextmanager
def server():
    """Starts one that only a socket in its own folder leads to; gives its URL."""
    # short: the path of a socket has at most 107 characters
    folder = Path(tempfile.mkdtemp(prefix="pg"))
    who = {}
    if os.geteuid() == 0:  # which PostgreSQL refuses
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        who = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    data = folder / "data"

    def run(tool, *words):
        with (folder.parent / f"{folder.name}.out").open("a+") as said:
            done = subprocess.run(
                [_tool(tool), *words], cwd=folder, stdout=said, stderr=said, timeout=200, **who
            )
            said.seek(0)
            assert done.returncode == 0, said.read()

    try:
        run("initdb", "-D", str(data), "-U", "tester", "-A", "trust", "--no-sync")
        options = f"-k {folder} -c listen_addresses='' -c fsync=off"
        run("pg_ctl", "-D", str(data), "-o", options, "-w", "-t", "150", "start")
        try:
            yield f"postgresql://tester@/postgres?host={folder}"
        finally:
            run("pg_ctl", "-D", str(data), "-m", "immediate", "-w", "stop")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        Path(f"{folder}.out").unlink(missing_ok=True)


def _tool(name):
    """Debian keeps the server's programs off the path."""
    found = shutil.which(name)
    if found is not None:
        return found
    versions = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    return str(versions[-1]) if versions else None
