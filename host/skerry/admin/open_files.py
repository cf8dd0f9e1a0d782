"""How many files this process may have open, and how many open deployments that is enough for.

A machine often gives a process 1,024 descriptors softly and many more when it asks; a server asks. Half of them are for
connections and for what else a server opens; the other half bounds how many deployments are open at once.
"""

import resource

from skerry import limits


def raise_open_files() -> int:
    """Lets this process open as many files as the machine allows, and says how many that are."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (ValueError, OSError):  # some machines say more than they allow
            hard = soft
    return limits.OPEN_FILES_ASSUMED if hard == resource.RLIM_INFINITY else hard


def deployments_open_max(files: int, workers: int = 1) -> int:
    """How many deployments may be open at once in a process that may open `files` files, one of so many workers.

    Limits: DEPLOYMENTS_OPEN_MAX of all workers together, and at least more than are opened at once.
    """
    enough_for = files // 2 // limits.DEPLOYMENT_OPEN_FILES
    most = limits.DEPLOYMENTS_OPEN_MAX // workers
    return max(limits.DEPLOYMENTS_OPENING_MAX + 1, min(most, enough_for))
