"""The commands of `tune-lr`: each module has `run(options)`, which returns the exit code."""
