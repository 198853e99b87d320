"""The command line: options only. Each command hands plain values to one function of the package."""
