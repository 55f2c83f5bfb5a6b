"""Executes trials, with Ray: slots, and the groups of workers in them."""
