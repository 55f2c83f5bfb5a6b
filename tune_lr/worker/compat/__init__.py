"""One module for each behaviour of a dependency that is mended here.

Each says what the dependency does, the version in which that was seen, and the test that shows it: when the test of a
new version fails, the module may have become needless.
"""
