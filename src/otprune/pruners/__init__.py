"""One file per method. The registry is `otprune.pruners.registry`."""
