"""Linux control groups of this process: its own and those above it, each of which may have a limit."""

from __future__ import annotations

from pathlib import Path


def own_folders(mount: str, controller: str, root: Path = Path("/")) -> list[Path]:
    """The groups' folders, this process's own first, the topmost last.

    `mount` and `controller` are of the first version of control groups, as in `cpu,cpuacct` and `cpu`; both are empty
    for the second one's, of which there is one tree for all.
    """
    top = root / "sys/fs/cgroup" / mount
    try:
        lines = (root / "proc/self/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:  # `4:cpu,cpuacct:/user.slice`, `0::/user.slice`
        controllers, _, path = line.partition(":")[2].partition(":")
        if (controller in controllers.split(",") if controller else not controllers) and ".." not in path:
            own = Path(path.lstrip("/"))
            return [top / group for group in (own, *own.parents)]
    return [top]
