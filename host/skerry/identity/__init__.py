"""Identity: who the user is that a token speaks of, and whether a provider that the deployment trusts says so.

```
convex/auth.config.ts -> providers (of a version)
a token -> tokens (taken apart, bounded) -> providers (whose) -> sources (that one's keys) -> keys (the signature)
        -> claims (times, audience; what functions see) -> User
```

`Authority` is the whole of it for one deployment. A token that was verified is not verified again until it expires or
its provider's keys change.

Deliberately absent: sessions, sign-in, refreshing of tokens (the clients' business), encrypted tokens, shared secrets
(HMAC), introspection, tokens that name their own keys (`jku`, `jwk`, `x5u`, `x5c`: not even read).
"""

from skerry.identity.authority import Authority, User
from skerry.identity.claims import acting_user
from skerry.identity.providers import Provider, read_providers
from skerry.identity.tokens import check_shape

__all__ = ["Authority", "Provider", "User", "acting_user", "check_shape", "read_providers"]
