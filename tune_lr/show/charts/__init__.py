"""The charts of a study, each described once and drawn twice: as SVG by the report's page, and as PNG by matplotlib.

Every LR schedule has one colour everywhere, which `records.looks` assigns.
"""
