"""Download published datasets from their publishers: fetch, check, unpack safely, count the images."""
