"""The `skerry` command. `main` puts it together; `output` is how every command speaks; docs/cli.md is its page."""
