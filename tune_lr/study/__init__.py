"""Decides, with Optuna and without Ray: what runs next, and what came of it."""
