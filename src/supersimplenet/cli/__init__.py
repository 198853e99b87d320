"""The command line: options only. Each command passes plain values to one function of the package."""
