"""The version of this package, also where it runs from its source and no metadata is installed."""

__version__ = "0.2.0"
