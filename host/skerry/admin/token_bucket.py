"""A token bucket: an allowance that fills at a steady rate up to a burst, and may be overdrawn.

Asking and charging are O(1) and there is no timer: what has flowed in is worked out when somebody looks. The time is
the caller's, in seconds of any clock that does not go back (a step back counts as no time).
"""


class TokenBucket:
    """Shape: `rate` tokens a second, at most `burst` at once; it begins full."""

    __slots__ = ("_at", "burst", "rate", "tokens")

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self.rate = rate
        self.burst = burst
        self.tokens = burst
        self._at = now

    def take(self, amount: float, now: float) -> float:
        """Takes the tokens, where they are there: 0. Otherwise takes none and gives the seconds until they are."""
        tokens = self._flow(now) - amount
        if tokens >= 0:
            self.tokens = tokens
            return 0.0
        return -tokens / self.rate

    def charge(self, amount: float, now: float) -> None:
        """Takes the tokens, whether they are there or not: who used more than there was is in debt."""
        self.tokens = self._flow(now) - amount

    def debt_seconds(self, now: float) -> float:
        """How long until the bucket is out of debt; 0 where it is not in debt."""
        tokens = self._flow(now)
        return -tokens / self.rate if tokens < 0 else 0.0

    def _flow(self, now: float) -> float:
        elapsed = now - self._at
        if elapsed > 0:
            self._at = now
            self.tokens = min(self.burst, self.tokens + elapsed * self.rate)
        return self.tokens
