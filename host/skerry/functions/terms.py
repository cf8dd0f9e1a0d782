"""What a deployment may use and where its use is counted, as far as running its calls asks.

Here is a deployment without quotas of its own; those that an operator sets are `admin.shares`. Who answers for a host
hands its terms to each deployment, so that they outlive its closing.

Concurrency: the loop thread.
"""

from skerry import limits
from skerry.errors import SkerryError
from skerry.functions.metering import Meter
from skerry.functions.patient_threads import PatientQueue


class Terms:
    """Terms without quotas.

    Shape: `meter` counts what is used; `patient_queue` is the deployment's turn at the background threads.
    """

    __slots__ = ("meter", "patient_queue")

    def __init__(self, meter: Meter | None = None) -> None:
        self.meter = meter or Meter()
        self.patient_queue = PatientQueue()

    @property
    def memory_bytes(self) -> int:
        """What one isolate's memory may grow to."""
        return limits.GUEST_MEMORY_BYTES_MAX

    @property
    def storage_bytes(self) -> int | None:
        """What the deployment's data may grow to; None for as much as the disk takes."""
        return None

    @property
    def cpu_wait_s(self) -> float:
        """The seconds until the deployment has paid for the CPU time that it used."""
        return 0.0

    def admit(self, under_way: int, calls: int = 1) -> SkerryError | None:
        """The refusal of so many calls, all or none, beside those that run or wait; None where they may come, and
        count."""
        return None

    def admit_action(self, under_way: int) -> SkerryError | None:
        """The refusal of one more action beside those under way, None where it may begin."""
        return None
