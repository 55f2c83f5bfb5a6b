"""Plain data: what the driver, the workers, the files and the people who look at a study exchange."""
