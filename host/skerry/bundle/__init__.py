"""Building, reading, verifying and watching bundles: from an app's folder to the one file that is deployed."""
