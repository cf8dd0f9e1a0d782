"""The server that the npm client talks to."""

from tests.http.conftest import app_bundle, server

__all__ = ["app_bundle", "server"]
