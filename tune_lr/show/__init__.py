"""Shows a study to people: in the terminal, as a report, and as charts."""
