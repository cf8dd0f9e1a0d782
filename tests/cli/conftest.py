"""The bundle and the server that the command's tests use."""

from tests.http.conftest import app_bundle, server

__all__ = ["app_bundle", "server"]
