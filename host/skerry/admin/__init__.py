"""Operating a server: its keys. What was deployed is kept by the deployment itself."""
