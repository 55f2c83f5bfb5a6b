"""The command line `tune-lr`: the parser, a module for each command, and the exit codes.

Nothing heavy is imported before the input is checked: commands import what they need when they run.
"""
