"""What a person sees in a terminal: the plan before a study runs, its progress, its outcome and how it stands."""
