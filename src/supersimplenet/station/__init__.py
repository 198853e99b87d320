"""The station: a service that inspects pictures, keeps results, and shows them on a page."""
