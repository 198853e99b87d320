"""SuperSimpleNet: surface-defect detection with whatever labels there are."""

__version__ = "0.1.0"
