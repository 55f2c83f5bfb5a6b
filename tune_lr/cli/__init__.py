"""The command line `tune-lr`."""
