"""One file per method. The registry is `otprune.registry`."""
