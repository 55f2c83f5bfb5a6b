"""A search space: its YAML, its typed and checked form, its defaults, and the plan of what it will run."""
