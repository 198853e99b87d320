"""Download published data sets from their publishers: fetch, check, unpack safely, count the images."""
