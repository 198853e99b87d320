"""Published data sets from their publishers: fetched, checked, unpacked safely, counted."""
